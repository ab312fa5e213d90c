/* Writes the inputs that the fuzzers begin with: what is left of databases whose process died.
 *
 *     build-asan/tests/fuzz/make-seeds tests/fuzz/seeds
 *
 * Their salts are random; those in the repository are the ones of some day. What a fuzzer has found lies beside them,
 * as crash-*.
 *
 * SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "archive.h"
#include "group.h"
#include "log.h"
#include "record.h"
#include "seal.h"
#include "throng.h"
#include "work.h"

enum { ROOM = 1 << 20, NUMBERS = 64 };

static uint8_t archive[ROOM];
static size_t archive_bytes;
static char target[2048];

static void must(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        (void)fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
        exit(1);
    }
}

static sqlite3 *open_with(const char *vfs)
{
    sqlite3 *db = NULL;

    if (throng_register(0) != SQLITE_OK ||
        sqlite3_open_v2("file:a.db?checkpoint_bytes=20000", &db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, vfs) != SQLITE_OK) {
        (void)fprintf(stderr, "open: %s\n", sqlite3_errmsg(db));
        exit(1);
    }
    return db;
}

/* Stock SQLite runs `before` and closes; then a process runs `sql` on `vfs` and dies. */
static void die_after(const char *before, const char *vfs, const char *const *sql)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        sqlite3 *db = open_with("unix");

        must(db, "PRAGMA page_size=512");
        must(db, before);
        (void)sqlite3_close(db);
        db = open_with(vfs);
        for (; *sql != NULL; sql++)
            must(db, *sql);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0)
        exit(1);
}

static void begin(void)
{
    work_remove("a.db");
    work_remove("a.db-journal");
    work_remove("b.db");
    work_remove("b.db-journal");
    work_remove("a.db-wal");
    work_remove("a.db-shm");
    archive_bytes = 0;
}

static void add(enum archive_kind kind, const char *name, const void *content, size_t bytes, size_t keep)
{
    size_t added = archive_add(archive + archive_bytes, ROOM - archive_bytes, kind, name, content, bytes, keep);

    FUZZ_CHECK(added != 0, "no room for %s", name);
    archive_bytes += added;
}

static void add_text(enum archive_kind kind, const char *name, const char *text)
{
    add(kind, name, text, strlen(text), 0);
}

static void add_file(enum archive_kind kind, const char *name, const char *path)
{
    size_t bytes;
    uint8_t *at = work_read(path, &bytes);

    FUZZ_CHECK(at != NULL, "%s", path);
    add(kind, name, at, bytes, 0);
    free(at);
}

/* A group names directories of this moment: name them as the fuzzer will, in as many bytes. */
static void rename_paths(uint8_t *segment, size_t from, size_t to)
{
    const char *here = work_directory();
    size_t bytes = strlen(here);

    FUZZ_CHECK(bytes >= strlen(WORK), "%s", here);
    for (size_t at = from; at + bytes <= to; at++)
        if (memcmp(segment + at, here, bytes) == 0) {
            memset(segment + at, '/', bytes);
            memcpy(segment + at, WORK, strlen(WORK));
        }
}

/* A segment, with its last record decided or not if it is of a group. */
static void add_segment(enum archive_kind kind, const char *directory, uint64_t number, bool decided)
{
    char path[256], name[64];
    struct thr_record_head head;
    size_t bytes, at, end;
    uint8_t *segment;

    (void)snprintf(name, sizeof name, "log-%d", (int)number);
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    if ((segment = work_read(path, &bytes)) == NULL)
        return;
    at = seal_records_at(segment, bytes);
    if (!thr_segment_check(segment, bytes, 0))
        at = 0;
    for (; at > 0 && (end = seal_record_end(segment, bytes, at)) != 0; at = end) {
        memcpy(&head, segment + at, sizeof head);
        if (head.magic != THR_RECORD_MAGIC)
            break;
        if ((head.flags & THR_RECORD_GROUP) != 0) {
            rename_paths(segment, at, end);
            head.decided = decided;
            memcpy(segment + at, &head, sizeof head);
        }
    }
    if (at > 0)
        seal_segment(segment, bytes, false);
    add(kind, name, segment, bytes, at);
    free(segment);
}

static void add_log(enum archive_kind kind, const char *directory, bool decided)
{
    char path[256];

    for (uint64_t number = 1; number < NUMBERS; number++)
        add_segment(kind, directory, number, decided);
    (void)snprintf(path, sizeof path, "%s/horizon", directory);
    if (access(path, F_OK) == 0)
        add_file(kind, "horizon", path);
}

static void save(const char *folder, const char *name)
{
    char path[4096];

    (void)snprintf(path, sizeof path, "%s/%s/%s", target, folder, name);
    work_write(path, archive, archive_bytes, 0);
    (void)printf("%s: %zu bytes\n", path, archive_bytes);
}

#define T "CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
#define FILL "INSERT INTO t(b) SELECT zeroblob(40 + value * 60) FROM json_each('[1,2,3,4,5,6,7,8,9]');"
#define ROW "INSERT INTO t(b) VALUES(hex(randomblob(200)))"

