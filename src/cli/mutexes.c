/* SQLite's own mutexes, counted.
 *
 * SPDX-License-Identifier: MIT */
#include "mutexes.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"

enum figure { ACQUISITIONS, CONTENDED, WAIT_NS, LONGEST_NS, FIGURES };

/* What SQLite holds for a mutex. Only who holds it writes the figures, so that counting costs no atomic operation that
 * is more than a load and a store, and no line that somebody else writes. */
struct counted {
    sqlite3_mutex *inner;
    int id;
    _Atomic uint64_t figure[FIGURES];
    struct counted *next, **link; /* of those that SQLite has made; registry_lock */
};

static const char *const names[THR_MUTEX_KINDS] = {
    [SQLITE_MUTEX_FAST] = "FAST",
    [SQLITE_MUTEX_RECURSIVE] = "RECURSIVE",
    [SQLITE_MUTEX_STATIC_MAIN] = "STATIC_MAIN",
    [SQLITE_MUTEX_STATIC_MEM] = "STATIC_MEM",
    [SQLITE_MUTEX_STATIC_OPEN] = "STATIC_OPEN",
    [SQLITE_MUTEX_STATIC_PRNG] = "STATIC_PRNG",
    [SQLITE_MUTEX_STATIC_LRU] = "STATIC_LRU",
    [SQLITE_MUTEX_STATIC_PMEM] = "STATIC_PMEM",
    [SQLITE_MUTEX_STATIC_APP1] = "STATIC_APP1",
    [SQLITE_MUTEX_STATIC_APP2] = "STATIC_APP2",
    [SQLITE_MUTEX_STATIC_APP3] = "STATIC_APP3",
    [SQLITE_MUTEX_STATIC_VFS1] = "STATIC_VFS1",
    [SQLITE_MUTEX_STATIC_VFS2] = "STATIC_VFS2",
    [SQLITE_MUTEX_STATIC_VFS3] = "STATIC_VFS3",
};

static sqlite3_mutex_methods inner; /* SQLite's own; fixed before the first mutex is made */
static bool counting;
static struct counted statics[THR_MUTEX_KINDS]; /* by id; the first two are the sums of those that are gone */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct counted *registry;

static struct counted *counted_of(sqlite3_mutex *mutex)
{
    return (struct counted *)(void *)mutex;
}

static uint64_t get(const struct counted *counted, enum figure figure)
{
    return atomic_load_explicit(&counted->figure[figure], memory_order_relaxed);
}

static void set(struct counted *counted, enum figure figure, uint64_t value)
{
    atomic_store_explicit(&counted->figure[figure], value, memory_order_relaxed);
}

static void add_all(struct counted *into, const struct counted *from)
{
    for (int figure = ACQUISITIONS; figure < LONGEST_NS; figure++)
        set(into, (enum figure)figure, get(into, (enum figure)figure) + get(from, (enum figure)figure));
    if (get(from, LONGEST_NS) > get(into, LONGEST_NS))
        set(into, LONGEST_NS, get(from, LONGEST_NS));
}

/* --- sqlite3_mutex_methods --- */

static int count_init(void)
{
    int rc = inner.xMutexInit();

    for (int id = SQLITE_MUTEX_STATIC_MAIN; rc == SQLITE_OK && id < THR_MUTEX_KINDS; id++) {
        statics[id].id = id;
        statics[id].inner = inner.xMutexAlloc(id);
    }
    return rc;
}

static int count_end(void)
{
    return inner.xMutexEnd();
}

static sqlite3_mutex *count_alloc(int id)
{
    struct counted *counted;

    if (id >= SQLITE_MUTEX_STATIC_MAIN)
        return id < THR_MUTEX_KINDS ? (sqlite3_mutex *)(void *)&statics[id] : NULL;
    if ((counted = calloc(1, sizeof *counted)) == NULL)
        return NULL;
    counted->id = id;
    if ((counted->inner = inner.xMutexAlloc(id)) == NULL) {
        free(counted);
        return NULL;
    }
    (void)pthread_mutex_lock(&registry_lock);
    if ((counted->next = registry) != NULL)
        registry->link = &counted->next;
    counted->link = &registry;
    registry = counted;
    (void)pthread_mutex_unlock(&registry_lock);
    return (sqlite3_mutex *)(void *)counted;
}

