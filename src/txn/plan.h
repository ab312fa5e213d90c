/* What a transaction that is about to commit would change: worked out from the pages that the pager wrote.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_PLAN_H
#define THR_PLAN_H

#include "txn.h"

struct thr_plan {
    bool rollback;     /* no commit at all: the pager put old content back and syncs it */
    bool nothing;      /* a commit that changes no byte */
    bool new_database; /* the first page was written */
    bool rewrite;      /* everything may have moved; the free list is what page 1 says */
    bool resize;       /* a rewrite that changes the page size, too */
    bool made_up;      /* the list of free pages that the pager saw was made up for it */
    bool list_changed;
    uint32_t taken_held;        /* so many of the pages that it took, the first ones, are held by the connection */
    uint32_t page_count;        /* of the pager's view, in pages of the present size */
    uint32_t record_page_count; /* for a resize: what the record says, else 0 */
    uint32_t free_count;
    uint32_t first_trunk;
    uint32_t usable_size;
    uint32_t page_size; /* after a resize */
    uint32_t format;    /* new free-list format, 0: as before */
};

/* Fills conn->record, taken, freed, after, and the flags in conn->writes. SQLITE_OK, SQLITE_NOMEM, SQLITE_CORRUPT,
 * SQLITE_BUSY_SNAPSHOT (a rewrite came in between), SQLITE_FULL, SQLITE_IOERR_*. */
int thr_plan_make(struct thr_conn *conn, struct thr_plan *plan);

/* The page size that a rewrite in progress will leave, if it is another one; else 0. */
uint32_t thr_plan_new_page_size(const struct thr_conn *conn);

#endif
