/* SPDX-License-Identifier: MIT */
#include "fake.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

struct fake_conn {
    _Atomic int inside; /* calls that are running: never two */
    _Atomic bool interrupted;
    _Atomic bool interruptible;
    bool in_transaction, dead;
    uint64_t deadline_ns;
    int open_statements, writes;
};

enum fake_word { WORD_ROWS, WORD_INSERT, WORD_WRITE, WORD_WAIT, WORD_BEGIN, WORD_END, WORD_LOSE, WORD_CONFLICT };

struct fake_stmt {
    struct fake_conn *conn;
    enum fake_word word;
    int rows, row;
    bool running;
};

static _Atomic int conns, conns_most, statements, prepared, writes, interrupts, waiting, calls_to_failure, fail_code;
static _Atomic bool has_failed, let_go;
static _Atomic int undo_code;

void fake_reset(void)
{
    conns = conns_most = statements = prepared = writes = interrupts = waiting = 0;
    calls_to_failure = 0;
    has_failed = let_go = false;
    undo_code = THRONG_OK;
}

void fake_fail_at(int n, int code)
{
    fail_code = code;
    has_failed = false;
    calls_to_failure = n;
}

bool fake_has_failed(void)
{
    return has_failed;
}

void fake_let_go(void)
{
    let_go = true;
}

void fake_undo_says(int code)
{
    undo_code = code;
}

int fake_waiting(void)
{
    return waiting;
}

int fake_conns(void)
{
    return conns;
}

int fake_conns_most(void)
{
    return conns_most;
}

int fake_statements(void)
{
    return statements;
}

int fake_prepared(void)
{
    return prepared;
}

int fake_writes(void)
{
    return writes;
}

int fake_interrupts(void)
{
    return interrupts;
}

static void enter(struct fake_conn *conn)
{
    CHECK_EQUAL(atomic_fetch_add(&conn->inside, 1), 0);
}

static int leave(struct fake_conn *conn, int code)
{
    CHECK_EQUAL(atomic_fetch_sub(&conn->inside, 1), 1);
    return code;
}

/* A call that may fail, on a connection that lives. */
static int may_fail(struct fake_conn *conn, throng_error *err)
{
    if (conn != NULL)
        CHECK(!conn->dead);
    if (atomic_load(&calls_to_failure) == 0 || atomic_fetch_sub(&calls_to_failure, 1) != 1)
        return THRONG_OK;
    has_failed = true;
    if (conn != NULL && (fail_code == THRONG_CONN_LOST || fail_code == THR_CONN_STALE)) {
        conn->dead = true;
        conn->in_transaction = false;
    }
    return thr_error_set(err, fail_code, 4711, NULL, "the fake fails");
}

static int source_open(const char *dsn, void (*log)(void *, const char *), void *log_arg, void **source_out,
                       bool *private_out, throng_error *err)
{
    (void)dsn;
    (void)log;
    (void)log_arg;
    *private_out = false;
    *source_out = NULL;
    return may_fail(NULL, err);
}

static void source_close(void *source)
{
    (void)source;
}

static int fake_open(void *source, uint64_t deadline_ns, void **conn_out, throng_error *err)
{
    int code = may_fail(NULL, err), now, most;

    (void)source;
    (void)deadline_ns;
    *conn_out = NULL;
    if (code != THRONG_OK)
        return code;
    now = atomic_fetch_add(&conns, 1) + 1;
    most = conns_most;
    while (now > most && !atomic_compare_exchange_weak(&conns_most, &most, now))
        ;
    *conn_out = calloc(1, sizeof(struct fake_conn));
    CHECK(*conn_out != NULL);
    return THRONG_OK;
}

static void fake_close(void *arg)
{
    struct fake_conn *conn = arg;

    enter(conn);
    CHECK_EQUAL(conn->open_statements, 0);
    CHECK(!conn->in_transaction || conn->dead);
    (void)atomic_fetch_sub(&conns, 1);
    free(conn);
}

static void fake_limits(void *arg, uint64_t deadline_ns, bool interruptible)
{
    struct fake_conn *conn = arg;

    enter(conn);
    CHECK(!conn->dead);
    conn->deadline_ns = deadline_ns;
    conn->interrupted = false;
    conn->interruptible = interruptible;
    (void)leave(conn, 0);
}

static void fake_interrupt(void *arg)
{
    struct fake_conn *conn = arg;

    CHECK(conn->interruptible);
    conn->interrupted = true;
    (void)atomic_fetch_add(&interrupts, 1);
}

static const struct {
    const char *text;
    enum fake_word word;
} words[] = {{"rows", WORD_ROWS},   {"insert", WORD_INSERT}, {"write", WORD_WRITE}, {"wait", WORD_WAIT},
             {"begin", WORD_BEGIN}, {"end", WORD_END},       {"lose", WORD_LOSE},   {"conflict", WORD_CONFLICT}};

