/* Eight threads move money between accounts. None is lost, whoever loses a conflict runs again.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <throng/pool.h>

enum { THREADS = 8, TRANSFERS = 100, ACCOUNTS = 20, BALANCE = 1000 };

struct transfer {
    int64_t from, to, amount;
};

static throng_db *db;

static void check(int code, const throng_error *err)
{
    if (code == THRONG_OK)
        return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

/* One transaction. It may run several times: it changes nothing but the database. */
static int move_money(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    static const char add[] = "UPDATE account SET balance = balance + ? WHERE id = ?";
    const struct transfer *transfer = arg;
    int code;

    (void)attempt;
    code = throng_tx_exec(tx, NULL, add, THRONG_ARGS(throng_int(-transfer->amount), throng_int(transfer->from)), NULL,
                          err);
    if (code == THRONG_OK)
        code = throng_tx_exec(tx, NULL, add, THRONG_ARGS(throng_int(transfer->amount), throng_int(transfer->to)), NULL,
                              err);
    return code;
}

static void *worker(void *arg)
{
    unsigned seed = (unsigned)(size_t)arg;
    throng_error err;

    for (int i = 0; i < TRANSFERS; i++) {
        struct transfer transfer = {rand_r(&seed) % ACCOUNTS + 1, rand_r(&seed) % ACCOUNTS + 1, rand_r(&seed) % 10};

        check(throng_transact(db, NULL, move_money, &transfer, &err), &err);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    throng_error err;
    throng_rows rows;
    int64_t sum;

    check(throng_db_open(argc > 1 ? argv[1] : "bank.db", NULL, &db, &err), &err);
    check(throng_db_exec(db, NULL,
                         "DROP TABLE IF EXISTS account;"
                         "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)",
                         THRONG_NO_ARGS, NULL, &err),
          &err);
    for (int i = 1; i <= ACCOUNTS; i++)
        check(throng_db_exec(db, NULL, "INSERT INTO account VALUES (?, ?)",
                             THRONG_ARGS(throng_int(i), throng_int(BALANCE)), NULL, &err),
              &err);

    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, worker, (void *)(i + 1));
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);

    check(throng_db_query(db, NULL, "SELECT sum(balance) FROM account", THRONG_NO_ARGS, &rows, &err), &err);
    if (throng_rows_next(&rows, &err) != THRONG_ROW)
        check(err.code, &err);
    sum = throng_rows_int(&rows, 0);
    check(throng_rows_close(&rows, &err), &err);
    check(throng_db_close(db, 0, &err), &err);
    printf("%lld of %d\n", (long long)sum, ACCOUNTS * BALANCE);
    return sum == ACCOUNTS * BALANCE ? 0 : 1;
}
