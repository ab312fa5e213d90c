/* One measurement of `throng bench stmt`.
 *
 * SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "throng/pool.h"

#include "../clock.h"
#include "../random.h"
#include "figures.h"
#include "start.h"
#include "stmt.h"

#define WARM_UP_NS UINT64_C(100000000)
#define NS_PER_SECOND 1e9
#define SQL_BYTES 64
#define BATCH 16 /* operations between two looks at the phase */

static const char SQL[] = "SELECT v FROM t WHERE id=?";

enum phase { WARM_UP, MEASURE, STOP };

/* What the threads of one measurement share. */
struct stage {
    const struct thr_stmt_settings *settings;
    const struct thr_target *target;
    enum thr_stmt_way way;
    struct thr_start start;
    _Atomic uint32_t phase;
    throng_db *pool;
    throng_stmt stmt;
};

/* A thread's own lines. */
struct worker {
    alignas(128) struct stage *stage;
    pthread_t thread;
    struct thr_random random;
    sqlite3 *db;
    sqlite3_stmt *raw;
    uint64_t operations; /* that began in the measured time */
    uint64_t bytes;      /* read: so that nothing is left out */
    char error[THR_ERROR_BYTES];
};

static void other_sql(char *sql, uint32_t number)
{
    (void)snprintf(sql, SQL_BYTES, "SELECT v FROM t WHERE id=? + %" PRIu32, number);
}

static bool by_pool(struct worker *worker, int64_t id)
{
    throng_rows rows = {0};
    throng_error error;
    size_t size = 0;
    int code;

    code = throng_stmt_query(&worker->stage->stmt, NULL, THRONG_ARGS(throng_int(id)), &rows, &error);
    if (code == THRONG_OK && (code = throng_rows_next(&rows, &error)) == THRONG_ROW) {
        (void)throng_rows_text(&rows, 0, &size);
        worker->bytes += size;
        code = throng_rows_close(&rows, &error);
    } else if (code == THRONG_DONE) {
        (void)snprintf(error.message, sizeof error.message, "no row %" PRId64, id);
    }
    if (code != THRONG_OK)
        (void)sqlite3_snprintf((int)sizeof worker->error, worker->error, "%s", error.message);
    return code == THRONG_OK;
}

static bool by_hand(struct worker *worker, int64_t id)
{
    int rc = sqlite3_bind_int64(worker->raw, 1, id);

    if (rc == SQLITE_OK && (rc = sqlite3_step(worker->raw)) == SQLITE_ROW) {
        (void)sqlite3_column_text(worker->raw, 0);
        worker->bytes += (uint64_t)sqlite3_column_bytes(worker->raw, 0);
        rc = sqlite3_reset(worker->raw);
    }
    if (rc != SQLITE_OK)
        (void)sqlite3_snprintf((int)sizeof worker->error, worker->error, "%s",
                               rc == SQLITE_DONE ? "a row is missing" : sqlite3_errmsg(worker->db));
    return rc == SQLITE_OK;
}

static void open_raw(struct worker *worker)
{
    const struct stage *stage = worker->stage;
    int rc = thr_database_open(&stage->settings->common, stage->target, &worker->db);

    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v3(worker->db, SQL, -1, SQLITE_PREPARE_PERSISTENT, &worker->raw, NULL);
    for (uint32_t i = 0; rc == SQLITE_OK && i < stage->settings->statements; i++) {
        sqlite3_stmt *other; /* the connection's list has it */
        char sql[SQL_BYTES];

        other_sql(sql, i);
        rc = sqlite3_prepare_v3(worker->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &other, NULL);
    }
    if (rc != SQLITE_OK)
        (void)sqlite3_snprintf((int)sizeof worker->error, worker->error, "%s", sqlite3_errmsg(worker->db));
}

