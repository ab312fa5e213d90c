/* Errors that are injected into src/os and into SQLite's memory, and the memory itself: one arena for the engine and SQLite, so
 * that a schedule finds the same addresses each time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    FAULT_NOTHING,
    FAULT_MEMORY,
    FAULT_SQLITE_MEMORY,
    FAULT_WRITE,
    FAULT_ANY_CALL,
    FAULT_SYNC,
    FAULT_SPACE,
    FAULT_KINDS
};

/* The `after`th call of that kind fails, and if `every` is not 0 all that follow. */
void fault_arm(int kind, uint32_t after, uint32_t every);
void fault_disarm(void);
uint32_t fault_hits(void); /* since it was armed */

void memory_setup(void); /* before SQLite starts */
void memory_mark(void);  /* what is there now stays */
void memory_reset(void); /* all else is gone */

#endif
