/* Reading and writing pages of a transaction.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "db.h"
#include "page1.h"
#include "txn.h"

static bool made_up_list(const struct thr_conn *conn)
{
    return atomic_load_explicit(&conn->db->shm.head->format, memory_order_relaxed) == 2;
}

/* Note the read, so that the commit can tell whether it still holds. */
static int note_read(struct thr_conn *conn, uint32_t pgno)
{
    int rc = SQLITE_OK;

    if (!conn->read_only)
        rc = thr_reads_add(&conn->reads, pgno);
    if (conn->is_protected)
        thr_turn_protect_page(conn, pgno);
    else if (rc == SQLITE_OK && conn->writing && conn->kind == THR_KIND_EXPLICIT)
        rc = thr_commit_check_page(conn, pgno);
    return rc;
}

/* From now on, until it is given back, no checkpoint writes versions to the base file that our snapshot does not see.
 * False: one is about to. */
static bool hold_base(struct thr_conn *conn)
{
    struct thr_head *head = conn->db->shm.head;
    uint32_t held = atomic_load_explicit(&conn->slot->pointers, memory_order_relaxed);

    /* Announced before it is believed; the checkpointer does the same the other way round (pairs with pin()). */
    atomic_store_explicit(&conn->slot->pointers, held + 1, held == 0 ? memory_order_seq_cst : memory_order_relaxed);
    if (held > 0 || atomic_load_explicit(&head->passing_seq, memory_order_seq_cst) <= conn->snapshot)
        return true;
    atomic_store_explicit(&conn->slot->pointers, 0, memory_order_release);
    return false;
}

static void unhold_base(struct thr_conn *conn)
{
    uint32_t held = atomic_load_explicit(&conn->slot->pointers, memory_order_relaxed);

    THR_ASSERT(held > 0);
    atomic_store_explicit(&conn->slot->pointers, held - 1, memory_order_release); /* pairs with pin() */
}

/* A page that the database file had when it was looked for, from the file's mapping, if the user asked for one (then an I/O
 * error is a signal, as with stock SQLite). It is held meanwhile: a checkpointer that writes another version sees either
 * that, and waits until the copy is done, or is seen by us. (To copy first and look at the chain again afterwards would not
 * do: plain loads of the copy may be later than that look.) Past what the snapshot has, a checkpoint may cut off the file at
 * this moment. False: read the file. */
static bool copy_mapped(struct thr_conn *conn, uint32_t pgno, uint8_t *to, uint32_t *frame_out)
{
    uint32_t page_size = thr_conn_page_size(conn);
    int64_t offset = (int64_t)(pgno - 1) * page_size;
    const uint8_t *from = NULL;

    if (pgno > conn->committed_count || offset + page_size > conn->map_limit || !hold_base(conn))
        return false;
    *frame_out = thr_version_find(&conn->db->heap, pgno, conn->snapshot, NULL);
    if (*frame_out == 0 && (from = thr_base_fetch(&conn->db->base, page_size, offset)) != NULL)
        memcpy(to, from, page_size);
    unhold_base(conn);
    return *frame_out != 0 || from != NULL;
}

/* As thr_page_committed(). *free_out: whether the page is free in that version. */
static int committed_version(struct thr_conn *conn, uint32_t pgno, uint8_t *buffer, const uint8_t **out, bool *free_out)
{
    const struct thr_heap *heap = &conn->db->heap;
    uint32_t frame = thr_version_find(heap, pgno, conn->snapshot, NULL);
    int rc;

    if (frame == 0 && !copy_mapped(conn, pgno, buffer, &frame)) {
        uint32_t page_size = thr_conn_page_size(conn);

        if ((rc = thr_base_read(&conn->db->base, buffer, page_size, (int64_t)(pgno - 1) * page_size)) != SQLITE_OK)
            return rc;
        /* A checkpoint may have written a newer version under us; then the one that was there is in the chain now. */
        frame = thr_version_find(heap, pgno, conn->snapshot, NULL);
    }
    if (frame == 0 && pgno == 1)
        thr_page1_unmark(buffer);
    if (free_out != NULL && frame == 0)
        *free_out = thr_shm_bit(&conn->db->shm, THR_BITS_BASE_FREE, pgno);
    else if (free_out != NULL)
        *free_out = (atomic_load_explicit(&thr_heap_frame(heap, frame)->pgno, memory_order_relaxed) & THR_PGNO_FREE) !=
                    0;
    *out = frame == 0 ? buffer : thr_heap_page(heap, frame);
    return SQLITE_OK;
}

