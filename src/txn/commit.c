/* Commit: prepare outside the lock, then validate, log and publish inside (I2).
 *
 * The lock is held for: comparing the heads of the pages if somebody has committed since they were compared outside,
 * copying the finished record to its place in the log, linking the frames, and storing the sequence.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "../shm/conflicts.h"
#include "../space/moves.h"
#include "commit.h"
#include "db.h"
#include "page1.h"
#include "plan.h"
#include "txn.h"

static struct thr_head *head_of(const struct thr_conn *conn)
{
    return conn->db->shm.head;
}

static int lost(struct thr_conn *conn, enum thr_conflict why, uint32_t pgno)
{
    static const enum thr_counter COUNTERS[] = {
        [THR_CONFLICT_READ] = THR_COUNT_CONFLICT_READ,
        [THR_CONFLICT_WRITE] = THR_COUNT_CONFLICT_WRITE,
        [THR_CONFLICT_SCHEMA] = THR_COUNT_CONFLICT_SCHEMA,
        [THR_CONFLICT_SPACE] = THR_COUNT_CONFLICT_SPACE,
    };

    conn->conflict = why;
    conn->ran_out = conn->ran_out || why == THR_CONFLICT_SPACE;
    conn->lost_page = pgno;
    conn->lost_seq = pgno == 0 ? 0 : thr_version_newest_seq(&conn->db->heap, pgno);
    thr_count(conn->slot, COUNTERS[why], 1);
    if (pgno != 0)
        thr_conflicts_add(head_of(conn), pgno);
    return SQLITE_BUSY_SNAPSHOT;
}

/* A page that we read and that has a newer version than our snapshot; 0 if there is none. */
static uint32_t stale_read(const struct thr_conn *conn)
{
    for (size_t i = 0; i < conn->reads.count; i++)
        if (thr_version_newest_seq(&conn->db->heap, conn->reads.pages[i]) > conn->snapshot)
            return conn->reads.pages[i];
    return 0;
}

/* Has any page that we read or wrote a newer version than our snapshot? */
static int validate(struct thr_conn *conn)
{
    const struct thr_heap *heap = &conn->db->heap;
    uint32_t stale;

    for (uint32_t i = 0; i < conn->writes.count; i++) {
        const struct thr_write *write = &conn->writes.at[i];

        if (write->publish && thr_version_newest_seq(heap, write->pgno) > conn->snapshot)
            return lost(conn, write->pgno == 1 ? THR_CONFLICT_SCHEMA : THR_CONFLICT_WRITE, write->pgno);
    }
    if ((stale = stale_read(conn)) != 0)
        return lost(conn, stale == 1 ? THR_CONFLICT_SCHEMA : THR_CONFLICT_READ, stale);
    return SQLITE_OK;
}

int thr_commit_check(struct thr_conn *conn)
{
    if (atomic_load_explicit(&head_of(conn)->commit_seq, memory_order_acquire) == conn->snapshot || conn->is_protected)
        return SQLITE_OK;
    return validate(conn);
}

bool thr_commit_is_doomed(const struct thr_conn *conn)
{
    return stale_read(conn) != 0;
}

int thr_commit_check_page(struct thr_conn *conn, uint32_t pgno)
{
    if (atomic_load_explicit(&head_of(conn)->commit_seq, memory_order_relaxed) == conn->snapshot ||
        thr_version_newest_seq(&conn->db->heap, pgno) <= conn->snapshot)
        return SQLITE_OK;
    return lost(conn, pgno == 1 ? THR_CONFLICT_SCHEMA : THR_CONFLICT_READ, pgno);
}

/* Link the frames to their pages: new snapshots will find them, older ones go past them by their sequence. */
static void publish(struct thr_conn *conn, uint64_t seq)
{
    uint32_t older;

    conn->superseded.count = 0;
    for (uint32_t i = 0; i < conn->writes.count; i++) {
        struct thr_write *write = &conn->writes.at[i];

        if (!write->publish)
            continue;
        if (write->wiped)
            memset(thr_heap_page(&conn->db->heap, write->frame), 0, conn->db->heap.page_size);
        if ((older = thr_version_publish(&conn->db->heap, write->pgno, write->freed, write->frame, seq)) != 0)
            conn->superseded.at[conn->superseded.count++] = older;
        write->frame = 0; /* it is the database's now */
    }
}

