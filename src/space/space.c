/* SPDX-License-Identifier: MIT */
#include "space.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "moves.h"

#ifdef THR_FAULTS
_Atomic uint32_t thr_lock_byte = 0x40000000u;
#endif

/* space_lock. */
static void own_pages_to_pool(struct thr_shm *shm, const struct thr_stripe *stripe, uint32_t page_size)
{
    for (uint32_t i = 0; i < stripe->pages.count; i++)
        thr_move_held_to_pool(shm, stripe->pages.at[i], stripe->pages.at[i], page_size);
}

void thr_stripe_free(struct thr_stripe *stripe)
{
    thr_os_free(stripe->pages.at);
    thr_chain_free(&stripe->chain);
    memset(stripe, 0, sizeof *stripe);
}

bool thr_stripe_check_epoch(const struct thr_shm *shm, struct thr_stripe *stripe)
{
    uint32_t epoch = atomic_load_explicit(&shm->head->space_epoch, memory_order_acquire);

    if (stripe->epoch == epoch)
        return true;
    stripe->epoch = epoch;
    stripe->pages.count = 0;
    stripe->append_last = 0;
    thr_chain_clear(&stripe->chain);
    return false;
}

/* Move up to `want` pages from the pool to the stripe. space_lock. */
static int take_from_pool(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t want, uint32_t page_size)
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

            word = atomic_load_explicit(&chunk->free[i], memory_order_acquire);
            word &= ~atomic_load_explicit(&chunk->taken[i], memory_order_acquire);
            word = word >> (pgno % 64) << (pgno % 64);
        }
        if (word == 0) {
            step = 64 - pgno % 64;
            left = left > step ? left - step : 0;
            pgno += (uint32_t)step;
            continue;
        }
        pgno = pgno / 64 * 64 + (uint32_t)__builtin_ctzll(word);
        THR_ASSERT(pgno >= 2 && pgno <= end);
        if ((rc = thr_pages_add(&stripe->pages, pgno)) == SQLITE_OK) {
            thr_move_pool_to_held(shm, pgno, pgno, page_size);
            want--;
            pool--;
            pgno++;
        }
    }
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
        thr_move_end_to_held(shm, end, end, page_size);
    }
    thr_space_end_set(shm, end);
    return rc;
}

