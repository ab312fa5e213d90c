/* SPDX-License-Identifier: MIT */
#include "recover.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../log/group.h"
#include "../log/horizon.h"
#include "../log/log.h"
#include "../os/os.h"
#include "../os/point.h"
#include "../space/space.h"
#include "stock.h"

struct file_list {
    const char *directory;
    uint64_t *numbers; /* of log segments, ascending */
    size_t count, capacity;
    char *foreign; /* where to put the name of a file that is not ours */
    size_t foreign_bytes;
    bool found_foreign;
    bool has_horizon;
    uint64_t first; /* segment that recovery begins with */
};

static bool parse_segment_name(const char *name, uint64_t *number_out)
{
    char canonical[32];

    if (strncmp(name, "log-", 4) != 0)
        return false;
    *number_out = strtoull(name + 4, NULL, 10);
    snprintf(canonical, sizeof canonical, "log-%" PRIu64, *number_out);
    return *number_out != 0 && strcmp(name, canonical) == 0;
}

static bool ours(const char *name)
{
    return strcmp(name, "heap") == 0 || strcmp(name, "shm") == 0 || strcmp(name, "horizon") == 0 ||
           strncmp(name, "scratch-", 8) == 0;
}

/* A directory, a pipe or a link is not ours, whatever its name: it must not be opened. */
static int is_file(const char *directory, const char *name, bool *out)
{
    char *path = thr_os_join(directory, name);
    struct thr_stat stat;
    int rc;

    if (path == NULL)
        return SQLITE_NOMEM;
    rc = thr_os_lstat(path, &stat);
    thr_os_free(path);
    *out = rc == SQLITE_OK && stat.is_regular;
    return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}

static int note_file(void *ctx, const char *name)
{
    struct file_list *list = ctx;
    uint64_t number;
    bool segment = parse_segment_name(name, &number), file = false;
    int rc;

    if ((segment || ours(name)) && (rc = is_file(list->directory, name, &file)) != SQLITE_OK)
        return rc;
    if (!file) {
        list->found_foreign = true;
        if (list->foreign != NULL)
            snprintf(list->foreign, list->foreign_bytes, "%s", name);
    }
    if (!file || !segment)
        return 0;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity > 0 ? list->capacity * 2 : 16;
        uint64_t *at = thr_os_realloc(list->numbers, capacity * sizeof *at);

        if (at == NULL)
            return SQLITE_NOMEM;
        list->numbers = at;
        list->capacity = capacity;
    }
    list->numbers[list->count++] = number;
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static int list_files(const char *directory, struct file_list *list)
{
    int rc;

    list->directory = directory;
    rc = thr_os_list(directory, note_file, list);
    if (list->count > 1)
        qsort(list->numbers, list->count, sizeof *list->numbers, ascending);
    if (rc == SQLITE_OK)
        rc = thr_horizon_read(directory, &list->has_horizon, &list->first);
    return rc;
}

/* Segments before the horizon are of no account any more, whatever a power cut has left of them. If the first one that is
 * needed is not there, nothing was ever synced, or everything is in the base file and the rest was being removed. */
static bool needed(const struct file_list *list, size_t i)
{
    if (!list->has_horizon)
        return true;
    if (list->numbers[i] < list->first)
        return false;
    for (size_t k = 0; k < i; k++)
        if (list->numbers[k] == list->first)
            return true;
    return list->numbers[i] == list->first;
}

/* A segment of the log that is being recovered. */
struct piece {
    uint8_t *at;
    size_t bytes;
    struct thr_segment_head head;
    bool damaged; /* bytes where a header should be, but no header */
};

static void piece_close(struct piece *piece)
{
    if (piece->at != NULL)
        thr_os_unmap(piece->at, piece->bytes);
    memset(piece, 0, sizeof *piece);
}

/* SQLITE_OK with piece->at NULL if there is no segment in the file. */
static int piece_open(const char *directory, uint64_t number, struct piece *piece)
{
    static const uint8_t ZEROS[8];
    char *path = thr_log_path(directory, number);
    struct thr_stat stat;
    void *at = NULL;
    int fd = -1, rc;

    memset(piece, 0, sizeof *piece);
    if (path == NULL)
        return SQLITE_NOMEM;
    rc = thr_os_open(path, THR_OPEN_INSIDE, 0, &fd, NULL);
    thr_os_free(path);
    if (rc != SQLITE_OK)
        return rc;
    rc = thr_os_fstat(fd, &stat);
    if (rc == SQLITE_OK && stat.bytes >= (int64_t)sizeof piece->head) {
        rc = thr_os_map(fd, (size_t)stat.bytes, false, &at);
        if (rc == SQLITE_OK) {
            piece->at = at;
            piece->bytes = (size_t)stat.bytes;
            memcpy(&piece->head, at, sizeof piece->head);
            piece->damaged = memcmp(at, ZEROS, sizeof ZEROS) != 0;
            if (!thr_segment_check(at, piece->bytes) || piece->head.number != number) {
                bool damaged = piece->damaged;

                piece_close(piece);
                piece->damaged = damaged;
            } else {
                piece->damaged = false;
            }
        }
    }
    thr_os_close(fd);
    return rc;
}

