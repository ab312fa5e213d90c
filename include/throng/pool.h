/* The pool: one database, many threads, as many connections as are worth it.
 *
 *     throng_db *db;
 *     throng_error err;
 *
 *     if (throng_db_open("app.db", NULL, &db, &err) != THRONG_OK)
 *         die(err.message);
 *     throng_db_exec(db, NULL, "INSERT INTO t VALUES (?, ?)", THRONG_ARGS(throng_int(1), throng_text("one")), NULL, &err);
 *
 * What is what:
 *
 *   throng_db      the pool. Any thread, any number at once
 *   throng_stmt    a statement, prepared once, for any thread at once: a small value that names it
 *   throng_tx      a transaction: one thread at a time
 *   throng_conn    a connection to oneself: one thread at a time
 *   throng_rows    the rows of a query: one thread at a time
 *   throng_cancel  ends waits and queries from elsewhere: any thread
 *
 * throng_stmt, throng_tx, throng_conn and throng_rows are structs of the caller; their fields are not for use. Set to
 * zero they are closed. Using one that has ended (or a copy of it) is an error that is told, not undefined, as long as
 * the pool has not been freed. They may move from thread to thread.
 *
 * Errors: functions return an enum throng_code. THRONG_OK is 0. If it is not THRONG_OK (nor THRONG_ROW, THRONG_DONE),
 * the last parameter, if not NULL, has been filled in; otherwise it is untouched. Out-parameters are zero on failure.
 *
 * THRONG_OK means that it was done, and an error that it was not: a commit that a deadline or a token came too late for is
 * THRONG_OK. The exceptions are THRONG_CONN_LOST, after which nobody knows, and THRONG_IO from a commit: the disk failed, and
 * whether the commit counts is known when the database has been opened again. Of several statements in one text those before
 * the one that fails stay done, unless they are in a transaction.
 *
 * Blocking: what needs a connection waits for one when all are in use, first come, first served, until its deadline or
 * its cancel token says otherwise. A thread that was given one after a wait and comes back at once may have it again
 * before those who wait, for 0.2 ms in all. Whoever holds one connection and waits for a second may wait for itself: set a
 * deadline.
 *
 * Deadlines are points in time on CLOCK_MONOTONIC in nanoseconds, throng_after_ms() makes one; 0 is none. They bound
 * the wait for a connection, the wait for locks, and what runs.
 *
 * PRAGMA busy_timeout, run as SQL, takes the place of the pool's own way of waiting for locks on that connection, which
 * deadlines and tokens end: use the DSN's.
 *
 * After fork() the child must not use a pool of its parent.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THRONG_POOL_H
#define THRONG_POOL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* --- errors --- */

enum throng_code {
    THRONG_OK = 0,
    THRONG_ERROR = 1,      /* the database says no, for a reason that has no code here: see driver_code */
    THRONG_CONFLICT = 2,   /* the transaction lost against another one: roll it back and run it again */
    THRONG_BUSY = 3,       /* a lock was not to be had in time (busy_timeout) */
    THRONG_CONSTRAINT = 4, /* unique, not null, check, foreign key */
    THRONG_READONLY = 5,   /* a write in a read-only transaction or database */
    THRONG_FULL = 6,       /* the disk is full */
    THRONG_IO = 7,         /* the disk, or the file, fails; from a commit: see above */
    THRONG_NOMEM = 8,
    THRONG_MISUSE = 9,     /* the call cannot be right: arguments, an option's size, a handle that is closed */
    THRONG_TIMEOUT = 10,   /* the deadline passed */
    THRONG_CANCELED = 11,  /* the cancel token fired */
    THRONG_CLOSED = 12,    /* the pool or the statement is closed */
    THRONG_TX_DONE = 13,   /* the transaction has been committed or rolled back, perhaps by the database itself */
    THRONG_CONN_LOST = 14, /* the connection died; whether its last statement took effect is not known */
    THRONG_ROW = 100,      /* throng_rows_next(): here is a row */
    THRONG_DONE = 101      /* throng_rows_next(): that was all */
};

/* A value, without pointers: copy it, keep it. */
typedef struct throng_error {
    int code;          /* enum throng_code */
    int driver_code;   /* SQLite's extended result code; 0 if the pool itself says no */
    int position;      /* byte in the SQL where it is, or -1 */
    char sqlstate[8];  /* servers' five letters, or "" */
    char message[256]; /* complete or cut at the end */
    char sql[256];     /* the statement, likewise; "" if there is none */
} throng_error;

