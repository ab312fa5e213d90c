/* The schema may change under everybody's hands: statements prepared before go on, none fails, each row is in every
 * index that there is, and a schema change that is rolled back never was.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>

#define WRITERS 2
#define BUILDERS 2

static char path[PATH_SIZE];
static atomic_bool stop;

struct client {
    int number;
    int rounds;
    int inserted;
    int deleted;
    struct prng prng;
};

/* Inserts into, updates and deletes from the table whose schema changes. Autocommit: no error at all. */
static void writer_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *insert = db_prepare(db, "INSERT INTO shared(owner, v) VALUES(?1, ?2)");
    sqlite3_stmt *update = db_prepare(db, "UPDATE shared SET v=v+1 WHERE owner=?1 AND v%7=?2");
    sqlite3_stmt *delete_one = db_prepare(db,
                                          "DELETE FROM shared WHERE id=(SELECT min(id) FROM shared WHERE owner=?1)");

    (void)sqlite3_bind_int(insert, 1, c->number);
    (void)sqlite3_bind_int(update, 1, c->number);
    (void)sqlite3_bind_int(delete_one, 1, c->number);
    for (int i = 0; !atomic_load(&stop) && !check_any_failed(); i++) {
        (void)sqlite3_bind_int(insert, 2, prng_below(&c->prng, 1000));
        CHECK_OK(stmt_run(insert), db);
        c->inserted++;
        if (i % 5 == 0) {
            (void)sqlite3_bind_int(update, 2, prng_below(&c->prng, 7));
            CHECK_OK(stmt_run(update), db);
        }
        if (i > 100) {
            CHECK_OK(stmt_run(delete_one), db);
            c->deleted += sqlite3_changes(db);
        }
    }
    stmt_end(insert);
    stmt_end(update);
    stmt_end(delete_one);
    db_close(db);
}

/* What sqlite_schema names in a snapshot is there in that snapshot, and indexes agree with their tables. */
static void reader_thread(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)arg;
    while (!atomic_load(&stop) && !check_any_failed()) {
        sqlite3_stmt *stmt;
        int64_t count;

        db_exec(db, "BEGIN");
        stmt = db_prepare(db, "SELECT name FROM sqlite_schema WHERE type='table' AND name GLOB 'own*'");
        while (sqlite3_step(stmt) == SQLITE_ROW)
            (void)db_int(db, "SELECT count(*) FROM \"%w\"", sqlite3_column_text(stmt, 0));
        stmt_end(stmt);
        count = db_int(db, "SELECT count(*) FROM shared NOT INDEXED WHERE v>=0");
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM shared WHERE v>=0"), count);
        db_exec(db, "COMMIT");
    }
    db_close(db);
}

static int build_own(sqlite3 *db, void *arg)
{
    struct client *c = arg;
    int rc = db_try(db, "CREATE TABLE own_%d(a INTEGER PRIMARY KEY, b TEXT UNIQUE)", c->number);

    if (rc == SQLITE_OK)
        rc = db_try(db, "INSERT INTO own_%d(b) VALUES('one'), ('two'), (hex(zeroblob(3000)))", c->number);
    if (rc == SQLITE_OK)
        rc = db_try(db, "ALTER TABLE own_%d ADD COLUMN c DEFAULT 5; CREATE INDEX own_index_%d ON own_%d(c, b)",
                    c->number, c->number, c->number);
    return rc;
}

static int drop_own(sqlite3 *db, void *arg)
{
    struct client *c = arg;
    int64_t sum = 0;
    int rc = db_try_int(db, &sum, "SELECT sum(c) FROM own_%d WHERE c=5", c->number);

    if (rc == SQLITE_OK)
        CHECK_EQUAL(sum, 15);
    return rc != SQLITE_OK ? rc : db_try(db, "DROP TABLE own_%d", c->number);
}

