/* A unique key is inserted once, whoever else tries at the same time; nothing is lost; counters that statements keep
 * (UPSERT, AUTOINCREMENT, triggers) are exact.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdio.h>

#define THREADS 4

static char path[PATH_SIZE];

struct client {
    int number;
    int rounds;
    int done;
    struct prng prng;
    sqlite3_stmt *stmt;
};

static void start_all(struct client *clients, int rounds, void (*function)(void *))
{
    for (int i = 0; i < THREADS; i++) {
        clients[i] = (struct client){.number = i, .rounds = rounds, .prng = prng_new((uint64_t)i)};
        thread_start(function, &clients[i]);
    }
    threads_join();
}

static void finish(sqlite3 *db)
{
    db_close(db);
    oracle_check(path);
}

/* --- all threads insert the same names, in the same order --- */

static void same_names_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *stmt = db_prepare(db, "INSERT INTO name VALUES(NULL, ?1, ?2)");

    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        char name[32];
        int rc;

        (void)snprintf(name, sizeof name, "%016llx", (unsigned long long)hash_u64((uint64_t)i));
        (void)sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int(stmt, 2, c->number);
        rc = stmt_run(stmt);
        if (rc != SQLITE_CONSTRAINT_UNIQUE)
            CHECK_OK(rc, db);
        c->done += rc == SQLITE_OK;
    }
    stmt_end(stmt);
    db_close(db);
}

static void a_name_is_inserted_once(void **state)
{
    struct client clients[THREADS];
    sqlite3 *db = db_open(path_new(path, "names"));
    int rounds = scaled(4000);

    (void)state;
    db_exec(db, "CREATE TABLE name(id INTEGER PRIMARY KEY, name TEXT UNIQUE, owner INT)");
    start_all(clients, rounds, same_names_thread);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM name NOT INDEXED"), rounds);
    CHECK_EQUAL(db_int(db, "SELECT count(DISTINCT name) FROM name"), rounds);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM name WHERE owner=%d", i), clients[i].done);
    finish(db);
}

/* --- each thread inserts its own keys, several in a transaction, next to those of the others --- */

static int insert_some(sqlite3 *db, void *arg)
{
    struct client *c = arg;
    int rc = SQLITE_OK;

    (void)db;
    for (int i = 0; i < 5 && rc == SQLITE_OK; i++) {
        (void)sqlite3_bind_int64(c->stmt, 1, (int64_t)(c->done + i) * THREADS + c->number);
        (void)sqlite3_bind_int(c->stmt, 2, c->number);
        rc = stmt_run(c->stmt);
    }
    return rc;
}

static void own_keys_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);

    c->stmt = db_prepare(db, "INSERT INTO t VALUES(?1, ?2, hex(randomblob(20)))");
    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        (void)db_transaction(db, "BEGIN", insert_some, c);
        c->done += 5;
    }
    stmt_end(c->stmt);
    db_close(db);
}

static void no_key_is_lost(void **state)
{
    struct client clients[THREADS];
    sqlite3 *db = db_open(path_new(path, "own"));
    int rounds = scaled(800);

    (void)state;
    db_exec(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, owner INT, pad TEXT); CREATE INDEX t_pad ON t(pad)");
    start_all(clients, rounds, own_keys_thread);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t NOT INDEXED"), rounds * 5 * THREADS);
    CHECK_EQUAL(db_int(db, "SELECT max(k) FROM t"), rounds * 5 * THREADS - 1);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE k%%%d<>owner", THREADS), 0);
    finish(db);
}

/* --- automatic rowids, and those of AUTOINCREMENT, which are never used twice --- */

static void append_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *insert = db_prepare(db, "INSERT INTO t(owner) VALUES(?1)");
    sqlite3_stmt *delete_last = db_prepare(db, "DELETE FROM t WHERE id=?1");
    int64_t last = 0;

    (void)sqlite3_bind_int(insert, 1, c->number);
    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        int64_t id;

        CHECK_OK(stmt_run(insert), db);
        id = sqlite3_last_insert_rowid(db);
        CHECK(id > last); /* it never goes back, also though rows are deleted at the end */
        last = id;
        if (prng_chance(&c->prng, 3)) {
            (void)sqlite3_bind_int64(delete_last, 1, id);
            CHECK_OK(stmt_run(delete_last), db);
            CHECK_EQUAL(sqlite3_changes(db), 1); /* nobody else had this id */
        } else {
            c->done++;
        }
    }
    stmt_end(insert);
    stmt_end(delete_last);
    db_close(db);
}

static void automatic_ids_are_unique(void **state)
{
    struct client clients[THREADS];
    sqlite3 *db = db_open(path_new(path, "append"));
    int done = 0;

    (void)state;
    db_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, owner INT)");
    start_all(clients, scaled(2500), append_thread);
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE owner=%d", i), clients[i].done);
        done += clients[i].done;
    }
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), done);
    CHECK_EQUAL(db_int(db, "SELECT seq FROM sqlite_sequence"), scaled(2500) * THREADS);
    finish(db);
}

/* --- UPSERT, and a trigger that counts --- */

static void upsert_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *stmt = db_prepare(db, "INSERT INTO word VALUES(?1, 1) ON CONFLICT(word) DO UPDATE SET n=n+1");

    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        char word[16];

        (void)snprintf(word, sizeof word, "w%d", prng_below(&c->prng, 300));
        (void)sqlite3_bind_text(stmt, 1, word, -1, SQLITE_STATIC);
        CHECK_OK(stmt_run(stmt), db);
    }
    stmt_end(stmt);
    db_close(db);
}

static void upserts_count_exactly(void **state)
{
    struct client clients[THREADS];
    sqlite3 *db = db_open(path_new(path, "upsert"));
    int rounds = scaled(4000);

    (void)state;
    db_exec(db, "CREATE TABLE word(word TEXT PRIMARY KEY, n INT) WITHOUT ROWID;"
                "CREATE TABLE total(n INT); INSERT INTO total VALUES(0);"
                "CREATE TRIGGER added AFTER INSERT ON word BEGIN UPDATE total SET n=n+1; END;"
                "CREATE TRIGGER changed AFTER UPDATE ON word BEGIN UPDATE total SET n=n+1; END");
    start_all(clients, rounds, upsert_thread);
    CHECK_EQUAL(db_int(db, "SELECT sum(n) FROM word"), rounds * THREADS);
    CHECK_EQUAL(db_int(db, "SELECT n FROM total"), rounds * THREADS);
    finish(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_inserted_once),
        cmocka_unit_test(no_key_is_lost),
        cmocka_unit_test(automatic_ids_are_unique),
        cmocka_unit_test(upserts_count_exactly),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
