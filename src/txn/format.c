/* SPDX-License-Identifier: MIT */
#include "format.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"
#include "page1.h"

/* All free pages as one stock list: its trunk pages, and what page 1 says of it. */
static int write_stock_list(struct thr_conn *conn, uint8_t *page1, uint8_t *page)
{
    uint32_t page_size = thr_conn_page_size(conn);
    struct thr_pages pages = {0};
    struct thr_chain chain = {0};
    int rc = thr_space_list(&conn->db->shm, conn->page_count, 0, &pages);

    if (rc == SQLITE_OK)
        rc = thr_chain_make(&chain, pages.at, pages.count,
                            atomic_load_explicit(&conn->db->usable_size, memory_order_relaxed));
    for (size_t i = 0; i < chain.count && rc == SQLITE_OK; i += 2 + chain.words[i + 1]) {
        thr_chain_trunk(&chain, chain.words[i], page, page_size);
        rc = thr_page_write(conn, page, page_size, (int64_t)(chain.words[i] - 1) * page_size);
    }
    thr_put32(page1 + THR_P1_TRUNK, chain.first);
    thr_put32(page1 + THR_P1_FREE, chain.pages);
    thr_chain_free(&chain);
    thr_os_free(pages.at);
    return rc;
}

/* The trunk pages of the stock list, written once more: the commit then knows every page of it. */
static int touch_stock_list(struct thr_conn *conn, const uint8_t *page1, uint8_t *page)
{
    uint32_t page_size = thr_conn_page_size(conn);
    uint32_t trunk = thr_get32(page1 + THR_P1_TRUNK), left = thr_get32(page1 + THR_P1_FREE);
    bool is_short;
    int rc = SQLITE_OK;

    while (left > 0 && rc == SQLITE_OK) {
        int64_t at = (int64_t)(trunk - 1) * page_size;
        uint32_t pages;

        if (trunk < 2 || trunk > conn->page_count || left >= conn->page_count)
            return SQLITE_CORRUPT;
        if ((rc = thr_page_read(conn, page, page_size, at, &is_short)) != SQLITE_OK ||
            (rc = thr_page_write(conn, page, page_size, at)) != SQLITE_OK)
            break;
        pages = thr_get32(page + 4);
        left = pages < left ? left - pages - 1 : 0;
        trunk = thr_get32(page);
    }
    return rc;
}

static int change_format(struct thr_conn *conn, uint32_t format, uint8_t *page1, uint8_t *page)
{
    bool is_short;
    int rc = thr_page_read(conn, page1, thr_conn_page_size(conn), 0, &is_short);

    if (rc != SQLITE_OK)
        return rc;
    if (format == 2 && thr_get32(page1 + THR_P1_LARGEST_ROOT) != 0)
        return SQLITE_CONSTRAINT;
    rc = format == 1 ? write_stock_list(conn, page1, page) : touch_stock_list(conn, page1, page);
    if (rc != SQLITE_OK)
        return rc;
    thr_put32(page1 + THR_P1_CHANGES, conn->change_counter + 1);
    if ((rc = thr_page_write(conn, page1, thr_conn_page_size(conn), 0)) != SQLITE_OK)
        return rc;
    conn->set_format = format;
    rc = thr_commit_one(conn);
    conn->set_format = 0;
    return rc;
}

int thr_format_set(struct thr_conn *conn, uint32_t format)
{
    struct thr_head *head = conn->db->shm.head;
    uint8_t *pages = NULL;
    int rc;

    if (format == atomic_load_explicit(&head->format, memory_order_relaxed))
        return SQLITE_OK;
    if (conn->snapshot != 0)
        return SQLITE_BUSY;
    if (conn->read_only || conn->db->foreign)
        return SQLITE_READONLY;
    if ((rc = thr_txn_begin(conn, THR_KIND_REWRITE)) != SQLITE_OK)
        return rc;
    if (conn->page_count == 0) {
        atomic_store_explicit(&head->format, format, memory_order_relaxed); /* alone, and nothing to convert */
    } else if ((pages = thr_os_alloc((size_t)2 * thr_conn_page_size(conn))) == NULL) {
        rc = SQLITE_NOMEM;
    } else if ((rc = thr_txn_reserve(conn, THR_KIND_REWRITE)) == SQLITE_OK) {
        rc = change_format(conn, format, pages, pages + thr_conn_page_size(conn));
    }
    thr_os_free(pages);
    thr_txn_end(conn);
    return rc;
}
