/* The public functions that run something: on a connection of the pool's choice, in a transaction, on a connection of the
 * caller's own. They find the slot; run.c does the rest.
 *
 * SPDX-License-Identifier: MIT */
#include "fast.h"

/* Everything that one call was given. */
struct call {
    const struct throng_options *options;
    struct thr_source source;
    const throng_value *args;
    size_t count;
};

THR_HOT static int make_call(struct call *call, const struct throng_options *options, const char *sql,
                             const throng_stmt *stmt, const throng_value *args, size_t count, throng_error *err)
{
    int code;

    *call = (struct call){.options = options, .args = args, .count = count};
    if ((code = thr_options_check(options, err)) != THRONG_OK)
        return code;
    if (args == NULL && count > 0)
        return thr_error_set(err, THRONG_MISUSE, 0, sql, "there are no arguments");
    if (stmt != NULL) {
        if (stmt->db == NULL)
            return thr_error_set(err, THRONG_CLOSED, 0, NULL, "the statement is closed");
        call->source = thr_source_stmt(stmt);
    } else {
        if (sql == NULL)
            return thr_error_plain(err, THRONG_MISUSE);
        call->source = thr_source_text(sql);
    }
    return THRONG_OK;
}

THR_HOT static int lease_for(throng_db *db, const struct throng_options *options, const char *where,
                             struct thr_slot **slot_out, throng_error *err)
{
    if (options == NULL)
        return thr_lease_take(db, 0, NULL, where, slot_out, err);
    return thr_lease_take(db, options->deadline_ns, options->cancel, options->label != NULL ? options->label : where,
                          slot_out, err);
}

THR_HOT static int exec_on(struct thr_slot *slot, const struct call *call, throng_result *result, throng_error *err)
{
    return thr_run_exec(slot, call->options, &call->source, call->args, call->count, result, err);
}

THR_HOT static int query_on(struct thr_slot *slot, const struct call *call, bool owns_lease, throng_rows *rows,
                            throng_error *err)
{
    return thr_run_query(slot, call->options, &call->source, call->args, call->count, owns_lease, rows, err);
}

/* A connection that turned out to be dead before it did anything is replaced, once. */
THR_COLD static bool renewed(struct thr_slot *slot, const struct call *call, int *code, throng_error *err)
{
    if (*code != THR_CONN_STALE)
        return false;
    *code = thr_lease_renew(slot, call->options != NULL ? call->options->deadline_ns : 0, err);
    return *code == THRONG_OK;
}

static int lost_if_stale(int code)
{
    return code == THR_CONN_STALE ? THRONG_CONN_LOST : code;
}

THR_HOT static int db_exec(throng_db *db, const struct call *call, throng_result *result, throng_error *err)
{
    struct thr_slot *slot;
    int code = lease_for(db, call->options, "exec", &slot, err), end;

    if (code != THRONG_OK)
        return code;
    code = exec_on(slot, call, result, err);
    if (renewed(slot, call, &code, err))
        code = exec_on(slot, call, result, err);
    end = thr_lease_end(slot, code == THRONG_OK ? err : NULL);
    return code != THRONG_OK ? lost_if_stale(code) : end;
}

THR_HOT static int db_query(throng_db *db, const char *where, const struct call *call, throng_rows *rows,
                            throng_error *err)
{
    struct thr_slot *slot;
    int code = lease_for(db, call->options, where, &slot, err);

    if (code != THRONG_OK)
        return code;
    code = query_on(slot, call, true, rows, err);
    if (renewed(slot, call, &code, err))
        code = query_on(slot, call, true, rows, err);
    if (code != THRONG_OK)
        (void)thr_lease_end(slot, NULL);
    return lost_if_stale(code);
}

/* --- on any connection --- */

