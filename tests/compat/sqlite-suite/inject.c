/* SQLite's test program with Throng as its default VFS. What its tests inject into SQLite's own files (I/O errors, a full
 * disk, no memory, a crash) is injected into Throng's system calls here.
 *
 * Environment: THRONG_SUITE, if set, makes Throng the default. The harness (faults.tcl) changes these while a test runs:
 *
 *   THRONG_SUITE_CRASH="sync N SEED PATTERN"   a power cut at the N-th sync of a file whose path matches: of what was not
 *                                              synced some sectors are lost, and the process ends with CUT_STATUS
 *   THRONG_SUITE_CRASH="step N"                the process is killed at the N-th write, sync or named point of the engine
 *   THRONG_SUITE_COUNT=FILE                    how many of these there were is written there at the end
 *   THRONG_SUITE_FAIL="CALL ERRNO N PERSIST SERIAL"  the N-th call of that kind fails, or that and all after it; a new SERIAL
 *                                              begins to count anew
 *
 * SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../../src/os/os.h"
#include "throng.h"

enum { SECTOR = 512, FILES_MAX = 256, CUT_STATUS = 77 };

/* Of os_common.h, in builds with SQLITE_TEST; the tests set them. */
extern int sqlite3_io_error_hit, sqlite3_io_error_hardhit, sqlite3_io_error_pending, sqlite3_io_error_persist,
    sqlite3_io_error_benign, sqlite3_diskfull_pending, sqlite3_diskfull;

/* The tests move the lock byte from 1 GiB to 64 KiB; Throng has to know which page is never used. */
extern int sqlite3PendingByte;
extern _Atomic uint32_t thr_lock_byte;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* --- power cuts: a file has on disk what it had at its last sync, or when the process began --- */

struct file {
    ino_t ino;
    size_t bytes;
    char *at;
};

static struct file files[FILES_MAX]; /* under `lock`, as all below */
static int file_count;
static int crash_count; /* syncs or steps so far */

static char *content(const char *path, size_t *bytes_out, ino_t *ino_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    char *at = NULL;

    *bytes_out = 0;
    if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
        (at = malloc((size_t)status.st_size + 1)) != NULL) {
        ssize_t got = read(fd, at, (size_t)status.st_size);

        *bytes_out = got < 0 ? 0 : (size_t)got;
        *ino_out = status.st_ino;
    }
    if (fd >= 0)
        (void)close(fd);
    return at;
}

static struct file *file_of(ino_t ino)
{
    for (int i = 0; i < file_count; i++)
        if (files[i].ino == ino)
            return &files[i];
    return NULL;
}

static void synced(const char *path)
{
    struct file now = {0, 0, NULL}, *file;

    if ((now.at = content(path, &now.bytes, &now.ino)) == NULL)
        return;
    if ((file = file_of(now.ino)) == NULL && file_count == FILES_MAX)
        abort();
    if (file == NULL)
        file = &files[file_count++];
    free(file->at);
    *file = now;
}

/* What was not synced: each sector is lost by chance; in the file that was to be synced the last one always is, so that the
 * commit which the sync was for is not whole. */
static void lose(const char *path, bool last_too)
{
    struct file now = {0, 0, NULL}, *file;
    size_t last = SIZE_MAX;
    int fd;

    if ((now.at = content(path, &now.bytes, &now.ino)) == NULL || (fd = open(path, O_WRONLY | O_CLOEXEC)) < 0)
        return;
    file = file_of(now.ino);
    for (size_t from = now.bytes / SECTOR * SECTOR; from + SECTOR > from; from -= SECTOR) {
        size_t bytes = now.bytes - from < SECTOR ? now.bytes - from : SECTOR;
        size_t had = file == NULL || file->bytes < from ? 0 : file->bytes - from < bytes ? file->bytes - from : bytes;
        char before[SECTOR] = {0};

        if (had > 0)
            memcpy(before, file->at + from, had);
        if (memcmp(before, now.at + from, bytes) == 0)
            continue;
        if ((rand() % 2 == 0 || (last_too && last == SIZE_MAX)) &&
            pwrite(fd, before, bytes, (off_t)from) != (ssize_t)bytes)
            abort();
        last = last == SIZE_MAX ? from : last;
    }
    (void)close(fd);
    free(now.at);
}

/* All files here, and in the folders here, that are read after a crash. */
static void each_file(const char *folder, void (*fn)(const char *path))
{
    DIR *directory = opendir(folder);
    struct dirent *entry;
    struct stat status;
    char path[4096];

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.' ||
            (size_t)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= sizeof path ||
            lstat(path, &status) != 0)
            continue;
        if (S_ISDIR(status.st_mode) && strcmp(folder, ".") == 0 && strstr(path, "-journal") != NULL)
            each_file(path, fn);
        else if (S_ISREG(status.st_mode) && (strcmp(folder, ".") == 0 ? strstr(path, ".db") != NULL
                                                                      : strncmp(entry->d_name, "log-", 4) == 0 ||
                                                                            strcmp(entry->d_name, "horizon") == 0))
            fn(path);
    }
    if (directory != NULL)
        (void)closedir(directory);
}