static uint32_t min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static bool is_ascending(const struct thr_pages *pages)
{
    for (uint32_t i = 1; i < pages->count; i++)
        if (pages->at[i] < pages->at[i - 1])
            return false;
    return true;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void sort(struct thr_pages *pages)
{
    if (!is_ascending(pages))
        qsort(pages->at, pages->count, sizeof *pages->at, ascending);
}

int thr_stripe_refill(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size, uint32_t usable_size)
{
    uint32_t want, pool, few;
    int rc = SQLITE_OK;

    if (stripe->want == 0) /* it is new here: what do others need? Of the pool; the file does not grow by that */
        stripe->want = atomic_load_explicit(&shm->head->stripe_want, memory_order_relaxed);
    if (stripe->want < THR_STRIPE_FIRST)
        stripe->want = THR_STRIPE_FIRST;
    stripe->own = stripe->part = true;
    stripe->mixed = false;
    if (stripe->pages.count < (stripe->want + 1) / 2) {
        thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
        thr_stripe_check_epoch(shm, stripe);
        want = stripe->want - stripe->pages.count;
        pool = atomic_load_explicit(&shm->head->pool_pages, memory_order_relaxed);
        few = stripe->want < THR_STRIPE_KEEP ? stripe->want : THR_STRIPE_KEEP;
        if (!may_extend(shm) && want < pool / 2) /* nor may it append */
            want = max(want, min(pool / 2, 4 * THR_STRIPE_KEEP));
        else if (stripe->pages.count < THR_STRIPE_KEEP) /* better more of these than that the file grows */
            want = max(want, min(pool / 16, THR_STRIPE_KEEP - stripe->pages.count));
        rc = take_from_pool(shm, stripe, want, page_size);
        if (rc == SQLITE_OK && may_extend(shm) && stripe->pages.count < (few + 1) / 2)
            rc = extend(shm, stripe, few - stripe->pages.count, page_size);
        THR_SLOW_ASSERT(thr_space_balances(shm));
        thr_mutex_unlock(&shm->head->space_lock);
        THR_POINT("refilled");
    }
    sort(&stripe->pages);
    if (rc == SQLITE_OK)
        rc = thr_chain_make(&stripe->chain, stripe->pages.at, stripe->pages.count, usable_size);
    return rc;
}

static void pages_to_pool(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size)
{
    if (stripe->pages.count > 0) {
        thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
        if (thr_stripe_check_epoch(shm, stripe))
            own_pages_to_pool(shm, stripe, page_size);
        THR_SLOW_ASSERT(thr_space_balances(shm));
        thr_mutex_unlock(&shm->head->space_lock);
    }
    stripe->own = false;
    stripe->pages.count = 0;
}

void thr_stripe_release(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size)
{
    pages_to_pool(shm, stripe, page_size);
    stripe->part = false;
    thr_chain_clear(&stripe->chain);
}

void thr_stripe_trim(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_size)
{
    if (stripe->own && stripe->pages.count > THR_STRIPE_KEEP)
        pages_to_pool(shm, stripe, page_size);
}

void thr_stripe_forget(struct thr_stripe *stripe)
{
    stripe->own = stripe->part = false;
    stripe->append_last = 0;
    stripe->pages.count = 0;
    thr_chain_clear(&stripe->chain);
}

/* The pages of the chain's first trunks, so that they are `least` or all. */
static int pages_of_chain(struct thr_stripe *stripe, uint32_t least)
{
    int rc = SQLITE_OK;

    stripe->pages.count = 0;
    for (size_t i = 0; i < stripe->chain.count && stripe->pages.count < least && rc == SQLITE_OK;) {
        uint32_t leaves = stripe->chain.words[i + 1];

        rc = thr_pages_add(&stripe->pages, stripe->chain.words[i]);
        for (uint32_t k = 0; k < leaves && rc == SQLITE_OK; k++)
            rc = thr_pages_add(&stripe->pages, stripe->chain.words[i + 2 + k]);
        i += 2 + leaves;
    }
    return rc;
}

/* How many of `taken` are among the held pages, if they come in the same order. */
static uint32_t count_in_order(const struct thr_stripe *stripe, const struct thr_pages *taken)
{
    uint32_t held = 0;

    for (uint32_t i = 0; i < stripe->pages.count && held < taken->count; i++)
        held += stripe->pages.at[i] == taken->at[held];
    return held;
}

uint32_t thr_stripe_count_held(struct thr_stripe *stripe, struct thr_pages *taken)
{
    uint32_t held = 0;

    if (stripe->own || count_in_order(stripe, taken) == taken->count)
        return taken->count;
    sort(&stripe->pages);
    sort(taken);
    for (uint32_t i = 0, next = 0; i < taken->count; i++) {
        uint32_t pgno = taken->at[i];

        while (next < stripe->pages.count && stripe->pages.at[next] < pgno)
            next++;
        if (next < stripe->pages.count && stripe->pages.at[next] == pgno) {
            taken->at[i] = taken->at[held];
            taken->at[held++] = pgno;
        }
    }
    return held;
}

/* The held pages without those that were taken, as thr_stripe_count_held() left them. */
static void drop_taken(struct thr_pages *pages, const struct thr_pages *taken)
{
    uint32_t kept = 0, next = 0;

    for (uint32_t i = 0; i < pages->count; i++) {
        if (next < taken->count && pages->at[i] == taken->at[next])
            next++;
        else
            pages->at[kept++] = pages->at[i];
    }
    pages->count = kept;
}

int thr_stripe_adopt(struct thr_stripe *stripe, struct thr_chain *after, const struct thr_pages *taken)
{
    struct thr_chain old = stripe->chain;

    stripe->chain = *after;
    stripe->chain.layout = old.layout; /* the pager itself has made this of that */
    *after = old;
    if (stripe->own)
        return pages_of_chain(stripe, UINT32_MAX);
    drop_taken(&stripe->pages, taken);
    return SQLITE_OK;
}

/* No rewrite has made all pages new since. space_lock. */
static bool is_current(const struct thr_shm *shm, const struct thr_stripe *stripe)
{
    return stripe->epoch == atomic_load_explicit(&shm->head->space_epoch, memory_order_relaxed);
}

/* space_lock. False: not all are there, and none is taken. */
static bool claim_pool(struct thr_shm *shm, const struct thr_pages *pages, uint32_t page_size)
{
    bool all = true;

    for (uint32_t i = 0; i < pages->count && all; i++)
        all = thr_page_in_pool(shm, pages->at[i]);
    for (uint32_t i = 0; i < pages->count && all; i++)
        thr_move_pool_to_held(shm, pages->at[i], pages->at[i], page_size);
    return all;
}

int thr_stripe_borrow(struct thr_shm *shm, struct thr_stripe *stripe, bool all, uint32_t page_size, bool *short_out)
{
    int rc = pages_of_chain(stripe, all ? UINT32_MAX : max(stripe->want, THR_STRIPE_FIRST));
    bool held;

    THR_ASSERT(!stripe->own);
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    held = rc == SQLITE_OK && is_current(shm, stripe) && claim_pool(shm, &stripe->pages, page_size);
    *short_out = rc == SQLITE_OK && !held && is_current(shm, stripe);
    thr_mutex_unlock(&shm->head->space_lock);
    if (!held)
        stripe->pages.count = 0;
    return rc;
}

bool thr_stripe_borrow_rest(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size)
{
    uint32_t end;
    bool all;

    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    end = thr_space_end(shm);
    all = end <= page_count ||
          (end - page_count <= THR_SPARE_MAX && thr_pages_in_pool(shm, page_count + 1, end, page_size));
    if (all && end > page_count) {
        thr_move_pool_to_held(shm, page_count + 1, end, page_size);
        stripe->append_last = end;
    }
    thr_mutex_unlock(&shm->head->space_lock);
    return all;
}

int thr_stripe_borrow_end(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size,
                          bool lost, bool *short_out)
{
    uint32_t want = max(stripe->want, THR_STRIPE_FIRST), end, last, pool;
    int rc = SQLITE_OK;

    if (!lost) /* what transactions take from the list they find there, mostly */
        want = min(want, max(2 * stripe->appends, THR_STRIPE_FIRST));
    last = page_count + want;
    *short_out = false;
    if (last > THR_PAGE_MAX)
        return SQLITE_OK;
    if (stripe->pages.count >= want / 2) { /* most likely enough; if not it must be able to append */
        end = thr_space_end(shm);
        *short_out = end > page_count && page_count + 1 != thr_lock_page(page_size) &&
                     (!thr_page_in_pool(shm, page_count + 1) ||
                      end - page_count > atomic_load_explicit(&shm->head->pool_pages, memory_order_relaxed));
        return SQLITE_OK;
    }
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    if (!is_current(shm, stripe)) {
        thr_mutex_unlock(&shm->head->space_lock);
        return SQLITE_OK;
    }
    end = thr_space_end(shm);
    if (!lost && last > end)
        last = min(last, end + max(end / 32, THR_STRIPE_KEEP));
    *short_out = !thr_pages_in_pool(shm, page_count + 1, min(end, last), page_size);
    pool = atomic_load_explicit(&shm->head->pool_pages, memory_order_relaxed);
    if (last > end && !lost && pool > want / 2 - stripe->pages.count + (end - page_count)) {
        last = end; /* there are others to take, when the pager's cache is dropped next */
        *short_out = *short_out || (stripe->part && stripe->pages.count < want / 8);
    }
    if (!*short_out && last > page_count && (end >= last || may_extend(shm)) &&
        (rc = thr_shm_reserve_pages(shm, last)) == SQLITE_OK) {
        thr_move_pool_to_held(shm, page_count + 1, end < last ? end : last, page_size);
        thr_move_end_to_held(shm, end + 1, last, page_size);
        if (last > end)
            thr_space_end_set(shm, last);
        stripe->append_last = last;
    }
    thr_mutex_unlock(&shm->head->space_lock);
    return rc;
}

void thr_stripe_return(struct thr_shm *shm, struct thr_stripe *stripe, uint32_t page_count, uint32_t page_size)
{
    if (stripe->append_last > page_count || (!stripe->own && stripe->pages.count > 0)) {
        thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
        if (is_current(shm, stripe)) {
            thr_move_held_to_pool(shm, page_count + 1, stripe->append_last, page_size);
            if (!stripe->own)
                own_pages_to_pool(shm, stripe, page_size);
            THR_SLOW_ASSERT(thr_space_balances(shm));
        }
        thr_mutex_unlock(&shm->head->space_lock);
    }
    stripe->append_last = 0;
    if (!stripe->own)
        stripe->pages.count = 0;
}

int thr_space_claim_end(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size, uint32_t *end_out)
{
    uint32_t end, given;
    int rc;

    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    end = atomic_load_explicit(&shm->head->reserved_end, memory_order_relaxed);
    given = end < to ? end : to;
    *end_out = thr_pages_in_pool(shm, from, given, page_size) ? end : THR_END_TAKEN;
    if ((rc = thr_shm_reserve_pages(shm, to)) == SQLITE_OK && *end_out != THR_END_TAKEN) {
        thr_move_pool_to_held(shm, from, given, page_size);
        thr_move_end_to_use(shm, from > end ? from : end + 1, to);
        if (to > end)
            thr_space_end_set(shm, to);
    }
    thr_mutex_unlock(&shm->head->space_lock);
    return rc;
}

void thr_space_unclaim_end(struct thr_shm *shm, uint32_t from, uint32_t to, uint32_t page_size, uint32_t end)
{
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    if (from == 1) { /* a new database: it is not there after all */
        thr_space_end_set(shm, 0);
        thr_move_use_to_end(shm, from, to);
    } else {
        thr_move_held_to_pool(shm, from, end < to ? end : to, page_size);
        thr_move_use_to_pool(shm, end + 1, to, page_size);
    }
    THR_SLOW_ASSERT(thr_space_balances(shm));
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
        thr_move_end_to_pool(shm, end + 1, end + more, page_size);
        end += more;
        thr_space_end_set(shm, end);
    }
    *page_count_out = end > page_count ? end : page_count;
    thr_mutex_unlock(&head->space_lock);
    return rc;
}

