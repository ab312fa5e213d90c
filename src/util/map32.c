/* SPDX-License-Identifier: MIT */
#include "map32.h"

#include <string.h>

#include "../os/os.h"

enum { FIRST_CAPACITY = 64, KEEP_CAPACITY = 4096 };

void thr_map32_free(struct thr_map32 *map)
{
    thr_os_free(map->entries);
    memset(map, 0, sizeof *map);
}

void thr_map32_clear(struct thr_map32 *map)
{
    if (map->count == 0)
        return;
    if (map->mask >= KEEP_CAPACITY) { /* one large use does not make every later clearing dear */
        thr_map32_free(map);
        return;
    }
    memset(map->entries, 0, (map->mask + 1) * sizeof *map->entries);
    map->count = 0;
}

static inline uint32_t place(const struct thr_map32 *map, uint32_t key)
{
    return (key * 2654435769u >> 7) & map->mask; /* Knuth's multiplicative hash */
}

uint32_t *thr_map32_find(const struct thr_map32 *map, uint32_t key)
{
    if (map->count == 0)
        return NULL;
    for (uint32_t i = place(map, key);; i = (i + 1) & map->mask) {
        if (map->entries[i].key == key)
            return &map->entries[i].value;
        if (map->entries[i].key == 0)
            return NULL;
    }
}

static bool grow(struct thr_map32 *map)
{
    struct thr_map32 larger = {.mask = map->entries == NULL ? FIRST_CAPACITY - 1 : map->mask * 2 + 1};

    if ((larger.entries = thr_os_alloc(((size_t)larger.mask + 1) * sizeof *larger.entries)) == NULL)
        return false;
    for (uint32_t i = 0; map->entries != NULL && i <= map->mask; i++) {
        uint32_t at;

        if (map->entries[i].key == 0)
            continue;
        for (at = place(&larger, map->entries[i].key); larger.entries[at].key != 0; at = (at + 1) & larger.mask)
            ;
        larger.entries[at] = map->entries[i];
    }
    larger.count = map->count;
    thr_os_free(map->entries);
    *map = larger;
    return true;
}

uint32_t *thr_map32_insert(struct thr_map32 *map, uint32_t key, bool *fresh_out)
{
    uint32_t i;

    if ((map->entries == NULL || map->count * 4 >= map->mask * 3) && !grow(map))
        return NULL;
    for (i = place(map, key); map->entries[i].key != 0; i = (i + 1) & map->mask) {
        if (map->entries[i].key == key) {
            if (fresh_out != NULL)
                *fresh_out = false;
            return &map->entries[i].value;
        }
    }
    map->entries[i].key = key;
    map->entries[i].value = 0;
    map->count++;
    if (fresh_out != NULL)
        *fresh_out = true;
    return &map->entries[i].value;
}
