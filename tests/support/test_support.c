/* The tests' own test: the history checker takes good histories and finds each kind of bad one; the oracle finds damage;
 * the same seed gives the same numbers.
 *
 * SPDX-License-Identifier: MIT */
#include "history.h"
#include "internal.h"
#include "support.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- histories made by hand: rows 0 and 1, one transaction a thread, at the moments given --- */

#define MAX_LIST 8

static struct history *history;

static struct history_txn *begin(int thread, int64_t began, int64_t ended)
{
    struct history_txn *txn = history_begin(history, thread);

    history_commit(txn);
    history_set_times(txn, began, ended);
    return txn;
}

/* read(txn, row, "n", tokens...) */
static void read_list(struct history_txn *txn, int row, int count, ...)
{
    uint32_t list[MAX_LIST];
    va_list arguments;

    va_start(arguments, count);
    for (int i = 0; i < count; i++)
        list[i] = va_arg(arguments, uint32_t);
    va_end(arguments);
    history_read(txn, row, list, count);
}

static void final_list(int row, int count, ...)
{
    uint32_t list[MAX_LIST];
    va_list arguments;

    va_start(arguments, count);
    for (int i = 0; i < count; i++)
        list[i] = va_arg(arguments, uint32_t);
    va_end(arguments);
    history_final(history, row, list, count);
}

static uint32_t append(struct history_txn *txn, int row)
{
    uint32_t token = history_token(txn);

    history_append(txn, row);
    return token;
}

static void expect(const char *error)
{
    const char *found = history_check(history);

    if ((error == NULL) != (found == NULL) || (error != NULL && strstr(found, error) == NULL))
        check_failed(__FILE__, __LINE__, "found \"%s\", expected \"%s\"", found != NULL ? found : "nothing",
                     error != NULL ? error : "nothing");
    history_free(history);
}

static void start(void)
{
    history = history_new(2, 4, 1);
}

static void a_serial_history_is_good(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;
    uint32_t y;
    uint32_t z;

    (void)state;
    start();
    a = begin(0, 1, 2);
    b = begin(1, 3, 4);
    read_list(a, 0, 0);
    x = append(a, 0);
    read_list(a, 0, 1, x);
    read_list(b, 0, 1, x);
    y = append(b, 0);
    z = append(b, 1);
    read_list(b, 0, 2, x, y);
    final_list(0, 2, x, y);
    final_list(1, 1, z);
    expect(NULL);
}

static void an_empty_history_is_good(void **state)
{
    (void)state;
    start();
    expect(NULL);
}

static void a_snapshot_taken_before_is_good(void **state)
{
    struct history_txn *reader;
    struct history_txn *writer;
    uint32_t x;
    uint32_t y;

    (void)state;
    start();
    reader = begin(0, 1, 9); /* it overlaps the writer and sees nothing of it: it is before */
    writer = begin(1, 2, 3);
    x = append(writer, 0);
    y = append(writer, 1);
    read_list(reader, 0, 0);
    read_list(reader, 1, 0);
    final_list(0, 1, x);
    final_list(1, 1, y);
    expect(NULL);
}

static void forgotten_transactions_do_not_count(void **state)
{
    struct history_txn *a;

    (void)state;
    start();
    a = begin(0, 1, 2);
    read_list(a, 0, 0);
    (void)append(a, 0);
    history_forget(a);
    expect(NULL);
}

static void write_skew_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;
    uint32_t y;

    (void)state;
    start();
    a = begin(0, 1, 3);
    b = begin(1, 2, 4);
    read_list(a, 0, 0);
    read_list(a, 1, 0);
    read_list(b, 0, 0);
    read_list(b, 1, 0);
    x = append(a, 0);
    y = append(b, 1);
    final_list(0, 1, x);
    final_list(1, 1, y);
    expect("cycle");
}

static void a_lost_update_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t y;

    (void)state;
    start();
    a = begin(0, 1, 3);
    b = begin(1, 2, 4);
    read_list(a, 0, 0);
    read_list(b, 0, 0);
    (void)append(a, 0);
    y = append(b, 0);
    final_list(0, 1, y);
    expect("lost update");
}

static void an_update_of_a_stale_read_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;
    uint32_t y;

    (void)state;
    start();
    a = begin(0, 1, 3);
    b = begin(1, 2, 4);
    read_list(a, 0, 0);
    read_list(b, 0, 0);
    x = append(a, 0);
    y = append(b, 0); /* both are kept, but b decided on the state before a */
    final_list(0, 2, x, y);
    expect("cycle");
}

static void a_dirty_read_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;

    (void)state;
    start();
    a = begin(0, 1, 3);
    b = begin(1, 2, 4);
    x = append(a, 0);
    read_list(b, 0, 1, x);
    history_forget(a);
    expect("aborted");
}

