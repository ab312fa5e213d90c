/* Deadlines, cancel tokens, closing, and what happens with time.
 *
 * SPDX-License-Identifier: MIT */
#include "fake.h"
#include "pool.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

static throng_db *db;

static void open_pool(struct throng_db_options options)
{
    options.size = sizeof options;
    fake_reset();
    CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &db, NULL), THRONG_OK);
}

static void close_pool(void)
{
    CHECK_EQUAL(throng_db_close(db, throng_after_ms(20000), NULL), THRONG_OK);
    CHECK_EQUAL(fake_conns(), 0);
    CHECK_EQUAL(fake_statements(), 0);
}

static struct throng_stats stats_now(void)
{
    struct throng_stats stats = {.size = sizeof stats};

    CHECK_EQUAL(throng_db_stats(db, &stats, NULL), THRONG_OK);
    return stats;
}

#define UNTIL(condition)                                        \
    do {                                                        \
        for (uint64_t end_ = now_ms() + 20000; !(condition);) { \
            CHECK(now_ms() < end_);                             \
            sleep_ms(1);                                        \
        }                                                       \
    } while (0)

/* --- where a call can be when its time has come --- */

enum place { BEFORE, IN_LINE, RUNNING, BETWEEN_ROWS, IN_TRANSACTION, PLACES };

struct attempt {
    enum place place;
    throng_cancel *cancel;
    uint64_t deadline_ns;
    int expected;
};

static int run_at(const struct attempt *attempt)
{
    struct throng_options options = {
        .size = sizeof options, .deadline_ns = attempt->deadline_ns, .cancel = attempt->cancel};
    struct throng_tx_options tx_options = {
        .size = sizeof tx_options, .deadline_ns = attempt->deadline_ns, .cancel = attempt->cancel};
    throng_rows rows;
    throng_tx tx;
    int code;

    if (attempt->place == IN_TRANSACTION) {
        if ((code = throng_db_begin(db, &tx_options, &tx, NULL)) != THRONG_OK)
            return code; /* on a slow machine the deadline has passed already */
        code = throng_tx_exec(&tx, NULL, "wait", THRONG_NO_ARGS, NULL, NULL);
        CHECK_EQUAL(throng_tx_commit(&tx, NULL), code); /* too late for that as well */
        return code;
    }
    if (attempt->place != BETWEEN_ROWS)
        return throng_db_exec(db, &options, "wait", THRONG_NO_ARGS, NULL, NULL);
    if ((code = throng_db_query(db, &options, "rows 1000000", THRONG_NO_ARGS, &rows, NULL)) != THRONG_OK)
        return code;
    while ((code = throng_rows_next(&rows, NULL)) == THRONG_ROW)
        sleep_ms(1);
    CHECK_EQUAL(throng_rows_close(&rows, NULL), code);
    return code;
}

static void attempt_thread(void *arg)
{
    const struct attempt *attempt = arg;

    CHECK_EQUAL(run_at(attempt), attempt->expected);
}

static bool is_there(enum place place)
{
    switch (place) {
    case IN_LINE:
        return stats_now().waiting == 1;
    case RUNNING:
    case IN_TRANSACTION:
        return fake_waiting() == 1;
    default:
        return stats_now().in_use == 1;
    }
}

/* Property: wherever a call is when its deadline passes or its token fires, it ends with the code for that, soon; the
 * connection is as good as new for the next one, and is not interrupted any more. */
