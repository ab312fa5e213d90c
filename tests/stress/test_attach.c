/* A transaction that uses several databases is one transaction: it is serializable over all of them, it is seen in all
 * or in none, and no lock of one database is held while it waits for anything of another.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "support.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

static char path[2][PATH_SIZE];

/* `first` is main, the other one `other`; each has a table t(id, v) of rows that share no page. */
static sqlite3 *open_from(int first)
{
    sqlite3 *db = db_open(path[first]);

    db_exec(db, "ATTACH 'file:%s?vfs=throng' AS other", path[1 - first]);
    return db;
}

static sqlite3 *create(void)
{
    sqlite3 *db;

    support_needs_throng();
    fault_reset();
    (void)path_new(path[0], "attach");
    (void)path_new(path[1], "attach-other");
    db = open_from(0);
    for (int i = 0; i < 2; i++)
        db_exec(db,
                "CREATE TABLE %s.t(id INTEGER PRIMARY KEY, v INT, pad BLOB);"
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<20)"
                "INSERT INTO %s.t SELECT i, 1, zeroblob(3000) FROM c",
                i == 0 ? "main" : "other", i == 0 ? "main" : "other");
    return db;
}

static void check_both(void)
{
    oracle_check(path[0]);
    oracle_check(path[1]);
}

/* --- what was read in one, and written in the other --- */

/* Of two doctors, each in a hospital of his own, one stays on duty. */
static void reads_in_another_database_count(void **state)
{
    static const char *const LEVELS[] = {"OFF", "NORMAL", "FULL"};
    sqlite3 *a, *b;

    (void)state;
    for (int i = 0; i < 3; i++) {
        a = create();
        b = open_from(0);
        db_exec(a, "PRAGMA main.synchronous=%s; PRAGMA other.synchronous=%s", LEVELS[i], LEVELS[2 - i]);
        db_exec(a, "BEGIN");
        db_exec(b, "BEGIN");
        CHECK_EQUAL(db_int(a, "SELECT x.v+y.v FROM main.t x, other.t y WHERE x.id=1 AND y.id=1"), 2);
        CHECK_EQUAL(db_int(b, "SELECT x.v+y.v FROM main.t x, other.t y WHERE x.id=1 AND y.id=1"), 2);
        db_exec(a, "UPDATE main.t SET v=0 WHERE id=1");
        db_exec(b, "UPDATE other.t SET v=0 WHERE id=1");
        db_exec(a, "COMMIT");
        db_expect(b, SQLITE_BUSY_SNAPSHOT, "COMMIT");
        CHECK_EQUAL(db_int(b, "SELECT x.v+y.v FROM main.t x, other.t y WHERE x.id=1 AND y.id=1"), 1);
        db_close(a);
        db_close(b);
        check_both();
    }
}

/* What is read and does not change makes nobody lose. */
static void other_rows_do_not_count(void **state)
{
    sqlite3 *a = create(), *b = open_from(1);

    (void)state;
    db_close(a); /* it has used all rows */
    a = open_from(0);
    db_exec(a, "BEGIN");
    CHECK_EQUAL(db_int(a, "SELECT v FROM main.t WHERE id=1"), 1);
    db_exec(a, "UPDATE other.t SET v=2 WHERE id=1");
    db_exec(b, "UPDATE other.t SET v=2 WHERE id=15; UPDATE main.t SET v=2 WHERE id=15");
    db_exec(a, "COMMIT");
    db_close(a);
    db_close(b);
    check_both();
}

static void change_what_was_read(void *ctx, const char *name)
{
    (void)name;
    db_exec(ctx, "UPDATE main.t SET v=7 WHERE id=1");
}

/* A statement outside BEGIN that loses by what it has read in another database is run again, and sees the change. */
static void a_statement_is_run_again(void **state)
{
    sqlite3 *a = create(), *b = db_open(path[0]);

    (void)state;
    CHECK(fault_call_at("commit", 1, change_what_was_read, b) >= 0);
    db_exec(a, "UPDATE other.t SET v=v+(SELECT v FROM main.t WHERE id=1) WHERE id=1");
    CHECK_EQUAL(db_int(a, "SELECT v FROM other.t WHERE id=1"), 8);
    CHECK_EQUAL(db_int(a, "SELECT value FROM throng_stats('other') WHERE counter='reruns'"), 1);
    fault_reset();
    db_close(a);
    db_close(b);
    check_both();
}

