/* SPDX-License-Identifier: MIT */
#include "scan.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../log/group.h"
#include "../log/home.h"
#include "../os/os.h"

enum { TRIES = 20 };
static const uint64_t PATIENCE_NS = 60000000000, PAUSE_NS = 10000000;

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
    struct thr_scan *scan = ctx;
    uint64_t number;
    bool ours = thr_home_owns(name, &number), file = false;
    int rc;

    if (ours && (rc = is_file(scan->directory, name, &file)) != SQLITE_OK)
        return rc;
    if (!file) {
        scan->found_foreign = true;
        if (scan->foreign != NULL)
            snprintf(scan->foreign, scan->foreign_bytes, "%s", name);
    }
    if (!file || number == 0)
        return 0;
    if (scan->count == scan->capacity) {
        size_t capacity = scan->capacity > 0 ? scan->capacity * 2 : 16;
        uint64_t *at = thr_os_realloc(scan->numbers, capacity * sizeof *at);

        if (at == NULL)
            return SQLITE_NOMEM;
        scan->numbers = at;
        scan->capacity = capacity;
    }
    scan->numbers[scan->count++] = number;
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int thr_scan_open(const char *directory, struct thr_scan *scan)
{
    int rc;

    scan->directory = directory;
    rc = thr_os_list(directory, note_file, scan);
    if (scan->count > 1)
        qsort(scan->numbers, scan->count, sizeof *scan->numbers, ascending);
    if (rc == SQLITE_OK)
        rc = thr_horizon_read(directory, &scan->has_horizon, &scan->horizon);
    return rc;
}

void thr_scan_close(struct thr_scan *scan)
{
    thr_os_free(scan->numbers);
    memset(scan, 0, sizeof *scan);
}

/* Segments before the horizon are of no account any more, whatever a power cut has left of them. Without a first one,
 * none is. */
bool thr_scan_needs(const struct thr_scan *scan, size_t i)
{
    if (!scan->has_horizon || scan->numbers[i] < scan->horizon.number)
        return false;
    for (size_t k = 0; k <= i; k++)
        if (scan->numbers[k] == scan->horizon.number)
            return true;
    return false;
}

void thr_piece_close(struct thr_piece *piece)
{
    if (piece->at != NULL)
        thr_os_unmap(piece->at, piece->bytes);
    memset(piece, 0, sizeof *piece);
}

static bool starts_record(const uint8_t *at, size_t bytes, uint64_t records_at)
{
    uint32_t magic = 0;

    if (records_at <= bytes && bytes - records_at >= sizeof magic)
        memcpy(&magic, at + records_at, sizeof magic);
    return magic == THR_RECORD_MAGIC;
}

int thr_piece_open(const struct thr_scan *scan, uint64_t number, struct thr_piece *piece)
{
    static const uint8_t ZEROS[8];
    char *path = thr_log_path(scan->directory, number);
    struct thr_stat stat;
    bool has_record = false;
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
    if (rc == SQLITE_OK && stat.bytes >= (int64_t)sizeof piece->head &&
        (rc = thr_os_map(fd, (size_t)stat.bytes, false, &at)) == SQLITE_OK) {
        piece->at = at;
        piece->bytes = (size_t)stat.bytes;
        memcpy(&piece->head, at, sizeof piece->head);
        has_record = starts_record(at, piece->bytes, piece->head.records_at);
        if (!thr_segment_check(at, piece->bytes, scan->horizon.identity) || piece->head.number != number) {
            bool damaged = memcmp(at, ZEROS, sizeof ZEROS) != 0;

            thr_piece_close(piece);
            piece->damaged = damaged;
        }
    }
    thr_os_close(fd);
    piece->has_record = has_record;
    return rc;
}

static int group_took_place(const char *directory, const uint8_t *record, bool *out);

