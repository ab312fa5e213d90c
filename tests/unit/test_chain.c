/* Properties of free lists as one pager sees them, against a model of what SQLite does to such a list.
 *
 * SPDX-License-Identifier: MIT */
#include "bytes.h"
#include "chain.h"
#include "fault.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "seeded.h"

enum { PAGES = 4000, PAGE_MAX = 65536 };

static int setup(void **state)
{
    (void)state;
    seeded_begin("test-chain");
    return 0;
}

/* A pager's view of a free list: the trunk pages that it wrote, everything else comes from the chain. */
struct pager {
    const struct thr_chain *chain;
    uint32_t page_size, usable_size, page_count;
    uint32_t first, count; /* page 1, offsets 32 and 36 */
    uint8_t *written[PAGES + 1];
    bool is_free[PAGES + 1];
};

static const uint8_t *read_trunk(void *ctx, uint32_t pgno)
{
    struct pager *pager = ctx;

    return pgno <= PAGES ? pager->written[pgno] : NULL;
}

static void pager_begin(struct pager *pager, const struct thr_chain *chain, uint32_t page_size, uint32_t usable_size,
                        uint32_t page_count)
{
    for (uint32_t i = 0; i <= PAGES; i++) {
        free(pager->written[i]);
        pager->written[i] = NULL;
    }
    pager->chain = chain;
    pager->page_size = page_size;
    pager->usable_size = usable_size;
    pager->page_count = page_count;
    pager->first = chain->first;
    pager->count = chain->pages;
}

/* The page, to be written. */
static uint8_t *pager_page(struct pager *pager, uint32_t pgno)
{
    if (pager->written[pgno] == NULL) {
        pager->written[pgno] = calloc(1, pager->page_size);
        if (!thr_chain_trunk(pager->chain, pgno, pager->written[pgno], pager->page_size))
            for (uint32_t i = 0; i < pager->page_size; i++)
                pager->written[pgno][i] = (uint8_t)fault_random(); /* some b-tree page */
    }
    return pager->written[pgno];
}

/* allocateBtreePage() without a wish for a certain page: a leaf of the first trunk, or the trunk if it has none. SQLite
 * takes the leaf whose number is nearest to the wanted one; any will do here. */
static uint32_t pager_allocate(struct pager *pager)
{
    uint8_t *trunk;
    uint32_t leaves, pgno, which;

    if (pager->count == 0)
        return 0;
    pgno = pager->first;
    trunk = pager_page(pager, pgno);
    leaves = thr_get32(trunk + 4);
    pager->count--;
    if (leaves == 0) {
        pager->first = thr_get32(trunk);
    } else {
        which = seeded_below(leaves);
        pgno = thr_get32(trunk + 8 + 4 * (size_t)which);
        if (which < leaves - 1)
            memcpy(trunk + 8 + 4 * (size_t)which, trunk + 4 + 4 * (size_t)leaves, 4);
        thr_put32(trunk + 4, leaves - 1);
    }
    assert_true(pager->is_free[pgno]);
    pager->is_free[pgno] = false;
    if (seeded_below(2) == 0) /* its new owner writes it */
        memset(pager_page(pager, pgno), (int)seeded_below(256), pager->page_size);
    return pgno;
}

/* freePage2(): a leaf of the first trunk while that has room, else the new first trunk. */
static void pager_free(struct pager *pager, uint32_t pgno)
{
    uint8_t *page;
    uint32_t leaves;

    assert_false(pager->is_free[pgno]);
    pager->is_free[pgno] = true;
    if (pager->count++ != 0) {
        page = pager_page(pager, pager->first);
        leaves = thr_get32(page + 4);
        assert_true(leaves <= pager->usable_size / 4 - 2);
        if (leaves < pager->usable_size / 4 - 8) {
            thr_put32(page + 4, leaves + 1);
            thr_put32(page + 8 + 4 * (size_t)leaves, pgno);
            return;
        }
    }
    page = pager_page(pager, pgno);
    thr_put32(page, pager->count > 1 ? pager->first : 0);
    thr_put32(page + 4, 0);
    pager->first = pgno;
}