int thr_page_committed(struct thr_conn *conn, uint32_t pgno, uint8_t *buffer, const uint8_t **out)
{
    return committed_version(conn, pgno, buffer, out, NULL);
}

void thr_page1_overlay(const struct thr_conn *conn, uint8_t *page, uint32_t page_bytes)
{
    if (page_bytes < THR_P1_HEADER)
        return;
    if (page[THR_P1_VERSIONS] == 2)
        page[THR_P1_VERSIONS] = 1;
    if (page[THR_P1_VERSIONS + 1] == 2)
        page[THR_P1_VERSIONS + 1] = 1;
    thr_put32(page + THR_P1_CHANGES, conn->change_counter);
    thr_put32(page + THR_P1_SIZE, conn->page_count);
    thr_put32(page + THR_P1_VALID_FOR, conn->change_counter);
    if (made_up_list(conn)) {
        thr_put32(page + THR_P1_TRUNK, conn->free_count > 0 ? conn->stripe.chain.first : 0);
        thr_put32(page + THR_P1_FREE, conn->free_count);
    }
}

int thr_page1_committed(struct thr_conn *conn, uint8_t *to)
{
    const uint8_t *from;
    uint32_t page_size = thr_conn_page_size(conn);
    int rc = thr_page_committed(conn, 1, to, &from);

    if (rc == SQLITE_OK && from != to)
        memcpy(to, from, page_size);
    return rc;
}

/* All free pages as of the snapshot. If it is the newest the bitmap has them. */
static int all_free(struct thr_conn *conn, uint32_t first, struct thr_pages *to)
{
    struct thr_head *head = conn->db->shm.head;
    bool newest;
    int rc = SQLITE_OK;

    thr_mutex_lock(&head->commit_lock, UINT64_MAX);
    newest = atomic_load_explicit(&head->commit_seq, memory_order_relaxed) == conn->snapshot;
    if (newest)
        rc = thr_space_list(&conn->db->shm, conn->committed_count, first, to);
    thr_mutex_unlock(&head->commit_lock);
    if (!newest)
        rc = thr_space_all_free(&conn->db->heap, conn->snapshot, conn->committed_count, first, to);
    return rc;
}

/* First the pages that are in the pool, in trunks of their own: a writer takes them in this order, and others hold the
 * rest. That may change, and is not relied upon. `pages` begins with the first trunk, which the pager knows. */
static int make_list(struct thr_conn *conn, const struct thr_pages *pages)
{
    uint32_t usable_size = atomic_load_explicit(&conn->db->usable_size, memory_order_relaxed);
    struct thr_pages to_have = {0}, of_others = {0};
    int rc = SQLITE_OK;

    for (uint32_t i = 0; i < pages->count && rc == SQLITE_OK; i++)
        rc = thr_pages_add(i > 0 && thr_space_is_taken(&conn->db->shm, pages->at[i]) ? &of_others : &to_have,
                           pages->at[i]);
    thr_chain_clear(&conn->stripe.chain);
    conn->stripe.mixed = of_others.count > 0;
    if (rc == SQLITE_OK)
        rc = thr_chain_add(&conn->stripe.chain, to_have.at, to_have.count, THR_TRUNK_LEAVES, usable_size);
    if (rc == SQLITE_OK)
        rc = thr_chain_add(&conn->stripe.chain, of_others.at, of_others.count, UINT32_MAX, usable_size);
    thr_os_free(to_have.at);
    thr_os_free(of_others.at);
    return rc;
}

int thr_page_list_pool(struct thr_conn *conn)
{
    struct thr_pages pages = {0};
    uint32_t kept = 0;
    int rc = all_free(conn, 0, &pages);

    for (uint32_t i = 0; i < pages.count; i++)
        if (!thr_space_is_taken(&conn->db->shm, pages.at[i]))
            pages.at[kept++] = pages.at[i];
    thr_chain_clear(&conn->stripe.chain);
    if (rc == SQLITE_OK)
        rc = thr_chain_add(&conn->stripe.chain, pages.at, kept, THR_TRUNK_LEAVES,
                           atomic_load_explicit(&conn->db->usable_size, memory_order_relaxed));
    thr_os_free(pages.at);
    return rc;
}

