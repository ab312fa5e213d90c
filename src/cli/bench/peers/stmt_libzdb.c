/* The work of `throng bench stmt` with libzdb: a connection of the pool for each query, and a statement prepared on it,
 * as libzdb has no statements that connections share.
 *
 * Arguments: database, threads, rows, seconds, connections. Prints operations, processor time in nanoseconds, and seconds.
 *
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zdb.h>

enum { BATCH = 16, WARM_UP = 0, MEASURE, STOP };

static ConnectionPool_T pool;
static long long rows;
static _Atomic int phase;
static _Atomic long long operations;

static unsigned long long next(unsigned long long *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void query(long long id)
{
    PreparedStatement_T statement;
    Connection_T connection;
    ResultSet_T result;

    while ((connection = ConnectionPool_getConnection(pool)) == NULL)
        sched_yield(); /* all are in use, and libzdb does not wait */
    statement = Connection_prepareStatement(connection, "SELECT v FROM t WHERE id=?");
    PreparedStatement_setLLong(statement, 1, id);
    result = PreparedStatement_executeQuery(statement);
    if (!ResultSet_next(result) || strlen(ResultSet_getString(result, 1)) == 0) {
        fprintf(stderr, "libzdb: no row %lld\n", id);
        exit(1);
    }
    Connection_close(connection);
}

static void *work(void *arg)
{
    unsigned long long state = 88172645463325252ULL + (unsigned long long)(size_t)arg * 7919;
    long long counted = 0;
    int now;

    while ((now = atomic_load(&phase)) != STOP) {
        for (int i = 0; i < BATCH; i++)
            query(1 + (long long)(next(&state) % (unsigned long long)rows));
        counted += now == MEASURE ? BATCH : 0;
    }
    atomic_fetch_add(&operations, counted);
    return NULL;
}

static double seconds_of(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    int threads = argc == 6 ? atoi(argv[2]) : 0;
    double seconds = argc == 6 ? atof(argv[4]) : 0, began, cpu;
    pthread_t *thread = calloc((size_t)threads + 1, sizeof *thread);
    char url[4096];

    if (threads < 1 || thread == NULL)
        return 2;
    rows = atoll(argv[3]);
    snprintf(url, sizeof url, "sqlite://%s", argv[1]);
    pool = ConnectionPool_new(URL_new(url));
    ConnectionPool_setInitialConnections(pool, atoi(argv[5]));
    ConnectionPool_setMaxConnections(pool, atoi(argv[5]));
    ConnectionPool_start(pool);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)(size_t)i) != 0)
            return 1;
    usleep(300000);
    began = seconds_of(CLOCK_MONOTONIC);
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    atomic_store(&phase, MEASURE);
    usleep((useconds_t)(seconds * 1e6));
    atomic_store(&phase, STOP);
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    seconds = seconds_of(CLOCK_MONOTONIC) - began;
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    printf("%lld %.0f %f\n", (long long)operations, cpu * 1e9, seconds);
    return 0;
}
