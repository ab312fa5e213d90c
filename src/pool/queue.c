/* Who owns which slot.
 *
 * The fast path (fast.h): each thread remembers the slot that it had last, and takes it again with one compare-and-swap on that
 * slot's state; it gives it back with another. With a slot for each thread no cache line is written by two threads, and
 * nothing that they share is even read, but what hardly ever changes.
 *
 * Who finds its slot taken looks at a bounded number of others. Only then does it take `queue_lock`, look at all of them,
 * and get in line. Nobody sleeps beside a free slot (P2), since a slot's state is one word: under the lock, each word is
 * either changed from free to BUSY by who looks, who then need not wait, or from BUSY to BUSY | ATTENTION. Its owner, who
 * gives it back by swapping BUSY for IDLE, then fails, takes the lock, and hands the slot to the first in line. There is
 * no moment between "looked" and "announced" that could be missed, so no fence and no second look is needed. As long as
 * somebody in line waits all words stay marked, so whoever joins the line need not look at the slots at all.
 *
 * Handing over each time costs a switch of threads for each query, ten times what a short query takes. So who is handed a
 * slot gets a slice of time with it: until that is over it gives the slot back as IDLE | ATTENTION, without the lock, and
 * it alone will look there. Should it not come back, the one in line who watches finds the slot at the end of its next
 * short sleep and hands it to the first. A slot that was left free for long is handed over each time for a while, as this
 * program's threads obviously have something else to do between two queries. Slices are what a time-sharing system does for the
 * same reason; the patience of the waiters is bounded by one for each who is ahead of them.
 *
 * The price of a wait is paid by those who wait: a look at each slot for the first in line, and one slow release for
 * each slot when the line is gone.
 *
 * SPDX-License-Identifier: MIT */
#include <limits.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "fast.h"

enum { SCAN_MAX = 64, NO_SLICES_FIRST = 16, NO_SLICES_MOST = 1024 };

/* While all slices are over a slot can be left free only by who was about to do that, and did not get to it. */
static const uint64_t DOZE_NS = 10000000;

/* Some ten times what it costs to switch threads, or to wake one on an idle processor. */
static const uint64_t SLICE_NS = 200000, WATCH_NS = 100000, LEFT_NS = 10000;

_Thread_local __attribute__((tls_model("initial-exec"))) struct thr_hint thr_hints[THR_HINTS];

/* Threads that come for the first time do not all begin at the same place. */
THR_COLD static struct thr_slot *scan(throng_db *db, const struct thr_slot *own)
{
    uint32_t high = atomic_load_explicit(&db->high, memory_order_relaxed);
    uint32_t start = own != NULL ? own->index : (uint32_t)(((uintptr_t)&thr_hints >> 12) * 0x9e3779b1u), i;

    if (high == 0)
        return NULL;
    start %= high;
    for (i = 0; i < high && i < SCAN_MAX; i++) {
        struct thr_slot *slot = &db->slots[(start + i) % high];

        if (thr_slot_try(slot))
            return slot;
    }
    return NULL;
}

/* --- the line --- */

static bool still_waits(const struct thr_waiter *waiter)
{
    uint32_t word = atomic_load_explicit(&waiter->word, memory_order_relaxed);

    return word == THR_WAITING || word == THR_WATCHING;
}

/* Under queue_lock. Sees to it that somebody watches, if there is anything to watch. Whoever is last has most of its time
 * before it. If it has given up it will leave the line, and another one watches. */
static void let_watch(throng_db *db)
{
    uint32_t expected = THR_WAITING;

    if (db->slices == 0 || db->watcher != NULL || db->last == NULL)
        return;
    db->watcher = db->last;
    db->watcher_dozes = false;
    if (atomic_compare_exchange_strong_explicit(&db->watcher->word, &expected, THR_WATCHING, memory_order_relaxed,
                                                memory_order_relaxed))
        thr_os_futex_wake(&db->watcher->word, 1);
}

static void line_append(throng_db *db, struct thr_waiter *waiter)
{
    waiter->prev = db->last;
    waiter->next = NULL;
    waiter->linked = true;
    if (db->last != NULL)
        db->last->next = waiter;
    else
        db->first = waiter;
    db->last = waiter;
    db->waiting++;
    let_watch(db);
}

