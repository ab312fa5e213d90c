/* The work of a simulated process: its connections, each a fiber, and what they do, all from one seed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_WORK_H
#define SIM_WORK_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "model.h"
#include "schedule.h"

/* What a schedule is about; all of it from the seed. */
struct plan {
    uint64_t seed;
    int dbs, threads, ops, lives;
    int page_size, auto_vacuum;
    int content_kind; /* of rows: many on a page, one on each, several pages for one */
    int checkpoint_bytes, cache_pages, level;
    bool levels_change, thread_checkpoints, heap_limited, mapped, begins_off;
    uint32_t kinds; /* of work, by bits (work.c) */
    int death_in;   /* the first so many lives may end by death; 0: none */
    bool power;     /* and that by a power cut */
    int fault_kind; /* 0: nothing fails; see fault.h of the simulator */
    uint32_t fault_after, fault_every;
};

extern struct plan plan;
extern char db_path[DBS][64];

void plan_make(uint64_t seed);
void plan_print(void);

/* Functions of SQL that check, and fill, rows. */
int work_functions(sqlite3 *db);
int work_open(int first, sqlite3 **out);
/* One connection's life. `arg` is a struct worker. */
struct worker {
    int thread;
    struct chance chance;
    sqlite3 *db;
    struct txn *txn; /* under way */
    bool beside;     /* another statement of the connection is being read */
    bool stopped;    /* an error that was injected has ended its work, or what became of a commit is not known */
    sqlite3_stmt *stmts[DBS][16];
};
void worker_run(void *arg);
void worker_begin(struct worker *worker); /* it is the running fiber's */
/* Write, where nobody else does. */
void worker_last(struct worker *worker);
/* A transaction that reads everything, and checks each row. Returns the code of what failed. */
int work_look(struct worker *worker, int16_t values[DBS][KEYS]);
void worker_close(struct worker *worker);

#endif
