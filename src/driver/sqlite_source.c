/* The sqlite driver: what a DSN says, what SQLite is told before it starts, and BEGIN's other names.
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

enum { BUSY_TIMEOUT_MS = 5000 };

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

/* --- the DSN --- */

struct text {
    char *at;
    size_t used, size;
    bool failed;
};

static void append(struct text *text, const char *bytes, size_t count)
{
    if (!text->failed && text->used + count + 1 > text->size) {
        size_t size = 2 * (text->used + count + 1);
        char *at = thr_os_realloc(text->at, size);

        text->failed = at == NULL;
        if (at != NULL) {
            text->at = at;
            text->size = size;
        }
    }
    if (text->failed || text->at == NULL)
        return;
    memcpy(text->at + text->used, bytes, count);
    text->used += count;
    text->at[text->used] = '\0';
}

static void append_text(struct text *text, const char *string)
{
    append(text, string, strlen(string));
}

/* A plain path as part of a URI. */
static void append_path(struct text *text, const char *path)
{
    for (; *path != '\0'; path++) {
        char escaped[4];

        if (strchr("%?#", *path) == NULL) {
            append(text, path, 1);
        } else {
            (void)snprintf(escaped, sizeof escaped, "%%%02x", (unsigned)(unsigned char)*path);
            append(text, escaped, 3);
        }
    }
}

static bool is_word(const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!isalnum((unsigned char)bytes[i]) && bytes[i] != '_' && bytes[i] != '-')
            return false;
    }
    return count > 0;
}

static bool is_pragma(const char *name, size_t bytes)
{
    static const char *const pragmas[] = {"synchronous", "foreign_keys", "cache_size",
                                          "mmap_size",   "journal_mode", "temp_store"};

    for (size_t i = 0; i < sizeof pragmas / sizeof pragmas[0]; i++) {
        if (strlen(pragmas[i]) == bytes && memcmp(pragmas[i], name, bytes) == 0)
            return true;
    }
    return false;
}

static bool is_named(const char *name, size_t bytes, const char *what)
{
    return strlen(what) == bytes && memcmp(name, what, bytes) == 0;
}

struct parsed {
    struct text uri, pragmas, vfs;
    int busy_timeout_ms;
    bool is_private;
    bool has_parameters;
};

static int take_parameter(struct parsed *parsed, const char *at, size_t bytes, throng_error *err)
{
    const char *equals = memchr(at, '=', bytes);
    size_t name_bytes = equals != NULL ? (size_t)(equals - at) : bytes;
    const char *value = equals != NULL ? equals + 1 : at + bytes;
    size_t value_bytes = (size_t)(at + bytes - value);

    if (equals == NULL || name_bytes == 0)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: \"%.*s\" is not NAME=VALUE", (int)bytes, at);
    if (is_named(at, name_bytes, "vfs")) {
        parsed->vfs.used = 0;
        append(&parsed->vfs, value, value_bytes);
        return THRONG_OK;
    }
    if (is_pragma(at, name_bytes) || is_named(at, name_bytes, "busy_timeout")) {
        if (!is_word(value, value_bytes))
            return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: \"%.*s\" cannot be", (int)bytes, at);
        if (is_named(at, name_bytes, "busy_timeout")) {
            char *end;
            long number = strtol(value, &end, 10);

            if (end != value + value_bytes || number < 0 || number > INT32_MAX)
                return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: busy_timeout is a number of milliseconds");
            parsed->busy_timeout_ms = (int)number;
            return THRONG_OK;
        }
        append_text(&parsed->pragmas, "PRAGMA ");
        append(&parsed->pragmas, at, bytes);
        append_text(&parsed->pragmas, ";");
        return THRONG_OK;
    }
    if (is_named(at, name_bytes, "mode") && is_named(value, value_bytes, "memory"))
        parsed->is_private = true;
    append_text(&parsed->uri, parsed->has_parameters ? "&" : "?");
    append(&parsed->uri, at, bytes);
    parsed->has_parameters = true;
    return THRONG_OK;
}

static int parse(struct parsed *parsed, const char *dsn, throng_error *err)
{
    static const char scheme[] = "sqlite:";
    bool is_dsn = strncmp(dsn, scheme, sizeof scheme - 1) == 0;
    const char *path = is_dsn ? dsn + sizeof scheme - 1 : dsn;
    size_t bytes = is_dsn ? strcspn(path, "?") : strlen(path);
    int code = THRONG_OK;

    append_text(&parsed->uri, *path == '/' ? "file://" : "file:");
    if (is_dsn)
        append(&parsed->uri, path, bytes);
    else
        append_path(&parsed->uri, path);
    parsed->is_private = bytes == 0 || is_named(path, bytes, ":memory:");
    if (path[bytes] == '\0' || !is_dsn)
        return THRONG_OK;
    for (const char *at = path + bytes + 1; code == THRONG_OK && *at != '\0'; at += bytes, at += *at == '&') {
        bytes = strcspn(at, "&");
        if (bytes > 0)
            code = take_parameter(parsed, at, bytes, err);
    }
    return code;
}

void thr_sqlite_source_close(void *arg)
{
    struct sqlite_source *source = arg;

    thr_os_free(source->uri);
    thr_os_free(source->vfs);
    thr_os_free(source->pragmas);
    thr_os_free(source);
}

int thr_sqlite_source_open(const char *dsn, void (*log)(void *, const char *), void *log_arg, void **source_out,
                           bool *private_out, throng_error *err)
{
    struct parsed parsed = {.busy_timeout_ms = BUSY_TIMEOUT_MS};
    struct sqlite_source *source = NULL;
    int code = parse(&parsed, dsn, err), rc;

    *source_out = NULL;
    if (code == THRONG_OK && !parsed.is_private && parsed.vfs.used == 0)
        append_text(&parsed.vfs, "throng");
    if (code == THRONG_OK)
        source = thr_os_alloc(sizeof *source);
    if (code == THRONG_OK && (source == NULL || parsed.uri.failed || parsed.vfs.failed || parsed.pragmas.failed))
        code = thr_error_set(err, THRONG_NOMEM, 0, NULL, "no memory for a pool");
    if (code == THRONG_OK)
        code = thr_sqlite_start(err);
    if (code == THRONG_OK && parsed.vfs.used > 0 && strcmp(parsed.vfs.at, "throng") == 0 &&
        (rc = throng_register(0)) != SQLITE_OK)
        code = thr_error_set(err, THRONG_ERROR, rc, NULL, "the VFS cannot be registered: %s", sqlite3_errstr(rc));
    if (code != THRONG_OK || source == NULL) {
        thr_os_free(parsed.uri.at);
        thr_os_free(parsed.vfs.at);
        thr_os_free(parsed.pragmas.at);
        thr_os_free(source);
        return code;
    }
    source->uri = parsed.uri.at;
    source->vfs = parsed.vfs.at;
    source->pragmas = parsed.pragmas.at;
    source->busy_timeout_ms = parsed.busy_timeout_ms;
    source->is_private = parsed.is_private;
    thr_sqlite_started(log, log_arg);
    *private_out = parsed.is_private;
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
