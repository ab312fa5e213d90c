/* What every benchmark is asked.
 *
 * SPDX-License-Identifier: MIT */
#include "settings.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "../../driver/alloc.h"
#include "../cli.h"
#include "../mutexes.h"
#include "throng.h"

#define MAX_OPTIONS 48

const struct thr_engine thr_engines[THR_ENGINE_COUNT] = {
    {"throng", NULL, false},
    {"wal", "wal", false},
    {"persist", "persist", false},
    {"stock", "wal", true},
};

static const char *const synchronous_names[] = {"off", "normal", "full", NULL};
static const char *const checkpointer_names[] = {"caller", "thread", NULL};
static const char *const on_off[] = {"on", "off", NULL};
static const char *const allocator_names[] = {"mimalloc", "system", NULL};

/* --- lists --- */

struct engine_names {
    struct thr_engine_list *list;
    const char *const *allowed;
};

static bool add_engine(void *ctx, const char *part)
{
    const struct engine_names *names = ctx;
    const char *found = NULL;

    for (uint32_t i = 0; i < names->list->count; i++) {
        if (strcmp(names->list->engine[i]->name, part) == 0)
            return false;
    }
    if (!thr_parse_choice(part, &found, names->allowed))
        return false;
    for (uint32_t i = 0; i < THR_ENGINE_COUNT; i++) {
        if (strcmp(thr_engines[i].name, found) == 0)
            names->list->engine[names->list->count++] = &thr_engines[i];
    }
    return true;
}

bool thr_parse_engines(const char *text, void *target, const void *detail)
{
    struct engine_names names = {target, detail};

    names.list->count = 0;
    return thr_list_each(text, add_engine, &names);
}

struct bounded_counts {
    struct thr_counts *counts;
    const struct thr_range *range;
};

static bool add_count(void *ctx, const char *part)
{
    const struct bounded_counts *bounded = ctx;
    struct thr_counts *counts = bounded->counts;

    return counts->count < THR_BENCH_MAX_SETS && thr_parse_u32(part, &counts->value[counts->count++], bounded->range);
}

bool thr_parse_counts(const char *text, void *target, const void *detail)
{
    struct bounded_counts bounded = {target, detail};

    bounded.counts->count = 0;
    return thr_list_each(text, add_count, &bounded);
}

int thr_engine_index(const struct thr_settings *settings, const char *name)
{
    for (uint32_t i = 0; i < settings->engines.count; i++) {
        if (strcmp(settings->engines.engine[i]->name, name) == 0)
            return (int)i;
    }
    return -1;
}

/* --- the options --- */

static const struct thr_range rounds_range = {1, 1000};
static const struct thr_range any_range = {0, UINT64_MAX};

#define AT(field) offsetof(struct thr_settings, field)

static const struct thr_option common_options[] = {
    {"rounds", "N", thr_parse_u32, AT(rounds), &rounds_range, "a number from 1 to 1000",
     "measurements of each kind, engines taking turns; the medians are\n"
     "shown (default 3)"},
    {"contention", NULL, thr_parse_flag, AT(contention), NULL, NULL,
     "count every lock of Throng's and every mutex of SQLite's, and the\n"
     "pages that conflicts were about (costs a little speed)"},
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
    {"checkpointer", "WHO", thr_parse_choice, AT(checkpointer), checkpointer_names, "caller or thread",
     "who does Throng's checkpoints (default caller)"},
    {"allocator", "NAME", thr_parse_choice, AT(allocator), allocator_names, "mimalloc or system",
     "SQLite's allocator, for every engine (default mimalloc if it was\n"
     "there when this was built)"},
    {"memstatus", "on|off", thr_parse_choice, AT(memstatus), on_off, "on or off",
     "SQLite's accounting of memory: a mutex around every allocation,\n"
     "for every engine (default off)"},
    {"seed", "N", thr_parse_u64, AT(seed), &any_range, "a number", "of all that is random (default 1)"},
    {"json", NULL, thr_parse_flag, AT(json), NULL, NULL, "print JSON instead of the table"},
    {"quiet", NULL, thr_parse_flag, AT(quiet), NULL, NULL, "no progress bar"},
    {"help", NULL, thr_parse_flag, AT(quiet), NULL, NULL, "this text"},
};

