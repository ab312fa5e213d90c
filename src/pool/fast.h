/* What happens every time: take a connection, find the statement, end the execution, give the connection back.
 *
 * All in one place and inline, since there is a budget for it: with a connection for each thread a query costs two
 * compare-and-swaps on a cache line that no other thread writes, some thirty plain loads and stores, and the driver's
 * calls. Whatever is out of the ordinary leaves for the functions named _slow.
 *
 * What is read here and written by others: `closing` and `closed_count` of the pool, which hardly ever change, and the
 * slot's `state` and `retire`, which others write only when they wait, or when the connection has become too old.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_POOL_FAST_H
#define THR_POOL_FAST_H

#include "pool.h"

enum { THR_HINTS = 8 };

/* The slot that this thread had last, of a few pools. The pool's id, since its address may be another pool's later.
 * Initial-exec: found without a call. */
struct thr_hint {
    uint64_t pool;
    struct thr_slot *slot;
};
extern _Thread_local __attribute__((tls_model("initial-exec"))) struct thr_hint thr_hints[THR_HINTS];

/* Whether idle connections must be counted. */
static inline bool thr_idle_limited(const throng_db *db)
{
    return db->max_idle < db->max_open;
}

/* Own that slot if it is idle. */
static inline bool thr_slot_try(struct thr_slot *slot)
{
    uint32_t expected = THR_SLOT_IDLE;

    if (atomic_load_explicit(&slot->state, memory_order_relaxed) != THR_SLOT_IDLE ||
        !atomic_compare_exchange_strong_explicit(&slot->state, &expected, THR_SLOT_BUSY, memory_order_acquire,
                                                 memory_order_relaxed)) /* pairs with thr_slot_put() */
        return false;
    if (thr_idle_limited(slot->db))
        (void)atomic_fetch_sub_explicit(&slot->db->idle_count, 1, memory_order_relaxed);
    return true;
}

/* Give it back: to who waits, or to anybody. Its connection, if it has one, must be as good as new. Nothing of the slot or
 * the pool is touched after the swap (P3). */
static inline void thr_slot_put(struct thr_slot *slot)
{
    uint32_t expected = THR_SLOT_BUSY;

    if (slot->conn == NULL || thr_idle_limited(slot->db) ||
        !atomic_compare_exchange_strong_explicit(&slot->state, &expected, THR_SLOT_IDLE, memory_order_release,
                                                 memory_order_relaxed)) /* pairs with thr_slot_try() */
        thr_slot_put_slow(slot);
}

/* The owner's part of taking and giving: old handles see that they are. */
static inline void thr_lease_begin(struct thr_slot *slot, const char *where)
{
    atomic_store_explicit(&slot->lease, thr_read(&slot->lease) + 1, memory_order_relaxed);
    atomic_store_explicit(&slot->where, where, memory_order_relaxed);
}

static inline void thr_lease_give(struct thr_slot *slot)
{
    atomic_store_explicit(&slot->lease, thr_read(&slot->lease) + 1, memory_order_relaxed);
    thr_slot_put(slot);
}

/* Own a slot with a connection that is alive. `where` is kept. */
static inline int thr_lease_take(throng_db *db, uint64_t deadline_ns, throng_cancel *cancel, const char *where,
                                 struct thr_slot **slot_out, throng_error *err)
{
    struct thr_hint *hint = &thr_hints[db->id % THR_HINTS];

    if (deadline_ns != 0 || cancel != NULL || hint->pool != db->id ||
        atomic_load_explicit(&db->closing, memory_order_relaxed) || !thr_slot_try(hint->slot))
        return thr_lease_take_slow(db, deadline_ns, cancel, where, slot_out, err);
    *slot_out = hint->slot;
    thr_lease_begin(hint->slot, where);
    return THRONG_OK;
}

/* Give it back: everything on it is closed, rolled back, reset. THRONG_MISUSE if a transaction had been left open. */
static inline int thr_lease_end(struct thr_slot *slot, throng_error *err)
{
    /* relaxed: it only counts; what has been closed is read under statement_lock */
    if (slot->open_count > 0 || slot->tx_depth > 0 || slot->suspect || slot->dead || slot->discard ||
        slot->may_be_open || atomic_load_explicit(&slot->retire, memory_order_relaxed) ||
        slot->closed_seen != atomic_load_explicit(&slot->db->closed_count, memory_order_relaxed))
        return thr_lease_end_slow(slot, err);
    thr_lease_give(slot);
    return THRONG_OK;
}

static inline struct thr_entry **thr_bucket_of(struct thr_slot *slot, uint64_t key)
{
    return &slot->buckets[(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & slot->bucket_mask];
}

/* The entry for `source`, compiled and not in use, in *entry_out: found or made. THRONG_OK with *entry_out NULL: the text
 * has no statement in it. */
static inline int thr_cache_get(struct thr_slot *slot, const struct thr_source *source, struct thr_entry **entry_out,
                                throng_error *err)
{
    struct thr_entry *entry;

    /* relaxed: as in thr_lease_end() */
    if (source->id != 0 && slot->closed_seen != atomic_load_explicit(&slot->db->closed_count, memory_order_relaxed))
        thr_cache_sweep(slot);
    for (entry = *thr_bucket_of(slot, source->key); entry != NULL; entry = entry->chain) {
        if (entry->key == source->key && thr_read(&entry->serial) == 0 &&
            (source->id != 0 || (source->sql != NULL && entry->sql_bytes == source->bytes &&
                                 memcmp(entry->sql, source->sql, source->bytes) == 0))) {
            *entry_out = entry;
            return THRONG_OK;
        }
    }
    return thr_cache_compile(slot, source, entry_out, err);
}

/* The database may end a transaction by itself; so may the user, in SQL. */
static inline void thr_look_at_transaction(struct thr_slot *slot)
{
    if (slot->tx_depth > 0 && !slot->dead && !slot->driver->in_transaction(slot->conn))
        slot->tx_lost = true;
}

/* Ends an execution. Does not give back the slot. `err` gets what the end itself says. */
static inline int thr_run_close(struct thr_entry *entry, throng_error *err)
{
    struct thr_slot *slot = entry->slot;
    int code = THRONG_OK;

    if (slot->guard_now != NULL && slot->guard_now != &entry->guard && !slot->dead)
        thr_guard_resume(slot, &entry->guard); /* what ends here may commit: within its own limits */
    if (!slot->dead && (code = entry->driver->reset(slot->conn, entry->stmt, err)) != THRONG_OK) {
        (void)thr_lease_failed(slot, code);
        if (code == THR_CONN_STALE) /* it had begun: nobody may run it again */
            code = THRONG_CONN_LOST;
    }
    if (entry->guard.is_set)
        thr_guard_end(slot, &entry->guard);
    atomic_store_explicit(&entry->serial, 0, memory_order_relaxed);
    slot->open_count--;
    thr_look_at_transaction(slot);
    return code;
}

#endif
