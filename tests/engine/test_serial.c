/* Every history is strictly serializable: there is one order of all committed transactions that explains what each of
 * them read, and it agrees with the clock (what was committed before a transaction began is before it).
 *
 * Each row carries its version, a counter that every write of the row adds one to, and the transaction that wrote it.
 * So the versions of a row are ordered, and each transaction's reads and writes give edges: to the writer of the next
 * version (ww), to the readers of a version (wr), from the readers of a version to the writer of the next one (rw).
 * The history is serializable if and only if there is no cycle. The checker is tested on histories made by hand.
 * Replay: THRONG_SEED=<n> build/tests/test-serial
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the history --- */

#define MAX_OPS 24

struct op {
    bool write;
    int row;
    int64_t version; /* seen, or written */
    int64_t writer;  /* read: the transaction that wrote it; 0: the row as created, version 0 */
};

struct txn {
    int64_t id; /* from 1 on */
    int64_t began;
    int64_t ended; /* stamps of one clock that all threads share */
    int op_count;
    struct op ops[MAX_OPS];
};

struct history {
    struct txn *txns;
    int txn_count;
    int row_count;
};

/* --- the checker --- */

struct edge {
    int to;
    int next;
};

/* Nodes: the transactions; then a line of moments in time, each after the one before. */
struct graph {
    int *first;
    int *degree; /* edges that come in */
    int node_count;
    struct edge *edges;
    int edge_count;
    int edge_room;
};

struct version {
    int row;
    int64_t version;
    int64_t writer;
    int64_t base; /* of a write: the version that its transaction found */
    int txn;
    bool write;
};

struct stamp {
    int64_t time;
    int txn;
    bool end;
};

static void graph_edge(struct graph *graph, int from, int to)
{
    if (from == to)
        return;
    if (graph->edge_count == graph->edge_room) {
        graph->edge_room = 2 * graph->edge_room + 1024;
        graph->edges = realloc(graph->edges, sizeof *graph->edges * (size_t)graph->edge_room);
        CHECK(graph->edges != NULL);
    }
    graph->edges[graph->edge_count] = (struct edge){to, graph->first[from]};
    graph->first[from] = graph->edge_count++;
    graph->degree[to]++;
}

/* Takes away nodes that nothing points to; what cannot be taken away is on a cycle or behind one. */
static bool graph_has_cycle(struct graph *graph)
{
    int *queue = malloc(sizeof *queue * (size_t)graph->node_count);
    int head = 0;
    int tail = 0;

    CHECK(queue != NULL);
    for (int i = 0; i < graph->node_count; i++) {
        if (graph->degree[i] == 0)
            queue[tail++] = i;
    }
    while (head < tail) {
        for (int e = graph->first[queue[head++]]; e >= 0; e = graph->edges[e].next) {
            if (--graph->degree[graph->edges[e].to] == 0)
                queue[tail++] = graph->edges[e].to;
        }
    }
    free(queue);
    return tail < graph->node_count;
}

static int by_version(const void *left, const void *right)
{
    const struct version *a = left;
    const struct version *b = right;

    if (a->row != b->row)
        return a->row < b->row ? -1 : 1;
    if (a->version != b->version)
        return a->version < b->version ? -1 : 1;
    return b->write - a->write; /* the write before its readers */
}

static int by_time(const void *left, const void *right)
{
    const struct stamp *a = left;
    const struct stamp *b = right;

    return a->time < b->time ? -1 : a->time > b->time;
}

/* Within a transaction: it sees its own writes, and else the same version each time; its writes of a row go up by
 * one. Only the first read and the last write of a row count for the others. */
