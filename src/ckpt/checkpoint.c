/* SPDX-License-Identifier: MIT */
#include "checkpoint.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "../txn/db.h"
#include "../txn/page1.h"
#include "span.h"
#include "stock.h"

enum {
    STEP_ENTRIES = 512,
    STEP_PAGES = 24,
    TRIM_ENTRIES = 2048,
    WRITE_BACK_PAGES = 2048,
    SWEEP_LOOKS = 2048,
    RELIEF_PIECES = 1000
};
/* So many times checkpoint_bytes of log may an old snapshot hold back. Then what it sees in the file is copied to the
 * heap instead. */
enum { PASS_FACTOR = 8, BEHIND_FACTOR = 2 };
static const uint64_t BARRIER_NS = 200000000, RUN_PATIENCE_NS = 10000000000;

/* Choose what is written: the newest version that every snapshot in use sees; or, if old ones are passed, that everybody
 * sees who has pointers into the file. Announce it as a snapshot of our own, so that the versions it sees stay, and make
 * sure that somebody else still held them when we did. */
static uint64_t pin(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t seq, now;

    do {
        now = atomic_load_explicit(&head->visible_seq, memory_order_seq_cst);
        seq = thr_oldest_snapshot(&db->shm, db->checkpoint_passing, now);
        atomic_store_explicit(&head->checkpoint_snapshot, seq, memory_order_seq_cst); /* pairs with reclamation */
        atomic_store_explicit(&head->passing_seq, db->checkpoint_passing ? seq : 0,
                              memory_order_seq_cst); /* pairs with hold_base() */
        now = atomic_load_explicit(&head->visible_seq, memory_order_seq_cst);
    } while (thr_oldest_snapshot(&db->shm, db->checkpoint_passing, now) != seq);
    return seq;
}

/* Announce the newest snapshot as our own: what is the newest version of a page from now on is not used again until
 * unpin(), whoever supersedes it. An older one would not do: a version that is newer than it may go. */
static void pin_newest(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t seq;

    do {
        seq = atomic_load_explicit(&head->visible_seq, memory_order_seq_cst);
        atomic_store_explicit(&head->checkpoint_snapshot, seq, memory_order_seq_cst); /* pairs with reclamation */
    } while (seq != atomic_load_explicit(&head->visible_seq, memory_order_seq_cst));
}

static void unpin(struct thr_db *db)
{
    atomic_store_explicit(&db->shm.head->checkpoint_snapshot, 0, memory_order_seq_cst);
    atomic_store_explicit(&db->shm.head->passing_seq, 0, memory_order_seq_cst);
}

/* The file is about to get version `version` of the page. If a snapshot that is older sees what the file has now, put
 * that into the heap, for all of them. */
static int keep_for_older(struct thr_db *db, uint32_t pgno, uint64_t version, const struct thr_snapshots *older)
{
    struct thr_heap *heap = &db->heap;
    int64_t offset = (int64_t)(pgno - 1) * heap->page_size;
    bool was_free = thr_shm_bit(&db->shm, THR_BITS_BASE_FREE, pgno);
    uint32_t index;
    int rc;

    if (offset >= atomic_load_explicit(&db->base.bytes, memory_order_relaxed) && !was_free)
        return SQLITE_OK; /* it has nothing yet */
    for (uint32_t i = 0; i < older->count && older->seq[i] < version; i++) {
        if (thr_version_find(heap, pgno, older->seq[i], NULL) != 0)
            continue;
        if ((rc = thr_frame_take(heap, &db->checkpoint_frames, &index)) != SQLITE_OK)
            return rc;
        if ((rc = thr_base_read(&db->base, thr_heap_page(heap, index), heap->page_size, offset)) != SQLITE_OK) {
            thr_frame_give(heap, &db->checkpoint_frames, index);
            return rc;
        }
        if (pgno == 1)
            thr_page1_unmark(thr_heap_page(heap, index));
        thr_version_insert(heap, &db->checkpoint_frames, pgno, was_free, index, older->seq[i]);
        THR_POINT("kept");
        break;
    }
    return SQLITE_OK;
}

