/* SPDX-License-Identifier: MIT */
#include "space.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"

static bool in_pool(const struct thr_shm *shm, uint32_t pgno)
{
    return thr_shm_bit(shm, THR_BITS_FREE, pgno) && !thr_shm_bit(shm, THR_BITS_TAKEN, pgno);
}

/* Whether all pages [from, to] are in the pool. space_lock, or as a hint. */
static bool all_in_pool(const struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    for (uint32_t pgno = from; pgno <= to; pgno++)
        if (pgno != thr_lock_page(page_size) && !in_pool(shm, pgno))
            return false;
    return true;
}

/* Take pages [from, to] out of the pool, or give them back to it. space_lock. */
static void pool_move(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size, bool take)
{
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        if (pgno == thr_lock_page(page_size))
            continue;
        thr_shm_bit_set(shm, THR_BITS_TAKEN, pgno, take);
        atomic_fetch_add_explicit(&shm->head->pool_pages, take ? UINT32_MAX : 1, memory_order_relaxed);
    }
}

/* space_lock. */
static void own_pages_to_pool(struct thr_shm *shm, const struct thr_stripe *stripe, uint32_t page_size)
{
    for (uint32_t i = 0; i < stripe->pages.count; i++)
        pool_move(shm, stripe->pages.at[i], stripe->pages.at[i], page_size, false);
}

void thr_stripe_free(struct thr_stripe *stripe)
{
    thr_os_free(stripe->pages.at);
    thr_chain_free(&stripe->chain);
    memset(stripe, 0, sizeof *stripe);
}

/* What the bitmaps say of the new pages is written before. space_lock. */
static void end_set(struct thr_shm *shm, uint32_t end)
{
    atomic_store_explicit(&shm->head->reserved_end, end, memory_order_release); /* pairs with thr_space_end() */
}

bool thr_stripe_check_epoch(const struct thr_shm *shm, struct thr_stripe *stripe)
{
    uint32_t epoch = atomic_load_explicit(&shm->head->space_epoch, memory_order_acquire);

    if (stripe->epoch == epoch)
        return true;
    stripe->epoch = epoch;
    stripe->pages.count = 0;
    stripe->borrowed = false;
    stripe->append_last = 0;
    thr_chain_clear(&stripe->chain);
    return false;
}

/* Move up to `want` pages from the pool to the stripe. space_lock. */
static int take_from_pool(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t want)
{
    struct thr_head *head = shm->head;
    uint32_t end = atomic_load_explicit(&head->reserved_end, memory_order_relaxed);
    uint32_t pool = atomic_load_explicit(&head->pool_pages, memory_order_relaxed);
    uint32_t pgno = atomic_load_explicit(&head->pool_cursor, memory_order_relaxed);
    uint64_t left = (uint64_t)end + 128; /* once around */
    int rc = SQLITE_OK;

    while (want > 0 && pool > 0 && left > 0 && rc == SQLITE_OK) {
        struct thr_chunk *chunk;
        uint64_t word = 0, step;

        if (pgno > end)
            pgno = 0;
        chunk = thr_shm_chunk(shm, pgno);
        if (chunk != NULL) {
            uint32_t i = pgno % THR_CHUNK_PAGES / 64;

            /* In this order: a page that a commit frees into its stripe is marked taken first. */
            word = atomic_load_explicit(&chunk->free[i], memory_order_acquire);
            word &= ~atomic_load_explicit(&chunk->taken[i], memory_order_relaxed);
            word = word >> (pgno % 64) << (pgno % 64);
        }
        if (word == 0) {
            step = 64 - pgno % 64;
            left = left > step ? left - step : 0;
            pgno += (uint32_t)step;
            continue;
        }
        pgno = pgno / 64 * 64 + (uint32_t)__builtin_ctzll(word);
        if (pgno > end || pgno < 2) {
            pgno++;
            left--;
            continue;
        }
        if ((rc = thr_pages_add(&stripe->pages, pgno)) == SQLITE_OK) {
            thr_shm_bit_set(shm, THR_BITS_TAKEN, pgno, true);
            want--;
            pool--;
            pgno++;
        }
    }
    atomic_store_explicit(&head->pool_pages, pool, memory_order_relaxed);
    atomic_store_explicit(&head->pool_cursor, pgno, memory_order_relaxed);
    return rc;
}

