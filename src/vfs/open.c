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
#include "../os/assert.h"
#include "../os/os.h"
#include "../txn/db.h"

/* Opening and closing may take long (recovery, the last checkpoint), so they happen without list_lock: the database is in
 * the list by then, in a state that makes others wait who want the same one.
 *
 *   from     to       by
 *            OPENING  the first connection
 *   OPENING  OPEN     the same thread; or it takes the database off the list
 *   OPEN     CLOSING  the last connection, which then takes it off the list
 *
 *   field               writer                      guard
 *   state, connections  any connection              list_lock
 *   next                who enters or leaves        list_lock
 *   everything else     the thread that opens it    none: others see it once the state is OPEN */
struct thr_open_db {
    struct thr_db db;
    struct thr_open_db *next;
    enum { OPENING, OPEN, CLOSING } state;
    uint32_t connections;
    struct thr_stat stat; /* of the file when it was opened */
    bool writable;        /* the descriptor is */
    char *path;
    char *directory;
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list, and the spare descriptors */
static pthread_cond_t state_changed = PTHREAD_COND_INITIALIZER;
static struct thr_open_db *open_dbs;
static _Atomic uint32_t forks;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* How long the lock on a database may be held without a sign of its holder. */
static const uint64_t PATIENCE_NS = 1000000000, LOOK_AGAIN_NS = 1000000;

/* Everything open belongs to the parent, also what another of its threads is about to open or to close. The child forgets
 * it; its memory is not given back, as it may be in use. But the lock on a database is shared with the child: it must not
 * keep it when the parent has died. */
static void after_fork_in_child(void)
{
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next) {
        thr_base_after_fork(&at->db.base);
        thr_base_abandon(&at->db.base);
        thr_home_abandon(&at->db.home);
    }
    open_dbs = NULL;
    thr_descriptors_after_fork();
    pthread_mutex_init(&list_lock, NULL);
    pthread_cond_init(&state_changed, NULL);
    thr_beside_after_fork();
}

static void before_fork(void)
{
    pthread_mutex_lock(&list_lock);
    thr_beside_before_fork();
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next)
        thr_base_before_fork(&at->db.base);
}

static void after_fork_in_parent(void)
{
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next)
        thr_base_after_fork(&at->db.base);
    thr_beside_after_fork();
    pthread_mutex_unlock(&list_lock);
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
    id[0] = (sqlite3_int64)open_db->stat.dev;
    id[1] = (sqlite3_int64)open_db->stat.ino;
}

static struct thr_open_db *find_open(const struct thr_stat *stat)
{
    for (struct thr_open_db *at = open_dbs; at != NULL; at = at->next)
        if (at->stat.dev == stat->dev && at->stat.ino == stat->ino)
            return at;
    return NULL;
}

/* Who has the database? The lock says so, or the index. */
static void log_busy(const struct thr_open_db *open_db, uint32_t holder)
{
    char *path = thr_db_file(&open_db->db, "shm");
    uint32_t pid = 0;
    size_t got = 0;
    int fd;

    if (path != NULL && thr_os_open(path, THR_OPEN_INSIDE, 0, &fd, NULL) == SQLITE_OK) {
        thr_os_read(fd, &pid, sizeof pid, offsetof(struct thr_head, owner_pid), &got);
        thr_os_close(fd);
    }
    thr_os_free(path);
    if (got == sizeof pid && pid != 0)
        thr_log(SQLITE_BUSY,
                "throng: %s is in use by process %u; one process at a time can have it open with vfs=throng",
                open_db->path, pid);
    else if (holder != THR_LOCK_HOLDER_UNKNOWN && holder != 0)
        thr_log(SQLITE_BUSY,
                "throng: %s is in use by a connection of stock SQLite in process %u, which must close it first",
                open_db->path, holder);
    else
        thr_log(SQLITE_BUSY,
                "throng: %s is in use by another process, or by a connection of stock SQLite: it must close "
                "the database first",
                open_db->path);
}

/* SQLite's lock bytes, for as long as the file is open. The lock goes with its descriptor, and a child may have that for a
 * moment longer than its parent, between fork() and the first thing that it does. So where nothing else shows that the
 * database is in use, the lock is waited for. */
