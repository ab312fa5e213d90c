/* SPDX-License-Identifier: MIT */
#include "work.h"

#include <stdio.h>
#include <string.h>

#include "faults.h"

enum { BUSY_MS = 60000 };

struct plan plan;
char db_path[DBS][64];
static struct worker *running[16]; /* by fiber */
static uint32_t vacuums;           /* in this schedule */

static const char *const SCHEMAS[DBS] = {"main", "other"};
static const char *const LEVELS[] = {"OFF", "NORMAL", "FULL"};

enum kind {
    READ,
    LOOK,
    AUTOCOMMIT,
    BEGIN,
    IMMEDIATE,
    EXCLUSIVE,
    CHECKPOINT,
    RECONNECT,
    LEVEL,
    BESIDE,
    VACUUM,
    INTEGRITY,
    RETURNING,
    LONG_READ,
    SHRINK,
    KIND_COUNT
};

static const char *const KIND_NAMES[KIND_COUNT] = {
    [READ] = "read",           [LOOK] = "look",           [AUTOCOMMIT] = "autocommit", [BEGIN] = "BEGIN",
    [IMMEDIATE] = "IMMEDIATE", [EXCLUSIVE] = "EXCLUSIVE", [CHECKPOINT] = "checkpoint", [RECONNECT] = "reconnect",
    [LEVEL] = "level",         [BESIDE] = "beside",       [VACUUM] = "VACUUM",         [INTEGRITY] = "integrity_check",
    [RETURNING] = "RETURNING", [LONG_READ] = "long read", [SHRINK] = "shrink",
};
static const uint32_t WEIGHTS[KIND_COUNT] = {
    [READ] = 8,      [LOOK] = 5,       [AUTOCOMMIT] = 14, [BEGIN] = 24,    [IMMEDIATE] = 10,
    [EXCLUSIVE] = 2, [CHECKPOINT] = 4, [RECONNECT] = 3,   [LEVEL] = 3,     [BESIDE] = 5,
    [VACUUM] = 1,    [INTEGRITY] = 1,  [RETURNING] = 3,   [LONG_READ] = 4, [SHRINK] = 2,
};

void plan_make(uint64_t seed)
{
    static const int PAGE_SIZES[] = {512, 512, 1024, 4096};
    static const int CHECKPOINTS[] = {1, 1, 4096, 20000, 1 << 20};
    static const int CACHES[] = {1, 4, 10, 100};
    struct chance chance = chance_new(seed, 10);

    memset(&plan, 0, sizeof plan);
    vacuums = 0;
    plan.seed = seed;
    plan.dbs = chance_one_in(&chance, 4) ? 2 : 1;
    plan.threads = 2 + (int)chance_below(&chance, 3);
    plan.ops = 2 + (int)chance_below(&chance, 8);
    plan.page_size = PAGE_SIZES[chance_below(&chance, 4)];
    plan.auto_vacuum = chance_one_in(&chance, 6) ? 1 + (int)chance_below(&chance, 2) : 0;
    plan.content_kind = (int)chance_below(&chance, 3);
    plan.checkpoint_bytes = CHECKPOINTS[chance_below(&chance, 5)];
    plan.cache_pages = CACHES[chance_below(&chance, 4)];
    plan.level = (int)chance_below(&chance, 3);
    plan.levels_change = chance_one_in(&chance, 3);
    plan.thread_checkpoints = chance_one_in(&chance, 8);
    plan.heap_limited = chance_one_in(&chance, 4);
    plan.mapped = chance_one_in(&chance, 6);
    /* Few kinds at a time meet each other more often. */
    plan.kinds = chance_one_in(&chance, 2) ? UINT32_MAX
                                           : (uint32_t)chance_next(&chance) | 1u << BEGIN | 1u << AUTOCOMMIT;
    plan.lives = 1;
    if (chance_one_in(&chance, 4)) {
        plan.death_in = 1 + (int)chance_below(&chance, 2);
        plan.lives = plan.death_in + (int)chance_below(&chance, 2);
        plan.power = chance_one_in(&chance, 2);
        plan.begins_off = chance_one_in(&chance, 2);
    } else if (chance_one_in(&chance, 8)) {
        plan.lives = 2;
    }
    if (chance_one_in(&chance, 8)) {
        plan.fault_kind = 1 + (int)chance_below(&chance, FAULT_KINDS - 1);
        plan.fault_after = 1 + chance_below(&chance, 1u << (2 + chance_below(&chance, 8)));
        plan.fault_every = chance_one_in(&chance, 4) ? 1 : 0;
    }
    switch (plan.content_kind) {
    case 0:
        content_usual = 24;
        content_most = (size_t)plan.page_size;
        break;
    case 1:
        content_usual = (size_t)plan.page_size * 5 / 8;
        content_most = (size_t)plan.page_size * 2;
        break;
    default:
        content_usual = (size_t)plan.page_size * 3 / 2;
        content_most = (size_t)plan.page_size * 6;
    }
}

