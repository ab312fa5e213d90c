/* `throng bench server`: load, measure in turn, check, report.
 *
 * SPDX-License-Identifier: MIT */
#include "server.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cli.h"
#include "../interrupt.h"
#include "../progress.h"
#include "directory.h"
#include "measure.h"
#include "report.h"
#include "server_database.h"
#include "server_settings.h"

#define BYTES_PER_ROW 1000 /* with its indexes, and what an engine keeps beside the file */
#define BYTES_AT_LEAST (UINT64_C(256) << 20)

struct server {
    struct thr_server_settings settings;
    struct thr_target targets[THR_ENGINE_COUNT];
    struct thr_progress progress;
    char directory[768];
    struct thr_result *results; /* as in struct thr_report */
    struct thr_result *summary;
    struct thr_contention *contention; /* [set][engine]; NULL if nobody asked */
};

static const char *prepare(struct server *server)
{
    const struct thr_server_settings *settings = &server->settings;
    char seed[sizeof server->directory + 16];
    const char *message;

    (void)snprintf(seed, sizeof seed, "%s/seed.db", server->directory);
    message = thr_server_load(settings, seed, &server->progress);
    for (uint32_t i = 0; message == NULL && i < settings->common.engines.count; i++) {
        struct thr_target *target = &server->targets[i];

        target->engine = settings->common.engines.engine[i];
        (void)snprintf(target->path, sizeof target->path, "%s/%s.db", server->directory, target->engine->name);
        message = thr_database_copy(&settings->common, seed, target);
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

/* With what was counted, if that is wanted. */
static const char *measure(struct server *server, uint32_t set, uint32_t engine, uint64_t seed, struct tick *tick,
                           struct thr_result *out)
{
    const struct thr_server_settings *settings = &server->settings;
    struct thr_target *target = &server->targets[engine];
    const char *message = NULL, *later;
    sqlite3 *probe = NULL;

    if (server->contention != NULL)
        message = thr_contention_begin(&settings->common, target, &probe);
    if (message != NULL)
        return message;
    message = thr_measure(settings, target, settings->sets.set[set], seed, show_tick, tick, out);
    if (server->contention == NULL)
        return message;
    later = thr_contention_end(probe, &server->contention[set * settings->common.engines.count + engine]);
    return message != NULL ? message : later;
}

static const char *measure_all(struct server *server)
{
    const struct thr_server_settings *settings = &server->settings;
    uint32_t engines = settings->common.engines.count;
    size_t cells = thr_report_cells(settings), total = cells * settings->common.rounds;

    thr_progress_stage(&server->progress);
    for (size_t i = 0; i < total; i++) {
        uint32_t set = (uint32_t)(i % cells / engines), engine = (uint32_t)(i % engines);
        struct tick tick = {&server->progress, server->targets[engine].engine->name, settings->sets.set[set],
                            (double)i / (double)total, 1 / (double)total};
        /* The same seed for every engine: they get the same transactions. */
        const char *message = measure(server, set, engine, settings->common.seed + 1 + i / engines, &tick,
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
    for (uint32_t i = 0; i < server->settings.common.engines.count; i++) {
        thr_progress_stage(&server->progress);
        thr_progress_show(&server->progress, (double)i / server->settings.common.engines.count, "checking %s",
                          server->targets[i].engine->name);
        thr_server_check(&server->settings, &server->targets[i]);
        for (uint32_t set = 0; server->contention != NULL && set < server->settings.sets.count; set++)
            thr_contention_name(&server->settings.common, server->targets[i].path,
                                &server->contention[set * server->settings.common.engines.count + i]);
    }
}

/* --- all together --- */

static bool report(struct server *server)
{
    size_t cells = thr_report_cells(&server->settings);
    struct thr_report report = {
        .settings = &server->settings,
        .targets = server->targets,
        .directory = server->directory,
        .rounds = server->settings.common.rounds,
        .results = server->results,
        .summary = server->summary,
        .contention = server->contention,
    };

    for (size_t i = 0; i < cells; i++)
        thr_results_summarize(&server->results[i], report.rounds, cells, &server->summary[i]);
    if (server->settings.common.json)
        thr_report_json(&report);
    else
        thr_report_text(&report);
    return thr_report_is_well(&report);
}

static void complain(const struct server *server, const char *message)
{
    fprintf(stderr, "throng bench server: %s\n", message);
    for (uint32_t i = 0; i < server->settings.common.engines.count; i++) {
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
    const struct thr_server_settings *settings = &server.settings;
    uint64_t bytes_wanted = BYTES_AT_LEAST;
    const char *message;
    int code;

    if ((code = thr_server_settings_parse(argc, argv, &server.settings)) >= 0)
        return code;
    if (thr_server_need_rows(settings))
        bytes_wanted += settings->rows * BYTES_PER_ROW * (settings->common.engines.count + 1);
    thr_interrupt_catch();
    thr_progress_open(&server.progress, settings->common.quiet);
    server.results = calloc(thr_report_cells(settings) * settings->common.rounds, sizeof *server.results);
    server.summary = calloc(thr_report_cells(settings), sizeof *server.summary);
    if (settings->common.contention)
        server.contention = calloc(thr_report_cells(settings), sizeof *server.contention);
    code = THR_EXIT_FAILED;
    if (server.results == NULL || server.summary == NULL || (settings->common.contention && server.contention == NULL))
        message = "out of memory";
    else
        message = thr_settings_apply(&server.settings.common, false);
    if (message == NULL)
        message = thr_directory_make(settings->common.directory, bytes_wanted, server.directory,
                                     sizeof server.directory);
    if (message != NULL) {
        complain(&server, message);
    } else {
        code = run(&server);
        if (settings->common.keep)
            fprintf(stderr, "kept: %s\n", server.directory);
        else
            thr_directory_remove(server.directory);
    }
    free(server.results);
    free(server.summary);
    free(server.contention);
    return code;
}
