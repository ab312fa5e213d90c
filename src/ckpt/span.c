/* SPDX-License-Identifier: MIT */
#include "span.h"

#include <sqlite3.h>
#include <string.h>
#include <xxhash.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "../txn/page1.h"

enum { TRAILER_BYTES = 512, SPAN_HASHED = 18, STAND_IN_BYTES = 512 };

struct trailer {
    char magic[8];
    uint64_t identity;
    uint64_t high;
    int64_t bytes;
    uint64_t hash;
    uint8_t zeros[TRAILER_BYTES - 40];
};

_Static_assert(sizeof(struct trailer) == TRAILER_BYTES, "a file format");

static void put48(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 6; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get48(const uint8_t *from)
{
    uint64_t value = 0;

    for (int i = 0; i < 6; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static void encode(const struct thr_span *span, uint8_t *to)
{
    uint64_t hash;

    THR_ASSERT(span->low <= span->high && span->high <= THR_IDENTITY_MASK);
    put48(to, span->identity);
    put48(to + 6, span->low);
    put48(to + 12, span->high);
    hash = XXH3_64bits(to, SPAN_HASHED);
    to[SPAN_HASHED] = (uint8_t)hash;
    to[SPAN_HASHED + 1] = (uint8_t)(hash >> 8);
}

/* False: these bytes are no span. */
static bool decode(const uint8_t *from, struct thr_span *span)
{
    static const uint8_t NONE[THR_P1_SPAN_BYTES];
    uint64_t hash = XXH3_64bits(from, SPAN_HASHED);

    memset(span, 0, sizeof *span);
    if (memcmp(from, NONE, sizeof NONE) == 0)
        return true; /* version 0.1.0 */
    span->identity = get48(from);
    span->low = get48(from + 6);
    span->high = get48(from + 12);
    return from[SPAN_HASHED] == (uint8_t)hash && from[SPAN_HASHED + 1] == (uint8_t)(hash >> 8) &&
           span->low <= span->high;
}

static int trailer_write(const struct thr_base *base, const struct thr_span *span)
{
    struct trailer trailer = {.magic = {'T', 'h', 'r', 'g', 'E', 'n', 'd', '1'}};

    trailer.identity = span->identity;
    trailer.high = span->high;
    trailer.bytes = atomic_load_explicit(&base->bytes, memory_order_relaxed);
    trailer.hash = XXH3_64bits(&trailer, offsetof(struct trailer, hash));
    return thr_os_write(base->fd, &trailer, sizeof trailer, span->trailer_at);
}

static bool trailer_read(const struct thr_base *base, int64_t at, struct trailer *trailer)
{
    size_t got = 0;

    return at >= 0 && thr_os_read(base->fd, trailer, sizeof *trailer, at, &got) == SQLITE_OK &&
           got == sizeof *trailer && memcmp(trailer->magic, "ThrgEnd1", 8) == 0 && trailer->bytes >= 0 &&
           trailer->bytes <= at && trailer->hash == XXH3_64bits(trailer, offsetof(struct trailer, hash));
}

static bool is_database(const uint8_t *page1)
{
    uint32_t page_size = thr_page1_page_size(page1);

    return memcmp(page1, "SQLite format 3", 16) == 0 && page_size >= 512 && page_size <= 65536 &&
           (page_size & (page_size - 1)) == 0;
}

/* A file of zeros, no longer than the stand-in of a first page and its trailer: it was empty, and of the mark that it was
 * given nothing has reached the disk but the room. */
static int is_blank(const struct thr_base *base, int64_t bytes, bool *out)
{
    uint8_t all[STAND_IN_BYTES + TRAILER_BYTES];
    size_t got = 0;
    int rc = SQLITE_OK;

    *out = bytes > 0 && bytes <= (int64_t)sizeof all;
    if (*out && (rc = thr_os_read(base->fd, all, (size_t)bytes, 0, &got)) != SQLITE_OK)
        return rc;
    for (size_t i = 0; i < got && *out; i++)
        *out = all[i] == 0;
    return SQLITE_OK;
}

int thr_span_read(struct thr_base *base, struct thr_span_found *out)
{
    uint8_t page1[THR_P1_HEADER] = {0};
    int64_t bytes = atomic_load_explicit(&base->bytes, memory_order_relaxed), at = bytes - TRAILER_BYTES;
    struct trailer trailer;
    size_t got = 0;
    int rc;

    memset(out, 0, sizeof *out);
    if ((rc = is_blank(base, bytes, &out->blank)) != SQLITE_OK ||
        (rc = thr_os_read(base->fd, page1, sizeof page1, 0, &got)) != SQLITE_OK)
        return rc;
    out->bytes = out->blank ? 0 : bytes;
    if (got == sizeof page1 && is_database(page1)) {
        out->page_size = thr_page1_page_size(page1);
        out->page_count = thr_get32(page1 + THR_P1_SIZE);
        out->marked = (page1[THR_P1_MARK_AT] & THR_P1_MARK) != 0;
        out->damaged = out->marked && !decode(page1 + THR_P1_SPAN, &out->span);
    }
    if (!trailer_read(base, at, &trailer) || (out->marked && trailer.identity != out->span.identity))
        return SQLITE_OK;
    out->has_trailer = true;
    out->bytes = out->marked ? at : trailer.bytes; /* without a mark: the one that was about to be set */
    out->span.identity = trailer.identity;
    out->span.trailer_at = at;
    if (trailer.high > out->span.high)
        out->span.high = trailer.high;
    return SQLITE_OK;
}

/* The span in page 1, and nothing else of it. */
static int span_write(const struct thr_base *base, const struct thr_span *span)
{
    uint8_t at[THR_P1_SPAN_BYTES];

    encode(span, at);
    return thr_os_write(base->fd, at, sizeof at, THR_P1_SPAN);
}

int thr_span_mark(struct thr_base *base, uint64_t identity, uint64_t seq, uint32_t page_size)
{
    uint8_t page1[THR_P1_HEADER] = "SQLite format 3";
    int64_t bytes = atomic_load_explicit(&base->bytes, memory_order_relaxed);
    struct thr_span span = {.identity = identity, .low = seq, .high = seq, .trailer_at = STAND_IN_BYTES};
    uint32_t from = 0;
    size_t got;
    int rc;

    THR_ASSERT(bytes == 0 || page_size >= STAND_IN_BYTES);
    if (bytes > 0)
        span.trailer_at = (bytes + page_size - 1) / page_size * page_size;
    if (bytes > 0) {
        if ((rc = thr_os_read(base->fd, page1, sizeof page1, 0, &got)) != SQLITE_OK)
            return rc;
        from = THR_P1_MARK_AT;
        if (thr_get32(page1 + THR_P1_SIZE) == 0 ||
            thr_get32(page1 + THR_P1_VALID_FOR) != thr_get32(page1 + THR_P1_CHANGES)) /* before 3.7.0 */
            thr_put32(page1 + THR_P1_SIZE, (uint32_t)(span.trailer_at / page_size));
    } else {
        page1[THR_P1_PAGE_SIZE] = STAND_IN_BYTES >> 8;
        memset(page1 + THR_P1_VERSIONS, 1, 2);
        memcpy(page1 + THR_P1_RESERVED + 1, "\100\040\040", 3);
    }
    page1[THR_P1_MARK_AT] |= THR_P1_MARK;
    encode(&span, page1 + THR_P1_SPAN);
    base->span = span; /* also if one of the writes fails: thr_span_end() is to undo what it has done */
    if ((rc = trailer_write(base, &span)) != SQLITE_OK)
        return rc;
    THR_POINT("mark-trailer");
    return thr_os_write(base->fd, page1 + from, THR_P1_VALID_FOR - from, from); /* one sector: all of it or nothing */
}

int thr_span_raise(struct thr_base *base, uint64_t high, int64_t end)
{
    static const uint8_t ZEROS[TRAILER_BYTES];
    struct thr_span span = base->span;
    int rc;

    THR_ASSERT(span.identity != 0);
    if (high <= span.high && end <= span.trailer_at)
        return SQLITE_OK;
    span.high = high > span.high ? high : span.high;
    span.trailer_at = end > span.trailer_at ? end : span.trailer_at;
    if ((rc = trailer_write(base, &span)) != SQLITE_OK)
        return rc;
    THR_POINT("span-trailer");
    if (base->span.trailer_at != 0 && span.trailer_at >= base->span.trailer_at + TRAILER_BYTES &&
        (rc = thr_os_write(base->fd, ZEROS, sizeof ZEROS, base->span.trailer_at)) != SQLITE_OK)
        return rc;
    base->span.trailer_at = span.trailer_at;
    if ((rc = span_write(base, &span)) == SQLITE_OK)
        base->span = span;
    THR_POINT("span-raised");
    return rc;
}

int thr_span_settle(struct thr_base *base, uint64_t low, uint32_t page_count)
{
    struct thr_span span = base->span;
    uint8_t size[4];
    int rc;

    THR_ASSERT(low >= span.low && low <= span.high);
    span.low = low;
    thr_put32(size, page_count);
    if ((rc = thr_os_write(base->fd, size, sizeof size, THR_P1_SIZE)) == SQLITE_OK &&
        (rc = span_write(base, &span)) == SQLITE_OK)
        base->span = span;
    return rc;
}

int thr_span_cut(struct thr_base *base, int64_t bytes)
{
    int rc;

    base->span.trailer_at = bytes;
    if ((rc = trailer_write(base, &base->span)) != SQLITE_OK)
        return rc;
    THR_POINT("cut-trailer");
    rc = thr_os_truncate(base->fd, bytes + TRAILER_BYTES);
    THR_POINT("cut-off");
    if (rc == SQLITE_OK)
        atomic_store_explicit(&base->bytes, bytes, memory_order_release); /* pairs with thr_base_read() */
    return rc;
}

int thr_span_end(struct thr_base *base, int64_t bytes)
{
    uint8_t page1[THR_P1_HEADER] = {0};
    size_t got = 0;
    int rc = thr_base_truncate(base, bytes);

    base->span = (struct thr_span){0};
    THR_POINT("span-ends");
    if (rc != SQLITE_OK || (rc = thr_os_read(base->fd, page1, sizeof page1, 0, &got)) != SQLITE_OK ||
        got < sizeof page1)
        return rc;
    return thr_page1_unmark(page1)
               ? thr_os_write(base->fd, page1 + THR_P1_MARK_AT, THR_P1_VALID_FOR - THR_P1_MARK_AT, THR_P1_MARK_AT)
               : SQLITE_OK;
}
