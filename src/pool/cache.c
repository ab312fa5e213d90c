/* The compiled statements of a slot: a hash table of its own, which nobody else looks at.
 *
 * What is dropped when there is no more room is the text that has not been used for longest, and only where there is none
 * such a prepared statement. Statements that are being executed
 * stay; the same statement executed twice at a time is compiled twice.
 *
 * SPDX-License-Identifier: MIT */
#include "../os/os.h"
#include "fast.h"

static bool is_open(const struct thr_entry *entry)
{
    return thr_read(&entry->serial) != 0;
}

/* Texts before statements that were prepared: many texts are run only once. */
static bool is_dropped_before(const struct thr_entry *entry, const struct thr_entry *other)
{
    bool prepared = (entry->key & THR_KEY_STMT) != 0, other_prepared = (other->key & THR_KEY_STMT) != 0;

    return prepared != other_prepared ? other_prepared : entry->used < other->used;
}

static void entry_drop(struct thr_slot *slot, struct thr_entry *entry)
{
    struct thr_entry **link = thr_bucket_of(slot, entry->key);

    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    slot->driver->finalize(slot->conn, entry->stmt);
    entry->stmt = NULL;
    thr_os_free(entry->sql);
    entry->sql = NULL;
    slot->compiled_count--;
}

/* Statements are never more than they may be, unless more than that are being executed at once. */
static struct thr_entry *entry_room(struct thr_slot *slot, throng_error *err)
{
    struct thr_entry *oldest = NULL, *entry;

    if (slot->compiled_count >= slot->db->cached_statements) {
        for (entry = slot->entries; entry != NULL; entry = entry->all) {
            if (entry->stmt != NULL && !is_open(entry) && (oldest == NULL || is_dropped_before(entry, oldest)))
                oldest = entry;
        }
        if (oldest != NULL) {
            entry_drop(slot, oldest);
            thr_count(&slot->evictions, 1);
            return oldest;
        }
    }
    for (entry = slot->entries; entry != NULL; entry = entry->all) {
        if (entry->stmt == NULL)
            return entry;
    }
    if (slot->open_count >= THR_ROWS_MAX) {
        (void)thr_error_set(err, THRONG_MISUSE, 0, NULL, "too many rows are open on one connection");
        return NULL;
    }
    if ((entry = thr_os_alloc(sizeof *entry)) == NULL) {
        (void)thr_error_plain(err, THRONG_NOMEM);
        return NULL;
    }
    entry->slot = slot;
    entry->driver = slot->driver;
    entry->all = slot->entries;
    slot->entries = entry;
    return entry;
}

/* A copy of the statement's text, since the compiler is not called under a lock. */
static int copy_text(struct thr_slot *slot, const struct thr_source *source, char **sql_out, size_t *bytes_out,
                     throng_error *err)
{
    throng_db *db = slot->db;
    const char *sql = source->sql;
    size_t bytes = source->bytes;
    int code = THRONG_OK;
    char *copy;

    if (source->id != 0) {
        const struct thr_statement *statement;

        thr_pool_lock(&db->statement_lock);
        statement = thr_statement_find(db, source->id);
        if (statement == NULL)
            code = thr_error_set(err, THRONG_CLOSED, 0, NULL, "the statement is closed");
        sql = statement != NULL ? statement->sql : "";
        bytes = statement != NULL ? statement->bytes : 0;
    }
    copy = code == THRONG_OK ? thr_os_alloc(bytes + 1) : NULL;
    if (copy != NULL)
        memcpy(copy, sql, bytes);
    else if (code == THRONG_OK)
        code = thr_error_plain(err, THRONG_NOMEM);
    if (source->id != 0)
        thr_pool_unlock(&db->statement_lock);
    *sql_out = copy;
    *bytes_out = bytes;
    return code;
}

int thr_cache_compile(struct thr_slot *slot, const struct thr_source *source, struct thr_entry **entry_out,
                      throng_error *err)
{
    const struct thr_driver *driver = slot->driver;
    struct thr_entry *entry, **bucket;
    char *sql;
    size_t bytes;
    int code = copy_text(slot, source, &sql, &bytes, err);

    *entry_out = NULL;
    thr_count(&slot->misses, 1);
    if (code != THRONG_OK)
        return code;
    if ((entry = entry_room(slot, err)) == NULL) {
        thr_os_free(sql);
        return slot->open_count >= THR_ROWS_MAX ? THRONG_MISUSE : THRONG_NOMEM;
    }
    code = driver->prepare(slot->conn, sql, bytes, true, &entry->stmt, &entry->info, err);
    if (code == THRONG_OK && entry->info.tail != 0)
        code = THR_SCRIPT;
    if (code != THRONG_OK || entry->stmt == NULL) {
        if (entry->stmt != NULL)
            driver->finalize(slot->conn, entry->stmt);
        entry->stmt = NULL;
        thr_os_free(sql);
        return code;
    }
    entry->key = source->key;
    entry->used = thr_read(&slot->serial);
    entry->is_new = true;
    entry->sql = sql;
    entry->sql_bytes = bytes;
    bucket = thr_bucket_of(slot, entry->key);
    entry->chain = *bucket;
    *bucket = entry;
    slot->compiled_count++;
    *entry_out = entry;
    return THRONG_OK;
}

static bool in_ring(const uint64_t *ring, uint64_t from, uint64_t to, uint64_t key)
{
    for (; from < to; from++) {
        if ((ring[from % THR_CLOSED_RING] | THR_KEY_STMT) == key)
            return true;
    }
    return false;
}

/* What is being executed is left: it comes up again, since closed_seen then stays. */
void thr_cache_sweep(struct thr_slot *slot)
{
    throng_db *db = slot->db;
    uint64_t ring[THR_CLOSED_RING], from = slot->closed_seen, to;
    bool left = false, all;

    thr_pool_lock(&db->statement_lock);
    to = thr_read(&db->closed_count);
    memcpy(ring, db->closed_ring, sizeof ring);
    thr_pool_unlock(&db->statement_lock);
    all = to - from > THR_CLOSED_RING;
    for (struct thr_entry *entry = slot->entries; entry != NULL; entry = entry->all) {
        if (entry->stmt == NULL || (entry->key & THR_KEY_STMT) == 0 || (!all && !in_ring(ring, from, to, entry->key)))
            continue;
        if (is_open(entry))
            left = true;
        else
            entry_drop(slot, entry);
    }
    if (!left)
        slot->closed_seen = to;
}

void thr_cache_drop(struct thr_slot *slot)
{
    for (struct thr_entry *entry = slot->entries; entry != NULL; entry = entry->all) {
        if (entry->stmt != NULL)
            entry_drop(slot, entry);
    }
}

void thr_cache_free(struct thr_slot *slot)
{
    struct thr_entry *next;

    for (struct thr_entry *entry = slot->entries; entry != NULL; entry = next) {
        next = entry->all;
        thr_os_free(entry);
    }
    slot->entries = NULL;
    thr_os_free(slot->buckets);
    slot->buckets = NULL;
}