void plan_print(void)
{
    (void)fprintf(
        stderr,
        "  %d database%s of pages of %d, auto_vacuum %d, rows of %zu to %zu bytes; %d connections, %d pieces of "
        "work each, %d li%s\n  checkpoint_bytes %d%s%s, cache of %d pages%s, synchronous=%s%s%s%s%s\n",
        plan.dbs, plan.dbs > 1 ? "s" : "", plan.page_size, plan.auto_vacuum, content_usual, content_most, plan.threads,
        plan.ops, plan.lives, plan.lives > 1 ? "ves" : "fe", plan.checkpoint_bytes,
        plan.thread_checkpoints ? " by a thread" : "", plan.heap_limited ? ", heap_limit" : "", plan.cache_pages,
        plan.mapped ? ", mmap_size" : "", LEVELS[plan.level], plan.levels_change ? ", changing" : "",
        plan.begins_off ? ", OFF at first" : "", plan.death_in > 0 ? plan.power ? ", power cut" : ", death" : "",
        plan.fault_kind > 0 ? ", errors" : "");
}

/* --- codes --- */

static int code_of(sqlite3 *db, int rc)
{
    return rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE ? rc : sqlite3_extended_errcode(db);
}

/* May this have been injected? */
static bool is_injected(int rc)
{
    int primary = rc & 0xff;

    return fault_hits() > 0 && (primary == SQLITE_NOMEM || primary == SQLITE_IOERR || primary == SQLITE_FULL ||
                                primary == SQLITE_CANTOPEN || primary == SQLITE_READONLY);
}

/* Anything but "lost, run it again", full for want of a place for page versions, and what was injected is a failure. */
static void judge(struct worker *w, int rc, const char *what)
{
    if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW || rc == SQLITE_BUSY_SNAPSHOT)
        return;
    if (is_injected(rc)) {
        w->stopped = true;
        return;
    }
    if ((rc & 0xff) == SQLITE_FULL && plan.heap_limited)
        return;
    if (rc == SQLITE_BUSY && plan.dbs > 1 && plan.auto_vacuum != 0)
        return; /* two that take them in opposite orders wait for each other (README.md) */
    if (rc == SQLITE_BUSY && w->beside)
        return; /* SQLite does not ask the busy handler for a connection that is reading */
    sim_failed("%s: code %d: %s", what, rc, w->db != NULL ? sqlite3_errmsg(w->db) : sqlite3_errstr(rc));
}

static int exec(struct worker *w, const char *sql)
{
    int rc;

    sched_note(sql);
    rc = code_of(w->db, sqlite3_exec(w->db, sql, NULL, NULL, NULL));
    return rc;
}

/* --- functions of SQL --- */

static void note_read(struct txn *txn, int d, int k, int token, bool again)
{
    int expected;

    if (token < 0 || token >= model->count)
        sim_failed("register %d of database %d holds %d", k, d, token);
    if (!again) {
        txn->read[d][k] = (int16_t)token;
        return;
    }
    expected = (txn->wrote[d] >> k & 1) != 0 ? model_token(txn) : txn->read[d][k];
    if (expected == NOT_READ)
        txn->read[d][k] = (int16_t)token;
    else if (token != expected)
        sim_failed("transaction %d reads %d in register %d of database %d; before it was %d", model_token(txn), token,
                   k, d, expected);
}

static void check_content(sqlite3_value *value, int d, int place, int token)
{
    if (!content_is(sqlite3_value_blob(value), (size_t)sqlite3_value_bytes(value), d, place, token))
        sim_failed("database %d: row %d of transaction %d has another content (%d bytes)", d, place, token,
                   sqlite3_value_bytes(value));
}

/* set(database, key, v, pad): the value of the transaction, after what it replaces was looked at. */
static void sql_set(sqlite3_context *context, int count, sqlite3_value **values)
{
    struct worker *w = running[sched_self()];
    int d = sqlite3_value_int(values[0]), k = sqlite3_value_int(values[1]), token = sqlite3_value_int(values[2]);

    (void)count;
    if (sqlite3_value_bytes(values[3]) > 0 || fault_hits() == 0)
        check_content(values[3], d, k, token);
    note_read(w->txn, d, k, token, !sqlite3_get_autocommit(w->db));
    w->txn->wrote[d] |= (uint16_t)(1u << k);
    sqlite3_result_int(context, model_token(w->txn));
}

