/* The file is cut off again and again while others read, also by pointers into it, and make it grow: every reader finds each
 * row as it was written, nobody meets the end of the file, and at the end it is whole.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"
#include "throng.h"

#include <stdio.h>

enum { ROWS = 300 };

static char path[PATH_SIZE];
static char uri[2 * PATH_SIZE];
static _Atomic bool over;

static sqlite3 *open_one(void)
{
    sqlite3 *db = NULL;

    CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
    db_exec(db, "PRAGMA busy_timeout=%d; PRAGMA cache_size=10", BUSY_TIMEOUT_MS);
    return db;
}

static int grow(sqlite3 *db)
{
    return db_try(db,
                  "INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
                  "SELECT randomblob(1000) FROM n",
                  ROWS);
}

static void reader(void *arg)
{
    sqlite3 *db = open_one();

    db_exec(db, "PRAGMA mmap_size=%d", *(const int *)arg);
    while (!over && !check_any_failed()) {
        db_exec(db, "BEGIN");
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE length(b) <> 1000"), 0);
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t") - db_int(db, "SELECT count(b) FROM t INDEXED BY i"), 0);
        db_exec(db, "COMMIT");
    }
    db_close(db);
}

static void writer(void *arg)
{
    sqlite3 *db = open_one();

    (void)arg;
    while (!over && !check_any_failed()) {
        CHECK_OK(db_try(db, "INSERT INTO t(b) VALUES(randomblob(1000))"), db);
        sleep_ms(1);
    }
    db_close(db);
}

static void shrinker(void *arg)
{
    bool vacuum = *(const bool *)arg;
    sqlite3 *db = open_one();

    for (int i = 0; i < scaled(40) && !check_any_failed(); i++) {
        CHECK_OK(grow(db), db);
        (void)db_try(db, "PRAGMA wal_checkpoint(FULL)"); /* a reader with pointers may be in the way */
        CHECK_OK(db_try(db, "DELETE FROM t"), db);
        if (vacuum)
            CHECK_OK(db_try(db, "VACUUM"), db);
        (void)db_try(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
    over = true;
    db_close(db);
}

static void run(bool vacuum, const char *level)
{
    static const int MMAP[] = {0, 1 << 30};
    sqlite3 *db;

    (void)snprintf(uri, sizeof uri, "file:%s?checkpoint_bytes=200000", path_new(path, "shrink"));
    db = open_one();
    db_exec(db, "PRAGMA page_size=1024; PRAGMA auto_vacuum=%d; PRAGMA synchronous=%s", !vacuum, level);
    db_exec(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)");
    over = false;
    thread_start(shrinker, &vacuum);
    thread_start(writer, NULL);
    thread_start(reader, (void *)(uintptr_t)&MMAP[0]);
    thread_start(reader, (void *)(uintptr_t)&MMAP[1]);
    threads_join();
    db_exec(db, "DELETE FROM t");
    if (vacuum)
        db_exec(db, "VACUUM");
    db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    CHECK(file_size(path) < 20 * 1024);
    /* A later checkpoint looks at pages that were cut off not long ago. */
    db_exec(db, "PRAGMA user_version=1; PRAGMA wal_checkpoint(TRUNCATE)");
    CHECK(file_size(path) < 20 * 1024);
    db_close(db);
    oracle_check(path);
}

static void after_vacuum(void **state)
{
    (void)state;
    support_needs_throng();
    run(true, "OFF");
    run(true, "NORMAL");
}

static void after_auto_vacuum(void **state)
{
    (void)state;
    support_needs_throng();
    run(false, "OFF");
    run(false, "NORMAL");
}

/* The file control does what PRAGMA wal_checkpoint does, to one database; sqlite3_wal_checkpoint_v2() cannot. */
static void by_file_control(void **state)
{
    char other[PATH_SIZE];
    sqlite3 *db, *plain;
    int mode = SQLITE_CHECKPOINT_TRUNCATE, frames, moved;
    int64_t before;

    (void)state;
    support_needs_throng();
    (void)snprintf(uri, sizeof uri, "file:%s", path_new(path, "control"));
    db = open_one();
    db_exec(db, "ATTACH '%s' AS x; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE x.u(a)",
            path_new(other, "x"));
    CHECK_OK(grow(db), db);
    db_exec(db, "INSERT INTO u VALUES(zeroblob(100000))");
    before = file_size(path);
    CHECK_OK(sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_FULL, &frames, &moved), db);
    CHECK_EQUAL(file_size(path), before);
    before = file_size(other);
    CHECK_OK(sqlite3_file_control(db, "main", THRONG_FCNTL_CHECKPOINT, &mode), db);
    CHECK(file_size(path) > ROWS * 1000);
    CHECK_EQUAL(file_size(other), before);
    CHECK_OK(sqlite3_file_control(db, "x", THRONG_FCNTL_CHECKPOINT, &mode), db);
    CHECK(file_size(other) > 100000);
    db_exec(db, "DELETE FROM t; VACUUM");
    mode = SQLITE_CHECKPOINT_PASSIVE;
    CHECK_OK(sqlite3_file_control(db, NULL, THRONG_FCNTL_CHECKPOINT, &mode), db);
    CHECK(file_size(path) < 20 * 1024);
    db_exec(db, "BEGIN; SELECT * FROM t");
    CHECK_EQUAL(sqlite3_file_control(db, "main", THRONG_FCNTL_CHECKPOINT, &mode), SQLITE_LOCKED);
    CHECK_OK(sqlite3_file_control(db, "x", THRONG_FCNTL_CHECKPOINT, &mode), db);
    db_exec(db, "COMMIT");
    db_close(db);
    oracle_check(path);
    oracle_check(other);
    plain = db_stock(path);
    CHECK_EQUAL(sqlite3_file_control(plain, "main", THRONG_FCNTL_CHECKPOINT, &mode), SQLITE_NOTFOUND);
    db_close(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_vacuum),
        cmocka_unit_test(after_auto_vacuum),
        cmocka_unit_test(by_file_control),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
