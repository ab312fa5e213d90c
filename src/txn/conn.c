/* Connections and what they keep.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "../os/os.h"
#include "db.h"
#include "plan.h"
#include "txn.h"

char *thr_db_file(const struct thr_db *db, const char *name)
{
    return thr_os_join(db->directory, name);
}

int thr_db_start_heap(struct thr_db *db, uint32_t page_size)
{
    char *path;
    int rc;

    if (page_size < 512 || page_size > 65536 || (page_size & (page_size - 1)) != 0)
        return SQLITE_IOERR_WRITE;
    if ((path = thr_db_file(db, "heap")) == NULL)
        return SQLITE_NOMEM;
    thr_heap_close(&db->heap);
    rc = thr_heap_create(&db->heap, &db->shm, path, db->file_mode, page_size);
    thr_os_free(path);
    return rc;
}

int thr_conn_open(struct thr_db *db, bool read_only, struct thr_conn **out)
{
    struct thr_conn *conn;
    char name[32];
    int rc;

    *out = NULL;
    if ((conn = thr_os_alloc(sizeof *conn)) == NULL)
        return SQLITE_NOMEM;
    if ((conn->plan = thr_os_alloc(sizeof *conn->plan)) == NULL) {
        thr_os_free(conn);
        return SQLITE_NOMEM;
    }
    conn->db = db;
    conn->read_only = read_only;
    conn->next = conn;
    conn->gate = -1;
    if ((rc = thr_shm_slot_acquire(&db->shm, &conn->slot_index)) != SQLITE_OK) {
        if (rc == SQLITE_CANTOPEN)
            thr_log(rc, "throng: %s has %u connections, as many as it can have: close some", db->path, THR_SLOT_MAX);
        goto err_free;
    }
    conn->slot = thr_shm_slot(&db->shm, conn->slot_index);
    conn->frames.shard = conn->slot_index;
    if (db->directory != NULL) {
        snprintf(name, sizeof name, "scratch-%u", conn->slot_index);
        if ((conn->scratch_path = thr_db_file(db, name)) == NULL) {
            rc = SQLITE_NOMEM;
            goto err_slot;
        }
    }
    conn->stripe.epoch = conn->cache_epoch = atomic_load_explicit(&db->shm.head->space_epoch, memory_order_acquire);
    atomic_store_explicit(&conn->slot->pointers, 0, memory_order_relaxed);
    thr_record_init(&conn->record, conn->scratch_path);
    *out = conn;
    return SQLITE_OK;

err_slot:
    thr_shm_slot_release(&db->shm, conn->slot_index);
err_free:
    thr_os_free(conn->plan);
    thr_os_free(conn);
    return rc;
}

void thr_conn_close(struct thr_conn *conn)
{
    struct thr_db *db = conn->db;

    thr_txn_end(conn);
    thr_stripe_release(&db->shm, &conn->stripe, db->heap.page_size);
    thr_frames_settle(&db->heap, &conn->frames);
    thr_shm_slot_release(&db->shm, conn->slot_index);
    thr_stripe_free(&conn->stripe);
    thr_chain_free(&conn->after);
    thr_record_free(&conn->record);
    thr_reads_free(&conn->reads);
    thr_writes_free(&conn->writes);
    thr_os_free(conn->taken.at);
    thr_os_free(conn->freed.at);
    thr_os_free(conn->superseded.at);
    thr_os_free(conn->used.at);
    thr_os_free(conn->scratch_path);
    thr_os_free(conn->page_buffer);
    thr_os_free(conn->plan);
    thr_os_free(conn->group);
    thr_os_free(conn);
}
