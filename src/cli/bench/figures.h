/* Processor time, and what becomes of the figures of several rounds.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_FIGURES_H
#define THR_BENCH_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

double thr_cpu_us(void); /* of the whole process, so far */
void thr_sleep_ns(uint64_t ns);
/* Until then (thr_clock_ns()), or an interrupt. Calls `tick`, unless it is NULL, now and then, with the part that is
 * over, 0..1. */
void thr_sleep_until(uint64_t end_ns, void (*tick)(void *ctx, double done), void *ctx);

/* Of the same figure of `rounds` (at most 1000) results, `stride` apart: the median, or the largest. Those that are NAN
 * do not count; NAN if there is no other. */
double thr_figure_of_rounds(const double *first, uint32_t rounds, size_t stride, bool largest);

#endif
