/* One client: a thread with a connection of its own, running one transaction after the other.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_CLIENT_H
#define THR_BENCH_CLIENT_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdalign.h>
#include <stdatomic.h>

#include "../histogram.h"
#include "../random.h"
#include "database.h"
#include "server_settings.h"
#include "start.h"

#define THR_PER_TRANSACTION 5 /* REPLACEs or SELECTs */

enum thr_phase {
    THR_PHASE_WARM_UP,
    THR_PHASE_MEASURE, /* what begins and ends in it counts */
    THR_PHASE_STOP
};

/* What the clients of one measurement share. */
struct thr_stage {
    const struct thr_server_settings *settings;
    const struct thr_target *target;
    struct thr_start start; /* a client is ready when its connection is open, or has failed to */
    _Atomic uint32_t phase; /* enum thr_phase; set by the main thread */
};

/* The values of one transaction: kept, so that a rerun is the same transaction. */
struct thr_values {
    sqlite3_int64 key[THR_PER_TRANSACTION];
    uint8_t b[THR_PER_TRANSACTION][16];
    uint8_t c[THR_PER_TRANSACTION][16];
    uint8_t d[THR_PER_TRANSACTION][400];
};

/* Belongs to its thread from `started` until that has been joined; on cache lines of its own. */
struct thr_client {
    alignas(128) struct thr_stage *stage;
    const struct thr_kind_of_transaction *kind;
    pthread_t thread;
    struct thr_random random;
    struct thr_values values;

    sqlite3 *db;
    sqlite3_stmt *begin, *work, *commit, *rollback;

    uint64_t transactions;  /* that began and ended in the measured time */
    uint64_t retries;       /* conflicts among them */
    uint64_t commits;       /* ever */
    uint64_t errors;        /* all but conflicts, ever */
    uint64_t pages_written; /* to the WAL or the file, ever */
    char first_error[THR_ERROR_BYTES];
    struct thr_histogram latency;
};

/* What a client does. */
struct thr_kind_of_transaction {
    const char *sql;
    bool explicit_transaction; /* BEGIN and COMMIT around it */
    uint32_t repeats;          /* of the statement in a transaction */
    void (*choose)(struct thr_client *client);
    void (*bind)(struct thr_client *client, uint32_t i);
};

/* --- transaction.c --- */

const struct thr_kind_of_transaction *thr_kind_of_writer(enum thr_workload workload);
const struct thr_kind_of_transaction *thr_kind_of_reader(void);
/* Open the connection, prepare the statements. Errors go to client->first_error. */
int thr_transaction_open(struct thr_client *client);
void thr_transaction_close(struct thr_client *client);
/* Try the transaction of client->values once. On any error it is rolled back. */
int thr_transaction_try(struct thr_client *client);

/* --- client.c --- */

/* The body of the thread; `arg` is the client. Opens the connection, reports ready, waits for the start, runs. */
void *thr_client_run(void *arg);

#endif
