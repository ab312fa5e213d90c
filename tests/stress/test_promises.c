/* What each kind of transaction promises to the program that runs it, beside any others.
 * Replay: THRONG_SEED=<n> build/tests/test-promises
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static char path[PATH_SIZE];
static atomic_bool stop;

struct worker {
    struct prng prng;
    int number;
    int rounds;
    atomic_int committed;
};

static bool working(void)
{
    return !atomic_load(&stop) && !check_any_failed();
}

static sqlite3 *db_new(const char *name, const char *sql)
{
    sqlite3 *db = db_open(path_new(path, name));

    db_exec(db, "%s", sql);
    atomic_store(&stop, false);
    return db;
}

#define FILL "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) "

/* --- BEGIN IMMEDIATE --- */

/* Reads rows, sleeps, and writes what it computed from them. No code but SQLITE_OK after it has begun. */
static void immediate_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_open(path);

    for (int i = 0; i < worker->rounds && !check_any_failed(); i++) {
        int row = prng_below(&worker->prng, 20) + 1;
        int64_t hot;
        int64_t other;

        db_exec(db, "BEGIN IMMEDIATE");
        hot = db_int(db, "SELECT n FROM t WHERE id=1");
        other = db_int(db, "SELECT n FROM t WHERE id=%d", row);
        sleep_ms(prng_below(&worker->prng, 4));
        db_exec(db, "UPDATE t SET n=%lld WHERE id=%d", (long long)other + 1, row);
        CHECK_EQUAL(db_int(db, "SELECT n FROM t WHERE id=1"), hot + (row == 1));
        db_exec(db, "UPDATE t SET n=%lld WHERE id=1", (long long)hot + (row == 1) + 1);
        db_exec(db, "INSERT INTO log(v) VALUES(zeroblob(%d))", prng_below(&worker->prng, 3000));
        sleep_ms(prng_below(&worker->prng, 2));
        db_exec(db, "COMMIT");
        (void)atomic_fetch_add(&worker->committed, 2);
    }
    db_close(db);
}

static int optimistic_body(sqlite3 *db, void *arg)
{
    struct worker *worker = arg;
    int row = worker->number == 0 ? 1 : prng_below(&worker->prng, 200) + 1;
    int64_t n;
    int rc = db_try_int(db, &n, "SELECT n FROM t WHERE id=%d", row);

    return rc != SQLITE_OK ? rc : db_try(db, "UPDATE t SET n=%lld WHERE id=%d", (long long)n + 1, row);
}

static void optimistic_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_open(path);

    while (working()) {
        if (prng_below(&worker->prng, 2) == 0)
            (void)db_transaction(db, "BEGIN", optimistic_body, worker);
        else
            db_exec(db, "UPDATE t SET n=n+1 WHERE id=%d", prng_below(&worker->prng, 200) + 1);
        (void)atomic_fetch_add(&worker->committed, 1);
    }
    db_close(db);
}

static void immediate_never_loses(void **state)
{
    struct worker immediate[2];
    struct worker optimistic[2];
    int64_t total = 0;
    sqlite3 *db;

    (void)state;
    db = db_new("immediate", "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, pad); CREATE TABLE log(v)");
    db_exec(db, FILL "INSERT INTO t SELECT i, 0, zeroblob(300) FROM n", 200);
    for (int i = 0; i < 2; i++) {
        optimistic[i] = (struct worker){.prng = prng_new((uint64_t)i), .number = i};
        thread_start(optimistic_thread, &optimistic[i]);
    }
    for (int i = 0; i < 2; i++) {
        immediate[i] = (struct worker){.prng = prng_new((uint64_t)i + 10), .rounds = scaled(300)};
        thread_start(immediate_thread, &immediate[i]);
    }
    threads_join_but(2);
    atomic_store(&stop, true);
    threads_join();
    for (int i = 0; i < 2; i++) {
        CHECK(atomic_load(&optimistic[i].committed) > 0);
        total += atomic_load(&optimistic[i].committed) + atomic_load(&immediate[i].committed);
    }
    CHECK_EQUAL(db_int(db, "SELECT sum(n) FROM t"), total);
    db_close(db);
    oracle_check(path);
}

