/* Snapshots: how a transaction begins and ends.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "cut.h"
#include "group.h"
#include "txn.h"

static const uint64_t WAIT_NS = 20000000;

static struct thr_head *head_of(const struct thr_conn *conn)
{
    return conn->db->shm.head;
}

static uint32_t page_size_of(const struct thr_conn *conn)
{
    return atomic_load_explicit(&head_of(conn)->page_size, memory_order_relaxed);
}

/* Reclamation may run at any moment, so the choice is announced before it is believed (I1): if the sequence moved in
 * between, the newer one is announced. Since it stood still, its extent was not overwritten while we
 * read that: commits wait before they run THR_EXTENTS ahead. */
uint64_t thr_snapshot_take(struct thr_conn *conn, uint64_t *extent_out)
{
    struct thr_head *head = head_of(conn);
    uint64_t seq, extent;

    do {
        seq = atomic_load_explicit(&head->visible_seq, memory_order_acquire);    /* pairs with thr_log_show() */
        atomic_store_explicit(&conn->slot->snapshot, seq, memory_order_seq_cst); /* pairs with reclamation */
        THR_POINT("announced");
        extent = atomic_load_explicit(&head->extent[seq % THR_EXTENTS], memory_order_acquire);
    } while (seq != atomic_load_explicit(&head->visible_seq, memory_order_seq_cst));
    if (extent_out != NULL)
        *extent_out = extent;
    return seq;
}

static bool one_writer(const struct thr_db *db)
{
    return atomic_load_explicit(&db->shm.head->format, memory_order_relaxed) == 1 ||
           atomic_load_explicit(&db->shm.head->page_size, memory_order_relaxed) == 0;
}

static bool kind_writes(enum thr_kind kind)
{
    return kind >= THR_KIND_AUTOCOMMIT;
}

/* Wait for what this kind of transaction was promised. */
static int take_turn(struct thr_conn *conn, enum thr_kind kind)
{
    bool alone = !conn->read_only && (kind >= THR_KIND_EXCLUSIVE || (kind_writes(kind) && one_writer(conn->db)));
    bool sure = kind == THR_KIND_IMMEDIATE || kind == THR_KIND_RETURNING || (kind_writes(kind) && conn->rerun);
    struct thr_head *head = head_of(conn);
    uint32_t other;
    int rc = SQLITE_OK;

    if (kind >= THR_KIND_EXPLICIT) {
        thr_gate_enter(conn);
        thr_log_wait_visible(&conn->db->log, conn->lost_seq); /* else it would lose to the same commit again */
        conn->lost_seq = 0;
    }
    if (alone || sure)
        rc = thr_turn_acquire_all(conn, alone);
    if (rc == SQLITE_OK && !alone && kind_writes(kind)) {
        uint64_t began_ns = thr_os_now_ns();

        while ((other = atomic_load_explicit(&head->alone_slot, memory_order_acquire)) != 0 && rc == SQLITE_OK) {
            thr_os_futex_wait(&head->alone_slot, other, WAIT_NS / 10);
            if (thr_os_now_ns() - began_ns > WAIT_NS)
                rc = SQLITE_BUSY;
        }
    }
    return rc;
}

static void fresh_list(struct thr_conn *conn, uint64_t extent)
{
    struct thr_db *db = conn->db;
    struct thr_stripe *stripe = &conn->stripe;
    uint32_t end = 0, first;

    conn->cache_seq = conn->snapshot;
    conn->page_count = conn->committed_count = (uint32_t)(extent >> 32);
    conn->free_count = conn->committed_free = (uint32_t)extent;
    conn->change_counter = db->shm.head->change_base + (uint32_t)conn->snapshot + conn->counter_bias;
    if (atomic_load_explicit(&db->shm.head->format, memory_order_relaxed) == 1)
        return;
    stripe->part = stripe->own || (conn->shows_pool && thr_page_list_pool(conn) == SQLITE_OK);
    stripe->mixed = false;
    if (stripe->part) {
        /* Pages that others were given are free for us to step over: what is appended comes after them. */
        if ((end = thr_space_end(&db->shm)) > conn->page_count)
            conn->page_count = end;
        conn->free_count = stripe->chain.pages;
        return;
    }
    first = stripe->chain.first;
    thr_chain_clear(&stripe->chain);
    if (conn->free_count == 0)
        return;
    if (first == 0 || first > conn->page_count || !thr_space_is_free(&db->heap, first, conn->snapshot) ||
        thr_space_is_taken(&db->shm, first))
        first = thr_space_some_free(&db->heap, conn->snapshot, conn->page_count);
    stripe->chain.first = first;
    stripe->chain.pages = conn->free_count;
    stripe->chain.built = false;
}

