/* SQLite's own mutexes, counted: how often each kind was taken, how often it was not free, and how long that took.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_MUTEXES_H
#define THR_CLI_MUTEXES_H

#include <stdint.h>

#define THR_LOCK_NAME_BYTES 32

/* What is known of a lock, or of all of a kind. */
struct thr_lock_count {
    char name[THR_LOCK_NAME_BYTES];
    uint64_t acquisitions;
    uint64_t contended; /* it was not free at the first try */
    uint64_t wait_ns, longest_ns;
};

enum { THR_MUTEX_KINDS = 14 };

/* Put counting mutexes in front of those that SQLite would use (SQLITE_CONFIG_MUTEX). Before SQLite is used otherwise:
 * it is initialized and shut down. Returns NULL, or what is wrong. */
const char *thr_mutexes_count(void);

/* While nobody uses SQLite. Without thr_mutexes_count() they do nothing, and there are no kinds. */
void thr_mutexes_reset(void);
/* In the order of SQLite's numbers: SQLITE_MUTEX_FAST, _RECURSIVE, and the static ones by name. Returns how many. */
uint32_t thr_mutexes_read(struct thr_lock_count out[THR_MUTEX_KINDS]);

#endif
