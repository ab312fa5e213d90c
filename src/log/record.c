/* SPDX-License-Identifier: MIT */
#include "record.h"

#include <sqlite3.h>
#include <string.h>
#include <xxhash.h>

#include "../os/assert.h"
#include "../os/os.h"

enum { BODY_AT = sizeof(struct thr_record_head), GAP_WORDS = 2 };
static const size_t MEMORY_MAX = (size_t)4 << 20;

_Static_assert(sizeof(struct thr_record_head) == 88, "a file format");

struct change_head {
    uint32_t pgno;
    uint16_t flags;
    uint16_t ranges;
};

struct range {
    uint16_t offset8;
    uint16_t length8;
};

void thr_record_init(struct thr_record *record, const char *scratch_path)
{
    memset(record, 0, sizeof *record);
    record->scratch_fd = -1;
    record->scratch_path = scratch_path;
}

void thr_record_free(struct thr_record *record)
{
    if (record->scratch_fd >= 0) {
        thr_os_unmap(record->at, record->capacity);
        thr_os_close(record->scratch_fd);
    } else {
        thr_os_free(record->at);
    }
    thr_record_init(record, record->scratch_path);
}

/* Go on in a file of `capacity` bytes. It is unlinked at once: nobody else is to see it. */
static int move_to_file(struct thr_record *record, size_t capacity)
{
    void *at = NULL;
    int fd = record->scratch_fd, rc;

    if (fd < 0 &&
        (rc = thr_os_open(record->scratch_path, THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL | THR_OPEN_INSIDE,
                          0600, &fd, NULL)) != SQLITE_OK)
        return rc;
    if (record->scratch_fd < 0)
        thr_os_unlink(record->scratch_path);
    if ((rc = thr_os_allocate(fd, 0, (int64_t)capacity)) != SQLITE_OK ||
        (rc = thr_os_map(fd, capacity, true, &at)) != SQLITE_OK) {
        if (record->scratch_fd < 0)
            thr_os_close(fd);
        return rc;
    }
    if (record->scratch_fd < 0) {
        memcpy(at, record->at, record->bytes);
        thr_os_free(record->at);
    } else {
        thr_os_unmap(record->at, record->capacity);
    }
    record->scratch_fd = fd;
    record->at = at;
    record->capacity = capacity;
    return SQLITE_OK;
}

static int make_room(struct thr_record *record, size_t more)
{
    size_t capacity = record->capacity > 0 ? record->capacity : 16384;
    void *at;

    if (record->bytes + more <= record->capacity)
        return SQLITE_OK;
    while (capacity < record->bytes + more)
        capacity *= 2;
    if (capacity > MEMORY_MAX)
        return move_to_file(record, capacity);
    if ((at = thr_os_realloc(record->at, capacity)) == NULL)
        return SQLITE_NOMEM;
    record->at = at;
    record->capacity = capacity;
    return SQLITE_OK;
}

struct thr_record_head *thr_record_head(struct thr_record *record)
{
    return (struct thr_record_head *)(void *)record->at;
}

static void append(struct thr_record *record, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(record->at + record->bytes, from, bytes);
    record->bytes += bytes;
}

static void pad(struct thr_record *record)
{
    while (record->bytes % 8 != 0)
        record->at[record->bytes++] = 0;
}

int thr_record_begin(struct thr_record *record, const uint32_t *taken, uint32_t taken_count, const uint32_t *freed,
                     uint32_t freed_count, const void *group, size_t group_bytes)
{
    size_t lists = ((size_t)taken_count + freed_count) * sizeof(uint32_t);
    struct thr_record_head *head;
    uint64_t size = group_bytes;
    int rc;

    if (record->scratch_fd >= 0)
        thr_record_free(record); /* the last one was large; this one need not be */
    record->bytes = 0;
    if ((rc = make_room(record, BODY_AT + lists + group_bytes + 32)) != SQLITE_OK)
        return rc;
    memset(record->at, 0, BODY_AT);
    record->bytes = BODY_AT;
    head = thr_record_head(record);
    head->magic = THR_RECORD_MAGIC;
    head->taken_count = taken_count;
    head->freed_count = freed_count;
    append(record, taken, taken_count * sizeof(uint32_t));
    append(record, freed, freed_count * sizeof(uint32_t));
    pad(record);
    if (group != NULL) {
        head->flags |= THR_RECORD_GROUP;
        append(record, &size, sizeof size);
        append(record, group, group_bytes);
        pad(record);
    }
    return SQLITE_OK;
}

