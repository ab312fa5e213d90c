/* Properties of recovery: the longest unbroken prefix of whole commits, whatever is left of the log.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "base.h"
#include "fault.h"
#include "home.h"
#include "horizon.h"
#include "log.h"
#include "page1.h"
#include "recover.h"
#include "throng.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

enum { CUTS_MAX = 4000, SEGMENTS_MAX = 16, KEYS = 17 };

static uint64_t seed;
static char dir[PATH_MAX / 8];

static void shell(const char *format, ...)
{
    char command[PATH_MAX];
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(command, sizeof command, format, ap);
    va_end(ap);
    if (system(command) != 0)
        fail_msg("%s", command);
}

static int setup(void **state)
{
    (void)state;
    seed = fault_environment_seed();
    fault_reset();
    fault_seed(seed);
    (void)snprintf(dir, sizeof dir, "%s/throng-recover-XXXXXX", place());
    print_message("replay: THRONG_SEED=%" PRIu64 " build/tests/test-recover\n", seed);
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    fault_reset();
    shell("rm -rf '%s'", dir);
    return 0;
}

static int after_each(void **state)
{
    (void)state;
    fault_reset();
    fault_seed(seed);
    shell("rm -rf '%s'/*", dir);
    return 0;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(fault_random() % n);
}

/* --- a database whose process died --- */

static void must(sqlite3 *db, const char *format, ...)
{
    va_list ap;
    char *sql;

    va_start(ap, format);
    sql = sqlite3_vmprintf(format, ap);
    va_end(ap);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        (void)fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
        _exit(1);
    }
    sqlite3_free(sql);
}

/* In a child process: the tables, `commits` transactions, and death. The first commit makes the tables; after it commit
 * n + 1 adds n to `log` and replaces one row of `data`. With `existing`, stock SQLite has made the tables already, with
 * free pages. */
static void make_crashed(int page_size, int commits, int blob, bool existing)
{
    static const char *const TABLES =
        "BEGIN; CREATE TABLE log(n INTEGER PRIMARY KEY); CREATE TABLE data(k INTEGER PRIMARY KEY, n, x); CREATE TABLE "
        "old(x); COMMIT";
    char path[PATH_MAX];
    sqlite3 *db;
    int status;
    pid_t child;

    (void)snprintf(path, sizeof path, "%s/a.db", dir);
    if ((child = fork()) == 0) {
        if (existing) {
            if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix") != SQLITE_OK)
                _exit(2);
            must(db, "PRAGMA page_size=%d; PRAGMA synchronous=OFF", page_size);
            must(db, TABLES);
            must(db, "INSERT INTO old SELECT zeroblob(%d) FROM json_each('[1,2,3,4,5,6,7,8,9]')", page_size * 20);
            must(db, "DELETE FROM old WHERE rowid %% 3 <> 0");
            sqlite3_close(db);
        }
        if (throng_register(0) != SQLITE_OK ||
            sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "throng") != SQLITE_OK)
            _exit(3);
        if (!existing) {
            must(db, "PRAGMA page_size=%d; PRAGMA synchronous=OFF", page_size);
            must(db, TABLES);
        }
        must(db, "PRAGMA synchronous=OFF");
        for (int n = 1; n <= commits; n++)
            must(db, "BEGIN; INSERT INTO log VALUES(%d); REPLACE INTO data VALUES(%d, %d, randomblob(%d)); COMMIT", n,
                 n % KEYS, n, n % 5 == 0 ? 1 : blob);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* --- what is in its log --- */

struct cut {
    uint64_t segment, at; /* where a record ends */
    uint64_t commits;     /* so many are whole then */
};

static struct cut cuts[CUTS_MAX];
static size_t cut_count;
static uint64_t segments[SEGMENTS_MAX], segment_ends[SEGMENTS_MAX];
static size_t segment_count;

static uint8_t *read_file(const char *path, size_t *bytes_out)
{
    struct stat st;
    uint8_t *at;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return NULL;
    assert_int_equal(fstat(fd, &st), 0);
    at = malloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, at, (size_t)st.st_size), st.st_size);
    (void)close(fd);
    *bytes_out = (size_t)st.st_size;
    return at;
}

