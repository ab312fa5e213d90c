/* `throng bench server`: load, measure in turn, check, report.
 *
 * SPDX-License-Identifier: MIT */
#include "server.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../driver/alloc.h"
#include "../cli.h"
#include "../interrupt.h"
#include "../progress.h"
#include "database.h"
#include "directory.h"
#include "measure.h"
#include "report.h"
#include "settings.h"
#include "throng.h"

#define BYTES_PER_ROW 1000 /* with its indexes, and what an engine keeps beside the file */
#define BYTES_AT_LEAST (UINT64_C(256) << 20)

struct server {
    struct thr_settings settings;
    struct thr_target targets[THR_ENGINE_COUNT];
    struct thr_progress progress;
    char directory[768];
    struct thr_result *results; /* as in struct thr_report */
    struct thr_result *summary;
};

/* SQLite's process-wide settings come before its first use, Throng after it. */
static const char *set_up_sqlite(struct thr_settings *settings)
{
    const char *message = NULL;
    sqlite3_vfs *base;

    if (strcmp(settings->allocator, "mimalloc") == 0)
        message = thr_alloc_use_mimalloc();
    if (message != NULL)
        return message;
    if (thr_alloc_memstatus(strcmp(settings->memstatus, "on") == 0) != SQLITE_OK || sqlite3_initialize() != SQLITE_OK)
        return "SQLite cannot be set up";
    if ((base = sqlite3_vfs_find(NULL)) == NULL)
        return "SQLite has no VFS";
    settings->base_vfs = base->zName;
    if (throng_register(0) != SQLITE_OK)
        return "the VFS cannot be registered";
    return sqlite3_vfs_find(settings->vfs) != NULL ? NULL : "there is no VFS of that name";
}

static const char *prepare(struct server *server)
{
    const struct thr_settings *settings = &server->settings;
    char seed[sizeof server->directory + 16];
    const char *message;

    (void)snprintf(seed, sizeof seed, "%s/seed.db", server->directory);
    message = thr_database_load(settings, seed, &server->progress);
    for (uint32_t i = 0; message == NULL && i < settings->engines.count; i++) {
        struct thr_target *target = &server->targets[i];

        target->engine = settings->engines.engine[i];
        (void)snprintf(target->path, sizeof target->path, "%s/%s.db", server->directory, target->engine->name);
        message = thr_database_copy(settings, seed, target);
    }
    (void)remove(seed);
    return message;
}

/* --- measuring --- */

struct tick {
    struct thr_progress *progress;
    const char *engine;
    struct thr_clients clients;
    double done, step; /* of the whole */
};

static void show_tick(void *ctx, double done)
{
    const struct tick *tick = ctx;

    char label[THR_LABEL_BYTES];

    thr_progress_show(tick->progress, tick->done + tick->step * done, "%s: %s", tick->engine,
                      thr_clients_label(&tick->clients, label));
}

static const char *measure_all(struct server *server)
{
    const struct thr_settings *settings = &server->settings;
    size_t cells = thr_report_cells(settings), total = cells * settings->rounds;

    thr_progress_stage(&server->progress);
    for (size_t i = 0; i < total; i++) {
        uint32_t set = (uint32_t)(i % cells / settings->engines.count);
        struct thr_target *target = &server->targets[i % settings->engines.count];
        struct tick tick = {&server->progress, target->engine->name, settings->sets.set[set], (double)i / (double)total,
                            1 / (double)total};
        /* The same seed for every engine: they get the same transactions. */
        uint64_t seed = settings->seed + 1 + i / settings->engines.count;
        const char *message = thr_measure(settings, target, settings->sets.set[set], seed, show_tick, &tick,
                                          &server->results[i]);

        if (thr_interrupted())
            return "interrupted";
        if (message != NULL)
            return message;
    }
    return NULL;
}

static void check_all(struct server *server)
{
    for (uint32_t i = 0; i < server->settings.engines.count; i++) {
        thr_progress_stage(&server->progress);
        thr_progress_show(&server->progress, (double)i / server->settings.engines.count, "checking %s",
                          server->targets[i].engine->name);
        thr_database_check(&server->settings, &server->targets[i]);
    }
}

/* --- all together --- */

static bool report(struct server *server)
{
    size_t cells = thr_report_cells(&server->settings);
    struct thr_report report = {&server->settings,       server->targets, server->directory,
                                server->settings.rounds, server->results, server->summary};

    for (size_t i = 0; i < cells; i++)
        thr_results_summarize(&server->results[i], report.rounds, cells, &server->summary[i]);
    if (server->settings.json)
        thr_report_json(&report);
    else
        thr_report_text(&report);
    return thr_report_is_well(&report);
}

static void complain(const struct server *server, const char *message)
{
    fprintf(stderr, "throng bench server: %s\n", message);
    for (uint32_t i = 0; i < server->settings.engines.count; i++) {
        if (server->targets[i].first_error[0] != '\0')
            fprintf(stderr, "  %s: %s\n", server->targets[i].engine->name, server->targets[i].first_error);
    }
}

static int run(struct server *server)
{
    const char *message = prepare(server);
    bool well = false;

    if (message == NULL)
        message = measure_all(server);
    if (message == NULL) {
        check_all(server);
        if (thr_interrupted())
            message = "interrupted";
    }
    thr_progress_clear(&server->progress);
    if (message != NULL)
        complain(server, message);
    else
        well = report(server);
    if (thr_interrupted())
        return THR_EXIT_INTERRUPTED;
    return well ? THR_EXIT_OK : THR_EXIT_FAILED;
}

int thr_bench_server(int argc, char **argv)
{
    static struct server server;
    const struct thr_settings *settings = &server.settings;
    uint64_t bytes_wanted = BYTES_AT_LEAST;
    const char *message;
    int code;

    if ((code = thr_settings_parse(argc, argv, &server.settings)) >= 0)
        return code;
    if (thr_settings_need_rows(settings))
        bytes_wanted += settings->rows * BYTES_PER_ROW * (settings->engines.count + 1);
    thr_interrupt_catch();
    thr_progress_open(&server.progress, settings->quiet);
    server.results = calloc(thr_report_cells(settings) * settings->rounds, sizeof *server.results);
    server.summary = calloc(thr_report_cells(settings), sizeof *server.summary);
    code = THR_EXIT_FAILED;
    if (server.results == NULL || server.summary == NULL)
        message = "out of memory";
    else
        message = set_up_sqlite(&server.settings);
    if (message == NULL)
        message = thr_directory_make(settings->directory, bytes_wanted, server.directory, sizeof server.directory);
    if (message != NULL) {
        complain(&server, message);
    } else {
        code = run(&server);
        if (settings->keep)
            fprintf(stderr, "kept: %s\n", server.directory);
        else
            thr_directory_remove(server.directory);
    }
    free(server.results);
    free(server.summary);
    return code;
}