static bool is_zero(const uint8_t *page, uint32_t page_size)
{
    return page[0] == 0 && memcmp(page, page + 1, page_size - 1) == 0;
}

/* Write page `pgno` as snapshot `seq` sees it, if that is newer than `horizon`. */
static int write_page(struct thr_db *db, uint32_t pgno, uint64_t seq, uint64_t horizon,
                      const struct thr_snapshots *older, bool *written_out)
{
    bool is_free = false;
    uint32_t page_size = db->heap.page_size;
    uint32_t frame = thr_version_find(&db->heap, pgno, seq, &is_free);
    uint64_t version;
    int rc;

    *written_out = false;
    if (frame == 0)
        return SQLITE_OK;
    version = atomic_load_explicit(&thr_heap_frame(&db->heap, frame)->seq, memory_order_relaxed);
    if (version <= horizon)
        return SQLITE_OK;
    if (is_free && !is_zero(thr_heap_page(&db->heap, frame), page_size))
        return SQLITE_OK; /* but a page that was wiped (secure_delete) is wiped in the file, too */
    *written_out = true;
    if (older->count > 0 && (rc = keep_for_older(db, pgno, version, older)) != SQLITE_OK)
        return rc;
    if (pgno == 1)
        return thr_stock_write_page1(&db->base, thr_heap_page(&db->heap, frame), page_size);
    return thr_base_write(&db->base, thr_heap_page(&db->heap, frame), page_size, (int64_t)(pgno - 1) * page_size);
}

/* Before pages up to `last` are written as of commit `seq`: the file is to say so. */
static int raise_span(struct thr_db *db, uint64_t seq, uint32_t last)
{
    int64_t page_size = db->heap.page_size, end = last * page_size;
    int64_t bytes = atomic_load_explicit(&db->base.bytes, memory_order_relaxed);

    if (bytes > end)
        end = (bytes + page_size - 1) / page_size * page_size;
    return thr_span_raise(&db->base, seq, end);
}

static uint32_t pages_as_of(const struct thr_head *head, uint64_t seq)
{
    return (uint32_t)(atomic_load_explicit(&head->extent[seq % THR_EXTENTS], memory_order_relaxed) >> 32);
}

/* How far the cycle looks. It must come past all pages of its snapshot, and does past those that a commit since the last
 * cycle has cut off, for trim(). The page counts of the latest commits are known one by one, and of all of them since the
 * horizon the highest is. */
static void find_bounds(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t newest, seq = db->checkpoint_target;
    uint32_t end;

    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    newest = atomic_load_explicit(&head->commit_seq, memory_order_relaxed);
    end = db->pages_high;
    for (uint32_t i = 0; i < THR_EXTENTS; i++)
        end = pages_as_of(head, i) > end ? pages_as_of(head, i) : end;
    db->checkpoint_end = end;
    db->checkpoint_pages = 0;
    db->pages_next = end;
    if (newest - seq < THR_EXTENTS) {
        db->checkpoint_pages = db->pages_next = pages_as_of(head, seq);
        for (; seq <= newest; seq++)
            db->pages_next = pages_as_of(head, seq) > db->pages_next ? pages_as_of(head, seq) : db->pages_next;
    }
    thr_mutex_unlock(&head->commit_lock);
    THR_ASSERT(db->checkpoint_pages <= db->checkpoint_end);
}

/* Cut off what the file has past the end of the database, be it pages or the trailer that a cycle has put where they could
 * have been; if nobody can look at it any more: no snapshot from before the horizon is in use, and no connection points
 * into the file. What came past that end since the horizon is in the heap.
 * Between cycles only: one that is under way relies on what it has written. checkpoint_lock. */
