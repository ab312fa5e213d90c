/* SPDX-License-Identifier: MIT */
#include "heap.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "list.h"

#ifndef THR_HEAP_GROUP /* the simulator wants small ones */
#define THR_HEAP_GROUP (1 << 18)
#endif

enum {
    BATCH = 16,
    SHARD_FREE_MAX = 256,
    GROUP_BYTES_WANTED = THR_HEAP_GROUP,
    GROW_GROUPS = 4,        /* at once, by and by: 1 MiB */
    GATHER = 256,           /* frames to look for before the file grows */
    SPARE_BYTES = 16 << 20, /* free ones that keep their disk space in any case */
};
static const uint64_t HEAP_BYTES_MAX = UINT64_C(1) << 40;

/* The lists of a heap that nobody has a frame of. */
static void lists_reset(struct thr_heap *heap)
{
    struct thr_head *head = heap->shm->head;

    for (uint32_t i = 0; i < THR_SHARDS; i++)
        memset(&head->shard[i], 0, sizeof head->shard[i]);
    head->free_frames = (struct thr_frame_list){0};
    head->frame_count = head->swept_count = head->grow_to = head->holes = head->hole_count = 0;
    head->next_frame = 1;
    atomic_store_explicit(&head->frames_used, 0, memory_order_relaxed);
}

/* The first group of a segment. */
static uint32_t segment_start(uint32_t segment)
{
    return ((1u << segment) - 1) << THR_SEGMENT_SHIFT;
}

static size_t segment_bytes(const struct thr_heap *heap, uint32_t segment)
{
    return ((size_t)1 << (segment + THR_SEGMENT_SHIFT)) * heap->group_bytes;
}

/* heap_lock, or nobody has the heap yet. */
static int segment_map(struct thr_heap *heap, uint32_t segment)
{
    size_t offset = segment_start(segment) * heap->group_bytes;
    void *at = NULL;
    int rc;

    THR_ASSERT(segment < THR_HEAP_SEGMENTS);
    if (atomic_load_explicit(&heap->segment[segment], memory_order_relaxed) != 0)
        return SQLITE_OK;
    rc = thr_os_map_at(heap->fd, (int64_t)offset, segment_bytes(heap, segment), true, false, &at);
    if (rc != SQLITE_OK) {
        thr_log(rc, "throng: no address space for %zu MiB of page versions: ulimit -v, or too many databases are open",
                segment_bytes(heap, segment) >> 20);
        return rc;
    }
    atomic_store_explicit(&heap->segment[segment], (uintptr_t)at - offset, memory_order_relaxed);
    return SQLITE_OK;
}

static void segments_unmap(struct thr_heap *heap)
{
    for (uint32_t i = 0; i < THR_HEAP_SEGMENTS; i++) {
        uintptr_t at = atomic_load_explicit(&heap->segment[i], memory_order_relaxed);

        if (at != 0)
            thr_os_unmap((void *)(at + segment_start(i) * heap->group_bytes), segment_bytes(heap, i));
        atomic_store_explicit(&heap->segment[i], 0, memory_order_relaxed);
    }
}

int thr_heap_create(struct thr_heap *heap, struct thr_shm *shm, const char *path, uint32_t mode, uint32_t page_size)
{
    uint64_t frames;
    uint32_t soft;
    int rc;

    heap->shm = shm;
    heap->generation++;
    heap->page_size = page_size;
    heap->group_shift = 2;
    while (heap->group_shift < 9 && ((size_t)page_size << heap->group_shift) < GROUP_BYTES_WANTED)
        heap->group_shift++;
    heap->header_bytes = (uint32_t)(((sizeof(struct thr_frame) << heap->group_shift) + 4095) & ~(size_t)4095);
    heap->group_bytes = heap->header_bytes + ((size_t)page_size << heap->group_shift);
    frames = (uint64_t)(HEAP_BYTES_MAX / heap->group_bytes) << heap->group_shift;
    if (heap->limit_bytes != 0 && frames > heap->limit_bytes / page_size)
        frames = heap->limit_bytes / page_size;
    heap->frame_limit = frames > INT32_MAX ? INT32_MAX : (uint32_t)frames;
    soft = (uint32_t)((heap->limit_bytes != 0 ? heap->limit_bytes / 2 : THR_HEAP_LARGE) / page_size);
    heap->shard_free = soft / (4 * THR_SHARDS) < SHARD_FREE_MAX ? soft / (4 * THR_SHARDS) : SHARD_FREE_MAX;
    if ((rc = thr_os_open(path, THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_INSIDE, mode, &heap->fd, NULL)) !=
        SQLITE_OK)
        return rc;
    if ((rc = thr_os_truncate(heap->fd, 0)) != SQLITE_OK || (rc = segment_map(heap, 0)) != SQLITE_OK)
        goto err_close;
    lists_reset(heap);
    atomic_store_explicit(&heap->soft_frames, soft, memory_order_release);
    return SQLITE_OK;

err_close:
    thr_os_close(heap->fd);
    heap->fd = -1;
    return rc;
}

