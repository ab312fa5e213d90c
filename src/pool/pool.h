/* What the files of the pool share: the pool, its slots, what a slot keeps.
 *
 * A slot is a place for one connection. There are as many as the pool may have connections, so that a slot that is taken
 * is the permission to open one. Whoever has moved a slot's state to BUSY owns the slot and all that is in it, and is the
 * only one to write there, until it gives the slot back.
 *
 *   P1  A slot is owned by at most one thread; its connection is used by nobody else (but `interrupt`, see cancel.c).
 *   P2  While somebody waits in the queue (and has not given up), every slot that is not CLOSED is marked ATTENTION: no
 *       slot becomes free without its owner seeing that somebody waits. It hands the slot over, or leaves it free, still
 *       marked, in the slice of time that it was given with it (SLICE); then somebody in the queue watches, and finds it. So
 *       nobody sleeps beside a free slot for longer than WATCH_NS (or, if its owner had to leave the processor between the
 *       look at the clock and the giving back, DOZE_NS), and each slot passes the queue for a slice at most.
 *   P3  The last access to the pool by who gives back a slot is the one that gives it back (or the unlock of `queue_lock`
 *       that follows): then the pool may go away.
 *
 * Locks, none held across a call of the driver or of the user but where said:
 * close_lock -> queue_lock, statement_lock; maintain_lock -> queue_lock, statement_lock. A token's lock is taken with none
 * of these held. maintain_lock is held while connections are closed and leaks reported: only maintenance waits for it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_POOL_H
#define THR_POOL_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../driver/driver.h"
#include "../os/os.h"
#include "throng/pool.h"

#define THR_LINE 128      /* two lines: processors fetch them in pairs */
#define THR_LEVELS 32     /* of transactions in each other */
#define THR_ROWS_MAX 1024 /* open at a time on one connection */

enum thr_slot_state {
    THR_SLOT_EMPTY = 0,     /* no connection, nobody's */
    THR_SLOT_IDLE = 1,      /* a connection, nobody's */
    THR_SLOT_BUSY = 2,      /* owned */
    THR_SLOT_CLOSED = 3,    /* the pool is closed: for ever */
    THR_SLOT_ATTENTION = 4, /* with IDLE or BUSY: somebody waits, see P2 */
    THR_SLOT_SLICE = 8      /* with ATTENTION: may be left free until slice_end_ns */
};

enum thr_close_reason {
    THR_CLOSE_LIFETIME,
    THR_CLOSE_IDLE_TIME,
    THR_CLOSE_IDLE_LIMIT,
    THR_CLOSE_BROKEN,
    THR_CLOSE_DISCARDED,
    THR_CLOSE_SHUTDOWN,
    THR_CLOSE_REASONS
};

/* A lock that counts. Both counts are written under it. */
struct thr_pool_lock {
    pthread_mutex_t mutex;
    _Atomic uint64_t acquired, contended;
};

/* Something that a cancel token stops. Guarded by the token's lock while it is registered. */
struct thr_registration {
    struct thr_registration *prev, *next;
    void (*stop)(void *arg);
    void *arg;
    bool fired;
};

/* What bounds an execution. Tokens that are not NULL are registered. */
struct thr_guard {
    bool is_set;
    uint64_t deadline_ns;
    throng_cancel *cancel[2]; /* the call's, the transaction's */
    struct thr_registration registration[2];
};

/* A compiled statement, or room for one. The slot's owner writes it. It lives as long as the pool, so that rows of the
 * past can find out that they are. */
struct thr_entry {
    _Atomic uint64_t serial;         /* of the execution that is open; 0: none. Rows of the past read it, too */
    const struct thr_driver *driver; /* constant, as `slot` */
    void *stmt;                      /* the driver's; NULL: room */
    struct thr_slot *slot;
    uint64_t key;            /* see struct thr_source */
    struct thr_entry *chain; /* of the same bucket */
    uint64_t used;           /* serial of the last one */
    bool owns_lease;         /* the end of the rows gives back the slot */
    bool is_new;             /* compiled, and not run yet */
    int pending;             /* what the first throng_rows_next() is to say, as it has been run so far; 0: nothing */
    struct thr_guard guard;
    char *sql; /* a copy */
    size_t sql_bytes;
    struct thr_statement_info info;
    struct thr_entry *all; /* the next one of the slot */
};

