/* The database file as stock SQLite wants it: free list and header.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_STOCK_H
#define THR_STOCK_H

#include "../base/base.h"
#include "../space/chain.h"

/* What the header of a file says. */
struct thr_stock_header {
    bool empty;   /* a file without a byte */
    bool foreign; /* not a database, or one that contradicts its own size: leave it alone */
    bool wal;     /* left in WAL mode */
    uint32_t page_size, usable_size;
    uint32_t page_count;
    uint32_t change_counter;
    uint32_t first_trunk, free_count;
    bool auto_vacuum;
    bool marked; /* it may be incomplete without its log */
};

/* SQLITE_OK, SQLITE_IOERR_*. */
int thr_stock_header_read(struct thr_base *base, struct thr_stock_header *out);
/* The pages of the free list. SQLITE_OK, SQLITE_CORRUPT if it is no list, SQLITE_NOMEM, SQLITE_IOERR_*. */
int thr_stock_list_read(struct thr_base *base, const struct thr_stock_header *header, struct thr_pages *to);

/* Write page 1, but for what the file says of itself while it is in use. checkpoint_lock. */
int thr_stock_write_page1(struct thr_base *base, const uint8_t *page, uint32_t page_size);

/* Complete the file: leave out free pages at the end, write the rest of them as a free list (with_list), the size and
 * the change counter to the header. A mark stays. *bytes_out: where the file is to end. `free_pages` is ascending and is
 * used up. */
int thr_stock_finish(struct thr_base *base, uint32_t page_size, uint32_t page_count, struct thr_pages *free_pages,
                     bool with_list, uint32_t change_counter, int64_t *bytes_out);

#endif
