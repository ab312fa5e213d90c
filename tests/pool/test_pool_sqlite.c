/* The pool with SQLite, on the engine and on stock SQLite.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "throng/pool.h"

static throng_db *db;
static char path[PATH_SIZE];

static void open_dsn(const char *parameters, struct throng_db_options options)
{
    char dsn[PATH_SIZE + 200];
    throng_error err;

    options.size = sizeof options;
    (void)snprintf(dsn, sizeof dsn, "sqlite:%s?vfs=%s%s%s", path, db_vfs(), *parameters != '\0' ? "&" : "", parameters);
    if (throng_db_open(dsn, &options, &db, &err) != THRONG_OK)
        check_failed(__FILE__, __LINE__, "%s: %s", dsn, err.message);
}

static void open_new(const char *parameters, struct throng_db_options options)
{
    (void)path_new(path, "pool");
    open_dsn(parameters, options);
}

static const struct throng_db_options no_options;

static void close_and_check(void)
{
    throng_error err;

    if (throng_db_close(db, throng_after_ms(20000), &err) != THRONG_OK)
        check_failed(__FILE__, __LINE__, "%s", err.message);
    oracle_check(path);
}

static void exec(const char *sql)
{
    throng_error err;

    if (throng_db_exec(db, NULL, sql, THRONG_NO_ARGS, NULL, &err) != THRONG_OK)
        check_failed(__FILE__, __LINE__, "%s: %s", sql, err.message);
}

static int64_t one_int(const char *sql)
{
    throng_error err;
    throng_rows rows;
    int64_t value;

    if (throng_db_query(db, NULL, sql, THRONG_NO_ARGS, &rows, &err) != THRONG_OK ||
        throng_rows_next(&rows, &err) != THRONG_ROW)
        check_failed(__FILE__, __LINE__, "%s: %s", sql, err.message);
    value = throng_rows_int(&rows, 0);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    return value;
}

/* --- values --- */

/* Property: what is bound comes back, of the same type, byte for byte, by position and by name; also when the caller's
 * bytes are gone before the first row. */
