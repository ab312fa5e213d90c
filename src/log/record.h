/* One commit as the redo log holds it.
 *
 *   off size field
 *     0    4 magic          0x63655254 ("TRec")
 *     4    4 flags          THR_RECORD_*
 *     8    8 bytes          of the whole record, a multiple of 8
 *    16    8 seq            commit sequence: one more than the record's before it
 *    24    8 salt           the segment's: a record left by an earlier use of the file has another
 *    32    8 body_hash      XXH3 of everything from offset 88 on
 *    40    4 page_size
 *    44    4 page_count     of the database after this commit
 *    48    4 change_count   pages with changed bytes
 *    52    4 taken_count    pages that were free and are not any more
 *    56    4 freed_count    pages that are free now and were not
 *    60    4 format         free list: 1 or 2 (throng.h)
 *    64    8 reserved
 *    72    8 head_hash      XXH3 of the 72 bytes before
 *    80    8 decided        1: a commit of several databases took place (group.h); in no hash
 *    88      taken_count + freed_count page numbers, 4 bytes each, padded to 8; for THR_RECORD_GROUP the group
 *            (see group.h); then the changes, each
 *              0  4 pgno
 *              4  2 flags     1: the page was of no use before; start from zeros
 *              6  2 ranges
 *              8    ranges x { 2 offset / 8, 2 length / 8 }, padded to 8, then the bytes of all ranges
 *
 * All numbers are little-endian. Applied in order to a base page of this or any later state, whole or torn, the ranges
 * end right: each names bytes, not a change to them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_RECORD_H
#define THR_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define THR_RECORD_MAGIC 0x63655254u
#define THR_RECORD_REWRITE 1u /* the free pages are exactly the freed ones of this record (VACUUM, a backup's target) */
#define THR_RECORD_RESIZE 4u  /* with REWRITE: page 1 has another page size, and the stock free list is the true one */
#define THR_RECORD_GROUP 2u   /* commits with others in other databases, or not at all */

struct thr_record_head {
    uint32_t magic;
    uint32_t flags;
    uint64_t bytes;
    uint64_t seq;
    uint64_t salt;
    uint64_t body_hash;
    uint32_t page_size;
    uint32_t page_count;
    uint32_t change_count;
    uint32_t taken_count;
    uint32_t freed_count;
    uint32_t format;
    uint64_t reserved;
    uint64_t head_hash;
    uint64_t decided;
};

/* A record being built. Small ones live in memory, from a few MiB on in a scratch file of their own, so that a
 * transaction may be larger than memory. One thread at a time. */
struct thr_record {
    uint8_t *at;
    size_t bytes, capacity;
    int scratch_fd; /* -1: `at` is memory */
    const char *scratch_path;
};

void thr_record_init(struct thr_record *record, const char *scratch_path);
void thr_record_free(struct thr_record *record);

/* Begin with the lists. SQLITE_OK, SQLITE_NOMEM, SQLITE_FULL, SQLITE_IOERR_*. `group` may be NULL. */
int thr_record_begin(struct thr_record *record, const uint32_t *taken, uint32_t taken_count, const uint32_t *freed,
                     uint32_t freed_count, const void *group, size_t group_bytes);
/* Add the difference of a page against `before` (NULL: zeros). *changed_out: whether there was one; if not, nothing
 * was added. */
int thr_record_change(struct thr_record *record, uint32_t pgno, const uint8_t *before, const uint8_t *now,
                      uint32_t page_size, bool *changed_out);
/* Finish the body: padding and hash. The head's other fields are the caller's to set before thr_record_seal(). */
int thr_record_finish(struct thr_record *record);
struct thr_record_head *thr_record_head(struct thr_record *record);
/* The sequence and salt are known: copy the whole record to `to` and hash its head. */
void thr_record_seal(const struct thr_record *record, uint64_t seq, uint64_t salt, uint8_t *to);

/* Reading. Checks everything: bytes from disk are not trusted (I8). */
/* Whether a whole, right record of this salt and sequence lies at `at` (with `room` bytes). */
bool thr_record_check(const uint8_t *at, size_t room, uint64_t salt, uint64_t seq);
/* Calls `fn` for each change of a checked record, with its ranges in turn. Stops at a non-zero result and returns it;
 * SQLITE_CORRUPT if the body makes no sense. `fn` gets range_bytes 0 with fresh true once before the ranges of a page
 * that starts from zeros. */
int thr_record_each(const uint8_t *at,
                    int (*fn)(void *ctx, uint32_t pgno, bool fresh, uint32_t offset, const uint8_t *bytes,
                              uint32_t range_bytes),
                    void *ctx);
const uint32_t *thr_record_taken(const uint8_t *at);
const uint32_t *thr_record_freed(const uint8_t *at);
/* The group of a THR_RECORD_GROUP record and its size, or NULL. */
const uint8_t *thr_record_group(const uint8_t *at, size_t *bytes_out);

#endif
