/* What the files of the sqlite driver share.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SQLITE_H
#define THR_SQLITE_H

#include <sqlite3.h>
#include <stdatomic.h>

#include "../vfs/running.h"
#include "driver.h"

/* A PRAGMA, and the value with which SQLite answers it when it is in force. */
struct sqlite_setting {
    const char *name;
    char value[24];
};

enum { THR_SETTINGS = 6 };

/* A DSN, understood. Constant once made. */
struct sqlite_source {
    char *uri; /* for sqlite3_open_v2() */
    char *vfs; /* NULL: SQLite's default */
    struct sqlite_setting settings[THR_SETTINGS];
    int setting_count;
    int busy_timeout_ms;
    bool must_write; /* a file that can only be read will not do */
    bool is_private; /* each connection has a database of its own */
    bool is_memory;  /* it ends with the last connection */
    sqlite3 *anchor; /* if so: the one that is kept */
};

#define THR_SQLITE_OPEN_FLAGS \
    (SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE)

/* sqlite3_interrupt() stops all statements of a connection, and is in force until none is active any more. So it is called
 * only while the one statement that it is meant for is the only one, inside its step. */
enum thr_sqlite_step {
    THR_STEP_NONE = 0,
    THR_STEP_ALONE = 1,    /* the owner is in a step that may be interrupted */
    THR_STEP_STOPPING = 2, /* a token is about to call sqlite3_interrupt() */
    THR_STEP_STOPPED = 3   /* it has */
};

/*   field        writer
 *   interrupted  any thread; cleared by the owner
 *   step         the owner: NONE, ALONE; the token that found ALONE: STOPPING, STOPPED
 *   all others   the thread that owns the connection */
struct sqlite_conn {
    sqlite3 *db;
    uint64_t deadline_ns;  /* 0: none */
    sqlite3_stmt *current; /* in sqlite3_step(): what the progress handler may stop; NULL: nothing */
    bool has_handler;      /* a progress handler is installed */
    bool interruptible;    /* a token may come */
    bool stop_now;         /* the handler stops what runs wherever it can */
    bool deadline_passed;  /* why the handler stopped it */
    bool broken;           /* not to be used by anybody else */
    bool doubtful;         /* perhaps broken: an error about a file, but about which one is not known */
    bool is_private;       /* the database ends with the connection: never broken */
    bool has_native;       /* the user has the sqlite3 *, and may run statements that are not known here */
    bool read_only;        /* the transaction is */
    int busy_timeout_ms;
    uint64_t busy_since_ns;
    sqlite3_stmt *begin[3], *commit, *rollback;
    struct thr_running running;
    unsigned started; /* statements that have been and are not yet reset */
    _Atomic bool interrupted;
    _Atomic uint32_t step; /* enum thr_sqlite_step */
};

struct sqlite_stmt {
    sqlite3_stmt *stmt;
    int parameters;
    bool started;    /* and not yet reset */
    bool failed;     /* the last step did, and has said so */
    bool owns_bytes; /* bindings hold copies */
    bool is_write;
    bool counts;           /* sqlite3_changes64() is about it */
    bool begins_read_only; /* it was BEGIN READONLY */
};

int thr_sqlite_source_open(const char *dsn, void (*log)(void *, const char *), void *log_arg, void **source_out,
                           bool *private_out, throng_error *err);
void thr_sqlite_source_close(void *arg);

/* --- sqlite_dsn.c --- */
/* Fills in *source, which is zero; also on failure it may have texts that are to be freed. */
int thr_sqlite_dsn_parse(const char *dsn, struct sqlite_source *source, throng_error *err);
/* Set what the DSN asks for, and read it back. An SQLite result code; *told_out: *err has been filled in. */
int thr_sqlite_settings_apply(const struct sqlite_source *source, sqlite3 *db, bool *told_out, throng_error *err);

/* Before the first connection of the process: settings that SQLite takes only then. */
int thr_sqlite_start(throng_error *err);
/* After a connection has been opened: say once if memory is accounted for. */
void thr_sqlite_started(void (*log)(void *, const char *), void *log_arg);

/* The code for an SQLite result code, and *err from the connection's last error. */
int thr_sqlite_error(struct sqlite_conn *conn, int rc, const char *sql, throng_error *err);

/* BEGIN READONLY and BEGIN CONCURRENT, which stock SQLite does not know: returns what to prepare instead, and how many
 * bytes of `sql` that stands for; NULL for anything else. */
const char *thr_sqlite_begin_word(const char *sql, size_t *bytes_out, bool *read_only_out);
/* Past blanks and comments, and semicolons if so. */
const char *thr_sqlite_skip_space(const char *sql, bool semicolons);
/* Whether the statement opens a transaction. */
bool thr_sqlite_opens(const char *sql);
/* Whether it inserts, changes or deletes rows, if it writes at all. */
bool thr_sqlite_changes_rows(const char *sql);

#endif
