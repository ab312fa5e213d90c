/* What an engine writes to its log, and keeps beside the database, during a measurement.
 *
 * SPDX-License-Identifier: MIT */
#include "growth.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define WAL_FRAME_HEADER 24 /* https://www.sqlite.org/fileformat2.html#walformat */

static const char *failed(const struct thr_growth *growth)
{
    static char message[THR_ERROR_BYTES];

    return sqlite3_snprintf((int)sizeof message, message, "looking on: %s", sqlite3_errmsg(growth->db));
}

/* The first column of the first row. */
static int query(sqlite3 *db, const char *sql, double *out)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    if (rc == SQLITE_OK && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        *out = sqlite3_column_double(statement, 0);
        rc = SQLITE_OK;
    }
    (void)sqlite3_finalize(statement);
    return rc;
}

const char *thr_growth_begin(const struct thr_settings *settings, const struct thr_target *target, bool keep_snapshot,
                             struct thr_growth *out)
{
    const char *message = NULL;
    double ignored;

    *out = (struct thr_growth){.target = target};
    if (thr_database_open(settings, target, &out->db) != SQLITE_OK ||
        (keep_snapshot && (sqlite3_exec(out->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK ||
                           query(out->db, "SELECT count(*) FROM sqlite_schema", &ignored) != SQLITE_OK)))
        message = failed(out);
    if (message != NULL)
        (void)sqlite3_close(out->db);
    return message;
}

static double wal_bytes(const char *path)
{
    char name[1100];
    struct stat status;

    (void)snprintf(name, sizeof name, "%s-wal", path);
    return stat(name, &status) == 0 ? (double)status.st_size : 0;
}

const char *thr_growth_end(struct thr_growth *growth, uint64_t pages_written, double *log_bytes_out,
                           double *kept_bytes_out)
{
    static const char LOG[] = "SELECT value FROM throng_stats WHERE counter='log_bytes'";
    static const char HEAP[] = "SELECT value FROM throng_stats WHERE counter='heap_frames'";
    const char *mode = growth->target->engine->journal_mode, *message = NULL;
    double page_size = 0;

    *log_bytes_out = *kept_bytes_out = (double)NAN;
    if (query(growth->db, "PRAGMA page_size", &page_size) != SQLITE_OK) {
        message = failed(growth);
    } else if (mode != NULL && strcmp(mode, "wal") == 0) {
        *log_bytes_out = (double)pages_written * (page_size + WAL_FRAME_HEADER);
        *kept_bytes_out = wal_bytes(growth->target->path);
    } else if (mode == NULL && query(growth->db, LOG, log_bytes_out) == SQLITE_OK &&
               query(growth->db, HEAP, kept_bytes_out) == SQLITE_OK) {
        *kept_bytes_out *= page_size;
    } /* else it is another VFS than Throng's */
    (void)sqlite3_close(growth->db);
    return message;
}
