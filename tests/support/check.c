/* Checks, the seed, the directory and the watchdog.
 *
 * SPDX-License-Identifier: MIT */
#include "internal.h"
#include "place.h"
#include "support.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "throng.h"

static char directory[PATH_SIZE / 2];
static uint64_t seed;
static char replay[128];
static pthread_t main_thread;
static bool in_child;
static atomic_bool any_failed;
static int path_count;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[65536];
static size_t log_used;

/* --- checks --- */

/* What SQLite has said last. */
static void print_log(void)
{
    (void)pthread_mutex_lock(&log_lock);
    if (log_used > 0)
        (void)fprintf(stderr, "  SQLite's log ends with:\n%s", log_used > 600 ? log_text + log_used - 600 : log_text);
    (void)pthread_mutex_unlock(&log_lock);
}

_Noreturn void check_leave(void)
{
    if (in_child)
        _exit(1);
    if (!pthread_equal(pthread_self(), main_thread))
        pthread_exit(NULL);
    fail();
    abort(); /* not reached: fail() jumps */
}

_Noreturn void check_failed(const char *file, int line, const char *format, ...)
{
    char message[2048];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "%s:%d: %s\n%s", file, line, message, replay);
    print_log();
    atomic_store_explicit(&any_failed, true, memory_order_release); /* pairs with check_any_failed() */
    if (getenv("THRONG_TEST_ABORT") != NULL)
        abort();
    check_leave();
}

void check_equal(int64_t got, int64_t expected, const char *what, const char *file, int line)
{
    if (got != expected)
        check_failed(file, line, "%s is %lld, not %lld", what, (long long)got, (long long)expected);
}

void check_text(const char *got, const char *expected, const char *what, const char *file, int line)
{
    if (got == NULL || strcmp(got, expected) != 0)
        check_failed(file, line, "%s is \"%.600s\", not \"%.600s\"", what, got != NULL ? got : "(null)", expected);
}

void check_ok(int rc, sqlite3 *db, const char *file, int line)
{
    if (rc != SQLITE_OK)
        check_failed(file, line, "code %d: %s", rc, db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
}

bool check_any_failed(void)
{
    return atomic_load_explicit(&any_failed, memory_order_acquire); /* pairs with check_failed() */
}

void check_forget(void)
{
    atomic_store_explicit(&any_failed, false, memory_order_release);
}

void check_in_child(void)
{
    in_child = true;
    main_thread = pthread_self();
    atomic_store_explicit(&any_failed, false, memory_order_release);
    watchdog_begin();
}

/* --- SQLite's error log --- */

static void to_log(void *context, int code, const char *message)
{
    size_t size = strlen(message);

    (void)context;
    (void)code;
    (void)pthread_mutex_lock(&log_lock);
    if (log_used + size + 2 >= sizeof log_text && size < sizeof log_text / 2) { /* forget the older half */
        memmove(log_text, log_text + log_used / 2, log_used - log_used / 2);
        log_used -= log_used / 2;
    }
    if (log_used + size + 2 < sizeof log_text) {
        memcpy(log_text + log_used, message, size);
        log_used += size;
        log_text[log_used++] = '\n';
        log_text[log_used] = '\0';
    }
    (void)pthread_mutex_unlock(&log_lock);
}

void log_clear(void)
{
    (void)pthread_mutex_lock(&log_lock);
    log_used = 0;
    log_text[0] = '\0';
    (void)pthread_mutex_unlock(&log_lock);
}

bool log_contains(const char *text)
{
    bool found;

    (void)pthread_mutex_lock(&log_lock);
    found = strstr(log_text, text) != NULL;
    (void)pthread_mutex_unlock(&log_lock);
    return found;
}

/* --- setting up --- */

/* A test hangs if it and its children used next to no processor time for two minutes, or all in all more than this: neither
 * comes about by other programs on the machine, however long a test takes beside them. */
struct watchdog_limits watchdog_limits = {
    .look_s = 10,
    .still_looks = 12,
    .still_ms = 500,
    .busy_ms = UNDER_SANITIZER ? 1600000 : 400000,
};

static struct {
    uint64_t began_ms; /* processor time of the test at hand */
    uint64_t seen_ms;  /* at its last sign of life */
    int looks_since;
} life;

static void bark(void)
{
    static const char text[] = "the test hangs\n";

    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, replay, strlen(replay));
    if (getenv("THRONG_TEST_ABORT") != NULL)
        abort();
    _exit(1);
}

static void watchdog(int signal_number)
{
    uint64_t now_ms = children_cpu_ms();
    int error = errno;

    (void)signal_number;
    if (now_ms > life.began_ms + watchdog_limits.busy_ms)
        bark();
    if (now_ms > life.seen_ms + watchdog_limits.still_ms || now_ms < life.seen_ms) {
        life.seen_ms = now_ms;
        life.looks_since = 0;
    } else if (++life.looks_since >= watchdog_limits.still_looks) {
        bark();
    }
    (void)alarm(watchdog_limits.look_s);
    errno = error;
}

void watchdog_begin(void)
{
    life.began_ms = life.seen_ms = children_cpu_ms();
    life.looks_since = 0;
    (void)signal(SIGALRM, watchdog);
    (void)alarm(watchdog_limits.look_s);
}

static void choose_seed(void)
{
    const char *text = getenv("THRONG_SEED");

    if (text != NULL && *text != '\0')
        seed = strtoull(text, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed)
        seed >>= 40; /* short enough to type again */
    (void)snprintf(replay, sizeof replay, "  replay: THRONG_SEED=%llu %.80s\n", (unsigned long long)seed,
                   program_invocation_short_name);
}

int support_setup(void **state)
{
    (void)state;
    main_thread = pthread_self();
    choose_seed();
    (void)snprintf(directory, sizeof directory, "%s/throng-test-XXXXXX", place());
    if (mkdtemp(directory) == NULL)
        return -1;
    watchdog_begin();
    (void)sqlite3_config(SQLITE_CONFIG_LOG, to_log, NULL);
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
    (void)alarm(0);
    if (getenv("THRONG_TEST_KEEP") != NULL) {
        print_message("kept: %s\n", directory);
        return 0;
    }
    return nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

bool support_is_throng(void)
{
    return strcmp(db_vfs(), "throng") == 0;
}

void support_needs_throng(void)
{
    if (!support_is_throng())
        skip();
}

void support_needs_root(void)
{
    if (geteuid() != 0)
        skip();
}

const char *path_new(char path[PATH_SIZE], const char *name)
{
    check_forget(); /* the test before has been judged */
    (void)snprintf(path, PATH_SIZE, "%s/%s-%d.db", directory, name, path_count++);
    watchdog_begin();
    return path;
}

const char *path_beside(char out[PATH_SIZE], const char *path, const char *suffix)
{
    CHECK(snprintf(out, PATH_SIZE, "%s%s", path, suffix) < PATH_SIZE);
    return out;
}

const char *path_directory(void)
{
    return directory;
}

int scaled(int count)
{
    const char *text = getenv("THRONG_TEST_SCALE");
    int64_t percent = text != NULL ? strtoll(text, NULL, 10) : UNDER_SANITIZER ? 15 : 100;
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

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;

    hash = hash_u64(hash + size + 1);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash_u64(hash);
}

uint64_t prng_seed(void)
{
    return seed;
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

bool prng_chance(struct prng *prng, int one_in)
{
    return prng_below(prng, one_in) == 0;
}