static void values_come_back(void **state)
{
    static const char text[] = "with \0 a zero and \xc3\xa4";
    char gone[] = "gone";
    throng_rows rows;
    throng_error err;
    size_t size;

    (void)state;
    open_new("", no_options);
    CHECK_EQUAL(throng_db_query(db, NULL, "SELECT ?, ?, ?, ?, ?, ?, ?, ? AS eight",
                                THRONG_ARGS(throng_null(), throng_int(INT64_MIN), throng_real(-0.1),
                                            throng_text_n(text, sizeof text - 1), throng_blob(text, 3),
                                            throng_blob("", 0), throng_text(gone), throng_text(NULL)),
                                &rows, &err),
                THRONG_OK);
    memset(gone, 'x', sizeof gone - 1);
    CHECK_EQUAL(throng_rows_type(&rows, 1), THRONG_NULL); /* no row yet */
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
    CHECK_EQUAL(throng_rows_columns(&rows), 8);
    CHECK_TEXT(throng_rows_name(&rows, 7), "eight");
    CHECK_EQUAL(throng_rows_type(&rows, 0), THRONG_NULL);
    CHECK_EQUAL(throng_rows_type(&rows, 1), THRONG_INT64);
    CHECK_EQUAL(throng_rows_int(&rows, 1), INT64_MIN);
    CHECK_EQUAL(throng_rows_type(&rows, 2), THRONG_DOUBLE);
    CHECK(fabs(throng_rows_real(&rows, 2) + 0.1) < 1e-15);
    CHECK_EQUAL(throng_rows_type(&rows, 3), THRONG_TEXT);
    CHECK(memcmp(throng_rows_text(&rows, 3, &size), text, sizeof text) == 0);
    CHECK_EQUAL(size, sizeof text - 1);
    CHECK_EQUAL(throng_rows_type(&rows, 4), THRONG_BLOB);
    CHECK(memcmp(throng_rows_blob(&rows, 4, &size), text, 3) == 0);
    CHECK_EQUAL(size, 3);
    CHECK_EQUAL(throng_rows_type(&rows, 5), THRONG_BLOB);
    CHECK(throng_rows_blob(&rows, 5, &size) != NULL);
    CHECK_EQUAL(size, 0);
    CHECK_TEXT(throng_rows_text(&rows, 6, NULL), "gone");
    CHECK_EQUAL(throng_rows_type(&rows, 7), THRONG_NULL);
    CHECK(throng_rows_text(&rows, 7, NULL) == NULL);
    CHECK_EQUAL(throng_rows_int(&rows, 8), 0);
    CHECK(throng_rows_name(&rows, -1) == NULL);
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_DONE);
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_DONE);
    CHECK_EQUAL(throng_rows_columns(&rows), 0);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);

    CHECK_EQUAL(throng_db_query(db, NULL, "SELECT :a, @b, $c, :a",
                                THRONG_ARGS(throng_named("b", throng_int(2)), throng_named("$c", throng_int(3)),
                                            throng_named(":a", throng_int(1))),
                                &rows, &err),
                THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(throng_rows_int(&rows, i), i % 3 + 1);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    exec("CREATE TABLE typed (a INTEGER, b VARCHAR(3))");
    CHECK_EQUAL(throng_db_query(db, NULL, "SELECT b, a + 1 FROM typed", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
    CHECK_TEXT(throng_rows_decltype(&rows, 0), "VARCHAR(3)");
    CHECK(throng_rows_decltype(&rows, 1) == NULL);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    close_and_check();
}

static void expect_error(const char *sql, const throng_value *args, size_t count, int code, int driver_code,
                         const char *message)
{
    throng_error err;

    memset(&err, 0x5a, sizeof err);
    CHECK_EQUAL(throng_db_exec(db, NULL, sql, args, count, NULL, &err), code);
    CHECK_EQUAL(throng_db_exec(db, NULL, sql, args, count, NULL, NULL), code);
    CHECK_EQUAL(err.code, code);
    CHECK_EQUAL(err.driver_code, driver_code);
    if (strstr(err.message, message) == NULL)
        check_failed(__FILE__, __LINE__, "\"%s\" is not in \"%s\"", message, err.message);
}

/* Property: an error says what it is, with SQLite's extended code, its message, the statement, and the place in it. */
static void errors_say_what_they_are(void **state)
{
    char longest[600];
    throng_error err;

    (void)state;
    open_new("", no_options);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE NOT NULL CHECK (b > 0))");
    exec("INSERT INTO t VALUES (1, 1)");
    expect_error("INSERT INTO t VALUES (1, 2)", THRONG_NO_ARGS, THRONG_CONSTRAINT, SQLITE_CONSTRAINT_PRIMARYKEY, "t.a");
    expect_error("INSERT INTO t VALUES (2, 1)", THRONG_NO_ARGS, THRONG_CONSTRAINT, SQLITE_CONSTRAINT_UNIQUE, "t.b");
    expect_error("INSERT INTO t VALUES (2, NULL)", THRONG_NO_ARGS, THRONG_CONSTRAINT, SQLITE_CONSTRAINT_NOTNULL, "t.b");
    expect_error("INSERT INTO t VALUES (2, ?)", THRONG_ARGS(throng_int(-1)), THRONG_CONSTRAINT, SQLITE_CONSTRAINT_CHECK,
                 "CHECK");
    expect_error("SELECT ?", THRONG_NO_ARGS, THRONG_MISUSE, 0, "1 parameters, there are 0");
    expect_error("SELECT 1", THRONG_ARGS(throng_int(1)), THRONG_MISUSE, 0, "0 parameters, there are 1");
    expect_error("SELECT :a", THRONG_ARGS(throng_named("b", throng_int(1))), THRONG_MISUSE, 0, ":a has no argument");
    expect_error("SELECT :a, :b", THRONG_ARGS(throng_int(1), throng_named("b", throng_int(1))), THRONG_MISUSE, 0,
                 "some are not");
    expect_error("SELECT 1; SELECT ?", THRONG_ARGS(throng_int(1)), THRONG_MISUSE, 0, "single statement");
    expect_error("SELECT 1; SELECT missing", THRONG_NO_ARGS, THRONG_ERROR, SQLITE_ERROR, "no such column: missing");
    CHECK_EQUAL(throng_db_exec(db, NULL, "SELECT 1 FROM nowhere", THRONG_NO_ARGS, NULL, &err), THRONG_ERROR);
    CHECK_TEXT(err.message, "no such table: nowhere");
    CHECK_TEXT(err.sql, "SELECT 1 FROM nowhere");
    CHECK_EQUAL(throng_db_exec(db, NULL, "SELECT a, FROM t", THRONG_NO_ARGS, NULL, &err), THRONG_ERROR);
    CHECK_EQUAL(err.position, 10);
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    memcpy(longest, "SELECT \xc3\xa4", 9);
    CHECK_EQUAL(throng_db_exec(db, NULL, longest, THRONG_NO_ARGS, NULL, &err), THRONG_ERROR);
    CHECK_EQUAL(strlen(err.sql), sizeof err.sql - 1);
    CHECK_EQUAL(throng_db_exec(db, NULL, " -- nothing\n ;", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 1);
    close_and_check();
}

/* Property: several statements run one after the other up to the one that fails; what a statement has done is told. */
static void exec_tells_what_it_did(void **state)
{
    throng_result result;
    throng_error err;

    (void)state;
    open_new("", no_options);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 1); /* and */ INSERT INTO t VALUES (2, "
         "2);");
    CHECK_EQUAL(throng_db_exec(db, NULL, "UPDATE t SET b = b + 1", THRONG_NO_ARGS, &result, &err), THRONG_OK);
    CHECK_EQUAL(result.changes, 2);
    CHECK_EQUAL(throng_db_exec(db, NULL, "UPDATE t SET b = 0 WHERE a = 9", THRONG_NO_ARGS, &result, &err), THRONG_OK);
    CHECK_EQUAL(result.changes, 0);
    CHECK_EQUAL(throng_db_exec(db, NULL, "INSERT INTO t VALUES (77, 1)", THRONG_NO_ARGS, &result, &err), THRONG_OK);
    CHECK_EQUAL(result.changes, 1);
    CHECK_EQUAL(result.last_insert_id, 77);
    CHECK_EQUAL(throng_db_exec(db, NULL, "CREATE TABLE u (a)", THRONG_NO_ARGS, &result, &err), THRONG_OK);
    CHECK_EQUAL(result.changes, 0);
    CHECK_EQUAL(
        throng_db_exec(db, NULL, "DELETE FROM t; DELETE FROM nowhere; DROP TABLE u", THRONG_NO_ARGS, NULL, &err),
        THRONG_ERROR);
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 0);
    CHECK_EQUAL(one_int("SELECT count(*) FROM u"), 0);
    close_and_check();
}