/* A short English text for a code. A static string. */
const char *throng_code_text(int code);

/* --- values --- */

enum throng_type { THRONG_NULL = 0, THRONG_INT64 = 1, THRONG_DOUBLE = 2, THRONG_TEXT = 3, THRONG_BLOB = 4 };

/* An argument of a statement. Text and blobs are not copied here: they belong to the caller, and must stay until the
 * function that takes them returns (it returns with what it needs). */
typedef struct throng_value {
    uint32_t type; /* enum throng_type */
    uint32_t reserved;
    size_t size;      /* of text and blob, in bytes */
    const char *name; /* NULL: by position */
    union {
        int64_t integer;
        double real;
        const void *bytes;
    } as;
} throng_value;

static inline throng_value throng_null(void)
{
    throng_value v;

    memset(&v, 0, sizeof v);
    return v;
}

static inline throng_value throng_int(int64_t integer)
{
    throng_value v = throng_null();

    v.type = THRONG_INT64;
    v.as.integer = integer;
    return v;
}

/* SQLite stores NaN as NULL; infinities are kept. */
static inline throng_value throng_real(double real)
{
    throng_value v = throng_null();

    v.type = THRONG_DOUBLE;
    v.as.real = real;
    return v;
}

/* NULL bytes make an SQL NULL. (A throng_value of one's own that has a size and no bytes is THRONG_MISUSE.) */
static inline throng_value throng_text_n(const char *bytes, size_t size)
{
    throng_value v = throng_null();

    v.type = bytes != NULL ? THRONG_TEXT : THRONG_NULL;
    v.size = bytes != NULL ? size : 0;
    v.as.bytes = bytes;
    return v;
}

static inline throng_value throng_text(const char *text)
{
    return throng_text_n(text, text != NULL ? strlen(text) : 0);
}

static inline throng_value throng_blob(const void *bytes, size_t size)
{
    throng_value v = throng_text_n((const char *)bytes, size);

    if (bytes != NULL)
        v.type = THRONG_BLOB;
    return v;
}

/* For ":name", "@name" or "$name" in the statement. A statement's arguments are all named or all positional. */
static inline throng_value throng_named(const char *name, throng_value value)
{
    value.name = name;
    return value;
}

/* The arguments of a statement: THRONG_ARGS(throng_int(1), throng_text("x")), or THRONG_NO_ARGS. Two parameters in one:
 * an array and its length. There must be exactly as many as the statement has parameters. */
#ifndef __cplusplus
#define THRONG_ARGS(...)                        \
    (const struct throng_value[]){__VA_ARGS__}, \
        sizeof((const struct throng_value[]){__VA_ARGS__}) / sizeof(struct throng_value)
#endif
#define THRONG_NO_ARGS NULL, 0

/* Where a function was called, for reports of leaks. */
#define THRONG_HERE_TEXT(line) #line
#define THRONG_HERE_LINE(line) THRONG_HERE_TEXT(line)
#define THRONG_HERE __FILE__ ":" THRONG_HERE_LINE(__LINE__)

/* --- handles --- */

typedef struct throng_db throng_db;
typedef struct throng_cancel throng_cancel;

typedef struct throng_stmt {
    throng_db *db;
    uint64_t id;
} throng_stmt;

typedef struct throng_conn {
    void *slot;
    uint64_t lease;
} throng_conn;

typedef struct throng_tx {
    void *slot;
    uint64_t lease;
    uint64_t serial;
    uint32_t level;
    uint32_t reserved;
} throng_tx;

typedef struct throng_rows {
    void *slot;
    void *entry;
    uint64_t serial;
    int32_t code;
    uint32_t reserved;
} throng_rows;

/* What a statement has done. */
typedef struct throng_result {
    int64_t changes;        /* rows inserted, changed or deleted by INSERT, UPDATE, DELETE; 0 for other statements */
    int64_t last_insert_id; /* of the connection */
} throng_result;

/* --- options: each begins with its own size. NULL stands for all zeros --- */

/* Of one call. */
struct throng_options {
    size_t size;
    uint64_t deadline_ns;
    throng_cancel *cancel;
    const char *label; /* in reports of leaks, instead of file and line. It is not copied */
};

