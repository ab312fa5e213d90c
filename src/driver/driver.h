/* What the pool asks of a database: a table of functions.
 *
 * It is made for an embedded library and for servers alike. Where a call stands for a round trip, that is said. Rules
 * for all of them:
 *
 *   - A connection and its statements are used by one thread at a time; `interrupt` comes from any.
 *   - Codes are those of enum throng_code: the driver decides what is a conflict, a constraint, a dead connection. On
 *     failure *err is filled in if it is not NULL (thr_error_set() does both).
 *   - THRONG_CONN_LOST: the connection is dead, and whether the request took effect is unknown. THR_CONN_STALE: it is
 *     dead, and the request certainly did nothing; the pool may run it again on another connection. From `reset` it
 *     counts as THRONG_CONN_LOST.
 *   - After either, the pool calls `finalize` for the connection's statements and `close`, nothing else; but until then a
 *     token may still call `interrupt`, and the user look at the columns of the row there is.
 *   - A code other than THRONG_OK (THRONG_ROW, THRONG_DONE) says that the request did nothing that will stay; what has been
 *     committed is never reported as an error, whatever fires or passes meanwhile. Where the driver cannot know:
 *     THRONG_CONN_LOST.
 *   - No function may call back into the pool.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_DRIVER_H
#define THR_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "throng/pool.h"

#define THR_CONN_STALE 200

/* What happens seldom is kept away from what happens every time: the processor's instruction cache is shared with all of
 * SQLite, and fetching the pool's code costs more than running it. */
#define THR_COLD __attribute__((cold, noinline))
#define THR_HOT __attribute__((hot))

/* What `prepare` has found out. */
struct thr_statement_info {
    size_t tail;  /* where the next statement begins in the text, or 0 if there is none */
    bool opens;   /* it may leave a transaction open that was not: BEGIN, SAVEPOINT */
    bool writes;  /* ending it in the middle is not without effect: see `undo` */
    bool at_once; /* it is not run for its rows alone: `next` is called once even if nobody asks for a row */
};

struct thr_begin {
    enum throng_tx_mode mode;
    bool read_only;
};

enum thr_savepoint { THR_SAVEPOINT_BEGIN, THR_SAVEPOINT_RELEASE, THR_SAVEPOINT_ROLLBACK };

struct thr_driver {
    const char *name;

    /* Once for each pool: understand the part of the DSN that is the driver's, and start what it needs in the process.
     * `private_out`: each connection would have a database of its own, which ends with it. */
    int (*source_open)(const char *dsn, void (*log)(void *arg, const char *message), void *log_arg, void **source_out,
                       bool *private_out, throng_error *err);
    void (*source_close)(void *source);

    /* Any thread, at once. Blocks until the deadline (0: none). */
    int (*open)(void *source, uint64_t deadline_ns, void **conn_out, throng_error *err);
    void (*close)(void *conn);

    /* For what comes until the next call: end with THRONG_TIMEOUT at the deadline (0: none); be ready for `interrupt`,
     * if so. Forgets an interrupt from before, also for other statements that are open. Cheap, no round trip. */
    void (*limits)(void *conn, uint64_t deadline_ns, bool interruptible);
    /* Any thread, while `limits` says interruptible, and the pool makes sure that it is over before anything else begins:
     * whatever the connection is waiting for ends with THRONG_CANCELED, soon. May be one round trip of its own. */
    void (*interrupt)(void *conn);

    /* The first statement of the text, which ends with a zero byte. *stmt_out is NULL if there is none: blanks, comments.
     * `keep`: it will be run often. A server needs one round trip, or puts it off until `start`. */
    int (*prepare)(void *conn, const char *sql, size_t bytes, bool keep, void **stmt_out,
                   struct thr_statement_info *info_out, throng_error *err);
    void (*finalize)(void *conn, void *stmt);

    /* Bind and execute. `stay`: text and blobs outlive the execution; if not, they are gone when this returns. A server's
     * round trip is here; an embedded library may do its work in `next`. */
    int (*start)(void *conn, void *stmt, const throng_value *args, size_t count, bool stay, throng_error *err);
    /* THRONG_ROW, THRONG_DONE, or what is wrong. */
    int (*next)(void *conn, void *stmt, throng_error *err);
    /* End the execution, whatever state it is in. An error here is one that nobody has been told of yet. */
    int (*reset)(void *conn, void *stmt, throng_error *err);
    /* Before `reset`, for a statement that writes, and is to be stopped between two rows. THRONG_OK: nothing of it counts,
     * and a transaction around it may have ended with it. THRONG_DONE: it had come to its end, and counts. Else what is
     * wrong, as from `next`. */
    int (*undo)(void *conn, void *stmt, throng_error *err);
    /* Of the statement that has just reached THRONG_DONE. */
    void (*result)(void *conn, void *stmt, throng_result *result_out);

    /* The current row, without copies. Pointers live until the next `next` or `reset`. Any column number is fine. */
    int (*columns)(void *stmt);
    const char *(*name_of)(void *stmt, int column);
    const char *(*decltype_of)(void *stmt, int column);
    enum throng_type (*type)(void *stmt, int column);
    int64_t (*integer)(void *stmt, int column);
    double (*real)(void *stmt, int column);
    const char *(*text)(void *stmt, int column, size_t *size_out);
    const void *(*blob)(void *stmt, int column, size_t *size_out);

    /* One round trip each. A rollback leaves no transaction, or a dead connection. */
    int (*begin)(void *conn, const struct thr_begin *how, throng_error *err);
    int (*commit)(void *conn, throng_error *err);
    int (*rollback)(void *conn, throng_error *err);
    int (*savepoint)(void *conn, enum thr_savepoint what, unsigned level, throng_error *err);
    /* As far as the last answer told; cheap. */
    bool (*in_transaction)(void *conn);

    int (*ping)(void *conn, throng_error *err);
    /* What the user has left open with the help of `native`: "a transaction", "a statement"; NULL: nothing. No statement of
     * the pool's is running. */
    const char *(*left_open)(void *conn);
    /* Before a connection on which something failed, or that was given to the user, is used by somebody else: no statement
     * runs, no transaction is open. THRONG_OK if it is as good as new (round trips are allowed), else it is closed. */
    int (*reset_session)(void *conn);
    /* For a user who knows the database behind it: sqlite3 *. */
    void *(*native)(void *conn);
};

extern const struct thr_driver thr_sqlite_driver;

/* Fill *err, if there is one, and return the code. The message is formatted; `sql` may be NULL. */
int thr_error_set(throng_error *err, int code, int driver_code, const char *sql, const char *format, ...) THR_COLD
    __attribute__((format(printf, 5, 6)));

#endif