void thr_heap_close(struct thr_heap *heap)
{
    segments_unmap(heap);
    if (heap->fd >= 0)
        thr_os_close(heap->fd);
    heap->fd = -1;
}

/* Disk space for the frames of a group: a store into a hole of a full disk would be SIGBUS. */
static int group_fill(const struct thr_heap *heap, uint32_t group, uint32_t count)
{
    return thr_os_allocate(heap->fd, (int64_t)(group * heap->group_bytes), (int64_t)(count * heap->group_bytes));
}

/* Some more groups. heap_lock. */
static int heap_grow(struct thr_heap *heap)
{
    struct thr_head *head = heap->shm->head;
    uint32_t group = head->frame_count >> heap->group_shift, count = group / 16 + 1;
    int rc;

    count = count < GROW_GROUPS ? count : GROW_GROUPS;
    if ((uint64_t)head->frame_count + ((uint64_t)count << heap->group_shift) > heap->frame_limit)
        count = 1;
    if ((uint64_t)head->frame_count + ((uint64_t)count << heap->group_shift) > heap->frame_limit)
        return SQLITE_FULL;
    if ((rc = segment_map(heap, thr_heap_segment_of(group))) != SQLITE_OK ||
        (rc = segment_map(heap, thr_heap_segment_of(group + count - 1))) != SQLITE_OK)
        return rc;
    if ((rc = group_fill(heap, group, count)) == SQLITE_FULL && count > 1)
        rc = group_fill(heap, group, count = 1);
    if (rc == SQLITE_OK)
        head->frame_count += count << heap->group_shift;
    return rc;
}

/* A group whose disk space was given back comes into use again. heap_lock. */
static int hole_fill(struct thr_heap *heap)
{
    struct thr_head *head = heap->shm->head;
    uint32_t first = head->holes;
    int rc = group_fill(heap, first >> heap->group_shift, 1);

    if (rc != SQLITE_OK)
        return rc;
    THR_ASSERT(head->hole_count > 0);
    head->holes = thr_heap_frame(heap, first)->garbage_next;
    head->hole_count--;
    for (uint32_t i = 0; i < 1u << heap->group_shift; i++)
        thr_list_append(heap, &head->free_frames, first + i);
    return SQLITE_OK;
}

/* Frames that were never used: the first store to each page of the mapping costs a fault, unless many are made ready at
 * once. */
static void populate(const struct thr_heap *heap, uint32_t first, uint32_t end)
{
    const uintptr_t mask = 4095;

    for (uint32_t next; first < end; first = next) {
        uintptr_t from = (uintptr_t)thr_heap_page(heap, first) & ~mask, to;

        next = ((first >> heap->group_shift) + 1) << heap->group_shift;
        next = next < end ? next : end;
        to = ((uintptr_t)thr_heap_page(heap, next - 1) + heap->page_size + mask) & ~mask;
        thr_os_populate((void *)from, to - from);
    }
}

/* Move up to BATCH frames from the common stock to `own`. `grow`: from the disk, if there are none. SQLITE_OK also if it got
 * none without that. */
