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
#include "list.h"

enum {
    SNAPSHOTS_MAX = 512,
    TAKE_LOOKS = 512,
    GROWTH_SHARE =
        16, /* a gathering that finds less than this part of the heap lets it grow by as much without another */
};

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

/* The oldest snapshot in use from `from` on; UINT64_MAX: none. */
static uint64_t first_from(const struct in_use *use, uint64_t from)
{
    uint32_t low = 0, high = use->count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (use->seq[middle] < from)
            low = middle + 1;
        else
            high = middle;
    }
    return low < use->count ? use->seq[low] : UINT64_MAX;
}

/* What is to become of a superseded frame. */
enum fate {
    FREE,  /* no snapshot can see it, and it is in no chain any more */
    HELD,  /* until the snapshot *holder_out has ended */
    SOON,  /* it can go shortly: what superseded it is not visible yet, or its chain is busy */
    LATER, /* nothing can be said: there are very many snapshots */
};

static enum fate fate_of(struct thr_heap *heap, const struct in_use *use, uint32_t index, uint64_t *holder_out)
{
    const struct thr_frame *frame = thr_heap_frame(heap, index);
    uint64_t from = atomic_load_explicit(&frame->seq, memory_order_relaxed);
    uint64_t to = atomic_load_explicit(&frame->superseded, memory_order_relaxed);
    bool unlinked = atomic_load_explicit(&frame->newer, memory_order_relaxed) == THR_FRAME_UNLINKED;

    THR_ASSERT(from < to);
    if ((*holder_out = first_from(use, from)) < to)
        return HELD;
    if (to > use->all_from)
        return LATER;
    if (unlinked)
        return FREE; /* a snapshot that is yet to be taken looks at the chain after that */
    if (to > use->visible)
        return SOON;
    switch (thr_version_unlink(heap, index, use->floor)) {
    case THR_UNLINKED:
        return FREE;
    case THR_UNLINK_BUSY:
        return SOON;
    case THR_UNLINK_TOO_NEW:
        break;
    }
    THR_ASSERT(use->floor < to);
    *holder_out = use->floor;
    return HELD;
}

static void hold(const struct thr_heap *heap, struct thr_shard *shard, uint64_t holder, uint32_t index)
{
    struct thr_frame_list *list = &shard->again;

    for (uint32_t i = 0; i < THR_HOLDERS; i++) {
        if (shard->held[i].frames.count == 0)
            list = &shard->held[i].frames;
        if (shard->held[i].frames.count == 0 || shard->held[i].seq != holder)
            continue;
        list = &shard->held[i].frames;
        break;
    }
    thr_list_append(heap, list, index);
    for (uint32_t i = 0; i < THR_HOLDERS; i++)
        if (list == &shard->held[i].frames)
            shard->held[i].seq = holder;
}

/* Choose what is to be looked at: new ones, those whose holder has ended, and others if `all`, or after as many new ones.
 * The shard's lock is held: a frame that came to the shard, out of its chain, after the snapshots in use were read could be
 * seen by one that was not among them. False: there is nothing. */
static bool wake(const struct thr_heap *heap, struct thr_shard *shard, bool all, struct in_use *use)
{
    uint32_t superseded = shard->young.count + shard->again.count;

    for (uint32_t i = 0; i < THR_HOLDERS; i++)
        superseded += shard->held[i].frames.count;
    if (superseded == 0)
        return false;
    THR_POINT("reclaim");
    snapshots_in_use(heap->shm, use);
    for (uint32_t i = 0; i < THR_HOLDERS; i++) {
        uint64_t seq = shard->held[i].seq;

        if (shard->held[i].frames.count > 0 && first_from(use, seq) != seq && seq < use->all_from)
            thr_list_splice(heap, &shard->young, &shard->held[i].frames);
    }
    if (all || shard->fresh >= shard->again.count) {
        thr_list_splice(heap, &shard->young, &shard->again);
        shard->fresh = 0;
    }
    return shard->young.count > 0;
}

/* Look at so many frames of the shard, and add those that are free to `free`, until it has as many as `want`. The shard's
 * lock is held. */
