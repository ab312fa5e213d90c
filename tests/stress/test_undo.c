/* A rollback, of a transaction or to a savepoint, leaves the connection with what it had before: pages of its cache as well,
 * whatever became of free pages meanwhile. Random changes that use and free whole pages, with caches that spill, are made by
 * one connection and by stock SQLite; after each step both have the same rows, and whenever no transaction is open every
 * connection, an old one and a new one, finds the database whole.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdio.h>
#include <string.h>

#define TABLES 4

struct course {
    const char *auto_vacuum;
    const char *settings;
    int page_size;
    bool attached;  /* to a connection of stock SQLite, which passes on journal modes */
    bool exclusive; /* nobody else writes */
};

struct both {
    sqlite3 *db, *model, *other;
    struct prng prng;
    char path[PATH_SIZE];
    const char *schema;
};

static void run(struct both *b, const char *format, ...)
{
    va_list arguments;
    char *sql;
    int rc;
    int expected;

    va_start(arguments, format);
    sql = sqlite3_vmprintf(format, arguments);
    va_end(arguments);
    CHECK(sql != NULL);
    rc = sqlite3_exec(b->db, sql, NULL, NULL, NULL);
    expected = sqlite3_exec(b->model, sql, NULL, NULL, NULL);
    if (rc != expected)
        check_failed(__FILE__, __LINE__, "%.200s: code %d (%s), and stock SQLite gives %d", sql, rc,
                     sqlite3_errmsg(b->db), expected);
    sqlite3_free(sql);
}

static void compare(struct both *b)
{
    for (int i = 0; i < TABLES; i++) {
        bool there = db_int(b->model, "SELECT count(*) FROM %s.sqlite_schema WHERE name='t%d'", b->schema, i) == 1;

        CHECK_EQUAL(db_int(b->db, "SELECT count(*) FROM %s.sqlite_schema WHERE name='t%d'", b->schema, i), there);
        if (there) {
            CHECK(db_hash(b->db, "SELECT * FROM %s.t%d ORDER BY id", b->schema, i) ==
                  db_hash(b->model, "SELECT * FROM %s.t%d ORDER BY id", b->schema, i));
            CHECK(db_hash(b->db, "SELECT b FROM %s.t%d WHERE b>x'' ORDER BY b", b->schema, i) ==
                  db_hash(b->model, "SELECT b FROM %s.t%d WHERE b>x'' ORDER BY b", b->schema, i));
        }
    }
}

static void is_whole(struct both *b)
{
    sqlite3 *fresh;

    db_check_text(b->other, "PRAGMA integrity_check(3)", "ok");
    if (prng_chance(&b->prng, 4)) {
        fresh = db_open(b->path);
        db_check_text(fresh, "PRAGMA integrity_check(3)", "ok");
        db_close(fresh);
    }
}

/* Blobs of many pages, and other ones for each letter and size, so that a page in the wrong place shows. */
#define BLOB "CAST(printf('%%.*c', %d, char(65+%d)) AS BLOB)"

static void change(struct both *b)
{
    struct prng *prng = &b->prng;
    int table = prng_below(prng, TABLES);
    int size = prng_chance(prng, 3) ? prng_below(prng, 40000) : prng_below(prng, 3000);
    int letter = prng_below(prng, 26);

    switch (prng_below(prng, 10)) {
    case 0:
        run(b, "DROP TABLE IF EXISTS %s.t%d", b->schema, table);
        break;
    case 1:
        run(b, "DELETE FROM %s.t%d WHERE id%%5=%d", b->schema, table, prng_below(prng, 5));
        break;
    case 2:
        run(b, "DELETE FROM %s.t%d WHERE id=(SELECT id FROM %s.t%d LIMIT 1 OFFSET %d)", b->schema, table, b->schema,
            table, prng_below(prng, 10));
        break;
    case 3:
        run(b, "UPDATE %s.t%d SET b=" BLOB " WHERE id%%7=%d", b->schema, table, size, letter, prng_below(prng, 7));
        break;
    case 4:
        run(b, "PRAGMA %s.incremental_vacuum(%d)", b->schema, prng_below(prng, 20));
        break;
    default:
        run(b,
            "CREATE TABLE IF NOT EXISTS %s.t%d(id INTEGER PRIMARY KEY, b);"
            "CREATE INDEX IF NOT EXISTS %s.i%d ON t%d(b);"
            "INSERT INTO %s.t%d(b) VALUES(" BLOB ")",
            b->schema, table, b->schema, table, table, b->schema, table, size, letter);
    }
}

static void one_transaction(struct both *b)
{
    struct prng *prng = &b->prng;
    int depth = 0;

    if (prng_chance(prng, 3)) {
        change(b);
        return;
    }
    run(b, "BEGIN");
    for (int i = 1 + prng_below(prng, 8); i > 0; i--) {
        int what = prng_below(prng, 8);

        if (what == 0 && depth < 3) {
            run(b, "SAVEPOINT s%d", depth++);
        } else if (what <= 2 && depth > 0) {
            int to = prng_below(prng, depth);

            run(b, "ROLLBACK TO s%d", to);
            depth = to + 1;
            compare(b);
        } else {
            change(b);
        }
    }
    run(b, prng_chance(prng, 2) ? "ROLLBACK" : "COMMIT");
}

static sqlite3 *open_one(const struct course *course, const char *path, bool stock)
{
    sqlite3 *db = stock && !course->attached ? db_stock(path) : course->attached ? db_stock(":memory:") : db_open(path);

    if (course->attached)
        db_exec(db, "ATTACH 'file:%s?vfs=%s' AS a", path, stock ? "unix" : db_vfs());
    db_exec(db, "PRAGMA %s.page_size=%d; PRAGMA %s.auto_vacuum=%s; PRAGMA %s.synchronous=OFF",
            course->attached ? "a" : "main", course->page_size, course->attached ? "a" : "main", course->auto_vacuum,
            course->attached ? "a" : "main");
    db_exec(db, "%s", course->settings);
    return db;
}