bool thr_space_claim_pool(struct thr_shm *shm, const struct thr_pages *pages, uint32_t page_size)
{
    bool all;

    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    all = claim_pool(shm, pages, page_size);
    thr_mutex_unlock(&shm->head->space_lock);
    return all;
}

void thr_space_unclaim_pool(struct thr_shm *shm, const struct thr_pages *pages, uint32_t page_size)
{
    thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
    for (uint32_t i = 0; i < pages->count; i++)
        thr_move_held_to_pool(shm, pages->at[i], pages->at[i], page_size);
    THR_SLOW_ASSERT(thr_space_balances(shm));
    thr_mutex_unlock(&shm->head->space_lock);
}

bool thr_space_is_taken(const struct thr_shm *shm, uint32_t pgno)
{
    return thr_shm_bit(shm, THR_BITS_TAKEN, pgno);
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

    /* What is in the pool now was most likely free then, and no other connection is about to use it. */
    for (uint32_t pgno = 2; pgno <= page_count; pgno++) {
        struct thr_chunk *chunk = thr_shm_chunk(shm, pgno);

        if (chunk == NULL)
            break;
        if (pgno % 64 == 0 &&
            atomic_load_explicit(&chunk->free[pgno % THR_CHUNK_PAGES / 64], memory_order_relaxed) == 0) {
            pgno += 63;
            continue;
        }
        if (thr_page_in_pool(shm, pgno) && thr_space_is_free(heap, pgno, seq))
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

void thr_space_publish(struct thr_shm *shm, const struct thr_space_change *change, uint32_t page_size)
{
    uint32_t lock_page = thr_lock_page(page_size);

    THR_ASSERT(thr_mutex_is_held(&shm->head->commit_lock));
    if (change->cut_off_from != 0) {
        thr_mutex_lock(&shm->head->space_lock, UINT64_MAX);
        uint32_t end = thr_space_end(shm);

        thr_space_end_set(shm, change->cut_off_from - 1);
        thr_move_use_to_end(shm, change->cut_off_from, end);
        THR_SLOW_ASSERT(thr_space_balances(shm));
        thr_mutex_unlock(&shm->head->space_lock);
    }
    for (uint32_t pgno = change->append_from; pgno <= change->append_to; pgno++) {
        if (pgno == lock_page)
            continue;
        if (thr_shm_bit(shm, THR_BITS_FREE, pgno)) /* else it was never given out before this commit claimed it */
            thr_move_held_to_use(shm, pgno);
        THR_ASSERT(thr_shm_bit(shm, THR_BITS_TAKEN, pgno));
    }
    for (uint32_t i = 0; i < change->taken->count; i++)
        thr_move_held_to_use(shm, change->taken->at[i]);
    for (uint32_t i = 0; i < change->freed->count; i++)
        thr_move_use_to_held(shm, change->freed->at[i]);
    THR_POINT("freed");
}

/* The pages that are free, after thr_space_fill(). Nobody else looks. */
static int fill_pool(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count)
{
    uint32_t page_size = atomic_load_explicit(&shm->head->page_size, memory_order_relaxed);

    for (uint32_t i = 0; i < free_pages->count; i++) {
        uint32_t pgno = free_pages->at[i];

        if (pgno < 2 || pgno > page_count || pgno == thr_lock_page(page_size) ||
            !thr_shm_bit_set(shm, THR_BITS_FREE, pgno, true))
            return SQLITE_CORRUPT;
        thr_shm_bit_set(shm, THR_BITS_TAKEN, pgno, false);
        atomic_fetch_add_explicit(&shm->head->pool_pages, 1, memory_order_relaxed);
    }
    return SQLITE_OK;
}

int thr_space_load(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count)
{
    int rc;

    if ((rc = thr_shm_reserve_pages(shm, page_count)) != SQLITE_OK)
        return rc;
    thr_space_fill(shm, page_count);
    if ((rc = fill_pool(shm, free_pages, page_count)) != SQLITE_OK)
        return rc;
    for (uint32_t i = 0; i < free_pages->count; i++)
        thr_shm_bit_set(shm, THR_BITS_BASE_FREE, free_pages->at[i], true);
    THR_SLOW_ASSERT(thr_space_balances(shm));
    return SQLITE_OK;
}

int thr_space_reset(struct thr_shm *shm, const struct thr_pages *free_pages, uint32_t page_count)
{
    struct thr_head *head = shm->head;
    int rc;

    thr_mutex_lock(&head->space_lock, UINT64_MAX);
    thr_space_fill(shm, page_count);
    rc = fill_pool(shm, free_pages, page_count);
    atomic_store_explicit(&head->pool_cursor, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&head->space_epoch, 1, memory_order_seq_cst);
    THR_SLOW_ASSERT(thr_space_balances(shm));
    thr_mutex_unlock(&head->space_lock);
    return rc;
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
