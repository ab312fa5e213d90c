/* Properties of log records: what goes in comes out, and nothing else is believed.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "fault.h"
#include "record.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "seeded.h"

enum { SEQ = 77, SALT = 0x5a17, HEAD = sizeof(struct thr_record_head), PAGE_COUNT = 40 };
static const size_t GUARD = 4096;

static char scratch[PATH_MAX];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(scratch, sizeof scratch, "%s/throng-record-%ld", place(), (long)getpid());
    seeded_begin("test-record");
    return 0;
}

static void fill(uint8_t *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)fault_random();
}

/* Memory for `bytes`, a multiple of 8, with nothing mapped behind them: to read past the end is to crash. */
static uint8_t *guarded_alloc(size_t bytes)
{
    size_t whole = (bytes + GUARD - 1) / GUARD * GUARD;
    uint8_t *at = mmap(NULL, whole + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true((void *)at != MAP_FAILED);
    assert_int_equal(mprotect(at + whole, GUARD, PROT_NONE), 0);
    return at + whole - bytes;
}

static void guarded_free(uint8_t *at, size_t bytes)
{
    size_t whole = (bytes + GUARD - 1) / GUARD * GUARD;

    (void)munmap(at + bytes - whole, whole + GUARD);
}

/* Change `page` in one of the ways that pages change. */
static void disturb(uint8_t *page, uint32_t page_size, uint32_t way)
{
    switch (way) {
    case 0: /* not at all */
        break;
    case 1:
        page[seeded_below(page_size)] ^= (uint8_t)(1 + seeded_below(255));
        break;
    case 2: /* the ends */
        page[0] ^= 1;
        page[page_size - 1] ^= 1;
        break;
    case 3: /* as many ranges as there can be */
        for (uint32_t i = seeded_below(4) * 8; i < page_size; i += 32)
            page[i + seeded_below(8)] ^= 0x55;
        break;
    case 4:
        fill(page, page_size);
        break;
    case 5: /* as a row is inserted: head, cell pointers, a cell */
        fill(page, 16);
        fill(page + page_size / 2, 1 + seeded_below(page_size / 2));
        break;
    default:
        for (uint32_t n = seeded_below(20); n > 0; n--) {
            uint32_t from = seeded_below(page_size), bytes = 1 + seeded_below(40);

            fill(page + from, from + bytes > page_size ? page_size - from : bytes);
        }
    }
}

/* Seal into guarded memory of exactly its size. */
static uint8_t *sealed(struct thr_record *record, uint32_t page_size, uint32_t page_count, uint64_t seq)
{
    struct thr_record_head *head;
    uint8_t *at;

    assert_int_equal(thr_record_finish(record), SQLITE_OK);
    head = thr_record_head(record);
    head->page_size = page_size;
    head->page_count = page_count;
    head->format = 2;
    assert_int_equal(head->bytes, record->bytes);
    at = guarded_alloc(record->bytes);
    thr_record_seal(record, seq, SALT, at);
    return at;
}

/* A database in memory that changes are applied to. */
struct pages {
    uint8_t *at;
    uint32_t page_size, count;
    uint32_t calls;
};

static int apply(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes, uint32_t range_bytes)
{
    struct pages *pages = ctx;
    uint8_t *page;

    assert_in_range(pgno, 1, pages->count);
    assert_true(offset + range_bytes <= pages->page_size);
    page = pages->at + (size_t)(pgno - 1) * pages->page_size;
    pages->calls++;
    if (fresh) {
        assert_int_equal(range_bytes, 0);
        memset(page, 0, pages->page_size);
    } else {
        memcpy(page + offset, bytes, range_bytes);
    }
    return SQLITE_OK;
}

/* Property: a page that is given its record's changes is the page that the record was made of, at every page size,
 * however it changed, also when the page before was of no use. A page without a change adds nothing. */
static void a_change_comes_back_exactly(void **state)
{
    uint8_t *before = malloc(65536), *now = malloc(65536), *got = malloc(65536), *at;
    struct thr_record record;
    bool changed;

    (void)state;
    thr_record_init(&record, scratch);
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        for (uint32_t i = 0; i < 80; i++) {
            bool fresh = i % 10 > 6;
            struct pages pages = {got, page_size, 1, 0};

            fill(before, page_size);
            if (fresh)
                memset(before, 0, page_size);
            memcpy(now, before, page_size);
            disturb(now, page_size, fresh ? i / 10 : i % 10);
            assert_int_equal(thr_record_begin(&record, NULL, 0, NULL, 0, NULL, 0), SQLITE_OK);
            assert_int_equal(thr_record_change(&record, 1, fresh ? NULL : before, now, page_size, &changed), SQLITE_OK);
            assert_int_equal(changed, fresh || memcmp(before, now, page_size) != 0);
            assert_int_equal(thr_record_head(&record)->change_count, changed);
            if (!changed)
                assert_int_equal(record.bytes, HEAD);
            at = sealed(&record, page_size, 1, SEQ);
            assert_true(thr_record_check(at, record.bytes, SALT, SEQ));
            memcpy(got, before, page_size);
            if (fresh)
                fill(got, page_size);
            assert_int_equal(thr_record_each(at, apply, &pages), SQLITE_OK);
            assert_memory_equal(got, now, page_size);
            guarded_free(at, record.bytes);
        }
    }
    thr_record_free(&record);
    free(before);
    free(now);
    free(got);
}

