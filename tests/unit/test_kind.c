/* Properties of telling what kind of transaction a lock is taken for: asked from inside the statement, as the VFS does.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "fault.h"
#include "throng.h"
#include "vfs.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A VFS before the system's that asks thr_statement_info() at each lock of the database. */
struct spy_file {
    sqlite3_file base;
    sqlite3_file *real;
};

static sqlite3 *db;
static sqlite3_stmt *told; /* the statement that is said to run alone */
static struct thr_statement_info at_shared, at_reserved;
static int shared_locks, reserved_locks;
static sqlite3_vfs spy_vfs, *real_vfs;
static char path[PATH_MAX];

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((struct spy_file *)(void *)file)->real;
}

static int spy_close(sqlite3_file *file)
{
    int rc = real_of(file)->pMethods->xClose(real_of(file));

    sqlite3_free(real_of(file));
    return rc;
}

static int spy_read(sqlite3_file *file, void *to, int bytes, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xRead(real_of(file), to, bytes, offset);
}

static int spy_write(sqlite3_file *file, const void *from, int bytes, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xWrite(real_of(file), from, bytes, offset);
}

static int spy_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    return real_of(file)->pMethods->xTruncate(real_of(file), bytes);
}

static int spy_sync(sqlite3_file *file, int flags)
{
    return real_of(file)->pMethods->xSync(real_of(file), flags);
}

static int spy_size(sqlite3_file *file, sqlite3_int64 *bytes_out)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), bytes_out);
}

static int spy_lock(sqlite3_file *file, int lock)
{
    if (lock == SQLITE_LOCK_SHARED) {
        thr_statement_info(db, told, NULL, &at_shared);
        shared_locks++;
    } else if (lock == SQLITE_LOCK_RESERVED) {
        thr_statement_info(db, told, NULL, &at_reserved);
        reserved_locks++;
    }
    return real_of(file)->pMethods->xLock(real_of(file), lock);
}

static int spy_unlock(sqlite3_file *file, int lock)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), lock);
}

static int spy_check(sqlite3_file *file, int *out)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), out);
}

static int spy_control(sqlite3_file *file, int op, void *arg)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), op, arg);
}

static int spy_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int spy_characteristics(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static const sqlite3_io_methods SPY_METHODS = {
    .iVersion = 1,
    .xClose = spy_close,
    .xRead = spy_read,
    .xWrite = spy_write,
    .xTruncate = spy_truncate,
    .xSync = spy_sync,
    .xFileSize = spy_size,
    .xLock = spy_lock,
    .xUnlock = spy_unlock,
    .xCheckReservedLock = spy_check,
    .xFileControl = spy_control,
    .xSectorSize = spy_sector,
    .xDeviceCharacteristics = spy_characteristics,
};

static int spy_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *flags_out)
{
    struct spy_file *spy = (struct spy_file *)(void *)file;
    int rc;

    (void)vfs;
    if ((flags & SQLITE_OPEN_MAIN_DB) == 0 || name == NULL || strcmp(name, path) != 0)
        return real_vfs->xOpen(real_vfs, name, file, flags, flags_out);
    spy->base.pMethods = NULL;
    if ((spy->real = sqlite3_malloc(real_vfs->szOsFile)) == NULL)
        return SQLITE_NOMEM;
    memset(spy->real, 0, (size_t)real_vfs->szOsFile);
    if ((rc = real_vfs->xOpen(real_vfs, name, spy->real, flags, flags_out)) != SQLITE_OK)
        sqlite3_free(spy->real);
    else
        spy->base.pMethods = &SPY_METHODS;
    return rc;
}

static void exec(const char *sql)
{
    char *error = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        fail_msg("%s: %s", sql, error);
}

static void clean_up(void)
{
    char command[PATH_MAX + 20];

    (void)snprintf(command, sizeof command, "rm -f '%s'*", path);
    (void)system(command);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof path, "%s/throng-kind-%ld.db", place(), (long)getpid());
    real_vfs = sqlite3_vfs_find("unix");
    spy_vfs = *real_vfs;
    spy_vfs.zName = "spy";
    spy_vfs.xOpen = spy_open;
    if (spy_vfs.szOsFile < (int)sizeof(struct spy_file))
        spy_vfs.szOsFile = (int)sizeof(struct spy_file);
    clean_up();
    if (sqlite3_vfs_register(&spy_vfs, 0) != SQLITE_OK ||
        sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "spy") != SQLITE_OK)
        return -1;
    exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1), (2, 2), (3, 3)");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)sqlite3_close(db);
    (void)sqlite3_vfs_unregister(&spy_vfs);
    clean_up();
    return 0;
}

static void begin_watch(void)
{
    shared_locks = reserved_locks = 0;
    memset(&at_shared, 0, sizeof at_shared);
    memset(&at_reserved, 0, sizeof at_reserved);
}

