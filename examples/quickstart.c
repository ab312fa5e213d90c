/* A pool, a table, a few rows.
 *
 *     cc quickstart.c $(pkg-config --cflags --libs throng) && ./a.out app.db
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <throng/pool.h>

static void check(int code, const throng_error *err)
{
    if (code == THRONG_OK)
        return;
    fprintf(stderr, "%s (code %d, SQLite %d) in \"%s\"\n", err->message, err->code, err->driver_code, err->sql);
    exit(1);
}

int main(int argc, char **argv)
{
    throng_rows rows;
    throng_error err;
    throng_db *db;
    int code;

    check(throng_db_open(argc > 1 ? argv[1] : "app.db", NULL, &db, &err), &err);
    check(throng_db_exec(db, NULL, "CREATE TABLE IF NOT EXISTS person (id INTEGER PRIMARY KEY, name TEXT, born INT)",
                         THRONG_NO_ARGS, NULL, &err),
          &err);
    check(throng_db_exec(db, NULL, "INSERT INTO person (name, born) VALUES (?, ?), (?, ?)",
                         THRONG_ARGS(throng_text("Ada"), throng_int(1815), throng_text("Grace"), throng_int(1906)),
                         NULL, &err),
          &err);

    check(throng_db_query(db, NULL, "SELECT name, born FROM person WHERE born < :year",
                          THRONG_ARGS(throng_named("year", throng_int(1900))), &rows, &err),
          &err);
    while ((code = throng_rows_next(&rows, &err)) == THRONG_ROW)
        printf("%s, %lld\n", throng_rows_text(&rows, 0, NULL), (long long)throng_rows_int(&rows, 1));
    check(code == THRONG_DONE ? THRONG_OK : code, &err); /* the rows are closed at their end */

    check(throng_db_close(db, throng_after_ms(1000), &err), &err);
    return 0;
}