static const char *add_transaction(const struct txn *txn, int number, struct version *versions, int *count)
{
    for (int i = 0; i < txn->op_count; i++) {
        const struct op *op = &txn->ops[i];
        const struct op *before = NULL;
        int64_t base = op->version - op->write;
        bool last_write = op->write;

        for (int j = i - 1; j >= 0; j--) {
            if (txn->ops[j].row != op->row)
                continue;
            before = before == NULL ? &txn->ops[j] : before;
            base = txn->ops[j].version - txn->ops[j].write;
        }
        for (int j = i + 1; j < txn->op_count; j++) {
            if (txn->ops[j].row == op->row && txn->ops[j].write)
                last_write = false;
        }
        if (op->write && before != NULL && op->version != before->version + 1)
            return "a write that does not follow what its transaction saw";
        if (!op->write && before != NULL && op->version != before->version)
            return "two reads of a row that differ";
        if (last_write || (!op->write && before == NULL))
            versions[(*count)++] = (struct version){op->row, op->version, op->writer, base, number, op->write};
    }
    return NULL;
}

/* `versions` is sorted. */
static const char *add_edges(const struct history *history, struct graph *graph, const struct version *versions,
                             int count)
{
    int readers = 0; /* of the current version: from here on */
    int writer = -1;
    int64_t version = 0;

    for (int i = 0; i < count; i++) {
        const struct version *v = &versions[i];

        if (i == 0 || v->row != versions[i - 1].row) {
            readers = i;
            writer = -1;
            version = 0;
        }
        if (v->write) {
            if (v->base != version)
                return "a write of a version that is not the latest: a lost update";
            if (writer >= 0)
                graph_edge(graph, writer, v->txn);
            for (int r = readers; r < i; r++)
                graph_edge(graph, versions[r].txn, v->txn);
            writer = v->txn;
            version = v->version;
            readers = i + 1;
        } else {
            if (v->version != version)
                return "a read of a version that no committed transaction left";
            if (v->writer != (writer < 0 ? 0 : history->txns[writer].id))
                return "a version that is not its writer's";
            if (writer >= 0)
                graph_edge(graph, writer, v->txn);
        }
    }
    return NULL;
}

static void add_time(const struct history *history, struct graph *graph)
{
    int count = 2 * history->txn_count;
    struct stamp *stamps = calloc((size_t)count, sizeof *stamps);

    CHECK(stamps != NULL);
    for (int i = 0; i < history->txn_count; i++) {
        stamps[2 * i] = (struct stamp){history->txns[i].began, i, false};
        stamps[2 * i + 1] = (struct stamp){history->txns[i].ended, i, true};
    }
    qsort(stamps, (size_t)count, sizeof *stamps, by_time);
    for (int i = 0; i < count; i++) {
        int moment = history->txn_count + i;

        if (i > 0)
            graph_edge(graph, moment - 1, moment);
        if (stamps[i].end)
            graph_edge(graph, stamps[i].txn, moment);
        else
            graph_edge(graph, moment, stamps[i].txn);
    }
    free(stamps);
}

/* NULL if the history is strictly serializable, else what is wrong with it. */
static const char *history_check(const struct history *history)
{
    struct version *versions = calloc((size_t)history->txn_count * MAX_OPS + 1, sizeof *versions);
    struct graph graph = {.node_count = 3 * history->txn_count};
    const char *wrong = NULL;
    int count = 0;

    graph.first = malloc(sizeof *graph.first * (size_t)(graph.node_count + 1));
    graph.degree = calloc((size_t)graph.node_count + 1, sizeof *graph.degree);
    CHECK(versions != NULL && graph.first != NULL && graph.degree != NULL);
    memset(graph.first, 0xff, sizeof *graph.first * (size_t)(graph.node_count + 1));
    for (int i = 0; i < history->txn_count && wrong == NULL; i++)
        wrong = add_transaction(&history->txns[i], i, versions, &count);
    if (wrong == NULL) {
        qsort(versions, (size_t)count, sizeof *versions, by_version);
        wrong = add_edges(history, &graph, versions, count);
    }
    if (wrong == NULL) {
        add_time(history, &graph);
        wrong = graph_has_cycle(&graph) ? "a cycle" : NULL;
    }
    free(versions);
    free(graph.first);
    free(graph.degree);
    free(graph.edges);
    return wrong;
}

/* --- the checker's own test --- */

#define READ(row, version, writer)  \
    {                               \
        false, row, version, writer \
    }
#define WRITE(row, version)   \
    {                         \
        true, row, version, 0 \
    }

