/* What the pool says is what happened: THRONG_OK and it counts, or an error and it does not, whenever a token fires or a
 * deadline passes.
 *
 * SPDX-License-Identifier: MIT */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "support.h"
#include "throng/pool.h"

static throng_db *db;
static char path[PATH_SIZE];

/* --- stopping at exact places --- */

static throng_cancel *token;      /* fired by the next stop(), if not NULL */
static uint64_t passing_ns;       /* the next stop() waits for this deadline to pass, if not 0 */
static bool stops_in_commit_hook; /* a stop() inside of each commit */
static int commits;

static void stop(void)
{
    if (token != NULL)
        throng_cancel_fire(token);
    while (throng_now_ns() < passing_ns)
        ;
}

static void stop_function(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    stop();
    sqlite3_result_value(context, values[0]);
}

static int commit_hook(void *arg)
{
    (void)arg;
    commits++;
    if (stops_in_commit_hook)
        stop();
    return 0;
}

static int add_stop(void *native, void *arg)
{
    (void)arg;
    (void)sqlite3_commit_hook(native, commit_hook, NULL);
    return sqlite3_create_function(native, "stop", 1, SQLITE_UTF8, NULL, stop_function, NULL, NULL);
}

static void open_new(uint32_t max_open)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = max_open, .on_open = add_stop};
    char dsn[PATH_SIZE + 100];
    throng_error err;

    (void)snprintf(dsn, sizeof dsn, "sqlite:%s?vfs=%s&synchronous=off&foreign_keys=on%s", path_new(path, "truth"),
                   db_vfs(), support_is_throng() ? "" : "&journal_mode=wal");
    if (throng_db_open(dsn, &options, &db, &err) != THRONG_OK)
        check_failed(__FILE__, __LINE__, "%s: %s", dsn, err.message);
}

static void close_and_check(void)
{
    throng_error err;

    if (throng_db_close(db, throng_after_ms(60000), &err) != THRONG_OK)
        check_failed(__FILE__, __LINE__, "%s", err.message);
    oracle_check(path);
}

static void exec(const char *sql)
{
    throng_error err;

    if (throng_db_exec(db, NULL, sql, THRONG_NO_ARGS, NULL, &err) != THRONG_OK)
        check_failed(__FILE__, __LINE__, "%s: %s", sql, err.message);
}

static int64_t one_int(const char *sql, int64_t arg)
{
    throng_error err;
    throng_rows rows;
    int64_t value;

    if (throng_db_query(db, NULL, sql, THRONG_ARGS(throng_int(arg)), &rows, &err) != THRONG_OK ||
        throng_rows_next(&rows, &err) != THRONG_ROW)
        check_failed(__FILE__, __LINE__, "%s: %s", sql, err.message);
    value = throng_rows_int(&rows, 0);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    return value;
}

/* --- the ways to write three rows: a, a + 1, a + 2 --- */

#define THREE "INSERT INTO t VALUES (stop(?1)), (?1 + 1), (?1 + 2)"

static int by_exec(int64_t a, const struct throng_options *options, throng_error *err)
{
    return throng_db_exec(db, options, THREE, THRONG_ARGS(throng_int(a)), NULL, err);
}

static int by_exec_returning(int64_t a, const struct throng_options *options, throng_error *err)
{
    return throng_db_exec(db, options, THREE " RETURNING stop(a)", THRONG_ARGS(throng_int(a)), NULL, err);
}

/* `most` rows are asked for, with a stop before each, then the rows are closed. */
static int by_rows(int64_t a, const struct throng_options *options, int most, throng_error *err)
{
    throng_rows rows;
    int code = throng_db_query(db, options, THREE " RETURNING a", THRONG_ARGS(throng_int(a)), &rows, err), closed;

    for (int i = 0; code == THRONG_OK && i < most; i++) {
        if (i == a % 4)
            stop();
        code = throng_rows_next(&rows, err);
        code = code == THRONG_ROW ? THRONG_OK : code;
    }
    if (code == THRONG_DONE)
        code = THRONG_OK;
    closed = throng_rows_close(&rows, code == THRONG_OK ? err : NULL);
    return code != THRONG_OK ? code : closed;
}

static int by_rows_to_the_end(int64_t a, const struct throng_options *options, throng_error *err)
{
    return by_rows(a, options, 4, err);
}

static int by_rows_closed_early(int64_t a, const struct throng_options *options, throng_error *err)
{
    return by_rows(a, options, (int)(a % 3), err);
}

static int by_script(int64_t a, const struct throng_options *options, throng_error *err)
{
    char sql[200];

    (void)snprintf(sql, sizeof sql,
                   "BEGIN; INSERT INTO t VALUES (%lld), (%lld); INSERT INTO t VALUES (stop(%lld)); COMMIT",
                   (long long)a, (long long)a + 1, (long long)a + 2);
    return throng_db_exec(db, options, sql, THRONG_NO_ARGS, NULL, err);
}

