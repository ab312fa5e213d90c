/* Transactions, and savepoints as transactions in them.
 *
 * A slot has a stack of those that are open. A handle names its place in the stack, and the serial that was put there: if
 * the place is gone or has another serial, the transaction has ended.
 *
 * SPDX-License-Identifier: MIT */
#include "fast.h"

int thr_lease_check(const struct thr_slot *slot, uint64_t lease, throng_error *err)
{
    if (slot == NULL || thr_read(&slot->lease) != lease)
        return thr_error_set(err, THRONG_CLOSED, 0, NULL, "the connection has been given back");
    if (slot->dead)
        return thr_error_plain(err, THRONG_CONN_LOST);
    return THRONG_OK;
}

/* Whether the handle's transaction is open in the pool's books. */
static bool is_current(const throng_tx *tx)
{
    const struct thr_slot *slot = tx->slot;

    return slot != NULL && thr_read(&slot->lease) == tx->lease && tx->level < slot->tx_depth &&
           slot->tx_serial[tx->level] == tx->serial;
}

int thr_tx_check(const throng_tx *tx, throng_error *err)
{
    const struct thr_slot *slot = tx->slot;

    if (!is_current(tx))
        return thr_error_plain(err, THRONG_TX_DONE);
    if (slot->dead)
        return thr_error_set(err, THRONG_CONN_LOST, 0, NULL, "the connection died during the transaction");
    if (slot->tx_lost)
        return thr_error_set(err, THRONG_TX_DONE, 0, NULL, "the database has ended the transaction before");
    return THRONG_OK;
}

int thr_tx_usable(const throng_tx *tx, throng_error *err)
{
    const struct thr_slot *slot = tx->slot;
    int code = thr_tx_check(tx, err);

    if (code == THRONG_OK && tx->level + 1 != slot->tx_depth)
        code = thr_error_set(err, THRONG_MISUSE, 0, NULL,
                             "a transaction is open in this one: what is written here would be part of it");
    return code;
}

static void push(struct thr_slot *slot, throng_tx *tx)
{
    uint64_t serial = ++slot->tx_count;

    slot->tx_serial[slot->tx_depth] = serial;
    *tx = (throng_tx){.slot = slot, .lease = thr_read(&slot->lease), .serial = serial, .level = slot->tx_depth};
    slot->tx_depth++;
}

void thr_tx_abandon(struct thr_slot *slot)
{
    slot->tx_depth = 0;
    slot->tx_deadline_ns = 0;
    slot->tx_cancel = NULL;
    slot->tx_lost = false;
}

/* Nothing of it is left in the database. */
static void undo(struct thr_slot *slot)
{
    if (!slot->dead && slot->driver->in_transaction(slot->conn) &&
        slot->driver->rollback(slot->conn, NULL) != THRONG_OK)
        slot->dead = true;
}

static int finish(struct thr_slot *slot, throng_tx *tx, int code, throng_error *err)
{
    bool owns_lease = slot->tx_owns_lease;
    int end = THRONG_OK;

    thr_tx_abandon(slot);
    tx->slot = NULL;
    if (owns_lease)
        end = thr_lease_end(slot, code == THRONG_OK ? err : NULL);
    if (code == THR_CONN_STALE)
        code = THRONG_CONN_LOST;
    return code != THRONG_OK ? code : end;
}

int thr_tx_start(struct thr_slot *slot, const struct throng_tx_options *options, bool owns_lease, throng_tx *tx,
                 throng_error *err)
{
    struct thr_begin how = {.mode = options != NULL ? (enum throng_tx_mode)options->mode : THRONG_DEFERRED,
                            .read_only = options != NULL && options->read_only != 0};
    uint64_t deadline_ns = options != NULL ? options->deadline_ns : 0;
    throng_cancel *cancel = options != NULL ? options->cancel : NULL;
    struct thr_guard guard;
    int code;

    if (slot->tx_depth > 0)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "a transaction is open on the connection");
    if ((code = thr_guard_begin(slot, &guard, deadline_ns, cancel, err)) != THRONG_OK)
        return code;
    slot->tx_again = slot->tx_lost = false;
    if ((code = slot->driver->begin(slot->conn, &how, err)) != THRONG_OK)
        (void)thr_lease_failed(slot, code);
    if (guard.is_set)
        thr_guard_end(slot, &guard);
    if (code != THRONG_OK)
        return code;
    slot->tx_deadline_ns = deadline_ns;
    slot->tx_cancel = cancel;
    slot->tx_owns_lease = owns_lease;
    slot->may_be_open = true;
    push(slot, tx);
    return THRONG_OK;
}

