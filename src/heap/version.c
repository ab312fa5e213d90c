/* The versions of a page: its newest frame, from there a chain to older ones, and the database file.
 *
 * Without checkpoints the file has the oldest version: what a snapshot sees that lies before every frame. A checkpoint
 * makes it the version of some later sequence (I4). Then:
 *
 *  - The newest frame may go (thr_version_unlink_newest). What remains of the chain begins with a frame that is
 *    superseded, and snapshots from there on see the file.
 *  - If a snapshot that is older still needs what the file had, that is put into the chain first, at its place
 *    (thr_version_insert).
 *
 * So each frame counts for snapshots from its own sequence up to the one that superseded it, and the file for all
 * others. Its readers have to look again after they have read it (I1): the version that they read may have come to the
 * chain meanwhile.
 *
 * Two neighbours must not be taken out or put in at once, hence the unlink lock of a page; it is held for a few loads.
 * Publication at the head of the chain goes on meanwhile, by compare-and-swap.
 *
 * `newer` leads the other way, for the unlinker: on a page that all connections write the chain may be long, as superseded
 * frames stay until a connection needs one. It is 0 while the frame is the newest. The committer that publishes the next
 * one changes it from 0, after that is in the chain, and only for the frame that it supersedes: that one stays where it is
 * until the committer retires it (nobody else may, and a checkpointer that takes out the newest frame finds that it is not
 * the newest any more). A frame that was superseded before, by a version that is in the file only, may be taken out and
 * used again in another chain in that very moment: its `newer` stays 0. So an unlinker may find 0 in a frame that is not the
 * newest, and then looks for the place from the head of the chain on. In all other cases `newer` changes under the unlink
 * lock.
 *
 * SPDX-License-Identifier: MIT */
#include "../os/assert.h"
#include "../os/os.h"
#include "heap.h"

static _Atomic uint8_t *lock_of(const struct thr_heap *heap, uint32_t pgno)
{
    return &heap->shm->head->unlink_lock[pgno % THR_UNLINK_LOCKS];
}

static bool lock_try(_Atomic uint8_t *lock)
{
    return atomic_exchange_explicit(lock, 1, memory_order_acquire) == 0; /* pairs with unlock() */
}

static void lock_take(_Atomic uint8_t *lock)
{
    while (!lock_try(lock))
        thr_os_yield();
}

static void unlock(_Atomic uint8_t *lock)
{
    atomic_store_explicit(lock, 0, memory_order_release);
}

uint32_t thr_version_find(const struct thr_heap *heap, uint32_t pgno, uint64_t seq, bool *free_out)
{
    const _Atomic uint32_t *newest;
    uint32_t index, older, marked;
    uint64_t frame_seq, superseded;

    if (heap->fd < 0 || (newest = thr_shm_newest(heap->shm, pgno)) == NULL)
        return 0;
again:
    index = atomic_load_explicit(newest, memory_order_seq_cst); /* after the snapshot was announced */
    while (index != 0) {
        const struct thr_frame *frame = thr_heap_frame(heap, index);

        frame_seq = atomic_load_explicit(&frame->seq, memory_order_acquire); /* pairs with publish() */
        if (frame_seq <= seq) {
            superseded = atomic_load_explicit(&frame->superseded, memory_order_acquire);
            marked = atomic_load_explicit(&frame->pgno, memory_order_acquire); /* before `seq` is looked at again */
            if ((marked & ~THR_PGNO_FREE) != pgno) /* used again for another page under us */
                goto again;
            if (superseded != 0 && superseded <= seq) {
                if (atomic_load_explicit(&frame->seq, memory_order_relaxed) != frame_seq)
                    goto again;
                return 0; /* what superseded it is not in the chain any more: it is in the file */
            }
            if (atomic_load_explicit(&frame->seq, memory_order_relaxed) != frame_seq)
                goto again; /* used again for this page under us */
            if (free_out != NULL)
                *free_out = (marked & THR_PGNO_FREE) != 0;
            return index;
        }
        older = atomic_load_explicit(&frame->older, memory_order_acquire);
        marked = atomic_load_explicit(&frame->pgno, memory_order_acquire);
        if (frame_seq == THR_FRAME_PRIVATE || (marked & ~THR_PGNO_FREE) != pgno ||
            atomic_load_explicit(&frame->seq, memory_order_relaxed) != frame_seq)
            goto again;
        index = older;
    }
    return 0;
}

