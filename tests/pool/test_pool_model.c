/* Who gets a connection, and when: the pool beside a model of it.
 *
 * SPDX-License-Identifier: MIT */
#include "fake.h"
#include "os.h"
#include "pool.h"
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* --- the model: one lock, one list ---
 *
 * Workers do what they are told, one thing at a time. The model knows for each of them in what state it must be once
 * everything has come to rest. */

enum { WORKERS = 12 };

enum worker_state { FREE, WAITS, HOLDS };
enum worker_order { ORDER_NONE, ORDER_TAKE, ORDER_GIVE, ORDER_DISCARD, ORDER_LEAVE };

struct worker {
    enum worker_order order;
    enum worker_state state; /* in the model */
    int code;                /* of the last throng_db_conn() */
    int expected_code;
    bool busy; /* with its order */
    throng_cancel *cancel;
    uint64_t deadline_ns;
};

struct model {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    throng_db *db;
    struct worker workers[WORKERS];
    int limit, holding;
    int line[WORKERS], line_length; /* who waits, in order */
};

static struct model model;

static void worker_thread(void *arg)
{
    struct worker *worker = arg;
    throng_conn conn = {0};
    enum worker_order order;

    do {
        (void)pthread_mutex_lock(&model.lock);
        while (worker->order == ORDER_NONE)
            (void)pthread_cond_wait(&model.changed, &model.lock);
        order = worker->order;
        (void)pthread_mutex_unlock(&model.lock);
        if (order == ORDER_TAKE) {
            struct throng_options options = {
                .size = sizeof options, .deadline_ns = worker->deadline_ns, .cancel = worker->cancel};
            int code = throng_db_conn(model.db, &options, &conn, NULL);

            if (code == THRONG_OK)
                CHECK_EQUAL(throng_conn_exec(&conn, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
            (void)pthread_mutex_lock(&model.lock);
            worker->code = code;
            (void)pthread_mutex_unlock(&model.lock);
        } else if (order == ORDER_GIVE) {
            CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
        } else if (order == ORDER_DISCARD) {
            CHECK_EQUAL(throng_conn_discard(&conn, NULL), THRONG_OK);
        }
        (void)pthread_mutex_lock(&model.lock);
        worker->order = ORDER_NONE;
        worker->busy = false;
        (void)pthread_cond_broadcast(&model.changed);
        (void)pthread_mutex_unlock(&model.lock);
    } while (order != ORDER_LEAVE);
}

static void give_order(struct worker *worker, enum worker_order order)
{
    (void)pthread_mutex_lock(&model.lock);
    worker->order = order;
    worker->busy = true;
    (void)pthread_cond_broadcast(&model.changed);
    (void)pthread_mutex_unlock(&model.lock);
}

static uint64_t in_line(void)
{
    struct throng_stats stats = {.size = sizeof stats};

    CHECK_EQUAL(throng_db_stats(model.db, &stats, NULL), THRONG_OK);
    return stats.waiting;
}

/* Everybody is in the state that the model says: who waits waits, all others have finished. A lost wake-up never gets
 * there. */
static void come_to_rest(void)
{
    uint64_t end_ms = now_ms() + 20000;
    bool rests;

    do {
        rests = true;
        (void)pthread_mutex_lock(&model.lock);
        for (int i = 0; i < WORKERS; i++)
            rests = rests && model.workers[i].busy == (model.workers[i].state == WAITS);
        (void)pthread_mutex_unlock(&model.lock);
        rests = rests && in_line() == (uint64_t)model.line_length;
        if (!rests)
            CHECK(now_ms() < end_ms);
    } while (!rests);
    for (int i = 0; i < WORKERS; i++) {
        if (model.workers[i].state != WAITS)
            CHECK_EQUAL(model.workers[i].code, model.workers[i].expected_code);
    }
}

static void leave_line(int worker)
{
    int place = 0;

    while (model.line[place] != worker)
        place++;
    model.line_length--;
    memmove(&model.line[place], &model.line[place + 1], (size_t)(model.line_length - place) * sizeof model.line[0]);
}

static void model_take(int i, bool with_deadline)
{
    struct worker *worker = &model.workers[i];

    worker->deadline_ns = with_deadline ? throng_after_ms(30) : 0;
    worker->expected_code = THRONG_OK;
    if (model.holding < model.limit) {
        worker->deadline_ns = 0;
        model.holding++;
        worker->state = HOLDS;
    } else {
        worker->state = WAITS;
        model.line[model.line_length++] = i;
    }
    give_order(worker, ORDER_TAKE);
    if (with_deadline && worker->state == WAITS) { /* nobody gives anything back before it has passed */
        leave_line(i);
        worker->state = FREE;
        worker->expected_code = THRONG_TIMEOUT;
    }
}

static void model_give(int i, enum worker_order order)
{
    model.workers[i].state = FREE;
    model.workers[i].expected_code = THRONG_OK;
    model.holding--;
    if (model.line_length > 0) {
        int first = model.line[0];

        leave_line(first);
        model.workers[first].state = HOLDS;
        model.workers[first].expected_code = THRONG_OK;
        model.holding++;
    }
    give_order(&model.workers[i], order);
}

static void model_cancel(int i)
{
    leave_line(i);
    model.workers[i].state = FREE;
    model.workers[i].expected_code = THRONG_CANCELED;
    throng_cancel_fire(model.workers[i].cancel);
}

static void random_step(struct prng *prng)
{
    int i = prng_below(prng, WORKERS);
    struct worker *worker = &model.workers[i];

    switch (worker->state) {
    case FREE:
        if (throng_cancel_fired(worker->cancel)) {
            throng_cancel_free(worker->cancel);
            worker->cancel = throng_cancel_new();
        }
        model_take(i, prng_chance(prng, 12));
        break;
    case HOLDS:
        if (prng_chance(prng, 2))
            model_give(i, prng_chance(prng, 6) ? ORDER_DISCARD : ORDER_GIVE);
        break;
    case WAITS:
        if (prng_chance(prng, 6))
            model_cancel(i);
        break;
    }
    if (prng_chance(prng, 10))
        throng_db_maintain(model.db);
}

/* Property: whatever threads take, give back, discard, cancel and time out, in any order: never are more connections in
 * use than there may be, who waits gets the next one that is given back, in the order of arrival, nobody waits while one
 * is free, and nobody who has given up gets one. */
static void pool_does_what_the_model_does(void **state)
{
    struct prng prng = prng_new(1);

    (void)state;
    for (int round = 0; round < 6; round++) {
        struct throng_db_options options = {.size = sizeof options, .no_thread = 1};

        fake_reset();
        memset(&model, 0, sizeof model);
        (void)pthread_mutex_init(&model.lock, NULL);
        (void)pthread_cond_init(&model.changed, NULL);
        options.max_open = (uint32_t)(model.limit = 1 + prng_below(&prng, WORKERS - 2));
        options.max_idle = (uint32_t)prng_below(&prng, model.limit + 1);
        options.max_idle_time_ns = prng_chance(&prng, 2) ? 1 : 0;
        CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &model.db, NULL), THRONG_OK);
        for (int i = 0; i < WORKERS; i++) {
            model.workers[i].cancel = throng_cancel_new();
            thread_start(worker_thread, &model.workers[i]);
        }
        for (int step = 0; step < scaled(400); step++) {
            random_step(&prng);
            come_to_rest();
            CHECK(fake_conns_most() <= model.limit);
        }
        while (model.holding > 0) {
            for (int i = 0; i < WORKERS; i++) {
                if (model.workers[i].state == HOLDS) {
                    model_give(i, ORDER_GIVE);
                    come_to_rest();
                }
            }
        }
        for (int i = 0; i < WORKERS; i++)
            give_order(&model.workers[i], ORDER_LEAVE);
        threads_join();
        CHECK_EQUAL(throng_db_close(model.db, 0, NULL), THRONG_OK);
        CHECK_EQUAL(fake_conns(), 0);
        CHECK_EQUAL(fake_statements(), 0);
        for (int i = 0; i < WORKERS; i++)
            throng_cancel_free(model.workers[i].cancel);
    }
}