/* fill(database, place): the content for the transaction's row there. */
static void sql_fill(sqlite3_context *context, int count, sqlite3_value **values)
{
    static unsigned char buffer[1 << 16];
    int d = sqlite3_value_int(values[0]), place = sqlite3_value_int(values[1]);
    int token = count > 2 ? sqlite3_value_int(values[2]) : model_token(running[sched_self()]->txn);
    size_t bytes = content_bytes(d, place, token);

    content_fill(buffer, bytes, d, place, token);
    sqlite3_result_blob(context, buffer, (int)bytes, SQLITE_TRANSIENT);
}

int work_functions(sqlite3 *db)
{
    int rc = sqlite3_create_function(db, "set_value", 4, SQLITE_UTF8, NULL, sql_set, NULL, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(db, "fill", 2, SQLITE_UTF8, NULL, sql_fill, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(db, "fill", 3, SQLITE_UTF8, NULL, sql_fill, NULL, NULL);
    return rc;
}

/* --- connections --- */

int work_open(int first, sqlite3 **out)
{
    char uri[256], sql[400];
    const char *checkpointer = plan.thread_checkpoints ? "&checkpointer=thread" : "";
    const char *limit = plan.heap_limited ? "&heap_limit=128K" : "";
    int rc;

    (void)snprintf(uri, sizeof uri, "file:%s?checkpoint_bytes=%d%s%s", db_path[first], plan.checkpoint_bytes,
                   checkpointer, limit);
    sched_note("open");
    rc = sqlite3_open_v2(uri, out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, "throng");
    if (*out == NULL)
        return SQLITE_NOMEM;
    if (rc != SQLITE_OK)
        return code_of(*out, rc);
    (void)sqlite3_extended_result_codes(*out, 1);
    (void)sqlite3_busy_timeout(*out, BUSY_MS);
    if ((rc = work_functions(*out)) != SQLITE_OK)
        return code_of(*out, rc);
    if (plan.dbs > 1) {
        (void)snprintf(sql, sizeof sql, "ATTACH 'file:%s?vfs=throng&checkpoint_bytes=%d%s%s' AS other",
                       db_path[1 - first], plan.checkpoint_bytes, checkpointer, limit);
        sched_note("attach");
        if ((rc = sqlite3_exec(*out, sql, NULL, NULL, NULL)) != SQLITE_OK)
            return code_of(*out, rc);
    }
    for (int i = 0; i < plan.dbs; i++) {
        (void)snprintf(sql, sizeof sql, "PRAGMA %s.cache_size=%d; PRAGMA %s.synchronous=%s; PRAGMA %s.mmap_size=%d",
                       SCHEMAS[i], plan.cache_pages, SCHEMAS[i], LEVELS[plan.begins_off ? 0 : plan.level], SCHEMAS[i],
                       plan.mapped ? 1 << 20 : 0);
        if ((rc = sqlite3_exec(*out, sql, NULL, NULL, NULL)) != SQLITE_OK)
            return code_of(*out, rc);
    }
    return sqlite3_exec(*out, "PRAGMA temp_store=2", NULL, NULL, NULL);
}

void worker_close(struct worker *w)
{
    sched_note("close");
    for (int d = 0; d < DBS; d++)
        for (int i = 0; i < 16; i++) {
            (void)sqlite3_finalize(w->stmts[d][i]);
            w->stmts[d][i] = NULL;
        }
    if (w->db != NULL && sqlite3_close(w->db) != SQLITE_OK)
        sim_failed("a connection cannot be closed");
    w->db = NULL;
}

/* Which database a connection calls `main`: the numbers of the model are those of the files. */
static int first_of(const struct worker *w)
{
    return plan.dbs > 1 && w->thread >= 0 ? w->thread % 2 : 0;
}

static const char *schema_of(const struct worker *w, int d)
{
    return SCHEMAS[d ^ first_of(w)];
}

static int level_of(struct worker *w, int d)
{
    sqlite3_stmt *stmt = NULL;
    char sql[64];
    int level = 0;

    (void)snprintf(sql, sizeof sql, "PRAGMA %s.synchronous", schema_of(w, d));
    if (sqlite3_prepare_v2(w->db, sql, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW)
        level = sqlite3_column_int(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return level < 2 ? level : 2;
}

enum stmt { S_READ, S_SCAN, S_SET, S_INSERT, S_DELETE, S_CHANGE, S_ITEMS, S_SET_TWO, S_SCHEMA, S_RETURNING };

static const char *const TEXTS[] = {
    [S_READ] = "SELECT v, pad FROM %s.r WHERE k=?1",
    [S_SCAN] = "SELECT k, v, pad FROM %s.r ORDER BY k",
    [S_SET] = "UPDATE %s.r SET v=set_value(%d, k, v, pad), pad=fill(%d, k) WHERE k=?1",
    [S_INSERT] = "INSERT INTO %s.c VALUES(?1, ?2, fill(%d, ?1))",
    [S_DELETE] = "DELETE FROM %s.c WHERE id=?1",
    [S_CHANGE] = "UPDATE %s.c SET v=?2, pad=fill(%d, ?1) WHERE id=?1",
    [S_ITEMS] = "SELECT id, v, pad FROM %s.c ORDER BY id",
    [S_SET_TWO] = "UPDATE %s.r SET v=set_value(%d, k, v, pad), pad=fill(%d, k) WHERE k IN (?1, ?2, ?3)",
    [S_SCHEMA] = "SELECT name FROM %s.sqlite_schema WHERE name LIKE 'd_' ORDER BY name",
    [S_RETURNING] = "UPDATE %s.r SET v=set_value(%d, k, v, pad), pad=fill(%d, k) WHERE k IN (?1, ?2, ?3) RETURNING k",
};

/* NULL: see the connection's error. */
static sqlite3_stmt *stmt_of(struct worker *w, int d, enum stmt which)
{
    sqlite3_stmt **stmt = &w->stmts[d][which];
    char sql[160];

    if (*stmt == NULL) {
        (void)snprintf(sql, sizeof sql, TEXTS[which], schema_of(w, d), d, d);
        sched_note(TEXTS[which]);
        if (sqlite3_prepare_v3(w->db, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL) != SQLITE_OK)
            *stmt = NULL;
    }
    if (*stmt != NULL)
        sched_note(TEXTS[which]);
    return *stmt;
}

/* Step to the end, without rows. */
static int finish(struct worker *w, sqlite3_stmt *stmt)
{
    int rc;

    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
        ;
    rc = rc == SQLITE_DONE ? SQLITE_OK : code_of(w->db, rc);
    (void)sqlite3_reset(stmt);
    return rc;
}

static int run(struct worker *w, int d, enum stmt which, int a, int b, int c)
{
    sqlite3_stmt *stmt = stmt_of(w, d, which);

    if (stmt == NULL)
        return sqlite3_extended_errcode(w->db);
    if (sqlite3_bind_parameter_count(stmt) > 0)
        (void)sqlite3_bind_int(stmt, 1, a);
    if (sqlite3_bind_parameter_count(stmt) > 1)
        (void)sqlite3_bind_int(stmt, 2, b);
    if (sqlite3_bind_parameter_count(stmt) > 2)
        (void)sqlite3_bind_int(stmt, 3, c);
    return finish(w, stmt);
}

/* --- reading --- */

static void take_row(struct txn *txn, int d, int k, sqlite3_stmt *stmt, int column)
{
    int token = sqlite3_column_int(stmt, column);

    if (token < 0 || token >= model->count)
        sim_failed("register %d of database %d holds %d", k, d, token);
    if (sqlite3_column_type(stmt, column + 1) == SQLITE_BLOB) /* else there was no memory for it */
        check_content(sqlite3_column_value(stmt, column + 1), d, k, token);
    if (txn != NULL)
        note_read(txn, d, k, token, true);
}

static int read_key(struct worker *w, int d, int k)
{
    sqlite3_stmt *stmt = stmt_of(w, d, S_READ);
    int rc;

    if (stmt == NULL)
        return sqlite3_extended_errcode(w->db);
    (void)sqlite3_bind_int(stmt, 1, k);
    if ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        take_row(w->txn, d, k, stmt, 0);
        rc = SQLITE_OK;
    } else if (rc == SQLITE_DONE) {
        sim_failed("register %d of database %d is missing", k, d);
    } else {
        rc = code_of(w->db, rc);
    }
    (void)sqlite3_reset(stmt);
    return rc;
}

static int look_at_registers(struct worker *w, int d, int16_t values[KEYS])
{
    sqlite3_stmt *stmt = stmt_of(w, d, S_SCAN);
    int rc, found = 0;

    if (stmt == NULL)
        return sqlite3_extended_errcode(w->db);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int k = sqlite3_column_int(stmt, 0);

        if (k != found++ || k >= KEYS)
            sim_failed("database %d has a register %d", d, k);
        take_row(w->txn, d, k, stmt, 1);
        values[k] = (int16_t)sqlite3_column_int(stmt, 1);
    }
    rc = rc == SQLITE_DONE ? SQLITE_OK : code_of(w->db, rc);
    (void)sqlite3_reset(stmt);
    if (rc == SQLITE_OK && found != KEYS)
        sim_failed("database %d has %d registers", d, found);
    return rc;
}

static int look_at_items(struct worker *w, int d, uint16_t items[THREADS][ITEMS])
{
    sqlite3_stmt *stmt = stmt_of(w, d, S_ITEMS);
    int rc;

    memset(items, 0, sizeof(uint16_t[THREADS][ITEMS]));
    if (stmt == NULL)
        return sqlite3_extended_errcode(w->db);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int id = sqlite3_column_int(stmt, 0), token = sqlite3_column_int(stmt, 1), thread = (id - KEYS) / ROWS;

        if (id < KEYS || thread >= THREADS)
            sim_failed("database %d has a row %d", d, id);
        if (sqlite3_column_type(stmt, 2) == SQLITE_BLOB)
            check_content(sqlite3_column_value(stmt, 2), d, id, token);
        items[thread][(id - KEYS) % ROWS] = (uint16_t)token;
    }
    rc = rc == SQLITE_DONE ? SQLITE_OK : code_of(w->db, rc);
    (void)sqlite3_reset(stmt);
    if (rc != SQLITE_OK || (stmt = stmt_of(w, d, S_SCHEMA)) == NULL)
        return rc != SQLITE_OK ? rc : sqlite3_extended_errcode(w->db);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(stmt, 0);

        if (name != NULL && name[1] >= '0' && name[1] < '0' + THREADS)
            items[name[1] - '0'][ROWS] = 1;
    }
    rc = rc == SQLITE_DONE ? SQLITE_OK : code_of(w->db, rc);
    (void)sqlite3_reset(stmt);
    return rc;
}

