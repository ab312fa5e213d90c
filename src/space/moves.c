/* SPDX-License-Identifier: MIT */
#include "moves.h"

#include "../os/assert.h"

/* The bit was the other way before. */
static void turn(struct thr_shm *shm, enum thr_bits bits, uint32_t pgno, bool on)
{
    bool changed = thr_shm_bit_set(shm, bits, pgno, on);

    THR_ASSERT(changed);
}

static void pool_grow(struct thr_shm *shm, uint32_t pages)
{
    uint32_t before = atomic_fetch_add_explicit(&shm->head->pool_pages, pages, memory_order_relaxed);

    THR_ASSERT(before <= THR_PAGE_MAX - pages);
}

static void pool_shrink(struct thr_shm *shm, uint32_t pages)
{
    uint32_t before = atomic_fetch_sub_explicit(&shm->head->pool_pages, pages, memory_order_relaxed);

    THR_ASSERT(before >= pages);
}

bool thr_page_in_pool(const struct thr_shm *shm, uint32_t pgno)
{
    return thr_shm_bit(shm, THR_BITS_FREE, pgno) && !thr_shm_bit(shm, THR_BITS_TAKEN, pgno);
}

bool thr_pages_in_pool(const struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    for (uint32_t pgno = from; pgno <= to; pgno++)
        if (pgno != thr_lock_page(page_size) && !thr_page_in_pool(shm, pgno))
            return false;
    return true;
}

void thr_move_pool_to_held(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    uint32_t moved = 0;

    THR_ASSERT(thr_mutex_is_held(&shm->head->space_lock));
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        if (pgno == thr_lock_page(page_size))
            continue;
        turn(shm, THR_BITS_TAKEN, pgno, true);
        THR_ASSERT(thr_shm_bit(shm, THR_BITS_FREE, pgno));
        moved++;
    }
    pool_shrink(shm, moved);
}

void thr_move_held_to_pool(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    uint32_t moved = 0;

    THR_ASSERT(thr_mutex_is_held(&shm->head->space_lock));
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        if (pgno == thr_lock_page(page_size))
            continue;
        THR_ASSERT(thr_shm_bit(shm, THR_BITS_FREE, pgno));
        turn(shm, THR_BITS_TAKEN, pgno, false);
        moved++;
    }
    pool_grow(shm, moved);
}

void thr_move_end_to_held(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    THR_ASSERT(thr_mutex_is_held(&shm->head->space_lock));
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        turn(shm, THR_BITS_TAKEN, pgno, true);
        if (pgno == thr_lock_page(page_size))
            continue;
        thr_shm_bit_set(shm, THR_BITS_BASE_FREE, pgno, true);
        turn(shm, THR_BITS_FREE, pgno, true);
    }
}

void thr_move_end_to_pool(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    thr_move_end_to_held(shm, from, to, page_size);
    thr_move_held_to_pool(shm, from, to, page_size);
}

void thr_move_end_to_use(struct thr_shm *shm, uint32_t from, uint32_t to)
{
    THR_ASSERT(thr_mutex_is_held(&shm->head->space_lock));
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        turn(shm, THR_BITS_TAKEN, pgno, true);
        THR_ASSERT(!thr_shm_bit(shm, THR_BITS_FREE, pgno));
    }
}

void thr_move_use_to_pool(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        if (pgno == thr_lock_page(page_size))
            continue;
        thr_shm_bit_set(shm, THR_BITS_BASE_FREE, pgno, true);
        thr_move_use_to_held(shm, pgno);
    }
    thr_move_held_to_pool(shm, from, to, page_size);
}

void thr_move_use_to_end(struct thr_shm *shm, uint32_t from, uint32_t to)
{
    THR_ASSERT(thr_mutex_is_held(&shm->head->space_lock));
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        if (thr_page_in_pool(shm, pgno)) { /* an append that failed left it there */
            turn(shm, THR_BITS_TAKEN, pgno, true);
            turn(shm, THR_BITS_FREE, pgno, false);
            pool_shrink(shm, 1);
        }
        THR_ASSERT(!thr_shm_bit(shm, THR_BITS_FREE, pgno));
        turn(shm, THR_BITS_TAKEN, pgno, false);
    }
}

void thr_move_held_to_use(struct thr_shm *shm, uint32_t pgno)
{
    THR_ASSERT(thr_shm_bit(shm, THR_BITS_TAKEN, pgno)); /* else another writer may take it */
    turn(shm, THR_BITS_FREE, pgno, false);
}

void thr_move_use_to_held(struct thr_shm *shm, uint32_t pgno)
{
    THR_ASSERT(thr_shm_bit(shm, THR_BITS_TAKEN, pgno)); /* else it would be in the pool at once, uncounted */
    turn(shm, THR_BITS_FREE, pgno, true);
}

void thr_space_end_set(struct thr_shm *shm, uint32_t end)
{
    atomic_store_explicit(&shm->head->reserved_end, end, memory_order_release); /* pairs with thr_space_end() */
}

void thr_space_fill(struct thr_shm *shm, uint32_t page_count)
{
    uint32_t before = atomic_load_explicit(&shm->head->reserved_end, memory_order_relaxed);
    uint32_t last = before > page_count ? before : page_count;

    for (uint64_t at = 0; at <= last; at += 64) {
        struct thr_chunk *chunk = thr_shm_chunk(shm, (uint32_t)at);
        uint64_t used = at > page_count         ? 0
                        : at + 63 <= page_count ? UINT64_MAX
                                                : (UINT64_C(2) << (page_count - at)) - 1;

        if (chunk == NULL)
            continue;
        atomic_store_explicit(&chunk->free[at % THR_CHUNK_PAGES / 64], 0, memory_order_release);
        atomic_store_explicit(&chunk->taken[at % THR_CHUNK_PAGES / 64], used, memory_order_release);
    }
    atomic_store_explicit(&shm->head->pool_pages, 0, memory_order_relaxed);
    thr_space_end_set(shm, page_count);
}

bool thr_space_balances(const struct thr_shm *shm)
{
    uint32_t end = atomic_load_explicit(&shm->head->reserved_end, memory_order_relaxed), pool = 0;

    for (uint32_t pgno = 1; pgno <= end; pgno++) {
        if (thr_shm_bit(shm, THR_BITS_TAKEN, pgno))
            continue;
        if (!thr_shm_bit(shm, THR_BITS_FREE, pgno))
            return false;
        pool++;
    }
    return pool == atomic_load_explicit(&shm->head->pool_pages, memory_order_relaxed);
}
