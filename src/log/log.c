/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "horizon.h"

_Static_assert(sizeof(struct thr_segment_head) == 80, "a file format");

enum { SECTOR = 512, VERSION = 2, VERSION_OLD = 1 };
static const char MAGIC[8] = {'T', 'h', 'r', 'g', 'L', 'o', 'g', '1'};

void thr_log_name(uint64_t number, char out[THR_LOG_NAME_BYTES])
{
    snprintf(out, THR_LOG_NAME_BYTES, "log-%" PRIu64, number);
}

char *thr_log_path(const char *directory, uint64_t number)
{
    char name[THR_LOG_NAME_BYTES];

    thr_log_name(number, name);
    return thr_os_join(directory, name);
}

static void segment_free(struct thr_segment *segment)
{
    if (segment == NULL)
        return;
    if (segment->at != NULL)
        thr_os_unmap(segment->at, segment->bytes);
    if (segment->fd >= 0)
        thr_os_close(segment->fd);
    thr_os_free(segment);
}

static void segment_delete(struct thr_log *log, struct thr_segment *segment)
{
    char name[THR_LOG_NAME_BYTES];

    thr_log_name(segment->number, name);
    thr_os_unlink_at(log->directory_fd, name);
    segment_free(segment);
}

static struct thr_segment *spare_take(struct thr_log *log)
{
    struct thr_segment *segment = NULL;

    for (int i = 0; i < THR_SPARES && segment == NULL; i++)
        segment = atomic_exchange_explicit(&log->spare[i], NULL, memory_order_acquire); /* pairs with spare_put() */
    return segment;
}

static bool spare_put(struct thr_log *log, struct thr_segment *segment)
{
    for (int i = 0; i < THR_SPARES; i++) {
        struct thr_segment *none = NULL;

        if (atomic_compare_exchange_strong_explicit(&log->spare[i], &none, segment, memory_order_release,
                                                    memory_order_relaxed)) /* pairs with spare_take() */
            return true;
    }
    return false;
}

static bool spare_there(struct thr_log *log)
{
    for (int i = 0; i < THR_SPARES; i++)
        if (atomic_load_explicit(&log->spare[i], memory_order_relaxed) != NULL)
            return true;
    return false;
}

static void names_changed(struct thr_log *log)
{
    atomic_fetch_add_explicit(&log->names_changed, 1, memory_order_release); /* pairs with thr_log_sync_names() */
}

static int segment_make(struct thr_log *log, uint64_t number, size_t bytes, struct thr_segment **out)
{
    struct thr_segment *segment;
    char name[THR_LOG_NAME_BYTES];
    void *at = NULL;
    int rc;

    *out = NULL;
    if ((segment = thr_os_alloc(sizeof *segment)) == NULL)
        return SQLITE_NOMEM;
    segment->fd = -1;
    segment->number = number;
    segment->bytes = bytes;
    thr_log_name(number, name);
    rc = thr_os_open_at(log->directory_fd, name, THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL, log->mode,
                        &segment->fd);
    if (rc != SQLITE_OK)
        goto err;
    if ((rc = thr_os_allocate(segment->fd, 0, (int64_t)bytes)) != SQLITE_OK)
        goto err_unlink;
    if ((rc = thr_os_map_at(segment->fd, 0, bytes, true, true, &at)) != SQLITE_OK)
        goto err_unlink;
    segment->at = at;
    names_changed(log);
    *out = segment;
    return SQLITE_OK;

err_unlink:
    thr_os_unlink_at(log->directory_fd, name);
err:
    segment_free(segment);
    return rc;
}

/* Runs of free pages up to page_count, counted, and stored if `to` is not NULL. */
static uint32_t free_runs(const struct thr_shm *shm, uint32_t page_count, struct thr_page_run *to)
{
    uint32_t runs = 0, first = 0, pgno = 1;

    while (pgno <= page_count) {
        struct thr_chunk *chunk = thr_shm_chunk(shm, pgno);
        uint64_t word = 0;

        if (chunk != NULL)
            word = atomic_load_explicit(&chunk->free[pgno % THR_CHUNK_PAGES / 64], memory_order_relaxed);
        if ((pgno % 64 == 0 || first == 0) && (word >> (pgno % 64)) == 0 && first == 0) {
            pgno = (pgno / 64 + 1) * 64; /* nothing free up to the next word */
            continue;
        }
        if ((word >> (pgno % 64)) & 1) {
            if (first == 0)
                first = pgno;
        } else if (first != 0) {
            if (to != NULL)
                to[runs] = (struct thr_page_run){first, pgno - first};
            runs++;
            first = 0;
        }
        pgno++;
    }
    if (first != 0) {
        if (to != NULL)
            to[runs] = (struct thr_page_run){first, page_count + 1 - first};
        runs++;
    }
    return runs;
}

