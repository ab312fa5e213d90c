/* SPDX-License-Identifier: MIT */
#include "heap.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"

enum { BATCH = 16, GROUP_BYTES_WANTED = 1 << 20, HEAP_MAP_LEAST = 1 << 26 };

#ifdef __has_feature
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define LITTLE_ADDRESS_SPACE 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || defined(LITTLE_ADDRESS_SPACE)
#define HEAP_MAP_BYTES (UINT64_C(1) << 34) /* sanitizers need most of the address space for themselves */
#else
#define HEAP_MAP_BYTES (UINT64_C(1) << 40)
#endif

int thr_heap_create(struct thr_heap *heap, struct thr_shm *shm, const char *path, uint32_t mode, uint32_t page_size)
{
    struct thr_head *head = shm->head;
    uint64_t frames;
    void *at = NULL;
    int rc;

    heap->shm = shm;
    heap->generation++;
    heap->page_size = page_size;
    heap->group_shift = 4;
    while (heap->group_shift < 10 && ((size_t)page_size << heap->group_shift) < GROUP_BYTES_WANTED)
        heap->group_shift++;
    heap->header_bytes = (uint32_t)(((sizeof(struct thr_frame) << heap->group_shift) + 4095) & ~(size_t)4095);
    heap->group_bytes = heap->header_bytes + ((size_t)page_size << heap->group_shift);
    heap->map_bytes = HEAP_MAP_BYTES;
    frames = (uint64_t)(heap->map_bytes / heap->group_bytes) << heap->group_shift;
    if (heap->limit_bytes != 0 && frames > heap->limit_bytes / page_size)
        frames = heap->limit_bytes / page_size;
    heap->frame_limit = frames > INT32_MAX ? INT32_MAX : (uint32_t)frames;
    if ((rc = thr_os_open(path, THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_INSIDE, mode, &heap->fd, NULL)) !=
        SQLITE_OK)
        return rc;
    if ((rc = thr_os_truncate(heap->fd, 0)) != SQLITE_OK)
        goto err_close;
    if ((rc = thr_os_map_some(heap->fd, &heap->map_bytes, HEAP_MAP_LEAST, 2, true, &at)) != SQLITE_OK)
        goto err_close;
    frames = (uint64_t)(heap->map_bytes / heap->group_bytes) << heap->group_shift;
    if (frames < heap->frame_limit)
        heap->frame_limit = (uint32_t)frames;
    heap->at = at;
    head->free_frames = head->orphans = head->frame_count = 0;
    head->next_frame = 1;
    atomic_store_explicit(&head->frames_used, 0, memory_order_relaxed);
    atomic_store_explicit(&heap->soft_frames,
                          (uint32_t)((heap->limit_bytes != 0 ? heap->limit_bytes / 2 : THR_HEAP_LARGE) / page_size),
                          memory_order_release);
    return SQLITE_OK;

err_close:
    thr_os_close(heap->fd);
    heap->fd = -1;
    return rc;
}

void thr_heap_close(struct thr_heap *heap)
{
    if (heap->at != NULL)
        thr_os_unmap(heap->at, heap->map_bytes);
    if (heap->fd >= 0)
        thr_os_close(heap->fd);
    heap->at = NULL;
    heap->fd = -1;
}

/* One more group, with its disk space: a store into a hole of a full disk would be SIGBUS. heap_lock. */
static int heap_grow(struct thr_heap *heap)
{
    struct thr_head *head = heap->shm->head;
    uint32_t group = head->frame_count >> heap->group_shift;
    int rc;

    if (head->frame_count + (1u << heap->group_shift) > heap->frame_limit)
        return SQLITE_FULL;
    rc = thr_os_allocate(heap->fd, (int64_t)(group * heap->group_bytes), (int64_t)heap->group_bytes);
    if (rc == SQLITE_OK)
        head->frame_count += 1u << heap->group_shift;
    return rc;
}