/* Nothing that the pager shows has changed, but it must not use what it has read. */
static void drop_cache(struct thr_conn *conn)
{
    conn->counter_bias++;
    conn->change_counter++;
    thr_reads_clear(&conn->reads);
}

/* Show the pager the database as of the snapshot. It drops its cache, and what was read before is of no account any
 * more, if the key by which it tells that has changed; and only then. It may not have asked since the last view, nor since
 * the one before: so no two different views have the same change counter, and a list that comes back is another one. */
static void fresh_view(struct thr_conn *conn, uint64_t extent)
{
    uint32_t change_counter = conn->change_counter, page_count = conn->page_count, free_count = conn->free_count;
    const struct thr_chain *chain = &conn->stripe.chain;
    bool same;

    fresh_list(conn, extent);
    same = page_count == conn->page_count && free_count == conn->free_count &&
           (free_count == 0 || (conn->shown_first == chain->first && conn->shown_layout == chain->layout));
    if (change_counter != conn->change_counter)
        thr_reads_clear(&conn->reads);
    else if (!same)
        drop_cache(conn);
    conn->shown_first = chain->first;
    conn->shown_layout = chain->layout;
}

/* While we are alone or protected nobody else moves the end of the file, so ours must be the end, with some pages for
 * others to go on with. *short_out: not with the common list, which does not reach past the committed end. */
static int settle_end(struct thr_conn *conn, uint64_t extent, bool *short_out)
{
    struct thr_db *db = conn->db;
    uint32_t end, page_count = 0;
    int rc = SQLITE_OK;

    thr_mutex_lock(&head_of(conn)->commit_lock, UINT64_MAX); /* nobody is about to append */
    if (!one_writer(db) && conn->stripe.append_last == 0)
        thr_stripe_borrow_rest(&db->shm, &conn->stripe, conn->page_count, page_size_of(conn));
    end = thr_stripe_end(&conn->stripe, conn->page_count);
    if (!one_writer(db))
        rc = thr_space_settle_end(&db->shm, end, page_size_of(conn), conn->kind == THR_KIND_IMMEDIATE, &page_count);
    *short_out = page_count > end && !conn->stripe.own;
    if (rc == SQLITE_OK && page_count > end && conn->stripe.own) {
        fresh_view(conn, extent);
        conn->page_count = page_count;
        thr_reads_clear(&conn->reads);
    }
    if (conn->is_protected)
        atomic_store_explicit(&head_of(conn)->protected_end, thr_stripe_end(&conn->stripe, conn->page_count),
                              memory_order_seq_cst);
    thr_mutex_unlock(&head_of(conn)->commit_lock);
    return rc;
}

static bool refill_is_due(const struct thr_conn *conn)
{
    const struct thr_head *head = conn->db->shm.head;

    if (!conn->wants_stripe || conn->read_only || conn->shows_all || conn->kind == THR_KIND_RAW ||
        conn->kind == THR_KIND_READ || atomic_load_explicit(&head->format, memory_order_relaxed) != 2 ||
        atomic_load_explicit(&head->page_size, memory_order_relaxed) == 0)
        return false;
    /* Where the pager's cache is dropped anyway: the list is part of what tells it so. */
    if (atomic_load_explicit(&head->visible_seq, memory_order_acquire) != conn->cache_seq || conn->ran_out)
        return true;
    return conn->may_write && !conn->stripe.own && conn->free_count > THR_BORROW_MAX;
}

static int refill(struct thr_conn *conn)
{
    struct thr_db *db = conn->db;

    conn->cache_seq = 0;
    conn->ran_out = false;
    return thr_stripe_refill(&db->shm, &conn->stripe, page_size_of(conn),
                             atomic_load_explicit(&db->usable_size, memory_order_relaxed));
}

/* Make sure of the pages that a writer may use, without a change of what the pager was shown. *short_out: that cannot
 * be, as others have them.
 * One that is protected holds all that it was shown, or has a stripe: its snapshot moves on past the commits of others, and
 * with it come pages that they have used; in its list these would still be free. */