/* The pages whose freeness changed. */
static void publish_space(struct thr_conn *conn, const struct thr_plan *plan)
{
    static const struct thr_pages NONE = {0};
    struct thr_shm *shm = &conn->db->shm;
    const struct thr_space_change change = {
        .append_from = conn->page_count + 1,
        .append_to = plan->page_count,
        .taken = &conn->taken,
        .freed = &conn->freed,
        .cut_off_from = plan->page_count < conn->page_count ? plan->page_count + 1 : 0,
    };
    int rc;

    if (!plan->rewrite) {
        thr_space_publish(shm, &change, conn->db->heap.page_size);
        return;
    }
    atomic_store_explicit(&conn->db->shm.head->rewrite_seq, conn->prepared_seq, memory_order_release);
    rc = thr_space_reset(shm, &NONE, plan->page_count);
    THR_ASSERT(rc == SQLITE_OK);
    for (uint32_t i = 0; i < conn->freed.count; i++) /* the plan has checked the list */
        thr_move_use_to_held(shm, conn->freed.at[i]);
}

/* The commit is visible. Whoever took a page that it freed before that would use it in a snapshot where it is none. */
static void freed_to_pool(struct thr_conn *conn, const struct thr_plan *plan)
{
    if (conn->freed.count > 0 && (plan->rewrite || !conn->stripe.own))
        thr_space_unclaim_pool(&conn->db->shm, &conn->freed, conn->db->heap.page_size);
}

/* Pages that the transaction took from the list and that nobody holds for it. */
static struct thr_pages not_held(const struct thr_conn *conn, const struct thr_plan *plan)
{
    struct thr_pages rest = {.count = conn->taken.count - plan->taken_held};

    if (rest.count > 0) /* else there may be no array at all */
        rest.at = conn->taken.at + plan->taken_held;
    return rest;
}

/* Take what the plan needs of the common space. commit_lock. */
static int claim_space(struct thr_conn *conn, const struct thr_plan *plan)
{
    struct thr_shm *shm = &conn->db->shm;
    uint32_t page_size = conn->db->heap.page_size, end = thr_stripe_end(&conn->stripe, conn->page_count);
    struct thr_pages pages = not_held(conn, plan);
    int rc;

    if (plan->rewrite)
        return thr_shm_reserve_pages(shm, plan->page_count);
    if (plan->page_count > end) {
        rc = thr_space_claim_end(shm, end + 1, plan->page_count, page_size, &conn->claimed_end);
        if (rc != SQLITE_OK)
            return rc;
        if (conn->claimed_end == THR_END_TAKEN)
            return lost(conn, THR_CONFLICT_SPACE, 0);
    }
    if (pages.count > 0 && !thr_space_claim_pool(shm, &pages, page_size)) {
        if (plan->page_count > end)
            thr_space_unclaim_end(shm, end + 1, plan->page_count, page_size, conn->claimed_end);
        return lost(conn, THR_CONFLICT_SPACE, 0);
    }
    return SQLITE_OK;
}

static void unclaim_space(struct thr_conn *conn, const struct thr_plan *plan)
{
    struct thr_shm *shm = &conn->db->shm;
    uint32_t end = thr_stripe_end(&conn->stripe, conn->page_count);
    struct thr_pages pages = not_held(conn, plan);

    if (plan->rewrite)
        return;
    if (plan->page_count > end)
        thr_space_unclaim_end(shm, end + 1, plan->page_count, conn->db->heap.page_size, conn->claimed_end);
    if (pages.count > 0)
        thr_space_unclaim_pool(shm, &pages, conn->db->heap.page_size);
}

/* How many pages of (from, to] can hold anything. */
static uint32_t pages_between(uint32_t from, uint32_t to, uint32_t lock_page)
{
    return to <= from ? 0 : to - from - (lock_page > from && lock_page <= to);
}

/* Page count and number of free pages after this commit. commit_lock. */
static uint64_t new_extent(const struct thr_conn *conn, const struct thr_plan *plan, uint64_t extent)
{
    uint32_t page_count = (uint32_t)(extent >> 32), free_count = (uint32_t)extent;
    uint32_t seen = conn->page_count < plan->page_count ? conn->page_count : plan->page_count;
    uint32_t lock_page = thr_lock_page(conn->db->heap.page_size);

    if (plan->rewrite)
        return (uint64_t)plan->page_count << 32 | conn->freed.count;
    /* Pages given out that the database now reaches past are free until their owners commit. Appended ones that it
     * reached past already were. */
    free_count += pages_between(page_count, seen, lock_page);
    free_count -= pages_between(seen, page_count < plan->page_count ? page_count : plan->page_count, lock_page);
    if (plan->page_count > page_count)
        page_count = plan->page_count;
    else if (conn->is_alone && plan->page_count < page_count)
        page_count = plan->page_count; /* auto_vacuum gave pages back */
    free_count = free_count + conn->freed.count - conn->taken.count;
    return (uint64_t)page_count << 32 | free_count;
}

