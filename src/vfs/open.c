/* Which databases are open in this process, and how the first connection opens one and the last one closes it.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs.h"

#include "../ckpt/checkpoint.h"
#include "../ckpt/recover.h"
#include "../ckpt/stock.h"
#include "../os/os.h"
#include "../os/point.h"
#include "../txn/db.h"

/* SQLite's own lock bytes (its file format, "The Lock-Byte Page"): pending, reserved, 510 shared ones. */
static const int64_t LOCK_BYTES_AT = 0x40000000;
static const int64_t LOCK_BYTES = 512;

struct thr_open_db {
    struct thr_db db;
    struct thr_open_db *next;
    uint64_t dev, ino;
    uint32_t connections;
    int fd;
    char *path;
    char *directory;
};

/* A descriptor that must not be closed yet: closing it would end the POSIX locks that a stock SQLite connection of
 * this process may hold on the same file. It serves the next open of the file. */
struct spare_fd {
    struct spare_fd *next;
    uint64_t dev, ino;
    int fd;
    bool writable;
};

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two lists, and opening and closing */
static struct thr_open_db *open_dbs;
static struct spare_fd *spare_fds;
static _Atomic uint32_t forks;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* Everything open belongs to the parent. The child forgets it; its memory is not given back, as it may be in use. But
 * the lock on a database is shared with the child: it must not keep it when the parent has died. */
static void after_fork_in_child(void)
{
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next) {
        thr_base_after_fork(&at->db.base);
        thr_base_abandon(&at->db.base);
        at->fd = -1;
    }
    for (struct spare_fd *at = spare_fds; at != NULL; at = at->next)
        thr_os_close(at->fd); /* the parent's POSIX locks stay: they were never the child's */
    open_dbs = NULL;
    spare_fds = NULL;
    pthread_mutex_init(&open_lock, NULL);
}

static void before_fork(void)
{
    pthread_mutex_lock(&open_lock);
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next)
        thr_base_before_fork(&at->db.base);
}

static void after_fork_in_parent(void)
{
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next)
        thr_base_after_fork(&at->db.base);
    pthread_mutex_unlock(&open_lock);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

uint32_t thr_fork_count(void)
{
    return atomic_load_explicit(&forks, memory_order_relaxed);
}

void thr_db_identity(const struct thr_open_db *open_db, sqlite3_int64 *id)
{
    id[0] = (sqlite3_int64)open_db->dev;
    id[1] = (sqlite3_int64)open_db->ino;
}

static void keep_fd(int fd, const struct thr_stat *stat, bool writable)
{
    struct spare_fd *spare = thr_os_alloc(sizeof *spare);

    if (spare == NULL)
        return; /* better lose a descriptor than somebody's locks */
    *spare = (struct spare_fd){.next = spare_fds, .dev = stat->dev, .ino = stat->ino, .fd = fd, .writable = writable};
    spare_fds = spare;
}

static int take_spare_fd(const struct thr_stat *stat, bool writable)
{
    for (struct spare_fd **link = &spare_fds; *link != NULL; link = &(*link)->next) {
        struct spare_fd *spare = *link;

        if (spare->dev == stat->dev && spare->ino == stat->ino && spare->writable == writable) {
            int fd = spare->fd;

            *link = spare->next;
            thr_os_free(spare);
            return fd;
        }
    }
    return -1;
}

static struct thr_open_db *find_open(const struct thr_stat *stat)
{
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next)
        if (at->dev == stat->dev && at->ino == stat->ino)
            return at;
    return NULL;
}

/* Who has the database? Its index says so. */
static void log_busy(const struct thr_open_db *open_db)
{
    char *path = thr_db_file(&open_db->db, "shm");
    uint32_t pid = 0;
    size_t got = 0;
    int fd;

    if (path != NULL && thr_os_open(path, THR_OPEN_READ, 0, &fd, NULL) == SQLITE_OK) {
        thr_os_read(fd, &pid, sizeof pid, offsetof(struct thr_head, owner_pid), &got);
        thr_os_close(fd);
    }
    thr_os_free(path);
    if (got == sizeof pid && pid != 0)
        thr_log(SQLITE_BUSY,
                "throng: %s is in use by process %u; one process at a time can have it open with vfs=throng",
                open_db->path, pid);
    else
        thr_log(SQLITE_BUSY, "throng: %s is in use by a connection of stock SQLite, which must close it first",
                open_db->path);
}

