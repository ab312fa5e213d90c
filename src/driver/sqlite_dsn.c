/* The sqlite driver: what a DSN says.
 *
 *   sqlite:PATH?NAME=VALUE&...   with %XX for bytes that have a meaning there
 *   file:...                     a URI as SQLite has them, with the same parameters
 *   PATH?NAME=VALUE&...          the path as it is, up to the last "?" that a NAME= follows
 *   PATH
 *
 * What is asked for is in force, or the pool does not open: a mistyped `synchronous` would cost commits in a power cut. So
 * names and values are those of a table, and what SQLite was told is read back (thr_sqlite_settings_apply()).
 *
 * SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "sqlite.h"

enum { BUSY_TIMEOUT_MS = 5000 };

/* --- texts that grow --- */

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

static const char *text_of(const struct text *text)
{
    return text->at != NULL ? text->at : "";
}

/* A path as part of a URI; bytes among `special` lose their meaning. */
static void append_path(struct text *text, const char *path, size_t bytes, const char *special)
{
    for (size_t i = 0; i < bytes; i++) {
        char escaped[4];

        if (strchr(special, path[i]) == NULL) {
            append(text, &path[i], 1);
        } else {
            (void)snprintf(escaped, sizeof escaped, "%%%02x", (unsigned)(unsigned char)path[i]);
            append(text, escaped, 3);
        }
    }
}

/* --- the parameters there are --- */

/* What may be written, and what it means: to SQLite, and when it is read back. NULL: the same. */
struct word {
    const char *text, *meaning;
};

static const struct word switches[] = {{"on", "1"},    {"off", "0"}, {"yes", "1"}, {"no", "0"}, {"true", "1"},
                                       {"false", "0"}, {"1", "1"},   {"0", "0"},   {NULL, NULL}};
static const struct word levels[] = {{"off", "0"}, {"normal", "1"}, {"full", "2"}, {"extra", "3"}, {"0", "0"},
                                     {"1", "1"},   {"2", "2"},      {"3", "3"},    {NULL, NULL}};
static const struct word stores[] = {{"default", "0"}, {"file", "1"}, {"memory", "2"}, {"0", "0"},
                                     {"1", "1"},       {"2", "2"},    {NULL, NULL}};
static const struct word journals[] = {{"delete", NULL}, {"truncate", NULL}, {"persist", NULL}, {"memory", NULL},
                                       {"wal", NULL},    {"off", NULL},      {NULL, NULL}};
static const struct word modes[] = {{"ro", NULL}, {"rw", NULL}, {"rwc", NULL}, {"memory", NULL}, {NULL, NULL}};
static const struct word caches[] = {{"shared", NULL}, {"private", NULL}, {NULL, NULL}};
static const struct word checkpointers[] = {{"caller", NULL}, {"thread", NULL}, {NULL, NULL}};
static const struct word filesystems[] = {{"any", NULL}, {NULL, NULL}};

enum kind {
    KIND_VFS,
    KIND_TIMEOUT,
    KIND_PRAGMA, /* set on each connection */
    KIND_URI,    /* SQLite reads it */
    KIND_ENGINE  /* Throng's VFS reads it: src/vfs/open.c, src/vfs/register.c */
};

enum { MUST_BE_WORD, MUST_BE_NUMBER, MUST_BE_BYTES, MAY_BE_ANYTHING };