/* Property: a statement that writes and returns rows has written all of it, even if only the first row is read, and what
 * its end says is told by throng_rows_close(). */
static void returning_writes_all(void **state)
{
    throng_rows rows;
    throng_error err;

    (void)state;
    open_new("foreign_keys=on", no_options);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY);"
         "CREATE TABLE child (a REFERENCES t DEFERRABLE INITIALLY DEFERRED)");
    CHECK_EQUAL(
        throng_db_query(db, NULL, "INSERT INTO t VALUES (1), (2), (3) RETURNING a", THRONG_NO_ARGS, &rows, &err),
        THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 3);
    CHECK_EQUAL(throng_db_query(db, NULL, "INSERT INTO child VALUES (9) RETURNING a", THRONG_NO_ARGS, &rows, &err),
                THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_CONSTRAINT); /* at its commit */
    CHECK_EQUAL(err.driver_code, SQLITE_CONSTRAINT_FOREIGNKEY);
    CHECK_EQUAL(one_int("SELECT count(*) FROM child"), 0);
    close_and_check();
}

/* --- transactions --- */

/* Property: a transaction is all or nothing, savepoints within it likewise, and what ends early takes what is in it. */
static void transactions_and_savepoints(void **state)
{
    throng_tx tx, one, two;
    throng_rows rows;
    throng_error err;

    (void)state;
    open_new("", no_options);
    exec("CREATE TABLE t (a)");
    CHECK_EQUAL(throng_db_begin(db, NULL, &tx, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_exec(&tx, NULL, "INSERT INTO t VALUES (1)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_begin(&tx, &one, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_exec(&one, NULL, "INSERT INTO t VALUES (2)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_begin(&one, &two, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_begin(&one, &two, &err), THRONG_MISUSE); /* there is one already; `two` is gone now */
    CHECK_EQUAL(throng_tx_exec(&tx, NULL, "INSERT INTO t VALUES (3)", THRONG_NO_ARGS, NULL, &err), THRONG_MISUSE);
    CHECK_EQUAL(throng_tx_query(&tx, NULL, "SELECT 1", THRONG_NO_ARGS, &rows, &err), THRONG_MISUSE);
    CHECK_EQUAL(throng_tx_rollback(&one, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_begin(&tx, &one, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_exec(&one, NULL, "INSERT INTO t VALUES (4)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_commit(&one, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_commit(&one, &err), THRONG_TX_DONE);
    CHECK_EQUAL(throng_tx_begin(&tx, &one, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_commit(&tx, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_commit(&one, &err), THRONG_TX_DONE);
    CHECK_EQUAL(one_int("SELECT sum(a) FROM t"), 5);
    CHECK_EQUAL(throng_db_begin(db, NULL, &tx, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_exec(&tx, NULL, "DELETE FROM t", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_rollback(&tx, &err), THRONG_OK);
    CHECK_EQUAL(one_int("SELECT sum(a) FROM t"), 5);
    close_and_check();
}

/* Property: a transaction that ended by itself, or in SQL, says so: nothing runs outside of it by mistake. */
static void a_transaction_that_is_gone_says_so(void **state)
{
    static const char *const ends[] = {"COMMIT", "ROLLBACK", "INSERT OR ROLLBACK INTO t VALUES (1)",
                                       "ROLLBACK; INSERT INTO t VALUES (50)"};
    throng_error err;
    throng_tx tx;

    (void)state;
    open_new("", no_options);
    exec("CREATE TABLE t (a UNIQUE); INSERT INTO t VALUES (1)");
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(throng_db_begin(db, NULL, &tx, &err), THRONG_OK);
        (void)throng_tx_exec(&tx, NULL, ends[i], THRONG_NO_ARGS, NULL, &err);
        CHECK_EQUAL(throng_tx_exec(&tx, NULL, "INSERT INTO t VALUES (99)", THRONG_NO_ARGS, NULL, &err), THRONG_TX_DONE);
        CHECK_EQUAL(throng_tx_commit(&tx, &err), THRONG_TX_DONE);
    }
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 1);
    close_and_check();
}

/* Property: a transaction that somebody opens in SQL on a connection of the pool does not stay there. */
static void nobody_inherits_a_transaction(void **state)
{
    throng_error err;
    throng_conn conn;

    (void)state;
    open_new("", (struct throng_db_options){.max_open = 1});
    exec("CREATE TABLE t (a)");
    CHECK_EQUAL(throng_db_exec(db, NULL, "BEGIN", THRONG_NO_ARGS, NULL, &err), THRONG_MISUSE);
    CHECK(strstr(err.message, "left open") != NULL);
    CHECK_EQUAL(throng_db_exec(db, NULL, "BEGIN; INSERT INTO t VALUES (1)", THRONG_NO_ARGS, NULL, &err), THRONG_MISUSE);
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "SAVEPOINT mine", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "INSERT INTO t VALUES (1)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&conn, &err), THRONG_MISUSE);
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 0);
    exec("BEGIN; INSERT INTO t VALUES (1); COMMIT");
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 1);
    close_and_check();
}

/* Property: a read-only transaction, however it is begun, refuses to write with SQLITE_READONLY, goes on reading, and
 * leaves nothing behind: the next transaction on the connection writes. */
static void read_only_transactions_refuse_to_write(void **state)
{
    static const char *const begins[] = {"BEGIN READONLY", " /* x */ begin -- y\n readonly transaction;",
                                         "BEGIN READONLY"};
    static const char *const ends[] = {"COMMIT", "ROLLBACK", "END"};
    struct throng_tx_options options = {.size = sizeof options, .read_only = 1};
    throng_error err;
    throng_conn conn;
    throng_tx tx;

    (void)state;
    open_new("", (struct throng_db_options){.max_open = 1});
    exec("CREATE TABLE t (a)");
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err), THRONG_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, begins[i], THRONG_NO_ARGS, NULL, &err), THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "INSERT INTO t VALUES (1)", THRONG_NO_ARGS, NULL, &err),
                    THRONG_READONLY);
        CHECK_EQUAL(err.driver_code, SQLITE_READONLY);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "DROP TABLE t", THRONG_NO_ARGS, NULL, &err), THRONG_READONLY);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "SELECT * FROM t", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, ends[i], THRONG_NO_ARGS, NULL, &err), THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "BEGIN CONCURRENT TRANSACTION", THRONG_NO_ARGS, NULL, &err),
                    THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "INSERT INTO t VALUES (1)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "COMMIT", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    }
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "BEGIN READONLY NOW", THRONG_NO_ARGS, NULL, &err), THRONG_ERROR);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "BEGIN READONLY", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&conn, &err), THRONG_MISUSE); /* left open */
    exec("INSERT INTO t VALUES (2)");
    CHECK_EQUAL(throng_db_begin(db, &options, &tx, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_exec(&tx, NULL, "BEGIN READONLY", THRONG_NO_ARGS, NULL, &err), THRONG_ERROR);
    CHECK_EQUAL(throng_tx_exec(&tx, NULL, "DELETE FROM t", THRONG_NO_ARGS, NULL, &err), THRONG_READONLY);
    CHECK_EQUAL(throng_tx_commit(&tx, &err), THRONG_OK);
    exec("INSERT INTO t VALUES (3)");
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 5);
    close_and_check();
}

