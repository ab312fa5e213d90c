/* Which locks were contended, and which pages conflicts were about, during a measurement.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_CONTENTION_H
#define THR_BENCH_CONTENTION_H

#include "../json.h"
#include "../mutexes.h"
#include "database.h"

enum { THR_LOCKS_MAX = 32, THR_HOT_PAGES_MAX = 128 };

struct thr_hot_page {
    uint32_t page;
    uint64_t conflicts; /* too high by at most `error` */
    uint64_t error;
    char owner[64]; /* table or index, "" if not known */
};

/* Of one measurement, or the sum of several: only the longest waits are not added. */
struct thr_contention {
    uint32_t lock_count, page_count;
    struct thr_lock_count locks[THR_LOCKS_MAX]; /* Throng's, then SQLite's mutexes */
    struct thr_hot_page pages[THR_HOT_PAGES_MAX];
};

/* Begin to count, while nobody has the database open. *probe_out, which may be NULL, keeps Throng's counters alive until
 * the end. All return NULL, or what is wrong in a static buffer. */
const char *thr_contention_begin(const struct thr_settings *settings, const struct thr_target *target,
                                 sqlite3 **probe_out);
/* Add what was counted, and close the probe. */
const char *thr_contention_end(sqlite3 *probe, struct thr_contention *into);

/* Of locks with the same name the figures are added up. */
void thr_contention_add_lock(struct thr_contention *into, const struct thr_lock_count *from);
void thr_contention_add(struct thr_contention *into, const struct thr_contention *from);

/* Find out what the pages belong to now: by dbstat if this SQLite has it, else only for the roots of tables and indexes.
 * Nobody has the database open. */
void thr_contention_name(const struct thr_settings *settings, const char *path, struct thr_contention *contention);

/* --- report_contention.c --- */

/* What is printed of one configuration: "throng, 2 writers". */
struct thr_contention_row {
    const char *engine;
    const char *clients;
    const struct thr_contention *contention;
};

void thr_contention_text(const struct thr_contention_row *rows, uint32_t count);
void thr_contention_json(struct thr_json *json,
                         const struct thr_contention *contention); /* as the value "contention" */

#endif