static int by_transaction(int64_t a, const struct throng_options *options, throng_error *err)
{
    struct throng_tx_options tx_options = {
        .size = sizeof tx_options, .deadline_ns = options->deadline_ns, .cancel = options->cancel};
    throng_tx tx;
    int code = throng_db_begin(db, &tx_options, &tx, err);

    if (code != THRONG_OK)
        return code;
    code = throng_tx_exec(&tx, NULL, "INSERT INTO t VALUES (?1), (?1 + 1), (?1 + 2)", THRONG_ARGS(throng_int(a)), NULL,
                          err);
    if (code == THRONG_OK)
        return throng_tx_commit(&tx, err);
    (void)throng_tx_rollback(&tx, NULL);
    return code;
}

/* With rows that are open at the commit, and a transaction inside. */
static int by_nested(int64_t a, const struct throng_options *options, throng_error *err)
{
    struct throng_tx_options tx_options = {.size = sizeof tx_options, .deadline_ns = options->deadline_ns};
    throng_tx tx, inner = {0};
    throng_rows rows;
    int code;

    tx_options.cancel = options->cancel;
    code = throng_db_begin(db, &tx_options, &tx, err);
    if (code != THRONG_OK)
        return code;
    code = throng_tx_begin(&tx, &inner, err);
    if (code == THRONG_OK)
        code = throng_tx_query(&inner, options, THREE " RETURNING a", THRONG_ARGS(throng_int(a)), &rows, err);
    if (code == THRONG_OK)
        code = throng_rows_next(&rows, err) == THRONG_ROW ? THRONG_OK : throng_rows_close(&rows, err);
    if (code == THRONG_OK)
        code = throng_tx_commit(&inner, err);
    if (code == THRONG_OK)
        return throng_tx_commit(&tx, err);
    (void)throng_tx_rollback(&tx, NULL);
    return code;
}

struct in_function {
    int64_t a;
    const struct throng_options *options;
};

static int write_three(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    const struct in_function *in = arg;

    (void)attempt;
    return throng_tx_exec(tx, in->options, THREE, THRONG_ARGS(throng_int(in->a)), NULL, err);
}

static int by_transact(int64_t a, const struct throng_options *options, throng_error *err)
{
    struct in_function in = {.a = a};
    struct throng_transact_options transact = {
        .size = sizeof transact, .deadline_ns = options->deadline_ns, .cancel = options->cancel};

    return throng_transact(db, &transact, write_three, &in, err);
}

/* A transaction in SQL, its COMMIT within bounds. */
static int by_sql(int64_t a, const struct throng_options *options, throng_error *err)
{
    throng_conn conn;
    int code;

    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, err), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "BEGIN", THRONG_NO_ARGS, NULL, err), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "INSERT INTO t VALUES (?1), (?1 + 1), (?1 + 2)",
                                 THRONG_ARGS(throng_int(a)), NULL, err),
                THRONG_OK);
    code = throng_conn_exec(&conn, options, "COMMIT", THRONG_NO_ARGS, NULL, err);
    (void)throng_conn_close(&conn, NULL);
    return code;
}

static const struct {
    const char *name;
    int (*write)(int64_t a, const struct throng_options *options, throng_error *err);
} ways[] = {{"exec", by_exec},
            {"exec RETURNING", by_exec_returning},
            {"rows to the end", by_rows_to_the_end},
            {"rows closed early", by_rows_closed_early},
            {"script", by_script},
            {"transaction", by_transaction},
            {"transaction in a transaction", by_nested},
            {"transact", by_transact},
            {"COMMIT", by_sql}};

/* SQLite asks the progress handler after a number of operations, counted from run to run: so it asks everywhere in time, also
 * between a commit and the return to the caller. */
static void write_and_compare(size_t way, bool cancels, bool in_hook)
{
    int runs = scaled(250), counted = 0, not_counted = 0;

    for (int i = 0; i < runs; i++) {
        int64_t a = (int64_t)i * 3 + 1;
        struct throng_options options = {.size = sizeof options};
        throng_cancel *cancel = cancels ? throng_cancel_new() : NULL;
        throng_error err = {.code = THRONG_OK};
        int code, there;

        options.cancel = token = cancel;
        options.deadline_ns = passing_ns = cancels ? 0 : throng_now_ns() + 150000;
        stops_in_commit_hook = in_hook;
        code = ways[way].write(a, &options, &err);
        token = NULL;
        passing_ns = 0;
        stops_in_commit_hook = false;
        throng_cancel_free(cancel);
        there = (int)one_int("SELECT count(*) FROM t WHERE a BETWEEN ?1 AND ?1 + 2", a);
        if (there != (code == THRONG_OK ? 3 : 0))
            check_failed(__FILE__, __LINE__, "%s: code %d (%s), rows that are there: %d", ways[way].name, code,
                         err.message, there);
        if (code != THRONG_OK) {
            CHECK_EQUAL(code, cancels ? THRONG_CANCELED : THRONG_TIMEOUT);
            CHECK_EQUAL(err.code, code);
            CHECK_TEXT(err.message, throng_code_text(code));
        }
        counted += code == THRONG_OK;
        not_counted += code != THRONG_OK;
    }
    exec("DELETE FROM t");
    if (in_hook && cancels && strcmp(ways[way].name, "COMMIT") == 0)
        CHECK(counted > 0 && not_counted == 0); /* it cannot be stopped any more there */
}