static void expect(const char *wrong, struct txn *txns, int txn_count)
{
    struct history history = {.txns = txns, .txn_count = txn_count, .row_count = 2};
    const char *found = history_check(&history);

    if ((wrong == NULL) != (found == NULL) || (wrong != NULL && strstr(found, wrong) == NULL))
        check_failed(__FILE__, __LINE__, "found '%s', expected '%s'", found ? found : "", wrong ? wrong : "");
}

static void checker_accepts_good_histories(void **state)
{
    struct txn overlapping[] = {
        {1, 1, 6, 2, {READ(0, 0, 0), WRITE(0, 1)}},
        {2, 2, 5, 3, {READ(0, 0, 0), READ(1, 0, 0), WRITE(1, 1)}}, /* before 1, though it began later */
        {3, 7, 8, 4, {READ(0, 1, 1), WRITE(0, 2), WRITE(0, 3), READ(0, 3, 3)}},
        {4, 9, 10, 2, {READ(0, 3, 3), READ(1, 1, 2)}},
    };

    (void)state;
    expect(NULL, overlapping, 4);
    expect(NULL, overlapping, 0);
}

static void checker_rejects_bad_histories(void **state)
{
    struct txn lost_update[] = {
        {1, 1, 3, 2, {READ(0, 0, 0), WRITE(0, 1)}},
        {2, 2, 4, 2, {READ(0, 0, 0), WRITE(0, 1)}},
    };
    struct txn lost_update_of_two[] = {
        {1, 1, 3, 2, {WRITE(0, 1), WRITE(0, 2)}},
        {2, 2, 4, 1, {WRITE(0, 1)}},
    };
    struct txn write_skew[] = {
        {1, 1, 3, 3, {READ(0, 0, 0), READ(1, 0, 0), WRITE(0, 1)}},
        {2, 2, 4, 3, {READ(0, 0, 0), READ(1, 0, 0), WRITE(1, 1)}},
    };
    struct txn unrepeatable[] = {
        {1, 1, 4, 2, {READ(0, 0, 0), READ(0, 1, 2)}},
        {2, 2, 3, 1, {WRITE(0, 1)}},
    };
    struct txn half_a_transaction[] = {
        {1, 1, 4, 2, {READ(0, 0, 0), READ(1, 1, 2)}},
        {2, 2, 3, 2, {WRITE(0, 1), WRITE(1, 1)}},
    };
    struct txn dirty[] = {
        {1, 1, 4, 1, {READ(0, 1, 7)}}, /* 7 never committed */
    };
    struct txn stolen[] = {
        {1, 1, 2, 1, {WRITE(0, 1)}},
        {2, 3, 4, 1, {READ(0, 1, 7)}},
    };
    struct txn stale[] = {
        {1, 1, 2, 1, {WRITE(0, 1)}},
        {2, 3, 4, 1, {READ(0, 0, 0)}},
    };
    struct txn read_only_anomaly[] = {
        {1, 1, 6, 3, {READ(0, 0, 0), READ(1, 0, 0), WRITE(0, 1)}},
        {2, 2, 3, 2, {READ(1, 0, 0), WRITE(1, 1)}},
        {3, 4, 5, 2, {READ(0, 0, 0), READ(1, 1, 2)}},
    };

    (void)state;
    expect("lost update", lost_update, 2);
    expect("lost update", lost_update_of_two, 2);
    expect("cycle", write_skew, 2);
    expect("differ", unrepeatable, 2);
    expect("cycle", half_a_transaction, 2);
    expect("no committed", dirty, 1);
    expect("not its writer", stolen, 2);
    expect("cycle", stale, 2);
    expect("cycle", read_only_anomaly, 3);
}

/* --- real histories --- */

#define THREADS 4

struct shape {
    int row_count;
    int page_size;
    int pad;
    int cache_size;
    bool mapped;
};

static char path[PATH_SIZE];
static struct shape shape;
static struct txn *txns; /* each thread its own part */
static int txns_each;
static atomic_llong next_stamp;
static atomic_llong next_id;

struct client {
    struct prng prng;
    int number;
    int done;
    int reruns;
    sqlite3_stmt *read;
    sqlite3_stmt *scan;
    sqlite3_stmt *write;
    sqlite3_stmt *write_returning;
    struct txn *txn;
    struct prng plan; /* the same in each rerun */
    bool read_only;
};

