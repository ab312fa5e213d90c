/* A database file that was renamed, replaced or deleted while it is open is known to have moved, as with stock SQLite:
 * it can be read and not be written, until it is back in its place.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdio.h>
#include <unistd.h>

static int has_moved(sqlite3 *db)
{
    int moved = -1;

    CHECK_OK(sqlite3_file_control(db, "main", SQLITE_FCNTL_HAS_MOVED, &moved), db);
    return moved;
}

static void check_moved(sqlite3 *const db[2], bool moved)
{
    sleep_ms(20); /* Throng's writers may take so long to notice */
    for (int i = 0; i < 2; i++) {
        db_expect(db[i], moved ? SQLITE_READONLY_DBMOVED : SQLITE_OK, "INSERT INTO t VALUES(1)");
        CHECK_EQUAL(has_moved(db[i]), moved);
        CHECK(db_int(db[i], "SELECT count(*) FROM t") > 0);
    }
}

static void moves(sqlite3 *open(const char *path), bool is_throng)
{
    char path[PATH_SIZE], link_path[PATH_SIZE], away[PATH_SIZE];
    sqlite3 *db[2];
    int64_t rows;

    (void)path_new(path, "moved");
    (void)path_beside(link_path, path, "-link");
    (void)path_beside(away, path, "-away");
    db[0] = open(path);
    CHECK_EQUAL(has_moved(db[0]), 0);
    db_exec(db[0], "CREATE TABLE t(x)");
    CHECK_EQUAL(symlink(path, link_path), 0);
    db[1] = open(link_path);
    check_moved(db, false);

    CHECK_EQUAL(rename(path, away), 0);
    check_moved(db, true);
    file_write(path, "another file", 12);
    check_moved(db, true);
    CHECK_EQUAL(unlink(path), 0);
    CHECK_EQUAL(rename(away, path), 0);
    check_moved(db, false);

    /* A transaction that began to write before goes through, or not at all. */
    rows = db_int(db[0], "SELECT count(*) FROM t");
    db_exec(db[0], "BEGIN; INSERT INTO t VALUES(2)");
    CHECK_EQUAL(rename(path, away), 0);
    if (db_try(db[0], "COMMIT") == SQLITE_OK)
        rows++;
    else
        (void)db_try(db[0], "ROLLBACK");
    CHECK_EQUAL(rename(away, path), 0);
    CHECK_EQUAL(db_int(db[1], "SELECT count(*) FROM t"), rows);

    CHECK_EQUAL(link(path, away), 0); /* to have it back afterwards */
    CHECK_EQUAL(unlink(path), 0);
    check_moved(db, true);
    db_close(db[0]);
    CHECK_EQUAL(has_moved(db[1]), 1);
    db_close(db[1]);
    CHECK(!file_exists(path));
    if (is_throng)
        oracle_check(away);
    db[0] = db_stock(away);
    CHECK_EQUAL(db_int(db[0], "SELECT count(*) FROM t"), rows);
    db_close(db[0]);
}

static void a_moved_file_is_not_written(void **state)
{
    (void)state;
    moves(db_open, support_is_throng());
}

static void stock_says_the_same(void **state)
{
    (void)state;
    moves(db_stock, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_moved_file_is_not_written),
        cmocka_unit_test(stock_says_the_same),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
