/* The page at SQLite's lock bytes, 1 GiB into the file, is never used, counted as free or lost (I6, I7): writers that
 * pass it side by side, go back and pass it again, die there, or stop right before it, leave whole databases.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PAGE_SIZE 65536
#define LOCK_PAGE (0x40000000 / PAGE_SIZE + 1)
#define PER_PAGE (PAGE_SIZE - 4) /* of a blob, on a page of its own */
#define WRITERS 3
#define SLOTS 40 /* blobs of a writer */
#define BLOB_MAX (8 * PAGE_SIZE)
#define PAST 200 /* pages that the writers go beyond the border */
#define NEED_BYTES INT64_C(1500000000)

static char path[PATH_SIZE];
static atomic_int writing;

/* Free pages at the end go at the last close. */
static void check_cut_off(int64_t page_count)
{
    if (support_is_throng())
        CHECK_EQUAL(file_size(path), page_count * PAGE_SIZE);
}

static void needs_room(void)
{
    struct statvfs space;

    CHECK_EQUAL(statvfs(path_directory(), &space), 0);
    if ((int64_t)space.f_bavail * (int64_t)space.f_frsize < NEED_BYTES) {
        print_message("%s has less than 1.5 GB free\n", path_directory());
        skip();
    }
}

/* Stock SQLite makes the file so many pages long. */
static void fill(const char *with, int64_t page_count)
{
    sqlite3 *db = db_stock(path);

    db_exec(db,
            "PRAGMA page_size=%d; %s; PRAGMA journal_mode=off; PRAGMA synchronous=off;"
            "CREATE TABLE IF NOT EXISTS blob(id INTEGER PRIMARY KEY, stamp INT, b);"
            "CREATE TABLE IF NOT EXISTS filler(b)",
            PAGE_SIZE, with);
    for (int64_t left; (left = page_count - db_int(db, "PRAGMA page_count")) > 12;)
        db_exec(db, "INSERT INTO filler VALUES(zeroblob(%lld))", (long long)(left < 8000 ? left - 8 : 8000) * PER_PAGE);
    for (int i = 0; db_int(db, "PRAGMA page_count") < page_count; i++)
        db_exec(db, "CREATE TABLE pad_%lld_%d(x)", (long long)page_count, i);
    CHECK_EQUAL(db_int(db, "PRAGMA page_count"), page_count);
    db_close(db);
}

/* Every 8 bytes are made from the stamp: a page that two use shows. */
static int put_blob(sqlite3 *db, int id, uint64_t stamp, int size)
{
    uint64_t *words = sqlite3_malloc(size);
    sqlite3_stmt *stmt = NULL;
    int rc;

    CHECK(words != NULL);
    for (int i = 0; i < size / 8; i++)
        words[i] = hash_u64(stamp + (uint64_t)i);
    rc = sqlite3_prepare_v2(db, "REPLACE INTO blob VALUES(?1, ?2, ?3)", -1, &stmt, NULL);
    (void)sqlite3_bind_int(stmt, 1, id);
    (void)sqlite3_bind_int64(stmt, 2, (sqlite3_int64)stamp);
    (void)sqlite3_bind_blob(stmt, 3, words, size, sqlite3_free);
    if (rc == SQLITE_OK)
        (void)sqlite3_step(stmt);
    return rc == SQLITE_OK ? sqlite3_finalize(stmt) : rc;
}

/* All blobs with ids from `low` to `high` are what their stamps say. */
static void check_blobs(sqlite3 *db, int low, int high)
{
    sqlite3_stmt *stmt = db_prepare(db, "SELECT stamp, b FROM blob WHERE id BETWEEN ?1 AND ?2");
    int rc;

    (void)sqlite3_bind_int(stmt, 1, low);
    (void)sqlite3_bind_int(stmt, 2, high);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        uint64_t stamp = (uint64_t)sqlite3_column_int64(stmt, 0);
        const uint64_t *words = sqlite3_column_blob(stmt, 1);
        int count = sqlite3_column_bytes(stmt, 1) / 8;

        for (int i = 0; i < count; i++)
            CHECK(words[i] == hash_u64(stamp + (uint64_t)i));
    }
    CHECK_EQUAL(rc, SQLITE_DONE);
    stmt_end(stmt);
}

struct writer {
    int number;
    struct prng prng;
    uint64_t stamp[SLOTS]; /* 0: there is none */
};

