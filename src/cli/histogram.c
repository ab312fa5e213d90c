/* Log-linear histogram of latencies.
 *
 * SPDX-License-Identifier: MIT */
#include "histogram.h"

#include <string.h>

#define SUB_BITS 6

_Static_assert(THR_HISTOGRAM_SUB == 1 << SUB_BITS, "the buckets of one power of two");

/* Values under 64 have a bucket each; from there on the top bit chooses the row and the next six the place in it. */
static uint32_t bucket_of(uint64_t ns)
{
    uint32_t top;

    if (ns < THR_HISTOGRAM_SUB)
        return (uint32_t)ns;
    top = 63 - (uint32_t)__builtin_clzll(ns);
    return (top - SUB_BITS + 1) * THR_HISTOGRAM_SUB + ((uint32_t)(ns >> (top - SUB_BITS)) & (THR_HISTOGRAM_SUB - 1));
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_end(uint32_t bucket)
{
    uint32_t row = bucket / THR_HISTOGRAM_SUB, place = bucket % THR_HISTOGRAM_SUB;

    if (row == 0)
        return place;
    return (((uint64_t)THR_HISTOGRAM_SUB + place) << (row - 1)) + ((UINT64_C(1) << (row - 1)) - 1);
}

void thr_histogram_reset(struct thr_histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

void thr_histogram_add(struct thr_histogram *histogram, uint64_t ns)
{
    histogram->bucket[bucket_of(ns)]++;
    histogram->count++;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
}

void thr_histogram_merge(struct thr_histogram *into, const struct thr_histogram *from)
{
    for (uint32_t i = 0; i < THR_HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
    into->count += from->count;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
}

uint64_t thr_histogram_quantile(const struct thr_histogram *histogram, double part)
{
    uint64_t wanted = (uint64_t)(part * (double)histogram->count + 0.5), seen = 0;

    if (wanted == 0)
        wanted = 1;
    for (uint32_t i = 0; i < THR_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->bucket[i];
        if (seen >= wanted)
            return bucket_end(i) < histogram->max_ns ? bucket_end(i) : histogram->max_ns;
    }
    return histogram->max_ns;
}