static uint64_t identity; /* of the directory */

static void read_horizon(const char *name, struct thr_horizon *out)
{
    char journal[PATH_MAX];
    bool found;

    (void)snprintf(journal, sizeof journal, "%s/%s.db-journal", dir, name);
    assert_int_equal(thr_horizon_read(journal, &found, out), SQLITE_OK);
    assert_true(found);
}

static void read_log(void)
{
    struct thr_horizon horizon;
    char path[PATH_MAX];
    uint64_t commits = 0, seq = 0;

    read_horizon("a", &horizon);
    identity = horizon.identity;
    cut_count = segment_count = 0;
    for (uint64_t number = 0; number < 200; number++) {
        struct thr_segment_head head;
        struct thr_record_head record;
        uint64_t at;
        size_t bytes;
        uint8_t *file;

        (void)snprintf(path, sizeof path, "%s/a.db-journal/log-%" PRIu64, dir, number);
        if ((file = read_file(path, &bytes)) == NULL)
            continue;
        if (thr_segment_check(file, bytes, identity)) {
            memcpy(&head, file, sizeof head);
            if (seq == 0)
                seq = head.first_seq;
            assert_int_equal(head.first_seq, seq);
            at = head.records_at;
            for (;;) {
                assert_true(cut_count < CUTS_MAX);
                cuts[cut_count++] = (struct cut){number, at, commits};
                if (!thr_record_check(file + at, bytes - at, head.salt, seq))
                    break;
                memcpy(&record, file + at, sizeof record);
                at += record.bytes;
                seq++;
                commits++;
            }
            assert_true(segment_count < SEGMENTS_MAX);
            segments[segment_count] = number;
            segment_ends[segment_count++] = at;
        }
        free(file);
    }
}

/* --- what is there afterwards --- */

static sqlite3_int64 number_of(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    sqlite3_int64 value;

    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK || sqlite3_step(stmt) != SQLITE_ROW)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

/* Stock SQLite finds the file whole, and the database is as it was after so many of the child's transactions. */
static void assert_database(const char *path, uint64_t commits, bool existing)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    sqlite3_int64 rows = (sqlite3_int64)commits - (existing ? 0 : 1);

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, "unix"), SQLITE_OK);
    if (rows < 0) {
        assert_int_equal(number_of(db, "SELECT count(*) FROM sqlite_schema"), 0);
    } else {
        assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
        assert_string_equal((const char *)sqlite3_column_text(stmt, 0), "ok");
        sqlite3_finalize(stmt);
        assert_int_equal(number_of(db, "SELECT count(*) FROM log"), rows);
        assert_int_equal(number_of(db, "SELECT coalesce(max(n), 0) FROM log"), rows);
        assert_int_equal(number_of(db, "SELECT count(*) FROM data"), rows < KEYS ? rows : KEYS);
        assert_int_equal(
            number_of(db, "SELECT count(*) FROM data WHERE n <> (SELECT max(n) FROM log WHERE log.n % 17 = k)"), 0);
    }
    sqlite3_close(db);
}

/* Recover the copy named `name`. */
static int recover(const char *name, struct thr_recovery *out)
{
    char path[PATH_MAX], journal[PATH_MAX + 16];
    struct thr_base base = {.fd = -1, .writable = true};
    struct stat st;
    int rc;

    (void)snprintf(path, sizeof path, "%s/%s.db", dir, name);
    (void)snprintf(journal, sizeof journal, "%s-journal", path);
    assert_int_equal(thr_os_open(path, THR_OPEN_WRITE | THR_OPEN_CREATE, 0600, &base.fd, NULL), SQLITE_OK);
    assert_int_equal(fstat(base.fd, &st), 0);
    atomic_store(&base.bytes, st.st_size);
    rc = thr_recover_apply(journal, &base, out);
    thr_base_close(&base);
    thr_os_close(base.fd);
    return rc;
}