static const struct {
    const char *sql;
    enum thr_kind kind;
    bool locks_shared, locks_reserved;
} TEXTS[] = {
    {"SELECT count(*) FROM t", THR_KIND_READ, true, false},
    {"  -- INSERT\n/* BEGIN IMMEDIATE */ SELECT b FROM t", THR_KIND_READ, true, false},
    {"INSERT INTO t(b) VALUES('BEGIN IMMEDIATE')", THR_KIND_AUTOCOMMIT, true, true},
    {"/* VACUUM */ UPDATE t SET b = 5 -- BEGIN EXCLUSIVE", THR_KIND_AUTOCOMMIT, true, true},
    {"WITH x(y) AS (SELECT 1) INSERT INTO t(b) SELECT y FROM x", THR_KIND_AUTOCOMMIT, true, true},
    {"CREATE TABLE begin_immediate(x)", THR_KIND_AUTOCOMMIT, true, true},
    {"DROP TABLE begin_immediate", THR_KIND_AUTOCOMMIT, true, true},
    {"INSERT INTO t(b) VALUES(9) RETURNING a", THR_KIND_RETURNING, true, true},
    {"DELETE FROM t WHERE a > 3 RETURNING b", THR_KIND_RETURNING, true, true},
    {"BEGIN IMMEDIATE", THR_KIND_IMMEDIATE, true, true},
    {"begin immediate transaction", THR_KIND_IMMEDIATE, true, true},
    {";;\t -- x\n /* y */ BeGiN/**/ImMeDiAtE;", THR_KIND_IMMEDIATE, true, true},
    {"BEGIN -- EXCLUSIVE\n IMMEDIATE", THR_KIND_IMMEDIATE, true, true},
    {"BEGIN EXCLUSIVE", THR_KIND_EXCLUSIVE, true, true},
    {"/*;*/begin /* IMMEDIATE */ exclusive TRANSACTION", THR_KIND_EXCLUSIVE, true, true},
    {"VACUUM", THR_KIND_REWRITE, true, true},
    {"-- INTO\n vacuum main", THR_KIND_REWRITE, true, true},
    {"BEGIN", THR_KIND_RAW, false, false},
    {"BEGIN DEFERRED", THR_KIND_RAW, false, false},
};

/* Property: what the text says, in whatever case and behind whatever comments, is the kind that is found, at the first
 * lock and when the transaction becomes a writer. */
static void the_text_tells_the_kind(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof TEXTS / sizeof TEXTS[0]; i++) {
        begin_watch();
        exec(TEXTS[i].sql);
        if ((shared_locks > 0) != TEXTS[i].locks_shared || (reserved_locks > 0) != TEXTS[i].locks_reserved)
            fail_msg("%s: locks %d, %d", TEXTS[i].sql, shared_locks, reserved_locks);
        if (shared_locks > 0 && at_shared.kind != TEXTS[i].kind)
            fail_msg("%s: at SHARED kind %d, not %d", TEXTS[i].sql, (int)at_shared.kind, (int)TEXTS[i].kind);
        if (reserved_locks > 0 && at_reserved.kind != TEXTS[i].kind)
            fail_msg("%s: at RESERVED kind %d, not %d", TEXTS[i].sql, (int)at_reserved.kind, (int)TEXTS[i].kind);
        if (reserved_locks > 0)
            assert_true(at_reserved.writes);
        if (!sqlite3_get_autocommit(db))
            exec("COMMIT");
    }
}

/* Property: told which statement runs, the kind is the same, and no other statement was looked at; told of one that does
 * not run, it looks for itself. */
static void being_told_gives_the_same_kind(void **state)
{
    enum { COUNT = sizeof TEXTS / sizeof TEXTS[0] };
    sqlite3_stmt *reader = NULL, *idle = NULL, *stmt;

    (void)state;
    exec("ATTACH ':memory:' AS other; CREATE TABLE other.o(x); INSERT INTO o VALUES(1), (2)");
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT x FROM o", -1, &reader, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT 1", -1, &idle, NULL), SQLITE_OK);
    for (size_t i = 0; i < (size_t)COUNT * 2; i++) {
        const char *sql = TEXTS[i % COUNT].sql;
        bool right = i < COUNT;

        /* refused while another statement runs */
        if (TEXTS[i % COUNT].kind == THR_KIND_REWRITE || strncmp(sql, "DROP", 4) == 0)
            continue;
        assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(reader), SQLITE_ROW);
        begin_watch();
        told = right ? stmt : idle;
        while (sqlite3_step(stmt) == SQLITE_ROW)
            ;
        told = NULL;
        assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
        assert_int_equal(sqlite3_reset(reader), SQLITE_OK);
        if (TEXTS[i % COUNT].locks_shared) {
            if (shared_locks == 0 || at_shared.kind != TEXTS[i % COUNT].kind)
                fail_msg("%s: at SHARED kind %d, not %d", sql, (int)at_shared.kind, (int)TEXTS[i % COUNT].kind);
            assert_int_equal(at_shared.busy, right ? 1 : 2);
        }
        if (!sqlite3_get_autocommit(db))
            exec("COMMIT");
        exec("DROP TABLE IF EXISTS begin_immediate");
    }
    assert_int_equal(sqlite3_finalize(reader), SQLITE_OK);
    assert_int_equal(sqlite3_finalize(idle), SQLITE_OK);
}

