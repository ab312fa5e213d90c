/* SPDX-License-Identifier: MIT */
#include "history.h"
#include "support.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPS_MAX 40
#define TOKENS_OF_A_TXN 16
#define NOBODY (-1)

struct op {
    bool append;
    int row;
    uint32_t token; /* appended, or the last one read */
    int count;      /* of the list read */
    uint64_t hash;  /* of the list read */
};

struct history_txn {
    struct history *history;
    int number;
    bool committed;
    int64_t began;
    int64_t ended;
    int tokens;
    int op_count;
    struct op ops[OPS_MAX];
};

struct row {
    uint32_t *list;
    uint64_t *hash; /* of the first n tokens; one more than there are tokens */
    int count;
};

enum why { WHY_WW, WHY_WR, WHY_RW, WHY_TIME };

struct edge {
    int to;
    int next;
    enum why why;
    int row;
};

/* Nodes: the transactions; then moments, each of which is after the one before. */
struct graph {
    int *first;
    int *degree; /* edges that come in */
    int node_count;
    struct edge *edges;
    int edge_count;
    int edge_room;
};

struct history {
    _Atomic int64_t clock;
    int row_count;
    struct row *rows;
    int txns_each;
    int thread_count;
    int *begun; /* by thread */
    struct history_txn *txns;
};

struct moment {
    int64_t time;
    int txn;
    bool end;
};

static char error_text[1024];

/* --- recording --- */

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);

    CHECK(memory != NULL);
    return memory;
}

struct history *history_new(int rows, int threads, int txns_of_a_thread)
{
    struct history *history = allocate(1, sizeof *history);

    history->row_count = rows;
    history->rows = allocate((size_t)rows, sizeof *history->rows);
    history->thread_count = threads;
    history->txns_each = txns_of_a_thread;
    history->begun = allocate((size_t)threads, sizeof *history->begun);
    history->txns = allocate((size_t)threads * (size_t)txns_of_a_thread, sizeof *history->txns);
    return history;
}

void history_free(struct history *history)
{
    for (int i = 0; i < history->row_count; i++) {
        free(history->rows[i].list);
        free(history->rows[i].hash);
    }
    free(history->rows);
    free(history->begun);
    free(history->txns);
    free(history);
}

static int64_t tick(struct history *history)
{
    return atomic_fetch_add_explicit(&history->clock, 1, memory_order_seq_cst);
}

struct history_txn *history_begin(struct history *history, int thread)
{
    int number = thread * history->txns_each + history->begun[thread];
    struct history_txn *txn = &history->txns[number];

    CHECK(history->begun[thread] < history->txns_each);
    history->begun[thread]++;
    *txn = (struct history_txn){.history = history, .number = number};
    txn->began = tick(history);
    return txn;
}

void history_commit(struct history_txn *txn)
{
    txn->ended = tick(txn->history);
    txn->committed = true;
}

void history_forget(struct history_txn *txn)
{
    txn->committed = false;
}

void history_set_times(struct history_txn *txn, int64_t began, int64_t ended)
{
    txn->began = began;
    txn->ended = ended;
}

uint32_t history_token(const struct history_txn *txn)
{
    return (uint32_t)(txn->number * TOKENS_OF_A_TXN + txn->tokens) + 1;
}

static struct op *add_op(struct history_txn *txn)
{
    CHECK(txn->op_count < OPS_MAX);
    return &txn->ops[txn->op_count++];
}

void history_append(struct history_txn *txn, int row)
{
    uint32_t token = history_token(txn);

    CHECK(txn->tokens < TOKENS_OF_A_TXN);
    *add_op(txn) = (struct op){.append = true, .row = row, .token = token};
    txn->tokens++;
}

static uint64_t hash_token(uint64_t hash, uint32_t token)
{
    return hash_u64(hash + token + 1);
}

void history_read(struct history_txn *txn, int row, const uint32_t *list, int count)
{
    struct op *op = add_op(txn);

    *op = (struct op){.row = row, .count = count, .token = count > 0 ? list[count - 1] : 0};
    for (int i = 0; i < count; i++)
        op->hash = hash_token(op->hash, list[i]);
}

void history_final(struct history *history, int row, const uint32_t *list, int count)
{
    struct row *final = &history->rows[row];

    free(final->list);
    free(final->hash);
    final->count = count;
    final->list = allocate((size_t)count, sizeof *final->list);
    final->hash = allocate((size_t)count + 1, sizeof *final->hash);
    for (int i = 0; i < count; i++) {
        final->list[i] = list[i];
        final->hash[i + 1] = hash_token(final->hash[i], list[i]);
    }
}

/* The transaction of that number, or NULL: there was none, or it did not commit. */
static const struct history_txn *committed_txn(const struct history *history, int number)
{
    const struct history_txn *txn = &history->txns[number];

    return number % history->txns_each < history->begun[number / history->txns_each] && txn->committed ? txn : NULL;
}

