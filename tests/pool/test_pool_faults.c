/* Drivers that fail, connections that die.
 *
 * SPDX-License-Identifier: MIT */
#include "fake.h"
#include "pool.h"
#include "support.h"

/* What a program does with a pool. Counts the calls that failed; each one goes on as a program would. */
struct story {
    throng_db *db;
    int failures, last;
};

static void note(struct story *story, int code)
{
    CHECK(code != THR_CONN_STALE); /* is for drivers */
    if (code != THRONG_OK && code != THRONG_ROW && code != THRONG_DONE) {
        story->failures++;
        story->last = code;
    }
}

static void story_rows(struct story *story)
{
    throng_rows rows;
    int code;

    code = throng_db_query(story->db, NULL, "rows 2", THRONG_NO_ARGS, &rows, NULL);
    note(story, code);
    while (code == THRONG_OK && (code = throng_rows_next(&rows, NULL)) == THRONG_ROW)
        code = THRONG_OK;
    if (code != THRONG_OK && rows.slot != NULL)
        note(story, code);
    code = throng_db_query(story->db, NULL, "rows 2", THRONG_NO_ARGS, &rows, NULL);
    note(story, code);
    if (code == THRONG_OK) {
        note(story, code = throng_rows_next(&rows, NULL));
        if (code == THRONG_ROW)
            note(story, throng_rows_close(&rows, NULL));
    }
}

/* The same within bounds that are never reached. */
static void story_bounded(struct story *story)
{
    throng_cancel *cancel = throng_cancel_new();
    struct throng_options options = {.size = sizeof options, .deadline_ns = throng_after_ms(100000), .cancel = cancel};
    struct throng_tx_options tx_options = {.size = sizeof tx_options, .deadline_ns = throng_after_ms(100000)};
    throng_rows bounded, free_rows;
    throng_tx tx;

    tx_options.cancel = cancel;
    note(story, throng_db_exec(story->db, &options, "write", THRONG_NO_ARGS, NULL, NULL));
    note(story, throng_db_begin(story->db, &tx_options, &tx, NULL));
    note(story, throng_tx_query(&tx, &options, "rows 3", THRONG_NO_ARGS, &bounded, NULL));
    note(story, throng_tx_query(&tx, NULL, "rows 3", THRONG_NO_ARGS, &free_rows, NULL));
    note(story, throng_rows_next(&bounded, NULL));
    note(story, throng_rows_next(&free_rows, NULL));
    note(story, throng_rows_close(&bounded, NULL));
    note(story, throng_rows_close(&free_rows, NULL));
    note(story, throng_tx_rollback(&tx, NULL));
    throng_cancel_fire(cancel); /* too late for anybody */
    throng_cancel_free(cancel);
}

static void story_transaction(struct story *story, const throng_stmt *stmt)
{
    throng_tx tx, inner;
    throng_rows rows;

    note(story, throng_db_begin(story->db, NULL, &tx, NULL));
    note(story, throng_tx_exec(&tx, NULL, "write", THRONG_NO_ARGS, NULL, NULL));
    note(story, throng_tx_begin(&tx, &inner, NULL));
    note(story, throng_tx_stmt_exec(&inner, stmt, NULL, THRONG_NO_ARGS, NULL, NULL));
    note(story, throng_tx_rollback(&inner, NULL));
    note(story, throng_tx_query(&tx, NULL, "rows 5", THRONG_NO_ARGS, &rows, NULL));
    note(story, throng_rows_next(&rows, NULL)); /* left open: the commit closes them */
    note(story, throng_tx_commit(&tx, NULL));
    CHECK_EQUAL(throng_tx_commit(&tx, NULL), THRONG_TX_DONE);
    CHECK(throng_rows_next(&rows, NULL) != THRONG_ROW);
}

static int two_writes(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    int code = throng_tx_exec(tx, NULL, "write", THRONG_NO_ARGS, NULL, err);

    (void)attempt;
    (void)arg;
    return code != THRONG_OK ? code : throng_tx_exec(tx, NULL, "write", THRONG_NO_ARGS, NULL, err);
}

