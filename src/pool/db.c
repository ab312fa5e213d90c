/* The pool as a whole: opening, closing, statistics.
 *
 * SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#include "../os/os.h"
#include "fast.h"

enum {
    DEFAULT_OPEN = 64,
    DEFAULT_CACHED = 64,
    DEFAULT_STATEMENTS = 65536,
    MOST_OPEN = 65536,
    MOST_STATEMENTS = 1 << 24
};

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static int options_check(const struct throng_db_options *options, throng_error *err)
{
    const struct {
        const char *name;
        uint64_t value, most;
    } limits[] = {{"max_open", options->max_open, MOST_OPEN},
                  {"cached_statements", options->cached_statements, MOST_OPEN},
                  {"max_statements", options->max_statements, MOST_STATEMENTS},
                  {"reserved", options->reserved, 0}};

    if (options->size < sizeof *options)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "throng_db_options.size is %zu, it must be %zu",
                             options->size, sizeof *options);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (limits[i].value > limits[i].most)
            return thr_error_set(err, THRONG_MISUSE, 0, NULL,
                                 "throng_db_options.%s is %" PRIu64 ", it must be at most %" PRIu64, limits[i].name,
                                 limits[i].value, limits[i].most);
    }
    return THRONG_OK;
}

/* The limits that would close the only connection of a private database, and with it the database. */
static int private_check(const struct throng_db_options *options, throng_error *err)
{
    const char *name = options->max_open > 1           ? "max_open must be 1"
                       : options->max_lifetime_ns != 0 ? "max_lifetime_ns must be 0"
                                                       : "max_idle_time_ns must be 0";

    if (options->max_open <= 1 && options->max_lifetime_ns == 0 && options->max_idle_time_ns == 0)
        return THRONG_OK;
    return thr_error_set(err, THRONG_MISUSE, 0, NULL,
                         "a database in memory, or a temporary one, lives as long as its only connection: %s", name);
}

static void to_log(void *arg, const char *message)
{
    thr_pool_log(arg, "%s", message);
}

static void *zeroed(size_t bytes)
{
    void *at = aligned_alloc(THR_LINE, (bytes + THR_LINE - 1) / THR_LINE * THR_LINE);

    if (at != NULL)
        memset(at, 0, bytes);
    return at;
}

static void db_free(throng_db *db)
{
    for (uint32_t i = 0; db->slots != NULL && i < db->max_open; i++)
        thr_cache_free(&db->slots[i]);
    for (uint32_t i = 0; i < db->statement_used; i++)
        thr_os_free(db->statements[i].sql);
    thr_os_free(db->statements);
    thr_os_free(db->seen);
    free(db->slots);
    if (db->source != NULL)
        db->driver->source_close(db->source);
    (void)pthread_mutex_destroy(&db->queue_lock.mutex);
    (void)pthread_mutex_destroy(&db->statement_lock.mutex);
    (void)pthread_mutex_destroy(&db->maintain_lock.mutex);
    (void)pthread_mutex_destroy(&db->close_lock);
    free(db);
}