static int fake_prepare(void *arg, const char *sql, size_t bytes, bool keep, void **stmt_out,
                        struct thr_statement_info *info, throng_error *err)
{
    struct fake_conn *conn = arg;
    struct fake_stmt *stmt;
    int code;

    (void)keep;
    enter(conn);
    *stmt_out = NULL;
    *info = (struct thr_statement_info){0};
    CHECK_EQUAL(strlen(sql), bytes);
    if ((code = may_fail(conn, err)) != THRONG_OK || bytes == 0)
        return leave(conn, code);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strncmp(sql, words[i].text, strlen(words[i].text)) != 0)
            continue;
        stmt = calloc(1, sizeof *stmt);
        CHECK(stmt != NULL);
        stmt->conn = conn;
        stmt->word = words[i].word;
        stmt->rows = stmt->word == WORD_ROWS ? atoi(sql + 4) : stmt->word == WORD_INSERT ? atoi(sql + 6) : 0;
        info->writes = info->at_once = stmt->word == WORD_INSERT;
        info->opens = stmt->word == WORD_BEGIN;
        conn->open_statements++;
        (void)atomic_fetch_add(&statements, 1);
        (void)atomic_fetch_add(&prepared, 1);
        *stmt_out = stmt;
        return leave(conn, THRONG_OK);
    }
    return leave(conn, thr_error_set(err, THRONG_ERROR, 1, sql, "the fake does not know this word"));
}

static void fake_finalize(void *arg, void *statement)
{
    struct fake_conn *conn = arg;
    struct fake_stmt *stmt = statement;

    enter(conn);
    CHECK(stmt->conn == conn);
    CHECK(!stmt->running || conn->dead);
    conn->open_statements--;
    (void)atomic_fetch_sub(&statements, 1);
    free(stmt);
    (void)leave(conn, 0);
}

static int fake_start(void *arg, void *statement, const throng_value *args, size_t count, bool stay, throng_error *err)
{
    struct fake_conn *conn = arg;
    struct fake_stmt *stmt = statement;
    int code;

    (void)args;
    (void)count;
    (void)stay;
    enter(conn);
    CHECK(stmt->conn == conn && !stmt->running);
    if ((code = may_fail(conn, err)) == THRONG_OK) {
        stmt->running = true;
        stmt->row = 0;
    }
    return leave(conn, code);
}

static int block(struct fake_conn *conn, throng_error *err)
{
    int code = THRONG_DONE;

    (void)atomic_fetch_add(&waiting, 1);
    while (code == THRONG_DONE && !let_go) {
        if (conn->interrupted)
            code = thr_error_set(err, THRONG_CANCELED, 0, NULL, "interrupted");
        else if (conn->deadline_ns != 0 && throng_now_ns() >= conn->deadline_ns)
            code = thr_error_set(err, THRONG_TIMEOUT, 0, NULL, "deadline");
        sleep_ms(1);
    }
    (void)atomic_fetch_sub(&waiting, 1);
    return code;
}

static void count_write(struct fake_conn *conn)
{
    if (conn->in_transaction)
        conn->writes++;
    else
        (void)atomic_fetch_add(&writes, 1);
}

static int act(struct fake_conn *conn, struct fake_stmt *stmt, throng_error *err)
{
    switch (stmt->word) {
    case WORD_ROWS:
        return stmt->row++ < stmt->rows ? THRONG_ROW : THRONG_DONE;
    case WORD_INSERT:
        if (stmt->row++ < stmt->rows)
            return THRONG_ROW;
        count_write(conn);
        return THRONG_DONE;
    case WORD_WRITE:
        count_write(conn);
        return THRONG_DONE;
    case WORD_WAIT:
        return block(conn, err);
    case WORD_BEGIN:
        conn->in_transaction = true;
        conn->writes = 0;
        return THRONG_DONE;
    case WORD_LOSE:
        conn->in_transaction = false;
        return thr_error_set(err, THRONG_CONFLICT, 0, NULL, "lost");
    case WORD_CONFLICT:
        return thr_error_set(err, THRONG_CONFLICT, 0, NULL, "conflict");
    default:
        conn->in_transaction = false;
        return THRONG_DONE;
    }
}

static int fake_next(void *arg, void *statement, throng_error *err)
{
    struct fake_conn *conn = arg;
    struct fake_stmt *stmt = statement;
    int code;

    enter(conn);
    CHECK(stmt->running && stmt->conn == conn);
    if ((code = may_fail(conn, err)) == THRONG_OK)
        code = act(conn, stmt, err);
    return leave(conn, code);
}

static int fake_end_run(void *arg, void *statement, throng_error *err)
{
    struct fake_conn *conn = arg;
    struct fake_stmt *stmt = statement;

    enter(conn);
    stmt->running = false;
    return leave(conn, may_fail(conn, err));
}

