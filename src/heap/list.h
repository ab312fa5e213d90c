/* Lists of frames, linked by garbage_next. The owner of a list, or the holder of its lock, calls.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_LIST_H
#define THR_LIST_H

#include "../os/assert.h"
#include "heap.h"

static inline void thr_list_push(const struct thr_heap *heap, struct thr_frame_list *list, uint32_t index)
{
    THR_ASSERT(index != 0 && (list->first == 0) == (list->count == 0));
    thr_heap_frame(heap, index)->garbage_next = list->first;
    list->first = index;
    if (list->count++ == 0)
        list->last = index;
}

static inline void thr_list_append(const struct thr_heap *heap, struct thr_frame_list *list, uint32_t index)
{
    THR_ASSERT(index != 0 && (list->first == 0) == (list->count == 0));
    thr_heap_frame(heap, index)->garbage_next = 0;
    if (list->count++ == 0)
        list->first = index;
    else
        thr_heap_frame(heap, list->last)->garbage_next = index;
    list->last = index;
}

/* 0: it is empty. */
static inline uint32_t thr_list_pop(const struct thr_heap *heap, struct thr_frame_list *list)
{
    uint32_t index = list->first;

    THR_ASSERT((index == 0) == (list->count == 0));
    if (index == 0)
        return 0;
    list->first = thr_heap_frame(heap, index)->garbage_next;
    if (--list->count == 0)
        list->last = 0;
    return index;
}

/* All of `from` to the end of `to`. */
static inline void thr_list_splice(const struct thr_heap *heap, struct thr_frame_list *to, struct thr_frame_list *from)
{
    if (from->count == 0)
        return;
    THR_ASSERT(thr_heap_frame(heap, from->last)->garbage_next == 0);
    if (to->count == 0)
        to->first = from->first;
    else
        thr_heap_frame(heap, to->last)->garbage_next = from->first;
    to->last = from->last;
    to->count += from->count;
    *from = (struct thr_frame_list){0};
}

/* All of `from` to the front of `to`: free frames that were used last, and may be in a processor's cache, go first. */
static inline void thr_list_prepend(const struct thr_heap *heap, struct thr_frame_list *to, struct thr_frame_list *from)
{
    thr_list_splice(heap, from, to);
    *to = *from;
    *from = (struct thr_frame_list){0};
}

/* The first `count` of `from`, if it has so many, to the front of `to`. */
static inline void thr_list_move(const struct thr_heap *heap, struct thr_frame_list *to, struct thr_frame_list *from,
                                 uint32_t count)
{
    struct thr_frame_list moved = *from;

    if (count == 0 || from->count == 0)
        return;
    if (count < from->count) {
        moved.last = from->first;
        for (moved.count = 1; moved.count < count; moved.count++)
            moved.last = thr_heap_frame(heap, moved.last)->garbage_next;
        from->first = thr_heap_frame(heap, moved.last)->garbage_next;
        from->count -= count;
        thr_heap_frame(heap, moved.last)->garbage_next = 0;
    } else {
        *from = (struct thr_frame_list){0};
    }
    thr_list_prepend(heap, to, &moved);
}

#endif
