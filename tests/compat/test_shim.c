/* A VFS above Throng changes nothing, as long as it hands down file controls: whatever it does to file names, and whatever it
 * says of the disk; also commits across databases are all or nothing. One that does not hand them down is told so when it
 * would write, instead of losing commits. A database that is given to SQLite's own VFS is SQLite's, with its hot journal.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <string.h>
#include <unistd.h>

enum { COPIES_NAMES = 1, HIDES_THE_DISK = 2, HOLDS_BACK_CONTROLS = 4 };

struct shim_file {
    sqlite3_file base;
    const char *name; /* a copy, if it makes some */
    sqlite3_file real;
};

static sqlite3_vfs shim;
static int manners;
static int writes_until_full; /* then one fails; 0: none */

static sqlite3_file *real_of(sqlite3_file *file)
{
    return &((struct shim_file *)(void *)file)->real;
}

static sqlite3_vfs *real_vfs(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

static int shim_close(sqlite3_file *file)
{
    int rc = real_of(file)->pMethods->xClose(real_of(file));

    sqlite3_free_filename(((struct shim_file *)(void *)file)->name);
    return rc;
}

static int shim_read(sqlite3_file *file, void *to, int bytes, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xRead(real_of(file), to, bytes, offset);
}

static int shim_write(sqlite3_file *file, const void *from, int bytes, sqlite3_int64 offset)
{
    if (writes_until_full > 0 && --writes_until_full == 0)
        return SQLITE_FULL;
    return real_of(file)->pMethods->xWrite(real_of(file), from, bytes, offset);
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    return real_of(file)->pMethods->xTruncate(real_of(file), bytes);
}

static int shim_sync(sqlite3_file *file, int flags)
{
    return real_of(file)->pMethods->xSync(real_of(file), flags);
}

static int shim_file_size(sqlite3_file *file, sqlite3_int64 *bytes_out)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), bytes_out);
}

static int shim_lock(sqlite3_file *file, int lock)
{
    return real_of(file)->pMethods->xLock(real_of(file), lock);
}

static int shim_unlock(sqlite3_file *file, int lock)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), lock);
}

static int shim_check_reserved(sqlite3_file *file, int *out)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), out);
}

static int shim_control(sqlite3_file *file, int op, void *arg)
{
    return manners & HOLDS_BACK_CONTROLS ? SQLITE_NOTFOUND
                                         : real_of(file)->pMethods->xFileControl(real_of(file), op, arg);
}

static int shim_sector_size(sqlite3_file *file)
{
    return manners & HIDES_THE_DISK ? 4096 : real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int shim_characteristics(sqlite3_file *file)
{
    return manners & HIDES_THE_DISK ? 0 : real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static const sqlite3_io_methods SHIM_METHODS = {
    .iVersion = 1,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_file_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_check_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector_size,
    .xDeviceCharacteristics = shim_characteristics,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *flags_out)
{
    struct shim_file *own = (struct shim_file *)(void *)file;
    int rc;

    memset(own, 0, sizeof *own);
    if (name != NULL && manners & COPIES_NAMES)
        name = own->name = sqlite3_create_filename(name, "", "", 0, NULL);
    rc = real_vfs(vfs)->xOpen(real_vfs(vfs), name, &own->real, flags, flags_out);
    if (rc == SQLITE_OK)
        own->base.pMethods = &SHIM_METHODS;
    else
        sqlite3_free_filename(own->name);
    return rc;
}

static int shim_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    return real_vfs(vfs)->xDelete(real_vfs(vfs), name, sync_dir);
}

static int shim_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    return real_vfs(vfs)->xAccess(real_vfs(vfs), name, flags, out);
}

static int shim_full_pathname(sqlite3_vfs *vfs, const char *name, int bytes, char *out)
{
    return real_vfs(vfs)->xFullPathname(real_vfs(vfs), name, bytes, out);
}