/* Property: whatever writes, and wherever its token fires or its deadline passes, all of it is there and the caller is told
 * THRONG_OK, or nothing is and the caller is told why. */
static void what_is_told_is_what_happened(void **state)
{
    (void)state;
    open_new(2);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY)");
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        for (int how = 0; how < 4; how++)
            write_and_compare(way, how % 2 == 0, how >= 2);
    }
    close_and_check();
}

/* --- a token stops what has it, and nothing else --- */

#define NUMBERS "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"

/* Property: rows that were begun without a token go on, to their last one, whichever others of the connection are stopped,
 * between two rows or inside a step; so does what begins afterwards. */
static void a_token_stops_nobody_else(void **state)
{
    (void)state;
    open_new(1);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY)");
    for (int how = 0; how < 4; how++) {
        bool inside = how % 2 == 1, alone = how >= 2;
        throng_rows others = {0}, stopped;
        throng_cancel *cancel = throng_cancel_new();
        struct throng_options options = {.size = sizeof options, .cancel = cancel};
        throng_error err;
        throng_conn conn;
        int count = 1, code;

        CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err), THRONG_OK);
        if (!alone) {
            CHECK_EQUAL(throng_conn_query(&conn, NULL, NUMBERS, THRONG_NO_ARGS, &others, &err), THRONG_OK);
            CHECK_EQUAL(throng_rows_next(&others, &err), THRONG_ROW);
        }
        CHECK_EQUAL(throng_conn_query(&conn, &options,
                                      "SELECT stop(1) UNION ALL SELECT 2 UNION ALL SELECT count(*) FROM t",
                                      THRONG_NO_ARGS, &stopped, &err),
                    THRONG_OK);
        token = inside ? cancel : NULL;
        code = throng_rows_next(&stopped, &err);
        token = NULL;
        CHECK(code == THRONG_ROW || (inside && code == THRONG_CANCELED));
        if (!inside)
            throng_cancel_fire(cancel);
        if (alone) {
            CHECK_EQUAL(throng_conn_query(&conn, NULL, NUMBERS, THRONG_NO_ARGS, &others, &err), THRONG_OK);
            CHECK_EQUAL(throng_rows_next(&others, &err), THRONG_ROW);
        }
        CHECK(throng_rows_next(&stopped, &err) == THRONG_CANCELED);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "INSERT INTO t DEFAULT VALUES", THRONG_NO_ARGS, NULL, &err),
                    THRONG_OK);
        while ((code = throng_rows_next(&others, &err)) == THRONG_ROW)
            count++;
        CHECK_EQUAL(code, THRONG_DONE);
        CHECK_EQUAL(count, 5000);
        CHECK_EQUAL(throng_conn_close(&conn, &err), THRONG_OK);
        throng_cancel_free(cancel);
    }
    close_and_check();
}

/* Property: a token stops what SQLite does in a single operation of its machine, too, such as counting a table: SQLite does
 * not go on for even one operation. */
static void a_token_stops_a_long_operation(void **state)
{
    throng_cancel *cancel = throng_cancel_new();
    struct throng_options options = {.size = sizeof options, .cancel = cancel};
    throng_error err;

    (void)state;
    open_new(1);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY)");
    token = cancel;
    CHECK_EQUAL(
        throng_db_exec(db, &options, "SELECT stop(1) UNION ALL SELECT count(*) FROM t", THRONG_NO_ARGS, NULL, &err),
        THRONG_CANCELED);
    token = NULL;
    exec("INSERT INTO t DEFAULT VALUES");
    CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), 1);
    throng_cancel_free(cancel);
    close_and_check();
}

static _Atomic(throng_cancel *) to_fire;
static _Atomic int fired_count;

/* Fires whatever token there is, each a little later than it came, until the pointer is that of the end. */
static void fire_each(void *arg)
{
    struct prng prng = prng_new(7);
    throng_cancel *cancel;

    while ((cancel = atomic_exchange(&to_fire, NULL)) != arg) {
        uint64_t end_ns = throng_now_ns() + (uint64_t)prng_below(&prng, 60000);

        if (cancel == NULL) {
            sleep_ms(0);
            continue;
        }
        while (throng_now_ns() < end_ns)
            ;
        throng_cancel_fire(cancel);
        (void)atomic_fetch_add(&fired_count, 1);
    }
}

/* Property: the same from another thread at any moment: what has the token ends or is complete, in rows and in an execution;
 * what has none on the same connection is complete, also right afterwards. */
