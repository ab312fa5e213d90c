/* SPDX-License-Identifier: MIT */
#include "plan.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "page1.h"

enum mark { MARK_TAKEN = 1, MARK_FREED = 2 };

static uint8_t *frame_page(const struct thr_conn *conn, const struct thr_write *write)
{
    return thr_heap_page(&conn->db->heap, write->frame);
}

static const uint8_t *read_trunk(void *ctx, uint32_t pgno)
{
    const struct thr_conn *conn = ctx;
    const struct thr_write *write = thr_writes_find(&conn->writes, pgno);

    return write == NULL ? NULL : frame_page(conn, write);
}

static bool wrote_trunk(const struct thr_conn *conn)
{
    const struct thr_chain *chain = &conn->stripe.chain;

    for (uint32_t i = 0; i < conn->writes.count; i++)
        if (thr_chain_is_trunk(chain, conn->writes.at[i].pgno))
            return true;
    return false;
}

/* The free list after the transaction, against the one it was shown. */
static int plan_list(struct thr_conn *conn, struct thr_plan *plan)
{
    static const struct thr_chain NONE = {.built = true};
    const struct thr_chain *before = plan->rewrite ? &NONE : &conn->stripe.chain;
    uint32_t shown = conn->free_count > 0 ? conn->stripe.chain.first : 0;
    int rc;

    conn->taken.count = conn->freed.count = 0;
    if (!plan->rewrite && plan->free_count == conn->free_count &&
        (plan->first_trunk == shown || plan->free_count == 0) && !wrote_trunk(conn))
        return SQLITE_OK;
    if (!before->built)
        return SQLITE_CORRUPT; /* it changed a list that it never read */
    plan->list_changed = true;
    rc = thr_chain_diff(before, plan->first_trunk, plan->free_count, plan->page_count, read_trunk, conn,
                        plan->usable_size, &conn->after, &conn->taken, &conn->freed);
    plan->taken_held = thr_stripe_count_held(&conn->stripe, &conn->taken);
    if (rc == SQLITE_CORRUPT)
        thr_log(rc, "throng: a transaction on %s left a free list that does not add up; it is rolled back",
                conn->db->path);
    return rc;
}

/* Give a page that the transaction did not write a version all the same; its content does not matter. */
static int add_version(struct thr_conn *conn, uint32_t pgno)
{
    struct thr_write *write;
    uint32_t frame;
    bool fresh;
    int rc;

    if (thr_writes_find(&conn->writes, pgno) != NULL)
        return SQLITE_OK;
    if ((rc = thr_page_take_frame(conn, false, &frame)) != SQLITE_OK)
        return rc;
    if ((write = thr_writes_add(&conn->writes, pgno, &fresh)) == NULL) {
        thr_frame_give(&conn->db->heap, &conn->frames, frame);
        return SQLITE_NOMEM;
    }
    write->frame = frame;
    /* No content; and not zeros by chance, which would go to the file. */
    thr_put32(frame_page(conn, write), UINT32_MAX);
    thr_put32(frame_page(conn, write) + conn->db->heap.page_size - 4, UINT32_MAX);
    return SQLITE_OK;
}

/* In a file that is not whole a b-tree may use a page that is free, and give it up: it would be free twice. */
static bool frees_twice(const struct thr_conn *conn, uint32_t pgno)
{
    return pgno == thr_lock_page(conn->db->heap.page_size) ||
           (pgno <= conn->page_count && thr_space_is_free(&conn->db->heap, pgno, conn->snapshot));
}

/* Freed pages: the version says since when the page is free. */
static int add_freed(struct thr_conn *conn, const struct thr_plan *plan)
{
    int rc = SQLITE_OK;

    for (uint32_t i = 0; i < conn->freed.count && rc == SQLITE_OK; i++)
        rc = !plan->rewrite && frees_twice(conn, conn->freed.at[i]) ? SQLITE_CORRUPT
                                                                    : add_version(conn, conn->freed.at[i]);
    if (rc == SQLITE_CORRUPT)
        thr_log(rc, "throng: a transaction on %s frees a page that is free; it is rolled back", conn->db->path);
    return rc;
}

/* Pages that a rewrite or auto_vacuum cuts off at the end get a version that says so: when the file grows again, nobody
 * must find the old ones. */
static int add_cut_off(struct thr_conn *conn, const struct thr_plan *plan)
{
    int rc = SQLITE_OK;

    for (uint32_t pgno = plan->page_count + 1; pgno <= conn->committed_count && rc == SQLITE_OK; pgno++) {
        const _Atomic uint32_t *newest = thr_shm_newest(&conn->db->shm, pgno);

        if (newest != NULL && atomic_load_explicit(newest, memory_order_relaxed) != 0)
            rc = add_version(conn, pgno);
    }
    return rc;
}

static int mark_pages(struct thr_map32 *marks, const struct thr_pages *pages, enum mark mark)
{
    for (uint32_t i = 0; i < pages->count; i++) {
        uint32_t *value = thr_map32_insert(marks, pages->at[i], NULL);

        if (value == NULL)
            return SQLITE_NOMEM;
        *value = mark;
    }
    return SQLITE_OK;
}

