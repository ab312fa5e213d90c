/* Every system call of the engine. errno stops here: functions return SQLite result codes.
 *
 * This is the folder that fault injection replaces: with THR_FAULTS defined, each function first asks
 * thr_fault_check() (tests) whether to fail. Nothing else in the engine may call the operating system.
 *
 * All functions are thread-safe. Those that may block say so.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_OS_H
#define THR_OS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a call does, for fault injection and for messages. */
enum thr_os_call {
    THR_OS_OPEN,
    THR_OS_STAT,
    THR_OS_READ,
    THR_OS_WRITE,
    THR_OS_TRUNCATE,
    THR_OS_ALLOCATE, /* disk space */
    THR_OS_SYNC,
    THR_OS_MAP,
    THR_OS_UNLINK,
    THR_OS_MKDIR,
    THR_OS_RMDIR,
    THR_OS_RENAME,
    THR_OS_LIST,
    THR_OS_LOCK,
    THR_OS_MEMORY, /* thr_os_alloc and thr_os_realloc */
    THR_OS_CALL_COUNT
};

/* --- messages: goes to sqlite3_log once the VFS has set it --- */
typedef void (*thr_log_fn)(int code, const char *message);
void thr_os_set_log(thr_log_fn fn);
void thr_log(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- memory --- */
void *thr_os_alloc(size_t bytes);              /* zeroed; NULL when there is none */
void *thr_os_realloc(void *old, size_t bytes); /* grows or shrinks; new bytes undefined; NULL leaves `old` */
void thr_os_free(void *p);                     /* NULL is allowed */

/* --- files: a descriptor is an int, -1 is none --- */
#define THR_OPEN_READ 0
#define THR_OPEN_WRITE 1  /* read and write */
#define THR_OPEN_CREATE 2 /* create if missing: with exactly `mode` if that is not 0, else 0644 less umask */
#define THR_OPEN_EXCL 4   /* with THR_OPEN_CREATE: fail with EEXIST if it is there */
/* A file of a database's directory. No link is followed, neither as the directory nor as the file. A new file gets the
 * directory's owner and group, and no more of `mode` than the directory has. One that is there must be a regular file with
 * one name only, and belong to the directory's owner, to us or to root: else EPERM. */
#define THR_OPEN_INSIDE 8

struct thr_stat {
    uint64_t dev, ino;
    int64_t bytes;
    uint32_t mode, uid, gid;
    uint32_t links; /* names that it has */
    bool is_dir, is_regular, is_link;
};

/* Codes: SQLITE_OK, SQLITE_CANTOPEN, SQLITE_NOMEM; the errno, or 0, in *err_out if not NULL. O_CLOEXEC always. A
 * descriptor below 3 is never returned: a program that closed stderr must not write into a database. A file that
 * exists keeps its permissions. */
int thr_os_open(const char *path, int flags, uint32_t mode, int *fd_out, int *err_out);
/* With THR_OPEN_INSIDE, of `name` in the directory that a descriptor stands for, whatever has become of the directory's own
 * name; so are the other functions ..._at() below. SQLITE_OK, SQLITE_CANTOPEN, SQLITE_NOMEM. */
int thr_os_open_at(int directory, const char *name, int flags, uint32_t mode, int *fd_out);
void thr_os_close(int fd);
/* Follows links. SQLITE_OK, SQLITE_NOTFOUND if there is none, SQLITE_NOMEM, SQLITE_IOERR_FSTAT: then *out is zeros. */
int thr_os_stat(const char *path, struct thr_stat *out);
int thr_os_fstat(int fd, struct thr_stat *out);
int thr_os_lstat(const char *path, struct thr_stat *out); /* looks at a link itself */
/* May this process believe what the owner `uid` wrote about a thing of `owner`'s? It may if that is the same user, the one
 * it runs as, or root. */
bool thr_os_may_trust(uint32_t uid, uint32_t owner);
/* A number that another file, also a copy of this one, does not have: from the inode and the time when it was made, where
 * the file system knows that. The device is not part of it: its number may change when the machine starts. 0: unknown. */
uint64_t thr_os_file_number(int fd);
/* Whether the file has no name any more. False if that cannot be told. */
bool thr_os_is_nameless(int fd);
/* Reads exactly `bytes` unless the file ends: *got_out bytes arrived. SQLITE_OK, SQLITE_IOERR_READ. */
int thr_os_read(int fd, void *to, size_t bytes, int64_t offset, size_t *got_out);
/* Writes everything. SQLITE_OK, SQLITE_FULL (ENOSPC, EDQUOT, EFBIG), SQLITE_IOERR_WRITE. */
int thr_os_write(int fd, const void *from, size_t bytes, int64_t offset);
int thr_os_truncate(int fd, int64_t bytes); /* SQLITE_OK, SQLITE_FULL, SQLITE_IOERR_TRUNCATE */
/* Make the file at least `offset + bytes` long with the space of that range reserved, holes included, so that storing
 * through a mapping cannot meet a full disk. No byte of the file changes. Where the file system cannot reserve, falls
 * back to writing zeros past the end and over blocks that read as zeros; then, and only then, nobody else may store
 * in the range or allocate it meanwhile. On failure the file may have grown. May take long for large ranges. */
int thr_os_allocate(int fd, int64_t offset, int64_t bytes); /* SQLITE_OK, SQLITE_FULL, SQLITE_IOERR_WRITE */
/* Give the disk space of a range inside the file back: it reads as zeros, and must be allocated before it is stored to
 * through a mapping. SQLITE_OK, SQLITE_IOERR_WRITE (also where the file system cannot). */
int thr_os_punch(int fd, int64_t offset, int64_t bytes);
int thr_os_sync(int fd); /* fdatasync; blocks; SQLITE_OK, SQLITE_IOERR_FSYNC */
/* Begin to write what is dirty in that range (0 bytes: to the end), without waiting for it: a later thr_os_sync() has less
 * to do. A hint. */
void thr_os_write_back(int fd, int64_t offset, int64_t bytes);
/* A descriptor of a directory, for thr_os_sync_dir(); -1 where it cannot be read for want of permission. SQLITE_OK,
 * SQLITE_CANTOPEN. */
int thr_os_open_dir(const char *directory, int *fd_out);
/* Blocks. SQLITE_OK (also for -1, and where directories cannot be synced), SQLITE_IOERR_DIR_FSYNC. */
int thr_os_sync_dir(int fd);

/* Map `bytes` of the file shared, from offset 0; `bytes` may go far past the end of the file (touch only what is
 * allocated). *at_out owns the mapping. SQLITE_OK, SQLITE_NOMEM, SQLITE_IOERR_MMAP. */
int thr_os_map(int fd, size_t bytes, bool writable, void **at_out);
/* The same for a mapping that is to have room to grow: where address space is limited (ulimit -v), only about
 * 1/`divisor` of what there is, but at least `least` bytes. *bytes is what was wanted, and then what is mapped. */
int thr_os_map_some(int fd, size_t *bytes, size_t least, unsigned divisor, bool writable, void **at_out);
/* The same from an offset (page-aligned), optionally touching every page now so that no fault comes later. Populating
 * is a hint (for stores it needs Linux 5.14), and makes a writable mapping's pages dirty. */
int thr_os_map_at(int fd, int64_t offset, size_t bytes, bool writable, bool populate, void **at_out);
/* Touch those pages (page-aligned) of a writable mapping: the same hint. */
void thr_os_populate(void *at, size_t bytes);
void thr_os_unmap(void *at, size_t bytes);
/* Children that are forked off from now on do not get that mapping, and so do not keep its file, with the locks on it. */
void thr_os_map_hide(void *at, size_t bytes);
/* Put zeros that can be read in the place of a mapping, which lets go of its file. For a child after fork(): safe
 * there, and says nothing. */
void thr_os_map_zeros(void *at, size_t bytes);
int thr_os_map_anonymous(size_t bytes, void **at_out); /* zeroed, private, reserved lazily; codes as thr_os_map */

int thr_os_unlink(
    const char *path); /* not in a directory that is a link. OK also if there is none; SQLITE_IOERR_DELETE */
int thr_os_unlink_at(int directory, const char *name);
/* With exactly `mode`, whatever the umask (and the parent's set-group-id bit), and with the owner and the group of `like`
 * if that is not NULL. Where it cannot have that group, the group and the others get what both may have of `mode`; where it
 * cannot have that owner, it keeps the right to write. SQLITE_OK, SQLITE_CONSTRAINT if the name exists, SQLITE_READONLY
 * (EACCES, EROFS, EPERM), SQLITE_FULL, SQLITE_CANTOPEN. */
int thr_os_mkdir(const char *path, uint32_t mode, const struct thr_stat *like);
int thr_os_rmdir(const char *path);                  /* SQLITE_OK also if there is none; SQLITE_IOERR_DELETE */
int thr_os_rename(const char *from, const char *to); /* SQLITE_OK, SQLITE_IOERR */
int thr_os_rename_at(int directory, const char *from, const char *to);
/* Calls `fn` for each name in the directory but . and .. ; stops when it returns non-zero and returns that. Else
 * SQLITE_OK, SQLITE_NOTFOUND, SQLITE_CANTOPEN, SQLITE_NOMEM, SQLITE_IOERR_READ. */
int thr_os_list(const char *directory, int (*fn)(void *ctx, const char *name), void *ctx);
int thr_os_list_at(int directory, int (*fn)(void *ctx, const char *name), void *ctx);
/* Path of `name` in `directory`; the caller frees it with thr_os_free(). NULL: no memory. */
char *thr_os_join(const char *directory, const char *name);
/* Canonical path, as realpath() gives it. `out` has `out_bytes`. SQLITE_OK, SQLITE_NOTFOUND, SQLITE_NOMEM,
 * SQLITE_CANTOPEN (also if `out` is too small). On failure `out` is "". */
int thr_os_realpath(const char *path, char *out, size_t out_bytes);

/* The name of a file system, by its number in statfs(2), on which other machines, or a host, may change files behind a
 * mapping's back; NULL for one that belongs to this machine, or is not known. */
const char *thr_os_shared_filesystem(unsigned long type);
/* The same of the file system that `fd` is on. Also NULL if it cannot be told. */
const char *thr_os_filesystem_is_shared(int fd);

/* --- open-file-description locks: never lost by closing another descriptor of the file. Do not block. ---
 * They belong to the open file that `fd` stands for: two thr_os_open() of one file conflict, also in one process. An
 * exclusive lock needs a descriptor open for writing, and taking a lock again converts it. `bytes` 0: to the end. */
int thr_os_lock(int fd, bool exclusive, int64_t offset, int64_t bytes); /* SQLITE_OK, SQLITE_BUSY, SQLITE_IOERR_LOCK */
void thr_os_unlock(int fd, int64_t offset, int64_t bytes);
/* A process that has a lock there: 0 if none has, THR_LOCK_HOLDER_UNKNOWN if it is an open-file-description lock of another
 * open file, or a process elsewhere. What `fd` itself has locked does not count; POSIX locks of this process do. SQLITE_OK,
 * SQLITE_IOERR_LOCK (unknown, too). */
#define THR_LOCK_HOLDER_UNKNOWN UINT32_MAX
int thr_os_lock_holder(int fd, int64_t offset, int64_t bytes, uint32_t *pid_out);

/* --- threads, time, chance --- */
struct thr_thread {
    pthread_t id;
};

/* A thread that no signal is delivered to. SQLITE_OK, SQLITE_NOMEM. */
int thr_os_thread_start(struct thr_thread *thread, void *(*fn)(void *), void *arg);
void thr_os_thread_join(struct thr_thread *thread); /* blocks */
/* Sleep while *word == expected, at most `timeout_ns` (UINT64_MAX: no limit). Returns false on timeout. May wake for
 * nothing. Works across processes when the word is in a shared mapping. */
bool thr_os_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void thr_os_futex_wake(_Atomic uint32_t *word, int count);
/* The same for waiters of several kinds on one word: `kinds` is a set of bits, not 0, and a waiter is woken by those that have
 * one of its own. thr_os_futex_wake() wakes any kind. */
bool thr_os_futex_wait_as(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns, uint32_t kinds);
void thr_os_futex_wake_of(_Atomic uint32_t *word, int count, uint32_t kinds);
uint64_t thr_os_now_ns(void); /* monotonic */
/* The same clock as of its last tick, some milliseconds ago: a fraction of the cost. */
uint64_t thr_os_coarse_ns(void);
void thr_os_pause(void); /* a spin loop's breath */
void thr_os_yield(void);
void thr_os_sleep_ns(uint64_t ns);
uint32_t thr_os_pid(void);
void thr_os_random(void *to, size_t bytes); /* cannot fail; may block only before the kernel has booted up */
int thr_os_last_errno(void);                /* of this thread's last failed call here, for messages */
const char *thr_os_error_text(int err, char *buffer, size_t bytes);

#ifdef THR_FAULTS
/* Defined by the test that links a faulty build; NULL: nothing fails. Returns 0, or the errno with which the call must
 * fail. For THR_OS_MEMORY any non-zero value means NULL. For THR_OS_WRITE -E means a torn write: the first half of the
 * bytes reaches the file, then E. For THR_OS_ALLOCATE it is what fallocate() says: EOPNOTSUPP takes the fallback, whose
 * own reads and writes are asked about too. The path of a descriptor is the file's present name, as in /proc/self/fd.
 * It is called on the thread that makes the call and must not call this layer; it may change errno. */
extern int (*thr_fault_check)(enum thr_os_call call, const char *path_or_null);
#endif

#endif