/* Where the first record of a segment that begins now would go. */
static size_t records_offset(uint32_t runs)
{
    return (sizeof(struct thr_segment_head) + runs * sizeof(struct thr_page_run) + 63) & ~(size_t)63;
}

static uint64_t head_hash(const struct thr_segment_head *head, uint64_t identity)
{
    return XXH3_64bits_withSeed(head, offsetof(struct thr_segment_head, head_hash), identity);
}

/* Everything of a segment's header but its magic. commit_lock. */
static void segment_fill(struct thr_log *log, struct thr_segment *segment, uint64_t first_seq, uint32_t runs)
{
    struct thr_head *shared = log->shm->head;
    uint64_t seq = atomic_load_explicit(&shared->commit_seq, memory_order_relaxed);
    uint64_t extent = atomic_load_explicit(&shared->extent[seq % THR_EXTENTS], memory_order_relaxed);
    struct thr_segment_head head = {.version = VERSION};
    struct thr_page_run *to = (struct thr_page_run *)(void *)(segment->at + sizeof head);

    memcpy(head.magic, MAGIC, sizeof head.magic);
    head.page_size = atomic_load_explicit(&shared->page_size, memory_order_relaxed);
    head.number = segment->number;
    thr_os_random(&head.salt, sizeof head.salt);
    head.first_seq = first_seq;
    head.page_count = (uint32_t)(extent >> 32);
    head.format = atomic_load_explicit(&shared->format, memory_order_relaxed);
    head.change_base = shared->change_base;
    head.run_count = free_runs(log->shm, head.page_count, to);
    THR_ASSERT(head.run_count == runs);
    head.records_at = records_offset(runs);
    head.run_hash = XXH3_64bits(to, runs * sizeof *to);
    head.head_hash = head_hash(&head, log->identity);
    segment->salt = head.salt;
    segment->written_back = 0;
    atomic_store_explicit(&log->written_back, 0, memory_order_relaxed);
    memset(segment->at + head.records_at, 0, sizeof(struct thr_record_head)); /* no record yet */
    memcpy(segment->at + sizeof MAGIC, (const uint8_t *)&head + sizeof MAGIC, sizeof head - sizeof MAGIC);
}

/* Make `segment`, which is filled, the one that is appended to. commit_lock. */
static void segment_start(struct thr_log *log, struct thr_segment *segment)
{
    struct thr_head *shared = log->shm->head;
    uint64_t magic, records_at;

    memcpy(&magic, MAGIC, sizeof magic);
    memcpy(&records_at, segment->at + offsetof(struct thr_segment_head, records_at), sizeof records_at);
    /* The magic last: a process that dies here leaves no segment rather than half a header. */
    atomic_store_explicit((_Atomic uint64_t *)(void *)segment->at, magic, memory_order_release);
    log->current = segment;
    atomic_store_explicit(&shared->log_segment, segment->number, memory_order_relaxed);
    atomic_store_explicit(&shared->log_tail, records_at, memory_order_relaxed);
}

static void segment_begin(struct thr_log *log, struct thr_segment *segment, uint64_t first_seq, uint32_t runs)
{
    segment_fill(log, segment, first_seq, runs);
    segment_start(log, segment);
}

bool thr_segment_check(const uint8_t *at, size_t bytes, uint64_t identity)
{
    struct thr_segment_head head;

    if (bytes < sizeof head)
        return false;
    memcpy(&head, at, sizeof head);
    return memcmp(head.magic, MAGIC, sizeof MAGIC) == 0 && head.version == (identity != 0 ? VERSION : VERSION_OLD) &&
           head.head_hash == head_hash(&head, identity) && head.records_at <= bytes &&
           records_offset(head.run_count) == head.records_at &&
           head.run_hash == XXH3_64bits(at + sizeof head, head.run_count * sizeof(struct thr_page_run));
}

