/* One measurement of `throng bench zombie`.
 *
 * SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../clock.h"
#include "../histogram.h"
#include "../interrupt.h"
#include "../random.h"
#include "figures.h"
#include "start.h"
#include "zombie.h"

#define ROWS 100 /* of each table that is read */
#define PAYLOAD_BYTES 1024
#define CREATE_EVERY_NS UINT64_C(10000000)
#define TICK_NS UINT64_C(10000000)
#define MAX_ERRORS 100 /* then a worker gives up: the engine is not well */
#define NS_PER_SECOND 1e9
#define NS_PER_US 1e3

static const char schema[] = "CREATE TABLE inserted(id INTEGER PRIMARY KEY, payload BLOB);";

struct worker;

struct job {
    const char *sql;   /* prepared once; NULL: nothing */
    uint64_t every_ns; /* not more often than that; 0: as fast as it can */
    int (*once)(struct worker *worker, uint32_t number);
};

/* What the workers of one measurement share. */
struct stage {
    const struct thr_zombie_settings *settings;
    struct thr_target *target;
    struct thr_start start;
    _Atomic uint32_t readers_left, workers_left;
    uint64_t begun_ns;
    double begun_cpu_us;
    _Atomic uint64_t cpu_us; /* when the last reader was done */
};

/* Belongs to its thread from the start signal until that has been joined; on cache lines of its own. */
struct worker {
    alignas(128) struct stage *stage;
    const struct job *job;
    pthread_t thread;
    struct thr_random random;
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *rollback, *work;
    uint32_t count;         /* what there is to do */
    _Atomic uint32_t tried; /* so far */
    uint64_t done, retries, errors;
    uint64_t ended_ns;
    char first_error[THR_ERROR_BYTES];
    struct thr_histogram latency;
    uint64_t total_ns; /* of all latencies */
    uint8_t payload[PAYLOAD_BYTES];
};

/* What an application does again. SQLITE_SCHEMA: the schema changed more often than SQLite compiles a statement again by
 * itself (50 times, 25 as Debian builds it), as compiling took longer than the change that came next. */