static void line_remove(throng_db *db, struct thr_waiter *waiter)
{
    if (waiter->prev != NULL)
        waiter->prev->next = waiter->next;
    else
        db->first = waiter->next;
    if (waiter->next != NULL)
        waiter->next->prev = waiter->prev;
    else
        db->last = waiter->prev;
    waiter->linked = false;
    db->waiting--;
    if (db->watcher == waiter) {
        db->watcher = NULL;
        let_watch(db);
    }
}

/* Tell a waiter, unless it has given up. It may be gone as soon as it knows; its word is then only an address. */
static bool tell(struct thr_waiter *waiter, enum thr_waiter_word what)
{
    uint32_t expected = atomic_load_explicit(&waiter->word, memory_order_relaxed);

    while (expected == THR_WAITING || expected == THR_WATCHING) {
        if (atomic_compare_exchange_weak_explicit(&waiter->word, &expected, what, memory_order_release,
                                                  memory_order_relaxed)) /* pairs with sleep_in_line() */
            return true;
    }
    return false;
}

/* Under queue_lock, by the owner: the slot gets this state. */
static void set_marked(struct thr_slot *slot, uint32_t state)
{
    uint32_t before = atomic_load_explicit(&slot->state, memory_order_relaxed) & THR_SLOT_SLICE;

    if ((state & THR_SLOT_SLICE) != before)
        slot->db->slices += before != 0 ? -1u : 1;
    atomic_store_explicit(&slot->state, state, memory_order_release); /* pairs with thr_slot_try_left() */
}

/* Under queue_lock: for who is about to own it. */
static void slice_begin(struct thr_slot *slot)
{
    uint32_t state = THR_SLOT_BUSY | THR_SLOT_ATTENTION;

    if (slot->no_slices > 0) {
        slot->no_slices--;
    } else if (!thr_idle_limited(slot->db)) {
        slot->slice_end_ns = slot->db->slices_end_ns = thr_os_now_ns() + SLICE_NS;
        state |= THR_SLOT_SLICE;
        if (slot->db->watcher != NULL && slot->db->watcher_dozes)
            thr_os_futex_wake(&slot->db->watcher->word, 1);
        slot->db->watcher_dozes = false;
    }
    set_marked(slot, state);
    let_watch(slot->db);
}

/* Hand the slot to the first who still waits. Who has given up takes itself from the line. */
static bool hand_over(throng_db *db, struct thr_slot *slot, _Atomic uint32_t **word_out)
{
    struct thr_waiter *next;

    for (struct thr_waiter *waiter = db->first; waiter != NULL; waiter = next) {
        next = waiter->next;
        if (!still_waits(waiter))
            continue;
        waiter->slot = slot;
        *word_out = &waiter->word;
        line_remove(db, waiter);
        slice_begin(slot);
        if (tell(waiter, THR_GRANTED))
            return true;
        line_append(db, waiter); /* gave up just now: it looks for itself in the line, wherever that is */
    }
    return false;
}

/* Somebody waits, but it may be left free all the same. */
static bool leave_free(struct thr_slot *slot)
{
    if (atomic_load_explicit(&slot->state, memory_order_relaxed) !=
            (THR_SLOT_BUSY | THR_SLOT_ATTENTION | THR_SLOT_SLICE) ||
        slot->conn == NULL || slot->slice_end_ns == 0)
        return false;
    slot->left_ns = thr_os_now_ns();
    if (slot->left_ns >= slot->slice_end_ns) {
        slot->no_slices_next = 0; /* its owner was there all the time */
        return false;
    }
    /* Pairs with thr_slot_try_left(). What is marked only its owner changes, so a store will do. */
    atomic_store_explicit(&slot->state, THR_SLOT_IDLE | THR_SLOT_ATTENTION | THR_SLOT_SLICE, memory_order_release);
    return true;
}

bool thr_slot_try_left(struct thr_slot *slot)
{
    uint32_t expected = THR_SLOT_IDLE | THR_SLOT_ATTENTION | THR_SLOT_SLICE;

    return atomic_load_explicit(&slot->state, memory_order_relaxed) == expected &&
           atomic_compare_exchange_strong_explicit(
               &slot->state, &expected, THR_SLOT_BUSY | THR_SLOT_ATTENTION | THR_SLOT_SLICE, memory_order_acquire,
               memory_order_relaxed); /* pairs with leave_free() */
}

/* It was left free for too long: somebody else could have used it. */
static void no_more_slices(struct thr_slot *slot)
{
    slot->slice_end_ns = 0;
    slot->no_slices_next = slot->no_slices_next == 0 ? NO_SLICES_FIRST : 2 * slot->no_slices_next;
    if (slot->no_slices_next > NO_SLICES_MOST)
        slot->no_slices_next = NO_SLICES_MOST;
    slot->no_slices = slot->no_slices_next;
}

