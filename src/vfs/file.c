/* The methods of a database file.
 *
 * SPDX-License-Identifier: MIT */
#include <stddef.h>
#include <string.h>

#include "vfs.h"

#include "../ckpt/checkpoint.h"
#include "../os/os.h"
#include "../os/point.h"
#include "../txn/group.h"
#include "../txn/plan.h"
#include "throng.h"

enum { RERUNS_MAX = 20 };
static const uint64_t IN_PLACE_NS = 10000000;

/* Our own file control: SQLITE_FCNTL_FILE_POINTER would give the file of a VFS above. */
#define FCNTL_MAIN_FILE 0x54480102
struct main_file_ask {
    const sqlite3_io_methods *methods; /* of who asks */
    struct thr_main_file *file;
};

static struct thr_main_file *main_of(sqlite3_file *file)
{
    return (struct thr_main_file *)(void *)file;
}

struct thr_main_file *thr_main_of(sqlite3 *db, const char *schema)
{
    struct main_file_ask ask = {.methods = &thr_main_methods};

    return sqlite3_file_control(db, schema, FCNTL_MAIN_FILE, &ask) == SQLITE_OK ? ask.file : NULL;
}

/* A child after fork() shares its parent's mappings, and by them slots, locks and frames: it must not touch anything
 * of a database that its parent opened. */
static bool is_inherited(const struct thr_main_file *file)
{
    return file->forks != thr_fork_count();
}

static int refuse_inherited(const struct thr_main_file *file, int code)
{
    thr_log(code, "throng: %s was opened before fork(): open it again in the child", file->conn->db->path);
    return code;
}

static bool keep_waiting(void *ctx, int count)
{
    struct thr_main_file *file = ctx;

    (void)count;
    return file->busy_handler != NULL && file->busy_handler(file->busy_arg) != 0;
}

static bool reads_beside(void *ctx)
{
    const struct thr_main_file *file = ctx;
    struct thr_statement_info info;

    thr_statement_info(file->db == NULL ? NULL : *file->db, NULL, NULL, &info);
    return info.busy > 1;
}

int thr_main_open(const char *name, struct thr_main_file *file, int flags, int *flags_out)
{
    struct thr_db *db;
    bool read_only = false;
    int rc;

    memset(file, 0, sizeof *file);
    if ((rc = thr_db_acquire(name, flags, &file->open_db, &db, &read_only)) != SQLITE_OK)
        return rc;
    if ((rc = thr_conn_open(db, read_only, &file->conn)) != SQLITE_OK) {
        thr_db_release(file->open_db);
        return rc;
    }
    file->conn->sync = thr_pragma_default_sync();
    file->name = name;
    file->powersafe = sqlite3_uri_boolean(name, "psow", 1) != 0;
    file->conn->keep_waiting = keep_waiting;
    file->conn->reads_beside = reads_beside;
    file->conn->keep_waiting_ctx = file;
    file->forks = thr_fork_count();
    if (flags_out != NULL)
        *flags_out = read_only ? (flags & ~SQLITE_OPEN_READWRITE & ~SQLITE_OPEN_CREATE) | SQLITE_OPEN_READONLY : flags;
    file->base.pMethods = &thr_main_methods;
    thr_beside_add(file);
    return SQLITE_OK;
}

static int main_close(sqlite3_file *sqlite_file)
{
    struct thr_main_file *file = main_of(sqlite_file);

    thr_beside_remove(file);
    thr_journal_free(&file->journal);
    thr_family_leave(file);
    if (!is_inherited(file)) { /* a child must not end what its parent began */
        thr_conn_close(file->conn);
        thr_db_release(file->open_db);
    }
    sqlite_file->pMethods = NULL;
    return SQLITE_OK;
}

/* SQLITE_FCNTL_LAST_ERRNO: of a call for this file that failed by the system. */
static int remember_errno(struct thr_main_file *file, int rc)
{
    if ((rc & 0xff) == SQLITE_IOERR || rc == SQLITE_FULL)
        file->last_errno = thr_os_last_errno();
    return rc;
}

/* Outside any lock SQLite reads the header once, at open. */
static int read_unlocked(struct thr_main_file *file, void *to, int bytes, int64_t offset, bool *short_out)
{
    int rc = thr_txn_begin(file->conn, THR_KIND_READ);

    if (rc != SQLITE_OK)
        return rc == SQLITE_BUSY ? SQLITE_IOERR_READ : rc;
    rc = thr_page_read(file->conn, to, (size_t)bytes, offset, short_out);
    thr_txn_end(file->conn);
    return rc;
}

