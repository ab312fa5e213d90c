/* Money is neither made nor lost: whatever the interleaving of transfers, every snapshot of the accounts has the same
 * sum. With it, the smallest histories that weaker isolation gets wrong. Replay: THRONG_SEED=<n> build/tests/test-bank
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define ACCOUNTS 200
#define BALANCE 1000
#define MAX_WORKERS 4

static char path[PATH_SIZE];
static int64_t mapped; /* PRAGMA mmap_size */
static atomic_bool stop;

struct worker {
    struct prng prng;
    int rounds;
    int number;
    atomic_int committed;
};

static sqlite3 *db_mapped(const char *name)
{
    sqlite3 *db = db_open(name);

    db_exec(db, "PRAGMA mmap_size=%lld", (long long)mapped);
    return db;
}

/* --- transfers --- */

struct transfer {
    sqlite3_stmt *take;
    sqlite3_stmt *give;
    int from;
    int to;
    int amount;
};

static int transfer_body(sqlite3 *db, void *arg)
{
    struct transfer *t = arg;
    int64_t balance;
    int rc = db_try_int(db, &balance, "SELECT balance FROM account WHERE id=%d", t->from);

    if (rc != SQLITE_OK)
        return rc;
    if (balance < t->amount)
        return SQLITE_OK;
    (void)sqlite3_bind_int64(t->take, 1, balance - t->amount); /* from what was read, so a stale read loses money */
    (void)sqlite3_bind_int(t->take, 2, t->from);
    (void)sqlite3_bind_int(t->give, 1, t->amount);
    (void)sqlite3_bind_int(t->give, 2, t->to);
    rc = stmt_run(t->take);
    return rc != SQLITE_OK ? rc : stmt_run(t->give);
}

static void transfer_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_mapped(path);
    struct transfer t = {
        .take = db_prepare(db, "UPDATE account SET balance=?1 WHERE id=?2"),
        .give = db_prepare(db, "UPDATE account SET balance=balance+?1 WHERE id=?2"),
    };

    for (int i = 0; i < worker->rounds && !check_any_failed(); i++) {
        t.from = prng_below(&worker->prng, ACCOUNTS);
        t.to = (t.from + 1 + prng_below(&worker->prng, ACCOUNTS - 1)) % ACCOUNTS;
        t.amount = prng_below(&worker->prng, 2 * BALANCE);
        (void)db_transaction(db, prng_below(&worker->prng, 10) == 0 ? "BEGIN IMMEDIATE" : "BEGIN", transfer_body, &t);
    }
    CHECK_OK(sqlite3_finalize(t.take), db);
    CHECK_OK(sqlite3_finalize(t.give), db);
    db_close(db);
}

static void auditor_thread(void *arg)
{
    sqlite3 *db = db_mapped(path);
    struct worker *worker = arg;

    while (!atomic_load(&stop) && !check_any_failed()) {
        db_exec(db, "BEGIN");
        CHECK_EQUAL(db_int(db, "SELECT sum(balance) FROM account"), ACCOUNTS * BALANCE);
        if (worker->number % 2 == 0)
            sleep_ms(2);
        CHECK_EQUAL(db_int(db, "SELECT sum(balance) FROM account"), ACCOUNTS * BALANCE);
        CHECK_EQUAL(db_int(db, "SELECT min(balance)>=0 FROM account NOT INDEXED"), 1);
        db_exec(db, "COMMIT");
        CHECK_EQUAL(db_int(db, "SELECT total(balance) FROM account INDEXED BY by_balance WHERE balance>=0"),
                    ACCOUNTS * BALANCE);
        (void)atomic_fetch_add(&worker->committed, 1);
    }
    db_close(db);
}