static const struct parameter {
    const char *name;
    enum kind kind;
    int must_be;
    const struct word *words;
    int64_t least, most;
    const char *allowed; /* in messages */
} parameters[] = {
    {"vfs", KIND_VFS, MAY_BE_ANYTHING, NULL, 0, 0, "the name of a VFS"},
    {"busy_timeout", KIND_TIMEOUT, MUST_BE_NUMBER, NULL, 0, INT32_MAX, "a number of milliseconds"},
    {"synchronous", KIND_PRAGMA, MUST_BE_WORD, levels, 0, 0, "off, normal, full or extra"},
    {"foreign_keys", KIND_PRAGMA, MUST_BE_WORD, switches, 0, 0, "on or off"},
    {"cache_size", KIND_PRAGMA, MUST_BE_NUMBER, NULL, -INT32_MAX, INT32_MAX,
     "a number of pages, or minus a number of KiB"},
    {"mmap_size", KIND_PRAGMA, MUST_BE_NUMBER, NULL, 0, INT64_MAX, "a number of bytes"},
    {"journal_mode", KIND_PRAGMA, MUST_BE_WORD, journals, 0, 0, "delete, truncate, persist, memory, wal or off"},
    {"temp_store", KIND_PRAGMA, MUST_BE_WORD, stores, 0, 0, "default, file or memory"},
    {"mode", KIND_URI, MUST_BE_WORD, modes, 0, 0, "ro, rw, rwc or memory"},
    {"cache", KIND_URI, MUST_BE_WORD, caches, 0, 0, "shared or private"},
    {"immutable", KIND_URI, MUST_BE_WORD, switches, 0, 0, "on or off"},
    {"nolock", KIND_URI, MUST_BE_WORD, switches, 0, 0, "on or off"},
    {"psow", KIND_URI, MUST_BE_WORD, switches, 0, 0, "on or off"},
    {"modeof", KIND_URI, MAY_BE_ANYTHING, NULL, 0, 0, "the path of a file"},
    {"checkpoint_bytes", KIND_ENGINE, MUST_BE_BYTES, NULL, 1, INT64_MAX, "a number of bytes, such as 256M"},
    {"heap_limit", KIND_ENGINE, MUST_BE_BYTES, NULL, 4 << 20, INT64_MAX, "a number of bytes, such as 1G, at least 4M"},
    {"checkpointer", KIND_ENGINE, MUST_BE_WORD, checkpointers, 0, 0, "caller or thread"},
    {"filesystem", KIND_ENGINE, MUST_BE_WORD, filesystems, 0, 0, "any"},
};
enum { PARAMETERS = sizeof parameters / sizeof parameters[0] };

static bool is_named(const char *bytes, size_t count, const char *what)
{
    return strlen(what) == count && memcmp(bytes, what, count) == 0;
}

static int find_parameter(const char *name, size_t bytes)
{
    for (int i = 0; i < PARAMETERS; i++) {
        if (is_named(name, bytes, parameters[i].name))
            return i;
    }
    return -1;
}

/* A number, digits only but for a minus. */
static bool read_number(const char *text, int64_t *out)
{
    const char *digits = *text == '-' ? text + 1 : text;

    errno = 0;
    *out = strtoll(text, NULL, 10);
    return *digits != '\0' && digits[strspn(digits, "0123456789")] == '\0' && errno == 0;
}

/* The same with K, M or G behind it. */
static bool read_bytes(const char *text, int64_t *out)
{
    static const char units[] = "KMG";
    char digits[24];
    size_t bytes = strspn(text, "0123456789");
    const char *unit = text[bytes] != '\0' ? strchr(units, text[bytes]) : NULL;
    int shift = unit != NULL ? 10 * (int)(unit - units + 1) : 0;

    if (bytes == 0 || bytes >= sizeof digits || (text[bytes] != '\0' && (unit == NULL || text[bytes + 1] != '\0')))
        return false;
    (void)snprintf(digits, sizeof digits, "%.*s", (int)bytes, text);
    if (!read_number(digits, out) || *out > INT64_MAX >> shift)
        return false;
    *out <<= shift;
    return true;
}

