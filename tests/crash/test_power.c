/* Power cuts: at every sync, what the disk may hold is made up (disk.h) and recovered.
 *
 * After each cut: recovery succeeds (and may be cut off itself and repeated), stock SQLite finds the file whole, every
 * commit acknowledged at synchronous=FULL is there, none is there in part, and none without those before it. As long as a
 * database has known OFF alone since it was opened nothing is promised; the first commit above that makes all before it safe.
 *
 * THRONG_TEST_SCALE=100000 runs for hours.
 *
 * SPDX-License-Identifier: MIT */
#include "disk.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATES = 6, KEYS = 60, STEPS = 4000 };

int (*thr_fault_check)(enum thr_os_call call, const char *path);
void (*thr_point_hook)(const char *name);

static char path[PATH_SIZE];

struct moment {
    struct disk_moment *disk;
    int acknowledged, started;
    bool promised; /* not all were at OFF since it was opened */
};

static struct moment moments[64];
static int moment_count;
static int acknowledged, started; /* commits, counted from 1 */
static bool watching, promised;

static void moment_take(void)
{
    if (moment_count < (int)(sizeof moments / sizeof moments[0]))
        moments[moment_count++] = (struct moment){disk_moment_take(), acknowledged, started, promised};
}

static int on_call(enum thr_os_call call, const char *at)
{
    if (!watching || !disk_is_sync(call, at))
        return 0;
    moment_take();
    disk_synced(at);
    return 0;
}

/* --- the work, and what must be left of it --- */

static uint64_t hashes[STEPS + 2]; /* of the content after each commit */

static uint64_t content_hash(sqlite3 *db)
{
    return db_hash(db, "SELECT k, v FROM kv ORDER BY k");
}

static int64_t states;

static void check_disk(const struct moment *moment, struct prng *prng)
{
    char to[PATH_SIZE];
    const char *const all[DISK_DATABASES] = {to};
    sqlite3 *db = NULL;
    int64_t n = 0;
    int rc;

    if (!moment->promised)
        return;
    (void)path_new(to, "cut");
    disk_make(moment->disk, DISK_LOSES_SOME, all, prng);
    rc = db_try_open(to, SQLITE_OPEN_READWRITE, "throng", &db);
    if (rc == SQLITE_OK)
        rc = db_try_int(db, &n, "SELECT n FROM counter");
    if (rc != SQLITE_OK && moment->acknowledged == 0) { /* nothing was promised: there may be no database yet */
        if (db != NULL)
            db_close(db);
        states++;
        return;
    }
    CHECK_OK(rc, db);
    if (n < moment->acknowledged || n > moment->started)
        check_failed(__FILE__, __LINE__, "%lld commits are there; %d were acknowledged, %d begun", (long long)n,
                     moment->acknowledged, moment->started);
    CHECK(content_hash(db) == hashes[n]);
    db_exec(db, "REPLACE INTO kv VALUES(-1, 'after')");
    db_close(db);
    oracle_check(to);
    (void)unlink(to);
    states++;
}

static void check_moments(struct prng *prng)
{
    watching = false;
    for (int i = 0; i < moment_count; i++) {
        for (int k = 0; k < STATES; k++)
            check_disk(&moments[i], prng);
        disk_moment_free(moments[i].disk);
    }
    moment_count = 0;
    watching = true;
}

static int change(sqlite3 *db, struct prng *prng)
{
    int key = prng_below(prng, KEYS), rc;

    switch (prng_below(prng, 6)) {
    case 0:
        return db_try(db, "DELETE FROM kv WHERE k BETWEEN %d AND %d", key, key + prng_below(prng, 10));
    case 1:
        return db_try(db, "UPDATE kv SET v = v || 'x%d' WHERE k %% 5 = %d", key, key % 5);
    default:
        rc = db_try(db, "REPLACE INTO kv VALUES(%d, hex(zeroblob(%d)) || '%d')", key,
                    prng_chance(prng, 5) ? prng_below(prng, 20000) : prng_below(prng, 300), prng_below(prng, 1000000));
        return rc;
    }
}

static const char *const LEVELS[] = {"OFF", "NORMAL", "FULL", "EXTRA"};

struct work {
    int page_size, checkpoint_bytes;
    const char *level; /* NULL: a different one for each commit */
    int steps;
    int off;     /* so many commits at OFF before the first one at another level, each time that it is opened */
    int rise_to; /* the level of that one */
    uint64_t stream;
    bool auto_vacuum; /* the file shrinks, too */
};