static int main_read(sqlite3_file *sqlite_file, void *to, int bytes, sqlite3_int64 offset)
{
    struct thr_main_file *file = main_of(sqlite_file);
    bool is_short = false;
    int rc;

    if (is_inherited(file))
        return refuse_inherited(file, SQLITE_IOERR_READ);
    if (file->lock == SQLITE_LOCK_NONE)
        rc = read_unlocked(file, to, bytes, offset, &is_short);
    else
        rc = thr_page_read(file->conn, to, (size_t)bytes, offset, &is_short);
    if (rc == SQLITE_OK && is_short)
        return SQLITE_IOERR_SHORT_READ;
    return remember_errno(file, rc);
}

static int main_write(sqlite3_file *sqlite_file, const void *from, int bytes, sqlite3_int64 offset)
{
    struct thr_main_file *file = main_of(sqlite_file);
    int rc;

    if (is_inherited(file))
        return refuse_inherited(file, SQLITE_IOERR_WRITE);
    if (!file->conn->writing)
        return SQLITE_IOERR_WRITE;
    rc = thr_page_write(file->conn, from, (size_t)bytes, offset);
    return remember_errno(file, file->journal.rolling_back ? thr_rollback_error(rc) : rc);
}

static int main_truncate(sqlite3_file *sqlite_file, sqlite3_int64 size)
{
    struct thr_main_file *file = main_of(sqlite_file);
    uint32_t page_size = thr_conn_page_size(file->conn);

    if (is_inherited(file))
        return refuse_inherited(file, SQLITE_IOERR_TRUNCATE);
    if (!file->conn->writing)
        return SQLITE_IOERR_TRUNCATE;
    if (page_size != 0)
        thr_page_truncate(file->conn, (uint32_t)((size + page_size - 1) / page_size));
    return SQLITE_OK;
}

static int main_sync(sqlite3_file *sqlite_file, int flags)
{
    struct thr_main_file *file = main_of(sqlite_file);
    struct thr_db *db = file->conn->db;
    int rc;

    (void)flags;
    if (is_inherited(file))
        return refuse_inherited(file, SQLITE_IOERR_FSYNC);
    /* Nothing to do: the commit has done what PRAGMA synchronous asked for; unless we do not know better. */
    if (!file->conn->committed || file->conn->sync != THR_SYNC_OFF)
        return SQLITE_OK;
    rc = thr_checkpoint_mark(db, true);
    return rc == SQLITE_OK ? thr_log_sync(&db->log, file->conn->snapshot) : rc;
}

static int main_file_size(sqlite3_file *sqlite_file, sqlite3_int64 *size_out)
{
    struct thr_main_file *file = main_of(sqlite_file);
    struct thr_conn *conn = file->conn;
    uint32_t page_count = conn->page_count;

    if (conn->db->foreign) {
        *size_out = atomic_load_explicit(&conn->db->base.bytes, memory_order_acquire);
        return SQLITE_OK;
    }
    for (uint32_t i = 0; i < conn->writes.count; i++)
        if (conn->writes.at[i].pgno > page_count)
            page_count = conn->writes.at[i].pgno;
    *size_out = (sqlite3_int64)page_count * thr_conn_page_size(conn);
    return SQLITE_OK;
}

static void statements_of(struct thr_main_file *file, struct thr_statement_info *out)
{
    thr_statement_info(file->db == NULL ? NULL : *file->db, NULL, NULL, out);
}

/* As far as was told: a statement that another owner of the connection runs may be missing. Good enough to begin. */
static void statement_of(struct thr_main_file *file, bool *counts_out, struct thr_statement_info *out)
{
    thr_statement_info(file->db == NULL ? NULL : *file->db, file->running == NULL ? NULL : file->running->only,
                       counts_out, out);
}

/* Else there is no need to look at texts: outside BEGIN a statement that only reads gets no stripe. */
static bool may_show_stripe(const struct thr_main_file *file)
{
    return file->conn->stripe.part ||
           (file->conn->wants_stripe && file->db != NULL && !sqlite3_get_autocommit(*file->db));
}

