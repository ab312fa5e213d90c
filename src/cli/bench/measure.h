/* One measurement: some clients on one engine for a while.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_MEASURE_H
#define THR_BENCH_MEASURE_H

#include <stddef.h>

#include "database.h"
#include "server_settings.h"

/* Everything that is measured is a real number, so that medians are taken of all alike. NAN: there is none. */
enum thr_figure {
    THR_RW_PER_SECOND,
    THR_RO_PER_SECOND,
    THR_CONFLICT_PERCENT,
    THR_RW_P50_MS,
    THR_RW_P99_MS,
    THR_RW_MAX_MS,
    THR_RO_P50_MS,
    THR_RO_P99_MS,
    THR_RO_MAX_MS,
    THR_CPU_US, /* for each transaction */
    THR_SECONDS,
    THR_LOG_KB,   /* written to the log, for each write transaction */
    THR_KEPT_MIB, /* beside the database, at the end */
    THR_FIGURE_COUNT
};

struct thr_result {
    double figure[THR_FIGURE_COUNT];
};

/* Called now and then while it runs, with the part of the time that is over, 0..1. */
typedef void (*thr_measure_tick)(void *ctx, double done);

/* Errors and commits are added to `target`. Returns NULL, or why there is no result. */
const char *thr_measure(const struct thr_server_settings *settings, struct thr_target *target, struct thr_clients set,
                        uint64_t seed, thr_measure_tick tick, void *ctx, struct thr_result *out);

/* Of `rounds` results, `stride` apart: the median of each figure; of the maxima, the largest. */
void thr_results_summarize(const struct thr_result *results, uint32_t rounds, size_t stride, struct thr_result *out);

#endif
