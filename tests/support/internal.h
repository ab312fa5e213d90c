/* Between the files of this directory only.
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_SUPPORT_INTERNAL_H
#define TEST_SUPPORT_INTERNAL_H

void check_in_child(void);        /* the calling process is a forked child */
_Noreturn void check_leave(void); /* end this thread, child or test: a failure has been reported */

#endif