static int take_lock(const struct thr_open_db *open_db)
{
    uint64_t until = thr_os_now_ns() + PATIENCE_NS;
    uint32_t holder = 0;
    struct thr_stat stat;
    int rc;

    while ((rc = thr_os_lock(open_db->db.base.fd, open_db->writable, THR_LOCK_BYTES_AT, THR_LOCK_BYTES)) ==
           SQLITE_BUSY) {
        thr_os_lock_holder(open_db->db.base.fd, THR_LOCK_BYTES_AT, THR_LOCK_BYTES, &holder);
        if ((holder != 0 && holder != THR_LOCK_HOLDER_UNKNOWN) || thr_os_now_ns() > until ||
            thr_stat_beside(open_db->path, "-journal", &stat) != SQLITE_NOTFOUND)
            break;
        thr_os_sleep_ns(LOOK_AGAIN_NS);
    }
    if (rc == SQLITE_BUSY)
        log_busy(open_db, holder);
    else if (rc != SQLITE_OK)
        thr_log(rc, "throng: %s cannot be locked", open_db->path);
    return rc;
}

static int refresh_size(struct thr_open_db *open_db)
{
    struct thr_stat stat;
    int rc = thr_os_fstat(open_db->db.base.fd, &stat);

    if (rc == SQLITE_OK)
        atomic_store(&open_db->db.base.bytes, stat.bytes);
    return rc;
}

static void open_db_free(struct thr_open_db *open_db)
{
    if (open_db == NULL)
        return;
    thr_os_free(open_db->directory);
    thr_os_free(open_db->path);
    thr_os_free(open_db);
}

static struct thr_open_db *open_db_new(const char *path)
{
    struct thr_open_db *open_db = thr_os_alloc(sizeof *open_db);
    size_t bytes = strlen(path) + sizeof "-journal";

    if (open_db == NULL)
        return NULL;
    open_db->path = thr_os_alloc(bytes);
    open_db->directory = thr_os_alloc(bytes);
    if (open_db->path == NULL || open_db->directory == NULL) {
        open_db_free(open_db);
        return NULL;
    }
    snprintf(open_db->path, bytes, "%s", path);
    snprintf(open_db->directory, bytes, "%s-journal", path);
    open_db->state = OPENING;
    open_db->db.path = open_db->path;
    open_db->db.directory = open_db->directory;
    open_db->db.base.fd = -1;
    open_db->db.heap.fd = -1;
    open_db->db.make_room = thr_checkpoint_make_room;
    open_db->db.home = THR_HOME_NONE;
    open_db->db.log.directory_fd = open_db->db.log.parent_fd = -1;
    open_db->db.shm.fd = -1;
    return open_db;
}

/* The work of the first connection of this process. */
static int start(struct thr_open_db *open_db, const char *uri)
{
    bool incomplete = false;
    int rc;

    if ((rc = thr_options_read(uri, &open_db->db)) != SQLITE_OK ||
        (rc = thr_options_check_filesystem(uri, open_db->db.base.fd)) != SQLITE_OK ||
        (rc = take_lock(open_db)) != SQLITE_OK || (rc = refresh_size(open_db)) != SQLITE_OK)
        return rc;
    if (open_db->writable &&
        ((rc = thr_leftovers_recover(&open_db->db)) != SQLITE_OK || (rc = refresh_size(open_db)) != SQLITE_OK))
        return rc;
    if ((rc = thr_engine_start(&open_db->db, &incomplete)) != SQLITE_OK) {
        if (incomplete)
            thr_log_incomplete(&open_db->db);
        return rc;
    }
    if (open_db->db.base.writable && open_db->db.checkpointer_thread)
        thr_checkpointer_start(&open_db->db);
    return SQLITE_OK;
}

/* The last connection is gone: everything goes to the file. */
static int fold(struct thr_db *db)
{
    bool in_place = thr_home_is_in_place(db->directory, &db->home);
    int rc = atomic_load(&db->broken) != 0 ? SQLITE_IOERR : thr_checkpoint_fold(db, in_place);

    if (rc == SQLITE_OK && !in_place)
        thr_log(SQLITE_WARNING, "throng: %s, the directory of %s, was moved or deleted: all commits are in the file",
                db->directory, db->path);
    return rc;
}

