/* SPDX-License-Identifier: MIT */
#include "checkpoint.h"

#include <sqlite3.h>
#include <string.h>

#include "../log/horizon.h"
#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "../txn/db.h"
#include "../txn/page1.h"
#include "stock.h"

enum { STEP_ENTRIES = 512, STEP_PAGES = 24, WRITE_BACK_PAGES = 2048 };
static const uint64_t BARRIER_NS = 200000000;

/* The newest version that every snapshot in use sees is safe to write. Announce it as a snapshot of our own, so that
 * the versions it sees stay, and make sure that somebody else still held them when we did. */
static uint64_t pin(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t seq, now;

    do {
        now = atomic_load_explicit(&head->visible_seq, memory_order_seq_cst);
        seq = thr_oldest_snapshot(&db->shm, now);
        atomic_store_explicit(&head->checkpoint_snapshot, seq, memory_order_seq_cst); /* pairs with reclamation */
        now = atomic_load_explicit(&head->visible_seq, memory_order_seq_cst);
    } while (thr_oldest_snapshot(&db->shm, now) != seq);
    return seq;
}

static void unpin(struct thr_db *db)
{
    atomic_store_explicit(&db->shm.head->checkpoint_snapshot, 0, memory_order_seq_cst);
}

/* Write page `pgno` as snapshot `seq` sees it, if that is newer than `horizon`. */
static int write_page(struct thr_db *db, uint32_t pgno, uint64_t seq, uint64_t horizon, bool *written_out)
{
    bool is_free = false;
    uint32_t page_size = db->heap.page_size;
    uint32_t frame = thr_version_find(&db->heap, pgno, seq, &is_free);

    *written_out = false;
    if (frame == 0 || is_free ||
        atomic_load_explicit(&thr_heap_frame(&db->heap, frame)->seq, memory_order_relaxed) <= horizon)
        return SQLITE_OK;
    *written_out = true;
    return thr_base_write(&db->base, thr_heap_page(&db->heap, frame), page_size, (int64_t)(pgno - 1) * page_size);
}

static void cycle_begin(struct thr_db *db)
{
    uint64_t now = atomic_load_explicit(&db->shm.head->visible_seq, memory_order_acquire);
    uint64_t extent;

    db->checkpoint_target = pin(db);
    extent = atomic_load_explicit(&db->shm.head->extent[now % THR_EXTENTS], memory_order_acquire);
    db->checkpoint_end = (uint32_t)(extent >> 32);
    db->checkpoint_page = 1;
    /* Log before base (I4): what is written must be durable in the log. Then the whole cycle writes one snapshot. */
    db->checkpoint_durable = atomic_load_explicit(&db->sync_wanted, memory_order_relaxed) != 0;
    if (db->checkpoint_durable && thr_log_sync(&db->log, db->checkpoint_target) != SQLITE_OK)
        db->checkpoint_page = 0;
}

static void cycle_end(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t first;

    db->checkpoint_page = 0;
    if (db->checkpoint_durable && thr_os_sync(db->base.fd) != SQLITE_OK) {
        thr_log_fail(&db->log, db->path); /* what the kernel has thrown away no later sync will bring back */
        return;
    }
    /* The head of the first segment that is kept has the free list: it must be durable, too. */
    first = thr_log_first_needed(&db->log, db->checkpoint_target);
    if (db->checkpoint_durable &&
        thr_log_sync(&db->log, atomic_load_explicit(&head->commit_seq, memory_order_acquire)) != SQLITE_OK)
        return;
    if (thr_horizon_write(db->log.directory, db->log.mode, first, db->checkpoint_durable) != SQLITE_OK)
        return; /* the log is kept, and the next cycle tries again */
    atomic_store_explicit(&head->horizon, db->checkpoint_target, memory_order_release);
    thr_log_retire(&db->log, db->checkpoint_target);
}

