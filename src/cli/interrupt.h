/* SIGINT, SIGTERM and SIGHUP ask the command to clean up and leave; a second one, later, ends it at once.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_INTERRUPT_H
#define THR_CLI_INTERRUPT_H

#include <stdbool.h>

void thr_interrupt_catch(void);
bool thr_interrupted(void); /* any thread; cheap */

#endif
