/* Every history is strictly serializable (I2): there is one order of all committed transactions that explains what each
 * of them read, and that agrees with the clock. See support/history.h for how that is found out.
 *
 * Rows are lists that transactions append to; half of the rows are not there at first, and ranges are read, so that
 * phantoms would show. What is taken back to a savepoint is never seen. In some shapes every other row is in another
 * database, attached, and indexes come and go meanwhile. Built with THR_FAULTS, threads also yield and sleep at the named
 * points inside the engine.
 *
 * SPDX-License-Identifier: MIT */
#include "history.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

#ifdef THR_FAULTS
#include "fault.h"
#endif

#define THREADS_MAX 8
#define MAX_LIST 8192
#define RANGE 4

struct shape {
    const char *name;
    int rows;
    int page_size;
    int pad;
    const char *settings;
    int threads;
    bool two; /* odd rows are in another database */
    bool ddl; /* a thread of its own creates and drops indexes */
};

static char path[PATH_SIZE], other[PATH_SIZE];
static const struct shape *shape;
static struct history *history;
static _Atomic int clients_left;

struct client {
    int number;
    int rounds;
    struct prng prng;
    struct prng plan; /* the same in each rerun */
    struct history_txn *txn;
    sqlite3_stmt *read;
    sqlite3_stmt *range;
    sqlite3_stmt *append[2]; /* for even rows, for odd ones */
    sqlite3_stmt *returning[2];
    bool reads_only;
};

static void note_read(struct client *c, int row, sqlite3_stmt *stmt)
{
    history_read(c->txn, row, sqlite3_column_blob(stmt, 1), sqlite3_column_bytes(stmt, 1) / (int)sizeof(uint32_t));
}

static int read_range(struct client *c, int first, int count)
{
    sqlite3_stmt *stmt = count > 1 ? c->range : c->read;
    int next = first;
    int rc;

    (void)sqlite3_bind_int(stmt, 1, first);
    if (count > 1)
        (void)sqlite3_bind_int(stmt, 2, first + count - 1);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int row = sqlite3_column_int(stmt, 0);

        for (; next < row; next++)
            history_read(c->txn, next, NULL, 0);
        note_read(c, row, stmt);
        next = row + 1;
    }
    (void)sqlite3_reset(stmt);
    if (rc != SQLITE_DONE)
        return rc;
    for (; next < first + count; next++)
        history_read(c->txn, next, NULL, 0);
    return SQLITE_OK;
}

static void bind_append(sqlite3_stmt *stmt, int row, uint32_t token)
{
    (void)sqlite3_bind_int(stmt, 1, row);
    (void)sqlite3_bind_blob(stmt, 2, &token, sizeof token, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int(stmt, 3, shape->pad);
}

static int append_to(struct client *c, int row)
{
    int rc;

    bind_append(c->append[row % 2], row, history_token(c->txn));
    if ((rc = stmt_run(c->append[row % 2])) == SQLITE_OK)
        history_append(c->txn, row);
    return rc;
}

/* Appends that the transaction takes back, unless it keeps them. */
static int append_in_savepoint(sqlite3 *db, struct client *c, int row, bool keep)
{
    int rc;

    if ((rc = db_try(db, "SAVEPOINT s")) != SQLITE_OK)
        return rc;
    bind_append(c->append[row % 2], row, history_token(c->txn));
    if ((rc = stmt_run(c->append[row % 2])) != SQLITE_OK)
        return rc;
    if (keep)
        history_append(c->txn, row);
    else if ((rc = db_try(db, "ROLLBACK TO s")) != SQLITE_OK)
        return rc;
    return db_try(db, "RELEASE s");
}

static int body(sqlite3 *db, void *arg)
{
    struct client *c = arg;
    struct prng prng = c->plan;
    int steps = 1 + prng_below(&prng, 5);
    int rc = SQLITE_OK;

    for (int i = 0; i < steps && rc == SQLITE_OK; i++) {
        int row = prng_below(&prng, shape->rows - RANGE);
        int what = prng_below(&prng, 7);

        if (what == 0)
            rc = read_range(c, row, RANGE);
        else if (what < 3 || c->reads_only)
            rc = read_range(c, row, 1);
        else if (what == 6)
            rc = append_in_savepoint(db, c, row, prng_chance(&prng, 2));
        else
            rc = append_to(c, row);
        if (rc == SQLITE_OK && prng_chance(&prng, 50))
            sleep_ms(1);
    }
    return rc;
}

/* db_transaction() with a record of each try. */
static void run_transaction(sqlite3 *db, struct client *c, const char *begin)
{
    int rc;

    if (!support_is_throng() && strcmp(begin, "BEGIN") == 0 && !c->reads_only)
        begin = "BEGIN IMMEDIATE";
    do {
        c->txn = history_begin(history, c->number);
        if ((rc = db_try(db, "%s", begin)) == SQLITE_OK)
            rc = body(db, c);
        if (rc == SQLITE_OK)
            rc = db_try(db, "COMMIT");
        if (rc == SQLITE_OK) {
            history_commit(c->txn);
        } else {
            history_forget(c->txn);
            if (rc != SQLITE_BUSY_SNAPSHOT || strcmp(begin, "BEGIN") != 0)
                check_failed(__FILE__, __LINE__, "%s: code %d: %s", begin, rc, sqlite3_errmsg(db));
            if (!sqlite3_get_autocommit(db))
                db_exec(db, "ROLLBACK");
        }
    } while (rc != SQLITE_OK && !check_any_failed());
}

/* One statement that appends, and with RETURNING tells what it has made of the row. */
static void run_statement(sqlite3 *db, struct client *c, bool returning)
{
    int row = prng_below(&c->plan, shape->rows - RANGE);
    sqlite3_stmt *stmt = returning ? c->returning[row % 2] : c->append[row % 2];
    int rows = 0;
    int rc;

    do {
        c->txn = history_begin(history, c->number);
        bind_append(stmt, row, history_token(c->txn));
        history_append(c->txn, row);
        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
            note_read(c, row, stmt);
            rows++;
        }
        (void)sqlite3_reset(stmt);
        /* As with stock SQLite, if the schema changes again and again before each of its 50 tries. */
        if (rc == SQLITE_SCHEMA && shape->ddl && rows == 0)
            history_forget(c->txn);
    } while (rc == SQLITE_SCHEMA && shape->ddl && rows == 0 && !check_any_failed());
    CHECK_OK(rc == SQLITE_DONE ? SQLITE_OK : rc, db); /* never fails for a conflict */
    CHECK_EQUAL(rows, returning);
    history_commit(c->txn);
}

