/* How the pool starts SQLite. Each case in a process of its own: SQLite starts once.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_is_not_accounted_for)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