/*   field                 writer           guard
 *   state                 any thread       itself
 *   retire, expires_ns    see there        atomic
 *   lease, where          owner            atomic: the checker reads them, and handles of the past
 *   counters              owner            atomic: throng_db_stats() reads them
 *   all others            owner            state */
struct thr_slot {
    alignas(THR_LINE) _Atomic uint32_t state; /* enum thr_slot_state */
    uint32_t open_count;                      /* executions that are open */
    uint32_t tx_depth;                        /* 0: no transaction of the pool's */
    bool suspect;                             /* something failed: reset_session before anybody else has it */
    bool dead;                                /* the connection is gone */
    bool discard;                             /* its owner wants it gone */
    bool may_be_open;                         /* a transaction may be open, begun in SQL */
    bool has_native;                          /* the user was given the driver's connection */
    _Atomic bool retire;                      /* set by the checker: too old */
    throng_db *db;                            /* constant, as `driver` and `index` */
    const struct thr_driver *driver;
    void *conn;             /* the driver's; NULL: none */
    _Atomic uint64_t lease; /* counts owners: odd while there is one */
    _Atomic(const char *) where;
    _Atomic uint64_t serial;     /* counts executions */
    uint64_t slice_end_ns;       /* until then it may be left free beside those who wait */
    uint64_t left_ns;            /* when it was left free like that */
    uint32_t no_slices;          /* so many hand-overs give none: it was left free for too long */
    uint32_t no_slices_next;     /* how many it will be the next time */
    uint64_t closed_seen;        /* statements closed, as of the last sweep */
    struct thr_guard *guard_now; /* whose limits the driver has been told; NULL: none */
    uint64_t tx_deadline_ns;
    throng_cancel *tx_cancel;
    /* Compiled statements. */
    struct thr_entry **buckets;
    uint32_t bucket_mask;
    uint32_t compiled_count;
    struct thr_entry *entries; /* all, also room */
    uint32_t index;
    /* Transactions. */
    bool tx_owns_lease;
    bool tx_lost;      /* the database has ended it by itself */
    bool tx_again;     /* a statement in it was told of a conflict, or did not get a lock */
    uint64_t tx_count; /* transactions and savepoints so far */
    uint64_t tx_serial[THR_LEVELS];
    /* Counters. */
    _Atomic uint64_t misses, evictions, retries;
    _Atomic uint64_t first_runs; /* executions of what had to be compiled for them */
    _Atomic uint64_t expires_ns; /* 0: never. Written when a connection is opened */
};

/* Somebody who waits. On its stack; `word` is the last thing that others touch. */
enum thr_waiter_word { THR_WAITING, THR_WATCHING, THR_GRANTED, THR_REFUSED, THR_STOPPED };
struct thr_waiter {
    struct thr_waiter *prev, *next;
    struct thr_slot *slot;
    bool linked;
    _Atomic uint32_t word; /* THR_WATCHING: it waits, and looks at the slots from time to time */
};

/* What the checker has seen of a slot when it looked last. Guarded by maintain_lock. */
struct thr_seen {
    uint64_t lease, since_ns, reported;
    uint32_t state;
};

struct thr_statement {
    uint64_t id; /* low half: place in the table and 1; high half: counts its users. The top bit is 0 */
    char *sql;   /* NULL: free */
    size_t bytes;
    uint32_t next_free;
};

enum { THR_CLOSED_RING = 256 }; /* statements closed that a slot may be behind before it drops all */

struct throng_db {
    /* Constant. */
    const struct thr_driver *driver;
    struct thr_slot *slots;
    uint64_t id; /* of this pool; never given out again in this process */
    uint32_t max_open, max_idle, cached_statements, max_statements;
    uint64_t max_lifetime_ns, max_idle_time_ns, leak_after_ns, check_every_ns;
    throng_log_fn *log;
    void *log_arg;
    int (*on_open)(void *native, void *arg);
    void *on_open_arg;
    void *source;
    bool is_private; /* the database ends with the only connection, which is kept for the pool's life */
    bool has_thread;

    /* Read by all, seldom written. */
    alignas(THR_LINE) _Atomic bool closing; /* under queue_lock; never back */
    _Atomic uint32_t high;                  /* slots below may have a connection; only grows */
    _Atomic uint64_t closed_count;          /* statements closed; under statement_lock */

