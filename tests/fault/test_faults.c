/* Property: whichever one call of the operating system fails, in whatever an application does from open to close, there
 * is no crash; what was reported as committed is there afterwards, whole, what was not is there whole or not at all,
 * and stock SQLite finds nothing wrong with the file.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "fault.h"
#include "throng.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { INSERTS = 6, ROWS = 40 };

static char dir[PATH_MAX / 4], path[PATH_MAX];
static char stage[160]; /* what is being tried: for messages */

static void remove_all(void)
{
    char command[PATH_MAX + 20];

    (void)snprintf(command, sizeof command, "rm -rf '%s'/*", dir);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/throng-faults-XXXXXX", place());
    if (mkdtemp(dir) == NULL || throng_register(0) != SQLITE_OK)
        return -1;
    (void)snprintf(path, sizeof path, "%s/a.db", dir);
    fault_reset();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fault_reset();
    remove_all();
    return rmdir(dir);
}

#define INSERT_ROWS                                                                                              \
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO t SELECT %d, i, " \
    "0, randomblob(300) FROM n; INSERT INTO u SELECT k, i, g, x FROM t WHERE k = %d"

/* What was acknowledged. Every transaction writes the same to the tables t and u. */
struct acknowledged {
    bool tables;
    bool key[INSERTS];
    int generation;
    int errors;
};

static int run(sqlite3 *db, struct acknowledged *ack, const char *format, ...)
{
    va_list ap;
    char *sql;
    int rc;

    va_start(ap, format);
    sql = sqlite3_vmprintf(format, ap);
    va_end(ap);
    rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    ack->errors += rc != SQLITE_OK;
    return rc;
}

static bool transaction(sqlite3 *db, struct acknowledged *ack, const char *format, int value)
{
    char *sql = sqlite3_mprintf(format, value, value);
    bool done = run(db, ack, "BEGIN") == SQLITE_OK && run(db, ack, "%s", sql) == SQLITE_OK &&
                run(db, ack, "COMMIT") == SQLITE_OK;

    sqlite3_free(sql);
    if (!sqlite3_get_autocommit(db)) /* an error may have rolled it back already */
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return done;
}

static void scenario(struct acknowledged *ack, const char *synchronous)
{
    sqlite3 *db = NULL;

    memset(ack, 0, sizeof *ack);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "throng") != SQLITE_OK) {
        ack->errors++;
        goto close;
    }
    (void)run(db, ack, "PRAGMA cache_size=10");
    (void)run(db, ack, "PRAGMA synchronous=%s", synchronous);
    ack->tables = transaction(db, ack,
                              "CREATE TABLE t(k INTEGER, i INTEGER, g INTEGER, x, PRIMARY KEY(k, i)); CREATE TABLE u("
                              "k INTEGER, i INTEGER, g INTEGER, x, PRIMARY KEY(k, i)); -- %d %d",
                              0);
    for (int k = 0; k < INSERTS; k++) {
        ack->key[k] = transaction(db, ack, INSERT_ROWS, k);
        if (k == INSERTS / 2) { /* more than the pager's cache holds, and then not */
            if (run(db, ack, "BEGIN") == SQLITE_OK) {
                (void)run(db, ack, "INSERT INTO t SELECT k + 1000, i, 77, randomblob(900) FROM u");
                (void)run(db, ack, "UPDATE u SET g = 77, x = randomblob(500)");
                (void)run(db, ack, "ROLLBACK");
            }
            if (!sqlite3_get_autocommit(db))
                (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        }
    }
    if (transaction(db, ack, "UPDATE t SET g = %d; UPDATE u SET g = %d", 1))
        ack->generation = 1;
    if (transaction(db, ack, "DELETE FROM t WHERE k > 1000 + %d; DELETE FROM u WHERE k > 1000 + %d", 1) &&
        transaction(db, ack, "UPDATE t SET g = %d, x = zeroblob(10); UPDATE u SET g = %d, x = zeroblob(10)", 2))
        ack->generation = 2;
close:
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static sqlite3_int64 number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    sqlite3_int64 value;

    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK || sqlite3_step(stmt) != SQLITE_ROW)
        fail_msg("%s: %s: %s", stage, sql, sqlite3_errmsg(db));
    value = sqlite3_column_int64(stmt, 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    return value;
}