static void an_aborted_write_that_stays_is_found(void **state)
{
    struct history_txn *a;
    uint32_t x;

    (void)state;
    start();
    a = begin(0, 1, 3);
    x = append(a, 0);
    history_forget(a);
    final_list(0, 1, x);
    expect("aborted write");
}

static void an_intermediate_read_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;
    uint32_t y;

    (void)state;
    start();
    a = begin(0, 1, 3);
    b = begin(1, 2, 4);
    x = append(a, 0);
    y = append(a, 0);
    read_list(b, 0, 1, x);
    final_list(0, 2, x, y);
    expect("intermediate");
}

static void a_read_that_does_not_repeat_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;

    (void)state;
    start();
    a = begin(0, 1, 4);
    b = begin(1, 2, 3);
    read_list(a, 0, 0);
    x = append(b, 0);
    read_list(a, 0, 1, x);
    final_list(0, 1, x);
    expect("non-repeatable");
}

static void half_of_a_transaction_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;
    uint32_t y;

    (void)state;
    start();
    a = begin(0, 1, 4);
    b = begin(1, 2, 3);
    x = append(b, 0);
    y = append(b, 1);
    read_list(a, 0, 0);
    read_list(a, 1, 1, y);
    final_list(0, 1, x);
    final_list(1, 1, y);
    expect("cycle");
}

static void a_long_fork_is_found(void **state)
{
    struct history_txn *txn[4];
    uint32_t x;
    uint32_t y;

    (void)state;
    start();
    for (int i = 0; i < 4; i++)
        txn[i] = begin(i, i, i + 10);
    x = append(txn[0], 0);
    y = append(txn[1], 1);
    read_list(txn[2], 0, 1, x); /* one sees them in this order */
    read_list(txn[2], 1, 0);
    read_list(txn[3], 0, 0); /* the other in that */
    read_list(txn[3], 1, 1, y);
    final_list(0, 1, x);
    final_list(1, 1, y);
    expect("cycle");
}

/* Two writers are serializable, and only a third transaction that reads shows that they are not. */
static void a_read_only_anomaly_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    struct history_txn *c;
    uint32_t x;
    uint32_t y;

    (void)state;
    start();
    a = begin(0, 1, 6);
    b = begin(1, 2, 3);
    c = begin(2, 4, 5);
    read_list(a, 0, 0);
    read_list(a, 1, 0);
    read_list(b, 1, 0);
    y = append(b, 1);
    read_list(c, 0, 0);
    read_list(c, 1, 1, y);
    x = append(a, 0);
    final_list(0, 1, x);
    final_list(1, 1, y);
    expect("cycle");
}

static void an_old_snapshot_is_found(void **state)
{
    struct history_txn *a;
    struct history_txn *b;
    uint32_t x;

    (void)state;
    start();
    a = begin(0, 1, 2);
    b = begin(1, 3, 4); /* began after a had ended */
    x = append(a, 0);
    read_list(b, 0, 0);
    final_list(0, 1, x);
    expect("cycle");
}

static void an_own_write_that_is_not_seen_is_found(void **state)
{
    struct history_txn *a;
    uint32_t x;

    (void)state;
    start();
    a = begin(0, 1, 2);
    x = append(a, 0);
    read_list(a, 0, 0);
    final_list(0, 1, x);
    expect("own write");
}

static void a_token_that_is_there_twice_is_found(void **state)
{
    struct history_txn *a;
    uint32_t x;

    (void)state;
    start();
    a = begin(0, 1, 2);
    x = append(a, 0);
    final_list(0, 2, x, x);
    expect("twice");
}

/* --- the oracle: each kind of damage makes it fail. Run in a child, for a failure ends the test --- */

static char path[PATH_SIZE];

static void oracle_child(void *arg)
{
    (void)arg;
    (void)!freopen("/dev/null", "w", stderr);
    oracle_check(path);
}

static bool oracle_complains(void)
{
    struct prng unused = prng_new(0);
    pid_t pid = child_start(oracle_child, &unused);

    return child_status(pid) != 0;
}

static void make_database(void)
{
    sqlite3 *db = db_stock(path_new(path, "damaged"));

    db_exec(db, "CREATE TABLE parent(id INTEGER PRIMARY KEY); INSERT INTO parent VALUES(1);"
                "CREATE TABLE child(parent REFERENCES parent); INSERT INTO child VALUES(1);"
                "CREATE TABLE big(b); INSERT INTO big VALUES(zeroblob(100000)); INSERT INTO big VALUES(zeroblob(100));"
                "DELETE FROM big WHERE length(b)>1000");
    CHECK(db_int(db, "PRAGMA freelist_count") > 10);
    db_close(db);
}

static void the_oracle_takes_a_good_database(void **state)
{
    (void)state;
    make_database();
    oracle_check(path);
    CHECK(!oracle_complains());
}