static void a_token_from_elsewhere_stops_nobody_else(void **state)
{
    throng_cancel *last = throng_cancel_new();
    int runs = scaled(300);
    throng_error err;
    throng_conn conn;

    (void)state;
    open_new(1);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY)");
    atomic_store(&to_fire, NULL);
    atomic_store(&fired_count, 0);
    thread_start(fire_each, last);
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err), THRONG_OK);
    for (int i = 0; i < runs; i++) {
        throng_cancel *cancel = throng_cancel_new();
        struct throng_options options = {.size = sizeof options, .cancel = cancel};
        throng_rows mine, others = {0};
        int code, count = 0;

        if (i % 2 == 0) {
            CHECK_EQUAL(throng_conn_query(&conn, NULL, NUMBERS " LIMIT 50", THRONG_NO_ARGS, &others, &err), THRONG_OK);
            CHECK_EQUAL(throng_rows_next(&others, &err), THRONG_ROW);
        }
        atomic_store(&to_fire, cancel);
        code = throng_conn_query(&conn, &options, NUMBERS " LIMIT 300", THRONG_NO_ARGS, &mine, &err);
        while (code == THRONG_OK || code == THRONG_ROW) {
            code = throng_rows_next(&mine, &err);
            count += code == THRONG_ROW;
        }
        CHECK(code == THRONG_CANCELED || (code == THRONG_DONE && count == 300));
        if (i % 2 == 1)
            CHECK_EQUAL(throng_conn_query(&conn, NULL, NUMBERS " LIMIT 50", THRONG_NO_ARGS, &others, &err), THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "INSERT INTO t DEFAULT VALUES", THRONG_NO_ARGS, NULL, &err),
                    THRONG_OK);
        for (count = i % 2 == 0; (code = throng_rows_next(&others, &err)) == THRONG_ROW;)
            count++;
        CHECK_EQUAL(code, THRONG_DONE);
        CHECK_EQUAL(count, 50);
        while (atomic_load(&fired_count) <= i)
            sleep_ms(0);
        throng_cancel_free(cancel);
    }
    atomic_store(&to_fire, last);
    threads_join();
    CHECK_EQUAL(throng_conn_close(&conn, &err), THRONG_OK);
    CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), runs);
    throng_cancel_free(last);
    close_and_check();
}

/* --- a query that writes --- */

/* Property: what a query does besides returning rows is done when it says THRONG_OK, whether or not anybody asks for a row;
 * what goes wrong with it is told there. */
static void a_query_that_writes_has_written(void **state)
{
    throng_error err;
    throng_rows rows;
    throng_conn conn;
    throng_tx tx;

    (void)state;
    open_new(1);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY)");
    CHECK_EQUAL(throng_db_query(db, NULL, "INSERT INTO t VALUES (1)", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_db_query(db, NULL, "INSERT INTO t VALUES (2)", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_DONE);
    CHECK_EQUAL(throng_db_query(db, NULL, "INSERT INTO t VALUES (3) RETURNING a", THRONG_NO_ARGS, &rows, &err),
                THRONG_OK);
    CHECK_TEXT(throng_rows_name(&rows, 0), "a");
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
    CHECK_EQUAL(throng_rows_int(&rows, 0), 3);
    CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_DONE);
    CHECK_EQUAL(throng_db_begin(db, NULL, &tx, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_query(&tx, NULL, "INSERT INTO t VALUES (4)", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_tx_query(&tx, NULL, "INSERT INTO t VALUES (5) RETURNING a", THRONG_NO_ARGS, &rows, &err),
                THRONG_OK);
    CHECK_EQUAL(throng_tx_commit(&tx, &err), THRONG_OK);
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_query(&conn, NULL, "INSERT INTO t VALUES (6) RETURNING a", THRONG_NO_ARGS, &rows, &err),
                THRONG_OK);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_query(&conn, NULL, "PRAGMA user_version = 77", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_query(&conn, NULL, "BEGIN", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "COMMIT", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&conn, &err), THRONG_OK);
    CHECK_EQUAL(one_int("SELECT sum(a) + ? FROM t", 0), 21);
    CHECK_EQUAL(one_int("SELECT user_version + ? FROM pragma_user_version", 0), 77);
    CHECK_EQUAL(throng_db_query(db, NULL, "INSERT INTO t VALUES (1)", THRONG_NO_ARGS, &rows, &err), THRONG_CONSTRAINT);
    CHECK_EQUAL(err.driver_code, SQLITE_CONSTRAINT_PRIMARYKEY);
    close_and_check();
}

/* --- values and results --- */

static void expect_refused(throng_value value, const char *message)
{
    throng_error err;

    CHECK_EQUAL(throng_db_exec(db, NULL, "INSERT INTO t VALUES (?)", &value, 1, NULL, &err), THRONG_MISUSE);
    if (strstr(err.message, message) == NULL)
        check_failed(__FILE__, __LINE__, "\"%s\" is not in \"%s\"", message, err.message);
    value = throng_named("a", value);
    CHECK_EQUAL(throng_db_exec(db, NULL, "INSERT INTO t VALUES (:a)", &value, 1, NULL, &err), THRONG_MISUSE);
}

/* Property: a value that cannot be right is refused, and says why; text and blobs of no bytes are not NULL. */
static void values_that_cannot_be_are_refused(void **state)
{
    throng_value value = {.type = THRONG_BLOB, .size = 64};
    throng_error err;
    throng_rows rows;
    size_t size = 1;

    (void)state;
    open_new(1);
    exec("CREATE TABLE t (a)");
    expect_refused(value, "64 bytes, and NULL");
    value.type = THRONG_TEXT;
    expect_refused(value, "64 bytes, and NULL");
    value.type = 99;
    expect_refused(value, "type 99");
    CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), 0);
    value.size = 0;
    for (int type = THRONG_TEXT; type <= THRONG_BLOB; type++) {
        value.type = (uint32_t)type;
        CHECK_EQUAL(throng_db_query(db, NULL, "SELECT ?", &value, 1, &rows, &err), THRONG_OK);
        CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
        CHECK_EQUAL(throng_rows_type(&rows, 0), type);
        CHECK(throng_rows_blob(&rows, 0, &size) != NULL);
        CHECK_EQUAL(size, 0);
        CHECK(throng_rows_text(&rows, 0, &size) != NULL);
        CHECK_EQUAL(size, 0);
        CHECK_EQUAL(throng_rows_close(&rows, &err), THRONG_OK);
    }
    close_and_check();
}

