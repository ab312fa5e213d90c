/* How the pool starts SQLite. Each case in a process of its own: SQLite starts once.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "throng.h"
#include "throng/pool.h"

static int lines;

static void count_line(void *arg, const char *message)
{
    (void)arg;
    CHECK(strstr(message, "SQLITE_CONFIG_MEMSTATUS") != NULL);
    lines++;
}

static void open_and_close(void)
{
    struct throng_db_options options = {.size = sizeof options, .log = count_line};
    throng_error err;
    throng_db *db;

    CHECK_EQUAL(throng_db_open(":memory:", &options, &db, &err), THRONG_OK);
    CHECK_EQUAL(throng_db_exec(db, NULL, "SELECT randomblob(10000)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_db_close(db, 0, &err), THRONG_OK);
}

static void the_pool_starts(void *arg)
{
    sqlite3_int64 used = 0, most = 0;

    (void)arg;
    open_and_close();
    CHECK_EQUAL(sqlite3_status64(SQLITE_STATUS_MEMORY_USED, &used, &most, 0), SQLITE_OK);
    CHECK_EQUAL(most, 0);
    CHECK_EQUAL(lines, 0);
    CHECK_EQUAL(sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0), SQLITE_MISUSE); /* it runs */
}

static void somebody_starts(void *arg)
{
    (void)arg;
    CHECK_EQUAL(sqlite3_initialize(), SQLITE_OK);
    open_and_close();
    open_and_close();
    CHECK_EQUAL(lines, 1);
}

static void somebody_starts_without(void *arg)
{
    (void)arg;
    CHECK_EQUAL(sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0), SQLITE_OK);
    CHECK_EQUAL(throng_register(0), SQLITE_OK);
    open_and_close();
    CHECK_EQUAL(lines, 0);
}

/* Property: where the pool starts SQLite, memory is not accounted for; where somebody else has started it with the
 * accounting on, that is said, once; where it is off, nothing is said. */
static void memory_is_not_accounted_for(void **state)
{
    (void)state;
    child_run(the_pool_starts, NULL);
    child_run(somebody_starts, NULL);
    child_run(somebody_starts_without, NULL);
}

/* Signals are the application's: the threads of the pool and of the checkpointer block all that can be blocked. */
static void all_but_this_thread(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int others = 0;

    CHECK(tasks != NULL);
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        char name[300], line[200];
        uint64_t blocked = 0;
        FILE *status;

        if (task->d_name[0] == '.' || atoi(task->d_name) == getpid())
            continue;
        (void)snprintf(name, sizeof name, "/proc/self/task/%s/status", task->d_name);
        CHECK((status = fopen(name, "r")) != NULL);
        while (fgets(line, sizeof line, status) != NULL)
            if (strncmp(line, "SigBlk:", 7) == 0)
                blocked = strtoull(line + 7, NULL, 16);
        (void)fclose(status);
        others++;
        for (int number = 1; number < 32; number++)
            CHECK(number == SIGKILL || number == SIGSTOP || (blocked >> (number - 1) & 1) == 1);
    }
    (void)closedir(tasks);
    CHECK_EQUAL(others, 2);
}

static void threads_beside(void *arg)
{
    struct throng_db_options options = {.size = sizeof options, .log = count_line, .max_lifetime_ns = UINT64_MAX / 2};
    char path[PATH_SIZE], uri[PATH_SIZE + 50];
    sigset_t before = {0}, after = {0};
    void *state = NULL;
    throng_error err;
    throng_db *db;

    (void)arg;
    CHECK_EQUAL(support_setup(&state), 0);
    (void)snprintf(uri, sizeof uri, "file:%s?checkpointer=thread", path_new(path, "signals"));
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    CHECK_EQUAL(throng_db_open(uri, &options, &db, &err), THRONG_OK);
    CHECK_EQUAL(throng_db_exec(db, NULL, "CREATE TABLE t(a)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK_EQUAL(memcmp(&before, &after, sizeof before), 0);
    all_but_this_thread();
    CHECK_EQUAL(throng_db_close(db, 0, &err), THRONG_OK);
    CHECK_EQUAL(support_teardown(&state), 0);
}

static void no_thread_of_ours_gets_a_signal(void **state)
{
    (void)state;
    child_run(threads_beside, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_not_accounted_for),
        cmocka_unit_test(no_thread_of_ours_gets_a_signal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
