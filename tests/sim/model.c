/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <stdio.h>
#include <string.h>

#include "schedule.h"

struct model *model;
size_t content_usual, content_most;

static const char *const OUTCOMES[] = {"running", "committed", "aborted", "perhaps", "lost"};

void model_begin(int dbs)
{
    memset(model->txns, 0, sizeof model->txns[0] * (size_t)(model->count + 1));
    model->count = 1;
    model->txns[0].outcome = OUTCOME_COMMITTED;
    model->txns[0].what = "setup";
    model->dbs = dbs;
    model->life = 0;
    model->moment = 1;
    memset(model->own, 0, sizeof model->own);
    memset(model->promised, 0, sizeof model->promised);
}

struct txn *model_txn(int thread, const char *what)
{
    struct txn *txn;

    if (model->count == TXNS)
        sim_failed("more transactions than the model has room for");
    txn = &model->txns[model->count++];
    memset(txn, 0, sizeof *txn);
    txn->thread = thread;
    txn->life = model->life;
    txn->what = what;
    txn->began = ++model->moment;
    for (int d = 0; d < DBS; d++) {
        for (int k = 0; k < KEYS; k++)
            txn->read[d][k] = NOT_READ;
        if (thread >= 0)
            memcpy(txn->items[d], model->txns[model->own[thread][d]].items[d], sizeof txn->items[d]);
    }
    return txn;
}

int model_token(const struct txn *txn)
{
    return (int)(txn - model->txns);
}

void model_end(struct txn *txn, enum outcome outcome)
{
    txn->outcome = outcome;
    txn->ended = ++model->moment;
    if (outcome != OUTCOME_COMMITTED)
        return;
    for (int d = 0; d < DBS; d++) {
        if (txn->wrote[d] == 0)
            continue;
        if (txn->thread >= 0)
            model->own[txn->thread][d] = (int16_t)model_token(txn);
        if (txn->level[d] > 0)
            model->promised[d] = true;
    }
}

void model_check_items(int db, int thread, int own_token, uint16_t items[ITEMS], const struct txn *reader)
{
    const struct txn *last = &model->txns[own_token];

    if (own_token < 0 || own_token >= model->count || (own_token > 0 && last->thread != thread))
        sim_failed("database %d: the register of thread %d holds %d", db, thread, own_token);
    for (int i = 0; i < ITEMS; i++)
        if (items[i] != last->items[db][i])
            sim_failed(
                "database %d: transaction %d finds item %d of thread %d as of transaction %d; as of transaction %d it "
                "should be that of %d",
                db, reader != NULL ? model_token(reader) : -1, i, thread, items[i], own_token, last->items[db][i]);
}

/* --- chains --- */

static int16_t next_writer[DBS][KEYS][TXNS];

static bool wrote(const struct txn *txn, int d, int k)
{
    return (txn->wrote[d] >> k & 1) != 0;
}

/* Who has written the next value of each register, among transactions of that outcome, and perhaps those of unknown one. */
static void chain(bool with_maybe)
{
    for (int d = 0; d < model->dbs; d++)
        for (int k = 0; k < KEYS; k++)
            memset(next_writer[d][k], 0, sizeof next_writer[d][k][0] * (size_t)model->count);
    for (int t = 1; t < model->count; t++) {
        const struct txn *txn = &model->txns[t];

        if (txn->outcome != OUTCOME_COMMITTED && !(with_maybe && txn->outcome == OUTCOME_MAYBE))
            continue;
        for (int d = 0; d < model->dbs; d++)
            for (int k = 0; k < KEYS; k++) {
                int before = txn->read[d][k];

                if (!wrote(txn, d, k))
                    continue;
                if (before < 0)
                    sim_failed("transaction %d has written register %d of database %d and not read it", t, k, d);
                if (txn->outcome == OUTCOME_COMMITTED && next_writer[d][k][before] != 0 &&
                    model->txns[next_writer[d][k][before]].outcome == OUTCOME_COMMITTED)
                    sim_failed(
                        "lost update: transactions %d and %d have both replaced the value of %d in register %d of "
                        "database %d",
                        next_writer[d][k][before], t, before, k, d);
                if (txn->outcome == OUTCOME_COMMITTED || next_writer[d][k][before] == 0)
                    next_writer[d][k][before] = (int16_t)t;
            }
    }
}

/* --- after a life --- */

/* Is its value of the register what is there now, or what that was made of? */
static bool in_chain(int d, int k, int value, int token)
{
    for (int n = 0; n < TXNS && value > 0; n++) {
        if (value == token)
            return true;
        value = model->txns[value].read[d][k];
    }
    return false;
}

