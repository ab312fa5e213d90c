/* Where a page is as far as free space goes, and the moves between these places. Nothing else changes the bitmaps `free`
 * and `taken` (struct thr_chunk) and the count of pages in the pool, but for space.c when it builds all of them anew.
 *
 *   place            free taken
 *   past the end      0     0    beyond reserved_end: never given out
 *   in the pool       1     0    free, for any writer to take
 *   held              1     1    free, and in one connection's stripe or set aside for its transaction
 *   in use            0     1    of the database (page 1 and the lock page always are), or about to be by a commit
 *
 *   move                        by                                               guard
 *   pool -> held                stripe refill, borrow, claim by a commit         space_lock
 *   held -> pool                release, return, a commit that failed or is seen space_lock
 *   past the end -> held        stripe refill, borrow                            space_lock
 *   past the end -> pool        BEGIN IMMEDIATE, for the others                  space_lock
 *   past the end -> in use      claim by a commit that appends                   commit_lock, space_lock
 *   held -> in use              commit: its holder                               commit_lock
 *   in use -> held              commit: frees a page                             commit_lock
 *   in use -> pool              a commit that claimed pages past the end failed  commit_lock, space_lock
 *   in use -> past the end      commit with auto_vacuum that cuts the file off   commit_lock, space_lock; alone
 *
 * So a page comes to the pool, and leaves it, only under space_lock, and `taken` says all: under that lock it is never
 * clear where a page is not in the pool. A commit changes `free` alone, of pages that are `taken`. A commit without a
 * stripe moves a page that it frees in two steps, in use -> held -> pool; there is no third way. The second step comes
 * when the commit is visible: a writer takes pages of the pool before its snapshot, and they must be free in that. (I6)
 *
 * base_free is no part of this: it belongs to the versions (heap), and says what a page is that has no frame.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_MOVES_H
#define THR_MOVES_H

#include "space.h"

/* As a hint, or under space_lock. */
bool thr_page_in_pool(const struct thr_shm *shm, uint32_t pgno);
/* The same of all pages [from, to] but the lock page. */
bool thr_pages_in_pool(const struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size);

/* Each moves the pages [from, to] but the lock page; none if from > to. The guards are in the table. */
void thr_move_pool_to_held(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size);
void thr_move_held_to_pool(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size);
/* A claim past the end came to nothing: the pages stay given out. */
void thr_move_use_to_pool(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size);
/* The next four do not move the end: thr_space_end_set() follows, or goes before where the end moves back. */
void thr_move_end_to_held(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size);
void thr_move_end_to_pool(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size);
void thr_move_end_to_use(struct thr_shm *shm, uint32_t from, uint32_t to);
void thr_move_use_to_end(struct thr_shm *shm, uint32_t from, uint32_t to);
void thr_move_held_to_use(struct thr_shm *shm, uint32_t pgno);
void thr_move_use_to_held(struct thr_shm *shm, uint32_t pgno);

/* What the bitmaps say of the new pages is written before. space_lock. */
void thr_space_end_set(struct thr_shm *shm, uint32_t end);

/* Builds all of it: pages up to `page_count` are in use, none is past that or in the pool. Nobody else looks. */
void thr_space_fill(struct thr_shm *shm, uint32_t page_count);

/* Whether the pool is what its count says, and nothing but free pages. Looks at every page: for slow asserts.
 * space_lock. */
bool thr_space_balances(const struct thr_shm *shm);

#endif