int thr_page_build_list(struct thr_conn *conn)
{
    struct thr_chain *chain = &conn->stripe.chain;
    struct thr_pages pages = {0};
    uint32_t layout = chain->layout;
    int rc;

    if (chain->built)
        return SQLITE_OK;
    rc = all_free(conn, chain->first, &pages);
    /* A rewrite since the snapshot, and growth after it, may have used pages that were free then: too late to write. */
    if (rc == SQLITE_OK && pages.count != conn->free_count)
        rc = conn->snapshot < atomic_load_explicit(&conn->db->shm.head->rewrite_seq, memory_order_acquire)
                 ? SQLITE_BUSY_SNAPSHOT
                 : SQLITE_CORRUPT;
    if (rc == SQLITE_OK)
        rc = make_list(conn, &pages);
    thr_os_free(pages.at);
    chain->layout = layout; /* the pager has seen nothing of it before */
    if (rc == SQLITE_CORRUPT)
        thr_log(rc, "throng: the free list of %s does not add up", conn->db->path);
    return rc;
}

/* A trunk page of the list that the pager is shown: *found_out. */
static int read_made_up(struct thr_conn *conn, uint32_t pgno, uint8_t *to, bool *found_out)
{
    struct thr_chain *chain = &conn->stripe.chain;
    int rc = SQLITE_OK;

    *found_out = false;
    if (chain->first == 0 || conn->free_count == 0 || !made_up_list(conn))
        return SQLITE_OK;
    if (pgno == chain->first)
        rc = thr_page_build_list(conn);
    if (rc == SQLITE_OK && thr_chain_is_trunk(chain, pgno))
        *found_out = thr_chain_trunk(chain, pgno, to, thr_conn_page_size(conn));
    return rc;
}

/* Whether a list is shown that is not made up yet: any of its pages may turn out to be a trunk. Who follows the list comes
 * to its first trunk first, but a backup reads the pages in the order of their numbers. */
static bool list_is_due(const struct thr_conn *conn)
{
    const struct thr_chain *chain = &conn->stripe.chain;

    return !chain->built && chain->first != 0 && conn->free_count > 0 && made_up_list(conn);
}

int thr_page_original(struct thr_conn *conn, uint32_t pgno, uint8_t *to)
{
    uint32_t page_size = thr_conn_page_size(conn);
    const uint8_t *from;
    bool found;
    int rc = read_made_up(conn, pgno, to, &found);

    if (rc != SQLITE_OK || found)
        return rc;
    if ((rc = thr_page_committed(conn, pgno, to, &from)) != SQLITE_OK)
        return rc;
    if (from != to)
        memcpy(to, from, page_size);
    if (pgno == 1)
        thr_page1_overlay(conn, to, page_size);
    return SQLITE_OK;
}

static int read_page(struct thr_conn *conn, uint32_t pgno, uint8_t *to)
{
    struct thr_db *db = conn->db;
    uint32_t page_size = thr_conn_page_size(conn);
    const struct thr_write *write = thr_writes_find(&conn->writes, pgno);
    const uint8_t *from;
    bool due, found, is_free = false;
    int rc;

    if (write != NULL && write->frame != 0) {
        memcpy(to, thr_heap_page(&db->heap, write->frame), page_size);
        return SQLITE_OK;
    }
    if (pgno > conn->page_count) {
        memset(to, 0, page_size);
        return SQLITE_OK;
    }
    if ((rc = read_made_up(conn, pgno, to, &found)) != SQLITE_OK || found)
        return rc;
    due = list_is_due(conn);
    if ((rc = note_read(conn, pgno)) != SQLITE_OK ||
        (rc = committed_version(conn, pgno, to, &from, due ? &is_free : NULL)) != SQLITE_OK)
        return rc;
    if (is_free && ((rc = thr_page_build_list(conn)) != SQLITE_OK ||
                    (rc = read_made_up(conn, pgno, to, &found)) != SQLITE_OK || found))
        return rc;
    thr_count(conn->slot, THR_COUNT_PAGES_READ, 1);
    if (from != to)
        memcpy(to, from, page_size);
    if (pgno == 1)
        thr_page1_overlay(conn, to, page_size);
    return SQLITE_OK;
}

/* The 16 bytes by which the pager sees whether its cache is still right: no need for the rest of page 1. */
static void read_change_key(const struct thr_conn *conn, uint8_t *to)
{
    thr_put32(to, conn->change_counter);
    thr_put32(to + 4, conn->page_count);
    thr_put32(to + 8, conn->free_count > 0 ? conn->stripe.chain.first : 0);
    thr_put32(to + 12, conn->free_count);
}