/* Let stock SQLite recover what stock SQLite left: a WAL, or a hot rollback journal. */
static int recover_stock(const struct thr_open_db *open_db, bool wal)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(open_db->path, &db, SQLITE_OPEN_READWRITE, thr_base_vfs()->zName);

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema; PRAGMA wal_checkpoint(TRUNCATE);", NULL, NULL, NULL);
    if (rc == SQLITE_OK && !wal) /* a journal that journal_mode=PERSIST left: delete it */
        sqlite3_exec(db, "PRAGMA journal_mode=PERSIST; PRAGMA journal_mode=DELETE;", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        thr_log(rc, "throng: stock SQLite could not recover %s: %s", open_db->path, sqlite3_errmsg(db));
    sqlite3_close(db);
    return rc;
}

/* SQLITE_OK, SQLITE_NOTFOUND, or the error: what cannot be looked at must not be taken for absent. */
static int stat_beside(const char *path, const char *suffix, struct thr_stat *stat)
{
    char *name = sqlite3_mprintf("%s%s", path, suffix);
    int rc = name == NULL ? SQLITE_NOMEM : thr_os_stat(name, stat);

    sqlite3_free(name);
    return rc;
}

/* A directory whose database is gone: what is in it makes sense with that file only. */
static void log_orphan(const char *path)
{
    thr_log(
        SQLITE_CANTOPEN,
        "throng: %s-journal holds commits of a database %s that is not there: nothing is touched. Put the file back to "
        "recover them, or move the directory away to begin a new database",
        path, path);
}

/* The file was in use when its process died, and what was committed since is elsewhere. SQLite cuts messages off at 210
 * bytes. */
static void log_incomplete(const struct thr_open_db *open_db)
{
    struct thr_stat stat;

    if (!open_db->db.base.writable && stat_beside(open_db->path, "-journal", &stat) == SQLITE_OK && stat.is_dir) {
        thr_log(SQLITE_CANTOPEN, "throng: %s needs recovery: open it once where it and its directory can be written",
                open_db->path);
        return;
    }
    thr_log(SQLITE_CANTOPEN, "throng: %s was in use when its process ended, or when it was copied, and %s is not there",
            open_db->path, open_db->directory);
    thr_log(
        SQLITE_CANTOPEN,
        "throng: nothing is touched. Put that directory back; or, to go on without the latest commits: throng recover "
        "--without-log");
}

static int log_in_the_way(const struct thr_open_db *open_db)
{
    thr_log(SQLITE_CANTOPEN,
            "throng: %s is in the way: it is neither a rollback journal of SQLite nor a directory of ours. Move it "
            "elsewhere to open the database",
            open_db->directory);
    return SQLITE_CANTOPEN;
}