static void follow(struct course course)
{
    struct both b = {.prng = prng_new((uint64_t)course.page_size), .schema = course.attached ? "a" : "main"};
    char model_path[PATH_SIZE];

    path_new(b.path, "undo");
    b.db = open_one(&course, b.path, false);
    b.model = open_one(&course, path_new(model_path, "undo-model"), true);
    run(&b, "CREATE TABLE %s.t0(id INTEGER PRIMARY KEY, b)", b.schema);
    b.other = db_open(b.path);
    if (!course.exclusive)
        db_exec(b.other, "CREATE TABLE beside(b)");
    for (int i = scaled(80); i > 0; i--) {
        one_transaction(&b);
        compare(&b);
        if (prng_chance(&b.prng, 3))
            is_whole(&b);
        if (!course.exclusive && prng_chance(&b.prng, 6)) /* then the free pages are shared out */
            db_exec(b.other, "INSERT INTO beside VALUES(zeroblob(%d)); DELETE FROM beside WHERE rowid%%3=0",
                    prng_below(&b.prng, 20000));
        if (prng_chance(&b.prng, 20)) {
            db_close(b.db);
            b.db = open_one(&course, b.path, false);
        }
    }
    is_whole(&b);
    db_close(b.other);
    db_close(b.db);
    oracle_check(b.path);
    db_close(b.model);
}

/* Two rollbacks after a table was dropped: the second one finds pages in the cache that were freed without being written. */
static void pages_freed_and_used_again(void **state)
{
    char path[PATH_SIZE];
    sqlite3 *db = db_open(path_new(path, "again"));

    (void)state;
    db_exec(db, "PRAGMA auto_vacuum=incremental; CREATE TABLE t(id INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b);"
                "CREATE TABLE x(a, b); CREATE INDEX xi ON x(a);"
                "INSERT INTO x VALUES(1, printf('%%.*c', 5000, 'x')); DROP TABLE x");
    db_exec(db, "BEGIN; INSERT INTO t(b) VALUES(printf('%%.*c', 28288, 'y')); ROLLBACK");
    db_exec(db,
            "BEGIN; CREATE TABLE x(a, b); CREATE INDEX xi ON x(a); INSERT INTO x VALUES(1, printf('%%.*c', 5000, 'z'));"
            "INSERT INTO t(b) VALUES(printf('%%.*c', 23137, 'z')); ROLLBACK");
    db_exec(db, "INSERT INTO t(b) VALUES(zeroblob(490)), (zeroblob(20000)), (zeroblob(3000)), (zeroblob(30000))");
    db_check_text(db, "PRAGMA integrity_check", "ok");
    db_close(db);
    oracle_check(path);
}

#define SMALL "PRAGMA cache_size=5;"

static void with_free_lists(void **state)
{
    (void)state;
    follow((struct course){"none", SMALL "PRAGMA secure_delete=off", 512, false, false});
    follow((struct course){"none", "PRAGMA secure_delete=on", 1024, false, false});
    follow((struct course){"none", SMALL "PRAGMA secure_delete=fast", 4096, false, false});
}

static void with_auto_vacuum(void **state)
{
    (void)state;
    follow((struct course){"full", SMALL "PRAGMA secure_delete=off", 1024, false, false});
    follow((struct course){"full", "PRAGMA secure_delete=on", 4096, false, false});
}

static void with_incremental_vacuum(void **state)
{
    (void)state;
    follow((struct course){"incremental", "PRAGMA secure_delete=off", 1024, false, false});
    follow((struct course){"incremental", SMALL "PRAGMA secure_delete=on", 512, false, false});
    follow((struct course){"incremental", "PRAGMA secure_delete=on", 4096, false, false});
}

static void with_a_lock_that_stays(void **state)
{
    static const char EXCLUSIVE[] = "PRAGMA cache_size=5; PRAGMA locking_mode=exclusive";

    (void)state;
    support_needs_throng(); /* the other connection could not even read */
    follow((struct course){"none", EXCLUSIVE, 1024, false, true});
    follow((struct course){"none",
                           "PRAGMA journal_mode=persist; PRAGMA a.locking_mode=exclusive; PRAGMA a.cache_size=5", 4096,
                           true, true});
    follow((struct course){"none", "PRAGMA journal_mode=memory; PRAGMA a.locking_mode=exclusive; PRAGMA a.cache_size=5",
                           1024, true, true});
    follow((struct course){"incremental", EXCLUSIVE, 4096, false, true});
}

/* A connection to a database of stock SQLite hands on its journal mode to those that it attaches: none of them is ours. */
static void with_every_journal_mode(void **state)
{
    (void)state;
    follow((struct course){"none", "PRAGMA a.cache_size=5; PRAGMA journal_mode=persist", 1024, true, false});
    follow((struct course){"incremental", "PRAGMA a.cache_size=5; PRAGMA journal_mode=truncate", 1024, true, false});
    follow((struct course){"incremental", "PRAGMA a.cache_size=5; PRAGMA journal_mode=memory", 4096, true, false});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_freed_and_used_again), cmocka_unit_test(with_free_lists),
        cmocka_unit_test(with_auto_vacuum),           cmocka_unit_test(with_incremental_vacuum),
        cmocka_unit_test(with_a_lock_that_stays),     cmocka_unit_test(with_every_journal_mode),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