static void copy(const char *from, const char *to)
{
    shell("cd '%s' && rm -rf %s.db* && cp %s.db %s.db && mkdir %s.db-journal && cp %s.db-journal/log-* "
          "%s.db-journal/horizon %s.db-journal/",
          dir, to, from, to, to, from, from, to);
}

enum ending { CUT, ZEROS, GARBAGE };

/* The log of copy b ends at `at`; what follows in the segment is as said, and later segments are as they are. */
static void end_log(uint64_t segment, uint64_t at, enum ending ending)
{
    char path[PATH_MAX];
    uint8_t bytes[64];
    struct stat st;
    int fd;

    (void)snprintf(path, sizeof path, "%s/b.db-journal/log-%" PRIu64, dir, segment);
    assert_true((fd = open(path, O_RDWR | O_CLOEXEC)) >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(ftruncate(fd, (off_t)at), 0);
    if (ending != CUT)
        assert_int_equal(ftruncate(fd, st.st_size), 0);
    if (ending == GARBAGE) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)fault_random();
        assert_int_equal(pwrite(fd, bytes, sizeof bytes, (off_t)at), sizeof bytes);
    }
    (void)close(fd);
}

static int remove_directory(const char *journal)
{
    struct thr_home home;
    int rc = thr_home_take(journal, 0600, &home);

    assert_int_equal(rc, SQLITE_OK);
    rc = thr_home_remove(journal, &home);
    thr_home_let_go(&home, false);
    return rc;
}

static void assert_no_directory_left(const char *name)
{
    char journal[PATH_MAX];

    (void)snprintf(journal, sizeof journal, "%s/%s.db-journal", dir, name);
    assert_int_equal(remove_directory(journal), SQLITE_OK);
    assert_int_equal(access(journal, F_OK), -1);
}

/* Recover copy b, see that `commits` are there, and that a second recovery changes nothing. */
static void recover_and_check(uint64_t commits, bool existing)
{
    char path[PATH_MAX];
    struct thr_recovery out;
    uint8_t *once, *twice;
    size_t once_bytes, twice_bytes;

    (void)snprintf(path, sizeof path, "%s/b.db", dir);
    assert_int_equal(recover("b", &out), SQLITE_OK);
    assert_int_equal(out.commits, commits);
    once = read_file(path, &once_bytes);
    assert_int_equal(recover("b", &out), SQLITE_OK);
    twice = read_file(path, &twice_bytes);
    assert_int_equal(once_bytes, twice_bytes);
    assert_memory_equal(once, twice, once_bytes);
    free(once);
    free(twice);
    assert_no_directory_left("b");
    assert_database(path, commits, existing);
}

static void cut_everywhere(int page_size, int commits, int blob, bool existing, size_t boundaries, int random_cuts)
{
    uint64_t all;

    make_crashed(page_size, commits, blob, existing);
    read_log();
    all = cuts[cut_count - 1].commits;
    assert_int_equal(all, (uint64_t)commits + !existing);
    copy("a", "b");
    recover_and_check(all, existing);
    for (size_t i = 0; i < cut_count; i += 1 + cut_count / boundaries) {
        copy("a", "b");
        end_log(cuts[i].segment, cuts[i].at, i % 3);
        for (size_t k = 0; k < segment_count; k++) /* a full segment that ends where it ended goes on in the next */
            if (segments[k] > cuts[i].segment)
                shell("rm '%s'/b.db-journal/log-%" PRIu64, dir, segments[k]);
        recover_and_check(cuts[i].commits, existing);
    }
    for (int i = 0; i < random_cuts; i++) {
        size_t which = below((uint32_t)segment_count);
        uint64_t first = 0, at, whole = 0;

        for (size_t k = 0; k < cut_count; k++)
            if (cuts[k].segment == segments[which]) {
                first = cuts[k].at;
                break;
            }
        if (first == segment_ends[which])
            continue;
        at = first + below((uint32_t)(segment_ends[which] - first));
        for (size_t k = 0; k < cut_count && cuts[k].segment <= segments[which]; k++)
            if (cuts[k].segment < segments[which] || cuts[k].at <= at)
                whole = cuts[k].commits;
        copy("a", "b");
        end_log(segments[which], at, (enum ending)below(3));
        recover_and_check(whole, existing);
    }
}

