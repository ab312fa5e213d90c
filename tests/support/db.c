/* Connections and statements.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RERUNS 100000

const char *db_vfs(void)
{
    const char *name = getenv("THRONG_TEST_VFS");

    return name != NULL && *name != '\0' ? name : "throng";
}

int db_try_open(const char *path, int flags, const char *vfs, sqlite3 **out)
{
    int rc;

    *out = NULL;
    rc = sqlite3_open_v2(path, out, flags | SQLITE_OPEN_NOMUTEX, vfs);
    if (rc != SQLITE_OK) {
        if (*out != NULL)
            rc = sqlite3_extended_errcode(*out);
        (void)sqlite3_close(*out);
        *out = NULL;
        return rc;
    }
    CHECK_OK(sqlite3_extended_result_codes(*out, 1), *out);
    CHECK_OK(sqlite3_busy_timeout(*out, BUSY_TIMEOUT_MS), *out);
    return SQLITE_OK;
}

static sqlite3 *open_with(const char *path, const char *vfs)
{
    sqlite3 *db = NULL;
    int rc = db_try_open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs, &db);

    if (rc != SQLITE_OK)
        check_failed(__FILE__, __LINE__, "cannot open %s with %s: code %d", path, vfs, rc);
    return db;
}

sqlite3 *db_open(const char *path)
{
    static const char *const LEVELS[] = {"off", "off", "normal", "full"};
    static _Atomic uint64_t count;
    uint64_t number = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    sqlite3 *db = open_with(path, db_vfs());

    db_exec(db, "PRAGMA synchronous=%s", support_is_throng() ? LEVELS[hash_u64(prng_seed() + number) % 4] : "off");
    if (!support_is_throng() && db_int(db, "PRAGMA page_count") > 0) /* an empty one may still get its page size */
        db_exec(db, "PRAGMA journal_mode=WAL");
    return db;
}

sqlite3 *db_stock(const char *path)
{
    return open_with(path, "unix");
}

void db_close(sqlite3 *db)
{
    CHECK_OK(sqlite3_close(db), db);
}

/* --- statements --- */

static char *format_sql(const char *format, va_list arguments)
{
    char *sql = sqlite3_vmprintf(format, arguments);

    CHECK(sql != NULL);
    return sql;
}

_Noreturn static void sql_failed(sqlite3 *db, const char *sql, int rc)
{
    check_failed(__FILE__, __LINE__, "%.300s: code %d: %s", sql, rc, sqlite3_errmsg(db));
}

/* *sql_out is what was run; free it. */
static int run_sql(sqlite3 *db, const char *format, va_list arguments, char **sql_out)
{
    *sql_out = format_sql(format, arguments);
    return sqlite3_exec(db, *sql_out, NULL, NULL, NULL);
}

int db_try(sqlite3 *db, const char *format, ...)
{
    va_list arguments;
    char *sql;
    int rc;

    va_start(arguments, format);
    rc = run_sql(db, format, arguments, &sql);
    va_end(arguments);
    sqlite3_free(sql);
    return rc;
}

void db_exec(sqlite3 *db, const char *format, ...)
{
    va_list arguments;
    char *sql;
    int rc;

    va_start(arguments, format);
    rc = run_sql(db, format, arguments, &sql);
    va_end(arguments);
    if (rc != SQLITE_OK)
        sql_failed(db, sql, rc);
    sqlite3_free(sql);
}

void db_expect(sqlite3 *db, int expected, const char *sql)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);

    if (rc != expected)
        check_failed(__FILE__, __LINE__, "%.300s: code %d (%s), not %d", sql, rc, sqlite3_errmsg(db), expected);
}

static int first_int(sqlite3 *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    *out = 0;
    if (rc != SQLITE_OK)
        return rc;
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        *out = sqlite3_column_int64(stmt, 0);
        do {
            rc = sqlite3_step(stmt);
        } while (rc == SQLITE_ROW);
        (void)sqlite3_finalize(stmt);
        return rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    (void)sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? SQLITE_NOTFOUND : rc;
}

int db_try_int(sqlite3 *db, int64_t *out, const char *format, ...)
{
    va_list arguments;
    char *sql;
    int rc;

    va_start(arguments, format);
    sql = format_sql(format, arguments);
    va_end(arguments);
    rc = first_int(db, sql, out);
    sqlite3_free(sql);
    return rc;
}

int64_t db_int(sqlite3 *db, const char *format, ...)
{
    va_list arguments;
    int64_t value;
    char *sql;
    int rc;

    va_start(arguments, format);
    sql = format_sql(format, arguments);
    va_end(arguments);
    rc = first_int(db, sql, &value);
    if (rc != SQLITE_OK)
        sql_failed(db, sql, rc);
    sqlite3_free(sql);
    return value;
}

char *db_text(sqlite3 *db, const char *format, ...)
{
    sqlite3_str *text = sqlite3_str_new(db);
    sqlite3_stmt *stmt;
    va_list arguments;
    char *sql;
    char *result;
    int rc;

    va_start(arguments, format);
    sql = format_sql(format, arguments);
    va_end(arguments);
    stmt = db_prepare(db, sql);
    for (int row = 0; (rc = sqlite3_step(stmt)) == SQLITE_ROW; row++) {
        for (int column = 0; column < sqlite3_column_count(stmt); column++) {
            const char *value = (const char *)sqlite3_column_text(stmt, column);

            sqlite3_str_appendf(text, "%s%s", column > 0 ? "|" : row > 0 ? "\n" : "", value != NULL ? value : "NULL");
        }
    }
    if (rc != SQLITE_DONE)
        sql_failed(db, sql, rc);
    (void)sqlite3_finalize(stmt);
    sqlite3_free(sql);
    result = sqlite3_str_finish(text);
    return result != NULL ? result : sqlite3_mprintf("%s", "");
}

