/* No page is in two places, and none is lost: whatever is allocated, freed and rolled back by many connections at
 * once, stock SQLite finds the file whole, and what was to be in it.
 * Replay: THRONG_SEED=<n> build/tests/test-space
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char path[PATH_SIZE];
static int thread_rounds;
static int auto_vacuum;

/* --- blobs, tables and connections that come and go --- */

#define BLOB_MAX 20000
#define SLOTS 60 /* ids of one thread */

struct churn {
    struct prng prng;
    int number;
    int64_t seeds[SLOTS]; /* of the blob that is there; 0: none */
    bool tables[4];
};

/* The blob's content follows from its seed, so a page of another blob in it is seen. */
static int blob_make(unsigned char *bytes, int64_t seed)
{
    struct prng prng = {(uint64_t)seed};
    int size = prng_below(&prng, BLOB_MAX + 1);

    for (int i = 0; i < size; i += 8) {
        uint64_t word = prng_next(&prng);

        memcpy(bytes + i, &word, sizeof word);
    }
    return size;
}

static int blob_put(sqlite3 *db, int id, int64_t seed)
{
    unsigned char bytes[BLOB_MAX + 8];
    sqlite3_stmt *stmt = db_prepare(db, "REPLACE INTO blob(id, seed, bytes) VALUES(?1, ?2, ?3)");
    int size = blob_make(bytes, seed);
    int rc;

    (void)sqlite3_bind_int(stmt, 1, id);
    (void)sqlite3_bind_int64(stmt, 2, seed);
    (void)sqlite3_bind_blob(stmt, 3, bytes, size, SQLITE_STATIC);
    rc = stmt_run(stmt);
    (void)sqlite3_finalize(stmt);
    return rc;
}

static void blobs_check(sqlite3 *db, const char *where)
{
    unsigned char bytes[BLOB_MAX + 8];
    char sql[128];
    sqlite3_stmt *stmt;

    (void)snprintf(sql, sizeof sql, "SELECT id, seed, bytes FROM blob WHERE %s", where);
    stmt = db_prepare(db, sql);
    for (int rc = sqlite3_step(stmt); rc != SQLITE_DONE; rc = sqlite3_step(stmt)) {
        int size;

        CHECK_OK(rc == SQLITE_ROW ? SQLITE_OK : rc, db);
        size = blob_make(bytes, sqlite3_column_int64(stmt, 1));
        CHECK_EQUAL(sqlite3_column_bytes(stmt, 2), size);
        CHECK(size == 0 || memcmp(sqlite3_column_blob(stmt, 2), bytes, (size_t)size) == 0);
    }
    CHECK_OK(sqlite3_finalize(stmt), db);
}

struct batch {
    struct churn *churn;
    struct prng plan;
    int64_t seeds[SLOTS];
};

static int batch_body(sqlite3 *db, void *arg)
{
    struct batch *batch = arg;
    struct churn *churn = batch->churn;
    struct prng prng = batch->plan;
    int steps = 1 + prng_below(&prng, 6);
    int rc = SQLITE_OK;

    memcpy(batch->seeds, churn->seeds, sizeof batch->seeds);
    for (int i = 0; i < steps && rc == SQLITE_OK; i++) {
        int slot = prng_below(&prng, SLOTS);

        batch->seeds[slot] = prng_below(&prng, 5) < 2 ? 0 : (int64_t)(prng_next(&prng) >> 2) + 1;
        rc = batch->seeds[slot] != 0 ? blob_put(db, churn->number * SLOTS + slot, batch->seeds[slot])
                                     : db_try(db, "DELETE FROM blob WHERE id=%d", churn->number * SLOTS + slot);
    }
    return rc;
}

static void table_come_or_go(sqlite3 *db, struct churn *churn)
{
    int i = prng_below(&churn->prng, 4);
    int name = churn->number * 4 + i;

    if (churn->tables[i])
        db_exec(db, "DROP TABLE extra_%d", name);
    else
        db_exec(db, "CREATE TABLE extra_%d AS SELECT seed, bytes FROM blob WHERE id%%4=%d", name, i);
    churn->tables[i] = !churn->tables[i];
}

