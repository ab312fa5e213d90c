/* A file and the log beside it are put together only if they belong together, in the states that both are in. Else the
 * database is refused and nothing is touched.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ACCOUNTS = 40, START = 1000, COPIES = 40, LATER = 1500, CHUNK = 16384, NAMES = 64 };

static char path[PATH_SIZE], journal[PATH_SIZE], uri[2 * PATH_SIZE];

static void name_database(const char *name)
{
    (void)path_new(path, name);
    (void)path_beside(journal, path, "-journal");
    (void)snprintf(uri, sizeof uri, "file:%s?checkpoint_bytes=30000", path);
}

static sqlite3 *open_small(void)
{
    sqlite3 *db;

    CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
    CHECK_OK(sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS), db);
    return db;
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...)
{
    char command[8 * PATH_SIZE];
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(command, sizeof command, format, ap);
    va_end(ap);
    if (system(command) != 0)
        check_failed(__FILE__, __LINE__, "%s", command);
}

static void make_bank(sqlite3 *db)
{
    db_exec(db, "BEGIN; CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, pad); CREATE TABLE counter(n);"
                "INSERT INTO counter VALUES(0)");
    for (int i = 0; i < ACCOUNTS; i++)
        db_exec(db, "INSERT INTO account VALUES(%d, %d, zeroblob(900))", i, START);
    db_exec(db, "COMMIT");
}

/* The total stays, the counter counts commits; now and then the file grows, or shrinks. */
static void pay(sqlite3 *db, struct prng *prng)
{
    db_exec(db, "BEGIN IMMEDIATE");
    db_exec(db, "UPDATE account SET balance = balance - 1, pad = randomblob(900) WHERE id = %d",
            prng_below(prng, ACCOUNTS));
    if (prng_chance(prng, 20))
        db_exec(db, "INSERT INTO account SELECT NULL, 0, zeroblob(900) FROM account LIMIT 30");
    if (prng_chance(prng, 25))
        db_exec(db, "DELETE FROM account WHERE id >= %d AND balance = 0", ACCOUNTS);
    db_exec(db, "UPDATE account SET balance = balance + 1 WHERE id = %d", prng_below(prng, ACCOUNTS));
    db_exec(db, "UPDATE counter SET n = n + 1");
    db_exec(db, "COMMIT");
}

static _Atomic int stop;

static void keep_paying(void *arg)
{
    static const char *const LEVELS[] = {"OFF", "OFF", "NORMAL", "FULL"};
    struct prng prng = prng_new((uint64_t)(intptr_t)arg);
    sqlite3 *db = open_small();

    while (!stop && !check_any_failed()) {
        db_exec(db, "PRAGMA synchronous=%s", LEVELS[prng_below(&prng, 4)]);
        for (int i = 0; i < 20; i++)
            pay(db, &prng);
    }
    db_close(db);
}

/* --- a copy from front to back, a chunk at a time --- */

struct copy {
    int from, to;
    off_t at;
    bool done;
};

static void copy_begin(struct copy *copy, const char *from, const char *to)
{
    *copy = (struct copy){.from = open(from, O_RDONLY | O_CLOEXEC)};
    copy->done = copy->from < 0; /* it has gone meanwhile */
    copy->to = copy->done ? -1 : open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void copy_some(struct copy *copy)
{
    char bytes[CHUNK];
    ssize_t got;

    if (copy->done)
        return;
    got = pread(copy->from, bytes, sizeof bytes, copy->at);
    CHECK(got >= 0);
    CHECK_EQUAL(pwrite(copy->to, bytes, (size_t)got, copy->at), got);
    copy->at += got;
    if (got == 0 || copy->at > 4 << 20) { /* a segment of the log is long, and mostly empty */
        copy->done = true;
        (void)close(copy->from);
        (void)close(copy->to);
    }
}

static int list_directory(char names[NAMES][64])
{
    struct dirent *entry;
    DIR *directory = opendir(journal);
    int count = 0;

    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL && count < NAMES)
        if (strncmp(entry->d_name, "log-", 4) == 0 || strcmp(entry->d_name, "horizon") == 0)
            (void)snprintf(names[count++], 64, "%.60s", entry->d_name);
    (void)closedir(directory);
    return count;
}

/* The files of the directory in random order; between two of them, if `file` is given, a piece of that. */
static void copy_directory(const char *to, struct prng *prng, struct copy *file)
{
    char names[NAMES][64], from[2 * PATH_SIZE], target[2 * PATH_SIZE];
    int count = list_directory(names);
    struct copy copy;

    (void)snprintf(target, sizeof target, "%s-journal", to);
    CHECK_EQUAL(mkdir(target, 0700), 0);
    for (; count > 0; count--) {
        int which = prng_below(prng, count);

        (void)snprintf(from, sizeof from, "%s/%s", journal, names[which]);
        (void)snprintf(target, sizeof target, "%s-journal/%s", to, names[which]);
        copy_begin(&copy, from, target);
        while (!copy.done) {
            copy_some(&copy);
            if (file != NULL && prng_chance(prng, 4))
                copy_some(file);
        }
        memmove(names[which], names[count - 1], sizeof names[0]);
    }
}