/* Options, locks, slots: what does not need the driver. NULL: no memory. */
static throng_db *db_new(const struct thr_driver *driver, const struct throng_db_options *options, bool is_private)
{
    static _Atomic uint64_t ids;
    throng_db *db = zeroed(sizeof *db);

    if (db == NULL)
        return NULL;
    db->driver = driver;
    db->is_private = is_private;
    db->id = atomic_fetch_add_explicit(&ids, 1, memory_order_relaxed) + 1;
    db->max_open = or_default(options->max_open, is_private ? 1 : DEFAULT_OPEN);
    db->max_idle = or_default(options->max_idle, db->max_open);
    if (db->max_idle > db->max_open)
        db->max_idle = db->max_open;
    db->cached_statements = or_default(options->cached_statements, DEFAULT_CACHED);
    db->max_statements = or_default(options->max_statements, DEFAULT_STATEMENTS);
    db->max_lifetime_ns = options->max_lifetime_ns;
    db->max_idle_time_ns = options->max_idle_time_ns;
    db->leak_after_ns = options->leak_after_ns;
    db->check_every_ns = options->check_every_ns;
    db->has_thread = options->no_thread == 0 &&
                     (db->max_lifetime_ns != 0 || db->max_idle_time_ns != 0 || db->leak_after_ns != 0);
    db->log = options->log;
    db->log_arg = options->log_arg;
    db->on_open = options->on_open;
    db->on_open_arg = options->on_open_arg;
    (void)pthread_mutex_init(&db->queue_lock.mutex, NULL);
    (void)pthread_mutex_init(&db->statement_lock.mutex, NULL);
    (void)pthread_mutex_init(&db->maintain_lock.mutex, NULL);
    (void)pthread_mutex_init(&db->close_lock, NULL);
    db->slots = zeroed(db->max_open * sizeof *db->slots);
    db->seen = thr_os_alloc(db->max_open * sizeof *db->seen);
    if (db->slots == NULL || db->seen == NULL) {
        db_free(db);
        return NULL;
    }
    for (uint32_t i = 0; i < db->max_open; i++) {
        db->slots[i].index = i;
        db->slots[i].db = db;
        db->slots[i].driver = driver;
    }
    return db;
}

int thr_db_open_driver(const struct thr_driver *driver, const char *dsn, const struct throng_db_options *options,
                       throng_db **db_out, throng_error *err)
{
    static const struct throng_db_options none = {.size = sizeof none};
    bool is_private = false;
    struct thr_slot *slot;
    throng_db log_only = {0}, *db;
    void *source;
    int code;

    *db_out = NULL;
    if (options == NULL)
        options = &none;
    if (dsn == NULL)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "there is no dsn");
    if ((code = options_check(options, err)) != THRONG_OK)
        return code;
    log_only.log = options->log;
    log_only.log_arg = options->log_arg;
    if ((code = driver->source_open(dsn, to_log, &log_only, &source, &is_private, err)) != THRONG_OK)
        return code == THR_CONN_STALE ? THRONG_CONN_LOST : code;
    if (is_private && (code = private_check(options, err)) != THRONG_OK) {
        driver->source_close(source);
        return code;
    }
    if ((db = db_new(driver, options, is_private)) == NULL) {
        driver->source_close(source);
        return thr_error_plain(err, THRONG_NOMEM);
    }
    db->source = source;
    code = thr_lease_take(db, 0, NULL, "throng_db_open", &slot, err);
    if (code == THRONG_OK)
        code = thr_lease_end(slot, err);
    if (code == THRONG_OK && db->has_thread && (code = thr_maintain_start(db)) != THRONG_OK)
        (void)thr_error_set(err, code, 0, NULL, "no thread can be started");
    if (code != THRONG_OK) {
        (void)thr_queue_close(db, 0);
        db_free(db);
        return code;
    }
    *db_out = db;
    return THRONG_OK;
}

/* postgres://... is not a file. file://... is. */
static bool is_url(const char *dsn)
{
    if (strncmp(dsn, "file:", 5) == 0)
        return false;
    while (isalnum((unsigned char)*dsn) || *dsn == '+' || *dsn == '-')
        dsn++;
    return strncmp(dsn, "://", 3) == 0;
}

int throng_db_open(const char *dsn, const struct throng_db_options *options, throng_db **db_out, throng_error *err)
{
    *db_out = NULL;
    if (dsn != NULL && strncmp(dsn, "sqlite://", 9) == 0)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL,
                             "dsn: \"%.100s\" may be read in two ways: write sqlite:/absolute/path or "
                             "sqlite:relative/path",
                             dsn);
    if (dsn != NULL && is_url(dsn))
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "there is no driver for \"%s\"", dsn);
    return thr_db_open_driver(&thr_sqlite_driver, dsn, options, db_out, err);
}