/* The end that a transaction sees which was promised not to lose must stay the end; it sets its mark before it takes
 * space_lock to look. */
static bool may_extend(const struct thr_shm *shm)
{
    return atomic_load_explicit(&shm->head->protected_slot, memory_order_seq_cst) == 0 &&
           atomic_load_explicit(&shm->head->alone_slot, memory_order_seq_cst) == 0;
}

/* Give out the page after the end. space_lock. */
static void give_out(struct thr_shm *shm, uint32_t pgno, uint32_t page_size)
{
    if (pgno == thr_lock_page(page_size))
        return;
    thr_shm_bit_set(shm, THR_BITS_BASE_FREE, pgno, true);
    thr_shm_bit_set(shm, THR_BITS_TAKEN, pgno, true);
    thr_shm_bit_set(shm, THR_BITS_FREE, pgno, true);
}

/* Give the stripe `want` pages past the end. space_lock. */
static int extend(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t want, uint32_t page_size)
{
    uint32_t end = atomic_load_explicit(&shm->head->reserved_end, memory_order_relaxed);
    int rc;

    if (end + want > THR_PAGE_MAX)
        return SQLITE_OK;
    if ((rc = thr_shm_reserve_pages(shm, end + want)) != SQLITE_OK)
        return rc;
    for (; want > 0; want--) {
        end++;
        if (end != thr_lock_page(page_size) && (rc = thr_pages_add(&stripe->pages, end)) != SQLITE_OK) {
            end--;
            break;
        }
        give_out(shm, end, page_size);
    }
    end_set(shm, end);
    return rc;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

int thr_stripe_refill(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size, uint32_t usable_size)
{
    uint32_t want, pool;
    int rc = SQLITE_OK;

    if (stripe->want == 0) /* it is new here: what do others need? */
        stripe->want = atomic_load_explicit(&shm->head->stripe_want, memory_order_relaxed);
    if (stripe->want < THR_STRIPE_FIRST)
        stripe->want = THR_STRIPE_FIRST;
    stripe->own = true;
    stripe->borrowed = false;
    if (stripe->pages.count < (stripe->want + 1) / 2) {
        thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
        thr_stripe_check_epoch(shm, stripe);
        want = stripe->want - stripe->pages.count;
        pool = atomic_load_explicit(&shm->head->pool_pages, memory_order_relaxed);
        if (!may_extend(shm) && want < pool / 2) /* nor may it append */
            want = pool / 2;
        else if (want < pool / 16) /* better more of these than that the file grows */
            want = pool / 16 < THR_STRIPE_RICH ? pool / 16 : THR_STRIPE_RICH;
        rc = take_from_pool(shm, stripe, want);
        if (rc == SQLITE_OK && may_extend(shm) && stripe->pages.count < (stripe->want + 1) / 2)
            rc = extend(shm, stripe, stripe->want - stripe->pages.count, page_size);
        thr_mutex_unlock(&shm->head->space_lock);
        THR_POINT("refilled");
    }
    if (stripe->pages.count > 1)
        qsort(stripe->pages.at, stripe->pages.count, sizeof *stripe->pages.at, ascending);
    if (rc == SQLITE_OK)
        rc = thr_chain_make(&stripe->chain, stripe->pages.at, stripe->pages.count, usable_size);
    return rc;
}

void thr_stripe_release(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size)
{
    if (stripe->own) {
        thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
        if (thr_stripe_check_epoch(shm, stripe))
            own_pages_to_pool(shm, stripe, page_size);
        thr_mutex_unlock(&shm->head->space_lock);
    }
    stripe->own = false;
    stripe->pages.count = 0;
    thr_chain_clear(&stripe->chain);
}

/* The pages of the chain are the stripe's. */
static int pages_of_chain(struct thr_stripe *stripe)
{
    int rc = SQLITE_OK;

    stripe->pages.count = 0;
    for (size_t i = 0; i < stripe->chain.count && rc == SQLITE_OK;) {
        uint32_t leaves = stripe->chain.words[i + 1];

        rc = thr_pages_add(&stripe->pages, stripe->chain.words[i]);
        for (uint32_t k = 0; k < leaves && rc == SQLITE_OK; k++)
            rc = thr_pages_add(&stripe->pages, stripe->chain.words[i + 2 + k]);
        i += 2 + leaves;
    }
    return rc;
}

int thr_stripe_adopt(struct thr_stripe *stripe, struct thr_chain *after)
{
    struct thr_chain old = stripe->chain;

    stripe->chain = *after;
    stripe->chain.layout = old.layout; /* the pager itself has made this of that */
    *after = old;
    return stripe->own ? pages_of_chain(stripe) : SQLITE_OK;
}

int thr_stripe_borrow(struct thr_shm *shm, struct thr_stripe *stripe)
{
    int rc = pages_of_chain(stripe);

    stripe->own = stripe->borrowed = rc == SQLITE_OK && thr_space_claim_pool(shm, &stripe->pages);
    if (!stripe->own)
        stripe->pages.count = 0;
    return rc;
}

bool thr_stripe_borrow_rest(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size)
{
    uint32_t end;
    bool all;

    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    end = thr_space_end(shm);
    all = end <= page_count || (end - page_count <= THR_SPARE_MAX && all_in_pool(shm, page_count + 1, end, page_size));
    if (all && end > page_count) {
        pool_move(shm, page_count + 1, end, page_size, true);
        stripe->append_last = end;
    }
    thr_mutex_unlock(&shm->head->space_lock);
    return all;
}

int thr_stripe_borrow_end(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size,
                          bool *short_out)
{
    uint32_t want = stripe->want < THR_STRIPE_FIRST ? THR_STRIPE_FIRST : stripe->want, end, last = page_count + want;
    int rc = SQLITE_OK;

    *short_out = false;
    if (last > THR_PAGE_MAX)
        return SQLITE_OK;
    if (stripe->pages.count >= want / 2) { /* most likely enough; if not it must be able to append */
        end = thr_space_end(shm);
        *short_out = end > page_count && page_count + 1 != thr_lock_page(page_size) &&
                     (!in_pool(shm, page_count + 1) ||
                      end - page_count > atomic_load_explicit(&shm->head->pool_pages, memory_order_relaxed));
        return SQLITE_OK;
    }
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    end = thr_space_end(shm);
    *short_out = !all_in_pool(shm, page_count + 1, end < last ? end : last, page_size);
    if (last > end && atomic_load_explicit(&shm->head->pool_pages, memory_order_relaxed) > want + (end - page_count))
        last = end; /* there are others to take, when the pager's cache is dropped next */
    if (!*short_out && last > page_count && (end >= last || may_extend(shm)) &&
        (rc = thr_shm_reserve_pages(shm, last)) == SQLITE_OK) {
        pool_move(shm, page_count + 1, end < last ? end : last, page_size, true);
        for (uint32_t pgno = end + 1; pgno <= last; pgno++)
            give_out(shm, pgno, page_size);
        if (last > end)
            end_set(shm, last);
        stripe->append_last = last;
    }
    thr_mutex_unlock(&shm->head->space_lock);
    return rc;
}

void thr_stripe_return(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size)
{
    if (stripe->append_last > page_count || (stripe->borrowed && stripe->pages.count > 0)) {
        thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
        if (stripe->epoch == atomic_load_explicit(&shm->head->space_epoch, memory_order_relaxed)) {
            pool_move(shm, page_count + 1, stripe->append_last, page_size, false);
            if (stripe->borrowed)
                own_pages_to_pool(shm, stripe, page_size);
        }
        thr_mutex_unlock(&shm->head->space_lock);
    }
    stripe->append_last = 0;
    if (stripe->borrowed) {
        stripe->borrowed = stripe->own = false;
        stripe->pages.count = 0;
    }
}

int thr_space_claim_end(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size, uint32_t *end_out)
{
    uint32_t end, given;
    int rc;

    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    end = atomic_load_explicit(&shm->head->reserved_end, memory_order_relaxed);
    given = end < to ? end : to;
    *end_out = all_in_pool(shm, from, given, page_size) ? end : THR_END_TAKEN;
    if ((rc = thr_shm_reserve_pages(shm, to)) == SQLITE_OK && *end_out != THR_END_TAKEN) {
        pool_move(shm, from, given, page_size, true);
        if (to > end)
            end_set(shm, to);
    }
    thr_mutex_unlock(&shm->head->space_lock);
    return rc;
}

/* Pages past the end become free ones in the pool. space_lock. */
static void give_to_pool(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size)
{
    for (uint32_t pgno = from; pgno <= to; pgno++) {
        if (pgno == thr_lock_page(page_size))
            continue;
        thr_shm_bit_set(shm, THR_BITS_TAKEN, pgno, false);
        thr_shm_bit_set(shm, THR_BITS_BASE_FREE, pgno, true);
        thr_shm_bit_set(shm, THR_BITS_FREE, pgno, true);
        atomic_fetch_add_explicit(&shm->head->pool_pages, 1, memory_order_relaxed);
    }
}

void thr_space_unclaim_end(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size, uint32_t end)
{
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    pool_move(shm, from, end < to ? end : to, page_size, false);
    give_to_pool(shm, end < from ? from : end + 1, to, page_size);
    thr_mutex_unlock(&shm->head->space_lock);
}

int thr_space_settle_end(struct thr_shm *shm, uint32_t page_count, uint32_t page_size, bool spare,
                         uint32_t *page_count_out)
{
    struct thr_head *head = shm->head;
    uint32_t end, more;
    int rc = SQLITE_OK;

    thr_mutex_lock(&head->space_lock, UINT64_MAX);
    end = atomic_load_explicit(&head->reserved_end, memory_order_relaxed);
    more = end / 4 < THR_SPARE_MIN ? THR_SPARE_MIN : end / 4 > THR_SPARE_MAX ? THR_SPARE_MAX : end / 4;
    if (spare && page_size != 0 && atomic_load_explicit(&head->pool_pages, memory_order_relaxed) < more / 2 &&
        atomic_load_explicit(&head->slot_high, memory_order_relaxed) > 1 && end + more < THR_PAGE_MAX &&
        (rc = thr_shm_reserve_pages(shm, end + more)) == SQLITE_OK) {
        give_to_pool(shm, end + 1, end + more, page_size);
        end += more;
        end_set(shm, end);
    }
    *page_count_out = end > page_count ? end : page_count;
    thr_mutex_unlock(&head->space_lock);
    return rc;
}

bool thr_space_claim_pool(struct thr_shm *shm, const struct thr_pages *pages)
{
    bool all = true;

    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    for (uint32_t i = 0; i < pages->count && all; i++)
        all = in_pool(shm, pages->at[i]);
    if (all) {
        for (uint32_t i = 0; i < pages->count; i++)
            thr_shm_bit_set(shm, THR_BITS_TAKEN, pages->at[i], true);
        atomic_fetch_sub_explicit(&shm->head->pool_pages, pages->count, memory_order_relaxed);
    }
    thr_mutex_unlock(&shm->head->space_lock);
    return all;
}

void thr_space_unclaim_pool(struct thr_shm *shm, const struct thr_pages *pages)
{
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    for (uint32_t i = 0; i < pages->count; i++)
        thr_shm_bit_set(shm, THR_BITS_TAKEN, pages->at[i], false);
    atomic_fetch_add_explicit(&shm->head->pool_pages, pages->count, memory_order_relaxed);
    thr_mutex_unlock(&shm->head->space_lock);
}

bool thr_space_is_free(const struct thr_heap *heap, uint32_t pgno, uint64_t seq)
{
    bool is_free = false, base_free;

    if (thr_version_find(heap, pgno, seq, &is_free) != 0)
        return is_free;
    base_free = thr_shm_bit(heap->shm, THR_BITS_BASE_FREE, pgno);
    return thr_version_find(heap, pgno, seq, &is_free) != 0 ? is_free : base_free;
}

uint32_t thr_space_some_free(const struct thr_heap *heap, uint64_t seq, uint32_t page_count)
{
    const struct thr_shm *shm = heap->shm;

    /* What is free now was most likely free then. */
    for (uint32_t pgno = 2; pgno <= page_count; pgno++) {
        struct thr_chunk *chunk = thr_shm_chunk(shm, pgno);

        if (chunk == NULL)
            break;
        if (pgno % 64 == 0 &&
            atomic_load_explicit(&chunk->free[pgno % THR_CHUNK_PAGES / 64], memory_order_relaxed) == 0) {
            pgno += 63;
            continue;
        }
        if (thr_shm_bit(shm, THR_BITS_FREE, pgno) && thr_space_is_free(heap, pgno, seq))
            return pgno;
    }
    for (uint32_t pgno = 2; pgno <= page_count; pgno++)
        if (thr_space_is_free(heap, pgno, seq))
            return pgno;
    return 0;
}

int thr_space_all_free(const struct thr_heap *heap, uint64_t seq, uint32_t page_count, uint32_t first,
                       struct thr_pages *to)
{
    struct thr_pages in_stripes = {0};
    int rc = first == 0 ? SQLITE_OK : thr_pages_add(to, first);

    for (uint32_t pgno = 2; pgno <= page_count && rc == SQLITE_OK; pgno++)
        if (pgno != first && thr_space_is_free(heap, pgno, seq))
            rc = thr_pages_add(thr_shm_bit(heap->shm, THR_BITS_TAKEN, pgno) ? &in_stripes : to, pgno);
    for (uint32_t i = 0; i < in_stripes.count && rc == SQLITE_OK; i++)
        rc = thr_pages_add(to, in_stripes.at[i]);
    thr_os_free(in_stripes.at);
    return rc;
}

int thr_space_load(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count)
{
    int rc;

    if ((rc = thr_shm_reserve_pages(shm, page_count)) != SQLITE_OK)
        return rc;
    for (uint32_t i = 0; i < free_pages->count; i++) {
        if (free_pages->at[i] < 2 || free_pages->at[i] > page_count ||
            !thr_shm_bit_set(shm, THR_BITS_FREE, free_pages->at[i], true))
            return SQLITE_CORRUPT;
        thr_shm_bit_set(shm, THR_BITS_BASE_FREE, free_pages->at[i], true);
    }
    atomic_store_explicit(&shm->head->pool_pages, free_pages->count, memory_order_relaxed);
    end_set(shm, page_count);
    return SQLITE_OK;
}

void thr_space_set_end(struct thr_shm *shm, uint32_t page_count)
{
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    end_set(shm, page_count);
    thr_mutex_unlock(&shm->head->space_lock);
}

void thr_space_reset(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count)
{
    struct thr_head *head = shm->head;
    uint32_t end;

    thr_mutex_lock(&head->space_lock, UINT64_MAX);
    end = atomic_load_explicit(&head->reserved_end, memory_order_relaxed);
    for (uint32_t pgno = 0; pgno <= end; pgno += 64) {
        struct thr_chunk *chunk = thr_shm_chunk(shm, pgno);

        if (chunk == NULL)
            continue;
        atomic_store_explicit(&chunk->free[pgno % THR_CHUNK_PAGES / 64], 0, memory_order_release);
        atomic_store_explicit(&chunk->taken[pgno % THR_CHUNK_PAGES / 64], 0, memory_order_release);
    }
    for (uint32_t i = 0; i < free_pages->count; i++)
        thr_shm_bit_set(shm, THR_BITS_FREE, free_pages->at[i], true);
    atomic_store_explicit(&head->pool_pages, free_pages->count, memory_order_relaxed);
    end_set(shm, page_count);
    atomic_store_explicit(&head->pool_cursor, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&head->space_epoch, 1, memory_order_seq_cst);
    thr_mutex_unlock(&head->space_lock);
}

void thr_space_base_free(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count)
{
    for (uint32_t pgno = 0; pgno <= page_count; pgno++)
        if (thr_shm_chunk(shm, pgno) != NULL)
            thr_shm_bit_set(shm, THR_BITS_BASE_FREE, pgno, false);
    for (uint32_t i = 0; i < free_pages->count; i++)
        thr_shm_bit_set(shm, THR_BITS_BASE_FREE, free_pages->at[i], true);
}

int thr_space_list(const struct thr_shm *shm, uint32_t page_count, uint32_t first, struct thr_pages *to)
{
    int rc = SQLITE_OK;

    to->count = 0;
    if (first != 0)
        rc = thr_pages_add(to, first);
    for (uint32_t at = 0; at <= page_count && rc == SQLITE_OK; at += 64) {
        struct thr_chunk *chunk = thr_shm_chunk(shm, at);
        uint64_t word = 0;

        if (chunk != NULL)
            word = atomic_load_explicit(&chunk->free[at % THR_CHUNK_PAGES / 64], memory_order_relaxed);
        for (; word != 0 && rc == SQLITE_OK; word &= word - 1) {
            uint32_t pgno = at + (uint32_t)__builtin_ctzll(word);

            if (pgno >= 2 && pgno <= page_count && pgno != first)
                rc = thr_pages_add(to, pgno);
        }
    }
    return rc;
}
