/* SPDX-License-Identifier: MIT */
#include "recover.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"
#include "../os/point.h"
#include "../space/space.h"
#include "../txn/page1.h"
#include "fit.h"
#include "scan.h"
#include "span.h"
#include "stock.h"

int thr_recover_inspect(const char *directory, char *name_out, size_t name_bytes)
{
    struct thr_scan scan = {.foreign = name_out, .foreign_bytes = name_bytes};
    int rc = thr_scan_open(directory, &scan);

    if (rc == SQLITE_OK && scan.found_foreign)
        rc = SQLITE_CANTOPEN;
    thr_scan_close(&scan);
    return rc;
}

struct replay {
    struct thr_base *base;
    struct thr_recovery *out;
    struct thr_fit_log extent;
    /* as of the last record seen */
    uint32_t page_size, page_count, format, change_base;
    uint64_t seq;
    bool list_in_file; /* after a resize the file's own free list is the true one */
    /* free pages, a byte each */
    uint8_t *is_free;
    uint32_t is_free_count;
    /* the file, mapped */
    uint8_t *at;
    int64_t map_bytes, max_bytes;
    uint32_t record_page_size;
    /* how far it is, for the user */
    const char *directory;
    uint64_t done_bytes, told_ns;
};

static const uint64_t TELL_NS = 1000000000;
enum { SECTOR = 512 };

static void tell_progress(struct replay *replay, uint64_t record_bytes)
{
    uint64_t now = thr_os_now_ns();

    replay->done_bytes += record_bytes;
    if (now - replay->told_ns < TELL_NS)
        return;
    replay->told_ns = now;
    thr_log(SQLITE_NOTICE, "throng: recovering from %s: %llu of %llu MiB", replay->directory,
            (unsigned long long)replay->done_bytes >> 20, (unsigned long long)replay->out->log_bytes >> 20);
}

/* The log is measured before it is replayed, and everything in it is checked then: what is refused has changed nothing. */
static int measure_begin(void *ctx, const uint8_t *segment, const struct thr_segment_head *head)
{
    struct replay *replay = ctx;
    const struct thr_page_run *runs = (const struct thr_page_run *)(const void *)(segment + sizeof *head);

    if (head->page_count > THR_PAGE_MAX || head->page_size > 65536 || (head->page_size & (head->page_size - 1)) != 0 ||
        (head->page_size < 512 && (head->page_size | head->page_count) != 0))
        return SQLITE_CORRUPT;
    if (head->first_seq == 0 || head->first_seq > THR_IDENTITY_MASK / 2) /* more than page 1 has room for */
        return SQLITE_CORRUPT;
    for (uint32_t i = 0; i < head->run_count; i++)
        if (runs[i].first < 2 || runs[i].first > head->page_count ||
            runs[i].count > head->page_count - runs[i].first + 1)
            return SQLITE_CORRUPT;
    if (!replay->extent.any) {
        replay->extent.first_seq = head->first_seq;
        replay->extent.page_count = head->page_count;
        replay->extent.last_seq = head->first_seq - 1;
    }
    replay->extent.any = true;
    if ((int64_t)head->page_count * head->page_size > replay->max_bytes)
        replay->max_bytes = (int64_t)head->page_count * head->page_size;
    return SQLITE_OK;
}

static int measure_range(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes,
                         uint32_t range_bytes)
{
    (void)ctx;
    (void)pgno;
    (void)fresh;
    (void)offset;
    (void)bytes;
    (void)range_bytes;
    return SQLITE_OK; /* that it can be called is all there is to know */
}

static int measure_record(void *ctx, const uint8_t *record, const struct thr_record_head *head)
{
    struct replay *replay = ctx;
    const uint32_t *pages = thr_record_taken(record); /* and the freed ones behind them */
    int rc;

    if (head->page_count > THR_PAGE_MAX)
        return SQLITE_CORRUPT;
    for (size_t i = 0; i < (size_t)head->taken_count + head->freed_count; i++)
        if (pages[i] > head->page_count)
            return SQLITE_CORRUPT;
    if ((rc = thr_record_each(record, measure_range, NULL)) != SQLITE_OK)
        return rc;
    if ((int64_t)head->page_count * head->page_size > replay->max_bytes)
        replay->max_bytes = (int64_t)head->page_count * head->page_size;
    replay->extent.last_seq = head->seq;
    replay->out->commits++;
    replay->out->log_bytes += head->bytes;
    return SQLITE_OK;
}

