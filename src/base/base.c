/* SPDX-License-Identifier: MIT */
#include "base.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"

enum { MAP_OPEN, MAP_HELD }; /* map_lock: held by a thread that maps a segment, or forks */
enum { SHIFT_USUAL = 26, SHIFT_LEAST = 24, SHIFT_MAX = 40 }; /* of the first segment */

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

static uint32_t segment_of(uint32_t shift, int64_t offset)
{
    return 63u - (uint32_t)__builtin_clzll(((uint64_t)offset >> shift) + 1);
}

static size_t segment_start(uint32_t shift, uint32_t segment)
{
    return (((size_t)1 << segment) - 1) << shift;
}

static size_t segment_bytes(uint32_t shift, uint32_t segment)
{
    return (size_t)1 << (shift + segment);
}

/* How long the first segment is: all that the file has, and as much again. Where address space is limited, a quarter of
 * what can be had: the rest is for others. */
static int map_first(struct thr_base *base)
{
    int64_t bytes = atomic_load_explicit(&base->bytes, memory_order_acquire);
    uint32_t wanted = SHIFT_USUAL, shift;
    void *at = NULL;
    int rc;

    while (wanted < SHIFT_MAX && (int64_t)1 << wanted < 2 * bytes)
        wanted++;
    for (shift = wanted; (rc = thr_os_map(base->fd, (size_t)1 << shift, false, &at)) == SQLITE_NOMEM; shift--)
        if (shift == SHIFT_LEAST)
            return rc;
    if (rc == SQLITE_OK && shift < wanted && shift > SHIFT_LEAST) {
        thr_os_unmap(at, (size_t)1 << shift);
        shift = shift - 2 > SHIFT_LEAST ? shift - 2 : SHIFT_LEAST;
        rc = thr_os_map(base->fd, (size_t)1 << shift, false, &at);
    }
    if (rc != SQLITE_OK)
        return rc;
    atomic_store_explicit(&base->at[0], (uint8_t *)at, memory_order_release);
    atomic_store_explicit(&base->map_count, 1, memory_order_release);     /* pairs with thr_base_contains() */
    atomic_store_explicit(&base->map_shift, shift, memory_order_release); /* pairs with thr_base_fetch() */
    return SQLITE_OK;
}

/* Map the segment that `offset` is in, unless another thread is mapping one, or it could not be mapped before: then the
 * caller reads instead. */
static void map_more(struct thr_base *base, int64_t offset)
{
    uint32_t open = MAP_OPEN, shift, segment = 0;
    void *at = NULL;
    int rc = SQLITE_OK;

    if (!atomic_compare_exchange_strong_explicit(&base->map_lock, &open, MAP_HELD, memory_order_acquire,
                                                 memory_order_relaxed))
        return;
    if (atomic_load_explicit(&base->map_shift, memory_order_relaxed) == 0)
        rc = map_first(base);
    shift = atomic_load_explicit(&base->map_shift, memory_order_relaxed);
    if (rc == SQLITE_OK)
        segment = segment_of(shift, offset);
    if (rc == SQLITE_OK && segment < THR_BASE_SEGMENTS &&
        atomic_load_explicit(&base->at[segment], memory_order_relaxed) == NULL &&
        (rc = thr_os_map_at(base->fd, (int64_t)segment_start(shift, segment), segment_bytes(shift, segment), false,
                            false, &at)) == SQLITE_OK) {
        atomic_store_explicit(&base->at[segment], (uint8_t *)at,
                              memory_order_release); /* pairs with thr_base_fetch() */
        if (segment >= atomic_load_explicit(&base->map_count, memory_order_relaxed))
            atomic_store_explicit(&base->map_count, segment + 1, memory_order_release); /* thr_base_contains() */
    }
    if (rc != SQLITE_OK)
        atomic_store_explicit(&base->map_failed, segment + 1, memory_order_relaxed);
    atomic_store_explicit(&base->map_lock, MAP_OPEN, memory_order_release); /* pairs with thr_base_before_fork() */
}

