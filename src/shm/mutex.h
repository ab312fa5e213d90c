/* A mutex in shared memory: three states and a futex (U. Drepper, "Futexes are tricky", 2011), with a short spin
 * first. A thread that arrives may overtake one that sleeps: on short critical sections that is worth more than order.
 * Whoever has waited longer than MUTEX_PATIENCE_NS asks for the next turn, and the holder then hands over instead of
 * releasing (as in Go's sync.Mutex), so that nobody starves.
 *
 *   off size field     writer               guard
 *     0    4 word      everyone             atomic: 0 free, 1 held, 2 held and maybe waited for
 *     4    4 hungry    everyone             atomic: how many have lost patience
 *     8    4 handed    holder, the hungry   atomic: 1 while the lock is on its way to a hungry waiter
 *    12    4 owner     holder               slot + 1 of the holder, for messages
 *    16    8 contended the one who waited   atomic, statistics: how often it was not free at once
 *    24    8 wait_ns   the one who waited   atomic, statistics: spinning included
 *    32    8 longest_ns the one who waited  atomic, statistics
 *    40    8 acquired  holder               the mutex itself; atomic for those who read it, statistics
 *
 * Counting costs whoever finds the lock free a store to the line that he has just written anyway.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_MUTEX_H
#define THR_MUTEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct thr_mutex {
    _Atomic uint32_t word;
    _Atomic uint32_t hungry;
    _Atomic uint32_t handed;
    _Atomic uint32_t owner;
    _Atomic uint64_t contended;
    _Atomic uint64_t wait_ns;
    _Atomic uint64_t longest_ns;
    _Atomic uint64_t acquired;
    uint8_t pad[16];
};

_Static_assert(sizeof(struct thr_mutex) == 64, "a cache line");

/* Waits at most `timeout_ns` (UINT64_MAX: as long as it takes). Returns whether the lock is held. */
bool thr_mutex_lock(struct thr_mutex *mutex, uint64_t timeout_ns);
bool thr_mutex_try(struct thr_mutex *mutex);
void thr_mutex_unlock(struct thr_mutex *mutex);
/* By whichever thread: for asserts. */
static inline bool thr_mutex_is_held(const struct thr_mutex *mutex)
{
    return atomic_load_explicit(&mutex->word, memory_order_relaxed) != 0;
}

#endif
