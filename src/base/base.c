/* SPDX-License-Identifier: MIT */
#include "base.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"

static const size_t ROOM_TO_GROW = (size_t)1 << 36;

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
    uint32_t no = 0;
    void *at = NULL;

    if (!atomic_compare_exchange_strong_explicit(&base->map_lock, &no, 1, memory_order_acquire, memory_order_relaxed))
        return NULL; /* somebody is mapping it, or it could not be mapped: read instead */
    base->map_bytes = (size_t)atomic_load_explicit(&base->bytes, memory_order_acquire) + ROOM_TO_GROW;
    while (thr_os_map(base->fd, base->map_bytes, false, &at) != SQLITE_OK) {
        base->map_bytes /= 4;
        if (base->map_bytes < (size_t)1 << 24)
            return NULL;
    }
    atomic_store_explicit(&base->at, (uint8_t *)at, memory_order_release); /* pairs with thr_base_fetch() */
    return at;
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
