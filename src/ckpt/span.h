/* What a file in use says of itself, so that it is never put together with a log that does not fit.
 *
 * While commits may be missing in the file it is marked (page1.h), and page 1 carries the span, in one sector:
 *
 *   off size field, from byte 72 of page 1
 *     0    6 identity  of the directory with its log; 0: written by version 0.1.0, which knew of none
 *     6    6 low       every page holds at least what commit `low` made of it
 *    12    6 high      no page holds anything newer than commit `high`
 *    18    2 check     low bits of the XXH3 of the 18 bytes before
 *
 * Bytes 28..31 are then the pages that the file has as of `low`; 0 in the first page that stands in for a database
 * without one.
 *
 * A program that copies the file from front to back may have read page 1 before a cycle began, and other pages
 * after. So a sector past the last page, the trailer, says `high` once more. It is no part of the database:
 *
 *   off size field
 *     0    8 magic     "ThrgEnd1"
 *     8    8 identity
 *    16    8 high
 *    24    8 bytes     of the database before
 *    32    8 hash      XXH3 of the 32 bytes before
 *    40  472 zeros
 *
 * A higher `high` is written to the trailer, then to page 1, and then come the pages; when the file grows, the trailer is
 * written behind its new end first and wiped out where it was. So the last sector that the copying program gets is a
 * trailer that covers all it has read, or no trailer. `low` is written when all pages are. A process may die anywhere in
 * between: the log has all commits after `low`, up to `high` at least.
 *
 * Everything here: checkpoint_lock, or alone. SQLITE_OK, SQLITE_FULL, SQLITE_IOERR_*.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SPAN_H
#define THR_SPAN_H

#include "../base/base.h"

/* An identity has so many bits. */
#define THR_IDENTITY_MASK ((UINT64_C(1) << 48) - 1)

/* What was found in a file, with the trailer's word taken into account. */
struct thr_span_found {
    bool marked, damaged; /* damaged: the check does not fit */
    bool blank;           /* it was empty, and of its mark nothing has reached the disk but the room: zeros */
    bool has_trailer;     /* of this identity, where the file ends; without a mark: of any */
    struct thr_span span;
    uint32_t page_size, page_count;
    int64_t bytes; /* of the file without the trailer */
};

/* The file as a process left it: base->bytes is all of it. */
int thr_span_read(struct thr_base *base, struct thr_span_found *out);
/* Mark the file: it holds commit `seq`. A file without a byte gets a first page of 512 bytes, as nobody knows the page size
 * yet: stock SQLite refuses it, and for the rest of the engine the file is empty until a cycle writes pages. */
int thr_span_mark(struct thr_base *base, uint64_t identity, uint64_t seq, uint32_t page_size);
/* Before pages as of commit `high` are written, up to `end` bytes. */
int thr_span_raise(struct thr_base *base, uint64_t high, int64_t end);
/* All pages, of which there are `page_count`, are at `low` or later. */
int thr_span_settle(struct thr_base *base, uint64_t low, uint32_t page_count);
/* The file ends at `bytes` from now on, and stays in use. */
int thr_span_cut(struct thr_base *base, int64_t bytes);
/* The file is complete, with `bytes` of them: nothing of all this is left in it. May be repeated. */
int thr_span_end(struct thr_base *base, int64_t bytes);

#endif
