/* The databases of a benchmark: made once with stock SQLite, copied for each engine, checked at the end.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_DATABASE_H
#define THR_BENCH_DATABASE_H

#include <sqlite3.h>

#include "../progress.h"
#include "settings.h"

#define THR_ERROR_BYTES 256

/* One engine and its copy of the database. */
struct thr_target {
    const struct thr_engine *engine;
    char path[1024];
    uint64_t commits; /* of writers, all that ever were, the warm-up included */
    uint64_t errors;
    char first_error[THR_ERROR_BYTES];
    char verdict[THR_ERROR_BYTES]; /* of the check: "ok", or what is wrong */
};

/* All return NULL, or what is wrong in a static buffer. An interrupted one is an error, too. */

/* Fill a new database at `path`. */
const char *thr_database_load(const struct thr_settings *settings, const char *path, struct thr_progress *progress);
/* Copy it to target->path and put it into the journal mode of the engine. */
const char *thr_database_copy(const struct thr_settings *settings, const char *from, const struct thr_target *target);

/* Open a connection as the engine's clients do. On error *db_out is to be closed all the same; its message says why. */
int thr_database_open(const struct thr_settings *settings, const struct thr_target *target, sqlite3 **db_out);

/* Stock integrity_check, and the rows that must be there. Fills target->verdict. */
void thr_database_check(const struct thr_settings *settings, struct thr_target *target);

#endif
