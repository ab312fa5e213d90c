/* The shared index: the file `shm`, mapped. Everything that connections share lies here or in the heap, by offset and
 * index, never by pointer. It is rebuilt at the first open and worthless after a crash.
 *
 * Layout of the file:
 *
 *         0  struct thr_head
 *    128 KiB  directory: chunk number + 1 of each 32,768 pages, 0 if there is none
 *    640 KiB  slots, one per connection
 *      4 MiB  chunks, each struct thr_chunk: the page map and the free-page bitmaps of 32,768 pages
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_LAYOUT_H
#define THR_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#include "mutex.h"

#define THR_CACHE_LINE 64
#define THR_CHUNK_PAGES 32768u
#define THR_CHUNK_MAX 32768u /* times 32,768 pages: as many as SQLite can have */
#define THR_SLOT_MAX 16384u
#define THR_GATES 64u         /* queues for conflicts, by page number */
#define THR_UNLINK_LOCKS 256u /* by page number */
#define THR_SHARDS 32u        /* of the heap's lists, by slot */
#define THR_HOLDERS 6u        /* snapshots for which a shard keeps frames apart */
#define THR_FILTER_WORDS 1024u
#define THR_EXTENTS 1024u /* commits that may wait to be durable, and a few */
#define THR_CONFLICT_PAGES 64u

#define THR_DIRECTORY_OFFSET (128u * 1024)
#define THR_SLOTS_OFFSET (640u * 1024)
#define THR_CHUNKS_OFFSET (4u * 1024 * 1024)

enum thr_slot_state { THR_SLOT_FREE, THR_SLOT_IDLE, THR_SLOT_READER, THR_SLOT_WRITER };

/* One connection's part. Only its owner writes it, so a transaction's start and end touch no line that another
 * connection writes.
 *   off size field       writer  guard
 *     0    8 snapshot    owner   atomic; commit sequence that it reads at, 0 if none (I1)
 *     8    8 begin_ns    owner   atomic; when that snapshot was taken (thr_os_coarse_ns())
 *    16    4 state       owner   atomic; enum thr_slot_state; FREE <-> IDLE under slot_lock
 *    20    4 pid         owner   slot_lock
 *    24    8 committed   owner   atomic; sequence of its commit until `snapshot` is moved on to that, else 0
 *    32    4 pointers    owner   atomic; pages of the base file that its pager points into: it must not change under them
 *    64   .. counters    owner   atomic, relaxed: statistics */
struct thr_slot {
    _Alignas(THR_CACHE_LINE) _Atomic uint64_t snapshot;
    _Atomic uint64_t begin_ns;
    _Atomic uint32_t state;
    _Atomic uint32_t pid;
    _Atomic uint64_t committed;
    _Atomic uint32_t pointers;
    _Alignas(THR_CACHE_LINE) _Atomic uint64_t counter[16];
};

/* Statistics, each kept in its owner's slot and added up when somebody asks. When a slot is given back its counters
 * are added to those of the head. */
enum thr_counter {
    THR_COUNT_COMMITS,
    THR_COUNT_EMPTY_COMMITS,
    THR_COUNT_CONFLICT_READ,
    THR_COUNT_CONFLICT_WRITE,
    THR_COUNT_CONFLICT_SCHEMA,
    THR_COUNT_CONFLICT_SPACE,
    THR_COUNT_RERUNS,
    THR_COUNT_PAGES_READ,
    THR_COUNT_PAGES_WRITTEN,
    THR_COUNT_LOG_BYTES,
    THR_COUNT_CHECKPOINT_PAGES,
    THR_COUNT_FRAMES_RECLAIMED,
    THR_COUNT_SNAPSHOTS,
    THR_COUNTERS
};

/* Frames of the heap, linked by their headers' garbage_next; all zero when it is empty. */
struct thr_frame_list {
    uint32_t first, last, count;
};

/* Frames that are free, or superseded, and belong to no transaction. Those of a connection go to the shard of its slot, so
 * that few connections share one; any connection that is short of frames may go through all of them.
 *   field  writer          guard
 *   all    lock's holder   the shard's lock (struct thr_head.shard_lock)
 *
 *   free   few: more than that go to the common stock
 *   young  superseded, to be looked at
 *   held   superseded, seen by snapshot `seq`: to be looked at when that has ended
 *   again  superseded, seen by more snapshots than `held` has places: to be looked at after as many new ones */
