/* Properties of the operating system layer as os.h promises them, against the real system. What needs failures that
 * the real system will not give on demand is in test_os_fault.c.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define PAGE 4096
#define NOWHERE 1000000 /* a descriptor that is not open */

/* Sanitizers end the process when it asks for too much memory, unless told not to. Here NULL is the answer wanted. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static char dir[PATH_MAX / 4];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/throng-os-XXXXXX", place());
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    char command[PATH_MAX];

    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* A path in the test's directory; valid until the fourth call from now. */
static const char *in_dir(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    (void)snprintf(path, PATH_MAX, "%s/%s", dir, name);
    return path;
}

static int open_new(const char *name)
{
    int fd;

    assert_int_equal(thr_os_open(in_dir(name), THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL, 0600, &fd, NULL),
                     SQLITE_OK);
    return fd;
}

static uint32_t mode_of(const char *name)
{
    struct thr_stat st;

    assert_int_equal(thr_os_stat(in_dir(name), &st), SQLITE_OK);
    return st.mode;
}

static uint64_t disk_bytes(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static int64_t length_of(int fd)
{
    struct thr_stat st;

    assert_int_equal(thr_os_fstat(fd, &st), SQLITE_OK);
    return st.bytes;
}

static int exit_status(pid_t child)
{
    int status = 0;

    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- signals: a storm that interrupts whatever blocks, without SA_RESTART --- */

static void on_alarm(int signal_number)
{
    (void)signal_number;
}

static void storm_begin(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval every = {{0, 500}, {0, 500}};

    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void storm_end(void)
{
    struct itimerval never = {{0, 0}, {0, 0}};

    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_true(signal(SIGALRM, SIG_DFL) != SIG_ERR);
}

static void block_alarm(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGALRM);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* --- open and close --- */

/* Property: a missing file is an error unless it may be created, and then it gets exactly the mode asked for. */
static void open_creates_with_the_exact_mode(void **state)
{
    mode_t old = umask(077);
    int fd, err;

    (void)state;
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_WRITE, 0, &fd, &err), SQLITE_CANTOPEN);
    assert_int_equal(fd, -1);
    assert_int_equal(err, ENOENT);
    assert_int_equal(thr_os_last_errno(), ENOENT);
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0664, &fd, &err), SQLITE_OK);
    assert_int_equal(err, 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    thr_os_close(fd);
    assert_int_equal(mode_of("a"), 0664);
    assert_int_equal(thr_os_open(in_dir("b"), THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL, 0666, &fd, &err),
                     SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(mode_of("b"), 0666);
    assert_int_equal(thr_os_open(in_dir("c"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0, &fd, &err), SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(mode_of("c"), 0600); /* 0644 less umask */
    (void)umask(old);
}

/* Property: opening a file that exists changes nothing about it. */
static void open_leaves_an_existing_file_alone(void **state)
{
    int fd = open_new("a"), err;

    (void)state;
    assert_int_equal(thr_os_write(fd, "x", 1, 0), SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0666, &fd, NULL), SQLITE_OK);
    assert_int_equal(length_of(fd), 1);
    thr_os_close(fd);
    assert_int_equal(mode_of("a"), 0600);
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL, 0666, &fd, &err),
                     SQLITE_CANTOPEN);
    assert_int_equal(err, EEXIST);
}

/* Property: nor does an empty file that was there count as created. */
static void open_leaves_an_empty_file_alone(void **state)
{
    int fd;

    (void)state;
    thr_os_close(open_new("a"));
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0666, &fd, NULL), SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(mode_of("a"), 0600);
}

/* Property: creating through a symbolic link that points nowhere creates what it points to. */
static void open_creates_through_a_dangling_link(void **state)
{
    mode_t old = umask(077);
    int fd;

    (void)state;
    assert_int_equal(symlink("target", in_dir("link")), 0);
    assert_int_equal(thr_os_open(in_dir("link"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0640, &fd, NULL), SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(mode_of("target"), 0640);
    (void)umask(old);
}

/* Property: a descriptor opened for reading cannot write. */
static void open_for_reading_refuses_writes(void **state)
{
    int fd = open_new("a");

    (void)state;
    thr_os_close(fd);
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_READ, 0, &fd, NULL), SQLITE_OK);
    assert_int_equal(thr_os_write(fd, "x", 1, 0), SQLITE_IOERR_WRITE);
    assert_int_equal(thr_os_last_errno(), EBADF);
    assert_int_equal(thr_os_truncate(fd, 10), SQLITE_IOERR_TRUNCATE);
    thr_os_close(fd);
    thr_os_close(-1);
}

/* What the child below has to say: 0 if all is well, else the number of the check that failed. */
static int with_standard_descriptors_closed(int closed_mask)
{
    struct thr_stat st;
    int fd, fd2;

    for (int i = 0; i < 3; i++)
        if (closed_mask & (1 << i))
            (void)close(i);
    if (thr_os_open(in_dir("a"), THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL, 0600, &fd, NULL) != SQLITE_OK)
        return 1;
    if (thr_os_open(in_dir("a"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0600, &fd2, NULL) != SQLITE_OK)
        return 2;
    if (fd < 3 || fd2 < 3)
        return 3;
    if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC))
        return 4;
    if (closed_mask & 4)
        (void)!write(2, "stray message\n", 14);
    if (thr_os_fstat(fd, &st) != SQLITE_OK || st.bytes != 0)
        return 5;
    for (int i = 0, first = 1; i < 3; i++) { /* the places that open() came across are /dev/null now */
        int fd_flags = closed_mask & (1 << i) ? fcntl(i, F_GETFD) : -2;

        if (fd_flags >= 0 && (fd_flags & FD_CLOEXEC || thr_os_fstat(i, &st) != SQLITE_OK || st.is_regular))
            return 6;
        if (fd_flags == -1 && first)
            return 7;
        first = first && fd_flags == -2;
    }
    return 0;
}

