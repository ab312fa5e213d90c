/* The sqlite driver: connections, statements, transactions. Where the DSN is understood: sqlite_source.c.
 *
 * SPDX-License-Identifier: MIT */
#include "sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"

enum {
    PROGRESS_OPERATIONS = 1000, /* of SQLite's machine between two looks at the clock: some 10 us */
    BUSY_FIRST_NS = 50000,
    BUSY_LONGEST_NS = 10000000 /* what an interrupt may take while a lock is waited for */
};

/* --- errors --- */

THR_COLD static int classify(struct sqlite_conn *conn, int rc)
{
    switch (rc) {
    case SQLITE_BUSY_SNAPSHOT:
        return THRONG_CONFLICT;
    case SQLITE_LOCKED_SHAREDCACHE:
        return THRONG_BUSY;
    case SQLITE_READONLY_DBMOVED:
        conn->broken = true;
        return THRONG_READONLY;
    case SQLITE_IOERR_NOMEM:
        return THRONG_NOMEM;
    default:
        break;
    }
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_INTERRUPT:
        if (conn->deadline_passed)
            return THRONG_TIMEOUT;
        if ((rc & 0xff) == SQLITE_INTERRUPT || atomic_load_explicit(&conn->interrupted, memory_order_relaxed))
            return THRONG_CANCELED;
        return THRONG_BUSY;
    case SQLITE_PROTOCOL:
        return THRONG_BUSY;
    case SQLITE_CONSTRAINT:
        return THRONG_CONSTRAINT;
    case SQLITE_READONLY:
        return THRONG_READONLY;
    case SQLITE_FULL:
        return THRONG_FULL;
    case SQLITE_NOMEM:
        return THRONG_NOMEM;
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
        return THRONG_MISUSE;
    case SQLITE_IOERR:
        conn->broken = true; /* Throng's log and SQLite's pager both want a new connection after that */
        return THRONG_IO;
    case SQLITE_CANTOPEN: /* the file of an ATTACH, perhaps */
        conn->doubtful = true;
        return THRONG_IO;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        conn->doubtful = true;
        return THRONG_ERROR;
    default:
        return THRONG_ERROR;
    }
}

THR_COLD int thr_sqlite_error(struct sqlite_conn *conn, int rc, const char *sql, throng_error *err)
{
    int code = classify(conn, rc);

    (void)thr_error_set(err, code, rc, sql, "%s",
                        code == THRONG_TIMEOUT || code == THRONG_CANCELED ? throng_code_text(code)
                        : conn->db != NULL                                ? sqlite3_errmsg(conn->db)
                                                                          : sqlite3_errstr(rc));
    if (err != NULL && conn->db != NULL)
        err->position = sqlite3_error_offset(conn->db);
    return code;
}

/* --- limits --- */

static bool must_stop(struct sqlite_conn *conn)
{
    if (atomic_load_explicit(&conn->interrupted, memory_order_relaxed))
        return true;
    if (conn->deadline_ns != 0 && thr_os_now_ns() >= conn->deadline_ns)
        conn->deadline_passed = true;
    return conn->deadline_passed;
}

/* SQLite asks once more when a statement has ended, and would return SQLITE_INTERRUPT for what has been committed. So it
 * is never stopped then. Where it is not stopped either: inside sqlite3_exec(), where savepoints are ended. */
static int on_progress(void *arg)
{
    struct sqlite_conn *conn = arg;

    return conn->current != NULL && sqlite3_stmt_busy(conn->current) != 0 && (conn->stop_now || must_stop(conn)) ? 1
                                                                                                                 : 0;
}

static int on_busy(void *arg, int count)
{
    struct sqlite_conn *conn = arg;
    uint64_t now = thr_os_now_ns(), wait_ns = (uint64_t)BUSY_FIRST_NS << (count < 8 ? count : 8), end_ns;

    if (count == 0)
        conn->busy_since_ns = now;
    end_ns = conn->busy_since_ns + (uint64_t)conn->busy_timeout_ms * 1000000;
    if (must_stop(conn) || now >= end_ns)
        return 0;
    if (conn->deadline_ns != 0 && conn->deadline_ns < end_ns)
        end_ns = conn->deadline_ns;
    if (wait_ns > BUSY_LONGEST_NS)
        wait_ns = BUSY_LONGEST_NS;
    thr_os_sleep_ns(now < end_ns && wait_ns > end_ns - now ? end_ns - now : wait_ns);
    return 1;
}

