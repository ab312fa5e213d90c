/* The version heap: page versions ("frames") in the mapped file `heap`. It is never synced and never read after a
 * crash. A frame is found by its index, from 1 on; 0 is none.
 *
 * The file is a row of groups. Each begins with the headers of its frames, then come the frames themselves:
 *
 *     group size = headers (frames * 32, rounded up to 4 KiB) + frames * page size
 *
 * A header stands apart from its frame, so that walking a chain of versions touches no page data.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_HEAP_H
#define THR_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "../shm/shm.h"

/* Frame header.
 *   off size field         writer                guard
 *     0    8 seq           committer, reclaimer  atomic; FRAME_PRIVATE until published, then the commit sequence
 *     8    8 superseded    committer             atomic; sequence of the next version of the page, 0 while it is the
 *                                                newest; that version may be in the base file by now
 *    16    4 older         committer, unlinker   atomic; next older frame of the page, 0: the base file
 *    20    4 pgno          owner                 atomic; page, with FRAME_FREE if the page is free in this version
 *    24    4 garbage_next  owner                 list of superseded frames, or of free frames
 *    28    4 newer         committer, unlinker   atomic; the frame whose `older` this is, 0 while there is none;
 *                                                THR_FRAME_UNLINKED: in no chain any more. See version.c
 *
 * A reader that walks a chain may stand on a frame that is reclaimed and used again under it. It notices by `seq`,
 * which it loads before and after the rest: a frame never carries the same sequence twice, and it is made
 * FRAME_PRIVATE before anything else in it changes. */
struct thr_frame {
    _Atomic uint64_t seq;
    _Atomic uint64_t superseded;
    _Atomic uint32_t older;
    _Atomic uint32_t pgno;
    uint32_t garbage_next;
    _Atomic uint32_t newer;
};

#define THR_FRAME_PRIVATE UINT64_MAX
#define THR_FRAME_UNLINKED UINT32_MAX

#define THR_HEAP_LEAST ((uint64_t)4 << 20) /* bytes, of a limit */
#define THR_HEAP_LARGE ((uint64_t)1 << 30) /* bytes, unless there is a limit */

struct thr_heap {
    struct thr_shm *shm;
    int fd; /* -1 until the page size is known */
    uint8_t *at;
    size_t map_bytes;
    uint32_t page_size;
    uint32_t group_shift; /* log2 of frames in a group */
    uint32_t header_bytes;
    size_t group_bytes;
    uint64_t limit_bytes;         /* set before it is created; 0: as much as can be mapped */
    _Atomic uint32_t soft_frames; /* in use: more make it large */
    uint32_t frame_limit;         /* at most so many frames */
    uint32_t generation;          /* counts creations: stocks of an older one are void */
};

/* Make an empty heap for this page size in a new file. SQLITE_OK, SQLITE_NOMEM, SQLITE_FULL, SQLITE_CANTOPEN,
 * SQLITE_IOERR_*; on error nothing stays open. */
int thr_heap_create(struct thr_heap *heap, struct thr_shm *shm, const char *path, uint32_t mode, uint32_t page_size);
void thr_heap_close(struct thr_heap *heap);

/* So large that it should forget what the base file has as well. Any thread, also before it is created. */
static inline bool thr_heap_is_large(const struct thr_heap *heap)
{
    uint32_t soft = atomic_load_explicit(&heap->soft_frames, memory_order_acquire); /* pairs with thr_heap_create() */

    return soft != 0 && atomic_load_explicit(&heap->shm->head->frames_used, memory_order_relaxed) > soft;
}

static inline uint64_t thr_heap_used_bytes(const struct thr_heap *heap)
{
    return (uint64_t)atomic_load_explicit(&heap->shm->head->frames_used, memory_order_relaxed) * heap->page_size;
}

static inline struct thr_frame *thr_heap_frame(const struct thr_heap *heap, uint32_t index)
{
    uint32_t group = index >> heap->group_shift;

    return (struct thr_frame *)(void *)(heap->at + (size_t)group * heap->group_bytes) +
           (index & ((1u << heap->group_shift) - 1));
}

static inline uint8_t *thr_heap_page(const struct thr_heap *heap, uint32_t index)
{
    uint32_t group = index >> heap->group_shift;

    return heap->at + (size_t)group * heap->group_bytes + heap->header_bytes +
           (size_t)(index & ((1u << heap->group_shift) - 1)) * heap->page_size;
}