/* Property: a program that closed its standard descriptors, any of them, does not write its messages into a file of
 * ours. */
static void open_never_returns_a_standard_descriptor(void **state)
{
    (void)state;
    for (int mask = 1; mask < 8; mask++) {
        pid_t child = fork();

        if (child == 0)
            _exit(with_standard_descriptors_closed(mask));
        assert_int_equal(exit_status(child), 0);
        assert_int_equal(thr_os_unlink(in_dir("a")), SQLITE_OK);
    }
}

static void *open_other_end(void *path)
{
    int fd;

    block_alarm();
    thr_os_sleep_ns(30 * MS);
    fd = open(path, O_WRONLY);
    thr_os_sleep_ns(10 * MS);
    (void)close(fd);
    return NULL;
}

/* Property: signals that interrupt open() are not seen by the caller. */
static void open_survives_signals(void **state)
{
    char path[PATH_MAX];
    pthread_t thread;
    int fd, rc;

    (void)state;
    (void)strcpy(path, in_dir("fifo"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pthread_create(&thread, NULL, open_other_end, path), 0);
    storm_begin();
    rc = thr_os_open(path, THR_OPEN_READ, 0, &fd, NULL); /* blocks until the other end is open */
    storm_end();
    assert_int_equal(rc, SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* --- stat --- */

/* Property: stat and fstat agree, tell files from directories, follow links and know "not there" from "broken". */
static void stat_describes_what_is_there(void **state)
{
    int fd = open_new("a");
    struct thr_stat st, st2;

    (void)state;
    assert_int_equal(thr_os_write(fd, "12345", 5, 0), SQLITE_OK);
    assert_int_equal(symlink("a", in_dir("link")), 0);
    assert_int_equal(thr_os_stat(in_dir("link"), &st), SQLITE_OK);
    assert_int_equal(thr_os_fstat(fd, &st2), SQLITE_OK);
    assert_memory_equal(&st, &st2, sizeof st);
    assert_true(st.is_regular && !st.is_dir);
    assert_int_equal(st.bytes, 5);
    assert_int_equal(st.mode, 0600);
    assert_int_equal(st.uid, geteuid());
    assert_int_equal(thr_os_stat(dir, &st), SQLITE_OK);
    assert_true(st.is_dir && !st.is_regular);
    assert_int_equal(st.dev, st2.dev);
    assert_int_not_equal(st.ino, st2.ino);
    thr_os_close(fd);

    assert_int_equal(thr_os_stat(in_dir("none"), &st), SQLITE_NOTFOUND);
    assert_int_equal(st.ino, 0);
    assert_int_equal(thr_os_stat(in_dir("a/b"), &st), SQLITE_NOTFOUND);
    assert_int_equal(symlink("loop", in_dir("loop")), 0);
    assert_int_equal(thr_os_stat(in_dir("loop"), &st), SQLITE_IOERR_FSTAT);
    assert_int_equal(thr_os_last_errno(), ELOOP);
    assert_int_equal(thr_os_fstat(NOWHERE, &st), SQLITE_IOERR_FSTAT);
}

/* --- read, write, truncate --- */

/* Property: reads stop at the end of the file and nowhere else. */
static void read_ends_where_the_file_ends(void **state)
{
    int fd = open_new("a");
    char got[16] = {0};
    size_t bytes = 99;

    (void)state;
    assert_int_equal(thr_os_write(fd, "0123456789", 10, 0), SQLITE_OK);
    assert_int_equal(thr_os_read(fd, got, 4, 2, &bytes), SQLITE_OK);
    assert_int_equal(bytes, 4);
    assert_memory_equal(got, "2345", 4);
    assert_int_equal(thr_os_read(fd, got, 16, 7, &bytes), SQLITE_OK);
    assert_int_equal(bytes, 3);
    assert_memory_equal(got, "789", 3);
    assert_int_equal(thr_os_read(fd, got, 16, 10, &bytes), SQLITE_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(thr_os_read(fd, got, 0, 0, &bytes), SQLITE_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(thr_os_read(NOWHERE, got, 1, 0, &bytes), SQLITE_IOERR_READ);
    assert_int_equal(thr_os_last_errno(), EBADF);
    assert_int_equal(bytes, 0);
    thr_os_close(fd);
}

/* Property: more than the kernel moves in one call still arrives whole. Nothing touches the memory: /dev/null does not
 * look at it. */
static void write_exceeds_one_system_call(void **state)
{
    size_t bytes = ((size_t)1 << 32) + 12345;
    void *at;
    int fd;

    (void)state;
    assert_int_equal(thr_os_open("/dev/null", THR_OPEN_WRITE, 0, &fd, NULL), SQLITE_OK);
    assert_int_equal(thr_os_map_anonymous(bytes, &at), SQLITE_OK);
    assert_int_equal(thr_os_write(fd, at, bytes, 0), SQLITE_OK);
    thr_os_unmap(at, bytes);
    thr_os_close(fd);
}

/* Property: no room is SQLITE_FULL: a full device, and a file at the limit of its size. */
static void no_room_is_full(void **state)
{
    struct rlimit old, limit;
    char block[PAGE] = {1};
    int fd, rc_write, rc_truncate, rc_allocate;

    (void)state;
    assert_int_equal(thr_os_open("/dev/full", THR_OPEN_WRITE, 0, &fd, NULL), SQLITE_OK);
    assert_int_equal(thr_os_write(fd, block, sizeof block, 0), SQLITE_FULL);
    assert_int_equal(thr_os_last_errno(), ENOSPC);
    thr_os_close(fd);

    fd = open_new("a");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 3 * PAGE + 100;
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(thr_os_write(fd, block, sizeof block, i * PAGE), SQLITE_OK);
    rc_write = thr_os_write(fd, block, sizeof block, 3 * PAGE); /* the first 100 bytes fit */
    rc_truncate = thr_os_truncate(fd, 5 * PAGE);
    rc_allocate = thr_os_allocate(fd, 0, 5 * PAGE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_true(signal(SIGXFSZ, SIG_DFL) != SIG_ERR);
    assert_int_equal(rc_write, SQLITE_FULL);
    assert_int_equal(rc_truncate, SQLITE_FULL);
    assert_int_equal(rc_allocate, SQLITE_FULL);
    assert_int_equal(thr_os_last_errno(), EFBIG);
    thr_os_close(fd);
}

/* Property: truncate sets the length both ways, and what it adds reads as zeros. */
static void truncate_sets_the_length(void **state)
{
    int fd = open_new("a");
    char got[10];
    size_t bytes;

    (void)state;
    assert_int_equal(thr_os_write(fd, "0123456789", 10, 0), SQLITE_OK);
    assert_int_equal(thr_os_truncate(fd, 5), SQLITE_OK);
    assert_int_equal(length_of(fd), 5);
    assert_int_equal(thr_os_truncate(fd, 10), SQLITE_OK);
    assert_int_equal(thr_os_read(fd, got, 10, 0, &bytes), SQLITE_OK);
    assert_int_equal(bytes, 10);
    assert_memory_equal(got, "01234\0\0\0\0\0", 10);
    assert_int_equal(thr_os_truncate(fd, -1), SQLITE_IOERR_TRUNCATE);
    assert_int_equal(thr_os_truncate(NOWHERE, 0), SQLITE_IOERR_TRUNCATE);
    thr_os_close(fd);
}

/* --- disk space --- */

/* Property: allocated space is inside the file, on disk, and reads as zeros. */
static void allocate_extends_and_reserves(void **state)
{
    int64_t large = (INT64_C(64) << 20) + 5 * PAGE; /* more than one system call */
    int fd = open_new("a");
    char got[PAGE], zeros[PAGE] = {0};
    size_t bytes;

    (void)state;
    assert_int_equal(thr_os_allocate(fd, 0, 0), SQLITE_OK);
    assert_int_equal(length_of(fd), 0);
    assert_int_equal(thr_os_allocate(fd, 0, 10 * PAGE), SQLITE_OK);
    assert_int_equal(length_of(fd), 10 * PAGE);
    assert_true(disk_bytes(fd) >= 10 * PAGE);
    assert_int_equal(thr_os_read(fd, got, PAGE, 9 * PAGE, &bytes), SQLITE_OK);
    assert_int_equal(bytes, PAGE);
    assert_memory_equal(got, zeros, PAGE);
    assert_int_equal(thr_os_allocate(fd, PAGE, PAGE), SQLITE_OK);
    assert_int_equal(length_of(fd), 10 * PAGE);
    assert_int_equal(thr_os_allocate(fd, 10 * PAGE, large), SQLITE_OK);
    assert_int_equal(length_of(fd), 10 * PAGE + large);
    assert_true(disk_bytes(fd) >= (uint64_t)(10 * PAGE + large));
    thr_os_close(fd);
}

/* Property: allocating over a file with holes fills the holes and keeps every byte. */
static void allocate_fills_holes(void **state)
{
    int fd = open_new("a");
    char data[PAGE], got[PAGE];
    size_t bytes;

    (void)state;
    memset(data, 'x', sizeof data);
    assert_int_equal(thr_os_truncate(fd, 100 * PAGE), SQLITE_OK);
    assert_int_equal(thr_os_write(fd, data, PAGE, 50 * PAGE), SQLITE_OK);
    assert_int_equal(thr_os_allocate(fd, 0, 100 * PAGE), SQLITE_OK);
    assert_true(disk_bytes(fd) >= 100 * PAGE);
    assert_int_equal(length_of(fd), 100 * PAGE);
    assert_int_equal(thr_os_read(fd, got, PAGE, 50 * PAGE, &bytes), SQLITE_OK);
    assert_memory_equal(got, data, PAGE);
    thr_os_close(fd);
}

/* Property: nonsense is refused before it reaches the file. */
static void allocate_refuses_nonsense(void **state)
{
    int fd = open_new("a");

    (void)state;
    assert_int_equal(thr_os_allocate(fd, -1, 10), SQLITE_IOERR_WRITE);
    assert_int_equal(thr_os_allocate(fd, 0, -10), SQLITE_IOERR_WRITE);
    assert_int_equal(thr_os_allocate(fd, INT64_MAX - 5, 10), SQLITE_FULL);
    assert_int_equal(length_of(fd), 0);
    assert_int_equal(thr_os_allocate(NOWHERE, 0, 10), SQLITE_IOERR_WRITE);
    thr_os_close(fd);
}

/* --- sync --- */

/* Property: sync succeeds on files and directories; file systems that sync no directories are no error, but one that
 * does not sync a file is. */
static void sync_reports_what_matters(void **state)
{
    int fd = open_new("a");

    (void)state;
    assert_int_equal(thr_os_write(fd, "x", 1, 0), SQLITE_OK);
    assert_int_equal(thr_os_sync(fd), SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(thr_os_open_dir(dir, &fd), SQLITE_OK);
    assert_int_equal(thr_os_sync_dir(fd), SQLITE_OK);
    thr_os_close(fd);
    assert_int_equal(thr_os_open_dir("/proc", &fd), SQLITE_OK);
    assert_int_equal(thr_os_sync_dir(fd), SQLITE_OK); /* fsync says EINVAL there */
    thr_os_close(fd);
    assert_int_equal(thr_os_sync_dir(-1), SQLITE_OK);
    assert_int_equal(thr_os_open_dir(in_dir("none"), &fd), SQLITE_CANTOPEN);
    assert_int_equal(fd, -1);
    assert_int_equal(thr_os_open_dir(in_dir("a"), &fd), SQLITE_CANTOPEN);
    assert_int_equal(thr_os_sync(NOWHERE), SQLITE_IOERR_FSYNC);
    assert_int_equal(thr_os_open("/proc/self/stat", THR_OPEN_READ, 0, &fd, NULL), SQLITE_OK);
    assert_int_equal(thr_os_sync(fd), SQLITE_IOERR_FSYNC);
    thr_os_close(fd);
}

/* --- mappings --- */

/* Property: mappings of one file show each other's stores, wherever they start, and the file has them. */
static void mappings_share_the_file(void **state)
{
    int fd = open_new("a"), fd2;
    unsigned char *all, *part, *readable;
    char got[4];
    size_t bytes;
    void *at;

    (void)state;
    assert_int_equal(thr_os_allocate(fd, 0, 4 * PAGE), SQLITE_OK);
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_READ, 0, &fd2, NULL), SQLITE_OK);
    assert_int_equal(thr_os_map(fd, (size_t)1 << 36, true, &at), SQLITE_OK); /* far past the end */
    all = at;
    assert_int_equal(thr_os_map_at(fd, 2 * PAGE, 2 * PAGE, true, true, &at), SQLITE_OK);
    part = at;
    assert_int_equal(thr_os_map_at(fd2, PAGE, 3 * PAGE, false, true, &at), SQLITE_OK);
    readable = at;
    memcpy(all + 2 * PAGE, "abc", 4);
    assert_memory_equal(part, "abc", 4);
    assert_memory_equal(readable + PAGE, "abc", 4);
    memcpy(part + PAGE, "def", 4);
    assert_memory_equal(all + 3 * PAGE, "def", 4);
    assert_int_equal(thr_os_read(fd2, got, 4, 3 * PAGE, &bytes), SQLITE_OK);
    assert_memory_equal(got, "def", 4);
    /* the file grows below the mapping */
    assert_int_equal(thr_os_allocate(fd, 4 * PAGE, PAGE), SQLITE_OK);
    all[4 * PAGE] = 7;
    thr_os_unmap(all, (size_t)1 << 36);
    thr_os_unmap(part, 2 * PAGE);
    thr_os_unmap(readable, 3 * PAGE);
    thr_os_unmap(NULL, 0);
    thr_os_close(fd);
    thr_os_close(fd2);
}

static size_t pages_resident(void *at, size_t pages)
{
    unsigned char resident[64] = {0};
    size_t count = 0;

    assert_true(pages <= sizeof resident);
    assert_int_equal(mincore(at, pages * PAGE, resident), 0);
    for (size_t i = 0; i < pages; i++)
        count += resident[i] & 1u;
    return count;
}

/* Property: a populated mapping has its pages before they are touched. (A hint, so checked only where the kernel has
 * it: for stores that is 5.14.) */
static void populate_brings_pages_in(void **state)
{
    static const char *const names[2] = {"read", "write"};
    void *probe;
    bool can_populate;

    (void)state;
    assert_int_equal(thr_os_map_anonymous(PAGE, &probe), SQLITE_OK);
    can_populate = madvise(probe, PAGE, 23 /* MADV_POPULATE_WRITE */) == 0;
    thr_os_unmap(probe, PAGE);
    for (int writable = 0; writable < (can_populate ? 2 : 1); writable++) {
        int fd = open_new(names[writable]);
        void *at;

        assert_int_equal(thr_os_allocate(fd, 0, 64 * PAGE), SQLITE_OK);
        assert_int_equal(thr_os_map_at(fd, 0, 64 * PAGE, writable == 1, true, &at), SQLITE_OK);
        assert_int_equal(pages_resident(at, 64), 64);
        thr_os_unmap(at, 64 * PAGE);
        thr_os_close(fd);
    }
}

/* Property: a mapping that cannot be is refused with the right code and *at_out NULL. */
static void impossible_mappings_are_refused(void **state)
{
    int fd = open_new("a");
    void *at = &fd;

    (void)state;
    assert_int_equal(thr_os_map(fd, (size_t)1 << 60, true, &at), SQLITE_NOMEM);
    assert_null(at);
    at = &fd;
    assert_int_equal(thr_os_map(fd, 0, true, &at), SQLITE_IOERR_MMAP);
    assert_null(at);
    assert_int_equal(thr_os_map_at(fd, 1, PAGE, true, false, &at), SQLITE_IOERR_MMAP);
    assert_int_equal(thr_os_map(NOWHERE, PAGE, true, &at), SQLITE_IOERR_MMAP);
    assert_int_equal(thr_os_last_errno(), EBADF);
    assert_int_equal(thr_os_map_anonymous((size_t)1 << 60, &at), SQLITE_NOMEM);
    thr_os_close(fd);
}

/* Property: an anonymous mapping is zeros, and costs nothing until it is touched. */
static void anonymous_mapping_is_zero_and_lazy(void **state)
{
    size_t bytes = (size_t)1 << 38; /* more than the machine has */
    unsigned char *bytes_at;
    void *at;

    (void)state;
    assert_int_equal(thr_os_map_anonymous(bytes, &at), SQLITE_OK);
    bytes_at = at;
    assert_int_equal(bytes_at[bytes - 1], 0);
    bytes_at[bytes / 2] = 1;
    thr_os_unmap(at, bytes);
}

/* --- names --- */

/* Property: removing what is not there is success; what cannot be removed is an error. */
static void removing_nothing_is_no_error(void **state)
{
    (void)state;
    thr_os_close(open_new("a"));
    assert_int_equal(thr_os_unlink(in_dir("a")), SQLITE_OK);
    assert_int_equal(thr_os_unlink(in_dir("a")), SQLITE_OK);
    assert_int_equal(thr_os_rmdir(in_dir("d")), SQLITE_OK);
    assert_int_equal(thr_os_mkdir(in_dir("d"), 0700, NULL), SQLITE_OK);
    assert_int_equal(thr_os_unlink(in_dir("d")), SQLITE_IOERR_DELETE);
    thr_os_close(open_new("d/file"));
    assert_int_equal(thr_os_rmdir(in_dir("d")), SQLITE_IOERR_DELETE);
    assert_int_equal(thr_os_last_errno(), ENOTEMPTY);
    assert_int_equal(thr_os_unlink(in_dir("d/file")), SQLITE_OK);
    assert_int_equal(thr_os_rmdir(in_dir("d")), SQLITE_OK);
}

/* Property: mkdir gives exactly the mode, keeps an inherited set-group-id bit, and tells "exists" and "may not" apart
 * from the rest. */
static void mkdir_tells_why_not(void **state)
{
    mode_t old = umask(077);

    (void)state;
    assert_int_equal(thr_os_mkdir(in_dir("d"), 0775, NULL), SQLITE_OK);
    assert_int_equal(mode_of("d"), 0775);
    assert_int_equal(chmod(in_dir("d"), 02775), 0);
    assert_int_equal(thr_os_mkdir(in_dir("d/e"), 0750, NULL), SQLITE_OK);
    assert_int_equal(mode_of("d/e"), 02750);
    (void)umask(old);

    assert_int_equal(thr_os_mkdir(in_dir("d"), 0700, NULL), SQLITE_CONSTRAINT);
    assert_int_equal(mode_of("d"), 02775);
    assert_int_equal(thr_os_mkdir(in_dir("none/d"), 0700, NULL), SQLITE_CANTOPEN);
}

/* Property: a directory without write permission is SQLITE_READONLY for mkdir, and one that may not be listed does not
 * keep us from working in it. */
static void permissions_are_told_apart(void **state)
{
    pid_t child;
    int fd;

    (void)state;
    assert_int_equal(chmod(dir, 0711), 0);
    assert_int_equal(thr_os_mkdir(in_dir("unwritable"), 0555, NULL), SQLITE_OK);
    assert_int_equal(thr_os_mkdir(in_dir("unlistable"), 0333, NULL), SQLITE_OK);
    if ((child = fork()) == 0) {
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) /* root may do everything */
            _exit(1);
        if (thr_os_mkdir(in_dir("unwritable/d"), 0700, NULL) != SQLITE_READONLY || thr_os_last_errno() != EACCES)
            _exit(2);
        if (thr_os_mkdir(in_dir("unlistable/d"), 0700, NULL) != SQLITE_OK)
            _exit(3);
        _exit(thr_os_open_dir(in_dir("unlistable"), &fd) == SQLITE_OK && thr_os_sync_dir(fd) == SQLITE_OK ? 0 : 4);
    }
    assert_int_equal(exit_status(child), 0);
    assert_int_equal(chmod(in_dir("unlistable"), 0700), 0); /* for the teardown */
}

/* Property: rename replaces what was there, and fails without a trace. */
static void rename_replaces(void **state)
{
    struct thr_stat st;
    int fd = open_new("a");

    (void)state;
    assert_int_equal(thr_os_write(fd, "new", 3, 0), SQLITE_OK);
    thr_os_close(fd);
    thr_os_close(open_new("b"));
    assert_int_equal(thr_os_rename(in_dir("a"), in_dir("b")), SQLITE_OK);
    assert_int_equal(thr_os_stat(in_dir("a"), &st), SQLITE_NOTFOUND);
    assert_int_equal(thr_os_stat(in_dir("b"), &st), SQLITE_OK);
    assert_int_equal(st.bytes, 3);
    assert_int_equal(thr_os_rename(in_dir("a"), in_dir("b")), SQLITE_IOERR);
    assert_int_equal(thr_os_last_errno(), ENOENT);
}

struct listing {
    int calls, sum, stop_after;
};

static int add_name(void *ctx, const char *name)
{
    struct listing *listing = ctx;

    listing->sum += atoi(name);
    return ++listing->calls == listing->stop_after ? 77 : 0;
}

/* Property: each name comes exactly once, and the callback's word ends it. */
static void list_gives_each_name_once(void **state)
{
    struct listing listing = {0};
    char name[16];

    (void)state;
    assert_int_equal(thr_os_mkdir(in_dir("d"), 0700, NULL), SQLITE_OK);
    assert_int_equal(thr_os_list(in_dir("d"), add_name, &listing), SQLITE_OK);
    assert_int_equal(listing.calls, 0);
    for (int i = 1; i <= 100; i++) {
        (void)snprintf(name, sizeof name, "d/%d", i);
        thr_os_close(open_new(name));
    }
    assert_int_equal(thr_os_list(in_dir("d"), add_name, &listing), SQLITE_OK);
    assert_int_equal(listing.calls, 100);
    assert_int_equal(listing.sum, 5050);
    listing = (struct listing){.stop_after = 3};
    assert_int_equal(thr_os_list(in_dir("d"), add_name, &listing), 77);
    assert_int_equal(listing.calls, 3);
    assert_int_equal(thr_os_list(in_dir("none"), add_name, &listing), SQLITE_NOTFOUND);
    assert_int_equal(thr_os_list(in_dir("d/1"), add_name, &listing), SQLITE_NOTFOUND);
}

/* Property: every way to a file gives one name. */
static void realpath_sees_through_links(void **state)
{
    char want[PATH_MAX], got[PATH_MAX];

    (void)state;
    assert_int_equal(thr_os_mkdir(in_dir("real"), 0700, NULL), SQLITE_OK);
    thr_os_close(open_new("real/a"));
    assert_int_equal(symlink("real", in_dir("dirlink")), 0);
    assert_int_equal(symlink("dirlink/a", in_dir("filelink")), 0);
    assert_int_equal(thr_os_realpath(in_dir("real/a"), want, sizeof want), SQLITE_OK);
    assert_int_equal(want[0], '/');
    assert_int_equal(thr_os_realpath(in_dir("dirlink/../real/./a"), got, sizeof got), SQLITE_OK);
    assert_string_equal(got, want);
    assert_int_equal(thr_os_realpath(in_dir("filelink"), got, strlen(want) + 1), SQLITE_OK);
    assert_string_equal(got, want);
    assert_int_equal(thr_os_realpath(in_dir("filelink"), got, strlen(want)), SQLITE_CANTOPEN);
    assert_string_equal(got, "");
    assert_int_equal(thr_os_realpath(in_dir("none"), got, sizeof got), SQLITE_NOTFOUND);
    assert_int_equal(symlink("loop", in_dir("loop")), 0);
    assert_int_equal(thr_os_realpath(in_dir("loop"), got, sizeof got), SQLITE_CANTOPEN);
}

/* --- locks --- */

/* Property: two opens of one file exclude each other in one process as in two, by range. */
static void locks_conflict_between_descriptors(void **state)
{
    int a = open_new("a"), b, r;

    (void)state;
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_WRITE, 0, &b, NULL), SQLITE_OK);
    assert_int_equal(thr_os_lock(a, false, 0, 1), SQLITE_OK);
    assert_int_equal(thr_os_lock(b, false, 0, 1), SQLITE_OK);
    assert_int_equal(thr_os_lock(a, true, 0, 1), SQLITE_BUSY);
    thr_os_unlock(b, 0, 1);
    assert_int_equal(thr_os_lock(a, true, 0, 1), SQLITE_OK); /* converts */
    assert_int_equal(thr_os_lock(b, false, 0, 1), SQLITE_BUSY);
    assert_int_equal(thr_os_lock(b, true, 1, 1), SQLITE_OK);   /* the byte beside it */
    assert_int_equal(thr_os_lock(a, true, 0, 0), SQLITE_BUSY); /* to the end */
    assert_int_equal(thr_os_lock(a, false, 0, 1), SQLITE_OK);  /* converts back */
    assert_int_equal(thr_os_lock(b, false, 0, 1), SQLITE_OK);
    thr_os_unlock(a, 0, 1);
    thr_os_unlock(a, 0, 1); /* of nothing: no harm */
    thr_os_close(b);
    assert_int_equal(thr_os_lock(a, true, 0, 0), SQLITE_OK);
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_READ, 0, &r, NULL), SQLITE_OK);
    thr_os_unlock(a, 0, 0);
    assert_int_equal(thr_os_lock(r, true, 0, 1), SQLITE_IOERR_LOCK); /* needs a descriptor that can write */
    assert_int_equal(thr_os_lock(NOWHERE, true, 0, 1), SQLITE_IOERR_LOCK);
    thr_os_close(r);
    thr_os_close(a);
}

