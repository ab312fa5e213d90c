/* `throng bench stmt`: load, measure in turn, report.
 *
 * SPDX-License-Identifier: MIT */
#include "stmt.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cli.h"
#include "../interrupt.h"
#include "../progress.h"
#include "../table.h"
#include "directory.h"
#include "figures.h"

#define BYTES_WANTED (UINT64_C(256) << 20)
#define BYTES_PER_ROW 100

static const char *const way_names[THR_STMT_WAYS] = {"pool", "raw", "go", "libzdb"};
static const char *const figure_names[THR_STMT_FIGURE_COUNT] = {
    [THR_STMT_PER_SECOND] = "per_second",
    [THR_STMT_CPU_NS] = "cpu_ns_per_operation",
    [THR_STMT_SECONDS] = "seconds",
    [THR_STMT_CONTENDED] = "contended",
};

struct stmt_bench {
    struct thr_stmt_settings settings;
    struct thr_target target;
    struct thr_target peers; /* their database: the same, in WAL mode */
    struct thr_progress progress;
    char directory[768];
    struct thr_stmt_result *results; /* [round][threads][way] */
    struct thr_stmt_result *summary; /* [threads][way] */
    struct thr_contention *locks;    /* [threads][way]; NULL: not counted */
};

static uint32_t cells_of(const struct thr_stmt_settings *settings)
{
    return settings->threads.count * THR_STMT_WAYS;
}

/* --- measuring --- */