/* By who left it free. */
static bool take_back(struct thr_slot *slot)
{
    if (!thr_slot_try_left(slot))
        return false;
    if (thr_os_now_ns() - slot->left_ns > LEFT_NS)
        no_more_slices(slot);
    return true;
}

void thr_slot_put_slow(struct thr_slot *slot)
{
    throng_db *db = slot->db;

    if (leave_free(slot))
        return; /* P3 */
    for (;;) {
        bool counted = slot->conn != NULL && thr_idle_limited(db);
        uint32_t expected = THR_SLOT_BUSY, target;
        _Atomic uint32_t *word = NULL;

        if (counted && atomic_fetch_add_explicit(&db->idle_count, 1, memory_order_relaxed) >= db->max_idle) {
            (void)atomic_fetch_sub_explicit(&db->idle_count, 1, memory_order_relaxed);
            if (atomic_load_explicit(&slot->state, memory_order_relaxed) == THR_SLOT_BUSY)
                thr_slot_close_conn(slot, THR_CLOSE_IDLE_LIMIT);
            counted = false;
        }
        target = slot->conn != NULL ? THR_SLOT_IDLE : THR_SLOT_EMPTY;
        if (atomic_load_explicit(&slot->state, memory_order_relaxed) == THR_SLOT_BUSY &&
            atomic_compare_exchange_strong_explicit(&slot->state, &expected, target, memory_order_release,
                                                    memory_order_relaxed)) /* pairs with thr_slot_try() */
            return;                                                        /* P3 */
        if (counted)
            (void)atomic_fetch_sub_explicit(&db->idle_count, 1, memory_order_relaxed);
        thr_pool_lock(&db->queue_lock);
        if (hand_over(db, slot, &word)) {
            thr_pool_unlock(&db->queue_lock);
            thr_os_futex_wake(word, 1);
            return;
        }
        /* The line is empty, or all in it have given up: such a one needs no slot. */
        set_marked(slot, THR_SLOT_BUSY);
        thr_pool_unlock(&db->queue_lock);
    }
}

/* --- getting in line --- */

static bool take_free(throng_db *db, struct thr_slot *slot)
{
    uint32_t state = THR_SLOT_EMPTY, high;

    if (thr_slot_try(slot) || thr_slot_try_left(slot))
        return true;
    if (!atomic_compare_exchange_strong_explicit(&slot->state, &state, THR_SLOT_BUSY, memory_order_acquire,
                                                 memory_order_relaxed)) /* pairs with thr_slot_put() */
        return false;
    high = atomic_load_explicit(&db->high, memory_order_relaxed);
    if (slot->index >= high)
        atomic_store_explicit(&db->high, slot->index + 1, memory_order_relaxed); /* under queue_lock */
    return true;
}

/* Under queue_lock. Whether somebody in line still waits. If so, it has been waiting through every release since it came,
 * and none of them has made a slot free. */
static bool line_waits(const throng_db *db)
{
    for (const struct thr_waiter *waiter = db->first; waiter != NULL; waiter = waiter->next) {
        if (still_waits(waiter))
            return true;
    }
    return false;
}

/* Under queue_lock, with nobody in line who waits. A free slot, or NULL: then all are marked (P2). *all_closed: there is none any
 * more. */
static struct thr_slot *claim(throng_db *db, bool *all_closed)
{
    uint32_t high = atomic_load_explicit(&db->high, memory_order_relaxed);

    *all_closed = true;
    for (uint32_t i = 0; i < high; i++) { /* a connection rather than a place for one */
        if (thr_slot_try(&db->slots[i]) || thr_slot_try_left(&db->slots[i]))
            return &db->slots[i];
    }
    for (uint32_t i = 0; i < db->max_open; i++) {
        struct thr_slot *slot = &db->slots[i];
        uint32_t state;

        for (;;) {
            if (take_free(db, slot))
                return slot;
            state = atomic_load_explicit(&slot->state, memory_order_relaxed);
            if (state == THR_SLOT_CLOSED)
                break;
            if (state == (THR_SLOT_BUSY | THR_SLOT_ATTENTION) ||
                state == (THR_SLOT_BUSY | THR_SLOT_ATTENTION | THR_SLOT_SLICE) ||
                (state == THR_SLOT_BUSY &&
                 atomic_compare_exchange_strong_explicit(&slot->state, &state, THR_SLOT_BUSY | THR_SLOT_ATTENTION,
                                                         memory_order_relaxed, memory_order_relaxed))) {
                *all_closed = false;
                break;
            }
        }
    }
    return NULL;
}