static const size_t common_count = sizeof common_options / sizeof common_options[0];

static void print_help(const struct thr_settings_command *command, const struct thr_option *options, size_t count)
{
    printf("usage: throng bench %s [OPTIONS]\n\n%s\noptions:\n", command->name, command->about);
    thr_options_help(stdout, options, count);
    printf("\n%s\n"
           "exit status: 0 if all went well; 1 after an error, or if a database did not pass the check; 2 for a wrong\n"
           "command line; 130 when interrupted\n",
           command->notes);
}

void thr_settings_default(struct thr_settings *settings)
{
    *settings = (struct thr_settings){
        .rounds = 3,
        .synchronous = "off",
        .mmap_bytes = INT64_C(1) << 30,
        .vfs = "throng",
        .checkpointer = "caller",
        .memstatus = "off",
        .allocator = thr_alloc_has_mimalloc() ? "mimalloc" : "system",
        .seed = 1,
    };
}

int thr_settings_parse(const struct thr_settings_command *command, int argc, char **argv, struct thr_settings *values)
{
    struct thr_option options[MAX_OPTIONS];
    size_t count = command->option_count + common_count;
    const char *message = NULL;
    bool help = false;

    memcpy(options, command->options, command->option_count * sizeof *options);
    memcpy(options + command->option_count, common_options, sizeof common_options);
    if (thr_options_parse(options, count, argc, argv, values, &help, &message) && !help) {
        message = command->complete(values);
        if (message == NULL && strcmp(values->allocator, "mimalloc") == 0 && !thr_alloc_has_mimalloc())
            message = "this was built without mimalloc";
    }
    if (help) {
        print_help(command, options, count);
        return THR_EXIT_OK;
    }
    if (message != NULL) {
        fprintf(stderr, "throng bench %s: %s (--help tells more)\n", command->name, message);
        return THR_EXIT_USAGE;
    }
    return -1;
}

/* --- SQLite --- */

const char *thr_settings_apply(struct thr_settings *settings, bool as_shipped)
{
    const char *message = NULL;
    sqlite3_vfs *base;

    if (settings->contention)
        message = thr_mutexes_count();
    if (message == NULL && !as_shipped && strcmp(settings->allocator, "mimalloc") == 0)
        message = thr_alloc_use_mimalloc();
    if (message != NULL)
        return message;
    if (thr_alloc_memstatus(as_shipped || strcmp(settings->memstatus, "on") == 0) != SQLITE_OK ||
        sqlite3_initialize() != SQLITE_OK)
        return "SQLite cannot be set up";
    if ((base = sqlite3_vfs_find(NULL)) == NULL)
        return "SQLite has no VFS";
    settings->base_vfs = base->zName;
    if (throng_register(0) != SQLITE_OK)
        return "the VFS cannot be registered";
    return sqlite3_vfs_find(settings->vfs) != NULL ? NULL : "there is no VFS of that name";
}

/* --- for the reports --- */

void thr_settings_json_versions(struct thr_json *json)
{
    thr_json_text(json, "throng", throng_version());
    thr_json_text(json, "sqlite", sqlite3_libversion());
    thr_json_text(json, "sqlite_source", sqlite3_sourceid());
}

void thr_settings_json(struct thr_json *json, const struct thr_settings *settings, const char *directory)
{
    thr_json_integer(json, "rounds", settings->rounds);
    thr_json_text(json, "directory", directory);
    thr_json_text(json, "synchronous", settings->synchronous);
    thr_json_integer(json, "mmap_size", settings->mmap_bytes);
    thr_json_integer(json, "cache_size", settings->cache_size);
    thr_json_text(json, "vfs", settings->vfs);
    thr_json_text(json, "checkpointer", settings->checkpointer);
    thr_json_text(json, "allocator", settings->allocator);
    thr_json_text(json, "memstatus", settings->memstatus);
    thr_json_integer(json, "seed", (int64_t)settings->seed);
}