/* --- the same without a leash --- */

struct crowd {
    throng_db *db;
    throng_stmt stmt;
    int rounds, index;
    _Atomic int *ops;
};

static void one_of_many(struct crowd *crowd, struct prng *prng)
{
    struct throng_options options = {.size = sizeof options};
    throng_rows rows;
    throng_conn conn;
    throng_tx tx;

    switch (prng_below(prng, 6)) {
    case 0:
        CHECK_EQUAL(throng_db_exec(crowd->db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        (void)atomic_fetch_add(crowd->ops, 1);
        break;
    case 1:
        CHECK_EQUAL(throng_stmt_query(&crowd->stmt, NULL, THRONG_NO_ARGS, &rows, NULL), THRONG_OK);
        CHECK_EQUAL(throng_rows_next(&rows, NULL), THRONG_ROW);
        CHECK_EQUAL(throng_rows_int(&rows, 0), 1);
        CHECK_EQUAL(throng_rows_close(&rows, NULL), THRONG_OK);
        break;
    case 2:
        CHECK_EQUAL(throng_db_begin(crowd->db, NULL, &tx, NULL), THRONG_OK);
        CHECK_EQUAL(throng_tx_exec(&tx, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        if (prng_chance(prng, 2)) {
            CHECK_EQUAL(throng_tx_commit(&tx, NULL), THRONG_OK);
            (void)atomic_fetch_add(crowd->ops, 1);
        } else {
            CHECK_EQUAL(throng_tx_rollback(&tx, NULL), THRONG_OK);
        }
        break;
    case 3:
        options.deadline_ns = throng_now_ns() + (uint64_t)prng_below(prng, 300) * 1000;
        if (throng_db_conn(crowd->db, &options, &conn, NULL) == THRONG_OK)
            CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
        break;
    case 4:
        CHECK_EQUAL(throng_db_conn(crowd->db, NULL, &conn, NULL), THRONG_OK);
        CHECK_EQUAL(throng_conn_exec(&conn, NULL, "rows 2", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        if (prng_chance(prng, 8))
            CHECK_EQUAL(throng_conn_discard(&conn, NULL), THRONG_OK);
        else
            CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
        break;
    default:
        if (prng_chance(prng, 20))
            throng_db_maintain(crowd->db);
        break;
    }
}

static void crowd_thread(void *arg)
{
    struct crowd *crowd = arg;
    struct prng prng = prng_new((uint64_t)crowd->index + 100);

    for (int i = 0; i < crowd->rounds; i++)
        one_of_many(crowd, &prng);
}

/* Property: no connection is ever used by two threads, the limits hold at any moment, every thread gets through, and
 * nothing that was done is lost or done twice. */
static void a_crowd_gets_through(void **state)
{
    struct crowd crowds[16];
    struct prng prng = prng_new(2);

    (void)state;
    for (int round = 0; round < 6; round++) {
        struct throng_db_options options = {.size = sizeof options, .max_lifetime_ns = 3000000, .check_every_ns = 1};
        struct throng_stats stats = {.size = sizeof stats};
        _Atomic int ops = 0;
        throng_stmt stmt;
        throng_db *db;

        fake_reset();
        options.max_open = (uint32_t)(1 + prng_below(&prng, 10));
        options.max_idle = (uint32_t)(1 + prng_below(&prng, (int)options.max_open));
        CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &db, NULL), THRONG_OK);
        CHECK_EQUAL(throng_db_prepare(db, NULL, "rows 3", &stmt, NULL), THRONG_OK);
        for (int i = 0; i < 16; i++) {
            crowds[i] = (struct crowd){.db = db, .stmt = stmt, .rounds = scaled(3000), .index = i, .ops = &ops};
            thread_start(crowd_thread, &crowds[i]);
        }
        threads_join();
        CHECK(fake_conns_most() <= (int)options.max_open);
        CHECK_EQUAL(fake_writes(), ops);
        CHECK_EQUAL(throng_db_stats(db, &stats, NULL), THRONG_OK);
        CHECK_EQUAL(stats.in_use, 0);
        CHECK_EQUAL(stats.waiting, 0);
        CHECK(stats.idle <= options.max_idle);
        CHECK_EQUAL(stats.open, fake_conns());
        CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
        CHECK_EQUAL(fake_conns(), 0);
        CHECK_EQUAL(fake_statements(), 0);
    }
}

/* --- who has given up, and has not left the line yet --- */

struct late {
    throng_db *db;
    throng_conn conn;
    throng_cancel *cancel;
};

static void gives_up(void *arg)
{
    struct late *late = arg;
    struct throng_options options = {.size = sizeof options, .cancel = late->cancel};

    CHECK_EQUAL(throng_db_exec(late->db, &options, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_CANCELED);
}

static void gives_back(void *arg)
{
    struct late *late = arg;

    CHECK_EQUAL(throng_conn_close(&late->conn, NULL), THRONG_OK);
}

static void comes(void *arg)
{
    struct late *late = arg;
    struct throng_options options = {.size = sizeof options, .deadline_ns = throng_after_ms(3000)};

    CHECK_EQUAL(throng_db_exec(late->db, &options, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
}

/* Property: who comes while the line has nobody in it but those who have given up does not sleep beside a connection that
 * has just been given back. (The lock of the line is held until all three stand before it, in the order that is bad.) */
static void a_line_of_those_who_gave_up_is_none(void **state)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = 1};
    struct throng_stats stats = {.size = sizeof stats};

    (void)state;
    for (int round = 0; round < scaled(20); round++) {
        struct late late = {.cancel = throng_cancel_new()};

        fake_reset();
        CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &late.db, NULL), THRONG_OK);
        CHECK_EQUAL(throng_db_conn(late.db, NULL, &late.conn, NULL), THRONG_OK);
        thread_start(gives_up, &late);
        do
            CHECK_EQUAL(throng_db_stats(late.db, &stats, NULL), THRONG_OK);
        while (stats.waiting == 0);
        thr_pool_lock(&late.db->queue_lock);
        thread_start(gives_back, &late);
        sleep_ms(3);
        thread_start(comes, &late);
        sleep_ms(3);
        throng_cancel_fire(late.cancel);
        sleep_ms(3);
        thr_pool_unlock(&late.db->queue_lock);
        threads_join();
        throng_cancel_free(late.cancel);
        CHECK_EQUAL(throng_db_close(late.db, 0, NULL), THRONG_OK);
    }
}

/* --- slices of time --- */

static void wait_for_line(throng_db *db, uint64_t length)
{
    struct throng_stats stats = {.size = sizeof stats};

    do
        CHECK_EQUAL(throng_db_stats(db, &stats, NULL), THRONG_OK);
    while (stats.waiting != length);
}

struct hog {
    throng_db *db;
    _Atomic bool *stop;
    int pause_us; /* between two turns; -1: one turn only */
};

static void takes_turns(void *arg)
{
    struct hog *hog = arg;

    do {
        CHECK_EQUAL(throng_db_exec(hog->db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        if (hog->pause_us > 0)
            thr_os_sleep_ns((uint64_t)hog->pause_us * 1000);
    } while (hog->pause_us >= 0 && !atomic_load(hog->stop));
}

/* Property: whoever may be let pass, everybody in line gets a connection: beside threads that come back at once, and
 * beside such that come back late. */
static void nobody_waits_for_ever(void **state)
{
    static const int pauses[] = {0, 20, 300};
    struct throng_db_options options = {.size = sizeof options, .max_open = 2};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        _Atomic bool stop = false;
        struct hog hog = {.stop = &stop, .pause_us = pauses[i]};

        fake_reset();
        CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &hog.db, NULL), THRONG_OK);
        for (int j = 0; j < 5; j++)
            thread_start(takes_turns, &hog);
        for (int j = 0; j < scaled(100); j++) {
            struct throng_options limits = {.size = sizeof limits, .deadline_ns = throng_after_ms(20000)};

            CHECK_EQUAL(throng_db_exec(hog.db, &limits, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        }
        atomic_store(&stop, true);
        threads_join();
        CHECK(fake_conns_most() <= 2);
        CHECK(hog.db->watcher == NULL);
        CHECK_EQUAL(throng_db_close(hog.db, 0, NULL), THRONG_OK);
    }
}

/* Property: a connection that is left free in somebody's slice of time, and not taken again, is found by who waits. */
static void what_is_left_free_is_found(void **state)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = 1};
    struct hog hog = {.pause_us = -1};
    throng_conn conn;

    (void)state;
    fake_reset();
    CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &hog.db, NULL), THRONG_OK);
    for (int round = 0; round < scaled(100); round++) {
        hog.db->slots[0].no_slices = 0; /* as if it had never been left free for long */
        CHECK_EQUAL(throng_db_conn(hog.db, NULL, &conn, NULL), THRONG_OK);
        for (int i = 0; i < 4; i++) /* one turn each, and none comes back */
            thread_start(takes_turns, &hog);
        wait_for_line(hog.db, 4);
        CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
        threads_join();
    }
    CHECK_EQUAL(throng_db_close(hog.db, 0, NULL), THRONG_OK);
}