struct thr_shard {
    _Alignas(THR_CACHE_LINE) struct thr_frame_list free;
    struct thr_frame_list young, again;
    uint32_t fresh; /* superseded since `again` was looked at */
    struct {
        uint64_t seq;
        struct thr_frame_list frames;
    } held[THR_HOLDERS];
};

/* A page that made transactions fail (conflicts.h). */
struct thr_conflict_page {
    uint32_t pgno; /* 0: unused */
    uint32_t pad;
    uint64_t count;
    uint64_t error; /* so many of them may have been another page's */
};

/* Head of the index. Fields that committers write share no line with those that readers poll.
 *   field          writer                      guard
 *   page_size      first writer of a new file  alone_slot; fixed afterwards but for a rewrite by VACUUM
 *   commit_seq     committer                   commit_lock; newest commit: logged, its frames linked
 *   visible_seq    committer, log's syncer     commit_lock; newest commit that new snapshots see: all up to it are as
 *                                              durable as their synchronous level asks
 *   group_round    committer                   commit_lock; odd while a commit that spans databases becomes visible
 *   full_seq       committer                   commit_lock; newest commit at synchronous=FULL
 *   durable_seq    committer, log's syncer     commit_lock; commits up to this one are safe from a power cut
 *   sync_leader    log's syncer                atomic: 1 while somebody syncs the log
 *   sync_round     log's syncer                atomic: counts syncs, and changes of visible_seq by them
 *   extent         committer                   commit_lock; [seq % THR_EXTENTS]: page count << 32 | free pages as of seq
 *   log_segment    committer                   commit_lock; number of the segment that is appended to
 *   log_tail       committer                   commit_lock; where the next record goes in it
 *   horizon        checkpointer                checkpoint_lock; everything up to this sequence is in the base file
 *   passing_seq    checkpointer                checkpoint_lock; snapshots before this one must not point into the base
 *                                              file, as it gets newer versions; 0: none
 *   reserved_end   whoever extends             space_lock; pages up to here are given out
 *   pool_pages     refill, release, commit     space_lock; free pages that are in nobody's stripe
 *   space_epoch    rewrite                     alone_slot; stripes of an older epoch are void
 *   rewrite_seq    rewrite                     commit_lock; the last commit that moved everything
 *   stripe_want    committer                   atomic: pages that a recent transaction needed, for new connections
 *   format         rewrite, PRAGMA             alone_slot; 1: all share one free list, 2: stripes
 *   alone_slot     holder of turn_lock         atomic; slot + 1 of who writes alone
 *   protected_slot holder of turn_lock         atomic; slot + 1 of who must not lose
 *   protected_end  holder of turn_lock         atomic; pages that the protected transaction knows of
 *   filter         the protected transaction   atomic OR; a bit for each page that it read or wrote
 *   barrier        who rebases                 atomic; non-zero: no new snapshots
 *   free_frames    any connection              heap_lock; frames that are in no shard
 *   next_frame     any connection              heap_lock; the first frame that was never used
 *   frame_count    any connection              heap_lock; frames of the file `heap`; those in holes have no disk space
 *   swept_count    any connection              heap_lock; frame_count when all shards were last gone through
 *   grow_to        any connection              heap_lock; so far the file grows before all shards are gone through again
 *   holes          any connection              heap_lock; list of groups without disk space, by their first frame
 *   hole_count     any connection              heap_lock; how many
 *   frames_used    any connection              heap_lock; neither in the common stock nor in holes
 *   conflicts      whoever lost                conflict_lock */
struct thr_head {
    char magic[8];
    uint32_t version;
    uint32_t owner_pid; /* who has the database open; for messages */
    _Atomic uint32_t page_size;
    _Atomic uint32_t format;
    _Atomic uint32_t space_epoch;
    _Atomic uint32_t barrier;
    _Atomic uint32_t alone_slot;
    _Atomic uint32_t protected_slot;
    _Atomic uint32_t protected_end;
    _Atomic uint32_t slot_high; /* slots ever used; slot_lock */
    uint32_t change_base;       /* the file's change counter less the first sequence */

