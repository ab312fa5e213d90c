/* Prepared statements: a name for a text. What is compiled belongs to the connections (cache.c).
 *
 * A throng_stmt is a value with a number that is never used twice. Connections find what they have compiled by that
 * number alone, so running a statement touches nothing that is shared: no lock, no count of references, no list of
 * connections. Closing one makes a counter move, which connections read, and leaves the number in a ring, by which they
 * learn what to drop. Who is more than a ring behind drops all.
 *
 * SPDX-License-Identifier: MIT */
#include <xxhash.h>

#include "../os/os.h"
#include "fast.h"

struct thr_source thr_source_text(const char *sql)
{
    size_t bytes = strlen(sql);

    return (struct thr_source){.key = XXH3_64bits(sql, bytes) & ~THR_KEY_STMT, .sql = sql, .bytes = bytes};
}

const struct thr_statement *thr_statement_find(throng_db *db, uint64_t id)
{
    uint32_t place = (uint32_t)id - 1;

    return place < db->statement_used && db->statements[place].sql != NULL && db->statements[place].id == id
               ? &db->statements[place]
               : NULL;
}

/* Under statement_lock. A place, its generation moved on. */
static int statement_new(throng_db *db, struct thr_statement **statement_out, throng_error *err)
{
    struct thr_statement *statement;
    uint32_t place;

    *statement_out = NULL;
    if (db->statement_free != 0) {
        place = db->statement_free - 1;
        db->statement_free = db->statements[place].next_free;
    } else {
        if (db->statement_used == db->max_statements)
            return thr_error_set(err, THRONG_MISUSE, 0, NULL, "%u statements are open, as many as there may be",
                                 db->max_statements);
        if (db->statement_used == db->statement_room) {
            uint32_t room = db->statement_room == 0 ? 16 : 2 * db->statement_room;

            statement = thr_os_realloc(db->statements, room * sizeof *statement);
            if (statement == NULL)
                return thr_error_plain(err, THRONG_NOMEM);
            db->statements = statement;
            db->statement_room = room;
        }
        place = db->statement_used++;
        db->statements[place] = (struct thr_statement){.id = place + 1};
    }
    statement = &db->statements[place];
    statement->id = (statement->id & ~THR_KEY_STMT) + (UINT64_C(1) << 32);
    *statement_out = statement;
    return THRONG_OK;
}

/* Under statement_lock. */
static void statement_end(throng_db *db, struct thr_statement *statement)
{
    thr_os_free(statement->sql);
    statement->sql = NULL;
    if (statement->id >> 32 == UINT32_MAX >> 1)
        return; /* its numbers are used up */
    statement->next_free = db->statement_free;
    db->statement_free = (uint32_t)statement->id;
}

/* Give a text a number. */
static int statement_open(throng_db *db, const char *sql, throng_stmt *stmt, throng_error *err)
{
    size_t bytes = strlen(sql);
    struct thr_statement *statement = NULL;
    char *copy = thr_os_alloc(bytes + 1);
    int code;

    if (copy == NULL)
        return thr_error_plain(err, THRONG_NOMEM);
    memcpy(copy, sql, bytes + 1);
    thr_pool_lock(&db->statement_lock);
    code = statement_new(db, &statement, err);
    if (statement != NULL) {
        statement->sql = copy;
        statement->bytes = bytes;
        *stmt = (throng_stmt){.db = db, .id = statement->id};
    }
    thr_pool_unlock(&db->statement_lock);
    if (statement == NULL)
        thr_os_free(copy);
    return code;
}

static int try_compile(struct thr_slot *slot, const throng_stmt *stmt, const char *sql, throng_error *err)
{
    struct thr_source source = thr_source_stmt(stmt);
    struct thr_entry *entry;
    int code = thr_cache_get(slot, &source, &entry, err);

    if (code == THR_CONN_STALE && (code = thr_lease_renew(slot, 0, err)) == THRONG_OK)
        code = thr_cache_get(slot, &source, &entry, err);
    if (code == THR_SCRIPT)
        return thr_error_set(err, THRONG_MISUSE, 0, sql, "it is more than one statement");
    if (code == THRONG_OK && entry == NULL)
        return thr_error_set(err, THRONG_MISUSE, 0, sql, "there is no statement in it");
    if (code == THRONG_OK)
        entry->is_new = false;
    return code == THRONG_OK ? code : thr_lease_failed(slot, code == THR_CONN_STALE ? THRONG_CONN_LOST : code);
}

int throng_db_prepare(throng_db *db, const struct throng_options *options, const char *sql, throng_stmt *stmt,
                      throng_error *err)
{
    struct thr_slot *slot;
    int code, end;

    *stmt = (throng_stmt){0};
    if ((code = thr_options_check(options, err)) != THRONG_OK)
        return code;
    if (sql == NULL)
        return thr_error_plain(err, THRONG_MISUSE);
    code = thr_lease_take(db, options != NULL ? options->deadline_ns : 0, options != NULL ? options->cancel : NULL,
                          NULL, &slot, err);
    if (code != THRONG_OK)
        return code;
    code = statement_open(db, sql, stmt, err);
    if (code == THRONG_OK && (code = try_compile(slot, stmt, sql, err)) != THRONG_OK) {
        throng_stmt_close(stmt);
        *stmt = (throng_stmt){0};
    }
    end = thr_lease_end(slot, code == THRONG_OK ? err : NULL);
    return code != THRONG_OK ? code : end;
}

void throng_stmt_close(const throng_stmt *stmt)
{
    throng_db *db = stmt->db;
    struct thr_statement *statement;

    if (db == NULL)
        return;
    thr_pool_lock(&db->statement_lock);
    if (thr_statement_find(db, stmt->id) != NULL) {
        uint64_t count = thr_read(&db->closed_count);

        statement = &db->statements[(uint32_t)stmt->id - 1];
        statement_end(db, statement);
        db->closed_ring[count % THR_CLOSED_RING] = stmt->id;
        /* relaxed: readers that see it take the lock before they read the ring */
        atomic_store_explicit(&db->closed_count, count + 1, memory_order_relaxed);
    }
    thr_pool_unlock(&db->statement_lock);
}