/* Property (I5): wherever the log ends, at the end of a record or inside of one, whatever lies behind, exactly the whole
 * commits before that point are there, and recovering twice is recovering once. */
static void a_cut_log_yields_the_whole_commits_before(void **state)
{
    (void)state;
    cut_everywhere(4096, 40, 6000, false, 50, 40);
}

static void a_cut_log_on_an_existing_database(void **state)
{
    (void)state;
    cut_everywhere(512, 60, 900, true, 40, 30);
}

static void a_cut_log_at_the_largest_page_size(void **state)
{
    (void)state;
    cut_everywhere(65536, 20, 100000, false, 25, 15);
}

static void a_cut_log_of_several_segments(void **state)
{
    (void)state;
    cut_everywhere(4096, 150, 30000, true, 15, 15);
    assert_true(segment_count >= 2);
}

/* --- interruption --- */

static void copy_midway(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    copy("b", "c");
}

/* Property: a recovery that stopped at any record, with what it had written on disk in part only, may be run again and
 * ends as if it had not stopped. */
static void recovery_may_be_interrupted(void **state)
{
    char path[PATH_MAX], torn[PATH_MAX];
    struct thr_recovery out;
    uint64_t passages;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/b.db", dir);
    (void)snprintf(torn, sizeof torn, "%s/c.db", dir);
    make_crashed(1024, 60, 3000, true);
    read_log();
    copy("a", "b");
    fault_reset();
    assert_int_equal(recover("b", &out), SQLITE_OK);
    passages = fault_point_passages("recover");
    assert_int_equal(passages, out.commits);
    for (uint64_t n = 1; n <= passages; n += 5) {
        size_t before_bytes, after_bytes;
        uint8_t *before, *after;

        copy("a", "b");
        (void)snprintf(path, sizeof path, "%s/b.db", dir);
        before = read_file(path, &before_bytes);
        fault_reset();
        fault_seed(seed + n);
        assert_true(fault_call_at("recover", n, copy_midway, NULL) >= 0);
        assert_int_equal(recover("b", &out), SQLITE_OK);
        after = read_file(torn, &after_bytes);
        assert_non_null(after);
        for (size_t at = 0; at + 512 <= before_bytes && at + 512 <= after_bytes; at += 512)
            if (below(2) == 0) /* this sector never got to the disk */
                memcpy(after + at, before + at, 512);
        int fd = open(torn, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, after, after_bytes, 0), after_bytes);
        (void)close(fd);
        free(before);
        free(after);
        assert_int_equal(recover("c", &out), SQLITE_OK);
        assert_int_equal(out.commits, passages);
        assert_no_directory_left("c");
        assert_database(torn, passages, true);
    }
}