enum throng_tx_mode {
    THRONG_DEFERRED = 0,  /* many at once; a conflict shows at COMMIT or before */
    THRONG_IMMEDIATE = 1, /* for writing from the start: once begun it does not lose */
    THRONG_EXCLUSIVE = 2  /* alone among writers */
};

struct throng_tx_options {
    size_t size;
    uint64_t deadline_ns;  /* of the whole transaction: no statement in it runs longer */
    throng_cancel *cancel; /* likewise */
    const char *label;
    uint32_t mode;      /* enum throng_tx_mode */
    uint32_t read_only; /* non-zero: writes get THRONG_READONLY */
};

struct throng_transact_options {
    size_t size;
    uint64_t deadline_ns; /* of all attempts together */
    throng_cancel *cancel;
    const char *label;
    uint32_t mode;
    uint32_t read_only;
    uint32_t max_attempts;   /* 0: 100 */
    uint32_t reserved;       /* 0 */
    uint64_t min_backoff_ns; /* 0: 20 us. Doubles with each attempt; what is waited is random, up to that */
    uint64_t max_backoff_ns; /* 0: 20 ms */
};

/* Called by the thread that finds something, or by the pool's own; it must not call the pool. */
typedef void throng_log_fn(void *arg, const char *message);

struct throng_db_options {
    size_t size;
    uint32_t max_open;          /* connections; 0: 64. At most 65536 */
    uint32_t max_idle;          /* of those that nobody uses; 0: all. A lower limit costs a counter that all share */
    uint32_t cached_statements; /* of a connection; 0: 64. At most 65536 */
    uint32_t max_statements;    /* throng_stmt open at a time; 0: 65536. At most 2^24 */
    uint64_t max_lifetime_ns;   /* of a connection, less up to a tenth by chance; 0: no limit */
    uint64_t max_idle_time_ns;  /* 0: no limit */
    uint64_t leak_after_ns;     /* report what is held longer; 0: nothing */
    uint64_t check_every_ns;    /* how often the three above are looked at; 0: a quarter of the shortest */
    uint32_t no_thread;         /* non-zero: only when throng_db_maintain() is called */
    uint32_t reserved;          /* 0 */
    throng_log_fn *log;         /* NULL: SQLite's error log */
    void *log_arg;
    /* Called with each new connection (sqlite3 *): the place for functions, collations, ATTACH and PRAGMAs that every
     * connection is to have. Non-zero: the connection is closed, and opening it has failed; so it is if a transaction or
     * a statement has been left open. */
    int (*on_open)(void *native, void *arg);
    void *on_open_arg;
};

/* Now, on the clock of deadlines, and `ms` from now, or as far away as there are deadlines. */
uint64_t throng_now_ns(void);
uint64_t throng_after_ms(uint64_t ms);

/* --- the pool --- */

/* Open a pool, and one connection to see that it can be done.
 *
 * `dsn` is one of
 *   sqlite:PATH?NAME=VALUE&...   with %XX for bytes that have a meaning there
 *   file:...                     a URI file name of SQLite, with the same parameters
 *   PATH, PATH?NAME=VALUE&...    the path as it is; a "?" that no NAME= follows is part of it
 * Names:
 *   vfs            "throng" if not given: concurrent writers, see throng.h. "unix" is stock SQLite
 *   synchronous (off, normal, full, extra), foreign_keys (on, off), cache_size, mmap_size, journal_mode,
 *   temp_store (default, file, memory)
 *                  are set on each connection, as the PRAGMAs of these names. Throng's journal_mode is delete
 *   busy_timeout   in milliseconds, 5000 if not given
 *   mode           ro, rw, rwc (if not given), memory
 *   cache, immutable, nolock, psow, modeof
 *                  as in URI file names of SQLite
 *   checkpoint_bytes, heap_limit, checkpointer, filesystem
 *                  Throng's own: of the first connection of the process to the database
 * What is asked for is in force, or the pool does not open: another name or value is THRONG_MISUSE, PRAGMAs are read back,
 * and mode=rw or rwc on a file that can only be read is THRONG_READONLY. (Names that are not known go to the VFS if that is
 * neither Throng's nor one of SQLite's own.)
 * ":memory:" and other private databases ("", mode=memory without cache=shared) live in the pool's only connection, which is kept until the pool is
 * closed: max_open is 1, max_lifetime_ns and max_idle_time_ns must be 0, throng_conn_discard() is THRONG_MISUSE.
 *
 * Where SQLite has not been initialized in this process, this does it, with accounting of memory off
 * (SQLITE_CONFIG_MEMSTATUS: a lock for each allocation) and with mimalloc if that is installed. Then no other thread may
 * be about to use SQLite. Where it has been initialized with accounting on, that is logged, once.
 *
 * Blocks for as long as opening takes, recovery included. THRONG_MISUSE for options and dsn that cannot be right. */