int thr_scan_each(const struct thr_scan *scan,
                  int (*begin)(void *ctx, const uint8_t *segment, const struct thr_segment_head *head),
                  int (*fn)(void *ctx, const uint8_t *record, const struct thr_record_head *head), void *ctx,
                  bool resolve)
{
    struct thr_record_head record;
    struct thr_piece piece;
    uint64_t number = 0, seq = 0, at;
    bool counts = true;
    int rc = SQLITE_OK;

    for (size_t i = 0; i < scan->count && rc == SQLITE_OK; i++) {
        if (!thr_scan_needs(scan, i))
            continue;
        if (number != 0 && scan->numbers[i] != number + 1)
            break;
        if ((rc = thr_piece_open(scan, scan->numbers[i], &piece)) != SQLITE_OK)
            break;
        if (piece.at == NULL) /* made, and not begun yet */
            break;
        if (number != 0 && piece.head.first_seq != seq) {
            thr_piece_close(&piece);
            break;
        }
        number = scan->numbers[i];
        seq = piece.head.first_seq;
        rc = begin(ctx, piece.at, &piece.head);
        for (at = piece.head.records_at;
             rc == SQLITE_OK && thr_record_check(piece.at + at, piece.bytes - at, piece.head.salt, seq);
             at += record.bytes, seq++) {
            memcpy(&record, piece.at + at, sizeof record);
            if (resolve && (record.flags & THR_RECORD_GROUP) != 0 &&
                ((rc = group_took_place(scan->directory, piece.at + at, &counts)) != SQLITE_OK || !counts))
                break; /* the others never committed: neither did we. It can only be the last record */
            rc = fn(ctx, piece.at + at, &record);
        }
        if (rc == SQLITE_CORRUPT)
            thr_log(rc, "throng: %s/log-%" PRIu64 " makes no sense before commit %" PRIu64, scan->directory, number,
                    seq);
        thr_piece_close(&piece);
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

/* Its database may be in use: then its files come and go meanwhile. */
static int look_for(struct group_search *search, const char *coordinator)
{
    int rc = SQLITE_OK;

    for (int i = 0; i < TRIES; i++) {
        struct thr_scan scan = {0};

        if (i > 0)
            thr_os_sleep_ns(PAUSE_NS);
        if ((rc = thr_scan_open(coordinator, &scan)) == SQLITE_OK)
            rc = thr_scan_each(&scan, search_begin, search_record, search, false);
        thr_scan_close(&scan);
        if (search->decided || rc == SQLITE_NOTFOUND) /* there is none: it would have told us before it went */
            rc = SQLITE_OK;
        if (rc == SQLITE_OK)
            break;
    }
    return rc;
}

/* Did the commit that this record is part of take place? That the coordinator's log cannot be read is no answer. */
static int group_took_place(const char *directory, const uint8_t *record, bool *out)
{
    struct group_search search = {.decided = false};
    struct thr_group_head group_head;
    struct thr_record_head head;
    const char *coordinator;
    const uint8_t *group;
    size_t bytes;
    int rc;

    memcpy(&head, record, sizeof head);
    if ((*out = head.decided != 0))
        return SQLITE_OK;
    if ((group = thr_record_group(record, &bytes)) == NULL || (coordinator = thr_group_path(group, bytes, 0)) == NULL)
        return SQLITE_OK;
    memcpy(&group_head, group, sizeof group_head);
    if (group_head.coordinator != 0 || strcmp(coordinator, directory) == 0)
        return SQLITE_OK;
    memcpy(search.id, group_head.id, sizeof search.id);
    if ((rc = look_for(&search, coordinator)) != SQLITE_OK)
        thr_log(rc, "throng: %s cannot be read: it says whether the last commit in %s took place", coordinator,
                directory);
    *out = search.decided;
    return rc;
}

static int decide(const struct thr_scan *scan, uint64_t number, uint64_t record_at)
{
    const uint64_t one = 1;
    char *path = thr_log_path(scan->directory, number);
    int fd = -1, rc = SQLITE_NOMEM;

    if (path != NULL && (rc = thr_os_open(path, THR_OPEN_WRITE | THR_OPEN_INSIDE, 0, &fd, NULL)) == SQLITE_OK) {
        rc = thr_os_write(fd, &one, sizeof one, (int64_t)(record_at + offsetof(struct thr_record_head, decided)));
        if (rc == SQLITE_OK)
            rc = thr_os_sync(fd);
        thr_os_close(fd);
    }
    thr_os_free(path);
    return rc;
}

/* Is there a record of this group in another database's log that is not decided? `write`: that is held; mark it. */
static int pass_on_to(const char *directory, const uint8_t *id, bool write, bool *found_out)
{
    struct thr_scan scan = {0};
    struct thr_piece piece;
    int rc = thr_scan_open(directory, &scan);

    *found_out = false;
    for (size_t i = 0; i < scan.count && rc == SQLITE_OK; i++) {
        struct thr_record_head record;
        const uint8_t *group;
        uint64_t seq;
        size_t bytes;

        if ((rc = thr_piece_open(&scan, scan.numbers[i], &piece)) != SQLITE_OK || piece.at == NULL)
            continue;
        seq = piece.head.first_seq;
        for (uint64_t at = piece.head.records_at;
             rc == SQLITE_OK && thr_record_check(piece.at + at, piece.bytes - at, piece.head.salt, seq);
             at += record.bytes, seq++) {
            memcpy(&record, piece.at + at, sizeof record);
            if ((record.flags & THR_RECORD_GROUP) == 0 || record.decided != 0 ||
                (group = thr_record_group(piece.at + at, &bytes)) == NULL || memcmp(group, id, 16) != 0)
                continue;
            *found_out = true;
            if (write)
                rc = decide(&scan, scan.numbers[i], at);
        }
        thr_piece_close(&piece);
    }
    thr_scan_close(&scan);
    return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc; /* no such directory: that database was recovered */
}

/* A database whose directory is held was recovered before, and has nothing of the group; or it is being recovered at this
 * moment, and our log must stay until that is done. It must stay as well if the other one cannot be told. */
static int pass_on_patiently(const char *directory, const uint8_t *id)
{
    uint64_t began_ns = thr_os_now_ns();
    struct thr_home home;
    bool found = false;
    int rc;

    while ((rc = thr_home_take(directory, 0600, &home)) == SQLITE_BUSY) {
        if (pass_on_to(directory, id, false, &found) == SQLITE_OK && !found)
            return SQLITE_OK;
        if (thr_os_now_ns() - began_ns > PATIENCE_NS) {
            thr_log(SQLITE_BUSY, "throng: %s waits for a commit of this database, and is in use", directory);
            return SQLITE_BUSY;
        }
        thr_os_sleep_ns(PAUSE_NS);
    }
    if (rc == SQLITE_OK) {
        rc = pass_on_to(directory, id, true, &found);
        thr_home_let_go(&home, true);
    } else if (pass_on_to(directory, id, false, &found) == SQLITE_OK && !found) {
        rc = SQLITE_OK; /* it was recovered, or has nothing to be told */
    }
    if (rc != SQLITE_OK)
        thr_log(rc, "throng: %s waits for a commit of this database, and cannot be written", directory);
    return rc;
}

static int pass_on_record(void *ctx, const uint8_t *record, const struct thr_record_head *head)
{
    struct thr_group_head group_head;
    const uint8_t *group;
    const char *path;
    size_t bytes;
    int rc = SQLITE_OK;

    (void)ctx;
    if ((head->flags & THR_RECORD_GROUP) == 0 || head->decided == 0 ||
        (group = thr_record_group(record, &bytes)) == NULL || bytes <= sizeof group_head)
        return SQLITE_OK;
    memcpy(&group_head, group, sizeof group_head);
    for (uint32_t i = 1;
         rc == SQLITE_OK && group_head.coordinator != 0 && (path = thr_group_path(group, bytes, i)) != NULL; i++)
        rc = pass_on_patiently(path, group_head.id);
    return rc;
}

int thr_scan_pass_on(const struct thr_scan *scan)
{
    return thr_scan_each(scan, search_begin, pass_on_record, NULL, true);
}
