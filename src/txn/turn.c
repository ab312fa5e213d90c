/* Who must not lose, who must be alone, and who queues after a conflict.
 *
 * turn_lock is held by the one transaction at a time that was promised something: BEGIN IMMEDIATE and the second try
 * of an autocommit statement are protected, BEGIN EXCLUSIVE, VACUUM and writers of a database with one free list
 * (auto_vacuum) are alone.
 *
 * A protected transaction always reads the newest version of a page, and moves its snapshot on when it does. That is
 * right because nothing it has read can have changed: it announces each page in the filter before it reads it, and
 * whoever would commit a change to an announced page, or make the file grow past the protected transaction's view,
 * waits until it is done.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "txn.h"

/* How long to wait in here before SQLite's busy handler is asked. */
static const uint64_t PATIENCE_NS = 20000000;
static const uint64_t STEP_NS = 2000000;
static const uint64_t GATE_PATIENCE_NS = 100000000;
enum { QUEUE_FIRST = 2, QUEUE_MAX = 64, HOT_WITHIN = 8 };

static struct thr_head *head_of(const struct thr_conn *conn)
{
    return conn->db->shm.head;
}

int thr_turn_acquire(struct thr_conn *conn)
{
    if (conn->holds_turn)
        return SQLITE_OK;
    if (!thr_mutex_lock(&head_of(conn)->turn_lock, PATIENCE_NS))
        return SQLITE_BUSY;
    conn->holds_turn = true;
    return SQLITE_OK;
}

/* What the transaction will need in the other databases of the connection, too; false: nothing. */
static bool wants_too(const struct thr_conn *conn, const struct thr_conn *other)
{
    bool all = (conn->kind == THR_KIND_IMMEDIATE || conn->kind == THR_KIND_EXCLUSIVE) && !conn->keeps_lock;

    return other == conn || ((all || other->rerun) && !other->db->foreign && other->db->base.writable);
}

/* The first of `conn` and the others after `last`, in the order in which they are taken by everybody. */
static struct thr_conn *next_in_order(struct thr_conn *conn, const struct thr_conn *last)
{
    struct thr_conn *member = conn, *next = NULL;

    do
        if (wants_too(conn, member) && (last == NULL || member->db > last->db) &&
            (next == NULL || member->db < next->db))
            next = member;
    while ((member = member->next) != conn);
    return next;
}

void thr_turn_release_idle(struct thr_conn *conn)
{
    for (struct thr_conn *other = conn->next; other != conn; other = other->next)
        if (other->snapshot == 0)
            thr_turn_release(other);
}

/* Two connections that attach in opposite orders must not wait for each other. */
int thr_turn_acquire_all(struct thr_conn *conn, bool alone)
{
    struct thr_conn *member = NULL, *had[THR_FAMILY_MAX];
    uint32_t count = 0, kept = 0;
    int rc = SQLITE_OK;

    while (rc == SQLITE_OK && (member = next_in_order(conn, member)) != NULL) {
        if (member->holds_turn)
            had[count++] = member;
        rc = thr_turn_acquire(member);
        THR_POINT("one-turn");
        if (rc == SQLITE_OK && alone && (member == conn || (member->snapshot == 0 && !member->read_only)))
            rc = thr_turn_be_alone(member);
    }
    for (member = NULL; rc != SQLITE_OK && (member = next_in_order(conn, member)) != NULL;) {
        if (kept < count && had[kept] == member)
            kept++;
        else
            thr_turn_release(member);
    }
    return rc;
}

bool thr_turn_held_elsewhere(const struct thr_conn *conn)
{
    for (const struct thr_conn *other = conn->next; other != conn; other = other->next)
        if (other->holds_turn && !other->keeps_lock)
            return true;
    return false;
}

static bool others_write(const struct thr_conn *conn)
{
    const struct thr_shm *shm = &conn->db->shm;
    uint32_t high = atomic_load_explicit(&shm->head->slot_high, memory_order_acquire);

    for (uint32_t i = 0; i < high; i++)
        if (i != conn->slot_index && atomic_load_explicit(&thr_shm_slot(shm, i)->state, memory_order_seq_cst) ==
                                         THR_SLOT_WRITER) /* pairs with thr_turn_enter_writer() */
            return true;
    return false;
}

