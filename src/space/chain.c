/* SPDX-License-Identifier: MIT */
#include "chain.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"
#include "../util/bytes.h"

void thr_chain_free(struct thr_chain *chain)
{
    thr_os_free(chain->words);
    memset(chain, 0, sizeof *chain);
}

void thr_chain_clear(struct thr_chain *chain)
{
    chain->count = 0;
    chain->pages = 0;
    chain->first = 0;
    chain->built = true;
    chain->layout++;
}

static int chain_room(struct thr_chain *chain, size_t words)
{
    size_t capacity = chain->capacity > 0 ? chain->capacity : 64;
    uint32_t *at;

    if (chain->count + words <= chain->capacity)
        return SQLITE_OK;
    while (capacity < chain->count + words)
        capacity *= 2;
    if ((at = thr_os_realloc(chain->words, capacity * sizeof *at)) == NULL)
        return SQLITE_NOMEM;
    chain->words = at;
    chain->capacity = capacity;
    return SQLITE_OK;
}

int thr_chain_add(struct thr_chain *chain, const uint32_t *pages, uint32_t count, uint32_t leaves_max,
                  uint32_t usable_size)
{
    /* Stock SQLite leaves the last six places of a trunk empty, for the sake of versions before 3.6.0. */
    uint32_t most = usable_size / 4 - 8, leaves;
    int rc;

    if (leaves_max > most)
        leaves_max = most;
    for (uint32_t i = 0; i < count; i += 1 + leaves) {
        leaves = count - i - 1 < leaves_max ? count - i - 1 : leaves_max;
        if ((rc = chain_room(chain, 2 + leaves)) != SQLITE_OK)
            return rc;
        chain->words[chain->count++] = pages[i];
        chain->words[chain->count++] = leaves;
        if (leaves > 0)
            memcpy(chain->words + chain->count, pages + i + 1, leaves * sizeof(uint32_t));
        chain->count += leaves;
    }
    if (chain->pages == 0 && count > 0)
        chain->first = pages[0];
    chain->pages += count;
    return SQLITE_OK;
}

int thr_chain_make(struct thr_chain *chain, const uint32_t *pages, uint32_t count, uint32_t usable_size)
{
    thr_chain_clear(chain);
    return thr_chain_add(chain, pages, count, UINT32_MAX, usable_size);
}

/* Index of the trunk's first word, or SIZE_MAX. */
static size_t find_trunk(const struct thr_chain *chain, uint32_t pgno)
{
    for (size_t i = 0; i < chain->count; i += 2 + chain->words[i + 1])
        if (chain->words[i] == pgno)
            return i;
    return SIZE_MAX;
}

bool thr_chain_is_trunk(const struct thr_chain *chain, uint32_t pgno)
{
    return chain->first != 0 && (chain->first == pgno || find_trunk(chain, pgno) != SIZE_MAX);
}

bool thr_chain_trunk(const struct thr_chain *chain, uint32_t pgno, uint8_t *to, uint32_t page_size)
{
    size_t at = find_trunk(chain, pgno), next;
    uint32_t leaves;

    if (at == SIZE_MAX)
        return false;
    leaves = chain->words[at + 1];
    next = at + 2 + leaves;
    memset(to, 0, page_size);
    thr_put32(to, next < chain->count ? chain->words[next] : 0);
    thr_put32(to + 4, leaves);
    for (uint32_t i = 0; i < leaves; i++)
        thr_put32(to + 8 + 4 * (size_t)i, chain->words[at + 2 + i]);
    return true;
}

int thr_pages_add(struct thr_pages *pages, uint32_t pgno)
{
    if (pages->count == pages->capacity) {
        uint32_t capacity = pages->capacity > 0 ? pages->capacity * 2 : 32;
        uint32_t *at = thr_os_realloc(pages->at, capacity * sizeof *at);

        if (at == NULL)
            return SQLITE_NOMEM;
        pages->at = at;
        pages->capacity = capacity;
    }
    pages->at[pages->count++] = pgno;
    return SQLITE_OK;
}

/* Append the trunk `pgno`, as the transaction left it, to `after`; *next_out is the trunk that follows. */
static int append_trunk(const struct thr_chain *before, uint32_t pgno, const uint8_t *written, uint32_t usable_size,
                        struct thr_chain *after, struct thr_map32 *kept, uint32_t *next_out)
{
    bool fresh;
    uint32_t leaves;
    size_t at;
    int rc;

    if (written == NULL) {
        if ((at = find_trunk(before, pgno)) == SIZE_MAX)
            return SQLITE_CORRUPT;
        if (thr_map32_insert(kept, pgno, &fresh) == NULL)
            return SQLITE_NOMEM;
        if (!fresh)
            return SQLITE_CORRUPT; /* it leads back into itself */
        leaves = before->words[at + 1];
        if ((rc = chain_room(after, 2 + leaves)) != SQLITE_OK)
            return rc;
        memcpy(after->words + after->count, before->words + at, (2 + leaves) * sizeof(uint32_t));
        after->count += 2 + leaves;
        at += 2 + leaves;
        *next_out = at < before->count ? before->words[at] : 0;
    } else {
        leaves = thr_get32(written + 4);
        if (leaves > usable_size / 4 - 2)
            return SQLITE_CORRUPT;
        if ((rc = chain_room(after, 2 + leaves)) != SQLITE_OK)
            return rc;
        after->words[after->count++] = pgno;
        after->words[after->count++] = leaves;
        for (uint32_t i = 0; i < leaves; i++)
            after->words[after->count++] = thr_get32(written + 8 + 4 * (size_t)i);
        *next_out = thr_get32(written);
    }
    after->pages += 1 + leaves;
    return SQLITE_OK;
}