struct rivals {
    throng_db *db;
    _Atomic int turns;
    int first, second, other; /* the turns of who comes back, and of the other one */
};

static void comes_back(void *arg)
{
    struct rivals *rivals = arg;
    throng_conn conn;

    CHECK_EQUAL(throng_db_conn(rivals->db, NULL, &conn, NULL), THRONG_OK);
    rivals->first = atomic_fetch_add(&rivals->turns, 1);
    sleep_ms(5); /* much longer than a slice */
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_conn(rivals->db, NULL, &conn, NULL), THRONG_OK);
    rivals->second = atomic_fetch_add(&rivals->turns, 1);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
}

static void comes_once(void *arg)
{
    struct rivals *rivals = arg;
    throng_conn conn;

    CHECK_EQUAL(throng_db_conn(rivals->db, NULL, &conn, NULL), THRONG_OK);
    rivals->other = atomic_fetch_add(&rivals->turns, 1);
    CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
}

/* Property: whose slice of time is over does not get the connection again before those who wait, not even at once. */
static void a_slice_ends(void **state)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = 1};

    (void)state;
    for (int round = 0; round < scaled(20); round++) {
        struct rivals rivals = {.first = -1};
        throng_conn conn;

        fake_reset();
        CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &rivals.db, NULL), THRONG_OK);
        CHECK_EQUAL(throng_db_conn(rivals.db, NULL, &conn, NULL), THRONG_OK);
        thread_start(comes_back, &rivals);
        wait_for_line(rivals.db, 1);
        thread_start(comes_once, &rivals);
        wait_for_line(rivals.db, 2);
        CHECK_EQUAL(throng_conn_close(&conn, NULL), THRONG_OK);
        threads_join();
        CHECK_EQUAL(rivals.first, 0);
        CHECK_EQUAL(rivals.other, 1);
        CHECK_EQUAL(rivals.second, 2);
        CHECK_EQUAL(throng_db_close(rivals.db, 0, NULL), THRONG_OK);
    }
}