static void the_oracle_finds_damage(void **state)
{
    char journal[PATH_SIZE];
    unsigned char byte;
    sqlite3 *db;

    (void)state;
    make_database();
    file_read(path, 39, &byte, 1);
    byte--;
    file_patch(path, 39, &byte, 1); /* the count of free pages */
    CHECK(oracle_complains());

    make_database();
    file_patch(path, file_size(path), "more", 4);
    CHECK(oracle_complains());

    make_database();
    file_write(path_beside(journal, path, "-journal"), "", 0);
    CHECK(oracle_complains());

    make_database();
    db = db_stock(path);
    db_exec(db, "PRAGMA foreign_keys=off; DELETE FROM parent");
    db_close(db);
    CHECK(oracle_complains());

    make_database();
    file_patch(path, 32, "\0\0\0\0\0\0\0\0", 8); /* no free list: its pages are lost */
    CHECK(oracle_complains());
}

static void contents_are_compared_whole(void **state)
{
    uint64_t before;
    sqlite3 *db;

    (void)state;
    make_database();
    before = oracle_hash(path);
    CHECK(before == oracle_hash(path));
    db = db_stock(path);
    db_exec(db, "VACUUM");
    CHECK(db_hash_all(db) == before);
    db_exec(db, "UPDATE big SET b=zeroblob(101)");
    CHECK(db_hash_all(db) != before);
    db_exec(db, "UPDATE big SET b=zeroblob(100)");
    CHECK(db_hash_all(db) == before);
    db_exec(db, "CREATE INDEX i ON big(b)");
    CHECK(db_hash_all(db) != before);
    db_close(db);
}

static void a_seed_gives_the_same_numbers(void **state)
{
    struct prng a = prng_new(7);
    struct prng b = prng_new(7);
    struct prng c = prng_new(8);
    int same = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        uint64_t number = prng_next(&a);

        CHECK(number == prng_next(&b));
        same += number == prng_next(&c);
    }
    CHECK_EQUAL(same, 0);
}

static void hurry(void)
{
    watchdog_limits = (struct watchdog_limits){.look_s = 1, .still_looks = 2, .still_ms = 10, .busy_ms = 1500};
    (void)freopen("/dev/null", "w", stderr); /* what it says is expected */
    watchdog_begin();
}

static void stand_still(void *arg)
{
    (void)arg;
    hurry();
    for (;;)
        (void)pause();
}

static void spin(void *arg)
{
    (void)arg;
    hurry();
    while (children_cpu_ms() > 0)
        ;
}

/* Slow as on a machine that does other things: it gets a little of the processor, again and again. */
static void go_slowly(void *arg)
{
    (void)arg;
    hurry();
    for (int i = 0; i < 8; i++) {
        uint64_t end = children_cpu_ms() + 40;

        while (children_cpu_ms() < end)
            ;
        sleep_ms(500);
    }
}

/* Property: the watchdog ends a test that stands still or runs for ever, and none that is slow. */
static void the_watchdog_tells_a_hang_from_a_busy_machine(void **state)
{
    pid_t slow = child_start(go_slowly, NULL);
    pid_t still = child_start(stand_still, NULL);
    pid_t spinning = child_start(spin, NULL);
    int status;

    (void)state;
    status = child_status(spinning);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    status = child_status(still);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    child_join(slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_serial_history_is_good),
        cmocka_unit_test(an_empty_history_is_good),
        cmocka_unit_test(a_snapshot_taken_before_is_good),
        cmocka_unit_test(forgotten_transactions_do_not_count),
        cmocka_unit_test(write_skew_is_found),
        cmocka_unit_test(a_lost_update_is_found),
        cmocka_unit_test(an_update_of_a_stale_read_is_found),
        cmocka_unit_test(a_dirty_read_is_found),
        cmocka_unit_test(an_aborted_write_that_stays_is_found),
        cmocka_unit_test(an_intermediate_read_is_found),
        cmocka_unit_test(a_read_that_does_not_repeat_is_found),
        cmocka_unit_test(half_of_a_transaction_is_found),
        cmocka_unit_test(a_long_fork_is_found),
        cmocka_unit_test(a_read_only_anomaly_is_found),
        cmocka_unit_test(an_old_snapshot_is_found),
        cmocka_unit_test(an_own_write_that_is_not_seen_is_found),
        cmocka_unit_test(a_token_that_is_there_twice_is_found),
        cmocka_unit_test(the_oracle_takes_a_good_database),
        cmocka_unit_test(the_oracle_finds_damage),
        cmocka_unit_test(contents_are_compared_whole),
        cmocka_unit_test(a_seed_gives_the_same_numbers),
        cmocka_unit_test(the_watchdog_tells_a_hang_from_a_busy_machine),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