static int shrink(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    int64_t end = atomic_load_explicit(&db->base.bytes, memory_order_relaxed);
    uint32_t pages = db->file_pages;
    uint64_t seq;
    int rc = SQLITE_OK;

    THR_ASSERT(db->checkpoint_page == 0);
    if (pages == 0)
        return SQLITE_OK;
    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    seq = atomic_load_explicit(&head->commit_seq, memory_order_relaxed);
    if (pages_as_of(head, seq) > pages) /* it would only grow again */
        pages = pages_as_of(head, seq);
    thr_mutex_unlock(&head->commit_lock);
    end = end > db->base.span.trailer_at ? end : db->base.span.trailer_at;
    if (end <= (int64_t)pages * db->heap.page_size ||
        thr_oldest_snapshot(&db->shm, false, UINT64_MAX) < atomic_load_explicit(&head->horizon, memory_order_relaxed))
        return SQLITE_OK;
    atomic_store_explicit(&head->passing_seq, UINT64_MAX, memory_order_seq_cst); /* pairs with hold_base() */
    if (thr_oldest_snapshot(&db->shm, true, UINT64_MAX) == UINT64_MAX) {
        THR_POINT("shrink");
        rc = thr_span_cut(&db->base, (int64_t)pages * db->heap.page_size);
    }
    atomic_store_explicit(&head->passing_seq, 0, memory_order_seq_cst);
    if (rc != SQLITE_OK)
        thr_log(rc, "throng: %s cannot be cut off after its last page; the next checkpoint tries again", db->path);
    return rc;
}

static void cycle_begin(struct thr_db *db, uint64_t live, bool pass)
{
    THR_POINT("cycle-begins");
    thr_frames_sweep(&db->heap, SWEEP_LOOKS);
    db->checkpoint_passing = pass || live / PASS_FACTOR >= db->checkpoint_bytes;
    db->checkpoint_target = pin(db);
    find_bounds(db);
    db->checkpoint_page = db->checkpoint_flushed = 1;
    /* Log before base (I4): what is written must be durable in the log. Then the whole cycle writes one snapshot. */
    db->checkpoint_durable = thr_db_is_safe(db);
    if (db->checkpoint_durable && thr_log_sync(&db->log, db->checkpoint_target) != SQLITE_OK)
        db->checkpoint_page = 0;
    THR_POINT("cycle-begun");
}

/* The heap has forgotten what it can. */
static void heap_settled(struct thr_db *db)
{
    atomic_store_explicit(&db->frames_after, atomic_load_explicit(&db->shm.head->frames_used, memory_order_relaxed),
                          memory_order_relaxed);
    thr_heap_shrink(&db->heap);
}

static int cycle_end(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t first;
    int rc;

    db->checkpoint_page = 0;
    if ((rc = thr_span_settle(&db->base, db->checkpoint_target,
                              db->checkpoint_pages != 0 ? db->checkpoint_pages : db->checkpoint_end)) != SQLITE_OK)
        return rc;
    if (db->checkpoint_durable && (rc = thr_os_sync(db->base.fd)) != SQLITE_OK) {
        thr_log_fail(&db->log, db->path); /* what the kernel has thrown away no later sync will bring back */
        return rc;
    }
    THR_POINT("base-synced");
    /* The head of the first segment that is kept has the free list: it must be durable, too, also if there is no record
     * in it (it was taken back). */
    first = thr_log_first_needed(&db->log, db->checkpoint_target);
    if (db->checkpoint_durable && (rc = thr_log_sync_all(&db->log)) != SQLITE_OK)
        return rc;
    if ((rc = thr_log_write_horizon(&db->log, first, false, db->checkpoint_durable)) != SQLITE_OK)
        return rc; /* the log is kept, and the next cycle tries again */
    THR_POINT("horizon");
    atomic_store_explicit(&head->horizon, db->checkpoint_target, memory_order_release);
    db->file_pages = db->checkpoint_pages;
    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    db->pages_high = db->pages_next;
    thr_mutex_unlock(&head->commit_lock);
    thr_log_retire(&db->log, first);
    unpin(db);
    (void)shrink(db); /* if it fails, the file is longer than need be, and nothing else */
    atomic_store_explicit(&db->live_after, atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed),
                          memory_order_relaxed);
    thr_frames_settle(&db->heap, &db->checkpoint_frames);
    unpin(db);
    thr_frames_sweep(&db->heap, UINT32_MAX);
    if (thr_heap_is_large(&db->heap)) {
        db->trim_seq = db->checkpoint_target;
        atomic_store_explicit(&db->trim_page, 1, memory_order_relaxed);
    } else {
        heap_settled(db);
    }
    return SQLITE_OK;
}

