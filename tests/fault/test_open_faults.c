/* Property: whichever one call fails while a database is opened, read and closed, nothing is lost, nothing is taken for
 * absent that could not be looked at, and nothing is removed or made that is not Throng's: what the next open must refuse is
 * still there, byte for byte, and what it must find is found.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 5 };

static char path[PATH_SIZE], journal[PATH_SIZE];

static uint64_t hash_file(uint64_t hash, const char *name)
{
    static char bytes[1 << 16];
    char target[PATH_SIZE] = "";
    struct stat st;
    size_t got;
    FILE *file;

    if (lstat(name, &st) != 0)
        return hash;
    hash = hash_bytes(hash, name, strlen(name));
    hash = hash_bytes(hash, &st.st_mode, sizeof st.st_mode);
    if (S_ISLNK(st.st_mode))
        return readlink(name, target, sizeof target - 1) < 0 ? 0 : hash_bytes(hash, target, strlen(target));
    if (S_ISREG(st.st_mode) && (file = fopen(name, "rb")) != NULL) {
        while ((got = fread(bytes, 1, sizeof bytes, file)) > 0)
            hash = hash_bytes(hash, bytes, got);
        (void)fclose(file);
    }
    return hash;
}

/* The database and what stands beside it: names, kinds, rights and content. */
static uint64_t tree(void)
{
    static const char *const NAMES[] = {"log-1", "horizon", "shm", "heap", "mine", "lock"};
    uint64_t hash = hash_file(hash_file(1, path), journal);
    char name[2 * PATH_SIZE];

    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", journal, NAMES[i]);
        hash = hash_file(hash, name);
    }
    return hash;
}

static void write_file(const char *name, size_t bytes, char byte)
{
    FILE *file = fopen(name, "wb");

    CHECK(file != NULL);
    while (bytes-- > 0)
        CHECK(fputc(byte, file) != EOF);
    CHECK_EQUAL(fclose(file), 0);
}

static void write_mine(void)
{
    char name[PATH_SIZE + 8];

    (void)snprintf(name, sizeof name, "%s/mine", journal);
    write_file(name, 10, 'm');
}

/* --- what there may be at open --- */

static void fill(sqlite3 *db)
{
    db_exec(db, "CREATE TABLE t(a)");
    for (int i = 0; i < ROWS; i++)
        db_exec(db, "INSERT INTO t VALUES(%d)", i);
}

static void plain(void)
{
    sqlite3 *db = db_open(path);

    fill(db);
    db_close(db);
}

static void fill_and_die(void *arg)
{
    (void)arg;
    fill(db_open(path));
    (void)kill(getpid(), SIGKILL);
}

static void crashed(void)
{
    CHECK(WIFSIGNALED(child_status(child_start(fill_and_die, NULL))));
}

static void orphan(void)
{
    crashed();
    CHECK_EQUAL(unlink(path), 0);
}

static void foreign_file_inside(void)
{
    crashed();
    write_mine();
}

static void foreign_directory(void)
{
    plain();
    CHECK_EQUAL(mkdir(journal, 0755), 0);
    write_mine();
}

static void foreign_journal(void)
{
    plain();
    write_file(journal, 10, 'm');
}

static void linked_directory(void)
{
    char elsewhere[PATH_SIZE];

    crashed();
    (void)path_new(elsewhere, "elsewhere");
    CHECK_EQUAL(rename(journal, elsewhere), 0);
    CHECK_EQUAL(symlink(elsewhere, journal), 0);
}

static void finished_journal(void) /* as journal_mode=PERSIST leaves it */
{
    plain();
    write_file(journal, 1024, '\0');
}

struct situation {
    const char *name;
    void (*make)(void);
    bool opens;
};

/* The code of opening and reading; on SQLITE_OK all rows were there. */
static int try_open(void)
{
    sqlite3 *db = NULL;
    int64_t rows = 0;
    int rc = db_try_open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, db_vfs(), &db);

    if (rc == SQLITE_OK)
        rc = db_try_int(db, &rows, "SELECT count(*) FROM t");
    if (rc == SQLITE_OK)
        CHECK_EQUAL(rows, ROWS);
    if (db != NULL)
        CHECK_EQUAL(sqlite3_close(db), SQLITE_OK);
    return rc;
}

