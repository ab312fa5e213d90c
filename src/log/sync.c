/* Group commit: what has to be durable before it is visible, and one fdatasync for all who wait.
 *
 * A commit at synchronous=FULL is logged and linked under commit_lock as any other, but no snapshot sees it, or any later
 * commit, before a sync of the log has covered it. Whoever needs a sync and finds none going on leads one, for everything
 * that was logged by then; the others wait for it, and one of them leads the next. (Group commit: DeWitt et al.,
 * "Implementation Techniques for Main Memory Database Systems", 1984.) No lock is held during the sync.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "log.h"

enum { BATCH = 32, WRITE_BACK = 1 << 20 };
static const uint64_t LOOK_AGAIN_NS = 20000000;

bool thr_log_failed(const struct thr_log *log)
{
    return atomic_load_explicit(&log->failed, memory_order_acquire) != 0;
}

void thr_log_fail(struct thr_log *log, const char *path)
{
    if (atomic_exchange_explicit(&log->failed, 1, memory_order_acq_rel) == 0)
        thr_log(
            SQLITE_IOERR_FSYNC,
            "throng: cannot sync %s: what was committed since may be lost in a power cut. The database is read-only "
            "until all its connections are closed and it is opened again",
            path);
}

void thr_log_show(struct thr_log *log)
{
    struct thr_head *head = log->shm->head;
    uint64_t durable = atomic_load_explicit(&head->durable_seq, memory_order_acquire);
    uint64_t seq = atomic_load_explicit(&head->commit_seq, memory_order_relaxed);

    if (durable < atomic_load_explicit(&head->full_seq, memory_order_relaxed))
        seq = durable;
    if (seq > atomic_load_explicit(&head->visible_seq, memory_order_relaxed))
        atomic_store_explicit(&head->visible_seq, seq, memory_order_seq_cst); /* pairs with thr_snapshot_take() */
}

/* The segments that hold unsynced records, oldest first, kept from retirement; the last one is the current one unless
 * there are too many. commit_lock. */
static int unsynced(struct thr_log *log, struct thr_segment **to)
{
    int count = 0;

    for (struct thr_segment *segment = log->full; segment != NULL && count < BATCH - 1; segment = segment->next)
        if (!segment->synced)
            to[count++] = segment;
    if (count < BATCH - 1)
        to[count++] = log->current;
    for (int i = 0; i < count; i++)
        atomic_fetch_add_explicit(&to[i]->syncs, 1, memory_order_relaxed);
    return count;
}

int thr_log_sync_names(struct thr_log *log)
{
    /* What was counted before is synced now. Two syncers may do it twice; neither takes the other's for done that is not. */
    uint64_t changed = atomic_load_explicit(&log->names_changed, memory_order_acquire); /* pairs with names_changed() */
    uint64_t synced = atomic_load_explicit(&log->names_synced, memory_order_acquire);
    int rc;

    if (synced >= changed)
        return SQLITE_OK;
    rc = thr_os_sync_dir(log->directory_fd);
    if (rc == SQLITE_OK && atomic_load_explicit(&log->parent_synced, memory_order_acquire) == 0) {
        /* The directory itself, and maybe the database, are new there. */
        if ((rc = thr_os_sync_dir(log->parent_fd)) == SQLITE_OK)
            atomic_store_explicit(&log->parent_synced, 1, memory_order_release);
    }
    if (rc != SQLITE_OK) {
        thr_log_fail(log, log->directory);
        return SQLITE_IOERR_FSYNC;
    }
    while (synced < changed && !atomic_compare_exchange_weak_explicit(&log->names_synced, &synced, changed,
                                                                      memory_order_release, memory_order_acquire))
        ;
    return SQLITE_OK;
}

