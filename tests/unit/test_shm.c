/* Properties of the shared index: slots, counters, the page map and its bitmaps.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "fault.h"
#include "shm.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t seed;
static char path[PATH_MAX];
static struct thr_shm shm;

static int setup(void **state)
{
    (void)state;
    seed = fault_environment_seed();
    print_message("replay: THRONG_SEED=%" PRIu64 " build/tests/test-shm\n", seed);
    (void)snprintf(path, sizeof path, "%s/throng-shm-%ld", place(), (long)getpid());
    return 0;
}

static int open_index(void **state)
{
    (void)state;
    fault_reset();
    fault_seed(seed);
    return thr_shm_create(&shm, path, 0600) == SQLITE_OK ? 0 : -1;
}

static int close_index(void **state)
{
    (void)state;
    fault_reset();
    thr_shm_close(&shm);
    return remove(path);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(fault_random() % n);
}

/* Property: a page has a place in the map from the moment it is reserved, no two the same, empty at first; at chunk
 * borders, too, and at the highest page number there is. A reservation reaches up to its page. */
static void every_reserved_page_has_a_place(void **state)
{
    static const uint32_t PAGES[] = {
        1, 2, THR_CHUNK_PAGES - 1, THR_CHUNK_PAGES, THR_CHUNK_PAGES + 1, 5 * THR_CHUNK_PAGES};

    (void)state;
    assert_null(thr_shm_newest(&shm, 1));
    assert_false(thr_shm_bit(&shm, THR_BITS_FREE, 1));
    for (size_t i = 0; i < sizeof PAGES / sizeof PAGES[0]; i++) {
        assert_int_equal(thr_shm_reserve_pages(&shm, PAGES[i]), SQLITE_OK);
        assert_non_null(thr_shm_newest(&shm, PAGES[i]));
        assert_int_equal(atomic_load(thr_shm_newest(&shm, PAGES[i])), 0);
        atomic_store(thr_shm_newest(&shm, PAGES[i]), PAGES[i]);
        assert_null(thr_shm_newest(&shm, (PAGES[i] / THR_CHUNK_PAGES + 1) * THR_CHUNK_PAGES));
    }
    for (size_t i = 0; i < sizeof PAGES / sizeof PAGES[0]; i++)
        assert_int_equal(atomic_load(thr_shm_newest(&shm, PAGES[i])), PAGES[i]);
}

/* Property: the three bitmaps agree with arrays, bit by bit, and setting one says whether it changed. */
static void bits_agree_with_arrays(void **state)
{
    enum { PAGES = 70000 };
    static bool model[3][PAGES + 1];

    (void)state;
    memset(model, 0, sizeof model);
    assert_int_equal(thr_shm_reserve_pages(&shm, PAGES), SQLITE_OK);
    for (int i = 0; i < 200000; i++) {
        uint32_t which = below(3), pgno = 1 + (below(2) == 0 ? below(200) : below(PAGES));
        bool on = below(2) == 0;

        assert_int_equal(thr_shm_bit_set(&shm, (enum thr_bits)which, pgno, on), model[which][pgno] != on);
        model[which][pgno] = on;
    }
    for (uint32_t which = 0; which < 3; which++)
        for (uint32_t pgno = 1; pgno <= PAGES; pgno++)
            if (thr_shm_bit(&shm, (enum thr_bits)which, pgno) != model[which][pgno])
                fail_msg("bitmap %u, page %u", which, pgno);
}

/* Property: no two have the same slot; a slot given back is used again, with no snapshot and no count left in it; and
 * what it counted stays in the sum. */
static void slots_are_had_once(void **state)
{
    enum { MANY = 300 };
    static uint32_t slots[MANY];
    static bool had[THR_SLOT_MAX];
    uint64_t counted = 0;

    (void)state;
    memset(had, 0, sizeof had);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < MANY; i++) {
            assert_int_equal(thr_shm_slot_acquire(&shm, &slots[i]), SQLITE_OK);
            assert_in_range(slots[i], 0, MANY - 1);
            assert_false(had[slots[i]]);
            had[slots[i]] = true;
            assert_int_equal(atomic_load(&thr_shm_slot(&shm, slots[i])->snapshot), 0);
            assert_int_equal(atomic_load(&thr_shm_slot(&shm, slots[i])->counter[THR_COUNT_COMMITS]), 0);
            atomic_store(&thr_shm_slot(&shm, slots[i])->snapshot, 5);
            thr_count(thr_shm_slot(&shm, slots[i]), THR_COUNT_COMMITS, (uint64_t)i);
            counted += (uint64_t)i;
        }
        assert_int_equal(thr_shm_counter(&shm, THR_COUNT_COMMITS), counted);
        for (int i = 0; i < MANY; i++) {
            thr_shm_slot_release(&shm, slots[i]);
            had[slots[i]] = false;
            assert_int_equal(atomic_load(&thr_shm_slot(&shm, slots[i])->snapshot), 0);
        }
        assert_int_equal(thr_shm_counter(&shm, THR_COUNT_COMMITS), counted);
    }
}

