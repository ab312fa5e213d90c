/* The checkpointer: one thread for a database, where the user asks for it (`checkpointer=thread`). Then no transaction
 * waits for a sync of the file or for disk space of the log.
 *
 * It does what may block: syncs, disk space for the log, telling the kernel to write. Those who commit write a few pages
 * each, as without it: a thread that writes all of them took whole time slices away from two writers on two processors
 * (their p99 was 4.2 ms instead of 0.7). It looks every few milliseconds as long as there are commits, and sleeps
 * otherwise.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>

#include "../os/os.h"
#include "checkpoint.h"

enum { TIMES = 2, IDLE_LOOKS = 100 };
static const uint64_t LOOK_NS = 5000000, LET_IN_NS = 1000000;

/* Sleep until somebody commits. */
static void sleep_deeply(struct thr_db *db)
{
    uint32_t asleep = 1;

    atomic_store_explicit(&db->checkpointer_asleep, asleep, memory_order_seq_cst);
    while (atomic_load_explicit(&db->checkpointer_asleep, memory_order_seq_cst) == asleep &&
           atomic_load_explicit(&db->checkpointer_stop, memory_order_seq_cst) == 0)
        thr_os_futex_wait(&db->checkpointer_asleep, asleep, UINT64_MAX);
}

static void *run(void *arg)
{
    struct thr_db *db = arg;
    uint64_t seq = 0, now;
    int idle = 0;

    while (atomic_load_explicit(&db->checkpointer_stop, memory_order_acquire) == 0) {
        thr_checkpoint_tend_log(db);
        if (thr_checkpoint_try(db, TIMES, true)) {
            thr_os_sleep_ns(LET_IN_NS); /* those who commit write pages, too */
            continue;
        }
        now = atomic_load_explicit(&db->shm.head->commit_seq, memory_order_relaxed);
        idle = now == seq ? idle + 1 : 0;
        seq = now;
        if (idle < IDLE_LOOKS)
            thr_os_sleep_ns(LOOK_NS);
        else
            sleep_deeply(db);
    }
    return NULL;
}

void thr_checkpointer_start(struct thr_db *db)
{
    int rc = thr_os_thread_start(&db->checkpointer, run, db);

    db->has_checkpointer = rc == SQLITE_OK;
    if (rc != SQLITE_OK)
        thr_log(rc, "throng: %s: no thread for checkpoints: those who commit do them", db->path);
}

void thr_checkpointer_wake(struct thr_db *db)
{
    if (atomic_load_explicit(&db->checkpointer_asleep, memory_order_relaxed) == 0)
        return;
    atomic_store_explicit(&db->checkpointer_asleep, 0, memory_order_seq_cst);
    thr_os_futex_wake(&db->checkpointer_asleep, 1);
}

void thr_checkpointer_stop(struct thr_db *db)
{
    if (!db->has_checkpointer)
        return;
    atomic_store_explicit(&db->checkpointer_stop, 1, memory_order_seq_cst);
    atomic_store_explicit(&db->checkpointer_asleep, 0, memory_order_seq_cst);
    thr_os_futex_wake(&db->checkpointer_asleep, 1);
    thr_os_thread_join(&db->checkpointer);
    db->has_checkpointer = false;
}