static int lock_in_child(void)
{
    int fd, rc;
    pid_t child = fork();

    if (child == 0) {
        if ((rc = thr_os_open(in_dir("a"), THR_OPEN_WRITE, 0, &fd, NULL)) == SQLITE_OK)
            rc = thr_os_lock(fd, true, 0, 1);
        _exit(rc);
    }
    return exit_status(child);
}

/* Property: a lock is lost neither when another descriptor of the file is closed nor when a child ends, and is gone
 * when its own descriptor is. (Classic POSIX locks fail the first.) */
static void lock_lives_as_long_as_its_descriptor(void **state)
{
    int a = open_new("a"), b;

    (void)state;
    assert_int_equal(thr_os_lock(a, true, 0, 1), SQLITE_OK);
    assert_int_equal(thr_os_open(in_dir("a"), THR_OPEN_WRITE, 0, &b, NULL), SQLITE_OK);
    thr_os_close(b);
    assert_int_equal(lock_in_child(), SQLITE_BUSY);
    assert_int_equal(lock_in_child(), SQLITE_BUSY);
    thr_os_close(a);
    assert_int_equal(lock_in_child(), SQLITE_OK);
}

/* --- threads, time, chance --- */

/* Property: a wait on a word that changed returns at once; on one that stays it takes its time, and says so. */
static void futex_waits_no_longer_than_asked(void **state)
{
    _Atomic uint32_t word = 1;
    uint64_t before = thr_os_now_ns();
    bool woken = true;

    (void)state;
    assert_true(thr_os_futex_wait(&word, 0, UINT64_MAX));
    assert_true(thr_os_now_ns() - before < 60000 * MS);
    before = thr_os_now_ns();
    while (woken) /* may wake for nothing */
        woken = thr_os_futex_wait(&word, 1, 20 * MS);
    assert_true(thr_os_now_ns() - before >= 20 * MS);
    assert_false(thr_os_futex_wait(&word, 1, 0));
}

