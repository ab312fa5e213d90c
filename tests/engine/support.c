/* SPDX-License-Identifier: MIT */
#include "support.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "throng.h"

#define MAX_THREADS 64
#define MAX_RERUNS 100000
#define MS INT64_C(1000000)

#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
#define SCALE_DEFAULT 5
#elif defined __has_feature
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SCALE_DEFAULT 5
#endif
#endif
#ifndef SCALE_DEFAULT
#define SCALE_DEFAULT 100
#endif

struct thread {
    pthread_t handle;
    void (*function)(void *);
    void *arg;
};

static char directory[PATH_SIZE / 2];
static uint64_t seed;
static pthread_t main_thread;
static bool in_child;
static atomic_bool any_failed;
static struct thread threads[MAX_THREADS];
static int thread_count;
static int path_count;

/* --- checks --- */

_Noreturn void check_failed(const char *file, int line, const char *format, ...)
{
    char message[1024];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "%s:%d: %s\n  replay with THRONG_SEED=%llu\n", file, line, message, (unsigned long long)seed);
    atomic_store_explicit(&any_failed, true, memory_order_release); /* pairs with check_any_failed() */
    if (getenv("THRONG_TEST_ABORT") != NULL)
        abort();
    if (in_child)
        _exit(1);
    if (!pthread_equal(pthread_self(), main_thread))
        pthread_exit(NULL);
    threads_join(); /* they stop at check_any_failed(); it fails the test */
    abort();        /* not reached: cmocka's fail() jumps */
}

void check_equal(int64_t got, int64_t expected, const char *what, const char *file, int line)
{
    if (got != expected)
        check_failed(file, line, "%s is %lld, not %lld", what, (long long)got, (long long)expected);
}

void check_ok(int rc, sqlite3 *db, const char *file, int line)
{
    if (rc != SQLITE_OK)
        check_failed(file, line, "code %d: %s", rc, db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
}

void check_in_child(void)
{
    in_child = true;
    main_thread = pthread_self();
}

bool check_any_failed(void)
{
    return atomic_load_explicit(&any_failed, memory_order_acquire); /* pairs with check_failed() */
}

/* --- setting up --- */

int support_setup(void **state)
{
    const char *base = getenv("TMPDIR");
    const char *text = getenv("THRONG_SEED");

    (void)state;
    main_thread = pthread_self();
    if (text != NULL)
        seed = strtoull(text, NULL, 10);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return -1;
    if (base == NULL)
        base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(directory, sizeof directory, "%s/throng-test-XXXXXX", base);
    if (mkdtemp(directory) == NULL)
        return -1;
    return throng_register(0) == SQLITE_OK ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

int support_teardown(void **state)
{
    (void)state;
    if (getenv("THRONG_TEST_KEEP") != NULL) {
        print_message("kept: %s\n", directory);
        return 0;
    }
    return nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *path_new(char path[PATH_SIZE], const char *name)
{
    (void)snprintf(path, PATH_SIZE, "%s/%s-%d.db", directory, name, path_count++);
    return path;
}

int scaled(int count)
{
    const char *text = getenv("THRONG_TEST_SCALE");
    int64_t percent = text != NULL ? strtoll(text, NULL, 10) : SCALE_DEFAULT;
    int64_t result = count * percent / 100;

    return result < 1 ? 1 : (int)result;
}

/* --- randomness --- */

/* The mixing step of splitmix64. */
uint64_t hash_u64(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

struct prng prng_new(uint64_t stream)
{
    return (struct prng){hash_u64(seed ^ hash_u64(stream + 1))};
}

uint64_t prng_next(struct prng *prng)
{
    prng->state += UINT64_C(0x9e3779b97f4a7c15);
    return hash_u64(prng->state);
}

int prng_below(struct prng *prng, int limit)
{
    return (int)(prng_next(prng) % (uint64_t)limit);
}

/* --- connections --- */

static sqlite3 *open_with(const char *path, const char *vfs)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, vfs);

    CHECK_OK(rc, db);
    CHECK_OK(sqlite3_extended_result_codes(db, 1), db);
    CHECK_OK(sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS), db);
    return db;
}

sqlite3 *db_open(const char *path)
{
    sqlite3 *db = open_with(path, "throng");

    db_exec(db, "PRAGMA synchronous=off");
    return db;
}

sqlite3 *db_stock(const char *path)
{
    return open_with(path, "unix");
}

void db_close(sqlite3 *db)
{
    CHECK_OK(sqlite3_close(db), db);
}

static char *format_sql(const char *format, va_list arguments)
{
    char *sql = sqlite3_vmprintf(format, arguments);

    CHECK(sql != NULL);
    return sql;
}

/* `sql` becomes the caller's to free. */
#define FORMAT_SQL(sql, format)                 \
    do {                                        \
        va_list arguments_;                     \
        va_start(arguments_, format);           \
        (sql) = format_sql(format, arguments_); \
        va_end(arguments_);                     \
    } while (0)

int db_try(sqlite3 *db, const char *format, ...)
{
    char *sql;
    int rc;

    FORMAT_SQL(sql, format);
    rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    return rc;
}

void db_exec(sqlite3 *db, const char *format, ...)
{
    char *sql;
    int rc;

    FORMAT_SQL(sql, format);
    rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        check_failed(__FILE__, __LINE__, "%.200s: code %d: %s", sql, rc, sqlite3_errmsg(db));
    sqlite3_free(sql);
}

static int first_int(sqlite3 *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    *out = 0;
    if (rc != SQLITE_OK)
        return rc;
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        *out = sqlite3_column_int64(stmt, 0);
        return sqlite3_finalize(stmt);
    }
    (void)sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? SQLITE_NOTFOUND : rc;
}