/* In a child process: a database that grew to its last commit, and death when its close has written all pages and said so. */
static void make_crashed_at_its_end(void)
{
    char path[PATH_MAX];
    sqlite3 *db;
    int status;
    pid_t child;

    if ((child = fork()) == 0) {
        (void)snprintf(path, sizeof path, "%s/a.db", dir);
        if (throng_register(0) != SQLITE_OK ||
            sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "throng") != SQLITE_OK)
            _exit(3);
        must(db, "CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(50000))");
        (void)fault_kill_at("closed", 1);
        sqlite3_close(db);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Property: of the last two writes to the file, which cut it to its size and take the mark off, a power cut may leave either
 * one. The pages are all kept, and nothing else. */
static void an_end_in_part_keeps_every_page(void **state)
{
    char path[PATH_MAX];
    uint8_t *whole = NULL;
    size_t whole_bytes = 0;

    (void)state;
    make_crashed_at_its_end();
    (void)snprintf(path, sizeof path, "%s/b.db", dir);
    for (int part = 0; part < 4; part++) { /* the first one is a process that dies */
        bool cut = (part & 1) != 0, unmarked = (part & 2) != 0;
        uint8_t page1[THR_P1_HEADER], *after;
        struct thr_recovery out;
        size_t bytes;
        int fd;

        copy("a", "b");
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(pread(fd, page1, sizeof page1, 0), sizeof page1);
        assert_true(thr_page1_unmark(page1));
        if (unmarked)
            assert_int_equal(pwrite(fd, page1, sizeof page1, 0), sizeof page1);
        if (cut)
            assert_int_equal(ftruncate(fd, (off_t)whole_bytes), 0);
        (void)close(fd);
        assert_int_equal(recover("b", &out), SQLITE_OK);
        after = read_file(path, &bytes);
        assert_non_null(after);
        assert_no_directory_left("b");
        if (part == 0) {
            sqlite3 *db;

            assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, "unix"), SQLITE_OK);
            assert_int_equal(number_of(db, "SELECT sum(length(x)) FROM t"), 50000);
            sqlite3_close(db);
            whole = after;
            whole_bytes = bytes;
            continue;
        }
        assert_int_equal(bytes, whole_bytes);
        assert_memory_equal(after, whole, bytes);
        free(after);
    }
    free(whole);
}

static int told;

static void count_progress(int code, const char *message)
{
    if (code == SQLITE_NOTICE && strstr(message, "recovering") != NULL && strstr(message, " of 0 MiB") != NULL)
        told++;
}

static void dawdle(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    (void)usleep(1100000);
}

/* Property: a recovery that takes long says how far it is; one that does not says nothing. */
static void a_long_recovery_tells_its_progress(void **state)
{
    struct thr_recovery out;

    (void)state;
    make_crashed(1024, 10, 300, true);
    thr_os_set_log(count_progress);
    for (int slow = 0; slow <= 1; slow++) {
        told = 0;
        copy("a", "b");
        fault_reset();
        if (slow)
            assert_true(fault_call_at("recover", 2, dawdle, NULL) >= 0);
        assert_int_equal(recover("b", &out), SQLITE_OK);
        assert_int_equal(told, slow);
    }
    thr_os_set_log(NULL);
}

/* Property: a recovery in which a call fails reports it, and the next one ends as if nothing had happened. */
static void recovery_survives_every_failing_call(void **state)
{
    char path[PATH_MAX];
    struct thr_recovery out;
    struct thr_horizon horizon;
    uint64_t hits;
    int rc;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/b.db", dir);
    make_crashed(4096, 20, 3000, true);
    for (uint64_t n = 2;; n++) { /* the first call opens the file in this test */
        copy("a", "b");
        fault_reset();
        fault_fail(FAULT_ANY_CALL, n, EIO);
        rc = recover("b", &out);
        hits = fault_hits();
        fault_reset();
        if (hits == 0) {
            assert_int_equal(rc, SQLITE_OK);
            break;
        }
        read_horizon("b", &horizon);
        assert_int_equal(recover("b", &out), SQLITE_OK);
        assert_int_equal(out.commits, horizon.closed ? 0 : 20); /* closed: all that failed was to take off the mark */
        assert_no_directory_left("b");
        assert_database(path, 20, true);
    }
}

/* Property: a directory with somebody else's file in it is not ours; one whose log begins with rubbish is damaged. */
static void a_foreign_or_damaged_directory_is_seen(void **state)
{
    char journal[PATH_MAX], name[100] = "";
    struct thr_recovery out;

    (void)state;
    (void)snprintf(journal, sizeof journal, "%s/b.db-journal", dir);
    make_crashed(4096, 3, 100, false);
    read_log();
    copy("a", "b");
    assert_int_equal(thr_recover_inspect(journal, name, sizeof name), SQLITE_OK);
    shell("touch '%s'/precious", journal);
    assert_int_equal(thr_recover_inspect(journal, name, sizeof name), SQLITE_CANTOPEN);
    assert_string_equal(name, "precious");
    assert_int_not_equal(remove_directory(journal), SQLITE_OK);
    shell("test -e '%s'/precious", journal);
    copy("a", "b");
    end_log(segments[0], 16, GARBAGE);
    assert_int_equal(recover("b", &out), SQLITE_CORRUPT);
}

