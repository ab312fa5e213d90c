/* A child that was forked off while its parent had a database open, and never execs, does not keep the database when
 * the parent is gone; and what it does with the connections that it inherited is an error, and harms nobody.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MMAP_SIZE 100000000

static char path[PATH_SIZE];

/* What the processes tell each other. */
static struct shared {
    _Atomic int64_t acknowledged;
    _Atomic int sleeper; /* a child that does nothing */
} * shared;

static void share(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    shared->acknowledged = 0;
    shared->sleeper = 0;
}

static void create(bool rows)
{
    sqlite3 *db = db_open(path);

    db_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    if (rows)
        db_exec(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) "
                    "INSERT INTO t SELECT i, randomblob(1000) FROM n");
    db_close(db);
}

static void create_empty(void *arg)
{
    (void)arg;
    create(false);
}

static void writer_thread(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)arg;
    for (int64_t id = shared->acknowledged + 1;; id++) {
        db_exec(db, "INSERT INTO t VALUES(%lld, zeroblob(500))", (long long)id);
        shared->acknowledged = id;
    }
}

/* Reads the file through its mapping, so that the mapping is there (or just being made) at fork(). */
static void reader_thread(void *arg)
{
    (void)arg;
    for (;;) {
        sqlite3 *db = db_open(path);

        db_exec(db, "PRAGMA mmap_size=%d", MMAP_SIZE);
        (void)db_int(db, "SELECT count(*) FROM t");
        db_close(db);
    }
}

static void parent_to_kill(void *arg)
{
    const bool *mapped = arg;
    pid_t child;

    if (*mapped)
        thread_start(reader_thread, NULL);
    thread_start(writer_thread, NULL);
    while (shared->acknowledged < 50 && !check_any_failed())
        sleep_ms(1);
    child = fork();
    if (child == 0) {
        watchdog_begin();
        shared->sleeper = getpid(); /* what fork() has it do is done */
        for (;;)
            (void)pause();
    }
    for (;;)
        sleep_ms(1000);
}

static void check_commits(void *arg)
{
    int64_t acknowledged = *(int64_t *)arg;
    sqlite3 *db = db_open(path);
    int64_t max = db_int(db, "SELECT max(id) FROM t");

    CHECK(max == acknowledged || max == acknowledged + 1);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), max);
    db_exec(db, "INSERT INTO t VALUES(0, NULL); DELETE FROM t WHERE id=0");
    db_close(db);
    oracle_check(path);
}

static void a_child_does_not_keep_the_database(void **state)
{
    (void)state;
    support_needs_throng();
    for (int i = 0; i < scaled(10); i++) {
        bool mapped = i % 2 == 0;
        int64_t acknowledged;
        pid_t parent;

        (void)path_new(path, "fork");
        share();
        child_run(create_empty, NULL);
        parent = child_start(parent_to_kill, &mapped);
        while (shared->sleeper == 0 && waitpid(parent, NULL, WNOHANG) == 0)
            sleep_ms(1);
        CHECK(shared->sleeper > 0);
        sleep_ms(i);
        child_kill(parent);
        acknowledged = shared->acknowledged;
        child_run(check_commits, &acknowledged);
        CHECK_EQUAL(kill(shared->sleeper, SIGKILL), 0); /* it was there all the time */
    }
}

/* --- connections that a child inherits --- */

static struct {
    sqlite3 *idle, *writer, *spilled, *reader;
    sqlite3_stmt *stmt;
} inherited;

static void check_refused(sqlite3 *db, const char *sql)
{
    int rc = db_try(db, "%s", sql);

    if ((rc & 0xff) != SQLITE_IOERR)
        check_failed(__FILE__, __LINE__, "%s: code %d", sql, rc);
}