/* Let the heap forget newest versions that the file has, as long as it is large (or all of them: trim_all). */
static void trim(struct thr_db *db, uint32_t entries)
{
    struct thr_shm *shm = &db->shm;
    uint32_t pgno = atomic_load_explicit(&db->trim_page, memory_order_relaxed), index, marked;
    uint64_t floor, seq;

    pin_newest(db);
    floor = thr_oldest_snapshot(shm, false, UINT64_MAX);
    for (; entries > 0 && pgno <= db->checkpoint_end; entries--, pgno++) {
        const _Atomic uint32_t *newest = thr_shm_newest(shm, pgno);
        const struct thr_frame *frame;

        if (newest == NULL || (index = atomic_load_explicit(newest, memory_order_seq_cst)) == 0)
            continue;
        frame = thr_heap_frame(&db->heap, index);
        seq = atomic_load_explicit(&frame->seq, memory_order_acquire);
        marked = atomic_load_explicit(&frame->pgno, memory_order_relaxed);
        if (atomic_load_explicit(&frame->superseded, memory_order_acquire) != 0 || seq > db->trim_seq ||
            index != atomic_load_explicit(newest, memory_order_seq_cst))
            continue;
        if ((marked & THR_PGNO_FREE) != 0 && seq > floor)
            continue; /* the file has what older snapshots see, and nothing else tells them that it is not free */
        thr_shm_bit_set(shm, THR_BITS_BASE_FREE, pgno, (marked & THR_PGNO_FREE) != 0);
        thr_version_unlink_newest(&db->heap, &db->checkpoint_frames, pgno, index, floor);
    }
    unpin(db);
    thr_frames_settle(&db->heap, &db->checkpoint_frames);
    thr_frames_sweep(&db->heap, TRIM_ENTRIES * 2);
    if (pgno > db->checkpoint_end || !(db->trim_all || thr_heap_is_large(&db->heap))) {
        pgno = 0;
        db->trim_all = false;
        heap_settled(db);
    }
    atomic_store_explicit(&db->trim_page, pgno, memory_order_relaxed);
}

/* Whether the whole cycle writes what one snapshot sees; else each piece what everybody sees by then, which is never less.
 * When old snapshots are passed it could be: one of them might take pointers into the file between two pieces. */
static bool one_snapshot(const struct thr_db *db)
{
    return db->checkpoint_durable || db->checkpoint_passing;
}