/* Page 1 as it will be in the file: the made-up bytes are those of before. */
static int keep_page1(struct thr_conn *conn, uint8_t *page, const struct thr_plan *plan, uint8_t *before)
{
    uint32_t format = plan->format != 0 ? plan->format
                                        : atomic_load_explicit(&conn->db->shm.head->format, memory_order_relaxed);
    int rc = thr_page1_committed(conn, before);

    if (rc == SQLITE_OK && plan->resize)
        memcpy(page + THR_P1_VERSIONS, before + THR_P1_VERSIONS, 2); /* the rest is what the file will say */
    else if (rc == SQLITE_OK)
        thr_page1_keep(page, before, format == 2);
    return rc;
}

/* Did the pager wipe the page that it freed? With secure_delete it writes zeros; as a trunk, also the list. */
static bool is_wiped(const uint8_t *page, uint32_t page_size)
{
    uint32_t leaves = thr_get32(page + 4), from = leaves > page_size / 4 - 2 ? page_size : 8 + 4 * leaves;

    return from < page_size && page[from] == 0 && memcmp(page + from, page + from + 1, page_size - from - 1) == 0;
}

/* The page is free from now on. What it held goes from the file only if zeros are written there, like any content. */
static int plan_freed(struct thr_conn *conn, const struct thr_plan *plan, struct thr_write *write, uint8_t *buffer)
{
    uint32_t page_size = conn->db->heap.page_size;
    bool changed;

    write->publish = write->freed = true;
    write->wiped = plan->rewrite || is_wiped(frame_page(conn, write), page_size);
    if (!write->wiped)
        return SQLITE_OK;
    memset(buffer, 0, page_size);
    return thr_record_change(&conn->record, write->pgno, NULL, buffer, page_size, &changed);
}

static int plan_page(struct thr_conn *conn, struct thr_plan *plan, const struct thr_map32 *marks,
                     struct thr_write *write, uint8_t *buffer)
{
    const uint32_t *mark = thr_map32_find(marks, write->pgno);
    uint32_t page_size = conn->db->heap.page_size;
    const uint8_t *before = NULL;
    bool was_free;
    int rc = SQLITE_OK;

    write->publish = write->freed = write->wiped = false;
    if (write->pgno > plan->page_count) { /* the transaction gave it back; was there something to give? */
        write->publish = write->freed = conn->is_alone && write->pgno <= conn->committed_count && !plan->resize;
        return SQLITE_OK;
    }
    if (mark != NULL && *mark == MARK_FREED)
        return plan_freed(conn, plan, write, buffer);
    was_free = thr_space_is_free(&conn->db->heap, write->pgno, conn->snapshot); /* then, not now */
    /* Free before and after: a trunk page, or used only in between. With one free list (format 1) the marks of an earlier
     * format say nothing but that the content does not matter. */
    if (was_free && plan->made_up && (mark == NULL || *mark != MARK_TAKEN) && write->pgno <= conn->page_count)
        return SQLITE_OK;
    if (write->pgno == 1 && !plan->new_database) {
        if ((rc = keep_page1(conn, frame_page(conn, write), plan, buffer)) != SQLITE_OK)
            return rc;
        before = buffer;
    } else if (!was_free && write->pgno <= conn->committed_count && !plan->new_database) {
        if ((rc = thr_page_committed(conn, write->pgno, buffer, &before)) != SQLITE_OK)
            return rc;
    }
    return thr_record_change(&conn->record, write->pgno, before, frame_page(conn, write), page_size, &write->publish);
}

/* For the log: pages that were free, and those past the end that were used without ever having been free. */
static int list_used(struct thr_conn *conn, const struct thr_plan *plan)
{
    uint32_t lock_page = thr_lock_page(conn->db->heap.page_size);
    int rc = SQLITE_OK;

    conn->used.count = 0;
    for (uint32_t i = 0; i < conn->taken.count && rc == SQLITE_OK; i++)
        rc = thr_pages_add(&conn->used, conn->taken.at[i]);
    if (plan->rewrite)
        return rc;
    for (uint32_t pgno = conn->page_count + 1; pgno <= plan->page_count && rc == SQLITE_OK; pgno++)
        if (pgno != lock_page)
            rc = thr_pages_add(&conn->used, pgno);
    return rc;
}