int throng_db_shutdown(throng_db *db, uint64_t deadline_ns, throng_error *err)
{
    const char *where;
    uint32_t held;
    int code;

    if (pthread_mutex_trylock(&db->close_lock) != 0)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "another thread closes the pool");
    code = thr_queue_close(db, deadline_ns);
    if (code == THRONG_TIMEOUT) { /* leaks go on to be reported */
        held = thr_report_held(db, &where);
        (void)thr_error_set(err, code, 0, NULL,
                            "the deadline passed while connections are in use: %u, the first taken at %s", held, where);
    } else {
        thr_maintain_stop(db);
    }
    (void)pthread_mutex_unlock(&db->close_lock);
    return code;
}

int throng_db_close(throng_db *db, uint64_t deadline_ns, throng_error *err)
{
    int code = THRONG_OK;

    if (db != NULL && (code = throng_db_shutdown(db, deadline_ns, err)) == THRONG_OK)
        db_free(db);
    return code;
}

static void add_slot(struct throng_stats *stats, const struct thr_slot *slot)
{
    enum thr_slot_state state = thr_slot_state(slot);
    uint64_t first_runs = thr_read(&slot->first_runs), statements = thr_read(&slot->serial);

    stats->idle += state == THR_SLOT_IDLE;
    stats->in_use += state == THR_SLOT_BUSY;
    stats->acquired += (thr_read(&slot->lease) + 1) / 2;
    stats->statements += statements;
    stats->cache_hits += statements > first_runs ? statements - first_runs : 0;
    stats->cache_misses += thr_read(&slot->misses);
    stats->cache_evictions += thr_read(&slot->evictions);
    stats->retries += thr_read(&slot->retries);
}

static void add_lock(struct throng_stats *stats, const struct thr_pool_lock *lock)
{
    stats->lock_acquired += thr_read(&lock->acquired);
    stats->lock_contended += thr_read(&lock->contended);
}

int throng_db_stats(throng_db *db, struct throng_stats *stats, throng_error *err)
{
    size_t size = stats->size;

    if (size < sizeof *stats)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "throng_stats.size is %zu, it must be %zu", size,
                             sizeof *stats);
    *stats = (struct throng_stats){.size = size, .max_open = db->max_open};
    for (uint32_t i = 0; i < db->max_open; i++)
        add_slot(stats, &db->slots[i]);
    stats->open = stats->idle + stats->in_use;
    thr_pool_lock(&db->queue_lock);
    stats->waiting = db->waiting;
    thr_pool_unlock(&db->queue_lock);
    stats->opened = thr_read(&db->opened);
    stats->waits = thr_read(&db->waits);
    stats->wait_ns = thr_read(&db->wait_ns);
    stats->wait_max_ns = thr_read(&db->wait_max_ns);
    for (int i = 0; i < THRONG_WAIT_BUCKETS; i++)
        stats->wait_histogram[i] = thr_read(&db->wait_histogram[i]);
    stats->wait_timeouts = thr_read(&db->wait_timeouts);
    stats->wait_cancels = thr_read(&db->wait_cancels);
    stats->closed_lifetime = thr_read(&db->closed[THR_CLOSE_LIFETIME]);
    stats->closed_idle_time = thr_read(&db->closed[THR_CLOSE_IDLE_TIME]);
    stats->closed_idle_limit = thr_read(&db->closed[THR_CLOSE_IDLE_LIMIT]);
    stats->closed_broken = thr_read(&db->closed[THR_CLOSE_BROKEN]);
    stats->closed_discarded = thr_read(&db->closed[THR_CLOSE_DISCARDED]);
    stats->closed_shutdown = thr_read(&db->closed[THR_CLOSE_SHUTDOWN]);
    stats->leaks = thr_read(&db->leaks);
    add_lock(stats, &db->queue_lock);
    add_lock(stats, &db->statement_lock);
    add_lock(stats, &db->maintain_lock);
    return THRONG_OK;
}