/* A file named <db>-journal: is it a rollback journal of SQLite (also one that was finished by zeroing its head)? */
static int check_stock_journal(const struct thr_open_db *open_db, const struct thr_stat *stat)
{
    static const uint8_t MAGIC[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
    uint8_t head[8] = {0};
    size_t got = 0;
    int fd, rc;

    if (!stat->is_regular)
        return log_in_the_way(open_db);
    if ((rc = thr_os_open(open_db->directory, THR_OPEN_READ, 0, &fd, NULL)) != SQLITE_OK)
        return rc;
    rc = thr_os_read(fd, head, sizeof head, 0, &got);
    thr_os_close(fd);
    if (rc != SQLITE_OK)
        return rc;
    if (got == 0 || head[0] == 0 || (got == 8 && memcmp(head, MAGIC, 8) == 0))
        return SQLITE_OK;
    return log_in_the_way(open_db);
}

/* What stands beside the file from earlier uses: recover it. lock_held is false once stock SQLite had to run. */
static int recover_leftovers(struct thr_open_db *open_db)
{
    struct thr_stat journal, wal;
    struct thr_stock_header header;
    struct thr_recovery recovery;
    char name[256] = "";
    bool stock;
    int rc, journal_rc;

    if ((rc = stat_beside(open_db->path, "-wal", &wal)) != SQLITE_OK && rc != SQLITE_NOTFOUND)
        return rc;
    stock = rc == SQLITE_OK;
    journal_rc = stat_beside(open_db->path, "-journal", &journal);
    if (journal_rc != SQLITE_OK && journal_rc != SQLITE_NOTFOUND)
        return journal_rc;
    if (journal_rc == SQLITE_OK && !journal.is_dir) {
        if ((rc = check_stock_journal(open_db, &journal)) != SQLITE_OK)
            return rc;
        stock = true;
    }
    /* Also if the file does not look like a database, or is empty: that may be what the journal is there to mend. */
    if (stock) {
        if ((rc = thr_stock_header_read(&open_db->db.base, &header)) != SQLITE_OK)
            return rc;
        thr_os_unlock(open_db->fd, LOCK_BYTES_AT, LOCK_BYTES);
        if ((rc = recover_stock(open_db, header.wal)) != SQLITE_OK)
            return rc;
        if ((rc = thr_os_lock(open_db->fd, true, LOCK_BYTES_AT, LOCK_BYTES)) != SQLITE_OK)
            return rc;
    }
    if ((rc = stat_beside(open_db->path, "-journal", &journal)) != SQLITE_OK)
        return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
    if (!journal.is_dir)
        return log_in_the_way(open_db); /* stock SQLite has seen it, and has no use for it */
    rc = thr_recover_inspect(open_db->directory, name, sizeof name);
    if (rc == SQLITE_CANTOPEN)
        thr_log(rc, "throng: the directory %s holds %s, which is not ours: it is left alone, and %s stays closed",
                open_db->directory, name, open_db->path);
    else if (rc == SQLITE_CORRUPT)
        thr_log(
            rc,
            "throng: the log %s/%s is damaged at its beginning: nothing is touched. Restore it or a backup, or move "
            "the directory away to go on without the commits in it",
            open_db->directory, name);
    else if (rc != SQLITE_OK)
        thr_log(rc, "throng: the directory %s cannot be read: %s stays closed", open_db->directory, open_db->path);
    if (rc != SQLITE_OK)
        return rc;
    rc = thr_recover_apply(open_db->directory, &open_db->db.base, &recovery);
    if (rc == SQLITE_CANTOPEN) {
        log_orphan(open_db->path);
        return rc;
    }
    if (rc != SQLITE_OK) {
        thr_log(rc, "throng: recovery of %s from %s failed", open_db->path, open_db->directory);
        return rc;
    }
    if (recovery.commits > 0)
        thr_log(SQLITE_NOTICE, "throng: recovered %llu commits of %s from %s", (unsigned long long)recovery.commits,
                open_db->path, open_db->directory);
    return thr_recover_remove(open_db->directory);
}

static int refresh_size(struct thr_open_db *open_db)
{
    struct thr_stat stat;
    int rc = thr_os_fstat(open_db->fd, &stat);

    if (rc == SQLITE_OK)
        atomic_store(&open_db->db.base.bytes, stat.bytes);
    return rc;
}

/* Set up the index from what the file says. */
static int load(struct thr_open_db *open_db)
{
    struct thr_db *db = &open_db->db;
    struct thr_head *head = db->shm.head;
    struct thr_stock_header header;
    struct thr_pages free_pages = {0};
    uint32_t format = 2;
    int rc;

    if ((rc = thr_stock_header_read(&db->base, &header)) != SQLITE_OK)
        return rc;
    if (header.marked) {
        log_incomplete(open_db);
        return SQLITE_CANTOPEN;
    }
    db->foreign = header.foreign;
    head->owner_pid = thr_os_pid();
    atomic_store(&head->commit_seq, THR_FIRST_SEQ);
    atomic_store(&head->visible_seq, THR_FIRST_SEQ);
    atomic_store(&head->durable_seq, THR_FIRST_SEQ);
    atomic_store(&head->horizon, THR_FIRST_SEQ);
    head->change_base = header.change_counter - THR_FIRST_SEQ;
    if (header.empty || header.foreign) {
        atomic_store(&head->format, format);
        return SQLITE_OK;
    }
    atomic_store(&head->page_size, header.page_size);
    atomic_store(&db->usable_size, header.usable_size);
    db->heap.page_size = header.page_size;
    if (header.auto_vacuum || !db->base.writable)
        format = 1;
    else if ((rc = thr_stock_list_read(&db->base, &header, &free_pages)) == SQLITE_CORRUPT)
        format = 1; /* SQLite will say so itself, when it gets there */
    else if (rc != SQLITE_OK)
        goto done;
    if (format == 1)
        free_pages.count = 0;
    rc = thr_space_load(&db->shm, &free_pages, header.page_count);
    if (rc == SQLITE_CORRUPT) { /* a page twice in the list */
        format = 1;
        free_pages.count = 0;
        thr_space_reset(&db->shm, &free_pages, header.page_count);
        rc = SQLITE_OK;
    }
    atomic_store(&head->format, format);
    atomic_store(&head->extent[THR_FIRST_SEQ % THR_EXTENTS], (uint64_t)header.page_count << 32 | free_pages.count);
done:
    thr_os_free(free_pages.at);
    return rc;
}

static int start_files(struct thr_open_db *open_db)
{
    struct thr_db *db = &open_db->db;
    uint32_t page_size;
    char *path = NULL;
    int rc;

    if (db->base.writable) {
        uint32_t mode = 0700 | (db->file_mode & 0040 ? 0070 : 0) | (db->file_mode & 0004 ? 0007 : 0);

        rc = thr_os_mkdir(open_db->directory, mode);
        if (rc == SQLITE_READONLY) {
            thr_log(SQLITE_READONLY, "throng: %s is opened read-only: its directory cannot be written", db->path);
            db->base.writable = false;
        } else if (rc != SQLITE_OK) {
            return rc == SQLITE_CONSTRAINT ? SQLITE_BUSY : rc;
        }
    }
    if (!db->base.writable) {
        db->directory = NULL;
        if ((rc = thr_shm_create(&db->shm, NULL, 0)) == SQLITE_OK)
            rc = load(open_db);
        return rc;
    }
    if ((path = thr_db_file(db, "shm")) == NULL)
        return SQLITE_NOMEM;
    rc = thr_shm_create(&db->shm, path, db->file_mode);
    thr_os_free(path);
    if (rc == SQLITE_OK)
        rc = load(open_db);
    page_size = rc == SQLITE_OK ? atomic_load(&db->shm.head->page_size) : 0;
    if (rc == SQLITE_OK && page_size != 0)
        rc = thr_db_start_heap(db, page_size);
    if (rc == SQLITE_OK)
        rc = thr_log_create(&db->log, &db->shm, open_db->directory, db->file_mode, 1);
    return rc;
}

static void stop_files(struct thr_open_db *open_db)
{
    struct thr_db *db = &open_db->db;

    thr_log_close(&db->log);
    thr_heap_close(&db->heap);
    thr_shm_close(&db->shm);
    thr_base_close(&db->base);
}

static void open_db_free(struct thr_open_db *open_db)
{
    thr_os_free(open_db->directory);
    thr_os_free(open_db->path);
    thr_os_free(open_db);
}

/* A number of bytes in the URI: digits, then perhaps K, M or G. */
static int read_bytes(const char *path, const char *name, uint64_t least, uint64_t otherwise, uint64_t *out)
{
    static const char UNITS[] = "KMG";
    const char *text = sqlite3_uri_parameter(path, name), *unit;
    unsigned long long value;
    char *end;

    *out = otherwise;
    if (text == NULL)
        return SQLITE_OK;
    errno = 0;
    value = strtoull(text, &end, 10);
    unit = *end == '\0' ? NULL : strchr(UNITS, *end);
    if (unit != NULL && end[1] == '\0' && value < UINT64_C(1) << 30)
        value <<= 10 * (unit - UNITS + 1);
    else if (*end != '\0')
        errno = EINVAL;
    if (errno != 0 || text[0] < '0' || text[0] > '9' || value < least) {
        thr_log(SQLITE_CANTOPEN, "throng: %s=%s: not a number of bytes, such as 256M, or less than %llu", name, text,
                (unsigned long long)least);
        return SQLITE_CANTOPEN;
    }
    *out = value;
    return SQLITE_OK;
}

/* What the URI of the first connection says. */
static int read_options(const char *path, struct thr_db *db)
{
    const char *checkpointer = sqlite3_uri_parameter(path, "checkpointer");
    uint64_t large;
    int rc;

    if ((rc = read_bytes(path, "checkpoint_bytes", 1, THR_CHECKPOINT_LOG_BYTES, &db->checkpoint_bytes)) != SQLITE_OK ||
        (rc = read_bytes(path, "heap_limit", THR_HEAP_LEAST, 0, &db->heap.limit_bytes)) != SQLITE_OK)
        return rc;
    large = db->heap.limit_bytes != 0 ? db->heap.limit_bytes : THR_HEAP_LARGE;
    db->pressure_bytes = large / 16;
    if (checkpointer != NULL && strcmp(checkpointer, "thread") != 0 && strcmp(checkpointer, "caller") != 0) {
        thr_log(SQLITE_CANTOPEN, "throng: checkpointer=%s: it is thread or caller", checkpointer);
        return SQLITE_CANTOPEN;
    }
    db->checkpointer_thread = checkpointer != NULL && strcmp(checkpointer, "thread") == 0;
    return SQLITE_OK;
}

/* One machine at a time has a database, and its mapped files have to be the same for all: neither is sure on a file system
 * that several machines share. `filesystem=any` in the URI: the user knows better. */
static int check_filesystem(const char *path, int fd)
{
    const char *allowed = sqlite3_uri_parameter(path, "filesystem"), *shared;

    if (allowed != NULL && strcmp(allowed, "any") != 0) {
        thr_log(SQLITE_CANTOPEN, "throng: filesystem=%s: all that can be said here is filesystem=any", allowed);
        return SQLITE_CANTOPEN;
    }
    if (allowed != NULL || (shared = thr_os_filesystem_is_shared(fd)) == NULL)
        return SQLITE_OK;
    thr_log(SQLITE_CANTOPEN,
            "throng: %s is on a shared file system (%s): move it to a local one, or say filesystem=any", path, shared);
    return SQLITE_CANTOPEN;
}

/* The first connection of this process. */
static int open_first(const char *path, int fd, bool writable, const struct thr_stat *stat, struct thr_open_db **out)
{
    struct thr_open_db *open_db = thr_os_alloc(sizeof *open_db);
    size_t bytes = strlen(path) + 16;
    bool locked = false;
    int rc = SQLITE_NOMEM;

    *out = NULL;
    if (open_db == NULL)
        goto err;
    open_db->path = thr_os_alloc(bytes);
    open_db->directory = thr_os_alloc(bytes);
    if (open_db->path == NULL || open_db->directory == NULL)
        goto err;
    snprintf(open_db->path, bytes, "%s", path);
    snprintf(open_db->directory, bytes, "%s-journal", path);
    open_db->dev = stat->dev;
    open_db->ino = stat->ino;
    open_db->fd = fd;
    open_db->db.path = open_db->path;
    open_db->db.directory = open_db->directory;
    open_db->db.file_mode = stat->mode & 0666;
    open_db->db.base.fd = fd;
    open_db->db.base.writable = writable;
    open_db->db.heap.fd = -1;
    open_db->db.log.directory_fd = open_db->db.log.parent_fd = -1;
    open_db->db.shm.fd = -1;
    if ((rc = read_options(path, &open_db->db)) != SQLITE_OK || (rc = check_filesystem(path, fd)) != SQLITE_OK)
        goto err;
    if ((rc = thr_os_lock(fd, writable, LOCK_BYTES_AT, LOCK_BYTES)) != SQLITE_OK) {
        if (rc == SQLITE_BUSY)
            log_busy(open_db);
        goto err;
    }
    locked = true;
    if ((rc = refresh_size(open_db)) != SQLITE_OK)
        goto err;
    if (writable && ((rc = recover_leftovers(open_db)) != SQLITE_OK || (rc = refresh_size(open_db)) != SQLITE_OK))
        goto err;
    if ((rc = start_files(open_db)) != SQLITE_OK) {
        stop_files(open_db);
        if (writable)
            thr_recover_remove(open_db->directory);
        goto err;
    }
    if (open_db->db.base.writable && open_db->db.checkpointer_thread)
        thr_checkpointer_start(&open_db->db);
    open_db->next = open_dbs;
    open_dbs = open_db;
    *out = open_db;
    return SQLITE_OK;

err:
    if (locked)
        thr_os_unlock(fd, LOCK_BYTES_AT, LOCK_BYTES);
    keep_fd(fd, stat, writable);
    if (open_db != NULL)
        open_db_free(open_db);
    return rc;
}

/* Open the file itself, for writing if it can be. */
static int open_file(const char *path, int flags, int *fd_out, bool *writable_out)
{
    int how = (flags & SQLITE_OPEN_CREATE) != 0 ? THR_OPEN_CREATE : 0, err = 0;
    struct thr_stat stat, directory;
    int rc;

    *writable_out = true;
    rc = thr_os_stat(path, &stat);
    if (rc == SQLITE_OK && (*fd_out = take_spare_fd(&stat, true)) >= 0)
        return SQLITE_OK;
    if (rc == SQLITE_NOTFOUND && stat_beside(path, "-journal", &directory) == SQLITE_OK && directory.is_dir) {
        log_orphan(path);
        return SQLITE_CANTOPEN;
    }
    rc = thr_os_open(path, THR_OPEN_WRITE | how, 0, fd_out, &err);
    if (rc == SQLITE_OK)
        return SQLITE_OK;
    if (err == 0 || thr_os_stat(path, &stat) != SQLITE_OK || stat.is_dir)
        return SQLITE_CANTOPEN;
    *writable_out = false;
    if ((*fd_out = take_spare_fd(&stat, false)) >= 0)
        return SQLITE_OK;
    return thr_os_open(path, THR_OPEN_READ, 0, fd_out, NULL);
}

int thr_db_acquire(const char *path, int flags, struct thr_open_db **out, struct thr_db **db_out, bool *read_only_out)
{
    struct thr_open_db *open_db = NULL;
    struct thr_stat stat;
    bool writable = false;
    int fd = -1, rc = SQLITE_OK;

    *out = NULL;
    pthread_once(&fork_once, watch_forks);
    pthread_mutex_lock(&open_lock);
    /* Without opening the file again if it is open: see struct spare_fd. */
    if (thr_os_stat(path, &stat) == SQLITE_OK)
        open_db = find_open(&stat);
    if (open_db == NULL) {
        if ((rc = open_file(path, flags, &fd, &writable)) != SQLITE_OK) {
            thr_log(rc, "throng: cannot open %s", path);
            goto done;
        }
        if ((rc = thr_os_fstat(fd, &stat)) != SQLITE_OK) {
            thr_os_close(fd);
            goto done;
        }
        rc = open_first(path, fd, writable, &stat, &open_db);
    }
    if (rc == SQLITE_OK) {
        open_db->connections++;
        *out = open_db;
        *db_out = &open_db->db;
        *read_only_out = (flags & SQLITE_OPEN_READWRITE) == 0 || !open_db->db.base.writable;
    }
done:
    pthread_mutex_unlock(&open_lock);
    return rc;
}

void thr_db_release(struct thr_open_db *open_db)
{
    struct thr_open_db **link;
    int rc = SQLITE_OK;

    pthread_mutex_lock(&open_lock);
    if (--open_db->connections > 0) {
        pthread_mutex_unlock(&open_lock);
        return;
    }
    for (link = &open_dbs; *link != open_db; link = &(*link)->next)
        ;
    *link = open_db->next;
    thr_checkpointer_stop(&open_db->db);
    if (open_db->db.base.writable) {
        if (atomic_load(&open_db->db.broken) != 0)
            rc = SQLITE_IOERR;
        else if ((rc = thr_checkpoint_fold(&open_db->db)) != SQLITE_OK)
            thr_log(rc,
                    "throng: %s could not be completed at close; its log in %s is kept, and the next open recovers it",
                    open_db->path, open_db->directory);
    }
    stop_files(open_db);
    if (open_db->db.base.writable && rc == SQLITE_OK && thr_recover_remove(open_db->directory) != SQLITE_OK)
        thr_log(SQLITE_IOERR_DELETE, "throng: cannot remove %s; the next open does", open_db->directory);
    thr_os_unlock(open_db->fd, LOCK_BYTES_AT, LOCK_BYTES);
    thr_os_close(open_db->fd);
    open_db_free(open_db);
    pthread_mutex_unlock(&open_lock);
}