static void make_segments(void)
{
    static const struct {
        const char *name, *before, *sql[12];
    } SEEDS[] = {
        {"grow", T, {ROW, ROW, "INSERT INTO t(b) VALUES(zeroblob(3000))", ROW}},
        {"new", "", {"PRAGMA page_size=512", T, ROW, "CREATE INDEX i ON t(b)", ROW}},
        {"free-pages", T FILL FILL "DELETE FROM t WHERE a % 3 = 0", {ROW, "DELETE FROM t WHERE a > 9", ROW, FILL}},
        {"shrink", T FILL FILL, {"DELETE FROM t WHERE a > 2", "VACUUM", ROW}},
        {"resize", T FILL, {ROW, "PRAGMA page_size=1024", "VACUUM", ROW}},
        {"auto-vacuum", "PRAGMA auto_vacuum=FULL;" T FILL, {"DELETE FROM t WHERE a > 3", ROW, ROW}},
        {"one-list", T FILL "DELETE FROM t WHERE a > 4", {"PRAGMA freelist_format=1", ROW, ROW, "DELETE FROM t"}},
    };

    for (size_t i = 0; i < sizeof SEEDS / sizeof *SEEDS; i++) {
        begin();
        die_after(SEEDS[i].before, "throng", SEEDS[i].sql);
        add_file(ARCHIVE_BASE, "", "a.db");
        add_log(ARCHIVE_LOG, "a.db-journal", true);
        save("segments", SEEDS[i].name);
    }
}

static void make_many_segments(void)
{
    const char *sql[100];

    for (int i = 0; i < 99; i++)
        sql[i] = "REPLACE INTO t VALUES(1, hex(randomblob(300)))";
    for (int count = 30; count <= 90; count += 60) { /* before and after a checkpoint */
        sql[count] = NULL;
        begin();
        die_after(T, "throng", sql);
        add_file(ARCHIVE_BASE, "", "a.db");
        add_log(ARCHIVE_LOG, "a.db-journal", true);
        save("segments", count < 50 ? "many-segments" : "checkpointed");
        sql[count] = sql[0];
    }
}

/* The log that was added last, if it ends with a commit of a group, with a group of very many paths, all empty. */
static void make_group_large(void)
{
    enum { MORE = 24000 };
    struct archive_entry entry;
    struct thr_record_head head;
    struct thr_group_head group;
    uint64_t size;
    size_t at = 0, end = 0, next, from;
    uint8_t *log = calloc(1, ROOM);

    FUZZ_CHECK(log != NULL, "no memory");
    while (archive_next(archive, archive_bytes, &at, &entry) && entry.kind != ARCHIVE_LOG)
        ;
    memcpy(log, archive + entry.at, entry.bytes);
    for (next = seal_records_at(log, entry.bytes); next != 0; next = seal_record_end(log, entry.bytes, next)) {
        at = end;
        end = next;
    }
    memcpy(&head, log + at, sizeof head);
    FUZZ_CHECK((head.flags & THR_RECORD_GROUP) != 0, "the last commit is of no group");
    from = at + sizeof head + (((head.taken_count + head.freed_count) * 4 + 7) & ~7u);
    memcpy(&size, log + from, sizeof size);
    memcpy(&group, log + from + sizeof size, sizeof group);
    group.count = UINT32_MAX;
    memcpy(log + from + sizeof size, &group, sizeof group);
    memmove(log + from + sizeof size + size + MORE, log + from + sizeof size + size, end - from - sizeof size - size);
    memset(log + from + sizeof size + size, 0, MORE);
    size += MORE;
    memcpy(log + from, &size, sizeof size);
    head.bytes += MORE;
    memcpy(log + at, &head, sizeof head);
    seal_segment(log, end + MORE, false);
    archive_bytes = archive_replace(archive, archive_bytes, ROOM, &entry, log, end + MORE);
    free(log);
}

static void make_groups(void)
{
    static const char *const SQL[] = {
        "ATTACH 'b.db' AS b", "CREATE TABLE b.u(x)", ROW, "BEGIN", ROW, "INSERT INTO b.u VALUES(1)", "COMMIT", NULL};

    begin();
    die_after(T, "throng", SQL);
    for (int i = 0; i < 3; i++) {
        archive_bytes = 0;
        add_file(ARCHIVE_BASE, "", i < 2 ? "a.db" : "b.db");
        add_log(ARCHIVE_LOG, i < 2 ? "a.db-journal" : "b.db-journal", i == 0);
        add_log(ARCHIVE_OTHER, i < 2 ? "b.db-journal" : "a.db-journal", i == 2);
        save("segments", i == 0 ? "group-decided" : i == 1 ? "group-undecided" : "group-follower");
        if (i == 0) {
            make_group_large();
            save("segments", "group-large");
        }
    }
}

