/* Counters: PRAGMA throng_stats, and the same as a table-valued function `throng_stats` with a row a counter.
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "vfs.h"

#include "../os/os.h"

enum stat_source {
    FROM_COUNTER,
    FROM_FRAMES_USED,
    FROM_FRAMES_PEAK,
    FROM_OLDEST_AGE,
    FROM_LOCK_WAITS,
    FROM_LOCK_WAIT_NS,
    FROM_COMMIT_SEQ,
    FROM_LOG_LIVE,
    FROM_POOL
};

static const struct stat_column {
    const char *name;
    enum stat_source source;
    enum thr_counter counter;
} STATS[] = {
    {"commits", FROM_COUNTER, THR_COUNT_COMMITS},
    {"empty_commits", FROM_COUNTER, THR_COUNT_EMPTY_COMMITS},
    {"conflicts_read", FROM_COUNTER, THR_COUNT_CONFLICT_READ},
    {"conflicts_write", FROM_COUNTER, THR_COUNT_CONFLICT_WRITE},
    {"conflicts_schema", FROM_COUNTER, THR_COUNT_CONFLICT_SCHEMA},
    {"conflicts_space", FROM_COUNTER, THR_COUNT_CONFLICT_SPACE},
    {"reruns", FROM_COUNTER, THR_COUNT_RERUNS},
    {"snapshots", FROM_COUNTER, THR_COUNT_SNAPSHOTS},
    {"pages_read", FROM_COUNTER, THR_COUNT_PAGES_READ},
    {"pages_written", FROM_COUNTER, THR_COUNT_PAGES_WRITTEN},
    {"log_bytes", FROM_COUNTER, THR_COUNT_LOG_BYTES},
    {"log_live_bytes", FROM_LOG_LIVE, 0},
    {"checkpoint_pages", FROM_COUNTER, THR_COUNT_CHECKPOINT_PAGES},
    {"heap_frames", FROM_FRAMES_USED, 0},
    {"heap_frames_peak", FROM_FRAMES_PEAK, 0},
    {"free_pool_pages", FROM_POOL, 0},
    {"commit_sequence", FROM_COMMIT_SEQ, 0},
    {"oldest_snapshot_age_us", FROM_OLDEST_AGE, 0},
    {"lock_waits", FROM_LOCK_WAITS, 0},
    {"lock_wait_us", FROM_LOCK_WAIT_NS, 0},
};

const char *thr_stats_name(uint32_t index)
{
    return index < sizeof STATS / sizeof STATS[0] ? STATS[index].name : NULL;
}

static uint64_t oldest_age_ns(const struct thr_shm *shm)
{
    uint32_t high = atomic_load_explicit(&shm->head->slot_high, memory_order_acquire);
    uint64_t oldest = UINT64_MAX, now = thr_os_now_ns(), began;

    for (uint32_t i = 0; i < high; i++) {
        struct thr_slot *slot = thr_shm_slot(shm, i);

        if (atomic_load_explicit(&slot->snapshot, memory_order_acquire) != 0 &&
            (began = atomic_load_explicit(&slot->begin_ns, memory_order_relaxed)) < oldest && began != 0)
            oldest = began;
    }
    return oldest == UINT64_MAX || oldest > now ? 0 : now - oldest;
}

/* Waits for all locks, summed. */
static uint64_t lock_waits(struct thr_head *head, bool want_time)
{
    struct thr_mutex *locks[] = {&head->commit_lock, &head->turn_lock, &head->space_lock,
                                 &head->slot_lock,   &head->heap_lock, &head->checkpoint_lock};
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof locks / sizeof locks[0]; i++)
        sum += atomic_load_explicit(want_time ? &locks[i]->wait_ns : &locks[i]->contended, memory_order_relaxed);
    for (uint32_t i = 0; i < THR_GATES; i++)
        sum += atomic_load_explicit(want_time ? &head->gate[i].wait_ns : &head->gate[i].contended,
                                    memory_order_relaxed);
    return sum;
}

int64_t thr_stats_value(struct thr_db *db, uint32_t index)
{
    struct thr_head *head = db->shm.head;

    switch (STATS[index].source) {
    case FROM_COUNTER:
        return (int64_t)thr_shm_counter(&db->shm, STATS[index].counter);
    case FROM_FRAMES_USED:
        return atomic_load_explicit(&head->frames_used, memory_order_relaxed);
    case FROM_FRAMES_PEAK:
        return atomic_load_explicit(&head->frames_peak, memory_order_relaxed);
    case FROM_OLDEST_AGE:
        return (int64_t)(oldest_age_ns(&db->shm) / 1000);
    case FROM_LOCK_WAITS:
        return (int64_t)lock_waits(head, false);
    case FROM_LOCK_WAIT_NS:
        return (int64_t)(lock_waits(head, true) / 1000);
    case FROM_COMMIT_SEQ:
        return (int64_t)atomic_load_explicit(&head->commit_seq, memory_order_relaxed);
    case FROM_LOG_LIVE:
        return (int64_t)atomic_load_explicit(&db->log.live_bytes, memory_order_relaxed);
    case FROM_POOL:
        return atomic_load_explicit(&head->pool_pages, memory_order_relaxed);
    }
    return 0;
}