/* Each page once, and exactly those that `wanted` says. */
static void assert_pages(const struct thr_pages *pages, const bool *was, const bool *is, bool added)
{
    static bool found[PAGES + 1];
    uint32_t wanted = 0;

    memset(found, 0, sizeof found);
    for (uint32_t i = 0; i < pages->count; i++) {
        uint32_t pgno = pages->at[i];

        assert_in_range(pgno, 2, PAGES);
        assert_false(found[pgno]);
        assert_int_equal(was[pgno], !added);
        assert_int_equal(is[pgno], added);
        found[pgno] = true;
    }
    for (uint32_t i = 0; i <= PAGES; i++)
        wanted += is[i] == added && was[i] != added;
    assert_int_equal(pages->count, wanted);
}

/* Walks the trunks that thr_chain_trunk() makes up, as SQLite would, and marks what it finds. */
static uint32_t walk(const struct thr_chain *chain, uint32_t page_size, uint32_t usable_size, bool *found)
{
    uint8_t *page = malloc(page_size);
    uint32_t count = 0, trunk = chain->first, leaves;

    while (trunk != 0) {
        assert_true(thr_chain_is_trunk(chain, trunk));
        memset(page, 0xee, page_size);
        assert_true(thr_chain_trunk(chain, trunk, page, page_size));
        assert_false(found[trunk]);
        found[trunk] = true;
        leaves = thr_get32(page + 4);
        assert_true(leaves <= usable_size / 4 - 8);
        for (uint32_t i = 0; i < leaves; i++) {
            uint32_t leaf = thr_get32(page + 8 + 4 * (size_t)i);

            assert_false(found[leaf]);
            found[leaf] = true;
        }
        for (uint32_t i = 8 + 4 * leaves; i < page_size; i++)
            assert_int_equal(page[i], 0);
        count += 1 + leaves;
        trunk = thr_get32(page);
    }
    free(page);
    return count;
}

/* Property: the list that is made of some pages holds those pages and no others, in stock SQLite's format, whatever the
 * page size and however many there are. */
static void a_list_holds_the_pages_that_it_was_made_of(void **state)
{
    static uint32_t pages[PAGES];
    static bool found[PAGES + 2];
    uint8_t *page = malloc(PAGE_MAX);
    struct thr_chain chain = {0};

    (void)state;
    for (uint32_t page_size = 512; page_size <= PAGE_MAX; page_size *= 2) {
        for (uint32_t round = 0; round < 40; round++) {
            uint32_t usable_size = page_size - (round % 4 == 0 ? 32 : 0), leaves = usable_size / 4 - 8;
            const uint32_t edges[] = {0, 1, 2, leaves, leaves + 1, leaves + 2, 2 * leaves + 2};
            uint32_t count = round < 7 ? edges[round] : seeded_below(PAGES - 1);

            if (count > PAGES - 1)
                count = PAGES - 1;
            for (uint32_t i = 0; i < count; i++)
                pages[i] = i + 2;
            for (uint32_t i = 1; i < count; i++) {
                uint32_t other = seeded_below(i + 1), swap = pages[i];

                pages[i] = pages[other];
                pages[other] = swap;
            }
            memset(found, 0, sizeof found);
            assert_int_equal(thr_chain_make(&chain, pages, count, usable_size), SQLITE_OK);
            assert_int_equal(chain.pages, count);
            assert_true(chain.built);
            assert_int_equal(chain.first != 0, count > 0);
            assert_int_equal(walk(&chain, page_size, usable_size, found), count);
            for (uint32_t i = 0; i < count; i++)
                assert_true(found[pages[i]]);
            assert_false(thr_chain_trunk(&chain, PAGES + 1, page, page_size));
            assert_false(thr_chain_is_trunk(&chain, PAGES + 1));
            assert_false(thr_chain_is_trunk(&chain, 0));
        }
    }
    thr_chain_free(&chain);
    free(page);
}

/* Property: whatever a pager allocates and frees, the difference names exactly the pages that were free only before or
 * only after, and the new list is what the pager left: transaction after transaction. */