static int look(struct worker *w, int16_t values[DBS][KEYS])
{
    static const int16_t NONE[KEYS] = {0};
    uint16_t items[THREADS][ITEMS];
    int rc = SQLITE_OK;

    for (int d = 0; d < plan.dbs && rc == SQLITE_OK; d++) {
        memcpy(values[d], NONE, sizeof NONE);
        if ((rc = look_at_registers(w, d, values[d])) != SQLITE_OK || (rc = look_at_items(w, d, items)) != SQLITE_OK)
            break;
        for (int t = 0; t < THREADS; t++)
            model_check_items(d, t, values[d][SHARED_KEYS + t], items[t], w->txn);
    }
    return rc;
}

int work_look(struct worker *w, int16_t values[DBS][KEYS])
{
    int rc = exec(w, "BEGIN");

    if (rc == SQLITE_OK)
        rc = look(w, values);
    if (!sqlite3_get_autocommit(w->db)) {
        int rc_end = exec(w, "COMMIT");

        rc = rc == SQLITE_OK ? rc_end : rc;
    }
    return rc;
}

/* --- writing --- */

static int pick_db(struct worker *w)
{
    return (int)chance_below(&w->chance, (uint32_t)plan.dbs);
}

static int pick_key(struct worker *w)
{
    return (int)chance_below(&w->chance, SHARED_KEYS);
}