#define APPEND_SQL                                                 \
    "INSERT INTO %s.t VALUES(?1, cast(?2 AS BLOB), zeroblob(?3)) " \
    "ON CONFLICT(id) DO UPDATE SET list=CAST(list||excluded.list AS BLOB)"

static sqlite3_stmt *prepare_for(sqlite3 *db, const char *format, const char *schema)
{
    char sql[512];

    (void)sqlite3_snprintf(sizeof sql, sql, format, schema, schema);
    return db_prepare(db, sql);
}

/* Which database is the main one differs from client to client. */
static sqlite3 *client_open(struct client *c)
{
    static const char *const LEVELS[] = {"OFF", "NORMAL", "FULL"};
    bool swap = shape->two && c->number % 2 != 0;
    sqlite3 *db = db_open(swap ? other : path);

    if (shape->two)
        db_exec(db, "ATTACH 'file:%s?vfs=%s' AS other; PRAGMA other.synchronous=%s", swap ? path : other, db_vfs(),
                LEVELS[prng_below(&c->prng, 3)]);
    db_exec(db, "%s", shape->settings);
    for (int odd = 0; odd < 2; odd++) {
        const char *schema = shape->two && (odd != 0) != swap ? "other" : "main";

        c->append[odd] = prepare_for(db, APPEND_SQL, schema);
        c->returning[odd] = prepare_for(db, APPEND_SQL " RETURNING id, list", schema);
    }
    if (shape->two) {
        c->read = db_prepare(
            db, "SELECT id, list FROM main.t WHERE id=?1 UNION ALL SELECT id, list FROM other.t WHERE id=?1");
        c->range = db_prepare(db, "SELECT id, list FROM main.t WHERE id BETWEEN ?1 AND ?2 UNION ALL "
                                  "SELECT id, list FROM other.t WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
    } else {
        c->read = db_prepare(db, "SELECT id, list FROM t WHERE id=?1");
        c->range = db_prepare(db, "SELECT id, list FROM t WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
    }
    return db;
}

static void client_thread(void *arg)
{
    struct client *c = arg;
    sqlite3 *db;

#ifdef THR_FAULTS
    fault_thread_number((uint32_t)c->number);
#endif
    db = client_open(c);
    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        int kind = prng_below(&c->prng, 12);

        c->plan = prng_new(prng_next(&c->prng));
        c->reads_only = kind == 2;
        if (kind < 2)
            run_statement(db, c, kind == 1);
        else
            run_transaction(db, c,
                            kind == 3                 ? "BEGIN IMMEDIATE"
                            : kind == 4 && i % 8 == 0 ? "BEGIN EXCLUSIVE"
                                                      : "BEGIN");
    }
    stmt_end(c->read);
    stmt_end(c->range);
    for (int odd = 0; odd < 2; odd++) {
        stmt_end(c->append[odd]);
        stmt_end(c->returning[odd]);
    }
    db_close(db);
    clients_left--;
}

/* Creates and drops indexes, in both databases at once if there are two. */
static void ddl_thread(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)arg;
    if (shape->two)
        db_exec(db, "ATTACH 'file:%s?vfs=%s' AS other", other, db_vfs());
    for (int i = 0; clients_left > 0 && !check_any_failed(); i++) {
        const char *what = i % 2 == 0 ? "CREATE INDEX %s.x ON t(length(list))" : "DROP INDEX %s.x";

        db_exec(db, "BEGIN IMMEDIATE");
        db_exec(db, what, "main");
        if (shape->two)
            db_exec(db, what, "other");
        db_exec(db, "COMMIT");
        sleep_ms(2);
    }
    db_close(db);
}