/* A statement outside BEGIN may be told to run again, as long as nobody knows of it. */
static bool may_rerun(struct thr_main_file *file, const struct thr_statement_info *info)
{
    struct thr_conn *member = file->conn;

    if (info->busy != 1 || ++file->reruns > RERUNS_MAX)
        return false;
    do /* the second try is protected: it cannot lose, in any of its databases */
        member->rerun = member->rerun || member->snapshot != 0 || member == file->conn;
    while ((member = member->next) != file->conn);
    thr_count(file->conn->slot, THR_COUNT_RERUNS, 1);
    return true;
}

/* A connection that cannot write reads as of one moment. But what the transaction reads in its other databases may move on,
 * if it must not lose there; then it has to here as well. */
static void read_only_info(struct thr_main_file *file, struct thr_statement_info *info)
{
    const struct thr_conn *conn = file->conn;

    if (conn->next != conn && !conn->db->foreign && conn->db->base.writable)
        statement_of(file, NULL, info);
    else
        info->kind = THR_KIND_READ;
    if (conn->rerun && info->kind == THR_KIND_AUTOCOMMIT)
        info->kind = THR_KIND_RETURNING;
    if (info->kind != THR_KIND_IMMEDIATE && info->kind != THR_KIND_RETURNING)
        info->kind = THR_KIND_READ;
    info->writes = false;
}

static int lock_shared(struct thr_main_file *file)
{
    struct thr_statement_info info = {.busy = 0};
    int rc;

    if (file->conn->read_only) {
        read_only_info(file, &info);
    } else {
        /* A statement that counts pages is shown all of them: a connection that has a stripe gives it up. */
        file->conn->shows_all = false;
        statement_of(file, may_show_stripe(file) ? &file->conn->shows_all : NULL, &info);
    }
    /* Outside BEGIN, a statement that is still being read is a transaction of its own. */
    file->conn->wants_newest = info.busy > 1 && (info.kind == THR_KIND_AUTOCOMMIT || info.kind == THR_KIND_RETURNING);
    if (info.writes)
        file->conn->wants_stripe = true;
    file->conn->keeps_lock = file->exclusive && !file->conn->read_only;
    if (file->conn->keeps_lock) /* as in stock SQLite, it keeps all other writers out from now on */
        info.kind = THR_KIND_EXCLUSIVE;
    /* A transaction that begins with a read, on a connection that wrote before, will most likely write too; not if it counts
     * pages: what is set aside for a writer would be missing. */
    file->conn->may_write = info.writes ||
                            (info.kind == THR_KIND_EXPLICIT && file->conn->wants_stripe && !file->conn->shows_all);
    if ((rc = thr_txn_begin(file->conn, info.kind)) == SQLITE_OK)
        file->lock = SQLITE_LOCK_SHARED;
    /* It must not wait here while others wait for what it has elsewhere: it takes all at once when it runs again. */
    if (rc == SQLITE_BUSY && (info.kind == THR_KIND_AUTOCOMMIT || info.kind == THR_KIND_RETURNING) &&
        thr_turn_held_elsewhere(file->conn) && may_rerun(file, &info))
        rc = SQLITE_SCHEMA;
    return rc;
}

static int lock_reserved(struct thr_main_file *file)
{
    struct thr_statement_info info;
    int rc;

    if (file->db == NULL) { /* then a commit would not be handed down either, and what was written would be forgotten */
        thr_log(SQLITE_CANTOPEN, "throng: %s cannot be written: a VFS above does not hand down file controls",
                file->conn->db->path);
        return SQLITE_CANTOPEN;
    }
    statements_of(file, &info); /* a function of the one that was told may have begun another one */
    if ((rc = thr_txn_reserve(file->conn, info.kind)) == SQLITE_OK)
        file->lock = SQLITE_LOCK_RESERVED;
    return rc;
}

static int lock_exclusive(struct thr_main_file *file)
{
    int rc;

    if (!file->conn->writing && (rc = thr_txn_reserve(file->conn, THR_KIND_EXCLUSIVE)) != SQLITE_OK)
        return rc;
    /* Inside BEGIN a transaction that has lost already learns it before it writes a page. Autocommit statements go on
     * to the commit, where they can be told to run again. */
    if (file->conn->kind == THR_KIND_EXPLICIT && (rc = thr_commit_check(file->conn)) != SQLITE_OK)
        return rc;
    /* It may sync. SQLite takes this lock on all databases of a commit before it logs in the first one: here no other
     * database's commit_lock is held meanwhile. */
    if (!file->conn->db->foreign &&
        (rc = thr_checkpoint_mark(file->conn->db, file->conn->sync > THR_SYNC_OFF)) != SQLITE_OK)
        return rc;
    file->lock = SQLITE_LOCK_EXCLUSIVE;
    return SQLITE_OK;
}

