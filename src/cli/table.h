/* A table of text with aligned columns.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_TABLE_H
#define THR_CLI_TABLE_H

#include <stdio.h>

struct thr_table;

/* `left_columns` columns are aligned left, the others right. NULL when there is no memory. */
struct thr_table *thr_table_open(const char *const *headings, unsigned columns, unsigned left_columns);
/* The next cell, row by row. Cut at 63 characters. */
void thr_table_cell(struct thr_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void thr_table_real(struct thr_table *table, double value, int decimals); /* "-" if it is not a number */
void thr_table_count(struct thr_table *table, double value);              /* 1234567 as 1,234,567; likewise */
void thr_table_gap(struct thr_table *table); /* an empty line after the cells so far; they fill whole rows */
void thr_table_print(const struct thr_table *table, FILE *to);
void thr_table_close(struct thr_table *table);

#endif