/* Property (I8): whatever the head of a segment or a record says, if only its hashes are right, recovery ends, with the
 * state or an error, and never crashes. */
static void lies_with_right_hashes_do_not_crash(void **state)
{
    char path[PATH_MAX];

    (void)state;
    make_crashed(512, 12, 600, true);
    read_log();
    (void)snprintf(path, sizeof path, "%s/b.db-journal/log-%" PRIu64, dir, segments[0]);
    for (int round = 0; round < 200; round++) {
        static const uint32_t VALUES[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
        struct thr_segment_head head;
        struct thr_recovery out;
        uint32_t value = VALUES[below(6)];
        size_t bytes, where;
        uint8_t *file;
        pid_t child;
        int status, fd;

        copy("a", "b");
        file = read_file(path, &bytes);
        memcpy(&head, file, sizeof head);
        if (round % 2 == 0) {
            bool in_runs = below(2) == 0 && head.run_count > 0;

            where = in_runs ? sizeof head + 4 * below(head.run_count * 2) : (size_t[]){12, 40, 44, 48, 52}[below(5)];
            memcpy(file + where, &value, 4);
            memcpy(&head, file, sizeof head);
            if (in_runs)
                head.run_hash = XXH3_64bits(file + sizeof head, head.run_count * sizeof(struct thr_page_run));
            head.head_hash = XXH3_64bits_withSeed(&head, offsetof(struct thr_segment_head, head_hash), identity);
            memcpy(file, &head, sizeof head);
            if (below(2) == 0) /* and no record */
                memset(file + head.records_at, 0, 88);
        } else {
            struct thr_record_head record;
            uint8_t *at = file + cuts[below(12)].at;

            memcpy(&record, at, sizeof record);
            where = below(2) == 0 ? (size_t[]){4, 40, 44, 48, 52, 56, 60}[below(7)] : 88 + 4 * below(8);
            memcpy(at + where, &value, 4);
            record.body_hash = XXH3_64bits(at + sizeof record, record.bytes - sizeof record);
            memcpy(at + offsetof(struct thr_record_head, body_hash), &record.body_hash, 8);
            memcpy(&record, at, sizeof record);
            record.head_hash = XXH3_64bits(&record, offsetof(struct thr_record_head, head_hash));
            memcpy(at, &record, sizeof record);
        }
        fd = open(path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, file, bytes, 0), bytes);
        (void)close(fd);
        free(file);
        if ((child = fork()) == 0) {
            (void)signal(SIGSEGV, SIG_DFL); /* as it was before the test library took it */
            (void)signal(SIGBUS, SIG_DFL);
            (void)signal(SIGABRT, SIG_DFL);
            (void)setrlimit(RLIMIT_CPU, &(struct rlimit){20, 20});
            (void)signal(SIGXFSZ, SIG_IGN);
            (void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){64 << 20, 64 << 20}); /* no terabytes, please */
            (void)recover("b", &out);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status != 0)
            fail_msg("status %x after round %d: value %x at offset %zu", (unsigned)status, round, value, where);
    }
}