struct rendezvous {
    _Atomic uint32_t *word;
    _Atomic int waiting, woken;
};

static void *wait_for_word(void *arg)
{
    struct rendezvous *meeting = arg;

    atomic_fetch_add(&meeting->waiting, 1);
    while (atomic_load(meeting->word) == 0)
        (void)thr_os_futex_wait(meeting->word, 0, UINT64_MAX);
    atomic_fetch_add(&meeting->woken, 1);
    return NULL;
}

struct kind_waiter {
    _Atomic uint32_t *word;
    uint32_t kinds;
    _Atomic bool returned;
};

static void *wait_as(void *arg)
{
    struct kind_waiter *waiter = arg;

    (void)thr_os_futex_wait_as(waiter->word, 0, UINT64_MAX, waiter->kinds);
    atomic_store(&waiter->returned, true);
    return NULL;
}

/* Property: a wake that is meant for waiters of one kind wakes those, and no others; a plain one wakes any. The time-out of
 * such a wait is as long as asked. */
static void futex_wakes_those_of_a_kind(void **state)
{
    _Atomic uint32_t word = 0;
    struct kind_waiter waiters[3] = {{&word, 1, false}, {&word, 2, false}, {&word, 4, false}};
    uint64_t before = thr_os_now_ns();
    pthread_t threads[3];
    bool woken = true;

    (void)state;
    while (woken)
        woken = thr_os_futex_wait_as(&word, 0, 20 * MS, 1);
    assert_true(thr_os_now_ns() - before >= 20 * MS);
    assert_true(thr_os_futex_wait_as(&word, 1, UINT64_MAX, 1));
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wait_as, &waiters[i]), 0);
    for (int i = 1; i < 3; i++) {
        while (!atomic_load(&waiters[i].returned)) {
            thr_os_futex_wake_of(&word, INT_MAX, waiters[i].kinds | 8);
            thr_os_yield();
        }
        assert_false(atomic_load(&waiters[0].returned));
        assert_int_equal(atomic_load(&waiters[2].returned), i == 2);
    }
    while (!atomic_load(&waiters[0].returned)) {
        thr_os_futex_wake(&word, 1);
        thr_os_yield();
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* Property: a wake reaches a waiter that has the word mapped at another address, and a waiter without a time limit
 * misses none. (The _PRIVATE operations fail the first.) */
static void futex_wakes_through_another_mapping(void **state)
{
    int fd = open_new("a");
    struct rendezvous meeting = {0};
    _Atomic uint32_t *word;
    pthread_t threads[3];
    void *here, *there;

    (void)state;
    assert_int_equal(thr_os_allocate(fd, 0, PAGE), SQLITE_OK);
    assert_int_equal(thr_os_map(fd, PAGE, true, &here), SQLITE_OK);
    assert_int_equal(thr_os_map(fd, PAGE, true, &there), SQLITE_OK);
    word = here;
    meeting.word = there;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for_word, &meeting), 0);
    while (atomic_load(&meeting.waiting) < 3)
        thr_os_yield();
    thr_os_sleep_ns(10 * MS); /* most likely asleep by now; correct either way */
    assert_int_equal(atomic_load(&meeting.woken), 0);
    atomic_store(word, 1);
    thr_os_futex_wake(word, 1);
    thr_os_futex_wake(word, INT_MAX);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    thr_os_unmap(here, PAGE);
    thr_os_unmap(there, PAGE);
    thr_os_close(fd);
}