/* A descriptor to sync the directory's parent, where a power cut could take back its name. */
static int open_parent(struct thr_log *log)
{
    char *slash = strrchr(log->directory, '/');
    int rc;

    if (slash == NULL || slash == log->directory)
        return SQLITE_OK;
    *slash = '\0';
    rc = thr_os_open_dir(log->directory, &log->parent_fd);
    *slash = '/';
    return rc;
}

int thr_log_write_horizon(struct thr_log *log, uint64_t first, bool closed, bool sync)
{
    const struct thr_horizon horizon = {
        .number = first, .identity = log->identity, .file = log->file, .closed = closed};

    return thr_horizon_write(log->directory_fd, log->mode, &horizon, sync);
}

bool thr_log_is_in_place(const struct thr_log *log)
{
    const _Atomic uint64_t *current = &log->shm->head->log_segment;
    uint64_t number = atomic_load_explicit(current, memory_order_relaxed);
    char *path = thr_log_path(log->directory, number);
    struct thr_stat stat;
    bool in_place = path == NULL || thr_os_stat(path, &stat) != SQLITE_NOTFOUND ||
                    number != atomic_load_explicit(current, memory_order_relaxed);

    thr_os_free(path);
    return in_place;
}

static uint64_t new_identity(void)
{
    uint64_t identity;

    do {
        thr_os_random(&identity, sizeof identity);
        identity &= (UINT64_C(1) << 48) - 1; /* page 1 has room for so many bits */
    } while (identity == 0);
    return identity;
}

int thr_log_create(struct thr_log *log, struct thr_shm *shm, const struct thr_log_place *place)
{
    const uint64_t number = 1;
    struct thr_segment *segment = NULL;
    uint64_t seq = atomic_load_explicit(&shm->head->commit_seq, memory_order_relaxed);
    uint32_t page_count =
        (uint32_t)(atomic_load_explicit(&shm->head->extent[seq % THR_EXTENTS], memory_order_relaxed) >> 32);
    uint32_t runs;
    size_t bytes = THR_SEGMENT_MIN;
    int rc;

    memset(log, 0, sizeof *log);
    log->shm = shm;
    log->mode = place->mode;
    log->identity = new_identity();
    log->file = place->file;
    log->directory_fd = place->directory_fd;
    log->parent_fd = -1;
    if ((log->directory = thr_os_alloc(strlen(place->directory) + 1)) == NULL)
        return SQLITE_NOMEM;
    memcpy(log->directory, place->directory, strlen(place->directory) + 1);
    runs = free_runs(shm, page_count, NULL);
    while (bytes < 2 * records_offset(runs))
        bytes *= 2;
    if ((rc = open_parent(log)) == SQLITE_OK)
        rc = thr_log_write_horizon(log, number, false, false);
    if (rc == SQLITE_OK)
        rc = segment_make(log, number, bytes, &segment);
    if (rc == SQLITE_OK) {
        segment_fill(log, segment, seq + 1, runs);
        /* A header of one sector is there after a power cut, or not. Half of a larger one could not be told from one that
         * has rotted: all of it must be there before the sector with the magic can be. */
        if (records_offset(runs) > SECTOR)
            rc = thr_os_sync(segment->fd);
    }
    if (rc == SQLITE_OK) {
        segment_start(log, segment);
    } else {
        segment_free(segment);
        thr_log_close(log);
        return rc;
    }
    atomic_store_explicit(&log->next_bytes, bytes < THR_SEGMENT_MAX ? bytes * 2 : bytes, memory_order_relaxed);
    return SQLITE_OK;
}

void thr_log_close(struct thr_log *log)
{
    struct thr_segment *segment, *next;

    for (segment = log->full; segment != NULL; segment = next) {
        next = segment->next;
        segment_free(segment);
    }
    segment_free(log->current);
    while ((segment = spare_take(log)) != NULL)
        segment_free(segment);
    if (log->parent_fd >= 0)
        thr_os_close(log->parent_fd);
    thr_os_free(log->directory);
    memset(log, 0, sizeof *log);
    log->directory_fd = log->parent_fd = -1;
}

