/* No page is free in two places, none is lost, freed pages are used again (I6): under load the content stays what each
 * thread knows it to be, and after the last close every page is in a b-tree or on the free list.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>

#define THREADS 4
#define SLOTS 24 /* blobs that a thread has */

static char path[PATH_SIZE];

struct client {
    int number;
    int rounds;
    struct prng prng;
    uint64_t stamp[SLOTS]; /* 0: the slot is empty */
    int size[SLOTS];
    bool reopens;
    int big; /* the largest blob */
};

/* A blob whose every 8 bytes are made from its stamp: a page that two use shows. */
static void *make_blob(uint64_t stamp, int size)
{
    uint64_t *words = sqlite3_malloc(size + 8);

    CHECK(words != NULL);
    for (int i = 0; i <= size / 8; i++)
        words[i] = hash_u64(stamp + (uint64_t)i);
    return words;
}

static void check_blob(sqlite3 *db, int id, uint64_t stamp, int size)
{
    sqlite3_stmt *stmt = db_prepare(db, "SELECT b FROM blob WHERE id=?1");
    int rc;

    (void)sqlite3_bind_int(stmt, 1, id);
    rc = sqlite3_step(stmt);
    if (stamp == 0) {
        CHECK_EQUAL(rc, SQLITE_DONE);
    } else {
        const uint64_t *words;

        CHECK_EQUAL(rc, SQLITE_ROW);
        words = sqlite3_column_blob(stmt, 0);
        CHECK_EQUAL(sqlite3_column_bytes(stmt, 0), size);
        for (int i = 0; i < size / 8; i++) {
            uint64_t word;

            word = words[i];
            CHECK(word == hash_u64(stamp + (uint64_t)i));
        }
    }
    stmt_end(stmt);
}

/* One transaction: a few slots get new blobs, some are emptied. The arrays are what holds if it commits. */
struct change {
    struct client *client;
    struct prng plan;
    uint64_t stamp[SLOTS];
    int size[SLOTS];
};

static int put_blob(sqlite3 *db, int id, uint64_t stamp, int size)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, "REPLACE INTO blob VALUES(?1, ?2)", -1, &stmt, NULL);

    if (rc != SQLITE_OK)
        return rc;
    (void)sqlite3_bind_int(stmt, 1, id);
    (void)sqlite3_bind_blob(stmt, 2, make_blob(stamp, size), size, sqlite3_free);
    (void)sqlite3_step(stmt);
    return sqlite3_finalize(stmt);
}

static int change_blobs(sqlite3 *db, void *arg)
{
    struct change *change = arg;
    struct client *c = change->client;
    struct prng prng = change->plan;
    int rc = SQLITE_OK;

    for (int i = 0; i < SLOTS; i++) {
        change->stamp[i] = c->stamp[i];
        change->size[i] = c->size[i];
    }
    for (int i = 1 + prng_below(&prng, 4); i > 0 && rc == SQLITE_OK; i--) {
        int slot = prng_below(&prng, SLOTS);
        int id = c->number * SLOTS + slot;

        if (prng_chance(&prng, 3)) {
            change->stamp[slot] = 0;
            rc = db_try(db, "DELETE FROM blob WHERE id=%d", id);
        } else {
            change->stamp[slot] = prng_next(&prng) | 1;
            change->size[slot] = prng_chance(&prng, 3) ? prng_below(&prng, c->big) : prng_below(&prng, 3000);
            rc = put_blob(db, id, change->stamp[slot], change->size[slot]);
        }
    }
    return rc;
}

static int temporary_table(sqlite3 *db, void *arg)
{
    struct client *c = arg;
    int rc = db_try(db, "CREATE TABLE heap_%d(x INTEGER PRIMARY KEY, b)", c->number);

    if (rc == SQLITE_OK)
        rc = db_try(db,
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<30) "
                    "INSERT INTO heap_%d SELECT i, zeroblob(%d) FROM n",
                    c->number, c->big / 8);
    return rc;
}