/* Property: the lists of pages and the group come back as they went in, whatever their lengths, beside the changes. */
static void lists_and_group_come_back(void **state)
{
    uint32_t taken[300], freed[300];
    uint8_t group[200], page[512], got[512] = {0}, *at;
    struct thr_record record;
    bool changed;

    (void)state;
    thr_record_init(&record, scratch);
    fill((uint8_t *)taken, sizeof taken);
    fill((uint8_t *)freed, sizeof freed);
    fill(group, sizeof group);
    fill(page, sizeof page);
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t taken_count = i % 5 == 0 ? 0 : seeded_below(300), freed_count = i % 7 == 0 ? 0 : seeded_below(300);
        size_t group_bytes = i % 3 == 0 ? 0 : seeded_below(sizeof group), bytes = 0;
        struct pages pages = {got, 512, 1, 0};
        const uint8_t *group_at;

        assert_int_equal(
            thr_record_begin(&record, taken, taken_count, freed, freed_count, i % 3 == 0 ? NULL : group, group_bytes),
            SQLITE_OK);
        assert_int_equal(thr_record_change(&record, 1, NULL, page, 512, &changed), SQLITE_OK);
        at = sealed(&record, 512, 1, SEQ);
        assert_true(thr_record_check(at, record.bytes, SALT, SEQ));
        if (taken_count > 0)
            assert_memory_equal(thr_record_taken(at), taken, taken_count * 4);
        if (freed_count > 0)
            assert_memory_equal(thr_record_freed(at), freed, freed_count * 4);
        group_at = thr_record_group(at, &bytes);
        assert_int_equal(group_at != NULL, i % 3 != 0);
        assert_int_equal(bytes, group_bytes);
        if (group_bytes > 0)
            assert_memory_equal(group_at, group, group_bytes);
        assert_int_equal(thr_record_each(at, apply, &pages), SQLITE_OK);
        assert_memory_equal(got, page, 512);
        guarded_free(at, record.bytes);
    }
    thr_record_free(&record);
}

/* A record of several pages; *bytes_out is its size. */
static uint8_t *some_record(uint32_t page_size, bool with_group, size_t *bytes_out)
{
    static const uint32_t LIST[] = {3, 5, 8};
    struct thr_record record;
    uint8_t *before = malloc(page_size), *now = malloc(page_size), *at, group[40];
    bool changed;

    thr_record_init(&record, scratch);
    fill(group, sizeof group);
    assert_int_equal(
        thr_record_begin(&record, LIST, 3, LIST, 2, with_group ? group : NULL, with_group ? sizeof group : 0),
        SQLITE_OK);
    for (uint32_t pgno = 1; pgno <= 4; pgno++) {
        fill(before, page_size);
        memcpy(now, before, page_size);
        disturb(now, page_size, pgno == 4 ? 1 : 6);
        assert_int_equal(thr_record_change(&record, pgno, pgno == 4 ? NULL : before, now, page_size, &changed),
                         SQLITE_OK);
    }
    at = sealed(&record, page_size, PAGE_COUNT, SEQ);
    *bytes_out = record.bytes;
    thr_record_free(&record);
    free(before);
    free(now);
    return at;
}

