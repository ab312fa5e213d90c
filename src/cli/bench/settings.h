/* What every benchmark is asked, and how its command line is read.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_SETTINGS_H
#define THR_BENCH_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../json.h"
#include "../options.h"

#define THR_BENCH_MAX_SETS 32
#define THR_BENCH_MAX_CLIENTS 1024

/* An engine is how the same kind of file is opened: the rest of the program treats all alike. */
struct thr_engine {
    const char *name;
    const char *journal_mode; /* NULL: the file is opened with the VFS under test */
    bool as_shipped;          /* with SQLite's own defaults: MEMSTATUS on, the system's allocator */
};

enum { THR_ENGINE_COUNT = 4 };
extern const struct thr_engine thr_engines[THR_ENGINE_COUNT]; /* throng, wal, persist, stock */

struct thr_counts {
    uint32_t count;
    uint32_t value[THR_BENCH_MAX_SETS];
};

struct thr_engine_list {
    uint32_t count;
    const struct thr_engine *engine[THR_ENGINE_COUNT];
};

struct thr_settings {
    struct thr_engine_list engines;
    uint32_t rounds;
    const char *directory; /* NULL: choose one */
    const char *synchronous;
    int64_t mmap_bytes;
    int64_t cache_size; /* as PRAGMA cache_size takes it; 0: SQLite's default */
    const char *vfs;    /* of the engine throng */
    const char *checkpointer;
    const char *base_vfs; /* of the others, and of all that is not measured */
    const char *memstatus, *allocator;
    uint64_t seed;
    bool contention;
    bool json, quiet, keep;
};

/* What a benchmark has of its own. */
struct thr_settings_command {
    const char *name;                 /* "server" */
    const struct thr_option *options; /* they come before the common ones */
    size_t option_count;
    const char *about, *notes;             /* of the help: before and after the options */
    const char *(*complete)(void *values); /* the rest, once all is read; NULL, or what is wrong */
};

/* `values` points to a struct that begins with a struct thr_settings, filled with what is not the default of every
 * benchmark. An exit code of enum thr_exit, or -1: go on. */
void thr_settings_default(struct thr_settings *settings);
int thr_settings_parse(const struct thr_settings_command *command, int argc, char **argv, struct thr_settings *values);

/* As thr_option_parse: struct thr_engine_list; `detail` is a list of names, then NULL. */
bool thr_parse_engines(const char *text, void *target, const void *detail);
/* struct thr_counts; `detail` is a struct thr_range. */
bool thr_parse_counts(const char *text, void *target, const void *detail);

/* The place of the engine in the list, -1 if it is not there. */
int thr_engine_index(const struct thr_settings *settings, const char *name);

/* SQLite's process-wide settings, SQLite itself, Throng: in this order. `as_shipped`: with SQLite's own defaults
 * instead. Fills settings->base_vfs. Once in a process. Returns NULL, or what is wrong. */
const char *thr_settings_apply(struct thr_settings *settings, bool as_shipped);

/* Into the object that is open. */
void thr_settings_json_versions(struct thr_json *json);
void thr_settings_json(struct thr_json *json, const struct thr_settings *settings, const char *directory);

#endif