/* --- one moment in both --- */

/* A transaction that began before others committed sees neither of two databases after that: not what was committed in
 * both at once, and not what was committed in one on the strength of what the other one had. */
static void both_are_read_as_of_one_moment(void **state)
{
    static const char *const BEGINS[] = {"BEGIN", "SAVEPOINT s"};
    sqlite3 *reader, *writer;

    (void)state;
    for (int way = 0; way < 8; way++) {
        const char *first = way % 2 == 0 ? "main" : "other", *second = way % 2 == 0 ? "other" : "main";

        db_close(create());
        reader = open_from(way / 2 % 2);
        writer = open_from(0);
        db_exec(reader, "%s", BEGINS[way / 4]);
        CHECK_EQUAL(db_int(reader, "SELECT v FROM %s.t WHERE id=1", first), 1);
        db_exec(writer,
                "BEGIN; UPDATE main.t SET v=2 WHERE id IN (1, 3); UPDATE other.t SET v=2 WHERE id IN (1, 3); COMMIT");
        db_exec(writer, "UPDATE main.t SET v=3 WHERE id=1");
        db_exec(writer, "UPDATE other.t SET v=(SELECT max(v) FROM main.t) WHERE id=1");
        db_exec(writer, "UPDATE main.t SET v=(SELECT max(v) FROM other.t) WHERE id=5");
        CHECK_EQUAL(db_int(reader, "SELECT v FROM %s.t WHERE id=1", second), 1);
        CHECK_EQUAL(db_int(reader, "SELECT sum(x.v+y.v) FROM main.t x JOIN other.t y USING(id)"), 40);
        db_exec(reader, "COMMIT");
        CHECK_EQUAL(db_int(reader, "SELECT x.v+y.v FROM main.t x JOIN other.t y USING(id) WHERE id=1"), 6);
        db_close(reader);
        db_close(writer);
        check_both();
    }
}

/* What a connection has itself committed it sees, and also what others did before a statement of its own began. */
static void a_snapshot_is_held_no_longer_than_its_transaction(void **state)
{
    sqlite3 *a = create(), *b = db_open(path[1]);
    sqlite3_stmt *rows = db_prepare(a, "SELECT id FROM main.t");

    (void)state;
    CHECK_EQUAL(sqlite3_step(rows), SQLITE_ROW);
    db_exec(b, "UPDATE t SET v=6 WHERE id=1");
    db_exec(a, "UPDATE other.t SET v=v+1 WHERE id=1"); /* does not lose */
    CHECK_EQUAL(db_int(a, "SELECT v FROM other.t WHERE id=1"), 7);
    stmt_end(rows);
    db_exec(b, "UPDATE t SET v=8 WHERE id=1");
    CHECK_EQUAL(db_int(a, "SELECT v FROM other.t WHERE id=1"), 8);
    CHECK_EQUAL(db_stat(b, "oldest_snapshot_age_us"), 0); /* nothing is held */
    db_close(a);
    db_close(b);
    check_both();
}

static _Atomic int seen;

static void read_both(void *arg)
{
    sqlite3 *db = arg;

    atomic_store(&seen, (int)db_int(db, "SELECT x.v*10+y.v FROM main.t x JOIN other.t y USING(id) WHERE id=1"));
}

static void read_meanwhile(void *ctx, const char *name)
{
    uint64_t passages = fault_point_passages("cut"), began = now_ms();

    (void)name;
    thread_start(read_both, ctx);
    while (fault_point_passages("cut") == passages && !check_any_failed())
        sleep_ms(1);
    while (atomic_load(&seen) == 0 && now_ms() - began < 100) /* it waits for us; a wrong one would not */
        sleep_ms(1);
}

/* Nobody sees a commit in one database before it is there in the other. */
static void a_commit_is_seen_in_all_or_in_none(void **state)
{
    static const char *const LEVELS[] = {"OFF", "FULL"};

    (void)state;
    for (int way = 0; way < 8; way++) {
        sqlite3 *writer = create(), *reader = open_from(way % 2);

        db_exec(writer, "PRAGMA main.synchronous=%s; PRAGMA other.synchronous=%s", LEVELS[way / 2 % 2],
                LEVELS[way / 4]);
        atomic_store(&seen, 0);
        (void)db_int(reader, "SELECT count(*) FROM main.t, other.t");
        db_exec(writer, "BEGIN; UPDATE main.t SET v=2 WHERE id=1; UPDATE other.t SET v=2 WHERE id=1");
        CHECK(fault_call_at("one-published", 1, read_meanwhile, reader) >= 0);
        db_exec(writer, "COMMIT");
        threads_join();
        CHECK(atomic_load(&seen) == 22 || atomic_load(&seen) == 11);
        fault_reset();
        db_close(writer);
        db_close(reader);
        check_both();
    }
}

