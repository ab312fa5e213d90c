/* Cancel tokens.
 *
 * A token must never stop somebody else: by the time it fires, the connection may be in other hands. So it has a list of
 * what is to be stopped, and a lock. Firing walks the list under the lock; who has finished takes itself from the list
 * under the lock as well, before the connection goes on. So `stop` runs while the one to be stopped is still there, or
 * not at all. `stop` never takes a lock of the pool.
 *
 * SPDX-License-Identifier: MIT */
#include "../os/assert.h"
#include "../os/os.h"
#include "pool.h"

/*   field   writer      guard
 *   first   any thread  lock
 *   fired   any thread  lock; atomic for who only looks */
struct throng_cancel {
    pthread_mutex_t lock;
    struct thr_registration *first;
    _Atomic bool fired;
};

throng_cancel *throng_cancel_new(void)
{
    throng_cancel *cancel = thr_os_alloc(sizeof *cancel);

    if (cancel != NULL && pthread_mutex_init(&cancel->lock, NULL) != 0) {
        thr_os_free(cancel);
        return NULL;
    }
    return cancel;
}

void throng_cancel_free(throng_cancel *cancel)
{
    if (cancel == NULL)
        return;
    THR_ASSERT(cancel->first == NULL);
    (void)pthread_mutex_destroy(&cancel->lock);
    thr_os_free(cancel);
}

void throng_cancel_fire(throng_cancel *cancel)
{
    (void)pthread_mutex_lock(&cancel->lock);
    if (!atomic_exchange_explicit(&cancel->fired, true, memory_order_release)) { /* pairs with throng_cancel_fired() */
        for (struct thr_registration *at = cancel->first; at != NULL; at = at->next) {
            at->fired = true;
            at->stop(at->arg);
        }
    }
    (void)pthread_mutex_unlock(&cancel->lock);
}

int throng_cancel_fired(const throng_cancel *cancel)
{
    return atomic_load_explicit(&cancel->fired, memory_order_acquire); /* pairs with throng_cancel_fire() */
}

bool thr_cancel_register(throng_cancel *cancel, struct thr_registration *registration)
{
    bool fired;

    (void)pthread_mutex_lock(&cancel->lock);
    fired = atomic_load_explicit(&cancel->fired, memory_order_relaxed);
    if (!fired) {
        registration->fired = false;
        registration->prev = NULL;
        registration->next = cancel->first;
        if (cancel->first != NULL)
            cancel->first->prev = registration;
        cancel->first = registration;
    }
    (void)pthread_mutex_unlock(&cancel->lock);
    return !fired;
}

bool thr_cancel_unregister(throng_cancel *cancel, struct thr_registration *registration)
{
    bool fired;

    (void)pthread_mutex_lock(&cancel->lock);
    if (registration->prev != NULL)
        registration->prev->next = registration->next;
    else
        cancel->first = registration->next;
    if (registration->next != NULL)
        registration->next->prev = registration->prev;
    fired = registration->fired;
    (void)pthread_mutex_unlock(&cancel->lock);
    return fired;
}

bool thr_cancel_ask(throng_cancel *cancel)
{
    bool fired;

    (void)pthread_mutex_lock(&cancel->lock);
    fired = atomic_load_explicit(&cancel->fired, memory_order_relaxed);
    (void)pthread_mutex_unlock(&cancel->lock);
    return fired;
}

/* --- a sleep that can be ended --- */

static void wake(void *arg)
{
    _Atomic uint32_t *word = arg;

    atomic_store_explicit(word, 1, memory_order_relaxed);
    thr_os_futex_wake(word, 1);
}

bool thr_cancel_sleep(throng_cancel *cancel, uint64_t ns)
{
    _Atomic uint32_t word = 0;
    struct thr_registration registration = {.stop = wake, .arg = &word};
    uint64_t end_ns = thr_later(thr_os_now_ns(), ns), now;

    if (!thr_cancel_register(cancel, &registration))
        return false;
    while (atomic_load_explicit(&word, memory_order_relaxed) == 0 && (now = thr_os_now_ns()) < end_ns)
        (void)thr_os_futex_wait(&word, 0, end_ns - now);
    return !thr_cancel_unregister(cancel, &registration);
}