static void reclaim(struct thr_heap *heap, struct thr_shard *shard, const struct in_use *use, uint32_t looks,
                    uint32_t want, struct thr_frame_list *free)
{
    uint32_t before = free->count, index;
    uint64_t holder;

    looks = looks < shard->young.count ? looks : shard->young.count;
    for (; looks > 0 && free->count < want; looks--) {
        index = thr_list_pop(heap, &shard->young);
        switch (fate_of(heap, use, index, &holder)) {
        case FREE:
            THR_ASSERT(atomic_load_explicit(&thr_heap_frame(heap, index)->newer, memory_order_relaxed) ==
                       THR_FRAME_UNLINKED);
            /* Before anything else changes: a reader may still stand on it (see struct thr_frame). */
            atomic_store_explicit(&thr_heap_frame(heap, index)->seq, THR_FRAME_PRIVATE, memory_order_relaxed);
            thr_list_push(heap, free, index);
            break;
        case HELD:
            hold(heap, shard, holder, index);
            break;
        case SOON:
            thr_list_append(heap, &shard->young, index);
            break;
        case LATER:
            thr_list_append(heap, &shard->again, index);
            break;
        }
    }
    atomic_fetch_add_explicit(&heap->shm->head->counter[THR_COUNT_FRAMES_RECLAIMED], free->count - before,
                              memory_order_relaxed);
}

void thr_shard_take(struct thr_heap *heap, struct thr_frames *own, uint32_t want)
{
    struct thr_head *head = heap->shm->head;
    uint32_t at = own->shard % THR_SHARDS;
    struct thr_shard *shard = &head->shard[at];
    struct thr_frame_list free = {0};
    struct in_use use;

    if (!thr_mutex_try(&head->shard_lock[at]))
        return;
    if (shard->free.count < want && wake(heap, shard, false, &use))
        reclaim(heap, shard, &use, TAKE_LOOKS, UINT32_MAX, &free);
    thr_list_move(heap, &own->free, &free, want);
    if (own->free.count < want)
        thr_list_move(heap, &own->free, &shard->free, want - own->free.count);
    if (shard->free.count + free.count <= heap->shard_free)
        thr_list_prepend(heap, &shard->free, &free);
    thr_mutex_unlock(&head->shard_lock[at]);
    thr_stock_give(heap, &free);
}

uint32_t thr_frames_sweep(struct thr_heap *heap, uint32_t looks)
{
    struct thr_head *head = heap->shm->head;
    struct in_use use;
    uint32_t freed = 0;

    if (heap->fd < 0)
        return 0;
    THR_POINT("sweep");
    for (uint32_t at = 0; at < THR_SHARDS; at++) {
        struct thr_frame_list free = {0};

        if (!thr_mutex_try(&head->shard_lock[at]))
            continue;
        if (wake(heap, &head->shard[at], false, &use))
            reclaim(heap, &head->shard[at], &use, looks, UINT32_MAX, &free);
        thr_mutex_unlock(&head->shard_lock[at]);
        freed += free.count;
        thr_stock_give(heap, &free);
    }
    return freed;
}

uint32_t thr_frames_gather(struct thr_heap *heap, uint32_t want, bool wait)
{
    struct thr_head *head = heap->shm->head;
    struct in_use use;
    uint32_t found = 0, enough = 0;
    bool all = wait;

    THR_POINT("gather");
    if (!wait) {
        thr_mutex_lock(&head->heap_lock, UINT64_MAX);
        enough = head->frame_count / GROWTH_SHARE;
        if (head->frame_count < head->grow_to) {
            thr_mutex_unlock(&head->heap_lock);
            return 0;
        }
        all = head->frame_count - head->swept_count >= head->frame_count / 8;
        if (all)
            head->swept_count = head->frame_count;
        thr_mutex_unlock(&head->heap_lock);
        want = want > enough ? want : enough;
    }
    for (uint32_t at = 0; at < THR_SHARDS && found < want; at++) {
        struct thr_shard *shard = &head->shard[at];
        struct thr_frame_list free = {0};

        if (!wait && !thr_mutex_try(&head->shard_lock[at]))
            continue;
        if (wait)
            thr_mutex_lock(&head->shard_lock[at], UINT64_MAX);
        if (wait)
            thr_list_splice(heap, &free, &shard->free);
        if (wake(heap, shard, all, &use))
            reclaim(heap, shard, &use, UINT32_MAX, want - found, &free);
        thr_mutex_unlock(&head->shard_lock[at]);
        found += free.count;
        thr_stock_give(heap, &free);
    }
    if (!wait && found < want) {
        thr_mutex_lock(&head->heap_lock, UINT64_MAX);
        head->grow_to = head->frame_count + enough;
        thr_mutex_unlock(&head->heap_lock);
    }
    return found;
}
