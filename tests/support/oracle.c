/* Files, and the oracle: what stock SQLite finds when nobody has the database open.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- files --- */

bool file_exists(const char *path)
{
    struct stat status;

    if (lstat(path, &status) == 0)
        return true;
    CHECK(errno == ENOENT || errno == ENOTDIR);
    return false;
}

int64_t file_size(const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0)
        check_failed(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    return status.st_size;
}

static int open_or_fail(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);

    if (fd < 0)
        check_failed(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    return fd;
}

void file_copy(const char *from, const char *to)
{
    static char buffer[1 << 16];
    ssize_t got;
    int in;
    int out;

    if (!file_exists(from))
        return;
    in = open_or_fail(from, O_RDONLY);
    out = open_or_fail(to, O_WRONLY | O_CREAT | O_TRUNC);
    while ((got = read(in, buffer, sizeof buffer)) > 0)
        CHECK_EQUAL(write(out, buffer, (size_t)got), got);
    CHECK_EQUAL(got, 0);
    CHECK_EQUAL(close(in), 0);
    CHECK_EQUAL(close(out), 0);
}

void file_write(const char *path, const void *bytes, size_t size)
{
    int fd = open_or_fail(path, O_WRONLY | O_CREAT | O_TRUNC);

    CHECK_EQUAL(write(fd, bytes, size), size);
    CHECK_EQUAL(close(fd), 0);
}

void file_patch(const char *path, int64_t offset, const void *bytes, size_t size)
{
    int fd = open_or_fail(path, O_WRONLY);

    CHECK_EQUAL(pwrite(fd, bytes, size, offset), size);
    CHECK_EQUAL(close(fd), 0);
}

void file_read(const char *path, int64_t offset, void *bytes, size_t size)
{
    int fd = open_or_fail(path, O_RDONLY);

    CHECK_EQUAL(pread(fd, bytes, size, offset), size);
    CHECK_EQUAL(close(fd), 0);
}

/* --- the oracle --- */

static uint32_t big_endian(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Each page of the free list is inside the file and in the list once, and the header's count is right. */
static void check_free_list(const char *path, int64_t page_size, int64_t page_count)
{
    unsigned char *page = malloc((size_t)page_size);
    unsigned char *seen = calloc((size_t)page_count + 1, 1);
    uint32_t found = 0;
    uint32_t count;
    uint32_t trunk;

    CHECK(page != NULL && seen != NULL);
    file_read(path, 0, page, 100);
    trunk = big_endian(page + 32);
    count = big_endian(page + 36);
    while (trunk != 0) {
        uint32_t leaves;

        CHECK(trunk > 1 && trunk <= page_count && !seen[trunk]);
        seen[trunk] = 1;
        found++;
        file_read(path, (trunk - 1) * page_size, page, (size_t)page_size);
        leaves = big_endian(page + 4);
        CHECK(leaves <= page_size / 4 - 2);
        for (uint32_t i = 0; i < leaves; i++) {
            uint32_t leaf = big_endian(page + 8 + 4 * (size_t)i);

            CHECK(leaf > 1 && leaf <= page_count && !seen[leaf]);
            seen[leaf] = 1;
            found++;
        }
        trunk = big_endian(page);
    }
    CHECK_EQUAL(found, count);
    free(page);
    free(seen);
}

/* A page is in a b-tree, on the free list, a pointer map, or the one at the lock bytes. */
static void check_page_sum(sqlite3 *db, int64_t page_size, int64_t page_count)
{
    int64_t used = db_int(db, "SELECT count(*) FROM dbstat");
    int64_t unused = db_int(db, "PRAGMA freelist_count");
    int64_t lock_page = (1 << 30) / page_size + 1;
    int64_t other = page_count >= lock_page ? 1 : 0;

    if (db_int(db, "PRAGMA auto_vacuum") != 0)
        return; /* and then integrity_check knows */
    CHECK_EQUAL(used + unused + other, page_count);
}

void oracle_check(const char *path)
{
    char journal[PATH_SIZE];
    int64_t page_count;
    int64_t page_size;
    sqlite3 *db;
    char *text;

    if (file_exists(path_beside(journal, path, "-journal")))
        check_failed(__FILE__, __LINE__, "%s is still there", journal);
    db = db_stock(path);
    text = db_text(db, "PRAGMA integrity_check");
    if (strcmp(text, "ok") != 0)
        check_failed(__FILE__, __LINE__, "integrity_check of %s: %.800s", path, text);
    sqlite3_free(text);
    text = db_text(db, "PRAGMA foreign_key_check");
    if (*text != '\0')
        check_failed(__FILE__, __LINE__, "foreign_key_check of %s: %.800s", path, text);
    sqlite3_free(text);
    page_count = db_int(db, "PRAGMA page_count");
    page_size = db_int(db, "PRAGMA page_size");
    CHECK_EQUAL(file_size(path), page_count * page_size);
    if (page_count > 0) {
        check_page_sum(db, page_size, page_count);
        check_free_list(path, page_size, page_count);
    }
    db_close(db);
}

uint64_t oracle_hash(const char *path)
{
    sqlite3 *db = db_stock(path);
    uint64_t hash = db_hash_all(db);

    db_close(db);
    return hash;
}
