/* The command line of `throng bench stmt`.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "stmt.h"

static const struct thr_range threads_range = {1, THR_BENCH_MAX_CLIENTS};
static const struct thr_range rows_range = {1, 100000000};
static const struct thr_range statements_range = {0, 10000};

#define AT(field) offsetof(struct thr_stmt_settings, field)

static bool add_peer(void *ctx, const char *part)
{
    bool *way = ctx;

    if (strcmp(part, "go") == 0)
        way[THR_STMT_GO] = true;
    else if (strcmp(part, "libzdb") == 0)
        way[THR_STMT_LIBZDB] = true;
    else
        return false;
    return true;
}

static bool parse_peers(const char *text, void *target, const void *detail)
{
    (void)detail;
    return thr_list_each(text, add_peer, target);
}

static const struct thr_option options[] = {
    {"peer", "LIST", parse_peers, AT(way), NULL, "a list of go, libzdb",
     "others that do the same beside it, if they are installed: Go's\n"
     "database/sql with mattn/go-sqlite3; libzdb. On stock SQLite's VFS,\n"
     "in WAL mode"},
    {"threads", "LIST", thr_parse_counts, AT(threads), &threads_range, "a list of numbers from 1 to 1024",
     "numbers of threads to run in turn (default 1,2,64)"},
    {"rows", "N", thr_parse_u64, AT(rows), &rows_range, "a number from 1 to 100000000",
     "of the table (default 10000: all in the page caches)"},
    {"connections", "N", thr_parse_u32, AT(connections), &threads_range, "a number from 1 to 1024",
     "of the pool, at most (default: one for each thread); raw has one for\n"
     "each thread in any case"},
    {"statements", "N", thr_parse_u32, AT(statements), &statements_range, "a number from 0 to 10000",
     "other prepared statements that each connection keeps, unused\n"
     "(default 0); of pool and raw"},
    {"seconds", "S", thr_parse_real, AT(seconds), NULL, "a number of seconds, 0.05 to 3600",
     "length of one measurement (default 1)"},
};

static const char about[] =
    "One prepared statement, SELECT v FROM t WHERE id=?, run by many threads: bind, one row, its column, release. "
    "Through\n"
    "the pool it is one throng_stmt for all threads, with as many connections as threads; beside it every thread has "
    "a\n"
    "connection and a compiled statement of its own (raw), which is the most that can be had.\n";

static const char notes[] =
    "columns of the table:\n"
    "  ops/s      operations a second, all threads together\n"
    "  pool is x  what the pool did with as many threads, divided by that\n"
    "  x 1        that, divided by what the same way did with the first number of threads\n"
    "  CPU ns/op  processor time of the whole process for each operation\n"
    "  pool ns    that, less what raw took: what the pool costs\n"
    "  contended  acquisitions of the pool's locks that had to wait, in the median round\n"
    "\n"
    "examples:\n"
    "  throng bench stmt                             1, 2 and 64 threads\n"
    "  throng bench stmt --threads 1 --rounds 9      the cost of the pool\n"
    "  throng bench stmt --threads 64 --connections 4\n"
    "  throng bench stmt --contention                which locks are taken, SQLite's own included\n"
    "  throng bench stmt --peer go,libzdb            beside others\n"
    "  throng bench stmt --vfs unix                  on stock SQLite's own VFS\n";

static const char *complete(void *values)
{
    struct thr_stmt_settings *settings = values;

    if (settings->threads.count == 0)
        settings->threads = (struct thr_counts){3, {1, 2, 64}};
    return NULL;
}

int thr_stmt_settings_parse(int argc, char **argv, struct thr_stmt_settings *out)
{
    static const struct thr_settings_command command = {
        .name = "stmt",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
        .about = about,
        .notes = notes,
        .complete = complete,
    };

    *out = (struct thr_stmt_settings){
        .rows = 10000, .seconds = 1, .way = {[THR_STMT_POOL] = true, [THR_STMT_RAW] = true}};
    thr_settings_default(&out->common);
    return thr_settings_parse(&command, argc, argv, &out->common);
}