/* Each builder makes and drops its own table, and an index, a trigger and a view of the shared one. */
static void builder_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);

    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        int n = c->number, rc;

        (void)db_transaction(db, "BEGIN", build_own, c);
        db_exec(db, "CREATE INDEX shared_%d ON shared(v, owner)", n);
        db_exec(db, "CREATE TRIGGER counts_%d AFTER INSERT ON shared BEGIN UPDATE counter SET n=n+1 WHERE id=%d; END",
                n, n);
        db_exec(db, "CREATE VIEW view_%d AS SELECT owner, count(*) AS n FROM shared GROUP BY owner", n);
        db_exec(db, "BEGIN");
        rc = db_try(db, "DROP INDEX shared_%d; CREATE TABLE never_%d(x)", n, n);
        CHECK(rc == SQLITE_OK || rc == SQLITE_BUSY_SNAPSHOT); /* it may have lost already */
        if (!sqlite3_get_autocommit(db))
            db_exec(db, "ROLLBACK");
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM sqlite_schema WHERE name GLOB '*_%d'", n), 5);
        CHECK(db_int(db, "SELECT sum(n) FROM view_%d", n) >= 0);
        db_exec(db, "DROP VIEW view_%d", n);
        db_exec(db, "DROP TRIGGER counts_%d", n);
        db_exec(db, "DROP INDEX shared_%d", n);
        (void)db_transaction(db, "BEGIN", drop_own, c);
        if (i % 10 == 0)
            db_exec(db, "ALTER TABLE shared ADD COLUMN extra_%d_%d DEFAULT %d", n, i, i);
        if (i % 10 == 5)
            db_exec(db, "ANALYZE shared");
    }
    db_close(db);
}

static void the_schema_changes_beside_writers(void **state)
{
    struct client writers[WRITERS];
    struct client builders[BUILDERS];
    sqlite3 *db = db_open(path_new(path, "ddl"));
    int64_t left = 0;

    (void)state;
    db_exec(db,
            "CREATE TABLE shared(id INTEGER PRIMARY KEY, owner INT, v INT); CREATE INDEX shared_owner ON shared(owner);"
            "CREATE TABLE counter(id INTEGER PRIMARY KEY, n INT); INSERT INTO counter VALUES(10, 0), (11, 0)");
    atomic_store(&stop, false);
    thread_start(reader_thread, NULL);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct client){.number = i, .prng = prng_new((uint64_t)i)};
        thread_start(writer_thread, &writers[i]);
    }
    for (int i = 0; i < BUILDERS; i++) {
        builders[i] = (struct client){.number = 10 + i, .rounds = scaled(60)};
        thread_start(builder_thread, &builders[i]);
    }
    threads_join_but(1 + WRITERS);
    atomic_store(&stop, true);
    threads_join();
    for (int i = 0; i < WRITERS; i++) {
        left += writers[i].inserted - writers[i].deleted;
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM shared WHERE owner=%d", i),
                    writers[i].inserted - writers[i].deleted);
    }
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM shared NOT INDEXED"), left);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM sqlite_schema WHERE name GLOB 'own*' OR name GLOB 'never*'"), 0);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM sqlite_schema WHERE type IN ('index', 'trigger', 'view')"), 1);
    db_close(db);
    oracle_check(path);
}

/* The first table of an empty database, made by many at once: one of them makes it. */
static void first_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);

    db_exec(db, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, owner INT)");
    db_exec(db, "INSERT INTO t(owner) VALUES(%d)", c->number);
    db_exec(db, "CREATE INDEX IF NOT EXISTS i ON t(owner)");
    db_close(db);
}

static void many_make_the_first_table(void **state)
{
    struct client clients[8];

    (void)state;
    for (int round = 0; round < scaled(40); round++) {
        sqlite3 *db;

        (void)path_new(path, "first");
        for (int i = 0; i < 8; i++) {
            clients[i] = (struct client){.number = i};
            thread_start(first_thread, &clients[i]);
        }
        threads_join();
        oracle_check(path);
        db = db_stock(path);
        CHECK_EQUAL(db_int(db, "SELECT count(DISTINCT owner) FROM t"), 8);
        db_close(db);
    }
}

/* user_version and application_id live on page 1 as the schema does: writes to them are writes. */
static int bump_version(sqlite3 *db, void *arg)
{
    int64_t version;
    int rc = db_try_int(db, &version, "PRAGMA user_version");

    (void)arg;
    return rc != SQLITE_OK ? rc : db_try(db, "PRAGMA user_version=%lld", (long long)version + 1);
}

static void version_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);

    for (int i = 0; i < c->rounds && !check_any_failed(); i++)
        (void)db_transaction(db, "BEGIN", bump_version, NULL);
    db_close(db);
}

static void user_version_counts_exactly(void **state)
{
    struct client client = {.rounds = scaled(500)};
    sqlite3 *db = db_open(path_new(path, "version"));

    (void)state;
    db_exec(db, "CREATE TABLE t(x)");
    for (int i = 0; i < 3; i++)
        thread_start(version_thread, &client);
    threads_join();
    CHECK_EQUAL(db_int(db, "PRAGMA user_version"), 3 * client.rounds);
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_schema_changes_beside_writers),
        cmocka_unit_test(many_make_the_first_table),
        cmocka_unit_test(user_version_counts_exactly),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
