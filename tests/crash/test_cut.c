/* A power cut, or the death of the process, at named points where two things meet; what the disk may hold then is made up
 * (disk.h) and recovered:
 *
 * - a checkpoint cuts the file off after its last page, and before it has, and after, another connection commits: with more
 *   pages than were cut off, or with less. Whatever the level, the database recovers; no commit is there in part; all that was
 *   committed is there if only the process died, and what was acknowledged at FULL after a power cut, too.
 * - a commit of two databases at different levels. That at FULL has what it acknowledged; that above OFF is whole; the state of
 *   the one does not keep the other from being opened. With both at FULL a commit is in both or in none.
 *
 * Everything happens in one thread, so that a seed is enough.
 * Replay: THRONG_SEED=<n> build/tests/test-cut
 *
 * SPDX-License-Identifier: MIT */
#include "disk.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOMENTS = 256, COMMITS = 2000 };
enum level { OFF, NORMAL, FULL, MIXED };

int (*thr_fault_check)(enum thr_os_call call, const char *path);
void (*thr_point_hook)(const char *name);

static const char *const LEVELS[] = {"OFF", "NORMAL", "FULL"};

static char paths[DISK_DATABASES][PATH_SIZE];
static const char *const all[DISK_DATABASES] = {paths[0], paths[1]};
static struct prng prng;

/* Of a database: its commits, counted from 1, and what is known of them. */
struct progress {
    int started, committed, acknowledged;
    bool promised; /* not all were at OFF since it was opened */
};

static struct progress progress[DISK_DATABASES];
static uint64_t hashes[DISK_DATABASES][COMMITS]; /* of the content after each */
static int together[COMMITS][DISK_DATABASES];    /* commits of both */
static int together_count;

struct moment {
    struct disk_moment *disk;
    struct progress progress[DISK_DATABASES];
    char where[32];
};

static struct moment moments[MOMENTS];
static int moment_count;
static bool watching, created;
static int64_t states;

static void moment_take(const char *where)
{
    struct moment *moment = &moments[moment_count];

    if (moment_count == MOMENTS || !created)
        return;
    moment_count++;
    moment->disk = disk_moment_take();
    memcpy(moment->progress, progress, sizeof progress);
    (void)snprintf(moment->where, sizeof moment->where, "%s", where);
}

static int on_call(enum thr_os_call call, const char *at)
{
    if (!watching || !disk_is_sync(call, at))
        return 0;
    if (progress[1].started > 0 && prng_chance(&prng, 12)) /* test_power has them all */
        moment_take("a sync");
    disk_synced(at);
    return 0;
}

/* --- what must be left --- */

static uint64_t content_hash(sqlite3 *db, const char *schema)
{
    return db_hash(db, "SELECT n, k, v FROM %s.counter LEFT JOIN %s.kv ORDER BY k", schema, schema);
}

/* Returns how many commits the database has; -1: nothing was promised, and it cannot be read. */
static int64_t check_one(const struct moment *moment, int which, bool died)
{
    const struct progress *at = &moment->progress[which];
    int least = died ? at->committed : at->acknowledged;
    sqlite3 *db = NULL;
    int64_t n = 0;
    int rc = db_try_open(paths[which], SQLITE_OPEN_READWRITE, "throng", &db);

    if (rc == SQLITE_OK)
        rc = db_try_int(db, &n, "SELECT n FROM counter");
    if (rc != SQLITE_OK && !died && !at->promised) {
        if (db != NULL)
            db_close(db);
        return -1;
    }
    if (rc != SQLITE_OK)
        check_failed(__FILE__, __LINE__, "database %d, %s at %s: %d", which, died ? "death" : "power cut",
                     moment->where, rc);
    if (died || at->promised) {
        if (n < least || n > at->started)
            check_failed(__FILE__, __LINE__, "database %d, %s at %s: %lld commits are there, of %d to %d", which,
                         died ? "death" : "power cut", moment->where, (long long)n, least, at->started);
        CHECK(content_hash(db, "main") == hashes[which][n]);
        db_exec(db, "REPLACE INTO kv VALUES(-1, 'after')");
    }
    db_close(db);
    if (died || at->promised)
        oracle_check(paths[which]);
    return died || at->promised ? n : -1;
}