int thr_recover_inspect(const char *directory, char *name_out, size_t name_bytes)
{
    struct file_list list = {.foreign = name_out, .foreign_bytes = name_bytes};
    struct piece piece;
    bool whole = false, damaged = false;
    int rc = list_files(directory, &list);

    if (rc == SQLITE_OK && list.found_foreign)
        rc = SQLITE_CANTOPEN;
    for (size_t i = 0; i < list.count && rc == SQLITE_OK; i++) {
        if (!needed(&list, i))
            continue;
        if ((rc = piece_open(directory, list.numbers[i], &piece)) == SQLITE_OK) {
            whole = whole || piece.at != NULL;
            if (piece.damaged && !whole) {
                damaged = true;
                snprintf(name_out, name_bytes, "log-%" PRIu64, list.numbers[i]);
            }
            piece_close(&piece);
        }
    }
    if (rc == SQLITE_OK && damaged)
        rc = SQLITE_CORRUPT; /* the log does not begin with a segment that we can read: commits may be lost */
    thr_os_free(list.numbers);
    return rc;
}

static bool group_took_place(const char *directory, const uint8_t *record);

/* Calls `fn` for each whole record, in order, and `begin` for each segment. */
static int each_record(const char *directory, const struct file_list *list,
                       int (*begin)(void *ctx, const uint8_t *segment, const struct thr_segment_head *head),
                       int (*fn)(void *ctx, const uint8_t *record, const struct thr_record_head *head), void *ctx,
                       bool resolve)
{
    struct thr_record_head record;
    struct piece piece;
    uint64_t number = 0, seq = 0, at;
    int rc = SQLITE_OK;

    for (size_t i = 0; i < list->count && rc == SQLITE_OK; i++) {
        if (!needed(list, i))
            continue;
        if (number != 0 && list->numbers[i] != number + 1)
            break;
        if ((rc = piece_open(directory, list->numbers[i], &piece)) != SQLITE_OK)
            break;
        if (piece.at == NULL) {
            if (number != 0 || list->has_horizon)
                break; /* made, and not begun yet */
            continue;  /* recycled, and not used again yet */
        }
        if (number != 0 && piece.head.first_seq != seq) {
            piece_close(&piece);
            break;
        }
        number = list->numbers[i];
        seq = piece.head.first_seq;
        rc = begin(ctx, piece.at, &piece.head);
        for (at = piece.head.records_at;
             rc == SQLITE_OK && thr_record_check(piece.at + at, piece.bytes - at, piece.head.salt, seq);
             at += record.bytes, seq++) {
            memcpy(&record, piece.at + at, sizeof record);
            if (resolve && (record.flags & THR_RECORD_GROUP) != 0 && !group_took_place(directory, piece.at + at))
                break; /* the others never committed: neither did we. It can only be the last record */
            rc = fn(ctx, piece.at + at, &record);
        }
        if (rc == SQLITE_CORRUPT)
            thr_log(rc, "throng: %s/log-%" PRIu64 " makes no sense before commit %" PRIu64, directory, number, seq);
        piece_close(&piece);
    }
    return rc;
}

struct group_search {
    uint8_t id[16];
    bool decided;
};

static int search_begin(void *ctx, const uint8_t *segment, const struct thr_segment_head *head)
{
    (void)ctx;
    (void)segment;
    (void)head;
    return SQLITE_OK;
}

static int search_record(void *ctx, const uint8_t *record, const struct thr_record_head *head)
{
    struct group_search *search = ctx;
    const uint8_t *group;
    size_t bytes;

    if ((head->flags & THR_RECORD_GROUP) != 0 && (group = thr_record_group(record, &bytes)) != NULL &&
        bytes > sizeof search->id && memcmp(group, search->id, sizeof search->id) == 0 && head->decided != 0)
        search->decided = true;
    return SQLITE_OK;
}