/* sqlite3_interrupt() alone is not enough: an interrupt that comes just before a statement begins is forgotten by it. Our
 * own flag stays, and the progress handler asks for it. Nor is the flag enough: SQLite counts the rows of a table, or checks
 * one, in a single operation. */
static void conn_limits(void *arg, uint64_t deadline_ns, bool interruptible)
{
    struct sqlite_conn *conn = arg;
    bool wanted = deadline_ns != 0 || interruptible;

    conn->deadline_ns = deadline_ns;
    conn->interruptible = interruptible;
    conn->deadline_passed = false;
    atomic_store_explicit(&conn->interrupted, false, memory_order_relaxed);
    if (wanted != conn->has_handler)
        sqlite3_progress_handler(conn->db, wanted ? PROGRESS_OPERATIONS : 0, wanted ? on_progress : NULL, conn);
    conn->has_handler = wanted;
}

static void conn_interrupt(void *arg)
{
    struct sqlite_conn *conn = arg;
    uint32_t expected = THR_STEP_ALONE;

    /* seq_cst, as in step_begin(): either the owner sees the flag, or this sees that the owner is in its step */
    atomic_store_explicit(&conn->interrupted, true, memory_order_seq_cst);
    if (!atomic_compare_exchange_strong_explicit(&conn->step, &expected, THR_STEP_STOPPING, memory_order_seq_cst,
                                                 memory_order_relaxed))
        return;
    sqlite3_interrupt(conn->db);
    atomic_store_explicit(&conn->step, THR_STEP_STOPPED, memory_order_release); /* pairs with step_end() */
}

/* The step of a statement that is alone begins. False: a token has fired. */
THR_COLD static bool step_begin(struct sqlite_conn *conn)
{
    THR_ASSERT(atomic_load_explicit(&conn->step, memory_order_relaxed) == THR_STEP_NONE);
    atomic_store_explicit(&conn->step, THR_STEP_ALONE, memory_order_seq_cst);
    return !atomic_load_explicit(&conn->interrupted, memory_order_seq_cst);
}

/* It has ended. True: sqlite3_interrupt() was called meanwhile; it never is after this. */
THR_COLD static bool step_end(struct sqlite_conn *conn)
{
    uint32_t expected = THR_STEP_ALONE;

    if (atomic_compare_exchange_strong_explicit(&conn->step, &expected, THR_STEP_NONE, memory_order_relaxed,
                                                memory_order_relaxed))
        return false;
    /* Between two instructions of the token's thread. acquire: pairs with conn_interrupt() */
    while (atomic_load_explicit(&conn->step, memory_order_acquire) != THR_STEP_STOPPED)
        thr_os_yield();
    atomic_store_explicit(&conn->step, THR_STEP_NONE, memory_order_relaxed);
    return true;
}

/* --- connections --- */

static void conn_close(void *arg)
{
    struct sqlite_conn *conn = arg;

    for (size_t i = 0; i < sizeof conn->begin / sizeof conn->begin[0]; i++)
        (void)sqlite3_finalize(conn->begin[i]);
    (void)sqlite3_finalize(conn->commit);
    (void)sqlite3_finalize(conn->rollback);
    if (conn->db != NULL) /* whoever holds it even now must not ask */
        (void)sqlite3_file_control(conn->db, "main", THR_FCNTL_RUNNING, NULL);
    (void)sqlite3_close_v2(conn->db);
    thr_os_free(conn);
}

