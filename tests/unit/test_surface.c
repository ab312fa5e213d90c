/* What SQLite promises beside the results of statements: a blob handle's write is there when it is closed without an error;
 * what was deleted under secure_delete is not in the file any more; PRAGMAs that count pages count all of them, however they are
 * asked; file controls answer as those of stock SQLite.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The row changes under a handle that has written or is about to: either that write waits in vain, or the handle's fails. */
static void blob_outside_begin(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *a = db_open(path_new(path, "blob"));
    sqlite3 *b = db_open(path);
    sqlite3_blob *blob;

    (void)state;
    sqlite3_busy_timeout(b, 10);
    db_exec(a, "CREATE TABLE t(id INTEGER PRIMARY KEY, b, n);"
               "INSERT INTO t VALUES(1, zeroblob(20000), 0), (2, zeroblob(20000), 0)");
    for (int round = 0; round < 3; round++) {
        const char text[] = {(char)('A' + round), 'b', 'c', 'd'};
        char got[4];
        bool changed;
        int rc;

        CHECK_OK(sqlite3_blob_open(a, "main", "t", "b", 1, 1, &blob), a);
        if (round == 0)
            changed = db_try(b, "UPDATE t SET n=n+1 WHERE id=1") == SQLITE_OK;
        CHECK_OK(sqlite3_blob_write(blob, text, 4, 0), a);
        if (round > 0)
            changed = db_try(b, "UPDATE t SET n=n+1 WHERE id=1") == SQLITE_OK;
        if (round == 2)
            CHECK_OK(sqlite3_blob_reopen(blob, 2), a);
        rc = sqlite3_blob_close(blob);
        CHECK(rc == SQLITE_OK || changed);
        CHECK_OK(sqlite3_blob_open(b, "main", "t", "b", 1, 0, &blob), b);
        CHECK_OK(sqlite3_blob_read(blob, got, 4, 0), b);
        CHECK_OK(sqlite3_blob_close(blob), b);
        CHECK_EQUAL(memcmp(got, text, 4) == 0, rc == SQLITE_OK);
        CHECK_EQUAL(rc, SQLITE_OK); /* and it does not fail */
        db_exec(b, "UPDATE t SET n=n+1");
    }
    db_close(a);
    db_close(b);
    oracle_check(path);
}

/* Beside a statement that reads, its snapshot is that statement's: it may lose, and then it says so. */
static void blob_beside_a_reader(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *a = db_open(path_new(path, "blob"));
    sqlite3 *b = db_open(path);
    sqlite3_stmt *select;
    sqlite3_blob *blob;
    bool changed;
    int rc;

    (void)state;
    sqlite3_busy_timeout(b, 10);
    db_exec(a, "CREATE TABLE t(id INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, zeroblob(20000)), (2, zeroblob(9))");
    select = db_prepare(a, "SELECT id FROM t");
    CHECK_EQUAL(sqlite3_step(select), SQLITE_ROW);
    CHECK_OK(sqlite3_blob_open(a, "main", "t", "b", 1, 1, &blob), a);
    CHECK_OK(sqlite3_blob_write(blob, "text", 4, 0), a);
    changed = db_try(b, "UPDATE t SET b=zeroblob(9)") == SQLITE_OK;
    rc = sqlite3_blob_close(blob);
    CHECK_EQUAL(rc & 0xff, changed ? SQLITE_BUSY : SQLITE_OK);
    CHECK_EQUAL(db_int(b, "SELECT substr(b, 1, 4)=x'74657874' FROM t WHERE id=1"), !changed);
    stmt_end(select);
    db_close(a);
    db_close(b);
    oracle_check(path);
}

/* --- secure_delete --- */

#define ROWS 300

struct shredding {
    char path[PATH_SIZE];
    const char *auto_vacuum;
};

/* Rows that say which they are, on pages of their own and shared ones; two connections change and delete them, with stripes of
 * free pages, and checkpoints, and a reader in between. No row with an id below 200 is left. */
static void shred(void *arg)
{
    struct shredding *s = arg;
    sqlite3 *a = db_open(s->path);
    sqlite3 *b;
    sqlite3_stmt *reader;

    db_exec(a, "PRAGMA auto_vacuum=%s; CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE kept(v)",
            s->auto_vacuum);
    b = db_open(s->path);
    db_exec(a, "PRAGMA secure_delete=on");
    db_exec(b, "PRAGMA secure_delete=on; PRAGMA cache_size=5");
    db_exec(a,
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<%d) "
            "INSERT INTO t SELECT i, printf('ROW%%dx%%.*c', i, i%%7*i%%7*i, 'y') FROM n",
            ROWS - 1);
    db_exec(a, "PRAGMA wal_checkpoint");
    db_exec(b, "DELETE FROM t WHERE id%%5=0 AND id<200");
    db_exec(a, "INSERT INTO kept VALUES(zeroblob(20000))");
    db_exec(a, "BEGIN; DELETE FROM t WHERE id%%5=1 AND id<200; INSERT INTO kept VALUES(zeroblob(9000)); COMMIT");
    reader = db_prepare(b, "SELECT length(v) FROM t");
    CHECK_EQUAL(sqlite3_step(reader), SQLITE_ROW);
    db_exec(a, "UPDATE t SET v='gone' WHERE id%%5=2 AND id<200");
    db_exec(a, "PRAGMA wal_checkpoint");
    stmt_end(reader);
    db_exec(b, "DELETE FROM t WHERE id%%5=3 AND id<200; DELETE FROM kept; PRAGMA incremental_vacuum(10)");
    db_exec(a, "DELETE FROM t WHERE id<200");
    db_close(b);
    db_close(a);
}

