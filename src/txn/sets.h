/* What a transaction read and wrote.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SETS_H
#define THR_SETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../util/map32.h"

/* Pages read since the pager's cache was last dropped: a superset of what the transaction depends on. Appended; a
 * small filter leaves out most repetitions, sorting the rest when the array is full. */
struct thr_reads {
    uint32_t *pages;
    size_t count, capacity;
    uint32_t filter[256];
};

void thr_reads_free(struct thr_reads *reads);
void thr_reads_clear(struct thr_reads *reads);
int thr_reads_add_slow(struct thr_reads *reads, uint32_t pgno); /* SQLITE_OK, SQLITE_NOMEM */

static inline int thr_reads_add(struct thr_reads *reads, uint32_t pgno)
{
    uint32_t *place = &reads->filter[pgno % 256];

    if (*place == pgno)
        return 0;
    if (reads->count == reads->capacity)
        return thr_reads_add_slow(reads, pgno);
    *place = pgno;
    reads->pages[reads->count++] = pgno;
    return 0;
}

/* Pages written, each with its private frame. */
struct thr_write {
    uint32_t pgno;
    uint32_t frame; /* 0: none (a page that was freed without being written) */
    bool publish;   /* set while committing: it has a difference worth publishing */
    bool freed;     /* set while committing: the page is free afterwards */
};

struct thr_writes {
    struct thr_write *at;
    uint32_t count, capacity;
    struct thr_map32 index; /* pgno -> place in `at` + 1 */
};

void thr_writes_free(struct thr_writes *writes);
void thr_writes_clear(struct thr_writes *writes); /* the frames are the caller's */
struct thr_write *thr_writes_find(const struct thr_writes *writes, uint32_t pgno);
/* NULL: no memory. *fresh_out says whether it was added, with frame 0. */
struct thr_write *thr_writes_add(struct thr_writes *writes, uint32_t pgno, bool *fresh_out);

#endif