int throng_tx_begin(const throng_tx *tx, throng_tx *inner, throng_error *err)
{
    struct thr_slot *slot = tx->slot;
    struct thr_guard guard;
    int code;

    *inner = (throng_tx){0};
    if ((code = thr_tx_usable(tx, err)) != THRONG_OK)
        return code;
    if (slot->tx_depth == THR_LEVELS)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "too many transactions in each other");
    if ((code = thr_guard_begin(slot, &guard, 0, NULL, err)) != THRONG_OK)
        return code;
    code = slot->driver->savepoint(slot->conn, THR_SAVEPOINT_BEGIN, slot->tx_depth, err);
    if (code != THRONG_OK)
        (void)thr_lease_failed(slot, code);
    if (guard.is_set)
        thr_guard_end(slot, &guard);
    if (code != THRONG_OK)
        return code == THR_CONN_STALE ? THRONG_CONN_LOST : code;
    push(slot, inner);
    return THRONG_OK;
}

/* Rows of statements that write come to their end: a savepoint is not released before. */
static int close_writes(struct thr_slot *slot, throng_error *err)
{
    int code = THRONG_OK;

    for (struct thr_entry *entry = slot->entries; entry != NULL && slot->open_count > 0; entry = entry->all) {
        if (thr_read(&entry->serial) != 0 && entry->info.writes && code == THRONG_OK)
            code = thr_run_close(entry, err);
    }
    return code;
}

/* An inner one, and with it what is open in it. */
static int end_savepoint(struct thr_slot *slot, throng_tx *tx, enum thr_savepoint what, throng_error *err)
{
    int code = what == THR_SAVEPOINT_RELEASE ? close_writes(slot, err) : THRONG_OK;

    if (code == THRONG_OK)
        code = slot->driver->savepoint(slot->conn, what, tx->level, err);
    if (code != THRONG_OK) {
        (void)thr_lease_failed(slot, code);
        if (what == THR_SAVEPOINT_RELEASE && !slot->dead)
            (void)slot->driver->savepoint(slot->conn, THR_SAVEPOINT_ROLLBACK, tx->level, NULL);
        slot->tx_lost = slot->tx_lost || (!slot->dead && !slot->driver->in_transaction(slot->conn));
    }
    slot->tx_depth = tx->level;
    tx->slot = NULL;
    return code == THR_CONN_STALE ? THRONG_CONN_LOST : code;
}

/* What is not right any more ends all the same. */
static int end_dead(throng_tx *tx, int code)
{
    struct thr_slot *slot = tx->slot;

    if (!is_current(tx))
        return code;
    if (tx->level > 0) {
        slot->tx_depth = tx->level;
        tx->slot = NULL;
        return code;
    }
    (void)thr_run_close_all(slot, NULL);
    undo(slot);
    return finish(slot, tx, code, NULL);
}

int throng_tx_commit(throng_tx *tx, throng_error *err)
{
    struct thr_slot *slot = tx->slot;
    struct thr_guard guard;
    int code = thr_tx_check(tx, err);

    if (code != THRONG_OK)
        return end_dead(tx, code);
    if (tx->level > 0)
        return end_savepoint(slot, tx, THR_SAVEPOINT_RELEASE, err);
    code = thr_run_close_all(slot, err);
    if (code == THRONG_OK && (code = thr_tx_check(tx, err)) == THRONG_OK &&
        (code = thr_guard_begin(slot, &guard, 0, NULL, err)) == THRONG_OK) {
        if ((code = slot->driver->commit(slot->conn, err)) != THRONG_OK)
            (void)thr_lease_failed(slot, code);
        if (guard.is_set)
            thr_guard_end(slot, &guard);
    }
    if (code != THRONG_OK)
        undo(slot);
    return finish(slot, tx, code, err);
}

int throng_tx_rollback(throng_tx *tx, throng_error *err)
{
    struct thr_slot *slot = tx->slot;
    int code = thr_tx_check(tx, err);

    if (code != THRONG_OK)
        return end_dead(tx, code);
    if (tx->level > 0)
        return end_savepoint(slot, tx, THR_SAVEPOINT_ROLLBACK, err);
    (void)thr_run_close_all(slot, NULL);
    if (slot->dead)
        code = thr_error_plain(err, THRONG_CONN_LOST);
    else if ((code = slot->driver->rollback(slot->conn, err)) != THRONG_OK)
        slot->dead = true;
    return finish(slot, tx, code, err);
}