static int free_room(struct replay *replay, uint32_t page_count)
{
    uint32_t count = replay->is_free_count > 0 ? replay->is_free_count : 1024;
    uint8_t *at;

    if (page_count < replay->is_free_count)
        return SQLITE_OK;
    while (count <= page_count)
        count = count < UINT32_MAX / 2 ? count * 2 : UINT32_MAX;
    if ((at = thr_os_realloc(replay->is_free, count)) == NULL)
        return SQLITE_NOMEM;
    memset(at + replay->is_free_count, 0, count - replay->is_free_count);
    replay->is_free = at;
    replay->is_free_count = count;
    return SQLITE_OK;
}

static int replay_begin(void *ctx, const uint8_t *segment, const struct thr_segment_head *head)
{
    struct replay *replay = ctx;
    const struct thr_page_run *runs = (const struct thr_page_run *)(const void *)(segment + sizeof *head);
    int rc;

    replay->page_size = head->page_size;
    replay->page_count = head->page_count;
    replay->format = head->format;
    replay->change_base = head->change_base;
    replay->seq = head->first_seq - 1;
    replay->list_in_file = false;
    if ((rc = free_room(replay, head->page_count)) != SQLITE_OK)
        return rc;
    memset(replay->is_free, 0, replay->is_free_count);
    for (uint32_t i = 0; i < head->run_count; i++)
        memset(replay->is_free + runs[i].first, 1, runs[i].count);
    return SQLITE_OK;
}

/* Bytes of page 1, or zeros; but that by which the file says that it is in use stays until everything is done. */
static void replay_page1(uint8_t *page, const uint8_t *bytes, uint32_t offset, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, offset++) {
        uint8_t value = bytes == NULL ? 0 : bytes[i];

        if (offset == THR_P1_MARK_AT)
            page[offset] = (uint8_t)(value | THR_P1_MARK);
        else if (offset < THR_P1_SPAN || offset >= THR_P1_SPAN + THR_P1_SPAN_BYTES)
            page[offset] = value;
    }
}

static int replay_range(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes,
                        uint32_t range_bytes)
{
    struct replay *replay = ctx;
    int64_t at = (int64_t)(pgno - 1) * replay->record_page_size;

    if (at + replay->record_page_size > replay->map_bytes)
        return SQLITE_CORRUPT;
    if (pgno == 1)
        replay_page1(replay->at, fresh ? NULL : bytes, offset, fresh ? replay->record_page_size : range_bytes);
    else if (fresh)
        memset(replay->at + at, 0, replay->record_page_size);
    else
        memcpy(replay->at + at + offset, bytes, range_bytes);
    return SQLITE_OK;
}

static int replay_space(struct replay *replay, const uint8_t *record, const struct thr_record_head *head)
{
    const uint32_t *taken = thr_record_taken(record), *freed = thr_record_freed(record);
    uint32_t lock_page = thr_lock_page(head->page_size);
    int rc;

    if ((rc = free_room(replay, head->page_count)) != SQLITE_OK)
        return rc;
    if ((head->flags & THR_RECORD_REWRITE) != 0)
        memset(replay->is_free, 0, replay->is_free_count);
    else if (head->format == 2)
        for (uint32_t pgno = replay->page_count + 1; pgno <= head->page_count; pgno++)
            replay->is_free[pgno] = pgno != lock_page;
    for (uint32_t i = 0; i < head->taken_count; i++)
        replay->is_free[taken[i]] = 0;
    for (uint32_t i = 0; i < head->freed_count; i++)
        replay->is_free[freed[i]] = 1;
    return SQLITE_OK;
}

