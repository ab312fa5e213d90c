/* SPDX-License-Identifier: MIT */
#include "sets.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "../os/os.h"

void thr_reads_free(struct thr_reads *reads)
{
    thr_os_free(reads->pages);
    memset(reads, 0, sizeof *reads);
}

void thr_reads_clear(struct thr_reads *reads)
{
    if (reads->count == 0)
        return;
    reads->count = 0;
    memset(reads->filter, 0, sizeof reads->filter);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void sort_unique(struct thr_reads *reads)
{
    size_t kept = 0;

    if (reads->count == 0)
        return;
    qsort(reads->pages, reads->count, sizeof *reads->pages, ascending);
    for (size_t i = 0; i < reads->count; i++)
        if (i == 0 || reads->pages[i] != reads->pages[kept - 1])
            reads->pages[kept++] = reads->pages[i];
    reads->count = kept;
}

int thr_reads_add_slow(struct thr_reads *reads, uint32_t pgno)
{
    sort_unique(reads);
    if (reads->count * 4 >= reads->capacity * 3) {
        size_t capacity = reads->capacity > 0 ? reads->capacity * 2 : 256;
        uint32_t *at = thr_os_realloc(reads->pages, capacity * sizeof *at);

        if (at == NULL)
            return SQLITE_NOMEM;
        reads->pages = at;
        reads->capacity = capacity;
    }
    reads->filter[pgno % 256] = pgno;
    reads->pages[reads->count++] = pgno;
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