int db_try_int(sqlite3 *db, int64_t *out, const char *format, ...)
{
    char *sql;
    int rc;

    FORMAT_SQL(sql, format);
    rc = first_int(db, sql, out);
    sqlite3_free(sql);
    return rc;
}

int64_t db_int(sqlite3 *db, const char *format, ...)
{
    int64_t value;
    char *sql;
    int rc;

    FORMAT_SQL(sql, format);
    rc = first_int(db, sql, &value);
    if (rc != SQLITE_OK)
        check_failed(__FILE__, __LINE__, "%.200s: code %d: %s", sql, rc, sqlite3_errmsg(db));
    sqlite3_free(sql);
    return value;
}

uint64_t db_hash(sqlite3 *db, const char *format, ...)
{
    uint64_t hash = 0;
    sqlite3_stmt *stmt;
    char *sql;
    int rc;

    FORMAT_SQL(sql, format);
    stmt = db_prepare(db, sql);
    sqlite3_free(sql);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        for (int column = 0; column < sqlite3_column_count(stmt); column++) {
            const unsigned char *bytes = sqlite3_column_blob(stmt, column);
            int size = sqlite3_column_bytes(stmt, column);

            hash = hash_u64(hash + (uint64_t)size + 1);
            for (int i = 0; i < size; i++)
                hash = hash * UINT64_C(0x100000001b3) + bytes[i] + 1;
        }
        hash = hash_u64(hash ^ UINT64_C(0x5bd1e995));
    }
    CHECK_OK(rc == SQLITE_DONE ? SQLITE_OK : rc, db);
    CHECK_OK(sqlite3_finalize(stmt), db);
    return hash;
}

sqlite3_stmt *db_prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    if (rc != SQLITE_OK)
        check_failed(__FILE__, __LINE__, "%.200s: code %d: %s", sql, rc, sqlite3_errmsg(db));
    return stmt;
}

int stmt_run(sqlite3_stmt *stmt)
{
    int rc;

    do {
        rc = sqlite3_step(stmt);
    } while (rc == SQLITE_ROW);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int db_transaction(sqlite3 *db, const char *begin, transaction_body *body, void *arg)
{
    for (int rerun = 0; rerun < MAX_RERUNS; rerun++) {
        const char *place = begin;
        int rc = db_try(db, "%s", begin);

        if (rc == SQLITE_OK) {
            place = "a statement";
            rc = body(db, arg);
        }
        if (rc == SQLITE_OK) {
            place = "COMMIT";
            rc = db_try(db, "COMMIT");
        }
        if (rc == SQLITE_OK)
            return rerun;
        if (rc != SQLITE_BUSY_SNAPSHOT)
            check_failed(__FILE__, __LINE__, "%s in %s: code %d: %s", place, begin, rc, sqlite3_errmsg(db));
        if (!sqlite3_get_autocommit(db))
            db_exec(db, "ROLLBACK");
    }
    check_failed(__FILE__, __LINE__, "%s: not committed in %d runs", begin, MAX_RERUNS);
}

/* --- threads --- */

static void *thread_main(void *arg)
{
    struct thread *thread = arg;

    thread->function(thread->arg);
    return NULL;
}

void thread_start(void (*function)(void *), void *arg)
{
    struct thread *thread = &threads[thread_count];

    CHECK(thread_count < MAX_THREADS);
    thread->function = function;
    thread->arg = arg;
    CHECK_EQUAL(pthread_create(&thread->handle, NULL, thread_main, thread), 0);
    thread_count++;
}

void threads_join_but(int count)
{
    while (thread_count > count)
        (void)pthread_join(threads[--thread_count].handle, NULL);
}

void threads_join(void)
{
    threads_join_but(0);
    if (atomic_exchange_explicit(&any_failed, false, memory_order_acq_rel)) {
        if (in_child)
            _exit(1);
        fail();
    }
}

void sleep_ms(int milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * MS};

    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

uint64_t now_ms(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)(time.tv_nsec / MS);
}

/* --- the oracle --- */

void oracle_check(const char *path)
{
    char journal[PATH_SIZE + 16];
    struct stat status;
    sqlite3_stmt *stmt;
    const char *answer;
    sqlite3 *db;

    (void)snprintf(journal, sizeof journal, "%s-journal", path);
    if (lstat(journal, &status) == 0 || errno != ENOENT)
        check_failed(__FILE__, __LINE__, "%s is still there", journal);
    db = db_stock(path);
    stmt = db_prepare(db, "PRAGMA integrity_check");
    CHECK_EQUAL(sqlite3_step(stmt), SQLITE_ROW);
    answer = (const char *)sqlite3_column_text(stmt, 0);
    if (strcmp(answer, "ok") != 0)
        check_failed(__FILE__, __LINE__, "integrity_check of %s: %.800s", path, answer);
    CHECK_OK(sqlite3_finalize(stmt), db);
    CHECK_EQUAL(stat(path, &status), 0);
    CHECK_EQUAL(status.st_size, db_int(db, "PRAGMA page_count") * db_int(db, "PRAGMA page_size"));
    db_close(db);
}
