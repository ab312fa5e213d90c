/* The smallest histories that weaker isolation gets wrong, step by step and as a race: of transactions that decide on
 * what others are about to change, one loses. Also where the decision is a range, a count, or that there is nothing.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>

static char path[PATH_SIZE];

/* --- step by step: two connections of one thread --- */

static sqlite3 *a;
static sqlite3 *b;

static void open_both(const char *schema)
{
    support_needs_throng();
    a = db_open(path_new(path, "skew"));
    db_exec(a, "%s", schema);
    b = db_open(path);
    db_exec(a, "BEGIN");
    db_exec(b, "BEGIN");
}

static void close_both(void)
{
    db_close(a);
    db_close(b);
    oracle_check(path);
}

/* Of two that are both on duty one may leave. */
static void the_second_doctor_stays(void **state)
{
    (void)state;
    open_both("CREATE TABLE x(on_duty); INSERT INTO x VALUES(1); CREATE TABLE y(on_duty); INSERT INTO y VALUES(1)");
    CHECK_EQUAL(db_int(a, "SELECT x.on_duty+y.on_duty FROM x, y"), 2);
    CHECK_EQUAL(db_int(b, "SELECT x.on_duty+y.on_duty FROM x, y"), 2);
    db_exec(a, "UPDATE x SET on_duty=0");
    db_exec(b, "UPDATE y SET on_duty=0");
    db_exec(a, "COMMIT");
    db_expect(b, SQLITE_BUSY_SNAPSHOT, "COMMIT");
    CHECK(sqlite3_get_autocommit(b) != 0);
    CHECK_EQUAL(db_int(b, "SELECT x.on_duty+y.on_duty FROM x, y"), 1);
    close_both();
}

/* No two meetings in the same room at the same time: each looks whether there is one, and finds nothing. */
static void nothing_found_is_a_read(void **state)
{
    (void)state;
    open_both("CREATE TABLE meeting(room, start, end); CREATE INDEX m ON meeting(room, start);"
              "INSERT INTO meeting VALUES(1, 100, 200)");
    CHECK_EQUAL(db_int(a, "SELECT count(*) FROM meeting WHERE room=1 AND start<30 AND end>10"), 0);
    CHECK_EQUAL(db_int(b, "SELECT count(*) FROM meeting WHERE room=1 AND start<25 AND end>5"), 0);
    db_exec(a, "INSERT INTO meeting VALUES(1, 10, 30)");
    db_exec(b, "INSERT INTO meeting VALUES(1, 5, 25)");
    db_exec(a, "COMMIT");
    db_expect(b, SQLITE_BUSY_SNAPSHOT, "COMMIT");
    CHECK_EQUAL(db_int(b, "SELECT count(*) FROM meeting"), 2);
    close_both();
}

/* A transaction that only read commits whatever has happened since; one that also wrote elsewhere does not. */
static void who_only_reads_does_not_lose(void **state)
{
    (void)state;
    open_both("CREATE TABLE x(v); INSERT INTO x VALUES(1); CREATE TABLE y(v); INSERT INTO y VALUES(1)");
    CHECK_EQUAL(db_int(a, "SELECT v FROM x"), 1);
    db_exec(b, "UPDATE x SET v=2; COMMIT");
    CHECK_EQUAL(db_int(a, "SELECT v FROM x"), 1);
    db_exec(a, "COMMIT");
    CHECK_EQUAL(db_int(a, "SELECT v FROM x"), 2);

    db_exec(a, "BEGIN");
    CHECK_EQUAL(db_int(a, "SELECT v FROM x"), 2);
    db_exec(b, "UPDATE x SET v=3");
    CHECK(db_try(a, "UPDATE y SET v=2") == SQLITE_BUSY_SNAPSHOT || db_try(a, "COMMIT") == SQLITE_BUSY_SNAPSHOT);
    if (!sqlite3_get_autocommit(a))
        db_exec(a, "ROLLBACK");
    CHECK_EQUAL(db_int(a, "SELECT v FROM y"), 1);
    close_both();
}

