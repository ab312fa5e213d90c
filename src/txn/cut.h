/* Snapshots of several databases as of one moment.
 *
 * A connection that has several databases and begins a transaction in one of them announces a snapshot in each of the
 * others at the same moment, and holds it until the transaction has ended in all: if it comes to them, that is what it
 * reads. What a protected or alone transaction reads cannot change, so it needs none.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CUT_H
#define THR_CUT_H

#include "txn.h"

enum thr_cut {
    THR_CUT_NONE, /* its snapshot is the newest, whatever the others read */
    THR_CUT_LEAD, /* the first of them */
    THR_CUT_JOIN  /* its snapshot was announced by the first */
};

/* Which of these, for a transaction that begins in `conn`? It may hold the turn already. */
enum thr_cut thr_cut_choose(struct thr_conn *conn);
/* conn->snapshot, and the others'. */
uint64_t thr_cut_take(struct thr_conn *conn, enum thr_cut cut, uint64_t *extent_out);
/* The transaction has ended in this database. */
void thr_cut_end(struct thr_conn *conn);
/* It is about to leave the others (thr_group_leave()), perhaps in the middle of their transaction: what was announced for
 * it by one of them none of them would let go of. */
void thr_cut_leave(struct thr_conn *conn);

#endif