void db_check_text(sqlite3 *db, const char *sql, const char *expected)
{
    char *text = db_text(db, "%s", sql);

    if (strcmp(text, expected) != 0)
        check_failed(__FILE__, __LINE__, "%s gives \"%.600s\", not \"%.600s\"", sql, text, expected);
    sqlite3_free(text);
}

static uint64_t hash_value(uint64_t hash, sqlite3_stmt *stmt, int column)
{
    int type = sqlite3_column_type(stmt, column);
    double real;
    int64_t integer;

    hash = hash_u64(hash + (uint64_t)type);
    switch (type) {
    case SQLITE_INTEGER:
        integer = sqlite3_column_int64(stmt, column);
        return hash_bytes(hash, &integer, sizeof integer);
    case SQLITE_FLOAT:
        real = sqlite3_column_double(stmt, column);
        return hash_bytes(hash, &real, sizeof real);
    case SQLITE_TEXT: /* in UTF-8 whatever the encoding, so that two databases can be compared */
        (void)sqlite3_column_text(stmt, column);
        return hash_bytes(hash, sqlite3_column_text(stmt, column), (size_t)sqlite3_column_bytes(stmt, column));
    case SQLITE_BLOB:
        return hash_bytes(hash, sqlite3_column_blob(stmt, column), (size_t)sqlite3_column_bytes(stmt, column));
    default:
        return hash;
    }
}

static int hash_rows(sqlite3 *db, const char *sql, uint64_t *out)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    *out = 0;
    if (rc != SQLITE_OK)
        return rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        for (int column = 0; column < sqlite3_column_count(stmt); column++)
            *out = hash_value(*out, stmt, column);
        *out = hash_u64(*out ^ UINT64_C(0x5bd1e995));
    }
    (void)sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int db_try_hash(sqlite3 *db, uint64_t *out, const char *format, ...)
{
    va_list arguments;
    char *sql;
    int rc;

    va_start(arguments, format);
    sql = format_sql(format, arguments);
    va_end(arguments);
    rc = hash_rows(db, sql, out);
    sqlite3_free(sql);
    return rc;
}

uint64_t db_hash(sqlite3 *db, const char *format, ...)
{
    uint64_t hash;
    va_list arguments;
    char *sql;
    int rc;

    va_start(arguments, format);
    sql = format_sql(format, arguments);
    va_end(arguments);
    if ((rc = hash_rows(db, sql, &hash)) != SQLITE_OK)
        sql_failed(db, sql, rc);
    sqlite3_free(sql);
    return hash;
}

/* Tables in the order of their names, rows in the order of rowid or primary key; root pages do not count. Virtual
 * tables are left to their shadow tables. */
uint64_t db_hash_all(sqlite3 *db)
{
    uint64_t hash = db_hash(db, "SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY 1, 2");
    sqlite3_stmt *stmt = db_prepare(db, "SELECT name FROM main.sqlite_schema WHERE type='table' AND rootpage>0 "
                                        "ORDER BY name");

    while (sqlite3_step(stmt) == SQLITE_ROW)
        hash = hash_u64(hash + db_hash(db, "SELECT * FROM main.\"%w\" NOT INDEXED", sqlite3_column_text(stmt, 0)));
    stmt_end(stmt);
    return hash;
}

sqlite3_stmt *db_prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    if (rc != SQLITE_OK)
        sql_failed(db, sql, rc);
    return stmt;
}

int stmt_run(sqlite3_stmt *stmt)
{
    int rc;

    do {
        rc = sqlite3_step(stmt);
    } while (rc == SQLITE_ROW);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

void stmt_end(sqlite3_stmt *stmt)
{
    sqlite3 *db = sqlite3_db_handle(stmt);

    CHECK_OK(sqlite3_finalize(stmt), db);
}

int64_t db_stat(sqlite3 *db, const char *counter)
{
    char *text = db_text(db, "PRAGMA throng_stats");
    size_t size = strlen(counter);
    const char *at = text;
    int64_t value = -1;

    while (at != NULL && value < 0) {
        if (strncmp(at, counter, size) == 0 && (at[size] == ' ' || at[size] == '|'))
            value = strtoll(at + size + 1, NULL, 10);
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    if (value < 0)
        check_failed(__FILE__, __LINE__, "no counter %s in \"%.600s\"", counter, text);
    sqlite3_free(text);
    return value;
}

int db_transaction(sqlite3 *db, const char *begin, transaction_body *body, void *arg)
{
    if (!support_is_throng() && strcmp(begin, "BEGIN") == 0)
        begin = "BEGIN IMMEDIATE";
    for (int rerun = 0; rerun < MAX_RERUNS; rerun++) {
        const char *place = begin;
        int rc = db_try(db, "%s", begin);

        if (rc == SQLITE_OK) {
            place = "a statement";
            rc = body(db, arg);
        }
        if (rc == SQLITE_OK) {
            place = "COMMIT";
            rc = db_try(db, "COMMIT");
        }
        if (rc == SQLITE_OK)
            return rerun;
        if (rc != SQLITE_BUSY_SNAPSHOT)
            check_failed(__FILE__, __LINE__, "%s in %s: code %d: %s", place, begin, rc, sqlite3_errmsg(db));
        if (!sqlite3_get_autocommit(db))
            db_exec(db, "ROLLBACK");
        if (check_any_failed())
            check_failed(__FILE__, __LINE__, "gives up, another thread has failed");
    }
    check_failed(__FILE__, __LINE__, "%s: not committed in %d runs", begin, MAX_RERUNS);
}