/* Whether the value can be; and as it is to be written, in `meaning`. */
static bool understand(const struct parameter *parameter, const char *value, char *meaning, size_t size)
{
    int64_t number = 0;

    (void)snprintf(meaning, size, "%s", value);
    switch (parameter->must_be) {
    case MUST_BE_WORD:
        for (const struct word *word = parameter->words; word->text != NULL; word++) {
            if (strcasecmp(word->text, value) == 0) {
                (void)snprintf(meaning, size, "%s", word->meaning != NULL ? word->meaning : word->text);
                return true;
            }
        }
        return false;
    case MUST_BE_NUMBER:
        if (!read_number(value, &number) || number < parameter->least || number > parameter->most)
            return false;
        (void)snprintf(meaning, size, "%" PRId64, number);
        return true;
    case MUST_BE_BYTES:
        return read_bytes(value, &number) && number >= parameter->least;
    default:
        return *value != '\0' && strlen(value) < size;
    }
}

/* --- taking a DSN apart --- */

struct parsed {
    struct text uri, vfs, path; /* path: as SQLite will have it, without %XX */
    struct sqlite_source *source;
    bool is_seen[PARAMETERS];
    bool has_parameters, is_memory, is_shared;
};

static void add_to_uri(struct parsed *parsed, const char *name, size_t name_bytes, const char *value)
{
    append_text(&parsed->uri, parsed->has_parameters ? "&" : "?");
    append(&parsed->uri, name, name_bytes);
    append_text(&parsed->uri, "=");
    append_text(&parsed->uri, value);
    parsed->has_parameters = true;
}

/* VFSs of others may have parameters of their own. */
static bool vfs_is_known(const struct parsed *parsed)
{
    return parsed->vfs.used == 0 || strcmp(text_of(&parsed->vfs), "throng") == 0 ||
           strcmp(text_of(&parsed->vfs), "memdb") == 0 || strncmp(text_of(&parsed->vfs), "unix", 4) == 0;
}

static int refuse_name(const char *name, size_t bytes, throng_error *err)
{
    char names[200] = "";
    size_t used = 0;

    for (int i = 0; i < PARAMETERS && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", parameters[i].name);
    return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: there is no parameter \"%.*s\"; there are %s", (int)bytes,
                         name, names);
}

static void take_known(struct parsed *parsed, const struct parameter *parameter, const char *meaning)
{
    struct sqlite_source *source = parsed->source;

    switch (parameter->kind) {
    case KIND_VFS:
        append_text(&parsed->vfs, meaning);
        break;
    case KIND_TIMEOUT:
        source->busy_timeout_ms = (int)strtol(meaning, NULL, 10);
        break;
    case KIND_PRAGMA:
        source->settings[source->setting_count].name = parameter->name;
        THR_ASSERT(source->setting_count < THR_SETTINGS && strlen(meaning) < sizeof source->settings[0].value);
        memcpy(source->settings[source->setting_count].value, meaning, strlen(meaning) + 1);
        source->setting_count++;
        break;
    default:
        if (strcmp(parameter->name, "mode") == 0) {
            parsed->is_memory = parsed->is_memory || strcmp(meaning, "memory") == 0;
            source->must_write = strcmp(meaning, "rw") == 0 || strcmp(meaning, "rwc") == 0;
        } else if (strcmp(parameter->name, "cache") == 0) {
            parsed->is_shared = strcmp(meaning, "shared") == 0;
        }
        add_to_uri(parsed, parameter->name, strlen(parameter->name), meaning);
        break;
    }
}

