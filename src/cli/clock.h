/* SPDX-License-Identifier: MIT */
#ifndef THR_CLI_CLOCK_H
#define THR_CLI_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t thr_clock_ns(void) /* monotonic */
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

#endif
