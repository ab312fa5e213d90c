/* PRAGMA data_version changes when another connection has committed, and not by the connection's own commits, whatever
 * they do to the free pages: prepared or not.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

static char path[PATH_SIZE];

static int64_t version_of(sqlite3 *db, sqlite3_stmt *prepared)
{
    int64_t version = db_int(db, "PRAGMA data_version");

    CHECK_EQUAL(sqlite3_step(prepared), SQLITE_ROW);
    CHECK_EQUAL(sqlite3_column_int64(prepared, 0), version);
    (void)sqlite3_reset(prepared);
    return version;
}

/* One transaction of the connection: a few pages or many, used or freed. */
static void change(sqlite3 *db, struct prng *prng)
{
    /* BEGIN IMMEDIATE sets pages aside for the others, at the end of the file: that may show. */
    static const char *const BEGIN[] = {"", "BEGIN;", "BEGIN; SELECT count(*) FROM t;"};
    const char *begin = BEGIN[prng_below(prng, 3)];
    const char *end = begin[0] == '\0' ? "" : prng_chance(prng, 6) ? "; ROLLBACK" : "; COMMIT";
    int id = prng_below(prng, 40);

    if (prng_chance(prng, 15))
        db_exec(db, "%sDELETE FROM t%s", begin, end);
    else if (prng_chance(prng, 12))
        db_exec(db, "%sINSERT INTO t(b) SELECT zeroblob(3000) FROM t LIMIT 500%s", begin, end);
    else if (prng_chance(prng, 3))
        db_exec(db, "%sDELETE FROM t WHERE id=%d%s", begin, id, end);
    else
        db_exec(db, "%sREPLACE INTO t VALUES(%d, zeroblob(%d))%s", begin, id, prng_below(prng, 30000), end);
}

static void own_commits_do_not_count(void **state)
{
    struct prng prng = prng_new(1);
    sqlite3 *db = db_open(path_new(path, "own")), *other;
    sqlite3_stmt *prepared;
    int64_t version;

    (void)state;
    db_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    other = db_open(path);
    prepared = db_prepare(db, "PRAGMA data_version");
    (void)db_int(other, "SELECT count(*) FROM t");
    for (int round = 0; round < 4; round++) {
        version = version_of(db, prepared);
        for (int i = 0; i < scaled(200); i++) {
            change(db, &prng);
            CHECK_EQUAL(version_of(db, prepared), version);
            if (prng_chance(&prng, 10))
                (void)db_int(other, "SELECT count(*) FROM t");
        }
        /* As the other one has never written beside it there is one list for both, whoever comes next. */
        db_close(other);
        other = db_open(path);
    }
    stmt_end(prepared);
    db_close(other);
    db_close(db);
    oracle_check(path);
}

static void each_commit_of_another_counts(void **state)
{
    struct prng prng = prng_new(2);
    sqlite3 *db = db_open(path_new(path, "others")), *other;
    sqlite3_stmt *prepared;
    int64_t version;
    int changed = 0;

    (void)state;
    db_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, b); CREATE TABLE count(n); INSERT INTO count VALUES(0)");
    other = db_open(path);
    prepared = db_prepare(db, "PRAGMA data_version");
    version = version_of(db, prepared);
    for (int i = 0; i < scaled(300); i++) {
        change(other, &prng);
        db_exec(other, "UPDATE count SET n=n+1"); /* the change may have been a ROLLBACK, or of nothing */
        CHECK(version_of(db, prepared) != version);
        if (prng_chance(&prng, 2))
            change(db, &prng);
        version = version_of(db, prepared);
    }
    /* Both have pages of their own now. One of them falls silent: the other is shown another list once, when its own pages
     * are used up, and perhaps once more for a transaction that is protected and holds all that it is shown. */
    for (int i = 0; i < scaled(300); i++) {
        change(db, &prng);
        changed += version_of(db, prepared) != version;
        version = version_of(db, prepared);
    }
    CHECK(changed <= 2);
    stmt_end(prepared);
    db_close(other);
    db_close(db);
    oracle_check(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_commits_do_not_count),
        cmocka_unit_test(each_commit_of_another_counts),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