struct stats_table {
    sqlite3_vtab base;
    sqlite3 *db;
};

struct stats_cursor {
    sqlite3_vtab_cursor base;
    struct thr_main_file *file;
    uint32_t row;
};

static int stats_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
    struct stats_table *table;
    int rc = sqlite3_declare_vtab(db, "CREATE TABLE x(counter TEXT, value INTEGER, schema HIDDEN)");

    (void)aux;
    (void)argc;
    (void)argv;
    (void)error;
    if (rc != SQLITE_OK)
        return rc;
    if ((table = sqlite3_malloc(sizeof *table)) == NULL)
        return SQLITE_NOMEM;
    memset(table, 0, sizeof *table);
    table->db = db;
    *out = &table->base;
    return SQLITE_OK;
}

static int stats_disconnect(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

/* The only constraint of use is the hidden column: whose counters. */
static int stats_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
    (void)table;
    for (int i = 0; i < info->nConstraint; i++) {
        if (info->aConstraint[i].usable && info->aConstraint[i].iColumn == 2 &&
            info->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_EQ) {
            info->aConstraintUsage[i].argvIndex = 1;
            info->aConstraintUsage[i].omit = 1;
            info->idxNum = 1;
            break;
        }
    }
    info->estimatedCost = 20;
    return SQLITE_OK;
}

static int stats_open(sqlite3_vtab *table, sqlite3_vtab_cursor **out)
{
    struct stats_cursor *cursor = sqlite3_malloc(sizeof *cursor);

    (void)table;
    if (cursor == NULL)
        return SQLITE_NOMEM;
    memset(cursor, 0, sizeof *cursor);
    *out = &cursor->base;
    return SQLITE_OK;
}

static int stats_close(sqlite3_vtab_cursor *cursor)
{
    sqlite3_free(cursor);
    return SQLITE_OK;
}

static int stats_filter(sqlite3_vtab_cursor *base, int index, const char *text, int argc, sqlite3_value **argv)
{
    struct stats_cursor *cursor = (struct stats_cursor *)(void *)base;
    struct stats_table *table = (struct stats_table *)(void *)base->pVtab;
    const char *schema = index == 1 && argc > 0 ? (const char *)sqlite3_value_text(argv[0]) : "main";
    sqlite3_file *file = NULL;

    (void)text;
    cursor->row = 0;
    cursor->file = NULL;
    if (sqlite3_file_control(table->db, schema, SQLITE_FCNTL_FILE_POINTER, &file) == SQLITE_OK && file != NULL &&
        file->pMethods == &thr_main_methods)
        cursor->file = (struct thr_main_file *)(void *)file;
    return SQLITE_OK;
}

static int stats_next(sqlite3_vtab_cursor *cursor)
{
    ((struct stats_cursor *)(void *)cursor)->row++;
    return SQLITE_OK;
}

static int stats_eof(sqlite3_vtab_cursor *base)
{
    struct stats_cursor *cursor = (struct stats_cursor *)(void *)base;

    return cursor->file == NULL || thr_stats_name(cursor->row) == NULL;
}

static int stats_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column)
{
    struct stats_cursor *cursor = (struct stats_cursor *)(void *)base;

    if (column == 0)
        sqlite3_result_text(context, thr_stats_name(cursor->row), -1, SQLITE_STATIC);
    else if (column == 1)
        sqlite3_result_int64(context, thr_stats_value(cursor->file->conn->db, cursor->row));
    return SQLITE_OK;
}

static int stats_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *rowid_out)
{
    *rowid_out = ((struct stats_cursor *)(void *)cursor)->row + 1;
    return SQLITE_OK;
}

static const sqlite3_module STATS_MODULE = {
    .iVersion = 0,
    .xConnect = stats_connect, /* no xCreate: it is there without CREATE VIRTUAL TABLE */
    .xBestIndex = stats_best_index,
    .xDisconnect = stats_disconnect,
    .xOpen = stats_open,
    .xClose = stats_close,
    .xFilter = stats_filter,
    .xNext = stats_next,
    .xEof = stats_eof,
    .xColumn = stats_column,
    .xRowid = stats_rowid,
};

int thr_stats_register(sqlite3 *db)
{
    return sqlite3_create_module_v2(db, "throng_stats", &STATS_MODULE, NULL, NULL);
}
