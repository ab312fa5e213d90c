/* Executions: from a statement and its arguments to rows, on a slot that is owned.
 *
 * SPDX-License-Identifier: MIT */
#include "fast.h"

static uint64_t deadline_of(const struct throng_options *options)
{
    return options != NULL ? options->deadline_ns : 0;
}

static throng_cancel *cancel_of(const struct throng_options *options)
{
    return options != NULL ? options->cancel : NULL;
}

THR_COLD static void first_run(struct thr_slot *slot, struct thr_entry *entry)
{
    entry->is_new = false;
    thr_count(&slot->first_runs, 1);
}

THR_HOT static int entry_begin(struct thr_slot *slot, struct thr_entry *entry, const struct throng_options *options,
                               const throng_value *args, size_t count, bool stay, throng_error *err)
{
    uint64_t serial = thr_read(&slot->serial) + 1;
    int code;

    if (thr_guard_wanted(slot, options) &&
        (code = thr_guard_begin(slot, &entry->guard, deadline_of(options), cancel_of(options), err)) != THRONG_OK)
        return code;
    slot->may_be_open = slot->may_be_open || entry->info.opens;
    atomic_store_explicit(&slot->serial, serial, memory_order_relaxed);
    atomic_store_explicit(&entry->serial, serial, memory_order_relaxed);
    if (entry->is_new)
        first_run(slot, entry);
    entry->used = serial;
    entry->owns_lease = false;
    entry->pending = 0;
    slot->open_count++;
    code = slot->driver->start(slot->conn, entry->stmt, args, count, stay, err);
    if (code != THRONG_OK) {
        (void)thr_lease_failed(slot, code);
        (void)thr_run_close(entry, NULL);
    }
    return code;
}

int thr_run_close_all(struct thr_slot *slot, throng_error *err)
{
    int first = THRONG_OK;

    for (struct thr_entry *entry = slot->entries; entry != NULL && slot->open_count > 0; entry = entry->all) {
        if (thr_read(&entry->serial) != 0) {
            int code = thr_run_close(entry, first == THRONG_OK ? err : NULL);

            if (first == THRONG_OK)
                first = code;
        }
    }
    return first;
}

/* A query that does something besides returning rows does it now, since its caller may never ask for a row, and may commit
 * or close, and be told that all is well. */
THR_COLD static int do_first(struct thr_slot *slot, struct thr_entry *entry, throng_error *err)
{
    int code = slot->driver->next(slot->conn, entry->stmt, err);

    if (code == THRONG_ROW || code == THRONG_DONE) {
        entry->pending = code;
        return THRONG_OK;
    }
    (void)thr_lease_failed(slot, code);
    (void)thr_run_close(entry, NULL);
    return code;
}

THR_HOT int thr_run_query(struct thr_slot *slot, const struct throng_options *options, const struct thr_source *source,
                          const throng_value *args, size_t count, bool owns_lease, throng_rows *rows, throng_error *err)
{
    struct thr_entry *entry;
    int code = thr_cache_get(slot, source, &entry, err);

    if (code == THR_SCRIPT)
        return thr_error_set(err, THRONG_MISUSE, 0, source->sql, "a query is one statement");
    if (code != THRONG_OK)
        return thr_lease_failed(slot, code);
    if (entry == NULL)
        return thr_error_set(err, THRONG_MISUSE, 0, source->sql, "there is no statement in it");
    if ((code = entry_begin(slot, entry, options, args, count, false, err)) != THRONG_OK)
        return code;
    if (entry->info.at_once && (code = do_first(slot, entry, err)) != THRONG_OK)
        return code;
    entry->owns_lease = owns_lease;
    *rows = (throng_rows){.slot = slot, .entry = entry, .serial = entry->used};
    return THRONG_OK;
}

