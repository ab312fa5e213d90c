/* What a failing disk does to commits that ask for syncs, and to checkpoints: a clear code, nothing acknowledged is lost,
 * and where that can be it goes on.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "horizon.h"
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static char path[PATH_SIZE];
static char uri[2 * PATH_SIZE];

static sqlite3 *open_again(void)
{
    sqlite3 *db = NULL;

    CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
    return db;
}

static sqlite3 *create(const char *name, const char *options, const char *level)
{
    sqlite3 *db;

    fault_reset();
    (void)snprintf(uri, sizeof uri, "file:%s?%s", path_new(path, name), options);
    db = open_again();
    db_exec(db, "PRAGMA synchronous=%s; CREATE TABLE t(id INTEGER PRIMARY KEY, x)", level);
    return db;
}

/* Close, open, and look: the rows from 1 to `least` are there, and no other than the one after it. */
static void check_rows(sqlite3 *db, int64_t least)
{
    int64_t count;

    fault_reset();
    db_close(db);
    db = open_again();
    count = db_int(db, "SELECT count(*) FROM t");
    CHECK(count == least || count == least + 1);
    CHECK_EQUAL(db_int(db, "SELECT coalesce(max(id), 0) FROM t"), count);
    db_exec(db, "PRAGMA synchronous=FULL; INSERT INTO t(x) VALUES(randomblob(5000))");
    db_close(db);
    oracle_check(path);
}

/* A sync that fails is final: who waited for it is told, nobody sees its commit, and nothing is written until the database
 * is opened again. */
static void a_failed_sync_is_final(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 3; nth++) {
        struct fault_rule rule = {.call = THR_OS_SYNC, .nth = nth, .count = 1, .err = EIO};
        sqlite3 *db = create("sync", "", "FULL"), *other = open_again();
        int64_t done = 0;
        int rc = SQLITE_OK;

        log_clear();
        (void)fault_add(&rule);
        while (rc == SQLITE_OK && done < 20)
            if ((rc = db_try(db, "INSERT INTO t(x) VALUES(zeroblob(3000))")) == SQLITE_OK)
                done++;
        CHECK_EQUAL(rc, SQLITE_IOERR_FSYNC);
        CHECK(fault_rule_hits(0) == 1);
        CHECK(log_contains("The database is read-only until all its connections are closed") ||
              log_contains("cannot sync"));
        CHECK_EQUAL(db_int(other, "SELECT count(*) FROM t"), done); /* reading goes on */
        CHECK_EQUAL(db_try(other, "INSERT INTO t(x) VALUES(1)") & 0xff, SQLITE_READONLY);
        CHECK_EQUAL(db_try(db, "INSERT INTO t(x) VALUES(1)") & 0xff, SQLITE_READONLY);
        db_close(other);
        check_rows(db, done);
    }
}

/* Property: after a failed sync each connection shows a whole database, also the one whose commit had taken pages from the
 * free list. */
static void a_failed_sync_leaves_the_free_list_whole(void **state)
{
    struct fault_rule rule = {.call = THR_OS_SYNC, .path = "log-", .nth = 1, .count = 1, .err = EIO};
    sqlite3 *db = create("free", "", "FULL");

    (void)state;
    db_exec(db, "CREATE TABLE gone(x); INSERT INTO gone VALUES(zeroblob(20000)); DROP TABLE gone");
    (void)fault_add(&rule);
    CHECK_EQUAL(db_try(db, "INSERT INTO t(x) VALUES(zeroblob(9000))"), SQLITE_IOERR_FSYNC);
    db_check_text(db, "PRAGMA integrity_check", "ok");
    check_rows(db, 0);
}

/* Space runs out while the log or the heap grows: SQLITE_FULL, the transaction is gone, the next one works when there is
 * room again. ENOSPC and EDQUOT are the same. */
