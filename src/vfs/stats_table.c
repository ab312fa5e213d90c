/* What is counted, as table-valued functions: `throng_stats`, a row a counter, and `throng_conflicts`, a row for each
 * page that made transactions fail. They are there without CREATE VIRTUAL TABLE; an argument names the schema (main).
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../shm/conflicts.h"
#include "vfs.h"

struct cursor {
    sqlite3_vtab_cursor base;
    struct thr_main_file *file; /* NULL: not a database of ours, there are no rows */
    uint32_t row;
    struct thr_conflict_page conflicts[THR_CONFLICT_PAGES]; /* throng_conflicts: as of the query's start */
    uint32_t conflict_count;
};

struct view {
    const char *name;
    const char *declaration;
    int schema_column; /* hidden */
    void (*load)(struct cursor *cursor);
    bool (*has_row)(const struct cursor *cursor);
    void (*column)(const struct cursor *cursor, sqlite3_context *context, int column);
};

/* --- throng_stats --- */

static void stats_load(struct cursor *cursor)
{
    (void)cursor; /* counters are read one by one */
}

static bool stats_has_row(const struct cursor *cursor)
{
    return thr_stats_name(cursor->row) != NULL;
}

static void stats_column(const struct cursor *cursor, sqlite3_context *context, int column)
{
    if (column == 0)
        sqlite3_result_text(context, thr_stats_name(cursor->row), -1, SQLITE_STATIC);
    else if (column == 1)
        sqlite3_result_int64(context, thr_stats_value(cursor->file->conn->db, cursor->row));
}

/* --- throng_conflicts --- */

static void conflicts_load(struct cursor *cursor)
{
    cursor->conflict_count = thr_conflicts_read(cursor->file->conn->db->shm.head, cursor->conflicts);
}

static bool conflicts_has_row(const struct cursor *cursor)
{
    return cursor->row < cursor->conflict_count;
}

static void conflicts_column(const struct cursor *cursor, sqlite3_context *context, int column)
{
    const struct thr_conflict_page *page = &cursor->conflicts[cursor->row];

    if (column == 0)
        sqlite3_result_int64(context, page->pgno);
    else if (column == 1)
        sqlite3_result_int64(context, (sqlite3_int64)page->count);
    else if (column == 2)
        sqlite3_result_int64(context, (sqlite3_int64)page->error);
}

static const struct view VIEWS[] = {
    {"throng_stats", "CREATE TABLE x(counter TEXT, value INTEGER, schema HIDDEN)", 2, stats_load, stats_has_row,
     stats_column},
    {"throng_conflicts", "CREATE TABLE x(page INTEGER, conflicts INTEGER, error INTEGER, schema HIDDEN)", 3,
     conflicts_load, conflicts_has_row, conflicts_column},
};

/* --- the module --- */

struct table {
    sqlite3_vtab base;
    sqlite3 *db;
    const struct view *view;
};

static struct cursor *cursor_of(sqlite3_vtab_cursor *base)
{
    return (struct cursor *)(void *)base;
}

static struct table *table_of(sqlite3_vtab *base)
{
    return (struct table *)(void *)base;
}

static const struct view *view_of(const sqlite3_vtab_cursor *base)
{
    return table_of(base->pVtab)->view;
}

static int table_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
    const struct view *view = aux;
    struct table *table;
    int rc = sqlite3_declare_vtab(db, view->declaration);

    (void)argc;
    (void)argv;
    (void)error;
    if (rc != SQLITE_OK)
        return rc;
    if ((table = sqlite3_malloc(sizeof *table)) == NULL)
        return SQLITE_NOMEM;
    memset(table, 0, sizeof *table);
    table->db = db;
    table->view = view;
    *out = &table->base;
    return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

/* The only constraint of use is the hidden column: whose counters. */
static int table_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
    int schema_column = table_of(table)->view->schema_column;

    for (int i = 0; i < info->nConstraint; i++) {
        if (info->aConstraint[i].usable && info->aConstraint[i].iColumn == schema_column &&
            info->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_EQ) {
            info->aConstraintUsage[i].argvIndex = 1;
            info->aConstraintUsage[i].omit = 1;
            info->idxNum = 1;
            break;
        }
    }
    info->estimatedCost = 20;
    return SQLITE_OK;
}

static int table_open(sqlite3_vtab *table, sqlite3_vtab_cursor **out)
{
    struct cursor *cursor = sqlite3_malloc(sizeof *cursor);

    (void)table;
    if (cursor == NULL)
        return SQLITE_NOMEM;
    memset(cursor, 0, sizeof *cursor);
    *out = &cursor->base;
    return SQLITE_OK;
}

static int table_close(sqlite3_vtab_cursor *cursor)
{
    sqlite3_free(cursor);
    return SQLITE_OK;
}

static int table_filter(sqlite3_vtab_cursor *base, int index, const char *text, int argc, sqlite3_value **argv)
{
    struct cursor *cursor = cursor_of(base);
    const struct table *table = table_of(base->pVtab);
    const char *schema = index == 1 && argc > 0 ? (const char *)sqlite3_value_text(argv[0]) : "main";

    (void)text;
    cursor->row = 0;
    cursor->file = thr_main_of(table->db, schema);
    if (cursor->file != NULL)
        table->view->load(cursor);
    return SQLITE_OK;
}

static int table_next(sqlite3_vtab_cursor *base)
{
    cursor_of(base)->row++;
    return SQLITE_OK;
}

static int table_eof(sqlite3_vtab_cursor *base)
{
    return cursor_of(base)->file == NULL || !view_of(base)->has_row(cursor_of(base));
}

static int table_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column)
{
    view_of(base)->column(cursor_of(base), context, column);
    return SQLITE_OK;
}

static int table_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *rowid_out)
{
    *rowid_out = cursor_of(base)->row + 1;
    return SQLITE_OK;
}

static const sqlite3_module MODULE = {
    .iVersion = 0,
    .xConnect = table_connect, /* no xCreate: it is there without CREATE VIRTUAL TABLE */
    .xBestIndex = table_best_index,
    .xDisconnect = table_disconnect,
    .xOpen = table_open,
    .xClose = table_close,
    .xFilter = table_filter,
    .xNext = table_next,
    .xEof = table_eof,
    .xColumn = table_column,
    .xRowid = table_rowid,
};

int thr_stats_register(sqlite3 *db)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < sizeof VIEWS / sizeof VIEWS[0] && rc == SQLITE_OK; i++)
        rc = sqlite3_create_module_v2(db, VIEWS[i].name, &MODULE, (void *)(uintptr_t)&VIEWS[i], NULL);
    return rc;
}
