/* What a transaction read and wrote.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SETS_H
#define THR_SETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../util/map32.h"

/* Pages read since the pager's cache was last dropped: a superset of what the transaction depends on. A list, and a
 * bit for each page so that none is in the list twice. */
struct thr_reads {
    uint32_t *pages;
    size_t count, capacity;
    uint64_t *bits;
    uint32_t bit_count; /* pages below this have a bit */
};

void thr_reads_free(struct thr_reads *reads);
void thr_reads_clear(struct thr_reads *reads);
int thr_reads_grow(struct thr_reads *reads, uint32_t pgno); /* SQLITE_OK, SQLITE_NOMEM */

static inline int thr_reads_add(struct thr_reads *reads, uint32_t pgno)
{
    uint64_t mask = UINT64_C(1) << (pgno % 64);

    if (pgno >= reads->bit_count || reads->count == reads->capacity) {
        int rc = thr_reads_grow(reads, pgno);

        if (rc != 0)
            return rc;
    }
    if ((reads->bits[pgno / 64] & mask) == 0) {
        reads->bits[pgno / 64] |= mask;
        reads->pages[reads->count++] = pgno;
    }
    return 0;
}

/* Pages written, each with its private frame. */
struct thr_write {
    uint32_t pgno;
    uint32_t frame; /* 0: none (a page that was freed without being written) */
    bool publish;   /* set while committing: it has a difference worth publishing */
    bool freed;     /* set while committing: the page is free afterwards */
    bool wiped;     /* set while committing: it is free, and zeros take the place of what it held (secure_delete) */
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
