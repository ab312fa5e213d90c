/* Where each frame is, for builds with slow asserts and for tests.
 *
 * SPDX-License-Identifier: MIT */
#include "../os/assert.h"
#include "../os/os.h"
#include "heap.h"

enum { IN_FREE = 1, IN_SUPERSEDED = 2, IN_CHAIN = 4 };

static void count_list(const struct thr_heap *heap, uint8_t *places, const struct thr_frame_list *list, uint8_t place)
{
    uint32_t count = 0;

    for (uint32_t index = list->first; index != 0; index = thr_heap_frame(heap, index)->garbage_next) {
        uint64_t seq = atomic_load_explicit(&thr_heap_frame(heap, index)->seq, memory_order_relaxed);

        THR_ASSERT(index < heap->shm->head->next_frame && places[index] == 0);
        THR_ASSERT((seq == THR_FRAME_PRIVATE) == (place == IN_FREE));
        places[index] = place;
        count++;
        THR_ASSERT(count < list->count || index == list->last);
    }
    THR_ASSERT(count == list->count);
}

static void count_chain(const struct thr_heap *heap, uint8_t *places, uint32_t newest)
{
    for (uint32_t index = newest; index != 0;
         index = atomic_load_explicit(&thr_heap_frame(heap, index)->older, memory_order_relaxed)) {
        const struct thr_frame *frame = thr_heap_frame(heap, index);
        bool superseded = atomic_load_explicit(&frame->superseded, memory_order_relaxed) != 0;

        THR_ASSERT(atomic_load_explicit(&frame->newer, memory_order_relaxed) != THR_FRAME_UNLINKED);
        THR_ASSERT(superseded || index == newest);
        THR_ASSERT(places[index] == (superseded ? IN_SUPERSEDED : 0));
        places[index] |= IN_CHAIN;
    }
}

void thr_heap_check(const struct thr_heap *heap, const struct thr_frames *own)
{
    const struct thr_head *head;
    uint32_t used, index;
    uint8_t *places;

    if (heap->fd < 0 || (places = thr_os_alloc(heap->shm->head->next_frame)) == NULL)
        return;
    head = heap->shm->head;
    used = head->next_frame - 1 - head->free_frames.count - (head->hole_count << heap->group_shift);
    count_list(heap, places, &head->free_frames, IN_FREE);
    for (index = head->holes; index != 0; index = thr_heap_frame(heap, index)->garbage_next)
        for (uint32_t i = 0; i < 1u << heap->group_shift; i++) {
            THR_ASSERT(places[index + i] == 0);
            places[index + i] = IN_FREE;
        }
    for (uint32_t at = 0; at < THR_SHARDS; at++) {
        count_list(heap, places, &head->shard[at].free, IN_FREE);
        count_list(heap, places, &head->shard[at].young, IN_SUPERSEDED);
        count_list(heap, places, &head->shard[at].again, IN_SUPERSEDED);
        for (uint32_t i = 0; i < THR_HOLDERS; i++)
            count_list(heap, places, &head->shard[at].held[i].frames, IN_SUPERSEDED);
    }
    if (own != NULL) {
        count_list(heap, places, &own->free, IN_FREE);
        count_list(heap, places, &own->retired, IN_SUPERSEDED);
    }
    for (uint32_t pgno = 0;; pgno += THR_CHUNK_PAGES) { /* the first ones have chunks (thr_shm_reserve_pages()) */
        const struct thr_chunk *at = thr_shm_chunk(heap->shm, pgno);

        if (at == NULL)
            break;
        for (uint32_t i = 0; i < THR_CHUNK_PAGES; i++)
            count_chain(heap, places, atomic_load_explicit(&at->newest[i], memory_order_relaxed));
    }
    for (index = 1; index < head->next_frame; index++) {
        bool unlinked = atomic_load_explicit(&thr_heap_frame(heap, index)->newer, memory_order_relaxed) ==
                        THR_FRAME_UNLINKED;

        THR_ASSERT(places[index] != 0);
        THR_ASSERT(places[index] != IN_SUPERSEDED || unlinked);
    }
    THR_ASSERT(used == atomic_load_explicit(&head->frames_used, memory_order_relaxed));
    thr_os_free(places);
}
