/* The command line of `throng bench server`.
 *
 * SPDX-License-Identifier: MIT */
#include "settings.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../../driver/alloc.h"
#include "../cli.h"
#include "../options.h"

const struct thr_engine thr_engines[THR_ENGINE_COUNT] = {
    {"throng", NULL},
    {"wal", "wal"},
    {"persist", "persist"},
};

static const char *const workload_names[] = {"server", "update1", "append", "increment", NULL};
static const char *const synchronous_names[] = {"off", "normal", "full", NULL};
static const char *const on_off[] = {"on", "off", NULL};
static const char *const allocator_names[] = {"mimalloc", "system", NULL};

/* --- lists --- */

static bool add_engine(void *ctx, const char *part)
{
    struct thr_engine_list *list = ctx;

    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->engine[i]->name, part) == 0)
            return false;
    }
    for (uint32_t i = 0; i < THR_ENGINE_COUNT; i++) {
        if (strcmp(thr_engines[i].name, part) == 0) {
            list->engine[list->count++] = &thr_engines[i];
            return true;
        }
    }
    return false;
}

static bool parse_engines(const char *text, void *target, const void *detail)
{
    struct thr_engine_list *list = target;

    (void)detail;
    list->count = 0;
    return thr_list_each(text, add_engine, list);
}

static bool add_count(void *ctx, const char *part)
{
    static const struct thr_range range = {0, THR_BENCH_MAX_CLIENTS};
    struct thr_counts *counts = ctx;

    return counts->count < THR_BENCH_MAX_SETS && thr_parse_u32(part, &counts->value[counts->count++], &range);
}

static bool parse_counts(const char *text, void *target, const void *detail)
{
    struct thr_counts *counts = target;

    (void)detail;
    counts->count = 0;
    return thr_list_each(text, add_count, counts);
}

/* "2" is two writers, "2+1" two writers and a reader. */
static bool add_set(void *ctx, const char *part)
{
    static const struct thr_range range = {0, THR_BENCH_MAX_CLIENTS};
    struct thr_client_sets *sets = ctx;
    struct thr_clients *set = &sets->set[sets->count];
    const char *plus = strchr(part, '+');
    char writers[16];
    size_t length = strcspn(part, "+");

    if (sets->count == THR_BENCH_MAX_SETS || length >= sizeof writers)
        return false;
    memcpy(writers, part, length);
    writers[length] = '\0';
    *set = (struct thr_clients){0};
    if (!thr_parse_u32(writers, &set->writers, &range) ||
        (plus != NULL && !thr_parse_u32(plus + 1, &set->readers, &range)))
        return false;
    sets->count++;
    return set->writers + set->readers > 0;
}

static bool parse_sets(const char *text, void *target, const void *detail)
{
    struct thr_client_sets *sets = target;

    (void)detail;
    sets->count = 0;
    return thr_list_each(text, add_set, sets);
}

/* --- the table --- */

static const struct thr_range rows_range = {1, UINT64_C(1000000000)};
static const struct thr_range small_range = {1, 1000};
static const struct thr_range increments_range = {1, 100000000};
static const struct thr_range any_range = {0, UINT64_MAX};

#define AT(field) offsetof(struct thr_settings, field)

