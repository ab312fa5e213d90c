/* A table of text with aligned columns.
 *
 * SPDX-License-Identifier: MIT */
#include "table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CELL_BYTES 64
#define GAP "\n" /* as the first cell of a row: the row is an empty line */

struct thr_table {
    unsigned columns, left_columns;
    size_t cells, capacity;
    char (*cell)[CELL_BYTES];
};

static char *next_cell(struct thr_table *table)
{
    if (table->cells == table->capacity) {
        size_t capacity = table->capacity * 2 + 64;
        void *more = realloc(table->cell, capacity * sizeof *table->cell);

        if (more == NULL)
            return NULL;
        table->cell = more;
        table->capacity = capacity;
    }
    return table->cell[table->cells++];
}

struct thr_table *thr_table_open(const char *const *headings, unsigned columns, unsigned left_columns)
{
    struct thr_table *table = calloc(1, sizeof *table);

    if (table == NULL)
        return NULL;
    table->columns = columns;
    table->left_columns = left_columns;
    for (unsigned i = 0; i < columns; i++)
        thr_table_cell(table, "%s", headings[i]);
    return table;
}

void thr_table_cell(struct thr_table *table, const char *format, ...)
{
    char *cell = next_cell(table);
    va_list args;

    if (cell == NULL)
        return; /* the table is short of a cell then: better than no report */
    va_start(args, format);
    (void)vsnprintf(cell, CELL_BYTES, format, args);
    va_end(args);
}

void thr_table_gap(struct thr_table *table)
{
    thr_table_cell(table, GAP);
    for (unsigned i = 1; i < table->columns; i++)
        thr_table_cell(table, "%s", "");
}

static int column_width(const struct thr_table *table, unsigned column)
{
    size_t width = 0;

    for (size_t i = column; i < table->cells; i += table->columns) {
        if (strcmp(table->cell[i], GAP) != 0 && strlen(table->cell[i]) > width)
            width = strlen(table->cell[i]);
    }
    return (int)width;
}

void thr_table_print(const struct thr_table *table, FILE *to)
{
    for (size_t row = 0; row + table->columns <= table->cells; row += table->columns) {
        const char(*cell)[CELL_BYTES] = (const char(*)[CELL_BYTES]) & table->cell[row];

        if (strcmp(cell[0], GAP) == 0) {
            (void)fputc('\n', to);
            continue;
        }
        for (unsigned i = 0; i < table->columns; i++) {
            int width = column_width(table, i);

            fprintf(to, "%s%*s", i > 0 ? "  " : "", i < table->left_columns ? -width : width, cell[i]);
        }
        (void)fputc('\n', to);
    }
}

void thr_table_close(struct thr_table *table)
{
    if (table != NULL)
        free(table->cell);
    free(table);
}
