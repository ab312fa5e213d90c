/* A commit that spans several databases (ATTACH): all of them or none, also if the process dies in between.
 *
 * The committer logs a record in each while it holds all their commit locks. Then it marks that of one of them (the
 * coordinator) decided: that is the moment of the commit. Then it marks the others and publishes. After a crash a
 * record that is not decided can only be the last of its log; its coordinator's record says what became of it. The
 * coordinator's recovery passes a decision on to the others before it forgets it.
 *
 *   off size field
 *     0   16 id             random
 *    16    4 coordinator    1 in the coordinator's record
 *    20    4 count          of the paths
 *    24      count journal directories, each ended by a zero byte: the coordinator's, then all that may take part
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_GROUP_H
#define THR_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SQLite has at most 125 attached databases. */
#define THR_GROUP_MAX 127u

struct thr_group_head {
    uint8_t id[16];
    uint32_t coordinator;
    uint32_t count;
};

/* Path `index` of the group, or NULL if there is none or the bytes make no sense. */
const char *thr_group_path(const uint8_t *group, size_t bytes, uint32_t index);

#endif
