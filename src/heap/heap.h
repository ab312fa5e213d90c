/* The version heap: page versions ("frames") in the mapped file `heap`. It is never synced and never read after a
 * crash. A frame is found by its index, from 1 on; 0 is none.
 *
 * The file is a row of groups. Each begins with the headers of its frames, then come the frames themselves:
 *
 *     group size = headers (frames * 32, rounded up to 4 KiB) + frames * page size
 *
 * A header stands apart from its frame, so that walking a chain of versions touches no page data. Groups that are not in
 * use give the disk space of their frames back ("holes"); their headers stay, as readers may still stand on them.
 *
 * The file is mapped in segments, each twice as long as the one before, when it has grown so far: a small database takes
 * little of the address space, and no segment ever moves under a reader.
 *
 * Each frame is in one place: never used; free, in the common stock, in a shard or with a transaction; private to a
 * transaction; the newest version of its page, in its chain; or superseded, in a shard or with the transaction that
 * superseded it, and perhaps in its chain as well. thr_heap_check() counts them.
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

#ifndef THR_HEAP_LEAST                     /* the simulator wants small ones */
#define THR_HEAP_LEAST ((uint64_t)4 << 20) /* bytes, of a limit */
#endif
#define THR_HEAP_LARGE ((uint64_t)1 << 30) /* bytes, unless there is a limit */

#define THR_HEAP_SEGMENTS 15u
#define THR_SEGMENT_SHIFT 8u /* log2 of groups in the first segment */

struct thr_frames;

struct thr_heap {
    struct thr_shm *shm;
    int fd; /* -1 until the page size is known */
    uint32_t page_size;
    uint32_t group_shift; /* log2 of frames in a group */
    uint32_t header_bytes;
    size_t group_bytes;
    /* Where group 0 would be if all of the file were mapped like this segment; 0: not yet. heap_lock to write. Whoever knows
     * the index of a frame has it from a thread that knew the segment. */
    _Atomic uintptr_t segment[THR_HEAP_SEGMENTS];
    uint64_t limit_bytes;         /* set before it is created; 0: as much as can be mapped */
    _Atomic uint32_t soft_frames; /* in use: more make it large */
    uint32_t frame_limit;         /* at most so many frames */
    uint32_t shard_free;          /* at most so many free frames in a shard */
    uint32_t generation;          /* counts creations: stocks of an older one are void */
};

/* Make an empty heap for this page size in a new file. SQLITE_OK, SQLITE_NOMEM, SQLITE_FULL, SQLITE_CANTOPEN,
 * SQLITE_IOERR_*; on error nothing stays open. Nobody has a frame of the one before. */
int thr_heap_create(struct thr_heap *heap, struct thr_shm *shm, const char *path, uint32_t mode, uint32_t page_size);
void thr_heap_close(struct thr_heap *heap);
/* Give disk space back, if much more is taken than what is in use needs. Several system calls, without a lock. */
void thr_heap_shrink(struct thr_heap *heap);
/* Slow, for builds with slow asserts and for tests: that each frame is in one place. No transaction is under way, and
 * `own` (may be NULL) is the one stock that was not settled. */
void thr_heap_check(const struct thr_heap *heap, const struct thr_frames *own);

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

/* So full that the next transactions might find no room: never without a limit. */
static inline bool thr_heap_is_tight(const struct thr_heap *heap)
{
    return heap->limit_bytes != 0 &&
           atomic_load_explicit(&heap->shm->head->frames_used, memory_order_relaxed) > heap->frame_limit / 4 * 3;
}

static inline uint32_t thr_heap_segment_of(uint32_t group)
{
    return 31u - (uint32_t)__builtin_clz((group >> THR_SEGMENT_SHIFT) + 1);
}

static inline uintptr_t thr_heap_group(const struct thr_heap *heap, uint32_t index)
{
    uint32_t group = index >> heap->group_shift;

    return atomic_load_explicit(&heap->segment[thr_heap_segment_of(group)], memory_order_relaxed) +
           (size_t)group * heap->group_bytes;
}

static inline struct thr_frame *thr_heap_frame(const struct thr_heap *heap, uint32_t index)
{
    return (struct thr_frame *)thr_heap_group(heap, index) + (index & ((1u << heap->group_shift) - 1));
}

static inline uint8_t *thr_heap_page(const struct thr_heap *heap, uint32_t index)
{
    return (uint8_t *)thr_heap_group(heap, index) + heap->header_bytes +
           (size_t)(index & ((1u << heap->group_shift) - 1)) * heap->page_size;
}

/* What a transaction (or the checkpointer, under checkpoint_lock) has at hand; used by it alone. Nothing stays here when it
 * ends: an idle connection holds no frame. */
struct thr_frames {
    uint32_t generation; /* of the heap that the lists belong to */
    uint32_t shard;      /* fixed */
    struct thr_frame_list free;
    struct thr_frame_list retired; /* superseded */
};

/* Take a frame, private to the caller: from its stock, its shard, the common stock; before the file is extended, from what
 * others have superseded; before this fails, from all that no snapshot can see. SQLITE_OK, SQLITE_FULL (disk full or heap
 * limit), SQLITE_NOMEM (address space), SQLITE_IOERR_*. */
int thr_frame_take(struct thr_heap *heap, struct thr_frames *own, uint32_t *index_out);
/* Give back a frame that was never published. */
void thr_frame_give(struct thr_heap *heap, struct thr_frames *own, uint32_t index);
/* `index` has been superseded by a commit of the caller, or taken out of its chain. */
void thr_frame_retire(struct thr_heap *heap, struct thr_frames *own, uint32_t index);
/* The transaction is over: what it has at hand goes to its shard, or to the common stock. */
void thr_frames_settle(struct thr_heap *heap, struct thr_frames *own);

/* --- reclaim.c --- */

/* Reclaim what no snapshot can see (I3), whoever has superseded it, into the common stock. Looks at so many superseded
 * frames of a shard at most. Returns how many frames became free. */
uint32_t thr_frames_sweep(struct thr_heap *heap, uint32_t looks);
/* The same from all shards, with their free frames, until there are as many as `want`. `wait` for shards in use, and look
 * at everything: if that finds nothing, nothing can be found. */
uint32_t thr_frames_gather(struct thr_heap *heap, uint32_t want, bool wait);
/* From the shard of the caller into the caller's stock, if it can be had without waiting. */
void thr_shard_take(struct thr_heap *heap, struct thr_frames *own, uint32_t want);
/* Free frames go to the common stock. */
void thr_stock_give(struct thr_heap *heap, struct thr_frame_list *list);

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
enum thr_unlinked {
    THR_UNLINKED,
    THR_UNLINK_BUSY,   /* another thread is at the page's chain */
    THR_UNLINK_TOO_NEW /* it is the last frame of a page that changed after `floor` */
};

/* Take a superseded frame that no snapshot can see out of its chain. `floor`: the oldest snapshot in use. */
enum thr_unlinked thr_version_unlink(struct thr_heap *heap, uint32_t index, uint64_t floor);
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
