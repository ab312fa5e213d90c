/* Open-file-description locks. The classic POSIX ones belong to the process and vanish when any of its descriptors of
 * the file is closed, also one that the application opened and we never saw.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

static struct flock lock_range(short type, int64_t offset, int64_t bytes)
{
    struct flock range;

    memset(&range, 0, sizeof range); /* l_pid must be 0 */
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = (off_t)offset;
    range.l_len = (off_t)bytes;
    return range;
}

int thr_os_lock(int fd, bool exclusive, int64_t offset, int64_t bytes)
{
    struct flock range = lock_range(exclusive ? F_WRLCK : F_RDLCK, offset, bytes);
    int err = thr_os_fault_fd(THR_OS_LOCK, fd);

    THR_OS_TRY(err, fcntl(fd, F_OFD_SETLK, &range));
    if (err == 0)
        return SQLITE_OK;
    return thr_os_fail(err, err == EACCES || err == EAGAIN ? SQLITE_BUSY : SQLITE_IOERR_LOCK);
}

void thr_os_unlock(int fd, int64_t offset, int64_t bytes)
{
    struct flock range = lock_range(F_UNLCK, offset, bytes);
    int err = 0;

    THR_OS_TRY(err, fcntl(fd, F_OFD_SETLK, &range));
    if (err != 0)
        thr_log(SQLITE_IOERR_UNLOCK, "unlock of descriptor %d failed: errno %d", fd, err);
}

int thr_os_lock_holder(int fd, int64_t offset, int64_t bytes, uint32_t *pid_out)
{
    struct flock range = lock_range(F_WRLCK, offset, bytes);
    int err = thr_os_fault_fd(THR_OS_LOCK, fd);

    *pid_out = THR_LOCK_HOLDER_UNKNOWN;
    THR_OS_TRY(err, fcntl(fd, F_OFD_GETLK, &range));
    if (err != 0)
        return thr_os_fail(err, SQLITE_IOERR_LOCK);
    if (range.l_type == F_UNLCK)
        *pid_out = 0;
    else if (range.l_pid > 0)
        *pid_out = (uint32_t)range.l_pid;
    return SQLITE_OK;
}
