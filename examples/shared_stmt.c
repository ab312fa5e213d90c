/* One prepared statement, many threads: each connection compiles it once, and nobody waits for anybody.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <throng/pool.h>

enum { THREADS = 8, QUERIES = 5000, ROWS = 1000 };

static throng_stmt by_key;

static void check(int code, const throng_error *err)
{
    if (code == THRONG_OK)
        return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

static void *worker(void *arg)
{
    unsigned seed = (unsigned)(size_t)arg;

    for (int i = 0; i < QUERIES; i++) {
        int64_t key = rand_r(&seed) % ROWS + 1;
        throng_error err;
        throng_rows rows;
        int code;

        check(throng_stmt_query(&by_key, NULL, THRONG_ARGS(throng_int(key)), &rows, &err), &err);
        if ((code = throng_rows_next(&rows, &err)) != THRONG_ROW)
            check(code, &err);
        if (throng_rows_int(&rows, 0) != key * key)
            exit(1);
        check(throng_rows_close(&rows, &err), &err); /* gives the connection back before the end */
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct throng_stats stats = {.size = sizeof stats};
    pthread_t threads[THREADS];
    throng_error err;
    throng_db *db;

    check(throng_db_open(argc > 1 ? argv[1] : "squares.db", NULL, &db, &err), &err);
    check(throng_db_exec(db, NULL,
                         "DROP TABLE IF EXISTS square;"
                         "CREATE TABLE square (n INTEGER PRIMARY KEY, value INTEGER);"
                         "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000)"
                         "INSERT INTO square SELECT n, n * n FROM s",
                         THRONG_NO_ARGS, NULL, &err),
          &err);
    check(throng_db_prepare(db, NULL, "SELECT value FROM square WHERE n = ?", &by_key, &err), &err);
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, worker, (void *)(i + 1));
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    check(throng_db_stats(db, &stats, &err), &err);
    printf("%llu statements on %llu connections, compiled %llu times\n", (unsigned long long)stats.statements,
           (unsigned long long)stats.open, (unsigned long long)stats.cache_misses);
    throng_stmt_close(&by_key);
    check(throng_db_close(db, 0, &err), &err);
    return 0;
}