uint64_t thr_version_newest_seq(const struct thr_heap *heap, uint32_t pgno)
{
    const _Atomic uint32_t *newest;
    uint64_t seq, superseded;
    uint32_t index;

    if (heap->fd < 0 || (newest = thr_shm_newest(heap->shm, pgno)) == NULL)
        return 0;
    /* While we look the newest frame may become the second newest and go. */
    for (;;) {
        index = atomic_load_explicit(newest, memory_order_acquire); /* pairs with thr_version_publish() */
        if (index == 0)
            return 0;
        seq = atomic_load_explicit(&thr_heap_frame(heap, index)->seq, memory_order_acquire);
        superseded = atomic_load_explicit(&thr_heap_frame(heap, index)->superseded, memory_order_acquire);
        if (index == atomic_load_explicit(newest, memory_order_relaxed) && seq != THR_FRAME_PRIVATE)
            return superseded != 0 ? superseded : seq; /* superseded: by what is in the file now */
    }
}

uint32_t thr_version_publish(struct thr_heap *heap, uint32_t pgno, bool is_free, uint32_t index, uint64_t seq)
{
    _Atomic uint32_t *newest = thr_shm_newest(heap->shm, pgno);
    struct thr_frame *frame = thr_heap_frame(heap, index), *before;
    uint32_t older = atomic_load_explicit(newest, memory_order_acquire);
    bool supersedes;

    THR_ASSERT(atomic_load_explicit(&frame->seq, memory_order_relaxed) == THR_FRAME_PRIVATE);
    atomic_store_explicit(&frame->superseded, 0,
                          memory_order_release); /* after FRAME_PRIVATE: see thr_version_find() */
    atomic_store_explicit(&frame->newer, 0, memory_order_relaxed);
    do {
        before = older == 0 ? NULL : thr_heap_frame(heap, older);
        supersedes = before != NULL && atomic_load_explicit(&before->superseded, memory_order_relaxed) == 0;
        atomic_store_explicit(&frame->older, older, memory_order_release);
        atomic_store_explicit(&frame->pgno, pgno | (is_free ? THR_PGNO_FREE : 0), memory_order_release);
        atomic_store_explicit(&frame->seq, seq, memory_order_release);
    } while (!atomic_compare_exchange_strong_explicit(newest, &older, index, memory_order_seq_cst,
                                                      memory_order_acquire)); /* pairs with thr_version_find() */
    if (!supersedes)
        return 0; /* `before` may go at any moment: find_newer() finds its place without us */
    THR_ASSERT(atomic_load_explicit(&before->seq, memory_order_relaxed) < seq);
    THR_ASSERT(atomic_load_explicit(&before->newer, memory_order_relaxed) == 0);
    atomic_store_explicit(&before->newer, index, memory_order_release); /* pairs with unlink_locked() */
    atomic_store_explicit(&before->superseded, seq, memory_order_release);
    return older;
}

/* May the newest frame go, which leaves `older` as the newest? Without any frame the page looks as if it had never
 * changed: no transaction may be under way that has to learn otherwise. */
static bool may_go(uint32_t older, uint64_t changed_seq, uint64_t floor)
{
    return older != 0 || changed_seq <= floor;
}

static void set_newer(const struct thr_heap *heap, uint32_t index, uint32_t newer)
{
    if (index != 0)
        atomic_store_explicit(&thr_heap_frame(heap, index)->newer, newer, memory_order_relaxed);
}

/* Let `older` be the newest frame instead of `index`. The lock is held. False: `index` is not the newest any more. */
static bool replace_newest(const struct thr_heap *heap, uint32_t pgno, uint32_t index, uint32_t older)
{
    _Atomic uint32_t *newest = thr_shm_newest(heap->shm, pgno);
    uint32_t expected = index;

    set_newer(heap, older, 0); /* before anybody can publish upon it */
    if (atomic_compare_exchange_strong_explicit(newest, &expected, older, memory_order_seq_cst, memory_order_relaxed))
        return true;
    set_newer(heap, older, index);
    return false;
}

/* The frame whose `older` is `index`, which is not the newest one. */
static uint32_t find_newer(const struct thr_heap *heap, uint32_t pgno, uint32_t index)
{
    uint32_t at = atomic_load_explicit(thr_shm_newest(heap->shm, pgno), memory_order_acquire), older;

    for (;; at = older) {
        THR_ASSERT(at != 0 && at != index);
        older = atomic_load_explicit(&thr_heap_frame(heap, at)->older, memory_order_acquire);
        if (older == index)
            return at;
    }
}

/* A costly look, for an assert. The lock is held: nothing leaves the chain meanwhile. */
#ifdef THR_SLOW_ASSERTS
static bool is_in_chain(const struct thr_heap *heap, uint32_t pgno, uint32_t index)
{
    uint32_t at = atomic_load_explicit(thr_shm_newest(heap->shm, pgno), memory_order_acquire);

    while (at != 0 && at != index)
        at = atomic_load_explicit(&thr_heap_frame(heap, at)->older, memory_order_acquire);
    return at != 0;
}
#endif

