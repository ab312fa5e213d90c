/* One measurement.
 *
 * SPDX-License-Identifier: MIT */
#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../clock.h"
#include "client.h"
#include "figures.h"
#include "growth.h"

#define WARM_UP_NS UINT64_C(300000000)
#define NS_PER_SECOND 1e9
#define NS_PER_MS 1e6
#define BYTES_PER_KB 1e3
#define BYTES_PER_MIB 1048576.0

struct window {
    uint64_t begun_ns, ended_ns;
    double cpu_us;
};

static void set_phase(struct thr_stage *stage, enum thr_phase phase)
{
    atomic_store_explicit(&stage->phase, phase, memory_order_relaxed); /* see phase_of() */
}

/* --- threads --- */

/* The clients that could be started; fewer than wanted only if the system refuses. */
static uint32_t start(struct thr_stage *stage, struct thr_client *clients, struct thr_clients wanted, uint64_t seed)
{
    uint32_t total = wanted.writers + wanted.readers;

    for (uint32_t i = 0; i < total; i++) {
        struct thr_client *client = &clients[i];

        client->stage = stage;
        client->kind = i < wanted.writers ? thr_kind_of_writer(stage->settings->workload) : thr_kind_of_reader();
        thr_random_seed(&client->random, seed * THR_BENCH_MAX_CLIENTS * 2 + i);
        if (pthread_create(&client->thread, NULL, thr_client_run, client) != 0)
            return i;
    }
    return total;
}

static void join(struct thr_client *clients, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        (void)pthread_join(clients[i].thread, NULL);
}

static bool all_well(const struct thr_client *clients, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (clients[i].errors > 0)
            return false;
    }
    return true;
}

/* From the start until the threads have been joined. */
static void watch(struct thr_stage *stage, struct thr_client *clients, uint32_t count, thr_measure_tick tick, void *ctx,
                  struct window *window)
{
    bool until_done = stage->settings->workload == THR_WORKLOAD_INCREMENT;
    double cpu_us;

    if (!until_done)
        thr_sleep_until(thr_clock_ns() + WARM_UP_NS, NULL, NULL);
    cpu_us = thr_cpu_us();
    window->begun_ns = thr_clock_ns();
    set_phase(stage, THR_PHASE_MEASURE);
    if (until_done) {
        tick(ctx, 0);
        join(clients, count);
    } else {
        thr_sleep_until(window->begun_ns + (uint64_t)(stage->settings->seconds * NS_PER_SECOND), tick, ctx);
    }
    set_phase(stage, THR_PHASE_STOP);
    window->ended_ns = thr_clock_ns();
    window->cpu_us = thr_cpu_us() - cpu_us;
    if (!until_done)
        join(clients, count);
}

/* --- results --- */

static void add_latency(const struct thr_histogram *latency, double *ms)
{
    bool none = latency->count == 0;

    ms[0] = none ? (double)NAN : (double)thr_histogram_quantile(latency, 0.5) / NS_PER_MS;
    ms[1] = none ? (double)NAN : (double)thr_histogram_quantile(latency, 0.99) / NS_PER_MS;
    ms[2] = none ? (double)NAN : (double)latency->max_ns / NS_PER_MS;
}

static void collect(const struct thr_client *clients, struct thr_clients set, const struct window *window,
                    struct thr_histogram *rw, struct thr_histogram *ro, struct thr_result *out)
{
    double seconds = (double)(window->ended_ns - window->begun_ns) / NS_PER_SECOND, *figure = out->figure;
    uint64_t transactions[2] = {0}, retries[2] = {0}; /* of readers, of writers */
    double tries, all;