/* Property: a connection that was left free in a slice of time becomes too old like any other. */
static void what_is_left_free_grows_old(void **state)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = 1, .max_idle_time_ns = 1, .no_thread = 1};
    struct throng_stats stats = {.size = sizeof stats};
    throng_db *db;

    (void)state;
    fake_reset();
    CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &db, NULL), THRONG_OK);
    atomic_store(&db->slots[0].state, THR_SLOT_IDLE | THR_SLOT_ATTENTION | THR_SLOT_SLICE); /* and who waited is gone */
    db->slices = 1;
    throng_db_maintain(db);
    sleep_ms(1);
    throng_db_maintain(db);
    CHECK_EQUAL(throng_db_stats(db, &stats, NULL), THRONG_OK);
    CHECK_EQUAL(stats.open, 0);
    CHECK_EQUAL(stats.closed_idle_time, 1);
    CHECK_EQUAL(db->slices, 0);
    CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
}

/* Property: as long as there is a connection for each thread, a statement takes no lock of the pool. */
static void with_a_connection_each_nobody_takes_a_lock(void **state)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = 4};
    struct throng_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    throng_rows rows;
    throng_stmt stmt;
    throng_db *db;

    (void)state;
    fake_reset();
    CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &db, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "rows 1", &stmt, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_stats(db, &before, NULL), THRONG_OK);
    for (int i = 0; i < 100; i++) {
        CHECK_EQUAL(throng_stmt_query(&stmt, NULL, THRONG_NO_ARGS, &rows, NULL), THRONG_OK);
        CHECK_EQUAL(throng_rows_next(&rows, NULL), THRONG_ROW);
        CHECK_EQUAL(throng_rows_close(&rows, NULL), THRONG_OK);
    }
    CHECK_EQUAL(throng_db_stats(db, &after, NULL), THRONG_OK);
    CHECK_EQUAL(after.lock_acquired - before.lock_acquired, 1); /* that of throng_db_stats() */
    CHECK_EQUAL(after.statements - before.statements, 100);
    CHECK_EQUAL(after.cache_misses, before.cache_misses);
    CHECK_EQUAL(after.opened, 1);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_does_what_the_model_does),
        cmocka_unit_test(a_crowd_gets_through),
        cmocka_unit_test(a_line_of_those_who_gave_up_is_none),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(what_is_left_free_is_found),
        cmocka_unit_test(a_slice_ends),
        cmocka_unit_test(what_is_left_free_grows_old),
        cmocka_unit_test(with_a_connection_each_nobody_takes_a_lock),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