static int fake_undo(void *arg, void *statement, throng_error *err)
{
    struct fake_conn *conn = arg;
    struct fake_stmt *stmt = statement;

    enter(conn);
    CHECK(stmt->running && stmt->conn == conn && stmt->word == WORD_INSERT);
    if (undo_code == THRONG_DONE)
        count_write(conn);
    else if (undo_code != THRONG_OK)
        (void)thr_error_set(err, undo_code, 0, NULL, "the fake cannot undo");
    conn->dead = undo_code == THRONG_CONN_LOST || undo_code == THR_CONN_STALE;
    return leave(conn, undo_code);
}

static void fake_result(void *arg, void *statement, throng_result *result)
{
    (void)arg;
    *result = (throng_result){.changes = ((struct fake_stmt *)statement)->word == WORD_WRITE};
}

static int fake_columns(void *statement)
{
    return ((struct fake_stmt *)statement)->word <= WORD_INSERT;
}

static const char *fake_name(void *statement, int column)
{
    (void)statement;
    return column == 0 ? "row" : NULL;
}

static enum throng_type fake_type(void *statement, int column)
{
    (void)statement;
    return column == 0 ? THRONG_INT64 : THRONG_NULL;
}

static int64_t fake_integer(void *statement, int column)
{
    return column == 0 ? ((struct fake_stmt *)statement)->row : 0;
}

static double fake_real(void *statement, int column)
{
    return (double)fake_integer(statement, column);
}

static const char *fake_text(void *statement, int column, size_t *size_out)
{
    (void)statement;
    (void)column;
    *size_out = 0;
    return NULL;
}

static const void *fake_blob(void *statement, int column, size_t *size_out)
{
    return fake_text(statement, column, size_out);
}

static int fake_begin(void *arg, const struct thr_begin *how, throng_error *err)
{
    struct fake_conn *conn = arg;
    int code;

    (void)how;
    enter(conn);
    CHECK(!conn->in_transaction);
    if ((code = may_fail(conn, err)) == THRONG_OK) {
        conn->in_transaction = true;
        conn->writes = 0;
    }
    return leave(conn, code);
}

static int fake_commit(void *arg, throng_error *err)
{
    struct fake_conn *conn = arg;
    int code;

    enter(conn);
    CHECK(conn->in_transaction);
    if ((code = may_fail(conn, err)) == THRONG_OK) {
        (void)atomic_fetch_add(&writes, conn->writes);
        conn->in_transaction = false;
    }
    return leave(conn, code);
}

/* "A rollback leaves no transaction, or a dead connection." */
static int fake_rollback(void *arg, throng_error *err)
{
    struct fake_conn *conn = arg;
    int code;

    enter(conn);
    code = may_fail(conn, err);
    conn->in_transaction = false;
    return leave(conn, code);
}

static int fake_savepoint(void *arg, enum thr_savepoint what, unsigned level, throng_error *err)
{
    struct fake_conn *conn = arg;

    (void)what;
    (void)level;
    enter(conn);
    CHECK(conn->in_transaction);
    return leave(conn, may_fail(conn, err));
}

static bool fake_in_transaction(void *arg)
{
    return ((struct fake_conn *)arg)->in_transaction;
}

static int fake_ping(void *arg, throng_error *err)
{
    struct fake_conn *conn = arg;

    enter(conn);
    return leave(conn, may_fail(conn, err));
}

static const char *fake_left_open(void *arg)
{
    return ((struct fake_conn *)arg)->in_transaction ? "a transaction" : NULL;
}

static int fake_reset_session(void *arg)
{
    struct fake_conn *conn = arg;

    enter(conn);
    conn->in_transaction = false;
    return leave(conn, may_fail(conn, NULL));
}

static void *fake_native(void *arg)
{
    return arg;
}

const struct thr_driver fake_driver = {
    .name = "fake",
    .source_open = source_open,
    .source_close = source_close,
    .open = fake_open,
    .close = fake_close,
    .limits = fake_limits,
    .interrupt = fake_interrupt,
    .prepare = fake_prepare,
    .finalize = fake_finalize,
    .start = fake_start,
    .next = fake_next,
    .reset = fake_end_run,
    .undo = fake_undo,
    .result = fake_result,
    .columns = fake_columns,
    .name_of = fake_name,
    .decltype_of = fake_name,
    .type = fake_type,
    .integer = fake_integer,
    .real = fake_real,
    .text = fake_text,
    .blob = fake_blob,
    .begin = fake_begin,
    .commit = fake_commit,
    .rollback = fake_rollback,
    .savepoint = fake_savepoint,
    .in_transaction = fake_in_transaction,
    .ping = fake_ping,
    .left_open = fake_left_open,
    .reset_session = fake_reset_session,
    .native = fake_native,
};
