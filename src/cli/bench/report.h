/* What came out, for people and for programs.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_REPORT_H
#define THR_BENCH_REPORT_H

#include <stddef.h>

#include "contention.h"
#include "database.h"
#include "measure.h"
#include "server_settings.h"

/*   results    [round][set][engine], rounds that were finished
 *   summary    [set][engine]
 *   contention [set][engine], NULL if it was not counted */
struct thr_report {
    const struct thr_server_settings *settings;
    const struct thr_target *targets;
    const char *directory;
    uint32_t rounds;
    const struct thr_result *results;
    struct thr_result *summary;
    const struct thr_contention *contention;
};

void thr_report_text(const struct thr_report *report);
void thr_report_json(const struct thr_report *report);

static inline size_t thr_report_cells(const struct thr_server_settings *settings)
{
    return (size_t)settings->sets.count * settings->common.engines.count;
}

/* A figure of an engine divided by that of stock WAL with the same clients; NAN if there is none. */
double thr_report_ratio(const struct thr_report *report, uint32_t set, uint32_t engine, enum thr_figure figure);
bool thr_report_is_well(const struct thr_report *report); /* no error, every database whole */

#endif