void thr_base_before_fork(struct thr_base *base)
{
    uint32_t open = MAP_OPEN;

    while (!atomic_compare_exchange_strong_explicit(&base->map_lock, &open, MAP_HELD, memory_order_acquire,
                                                    memory_order_relaxed)) {
        open = MAP_OPEN;
        thr_os_yield();
    }
}

void thr_base_after_fork(struct thr_base *base)
{
    atomic_store_explicit(&base->map_lock, MAP_OPEN, memory_order_release); /* pairs with map_more() */
}

void thr_base_abandon(struct thr_base *base)
{
    uint32_t shift = atomic_load_explicit(&base->map_shift, memory_order_relaxed);

    for (uint32_t i = 0; i < atomic_load_explicit(&base->map_count, memory_order_relaxed); i++)
        thr_os_map_zeros(atomic_load_explicit(&base->at[i], memory_order_relaxed), segment_bytes(shift, i));
    thr_os_close(base->fd);
    base->fd = -1;
}

static const uint8_t *find(const struct thr_base *base, size_t bytes, int64_t offset)
{
    uint32_t shift = atomic_load_explicit(&base->map_shift, memory_order_acquire); /* pairs with map_first() */
    uint32_t segment;
    const uint8_t *at;

    if (shift == 0 || (segment = segment_of(shift, offset)) >= THR_BASE_SEGMENTS ||
        (at = atomic_load_explicit(&base->at[segment], memory_order_acquire)) == NULL || /* pairs with map_more() */
        (size_t)offset + bytes > segment_start(shift, segment) + segment_bytes(shift, segment))
        return NULL;
    return at + ((size_t)offset - segment_start(shift, segment));
}

/* Whether there was no address space for the segment that `offset` is in. */
static bool has_failed(const struct thr_base *base, int64_t offset)
{
    uint32_t failed = atomic_load_explicit(&base->map_failed, memory_order_relaxed);
    uint32_t shift = atomic_load_explicit(&base->map_shift, memory_order_acquire);

    return failed != 0 && (shift == 0 || segment_of(shift, offset) + 1 >= failed);
}

const uint8_t *thr_base_fetch(struct thr_base *base, size_t bytes, int64_t offset)
{
    const uint8_t *at;

    if (offset + (int64_t)bytes > atomic_load_explicit(&base->bytes, memory_order_acquire))
        return NULL;
    if ((at = find(base, bytes, offset)) != NULL || has_failed(base, offset))
        return at;
    map_more(base, offset);
    return find(base, bytes, offset);
}

bool thr_base_contains(const struct thr_base *base, const void *at)
{
    uint32_t count = atomic_load_explicit(&base->map_count, memory_order_acquire); /* pairs with map_more() */
    uint32_t shift = atomic_load_explicit(&base->map_shift, memory_order_relaxed);

    for (uint32_t i = 0; i < count; i++) {
        uintptr_t from = (uintptr_t)atomic_load_explicit(&base->at[i], memory_order_acquire);

        if (from != 0 && (uintptr_t)at >= from && (uintptr_t)at - from < segment_bytes(shift, i))
            return true;
    }
    return false;
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
    uint32_t shift = atomic_load_explicit(&base->map_shift, memory_order_relaxed);

    for (uint32_t i = 0; i < atomic_load_explicit(&base->map_count, memory_order_relaxed); i++) {
        uint8_t *at = atomic_load_explicit(&base->at[i], memory_order_relaxed);

        if (at != NULL)
            thr_os_unmap(at, segment_bytes(shift, i));
        atomic_store_explicit(&base->at[i], NULL, memory_order_relaxed);
    }
    atomic_store_explicit(&base->map_count, 0, memory_order_relaxed);
    atomic_store_explicit(&base->map_shift, 0, memory_order_relaxed);
}
