/* The report for people.
 *
 * SPDX-License-Identifier: MIT */
#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "../table.h"
#include "throng.h"

static double figure_of(const struct thr_report *report, uint32_t set, uint32_t engine, enum thr_figure figure)
{
    return report->summary[set * report->settings->common.engines.count + engine].figure[figure];
}

double thr_report_ratio(const struct thr_report *report, uint32_t set, uint32_t engine, enum thr_figure figure)
{
    int wal = thr_engine_index(&report->settings->common, "wal");

    if (wal < 0)
        return (double)NAN;
    return figure_of(report, set, engine, figure) / figure_of(report, set, (uint32_t)wal, figure);
}

bool thr_report_is_well(const struct thr_report *report)
{
    for (uint32_t i = 0; i < report->settings->common.engines.count; i++) {
        if (report->targets[i].errors > 0 || strcmp(report->targets[i].verdict, "ok") != 0)
            return false;
    }
    return true;
}

/* --- the table --- */

static void print_table(const struct thr_report *report)
{
    static const char *const headings[] = {"engine",   "writers",   "readers",   "rw tx/s", "x WAL",
                                           "conflict", "ro tx/s",   "x WAL",     "p50 ms",  "p99 ms",
                                           "max ms",   "CPU us/tx", "log KB/tx", "kept MiB"};
    const struct thr_server_settings *settings = report->settings;
    struct thr_table *table = thr_table_open(headings, sizeof headings / sizeof headings[0], 1);

    if (table == NULL)
        return;
    for (uint32_t set = 0; set < settings->sets.count; set++) {
        if (set == 0 || settings->common.engines.count > 1)
            thr_table_gap(table);
        for (uint32_t i = 0; i < settings->common.engines.count; i++) {
            const double *figure = report->summary[set * settings->common.engines.count + i].figure;
            const struct thr_clients *clients = &settings->sets.set[set];
            enum thr_figure latency = clients->writers > 0 ? THR_RW_P50_MS : THR_RO_P50_MS;

            thr_table_cell(table, "%s", settings->common.engines.engine[i]->name);
            thr_table_cell(table, "%" PRIu32, clients->writers);
            thr_table_cell(table, "%" PRIu32, clients->readers);
            thr_table_count(table, figure[THR_RW_PER_SECOND]);
            thr_table_real(table, thr_report_ratio(report, set, i, THR_RW_PER_SECOND), 2);
            thr_table_cell(table, "%.1f %%", figure[THR_CONFLICT_PERCENT]);
            thr_table_count(table, figure[THR_RO_PER_SECOND]);
            thr_table_real(table, thr_report_ratio(report, set, i, THR_RO_PER_SECOND), 2);
            thr_table_real(table, figure[latency], 3);
            thr_table_real(table, figure[latency + 1], 3);
            thr_table_real(table, figure[latency + 2], 1);
            thr_table_real(table, figure[THR_CPU_US], 1);
            thr_table_real(table, figure[THR_LOG_KB], 1);
            thr_table_real(table, figure[THR_KEPT_MIB], 0);
        }
    }
    thr_table_print(table, stdout);
    thr_table_close(table);
}

/* --- around it --- */

static void print_heading(const struct thr_report *report)
{
    const struct thr_server_settings *settings = report->settings;

    printf("workload %s", settings->workload_name);
    if (thr_server_need_rows(settings))
        printf(", %" PRIu64 " rows", settings->rows);
    printf("; synchronous=%s, mmap_size=%" PRId64 ", memstatus %s, allocator %s; in %s\n", settings->common.synchronous,
           settings->common.mmap_bytes, settings->common.memstatus, settings->common.allocator, report->directory);
    printf("SQLite %s, Throng %s; ", sqlite3_libversion(), throng_version());
    if (report->rounds == 1)
        printf("one round");
    else
        printf("medians of %" PRIu32 " rounds, engines in turn (max: of all rounds)", report->rounds);
    if (settings->workload == THR_WORKLOAD_INCREMENT)
        printf(", %" PRIu32 " increments by each writer\n\n", settings->increments);
    else
        printf(", %g s each\n\n", settings->seconds);
}

static void print_checks(const struct thr_report *report)
{
    printf("\nstock integrity_check and row count:");
    for (uint32_t i = 0; i < report->settings->common.engines.count; i++)
        printf("%s %s %s", i > 0 ? "," : "", report->targets[i].engine->name, report->targets[i].verdict);
    (void)putchar('\n');
    for (uint32_t i = 0; i < report->settings->common.engines.count; i++) {
        const struct thr_target *target = &report->targets[i];

        if (target->errors > 0)
            printf("%s: %" PRIu64 " errors, the first: %s\n", target->engine->name, target->errors,
                   target->first_error);
    }
}

/* "a", "a and b", "a, b and c". */
static const char *separator(uint32_t i, uint32_t count)
{
    return i + 1 == count ? "" : i + 2 == count ? " and " : ", ";
}

/* What was seen, in one sentence. */
static void print_sentence(const struct thr_report *report)
{
    const struct thr_server_settings *settings = report->settings;
    int throng = thr_engine_index(&settings->common, "throng");
    uint32_t count = settings->sets.count;
    char label[THR_LABEL_BYTES];

    if (throng < 0 || thr_engine_index(&settings->common, "wal") < 0)
        return;
    printf("\nWith ");
    for (uint32_t set = 0; set < count; set++)
        printf("%s%s", thr_clients_label(&settings->sets.set[set], label), separator(set, count));
    printf(" Throng ran ");
    for (uint32_t set = 0; set < count; set++) {
        enum thr_figure rate = settings->sets.set[set].writers > 0 ? THR_RW_PER_SECOND : THR_RO_PER_SECOND;

        printf("%.1f%s", thr_report_ratio(report, set, (uint32_t)throng, rate), separator(set, count));
    }
    printf(" times the transactions of stock WAL, with a p99 latency of ");
    for (uint32_t set = 0; set < count; set++) {
        enum thr_figure latency = settings->sets.set[set].writers > 0 ? THR_RW_P99_MS : THR_RO_P99_MS;

        printf("%.2f%s", thr_report_ratio(report, set, (uint32_t)throng, latency), separator(set, count));
    }
    printf(" times that of WAL; %s.\n",
           thr_report_is_well(report) ? "stock SQLite found every database whole" : "but not all went well");
}

static void print_contention(const struct thr_report *report)
{
    const struct thr_server_settings *settings = report->settings;
    static struct thr_contention_row rows[THR_BENCH_MAX_SETS * THR_ENGINE_COUNT];
    static char labels[THR_BENCH_MAX_SETS][THR_LABEL_BYTES];
    uint32_t cells = (uint32_t)thr_report_cells(settings), engines = settings->common.engines.count;

    for (uint32_t i = 0; i < cells; i++)
        rows[i] = (struct thr_contention_row){settings->common.engines.engine[i % engines]->name,
                                              thr_clients_label(&settings->sets.set[i / engines], labels[i / engines]),
                                              &report->contention[i]};
    thr_contention_text(rows, cells);
}

void thr_report_text(const struct thr_report *report)
{
    print_heading(report);
    print_table(report);
    if (report->contention != NULL)
        print_contention(report);
    print_checks(report);
    print_sentence(report);
}
