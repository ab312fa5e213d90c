/* What a database's parts need to start and to be put back.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_DB_H
#define THR_DB_H

#include "txn.h"

/* The heap, for a page size that is now known. The caller is alone, and no frame is in use. SQLITE_OK, SQLITE_NOMEM,
 * SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_IOERR_*. */
int thr_db_start_heap(struct thr_db *db, uint32_t page_size);
/* Path of a file in the database's directory; the caller frees it. NULL: no memory. */
char *thr_db_file(const struct thr_db *db, const char *name);

#endif
