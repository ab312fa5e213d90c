/* A process that dies by SIGKILL at any named point of the engine, or at any system call, loses no acknowledged commit and
 * leaves no part of one, also where a commit spans two databases; and so does the recovery that comes after it. Every
 * THR_POINT in src is died at.
 * Replay: THRONG_SEED=<n> build/tests/test-points (how the threads meet still varies)
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "support.h"

#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WRITERS = 3, ACCOUNTS = 40, TOTAL = ACCOUNTS * 1000, STEPS = 30, POINTS_MAX = 128, NAME_BYTES = 32 };

struct point {
    char name[NAME_BYTES];
    uint64_t passages;
};

/* What outlives a child. */
struct shared {
    _Atomic int64_t acknowledged[WRITERS]; /* ids go up from 1 without a gap */
    struct point points[POINTS_MAX];       /* passed by children that were not killed */
    int point_count;
    char about[256];   /* how the children before died */
    uint64_t calls[2]; /* of a whole load, of a whole recovery */
};

static struct shared *shared;
static char path[PATH_SIZE], other[PATH_SIZE];
static const char *options;

/* Where a child is to die; neither: it lives. */
struct death {
    const char *point;
    uint64_t nth;
    bool at_call;
    bool torn; /* writes are torn, so that there is a point inside them */
    uint64_t stream;
};

static void arm(const struct death *death)
{
    struct fault_rule rule = {.call = FAULT_ANY_CALL, .nth = death->nth, .count = 1, .err = FAULT_KILL};
    struct fault_rule torn = {.call = THR_OS_WRITE, .nth = death->nth, .count = 1, .err = -5};

    fault_reset();
    fault_seed(prng_seed() + death->stream);
    /* Others commit, and the file grows, while a checkpoint makes up its mind: it must not miss their pages. */
    (void)fault_disturb("cycle-begins", 2, 4000000);
    if (death->torn)
        (void)fault_add(&torn);
    if (death->point != NULL)
        (void)fault_kill_at(death->point, death->torn ? 1 : death->nth);
    if (death->at_call)
        (void)fault_add(&rule);
}

static void note_point(void *ctx, const char *name, uint64_t passages)
{
    int i = 0;

    (void)ctx;
    while (i < shared->point_count && strcmp(shared->points[i].name, name) != 0)
        i++;
    CHECK(i < POINTS_MAX);
    if (i == shared->point_count)
        shared->point_count++;
    (void)snprintf(shared->points[i].name, NAME_BYTES, "%s", name);
    if (passages > shared->points[i].passages)
        shared->points[i].passages = passages;
}

/* --- the load --- */

static sqlite3 *open_both(void)
{
    char uri[2 * PATH_SIZE];
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof uri, "file:%s?%s", path, options);
    CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
    db_exec(db, "PRAGMA busy_timeout=%d; ATTACH 'file:%s?vfs=throng&%s' AS other", BUSY_TIMEOUT_MS, other, options);
    return db;
}

struct writer {
    int number;
    struct prng prng;
    int64_t id;
};

static int body(sqlite3 *db, void *arg)
{
    struct writer *w = arg;
    int from = prng_below(&w->prng, ACCOUNTS), to = prng_below(&w->prng, ACCOUNTS), amount = prng_below(&w->prng, 100);
    int rc = db_try(
        db,
        "UPDATE account SET balance=balance-%d WHERE id=%d; UPDATE account SET balance=balance+%d WHERE id=%d;"
        "INSERT INTO t VALUES(%d, %lld, randomblob(%d))",
        amount, from, amount, to, w->number, (long long)w->id, prng_below(&w->prng, 30000));

    if (rc == SQLITE_OK && w->number == 0) /* a commit of both */
        rc = db_try(db, "INSERT INTO other.t VALUES(%lld, zeroblob(%d))", (long long)w->id, prng_below(&w->prng, 2000));
    if (rc == SQLITE_OK && w->number == 1)
        rc = prng_chance(&w->prng, 2) ? db_try(db, "INSERT INTO pad SELECT randomblob(900) FROM account")
                                      : db_try(db, "DELETE FROM pad");
    return rc;
}

static void writer_thread(void *arg)
{
    static const char *const BEGINS[] = {"BEGIN", "BEGIN", "BEGIN", "BEGIN IMMEDIATE"};
    static const char *const LEVELS[] = {"OFF", "NORMAL", "FULL"};
    struct writer *w = arg;
    sqlite3 *db;

    fault_thread_number((uint32_t)w->number);
    db = open_both();
    db_exec(db, "PRAGMA synchronous=%s; PRAGMA other.synchronous=%s", LEVELS[prng_below(&w->prng, 3)],
            LEVELS[prng_below(&w->prng, 3)]);
    w->id = db_int(db, "SELECT coalesce(max(id), 0) FROM t WHERE writer=%d", w->number);
    CHECK(w->id >= atomic_load(&shared->acknowledged[w->number]));
    for (int i = 0; i < STEPS; i++) {
        w->id++;
        (void)db_transaction(db, BEGINS[prng_below(&w->prng, 4)], body, w);
        atomic_store(&shared->acknowledged[w->number], w->id);
        if (prng_chance(&w->prng, 8)) /* autocommit: it is run again where it loses */
            db_exec(db, "UPDATE account SET balance=balance+0, n=n+1 WHERE id < 5");
        if (w->number == 2 && prng_chance(&w->prng, 25))
            (void)db_try(db, "PRAGMA wal_checkpoint(FULL)");
        if (w->number == 2 && prng_chance(&w->prng, 25))
            (void)db_try(db, "VACUUM");
    }
    db_close(db);
}