int history_committed(const struct history *history)
{
    int count = 0;

    for (int i = 0; i < history->thread_count * history->txns_each; i++)
        count += committed_txn(history, i) != NULL;
    return count;
}

/* --- what can be seen without a graph --- */

static const char *wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *wrong(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(error_text, sizeof error_text, format, arguments);
    va_end(arguments);
    return error_text;
}

static int writer_of(const struct history *history, uint32_t token)
{
    int number = (int)((token - 1) / TOKENS_OF_A_TXN);

    return token == 0 || number >= history->thread_count * history->txns_each ? NOBODY : number;
}

static int position_of(const struct row *row, uint32_t token)
{
    for (int i = 0; i < row->count; i++) {
        if (row->list[i] == token)
            return i;
    }
    return -1;
}

/* Every token in the last lists was appended there, once, by a transaction that committed. */
static const char *check_final(const struct history *history, int number)
{
    const struct row *row = &history->rows[number];

    for (int i = 0; i < row->count; i++) {
        uint32_t token = row->list[i];
        int writer = writer_of(history, token);
        bool appended = false;

        if (writer == NOBODY || committed_txn(history, writer) == NULL)
            return wrong("row %d: token %u is of a transaction that did not commit: aborted write", number, token);
        for (int j = 0; j < history->txns[writer].op_count; j++) {
            const struct op *op = &history->txns[writer].ops[j];

            appended = appended || (op->append && op->row == number && op->token == token);
        }
        if (!appended)
            return wrong("row %d: token %u was never appended there", number, token);
        if (position_of(row, token) != i)
            return wrong("row %d: token %u is there twice", number, token);
    }
    return NULL;
}

/* A transaction reads a state of the list that there was, with its own appends at the end of it and nothing in
 * between, and the same state each time. */
static const char *check_reads(const struct history *history, const struct history_txn *txn)
{
    for (int i = 0; i < txn->op_count; i++) {
        const struct op *op = &txn->ops[i];
        const struct row *row = &history->rows[op->row];
        const struct op *before = NULL;
        int own = 0;

        if (op->append) {
            if (position_of(row, op->token) < 0)
                return wrong("row %d: token %u of transaction %d is gone: lost update", op->row, op->token,
                             txn->number);
            continue;
        }
        if (op->count > row->count || row->hash[op->count] != op->hash)
            return wrong("row %d: transaction %d read %d tokens, the last %u, that never were the list: "
                         "aborted, lost or reordered write",
                         op->row, txn->number, op->count, op->token);
        for (int j = 0; j < i; j++) {
            if (txn->ops[j].row != op->row)
                continue;
            if (txn->ops[j].append)
                own++;
            else {
                before = &txn->ops[j];
                own = 0;
            }
        }
        if (before != NULL && op->count != before->count + own)
            return wrong("row %d: transaction %d read it twice and saw %d, then %d tokens, %d its own: "
                         "non-repeatable read",
                         op->row, txn->number, before->count, op->count, own);
        if (own > 0 && writer_of(history, op->token) != txn->number)
            return wrong("row %d: transaction %d does not see its own write", op->row, txn->number);
        /* Half of another transaction's appends to the row: the next token is of the same one. */
        if (op->count > 0 && op->count < row->count && writer_of(history, op->token) != txn->number &&
            writer_of(history, op->token) == writer_of(history, row->list[op->count]))
            return wrong("row %d: transaction %d saw part of transaction %d: intermediate read", op->row, txn->number,
                         writer_of(history, op->token));
    }
    return NULL;
}

/* --- the graph --- */

static void graph_edge(struct graph *graph, int from, int to, enum why why, int row)
{
    if (from == to || from == NOBODY || to == NOBODY)
        return;
    if (graph->edge_count == graph->edge_room) {
        graph->edge_room = 2 * graph->edge_room + 4096;
        graph->edges = realloc(graph->edges, sizeof *graph->edges * (size_t)graph->edge_room);
        CHECK(graph->edges != NULL);
    }
    graph->edges[graph->edge_count] = (struct edge){to, graph->first[from], why, row};
    graph->first[from] = graph->edge_count++;
    graph->degree[to]++;
}

static void add_appends(const struct history *history, struct graph *graph)
{
    for (int number = 0; number < history->row_count; number++) {
        const struct row *row = &history->rows[number];

        for (int i = 1; i < row->count; i++)
            graph_edge(graph, writer_of(history, row->list[i - 1]), writer_of(history, row->list[i]), WHY_WW, number);
    }
}

static void add_reads(const struct history *history, struct graph *graph, const struct history_txn *txn)
{
    for (int i = 0; i < txn->op_count; i++) {
        const struct op *op = &txn->ops[i];
        const struct row *row = &history->rows[op->row];
        int next = op->count;

        if (op->append)
            continue;
        graph_edge(graph, writer_of(history, op->token), txn->number, WHY_WR, op->row);
        while (next < row->count && writer_of(history, row->list[next]) == txn->number)
            next++;
        if (next < row->count)
            graph_edge(graph, txn->number, writer_of(history, row->list[next]), WHY_RW, op->row);
    }
}

