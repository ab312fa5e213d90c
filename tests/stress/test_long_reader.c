/* A snapshot stays what it was however long it is open, while checkpoints go past it: the log stays short, the heap keeps
 * one version of each page for it, no update is lost, and a heap with a limit forgets what the file has.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 3000, WRITERS = 3, READERS = 4 };

static char path[PATH_SIZE];
static char uri[2 * PATH_SIZE];
static atomic_bool stop;
static atomic_int commits, looks;
static int rounds, bulk;

static sqlite3 *open_client(const char *settings)
{
    sqlite3 *db = NULL;

    CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
    db_exec(db, "PRAGMA busy_timeout=%d; %s", BUSY_TIMEOUT_MS, settings);
    return db;
}

/* Adds one to a row, from what it read; and rewrites, deletes and adds others beside it. */
static int change(sqlite3 *db, void *arg)
{
    struct prng *prng = arg;
    int row = prng_below(prng, ROWS), from = prng_below(prng, ROWS), rc;
    int64_t n;

    if ((rc = db_try_int(db, &n, "SELECT n FROM t WHERE id=%d", row)) != SQLITE_OK ||
        (rc = db_try(db, "UPDATE t SET n=%lld WHERE id=%d", (long long)n + 1, row)) != SQLITE_OK)
        return rc;
    switch (prng_below(prng, 4)) {
    case 0:
        return db_try(db, "INSERT INTO more(pad) SELECT randomblob(%d) FROM t LIMIT %d", 100 + prng_below(prng, 3000),
                      bulk / 10 + 1);
    case 1:
        return db_try(db, "DELETE FROM more WHERE id %% 7 = %d", prng_below(prng, 7));
    default:
        return db_try(db, "UPDATE t SET pad=randomblob(400) WHERE id BETWEEN %d AND %d", from, from + bulk);
    }
}

static void writer_thread(void *arg)
{
    static const char *const BEGINS[] = {"BEGIN", "BEGIN", "BEGIN", "BEGIN IMMEDIATE"};
    struct prng prng = prng_new((uint64_t)(uintptr_t)arg);
    sqlite3 *db = open_client("PRAGMA synchronous=OFF; PRAGMA cache_size=200");

    if ((uintptr_t)arg % 2 == 1)
        db_exec(db, "PRAGMA mmap_size=1000000000");
    for (int i = 0; i < rounds && !check_any_failed(); i++) {
        (void)db_transaction(db, BEGINS[prng_below(&prng, 4)], change, &prng);
        (void)atomic_fetch_add(&commits, 1);
    }
    db_close(db);
}

/* Holds a snapshot as long as it likes, and looks at all of it again and again. */
static void reader_thread(void *arg)
{
    static const char ALL[] = "SELECT id, n, pad FROM t UNION ALL SELECT id, 0, pad FROM more ORDER BY 1, 2";
    struct prng prng = prng_new(100 + (uint64_t)(uintptr_t)arg);
    bool mapped = (uintptr_t)arg % 2 == 1;
    sqlite3 *db = open_client(mapped ? "PRAGMA mmap_size=1000000000; PRAGMA cache_size=10" : "PRAGMA cache_size=10");
    sqlite3_stmt *open_cursor = db_prepare(db, "SELECT pad FROM t ORDER BY id");

    while (!atomic_load(&stop) && !check_any_failed()) {
        int held = (uintptr_t)arg < 2 ? 1000000 : prng_below(&prng, 20);
        uint64_t first;

        db_exec(db, "BEGIN");
        first = db_hash(db, ALL);
        for (int i = 0; i < held && !atomic_load(&stop) && !check_any_failed(); i++) {
            CHECK(db_hash(db, ALL) == first);
            if (prng_chance(&prng, 3)) { /* a statement that has pages in its hands while time passes */
                CHECK_EQUAL(sqlite3_step(open_cursor), SQLITE_ROW);
                sleep_ms(20);
                CHECK_EQUAL(sqlite3_step(open_cursor), SQLITE_ROW);
                (void)sqlite3_reset(open_cursor);
            }
            CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE n IS NULL"), 0);
            (void)atomic_fetch_add(&looks, 1);
        }
        db_exec(db, "COMMIT");
    }
    stmt_end(open_cursor);
    db_close(db);
}