/* With commit_lock held and everything validated: to the log. After an error nothing has happened. */
static int log_record(struct thr_conn *conn, const struct thr_plan *plan, uint64_t seq)
{
    struct thr_db *db = conn->db;
    struct thr_head *head = head_of(conn);
    struct thr_record_head *record = thr_record_head(&conn->record);
    uint64_t extent = atomic_load_explicit(&head->extent[(seq - 1) % THR_EXTENTS], memory_order_relaxed);
    int rc;

    if ((rc = claim_space(conn, plan)) != SQLITE_OK)
        return rc;
    conn->new_extent = new_extent(conn, plan, extent);
    record->page_count = plan->record_page_count != 0 ? plan->record_page_count : (uint32_t)(conn->new_extent >> 32);
    if ((rc = thr_log_append(&db->log, &conn->record, seq)) != SQLITE_OK)
        unclaim_space(conn, plan);
    THR_POINT("logged");
    return rc;
}

/* The record is in the log: let everybody see the commit. commit_lock. */
static void publish_all(struct thr_conn *conn, const struct thr_plan *plan, uint64_t seq)
{
    struct thr_db *db = conn->db;
    struct thr_head *head = head_of(conn);

    /* What it is acknowledged on top of survives a power cut, too. */
    THR_ASSERT(conn->sync == THR_SYNC_OFF || thr_db_is_safe(db));
    if (plan->new_database) {
        atomic_store_explicit(&head->page_size, db->heap.page_size, memory_order_release);
        atomic_store_explicit(&db->usable_size, plan->usable_size, memory_order_relaxed);
    }
    if (plan->format != 0)
        atomic_store_explicit(&head->format, plan->format, memory_order_relaxed);
    publish(conn, seq);
    publish_space(conn, plan);
    atomic_store_explicit(&head->extent[seq % THR_EXTENTS], conn->new_extent, memory_order_release);
    if ((uint32_t)(conn->new_extent >> 32) > db->pages_high)
        db->pages_high = (uint32_t)(conn->new_extent >> 32);
    if ((uint32_t)(conn->new_extent >> 32) > db->pages_next)
        db->pages_next = (uint32_t)(conn->new_extent >> 32);
    THR_POINT("linked");
    atomic_store_explicit(&head->commit_seq, seq, memory_order_seq_cst);
    if (conn->sync >= THR_SYNC_FULL)
        atomic_store_explicit(&head->full_seq, seq, memory_order_relaxed);
    thr_log_show(&db->log);
}

/* Asked only when another connection has committed meanwhile: it means a look at every statement. What is answered stays
 * true until the commit is over, as the connection's thread is in it. */
static enum thr_beside beside(struct thr_conn *conn)
{
    if (conn->beside == THR_BESIDE_UNKNOWN)
        conn->beside = conn->reads_beside != NULL && conn->reads_beside(conn->keep_waiting_ctx) ? THR_BESIDE_READER
                                                                                                : THR_BESIDE_NOBODY;
    return conn->beside;
}

int thr_commit_look(struct thr_conn *conn, struct thr_obstacle *obstacle_out)
{
    struct thr_head *head = head_of(conn);
    uint64_t now = atomic_load_explicit(&head->commit_seq, memory_order_relaxed);
    int rc;

    *obstacle_out = (struct thr_obstacle){.slot = 0};
    if (now != conn->checked_seq && (rc = validate(conn)) != SQLITE_OK)
        return rc;
    conn->checked_seq = now;
    if (!conn->planned || conn->plan->nothing) /* it changes nothing, so nobody minds */
        return SQLITE_OK;
    if (now != conn->snapshot && conn->beside == THR_BESIDE_READER)
        return lost(conn, THR_CONFLICT_READ, 0);
    if (thr_log_failed(&conn->db->log))
        return SQLITE_READONLY;
    obstacle_out->beside = now != conn->snapshot && conn->beside == THR_BESIDE_UNKNOWN;
    if (now - atomic_load_explicit(&head->visible_seq, memory_order_relaxed) >= THR_EXTENTS - 2)
        obstacle_out->visible = now;
    else
        obstacle_out->slot = thr_turn_spoils(conn, conn->plan->page_count);
    return SQLITE_OK;
}