static int setup(void **state)
{
    int rc = support_setup(state);
    sqlite3_vfs *below = sqlite3_vfs_find(db_vfs());

    shim = *below;
    shim.zName = "shim";
    shim.pAppData = below;
    shim.iVersion = 1;
    shim.szOsFile = (int)sizeof(struct shim_file) + below->szOsFile;
    shim.xOpen = shim_open;
    shim.xDelete = shim_delete;
    shim.xAccess = shim_access;
    shim.xFullPathname = shim_full_pathname;
    return rc != 0 ? rc : sqlite3_vfs_register(&shim, 0);
}

static sqlite3 *open_shim(const char *path)
{
    sqlite3 *db;

    CHECK_EQUAL(db_try_open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "shim", &db),
                SQLITE_OK);
    return db;
}

/* Two connections; the cache spills, so that journals have several headers where the disk is hidden. */
static void use(const char *path)
{
    sqlite3 *a = open_shim(path);
    sqlite3 *b = open_shim(path);
    uint64_t before;

    db_exec(a, "BEGIN IMMEDIATE");
    db_int(b, "SELECT count(*) FROM sqlite_schema");
    db_exec(a, "CREATE TABLE t(id INTEGER PRIMARY KEY, v, pad); CREATE INDEX i ON t(v); COMMIT");
    db_exec(a, "PRAGMA cache_size=5;"
               "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) "
               "INSERT INTO t SELECT i, i*7919%%10007, hex(zeroblob(100)) FROM n");
    before = db_hash_all(b);
    db_exec(a, "BEGIN; UPDATE t SET v=v+1, pad=pad||'x'; DELETE FROM t WHERE id%%3=0; DROP INDEX i; ROLLBACK");
    CHECK(db_hash_all(a) == before);
    db_exec(a, "BEGIN; SAVEPOINT s; DELETE FROM t WHERE id>5; ROLLBACK TO s; UPDATE t SET v=v+1; UPDATE t SET v=v-1;"
               "COMMIT");
    CHECK(db_hash_all(a) == before);
    CHECK(db_hash_all(b) == before);
    db_exec(b, "INSERT INTO t VALUES(0, 0, 0)");
    db_exec(a, "DELETE FROM t WHERE id%%2=1");
    CHECK_EQUAL(db_int(b, "SELECT count(*) FROM t"), 1001);
    db_check_text(a, "PRAGMA integrity_check", "ok");
    db_close(a);
    db_close(b);
    oracle_check(path);
}

static void every_kind_of_vfs_above(void **state)
{
    char path[PATH_SIZE];

    (void)state;
    for (manners = 0; manners < HOLDS_BACK_CONTROLS; manners++)
        use(path_new(path, "shim"));
    manners = 0;
}

/* The second database's part fails on a conflict: nobody may see that of the first. */
static void all_or_nothing_behind_a_shim(void **state)
{
    char one[PATH_SIZE];
    char two[PATH_SIZE];
    sqlite3 *a = open_shim(path_new(one, "one"));
    sqlite3 *b;

    (void)state;
    support_needs_throng();
    db_exec(a,
            "ATTACH '%s' AS two; CREATE TABLE main.t(v); INSERT INTO main.t VALUES(1);"
            "CREATE TABLE two.u(v); INSERT INTO two.u VALUES(1)",
            path_new(two, "two"));
    b = open_shim(two);
    db_exec(a, "BEGIN; UPDATE main.t SET v=2; UPDATE two.u SET v=2");
    db_exec(b, "UPDATE u SET v=3");
    db_expect(a, SQLITE_BUSY_SNAPSHOT, "COMMIT");
    if (!sqlite3_get_autocommit(a))
        db_exec(a, "ROLLBACK");
    db_close(b);
    b = open_shim(one);
    CHECK_EQUAL(db_int(b, "SELECT v FROM t"), 1);
    CHECK_EQUAL(db_int(a, "SELECT v FROM main.t"), 1);
    CHECK_EQUAL(db_int(a, "SELECT v FROM two.u"), 3);
    db_exec(a, "BEGIN; UPDATE main.t SET v=2; UPDATE two.u SET v=2; COMMIT");
    CHECK_EQUAL(db_int(b, "SELECT v FROM t"), 2);
    db_close(b);
    db_close(a);
    oracle_check(one);
    oracle_check(two);
}