static int set(struct worker *w, int d, int k)
{
    return run(w, d, S_SET, k, 0, 0);
}

static int own_key(const struct worker *w)
{
    return SHARED_KEYS + w->thread;
}

static void expect_change(struct worker *w, int d, int id)
{
    if (sqlite3_changes(w->db) != 1)
        sim_failed("row %d of database %d is not there, or twice", id, d);
}

/* Insert, delete or change one of the thread's rows. */
static int change_row(struct worker *w, int d)
{
    int i = (int)chance_below(&w->chance, ROWS), id = KEYS + w->thread * ROWS + i, token = model_token(w->txn), rc;
    uint16_t *item = &w->txn->items[d][i];
    bool gone = *item != 0 && !chance_one_in(&w->chance, 3);

    rc = run(w, d, *item == 0 ? S_INSERT : gone ? S_DELETE : S_CHANGE, id, token, 0);
    if (rc != SQLITE_OK)
        return rc;
    expect_change(w, d, id);
    *item = gone ? 0 : (uint16_t)token;
    return SQLITE_OK;
}

/* All rows of the thread at once, with all their pages. */
static int change_rows(struct worker *w, int d)
{
    int rc = SQLITE_OK;

    for (int i = 0; i < ROWS && rc == SQLITE_OK; i++) {
        uint16_t *item = &w->txn->items[d][i];
        int id = KEYS + w->thread * ROWS + i;

        if ((rc = run(w, d, *item == 0 ? S_INSERT : S_DELETE, id, model_token(w->txn), 0)) == SQLITE_OK) {
            expect_change(w, d, id);
            *item = *item == 0 ? (uint16_t)model_token(w->txn) : 0;
        }
    }
    return rc;
}

