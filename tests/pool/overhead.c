/* What the pool costs: the same query by key through the pool and on a connection of one's own, in turn, many times.
 *
 *     build/tests/pool-overhead [VFS [THREADS ...]]
 *
 * Prints medians. Not a test: it judges nothing.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "throng/pool.h"

enum { ROWS = 1000, OPERATIONS = 20000, ROUNDS = 41, THREADS_MAX = 256 };

static const char sql[] = "SELECT value FROM t WHERE key = ?";
static throng_stmt stmt;

struct worker {
    sqlite3 *own;
    pthread_barrier_t *barrier;
    double pool_ns[ROUNDS], own_ns[ROUNDS];
    uint64_t random;
};

static void fail(const char *message)
{
    (void)fprintf(stderr, "%s\n", message);
    exit(1);
}

static int64_t next_key(struct worker *worker)
{
    worker->random = worker->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (int64_t)(worker->random >> 33) % ROWS;
}

static double pool_round(struct worker *worker)
{
    uint64_t began = throng_now_ns();
    throng_error err;
    throng_rows rows;

    for (int i = 0; i < OPERATIONS; i++) {
        int64_t key = next_key(worker);

        if (throng_stmt_query(&stmt, NULL, THRONG_ARGS(throng_int(key)), &rows, &err) != THRONG_OK ||
            throng_rows_next(&rows, &err) != THRONG_ROW || throng_rows_int(&rows, 0) != key * 3 ||
            throng_rows_close(&rows, &err) != THRONG_OK)
            fail("the pool fails");
    }
    return (double)(throng_now_ns() - began) / OPERATIONS;
}

static double own_round(struct worker *worker, sqlite3_stmt *compiled)
{
    uint64_t began = throng_now_ns();

    for (int i = 0; i < OPERATIONS; i++) {
        int64_t key = next_key(worker);

        if (sqlite3_bind_int64(compiled, 1, key) != SQLITE_OK || sqlite3_step(compiled) != SQLITE_ROW ||
            sqlite3_column_int64(compiled, 0) != key * 3 || sqlite3_reset(compiled) != SQLITE_OK)
            fail("SQLite fails");
    }
    return (double)(throng_now_ns() - began) / OPERATIONS;
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    sqlite3_stmt *compiled;

    if (sqlite3_prepare_v3(worker->own, sql, -1, SQLITE_PREPARE_PERSISTENT, &compiled, NULL) != SQLITE_OK)
        fail(sqlite3_errmsg(worker->own));
    (void)pool_round(worker);
    (void)own_round(worker, compiled);
    for (int i = 0; i < ROUNDS; i++) {
        (void)pthread_barrier_wait(worker->barrier);
        worker->pool_ns[i] = pool_round(worker);
        (void)pthread_barrier_wait(worker->barrier);
        worker->own_ns[i] = own_round(worker, compiled);
    }
    (void)sqlite3_finalize(compiled);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return left < right ? -1 : left > right;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static void measure(const char *path, const char *vfs, int threads)
{
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    double *pool = calloc((size_t)threads * ROUNDS, sizeof *pool), *own = calloc((size_t)threads * ROUNDS, sizeof *own),
           *more = calloc((size_t)threads * ROUNDS, sizeof *more);
    pthread_t handles[THREADS_MAX];
    pthread_barrier_t barrier;

    (void)pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        workers[i].barrier = &barrier;
        workers[i].random = (uint64_t)i;
        if (sqlite3_open_v2(path, &workers[i].own, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, vfs) != SQLITE_OK ||
            pthread_create(&handles[i], NULL, worker_main, &workers[i]) != 0)
            fail("a thread cannot be started");
    }
    for (int i = 0; i < threads; i++) {
        (void)pthread_join(handles[i], NULL);
        (void)sqlite3_close(workers[i].own);
        for (int j = 0; j < ROUNDS; j++) {
            pool[i * ROUNDS + j] = workers[i].pool_ns[j];
            own[i * ROUNDS + j] = workers[i].own_ns[j];
            more[i * ROUNDS + j] = workers[i].pool_ns[j] - workers[i].own_ns[j];
        }
    }
    (void)printf("%3d threads: pool %7.1f ns, own connection %7.1f ns, overhead %6.1f ns\n", threads,
                 median(pool, (size_t)(threads * ROUNDS)), median(own, (size_t)(threads * ROUNDS)),
                 median(more, (size_t)(threads * ROUNDS)));
    free(workers);
    free(pool);
    free(own);
    free(more);
}

int main(int argc, char **argv)
{
    const char *vfs = argc > 1 ? argv[1] : "throng";
    struct throng_stats stats = {.size = sizeof stats};
    char path[] = "/dev/shm/throng-overhead-XXXXXX", dsn[128];
    int fd = mkstemp(path);
    throng_error err;
    throng_db *db;

    if (fd < 0 || close(fd) != 0)
        fail("no file");
    (void)snprintf(dsn, sizeof dsn, "sqlite:%s?vfs=%s%s", path, vfs,
                   strcmp(vfs, "throng") != 0 ? "&journal_mode=wal" : "");
    if (throng_db_open(dsn, NULL, &db, &err) != THRONG_OK ||
        throng_db_exec(db, NULL,
                       "CREATE TABLE t (key INTEGER PRIMARY KEY, value INTEGER);"
                       "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
                       "INSERT INTO t SELECT i, i * 3 FROM n",
                       THRONG_NO_ARGS, NULL, &err) != THRONG_OK ||
        throng_db_prepare(db, NULL, sql, &stmt, &err) != THRONG_OK)
        fail(err.message);
    if (argc <= 2) {
        measure(path, vfs, 1);
        measure(path, vfs, 2);
    }
    for (int i = 2; i < argc; i++) {
        int threads = atoi(argv[i]);

        measure(path, vfs, threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads);
    }
    (void)throng_db_stats(db, &stats, &err);
    (void)printf("%llu connections, %llu waits, %llu locks taken\n", (unsigned long long)stats.open,
                 (unsigned long long)stats.waits, (unsigned long long)stats.lock_acquired);
    if (throng_db_close(db, 0, &err) != THRONG_OK)
        fail(err.message);
    return unlink(path) == 0 ? 0 : 1;
}
