/* SPDX-License-Identifier: MIT */
#include "mutate.h"

#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "log.h"
#include "record.h"
#include "seal.h"

enum { RECORDS_MAX = 256 };

static uint64_t state;

static uint32_t below(uint32_t limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

/* A number that may be one too many for somebody. */
static uint64_t odd_number(uint64_t now)
{
    static const uint64_t NUMBERS[] = {0,          1,          2,          3,          8,          512,
                                       1024,       65536,      131072,     0x3ffffffe, 0x3fffffff, 0x40000000,
                                       0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, UINT64_MAX, INT64_MAX};

    switch (below(5)) {
    case 0:
        return NUMBERS[below(sizeof NUMBERS / sizeof *NUMBERS)];
    case 1:
        return now + 1;
    case 2:
        return now - 1;
    case 3:
        return now ^ UINT64_C(1) << below(64);
    default:
        return below(64);
    }
}

static void odd_field(uint8_t *at, size_t offset, size_t size)
{
    uint64_t now = 0;

    memcpy(&now, at + offset, size);
    now = odd_number(now);
    memcpy(at + offset, &now, size);
}

#define FIELD(type, field)                                \
    {                                                     \
        offsetof(type, field), sizeof(((type *)0)->field) \
    }

static void change_head(uint8_t *segment)
{
    static const struct {
        size_t offset, size;
    } FIELDS[] = {FIELD(struct thr_segment_head, page_size),  FIELD(struct thr_segment_head, number),
                  FIELD(struct thr_segment_head, first_seq),  FIELD(struct thr_segment_head, page_count),
                  FIELD(struct thr_segment_head, format),     FIELD(struct thr_segment_head, change_base),
                  FIELD(struct thr_segment_head, run_count),  FIELD(struct thr_segment_head, salt),
                  FIELD(struct thr_segment_head, records_at), FIELD(struct thr_segment_head, version)};
    uint32_t i = below(sizeof FIELDS / sizeof *FIELDS);

    odd_field(segment, FIELDS[i].offset, FIELDS[i].size);
}

static void change_record_head(uint8_t *record)
{
    static const struct {
        size_t offset, size;
    } FIELDS[] = {FIELD(struct thr_record_head, flags),       FIELD(struct thr_record_head, bytes),
                  FIELD(struct thr_record_head, seq),         FIELD(struct thr_record_head, page_size),
                  FIELD(struct thr_record_head, page_count),  FIELD(struct thr_record_head, change_count),
                  FIELD(struct thr_record_head, taken_count), FIELD(struct thr_record_head, freed_count),
                  FIELD(struct thr_record_head, format),      FIELD(struct thr_record_head, decided),
                  FIELD(struct thr_record_head, reserved)};
    uint32_t i = below(sizeof FIELDS / sizeof *FIELDS);

    odd_field(record, FIELDS[i].offset, FIELDS[i].size);
}

/* Put `bytes` at `from` in the place of those of [at, end). Returns the segment's new size, the old one if it does not
 * fit. */
static size_t splice(uint8_t *segment, size_t bytes, size_t room, size_t at, size_t end, const uint8_t *from,
                     size_t from_bytes)
{
    if (bytes - (end - at) + from_bytes > room)
        return bytes;
    memmove(segment + at + from_bytes, segment + end, bytes - end);
    if (from_bytes > 0)
        memcpy(segment + at, from, from_bytes);
    return bytes - (end - at) + from_bytes;
}

/* Let libFuzzer loose on the bytes behind a record's head. */
static size_t change_body(uint8_t *segment, size_t bytes, size_t room, size_t at, size_t end)
{
    const size_t head = sizeof(struct thr_record_head);
    size_t body_bytes = end - at - head, body_room = body_bytes + (room - bytes);
    uint64_t record_bytes;
    uint8_t *body = calloc(1, body_room + 8);

    if (body == NULL)
        return bytes;
    memcpy(body, segment + at + head, body_bytes);
    if (body_bytes >= 4 && below(2) == 0) { /* a number of a list, or of a change */
        odd_field(body, below((uint32_t)body_bytes / 4) * 4, below(2) == 0 ? 2 : 4);
    } else {
        body_bytes = LLVMFuzzerMutate(body, body_bytes, body_room > 0 ? body_room : 1);
        if (body_bytes % 8 != 0)
            body_bytes = body_bytes + 8 <= body_room ? (body_bytes + 7) & ~(size_t)7 : body_bytes & ~(size_t)7;
    }
    record_bytes = head + body_bytes;
    memcpy(segment + at + offsetof(struct thr_record_head, bytes), &record_bytes, sizeof record_bytes);
    bytes = splice(segment, bytes, room, at + head, end, body, body_bytes);
    free(body);
    return bytes;
}

static size_t change_runs(uint8_t *segment, size_t bytes, size_t room)
{
    struct thr_segment_head head;
    struct thr_page_run runs[24]; /* 16, and zeros up to where records may begin */
    size_t from = sizeof head, to = seal_records_at(segment, bytes), now;

    memcpy(&head, segment, sizeof head);
    if (head.run_count > 0 && to - from >= sizeof *runs && below(2) == 0) {
        odd_field(segment, from + below((uint32_t)(to - from) / 4) * 4, 4);
        return bytes;
    }
    memset(runs, 0, sizeof runs);
    head.run_count = below(16);
    for (uint32_t i = 0; i < head.run_count; i++)
        runs[i] = (struct thr_page_run){2 + below(head.page_count % 256 + 2), 1 + below(4)};
    now = (from + head.run_count * sizeof *runs + 63) & ~(size_t)63;
    if (bytes - (to - from) + (now - from) > room)
        return bytes;
    memcpy(segment, &head, sizeof head);
    return splice(segment, bytes, room, from, to, (const uint8_t *)runs, now - from);
}

static size_t change_segment(uint8_t *segment, size_t bytes, size_t room)
{
    size_t at[RECORDS_MAX + 1] = {0}, end, count = 0;
    uint32_t i;

    if (bytes < sizeof(struct thr_segment_head))
        return LLVMFuzzerMutate(segment, bytes, room);
    at[0] = seal_records_at(segment, bytes);
    while (count < RECORDS_MAX && (end = seal_record_end(segment, bytes, at[count])) != 0)
        at[++count] = end;
    i = count > 0 ? below((uint32_t)count) : 0;
    switch (below(count > 0 ? 12 : 3)) {
    case 0:
        change_head(segment);
        return bytes;
    case 1:
        return change_runs(segment, bytes, room);
    case 2:
        return LLVMFuzzerMutate(segment, bytes, room);
    case 3: /* once more */
        return splice(segment, bytes, room, at[i], at[i], segment + at[i], at[i + 1] - at[i]);
    case 4: /* not at all */
        return splice(segment, bytes, room, at[i], at[i + 1], NULL, 0);
    case 5:
    case 6:
    case 7:
        change_record_head(segment + at[i]);
        return bytes;
    default:
        return change_body(segment, bytes, room, at[i], at[i + 1]);
    }
}

static void seal_all(uint8_t *input, size_t bytes)
{
    struct archive_entry entry;
    bool keep_order = below(8) != 0;

    for (size_t at = 0; archive_next(input, bytes, &at, &entry);) {
        uint8_t *copy;

        if (entry.kind != ARCHIVE_LOG && entry.kind != ARCHIVE_OTHER)
            continue;
        if ((copy = malloc(entry.bytes + 1)) == NULL) /* the input's own place is not aligned */
            return;
        memcpy(copy, input + entry.at, entry.bytes);
        if (strcmp(entry.name, "horizon") == 0)
            seal_horizon(copy, entry.bytes);
        else
            seal_segment(copy, entry.bytes, keep_order);
        memcpy(input + entry.at, copy, entry.bytes);
        free(copy);
    }
}

size_t mutate_segments(uint8_t *input, size_t bytes, size_t room, unsigned seed)
{
    struct archive_entry entries[ARCHIVE_ENTRIES_MAX], *entry;
    uint32_t count = 0, rounds;
    size_t at = 0, content_bytes, content_room;
    uint8_t *content;

    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    if (below(16) == 0)
        return LLVMFuzzerMutate(input, bytes, room);
    rounds = 1 + below(3);
    for (uint32_t round = 0; round < rounds; round++) {
        count = 0;
        for (at = 0; count < ARCHIVE_ENTRIES_MAX && archive_next(input, bytes, &at, &entries[count]);)
            count++;
        if (count == 0)
            return LLVMFuzzerMutate(input, bytes, room);
        entry = &entries[below(count)];
        content_room = room - (bytes - entry->bytes);
        if ((content = calloc(1, content_room + 1)) == NULL)
            return bytes;
        memcpy(content, input + entry->at, entry->bytes);
        if ((entry->kind == ARCHIVE_LOG || entry->kind == ARCHIVE_OTHER) && strncmp(entry->name, "log-", 4) == 0)
            content_bytes = change_segment(content, entry->bytes, content_room);
        else
            content_bytes = LLVMFuzzerMutate(content, entry->bytes, content_room > 0 ? content_room : 1);
        if (content_bytes > content_room)
            content_bytes = content_room;
        bytes = archive_replace(input, bytes, room, entry, content, content_bytes);
        free(content);
    }
    if (below(16) != 0)
        seal_all(input, bytes);
    return bytes;
}