static int stock_take(struct thr_heap *heap, struct thr_frames *own, bool grow)
{
    struct thr_head *head = heap->shm->head;
    uint32_t before = own->free.count, used, taken, fresh, end;
    int rc = SQLITE_OK;

    thr_mutex_lock(&head->heap_lock, UINT64_MAX);
    if (grow && head->free_frames.count == 0 && head->next_frame >= head->frame_count)
        rc = head->holes != 0 ? hole_fill(heap) : heap_grow(heap);
    if (rc == SQLITE_OK)
        thr_list_move(heap, &own->free, &head->free_frames, BATCH);
    fresh = head->next_frame;
    for (; own->free.count < BATCH && head->next_frame < head->frame_count && rc == SQLITE_OK; head->next_frame++) {
        atomic_store_explicit(&thr_heap_frame(heap, head->next_frame)->seq, THR_FRAME_PRIVATE, memory_order_relaxed);
        thr_list_push(heap, &own->free, head->next_frame);
    }
    taken = own->free.count - before;
    used = atomic_load_explicit(&head->frames_used, memory_order_relaxed) + taken;
    atomic_store_explicit(&head->frames_used, used, memory_order_relaxed);
    if (used > atomic_load_explicit(&head->frames_peak, memory_order_relaxed))
        atomic_store_explicit(&head->frames_peak, used, memory_order_relaxed);
    end = head->next_frame;
    thr_mutex_unlock(&head->heap_lock);
    populate(heap, fresh, end);
    return rc;
}

void thr_stock_give(struct thr_heap *heap, struct thr_frame_list *list)
{
    struct thr_head *head = heap->shm->head;
    uint32_t used;

    if (list->count == 0)
        return;
    thr_mutex_lock(&head->heap_lock, UINT64_MAX);
    used = atomic_load_explicit(&head->frames_used, memory_order_relaxed);
    THR_ASSERT(used >= list->count);
    atomic_store_explicit(&head->frames_used, used - list->count, memory_order_relaxed);
    thr_list_prepend(heap, &head->free_frames, list);
    thr_mutex_unlock(&head->heap_lock);
}

/* The stock is empty. */
static int refill(struct thr_heap *heap, struct thr_frames *own)
{
    int rc;

    thr_shard_take(heap, own, BATCH);
    if (own->free.count >= BATCH / 2)
        return SQLITE_OK;
    if ((rc = stock_take(heap, own, false)) == SQLITE_OK && own->free.count > 0)
        return SQLITE_OK;
    if (thr_frames_gather(heap, GATHER, false) > 0)
        rc = stock_take(heap, own, false);
    if (own->free.count == 0)
        rc = stock_take(heap, own, true);
    if (own->free.count == 0 && rc != SQLITE_OK) {
        /* Frames that another transaction gathers meanwhile are in its hands: it holds few of them. */
        if (thr_frames_gather(heap, BATCH, true) > 0)
            rc = stock_take(heap, own, false);
        if (own->free.count == 0 && rc == SQLITE_OK) /* others were quicker */
            rc = stock_take(heap, own, true);
    }
    return own->free.count > 0 ? SQLITE_OK : rc;
}

/* Forget a stock that belongs to an older heap. */
static void check_generation(const struct thr_heap *heap, struct thr_frames *own)
{
    if (own->generation != heap->generation)
        *own = (struct thr_frames){.generation = heap->generation, .shard = own->shard};
}

int thr_frame_take(struct thr_heap *heap, struct thr_frames *own, uint32_t *index_out)
{
    int rc;

    check_generation(heap, own);
    if (own->free.count == 0 && (rc = refill(heap, own)) != SQLITE_OK)
        return rc;
    *index_out = thr_list_pop(heap, &own->free);
    THR_ASSERT(atomic_load_explicit(&thr_heap_frame(heap, *index_out)->seq, memory_order_relaxed) == THR_FRAME_PRIVATE);
    return SQLITE_OK;
}

void thr_frame_give(struct thr_heap *heap, struct thr_frames *own, uint32_t index)
{
    if (own->generation != heap->generation)
        return; /* it went with its heap */
    THR_ASSERT(atomic_load_explicit(&thr_heap_frame(heap, index)->seq, memory_order_relaxed) == THR_FRAME_PRIVATE);
    thr_list_push(heap, &own->free, index);
}

void thr_frame_retire(struct thr_heap *heap, struct thr_frames *own, uint32_t index)
{
    const struct thr_frame *frame = thr_heap_frame(heap, index);

    check_generation(heap, own);
    THR_ASSERT(atomic_load_explicit(&frame->superseded, memory_order_relaxed) >
               atomic_load_explicit(&frame->seq, memory_order_relaxed));
    thr_list_append(heap, &own->retired, index);
}

