/* Where tests put their files.
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_PLACE_H
#define TEST_PLACE_H

#include <stdlib.h>
#include <unistd.h>

/* TMPDIR; else memory, if it can be had: a disk's syncs would be most of what a test takes. */
static inline const char *place(void)
{
    const char *place = getenv("TMPDIR");

    return place != NULL ? place : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

#endif