static void story_conn(struct story *story)
{
    throng_conn conn;

    note(story, throng_db_conn(story->db, NULL, &conn, NULL));
    note(story, throng_conn_ping(&conn, NULL, NULL));
    note(story, throng_conn_exec(&conn, NULL, "begin", THRONG_NO_ARGS, NULL, NULL));
    note(story, throng_conn_exec(&conn, NULL, "write", THRONG_NO_ARGS, NULL, NULL));
    note(story, throng_conn_exec(&conn, NULL, "end", THRONG_NO_ARGS, NULL, NULL));
    note(story, throng_conn_close(&conn, NULL));
}

static struct story tell_story(int fail_at, int code)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = 2, .cached_statements = 2};
    struct story story = {0};
    throng_stmt stmt;
    int opened;

    fake_reset();
    fake_fail_at(fail_at, code);
    note(&story, opened = thr_db_open_driver(&fake_driver, "", &options, &story.db, NULL));
    if (opened != THRONG_OK)
        return story;
    note(&story, throng_db_exec(story.db, NULL, "write", THRONG_NO_ARGS, NULL, NULL));
    note(&story, throng_db_prepare(story.db, NULL, "write", &stmt, NULL));
    if (stmt.db != NULL)
        note(&story, throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, NULL));
    story_rows(&story);
    story_transaction(&story, &stmt);
    note(&story, throng_transact(story.db, NULL, two_writes, NULL, NULL));
    story_conn(&story);
    story_bounded(&story);
    throng_stmt_close(&stmt);
    note(&story, throng_db_ping(story.db, NULL, NULL));
    if (fake_has_failed()) { /* the pool is as good as ever */
        CHECK_EQUAL(throng_db_exec(story.db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
        CHECK_EQUAL(throng_transact(story.db, NULL, two_writes, NULL, NULL), THRONG_OK);
    }
    CHECK_EQUAL(throng_db_close(story.db, throng_after_ms(5000), NULL), THRONG_OK);
    return story;
}

/* Property: whichever call of the driver fails, with whatever code: the caller is told (but for a conflict that was run
 * again, and a dead connection that had done nothing), no connection and no statement leaks, no dead connection is used,
 * nobody finds a transaction of somebody else, and the pool goes on. */
static void any_call_may_fail(void **state)
{
    static const int codes[] = {THRONG_ERROR, THRONG_NOMEM,      THRONG_CONN_LOST, THR_CONN_STALE, THRONG_CONFLICT,
                                THRONG_BUSY,  THRONG_CONSTRAINT, THRONG_IO,        THRONG_CANCELED};

    (void)state;
    for (size_t c = 0; c < sizeof codes / sizeof codes[0]; c++) {
        for (int n = 1;; n++) {
            struct story story = tell_story(n, codes[c]);

            CHECK_EQUAL(fake_conns(), 0);
            CHECK_EQUAL(fake_statements(), 0);
            if (!fake_has_failed()) {
                CHECK(n > 40);
                CHECK_EQUAL(story.failures, 0);
                break;
            }
            if (codes[c] == THRONG_ERROR && story.failures == 0)
                check_failed(__FILE__, __LINE__, "nobody is told that call %d failed", n);
        }
    }
}

/* Property: a transaction whose connection dies says so, at once and when it ends; the connection is closed; nothing that
 * it has written counts. */
static void a_transaction_dies_with_its_connection(void **state)
{
    struct throng_db_options options = {.size = sizeof options, .max_open = 1};
    struct throng_stats stats = {.size = sizeof stats};
    throng_error err;
    throng_rows rows;
    throng_db *db;
    throng_tx tx;

    (void)state;
    fake_reset();
    CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &db, NULL), THRONG_OK);
    for (int how = 0; how < 4; how++) {
        CHECK_EQUAL(throng_db_begin(db, NULL, &tx, &err), THRONG_OK);
        CHECK_EQUAL(throng_tx_exec(&tx, NULL, "write", THRONG_NO_ARGS, NULL, &err), THRONG_OK);
        CHECK_EQUAL(throng_tx_query(&tx, NULL, "rows 3", THRONG_NO_ARGS, &rows, &err), THRONG_OK);
        CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_ROW);
        fake_fail_at(1, how == 1 ? THR_CONN_STALE : THRONG_CONN_LOST);
        if (how == 3) { /* when the rows are closed */
            CHECK_EQUAL(throng_tx_rollback(&tx, &err), THRONG_CONN_LOST);
            CHECK_EQUAL(fake_conns(), 0);
            continue;
        }
        if (how == 2) {
            CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_CONN_LOST);
        } else {
            CHECK_EQUAL(throng_tx_exec(&tx, NULL, "write", THRONG_NO_ARGS, NULL, &err), THRONG_CONN_LOST);
            CHECK_EQUAL(err.code, THRONG_CONN_LOST);
        }
        CHECK_EQUAL(throng_tx_exec(&tx, NULL, "write", THRONG_NO_ARGS, NULL, &err), THRONG_CONN_LOST);
        CHECK_EQUAL(throng_rows_next(&rows, &err), THRONG_CONN_LOST);
        CHECK_EQUAL(how == 0 ? throng_tx_rollback(&tx, &err) : throng_tx_commit(&tx, &err), THRONG_CONN_LOST);
        CHECK_EQUAL(throng_tx_exec(&tx, NULL, "write", THRONG_NO_ARGS, NULL, &err), THRONG_TX_DONE);
        CHECK_EQUAL(fake_writes(), 0);
        CHECK_EQUAL(fake_conns(), 0);
    }
    CHECK_EQUAL(throng_db_ping(db, NULL, &err), THRONG_OK);
    CHECK_EQUAL(throng_db_stats(db, &stats, &err), THRONG_OK);
    CHECK_EQUAL(stats.closed_broken, 4);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
}