    alignas(THR_LINE) struct thr_pool_lock queue_lock;
    struct thr_waiter *first, *last, *watcher; /* watcher: NULL if no slot has the mark SLICE, or nobody waits */
    uint32_t waiting, slices;                  /* slices: slots with the mark */
    uint64_t slices_end_ns;                    /* of the last one */
    bool watcher_dozes;                        /* it looks at longer intervals, as all slices are over */
    _Atomic uint64_t waits, wait_ns, wait_max_ns, wait_timeouts, wait_cancels;
    _Atomic uint64_t wait_histogram[THRONG_WAIT_BUCKETS];

    struct thr_pool_lock statement_lock;
    struct thr_statement *statements;
    uint32_t statement_room, statement_used, statement_free; /* statement_free: place and 1, 0: none */
    uint64_t closed_ring[THR_CLOSED_RING];                   /* ids, at closed_count modulo its size */

    struct thr_pool_lock maintain_lock;
    struct thr_seen *seen;
    pthread_mutex_t close_lock;
    struct thr_thread thread;
    bool thread_runs;             /* close_lock */
    _Atomic uint32_t thread_word; /* 1: it is to end */

    alignas(THR_LINE) _Atomic int64_t idle_count; /* only if max_idle < max_open */
    _Atomic uint64_t opened, leaks, closed[THR_CLOSE_REASONS];
};

/* What to run: a prepared statement (id), or a text. The key has the top bit for ids. */
struct thr_source {
    uint64_t key;
    uint64_t id;
    const char *sql;
    size_t bytes;
};

#define THR_KEY_STMT (UINT64_C(1) << 63)
#define THR_SCRIPT 201 /* thr_cache_get(): the text is several statements */

