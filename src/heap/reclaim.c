/* Reclamation: which superseded frames can no snapshot see (I3)?
 *
 * A frame of sequence v that was superseded at w is the version that snapshots v .. w-1 see. Snapshots still to be
 * taken are at visible_seq or later. So once that is at w it can go, even from the middle of a chain, as soon as no
 * snapshot in use lies in between: a reader that stays open for an hour holds back one frame of each page, however
 * often the page is written.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "heap.h"

enum { SNAPSHOTS_MAX = 512 };

/* The snapshots in use, ascending. With more than SNAPSHOTS_MAX of them, `all_from` covers the rest. */
struct in_use {
    uint64_t seq[SNAPSHOTS_MAX];
    uint32_t count;
    uint64_t floor;    /* the oldest */
    uint64_t all_from; /* every sequence from here on counts as in use */
    uint64_t visible;  /* a snapshot that is yet to be taken is at this one or later */
};

static int by_seq(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void note_snapshot(struct in_use *use, uint64_t seq)
{
    if (seq == 0)
        return;
    if (seq < use->floor)
        use->floor = seq;
    if (use->count < SNAPSHOTS_MAX)
        use->seq[use->count++] = seq;
    else if (seq < use->all_from)
        use->all_from = seq;
}

static void snapshots_in_use(const struct thr_shm *shm, struct in_use *use)
{
    uint32_t high = atomic_load_explicit(&shm->head->slot_high, memory_order_acquire);

    use->count = 0;
    use->floor = use->all_from = UINT64_MAX;
    use->visible = atomic_load_explicit(&shm->head->visible_seq, memory_order_seq_cst);
    /* A snapshot announced after this scan is at the current sequence or later, and its reader looks at the page map
     * only after it has announced it: seq_cst on both sides (pairs with thr_snapshot_take()). */
    for (uint32_t i = 0; i < high; i++) {
        /* In this order: a commit's sequence moves from the second to the first. */
        note_snapshot(use, atomic_load_explicit(&thr_shm_slot(shm, i)->committed, memory_order_seq_cst));
        note_snapshot(use, atomic_load_explicit(&thr_shm_slot(shm, i)->snapshot, memory_order_seq_cst));
    }
    note_snapshot(use, atomic_load_explicit(&shm->head->checkpoint_snapshot, memory_order_seq_cst));
    if (use->count > 1)
        qsort(use->seq, use->count, sizeof use->seq[0], by_seq);
}

uint64_t thr_oldest_snapshot(const struct thr_shm *shm, bool pointing, uint64_t if_none)
{
    uint32_t high = atomic_load_explicit(&shm->head->slot_high, memory_order_acquire);
    uint64_t oldest = if_none, seq;

    for (uint32_t i = 0; i < high; i++) {
        const struct thr_slot *slot = thr_shm_slot(shm, i);

        seq = atomic_load_explicit(&slot->snapshot, memory_order_seq_cst);
        if (seq != 0 && seq < oldest && (!pointing || atomic_load_explicit(&slot->pointers, memory_order_seq_cst) != 0))
            oldest = seq;
    }
    return oldest;
}

bool thr_snapshots_before(const struct thr_shm *shm, uint64_t seq, struct thr_snapshots *out)
{
    struct in_use use;

    snapshots_in_use(shm, &use);
    out->count = 0;
    for (uint32_t i = 0; i < use.count && use.seq[i] < seq; i++)
        if (out->count == 0 || out->seq[out->count - 1] != use.seq[i]) {
            if (out->count == THR_SNAPSHOTS_BEFORE)
                return false;
            out->seq[out->count++] = use.seq[i];
        }
    return use.all_from == UINT64_MAX;
}

/* Whether some snapshot in use lies in [from, to). */
static bool seen(const struct in_use *use, uint64_t from, uint64_t to)
{
    uint32_t low = 0, high = use->count;

    if (to > use->all_from || to > use->visible)
        return true;
    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (use->seq[middle] < from)
            low = middle + 1;
        else
            high = middle;
    }
    return low < use->count && use->seq[low] < to;
}

static bool reclaim_one(struct thr_heap *heap, struct thr_frames *own, const struct in_use *use, uint32_t index,
                        bool *visible_out)
{
    const struct thr_frame *frame = thr_heap_frame(heap, index);
    uint64_t from = atomic_load_explicit(&frame->seq, memory_order_relaxed);
    uint64_t to = atomic_load_explicit(&frame->superseded, memory_order_relaxed);

    *visible_out = seen(use, from, to);
    if (*visible_out)
        return false;
    if (atomic_load_explicit(&frame->newer, memory_order_relaxed) != THR_FRAME_UNLINKED &&
        !thr_version_unlink(heap, index, use->floor))
        return false;
    thr_frame_give(heap, own, index);
    return true;
}

uint32_t thr_frames_reclaim(struct thr_heap *heap, struct thr_frames *own)
{
    struct in_use use;
    uint32_t index, next, freed = 0, *link;
    bool visible;

    thr_frames_check(heap, own);
    if (own->young_head == 0 && own->pinned == 0)
        return 0;
    THR_POINT("reclaim");
    snapshots_in_use(heap->shm, &use);
    if (own->pinned != 0 && use.floor != own->pinned_floor) {
        own->pinned_floor = use.floor;
        for (link = &own->pinned; (index = *link) != 0;) {
            next = thr_heap_frame(heap, index)->garbage_next;
            if (reclaim_one(heap, own, &use, index, &visible)) {
                *link = next;
                freed++;
            } else {
                link = &thr_heap_frame(heap, index)->garbage_next;
            }
        }
    }
    index = own->young_head;
    own->young_head = own->young_tail = 0;
    for (; index != 0; index = next) {
        next = thr_heap_frame(heap, index)->garbage_next;
        if (reclaim_one(heap, own, &use, index, &visible)) {
            freed++;
        } else if (visible &&
                   atomic_load_explicit(&thr_heap_frame(heap, index)->seq, memory_order_relaxed) <= use.floor) {
            /* Only the oldest snapshot's end can free it: do not look again before that. */
            thr_heap_frame(heap, index)->garbage_next = own->pinned;
            own->pinned = index;
            own->pinned_floor = use.floor;
        } else {
            thr_frame_retire(heap, own, index);
        }
    }
    return freed;
}