static const struct thr_option options[] = {
    {"workload", "NAME", thr_parse_choice, AT(workload_name), workload_names, "server, update1, append or increment",
     "what a write transaction is (default server):\n"
     "server     5 x REPLACE of a random row with random blobs; two indexes\n"
     "update1    one UPDATE of a random row, autocommit\n"
     "append     one INSERT with the automatic rowid, autocommit: a hot page\n"
     "increment  one UPDATE t SET v=v+1, always of the same row, autocommit"},
    {"engine", "LIST", parse_engines, AT(engines), NULL, "a list of throng, wal, persist",
     "what to compare (default throng,wal). wal and persist are\n"
     "stock SQLite with that journal mode"},
    {"clients", "LIST", parse_sets, AT(sets), NULL, "a list like 1,2,4+1: writers, or writers+readers",
     "client sets to run in turn: 2 is two writers, 2+1 two writers\n"
     "and one reader, 0+2 two readers"},
    {"writers", "LIST", parse_counts, AT(writers), NULL, "a list of numbers, up to 1024 each",
     "the same in two lists: every number of writers (default 1,2,4)"},
    {"readers", "LIST", parse_counts, AT(readers), NULL, "a list of numbers, up to 1024 each",
     "with every number of readers (default 0)"},
    {"rows", "N", thr_parse_u64, AT(rows), &rows_range, "a number from 1 to 1000000000", "rows of t1 (default 500000)"},
    {"seconds", "S", thr_parse_real, AT(seconds), NULL, "a number of seconds, 0.05 to 3600",
     "length of one measurement (default 3)"},
    {"rounds", "N", thr_parse_u32, AT(rounds), &small_range, "a number from 1 to 1000",
     "measurements of each kind, engines taking turns; the medians are\n"
     "shown (default 3)"},
    {"increments", "N", thr_parse_u32, AT(increments), &increments_range, "a number from 1 to 100000000",
     "transactions of each writer of the workload increment\n"
     "(default 20000); it runs until they are done"},
    {"dir", "PATH", thr_parse_text, AT(directory), NULL, "a directory",
     "where a directory for the databases is made, and removed at the\n"
     "end (default /dev/shm if that is memory and large enough, else\n"
     "$TMPDIR or /tmp)"},
    {"keep", NULL, thr_parse_flag, AT(keep), NULL, NULL, "do not remove the databases"},
    {"synchronous", "LEVEL", thr_parse_choice, AT(synchronous), synchronous_names, "off, normal or full",
     "PRAGMA synchronous (default off)"},
    {"mmap-size", "BYTES", thr_parse_bytes, AT(mmap_bytes), NULL, "a number of bytes, like 256M or 0",
     "PRAGMA mmap_size (default 1G)"},
    {"cache-size", "N", thr_parse_i64, AT(cache_size), NULL, "pages, or KiB if negative; 0 for SQLite's default",
     "PRAGMA cache_size (default: SQLite's)"},
    {"vfs", "NAME", thr_parse_text, AT(vfs), NULL, "the name of a VFS", "VFS of the engine throng (default throng)"},
    {"allocator", "NAME", thr_parse_choice, AT(allocator), allocator_names, "mimalloc or system",
     "SQLite's allocator, for every engine (default mimalloc if it was\n"
     "there when this was built)"},
    {"memstatus", "on|off", thr_parse_choice, AT(memstatus), on_off, "on or off",
     "SQLite's accounting of memory: a mutex around every allocation,\n"
     "for every engine (default off)"},
    {"seed", "N", thr_parse_u64, AT(seed), &any_range, "a number", "of the random keys and blobs (default 1)"},
    {"json", NULL, thr_parse_flag, AT(json), NULL, NULL, "print JSON instead of the table"},
    {"quiet", NULL, thr_parse_flag, AT(quiet), NULL, NULL, "no progress bar"},
    {"help", NULL, thr_parse_flag, AT(quiet), NULL, NULL, "this text"},
};

static const size_t option_count = sizeof options / sizeof options[0];

static void print_help(void)
{
    printf(
        "usage: throng bench server [OPTIONS]\n"
        "\n"
        "Runs the same transactions through Throng and through stock SQLite, on copies of one database, and shows\n"
        "both side by side. Every client is a thread with a connection of its own. Table t1(a INTEGER PRIMARY KEY,\n"
        "b BLOB(16), c BLOB(16), d BLOB(400)) has indexes on b and c. A writer does BEGIN, 5 x REPLACE with a random\n"
        "key and random blobs, COMMIT; a reader BEGIN, 5 x SELECT * FROM t1 WHERE a>random LIMIT 10, END (plain\n"
        "BEGIN for all: stock SQLite has no BEGIN READONLY). A transaction that loses a conflict is run again with\n"
        "the same values, and its time counts from its first try. At the end stock SQLite checks every database.\n"
        "\n"
        "options:\n");
    thr_options_help(stdout, options, option_count);
    printf("\n"
           "columns of the table:\n"
           "  rw tx/s     committed write transactions a second, all writers together\n"
           "  x WAL       that, divided by what stock SQLite in WAL mode reached with the same clients\n"
           "  conflict    tries that had to be run again, of all tries\n"
           "  ro tx/s     read transactions a second\n"
           "  p50 .. max  time of a write transaction (where there is no writer: of a read transaction); max is the\n"
           "              longest of all rounds\n"
           "  CPU us/tx   processor time of the whole process for each transaction, writing or reading\n"
           "\n"
           "examples:\n"
           "  throng bench server                                      the default: 1, 2 and 4 writers\n"
           "  throng bench server --clients 1,2,4,2+1,0+2              with readers, too\n"
           "  throng bench server --workload append --writers 2,4      everybody wants the same page\n"
           "  throng bench server --workload increment --writers 3     3 x 20,000 increments of one row\n"
           "  throng bench server --dir . --synchronous full           on a disk, with an fsync for each commit\n"
           "  throng bench server --rows 5000000 --seconds 10 --json > result.json\n"
           "\n"
           "exit status: 0 if all went well; 1 after an error, or if a database did not pass the check; 2 for a wrong\n"
           "command line; 130 when interrupted\n");
}