static int sync_segments(struct thr_log *log, struct thr_segment **segments, int count)
{
    int rc;

    THR_POINT("sync-begins");
    rc = thr_log_sync_names(log); /* first: a record counts only if its segment can be found */
    for (int i = 0; i < count && rc == SQLITE_OK; i++)
        rc = thr_os_sync(segments[i]->fd);
    if (rc != SQLITE_OK)
        thr_log_fail(log, log->directory);
    return rc == SQLITE_OK ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

/* commit_lock. `current`: what was the current segment when the sync began; records may have come to it since. */
static void release(struct thr_segment **segments, int count, bool synced, const struct thr_segment *current)
{
    for (int i = 0; i < count; i++) {
        if (synced && segments[i] != current)
            segments[i]->synced = true;
        atomic_fetch_sub_explicit(&segments[i]->syncs, 1, memory_order_release); /* pairs with thr_log_retire() */
    }
}

/* One sync for what is logged now. Only the leader. Returns whether that was all of it. */
static bool lead(struct thr_log *log)
{
    struct thr_head *head = log->shm->head;
    struct thr_segment *segments[BATCH], *current;
    uint64_t seq;
    bool all;
    int count, rc;

    THR_POINT("sync-lead");
    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    current = log->current;
    count = unsynced(log, segments);
    all = segments[count - 1] == current;
    seq = all ? atomic_load_explicit(&head->commit_seq, memory_order_relaxed) : segments[count - 1]->last_seq;
    atomic_store_explicit(&log->leading, 1, memory_order_relaxed);
    thr_mutex_unlock(&head->commit_lock);
    rc = sync_segments(log, segments, count);
    atomic_store_explicit(&log->leading, 0, memory_order_release); /* pairs with thr_log_sync_held() */
    THR_POINT("synced");
    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    if (thr_log_failed(log)) /* a commit that spans databases was told, and we were not */
        rc = SQLITE_IOERR_FSYNC;
    release(segments, count, rc == SQLITE_OK, current);
    if (rc == SQLITE_OK) {
        thr_log_is_durable(log, seq); /* a commit that spans databases may have synced more meanwhile */
        THR_POINT("durable");
        thr_log_show(log);
    }
    thr_mutex_unlock(&head->commit_lock);
    return rc == SQLITE_OK && all;
}

/* Become the leader, or wait until the one there is has done a sync. */
static bool become_leader(struct thr_head *head, uint32_t round)
{
    uint32_t none = 0;

    if (atomic_compare_exchange_strong_explicit(&head->sync_leader, &none, 1, memory_order_acquire,
                                                memory_order_relaxed))
        return true;
    thr_os_futex_wait(&head->sync_round, round, LOOK_AGAIN_NS);
    return false;
}

static void stop_leading(struct thr_head *head)
{
    atomic_store_explicit(&head->sync_leader, 0, memory_order_release);
    atomic_fetch_add_explicit(&head->sync_round, 1, memory_order_release);
    thr_os_futex_wake(&head->sync_round, INT32_MAX);
}

int thr_log_sync(struct thr_log *log, uint64_t seq)
{
    struct thr_head *head = log->shm->head;
    uint32_t round;

    for (;;) {
        round = atomic_load_explicit(&head->sync_round, memory_order_acquire);
        if (atomic_load_explicit(&head->durable_seq, memory_order_acquire) >= seq)
            return SQLITE_OK;
        if (thr_log_failed(log))
            return SQLITE_IOERR_FSYNC;
        if (!become_leader(head, round))
            continue;
        if (atomic_load_explicit(&head->durable_seq, memory_order_acquire) < seq)
            lead(log);
        stop_leading(head);
    }
}

int thr_log_sync_all(struct thr_log *log)
{
    struct thr_head *head = log->shm->head;
    bool all = false;

    while (!all) {
        if (thr_log_failed(log))
            return SQLITE_IOERR_FSYNC;
        if (!become_leader(head, atomic_load_explicit(&head->sync_round, memory_order_acquire)))
            continue;
        all = lead(log);
        stop_leading(head);
    }
    return SQLITE_OK;
}

void thr_log_is_durable(struct thr_log *log, uint64_t seq)
{
    struct thr_head *head = log->shm->head;

    if (seq > atomic_load_explicit(&head->durable_seq, memory_order_relaxed))
        atomic_store_explicit(&head->durable_seq, seq, memory_order_release);
}

int thr_log_sync_held(struct thr_log *log)
{
    struct thr_segment *segments[BATCH];
    int count, rc;
    bool all;

    do {
        count = unsynced(log, segments);
        all = segments[count - 1] == log->current;
        rc = sync_segments(log, segments, count);
        release(segments, count, rc == SQLITE_OK, log->current);
    } while (rc == SQLITE_OK && !all);
    /* The kernel tells only one of two who sync a file that it could not be written. So wait for what a leader was told that
     * began before us; none begins while we have commit_lock. */
    while (atomic_load_explicit(&log->leading, memory_order_acquire) != 0) /* pairs with lead() */
        thr_os_sleep_ns(100000);
    return thr_log_failed(log) ? SQLITE_IOERR_FSYNC : rc;
}

void thr_log_write_back(struct thr_log *log)
{
    struct thr_head *head = log->shm->head;
    struct thr_segment *segment;
    uint64_t from = 0, tail;

    /* The first look is without the lock: a hint. */
    if (atomic_load_explicit(&head->log_tail, memory_order_relaxed) -
                atomic_load_explicit(&log->written_back, memory_order_relaxed) <
            WRITE_BACK ||
        !thr_mutex_try(&head->commit_lock))
        return;
    segment = log->current;
    tail = atomic_load_explicit(&head->log_tail, memory_order_relaxed) / WRITE_BACK * WRITE_BACK;
    if (segment->written_back < tail) {
        from = segment->written_back;
        segment->written_back = tail;
    }
    atomic_store_explicit(&log->written_back, segment->written_back, memory_order_relaxed);
    atomic_fetch_add_explicit(&segment->syncs, 1, memory_order_relaxed);
    thr_mutex_unlock(&head->commit_lock);
    if (from < tail)
        thr_os_write_back(segment->fd, (int64_t)from, (int64_t)(tail - from));
    atomic_fetch_sub_explicit(&segment->syncs, 1, memory_order_release); /* pairs with thr_log_retire() */
}

void thr_log_wait_visible(struct thr_log *log, uint64_t seq)
{
    struct thr_head *head = log->shm->head;
    uint32_t round;

    for (;;) {
        round = atomic_load_explicit(&head->sync_round, memory_order_acquire);
        if (atomic_load_explicit(&head->visible_seq, memory_order_seq_cst) >= seq || thr_log_failed(log))
            return;
        /* The committer at FULL leads the sync for its commit at once, unless its thread does not get to run. */
        if (!thr_os_futex_wait(&head->sync_round, round, LOOK_AGAIN_NS))
            (void)thr_log_sync(log, seq); /* if it fails, the log has failed: seen above */
    }
}