static int replay_record(void *ctx, const uint8_t *record, const struct thr_record_head *head)
{
    struct replay *replay = ctx;
    int rc;

    THR_POINT("recover");
    tell_progress(replay, head->bytes);
    replay->record_page_size = head->page_size;
    if ((rc = thr_record_each(record, replay_range, replay)) != SQLITE_OK ||
        (rc = replay_space(replay, record, head)) != SQLITE_OK)
        return rc;
    if ((head->flags & THR_RECORD_RESIZE) != 0)
        replay->list_in_file = true;
    replay->page_size = head->page_size;
    replay->page_count = head->page_count;
    replay->format = head->format;
    replay->seq = head->seq;
    return SQLITE_OK;
}

/* What the file needs besides its pages. *bytes_out: how long it is to be. */
static int finish(struct replay *replay, int64_t *bytes_out)
{
    struct thr_stock_header header;
    struct thr_pages pages = {0};
    int rc = SQLITE_OK;

    *bytes_out = 0;
    if (replay->page_count == 0)
        return SQLITE_OK;
    if (replay->list_in_file) { /* all that is missing is the length of the file */
        if ((rc = thr_stock_header_read(replay->base, &header)) != SQLITE_OK)
            return rc;
        *bytes_out = (int64_t)header.page_count * header.page_size;
        return header.foreign ? SQLITE_CORRUPT : SQLITE_OK;
    }
    for (uint32_t pgno = 2; pgno <= replay->page_count && replay->format == 2 && rc == SQLITE_OK; pgno++)
        if (replay->is_free[pgno])
            rc = thr_pages_add(&pages, pgno);
    if (rc == SQLITE_OK)
        rc = thr_stock_finish(replay->base, replay->page_size, replay->page_count, &pages, replay->format == 2,
                              replay->change_base + (uint32_t)replay->seq, bytes_out);
    thr_os_free(pages.at);
    return rc;
}

static int map_file(struct replay *replay)
{
    int64_t bytes = atomic_load(&replay->base->bytes);
    void *at = NULL;
    int rc;

    if (bytes < replay->max_bytes)
        bytes = replay->max_bytes;
    if (bytes == 0)
        return SQLITE_OK;
    /* The space first: a store into a hole of a full disk would be SIGBUS. */
    if ((rc = thr_os_allocate(replay->base->fd, 0, bytes)) != SQLITE_OK ||
        (rc = thr_os_map(replay->base->fd, (size_t)bytes, true, &at)) != SQLITE_OK)
        return rc;
    thr_os_map_hide(at, (size_t)bytes);
    replay->at = at;
    replay->map_bytes = bytes;
    atomic_store(&replay->base->bytes, bytes);
    return SQLITE_OK;
}

static int drop_file(void *ctx, const char *name)
{
    char *path;

    if (strcmp(name, "heap") != 0 && strcmp(name, "shm") != 0 && strncmp(name, "scratch-", 8) != 0)
        return SQLITE_OK;
    if ((path = thr_os_join(ctx, name)) == NULL)
        return SQLITE_NOMEM;
    thr_os_unlink(path); /* if it cannot be, there may be space enough all the same */
    thr_os_free(path);
    return SQLITE_OK;
}

/* Before the file grows: give back the space of what recovery does not read, which may be all that the disk has. */
static int drop_what_is_not_needed(const struct thr_scan *scan)
{
    int rc = thr_os_list(scan->directory, drop_file, (void *)(uintptr_t)scan->directory);

    for (size_t i = 0; i < scan->count && rc == SQLITE_OK; i++) {
        char *path;

        if (scan->numbers[i] >= scan->horizon.number)
            break;
        if ((path = thr_log_path(scan->directory, scan->numbers[i])) == NULL)
            return SQLITE_NOMEM;
        thr_os_unlink(path);
        thr_os_free(path);
    }
    return rc;
}

