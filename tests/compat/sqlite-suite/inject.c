/* SQLite's test program with Throng as its default VFS. What its tests inject into SQLite's own files (I/O errors, a full
 * disk, no memory, a crash at some sync) is injected into Throng's system calls here.
 *
 * Environment: THRONG_SUITE, if set, makes Throng the default. THRONG_SUITE_CRASH=n ends the process at the n-th sync.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../../src/os/os.h"
#include "throng.h"

/* Of SQLite's os_common.h, in builds with SQLITE_TEST; the tests set them. */
extern int sqlite3_io_error_hit, sqlite3_io_error_hardhit, sqlite3_io_error_pending, sqlite3_io_error_persist,
    sqlite3_io_error_benign, sqlite3_diskfull_pending, sqlite3_diskfull;

void (*thr_point_hook)(const char *name);
static _Atomic int syncs_to_crash;

/* As SimulateIOError() of SQLite: the n-th call from now on fails, or that and all after it. */
static int io_error(void)
{
    if ((sqlite3_io_error_persist == 0 || sqlite3_io_error_hit == 0) && sqlite3_io_error_pending-- != 1)
        return 0;
    sqlite3_io_error_hit++;
    if (sqlite3_io_error_benign == 0)
        sqlite3_io_error_hardhit++;
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

static int check(enum thr_os_call call, const char *path)
{
    int err;

    (void)path;
    switch (call) {
    case THR_OS_SYNC:
        if (atomic_load(&syncs_to_crash) > 0 && atomic_fetch_sub(&syncs_to_crash, 1) == 1)
            _exit(1);
        return io_error();
    case THR_OS_WRITE:
    case THR_OS_ALLOCATE:
        return (err = io_error()) != 0 ? err : disk_full();
    case THR_OS_READ:
    case THR_OS_TRUNCATE:
    case THR_OS_UNLINK:
        return io_error();
    case THR_OS_MEMORY:
        return no_memory();
    default:
        return 0;
    }
}

int (*thr_fault_check)(enum thr_os_call call, const char *path_or_null) = check;

/* SQLITE_EXTRA_INIT: at the end of each sqlite3_initialize(). */
int throng_suite_init(const char *unused);
int throng_suite_init(const char *unused)
{
    const char *crash = getenv("THRONG_SUITE_CRASH");

    (void)unused;
    if (crash != NULL)
        atomic_store(&syncs_to_crash, atoi(crash));
    return getenv("THRONG_SUITE") == NULL ? SQLITE_OK : throng_register(1);
}
