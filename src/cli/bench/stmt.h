/* `throng bench stmt`: one prepared statement under many threads.
 *
 * The seed of this benchmark is a report that a prepared statement of Go's database/sql did not scale past a few
 * processors, because running it took locks that all threads share. Here the same statement is run through the pool, and
 * by threads with a connection of their own, which is the most that can be had.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_STMT_H
#define THR_BENCH_STMT_H

#include "contention.h"
#include "database.h"
#include "settings.h"

enum thr_stmt_way { THR_STMT_POOL, THR_STMT_RAW, THR_STMT_GO, THR_STMT_LIBZDB, THR_STMT_WAYS };

struct thr_stmt_settings {
    struct thr_settings common;
    struct thr_counts threads;
    uint64_t rows;
    uint32_t connections; /* of the pool; 0: one for each thread */
    uint32_t statements;  /* others that a connection keeps */
    double seconds;
    bool way[THR_STMT_WAYS]; /* which of them are measured */
};

enum thr_stmt_figure {
    THR_STMT_PER_SECOND, /* all threads together */
    THR_STMT_CPU_NS,     /* processor time of the process for each operation */
    THR_STMT_SECONDS,
    THR_STMT_CONTENDED, /* acquisitions of the pool's locks that had to wait; NAN without a pool */
    THR_STMT_FIGURE_COUNT
};

struct thr_stmt_result {
    double figure[THR_STMT_FIGURE_COUNT];
};

/* One measurement. Errors are added to `target`; the locks that were taken to *locks, unless it is NULL. Returns NULL, or
 * why there is no result. */
const char *thr_stmt_measure(const struct thr_stmt_settings *settings, struct thr_target *target, enum thr_stmt_way way,
                             uint32_t threads, uint64_t seed, struct thr_contention *locks,
                             struct thr_stmt_result *out);

/* --- stmt_peer.c: others, in processes of their own --- */

/* Compile it. False: that cannot be done, and a word about it was printed. */
bool thr_stmt_peer_make(const char *directory, enum thr_stmt_way way);
const char *thr_stmt_peer_measure(const struct thr_stmt_settings *settings, const char *database, const char *directory,
                                  enum thr_stmt_way way, uint32_t threads, struct thr_stmt_result *out);

/* With so many threads. */
static inline uint32_t thr_stmt_connections(const struct thr_stmt_settings *settings, uint32_t threads)
{
    return settings->connections != 0 && settings->connections < threads ? settings->connections : threads;
}

/* An exit code of enum thr_exit, or -1: go on. */
int thr_stmt_settings_parse(int argc, char **argv, struct thr_stmt_settings *out);
int thr_bench_stmt(int argc, char **argv);

#endif