    for (uint32_t i = 0; i < set.writers + set.readers; i++) {
        bool writes = i < set.writers;

        transactions[writes] += clients[i].transactions;
        retries[writes] += clients[i].retries;
        thr_histogram_merge(writes ? rw : ro, &clients[i].latency);
    }
    figure[THR_SECONDS] = seconds;
    figure[THR_RW_PER_SECOND] = set.writers > 0 ? (double)transactions[1] / seconds : (double)NAN;
    figure[THR_RO_PER_SECOND] = set.readers > 0 ? (double)transactions[0] / seconds : (double)NAN;
    tries = (double)(transactions[set.writers > 0] + retries[set.writers > 0]);
    figure[THR_CONFLICT_PERCENT] = tries > 0 ? 100 * (double)retries[set.writers > 0] / tries : 0;
    all = (double)(transactions[0] + transactions[1]);
    figure[THR_CPU_US] = all > 0 ? window->cpu_us / all : (double)NAN;
    add_latency(rw, &figure[THR_RW_P50_MS]);
    add_latency(ro, &figure[THR_RO_P50_MS]);
}

/* Returns `message`, or what is wrong if nothing was. */
static const char *collect_growth(const struct thr_client *clients, uint32_t count, struct thr_growth *growth,
                                  const char *message, struct thr_result *out)
{
    uint64_t commits = 0, pages_written = 0;
    double log_bytes, kept_bytes;
    const char *later;

    for (uint32_t i = 0; i < count; i++) {
        commits += clients[i].kind != thr_kind_of_reader() ? clients[i].commits : 0;
        pages_written += clients[i].pages_written;
    }
    later = thr_growth_end(growth, pages_written, &log_bytes, &kept_bytes);
    out->figure[THR_LOG_KB] = commits > 0 ? log_bytes / (double)commits / BYTES_PER_KB : (double)NAN;
    out->figure[THR_KEPT_MIB] = kept_bytes / BYTES_PER_MIB;
    return message != NULL ? message : later;
}

static void collect_errors(const struct thr_client *clients, uint32_t count, struct thr_target *target)
{
    for (uint32_t i = 0; i < count; i++) {
        if (clients[i].kind != thr_kind_of_reader())
            target->commits += clients[i].commits;
        if (clients[i].first_error[0] != '\0' && target->first_error[0] == '\0')
            memcpy(target->first_error, clients[i].first_error, sizeof target->first_error);
        target->errors += clients[i].errors;
    }
}

const char *thr_measure(const struct thr_server_settings *settings, struct thr_target *target, struct thr_clients set,
                        uint64_t seed, thr_measure_tick tick, void *ctx, struct thr_result *out)
{
    struct thr_stage stage = {.settings = settings, .target = target};
    uint32_t total = set.writers + set.readers, started;
    struct thr_client *clients = aligned_alloc(_Alignof(struct thr_client), total * sizeof *clients);
    struct thr_histogram *latency = calloc(2, sizeof *latency);
    struct window window = {0};
    struct thr_growth growth;
    const char *message = NULL;

    if (clients == NULL || latency == NULL)
        message = "out of memory";
    else
        message = thr_growth_begin(&settings->common, target, settings->old_snapshot, &growth);
    if (message != NULL)
        goto out;
    memset(clients, 0, total * sizeof *clients);
    if (settings->workload == THR_WORKLOAD_INCREMENT)
        set_phase(&stage, THR_PHASE_MEASURE);
    thr_start_open(&stage.start);
    started = start(&stage, clients, set, seed);
    thr_start_gather(&stage.start, started);
    if (started < total)
        message = "the system refuses more threads";
    else if (!all_well(clients, total))
        message = "not every client could open the database";
    if (message != NULL)
        set_phase(&stage, THR_PHASE_STOP);
    thr_start_signal(&stage.start);
    if (message != NULL)
        join(clients, started);
    else
        watch(&stage, clients, total, tick, ctx, &window);
    thr_start_close(&stage.start);
    collect_errors(clients, started, target);
    if (message == NULL)
        collect(clients, set, &window, &latency[0], &latency[1], out);
    message = collect_growth(clients, started, &growth, message, out);

out:
    free(clients);
    free(latency);
    return message;
}

void thr_results_summarize(const struct thr_result *results, uint32_t rounds, size_t stride, struct thr_result *out)
{
    for (int figure = 0; figure < THR_FIGURE_COUNT; figure++)
        out->figure[figure] = thr_figure_of_rounds(&results->figure[figure], rounds, stride * THR_FIGURE_COUNT,
                                                   figure == THR_RW_MAX_MS || figure == THR_RO_MAX_MS);
}