/* Property: VACUUM INTO leaves the database that it reads as it is, so it is no rewrite, wherever its comments are. */
static void vacuum_into_is_no_rewrite(void **state)
{
    char sql[PATH_MAX + 100];

    (void)state;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(sql, sizeof sql, i == 0 ? "VACUUM INTO '%s-copy'" : "vacuum/* x */main -- y\n into '%s-copy'",
                       path);
        begin_watch();
        exec(sql);
        assert_true(shared_locks > 0);
        assert_int_equal(reserved_locks, 0);
        assert_int_not_equal(at_shared.kind, THR_KIND_REWRITE);
        assert_int_not_equal(at_shared.kind, THR_KIND_IMMEDIATE);
        (void)snprintf(sql, sizeof sql, "%s-copy", path);
        assert_int_equal(remove(sql), 0);
    }
}

/* Property: inside BEGIN every statement belongs to an explicit transaction, as under SAVEPOINT. */
static void inside_begin_everything_is_explicit(void **state)
{
    static const char *const OPENINGS[] = {"BEGIN", "SAVEPOINT s", "BEGIN DEFERRED /* IMMEDIATE */"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        exec(OPENINGS[i]);
        begin_watch();
        exec("SELECT b FROM t");
        assert_int_equal(shared_locks, 1);
        assert_int_equal(at_shared.kind, THR_KIND_EXPLICIT);
        exec("UPDATE t SET b = b + 1 RETURNING b");
        assert_int_equal(reserved_locks, 1);
        assert_int_equal(at_reserved.kind, THR_KIND_EXPLICIT);
        exec(i == 1 ? "RELEASE s" : "COMMIT");
    }
}

/* Property: a write beside a statement that is still reading, in autocommit mode, is told apart by `busy`. */
static void a_reader_beside_a_writer_is_counted(void **state)
{
    sqlite3_stmt *reader = NULL;

    (void)state;
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT b FROM t", -1, &reader, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(reader), SQLITE_ROW);
    begin_watch();
    exec("UPDATE t SET b = b + 1 WHERE a = 1");
    assert_int_equal(reserved_locks, 1);
    assert_int_equal(at_reserved.busy, 2);
    assert_int_equal(at_reserved.kind, THR_KIND_AUTOCOMMIT);
    assert_int_equal(sqlite3_finalize(reader), SQLITE_OK);
}

/* Property: statements that a virtual table runs inside of one (FTS5) do not change what it is. */
static void nested_statements_do_not_count(void **state)
{
    static const struct {
        const char *sql;
        enum thr_kind kind;
    } CASES[] = {
        {"INSERT INTO f(x) VALUES('one two three')", THR_KIND_AUTOCOMMIT},
        {"INSERT INTO f(x) SELECT 'begin immediate ' || a FROM t", THR_KIND_AUTOCOMMIT},
        {"UPDATE f SET x = 'vacuum' WHERE rowid = 1", THR_KIND_AUTOCOMMIT},
        {"INSERT INTO f(f) VALUES('optimize')", THR_KIND_AUTOCOMMIT},
        {"DELETE FROM f WHERE f MATCH 'vacuum'", THR_KIND_AUTOCOMMIT},
    };

    (void)state;
    if (sqlite3_exec(db, "CREATE VIRTUAL TABLE f USING fts5(x)", NULL, NULL, NULL) != SQLITE_OK) {
        print_message("this SQLite has no FTS5\n");
        skip();
    }
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        begin_watch();
        exec(CASES[i].sql);
        if (at_reserved.kind != CASES[i].kind)
            fail_msg("%s: kind %d, not %d", CASES[i].sql, (int)at_reserved.kind, (int)CASES[i].kind);
    }
    begin_watch();
    exec("SELECT count(*) FROM f WHERE f MATCH 'two'");
    assert_int_equal(at_shared.kind, THR_KIND_READ);
}

/* Property: where no statement runs (the schema is loaded, a backup copies) the kind is raw; without a connection, too. */
static void without_a_statement_it_is_raw(void **state)
{
    struct thr_statement_info info;
    sqlite3 *to = NULL;
    sqlite3_backup *backup;

    (void)state;
    thr_statement_info(NULL, NULL, NULL, &info);
    assert_int_equal(info.kind, THR_KIND_RAW);
    thr_statement_info(db, NULL, NULL, &info);
    assert_int_equal(info.kind, THR_KIND_RAW);
    assert_int_equal(info.busy, 0);
    assert_int_equal(sqlite3_open(":memory:", &to), SQLITE_OK);
    begin_watch();
    backup = sqlite3_backup_init(to, "main", db, "main");
    assert_non_null(backup);
    assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
    assert_true(shared_locks > 0);
    assert_int_equal(at_shared.kind, THR_KIND_RAW);
    assert_int_equal(sqlite3_close(to), SQLITE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_text_tells_the_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(being_told_gives_the_same_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(vacuum_into_is_no_rewrite, setup, teardown),
        cmocka_unit_test_setup_teardown(inside_begin_everything_is_explicit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reader_beside_a_writer_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(nested_statements_do_not_count, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_statement_it_is_raw, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