static void space_runs_out_and_comes_back(void **state)
{
    static const int ERRORS[] = {ENOSPC, EDQUOT};
    static const char *const FILES[] = {"log-", "heap"};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct fault_rule rule = {
            .call = THR_OS_ALLOCATE, .path = FILES[i / 2], .nth = 1, .count = FAULT_FOREVER, .err = ERRORS[i % 2]};
        sqlite3 *db = create("space", "checkpoint_bytes=1G", i % 2 == 0 ? "NORMAL" : "FULL");
        int64_t done = 0;
        int rc = SQLITE_OK;

        (void)fault_add(&rule);
        while (rc == SQLITE_OK && done < 400)
            if ((rc = db_try(db, "INSERT INTO t(x) VALUES(randomblob(60000))")) == SQLITE_OK)
                done++;
        CHECK_EQUAL(rc, SQLITE_FULL);
        CHECK(fault_rule_hits(0) > 0);
        CHECK_EQUAL(sqlite3_get_autocommit(db), 1);
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), done);
        CHECK_EQUAL(db_try(db, "INSERT INTO t(x) VALUES(randomblob(6000000))"), SQLITE_FULL);
        fault_reset();
        db_exec(db, "INSERT INTO t(x) VALUES(randomblob(6000000))");
        check_rows(db, done + 1);
    }
}

/* The last close finds no room at all: it says so, keeps the log, and the next open recovers. */
static void closed_without_room(void **state)
{
    static const enum thr_os_call CALLS[] = {THR_OS_WRITE, THR_OS_ALLOCATE};

    (void)state;
    for (int i = 0; i < 2; i++) {
        sqlite3 *db = create("no-room", "", i == 0 ? "OFF" : "FULL");

        for (int k = 0; k < 20; k++)
            db_exec(db, "INSERT INTO t(x) VALUES(randomblob(20000))");
        for (int k = 0; k < 2; k++) {
            struct fault_rule rule = {
                .call = CALLS[k], .path = "no-room", .nth = 1, .count = FAULT_FOREVER, .err = ENOSPC};

            (void)fault_add(&rule);
        }
        log_clear();
        db_close(db);
        CHECK(log_contains("could not be completed at close, as the disk is full"));
        fault_reset();
        db = open_again();
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), 20);
        check_rows(db, 20);
    }
}

/* A file system without fallocate: everything works. */
static void no_fallocate(void **state)
{
    struct fault_rule rule = {.call = THR_OS_ALLOCATE, .nth = 1, .count = FAULT_FOREVER, .err = EOPNOTSUPP};
    sqlite3 *db;

    (void)state;
    fault_reset();
    (void)snprintf(uri, sizeof uri, "file:%s?checkpoint_bytes=100000", path_new(path, "fallocate"));
    (void)fault_add(&rule);
    db = open_again();
    db_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
    for (int i = 0; i < 60; i++)
        db_exec(db, "INSERT INTO t(x) VALUES(randomblob(60000))");
    CHECK(fault_rule_hits(0) > 3);
    check_rows(db, 60);
}

