/* Files: open, read, write, size, disk space, sync.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"
#include "point.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
#include <xxhash.h>

_Static_assert(sizeof(off_t) == sizeof(int64_t), "file offsets have 64 bits: build with -D_FILE_OFFSET_BITS=64");

#define LOWEST_FD 3                           /* standard input, output and error lie below */
#define IO_BYTES_MAX ((size_t)1 << 30)        /* the kernel moves less than 2 GiB in one call */
#define ALLOCATE_BYTES_MAX (INT64_C(1) << 26) /* one fallocate(): short enough to end between two signals */
#define CREATE_ATTEMPTS 3
#define BLOCK_BYTES 512u /* no file system has smaller blocks */
#define ZERO_BYTES 65536u

static const unsigned char zeros[ZERO_BYTES];

/* Give the file a descriptor above standard error, and leave /dev/null in the old place, so that the next open() does
 * not get it again. Consumes `low`. -1 with errno on failure. */
static int lift_descriptor(int low)
{
    int fd, null_fd = -1, err = 0;

    THR_OS_TRY(err, fd = fcntl(low, F_DUPFD_CLOEXEC, LOWEST_FD));
    if (err == 0 && (null_fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && dup2(null_fd, low) == low)
        low = -1;
    thr_os_close(low);
    if (null_fd >= LOWEST_FD)
        thr_os_close(null_fd);
    else if (null_fd >= 0)
        (void)fcntl(null_fd, F_SETFD, 0); /* it stays, in another free low place, also for our children */
    errno = err;
    return err == 0 ? fd : -1;
}

int thr_os_open_high(const char *path, int posix_flags, uint32_t mode)
{
    return thr_os_open_high_at(AT_FDCWD, path, posix_flags, mode);
}

int thr_os_open_high_at(int directory, const char *path, int posix_flags, uint32_t mode)
{
    int fd = -1, err = 0;

    THR_OS_TRY(err, fd = openat(directory, path, posix_flags | O_CLOEXEC, (mode_t)mode));
    if (err != 0) {
        errno = err;
        return -1;
    }
    if (fd >= LOWEST_FD)
        return fd;
    thr_log(SQLITE_WARNING, "descriptor %d was free when \"%s\" was opened: it is now /dev/null", fd, path);
    return lift_descriptor(fd);
}

/* O_CREAT alone does not tell who created the file, so ask in two steps. They can lose against another process, and
 * never agree about a dangling symbolic link: after some attempts take O_CREAT's word, and an empty file as new. */
static int open_or_create(const char *path, int posix_flags, uint32_t mode, bool *created_out)
{
    struct stat st;
    int fd;

    for (int attempt = 0; attempt < CREATE_ATTEMPTS; attempt++) {
        *created_out = false;
        fd = thr_os_open_high(path, posix_flags, 0);
        if (fd >= 0 || errno != ENOENT)
            return fd;
        *created_out = true;
        fd = thr_os_open_high(path, posix_flags | O_CREAT | O_EXCL, mode);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    fd = thr_os_open_high(path, posix_flags | O_CREAT, mode);
    *created_out = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
    return fd;
}

/* Without waiting for a pipe; O_NONBLOCK means nothing for what is left then. */
static int open_trusted(int directory, const char *name, int posix_flags, const struct stat *parent)
{
    int fd = thr_os_open_high_at(directory, name, posix_flags | O_NOFOLLOW | O_NONBLOCK, 0), err = 0;
    struct stat st;

    if (fd < 0)
        return -1;
    THR_OS_TRY(err, fstat(fd, &st));
    if (err == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 && thr_os_may_trust(st.st_uid, parent->st_uid))
        return fd;
    thr_os_close(fd);
    errno = err != 0 ? err : EPERM;
    return -1;
}

/* THR_OPEN_INSIDE. All by way of a descriptor of the directory, so that its name may change meanwhile. -1 with errno. */
static int open_inside_at(int directory, const char *name, int posix_flags, int flags, uint32_t mode)
{
    struct stat parent;
    int fd = -1, err = 0;

    THR_OS_TRY(err, fstat(directory, &parent));
    if (err == 0 && (flags & THR_OPEN_CREATE) != 0) {
        fd = thr_os_open_high_at(directory, name, posix_flags | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 0600);
        if (fd >= 0)
            thr_os_give(fd, mode & parent.st_mode & 0666, parent.st_uid, parent.st_gid);
        else if (errno != EEXIST || (flags & THR_OPEN_EXCL) != 0)
            err = errno;
    }
    if (err == 0 && fd < 0 && (fd = open_trusted(directory, name, posix_flags, &parent)) < 0)
        err = errno;
    errno = err;
    return fd;
}

static int open_inside(const char *path, int posix_flags, int flags, uint32_t mode)
{
    const char *name;
    int directory = thr_os_open_parent(path, &name), fd, err;

    if (directory < 0)
        return -1;
    fd = open_inside_at(directory, name, posix_flags, flags, mode);
    err = errno;
    thr_os_close(directory);
    errno = err;
    return fd;
}

int thr_os_open_at(int directory, const char *name, int flags, uint32_t mode, int *fd_out)
{
    int err = thr_os_fault_path(THR_OS_OPEN, name);

    *fd_out = -1;
    if (err == 0 &&
        (*fd_out = open_inside_at(directory, name, flags & THR_OPEN_WRITE ? O_RDWR : O_RDONLY, flags, mode)) < 0)
        err = errno;
    return err == 0 ? SQLITE_OK : thr_os_fail(err, err == ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN);
}

int thr_os_open(const char *path, int flags, uint32_t mode, int *fd_out, int *err_out)
{
    int posix_flags = flags & THR_OPEN_WRITE ? O_RDWR : O_RDONLY;
    uint32_t create_mode = mode != 0 ? mode : 0644;
    bool created = false;
    int err = thr_os_fault_path(THR_OS_OPEN, path);
    int fd = -1;

    *fd_out = -1;
    if (err == 0) {
        if ((flags & THR_OPEN_INSIDE) != 0) {
            fd = open_inside(path, posix_flags, flags, mode);
        } else if ((flags & THR_OPEN_CREATE) == 0) {
            fd = thr_os_open_high(path, posix_flags, 0);
        } else if (flags & THR_OPEN_EXCL) {
            created = true;
            fd = thr_os_open_high(path, posix_flags | O_CREAT | O_EXCL, create_mode);
        } else {
            fd = open_or_create(path, posix_flags, create_mode, &created);
        }
        if (fd < 0)
            err = errno;
    }
    if (err_out != NULL)
        *err_out = err;
    if (err != 0)
        return thr_os_fail(err, err == ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN);
    if (created && mode != 0)
        (void)fchmod(fd, (mode_t)(mode & 07777)); /* a file system without modes may refuse: then it needs none */
    *fd_out = fd;
    return SQLITE_OK;
}

void thr_os_close(int fd)
{
    /* Not again after EINTR: Linux has closed it already, and the number may be another thread's by now. */
    if (fd >= 0 && close(fd) != 0 && errno != EINTR)
        thr_log(SQLITE_IOERR_CLOSE, "close of descriptor %d failed: errno %d", fd, errno);
}

static int stat_result(int err, const struct stat *st, struct thr_stat *out)
{
    memset(out, 0, sizeof *out);
    if (err == ENOENT || err == ENOTDIR)
        return thr_os_fail(err, SQLITE_NOTFOUND);
    if (err != 0)
        return thr_os_fail(err, err == ENOMEM ? SQLITE_NOMEM : SQLITE_IOERR_FSTAT);
    out->dev = (uint64_t)st->st_dev;
    out->ino = (uint64_t)st->st_ino;
    out->bytes = (int64_t)st->st_size;
    out->mode = (uint32_t)(st->st_mode & 07777);
    out->uid = (uint32_t)st->st_uid;
    out->gid = (uint32_t)st->st_gid;
    out->links = (uint32_t)st->st_nlink;
    out->is_dir = S_ISDIR(st->st_mode);
    out->is_regular = S_ISREG(st->st_mode);
    out->is_link = S_ISLNK(st->st_mode);
    return SQLITE_OK;
}

int thr_os_stat(const char *path, struct thr_stat *out)
{
    int err = thr_os_fault_path(THR_OS_STAT, path);
    struct stat st;

    THR_OS_TRY(err, stat(path, &st));
    return stat_result(err, &st, out);
}

int thr_os_lstat(const char *path, struct thr_stat *out)
{
    int err = thr_os_fault_path(THR_OS_STAT, path);
    struct stat st;

    THR_OS_TRY(err, lstat(path, &st));
    return stat_result(err, &st, out);
}

int thr_os_fstat(int fd, struct thr_stat *out)
{
    int err = thr_os_fault_fd(THR_OS_STAT, fd);
    struct stat st;

    THR_OS_TRY(err, fstat(fd, &st));
    return stat_result(err, &st, out);
}

uint64_t thr_os_file_number(int fd)
{
    uint64_t number[2] = {0, 0};
    struct statx status;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &status) != 0)
        return 0;
    number[0] = status.stx_ino;
    if ((status.stx_mask & STATX_BTIME) != 0)
        number[1] = (uint64_t)status.stx_btime.tv_sec * UINT64_C(1000000000) + status.stx_btime.tv_nsec;
    return XXH3_64bits(number, sizeof number);
}

