/* A disk that is really full, in a mount of the test's own: commits say so, nothing that was committed is lost, writing goes
 * on when there is room, and the file can be completed, by the last close or by recovery, with the space that only the heap
 * took. Needs root, and a kernel that lets it mount.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CANNOT_MOUNT = 77, ROW = 50000 };

static char place[PATH_SIZE], path[2 * PATH_SIZE], filler[2 * PATH_SIZE];

/* Nobody outside of this process sees the mount, and it ends with it. */
static void mount_small_disk(void)
{
    (void)path_new(place, "disk");
    if (mkdtemp(strcat(place, "XXXXXX")) == NULL || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("none", place, "tmpfs", 0, "size=16m") != 0)
        _exit(CANNOT_MOUNT);
    (void)snprintf(path, sizeof path, "%s/full.db", place);
    (void)snprintf(filler, sizeof filler, "%s/filler", place);
}

/* Take all the space that is left. */
static void fill(void)
{
    static const char BYTES[4096];
    int fd = open(filler, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    CHECK(fd >= 0);
    while (write(fd, BYTES, sizeof BYTES) > 0)
        ;
    CHECK_EQUAL(close(fd), 0);
}

static int64_t insert_until_full(sqlite3 *db)
{
    int64_t done = db_int(db, "SELECT count(*) FROM t");
    int rc;

    while ((rc = db_try(db, "INSERT INTO t(b) VALUES(randomblob(%d))", ROW)) == SQLITE_OK)
        done++;
    CHECK_EQUAL(rc, SQLITE_FULL);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), done);
    return done;
}

static sqlite3 *open_it(void)
{
    sqlite3 *db = db_open(path);

    db_exec(db, "PRAGMA synchronous=NORMAL; CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)");
    return db;
}

static void closed_when_full(void *arg)
{
    sqlite3 *db;
    int64_t rows;

    (void)arg;
    mount_small_disk();
    db = open_it();
    rows = insert_until_full(db);
    fill();
    CHECK_EQUAL(db_try(db, "INSERT INTO t(b) VALUES(randomblob(3000000))"), SQLITE_FULL);
    (void)db_try(db, "PRAGMA wal_checkpoint");
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE length(b) = %d", ROW), rows);
    db_close(db);
    oracle_check(path); /* what only the heap took was enough */
    db = db_stock(path);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), rows);
    db_close(db);
}

static void goes_on_when_there_is_room(void *arg)
{
    sqlite3 *db;
    int64_t rows;
    int rc;

    (void)arg;
    mount_small_disk();
    db = open_it();
    for (int i = 0; i < 20; i++)
        db_exec(db, "INSERT INTO t(b) VALUES(randomblob(%d))", ROW);
    fill();
    rows = insert_until_full(db);
    rc = db_try(db, "PRAGMA wal_checkpoint(TRUNCATE)"); /* what it gives back itself may be enough */
    CHECK(rc == SQLITE_OK || rc == SQLITE_FULL);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), rows);
    CHECK_EQUAL(unlink(filler), 0);
    for (int i = 0; i < 20; i++, rows++)
        db_exec(db, "INSERT INTO t(b) VALUES(randomblob(%d))", ROW);
    db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), rows);
    db_close(db);
    oracle_check(path);
}

static void write_and_die(void *arg)
{
    (void)arg;
    (void)insert_until_full(open_it());
    fill();
    _exit(0);
}

static void recovered_when_full(void *arg)
{
    sqlite3 *db;

    (void)arg;
    mount_small_disk();
    child_run(write_and_die, NULL);
    db = db_open(path);
    CHECK(db_int(db, "SELECT count(*) FROM t WHERE length(b) = %d", ROW) > 20);
    db_close(db);
    oracle_check(path);
}

static void run(void (*function)(void *arg))
{
    int status;

    support_needs_root();
    support_needs_throng();
    status = child_status(child_start(function, NULL));
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_MOUNT)
        skip();
    CHECK_EQUAL(status, 0);
}

static void a_close_completes_the_file(void **state)
{
    (void)state;
    run(closed_when_full);
}

static void writing_goes_on_when_there_is_room(void **state)
{
    (void)state;
    run(goes_on_when_there_is_room);
}

static void recovery_completes_the_file(void **state)
{
    (void)state;
    run(recovered_when_full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_close_completes_the_file),
        cmocka_unit_test(writing_goes_on_when_there_is_room),
        cmocka_unit_test(recovery_completes_the_file),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
