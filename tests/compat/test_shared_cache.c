/* With a shared cache several connections of SQLite use one file, whichever of them opened it. Each database commits by
 * itself, also while another connection is writing to one that the committing connection has attached.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

enum { CONNECTIONS = 3, STEPS = 400 };

static char paths[CONNECTIONS][PATH_SIZE];

static sqlite3 *open_all(void)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_SHAREDCACHE;
    sqlite3 *db;

    CHECK_OK(db_try_open(paths[0], flags, db_vfs(), &db), db);
    for (int i = 1; i < CONNECTIONS; i++)
        db_exec(db, "ATTACH %Q AS d%d", paths[i], i);
    return db;
}

static const char *schema_of(int i)
{
    static const char *const NAMES[CONNECTIONS] = {"main", "d1", "d2"};

    return NAMES[i];
}

/* Connection i writes to database i, in transactions that overlap in any order; sometimes to all, when it is alone. */
static void overlapping_writers_commit_one_by_one(void **state)
{
    struct prng prng = prng_new(3);
    sqlite3 *dbs[CONNECTIONS];
    int rows[CONNECTIONS] = {0}, pending[CONNECTIONS] = {0}, open_count = 0;

    (void)state;
    for (int i = 0; i < CONNECTIONS; i++)
        path_new(paths[i], "shared");
    for (int i = 0; i < CONNECTIONS; i++)
        dbs[i] = open_all();
    for (int i = 0; i < CONNECTIONS; i++)
        db_exec(dbs[0], "CREATE TABLE %s.t%d(a, b)", schema_of(i), i);
    for (int step = 0; step < scaled(STEPS); step++) {
        int i = prng_below(&prng, CONNECTIONS);

        if (pending[i] == 0) {
            db_exec(dbs[i], "BEGIN; INSERT INTO t%d VALUES(%d, zeroblob(%d))", i, step, prng_below(&prng, 9000));
            pending[i] = 1;
            open_count++;
        } else {
            bool keep = !prng_chance(&prng, 4);

            db_exec(dbs[i], keep ? "COMMIT" : "ROLLBACK");
            rows[i] += keep ? pending[i] : 0;
            pending[i] = 0;
            open_count--;
        }
        if (open_count == 0) {
            db_exec(
                dbs[i],
                "BEGIN; INSERT INTO t0 VALUES(1, 2); INSERT INTO t1 VALUES(1, 2); INSERT INTO t2 VALUES(1, 2); COMMIT");
            for (int other = 0; other < CONNECTIONS; other++)
                rows[other]++;
        }
    }
    for (int i = 0; i < CONNECTIONS; i++)
        if (pending[i] != 0)
            db_exec(dbs[i], "ROLLBACK");
    for (int i = 0; i < CONNECTIONS; i++)
        CHECK_EQUAL(db_int(dbs[0], "SELECT count(*) FROM t%d", i), rows[i]);
    /* The connection that opened the files goes first: the others go on with them. */
    for (int i = 0; i < CONNECTIONS; i++) {
        db_exec(dbs[i], "INSERT INTO t0 VALUES(3, 4)");
        db_close(dbs[i]);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        oracle_check(paths[i]);
}

/* A second connection comes while the first one is in a transaction that has begun in another database. */
static void sharing_begins_in_a_transaction(void **state)
{
    sqlite3 *first, *second, *apart;

    (void)state;
    for (int i = 0; i < CONNECTIONS; i++)
        path_new(paths[i], "late");
    first = open_all();
    for (int i = 0; i < CONNECTIONS; i++)
        db_exec(first, "CREATE TABLE %s.t%d(a, b); INSERT INTO t%d VALUES(1, 2)", schema_of(i), i, i);
    db_exec(first, "BEGIN; INSERT INTO t0 VALUES(5, 6); SELECT * FROM t1");
    second = open_all();
    CHECK_EQUAL(db_int(first, "SELECT count(*) FROM t1"), 1);
    db_exec(first, "INSERT INTO t1 VALUES(7, 8); COMMIT");
    CHECK_EQUAL(db_int(second, "SELECT count(*) FROM t0"), 2);
    CHECK_EQUAL(db_int(second, "SELECT count(*) FROM t1"), 2);
    /* Nothing that the transaction announced is left. */
    apart = db_open(paths[2]);
    CHECK_EQUAL(db_stat(apart, "oldest_snapshot_age_us"), 0);
    db_close(apart);
    db_close(first);
    db_close(second);
    for (int i = 0; i < CONNECTIONS; i++)
        oracle_check(paths[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlapping_writers_commit_one_by_one),
        cmocka_unit_test(sharing_begins_in_a_transaction),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
