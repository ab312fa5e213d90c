/* Counters by name, for PRAGMA throng_stats and the table throng_stats.
 *
 * SPDX-License-Identifier: MIT */
#include <stddef.h>

#include "vfs.h"

#include "../os/os.h"

enum stat_source {
    FROM_COUNTER,
    FROM_FRAMES_USED,
    FROM_FRAMES_PEAK,
    FROM_OLDEST_AGE,
    FROM_LOCK_WAITS,
    FROM_LOCK_WAIT_NS,
    FROM_COMMIT_SEQ,
    FROM_LOG_LIVE,
    FROM_POOL,
    FROM_LOCK_ACQUISITIONS, /* of one lock, as the three below */
    FROM_LOCK_CONTENDED,
    FROM_LOCK_WAIT,
    FROM_LOCK_LONGEST
};

enum lock {
    LOCK_COMMIT,
    LOCK_TURN,
    LOCK_SPACE,
    LOCK_SLOT,
    LOCK_HEAP,
    LOCK_CHECKPOINT,
    LOCK_CONFLICT,
    LOCK_GATES,
    LOCK_COUNT
};

#define LOCK_STATS(name, lock)                                                                                   \
    {"lock_" name "_acquisitions", FROM_LOCK_ACQUISITIONS, lock},                                                \
        {"lock_" name "_contended", FROM_LOCK_CONTENDED, lock}, {"lock_" name "_wait_ns", FROM_LOCK_WAIT, lock}, \
    {                                                                                                            \
        "lock_" name "_longest_ns", FROM_LOCK_LONGEST, lock                                                      \
    }

static const struct stat_column {
    const char *name;
    enum stat_source source;
    int which; /* enum thr_counter, enum lock */
} STATS[] = {
    {"commits", FROM_COUNTER, THR_COUNT_COMMITS},
    {"empty_commits", FROM_COUNTER, THR_COUNT_EMPTY_COMMITS},
    {"conflicts_read", FROM_COUNTER, THR_COUNT_CONFLICT_READ},
    {"conflicts_write", FROM_COUNTER, THR_COUNT_CONFLICT_WRITE},
    {"conflicts_schema", FROM_COUNTER, THR_COUNT_CONFLICT_SCHEMA},
    {"conflicts_space", FROM_COUNTER, THR_COUNT_CONFLICT_SPACE},
    {"reruns", FROM_COUNTER, THR_COUNT_RERUNS},
    {"snapshots", FROM_COUNTER, THR_COUNT_SNAPSHOTS},
    {"pages_read", FROM_COUNTER, THR_COUNT_PAGES_READ},
    {"pages_written", FROM_COUNTER, THR_COUNT_PAGES_WRITTEN},
    {"log_bytes", FROM_COUNTER, THR_COUNT_LOG_BYTES},
    {"log_live_bytes", FROM_LOG_LIVE, 0},
    {"checkpoint_pages", FROM_COUNTER, THR_COUNT_CHECKPOINT_PAGES},
    {"heap_frames", FROM_FRAMES_USED, 0},
    {"heap_frames_peak", FROM_FRAMES_PEAK, 0},
    {"free_pool_pages", FROM_POOL, 0},
    {"commit_sequence", FROM_COMMIT_SEQ, 0},
    {"oldest_snapshot_age_us", FROM_OLDEST_AGE, 0},
    {"lock_waits", FROM_LOCK_WAITS, 0},
    {"lock_wait_us", FROM_LOCK_WAIT_NS, 0},
    LOCK_STATS("commit", LOCK_COMMIT),
    LOCK_STATS("turn", LOCK_TURN),
    LOCK_STATS("space", LOCK_SPACE),
    LOCK_STATS("slot", LOCK_SLOT),
    LOCK_STATS("heap", LOCK_HEAP),
    LOCK_STATS("checkpoint", LOCK_CHECKPOINT),
    LOCK_STATS("conflict", LOCK_CONFLICT),
    LOCK_STATS("gates", LOCK_GATES),
};

