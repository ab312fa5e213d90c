/* What is rolled back never was: after storms of nested savepoints, statements that fail half-way, spilled caches and
 * rollbacks the content is that of a stock in-memory database that was told the same, at every step, also while other
 * threads do the same in the same file.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdio.h>
#include <string.h>

#define MAX_DEPTH 6
#define MAX_THREADS 3

static char path[PATH_SIZE];
static const char *settings;
static const char *options; /* of the tables */

struct client {
    int number;
    int rounds;
    struct prng prng;
    sqlite3 *db;
    sqlite3 *model;
    bool lost; /* the transaction is over: conflict */
    int depth;
};

static void both_fail(const struct client *c, const char *sql, int rc, int expected)
{
    check_failed(__FILE__, __LINE__, "%.200s: code %d (%s), and stock SQLite gives %d", sql, rc, sqlite3_errmsg(c->db),
                 expected);
}

/* The transaction has met a conflict: it is over, on the model, too. */
static void lose(struct client *c)
{
    if (!sqlite3_get_autocommit(c->db))
        db_exec(c->db, "ROLLBACK");
    if (!sqlite3_get_autocommit(c->model))
        db_exec(c->model, "ROLLBACK");
    c->lost = true;
}

/* Run it on both. */
static void run(struct client *c, const char *format, ...)
{
    va_list arguments;
    char *sql;
    int rc;
    int expected;

    if (c->lost)
        return;
    va_start(arguments, format);
    sql = sqlite3_vmprintf(format, arguments);
    va_end(arguments);
    CHECK(sql != NULL);
    rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    if (rc == SQLITE_BUSY_SNAPSHOT) {
        lose(c);
    } else {
        expected = sqlite3_exec(c->model, sql, NULL, NULL, NULL);
        if (rc != expected)
            both_fail(c, sql, rc, expected);
        CHECK_EQUAL(sqlite3_get_autocommit(c->db), sqlite3_get_autocommit(c->model));
        c->lost = sqlite3_get_autocommit(c->db) && c->depth > 0; /* INSERT OR ROLLBACK */
    }
    sqlite3_free(sql);
}

/* Inside a transaction that writes any read may say that it has lost; then there is nothing to compare. */
static void compare_by(struct client *c, const char *sql)
{
    uint64_t hash;
    int rc;

    if ((rc = db_try_hash(c->db, &hash, sql, c->number)) == SQLITE_BUSY_SNAPSHOT && c->depth > 0 && !c->lost)
        lose(c);
    else if (rc != SQLITE_OK)
        check_failed(__FILE__, __LINE__, "client %d: code %d: %s", c->number, rc, sqlite3_errmsg(c->db));
    else if (hash != db_hash(c->model, sql, c->number))
        check_failed(__FILE__, __LINE__, "client %d: the content differs from the model's", c->number);
}

static void compare(struct client *c)
{
    compare_by(c, "SELECT * FROM t_%d ORDER BY id");
    compare_by(c, "SELECT u, id FROM t_%d WHERE u>=0 ORDER BY u");
}

/* Blobs whose content depends on the id, so that a page in the wrong place shows. */
#define BLOB "CAST(printf('%%.*c', %d, char(65+%d)) AS BLOB)"

static void change_rows(struct client *c)
{
    static const char *const conflicts[] = {"ABORT", "FAIL", "IGNORE", "REPLACE", "ROLLBACK"};
    struct prng *prng = &c->prng;
    int n = c->number;
    int from = prng_below(prng, 300);
    int size = prng_chance(prng, 6) ? prng_below(prng, 20000) : prng_below(prng, 300);
    int letter = prng_below(prng, 26);

    switch (prng_below(prng, 8)) {
    case 0: /* a statement of many rows that runs into a unique value in the middle */
        run(c,
            "WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i+1 FROM n WHERE i<%d) "
            "INSERT OR %s INTO t_%d SELECT i+1000000, CASE WHEN i=%d THEN (SELECT min(u) FROM t_%d) ELSE i+2000000 "
            "END, " BLOB " FROM n",
            from, from + 40, conflicts[prng_below(prng, 20) == 0 ? 4 : prng_below(prng, 4)], n, from + 25, n, size / 10,
            letter);
        break;
    case 1:
        run(c, "DELETE FROM t_%d WHERE id BETWEEN %d AND %d OR id>1000000", n, from, from + prng_below(prng, 60));
        break;
    case 2:
        run(c, "UPDATE t_%d SET b=" BLOB " WHERE id BETWEEN %d AND %d", n, size, letter, from,
            from + prng_below(prng, 20));
        break;
    case 3: /* fails for the CHECK on the last row, after having changed the others */
        run(c, "UPDATE t_%d SET u=CASE WHEN id>=(SELECT max(id) FROM t_%d) THEN -1 ELSE u+500000 END WHERE id>%d", n, n,
            from);
        break;
    case 4:
        run(c, "UPDATE OR IGNORE t_%d SET u=u+%d WHERE id%%3=%d", n, 1 + prng_below(prng, 3), prng_below(prng, 3));
        break;
    case 5:
        run(c, "DELETE FROM t_%d WHERE u IN (SELECT u FROM t_%d ORDER BY length(b) DESC LIMIT 5)", n, n);
        break;
    default:
        run(c, "INSERT OR REPLACE INTO t_%d VALUES(%d, %d, " BLOB ")", n, from, from + 5000, size, letter);
    }
}