static int by_time(const void *left, const void *right)
{
    const struct moment *a = left;
    const struct moment *b = right;

    return a->time < b->time ? -1 : a->time > b->time;
}

static void add_time(const struct history *history, struct graph *graph, int txn_count)
{
    struct moment *moments = allocate(2 * (size_t)txn_count, sizeof *moments);
    int count = 0;

    for (int i = 0; i < txn_count; i++) {
        if (committed_txn(history, i) == NULL)
            continue;
        moments[count++] = (struct moment){history->txns[i].began, i, false};
        moments[count++] = (struct moment){history->txns[i].ended, i, true};
    }
    qsort(moments, (size_t)count, sizeof *moments, by_time);
    for (int i = 0; i < count; i++) {
        int node = txn_count + i;

        if (i > 0)
            graph_edge(graph, node - 1, node, WHY_TIME, 0);
        if (moments[i].end)
            graph_edge(graph, moments[i].txn, node, WHY_TIME, 0);
        else
            graph_edge(graph, node, moments[i].txn, WHY_TIME, 0);
    }
    free(moments);
}

/* Takes away the nodes that nothing points to, again and again. Returns one that is on a cycle or behind one. */
static int find_rest(const struct graph *graph, int *degree)
{
    int *queue = allocate((size_t)graph->node_count, sizeof *queue);
    int head = 0;
    int tail = 0;
    int rest = NOBODY;

    for (int i = 0; i < graph->node_count; i++) {
        if (degree[i] == 0)
            queue[tail++] = i;
    }
    while (head < tail) {
        for (int e = graph->first[queue[head++]]; e >= 0; e = graph->edges[e].next) {
            if (--degree[graph->edges[e].to] == 0)
                queue[tail++] = graph->edges[e].to;
        }
    }
    for (int i = 0; i < graph->node_count && rest == NOBODY; i++) {
        if (degree[i] > 0)
            rest = i;
    }
    free(queue);
    return rest;
}

/* Going back along edges between nodes of the rest one must come to a node for the second time. */
static const char *describe_cycle(const struct graph *graph, const int *degree, int rest, int txn_count)
{
    static const char *const names[] = {"ww", "wr", "rw", "time"};
    int *from = allocate((size_t)graph->node_count, sizeof *from);
    int *edge = allocate((size_t)graph->node_count, sizeof *edge);
    bool *seen = allocate((size_t)graph->node_count, sizeof *seen);
    size_t used;
    int start;

    for (int i = 0; i < graph->node_count; i++) {
        for (int e = graph->first[i]; degree[i] > 0 && e >= 0; e = graph->edges[e].next) {
            from[graph->edges[e].to] = i; /* any one will do */
            edge[graph->edges[e].to] = e;
        }
    }
    for (start = rest; !seen[start]; start = from[start])
        seen[start] = true;
    used = (size_t)snprintf(error_text, sizeof error_text, "a cycle, backwards:");
    for (int node = start; used < sizeof error_text - 64;) {
        const struct edge *e = &graph->edges[edge[node]];

        if (node < txn_count)
            used += (size_t)snprintf(error_text + used, sizeof error_text - used, " %d <-%s(row %d)-", node,
                                     names[e->why], e->row);
        else if (e->why == WHY_TIME && from[node] < txn_count)
            used += (size_t)snprintf(error_text + used, sizeof error_text - used, " later <-");
        node = from[node];
        if (node == start)
            break;
    }
    free(from);
    free(edge);
    free(seen);
    return error_text;
}

static const char *check_graph(const struct history *history)
{
    int txn_count = history->thread_count * history->txns_each;
    struct graph graph = {.node_count = 3 * txn_count};
    const char *error = NULL;
    int rest;

    graph.first = allocate((size_t)graph.node_count, sizeof *graph.first);
    graph.degree = allocate((size_t)graph.node_count, sizeof *graph.degree);
    memset(graph.first, 0xff, sizeof *graph.first * (size_t)graph.node_count);
    add_appends(history, &graph);
    for (int i = 0; i < txn_count; i++) {
        if (committed_txn(history, i) != NULL)
            add_reads(history, &graph, &history->txns[i]);
    }
    add_time(history, &graph, txn_count);
    rest = find_rest(&graph, graph.degree);
    if (rest != NOBODY)
        error = describe_cycle(&graph, graph.degree, rest, txn_count);
    free(graph.first);
    free(graph.degree);
    free(graph.edges);
    return error;
}

const char *history_check(struct history *history)
{
    const char *error = NULL;

    for (int i = 0; i < history->row_count && error == NULL; i++) {
        if (history->rows[i].hash == NULL)
            history_final(history, i, NULL, 0);
        error = check_final(history, i);
    }
    for (int i = 0; i < history->thread_count * history->txns_each && error == NULL; i++) {
        if (committed_txn(history, i) != NULL)
            error = check_reads(history, &history->txns[i]);
    }
    return error != NULL ? error : check_graph(history);
}
