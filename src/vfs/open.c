/* Which databases are open in this process, and how the first connection opens one and the last one closes it.
 *
 * SPDX-License-Identifier: MIT */
#include "open.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../ckpt/checkpoint.h"
#include "../ckpt/engine.h"
#include "../ckpt/recover.h"
#include "../os/os.h"
#include "../txn/db.h"

struct thr_open_db {
    struct thr_db db;
    struct thr_open_db *next;
    uint64_t dev, ino;
    uint32_t connections;
    int fd;
    char *path;
    char *directory;
};

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list, and opening and closing */
static struct thr_open_db *open_dbs;
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
    open_dbs = NULL;
    thr_descriptors_after_fork();
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

static int refresh_size(struct thr_open_db *open_db)
{
    struct thr_stat stat;
    int rc = thr_os_fstat(open_db->fd, &stat);

    if (rc == SQLITE_OK)
        atomic_store(&open_db->db.base.bytes, stat.bytes);
    return rc;
}

static void open_db_free(struct thr_open_db *open_db)
{
    thr_os_free(open_db->directory);
    thr_os_free(open_db->path);
    thr_os_free(open_db);
}

/* The first connection of this process. */
static int open_first(const char *path, int fd, bool writable, const struct thr_stat *stat, struct thr_open_db **out)
{
    struct thr_open_db *open_db = thr_os_alloc(sizeof *open_db);
    size_t bytes = strlen(path) + 16;
    bool locked = false, incomplete;
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
    if ((rc = thr_options_read(path, &open_db->db)) != SQLITE_OK ||
        (rc = thr_options_check_filesystem(path, fd)) != SQLITE_OK)
        goto err;
    if ((rc = thr_os_lock(fd, writable, THR_LOCK_BYTES_AT, THR_LOCK_BYTES)) != SQLITE_OK) {
        if (rc == SQLITE_BUSY)
            log_busy(open_db);
        goto err;
    }
    locked = true;
    if ((rc = refresh_size(open_db)) != SQLITE_OK)
        goto err;
    if (writable &&
        ((rc = thr_leftovers_recover(&open_db->db)) != SQLITE_OK || (rc = refresh_size(open_db)) != SQLITE_OK))
        goto err;
    if ((rc = thr_engine_start(&open_db->db, &incomplete)) != SQLITE_OK) {
        if (incomplete)
            thr_log_incomplete(&open_db->db);
        thr_engine_stop(&open_db->db);
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
        thr_os_unlock(fd, THR_LOCK_BYTES_AT, THR_LOCK_BYTES);
    thr_descriptor_keep(fd, stat, writable);
    if (open_db != NULL)
        open_db_free(open_db);
    return rc;
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
        if ((rc = thr_descriptor_open(path, flags, &fd, &writable)) != SQLITE_OK) {
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
    thr_engine_stop(&open_db->db);
    if (open_db->db.base.writable && rc == SQLITE_OK && thr_recover_remove(open_db->directory) != SQLITE_OK)
        thr_log(SQLITE_IOERR_DELETE, "throng: cannot remove %s; the next open does", open_db->directory);
    thr_os_unlock(open_db->fd, THR_LOCK_BYTES_AT, THR_LOCK_BYTES);
    thr_os_close(open_db->fd);
    open_db_free(open_db);
    pthread_mutex_unlock(&open_lock);
}