static void count_free(sqlite3_mutex *mutex)
{
    struct counted *counted = counted_of(mutex);

    (void)pthread_mutex_lock(&registry_lock);
    if ((*counted->link = counted->next) != NULL)
        counted->next->link = counted->link;
    add_all(&statics[counted->id], counted);
    (void)pthread_mutex_unlock(&registry_lock);
    inner.xMutexFree(counted->inner);
    free(counted);
}

static void count_enter(sqlite3_mutex *mutex)
{
    struct counted *counted = counted_of(mutex);
    uint64_t waited_ns;

    if (inner.xMutexTry(counted->inner) != SQLITE_OK) {
        waited_ns = thr_clock_ns();
        inner.xMutexEnter(counted->inner);
        waited_ns = thr_clock_ns() - waited_ns;
        set(counted, CONTENDED, get(counted, CONTENDED) + 1);
        set(counted, WAIT_NS, get(counted, WAIT_NS) + waited_ns);
        if (waited_ns > get(counted, LONGEST_NS))
            set(counted, LONGEST_NS, waited_ns);
    }
    set(counted, ACQUISITIONS, get(counted, ACQUISITIONS) + 1);
}

static int count_try(sqlite3_mutex *mutex)
{
    struct counted *counted = counted_of(mutex);
    int rc = inner.xMutexTry(counted->inner);

    if (rc == SQLITE_OK)
        set(counted, ACQUISITIONS, get(counted, ACQUISITIONS) + 1);
    return rc;
}

static void count_leave(sqlite3_mutex *mutex)
{
    inner.xMutexLeave(counted_of(mutex)->inner);
}

static int count_held(sqlite3_mutex *mutex)
{
    return inner.xMutexHeld(counted_of(mutex)->inner);
}

static int count_notheld(sqlite3_mutex *mutex)
{
    return inner.xMutexNotheld(counted_of(mutex)->inner);
}

const char *thr_mutexes_count(void)
{
    sqlite3_mutex_methods methods = {count_init, count_end,   count_alloc, count_free, count_enter,
                                     count_try,  count_leave, NULL,        NULL};

    /* SQLite chooses its own when it is initialized, and tells them, and takes others, while it is not. */
    if (sqlite3_initialize() != SQLITE_OK || sqlite3_shutdown() != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_GETMUTEX, &inner) != SQLITE_OK || inner.xMutexAlloc == NULL)
        return "SQLite does not tell its mutexes";
    if (inner.xMutexHeld != NULL) { /* a build of SQLite that asserts */
        methods.xMutexHeld = count_held;
        methods.xMutexNotheld = count_notheld;
    }
    if (sqlite3_config(SQLITE_CONFIG_MUTEX, &methods) != SQLITE_OK)
        return "SQLite refuses other mutexes";
    counting = true;
    return NULL;
}

/* --- reading --- */

static void clear(struct counted *counted)
{
    for (int figure = 0; figure < FIGURES; figure++)
        set(counted, (enum figure)figure, 0);
}

void thr_mutexes_reset(void)
{
    (void)pthread_mutex_lock(&registry_lock);
    for (int id = 0; id < THR_MUTEX_KINDS; id++)
        clear(&statics[id]);
    for (struct counted *each = registry; each != NULL; each = each->next)
        clear(each);
    (void)pthread_mutex_unlock(&registry_lock);
}

uint32_t thr_mutexes_read(struct thr_lock_count out[THR_MUTEX_KINDS])
{
    struct counted sum;

    if (!counting)
        return 0;
    (void)pthread_mutex_lock(&registry_lock);
    for (int id = 0; id < THR_MUTEX_KINDS; id++) {
        clear(&sum);
        add_all(&sum, &statics[id]);
        for (const struct counted *each = registry; each != NULL; each = each->next) {
            if (each->id == id)
                add_all(&sum, each);
        }
        out[id] = (struct thr_lock_count){.acquisitions = get(&sum, ACQUISITIONS),
                                          .contended = get(&sum, CONTENDED),
                                          .wait_ns = get(&sum, WAIT_NS),
                                          .longest_ns = get(&sum, LONGEST_NS)};
        (void)snprintf(out[id].name, sizeof out[id].name, "%s", names[id]);
    }
    (void)pthread_mutex_unlock(&registry_lock);
    return THR_MUTEX_KINDS;
}
