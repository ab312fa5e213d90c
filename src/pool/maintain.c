/* What happens with time: connections that are too old or that nobody wants, and what is held for too long.
 *
 * Nobody reads a clock when a connection is taken or given back. Who looks remembers each slot's state and lease; if both
 * are the same the next time, nothing has happened to the slot in between. So times are right up to one period.
 *
 * SPDX-License-Identifier: MIT */
#include "../os/os.h"
#include "fast.h"

static const uint64_t SHORTEST_PERIOD_NS = 1000000, LONGEST_PERIOD_NS = UINT64_C(10000000000);

static void close_idle(struct thr_slot *slot, enum thr_close_reason reason)
{
    if (!thr_slot_try(slot) && !thr_slot_try_left(slot)) /* the line may be gone, and the mark still there */
        return;
    thr_slot_close_conn(slot, reason);
    thr_slot_put(slot);
}

static void report_leak(throng_db *db, struct thr_slot *slot, struct thr_seen *seen, uint64_t held_ns)
{
    const char *where = atomic_load_explicit(&slot->where, memory_order_relaxed);

    if (thr_read(&slot->lease) != seen->lease)
        return;
    seen->reported = seen->lease;
    (void)atomic_fetch_add_explicit(&db->leaks, 1, memory_order_relaxed);
    thr_pool_log(db, "throng: a connection has been held for more than %.3f s by who took it at %s",
                 (double)held_ns / 1e9, where != NULL ? where : "?");
}

uint32_t thr_report_held(throng_db *db, const char **where_out)
{
    uint32_t high = atomic_load_explicit(&db->high, memory_order_relaxed), count = 0;

    *where_out = "?";
    for (uint32_t i = 0; i < high; i++) {
        struct thr_slot *slot = &db->slots[i];
        uint64_t lease = thr_read(&slot->lease);
        const char *where = atomic_load_explicit(&slot->where, memory_order_relaxed);

        /* Odd: somebody holds it. Most times it is the same one before and after. */
        if (lease % 2 == 0 || thr_slot_state(slot) != THR_SLOT_BUSY || thr_read(&slot->lease) != lease)
            continue;
        where = where != NULL ? where : "?";
        if (count++ == 0)
            *where_out = where;
        thr_pool_log(db, "throng: the pool cannot be closed: a connection is still held, which was taken at %s", where);
    }
    return count;
}

static void look_at(throng_db *db, struct thr_slot *slot, struct thr_seen *seen, uint64_t now_ns)
{
    uint64_t lease = thr_read(&slot->lease), expires_ns = thr_read(&slot->expires_ns);
    enum thr_slot_state state = thr_slot_state(slot);
    uint64_t ns;

    if (lease != seen->lease || state != seen->state) {
        seen->lease = lease;
        seen->state = state;
        seen->since_ns = now_ns;
    }
    ns = now_ns - seen->since_ns;
    if (state == THR_SLOT_IDLE && expires_ns != 0 && now_ns >= expires_ns)
        close_idle(slot, THR_CLOSE_LIFETIME);
    else if (state == THR_SLOT_IDLE && db->max_idle_time_ns != 0 && ns >= db->max_idle_time_ns)
        close_idle(slot, THR_CLOSE_IDLE_TIME);
    else if (state == THR_SLOT_BUSY && expires_ns != 0 && now_ns >= expires_ns)
        atomic_store_explicit(&slot->retire, true, memory_order_relaxed);
    if (state == THR_SLOT_BUSY && db->leak_after_ns != 0 && ns >= db->leak_after_ns && seen->reported != lease)
        report_leak(db, slot, seen, ns);
}

void thr_maintain(throng_db *db, uint64_t now_ns)
{
    uint32_t high = atomic_load_explicit(&db->high, memory_order_relaxed);

    thr_pool_lock(&db->maintain_lock);
    for (uint32_t i = 0; i < high; i++)
        look_at(db, &db->slots[i], &db->seen[i], now_ns);
    thr_pool_unlock(&db->maintain_lock);
}

void throng_db_maintain(throng_db *db)
{
    thr_maintain(db, thr_os_now_ns());
}

/* --- the thread --- */

static uint64_t period_ns(const throng_db *db)
{
    uint64_t shortest = thr_earlier(thr_earlier(db->max_lifetime_ns, db->max_idle_time_ns), db->leak_after_ns);
    uint64_t period = db->check_every_ns != 0 ? db->check_every_ns : shortest / 4;

    return period < SHORTEST_PERIOD_NS ? SHORTEST_PERIOD_NS : period > LONGEST_PERIOD_NS ? LONGEST_PERIOD_NS : period;
}

static void *thread_main(void *arg)
{
    throng_db *db = arg;
    uint64_t period = period_ns(db);

    /* relaxed: nothing comes with the word, and who has set it joins */
    while (atomic_load_explicit(&db->thread_word, memory_order_relaxed) == 0) {
        if (!thr_os_futex_wait(&db->thread_word, 0, period))
            thr_maintain(db, thr_os_now_ns());
    }
    return NULL;
}

int thr_maintain_start(throng_db *db)
{
    if (thr_os_thread_start(&db->thread, thread_main, db) != 0)
        return THRONG_NOMEM;
    db->thread_runs = true;
    return THRONG_OK;
}

void thr_maintain_stop(throng_db *db)
{
    if (!db->thread_runs)
        return;
    atomic_store_explicit(&db->thread_word, 1, memory_order_relaxed);
    thr_os_futex_wake(&db->thread_word, 1);
    thr_os_thread_join(&db->thread);
    db->thread_runs = false;
}