static void load_child(void *arg)
{
    const struct death *death = arg;
    struct writer writers[WRITERS];

    arm(death);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.number = i, .prng = prng_new(death->stream * WRITERS + (uint64_t)i)};
        thread_start(writer_thread, &writers[i]);
    }
    threads_join();
    fault_each_point(note_point, NULL);
    shared->calls[0] = fault_calls(FAULT_ANY_CALL);
}

/* --- what comes after it --- */

static void recovery_child(void *arg)
{
    const struct death *death = arg;
    const char *order[2] = {path, other};
    sqlite3 *db;

    arm(death);
    for (int i = 0; i < 2; i++) {
        const char *at = order[(death->stream + (uint64_t)i) % 2];

        CHECK_OK(db_try_open(at, SQLITE_OPEN_READWRITE, "throng", &db), db);
        db_exec(db, "SELECT count(*) FROM t; PRAGMA user_version=%d", (int)(death->stream % 1000));
        db_close(db);
    }
    fault_each_point(note_point, NULL);
    shared->calls[1] = fault_calls(FAULT_ANY_CALL);
}

static void check_child(void *arg)
{
    sqlite3 *db;

    (void)arg;
    fault_reset();
    db = open_both();
    for (int i = 0; i < WRITERS; i++) {
        int64_t acknowledged = atomic_load(&shared->acknowledged[i]);
        int64_t max = db_int(db, "SELECT coalesce(max(id), 0) FROM t WHERE writer=%d", i);

        if (max < acknowledged || max > acknowledged + 1) /* one may have been committed and not yet acknowledged */
            check_failed(__FILE__, __LINE__, "writer %d: %lld was acknowledged, %lld is there", i,
                         (long long)acknowledged, (long long)max);
        CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE writer=%d", i), max);
        atomic_store(&shared->acknowledged[i], max);
    }
    CHECK_EQUAL(db_int(db, "SELECT sum(balance) FROM account"), TOTAL);
    if (db_int(db, "SELECT count(*) FROM other.t") != db_int(db, "SELECT count(*) FROM t WHERE writer=0"))
        check_failed(__FILE__, __LINE__, "%lld in one database, %lld in the other, after %s",
                     (long long)db_int(db, "SELECT count(*) FROM t WHERE writer=0"),
                     (long long)db_int(db, "SELECT count(*) FROM other.t"), shared->about);
    CHECK_EQUAL(db_int(db, "SELECT count(*) FROM t WHERE writer=0 AND id NOT IN (SELECT id FROM other.t)"), 0);
    db_exec(db, "DELETE FROM account WHERE id<0; UPDATE account SET n=n+1 WHERE id=0");
    db_close(db);
    oracle_check(path);
    oracle_check(other);
}

static void create_child(void *arg)
{
    sqlite3 *db;

    (void)arg;
    fault_reset();
    db = open_both();
    db_exec(db,
            "CREATE TABLE t(writer INT, id INT, pad BLOB, PRIMARY KEY(writer, id));"
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, n INT DEFAULT 0); CREATE TABLE pad(x);"
            "WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<%d)"
            "INSERT INTO account(id, balance) SELECT i, 1000 FROM c;"
            "CREATE TABLE other.t(id INTEGER PRIMARY KEY, pad BLOB)",
            ACCOUNTS - 1);
    db_close(db);
}

static void start_over(const char *with)
{
    char name[PATH_SIZE];

    options = with;
    (void)path_new(path, "points");
    (void)snprintf(name, sizeof name, "points-other");
    (void)path_new(other, name);
    for (int i = 0; i < WRITERS; i++)
        atomic_store(&shared->acknowledged[i], 0);
    child_run(create_child, NULL);
}

/* Whether it was killed; any other end but the good one fails the test. */
static bool run_to_death(void (*child)(void *), struct death *death)
{
    int status = child_status(child_start(child, death));

    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    if (status != 0)
        check_failed(__FILE__, __LINE__, "at point %s, passage %llu: status %x",
                     death->point != NULL ? death->point : "-", (unsigned long long)death->nth, (unsigned)status);
    return false;
}

/* One death under load, then up to two in recovery. */
static int one_round(struct death death, struct prng *prng)
{
    int killed = run_to_death(load_child, &death);

    (void)snprintf(shared->about, sizeof shared->about, "%s %llu", death.point != NULL ? death.point : "call",
                   (unsigned long long)death.nth);
    for (int i = prng_below(prng, 3); i > 0; i--) {
        struct death again = {
            .at_call = true, .nth = 1 + prng_next(prng) % (shared->calls[1] + 1), .stream = prng_next(prng)};

        (void)snprintf(shared->about + strlen(shared->about), sizeof shared->about - strlen(shared->about),
                       ", recovery of %s at call %llu", again.stream % 2 == 0 ? "the first" : "the other",
                       (unsigned long long)again.nth);
        killed += run_to_death(recovery_child, &again);
    }
    child_run(check_child, NULL);
    return killed;
}