/* Write up to `pages` pages of the cycle, and end it after the last one. */
static int write_some(struct thr_db *db, uint32_t entries, uint32_t pages, bool may_block)
{
    struct thr_head *head = db->shm.head;
    uint64_t horizon = atomic_load_explicit(&head->horizon, memory_order_relaxed);
    uint64_t seq = one_snapshot(db) ? db->checkpoint_target : pin(db);
    struct thr_snapshots older = {.count = 0};
    bool written;
    int rc = SQLITE_OK;

    THR_POINT("checkpoint");
    if (db->checkpoint_passing && !thr_snapshots_before(&db->shm, seq, &older)) {
        db->checkpoint_page = 0; /* too many to keep versions for: wait for them after all */
        return SQLITE_BUSY;
    }
    rc = raise_span(db, seq, db->checkpoint_end);
    while (entries-- > 0 && pages > 0 && db->checkpoint_page <= db->checkpoint_end && rc == SQLITE_OK) {
        if ((rc = write_page(db, db->checkpoint_page, seq, horizon, &older, &written)) == SQLITE_OK) {
            db->checkpoint_page++;
            pages -= written;
            if (written)
                atomic_fetch_add_explicit(&head->counter[THR_COUNT_CHECKPOINT_PAGES], 1, memory_order_relaxed);
        }
    }
    thr_frames_settle(&db->heap, &db->checkpoint_frames);
    if (may_block && db->checkpoint_durable && db->checkpoint_page - db->checkpoint_flushed >= WRITE_BACK_PAGES) {
        db->checkpoint_flushed = db->checkpoint_page;
        thr_os_write_back(db->base.fd, 0, 0); /* the sync at the end is to find little left */
    }
    if (rc == SQLITE_FULL) /* the next piece may find room */
        thr_log_drop_spares(&db->log);
    if (rc != SQLITE_OK)
        thr_log(rc, "throng: cannot write page %u of %s; its log is kept", db->checkpoint_page, db->path);
    else if (may_block && db->checkpoint_page > db->checkpoint_end)
        rc = cycle_end(db);
    return rc;
}

/* One piece. checkpoint_lock. `may_block`: it may begin or end a cycle, which takes syncs. *done_out: there is nothing
 * left to do but what snapshots in use hold back. */
static int piece(struct thr_db *db, uint32_t times, bool pass, bool may_block, bool *done_out)
{
    struct thr_head *head = db->shm.head;
    uint64_t live = atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed);
    int rc = SQLITE_OK;

    *done_out = false;
    if (atomic_load_explicit(&db->trim_page, memory_order_relaxed) != 0 && db->checkpoint_page == 0) {
        trim(db, TRIM_ENTRIES * times);
        return SQLITE_OK;
    }
    /* A cycle that was begun at OFF has not synced what it is about to rely on: thr_checkpoint_mark() has ended it. */
    THR_ASSERT(db->checkpoint_page == 0 || db->checkpoint_durable == thr_db_is_safe(db));
    if (db->checkpoint_page == 0 && may_block) {
        cycle_begin(db, live, pass);
        /* The oldest snapshot holds everything back. Or the file was written past it, and then the horizon could not be:
         * as of an older commit its pages must not be written any more. */
        if (db->checkpoint_target <= atomic_load_explicit(&head->horizon, memory_order_relaxed) ||
            db->checkpoint_target < db->base.span.low) {
            db->checkpoint_page = 0;
            *done_out = true;
        }
    }
    if (db->checkpoint_page != 0)
        rc = write_some(db, STEP_ENTRIES * times, STEP_PAGES * times, may_block);
    if (db->checkpoint_page == 0 || !one_snapshot(db))
        unpin(db);
    return rc;
}

/* Heap and log have grown since the last cycle so far that another one would help. */
static bool heap_is_due(const struct thr_db *db)
{
    uint32_t used = atomic_load_explicit(&db->shm.head->frames_used, memory_order_relaxed);
    uint32_t soft = atomic_load_explicit(&db->heap.soft_frames, memory_order_relaxed);

    return thr_heap_is_large(&db->heap) &&
           (atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed) >=
                atomic_load_explicit(&db->live_after, memory_order_relaxed) + db->pressure_bytes ||
            used >= atomic_load_explicit(&db->frames_after, memory_order_relaxed) + soft / 8);
}

static bool is_due(const struct thr_db *db)
{
    return atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed) >= db->checkpoint_bytes ||
           atomic_load_explicit(&db->trim_page, memory_order_relaxed) != 0 || heap_is_due(db);
}

bool thr_checkpoint_try(struct thr_db *db, uint32_t times, bool may_block)
{
    struct thr_head *head = db->shm.head;
    bool done = true;

    if (!is_due(db) || thr_log_failed(&db->log) || !thr_mutex_try(&head->checkpoint_lock))
        return false;
    if (piece(db, times, false, may_block, &done) != SQLITE_OK)
        done = true;
    thr_mutex_unlock(&head->checkpoint_lock);
    return !done;
}