static void expect_changes(const char *sql, int code, int64_t changes)
{
    throng_result result = {.changes = 4711, .last_insert_id = 4711};
    throng_error err;

    CHECK_EQUAL(throng_db_exec(db, NULL, sql, THRONG_NO_ARGS, &result, &err), code);
    if (result.changes != changes)
        check_failed(__FILE__, __LINE__, "%s: %lld changes", sql, (long long)result.changes);
    if (code != THRONG_OK)
        CHECK_EQUAL(result.last_insert_id, 0);
}

/* Property: a result is that of the statement, none of what failed, and none of what changes no rows of the user's. */
static void results_are_of_the_statement(void **state)
{
    (void)state;
    open_new(1);
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY); CREATE TABLE u (a REFERENCES t)");
    expect_changes("INSERT INTO t VALUES (1), (2), (3)", THRONG_OK, 3);
    expect_changes("INSERT INTO t VALUES (4), (1)", THRONG_CONSTRAINT, 0);
    expect_changes("INSERT INTO t VALUES (5), (6); INSERT INTO t VALUES (1)", THRONG_CONSTRAINT, 0);
    expect_changes("WITH x (a) AS (SELECT 7) INSERT INTO t SELECT a FROM x", THRONG_OK, 1);
    expect_changes("SELECT * FROM t", THRONG_OK, 0);
    expect_changes("EXPLAIN DELETE FROM t", THRONG_OK, 0);
    expect_changes("CREATE TABLE v AS SELECT * FROM t", THRONG_OK, 0);
    expect_changes("REPLACE INTO t VALUES (7)", THRONG_OK, 1);
    expect_changes("DROP TABLE t", THRONG_OK, 0);
    expect_changes("DELETE FROM v WHERE a > 5", THRONG_OK, 2);
    close_and_check();
}

/* --- private databases --- */

static int make_table(void *native, void *arg)
{
    (void)arg;
    return sqlite3_exec(native, "CREATE TABLE t (a); INSERT INTO t VALUES (1)", NULL, NULL, NULL);
}

/* Property: a database that lives in one connection lives as long as the pool, whatever fails, is discarded, or grows old;
 * limits that would close the connection are refused. */
static void a_private_database_is_kept(void **state)
{
    static const char *const names[] = {
        ":memory:",          "sqlite::memory:",    "file::memory:",           "",
        "sqlite:",           "file:?cache=shared", "sqlite:x?mode=memory",    "file:x?mode=memory&cache=private",
        "sqlite:%3amemory:", "sqlite:x?vfs=memdb", ":memory:?foreign_keys=on"};
    struct throng_db_options options = {.size = sizeof options, .on_open = make_table};
    struct throng_db_options limited = {.size = sizeof limited};
    struct throng_stats stats = {.size = sizeof stats};
    char sql[PATH_SIZE + 100], junk[PATH_SIZE];
    throng_error err;
    throng_conn conn;
    FILE *file;

    (void)state;
    file = fopen(path_new(junk, "junk"), "w");
    CHECK(file != NULL &&
          fputs("this is not a database, and it is longer than a header of one is: 100 bytes or more, "
                "as there are in this line",
                file) >= 0 &&
          fclose(file) == 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_EQUAL(throng_db_open(names[i], &options, &db, &err), THRONG_OK);
        CHECK_EQUAL(
            throng_db_exec(db, NULL, "ATTACH 'file:/nowhere/at/all.db?vfs=unix' AS a", THRONG_NO_ARGS, NULL, &err),
            THRONG_IO);
        CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), 1);
        (void)snprintf(sql, sizeof sql, "ATTACH 'file:%s?vfs=unix' AS a", junk);
        CHECK_EQUAL(throng_db_exec(db, NULL, sql, THRONG_NO_ARGS, NULL, &err), THRONG_ERROR);
        CHECK_EQUAL(err.driver_code, SQLITE_NOTADB);
        CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), 1);
        CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err), THRONG_OK);
        CHECK_EQUAL(throng_conn_discard(&conn, &err), THRONG_MISUSE);
        CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), 1);
        CHECK_EQUAL(throng_db_stats(db, &stats, &err), THRONG_OK);
        CHECK_EQUAL(stats.opened, 1);
        CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
        limited.max_lifetime_ns = 1;
        CHECK_EQUAL(throng_db_open(names[i], &limited, &db, &err), THRONG_MISUSE);
        CHECK(strstr(err.message, "max_lifetime_ns must be 0") != NULL);
        limited.max_lifetime_ns = 0;
        limited.max_idle_time_ns = 1;
        CHECK_EQUAL(throng_db_open(names[i], &limited, &db, &err), THRONG_MISUSE);
        CHECK(strstr(err.message, "max_idle_time_ns must be 0") != NULL);
        limited.max_idle_time_ns = 0;
    }
}