static int borrow_space(struct thr_conn *conn, bool lost, bool *short_out)
{
    struct thr_db *db = conn->db;
    struct thr_stripe *stripe = &conn->stripe;
    int rc = SQLITE_OK;

    *short_out = false;
    if (one_writer(db) || conn->page_count == 0 || conn->read_only || conn->kind >= THR_KIND_REWRITE)
        return SQLITE_OK;
    /* Pages of a view from before a rewrite are others now; and it has lost already. */
    if (conn->snapshot < atomic_load_explicit(&head_of(conn)->rewrite_seq, memory_order_acquire))
        return SQLITE_OK;
    if (!stripe->own && conn->free_count > 0 && (rc = thr_page_build_list(conn)) == SQLITE_OK) {
        /* Or else it would come upon pages of others when those of the pool are used up. */
        *short_out = stripe->mixed || (conn->is_protected && conn->free_count > THR_HOLD_MAX);
        if (!*short_out)
            rc = thr_stripe_borrow(&db->shm, stripe, conn->is_protected, page_size_of(conn), short_out);
    }
    if (rc == SQLITE_OK && !*short_out && !conn->holds_turn) /* else the end is ours anyway */
        rc = thr_stripe_borrow_end(&db->shm, stripe, conn->page_count, page_size_of(conn), lost, short_out);
    return rc;
}

/* What a writer needs cannot be had of what the pager is shown: show it something else. If no other connection commits, the
 * whole pool: it will need no other list again, as long as that is so. A stripe if it has lost for want of pages, or has the
 * turn, or was just shown the pool, or a new stripe, in vain. */
static void show_other_pages(struct thr_conn *conn, bool has_new_stripe)
{
    struct thr_db *db = conn->db;

    thr_stripe_return(&db->shm, &conn->stripe, conn->page_count, page_size_of(conn));
    conn->shows_pool = !has_new_stripe && !conn->shows_pool && !conn->ran_out && !conn->holds_turn &&
                       conn->committed_free <= THR_BORROW_MAX &&
                       atomic_load_explicit(&db->shm.head->visible_seq, memory_order_acquire) == conn->cache_seq;
    if (conn->shows_pool)
        thr_stripe_release(&db->shm, &conn->stripe, page_size_of(conn));
    conn->ran_out = !conn->shows_pool;
    conn->cache_seq = 0;
}

static void check_epoch(struct thr_conn *conn)
{
    uint32_t epoch = atomic_load_explicit(&head_of(conn)->space_epoch, memory_order_acquire);

    if (conn->cache_epoch == epoch)
        return;
    conn->cache_epoch = epoch;
    conn->cache_seq = 0;
    thr_stripe_check_epoch(&conn->db->shm, &conn->stripe);
}

/* The connection's other databases get their snapshots now, and pages have to be theirs before that. Only those that it
 * has written before, and where it is about to run out. */
static int refill_others(struct thr_conn *conn)
{
    int rc = SQLITE_OK;

    for (struct thr_conn *other = conn->next; other != conn && rc == SQLITE_OK; other = other->next)
        if (other->snapshot == 0 && refill_is_due(other) &&
            (other->ran_out || !other->stripe.own || other->stripe.pages.count < (other->stripe.want + 1) / 2)) {
            check_epoch(other);
            rc = refill(other);
        }
    return rc;
}

/* While a rebase is going on nobody may look at the index. */
static int pass_barrier(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    uint64_t began_ns = 0;
    uint32_t slot;

    for (;;) {
        slot = atomic_load_explicit(&head->barrier, memory_order_seq_cst);
        if (slot == 0 || slot == conn->slot_index + 1)
            return SQLITE_OK;
        if (began_ns == 0)
            began_ns = thr_os_now_ns();
        atomic_store_explicit(&conn->slot->snapshot, 0, memory_order_seq_cst);
        if (thr_os_now_ns() - began_ns > WAIT_NS)
            return SQLITE_BUSY;
        thr_os_futex_wait(&head->barrier, slot, WAIT_NS / 10);
        conn->snapshot = thr_snapshot_take(conn, NULL);
    }
}

/* From here on nobody changes what our cache holds; and the snapshot that is taken next has everything that was committed
 * before. */
static void protect_from_now_on(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    uint64_t seq;

    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    thr_turn_protect(conn, UINT32_MAX);
    seq = atomic_load_explicit(&head->commit_seq, memory_order_relaxed);
    thr_mutex_unlock(&head->commit_lock);
    thr_log_wait_visible(&conn->db->log, seq);
}