static void churn_thread(void *arg)
{
    struct churn *churn = arg;
    sqlite3 *db = db_open(path);

    for (int round = 0; round < thread_rounds && !check_any_failed(); round++) {
        struct batch batch = {.churn = churn, .plan = prng_new(prng_next(&churn->prng))};
        int slot = prng_below(&churn->prng, SLOTS);

        switch (prng_below(&churn->prng, 40)) {
        case 0:
        case 1:
            db_close(db);
            db = db_open(path);
            break;
        case 2:
            table_come_or_go(db, churn);
            break;
        case 3: /* all of it, at once */
            db_exec(db, "DELETE FROM blob WHERE id/%d=%d", SLOTS, churn->number);
            memset(churn->seeds, 0, sizeof churn->seeds);
            break;
        case 4:
        case 5:
            db_exec(db, "BEGIN");
            (void)batch_body(db, &batch);
            if (!sqlite3_get_autocommit(db))
                db_exec(db, "ROLLBACK");
            break;
        case 6:
            (void)db_transaction(db, "BEGIN IMMEDIATE", batch_body, &batch);
            memcpy(churn->seeds, batch.seeds, sizeof churn->seeds);
            break;
        case 7:
        case 8:
        case 9:
            churn->seeds[slot] = (int64_t)(prng_next(&churn->prng) >> 2) + 1;
            CHECK_OK(blob_put(db, churn->number * SLOTS + slot, churn->seeds[slot]), db);
            break;
        case 10:
            blobs_check(db, "id%7=3");
            break;
        default:
            (void)db_transaction(db, "BEGIN", batch_body, &batch);
            memcpy(churn->seeds, batch.seeds, sizeof churn->seeds);
        }
    }
    db_close(db);
}

static void churn_check(const struct churn *churns, int count)
{
    sqlite3 *db = db_stock(path);
    int64_t free_count = db_int(db, "PRAGMA freelist_count");
    int64_t rows = 0;
    uint64_t hash;

    CHECK(free_count >= 0 && free_count < db_int(db, "PRAGMA page_count"));
    blobs_check(db, "1");
    for (int i = 0; i < count; i++) {
        for (int slot = 0; slot < SLOTS; slot++) {
            if (churns[i].seeds[slot] == 0)
                continue;
            rows++;
            CHECK_EQUAL(db_int(db, "SELECT seed FROM blob WHERE id=%d", i * SLOTS + slot), churns[i].seeds[slot]);
        }
        for (int table = 0; table < 4; table++)
            CHECK_EQUAL(db_int(db, "SELECT count(*) FROM sqlite_schema WHERE name='extra_%d'", i * 4 + table),
                        churns[i].tables[table]);
    }
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM blob"), rows);
    hash = db_hash(db, "SELECT * FROM blob ORDER BY id");
    db_exec(db, "VACUUM");
    CHECK(db_hash(db, "SELECT * FROM blob ORDER BY id") == hash);
    CHECK_EQUAL(db_int(db, "PRAGMA freelist_count"), 0);
    db_close(db);
    oracle_check(path);
}

static void churn_run(int page_size, int threads, int rounds)
{
    struct churn *churns = calloc((size_t)threads, sizeof *churns);
    sqlite3 *db = db_open(path_new(path, "churn"));

    CHECK(churns != NULL);
    db_exec(db, "PRAGMA page_size=%d; PRAGMA auto_vacuum=%d", page_size, auto_vacuum);
    db_exec(db, "CREATE TABLE blob(id INTEGER PRIMARY KEY, seed INT UNIQUE, bytes BLOB)");
    db_close(db);
    thread_rounds = rounds;
    for (int again = 0; again < 2; again++) { /* the second time, on the file that the first has left */
        for (int i = 0; i < threads; i++) {
            churns[i].prng = prng_new((uint64_t)(page_size + 10 * again + i));
            churns[i].number = i;
            thread_start(churn_thread, &churns[i]);
        }
        threads_join();
        oracle_check(path);
    }
    churn_check(churns, threads);
    free(churns);
}

static void space_holds_at_page_size_512(void **state)
{
    (void)state;
    churn_run(512, 4, scaled(300));
}

static void space_holds_at_page_size_4096(void **state)
{
    (void)state;
    churn_run(4096, 4, scaled(400));
}

static void space_holds_at_page_size_65536(void **state)
{
    (void)state;
    churn_run(65536, 3, scaled(150));
}

static void space_holds_with_one_thread(void **state)
{
    (void)state;
    churn_run(1024, 1, scaled(500));
}

static void space_holds_with_auto_vacuum(void **state)
{
    (void)state;
    auto_vacuum = 1;
    churn_run(1024, 3, scaled(150));
    auto_vacuum = 0;
}

