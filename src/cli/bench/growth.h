/* What an engine writes to its log, and keeps beside the database, during a measurement.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_GROWTH_H
#define THR_BENCH_GROWTH_H

#include "database.h"

/* A connection that looks on: it keeps the database open, and Throng's counters with it. */
struct thr_growth {
    const struct thr_target *target;
    sqlite3 *db;
};

/* Before the clients begin. `keep_snapshot`: begin a read transaction, and keep it. All return NULL, or what is wrong in a
 * static buffer. */
const char *thr_growth_begin(const struct thr_settings *settings, const struct thr_target *target, bool keep_snapshot,
                             struct thr_growth *out);
/* After they have ended. `pages_written`: as they counted them. *log_bytes_out: NAN for an engine without a log.
 * *kept_bytes_out: page versions of Throng, the WAL of stock SQLite. */
const char *thr_growth_end(struct thr_growth *growth, uint64_t pages_written, double *log_bytes_out,
                           double *kept_bytes_out);

#endif