int throng_db_exec(throng_db *db, const struct throng_options *options, const char *sql, const throng_value *args,
                   size_t count, throng_result *result, throng_error *err)
{
    struct call call;
    int code;

    if (result != NULL)
        *result = (throng_result){0};
    code = make_call(&call, options, sql, NULL, args, count, err);
    return code == THRONG_OK ? db_exec(db, &call, result, err) : code;
}

THR_HOT int throng_stmt_exec(const throng_stmt *stmt, const struct throng_options *options, const throng_value *args,
                             size_t count, throng_result *result, throng_error *err)
{
    struct call call;
    int code;

    if (result != NULL)
        *result = (throng_result){0};
    code = make_call(&call, options, NULL, stmt, args, count, err);
    return code == THRONG_OK ? db_exec(stmt->db, &call, result, err) : code;
}

int throng_db_query_at(const char *where, throng_db *db, const struct throng_options *options, const char *sql,
                       const throng_value *args, size_t count, throng_rows *rows, throng_error *err)
{
    struct call call;
    int code;

    code = make_call(&call, options, sql, NULL, args, count, err);
    if (code == THRONG_OK)
        code = db_query(db, where, &call, rows, err);
    if (code != THRONG_OK)
        *rows = (throng_rows){0};
    return code;
}

THR_HOT int throng_stmt_query_at(const char *where, const throng_stmt *stmt, const struct throng_options *options,
                                 const throng_value *args, size_t count, throng_rows *rows, throng_error *err)
{
    struct call call;
    int code;

    code = make_call(&call, options, NULL, stmt, args, count, err);
    if (code == THRONG_OK)
        code = db_query(stmt->db, where, &call, rows, err);
    if (code != THRONG_OK)
        *rows = (throng_rows){0};
    return code;
}

int throng_db_ping(throng_db *db, const struct throng_options *options, throng_error *err)
{
    throng_conn conn;
    int code, end;

    /* A connection that turns out to be dead, or broken, is closed; then another one is asked, once. */
    for (int attempt = 0;; attempt++) {
        if ((code = throng_db_conn_at("ping", db, options, &conn, err)) != THRONG_OK)
            return code;
        code = throng_conn_ping(&conn, options, err);
        end = throng_conn_close(&conn, code == THRONG_OK ? err : NULL);
        if (attempt > 0 || (code != THRONG_CONN_LOST && code != THRONG_IO && code != THRONG_READONLY))
            return code != THRONG_OK ? code : end;
    }
}

static int tx_options_check(const struct throng_tx_options *options, throng_error *err)
{
    if (options == NULL || (options->size >= sizeof *options && options->mode <= THRONG_EXCLUSIVE))
        return THRONG_OK;
    if (options->size < sizeof *options)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "throng_tx_options.size is %zu, it must be %zu",
                             options->size, sizeof *options);
    return thr_error_set(err, THRONG_MISUSE, 0, NULL, "throng_tx_options.mode is %u, which there is not",
                         options->mode);
}

int throng_db_begin_at(const char *where, throng_db *db, const struct throng_tx_options *options, throng_tx *tx,
                       throng_error *err)
{
    struct thr_slot *slot;
    int code;

    *tx = (throng_tx){0};
    if ((code = tx_options_check(options, err)) != THRONG_OK)
        return code;
    code = thr_lease_take(db, options != NULL ? options->deadline_ns : 0, options != NULL ? options->cancel : NULL,
                          options != NULL && options->label != NULL ? options->label : where, &slot, err);
    if (code != THRONG_OK)
        return code;
    code = thr_tx_start(slot, options, true, tx, err);
    if (code == THR_CONN_STALE &&
        (code = thr_lease_renew(slot, options != NULL ? options->deadline_ns : 0, err)) == THRONG_OK)
        code = thr_tx_start(slot, options, true, tx, err);
    if (code != THRONG_OK)
        (void)thr_lease_end(slot, NULL);
    return lost_if_stale(code);
}