/* --- error.c --- */
THR_COLD int thr_error_plain(throng_error *err, int code); /* with the text of the code */
int thr_options_check(const struct throng_options *options, throng_error *err);
THR_COLD int thr_limits_check(uint64_t deadline_ns, const throng_cancel *cancel, throng_error *err);
THR_COLD void thr_pool_log(throng_db *db, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- lock.c --- */
void thr_pool_lock(struct thr_pool_lock *lock);
void thr_pool_unlock(struct thr_pool_lock *lock);

/* --- db.c --- */
/* throng_db_open() with a driver of the caller's. */
int thr_db_open_driver(const struct thr_driver *driver, const char *dsn, const struct throng_db_options *options,
                       throng_db **db_out, throng_error *err);

/* --- queue.c: owning slots; see fast.h for the usual way --- */
/* Own a slot, with or without a connection. */
int thr_slot_take(throng_db *db, uint64_t deadline_ns, throng_cancel *cancel, struct thr_slot **slot_out,
                  throng_error *err);
THR_COLD void thr_slot_put_slow(struct thr_slot *slot);
/* Own that slot if it was left free beside those who wait. */
bool thr_slot_try_left(struct thr_slot *slot);
/* Refuse all who wait and all who come; then own each slot in turn and close it, until the deadline. */
int thr_queue_close(throng_db *db, uint64_t deadline_ns);

/* --- lease.c: connections in slots --- */
THR_COLD int thr_lease_take_slow(throng_db *db, uint64_t deadline_ns, throng_cancel *cancel, const char *where,
                                 struct thr_slot **slot_out, throng_error *err);
THR_COLD int thr_lease_end_slow(struct thr_slot *slot, throng_error *err);
void thr_slot_close_conn(struct thr_slot *slot, enum thr_close_reason reason);
/* A new connection in the place of one that is dead. */
THR_COLD int thr_lease_renew(struct thr_slot *slot, uint64_t deadline_ns, throng_error *err);
/* What is remembered of a failure. Returns `code`. */
THR_COLD int thr_lease_failed(struct thr_slot *slot, int code);

/* --- cache.c --- */
THR_COLD int thr_cache_compile(struct thr_slot *slot, const struct thr_source *source, struct thr_entry **entry_out,
                               throng_error *err);
THR_COLD void thr_cache_sweep(struct thr_slot *slot); /* drop statements that have been closed */
THR_COLD void thr_cache_drop(struct thr_slot *slot);  /* drop all */
THR_COLD void thr_cache_free(struct thr_slot *slot);  /* and the room */

/* --- stmt.c --- */
/* Under statement_lock: the text of an open statement, or NULL. */
const struct thr_statement *thr_statement_find(throng_db *db, uint64_t id);
struct thr_source thr_source_text(const char *sql);
static inline struct thr_source thr_source_stmt(const throng_stmt *stmt)
{
    return (struct thr_source){.key = stmt->id | THR_KEY_STMT, .id = stmt->id};
}

/* --- run.c: on a slot that the caller owns. THR_CONN_STALE may come back; thr_lease_failed() has been told --- */
int thr_run_exec(struct thr_slot *slot, const struct throng_options *options, const struct thr_source *source,
                 const throng_value *args, size_t count, throng_result *result, throng_error *err);
int thr_run_query(struct thr_slot *slot, const struct throng_options *options, const struct thr_source *source,
                  const throng_value *args, size_t count, bool owns_lease, throng_rows *rows, throng_error *err);
THR_COLD int thr_run_close_all(struct thr_slot *slot, throng_error *err); /* the first error, if any */

/* --- guard.c --- */
/* What the connection does until thr_guard_end() is bounded by the deadline and the token, and by those of the transaction
 * that is open. Nothing was begun if it fails. */
int thr_guard_begin(struct thr_slot *slot, struct thr_guard *guard, uint64_t deadline_ns, throng_cancel *cancel,
                    throng_error *err);
/* The same guard again, after another one on the same connection. Tells if its time has come. */
int thr_guard_again(struct thr_slot *slot, struct thr_guard *guard, throng_error *err);
THR_COLD void thr_guard_end(struct thr_slot *slot, struct thr_guard *guard);
/* The driver is told of this guard, if it was told of another one. */
void thr_guard_resume(struct thr_slot *slot, struct thr_guard *guard);
/* Whether there is anything to do in thr_guard_begin(). */
static inline bool thr_guard_wanted(const struct thr_slot *slot, const struct throng_options *options)
{
    return options != NULL || slot->tx_deadline_ns != 0 || slot->tx_cancel != NULL || slot->guard_now != NULL;
}

/* --- tx.c --- */
/* THRONG_OK if the slot is still `lease`'s and its connection alive. */
int thr_lease_check(const struct thr_slot *slot, uint64_t lease, throng_error *err);
int thr_tx_start(struct thr_slot *slot, const struct throng_tx_options *options, bool owns_lease, throng_tx *tx,
                 throng_error *err);
/* Ends all transactions of the slot without a word. */
THR_COLD void thr_tx_abandon(struct thr_slot *slot);
/* THRONG_OK if the transaction is open. */
int thr_tx_check(const throng_tx *tx, throng_error *err);
/* And no other one is open in it. */
int thr_tx_usable(const throng_tx *tx, throng_error *err);

/* --- cancel.c --- */
/* False: it has fired already, and nothing is registered. */
bool thr_cancel_register(throng_cancel *cancel, struct thr_registration *registration);
/* When it returns nobody calls registration->stop any more. True: it was called. */
bool thr_cancel_unregister(throng_cancel *cancel, struct thr_registration *registration);
/* throng_cancel_fired(), ordered with `stop`: if it says no, `stop` is called after this. */
bool thr_cancel_ask(throng_cancel *cancel);
bool thr_cancel_sleep(throng_cancel *cancel, uint64_t ns); /* false: it has fired */

/* --- maintain.c --- */
void thr_maintain(throng_db *db, uint64_t now_ns);
/* Who still holds connections: logs each of them. Returns how many, and where the first one was taken. */
uint32_t thr_report_held(throng_db *db, const char **where_out);
int thr_maintain_start(throng_db *db);
void thr_maintain_stop(throng_db *db);

/* Counters that only one thread writes need no locked addition. */
static inline void thr_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t thr_read(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Without its marks. */
static inline enum thr_slot_state thr_slot_state(const struct thr_slot *slot)
{
    uint32_t marks = THR_SLOT_ATTENTION | THR_SLOT_SLICE;

    return (enum thr_slot_state)(atomic_load_explicit(&slot->state, memory_order_relaxed) & ~marks);
}

static inline uint64_t thr_later(uint64_t at_ns, uint64_t span_ns) /* a deadline; as far away as there are any */
{
    return span_ns < UINT64_MAX - at_ns ? at_ns + span_ns : UINT64_MAX;
}

static inline uint64_t thr_earlier(uint64_t a_ns, uint64_t b_ns) /* of two deadlines, 0: none */
{
    return a_ns == 0 ? b_ns : b_ns == 0 || a_ns < b_ns ? a_ns : b_ns;
}

#endif
