/* The shared index as one process sees it: the mapping, its growth, and the page map.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SHM_H
#define THR_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

struct thr_shm {
    int fd; /* -1: anonymous memory, for a database that cannot be written */
    uint8_t *at;
    struct thr_head *head;
    size_t map_bytes;
};

/* Make a new, empty index in the file `path` (which must not be in use), or in anonymous memory if `path` is NULL.
 * SQLITE_OK, SQLITE_NOMEM, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_IOERR_*; on error nothing stays open. */
int thr_shm_create(struct thr_shm *shm, const char *path, uint32_t mode);
void thr_shm_close(struct thr_shm *shm);

/* See to it that pages up to `page_count` have their chunks. Takes no lock: the caller holds space_lock or commit_lock,
 * or is alone; growth itself is guarded by slot_lock. */
int thr_shm_reserve_pages(struct thr_shm *shm, uint32_t page_count);

/* The chunk of `pgno`, or NULL if nobody has reserved it. */
static inline struct thr_chunk *thr_shm_chunk(const struct thr_shm *shm, uint32_t pgno)
{
    const _Atomic uint32_t *directory = (const _Atomic uint32_t *)(const void *)(shm->at + THR_DIRECTORY_OFFSET);
    uint32_t number = atomic_load_explicit(&directory[pgno / THR_CHUNK_PAGES],
                                           memory_order_acquire); /* pairs with chunk_add() */

    if (number == 0)
        return NULL;
    return (struct thr_chunk *)(void *)(shm->at + THR_CHUNKS_OFFSET + (size_t)(number - 1) * sizeof(struct thr_chunk));
}

/* The page map's entry of a page, or NULL. */
static inline _Atomic uint32_t *thr_shm_newest(const struct thr_shm *shm, uint32_t pgno)
{
    struct thr_chunk *chunk = thr_shm_chunk(shm, pgno);

    return chunk == NULL ? NULL : &chunk->newest[pgno % THR_CHUNK_PAGES];
}

static inline struct thr_slot *thr_shm_slot(const struct thr_shm *shm, uint32_t index)
{
    return (struct thr_slot *)(void *)(shm->at + THR_SLOTS_OFFSET) + index;
}

/* A slot of the caller's own. SQLITE_OK, SQLITE_CANTOPEN when all are taken, SQLITE_FULL when the disk is full,
 * SQLITE_IOERR_*. */
int thr_shm_slot_acquire(struct thr_shm *shm, uint32_t *index_out);
void thr_shm_slot_release(struct thr_shm *shm, uint32_t index);

/* The slot whose snapshot was taken first, and before *began_ns (thr_os_now_ns()), which becomes that time. THR_SLOT_MAX:
 * there is none. */
uint32_t thr_shm_oldest_slot(const struct thr_shm *shm, uint64_t *began_ns);

/* Which bitmap of struct thr_chunk. */
enum thr_bits { THR_BITS_FREE, THR_BITS_TAKEN, THR_BITS_BASE_FREE };
bool thr_shm_bit(const struct thr_shm *shm, enum thr_bits bits, uint32_t pgno);
/* Returns whether the bit changed. The chunk must be reserved. */
bool thr_shm_bit_set(struct thr_shm *shm, enum thr_bits bits, uint32_t pgno, bool on);
_Atomic uint64_t *thr_shm_bit_words(struct thr_chunk *chunk, enum thr_bits bits);

static inline void thr_count(struct thr_slot *slot, enum thr_counter which, uint64_t n)
{
    uint64_t old = atomic_load_explicit(&slot->counter[which], memory_order_relaxed);

    atomic_store_explicit(&slot->counter[which], old + n, memory_order_relaxed);
}
uint64_t thr_shm_counter(const struct thr_shm *shm, enum thr_counter which);

#endif
