/* Properties of the database file as stock SQLite wants it.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "bytes.h"
#include "fault.h"
#include "stock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "seeded.h"

static char path[PATH_MAX];
static struct thr_base base;

static int setup(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof path, "%s/throng-stock-%ld.db", place(), (long)getpid());
    seeded_begin("test-stock");
    return 0;
}

static int after_each(void **state)
{
    (void)seeded_end(state);
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

static sqlite3 *stock_open(void)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"), SQLITE_OK);
    return db;
}

static void exec(sqlite3 *db, const char *format, ...)
{
    va_list ap;
    char *sql;

    va_start(ap, format);
    sql = sqlite3_vmprintf(format, ap);
    va_end(ap);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_free(sql);
}

static sqlite3_int64 number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    sqlite3_int64 value;

    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK || sqlite3_step(stmt) != SQLITE_ROW)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

static void assert_whole(sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;

    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(stmt, 0), "ok");
    sqlite3_finalize(stmt);
}

static void base_open(void)
{
    struct stat st;

    memset(&base, 0, sizeof base);
    base.writable = true;
    assert_true((base.fd = open(path, O_RDWR | O_CLOEXEC)) >= 0);
    assert_int_equal(fstat(base.fd, &st), 0);
    atomic_store(&base.bytes, st.st_size);
}

static void base_close(void)
{
    thr_base_close(&base);
    (void)close(base.fd);
}

/* A database with some pages free; returns the number of them. `drop_tail` frees the last pages of the file as well. */
static sqlite3_int64 make_database(uint32_t page_size, uint32_t rows, uint32_t free_percent, bool drop_tail)
{
    sqlite3 *db = stock_open();
    sqlite3_int64 count;

    exec(db,
         "PRAGMA page_size=%u; PRAGMA synchronous=OFF; CREATE TABLE t(k INTEGER PRIMARY KEY, x); CREATE TABLE last(x)",
         page_size);
    exec(db, "BEGIN");
    for (uint32_t i = 0; i < rows; i++)
        exec(db, "INSERT INTO t VALUES(%u, randomblob(%u))", i, 1 + seeded_below(3 * page_size));
    exec(db, "INSERT INTO last VALUES(zeroblob(%u))", 10 * page_size);
    exec(db, "COMMIT; BEGIN");
    for (uint32_t i = 0; i < rows; i++)
        if (seeded_below(100) < free_percent)
            exec(db, "DELETE FROM t WHERE k = %u", i);
    if (drop_tail)
        exec(db, "DELETE FROM last");
    exec(db, "COMMIT");
    count = number(db, "PRAGMA freelist_count");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return count;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Property (I7): from the pages that are free, and a header that says nothing of them and trunk pages full of rubbish, a
 * file is made that stock SQLite finds whole: same rows, no free page at the end, the count right, the header's other
 * bytes as they were; and stock SQLite can go on to use those pages up. */
static void a_finished_file_is_stock(void **state)
{
    (void)state;
    for (int round = 0; round < 40; round++) {
        uint32_t page_size = 512u << (round % 8), rows = 1 + seeded_below(page_size > 8192 ? 30 : 400);
        sqlite3_int64 count = make_database(page_size, rows, seeded_below(101), round % 3 == 0), sum, kept;
        struct thr_stock_header header, after;
        int64_t bytes;
        struct thr_pages pages = {0};
        uint8_t rubbish[65536], before[100], now[100], zeros[8] = {0};
        sqlite3 *db = stock_open();
        struct stat st;

        sum = number(db, "SELECT coalesce(sum(length(x)), 0) + count(*) FROM t");
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        base_open();
        assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
        assert_false(header.empty || header.foreign || header.wal || header.auto_vacuum);
        assert_int_equal(header.page_size, page_size);
        assert_int_equal(header.free_count, count);
        assert_int_equal(thr_stock_list_read(&base, &header, &pages), SQLITE_OK);
        assert_int_equal(pages.count, count);
        if (pages.count > 0)
            qsort(pages.at, pages.count, sizeof pages.at[0], ascending);

        for (uint32_t i = 0; i < page_size; i++)
            rubbish[i] = (uint8_t)fault_random();
        for (uint32_t i = 0; i < pages.count; i++)
            assert_int_equal(thr_base_write(&base, rubbish, page_size, (int64_t)(pages.at[i] - 1) * page_size),
                             SQLITE_OK);
        assert_int_equal(thr_base_write(&base, zeros, 8, 32), SQLITE_OK);
        assert_int_equal(thr_base_read(&base, before, sizeof before, 0), SQLITE_OK);
        assert_int_equal(thr_stock_finish(&base, page_size, header.page_count, &pages, true, 12345, &bytes), SQLITE_OK);
        assert_int_equal(thr_base_truncate(&base, bytes), SQLITE_OK);
        assert_int_equal(thr_base_read(&base, now, sizeof now, 0), SQLITE_OK);
        for (size_t i = 0; i < 100; i++)
            if (i < 24 || (i >= 40 && i < 92))
                assert_int_equal(now[i], before[i]);

        assert_int_equal(thr_stock_header_read(&base, &after), SQLITE_OK);
        assert_false(after.foreign);
        assert_int_equal(after.change_counter, 12345);
        assert_int_equal(thr_get32(now + 92), 12345);
        assert_true(after.free_count <= header.free_count);
        assert_int_equal(header.page_count - after.page_count, header.free_count - after.free_count);
        assert_int_equal(fstat(base.fd, &st), 0);
        assert_int_equal(st.st_size, (int64_t)after.page_count * page_size);
        free(pages.at);
        pages = (struct thr_pages){0};
        assert_int_equal(thr_stock_list_read(&base, &after, &pages), SQLITE_OK);
        for (uint32_t i = 0; i < pages.count; i++)
            assert_in_range(pages.at[i], 2, after.page_count - 1);
        free(pages.at);
        base_close();

        db = stock_open();
        assert_whole(db);
        kept = number(db, "PRAGMA freelist_count");
        assert_int_equal(kept, after.free_count);
        assert_int_equal(number(db, "PRAGMA page_count"), after.page_count);
        assert_int_equal(number(db, "SELECT coalesce(sum(length(x)), 0) + count(*) FROM t"), sum);
        exec(db, "INSERT INTO last VALUES(zeroblob(%lld))", (long long)(kept / 2 + 1) * page_size);
        assert_true(number(db, "PRAGMA freelist_count") <= (kept > 1 ? kept - 1 : kept));
        assert_whole(db);
        exec(db, "DELETE FROM t; DELETE FROM last");
        assert_whole(db);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        assert_int_equal(remove(path), 0);
    }
}

/* Property: without a list to write (format 1), the file's own stays as it is. */
static void without_a_list_the_old_one_stays(void **state)
{
    struct thr_stock_header header;
    int64_t bytes;
    struct thr_pages pages = {0};
    sqlite3_int64 count = make_database(1024, 300, 40, true);
    sqlite3 *db;

    (void)state;
    base_open();
    assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
    assert_int_equal(thr_stock_finish(&base, 1024, header.page_count, &pages, false, 99, &bytes), SQLITE_OK);
    assert_int_equal(bytes, atomic_load(&base.bytes));
    base_close();
    db = stock_open();
    assert_whole(db);
    assert_int_equal(number(db, "PRAGMA freelist_count"), count);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Property: a file that is no database, or shorter than it says, is foreign; one without a byte is empty; WAL mode and
 * auto_vacuum are seen. */
static void the_header_is_read_with_care(void **state)
{
    struct thr_stock_header header;
    uint8_t page[512] = {0};
    sqlite3 *db;
    int fd;

    (void)state;
    assert_true((fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) >= 0);
    (void)close(fd);
    base_open();
    assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
    assert_true(header.empty);
    base_close();
    assert_int_equal(remove(path), 0);

    db = stock_open();
    exec(db, "PRAGMA page_size=512; PRAGMA auto_vacuum=FULL; CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(9000))");
    exec(db, "PRAGMA journal_mode=WAL");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    base_open();
    assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
    assert_true(header.wal && header.auto_vacuum && !header.foreign);
    assert_int_equal(thr_base_read(&base, page, sizeof page, 0), SQLITE_OK);
    for (int i = 0; i < 16; i++) {
        page[i] ^= 1;
        assert_int_equal(thr_base_write(&base, page, sizeof page, 0), SQLITE_OK);
        assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
        assert_true(header.foreign);
        page[i] ^= 1;
    }
    assert_int_equal(thr_base_write(&base, page, sizeof page, 0), SQLITE_OK);
    assert_int_equal(thr_base_truncate(&base, 1024), SQLITE_OK);
    assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
    assert_true(header.foreign);
    base_close();
}

/* Property (I8): a free list that is none is SQLITE_CORRUPT, or a list of pages of the file; never a crash. */
static void a_broken_free_list_is_refused(void **state)
{
    struct thr_stock_header header, lie;
    uint8_t saved[512], page[512];
    uint32_t refused = 0;

    (void)state;
    assert_true(make_database(512, 500, 60, false) > 130);
    base_open();
    assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
    assert_int_equal(thr_base_read(&base, saved, 512, (int64_t)(header.first_trunk - 1) * 512), SQLITE_OK);
    for (int round = 0; round < 3000; round++) {
        struct thr_pages pages = {0};
        int rc;

        lie = header;
        memcpy(page, saved, sizeof page);
        if (round % 4 == 0)
            lie.first_trunk = seeded_below(2) == 0 ? (uint32_t)fault_random() : seeded_below(header.page_count + 2);
        else if (round % 4 == 1)
            lie.free_count = seeded_below(2) == 0 ? (uint32_t)fault_random() : seeded_below(2 * header.free_count);
        else
            thr_put32(page + 4 * seeded_below(20),
                      seeded_below(2) == 0 ? (uint32_t)fault_random() : seeded_below(header.page_count + 2));
        assert_int_equal(thr_base_write(&base, page, 512, (int64_t)(header.first_trunk - 1) * 512), SQLITE_OK);
        rc = thr_stock_list_read(&base, &lie, &pages);
        assert_true(rc == SQLITE_OK || rc == SQLITE_CORRUPT);
        refused += rc != SQLITE_OK;
        for (uint32_t i = 0; rc == SQLITE_OK && i < pages.count; i++)
            assert_in_range(pages.at[i], 2, header.page_count);
        free(pages.at);
    }
    assert_true(refused > 500);
    base_close();
}

/* Property: whichever call fails, thr_stock_finish() says so, and done again it ends as if nothing had failed. */
static void finishing_may_be_repeated(void **state)
{
    for (uint64_t n = 1, hits = 1; hits != 0; n++) {
        struct thr_stock_header header;
        int64_t bytes;
        struct thr_pages pages = {0};
        uint32_t count, *copy;
        sqlite3 *db;
        int rc;

        (void)state;
        (void)make_database(512, 300, 50, true);
        base_open();
        assert_int_equal(thr_stock_header_read(&base, &header), SQLITE_OK);
        assert_int_equal(thr_stock_list_read(&base, &header, &pages), SQLITE_OK);
        qsort(pages.at, pages.count, sizeof pages.at[0], ascending);
        count = pages.count;
        copy = malloc(count * sizeof *copy);
        memcpy(copy, pages.at, count * sizeof *copy);
        fault_reset();
        fault_fail(FAULT_ANY_CALL, n, EIO);
        rc = thr_stock_finish(&base, 512, header.page_count, &pages, true, 7, &bytes);
        hits = fault_hits();
        fault_reset();
        assert_int_equal(rc != SQLITE_OK, hits != 0);
        memcpy(pages.at, copy, count * sizeof *copy);
        pages.count = count;
        assert_int_equal(thr_stock_finish(&base, 512, header.page_count, &pages, true, 7, &bytes), SQLITE_OK);
        assert_int_equal(thr_base_truncate(&base, bytes), SQLITE_OK);
        base_close();
        db = stock_open();
        assert_whole(db);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        free(pages.at);
        free(copy);
        assert_int_equal(remove(path), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_finished_file_is_stock, after_each),
        cmocka_unit_test_teardown(without_a_list_the_old_one_stays, after_each),
        cmocka_unit_test_teardown(the_header_is_read_with_care, after_each),
        cmocka_unit_test_teardown(a_broken_free_list_is_refused, after_each),
        cmocka_unit_test_teardown(finishing_may_be_repeated, after_each),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