/* NAME=VALUE. The first time only the name of the VFS is taken, since it decides which names there are. */
static int take_parameter(struct parsed *parsed, const char *at, size_t bytes, bool first, throng_error *err)
{
    const char *equals = memchr(at, '=', bytes);
    size_t name_bytes = equals != NULL ? (size_t)(equals - at) : bytes;
    const struct parameter *parameter;
    char value[1024], meaning[1024];
    int index;

    if (equals == NULL || name_bytes == 0)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: \"%.*s\" is not NAME=VALUE", (int)bytes, at);
    index = find_parameter(at, name_bytes);
    if (first != (index >= 0 && parameters[index].kind == KIND_VFS))
        return THRONG_OK;
    if (bytes - name_bytes - 1 >= sizeof value)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: the value of %.*s is too long", (int)name_bytes, at);
    (void)snprintf(value, sizeof value, "%.*s", (int)(bytes - name_bytes - 1), equals + 1);
    if (index < 0) {
        if (vfs_is_known(parsed))
            return refuse_name(at, name_bytes, err);
        add_to_uri(parsed, at, name_bytes, value);
        return THRONG_OK;
    }
    parameter = &parameters[index];
    if (parsed->is_seen[index])
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: %s is given twice", parameter->name);
    parsed->is_seen[index] = true;
    if (!understand(parameter, value, meaning, sizeof meaning))
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: %s=%.64s cannot be: %s is %s", parameter->name, value,
                             parameter->name, parameter->allowed);
    if (parameter->kind == KIND_ENGINE && parsed->vfs.used > 0 && strcmp(text_of(&parsed->vfs), "throng") != 0)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "dsn: %s is for vfs=throng only", parameter->name);
    take_known(parsed, parameter, meaning);
    return THRONG_OK;
}

static int take_parameters(struct parsed *parsed, const char *from, size_t bytes, bool first, throng_error *err)
{
    const char *end = from + bytes;
    int code = THRONG_OK;

    for (const char *at = from; code == THRONG_OK && at < end; at++) {
        const char *amp = memchr(at, '&', (size_t)(end - at));
        size_t count = (size_t)((amp != NULL ? amp : end) - at);

        if (count > 0)
            code = take_parameter(parsed, at, count, first, err);
        at += count;
    }
    return code;
}

/* What %XX stands for. */
static void decode(struct text *text, const char *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        char byte = from[i];

        if (byte == '%' && i + 2 < bytes && isxdigit((unsigned char)from[i + 1]) &&
            isxdigit((unsigned char)from[i + 2])) {
            char digits[3] = {from[i + 1], from[i + 2], '\0'};

            byte = (char)strtol(digits, NULL, 16);
            i += 2;
        }
        append(text, &byte, 1);
    }
}