static sqlite3 *create(const char *name, const char *options, int page_size)
{
    sqlite3 *db;

    (void)snprintf(uri, sizeof uri, "file:%s?%s", path_new(path, name), options);
    db = open_client("PRAGMA synchronous=OFF");
    db_exec(db, "PRAGMA page_size=%d", page_size);
    db_exec(db,
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, pad BLOB); CREATE INDEX t_n ON t(n);"
            "CREATE TABLE more(id INTEGER PRIMARY KEY, pad BLOB);"
            "WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<%d)"
            "INSERT INTO t SELECT i, 0, randomblob(400) FROM c",
            ROWS - 1);
    db_close(db); /* so that the file has everything, and the heap nothing */
    db = open_client("PRAGMA synchronous=OFF");
    atomic_store(&commits, 0);
    atomic_store(&looks, 0);
    atomic_store(&stop, false);
    return db;
}

static void run(const char *options, int page_size)
{
    sqlite3 *db = create("long", options, page_size);
    int64_t log_most = 0;

    rounds = scaled(400);
    bulk = 40;
    for (uintptr_t i = 0; i < READERS; i++)
        thread_start(reader_thread, (void *)i);
    for (uintptr_t i = 0; i < WRITERS; i++)
        thread_start(writer_thread, (void *)i);
    while (atomic_load(&commits) < WRITERS * rounds && !check_any_failed()) {
        int64_t live = db_stat(db, "log_live_bytes");

        log_most = live > log_most ? live : log_most;
        sleep_ms(5);
    }
    threads_join_but(READERS);
    atomic_store(&stop, true);
    threads_join();
    CHECK(atomic_load(&looks) > 0);
    CHECK_EQUAL(db_int(db, "SELECT sum(n) FROM t"), atomic_load(&commits));
    db_check_text(db, "PRAGMA integrity_check", "ok");
    db_close(db);
    oracle_check(path);
}

static void snapshots_stay_what_they_were(void **state)
{
    (void)state;
    support_needs_throng();
    run("checkpoint_bytes=20000", 1024);
    run("checkpoint_bytes=20000&checkpointer=thread", 4096);
}

static void a_small_heap_forgets(void **state)
{
    (void)state;
    support_needs_throng();
    run("checkpoint_bytes=20000&heap_limit=16M", 512);
}

struct growth {
    int64_t log_live, log_bytes, frames;
};

/* Rewrite everything again and again under one snapshot. */
static struct growth rewrite_under_a_reader(const char *options, int times)
{
    sqlite3 *db = create("rewrite", options, 4096), *reader;
    struct growth most = {0, 0, 0};
    uint64_t first;

    reader = open_client("PRAGMA cache_size=10");
    db_exec(reader, "BEGIN");
    first = db_hash(reader, "SELECT * FROM t");
    for (int i = 0; i < times; i++) {
        int64_t live, frames;

        for (int k = 0; k < ROWS; k += 100)
            db_exec(db, "UPDATE t SET n=n+1, pad=randomblob(400) WHERE id BETWEEN %d AND %d", k, k + 99);
        live = db_stat(db, "log_live_bytes");
        frames = db_stat(db, "heap_frames");
        most.log_live = live > most.log_live ? live : most.log_live;
        most.frames = frames > most.frames ? frames : most.frames;
    }
    CHECK(db_hash(reader, "SELECT * FROM t") == first);
    most.log_bytes = db_stat(db, "log_bytes");
    db_exec(reader, "COMMIT");
    db_close(reader);
    CHECK_EQUAL(db_int(db, "SELECT sum(n) FROM t"), (int64_t)ROWS * times);
    db_close(db);
    oracle_check(path);
    return most;
}

/* An hour of full load, as far as the number of times counts that each page is written. */
static void an_open_snapshot_holds_back_neither_log_nor_heap(void **state)
{
    int times = scaled(120);
    struct growth growth;
    int64_t pages;

    (void)state;
    support_needs_throng();
    /* Checkpoints wait for it: one frame for each page that it still sees, and the newest ones. */
    growth = rewrite_under_a_reader("checkpoint_bytes=1G", times);
    pages = file_size(path) / 4096;
    CHECK(growth.log_live >= growth.log_bytes / 2);
    if (growth.frames > pages * 12 / 10 + 100)
        check_failed(__FILE__, __LINE__, "%lld frames for %lld pages", (long long)growth.frames, (long long)pages);
    /* They go past it: the log is short, and what the reader sees of the file is in the heap as well. */
    growth = rewrite_under_a_reader("checkpoint_bytes=100000", times);
    if (growth.log_bytes > 60000000 && growth.log_live > 40000000)
        check_failed(__FILE__, __LINE__, "%lld of %lld bytes of log", (long long)growth.log_live,
                     (long long)growth.log_bytes);
    CHECK(growth.frames <= pages * 24 / 10 + 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_stay_what_they_were),
        cmocka_unit_test(a_small_heap_forgets),
        cmocka_unit_test(an_open_snapshot_holds_back_neither_log_nor_heap),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
