/* The database of `throng bench server`.
 *
 * SPDX-License-Identifier: MIT */
#include "server_database.h"

#include <inttypes.h>
#include <stdio.h>

#include "../interrupt.h"
#include "../random.h"

#define LOAD_STEP 1024 /* rows between two looks at the clock */

static const char schema[] = "CREATE TABLE t1(a INTEGER PRIMARY KEY, b BLOB(16), c BLOB(16), d BLOB(400));"
                             "CREATE INDEX i1 ON t1(b);"
                             "CREATE INDEX i2 ON t1(c);"
                             "CREATE TABLE t2(x INTEGER PRIMARY KEY, d BLOB(100));"
                             "CREATE TABLE t3(id INTEGER PRIMARY KEY, v INTEGER);"
                             "INSERT INTO t3 VALUES(1, 0);";

struct loading {
    const struct thr_server_settings *settings;
    struct thr_progress *progress;
};

/* The indexes are there from the start, so that their pages are as full as they stay in use, not packed: else the
 * first measurements would be of page splits. */
static int load_rows(sqlite3 *db, void *ctx)
{
    const struct loading *loading = ctx;
    const struct thr_server_settings *settings = loading->settings;
    struct thr_random random;
    sqlite3_stmt *insert = NULL;
    uint8_t blob[16 + 16 + 400];
    int rc;

    thr_random_seed(&random, settings->common.seed);
    rc = sqlite3_prepare_v2(db, "INSERT INTO t1 VALUES(?, ?, ?, ?)", -1, &insert, NULL);
    for (uint64_t row = 1; rc == SQLITE_OK && row <= settings->rows; row++) {
        thr_random_fill(&random, blob, sizeof blob);
        (void)sqlite3_bind_int64(insert, 1, (sqlite3_int64)row);
        (void)sqlite3_bind_blob(insert, 2, blob, 16, SQLITE_STATIC);
        (void)sqlite3_bind_blob(insert, 3, blob + 16, 16, SQLITE_STATIC);
        (void)sqlite3_bind_blob(insert, 4, blob + 32, 400, SQLITE_STATIC);
        (void)sqlite3_step(insert);
        rc = sqlite3_reset(insert);
        if (row % LOAD_STEP == 0 && thr_interrupted())
            rc = SQLITE_INTERRUPT;
        if (row % LOAD_STEP == 0 || row == settings->rows)
            thr_progress_show(loading->progress, (double)row / (double)settings->rows, "loading %" PRIu64 " rows",
                              settings->rows);
    }
    (void)sqlite3_finalize(insert);
    return rc;
}

const char *thr_server_load(const struct thr_server_settings *settings, const char *path, struct thr_progress *progress)
{
    struct loading loading = {settings, progress};

    thr_progress_stage(progress);
    return thr_database_load(&settings->common, path, schema, thr_server_need_rows(settings) ? load_rows : NULL,
                             &loading);
}

void thr_server_check(const struct thr_server_settings *settings, struct thr_target *target)
{
    struct thr_expected expected = {.sql = "SELECT count(*) FROM t1"};
    uint64_t count = target->commits;

    if (settings->workload == THR_WORKLOAD_APPEND)
        expected.sql = "SELECT count(*) FROM t2";
    else if (settings->workload == THR_WORKLOAD_INCREMENT)
        expected.sql = "SELECT v FROM t3";
    else
        count = settings->rows;
    (void)snprintf(expected.wanted, sizeof expected.wanted, "%" PRIu64, count);
    thr_database_check(&settings->common, target, &expected, 1);
}