/* --- statements that live through a change of the schema --- */

/* Property: a compiled statement follows the schema: other columns, a table that goes and comes back. */
static void statements_follow_the_schema(void **state)
{
    throng_stmt stmt;
    throng_rows rows;
    throng_error err;

    (void)state;
    open_new("", no_options);
    exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    CHECK_EQUAL(throng_db_prepare(db, NULL, "SELECT * FROM t", &stmt, &err), THRONG_OK);
    for (int columns = 1; columns < 6; columns++) {
        throng_conn conn;
        char sql[64];

        CHECK_EQUAL(throng_stmt_query(&stmt, NULL, THRONG_NO_ARGS, &rows, &err), THRONG_OK);
        CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
        CHECK_EQUAL(throng_rows_columns(&rows), columns);
        CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err),
                    THRONG_OK); /* another connection, where it is compiled too */
        CHECK_EQUAL(throng_conn_stmt_exec(&conn, &stmt, NULL, THRONG_NO_ARGS, NULL, &err), THRONG_OK);
        CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
        (void)snprintf(sql, sizeof sql, "ALTER TABLE t ADD COLUMN c%d DEFAULT %d", columns, columns);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, sql, THRONG_NO_ARGS, NULL, &err), THRONG_OK);
        CHECK_EQUAL(throng_conn_close(&conn, &err), THRONG_OK);
    }
    exec("DROP TABLE t");
    CHECK_EQUAL(throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, &err), THRONG_ERROR);
    CHECK_TEXT(err.message, "no such table: t");
    exec("CREATE TABLE t (x, y)");
    CHECK_EQUAL(throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    throng_stmt_close(&stmt);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "SELEC", &stmt, &err), THRONG_ERROR);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "SELECT 1; SELECT 2", &stmt, &err), THRONG_MISUSE);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "", &stmt, &err), THRONG_MISUSE);
    CHECK_EQUAL(throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, &err), THRONG_CLOSED);
    close_and_check();
}

