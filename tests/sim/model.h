/* What the databases must hold: a model of the rows, and of who has read and written what.
 *
 * Each database has registers, table r(k, v, pad), and rows of one thread each, table c(id, v, pad), and perhaps a table for
 * each thread. Every attempt at a transaction has a token of its own; it is what it writes into v, so a value tells who has
 * written it. Whoever writes a register reads it first: so the writers of a register form a chain, and with what was read
 * follows from it which transaction comes before which:
 *
 *   a writer -> who has read its value -> who has written the next one;  one that had ended -> one that began later
 *
 * There is an order that explains all if and only if these have no cycle (strict serializability). Each thread has a register
 * of its own as well, which each of its transactions writes: so whoever reads that knows which rows of the thread's it must
 * find in the same snapshot, byte by byte.
 *
 * It lies in memory that outlives a simulated process.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DBS = 2,
    THREADS = 4,
    SHARED_KEYS = 6,
    KEYS = SHARED_KEYS + THREADS, /* the others are the threads' own */
    ROWS = 6,                     /* of a thread in a database */
    ITEMS = ROWS + 1,             /* the last one is its table */
    TXNS = 600,
    NOT_READ = -1
};

enum outcome { OUTCOME_NONE, OUTCOME_COMMITTED, OUTCOME_ABORTED, OUTCOME_MAYBE, OUTCOME_LOST };

/* An attempt at a transaction; its place in `model.txns` is its token. 0 is the transaction that has set up everything. */
struct txn {
    enum outcome outcome;
    int thread, life;
    const char *what;
    uint64_t began, ended;
    int16_t read[DBS][KEYS];
    uint16_t wrote[DBS];        /* keys, by bits */
    uint8_t level[DBS];         /* PRAGMA synchronous */
    uint16_t items[DBS][ITEMS]; /* of the thread, after it: tokens of who has written them, 0 if there is none */
};

struct model {
    struct txn txns[TXNS];
    int count, dbs, life;
    uint64_t moment;
    int16_t own[THREADS][DBS]; /* the thread's newest one that wrote there */
    bool promised[DBS];        /* a commit above OFF has ended in this life: a power cut damages nothing */
};

extern struct model *model;

void model_begin(int dbs);
struct txn *model_txn(int thread, const char *what);
int model_token(const struct txn *txn);
void model_end(struct txn *txn, enum outcome outcome);
/* What a whole snapshot says of a database is what the thread's transactions have left. `items` is what was found. */
void model_check_items(int db, int thread, int own_token, uint16_t items[ITEMS], const struct txn *reader);
/* A life is over; `values` is what was found afterwards. `cut`: by a power cut, in that database. */
void model_recovered(const int16_t values[DBS][KEYS], const bool cut[DBS], bool died);
/* Is there an order that explains it all? */
void model_check(void);
void model_print(void);

/* The content of a row: `bytes` that tell whose it is. */
size_t content_bytes(int db, int place, int token);
void content_fill(unsigned char *to, size_t bytes, int db, int place, int token);
bool content_is(const void *at, size_t bytes, int db, int place, int token);
extern size_t content_usual, content_most; /* of this schedule */

#endif