/* --- waiting --- */

static _Atomic int asked, committed;

static int never_gives_up(void *arg, int count)
{
    (void)arg;
    (void)count;
    atomic_fetch_add(&asked, 1);
    sleep_ms(1);
    return 1;
}

static void commit_in_both(void *arg)
{
    sqlite3 *db = open_from((int)(intptr_t)arg);

    (void)sqlite3_busy_handler(db, never_gives_up, NULL);
    db_exec(db, "BEGIN; UPDATE main.t SET v=v+1 WHERE id=5; UPDATE other.t SET v=v+1 WHERE id=5");
    CHECK(atomic_load(&asked) == 0);
    db_exec(db, "COMMIT");
    atomic_store(&committed, 1);
    db_close(db);
}

/* A commit in both waits for one that must not lose, in either of them. Meanwhile that one, and others, use and change what
 * the commit has in the other database. Were a lock held, nobody would ever go on. */
static void a_commit_that_waits_holds_no_lock(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        sqlite3 *db = create(), *single = db_open(path[way % 2]);

        atomic_store(&asked, 0);
        atomic_store(&committed, 0);
        db_close(db);
        db = open_from(way % 2); /* it has no page of a table in its cache */
        db_exec(db, "BEGIN IMMEDIATE");
        CHECK_EQUAL(db_int(db, "SELECT v FROM other.t WHERE id=5"), 1);
        thread_start(commit_in_both, (void *)(intptr_t)(way / 2));
        while (atomic_load(&asked) == 0 && !check_any_failed())
            sleep_ms(1);
        db_exec(single, "UPDATE t SET v=2 WHERE id=15");
        CHECK_EQUAL(db_int(db, "SELECT v FROM main.t WHERE id=12"), 1);
        db_exec(db, "UPDATE main.t SET v=2 WHERE id=12");
        CHECK_EQUAL(atomic_load(&committed), 0);
        db_exec(db, "COMMIT");
        threads_join();
        CHECK_EQUAL(atomic_load(&committed), 1);
        db_close(db);
        db_close(single);
        check_both();
    }
}

static void take_turns(void *arg)
{
    static const char *const STATEMENTS[] = {
        "BEGIN IMMEDIATE; UPDATE main.t SET v=v+1 WHERE id=7; UPDATE other.t SET v=v+1 WHERE id=7; COMMIT",
        "BEGIN EXCLUSIVE; UPDATE main.t SET v=v+1 WHERE id=7; UPDATE other.t SET v=v+1 WHERE id=7; COMMIT",
        "UPDATE main.t SET v=v+(SELECT min(v) FROM other.t WHERE id=2) WHERE id=7 RETURNING v",
        "UPDATE main.t SET v=v+(SELECT min(v) FROM other.t WHERE id=2) WHERE id=7",
        "UPDATE other.t SET v=v+(SELECT min(v) FROM main.t WHERE id=2) WHERE id=7 RETURNING v",
    };
    int number = (int)(intptr_t)arg;
    struct prng prng = prng_new((uint64_t)number);
    sqlite3 *db = open_from(number % 2);

    (void)sqlite3_busy_handler(db, never_gives_up, NULL);
    for (int i = 0; i < scaled(100) && !check_any_failed(); i++)
        db_exec(db, "%s", STATEMENTS[prng_below(&prng, sizeof STATEMENTS / sizeof *STATEMENTS)]);
    db_close(db);
}

/* Those that must not lose, in both databases, attached in any order, do not wait for each other: none of them ever gives
 * up here. */
static void turns_are_taken_in_one_order(void **state)
{
    (void)state;
    db_close(create());
    for (int i = 0; i < 4; i++)
        thread_start(take_turns, (void *)(intptr_t)i);
    threads_join();
    check_both();
}

/* A database that was attached to be read only is read as of the same moment as the others, also by one that must not lose
 * and moves on. */