static void controls_that_are_held_back(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *db = db_open(path_new(path, "mute"));

    (void)state;
    support_needs_throng();
    db_exec(db, "CREATE TABLE t(v); INSERT INTO t VALUES(1)");
    manners = HOLDS_BACK_CONTROLS;
    {
        sqlite3 *mute = open_shim(path);

        CHECK_EQUAL(db_int(mute, "SELECT v FROM t"), 1);
        log_clear();
        CHECK_EQUAL(db_try(mute, "UPDATE t SET v=2") & 0xff, SQLITE_CANTOPEN);
        CHECK(log_contains("does not hand down file controls"));
        db_close(mute);
    }
    manners = 0;
    CHECK_EQUAL(db_int(db, "SELECT v FROM t"), 1);
    db_close(db);
    oracle_check(path);
}

/* Any write fails once, in the middle of an entry of the journal, too: the transaction is rolled back, or it goes on without
 * the statement. */
static void each_write_fails_once(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *db = open_shim(path_new(path, "full"));
    int failed = 0, went_on = 0;

    (void)state;
    db_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE, pad);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60) "
                "INSERT INTO t SELECT i, i, zeroblob(900) FROM n");
    for (int write = 1; failed == write - 1; write++) {
        uint64_t before = db_hash_all(db);

        db_exec(db, "BEGIN");
        writes_until_full = write;
        failed += db_try(db, "UPDATE t SET v=v+100, pad=zeroblob(901)") == SQLITE_FULL;
        writes_until_full = 0;
        if (!sqlite3_get_autocommit(db)) {
            went_on += failed == write;
            db_exec(db, "UPDATE t SET pad=id WHERE id%%7=3");
            db_exec(db, "ROLLBACK");
        }
        CHECK(db_hash_all(db) == before);
        db_check_text(db, "PRAGMA integrity_check", "ok");
    }
    CHECK(failed > 20 && went_on > 20);
    db_close(db);
    oracle_check(path);
}

static void die_in_a_transaction(void *path)
{
    sqlite3 *db = db_stock(path);

    db_exec(db, "PRAGMA cache_size=5; BEGIN; UPDATE t SET v=1");
    _exit(0);
}

static void a_hot_journal_beside_a_database_without_locks(void **state)
{
    char path[PATH_SIZE];
    char journal[PATH_SIZE];
    char uri[PATH_SIZE];
    sqlite3 *db = db_stock(path_new(path, "hot"));

    (void)state;
    support_needs_throng();
    db_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v, pad);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) "
                "INSERT INTO t SELECT i, 0, hex(zeroblob(100)) FROM n");
    db_close(db);
    child_run(die_in_a_transaction, path);
    CHECK(file_exists(path_beside(journal, path, "-journal")));
    sqlite3_snprintf(PATH_SIZE, uri, "file:%s?nolock=1", path);
    CHECK_EQUAL(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, "throng", &db), SQLITE_OK);
    CHECK_EQUAL(db_int(db, "SELECT sum(v) FROM t"), 0);
    CHECK(!file_exists(journal));
    db_exec(db, "BEGIN; UPDATE t SET v=2; ROLLBACK; UPDATE t SET v=3 WHERE id=1");
    CHECK_EQUAL(db_int(db, "SELECT sum(v) FROM t"), 3);
    db_close(db);
    db = db_open(path); /* and ours are still found when others are not ours */
    db_exec(db, "BEGIN; UPDATE t SET v=4; ROLLBACK; UPDATE t SET v=v+1 WHERE id=1");
    CHECK_EQUAL(db_int(db, "SELECT sum(v) FROM t"), 4);
    for (manners = 0; manners < HOLDS_BACK_CONTROLS; manners++) {
        char other[PATH_SIZE];

        use(path_new(other, "mixed"));
    }
    manners = 0;
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_vfs_above),
        cmocka_unit_test(all_or_nothing_behind_a_shim),
        cmocka_unit_test(controls_that_are_held_back),
        cmocka_unit_test(each_write_fails_once),
        cmocka_unit_test(a_hot_journal_beside_a_database_without_locks),
    };

    return cmocka_run_group_tests(tests, setup, support_teardown);
}
