/* The databases of a benchmark.
 *
 * SPDX-License-Identifier: MIT */
#include "database.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../interrupt.h"

#define BUSY_TIMEOUT_MS 10000
#define COPY_BYTES (1 << 20)
#define CHECK_STEP 10000 /* instructions of SQLite's machine between two looks for an interrupt */

static const char interrupted_message[] = "interrupted";

static const char *message_of(const char *what, const char *why)
{
    static char message[THR_ERROR_BYTES];

    return sqlite3_snprintf((int)sizeof message, message, "%s: %s", what, why); /* may be cut */
}

/* --- loading --- */

const char *thr_database_load(const struct thr_settings *settings, const char *path, const char *schema,
                              int (*fill)(sqlite3 *db, void *ctx), void *ctx)
{
    const char *message = NULL;
    sqlite3 *db = NULL;
    int rc;

    rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                         settings->base_vfs);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "PRAGMA journal_mode=off; PRAGMA synchronous=off; PRAGMA cache_size=-1000000; BEGIN",
                          NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, schema, NULL, NULL, NULL);
    if (rc == SQLITE_OK && fill != NULL)
        rc = fill(db, ctx);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    if (rc == SQLITE_INTERRUPT)
        message = interrupted_message;
    else if (rc != SQLITE_OK)
        message = message_of("loading the database", sqlite3_errmsg(db));
    (void)sqlite3_close(db);
    return message;
}

/* --- copies --- */

static int copy_bytes(int from, int to)
{
    char *buffer = malloc(COPY_BYTES);
    ssize_t got = 0, put;
    int err = buffer == NULL ? ENOMEM : 0;

    while (err == 0 && !thr_interrupted() && (got = read(from, buffer, COPY_BYTES)) != 0) {
        if (got < 0)
            err = errno;
        else if ((put = write(to, buffer, (size_t)got)) != got)
            err = put < 0 ? errno : ENOSPC;
    }
    free(buffer);
    return err;
}

static const char *copy_file(const char *from_path, const char *to_path)
{
    int from = open(from_path, O_RDONLY | O_CLOEXEC), to, err;

    if (from < 0)
        return message_of(from_path, strerror(errno));
    to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    err = to < 0 ? errno : copy_bytes(from, to);
    (void)close(from);
    if (to >= 0 && close(to) != 0 && err == 0)
        err = errno;
    if (err != 0)
        return message_of(to_path, strerror(err));
    return thr_interrupted() ? interrupted_message : NULL;
}

/* Run a query whose first column must be `wanted`. */
static const char *expect_answer(sqlite3 *db, const char *sql, const char *wanted)
{
    const char *message = NULL, *answer;
    sqlite3_stmt *statement = NULL;
    char why[THR_ERROR_BYTES];

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK || sqlite3_step(statement) != SQLITE_ROW) {
        message = message_of(sql, sqlite3_errmsg(db));
    } else {
        answer = (const char *)sqlite3_column_text(statement, 0);
        if (answer == NULL || sqlite3_stricmp(answer, wanted) != 0) {
            (void)snprintf(why, sizeof why, "\"%s\", not \"%s\"", answer != NULL ? answer : "", wanted);
            message = message_of(sql, why);
        }
    }
    (void)sqlite3_finalize(statement);
    return message;
}

const char *thr_database_set_mode(const struct thr_settings *settings, const struct thr_target *target)
{
    const char *message;
    sqlite3 *db = NULL;
    char pragma[64];

    if (target->engine->journal_mode == NULL)
        return NULL;
    (void)snprintf(pragma, sizeof pragma, "PRAGMA journal_mode=%s", target->engine->journal_mode);
    if (sqlite3_open_v2(target->path, &db, SQLITE_OPEN_READWRITE, settings->base_vfs) != SQLITE_OK)
        message = message_of(target->path, sqlite3_errmsg(db));
    else
        message = expect_answer(db, pragma, target->engine->journal_mode);
    (void)sqlite3_close(db);
    return message;
}

const char *thr_database_copy(const struct thr_settings *settings, const char *from, const struct thr_target *target)
{
    const char *message = copy_file(from, target->path);

    return message != NULL ? message : thr_database_set_mode(settings, target);
}

/* --- connections --- */

/* `to` has room for three times the path, and more. */
static void uri_of(const char *path, const char *checkpointer, char *to)
{
    to += sprintf(to, "file:");
    for (; *path != '\0'; path++)
        to += sprintf(to, strchr("%?#", *path) != NULL ? "%%%02x" : "%c", (unsigned)(unsigned char)*path);
    (void)sprintf(to, "?checkpointer=%s", checkpointer);
}

int thr_database_open(const struct thr_settings *settings, const struct thr_target *target, sqlite3 **db_out)
{
    const struct thr_engine *engine = target->engine;
    const char *vfs = engine->journal_mode == NULL ? settings->vfs : settings->base_vfs;
    char pragmas[256], cache[48] = "", uri[sizeof target->path * 3 + 64];
    int rc;

    (void)sqlite3_snprintf((int)sizeof uri, uri, "%s", target->path);
    if (engine->journal_mode == NULL && strcmp(settings->checkpointer, "caller") != 0)
        uri_of(target->path, settings->checkpointer, uri);
    rc = sqlite3_open_v2(uri, db_out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, vfs);
    if (rc != SQLITE_OK)
        return rc;
    (void)sqlite3_extended_result_codes(*db_out, 1);
    (void)sqlite3_busy_timeout(*db_out, BUSY_TIMEOUT_MS);
    if (settings->cache_size != 0)
        (void)snprintf(cache, sizeof cache, "PRAGMA cache_size=%" PRId64 ";", settings->cache_size);
    /* WAL is a property of the file; persist is one of the connection. */
    (void)snprintf(pragmas, sizeof pragmas, "PRAGMA synchronous=%s; PRAGMA mmap_size=%" PRId64 "; %s%s%s",
                   settings->synchronous, settings->mmap_bytes, cache,
                   engine->journal_mode != NULL ? "PRAGMA journal_mode=" : "",
                   engine->journal_mode != NULL ? engine->journal_mode : "");
    return sqlite3_exec(*db_out, pragmas, NULL, NULL, NULL);
}

/* --- the check --- */

static int check_interrupted(void *ctx)
{
    (void)ctx;
    return thr_interrupted();
}

void thr_database_check(const struct thr_settings *settings, struct thr_target *target,
                        const struct thr_expected *expected, uint32_t count)
{
    const char *message;
    struct stat status;
    sqlite3 *db = NULL;
    char journal[sizeof target->path + 16];

    if (sqlite3_open_v2(target->path, &db, SQLITE_OPEN_READWRITE, settings->base_vfs) != SQLITE_OK) {
        message = message_of("stock SQLite cannot open it", sqlite3_errmsg(db));
    } else {
        sqlite3_progress_handler(db, CHECK_STEP, check_interrupted, NULL);
        (void)sqlite3_exec(db, "PRAGMA mmap_size=1073741824", NULL, NULL, NULL);
        message = expect_answer(db, "PRAGMA integrity_check", "ok");
        for (uint32_t i = 0; message == NULL && i < count; i++)
            message = expect_answer(db, expected[i].sql, expected[i].wanted);
    }
    (void)sqlite3_close(db);
    (void)snprintf(journal, sizeof journal, "%s-journal", target->path);
    if (message == NULL && stat(journal, &status) == 0 && S_ISDIR(status.st_mode))
        message = message_of("left behind", journal);
    (void)snprintf(target->verdict, sizeof target->verdict, "%s", message == NULL ? "ok" : message);
}