/* What stock SQLite finds after the last close is the last state of each row. */
static void read_final(const char *from)
{
    sqlite3 *db = db_stock(from);
    sqlite3_stmt *stmt = db_prepare(db, "SELECT id, list FROM t");

    while (sqlite3_step(stmt) == SQLITE_ROW)
        history_final(history, sqlite3_column_int(stmt, 0), sqlite3_column_blob(stmt, 1),
                      sqlite3_column_bytes(stmt, 1) / (int)sizeof(uint32_t));
    stmt_end(stmt);
    db_close(db);
}

static void create(const char *at)
{
    sqlite3 *db = db_open(at);

    db_exec(db, "PRAGMA page_size=%d; CREATE TABLE t(id INTEGER PRIMARY KEY, list BLOB, pad BLOB)", shape->page_size);
    db_close(db);
}

static void run_shape(const struct shape *the_shape, int number)
{
    struct client clients[THREADS_MAX];
    const char *error;
    int rounds = scaled(1500);

    shape = the_shape;
    clients_left = shape->threads;
    create(path_new(path, "serial"));
    if (shape->two)
        create(path_new(other, "serial-other"));
    history = history_new(shape->rows, shape->threads, rounds * 40);
#ifdef THR_FAULTS
    fault_reset();
    fault_seed(prng_seed() + (uint64_t)number);
    (void)fault_disturb(NULL, 40, 200000);
#endif
    for (int i = 0; i < shape->threads; i++) {
        clients[i] = (struct client){
            .number = i, .rounds = rounds, .prng = prng_new((uint64_t)(number * THREADS_MAX + i))};
        thread_start(client_thread, &clients[i]);
    }
    if (shape->ddl)
        thread_start(ddl_thread, NULL);
    threads_join();
#ifdef THR_FAULTS
    fault_reset();
#endif
    oracle_check(path);
    read_final(path);
    if (shape->two) {
        oracle_check(other);
        read_final(other);
    }
    error = history_check(history);
    if (error != NULL)
        check_failed(__FILE__, __LINE__, "%s: %s", shape->name, error);
    CHECK(history_committed(history) == shape->threads * rounds);
    history_free(history);
}

static void histories_are_serializable(void **state)
{
    static const struct shape shapes[] = {
        {"one hot page", 12, 4096, 10, "", 4, false, false},
        {"a row to a page", 60, 512, 300, "", 4, false, false},
        {"a row to a page, small cache", 60, 512, 300, "PRAGMA cache_size=4", 4, false, false},
        {"mapped", 60, 4096, 1000, "PRAGMA mmap_size=100000000", 4, false, false},
        {"mapped, small cache", 60, 1024, 1000, "PRAGMA mmap_size=100000000; PRAGMA cache_size=2", 4, false, false},
        {"large pages", 40, 65536, 20000, "", 4, false, false},
        {"rows of many pages", 40, 512, 5000, "", 4, false, false},
        {"few conflicts", 1500, 1024, 50, "", 4, false, false},
        {"two databases", 60, 512, 300, "", 4, true, false},
        {"indexes", 60, 1024, 300, "", 4, false, true},
        {"two databases, indexes, small cache", 80, 512, 300, "PRAGMA cache_size=4", 8, true, true},
    };

    (void)state;
    for (int i = 0; i < (int)(sizeof shapes / sizeof shapes[0]); i++)
        run_shape(&shapes[i], i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histories_are_serializable),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