/* --- the points there are --- */

static int source_count;
static char source_points[POINTS_MAX][NAME_BYTES];

static void add_points_of(const char *file)
{
    static const char CALL[] = "THR_POINT(\"";
    char line[512], *at, *end;
    FILE *in = fopen(file, "r");

    CHECK(in != NULL);
    while (fgets(line, sizeof line, in) != NULL) {
        if ((at = strstr(line, CALL)) == NULL || (end = strchr(at + sizeof CALL - 1, '"')) == NULL)
            continue;
        *end = '\0';
        CHECK(source_count < POINTS_MAX);
        (void)snprintf(source_points[source_count++], NAME_BYTES, "%s", at + sizeof CALL - 1);
    }
    (void)fclose(in);
}

static void read_sources(const char *directory)
{
    char at[2 * PATH_SIZE];
    struct dirent *entry;
    DIR *open_directory = opendir(directory);
    size_t length;

    CHECK(open_directory != NULL);
    while ((entry = readdir(open_directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        length = strlen(entry->d_name);
        (void)snprintf(at, sizeof at, "%s/%s", directory, entry->d_name);
        if (entry->d_type == DT_DIR)
            read_sources(at);
        else if (length > 2 && strcmp(entry->d_name + length - 2, ".c") == 0)
            add_points_of(at);
    }
    (void)closedir(open_directory);
}

static const struct point *find_point(const char *name)
{
    for (int i = 0; i < shared->point_count; i++)
        if (strcmp(shared->points[i].name, name) == 0)
            return &shared->points[i];
    return NULL;
}

/* Loads and recoveries that nobody kills, until every point was passed. */
static void find_points(void)
{
    bool all = false;

    for (uint64_t i = 0; i < 20 && !all; i++) {
        struct death crash = {.point = "published", .nth = 30, .stream = 1000 + i}, none = {.stream = 2000 + i};

        (void)run_to_death(load_child, &crash);
        child_run(recovery_child, &none);
        child_run(load_child, &none);
        child_run(check_child, NULL);
        all = true;
        for (int k = 0; k < source_count; k++)
            all = all && (find_point(source_points[k]) != NULL || strcmp(source_points[k], "torn-write") == 0);
    }
    for (int k = 0; k < source_count && !all; k++)
        if (find_point(source_points[k]) == NULL && strcmp(source_points[k], "torn-write") != 0)
            check_failed(__FILE__, __LINE__, "no load passes THR_POINT(\"%s\")", source_points[k]);
}

static void death_at_every_point(void **state)
{
    struct prng prng = prng_new(1);
    int killed = 0, rounds = 0, here;

    (void)state;
    support_needs_throng();
    read_sources(THR_SOURCES);
    CHECK(source_count > 20);
    start_over("checkpoint_bytes=30000");
    find_points();
    for (int k = 0; k < source_count; k++) {
        const struct point *point = find_point(source_points[k]);
        bool torn = strcmp(source_points[k], "torn-write") == 0;
        uint64_t passages = point != NULL ? point->passages : 40;

        here = 0;
        for (int i = 0; i < scaled(2) || (here == 0 && i < 20); i++, rounds++) {
            struct death death = {.point = source_points[k], .torn = torn, .stream = prng_next(&prng)};

            death.nth = 1 + prng_next(&prng) % (i < scaled(2) ? passages : 1); /* sometimes it is passed less often */
            if (strcmp(source_points[k], "recover") == 0) {
                struct death crash = {.point = "published", .nth = 40, .stream = death.stream};

                (void)run_to_death(load_child, &crash);
                here += run_to_death(recovery_child, &death);
                child_run(check_child, NULL);
            } else {
                here += one_round(death, &prng);
            }
        }
        if (here == 0)
            check_failed(__FILE__, __LINE__, "nobody died at THR_POINT(\"%s\")", source_points[k]);
        killed += here;
    }
    printf("%d points, %d rounds, %d deaths\n", source_count, rounds, killed);
}

static void death_at_any_call(void **state)
{
    struct prng prng = prng_new(2);
    int killed = 0;

    (void)state;
    support_needs_throng();
    start_over("checkpoint_bytes=30000&checkpointer=thread");
    for (int i = 0; i < scaled(80); i++) {
        struct death death = {
            .at_call = true, .nth = 1 + prng_next(&prng) % (shared->calls[0] + 1), .stream = prng_next(&prng)};

        killed += one_round(death, &prng);
    }
    CHECK(killed > 0);
    printf("%d rounds, %d deaths\n", scaled(80), killed);
}

static int setup(void **state)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared == MAP_FAILED ? -1 : support_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(death_at_every_point),
        cmocka_unit_test(death_at_any_call),
    };

    return cmocka_run_group_tests(tests, setup, support_teardown);
}
