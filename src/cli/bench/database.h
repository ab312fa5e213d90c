/* The databases of a benchmark: made with stock SQLite, checked by it at the end.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_DATABASE_H
#define THR_BENCH_DATABASE_H

#include <sqlite3.h>

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

/* Make a new database at `path`: the schema, then what `fill` adds in the same transaction (NULL: nothing). It returns
 * an SQLite result code; SQLITE_INTERRUPT if the user does not want to wait. */
const char *thr_database_load(const struct thr_settings *settings, const char *path, const char *schema,
                              int (*fill)(sqlite3 *db, void *ctx), void *ctx);
/* Put it into the journal mode of the engine. */
const char *thr_database_set_mode(const struct thr_settings *settings, const struct thr_target *target);
/* Copy it to target->path and do the same there. */
const char *thr_database_copy(const struct thr_settings *settings, const char *from, const struct thr_target *target);

/* Open a connection as the engine's clients do. On error *db_out is to be closed all the same; its message says why. */
int thr_database_open(const struct thr_settings *settings, const struct thr_target *target, sqlite3 **db_out);

/* The first column of the first row of a query, at the end. */
struct thr_expected {
    const char *sql;
    char wanted[32];
};

/* Stock integrity_check, and what must be there. Fills target->verdict. */
void thr_database_check(const struct thr_settings *settings, struct thr_target *target,
                        const struct thr_expected *expected, uint32_t count);

#endif
