/* SPDX-License-Identifier: MIT */
#include "archive.h"

#include <stdio.h>
#include <string.h>

#include "work.h"

enum { ZEROS = 64, ZEROS_MAX = 1024 };

bool archive_next(const uint8_t *input, size_t bytes, size_t *at, struct archive_entry *out)
{
    size_t left = bytes - *at, name_bytes;
    uint16_t zeros;
    uint32_t content;

    if (left < ARCHIVE_HEAD_BYTES)
        return false;
    memset(out, 0, sizeof *out);
    out->head_at = *at;
    out->kind = (enum archive_kind)(input[*at] % ARCHIVE_KINDS);
    name_bytes = input[*at + 1];
    memcpy(&zeros, input + *at + 2, sizeof zeros);
    memcpy(&content, input + *at + 4, sizeof content);
    left -= ARCHIVE_HEAD_BYTES;
    *at += ARCHIVE_HEAD_BYTES;
    name_bytes = name_bytes < left ? name_bytes : left;
    memcpy(out->name, input + *at, name_bytes);
    for (char *slash; (slash = strchr(out->name, '/')) != NULL;)
        *slash = '_';
    if (out->name[0] == '\0' || strcmp(out->name, ".") == 0 || strcmp(out->name, "..") == 0)
        (void)snprintf(out->name, sizeof out->name, "log-1");
    left -= name_bytes;
    *at += name_bytes;
    out->zeros = (size_t)(zeros % (ZEROS_MAX + 1)) * ZEROS;
    out->at = *at;
    out->bytes = content < left ? content : left;
    *at += out->bytes;
    return true;
}

size_t archive_add(uint8_t *to, size_t room, enum archive_kind kind, const char *name, const uint8_t *content,
                   size_t bytes, size_t keep)
{
    size_t name_bytes = strlen(name), kept = bytes, zeros;
    uint16_t zeros16;
    uint32_t kept32;

    while (kept > keep && content[kept - 1] == 0)
        kept--;
    zeros = (bytes - kept) / ZEROS;
    kept += (bytes - kept) % ZEROS;
    zeros = zeros < ZEROS_MAX ? zeros : ZEROS_MAX;
    if (name_bytes > 255 || ARCHIVE_HEAD_BYTES + name_bytes + kept > room)
        return 0;
    zeros16 = (uint16_t)zeros;
    kept32 = (uint32_t)kept;
    to[0] = (uint8_t)kind;
    to[1] = (uint8_t)name_bytes;
    memcpy(to + 2, &zeros16, sizeof zeros16);
    memcpy(to + 4, &kept32, sizeof kept32);
    for (size_t i = 0; i < name_bytes; i++)
        to[ARCHIVE_HEAD_BYTES + i] = (uint8_t)name[i];
    if (kept > 0)
        memcpy(to + ARCHIVE_HEAD_BYTES + name_bytes, content, kept);
    return ARCHIVE_HEAD_BYTES + name_bytes + kept;
}

size_t archive_replace(uint8_t *input, size_t bytes, size_t room, const struct archive_entry *entry,
                       const uint8_t *content, size_t content_bytes)
{
    size_t end = entry->at + entry->bytes;
    uint32_t content32 = (uint32_t)content_bytes;

    if (bytes - entry->bytes + content_bytes > room)
        return bytes;
    memmove(input + entry->at + content_bytes, input + end, bytes - end);
    if (content_bytes > 0)
        memcpy(input + entry->at, content, content_bytes);
    memcpy(input + entry->head_at + 4, &content32, sizeof content32);
    return bytes - entry->bytes + content_bytes;
}

void archive_write(const char *path, const uint8_t *input, const struct archive_entry *entry)
{
    work_write(path, input + entry->at, entry->bytes, entry->zeros);
}