/* Property: a failed ATTACH costs no connection: temporary tables are there afterwards. A connection whose own file is no
 * database any more is not kept. */
static void a_failed_attach_costs_nothing(void **state)
{
    struct throng_stats stats = {.size = sizeof stats};
    throng_error err;
    throng_conn conn;

    (void)state;
    open_new(1);
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "CREATE TEMP TABLE mine (a)", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "ATTACH '/nowhere/at/all.db' AS a", THRONG_NO_ARGS, NULL, &err),
                THRONG_IO);
    CHECK_EQUAL(throng_conn_close(&conn, &err), THRONG_OK);
    CHECK_EQUAL(one_int("SELECT count(*) + ? FROM mine", 0), 0);
    CHECK_EQUAL(throng_db_stats(db, &stats, &err), THRONG_OK);
    CHECK_EQUAL(stats.closed_broken, 0);
    close_and_check();
}

/* --- what a DSN asks for --- */

/* The pool on the file of this test with these parameters: `code`, and `message` in the error. */
static void expect_open(const char *parameters, int code, const char *message)
{
    char dsn[PATH_SIZE + 300];
    throng_error err = {.message = ""};

    (void)snprintf(dsn, sizeof dsn, "sqlite:%s?%s", path, parameters);
    if (throng_db_open(dsn, NULL, &db, &err) != code || (code != THRONG_OK && strstr(err.message, message) == NULL))
        check_failed(__FILE__, __LINE__, "%s: code %d, \"%s\"", dsn, err.code, err.message);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
}

/* Property: what a DSN asks for is in force, or the pool does not open, and says which parameter it is about and what is
 * possible. */
static void a_dsn_is_in_force_or_refused(void **state)
{
    (void)state;
    (void)path_new(path, "truth");
    expect_open("vfs=unix&synchronous=FULLL", THRONG_MISUSE, "synchronous is off, normal, full or extra");
    expect_open("synchronous=on", THRONG_MISUSE, "synchronous=on cannot be");
    expect_open("synchronous=4", THRONG_MISUSE, "synchronous is off, normal, full or extra");
    expect_open("foreign_keys=yess", THRONG_MISUSE, "foreign_keys is on or off");
    expect_open("cache_size=abc", THRONG_MISUSE, "cache_size is a number of pages");
    expect_open("cache_size=2147483648", THRONG_MISUSE, "cache_size is a number of pages");
    expect_open("cache_size=-", THRONG_MISUSE, "cache_size is a number of pages");
    expect_open("cache_size=0x10", THRONG_MISUSE, "cache_size is a number of pages");
    expect_open("mmap_size=-1", THRONG_MISUSE, "mmap_size is a number of bytes");
    expect_open("journal_mode=bogus", THRONG_MISUSE, "journal_mode is delete, truncate");
    expect_open("temp_store=disk", THRONG_MISUSE, "temp_store is default, file or memory");
    expect_open("busy_timeout=-1", THRONG_MISUSE, "busy_timeout is a number of milliseconds");
    expect_open("busy_timeout=5s", THRONG_MISUSE, "busy_timeout is a number of milliseconds");
    expect_open("mode=rwx", THRONG_MISUSE, "mode is ro, rw, rwc or memory");
    expect_open("cache=private;", THRONG_MISUSE, "cache is shared or private");
    expect_open("synchronous=full&synchronous=off", THRONG_MISUSE, "synchronous is given twice");
    expect_open("synchronuos=full", THRONG_MISUSE, "there is no parameter \"synchronuos\"; there are vfs, ");
    expect_open("_foreign_keys=1", THRONG_MISUSE, "there is no parameter");
    expect_open("what", THRONG_MISUSE, "\"what\" is not NAME=VALUE");
    expect_open("checkpoint_bytes=0", THRONG_MISUSE, "checkpoint_bytes is a number of bytes, such as 256M");
    expect_open("checkpoint_bytes=1T", THRONG_MISUSE, "checkpoint_bytes is a number of bytes");
    expect_open("heap_limit=1M", THRONG_MISUSE, "heap_limit is a number of bytes, such as 1G, at least 4M");
    expect_open("checkpointer=thred", THRONG_MISUSE, "checkpointer is caller or thread");
    expect_open("filesystem=all", THRONG_MISUSE, "filesystem is any");
    expect_open("vfs=unix&heap_limit=1G", THRONG_MISUSE, "heap_limit is for vfs=throng only");
    expect_open("heap_limit=1G&vfs=unix", THRONG_MISUSE, "heap_limit is for vfs=throng only");
    CHECK(!file_exists(path));
    expect_open("journal_mode=wal", THRONG_MISUSE, "PRAGMA journal_mode says delete");
    expect_open("journal_mode=delete&checkpoint_bytes=64M&heap_limit=1G&checkpointer=thread&filesystem=any", THRONG_OK,
                "");
    expect_open("vfs=unix&journal_mode=WAL&synchronous=Full&foreign_keys=TRUE&cache_size=-4000&temp_store=memory&"
                "mmap_size=1048576&busy_timeout=10&mode=rw&psow=1",
                THRONG_OK, "");
    expect_open("vfs=unix&mode=rw&immutable=1", THRONG_READONLY, "can only be read");
    expect_open("vfs=unix&mmap_size=9000000000000", THRONG_MISUSE, "PRAGMA mmap_size says");
    (void)path_new(path, "truth");
    expect_open("vfs=unix&mode=ro", THRONG_IO, "unable to open");
    CHECK(!file_exists(path));
}

