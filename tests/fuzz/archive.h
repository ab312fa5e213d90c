/* The input of both fuzzers: files, one after the other.
 *
 *   off size field
 *     0    1 kind     enum archive_kind, modulo their number
 *     1    1 name     bytes of the name that follows
 *     2    2 zeros    so many times 64 zero bytes follow the content in the file, modulo 1025
 *     4    4 bytes    of the content, which follows the name
 *
 * Every input is an archive: what is longer than the rest of the input ends there. All numbers are little-endian.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_ARCHIVE_H
#define FUZZ_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum archive_kind {
    ARCHIVE_BASE,    /* the database, instead of the usual one */
    ARCHIVE_LOG,     /* a file in <db>-journal/ */
    ARCHIVE_OTHER,   /* a file in the directory of another database */
    ARCHIVE_JOURNAL, /* <db>-journal itself, as a regular file */
    ARCHIVE_WAL,     /* <db>-wal */
    ARCHIVE_FOLDER,  /* a directory in <db>-journal/ */
    ARCHIVE_FIFO,    /* a pipe in <db>-journal/ */
    ARCHIVE_LINK,    /* a symbolic link in <db>-journal/; the content is where it leads */
    ARCHIVE_KINDS
};

#define ARCHIVE_HEAD_BYTES 8
#define ARCHIVE_ENTRIES_MAX 16

struct archive_entry {
    enum archive_kind kind;
    char name[256]; /* without a slash, never empty, . or .. */
    size_t zeros;
    size_t head_at;   /* the entry, in the input */
    size_t at, bytes; /* its content */
};

/* The entry at *at, which moves on to the next. False at the end. */
bool archive_next(const uint8_t *input, size_t bytes, size_t *at, struct archive_entry *out);
/* Append an entry to `to`; of the zeros at the end of the content those after the first `keep` bytes become `zeros`.
 * Returns its bytes, 0 if `room` is too small. */
size_t archive_add(uint8_t *to, size_t room, enum archive_kind kind, const char *name, const uint8_t *content,
                   size_t bytes, size_t keep);
/* The entry has this content from now on. Returns the new size of the input, the old one if `room` is too small. */
size_t archive_replace(uint8_t *input, size_t bytes, size_t room, const struct archive_entry *entry,
                       const uint8_t *content, size_t content_bytes);

/* Write the entry to the file `path`, with its zeros. */
void archive_write(const char *path, const uint8_t *input, const struct archive_entry *entry);

#endif
