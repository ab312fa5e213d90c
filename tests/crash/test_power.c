/* Power cuts: at every sync, what the disk may hold is made up and recovered.
 *
 * The test stands between the engine and fdatasync(). What was synced is on the disk; of what was written since, each
 * sector of 512 bytes is there or not, by chance. Of the names in a directory either all are there, or those of its last
 * sync with what they then stood for: file systems keep the order of such changes. Sectors are whole, as SQLite assumes
 * too.
 *
 * After each cut: recovery succeeds (and may be cut off itself and repeated), stock SQLite finds the file whole, every
 * commit acknowledged at synchronous=FULL is there, none is there in part, and none without those before it. As long as a
 * database has known OFF alone since it was opened nothing is promised; the first commit above that makes all before it safe.
 *
 * THRONG_TEST_SCALE=100000 runs for hours.
 *
 * SPDX-License-Identifier: MIT */
#include "os.h"
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { SECTOR = 512, FILES = 64, STATES = 6, KEYS = 60, STEPS = 4000 };

int (*thr_fault_check)(enum thr_os_call call, const char *path);
void (*thr_point_hook)(const char *name);

/* --- the disk --- */

struct content {
    uint8_t *at;
    size_t used; /* all zeros from here on */
    size_t size;
};

/* A file as the kernel has it. It is kept open, so that it can be read after it was deleted. */
struct file {
    ino_t ino;
    int fd;
    struct content synced;
};

struct name {
    char name[256]; /* "" is the database itself, else in its directory */
    int file;
};

struct names {
    struct name at[FILES];
    int count;
    bool directory; /* <db>-journal is there */
};

static char path[PATH_SIZE];
static char journal[PATH_SIZE];
static struct file files[FILES * 8];
static int file_count;
static struct names names_synced;

/* One moment: everything needed to make up disks. */
struct moment {
    struct names now, synced;
    struct content current[FILES * 8], durable[FILES * 8];
    int file_count;
    int acknowledged, started;
    bool promised; /* not all were at OFF since it was opened */
};

static struct moment *moments[64];
static int moment_count;
static int acknowledged, started; /* commits, counted from 1 */
static bool watching, promised;

static struct content content_copy(const struct content *from)
{
    struct content to = {malloc(from->used + 1), from->used, from->size};

    CHECK(to.at != NULL);
    if (from->used > 0)
        memcpy(to.at, from->at, from->used);
    return to;
}

static struct content content_read(int fd)
{
    static const uint8_t ZEROS[4096];
    struct content to = {NULL, 0, 0};
    struct stat status;
    const uint8_t *at;

    CHECK_EQUAL(fstat(fd, &status), 0);
    to.size = to.used = (size_t)status.st_size;
    if (to.size == 0)
        return to;
    at = mmap(NULL, to.size, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED);
    while (to.used >= sizeof ZEROS && memcmp(at + to.used - sizeof ZEROS, ZEROS, sizeof ZEROS) == 0)
        to.used -= sizeof ZEROS;
    to.at = malloc(to.used + 1);
    CHECK(to.at != NULL);
    memcpy(to.at, at, to.used);
    CHECK_EQUAL(munmap((void *)(uintptr_t)at, to.size), 0);
    return to;
}

static int file_of(const char *at)
{
    struct stat status;
    int fd = open(at, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    CHECK_EQUAL(fstat(fd, &status), 0);
    for (int i = 0; i < file_count; i++) {
        if (files[i].ino == status.st_ino) {
            (void)close(fd);
            return i;
        }
    }
    CHECK(file_count < FILES * 8);
    files[file_count] = (struct file){.ino = status.st_ino, .fd = fd};
    return file_count++;
}

/* Only these are read by recovery. */
static bool counts(const char *name)
{
    return strncmp(name, "log-", 4) == 0 || strcmp(name, "horizon") == 0;
}

static void names_read(struct names *names)
{
    char at[2 * PATH_SIZE];
    struct dirent *entry;
    DIR *directory = opendir(journal);
    int file = file_of(path);

    memset(names, 0, sizeof *names);
    if (file >= 0)
        names->at[names->count++] = (struct name){.name = "", .file = file};
    names->directory = directory != NULL;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (!counts(entry->d_name))
            continue;
        (void)snprintf(at, sizeof at, "%s/%s", journal, entry->d_name);
        if ((file = file_of(at)) < 0)
            continue;
        CHECK(names->count < FILES);
        (void)snprintf(names->at[names->count].name, sizeof names->at[0].name, "%s", entry->d_name);
        names->at[names->count++].file = file;
    }
    if (directory != NULL)
        (void)closedir(directory);
}

static void moment_take(void)
{
    struct moment *moment;

    if (moment_count == (int)(sizeof moments / sizeof moments[0]))
        return;
    moment = calloc(1, sizeof *moment);
    CHECK(moment != NULL);
    names_read(&moment->now);
    moment->synced = names_synced;
    moment->file_count = file_count;
    for (int i = 0; i < file_count; i++) {
        moment->current[i] = content_read(files[i].fd);
        moment->durable[i] = content_copy(&files[i].synced);
    }
    moment->acknowledged = acknowledged;
    moment->started = started;
    moment->promised = promised;
    moments[moment_count++] = moment;
}