static void stop_waiting(void *arg)
{
    struct thr_waiter *waiter = arg;

    if (tell(waiter, THR_STOPPED))
        thr_os_futex_wake(&waiter->word, 1);
}

static void count_wait(throng_db *db, uint64_t began_ns)
{
    uint64_t ns = thr_os_now_ns() - began_ns, most = thr_read(&db->wait_max_ns), us = ns / 1000;
    uint32_t bucket = 0;

    while (us > 0 && bucket < THRONG_WAIT_BUCKETS - 1) {
        us >>= 1;
        bucket++;
    }
    (void)atomic_fetch_add_explicit(&db->waits, 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&db->wait_ns, ns, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&db->wait_histogram[bucket], 1, memory_order_relaxed);
    while (ns > most && !atomic_compare_exchange_weak_explicit(&db->wait_max_ns, &most, ns, memory_order_relaxed,
                                                               memory_order_relaxed))
        ;
}

/* Hand what was left free to the first in line. Whoever is in the line may use the pool: its end waits for them. Returns how
 * long to sleep until the next look. */
THR_COLD static uint64_t watch(throng_db *db, struct thr_waiter *waiter)
{
    uint32_t high = atomic_load_explicit(&db->high, memory_order_relaxed), watching = THR_WATCHING;
    uint64_t interval_ns = WATCH_NS;

    thr_pool_lock(&db->queue_lock);
    for (uint32_t i = 0; i < high && db->watcher == waiter; i++) {
        struct thr_slot *slot = &db->slots[i];
        _Atomic uint32_t *word = NULL;

        if (!thr_slot_try_left(slot))
            continue;
        no_more_slices(slot);
        if (hand_over(db, slot, &word))
            thr_os_futex_wake(word, 1);
        else /* all have given up, and who comes next takes it */
            set_marked(slot, THR_SLOT_IDLE | THR_SLOT_ATTENTION | THR_SLOT_SLICE);
    }
    if (db->watcher == waiter && db->slices == 0) {
        db->watcher = NULL;
        (void)atomic_compare_exchange_strong_explicit(&waiter->word, &watching, THR_WAITING, memory_order_relaxed,
                                                      memory_order_relaxed);
    }
    if (db->watcher == waiter) {
        db->watcher_dozes = thr_os_now_ns() > db->slices_end_ns + WATCH_NS;
        interval_ns = db->watcher_dozes ? DOZE_NS : WATCH_NS;
    }
    thr_pool_unlock(&db->queue_lock);
    return interval_ns;
}

/* Returns what came of it. If that is THR_REFUSED the pool may be gone, so what the wait took is counted here; unless
 * `began_ns` is 0. */
static enum thr_waiter_word sleep_in_line(throng_db *db, struct thr_waiter *waiter, uint64_t deadline_ns,
                                          throng_cancel *cancel, uint64_t began_ns)
{
    struct thr_registration registration = {.stop = stop_waiting, .arg = waiter};
    bool registered = cancel != NULL && thr_cancel_register(cancel, &registration);
    uint64_t interval_ns = WATCH_NS;
    enum thr_waiter_word word;

    if (cancel != NULL && !registered)
        (void)tell(waiter, THR_STOPPED);
    /* acquire: pairs with tell() */
    while ((word = atomic_load_explicit(&waiter->word, memory_order_acquire)) == THR_WAITING || word == THR_WATCHING) {
        uint64_t now = thr_os_now_ns(), ns = deadline_ns == 0 ? UINT64_MAX : deadline_ns - now;

        if (deadline_ns != 0 && now >= deadline_ns) {
            (void)tell(waiter, THR_STOPPED);
            continue;
        }
        (void)thr_os_futex_wait(&waiter->word, word, word == THR_WATCHING && ns > interval_ns ? interval_ns : ns);
        if (word == THR_WATCHING)
            interval_ns = watch(db, waiter);
    }
    if (registered)
        (void)thr_cancel_unregister(cancel, &registration);
    if (word == THR_GRANTED && began_ns != 0)
        count_wait(db, began_ns);
    if (word == THR_STOPPED || word == THR_REFUSED) {
        thr_pool_lock(&db->queue_lock);
        THR_ASSERT(waiter->linked);
        line_remove(db, waiter);
        if (began_ns != 0)
            count_wait(db, began_ns);
        if (word == THR_STOPPED && began_ns != 0)
            (void)atomic_fetch_add_explicit(cancel != NULL && throng_cancel_fired(cancel) ? &db->wait_cancels
                                                                                          : &db->wait_timeouts,
                                            1, memory_order_relaxed);
        thr_pool_unlock(&db->queue_lock);
    }
    return word;
}

