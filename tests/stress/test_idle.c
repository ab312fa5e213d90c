/* A connection that has done much and then stays open without a word costs the others nothing: they use the pages that it
 * left over, and the file grows by what their rows need.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

enum { WRITERS = 3, BULK_ROWS = 4000, PIECE_ROWS = 100 };

static char path[PATH_SIZE];

static void bulk_insert(sqlite3 *db, int from, int rows)
{
    db_exec(db,
            "WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i+1 FROM n WHERE i<%d) "
            "INSERT INTO bulk SELECT i, randomblob(3500) FROM n",
            from + 1, from + rows);
}

/* They take turns, so each drops its cache before each transaction, and may choose pages anew. */
static void write_in_turns(sqlite3 **db, int rounds)
{
    for (int i = 0; i < rounds; i++)
        db_exec(db[i % WRITERS], "REPLACE INTO small VALUES(%d, randomblob(3500))", i % 90);
}

static void open_all(const char *name, sqlite3 **loader, sqlite3 **writer)
{
    *loader = db_open(path_new(path, name));
    db_exec(*loader, "CREATE TABLE bulk(id INTEGER PRIMARY KEY, b); CREATE TABLE small(id INTEGER PRIMARY KEY, b)");
    for (int i = 0; i < WRITERS; i++)
        writer[i] = db_open(path);
}

static void close_all(sqlite3 *loader, sqlite3 **writer)
{
    for (int i = 0; i < WRITERS; i++)
        db_close(writer[i]);
    db_close(loader);
    oracle_check(path);
}

/* What one transaction needed in bulk is no measure for the others. */
static void a_bulk_load_makes_nobody_greedy(void **state)
{
    sqlite3 *loader, *writer[WRITERS];
    int64_t pages;

    (void)state;
    for (int beside = 0; beside <= 1; beside++) {
        open_all("load", &loader, writer);
        if (beside) { /* it has a stripe, as the others have */
            write_in_turns(writer, 30);
            db_exec(loader, "INSERT INTO bulk VALUES(0, 1)");
            write_in_turns(writer, 30);
        }
        bulk_insert(loader, 0, BULK_ROWS);
        pages = db_int(loader, "PRAGMA page_count");
        write_in_turns(writer, scaled(600));
        CHECK(db_int(writer[0], "PRAGMA page_count") < pages + pages / 20);
        close_all(loader, writer);
        CHECK(file_size(path) / 4096 < pages + pages / 20);
    }
}

/* The pages that it freed, and those that it held when it became silent, are for all. */
static void what_an_idle_connection_left_is_used(void **state)
{
    sqlite3 *loader, *writer[WRITERS];
    int64_t pages;

    (void)state;
    open_all("left", &loader, writer);
    write_in_turns(writer, 30);
    for (int i = 0; i < 3; i++) { /* it learns to want much, and ends with all of it in its hands */
        bulk_insert(loader, 0, BULK_ROWS);
        write_in_turns(writer, 3);
        db_exec(loader, "DELETE FROM bulk");
    }
    pages = db_int(writer[0], "PRAGMA page_count");
    for (int i = 0; i < 3; i++) {
        write_in_turns(writer, 3);
        for (int row = 0; row < BULK_ROWS;
             row += PIECE_ROWS) /* of the first it is not known yet that it will be so much */
            bulk_insert(writer[i], row, PIECE_ROWS);
        CHECK(db_int(writer[i], "PRAGMA page_count") < pages + pages / 20);
        db_exec(writer[i], "DELETE FROM bulk");
    }
    close_all(loader, writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bulk_load_makes_nobody_greedy),
        cmocka_unit_test(what_an_idle_connection_left_is_used),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