/* The work of the last one. */
static void finish(struct thr_open_db *open_db)
{
    struct thr_recovery recovery;
    int rc = SQLITE_OK;

    thr_checkpointer_stop(&open_db->db);
    if (open_db->db.base.writable)
        rc = fold(&open_db->db);
    thr_engine_stop(&open_db->db);
    if (rc == SQLITE_FULL && thr_home_is_in_place(open_db->directory, &open_db->db.home) &&
        refresh_size(open_db) ==
            SQLITE_OK) /* the log has everything, too, and without the heap there may be room for it */
        rc = thr_recover_apply(open_db->directory, &open_db->db.base, &recovery);
    if (rc != SQLITE_OK)
        thr_log(rc,
                "throng: %s could not be completed at close%s; its log in %s is kept, and the next open recovers it",
                open_db->path, rc == SQLITE_FULL ? ", as the disk is full" : "", open_db->directory);
    else if (open_db->db.base.writable && (rc = thr_home_remove(open_db->directory, &open_db->db.home)) != SQLITE_OK)
        thr_log(rc, "throng: cannot remove %s; the next open does", open_db->directory);
    thr_home_let_go(&open_db->db.home, false);
}

/* Take it off the list. A fork() sees it with its mapping and its descriptor, or not at all. */
static void leave(struct thr_open_db *open_db)
{
    struct thr_open_db **link;

    pthread_mutex_lock(&list_lock);
    THR_ASSERT(open_db->state != OPEN && open_db->connections == 0);
    for (link = &open_dbs; *link != open_db; link = &(*link)->next)
        ;
    *link = open_db->next;
    thr_base_close(&open_db->db.base);
    thr_descriptor_close(open_db->db.base.fd, &open_db->stat, open_db->writable);
    pthread_cond_broadcast(&state_changed);
    pthread_mutex_unlock(&list_lock);
    open_db_free(open_db);
}

/* Find the database, or enter it into the list as OPENING. list_lock. On error *trouble_out may say more. */
static int enter(const char *path, int flags, struct thr_open_db **out, enum thr_trouble *trouble_out)
{
    struct thr_open_db *open_db;
    struct thr_stat stat;
    int rc;

    /* Without opening the file again if it is open. */
    while ((rc = thr_os_stat(path, &stat)) == SQLITE_OK && (*out = find_open(&stat)) != NULL) {
        if ((*out)->state == OPEN)
            return SQLITE_OK;
        pthread_cond_wait(&state_changed, &list_lock);
    }
    if ((open_db = open_db_new(path)) == NULL)
        return SQLITE_NOMEM;
    rc = thr_descriptor_open(path, flags, rc, &stat, &open_db->db.base.fd, &open_db->writable, trouble_out);
    if (rc == SQLITE_OK && (rc = thr_os_fstat(open_db->db.base.fd, &open_db->stat)) != SQLITE_OK)
        thr_descriptor_close(open_db->db.base.fd, &open_db->stat, open_db->writable);
    if (rc != SQLITE_OK) {
        open_db_free(open_db);
        return rc;
    }
    open_db->db.file_mode = open_db->stat.mode & 0666;
    open_db->db.base.writable = open_db->writable;
    open_db->next = open_dbs;
    open_dbs = open_db;
    *out = open_db;
    return SQLITE_OK;
}

int thr_db_acquire(const char *path, int flags, struct thr_open_db **out, struct thr_db **db_out, bool *read_only_out)
{
    enum thr_trouble trouble = THR_TROUBLE_NONE;
    struct thr_open_db *open_db = NULL;
    bool first = false;
    int rc;

    *out = NULL;
    pthread_once(&fork_once, watch_forks);
    pthread_mutex_lock(&list_lock);
    if ((rc = enter(path, flags, &open_db, &trouble)) == SQLITE_OK) {
        first = open_db->state == OPENING;
        open_db->connections += !first;
    }
    pthread_mutex_unlock(&list_lock);
    if (rc != SQLITE_OK) {
        thr_descriptor_log(path, rc, trouble);
        return rc;
    }
    if (first) {
        rc = start(open_db, path);
        if (rc != SQLITE_OK) {
            leave(open_db);
            return rc;
        }
        pthread_mutex_lock(&list_lock);
        open_db->state = OPEN;
        open_db->connections = 1;
        pthread_cond_broadcast(&state_changed);
        pthread_mutex_unlock(&list_lock);
    }
    *out = open_db;
    *db_out = &open_db->db;
    *read_only_out = (flags & SQLITE_OPEN_READWRITE) == 0 || !open_db->db.base.writable;
    return SQLITE_OK;
}

void thr_db_release(struct thr_open_db *open_db)
{
    bool last;

    pthread_mutex_lock(&list_lock);
    THR_ASSERT(open_db->state == OPEN && open_db->connections > 0);
    last = --open_db->connections == 0;
    if (last)
        open_db->state = CLOSING;
    pthread_mutex_unlock(&list_lock);
    if (!last)
        return;
    finish(open_db);
    leave(open_db);
}