void thr_frames_settle(struct thr_heap *heap, struct thr_frames *own)
{
    struct thr_head *head;
    struct thr_shard *shard;
    uint32_t at = own->shard % THR_SHARDS;

    if (own->generation != heap->generation || own->free.count + own->retired.count == 0)
        return;
    head = heap->shm->head;
    for (uint32_t i = 0; !thr_mutex_try(&head->shard_lock[at]); i++) {
        if (i == THR_SHARDS) {
            thr_mutex_lock(&head->shard_lock[at], UINT64_MAX);
            break;
        }
        at = (at + 1) % THR_SHARDS;
    }
    shard = &head->shard[at];
    shard->fresh += own->retired.count;
    thr_list_splice(heap, &shard->young, &own->retired);
    if (shard->free.count + own->free.count <= heap->shard_free)
        thr_list_prepend(heap, &shard->free, &own->free);
    thr_mutex_unlock(&head->shard_lock[at]);
    thr_stock_give(heap, &own->free);
}

/* Choose groups that are free as a whole, `groups` at most, and take their frames out of the common stock. Returns a list of
 * them, like the one of holes. heap_lock. */
static uint32_t take_groups(struct thr_heap *heap, uint16_t *counts, uint32_t groups)
{
    struct thr_head *head = heap->shm->head;
    struct thr_frame_list kept = {0};
    const uint32_t whole = 1u << heap->group_shift;
    uint32_t index, taken = 0;

    for (index = head->free_frames.first; index != 0; index = thr_heap_frame(heap, index)->garbage_next)
        counts[index >> heap->group_shift]++;
    for (uint32_t group = head->frame_count >> heap->group_shift; group-- > 1;)
        if (counts[group] == whole && groups > 0)
            groups--; /* the last ones first */
        else
            counts[group] = 0;
    counts[0] = 0; /* it has the frame 0, which stands for none */
    while ((index = thr_list_pop(heap, &head->free_frames)) != 0) {
        if (counts[index >> heap->group_shift] == 0) {
            thr_list_append(heap, &kept, index);
        } else if (index % whole == 0) {
            thr_heap_frame(heap, index)->garbage_next = taken;
            taken = index;
        }
    }
    head->free_frames = kept;
    return taken;
}

/* Put the frames of a group that stays as it is back. heap_lock. */
static void keep_group(struct thr_heap *heap, uint32_t first)
{
    for (uint32_t i = 0; i < 1u << heap->group_shift; i++)
        thr_list_append(heap, &heap->shm->head->free_frames, first + i);
}

void thr_heap_shrink(struct thr_heap *heap)
{
    struct thr_head *head = heap->shm->head;
    uint32_t spare = SPARE_BYTES / heap->page_size, used, frames, taken = 0, next;
    uint16_t *counts;

    if (heap->fd < 0)
        return;
    thr_mutex_lock(&head->heap_lock, UINT64_MAX);
    frames = head->frame_count;
    used = atomic_load_explicit(&head->frames_used, memory_order_relaxed);
    spare += used / 2;
    if (head->free_frames.count < spare + spare / 2) {
        thr_mutex_unlock(&head->heap_lock);
        return;
    }
    thr_mutex_unlock(&head->heap_lock);
    if ((counts = thr_os_alloc((frames >> heap->group_shift) * sizeof *counts)) == NULL)
        return;
    thr_mutex_lock(&head->heap_lock, UINT64_MAX);
    if (head->frame_count == frames && head->free_frames.count > spare)
        taken = take_groups(heap, counts, (head->free_frames.count - spare) >> heap->group_shift);
    thr_mutex_unlock(&head->heap_lock);
    thr_os_free(counts);
    for (; taken != 0; taken = next) {
        size_t at = (taken >> heap->group_shift) * heap->group_bytes + heap->header_bytes;
        int rc = thr_os_punch(heap->fd, (int64_t)at, (int64_t)(heap->group_bytes - heap->header_bytes));

        next = thr_heap_frame(heap, taken)->garbage_next;
        thr_mutex_lock(&head->heap_lock, UINT64_MAX);
        if (rc == SQLITE_OK) {
            thr_heap_frame(heap, taken)->garbage_next = head->holes;
            head->holes = taken;
            head->hole_count++;
        } else {
            keep_group(heap, taken);
        }
        thr_mutex_unlock(&head->heap_lock);
    }
}