/* Rows come and go, but never more than so many at a time: the file stops growing. */
static void reuse_thread(void *arg)
{
    struct prng prng = prng_new((uint64_t)(intptr_t)arg);
    sqlite3 *db = db_open(path);

    for (int i = 0; i < thread_rounds && !check_any_failed(); i++) {
        db_exec(db, "INSERT INTO blob VALUES(%d, zeroblob(%d))", (int)(intptr_t)arg, 1 + prng_below(&prng, BLOB_MAX));
        db_exec(db, "DELETE FROM blob WHERE id=%d", (int)(intptr_t)arg);
    }
    db_close(db);
}

static void freed_pages_are_used_again(void **state)
{
    sqlite3 *db = db_open(path_new(path, "reuse"));

    (void)state;
    db_exec(db, "CREATE TABLE blob(id INTEGER PRIMARY KEY, bytes BLOB)");
    db_close(db);
    thread_rounds = scaled(2000);
    for (intptr_t i = 0; i < 3; i++)
        thread_start(reuse_thread, (void *)i);
    threads_join();
    oracle_check(path);
    db = db_stock(path);
    CHECK(db_int(db, "PRAGMA page_count") < 1500); /* three blobs are 15 pages, 6,000 of them 15,000 */
    db_close(db);
}

/* --- rollback and savepoints, against a model --- */

#define KEYS 120
#define NESTING 8

struct model {
    int size[KEYS]; /* of the value; -1: no row */
};

struct storm {
    struct prng prng;
    int number;
    struct model committed;
    struct model now;
    struct model saved[NESTING]; /* as of each open savepoint */
    int depth;
};

#define KEY(storm, key) ((storm)->number * KEYS + (key))

/* One statement; changes the model if it succeeds. */
static int storm_statement(sqlite3 *db, struct storm *storm, struct prng *prng)
{
    int key = prng_below(prng, KEYS);
    int other = prng_below(prng, KEYS);
    int size = prng_below(prng, 3000);
    struct model *now = &storm->now;
    int rc;

    switch (prng_below(prng, 6)) {
    case 0:
        if ((rc = db_try(db, "DELETE FROM s WHERE id=%d", KEY(storm, key))) == SQLITE_OK)
            now->size[key] = -1;
        return rc;
    case 1: /* two rows; if one of them is there already, neither is inserted */
        other = (key + 1) % KEYS;
        rc = db_try(db, "INSERT INTO s VALUES(%d, %d, zeroblob(%d)), (%d, %d, zeroblob(%d))", KEY(storm, key),
                    KEY(storm, key), size, KEY(storm, other), KEY(storm, other), size);
        if (now->size[key] >= 0 || now->size[other] >= 0) {
            if (rc == SQLITE_CONSTRAINT_PRIMARYKEY || rc == SQLITE_CONSTRAINT_UNIQUE)
                return SQLITE_OK;
            CHECK(rc != SQLITE_OK);
        } else if (rc == SQLITE_OK) {
            now->size[key] = now->size[other] = size;
        }
        return rc;
    case 2: /* fails half way if both rows are there: u must be unique */
        rc = db_try(db, "UPDATE s SET v=zeroblob(%d), u=CASE WHEN id=%d THEN %d ELSE u END WHERE id BETWEEN %d AND %d",
                    size, KEY(storm, key), KEY(storm, other), KEY(storm, 0), KEY(storm, key));
        if (now->size[key] >= 0 && now->size[other] >= 0 && other != key) {
            if (rc == SQLITE_CONSTRAINT_UNIQUE)
                return SQLITE_OK;
            CHECK(rc != SQLITE_OK);
            return rc;
        }
        if (rc == SQLITE_OK && now->size[key] >= 0 && other != key)
            rc = db_try(db, "UPDATE s SET u=id WHERE id=%d", KEY(storm, key));
        if (rc == SQLITE_OK) {
            for (int i = 0; i <= key; i++)
                now->size[i] = now->size[i] < 0 ? -1 : size;
        }
        return rc;
    default:
        rc = db_try(db, "REPLACE INTO s VALUES(%d, %d, zeroblob(%d))", KEY(storm, key), KEY(storm, key), size);
        if (rc == SQLITE_OK)
            now->size[key] = size;
        return rc;
    }
}