/* A commit that survived depends on none in the same database that did not. */
static void check_prefix(int d, const bool *there)
{
    for (int s = 1; s < model->count; s++) {
        const struct txn *txn = &model->txns[s];

        if (!there[s] || txn->wrote[d] == 0)
            continue;
        for (int k = 0; k < KEYS; k++) {
            int from = txn->read[d][k];

            if (from > 0 && model->txns[from].outcome != OUTCOME_LOST && !there[from])
                sim_failed(
                    "after a power cut transaction %d is there and %d is not, of which it has read register %d of "
                    "database %d",
                    s, from, k, d);
            if (from < 0 || !wrote(txn, d, k))
                continue;
            for (int t = 1; t < model->count; t++) /* who has read what it replaced came before it */
                if (!there[t] && t != s && model->txns[t].outcome == OUTCOME_COMMITTED &&
                    model->txns[t].wrote[d] != 0 && model->txns[t].read[d][k] == from)
                    sim_failed("after a power cut transaction %d is there and %d is not, which came before it in "
                               "database %d",
                               s, t, d);
        }
    }
}

/* Which transactions have survived in database `d`? All of one, or nothing. */
static void find_survivors(int d, const int16_t values[KEYS], bool *there)
{
    memset(there, 0, sizeof *there * (size_t)model->count);
    for (int t = 1; t < model->count; t++) {
        const struct txn *txn = &model->txns[t];
        int found = 0, missing = 0;

        if (txn->outcome == OUTCOME_LOST)
            continue;
        for (int k = 0; k < KEYS; k++) {
            bool is;

            if (!wrote(txn, d, k))
                continue;
            is = in_chain(d, k, values[k], t);
            found += is;
            missing += !is;
            if (is && (txn->outcome == OUTCOME_ABORTED || txn->outcome == OUTCOME_NONE))
                sim_failed("transaction %d was rolled back, and is in register %d of database %d", t, k, d);
        }
        if (found > 0 && missing > 0)
            sim_failed("transaction %d is there in part, in database %d", t, d);
        there[t] = found > 0;
    }
}

void model_recovered(const int16_t values[DBS][KEYS], const bool cut[DBS], bool died)
{
    static bool there[DBS][TXNS];

    for (int d = 0; d < model->dbs; d++)
        find_survivors(d, values[d], there[d]);
    for (int t = 1; t < model->count; t++) {
        struct txn *txn = &model->txns[t];
        bool writes = false, any = false, all = true, full = true, was_cut = false;

        if (txn->outcome == OUTCOME_LOST)
            continue;
        if (txn->outcome == OUTCOME_NONE)
            txn->outcome = OUTCOME_ABORTED; /* it was under way */
        for (int d = 0; d < model->dbs; d++) {
            if (txn->wrote[d] == 0)
                continue;
            writes = true;
            was_cut = was_cut || cut[d];
            any = any || there[d][t];
            all = all && there[d][t];
            full = full && txn->level[d] >= 2;
            if (txn->outcome == OUTCOME_COMMITTED && !there[d][t] && (!cut[d] || txn->level[d] >= 2))
                sim_failed("transaction %d was acknowledged%s, and is not in database %d after %s", t,
                           txn->level[d] >= 2 ? " at FULL" : "", d,
                           cut[d] ? "a power cut"
                           : died ? "the death of the process"
                                  : "the last close");
        }
        if (!writes)
            continue;
        if (any && !all && (!was_cut || full))
            sim_failed("transaction %d is there in one database and not in the other", t);
        if (txn->outcome == OUTCOME_MAYBE) {
            txn->outcome = any ? OUTCOME_COMMITTED : OUTCOME_ABORTED;
            txn->ended = ++model->moment;
        }
    }
    for (int d = 0; d < model->dbs; d++) {
        if (cut[d])
            check_prefix(d, there[d]);
        for (int t = 1; t < model->count; t++)
            if (model->txns[t].outcome == OUTCOME_COMMITTED && model->txns[t].wrote[d] != 0 && !there[d][t]) {
                model->txns[t].wrote[d] = 0;
                if (model->txns[t].wrote[0] == 0 && model->txns[t].wrote[1] == 0)
                    model->txns[t].outcome = OUTCOME_LOST;
            }
        for (int thread = 0; thread < THREADS; thread++)
            model->own[thread][d] = values[d][SHARED_KEYS + thread];
        model->promised[d] = false;
    }
    /* Who has only read what is lost may have read anything. */
    for (int t = 1; t < model->count; t++)
        for (int d = 0; d < model->dbs; d++)
            for (int k = 0; k < KEYS; k++) {
                int from = model->txns[t].read[d][k];

                if (from > 0 && model->txns[t].outcome == OUTCOME_COMMITTED &&
                    (model->txns[from].outcome == OUTCOME_LOST || !wrote(&model->txns[from], d, k)) && cut[d])
                    model->txns[t].outcome = OUTCOME_LOST;
            }
    model->life++;
}

/* --- the order --- */

