/* Where threads wait for each other before a measurement begins.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_START_H
#define THR_BENCH_START_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct thr_start {
    pthread_mutex_t lock; /* of the two below */
    pthread_cond_t changed;
    uint32_t ready;
    bool started;
};

void thr_start_open(struct thr_start *start);
void thr_start_close(struct thr_start *start);
void thr_start_wait(struct thr_start *start);                     /* a thread: it is ready, and waits for the signal */
void thr_start_gather(struct thr_start *start, uint32_t threads); /* until so many are ready */
void thr_start_signal(struct thr_start *start);

#endif