/* Property: the same statement can be open several times on one connection, each at a place of its own. */
static void one_statement_open_many_times(void **state)
{
    throng_rows rows[100];
    throng_error err;
    throng_stmt stmt;
    throng_tx tx;

    (void)state;
    open_new("", (struct throng_db_options){.max_open = 1, .cached_statements = 8});
    exec("CREATE TABLE t (a); INSERT INTO t VALUES (0), (1), (2), (3)");
    CHECK_EQUAL(throng_db_prepare(db, NULL, "SELECT a FROM t ORDER BY a", &stmt, &err), THRONG_OK);
    CHECK_EQUAL(throng_db_begin(db, NULL, &tx, &err), THRONG_OK);
    for (int i = 0; i < 100; i++) {
        CHECK_EQUAL(throng_tx_stmt_query(&tx, &stmt, NULL, THRONG_NO_ARGS, &rows[i], &err), THRONG_OK);
        for (int j = 0; j <= i % 4; j++)
            CHECK_EQUAL(throng_rows_next(&rows[i], &err), THRONG_ROW);
    }
    for (int i = 0; i < 100; i++)
        CHECK_EQUAL(throng_rows_int(&rows[i], 0), i % 4);
    CHECK_EQUAL(throng_rows_close(&rows[3], &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_commit(&tx, &err), THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&rows[4], &err), THRONG_CLOSED);
    close_and_check();
}

