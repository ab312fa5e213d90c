/* Put in front of every file of the engine in the simulator's build of it (-include): each atomic operation with an order
 * stronger than relaxed, and each lock of pthread, asks the simulator first, and thread-local variables are those of a fiber.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_INSTRUMENT_H
#define SIM_INSTRUMENT_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

void sim_switch(void);
void sim_hush(int more); /* no switches meanwhile */
int sim_mutex_lock(pthread_mutex_t *mutex);
int sim_mutex_unlock(pthread_mutex_t *mutex);
int sim_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int sim_cond_broadcast(pthread_cond_t *cond);
void *sim_alloc_zeroed(size_t bytes);
void *sim_realloc(void *old, size_t bytes);
void sim_free(void *p);
int sim_fdatasync(int fd);
int sim_fsync(int fd);

/* The order is evaluated once for each operation, before it. What the compiler makes of one that it does not know at compile
 * time is the strongest: one thread runs at a time, so that is right in any case. */
#define memory_order_consume (sim_switch(), __ATOMIC_CONSUME)
#define memory_order_acquire (sim_switch(), __ATOMIC_ACQUIRE)
#define memory_order_release (sim_switch(), __ATOMIC_RELEASE)
#define memory_order_acq_rel (sim_switch(), __ATOMIC_ACQ_REL)
#define memory_order_seq_cst (sim_switch(), __ATOMIC_SEQ_CST)

#define _Thread_local __attribute__((section("sim_local")))

#define pthread_mutex_lock(mutex) sim_mutex_lock(mutex)
#define pthread_mutex_unlock(mutex) sim_mutex_unlock(mutex)
#define pthread_cond_wait(cond, mutex) sim_cond_wait(cond, mutex)
#define pthread_cond_broadcast(cond) sim_cond_broadcast(cond)

/* From one arena, so that the same seed finds the same addresses. */
#define calloc(count, bytes) sim_alloc_zeroed((count) * (bytes))
#define aligned_alloc(alignment, bytes) sim_alloc_zeroed(bytes)
#define realloc(old, bytes) sim_realloc(old, bytes)
#define free(p) sim_free(p)

#define THR_SLOW_ASSERT(condition) \
    do {                           \
        sim_hush(1);               \
        THR_ASSERT(condition);     \
        sim_hush(-1);              \
    } while (0)

#define fdatasync(fd) sim_fdatasync(fd)
#define fsync(fd) sim_fsync(fd)
#define readlink(path, to, bytes) ((void)(path), (void)(to), (ssize_t)-1) /* which file a call is about is not asked */

#endif