static bool is_run_again(int rc)
{
    return (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_SCHEMA;
}

static int note_error(struct worker *worker, const char *what, int rc)
{
    if (!is_run_again(rc) && worker->errors == 0)
        (void)snprintf(worker->first_error, sizeof worker->first_error, "%s: %s (%d)", what,
                       worker->db != NULL ? sqlite3_errmsg(worker->db) : sqlite3_errstr(rc), rc);
    return rc;
}

/* --- what the workers do --- */

static int step_to_end(struct worker *worker, sqlite3_stmt *statement)
{
    int rc = sqlite3_step(statement);

    if (rc != SQLITE_DONE)
        (void)note_error(worker, sqlite3_sql(statement), rc);
    (void)sqlite3_reset(statement);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* One row, which must be there. */
static int read_row(struct worker *worker, sqlite3_stmt *select, sqlite3_int64 id)
{
    int rc = sqlite3_bind_int64(select, 1, id);

    if (rc == SQLITE_OK && (rc = sqlite3_step(select)) == SQLITE_ROW) {
        if (sqlite3_column_int64(select, 0) != id || sqlite3_column_text(select, 1) == NULL)
            return SQLITE_CORRUPT;
        rc = sqlite3_step(select);
    } else if (rc == SQLITE_DONE) {
        return SQLITE_NOTFOUND;
    }
    return rc == SQLITE_DONE ? SQLITE_OK : note_error(worker, sqlite3_sql(select), rc);
}

static int query(struct worker *worker, uint32_t number)
{
    uint64_t table = thr_random_below(&worker->random, worker->stage->settings->tables);
    sqlite3_int64 id = 1 + (sqlite3_int64)thr_random_below(&worker->random, ROWS);
    sqlite3_stmt *select = NULL;
    char sql[64];
    int rc;

    (void)number;
    (void)snprintf(sql, sizeof sql, "SELECT id, v FROM read_%05" PRIu64 " WHERE id=?", table);
    if ((rc = step_to_end(worker, worker->begin)) != SQLITE_OK)
        return rc;
    if ((rc = sqlite3_prepare_v2(worker->db, sql, -1, &select, NULL)) != SQLITE_OK)
        (void)note_error(worker, sql, rc);
    else if ((rc = read_row(worker, select, id)) == SQLITE_NOTFOUND || rc == SQLITE_CORRUPT)
        (void)snprintf(worker->first_error, sizeof worker->first_error, "%s: not the row %lld", sql, (long long)id);
    (void)sqlite3_finalize(select);
    if (rc == SQLITE_OK)
        rc = step_to_end(worker, worker->commit);
    if (rc != SQLITE_OK && sqlite3_get_autocommit(worker->db) == 0)
        (void)step_to_end(worker, worker->rollback);
    return rc;
}

static int create(struct worker *worker, uint32_t number)
{
    char sql[96];
    int rc;

    (void)snprintf(sql, sizeof sql, "CREATE TABLE more_%05" PRIu32 "(id INTEGER PRIMARY KEY, v TEXT)", number);
    rc = sqlite3_exec(worker->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? SQLITE_OK : note_error(worker, sql, rc);
}

static int insert(struct worker *worker, uint32_t number)
{
    (void)number;
    thr_random_fill(&worker->random, worker->payload, 8); /* rows differ, which is all that they need */
    (void)sqlite3_bind_blob(worker->work, 1, worker->payload, PAYLOAD_BYTES, SQLITE_STATIC);
    return step_to_end(worker, worker->work);
}

static const struct job reading = {NULL, 0, query};
static const struct job creating = {NULL, CREATE_EVERY_NS, create};
static const struct job inserting = {"INSERT INTO inserted(payload) VALUES(?)", 0, insert};

/* --- the threads --- */

/* Tried until it is done, has failed, or nobody wants to wait any more. */
static void do_once(struct worker *worker, uint32_t number)
{
    uint64_t begun_ns = thr_clock_ns(), took_ns;
    int rc;

    while (is_run_again(rc = worker->job->once(worker, number)) && !thr_interrupted())
        worker->retries++;
    took_ns = thr_clock_ns() - begun_ns;
    if (rc != SQLITE_OK) {
        worker->errors++;
        return;
    }
    worker->done++;
    worker->total_ns += took_ns;
    thr_histogram_add(&worker->latency, took_ns);
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct stage *stage = worker->stage;

    thr_start_wait(&stage->start);
    for (uint32_t i = 0; i < worker->count && worker->errors < MAX_ERRORS && !thr_interrupted(); i++) {
        uint64_t due_ns = stage->begun_ns + i * worker->job->every_ns, now_ns;

        if (worker->job->every_ns != 0 && (now_ns = thr_clock_ns()) < due_ns)
            thr_sleep_ns(due_ns - now_ns);
        do_once(worker, i);
        atomic_store_explicit(&worker->tried, i + 1, memory_order_relaxed);
    }
    worker->ended_ns = thr_clock_ns();
    /* Relaxed: the time is read after pthread_join(), and the count only says when to join. */
    if (worker->job == &reading && atomic_fetch_sub_explicit(&stage->readers_left, 1, memory_order_relaxed) == 1)
        atomic_store_explicit(&stage->cpu_us, (uint64_t)(thr_cpu_us() - stage->begun_cpu_us), memory_order_relaxed);
    (void)atomic_fetch_sub_explicit(&stage->workers_left, 1, memory_order_relaxed);
    return NULL;
}

static int prepare(struct worker *worker, const char *sql, sqlite3_stmt **out)
{
    return sqlite3_prepare_v3(worker->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
}

/* A connection that has read the schema, and its statements. */
static int open_worker(struct worker *worker)
{
    int rc = thr_database_open(&worker->stage->settings->common, worker->stage->target, &worker->db);

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(worker->db, "SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = prepare(worker, "BEGIN", &worker->begin);
    if (rc == SQLITE_OK)
        rc = prepare(worker, "COMMIT", &worker->commit);
    if (rc == SQLITE_OK)
        rc = prepare(worker, "ROLLBACK", &worker->rollback);
    if (rc == SQLITE_OK && worker->job->sql != NULL)
        rc = prepare(worker, worker->job->sql, &worker->work);
    if (rc != SQLITE_OK)
        worker->errors = (uint64_t)(note_error(worker, "opening", rc) != SQLITE_OK);
    return rc;
}

static void close_worker(struct worker *worker)
{
    (void)sqlite3_finalize(worker->begin);
    (void)sqlite3_finalize(worker->commit);
    (void)sqlite3_finalize(worker->rollback);
    (void)sqlite3_finalize(worker->work);
    if (sqlite3_close(worker->db) != SQLITE_OK && worker->errors++ == 0)
        (void)snprintf(worker->first_error, sizeof worker->first_error, "closing: %s", sqlite3_errmsg(worker->db));
    worker->db = NULL;
}

/* --- the database --- */

/* The tables to be read, each in a transaction of its own, by the engine that is measured. */
static const char *create_tables(const struct thr_zombie_settings *settings, struct thr_target *target,
                                 struct thr_zombie_run *run)
{
    uint64_t begun_ns = thr_clock_ns();
    sqlite3 *db = NULL;
    char sql[512];
    int rc = thr_database_open(&settings->common, target, &db);

    for (uint32_t i = 0; rc == SQLITE_OK && i < settings->tables; i++) {
        (void)snprintf(sql, sizeof sql,
                       "BEGIN; CREATE TABLE read_%05" PRIu32 "(id INTEGER PRIMARY KEY, v TEXT);"
                       "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d)"
                       "INSERT INTO read_%05" PRIu32 " SELECT i, printf('%%0100d', i) FROM n; COMMIT",
                       i, ROWS, i);
        rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    }
    if (rc != SQLITE_OK)
        (void)snprintf(run->first_error, sizeof run->first_error, "creating tables: %s",
                       db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
    (void)sqlite3_close(db);
    run->tables_s = (double)(thr_clock_ns() - begun_ns) / NS_PER_SECOND;
    return rc == SQLITE_OK ? NULL : "the tables cannot be created";
}

static void check(const struct thr_zombie_settings *settings, struct thr_target *target, uint64_t creates,
                  uint64_t inserts)
{
    struct thr_expected expected[] = {
        {.sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'more%' AND type='table'"},
        {.sql = "SELECT count(*) FROM inserted WHERE length(payload)=1024"},
    };

    (void)snprintf(expected[0].wanted, sizeof expected[0].wanted, "%" PRIu64, creates);
    (void)snprintf(expected[1].wanted, sizeof expected[1].wanted, "%" PRIu64, inserts);
    thr_database_check(&settings->common, target, expected, sizeof expected / sizeof expected[0]);
}

/* --- the measurement --- */

/* Until all are done; says meanwhile how far they are. */
static void watch(struct stage *stage, const struct worker *workers, uint32_t count, struct thr_zombie_run *run)
{
    while (atomic_load_explicit(&stage->workers_left, memory_order_relaxed) > 0) {
        uint64_t tried = 0, all = 0;

        /* Every worker counts alike, however much it has to do. */
        for (uint32_t i = 0; i < count; i++) {
            if (workers[i].count > 0)
                tried += UINT64_C(1000) * atomic_load_explicit(&workers[i].tried, memory_order_relaxed) /
                         workers[i].count;
            all += workers[i].count > 0;
        }
        atomic_store_explicit(&run->permille, all > 0 ? (uint32_t)(tried / all) : 0, memory_order_relaxed);
        thr_sleep_ns(TICK_NS);
    }
}

/* Start a thread for each, wait for all. False: the system refuses so many. */
static bool run_workers(struct stage *stage, struct worker *workers, uint32_t count, struct thr_zombie_run *run)
{
    uint32_t started = 0;

    thr_start_open(&stage->start);
    while (started < count && pthread_create(&workers[started].thread, NULL, work, &workers[started]) == 0)
        started++;
    for (uint32_t i = 0; started < count && i < count; i++)
        workers[i].count = 0; /* the others have nothing to do then */
    atomic_store_explicit(&stage->workers_left, started, memory_order_relaxed);
    thr_start_gather(&stage->start, started);
    stage->begun_cpu_us = thr_cpu_us();
    stage->begun_ns = thr_clock_ns();
    thr_start_signal(&stage->start);
    if (started == count)
        watch(stage, workers, count, run);
    for (uint32_t i = 0; i < started; i++)
        (void)pthread_join(workers[i].thread, NULL);
    thr_start_close(&stage->start);
    return started == count;
}

static double seconds_of(const struct stage *stage, const struct worker *worker)
{
    return (double)(worker->ended_ns - stage->begun_ns) / NS_PER_SECOND;
}

static void collect_errors(const struct worker *workers, uint32_t count, struct thr_zombie_run *run)
{
    for (uint32_t i = 0; i < count; i++) {
        if (workers[i].first_error[0] != '\0' && run->first_error[0] == '\0')
            memcpy(run->first_error, workers[i].first_error, sizeof run->first_error);
        run->errors += workers[i].errors;
        run->retries += workers[i].retries;
    }
}

static void collect(struct stage *stage, struct worker *workers, uint32_t readers, struct thr_zombie_run *run)
{
    const struct worker *creator = &workers[readers], *inserter = &workers[readers + 1];
    struct thr_histogram *latency = &workers[0].latency;
    uint64_t total_ns = 0, queries = 0;
    double *figure = run->figure;

    for (uint32_t i = 0; i < readers; i++) {
        run->reader_s[i] = seconds_of(stage, &workers[i]);
        total_ns += workers[i].total_ns;
        queries += workers[i].done;
        if (i > 0)
            thr_histogram_merge(latency, &workers[i].latency);
    }
    run->creates_s = seconds_of(stage, creator);
    run->inserts_s = seconds_of(stage, inserter);
    figure[THR_ZOMBIE_MEAN_US] = (double)total_ns / NS_PER_US / (double)queries;
    figure[THR_ZOMBIE_P50_US] = (double)thr_histogram_quantile(latency, 0.5) / NS_PER_US;
    figure[THR_ZOMBIE_P99_US] = (double)thr_histogram_quantile(latency, 0.99) / NS_PER_US;
    figure[THR_ZOMBIE_MAX_US] = (double)latency->max_ns / NS_PER_US;
    figure[THR_ZOMBIE_CREATES_PER_SECOND] = (double)creator->done / run->creates_s;
    figure[THR_ZOMBIE_INSERTS_PER_SECOND] = (double)inserter->done / run->inserts_s;
    figure[THR_ZOMBIE_CPU_US] = (double)atomic_load_explicit(&stage->cpu_us, memory_order_relaxed) / (double)queries;
}

static void assign(struct stage *stage, struct worker *workers, uint32_t readers, uint64_t seed)
{
    const struct thr_zombie_settings *settings = stage->settings;

    for (uint32_t i = 0; i < readers + 2; i++) {
        workers[i].stage = stage;
        workers[i].job = i < readers ? &reading : i == readers ? &creating : &inserting;
        workers[i].count = i < readers ? settings->queries : i == readers ? settings->creates : settings->inserts;
        thr_random_seed(&workers[i].random, seed * THR_BENCH_MAX_CLIENTS * 2 + i);
    }
}

static const char *run_stage(struct stage *stage, struct worker *workers, uint32_t readers, struct thr_zombie_run *run)
{
    uint64_t begun_ns = thr_clock_ns();
    const char *message = NULL;
    int rc = SQLITE_OK;

    for (uint32_t i = 0; rc == SQLITE_OK && i < readers + 2; i++)
        rc = open_worker(&workers[i]);
    run->connections_s = (double)(thr_clock_ns() - begun_ns) / NS_PER_SECOND;
    if (rc != SQLITE_OK)
        message = "not every connection could be opened";
    else if (!run_workers(stage, workers, readers + 2, run))
        message = "the system refuses more threads";
    else
        collect(stage, workers, readers, run);
    for (uint32_t i = 0; i < readers + 2; i++)
        close_worker(&workers[i]);
    collect_errors(workers, readers + 2, run);
    return message;
}

static const char *measure(const struct thr_zombie_settings *settings, struct thr_target *target, uint32_t readers,
                           uint64_t seed, struct thr_zombie_run *run)
{
    struct stage stage = {.settings = settings, .target = target, .readers_left = readers};
    size_t bytes = (readers + 2) * sizeof(struct worker);
    struct worker *workers = aligned_alloc(alignof(struct worker), bytes);
    const char *message = NULL, *later;
    sqlite3 *probe = NULL;

    if (workers == NULL)
        return "out of memory";
    memset(workers, 0, bytes);
    assign(&stage, workers, readers, seed);
    if (settings->common.contention)
        message = thr_contention_begin(&settings->common, target, &probe);
    if (message == NULL) {
        message = run_stage(&stage, workers, readers, run);
        later = settings->common.contention ? thr_contention_end(probe, &run->contention) : NULL;
        message = message != NULL ? message : later;
    }
    if (message == NULL && thr_interrupted())
        message = "interrupted";
    if (message == NULL)
        check(settings, target, workers[readers].done, workers[readers + 1].done);
    free(workers);
    return message;
}

void thr_zombie_measure(struct thr_zombie_settings *settings, const struct thr_engine *engine, uint32_t readers,
                        uint64_t seed, const char *directory, struct thr_zombie_run *run)
{
    static struct thr_target target;
    const char *message = thr_settings_apply(&settings->common, engine->as_shipped);

    target.engine = engine;
    (void)snprintf(target.path, sizeof target.path, "%s/%s-%" PRIu32 "-%" PRIu64 ".db", directory, engine->name,
                   readers, seed);
    if (message == NULL)
        message = thr_database_load(&settings->common, target.path, schema, NULL, NULL);
    if (message == NULL)
        message = thr_database_set_mode(&settings->common, &target);
    if (message == NULL)
        message = create_tables(settings, &target, run);
    if (message == NULL)
        message = measure(settings, &target, readers, seed, run);
    if (message == NULL)
        thr_contention_name(&settings->common, target.path, &run->contention);
    memcpy(run->verdict, target.verdict, sizeof run->verdict);
    (void)snprintf(run->message, sizeof run->message, "%s", message != NULL ? message : "");
    if (!settings->common.keep)
        (void)remove(target.path);
}