/* In a child process: a commit of two databases, and death when the first one has it and the second one waits to be told. */
static void make_crashed_group(void)
{
    char path[PATH_MAX];
    sqlite3 *db;
    int status;
    pid_t child;

    if ((child = fork()) == 0) {
        (void)snprintf(path, sizeof path, "%s/a.db", dir);
        if (throng_register(0) != SQLITE_OK ||
            sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "throng") != SQLITE_OK)
            _exit(3);
        must(db, "ATTACH '%s/b.db' AS other; CREATE TABLE main.t(x); CREATE TABLE other.t(x)", dir);
        (void)fault_kill_at("decided", 1);
        must(db, "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO other.t VALUES(1); COMMIT");
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Property (I5): a commit of two databases is recovered in both, whichever is recovered first, and if a call fails then. */
static void a_failing_call_does_not_halve_a_commit(void **state)
{
    struct thr_recovery out;

    (void)state;
    make_crashed_group();
    shell("cd '%s' && mkdir saved && cp -r a.db* b.db* saved && rm -f saved/*/heap saved/*/shm", dir);
    for (int second = 0; second < 2; second++) {
        const char *const order[] = {second ? "b" : "a", second ? "a" : "b"};
        uint64_t hits = 1;

        for (uint64_t n = 2; hits > 0; n++) { /* the first call opens the file in this test */
            shell("cd '%s' && rm -rf *.db* && cp -r saved/* .", dir);
            fault_reset();
            fault_fail(FAULT_ANY_CALL, n, EIO);
            (void)recover(order[0], &out);
            hits = fault_hits();
            fault_reset();
            for (int i = 0; i < 2; i++) {
                assert_int_equal(recover(order[i], &out), SQLITE_OK);
                shell("rm -rf '%s/%s.db-journal'", dir, order[i]);
            }
            for (int i = 0; i < 2; i++) {
                char path[PATH_MAX];
                sqlite3 *db;

                (void)snprintf(path, sizeof path, "%s/%s.db", dir, order[i]);
                assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
                assert_int_equal(number_of(db, "SELECT count(*) FROM t"), 1);
                sqlite3_close(db);
            }
        }
    }
}

/* Property (I8): so do those about the sequence that a segment begins with. */
static void sequences_that_cannot_be_are_refused(void **state)
{
    static const uint64_t FIRST[] = {0, UINT64_C(1) << 47, UINT64_MAX};
    char path[PATH_MAX];

    (void)state;
    make_crashed(512, 3, 100, true);
    read_log();
    (void)snprintf(path, sizeof path, "%s/b.db-journal/log-%" PRIu64, dir, segments[0]);
    for (size_t i = 0; i < sizeof FIRST / sizeof *FIRST; i++) {
        struct thr_segment_head head;
        struct thr_recovery out;
        size_t bytes;
        uint8_t *file;
        int fd;

        copy("a", "b");
        file = read_file(path, &bytes);
        memcpy(&head, file, sizeof head);
        head.first_seq = FIRST[i];
        head.head_hash = XXH3_64bits_withSeed(&head, offsetof(struct thr_segment_head, head_hash), identity);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, &head, sizeof head, 0), sizeof head);
        (void)close(fd);
        free(file);
        assert_int_equal(recover("b", &out), SQLITE_CORRUPT);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_cut_log_yields_the_whole_commits_before, after_each),
        cmocka_unit_test_teardown(a_cut_log_on_an_existing_database, after_each),
        cmocka_unit_test_teardown(a_cut_log_at_the_largest_page_size, after_each),
        cmocka_unit_test_teardown(a_cut_log_of_several_segments, after_each),
        cmocka_unit_test_teardown(recovery_may_be_interrupted, after_each),
        cmocka_unit_test_teardown(an_end_in_part_keeps_every_page, after_each),
        cmocka_unit_test_teardown(a_long_recovery_tells_its_progress, after_each),
        cmocka_unit_test_teardown(recovery_survives_every_failing_call, after_each),
        cmocka_unit_test_teardown(a_foreign_or_damaged_directory_is_seen, after_each),
        cmocka_unit_test_teardown(lies_with_right_hashes_do_not_crash, after_each),
        cmocka_unit_test_teardown(a_failing_call_does_not_halve_a_commit, after_each),
        cmocka_unit_test_teardown(sequences_that_cannot_be_are_refused, after_each),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, setup, teardown);
}