/* Property: a record with any one byte wrong is not believed. The word `decided` is in no hash, and does not matter to
 * whether the record is whole. */
static void every_flipped_byte_is_found(void **state)
{
    size_t bytes;
    uint8_t *at = some_record(512, true, &bytes);

    (void)state;
    assert_true(thr_record_check(at, bytes, SALT, SEQ));
    for (size_t i = 0; i < bytes; i++) {
        uint8_t was = at[i];
        bool decided = i >= offsetof(struct thr_record_head, decided) && i < HEAD;

        for (int bit = 0; bit < 8; bit++) {
            at[i] = (uint8_t)(was ^ 1 << bit);
            assert_int_equal(thr_record_check(at, bytes, SALT, SEQ), decided);
        }
        at[i] = (uint8_t)~was;
        assert_int_equal(thr_record_check(at, bytes, SALT, SEQ), decided);
        at[i] = was;
    }
    guarded_free(at, bytes);
}

/* Property: a record cut short anywhere is not believed, and nothing past the cut is read. Nor is one of another use of
 * the file or another place in the order. */
static void a_truncated_or_misplaced_record_is_found(void **state)
{
    size_t bytes;
    uint8_t *at = some_record(1024, false, &bytes);

    (void)state;
    for (size_t room = 0; room < bytes; room++) {
        uint8_t *cut = guarded_alloc((room + 7) & ~(size_t)7);

        memcpy(cut, at, room);
        assert_false(thr_record_check(cut, room, SALT, SEQ));
        guarded_free(cut, (room + 7) & ~(size_t)7);
    }
    assert_true(thr_record_check(at, bytes, SALT, SEQ));
    assert_false(thr_record_check(at, bytes, SALT + 1, SEQ));
    assert_false(thr_record_check(at, bytes, SALT, SEQ + 1));
    assert_false(thr_record_check(at, bytes, SALT, SEQ - 1));
    guarded_free(at, bytes);
}

static void fix_hashes(uint8_t *at, size_t bytes)
{
    struct thr_record_head head;

    memcpy(&head, at, sizeof head);
    head.body_hash = XXH3_64bits(at + HEAD, bytes - HEAD);
    head.head_hash = XXH3_64bits(&head, offsetof(struct thr_record_head, head_hash));
    memcpy(at, &head, sizeof head);
}

