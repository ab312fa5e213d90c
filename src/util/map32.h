/* A small hash map from non-zero 32-bit keys to 32-bit values: open addressing, linear probing, no removal but of all.
 * One thread at a time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_MAP32_H
#define THR_MAP32_H

#include <stdbool.h>
#include <stdint.h>

struct thr_map32 {
    struct thr_map32_entry {
        uint32_t key, value;
    } * entries;
    uint32_t mask; /* capacity - 1; 0 while empty */
    uint32_t count;
};

void thr_map32_free(struct thr_map32 *map);
void thr_map32_clear(struct thr_map32 *map);
/* The place of the value, or NULL. Valid until the next insertion. */
uint32_t *thr_map32_find(const struct thr_map32 *map, uint32_t key);
/* The place of the value, made with value 0 if it was not there (*fresh_out, may be NULL). NULL: no memory. */
uint32_t *thr_map32_insert(struct thr_map32 *map, uint32_t key, bool *fresh_out);

#endif
