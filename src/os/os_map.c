/* Memory mappings.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"

#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/types.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; older kernels refuse it, which is harmless */
#endif

static int map(size_t bytes, int protection, int flags, int fd, int64_t offset, int fault, void **at_out)
{
    void *at = MAP_FAILED;
    int err = fault;

    *at_out = NULL;
    if (err == 0 && (at = mmap(NULL, bytes, protection, flags | MAP_NORESERVE, fd, (off_t)offset)) == MAP_FAILED)
        err = errno;
    if (err != 0)
        return thr_os_fail(err, err == ENOMEM ? SQLITE_NOMEM : SQLITE_IOERR_MMAP);
    *at_out = at;
    return SQLITE_OK;
}

int thr_os_map(int fd, size_t bytes, bool writable, void **at_out)
{
    return thr_os_map_at(fd, 0, bytes, writable, false, at_out);
}

int thr_os_map_at(int fd, int64_t offset, size_t bytes, bool writable, bool populate, void **at_out)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = populate && !writable ? MAP_SHARED | MAP_POPULATE : MAP_SHARED;
    int rc;

    rc = map(bytes, protection, flags, fd, offset, thr_os_fault_fd(THR_OS_MAP, fd), at_out);
    /* MAP_POPULATE maps shared pages for reading only; the first store to each would still fault. */
    if (rc == SQLITE_OK && populate && writable)
        thr_os_populate(*at_out, bytes);
    return rc;
}

void thr_os_populate(void *at, size_t bytes)
{
    int err = 0;

    THR_OS_TRY(err, madvise(at, bytes, MADV_POPULATE_WRITE));
    (void)err; /* it costs the faults, and nothing else */
}

int thr_os_map_some(int fd, size_t *bytes, size_t least, unsigned divisor, bool writable, void **at_out)
{
    const size_t wanted = *bytes;
    int rc;

    while ((rc = thr_os_map(fd, *bytes, writable, at_out)) == SQLITE_NOMEM && *bytes > least)
        *bytes = *bytes / 4 > least ? *bytes / 4 : least;
    if (rc != SQLITE_OK || *bytes == wanted || *bytes == least)
        return rc;
    thr_os_unmap(*at_out, *bytes); /* leave the rest to others */
    *bytes = *bytes / divisor > least ? *bytes / divisor : least;
    *bytes = (*bytes + 4095) & ~(size_t)4095;
    return thr_os_map(fd, *bytes, writable, at_out);
}

void thr_os_unmap(void *at, size_t bytes)
{
    if (at != NULL && munmap(at, bytes) != 0)
        thr_log(SQLITE_IOERR_MMAP, "munmap of %zu bytes failed: errno %d", bytes, errno);
}

void thr_os_map_hide(void *at, size_t bytes)
{
    (void)madvise(at, bytes, MADV_DONTFORK); /* may fail for want of memory only: then a child sees it */
}

void thr_os_map_zeros(void *at, size_t bytes)
{
    if (at != NULL &&
        mmap(at, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        (void)munmap(at, bytes);
}

int thr_os_map_anonymous(size_t bytes, void **at_out)
{
    return map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, thr_os_fault_path(THR_OS_MAP, NULL),
               at_out);
}