static int look_only(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes, uint32_t range_bytes)
{
    const struct thr_record_head *head = ctx;
    volatile uint8_t sum = 0;

    assert_in_range(pgno, 1, head->page_count);
    assert_true((uint64_t)offset + range_bytes <= head->page_size);
    if (fresh)
        assert_int_equal(range_bytes, 0);
    for (uint32_t i = 0; i < range_bytes; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return SQLITE_OK;
}

/* Property (I8): whatever a record says, if only its hashes are right, reading it stays inside of it, hands out only
 * pages of the database and ranges inside a page, and ends. */
static void garbage_with_right_hashes_is_harmless(void **state)
{
    uint32_t believed = 0, refused = 0;

    (void)state;
    for (int i = 0; i < 30000; i++) {
        size_t bytes, group_bytes;
        uint8_t *at = some_record(512, i % 2 == 0, &bytes);
        struct thr_record_head head;
        int rc;

        for (uint32_t n = 1 + seeded_below(6); n > 0; n--) {
            size_t where = seeded_below(3) == 0 ? 40 + seeded_below(24) : HEAD + seeded_below((uint32_t)(bytes - HEAD));

            if (where >= 40 && where < 44) /* keep the page size, most of the time */
                where = 44;
            at[where] = seeded_below(2) == 0 ? (uint8_t)fault_random() : (uint8_t)(seeded_below(2) * 255);
        }
        if (i % 50 == 0)
            fill(at + HEAD, bytes - HEAD);
        if (i % 60 == 0)
            at[4] = (uint8_t)fault_random(); /* flags */
        fix_hashes(at, bytes);
        memcpy(&head, at, sizeof head);
        if (thr_record_check(at, bytes, SALT, SEQ)) {
            uint32_t sum = 0;

            for (uint32_t k = 0; k < head.taken_count; k++)
                sum += thr_record_taken(at)[k];
            for (uint32_t k = 0; k < head.freed_count; k++)
                sum += thr_record_freed(at)[k];
            (void)sum;
            if (thr_record_group(at, &group_bytes) != NULL)
                assert_true(group_bytes < bytes);
            rc = thr_record_each(at, look_only, &head);
            assert_true(rc == SQLITE_OK || rc == SQLITE_CORRUPT);
            believed += rc == SQLITE_OK;
            refused += rc != SQLITE_OK;
        }
        guarded_free(at, bytes);
    }
    assert_true(believed > 100);
    assert_true(refused > 100);
}

/* Property: the result of the callback stops the reading and is handed on. */
static int stop_at_once(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes,
                        uint32_t range_bytes)
{
    (void)pgno;
    (void)fresh;
    (void)offset;
    (void)bytes;
    (void)range_bytes;
    ++*(int *)ctx;
    return SQLITE_FULL;
}

static void the_callback_can_stop(void **state)
{
    size_t bytes;
    uint8_t *at = some_record(512, false, &bytes);
    int calls = 0;

    (void)state;
    assert_int_equal(thr_record_each(at, stop_at_once, &calls), SQLITE_FULL);
    assert_int_equal(calls, 1);
    guarded_free(at, bytes);
}

enum { STATES = 12, PAGES = 6 };

/* Property: the records of n commits, applied in order to pages that are a mixture, word by word, of any states that
 * they were in since, end at the last state; applied again, they end there again. */
static void records_are_idempotent_on_torn_pages(void **state)
{
    static uint8_t states[STATES + 1][PAGES][1024], base[PAGES][1024];
    static const uint32_t SIZES[] = {512, 1024};
    struct thr_record record;
    uint8_t *records[STATES + 1] = {0};
    size_t bytes[STATES + 1] = {0};
    bool changed;

    (void)state;
    thr_record_init(&record, scratch);
    for (int round = 0; round < 300; round++) {
        uint32_t size = SIZES[round % 2];
        struct pages pages = {&base[0][0], 1024, PAGES, 0};

        fill(&states[0][0][0], sizeof states[0]);
        for (uint32_t s = 1; s <= STATES; s++) {
            memcpy(states[s], states[s - 1], sizeof states[0]);
            assert_int_equal(thr_record_begin(&record, NULL, 0, NULL, 0, NULL, 0), SQLITE_OK);
            for (uint32_t p = 0; p < PAGES; p++) {
                bool fresh = seeded_below(8) == 0;

                if (seeded_below(2) == 0)
                    continue;
                if (fresh)
                    memset(states[s][p], 0, sizeof states[s][p]);
                disturb(states[s][p], size, seeded_below(8));
                assert_int_equal(
                    thr_record_change(&record, p + 1, fresh ? NULL : states[s - 1][p], states[s][p], 1024, &changed),
                    SQLITE_OK);
            }
            records[s] = sealed(&record, 1024, PAGES, s);
            bytes[s] = record.bytes;
            assert_true(thr_record_check(records[s], bytes[s], SALT, s));
        }
        for (uint32_t p = 0; p < PAGES; p++) {
            uint32_t tear = round % 3 == 0 ? 512 : round % 3 == 1 ? 8 : 1;

            for (uint32_t i = 0; i < 1024; i += tear)
                memcpy(base[p] + i, states[seeded_below(STATES + 1)][p] + i, tear);
        }
        for (int again = 0; again < 2; again++) {
            for (uint32_t s = 1; s <= STATES; s++)
                assert_int_equal(thr_record_each(records[s], apply, &pages), SQLITE_OK);
            assert_memory_equal(base, states[STATES], sizeof base);
        }
        for (uint32_t s = 1; s <= STATES; s++)
            guarded_free(records[s], bytes[s]);
    }
    thr_record_free(&record);
}

/* Property: a record that has outgrown memory goes on in a file that nobody sees, and comes back the same; the next
 * small one starts afresh. */
static void a_large_record_moves_to_a_file(void **state)
{
    enum { LARGE = 3000 };
    struct pages pages = {malloc((size_t)LARGE * 4096), 4096, LARGE, 0};
    uint8_t *wanted = malloc((size_t)LARGE * 4096), *at;
    struct thr_record record;
    bool changed;

    (void)state;
    fill(wanted, 4096);
    for (size_t i = 1; i < LARGE; i++)
        for (size_t k = 0; k < 4096; k++)
            wanted[i * 4096 + k] = (uint8_t)(wanted[k] + i);
    thr_record_init(&record, scratch);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(thr_record_begin(&record, NULL, 0, NULL, 0, NULL, 0), SQLITE_OK);
        assert_true(record.scratch_fd < 0);
        for (uint32_t i = 0; i < LARGE; i++)
            assert_int_equal(thr_record_change(&record, i + 1, NULL, wanted + (size_t)i * 4096, 4096, &changed),
                             SQLITE_OK);
        assert_true(record.scratch_fd >= 0);
        assert_int_equal(access(scratch, F_OK), -1);
        at = sealed(&record, 4096, LARGE, SEQ);
        assert_true(thr_record_check(at, record.bytes, SALT, SEQ));
        memset(pages.at, 0xee, (size_t)LARGE * 4096);
        assert_int_equal(thr_record_each(at, apply, &pages), SQLITE_OK);
        assert_memory_equal(pages.at, wanted, (size_t)LARGE * 4096);
        guarded_free(at, record.bytes);
    }
    thr_record_free(&record);
    free(pages.at);
    free(wanted);
}