static void copy_live(const char *to, int order, struct prng *prng)
{
    struct copy file;

    if (order == 1)
        copy_directory(to, prng, NULL);
    if (order == 1 && prng_chance(prng, 2))
        sleep_ms(prng_below(prng, 20));
    copy_begin(&file, path, to);
    if (order == 2)
        copy_directory(to, prng, &file);
    while (!file.done) {
        copy_some(&file);
        if (prng_chance(prng, 8))
            sleep_ms(prng_below(prng, 5));
    }
    if (order == 0) {
        if (prng_chance(prng, 2))
            sleep_ms(prng_below(prng, 20));
        copy_directory(to, prng, NULL);
    }
}

/* Property: whatever is copied of a database in use, in whatever order, Throng recovers a state that was committed, or
 * refuses it and says how to copy a live database. */
static void a_live_copy_is_exact_or_refused(void **state)
{
    struct prng prng = prng_new(1);
    int exact = 0, refused = 0;
    char to[PATH_SIZE];
    sqlite3 *db;

    (void)state;
    name_database("live");
    db = open_small();
    make_bank(db);
    stop = 0;
    thread_start(keep_paying, (void *)2);
    for (int i = 0; i < scaled(COPIES) && !check_any_failed(); i++) {
        sqlite3 *copy = NULL;
        int rc;

        (void)path_new(to, "copy");
        copy_live(to, i % 3, &prng);
        log_clear();
        rc = db_try_open(to, SQLITE_OPEN_READWRITE, "throng", &copy);
        if (rc != SQLITE_OK) {
            CHECK(rc == SQLITE_CANTOPEN || rc == SQLITE_CORRUPT);
            CHECK(log_contains("throng: "));
            refused++;
        } else {
            if (db_int(copy, "SELECT count(*) FROM sqlite_schema") > 0)
                CHECK_EQUAL(db_int(copy, "SELECT sum(balance) FROM account"), ACCOUNTS * START);
            db_close(copy);
            oracle_check(to);
            exact++;
        }
        shell("rm -rf '%s' '%s-journal'", to, to);
    }
    stop = 1;
    threads_join();
    db_close(db);
    oracle_check(path);
    printf("%d copies recovered, %d refused\n", exact, refused);
}

/* --- what does not belong together --- */

static void die_after(void *arg)
{
    struct prng prng = prng_new(3);
    sqlite3 *db = open_small();

    if (db_int(db, "SELECT count(*) FROM sqlite_schema") == 0)
        make_bank(db);
    db_exec(db, "PRAGMA synchronous=OFF");
    for (int i = 0; i < *(const int *)arg; i++)
        pay(db, &prng);
    shell("rm -rf '%s-then' && mkdir '%s-then' && cp -r '%s' '%s' '%s-then'", path, path, path, journal, path);
    for (int i = 0; i < LATER; i++)
        pay(db, &prng);
    (void)kill(getpid(), SIGKILL);
}

static void put_back(void)
{
    shell("rm -rf '%s' '%s' && cp -r '%s-kept'/* $(dirname '%s')", path, journal, path, path);
}

static void refused(const char *what)
{
    sqlite3 *db = NULL;
    char before[PATH_SIZE];
    int rc;

    (void)path_beside(before, path, "-before");
    shell("rm -rf '%s' && mkdir '%s' && cp -r '%s' '%s' '%s'", before, before, path, journal, before);
    log_clear();
    rc = db_try_open(path, SQLITE_OPEN_READWRITE, "throng", &db);
    if (rc != SQLITE_CANTOPEN && rc != SQLITE_CORRUPT)
        check_failed(__FILE__, __LINE__, "%s: opened with %d", what, rc);
    if (!log_contains("nothing is touched"))
        check_failed(__FILE__, __LINE__, "%s: no reason was given", what);
    shell("cmp '%s' '%s/'$(basename '%s') && diff -r '%s' '%s/'$(basename '%s')", path, before, path, journal, before,
          journal);
}