/* One thread that holds an idle BEGIN IMMEDIATE is not in the way of what it does on another connection. */
static void write_beside_immediate(int size)
{
    sqlite3 *immediate;
    sqlite3 *other;
    uint64_t start;

    other = db_new("beside", "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v);"
                             "INSERT INTO a VALUES(1, 1); INSERT INTO b VALUES(1, 1)");
    immediate = db_open(path); /* it has never read b */
    CHECK_EQUAL(db_int(other, "SELECT v FROM b"), 1);
    db_exec(immediate, "BEGIN IMMEDIATE");
    CHECK_EQUAL(db_int(immediate, "SELECT v FROM a WHERE id=1"), 1);
    db_exec(immediate, "UPDATE a SET v=2 WHERE id=1");
    start = now_ms();
    db_exec(other, "BEGIN; INSERT INTO b VALUES(2, zeroblob(%d)); COMMIT", size);
    db_exec(other, "UPDATE b SET v=2 WHERE id=1");
    db_exec(other, "DELETE FROM b WHERE id=2");
    CHECK(now_ms() - start < BUSY_TIMEOUT_MS / 2); /* it has not waited in vain */
    CHECK_EQUAL(db_int(other, "SELECT v FROM a WHERE id=1"), 1);
    db_exec(immediate, "INSERT INTO a VALUES(2, zeroblob(100000))");
    db_exec(immediate, "COMMIT");
    CHECK_EQUAL(db_int(other, "SELECT v FROM a WHERE id=1"), 2);
    db_close(other);
    db_close(immediate);
    oracle_check(path);
}

static void immediate_delays_only_what_would_spoil_it(void **state)
{
    (void)state;
    write_beside_immediate(100);
    write_beside_immediate(5000);
}

static void immediate_lets_others_grow_the_file(void **state)
{
    (void)state;
    write_beside_immediate(100000);
}

/* A second one waits for the first, as long as its busy timeout. */
static void immediate_excludes_immediate(void **state)
{
    sqlite3 *a;
    sqlite3 *b;

    (void)state;
    a = db_new("two", "CREATE TABLE t(v); INSERT INTO t VALUES(1)");
    b = db_open(path);
    db_exec(a, "BEGIN IMMEDIATE");
    for (int timeout = 0; timeout <= 50; timeout += 50) {
        uint64_t start = now_ms();

        db_exec(b, "PRAGMA busy_timeout=%d", timeout);
        CHECK_EQUAL(db_try(b, "BEGIN IMMEDIATE"), SQLITE_BUSY);
        CHECK(now_ms() - start + 1 >= (uint64_t)timeout);
    }
    CHECK_EQUAL(db_int(b, "SELECT v FROM t"), 1);
    db_exec(a, "UPDATE t SET v=2; COMMIT");
    db_exec(b, "BEGIN IMMEDIATE; UPDATE t SET v=v+1; COMMIT");
    CHECK_EQUAL(db_int(a, "SELECT v FROM t"), 3);
    db_close(a);
    db_close(b);
    oracle_check(path);
}

/* --- BEGIN EXCLUSIVE --- */