static const uint8_t ZEROS[64];

/* GCC's and Clang's vectors, as wide as every x86-64 and arm64 has them. */
typedef uint64_t two_words __attribute__((vector_size(16), aligned(1), may_alias));

/* Do the 64 bytes differ? Nearly all blocks do not, so this is what the time goes into. */
static inline bool block_differs(const uint8_t *before, const uint8_t *now)
{
    const two_words *a = (const two_words *)(const void *)before, *b = (const two_words *)(const void *)now;
    two_words any = (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]);

    return (any[0] | any[1]) != 0;
}

/* Which of the eight words of a 64-byte block differ, as a bit mask. */
static inline uint32_t block_mask(const uint8_t *before, const uint8_t *now)
{
    uint64_t a[8], b[8];
    uint32_t mask = 0;

    if (__builtin_expect(!block_differs(before, now), 1))
        return 0;
    memcpy(a, before, sizeof a);
    memcpy(b, now, sizeof b);
    for (int i = 0; i < 8; i++)
        mask |= (uint32_t)(a[i] != b[i]) << i;
    return mask;
}

/* Find the ranges of words that differ; those with a gap of up to GAP_WORDS between them become one. */
static uint32_t find_ranges(const uint8_t *before, const uint8_t *now, uint32_t page_size, struct range *ranges)
{
    uint32_t count = 0, words = page_size / 8;
    int64_t last = INT32_MIN; /* last differing word */

    for (uint32_t word = 0; word < words; word += 8) {
        uint32_t mask = block_mask(before == NULL ? ZEROS : before + word * 8, now + word * 8);

        while (mask != 0) {
            uint32_t at = word + (uint32_t)__builtin_ctz(mask);

            mask &= mask - 1;
            if (count > 0 && (int64_t)at - last <= GAP_WORDS + 1) {
                ranges[count - 1].length8 = (uint16_t)(at + 1 - ranges[count - 1].offset8);
            } else {
                ranges[count].offset8 = (uint16_t)at;
                ranges[count].length8 = 1;
                count++;
            }
            last = at;
        }
    }
    return count;
}

int thr_record_change(struct thr_record *record, uint32_t pgno, const uint8_t *before, const uint8_t *now,
                      uint32_t page_size, bool *changed_out)
{
    struct range ranges[65536 / 8 / (GAP_WORDS + 2) + 1];
    struct change_head head = {pgno, before == NULL, 0};
    uint32_t count = find_ranges(before, now, page_size, ranges);
    int rc;

    *changed_out = count > 0 || before == NULL;
    if (!*changed_out)
        return SQLITE_OK;
    if ((rc = make_room(record, sizeof head + count * sizeof(struct range) + page_size + 16)) != SQLITE_OK)
        return rc;
    head.ranges = (uint16_t)count;
    append(record, &head, sizeof head);
    append(record, ranges, count * sizeof(struct range));
    pad(record);
    for (uint32_t i = 0; i < count; i++)
        append(record, now + ranges[i].offset8 * 8u, ranges[i].length8 * 8u);
    thr_record_head(record)->change_count++;
    return SQLITE_OK;
}

int thr_record_finish(struct thr_record *record)
{
    struct thr_record_head *head = thr_record_head(record);

    THR_ASSERT(record->bytes % 8 == 0);
    head->bytes = record->bytes;
    head->body_hash = XXH3_64bits(record->at + BODY_AT, record->bytes - BODY_AT);
    return SQLITE_OK;
}

void thr_record_seal(const struct thr_record *record, uint64_t seq, uint64_t salt, uint8_t *to)
{
    struct thr_record_head head;

    memcpy(&head, record->at, sizeof head);
    head.seq = seq;
    head.salt = salt;
    head.head_hash = XXH3_64bits(&head, offsetof(struct thr_record_head, head_hash));
    memcpy(to + sizeof head, record->at + sizeof head, record->bytes - sizeof head);
    memcpy(to, &head, sizeof head);
}