static void check_moment(const struct moment *moment, int count, bool all_full, enum disk_loss loss)
{
    bool died = loss == DISK_LOSES_NOTHING;
    int64_t n[DISK_DATABASES] = {0};
    int first = prng_below(&prng, count);

    disk_remove(all, count);
    disk_make(moment->disk, loss, all, &prng);
    for (int i = 0; i < count; i++)
        n[(first + i) % count] = check_one(moment, (first + i) % count, died);
    for (int i = 0; i < together_count && count == 2 && (all_full || died) && n[0] >= 0 && n[1] >= 0; i++)
        if ((n[0] >= together[i][0]) != (n[1] >= together[i][1]))
            check_failed(__FILE__, __LINE__,
                         "%s at %s: commit %d of one and %d of the other, and there are %lld and %lld",
                         died ? "death" : "power cut", moment->where, together[i][0], together[i][1], (long long)n[0],
                         (long long)n[1]);
    states++;
}

static void check_moments(int count, bool all_full)
{
    watching = false;
    for (int i = 0; i < moment_count; i++) {
        for (int loss = DISK_LOSES_NOTHING; loss <= DISK_LOSES_ALL; loss++)
            check_moment(&moments[i], count, all_full, (enum disk_loss)loss);
        disk_moment_free(moments[i].disk);
    }
    moment_count = 0;
    disk_forget();
    disk_remove(all, count);
}

/* --- the work --- */

static void begin(int count, const char *name)
{
    char with_number[64];

    for (int i = 0; i < count; i++) {
        (void)snprintf(with_number, sizeof with_number, "%s-%d", name, i);
        (void)path_new(paths[i], with_number);
    }
    memset(progress, 0, sizeof progress);
    together_count = moment_count = 0;
    disk_watch(all, count);
    watching = true;
    created = false;
}

static sqlite3 *open_one(int which, const char *options, bool auto_vacuum)
{
    char uri[2 * PATH_SIZE];
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof uri, "file:%s?%s", paths[which], options);
    CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
    db_exec(db, "PRAGMA page_size=1024; PRAGMA auto_vacuum=%d", auto_vacuum);
    return db;
}

static void create(sqlite3 *db, const char *schema, int which, enum level level)
{
    db_exec(db, "PRAGMA %s.synchronous=%s", schema,
            LEVELS[level == OFF ? OFF : FULL]); /* it is there, whatever comes */
    db_exec(db,
            "BEGIN; CREATE TABLE %s.kv(k INTEGER PRIMARY KEY, v); CREATE TABLE %s.counter(n);"
            "INSERT INTO %s.counter VALUES(0); COMMIT",
            schema, schema, schema);
    db_exec(db, "PRAGMA %s.synchronous=%s", schema, LEVELS[level == MIXED ? FULL : level]);
    hashes[which][0] = content_hash(db, schema);
    progress[which].promised = level != OFF;
}

static void count_up(sqlite3 *db, const char *schema, int which)
{
    int n = progress[which].committed + 1;

    CHECK(n < COMMITS);
    db_exec(db, "UPDATE %s.counter SET n = %d", schema, n);
    hashes[which][n] = content_hash(db, schema);
    progress[which].started = n;
}

static void counted(int which, enum level level)
{
    progress[which].committed = progress[which].started;
    if (level == FULL)
        progress[which].acknowledged = progress[which].committed;
}

/* The first `rows` rows of about a page and no others, but for one of `large` bytes. Those that were there stay as they are. */
static void commit(sqlite3 *db, enum level level, int rows, int large)
{
    level = level == MIXED ? (enum level)prng_below(&prng, 3) : level;
    db_exec(db, "PRAGMA synchronous=%s; BEGIN; DELETE FROM kv WHERE k >= %d", LEVELS[level], rows);
    for (int i = 0; i < rows; i++)
        db_exec(db, "INSERT OR IGNORE INTO kv VALUES(%d, hex(zeroblob(450)) || %d)", i, prng_below(&prng, 1000));
    if (large > 0)
        db_exec(db, "INSERT INTO kv VALUES(%d, hex(zeroblob(%d)))", rows, large / 2);
    count_up(db, "main", 0);
    db_exec(db, "COMMIT");
    counted(0, level);
}

/* --- a checkpoint cuts the file off --- */

static sqlite3 *other;
static enum level other_level;
static int at_point, passages, other_rows;
static const char *const CUT_POINTS[] = {"shrink",      "cut-trailer", "cut-off", "span-trailer",
                                         "span-raised", "base-synced", "horizon"};
enum { CUT_POINT_COUNT = sizeof CUT_POINTS / sizeof CUT_POINTS[0] };

static void at_cut(const char *name)
{
    static bool inside;

    if (inside || other == NULL || strcmp(name, CUT_POINTS[at_point]) != 0)
        return;
    inside = true;
    passages++;
    commit(other, other_level, other_rows, 0);
    moment_take(name);
    inside = false;
}