bool thr_checkpoint_is_behind(const struct thr_db *db)
{
    return atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed) / BEHIND_FACTOR >= db->checkpoint_bytes;
}

void thr_checkpoint_tend_log(struct thr_db *db)
{
    thr_log_prepare(&db->log);
    if (thr_db_is_safe(db))
        thr_log_write_back(&db->log);
}

/* A transaction found no room: the next one is to find as much as there can be. */
static void forget_all(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;

    thr_checkpoint_run(db, false);
    if (!thr_mutex_lock(&head->checkpoint_lock, RUN_PATIENCE_NS))
        return;
    if (db->checkpoint_page == 0) {
        db->trim_all = true;
        db->trim_seq = atomic_load_explicit(&head->horizon, memory_order_relaxed);
        atomic_store_explicit(&db->trim_page, 1, memory_order_relaxed);
    }
    thr_mutex_unlock(&head->checkpoint_lock);
    thr_checkpoint_run(db, false);
}

void thr_checkpoint_step(struct thr_db *db)
{
    bool is_behind = thr_checkpoint_is_behind(db);

    if (db->has_checkpointer)
        thr_checkpointer_wake(db);
    else
        thr_checkpoint_tend_log(db);
    thr_checkpoint_try(db, is_behind ? 4 : 1, !db->has_checkpointer);
    if (atomic_load_explicit(&db->heap_short, memory_order_relaxed) != 0 &&
        atomic_exchange_explicit(&db->heap_short, 0, memory_order_relaxed) != 0)
        forget_all(db);
    for (int n = 0; n < RELIEF_PIECES && thr_heap_is_tight(&db->heap) && thr_checkpoint_try(db, 16, true); n++)
        ;
}

void thr_checkpoint_make_room(struct thr_db *db)
{
    thr_checkpoint_run(db, false);
}

int thr_checkpoint_run(struct thr_db *db, bool pass)
{
    struct thr_head *head = db->shm.head;
    uint64_t wanted = atomic_load_explicit(&head->visible_seq, memory_order_acquire);
    bool done = false;
    int rc = SQLITE_OK;

    if (db->directory == NULL || db->foreign)
        return SQLITE_OK;
    /* The lock is let go after each piece: the commits of others go on. */
    while (rc == SQLITE_OK && !done &&
           (atomic_load_explicit(&head->horizon, memory_order_acquire) < wanted ||
            atomic_load_explicit(&db->trim_page, memory_order_relaxed) != 0)) {
        if (thr_log_failed(&db->log))
            return SQLITE_IOERR_FSYNC;
        if (!thr_mutex_lock(&head->checkpoint_lock, RUN_PATIENCE_NS))
            return SQLITE_BUSY;
        rc = piece(db, 16, pass, true, &done);
        thr_mutex_unlock(&head->checkpoint_lock);
    }
    if (rc == SQLITE_OK && atomic_load_explicit(&head->horizon, memory_order_acquire) < wanted)
        return SQLITE_BUSY;
    /* The last cycle may have had readers in its way. */
    if (rc == SQLITE_OK && thr_mutex_lock(&head->checkpoint_lock, RUN_PATIENCE_NS)) {
        if (db->checkpoint_page == 0)
            rc = shrink(db);
        thr_mutex_unlock(&head->checkpoint_lock);
    }
    return rc;
}

/* Every page's newest version. Nobody else uses the database. */
static int write_all(struct thr_db *db, uint32_t page_count)
{
    uint64_t seq = atomic_load_explicit(&db->shm.head->commit_seq, memory_order_acquire);
    uint64_t horizon = atomic_load_explicit(&db->shm.head->horizon, memory_order_relaxed);
    const struct thr_snapshots nobody = {.count = 0};
    bool written;
    int rc = SQLITE_OK;

    for (uint32_t pgno = 1; pgno <= page_count && rc == SQLITE_OK; pgno++)
        rc = write_page(db, pgno, seq, horizon, &nobody, &written);
    return rc;
}