static uint64_t fail_call(const struct situation *situation, uint64_t n, int err, uint64_t before)
{
    struct fault_rule rule = {FAULT_ANY_CALL, NULL, n, 1, 1, err};
    uint64_t hits;
    int rc;

    if (situation->opens && situation->make != plain) {
        CHECK_EQUAL(unlink(path), 0);
        situation->make();
    }
    fault_reset();
    CHECK(fault_add(&rule) >= 0);
    rc = try_open();
    hits = fault_hits();
    fault_reset();
    if (situation->opens) {
        CHECK(rc == SQLITE_OK || hits > 0);
        CHECK_EQUAL(try_open(), SQLITE_OK);
        oracle_check(path);
    } else if (tree() != before || (rc == SQLITE_OK && err != EACCES)) { /* EACCES: it may be opened for reading */
        check_failed(__FILE__, __LINE__, "%s: call %llu fails with %d: code %d, or something was changed",
                     situation->name, (unsigned long long)n, err, rc);
    }
    return hits;
}

static void one_call_fails(const struct situation *situation)
{
    static const int ERRORS[] = {ENOMEM, EACCES};
    uint64_t before, n;

    (void)path_beside(journal, path_new(path, situation->name), "-journal");
    situation->make();
    before = tree();
    if (situation->opens)
        CHECK_EQUAL(try_open(), SQLITE_OK);
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) {
        for (n = 1; fail_call(situation, n, ERRORS[i], before) > 0; n++)
            ;
        CHECK(n > 3);
    }
}

static void situation_test(void **state)
{
    support_needs_throng();
    one_call_fails(*state);
}

/* The directory is not made, or cannot be filled: that is said, with its name, and nothing of it is left. */
static void no_room_for_the_directory(void **state)
{
    struct fault_rule rules[] = {{THR_OS_MKDIR, NULL, 1, 1, 1, ENOSPC}, {THR_OS_ALLOCATE, NULL, 1, 1, 1, ENOSPC}};

    (void)state;
    support_needs_throng();
    (void)path_beside(journal, path_new(path, "room"), "-journal");
    plain();
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        log_clear();
        fault_reset();
        CHECK(fault_add(&rules[i]) >= 0);
        CHECK_EQUAL(try_open(), SQLITE_FULL);
        fault_reset();
        CHECK(i > 0 || log_contains(journal));
        CHECK_EQUAL(access(journal, F_OK), -1);
        oracle_check(path);
    }
}

/* What appears in the directory's place at the last moment is not removed. */
static void a_directory_that_was_not_made_is_not_removed(void **state)
{
    struct fault_rule rule = {THR_OS_STAT, "-journal", 1, FAULT_FOREVER, 1, ENOENT};

    (void)state;
    support_needs_throng();
    (void)path_beside(journal, path_new(path, "appeared"), "-journal");
    plain();
    CHECK_EQUAL(mkdir(journal, 0755), 0);
    fault_reset();
    CHECK(fault_add(&rule) >= 0);
    CHECK_EQUAL(try_open(), SQLITE_BUSY);
    fault_reset();
    CHECK_EQUAL(rmdir(journal), 0);
    oracle_check(path);
}

#define SITUATION(function, opens)                                                                         \
    {                                                                                                      \
        .name = #function, .test_func = situation_test, .initial_state = (void *)&(const struct situation) \
        {                                                                                                  \
#function, function, opens                                                                     \
        }                                                                                                  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITUATION(plain, true),
        SITUATION(crashed, true),
        SITUATION(finished_journal, true),
        SITUATION(orphan, false),
        SITUATION(foreign_file_inside, false),
        SITUATION(foreign_directory, false),
        SITUATION(foreign_journal, false),
        SITUATION(linked_directory, false),
        cmocka_unit_test(no_room_for_the_directory),
        cmocka_unit_test(a_directory_that_was_not_made_is_not_removed),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