/* Put the current segment on the list of the full ones. commit_lock. */
static void current_is_full(struct thr_log *log, uint64_t last_seq)
{
    struct thr_segment *segment = log->current;
    uint64_t records_at;

    memcpy(&records_at, segment->at + offsetof(struct thr_segment_head, records_at), sizeof records_at);
    segment->last_seq = last_seq;
    segment->record_bytes = atomic_load_explicit(&log->shm->head->log_tail, memory_order_relaxed) - records_at;
    segment->next = NULL;
    segment->synced = false;
    if (log->full_last != NULL)
        log->full_last->next = segment;
    else
        log->full = segment;
    log->full_last = segment;
    log->current = NULL;
}

/* The current segment is too small for the record: begin another one. commit_lock. */
static int segment_switch(struct thr_log *log, size_t record_bytes, uint64_t seq)
{
    struct thr_head *shared = log->shm->head;
    uint64_t extent = atomic_load_explicit(&shared->extent[(seq - 1) % THR_EXTENTS], memory_order_relaxed);
    uint32_t runs = free_runs(log->shm, (uint32_t)(extent >> 32), NULL);
    size_t need = records_offset(runs) + record_bytes + sizeof(struct thr_record_head);
    size_t bytes = atomic_load_explicit(&log->next_bytes, memory_order_relaxed);
    struct thr_segment *segment = spare_take(log);
    int rc;

    if (segment != NULL && segment->bytes < need) {
        segment_delete(log, segment);
        segment = NULL;
    }
    if (segment != NULL && segment->number != log->current->number + 1) { /* made for another number: rename */
        char from[THR_LOG_NAME_BYTES], to[THR_LOG_NAME_BYTES];

        thr_log_name(segment->number, from);
        thr_log_name(log->current->number + 1, to);
        if (thr_os_rename_at(log->directory_fd, from, to) != SQLITE_OK) {
            segment_delete(log, segment);
            segment = NULL;
        } else {
            segment->number = log->current->number + 1;
            names_changed(log);
        }
    }
    while (bytes < need)
        bytes *= 2;
    if (segment == NULL && (rc = segment_make(log, log->current->number + 1, bytes, &segment)) != SQLITE_OK)
        return rc;
    current_is_full(log, seq - 1);
    segment_begin(log, segment, seq, runs);
    return SQLITE_OK;
}

int thr_log_append(struct thr_log *log, const struct thr_record *record, uint64_t seq)
{
    struct thr_head *shared = log->shm->head;
    uint64_t tail = atomic_load_explicit(&shared->log_tail, memory_order_relaxed);
    int rc;

    if (tail + record->bytes + sizeof(struct thr_record_head) > log->current->bytes) {
        if ((rc = segment_switch(log, record->bytes, seq)) != SQLITE_OK)
            return rc;
        tail = atomic_load_explicit(&shared->log_tail, memory_order_relaxed);
    }
    THR_POINT("log-append");
    thr_record_seal(record, seq, log->current->salt, log->current->at + tail);
    atomic_store_explicit(&shared->log_tail, tail + record->bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->live_bytes, record->bytes, memory_order_relaxed);
    return SQLITE_OK;
}

void thr_log_decide(struct thr_log *log, size_t bytes)
{
    uint64_t at = atomic_load_explicit(&log->shm->head->log_tail, memory_order_relaxed) - bytes;
    uint8_t *field = log->current->at + at + offsetof(struct thr_record_head, decided);

    atomic_store_explicit((_Atomic uint64_t *)(void *)field, 1, memory_order_release);
}

void thr_log_take_back(struct thr_log *log, size_t bytes)
{
    struct thr_head *shared = log->shm->head;
    uint64_t tail = atomic_load_explicit(&shared->log_tail, memory_order_relaxed) - bytes;

    memset(log->current->at + tail, 0, sizeof(struct thr_record_head));
    atomic_store_explicit(&shared->log_tail, tail, memory_order_relaxed);
    atomic_fetch_sub_explicit(&log->live_bytes, bytes, memory_order_relaxed);
}