/* Take `index` out of the chain in which it is. The lock is held. */
static bool unlink_locked(struct thr_heap *heap, uint32_t pgno, uint32_t index, uint64_t floor)
{
    struct thr_frame *frame = thr_heap_frame(heap, index);
    uint32_t older = atomic_load_explicit(&frame->older, memory_order_relaxed);
    uint32_t newer = atomic_load_explicit(&frame->newer, memory_order_acquire); /* pairs with thr_version_publish() */

    if (newer == 0 && atomic_load_explicit(thr_shm_newest(heap->shm, pgno), memory_order_acquire) == index) {
        if (!may_go(older, atomic_load_explicit(&frame->superseded, memory_order_relaxed), floor))
            return false;
        if (replace_newest(heap, pgno, index, older))
            goto done;
    }
    if (newer == 0)
        newer = find_newer(heap, pgno, index);
    THR_ASSERT(atomic_load_explicit(&thr_heap_frame(heap, newer)->older, memory_order_relaxed) == index);
    set_newer(heap, older, newer);
    atomic_store_explicit(&thr_heap_frame(heap, newer)->older, older,
                          memory_order_release); /* pairs with thr_version_find() */
done:
    THR_SLOW_ASSERT(!is_in_chain(heap, pgno, index));
    atomic_store_explicit(&frame->newer, THR_FRAME_UNLINKED, memory_order_relaxed);
    return true;
}

enum thr_unlinked thr_version_unlink(struct thr_heap *heap, uint32_t index, uint64_t floor)
{
    uint32_t pgno = atomic_load_explicit(&thr_heap_frame(heap, index)->pgno, memory_order_relaxed) & ~THR_PGNO_FREE;
    _Atomic uint8_t *lock = lock_of(heap, pgno);
    bool done;

    if (!lock_try(lock))
        return THR_UNLINK_BUSY;
    done = unlink_locked(heap, pgno, index, floor);
    unlock(lock);
    return done ? THR_UNLINKED : THR_UNLINK_TOO_NEW;
}

void thr_version_insert(struct thr_heap *heap, struct thr_frames *own, uint32_t pgno, bool is_free, uint32_t index,
                        uint64_t seq)
{
    _Atomic uint8_t *lock = lock_of(heap, pgno);
    struct thr_frame *frame = thr_heap_frame(heap, index), *newer = NULL;
    uint32_t at, newer_index = 0;

    THR_ASSERT(atomic_load_explicit(&frame->seq, memory_order_relaxed) == THR_FRAME_PRIVATE);
    lock_take(lock);
    at = atomic_load_explicit(thr_shm_newest(heap->shm, pgno), memory_order_acquire);
    while (at != 0 && atomic_load_explicit(&thr_heap_frame(heap, at)->seq, memory_order_acquire) > seq) {
        newer_index = at;
        newer = thr_heap_frame(heap, at);
        at = atomic_load_explicit(&newer->older, memory_order_acquire);
    }
    THR_ASSERT(newer != NULL); /* somebody made the version that the file is about to get */
    atomic_store_explicit(&frame->superseded, atomic_load_explicit(&newer->seq, memory_order_relaxed),
                          memory_order_release);
    atomic_store_explicit(&frame->older, at, memory_order_release);
    atomic_store_explicit(&frame->pgno, pgno | (is_free ? THR_PGNO_FREE : 0), memory_order_release);
    atomic_store_explicit(&frame->seq, seq, memory_order_release);
    atomic_store_explicit(&frame->newer, newer_index, memory_order_relaxed);
    set_newer(heap, at, index);
    atomic_store_explicit(&newer->older, index, memory_order_seq_cst); /* pairs with thr_version_find() */
    unlock(lock);
    thr_frame_retire(heap, own, index);
}

bool thr_version_unlink_newest(struct thr_heap *heap, struct thr_frames *own, uint32_t pgno, uint32_t index,
                               uint64_t floor)
{
    _Atomic uint8_t *lock = lock_of(heap, pgno);
    struct thr_frame *frame = thr_heap_frame(heap, index);
    uint32_t older;
    bool done;

    lock_take(lock);
    older = atomic_load_explicit(&frame->older, memory_order_relaxed);
    done = may_go(older, atomic_load_explicit(&frame->seq, memory_order_relaxed), floor) &&
           replace_newest(heap, pgno, index, older);
    unlock(lock);
    if (!done)
        return false;
    /* Who announced a snapshot before may have found it; who does from now on looks at the chain later. */
    atomic_store_explicit(&frame->newer, THR_FRAME_UNLINKED, memory_order_relaxed);
    atomic_store_explicit(&frame->superseded,
                          atomic_load_explicit(&heap->shm->head->commit_seq, memory_order_seq_cst) + 1,
                          memory_order_release);
    thr_frame_retire(heap, own, index);
    return true;
}