static void a_difference_is_what_the_pager_did(void **state)
{
    static struct pager pager;
    static bool before[PAGES + 1], found[PAGES + 1];
    uint32_t pages[PAGES];

    (void)state;
    for (int round = 0; round < 24; round++) {
        uint32_t page_size = 512u << (round % 4), usable_size = page_size - (round % 3 == 0 ? 8 : 0), count;
        uint32_t page_count = round % 5 == 0 ? 60 : PAGES;
        struct thr_chain chain = {0}, after = {0}, swap;
        struct thr_pages taken = {0}, freed = {0};

        memset(pager.is_free, 0, sizeof pager.is_free);
        count = seeded_below(page_count - 2);
        for (uint32_t i = 0; i < count; i++) {
            pages[i] = page_count - i;
            pager.is_free[pages[i]] = true;
        }
        assert_int_equal(thr_chain_make(&chain, pages, count, usable_size), SQLITE_OK);
        for (int transaction = 0; transaction < 30; transaction++) {
            uint32_t steps = transaction % 4 == 0 ? seeded_below(2 * page_count) : seeded_below(12),
                     lean = seeded_below(10);

            memcpy(before, pager.is_free, sizeof before);
            pager_begin(&pager, &chain, page_size, usable_size, page_count);
            for (uint32_t i = 0; i < steps; i++) {
                uint32_t pgno = 2 + seeded_below(page_count - 1);

                if (seeded_below(10) < lean)
                    (void)pager_allocate(&pager);
                else if (!pager.is_free[pgno])
                    pager_free(&pager, pgno);
            }
            taken.count = freed.count = 0;
            assert_int_equal(thr_chain_diff(&chain, pager.first, pager.count, page_count, read_trunk, &pager,
                                            usable_size, &after, &taken, &freed),
                             SQLITE_OK);
            assert_pages(&taken, before, pager.is_free, false);
            assert_pages(&freed, before, pager.is_free, true);
            assert_int_equal(after.pages, pager.count);
            memset(found, 0, sizeof found);
            assert_int_equal(walk(&after, page_size, usable_size, found), pager.count);
            assert_memory_equal(found, pager.is_free, sizeof found);
            swap = chain;
            chain = after;
            after = swap;
        }
        pager_begin(&pager, &chain, page_size, usable_size, page_count);
        thr_chain_free(&chain);
        thr_chain_free(&after);
        free(taken.at);
        free(freed.at);
    }
}

/* What thr_chain_diff() says of the pager's list. */
static int diff_of(struct pager *pager, uint32_t first, uint32_t count)
{
    struct thr_chain after = {0};
    struct thr_pages taken = {0}, freed = {0};
    int rc = thr_chain_diff(pager->chain, first, count, pager->page_count, read_trunk, pager, pager->usable_size,
                            &after, &taken, &freed);

    thr_chain_free(&after);
    free(taken.at);
    free(freed.at);
    return rc;
}

/* Property (I8): what is no list is SQLITE_CORRUPT: a page out of range or twice, a trunk that is none, too many leaves,
 * a wrong count, a cycle. */
static void a_broken_list_is_refused(void **state)
{
    static struct pager pager;
    struct thr_chain chain = {0};
    uint32_t pages[200];
    uint8_t *page;

    (void)state;
    for (uint32_t i = 0; i < 200; i++)
        pages[i] = i + 10;
    assert_int_equal(thr_chain_make(&chain, pages, 200, 512), SQLITE_OK); /* trunks 10, 131 */
    pager_begin(&pager, &chain, 512, 512, 300);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_OK);
    assert_int_equal(diff_of(&pager, 10, 199), SQLITE_CORRUPT);
    assert_int_equal(diff_of(&pager, 10, 201), SQLITE_CORRUPT);
    assert_int_equal(diff_of(&pager, 10, UINT32_MAX), SQLITE_CORRUPT);
    assert_int_equal(diff_of(&pager, 0, 200), SQLITE_CORRUPT);
    assert_int_equal(diff_of(&pager, 1, 200), SQLITE_CORRUPT);
    assert_int_equal(diff_of(&pager, 11, 200), SQLITE_CORRUPT); /* a leaf */
    assert_int_equal(diff_of(&pager, 5, 200), SQLITE_CORRUPT);  /* in use */
    assert_int_equal(diff_of(&pager, 301, 200), SQLITE_CORRUPT);
    assert_int_equal(diff_of(&pager, UINT32_MAX, 200), SQLITE_CORRUPT);
    pager.page_count = 150; /* the file got shorter */
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    pager.page_count = 300;

    page = pager_page(&pager, 10);
    thr_put32(page + 4, 512 / 4 - 1);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 4, UINT32_MAX);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 4, 120);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_OK);
    thr_put32(page + 8, 0);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 8, 1);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 8, 301);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 8, 12); /* twice, of the old list */
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 8, 250); /* twice, new */
    thr_put32(page + 12, 250);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 8, 10); /* the trunk itself */
    thr_put32(page + 12, 12);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page + 8, 11);
    thr_put32(page, 10); /* a cycle, with a count that suits it and without */
    assert_int_equal(diff_of(&pager, 10, 242), SQLITE_CORRUPT);
    assert_int_equal(diff_of(&pager, 10, 200), SQLITE_CORRUPT);
    thr_put32(page, 0);
    assert_int_equal(diff_of(&pager, 10, 121), SQLITE_OK);
    pager_begin(&pager, &chain, 512, 512, 300);
    thr_chain_free(&chain);
}