bool thr_os_is_nameless(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_nlink == 0;
}

/* The bare system call: glibc's pread() is a cancellation point, which costs a few percent of a cached read, and nobody
 * may cancel a thread in here anyway. */
static ssize_t read_at(int fd, void *to, size_t bytes, int64_t offset)
{
#ifdef __LP64__
    return (ssize_t)syscall(SYS_pread64, fd, to, bytes, offset);
#else
    return pread(fd, to, bytes, (off_t)offset);
#endif
}

int thr_os_read(int fd, void *to, size_t bytes, int64_t offset, size_t *got_out)
{
    unsigned char *at = to;
    int err = thr_os_fault_fd(THR_OS_READ, fd);
    ssize_t got = 1;

    *got_out = 0;
    while (err == 0 && got > 0 && *got_out < bytes) {
        size_t part = bytes - *got_out < IO_BYTES_MAX ? bytes - *got_out : IO_BYTES_MAX;

        THR_OS_TRY(err, got = read_at(fd, at + *got_out, part, offset + (int64_t)*got_out));
        if (err == 0)
            *got_out += (size_t)got;
    }
    return err == 0 ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR_READ);
}

/* errno, or 0 when everything is written */
static int write_all(int fd, const unsigned char *from, size_t bytes, int64_t offset)
{
    ssize_t put = 0;
    int err = 0;

    for (size_t done = 0; err == 0 && done < bytes; done += (size_t)put) {
        size_t part = bytes - done < IO_BYTES_MAX ? bytes - done : IO_BYTES_MAX;

        THR_OS_TRY(err, put = pwrite(fd, from + done, part, (off_t)(offset + (int64_t)done)));
        if (err != 0)
            break;
        if (put == 0)
            err = ENOSPC; /* no progress and no reason: never loop on it */
    }
    return err;
}

