/* SPDX-License-Identifier: MIT */
#include "cut.h"

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"

enum { TRIES_MAX = 64 };

static struct thr_head *head_of(const struct thr_conn *conn)
{
    return conn->db->shm.head;
}

/* One that keeps its lock from transaction to transaction is alone: what it reads is the newest at any moment. */
static bool is_open(const struct thr_conn *conn)
{
    return conn->snapshot != 0 && !conn->keeps_lock;
}

static bool others_open(const struct thr_conn *conn)
{
    for (const struct thr_conn *other = conn->next; other != conn; other = other->next)
        if (is_open(other))
            return true;
    return false;
}

static void let_go(struct thr_conn *conn)
{
    if (conn->held == 0)
        return;
    conn->held = 0;
    if (conn->snapshot == 0)
        atomic_store_explicit(&conn->slot->snapshot, 0, memory_order_seq_cst);
}

enum thr_cut thr_cut_choose(struct thr_conn *conn)
{
    if (conn->next == conn)
        return THR_CUT_NONE;
    if (conn->holds_turn || conn->keeps_lock || conn->wants_newest) {
        let_go(conn);
        return THR_CUT_NONE;
    }
    if (conn->held != 0)
        return THR_CUT_JOIN;
    return conn->kind == THR_KIND_RAW || others_open(conn) ? THR_CUT_NONE : THR_CUT_LEAD;
}

/* Announce the newest snapshot, before it is believed. False: nobody may look at the index now. */
static bool announce(struct thr_conn *conn)
{
    struct thr_head *head = head_of(conn);
    uint64_t seq;

    conn->held_round = atomic_load_explicit(&head->group_round, memory_order_seq_cst);
    seq = atomic_load_explicit(&head->visible_seq, memory_order_seq_cst);
    conn->held = seq;
    atomic_store_explicit(&conn->slot->begin_ns, thr_os_coarse_ns(), memory_order_relaxed);
    atomic_store_explicit(&conn->slot->snapshot, seq, memory_order_seq_cst); /* pairs with reclamation */
    THR_POINT("held");
    conn->held_extent = atomic_load_explicit(&head->extent[seq % THR_EXTENTS], memory_order_acquire);
    return atomic_load_explicit(&head->barrier, memory_order_seq_cst) == 0;
}

/* Nothing has become visible since, and no commit is half visible. */
static bool stands(const struct thr_conn *conn)
{
    const struct thr_head *head = head_of(conn);

    return conn->held_round % 2 == 0 && atomic_load_explicit(&head->visible_seq, memory_order_seq_cst) == conn->held &&
           atomic_load_explicit(&head->group_round, memory_order_seq_cst) == conn->held_round; /* pairs with group.c */
}

/* All stood still between the first look and the second: so there was a moment at which all were as announced. */
static bool try_to_take(struct thr_conn *conn)
{
    struct thr_conn *member = conn;
    bool all = true;

    do {
        if (member != conn && member->snapshot != 0) /* it keeps its lock */
            continue;
        if (!announce(member) && member != conn)
            let_go(member); /* as long as its page size changes */
    } while ((member = member->next) != conn);
    do
        all = all && (member->held == 0 || stands(member));
    while ((member = member->next) != conn);
    return all;
}

/* In databases that change all the time: as of a moment at which nobody commits. */
static void lock_and_take(struct thr_conn *conn)
{
    struct thr_conn *order[THR_FAMILY_MAX], *member = conn;
    uint32_t count = 0, i;

    do {
        for (i = count++; i > 0 && order[i - 1]->db > member->db; i--)
            order[i] = order[i - 1];
        order[i] = member;
    } while ((member = member->next) != conn);
    for (i = 0; i < count; i++)
        if (i == 0 || order[i]->db != order[i - 1]->db)
            thr_mutex_lock(&head_of(order[i])->commit_lock, UINT64_MAX);
    if (!try_to_take(conn))
        THR_ASSERT(false);
    for (i = 0; i < count; i++)
        if (i == 0 || order[i]->db != order[i - 1]->db)
            thr_mutex_unlock(&head_of(order[i])->commit_lock);
}

uint64_t thr_cut_take(struct thr_conn *conn, enum thr_cut cut, uint64_t *extent_out)
{
    uint32_t tries = 0;

    if (cut == THR_CUT_NONE)
        return thr_snapshot_take(conn, extent_out);
    if (cut == THR_CUT_LEAD) {
        THR_POINT("cut");
        while (!try_to_take(conn) && ++tries < TRIES_MAX)
            ;
        if (tries == TRIES_MAX)
            lock_and_take(conn);
    }
    *extent_out = conn->held_extent;
    return conn->held;
}

void thr_cut_leave(struct thr_conn *conn)
{
    let_go(conn);
    if (conn->snapshot == 0)
        thr_turn_release(conn);
}

void thr_cut_end(struct thr_conn *conn)
{
    struct thr_conn *member = conn;

    if (conn->next == conn || others_open(conn))
        return;
    do {
        if (member->snapshot != 0)
            continue;
        let_go(member);
        thr_turn_release(member);
    } while ((member = member->next) != conn);
}