/* Open it, write down in it which PRAGMAs are in force, and say which file it is. */
static void expect_file(const char *dsn, const char *file, int64_t synchronous)
{
    throng_error err;

    if (throng_db_open(dsn, NULL, &db, &err) != THRONG_OK)
        check_failed(__FILE__, __LINE__, "%s: %s", dsn, err.message);
    exec("CREATE TABLE IF NOT EXISTS t (a)");
    CHECK_EQUAL(one_int("SELECT synchronous + ? FROM pragma_synchronous", 0), synchronous);
    CHECK_EQUAL(one_int("SELECT foreign_keys + ? FROM pragma_foreign_keys", 0), 1);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
    if (file != NULL && !file_exists(file))
        check_failed(__FILE__, __LINE__, "%s: there is no %s", dsn, file);
}

/* Property: a DSN, a URI and a plain path with parameters mean the same file and the same settings; a path whose "?" no NAME=
 * follows is a path. */
static void every_form_means_the_same(void **state)
{
    static const char parameters[] = "synchronous=extra&foreign_keys=1";
    char dsn[PATH_SIZE + 200], strange[PATH_SIZE];
    throng_error err;

    (void)state;
    for (int form = 0; form < 5; form++) {
        static const char *const formats[] = {"sqlite:%s?%s", "file:%s?%s", "file://%s?%s", "file://localhost%s?%s#end",
                                              "%s?%s"};

        (void)path_new(path, "truth");
        (void)snprintf(dsn, sizeof dsn, formats[form], path, parameters);
        expect_file(dsn, path, 3);
        oracle_check(path);
    }
    (void)snprintf(dsn, sizeof dsn, "file:%s%%20x?%s", path, parameters);
    expect_file(dsn, path_beside(strange, path, " x"), 3);
    (void)snprintf(dsn, sizeof dsn, "sqlite:%s#x?%s", path, parameters);
    expect_file(dsn, path_beside(strange, path, "#x"), 3);
    (void)snprintf(dsn, sizeof dsn, "%s?y%%20?%s", path, parameters);
    expect_file(dsn, path_beside(strange, path, "?y%20"), 3);
    CHECK_EQUAL(throng_db_open("file:uri.db?mode=ro", NULL, &db, &err), THRONG_IO);
    CHECK(!file_exists("file:uri.db?mode=ro") && !file_exists("uri.db"));
    CHECK_EQUAL(throng_db_open("plain.db?foreign_key=1", NULL, &db, &err), THRONG_MISUSE);
    CHECK_EQUAL(throng_db_open("sqlite:///plain.db", NULL, &db, &err), THRONG_MISUSE);
    CHECK(strstr(err.message, "two ways") != NULL);
    CHECK_EQUAL(throng_db_open("file://elsewhere/x.db", NULL, &db, &err), THRONG_ERROR);
    CHECK(strstr(err.message, "authority") != NULL);
}

/* Property: a database in memory that has a name for all connections to share lives as long as the pool, also when all of
 * its connections have been closed. */
static void a_shared_database_in_memory_is_kept(void **state)
{
    static const char *const names[] = {"file:some?mode=memory&cache=shared", "sqlite:/some?vfs=memdb"};
    struct throng_db_options options = {.size = sizeof options, .max_open = 3};
    throng_error err;
    throng_conn conns[3];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_EQUAL(throng_db_open(names[i], &options, &db, &err), THRONG_OK);
        exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
        for (int j = 0; j < 3; j++)
            CHECK_EQUAL(throng_db_conn(db, NULL, &conns[j], &err), THRONG_OK);
        for (int j = 0; j < 3; j++)
            CHECK_EQUAL(throng_conn_discard(&conns[j], &err), THRONG_OK);
        CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), 1);
        CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
    }
}

/* --- what is left open by means of the native handle --- */

static sqlite3_stmt *left_stmt;

static int leave_open(void *native, void *arg)
{
    if (arg != NULL)
        return sqlite3_exec(native, "BEGIN", NULL, NULL, NULL);
    (void)sqlite3_prepare_v2(native, "SELECT 1 UNION ALL SELECT 2", -1, &left_stmt, NULL);
    return sqlite3_step(left_stmt) != SQLITE_ROW;
}

