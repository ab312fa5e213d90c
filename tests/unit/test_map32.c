/* Properties of the map of page numbers.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "map32.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "seeded.h"

enum { KEYS = 5000 };

static int setup(void **state)
{
    (void)state;
    seeded_begin("test-map32");
    return 0;
}

/* Property: an empty map has no key, and clearing or freeing one changes nothing. */
static void an_empty_map_finds_nothing(void **state)
{
    struct thr_map32 map = {0};

    (void)state;
    assert_null(thr_map32_find(&map, 1));
    thr_map32_clear(&map);
    assert_null(thr_map32_find(&map, UINT32_MAX));
    thr_map32_free(&map);
    thr_map32_free(&map);
}

/* Property: whatever keys come, in whatever order and as often as they like, the map holds for each the value given
 * last, `fresh` is true exactly the first time, and a clearing forgets all of them. */
static void a_map_agrees_with_an_array(void **state)
{
    uint32_t keys[KEYS], values[KEYS], *place;
    bool there[KEYS], fresh;
    struct thr_map32 map = {0};

    (void)state;
    for (uint32_t i = 0; i < KEYS; i++) /* distinct, and of every kind: dense, a power of two apart, at the ends */
        keys[i] = i < 2000 ? i + 1 : i < 4000 ? (i - 1999) << 16 | 1u << 31 : UINT32_MAX - (i - 4000);
    for (int round = 0; round < 4; round++) {
        uint32_t span = round % 2 == 0 ? 40 : KEYS,
                 count = 0; /* small maps are kept when cleared, large ones are not */

        memset(there, 0, sizeof there);
        for (int step = 0; step < 20000; step++) {
            uint32_t i = (uint32_t)(fault_random() % span);

            if (fault_random() % 3 == 0) {
                place = thr_map32_find(&map, keys[i]);
                assert_int_equal(place != NULL, there[i]);
                if (place != NULL)
                    assert_int_equal(*place, values[i]);
                continue;
            }
            place = thr_map32_insert(&map, keys[i], &fresh);
            assert_non_null(place);
            assert_int_equal(fresh, !there[i]);
            assert_int_equal(*place, there[i] ? values[i] : 0);
            count += fresh;
            there[i] = true;
            *place = values[i] = (uint32_t)fault_random();
            assert_int_equal(map.count, count);
        }
        for (uint32_t i = 0; i < span; i++) {
            place = thr_map32_find(&map, keys[i]);
            assert_int_equal(place != NULL, there[i]);
            if (place != NULL)
                assert_int_equal(*place, values[i]);
        }
        thr_map32_clear(&map);
        for (uint32_t i = 0; i < span; i++)
            assert_null(thr_map32_find(&map, keys[i]));
    }
    thr_map32_free(&map);
}

/* Property: without memory an insertion says so and everything in the map is still there. */
static void a_map_without_memory_keeps_what_it_has(void **state)
{
    struct thr_map32 map = {0};
    uint32_t *place, count;

    (void)state;
    fault_fail_from(THR_OS_MEMORY, 1, ENOMEM);
    assert_null(thr_map32_insert(&map, 7, NULL));
    fault_reset();
    assert_non_null(thr_map32_insert(&map, 7, NULL));
    fault_fail_from(THR_OS_MEMORY, 1, ENOMEM);
    for (count = 1; (place = thr_map32_insert(&map, count * 64, NULL)) != NULL; count++)
        *place = count;
    assert_true(count > 16);
    for (uint32_t i = 1; i < count; i++)
        assert_int_equal(*thr_map32_find(&map, i * 64), i);
    assert_null(thr_map32_find(&map, count * 64));
    assert_int_equal(map.count, count);
    thr_map32_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(an_empty_map_finds_nothing, seeded_end),
        cmocka_unit_test_teardown(a_map_agrees_with_an_array, seeded_end),
        cmocka_unit_test_teardown(a_map_without_memory_keeps_what_it_has, seeded_end),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