/* Before a sync: the disk may be cut off now. Then what is written by now is durable. */
static int on_call(enum thr_os_call call, const char *at)
{
    struct stat status;
    int file;

    if (!watching || call != THR_OS_SYNC || at == NULL || strncmp(at, path_directory(), strlen(path_directory())) != 0)
        return 0;
    moment_take();
    if (stat(at, &status) != 0)
        return 0;
    if (S_ISDIR(status.st_mode)) {
        names_read(&names_synced);
    } else if ((file = file_of(at)) >= 0) {
        free(files[file].synced.at);
        files[file].synced = content_read(files[file].fd);
    }
    return 0;
}

static void disk_forget(void)
{
    for (int i = 0; i < file_count; i++) {
        (void)close(files[i].fd);
        free(files[i].synced.at);
    }
    file_count = 0;
    memset(&names_synced, 0, sizeof names_synced);
}

static void moment_free(struct moment *moment)
{
    for (int i = 0; i < moment->file_count; i++) {
        free(moment->current[i].at);
        free(moment->durable[i].at);
    }
    free(moment);
}

/* --- a made-up disk --- */

static void write_mix(const char *to, const struct content *durable, const struct content *current, struct prng *prng,
                      int lost)
{
    size_t used = current->used > durable->used ? current->used : durable->used;
    uint8_t *bytes = calloc(1, used + SECTOR);

    CHECK(bytes != NULL);
    if (durable->used > 0)
        memcpy(bytes, durable->at, durable->used);
    for (size_t at = 0; at < used; at += SECTOR) {
        uint8_t sector[SECTOR] = {0};

        if (at < current->used)
            memcpy(sector, current->at + at, current->used - at < SECTOR ? current->used - at : SECTOR);
        if (memcmp(bytes + at, sector, SECTOR) != 0 && prng_below(prng, 100) >= lost)
            memcpy(bytes + at, sector, SECTOR);
    }
    file_write(to, bytes, used);
    CHECK_EQUAL(truncate(to, (off_t)(prng_below(prng, 100) >= lost ? current->size : durable->size)), 0);
    free(bytes);
}

/* The made-up file is the one that was in use, not a copy: recovery asks less of that (src/ckpt/fit.h). */
static void horizon_adopt(const char *horizon, const char *to)
{
    enum { PLACE = 56, APART = 512, FILE_AT = 32 };
    uint8_t place[PLACE];
    uint64_t number, hash;
    int fd = open(to, O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0);
    number = thr_os_file_number(fd);
    (void)close(fd);
    for (int at = 0; at <= APART && file_size(horizon) >= at + PLACE; at += APART) {
        file_read(horizon, at, place, PLACE);
        memcpy(&hash, place + PLACE - sizeof hash, sizeof hash);
        if (hash != XXH3_64bits(place, PLACE - sizeof hash))
            continue;
        memcpy(place + FILE_AT, &number, sizeof number);
        hash = XXH3_64bits(place, PLACE - sizeof hash);
        memcpy(place + PLACE - sizeof hash, &hash, sizeof hash);
        file_patch(horizon, at, place, PLACE);
    }
}

static void disk_make(const struct moment *moment, const char *to, struct prng *prng)
{
    static const int LOST[] = {0, 5, 30, 60, 95, 100};
    const struct names *names = prng_chance(prng, 4) ? &moment->synced : &moment->now;
    int lost = LOST[prng_below(prng, 6)];
    char at[2 * PATH_SIZE];
    bool there = false;

    for (int i = 0; i < names->count; i++)
        there = there || names->at[i].name[0] == '\0';
    if (!there) /* not even the database: the names of now */
        names = &moment->now;
    if (names->directory) {
        (void)snprintf(at, sizeof at, "%s-journal", to);
        CHECK_EQUAL(mkdir(at, 0700), 0);
    }
    for (int i = 0; i < names->count; i++) {
        int file = names->at[i].file;

        if (names->at[i].name[0] == '\0')
            (void)snprintf(at, sizeof at, "%s", to);
        else
            (void)snprintf(at, sizeof at, "%s-journal/%s", to, names->at[i].name);
        write_mix(at, &moment->durable[file], &moment->current[file], prng, lost);
    }
    (void)snprintf(at, sizeof at, "%s-journal/horizon", to);
    if (file_exists(at))
        horizon_adopt(at, to);
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
    sqlite3 *db = NULL;
    int64_t n = 0;
    int rc;

    if (!moment->promised)
        return;
    (void)path_new(to, "cut");
    disk_make(moment, to, prng);
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
            check_disk(moments[i], prng);
        moment_free(moments[i]);
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
    char uri[2 * PATH_SIZE];
    sqlite3 *db, *other;
    int at = 0;

    (void)path_new(path, "power");
    (void)path_beside(journal, path, "-journal");
    (void)snprintf(uri, sizeof uri, "file:%s?checkpoint_bytes=%d", path, work->checkpoint_bytes);
    acknowledged = started = 0;
    moment_count = 0; /* a test that failed has left some */
    disk_forget();
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
