/* What the files of src/os share: fault checks, the retry loop, and the one way from errno to a result code.
 * Include it first: it asks for the GNU interfaces (OFD locks, fallocate, dup3).
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_OS_INTERNAL_H
#define THR_OS_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "os.h"

#include <errno.h>

/* The errno with which a test wants this call to fail, or 0. A descriptor is resolved to its path, so that a test can
 * pick one file. Negative only for THR_OS_WRITE: see thr_fault_check in os.h. */
#ifdef THR_FAULTS
int thr_os_fault_path(enum thr_os_call call, const char *path_or_null);
int thr_os_fault_fd(enum thr_os_call call, int fd);
#else
static inline int thr_os_fault_path(enum thr_os_call call, const char *path_or_null)
{
    (void)call;
    (void)path_or_null;
    return 0;
}

static inline int thr_os_fault_fd(enum thr_os_call call, int fd)
{
    (void)call;
    (void)fd;
    return 0;
}
#endif

/* Unless `err` (an int variable) already holds a failure, run a system call that says -1 on failure, again as long as
 * signals interrupt it, and leave its errno, or 0, in `err`. */
#define THR_OS_TRY(err, system_call)                                          \
    do {                                                                      \
        while ((err) == 0 && (system_call) == -1 && ((err) = errno) == EINTR) \
            (err) = 0;                                                        \
    } while (0)

int thr_os_fail(int err, int code);      /* remembers err as this thread's last; returns code */
int thr_os_fail_full(int err, int code); /* the same, but SQLITE_FULL if err says that there is no room */

/* open(2) with O_CLOEXEC; retries after signals and never gives a descriptor below 3. -1 with errno on failure. */
int thr_os_open_high(const char *path, int posix_flags, uint32_t mode);
/* The same, `path` as in openat(2). */
int thr_os_open_high_at(int directory, const char *path, int posix_flags, uint32_t mode);
/* The directory that `path` is in, which must not be a link itself; *name_out is the rest of the path. -1 with errno. */
int thr_os_open_parent(const char *path, const char **name_out);
/* Give a new file or directory its rights; see thr_os_mkdir(). What it was created with must be less. */
void thr_os_give(int fd, uint32_t mode, uint32_t uid, uint32_t gid);

#endif
