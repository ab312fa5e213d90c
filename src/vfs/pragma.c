/* PRAGMAs: ours, and those of SQLite that mean something else here.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "vfs.h"

#include "../ckpt/checkpoint.h"
#include "../os/os.h"
#include "../txn/format.h"

/* All modes are answered with the one in force: changes can always be rolled back, and what a commit survives is up
 * to `synchronous`, not to the journal. */
static int pragma_journal_mode(struct thr_main_file *file, char **args)
{
    (void)file;
    args[0] = sqlite3_mprintf("delete");
    return args[0] == NULL ? SQLITE_NOMEM : SQLITE_OK;
}

/* SQLite keeps the mode; here it means that the connection is the only writer as long as it lasts. */
static int pragma_locking_mode(struct thr_main_file *file, char **args)
{
    if (args[2] != NULL && sqlite3_stricmp(args[2], "exclusive") == 0) {
        if (file->lock != SQLITE_LOCK_NONE && !file->conn->keeps_lock) { /* others may have committed meanwhile */
            args[0] = sqlite3_mprintf("locking_mode=EXCLUSIVE wants to be set outside a transaction");
            return SQLITE_BUSY;
        }
        file->exclusive = true;
    }
    if (args[2] != NULL && sqlite3_stricmp(args[2], "normal") == 0)
        file->exclusive = false;
    return SQLITE_NOTFOUND;
}

/* As SQLite's own getSafetyLevel() understands it. */
static enum thr_sync sync_of(const char *text)
{
    static const struct {
        const char *name;
        enum thr_sync sync;
    } NAMES[] = {
        {"off", THR_SYNC_OFF},    {"no", THR_SYNC_OFF},      {"false", THR_SYNC_OFF}, {"on", THR_SYNC_NORMAL},
        {"yes", THR_SYNC_NORMAL}, {"true", THR_SYNC_NORMAL}, {"full", THR_SYNC_FULL}, {"extra", THR_SYNC_EXTRA},
    };

    if (text[0] >= '0' && text[0] <= '9') {
        long level = strtol(text, NULL, 10) & 7;

        return level >= 7 ? THR_SYNC_OFF : level >= 3 ? THR_SYNC_EXTRA : (enum thr_sync)level;
    }
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (sqlite3_stricmp(text, NAMES[i].name) == 0)
            return NAMES[i].sync;
    return THR_SYNC_NORMAL;
}

enum thr_sync thr_pragma_default_sync(void)
{
    static const char OPTION[] = "DEFAULT_SYNCHRONOUS=";
    const char *option;

    for (int i = 0; (option = sqlite3_compileoption_get(i)) != NULL; i++)
        if (strncmp(option, OPTION, sizeof OPTION - 1) == 0)
            return sync_of(option + sizeof OPTION - 1);
    return THR_SYNC_FULL;
}

static int pragma_synchronous(struct thr_main_file *file, char **args)
{
    /* Inside a transaction SQLite refuses to change it. */
    if (args[2] != NULL && (file->db == NULL || sqlite3_get_autocommit(*file->db)))
        file->conn->sync = sync_of(args[2]);
    return SQLITE_NOTFOUND;
}

/* A change of format is a commit, unless there is nothing to convert, or nothing may be written. */
static int mark(const struct thr_conn *conn)
{
    struct thr_db *db = conn->db;

    if (conn->read_only || db->foreign || atomic_load_explicit(&db->shm.head->page_size, memory_order_acquire) == 0)
        return SQLITE_OK;
    return thr_checkpoint_mark(db, conn->sync > THR_SYNC_OFF);
}

static int pragma_freelist_format(struct thr_main_file *file, char **args)
{
    uint32_t format = 0;
    int rc;

    if (args[2] != NULL && strcmp(args[2], "1") != 0 && strcmp(args[2], "2") != 0) {
        args[0] = sqlite3_mprintf("freelist_format is 1 (one free list) or 2 (stripes), not %s", args[2]);
        return SQLITE_ERROR;
    }
    if (args[2] != NULL && ((rc = mark(file->conn)) != SQLITE_OK ||
                            (rc = thr_format_set(file->conn, args[2][0] == '1' ? 1u : 2u)) != SQLITE_OK)) {
        args[0] = sqlite3_mprintf("freelist_format cannot be changed now: %s", sqlite3_errstr(rc));
        return rc;
    }
    format = atomic_load_explicit(&file->conn->db->shm.head->format, memory_order_relaxed);
    args[0] = sqlite3_mprintf("%u", format);
    return args[0] == NULL ? SQLITE_NOMEM : SQLITE_OK;
}

static int pragma_stats(struct thr_main_file *file, char **args)
{
    char *text = NULL, *longer;

    for (uint32_t i = 0; thr_stats_name(i) != NULL; i++) {
        longer = sqlite3_mprintf("%s%s%s %lld", text == NULL ? "" : text, text == NULL ? "" : "\n", thr_stats_name(i),
                                 (long long)thr_stats_value(file->conn->db, i));
        sqlite3_free(text);
        if ((text = longer) == NULL)
            return SQLITE_NOMEM;
    }
    args[0] = text;
    return SQLITE_OK;
}

