/* The command line of `throng bench zombie`.
 *
 * SPDX-License-Identifier: MIT */
#include "zombie.h"

static const char *const engine_names[] = {"throng", "wal", "stock", NULL};
static const struct thr_range readers_range = {1, THR_BENCH_MAX_CLIENTS};
static const struct thr_range tables_range = {1, 99999};
static const struct thr_range creates_range = {0, 99999};
static const struct thr_range many_range = {1, 100000000};
static const struct thr_range any_many_range = {0, 100000000};

#define AT(field) offsetof(struct thr_zombie_settings, field)

static const struct thr_option options[] = {
    {"engine", "LIST", thr_parse_engines, AT(common.engines), engine_names, "a list of throng, wal, stock",
     "what to compare (default throng,wal,stock):\n"
     "throng     with the settings below\n"
     "wal        stock SQLite in WAL mode, with the settings below\n"
     "stock      stock SQLite in WAL mode as it is shipped: MEMSTATUS on,\n"
     "           the system's allocator, whatever is asked for below"},
    {"readers", "LIST", thr_parse_counts, AT(readers), &readers_range, "a list of numbers from 1 to 1024",
     "numbers of read connections to run in turn (default 1,16)"},
    {"queries", "N", thr_parse_u32, AT(queries), &many_range, "a number from 1 to 100000000",
     "of each read connection (default 10000)"},
    {"tables", "N", thr_parse_u32, AT(tables), &tables_range, "a number from 1 to 99999",
     "to read, 100 rows each (default 100)"},
    {"creates", "N", thr_parse_u32, AT(creates), &creates_range, "a number up to 99999",
     "more tables, created 10 ms apart while the others work (default\n"
     "1000)"},
    {"inserts", "N", thr_parse_u32, AT(inserts), &any_many_range, "a number up to 100000000",
     "rows of 1 KiB, inserted one by one likewise (default 3000)"},
};

static const char about[] =
    "Short reads while the schema changes under them. Every reader is a thread with a connection of its own and does\n"
    "so often: BEGIN, prepare a SELECT, read one row by its id in a random table, COMMIT. Beside them one connection\n"
    "creates tables, and one inserts rows. Each new table makes every connection read the schema anew, which is\n"
    "thousands of allocations: with SQLite's accounting of memory on (MEMSTATUS, the default) each of them goes\n"
    "through one mutex of the process. Accounting and allocator are settings of a process, so every measurement is a\n"
    "process of its own, with a new database, which stock SQLite checks at the end.\n";

static const char notes[] =
    "For the first round of each kind the times of every part are printed. Columns of the table (medians of all\n"
    "rounds, max: the longest):\n"
    "  mean .. max us  time of a query, from before BEGIN until after COMMIT\n"
    "  x WAL           the mean time of engine wal, divided by this one\n"
    "  x stock         the mean time of engine stock, divided by this one\n"
    "  creates/s       tables created a second; 100 is what 10 ms apart allow\n"
    "  inserts/s       rows inserted a second\n"
    "  CPU us          processor time of the process for each query, until the last reader was done\n"
    "\n"
    "examples:\n"
    "  throng bench zombie                                      takes about four minutes\n"
    "  throng bench zombie --rounds 1 --creates 300             takes about half a minute\n"
    "  throng bench zombie --readers 16 --contention            which mutex it is\n"
    "  throng bench zombie --engine throng,wal --memstatus on   the mutex for both\n";

static const char *complete(void *values)
{
    struct thr_zombie_settings *settings = values;

    if (settings->readers.count == 0)
        settings->readers = (struct thr_counts){2, {1, 16}};
    return NULL;
}

int thr_zombie_settings_parse(int argc, char **argv, struct thr_zombie_settings *out)
{
    static const struct thr_settings_command command = {
        .name = "zombie",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
        .about = about,
        .notes = notes,
        .complete = complete,
    };

    *out = (struct thr_zombie_settings){.queries = 10000, .tables = 100, .creates = 1000, .inserts = 3000};
    thr_settings_default(&out->common);
    out->common.engines = (struct thr_engine_list){3, {&thr_engines[0], &thr_engines[1], &thr_engines[3]}};
    return thr_settings_parse(&command, argc, argv, &out->common);
}