int thr_turn_be_alone(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    uint64_t began_ns = thr_os_now_ns();

    THR_ASSERT(conn->holds_turn);
    if (conn->is_alone)
        return SQLITE_OK;
    atomic_store_explicit(&head->alone_slot, conn->slot_index + 1, memory_order_seq_cst);
    while (others_write(conn)) {
        if (thr_os_now_ns() - began_ns > PATIENCE_NS) {
            atomic_store_explicit(&head->alone_slot, 0, memory_order_seq_cst);
            thr_os_futex_wake(&head->alone_slot, INT32_MAX);
            return SQLITE_BUSY;
        }
        thr_os_sleep_ns(20000);
    }
    conn->is_alone = true;
    return SQLITE_OK;
}

int thr_turn_enter_writer(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    uint64_t began_ns = 0;
    uint32_t alone;

    for (;;) {
        /* Either we see that somebody is alone, or he sees that we write. */
        atomic_store_explicit(&conn->slot->state, THR_SLOT_WRITER, memory_order_seq_cst);
        alone = atomic_load_explicit(&head->alone_slot, memory_order_seq_cst);
        if (alone == 0 || alone == conn->slot_index + 1)
            return SQLITE_OK;
        atomic_store_explicit(&conn->slot->state, THR_SLOT_READER, memory_order_seq_cst);
        if (began_ns == 0)
            began_ns = thr_os_now_ns();
        else if (thr_os_now_ns() - began_ns > PATIENCE_NS)
            return SQLITE_BUSY;
        thr_os_futex_wait(&head->alone_slot, alone, STEP_NS);
    }
}

static uint32_t filter_bit(uint32_t pgno)
{
    return (pgno * 2654435769u) >> 16; /* of THR_FILTER_WORDS * 64 = 65,536 */
}

static void filter_add(struct thr_head *head, uint32_t pgno)
{
    uint32_t bit = filter_bit(pgno);
    uint64_t word = atomic_load_explicit(&head->filter[bit / 64], memory_order_relaxed);
    uint64_t mask = UINT64_C(1) << (bit % 64);

    if ((word & mask) == 0) /* only the holder of turn_lock writes the filter */
        atomic_store_explicit(&head->filter[bit / 64], word | mask, memory_order_seq_cst);
}

/* commit_lock is held, so no page changes while we announce those that the pager may use without reading them. */
void thr_turn_protect(struct thr_conn *conn, uint32_t end)
{
    struct thr_head *head = head_of(conn);

    THR_ASSERT(conn->holds_turn);
    for (size_t i = 0; i < conn->reads.count; i++)
        filter_add(head, conn->reads.pages[i]);
    filter_add(head, 1);
    atomic_store_explicit(&head->protected_end, end, memory_order_seq_cst);
    atomic_store_explicit(&head->protected_slot, conn->slot_index + 1, memory_order_seq_cst);
    conn->is_protected = true;
}

void thr_turn_protect_page(struct thr_conn *conn, uint32_t pgno)
{
    struct thr_head *head = head_of(conn);

    filter_add(head, pgno);
    /* A committer who looked at the filter before may still be about to publish: let him finish. One who takes
     * commit_lock after this sees the page in the filter (pairs with thr_mutex_try()). */
    if (atomic_load_explicit(&head->commit_lock.word, memory_order_seq_cst) != 0) {
        thr_mutex_lock(&head->commit_lock, UINT64_MAX);
        thr_mutex_unlock(&head->commit_lock);
    }
    if (atomic_load_explicit(&head->commit_seq, memory_order_seq_cst) == conn->snapshot)
        return;
    /* A version that is not visible yet will be: nobody adds another. */
    thr_log_wait_visible(&conn->db->log, thr_version_newest_seq(&conn->db->heap, pgno));
    conn->snapshot = thr_snapshot_take(conn, NULL);
}