/* Property (I8): garbage where a trunk should be never crashes and never makes a list with a page twice or out of
 * range. */
static void garbage_makes_no_list(void **state)
{
    static struct pager pager;
    static bool found[PAGES + 1];
    struct thr_chain chain = {0};
    uint32_t pages[300], accepted = 0;

    (void)state;
    for (uint32_t i = 0; i < 300; i++)
        pages[i] = i + 10;
    assert_int_equal(thr_chain_make(&chain, pages, 300, 512), SQLITE_OK);
    for (int round = 0; round < 20000; round++) {
        struct thr_chain after = {0};
        struct thr_pages taken = {0}, freed = {0};
        uint8_t *page;

        pager_begin(&pager, &chain, 512, 512, 400);
        page = pager_page(&pager, 10);
        for (uint32_t n = 1 + seeded_below(3); n > 0; n--)
            thr_put32(page + 4 * seeded_below(128),
                      seeded_below(3) == 0 ? (uint32_t)fault_random() : seeded_below(402));
        if (thr_chain_diff(&chain, 10, seeded_below(2) == 0 ? 300 : seeded_below(400), 400, read_trunk, &pager, 512,
                           &after, &taken, &freed) == SQLITE_OK) {
            accepted++;
            memset(found, 0, sizeof found);
            for (size_t i = 0; i < after.count; i += 2 + after.words[i + 1])
                for (size_t k = 0; k <= after.words[i + 1]; k++) {
                    uint32_t pgno = after.words[k == 0 ? i : i + 1 + k];

                    assert_in_range(pgno, 2, 400);
                    assert_false(found[pgno]);
                    found[pgno] = true;
                }
        }
        thr_chain_free(&after);
        free(taken.at);
        free(freed.at);
    }
    assert_true(accepted > 10);
    pager_begin(&pager, &chain, 512, 512, 400);
    thr_chain_free(&chain);
}

/* Property: without memory the difference is SQLITE_NOMEM, whichever allocation fails. */
static void the_want_of_memory_is_reported(void **state)
{
    static struct pager pager;
    struct thr_chain chain = {0};
    uint32_t pages[200];
    int rc;

    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        pages[i] = i + 10;
        pager.is_free[i + 10] = true;
    }
    fault_fail(THR_OS_MEMORY, 1, ENOMEM);
    assert_int_equal(thr_chain_make(&chain, pages, 200, 512), SQLITE_NOMEM);
    fault_reset();
    assert_int_equal(thr_chain_make(&chain, pages, 200, 512), SQLITE_OK);
    pager_begin(&pager, &chain, 512, 512, 400);
    for (int i = 0; i < 60; i++)
        (void)pager_allocate(&pager);
    for (uint32_t i = 0; i < 100; i++)
        pager_free(&pager, 300 + i);
    for (uint64_t n = 1;; n++) {
        fault_reset();
        fault_fail(THR_OS_MEMORY, n, ENOMEM);
        rc = diff_of(&pager, pager.first, pager.count);
        if (fault_hits() == 0)
            break;
        assert_int_equal(rc, SQLITE_NOMEM);
    }
    assert_int_equal(rc, SQLITE_OK);
    pager_begin(&pager, &chain, 512, 512, 400);
    thr_chain_free(&chain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_list_holds_the_pages_that_it_was_made_of, seeded_end),
        cmocka_unit_test_teardown(a_difference_is_what_the_pager_did, seeded_end),
        cmocka_unit_test_teardown(a_broken_list_is_refused, seeded_end),
        cmocka_unit_test_teardown(garbage_makes_no_list, seeded_end),
        cmocka_unit_test_teardown(the_want_of_memory_is_reported, seeded_end),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
