/* The engine of one database: its directory, index, heap and log, set up from what the file says, and put away.
 *
 * SPDX-License-Identifier: MIT */
#include "engine.h"

#include <sqlite3.h>

#include "../os/os.h"
#include "../txn/db.h"
#include "recover.h"
#include "stock.h"

/* Set up the index from what the file says. */
static int load(struct thr_db *db, bool *incomplete_out)
{
    struct thr_head *head = db->shm.head;
    struct thr_stock_header header;
    struct thr_pages free_pages = {0};
    uint32_t format = 2;
    int rc;

    if ((rc = thr_stock_header_read(&db->base, &header)) != SQLITE_OK)
        return rc;
    if (header.marked) {
        *incomplete_out = true;
        return SQLITE_CANTOPEN;
    }
    db->foreign = header.foreign;
    head->owner_pid = thr_os_pid();
    atomic_store(&head->commit_seq, THR_FIRST_SEQ);
    atomic_store(&head->visible_seq, THR_FIRST_SEQ);
    atomic_store(&head->durable_seq, THR_FIRST_SEQ);
    atomic_store(&head->horizon, THR_FIRST_SEQ);
    head->change_base = header.change_counter - THR_FIRST_SEQ;
    if (header.empty || header.foreign) {
        atomic_store(&head->format, format);
        return SQLITE_OK;
    }
    atomic_store(&head->page_size, header.page_size);
    atomic_store(&db->usable_size, header.usable_size);
    db->heap.page_size = header.page_size;
    if (header.auto_vacuum || !db->base.writable)
        format = 1;
    else if ((rc = thr_stock_list_read(&db->base, &header, &free_pages)) == SQLITE_CORRUPT)
        format = 1; /* SQLite will say so itself, when it gets there */
    else if (rc != SQLITE_OK)
        goto done;
    if (format == 1)
        free_pages.count = 0;
    rc = thr_space_load(&db->shm, &free_pages, header.page_count);
    if (rc == SQLITE_CORRUPT) { /* a page twice in the list */
        format = 1;
        free_pages.count = 0;
        rc = thr_space_reset(&db->shm, &free_pages, header.page_count);
    }
    atomic_store(&head->format, format);
    atomic_store(&head->extent[THR_FIRST_SEQ % THR_EXTENTS], (uint64_t)header.page_count << 32 | free_pages.count);
done:
    thr_os_free(free_pages.at);
    return rc;
}

static int start_in_directory(struct thr_db *db, bool *incomplete_out)
{
    char *path = thr_db_file(db, "shm");
    struct thr_log_place place = {db->directory, -1, db->file_mode, 0};
    uint32_t page_size;
    int rc;

    if (path == NULL)
        return SQLITE_NOMEM;
    if ((rc = thr_home_take(db->directory, db->file_mode, &db->home)) != SQLITE_OK)
        thr_os_rmdir(db->directory); /* it was just made, and is empty */
    else
        rc = thr_shm_create(&db->shm, path, db->file_mode);
    thr_os_free(path);
    if (rc == SQLITE_OK)
        rc = load(db, incomplete_out);
    page_size = rc == SQLITE_OK ? atomic_load(&db->shm.head->page_size) : 0;
    if (rc == SQLITE_OK && page_size != 0)
        rc = thr_db_start_heap(db, page_size);
    place.directory_fd = db->home.fd;
    place.file = thr_os_file_number(db->base.fd);
    if (rc == SQLITE_OK)
        rc = thr_log_create(&db->log, &db->shm, &place);
    return rc;
}

/* Nobody may do more with the directory than with the database: read rights become those to read and enter, the right to
 * write stays what it is. */
static int make_directory(const struct thr_db *db)
{
    struct thr_stat file;
    uint32_t mode;
    int rc;

    if ((rc = thr_os_fstat(db->base.fd, &file)) != SQLITE_OK)
        return rc;
    mode = (file.mode & 0666) | (file.mode & 0444) >> 2;
    return thr_os_mkdir(db->directory, mode, &file);
}

int thr_engine_start(struct thr_db *db, bool *incomplete_out)
{
    char text[128];
    int rc;

    *incomplete_out = false;
    if (db->base.writable) {
        rc = make_directory(db);
        if (rc == SQLITE_READONLY) {
            thr_log(SQLITE_READONLY, "throng: %s is opened read-only: its directory cannot be written", db->path);
            db->base.writable = false;
        } else if (rc != SQLITE_OK) {
            thr_log(rc, "throng: cannot make the directory %s (%s): %s stays closed", db->directory,
                    thr_os_error_text(thr_os_last_errno(), text, sizeof text), db->path);
            return rc == SQLITE_CONSTRAINT ? SQLITE_BUSY : rc;
        }
    }
    if (!db->base.writable) {
        db->directory = NULL;
        if ((rc = thr_shm_create(&db->shm, NULL, 0)) == SQLITE_OK)
            rc = load(db, incomplete_out);
    } else {
        rc = start_in_directory(db, incomplete_out);
    }
    if (rc != SQLITE_OK) {
        thr_engine_stop(db);
        if (db->home.fd >= 0 && thr_home_remove(db->directory, &db->home) != SQLITE_OK)
            thr_home_let_go(&db->home, false);
    }
    return rc;
}

void thr_engine_stop(struct thr_db *db)
{
#ifdef THR_SLOW_ASSERTS
    if (!thr_log_failed(&db->log)) /* then the versions of commits that nobody will see are nowhere */
        thr_heap_check(&db->heap, NULL);
#endif
    thr_log_close(&db->log);
    thr_heap_close(&db->heap);
    thr_shm_close(&db->shm);
}