static void exclusive_excludes_writers_not_readers(void **state)
{
    sqlite3 *exclusive;
    sqlite3 *reader;
    sqlite3 *writer;

    (void)state;
    exclusive = db_new("exclusive", "CREATE TABLE t(v); INSERT INTO t VALUES(1); CREATE TABLE u(v)");
    reader = db_open(path);
    writer = db_open(path);
    db_exec(reader, "BEGIN");
    CHECK_EQUAL(db_int(reader, "SELECT v FROM t"), 1);
    db_exec(exclusive, "BEGIN EXCLUSIVE; UPDATE t SET v=2");
    for (int timeout = 0; timeout <= 50; timeout += 50) {
        uint64_t start = now_ms();

        db_exec(writer, "PRAGMA busy_timeout=%d", timeout);
        CHECK_EQUAL(db_try(writer, "INSERT INTO u VALUES(1)"), SQLITE_BUSY);
        CHECK_EQUAL(db_try(writer, "BEGIN IMMEDIATE"), SQLITE_BUSY);
        CHECK_EQUAL(db_try(writer, "BEGIN EXCLUSIVE"), SQLITE_BUSY);
        CHECK(now_ms() - start + 3 >= 3 * (uint64_t)timeout);
        CHECK(now_ms() - start < BUSY_TIMEOUT_MS);
    }
    CHECK_EQUAL(db_int(writer, "SELECT v FROM t"), 1); /* a new reader */
    CHECK_EQUAL(db_int(reader, "SELECT v FROM t"), 1); /* and one from before */
    db_exec(exclusive, "COMMIT");
    CHECK_EQUAL(db_int(reader, "SELECT v FROM t"), 1);
    db_exec(reader, "COMMIT");
    CHECK_EQUAL(db_int(reader, "SELECT v FROM t"), 2);
    db_exec(writer, "INSERT INTO u VALUES(1)");

    db_exec(writer, "BEGIN; INSERT INTO u VALUES(2)"); /* and the other way round */
    db_exec(exclusive, "PRAGMA busy_timeout=50");
    CHECK_EQUAL(db_try(exclusive, "BEGIN EXCLUSIVE"), SQLITE_BUSY);
    db_exec(writer, "COMMIT");
    db_exec(exclusive, "BEGIN EXCLUSIVE; UPDATE t SET v=v+1; ROLLBACK");
    CHECK_EQUAL(db_int(reader, "SELECT v FROM t"), 2);
    CHECK_EQUAL(db_int(reader, "SELECT count(*) FROM u"), 2);
    db_close(exclusive);
    db_close(reader);
    db_close(writer);
    oracle_check(path);
}

/* --- readers --- */

static void increment_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *stmt = db_prepare(db, "UPDATE t SET n=n+1, pad=randomblob(200) WHERE id=?1");

    for (int i = 0; i < worker->rounds && !check_any_failed(); i++) {
        (void)sqlite3_bind_int(stmt, 1, prng_below(&worker->prng, 500) + 1);
        CHECK_OK(stmt_run(stmt), db);
        (void)atomic_fetch_add(&worker->committed, 1);
    }
    CHECK_OK(sqlite3_finalize(stmt), db);
    db_close(db);
}

static void a_long_reader_keeps_its_snapshot(void **state)
{
    static const char all[] = "SELECT * FROM t ORDER BY id";
    struct worker workers[2];
    sqlite3_stmt *cursor;
    uint64_t before;
    sqlite3 *reader;
    sqlite3 *slow;
    sqlite3 *db;
    int rows = 1;

    (void)state;
    db = db_new("reader", "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, pad BLOB)");
    db_exec(db, FILL "INSERT INTO t SELECT i, 0, randomblob(200) FROM n", 500);
    reader = db_open(path);
    db_exec(reader, "PRAGMA cache_size=5; BEGIN");
    before = db_hash(reader, all);
    slow = db_open(path); /* and a statement that is in the middle of its rows */
    db_exec(slow, "PRAGMA cache_size=5");
    cursor = db_prepare(slow, "SELECT n FROM t");
    CHECK_EQUAL(sqlite3_step(cursor), SQLITE_ROW);
    for (int i = 0; i < 2; i++) {
        workers[i] = (struct worker){.prng = prng_new(20 + (uint64_t)i), .rounds = scaled(10000)};
        thread_start(increment_thread, &workers[i]);
    }
    for (bool running = true; running && !check_any_failed();) {
        running = atomic_load(&workers[0].committed) + atomic_load(&workers[1].committed) < 2 * scaled(10000);
        CHECK(db_hash(reader, all) == before);
    }
    threads_join();
    while (sqlite3_step(cursor) == SQLITE_ROW) {
        CHECK_EQUAL(sqlite3_column_int(cursor, 0), 0);
        rows++;
    }
    CHECK_EQUAL(rows, 500);
    CHECK_OK(sqlite3_finalize(cursor), slow);
    CHECK(db_hash(reader, all) == before);
    db_exec(reader, "COMMIT");
    CHECK_EQUAL(db_int(reader, "SELECT sum(n) FROM t"), 2 * scaled(10000));
    db_close(slow);
    db_close(reader);
    db_close(db);
    oracle_check(path);
}

