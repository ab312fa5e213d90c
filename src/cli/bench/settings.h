/* What `throng bench server` was asked to do.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_SETTINGS_H
#define THR_BENCH_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#define THR_BENCH_MAX_SETS 32
#define THR_BENCH_MAX_CLIENTS 1024

/* An engine is how the same kind of file is opened: the rest of the program treats all alike. */
struct thr_engine {
    const char *name;
    const char *journal_mode; /* NULL: the file is opened with the VFS under test */
};

enum { THR_ENGINE_COUNT = 3 };
extern const struct thr_engine thr_engines[THR_ENGINE_COUNT];

enum thr_workload { THR_WORKLOAD_SERVER, THR_WORKLOAD_UPDATE1, THR_WORKLOAD_APPEND, THR_WORKLOAD_INCREMENT };

struct thr_clients {
    uint32_t writers, readers;
};

struct thr_client_sets {
    uint32_t count;
    struct thr_clients set[THR_BENCH_MAX_SETS];
};

struct thr_counts {
    uint32_t count;
    uint32_t value[THR_BENCH_MAX_SETS];
};

struct thr_engine_list {
    uint32_t count;
    const struct thr_engine *engine[THR_ENGINE_COUNT];
};

struct thr_settings {
    uint64_t rows;
    struct thr_client_sets sets; /* from --clients, or every pair of --writers and --readers */
    struct thr_counts writers, readers;
    struct thr_engine_list engines;
    double seconds;
    uint32_t rounds;
    uint32_t increments;
    enum thr_workload workload;
    const char *workload_name;
    const char *directory; /* NULL: choose one */
    const char *synchronous;
    int64_t mmap_bytes;
    int64_t cache_size;   /* as PRAGMA cache_size takes it; 0: SQLite's default */
    const char *vfs;      /* of the engine throng */
    const char *base_vfs; /* of the others, and of all that is not measured */
    const char *memstatus, *allocator;
    uint64_t seed;
    bool json, quiet, keep;
};

/* An exit code of enum thr_exit, or -1: go on. */
int thr_settings_parse(int argc, char **argv, struct thr_settings *out);

/* Does the workload use the table t1 with its rows? Else it begins with empty tables. */
bool thr_settings_need_rows(const struct thr_settings *settings);

/* "2 writers + 1 reader". Returns `out`. */
#define THR_LABEL_BYTES 64
const char *thr_clients_label(const struct thr_clients *clients, char out[THR_LABEL_BYTES]);

#endif
