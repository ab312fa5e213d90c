/* The sqlite driver: what SQLite is told before it starts, what a pool opens once, and BEGIN's other names.
 *
 * SPDX-License-Identifier: MIT */
#include "sqlite.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../os/os.h"
#include "alloc.h"
#include "throng.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define UNDER_SANITIZER true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define UNDER_SANITIZER true
#endif
#endif
#ifndef UNDER_SANITIZER
#define UNDER_SANITIZER false
#endif

/* --- starting SQLite --- */

static pthread_once_t start_once = PTHREAD_ONCE_INIT;
static int start_rc;

/* sqlite3_config() refuses when SQLite runs already: then somebody else has decided. Sanitizers know the system's
 * allocator only. */
static void start(void)
{
    if (thr_alloc_memstatus(false) == SQLITE_OK && thr_alloc_has_mimalloc() && !UNDER_SANITIZER)
        (void)thr_alloc_use_mimalloc();
    start_rc = sqlite3_initialize();
}

int thr_sqlite_start(throng_error *err)
{
    (void)pthread_once(&start_once, start);
    if (start_rc != SQLITE_OK)
        return thr_error_set(err, THRONG_ERROR, start_rc, NULL, "SQLite cannot be initialized");
    return THRONG_OK;
}

/* Where memory is not accounted for, it counts as none. */
void thr_sqlite_started(void (*log)(void *, const char *), void *log_arg)
{
    static atomic_bool said;
    void *something = sqlite3_malloc(1);
    sqlite3_int64 used = 0, most = 0;
    int rc = sqlite3_status64(SQLITE_STATUS_MEMORY_USED, &used, &most, 0);

    sqlite3_free(something);
    if (rc == SQLITE_OK && used > 0 && !atomic_exchange_explicit(&said, true, memory_order_relaxed))
        log(log_arg, "throng: SQLite was initialized with its accounting of memory on (SQLITE_CONFIG_MEMSTATUS): each "
                     "allocation takes one lock of the whole process, which becomes the limit of all threads together. "
                     "Open the pool before anything else uses SQLite, or turn it off before sqlite3_initialize()");
}

/* --- opening --- */

/* A database in memory that connections share ends with the last of them: this one stays as long as the pool. */
static int open_anchor(struct sqlite_source *source, throng_error *err)
{
    int rc = sqlite3_open_v2(source->uri, &source->anchor, THR_SQLITE_OPEN_FLAGS, source->vfs);

    if (rc == SQLITE_OK)
        return THRONG_OK;
    return thr_error_set(err, THRONG_ERROR, rc, NULL, "%s",
                         source->anchor != NULL ? sqlite3_errmsg(source->anchor) : sqlite3_errstr(rc));
}

void thr_sqlite_source_close(void *arg)
{
    struct sqlite_source *source = arg;

    (void)sqlite3_close(source->anchor);
    thr_os_free(source->uri);
    thr_os_free(source->vfs);
    thr_os_free(source);
}

int thr_sqlite_source_open(const char *dsn, void (*log)(void *, const char *), void *log_arg, void **source_out,
                           bool *private_out, throng_error *err)
{
    struct sqlite_source *source = thr_os_alloc(sizeof *source);
    int code, rc;

    *source_out = NULL;
    if (source == NULL)
        return thr_error_set(err, THRONG_NOMEM, 0, NULL, "no memory for a pool");
    code = thr_sqlite_dsn_parse(dsn, source, err);
    if (code == THRONG_OK)
        code = thr_sqlite_start(err);
    if (code == THRONG_OK && source->vfs != NULL && strcmp(source->vfs, "throng") == 0 &&
        (rc = throng_register(0)) != SQLITE_OK)
        code = thr_error_set(err, THRONG_ERROR, rc, NULL, "the VFS cannot be registered: %s", sqlite3_errstr(rc));
    if (code == THRONG_OK && source->is_memory)
        code = open_anchor(source, err);
    if (code != THRONG_OK) {
        thr_sqlite_source_close(source);
        return code;
    }
    thr_sqlite_started(log, log_arg);
    *private_out = source->is_private;
    *source_out = source;
    return THRONG_OK;
}

/* --- BEGIN READONLY, BEGIN CONCURRENT --- */

const char *thr_sqlite_skip_space(const char *sql, bool semicolons)
{
    for (;;) {
        if (*sql == ' ' || (*sql >= '\t' && *sql <= '\r') || (*sql == ';' && semicolons)) {
            sql++;
        } else if (sql[0] == '-' && sql[1] == '-') {
            sql += strcspn(sql, "\n");
        } else if (sql[0] == '/' && sql[1] == '*') {
            const char *end = strstr(sql + 2, "*/");

            sql = end != NULL ? end + 2 : sql + strlen(sql);
        } else {
            return sql;
        }
    }
}

/* Past `word` and the space behind it, or NULL if it is not there. */
static const char *skip_word(const char *sql, const char *word)
{
    size_t bytes = strlen(word);

    if (strncasecmp(sql, word, bytes) != 0 || isalnum((unsigned char)sql[bytes]) || sql[bytes] == '_')
        return NULL;
    return thr_sqlite_skip_space(sql + bytes, false);
}

const char *thr_sqlite_begin_word(const char *sql, size_t *bytes_out, bool *read_only_out)
{
    const char *at = skip_word(thr_sqlite_skip_space(sql, true), "BEGIN"), *word, *end;

    *bytes_out = 0;
    *read_only_out = false;
    if (at == NULL)
        return NULL;
    if ((word = skip_word(at, "READONLY")) != NULL)
        *read_only_out = true;
    else if ((word = skip_word(at, "CONCURRENT")) == NULL)
        return NULL;
    end = skip_word(word, "TRANSACTION");
    if (end == NULL)
        end = word;
    if (*end != '\0' && *end != ';') {
        *read_only_out = false;
        return NULL; /* SQLite says what is wrong with it */
    }
    *bytes_out = (size_t)(end - sql) + (*end == ';');
    return "BEGIN";
}

bool thr_sqlite_changes_rows(const char *sql)
{
    static const char *const words[] = {"INSERT", "REPLACE", "UPDATE", "DELETE", "WITH"};

    sql = thr_sqlite_skip_space(sql, true);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (skip_word(sql, words[i]) != NULL)
            return true;
    }
    return false;
}

bool thr_sqlite_opens(const char *sql)
{
    sql = thr_sqlite_skip_space(sql, true);
    return skip_word(sql, "BEGIN") != NULL || skip_word(sql, "SAVEPOINT") != NULL;
}