static struct op *add_op(struct txn *txn, bool write, int row, int64_t version, int64_t writer)
{
    CHECK(txn->op_count < MAX_OPS);
    txn->ops[txn->op_count] = (struct op){write, row, version, writer};
    return &txn->ops[txn->op_count++];
}

static int read_rows(struct client *client, sqlite3_stmt *stmt)
{
    int rc;

    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
        (void)add_op(client->txn, false, sqlite3_column_int(stmt, 0), sqlite3_column_int64(stmt, 1),
                     sqlite3_column_int64(stmt, 2));
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int read_row(struct client *client, int row)
{
    (void)sqlite3_bind_int(client->read, 1, row);
    return read_rows(client, client->read);
}

static int scan_rows(struct client *client, int row)
{
    (void)sqlite3_bind_int(client->scan, 1, row);
    (void)sqlite3_bind_int(client->scan, 2, row + 3);
    return read_rows(client, client->scan);
}

/* The new version is computed by the statement. What it was is read afterwards, from the transaction's own page. */
static int write_row(struct client *client, int row)
{
    struct txn *txn = client->txn;
    struct op *op;
    int rc;

    (void)sqlite3_bind_int64(client->write, 1, txn->id);
    (void)sqlite3_bind_int(client->write, 2, row);
    if ((rc = stmt_run(client->write)) != SQLITE_OK)
        return rc;
    op = add_op(txn, true, row, 0, 0);
    if ((rc = read_row(client, row)) != SQLITE_OK)
        return rc;
    CHECK_EQUAL(txn->ops[txn->op_count - 1].writer, txn->id);
    op->version = txn->ops[txn->op_count - 1].version;
    return SQLITE_OK;
}

static int client_body(sqlite3 *db, void *arg)
{
    struct client *client = arg;
    struct prng prng = client->plan;
    int steps = 1 + prng_below(&prng, 4);
    int rc = SQLITE_OK;

    (void)db;
    client->txn->op_count = 0;
    client->txn->id = atomic_fetch_add(&next_id, 1) + 1; /* another one in each rerun: none may see the old one */
    for (int i = 0; i < steps && rc == SQLITE_OK; i++) {
        int row = prng_below(&prng, shape.row_count);

        switch (prng_below(&prng, 4)) {
        case 0:
            rc = scan_rows(client, row);
            break;
        case 1:
            rc = read_row(client, row);
            break;
        default:
            rc = client->read_only ? read_row(client, row) : write_row(client, row);
        }
    }
    return rc;
}

/* One autocommit statement: it says itself what it wrote, and never fails. */
static void autocommit(sqlite3 *db, struct client *client)
{
    sqlite3_stmt *stmt = client->write_returning;
    int row = prng_below(&client->plan, shape.row_count);
    int rows = 0;
    int rc;

    client->txn->id = atomic_fetch_add(&next_id, 1) + 1;
    client->txn->op_count = 0;
    (void)sqlite3_bind_int64(stmt, 1, client->txn->id);
    (void)sqlite3_bind_int(stmt, 2, row);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        (void)add_op(client->txn, true, row, sqlite3_column_int64(stmt, 0), 0);
        rows++;
    }
    (void)sqlite3_reset(stmt);
    CHECK_OK(rc == SQLITE_DONE ? SQLITE_OK : rc, db);
    CHECK_EQUAL(rows, 1);
}

