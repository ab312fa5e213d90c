/* SPDX-License-Identifier: MIT */
#include "group.h"

#include <string.h>

const char *thr_group_path(const uint8_t *group, size_t bytes, uint32_t index)
{
    struct thr_group_head head;
    const char *at, *end = (const char *)group + bytes;

    if (bytes <= sizeof head || group[bytes - 1] != '\0')
        return NULL;
    memcpy(&head, group, sizeof head);
    if (index >= head.count || head.count > THR_GROUP_MAX)
        return NULL;
    for (at = (const char *)group + sizeof head; at < end && index > 0; index--)
        at += strlen(at) + 1;
    return at < end ? at : NULL;
}