static void bank_run(int page_size)
{
    struct worker workers[MAX_WORKERS];
    struct worker auditors[2];
    sqlite3 *db = db_open(path_new(path, "bank"));

    db_exec(db, "PRAGMA page_size=%d; CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, pad TEXT)", page_size);
    db_exec(db, "CREATE INDEX by_balance ON account(balance)");
    db_exec(db,
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<%d) "
            "INSERT INTO account SELECT i, %d, hex(zeroblob(50)) FROM n",
            ACCOUNTS - 1, BALANCE);
    CHECK_EQUAL(db_int(db, "PRAGMA page_size"), page_size);
    atomic_store(&stop, false);
    for (int i = 0; i < 2; i++) {
        auditors[i] = (struct worker){.number = i};
        thread_start(auditor_thread, &auditors[i]);
    }
    for (int i = 0; i < MAX_WORKERS; i++) {
        workers[i] = (struct worker){.prng = prng_new((uint64_t)(page_size + i)), .rounds = scaled(4000)};
        thread_start(transfer_thread, &workers[i]);
    }
    threads_join_but(2);
    atomic_store(&stop, true);
    threads_join();
    CHECK(atomic_load(&auditors[0].committed) > 0 && atomic_load(&auditors[1].committed) > 0);
    CHECK_EQUAL(db_int(db, "SELECT sum(balance) FROM account"), ACCOUNTS * BALANCE);
    db_close(db);
    oracle_check(path);
}

static void bank_holds_at_page_size_512(void **state)
{
    (void)state;
    bank_run(512);
}

static void bank_holds_at_page_size_4096(void **state)
{
    (void)state;
    bank_run(4096);
}

static void bank_holds_at_page_size_65536(void **state)
{
    (void)state;
    bank_run(65536);
}

static void bank_holds_with_mapped_pages(void **state)
{
    (void)state;
    mapped = 1 << 30;
    bank_run(4096);
    mapped = 0;
}

/* --- write skew: each of two doctors goes off duty only if the other is on --- */

static pthread_barrier_t both;
static atomic_int skewed;

struct doctor {
    int number;
    int rounds;
};

static int doctor_body(sqlite3 *db, void *arg)
{
    struct doctor *doctor = arg;
    int64_t on_duty;
    int rc = db_try_int(db, &on_duty, "SELECT (SELECT on_duty FROM doctor_0) + (SELECT on_duty FROM doctor_1)");

    if (rc != SQLITE_OK || on_duty < 2)
        return rc;
    return db_try(db, "UPDATE doctor_%d SET on_duty=0", doctor->number);
}

static void doctor_thread(void *arg)
{
    struct doctor *doctor = arg;
    sqlite3 *db = db_open(path);

    for (int i = 0; i < doctor->rounds; i++) {
        (void)pthread_barrier_wait(&both);
        (void)db_transaction(db, "BEGIN", doctor_body, doctor);
        (void)pthread_barrier_wait(&both);
        if (db_int(db, "SELECT (SELECT on_duty FROM doctor_0) + (SELECT on_duty FROM doctor_1)") != 1)
            (void)atomic_fetch_add(&skewed, 1); /* not CHECK(): the other thread waits at the barrier */
        (void)pthread_barrier_wait(&both);
        db_exec(db, "UPDATE doctor_%d SET on_duty=1", doctor->number);
    }
    db_close(db);
}

static void two_doctors_never_leave_together(void **state)
{
    struct doctor doctors[2];
    sqlite3 *db = db_open(path_new(path, "doctors"));

    (void)state;
    db_exec(db, "CREATE TABLE doctor_0(on_duty); INSERT INTO doctor_0 VALUES(1);"
                "CREATE TABLE doctor_1(on_duty); INSERT INTO doctor_1 VALUES(1)");
    atomic_store(&skewed, 0);
    CHECK_EQUAL(pthread_barrier_init(&both, NULL, 2), 0);
    for (int i = 0; i < 2; i++) {
        doctors[i] = (struct doctor){.number = i, .rounds = scaled(2000)};
        thread_start(doctor_thread, &doctors[i]);
    }
    threads_join();
    CHECK_EQUAL(atomic_load(&skewed), 0);
    (void)pthread_barrier_destroy(&both);
    db_close(db);
    oracle_check(path);
}

