/* SPDX-License-Identifier: MIT */
#include "sets.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"

void thr_reads_free(struct thr_reads *reads)
{
    thr_os_free(reads->pages);
    thr_os_free(reads->bits);
    memset(reads, 0, sizeof *reads);
}

void thr_reads_clear(struct thr_reads *reads)
{
    for (size_t i = 0; i < reads->count; i++)
        reads->bits[reads->pages[i] / 64] = 0;
    reads->count = 0;
}

int thr_reads_grow(struct thr_reads *reads, uint32_t pgno)
{
    if (pgno >= reads->bit_count) {
        uint32_t bits = reads->bit_count > 0 ? reads->bit_count : 4096;
        uint64_t *at;

        while (bits <= pgno)
            bits = bits < UINT32_MAX / 2 ? bits * 2 : UINT32_MAX - 63;
        if ((at = thr_os_realloc(reads->bits, bits / 64 * sizeof *at)) == NULL)
            return SQLITE_NOMEM;
        memset(at + reads->bit_count / 64, 0, (bits - reads->bit_count) / 64 * sizeof *at);
        reads->bits = at;
        reads->bit_count = bits;
    }
    if (reads->count == reads->capacity) {
        size_t capacity = reads->capacity > 0 ? reads->capacity * 2 : 256;
        uint32_t *at = thr_os_realloc(reads->pages, capacity * sizeof *at);

        if (at == NULL)
            return SQLITE_NOMEM;
        reads->pages = at;
        reads->capacity = capacity;
    }
    return SQLITE_OK;
}

void thr_writes_free(struct thr_writes *writes)
{
    thr_os_free(writes->at);
    thr_map32_free(&writes->index);
    memset(writes, 0, sizeof *writes);
}

void thr_writes_clear(struct thr_writes *writes)
{
    writes->count = 0;
    thr_map32_clear(&writes->index);
}

struct thr_write *thr_writes_find(const struct thr_writes *writes, uint32_t pgno)
{
    const uint32_t *place = writes->count == 0 ? NULL : thr_map32_find(&writes->index, pgno);

    return place == NULL || *place == 0 ? NULL : &writes->at[*place - 1];
}

struct thr_write *thr_writes_add(struct thr_writes *writes, uint32_t pgno, bool *fresh_out)
{
    uint32_t *place;

    *fresh_out = false;
    if (writes->count == writes->capacity) {
        uint32_t capacity = writes->capacity > 0 ? writes->capacity * 2 : 64;
        struct thr_write *at = thr_os_realloc(writes->at, capacity * sizeof *at);

        if (at == NULL)
            return NULL;
        writes->at = at;
        writes->capacity = capacity;
    }
    if ((place = thr_map32_insert(&writes->index, pgno, NULL)) == NULL)
        return NULL;
    if (*place == 0) {
        *fresh_out = true;
        writes->at[writes->count] = (struct thr_write){.pgno = pgno};
        *place = ++writes->count;
    }
    return &writes->at[*place - 1];
}