static void close_raw(struct worker *worker)
{
    sqlite3_stmt *stmt;

    while (worker->db != NULL && (stmt = sqlite3_next_stmt(worker->db, NULL)) != NULL)
        (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(worker->db);
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct stage *stage = worker->stage;
    uint64_t rows = stage->settings->rows;
    bool well = true;
    uint32_t phase;

    if (stage->way == THR_STMT_RAW)
        open_raw(worker);
    well = worker->error[0] == '\0';
    thr_start_wait(&stage->start);
    /* Relaxed: only what is counted depends on it; results are handed over by pthread_join(). */
    while (well && (phase = atomic_load_explicit(&stage->phase, memory_order_relaxed)) != STOP) {
        for (int i = 0; i < BATCH && well; i++) {
            int64_t id = 1 + (int64_t)thr_random_below(&worker->random, rows);

            well = stage->way == THR_STMT_POOL ? by_pool(worker, id) : by_hand(worker, id);
        }
        worker->operations += phase == MEASURE ? BATCH : 0;
    }
    close_raw(worker);
    return NULL;
}

/* --- the pool --- */

/* Every connection gets the other statements: all are taken at once, so that none gets them twice. */
static int fill_pool(const struct stage *stage, uint32_t connections, throng_error *error)
{
    throng_conn conns[THR_BENCH_MAX_CLIENTS] = {0};
    char sql[SQL_BYTES];
    int code = THRONG_OK;

    for (uint32_t i = 0; code == THRONG_OK && i < connections; i++)
        code = throng_db_conn(stage->pool, NULL, &conns[i], error);
    for (uint32_t i = 0; i < stage->settings->statements * connections; i++) {
        other_sql(sql, i / connections);
        if (code == THRONG_OK)
            code = throng_conn_exec(&conns[i % connections], NULL, sql, THRONG_ARGS(throng_int(0)), NULL, error);
    }
    for (uint32_t i = 0; i < connections; i++)
        (void)throng_conn_close(&conns[i], NULL);
    return code;
}

static const char *open_pool(struct stage *stage, uint32_t connections)
{
    const struct thr_settings *settings = &stage->settings->common;
    struct throng_db_options options = {.size = sizeof options,
                                        .max_open = connections,
                                        .cached_statements = stage->settings->statements + 1,
                                        .no_thread = 1};
    static char message[THR_ERROR_BYTES];
    throng_error error;
    char dsn[sizeof stage->target->path + 200];

    (void)snprintf(dsn, sizeof dsn, "sqlite:%s?vfs=%s&synchronous=%s&mmap_size=%" PRId64, stage->target->path,
                   settings->vfs, settings->synchronous, settings->mmap_bytes);
    if (throng_db_open(dsn, &options, &stage->pool, &error) == THRONG_OK &&
        throng_db_prepare(stage->pool, NULL, SQL, &stage->stmt, &error) == THRONG_OK &&
        fill_pool(stage, connections, &error) == THRONG_OK)
        return NULL;
    return sqlite3_snprintf((int)sizeof message, message, "the pool: %s", error.message);
}

static void read_pool_locks(throng_db *pool, struct thr_lock_count *out)
{
    struct throng_stats stats = {.size = sizeof stats};

    *out = (struct thr_lock_count){.name = "pool"};
    if (pool == NULL || throng_db_stats(pool, &stats, NULL) != THRONG_OK)
        return;
    out->acquisitions = stats.lock_acquired;
    out->contended = stats.lock_contended;
}

/* --- one measurement --- */

static void watch(struct stage *stage, double *figure)
{
    uint64_t began_ns;
    double cpu_us;

    thr_sleep_until(thr_clock_ns() + WARM_UP_NS, NULL, NULL);
    cpu_us = thr_cpu_us();
    began_ns = thr_clock_ns();
    atomic_store_explicit(&stage->phase, MEASURE, memory_order_relaxed);
    thr_sleep_until(began_ns + (uint64_t)(stage->settings->seconds * NS_PER_SECOND), NULL, NULL);
    atomic_store_explicit(&stage->phase, STOP, memory_order_relaxed);
    figure[THR_STMT_SECONDS] = (double)(thr_clock_ns() - began_ns) / NS_PER_SECOND;
    figure[THR_STMT_CPU_NS] = (thr_cpu_us() - cpu_us) * 1e3; /* to be divided */
}

static const char *run(struct stage *stage, struct worker *workers, uint32_t threads, uint64_t seed, double *figure)
{
    uint32_t started = 0;

    for (; started < threads; started++) {
        workers[started].stage = stage;
        thr_random_seed(&workers[started].random, seed * THR_BENCH_MAX_CLIENTS + started);
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0)
            break;
    }
    thr_start_gather(&stage->start, started);
    if (started < threads)
        atomic_store_explicit(&stage->phase, STOP, memory_order_relaxed);
    thr_start_signal(&stage->start);
    if (started == threads)
        watch(stage, figure);
    for (uint32_t i = 0; i < started; i++)
        (void)pthread_join(workers[i].thread, NULL);
    return started == threads ? NULL : "the system refuses more threads";
}

const char *thr_stmt_measure(const struct thr_stmt_settings *settings, struct thr_target *target, enum thr_stmt_way way,
                             uint32_t threads, uint64_t seed, struct thr_contention *locks, struct thr_stmt_result *out)
{
    struct stage stage = {.settings = settings, .target = target, .way = way};
    struct worker *workers = aligned_alloc(_Alignof(struct worker), threads * sizeof *workers);
    const char *message = workers == NULL ? "out of memory" : NULL, *later;
    double *figure = out->figure, operations = 0;
    struct thr_lock_count before, after;
    sqlite3 *probe = NULL;

    if (message == NULL && locks != NULL)
        message = thr_contention_begin(&settings->common, target, &probe);
    if (message == NULL && way == THR_STMT_POOL)
        message = open_pool(&stage, thr_stmt_connections(settings, threads));
    if (message == NULL) {
        memset(workers, 0, threads * sizeof *workers);
        thr_start_open(&stage.start);
        read_pool_locks(stage.pool, &before);
        message = run(&stage, workers, threads, seed, figure);
        thr_start_close(&stage.start);
        read_pool_locks(stage.pool, &after);
        after.acquisitions -= before.acquisitions;
        after.contended -= before.contended;
        figure[THR_STMT_CONTENDED] = way == THR_STMT_POOL ? (double)after.contended : (double)NAN;
        if (locks != NULL && way == THR_STMT_POOL)
            thr_contention_add_lock(locks, &after);
        later = locks != NULL ? thr_contention_end(probe, locks) : NULL;
        message = message != NULL ? message : later;
    }
    for (uint32_t i = 0; message == NULL && i < threads; i++) {
        operations += (double)workers[i].operations;
        if (workers[i].error[0] != '\0' && target->errors++ == 0)
            memcpy(target->first_error, workers[i].error, sizeof target->first_error);
    }
    figure[THR_STMT_PER_SECOND] = operations / figure[THR_STMT_SECONDS];
    figure[THR_STMT_CPU_NS] /= operations;
    if (stage.pool != NULL)
        (void)throng_db_close(stage.pool, 0, NULL);
    free(workers);
    return message;
}
