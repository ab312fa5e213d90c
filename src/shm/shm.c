/* SPDX-License-Identifier: MIT */
#include "shm.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"

#define SHM_MAP_BYTES (THR_CHUNKS_OFFSET + (size_t)THR_CHUNK_MAX * sizeof(struct thr_chunk))
#define SHM_MAP_LEAST (THR_CHUNKS_OFFSET + (size_t)64 * sizeof(struct thr_chunk)) /* 2 million pages */

static int reserve(struct thr_shm *shm, size_t offset, size_t bytes)
{
    return shm->fd < 0 ? SQLITE_OK : thr_os_allocate(shm->fd, (int64_t)offset, (int64_t)bytes);
}

int thr_shm_create(struct thr_shm *shm, const char *path, uint32_t mode)
{
    void *at = NULL;
    int rc;

    memset(shm, 0, sizeof *shm);
    shm->fd = -1;
    shm->map_bytes = SHM_MAP_BYTES;
    if (path == NULL) {
        if ((rc = thr_os_map_anonymous(shm->map_bytes, &at)) != SQLITE_OK)
            return rc;
    } else {
        if ((rc = thr_os_open(path, THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL | THR_OPEN_INSIDE, mode, &shm->fd,
                              NULL)) != SQLITE_OK)
            return rc;
        if ((rc = reserve(shm, 0, THR_DIRECTORY_OFFSET + 4096)) != SQLITE_OK)
            goto err_close;
        if ((rc = thr_os_map_some(shm->fd, &shm->map_bytes, SHM_MAP_LEAST, 16, true, &at)) != SQLITE_OK)
            goto err_close;
    }
    shm->at = at;
    shm->head = at;
    memcpy(shm->head->magic, "ThrgShm", 8);
    shm->head->version = 2;
    return SQLITE_OK;

err_close:
    thr_os_close(shm->fd);
    shm->fd = -1;
    return rc;
}

void thr_shm_close(struct thr_shm *shm)
{
    if (shm->at != NULL)
        thr_os_unmap(shm->at, shm->map_bytes);
    if (shm->fd >= 0)
        thr_os_close(shm->fd);
    memset(shm, 0, sizeof *shm);
    shm->fd = -1;
}

/* Chunks are never given back. */
static int chunk_add(struct thr_shm *shm, uint32_t index)
{
    _Atomic uint32_t *directory = (_Atomic uint32_t *)(void *)(shm->at + THR_DIRECTORY_OFFSET);
    uint32_t number = index + 1; /* the file is sparse, so every chunk has a place of its own */
    int rc;

    if (THR_CHUNKS_OFFSET + (size_t)number * sizeof(struct thr_chunk) > shm->map_bytes)
        return SQLITE_NOMEM; /* address space was limited when the database was opened */
    rc = reserve(shm, THR_DIRECTORY_OFFSET + index * sizeof(uint32_t), sizeof(uint32_t));
    if (rc == SQLITE_OK)
        rc = reserve(shm, THR_CHUNKS_OFFSET + index * sizeof(struct thr_chunk), sizeof(struct thr_chunk));
    if (rc == SQLITE_OK)
        atomic_store_explicit(&directory[index], number, memory_order_release); /* pairs with thr_shm_chunk() */
    return rc;
}

int thr_shm_reserve_pages(struct thr_shm *shm, uint32_t page_count)
{
    uint32_t last = page_count / THR_CHUNK_PAGES;
    _Atomic uint32_t *directory = (_Atomic uint32_t *)(void *)(shm->at + THR_DIRECTORY_OFFSET);
    int rc = SQLITE_OK;

    /* The directory's own pages exist only from the first chunk in them on: look at the file's highest one first. */
    if (shm->fd >= 0 && (rc = reserve(shm, THR_DIRECTORY_OFFSET, (last + 1) * sizeof(uint32_t))) != SQLITE_OK)
        return rc;
    for (uint32_t index = 0; index <= last; index++) {
        if (atomic_load_explicit(&directory[index], memory_order_acquire) != 0)
            continue;
        thr_mutex_lock(&shm->head->slot_lock, UINT64_MAX);
        if (atomic_load_explicit(&directory[index], memory_order_acquire) == 0)
            rc = chunk_add(shm, index);
        thr_mutex_unlock(&shm->head->slot_lock);
        if (rc != SQLITE_OK)
            return rc;
    }
    return SQLITE_OK;
}

