/* The contention tables.
 *
 * SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "../table.h"
#include "contention.h"

#define PAGES_SHOWN 10
#define NS_PER_MS 1e6
#define NS_PER_US 1e3

static void lock_cells(struct thr_table *table, const struct thr_contention_row *row, const struct thr_lock_count *lock)
{
    thr_table_cell(table, "%s", row->engine);
    thr_table_cell(table, "%s", row->clients);
    thr_table_cell(table, "%s", lock->name);
    thr_table_count(table, (double)lock->acquisitions);
    thr_table_count(table, (double)lock->contended);
    thr_table_cell(table, "%.2f %%",
                   lock->acquisitions > 0 ? 100 * (double)lock->contended / (double)lock->acquisitions : 0);
    thr_table_real(table, (double)lock->wait_ns / NS_PER_MS, 3);
    thr_table_real(table, (double)lock->longest_ns / NS_PER_US, 1);
}

static void print_locks(const struct thr_contention_row *rows, uint32_t count)
{
    static const char *const headings[] = {"engine",    "clients",   "lock",    "acquired",
                                           "contended", "contended", "wait ms", "longest us"};
    struct thr_table *table = thr_table_open(headings, sizeof headings / sizeof headings[0], 3);

    if (table == NULL)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct thr_contention *contention = rows[i].contention;

        thr_table_gap(table);
        for (uint32_t j = 0; j < contention->lock_count; j++) {
            if (contention->locks[j].acquisitions + contention->locks[j].contended > 0)
                lock_cells(table, &rows[i], &contention->locks[j]);
        }
    }
    thr_table_print(table, stdout);
    thr_table_close(table);
}

static void page_cells(struct thr_table *table, const struct thr_contention_row *row, const struct thr_hot_page *page)
{
    thr_table_cell(table, "%s", row->engine);
    thr_table_cell(table, "%s", row->clients);
    thr_table_cell(table, "%s", page->owner[0] != '\0' ? page->owner : "?");
    thr_table_cell(table, "%" PRIu32, page->page);
    thr_table_count(table, (double)page->conflicts);
    thr_table_count(table, (double)page->error);
}

static void print_pages(const struct thr_contention_row *rows, uint32_t count)
{
    static const char *const headings[] = {"engine", "clients", "table or index", "page", "conflicts", "too high by"};
    struct thr_table *table = thr_table_open(headings, sizeof headings / sizeof headings[0], 3);

    if (table == NULL)
        return;
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].contention->page_count > 0)
            thr_table_gap(table);
        for (uint32_t j = 0; j < rows[i].contention->page_count && j < PAGES_SHOWN; j++)
            page_cells(table, &rows[i], &rows[i].contention->pages[j]);
    }
    thr_table_print(table, stdout);
    thr_table_close(table);
}

void thr_contention_text(const struct thr_contention_row *rows, uint32_t count)
{
    bool any = false;

    for (uint32_t i = 0; i < count; i++)
        any = any || rows[i].contention->page_count > 0;
    printf("\nlocks that were taken, of all rounds\n");
    print_locks(rows, count);
    if (!any) {
        printf("\nno page made a transaction of Throng's fail\n");
        return;
    }
    printf("\npages that made transactions of Throng's fail, up to %d of each, of all rounds\n", PAGES_SHOWN);
    print_pages(rows, count);
}

void thr_contention_json(struct thr_json *json, const struct thr_contention *contention)
{
    thr_json_open(json, "contention", '{');
    thr_json_open(json, "locks", '[');
    for (uint32_t i = 0; i < contention->lock_count; i++) {
        const struct thr_lock_count *lock = &contention->locks[i];

        thr_json_open(json, NULL, '{');
        thr_json_text(json, "lock", lock->name);
        thr_json_integer(json, "acquisitions", (int64_t)lock->acquisitions);
        thr_json_integer(json, "contended", (int64_t)lock->contended);
        thr_json_integer(json, "wait_ns", (int64_t)lock->wait_ns);
        thr_json_integer(json, "longest_ns", (int64_t)lock->longest_ns);
        thr_json_close(json, '}');
    }
    thr_json_close(json, ']');
    thr_json_open(json, "conflicts", '[');
    for (uint32_t i = 0; i < contention->page_count; i++) {
        const struct thr_hot_page *page = &contention->pages[i];

        thr_json_open(json, NULL, '{');
        thr_json_integer(json, "page", page->page);
        thr_json_text(json, "owner", page->owner);
        thr_json_integer(json, "conflicts", (int64_t)page->conflicts);
        thr_json_integer(json, "error", (int64_t)page->error);
        thr_json_close(json, '}');
    }
    thr_json_close(json, ']');
    thr_json_close(json, '}');
}