static int grow_buffer(struct thr_conn *conn)
{
    uint32_t page_size = thr_conn_page_size(conn);
    uint8_t *at;

    if (conn->buffer_bytes >= page_size)
        return SQLITE_OK;
    if ((at = thr_os_alloc(page_size)) == NULL)
        return SQLITE_NOMEM;
    thr_os_free(conn->page_buffer);
    conn->page_buffer = at;
    conn->buffer_bytes = page_size;
    return SQLITE_OK;
}

/* Bytes that are no database we understand, or one that nobody may write: as they are in the file. */
static int read_raw(struct thr_conn *conn, void *to, size_t bytes, int64_t offset, bool *short_out)
{
    int64_t size = atomic_load_explicit(&conn->db->base.bytes, memory_order_acquire);

    *short_out = offset + (int64_t)bytes > size;
    return thr_base_read(&conn->db->base, to, bytes, offset);
}

int thr_page_read(struct thr_conn *conn, void *to, size_t bytes, int64_t offset, bool *short_out)
{
    uint32_t page_size = thr_conn_page_size(conn);
    uint8_t *at = to;
    int64_t end;
    int rc;

    *short_out = false;
    if (conn->db->foreign)
        return read_raw(conn, to, bytes, offset, short_out);
    if (page_size == 0 || (conn->page_count == 0 && conn->writes.count == 0)) {
        memset(to, 0, bytes);
        *short_out = true;
        return SQLITE_OK;
    }
    if (bytes == page_size && offset % page_size == 0) {
        *short_out = offset / page_size >= conn->page_count &&
                     thr_writes_find(&conn->writes, (uint32_t)(offset / page_size + 1)) == NULL;
        return read_page(conn, (uint32_t)(offset / page_size + 1), to);
    }
    if (bytes == 16 && offset == THR_P1_CHANGES && made_up_list(conn) && conn->writes.count == 0) {
        read_change_key(conn, to);
        return SQLITE_OK;
    }
    if ((rc = grow_buffer(conn)) != SQLITE_OK)
        return rc;
    end = (int64_t)conn->page_count * page_size;
    while (bytes > 0) {
        size_t from = (size_t)(offset % page_size), part = page_size - from;

        if (part > bytes)
            part = bytes;
        *short_out = *short_out || offset + (int64_t)part > end;
        if ((rc = read_page(conn, (uint32_t)(offset / page_size + 1), conn->page_buffer)) != SQLITE_OK)
            return rc;
        memcpy(at, conn->page_buffer + from, part);
        at += part;
        offset += (int64_t)part;
        bytes -= part;
    }
    return SQLITE_OK;
}

void thr_page_unfetch(struct thr_conn *conn, const void *page)
{
    if (thr_base_contains(&conn->db->base, page))
        unhold_base(conn);
}

int thr_page_fetch(struct thr_conn *conn, uint32_t pgno, const uint8_t **out)
{
    struct thr_db *db = conn->db;
    uint32_t page_size = thr_conn_page_size(conn), frame;
    int64_t offset = (int64_t)(pgno - 1) * page_size;
    int rc;

    *out = NULL;
    if (pgno <= 1 || pgno > conn->page_count || db->foreign || thr_writes_find(&conn->writes, pgno) != NULL ||
        thr_chain_is_trunk(&conn->stripe.chain, pgno) ||
        (list_is_due(conn) && thr_space_is_free(&db->heap, pgno, conn->snapshot)))
        return SQLITE_OK;
    if ((rc = note_read(conn, pgno)) != SQLITE_OK)
        return rc;
    if ((frame = thr_version_find(&db->heap, pgno, conn->snapshot, NULL)) == 0 &&
        offset + page_size <= conn->map_limit && hold_base(conn)) {
        /* No checkpoint writes a newer version from here on; one may have done so before. */
        if ((frame = thr_version_find(&db->heap, pgno, conn->snapshot, NULL)) == 0)
            *out = thr_base_fetch(&db->base, page_size, offset);
        if (*out == NULL)
            unhold_base(conn);
    }
    if (frame != 0)
        *out = thr_heap_page(&db->heap, frame);
    if (*out != NULL)
        thr_count(conn->slot, THR_COUNT_PAGES_READ, 1);
    return SQLITE_OK;
}