THR_COLD static int wait_for_slot(throng_db *db, uint64_t deadline_ns, throng_cancel *cancel, bool is_closer,
                                  struct thr_slot **slot_out)
{
    struct thr_waiter waiter = {.slot = NULL};
    bool all_closed = false;

    thr_pool_lock(&db->queue_lock);
    if (atomic_load_explicit(&db->closing, memory_order_relaxed) && !is_closer) {
        thr_pool_unlock(&db->queue_lock);
        return THRONG_CLOSED;
    }
    if (!line_waits(db))
        *slot_out = claim(db, &all_closed);
    if (*slot_out != NULL || all_closed) {
        thr_pool_unlock(&db->queue_lock);
        return all_closed && *slot_out == NULL ? THRONG_DONE : THRONG_OK;
    }
    line_append(db, &waiter);
    thr_pool_unlock(&db->queue_lock);
    switch (sleep_in_line(db, &waiter, deadline_ns, cancel, is_closer ? 0 : thr_os_now_ns())) {
    case THR_GRANTED:
        *slot_out = waiter.slot;
        return THRONG_OK;
    case THR_REFUSED:
        return THRONG_CLOSED;
    default:
        return cancel != NULL && throng_cancel_fired(cancel) ? THRONG_CANCELED : THRONG_TIMEOUT;
    }
}

int thr_slot_take(throng_db *db, uint64_t deadline_ns, throng_cancel *cancel, struct thr_slot **slot_out,
                  throng_error *err)
{
    struct thr_hint *hint = &thr_hints[db->id % THR_HINTS];
    struct thr_slot *slot = hint->pool == db->id ? hint->slot : NULL;
    uint64_t id = db->id;
    int code;

    *slot_out = NULL;
    if (atomic_load_explicit(&db->closing, memory_order_relaxed))
        return thr_error_plain(err, THRONG_CLOSED);
    if (slot == NULL || (!thr_slot_try(slot) && !take_back(slot))) {
        slot = scan(db, slot);
        if (slot == NULL && (code = wait_for_slot(db, deadline_ns, cancel, false, &slot)) != THRONG_OK)
            return thr_error_set(err, code, 0, NULL, "%s%s", throng_code_text(code),
                                 code == THRONG_CLOSED ? "" : " while waiting for a connection: all are in use");
        *hint = (struct thr_hint){.pool = id, .slot = slot};
    }
    *slot_out = slot;
    return THRONG_OK;
}

/* --- the end --- */

static void refuse_all(throng_db *db)
{
    thr_pool_lock(&db->queue_lock);
    atomic_store_explicit(&db->closing, true, memory_order_relaxed);
    for (struct thr_waiter *waiter = db->first; waiter != NULL; waiter = waiter->next) {
        if (tell(waiter, THR_REFUSED))
            thr_os_futex_wake(&waiter->word, INT_MAX);
    }
    thr_pool_unlock(&db->queue_lock);
}

/* Who has given up, or was refused, still needs the line, to leave it. */
static void wait_for_empty_line(throng_db *db)
{
    for (;;) {
        bool empty;

        thr_pool_lock(&db->queue_lock);
        empty = db->first == NULL;
        thr_pool_unlock(&db->queue_lock);
        if (empty)
            return;
        thr_os_sleep_ns(100000);
    }
}

int thr_queue_close(throng_db *db, uint64_t deadline_ns)
{
    refuse_all(db);
    wait_for_empty_line(db);
    for (;;) {
        struct thr_slot *slot = NULL;
        int code = wait_for_slot(db, deadline_ns, NULL, true, &slot);

        if (code == THRONG_DONE) {
            wait_for_empty_line(db); /* and who gave back the last one is out of the lock (P3) */
            return THRONG_OK;
        }
        if (code != THRONG_OK)
            return code;
        thr_slot_close_conn(slot, THR_CLOSE_SHUTDOWN);
        atomic_store_explicit(&slot->state, THR_SLOT_CLOSED, memory_order_release);
    }
}