static void space_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);
    bool table = false;

    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        struct change change = {.client = c, .plan = prng_new(prng_next(&c->prng))};
        int slot = prng_below(&c->prng, SLOTS);

        if (prng_chance(&c->prng, 8)) {
            db_exec(db, "BEGIN");
            (void)change_blobs(db, &change);
            db_exec(db, "ROLLBACK");
        } else {
            (void)db_transaction(db, prng_chance(&c->prng, 9) ? "BEGIN IMMEDIATE" : "BEGIN", change_blobs, &change);
            for (int s = 0; s < SLOTS; s++) {
                c->stamp[s] = change.stamp[s];
                c->size[s] = change.size[s];
            }
        }
        check_blob(db, c->number * SLOTS + slot, c->stamp[slot], c->size[slot]);
        if (prng_chance(&c->prng, 20)) {
            if (table)
                db_exec(db, "DROP TABLE heap_%d", c->number);
            else
                (void)db_transaction(db, "BEGIN", temporary_table, c);
            table = !table;
        }
        if (c->reopens && prng_chance(&c->prng, 15)) {
            db_close(db);
            db = db_open(path);
        }
    }
    if (table)
        db_exec(db, "DROP TABLE heap_%d", c->number);
    db_close(db);
}

static void check_all(sqlite3 *db, const struct client *c)
{
    for (int slot = 0; slot < SLOTS; slot++)
        check_blob(db, c->number * SLOTS + slot, c->stamp[slot], c->size[slot]);
}

/* `keep_open`: one connection stays while others come and go; else the database closes at times under way. */
static void load(int page_size, const char *with, int rounds, bool keep_open)
{
    struct client clients[THREADS];
    sqlite3 *db = db_open(path_new(path, "space"));
    int64_t free_pages;

    db_exec(db, "PRAGMA page_size=%d; %s; CREATE TABLE blob(id INTEGER PRIMARY KEY, b)", page_size, with);
    if (!keep_open)
        db_close(db);
    for (int i = 0; i < THREADS; i++) {
        clients[i] = (struct client){
            .number = i,
            .rounds = scaled(rounds),
            .prng = prng_new((uint64_t)(page_size + i)),
            .reopens = i % 2 == 0,
            .big = page_size < 4096 ? 40000 : 200000,
        };
        thread_start(space_thread, &clients[i]);
    }
    threads_join();
    if (!keep_open)
        db = db_open(path);
    for (int i = 0; i < THREADS; i++)
        check_all(db, &clients[i]);
    db_check_text(db, "PRAGMA integrity_check", "ok");
    free_pages = db_int(db, "PRAGMA freelist_count");
    CHECK(free_pages >= 0 && free_pages < db_int(db, "PRAGMA page_count"));
    db_close(db);
    oracle_check(path);
    db = db_stock(path);
    for (int i = 0; i < THREADS; i++)
        check_all(db, &clients[i]);
    db_close(db);
}

static void pages_are_exact_at_page_size_512(void **state)
{
    (void)state;
    load(512, "", 150, true);
}

static void pages_are_exact_at_page_size_4096(void **state)
{
    (void)state;
    load(4096, "", 300, true);
}

static void pages_are_exact_at_page_size_65536(void **state)
{
    (void)state;
    load(65536, "", 150, true);
}

static void pages_are_exact_when_all_come_and_go(void **state)
{
    (void)state;
    load(4096, "", 200, false);
}

static void pages_are_exact_with_auto_vacuum(void **state)
{
    (void)state;
    load(1024, "PRAGMA auto_vacuum=full", 100, true);
    load(4096, "PRAGMA auto_vacuum=incremental", 100, true);
}

static void pages_are_exact_with_one_free_list(void **state)
{
    (void)state;
    load(4096, support_is_throng() ? "PRAGMA freelist_format=1" : "", 100, true);
}

/* --- what is freed is used again: the file does not grow beyond what was in use at once --- */

static void turnover_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db = db_open(path);

    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        db_exec(db, "INSERT INTO blob VALUES(%d, zeroblob(400000))", c->number);
        db_exec(db, "DELETE FROM blob WHERE id=%d", c->number);
    }
    db_close(db);
}

static void freed_pages_are_used_again(void **state)
{
    struct client clients[THREADS];
    sqlite3 *db = db_open(path_new(path, "turnover"));

    (void)state;
    db_exec(db, "CREATE TABLE blob(id INTEGER PRIMARY KEY, b)");
    for (int i = 0; i < THREADS; i++) {
        clients[i] = (struct client){.number = i, .rounds = scaled(100)};
        thread_start(turnover_thread, &clients[i]);
    }
    threads_join();
    db_close(db);
    oracle_check(path);
    CHECK(file_size(path) < 4 * THREADS * 400000);
}