/* --- many at once --- */

#define MANY 128

static int insert_body(sqlite3 *db, void *arg)
{
    const int *number = arg;

    return db_try(db, "INSERT INTO t VALUES(%d, zeroblob(%d))", *number, *number * 40);
}

static void many_transactions_in_one_thread(void **state)
{
    sqlite3 *dbs[MANY];
    sqlite3 *db;
    int committed = 0;

    (void)state;
    db = db_new("many", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    for (int i = 0; i < MANY; i++) {
        dbs[i] = db_open(path);
        db_exec(dbs[i], "BEGIN");
        CHECK_OK(insert_body(dbs[i], &i), dbs[i]);
    }
    for (int i = 0; i < MANY; i++) {
        int rc = db_try(dbs[i], "COMMIT");

        if (rc == SQLITE_OK) {
            committed++;
        } else {
            CHECK_EQUAL(rc, SQLITE_BUSY_SNAPSHOT);
            (void)db_transaction(dbs[i], "BEGIN", insert_body, &i);
        }
    }
    CHECK(committed >= 1);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), MANY);
    for (int i = 0; i < MANY; i++)
        db_close(dbs[i]);
    db_close(db);
    oracle_check(path);
}

/* Each with a table of its own: no conflict, so no retry. */
static void many_tables_in_one_thread(void **state)
{
    sqlite3 *dbs[MANY];
    sqlite3 *db;

    (void)state;
    db = db_new("tables", "");
    for (int i = 0; i < MANY; i++)
        db_exec(db, "CREATE TABLE t%d(v)", i);
    for (int i = 0; i < MANY; i++) {
        dbs[i] = db_open(path);
        db_exec(dbs[i], "BEGIN; INSERT INTO t%d VALUES(zeroblob(%d))", i, i * 100);
    }
    for (int i = MANY - 1; i >= 0; i--)
        db_exec(dbs[i], "COMMIT");
    for (int i = 0; i < MANY; i++) {
        CHECK_EQUAL(db_int(dbs[i], "SELECT length(v) FROM t%d", MANY - 1 - i), (MANY - 1 - i) * 100);
        db_close(dbs[i]);
    }
    db_close(db);
    oracle_check(path);
}

/* --- VACUUM and schema changes beside others --- */

static void blob_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_open(path);

    while (working()) {
        int id = 10 * prng_below(&worker->prng, 50) + worker->number;

        if (prng_below(&worker->prng, 2) == 0)
            db_exec(db, "REPLACE INTO t(id, n, v) VALUES(%d, %d, zeroblob(%d))", id, id,
                    prng_below(&worker->prng, 6000));
        else
            db_exec(db, "DELETE FROM t WHERE id=%d", id);
        (void)atomic_fetch_add(&worker->committed, 1);
    }
    db_close(db);
}

static void reader_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_open(path);

    while (working()) {
        uint64_t hash;

        db_exec(db, "BEGIN");
        hash = db_hash(db, "SELECT id, n, v FROM t ORDER BY id");
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE id<>n"), 0);
        CHECK(db_hash(db, "SELECT id, n, v FROM t ORDER BY id") == hash);
        db_exec(db, "COMMIT");
        (void)atomic_fetch_add(&worker->committed, 1);
    }
    db_close(db);
}