static void client_thread(void *arg)
{
    struct client *client = arg;
    sqlite3 *db = db_open(path);

    db_exec(db, "PRAGMA cache_size=%d; PRAGMA mmap_size=%d", shape.cache_size, shape.mapped ? 1 << 28 : 0);
    client->read = db_prepare(db, "SELECT id, version, writer FROM t WHERE id=?1");
    client->scan = db_prepare(db, "SELECT id, version, writer FROM t WHERE id BETWEEN ?1 AND ?2");
    client->write = db_prepare(db, "UPDATE t SET version=version+1, writer=?1 WHERE id=?2");
    client->write_returning = db_prepare(db, "UPDATE t SET version=version+1, writer=?1 WHERE id=?2 RETURNING version");
    for (; client->done < txns_each && !check_any_failed(); client->done++) {
        int kind = prng_below(&client->prng, 10);

        client->txn = &txns[client->number * txns_each + client->done];
        client->plan = prng_new(prng_next(&client->prng));
        client->read_only = kind == 0;
        client->txn->began = atomic_fetch_add(&next_stamp, 1);
        if (kind == 1)
            autocommit(db, client);
        else
            client->reruns += db_transaction(db, kind == 2 ? "BEGIN IMMEDIATE" : "BEGIN", client_body, client);
        client->txn->ended = atomic_fetch_add(&next_stamp, 1);
    }
    CHECK_OK(sqlite3_finalize(client->read), db);
    CHECK_OK(sqlite3_finalize(client->scan), db);
    CHECK_OK(sqlite3_finalize(client->write), db);
    CHECK_OK(sqlite3_finalize(client->write_returning), db);
    db_close(db);
}

/* The last reader sees the last version of every row: nothing is lost at the close, either. */
static void read_at_the_end(struct txn *txn, int from)
{
    sqlite3 *db = db_stock(path);

    txn->id = atomic_fetch_add(&next_id, 1) + 1;
    txn->began = atomic_fetch_add(&next_stamp, 1);
    for (int row = from; row < from + MAX_OPS && row < shape.row_count; row++)
        (void)add_op(txn, false, row, db_int(db, "SELECT version FROM t WHERE id=%d", row),
                     db_int(db, "SELECT writer FROM t WHERE id=%d", row));
    txn->ended = atomic_fetch_add(&next_stamp, 1);
    db_close(db);
}

static void round_run(uint64_t number)
{
    struct client clients[THREADS];
    struct history history = {.row_count = shape.row_count};
    const char *wrong;
    sqlite3 *db = db_open(path_new(path, "serial"));

    db_exec(db, "PRAGMA page_size=%d; CREATE TABLE t(id INTEGER PRIMARY KEY, version INT, writer INT, pad BLOB)",
            shape.page_size);
    db_exec(db,
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<%d) "
            "INSERT INTO t SELECT i, 0, 0, zeroblob(%d) FROM n",
            shape.row_count - 1, shape.pad);
    if (number % 2 == 0)
        db_close(db); /* in the other rounds one connection stays idle beside the clients */
    txns_each = scaled(10000);
    txns = calloc((size_t)(THREADS * txns_each) + 100, sizeof *txns);
    CHECK(txns != NULL);
    for (int i = 0; i < THREADS; i++) {
        clients[i] = (struct client){.prng = prng_new(number * THREADS + (uint64_t)i), .number = i};
        thread_start(client_thread, &clients[i]);
    }
    threads_join();
    if (number % 2 != 0)
        db_close(db);
    oracle_check(path);
    history.txns = txns;
    history.txn_count = THREADS * txns_each;
    for (int row = 0; row < shape.row_count; row += MAX_OPS)
        read_at_the_end(&txns[history.txn_count++], row);
    wrong = history_check(&history);
    if (wrong != NULL)
        check_failed(__FILE__, __LINE__, "round %d: %s", (int)number, wrong);
    free(txns);
    txns = NULL;
}

static void histories_are_serializable(void **state)
{
    static const struct shape shapes[] = {
        {4, 4096, 10, -2000, false},     /* a hot page */
        {100, 512, 300, -2000, false},   /* a row to a page */
        {100, 512, 300, 5, false},       /* and pages that leave the cache early */
        {60, 4096, 1000, -2000, true},   /* three rows to a page, mapped */
        {60, 4096, 1000, 0, true},       /* mapped and no cache */
        {20, 65536, 30000, 2, false},    /* large pages */
        {2000, 1024, 10, -2000, false},  /* few conflicts */
        {200, 4096, 20000, -2000, true}, /* rows of several pages */
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        shape = shapes[i];
        round_run(i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checker_accepts_good_histories),
        cmocka_unit_test(checker_rejects_bad_histories),
        cmocka_unit_test(histories_are_serializable),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