/* Did the commit that this record is part of take place? */
static bool group_took_place(const char *directory, const uint8_t *record)
{
    struct group_search search = {.decided = false};
    struct file_list list = {0};
    struct thr_group_head group_head;
    struct thr_record_head head;
    const char *coordinator;
    const uint8_t *group;
    size_t bytes;

    memcpy(&head, record, sizeof head);
    if (head.decided != 0)
        return true;
    if ((group = thr_record_group(record, &bytes)) == NULL || (coordinator = thr_group_path(group, bytes, 0)) == NULL)
        return false;
    memcpy(&group_head, group, sizeof group_head);
    if (group_head.coordinator != 0 || strcmp(coordinator, directory) == 0)
        return false;
    memcpy(search.id, group_head.id, sizeof search.id);
    if (list_files(coordinator, &list) == SQLITE_OK)
        each_record(coordinator, &list, search_begin, search_record, &search, false);
    thr_os_free(list.numbers);
    return search.decided;
}

/* Mark the record of this group decided in another database's log. */
static void pass_on_to(const char *directory, const uint8_t *id)
{
    struct file_list list = {0};
    struct piece piece;

    if (list_files(directory, &list) != SQLITE_OK)
        goto done;
    for (size_t i = 0; i < list.count; i++) {
        struct thr_record_head record;
        const uint8_t *group;
        uint64_t seq, one = 1;
        size_t bytes;
        char *path;
        int fd;

        if (piece_open(directory, list.numbers[i], &piece) != SQLITE_OK || piece.at == NULL)
            continue;
        seq = piece.head.first_seq;
        for (uint64_t at = piece.head.records_at;
             thr_record_check(piece.at + at, piece.bytes - at, piece.head.salt, seq); at += record.bytes, seq++) {
            memcpy(&record, piece.at + at, sizeof record);
            if ((record.flags & THR_RECORD_GROUP) == 0 || record.decided != 0 ||
                (group = thr_record_group(piece.at + at, &bytes)) == NULL || memcmp(group, id, 16) != 0)
                continue;
            if ((path = thr_log_path(directory, list.numbers[i])) != NULL &&
                thr_os_open(path, THR_OPEN_WRITE | THR_OPEN_INSIDE, 0, &fd, NULL) == SQLITE_OK) {
                thr_os_write(fd, &one, sizeof one, (int64_t)(at + offsetof(struct thr_record_head, decided)));
                thr_os_sync(fd);
                thr_os_close(fd);
            }
            thr_os_free(path);
        }
        piece_close(&piece);
    }
done:
    thr_os_free(list.numbers);
}

static int pass_on_record(void *ctx, const uint8_t *record, const struct thr_record_head *head)
{
    struct thr_group_head group_head;
    const uint8_t *group;
    const char *path;
    size_t bytes;

    (void)ctx;
    if ((head->flags & THR_RECORD_GROUP) == 0 || head->decided == 0 ||
        (group = thr_record_group(record, &bytes)) == NULL || bytes <= sizeof group_head)
        return SQLITE_OK;
    memcpy(&group_head, group, sizeof group_head);
    for (uint32_t i = 1; group_head.coordinator != 0 && (path = thr_group_path(group, bytes, i)) != NULL; i++)
        pass_on_to(path, group_head.id);
    return SQLITE_OK;
}