static void one_transaction(struct client *c)
{
    struct prng *prng = &c->prng;
    int names[MAX_DEPTH]; /* savepoints open, by name: the same name may be there twice */

    c->lost = false;
    c->depth = 0;
    if (prng_chance(prng, 4)) {
        change_rows(c); /* autocommit */
        return;
    }
    if (prng_chance(prng, 3)) {
        names[0] = prng_below(prng, 3);
        run(c, "SAVEPOINT s%d", names[0]);
    } else {
        names[0] = -1;
        run(c, prng_chance(prng, 5) ? "BEGIN IMMEDIATE" : "BEGIN");
    }
    c->depth = 1;
    for (int i = 2 + prng_below(prng, 15); i > 0 && !c->lost; i--) {
        int what = prng_below(prng, 10);
        int to = prng_below(prng, c->depth);

        if (what < 2 && c->depth < MAX_DEPTH) {
            names[c->depth] = prng_below(prng, 3);
            run(c, "SAVEPOINT s%d", names[c->depth]);
            c->depth++;
        } else if (what < 5 && names[to] >= 0) {
            bool release = what == 2 && to > 0;

            run(c, "%s s%d", release ? "RELEASE" : "ROLLBACK TO", names[to]);
            for (int d = c->depth - 1; d >= to; d--) { /* the innermost of that name is meant */
                if (names[d] == names[to]) {
                    c->depth = release ? d : d + 1;
                    break;
                }
            }
        } else {
            change_rows(c);
        }
        if (prng_chance(prng, 8))
            compare(c);
    }
    run(c, prng_chance(prng, 3) ? "ROLLBACK" : "COMMIT");
    c->depth = 0;
}

#define CREATE_TABLE "CREATE TABLE t_%d(id INT PRIMARY KEY, u INT UNIQUE CHECK(u>=0), b BLOB) %s"

static void open_client(struct client *c)
{
    c->db = db_open(path);
    c->model = db_stock(":memory:");
    db_exec(c->db, "%s", settings);
    for (int i = 0; i < MAX_THREADS; i++)
        db_exec(c->model, CREATE_TABLE, i, options);
    db_exec(c->model,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<150) "
            "INSERT INTO t_%d SELECT i*2, i*2, zeroblob(i) FROM n",
            c->number);
    compare(c);
}

static void storm_thread(void *arg)
{
    struct client *c = arg;

    open_client(c);
    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        one_transaction(c);
        compare(c);
    }
    db_close(c->db);
    db_close(c->model);
}

struct storm {
    int page_size;
    const char *before_create;
    const char *settings;
    const char *options;
    int threads;
    int rounds;
};

static void storm(struct storm the)
{
    struct client clients[MAX_THREADS];
    sqlite3 *db = db_open(path_new(path, "rollback"));

    settings = the.settings != NULL ? the.settings : "";
    options = the.options != NULL ? the.options : "";
    db_exec(db, "PRAGMA page_size=%d; %s", the.page_size, the.before_create != NULL ? the.before_create : "");
    for (int i = 0; i < MAX_THREADS; i++) {
        db_exec(db, CREATE_TABLE, i, options);
        db_exec(db,
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<150) "
                "INSERT INTO t_%d SELECT i*2, i*2, zeroblob(i) FROM n",
                i);
    }
    db_close(db);
    if (!support_is_throng())
        the.threads = 1; /* with BEGIN the others would have to wait for each other */
    for (int i = 0; i < the.threads; i++) {
        clients[i] = (struct client){
            .number = i,
            .rounds = scaled(the.rounds),
            .prng = prng_new((uint64_t)(the.page_size + i)),
        };
        thread_start(storm_thread, &clients[i]);
    }
    threads_join();
    oracle_check(path);
}