static int storm_savepoint(sqlite3 *db, struct storm *storm, struct prng *prng)
{
    int level = storm->depth > 0 ? prng_below(prng, storm->depth) : 0;
    int rc;

    switch (prng_below(prng, 3)) {
    case 0:
        if (storm->depth == NESTING)
            return SQLITE_OK;
        rc = db_try(db, "SAVEPOINT s%d", storm->depth);
        if (rc == SQLITE_OK)
            storm->saved[storm->depth++] = storm->now;
        return rc;
    case 1:
        if (storm->depth == 0)
            return SQLITE_OK;
        if ((rc = db_try(db, "ROLLBACK TO s%d", level)) == SQLITE_OK) {
            storm->now = storm->saved[level];
            storm->depth = level + 1;
        }
        return rc;
    default:
        if (storm->depth == 0)
            return SQLITE_OK;
        if ((rc = db_try(db, "RELEASE s%d", level)) == SQLITE_OK)
            storm->depth = level;
        return rc;
    }
}

/* Returns SQLITE_OK, or SQLITE_BUSY_SNAPSHOT: inside a transaction a SELECT may have to spill what was written before,
 * and then learns that the transaction has lost. */
static int model_check(sqlite3 *db, const struct storm *storm, const struct model *model)
{
    sqlite3_stmt *stmt = db_prepare(db, "SELECT id, u, length(v) FROM s WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
    int key = 0;
    int rc;

    (void)sqlite3_bind_int(stmt, 1, KEY(storm, 0));
    (void)sqlite3_bind_int(stmt, 2, KEY(storm, KEYS - 1));
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        while (key < KEYS && model->size[key] < 0)
            key++;
        CHECK(key < KEYS);
        CHECK_EQUAL(sqlite3_column_int(stmt, 0), KEY(storm, key));
        CHECK_EQUAL(sqlite3_column_int(stmt, 1), KEY(storm, key));
        CHECK_EQUAL(sqlite3_column_int(stmt, 2), model->size[key]);
        key++;
    }
    (void)sqlite3_finalize(stmt);
    if (rc == SQLITE_BUSY_SNAPSHOT && !sqlite3_get_autocommit(db))
        return rc;
    CHECK_OK(rc == SQLITE_DONE ? SQLITE_OK : rc, db);
    for (; key < KEYS; key++)
        CHECK_EQUAL(model->size[key], -1);
    return SQLITE_OK;
}

static int storm_body(sqlite3 *db, void *arg)
{
    struct storm *storm = arg;
    struct prng prng = storm->prng; /* the same in each rerun */
    int steps = 1 + prng_below(&prng, 25);
    int rc = SQLITE_OK;

    storm->now = storm->committed;
    storm->depth = 0;
    for (int i = 0; i < steps && rc == SQLITE_OK; i++)
        rc = prng_below(&prng, 3) == 0 ? storm_savepoint(db, storm, &prng) : storm_statement(db, storm, &prng);
    if (rc == SQLITE_OK && prng_below(&prng, 4) == 0)
        rc = model_check(db, storm, &storm->now);
    return rc;
}

static void storm_thread(void *arg)
{
    struct storm *storm = arg;
    sqlite3 *db = db_open(path);

    db_exec(db, "PRAGMA cache_size=5; PRAGMA cache_spill=5");
    for (int i = 0; i < thread_rounds && !check_any_failed(); i++) {
        if (prng_below(&storm->prng, 3) == 0) {
            int rc;

            db_exec(db, "BEGIN");
            rc = storm_body(db, storm);
            CHECK(rc == SQLITE_OK || rc == SQLITE_BUSY_SNAPSHOT);
            if (!sqlite3_get_autocommit(db))
                db_exec(db, "ROLLBACK");
        } else {
            (void)db_transaction(db, prng_below(&storm->prng, 4) == 0 ? "BEGIN IMMEDIATE" : "BEGIN", storm_body, storm);
            storm->committed = storm->now;
        }
        (void)prng_next(&storm->prng);
        if (i % 4 == 0)
            CHECK_EQUAL(model_check(db, storm, &storm->committed), SQLITE_OK);
    }
    db_close(db);
}