/* The file is as the first segment of the log expects it, and says from now on that it needs that. */
static int set_mark(struct thr_db *db)
{
    return thr_span_mark(&db->base, db->log.identity, THR_FIRST_SEQ, db->heap.page_size);
}

/* So far every connection was content with OFF: file, log and horizon were written in the order that the kernel likes.
 * Make it all safe, and let no cycle go on that has not synced the log before the file. checkpoint_lock. */
static int make_safe(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    uint64_t horizon = atomic_load_explicit(&head->horizon, memory_order_relaxed), first;
    int rc;

    if (db->checkpoint_page != 0) {
        db->checkpoint_page = 0;
        unpin(db);
    }
    THR_POINT("level-rises");
    first = thr_log_first_needed(&db->log, horizon); /* not one that a commit at OFF begins after the sync */
    rc = thr_log_sync_all(&db->log);
    if (rc == SQLITE_OK && atomic_load_explicit(&db->safety, memory_order_relaxed) == THR_UNTOUCHED) {
        /* A power cut must not leave the mark without what recovery looks for then. */
        if ((rc = thr_log_write_horizon(&db->log, first, false, true)) == SQLITE_OK)
            rc = set_mark(db);
    }
    /* Also if nothing was written yet: those who had the file open before may have left it unsynced. */
    if (rc == SQLITE_OK && (rc = thr_os_sync(db->base.fd)) != SQLITE_OK)
        thr_log_fail(&db->log, db->path);
    if (rc == SQLITE_OK && atomic_load_explicit(&db->safety, memory_order_relaxed) != THR_UNTOUCHED)
        rc = thr_log_write_horizon(&db->log, first, false, true);
    THR_POINT("level-risen");
    return rc;
}

int thr_checkpoint_mark(struct thr_db *db, bool sync)
{
    struct thr_head *head = db->shm.head;
    uint32_t wanted = sync ? THR_SAFE : THR_MARKED, is;
    int rc = SQLITE_OK;

    if (atomic_load_explicit(&db->safety, memory_order_acquire) >= wanted)
        return SQLITE_OK;
    thr_mutex_lock(&head->checkpoint_lock, UINT64_MAX);
    is = atomic_load_explicit(&db->safety, memory_order_relaxed);
    if (thr_log_failed(&db->log))
        rc = SQLITE_READONLY;
    else if (sync && is < THR_SAFE)
        rc = make_safe(db);
    else if (is == THR_UNTOUCHED)
        rc = set_mark(db);
    if (rc == SQLITE_OK && is < wanted)
        atomic_store_explicit(&db->safety, wanted, memory_order_release); /* pairs with thr_db_is_safe() */
    thr_mutex_unlock(&head->checkpoint_lock);
    return rc;
}