/* Property: whichever system call fails while a record is made, the error is reported, nothing leaks, and the record can
 * be begun anew. */
static void a_failure_is_reported_and_leaves_a_usable_record(void **state)
{
    uint8_t *page = malloc(65536);
    struct thr_record record;
    bool changed;

    (void)state;
    fill(page, 65536);
    for (uint64_t n = 1;; n++) {
        int rc;

        thr_record_init(&record, scratch);
        fault_reset();
        fault_fail(FAULT_ANY_CALL, n, ENOSPC);
        rc = thr_record_begin(&record, NULL, 0, NULL, 0, NULL, 0);
        for (uint32_t i = 1; i <= 200 && rc == SQLITE_OK; i++)
            rc = thr_record_change(&record, i, NULL, page, 65536, &changed);
        if (fault_hits() == 0) {
            assert_int_equal(rc, SQLITE_OK);
            thr_record_free(&record);
            break;
        }
        fault_reset();
        if (rc == SQLITE_OK) /* the scratch file could not be unlinked */
            (void)unlink(scratch);
        assert_int_equal(thr_record_begin(&record, NULL, 0, NULL, 0, NULL, 0), SQLITE_OK);
        assert_int_equal(thr_record_change(&record, 1, NULL, page, 512, &changed), SQLITE_OK);
        assert_int_equal(thr_record_finish(&record), SQLITE_OK);
        thr_record_free(&record);
        assert_int_equal(access(scratch, F_OK), -1);
    }
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_change_comes_back_exactly, seeded_end),
        cmocka_unit_test_teardown(lists_and_group_come_back, seeded_end),
        cmocka_unit_test_teardown(every_flipped_byte_is_found, seeded_end),
        cmocka_unit_test_teardown(a_truncated_or_misplaced_record_is_found, seeded_end),
        cmocka_unit_test_teardown(garbage_with_right_hashes_is_harmless, seeded_end),
        cmocka_unit_test_teardown(the_callback_can_stop, seeded_end),
        cmocka_unit_test_teardown(records_are_idempotent_on_torn_pages, seeded_end),
        cmocka_unit_test_teardown(a_large_record_moves_to_a_file, seeded_end),
        cmocka_unit_test_teardown(a_failure_is_reported_and_leaves_a_usable_record, seeded_end),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