/* `rounds` statements of `next` beside two writers and a reader, none of which may fail. */
static void beside_readers_and_writers(sqlite3 *db, int rounds, void (*next)(sqlite3 *db, int round))
{
    struct worker workers[3];

    for (int i = 0; i < 3; i++) {
        workers[i] = (struct worker){.prng = prng_new(30 + (uint64_t)i), .number = i};
        thread_start(i < 2 ? blob_thread : reader_thread, &workers[i]);
    }
    for (int i = 0; i < rounds && !check_any_failed(); i++) {
        next(db, i);
        sleep_ms(2);
    }
    atomic_store(&stop, true);
    threads_join();
    for (int i = 0; i < 3; i++)
        CHECK(atomic_load(&workers[i].committed) > 0);
}

static void vacuum_round(sqlite3 *db, int round)
{
    int rc = SQLITE_BUSY;

    (void)round;
    for (int i = 0; i < 100 && (rc & 0xff) == SQLITE_BUSY; i++)
        rc = db_try(db, "VACUUM");
    CHECK_OK(rc, db);
}

static void vacuum_beside_readers_and_writers(void **state)
{
    sqlite3 *db;

    (void)state;
    db = db_new("vacuum", "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, v); CREATE INDEX i ON t(n)");
    beside_readers_and_writers(db, scaled(100), vacuum_round);
    db_close(db);
    oracle_check(path);
}

static void schema_round(sqlite3 *db, int round)
{
    switch (round % 6) {
    case 0:
        db_exec(db, "CREATE INDEX by_n ON t(n)");
        break;
    case 1:
        db_exec(db, "CREATE TABLE extra_%d AS SELECT id, v FROM t", round);
        break;
    case 2:
        db_exec(db, "ALTER TABLE t ADD COLUMN c%d INT DEFAULT %d", round, round);
        break;
    case 3:
        db_exec(db, "DROP INDEX by_n");
        break;
    case 4:
        db_exec(db, "DROP TABLE extra_%d", round - 3);
        break;
    default:
        db_exec(db, "ALTER TABLE t DROP COLUMN c%d", round - 3);
    }
}

static void schema_changes_beside_readers_and_writers(void **state)
{
    sqlite3 *db;

    (void)state;
    db = db_new("schema", "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, v)");
    beside_readers_and_writers(db, scaled(240), schema_round);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE id<>n"), 0);
    db_close(db);
    oracle_check(path);
}

/* --- a write while a SELECT of the same connection is open --- */

static void write_under_an_open_select(void **state)
{
    sqlite3_stmt *select;
    sqlite3 *other;
    sqlite3 *db;
    int rows = 0;

    (void)state;
    db = db_new("select", "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id, v)");
    db_exec(db, FILL "INSERT INTO t SELECT i, zeroblob(500) FROM n", 100);
    other = db_open(path);
    select = db_prepare(db, "SELECT id FROM t");
    while (sqlite3_step(select) == SQLITE_ROW) {
        db_exec(db, "INSERT INTO u VALUES(%d, zeroblob(%d))", sqlite3_column_int(select, 0), rows * 50);
        rows++;
        CHECK_EQUAL(db_int(other, "SELECT count(*) FROM u"), rows); /* committed, though the SELECT is open */
    }
    CHECK_EQUAL(rows, 100);

    CHECK_OK(sqlite3_finalize(select), db);
    db_close(db);
    db_close(other);
    oracle_check(path);
}

