/* Property: a database that takes long to open, or to close, holds up nobody but those who want the same one; and a child
 * that is forked off meanwhile keeps nothing of it.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "support.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[PATH_SIZE], other[PATH_SIZE];
static _Atomic bool held, let_go;
static _Atomic int done;

/* One thread stays at a point until the test lets it go. */
static void hold(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    held = true;
    while (!let_go && !check_any_failed())
        sleep_ms(1);
}

static void hold_at(const char *point)
{
    held = let_go = false;
    done = 0;
    fault_reset();
    CHECK(fault_call_at(point, 1, hold, NULL) >= 0);
}

static void wait_until_held(void)
{
    while (!held && !check_any_failed())
        sleep_ms(1);
    CHECK(held);
}

static void fill(sqlite3 *db)
{
    db_exec(db, "CREATE TABLE IF NOT EXISTS t(a)");
    for (int i = 0; i < 10; i++)
        db_exec(db, "INSERT INTO t VALUES(randomblob(1000))");
}

static void fill_and_die(void *arg)
{
    (void)arg;
    fill(db_open(path));
    (void)kill(getpid(), SIGKILL);
}

static void leave_something_to_recover(void)
{
    pid_t child = child_start(fill_and_die, NULL);

    CHECK(WIFSIGNALED(child_status(child)));
}

static void use(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)arg;
    done++;
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t"), 10);
    db_close(db);
}

static void use_other(void)
{
    sqlite3 *db = db_open(other);

    fill(db);
    db_close(db);
    oracle_check(other);
}

static void hold_at_recovery(void)
{
    (void)path_new(path, "recovering");
    (void)path_new(other, "other");
    leave_something_to_recover();
    hold_at("recover");
    thread_start(use, NULL);
    wait_until_held();
}

static void let_go_and_check(void)
{
    let_go = true;
    threads_join();
    fault_reset();
    oracle_check(path);
}

static void a_recovery_holds_up_its_own_database_only(void **state)
{
    (void)state;
    support_needs_throng();
    hold_at_recovery();
    use_other();
    for (int i = 0; i < 3; i++)
        thread_start(use, NULL);
    sleep_ms(20); /* not that they would have to be there by now */
    CHECK_EQUAL(done, 0);
    let_go_and_check();
    CHECK_EQUAL(done, 4);
}

static void close_held(void *arg)
{
    db_close(arg);
}

static void a_last_close_holds_up_its_own_database_only(void **state)
{
    sqlite3 *db;

    (void)state;
    support_needs_throng();
    (void)path_new(path, "closing");
    (void)path_new(other, "other");
    fill(db = db_open(path));
    hold_at("remove");
    thread_start(close_held, db);
    wait_until_held();
    use_other();
    thread_start(use, NULL);
    sleep_ms(20);
    CHECK_EQUAL(done, 0);
    let_go_and_check();
    CHECK_EQUAL(done, 1);
}

/* The child lives on. It can use other databases, and while it does, the parent's goes through opening and closing. */
static void a_fork_meanwhile_keeps_nothing(void **state)
{
    int ready[2];
    sqlite3 *db;
    char byte;
    pid_t child;

    (void)state;
    support_needs_throng();
    hold_at_recovery();
    CHECK_EQUAL(pipe(ready), 0);
    if ((child = fork()) == 0) {
        watchdog_begin();
        fault_reset();
        use_other();
        if (db_try_open(path, SQLITE_OPEN_READWRITE, db_vfs(), &db) != SQLITE_BUSY || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    CHECK_EQUAL(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    let_go_and_check(); /* stock SQLite gets in */
    db = db_stock(path);
    db_exec(db, "PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(NULL)");
    db_close(db);
    child_kill(child);
}

static void open_nothing(void *arg)
{
    sqlite3 *db = NULL;

    (void)arg;
    CHECK((db_try_open(path, SQLITE_OPEN_READWRITE, db_vfs(), &db) & 0xff) != SQLITE_OK);
    done++;
}

/* An opening that fails gives way to the next one, which waited for it. */
static void a_failed_opening_lets_the_next_one_try(void **state)
{
    struct fault_rule rule = {THR_OS_SYNC, NULL, 1, 1, 1, 5 /* EIO */};

    (void)state;
    support_needs_throng();
    (void)path_new(path, "failing");
    leave_something_to_recover();
    hold_at("recover");
    CHECK(fault_add(&rule) >= 0);
    thread_start(open_nothing, NULL);
    wait_until_held();
    thread_start(use, NULL);
    let_go_and_check();
    CHECK_EQUAL(done, 2);
}

static void die_while_it_is_marked(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)arg;
    fault_reset();
    CHECK(fault_kill_at("mark-trailer", 1) >= 0);
    db_exec(db, "PRAGMA synchronous=FULL; CREATE TABLE t(a)");
}

/* Property: a power cut at the first commit of all, of whose mark nothing but the room has reached the disk, leaves a
 * database that can be used. */
static void an_empty_file_may_have_the_room_of_a_mark(void **state)
{
    static const uint8_t ZEROS[1024];
    sqlite3 *db;

    (void)state;
    for (int sectors = 1; sectors <= 2; sectors++) {
        (void)path_new(path, "room");
        CHECK(WIFSIGNALED(child_status(child_start(die_while_it_is_marked, NULL))));
        CHECK_EQUAL(file_size(path), sizeof ZEROS);
        file_write(path, ZEROS, (size_t)sectors * 512);
        db = db_open(path);
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM sqlite_schema"), 0);
        db_exec(db, "CREATE TABLE t(a)");
        db_close(db);
        oracle_check(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recovery_holds_up_its_own_database_only),
        cmocka_unit_test(a_last_close_holds_up_its_own_database_only),
        cmocka_unit_test(a_fork_meanwhile_keeps_nothing),
        cmocka_unit_test(a_failed_opening_lets_the_next_one_try),
        cmocka_unit_test(an_empty_file_may_have_the_room_of_a_mark),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