/* Say whose snapshot keeps the most versions, and have all forgotten that can be. */
static void heap_is_full(struct thr_conn *conn)
{
    struct thr_db *db = conn->db;
    uint64_t now = thr_os_now_ns(), began_ns = now;
    uint32_t oldest = thr_shm_oldest_slot(&db->shm, &began_ns);

    if (oldest == THR_SLOT_MAX)
        oldest = conn->slot_index;
    atomic_store_explicit(&db->heap_short, 1, memory_order_relaxed);
    /* Two messages: SQLite cuts them off at 210 bytes. */
    thr_log(SQLITE_FULL, "throng: no room for page versions of %s: %llu MiB are in use (heap_limit: %llu MiB)",
            db->path, (unsigned long long)thr_heap_used_bytes(&db->heap) >> 20,
            (unsigned long long)db->heap.limit_bytes >> 20);
    thr_log(SQLITE_FULL,
            "throng: the oldest snapshot has been open for %.3f s, by %s %u of process %u: end it, or raise the limit",
            (double)(now - began_ns) / 1e9,
            oldest == conn->slot_index ? "this very connection, number" : "connection number", oldest,
            atomic_load_explicit(&thr_shm_slot(&db->shm, oldest)->pid, memory_order_relaxed));
}

int thr_page_take_frame(struct thr_conn *conn, bool may_block, uint32_t *frame_out)
{
    struct thr_db *db = conn->db;
    int rc = thr_frame_take(&db->heap, &conn->frames, frame_out);

    if (rc == SQLITE_FULL && may_block && db->make_room != NULL) {
        db->make_room(db);
        rc = thr_frame_take(&db->heap, &conn->frames, frame_out);
    }
    if (rc == SQLITE_FULL)
        heap_is_full(conn);
    return rc;
}

static int private_page(struct thr_conn *conn, uint32_t pgno, bool whole, uint8_t **out)
{
    struct thr_db *db = conn->db;
    struct thr_write *write;
    uint32_t frame = 0;
    bool fresh;
    int rc;

    if ((write = thr_writes_find(&conn->writes, pgno)) != NULL) {
        *out = thr_heap_page(&db->heap, write->frame);
        return SQLITE_OK;
    }
    if ((rc = thr_page_take_frame(conn, true, &frame)) != SQLITE_OK)
        return rc;
    *out = thr_heap_page(&db->heap, frame);
    if (!whole && (rc = read_page(conn, pgno, *out)) != SQLITE_OK)
        goto err;
    if ((write = thr_writes_add(&conn->writes, pgno, &fresh)) == NULL) {
        rc = SQLITE_NOMEM;
        goto err;
    }
    write->frame = frame;
    return SQLITE_OK;

err:
    thr_frame_give(&db->heap, &conn->frames, frame);
    return rc;
}

int thr_page_write(struct thr_conn *conn, const void *from, size_t bytes, int64_t offset)
{
    uint32_t page_size = conn->db->heap.page_size;
    const uint8_t *at = from;
    uint8_t *page;
    int rc;

    if (conn->page_count == 0 && conn->writes.count == 0 && bytes != page_size) {
        /* The first page of a new database: now its page size is known. Nobody else can have written (turn.c). */
        if ((rc = thr_db_start_heap(conn->db, (uint32_t)bytes)) != SQLITE_OK)
            return rc;
        page_size = (uint32_t)bytes;
    }
    if (page_size == 0)
        return SQLITE_IOERR_WRITE;
    conn->committed = false; /* locking_mode=EXCLUSIVE: the next transaction begins without a new lock */
    while (bytes > 0) {
        size_t to = (size_t)(offset % page_size), part = page_size - to;

        if (part > bytes)
            part = bytes;
        if ((rc = private_page(conn, (uint32_t)(offset / page_size + 1), part == page_size, &page)) != SQLITE_OK)
            return rc;
        memcpy(page + to, at, part);
        at += part;
        offset += (int64_t)part;
        bytes -= part;
    }
    thr_count(conn->slot, THR_COUNT_PAGES_WRITTEN, 1);
    return SQLITE_OK;
}

void thr_page_truncate(struct thr_conn *conn, uint32_t page_count)
{
    uint32_t kept = 0;

    if (conn->committed)
        return; /* what follows a commit only repeats what the commit said */
    for (uint32_t i = 0; i < conn->writes.count; i++) {
        struct thr_write write = conn->writes.at[i];

        if (write.pgno > page_count) {
            thr_frame_give(&conn->db->heap, &conn->frames, write.frame);
            *thr_map32_find(&conn->writes.index, write.pgno) = 0;
        } else {
            conn->writes.at[kept++] = write;
            *thr_map32_find(&conn->writes.index, write.pgno) = kept;
        }
    }
    conn->writes.count = kept;
}