/* --- all together --- */

static bool cross_product(struct thr_settings *settings)
{
    struct thr_client_sets *sets = &settings->sets;

    for (uint32_t i = 0; i < settings->readers.count; i++) {
        for (uint32_t j = 0; j < settings->writers.count; j++) {
            if (sets->count == THR_BENCH_MAX_SETS || settings->writers.value[j] + settings->readers.value[i] == 0)
                return false;
            sets->set[sets->count++] = (struct thr_clients){settings->writers.value[j], settings->readers.value[i]};
        }
    }
    return true;
}

static const char *complete(struct thr_settings *settings)
{
    bool lists = settings->writers.count > 0 || settings->readers.count > 0;

    for (uint32_t i = 0; workload_names[i] != NULL; i++) {
        if (strcmp(workload_names[i], settings->workload_name) == 0)
            settings->workload = (enum thr_workload)i;
    }
    if (settings->sets.count > 0 && lists)
        return "--clients and --writers or --readers do not go together";
    if (settings->writers.count == 0)
        settings->writers = (struct thr_counts){3, {1, 2, 4}};
    if (settings->readers.count == 0)
        settings->readers.count = 1; /* value[0] is 0 */
    if (settings->sets.count == 0 && !cross_product(settings))
        return "--writers and --readers make a set without clients, or too many sets";
    for (uint32_t i = 0; i < settings->sets.count; i++) {
        if (settings->sets.set[i].readers > 0 && !thr_settings_need_rows(settings))
            return "readers read t1: they need --workload server or update1";
    }
    if (strcmp(settings->allocator, "mimalloc") == 0 && !thr_alloc_has_mimalloc())
        return "this was built without mimalloc";
    return NULL;
}

bool thr_settings_need_rows(const struct thr_settings *settings)
{
    return settings->workload == THR_WORKLOAD_SERVER || settings->workload == THR_WORKLOAD_UPDATE1;
}

const char *thr_clients_label(const struct thr_clients *clients, char out[THR_LABEL_BYTES])
{
    char writers[24] = "", readers[24] = "";

    if (clients->writers > 0)
        (void)snprintf(writers, sizeof writers, "%" PRIu32 " writer%s", clients->writers,
                       clients->writers == 1 ? "" : "s");
    if (clients->readers > 0)
        (void)snprintf(readers, sizeof readers, "%" PRIu32 " reader%s", clients->readers,
                       clients->readers == 1 ? "" : "s");
    (void)snprintf(out, THR_LABEL_BYTES, "%s%s%s", writers, *writers != '\0' && *readers != '\0' ? " + " : "", readers);
    return out;
}

int thr_settings_parse(int argc, char **argv, struct thr_settings *out)
{
    const char *message = NULL;
    bool help = false;

    *out = (struct thr_settings){
        .rows = 500000,
        .engines = {2, {&thr_engines[0], &thr_engines[1]}},
        .seconds = 3,
        .rounds = 3,
        .increments = 20000,
        .workload_name = workload_names[0],
        .synchronous = "off",
        .mmap_bytes = INT64_C(1) << 30,
        .vfs = "throng",
        .memstatus = "off",
        .allocator = thr_alloc_has_mimalloc() ? "mimalloc" : "system",
        .seed = 1,
    };
    if (thr_options_parse(options, option_count, argc, argv, out, &help, &message) && !help)
        message = complete(out);
    if (help) {
        print_help();
        return THR_EXIT_OK;
    }
    if (message != NULL) {
        fprintf(stderr, "throng bench server: %s (--help tells more)\n", message);
        return THR_EXIT_USAGE;
    }
    return -1;
}
