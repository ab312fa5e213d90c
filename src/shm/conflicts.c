/* SPDX-License-Identifier: MIT */
#include "conflicts.h"

#include <stdlib.h>
#include <string.h>

/* The place of the page, or else the one to give to it: an unused one, or the one counted least. */
static struct thr_conflict_page *place_of(struct thr_head *head, uint32_t pgno)
{
    struct thr_conflict_page *least = &head->conflicts[0];

    for (uint32_t i = 0; i < THR_CONFLICT_PAGES; i++) {
        struct thr_conflict_page *page = &head->conflicts[i];

        if (page->pgno == pgno || page->pgno == 0)
            return page; /* they are filled from the start */
        if (page->count < least->count)
            least = page;
    }
    return least;
}

void thr_conflicts_add(struct thr_head *head, uint32_t pgno)
{
    struct thr_conflict_page *page;

    thr_mutex_lock(&head->conflict_lock, UINT64_MAX);
    page = place_of(head, pgno);
    if (page->pgno != pgno) {
        page->pgno = pgno;
        page->error = page->count;
    }
    page->count++;
    thr_mutex_unlock(&head->conflict_lock);
}

static int more_first(const void *a, const void *b)
{
    const struct thr_conflict_page *x = a, *y = b;

    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->pgno > y->pgno) - (x->pgno < y->pgno);
}

uint32_t thr_conflicts_read(struct thr_head *head, struct thr_conflict_page out[THR_CONFLICT_PAGES])
{
    uint32_t count = 0;

    thr_mutex_lock(&head->conflict_lock, UINT64_MAX);
    memcpy(out, head->conflicts, sizeof head->conflicts);
    thr_mutex_unlock(&head->conflict_lock);
    while (count < THR_CONFLICT_PAGES && out[count].pgno != 0)
        count++;
    qsort(out, count, sizeof *out, more_first);
    return count;
}
