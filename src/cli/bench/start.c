/* SPDX-License-Identifier: MIT */
#include "start.h"

void thr_start_open(struct thr_start *start)
{
    *start = (struct thr_start){0};
    (void)pthread_mutex_init(&start->lock, NULL);
    (void)pthread_cond_init(&start->changed, NULL);
}

void thr_start_close(struct thr_start *start)
{
    (void)pthread_cond_destroy(&start->changed);
    (void)pthread_mutex_destroy(&start->lock);
}

void thr_start_wait(struct thr_start *start)
{
    (void)pthread_mutex_lock(&start->lock);
    start->ready++;
    (void)pthread_cond_broadcast(&start->changed);
    while (!start->started)
        (void)pthread_cond_wait(&start->changed, &start->lock);
    (void)pthread_mutex_unlock(&start->lock);
}

void thr_start_gather(struct thr_start *start, uint32_t threads)
{
    (void)pthread_mutex_lock(&start->lock);
    while (start->ready < threads)
        (void)pthread_cond_wait(&start->changed, &start->lock);
    (void)pthread_mutex_unlock(&start->lock);
}

void thr_start_signal(struct thr_start *start)
{
    (void)pthread_mutex_lock(&start->lock);
    start->started = true;
    (void)pthread_cond_broadcast(&start->changed);
    (void)pthread_mutex_unlock(&start->lock);
}