void thr_checkpoint_step(struct thr_conn *conn)
{
    struct thr_db *db = conn->db;
    struct thr_head *head = db->shm.head;
    uint64_t live = atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed);
    uint32_t entries = STEP_ENTRIES, pages = STEP_PAGES, first;
    uint64_t seq, horizon;
    bool written;
    int rc = SQLITE_OK;

    thr_log_prepare(&db->log);
    if (atomic_load_explicit(&db->sync_wanted, memory_order_relaxed) != 0)
        thr_log_write_back(&db->log);
    if (live < db->checkpoint_bytes || thr_log_failed(&db->log) || !thr_mutex_try(&head->checkpoint_lock))
        return;
    if (live > 2 * db->checkpoint_bytes) { /* falling behind: do more at a time */
        entries *= 4;
        pages *= 4;
    }
    horizon = atomic_load_explicit(&head->horizon, memory_order_relaxed);
    if (db->checkpoint_page != 0 && !db->checkpoint_durable &&
        atomic_load_explicit(&db->sync_wanted, memory_order_relaxed) != 0)
        db->checkpoint_page = 0; /* begun when nobody cared: once more */
    if (db->checkpoint_page == 0) {
        cycle_begin(db);
        if (db->checkpoint_target <= horizon)
            db->checkpoint_page = 0; /* the oldest snapshot holds everything back */
    }
    if (db->checkpoint_page != 0) {
        THR_POINT("checkpoint");
        seq = db->checkpoint_durable ? db->checkpoint_target : pin(db);
        first = db->checkpoint_page;
        while (entries-- > 0 && pages > 0 && db->checkpoint_page <= db->checkpoint_end && rc == SQLITE_OK) {
            if ((rc = write_page(db, db->checkpoint_page, seq, horizon, &written)) == SQLITE_OK) {
                db->checkpoint_page++;
                pages -= written;
                thr_count(conn->slot, THR_COUNT_CHECKPOINT_PAGES, written);
            }
        }
        if (db->checkpoint_durable && db->checkpoint_page / WRITE_BACK_PAGES != first / WRITE_BACK_PAGES)
            thr_os_write_back(db->base.fd, 0, 0); /* the sync at the end is to find little left */
        if (rc != SQLITE_OK)
            thr_log(rc, "throng: cannot write page %u of %s; its log is kept", db->checkpoint_page, db->path);
        else if (db->checkpoint_page > db->checkpoint_end)
            cycle_end(db);
    }
    if (db->checkpoint_page == 0 || !db->checkpoint_durable)
        unpin(db);
    thr_mutex_unlock(&head->checkpoint_lock);
}

/* Every page's newest version. Nobody else uses the database. */
static int write_all(struct thr_db *db, uint32_t page_count)
{
    uint64_t seq = atomic_load_explicit(&db->shm.head->commit_seq, memory_order_acquire);
    uint64_t horizon = atomic_load_explicit(&db->shm.head->horizon, memory_order_relaxed);
    bool written;
    int rc = SQLITE_OK;

    for (uint32_t pgno = 1; pgno <= page_count && rc == SQLITE_OK; pgno++)
        rc = write_page(db, pgno, seq, horizon, &written);
    return rc;
}

int thr_checkpoint_fold(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t seq = atomic_load_explicit(&head->commit_seq, memory_order_acquire);
    uint32_t page_count = (uint32_t)(atomic_load_explicit(&head->extent[seq % THR_EXTENTS], memory_order_relaxed) >>
                                     32);
    uint32_t page_size = atomic_load_explicit(&head->page_size, memory_order_relaxed);
    bool with_list = atomic_load_explicit(&head->format, memory_order_relaxed) == 2;
    struct thr_pages free_pages = {0};
    int rc;

    if (seq == THR_FIRST_SEQ || db->foreign || !db->base.writable)
        return SQLITE_OK; /* nothing was committed: not a byte of the file changes */
    THR_POINT("fold");
    if (atomic_load_explicit(&db->sync_wanted, memory_order_relaxed) != 0 &&
        (rc = thr_log_sync(&db->log, seq)) != SQLITE_OK)
        return rc;
    if ((rc = write_all(db, page_count)) == SQLITE_OK && with_list)
        rc = thr_space_list(&db->shm, page_count, 0, &free_pages);
    if (rc == SQLITE_OK)
        rc = thr_stock_finish(&db->base, page_size, page_count, &free_pages, with_list,
                              head->change_base + (uint32_t)seq);
    THR_POINT("folded");
    if (rc == SQLITE_OK && atomic_load_explicit(&db->sync_wanted, memory_order_relaxed) != 0)
        rc = thr_os_sync(db->base.fd);
    thr_os_free(free_pages.at);
    return rc;
}

