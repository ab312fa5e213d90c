/* The reports of `throng bench zombie`.
 *
 * SPDX-License-Identifier: MIT */
#include "zombie.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../table.h"
#include "throng.h"

static const char *const figure_names[THR_ZOMBIE_FIGURE_COUNT] = {
    [THR_ZOMBIE_MEAN_US] = "mean_us",
    [THR_ZOMBIE_P50_US] = "p50_us",
    [THR_ZOMBIE_P99_US] = "p99_us",
    [THR_ZOMBIE_MAX_US] = "max_us",
    [THR_ZOMBIE_CREATES_PER_SECOND] = "creates_per_second",
    [THR_ZOMBIE_INSERTS_PER_SECOND] = "inserts_per_second",
    [THR_ZOMBIE_CPU_US] = "cpu_us_per_query",
};

static const char *plural(uint32_t count)
{
    return count == 1 ? "" : "s";
}

bool thr_zombie_is_well(const struct thr_zombie_report *report)
{
    for (uint32_t i = 0; i < thr_zombie_cells(report->settings); i++) {
        if (report->cells[i].errors > 0 || strcmp(report->cells[i].verdict, "ok") != 0)
            return false;
    }
    return true;
}

/* The figure of another engine with as many readers, divided by that of this cell; NAN if there is none. */
static double ratio(const struct thr_zombie_report *report, uint32_t cell, const char *other,
                    enum thr_zombie_figure figure)
{
    int index = thr_engine_index(&report->settings->common, other);
    uint32_t engines = report->settings->common.engines.count;

    if (index < 0)
        return (double)NAN;
    return report->cells[cell / engines * engines + (uint32_t)index].summary[figure] /
           report->cells[cell].summary[figure];
}

/* --- for people --- */

void thr_zombie_lines(const struct thr_zombie_settings *settings, const struct thr_zombie_cell *cell,
                      const struct thr_zombie_run *run)
{
    double queries = settings->queries;

    printf("%s, %" PRIu32 " reader%s:\n", cell->engine->name, cell->readers, plural(cell->readers));
    printf("  created %" PRIu32 " tables in %.3f s\n", settings->tables, run->tables_s);
    printf("  prepared %" PRIu32 " connections in %.3f s\n", cell->readers + 2, run->connections_s);
    printf("  created %" PRIu32 " more tables in %.3f s\n", settings->creates, run->creates_s);
    printf("  inserted %" PRIu32 " rows in %.3f s\n", settings->inserts, run->inserts_s);
    for (uint32_t i = 0; i < cell->readers; i++)
        printf("  connection %" PRIu32 ": %" PRIu32 " queries in %.3f s, %.1f us a query\n", i + 1, settings->queries,
               run->reader_s[i], run->reader_s[i] * 1e6 / queries);
    printf("  average: %.1f us a query\n\n", run->figure[THR_ZOMBIE_MEAN_US]);
    (void)fflush(stdout);
}

static void print_heading(const struct thr_zombie_report *report)
{
    const struct thr_zombie_settings *settings = report->settings;

    printf("%" PRIu32 " queries by each reader on %" PRIu32 " tables, %" PRIu32 " more created, %" PRIu32
           " rows inserted\n",
           settings->queries, settings->tables, settings->creates, settings->inserts);
    printf("synchronous=%s, mmap_size=%" PRId64 ", memstatus %s, allocator %s", settings->common.synchronous,
           settings->common.mmap_bytes, settings->common.memstatus, settings->common.allocator);
    if (thr_engine_index(&settings->common, "stock") >= 0)
        printf(" (stock: on, system)");
    printf("; in %s\nSQLite %s, Throng %s; ", report->directory, sqlite3_libversion(), throng_version());
    if (settings->common.rounds == 1)
        printf("one round\n\n");
    else
        printf("medians of %" PRIu32 " rounds, engines in turn (max: of all rounds)\n\n", settings->common.rounds);
}

static void print_table(const struct thr_zombie_report *report)
{
    static const char *const headings[] = {"engine", "readers", "mean us",   "x WAL",     "x stock", "p50 us",
                                           "p99 us", "max us",  "creates/s", "inserts/s", "CPU us",  "errors"};
    const struct thr_zombie_settings *settings = report->settings;
    struct thr_table *table = thr_table_open(headings, sizeof headings / sizeof headings[0], 1);

    if (table == NULL)
        return;
    for (uint32_t i = 0; i < thr_zombie_cells(settings); i++) {
        const struct thr_zombie_cell *cell = &report->cells[i];

        if (i % settings->common.engines.count == 0)
            thr_table_gap(table);
        thr_table_cell(table, "%s", cell->engine->name);
        thr_table_cell(table, "%" PRIu32, cell->readers);
        thr_table_real(table, cell->summary[THR_ZOMBIE_MEAN_US], 1);
        thr_table_real(table, ratio(report, i, "wal", THR_ZOMBIE_MEAN_US), 2);
        thr_table_real(table, ratio(report, i, "stock", THR_ZOMBIE_MEAN_US), 2);
        thr_table_real(table, cell->summary[THR_ZOMBIE_P50_US], 1);
        thr_table_real(table, cell->summary[THR_ZOMBIE_P99_US], 1);
        thr_table_count(table, cell->summary[THR_ZOMBIE_MAX_US]);
        thr_table_real(table, cell->summary[THR_ZOMBIE_CREATES_PER_SECOND], 1);
        thr_table_count(table, cell->summary[THR_ZOMBIE_INSERTS_PER_SECOND]);
        thr_table_real(table, cell->summary[THR_ZOMBIE_CPU_US], 1);
        thr_table_cell(table, "%" PRIu64, cell->errors);
    }
    thr_table_print(table, stdout);
    thr_table_close(table);
}

