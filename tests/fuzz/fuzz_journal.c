/* Property: whatever stands at <db>-journal, an open ends with a code of SQLite's. If it is refused, nothing was changed
 * and the log of errors names the database; if it is not, the database reads and writes, closes as a plain file, and
 * stock SQLite finds it whole, unless it was given damaged.
 *
 * The input is an archive (archive.h) of what is there before the open.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "log.h"
#include "throng.h"
#include "work.h"

static const size_t FILE_MAX = (size_t)64 << 20;
enum { ROWS = 20, STEPS_MAX = 200000 };

static char path[512], journal_path[512], wal_path[512], shm_path[512], twin_path[512], twin_journal[512],
    twin_wal[512];
static uint8_t *usual_base;
static size_t usual_bytes;
static bool said_so;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);
const char *__asan_default_options(void);

/* A database of a TiB is no error: it is memory that we do not have. */
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=64:allocator_may_return_null=1:detect_stack_use_after_return=1";
}

static void note_log(void *ctx, int code, const char *message)
{
    (void)ctx;
    (void)code;
    said_so = said_so || strstr(message, path) != NULL;
}

static int tired(void *ctx)
{
    return --*(int *)ctx < 0;
}

/* The schema of a database that was given may say anything, also what takes forever. */
static int exec(sqlite3 *db, const char *sql, int64_t *value_out)
{
    sqlite3_stmt *stmt = NULL;
    int rounds = STEPS_MAX / 1000, rc;

    sqlite3_progress_handler(db, 1000, tired, &rounds);
    rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    while (rc == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW)
        if (value_out != NULL)
            *value_out = sqlite3_column_int64(stmt, 0);
    if (rc == SQLITE_OK)
        rc = sqlite3_finalize(stmt);
    sqlite3_progress_handler(db, 0, NULL, NULL);
    return rc;
}

static void must(sqlite3 *db, const char *sql)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);

    FUZZ_CHECK(rc == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
}

static sqlite3 *open_stock(const char *name)
{
    sqlite3 *db = NULL;

    FUZZ_CHECK(sqlite3_open_v2(name, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix") == SQLITE_OK, "%s", name);
    return db;
}

static bool stock_finds_whole(const char *name)
{
    sqlite3 *db = open_stock(name);
    sqlite3_stmt *stmt = NULL;
    bool whole = sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL) == SQLITE_OK &&
                 sqlite3_step(stmt) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0;

    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
    return whole;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *in = NULL;
    sqlite3 *db;

    (void)argc;
    (void)argv;
    work_begin(FILE_MAX);
    in = work_directory();
    (void)snprintf(path, sizeof path, "%s/a.db", in);
    (void)snprintf(journal_path, sizeof journal_path, "%s/a.db-journal", in);
    (void)snprintf(wal_path, sizeof wal_path, "%s/a.db-wal", in);
    (void)snprintf(shm_path, sizeof shm_path, "%s/a.db-shm", in);
    (void)snprintf(twin_path, sizeof twin_path, "%s/twin.db", in);
    (void)snprintf(twin_journal, sizeof twin_journal, "%s/twin.db-journal", in);
    (void)snprintf(twin_wal, sizeof twin_wal, "%s/twin.db-wal", in);
    (void)sqlite3_config(SQLITE_CONFIG_LOG, note_log, NULL);
    FUZZ_CHECK(throng_register(0) == SQLITE_OK, "throng_register");
    db = open_stock(path);
    must(db, "PRAGMA page_size=512; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE old(x);"
             "INSERT INTO old VALUES(zeroblob(5000)); DROP TABLE old");
    must(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
             "INSERT INTO t SELECT i, printf('%.*c', 100, 'x') FROM n");
    (void)sqlite3_close(db);
    usual_base = work_read(path, &usual_bytes);
    return 0;
}

/* What there is, and what may be expected of it. */
struct scene {
    bool usual;     /* the base is ours, and whole */
    bool stock_too; /* stock SQLite's recovery has its say */
    bool stock_ok;  /* and this is what comes of it */
    bool our_log;   /* a log that begins well: what is in it may be anything */
};

static void put_entry(const uint8_t *input, const struct archive_entry *entry, struct scene *scene)
{
    char at[1024];
    uint8_t *file;
    size_t bytes;

    (void)snprintf(at, sizeof at, "%s/%s", journal_path, entry->name);
    if (entry->kind != ARCHIVE_BASE && entry->kind != ARCHIVE_JOURNAL && entry->kind != ARCHIVE_WAL)
        (void)mkdir(journal_path, 0755);
    switch (entry->kind) {
    case ARCHIVE_BASE:
        archive_write(path, input, entry);
        scene->usual = false;
        break;
    case ARCHIVE_JOURNAL:
        archive_write(journal_path, input, entry);
        break;
    case ARCHIVE_WAL:
        archive_write(wal_path, input, entry);
        scene->stock_too = true;
        break;
    case ARCHIVE_FOLDER:
        (void)mkdir(at, 0755);
        break;
    case ARCHIVE_FIFO:
        (void)mkfifo(at, 0644);
        break;
    case ARCHIVE_LINK: {
        char target[32];

        (void)snprintf(target, sizeof target, "%.*s", entry->bytes < 31 ? (int)entry->bytes : 31,
                       (const char *)input + entry->at);
        if (strchr(target, '/') == NULL) /* not out of here */
            (void)symlink(target, at);
        break;
    }
    default:
        archive_write(at, input, entry);
        if (strncmp(entry->name, "log-", 4) == 0 && (file = work_read(at, &bytes)) != NULL) {
            scene->our_log = scene->our_log || thr_segment_check(file, bytes, 0);
            free(file);
        }
    }
}

static void put_files(const uint8_t *input, size_t bytes, struct scene *scene)
{
    struct archive_entry entry;
    uint8_t *journal, *file;
    size_t size;

    *scene = (struct scene){.usual = true};
    work_remove(journal_path);
    work_remove(wal_path);
    work_remove(shm_path);
    work_write(path, usual_base, usual_bytes, 0);
    for (size_t at = 0, i = 0; i < ARCHIVE_ENTRIES_MAX && archive_next(input, bytes, &at, &entry); i++)
        put_entry(input, &entry, scene);
    if ((journal = work_read(journal_path, &size)) != NULL) {
        scene->stock_too = scene->stock_too || size == 0 || journal[0] == 0 || journal[0] == 0xd9;
        work_write(twin_journal, journal, size, 0);
        free(journal);
    }
    if (!scene->stock_too || !scene->usual)
        return;
    if ((file = work_read(wal_path, &size)) != NULL)
        work_write(twin_wal, file, size, 0);
    free(file);
    work_write(twin_path, usual_base, usual_bytes, 0);
    scene->stock_ok = stock_finds_whole(twin_path);
    work_remove(twin_journal);
    work_remove(twin_wal);
}

static bool clean(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_BUSY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
        return true;
    default:
        return false;
    }
}