/* One connection frees, the others allocate: after the first rounds there is enough for all. */
static void freed_pages_reach_others(void **state)
{
    sqlite3 *db[3];
    int64_t enough = 0;

    (void)state;
    (void)path_new(path, "others");
    for (int i = 0; i < 3; i++)
        db[i] = db_open(path);
    db_exec(db[0], "CREATE TABLE blob(id INTEGER PRIMARY KEY, b); INSERT INTO blob VALUES(1, zeroblob(8000000))");
    for (int i = 0; i < 40; i++) {
        db_exec(db[i % 3], "DELETE FROM blob WHERE id=1");
        db_exec(db[(i + 1) % 3], "INSERT INTO blob VALUES(1, zeroblob(8000000))");
        if (i == 10)
            enough = db_int(db[0], "PRAGMA page_count");
    }
    CHECK_EQUAL(db_int(db[0], "PRAGMA page_count"), enough);
    for (int i = 0; i < 3; i++)
        db_close(db[i]);
    oracle_check(path);
}

/* A transaction that read before a VACUUM, and writes after it, has lost: it takes no page away from the others. */
static void a_writer_from_before_a_rewrite_keeps_nothing(void **state)
{
    static const char *const BEGINS[] = {"BEGIN; SELECT count(*) FROM blob", "BEGIN; SELECT count(*) FROM other.blob"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        char second[PATH_SIZE];
        sqlite3 *db = db_open(path_new(path, "rewrite")), *late;
        int64_t pages;

        db_exec(
            db,
            "CREATE TABLE blob(id INTEGER PRIMARY KEY, b); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM "
            "c WHERE i<240) INSERT INTO blob SELECT i, zeroblob(900) FROM c");
        late = db_open(path);
        db_exec(late, "ATTACH 'file:%s?vfs=throng' AS other; CREATE TABLE other.blob(b)",
                path_new(second, "rewrite-2"));
        db_exec(late, "%s", BEGINS[i]);
        db_exec(db, "DELETE FROM blob WHERE id>100; VACUUM");
        pages = db_int(db, "PRAGMA page_count");
        CHECK(db_try(late, "INSERT INTO main.blob(b) VALUES(zeroblob(9)); COMMIT") != SQLITE_OK);
        db_close(late);
        db_exec(db, "INSERT INTO blob(b) VALUES(zeroblob(900))");
        CHECK(db_int(db, "PRAGMA page_count") <= pages + 3);
        db_close(db);
        oracle_check(path);
        oracle_check(second);
    }
}

/* One that read before the free list was made another one, by a change of format or by VACUUM, has lost: not found damaged. */
static void a_new_kind_of_list_is_a_conflict(void **state)
{
    static const char *const BEFORE[] = {"PRAGMA freelist_format=1", "PRAGMA freelist_format=2",
                                         "PRAGMA auto_vacuum=1; VACUUM"};
    static const char *const CHANGES[] = {"PRAGMA freelist_format=2", "PRAGMA freelist_format=1",
                                          "PRAGMA auto_vacuum=0; VACUUM"};
    static const char *const WRITES[] = {"UPDATE blob SET b=1 WHERE id=1", "INSERT INTO blob(b) VALUES(zeroblob(9000))",
                                         "DELETE FROM blob WHERE id>30"};

    (void)state;
    for (int i = 0; i < 9; i++) {
        sqlite3 *db = db_open(path_new(path, "kind")), *late;

        db_exec(
            db,
            "CREATE TABLE blob(id INTEGER PRIMARY KEY, b); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM "
            "c WHERE i<90) INSERT INTO blob SELECT i, zeroblob(900) FROM c");
        db_exec(db, "%s", BEFORE[i / 3]);
        db_exec(db, "DELETE FROM blob WHERE id BETWEEN 10 AND 50");
        late = db_open(path);
        db_exec(late, "BEGIN");
        CHECK_EQUAL(db_int(late, "SELECT count(*) FROM blob"), 49);
        db_exec(db, "%s", CHANGES[i / 3]);
        CHECK_EQUAL(db_try(late, "%s; COMMIT", WRITES[i % 3]), SQLITE_BUSY_SNAPSHOT);
        if (!sqlite3_get_autocommit(late))
            db_exec(late, "ROLLBACK");
        db_exec(late, "%s", WRITES[i % 3]);
        db_close(late);
        db_close(db);
        oracle_check(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_exact_at_page_size_512),
        cmocka_unit_test(pages_are_exact_at_page_size_4096),
        cmocka_unit_test(pages_are_exact_at_page_size_65536),
        cmocka_unit_test(pages_are_exact_when_all_come_and_go),
        cmocka_unit_test(pages_are_exact_with_auto_vacuum),
        cmocka_unit_test(pages_are_exact_with_one_free_list),
        cmocka_unit_test(a_writer_from_before_a_rewrite_keeps_nothing),
        cmocka_unit_test(a_new_kind_of_list_is_a_conflict),
        cmocka_unit_test(freed_pages_are_used_again),
        cmocka_unit_test(freed_pages_reach_others),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