static void a_call_ends_when_its_time_has_come(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * PLACES; i++) {
        struct attempt attempt = {.place = (enum place)(i % PLACES)};
        bool cancels = i >= PLACES;
        throng_conn conn = {0};

        open_pool((struct throng_db_options){.max_open = 1});
        attempt.expected = cancels ? THRONG_CANCELED : THRONG_TIMEOUT;
        attempt.cancel = cancels ? throng_cancel_new() : NULL;
        attempt.deadline_ns = cancels ? 0 : throng_after_ms(attempt.place == BEFORE ? 0 : 60);
        if (attempt.place == BEFORE && cancels)
            throng_cancel_fire(attempt.cancel);
        if (attempt.place == IN_LINE)
            CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
        thread_start(attempt_thread, &attempt);
        if (attempt.place != BEFORE && cancels) {
            UNTIL(is_there(attempt.place));
            throng_cancel_fire(attempt.cancel);
        }
        threads_join();
        CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
        fake_let_go();
        CHECK_EQUAL(throng_db_exec(db, NULL, "wait", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        CHECK_EQUAL(stats_now().in_use, 0);
        CHECK_EQUAL(stats_now().wait_timeouts + stats_now().wait_cancels, attempt.place == IN_LINE);
        throng_cancel_free(attempt.cancel);
        close_pool();
    }
}

static void wait_thread(void *arg)
{
    (void)arg;
    CHECK_EQUAL(throng_db_exec(db, NULL, "wait", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
}

/* Property: bounds are those of one call: the next one on the connection has its own, or none. */
static void bounds_are_of_one_call(void **state)
{
    struct throng_options options = {.size = sizeof options};
    throng_rows bounded, other;
    throng_conn conn;

    (void)state;
    open_pool((struct throng_db_options){.max_open = 1});
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    options.deadline_ns = throng_after_ms(1000);
    CHECK_EQUAL(throng_conn_query(&conn, &options, "wait", THRONG_NO_ARGS, &bounded, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_query(&conn, NULL, "rows 9", THRONG_NO_ARGS, &other, NULL), THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&other, NULL), THRONG_ROW); /* without bounds, in between */
    CHECK_EQUAL(throng_rows_next(&bounded, NULL), THRONG_TIMEOUT);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);

    options.deadline_ns = throng_after_ms(1000);
    CHECK_EQUAL(throng_db_exec(db, &options, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    thread_start(wait_thread, NULL);
    UNTIL(throng_now_ns() > options.deadline_ns + 20000000);
    fake_let_go();
    threads_join();
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    options.deadline_ns = throng_after_ms(2000);
    CHECK_EQUAL(throng_conn_query(&conn, &options, "rows 9", THRONG_NO_ARGS, &bounded, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_query(&conn, NULL, "rows 9", THRONG_NO_ARGS, &other, NULL), THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&bounded, NULL), THRONG_ROW);
    UNTIL(throng_now_ns() > options.deadline_ns);
    CHECK_EQUAL(throng_rows_next(&other, NULL), THRONG_ROW);
    CHECK_EQUAL(throng_rows_next(&bounded, NULL), THRONG_TIMEOUT);
    CHECK_EQUAL(throng_rows_next(&other, NULL), THRONG_ROW);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    close_pool();
}

struct hail {
    throng_cancel *cancel[200];
    _Atomic int next;
    int count;
};

static void hail_thread(void *arg)
{
    struct hail *hail = arg;

    for (int i; (i = atomic_fetch_add(&hail->next, 1)) < hail->count;)
        throng_cancel_fire(hail->cancel[i]);
}

/* Property: a token that fires at any moment, also just when the call has ended, never stops another one: calls without a
 * token all succeed. (The fake driver fails the test if it is interrupted outside of a call that may be.) */
static void a_token_never_hits_the_next_one(void **state)
{
    (void)state;
    open_pool((struct throng_db_options){.max_open = 1});
    for (int round = 0; round < scaled(20); round++) {
        struct hail hail = {.count = 200};

        for (int i = 0; i < hail.count; i++)
            hail.cancel[i] = throng_cancel_new();
        thread_start(hail_thread, &hail);
        for (int i = 0; i < hail.count; i++) {
            struct throng_options options = {.size = sizeof options, .cancel = hail.cancel[i]};
            int code = throng_db_exec(db, &options, "write", THRONG_NO_ARGS, NULL, NULL);

            CHECK(code == THRONG_OK || code == THRONG_CANCELED);
            CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        }
        threads_join();
        for (int i = 0; i < hail.count; i++)
            throng_cancel_free(hail.cancel[i]);
    }
    close_pool();
}

/* --- closing --- */

static void expect_closed_thread(void *arg)
{
    (void)arg;
    CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_CLOSED);
}

static void hold_thread(void *arg)
{
    throng_conn conn;

    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    *(_Atomic bool *)arg = true;
    sleep_ms(60);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
}

/* Property: closing turns away who waits and who comes, lets who holds a connection finish, waits for it, but not longer
 * than it was told. */
static void closing_waits_for_who_is_inside(void **state)
{
    _Atomic bool holds = false;
    throng_error err;

    (void)state;
    open_pool((struct throng_db_options){.max_open = 1});
    thread_start(hold_thread, &holds);
    UNTIL(atomic_load(&holds));
    thread_start(expect_closed_thread, NULL);
    UNTIL(stats_now().waiting == 1);
    CHECK_EQUAL(throng_db_shutdown(db, throng_after_ms(5), &err), THRONG_TIMEOUT);
    CHECK_EQUAL(throng_db_ping(db, NULL, &err), THRONG_CLOSED);
    CHECK_EQUAL(fake_conns(), 1);
    CHECK_EQUAL(throng_db_close(db, throng_after_ms(20000), &err), THRONG_OK);
    CHECK_EQUAL(fake_conns(), 0);
    CHECK_EQUAL(fake_writes(), 1);
    threads_join();
}

static void write_until_closed(void *arg)
{
    int code;

    while ((code = throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL)) == THRONG_OK)
        (void)atomic_fetch_add((_Atomic int *)arg, 1);
    CHECK_EQUAL(code, THRONG_CLOSED);
}

/* Property: a pool may be shut down at any moment, whatever others do: each call has either happened or said CLOSED. */
static void shutdown_at_any_moment(void **state)
{
    struct prng prng = prng_new(1);

    (void)state;
    for (int round = 0; round < scaled(60); round++) {
        struct timespec pause = {0, prng_below(&prng, 2000000)};
        _Atomic int done = 0;

        open_pool((struct throng_db_options){.max_open = (uint32_t)(1 + prng_below(&prng, 4))});
        for (int i = 0; i < 5; i++)
            thread_start(write_until_closed, &done);
        (void)nanosleep(&pause, NULL);
        CHECK_EQUAL(throng_db_shutdown(db, 0, NULL), THRONG_OK);
        CHECK_EQUAL(fake_conns(), 0);
        threads_join();
        CHECK_EQUAL(fake_writes(), done);
        CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
    }
}

/* --- time --- */

static char logged[4][512];
static _Atomic int log_count;

static void to_text(void *arg, const char *message)
{
    (void)arg;
    (void)snprintf(logged[log_count % 4], sizeof logged[0], "%s", message);
    (void)atomic_fetch_add(&log_count, 1); /* then it is read */
}

/* Property: what is held for longer than the limit is reported once, with where it was taken, and only that. */
static void a_leak_is_reported_once(void **state)
{
    struct throng_options options = {.size = sizeof options, .label = "the label"};
    char here[64];
    throng_rows rows;
    throng_conn conn;

    (void)state;
    log_count = 0;
    open_pool((struct throng_db_options){.max_open = 2, .leak_after_ns = 20000000, .log = to_text});
    CHECK_EQUAL(throng_db_query(db, NULL, "rows 5", THRONG_NO_ARGS, &rows, NULL), THRONG_OK);
    (void)snprintf(here, sizeof here, "test_pool_limits.c:%d", __LINE__ - 1);
    UNTIL(atomic_load(&log_count) == 1);
    CHECK(strstr(logged[0], here) != NULL);
    sleep_ms(80);
    CHECK_EQUAL(log_count, 1);
    CHECK_EQUAL(throng_rows_close(&rows, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_conn(db, &options, &conn, NULL), THRONG_OK);
    UNTIL(atomic_load(&log_count) == 2);
    CHECK(strstr(logged[1], "the label") != NULL);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    CHECK_EQUAL(stats_now().leaks, 2);
    close_pool();
}

/* Property: rows of a statement that writes, and whose time is over, end as the driver says that the statement has: undone,
 * done all the same, or failed. */
static void what_writes_ends_as_the_driver_says(void **state)
{
    static const struct {
        int says, told, writes;
    } ends[] = {{THRONG_OK, THRONG_CANCELED, 0},
                {THRONG_DONE, THRONG_DONE, 1},
                {THRONG_CONSTRAINT, THRONG_CONSTRAINT, 0},
                {THRONG_CONN_LOST, THRONG_CONN_LOST, 0},
                {THR_CONN_STALE, THRONG_CONN_LOST, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        throng_cancel *cancel = throng_cancel_new();
        struct throng_options options = {.size = sizeof options, .cancel = cancel};
        throng_error err = {.code = THRONG_OK};
        throng_rows rows;

        open_pool((struct throng_db_options){.max_open = 1});
        fake_undo_says(ends[i].says);
        CHECK_EQUAL(throng_db_query(db, &options, "insert 3", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
        CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
        throng_cancel_fire(cancel);
        CHECK_EQUAL(throng_rows_next(&rows, &err), ends[i].told);
        if (ends[i].told != THRONG_DONE)
            CHECK_EQUAL(err.code, ends[i].told);
        CHECK_EQUAL(throng_rows_close(&rows, &err), ends[i].told == THRONG_DONE ? THRONG_OK : ends[i].told);
        CHECK_EQUAL(fake_writes(), ends[i].writes);
        throng_cancel_free(cancel);
        close_pool();
    }
}

/* Property: closing that is in vain says who holds connections, in its error and in the log; leaks go on to be reported. */
static void closing_in_vain_says_why(void **state)
{
    char here[64];
    throng_error err;
    throng_conn conn, other;
    struct throng_options second = {.size = sizeof second, .label = "the second"};

    (void)state;
    log_count = 0;
    open_pool((struct throng_db_options){
        .max_open = 3, .leak_after_ns = UINT64_C(1000000000000), .check_every_ns = 1000000, .log = to_text});
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    (void)snprintf(here, sizeof here, "test_pool_limits.c:%d", __LINE__ - 1);
    CHECK_EQUAL(throng_db_conn(db, &second, &other, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_shutdown(db, throng_after_ms(1), &err), THRONG_TIMEOUT);
    CHECK(strstr(err.message, "2, the first") != NULL && strstr(err.message, here) != NULL);
    CHECK_EQUAL(log_count, 2);
    CHECK(strstr(logged[0], here) != NULL && strstr(logged[1], "the second") != NULL);
    CHECK_EQUAL(stats_now().leaks, 0);
    thr_maintain(db, throng_now_ns());
    thr_maintain(db, throng_now_ns() + UINT64_C(2000000000000));
    CHECK_EQUAL(stats_now().leaks, 2);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&other, NULL), THRONG_OK);
    close_pool();
}

/* Property: a deadline that lies further away than the clock goes is one that never comes. */
static void far_deadlines_never_come(void **state)
{
    struct throng_options options = {.size = sizeof options, .deadline_ns = throng_after_ms(UINT64_MAX)};

    (void)state;
    CHECK_EQUAL(options.deadline_ns, UINT64_MAX);
    CHECK_EQUAL(throng_after_ms(UINT64_MAX / 1000000), UINT64_MAX);
    CHECK(throng_after_ms(1000) > throng_now_ns());
    open_pool((struct throng_db_options){.max_open = 1, .no_thread = 1, .max_lifetime_ns = UINT64_MAX});
    CHECK_EQUAL(throng_db_exec(db, &options, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    throng_db_maintain(db);
    CHECK_EQUAL(stats_now().closed_lifetime, 0);
    close_pool();
}

/* Property: every wait is counted, with how long it took, however it ends; every execution is either one of a statement that
 * was compiled before, or not. */
static void statistics_add_up(void **state)
{
    struct throng_options options = {.size = sizeof options};
    throng_stmt stmt;
    throng_conn conn;

    (void)state;
    open_pool((struct throng_db_options){.max_open = 1});
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    options.deadline_ns = throng_after_ms(2);
    CHECK_EQUAL(throng_db_exec(db, &options, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_TIMEOUT);
    CHECK_EQUAL(stats_now().waits, 1);
    CHECK(stats_now().wait_ns > 0);
    CHECK_EQUAL(stats_now().wait_timeouts, 1);
    CHECK_EQUAL(throng_db_shutdown(db, throng_after_ms(1), NULL), THRONG_TIMEOUT);
    CHECK_EQUAL(stats_now().waits, 1); /* of those who want a connection */
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    close_pool();

    open_pool((struct throng_db_options){.max_open = 1});
    for (int i = 0; i < 10; i++)
        CHECK_EQUAL(throng_db_exec(db, NULL, "bad", THRONG_NO_ARGS, NULL, NULL), THRONG_ERROR);
    CHECK_EQUAL(stats_now().cache_hits, 0);
    CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(stats_now().cache_hits, 0);
    CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(stats_now().cache_hits, 1);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "rows 1", &stmt, NULL), THRONG_OK);
    CHECK_EQUAL(stats_now().cache_hits, 1);
    CHECK_EQUAL(throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(stats_now().cache_hits, 2);
    CHECK_EQUAL(stats_now().statements, 3);
    close_pool();
}

/* Property: many texts do not push out the statements that were prepared. */
static void prepared_statements_stay(void **state)
{
    throng_stmt stmt;
    char sql[32];
    int prepared_before;

    (void)state;
    open_pool((struct throng_db_options){.max_open = 1, .cached_statements = 4});
    CHECK_EQUAL(throng_db_prepare(db, NULL, "write", &stmt, NULL), THRONG_OK);
    for (int i = 0; i < 20; i++) {
        (void)snprintf(sql, sizeof sql, "rows %d", i);
        CHECK_EQUAL(throng_db_exec(db, NULL, sql, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    }
    prepared_before = fake_prepared();
    CHECK_EQUAL(throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(fake_prepared(), prepared_before);
    CHECK(stats_now().cache_evictions > 0);
    close_pool();
}

/* Property: connections are closed when nobody has used them for the time set, and when they are too old, in use or not;
 * what is used is not closed for want of use. */
static void connections_go_in_time(void **state)
{
    throng_conn conn, other;

    (void)state;
    open_pool((struct throng_db_options){.max_open = 4, .max_idle_time_ns = 1000000000, .no_thread = 1});
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_conn(db, NULL, &other, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&other, NULL), THRONG_OK);
    thr_maintain(db, UINT64_C(1000000000000));
    thr_maintain(db, UINT64_C(1000999999999));
    CHECK_EQUAL(fake_conns(), 2);
    thr_maintain(db, UINT64_C(1001000000000));
    CHECK_EQUAL(fake_conns(), 1);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    thr_maintain(db, UINT64_C(1001000000001));
    for (uint64_t i = 1; i < 20; i++) { /* each time used in between */
        CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        thr_maintain(db, UINT64_C(1001000000000) + i * 900000000);
    }
    CHECK_EQUAL(fake_conns(), 1);
    CHECK_EQUAL(stats_now().closed_idle_time, 1);
    close_pool();

    open_pool((struct throng_db_options){.max_open = 4, .max_lifetime_ns = 1000000000, .no_thread = 1});
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_conn(db, NULL, &other, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&other, NULL), THRONG_OK);
    thr_maintain(db, throng_now_ns() + 800000000);
    CHECK_EQUAL(fake_conns(), 2);
    thr_maintain(db, throng_now_ns() + 1100000000);
    CHECK_EQUAL(fake_conns(), 1);
    CHECK_EQUAL(throng_conn_exec(&conn, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    CHECK_EQUAL(fake_conns(), 0);
    CHECK_EQUAL(stats_now().closed_lifetime, 2);
    close_pool();
}

/* Property: no more connections stay idle than may, and those that may do. */
static void idle_connections_are_limited(void **state)
{
    throng_conn conns[4];

    (void)state;
    open_pool((struct throng_db_options){.max_open = 4, .max_idle = 2});
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++)
            CHECK_EQUAL(throng_db_conn(db, NULL, &conns[i], NULL), THRONG_OK);
        CHECK_EQUAL(fake_conns(), 4);
        for (int i = 0; i < 4; i++) {
            CHECK_EQUAL(throng_conn_close(&conns[i], NULL), THRONG_OK);
            CHECK_EQUAL(fake_conns(), i < 2 ? 4 : 5 - i);
        }
    }
    CHECK_EQUAL(stats_now().closed_idle_limit, 6);
    close_pool();
}

/* --- statements --- */

/* Property: a connection compiles a statement once, keeps no more statements than it may, drops those that were least used
 * lately, and those that are closed once it is idle. */
static void statements_are_kept_and_dropped(void **state)
{
    throng_stmt first, many[300];
    throng_rows rows;
    char sql[32];

    (void)state;
    open_pool((struct throng_db_options){.max_open = 1, .cached_statements = 4, .max_statements = 300});
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            (void)snprintf(sql, sizeof sql, "rows %d", i);
            CHECK_EQUAL(throng_db_exec(db, NULL, sql, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        }
    }
    CHECK_EQUAL(fake_prepared(), 4);
    CHECK_EQUAL(throng_db_exec(db, NULL, "rows 9", THRONG_NO_ARGS, NULL, NULL), THRONG_OK); /* "rows 0" goes */
    CHECK_EQUAL(throng_db_exec(db, NULL, "rows 1", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(fake_prepared(), 5);
    CHECK_EQUAL(throng_db_exec(db, NULL, "rows 0", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(fake_prepared(), 6);
    CHECK_EQUAL(fake_statements(), 4);
    CHECK_EQUAL(stats_now().cache_evictions, 2);

    CHECK_EQUAL(throng_db_prepare(db, NULL, "rows 7", &first, NULL), THRONG_OK);
    CHECK_EQUAL(throng_stmt_query(&first, NULL, THRONG_NO_ARGS, &rows, NULL), THRONG_OK);
    throng_stmt_close(&first); /* what runs goes on */
    throng_stmt_close(&first);
    for (int i = 1; i <= 7; i++) {
        CHECK_EQUAL(throng_rows_next(&rows, NULL), THRONG_ROW);
        CHECK_EQUAL(throng_rows_int(&rows, 0), i);
    }
    CHECK_EQUAL(fake_statements(), 4);
    CHECK_EQUAL(throng_rows_next(&rows, NULL), THRONG_DONE);
    CHECK_EQUAL(fake_statements(), 3);
    CHECK_EQUAL(throng_stmt_exec(&first, NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_CLOSED);
    for (int i = 0; i < 300; i++)
        CHECK_EQUAL(throng_db_prepare(db, NULL, "rows 8", &many[i], NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "rows 8", &first, NULL), THRONG_MISUSE);
    for (int i = 0; i < 299; i++)
        throng_stmt_close(&many[i]); /* more than the ring has room for */
    for (int i = 0; i < 299; i++)
        CHECK_EQUAL(throng_stmt_exec(&many[i], NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_CLOSED);
    CHECK_EQUAL(throng_stmt_exec(&many[299], NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(fake_statements(), 1);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "rows 8", &first, NULL), THRONG_OK); /* a place again, another number */
    CHECK_EQUAL(throng_stmt_exec(&many[298], NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_CLOSED);
    CHECK_EQUAL(throng_stmt_exec(&first, NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    close_pool();
}

struct users {
    throng_stmt stmt;
    _Atomic int runs;
};

static void use_until_closed(void *arg)
{
    struct users *users = arg;
    int code;

    while ((code = throng_stmt_exec(&users->stmt, NULL, THRONG_NO_ARGS, NULL, NULL)) == THRONG_OK)
        (void)atomic_fetch_add(&users->runs, 1);
    CHECK_EQUAL(code, THRONG_CLOSED);
}

/* Property: a statement may be closed while others use it: each use has happened or says CLOSED, and no connection keeps
 * it. */
static void a_statement_is_closed_while_others_use_it(void **state)
{
    (void)state;
    open_pool((struct throng_db_options){.max_open = 3});
    for (int round = 0; round < scaled(100); round++) {
        struct users users = {.runs = 0};

        CHECK_EQUAL(throng_db_prepare(db, NULL, "write", &users.stmt, NULL), THRONG_OK);
        for (int i = 0; i < 4; i++)
            thread_start(use_until_closed, &users);
        UNTIL(atomic_load(&users.runs) > 20);
        throng_stmt_close(&users.stmt);
        threads_join();
    }
    CHECK(fake_statements() <= 3); /* idle ones may still have the last one */
    close_pool();
}

/* Property: a handle whose time is over says so, also a copy of it, and touches nobody else's. */
static void old_handles_say_so(void **state)
{
    throng_tx tx, tx_copy, inner;
    throng_conn conn, conn_copy;
    throng_rows rows, rows_copy, none = {0};

    (void)state;
    open_pool((struct throng_db_options){.max_open = 1});
    CHECK_EQUAL(throng_db_begin(db, NULL, &tx, NULL), THRONG_OK);
    CHECK_EQUAL(throng_tx_query(&tx, NULL, "rows 3", THRONG_NO_ARGS, &rows, NULL), THRONG_OK);
    CHECK_EQUAL(throng_tx_begin(&tx, &inner, NULL), THRONG_OK);
    tx_copy = tx;
    rows_copy = rows;
    CHECK_EQUAL(throng_tx_commit(&tx, NULL), THRONG_OK);
    CHECK_EQUAL(throng_tx_commit(&tx, NULL), THRONG_TX_DONE);
    CHECK_EQUAL(throng_tx_rollback(&tx_copy, NULL), THRONG_TX_DONE);
    CHECK_EQUAL(throng_tx_exec(&inner, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_TX_DONE);
    CHECK_EQUAL(throng_rows_next(&rows, NULL), THRONG_CLOSED);
    CHECK_EQUAL(throng_rows_int(&rows_copy, 0), 0);
    CHECK_EQUAL(throng_db_conn(db, NULL, &conn, NULL), THRONG_OK);
    conn_copy = conn;
    CHECK_EQUAL(throng_rows_next(&rows_copy, NULL), THRONG_CLOSED);
    CHECK_EQUAL(throng_tx_exec(&tx_copy, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_TX_DONE);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    CHECK_EQUAL(throng_conn_exec(&conn_copy, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_CLOSED);
    CHECK_EQUAL(throng_conn_close(&conn_copy, NULL), THRONG_CLOSED);
    CHECK_EQUAL(throng_rows_close(&none, NULL), THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&none, NULL), THRONG_MISUSE);
    CHECK_EQUAL(fake_writes(), 0);
    close_pool();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_ends_when_its_time_has_come),
        cmocka_unit_test(bounds_are_of_one_call),
        cmocka_unit_test(a_token_never_hits_the_next_one),
        cmocka_unit_test(closing_waits_for_who_is_inside),
        cmocka_unit_test(shutdown_at_any_moment),
        cmocka_unit_test(a_leak_is_reported_once),
        cmocka_unit_test(what_writes_ends_as_the_driver_says),
        cmocka_unit_test(closing_in_vain_says_why),
        cmocka_unit_test(far_deadlines_never_come),
        cmocka_unit_test(statistics_add_up),
        cmocka_unit_test(prepared_statements_stay),
        cmocka_unit_test(connections_go_in_time),
        cmocka_unit_test(idle_connections_are_limited),
        cmocka_unit_test(statements_are_kept_and_dropped),
        cmocka_unit_test(a_statement_is_closed_while_others_use_it),
        cmocka_unit_test(old_handles_say_so),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