static int main_lock(sqlite3_file *sqlite_file, int level)
{
    struct thr_main_file *file = main_of(sqlite_file);

    if (is_inherited(file))
        return refuse_inherited(file, SQLITE_IOERR_LOCK);
    thr_beside_used(file);
    if (file->lock >= level)
        return SQLITE_OK;
    switch (level) {
    case SQLITE_LOCK_SHARED:
        return lock_shared(file);
    case SQLITE_LOCK_RESERVED:
        return lock_reserved(file);
    default:
        return lock_exclusive(file);
    }
}

static int main_unlock(sqlite3_file *sqlite_file, int level)
{
    struct thr_main_file *file = main_of(sqlite_file);

    file->conn->counter_done = false; /* as the pager does */
    if (file->lock <= level || is_inherited(file)) {
        file->lock = file->lock < level ? file->lock : level;
        return SQLITE_OK;
    }
    if (file->lock > SQLITE_LOCK_SHARED) {
        file->checkpoint_due = file->checkpoint_due || file->conn->committed ||
                               atomic_load_explicit(&file->conn->db->heap_short, memory_order_relaxed) != 0;
        thr_txn_end_write(file->conn);
    }
    file->lock = level;
    if (level == SQLITE_LOCK_NONE) {
        thr_txn_end(file->conn);
        if (file->checkpoint_due) {
            file->checkpoint_due = false;
            thr_checkpoint_step(file->conn->db);
        }
    }
    return SQLITE_OK;
}

static int main_check_reserved(sqlite3_file *sqlite_file, int *result_out)
{
    (void)sqlite_file;
    *result_out = 0;
    return SQLITE_OK;
}

/* The commit failed on a conflict: let SQLite run the statement again, or tell the application. */
static int conflict(struct thr_main_file *file)
{
    struct thr_statement_info info;

    statements_of(file, &info);
    return file->conn->kind == THR_KIND_AUTOCOMMIT && may_rerun(file, &info) ? SQLITE_SCHEMA : SQLITE_BUSY_SNAPSHOT;
}

static int commit_resized(struct thr_main_file *file)
{
    struct thr_conn *conn = file->conn;
    int rc;

    if (!thr_barrier_raise(conn)) {
        thr_log(SQLITE_BUSY, "throng: the page size of %s cannot change while it is being read", conn->db->path);
        return SQLITE_BUSY_SNAPSHOT;
    }
    if ((rc = thr_commit_one(conn)) == SQLITE_OK && (rc = thr_checkpoint_resize(conn->db)) != SQLITE_OK) {
        atomic_store_explicit(&conn->db->broken, 1, memory_order_relaxed);
        thr_log(rc,
                "throng: %s: the new page size could not be put in place; close all connections and open "
                "the database again to recover it from its log",
                conn->db->path);
    }
    thr_barrier_lower(conn);
    return rc;
}

static int commit(struct thr_main_file *file)
{
    struct thr_conn *conn = file->conn;
    struct thr_statement_info info;
    int rc;

    if (!conn->writing || (conn->writes.count == 0 && !conn->changing))
        return SQLITE_OK;
    if (file->journal.rolling_back) {
        file->journal.rolling_back = false;
        thr_txn_discard(conn);
        return SQLITE_OK;
    }
    if ((rc = thr_checkpoint_mark(conn->db, conn->sync > THR_SYNC_OFF)) != SQLITE_OK)
        return rc;
    if (conn->keeps_lock) {
        statements_of(file, &info);
        conn->kind = info.kind == THR_KIND_REWRITE ? info.kind : THR_KIND_EXCLUSIVE;
    }
    rc = thr_plan_new_page_size(conn) != 0 ? commit_resized(file) : thr_family_sync(file);
    if (rc == SQLITE_BUSY_SNAPSHOT)
        rc = conflict(file);
    else if (rc == SQLITE_OK && (conn->committed || conn->planned)) /* not the sync of a rollback */
        file->reruns = 0;
    return rc;
}

static int commit_phase_two(struct thr_main_file *file)
{
    int rc;

    rc = thr_group_finish(file->conn);
    if (file->conn->keeps_lock) { /* there will be no better moment */
        if (file->conn->kind == THR_KIND_REWRITE)
            thr_txn_renew(file->conn);
        thr_checkpoint_step(file->conn->db);
    }
    return rc;
}