/* With a free list: each of the writes finds pages there, and what one of them leaves over the next one may have. */
static void writes_under_an_open_select_share_free_pages(void **state)
{
    sqlite3_stmt *select;
    sqlite3 *other;
    sqlite3 *db;
    int64_t pages;
    int rc = SQLITE_ROW;

    (void)state;
    db = db_new("shared", "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id, v); CREATE TABLE w(v)");
    db_exec(db, FILL "INSERT INTO t SELECT i, zeroblob(500) FROM n", 100);
    db_exec(db, "INSERT INTO w VALUES(zeroblob(1000000)); DELETE FROM w");
    db_close(db);
    db = db_open(path);
    pages = db_int(db, "PRAGMA page_count");
    other = db_open(path);
    select = db_prepare(db, "SELECT id FROM t");
    for (int rows = 0; (rc = sqlite3_step(select)) == SQLITE_ROW; rows++) {
        db_exec(db, rows % 5 == 4 ? "DELETE FROM u WHERE id%%3=0" : "INSERT INTO u VALUES(%d, zeroblob(30000))",
                sqlite3_column_int(select, 0));
        if (support_is_throng()) /* not one page is lost on the way */
            CHECK(db_stat(db, "free_pool_pages") > db_int(other, "PRAGMA freelist_count") - 100);
    }
    CHECK_EQUAL(rc, SQLITE_DONE);
    CHECK_OK(sqlite3_finalize(select), db);
    db_close(db);
    if (support_is_throng())
        CHECK(db_stat(other, "free_pool_pages") >= db_int(other, "PRAGMA freelist_count")); /* and some past the end */
    CHECK(db_int(other, "PRAGMA page_count") < pages + 1000);
    db_close(other);
    oracle_check(path);
}

/* The same when the SELECT's snapshot is no longer the latest. They are one transaction for SQLite, so the write may
 * be refused as in WAL mode, and must be if the SELECT has read what has changed. The SELECT goes on all the same, and
 * when it has ended the write succeeds. */
static void write_under_an_open_select_of_an_old_snapshot(void **state)
{
    sqlite3_stmt *select;
    sqlite3 *other;
    sqlite3 *db;
    int rows = 1;
    int rc;

    (void)state;
    other = db_new("old", "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id, v); CREATE TABLE w(v)");
    db_exec(other, FILL "INSERT INTO t SELECT i, zeroblob(500) FROM n", 100);
    db = db_open(path);
    select = db_prepare(db, "SELECT id FROM t");
    CHECK_EQUAL(sqlite3_step(select), SQLITE_ROW);
    db_exec(other, "INSERT INTO w VALUES(1)");
    rc = db_try(db, "INSERT INTO u VALUES(1, 1)");
    while (sqlite3_step(select) == SQLITE_ROW)
        rows++;
    CHECK_EQUAL(rows, 100);
    if (rc != SQLITE_OK) {
        CHECK_EQUAL(rc, SQLITE_BUSY_SNAPSHOT);
        db_exec(db, "INSERT INTO u VALUES(1, 1)");
    }

    CHECK_OK(sqlite3_reset(select), db);
    CHECK_EQUAL(sqlite3_step(select), SQLITE_ROW);
    db_exec(other, "UPDATE t SET v=1 WHERE id=1");
    CHECK_EQUAL(db_try(db, "INSERT INTO u VALUES(2, 2)"), SQLITE_BUSY_SNAPSHOT);
    for (rows = 1; sqlite3_step(select) == SQLITE_ROW;)
        rows++;
    CHECK_EQUAL(rows, 100);
    CHECK_OK(sqlite3_finalize(select), db);
    db_exec(db, "INSERT INTO u VALUES(2, 2)");
    CHECK_EQUAL(db_int(other, "SELECT count(*) FROM u"), 2);
    db_close(db);
    db_close(other);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(immediate_never_loses),
        cmocka_unit_test(immediate_delays_only_what_would_spoil_it),
        cmocka_unit_test(immediate_lets_others_grow_the_file),
        cmocka_unit_test(immediate_excludes_immediate),
        cmocka_unit_test(exclusive_excludes_writers_not_readers),
        cmocka_unit_test(a_long_reader_keeps_its_snapshot),
        cmocka_unit_test(many_transactions_in_one_thread),
        cmocka_unit_test(many_tables_in_one_thread),
        cmocka_unit_test(vacuum_beside_readers_and_writers),
        cmocka_unit_test(schema_changes_beside_readers_and_writers),
        cmocka_unit_test(write_under_an_open_select),
        cmocka_unit_test(writes_under_an_open_select_share_free_pages),
        cmocka_unit_test(write_under_an_open_select_of_an_old_snapshot),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
