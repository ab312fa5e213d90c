/* Starting and stopping the engine of one database.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_ENGINE_H
#define THR_ENGINE_H

#include "../txn/txn.h"

/* Make the directory, unless the file is read-only, and in it (else in memory) index, heap and log. The caller has the
 * file to itself, and nothing of an earlier use is left. Where the directory cannot be written, the database becomes
 * read-only. On failure nothing is left of it. SQLITE_OK; SQLITE_CANTOPEN (*incomplete_out: the file is marked, and
 * its log is not there), SQLITE_BUSY, SQLITE_NOMEM, SQLITE_FULL, SQLITE_IOERR_*. */
int thr_engine_start(struct thr_db *db, bool *incomplete_out);
/* Close all of it. The directory stays, and so does what the caller has of the file: its descriptor and its mapping. */
void thr_engine_stop(struct thr_db *db);

#endif