bool thr_barrier_raise(struct thr_conn *conn)
{
    struct thr_shm *shm = &conn->db->shm;
    uint64_t began_ns = thr_os_now_ns();
    uint32_t high;
    bool busy = true;

    atomic_store_explicit(&shm->head->barrier, conn->slot_index + 1, memory_order_seq_cst);
    for (int count = 0; busy;) {
        busy = false;
        high = atomic_load_explicit(&shm->head->slot_high, memory_order_acquire);
        for (uint32_t i = 0; i < high && !busy; i++)
            busy = i != conn->slot_index &&
                   atomic_load_explicit(&thr_shm_slot(shm, i)->snapshot, memory_order_seq_cst) != 0;
        if (busy && thr_os_now_ns() - began_ns > BARRIER_NS &&
            (conn->keep_waiting == NULL || !conn->keep_waiting(conn->keep_waiting_ctx, count++))) {
            thr_barrier_lower(conn);
            return false;
        }
        if (busy)
            thr_os_sleep_ns(100000);
    }
    return true;
}

void thr_barrier_lower(struct thr_conn *conn)
{
    struct thr_head *head = conn->db->shm.head;

    atomic_store_explicit(&head->barrier, 0, memory_order_seq_cst);
    thr_os_futex_wake(&head->barrier, INT32_MAX);
}

/* The map forgets all frames; nobody looks. */
static void map_clear(struct thr_shm *shm, uint32_t page_count)
{
    for (uint32_t pgno = 0; pgno <= page_count; pgno++) {
        _Atomic uint32_t *newest = thr_shm_newest(shm, pgno);

        if (newest == NULL)
            pgno |= THR_CHUNK_PAGES - 1;
        else
            atomic_store_explicit(newest, 0, memory_order_relaxed);
    }
}

int thr_checkpoint_resize(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    struct thr_stock_header header;
    struct thr_pages free_pages = {0};
    uint64_t seq = atomic_load_explicit(&head->commit_seq, memory_order_acquire);
    uint32_t page_count = (uint32_t)(atomic_load_explicit(&head->extent[seq % THR_EXTENTS], memory_order_relaxed) >>
                                     32);
    bool sync = atomic_load_explicit(&db->sync_wanted, memory_order_relaxed) != 0;
    int rc;

    thr_mutex_lock(&head->checkpoint_lock, UINT64_MAX);
    if (sync && (rc = thr_log_sync(&db->log, seq)) != SQLITE_OK)
        goto done;
    if ((rc = write_all(db, page_count)) != SQLITE_OK ||
        (rc = thr_base_truncate(&db->base, (int64_t)page_count * db->heap.page_size)) != SQLITE_OK ||
        (rc = thr_stock_header_read(&db->base, &header)) != SQLITE_OK)
        goto done;
    if (sync && (rc = thr_os_sync(db->base.fd)) != SQLITE_OK)
        goto done;
    map_clear(&db->shm, THR_PAGE_MAX); /* also what the rewrite cut off */
    if ((rc = thr_db_start_heap(db, header.page_size)) != SQLITE_OK)
        goto done;
    db->checkpoint_page = 0;
    unpin(db);
    atomic_store_explicit(&head->page_size, header.page_size, memory_order_relaxed);
    atomic_store_explicit(&db->usable_size, header.usable_size, memory_order_relaxed);
    atomic_store_explicit(&head->format, header.auto_vacuum ? 1 : 2, memory_order_relaxed);
    if (!header.auto_vacuum && (rc = thr_stock_list_read(&db->base, &header, &free_pages)) != SQLITE_OK)
        goto done;
    thr_shm_reserve_pages(&db->shm, header.page_count);
    thr_space_reset(&db->shm, &free_pages, header.page_count);
    thr_space_base_free(&db->shm, &free_pages, header.page_count);
    atomic_store_explicit(&head->extent[seq % THR_EXTENTS], (uint64_t)header.page_count << 32 | free_pages.count,
                          memory_order_release);
    if ((rc = thr_log_restart(&db->log, sync)) != SQLITE_OK)
        goto done;
    atomic_store_explicit(&head->horizon, seq, memory_order_release);
done:
    thr_mutex_unlock(&head->checkpoint_lock);
    thr_os_free(free_pages.at);
    return rc;
}
