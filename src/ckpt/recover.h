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
 * SQLITE_CANTOPEN (foreign), SQLITE_CORRUPT (a log that was damaged), SQLITE_NOMEM, SQLITE_IOERR_*. */
int thr_recover_inspect(const char *directory, char *name_out, size_t name_bytes);

/* Apply the log in `directory` to the file and sync it. Nothing happens if there is no log. May be interrupted and run
 * again. SQLITE_OK, SQLITE_CORRUPT (the error log says where), SQLITE_CANTOPEN (the file is not the one that the log is
 * of: it is empty), SQLITE_NOMEM, SQLITE_FULL, SQLITE_IOERR_*. */
int thr_recover_apply(const char *directory, struct thr_base *base, struct thr_recovery *out);

/* Remove the directory with our files in it, the oldest segment first: whatever is left after a crash in here ends
 * where the log ended. SQLITE_OK, SQLITE_NOMEM, SQLITE_IOERR_DELETE. */
int thr_recover_remove(const char *directory);

#endif