void thr_log_prepare(struct thr_log *log)
{
    struct thr_head *shared = log->shm->head;
    uint64_t tail = atomic_load_explicit(&shared->log_tail, memory_order_relaxed);
    uint64_t number = atomic_load_explicit(&shared->log_segment, memory_order_relaxed);
    size_t bytes = atomic_load_explicit(&log->next_bytes, memory_order_relaxed);
    struct thr_segment *segment = NULL;
    uint32_t no = 0;

    if (tail < bytes / 4 || spare_there(log) ||
        !atomic_compare_exchange_strong_explicit(&log->making_spare, &no, 1, memory_order_acquire,
                                                 memory_order_relaxed))
        return;
    /* A name of its own until it is used: the segment with the next number may be in use before this one is ready. */
    if (!spare_there(log) && segment_make(log, number + (UINT64_C(1) << 32), bytes, &segment) == SQLITE_OK) {
        if (!spare_put(log, segment))
            segment_delete(log, segment);
        if (bytes < THR_SEGMENT_MAX)
            atomic_store_explicit(&log->next_bytes, bytes * 2, memory_order_relaxed);
    }
    atomic_store_explicit(&log->making_spare, 0, memory_order_release);
}

void thr_log_drop_spares(struct thr_log *log)
{
    struct thr_segment *segment;

    while ((segment = spare_take(log)) != NULL)
        segment_delete(log, segment);
}

uint64_t thr_log_first_needed(struct thr_log *log, uint64_t horizon)
{
    const struct thr_segment *segment;
    uint64_t number;

    thr_mutex_lock(&log->shm->head->commit_lock, UINT64_MAX);
    for (segment = log->full; segment != NULL && segment->last_seq <= horizon; segment = segment->next)
        ;
    number = segment == NULL ? log->current->number : segment->number;
    thr_mutex_unlock(&log->shm->head->commit_lock);
    return number;
}

/* Take the oldest full segment off the list if it comes before segment `first`. */
static struct thr_segment *take_retired(struct thr_log *log, uint64_t first)
{
    struct thr_segment *segment;

    thr_mutex_lock(&log->shm->head->commit_lock, UINT64_MAX);
    segment = log->full;
    if (segment != NULL && segment->number >= first)
        segment = NULL;
    if (segment != NULL && (log->full = segment->next) == NULL)
        log->full_last = NULL;
    thr_mutex_unlock(&log->shm->head->commit_lock);
    return segment;
}

void thr_log_retire(struct thr_log *log, uint64_t first)
{
    struct thr_segment *segment;

    while ((segment = take_retired(log, first)) != NULL) {
        atomic_fetch_sub_explicit(&log->live_bytes, segment->record_bytes, memory_order_relaxed);
        while (atomic_load_explicit(&segment->syncs, memory_order_acquire) != 0)
            thr_os_sleep_ns(100000);
        THR_POINT("log-retire");
        memset(segment->at, 0, sizeof(struct thr_segment_head)); /* not a segment any more, whatever its name */
        if (segment->bytes != THR_SEGMENT_MAX || !spare_put(log, segment))
            segment_delete(log, segment);
    }
}

int thr_log_restart(struct thr_log *log, bool sync)
{
    struct thr_segment *fresh = NULL;
    uint64_t seq = atomic_load_explicit(&log->shm->head->commit_seq, memory_order_relaxed);
    uint64_t extent = atomic_load_explicit(&log->shm->head->extent[seq % THR_EXTENTS], memory_order_relaxed);
    uint32_t runs = free_runs(log->shm, (uint32_t)(extent >> 32), NULL);
    size_t bytes = THR_SEGMENT_MIN;
    int rc;

    while (bytes < 2 * records_offset(runs))
        bytes *= 2;
    if ((rc = segment_make(log, log->current->number + 1, bytes, &fresh)) != SQLITE_OK)
        return rc;
    /* The checkpointer's thread may look at the current segment, and sync or write back old ones. */
    thr_mutex_lock(&log->shm->head->commit_lock, UINT64_MAX);
    current_is_full(log, seq);
    segment_begin(log, fresh, seq + 1, runs);
    thr_mutex_unlock(&log->shm->head->commit_lock);
    if ((sync && ((rc = thr_os_sync(fresh->fd)) != SQLITE_OK || (rc = thr_log_sync_names(log)) != SQLITE_OK)) ||
        (rc = thr_log_write_horizon(log, fresh->number, false, sync)) != SQLITE_OK)
        return rc;
    thr_log_retire(log, fresh->number);
    return SQLITE_OK;
}