static int refuse_if(void *native, void *arg)
{
    (void)native;
    return *(int *)arg;
}

/* Property: a connection that turns out to be dead before it did anything is replaced, and the caller never knows; in a
 * transaction, or twice, it is told. */
static void a_stale_connection_is_replaced(void **state)
{
    int refuses = 0;
    struct throng_db_options options = {
        .size = sizeof options, .max_open = 1, .on_open = refuse_if, .on_open_arg = &refuses};
    throng_stmt stmt;
    throng_rows rows;
    throng_db *db;
    throng_tx tx;

    (void)state;
    fake_reset();
    CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", &options, &db, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_prepare(db, NULL, "write", &stmt, NULL), THRONG_OK);
    fake_fail_at(1, THR_CONN_STALE);
    CHECK_EQUAL(throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK(fake_has_failed());
    CHECK_EQUAL(fake_writes(), 1);
    fake_fail_at(1, THR_CONN_STALE);
    CHECK_EQUAL(throng_db_query(db, NULL, "rows 1", THRONG_NO_ARGS, &rows, NULL), THRONG_OK);
    CHECK_EQUAL(throng_rows_next(&rows, NULL), THRONG_ROW);
    CHECK_EQUAL(throng_rows_close(&rows, NULL), THRONG_OK);
    fake_fail_at(1, THR_CONN_STALE);
    CHECK_EQUAL(throng_db_begin(db, NULL, &tx, NULL), THRONG_OK);
    CHECK_EQUAL(throng_tx_rollback(&tx, NULL), THRONG_OK);
    CHECK_EQUAL(fake_conns(), 1);
    fake_fail_at(1, THRONG_CONN_LOST); /* ping asks another one */
    CHECK_EQUAL(throng_db_ping(db, NULL, NULL), THRONG_OK);
    CHECK(fake_has_failed());
    CHECK_EQUAL(fake_conns(), 1);
    CHECK_EQUAL(throng_stmt_exec(&stmt, NULL, THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    refuses = 1; /* dead, and no other one to be had, while there is a statement to drop */
    throng_stmt_close(&stmt);
    fake_fail_at(1, THR_CONN_STALE);
    CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_ERROR);
    CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_ERROR);
    CHECK_EQUAL(fake_conns(), 0);
    refuses = 0;
    CHECK_EQUAL(throng_db_exec(db, NULL, "write", THRONG_NO_ARGS, NULL, NULL), THRONG_OK);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
}

/* Property: a function is run again as long as it loses, is told which time it is, and what it wrote counts once. */
static int lose_twice(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    *(uint32_t *)arg = attempt;
    CHECK_EQUAL(throng_tx_exec(tx, NULL, "write", THRONG_NO_ARGS, NULL, err), THRONG_OK);
    if (attempt == 1)
        return throng_tx_exec(tx, NULL, "lose", THRONG_NO_ARGS, NULL, err);
    if (attempt == 2) {
        (void)throng_tx_exec(tx, NULL, "conflict", THRONG_NO_ARGS, NULL, err);
        return 77; /* its own word for it */
    }
    if (attempt == 3) {
        (void)throng_tx_exec(tx, NULL, "lose", THRONG_NO_ARGS, NULL, NULL);
        return THRONG_OK; /* does not look */
    }
    return THRONG_OK;
}

static int lose_always(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    *(uint32_t *)arg = attempt;
    return throng_tx_exec(tx, NULL, "lose", THRONG_NO_ARGS, NULL, err);
}

static int refuse(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    *(uint32_t *)arg = attempt;
    CHECK_EQUAL(throng_tx_exec(tx, NULL, "write", THRONG_NO_ARGS, NULL, err), THRONG_OK);
    return -5;
}

static int end_it(throng_tx *tx, uint32_t attempt, void *arg, throng_error *err)
{
    *(uint32_t *)arg = attempt;
    return throng_tx_rollback(tx, err);
}

static void transact_runs_again_what_was_lost(void **state)
{
    struct throng_transact_options options = {.size = sizeof options, .max_attempts = 5};
    throng_cancel *cancel = throng_cancel_new();
    struct throng_stats stats = {.size = sizeof stats};
    uint32_t attempt = 0;
    throng_error err;
    throng_db *db;

    (void)state;
    fake_reset();
    CHECK_EQUAL(thr_db_open_driver(&fake_driver, "", NULL, &db, NULL), THRONG_OK);
    CHECK_EQUAL(throng_transact(db, NULL, lose_twice, &attempt, &err), THRONG_OK);
    CHECK_EQUAL(attempt, 4);
    CHECK_EQUAL(fake_writes(), 1);
    CHECK_EQUAL(throng_transact(db, &options, lose_always, &attempt, &err), THRONG_CONFLICT);
    CHECK_EQUAL(err.code, THRONG_CONFLICT);
    CHECK_EQUAL(attempt, 5);
    CHECK_EQUAL(throng_transact(db, NULL, refuse, &attempt, NULL), -5);
    CHECK_EQUAL(attempt, 1);
    CHECK_EQUAL(throng_transact(db, NULL, end_it, &attempt, NULL), THRONG_MISUSE);
    CHECK_EQUAL(fake_writes(), 1);
    options = (struct throng_transact_options){.size = sizeof options, .deadline_ns = throng_after_ms(50)};
    CHECK_EQUAL(throng_transact(db, &options, lose_always, &attempt, &err), THRONG_TIMEOUT);
    throng_cancel_fire(cancel);
    options = (struct throng_transact_options){.size = sizeof options, .cancel = cancel};
    CHECK_EQUAL(throng_transact(db, &options, lose_always, &attempt, &err), THRONG_CANCELED);
    CHECK_EQUAL(throng_db_stats(db, &stats, NULL), THRONG_OK);
    CHECK(stats.retries >= 3 + 4);
    CHECK_EQUAL(stats.in_use, 0);
    throng_cancel_free(cancel);
    CHECK_EQUAL(throng_db_close(db, 0, NULL), THRONG_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_may_fail),
        cmocka_unit_test(a_transaction_dies_with_its_connection),
        cmocka_unit_test(a_stale_connection_is_replaced),
        cmocka_unit_test(transact_runs_again_what_was_lost),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