int throng_db_open(const char *dsn, const struct throng_db_options *options, throng_db **db_out, throng_error *err);

/* Close all connections, and wait for those in use until the deadline. From the moment it is called everything else
 * says THRONG_CLOSED, whoever waits for a connection included; what is held goes on until it is released. Any thread,
 * also while others call. THRONG_TIMEOUT: some are still in use, and the log says where each was taken; call it again.
 * THRONG_MISUSE: another thread does. */
int throng_db_shutdown(throng_db *db, uint64_t deadline_ns, throng_error *err);

/* throng_db_shutdown(), and on THRONG_OK the pool is freed with all its statements. Others may hold connections, rows,
 * transactions when this is called, or wait; nobody may begin to use `db` any more. (A program where that cannot be
 * known calls throng_db_shutdown(), joins its threads, then this.) NULL does nothing. */
int throng_db_close(throng_db *db, uint64_t deadline_ns, throng_error *err);

/* A connection is there, and answers. One that turns out to be dead is replaced. */
int throng_db_ping(throng_db *db, const struct throng_options *options, throng_error *err);

/* Look once after idle times, lifetimes and leaks. Needs to be called only if `no_thread` is set. Does not wait; what
 * it closes it closes itself. */
void throng_db_maintain(throng_db *db);

/* Run a statement to its end. Compiled statements are kept in the connection by their text. `result` may be NULL.
 * Without arguments `sql` may be several statements; they stop at the first that fails. A transaction that it leaves
 * open is rolled back, and that is THRONG_MISUSE: use throng_db_begin() or throng_db_conn(). */
int throng_db_exec(throng_db *db, const struct throng_options *options, const char *sql, const throng_value *args,
                   size_t count, throng_result *result, throng_error *err);

/* Begin a query. Rows come with throng_rows_next(). A statement that does more than that (INSERT, with or without RETURNING,
 * a PRAGMA, BEGIN) has done so on THRONG_OK; outside a transaction it is committed with its last row, or when the rows are
 * closed. *rows holds a connection until its end: throng_rows_next() other than THRONG_ROW, or throng_rows_close(). */
#define throng_db_query(db, ...) throng_db_query_at(THRONG_HERE, db, __VA_ARGS__)
int throng_db_query_at(const char *where, throng_db *db, const struct throng_options *options, const char *sql,
                       const throng_value *args, size_t count, throng_rows *rows, throng_error *err);

/* --- statements --- */

/* Prepare: compiles it once to see that it can be done. Each connection compiles it when it first runs it, and keeps
 * it. *stmt may be copied, and used by any thread, without any lock. */
int throng_db_prepare(throng_db *db, const struct throng_options *options, const char *sql, throng_stmt *stmt,
                      throng_error *err);

/* From now on using it is THRONG_CLOSED; what runs goes on. Connections drop their compiled form when they are next
 * taken or given back. Any thread; once more changes nothing. Before throng_db_close(), or not at all. */
void throng_stmt_close(const throng_stmt *stmt);

int throng_stmt_exec(const throng_stmt *stmt, const struct throng_options *options, const throng_value *args,
                     size_t count, throng_result *result, throng_error *err);
#define throng_stmt_query(stmt, ...) throng_stmt_query_at(THRONG_HERE, stmt, __VA_ARGS__)
int throng_stmt_query_at(const char *where, const throng_stmt *stmt, const struct throng_options *options,
                         const throng_value *args, size_t count, throng_rows *rows, throng_error *err);

/* --- rows --- */