static int change_table(struct worker *w, int d)
{
    uint16_t *item = &w->txn->items[d][ROWS];
    char sql[128];
    int rc;

    if (*item == 0)
        (void)snprintf(sql, sizeof sql, "CREATE TABLE %s.d%d(x PRIMARY KEY)", schema_of(w, d), w->thread);
    else
        (void)snprintf(sql, sizeof sql, "DROP TABLE %s.d%d", schema_of(w, d), w->thread);
    if ((rc = exec(w, sql)) == SQLITE_OK)
        *item = *item == 0;
    return rc;
}

static int piece(struct worker *w, int d)
{
    switch (chance_below(&w->chance, 12)) {
    case 0:
    case 1:
    case 2:
        return set(w, d, pick_key(w));
    case 3:
    case 4:
    case 5:
    case 6:
        return change_row(w, d);
    case 7:
        return change_rows(w, d);
    case 8:
        return chance_one_in(&w->chance, 3) ? change_table(w, d) : change_row(w, d);
    case 9:
        sched_sleep(chance_below(&w->chance, 3000000));
        return SQLITE_OK;
    default:
        return read_key(w, d, (int)chance_below(&w->chance, KEYS));
    }
}

/* What a savepoint gives back. */
static int in_savepoint(struct worker *w, int d)
{
    struct txn *txn = w->txn;
    uint16_t wrote[DBS], items[DBS][ITEMS];
    int rc = exec(w, "SAVEPOINT s");

    memcpy(wrote, txn->wrote, sizeof wrote);
    memcpy(items, txn->items, sizeof items);
    for (int n = 1 + (int)chance_below(&w->chance, 3); n > 0 && rc == SQLITE_OK; n--)
        rc = piece(w, d);
    if (rc != SQLITE_OK || chance_one_in(&w->chance, 2))
        return rc != SQLITE_OK ? rc : exec(w, "RELEASE s");
    if ((rc = exec(w, "ROLLBACK TO s; RELEASE s")) == SQLITE_OK) {
        memcpy(txn->wrote, wrote, sizeof wrote);
        memcpy(txn->items, items, sizeof items);
    }
    return rc;
}

static void note_levels(struct worker *w)
{
    for (int d = 0; d < plan.dbs; d++)
        w->txn->level[d] = (uint8_t)level_of(w, d);
}

static void end_txn(struct worker *w, int rc, const char *what)
{
    struct txn *txn = w->txn;

    judge(w, rc, what);
    if (rc == SQLITE_OK)
        model_end(txn, OUTCOME_COMMITTED);
    else if ((rc & 0xff) == SQLITE_IOERR && txn->outcome == OUTCOME_MAYBE)
        model_end(txn, OUTCOME_MAYBE); /* a sync has failed after it was logged: the next recovery may find it */
    else
        model_end(txn, OUTCOME_ABORTED);
    w->txn = NULL;
}

static void begin_txn(struct worker *w, const char *what)
{
    w->txn = model_txn(w->thread, what);
    note_levels(w);
}

/* BEGIN, some work, COMMIT or ROLLBACK. Returns whether it is to be tried again. */
static bool transaction(struct worker *w, enum kind kind)
{
    static const char *const BEGINS[] = {
        [BEGIN] = "BEGIN", [IMMEDIATE] = "BEGIN IMMEDIATE", [EXCLUSIVE] = "BEGIN EXCLUSIVE"};
    bool rolls_back = chance_one_in(&w->chance, 6), used[DBS] = {false};
    int rc;

    begin_txn(w, BEGINS[kind]);
    rc = exec(w, BEGINS[kind]);
    for (int n = 1 + (int)chance_below(&w->chance, 5); n > 0 && rc == SQLITE_OK; n--) {
        int d = pick_db(w);

        used[d] = true;
        rc = chance_one_in(&w->chance, 5) ? in_savepoint(w, d) : piece(w, d);
    }
    for (int d = 0; d < plan.dbs && rc == SQLITE_OK; d++)
        if (used[d] &&
            (w->txn->wrote[d] != 0 ||
             memcmp(w->txn->items[d], model->txns[model->own[w->thread][d]].items[d], sizeof w->txn->items[d]) != 0 ||
             chance_one_in(&w->chance, 2)))
            rc = set(w, d, own_key(w));
    if (rc == SQLITE_BUSY_SNAPSHOT && kind != BEGIN && fault_hits() == 0)
        sim_failed("%s has begun, and loses", BEGINS[kind]);
    if (rc == SQLITE_OK && !rolls_back) {
        w->txn->outcome = OUTCOME_MAYBE;
        rc = exec(w, "COMMIT");
        if (rc == SQLITE_BUSY_SNAPSHOT && kind != BEGIN && fault_hits() == 0)
            sim_failed("%s loses at COMMIT", BEGINS[kind]);
        end_txn(w, rc, "COMMIT");
    } else {
        end_txn(w, rc == SQLITE_OK ? SQLITE_BUSY_SNAPSHOT : rc, "a statement in BEGIN");
    }
    if (!sqlite3_get_autocommit(w->db)) {
        int rc_back = exec(w, "ROLLBACK");

        judge(w, rc_back, "ROLLBACK");
    }
    return rc == SQLITE_BUSY_SNAPSHOT;
}