/* Move up to BATCH frames from the common stock to `own`. */
static int stock_take(struct thr_heap *heap, struct thr_frames *own)
{
    struct thr_head *head = heap->shm->head;
    uint32_t used, index, taken = 0;
    int rc = SQLITE_OK;

    thr_mutex_lock(&head->heap_lock, UINT64_MAX);
    while ((index = head->orphans) != 0) { /* left by closed connections: as good as ours now */
        head->orphans = thr_heap_frame(heap, index)->garbage_next;
        thr_frame_retire(heap, own, index);
    }
    while (taken < BATCH) {
        if ((index = head->free_frames) != 0) {
            head->free_frames = thr_heap_frame(heap, index)->garbage_next;
        } else {
            if (head->next_frame >= head->frame_count && (rc = heap_grow(heap)) != SQLITE_OK)
                break;
            index = head->next_frame++;
            atomic_store_explicit(&thr_heap_frame(heap, index)->seq, THR_FRAME_PRIVATE, memory_order_relaxed);
        }
        thr_heap_frame(heap, index)->garbage_next = own->free;
        own->free = index;
        taken++;
    }
    own->free_count += taken;
    used = atomic_load_explicit(&head->frames_used, memory_order_relaxed) + taken;
    atomic_store_explicit(&head->frames_used, used, memory_order_relaxed);
    if (used > atomic_load_explicit(&head->frames_peak, memory_order_relaxed))
        atomic_store_explicit(&head->frames_peak, used, memory_order_relaxed);
    thr_mutex_unlock(&head->heap_lock);
    return taken > 0 ? SQLITE_OK : rc;
}

int thr_frame_take(struct thr_heap *heap, struct thr_frames *own, uint32_t *index_out)
{
    int rc;

    thr_frames_check(heap, own);
    if (own->free == 0 && thr_frames_reclaim(heap, own) < BATCH / 2 && own->free_count < BATCH / 2 &&
        (rc = stock_take(heap, own)) != SQLITE_OK && own->free == 0)
        return rc;
    *index_out = own->free;
    own->free = thr_heap_frame(heap, *index_out)->garbage_next;
    own->free_count--;
    return SQLITE_OK;
}

void thr_frame_give(struct thr_heap *heap, struct thr_frames *own, uint32_t index)
{
    struct thr_frame *frame = thr_heap_frame(heap, index);

    if (own->generation != heap->generation)
        return; /* it went with its heap */
    /* Before anything else changes: a reader may still stand on it (see struct thr_frame). */
    atomic_store_explicit(&frame->seq, THR_FRAME_PRIVATE, memory_order_relaxed);
    frame->garbage_next = own->free;
    own->free = index;
    own->free_count++;
}

void thr_frame_retire(struct thr_heap *heap, struct thr_frames *own, uint32_t index)
{
    thr_heap_frame(heap, index)->garbage_next = 0;
    if (own->young_tail != 0)
        thr_heap_frame(heap, own->young_tail)->garbage_next = index;
    else
        own->young_head = index;
    own->young_tail = index;
}

void thr_frames_release(struct thr_heap *heap, struct thr_frames *own)
{
    struct thr_head *head;
    uint32_t lists[2], index, next, freed;

    if (heap->at == NULL)
        return;
    head = heap->shm->head;
    thr_frames_reclaim(heap, own);
    lists[0] = own->young_head;
    lists[1] = own->pinned;
    thr_mutex_lock(&head->heap_lock, UINT64_MAX);
    for (int i = 0; i < 2; i++) {
        for (index = lists[i]; index != 0; index = next) {
            next = thr_heap_frame(heap, index)->garbage_next;
            thr_heap_frame(heap, index)->garbage_next = head->orphans;
            head->orphans = index;
        }
    }
    for (freed = 0, index = own->free; index != 0; index = next, freed++) {
        next = thr_heap_frame(heap, index)->garbage_next;
        thr_heap_frame(heap, index)->garbage_next = head->free_frames;
        head->free_frames = index;
    }
    atomic_fetch_sub_explicit(&head->frames_used, freed, memory_order_relaxed);
    thr_mutex_unlock(&head->heap_lock);
    memset(own, 0, sizeof *own);
}