static void shred_and_die(void *arg)
{
    struct shredding *s = arg;
    sqlite3 *keep = db_open(s->path);

    CHECK(keep != NULL); /* so that the others' close is not the last */
    shred(arg);
    _exit(0);
}

static void nothing_is_left(const char *path)
{
    int64_t size = file_size(path);
    char *bytes = malloc((size_t)size + 1);
    int seen = 0;

    CHECK(bytes != NULL);
    file_read(path, 0, bytes, (size_t)size);
    for (char *at = bytes; (at = memmem(at, (size_t)(bytes + size - at), "ROW", 3)) != NULL; at++) {
        int id = atoi(at + 3);

        if (id < 200)
            check_failed(__FILE__, __LINE__, "row %d of %s is deleted, and in the file", id, path);
        seen++;
    }
    CHECK(seen >= ROWS - 200);
    free(bytes);
}

static void what_is_deleted_is_gone(void **state)
{
    static const char *const modes[] = {"none", "full", "incremental"};
    struct shredding s;

    (void)state;
    for (int i = 0; i < 6; i++) {
        path_new(s.path, "shred");
        s.auto_vacuum = modes[i % 3];
        if (i < 3) {
            shred(&s);
        } else {
            child_run(shred_and_die, &s);
            db_close(db_open(s.path));
        }
        nothing_is_left(s.path);
        oracle_check(s.path);
    }
}

/* --- pages that are counted --- */

/* Two writers that take turns get free pages of their own; the connection that counts is one of them. */
static void take_turns(sqlite3 *a, const char *table, sqlite3 *b)
{
    for (int i = 0; i < 3; i++) {
        db_exec(a, "INSERT INTO %s VALUES(zeroblob(9000))", table);
        db_exec(b, "INSERT INTO t VALUES(1)");
        db_exec(a, "DELETE FROM %s WHERE rowid%%2", table);
        db_exec(b, "INSERT INTO t VALUES(1)");
    }
}

static void all_pages_are_counted(void **state)
{
    static const char *const checks[] = {
        "PRAGMA integrity_check",
        "PRAGMA quick_check",
        "SELECT * FROM pragma_integrity_check",
        "SELECT * FROM pragma_quick_check",
        "SELECT count(*) FROM sqlite_schema, pragma_freelist_count",
    };
    char path[PATH_SIZE];
    char other[PATH_SIZE];
    sqlite3 *a = db_open(path_new(path, "count"));
    sqlite3 *b = db_open(path);
    sqlite3 *c = db_open(path_new(other, "count-other"));
    sqlite3_stmt *counts[2];

    (void)state;
    db_exec(a, "CREATE TABLE t(v)");
    db_exec(c, "CREATE TABLE t(v)");
    db_exec(a, "ATTACH '%s' AS aux", other);
    counts[0] = db_prepare(a, "PRAGMA freelist_count");
    counts[1] = db_prepare(a, "PRAGMA aux.page_count");
    for (size_t i = 0; i < 2 * (sizeof checks / sizeof checks[0]); i++) {
        const char *check = checks[i / 2];
        char *text;

        take_turns(a, "main.t", b);
        take_turns(a, "aux.t", c);
        if (i % 2 != 0) /* as the first statement of a transaction */
            db_exec(a, "BEGIN");
        text = db_text(a, "%s", check);
        if (i % 2 != 0)
            db_exec(a, "COMMIT");
        CHECK_TEXT(text, strncmp(check, "SELECT count", 12) == 0 ? "1" : "ok");
        sqlite3_free(text);
        take_turns(a, "main.t", b);
        take_turns(a, "aux.t", c);
        CHECK_EQUAL(sqlite3_step(counts[0]), SQLITE_ROW); /* prepared once, and run again */
        CHECK_EQUAL(sqlite3_column_int(counts[0], 0), db_int(b, "SELECT freelist_count FROM pragma_freelist_count"));
        CHECK_OK(sqlite3_reset(counts[0]), a);
        CHECK_EQUAL(sqlite3_step(counts[1]), SQLITE_ROW);
        CHECK_EQUAL(sqlite3_column_int(counts[1], 0), db_int(c, "PRAGMA page_count"));
        CHECK_OK(sqlite3_reset(counts[1]), a);
    }
    stmt_end(counts[0]);
    stmt_end(counts[1]);
    db_close(a);
    db_close(b);
    db_close(c);
    oracle_check(path);
    oracle_check(other);
}

