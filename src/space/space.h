/* Free pages: which there are, who may take them, and where the file grows.
 *
 * The truth as of the last commit is the bitmap `free` (struct thr_chunk). The pool is what is not `taken`: neither in
 * use nor held by a connection; moves.h says who changes what under which lock. Pages past the committed end that were
 * given out to stripes (reserved_end) count as free already.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SPACE_H
#define THR_SPACE_H

#include "chain.h"

#define THR_STRIPE_FIRST 16u
#define THR_STRIPE_MAX 65536u
#define THR_STRIPE_KEEP 64u   /* a connection keeps no more from one transaction to the next */
#define THR_HOLD_MAX 256u     /* a protected transaction holds a whole list while it is no longer */
#define THR_BORROW_MAX 16384u /* a writer with nobody beside it uses the common list while it is no longer */
#define THR_TRUNK_LEAVES \
    255u                   /* of a list that a writer is shown: it borrows whole trunks, and commits by whole trunks */
#define THR_SPARE_MIN 256u /* pages for others, while nobody may extend the file */
#define THR_SPARE_MAX 4096u
#define THR_PAGE_MAX 1073741822u

/* Page number at the 1 GiB lock byte; it is never used (SQLite's file format, "The Lock-Byte Page"). SQLite's own tests
 * move that byte, so that small databases have such a page; the test program tells us. */
#ifdef THR_FAULTS
extern _Atomic uint32_t thr_lock_byte;
#else
#define thr_lock_byte 0x40000000u
#endif

static inline uint32_t thr_lock_page(uint32_t page_size)
{
    return thr_lock_byte / page_size + 1;
}

/* A connection's hold on free pages. What its pager is shown (the chain) and what is held for it (the pages) are two
 * things. The chain can only change when the pager drops its cache. Pages can be given back and taken again at any time
 * outside of a transaction: what a pager goes on to see may be in the pool meanwhile. */
struct thr_stripe {
    bool own;               /* all pages of the chain are held, from one transaction to the next */
    bool part;              /* the chain is a stripe, or the pool; else all free pages of the snapshot */
    bool mixed;             /* the chain has pages that other connections held when it was made */
    uint32_t epoch;         /* of which the pages are */
    uint32_t want;          /* pages that a refill aims at; follows what transactions used */
    uint32_t appends;       /* pages that recent transactions appended to the file */
    struct thr_chain chain; /* what the pager is shown */
    struct thr_pages
        pages; /* held. Without `own`: the first ones of the chain when it was borrowed, until the lock goes down */
    uint32_t append_last; /* held for one write transaction: pages past the end, up to this one; 0: none */
};

void thr_stripe_free(struct thr_stripe *stripe);

/* Bring the stripe up to what it wants: from the pool, else a few by extending (not while somebody is protected). Turns the
 * pages into a fresh chain. Only where the pager's cache is dropped anyway. SQLITE_OK (also if less was to be had),
 * SQLITE_NOMEM, SQLITE_FULL. */
int thr_stripe_refill(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size, uint32_t usable_size);
/* The last page that a database of `page_count` pages can grow to for sure. */
static inline uint32_t thr_stripe_end(const struct thr_stripe *stripe, uint32_t page_count)
{
    return stripe->append_last > page_count ? stripe->append_last : page_count;
}
/* Hold as many pages as it wants, or the whole chain if `all`, in the order in which the pager uses it; it has no own ones.
 * *short_out: others have some of them; then none is held. SQLITE_OK, SQLITE_NOMEM. */
int thr_stripe_borrow(struct thr_shm *shm, struct thr_stripe *stripe, bool all, uint32_t page_size, bool *short_out);
/* If the stripe is short of pages: some to append; all that it wants if it has `lost` for want of them, else a share of the
 * file. *short_out: others have those, or there are enough in the pool and what the pager is shown is used up. SQLITE_OK,
 * SQLITE_NOMEM, SQLITE_FULL. */
int thr_stripe_borrow_end(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size,
                          bool lost, bool *short_out);
/* All pages past the end, if they are all in the pool; returns whether. */
bool thr_stripe_borrow_rest(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size);
/* How many of the pages that a transaction took from the chain are held: they come first in `taken` then. It took them in
 * the order of the chain, but a pager changes that with each commit, and what is held stays for as long as its lock does. */