int thr_checkpoint_fold(struct thr_db *db, bool in_place)
{
    struct thr_head *head = db->shm.head;
    uint64_t seq = atomic_load_explicit(&head->commit_seq, memory_order_acquire);
    uint32_t page_count = (uint32_t)(atomic_load_explicit(&head->extent[seq % THR_EXTENTS], memory_order_relaxed) >>
                                     32);
    uint32_t page_size = atomic_load_explicit(&head->page_size, memory_order_relaxed);
    bool with_list = atomic_load_explicit(&head->format, memory_order_relaxed) == 2;
    bool sync = thr_db_is_safe(db);
    struct thr_pages free_pages = {0};
    int64_t bytes = atomic_load_explicit(&db->base.bytes, memory_order_relaxed);
    int rc = SQLITE_OK;

    if (db->foreign || !db->base.writable || db->base.span.identity == 0)
        return SQLITE_OK;
    if (seq == THR_FIRST_SEQ) /* nothing was committed: not a byte of the file changes, but for the mark */
        goto unmark;
    THR_POINT("fold");
    if ((sync && (rc = thr_log_sync(&db->log, seq)) != SQLITE_OK) ||
        (rc = raise_span(db, seq, page_count)) != SQLITE_OK)
        return rc;
    if ((rc = write_all(db, page_count)) == SQLITE_OK && with_list)
        rc = thr_space_list(&db->shm, page_count, 0, &free_pages);
    if (rc == SQLITE_OK)
        rc = thr_stock_finish(&db->base, page_size, page_count, &free_pages, with_list,
                              head->change_base + (uint32_t)seq, &bytes);
    thr_os_free(free_pages.at);
    THR_POINT("folded");
    if (rc == SQLITE_OK && sync)
        rc = thr_os_sync(db->base.fd);
    if (rc == SQLITE_OK && in_place)
        rc = thr_log_write_horizon(&db->log, thr_log_first_needed(&db->log, seq), true, sync);
    THR_POINT("closed");
unmark:
    if (rc == SQLITE_OK && (rc = thr_span_end(&db->base, bytes)) == SQLITE_OK && sync)
        rc = thr_os_sync(db->base.fd);
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

/* The size that page 1 gives after a rewrite: in pages of the new size. */
static int write_size(struct thr_db *db, uint64_t seq)
{
    uint32_t frame = thr_version_find(&db->heap, 1, seq, NULL);

    return frame == 0 ? SQLITE_CORRUPT
                      : thr_base_write(&db->base, thr_heap_page(&db->heap, frame) + THR_P1_SIZE, 4, THR_P1_SIZE);
}

int thr_checkpoint_resize(struct thr_db *db)
{
    struct thr_head *head = db->shm.head;
    struct thr_stock_header header;
    struct thr_pages free_pages = {0};
    uint64_t seq = atomic_load_explicit(&head->commit_seq, memory_order_acquire);
    uint32_t page_count = (uint32_t)(atomic_load_explicit(&head->extent[seq % THR_EXTENTS], memory_order_relaxed) >>
                                     32);
    bool sync = thr_db_is_safe(db);
    int rc;

    thr_mutex_lock(&head->checkpoint_lock, UINT64_MAX);
    if (sync && (rc = thr_log_sync(&db->log, seq)) != SQLITE_OK)
        goto done;
    if ((rc = raise_span(db, seq, page_count)) != SQLITE_OK || (rc = write_all(db, page_count)) != SQLITE_OK ||
        (rc = write_size(db, seq)) != SQLITE_OK ||
        (rc = thr_span_cut(&db->base, (int64_t)page_count * db->heap.page_size)) != SQLITE_OK ||
        (rc = thr_stock_header_read(&db->base, &header)) != SQLITE_OK ||
        (rc = thr_span_settle(&db->base, seq, header.page_count)) != SQLITE_OK)
        goto done;
    if (sync && (rc = thr_os_sync(db->base.fd)) != SQLITE_OK)
        goto done;
    map_clear(&db->shm, THR_PAGE_MAX); /* also what the rewrite cut off */
    if ((rc = thr_db_start_heap(db, header.page_size)) != SQLITE_OK)
        goto done;
    db->checkpoint_page = 0;
    db->file_pages = 0;
    db->pages_high = db->pages_next = header.page_count;
    atomic_store_explicit(&db->trim_page, 0, memory_order_relaxed);
    atomic_store_explicit(&db->frames_after, 0, memory_order_relaxed);
    db->trim_all = false;
    unpin(db);
    atomic_store_explicit(&head->page_size, header.page_size, memory_order_relaxed);
    atomic_store_explicit(&db->usable_size, header.usable_size, memory_order_relaxed);
    atomic_store_explicit(&head->format, header.auto_vacuum ? 1 : 2, memory_order_relaxed);
    if (!header.auto_vacuum && (rc = thr_stock_list_read(&db->base, &header, &free_pages)) != SQLITE_OK)
        goto done;
    if ((rc = thr_shm_reserve_pages(&db->shm, header.page_count)) != SQLITE_OK ||
        (rc = thr_space_reset(&db->shm, &free_pages, header.page_count)) != SQLITE_OK)
        goto done;
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