static void use_inherited(void *arg)
{
    sqlite3 *db = NULL;
    char other[PATH_SIZE];

    (void)arg;
    log_clear();
    check_refused(inherited.idle, "SELECT count(*) FROM t");
    CHECK(log_contains("was opened before fork(): open it again in the child"));
    check_refused(inherited.idle, "INSERT INTO t VALUES(-1, NULL)");
    check_refused(inherited.idle, "PRAGMA freelist_count");
    check_refused(inherited.idle, "PRAGMA integrity_check");
    check_refused(inherited.idle, "BEGIN IMMEDIATE");
    check_refused(inherited.writer, "COMMIT");
    check_refused(inherited.spilled, "SELECT sum(length(b)) FROM t");
    (void)db_try(inherited.spilled, "ROLLBACK");
    (void)db_try(inherited.writer, "ROLLBACK");
    while (sqlite3_step(inherited.stmt) == SQLITE_ROW)
        (void)sqlite3_column_bytes(inherited.stmt, 1);
    (void)sqlite3_finalize(inherited.stmt);
    CHECK_EQUAL(db_try_open(path, SQLITE_OPEN_READWRITE, db_vfs(), &db), SQLITE_BUSY); /* the parent has it */
    db = db_open(path_beside(other, path, "-of-the-child"));
    db_exec(db, "CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)");
    db_close(db);
    oracle_check(other);
}

static void close_inherited(void *arg)
{
    (void)arg;
    (void)sqlite3_finalize(inherited.stmt);
    CHECK_EQUAL(sqlite3_close(inherited.idle), SQLITE_OK);
    CHECK_EQUAL(sqlite3_close(inherited.writer), SQLITE_OK);
    CHECK_EQUAL(sqlite3_close(inherited.spilled), SQLITE_OK);
    CHECK_EQUAL(sqlite3_close(inherited.reader), SQLITE_OK);
}

static void use_and_close_inherited(void *arg)
{
    use_inherited(arg);
    inherited.stmt = NULL;
    close_inherited(arg);
}

static void what_a_child_inherits_is_of_no_use_and_no_harm(void **state)
{
    void (*const CHILDREN[])(void *) = {use_inherited, close_inherited, use_and_close_inherited};
    char journal[PATH_SIZE];
    int rows = 1;

    (void)state;
    support_needs_throng();
    (void)path_new(path, "inherited");
    create(true);
    inherited.idle = db_open(path);
    inherited.writer = db_open(path);
    inherited.spilled = db_open(path);
    inherited.reader = db_open(path);
    db_exec(inherited.idle, "DELETE FROM t WHERE id<100"); /* and now it has free pages of its own */
    db_exec(inherited.reader, "PRAGMA mmap_size=%d", MMAP_SIZE);
    for (int i = 0; i < 3; i++) {
        db_exec(inherited.writer, "BEGIN; INSERT INTO t VALUES(%d, zeroblob(20000))", 1000 + i);
        db_exec(inherited.spilled, "PRAGMA cache_size=5; BEGIN; SELECT * FROM t");
        inherited.stmt = db_prepare(inherited.reader, "SELECT id, b FROM t");
        CHECK_EQUAL(sqlite3_step(inherited.stmt), SQLITE_ROW);
        db_exec(inherited.spilled, "CREATE TABLE spilled_%d AS SELECT id, b FROM t", i);
        child_run(CHILDREN[i], NULL);
        CHECK(file_exists(path_beside(journal, path, "-journal")));
        db_exec(inherited.writer, "COMMIT");
        for (rows = 1; sqlite3_step(inherited.stmt) == SQLITE_ROW; rows++)
            CHECK(sqlite3_column_bytes(inherited.stmt, 1) >= 1000);
        CHECK_EQUAL(rows, 401 + i);
        stmt_end(inherited.stmt);
        CHECK_EQUAL(db_int(inherited.spilled, "SELECT count(*) FROM spilled_%d", i), 401 + i);
        db_exec(inherited.spilled, "ROLLBACK");
        db_exec(inherited.idle, "REPLACE INTO t VALUES(500, zeroblob(3000))");
        CHECK_EQUAL(db_int(inherited.reader, "SELECT count(*) FROM t"), 402 + i);
        db_check_text(inherited.idle, "PRAGMA integrity_check", "ok");
    }
    db_close(inherited.idle);
    db_close(inherited.writer);
    db_close(inherited.spilled);
    db_close(inherited.reader);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_does_not_keep_the_database),
        cmocka_unit_test(what_a_child_inherits_is_of_no_use_and_no_harm),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
