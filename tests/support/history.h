/* A checker for histories: is there an order of all committed transactions that explains what each of them read, and
 * that agrees with the clock? (Strict serializability.)
 *
 * A row is a list of tokens. A transaction appends tokens that nobody else uses, and reads whole lists. So every read
 * tells the whole history of its row, and the last lists give the order of all writes. From it follow the edges
 * between transactions: to the one that appended next (ww), to the ones that read that state (wr), from those that read
 * a state to the one that appended next (rw), and from one that had ended to one that began later (real time). The
 * history is good if and only if there is no cycle. A row that is not there is an empty list, so ranges can be read,
 * too.
 *
 *     history = history_new(rows, threads, transactions of a thread);
 *     each thread:  txn = history_begin(history, thread);
 *                   history_append(txn, row, token = history_token(txn)); history_read(txn, row, list, count); ...
 *                   history_commit(txn) or history_forget(txn)
 *     at the end:   history_final(history, row, list, count) for each row;  error = history_check(history)
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_HISTORY_H
#define TEST_HISTORY_H

#include <stdint.h>

struct history;
struct history_txn;

struct history *history_new(int rows, int threads, int txns_of_a_thread);
void history_free(struct history *history);

/* A transaction of `thread` begins, at this moment. Only that thread uses it, until history_check(). */
struct history_txn *history_begin(struct history *history, int thread);
void history_commit(struct history_txn *txn); /* it has ended, at this moment */
void history_forget(struct history_txn *txn); /* it was rolled back; nobody may have seen its tokens */

uint32_t history_token(const struct history_txn *txn); /* the transaction's next one, never 0 */
void history_append(struct history_txn *txn, int row);
void history_read(struct history_txn *txn, int row, const uint32_t *list, int count);
void history_final(struct history *history, int row, const uint32_t *list, int count);

/* NULL if the history is good, else what is wrong with it: a text that lives until the next call. */
const char *history_check(struct history *history);
int history_committed(const struct history *history);

/* For histories made by hand, where moments are numbers: */
void history_set_times(struct history_txn *txn, int64_t began, int64_t ended);

#endif
