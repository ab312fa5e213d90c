/* Page 1: which of its bytes are made up for each transaction.
 *
 *   18..19  file format versions: served as 1, so that the pager does not look for a WAL; kept as they are in the file.
 *           While the file may be incomplete without the log, the highest bit of byte 19 is set there (the mark): stock
 *           SQLite then refuses it even if the directory is gone
 *   24..27  change counter: changes when somebody else has committed, and only then
 *   28..31  size in pages
 *   32..39  first trunk and number of free pages (free-list format 2)
 *   72..91  SQLite leaves them zero. While the file is marked they say which commits its pages may hold (src/ckpt/span.h);
 *           served as zero, and zero again at rest
 *   92..95  change counter for which the size is right
 *   96..99  SQLite version that wrote last
 *
 * A change of other bytes is a change of page 1, and conflicts with all who read it: everybody.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_PAGE1_H
#define THR_PAGE1_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../util/bytes.h"

enum {
    THR_P1_PAGE_SIZE = 16,
    THR_P1_VERSIONS = 18,
    THR_P1_RESERVED = 20,
    THR_P1_CHANGES = 24,
    THR_P1_SIZE = 28,
    THR_P1_TRUNK = 32,
    THR_P1_FREE = 36,
    THR_P1_LARGEST_ROOT = 52,
    THR_P1_SPAN = 72,
    THR_P1_VALID_FOR = 92,
    THR_P1_HEADER = 100
};

#define THR_P1_MARK 0x80u
#define THR_P1_MARK_AT (THR_P1_VERSIONS + 1)
#define THR_P1_SPAN_BYTES 20

/* Take off what only a file in use has. Returns whether it was marked. */
static inline bool thr_page1_unmark(uint8_t *page)
{
    bool marked = (page[THR_P1_MARK_AT] & THR_P1_MARK) != 0;

    page[THR_P1_MARK_AT] &= (uint8_t)~THR_P1_MARK;
    memset(page + THR_P1_SPAN, 0, THR_P1_SPAN_BYTES);
    return marked;
}

static inline uint32_t thr_page1_page_size(const uint8_t *page)
{
    return (uint32_t)page[THR_P1_PAGE_SIZE] << 8 | (uint32_t)page[THR_P1_PAGE_SIZE + 1] << 16;
}

/* Put the made-up bytes of `page` back to those of `before`. */
static inline void thr_page1_keep(uint8_t *page, const uint8_t *before, bool free_list)
{
    memcpy(page + THR_P1_VERSIONS, before + THR_P1_VERSIONS, 2);
    memcpy(page + THR_P1_CHANGES, before + THR_P1_CHANGES, free_list ? 16 : 8);
    memcpy(page + THR_P1_VALID_FOR, before + THR_P1_VALID_FOR, 8);
}

#endif