uint32_t thr_stripe_count_held(struct thr_stripe *stripe, struct thr_pages *taken);
/* The write transaction is over: what was only borrowed goes to the pool. */
void thr_stripe_return(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size);
/* Nor does a connection keep many own ones that it may never use. The pager goes on to be shown them. */
void thr_stripe_trim(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size);
/* Its pages may be in use by a commit that nobody will see, and nobody will ever write again: they are nobody's. */
void thr_stripe_forget(struct thr_stripe *stripe);
/* Give all pages back to the pool. */
void thr_stripe_release(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size);
/* Forget pages of an older epoch; returns whether the stripe is still valid. */
bool thr_stripe_check_epoch(const struct thr_shm *shm, struct thr_stripe *stripe);
/* After a commit that took these pages: the chain is now `after`, the held pages follow. SQLITE_OK, SQLITE_NOMEM. */
int thr_stripe_adopt(struct thr_stripe *stripe, struct thr_chain *after, const struct thr_pages *taken);

/* All pages up to this one are given out; those past the committed end are free. */
static inline uint32_t thr_space_end(const struct thr_shm *shm)
{
    return atomic_load_explicit(&shm->head->reserved_end, memory_order_acquire); /* pairs with end_set() */
}
/* Take the appended pages [from, to]: they are in the pool, or were never given out. *end_out is the end before that,
 * or THR_END_TAKEN if somebody has one of them; then nothing has happened. commit_lock. */
#define THR_END_TAKEN UINT32_MAX
int thr_space_claim_end(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size, uint32_t *end_out);
/* Pages claimed at the end go to the pool after all: the commit failed. */
void thr_space_unclaim_end(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size, uint32_t end);
/* The end that a transaction which nobody may pass begins with: at least `page_count`, and all that was given out.
 * With `spare`, sees to it that others find some pages in the pool meanwhile. */
int thr_space_settle_end(struct thr_shm *shm, uint32_t page_count, uint32_t page_size, bool spare,
                         uint32_t *page_count_out);
/* Take pages that are not from a stripe. Returns whether all were in the pool; if not, none is taken. */
bool thr_space_claim_pool(struct thr_shm *shm, const struct thr_pages *pages, uint32_t page_size);
/* Give them back. */
void thr_space_unclaim_pool(struct thr_shm *shm, const struct thr_pages *pages, uint32_t page_size);

/* What a commit does to free pages. It has claimed those that it uses, or holds them. */
struct thr_space_change {
    uint32_t append_from, append_to;       /* now in use; none if from > to */
    const struct thr_pages *taken, *freed; /* were free; are free, and held until everybody sees that */
    uint32_t cut_off_from;                 /* the file ends before this page (auto_vacuum; alone, no stripes); 0: no */
};
/* commit_lock. */
void thr_space_publish(struct thr_shm *shm, const struct thr_space_change *change, uint32_t page_size);

/* Whether a connection holds or uses the page at the moment. */
bool thr_space_is_taken(const struct thr_shm *shm, uint32_t pgno);
/* Whether the page is free in snapshot `seq`, which must be announced. */
bool thr_space_is_free(const struct thr_heap *heap, uint32_t pgno, uint64_t seq);
/* Some free page as of `seq`, for the head of a whole list, 0 if none was found. */
uint32_t thr_space_some_free(const struct thr_heap *heap, uint64_t seq, uint32_t page_count);
/* All free pages as of `seq`, `first` first, those that are in the pool now before those that are in a stripe. */
int thr_space_all_free(const struct thr_heap *heap, uint64_t seq, uint32_t page_count, uint32_t first,
                       struct thr_pages *to);

/* Load the bitmaps from a list of free pages; nobody else uses the index. SQLITE_OK, SQLITE_FULL, SQLITE_CORRUPT if a
 * page is twice in the list or out of range: then thr_space_reset() must follow. */
int thr_space_load(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count);
/* Everything has moved: these pages are free now, all others up to page_count are not. Voids all stripes. SQLITE_OK,
 * SQLITE_CORRUPT as above: then only some of them are free. commit_lock, or alone. */
int thr_space_reset(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count);
/* The file itself holds these free pages now, and no others; no frame is in use. */
void thr_space_base_free(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count);
/* All pages up to `page_count` that are free now, ascending but for `first` (0: none), which leads. commit_lock, or alone. */
int thr_space_list(const struct thr_shm *shm, uint32_t page_count, uint32_t first, struct thr_pages *to);

#endif
