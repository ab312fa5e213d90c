/* Property: whatever a log says, recovery ends with a code of SQLite's. One that is refused (SQLITE_CORRUPT,
 * SQLITE_CANTOPEN) has changed nothing, and the reason is in the log of errors; after one that is done the directory
 * can be removed.
 *
 * The input is an archive (archive.h): the database, the files of its directory, and those of the directory of another
 * database, with which it may have had commits in common. Most mutations are sealed (mutate.h), so that they are taken
 * for what Throng has written.
 *
 * SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "archive.h"
#include "home.h"
#include "log.h"
#include "mutate.h"
#include "os.h"
#include "recover.h"
#include "work.h"

static const size_t FILE_MAX = (size_t)8 << 20;
enum { PAGES_MANY = 20000, SLOW_ONE_IN = 64 };
static const char BASE[] = WORK "/a.db", DIRECTORY[] = WORK "/a.db-journal", OTHER[] = WORK "/b.db-journal";

static bool said_so, said_late; /* something came to the log of errors; and it is known only when all is done */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);
size_t LLVMFuzzerCustomMutator(uint8_t *input, size_t bytes, size_t room, unsigned seed);
const char *__asan_default_options(void);

/* A database of a TiB is no error: it is memory that we do not have. */
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=32:allocator_may_return_null=1:detect_stack_use_after_return=1";
}

static void note_log(int code, const char *message)
{
    (void)code;
    said_so = said_so || strstr(message, DIRECTORY) != NULL;
    said_late = said_late || strstr(message, "page 1, as the log") != NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    work_begin(FILE_MAX);
    thr_os_set_log(note_log);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *input, size_t bytes, size_t room, unsigned seed)
{
    return mutate_segments(input, bytes, room, seed);
}

/* Does a segment claim a database of many pages? Then recovery has a list of them to go through: right, but slow. */
static bool is_slow(const uint8_t *input, size_t bytes)
{
    const size_t from = offsetof(struct thr_segment_head, page_count);
    struct archive_entry entry;
    uint32_t page_count;

    for (size_t at = 0; archive_next(input, bytes, &at, &entry);) {
        if (entry.kind == ARCHIVE_BASE || entry.bytes < from + sizeof page_count)
            continue;
        memcpy(&page_count, input + entry.at + from, sizeof page_count);
        if (page_count > PAGES_MANY)
            return true;
    }
    return false;
}

static void put_files(const uint8_t *input, size_t bytes)
{
    struct archive_entry entry;
    bool has_base = false;
    char path[512];

    (void)mkdir(DIRECTORY, 0755);
    (void)mkdir(OTHER, 0755);
    for (size_t at = 0, i = 0; i < ARCHIVE_ENTRIES_MAX && archive_next(input, bytes, &at, &entry); i++) {
        if (entry.kind == ARCHIVE_BASE) {
            archive_write(BASE, input, &entry);
            has_base = true;
        } else {
            (void)snprintf(path, sizeof path, "%s/%s", entry.kind == ARCHIVE_OTHER ? OTHER : DIRECTORY, entry.name);
            archive_write(path, input, &entry);
        }
    }
    if (!has_base)
        work_write(BASE, NULL, 0, 0);
}

/* As an open would. */
static int recover(struct thr_base *base)
{
    struct thr_recovery recovery;
    struct stat st;
    char name[256] = "";
    int rc = fstat(base->fd, &st);

    FUZZ_CHECK(rc == 0, "fstat");
    base->writable = true;
    atomic_store(&base->bytes, st.st_size);
    if ((rc = thr_recover_inspect(DIRECTORY, name, sizeof name)) != SQLITE_OK) {
        FUZZ_CHECK(name[0] != '\0' || (rc != SQLITE_CANTOPEN && rc != SQLITE_CORRUPT), "no reason");
        return rc;
    }
    rc = thr_recover_apply(DIRECTORY, base, &recovery);
    FUZZ_CHECK(rc != SQLITE_CORRUPT || said_so, "no reason");
    return rc;
}

static int remove_directory(void)
{
    struct thr_home home;
    int rc = thr_home_take(DIRECTORY, 0600, &home);

    if (rc == SQLITE_OK)
        rc = thr_home_remove(DIRECTORY, &home);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct thr_base base = {.fd = -1};
    uint64_t base_before, before;
    int rc;

    if (is_slow(input, bytes) && XXH3_64bits(input, bytes) % SLOW_ONE_IN != 0)
        return 0;
    work_input();
    put_files(input, bytes);
    base_before = work_hash(BASE);
    before = work_hash(DIRECTORY);
    said_so = said_late = false;
    base.fd = open(BASE, O_RDWR | O_CLOEXEC);
    rc = recover(&base);
    switch (rc & 0xff) {
    case SQLITE_OK:
        FUZZ_CHECK((rc = remove_directory()) == SQLITE_OK && access(DIRECTORY, F_OK) != 0, "remove: %d", rc);
        break;
    case SQLITE_CORRUPT:
    case SQLITE_CANTOPEN:
        FUZZ_CHECK(said_late || base_before == work_hash(BASE), "refused with %d, but the database was changed", rc);
        break;
    default:
        FUZZ_CHECK(rc == SQLITE_NOMEM || rc == SQLITE_FULL || (rc & 0xff) == SQLITE_IOERR, "%d", rc);
    }
    if (rc != SQLITE_OK)
        FUZZ_CHECK(before == work_hash(DIRECTORY), "failed with %d, but the log was changed", rc);
    thr_base_close(&base);
    (void)close(base.fd);
    work_remove(DIRECTORY);
    work_remove(OTHER);
    return 0;
}
