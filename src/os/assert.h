/* Asserts for our own logic. They stay on in release builds: a database is better stopped than corrupted.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_ASSERT_H
#define THR_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

#define THR_ASSERT(condition)                                                                         \
    do {                                                                                              \
        if (__builtin_expect(!(condition), 0)) {                                                      \
            fprintf(stderr, "throng: %s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                                  \
        }                                                                                             \
    } while (0)

/* Costly scans, only in builds with -DTHR_SLOW_ASSERTS. */
#if defined(THR_SLOW_ASSERT) /* the simulator's: nothing else runs meanwhile */
#elif defined(THR_SLOW_ASSERTS)
#define THR_SLOW_ASSERT(condition) THR_ASSERT(condition)
#else
#define THR_SLOW_ASSERT(condition) ((void)0)
#endif

#endif