void thr_turn_release(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);

    if (conn->is_protected) {
        atomic_store_explicit(&head->protected_slot, 0, memory_order_seq_cst);
        thr_os_futex_wake(&head->protected_slot, INT32_MAX);
        for (uint32_t i = 0; i < THR_FILTER_WORDS; i++)
            if (atomic_load_explicit(&head->filter[i], memory_order_relaxed) != 0)
                atomic_store_explicit(&head->filter[i], 0, memory_order_relaxed);
        conn->is_protected = false;
    }
    if (conn->is_alone) {
        atomic_store_explicit(&head->alone_slot, 0, memory_order_seq_cst);
        thr_os_futex_wake(&head->alone_slot, INT32_MAX);
        conn->is_alone = false;
    }
    if (conn->holds_turn) {
        conn->holds_turn = false;
        thr_mutex_unlock(&head->turn_lock);
    }
}

uint32_t thr_turn_spoils(const struct thr_conn *conn, uint32_t page_count)
{
    struct thr_head *head = head_of(conn);
    uint32_t slot = atomic_load_explicit(&head->protected_slot, memory_order_seq_cst);

    if (slot == 0 || slot == conn->slot_index + 1)
        return 0;
    if (page_count > atomic_load_explicit(&head->protected_end, memory_order_seq_cst))
        return slot;
    for (uint32_t i = 0; i < conn->writes.count; i++) {
        uint32_t bit = filter_bit(conn->writes.at[i].pgno);

        if (conn->writes.at[i].publish &&
            (atomic_load_explicit(&head->filter[bit / 64], memory_order_seq_cst) >> (bit % 64) & 1) != 0)
            return slot;
    }
    return 0;
}

bool thr_turn_wait_protected(struct thr_conn *conn, uint32_t slot)
{
    struct thr_head *head = head_of(conn);
    uint64_t began_ns = thr_os_now_ns();

    for (int count = 0; atomic_load_explicit(&head->protected_slot, memory_order_seq_cst) == slot;) {
        thr_os_futex_wait(&head->protected_slot, slot, STEP_NS);
        if (thr_os_now_ns() - began_ns > PATIENCE_NS &&
            (conn->keep_waiting == NULL || !conn->keep_waiting(conn->keep_waiting_ctx, count++)))
            return atomic_load_explicit(&head->protected_slot, memory_order_seq_cst) != slot;
    }
    return true;
}

void thr_gate_enter(struct thr_conn *conn)
{
    uint32_t gate = conn->lost_page % THR_GATES;

    if (conn->gate >= 0 || conn->queue_for == 0)
        return;
    /* Queueing is there to save work, not to be right: who waited long enough goes on without. */
    if (thr_mutex_lock(&head_of(conn)->gate[gate], GATE_PATIENCE_NS))
        conn->gate = (int)gate;
}

void thr_gate_leave(struct thr_conn *conn, bool committed)
{
    bool lost = !committed && conn->conflict != THR_CONFLICT_NONE;

    /* One loss is chance; two on the same page within a few transactions make it hot. How long to queue is then learnt
     * like TCP's window: twice as long after each loss, half after each win without queueing. A page that everybody
     * wants ends at one try in QUEUE_MAX without, all others at none with. */
    if (lost && conn->lost_page != 0) {
        if (conn->lost_page == conn->lost_before && conn->wins_since_loss <= HOT_WITHIN) {
            conn->penalty = conn->penalty == 0              ? QUEUE_FIRST
                            : conn->penalty * 2 < QUEUE_MAX ? conn->penalty * 2
                                                            : QUEUE_MAX;
            conn->queue_for = conn->penalty;
        }
        conn->lost_before = conn->lost_page;
        conn->wins_since_loss = 0;
    } else if (conn->gate >= 0) {
        conn->queue_for--;
    } else if (committed) {
        conn->penalty /= 2;
        conn->wins_since_loss++;
    }
    if (conn->gate >= 0) {
        thr_mutex_unlock(&head_of(conn)->gate[conn->gate]);
        conn->gate = -1;
    }
}