int thr_shm_slot_acquire(struct thr_shm *shm, uint32_t *index_out)
{
    struct thr_head *head = shm->head;
    struct thr_slot *slot;
    uint32_t index, high;
    int rc = SQLITE_OK;

    thr_mutex_lock(&head->slot_lock, UINT64_MAX);
    high = atomic_load_explicit(&head->slot_high, memory_order_relaxed);
    for (index = 0; index < high; index++)
        if (atomic_load_explicit(&thr_shm_slot(shm, index)->state, memory_order_relaxed) == THR_SLOT_FREE)
            break;
    if (index == THR_SLOT_MAX) {
        rc = SQLITE_CANTOPEN;
        goto done;
    }
    if (index == high && (rc = reserve(shm, THR_SLOTS_OFFSET + index * sizeof *slot, sizeof *slot)) != SQLITE_OK)
        goto done;
    slot = thr_shm_slot(shm, index);
    for (int i = 0; i < THR_COUNTERS; i++)
        atomic_store_explicit(&slot->counter[i], 0, memory_order_relaxed);
    atomic_store_explicit(&slot->snapshot, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->pid, thr_os_pid(), memory_order_relaxed);
    atomic_store_explicit(&slot->state, THR_SLOT_IDLE, memory_order_release);
    if (index == high)
        atomic_store_explicit(&head->slot_high, high + 1, memory_order_release); /* pairs with scans of all slots */
    *index_out = index;
done:
    thr_mutex_unlock(&head->slot_lock);
    return rc;
}

void thr_shm_slot_release(struct thr_shm *shm, uint32_t index)
{
    struct thr_slot *slot = thr_shm_slot(shm, index);

    thr_mutex_lock(&shm->head->slot_lock, UINT64_MAX);
    for (int i = 0; i < THR_COUNTERS; i++)
        atomic_fetch_add_explicit(&shm->head->counter[i], atomic_load_explicit(&slot->counter[i], memory_order_relaxed),
                                  memory_order_relaxed);
    atomic_store_explicit(&slot->snapshot, 0, memory_order_release);
    atomic_store_explicit(&slot->state, THR_SLOT_FREE, memory_order_release);
    thr_mutex_unlock(&shm->head->slot_lock);
}

uint64_t thr_shm_counter(const struct thr_shm *shm, enum thr_counter which)
{
    uint64_t sum = atomic_load_explicit(&shm->head->counter[which], memory_order_relaxed);
    uint32_t high = atomic_load_explicit(&shm->head->slot_high, memory_order_acquire);

    for (uint32_t i = 0; i < high; i++) {
        const struct thr_slot *slot = thr_shm_slot(shm, i);

        if (atomic_load_explicit(&slot->state, memory_order_acquire) != THR_SLOT_FREE)
            sum += atomic_load_explicit(&slot->counter[which], memory_order_relaxed);
    }
    return sum;
}

uint32_t thr_shm_oldest_slot(const struct thr_shm *shm, uint64_t *began_ns)
{
    uint32_t high = atomic_load_explicit(&shm->head->slot_high, memory_order_acquire), oldest = THR_SLOT_MAX;

    for (uint32_t i = 0; i < high; i++) {
        const struct thr_slot *slot = thr_shm_slot(shm, i);
        uint64_t began = atomic_load_explicit(&slot->begin_ns, memory_order_relaxed);

        if (atomic_load_explicit(&slot->snapshot, memory_order_acquire) != 0 && began != 0 && began < *began_ns) {
            *began_ns = began;
            oldest = i;
        }
    }
    return oldest;
}

_Atomic uint64_t *thr_shm_bit_words(struct thr_chunk *chunk, enum thr_bits bits)
{
    switch (bits) {
    case THR_BITS_FREE:
        return chunk->free;
    case THR_BITS_TAKEN:
        return chunk->taken;
    case THR_BITS_BASE_FREE:
        break;
    }
    return chunk->base_free;
}

bool thr_shm_bit(const struct thr_shm *shm, enum thr_bits bits, uint32_t pgno)
{
    struct thr_chunk *chunk = thr_shm_chunk(shm, pgno);
    uint32_t i = pgno % THR_CHUNK_PAGES;

    if (chunk == NULL)
        return false;
    return (atomic_load_explicit(&thr_shm_bit_words(chunk, bits)[i / 64], memory_order_acquire) >> (i % 64)) & 1;
}

bool thr_shm_bit_set(struct thr_shm *shm, enum thr_bits bits, uint32_t pgno, bool on)
{
    struct thr_chunk *chunk = thr_shm_chunk(shm, pgno);
    uint32_t i = pgno % THR_CHUNK_PAGES;
    uint64_t mask = UINT64_C(1) << (i % 64), old;

    THR_ASSERT(chunk != NULL);
    if (on)
        old = atomic_fetch_or_explicit(&thr_shm_bit_words(chunk, bits)[i / 64], mask, memory_order_acq_rel);
    else
        old = atomic_fetch_and_explicit(&thr_shm_bit_words(chunk, bits)[i / 64], ~mask, memory_order_acq_rel);
    return ((old & mask) != 0) != on;
}
