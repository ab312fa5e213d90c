/* Locks of the pool, which count how often somebody found them taken. None is taken in the fast path.
 *
 * SPDX-License-Identifier: MIT */
#include "pool.h"

void thr_pool_lock(struct thr_pool_lock *lock)
{
    bool contended = pthread_mutex_trylock(&lock->mutex) != 0;

    if (contended)
        (void)pthread_mutex_lock(&lock->mutex);
    thr_count(&lock->acquired, 1);
    thr_count(&lock->contended, contended);
}

void thr_pool_unlock(struct thr_pool_lock *lock)
{
    (void)pthread_mutex_unlock(&lock->mutex);
}