/* One statement, run again by itself when it loses: it never fails for a conflict. */
static void autocommit(struct worker *w, enum stmt which)
{
    int d = pick_db(w), rc;

    begin_txn(w, which == S_RETURNING ? "RETURNING" : "autocommit");
    w->txn->outcome = OUTCOME_MAYBE;
    rc = run(w, d, which, pick_key(w), pick_key(w), own_key(w));
    if (rc == SQLITE_BUSY_SNAPSHOT)
        sim_failed("a statement outside BEGIN has lost");
    end_txn(w, rc, "a statement outside BEGIN");
}

static void read_some(struct worker *w, bool is_long)
{
    int rc;

    w->txn = model_txn(w->thread, "read");
    rc = exec(w, "BEGIN");
    for (int n = 1 + (int)chance_below(&w->chance, is_long ? 10 : 4); n > 0 && rc == SQLITE_OK; n--) {
        rc = read_key(w, pick_db(w), (int)chance_below(&w->chance, KEYS));
        if (is_long)
            sched_sleep(chance_below(&w->chance, 20000000));
    }
    if (!sqlite3_get_autocommit(w->db)) {
        int rc_end = exec(w, "COMMIT");

        rc = rc == SQLITE_OK ? rc_end : rc;
    }
    if (rc == SQLITE_BUSY_SNAPSHOT && vacuums == 0) /* a snapshot from before a VACUUM cannot show its free list */
        sim_failed("a transaction that only reads has lost");
    end_txn(w, rc, "reading");
}

static void look_at_all(struct worker *w)
{
    int16_t values[DBS][KEYS];
    int rc;

    w->txn = model_txn(w->thread, "look");
    rc = work_look(w, values);
    end_txn(w, rc, "reading everything");
}

/* A statement outside BEGIN writes while another one of the connection is being read: that goes on in its snapshot. */
static void write_beside(struct worker *w)
{
    struct txn *reading = model_txn(w->thread, "beside");
    int d = pick_db(w), rc, rc_write = SQLITE_OK, k = pick_key(w), writes = 1 + (int)chance_below(&w->chance, 2);
    uint16_t own = (uint16_t)(1u << own_key(w) | 1u << k);
    sqlite3_stmt *stmt = stmt_of(w, d, S_SCAN);

    if (stmt == NULL) {
        judge(w, sqlite3_extended_errcode(w->db), "a statement that reads");
        model_end(reading, OUTCOME_ABORTED);
        return;
    }
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int at = sqlite3_column_int(stmt, 0);

        take_row((own >> at & 1) == 0 ? reading : NULL, d, at, stmt, 1); /* what it writes itself it may see or not */
        if (writes > 0 && chance_one_in(&w->chance, 3)) {
            writes--;
            begin_txn(w, "autocommit beside");
            w->txn->outcome = OUTCOME_MAYBE;
            w->beside = true;
            rc_write = run(w, d, S_SET_TWO, k, k, own_key(w));
            end_txn(w, rc_write, "a statement beside one that reads");
            w->beside = false;
        }
    }
    rc = rc == SQLITE_DONE ? SQLITE_OK : code_of(w->db, rc);
    (void)sqlite3_reset(stmt);
    if (rc == SQLITE_BUSY_SNAPSHOT && vacuums == 0)
        sim_failed("a statement that reads has lost");
    judge(w, rc, "a statement that reads beside one that writes");
    model_end(reading, rc == SQLITE_OK ? OUTCOME_COMMITTED : OUTCOME_ABORTED);
}

static void checkpoint(struct worker *w)
{
    static const char *const MODES[] = {"PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(FULL)",
                                        "PRAGMA wal_checkpoint(TRUNCATE)"};
    int rc = exec(w, MODES[chance_below(&w->chance, 3)]);

    if (rc != SQLITE_BUSY)
        judge(w, rc, "PRAGMA wal_checkpoint");
}

static int reopen(struct worker *w)
{
    int rc;

    worker_close(w);
    if ((rc = work_open(first_of(w), &w->db)) != SQLITE_OK) {
        judge(w, rc, "opening");
        w->stopped = true;
    }
    return rc;
}

static void change_level(struct worker *w)
{
    char sql[64];

    if (!plan.levels_change && !plan.begins_off)
        return;
    for (int d = 0; d < plan.dbs; d++) {
        (void)snprintf(sql, sizeof sql, "PRAGMA %s.synchronous=%s", SCHEMAS[d],
                       LEVELS[plan.begins_off ? plan.level : (int)chance_below(&w->chance, 3)]);
        judge(w, exec(w, sql), "PRAGMA synchronous");
    }
}