THR_HOT static int entry_finish(struct thr_slot *slot, struct thr_entry *entry, throng_result *result,
                                throng_error *err)
{
    const struct thr_driver *driver = slot->driver;
    int code, end;

    do
        code = driver->next(slot->conn, entry->stmt, err);
    while (code == THRONG_ROW);
    if (code == THRONG_DONE && result != NULL)
        driver->result(slot->conn, entry->stmt, result);
    if (code != THRONG_DONE)
        (void)thr_lease_failed(slot, code);
    end = thr_run_close(entry, code == THRONG_DONE ? err : NULL);
    if (code == THRONG_DONE)
        code = end;
    if (code != THRONG_OK && result != NULL)
        *result = (throng_result){0};
    return code;
}

/* One statement of several: compiled for this once. */
static int script_step(struct thr_slot *slot, const char *sql, size_t bytes, size_t *tail_out, throng_result *result,
                       throng_error *err)
{
    const struct thr_driver *driver = slot->driver;
    struct thr_statement_info info;
    void *stmt;
    int code = driver->prepare(slot->conn, sql, bytes, false, &stmt, &info, err), end;

    *tail_out = info.tail;
    if (code != THRONG_OK || stmt == NULL)
        return code;
    thr_count(&slot->serial, 1);
    thr_count(&slot->first_runs, 1);
    code = driver->start(slot->conn, stmt, NULL, 0, true, err);
    if (code == THRONG_OK) {
        do
            code = driver->next(slot->conn, stmt, err);
        while (code == THRONG_ROW);
    }
    if (code == THRONG_DONE && result != NULL)
        driver->result(slot->conn, stmt, result);
    end = driver->reset(slot->conn, stmt, code == THRONG_DONE ? err : NULL);
    driver->finalize(slot->conn, stmt);
    return code == THRONG_DONE ? end : code;
}

THR_COLD static int run_script(struct thr_slot *slot, const struct throng_options *options, const char *sql,
                               size_t bytes, throng_result *result, throng_error *err)
{
    struct thr_guard guard;
    size_t tail = 0;
    int code = thr_guard_begin(slot, &guard, deadline_of(options), cancel_of(options), err);

    if (code != THRONG_OK)
        return code;
    slot->may_be_open = true;
    do {
        sql += tail;
        bytes -= tail;
        code = script_step(slot, sql, bytes, &tail, result, err);
        thr_look_at_transaction(slot);
    } while (code == THRONG_OK && tail > 0 && !(slot->tx_depth > 0 && slot->tx_lost));
    if (code == THRONG_OK && tail > 0)
        code = thr_error_plain(err, THRONG_TX_DONE); /* the rest would run outside of it */
    if (code != THRONG_OK) {
        (void)thr_lease_failed(slot, code);
        if (result != NULL)
            *result = (throng_result){0};
    }
    if (guard.is_set)
        thr_guard_end(slot, &guard);
    return code == THR_CONN_STALE ? THRONG_CONN_LOST : code; /* a part of it may have run */
}

THR_HOT int thr_run_exec(struct thr_slot *slot, const struct throng_options *options, const struct thr_source *source,
                         const throng_value *args, size_t count, throng_result *result, throng_error *err)
{
    struct thr_entry *entry;
    int code = thr_cache_get(slot, source, &entry, err);

    if (code == THR_SCRIPT && count == 0)
        return run_script(slot, options, source->sql, source->bytes, result, err);
    if (code == THR_SCRIPT)
        return thr_error_set(err, THRONG_MISUSE, 0, source->sql, "arguments are for a single statement");
    if (code != THRONG_OK)
        return thr_lease_failed(slot, code);
    if (entry == NULL) /* blanks and comments */
        return count == 0 ? THRONG_OK
                          : thr_error_set(err, THRONG_MISUSE, 0, source->sql, "there is no statement in it");
    if ((code = entry_begin(slot, entry, options, args, count, true, err)) != THRONG_OK)
        return code;
    return entry_finish(slot, entry, result, err);
}