int thr_txn_begin(struct thr_conn *conn, enum thr_kind kind)
{
    struct thr_db *db = conn->db;
    uint64_t extent = 0;
    bool protect = false, refilled = false, is_short = false, has_new_stripe = false, lost = conn->ran_out;
    enum thr_cut cut;
    int rc;

    THR_ASSERT(conn->snapshot == 0);
    if (atomic_load_explicit(&db->broken, memory_order_relaxed) != 0)
        return SQLITE_IOERR;
    conn->kind = kind;
    conn->conflict = THR_CONFLICT_NONE;
    conn->shows_pool = false;
    if ((rc = take_turn(conn, kind)) != SQLITE_OK)
        goto err;
    protect = conn->holds_turn && !conn->is_alone;
    check_epoch(conn);
    if ((kind == THR_KIND_RAW || conn->shows_all) && conn->stripe.part) {
        thr_stripe_release(&db->shm, &conn->stripe, page_size_of(conn));
        conn->cache_seq = 0;
    }
    cut = thr_cut_choose(conn);
again:
    if (cut != THR_CUT_JOIN && !conn->shows_pool && refill_is_due(conn)) {
        if ((rc = refill(conn)) != SQLITE_OK)
            goto err;
        has_new_stripe = true;
    }
    if (cut == THR_CUT_LEAD && (rc = refill_others(conn)) != SQLITE_OK)
        goto err;
    if (protect)
        protect_from_now_on(conn);
    if (cut != THR_CUT_JOIN) /* who has announced one already is waited for */
        conn->snapshot = thr_snapshot_take(conn, &extent);
    if (cut == THR_CUT_JOIN || (rc = pass_barrier(conn)) == SQLITE_OK) {
        conn->snapshot = thr_cut_take(conn, cut, &extent);
        conn->first_snapshot = conn->snapshot;
        check_epoch(conn);
        if (conn->snapshot != conn->cache_seq)
            fresh_view(conn, extent);
        if (conn->may_write && conn->reads.count > 0 &&
            atomic_load_explicit(&head_of(conn)->commit_seq, memory_order_relaxed) != conn->snapshot &&
            thr_commit_is_doomed(conn))
            drop_cache(conn); /* it holds what a commit that is not visible yet has changed */
        if (conn->holds_turn && !conn->read_only)
            rc = settle_end(conn, extent, &is_short);
    }
    if (rc == SQLITE_OK && !is_short && conn->may_write)
        rc = borrow_space(conn, lost, &is_short);
    if (rc == SQLITE_OK && is_short && !refilled && cut != THR_CUT_JOIN) {
        show_other_pages(conn, has_new_stripe);
        refilled = !conn->shows_pool; /* if that is not enough either, a stripe is */
        is_short = false;
        goto again;
    }
    if (rc != SQLITE_OK)
        goto err;
    atomic_store_explicit(&conn->slot->begin_ns, thr_os_coarse_ns(), memory_order_relaxed);
    atomic_store_explicit(&conn->slot->state, THR_SLOT_READER, memory_order_release);
    thr_count(conn->slot, THR_COUNT_SNAPSHOTS, 1);
    return SQLITE_OK;

err:
    thr_txn_end(conn);
    return rc;
}

static int reserve_alone(struct thr_conn *conn)
{
    int rc;

    if (conn->is_alone)
        return SQLITE_OK;
    if ((rc = thr_turn_acquire_all(conn, true)) != SQLITE_OK) {
        thr_turn_release(conn);
        return rc;
    }
    if (atomic_load_explicit(&head_of(conn)->commit_seq, memory_order_acquire) != conn->snapshot) {
        thr_turn_release(conn);
        return SQLITE_BUSY_SNAPSHOT;
    }
    return SQLITE_OK;
}

/* BEGIN IMMEDIATE while a statement of the same connection is still reading. */
static int reserve_protected(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    int rc = thr_turn_acquire_all(conn, false);

    if (rc != SQLITE_OK)
        return rc;
    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    if (atomic_load_explicit(&head->commit_seq, memory_order_acquire) == conn->snapshot)
        thr_turn_protect(conn, conn->page_count);
    thr_mutex_unlock(&head->commit_lock);
    if (conn->is_protected && thr_space_end(&conn->db->shm) <= conn->page_count)
        return SQLITE_OK;
    thr_turn_release(conn);
    return SQLITE_BUSY_SNAPSHOT;
}

