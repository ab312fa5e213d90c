/* What the engine's tests have in common: a directory of their own, connections, threads, randomness, and the oracle,
 * which is stock SQLite.
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_ENGINE_SUPPORT_H
#define TEST_ENGINE_SUPPORT_H

#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* cmocka's assertions work in the main thread only; these work in every thread and in a forked child. A failure
 * prints the seed, ends the thread and makes threads_join() fail the test; in the main thread it fails the test at
 * once, in a child it is the exit status 1. */
#define CHECK(condition)                                        \
    do {                                                        \
        if (!(condition))                                       \
            check_failed(__FILE__, __LINE__, "%s", #condition); \
    } while (0)
#define CHECK_EQUAL(got, expected) check_equal((int64_t)(got), (int64_t)(expected), #got, __FILE__, __LINE__)
#define CHECK_OK(rc, db) check_ok((rc), (db), __FILE__, __LINE__)

_Noreturn void check_failed(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void check_equal(int64_t got, int64_t expected, const char *what, const char *file, int line);
void check_ok(int rc, sqlite3 *db, const char *file, int line);
void check_in_child(void); /* call it in a forked child */
bool check_any_failed(void);

/* --- setting up --- */

int support_setup(void **state);    /* group setup: the directory, the VFS, the seed */
int support_teardown(void **state); /* group teardown: removes the directory */

#define PATH_SIZE 512
const char *path_new(char path[PATH_SIZE], const char *name); /* a file in the directory that no test has used */

/* `count` in proportion to THRONG_TEST_SCALE (percent; unless set 100, under sanitizers 5), at least 1. */
int scaled(int count);

/* --- randomness, all of it from THRONG_SEED --- */

struct prng {
    uint64_t state;
};

struct prng prng_new(uint64_t stream); /* streams differ from each other; the same seed gives the same stream */
uint64_t prng_next(struct prng *prng);
int prng_below(struct prng *prng, int limit);
uint64_t hash_u64(uint64_t value);

/* --- connections and statements; what fails fails the test, unless the function returns the code --- */

#define BUSY_TIMEOUT_MS 10000

sqlite3 *db_open(const char *path);  /* throng, busy_timeout, synchronous off */
sqlite3 *db_stock(const char *path); /* SQLite's own VFS */
void db_close(sqlite3 *db);
int db_try(sqlite3 *db, const char *format, ...); /* sqlite3_mprintf() formats; returns the extended code */
void db_exec(sqlite3 *db, const char *format, ...);
int64_t db_int(sqlite3 *db, const char *format, ...);               /* first column of the first row */
int db_try_int(sqlite3 *db, int64_t *out, const char *format, ...); /* SQLITE_NOTFOUND if there is no row */
uint64_t db_hash(sqlite3 *db, const char *format, ...);             /* of all values of all rows, in order */
sqlite3_stmt *db_prepare(sqlite3 *db, const char *sql);
int stmt_run(sqlite3_stmt *stmt); /* steps to the end and resets; SQLITE_OK or the extended code */

/* Run `body` between `begin` and COMMIT until it is committed. `body` returns SQLITE_OK, or the code of the statement
 * that failed. SQLITE_BUSY_SNAPSHOT means run again; all else fails the test. Returns how often it was run again. */
typedef int transaction_body(sqlite3 *db, void *arg);
int db_transaction(sqlite3 *db, const char *begin, transaction_body *body, void *arg);

/* --- threads --- */

void thread_start(void (*function)(void *), void *arg);
void threads_join(void);          /* all that were started; fails the test if one of them failed */
void threads_join_but(int count); /* all but the first `count` that were started */
void sleep_ms(int milliseconds);
uint64_t now_ms(void);

/* --- the oracle --- */

/* No connection is open: the journal is gone, stock SQLite finds the file whole, and its size is what its header
 * says. */
void oracle_check(const char *path);

#endif