struct replay {
    struct thr_base *base;
    struct thr_recovery *out;
    bool any; /* there is a segment */
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
    for (uint32_t i = 0; i < head->run_count; i++)
        if (runs[i].first < 2 || runs[i].first > head->page_count ||
            runs[i].count > head->page_count - runs[i].first + 1)
            return SQLITE_CORRUPT;
    if (!replay->any && head->page_count > 0 && atomic_load(&replay->base->bytes) == 0)
        return SQLITE_CANTOPEN; /* an empty file in the place of the database */
    replay->any = true;
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

static int replay_range(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes,
                        uint32_t range_bytes)
{
    struct replay *replay = ctx;
    int64_t at = (int64_t)(pgno - 1) * replay->record_page_size;

    if (at + replay->record_page_size > replay->map_bytes)
        return SQLITE_CORRUPT;
    if (fresh)
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

static int finish(struct replay *replay)
{
    struct thr_stock_header header;
    struct thr_pages pages = {0};
    int rc = SQLITE_OK;

    if (replay->page_count == 0)
        return SQLITE_OK;
    if (replay->list_in_file) { /* all that is missing is the length of the file */
        if ((rc = thr_stock_header_read(replay->base, &header)) != SQLITE_OK)
            return rc;
        return header.foreign ? SQLITE_CORRUPT
                              : thr_base_truncate(replay->base, (int64_t)header.page_count * header.page_size);
    }
    for (uint32_t pgno = 2; pgno <= replay->page_count && replay->format == 2 && rc == SQLITE_OK; pgno++)
        if (replay->is_free[pgno])
            rc = thr_pages_add(&pages, pgno);
    if (rc == SQLITE_OK)
        rc = thr_stock_finish(replay->base, replay->page_size, replay->page_count, &pages, replay->format == 2,
                              replay->change_base + (uint32_t)replay->seq);
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
static int drop_what_is_not_needed(const char *directory, const struct file_list *list)
{
    int rc = thr_os_list(directory, drop_file, (void *)(uintptr_t)directory);

    for (size_t i = 0; i < list->count && list->has_horizon && rc == SQLITE_OK; i++) {
        char *path;

        if (list->numbers[i] >= list->first)
            break;
        if ((path = thr_log_path(directory, list->numbers[i])) == NULL)
            return SQLITE_NOMEM;
        thr_os_unlink(path);
        thr_os_free(path);
    }
    return rc;
}

int thr_recover_apply(const char *directory, struct thr_base *base, struct thr_recovery *out)
{
    struct file_list list = {0};
    struct replay replay = {.base = base, .out = out, .directory = directory, .told_ns = thr_os_now_ns()};
    int rc;

    memset(out, 0, sizeof *out);
    if ((rc = list_files(directory, &list)) == SQLITE_OK)
        rc = each_record(directory, &list, measure_begin, measure_record, &replay, true);
    if (rc == SQLITE_OK && replay.any && out->commits > 0) {
        if ((rc = drop_what_is_not_needed(directory, &list)) == SQLITE_OK && (rc = map_file(&replay)) == SQLITE_OK)
            rc = each_record(directory, &list, replay_begin, replay_record, &replay, true);
        if (rc == SQLITE_OK && (rc = finish(&replay)) == SQLITE_CORRUPT)
            thr_log(rc, "throng: page 1, as the log in %s leaves it, is not that of a database", directory);
        if (rc == SQLITE_OK)
            rc = thr_stock_mark(base, false);
        if (rc == SQLITE_OK)
            rc = thr_os_sync(base->fd);
        if (rc == SQLITE_OK) /* before our log goes, the others must know what it says about them */
            rc = each_record(directory, &list, search_begin, pass_on_record, NULL, true);
        out->page_count = replay.page_count;
    } else if (rc == SQLITE_OK && replay.any) {
        /* No commit since the segment began. If it is not the log's first one, what it says of the free list is not
         * in the file yet. */
        rc = each_record(directory, &list, replay_begin, replay_record, &replay, true);
        if (rc == SQLITE_OK && replay.seq > 1)
            rc = finish(&replay);
        if (rc == SQLITE_OK)
            rc = thr_stock_mark(base, false);
        if (rc == SQLITE_OK)
            rc = thr_os_sync(base->fd);
    } else if (rc == SQLITE_OK) { /* no log was begun, or all of it is in the file, and it was being removed */
        if ((rc = thr_stock_mark(base, false)) == SQLITE_OK)
            rc = thr_os_sync(base->fd); /* a power cut must not leave the mark when the directory is gone */
    }
    if (replay.at != NULL)
        thr_os_unmap(replay.at, (size_t)replay.map_bytes);
    thr_os_free(replay.is_free);
    thr_os_free(list.numbers);
    return rc;
}

struct removal {
    const char *directory;
    char *path;
    size_t path_bytes;
};

static int remove_other(void *ctx, const char *name)
{
    struct removal *removal = ctx;
    uint64_t number;

    if (parse_segment_name(name, &number) || !ours(name))
        return 0;
    snprintf(removal->path, removal->path_bytes, "%s/%s", removal->directory, name);
    thr_os_unlink(removal->path);
    return 0;
}

int thr_recover_remove(const char *directory)
{
    struct file_list list = {0};
    struct removal removal = {.directory = directory, .path_bytes = strlen(directory) + 300};
    int rc = list_files(directory, &list);

    if (rc == SQLITE_OK && (removal.path = thr_os_alloc(removal.path_bytes)) == NULL)
        rc = SQLITE_NOMEM;
    for (size_t i = 0; i < list.count && rc == SQLITE_OK; i++) {
        char *path = thr_log_path(directory, list.numbers[i]);

        rc = path == NULL ? SQLITE_NOMEM : thr_os_unlink(path);
        thr_os_free(path);
        THR_POINT("remove");
    }
    if (rc == SQLITE_OK) {
        thr_os_list(directory, remove_other, &removal);
        rc = thr_os_rmdir(directory);
    }
    thr_os_free(removal.path);
    thr_os_free(list.numbers);
    return rc;
}
