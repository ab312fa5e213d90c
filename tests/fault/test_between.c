/* Between two steps of one connection's commit another one does its work: at that very point, by name. Neither takes a
 * page from the other, and no statement goes on in another snapshot than the one it began in.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>

enum { TAKERS = 8, ROWS = 300, PATIENCE_MS = 60000 };

static char path[PATH_SIZE];

/* --- free pages (I6) --- */

static sqlite3 *taker[TAKERS];
static _Atomic int refilled, used;

static void note_refill(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    atomic_fetch_add(&refilled, 1);
}

static void take_thread(void *arg)
{
    db_exec(arg, "INSERT INTO mine(b) VALUES(randomblob(100))");
}

/* They take free pages for themselves, and then wait for the commit that is under way. */
static void take_pages(void *ctx, const char *name)
{
    uint64_t began_ms = now_ms();

    (void)ctx;
    (void)name;
    for (int i = 0; i < TAKERS; i++)
        thread_start(take_thread, taker[i]);
    while (atomic_load(&refilled) < TAKERS && now_ms() - began_ms < PATIENCE_MS)
        sleep_ms(1);
    CHECK(atomic_load(&refilled) >= TAKERS);
}

/* Whoever frees pages without a stripe gives them to the pool: once, and not before they are counted there. */
static void check_freed_pages(const char *point)
{
    sqlite3 *db, *rival, *freer;

    fault_reset();
    atomic_store(&refilled, 0);
    db = db_stock(path_new(path, "freed"));
    /* Free pages before those that are going to be freed, and after: takers go on from the former to the latter. */
    db_exec(db, "PRAGMA page_size=1024; CREATE TABLE mine(id INTEGER PRIMARY KEY, b); CREATE TABLE below(b);"
                "CREATE TABLE big(b); CREATE TABLE above(b)");
    db_exec(db,
            "INSERT INTO below VALUES(zeroblob(40000)); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
            "WHERE i<%d) INSERT INTO big SELECT randomblob(3000) FROM n; INSERT INTO above VALUES(zeroblob(200000));"
            "DROP TABLE below; DROP TABLE above",
            ROWS);
    db_close(db);
    rival = db_open(path);
    freer = db_open(path);
    for (int i = 0; i < TAKERS; i++) {
        taker[i] = db_open(path);
        (void)db_int(taker[i], "SELECT count(*) FROM mine");
    }
    db = db_open(path);
    for (int i = 0; i < 3; i++) { /* both write, so both have stripes: the freer cannot have the whole list */
        db_exec(rival, "INSERT INTO mine(b) VALUES(randomblob(3000))");
        db_exec(db, "INSERT INTO mine(b) VALUES(randomblob(3000))");
    }
    fault_call_at("refilled", FAULT_FOREVER, note_refill, NULL);
    db_exec(freer, "BEGIN");
    CHECK_EQUAL(db_int(freer, "SELECT count(*) FROM big"), ROWS);
    db_exec(freer, "DELETE FROM big");
    fault_call_at(point, 1, take_pages, NULL);
    db_exec(freer, "COMMIT");
    threads_join();
    fault_reset();
    for (int i = 0; i < TAKERS; i++) {
        db_exec(taker[i], "INSERT INTO mine(b) VALUES(randomblob(9000))");
        db_close(taker[i]);
    }
    db_close(rival);
    db_close(freer);
    db_check_text(db, "PRAGMA integrity_check", "ok");
    /* No connection has a stripe now, so each free page is in the pool, and was counted there once. */
    CHECK_EQUAL(db_int(db, "PRAGMA freelist_count"), db_stat(db, "free_pool_pages"));
    db_close(db);
    oracle_check(path);
}

static void freed_pages_come_to_the_pool_once(void **state)
{
    static const char *const POINTS[] = {"commit", "logged", "freed", "linked", "published"};

    (void)state;
    for (size_t i = 0; i < sizeof POINTS / sizeof POINTS[0]; i++)
        check_freed_pages(POINTS[i]);
}

/* A transaction that begins before the commit is seen, and writes and reads: it does not come upon the freed pages, neither
 * those that it still reads nor any others. */
static uint64_t hash_of_big(sqlite3 *db)
{
    return db_hash(db, "SELECT rowid, b FROM big ORDER BY rowid");
}

static void use_pages_thread(void *arg)
{
    uint64_t hash;

    db_exec(arg, "BEGIN");
    hash = hash_of_big(arg);
    db_exec(arg, "INSERT INTO mine(b) VALUES(randomblob(200000))");
    CHECK(hash_of_big(arg) == hash);
    db_exec(arg, "ROLLBACK");
    atomic_store(&used, 1);
}

static void use_pages(void *ctx, const char *name)
{
    uint64_t began_ms = now_ms();

    (void)name;
    thread_start(use_pages_thread, ctx);
    while (atomic_load(&used) == 0 && !check_any_failed() && now_ms() - began_ms < PATIENCE_MS)
        sleep_ms(1);
}

static void check_unseen(const char *point, const char *freeing)
{
    sqlite3 *db, *freer, *user;

    fault_reset();
    atomic_store(&used, 0);
    db = db_open(path_new(path, "unseen"));
    db_exec(db, "PRAGMA page_size=1024; CREATE TABLE mine(id INTEGER PRIMARY KEY, b); CREATE TABLE big(b);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200)"
                "INSERT INTO big SELECT randomblob(900) FROM n");
    freer = db_open(path);
    user = db_open(path);
    db_exec(user, "INSERT INTO mine(b) VALUES(randomblob(100000))");
    db_exec(db, "INSERT INTO mine(b) VALUES(1)"); /* so the user is shown other pages */
    db_exec(freer, "BEGIN");                      /* it begins with a read, and so without a stripe */
    CHECK_EQUAL(db_int(freer, "SELECT count(*) FROM big"), 200);
    db_exec(freer, "%s", freeing);
    fault_call_at(point, 1, use_pages, user);
    db_exec(freer, "COMMIT");
    CHECK(fault_point_passages(point) > 0);
    threads_join();
    fault_reset();
    CHECK_EQUAL(atomic_load(&used), 1);
    db_exec(user, "INSERT INTO mine(b) VALUES(randomblob(200000))");
    db_close(user);
    db_close(freer);
    db_close(db);
    oracle_check(path);
}