/* Property: a backup has the whole free list, whichever connection of several writers makes it, and in whatever order of page
 * numbers its trunks are: it reads the pages in the order of their numbers. */
static void a_copy_has_the_whole_free_list(void **state)
{
    static const char *const settings[] = {"", "PRAGMA mmap_size=1000000000"};
    char path[PATH_SIZE];
    char copy[PATH_SIZE];
    sqlite3 *db[3];

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        path_new(path, "copied");
        for (int i = 0; i < 3; i++) {
            db[i] = db_open(path);
            db_exec(db[i], "%s", settings[k]);
        }
        db_exec(db[0], "CREATE TABLE t(a, b)");
        for (int round = 0; round < 4; round++) {
            for (int i = 0; i < 60; i++)
                db_exec(db[i % 3], "INSERT INTO t VALUES(%d, randomblob(3000))", i);
            db_exec(db[round % 3], "DELETE FROM t WHERE a%%3=%d", round % 3);
            if (k == 1)
                db_exec(db[0], "PRAGMA wal_checkpoint");
            for (int i = 0; i < 3; i++) {
                sqlite3 *to = db_stock(path_new(copy, "copy"));
                sqlite3_backup *backup = sqlite3_backup_init(to, "main", db[i], "main");

                CHECK(backup != NULL);
                CHECK_EQUAL(sqlite3_backup_step(backup, 1 + i * 50), SQLITE_OK); /* and go on from there */
                CHECK_EQUAL(sqlite3_backup_step(backup, -1), SQLITE_DONE);
                CHECK_OK(sqlite3_backup_finish(backup), to);
                db_close(to);
                oracle_check(copy);
            }
        }
        for (int i = 0; i < 3; i++)
            db_close(db[i]);
        oracle_check(path);
    }
}

/* --- file controls --- */

static int control(sqlite3 *db, int op, int value, int *rc_out)
{
    *rc_out = sqlite3_file_control(db, "main", op, &value);
    return value;
}

static void file_controls_as_stock(void **state)
{
    static const int settings[] = {SQLITE_FCNTL_POWERSAFE_OVERWRITE, SQLITE_FCNTL_PERSIST_WAL};
    static const int questions[] = {SQLITE_FCNTL_LAST_ERRNO, SQLITE_FCNTL_EXTERNAL_READER, SQLITE_FCNTL_CHUNK_SIZE};
    char path[PATH_SIZE];
    char model_path[PATH_SIZE];
    sqlite3 *db = db_open(path_new(path, "control"));
    sqlite3 *model = db_stock(path_new(model_path, "control-model"));
    char *name = NULL;
    int rc;
    int expected;

    (void)state;
    db_exec(db, "CREATE TABLE t(v)");
    db_exec(model, "CREATE TABLE t(v)");
    for (size_t i = 0; i < 2; i++) {
        for (int value = -1; value < 4; value++) {
            CHECK_EQUAL(control(db, settings[i], value % 2 - (value == 3), &rc),
                        control(model, settings[i], value % 2 - (value == 3), &expected));
            CHECK_EQUAL(rc, expected);
            CHECK_EQUAL(control(db, settings[i], -1, &rc), control(model, settings[i], -1, &expected));
        }
    }
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQUAL(control(db, questions[i], 7, &rc), control(model, questions[i], 7, &expected));
        CHECK_EQUAL(rc, expected);
    }
    CHECK_OK(sqlite3_file_control(db, "main", SQLITE_FCNTL_TEMPFILENAME, &name), db);
    CHECK(name != NULL && !file_exists(name));
    sqlite3_free(name);
    db_exec(db, "INSERT INTO t VALUES(1)");
    db_close(db);
    db_close(model);
    oracle_check(path);
}

/* mmap_size does not change while a statement has mapped pages. */
static void mapping_under_a_statement(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *db = db_stock(path_new(path, "mapped"));

    (void)state;
    db_exec(db, "CREATE TABLE t(v); INSERT INTO t VALUES(zeroblob(20000)), (zeroblob(20000))");
    db_close(db);
    for (int stock = 0; stock < 2; stock++) {
        sqlite3_stmt *select;

        db = stock ? db_stock(path) : db_open(path);
        CHECK_EQUAL(db_int(db, "PRAGMA mmap_size=1000000"), 1000000);
        select = db_prepare(db, "SELECT v FROM t");
        CHECK_EQUAL(sqlite3_step(select), SQLITE_ROW);
        CHECK_EQUAL(db_int(db, "PRAGMA mmap_size=0"), 1000000);
        stmt_end(select);
        CHECK_EQUAL(db_int(db, "PRAGMA mmap_size=0"), 0);
        db_close(db);
    }
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blob_outside_begin),
        cmocka_unit_test(blob_beside_a_reader),
        cmocka_unit_test(what_is_deleted_is_gone),
        cmocka_unit_test(all_pages_are_counted),
        cmocka_unit_test(a_copy_has_the_whole_free_list),
        cmocka_unit_test(file_controls_as_stock),
        cmocka_unit_test(mapping_under_a_statement),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