static int plan_pages(struct thr_conn *conn, struct thr_plan *plan)
{
    struct thr_map32 marks = {0};
    uint8_t *buffer = thr_os_alloc(conn->db->heap.page_size);
    uint32_t published = 0;
    int rc = buffer == NULL ? SQLITE_NOMEM : SQLITE_OK;

    if (rc == SQLITE_OK)
        rc = list_used(conn, plan);
    if (rc == SQLITE_OK)
        rc = thr_record_begin(&conn->record, conn->used.at, conn->used.count, conn->freed.at, conn->freed.count,
                              conn->group, conn->group_bytes);
    if (rc == SQLITE_OK)
        rc = mark_pages(&marks, &conn->taken, MARK_TAKEN);
    if (rc == SQLITE_OK)
        rc = mark_pages(&marks, &conn->freed, MARK_FREED);
    for (uint32_t i = 0; i < conn->writes.count && rc == SQLITE_OK; i++) {
        rc = plan_page(conn, plan, &marks, &conn->writes.at[i], buffer);
        published += conn->writes.at[i].publish;
    }
    if (rc == SQLITE_OK) {
        struct thr_record_head *head = thr_record_head(&conn->record);

        head->page_size = conn->db->heap.page_size;
        head->format = plan->format != 0 ? plan->format
                                         : atomic_load_explicit(&conn->db->shm.head->format, memory_order_relaxed);
        if (plan->rewrite)
            head->flags |= THR_RECORD_REWRITE;
        if (plan->resize)
            head->flags |= THR_RECORD_RESIZE;
        rc = thr_record_finish(&conn->record);
    }
    plan->nothing = published == 0 && conn->taken.count == 0 && conn->freed.count == 0 && !plan->new_database &&
                    plan->page_count == conn->page_count && !plan->list_changed && conn->set_format == 0;
    while (rc == SQLITE_OK && conn->superseded.capacity < published)
        rc = thr_pages_add(&conn->superseded, 1); /* room, so that publishing cannot fail */
    conn->superseded.count = 0;
    thr_map32_free(&marks);
    thr_os_free(buffer);
    return rc;
}

uint32_t thr_plan_new_page_size(const struct thr_conn *conn)
{
    const struct thr_write *write = thr_writes_find(&conn->writes, 1);
    uint32_t page_size;

    if (conn->kind != THR_KIND_REWRITE || write == NULL || conn->page_count == 0)
        return 0;
    page_size = thr_page1_page_size(frame_page(conn, write));
    return page_size == conn->db->heap.page_size ? 0 : page_size;
}

/* What page 1 says. */
static void plan_header(struct thr_conn *conn, struct thr_plan *plan, const uint8_t *page)
{
    uint32_t page_size = conn->db->heap.page_size;

    plan->page_count = thr_get32(page + THR_P1_SIZE);
    plan->first_trunk = thr_get32(page + THR_P1_TRUNK);
    plan->free_count = thr_get32(page + THR_P1_FREE);
    plan->usable_size = page_size - page[THR_P1_RESERVED];
    if (plan->new_database || plan->rewrite) {
        plan->format = thr_get32(page + THR_P1_LARGEST_ROOT) != 0 ? 1 : 2;
        if (conn->set_format != 0)
            plan->format = conn->set_format;
        plan->page_size = thr_page1_page_size(page);
        if (plan->page_size != page_size && !plan->new_database) {
            plan->resize = true;
            plan->record_page_count = (uint32_t)(((uint64_t)plan->page_count * plan->page_size + page_size - 1) /
                                                 page_size);
            plan->page_count = plan->record_page_count;
            plan->first_trunk = plan->free_count = 0; /* read from the file when it has its new page size */
        }
    }
}

int thr_plan_make(struct thr_conn *conn, struct thr_plan *plan)
{
    const struct thr_write *write = thr_writes_find(&conn->writes, 1);
    uint32_t format = atomic_load_explicit(&conn->db->shm.head->format, memory_order_relaxed);
    int rc;

    memset(plan, 0, sizeof *plan);
    conn->taken.count = conn->freed.count = 0;
    plan->new_database = conn->page_count == 0;
    plan->rewrite = conn->kind == THR_KIND_REWRITE && !plan->new_database;
    plan->made_up = format == 2 && !plan->rewrite;
    plan->page_count = conn->page_count;
    plan->free_count = conn->free_count;
    plan->first_trunk = conn->free_count > 0 ? conn->stripe.chain.first : 0;
    plan->usable_size = atomic_load_explicit(&conn->db->usable_size, memory_order_relaxed);
    conn->change_counter_written = false;
    if (write != NULL) {
        const uint8_t *page = frame_page(conn, write);

        conn->change_counter_written = thr_get32(page + THR_P1_CHANGES) == conn->change_counter + 1;
        plan_header(conn, plan, page);
    }
    /* A commit counts up, the first since the lock was taken. After a rollback that had to restore spilled pages SQLite
     * syncs the file as well (journal.c knows it by what it reads): then page 1 is the old one, or was never written. */
    conn->counter_done = conn->counter_done || conn->change_counter_written;
    plan->rollback = !conn->counter_done && !plan->new_database;
    if (plan->rollback)
        return SQLITE_OK;
    if (conn->snapshot < atomic_load_explicit(&conn->db->shm.head->rewrite_seq, memory_order_acquire))
        return SQLITE_BUSY_SNAPSHOT; /* the list may be of another kind now than the one that it was shown */
    if (plan->page_count == 0 || plan->page_count > THR_PAGE_MAX)
        return SQLITE_CORRUPT;
    if ((plan->format != 0 ? plan->format : format) == 2) {
        if ((rc = plan_list(conn, plan)) != SQLITE_OK || (rc = add_freed(conn, plan)) != SQLITE_OK)
            return rc;
    }
    if (conn->is_alone && !plan->resize && (rc = add_cut_off(conn, plan)) != SQLITE_OK)
        return rc;
    return plan_pages(conn, plan);
}