/* Bring the file to the state of the log's last commit, still marked. *bytes_out: how long it is to be. */
static int replay_log(struct replay *replay, const struct thr_scan *scan, const struct thr_span_found *found,
                      int64_t *bytes_out)
{
    const struct thr_fit_log *extent = &replay->extent;
    struct thr_base *base = replay->base;
    int64_t end = found->bytes > replay->max_bytes ? found->bytes : replay->max_bytes;
    int rc = SQLITE_OK;

    *bytes_out = extent->page_count == 0 ? 0 : found->bytes;
    if (extent->last_seq == extent->first_seq - 1 && extent->last_seq <= 1)
        return SQLITE_OK; /* nothing was ever committed: the file is as it was */
    /* A recovery is cut off as a checkpoint is: what the file then has the log must have. */
    if ((rc = drop_what_is_not_needed(scan)) == SQLITE_OK && base->span.identity != 0)
        rc = thr_span_raise(base, extent->last_seq, (end + SECTOR - 1) / SECTOR * SECTOR);
    if (rc == SQLITE_OK)
        rc = map_file(replay);
    if (rc == SQLITE_OK)
        rc = thr_scan_each(scan, replay_begin, replay_record, replay, true);
    if (rc == SQLITE_OK && (rc = finish(replay, bytes_out)) == SQLITE_CORRUPT)
        thr_log(rc, "throng: page 1, as the log in %s leaves it, is not that of a database", scan->directory);
    return rc;
}

/* The file is complete: write that down, and take off it what only a file in use has. */
static int close_log(const struct thr_scan *scan, struct thr_base *base, int64_t bytes)
{
    struct thr_horizon horizon = scan->horizon;
    int fd, rc;

    if ((rc = thr_os_sync(base->fd)) != SQLITE_OK || (rc = thr_scan_pass_on(scan)) != SQLITE_OK)
        return rc; /* before our log goes, the others must know what it says about them */
    horizon.closed = true;
    if ((rc = thr_os_open_dir(scan->directory, &fd)) != SQLITE_OK)
        return rc;
    rc = thr_horizon_write(fd, 0600, &horizon, true);
    thr_os_close(fd);
    THR_POINT("recovered");
    if (rc == SQLITE_OK && (rc = thr_span_end(base, bytes)) == SQLITE_OK)
        rc = thr_os_sync(base->fd);
    return rc;
}

/* Everything is in the file; what may be left to do is to take off the mark, or the trailer. Once all is finished page 1
 * says how long the file is. The trailer does not: it was written before the last pages were. */
static int end_again(const struct thr_scan *scan, struct thr_base *base, const struct thr_span_found *found)
{
    bool finished = scan->horizon.closed && found->span.identity == scan->horizon.identity;
    int rc;

    if (!found->marked && !found->has_trailer && !found->blank)
        return SQLITE_OK;
    rc = thr_span_end(base, finished ? (int64_t)found->page_count * found->page_size : found->bytes);
    return rc == SQLITE_OK ? thr_os_sync(base->fd) : rc;
}

int thr_recover_apply(const char *directory, struct thr_base *base, struct thr_recovery *out)
{
    struct thr_scan scan = {0};
    struct thr_span_found found;
    struct replay replay = {.base = base, .out = out, .directory = directory, .told_ns = thr_os_now_ns()};
    int64_t bytes;
    int rc;

    memset(out, 0, sizeof *out);
    if ((rc = thr_scan_open(directory, &scan)) != SQLITE_OK || (rc = thr_span_read(base, &found)) != SQLITE_OK)
        goto done;
    if (!scan.horizon.closed)
        rc = thr_scan_each(&scan, measure_begin, measure_record, &replay, true);
    if (rc == SQLITE_OK)
        rc = thr_fit_judge(&scan, &found, &replay.extent, thr_os_file_number(base->fd));
    if (rc != SQLITE_OK)
        goto done;
    atomic_store(&base->bytes, found.bytes);
    base->span = found.span;
    if (!thr_fit_replays(&scan, &found, &replay.extent)) {
        out->commits = 0;
        rc = end_again(&scan, base, &found);
    } else if ((rc = replay_log(&replay, &scan, &found, &bytes)) == SQLITE_OK) {
        rc = close_log(&scan, base, bytes);
        out->page_count = replay.page_count;
    }
done:
    if (replay.at != NULL)
        thr_os_unmap(replay.at, (size_t)replay.map_bytes);
    thr_os_free(replay.is_free);
    thr_scan_close(&scan);
    return rc;
}
