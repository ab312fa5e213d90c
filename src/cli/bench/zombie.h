/* `throng bench zombie`: short reads beside many schema changes.
 *
 * The seed of this benchmark is a report of reads that became a hundred times slower when another connection created
 * tables: each change makes every connection read the schema anew, which is allocations by the thousand, and every
 * allocation went through one mutex. SQLite's settings for that are of the process, so every measurement is a process.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_ZOMBIE_H
#define THR_BENCH_ZOMBIE_H

#include <stdatomic.h>

#include "contention.h"
#include "settings.h"

struct thr_zombie_settings {
    struct thr_settings common;
    struct thr_counts readers;
    uint32_t queries; /* of each reader */
    uint32_t tables;  /* that they read */
    uint32_t creates; /* tables more that are created beside them */
    uint32_t inserts; /* rows */
};

enum thr_zombie_figure {
    THR_ZOMBIE_MEAN_US, /* of a query: BEGIN, prepare, one row, COMMIT */
    THR_ZOMBIE_P50_US,
    THR_ZOMBIE_P99_US,
    THR_ZOMBIE_MAX_US,
    THR_ZOMBIE_CREATES_PER_SECOND,
    THR_ZOMBIE_INSERTS_PER_SECOND,
    THR_ZOMBIE_CPU_US, /* of the process for each query, until the last reader is done */
    THR_ZOMBIE_FIGURE_COUNT
};

/* What came out of one measurement. Lies in memory that the process that measures shares with the one that waits. */
struct thr_zombie_run {
    _Atomic uint32_t permille;     /* that is done */
    char message[THR_ERROR_BYTES]; /* why there is no result, or "" */
    double figure[THR_ZOMBIE_FIGURE_COUNT];
    double tables_s, connections_s, creates_s, inserts_s;
    double reader_s[THR_BENCH_MAX_CLIENTS];
    uint64_t retries; /* after SQLITE_BUSY, SQLITE_SCHEMA */
    uint64_t errors;
    char first_error[THR_ERROR_BYTES];
    char verdict[THR_ERROR_BYTES]; /* of the check: "ok", or what is wrong */
    struct thr_contention contention;
};

/* All rounds of one engine with so many readers. */
struct thr_zombie_cell {
    const struct thr_engine *engine;
    uint32_t readers;
    double summary[THR_ZOMBIE_FIGURE_COUNT];
    uint64_t retries, errors;
    char first_error[THR_ERROR_BYTES];
    char verdict[THR_ERROR_BYTES]; /* of the first one that is not well */
    struct thr_contention contention;
    struct thr_zombie_run *rounds;
};

/*   cells      [readers][engine] */
struct thr_zombie_report {
    const struct thr_zombie_settings *settings;
    const char *directory;
    const struct thr_zombie_cell *cells;
};

int thr_bench_zombie(int argc, char **argv); /* an exit code */

/* --- zombie_settings.c --- */

/* An exit code of enum thr_exit, or -1: go on. */
int thr_zombie_settings_parse(int argc, char **argv, struct thr_zombie_settings *out);

static inline uint32_t thr_zombie_cells(const struct thr_zombie_settings *settings)
{
    return settings->readers.count * settings->common.engines.count;
}

/* --- zombie_run.c --- */

/* Measure, in a process that has not used SQLite yet. The database is made in `directory`, and removed again unless it
 * is to be kept. */
void thr_zombie_measure(struct thr_zombie_settings *settings, const struct thr_engine *engine, uint32_t readers,
                        uint64_t seed, const char *directory, struct thr_zombie_run *run);

/* --- zombie_report.c --- */

void thr_zombie_lines(const struct thr_zombie_settings *settings, const struct thr_zombie_cell *cell,
                      const struct thr_zombie_run *run); /* of one measurement */
void thr_zombie_text(const struct thr_zombie_report *report);
void thr_zombie_json(const struct thr_zombie_report *report);
bool thr_zombie_is_well(const struct thr_zombie_report *report); /* no error, every database whole */

#endif