/* THRONG_ROW: the next row is there. THRONG_DONE: that was all; *rows is closed, its connection given back. Else an
 * error, and closed as well. What the getters have returned is invalid from here on. A statement that writes, and whose
 * deadline or token stops it here, has written nothing; in a transaction that is rolled back with it. */
int throng_rows_next(throng_rows *rows, throng_error *err);

/* End it early. A statement that writes completes all the same, and what it says then is said here. On rows that have
 * ended: THRONG_OK, or the code with which they have. */
int throng_rows_close(throng_rows *rows, throng_error *err);

/* Columns count from 0. Of closed rows, and past the end: 0, NULL, THRONG_NULL. Pointers live until the next
 * throng_rows_next() or throng_rows_close(), and until a getter of another type is used on the same column. Values are
 * converted as SQLite does. Text ends with a zero byte that is not counted. `size_out` may be NULL. */
int throng_rows_columns(const throng_rows *rows);
const char *throng_rows_name(const throng_rows *rows, int column);
const char *throng_rows_decltype(const throng_rows *rows, int column); /* as declared; NULL for expressions */
enum throng_type throng_rows_type(const throng_rows *rows, int column);
int64_t throng_rows_int(const throng_rows *rows, int column);
double throng_rows_real(const throng_rows *rows, int column);
const char *throng_rows_text(const throng_rows *rows, int column, size_t *size_out);
const void *throng_rows_blob(const throng_rows *rows, int column, size_t *size_out);

/* --- transactions --- */

#define throng_db_begin(db, ...) throng_db_begin_at(THRONG_HERE, db, __VA_ARGS__)
int throng_db_begin_at(const char *where, throng_db *db, const struct throng_tx_options *options, throng_tx *tx,
                       throng_error *err);

int throng_tx_exec(const throng_tx *tx, const struct throng_options *options, const char *sql, const throng_value *args,
                   size_t count, throng_result *result, throng_error *err);
int throng_tx_query(const throng_tx *tx, const struct throng_options *options, const char *sql,
                    const throng_value *args, size_t count, throng_rows *rows, throng_error *err);
int throng_tx_stmt_exec(const throng_tx *tx, const throng_stmt *stmt, const struct throng_options *options,
                        const throng_value *args, size_t count, throng_result *result, throng_error *err);
int throng_tx_stmt_query(const throng_tx *tx, const throng_stmt *stmt, const struct throng_options *options,
                         const throng_value *args, size_t count, throng_rows *rows, throng_error *err);

/* A transaction inside: a savepoint. It ends with throng_tx_commit() or throng_tx_rollback() of its own, or together
 * with `tx`. Until then `tx` runs nothing (THRONG_MISUSE), since that would be part of the inner one. At most 31 deep. */
int throng_tx_begin(const throng_tx *tx, throng_tx *inner, throng_error *err);

/* Both end the transaction, whatever they return, and give the connection back. Rows that are open in it are closed (at
 * the end of an inner one they stay open, but for those of statements that write). A commit that fails has rolled back (but
 * for THRONG_CONN_LOST, and THRONG_IO: see above). A transaction that has ended already is THRONG_TX_DONE.
 *
 * A transaction whose deadline passes, or whose token fires, runs nothing any more, but keeps its connection, and the locks that
 * it has, until one of the two is called: end it soon. */
int throng_tx_commit(throng_tx *tx, throng_error *err);
int throng_tx_rollback(throng_tx *tx, throng_error *err);

/* Run `fn` in a transaction and commit; on a conflict, or when a lock is not to be had, roll back, wait a little, and run
 * it again; from the seventh attempt on a deferred transaction begins as THRONG_IMMEDIATE, so that it does not lose for
 * ever. `attempt` counts from 1: what `fn` does outside the database it may do again. `fn` returns THRONG_OK, or what
 * a function in here has returned to it (and *err with it), or any other number: then the transaction is rolled back and
 * that number returned, unless it was lost to a conflict anyway. `fn` must not end the transaction. */
typedef int throng_transact_fn(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err);
#define throng_transact(db, ...) throng_transact_at(THRONG_HERE, db, __VA_ARGS__)
int throng_transact_at(const char *where, throng_db *db, const struct throng_transact_options *options,
                       throng_transact_fn *fn, void *arg, throng_error *err);

/* --- one connection to oneself --- */