enum { WORDS = (TXNS + 63) / 64 };

static uint64_t after[TXNS][WORDS];
static int16_t nodes[TXNS], place_of[TXNS], path[TXNS];
static uint8_t colour[TXNS];

static void edge(int from, int to)
{
    if (from > 0 && from != to)
        after[place_of[from]][place_of[to] / 64] |= UINT64_C(1) << place_of[to] % 64;
}

static void edges_of(const struct txn *txn, int t)
{
    for (int d = 0; d < model->dbs; d++)
        for (int k = 0; k < KEYS; k++) {
            int from = txn->read[d][k], next;

            if (from < 0)
                continue;
            if (from > 0 && model->txns[from].outcome != OUTCOME_COMMITTED)
                sim_failed("transaction %d has read register %d of database %d from %d, which is %s", t, k, d, from,
                           OUTCOMES[model->txns[from].outcome]);
            edge(from, t);
            if ((next = next_writer[d][k][from]) != 0)
                edge(t, next);
        }
}

static void visit(int at, int count, int depth)
{
    colour[at] = 1;
    path[depth] = nodes[at];
    for (int w = 0; w <= (count - 1) / 64; w++)
        for (uint64_t left = after[at][w]; left != 0; left &= left - 1) {
            int to = w * 64 + __builtin_ctzll(left);

            if (colour[to] == 1) {
                (void)fprintf(stderr, "no order explains this: %d", nodes[to]);
                for (int i = depth; i >= 0 && path[i] != nodes[to]; i--)
                    (void)fprintf(stderr, " <- %d", path[i]);
                (void)fprintf(stderr, " <- %d\n", nodes[to]);
                sim_failed("not serializable");
            }
            if (colour[to] == 0)
                visit(to, count, depth + 1);
        }
    colour[at] = 2;
}

void model_check(void)
{
    int count = 0;

    chain(false);
    for (int t = 1; t < model->count; t++)
        if (model->txns[t].outcome == OUTCOME_COMMITTED) {
            place_of[t] = (int16_t)count;
            nodes[count++] = (int16_t)t;
        }
    for (int i = 0; i < count; i++)
        memset(after[i], 0, sizeof after[i][0] * (size_t)((count + 63) / 64));
    for (int i = 0; i < count; i++) {
        const struct txn *txn = &model->txns[nodes[i]];

        edges_of(txn, nodes[i]);
        for (int j = 0; j < count; j++)
            if (txn->ended < model->txns[nodes[j]].began)
                edge(nodes[i], nodes[j]);
    }
    memset(colour, 0, (size_t)count);
    for (int i = 0; i < count; i++)
        if (colour[i] == 0)
            visit(i, count, 0);
}

void model_print(void)
{
    for (int t = 1; t < model->count; t++) {
        const struct txn *txn = &model->txns[t];

        (void)fprintf(stderr, "  %3d  life %d  thread %2d  %-9s  %5llu..%-5llu  %-18s", t, txn->life, txn->thread,
                      OUTCOMES[txn->outcome], (unsigned long long)txn->began, (unsigned long long)txn->ended,
                      txn->what);
        for (int d = 0; d < model->dbs; d++) {
            for (int k = 0; k < KEYS; k++)
                if (txn->read[d][k] >= 0 || wrote(txn, d, k))
                    (void)fprintf(stderr, " %d.%d:%d%s", d, k, txn->read[d][k], wrote(txn, d, k) ? "!" : "");
            if (txn->wrote[d] != 0)
                (void)fprintf(stderr, " level %d", txn->level[d]);
        }
        (void)fputc('\n', stderr);
    }
}

/* --- content --- */

static uint64_t content_seed(int db, int place, int token)
{
    uint64_t z = ((uint64_t)(unsigned)token << 16 | (uint64_t)(unsigned)place << 4 | (unsigned)db) *
                 UINT64_C(0x9e3779b97f4a7c15);

    return (z ^ z >> 29) | 1;
}

size_t content_bytes(int db, int place, int token)
{
    uint64_t z = content_seed(db, place, token) >> 7;
    size_t most = z % 5 == 0 ? content_most : content_usual;

    return token == 0 ? content_usual : most / 2 + (z >> 8) % (most / 2 + 1);
}

void content_fill(unsigned char *to, size_t bytes, int db, int place, int token)
{
    uint64_t z = content_seed(db, place, token);

    for (size_t i = 0; i < bytes; i += 8) {
        z = z * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(to + i, &z, bytes - i < 8 ? bytes - i : 8);
    }
}

bool content_is(const void *at, size_t bytes, int db, int place, int token)
{
    static unsigned char expected[1 << 16];

    if (bytes != content_bytes(db, place, token))
        return false;
    content_fill(expected, bytes, db, place, token);
    return memcmp(at, expected, bytes) == 0;
}