/* --- time --- */

#define FOR_EVER "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

static void fire_soon(void *arg)
{
    sleep_ms(30);
    throng_cancel_fire(arg);
}

/* Property: a query that would run for ever ends at its deadline and when its token fires, also inside a transaction, and
 * so does waiting for SQLite's lock; the connection serves the next one. */
static void running_queries_end(void **state)
{
    (void)state;
    open_new("", (struct throng_db_options){.max_open = 2});
    exec("CREATE TABLE t (a)");
    for (int i = 0; i < 4; i++) {
        bool cancels = i % 2 == 1;
        struct throng_options options = {.size = sizeof options};
        struct throng_tx_options alone = {.size = sizeof alone, .mode = THRONG_IMMEDIATE};
        throng_cancel *cancel = cancels ? throng_cancel_new() : NULL;
        uint64_t began = now_ms();
        throng_error err;
        throng_tx tx = {0};
        int code;

        if (i >= 2) /* a lock that is not given back */
            CHECK_EQUAL(throng_db_begin(db, &alone, &tx, &err), THRONG_OK);
        options.deadline_ns = cancels ? 0 : throng_after_ms(30);
        options.cancel = cancel;
        alone.deadline_ns = options.deadline_ns;
        alone.cancel = cancel;
        if (cancels)
            thread_start(fire_soon, cancel);
        if (i < 2) {
            code = throng_db_exec(db, &options, FOR_EVER, THRONG_NO_ARGS, NULL, &err);
        } else {
            throng_tx second;

            code = throng_db_begin(db, &alone, &second, &err);
        }
        CHECK_EQUAL(code, cancels ? THRONG_CANCELED : THRONG_TIMEOUT);
        CHECK_EQUAL(err.code, code);
        CHECK(now_ms() - began < 4000); /* of a busy_timeout of 5000 */
        threads_join();
        if (i >= 2)
            CHECK_EQUAL(throng_tx_commit(&tx, &err), THRONG_OK);
        throng_cancel_free(cancel);
        exec("INSERT INTO t VALUES (1)");
    }
    CHECK_EQUAL(one_int("SELECT count(*) FROM t"), 4);
    close_and_check();
}

/* --- conflicts --- */

enum { ACCOUNTS = 4, BANKERS = 6 };

struct banker {
    int index, runs;
    int64_t done;
};

static int move_one(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    struct prng *prng = arg;
    int from = prng_below(prng, ACCOUNTS), to = prng_below(prng, ACCOUNTS), code;
    throng_rows rows;
    int64_t balance;

    (void)attempt;
    code = throng_tx_query(tx, NULL, "SELECT b FROM account WHERE id = ?", THRONG_ARGS(throng_int(from)), &rows, err);
    if (code != THRONG_OK)
        return code;
    if ((code = throng_rows_next(&rows, err)) != THRONG_ROW)
        return code;
    balance = throng_rows_int(&rows, 0);
    if ((code = throng_rows_close(&rows, err)) != THRONG_OK)
        return code;
    code = throng_tx_exec(tx, NULL, "UPDATE account SET b = ? WHERE id = ?",
                          THRONG_ARGS(throng_int(balance - 1), throng_int(from)), NULL, err);
    if (code == THRONG_OK)
        code = throng_tx_exec(tx, NULL, "UPDATE account SET b = b + 1 WHERE id = ?", THRONG_ARGS(throng_int(to)), NULL,
                              err);
    return code != THRONG_OK
               ? code
               : throng_tx_exec(tx, NULL, "UPDATE done SET n = n + 1 WHERE who = 1", THRONG_NO_ARGS, NULL, err);
}