const char *thr_stats_name(uint32_t index)
{
    return index < sizeof STATS / sizeof STATS[0] ? STATS[index].name : NULL;
}

static uint64_t oldest_age_ns(const struct thr_shm *shm)
{
    uint64_t now = thr_os_now_ns(), began_ns = now;

    (void)thr_shm_oldest_slot(shm, &began_ns);
    return now - began_ns;
}

/* What is known of a lock; of the gates together. */
static uint64_t lock_value(struct thr_head *head, enum lock which, enum stat_source source)
{
    static const size_t LOCKS[] = {
        [LOCK_COMMIT] = offsetof(struct thr_head, commit_lock),
        [LOCK_TURN] = offsetof(struct thr_head, turn_lock),
        [LOCK_SPACE] = offsetof(struct thr_head, space_lock),
        [LOCK_SLOT] = offsetof(struct thr_head, slot_lock),
        [LOCK_HEAP] = offsetof(struct thr_head, heap_lock),
        [LOCK_CHECKPOINT] = offsetof(struct thr_head, checkpoint_lock),
        [LOCK_CONFLICT] = offsetof(struct thr_head, conflict_lock),
        [LOCK_GATES] = offsetof(struct thr_head, gate),
    };
    struct thr_mutex *mutex = (struct thr_mutex *)(void *)((uint8_t *)head + LOCKS[which]);
    uint64_t sum = 0, longest = 0, value;

    for (uint32_t i = 0; i < (which == LOCK_GATES ? THR_GATES : 1); i++) {
        if (source == FROM_LOCK_ACQUISITIONS)
            sum += atomic_load_explicit(&mutex[i].acquired, memory_order_relaxed);
        else if (source == FROM_LOCK_CONTENDED)
            sum += atomic_load_explicit(&mutex[i].contended, memory_order_relaxed);
        else if (source == FROM_LOCK_WAIT)
            sum += atomic_load_explicit(&mutex[i].wait_ns, memory_order_relaxed);
        else if ((value = atomic_load_explicit(&mutex[i].longest_ns, memory_order_relaxed)) > longest)
            longest = value;
    }
    return source == FROM_LOCK_LONGEST ? longest : sum;
}

static uint64_t of_all_locks(struct thr_head *head, enum stat_source source)
{
    uint64_t sum = 0;

    for (int lock = 0; lock < LOCK_COUNT; lock++)
        sum += lock_value(head, (enum lock)lock, source);
    return sum;
}

int64_t thr_stats_value(struct thr_db *db, uint32_t index)
{
    struct thr_head *head = db->shm.head;

    switch (STATS[index].source) {
    case FROM_COUNTER:
        return (int64_t)thr_shm_counter(&db->shm, (enum thr_counter)STATS[index].which);
    case FROM_FRAMES_USED:
        return atomic_load_explicit(&head->frames_used, memory_order_relaxed);
    case FROM_FRAMES_PEAK:
        return atomic_load_explicit(&head->frames_peak, memory_order_relaxed);
    case FROM_OLDEST_AGE:
        return (int64_t)(oldest_age_ns(&db->shm) / 1000);
    case FROM_LOCK_WAITS:
        return (int64_t)of_all_locks(head, FROM_LOCK_CONTENDED);
    case FROM_LOCK_WAIT_NS:
        return (int64_t)(of_all_locks(head, FROM_LOCK_WAIT) / 1000);
    case FROM_COMMIT_SEQ:
        return (int64_t)atomic_load_explicit(&head->commit_seq, memory_order_relaxed);
    case FROM_LOG_LIVE:
        return (int64_t)atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed);
    case FROM_POOL:
        return atomic_load_explicit(&head->pool_pages, memory_order_relaxed);
    case FROM_LOCK_ACQUISITIONS:
    case FROM_LOCK_CONTENDED:
    case FROM_LOCK_WAIT:
    case FROM_LOCK_LONGEST:
        return (int64_t)lock_value(head, (enum lock)STATS[index].which, STATS[index].source);
    }
    return 0;
}