/* Property: a piece that is lost, or of another moment, or of another database, is noticed. */
static void what_does_not_belong_together_is_refused(void **state)
{
    int pays = LATER, status;
    char other[PATH_SIZE];
    sqlite3 *db;

    (void)state;
    name_database("other");
    status = child_status(child_start(die_after, &pays));
    CHECK_EQUAL(status, SIGKILL);
    (void)snprintf(other, sizeof other, "%s", path);
    name_database("pieces");
    status = child_status(child_start(die_after, &pays));
    CHECK_EQUAL(status, SIGKILL);
    shell("mkdir '%s-kept' && cp -r '%s' '%s' '%s-kept'", path, path, journal, path);

    shell("rm '%s'/horizon", journal);
    refused("no horizon");
    put_back();
    shell("cd '%s' && rm $(ls log-* | sort -t- -k2 -n | while read f; do [ $(head -c 8 $f | tr -d '\\0' | wc -c) = 8 ] "
          "&& "
          "echo $f && break; done)",
          journal);
    refused("no first segment");
    put_back();
    shell("cp '%s-then'/$(basename '%s') '%s'", path, path, path);
    refused("an older file");
    put_back();
    shell("rm -rf '%s' && cp -r '%s-then'/$(basename '%s') '%s'", journal, path, journal, journal);
    refused("an older log");
    put_back();
    shell("cp '%s' '%s'", other, path);
    refused("another file");
    put_back();
    shell("rm -f '%s' && mv '%s' '%s-aside'", path, journal, journal);
    db = db_stock(path);
    db_exec(db, "CREATE TABLE x(y)");
    db_close(db);
    shell("mv '%s-aside' '%s'", journal, journal);
    refused("a file of stock SQLite");
    put_back();
    db = db_open(path);
    CHECK_EQUAL(db_int(db, "SELECT sum(balance) FROM account"), ACCOUNTS * START);
    CHECK_EQUAL(db_int(db, "SELECT n FROM counter"), 2 * LATER);
    db_close(db);
    oracle_check(path);
}

/* --- while it is open --- */

/* Property: a directory that is deleted while the database is in use is noticed, and the close brings all commits to the
 * file. */
static void a_lost_directory_loses_nothing(void **state)
{
    struct prng prng = prng_new(4);
    sqlite3 *db;
    int64_t n;

    (void)state;
    for (int all = 0; all <= 1; all++) {
        name_database("lost");
        db = open_small();
        make_bank(db);
        for (int i = 0; i < 50; i++)
            pay(db, &prng);
        n = db_int(db, "SELECT n FROM counter");
        shell(all ? "rm -r '%s'" : "rm '%s'/log-*", journal);
        sleep_ms(20);
        log_clear();
        db_expect(db, SQLITE_READONLY_DBMOVED, "UPDATE counter SET n = n + 1");
        CHECK(log_contains("moved or deleted"));
        db_close(db);
        oracle_check(path);
        db = db_stock(path);
        CHECK_EQUAL(db_int(db, "SELECT n FROM counter"), n);
        db_close(db);
    }
}

/* Property: a file that takes the place of one in use is never put together with the other's log, nor loses its own
 * directory to the other's close. */
static void a_replaced_file_is_left_alone(void **state)
{
    struct prng prng = prng_new(5);
    char away[PATH_SIZE];
    sqlite3 *db, *second = NULL;

    (void)state;
    name_database("replaced");
    (void)path_beside(away, path, "-away");
    db = open_small();
    make_bank(db);
    CHECK_EQUAL(rename(path, away), 0);
    CHECK_EQUAL(db_try_open(path, SQLITE_OPEN_READWRITE, "throng", &second), SQLITE_CANTOPEN);
    file_write(path, "", 0);
    CHECK_EQUAL(db_try_open(path, SQLITE_OPEN_READWRITE, "throng", &second), SQLITE_BUSY);
    shell("mv '%s' '%s-away'", journal, journal);
    second = open_small();
    make_bank(second);
    sleep_ms(20);
    db_expect(db, SQLITE_READONLY_DBMOVED, "UPDATE counter SET n = n + 1");
    db_close(db);
    for (int i = 0; i < 50; i++)
        pay(second, &prng);
    CHECK(file_exists(journal));
    db_close(second);
    oracle_check(path);
    oracle_check(away);
}

static void die_at_once(void *arg)
{
    sqlite3 *db = open_small();

    if (*(const int *)arg)
        make_bank(db);
    (void)kill(getpid(), SIGKILL);
}

/* Property: a new database is never a file that stock SQLite reads as empty once a commit was acknowledged; one without a
 * commit is an empty file again. */
static void a_new_database_is_never_read_as_empty(void **state)
{
    char alone[PATH_SIZE];
    sqlite3 *db;

    (void)state;
    for (int committed = 0; committed <= 1; committed++) {
        name_database("new");
        CHECK_EQUAL(child_status(child_start(die_at_once, &committed)), SIGKILL);
        if (committed) {
            file_copy(path, path_new(alone, "alone"));
            db = NULL;
            CHECK_OK(db_try_open(alone, SQLITE_OPEN_READONLY, "unix", &db), db);
            db_expect(db, SQLITE_NOTADB, "SELECT count(*) FROM sqlite_schema");
            db_close(db);
            CHECK_EQUAL(db_try_open(alone, SQLITE_OPEN_READWRITE, "throng", &db), SQLITE_CANTOPEN);
        }
        db = db_open(path);
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM sqlite_schema"), committed ? 2 : 0);
        db_close(db);
        CHECK_EQUAL(file_size(path) > 0, committed);
        CHECK(!file_exists(journal));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_live_copy_is_exact_or_refused),
        cmocka_unit_test(what_does_not_belong_together_is_refused),
        cmocka_unit_test(a_lost_directory_loses_nothing),
        cmocka_unit_test(a_replaced_file_is_left_alone),
        cmocka_unit_test(a_new_database_is_never_read_as_empty),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
