/* Which pages made transactions fail: the most frequent ones, in a table of fixed size (the "Space-Saving" algorithm of
 * A. Metwally, D. Agrawal and A. El Abbadi, 2005). A page that is not in the table takes the place of the one that was
 * counted least, and its count: so a count is never too low, too high by at most `error`, and a page that had more than
 * one in THR_CONFLICT_PAGES of all conflicts is there.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CONFLICTS_H
#define THR_CONFLICTS_H

#include "layout.h"

/* Any thread, also with commit_lock held; waits for conflict_lock, which is held for the time of a look at the table. */
void thr_conflicts_add(struct thr_head *head, uint32_t pgno);

/* Copies the table, the most frequent page first. Returns how many pages there are. */
uint32_t thr_conflicts_read(struct thr_head *head, struct thr_conflict_page out[THR_CONFLICT_PAGES]);

#endif