static void use(sqlite3 *db, const struct scene *scene)
{
    bool sound = scene->usual && !scene->our_log && (!scene->stock_too || scene->stock_ok);
    int64_t rows = 0;
    int rc;

    rc = exec(db, "SELECT count(*) FROM t", &rows);
    FUZZ_CHECK(!sound || rc == SQLITE_OK, "SELECT: %s", sqlite3_errmsg(db));
    FUZZ_CHECK(!sound || scene->stock_too || rows == ROWS, "%d rows", (int)rows);
    rc = exec(db, "INSERT INTO t(b) VALUES(zeroblob(3000))", NULL);
    FUZZ_CHECK(!sound || rc == SQLITE_OK, "INSERT: %s", sqlite3_errmsg(db));
    if (!sound)
        (void)exec(db, "PRAGMA freelist_format=2", NULL);
    rc = sqlite3_close(db);
    FUZZ_CHECK(rc == SQLITE_OK, "close: %d", rc);
    if (sound) {
        FUZZ_CHECK(access(journal_path, F_OK) != 0, "the journal is left behind");
        FUZZ_CHECK(stock_finds_whole(path), "integrity_check");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct scene scene;
    uint64_t base_before, journal_before;
    sqlite3 *db = NULL;
    int rc;

    work_input();
    put_files(input, bytes, &scene);
    base_before = work_hash(path);
    journal_before = work_hash(journal_path);
    said_so = false;
    rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "throng");
    FUZZ_CHECK(clean(rc) || (scene.stock_too && rc == SQLITE_ERROR), "open: %d", rc); /* ERROR: its schema, to stock */
    if (rc == SQLITE_OK) {
        use(db, &scene);
        return 0;
    }
    (void)sqlite3_close(db);
    FUZZ_CHECK(said_so || (rc & 0xff) == SQLITE_NOMEM, "open: %d, and nobody says why", rc);
    if (!scene.stock_too && ((rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_CORRUPT)) {
        FUZZ_CHECK(base_before == work_hash(path), "refused with %d, but the database was changed", rc);
        FUZZ_CHECK(journal_before == work_hash(journal_path), "refused with %d, but the journal was changed", rc);
    }
    return 0;
}