/* The "?" of a plain path behind which there are parameters, or NULL. */
static const char *plain_parameters(const char *path)
{
    const char *mark = strrchr(path, '?');
    size_t bytes = mark != NULL ? strspn(mark + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
                                : 0;

    return bytes > 0 && mark[1 + bytes] == '=' ? mark : NULL;
}

static int parse(struct parsed *parsed, const char *dsn, throng_error *err)
{
    static const char scheme[] = "sqlite:", uri_scheme[] = "file:";
    bool is_uri = strncmp(dsn, uri_scheme, sizeof uri_scheme - 1) == 0;
    bool is_dsn = strncmp(dsn, scheme, sizeof scheme - 1) == 0;
    const char *path = is_dsn ? dsn + sizeof scheme - 1 : is_uri ? dsn + sizeof uri_scheme - 1 : dsn;
    size_t all = is_uri ? strcspn(path, "#") : strlen(path); /* SQLite ignores a fragment */
    const char *mark = is_dsn || is_uri ? memchr(path, '?', all) : plain_parameters(path);
    size_t bytes = mark != NULL ? (size_t)(mark - path) : all;
    const char *name = path;
    size_t name_bytes = bytes;
    int code;

    append_text(&parsed->uri, !is_uri && *path == '/' ? "file://" : "file:");
    append_path(&parsed->uri, path, bytes, is_uri ? "" : is_dsn ? "#" : "%?#");
    if (is_uri && strncmp(path, "//", 2) == 0) { /* an authority, which SQLite looks at */
        name = memchr(path + 2, '/', bytes - 2);
        name_bytes = name != NULL ? bytes - (size_t)(name - path) : 0;
    }
    append_text(&parsed->path, "");
    if (is_uri || is_dsn)
        decode(&parsed->path, name, name_bytes);
    else
        append(&parsed->path, name, name_bytes);
    append_text(&parsed->vfs, "");
    if (parsed->uri.failed || parsed->path.failed || parsed->vfs.failed)
        return thr_error_set(err, THRONG_NOMEM, 0, NULL, "no memory for a pool");
    if (mark == NULL)
        return THRONG_OK;
    code = take_parameters(parsed, mark + 1, all - bytes - 1, true, err);
    return code == THRONG_OK ? take_parameters(parsed, mark + 1, all - bytes - 1, false, err) : code;
}

/* Whose database it is: of the file, of one connection, or of all connections that there are. */
static void classify_memory(struct parsed *parsed)
{
    struct sqlite_source *source = parsed->source;
    bool is_temporary = parsed->path.used == 0 && !parsed->is_memory,
         is_memdb = strcmp(text_of(&parsed->vfs), "memdb") == 0;

    parsed->is_memory = parsed->is_memory || is_memdb || strcmp(text_of(&parsed->path), ":memory:") == 0;
    if (is_memdb)
        parsed->is_shared = text_of(&parsed->path)[0] == '/';
    source->is_private = is_temporary || (parsed->is_memory && !parsed->is_shared);
    source->is_memory = parsed->is_memory && !source->is_private;
    if (!source->is_private && !source->is_memory && parsed->vfs.used == 0)
        append_text(&parsed->vfs, "throng");
}

int thr_sqlite_dsn_parse(const char *dsn, struct sqlite_source *source, throng_error *err)
{
    struct parsed parsed = {.source = source};
    int code;

    source->busy_timeout_ms = BUSY_TIMEOUT_MS;
    code = parse(&parsed, dsn, err);
    if (code == THRONG_OK)
        classify_memory(&parsed);
    thr_os_free(parsed.path.at);
    source->uri = parsed.uri.at;
    source->vfs = parsed.vfs.at;
    if (code == THRONG_OK && (parsed.uri.failed || parsed.vfs.failed))
        code = thr_error_set(err, THRONG_NOMEM, 0, NULL, "no memory for a pool");
    if (source->vfs != NULL && *source->vfs == '\0') { /* SQLite's default */
        thr_os_free(source->vfs);
        source->vfs = NULL;
    }
    return code;
}

/* --- on a connection --- */

static int apply_one(sqlite3 *db, const struct sqlite_setting *setting, throng_error *err)
{
    sqlite3_stmt *stmt = NULL;
    char sql[80], is[32] = "nothing";
    int rc;

    (void)snprintf(sql, sizeof sql, "PRAGMA %s=%s", setting->name, setting->value);
    if ((rc = sqlite3_exec(db, sql, NULL, NULL, NULL)) != SQLITE_OK)
        return rc;
    (void)snprintf(sql, sizeof sql, "PRAGMA %s", setting->name);
    if ((rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL)) != SQLITE_OK)
        return rc;
    if (sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_text(stmt, 0) != NULL)
        (void)snprintf(is, sizeof is, "%s", (const char *)sqlite3_column_text(stmt, 0));
    if ((rc = sqlite3_finalize(stmt)) != SQLITE_OK)
        return rc;
    if (strcmp(is, setting->value) == 0)
        return SQLITE_OK;
    (void)thr_error_set(err, THRONG_MISUSE, 0, NULL,
                        "dsn: %s=%s is not to be had with this database: PRAGMA %s says %s", setting->name,
                        setting->value, setting->name, is);
    return SQLITE_MISUSE;
}

int thr_sqlite_settings_apply(const struct sqlite_source *source, sqlite3 *db, bool *told_out, throng_error *err)
{
    int rc = SQLITE_OK;

    *told_out = false;
    for (int i = 0; rc == SQLITE_OK && i < source->setting_count; i++)
        *told_out = (rc = apply_one(db, &source->settings[i], err)) == SQLITE_MISUSE;
    return rc;
}