bool thr_record_check(const uint8_t *at, size_t room, uint64_t salt, uint64_t seq)
{
    struct thr_record_head head;

    if (room < sizeof head)
        return false;
    memcpy(&head, at, sizeof head);
    return head.magic == THR_RECORD_MAGIC && head.salt == salt && head.seq == seq && head.bytes >= sizeof head &&
           head.bytes <= room && head.bytes % 8 == 0 &&
           head.head_hash == XXH3_64bits(&head, offsetof(struct thr_record_head, head_hash)) &&
           head.body_hash == XXH3_64bits(at + BODY_AT, head.bytes - BODY_AT) && head.page_size >= 512 &&
           head.page_size <= 65536 && (head.page_size & (head.page_size - 1)) == 0 &&
           BODY_AT + ((uint64_t)head.taken_count + head.freed_count) * sizeof(uint32_t) <= head.bytes;
}

static size_t lists_end(const struct thr_record_head *head)
{
    return (BODY_AT + ((size_t)head->taken_count + head->freed_count) * sizeof(uint32_t) + 7) & ~(size_t)7;
}

const uint32_t *thr_record_taken(const uint8_t *at)
{
    return (const uint32_t *)(const void *)(at + BODY_AT);
}

const uint32_t *thr_record_freed(const uint8_t *at)
{
    struct thr_record_head head;

    memcpy(&head, at, sizeof head);
    return thr_record_taken(at) + head.taken_count;
}

const uint8_t *thr_record_group(const uint8_t *at, size_t *bytes_out)
{
    struct thr_record_head head;
    uint64_t size;
    size_t from;

    memcpy(&head, at, sizeof head);
    from = lists_end(&head);
    if ((head.flags & THR_RECORD_GROUP) == 0 || from + sizeof size > head.bytes)
        return NULL;
    memcpy(&size, at + from, sizeof size);
    if (size > head.bytes - from - sizeof size)
        return NULL;
    *bytes_out = (size_t)size;
    return at + from + sizeof size;
}

/* The changes of one page, from `from` on. Returns where they end, or 0 if they make no sense. */
static size_t apply_change(const uint8_t *at, size_t from, const struct thr_record_head *record,
                           int (*fn)(void *, uint32_t, bool, uint32_t, const uint8_t *, uint32_t), void *ctx,
                           int *rc_out)
{
    struct change_head head;
    struct range range;
    size_t bytes_at;

    if (from + sizeof head > record->bytes)
        return 0;
    memcpy(&head, at + from, sizeof head);
    bytes_at = (from + sizeof head + head.ranges * sizeof range + 7) & ~(size_t)7;
    if (head.pgno == 0 || head.pgno > record->page_count || bytes_at > record->bytes)
        return 0;
    if ((head.flags & 1) != 0 && (*rc_out = fn(ctx, head.pgno, true, 0, NULL, 0)) != SQLITE_OK)
        return bytes_at;
    for (uint32_t i = 0; i < head.ranges; i++) {
        memcpy(&range, at + from + sizeof head + i * sizeof range, sizeof range);
        if ((range.offset8 + (uint32_t)range.length8) * 8u > record->page_size ||
            bytes_at + range.length8 * 8u > record->bytes)
            return 0;
        *rc_out = fn(ctx, head.pgno, false, range.offset8 * 8u, at + bytes_at, range.length8 * 8u);
        if (*rc_out != SQLITE_OK)
            return bytes_at;
        bytes_at += range.length8 * 8u;
    }
    return bytes_at;
}

int thr_record_each(const uint8_t *at,
                    int (*fn)(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes,
                              uint32_t range_bytes),
                    void *ctx)
{
    struct thr_record_head head;
    size_t from, group_bytes;
    const uint8_t *group;
    int rc = SQLITE_OK;

    memcpy(&head, at, sizeof head);
    from = lists_end(&head);
    if ((head.flags & THR_RECORD_GROUP) != 0) {
        if ((group = thr_record_group(at, &group_bytes)) == NULL)
            return SQLITE_CORRUPT;
        from = ((size_t)(group - at) + group_bytes + 7) & ~(size_t)7;
    }
    for (uint32_t i = 0; i < head.change_count; i++) {
        if ((from = apply_change(at, from, &head, fn, ctx, &rc)) == 0)
            return SQLITE_CORRUPT;
        if (rc != SQLITE_OK)
            return rc;
    }
    return SQLITE_OK;
}
