/* Properties of the operating system layer when the system fails, and of the fault controller that makes it fail.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/place.h"
#include "fault.h"
#include "point.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE 4096

static char dir[PATH_MAX / 4];
static int file = -1; /* "file" in the directory: 4 pages of 'x' */

static const char *in_dir(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    (void)snprintf(path, PATH_MAX, "%s/%s", dir, name);
    return path;
}

static int setup(void **state)
{
    char block[4 * PAGE];

    (void)state;
    memset(block, 'x', sizeof block);
    (void)snprintf(dir, sizeof dir, "%s/throng-fault-XXXXXX", place());
    if (mkdtemp(dir) == NULL)
        return -1;
    if (thr_os_open(in_dir("file"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0600, &file, NULL) != SQLITE_OK)
        return -1;
    if (thr_os_write(file, block, sizeof block, 0) != SQLITE_OK)
        return -1;
    fault_reset();
    return 0;
}

static int teardown(void **state)
{
    char command[PATH_MAX];

    (void)state;
    fault_reset();
    thr_os_close(file);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static uint64_t disk_bytes(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static int64_t length_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (int64_t)st.st_size;
}

/* --- each call with each failure --- */

static int do_open(void)
{
    int fd, err, rc = thr_os_open(in_dir("new"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0600, &fd, &err);

    assert_true((rc == SQLITE_OK) == (fd >= 3));
    assert_true((rc == SQLITE_OK) == (err == 0));
    assert_true(rc == SQLITE_OK || (fd == -1 && err == thr_os_last_errno()));
    thr_os_close(fd);
    return rc;
}

static int do_stat(void)
{
    struct thr_stat st;

    return thr_os_stat(in_dir("file"), &st);
}

static int do_fstat(void)
{
    struct thr_stat st;

    return thr_os_fstat(file, &st);
}

static int do_realpath(void)
{
    char out[PATH_MAX];

    return thr_os_realpath(in_dir("file"), out, sizeof out);
}

static int do_read(void)
{
    char buffer[100];
    size_t got = 1;
    int rc = thr_os_read(file, buffer, sizeof buffer, 0, &got);

    assert_int_equal(got, rc == SQLITE_OK ? sizeof buffer : 0);
    return rc;
}

static int do_write(void)
{
    return thr_os_write(file, "y", 1, 0);
}

static int do_truncate(void)
{
    return thr_os_truncate(file, PAGE);
}

static int do_allocate(void)
{
    return thr_os_allocate(file, 0, 8 * PAGE);
}

static int do_sync(void)
{
    return thr_os_sync(file);
}

static int do_sync_dir(void)
{
    int fd, rc = thr_os_open_dir(dir, &fd);

    if (rc == SQLITE_OK)
        rc = thr_os_sync_dir(fd);
    thr_os_close(fd);
    return rc;
}

static int map_result(int rc, void *at)
{
    assert_true((rc == SQLITE_OK) == (at != NULL));
    thr_os_unmap(at, PAGE);
    return rc;
}

static int do_map(void)
{
    void *at = &file;
    int rc = thr_os_map(file, PAGE, true, &at);

    return map_result(rc, at);
}

static int do_map_at(void)
{
    void *at = &file;
    int rc = thr_os_map_at(file, PAGE, PAGE, true, true, &at);

    return map_result(rc, at);
}

static int do_map_anonymous(void)
{
    void *at = &file;
    int rc = thr_os_map_anonymous(PAGE, &at);

    return map_result(rc, at);
}

static int do_unlink(void)
{
    return thr_os_unlink(in_dir("none"));
}

static int do_mkdir(void)
{
    return thr_os_mkdir(in_dir("d"), 0700, NULL);
}

static int do_rmdir(void)
{
    return thr_os_rmdir(in_dir("none"));
}

static int do_rename(void)
{
    return thr_os_rename(in_dir("file"), in_dir("file2"));
}

static int any_name(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    return SQLITE_OK;
}

static int do_list(void)
{
    return thr_os_list(dir, any_name, NULL);
}

static int do_lock(void)
{
    return thr_os_lock(file, true, 0, 1);
}

static int do_alloc(void)
{
    void *p = thr_os_alloc(10);

    thr_os_free(p);
    return p != NULL ? SQLITE_OK : SQLITE_NOMEM;
}

static int do_realloc(void)
{
    void *p = thr_os_realloc(NULL, 10);

    thr_os_free(p);
    return p != NULL ? SQLITE_OK : SQLITE_NOMEM;
}

static const struct outcome {
    int (*call)(void);
    enum thr_os_call kind;
    int err, rc;
} outcomes[] = {
    {do_open, THR_OS_OPEN, EACCES, SQLITE_CANTOPEN},
    {do_open, THR_OS_OPEN, EMFILE, SQLITE_CANTOPEN},
    {do_open, THR_OS_OPEN, ENOSPC, SQLITE_CANTOPEN},
    {do_open, THR_OS_OPEN, ENOMEM, SQLITE_NOMEM},
    {do_stat, THR_OS_STAT, EIO, SQLITE_IOERR_FSTAT},
    {do_stat, THR_OS_STAT, ENOENT, SQLITE_NOTFOUND},
    {do_stat, THR_OS_STAT, ENOMEM, SQLITE_NOMEM},
    {do_fstat, THR_OS_STAT, EIO, SQLITE_IOERR_FSTAT},
    {do_realpath, THR_OS_STAT, EIO, SQLITE_CANTOPEN},
    {do_realpath, THR_OS_STAT, ENOENT, SQLITE_NOTFOUND},
    {do_realpath, THR_OS_STAT, ENOMEM, SQLITE_NOMEM},
    {do_read, THR_OS_READ, EIO, SQLITE_IOERR_READ},
    {do_write, THR_OS_WRITE, EIO, SQLITE_IOERR_WRITE},
    {do_write, THR_OS_WRITE, ENOSPC, SQLITE_FULL},
    {do_write, THR_OS_WRITE, EDQUOT, SQLITE_FULL},
    {do_write, THR_OS_WRITE, EFBIG, SQLITE_FULL},
    {do_truncate, THR_OS_TRUNCATE, EIO, SQLITE_IOERR_TRUNCATE},
    {do_truncate, THR_OS_TRUNCATE, ENOSPC, SQLITE_FULL},
    {do_allocate, THR_OS_ALLOCATE, EIO, SQLITE_IOERR_WRITE},
    {do_allocate, THR_OS_ALLOCATE, ENOSPC, SQLITE_FULL},
    {do_allocate, THR_OS_ALLOCATE, EDQUOT, SQLITE_FULL},
    {do_allocate, THR_OS_ALLOCATE, EOPNOTSUPP, SQLITE_OK},
    {do_allocate, THR_OS_ALLOCATE, ENOSYS, SQLITE_OK},
    {do_allocate, THR_OS_ALLOCATE, EINVAL, SQLITE_OK},
    {do_sync, THR_OS_SYNC, EIO, SQLITE_IOERR_FSYNC},
    {do_sync_dir, THR_OS_SYNC, EIO, SQLITE_IOERR_DIR_FSYNC},
    {do_map, THR_OS_MAP, ENOMEM, SQLITE_NOMEM},
    {do_map, THR_OS_MAP, ENODEV, SQLITE_IOERR_MMAP},
    {do_map_at, THR_OS_MAP, ENOMEM, SQLITE_NOMEM},
    {do_map_at, THR_OS_MAP, EACCES, SQLITE_IOERR_MMAP},
    {do_map_anonymous, THR_OS_MAP, ENOMEM, SQLITE_NOMEM},
    {do_unlink, THR_OS_UNLINK, EACCES, SQLITE_IOERR_DELETE},
    {do_unlink, THR_OS_UNLINK, ENOENT, SQLITE_OK},
    {do_mkdir, THR_OS_MKDIR, EEXIST, SQLITE_CONSTRAINT},
    {do_mkdir, THR_OS_MKDIR, EACCES, SQLITE_READONLY},
    {do_mkdir, THR_OS_MKDIR, EROFS, SQLITE_READONLY},
    {do_mkdir, THR_OS_MKDIR, EPERM, SQLITE_READONLY},
    {do_mkdir, THR_OS_MKDIR, ENOSPC, SQLITE_FULL},
    {do_mkdir, THR_OS_MKDIR, EIO, SQLITE_CANTOPEN},
    {do_rmdir, THR_OS_RMDIR, ENOTEMPTY, SQLITE_IOERR_DELETE},
    {do_rmdir, THR_OS_RMDIR, ENOENT, SQLITE_OK},
    {do_rename, THR_OS_RENAME, EIO, SQLITE_IOERR},
    {do_list, THR_OS_LIST, EACCES, SQLITE_CANTOPEN},
    {do_list, THR_OS_LIST, ENOENT, SQLITE_NOTFOUND},
    {do_list, THR_OS_LIST, ENOMEM, SQLITE_NOMEM},
    {do_lock, THR_OS_LOCK, EAGAIN, SQLITE_BUSY},
    {do_lock, THR_OS_LOCK, EACCES, SQLITE_BUSY},
    {do_lock, THR_OS_LOCK, ENOLCK, SQLITE_IOERR_LOCK},
    {do_alloc, THR_OS_MEMORY, ENOMEM, SQLITE_NOMEM},
    {do_alloc, THR_OS_MEMORY, EIO, SQLITE_NOMEM},
    {do_realloc, THR_OS_MEMORY, ENOMEM, SQLITE_NOMEM},
};

/* Property: each failure gives the code that os.h names, once, is remembered as the thread's last errno, and leaves the
 * call able to succeed the next time. */
static void each_failure_has_its_code(void **state)
{
    bool covered[THR_OS_CALL_COUNT] = {false};

    (void)state;
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++) {
        const struct outcome *want = &outcomes[i];
        int rc;

        fault_reset();
        fault_fail(want->kind, 1, want->err);
        rc = want->call();
        if (rc != want->rc)
            print_error("%s with errno %d: %d, not %d\n", fault_call_name(want->kind), want->err, rc, want->rc);
        assert_int_equal(rc, want->rc);
        assert_int_equal(fault_hits(), 1);
        if (rc != SQLITE_OK)
            assert_int_equal(thr_os_last_errno(), want->kind == THR_OS_MEMORY ? ENOMEM : want->err);
        assert_int_equal(want->call(), SQLITE_OK);
        assert_int_equal(fault_calls(want->kind) >= 2, 1);
        covered[want->kind] = true;
        /* as it was */
        (void)rename(in_dir("file2"), in_dir("file"));
        (void)rmdir(in_dir("d"));
    }
    for (int kind = 0; kind < THR_OS_CALL_COUNT; kind++)
        assert_true(covered[kind]);
}

/* Property: a failed realloc leaves the old memory as it was. */
static void failed_realloc_keeps_the_old(void **state)
{
    char *p = thr_os_alloc(4);

    (void)state;
    assert_non_null(p);
    memcpy(p, "abc", 4);
    fault_fail(THR_OS_MEMORY, 1, ENOMEM);
    assert_null(thr_os_realloc(p, 100));
    assert_string_equal(p, "abc");
    thr_os_free(p);
}

/* --- disk space where the file system cannot reserve it --- */

/* Property: without fallocate(), space is still reserved, in holes too, and no byte changes: for any layout of data and
 * holes, any range, aligned or not. Replay: THRONG_SEED=<n> */
static void allocate_by_writing_changes_no_byte(void **state)
{
    enum { PAGES = 40, BYTES = PAGES * PAGE };
    static unsigned char before[BYTES], after[2 * BYTES];
    uint64_t seed = fault_environment_seed();

    (void)state;
    for (int round = 0; round < 50; round++) {
        int64_t offset, bytes, end;
        size_t got, length;
        int fd, rc;

        fault_reset();
        fault_seed(seed + (uint64_t)round);
        (void)thr_os_unlink(in_dir("holes"));
        assert_int_equal(thr_os_open(in_dir("holes"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0600, &fd, NULL), SQLITE_OK);
        length = (size_t)(fault_random() % (BYTES + 1));
        memset(before, 0, sizeof before);
        assert_int_equal(thr_os_truncate(fd, (int64_t)length), SQLITE_OK);
        for (int i = (int)(fault_random() % 10); i > 0 && length > 0; i--) {
            size_t at = (size_t)(fault_random() % length);

            before[at] = (unsigned char)(1 + fault_random() % 255);
            assert_int_equal(thr_os_write(fd, before + at, 1, (int64_t)at), SQLITE_OK);
        }
        offset = (int64_t)(fault_random() % BYTES);
        bytes = 1 + (int64_t)(fault_random() % BYTES);
        if (round % 3 == 0) { /* the whole file: then its blocks can be counted */
            offset = 0;
            bytes = BYTES;
        }
        end = offset + bytes > (int64_t)length ? offset + bytes : (int64_t)length;
        fault_fail_from(THR_OS_ALLOCATE, 1, EOPNOTSUPP);
        rc = thr_os_allocate(fd, offset, bytes);
        if (rc != SQLITE_OK || length_of(fd) != end || disk_bytes(fd) < (uint64_t)bytes)
            print_error("THRONG_SEED=%llu round %d\n", (unsigned long long)seed, round);
        assert_int_equal(rc, SQLITE_OK);
        assert_int_equal(length_of(fd), end);
        assert_true(disk_bytes(fd) >= (uint64_t)bytes);
        assert_int_equal(thr_os_read(fd, after, sizeof after, 0, &got), SQLITE_OK);
        assert_int_equal(got, end);
        assert_memory_equal(after, before, length);
        for (size_t i = length; i < got; i++)
            assert_int_equal(after[i], 0);
        thr_os_close(fd);
    }
}

/* Property: a hole is found also where the range begins and ends beside data, in the middle of blocks. */
static void allocate_by_writing_finds_a_hole_beside_data(void **state)
{
    int fd;

    (void)state;
    assert_int_equal(thr_os_open(in_dir("holes"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0600, &fd, NULL), SQLITE_OK);
    assert_int_equal(thr_os_truncate(fd, 2 * PAGE), SQLITE_OK);
    assert_int_equal(thr_os_write(fd, "x", 1, PAGE - 1), SQLITE_OK);
    assert_int_equal(disk_bytes(fd), PAGE);
    fault_fail_from(THR_OS_ALLOCATE, 1, EOPNOTSUPP);
    assert_int_equal(thr_os_allocate(fd, PAGE - 256, 512), SQLITE_OK);
    assert_true(disk_bytes(fd) >= 2 * PAGE);
    assert_int_equal(length_of(fd), 2 * PAGE);
    thr_os_close(fd);
}

/* Property: failures inside the fallback come out as the codes that allocate promises. */
static void allocate_by_writing_reports_failures(void **state)
{
    static const struct {
        enum thr_os_call kind;
        int err, rc;
    } wants[] = {{THR_OS_STAT, EIO, SQLITE_IOERR_WRITE},
                 {THR_OS_STAT, ENOMEM, SQLITE_IOERR_WRITE},
                 {THR_OS_READ, EIO, SQLITE_IOERR_WRITE},
                 {THR_OS_WRITE, EIO, SQLITE_IOERR_WRITE},
                 {THR_OS_WRITE, ENOSPC, SQLITE_FULL}};

    (void)state;
    assert_int_equal(thr_os_truncate(file, 6 * PAGE), SQLITE_OK);
    for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) {
        fault_reset();
        fault_fail_from(THR_OS_ALLOCATE, 1, EOPNOTSUPP);
        fault_fail(wants[i].kind, 1, wants[i].err);
        assert_int_equal(thr_os_allocate(file, 0, 8 * PAGE), wants[i].rc);
        assert_int_equal(fault_hits(), 2);
        assert_int_equal(thr_os_allocate(file, 0, 8 * PAGE), SQLITE_OK);
    }
}

/* --- the controller --- */

/* Property: "the nth" is the nth and no other, "from the nth" is the nth and all later ones; other kinds do not count,
 * and the oldest rule decides. */
static void nth_and_from_the_nth(void **state)
{
    int nth = fault_fail(THR_OS_READ, 3, EIO), from = fault_fail_from(THR_OS_SYNC, 2, EIO);

    (void)state;
    assert_int_equal(fault_fail(THR_OS_READ, 3, ENOMEM), 2);
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(do_read(), i == 3 ? SQLITE_IOERR_READ : SQLITE_OK);
        if (i == 3)
            assert_int_equal(thr_os_last_errno(), EIO);
        assert_int_equal(do_sync(), i >= 2 ? SQLITE_IOERR_FSYNC : SQLITE_OK);
        assert_int_equal(do_write(), SQLITE_OK);
    }
    assert_int_equal(fault_rule_calls(nth), 5);
    assert_int_equal(fault_rule_hits(nth), 1);
    assert_int_equal(fault_rule_hits(from), 4);
    assert_int_equal(fault_rule_hits(2), 0);
    assert_int_equal(fault_rule_hits(-1) + fault_rule_calls(3), 0);
    assert_int_equal(fault_hits(), 5);
    assert_int_equal(fault_calls(THR_OS_READ), 5);
    assert_int_equal(fault_calls(THR_OS_LOCK), 0);
    assert_int_equal(fault_calls(FAULT_ANY_CALL), 15);

    fault_reset();
    assert_int_equal(fault_calls(FAULT_ANY_CALL) + fault_hits(), 0);
    assert_int_equal(do_sync(), SQLITE_OK);
}

/* Property: the sweep of fault.h meets every call of an operation and ends. */
static void sweep_meets_every_call(void **state)
{
    bool failed[THR_OS_CALL_COUNT] = {false};
    uint64_t n = 1;

    (void)state;
    for (;; n++) {
        int rcs[3];

        fault_reset();
        fault_fail(FAULT_ANY_CALL, n, EIO);
        rcs[0] = do_write();
        rcs[1] = do_sync();
        rcs[2] = do_read();
        if (fault_hits() == 0)
            break;
        for (uint64_t i = 0; i < 3; i++)
            assert_int_equal(rcs[i] != SQLITE_OK, i + 1 == n);
        failed[n == 1 ? THR_OS_WRITE : n == 2 ? THR_OS_SYNC : THR_OS_READ] = true;
    }
    assert_int_equal(n, 4);
    assert_true(failed[THR_OS_WRITE] && failed[THR_OS_SYNC] && failed[THR_OS_READ]);
}

/* Property: a rule with a path strikes calls on that file, by name or by descriptor, and no other. */
static void path_picks_the_file(void **state)
{
    int other, rule;

    (void)state;
    assert_int_equal(thr_os_open(in_dir("other"), THR_OPEN_WRITE | THR_OPEN_CREATE, 0600, &other, NULL), SQLITE_OK);
    rule = fault_add(&(struct fault_rule){.call = FAULT_ANY_CALL, .path = "/other", .err = EIO});
    assert_int_equal(do_write(), SQLITE_OK);
    assert_int_equal(do_alloc(), SQLITE_OK);
    assert_int_equal(do_stat(), SQLITE_OK);
    assert_int_equal(thr_os_write(other, "y", 1, 0), SQLITE_IOERR_WRITE);
    assert_int_equal(thr_os_lock(other, true, 0, 1), SQLITE_IOERR_LOCK);
    assert_int_equal(thr_os_unlink(in_dir("other")), SQLITE_IOERR_DELETE);
    assert_int_equal(fault_rule_hits(rule), 3);
    thr_os_close(other);
}

/* Property: count bounds a rule; a chance strikes about as often as it says, and the same calls for the same seed. */
static void count_and_chance(void **state)
{
    struct fault_rule rule = {.call = THR_OS_LOCK, .nth = 2, .count = 3, .err = EAGAIN};
    bool pattern[2][1000];
    int hits = 0;

    (void)state;
    fault_add(&rule);
    for (int i = 1; i <= 8; i++)
        assert_int_equal(do_lock(), i >= 2 && i < 5 ? SQLITE_BUSY : SQLITE_OK);
    rule = (struct fault_rule){.call = THR_OS_LOCK, .one_in = 4, .err = EAGAIN};
    for (int run = 0; run < 2; run++) {
        fault_reset();
        fault_seed(7);
        fault_thread_number(3);
        fault_add(&rule);
        for (int i = 0; i < 1000; i++)
            hits += pattern[run][i] = do_lock() == SQLITE_BUSY;
    }
    assert_memory_equal(pattern[0], pattern[1], sizeof pattern[0]);
    assert_in_range(hits, 2 * 150, 2 * 350);
    fault_reset();
    fault_seed(8);
    fault_add(&rule);
    for (int i = 0; i < 1000; i++)
        pattern[1][i] = do_lock() == SQLITE_BUSY;
    assert_memory_not_equal(pattern[0], pattern[1], sizeof pattern[0]);
}

/* Property: a torn write leaves the first half, by whole sectors, and nothing of the second; of a small one nothing. */
static void torn_write_leaves_half(void **state)
{
    char block[1500], got[1500];
    size_t bytes;

    (void)state;
    memset(block, 'n', sizeof block);
    fault_fail(THR_OS_WRITE, 1, -ENOSPC);
    assert_int_equal(thr_os_write(file, block, sizeof block, 0), SQLITE_FULL);
    assert_int_equal(thr_os_last_errno(), ENOSPC);
    assert_int_equal(fault_point_passages("torn-write"), 1);
    assert_int_equal(thr_os_read(file, got, sizeof got, 0, &bytes), SQLITE_OK);
    assert_memory_equal(got, block, 512);
    for (size_t i = 512; i < bytes; i++)
        assert_int_equal(got[i], 'x');
    fault_fail(THR_OS_SYNC, 1, -EIO); /* for other calls the sign means nothing */
    assert_int_equal(do_sync(), SQLITE_IOERR_FSYNC);
    assert_int_equal(thr_os_last_errno(), EIO);
}

static void *read_and_pass(void *arg)
{
    (void)arg;
    THR_POINT("there");
    return do_read() == SQLITE_OK ? NULL : &dir;
}

static void *join_choice_and_read(void *arg)
{
    fault_this_thread(*(bool *)arg);
    return read_and_pass(NULL);
}

static bool fails_in_thread(void *(*fn)(void *), void *arg)
{
    pthread_t thread;
    void *result;

    assert_int_equal(pthread_create(&thread, NULL, fn, arg), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    return result != NULL;
}

/* Property: only threads that take part fail, are counted and pass points. */
static void threads_choose_to_take_part(void **state)
{
    bool on = true, off = false;

    (void)state;
    fault_fail_from(THR_OS_READ, 1, EIO);
    assert_true(fails_in_thread(read_and_pass, NULL));
    assert_false(fails_in_thread(join_choice_and_read, &off));
    assert_int_equal(fault_calls(THR_OS_READ), 1);
    assert_int_equal(fault_point_passages("there"), 1);
    fault_other_threads(false);
    assert_false(fails_in_thread(read_and_pass, NULL));
    assert_int_equal(do_read(), SQLITE_OK); /* this thread has not chosen either */
    assert_true(fails_in_thread(join_choice_and_read, &on));
    fault_this_thread(true);
    assert_int_equal(do_read(), SQLITE_IOERR_READ);
    fault_this_thread(false);
    assert_int_equal(do_read(), SQLITE_OK);
    assert_int_equal(fault_calls(THR_OS_READ), 3);
    fault_reset(); /* forgets the choices */
    fault_fail_from(THR_OS_READ, 1, EIO);
    assert_int_equal(do_read(), SQLITE_IOERR_READ);
}

/* --- points --- */

static void note_point(void *ctx, const char *name, uint64_t passages)
{
    char *text = ctx;

    (void)snprintf(text + strlen(text), 100 - strlen(text), "%s=%llu ", name, (unsigned long long)passages);
}

static void count_call(void *ctx, const char *name)
{
    THR_POINT("inside");
    assert_string_equal(name, "second");
    assert_int_equal(do_sync(), SQLITE_OK);
    ++*(int *)ctx;
}

/* Property: passages are counted by name, in order, and callbacks come at their passage and only there. */
static void points_are_counted_and_called(void **state)
{
    int once = 0, each = 0, from_now = 0;
    char text[100] = "";

    (void)state;
    fault_fail_from(THR_OS_SYNC, 1, EIO);
    fault_call_at("second", 2, count_call, &once);
    fault_call_at("second", FAULT_FOREVER, count_call, &each);
    for (int i = 1; i <= 3; i++) {
        errno = EDOM;
        THR_POINT("first");
        THR_POINT("second");
        assert_int_equal(errno, EDOM);
        assert_int_equal(once, i >= 2);
        assert_int_equal(each, i);
    }
    THR_POINT("first");
    fault_call_at("second", 1, count_call, &from_now); /* counted from here on */
    THR_POINT("second");
    assert_int_equal(from_now, 1);
    assert_int_equal(each, 4);
    fault_each_point(note_point, text);
    assert_string_equal(text, "first=4 second=4 ");
    assert_int_equal(fault_point_passages(NULL), 8);
    assert_int_equal(fault_point_passages("third"), 0);
    assert_int_equal(fault_calls(THR_OS_SYNC), 0);
}

/* Wait for a child that writes its progress into a pipe before it dies; gives the last digit it wrote. */
static char child_ends(pid_t child, int read_end, int *signal_out)
{
    char last = '-', got;
    int status;

    while (read(read_end, &got, 1) == 1)
        last = got;
    assert_int_equal(waitpid(child, &status, 0), child);
    *signal_out = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return last;
}

/* Property: death comes at exactly the passage, the call or the torn write asked for, by SIGKILL, and nowhere else. */
static void death_comes_where_asked(void **state)
{
    char got[4];
    size_t bytes;

    (void)state;
    for (int how = 0; how < 4; how++) {
        int ends[2], end_signal;
        pid_t child;
        char last;

        assert_int_equal(pipe(ends), 0);
        if ((child = fork()) == 0) {
            (void)close(ends[0]);
            if (how == 1)
                fault_kill_at("step", 3);
            else if (how == 2)
                fault_add(&(struct fault_rule){.call = THR_OS_WRITE, .path = "/file", .nth = 4, .err = FAULT_KILL});
            else if (how == 3) {
                fault_fail(THR_OS_WRITE, 4, -EIO);
                fault_kill_at("torn-write", 1);
            }
            for (char step = '1'; step <= '5'; step++) {
                char text[4] = {step, step, step, step};

                THR_POINT("other");
                THR_POINT("step");
                if (thr_os_write(file, text, 4, 0) != SQLITE_OK || write(ends[1], &step, 1) != 1)
                    _exit(1);
            }
            _exit(0);
        }
        (void)close(ends[1]);
        last = child_ends(child, ends[0], &end_signal);
        (void)close(ends[0]);
        assert_int_equal(end_signal, how == 0 ? 0 : SIGKILL);
        assert_int_equal(last, "5233"[how]);
        assert_int_equal(thr_os_read(file, got, 4, 0, &bytes), SQLITE_OK);
        assert_memory_equal(got,
                            how == 0   ? "5555"
                            : how == 1 ? "2222"
                                       : "3333",
                            4); /* less than a sector is not torn */
    }
}

struct lost_update {
    _Atomic int value, started;
    uint32_t next_number;
    pthread_mutex_t mutex;
};

static void *increment_badly(void *arg)
{
    struct lost_update *counter = arg;
    int seen;

    (void)pthread_mutex_lock(&counter->mutex);
    fault_thread_number(counter->next_number++);
    (void)pthread_mutex_unlock(&counter->mutex);
    atomic_fetch_add(&counter->started, 1);
    while (atomic_load(&counter->started) < 2)
        thr_os_yield();
    for (int i = 0; i < 200; i++) {
        seen = atomic_load(&counter->value);
        THR_POINT("between_load_and_store");
        atomic_store(&counter->value, seen + 1);
    }
    return NULL;
}

/* Property: disturbing a point finds a lost update there. (Undisturbed, loops this short seldom meet.) */
static void disturbance_finds_a_lost_update(void **state)
{
    bool lost = false;

    (void)state;
    for (int attempt = 1; attempt <= 50 && !lost; attempt++) { /* on a busy machine the threads may not meet at all */
        struct lost_update counter = {.mutex = PTHREAD_MUTEX_INITIALIZER};
        pthread_t threads[2];

        fault_reset();
        fault_seed((uint64_t)attempt);
        fault_disturb("between_load_and_store", 2, 50000);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, increment_badly, &counter), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(fault_point_passages("between_load_and_store"), 400);
        lost = atomic_load(&counter.value) < 400;
    }
    assert_true(lost);
}

/* Property: a seed and a thread's number fix its numbers, and another of either changes them. */
static void chance_follows_seed_and_number(void **state)
{
    uint64_t numbers[3][8];

    (void)state;
    for (int i = 0; i < 3; i++) {
        fault_reset();
        fault_seed(i == 2 ? 6 : 5);
        fault_thread_number(1);
        for (int k = 0; k < 8; k++)
            numbers[i][k] = fault_random();
    }
    assert_memory_equal(numbers[0], numbers[1], sizeof numbers[0]);
    assert_memory_not_equal(numbers[0], numbers[2], sizeof numbers[0]);
    fault_seed(5);
    assert_int_equal(fault_random(), numbers[0][0]);
    fault_thread_number(2);
    assert_int_not_equal(fault_random(), numbers[0][0]);
}

/* Property: tables that are full refuse politely. */
static void full_tables_refuse(void **state)
{
    char name[32];

    (void)state;
    for (int i = 0; i < 64; i++)
        assert_int_equal(fault_fail(THR_OS_LIST, 1000, EIO), i);
    assert_int_equal(fault_fail(THR_OS_LIST, 1, EIO), -1);
    assert_int_equal(fault_kill_at("nowhere", 1), -1);
    assert_int_equal(do_list(), SQLITE_OK);
    for (int i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof name, "point%d", i);
        THR_POINT(name);
    }
    assert_int_equal(fault_point_passages(NULL), 256);
    assert_int_equal(fault_point_passages("point255"), 1);
    assert_int_equal(fault_point_passages("point256"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_failure_has_its_code),
        TEST(failed_realloc_keeps_the_old),
        TEST(allocate_by_writing_changes_no_byte),
        TEST(allocate_by_writing_finds_a_hole_beside_data),
        TEST(allocate_by_writing_reports_failures),
        TEST(nth_and_from_the_nth),
        TEST(sweep_meets_every_call),
        TEST(path_picks_the_file),
        TEST(count_and_chance),
        TEST(torn_write_leaves_half),
        TEST(threads_choose_to_take_part),
        TEST(points_are_counted_and_called),
        TEST(death_comes_where_asked),
        TEST(disturbance_finds_a_lost_update),
        TEST(chance_follows_seed_and_number),
        TEST(full_tables_refuse),
    };

    return cmocka_run_group_tests_name("os_fault", tests, NULL, NULL);
}