static const char *cut_at; /* the file that was to be synced */

static void lose_one(const char *path)
{
    struct stat one, other;

    lose(path, stat(path, &one) == 0 && stat(cut_at, &other) == 0 && one.st_ino == other.st_ino);
}

static void report(void)
{
    const char *path = getenv("THRONG_SUITE_COUNT");
    FILE *out = path == NULL || *path == 0 ? NULL : fopen(path, "w");

    if (out != NULL) {
        (void)fprintf(out, "%d\n", crash_count);
        (void)fclose(out);
    }
}

/* `path` is NULL for a step that is no sync. */
static void crash(const char *path)
{
    const char *how = getenv("THRONG_SUITE_CRASH");
    char pattern[256] = "*";
    unsigned seed;
    int nth;

    if (how == NULL || *how == 0)
        return;
    if (sscanf(how, "step %d", &nth) == 1) {
        if (++crash_count == nth)
            (void)raise(SIGKILL);
    } else if (path != NULL && sscanf(how, "sync %d %u %255s", &nth, &seed, pattern) == 3) {
        if (fnmatch(pattern, path, 0) == 0 && ++crash_count == nth) {
            srand(seed);
            cut_at = path;
            each_file(".", lose_one);
            _exit(CUT_STATUS);
        }
        synced(path);
    }
}

static void point(const char *name)
{
    const char *how = getenv("THRONG_SUITE_CRASH");

    (void)name;
    if (how == NULL || *how == 0)
        return;
    (void)pthread_mutex_lock(&lock);
    crash(NULL);
    (void)pthread_mutex_unlock(&lock);
}

void (*thr_point_hook)(const char *name) = point;

/* --- errors --- */

static bool hit(void)
{
    sqlite3_io_error_hit++;
    if (sqlite3_io_error_benign == 0)
        sqlite3_io_error_hardhit++;
    return true;
}

/* As SimulateIOError() of SQLite: the n-th call from now on fails, or that and all after it. */
static int io_error(void)
{
    if ((sqlite3_io_error_persist == 0 || sqlite3_io_error_hit == 0) && sqlite3_io_error_pending-- != 1)
        return 0;
    (void)hit();
    return EIO;
}

static int disk_full(void)
{
    if (sqlite3_diskfull_pending == 0)
        return 0;
    if (sqlite3_diskfull_pending != 1) {
        sqlite3_diskfull_pending--;
        return 0;
    }
    sqlite3_diskfull = sqlite3_io_error_hit = 1;
    return ENOSPC;
}

/* SQLite's own allocator says when there is to be no memory. */
static int no_memory(void)
{
    void *probe = sqlite3_malloc(1);

    sqlite3_free(probe);
    return probe == NULL ? ENOMEM : 0;
}

/* As the tests ask for by THRONG_SUITE_FAIL. */
static int asked_for(enum thr_os_call call)
{
    static const char *const NAMES[THR_OS_CALL_COUNT] = {
        [THR_OS_OPEN] = "open", [THR_OS_MAP] = "map", [THR_OS_LOCK] = "lock"};
    static int serial_before, count;
    const char *how = NAMES[call] == NULL ? NULL : getenv("THRONG_SUITE_FAIL");
    int err, nth, persist, serial;
    char kind[16];

    if (how == NULL || sscanf(how, "%15s %d %d %d %d", kind, &err, &nth, &persist, &serial) != 5 ||
        strcmp(kind, NAMES[call]) != 0)
        return 0;
    if (serial != serial_before)
        count = 0;
    serial_before = serial;
    return (++count == nth || (persist != 0 && count > nth)) && hit() ? err : 0;
}

static int check_locked(enum thr_os_call call, const char *path)
{
    int err;

    switch (call) {
    case THR_OS_SYNC:
        crash(path);
        return io_error();
    case THR_OS_WRITE:
    case THR_OS_ALLOCATE:
        crash(NULL);
        return (err = io_error()) != 0 ? err : disk_full();
    case THR_OS_TRUNCATE:
    case THR_OS_UNLINK:
        crash(NULL);
        return io_error();
    case THR_OS_READ:
        return io_error();
    default:
        return asked_for(call);
    }
}

static int check(enum thr_os_call call, const char *path)
{
    int err;

    if (call == THR_OS_MEMORY)
        return no_memory();
    (void)pthread_mutex_lock(&lock);
    atomic_store(&thr_lock_byte, (uint32_t)sqlite3PendingByte);
    err = check_locked(call, path);
    (void)pthread_mutex_unlock(&lock);
    return err;
}

int (*thr_fault_check)(enum thr_os_call call, const char *path_or_null) = check;

/* SQLITE_EXTRA_INIT: at the end of each sqlite3_initialize(). */
int throng_suite_init(const char *unused);
int throng_suite_init(const char *unused)
{
    static bool again;
    const char *crash_how = getenv("THRONG_SUITE_CRASH");

    (void)unused;
    if (!again && crash_how != NULL) {
        each_file(".", synced);
        (void)atexit(report);
    }
    again = true;
    return getenv("THRONG_SUITE") == NULL ? SQLITE_OK : throng_register(1);
}
