/* SPDX-License-Identifier: MIT */
#include "mutex.h"

#include "../os/os.h"

/* About 15 us: longer than any section that is entered on every commit, shorter than being put to sleep and woken. */
enum { SPINS = 300 };
static const uint64_t MUTEX_PATIENCE_NS = 1000000;

/* Kinds of waiters: a lock that is handed over wakes one of those that may take it, not all that wait. */
enum { KIND_PATIENT = 1, KIND_HUNGRY = 2 };

/* By the holder, so a load and a store will do. */
static void count_acquired(struct thr_mutex *mutex)
{
    uint64_t acquired = atomic_load_explicit(&mutex->acquired, memory_order_relaxed);

    atomic_store_explicit(&mutex->acquired, acquired + 1, memory_order_relaxed);
}

bool thr_mutex_try(struct thr_mutex *mutex)
{
    uint32_t free_word = 0;

    /* seq_cst, not just acquire: what the holder reads next must not pass the taking (pairs with protected_touch()). */
    if (!atomic_compare_exchange_strong_explicit(&mutex->word, &free_word, 1, memory_order_seq_cst,
                                                 memory_order_relaxed))
        return false;
    count_acquired(mutex);
    return true;
}

static void note_wait(struct thr_mutex *mutex, uint64_t began_ns)
{
    uint64_t waited_ns = thr_os_now_ns() - began_ns;
    uint64_t longest_ns = atomic_load_explicit(&mutex->longest_ns, memory_order_relaxed);

    atomic_fetch_add_explicit(&mutex->contended, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&mutex->wait_ns, waited_ns, memory_order_relaxed);
    while (waited_ns > longest_ns && !atomic_compare_exchange_weak_explicit(&mutex->longest_ns, &longest_ns, waited_ns,
                                                                            memory_order_relaxed, memory_order_relaxed))
        ;
}

/* One who is hungry may take a lock that was handed over; the word stays non-zero all the while. */
static bool take_handed(struct thr_mutex *mutex)
{
    uint32_t one = 1;

    return atomic_compare_exchange_strong_explicit(&mutex->handed, &one, 0, memory_order_acquire,
                                                   memory_order_relaxed); /* pairs with thr_mutex_unlock() */
}

/* Give up hunger. The lock may have been handed over at the last moment: then it is ours, wanted or not. */
static bool stop_hungry(struct thr_mutex *mutex)
{
    bool taken = take_handed(mutex);

    if (atomic_fetch_sub_explicit(&mutex->hungry, 1, memory_order_seq_cst) == 1 && !taken)
        taken = take_handed(mutex);
    return taken;
}

bool thr_mutex_lock(struct thr_mutex *mutex, uint64_t timeout_ns)
{
    uint64_t spun_ns, began_ns, waited_ns, rest_ns;
    bool hungry = false, held = false;

    if (thr_mutex_try(mutex))
        return true;
    spun_ns = thr_os_now_ns();
    for (int i = 0; i < SPINS; i++) {
        thr_os_pause();
        if (atomic_load_explicit(&mutex->word, memory_order_relaxed) == 0 && thr_mutex_try(mutex)) {
            note_wait(mutex, spun_ns);
            return true;
        }
    }
    began_ns = thr_os_now_ns();
    while (!held) {
        if (atomic_exchange_explicit(&mutex->word, 2, memory_order_seq_cst) == 0) {
            held = true;
            break;
        }
        if (hungry && take_handed(mutex)) {
            held = true;
            break;
        }
        waited_ns = thr_os_now_ns() - began_ns;
        if (waited_ns >= timeout_ns)
            break;
        if (!hungry && waited_ns >= MUTEX_PATIENCE_NS) {
            atomic_fetch_add_explicit(&mutex->hungry, 1, memory_order_seq_cst);
            hungry = true;
            continue;
        }
        rest_ns = timeout_ns == UINT64_MAX ? UINT64_MAX : timeout_ns - waited_ns;
        if (!hungry && rest_ns > MUTEX_PATIENCE_NS)
            rest_ns = MUTEX_PATIENCE_NS;
        if (hungry && rest_ns > 10 * MUTEX_PATIENCE_NS)
            rest_ns = 10 * MUTEX_PATIENCE_NS; /* a wake-up may go to another: look again */
        thr_os_futex_wait_as(&mutex->word, 2, rest_ns, hungry ? KIND_HUNGRY : KIND_PATIENT);
    }
    if (hungry && stop_hungry(mutex)) {
        if (held)
            thr_mutex_unlock(mutex); /* both ways at once cannot be: see THR_ASSERT in the test */
        held = true;
    }
    if (held)
        count_acquired(mutex);
    note_wait(mutex, spun_ns);
    return held;
}

void thr_mutex_unlock(struct thr_mutex *mutex)
{
    if (atomic_load_explicit(&mutex->hungry, memory_order_relaxed) != 0) {
        /* Hand over: the word stays at 2, so that nobody but a hungry waiter can take it. */
        atomic_store_explicit(&mutex->word, 2, memory_order_relaxed);
        atomic_store_explicit(&mutex->handed, 1, memory_order_seq_cst); /* pairs with take_handed() */
        if (atomic_load_explicit(&mutex->hungry, memory_order_seq_cst) != 0 || !take_handed(mutex)) {
            thr_os_futex_wake_of(&mutex->word, 1, KIND_HUNGRY);
            return;
        }
    }
    if (atomic_exchange_explicit(&mutex->word, 0, memory_order_release) == 2) /* pairs with thr_mutex_try() */
        thr_os_futex_wake(&mutex->word, 1);
}