static int fill(sqlite3 *db, void *ctx)
{
    const struct thr_stmt_settings *settings = ctx;
    char sql[160];

    (void)snprintf(sql, sizeof sql,
                   "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%" PRIu64
                   ") SELECT i, 'value of row ' || i FROM n",
                   settings->rows);
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static const char *measure_all(struct stmt_bench *bench)
{
    const struct thr_stmt_settings *settings = &bench->settings;
    uint32_t cells = cells_of(settings), total = cells * settings->common.rounds;
    const char *message = NULL;

    thr_progress_stage(&bench->progress);
    for (uint32_t i = 0; i < total && message == NULL; i++) {
        uint32_t threads = settings->threads.value[i % cells / THR_STMT_WAYS], way = i % THR_STMT_WAYS;

        if (!settings->way[way])
            continue;
        thr_progress_show(&bench->progress, (double)i / total, "%s: %" PRIu32 " thread%s", way_names[way], threads,
                          threads == 1 ? "" : "s");
        if (way >= THR_STMT_GO)
            message = thr_stmt_peer_measure(settings, bench->peers.path, bench->directory, (enum thr_stmt_way)way,
                                            threads, &bench->results[i]);
        else
            message = thr_stmt_measure(settings, &bench->target, (enum thr_stmt_way)way, threads,
                                       settings->common.seed + 1 + i / THR_STMT_WAYS,
                                       bench->locks != NULL ? &bench->locks[i % cells] : NULL, &bench->results[i]);
        if (message == NULL && thr_interrupted())
            message = "interrupted";
    }
    return message;
}

/* --- reports --- */

static void summarize(struct stmt_bench *bench)
{
    uint32_t cells = cells_of(&bench->settings);

    for (uint32_t i = 0; i < cells; i++)
        for (int figure = 0; figure < THR_STMT_FIGURE_COUNT; figure++)
            bench->summary[i].figure[figure] = thr_figure_of_rounds(&bench->results[i].figure[figure],
                                                                    bench->settings.common.rounds,
                                                                    (size_t)cells * THR_STMT_FIGURE_COUNT, false);
}

static double pool_cost(const struct stmt_bench *bench, uint32_t set)
{
    const struct thr_stmt_result *both = &bench->summary[set * THR_STMT_WAYS];

    return both[THR_STMT_POOL].figure[THR_STMT_CPU_NS] - both[THR_STMT_RAW].figure[THR_STMT_CPU_NS];
}

static void print_locks(const struct stmt_bench *bench)
{
    static struct thr_contention_row rows[THR_BENCH_MAX_SETS * THR_STMT_WAYS];
    static char labels[THR_BENCH_MAX_SETS][24];
    const struct thr_stmt_settings *settings = &bench->settings;
    uint32_t count = 0;

    for (uint32_t i = 0; i < cells_of(settings); i++) {
        uint32_t set = i / THR_STMT_WAYS, way = i % THR_STMT_WAYS;

        if (!settings->way[way] || way >= THR_STMT_GO) /* peers are other processes */
            continue;
        (void)snprintf(labels[set], sizeof labels[set], "%" PRIu32 " thread%s", settings->threads.value[set],
                       settings->threads.value[set] == 1 ? "" : "s");
        rows[count++] = (struct thr_contention_row){way_names[way], labels[set], &bench->locks[i]};
    }
    thr_contention_text(rows, count);
}

static void print_text(const struct stmt_bench *bench)
{
    static const char *const headings[] = {"way", "threads",   "ops/s",   "pool is x",
                                           "x 1", "CPU ns/op", "pool ns", "contended"};
    const struct thr_stmt_settings *settings = &bench->settings;
    struct thr_table *table = thr_table_open(headings, sizeof headings / sizeof headings[0], 1);

    if (table == NULL)
        return;
    printf("SELECT by primary key of %" PRIu64 " rows; vfs %s, mmap_size=%" PRId64
           ", memstatus %s, allocator %s\nmedians of %" PRIu32 " rounds, both ways in turn, %g s each\n\n",
           settings->rows, settings->common.vfs, settings->common.mmap_bytes, settings->common.memstatus,
           settings->common.allocator, settings->common.rounds, settings->seconds);
    for (uint32_t i = 0; i < cells_of(settings); i++) {
        const double *figure = bench->summary[i].figure;
        bool is_pool = i % THR_STMT_WAYS == THR_STMT_POOL;

        if (!settings->way[i % THR_STMT_WAYS])
            continue;
        if (is_pool)
            thr_table_gap(table);
        thr_table_cell(table, "%s", way_names[i % THR_STMT_WAYS]);
        thr_table_cell(table, "%" PRIu32, settings->threads.value[i / THR_STMT_WAYS]);
        thr_table_count(table, figure[THR_STMT_PER_SECOND]);
        thr_table_real(
            table, bench->summary[i - i % THR_STMT_WAYS].figure[THR_STMT_PER_SECOND] / figure[THR_STMT_PER_SECOND], 2);
        thr_table_real(table,
                       figure[THR_STMT_PER_SECOND] / bench->summary[i % THR_STMT_WAYS].figure[THR_STMT_PER_SECOND], 2);
        thr_table_real(table, figure[THR_STMT_CPU_NS], 0);
        thr_table_real(table, is_pool ? pool_cost(bench, i / THR_STMT_WAYS) : (double)NAN, 0);
        thr_table_real(table, figure[THR_STMT_CONTENDED], 0);
    }
    thr_table_print(table, stdout);
    thr_table_close(table);
    if (bench->locks != NULL)
        print_locks(bench);
    if (bench->target.errors > 0)
        printf("\n%" PRIu64 " threads ended with an error, the first: %s\n", bench->target.errors,
               bench->target.first_error);
}

static void print_json(const struct stmt_bench *bench)
{
    const struct thr_stmt_settings *settings = &bench->settings;
    struct thr_json json = {.to = stdout};

    thr_json_open(&json, NULL, '{');
    thr_settings_json_versions(&json);
    thr_json_open(&json, "settings", '{');
    thr_json_integer(&json, "rows", (int64_t)settings->rows);
    thr_json_real(&json, "seconds", settings->seconds);
    thr_settings_json(&json, &settings->common, bench->directory);
    thr_json_close(&json, '}');
    thr_json_open(&json, "results", '[');
    for (uint32_t i = 0; i < cells_of(settings); i++) {
        if (!settings->way[i % THR_STMT_WAYS])
            continue;
        thr_json_open(&json, NULL, '{');
        thr_json_text(&json, "way", way_names[i % THR_STMT_WAYS]);
        thr_json_integer(&json, "threads", settings->threads.value[i / THR_STMT_WAYS]);
        for (int figure = 0; figure < THR_STMT_FIGURE_COUNT; figure++)
            thr_json_real(&json, figure_names[figure], bench->summary[i].figure[figure]);
        if (bench->locks != NULL && i % THR_STMT_WAYS < THR_STMT_GO)
            thr_contention_json(&json, &bench->locks[i]);
        thr_json_close(&json, '}');
    }
    thr_json_close(&json, ']');
    thr_json_integer(&json, "errors", (int64_t)bench->target.errors);
    thr_json_close(&json, '}');
    (void)putchar('\n');
}

/* --- all together --- */

static const char *run(struct stmt_bench *bench)
{
    static const char schema[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)";
    const char *message;

    bench->target.engine = &thr_engines[0];
    (void)snprintf(bench->target.path, sizeof bench->target.path, "%s/stmt.db", bench->directory);
    message = thr_database_load(&bench->settings.common, bench->target.path, schema, fill, &bench->settings);
    bench->peers.engine = &thr_engines[1];
    (void)snprintf(bench->peers.path, sizeof bench->peers.path, "%s/peers.db", bench->directory);
    if (message == NULL && (bench->settings.way[THR_STMT_GO] || bench->settings.way[THR_STMT_LIBZDB]))
        message = thr_database_copy(&bench->settings.common, bench->target.path, &bench->peers);
    for (int way = THR_STMT_GO; message == NULL && way < THR_STMT_WAYS; way++)
        if (bench->settings.way[way])
            bench->settings.way[way] = thr_stmt_peer_make(bench->directory, (enum thr_stmt_way)way);
    if (message == NULL)
        message = measure_all(bench);
    thr_progress_clear(&bench->progress);
    if (message != NULL)
        return message;
    summarize(bench);
    if (bench->settings.common.json)
        print_json(bench);
    else
        print_text(bench);
    return NULL;
}

int thr_bench_stmt(int argc, char **argv)
{
    static struct stmt_bench bench;
    struct thr_stmt_settings *settings = &bench.settings;
    const char *message;
    int code;

    if ((code = thr_stmt_settings_parse(argc, argv, settings)) >= 0)
        return code;
    thr_interrupt_catch();
    thr_progress_open(&bench.progress, settings->common.quiet);
    bench.results = calloc((size_t)cells_of(settings) * settings->common.rounds, sizeof *bench.results);
    bench.summary = calloc(cells_of(settings), sizeof *bench.summary);
    if (settings->common.contention)
        bench.locks = calloc(cells_of(settings), sizeof *bench.locks);
    message = bench.results == NULL || bench.summary == NULL || (settings->common.contention && bench.locks == NULL)
                  ? "out of memory"
                  : thr_settings_apply(&settings->common, false);
    if (message == NULL)
        message = thr_directory_make(settings->common.directory, BYTES_WANTED + settings->rows * BYTES_PER_ROW,
                                     bench.directory, sizeof bench.directory);
    if (message == NULL) {
        message = run(&bench);
        if (settings->common.keep)
            fprintf(stderr, "kept: %s\n", bench.directory);
        else
            thr_directory_remove(bench.directory);
    }
    if (message != NULL)
        fprintf(stderr, "throng bench stmt: %s\n", message);
    free(bench.results);
    free(bench.summary);
    free(bench.locks);
    if (thr_interrupted())
        return THR_EXIT_INTERRUPTED;
    return message == NULL && bench.target.errors == 0 ? THR_EXIT_OK : THR_EXIT_FAILED;
}
