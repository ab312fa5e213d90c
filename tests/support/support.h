/* What the tests have in common: a directory of their own, connections, threads, child processes, randomness, and the
 * oracle, which is stock SQLite.
 *
 * Environment:
 *   THRONG_SEED=n            the seed of all randomness; a failing test prints it
 *   THRONG_TEST_SCALE=n      percent of the usual number of rounds (100; 15 under sanitizers)
 *   THRONG_TEST_VFS=name     run on this VFS of stock SQLite instead, in WAL mode and with BEGIN IMMEDIATE for BEGIN: to
 *                            test the tests. What only Throng promises is skipped
 *   THRONG_TEST_KEEP=1       leave the directory behind
 *   THRONG_TEST_ABORT=1      abort at the first failure, for a core dump or a debugger
 *   TMPDIR                   where to work, /dev/shm if not set
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif
#ifndef UNDER_SANITIZER
#define UNDER_SANITIZER 0
#endif

/* cmocka's assertions work in the main thread only; these work in every thread and in a forked child. A failure
 * prints the seed, ends the thread and makes threads_join() fail the test; in the main thread it fails the test at
 * once, in a child it is the exit status 1. */
#define CHECK(condition)                                        \
    do {                                                        \
        if (!(condition))                                       \
            check_failed(__FILE__, __LINE__, "%s", #condition); \
    } while (0)
#define CHECK_EQUAL(got, expected) check_equal((int64_t)(got), (int64_t)(expected), #got, __FILE__, __LINE__)
#define CHECK_TEXT(got, expected) check_text((got), (expected), #got, __FILE__, __LINE__)
#define CHECK_OK(rc, db) check_ok((rc), (db), __FILE__, __LINE__)

_Noreturn void check_failed(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void check_equal(int64_t got, int64_t expected, const char *what, const char *file, int line);
void check_text(const char *got, const char *expected, const char *what, const char *file, int line);
void check_ok(int rc, sqlite3 *db, const char *file, int line);
bool check_any_failed(void); /* in a thread: another one has failed, and there is no point in going on */
void check_forget(void);     /* for tests of the checks */

/* --- setting up --- */

int support_setup(void **state);    /* group setup: the directory, the VFS, the seed */
int support_teardown(void **state); /* group teardown: removes the directory */
bool support_is_throng(void);
void support_needs_throng(void); /* skip the test on another VFS */
void support_needs_root(void);   /* skip the test without it */

#define PATH_SIZE 512
const char *path_new(char path[PATH_SIZE], const char *name); /* a file in the directory that no test has used */
const char *path_beside(char out[PATH_SIZE], const char *path, const char *suffix); /* path and suffix in one */
const char *path_directory(void);

/* The test is judged anew from here on: it hangs if it, with its children, stands still or uses the processor for very
 * long. path_new() and child_start() do so. For children by fork(), which no alarm is passed on to. */
void watchdog_begin(void);

/* `count` in proportion to the scale, at least 1. */
int scaled(int count);

/* --- randomness, all of it from THRONG_SEED --- */

struct prng {
    uint64_t state;
};

uint64_t prng_seed(void);
struct prng prng_new(uint64_t stream); /* streams differ from each other; the same seed gives the same stream */
uint64_t prng_next(struct prng *prng);
int prng_below(struct prng *prng, int limit); /* 0 <= result < limit */
bool prng_chance(struct prng *prng, int one_in);
uint64_t hash_u64(uint64_t value);
uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size);

/* --- connections and statements; what fails fails the test, unless the function returns the code --- */

#define BUSY_TIMEOUT_MS 60000

sqlite3 *db_open(const char *path);  /* throng, busy_timeout, some synchronous level */
sqlite3 *db_stock(const char *path); /* SQLite's own VFS */
/* As sqlite3_open_v2(), with extended result codes; *out is NULL unless SQLITE_OK comes back. */
int db_try_open(const char *path, int flags, const char *vfs, sqlite3 **out);
const char *db_vfs(void); /* "throng", or what THRONG_TEST_VFS says */
void db_close(sqlite3 *db);
int db_try(sqlite3 *db, const char *format, ...); /* sqlite3_mprintf() formats; returns the extended code */
void db_exec(sqlite3 *db, const char *format, ...);
void db_expect(sqlite3 *db, int expected, const char *sql);         /* it returns this code */
int64_t db_int(sqlite3 *db, const char *format, ...);               /* first column of the first row */
int db_try_int(sqlite3 *db, int64_t *out, const char *format, ...); /* SQLITE_NOTFOUND if there is no row */
char *db_text(sqlite3 *db, const char *format, ...);                /* all rows: columns by |, rows by \n. Free it */
void db_check_text(sqlite3 *db, const char *sql, const char *expected);
uint64_t db_hash(sqlite3 *db, const char *format, ...); /* of all values of all rows, in order */
int db_try_hash(sqlite3 *db, uint64_t *out, const char *format, ...);
uint64_t db_hash_all(sqlite3 *db); /* of schema and content, by logical order */
sqlite3_stmt *db_prepare(sqlite3 *db, const char *sql);
int stmt_run(sqlite3_stmt *stmt); /* steps to the end and resets; SQLITE_OK or the extended code */
void stmt_end(sqlite3_stmt *stmt);
int64_t db_stat(sqlite3 *db, const char *counter); /* of PRAGMA throng_stats; fails if there is none of that name */

/* Run `body` between `begin` and COMMIT until it is committed. `body` returns SQLITE_OK, or the code of the statement
 * that failed. SQLITE_BUSY_SNAPSHOT means run again; all else fails the test. Returns how often it was run again. */
typedef int transaction_body(sqlite3 *db, void *arg);
int db_transaction(sqlite3 *db, const char *begin, transaction_body *body, void *arg);

/* --- SQLite's error log --- */

void log_clear(void);
bool log_contains(const char *text);

/* --- threads --- */

void thread_start(void (*function)(void *), void *arg);
void threads_join(void);          /* all that were started; fails the test if one of them failed */
void threads_join_but(int count); /* all but the first `count` that were started */
void sleep_ms(int milliseconds);
uint64_t now_ms(void);

/* A barrier that a thread that failed does not leave closed: the others fail there as well. */
struct meeting {
    _Atomic int arrived;
    int count;
};
void meeting_init(struct meeting *meeting, int count);
void meeting_wait(struct meeting *meeting);

/* --- child processes; start them while the parent has one thread --- */

pid_t child_start(void (*function)(void *), void *arg); /* the child exits with 0 when the function returns */
void child_join(pid_t pid);                             /* it must exit with 0 */
void child_run(void (*function)(void *), void *arg);    /* both */
int child_status(pid_t pid);                            /* waits; as wait() has it */
void child_kill(pid_t pid);                             /* SIGKILL, and wait */

/* --- files --- */

bool file_exists(const char *path); /* also a link that leads nowhere */
int64_t file_size(const char *path);
void file_copy(const char *from, const char *to); /* if there is such a file */
void file_write(const char *path, const void *bytes, size_t size);
void file_patch(const char *path, int64_t offset, const void *bytes, size_t size);
void file_read(const char *path, int64_t offset, void *bytes, size_t size);

/* --- the oracle --- */

/* No connection is open: the journal is gone, stock SQLite finds the file whole, no page is lost, the free list is in
 * order, no foreign key is violated, and the file's size is what its header says. */
void oracle_check(const char *path);
uint64_t oracle_hash(const char *path); /* db_hash_all() through stock SQLite */

#endif
