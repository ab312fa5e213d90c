/* A driver for a database that is not there. It checks how the pool treats drivers, fails when it is told to, and blocks
 * where it is told to.
 *
 * Its language, a word a statement:
 *   "rows N"        returns N rows: 1, 2, ... N
 *   "insert N"      returns N rows, and counts at its end, as "write"
 *   "write"         counts in the transaction, or at once
 *   "wait"          blocks in `next` until it is interrupted, its deadline passes, or fake_let_go()
 *   "begin", "end"  a transaction by the user
 *   "lose"          the database ends the transaction by itself: THRONG_CONFLICT
 *   "conflict"      THRONG_CONFLICT, and the transaction stays
 *   "bad"           cannot be prepared
 *   ""              no statement
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_FAKE_H
#define TEST_FAKE_H

#include "driver.h"

extern const struct thr_driver fake_driver;

/* Nothing fails, nothing blocks, all counts are zero. */
void fake_reset(void);
/* The n-th call from now on (1 is the next one) fails with that code. 0: none. Calls that cannot fail do not count. */
void fake_fail_at(int n, int code);
bool fake_has_failed(void);
/* The word "wait" does not block any more. */
void fake_let_go(void);
/* What `undo` says from now on: THRONG_OK, or THRONG_DONE as the statement came to its end, or an error. */
void fake_undo_says(int code);
int fake_waiting(void); /* how many are in a "wait" */

int fake_conns(void);      /* open now */
int fake_conns_most(void); /* at a time */
int fake_statements(void); /* prepared now */
int fake_prepared(void);   /* in all */
int fake_writes(void);     /* that counted */
int fake_interrupts(void);

#endif