static void a_database_to_read_moves_along(void **state)
{
    sqlite3 *db, *writer;

    (void)state;
    db_close(create());
    writer = open_from(0);
    db = db_open(path[0]);
    db_exec(db, "ATTACH 'file:%s?vfs=throng&mode=ro' AS other", path[1]);
    db_exec(db, "BEGIN IMMEDIATE");
    db_exec(writer, "BEGIN; UPDATE main.t SET v=2 WHERE id=1; UPDATE other.t SET v=2 WHERE id=1; COMMIT");
    CHECK_EQUAL(db_int(db, "SELECT v FROM main.t WHERE id=1"), 2);
    CHECK_EQUAL(db_int(db, "SELECT v FROM other.t WHERE id=1"), 2);
    db_exec(db, "UPDATE main.t SET v=(SELECT v+1 FROM other.t WHERE id=1) WHERE id=2");
    db_exec(db, "COMMIT");
    CHECK_EQUAL(db_int(db, "UPDATE main.t SET v=(SELECT v+7 FROM other.t WHERE id=1) WHERE id=2 RETURNING v"), 9);
    db_close(db);
    db_close(writer);
    check_both();
}

/* --- syncs --- */

static atomic_int at_sync, may_sync, was_told, told_code;

static void hold_sync(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    atomic_store(&at_sync, 1);
    while (atomic_load(&may_sync) == 0 && !check_any_failed())
        sleep_ms(1);
}

static void let_sync(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    atomic_store(&may_sync, 1);
    while (atomic_load(&was_told) == 0 && !check_any_failed())
        sleep_ms(1);
}

static void told(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    atomic_store(&was_told, 1);
}

static void commit_in_one(void *arg)
{
    atomic_store(&told_code, db_try(arg, "UPDATE t SET v=2 WHERE id=15"));
}

/* Two commits sync the same log at once, one of them of two databases. The disk says once that it could not write it:
 * neither of the two is acknowledged. */
static void a_failed_sync_is_so_for_both(void **state)
{
    struct fault_rule rule = {.call = THR_OS_SYNC, .path = "attach", .nth = 1, .count = 1, .err = EIO};
    sqlite3 *db = create(), *single = db_open(path[0]);
    int64_t here;

    (void)state;
    db_close(db); /* it has used all rows */
    db = open_from(0);
    db_exec(single, "PRAGMA synchronous=FULL; UPDATE t SET v=1 WHERE id=14");
    db_exec(db, "PRAGMA main.synchronous=FULL; PRAGMA other.synchronous=FULL");
    db_exec(db, "BEGIN; UPDATE main.t SET v=1 WHERE id=1; UPDATE other.t SET v=1 WHERE id=1; COMMIT");
    db_exec(db, "BEGIN; UPDATE main.t SET v=2 WHERE id=1; UPDATE other.t SET v=2 WHERE id=1");
    (void)fault_add(&rule);
    CHECK(fault_call_at("sync-begins", 1, hold_sync, NULL) >= 0);
    CHECK(fault_call_at("synced", 1, told, NULL) >= 0);
    thread_start(commit_in_one, single);
    while (atomic_load(&at_sync) == 0 && !check_any_failed())
        sleep_ms(1);
    CHECK(fault_call_at("logged", 1, let_sync, NULL) >= 0);
    CHECK(db_try(db, "COMMIT") != SQLITE_OK);
    threads_join();
    CHECK_EQUAL(fault_rule_hits(0), 1);
    CHECK_EQUAL(atomic_load(&told_code), SQLITE_IOERR_FSYNC);
    fault_reset();
    db_close(db);
    db_close(single);
    db = open_from(0);
    here = db_int(db, "SELECT v FROM main.t WHERE id=1");
    CHECK_EQUAL(db_int(db, "SELECT v FROM other.t WHERE id=1"), here);
    db_close(db);
    check_both();
}

static uint64_t syncs_before;
static atomic_int synced_between;

static void count_before(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    syncs_before = fault_rule_calls(0);
}

static void count_between(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    atomic_store(&synced_between, (int)(fault_rule_calls(0) - syncs_before));
}

