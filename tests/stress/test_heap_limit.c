/* The heap is bounded by what snapshots and the checkpoint hold back, whoever superseded the rest and however idle: with
 * `heap_limit` transactions that fit go on for ever, and without it the heap does not grow with the number of connections
 * or transactions.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdio.h>

enum { ROWS = 500, ROW_BYTES = 3400, IDLE = 12 };

static char path[PATH_SIZE];
static char uri[2 * PATH_SIZE];

static sqlite3 *open_client(void)
{
    sqlite3 *db = NULL;

    CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
    db_exec(db, "PRAGMA busy_timeout=%d; PRAGMA synchronous=OFF", BUSY_TIMEOUT_MS);
    return db;
}

/* `rows` rows, each a page of its own. */
static sqlite3 *create(const char *name, const char *options, int rows)
{
    sqlite3 *db;

    (void)snprintf(uri, sizeof uri, "file:%s?%s", path_new(path, name), options);
    db = open_client();
    db_exec(db, "PRAGMA page_size=4096; CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB)");
    for (int i = 0; i < rows; i++)
        db_exec(db, "INSERT INTO t VALUES(%d, randomblob(%d))", i, ROW_BYTES);
    return db;
}

static void rewrite(sqlite3 *db)
{
    db_exec(db, "UPDATE t SET pad=randomblob(%d)", ROW_BYTES);
}

/* Property: one connection and no reader: a table larger than half of the limit, and one larger than the limit, are
 * rewritten row by row, and in transactions of some size, without SQLITE_FULL. */
static void one_connection_never_wears_out_the_heap(void **state)
{
    static const int TABLES[] = {700, 1700};
    struct prng prng = prng_new(1);

    (void)state;
    support_needs_throng();
    for (int t = 0; t < 2; t++) {
        sqlite3 *db = create("alone", "heap_limit=4M", TABLES[t]);

        for (int i = 0; i < scaled(4000); i++)
            db_exec(db, "UPDATE t SET pad=randomblob(%d) WHERE id=%d", ROW_BYTES, prng_below(&prng, TABLES[t]));
        for (int i = 0; i < scaled(100); i++)
            db_exec(db, "UPDATE t SET pad=randomblob(%d) WHERE id BETWEEN %d AND %d+100", ROW_BYTES, i * 7, i * 7);
        for (int i = 0; i < scaled(4000); i++) /* little log, many frames */
            db_exec(db, "UPDATE t SET pad=substr(pad, 2) WHERE id=%d", i % TABLES[t]);
        CHECK(db_stat(db, "heap_frames_peak") <= 1024);
        db_close(db);
        oracle_check(path);
    }
}

/* Property: connections that have changed everything and are idle keep nothing from the next one, also if a snapshot was
 * open meanwhile. */
static void idle_connections_keep_no_room(void **state)
{
    static const char *const OPTIONS[] = {"heap_limit=7M", "checkpoint_bytes=256M",
                                          "checkpointer=thread&heap_limit=7M"};

    (void)state;
    support_needs_throng();
    for (int o = 0; o < 3; o++) {
        sqlite3 *db = create("idle", OPTIONS[o], ROWS), *idle[IDLE], *reader = open_client();

        for (int i = 0; i < IDLE; i++) {
            if (i % 4 == 1) {
                db_exec(reader, "BEGIN");
                (void)db_int(reader, "SELECT count(*) FROM t");
            }
            idle[i] = open_client();
            rewrite(idle[i]);
            if (i % 4 == 2)
                db_exec(reader, "COMMIT");
        }
        CHECK(db_stat(db, "heap_frames_peak") <= 4 * ROWS);
        rewrite(db);
        for (int i = 0; i < IDLE; i++)
            db_close(idle[i]);
        db_close(reader);
        db_close(db);
        oracle_check(path);
    }
}

/* Property: a transaction that found the heap full finds all room there can be when it is tried again; one that can never
 * fit says so, and spoils nothing for others. */
static void a_full_heap_is_not_full_for_ever(void **state)
{
    sqlite3 *db, *other;
    int rc;

    (void)state;
    support_needs_throng();
    db = create("full", "heap_limit=4M", 3000);
    other = open_client();
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(db_try(db, "UPDATE t SET pad=randomblob(%d)", ROW_BYTES), SQLITE_FULL);
        rc = db_try(db, "UPDATE t SET pad=randomblob(%d) WHERE id < 900", ROW_BYTES);
        CHECK_OK(rc, db);
        rc = db_try(other, "UPDATE t SET pad=randomblob(%d) WHERE id > 2100", ROW_BYTES);
        CHECK(rc == SQLITE_OK || rc == SQLITE_FULL); /* the other one's versions are in the way */
        CHECK_OK(db_try(other, "UPDATE t SET pad=randomblob(%d) WHERE id > 2100", ROW_BYTES), other);
        db_exec(db, "DELETE FROM t WHERE id=%d", i);
    }
    CHECK(log_contains("no room for page versions"));
    db_close(other);
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_connection_never_wears_out_the_heap),
        cmocka_unit_test(idle_connections_keep_no_room),
        cmocka_unit_test(a_full_heap_is_not_full_for_ever),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