/* How much of a torn write reaches the file: half of it, by whole sectors. A sector is written as one (DESIGN.md). */
static size_t torn_bytes(size_t bytes, int64_t offset)
{
    const int64_t sector = 512;
    int64_t end = (offset + (int64_t)(bytes / 2)) / sector * sector;

    return end > offset ? (size_t)(end - offset) : 0;
}

int thr_os_write(int fd, const void *from, size_t bytes, int64_t offset)
{
    int err = thr_os_fault_fd(THR_OS_WRITE, fd);

    if (err < 0) { /* a torn write: tests only */
        (void)write_all(fd, from, torn_bytes(bytes, offset), offset);
        THR_POINT("torn-write");
        err = -err;
    } else if (err == 0) {
        err = write_all(fd, from, bytes, offset);
    }
    return err == 0 ? SQLITE_OK : thr_os_fail_full(err, SQLITE_IOERR_WRITE);
}

int thr_os_truncate(int fd, int64_t bytes)
{
    int err = thr_os_fault_fd(THR_OS_TRUNCATE, fd);

    THR_OS_TRY(err, ftruncate(fd, (off_t)bytes));
    return err == 0 ? SQLITE_OK : thr_os_fail_full(err, SQLITE_IOERR_TRUNCATE);
}

/* Write zeros where the file has zeros already, so that holes get disk space. A block with any other byte in it is no
 * hole and is left alone. */
