/* An acknowledged commit survives the death of its process, at any moment and without a close; what is left is a whole
 * database, or two of them with the same commits. The parent opens nothing: every round's writers, and then its checks, are a child each.
 * Replay: THRONG_SEED=<n> build/tests/test-kill (the moment of death still varies)
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WRITERS 2
#define LIFE_MS 3600000 /* of a child that ends by itself */

static char path[PATH_SIZE], other[PATH_SIZE];
static bool two; /* each transaction also writes to another database, attached; the levels are mixed */
static uint64_t stream;
static const char *synchronous = "off";
static bool large;  /* blobs, deletes and transactions of several statements too */
static int last_id; /* of each writer, then it stops; 0: none */
static atomic_int finished;

/* What the children have acknowledged. */
static struct {
    int pipe;
    int64_t acknowledged[WRITERS]; /* ids go up from 1 without a gap */
} round_state;

/* --- the child that writes --- */

struct insert {
    int writer;
    int64_t id;
    int size;
};

static int insert_body(sqlite3 *db, void *arg)
{
    struct insert *insert = arg;
    int rc = db_try(db, "INSERT INTO t VALUES(%d, %lld, zeroblob(%d))", insert->writer, (long long)insert->id,
                    insert->size);

    if (rc == SQLITE_OK && large)
        rc = db_try(db, "UPDATE t SET pad=zeroblob(%d) WHERE writer=%d AND id=%lld", insert->size / 7, insert->writer,
                    (long long)insert->id - 40);
    if (rc == SQLITE_OK && two)
        rc = db_try(db, "INSERT INTO other.t VALUES(%d, %lld, zeroblob(%d))", insert->writer, (long long)insert->id,
                    insert->size / 3);
    if (rc == SQLITE_OK && large)
        rc = db_try(db, "REPLACE INTO last VALUES(%d, %lld)", insert->writer, (long long)insert->id);
    return rc;
}

static void acknowledge(const struct insert *insert)
{
    int64_t message[2] = {insert->writer, insert->id};

    if (write(round_state.pipe, message, sizeof message) != (ssize_t)sizeof message)
        _exit(2);
}

static void attach(sqlite3 *db)
{
    if (two)
        db_exec(db, "ATTACH 'file:%s?vfs=throng' AS other", other);
}

static void writer_thread(void *arg)
{
    static const char *const LEVELS[] = {"off", "normal", "full"};
    struct insert insert = {.writer = (int)(intptr_t)arg};
    struct prng prng = prng_new(stream + (uint64_t)insert.writer);
    sqlite3 *db = db_open(path);
    int rc;

    attach(db);
    db_exec(db, "PRAGMA synchronous=%s", two ? LEVELS[prng_below(&prng, 3)] : synchronous);
    if (two)
        db_exec(db, "PRAGMA other.synchronous=%s", LEVELS[prng_below(&prng, 3)]);
    insert.id = db_int(db, "SELECT coalesce(max(id), 0) FROM t WHERE writer=%d", insert.writer);
    acknowledge(&insert); /* what was found has been committed, too */
    while (last_id == 0 || insert.id < last_id) {
        insert.id++;
        insert.size = prng_below(&prng, large ? 9000 : 100);
        if (large)
            (void)db_transaction(db, "BEGIN", insert_body, &insert);
        else
            CHECK_OK(insert_body(db, &insert), db);
        acknowledge(&insert);
    }
    /* Never committed. Others may still commit, and in BEGIN a statement that has lost to them says so. */
    rc = db_try(db, "BEGIN; INSERT INTO t VALUES(%d, %d, NULL)", insert.writer, 1 << 30);
    CHECK(rc == SQLITE_OK || rc == SQLITE_BUSY_SNAPSHOT);
    (void)atomic_fetch_add(&finished, 1);
    for (;;)
        (void)pause();
}

struct life {
    int unused_end; /* of the pipe */
    bool exits;     /* by exit() when it is done; else by _exit() */
};

static void writers_child(void *arg)
{
    const struct life *life = arg;

    (void)close(life->unused_end);
    for (intptr_t i = 0; i < WRITERS; i++)
        thread_start(writer_thread, (void *)i);
    while (atomic_load(&finished) < WRITERS && !check_any_failed())
        sleep_ms(1);
    if (check_any_failed())
        _exit(1);
    if (life->exits)
        exit(0); /* NOLINT(concurrency-mt-unsafe): that is the test */
    _exit(0);
}

/* --- the children that look --- */

static void create_database(void *arg)
{
    sqlite3 *db = db_open(path);

    (void)arg;
    db_exec(db, "CREATE TABLE t(writer INT, id INT, pad BLOB, PRIMARY KEY(writer, id));"
                "CREATE TABLE last(writer INTEGER PRIMARY KEY, id INT)");
    attach(db);
    if (two)
        db_exec(db, "CREATE TABLE other.t(writer INT, id INT, pad BLOB, PRIMARY KEY(writer, id))");
    db_close(db);
}

static void check_contents(sqlite3 *db)
{
    for (int i = 0; i < WRITERS; i++) {
        int64_t count = db_int(db, "SELECT count(*) FROM t WHERE writer=%d", i);
        int64_t max = db_int(db, "SELECT coalesce(max(id), 0) FROM t WHERE writer=%d", i);

        if (max < round_state.acknowledged[i])
            check_failed(__FILE__, __LINE__, "writer %d: %lld was acknowledged, %lld is there", i,
                         (long long)round_state.acknowledged[i], (long long)max);
        CHECK(max <= round_state.acknowledged[i] + 1); /* one may have been committed and not yet acknowledged */
        CHECK_EQUAL(count, max);
        if (large)
            CHECK_EQUAL(db_int(db, "SELECT coalesce(sum(id), 0) FROM last WHERE writer=%d", i), max);
        if (two) {
            CHECK_EQUAL(db_int(db, "SELECT count(*) FROM other.t WHERE writer=%d", i), count);
            CHECK_EQUAL(db_int(db, "SELECT coalesce(max(id), 0) FROM other.t WHERE writer=%d", i), max);
        }
    }
}