/* Has the directory gone from its name, or the log from the directory? What is committed from here on no recovery would
 * find. */
static bool has_lost_log(struct thr_main_file *file)
{
    struct thr_db *db = file->conn->db;
    bool lost = db->home.fd >= 0 && (!thr_home_is_in_place(db->directory, &db->home) || !thr_log_is_in_place(&db->log));

    if (lost && !file->log_lost)
        thr_log(
            SQLITE_READONLY_DBMOVED,
            "throng: %s, or the log in it, was moved or deleted while in use: the database is not written any more. "
            "Close all its connections: that brings all commits to the file",
            db->directory);
    file->log_lost = lost;
    return lost;
}

/* Is the database no longer what its name stands for? Then the pager writes no more: after a crash nobody would find
 * the log, which stands beside the name. The pager asks in every write transaction: it gets an answer that may be 10 ms
 * old, as looking each time cost a tenth of the shortest transactions. Whoever else asks gets the present one. */
static bool has_moved(struct thr_main_file *file)
{
    uint64_t now = thr_os_now_ns();
    struct thr_stat stat;
    sqlite3_int64 id[2];
    bool moved;

    if (file->lock >= SQLITE_LOCK_RESERVED && now - file->in_place_ns < IN_PLACE_NS)
        return false;
    thr_db_identity(file->open_db, id);
    moved = thr_os_stat(file->name, &stat) != SQLITE_OK || (uint64_t)id[0] != stat.dev || (uint64_t)id[1] != stat.ino ||
            has_lost_log(file);
    file->in_place_ns = moved ? 0 : now;
    return moved;
}

/* A setting that is kept and told: below 0 asks for it. */
static int control_bit(bool *bit, int *arg)
{
    if (*arg < 0)
        *arg = *bit;
    else
        *bit = *arg != 0;
    return SQLITE_OK;
}

/* A name for a temporary file, as the base VFS makes them: only a file of its own can tell. */
static int temp_file_name(void *arg)
{
    enum {
        FLAGS = SQLITE_OPEN_TRANSIENT_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXCLUSIVE |
                SQLITE_OPEN_DELETEONCLOSE
    };
    sqlite3_vfs *base = thr_base_vfs();
    sqlite3_file *file = thr_os_alloc((size_t)base->szOsFile);
    int rc;

    if (file == NULL)
        return SQLITE_NOMEM;
    if ((rc = base->xOpen(base, NULL, file, FLAGS, NULL)) == SQLITE_OK)
        rc = file->pMethods->xFileControl(file, SQLITE_FCNTL_TEMPFILENAME, arg);
    if (file->pMethods != NULL)
        file->pMethods->xClose(file);
    thr_os_free(file);
    return rc;
}

