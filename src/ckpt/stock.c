/* SPDX-License-Identifier: MIT */
#include "stock.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"
#include "../space/space.h"
#include "../txn/page1.h"
#include "../util/bytes.h"

int thr_stock_header_read(struct thr_base *base, struct thr_stock_header *out)
{
    uint8_t page[THR_P1_HEADER] = {0};
    int64_t bytes = atomic_load_explicit(&base->bytes, memory_order_acquire);
    uint32_t file_pages;
    bool marked;
    int rc;

    memset(out, 0, sizeof *out);
    if (bytes == 0) {
        out->empty = true;
        return SQLITE_OK;
    }
    if ((rc = thr_base_read(base, page, sizeof page, 0)) != SQLITE_OK)
        return rc;
    marked = thr_page1_unmark(page);
    out->page_size = thr_page1_page_size(page);
    if (memcmp(page, "SQLite format 3", 16) != 0 || out->page_size < 512 || out->page_size > 65536 ||
        (out->page_size & (out->page_size - 1)) != 0 || out->page_size - page[THR_P1_RESERVED] < 480 ||
        page[THR_P1_VERSIONS] > 2 || page[THR_P1_VERSIONS + 1] > 2 || memcmp(page + 21, "\100\040\040", 3) != 0) {
        out->foreign = true;
        return SQLITE_OK;
    }
    out->marked = marked;
    out->wal = page[THR_P1_VERSIONS] == 2 || page[THR_P1_VERSIONS + 1] == 2;
    out->usable_size = out->page_size - page[THR_P1_RESERVED];
    out->page_count = thr_get32(page + THR_P1_SIZE);
    out->change_counter = thr_get32(page + THR_P1_CHANGES);
    out->first_trunk = thr_get32(page + THR_P1_TRUNK);
    out->free_count = thr_get32(page + THR_P1_FREE);
    out->auto_vacuum = thr_get32(page + THR_P1_LARGEST_ROOT) != 0;
    file_pages = (uint32_t)((bytes + out->page_size - 1) / out->page_size);
    if (out->page_count == 0 || thr_get32(page + THR_P1_VALID_FOR) != out->change_counter)
        out->page_count = file_pages; /* written by a version before 3.7.0 */
    if (out->page_count > file_pages)
        out->foreign = true; /* truncated: SQLite will say that it is malformed */
    return SQLITE_OK;
}

int thr_stock_write_page1(struct thr_base *base, const uint8_t *page, uint32_t page_size)
{
    static const struct {
        uint32_t from, to;
    } PARTS[] = {
        {0, THR_P1_MARK_AT}, {THR_P1_MARK_AT + 1, THR_P1_SIZE}, {THR_P1_SIZE + 4, THR_P1_SPAN}, {THR_P1_VALID_FOR, 0}};
    const uint8_t marked = (uint8_t)(page[THR_P1_MARK_AT] | THR_P1_MARK);
    int rc = thr_base_write(base, &marked, 1, THR_P1_MARK_AT);

    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS && rc == SQLITE_OK; i++) {
        uint32_t from = PARTS[i].from, to = PARTS[i].to != 0 ? PARTS[i].to : page_size;

        rc = thr_base_write(base, page + from, to - from, from);
    }
    return rc;
}

static int read_trunk(struct thr_base *base, const struct thr_stock_header *header, uint32_t trunk, uint8_t *page,
                      struct thr_pages *to, uint32_t *next_out)
{
    uint32_t leaves;
    int rc = thr_base_read(base, page, header->page_size, (int64_t)(trunk - 1) * header->page_size);

    if (rc != SQLITE_OK)
        return rc;
    leaves = thr_get32(page + 4);
    if (leaves > header->usable_size / 4 - 2)
        return SQLITE_CORRUPT;
    rc = thr_pages_add(to, trunk);
    for (uint32_t i = 0; i < leaves && rc == SQLITE_OK; i++) {
        uint32_t leaf = thr_get32(page + 8 + 4 * (size_t)i);

        rc = leaf < 2 || leaf > header->page_count ? SQLITE_CORRUPT : thr_pages_add(to, leaf);
    }
    *next_out = thr_get32(page);
    return rc;
}

int thr_stock_list_read(struct thr_base *base, const struct thr_stock_header *header, struct thr_pages *to)
{
    uint8_t *page = thr_os_alloc(header->page_size);
    uint32_t trunk = header->first_trunk;
    int rc = page == NULL ? SQLITE_NOMEM : SQLITE_OK;

    if (rc == SQLITE_OK && header->free_count >= header->page_count)
        rc = SQLITE_CORRUPT; /* else a list that leads back into itself would be followed that far */
    while (rc == SQLITE_OK && to->count < header->free_count) {
        if (trunk < 2 || trunk > header->page_count)
            rc = SQLITE_CORRUPT;
        else
            rc = read_trunk(base, header, trunk, page, to, &trunk);
    }
    if (rc == SQLITE_OK && to->count != header->free_count)
        rc = SQLITE_CORRUPT;
    thr_os_free(page);
    return rc;
}

static int write_list(struct thr_base *base, uint32_t page_size, const struct thr_pages *pages, uint8_t *page1)
{
    struct thr_chain chain = {0};
    uint8_t *page = thr_os_alloc(page_size);
    int rc = page == NULL ? SQLITE_NOMEM
                          : thr_chain_make(&chain, pages->at, pages->count, page_size - page1[THR_P1_RESERVED]);

    for (size_t i = 0; i < chain.count && rc == SQLITE_OK; i += 2 + chain.words[i + 1]) {
        thr_chain_trunk(&chain, chain.words[i], page, page_size);
        rc = thr_base_write(base, page, page_size, (int64_t)(chain.words[i] - 1) * page_size);
    }
    thr_put32(page1 + THR_P1_TRUNK, chain.first);
    thr_put32(page1 + THR_P1_FREE, chain.pages);
    thr_chain_free(&chain);
    thr_os_free(page);
    return rc;
}

int thr_stock_finish(struct thr_base *base, uint32_t page_size, uint32_t page_count, struct thr_pages *free_pages,
                     bool with_list, uint32_t change_counter, int64_t *bytes_out)
{
    uint8_t page1[THR_P1_HEADER];
    int rc = thr_base_read(base, page1, sizeof page1, 0);

    *bytes_out = 0;
    if (rc != SQLITE_OK)
        return rc;
    while (with_list) {
        if (free_pages->count > 0 && free_pages->at[free_pages->count - 1] == page_count) {
            page_count--;
            free_pages->count--;
        } else if (page_count == thr_lock_page(page_size)) { /* a file of SQLite never ends with it */
            page_count--;
        } else {
            break;
        }
    }
    if (with_list && (rc = write_list(base, page_size, free_pages, page1)) != SQLITE_OK)
        return rc;
    thr_put32(page1 + THR_P1_CHANGES, change_counter);
    thr_put32(page1 + THR_P1_VALID_FOR, change_counter);
    thr_put32(page1 + THR_P1_VALID_FOR + 4, SQLITE_VERSION_NUMBER);
    thr_put32(page1 + THR_P1_SIZE, page_count);
    *bytes_out = (int64_t)page_count * page_size;
    return thr_base_write(base, page1, sizeof page1, 0);
}
