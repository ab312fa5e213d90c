/* The database file itself, as stock SQLite knows it. While it is in use it holds older versions of its pages; only
 * the checkpointer writes it (I4).
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BASE_H
#define THR_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define THR_BASE_SEGMENTS 24u

/* What the file says, while it is in use, of the commits that its pages hold (src/ckpt/span.h). */
struct thr_span {
    uint64_t identity; /* 0: it says nothing */
    uint64_t low, high;
    int64_t trailer_at; /* 0: no trailer */
};

/*   field       writer                 guard
 *   bytes       checkpointer           atomic: size of the file, without the trailer and the first page that stand for a
 *                                      file in use
 *   span        checkpointer           checkpoint_lock
 *   at          first who fetches      map_lock, then atomic: a segment stays mapped until the file is closed
 *   map_shift   first who fetches      map_lock, then atomic: log2 of the first segment's bytes; 0: none was mapped yet.
 *                                      Each segment is twice as long as the one before
 *   map_count   first who fetches      map_lock, then atomic: segments from this one on are not mapped
 *   map_failed  first who fetches      atomic: from this segment on there was no address space; 0: there was
 *   map_lock                           enum in base.c */
struct thr_base {
    int fd;
    bool writable;
    _Atomic int64_t bytes;
    struct thr_span span;
    _Atomic(uint8_t *) at[THR_BASE_SEGMENTS];
    _Atomic uint32_t map_shift, map_count, map_failed;
    _Atomic uint32_t map_lock;
};

/* Reads up to the end of the file; what lies past it reads as zeros. SQLITE_OK, SQLITE_IOERR_READ. */
int thr_base_read(struct thr_base *base, void *to, size_t bytes, int64_t offset);
/* A pointer into the file's mapping, or NULL if it cannot be had (past the end, no address space). */
const uint8_t *thr_base_fetch(struct thr_base *base, size_t bytes, int64_t offset);
/* Whether that is such a pointer. */
bool thr_base_contains(const struct thr_base *base, const void *at);
int thr_base_write(struct thr_base *base, const void *from, size_t bytes, int64_t offset);
int thr_base_truncate(struct thr_base *base, int64_t bytes);
/* Around fork(): no other thread maps the file in between. */
void thr_base_before_fork(struct thr_base *base);
void thr_base_after_fork(struct thr_base *base);
/* In the child: let go of the file, whose locks live as long as anybody has it open or mapped. Pages that somebody
 * still points to read as zeros. Async-signal-safe. */
void thr_base_abandon(struct thr_base *base);
void thr_base_close(struct thr_base *base); /* the descriptor stays open: it belongs to the caller */

#endif