static void freed_pages_are_not_used_before_it_is_seen(void **state)
{
    (void)state;
    check_unseen("linked", "DELETE FROM big");
    check_unseen("published", "DELETE FROM big");
    check_unseen("linked", "DROP TABLE big");
}

/* --- a statement that reads on beside its connection's own commit --- */

static void insert_much(void *ctx, const char *name)
{
    (void)name;
    db_exec(ctx, "INSERT INTO big VALUES(1000000, randomblob(300000))");
}

/* The commit of a connection moves its snapshot. If another one has committed meanwhile, it must not while a statement
 * reads: also when that happens as late as can be. */
static void check_reader(const char *point, const char *update)
{
    sqlite3 *db, *other;
    sqlite3_stmt *stmt;
    int rows = 0, rc;

    fault_reset();
    db = db_open(path_new(path, "reader"));
    db_exec(db, "PRAGMA page_size=512; CREATE TABLE big(id INTEGER PRIMARY KEY, b); CREATE TABLE one(n); INSERT INTO "
                "one VALUES(0);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO big "
                "SELECT i, randomblob(200) FROM n");
    other = db_open(path);
    db_exec(other, "UPDATE one SET n=1");
    db_exec(db, "UPDATE one SET n=2");
    stmt = db_prepare(db, "SELECT id FROM big ORDER BY id");
    for (; rows < 10; rows++)
        CHECK_EQUAL(sqlite3_step(stmt), SQLITE_ROW);
    fault_call_at(point, 1, insert_much, other);
    CHECK_EQUAL(db_try(db, update), SQLITE_BUSY_SNAPSHOT);
    CHECK_EQUAL(fault_point_passages(point) > 0, true);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
        rows++;
    CHECK_EQUAL(rc, SQLITE_DONE);
    CHECK_EQUAL(rows, 5000);
    stmt_end(stmt);
    (void)db_try(db, "ROLLBACK");
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM big"), 5001);
    CHECK_OK(db_try(db, "UPDATE one SET n=3"), db); /* alone, it works */
    db_close(other);
    db_close(db);
    oracle_check(path);
}

static void a_statement_reads_on_in_its_snapshot(void **state)
{
    (void)state;
    check_reader("commit", "UPDATE one SET n=n+1");
    check_reader("validated", "UPDATE one SET n=n+1");
    check_reader("commit", "BEGIN; UPDATE one SET n=n+1; COMMIT");
    check_reader("validated", "BEGIN; UPDATE one SET n=n+1; COMMIT");
}

/* --- durable, and seen --- */

static void dawdle(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    sleep_ms(40); /* longer than a committer waits before it looks again; correct either way */
}

static void commit_at_full(void *arg)
{
    sqlite3 *db = db_open(path);

    db_exec(db, "PRAGMA synchronous=full");
    for (int i = 0; i < 15; i++)
        db_exec(db, "INSERT INTO t%d VALUES(%d)", *(int *)arg, i);
    db_close(db);
}

/* Property: a commit that somebody else's sync has made durable is told as done, also if that thread takes its time before it
 * lets it be seen. */
static void what_is_durable_is_seen_before_it_is_told(void **state)
{
    static int numbers[] = {0, 1, 2};
    sqlite3 *db;

    (void)state;
    fault_reset();
    db = db_open(path_new(path, "durable"));
    for (int i = 0; i < 3; i++)
        db_exec(db, "CREATE TABLE t%d(v)", i);
    CHECK(fault_call_at("durable", FAULT_FOREVER, dawdle, NULL) >= 0);
    for (int i = 0; i < 3; i++)
        thread_start(commit_at_full, &numbers[i]);
    threads_join();
    fault_reset();
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t%d", i), 15);
    db_close(db);
    oracle_check(path);
}

/* --- the log --- */

static void commit_large(void *ctx, const char *name)
{
    (void)name;
    db_exec(ctx, "INSERT INTO t VALUES(randomblob(700000))");
}

static void checkpoint_and_die(void *arg)
{
    sqlite3 *db = db_open(path), *rival = db_open(path);

    (void)arg;
    db_exec(db, "PRAGMA synchronous=OFF; CREATE TABLE t(v)"); /* a rising level would wait for the checkpoint */
    db_exec(rival, "PRAGMA synchronous=OFF");
    commit_large(db, NULL);
    CHECK(fault_call_at("horizon", 1, commit_large, rival) >= 0);
    db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    CHECK_EQUAL(fault_point_passages("log-retire"), 0);
}

/* The segment that the horizon names as the first one stays, also if it has become full, and is needed no more, by the time
 * that segments are deleted. */
static void the_log_begins_where_the_horizon_says(void **state)
{
    sqlite3 *db;

    (void)state;
    fault_reset();
    (void)path_new(path, "horizon");
    child_run(checkpoint_and_die, NULL);
    db = db_open(path);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), 2);
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_begins_where_the_horizon_says),
        cmocka_unit_test(freed_pages_come_to_the_pool_once),
        cmocka_unit_test(freed_pages_are_not_used_before_it_is_seen),
        cmocka_unit_test(a_statement_reads_on_in_its_snapshot),
        cmocka_unit_test(what_is_durable_is_seen_before_it_is_told),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
