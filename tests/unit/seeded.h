/* How a test with a seed begins and ends: no faults armed, the seed known and printed with the command that replays it.
 * Include it after <cmocka.h>.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SEEDED_H
#define THR_SEEDED_H

#include <inttypes.h>

#include "fault.h"

static uint64_t seed;

static inline void seeded_begin(const char *program)
{
    seed = fault_environment_seed();
    fault_reset();
    fault_seed(seed);
    print_message("replay: THRONG_SEED=%" PRIu64 " build/tests/%s\n", seed, program);
}

/* After each test: the next one begins where it would begin alone. */
static inline int seeded_end(void **state)
{
    (void)state;
    fault_reset();
    fault_seed(seed);
    return 0;
}

static inline uint32_t seeded_below(uint32_t n)
{
    return (uint32_t)(fault_random() % n);
}

#endif