static int main_control(sqlite3_file *sqlite_file, int op, void *arg)
{
    struct thr_main_file *file = main_of(sqlite_file);

    if (is_inherited(file) && (op == SQLITE_FCNTL_SYNC || op == SQLITE_FCNTL_COMMIT_PHASETWO ||
                               op == SQLITE_FCNTL_PRAGMA || op == THRONG_FCNTL_CHECKPOINT))
        return refuse_inherited(file, SQLITE_IOERR);
    switch (op) {
    case SQLITE_FCNTL_SYNC: {
        int rc = remember_errno(file, commit(file));

        if (rc != SQLITE_OK && arg != NULL)
            thr_family_forget_super_journal(file, arg);
        return rc;
    }
    case SQLITE_FCNTL_COMMIT_PHASETWO:
        return commit_phase_two(file);
    case FCNTL_MAIN_FILE:
        if (((struct main_file_ask *)arg)->methods != &thr_main_methods)
            return SQLITE_NOTFOUND; /* another copy of us asks */
        ((struct main_file_ask *)arg)->file = file;
        return SQLITE_OK;
    case SQLITE_FCNTL_PDB:
        thr_family_join(file, arg);
        return SQLITE_OK;
    case THR_FCNTL_RUNNING:
        file->running = arg;
        return SQLITE_OK;
    case SQLITE_FCNTL_BUSYHANDLER:
        memcpy(&file->busy_handler, arg, sizeof file->busy_handler);
        file->busy_arg = ((void **)arg)[1];
        return SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA:
        return thr_pragma(file, arg);
    case SQLITE_FCNTL_MMAP_SIZE: {
        sqlite3_int64 limit = *(sqlite3_int64 *)arg;

        *(sqlite3_int64 *)arg = file->conn->map_limit;
        /* As stock: not while a statement has mapped pages. */
        if (limit >= 0 && atomic_load_explicit(&file->conn->slot->pointers, memory_order_relaxed) == 0)
            file->conn->map_limit = limit;
        return SQLITE_OK;
    }
    case SQLITE_FCNTL_VFSNAME:
        *(char **)arg = sqlite3_mprintf("throng/%s", thr_base_vfs()->zName);
        return SQLITE_OK;
    case SQLITE_FCNTL_LOCKSTATE:
        *(int *)arg = file->lock;
        return SQLITE_OK;
    case SQLITE_FCNTL_HAS_MOVED:
        thr_beside_used(file);
        *(int *)arg = has_moved(file);
        return SQLITE_OK;
    case SQLITE_FCNTL_SIZE_HINT:
    case SQLITE_FCNTL_CHUNK_SIZE: /* the file grows by checkpoints, in any order of pages */
        return SQLITE_OK;
    case SQLITE_FCNTL_POWERSAFE_OVERWRITE:
        return control_bit(&file->powersafe, arg);
    case SQLITE_FCNTL_PERSIST_WAL: /* told as it was set: there is no WAL */
        return control_bit(&file->persist_wal, arg);
    case SQLITE_FCNTL_EXTERNAL_READER: /* no other process can have it open */
        *(int *)arg = 0;
        return SQLITE_OK;
    case SQLITE_FCNTL_LAST_ERRNO:
        *(int *)arg = file->last_errno;
        return SQLITE_OK;
    case SQLITE_FCNTL_TEMPFILENAME:
        return temp_file_name(arg);
    case THRONG_FCNTL_SERVER_MODE:
        *(int *)arg = file->conn->db->foreign || !file->conn->db->base.writable ? 0 : 1;
        return SQLITE_OK;
    case THRONG_FCNTL_CHECKPOINT:
        return thr_pragma_checkpoint(file, *(const int *)arg);
    case THRONG_FCNTL_FILEID:
        thr_db_identity(file->open_db, arg);
        return SQLITE_OK;
    default:
        return SQLITE_NOTFOUND;
    }
}

static int main_sector_size(sqlite3_file *file)
{
    (void)file;
    return 512; /* as large as the smallest page, so that the pager treats every page on its own */
}

static int main_characteristics(sqlite3_file *file)
{
    /* True of the journal, which lives in memory; and pages are never torn, as they go to the log first. */
    return SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL |
           (main_of(file)->powersafe ? SQLITE_IOCAP_POWERSAFE_OVERWRITE : 0);
}

static int main_fetch(sqlite3_file *sqlite_file, sqlite3_int64 offset, int bytes, void **out)
{
    struct thr_main_file *file = main_of(sqlite_file);
    uint32_t page_size = thr_conn_page_size(file->conn);
    const uint8_t *page = NULL;
    int rc;

    *out = NULL;
    if (is_inherited(file))
        return refuse_inherited(file, SQLITE_IOERR_MMAP);
    if (file->conn->map_limit <= 0 || file->lock == SQLITE_LOCK_NONE || page_size == 0 || bytes != (int)page_size ||
        offset % page_size != 0)
        return SQLITE_OK;
    rc = thr_page_fetch(file->conn, (uint32_t)(offset / page_size + 1), &page);
    memcpy(out, &page, sizeof page);
    return rc;
}

static int main_unfetch(sqlite3_file *sqlite_file, sqlite3_int64 offset, void *page)
{
    struct thr_main_file *file = main_of(sqlite_file);

    (void)offset;
    if (page != NULL && !is_inherited(file))
        thr_page_unfetch(file->conn, page);
    return SQLITE_OK;
}

const sqlite3_io_methods thr_main_methods = {
    .iVersion = 3,
    .xClose = main_close,
    .xRead = main_read,
    .xWrite = main_write,
    .xTruncate = main_truncate,
    .xSync = main_sync,
    .xFileSize = main_file_size,
    .xLock = main_lock,
    .xUnlock = main_unlock,
    .xCheckReservedLock = main_check_reserved,
    .xFileControl = main_control,
    .xSectorSize = main_sector_size,
    .xDeviceCharacteristics = main_characteristics,
    .xFetch = main_fetch,
    .xUnfetch = main_unfetch,
};
