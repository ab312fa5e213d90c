/* What `throng bench server` was asked to do.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_SERVER_SETTINGS_H
#define THR_BENCH_SERVER_SETTINGS_H

#include "settings.h"

enum thr_workload { THR_WORKLOAD_SERVER, THR_WORKLOAD_UPDATE1, THR_WORKLOAD_APPEND, THR_WORKLOAD_INCREMENT };

struct thr_clients {
    uint32_t writers, readers;
};

struct thr_client_sets {
    uint32_t count;
    struct thr_clients set[THR_BENCH_MAX_SETS];
};

struct thr_server_settings {
    struct thr_settings common;
    uint64_t rows;
    struct thr_client_sets sets; /* from --clients, or every pair of --writers and --readers */
    struct thr_counts writers, readers;
    double seconds;
    bool old_snapshot;
    uint32_t increments;
    enum thr_workload workload;
    const char *workload_name;
};

/* An exit code of enum thr_exit, or -1: go on. */
int thr_server_settings_parse(int argc, char **argv, struct thr_server_settings *out);

/* Does the workload use the table t1 with its rows? Else it begins with empty tables. */
bool thr_server_need_rows(const struct thr_server_settings *settings);

/* "2 writers + 1 reader". Returns `out`. */
#define THR_LABEL_BYTES 64
const char *thr_clients_label(const struct thr_clients *clients, char out[THR_LABEL_BYTES]);

#endif