/* That a commit took place is safe in each log before it is visible in any. After that the log that said so may go. */
static void each_log_knows_before_one_may_go(void **state)
{
    struct fault_rule rule = {.call = THR_OS_SYNC, .path = "attach-other", .nth = 1000000, .count = 1, .err = EIO};
    sqlite3 *db = create();

    (void)state;
    db_exec(db, "PRAGMA main.synchronous=FULL; PRAGMA other.synchronous=FULL");
    CHECK_EQUAL(fault_add(&rule), 0);
    CHECK(fault_call_at("all-decided", 1, count_before, NULL) >= 0);
    CHECK(fault_call_at("one-published", 1, count_between, NULL) >= 0);
    db_exec(db, "BEGIN; UPDATE main.t SET v=2 WHERE id=1; UPDATE other.t SET v=2 WHERE id=1; COMMIT");
    CHECK_EQUAL(atomic_load(&synced_between), 1);
    db_close(db);
    check_both();
}

/* Also where it can only be made safe in the second phase, since a database that is not ours changes, too. */
static void a_decision_that_is_not_safe_is_told(void **state)
{
    struct fault_rule rule = {.call = THR_OS_SYNC, .path = "attach", .nth = 3, .count = 1, .err = EIO};
    sqlite3 *db = create();

    (void)state;
    db_close(db);
    db = db_open(":memory:");
    for (int i = 0; i < 2; i++)
        db_exec(db, "ATTACH 'file:%s?vfs=throng' AS d%d; PRAGMA d%d.synchronous=FULL; UPDATE d%d.t SET v=1 WHERE id=1",
                path[i], i, i, i);
    db_exec(db, "CREATE TABLE m(x); BEGIN; INSERT INTO m VALUES(1); UPDATE d0.t SET v=2; UPDATE d1.t SET v=2");
    (void)fault_add(&rule);
    CHECK_EQUAL(db_try(db, "COMMIT"), SQLITE_IOERR_FSYNC);
    CHECK_EQUAL(fault_rule_hits(0), 1);
    fault_reset();
    db_close(db);
    db = open_from(0);
    CHECK_EQUAL(db_int(db, "SELECT min(v) FROM main.t"), db_int(db, "SELECT max(v) FROM other.t"));
    db_close(db);
    check_both();
}

/* A first commit that failed and was taken back has begun a segment of the log all the same. A directory with that, which
 * could not be removed at the close, is in nobody's way. */
static void what_was_taken_back_is_no_commit(void **state)
{
    uint64_t hits = 1;

    (void)state;
    for (uint64_t nth = 1; hits > 0; nth++) {
        struct fault_rule sync = {.call = THR_OS_SYNC, .path = "attach", .nth = nth, .count = 1, .err = EIO};
        struct fault_rule unlink = {
            .call = THR_OS_UNLINK, .path = "log-2", .nth = 1, .count = FAULT_FOREVER, .err = EIO};
        sqlite3 *db;
        int rc;

        db_close(create());
        db = open_from(0);
        db_exec(db, "PRAGMA main.synchronous=FULL; PRAGMA other.synchronous=FULL; BEGIN");
        db_exec(db, "INSERT INTO main.t VALUES(99, 1, randomblob(3000000))");
        db_exec(db, "INSERT INTO other.t VALUES(99, 1, randomblob(3000000))");
        (void)fault_add(&sync);
        (void)fault_add(&unlink);
        rc = db_try(db, "COMMIT");
        hits = fault_rule_hits(0);
        CHECK(rc == SQLITE_OK || hits == 1);
        db_close(db);
        fault_reset();
        db = open_from(0);
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM main.t"), db_int(db, "SELECT count(*) FROM other.t"));
        db_close(db);
        check_both();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_in_another_database_count),
        cmocka_unit_test(other_rows_do_not_count),
        cmocka_unit_test(a_statement_is_run_again),
        cmocka_unit_test(both_are_read_as_of_one_moment),
        cmocka_unit_test(a_snapshot_is_held_no_longer_than_its_transaction),
        cmocka_unit_test(a_commit_is_seen_in_all_or_in_none),
        cmocka_unit_test(a_commit_that_waits_holds_no_lock),
        cmocka_unit_test(turns_are_taken_in_one_order),
        cmocka_unit_test(a_database_to_read_moves_along),
        cmocka_unit_test(a_failed_sync_is_so_for_both),
        cmocka_unit_test(each_log_knows_before_one_may_go),
        cmocka_unit_test(a_decision_that_is_not_safe_is_told),
        cmocka_unit_test(what_was_taken_back_is_no_commit),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