/* What is no directory of ours. The base is the fuzzer's own. */
static void make_strange(void)
{
    static const struct {
        const char *seed;
        enum archive_kind kind;
        const char *name, *text;
    } SEEDS[] = {
        {"notes", ARCHIVE_JOURNAL, "", "my notes"},
        {"empty-journal", ARCHIVE_JOURNAL, "", ""},
        {"letter", ARCHIVE_LOG, "letter.txt", "dear"},
        {"log-0", ARCHIVE_LOG, "log-0", "ThrgLog1"},
        {"log-1", ARCHIVE_LOG, "log-1",
         "ThrgLog1 and nothing else that anybody could read as the head of a segment, or "
         "as its runs of free pages"},
        {"log-01", ARCHIVE_LOG, "log-01", ""},
        {"log-huge", ARCHIVE_LOG, "log-99999999999999999999999", ""},
        {"log-large", ARCHIVE_LOG, "log-99999999999", "x"},
        {"log-word", ARCHIVE_LOG, "log-1x", "x"},
        {"log-folder", ARCHIVE_FOLDER, "log-1", ""},
        {"log-pipe", ARCHIVE_FIFO, "log-1", ""},
        {"log-link", ARCHIVE_LINK, "log-1", "log-2"},
        {"log-loop", ARCHIVE_LINK, "log-1", "log-1"},
        {"heap", ARCHIVE_LOG, "heap", "x"},
        {"heap-folder", ARCHIVE_FOLDER, "heap", ""},
        {"shm", ARCHIVE_LOG, "shm", "x"},
        {"shm-pipe", ARCHIVE_FIFO, "shm", ""},
        {"horizon", ARCHIVE_LOG, "horizon", "ThrgHor1"},
        {"horizon-folder", ARCHIVE_FOLDER, "horizon", ""},
        {"horizon-pipe", ARCHIVE_FIFO, "horizon", ""},
        {"scratch-folder", ARCHIVE_FOLDER, "scratch-1", ""},
        {"not-a-database", ARCHIVE_BASE, "", "hello"},
        {"stray-wal", ARCHIVE_WAL, "", "7\177\006\202"},
    };

    for (size_t i = 0; i < sizeof SEEDS / sizeof *SEEDS; i++) {
        begin();
        add_text(SEEDS[i].kind, SEEDS[i].name, SEEDS[i].text);
        save("journal", SEEDS[i].seed);
    }
}

/* The same database, with a first trunk page that is its own successor, and a header that believes in it. */
static void make_list_loop(void)
{
    size_t bytes;
    uint8_t *at = work_read("a.db", &bytes), *trunk;

    FUZZ_CHECK(at != NULL && at[35] > 1, "no free list");
    trunk = at + (size_t)(at[35] - 1) * 512;
    memcpy(trunk, at + 32, 4);
    memset(trunk + 4, 0, 4);
    memset(at + 36, 0x7f, 4);
    archive_bytes = 0;
    add(ARCHIVE_BASE, "", at, bytes, 0);
    free(at);
}

static void make_journals(void)
{
    static const char *const OURS[] = {ROW, FILL, ROW, NULL};
    static const char *const HOT[] = {"PRAGMA cache_size=1", "BEGIN", "UPDATE t SET b = hex(randomblob(300))", NULL};
    static const char *const DONE[] = {"PRAGMA journal_mode=PERSIST", ROW, NULL};
    static const char *const WAL[] = {"PRAGMA journal_mode=WAL", ROW, ROW, NULL};
    static const char *const NONE[] = {NULL};

    begin();
    die_after(T FILL, "throng", OURS);
    add_file(ARCHIVE_BASE, "", "a.db");
    add_log(ARCHIVE_LOG, "a.db-journal", true);
    add_text(ARCHIVE_LOG, "heap", "");
    add_text(ARCHIVE_LOG, "shm", "");
    save("journal", "ours");
    begin();
    die_after(T FILL, "unix", HOT);
    add_file(ARCHIVE_BASE, "", "a.db");
    add_file(ARCHIVE_JOURNAL, "", "a.db-journal");
    save("journal", "hot");
    begin();
    die_after(T FILL, "unix", DONE);
    add_file(ARCHIVE_BASE, "", "a.db");
    add_file(ARCHIVE_JOURNAL, "", "a.db-journal");
    save("journal", "persist");
    begin();
    die_after(T, "unix", WAL);
    add_file(ARCHIVE_BASE, "", "a.db");
    add_file(ARCHIVE_WAL, "", "a.db-wal");
    save("journal", "wal");
    begin();
    die_after(T FILL FILL "DELETE FROM t WHERE a % 2", "unix", NONE);
    add_file(ARCHIVE_BASE, "", "a.db");
    save("journal", "free-list");
    make_list_loop();
    save("journal", "free-list-loop");
    begin();
    save("journal", "nothing");
}

int main(int argc, char **argv)
{
    if (argc != 2 || realpath(argv[1], target) == NULL) {
        (void)fprintf(stderr, "usage: make-seeds tests/fuzz/seeds\n");
        return 2;
    }
    work_begin((size_t)64 << 20);
    work_input();
    if (chdir(work_directory()) != 0)
        return 1;
    make_segments();
    make_many_segments();
    make_groups();
    make_strange();
    make_journals();
    return 0;
}
