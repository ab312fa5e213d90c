/* Between the files of this directory only.
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_SUPPORT_INTERNAL_H
#define TEST_SUPPORT_INTERNAL_H

#include <stdint.h>

void check_in_child(void);        /* the calling process is a forked child */
_Noreturn void check_leave(void); /* end this thread, child or test: a failure has been reported */
/* Processor time of this process and the children that it has started. Async-signal-safe. */
uint64_t children_cpu_ms(void);

/* What the watchdog takes for a hang, for its own test. */
struct watchdog_limits {
    unsigned look_s;   /* so often it looks */
    int still_looks;   /* so many looks */
    uint64_t still_ms; /* at no more than this of processor time */
    uint64_t busy_ms;
};
extern struct watchdog_limits watchdog_limits;

#endif