static void check_with(const char *vfs, const struct acknowledged *ack)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    char sql[200];

    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs) != SQLITE_OK)
        fail_msg("%s: open by %s: %s", stage, vfs, sqlite3_errmsg(db));
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        fail_msg("%s: integrity_check by %s: %s", stage, vfs, sqlite3_errmsg(db));
    if (strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") != 0)
        fail_msg("%s: integrity_check by %s says %s", stage, vfs, (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    if (number(db, "SELECT count(*) FROM sqlite_schema WHERE type = 'table'") != 2) {
        if (ack->tables || number(db, "SELECT count(*) FROM sqlite_schema") != 0)
            fail_msg("%s: by %s the tables are not there", stage, vfs);
    } else {
        if (number(db, "SELECT count(*) FROM (SELECT k, i, g FROM t EXCEPT SELECT k, i, g FROM u)") != 0 ||
            number(db, "SELECT count(*) FROM (SELECT k, i, g FROM u EXCEPT SELECT k, i, g FROM t)") != 0 ||
            number(db, "SELECT count(DISTINCT g) FROM t") > 2 || number(db, "SELECT count(*) FROM t WHERE k > 99") != 0)
            fail_msg("%s: by %s a transaction is there in part", stage, vfs);
        for (int k = 0; k < INSERTS; k++) {
            sqlite3_int64 rows;

            (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM t WHERE k = %d", k);
            rows = number(db, sql);
            if (rows != ROWS && (rows != 0 || ack->key[k]))
                fail_msg("%s: by %s there are %lld rows of %d, acknowledged %d", stage, vfs, (long long)rows, k,
                         ack->key[k]);
        }
        if (number(db, "SELECT coalesce(min(g), 9) FROM t") < ack->generation)
            fail_msg("%s: by %s the acknowledged update %d is lost", stage, vfs, ack->generation);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void check(const struct acknowledged *ack)
{
    char journal[PATH_MAX + 20];

    check_with("throng", ack);
    (void)snprintf(journal, sizeof journal, "%s-journal", path);
    if (access(journal, F_OK) == 0)
        fail_msg("%s: %s is left after the last close", stage, journal);
    check_with("unix", ack);
}

/* Fails call after call of one kind; `count` as in struct fault_rule. */
static void sweep(enum thr_os_call call, uint64_t count, int err, const char *synchronous)
{
    struct acknowledged ack;
    uint64_t n, hits, step = getenv("THRONG_FAULTS_ALL") != NULL ? 1 : 0;

    for (n = 1;; n += step != 0 || n < 60 ? 1 : 1 + n / 16) {
        struct fault_rule rule = {call, NULL, n, count, 1, err};

        (void)snprintf(stage, sizeof stage, "%s number %" PRIu64 " fails%s with %d, synchronous=%s",
                       fault_call_name(call), n, count == FAULT_FOREVER ? " and all after it" : "", err, synchronous);
        remove_all();
        fault_reset();
        assert_true(fault_add(&rule) >= 0);
        scenario(&ack, synchronous);
        hits = fault_hits();
        fault_reset();
        check(&ack);
        if (hits == 0)
            break;
    }
    print_message("%s: %" PRIu64 " calls\n", fault_call_name(call), n - 1);
    assert_int_equal(ack.errors, 0);
    assert_int_equal(ack.generation, 2);
}

/* In a process of its own, which dies with the database open: some of the scenario. */
static void make_crashed(struct acknowledged *ack)
{
    pid_t child;
    int status;

    memset(ack, 0, sizeof *ack);
    if ((child = fork()) == 0) {
        struct acknowledged own = {0};
        sqlite3 *db = NULL;

        if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "throng") != SQLITE_OK)
            _exit(1);
        (void)transaction(db, &own, "CREATE TABLE t(k, i, g, x); CREATE TABLE u(k, i, g, x); -- %d %d", 0);
        for (int k = 0; k < 3; k++)
            (void)transaction(db, &own, INSERT_ROWS, k);
        (void)transaction(db, &own, "DELETE FROM t WHERE k = %d; DELETE FROM u WHERE k = %d", 2);
        _exit(own.errors);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    ack->tables = ack->key[0] = ack->key[1] = true;
}

/* Property: also when the call that fails belongs to a recovery, which the next open then does again. */
static void recovery_sweep(uint64_t count, int err)
{
    struct acknowledged crashed, ack;
    char command[3 * PATH_MAX];
    sqlite3 *db = NULL;
    uint64_t hits;

    remove_all();
    make_crashed(&crashed);
    /* Of `heap` and `shm` a part is enough: nobody reads them. */
    (void)snprintf(
        command, sizeof command,
        "cd '%s' && mkdir kept && truncate -s 4096 a.db-journal/heap a.db-journal/shm && cp -r a.db a.db-journal "
        "kept",
        dir);
    assert_int_equal(system(command), 0);
    for (uint64_t n = 1;; n++) {
        struct fault_rule rule = {FAULT_ANY_CALL, NULL, n, count, 1, err};

        (void)snprintf(stage, sizeof stage, "recovery: call %" PRIu64 " fails%s with %d", n,
                       count == FAULT_FOREVER ? " and all after it" : "", err);
        (void)snprintf(command, sizeof command, "rm -rf '%s' '%s-journal' && cp -r '%s'/kept/* '%s'", path, path, dir,
                       dir);
        assert_int_equal(system(command), 0);
        ack = crashed;
        fault_reset();
        assert_true(fault_add(&rule) >= 0);
        if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "throng") == SQLITE_OK)
            ack.key[4] = transaction(db, &ack, INSERT_ROWS, 4);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        hits = fault_hits();
        fault_reset();
        check(&ack);
        if (hits == 0)
            break;
    }
    assert_true(ack.key[4]);
}

static void recovery_with_a_failing_call(void **state)
{
    (void)state;
    recovery_sweep(1, EIO);
    recovery_sweep(1, ENOMEM);
}

static void recovery_with_all_calls_failing_from_one_on(void **state)
{
    (void)state;
    recovery_sweep(FAULT_FOREVER, EIO);
    recovery_sweep(FAULT_FOREVER, ENOSPC);
}

#define SWEEP(name, call, err, synchronous)           \
    static void name##_fails(void **state)            \
    {                                                 \
        (void)state;                                  \
        sweep(call, 1, err, synchronous);             \
    }                                                 \
    static void name##_keeps_failing(void **state)    \
    {                                                 \
        (void)state;                                  \
        sweep(call, FAULT_FOREVER, err, synchronous); \
    }

SWEEP(memory, THR_OS_MEMORY, ENOMEM, "OFF")
SWEEP(read, THR_OS_READ, EIO, "OFF")
SWEEP(write, THR_OS_WRITE, EIO, "OFF")
SWEEP(torn_write, THR_OS_WRITE, -ENOSPC, "FULL")
SWEEP(allocate, THR_OS_ALLOCATE, ENOSPC, "OFF")
SWEEP(open, THR_OS_OPEN, EMFILE, "OFF")
SWEEP(stat, THR_OS_STAT, EIO, "OFF")
SWEEP(map, THR_OS_MAP, ENOMEM, "OFF")
SWEEP(sync, THR_OS_SYNC, EIO, "FULL")
SWEEP(sync_normal, THR_OS_SYNC, EIO, "NORMAL")
SWEEP(truncate, THR_OS_TRUNCATE, EIO, "OFF")
SWEEP(unlink, THR_OS_UNLINK, EIO, "OFF")
SWEEP(mkdir, THR_OS_MKDIR, EACCES, "OFF")
SWEEP(rmdir, THR_OS_RMDIR, EIO, "OFF")
SWEEP(rename, THR_OS_RENAME, EIO, "OFF")
SWEEP(list, THR_OS_LIST, EIO, "OFF")
SWEEP(lock, THR_OS_LOCK, ENOLCK, "OFF")
SWEEP(any, FAULT_ANY_CALL, EIO, "FULL")

#define BOTH(name) \
    cmocka_unit_test_teardown(name##_fails, after_each), cmocka_unit_test_teardown(name##_keeps_failing, after_each)

static int after_each(void **state)
{
    (void)state;
    fault_reset();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        BOTH(memory),
        BOTH(read),
        BOTH(write),
        BOTH(torn_write),
        BOTH(allocate),
        BOTH(open),
        BOTH(stat),
        BOTH(map),
        BOTH(sync),
        BOTH(sync_normal),
        BOTH(truncate),
        BOTH(unlink),
        BOTH(mkdir),
        BOTH(rmdir),
        BOTH(rename),
        BOTH(list),
        BOTH(lock),
        BOTH(any),
        cmocka_unit_test_teardown(recovery_with_a_failing_call, after_each),
        cmocka_unit_test_teardown(recovery_with_all_calls_failing_from_one_on, after_each),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, setup, teardown);
}