    _Alignas(THR_CACHE_LINE) _Atomic uint64_t commit_seq;
    _Atomic uint64_t visible_seq;
    _Atomic uint64_t log_segment;
    _Atomic uint64_t log_tail;
    _Atomic uint64_t full_seq;
    _Atomic uint64_t group_round;
    _Alignas(THR_CACHE_LINE) _Atomic uint64_t durable_seq;
    _Atomic uint32_t sync_leader;
    _Atomic uint32_t sync_round;

    _Alignas(THR_CACHE_LINE) struct thr_mutex commit_lock;
    _Alignas(THR_CACHE_LINE) struct thr_mutex turn_lock;
    _Alignas(THR_CACHE_LINE) struct thr_mutex space_lock;
    _Alignas(THR_CACHE_LINE) struct thr_mutex slot_lock;
    _Alignas(THR_CACHE_LINE) struct thr_mutex heap_lock;
    _Alignas(THR_CACHE_LINE) struct thr_mutex checkpoint_lock;

    _Alignas(THR_CACHE_LINE) _Atomic uint64_t horizon;
    _Atomic uint64_t passing_seq;
    _Atomic uint64_t checkpoint_snapshot; /* the checkpointer's own snapshot, 0 if none */
    _Alignas(THR_CACHE_LINE) _Atomic uint32_t reserved_end;
    _Atomic uint32_t pool_pages;
    _Atomic uint32_t pool_cursor;
    _Atomic uint32_t stripe_want;
    _Atomic uint64_t rewrite_seq;
    _Alignas(THR_CACHE_LINE) struct thr_frame_list free_frames;
    uint32_t next_frame;
    uint32_t frame_count;
    uint32_t swept_count;
    uint32_t grow_to;
    uint32_t holes;
    uint32_t hole_count;
    _Atomic uint32_t frames_used;
    _Atomic uint32_t frames_peak;
    _Alignas(THR_CACHE_LINE) struct thr_mutex shard_lock[THR_SHARDS];
    struct thr_shard shard[THR_SHARDS];
    _Alignas(THR_CACHE_LINE) _Atomic uint64_t counter[16];
    struct thr_mutex gate[THR_GATES];
    _Alignas(THR_CACHE_LINE) _Atomic uint8_t unlink_lock[THR_UNLINK_LOCKS];
    _Alignas(THR_CACHE_LINE) _Atomic uint64_t filter[THR_FILTER_WORDS];
    _Alignas(THR_CACHE_LINE) _Atomic uint64_t extent[THR_EXTENTS];
    _Alignas(THR_CACHE_LINE) struct thr_mutex conflict_lock;
    struct thr_conflict_page conflicts[THR_CONFLICT_PAGES];
};

/* What is known of 32,768 pages.
 *   field      writer                   guard
 *   newest     committer, checkpointer  compare-and-swap; newest frame, 0: the base file has it
 *   free       committer, extender      commit_lock, for pages that are `taken`; or space_lock, for pages past the end; as
 *                                       of commit_seq
 *   taken      stripe owner, extender,  space_lock; in use, or held by a connection. Who moves a page from where to where:
 *              committer                src/space/moves.h
 *   base_free  open, extender, rewrite, atomic; whether the page is free where it has no visible frame
 *              checkpointer */
struct thr_chunk {
    _Atomic uint32_t newest[THR_CHUNK_PAGES];
    _Atomic uint64_t free[THR_CHUNK_PAGES / 64];
    _Atomic uint64_t taken[THR_CHUNK_PAGES / 64];
    _Atomic uint64_t base_free[THR_CHUNK_PAGES / 64];
};

_Static_assert(sizeof(struct thr_head) <= THR_DIRECTORY_OFFSET, "the head must end before the directory");
_Static_assert(THR_SLOTS_OFFSET + sizeof(struct thr_slot) * THR_SLOT_MAX <= THR_CHUNKS_OFFSET,
               "the slots must end before the chunks");
_Static_assert(sizeof(struct thr_chunk) % 4096 == 0, "chunks are page-aligned");

#endif
