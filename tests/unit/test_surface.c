/* What SQLite's interface promises beside statements: a blob handle's write is there when it is closed without an error.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <string.h>

/* The row changes under a handle that has written or is about to: either that write waits in vain, or the handle's fails. */
static void blob_outside_begin(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *a = db_open(path_new(path, "blob"));
    sqlite3 *b = db_open(path);
    sqlite3_blob *blob;

    (void)state;
    sqlite3_busy_timeout(b, 10);
    db_exec(a, "CREATE TABLE t(id INTEGER PRIMARY KEY, b, n);"
               "INSERT INTO t VALUES(1, zeroblob(20000), 0), (2, zeroblob(20000), 0)");
    for (int round = 0; round < 3; round++) {
        const char text[] = {(char)('A' + round), 'b', 'c', 'd'};
        char got[4];
        bool changed;
        int rc;

        CHECK_OK(sqlite3_blob_open(a, "main", "t", "b", 1, 1, &blob), a);
        if (round == 0)
            changed = db_try(b, "UPDATE t SET n=n+1 WHERE id=1") == SQLITE_OK;
        CHECK_OK(sqlite3_blob_write(blob, text, 4, 0), a);
        if (round > 0)
            changed = db_try(b, "UPDATE t SET n=n+1 WHERE id=1") == SQLITE_OK;
        if (round == 2)
            CHECK_OK(sqlite3_blob_reopen(blob, 2), a);
        rc = sqlite3_blob_close(blob);
        CHECK(rc == SQLITE_OK || changed);
        CHECK_OK(sqlite3_blob_open(b, "main", "t", "b", 1, 0, &blob), b);
        CHECK_OK(sqlite3_blob_read(blob, got, 4, 0), b);
        CHECK_OK(sqlite3_blob_close(blob), b);
        CHECK_EQUAL(memcmp(got, text, 4) == 0, rc == SQLITE_OK);
        CHECK_EQUAL(rc, SQLITE_OK); /* and it does not fail */
        db_exec(b, "UPDATE t SET n=n+1");
    }
    db_close(a);
    db_close(b);
    oracle_check(path);
}

/* Beside a statement that reads, its snapshot is that statement's: it may lose, and then it says so. */
static void blob_beside_a_reader(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *a = db_open(path_new(path, "blob"));
    sqlite3 *b = db_open(path);
    sqlite3_stmt *select;
    sqlite3_blob *blob;
    bool changed;
    int rc;

    (void)state;
    sqlite3_busy_timeout(b, 10);
    db_exec(a, "CREATE TABLE t(id INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, zeroblob(20000)), (2, zeroblob(9))");
    select = db_prepare(a, "SELECT id FROM t");
    CHECK_EQUAL(sqlite3_step(select), SQLITE_ROW);
    CHECK_OK(sqlite3_blob_open(a, "main", "t", "b", 1, 1, &blob), a);
    CHECK_OK(sqlite3_blob_write(blob, "text", 4, 0), a);
    changed = db_try(b, "UPDATE t SET b=zeroblob(9)") == SQLITE_OK;
    rc = sqlite3_blob_close(blob);
    CHECK_EQUAL(rc & 0xff, changed ? SQLITE_BUSY : SQLITE_OK);
    CHECK_EQUAL(db_int(b, "SELECT substr(b, 1, 4)='text' FROM t WHERE id=1"), !changed);
    stmt_end(select);
    db_close(a);
    db_close(b);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blob_outside_begin),
        cmocka_unit_test(blob_beside_a_reader),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