static void leave_writer(struct thr_conn *conn)
{
    atomic_store_explicit(&conn->slot->state, THR_SLOT_READER, memory_order_seq_cst);
    thr_turn_release(conn);
}

/* What it borrowed when it became a writer: the next statement beside the one that reads on will borrow anew. */
static void give_up_loan(struct thr_conn *conn)
{
    if (!conn->may_write)
        thr_stripe_return(&conn->db->shm, &conn->stripe, conn->page_count, page_size_of(conn));
}

/* Become a writer, if nobody is in the way for long. */
static int try_to_reserve(struct thr_conn *conn, enum thr_kind kind)
{
    struct thr_db *db = conn->db;
    bool is_short;
    int rc = SQLITE_OK;

    if (kind >= THR_KIND_EXCLUSIVE || one_writer(db))
        rc = reserve_alone(conn);
    else if (kind == THR_KIND_IMMEDIATE && !conn->is_protected)
        rc = reserve_protected(conn);
    if (rc == SQLITE_OK)
        rc = thr_turn_enter_writer(conn);
    if (rc == SQLITE_OK && !conn->may_write) /* it began with a read */
        rc = borrow_space(conn, conn->ran_out, &is_short);
    if (rc == SQLITE_OK) {
        conn->writing = true;
    } else {
        give_up_loan(conn);
        leave_writer(conn);
        thr_turn_release_idle(conn);
    }
    return rc;
}

int thr_txn_reserve(struct thr_conn *conn, enum thr_kind kind)
{
    const struct thr_db *db = conn->db;
    int rc;

    if (conn->read_only || db->foreign || !db->base.writable || thr_log_failed(&db->log))
        return SQLITE_READONLY;
    if (conn->writing)
        return SQLITE_OK;
    conn->wants_stripe = true;
    if (kind == THR_KIND_RAW)
        kind = THR_KIND_REWRITE; /* no statement is running: the target of a backup */
    conn->kind = kind;
    /* In a transaction that has read the pager does not ask the busy handler: with stock locks that would wait for itself.
     * Here who is in the way does not wait for readers. */
    for (int count = 0; (rc = try_to_reserve(conn, kind)) == SQLITE_BUSY && kind == THR_KIND_EXPLICIT &&
                        conn->keep_waiting != NULL && conn->keep_waiting(conn->keep_waiting_ctx, count);
         count++)
        ;
    return rc;
}

void thr_txn_renew(struct thr_conn *conn)
{
    uint64_t extent;

    conn->snapshot = conn->first_snapshot = thr_snapshot_take(conn, &extent);
    check_epoch(conn);
    fresh_view(conn, extent);
}

void thr_txn_discard(struct thr_conn *conn)
{
    for (uint32_t i = 0; i < conn->writes.count; i++)
        if (conn->writes.at[i].frame != 0)
            thr_frame_give(&conn->db->heap, &conn->frames, conn->writes.at[i].frame);
    thr_writes_clear(&conn->writes);
}

void thr_txn_end_write(struct thr_conn *conn)
{
    bool committed = conn->committed;

    if (!conn->writing)
        return;
    if (conn->planned || conn->changing)
        thr_group_abort(conn);
    thr_txn_discard(conn);
    thr_frames_settle(&conn->db->heap, &conn->frames);
    conn->writing = conn->committed = false;
    give_up_loan(conn);
    leave_writer(conn);
    thr_gate_leave(conn, committed);
}

void thr_txn_end(struct thr_conn *conn)
{
    thr_txn_end_write(conn);
    if (conn->holds_commit_lock) /* it was only read, and the commit of the others fails */
        thr_group_abort(conn);
    thr_stripe_return(&conn->db->shm, &conn->stripe, conn->page_count, page_size_of(conn));
    thr_stripe_trim(&conn->db->shm, &conn->stripe, page_size_of(conn));
    thr_turn_release(conn);
    if (conn->gate >= 0) /* it only read */
        thr_gate_leave(conn, false);
    conn->snapshot = 0;
    atomic_store_explicit(&conn->slot->snapshot, conn->held, memory_order_seq_cst);
    atomic_store_explicit(&conn->slot->state, THR_SLOT_IDLE, memory_order_release);
    thr_cut_end(conn);
}