/* Property: an on_open that leaves a transaction or a statement open would make all that follows vanish, or old: it is
 * refused, with a message. */
static void on_open_leaves_nothing_open(void **state)
{
    static int something;
    struct throng_db_options options = {.size = sizeof options, .on_open = leave_open, .on_open_arg = &something};
    throng_error err;

    (void)state;
    (void)path_new(path, "truth");
    CHECK_EQUAL(throng_db_open(path, &options, &db, &err), THRONG_MISUSE);
    CHECK_TEXT(err.message, "on_open has left a transaction open on the connection");
    options.on_open_arg = NULL;
    CHECK_EQUAL(throng_db_open(path, &options, &db, &err), THRONG_MISUSE);
    CHECK_TEXT(err.message, "on_open has left a statement open on the connection");
    CHECK_OK(sqlite3_finalize(left_stmt), NULL);
    CHECK(db == NULL);
}

/* Property: the next user of a connection sees what is committed, whatever the one before has left in the middle of its rows
 * by means of the native handle; who left it is told. */
static void nobody_inherits_a_snapshot(void **state)
{
    throng_error err;
    throng_conn first, second;

    (void)state;
    open_new(2);
    exec("CREATE TABLE t (a BLOB); INSERT INTO t VALUES ('1')");
    for (int how = 0; how < 3; how++) {
        sqlite3_stmt *stmt = NULL;
        sqlite3_blob *blob = NULL;
        sqlite3 *native;

        CHECK_EQUAL(throng_db_conn(db, NULL, &first, &err), THRONG_OK);
        CHECK_EQUAL(throng_db_conn(db, NULL, &second, &err), THRONG_OK);
        native = throng_conn_native(&first);
        if (how == 0)
            CHECK_OK(sqlite3_blob_open(native, "main", "t", "a", 1, 0, &blob), native);
        if (how == 1) {
            CHECK_OK(sqlite3_prepare_v2(native, "SELECT * FROM t", -1, &stmt, NULL), native);
            CHECK_EQUAL(sqlite3_step(stmt), SQLITE_ROW);
        }
        CHECK_EQUAL(throng_conn_close(&first, &err), how < 2 ? THRONG_MISUSE : THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&second, NULL, "INSERT INTO t VALUES ('2')", THRONG_NO_ARGS, NULL, &err),
                    THRONG_OK);
        CHECK_EQUAL(one_int("SELECT count(*) + ? FROM t", 0), 2 + how); /* on the first one, or one in its place */
        CHECK_EQUAL(throng_conn_close(&second, &err), THRONG_OK);
        (void)sqlite3_finalize(stmt);
        (void)sqlite3_blob_close(blob);
    }
    close_and_check();
}

/* --- errors --- */

static int own_word(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    (void)tx;
    (void)attempt;
    (void)err;
    return *(int *)arg;
}

/* Property: whatever goes wrong, the error says so in words, and which option it is about. */
static void errors_have_words(void **state)
{
    struct throng_db_options options = {.size = sizeof options, .cached_statements = 1000000};
    struct throng_transact_options once = {.size = sizeof once, .max_attempts = 1};
    int code = THRONG_BUSY;
    throng_error err;

    (void)state;
    CHECK_EQUAL(throng_db_open("x.db", &options, &db, &err), THRONG_MISUSE);
    CHECK_TEXT(err.message, "throng_db_options.cached_statements is 1000000, it must be at most 65536");
    open_new(1);
    memset(&err, 0x5a, sizeof err);
    CHECK_EQUAL(throng_transact(db, &once, own_word, &code, &err), THRONG_BUSY);
    CHECK_EQUAL(err.code, THRONG_BUSY);
    CHECK_TEXT(err.message, throng_code_text(THRONG_BUSY));
    code = -7;
    CHECK_EQUAL(throng_transact(db, &once, own_word, &code, &err), -7);
    CHECK_TEXT(err.message, "the function of the transaction has returned -7");
    once.mode = 9;
    CHECK_EQUAL(throng_transact(db, &once, own_word, &code, &err), THRONG_MISUSE);
    CHECK_TEXT(err.message, "throng_transact_options.mode is 9, which there is not");
    close_and_check();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_told_is_what_happened),
        cmocka_unit_test(a_token_stops_nobody_else),
        cmocka_unit_test(a_token_from_elsewhere_stops_nobody_else),
        cmocka_unit_test(a_token_stops_a_long_operation),
        cmocka_unit_test(a_query_that_writes_has_written),
        cmocka_unit_test(values_that_cannot_be_are_refused),
        cmocka_unit_test(results_are_of_the_statement),
        cmocka_unit_test(a_private_database_is_kept),
        cmocka_unit_test(a_failed_attach_costs_nothing),
        cmocka_unit_test(a_dsn_is_in_force_or_refused),
        cmocka_unit_test(every_form_means_the_same),
        cmocka_unit_test(a_shared_database_in_memory_is_kept),
        cmocka_unit_test(on_open_leaves_nothing_open),
        cmocka_unit_test(nobody_inherits_a_snapshot),
        cmocka_unit_test(errors_have_words),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
