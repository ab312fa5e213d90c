/* SPDX-License-Identifier: MIT */
#include "base.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"

enum { MAP_OPEN, MAP_HELD, MAP_DONE }; /* map_lock: nobody mapped it yet; somebody does, or forks; it was tried */
static const size_t ROOM_TO_GROW = (size_t)1 << 36, ROOM_LEAST = (size_t)1 << 24;

int thr_base_read(struct thr_base *base, void *to, size_t bytes, int64_t offset)
{
    size_t got = 0;
    int rc;

    if (offset >= atomic_load_explicit(&base->bytes, memory_order_acquire)) {
        memset(to, 0, bytes);
        return SQLITE_OK;
    }
    if ((rc = thr_os_read(base->fd, to, bytes, offset, &got)) != SQLITE_OK)
        return rc;
    if (got < bytes)
        memset((uint8_t *)to + got, 0, bytes - got);
    return SQLITE_OK;
}

static uint8_t *map_now(struct thr_base *base)
{
    uint32_t open = MAP_OPEN;
    void *at = NULL;

    if (!atomic_compare_exchange_strong_explicit(&base->map_lock, &open, MAP_HELD, memory_order_acquire,
                                                 memory_order_relaxed))
        return NULL; /* somebody is mapping it, or it could not be mapped: read instead */
    base->map_bytes = (size_t)atomic_load_explicit(&base->bytes, memory_order_acquire) + ROOM_TO_GROW;
    if (thr_os_map_some(base->fd, &base->map_bytes, ROOM_LEAST, 4, false, &at) != SQLITE_OK)
        at = NULL;
    atomic_store_explicit(&base->at, (uint8_t *)at, memory_order_release);  /* pairs with thr_base_fetch() */
    atomic_store_explicit(&base->map_lock, MAP_DONE, memory_order_release); /* pairs with thr_base_before_fork() */
    return at;
}

void thr_base_before_fork(struct thr_base *base)
{
    uint32_t state = MAP_OPEN;

    while (!atomic_compare_exchange_strong_explicit(&base->map_lock, &state, MAP_HELD, memory_order_acquire,
                                                    memory_order_acquire)) {
        if (state == MAP_DONE)
            return;
        state = MAP_OPEN;
        thr_os_yield();
    }
}

void thr_base_after_fork(struct thr_base *base)
{
    if (atomic_load_explicit(&base->map_lock, memory_order_relaxed) == MAP_HELD) /* by thr_base_before_fork() */
        atomic_store_explicit(&base->map_lock, MAP_OPEN, memory_order_release);  /* pairs with map_now() */
}

void thr_base_abandon(struct thr_base *base)
{
    thr_os_map_zeros(atomic_load_explicit(&base->at, memory_order_relaxed), base->map_bytes);
    thr_os_close(base->fd);
    base->fd = -1;
}

const uint8_t *thr_base_fetch(struct thr_base *base, size_t bytes, int64_t offset)
{
    uint8_t *at = atomic_load_explicit(&base->at, memory_order_acquire);

    if (offset + (int64_t)bytes > atomic_load_explicit(&base->bytes, memory_order_acquire))
        return NULL;
    if (at == NULL && (at = map_now(base)) == NULL)
        return NULL;
    return (size_t)offset + bytes <= base->map_bytes ? at + offset : NULL;
}

bool thr_base_contains(const struct thr_base *base, const void *at)
{
    uintptr_t from = (uintptr_t)atomic_load_explicit(&base->at, memory_order_acquire);

    return from != 0 && (uintptr_t)at >= from && (uintptr_t)at - from < base->map_bytes;
}

int thr_base_write(struct thr_base *base, const void *from, size_t bytes, int64_t offset)
{
    int64_t end = offset + (int64_t)bytes;
    int rc = thr_os_write(base->fd, from, bytes, offset);

    if (rc == SQLITE_OK && end > atomic_load_explicit(&base->bytes, memory_order_relaxed))
        atomic_store_explicit(&base->bytes, end, memory_order_release); /* pairs with thr_base_read() */
    return rc;
}

int thr_base_truncate(struct thr_base *base, int64_t bytes)
{
    int rc = thr_os_truncate(base->fd, bytes);

    if (rc == SQLITE_OK)
        atomic_store_explicit(&base->bytes, bytes, memory_order_release);
    return rc;
}

void thr_base_close(struct thr_base *base)
{
    uint8_t *at = atomic_load_explicit(&base->at, memory_order_acquire);

    if (at != NULL)
        thr_os_unmap(at, base->map_bytes);
    atomic_store_explicit(&base->at, NULL, memory_order_relaxed);
}