/* What recovery made is there for Throng, and then for stock SQLite. */
static void check_database(void *arg)
{
    const bool *first_alone = arg;
    sqlite3 *db;

    if (two) { /* in either order, and also with one of them closed before the other one is opened */
        db = db_open(*first_alone ? other : path);
        (void)db_int(db, "SELECT count(*) FROM t");
        db_close(db);
    }
    db = db_open(path);
    attach(db);
    check_contents(db);
    db_exec(db, "INSERT INTO t VALUES(-1, (SELECT count(*) FROM t), NULL)");
    db_close(db);
    oracle_check(path);
    if (two)
        oracle_check(other);
    db = db_stock(path);
    if (two)
        db_exec(db, "ATTACH '%s' AS other", other);
    check_contents(db);
    db_close(db);
}

/* --- the parent --- */

static void read_acknowledged(int descriptor)
{
    int64_t message[2];

    while (read(descriptor, message, sizeof message) == (ssize_t)sizeof message) {
        CHECK(message[0] >= 0 && message[0] < WRITERS);
        round_state.acknowledged[message[0]] = message[1];
    }
}

/* Writers run until they are done, or for `life_ms` (then they are killed). The pipe is read meanwhile. */
static int writers_run(int life_ms, bool exits)
{
    uint64_t end = now_ms() + (uint64_t)life_ms;
    struct life life;
    int ends[2];
    int status = 0;
    pid_t child;

    CHECK_EQUAL(pipe(ends), 0);
    round_state.pipe = ends[1];
    life = (struct life){.unused_end = ends[0], .exits = exits};
    child = child_start(writers_child, &life);
    (void)close(ends[1]);
    for (uint64_t now = now_ms(); now < end; now = now_ms()) {
        struct pollfd ready = {.fd = ends[0], .events = POLLIN};
        int64_t message[2];

        if (poll(&ready, 1, (int)(end - now)) != 1)
            continue;
        if (read(ends[0], message, sizeof message) != (ssize_t)sizeof message)
            break; /* it has ended */
        round_state.acknowledged[message[0]] = message[1];
    }
    (void)kill(child, SIGKILL);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    read_acknowledged(ends[0]);
    (void)close(ends[0]);
    return status;
}

static void start_over(const char *name)
{
    char other_name[64];

    (void)path_new(path, name);
    (void)snprintf(other_name, sizeof other_name, "%s-other", name);
    (void)path_new(other, other_name);
    memset(&round_state, 0, sizeof round_state);
    child_run(create_database, NULL);
}

static void kill_rounds(const char *name, int rounds)
{
    struct prng prng = prng_new(hash_u64((uint64_t)name[0]));
    bool other_first = false;

    last_id = 0;
    start_over(name);
    /* On a slow machine lives become longer, until each writer has committed something in one of them. */
    for (int i = 0; i < rounds || round_state.acknowledged[0] == 0 || round_state.acknowledged[1] == 0; i++) {
        int status;

        stream = prng_next(&prng);
        other_first = i % 2 != 0;
        status = writers_run(10 + prng_below(&prng, 190) + (i < rounds ? 0 : i * 200), false);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            check_failed(__FILE__, __LINE__, "round %d: the writers ended by themselves: status %x", i,
                         (unsigned)status);
        if (i % 3 != 2) /* sometimes it dies twice before anyone looks */
            child_run(check_database, &other_first);
    }
    child_run(check_database, &other_first);
}

static void acknowledged_inserts_survive_a_kill(void **state)
{
    (void)state;
    large = false;
    kill_rounds("autocommit", scaled(15));
}

static void acknowledged_transactions_survive_a_kill(void **state)
{
    (void)state;
    large = true;
    kill_rounds("transactions", scaled(15));
    large = false;
}

static void transactions_over_two_databases_are_in_both_or_in_none(void **state)
{
    (void)state;
    two = true;
    large = true;
    kill_rounds("two", scaled(15));
    two = large = false;
}

static void acknowledged_inserts_survive_a_kill_at_synchronous_full(void **state)
{
    (void)state;
    synchronous = "full";
    kill_rounds("full", scaled(8));
    synchronous = "off";
}

static void an_exit_without_close_loses_nothing(void **state)
{
    bool other_first = false;

    (void)state;
    start_over("exit");
    for (int i = 1; i <= 6; i++) {
        last_id = 150 * i;
        large = i > 3;
        stream = (uint64_t)i;
        CHECK_EQUAL(writers_run(LIFE_MS, i % 2 == 0), 0);
        for (int j = 0; j < WRITERS; j++)
            CHECK_EQUAL(round_state.acknowledged[j], last_id);
        child_run(check_database, &other_first);
    }
    large = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acknowledged_inserts_survive_a_kill),
        cmocka_unit_test(acknowledged_transactions_survive_a_kill),
        cmocka_unit_test(transactions_over_two_databases_are_in_both_or_in_none),
        cmocka_unit_test(acknowledged_inserts_survive_a_kill_at_synchronous_full),
        cmocka_unit_test(an_exit_without_close_loses_nothing),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
