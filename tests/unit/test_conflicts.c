/* Properties of the table of pages that made transactions fail.
 *
 * SPDX-License-Identifier: MIT */
#include "conflicts.h"
#include "fault.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGES = 1000, CONFLICTS = 50000, THREADS = 4 };

static struct thr_head head;
static struct thr_conflict_page found[THR_CONFLICT_PAGES];

static int setup(void **state)
{
    uint64_t seed = fault_environment_seed();

    (void)state;
    print_message("replay: THRONG_SEED=%" PRIu64 " build/tests/test-conflicts\n", seed);
    fault_reset();
    fault_seed(seed);
    memset(&head, 0, sizeof head);
    return 0;
}

static uint64_t sum_of(uint32_t count)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < count; i++)
        sum += found[i].count;
    return sum;
}

/* Some pages are wanted by many, as in a database. */
static uint32_t any_page(void)
{
    uint32_t pgno = 1 + (uint32_t)(fault_random() % PAGES);

    return fault_random() % 4 == 0 ? 1 + pgno % 20 : pgno;
}

/* Property: as long as no more pages conflict than the table has places the counts are exact, most frequent first. */
static void few_pages_are_counted_exactly(void **state)
{
    uint32_t count;

    (void)state;
    assert_int_equal(thr_conflicts_read(&head, found), 0);
    for (uint32_t pgno = 1; pgno <= THR_CONFLICT_PAGES; pgno++)
        for (uint32_t i = 0; i < pgno; i++)
            thr_conflicts_add(&head, pgno * 7);
    count = thr_conflicts_read(&head, found);
    assert_int_equal(count, THR_CONFLICT_PAGES);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(found[i].count, THR_CONFLICT_PAGES - i);
        assert_int_equal(found[i].pgno, 7 * (THR_CONFLICT_PAGES - i));
        assert_int_equal(found[i].error, 0);
    }
}

/* Property: whatever the stream of conflicts, a page's count less its error is no more than its conflicts, the count no
 * less, the counts add up to all conflicts, and whoever has more than one in THR_CONFLICT_PAGES of them is there. */
static void many_pages_are_bounded(void **state)
{
    static uint64_t exact[PAGES + 1];
    bool seen[PAGES + 1] = {false};
    uint32_t count;

    (void)state;
    memset(exact, 0, sizeof exact);
    for (int i = 0; i < CONFLICTS; i++) {
        uint32_t pgno = any_page();

        exact[pgno]++;
        thr_conflicts_add(&head, pgno);
    }
    count = thr_conflicts_read(&head, found);
    assert_int_equal(count, THR_CONFLICT_PAGES);
    assert_int_equal(sum_of(count), CONFLICTS);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(found[i].pgno >= 1 && found[i].pgno <= PAGES);
        assert_false(seen[found[i].pgno]);
        seen[found[i].pgno] = true;
        assert_true(found[i].count >= exact[found[i].pgno]);
        assert_true(found[i].count - found[i].error <= exact[found[i].pgno]);
        assert_true(i == 0 || found[i].count <= found[i - 1].count);
    }
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++)
        assert_true(seen[pgno] || exact[pgno] <= CONFLICTS / THR_CONFLICT_PAGES);
}

static void *add_some(void *ctx)
{
    (void)ctx;
    for (int i = 0; i < CONFLICTS / THREADS; i++)
        thr_conflicts_add(&head, any_page());
    return NULL;
}

/* Property: no conflict is lost when several threads lose at once. */
static void threads_lose_no_conflict(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_some, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(sum_of(thr_conflicts_read(&head, found)), CONFLICTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(few_pages_are_counted_exactly, setup),
        cmocka_unit_test_setup(many_pages_are_bounded, setup),
        cmocka_unit_test_setup(threads_lose_no_conflict, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
