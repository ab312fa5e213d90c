/* SQLite's allocator and its accounting, for every engine alike. Before sqlite3_initialize().
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_DRIVER_ALLOC_H
#define THR_DRIVER_ALLOC_H

#include <stdbool.h>

/* Whether mimalloc was there when this was built, and may be asked for. */
bool thr_alloc_has_mimalloc(void);

/* Give SQLite mimalloc. Returns NULL, or what is wrong. */
const char *thr_alloc_use_mimalloc(void);

/* SQLITE_CONFIG_MEMSTATUS. Returns an SQLite result code. */
int thr_alloc_memstatus(bool on);

#endif
