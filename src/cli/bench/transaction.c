/* The transactions of each workload. The code is the same for every engine.
 *
 * SPDX-License-Identifier: MIT */
#include "client.h"

#include <stdio.h>

/* --- values --- */

static void choose_nothing(struct thr_client *client)
{
    (void)client;
}

static sqlite3_int64 random_key(struct thr_client *client)
{
    uint64_t key = 1 + thr_random_below(&client->random, client->stage->settings->rows);

    return (sqlite3_int64)key;
}

static void choose_keys(struct thr_client *client)
{
    for (uint32_t i = 0; i < THR_PER_TRANSACTION; i++)
        client->values.key[i] = random_key(client);
}

static void choose_rows(struct thr_client *client)
{
    choose_keys(client);
    thr_random_fill(&client->random, client->values.b[0], sizeof client->values.b);
    thr_random_fill(&client->random, client->values.c[0], sizeof client->values.c);
    thr_random_fill(&client->random, client->values.d[0], sizeof client->values.d);
}

static void choose_row(struct thr_client *client)
{
    client->values.key[0] = random_key(client);
    thr_random_fill(&client->random, client->values.d[0], sizeof client->values.d[0]);
}

static void choose_blob(struct thr_client *client)
{
    thr_random_fill(&client->random, client->values.d[0], 100);
}

/* --- parameters: static, they stay where they are until the statement has been reset --- */

static void bind_nothing(struct thr_client *client, uint32_t i)
{
    (void)client;
    (void)i;
}

static void bind_row(struct thr_client *client, uint32_t i)
{
    const struct thr_values *values = &client->values;

    (void)sqlite3_bind_int64(client->work, 1, values->key[i]);
    (void)sqlite3_bind_blob(client->work, 2, values->b[i], sizeof values->b[i], SQLITE_STATIC);
    (void)sqlite3_bind_blob(client->work, 3, values->c[i], sizeof values->c[i], SQLITE_STATIC);
    (void)sqlite3_bind_blob(client->work, 4, values->d[i], sizeof values->d[i], SQLITE_STATIC);
}

static void bind_key_last(struct thr_client *client, uint32_t i)
{
    (void)sqlite3_bind_blob(client->work, 1, client->values.d[i], sizeof client->values.d[i], SQLITE_STATIC);
    (void)sqlite3_bind_int64(client->work, 2, client->values.key[i]);
}

static void bind_blob(struct thr_client *client, uint32_t i)
{
    (void)sqlite3_bind_blob(client->work, 1, client->values.d[i], 100, SQLITE_STATIC);
}

static void bind_key(struct thr_client *client, uint32_t i)
{
    (void)sqlite3_bind_int64(client->work, 1, client->values.key[i]);
}

/* In the order of enum thr_workload. */
static const struct thr_kind_of_transaction writers[] = {
    {"REPLACE INTO t1 VALUES(?, ?, ?, ?)", true, THR_PER_TRANSACTION, choose_rows, bind_row},
    {"UPDATE t1 SET d=? WHERE a=?", false, 1, choose_row, bind_key_last},
    {"INSERT INTO t2(d) VALUES(?)", false, 1, choose_blob, bind_blob},
    {"UPDATE t3 SET v=v+1 WHERE id=1", false, 1, choose_nothing, bind_nothing},
};

static const struct thr_kind_of_transaction reader = {"SELECT * FROM t1 WHERE a>? LIMIT 10", true, THR_PER_TRANSACTION,
                                                      choose_keys, bind_key};

const struct thr_kind_of_transaction *thr_kind_of_writer(enum thr_workload workload)
{
    return &writers[workload];
}

const struct thr_kind_of_transaction *thr_kind_of_reader(void)
{
    return &reader;
}

/* --- running them --- */

static int prepare(struct thr_client *client, const char *sql, sqlite3_stmt **out)
{
    return sqlite3_prepare_v3(client->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
}

int thr_transaction_open(struct thr_client *client)
{
    int rc = thr_database_open(&client->stage->settings->common, client->stage->target, &client->db);

    if (rc == SQLITE_OK)
        rc = prepare(client, client->kind->sql, &client->work);
    if (rc == SQLITE_OK)
        rc = prepare(client, "ROLLBACK", &client->rollback);
    if (rc == SQLITE_OK && client->kind->explicit_transaction) {
        rc = prepare(client, "BEGIN", &client->begin);
        if (rc == SQLITE_OK)
            rc = prepare(client, "COMMIT", &client->commit);
    }
    if (rc != SQLITE_OK)
        (void)snprintf(client->first_error, sizeof client->first_error, "opening: %s",
                       client->db != NULL ? sqlite3_errmsg(client->db) : sqlite3_errstr(rc));
    return rc;
}

void thr_transaction_close(struct thr_client *client)
{
    int pages = 0, most = 0;

    if (sqlite3_db_status(client->db, SQLITE_DBSTATUS_CACHE_WRITE, &pages, &most, 0) == SQLITE_OK)
        client->pages_written = (uint64_t)(unsigned)pages;
    (void)sqlite3_finalize(client->begin);
    (void)sqlite3_finalize(client->work);
    (void)sqlite3_finalize(client->commit);
    (void)sqlite3_finalize(client->rollback);
    if (sqlite3_close(client->db) != SQLITE_OK && client->errors++ == 0)
        (void)snprintf(client->first_error, sizeof client->first_error, "closing: %s", sqlite3_errmsg(client->db));
}

/* Run to the end. Rows are read as a program would: the last column of each, where the row is longest. */
static int step_all(sqlite3_stmt *statement)
{
    int columns = sqlite3_column_count(statement), rc;

    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        (void)sqlite3_column_blob(statement, columns - 1);
    return rc == SQLITE_DONE ? sqlite3_reset(statement) : rc;
}

int thr_transaction_try(struct thr_client *client)
{
    const struct thr_kind_of_transaction *kind = client->kind;
    sqlite3_stmt *failed = client->begin;
    int rc = SQLITE_OK;

    if (kind->explicit_transaction)
        rc = step_all(client->begin);
    for (uint32_t i = 0; rc == SQLITE_OK && i < kind->repeats; i++) {
        kind->bind(client, i);
        rc = step_all(failed = client->work);
    }
    if (rc == SQLITE_OK && kind->explicit_transaction)
        rc = step_all(failed = client->commit);
    if (rc == SQLITE_OK)
        return SQLITE_OK;

    if ((rc & 0xff) != SQLITE_BUSY && client->errors == 0)
        (void)snprintf(client->first_error, sizeof client->first_error, "%s: %s (%d)", sqlite3_sql(failed),
                       sqlite3_errmsg(client->db), rc);
    (void)sqlite3_reset(failed);
    if (sqlite3_get_autocommit(client->db) == 0) {
        (void)sqlite3_step(client->rollback);
        (void)sqlite3_reset(client->rollback);
    }
    return rc;
}
