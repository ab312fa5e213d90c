/* SPDX-License-Identifier: MIT */
#include "figures.h"

#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "../clock.h"
#include "../interrupt.h"

#define MAX_ROUNDS 1000
#define TICK_NS UINT64_C(50000000) /* so that an interrupt is noticed */

double thr_cpu_us(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void thr_sleep_ns(uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

    (void)nanosleep(&time, NULL);
}

void thr_sleep_until(uint64_t end_ns, void (*tick)(void *ctx, double done), void *ctx)
{
    uint64_t begin_ns = thr_clock_ns(), now_ns;

    while ((now_ns = thr_clock_ns()) < end_ns && !thr_interrupted()) {
        if (tick != NULL)
            tick(ctx, (double)(now_ns - begin_ns) / (double)(end_ns - begin_ns));
        thr_sleep_ns(end_ns - now_ns < TICK_NS ? end_ns - now_ns : TICK_NS);
    }
}

static int compare_reals(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double thr_figure_of_rounds(const double *first, uint32_t rounds, size_t stride, bool largest)
{
    double value[MAX_ROUNDS];
    uint32_t count = 0;

    for (uint32_t i = 0; i < rounds && count < MAX_ROUNDS; i++) {
        if (!isnan(first[i * stride]))
            value[count++] = first[i * stride];
    }
    if (count == 0)
        return (double)NAN;
    qsort(value, count, sizeof *value, compare_reals);
    if (largest)
        return value[count - 1];
    return count % 2 == 1 ? value[count / 2] : (value[count / 2 - 1] + value[count / 2]) / 2;
}
