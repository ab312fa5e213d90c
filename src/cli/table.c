/* A table of text with aligned columns.
 *
 * SPDX-License-Identifier: MIT */
#include "table.h"

#include <math.h>
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

void thr_table_real(struct thr_table *table, double value, int decimals)
{
    if (isfinite(value))
        thr_table_cell(table, "%.*f", decimals, value);
    else
        thr_table_cell(table, "-");
}

void thr_table_count(struct thr_table *table, double value)
{
    char plain[32], with_commas[48];
    size_t length, at = 0;

    if (!isfinite(value)) {
        thr_table_cell(table, "-");
        return;
    }
    length = (size_t)snprintf(plain, sizeof plain, "%.0f", value);
    for (size_t i = 0; i < length && i < sizeof plain; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            with_commas[at++] = ',';
        with_commas[at++] = plain[i];
    }
    with_commas[at] = '\0';
    thr_table_cell(table, "%s", with_commas);
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