/* The other commit makes the database longer again than it was, or still shorter. */
static void cut_at(int point, enum level level, bool longer)
{
    static const char OPTIONS[] = "checkpoint_bytes=100M";
    sqlite3 *db, *beside;

    begin(1, CUT_POINTS[point]);
    db = open_one(0, OPTIONS, !longer);
    create(db, "main", 0, level);
    created = true;
    beside = open_one(0, OPTIONS, !longer);
    /* The log has more than a segment by then, and what it had of these rows is gone. */
    commit(db, level, 40, 0);
    commit(db, level, 40, 1100000);
    db_exec(db, "PRAGMA wal_checkpoint");
    commit(db, level, 20, 0);
    if (longer)
        db_exec(db, "VACUUM");
    at_point = point;
    other_level = level;
    other_rows = longer ? 60 : 1;
    other = beside;
    db_exec(db, "PRAGMA wal_checkpoint");
    other = NULL;
    moment_take("the end of a checkpoint");
    commit(db, level, 30, 0);
    db_close(beside);
    db_close(db);
    check_moments(1, false);
}

static void others_commit_where_the_file_is_cut_off(void **state)
{
    (void)state;
    thr_point_hook = at_cut;
    prng = prng_new(1);
    for (int point = 0; point < CUT_POINT_COUNT; point++) {
        passages = 0;
        for (int level = OFF; level <= MIXED; level++)
            for (int longer = 0; longer <= 1; longer++)
                cut_at(point, (enum level)level, longer);
        if (passages < 8)
            check_failed(__FILE__, __LINE__, "%s was passed %d times", CUT_POINTS[point], passages);
    }
    thr_point_hook = NULL;
}

/* --- a commit of two databases --- */

static void at_group(const char *name)
{
    static const char *const POINTS[] = {"group-safe", "decided", "all-decided", "one-published"};

    for (size_t i = 0; i < sizeof POINTS / sizeof POINTS[0] && watching; i++)
        if (strcmp(name, POINTS[i]) == 0)
            moment_take(name);
}

static void commit_both(sqlite3 *db, const enum level *levels)
{
    db_exec(db, "BEGIN");
    db_exec(db, "REPLACE INTO main.kv VALUES(%d, hex(zeroblob(%d)))", prng_below(&prng, 9), prng_below(&prng, 3000));
    db_exec(db, "REPLACE INTO other.kv VALUES(%d, hex(zeroblob(%d)))", prng_below(&prng, 9), prng_below(&prng, 3000));
    count_up(db, "main", 0);
    count_up(db, "other", 1);
    together[together_count][0] = progress[0].started;
    together[together_count++][1] = progress[1].started;
    db_exec(db, "COMMIT");
    counted(0, levels[0]);
    counted(1, levels[1]);
}

static void commit_one_of_two(sqlite3 *db, int which, enum level level)
{
    const char *schema = which == 0 ? "main" : "other";

    db_exec(db, "BEGIN; REPLACE INTO %s.kv VALUES(%d, %d)", schema, prng_below(&prng, 9), prng_below(&prng, 1000));
    count_up(db, schema, which);
    db_exec(db, "COMMIT");
    counted(which, level);
}

static void two_at(enum level first, enum level second)
{
    const enum level levels[] = {first, second};
    sqlite3 *db;

    begin(2, "two");
    db = open_one(0, "checkpoint_bytes=100000", false);
    db_exec(db, "ATTACH 'file:%s?vfs=throng&checkpoint_bytes=100000' AS other; PRAGMA other.page_size=1024", paths[1]);
    create(db, "main", 0, first);
    create(db, "other", 1, second);
    created = true;
    for (int i = 0; i < 3; i++) {
        int which = prng_below(&prng, 2);

        commit_both(db, levels);
        if (prng_chance(&prng, 3))
            moment_take("between two commits");
        if (prng_chance(&prng, 3))
            commit_one_of_two(db, which, levels[which]);
        if (i == 1)
            db_exec(db, "PRAGMA wal_checkpoint");
    }
    db_close(db);
    check_moments(2, first == FULL && second == FULL);
}

static void two_databases_at_two_levels(void **state)
{
    (void)state;
    thr_point_hook = at_group;
    prng = prng_new(2);
    for (int i = 0; i < scaled(1); i++)
        for (int first = OFF; first <= FULL; first++)
            for (int second = first == FULL ? OFF : FULL; second <= FULL; second++)
                two_at((enum level)first, (enum level)second);
    thr_point_hook = NULL;
}

static int teardown(void **state)
{
    thr_fault_check = NULL;
    printf("%lld deaths and power cuts\n", (long long)states);
    return support_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_commit_where_the_file_is_cut_off),
        cmocka_unit_test(two_databases_at_two_levels),
    };

    thr_fault_check = on_call;
    return cmocka_run_group_tests(tests, support_setup, teardown);
}