/* Property: when all slots are taken the next is refused, not as a full disk,, and one given back is enough to go on. */
static void too_many_connections_are_refused(void **state)
{
    uint32_t slot, again;

    (void)state;
    /* Set up by hand: taking them one by one looks at each of those before. */
    assert_int_equal(thr_os_allocate(shm.fd, THR_SLOTS_OFFSET, THR_SLOT_MAX * (int64_t)sizeof(struct thr_slot)),
                     SQLITE_OK);
    for (slot = 0; slot < THR_SLOT_MAX - 1; slot++)
        atomic_store(&thr_shm_slot(&shm, slot)->state, THR_SLOT_IDLE);
    atomic_store(&shm.head->slot_high, THR_SLOT_MAX - 1);
    assert_int_equal(thr_shm_slot_acquire(&shm, &slot), SQLITE_OK);
    assert_int_equal(slot, THR_SLOT_MAX - 1);
    assert_int_equal(thr_shm_slot_acquire(&shm, &again), SQLITE_CANTOPEN);
    thr_shm_slot_release(&shm, 777);
    assert_int_equal(thr_shm_slot_acquire(&shm, &again), SQLITE_OK);
    assert_int_equal(again, 777);
    assert_int_equal(thr_shm_slot_acquire(&shm, &again), SQLITE_CANTOPEN);
}

static void *acquire_and_release(void *ctx)
{
    uint32_t slot;

    (void)ctx;
    for (int i = 0; i < 3000; i++) {
        if (thr_shm_slot_acquire(&shm, &slot) != SQLITE_OK)
            return (void *)1;
        if (atomic_exchange(&thr_shm_slot(&shm, slot)->begin_ns, 1) != 0) /* somebody else has it, too */
            return (void *)1;
        thr_count(thr_shm_slot(&shm, slot), THR_COUNT_RERUNS, 1);
        if (thr_shm_reserve_pages(&shm, (uint32_t)i * 100) != SQLITE_OK ||
            thr_shm_newest(&shm, (uint32_t)i * 100) == NULL)
            return (void *)1;
        atomic_store(&thr_shm_slot(&shm, slot)->begin_ns, 0);
        thr_shm_slot_release(&shm, slot);
    }
    return NULL;
}

/* Property: the same from four threads at once, while the index grows. */
static void slots_are_had_once_by_threads(void **state)
{
    pthread_t threads[4];
    void *result;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, acquire_and_release, NULL), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
    assert_int_equal(thr_shm_counter(&shm, THR_COUNT_RERUNS), 12000);
}

/* Property: when the disk is full, growth says so and what there was stays usable; creation leaves nothing open. */
static void a_full_disk_is_reported(void **state)
{
    struct thr_shm other;
    uint32_t slot;
    char name[PATH_MAX + 8];

    (void)state;
    assert_int_equal(thr_shm_reserve_pages(&shm, 10), SQLITE_OK);
    fault_fail_from(THR_OS_ALLOCATE, 1, ENOSPC);
    assert_int_equal(thr_shm_reserve_pages(&shm, THR_CHUNK_PAGES), SQLITE_FULL);
    assert_null(thr_shm_newest(&shm, THR_CHUNK_PAGES));
    assert_int_equal(thr_shm_slot_acquire(&shm, &slot), SQLITE_FULL);
    assert_int_equal(atomic_load(&shm.head->slot_high), 0);
    atomic_store(thr_shm_newest(&shm, 10), 3);
    fault_reset();
    assert_int_equal(thr_shm_reserve_pages(&shm, THR_CHUNK_PAGES), SQLITE_OK);
    assert_int_equal(thr_shm_slot_acquire(&shm, &slot), SQLITE_OK);
    (void)snprintf(name, sizeof name, "%s-other", path);
    for (uint64_t n = 1;; n++) {
        int rc;

        fault_reset();
        fault_fail(FAULT_ANY_CALL, n, ENOSPC);
        rc = thr_shm_create(&other, name, 0600);
        (void)remove(name);
        if (fault_hits() == 0) {
            assert_int_equal(rc, SQLITE_OK);
            thr_shm_close(&other);
            break;
        }
        assert_int_not_equal(rc, SQLITE_OK);
        assert_int_equal(other.fd, -1);
    }
}

/* Property: an index in anonymous memory works like one in a file. */
static void an_anonymous_index_works(void **state)
{
    struct thr_shm other;
    uint32_t slot;

    (void)state;
    assert_int_equal(thr_shm_create(&other, NULL, 0), SQLITE_OK);
    assert_int_equal(thr_shm_reserve_pages(&other, 3 * THR_CHUNK_PAGES), SQLITE_OK);
    assert_int_equal(thr_shm_slot_acquire(&other, &slot), SQLITE_OK);
    assert_true(thr_shm_bit_set(&other, THR_BITS_FREE, 3 * THR_CHUNK_PAGES, true));
    assert_true(thr_shm_bit(&other, THR_BITS_FREE, 3 * THR_CHUNK_PAGES));
    thr_shm_slot_release(&other, slot);
    thr_shm_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_reserved_page_has_a_place, open_index, close_index),
        cmocka_unit_test_setup_teardown(bits_agree_with_arrays, open_index, close_index),
        cmocka_unit_test_setup_teardown(slots_are_had_once, open_index, close_index),
        cmocka_unit_test_setup_teardown(too_many_connections_are_refused, open_index, close_index),
        cmocka_unit_test_setup_teardown(slots_are_had_once_by_threads, open_index, close_index),
        cmocka_unit_test_setup_teardown(a_full_disk_is_reported, open_index, close_index),
        cmocka_unit_test_setup_teardown(an_anonymous_index_works, open_index, close_index),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