/* A connection's own stock of free frames and its superseded ones; used by the owner alone. */
struct thr_frames {
    uint32_t generation; /* of the heap that the indexes below belong to */
    uint32_t free;       /* list by garbage_next */
    uint32_t free_count;
    uint32_t young_head, young_tail; /* superseded, oldest first */
    uint32_t pinned;                 /* superseded, but the oldest snapshot still sees them */
    uint64_t pinned_floor;           /* that snapshot when `pinned` was last gone through */
};

/* Take a frame, private to the caller. Reclaims the caller's superseded frames first, then takes from the common
 * stock or extends the file. SQLITE_OK, SQLITE_FULL (disk full or heap limit), SQLITE_IOERR_*. */
int thr_frame_take(struct thr_heap *heap, struct thr_frames *own, uint32_t *index_out);
/* Give back a frame that was never published. */
void thr_frame_give(struct thr_heap *heap, struct thr_frames *own, uint32_t index);
/* `index` has been superseded by a commit of the caller. */
void thr_frame_retire(struct thr_heap *heap, struct thr_frames *own, uint32_t index);
/* Reclaim what no snapshot can see (I3). Returns how many frames became free. */
uint32_t thr_frames_reclaim(struct thr_heap *heap, struct thr_frames *own);
/* The connection goes: everything it holds goes to the common stock. */
void thr_frames_release(struct thr_heap *heap, struct thr_frames *own);

/* Forget a stock that belongs to an older heap. */
static inline void thr_frames_check(const struct thr_heap *heap, struct thr_frames *own)
{
    if (own->generation != heap->generation)
        *own = (struct thr_frames){.generation = heap->generation};
}

/* The oldest snapshot in use, or `if_none`. `pointing`: of those with pointers into the base file. */
uint64_t thr_oldest_snapshot(const struct thr_shm *shm, bool pointing, uint64_t if_none);

#define THR_SNAPSHOTS_BEFORE 64u

struct thr_snapshots {
    uint64_t seq[THR_SNAPSHOTS_BEFORE]; /* ascending, each once */
    uint32_t count;
};

/* The snapshots in use before `seq`. False: there are more. */
bool thr_snapshots_before(const struct thr_shm *shm, uint64_t seq, struct thr_snapshots *out);

/* --- version.c --- */

/* The version of `pgno` in snapshot `seq`: a frame, or 0 for the base file (I1). The snapshot must be announced in a
 * slot or as the checkpointer's. *free_out (may be NULL) says whether the page is free in that version; it is left
 * alone if the result is 0. Who has read the base file must ask again: only if the result is 0 once more was it right. */
uint32_t thr_version_find(const struct thr_heap *heap, uint32_t pgno, uint64_t seq, bool *free_out);
/* Sequence of the newest version, 0 if only the base file has the page. The caller must make sure of it again under
 * commit_lock. */
uint64_t thr_version_newest_seq(const struct thr_heap *heap, uint32_t pgno);
/* The frame becomes the newest version. Returns the frame that it supersedes, which the caller has to retire; 0 if there
 * is none. commit_lock. */
uint32_t thr_version_publish(struct thr_heap *heap, uint32_t pgno, bool is_free, uint32_t index, uint64_t seq);
/* Take a superseded frame that no snapshot can see out of its chain. `floor`: the oldest snapshot in use. False: not
 * now. */
bool thr_version_unlink(struct thr_heap *heap, uint32_t index, uint64_t floor);
/* Before the base file gets a newer version of the page: a frame with what it had, for snapshots from `seq` on, which is
 * in use. `own` keeps it until they are gone. checkpoint_lock. */
void thr_version_insert(struct thr_heap *heap, struct thr_frames *own, uint32_t pgno, bool is_free, uint32_t index,
                        uint64_t seq);
/* Take the newest frame, which the base file has by now, out of its chain. False: it is not the newest any more, or a
 * transaction older than the page's first frame is under way. checkpoint_lock; a snapshot of the caller's, taken before
 * it looked at the chain, keeps the frame from being used again meanwhile. */
bool thr_version_unlink_newest(struct thr_heap *heap, struct thr_frames *own, uint32_t pgno, uint32_t index,
                               uint64_t floor);

#define THR_PGNO_FREE \
    0x80000000u /* in struct thr_frame.pgno; limits page numbers to 2^31 - 1 (SQLite: 2^30 - 1 here) */

#endif