/* Property: the same between two processes. */
static void futex_wakes_another_process(void **state)
{
    int fd = open_new("a");
    _Atomic uint32_t *word;
    pid_t child;
    void *at;

    (void)state;
    assert_int_equal(thr_os_allocate(fd, 0, PAGE), SQLITE_OK);
    assert_int_equal(thr_os_map(fd, PAGE, true, &at), SQLITE_OK);
    word = at;
    if ((child = fork()) == 0) {
        bool woken = true;

        while (woken && atomic_load(word) == 0)
            woken = thr_os_futex_wait(word, 0, 10000 * MS);
        _exit(woken ? 0 : 1);
    }
    thr_os_sleep_ns(10 * MS);
    atomic_store(word, 1);
    thr_os_futex_wake(word, 1);
    assert_int_equal(exit_status(child), 0);
    thr_os_unmap(at, PAGE);
    thr_os_close(fd);
}

/* Property: time goes forward, and a sleep is never shorter than asked, whatever signals come. */
static void sleep_is_not_cut_short(void **state)
{
    uint64_t before, after;

    (void)state;
    storm_begin();
    before = thr_os_now_ns();
    thr_os_sleep_ns(30 * MS);
    after = thr_os_now_ns();
    storm_end();
    assert_true(after - before >= 30 * MS);
    for (int i = 0; i < 1000; i++) {
        before = after;
        thr_os_pause();
        thr_os_yield();
        after = thr_os_now_ns();
        assert_true(after >= before);
    }
    thr_os_sleep_ns(0);
}

