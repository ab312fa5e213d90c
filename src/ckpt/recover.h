/* Recovery: after a crash, the log's unbroken prefix of whole commits goes to the database file (I5).
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_RECOVER_H
#define THR_RECOVER_H

#include "../base/base.h"

struct thr_recovery {
    uint64_t commits;
    uint64_t log_bytes;
    uint32_t page_count;
};

/* Does `directory` hold files that are not ours? Then *name_out (of name_bytes) is one of them. SQLITE_OK,
 * SQLITE_CANTOPEN (foreign), SQLITE_NOMEM, SQLITE_IOERR_*. */
int thr_recover_inspect(const char *directory, char *name_out, size_t name_bytes);

/* Apply the log in `directory`, whose lock is held, to the file, sync it, and write down that this was done. base->bytes is
 * the size of the file, and is right again only when it is read anew. May be interrupted and run again. SQLITE_OK;
 * SQLITE_CORRUPT, SQLITE_CANTOPEN: the log makes no sense, or the two do not belong together, or not in these states; the
 * error log says why, and nothing was touched; SQLITE_BUSY (another database is being recovered that has a commit in
 * common with this one), SQLITE_NOMEM, SQLITE_FULL, SQLITE_IOERR_*. */
int thr_recover_apply(const char *directory, struct thr_base *base, struct thr_recovery *out);

#endif