int throng_db_conn_at(const char *where, throng_db *db, const struct throng_options *options, throng_conn *conn,
                      throng_error *err)
{
    struct thr_slot *slot;
    int code;

    *conn = (throng_conn){0};
    if ((code = thr_options_check(options, err)) != THRONG_OK)
        return code;
    if ((code = lease_for(db, options, where, &slot, err)) != THRONG_OK)
        return code;
    *conn = (throng_conn){.slot = slot, .lease = thr_read(&slot->lease)};
    return THRONG_OK;
}

/* --- in a transaction, on a connection --- */

/* A statement belongs to its pool, and so do transactions. */
static int own_stmt(const struct thr_slot *slot, const throng_stmt *stmt, throng_error *err)
{
    if (stmt == NULL || stmt->db == NULL || stmt->db == slot->db)
        return THRONG_OK;
    return thr_error_set(err, THRONG_MISUSE, 0, NULL, "the statement is of another pool");
}

static int exec_inside(struct thr_slot *slot, const struct throng_options *options, const char *sql,
                       const throng_stmt *stmt, const throng_value *args, size_t count, throng_result *result,
                       throng_error *err)
{
    struct call call;
    int code;

    if (result != NULL)
        *result = (throng_result){0};
    if ((code = own_stmt(slot, stmt, err)) != THRONG_OK ||
        (code = make_call(&call, options, sql, stmt, args, count, err)) != THRONG_OK)
        return code;
    return lost_if_stale(exec_on(slot, &call, result, err));
}

static int query_inside(struct thr_slot *slot, const struct throng_options *options, const char *sql,
                        const throng_stmt *stmt, const throng_value *args, size_t count, throng_rows *rows,
                        throng_error *err)
{
    struct call call;
    int code;

    if ((code = own_stmt(slot, stmt, err)) != THRONG_OK ||
        (code = make_call(&call, options, sql, stmt, args, count, err)) != THRONG_OK)
        return code;
    return lost_if_stale(query_on(slot, &call, false, rows, err));
}

int throng_tx_exec(const throng_tx *tx, const struct throng_options *options, const char *sql, const throng_value *args,
                   size_t count, throng_result *result, throng_error *err)
{
    int code = thr_tx_usable(tx, err);

    return code == THRONG_OK ? exec_inside(tx->slot, options, sql, NULL, args, count, result, err) : code;
}

int throng_tx_stmt_exec(const throng_tx *tx, const throng_stmt *stmt, const struct throng_options *options,
                        const throng_value *args, size_t count, throng_result *result, throng_error *err)
{
    int code = thr_tx_usable(tx, err);

    return code == THRONG_OK ? exec_inside(tx->slot, options, NULL, stmt, args, count, result, err) : code;
}

int throng_tx_query(const throng_tx *tx, const struct throng_options *options, const char *sql,
                    const throng_value *args, size_t count, throng_rows *rows, throng_error *err)
{
    int code;

    *rows = (throng_rows){0};
    code = thr_tx_usable(tx, err);
    return code == THRONG_OK ? query_inside(tx->slot, options, sql, NULL, args, count, rows, err) : code;
}

int throng_tx_stmt_query(const throng_tx *tx, const throng_stmt *stmt, const struct throng_options *options,
                         const throng_value *args, size_t count, throng_rows *rows, throng_error *err)
{
    int code;

    *rows = (throng_rows){0};
    code = thr_tx_usable(tx, err);
    return code == THRONG_OK ? query_inside(tx->slot, options, NULL, stmt, args, count, rows, err) : code;
}

int throng_conn_exec(const throng_conn *conn, const struct throng_options *options, const char *sql,
                     const throng_value *args, size_t count, throng_result *result, throng_error *err)
{
    int code = thr_lease_check(conn->slot, conn->lease, err);

    return code == THRONG_OK ? exec_inside(conn->slot, options, sql, NULL, args, count, result, err) : code;
}

