/* Properties of the mutex in shared memory.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "mutex.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define LONG (60000 * MS) /* what happens later than this has not happened in time, however busy the machine */

enum { THREADS = 4, TURNS = 40000 };

static struct thr_mutex mutex;
static uint64_t counter; /* guarded by the mutex, and by nothing else */
static _Atomic uint32_t inside, broken, stop;

static int setup(void **state)
{
    (void)state;
    memset(&mutex, 0, sizeof mutex);
    counter = 0;
    atomic_store(&inside, 0);
    atomic_store(&broken, 0);
    atomic_store(&stop, 0);
    fault_reset();
    return 0;
}

/* What every user of the lock does while it has it. */
static void use_it(void)
{
    if (atomic_fetch_add_explicit(&inside, 1, memory_order_relaxed) != 0)
        atomic_store_explicit(&broken, 1, memory_order_relaxed);
    counter++;
    (void)atomic_fetch_sub_explicit(&inside, 1, memory_order_relaxed);
}

static void start(pthread_t *threads, int count, void *(*fn)(void *), void *ctx)
{
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fn, ctx), 0);
}

static void join(const pthread_t *threads, int count)
{
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* Nobody has it, nobody waits. */
static void assert_at_rest(void)
{
    assert_int_equal(atomic_load(&mutex.word), 0);
    assert_int_equal(atomic_load(&mutex.hungry), 0);
    assert_int_equal(atomic_load(&mutex.handed), 0);
    assert_int_equal(atomic_load(&broken), 0);
    assert_true(thr_mutex_try(&mutex));
    assert_false(thr_mutex_try(&mutex));
    thr_mutex_unlock(&mutex);
}

static void *take_turns(void *ctx)
{
    (void)ctx;
    for (int i = 0; i < TURNS; i++) {
        if (!thr_mutex_lock(&mutex, UINT64_MAX))
            atomic_store(&broken, 1);
        use_it();
        thr_mutex_unlock(&mutex);
    }
    return NULL;
}

/* Property: never two at once, and every turn is had. */
static void one_at_a_time(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    start(threads, THREADS, take_turns, NULL);
    join(threads, THREADS);
    assert_int_equal(counter, (uint64_t)THREADS * TURNS);
    assert_int_equal(atomic_load(&mutex.acquired), (uint64_t)THREADS * TURNS);
    assert_at_rest();
}

static _Atomic uint64_t had;

/* With timeouts around the time at which patience ends, and holding times to match, so that some give up in the very
 * moment that they are handed the lock. */
static void *try_with_timeout(void *ctx)
{
    (void)ctx;
    while (atomic_load(&stop) == 0) {
        if (thr_mutex_lock(&mutex, fault_random() % (3 * MS))) {
            use_it();
            (void)atomic_fetch_add(&had, 1);
            if (fault_random() % 4 == 0)
                thr_os_sleep_ns(fault_random() % (2 * MS));
            thr_mutex_unlock(&mutex);
        }
    }
    return NULL;
}

/* Property: whoever gives up waiting neither keeps the lock nor loses it for others: after any mixture of timeouts,
 * hand-overs and turns it is free. */
static void giving_up_leaves_the_lock_whole(void **state)
{
    pthread_t threads[THREADS + 2];

    (void)state;
    atomic_store(&had, 0);
    start(threads, THREADS + 2, try_with_timeout, NULL);
    thr_os_sleep_ns(1500 * MS);
    while (atomic_load(&had) <= 100)
        thr_os_sleep_ns(MS);
    atomic_store(&stop, 1);
    join(threads, THREADS + 2);
    assert_int_equal(counter, atomic_load(&had));
    assert_int_equal(atomic_load(&mutex.acquired), atomic_load(&had));
    assert_at_rest();
}

/* Property: waiting ends when the time is up, not before and not much later, and then the lock is not held. */
static void waiting_ends_in_time(void **state)
{
    static const uint64_t TIMES[] = {0, MS / 10, MS, 3 * MS, 30 * MS};

    (void)state;
    assert_true(thr_mutex_lock(&mutex, 0));
    for (size_t i = 0; i < sizeof TIMES / sizeof TIMES[0]; i++) {
        uint64_t began = thr_os_now_ns(), took;

        assert_false(thr_mutex_lock(&mutex, TIMES[i]));
        took = thr_os_now_ns() - began;
        assert_true(took >= TIMES[i]);
        assert_true(took < TIMES[i] + LONG);
        assert_int_equal(atomic_load(&mutex.hungry), 0);
    }
    thr_mutex_unlock(&mutex);
    assert_at_rest();
}

/* Takes the lock again as soon as it has released it. */
static void *hog(void *ctx)
{
    (void)ctx;
    while (atomic_load(&stop) == 0) {
        if (!thr_mutex_lock(&mutex, UINT64_MAX))
            atomic_store(&broken, 1);
        use_it();
        thr_os_sleep_ns(MS / 5);
        thr_mutex_unlock(&mutex);
    }
    return NULL;
}

/* Property: who has lost patience is next but for others that have: nobody starves beside those who never let go. */
static void nobody_starves(void **state)
{
    pthread_t threads[2];

    (void)state;
    start(threads, 2, hog, NULL);
    thr_os_sleep_ns(20 * MS);
    for (int i = 0; i < 50; i++) {
        assert_true(thr_mutex_lock(&mutex, LONG));
        use_it();
        thr_mutex_unlock(&mutex);
    }
    atomic_store(&stop, 1);
    join(threads, 2);
    assert_at_rest();
}

static _Atomic uint32_t waiting_done;

static void *wait_once(void *ctx)
{
    (void)ctx;
    if (!thr_mutex_lock(&mutex, UINT64_MAX))
        atomic_store(&broken, 1);
    atomic_store(&waiting_done, 1);
    use_it();
    thr_mutex_unlock(&mutex);
    return NULL;
}

/* Property: a holder that releases while somebody is hungry hands over: even at once it cannot take the lock back, not
 * before the hungry one had it. It only tries: whoever waits longer than his patience is hungry, too, and may be next. */
static void a_release_hands_over_to_the_hungry(void **state)
{
    pthread_t thread;

    (void)state;
    atomic_store(&waiting_done, 0);
    assert_true(thr_mutex_try(&mutex));
    start(&thread, 1, wait_once, NULL);
    while (atomic_load(&mutex.hungry) == 0)
        thr_os_sleep_ns(MS / 10);
    thr_mutex_unlock(&mutex);
    while (!thr_mutex_try(&mutex))
        sched_yield();
    assert_int_equal(atomic_load(&waiting_done), 1);
    thr_mutex_unlock(&mutex);
    join(&thread, 1);
    assert_at_rest();
    assert_true(atomic_load(&mutex.contended) >= 1);
    assert_true(atomic_load(&mutex.longest_ns) >= MS);
}

/* Property: who finds the lock free is counted and does not wait; who does not find it free is counted as well, whether he
 * gets it or not, with all of the time that he waited. */
static void waits_are_counted(void **state)
{
    pthread_t thread;

    (void)state;
    assert_true(thr_mutex_try(&mutex));
    assert_false(thr_mutex_try(&mutex));
    thr_mutex_unlock(&mutex);
    assert_true(thr_mutex_lock(&mutex, UINT64_MAX));
    assert_int_equal(atomic_load(&mutex.acquired), 2);
    assert_int_equal(atomic_load(&mutex.contended), 0);
    assert_int_equal(atomic_load(&mutex.wait_ns), 0);
    assert_false(thr_mutex_lock(&mutex, 5 * MS));
    assert_int_equal(atomic_load(&mutex.acquired), 2);
    assert_int_equal(atomic_load(&mutex.contended), 1);
    assert_true(atomic_load(&mutex.wait_ns) >= 5 * MS);
    assert_int_equal(atomic_load(&mutex.longest_ns), atomic_load(&mutex.wait_ns));
    start(&thread, 1, wait_once, NULL);
    while (atomic_load(&mutex.hungry) == 0)
        thr_os_sleep_ns(MS / 10);
    thr_os_sleep_ns(20 * MS);
    thr_mutex_unlock(&mutex);
    join(&thread, 1);
    assert_int_equal(atomic_load(&mutex.acquired), 3);
    assert_int_equal(atomic_load(&mutex.contended), 2);
    assert_true(atomic_load(&mutex.longest_ns) >= 20 * MS);
    assert_true(atomic_load(&mutex.wait_ns) >= 25 * MS);
    assert_at_rest();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_at_a_time, setup),
        cmocka_unit_test_setup(giving_up_leaves_the_lock_whole, setup),
        cmocka_unit_test_setup(waiting_ends_in_time, setup),
        cmocka_unit_test_setup(nobody_starves, setup),
        cmocka_unit_test_setup(a_release_hands_over_to_the_hungry, setup),
        cmocka_unit_test_setup(waits_are_counted, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