struct change {
    struct writer *writer;
    struct prng plan;
    uint64_t stamp[SLOTS];
};

static int change_blobs(sqlite3 *db, void *arg)
{
    struct change *change = arg;
    struct prng prng = change->plan;
    int rc = SQLITE_OK;

    for (int i = 0; i < SLOTS; i++)
        change->stamp[i] = change->writer->stamp[i];
    for (int i = 1 + prng_below(&prng, 4); i > 0 && rc == SQLITE_OK; i--) {
        int slot = prng_below(&prng, SLOTS);
        int id = change->writer->number * SLOTS + slot;

        change->stamp[slot] = prng_chance(&prng, 6) ? 0 : prng_next(&prng) >> 1 | 1;
        if (change->stamp[slot] == 0)
            rc = db_try(db, "DELETE FROM blob WHERE id=%d", id);
        else
            rc = put_blob(db, id, change->stamp[slot], 8 + prng_below(&prng, BLOB_MAX));
    }
    return rc;
}

static void writer_thread(void *arg)
{
    struct writer *writer = arg;
    sqlite3 *db = db_open(path);
    int first = writer->number * SLOTS;
    int rounds = 0;

    db_exec(db, "PRAGMA mmap_size=%d", writer->number % 2 == 0 ? 0 : 0x7fff0000);
    while (!check_any_failed() && (rounds++ < 60 || db_int(db, "PRAGMA page_count") < LOCK_PAGE + PAST)) {
        struct change change = {.writer = writer, .plan = prng_new(prng_next(&writer->prng))};

        CHECK(rounds < 5000);
        if (prng_chance(&writer->prng, 5)) {
            db_exec(db, "BEGIN");
            (void)change_blobs(db, &change);
            db_exec(db, "ROLLBACK");
        } else {
            (void)db_transaction(db, prng_chance(&writer->prng, 7) ? "BEGIN IMMEDIATE" : "BEGIN", change_blobs,
                                 &change);
            for (int i = 0; i < SLOTS; i++)
                writer->stamp[i] = change.stamp[i];
        }
        if (prng_chance(&writer->prng, 4))
            check_blobs(db, first, first + SLOTS - 1);
    }
    db_close(db);
    (void)atomic_fetch_sub(&writing, 1);
}

static void reader_thread(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)arg;
    db_exec(db, "PRAGMA mmap_size=%d", 0x7fff0000);
    while (!check_any_failed() && atomic_load(&writing) > 0)
        check_blobs(db, 0, WRITERS * SLOTS);
    db_close(db);
}

static void check_writers(sqlite3 *db, const struct writer *writers)
{
    check_blobs(db, 0, WRITERS * SLOTS);
    for (int i = 0; i < WRITERS * SLOTS; i++)
        CHECK_EQUAL(db_int(db, "SELECT coalesce((SELECT stamp FROM blob WHERE id=%d), 0)", i),
                    writers[i / SLOTS].stamp[i % SLOTS]);
}

static void start_writers(struct writer *writers, uint64_t stream)
{
    atomic_store(&writing, WRITERS);
    for (int i = 0; i < WRITERS; i++) {
        writers[i].number = i;
        writers[i].prng = prng_new(stream + (uint64_t)i);
        thread_start(writer_thread, &writers[i]);
    }
}

/* Across, back to where it was, and across again; then down by hand with others in between. */
static void writers_pass_the_lock_page(void **state)
{
    static struct writer writers[WRITERS];
    int64_t border = LOCK_PAGE - 30;
    sqlite3 *db;

    (void)state;
    needs_room();
    (void)path_new(path, "large");
    fill("", border);
    for (int round = 0; round < 2; round++) {
        start_writers(writers, 10 * (uint64_t)round);
        thread_start(reader_thread, NULL);
        threads_join();
        db = db_open(path);
        check_writers(db, writers);
        db_check_text(db, "PRAGMA integrity_check", "ok");
        db_close(db);
        oracle_check(path);
        CHECK(file_size(path) > (int64_t)LOCK_PAGE * PAGE_SIZE);
        db = db_stock(path);
        check_writers(db, writers);
        db_close(db);
        db = db_open(path);
        db_exec(db, "DELETE FROM blob");
        db_close(db);
        oracle_check(path);
        check_cut_off(border);
        for (int i = 0; i < WRITERS; i++)
            writers[i] = (struct writer){0};
    }
    CHECK_EQUAL(unlink(path), 0);
}