static void vacuum(struct worker *w)
{
    char sql[64];
    int rc;

    (void)snprintf(sql, sizeof sql, "VACUUM %s", SCHEMAS[pick_db(w)]);
    vacuums++;
    rc = exec(w, sql);
    if (rc != SQLITE_BUSY)
        judge(w, rc, "VACUUM");
}

static void shrink(struct worker *w)
{
    char sql[64];
    int rc;

    if (plan.auto_vacuum != 2)
        return;
    (void)snprintf(sql, sizeof sql, "PRAGMA %s.incremental_vacuum(%d)", SCHEMAS[pick_db(w)],
                   (int)chance_below(&w->chance, 4));
    rc = exec(w, sql);
    judge(w, rc, "PRAGMA incremental_vacuum");
}

static void integrity(struct worker *w)
{
    sqlite3_stmt *stmt = NULL;
    int rc;

    sched_note("PRAGMA integrity_check");
    if ((rc = sqlite3_prepare_v2(w->db, "PRAGMA integrity_check", -1, &stmt, NULL)) == SQLITE_OK &&
        (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);

        if (text != NULL && strcmp(text, "ok") != 0 && fault_hits() == 0)
            sim_failed("integrity_check beside others: %s", text);
        rc = SQLITE_OK;
    }
    if (rc != SQLITE_OK)
        judge(w, code_of(w->db, rc), "PRAGMA integrity_check");
    (void)sqlite3_finalize(stmt);
}

/* --- a connection's life --- */

static enum kind pick_kind(struct worker *w)
{
    uint32_t sum = 0, at;

    for (int i = 0; i < KIND_COUNT; i++)
        sum += (plan.kinds >> i & 1) != 0 ? WEIGHTS[i] : 0;
    at = chance_below(&w->chance, sum);
    for (int i = 0; i < KIND_COUNT; i++) {
        uint32_t weight = (plan.kinds >> i & 1) != 0 ? WEIGHTS[i] : 0;

        if (at < weight)
            return (enum kind)i;
        at -= weight;
    }
    return BEGIN;
}

static void work(struct worker *w, enum kind kind)
{
    switch (kind) {
    case READ:
    case LONG_READ:
        read_some(w, kind == LONG_READ);
        break;
    case LOOK:
        look_at_all(w);
        break;
    case AUTOCOMMIT:
        autocommit(w, chance_one_in(&w->chance, 2) ? S_SET_TWO : S_SET);
        break;
    case RETURNING:
        autocommit(w, S_RETURNING);
        break;
    case BEGIN:
    case IMMEDIATE:
    case EXCLUSIVE:
        for (int n = 0; n < 3 && !w->stopped && transaction(w, kind); n++)
            ;
        break;
    case CHECKPOINT:
        checkpoint(w);
        break;
    case RECONNECT:
        (void)reopen(w);
        break;
    case LEVEL:
        change_level(w);
        break;
    case BESIDE:
        write_beside(w);
        break;
    case VACUUM:
        vacuum(w);
        break;
    case INTEGRITY:
        integrity(w);
        break;
    case SHRINK:
        shrink(w);
        break;
    case KIND_COUNT:
        break;
    }
}

void worker_begin(struct worker *w)
{
    running[sched_self()] = w;
}

void worker_last(struct worker *w)
{
    int rc;

    worker_begin(w);
    for (int d = 0; d < plan.dbs; d++)
        for (int n = 0; n < 3; n++) {
            w->txn = model_txn(-1, "last");
            note_levels(w);
            w->txn->outcome = OUTCOME_MAYBE;
            rc = run(w, d, S_SET, n, 0, 0);
            if (rc == SQLITE_FULL && n < 2) { /* the next one finds a heap that has forgotten all that it can */
                end_txn(w, rc, "the last one");
                continue;
            }
            if (rc == SQLITE_FULL)
                sim_failed("nobody else uses the database, and there is no room for a version of a page");
            end_txn(w, rc, "the last one");
        }
}

void worker_run(void *arg)
{
    struct worker *w = arg;
    int rc;

    worker_begin(w);
    if ((rc = work_open(first_of(w), &w->db)) != SQLITE_OK) {
        judge(w, rc, "opening");
        w->stopped = true;
    }
    for (int i = 0; i < plan.ops && !w->stopped; i++) {
        enum kind kind = pick_kind(w);

        sched_note(KIND_NAMES[kind]);
        work(w, kind);
    }
    worker_close(w);
    sched_note("ended");
}