int thr_commit_wait(struct thr_conn *conn, const struct thr_obstacle *obstacle)
{
    if (obstacle->beside)
        (void)beside(conn);
    if (obstacle->visible != 0)
        thr_log_wait_visible(&conn->db->log, obstacle->visible);
    if (obstacle->slot == 0)
        return SQLITE_OK;
    THR_POINT("spoils");
    return thr_turn_wait_protected(conn, obstacle->slot) ? SQLITE_OK : lost(conn, THR_CONFLICT_WRITE, 0);
}

int thr_commit_look_ahead(struct thr_conn *conn)
{
    int rc;

    conn->checked_seq = atomic_load_explicit(&head_of(conn)->commit_seq, memory_order_acquire);
    if (conn->checked_seq == conn->snapshot)
        return SQLITE_OK;
    if ((rc = validate(conn)) == SQLITE_OK && conn->planned && !conn->plan->nothing)
        (void)beside(conn);
    return rc;
}

/* Validate against what was committed meanwhile; wait for a protected transaction that we would spoil. Returns with
 * commit_lock held if SQLITE_OK. */
static int lock_and_validate(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    struct thr_obstacle obstacle;
    int rc;

    if ((rc = thr_commit_look_ahead(conn)) != SQLITE_OK)
        return rc;
    THR_POINT("validated");
    for (;;) {
        thr_mutex_lock(&head->commit_lock, UINT64_MAX);
        rc = thr_commit_look(conn, &obstacle);
        if (rc == SQLITE_OK && !thr_obstacle_any(&obstacle))
            return SQLITE_OK;
        thr_mutex_unlock(&head->commit_lock);
        if (rc != SQLITE_OK || (rc = thr_commit_wait(conn, &obstacle)) != SQLITE_OK)
            return rc;
    }
}

/* A commit that changed no byte: nothing to publish. Only the pager believes that its change counter went up. */
void thr_commit_nothing(struct thr_conn *conn)
{
    conn->planned = false;
    if (conn->change_counter_written) {
        conn->counter_bias++;
        conn->change_counter++;
    }
    thr_count(conn->slot, THR_COUNT_EMPTY_COMMITS, 1);
    thr_txn_discard(conn);
    conn->committed = true;
}

/* Next time the pager sees another key. */
static void forget_cache(struct thr_conn *conn)
{
    conn->cache_seq = 0;
    conn->counter_bias++;
}

/* What the pager holds now is the database as of our commit, if nobody came in between. */
static void settle(struct thr_conn *conn, const struct thr_plan *plan, uint64_t seq)
{
    bool next = seq == conn->first_snapshot + 1;
    int rc = SQLITE_OK;

    THR_ASSERT(seq == conn->snapshot + 1 ||
               conn->beside == THR_BESIDE_NOBODY); /* a statement would read on in another one */

    conn->snapshot = conn->first_snapshot = seq;
    conn->held = 0;
    atomic_store_explicit(&conn->slot->snapshot, seq, memory_order_seq_cst);
    conn->cache_seq = next && !plan->rewrite ? seq : 0;
    conn->page_count = plan->page_count;
    if (next) {
        conn->committed_count = (uint32_t)(conn->new_extent >> 32);
        conn->committed_free = (uint32_t)conn->new_extent;
    }
    if (conn->change_counter_written) /* with locking_mode=EXCLUSIVE only some commits write page 1 */
        conn->change_counter++;
    /* The pager may go on to use pages that it wrote without ever having read them. */
    for (uint32_t i = 0; i < conn->writes.count && rc == SQLITE_OK; i++)
        rc = thr_reads_add(&conn->reads, conn->writes.at[i].pgno);
    if (rc != SQLITE_OK)
        forget_cache(conn);
    rc = SQLITE_OK;
    if (plan->list_changed) {
        conn->free_count = plan->free_count;
        if (plan->rewrite)
            thr_chain_clear(&conn->stripe.chain);
        else
            rc = thr_stripe_adopt(&conn->stripe, &conn->after, &conn->taken);
    }
    conn->shown_first = conn->stripe.chain.first;
    conn->shown_layout = conn->stripe.chain.layout;
    if (rc != SQLITE_OK) { /* no memory for the list of our own pages: give up the stripe, not the commit */
        forget_cache(conn);
        conn->stripe.pages.count = 0;
        thr_chain_clear(&conn->stripe.chain);
    }
    for (uint32_t i = 0; i < conn->superseded.count; i++)
        thr_frame_retire(&conn->db->heap, &conn->frames, conn->superseded.at[i]);
}