static void print_contention(const struct thr_zombie_report *report)
{
    static struct thr_contention_row rows[THR_BENCH_MAX_SETS * THR_ENGINE_COUNT];
    static char labels[THR_BENCH_MAX_SETS * THR_ENGINE_COUNT][24];
    uint32_t cells = thr_zombie_cells(report->settings);

    for (uint32_t i = 0; i < cells; i++) {
        const struct thr_zombie_cell *cell = &report->cells[i];

        (void)snprintf(labels[i], sizeof labels[i], "%" PRIu32 " reader%s", cell->readers, plural(cell->readers));
        rows[i] = (struct thr_contention_row){cell->engine->name, labels[i], &cell->contention};
    }
    thr_contention_text(rows, cells);
}

static void print_checks(const struct thr_zombie_report *report)
{
    uint32_t cells = thr_zombie_cells(report->settings);

    printf("\nstock integrity_check, tables and rows:");
    for (uint32_t i = 0; i < cells; i++)
        printf("%s %s with %" PRIu32 " %s", i > 0 ? "," : "", report->cells[i].engine->name, report->cells[i].readers,
               report->cells[i].verdict);
    (void)putchar('\n');
    for (uint32_t i = 0; i < cells; i++) {
        const struct thr_zombie_cell *cell = &report->cells[i];

        if (cell->errors > 0)
            printf("%s, %" PRIu32 " reader%s: %" PRIu64 " errors, the first: %s\n", cell->engine->name, cell->readers,
                   plural(cell->readers), cell->errors, cell->first_error);
        if (cell->retries > 0)
            printf("%s, %" PRIu32 " reader%s: %" PRIu64 " times run again after SQLITE_BUSY or SQLITE_SCHEMA\n",
                   cell->engine->name, cell->readers, plural(cell->readers), cell->retries);
    }
}

void thr_zombie_text(const struct thr_zombie_report *report)
{
    print_heading(report);
    print_table(report);
    if (report->settings->common.contention)
        print_contention(report);
    print_checks(report);
}

/* --- for programs --- */

static void write_round(struct thr_json *json, const struct thr_zombie_run *run, uint32_t readers)
{
    thr_json_open(json, NULL, '{');
    for (int figure = 0; figure < THR_ZOMBIE_FIGURE_COUNT; figure++)
        thr_json_real(json, figure_names[figure], run->figure[figure]);
    thr_json_real(json, "tables_seconds", run->tables_s);
    thr_json_real(json, "connections_seconds", run->connections_s);
    thr_json_real(json, "creates_seconds", run->creates_s);
    thr_json_real(json, "inserts_seconds", run->inserts_s);
    thr_json_open(json, "reader_seconds", '[');
    for (uint32_t i = 0; i < readers; i++)
        thr_json_real(json, NULL, run->reader_s[i]);
    thr_json_close(json, ']');
    thr_json_close(json, '}');
}

static void write_cell(struct thr_json *json, const struct thr_zombie_report *report, uint32_t index)
{
    const struct thr_zombie_cell *cell = &report->cells[index];
    const struct thr_settings *settings = &report->settings->common;

    thr_json_open(json, NULL, '{');
    thr_json_text(json, "engine", cell->engine->name);
    thr_json_integer(json, "readers", cell->readers);
    thr_json_text(json, "memstatus", cell->engine->as_shipped ? "on" : settings->memstatus);
    thr_json_text(json, "allocator", cell->engine->as_shipped ? "system" : settings->allocator);
    for (int figure = 0; figure < THR_ZOMBIE_FIGURE_COUNT; figure++)
        thr_json_real(json, figure_names[figure], cell->summary[figure]);
    thr_json_real(json, "time_of_wal_ratio", ratio(report, index, "wal", THR_ZOMBIE_MEAN_US));
    thr_json_real(json, "time_of_stock_ratio", ratio(report, index, "stock", THR_ZOMBIE_MEAN_US));
    thr_json_integer(json, "run_again", (int64_t)cell->retries);
    thr_json_integer(json, "errors", (int64_t)cell->errors);
    thr_json_text(json, "first_error", cell->first_error);
    thr_json_text(json, "integrity_check", cell->verdict);
    thr_json_open(json, "rounds", '[');
    for (uint32_t i = 0; i < settings->rounds; i++)
        write_round(json, &cell->rounds[i], cell->readers);
    thr_json_close(json, ']');
    if (settings->contention)
        thr_contention_json(json, &cell->contention);
    thr_json_close(json, '}');
}

void thr_zombie_json(const struct thr_zombie_report *report)
{
    const struct thr_zombie_settings *settings = report->settings;
    struct thr_json json = {.to = stdout};

    thr_json_open(&json, NULL, '{');
    thr_settings_json_versions(&json);
    thr_json_open(&json, "settings", '{');
    thr_json_integer(&json, "queries", settings->queries);
    thr_json_integer(&json, "tables", settings->tables);
    thr_json_integer(&json, "creates", settings->creates);
    thr_json_integer(&json, "inserts", settings->inserts);
    thr_settings_json(&json, &settings->common, report->directory);
    thr_json_close(&json, '}');
    thr_json_open(&json, "results", '[');
    for (uint32_t i = 0; i < thr_zombie_cells(settings); i++)
        write_cell(&json, report, i);
    thr_json_close(&json, ']');
    thr_json_boolean(&json, "ok", thr_zombie_is_well(report));
    thr_json_close(&json, '}');
}