/* For what belongs to a connection: a transaction in SQL (BEGIN, BEGIN READONLY and BEGIN CONCURRENT included), temporary
 * tables, changes(). When it is given back an open transaction is rolled back; temporary tables, attached databases and
 * PRAGMAs stay with the connection, for whoever gets it next: undo them, or close it with throng_conn_discard(). */
#define throng_db_conn(db, ...) throng_db_conn_at(THRONG_HERE, db, __VA_ARGS__)
int throng_db_conn_at(const char *where, throng_db *db, const struct throng_options *options, throng_conn *conn,
                      throng_error *err);
int throng_conn_exec(const throng_conn *conn, const struct throng_options *options, const char *sql,
                     const throng_value *args, size_t count, throng_result *result, throng_error *err);
int throng_conn_query(const throng_conn *conn, const struct throng_options *options, const char *sql,
                      const throng_value *args, size_t count, throng_rows *rows, throng_error *err);
int throng_conn_stmt_exec(const throng_conn *conn, const throng_stmt *stmt, const struct throng_options *options,
                          const throng_value *args, size_t count, throng_result *result, throng_error *err);
int throng_conn_stmt_query(const throng_conn *conn, const throng_stmt *stmt, const struct throng_options *options,
                           const throng_value *args, size_t count, throng_rows *rows, throng_error *err);
/* The transaction ends without giving back the connection. `label` and `cancel` are as for throng_db_begin(). */
int throng_conn_begin(const throng_conn *conn, const struct throng_tx_options *options, throng_tx *tx,
                      throng_error *err);
int throng_conn_ping(const throng_conn *conn, const struct throng_options *options, throng_error *err);
/* The driver's connection: sqlite3 *. Valid as long as *conn. Leave its statements, progress and busy handler alone. Statements
 * of one's own are to be finalized, blobs closed and backups finished before *conn is closed: what is left open is ended,
 * and THRONG_MISUSE. A token does not stop a single long operation (counting a table) while *conn is used in this way. */
void *throng_conn_native(const throng_conn *conn);
/* Give it back; rows of it that are open are closed. THRONG_MISUSE if a transaction (rolled back), or something of the native
 * handle's, was left open. */
int throng_conn_close(throng_conn *conn, throng_error *err);
/* Close it for good; the pool opens another one when it needs it. */
int throng_conn_discard(throng_conn *conn, throng_error *err);

/* --- cancel tokens --- */

/* NULL: no memory. One token may be given to any number of calls at once. */
throng_cancel *throng_cancel_new(void);
/* All that has the token stops with THRONG_CANCELED, now and in future: waits, running queries, rows at their next row. A
 * statement that writes and is stopped inside a transaction takes the transaction with it. Nothing else stops: neither rows of
 * the same connection that were begun without the token, nor the next user of the connection. Any thread. */
void throng_cancel_fire(throng_cancel *cancel);
int throng_cancel_fired(const throng_cancel *cancel);
/* Nothing may use it any more: rows, transactions with it have ended. NULL does nothing. */
void throng_cancel_free(throng_cancel *cancel);

/* --- statistics --- */

#define THRONG_WAIT_BUCKETS 32

struct throng_stats {
    size_t size; /* set by the caller */
    uint64_t max_open, open, idle, in_use, waiting;
    uint64_t opened;                              /* connections, since the beginning */
    uint64_t acquired;                            /* times that one was taken */
    uint64_t waits, wait_ns, wait_max_ns;         /* times that all were in use, and for how long; however they ended */
    uint64_t wait_histogram[THRONG_WAIT_BUCKETS]; /* waits of less than 2^i microseconds */
    uint64_t wait_timeouts, wait_cancels;
    uint64_t closed_lifetime, closed_idle_time, closed_idle_limit, closed_broken, closed_discarded, closed_shutdown;
    uint64_t statements;                    /* run */
    uint64_t cache_hits;                    /* of these, those that were compiled already */
    uint64_t cache_misses, cache_evictions; /* compiled, or tried to; dropped for want of room */
    uint64_t retries;                       /* attempts of throng_transact() after the first */
    uint64_t leaks;                         /* reported */
    uint64_t lock_acquired, lock_contended; /* of the pool's locks; statements in the fast path need none */
};

/* A sum over the connections, taken while they work: each number is right, but not all of the same moment. */
int throng_db_stats(throng_db *db, struct throng_stats *stats, throng_error *err);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