int throng_conn_stmt_exec(const throng_conn *conn, const throng_stmt *stmt, const struct throng_options *options,
                          const throng_value *args, size_t count, throng_result *result, throng_error *err)
{
    int code = thr_lease_check(conn->slot, conn->lease, err);

    return code == THRONG_OK ? exec_inside(conn->slot, options, NULL, stmt, args, count, result, err) : code;
}

int throng_conn_query(const throng_conn *conn, const struct throng_options *options, const char *sql,
                      const throng_value *args, size_t count, throng_rows *rows, throng_error *err)
{
    int code;

    *rows = (throng_rows){0};
    code = thr_lease_check(conn->slot, conn->lease, err);
    return code == THRONG_OK ? query_inside(conn->slot, options, sql, NULL, args, count, rows, err) : code;
}

int throng_conn_stmt_query(const throng_conn *conn, const throng_stmt *stmt, const struct throng_options *options,
                           const throng_value *args, size_t count, throng_rows *rows, throng_error *err)
{
    int code;

    *rows = (throng_rows){0};
    code = thr_lease_check(conn->slot, conn->lease, err);
    return code == THRONG_OK ? query_inside(conn->slot, options, NULL, stmt, args, count, rows, err) : code;
}

int throng_conn_begin(const throng_conn *conn, const struct throng_tx_options *options, throng_tx *tx,
                      throng_error *err)
{
    int code;

    *tx = (throng_tx){0};
    if ((code = tx_options_check(options, err)) != THRONG_OK)
        return code;
    if ((code = thr_lease_check(conn->slot, conn->lease, err)) != THRONG_OK)
        return code;
    return lost_if_stale(thr_tx_start(conn->slot, options, false, tx, err));
}

int throng_conn_ping(const throng_conn *conn, const struct throng_options *options, throng_error *err)
{
    struct thr_slot *slot = conn->slot;
    struct thr_guard guard;
    int code;

    if ((code = thr_options_check(options, err)) != THRONG_OK ||
        (code = thr_lease_check(slot, conn->lease, err)) != THRONG_OK)
        return code;
    code = thr_guard_begin(slot, &guard, options != NULL ? options->deadline_ns : 0,
                           options != NULL ? options->cancel : NULL, err);
    if (code != THRONG_OK)
        return code;
    if ((code = slot->driver->ping(slot->conn, err)) != THRONG_OK)
        (void)thr_lease_failed(slot, code);
    if (guard.is_set)
        thr_guard_end(slot, &guard);
    return lost_if_stale(code);
}

void *throng_conn_native(const throng_conn *conn)
{
    struct thr_slot *slot = conn->slot;

    if (thr_lease_check(slot, conn->lease, NULL) != THRONG_OK)
        return NULL;
    slot->may_be_open = slot->has_native = true; /* whatever is done with it */
    return slot->driver->native(slot->conn);
}

static int conn_end(throng_conn *conn, bool discard, throng_error *err)
{
    struct thr_slot *slot = conn->slot;
    uint64_t lease = conn->lease;
    bool dead, keeps;
    int code;

    *conn = (throng_conn){0};
    if (slot == NULL)
        return THRONG_OK;
    if (thr_read(&slot->lease) != lease)
        return thr_lease_check(slot, lease, err);
    dead = slot->dead;
    keeps = discard && slot->db->is_private;
    slot->discard = discard && !keeps;
    code = thr_lease_end(slot, err);
    if (keeps && code == THRONG_OK)
        code = thr_error_set(err, THRONG_MISUSE, 0, NULL,
                             "the connection was given back, not closed: the private database would be lost with it");
    return dead ? thr_error_plain(err, THRONG_CONN_LOST) : code;
}

int throng_conn_close(throng_conn *conn, throng_error *err)
{
    return conn_end(conn, false, err);
}

int throng_conn_discard(throng_conn *conn, throng_error *err)
{
    return conn_end(conn, true, err);
}