/* The same in one thread, step by step: of the two, exactly the second to commit loses. */
static void write_skew_step_by_step(void **state)
{
    sqlite3 *a;
    sqlite3 *b;

    (void)state;
    a = db_open(path_new(path, "skew"));
    db_exec(a, "CREATE TABLE x(v); INSERT INTO x VALUES(1); CREATE TABLE y(v); INSERT INTO y VALUES(1)");
    b = db_open(path);
    db_exec(a, "BEGIN");
    db_exec(b, "BEGIN");
    CHECK_EQUAL(db_int(a, "SELECT x.v+y.v FROM x, y"), 2);
    CHECK_EQUAL(db_int(b, "SELECT x.v+y.v FROM x, y"), 2);
    db_exec(a, "UPDATE x SET v=0");
    db_exec(b, "UPDATE y SET v=0");
    db_exec(a, "COMMIT");
    CHECK_EQUAL(db_try(b, "COMMIT"), SQLITE_BUSY_SNAPSHOT);
    CHECK(sqlite3_get_autocommit(b) != 0);
    CHECK_EQUAL(db_int(b, "SELECT x.v+y.v FROM x, y"), 1);
    db_close(a);
    db_close(b);
    oracle_check(path);
}

/* --- autocommit --- */

static void increment_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *stmt = db_prepare(db, "UPDATE counter SET n=n+1 WHERE id=1");

    for (int i = 0; i < worker->rounds && !check_any_failed(); i++)
        CHECK_OK(stmt_run(stmt), db);
    CHECK_OK(sqlite3_finalize(stmt), db);
    db_close(db);
}

static void autocommit_increments_never_fail(void **state)
{
    struct worker workers[3];
    sqlite3 *db = db_open(path_new(path, "counter"));

    (void)state;
    db_exec(db, "CREATE TABLE counter(id INTEGER PRIMARY KEY, n INT); INSERT INTO counter VALUES(1, 0)");
    for (int i = 0; i < 3; i++) {
        workers[i] = (struct worker){.rounds = scaled(20000)};
        thread_start(increment_thread, &workers[i]);
    }
    threads_join();
    CHECK_EQUAL(db_int(db, "SELECT n FROM counter"), 3 * scaled(20000));
    db_close(db);
    oracle_check(path);
}

/* --- unique keys: all threads try to insert the same names; each name is inserted once, by one thread --- */

static void unique_thread(void *arg)
{
    struct worker *worker = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *stmt = db_prepare(db, "INSERT INTO name(name, owner) VALUES(?1, ?2)");

    for (int i = 0; i < worker->rounds && !check_any_failed(); i++) {
        char name[32];
        int rc;

        (void)snprintf(name, sizeof name, "%llx", (unsigned long long)hash_u64((uint64_t)i));
        (void)sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int(stmt, 2, worker->number);
        rc = stmt_run(stmt);
        if (rc == SQLITE_OK)
            (void)atomic_fetch_add(&worker->committed, 1);
        else if (rc != SQLITE_CONSTRAINT_UNIQUE)
            CHECK_OK(rc, db);
    }
    CHECK_OK(sqlite3_finalize(stmt), db);
    db_close(db);
}

static void unique_keys_are_inserted_once(void **state)
{
    struct worker workers[4];
    sqlite3 *db = db_open(path_new(path, "unique"));

    (void)state;
    db_exec(db, "CREATE TABLE name(id INTEGER PRIMARY KEY, name TEXT UNIQUE, owner INT)");
    for (int i = 0; i < 4; i++) {
        workers[i] = (struct worker){.rounds = scaled(5000), .number = i};
        thread_start(unique_thread, &workers[i]);
    }
    threads_join();
    CHECK_EQUAL(db_int(db, "SELECT count(DISTINCT name) FROM name"), scaled(5000));
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM name NOT INDEXED"), scaled(5000));
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM name WHERE owner=%d", i), atomic_load(&workers[i].committed));
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bank_holds_at_page_size_512),      cmocka_unit_test(bank_holds_at_page_size_4096),
        cmocka_unit_test(bank_holds_at_page_size_65536),    cmocka_unit_test(bank_holds_with_mapped_pages),
        cmocka_unit_test(two_doctors_never_leave_together), cmocka_unit_test(write_skew_step_by_step),
        cmocka_unit_test(autocommit_increments_never_fail), cmocka_unit_test(unique_keys_are_inserted_once),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