#define SMALL_CACHE "PRAGMA cache_size=5;"

static void one_client_at_page_size_512(void **state)
{
    (void)state;
    storm((struct storm){512, NULL, SMALL_CACHE, NULL, 1, 300});
}

static void one_client_at_page_size_4096(void **state)
{
    (void)state;
    storm((struct storm){4096, NULL, NULL, NULL, 1, 500});
}

static void three_clients_with_a_large_cache(void **state)
{
    (void)state;
    storm((struct storm){1024, NULL, NULL, NULL, 3, 250});
}

static void three_clients_with_a_cache_of_five_pages(void **state)
{
    (void)state;
    storm((struct storm){1024, NULL, SMALL_CACHE, NULL, 3, 200});
}

static void three_clients_with_mapped_pages(void **state)
{
    (void)state;
    storm((struct storm){4096, NULL, SMALL_CACHE "PRAGMA mmap_size=1000000000", NULL, 3, 250});
}

static void three_clients_without_rowid(void **state)
{
    (void)state;
    storm((struct storm){2048, NULL, SMALL_CACHE, "WITHOUT ROWID", 3, 200});
}

static void three_clients_with_auto_vacuum(void **state)
{
    (void)state;
    storm((struct storm){1024, "PRAGMA auto_vacuum=full", SMALL_CACHE, NULL, 3, 60});
    storm((struct storm){1024, "PRAGMA auto_vacuum=incremental", SMALL_CACHE, NULL, 3, 60});
}

static void journal_modes_do_not_matter(void **state)
{
    (void)state;
    support_needs_throng(); /* "off" breaks stock SQLite's rollback */
    storm((struct storm){4096, NULL, SMALL_CACHE "PRAGMA journal_mode=MEMORY; PRAGMA journal_mode=OFF", NULL, 2, 150});
    storm((struct storm){4096, NULL, SMALL_CACHE "PRAGMA journal_mode=WAL", NULL, 2, 150});
    storm(
        (struct storm){4096, NULL, SMALL_CACHE "PRAGMA journal_mode=TRUNCATE; PRAGMA temp_store=memory", NULL, 2, 150});
}

/* A transaction much larger than the cache that is rolled back, and one that is committed. */
static void large_transactions(void **state)
{
    sqlite3 *db = db_open(path_new(path, "large"));
    uint64_t before;

    (void)state;
    db_exec(db,
            "PRAGMA cache_size=10; CREATE TABLE t(id INTEGER PRIMARY KEY, v, pad); CREATE INDEX i ON t(v);"
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) "
            "INSERT INTO t SELECT i, i*7919%%10007, hex(zeroblob(100)) FROM n",
            scaled(30000));
    before = db_hash_all(db);
    db_exec(db, "BEGIN; UPDATE t SET v=v+1, pad=pad||'x'; DELETE FROM t WHERE id%%3=0; DROP INDEX i; ROLLBACK");
    CHECK(db_hash_all(db) == before);
    db_check_text(db, "PRAGMA integrity_check", "ok");
    db_exec(db, "BEGIN; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; UPDATE t SET v=v+1; UPDATE t SET v=v-1; COMMIT");
    CHECK(db_hash_all(db) == before);
    db_exec(db, "DELETE FROM t WHERE id%%2=0");
    before = db_hash_all(db);
    db_close(db);
    oracle_check(path);
    CHECK(oracle_hash(path) == before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_client_at_page_size_512),
        cmocka_unit_test(one_client_at_page_size_4096),
        cmocka_unit_test(three_clients_with_a_large_cache),
        cmocka_unit_test(three_clients_with_a_cache_of_five_pages),
        cmocka_unit_test(three_clients_with_mapped_pages),
        cmocka_unit_test(three_clients_without_rowid),
        cmocka_unit_test(three_clients_with_auto_vacuum),
        cmocka_unit_test(journal_modes_do_not_matter),
        cmocka_unit_test(large_transactions),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