/* A transaction that used many pages will want many again. */
static void adapt_stripe(struct thr_conn *conn, const struct thr_plan *plan)
{
    uint32_t used = conn->taken.count, want = conn->stripe.want, appended = 0;

    if (plan->page_count > conn->page_count && !plan->rewrite)
        appended = plan->page_count - conn->page_count;
    conn->stripe.appends = appended > conn->stripe.appends / 8 ? appended : conn->stripe.appends / 8;
    used += appended;
    if (used > want / 2)
        want = used * 2 < THR_STRIPE_MAX ? used * 2 : THR_STRIPE_MAX;
    else if (want > THR_STRIPE_FIRST && used * 8 < want)
        want -= want / 8;
    conn->stripe.want = want;
    if (want != atomic_load_explicit(&head_of(conn)->stripe_want, memory_order_relaxed) && want > THR_STRIPE_FIRST)
        atomic_store_explicit(&head_of(conn)->stripe_want, want, memory_order_relaxed);
}

int thr_commit_plan(struct thr_conn *conn)
{
    struct thr_plan *plan = conn->plan;
    int rc;

    if (!conn->writing || conn->committed || conn->planned || conn->writes.count == 0)
        return SQLITE_OK;
    THR_POINT("commit");
    conn->beside = THR_BESIDE_UNKNOWN;
    if ((rc = thr_plan_make(conn, plan)) != SQLITE_OK)
        return rc == SQLITE_BUSY_SNAPSHOT ? lost(conn, THR_CONFLICT_SCHEMA, 0) : rc;
    if (plan->rollback)
        return SQLITE_OK;
    adapt_stripe(conn, plan);
    conn->planned = true;
    return SQLITE_OK;
}

int thr_commit_log(struct thr_conn *conn)
{
    int rc;

    THR_ASSERT(conn->planned && !conn->prepared);
    conn->prepared_seq = atomic_load_explicit(&head_of(conn)->commit_seq, memory_order_relaxed) + 1;
    if ((rc = log_record(conn, conn->plan, conn->prepared_seq)) == SQLITE_OK)
        conn->prepared = true;
    return rc;
}

void thr_commit_unlog(struct thr_conn *conn)
{
    THR_ASSERT(conn->prepared);
    conn->prepared = false;
    thr_log_take_back(&conn->db->log, conn->record.bytes);
    unclaim_space(conn, conn->plan);
}

void thr_commit_publish(struct thr_conn *conn)
{
    THR_ASSERT(conn->prepared);
    conn->planned = conn->prepared = false;
    publish_all(conn, conn->plan, conn->prepared_seq);
    /* Whoever supersedes what we have just written must not take it away: our own statements may go on reading it. */
    atomic_store_explicit(&conn->slot->committed, conn->prepared_seq,
                          memory_order_seq_cst); /* pairs with reclamation */
}

int thr_commit_end(struct thr_conn *conn)
{
    struct thr_log *log = &conn->db->log;
    uint64_t seq = conn->prepared_seq;
    int rc = SQLITE_OK;

    THR_POINT("published");
    thr_count(conn->slot, THR_COUNT_COMMITS, 1);
    thr_count(conn->slot, THR_COUNT_LOG_BYTES, conn->record.bytes);
    conn->committed = true;
    conn->rerun = false;
    if (conn->sync >= THR_SYNC_FULL)
        rc = thr_log_sync(log, seq);
    thr_log_wait_visible(log, seq); /* the leader says first that it is durable, and then lets it be seen */
    if (atomic_load_explicit(&head_of(conn)->visible_seq, memory_order_acquire) < seq)
        rc = SQLITE_IOERR_FSYNC;
    if (rc == SQLITE_OK) {
        freed_to_pool(conn, conn->plan);
        settle(conn, conn->plan, seq);
    } else { /* its pager goes on with what was visible before, and so with the free pages of that */
        thr_stripe_forget(&conn->stripe);
        conn->cache_seq = 0;
    }
    atomic_store_explicit(&conn->slot->committed, 0, memory_order_seq_cst);
    thr_txn_discard(conn); /* what was not worth publishing must not be read again */
    thr_frames_settle(&conn->db->heap, &conn->frames);
    return rc;
}

int thr_commit_one(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    int rc;

    if ((rc = thr_commit_plan(conn)) != SQLITE_OK || !conn->planned)
        return rc;
    if (conn->plan->nothing) {
        if ((rc = thr_commit_look_ahead(conn)) == SQLITE_OK)
            thr_commit_nothing(conn);
        return rc;
    }
    if ((rc = lock_and_validate(conn)) != SQLITE_OK)
        return rc;
    if ((rc = thr_commit_log(conn)) == SQLITE_OK)
        thr_commit_publish(conn);
    thr_mutex_unlock(&head->commit_lock);
    return rc == SQLITE_OK ? thr_commit_end(conn) : rc;
}