/* Property: a child after fork() does not take itself for its parent. */
static void pid_is_the_processs_own(void **state)
{
    uint32_t parent = thr_os_pid();
    pid_t child;

    (void)state;
    assert_int_equal(parent, getpid());
    if ((child = fork()) == 0)
        _exit(thr_os_pid() != parent ? 0 : 1);
    assert_int_equal(exit_status(child), 0);
}

/* Property: random bytes differ from call to call, and fill a buffer of any size to its end. */
static void random_fills_the_buffer(void **state)
{
    static unsigned char large[1 << 20];
    unsigned char a[16], b[16];
    unsigned seen = 0;

    (void)state;
    thr_os_random(a, sizeof a);
    thr_os_random(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    thr_os_random(large, sizeof large);
    for (size_t i = 1; i <= 32; i++)
        seen |= large[sizeof large - i];
    assert_int_equal(seen, 255);
    a[0] = 42;
    thr_os_random(a, 0);
    assert_int_equal(a[0], 42);
}

/* From here on getrandom() does not exist for this process. */
static bool forbid_getrandom(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Property: a sandbox without getrandom() still gets numbers that differ. */
static void random_differs_in_a_sandbox(void **state)
{
    pid_t child = fork();
    unsigned char a[64] = {0}, b[64] = {0}, none;
    int status;

    (void)state;
    if (child == 0) {
        if (!forbid_getrandom() || getrandom(&none, 1, 0) != -1)
            _exit(77);
        thr_os_random(a, sizeof a);
        thr_os_random(b, sizeof b);
        _exit(memcmp(a, b, sizeof a) != 0 && memcmp(a, a + 32, 32) != 0 ? 0 : 1);
    }
    if ((status = exit_status(child)) == 77)
        skip(); /* a system that refuses sandboxes */
    assert_int_equal(status, 0);
}

/* --- memory, errors, messages --- */

/* Property: memory is zeroed; a size of 0 is a size; what cannot grow stays as it was. */
static void memory_keeps_its_promises(void **state)
{
    unsigned char *p = thr_os_alloc(1000), *q;
    size_t too_much = SIZE_MAX / 4;

    (void)state;
    assert_non_null(p);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(p[i], 0);
    p[999] = 9;
    assert_null(thr_os_realloc(p, too_much));
    assert_int_equal(thr_os_last_errno(), ENOMEM);
    assert_int_equal(p[999], 9);
    q = thr_os_realloc(p, 100000);
    assert_non_null(q);
    assert_int_equal(q[999], 9);
    p = thr_os_realloc(q, 0);
    assert_non_null(p);
    thr_os_free(p);
    p = thr_os_alloc(0);
    assert_non_null(p);
    thr_os_free(p);
    assert_null(thr_os_alloc(too_much));
    thr_os_free(NULL);
    p = thr_os_realloc(NULL, 10);
    assert_non_null(p);
    thr_os_free(p);
}

static void *fail_here(void *arg)
{
    int fd;

    (void)arg;
    (void)thr_os_open(in_dir("none"), THR_OPEN_READ, 0, &fd, NULL);
    return thr_os_last_errno() == ENOENT ? NULL : &dir;
}

/* Property: the last errno is the calling thread's own, and has a text. */
static void errno_stays_in_its_thread(void **state)
{
    struct thr_stat st;
    pthread_t thread;
    char buffer[64];
    void *result;

    (void)state;
    assert_int_equal(thr_os_fstat(NOWHERE, &st), SQLITE_IOERR_FSTAT);
    assert_int_equal(pthread_create(&thread, NULL, fail_here, NULL), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_null(result);
    assert_int_equal(thr_os_last_errno(), EBADF);
    assert_string_equal(thr_os_error_text(EBADF, buffer, sizeof buffer), strerror(EBADF));
    assert_non_null(strstr(thr_os_error_text(99999, buffer, sizeof buffer), "99999"));
}

static int logged_code, logged_count;
static char logged[4096];

static void keep_message(int code, const char *message)
{
    logged_count++;
    logged_code = code;
    (void)snprintf(logged, sizeof logged, "%s", message);
    errno = EDOM;
}

/* Property: messages arrive formatted, cut off at a bound, and change no errno; without a taker they vanish. */
static void log_formats_and_bounds(void **state)
{
    char longer[3000];

    (void)state;
    logged_count = 0;
    thr_log(SQLITE_NOTICE, "nobody listens %d", 1);
    thr_os_set_log(keep_message);
    errno = EXDEV;
    thr_log(SQLITE_WARNING, "page %d of %s", 7, "db");
    assert_int_equal(errno, EXDEV);
    assert_int_equal(logged_code, SQLITE_WARNING);
    assert_string_equal(logged, "page 7 of db");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    thr_log(SQLITE_NOTICE, "%s", longer);
    assert_true(strlen(logged) >= 500 && strlen(logged) < sizeof longer);
    thr_os_unlock(NOWHERE, 0, 1); /* functions that return no code leave a message */
    assert_int_equal(logged_code, SQLITE_IOERR_UNLOCK);
    thr_os_close(NOWHERE);
    assert_int_equal(logged_code, SQLITE_IOERR_CLOSE);
    thr_os_set_log(NULL);
    thr_log(SQLITE_NOTICE, "nobody listens %d", 2);
    assert_int_equal(logged_count, 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Property: a file on a local file system is not taken for one that others change; the others are known by their number
 * (statfs(2)), whatever sign the kernel gives it. */
static void shared_filesystems_are_known(void **state)
{
    int fd;

    (void)state;
    assert_string_equal(thr_os_shared_filesystem(0x6969), "NFS");
    assert_string_equal(thr_os_shared_filesystem((unsigned long)(long)(int)0xff534d42), "CIFS");
    assert_string_equal(thr_os_shared_filesystem(0x65735546), "FUSE");
    assert_null(thr_os_shared_filesystem(0xef53));     /* ext4 */
    assert_null(thr_os_shared_filesystem(0x01021994)); /* tmpfs */
    fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_null(thr_os_filesystem_is_shared(fd));
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(shared_filesystems_are_known),
        TEST(open_creates_with_the_exact_mode),
        TEST(open_leaves_an_existing_file_alone),
        TEST(open_leaves_an_empty_file_alone),
        TEST(open_creates_through_a_dangling_link),
        TEST(open_for_reading_refuses_writes),
        TEST(open_never_returns_a_standard_descriptor),
        TEST(open_survives_signals),
        TEST(stat_describes_what_is_there),
        TEST(read_ends_where_the_file_ends),
        TEST(write_exceeds_one_system_call),
        TEST(no_room_is_full),
        TEST(truncate_sets_the_length),
        TEST(allocate_extends_and_reserves),
        TEST(allocate_fills_holes),
        TEST(allocate_refuses_nonsense),
        TEST(sync_reports_what_matters),
        TEST(mappings_share_the_file),
        TEST(populate_brings_pages_in),
        TEST(impossible_mappings_are_refused),
        TEST(anonymous_mapping_is_zero_and_lazy),
        TEST(removing_nothing_is_no_error),
        TEST(mkdir_tells_why_not),
        TEST(permissions_are_told_apart),
        TEST(rename_replaces),
        TEST(list_gives_each_name_once),
        TEST(realpath_sees_through_links),
        TEST(locks_conflict_between_descriptors),
        TEST(lock_lives_as_long_as_its_descriptor),
        TEST(futex_waits_no_longer_than_asked),
        TEST(futex_wakes_those_of_a_kind),
        TEST(futex_wakes_through_another_mapping),
        TEST(futex_wakes_another_process),
        TEST(sleep_is_not_cut_short),
        TEST(pid_is_the_processs_own),
        TEST(random_fills_the_buffer),
        TEST(random_differs_in_a_sandbox),
        TEST(memory_keeps_its_promises),
        TEST(errno_stays_in_its_thread),
        TEST(log_formats_and_bounds),
    };

    return cmocka_run_group_tests_name("os", tests, NULL, NULL);
}