static bool shows_stripe(const struct thr_main_file *file)
{
    const struct thr_conn *conn = file->conn;

    return file->lock != SQLITE_LOCK_NONE && conn->stripe.part &&
           (conn->page_count != conn->committed_count || conn->free_count != conn->committed_free);
}

/* It counts all free pages, and is shown them if it begins the transaction (file.c). One that began before is shown what its
 * writer needs. Without a schema it looks at all databases. */
static int pragma_check(struct thr_main_file *file, char **args)
{
    sqlite3 *db = file->db == NULL ? NULL : *file->db;
    const char *schema;
    bool refuse = shows_stripe(file);

    for (int i = 0; db != NULL && !refuse && (schema = sqlite3_db_name(db, i)) != NULL; i++) {
        const struct thr_main_file *other = i == 1 ? NULL : thr_main_of(db, schema);

        refuse = other != NULL && shows_stripe(other);
    }
    if (!refuse)
        return SQLITE_NOTFOUND;
    args[0] = sqlite3_mprintf("%s: this connection has free pages of its own in its transaction; end it first",
                              args[1]);
    return SQLITE_ERROR;
}

/* Of one database: not while the connection is in a transaction on it. */
static int checkpoint(struct thr_main_file *file, const char *schema, bool pass)
{
    if (sqlite3_txn_state(*file->db, schema) != SQLITE_TXN_NONE)
        return SQLITE_LOCKED;
    return thr_checkpoint_run(file->conn->db, pass);
}

int thr_pragma_checkpoint(struct thr_main_file *file, int mode)
{
    sqlite3 *db = file->db == NULL ? NULL : *file->db;
    sqlite3_file *at;
    const char *schema;

    for (int i = 0; db != NULL && (schema = sqlite3_db_name(db, i)) != NULL; i++)
        if (sqlite3_file_control(db, schema, SQLITE_FCNTL_FILE_POINTER, (void *)&at) == SQLITE_OK &&
            at == (sqlite3_file *)file)
            return checkpoint(file, schema, mode != SQLITE_CHECKPOINT_PASSIVE);
    return SQLITE_NOTFOUND;
}

/* SQLite answers it with a row of its own: 0|-1|-1, as for every database without a WAL. All modes but PASSIVE go past
 * snapshots that are open, and fail if some of it has to wait all the same. Without a schema it is meant for all databases
 * of the connection. The file is then asked that comes first; that is also how it is asked when its schema is named. */
static int pragma_checkpoint(struct thr_main_file *file, char **args)
{
    bool pass = args[2] != NULL && (sqlite3_stricmp(args[2], "full") == 0 || sqlite3_stricmp(args[2], "restart") == 0 ||
                                    sqlite3_stricmp(args[2], "truncate") == 0);
    sqlite3 *db = file->db == NULL ? NULL : *file->db;
    bool first = false, busy = false;
    const char *schema;
    sqlite3_file *at;
    int rc;

    for (int i = 0; db != NULL && (schema = sqlite3_db_name(db, i)) != NULL; i++) {
        if (sqlite3_file_control(db, schema, SQLITE_FCNTL_FILE_POINTER, (void *)&at) != SQLITE_OK || at == NULL ||
            at->pMethods != &thr_main_methods)
            continue;
        first = first || (i == 0 && at == (sqlite3_file *)file);
        if (!first && at != (sqlite3_file *)file)
            continue;
        rc = checkpoint((struct thr_main_file *)(void *)at, schema, pass);
        if (rc == SQLITE_LOCKED)
            break; /* in a transaction: SQLite says so when it comes to that database */
        busy = busy || (rc == SQLITE_BUSY && pass);
        if (rc != SQLITE_OK && rc != SQLITE_BUSY) {
            args[0] = sqlite3_mprintf("wal_checkpoint: %s: %s", sqlite3_db_filename(db, schema), sqlite3_errstr(rc));
            return rc;
        }
    }
    if (!busy)
        return SQLITE_NOTFOUND;
    args[0] = sqlite3_mprintf("wal_checkpoint: statements that read mapped pages of the file are running");
    return SQLITE_BUSY;
}

int thr_pragma(struct thr_main_file *file, char **args)
{
    static const struct {
        const char *name;
        int (*fn)(struct thr_main_file *file, char **args);
    } PRAGMAS[] = {
        {"journal_mode", pragma_journal_mode}, {"locking_mode", pragma_locking_mode},
        {"synchronous", pragma_synchronous},   {"freelist_format", pragma_freelist_format},
        {"throng_stats", pragma_stats},        {"integrity_check", pragma_check},
        {"quick_check", pragma_check},         {"wal_checkpoint", pragma_checkpoint},
    };

    for (size_t i = 0; i < sizeof PRAGMAS / sizeof PRAGMAS[0]; i++)
        if (sqlite3_stricmp(args[1], PRAGMAS[i].name) == 0)
            return PRAGMAS[i].fn(file, args);
    return SQLITE_NOTFOUND;
}
