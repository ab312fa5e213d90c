/* What kind of transaction is about to begin? The VFS is only told "lock": the running statement says why.
 *
 * SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <stddef.h>
#include <string.h>

#include "vfs.h"

/* Past white space and comments. */
static const char *skip_blank(const char *sql)
{
    for (;;) {
        while (isspace((unsigned char)*sql) || *sql == ';')
            sql++;
        if (sql[0] == '-' && sql[1] == '-') {
            while (*sql != '\0' && *sql != '\n')
                sql++;
        } else if (sql[0] == '/' && sql[1] == '*') {
            for (sql += 2; *sql != '\0' && !(sql[0] == '*' && sql[1] == '/');)
                sql++;
            if (*sql != '\0')
                sql += 2;
        } else {
            return sql;
        }
    }
}

/* If the next word is `word`, the place after it; else NULL. */
static const char *take_word(const char *sql, const char *word)
{
    size_t bytes = strlen(word);

    sql = skip_blank(sql);
    if (sqlite3_strnicmp(sql, word, (int)bytes) != 0 || isalnum((unsigned char)sql[bytes]) || sql[bytes] == '_')
        return NULL;
    return sql + bytes;
}

static bool has_word(const char *sql, const char *word)
{
    while (*(sql = skip_blank(sql)) != '\0') {
        if (take_word(sql, word) != NULL)
            return true;
        sql++;
        while (isalnum((unsigned char)*sql) || *sql == '_')
            sql++;
    }
    return false;
}

static enum thr_kind kind_of_text(const char *sql)
{
    const char *rest;

    if (sql == NULL)
        return THR_KIND_AUTOCOMMIT;
    if ((rest = take_word(sql, "BEGIN")) != NULL) {
        if (take_word(rest, "IMMEDIATE") != NULL)
            return THR_KIND_IMMEDIATE;
        if (take_word(rest, "EXCLUSIVE") != NULL)
            return THR_KIND_EXCLUSIVE;
        return THR_KIND_EXPLICIT;
    }
    if ((rest = take_word(sql, "VACUUM")) != NULL && !has_word(rest, "INTO"))
        return THR_KIND_REWRITE;
    return THR_KIND_AUTOCOMMIT;
}

/* Does it look at all free pages, or at the end of the file? By a PRAGMA, or by the table-valued function of one. */
static bool counts_pages(const char *sql)
{
    static const char *const NAMES[] = {"integrity_check", "quick_check", "freelist_count", "page_count"};
    const char *rest = sql == NULL ? NULL : take_word(sql, "PRAGMA");

    if (sql == NULL)
        return false;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && rest != NULL; i++)
        if (has_word(rest, NAMES[i]))
            return true;
    if (rest != NULL)
        return false;
    for (; (rest = strstr(sql, "pragma_")) != NULL || (rest = strstr(sql, "PRAGMA_")) != NULL; sql = rest + 7)
        for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
            if (sqlite3_strnicmp(rest + 7, NAMES[i], (int)strlen(NAMES[i])) == 0)
                return true;
    return false;
}

void thr_statement_info(sqlite3 *db, sqlite3_stmt *only, bool *counts_out, struct thr_statement_info *out)
{
    sqlite3_stmt *stmt;
    bool rows = false, immediate = false, exclusive = false, rewrite = false;

    memset(out, 0, sizeof *out);
    out->kind = THR_KIND_RAW;
    if (counts_out != NULL)
        *counts_out = false;
    if (db == NULL)
        return;
    if (only != NULL && !sqlite3_stmt_busy(only))
        only = NULL;
    for (stmt = only != NULL ? only : sqlite3_next_stmt(db, NULL); stmt != NULL;
         stmt = only != NULL ? NULL : sqlite3_next_stmt(db, stmt)) {
        if (!sqlite3_stmt_busy(stmt))
            continue;
        out->busy++;
        if (sqlite3_stmt_readonly(stmt)) {
            if (counts_out != NULL)
                *counts_out = *counts_out || counts_pages(sqlite3_sql(stmt));
            continue;
        }
        out->writes = true;
        switch (kind_of_text(sqlite3_sql(stmt))) {
        case THR_KIND_IMMEDIATE:
            immediate = true;
            break;
        case THR_KIND_EXCLUSIVE:
            exclusive = true;
            break;
        case THR_KIND_REWRITE:
            rewrite = true;
            break;
        default: /* a statement without a text is a blob handle: what was written through it cannot be written again */
            rows = rows || sqlite3_column_count(stmt) > 0 || sqlite3_sql(stmt) == NULL;
            break;
        }
    }
    if (rewrite)
        out->kind = THR_KIND_REWRITE;
    else if (exclusive)
        out->kind = THR_KIND_EXCLUSIVE;
    else if (immediate)
        out->kind = THR_KIND_IMMEDIATE;
    else if (out->busy == 0)
        out->kind = THR_KIND_RAW;
    else if (!sqlite3_get_autocommit(db))
        out->kind = THR_KIND_EXPLICIT;
    else if (!out->writes)
        out->kind = THR_KIND_READ;
    else
        out->kind = rows ? THR_KIND_RETURNING : THR_KIND_AUTOCOMMIT;
}
