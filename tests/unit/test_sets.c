/* Properties of the read and write sets of a transaction.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "sets.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "seeded.h"

enum { PAGES = 20000 };

static int setup(void **state)
{
    (void)state;
    seeded_begin("test-sets");
    return 0;
}

/* Property: a read set holds every page read since it was last cleared, each once. */
static void reads_hold_each_page_once(void **state)
{
    static bool model[PAGES + 1], found[PAGES + 1];
    struct thr_reads reads = {0};

    (void)state;
    for (int round = 0; round < 20; round++) {
        uint32_t span = round % 3 == 0 ? PAGES : 100, expected = 0;

        memset(model, 0, sizeof model);
        memset(found, 0, sizeof found);
        for (int i = 0; i < 5000; i++) {
            uint32_t pgno = 1 + (uint32_t)(fault_random() % span);

            assert_int_equal(thr_reads_add(&reads, pgno), SQLITE_OK);
            expected += !model[pgno];
            model[pgno] = true;
        }
        assert_int_equal(reads.count, expected);
        for (size_t i = 0; i < reads.count; i++) {
            assert_true(model[reads.pages[i]]);
            assert_false(found[reads.pages[i]]);
            found[reads.pages[i]] = true;
        }
        thr_reads_clear(&reads);
        assert_int_equal(reads.count, 0);
    }
    thr_reads_free(&reads);
}

/* Property: a page with a very high number is read like any other. */
static void reads_take_the_highest_page(void **state)
{
    struct thr_reads reads = {0};

    (void)state;
    assert_int_equal(thr_reads_add(&reads, 0x3ffffffe), SQLITE_OK);
    assert_int_equal(thr_reads_add(&reads, 0x3ffffffe), SQLITE_OK);
    assert_int_equal(thr_reads_add(&reads, 1), SQLITE_OK);
    assert_int_equal(reads.count, 2);
    thr_reads_free(&reads);
}

/* Property: without memory a page is reported as not added, and is not: the caller can fail the transaction. */
static void reads_say_when_there_is_no_memory(void **state)
{
    struct thr_reads reads = {0};
    size_t before;

    (void)state;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        fault_reset();
        fault_fail(THR_OS_MEMORY, nth, ENOMEM);
        assert_int_equal(thr_reads_add(&reads, 5), SQLITE_NOMEM);
        assert_int_equal(reads.count, 0);
        thr_reads_free(&reads);
    }
    fault_reset();
    assert_int_equal(thr_reads_add(&reads, 5), SQLITE_OK);
    fault_fail_from(THR_OS_MEMORY, 1, ENOMEM);
    before = reads.count;
    assert_int_equal(thr_reads_add(&reads, 1 << 20), SQLITE_NOMEM);
    assert_int_equal(reads.count, before);
    fault_reset();
    assert_int_equal(thr_reads_add(&reads, 1 << 20), SQLITE_OK);
    assert_int_equal(reads.count, before + 1);
    thr_reads_free(&reads);
}

/* Property: a write set finds exactly the pages added since it was last cleared, with what was stored for them. */
static void writes_agree_with_an_array(void **state)
{
    static uint32_t frames[PAGES + 1];
    struct thr_writes writes = {0};
    struct thr_write *write;
    bool fresh;

    (void)state;
    for (int round = 0; round < 6; round++) {
        uint32_t span = round % 2 == 0 ? PAGES : 60, count = 0;

        memset(frames, 0, sizeof frames);
        for (uint32_t i = 1; i < 6000; i++) {
            uint32_t pgno = 1 + (uint32_t)(fault_random() % span);

            write = thr_writes_find(&writes, pgno);
            assert_int_equal(write != NULL, frames[pgno] != 0);
            write = thr_writes_add(&writes, pgno, &fresh);
            assert_non_null(write);
            assert_int_equal(fresh, frames[pgno] == 0);
            assert_int_equal(write->pgno, pgno);
            assert_int_equal(write->frame, frames[pgno]);
            write->frame = frames[pgno] = i;
            count += fresh;
            assert_int_equal(writes.count, count);
        }
        for (uint32_t i = 0; i < writes.count; i++)
            assert_int_equal(writes.at[i].frame, frames[writes.at[i].pgno]);
        thr_writes_clear(&writes);
        assert_null(thr_writes_find(&writes, 1));
    }
    thr_writes_free(&writes);
}

/* Property: a page that could not be added for want of memory is not in the set, and may be added later. */
static void writes_survive_the_want_of_memory(void **state)
{
    struct thr_writes writes = {0};
    uint32_t added = 0;
    bool fresh;

    (void)state;
    for (uint32_t pgno = 1; pgno <= 2000; pgno++) {
        struct thr_write *write;

        fault_reset();
        fault_fail(THR_OS_MEMORY, 1 + pgno % 2, ENOMEM);
        if (thr_writes_add(&writes, pgno, &fresh) == NULL) {
            assert_null(thr_writes_find(&writes, pgno));
            fault_reset();
            write = thr_writes_add(&writes, pgno, &fresh);
            assert_non_null(write);
            assert_true(fresh);
        }
        thr_writes_find(&writes, pgno)->frame = pgno * 3;
        assert_int_equal(writes.count, ++added);
    }
    for (uint32_t pgno = 1; pgno <= 2000; pgno++)
        assert_int_equal(thr_writes_find(&writes, pgno)->frame, pgno * 3);
    thr_writes_free(&writes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(reads_hold_each_page_once, seeded_end),
        cmocka_unit_test_teardown(reads_take_the_highest_page, seeded_end),
        cmocka_unit_test_teardown(reads_say_when_there_is_no_memory, seeded_end),
        cmocka_unit_test_teardown(writes_agree_with_an_array, seeded_end),
        cmocka_unit_test_teardown(writes_survive_the_want_of_memory, seeded_end),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