/* Pages that one transaction reads and others leave alone make no conflict. */
static void different_tables_do_not_conflict(void **state)
{
    (void)state;
    open_both("CREATE TABLE x(v); INSERT INTO x VALUES(1); CREATE TABLE y(v); INSERT INTO y VALUES(1)");
    db_exec(a, "UPDATE x SET v=v+1; INSERT INTO x SELECT zeroblob(10000)");
    db_exec(b, "UPDATE y SET v=v+1; INSERT INTO y SELECT zeroblob(10000)");
    db_exec(a, "COMMIT");
    db_exec(b, "COMMIT");
    CHECK_EQUAL(db_int(a, "SELECT x.v+y.v FROM x, y WHERE x.v<9 AND y.v<9"), 4);
    close_both();
}

/* The first to commit wins, also against one that began and wrote before. */
static void the_first_to_commit_wins(void **state)
{
    (void)state;
    open_both("CREATE TABLE x(v); INSERT INTO x VALUES(1)");
    db_exec(a, "UPDATE x SET v=10");
    db_exec(b, "UPDATE x SET v=20; COMMIT");
    db_expect(a, SQLITE_BUSY_SNAPSHOT, "COMMIT");
    CHECK_EQUAL(db_int(a, "SELECT v FROM x"), 20);
    close_both();
}

/* Conflicts count for what the transaction has read, also when the statement that read it has been rolled back, and
 * when the pager had the page in its cache from an earlier transaction. */
static void cached_pages_are_read_too(void **state)
{
    (void)state;
    open_both("CREATE TABLE x(v); INSERT INTO x VALUES(1); CREATE TABLE y(v); INSERT INTO y VALUES(1)");
    CHECK_EQUAL(db_int(a, "SELECT v FROM x"), 1);
    CHECK_EQUAL(db_int(a, "SELECT v FROM y"), 1);
    db_exec(a, "COMMIT; BEGIN");
    CHECK_EQUAL(db_int(a, "SELECT v FROM x"), 1); /* from the cache */
    db_exec(b, "UPDATE x SET v=2; COMMIT");
    db_exec(a, "UPDATE y SET v=2");
    db_expect(a, SQLITE_BUSY_SNAPSHOT, "COMMIT");

    db_exec(a, "UPDATE y SET v=5; BEGIN"); /* what it wrote itself is in the cache, and was never read */
    CHECK_EQUAL(db_int(a, "SELECT v FROM y"), 5);
    db_exec(b, "UPDATE y SET v=6");
    db_exec(a, "UPDATE x SET v=7");
    db_expect(a, SQLITE_BUSY_SNAPSHOT, "COMMIT");
    close_both();
}

/* A schema that changed is a read that changed, also for statements prepared before. */
static void the_schema_is_read(void **state)
{
    sqlite3_stmt *stmt;

    (void)state;
    open_both("CREATE TABLE x(v); INSERT INTO x VALUES(1)");
    stmt = db_prepare(a, "INSERT INTO x VALUES(2)");
    CHECK_EQUAL(stmt_run(stmt), SQLITE_OK);
    db_exec(b, "CREATE INDEX i ON x(v); COMMIT");
    db_expect(a, SQLITE_BUSY_SNAPSHOT, "COMMIT"); /* its row would not be in the index */
    CHECK_EQUAL(stmt_run(stmt), SQLITE_OK);
    stmt_end(stmt);
    CHECK_EQUAL(db_int(a, "SELECT count(*) FROM x INDEXED BY i WHERE v=2"), 1);
    close_both();
}

/* --- as a race --- */

#define DOCTORS 3

static struct meeting meeting;
static atomic_int wrong;

struct doctor {
    int number;
    int rounds;
};

#define ON_DUTY "SELECT (SELECT on_duty FROM doctor_0)+(SELECT on_duty FROM doctor_1)+(SELECT on_duty FROM doctor_2)"