static int rewrite_zeros(int fd, int64_t offset, int64_t end)
{
    unsigned char buffer[ZERO_BYTES / 4];

    while (offset < end) {
        size_t want = end - offset < (int64_t)sizeof buffer ? (size_t)(end - offset) : sizeof buffer;
        size_t got, run = 0, at = 0;
        int rc;

        if ((rc = thr_os_read(fd, buffer, want, offset, &got)) != SQLITE_OK)
            return rc;
        if (got == 0)
            return SQLITE_OK; /* somebody made the file shorter */
        while (at < got) {
            /* up to the next boundary in the file: a piece of two blocks would hide a hole behind its neighbour */
            size_t block = BLOCK_BYTES - (size_t)((offset + (int64_t)at) % BLOCK_BYTES);
            bool is_zero;

            block = block < got - at ? block : got - at;
            is_zero = memcmp(buffer + at, zeros, block) == 0;
            at += block;
            run = is_zero ? run + block : run;
            if (run > 0 && (!is_zero || at == got)) {
                size_t run_end = is_zero ? at : at - block;

                rc = thr_os_write(fd, zeros, run, offset + (int64_t)(run_end - run));
                if (rc != SQLITE_OK)
                    return rc;
                run = 0;
            }
        }
        offset += (int64_t)got;
    }
    return SQLITE_OK;
}

/* Where the file system cannot reserve space. Unlike fallocate() this races with whoever stores in the same range. */
static int allocate_by_writing(int fd, int64_t offset, int64_t end)
{
    struct thr_stat st;
    int64_t inside_end;
    int rc;

    if ((rc = thr_os_fstat(fd, &st)) != SQLITE_OK)
        return rc;
    inside_end = st.bytes < end ? st.bytes : end;
    if (offset < inside_end) {
        if ((rc = rewrite_zeros(fd, offset, inside_end)) != SQLITE_OK)
            return rc;
        offset = inside_end;
    }
    while (offset < end) {
        size_t part = end - offset < (int64_t)sizeof zeros ? (size_t)(end - offset) : sizeof zeros;

        if ((rc = thr_os_write(fd, zeros, part, offset)) != SQLITE_OK)
            return rc;
        offset += (int64_t)part;
    }
    return SQLITE_OK;
}

int thr_os_allocate(int fd, int64_t offset, int64_t bytes)
{
    int err = thr_os_fault_fd(THR_OS_ALLOCATE, fd);
    int64_t end;
    int rc;

    if (offset < 0 || bytes < 0)
        return thr_os_fail(EINVAL, SQLITE_IOERR_WRITE);
    if (bytes > INT64_MAX - offset)
        return thr_os_fail_full(EFBIG, SQLITE_IOERR_WRITE);
    end = offset + bytes;
    while (err == 0 && offset < end) {
        int64_t part = end - offset < ALLOCATE_BYTES_MAX ? end - offset : ALLOCATE_BYTES_MAX;

        THR_OS_TRY(err, fallocate(fd, 0, (off_t)offset, (off_t)part));
        if (err == 0)
            offset += part;
    }
    if (err == 0)
        return SQLITE_OK;
    if (err != EOPNOTSUPP && err != ENOSYS && err != EINVAL)
        return thr_os_fail_full(err, SQLITE_IOERR_WRITE);
    rc = allocate_by_writing(fd, offset, end);
    return rc == SQLITE_OK || rc == SQLITE_FULL ? rc : SQLITE_IOERR_WRITE;
}

int thr_os_punch(int fd, int64_t offset, int64_t bytes)
{
    int err = thr_os_fault_fd(THR_OS_ALLOCATE, fd);

    THR_OS_TRY(err, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes));
    return err == 0 ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR_WRITE);
}

int thr_os_sync(int fd)
{
    int err = thr_os_fault_fd(THR_OS_SYNC, fd);

    THR_OS_TRY(err, fdatasync(fd));
    return err == 0 ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR_FSYNC);
}

void thr_os_write_back(int fd, int64_t offset, int64_t bytes)
{
    (void)sync_file_range(fd, offset, bytes, SYNC_FILE_RANGE_WRITE);
}
