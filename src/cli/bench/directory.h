/* The directory that a benchmark works in.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_DIRECTORY_H
#define THR_BENCH_DIRECTORY_H

#include <stddef.h>
#include <stdint.h>

/* Make a fresh directory below `parent`; if that is NULL, in memory if there are `bytes_wanted` free, else where
 * temporary files go. Returns NULL, or what is wrong in a static buffer. */
const char *thr_directory_make(const char *parent, uint64_t bytes_wanted, char *path_out, size_t path_bytes);
void thr_directory_remove(const char *path); /* with all that is in it */

#endif