/* A commit at `level`, or a rollback. Returns whether it was a commit. */
static bool step(sqlite3 *db, const char *level, int n, bool may_roll_back, struct prng *prng)
{
    db_exec(db, "PRAGMA synchronous=%s", level);
    started = n;
    db_exec(db, "BEGIN");
    for (int k = prng_below(prng, 4); k >= 0; k--)
        (void)change(db, prng); /* a row may be there already: nothing happens */
    if (may_roll_back && prng_chance(prng, 10)) {
        db_exec(db, "ROLLBACK");
        return false;
    }
    db_exec(db, "UPDATE counter SET n = %d", n);
    hashes[n] = content_hash(db);
    db_exec(db, "COMMIT");
    if (strcmp(level, "OFF") != 0 && !promised) { /* all before it are safe, and at FULL it is itself */
        acknowledged = n - 1;
        promised = true;
    }
    if (strcmp(level, "FULL") == 0 || strcmp(level, "EXTRA") == 0)
        acknowledged = n;
    if (prng_chance(prng, 40)) /* nothing is synced: a cut at any time */
        moment_take();
    return true;
}

static void run(const struct work *work)
{
    struct prng prng = prng_new(work->stream);
    const char *const all[] = {path};
    char uri[2 * PATH_SIZE];
    sqlite3 *db, *other;
    int at = 0;

    (void)path_new(path, "power");
    (void)snprintf(uri, sizeof uri, "file:%s?checkpoint_bytes=%d", path, work->checkpoint_bytes);
    acknowledged = started = 0;
    moment_count = 0; /* a test that failed has left some */
    disk_watch(all, 1);
    watching = true;
    for (int life = 0; life < 3; life++) {
        CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, "throng", &db), db);
        CHECK_OK(db_try_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, "throng", &other), other);
        db_exec(db, "PRAGMA synchronous=%s; PRAGMA cache_size=20", work->off > 0 ? "OFF" : "FULL");
        db_exec(other, "PRAGMA cache_size=20");
        promised = promised && work->off == 0; /* a file that is opened is as safe as the last close has left it */
        if (life == 0) {
            db_exec(db, "PRAGMA page_size=%d; PRAGMA auto_vacuum=%d", work->page_size, work->auto_vacuum);
            db_exec(db, "BEGIN; CREATE TABLE kv(k INTEGER PRIMARY KEY, v UNIQUE); CREATE TABLE counter(n);"
                        "INSERT INTO counter VALUES(0); COMMIT");
            hashes[0] = content_hash(db);
            promised = work->off == 0;
        }
        for (int i = 0; i < work->off + work->steps / 3; i++) {
            const char *level = work->level != NULL ? work->level : LEVELS[prng_below(&prng, 4)];

            if (i <= work->off)
                level = LEVELS[i == work->off ? work->rise_to : 0];
            at += step(prng_chance(&prng, 2) ? db : other, level, at + 1, i > work->off, &prng);
            check_moments(&prng);
        }
        db_close(other);
        db_close(db);
        check_moments(&prng);
        watching = true;
    }
    watching = false;
    disk_forget();
    oracle_check(path);
}

static void full_keeps_what_it_acknowledged(void **state)
{
    (void)state;
    run(&(struct work){1024, 100000, "FULL", scaled(70), 0, 2, 1, false});
    run(&(struct work){4096, 400000, "FULL", scaled(70), 0, 2, 2, false});
}

static void normal_is_never_torn(void **state)
{
    (void)state;
    run(&(struct work){1024, 100000, "NORMAL", scaled(200), 0, 2, 3, false});
    run(&(struct work){512, 60000, "NORMAL", scaled(200), 0, 1, 4, true});
}

static void levels_mix(void **state)
{
    (void)state;
    run(&(struct work){1024, 100000, NULL, scaled(90), 0, 2, 5, false});
    run(&(struct work){4096, 1 << 20, NULL, scaled(90), 0, 1, 6, true});
}

/* Checkpoints ran and segments were used again while all were at OFF, before the first commit at another level. */
static void a_rise_from_off_makes_all_safe(void **state)
{
    (void)state;
    for (int rise_to = 1; rise_to <= 2; rise_to++) {
        run(&(struct work){1024, 100000, LEVELS[rise_to], 6, scaled(90), rise_to, 7, false});
        run(&(struct work){4096, 300000, NULL, 6, scaled(90), rise_to, 8, false});
    }
}

static int teardown(void **state)
{
    thr_fault_check = NULL;
    printf("%lld power cuts\n", (long long)states);
    return support_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_keeps_what_it_acknowledged),
        cmocka_unit_test(normal_is_never_torn),
        cmocka_unit_test(levels_mix),
        cmocka_unit_test(a_rise_from_off_makes_all_safe),
    };

    thr_fault_check = on_call;
    return cmocka_run_group_tests(tests, support_setup, teardown);
}