static void banker_thread(void *arg)
{
    struct banker *banker = arg;
    struct prng prng = prng_new((uint64_t)banker->index);

    for (int i = 0; i < banker->runs; i++) {
        throng_error err;

        if (throng_transact(db, NULL, move_one, &prng, &err) != THRONG_OK)
            check_failed(__FILE__, __LINE__, "%s (%d)", err.message, err.driver_code);
    }
}

/* Property: however hard transactions conflict, each that throng_transact() says is committed counts exactly once. */
static void transact_loses_nothing(void **state)
{
    struct banker bankers[BANKERS];
    int runs = scaled(150);

    (void)state;
    open_new(support_is_throng() ? "synchronous=off" : "journal_mode=wal&synchronous=off", no_options);
    exec("CREATE TABLE account (id INTEGER PRIMARY KEY, b INTEGER); CREATE TABLE done (who INTEGER PRIMARY KEY, n);"
         "INSERT INTO account VALUES (0, 100), (1, 100), (2, 100), (3, 100); INSERT INTO done VALUES (1, 0)");
    for (int i = 0; i < BANKERS; i++) {
        bankers[i] = (struct banker){.index = i, .runs = runs};
        thread_start(banker_thread, &bankers[i]);
    }
    threads_join();
    CHECK_EQUAL(one_int("SELECT sum(b) FROM account"), 100 * ACCOUNTS);
    CHECK_EQUAL(one_int("SELECT n FROM done"), runs * BANKERS);
    close_and_check();
}

struct rival {
    uint32_t attempts, refused; /* refused: the first attempt beside which nobody could spoil anything */
};

/* Somebody changes what was read, each time. */
static int is_spoiled(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    struct rival *rival = arg;
    throng_rows rows;
    int code;

    rival->attempts = attempt;
    if ((code = throng_tx_query(tx, NULL, "SELECT b FROM t", THRONG_NO_ARGS, &rows, err)) != THRONG_OK)
        return code;
    if ((code = throng_rows_next(&rows, err)) != THRONG_ROW || (code = throng_rows_close(&rows, err)) != THRONG_OK)
        return code;
    code = throng_db_exec(db, NULL, "UPDATE t SET b = b + 1", THRONG_NO_ARGS, NULL, NULL);
    if (code != THRONG_OK && rival->refused == 0)
        rival->refused = attempt;
    CHECK(code == THRONG_OK || code == THRONG_BUSY);
    return throng_tx_exec(tx, NULL, "UPDATE t SET b = b + 100", THRONG_NO_ARGS, NULL, err);
}

/* Property: a transaction that loses each time becomes one that cannot lose, unless more attempts were not wanted. */
static void transact_does_not_lose_for_ever(void **state)
{
    struct throng_transact_options few = {.size = sizeof few, .max_attempts = 3};
    struct rival rival = {0};
    throng_error err;

    (void)state;
    open_new(support_is_throng() ? "synchronous=off&busy_timeout=20"
                                 : "journal_mode=wal&synchronous=off&busy_timeout=20",
             no_options);
    exec("CREATE TABLE t (b); INSERT INTO t VALUES (0)");
    CHECK_EQUAL(throng_transact(db, &few, is_spoiled, &rival, &err), THRONG_CONFLICT);
    CHECK_EQUAL(rival.attempts, 3);
    CHECK_EQUAL(rival.refused, 0);
    CHECK_EQUAL(one_int("SELECT b FROM t"), 3);
    CHECK_EQUAL(throng_transact(db, NULL, is_spoiled, &rival, &err), THRONG_OK);
    CHECK_EQUAL(rival.attempts, 7);
    CHECK_EQUAL(rival.refused, 7);
    CHECK_EQUAL(one_int("SELECT b FROM t"), 109);
    close_and_check();
}

/* --- opening --- */

static void expect_no_pool(const char *dsn, struct throng_db_options options, int code)
{
    throng_error err;

    options.size = sizeof options;
    CHECK_EQUAL(throng_db_open(dsn, &options, &db, &err), code);
    CHECK(db == NULL);
    CHECK_EQUAL(err.code, code);
}