/* Calls `fn` for every page of the chain, but for trunks that are `kept` with all they have. */
static int each_page(const struct thr_chain *chain, const struct thr_map32 *kept, int (*fn)(void *ctx, uint32_t pgno),
                     void *ctx)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < chain->count && rc == SQLITE_OK;) {
        uint32_t leaves = chain->words[i + 1];

        if (thr_map32_find(kept, chain->words[i]) == NULL) {
            rc = fn(ctx, chain->words[i]);
            for (uint32_t k = 0; k < leaves && rc == SQLITE_OK; k++)
                rc = fn(ctx, chain->words[i + 2 + k]);
        }
        i += 2 + leaves;
    }
    return rc;
}

struct diff {
    struct thr_map32 was; /* pages of the list before: 1, in the list after too: 2 */
    struct thr_map32 is;
    struct thr_map32 kept; /* trunks that were not written: as before, with their leaves */
    struct thr_pages *taken, *freed;
    uint32_t page_count;
};

static int note_was(void *ctx, uint32_t pgno)
{
    struct diff *diff = ctx;
    uint32_t *value = thr_map32_insert(&diff->was, pgno, NULL);

    if (value == NULL)
        return SQLITE_NOMEM;
    *value = 1;
    return SQLITE_OK;
}

static int note_is(void *ctx, uint32_t pgno)
{
    struct diff *diff = ctx;
    uint32_t *value;
    bool fresh;

    if (pgno < 2 || pgno > diff->page_count || thr_map32_find(&diff->kept, pgno) != NULL)
        return SQLITE_CORRUPT;
    if ((value = thr_map32_find(&diff->was, pgno)) != NULL) {
        if (*value == 2)
            return SQLITE_CORRUPT; /* twice in the list */
        *value = 2;
        return SQLITE_OK;
    }
    if (thr_map32_insert(&diff->is, pgno, &fresh) == NULL)
        return SQLITE_NOMEM;
    return fresh ? thr_pages_add(diff->freed, pgno) : SQLITE_CORRUPT;
}

static int note_taken(void *ctx, uint32_t pgno)
{
    struct diff *diff = ctx;

    return *thr_map32_find(&diff->was, pgno) == 1 ? thr_pages_add(diff->taken, pgno) : SQLITE_OK;
}

/* Pages of kept trunks are in range, and none of them was freed. Far cheaper than to look each up. */
static int check_kept(const struct thr_chain *chain, const struct diff *diff)
{
    enum { FEW = 16 };
    const struct thr_pages *freed = diff->freed;

    for (size_t i = 0; i < chain->count; i += 2 + chain->words[i + 1]) {
        if (thr_map32_find(&diff->kept, chain->words[i]) == NULL)
            continue;
        for (size_t k = i; k < i + 2 + chain->words[i + 1]; k++) {
            uint32_t pgno = chain->words[k];

            if (k == i + 1) /* the number of leaves */
                continue;
            if (pgno > diff->page_count || (freed->count > FEW && thr_map32_find(&diff->is, pgno) != NULL))
                return SQLITE_CORRUPT;
            for (uint32_t n = 0; n < freed->count && freed->count <= FEW; n++)
                if (freed->at[n] == pgno)
                    return SQLITE_CORRUPT;
        }
    }
    return SQLITE_OK;
}

int thr_chain_diff(const struct thr_chain *before, uint32_t first, uint32_t pages, uint32_t page_count,
                   const uint8_t *(*read_trunk)(void *ctx, uint32_t pgno), void *ctx, uint32_t usable_size,
                   struct thr_chain *after, struct thr_pages *taken, struct thr_pages *freed)
{
    struct diff diff = {.taken = taken, .freed = freed, .page_count = page_count};
    uint32_t trunk = first;
    int rc = SQLITE_OK;

    thr_chain_clear(after);
    while (after->pages < pages && rc == SQLITE_OK) {
        if (trunk < 2 || trunk > page_count) {
            rc = SQLITE_CORRUPT;
            break;
        }
        rc = append_trunk(before, trunk, read_trunk(ctx, trunk), usable_size, after, &diff.kept, &trunk);
    }
    if (rc == SQLITE_OK && after->pages != pages)
        rc = SQLITE_CORRUPT;
    after->first = pages > 0 ? first : 0;
    if (rc == SQLITE_OK)
        rc = each_page(before, &diff.kept, note_was, &diff);
    if (rc == SQLITE_OK)
        rc = each_page(after, &diff.kept, note_is, &diff);
    if (rc == SQLITE_OK)
        rc = check_kept(before, &diff);
    if (rc == SQLITE_OK)
        rc = each_page(before, &diff.kept, note_taken, &diff);
    thr_map32_free(&diff.was);
    thr_map32_free(&diff.is);
    thr_map32_free(&diff.kept);
    return rc;
}