static int conn_open(void *arg, uint64_t deadline_ns, void **conn_out, throng_error *err)
{
    const struct sqlite_source *source = arg;
    struct sqlite_conn *conn = thr_os_alloc(sizeof *conn);
    bool told = false;
    int rc, code;

    *conn_out = NULL;
    if (conn == NULL)
        return thr_error_set(err, THRONG_NOMEM, 0, NULL, "no memory for a connection");
    conn->busy_timeout_ms = source->busy_timeout_ms;
    conn->is_private = source->is_private;
    conn->deadline_ns = deadline_ns;
    rc = sqlite3_open_v2(source->uri, &conn->db, THR_SQLITE_OPEN_FLAGS, source->vfs);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_handler(conn->db, on_busy, conn);
    if (rc == SQLITE_OK)
        rc = thr_sqlite_settings_apply(source, conn->db, &told, err);
    /* Opening is lazy in SQLite. This finds out whether there is a database. */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(conn->db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (rc == SQLITE_OK && source->must_write && sqlite3_db_readonly(conn->db, "main") != 0) {
        rc = SQLITE_READONLY;
        told = true;
        (void)thr_error_set(err, THRONG_READONLY, rc, NULL,
                            "dsn: mode asks for writing, and the database can only be read");
    }
    if (rc == SQLITE_OK) {
        conn_limits(conn, 0, false);
        (void)sqlite3_file_control(conn->db, "main", THR_FCNTL_RUNNING, &conn->running); /* other VFSs do not know it */
        *conn_out = conn;
        return THRONG_OK;
    }
    if (told)
        code = rc == SQLITE_READONLY ? THRONG_READONLY : THRONG_MISUSE;
    else
        code = thr_sqlite_error(conn, rc, NULL, err);
    conn_close(conn);
    return code;
}

static const char *conn_left_open(void *arg)
{
    struct sqlite_conn *conn = arg;
    const char *what = NULL;

    for (sqlite3_stmt *stmt = sqlite3_next_stmt(conn->db, NULL); stmt != NULL;
         stmt = sqlite3_next_stmt(conn->db, stmt)) {
        if (sqlite3_stmt_busy(stmt) != 0)
            what = sqlite3_sql(stmt) != NULL ? "a statement" : "a blob";
    }
    if (sqlite3_get_autocommit(conn->db) == 0)
        what = "a transaction";
    else if (what == NULL && sqlite3_txn_state(conn->db, NULL) != SQLITE_TXN_NONE)
        what = "a backup";
    if (what == NULL)
        conn->has_native = false;
    return what;
}

/* The statements that the user has left in the middle of their rows: with them would stay their snapshot. A blob cannot be
 * reset, since its handle would point nowhere. */
static void reset_statements(struct sqlite_conn *conn)
{
    for (sqlite3_stmt *stmt = sqlite3_next_stmt(conn->db, NULL); stmt != NULL;
         stmt = sqlite3_next_stmt(conn->db, stmt)) {
        if (sqlite3_stmt_busy(stmt) != 0 && sqlite3_sql(stmt) != NULL)
            (void)sqlite3_reset(stmt);
    }
}

static int probe(struct sqlite_conn *conn)
{
    return sqlite3_exec(conn->db, "SELECT count(*) FROM main.sqlite_schema", NULL, NULL, NULL);
}

/* A database that would end with its connection has no better one. */
static int conn_reset_session(void *arg)
{
    struct sqlite_conn *conn = arg;
    bool broken;

    conn_limits(conn, 0, false);
    broken = conn->broken && !conn->is_private;
    if (!broken && sqlite3_get_autocommit(conn->db) == 0)
        (void)sqlite3_exec(conn->db, "ROLLBACK", NULL, NULL, NULL);
    if (!broken && conn_left_open(conn) != NULL)
        reset_statements(conn);
    if (!broken && !conn->is_private && conn->doubtful)
        broken = probe(conn) != SQLITE_OK;
    if (!broken && conn_left_open(conn) != NULL)
        broken = !conn->is_private;
    conn->read_only = conn->doubtful = false;
    return broken ? THRONG_CONN_LOST : THRONG_OK;
}

static int conn_ping(void *arg, throng_error *err)
{
    struct sqlite_conn *conn = arg;
    int rc = probe(conn);

    return rc == SQLITE_OK ? THRONG_OK : thr_sqlite_error(conn, rc, NULL, err);
}

static void *conn_native(void *arg)
{
    struct sqlite_conn *conn = arg;

    conn->has_native = true;
    return conn->db;
}

/* --- statements --- */

static int stmt_prepare(void *arg, const char *sql, size_t bytes, bool keep, void **stmt_out,
                        struct thr_statement_info *info, throng_error *err)
{
    struct sqlite_conn *conn = arg;
    bool begins_read_only = false;
    const char *replaced, *tail = NULL;
    struct sqlite_stmt *stmt;
    sqlite3_stmt *compiled = NULL;
    size_t taken;
    int rc;

    *stmt_out = NULL;
    *info = (struct thr_statement_info){0};
    if (bytes > INT32_MAX - 1)
        return thr_error_set(err, THRONG_MISUSE, SQLITE_TOOBIG, sql, "the statement is too long");
    replaced = thr_sqlite_begin_word(sql, &taken, &begins_read_only);
    if (replaced != NULL) {
        rc = sqlite3_prepare_v3(conn->db, replaced, -1, keep ? SQLITE_PREPARE_PERSISTENT : 0, &compiled, NULL);
        tail = sql + taken;
    } else {
        rc = sqlite3_prepare_v3(conn->db, sql, (int)bytes + 1, keep ? SQLITE_PREPARE_PERSISTENT : 0, &compiled, &tail);
    }
    if (rc != SQLITE_OK)
        return thr_sqlite_error(conn, rc, sql, err);
    tail = thr_sqlite_skip_space(tail, true);
    if (*tail != '\0')
        info->tail = (size_t)(tail - sql);
    if (compiled == NULL)
        return THRONG_OK;
    if ((stmt = thr_os_alloc(sizeof *stmt)) == NULL) {
        (void)sqlite3_finalize(compiled);
        return thr_error_set(err, THRONG_NOMEM, 0, sql, "no memory for a statement");
    }
    stmt->stmt = compiled;
    stmt->is_write = sqlite3_stmt_readonly(compiled) == 0;
    stmt->counts = stmt->is_write && thr_sqlite_changes_rows(sql);
    stmt->begins_read_only = begins_read_only;
    stmt->parameters = sqlite3_bind_parameter_count(compiled);
    info->opens = thr_sqlite_opens(sql);
    info->writes = stmt->is_write;
    info->at_once = stmt->is_write || sqlite3_column_count(compiled) == 0;
    *stmt_out = stmt;
    return THRONG_OK;
}

static void stmt_finalize(void *arg, void *statement)
{
    struct sqlite_conn *conn = arg;
    struct sqlite_stmt *stmt = statement;

    if (stmt->started)
        conn->started--;
    (void)sqlite3_finalize(stmt->stmt);
    thr_os_free(stmt);
}

THR_HOT static int bind_one(struct sqlite_stmt *stmt, int index, const throng_value *value, bool stay)
{
    const void *bytes = value->as.bytes;

    if (value->type >= THRONG_TEXT && bytes == NULL) {
        if (value->size != 0)
            return SQLITE_MISUSE;
        bytes = "";
    }
    switch (value->type) {
    case THRONG_INT64:
        return sqlite3_bind_int64(stmt->stmt, index, value->as.integer);
    case THRONG_DOUBLE:
        return sqlite3_bind_double(stmt->stmt, index, value->as.real);
    case THRONG_TEXT:
        stmt->owns_bytes = stmt->owns_bytes || !stay;
        return sqlite3_bind_text64(stmt->stmt, index, bytes, value->size, stay ? SQLITE_STATIC : SQLITE_TRANSIENT,
                                   SQLITE_UTF8);
    case THRONG_BLOB:
        stmt->owns_bytes = stmt->owns_bytes || !stay;
        return sqlite3_bind_blob64(stmt->stmt, index, bytes, value->size, stay ? SQLITE_STATIC : SQLITE_TRANSIENT);
    case THRONG_NULL:
        return sqlite3_bind_null(stmt->stmt, index);
    default:
        return SQLITE_MISUSE;
    }
}

/* Why bind_one() has failed. */
THR_COLD static int bind_failed(struct sqlite_conn *conn, struct sqlite_stmt *stmt, int index,
                                const throng_value *value, int rc, throng_error *err)
{
    const char *sql = sqlite3_sql(stmt->stmt);

    if (value->type > THRONG_BLOB)
        return thr_error_set(err, THRONG_MISUSE, 0, sql, "argument %d has the type %u, which there is not", index,
                             value->type);
    if (value->type >= THRONG_TEXT && value->as.bytes == NULL && value->size != 0)
        return thr_error_set(err, THRONG_MISUSE, 0, sql, "argument %d has %zu bytes, and NULL where they should be",
                             index, value->size);
    return thr_sqlite_error(conn, rc, sql, err);
}

static const throng_value *find_named(const char *name, const throng_value *args, size_t count)
{
    for (size_t i = 0; name != NULL && i < count; i++) {
        const char *given = args[i].name;

        if (given != NULL && strcmp(*given != '\0' && strchr(":@$?", *given) != NULL ? name : name + 1, given) == 0)
            return &args[i];
    }
    return NULL;
}

THR_COLD static int bind_named(struct sqlite_conn *conn, struct sqlite_stmt *stmt, const throng_value *args,
                               size_t count, bool stay, throng_error *err)
{
    int rc;

    for (int i = 1; i <= stmt->parameters; i++) {
        const char *name = sqlite3_bind_parameter_name(stmt->stmt, i);
        const throng_value *value = find_named(name, args, count);

        if (value == NULL)
            return thr_error_set(err, THRONG_MISUSE, 0, sqlite3_sql(stmt->stmt), "parameter %s has no argument",
                                 name != NULL ? name : "?");
        if ((rc = bind_one(stmt, i, value, stay)) != SQLITE_OK)
            return bind_failed(conn, stmt, i, value, rc, err);
    }
    return THRONG_OK;
}

THR_HOT static int stmt_start(void *arg, void *statement, const throng_value *args, size_t count, bool stay,
                              throng_error *err)
{
    struct sqlite_conn *conn = arg;
    struct sqlite_stmt *stmt = statement;
    int parameters = stmt->parameters, rc;

    if (count != (size_t)parameters)
        return thr_error_set(err, THRONG_MISUSE, 0, sqlite3_sql(stmt->stmt),
                             "the statement has %d parameters, there are %zu arguments", parameters, count);
    if (conn->read_only) {
        if (sqlite3_get_autocommit(conn->db) != 0)
            conn->read_only = false; /* that transaction is over */
        else if (stmt->is_write)
            return thr_error_set(err, THRONG_READONLY, SQLITE_READONLY, sqlite3_sql(stmt->stmt),
                                 "a write in a read-only transaction");
    }
    if (count > 0 && args[0].name != NULL)
        return bind_named(conn, stmt, args, count, stay, err);
    for (int i = 0; i < parameters; i++) {
        if (args[i].name != NULL)
            return thr_error_set(err, THRONG_MISUSE, 0, sqlite3_sql(stmt->stmt),
                                 "some arguments are named, some are not");
        rc = args[i].type == THRONG_INT64 ? sqlite3_bind_int64(stmt->stmt, i + 1, args[i].as.integer)
                                          : bind_one(stmt, i + 1, &args[i], stay);
        if (rc != SQLITE_OK)
            return bind_failed(conn, stmt, i + 1, &args[i], rc, err);
    }
    return THRONG_OK;
}

/* One more step, which stops wherever it can. A statement that writes can then come to its end all the same: SQLite does
 * its commit between two looks at the handler. The code tells which. */
THR_COLD static int step_to_stop(struct sqlite_conn *conn, sqlite3_stmt *stmt)
{
    int rc;

    conn->stop_now = true;
    sqlite3_progress_handler(conn->db, 1, on_progress, conn);
    rc = sqlite3_step(stmt);
    conn->stop_now = false;
    sqlite3_progress_handler(conn->db, conn->has_handler ? PROGRESS_OPERATIONS : 0,
                             conn->has_handler ? on_progress : NULL, conn);
    return rc;
}

/* The step of a statement that a token may stop, and that is the only one. */
THR_COLD static int step_alone(struct sqlite_conn *conn, sqlite3_stmt *stmt)
{
    int rc;

    if (step_begin(conn))
        rc = sqlite3_step(stmt);
    else
        rc = sqlite3_stmt_busy(stmt) != 0 ? step_to_stop(conn, stmt) : SQLITE_INTERRUPT;
    /* The interrupt came too late for the row that there is. It would stop whichever statement comes next. */
    if (step_end(conn) && rc == SQLITE_ROW)
        rc = sqlite3_step(stmt);
    return rc;
}

THR_HOT static int stmt_next(void *arg, void *statement, throng_error *err)
{
    struct sqlite_conn *conn = arg;
    struct sqlite_stmt *stmt = statement;
    int rc;

    if (!stmt->started) {
        stmt->started = true;
        conn->started++;
    }
    conn->running.only = conn->started == 1 ? stmt->stmt : NULL;
    conn->current = stmt->stmt;
    if (conn->interruptible && conn->started == 1 && !conn->has_native)
        rc = step_alone(conn, stmt->stmt);
    else
        rc = sqlite3_step(stmt->stmt);
    conn->current = NULL;
    conn->running.only = NULL;
    if (rc == SQLITE_ROW)
        return THRONG_ROW;
    if (rc == SQLITE_DONE) {
        if (stmt->begins_read_only)
            conn->read_only = true;
        return THRONG_DONE;
    }
    stmt->failed = true;
    return thr_sqlite_error(conn, rc, sqlite3_sql(stmt->stmt), err);
}

static int stmt_undo(void *arg, void *statement, throng_error *err)
{
    struct sqlite_conn *conn = arg;
    struct sqlite_stmt *stmt = statement;
    int rc;

    if (sqlite3_stmt_busy(stmt->stmt) == 0)
        return stmt->started && !stmt->failed ? THRONG_DONE : THRONG_OK;
    conn->running.only = conn->started == 1 ? stmt->stmt : NULL;
    conn->current = stmt->stmt;
    rc = step_to_stop(conn, stmt->stmt);
    conn->current = NULL;
    conn->running.only = NULL;
    THR_ASSERT(rc != SQLITE_ROW);
    if (rc == SQLITE_DONE)
        return THRONG_DONE;
    stmt->failed = true;
    return rc == SQLITE_INTERRUPT ? THRONG_OK : thr_sqlite_error(conn, rc, sqlite3_sql(stmt->stmt), err);
}

THR_HOT static int stmt_reset(void *arg, void *statement, throng_error *err)
{
    struct sqlite_conn *conn = arg;
    struct sqlite_stmt *stmt = statement;
    int rc = sqlite3_reset(stmt->stmt), code = THRONG_OK;

    if (stmt->started) {
        stmt->started = false;
        conn->started--;
    }
    if (rc != SQLITE_OK && !stmt->failed) /* a statement that was ended early commits here */
        code = thr_sqlite_error(conn, rc, sqlite3_sql(stmt->stmt), err);
    stmt->failed = false;
    if (stmt->owns_bytes) {
        (void)sqlite3_clear_bindings(stmt->stmt);
        stmt->owns_bytes = false;
    }
    return code;
}

static void stmt_result(void *arg, void *statement, throng_result *result)
{
    const struct sqlite_conn *conn = arg;
    const struct sqlite_stmt *stmt = statement;

    result->changes = stmt->counts ? sqlite3_changes64(conn->db) : 0;
    result->last_insert_id = sqlite3_last_insert_rowid(conn->db);
}

/* --- columns --- */

static sqlite3_stmt *compiled_of(void *statement)
{
    return ((struct sqlite_stmt *)statement)->stmt;
}

static int row_columns(void *statement)
{
    return sqlite3_column_count(compiled_of(statement));
}

static const char *row_name(void *statement, int column)
{
    return sqlite3_column_name(compiled_of(statement), column);
}

static const char *row_decltype(void *statement, int column)
{
    return sqlite3_column_decltype(compiled_of(statement), column);
}

static enum throng_type row_type(void *statement, int column)
{
    switch (sqlite3_column_type(compiled_of(statement), column)) {
    case SQLITE_INTEGER:
        return THRONG_INT64;
    case SQLITE_FLOAT:
        return THRONG_DOUBLE;
    case SQLITE_TEXT:
        return THRONG_TEXT;
    case SQLITE_BLOB:
        return THRONG_BLOB;
    default:
        return THRONG_NULL;
    }
}

THR_HOT static int64_t row_integer(void *statement, int column)
{
    return sqlite3_column_int64(compiled_of(statement), column);
}

static double row_real(void *statement, int column)
{
    return sqlite3_column_double(compiled_of(statement), column);
}

static const char *row_text(void *statement, int column, size_t *size_out)
{
    const char *text = (const char *)sqlite3_column_text(compiled_of(statement), column);

    *size_out = text != NULL ? (size_t)sqlite3_column_bytes(compiled_of(statement), column) : 0;
    return text;
}

/* An empty blob or text is not NULL, but SQLite has no pointer for it. */
static const void *row_blob(void *statement, int column, size_t *size_out)
{
    sqlite3_stmt *stmt = compiled_of(statement);
    int type = sqlite3_column_type(stmt, column);
    const void *blob = sqlite3_column_blob(stmt, column);

    *size_out = blob != NULL ? (size_t)sqlite3_column_bytes(stmt, column) : 0;
    return blob == NULL && (type == SQLITE_BLOB || type == SQLITE_TEXT) ? "" : blob;
}

/* --- transactions --- */

static int run_kept(struct sqlite_conn *conn, sqlite3_stmt **kept, const char *sql, throng_error *err)
{
    int rc = SQLITE_OK, code;

    if (*kept == NULL)
        rc = sqlite3_prepare_v3(conn->db, sql, -1, SQLITE_PREPARE_PERSISTENT, kept, NULL);
    if (rc != SQLITE_OK)
        return thr_sqlite_error(conn, rc, sql, err);
    conn->current = *kept;
    rc = sqlite3_step(*kept);
    conn->current = NULL;
    code = rc == SQLITE_DONE ? THRONG_OK : thr_sqlite_error(conn, rc, sql, err);
    (void)sqlite3_reset(*kept);
    return code;
}

static int conn_begin(void *arg, const struct thr_begin *how, throng_error *err)
{
    static const char *const begins[] = {"BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"};
    struct sqlite_conn *conn = arg;
    enum throng_tx_mode mode = how->read_only ? THRONG_DEFERRED : how->mode;
    int code = run_kept(conn, &conn->begin[mode], begins[mode], err);

    if (code == THRONG_OK)
        conn->read_only = how->read_only;
    return code;
}

static int conn_commit(void *arg, throng_error *err)
{
    struct sqlite_conn *conn = arg;

    return run_kept(conn, &conn->commit, "COMMIT", err);
}

static int conn_rollback(void *arg, throng_error *err)
{
    struct sqlite_conn *conn = arg;
    int code = THRONG_OK;

    if (sqlite3_get_autocommit(conn->db) == 0)
        code = run_kept(conn, &conn->rollback, "ROLLBACK", err);
    if (sqlite3_get_autocommit(conn->db) != 0)
        return THRONG_OK;
    conn->broken = true;
    return code != THRONG_OK ? code : THRONG_ERROR;
}

static int conn_savepoint(void *arg, enum thr_savepoint what, unsigned level, throng_error *err)
{
    static const char *const formats[] = {"SAVEPOINT throng_%u", "RELEASE throng_%u",
                                          "ROLLBACK TO throng_%u; RELEASE throng_%u"};
    struct sqlite_conn *conn = arg;
    char sql[80];
    int rc;

    (void)snprintf(sql, sizeof sql, formats[what], level, level);
    rc = sqlite3_exec(conn->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? THRONG_OK : thr_sqlite_error(conn, rc, sql, err);
}

THR_HOT static bool conn_in_transaction(void *arg)
{
    return sqlite3_get_autocommit(((struct sqlite_conn *)arg)->db) == 0;
}

const struct thr_driver thr_sqlite_driver = {
    .name = "sqlite",
    .source_open = thr_sqlite_source_open,
    .source_close = thr_sqlite_source_close,
    .open = conn_open,
    .close = conn_close,
    .limits = conn_limits,
    .interrupt = conn_interrupt,
    .prepare = stmt_prepare,
    .finalize = stmt_finalize,
    .start = stmt_start,
    .next = stmt_next,
    .reset = stmt_reset,
    .undo = stmt_undo,
    .result = stmt_result,
    .columns = row_columns,
    .name_of = row_name,
    .decltype_of = row_decltype,
    .type = row_type,
    .integer = row_integer,
    .real = row_real,
    .text = row_text,
    .blob = row_blob,
    .begin = conn_begin,
    .commit = conn_commit,
    .rollback = conn_rollback,
    .savepoint = conn_savepoint,
    .in_transaction = conn_in_transaction,
    .ping = conn_ping,
    .left_open = conn_left_open,
    .reset_session = conn_reset_session,
    .native = conn_native,
};
