/* xoshiro256**: random numbers that cost next to nothing beside a transaction. A state belongs to one thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_RANDOM_H
#define THR_CLI_RANDOM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct thr_random {
    uint64_t s[4];
};

/* Nearby seeds give unrelated sequences (splitmix64). */
static inline void thr_random_seed(struct thr_random *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        random->s[i] = z ^ (z >> 31);
    }
}

static inline uint64_t thr_random_next(struct thr_random *random)
{
    uint64_t *s = random->s, x = s[1] * 5, result = ((x << 7) | (x >> 57)) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/* 0 .. limit - 1, for limits far below 2^64. */
static inline uint64_t thr_random_below(struct thr_random *random, uint64_t limit)
{
    return thr_random_next(random) % limit;
}

static inline void thr_random_fill(struct thr_random *random, uint8_t *to, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t value = thr_random_next(random);

        memcpy(to + at, &value, bytes - at < 8 ? bytes - at : 8);
    }
}

#endif