static int leave(sqlite3 *db, void *arg)
{
    const struct doctor *doctor = arg;
    int64_t on_duty;
    int rc = db_try_int(db, &on_duty, ON_DUTY);

    if (rc != SQLITE_OK || on_duty < 2)
        return rc;
    return db_try(db, "UPDATE doctor_%d SET on_duty=0", doctor->number);
}

static void doctor_thread(void *arg)
{
    struct doctor *doctor = arg;
    sqlite3 *db = db_open(path);

    for (int i = 0; i < doctor->rounds; i++) {
        meeting_wait(&meeting);
        (void)db_transaction(db, "BEGIN", leave, doctor);
        meeting_wait(&meeting);
        if (db_int(db, ON_DUTY) != 1)
            (void)atomic_fetch_add(&wrong, 1);
        meeting_wait(&meeting);
        db_exec(db, "UPDATE doctor_%d SET on_duty=1", doctor->number);
    }
    db_close(db);
}

static void doctors_never_all_leave(void **state)
{
    struct doctor doctors[DOCTORS];
    sqlite3 *db = db_open(path_new(path, "doctors"));

    (void)state;
    for (int i = 0; i < DOCTORS; i++)
        db_exec(db, "CREATE TABLE doctor_%d(on_duty); INSERT INTO doctor_%d VALUES(1)", i, i);
    atomic_store(&wrong, 0);
    meeting_init(&meeting, DOCTORS);
    for (int i = 0; i < DOCTORS; i++) {
        doctors[i] = (struct doctor){.number = i, .rounds = scaled(1500)};
        thread_start(doctor_thread, &doctors[i]);
    }
    threads_join();
    CHECK_EQUAL(atomic_load(&wrong), 0);
    db_close(db);
    oracle_check(path);
}

/* Seats: each client takes one if there are fewer than SEATS in the car, by counting a range. */
#define SEATS 5
#define CARS 40

struct passenger {
    struct prng prng;
    int taken;
    int car;
};

static int take_seat(sqlite3 *db, void *arg)
{
    struct passenger *p = arg;
    int64_t count;
    int rc = db_try_int(db, &count, "SELECT count(*) FROM seat WHERE car=%d", p->car);

    p->taken = 0;
    if (rc != SQLITE_OK || count >= SEATS)
        return rc;
    p->taken = 1;
    return db_try(db, "INSERT INTO seat(car, passenger) VALUES(%d, %lld)", p->car, (long long)prng_next(&p->prng));
}

static void passenger_thread(void *arg)
{
    struct passenger *p = arg;
    sqlite3 *db = db_open(path);
    int taken = 0;

    for (int i = 0; i < scaled(1000) && !check_any_failed(); i++) {
        p->car = prng_below(&p->prng, CARS);
        (void)db_transaction(db, "BEGIN", take_seat, p);
        taken += p->taken;
    }
    p->taken = taken;
    db_close(db);
}

static void no_car_is_overfull(void **state)
{
    struct passenger passengers[4];
    sqlite3 *db = db_open(path_new(path, "cars"));
    int taken = 0;

    (void)state;
    db_exec(db, "CREATE TABLE seat(id INTEGER PRIMARY KEY, car INT, passenger); CREATE INDEX seat_car ON seat(car)");
    for (int i = 0; i < 4; i++) {
        passengers[i] = (struct passenger){.prng = prng_new((uint64_t)i)};
        thread_start(passenger_thread, &passengers[i]);
    }
    threads_join();
    for (int i = 0; i < 4; i++)
        taken += passengers[i].taken;
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM seat"), taken);
    CHECK_EQUAL(db_int(db, "SELECT max(n) FROM (SELECT count(*) AS n FROM seat GROUP BY car)"), SEATS);
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_doctor_stays),      cmocka_unit_test(nothing_found_is_a_read),
        cmocka_unit_test(who_only_reads_does_not_lose), cmocka_unit_test(different_tables_do_not_conflict),
        cmocka_unit_test(the_first_to_commit_wins),     cmocka_unit_test(cached_pages_are_read_too),
        cmocka_unit_test(the_schema_is_read),           cmocka_unit_test(doctors_never_all_leave),
        cmocka_unit_test(no_car_is_overfull),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
