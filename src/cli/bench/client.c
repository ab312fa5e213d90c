/* The loop of one client.
 *
 * SPDX-License-Identifier: MIT */
#include "client.h"

#include "../clock.h"
#include "../interrupt.h"

#define MAX_ERRORS 100 /* then the client gives up: the engine is not well */

static enum thr_phase phase_of(const struct thr_client *client)
{
    /* Relaxed: only whether time is counted depends on it; results are handed over by pthread_join(). */
    return (enum thr_phase)atomic_load_explicit(&client->stage->phase, memory_order_relaxed);
}

/* One transaction, tried until it is committed, has failed, or time is up. The clock starts when the values are
 * there: making them is no engine's work. */
static void run_transaction(struct thr_client *client)
{
    enum thr_phase begun = phase_of(client);
    uint64_t begun_ns, retries = 0;
    int rc;

    client->kind->choose(client);
    begun_ns = thr_clock_ns();
    while (((rc = thr_transaction_try(client)) & 0xff) == SQLITE_BUSY) {
        retries++;
        if (phase_of(client) == THR_PHASE_STOP || thr_interrupted())
            break;
    }
    if (rc == SQLITE_OK)
        client->commits++;
    else if ((rc & 0xff) != SQLITE_BUSY)
        client->errors++;
    if (begun != THR_PHASE_MEASURE)
        return;
    client->retries += retries;
    /* One that ends after the bell is no throughput, but if it took long that must be seen. */
    if (rc == SQLITE_OK) {
        thr_histogram_add(&client->latency, thr_clock_ns() - begun_ns);
        if (phase_of(client) == THR_PHASE_MEASURE)
            client->transactions++;
    }
}

static bool is_done(const struct thr_client *client)
{
    const struct thr_server_settings *settings = client->stage->settings;

    if (phase_of(client) == THR_PHASE_STOP || client->errors >= MAX_ERRORS || thr_interrupted())
        return true;
    return settings->workload == THR_WORKLOAD_INCREMENT && client->commits + client->errors >= settings->increments;
}

void *thr_client_run(void *arg)
{
    struct thr_client *client = arg;

    if (thr_transaction_open(client) != SQLITE_OK)
        client->errors = 1; /* the main thread will call it off */
    thr_start_wait(&client->stage->start);
    while (!is_done(client))
        run_transaction(client);
    thr_transaction_close(client);
    return NULL;
}