static int count_open(void *native, void *arg)
{
    ++*(int *)arg;
    return sqlite3_exec(native, "CREATE TEMP TABLE mine (a)", NULL, NULL, NULL);
}

static int refuse_open(void *native, void *arg)
{
    (void)native;
    (void)arg;
    return 1;
}

/* Property: a DSN is understood or refused; what it sets is set on each connection; a plain path is taken literally. */
static void a_dsn_says_how_to_open(void **state)
{
    struct throng_db_options one = {.size = sizeof one, .max_open = 1};
    throng_conn conns[3];
    char strange[PATH_SIZE];
    throng_error err;
    int opened = 0;

    (void)state;
    open_new("synchronous=off&cache_size=77&foreign_keys=on&busy_timeout=1",
             (struct throng_db_options){.on_open = count_open, .on_open_arg = &opened});
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(throng_db_conn(db, NULL, &conns[i], &err), THRONG_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(db_int(throng_conn_native(&conns[i]), "PRAGMA cache_size"), 77);
        CHECK_EQUAL(db_int(throng_conn_native(&conns[i]), "PRAGMA synchronous"), 0);
        CHECK_EQUAL(db_int(throng_conn_native(&conns[i]), "PRAGMA foreign_keys"), 1);
        CHECK_EQUAL(throng_conn_exec(&conns[i], NULL, "INSERT INTO mine VALUES (1)", THRONG_NO_ARGS, NULL, &err),
                    THRONG_OK);
        CHECK_EQUAL(throng_conn_close(&conns[i], &err), THRONG_OK);
    }
    CHECK_EQUAL(opened, 3);
    close_and_check();
    open_dsn("mode=ro", no_options);
    CHECK_EQUAL(throng_db_exec(db, NULL, "CREATE TABLE t (a)", THRONG_NO_ARGS, NULL, &err), THRONG_READONLY);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);

    CHECK_EQUAL(throng_db_open(path_beside(strange, path, " 100%?#&.db"), NULL, &db, &err), THRONG_OK);
    exec("CREATE TABLE t (a)");
    CHECK(file_exists(strange));
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);

    CHECK_EQUAL(throng_db_open("sqlite::memory:", NULL, &db, &err), THRONG_OK); /* max_open is 1 then */
    exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    CHECK_EQUAL(one_int("SELECT a FROM t"), 1);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
    expect_no_pool(":memory:", (struct throng_db_options){.max_open = 2}, THRONG_MISUSE);
    expect_no_pool("postgres://host/name", no_options, THRONG_MISUSE);
    expect_no_pool("/nowhere/at/all.db", no_options, THRONG_IO);
    expect_no_pool("sqlite:/tmp/x.db?vfs=none", no_options, THRONG_ERROR);
    expect_no_pool("sqlite:x.db?synchronous=off;DROP", no_options, THRONG_MISUSE);
    expect_no_pool("sqlite:x.db?busy_timeout=long", no_options, THRONG_MISUSE);
    expect_no_pool("sqlite:x.db?what", no_options, THRONG_MISUSE);
    expect_no_pool(path, (struct throng_db_options){.on_open = refuse_open}, THRONG_ERROR);
    expect_no_pool(path, (struct throng_db_options){.max_open = 100000}, THRONG_MISUSE);
    one.size = 8;
    CHECK_EQUAL(throng_db_open(path, &one, &db, &err), THRONG_MISUSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back),
        cmocka_unit_test(errors_say_what_they_are),
        cmocka_unit_test(exec_tells_what_it_did),
        cmocka_unit_test(returning_writes_all),
        cmocka_unit_test(transactions_and_savepoints),
        cmocka_unit_test(a_transaction_that_is_gone_says_so),
        cmocka_unit_test(nobody_inherits_a_transaction),
        cmocka_unit_test(read_only_transactions_refuse_to_write),
        cmocka_unit_test(statements_follow_the_schema),
        cmocka_unit_test(one_statement_open_many_times),
        cmocka_unit_test(running_queries_end),
        cmocka_unit_test(transact_loses_nothing),
        cmocka_unit_test(transact_does_not_lose_for_ever),
        cmocka_unit_test(a_dsn_says_how_to_open),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
