/* The free list as one connection's pager sees it.
 *
 * SQLite takes free pages from the first trunk page that page 1 names, and counts them in page 1. Each writer is
 * shown a list of its own pages (its stripe), so that no two take the same page and none waits (I6). Trunk pages of
 * such a list exist nowhere: they are made up when they are read, and parsed when they were written.
 *
 * A connection that has no stripe is shown the whole list as of its snapshot, so that whoever copies or checks the
 * database page by page finds every page accounted for.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CHAIN_H
#define THR_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../heap/heap.h"
#include "../util/map32.h"

struct thr_chain {
    uint32_t *words; /* in order, each trunk: page, number of leaves, leaves */
    size_t count, capacity;
    uint32_t pages; /* trunks and leaves together */
    bool built;     /* false: only `first` and `pages` are known yet (the whole list, not asked for) */
    uint32_t first; /* first trunk, 0 if there is none */
    /* Changes whenever the list is made anew: a pager that kept trunk pages of another one would mix them up. */
    uint32_t layout;
};

void thr_chain_free(struct thr_chain *chain);
void thr_chain_clear(struct thr_chain *chain);
/* Make a chain of these pages, as many to a trunk as stock SQLite puts there. SQLITE_OK, SQLITE_NOMEM. */
int thr_chain_make(struct thr_chain *chain, const uint32_t *pages, uint32_t count, uint32_t usable_size);
/* Add trunks of these pages, with so many leaves at most (and no more than stock SQLite). SQLITE_OK, SQLITE_NOMEM. */
int thr_chain_add(struct thr_chain *chain, const uint32_t *pages, uint32_t count, uint32_t leaves_max,
                  uint32_t usable_size);
/* If `pgno` is a trunk of the chain, write its content to `to` and return true. */
bool thr_chain_trunk(const struct thr_chain *chain, uint32_t pgno, uint8_t *to, uint32_t page_size);
bool thr_chain_is_trunk(const struct thr_chain *chain, uint32_t pgno);

/* What a transaction did to its list. `read_trunk` gives the content of a trunk page that the transaction wrote, or
 * NULL if it wrote none of that number. On SQLITE_OK *after is the new chain, `taken` and `freed` hold the pages that
 * were, and those that are now, in the list, `taken` in the list's order; SQLITE_CORRUPT if what was written is no list,
 * SQLITE_NOMEM. `freed` must be empty before. */
struct thr_pages {
    uint32_t *at;
    uint32_t count, capacity;
};
int thr_pages_add(struct thr_pages *pages, uint32_t pgno); /* SQLITE_OK, SQLITE_NOMEM */
int thr_chain_diff(const struct thr_chain *before, uint32_t first, uint32_t pages, uint32_t page_count,
                   const uint8_t *(*read_trunk)(void *ctx, uint32_t pgno), void *ctx, uint32_t usable_size,
                   struct thr_chain *after, struct thr_pages *taken, struct thr_pages *freed);

#endif
