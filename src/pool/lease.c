/* A slot with a connection in it, from when it is taken until it is as good as new again.
 *
 * `lease` is odd while the slot is owned. Handles remember it, and find out by it that their time is over.
 *
 * SPDX-License-Identifier: MIT */
#include "../os/os.h"
#include "fast.h"

/* Less up to a tenth by chance, so that connections opened together are not closed together. */
static uint64_t lifetime_end(const throng_db *db)
{
    uint64_t chance, span = db->max_lifetime_ns / 10 + 1;

    if (db->max_lifetime_ns == 0)
        return 0;
    thr_os_random(&chance, sizeof chance);
    return thr_later(thr_os_now_ns(), db->max_lifetime_ns - chance % span);
}

/* What every connection is to have. A transaction or a statement that is left open would swallow what comes after. */
static int run_on_open(struct thr_slot *slot, throng_error *err)
{
    throng_db *db = slot->db;
    const char *left;

    if (db->on_open == NULL)
        return THRONG_OK;
    if (db->on_open(db->driver->native(slot->conn), db->on_open_arg) != 0)
        return thr_error_set(err, THRONG_ERROR, 0, NULL, "on_open refuses the connection");
    if ((left = db->driver->left_open(slot->conn)) != NULL)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "on_open has left %s open on the connection", left);
    return THRONG_OK;
}

THR_COLD static int open_conn(struct thr_slot *slot, uint64_t deadline_ns, throng_error *err)
{
    throng_db *db = slot->db;
    int code;

    if (slot->buckets == NULL) {
        uint32_t count = 16;

        while (count < 2 * db->cached_statements)
            count *= 2;
        if ((slot->buckets = thr_os_alloc(count * sizeof(void *))) == NULL)
            return thr_error_plain(err, THRONG_NOMEM);
        slot->bucket_mask = count - 1;
    }
    if (db->is_private && thr_read(&db->opened) > 0)
        return thr_error_set(err, THRONG_CONN_LOST, 0, NULL, "the private database was lost with its only connection");
    code = db->driver->open(db->source, deadline_ns, &slot->conn, err);
    if (code != THRONG_OK) {
        slot->conn = NULL;
        return code == THR_CONN_STALE ? THRONG_CONN_LOST : code;
    }
    slot->dead = slot->suspect = slot->discard = slot->may_be_open = false;
    slot->guard_now = NULL;
    atomic_store_explicit(&slot->retire, false, memory_order_relaxed);
    atomic_store_explicit(&slot->expires_ns, lifetime_end(db), memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&db->opened, 1, memory_order_relaxed);
    if ((code = run_on_open(slot, err)) != THRONG_OK) {
        (void)slot->driver->reset_session(slot->conn);
        thr_slot_close_conn(slot, THR_CLOSE_BROKEN);
    }
    return code;
}

void thr_slot_close_conn(struct thr_slot *slot, enum thr_close_reason reason)
{
    if (slot->conn == NULL)
        return;
    thr_cache_drop(slot);
    slot->driver->close(slot->conn);
    slot->conn = NULL;
    slot->guard_now = NULL;
    (void)atomic_fetch_add_explicit(&slot->db->closed[reason], 1, memory_order_relaxed);
}

int thr_lease_take_slow(throng_db *db, uint64_t deadline_ns, throng_cancel *cancel, const char *where,
                        struct thr_slot **slot_out, throng_error *err)
{
    struct thr_slot *slot;
    int code;

    *slot_out = NULL;
    if ((code = thr_limits_check(deadline_ns, cancel, err)) != THRONG_OK ||
        (code = thr_slot_take(db, deadline_ns, cancel, &slot, err)) != THRONG_OK)
        return code;
    thr_lease_begin(slot, where);
    if (slot->conn == NULL && (code = open_conn(slot, deadline_ns, err)) != THRONG_OK) {
        thr_lease_give(slot);
        return code;
    }
    *slot_out = slot;
    return THRONG_OK;
}

int thr_lease_renew(struct thr_slot *slot, uint64_t deadline_ns, throng_error *err)
{
    thr_slot_close_conn(slot, THR_CLOSE_BROKEN);
    return open_conn(slot, deadline_ns, err);
}

int thr_lease_failed(struct thr_slot *slot, int code)
{
    switch (code) {
    case THRONG_CONFLICT:
    case THRONG_BUSY:
        slot->tx_again = true;
        break;
    case THRONG_CONSTRAINT:
    case THRONG_MISUSE:
    case THRONG_CLOSED:
        break;
    case THRONG_CONN_LOST:
    case THR_CONN_STALE:
        slot->dead = true;
        break;
    default:
        slot->suspect = true;
        break;
    }
    return code;
}

/* What the user has left behind. */
static int clean_up(struct thr_slot *slot, throng_error *err)
{
    const struct thr_driver *driver = slot->driver;
    const char *left;
    int code = THRONG_OK;

    if (slot->open_count > 0)
        (void)thr_run_close_all(slot, NULL);
    if (slot->tx_depth > 0)
        thr_tx_abandon(slot);
    if (slot->conn == NULL) /* it was lost, and there was no other one */
        slot->dead = slot->suspect = false;
    else if (!slot->dead && driver->in_transaction(slot->conn)) {
        if (!slot->discard)
            code = thr_error_set(err, THRONG_MISUSE, 0, NULL,
                                 "a transaction was left open on a connection of the pool; it has been rolled back");
        if (driver->rollback(slot->conn, NULL) != THRONG_OK)
            slot->dead = true;
    }
    if (slot->has_native && !slot->dead && slot->conn != NULL && (left = driver->left_open(slot->conn)) != NULL) {
        if (!slot->discard && code == THRONG_OK)
            code = thr_error_set(err, THRONG_MISUSE, 0, NULL,
                                 "%s was left open on a connection of the pool, by means of its native handle; it has "
                                 "been ended",
                                 left);
        slot->suspect = true;
    }
    slot->has_native = false;
    if (slot->suspect && !slot->dead && driver->reset_session(slot->conn) != THRONG_OK)
        slot->dead = true;
    slot->suspect = slot->may_be_open = false;
    if (slot->dead)
        thr_slot_close_conn(slot, THR_CLOSE_BROKEN);
    else if (slot->discard)
        thr_slot_close_conn(slot, THR_CLOSE_DISCARDED);
    else if (atomic_load_explicit(&slot->retire, memory_order_relaxed))
        thr_slot_close_conn(slot, THR_CLOSE_LIFETIME);
    return code;
}

int thr_lease_end_slow(struct thr_slot *slot, throng_error *err)
{
    int code = clean_up(slot, err);

    if (slot->closed_seen != atomic_load_explicit(&slot->db->closed_count, memory_order_relaxed))
        thr_cache_sweep(slot);
    thr_lease_give(slot);
    return code;
}