static void storm_run(int page_size, int threads, int rounds)
{
    struct storm *storms = calloc((size_t)threads, sizeof *storms);
    sqlite3 *db = db_open(path_new(path, "storm"));

    CHECK(storms != NULL);
    db_exec(db, "PRAGMA page_size=%d; CREATE TABLE s(id INTEGER PRIMARY KEY, u INT UNIQUE, v BLOB)", page_size);
    thread_rounds = rounds;
    for (int i = 0; i < threads; i++) {
        storms[i].prng = prng_new((uint64_t)(page_size + 100 + i));
        storms[i].number = i;
        memset(&storms[i].committed, 0xff, sizeof storms[i].committed);
        thread_start(storm_thread, &storms[i]);
    }
    threads_join();
    db_close(db);
    oracle_check(path);
    db = db_stock(path);
    for (int i = 0; i < threads; i++)
        CHECK_EQUAL(model_check(db, &storms[i], &storms[i].committed), SQLITE_OK);
    db_close(db);
    free(storms);
}

static void savepoints_follow_the_model(void **state)
{
    (void)state;
    storm_run(512, 1, scaled(500));
    storm_run(4096, 1, scaled(500));
}

static void savepoints_follow_the_model_in_threads(void **state)
{
    (void)state;
    storm_run(512, 4, scaled(200));
    storm_run(4096, 4, scaled(200));
}

/* --- RETURNING --- */

struct taker {
    int number;
    int taken;
};

/* A queue: each thread takes rows, and adds one for each until all are there. None twice, none lost, no error. */
static void taker_thread(void *arg)
{
    struct taker *taker = arg;
    sqlite3 *db = db_open(path);
    sqlite3_stmt *take = db_prepare(
        db, "UPDATE job SET owner=?1 WHERE id=(SELECT min(id) FROM job WHERE owner IS NULL) RETURNING id");
    sqlite3_stmt *note = db_prepare(db,
                                    "INSERT INTO note(job, pad) VALUES(?1, zeroblob(?2)) RETURNING job, length(pad)");
    int rows = 1;

    (void)sqlite3_bind_int(take, 1, taker->number);
    while (rows > 0 && !check_any_failed()) {
        int job = 0;
        int rc;

        for (rows = 0; (rc = sqlite3_step(take)) == SQLITE_ROW; rows++)
            job = sqlite3_column_int(take, 0);
        CHECK_OK(rc == SQLITE_DONE ? SQLITE_OK : rc, db);
        (void)sqlite3_reset(take);
        CHECK(rows <= 1);
        if (rows == 0)
            break;
        (void)sqlite3_bind_int(note, 1, job);
        (void)sqlite3_bind_int(note, 2, job * 7);
        CHECK_EQUAL(sqlite3_step(note), SQLITE_ROW);
        CHECK_EQUAL(sqlite3_column_int(note, 0), job);
        CHECK_EQUAL(sqlite3_column_int(note, 1), job * 7);
        rc = sqlite3_step(note);
        CHECK_OK(rc == SQLITE_DONE ? SQLITE_OK : rc, db);
        (void)sqlite3_reset(note);
        taker->taken++;
    }
    CHECK_OK(sqlite3_finalize(take), db);
    CHECK_OK(sqlite3_finalize(note), db);
    db_close(db);
}

static void returning_returns_each_row_once(void **state)
{
    struct taker takers[4];
    int jobs = scaled(2000);
    int taken = 0;
    sqlite3 *db = db_open(path_new(path, "returning"));

    (void)state;
    db_exec(db, "CREATE TABLE job(id INTEGER PRIMARY KEY, owner INT); CREATE INDEX open ON job(id) WHERE owner IS NULL;"
                "CREATE TABLE note(job INT UNIQUE, pad)");
    db_exec(db,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) "
            "INSERT INTO job SELECT i, NULL FROM n",
            jobs);
    for (int i = 0; i < 4; i++) {
        takers[i] = (struct taker){.number = i};
        thread_start(taker_thread, &takers[i]);
    }
    threads_join();
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM job WHERE owner=%d", i), takers[i].taken);
        taken += takers[i].taken;
    }
    CHECK_EQUAL(taken, jobs);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM note"), jobs);
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(space_holds_with_one_thread),     cmocka_unit_test(space_holds_at_page_size_512),
        cmocka_unit_test(space_holds_at_page_size_4096),   cmocka_unit_test(space_holds_at_page_size_65536),
        cmocka_unit_test(space_holds_with_auto_vacuum),    cmocka_unit_test(freed_pages_are_used_again),
        cmocka_unit_test(savepoints_follow_the_model),     cmocka_unit_test(savepoints_follow_the_model_in_threads),
        cmocka_unit_test(returning_returns_each_row_once),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