/* Calls fail while checkpoints run: those who commit do not notice, but for a sync, and the log is kept until it works. */
static void a_checkpoint_may_fail(void **state)
{
    static const struct {
        enum thr_os_call call;
        const char *path;
        int err;
        bool final;
    } FAULTS[] = {
        {THR_OS_WRITE, "checkpoint", EIO, false},  {THR_OS_WRITE, "checkpoint", ENOSPC, false},
        {THR_OS_WRITE, "checkpoint", -EIO, false}, {THR_OS_WRITE, "horizon", EIO, false},
        {THR_OS_OPEN, "horizon", EMFILE, false},   {THR_OS_UNLINK, "log-", EIO, false},
        {THR_OS_RENAME, "log-", EIO, false},       {THR_OS_SYNC, "checkpoint", EIO, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof FAULTS / sizeof FAULTS[0]; i++) {
        uint64_t hits = 0;

        for (uint64_t nth = 1; nth <= 40; nth = nth * 3 + 1) {
            struct fault_rule rule = {
                .call = FAULTS[i].call, .path = FAULTS[i].path, .nth = nth, .count = 2, .err = FAULTS[i].err};
            sqlite3 *db = create("checkpoint", "checkpoint_bytes=20000", "NORMAL");
            int64_t done = 0;
            int rc = SQLITE_OK;

            (void)fault_add(&rule);
            for (int k = 0; k < 120 && rc == SQLITE_OK; k++)
                if ((rc = db_try(db, "INSERT INTO t(x) VALUES(randomblob(20000))")) == SQLITE_OK)
                    done++;
            if (FAULTS[i].final && fault_rule_hits(0) > 0)
                CHECK(rc == SQLITE_OK || (rc & 0xff) == SQLITE_READONLY || rc == SQLITE_IOERR_FSYNC);
            else
                CHECK_OK(rc, db);
            hits += fault_rule_hits(0);
            check_rows(db, done);
        }
        if (hits == 0)
            check_failed(__FILE__, __LINE__, "fault %zu was never met", i);
    }
}

/* A checkpoint that passed an old snapshot wrote the file, and then could not say so in the directory. The next one, which
 * waits for old snapshots, must not make the file older than it says it is. */
static void the_file_never_gets_older(void **state)
{
    static const char *const LEVELS[] = {"OFF", "NORMAL"};
    struct fault_rule rule = {.call = THR_OS_WRITE, .path = "horizon", .nth = 1, .count = 1, .err = EIO};

    (void)state;
    for (int i = 0; i < 2; i++) {
        sqlite3 *db = create("older", "checkpoint_bytes=20000", LEVELS[i]), *reader = open_again();

        db_exec(db, "PRAGMA wal_checkpoint; INSERT INTO t(x) VALUES(1)");
        db_exec(reader, "BEGIN");
        CHECK_EQUAL(db_int(reader, "SELECT count(*) FROM t"), 1);
        db_exec(db, "UPDATE t SET x=2");
        (void)fault_add(&rule);
        (void)db_try(db, "PRAGMA wal_checkpoint(TRUNCATE)");
        CHECK_EQUAL(fault_rule_hits(0), 1);
        for (int k = 0; k < 20; k++)
            db_exec(db, "INSERT INTO t(x) VALUES(randomblob(20000))");
        CHECK_EQUAL(db_int(reader, "SELECT x FROM t"), 1);
        db_exec(reader, "COMMIT");
        db_close(reader);
        check_rows(db, 21);
    }
}

static void commit_a_large_one(void *ctx, const char *name)
{
    (void)name;
    db_exec(ctx, "INSERT INTO t(x) VALUES(randomblob(3000000))");
}

/* While one connection asks for more than OFF, and all is made safe for that, others at OFF go on, in new segments of the
 * log. The log must not begin with one of these, as a power cut may leave nothing of it. */
static void the_log_begins_where_it_is_safe(void **state)
{
    struct fault_rule rule = {.call = THR_OS_SYNC, .path = "log-2", .nth = 1000000, .count = 1, .err = EIO};
    sqlite3 *db = create("rises", "checkpoint_bytes=1G", "OFF"), *other = open_again();
    char directory[PATH_SIZE + 16];
    struct thr_horizon horizon;
    bool found;

    (void)state;
    (void)snprintf(directory, sizeof directory, "%s-journal", path);
    db_exec(other, "PRAGMA synchronous=OFF");
    db_exec(db, "PRAGMA wal_checkpoint; PRAGMA synchronous=NORMAL");
    (void)fault_add(&rule);
    CHECK(fault_call_at("synced", 1, commit_a_large_one, other) >= 0);
    db_exec(db, "INSERT INTO t(x) VALUES(1)");
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), 2);
    CHECK_EQUAL(thr_horizon_read(directory, &found, &horizon), SQLITE_OK);
    CHECK(horizon.number == 1 || fault_rule_calls(0) > 0);
    db_close(other);
    check_rows(db, 2);
}

/* What a rollback needs cannot be had: the connection must not go on with what it had changed. */
static void a_rollback_without_memory(void **state)
{
    sqlite3 *db = create("memory", "", "OFF");
    uint64_t hits = 1, before;

    (void)state;
    db_exec(db, "PRAGMA cache_size=10;"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) "
                "INSERT INTO t SELECT i, randomblob(800) FROM n");
    before = db_hash_all(db);
    for (int spills = 0; spills <= 1; spills++) {
        for (uint64_t nth = 1; hits > 0; nth++) {
            db_exec(db, "BEGIN; CREATE TABLE u(a); UPDATE t SET x=zeroblob(800) WHERE id<%d", spills ? 200 : 3);
            fault_fail_from(THR_OS_MEMORY, nth, ENOMEM);
            (void)db_try(db, "ROLLBACK");
            hits = fault_hits();
            fault_reset();
            CHECK(db_hash_all(db) == before);
            db_check_text(db, "PRAGMA integrity_check", "ok");
        }
        hits = 1;
    }
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_sync_is_final),
        cmocka_unit_test(a_failed_sync_leaves_the_free_list_whole),
        cmocka_unit_test(space_runs_out_and_comes_back),
        cmocka_unit_test(closed_without_room),
        cmocka_unit_test(no_fallocate),
        cmocka_unit_test(a_checkpoint_may_fail),
        cmocka_unit_test(the_file_never_gets_older),
        cmocka_unit_test(the_log_begins_where_it_is_safe),
        cmocka_unit_test(a_rollback_without_memory),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