static void insert_pages(sqlite3 *db, int id, int pages)
{
    CHECK_OK(put_blob(db, id, (uint64_t)id << 32 | 1, pages * PER_PAGE / 8 * 8), db);
}

/* The file ends one page, or none, before the border; one connection alone, or two by turns. */
static void the_file_ends_at_the_lock_page(void **state)
{
    (void)state;
    support_needs_throng();
    needs_room();
    (void)path_new(path, "border");
    for (int64_t border = LOCK_PAGE - 2; border < LOCK_PAGE; border++) {
        for (int both = 0; both < 2; both++) {
            sqlite3 *db[2];

            fill("", border);
            db[0] = db_open(path);
            db[1] = both ? db_open(path) : db[0];
            for (int i = 0; i < 2; i++) {
                db_exec(db[i], "BEGIN");
                insert_pages(db[i], 1, 3);
                db_exec(db[i], "ROLLBACK");
            }
            for (int i = 0; i < 4; i++)
                insert_pages(db[i % 2], i, 1);
            db_exec(db[0], "DELETE FROM blob WHERE id=1");
            db_exec(db[1], "BEGIN IMMEDIATE");
            insert_pages(db[1], 10, 5);
            db_exec(db[1], "COMMIT");
            insert_pages(db[0], 11, 2);
            check_blobs(db[0], 0, 100);
            db_check_text(db[1], "PRAGMA integrity_check", "ok");
            if (both)
                db_close(db[1]);
            db_close(db[0]);
            oracle_check(path);
            db[0] = db_open(path);
            check_blobs(db[0], 0, 100);
            db_exec(db[0], "DELETE FROM blob");
            db_close(db[0]);
            oracle_check(path);
            check_cut_off(border);
        }
    }
    CHECK_EQUAL(unlink(path), 0);
}

static void die_past_the_border(void *arg)
{
    struct writer *writers = arg;

    start_writers(writers, 30);
    while (atomic_load(&writing) > 0 && !check_any_failed())
        sleep_ms(1);
    _exit(check_any_failed() ? 1 : 0);
}

/* The last close never took place: the log has it all. One connection keeps the close from happening. */
static void keep_open_and_die(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)db_int(db, "SELECT count(*) FROM blob");
    die_past_the_border(arg);
}

static void recovery_passes_the_lock_page(void **state)
{
    static struct writer writers[WRITERS];
    char journal[PATH_SIZE];
    sqlite3 *db;

    (void)state;
    support_needs_throng();
    needs_room();
    (void)path_new(path, "recovered");
    fill("", LOCK_PAGE - 30);
    child_run(keep_open_and_die, writers);
    CHECK(file_exists(path_beside(journal, path, "-journal")));
    db = db_open(path);
    CHECK(db_int(db, "PRAGMA page_count") > LOCK_PAGE + PAST);
    CHECK(db_int(db, "SELECT count(*) FROM blob") > 0);
    check_blobs(db, 0, WRITERS * SLOTS);
    db_check_text(db, "PRAGMA integrity_check", "ok");
    db_close(db);
    oracle_check(path);
    CHECK_EQUAL(unlink(path), 0);
}

static void auto_vacuum_passes_the_lock_page(void **state)
{
    static struct writer writers[WRITERS];
    sqlite3 *db;

    (void)state;
    needs_room();
    (void)path_new(path, "vacuumed");
    fill("PRAGMA auto_vacuum=full", LOCK_PAGE - 30);
    start_writers(writers, 40);
    threads_join();
    oracle_check(path);
    db = db_open(path);
    check_writers(db, writers);
    db_exec(db, "DELETE FROM blob WHERE id %% 2 = 0");
    check_blobs(db, 0, WRITERS * SLOTS);
    db_exec(db, "DELETE FROM blob");
    db_close(db);
    oracle_check(path);
    CHECK(file_size(path) < (int64_t)LOCK_PAGE * PAGE_SIZE);
    CHECK_EQUAL(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writers_pass_the_lock_page),
        cmocka_unit_test(the_file_ends_at_the_lock_page),
        cmocka_unit_test(recovery_passes_the_lock_page),
        cmocka_unit_test(auto_vacuum_passes_the_lock_page),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
