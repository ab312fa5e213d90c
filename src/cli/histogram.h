/* Latencies, log-linear: 64 buckets for each power of two, so any figure is right to 1.6 %. One writer at a time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_HISTOGRAM_H
#define THR_CLI_HISTOGRAM_H

#include <stdint.h>

#define THR_HISTOGRAM_SUB 64 /* a power of two */
#define THR_HISTOGRAM_BUCKETS ((64 - 6 + 1) * THR_HISTOGRAM_SUB)

struct thr_histogram {
    uint64_t count;
    uint64_t max_ns;
    uint64_t bucket[THR_HISTOGRAM_BUCKETS];
};

void thr_histogram_reset(struct thr_histogram *histogram);
void thr_histogram_add(struct thr_histogram *histogram, uint64_t ns);
void thr_histogram_merge(struct thr_histogram *into, const struct thr_histogram *from);
/* The value that `part` (0..1) of all are at or under; 0 for an empty one. Never above max_ns. */
uint64_t thr_histogram_quantile(const struct thr_histogram *histogram, double part);

#endif
