/* Money is neither made nor lost, and nobody sees it on its way: while threads move it between accounts in three tables
 * and keep books, every snapshot of accounts and books sums up, at every page size, with mapped pages and with a cache
 * of a few pages.
 *
 * SPDX-License-Identifier: MIT */
#include "support.h"

#include <stdatomic.h>
#include <stdio.h>

#define TABLES 3
#define ACCOUNTS 60 /* in each table */
#define BALANCE 1000
#define TOTAL (TABLES * ACCOUNTS * BALANCE)
#define WRITERS 3
#define READERS 2

static char path[PATH_SIZE];
static const char *settings;
static atomic_bool stop;
static atomic_int sums_seen;

struct client {
    int number;
    int rounds;
    struct prng prng;
    int from_table;
    int from;
    int to_table;
    int to;
    int amount;
};

static sqlite3 *open_client(void)
{
    sqlite3 *db = db_open(path);

    db_exec(db, "%s", settings);
    return db;
}

static int transfer(sqlite3 *db, void *arg)
{
    struct client *c = arg;
    int64_t balance;
    int rc = db_try_int(db, &balance, "SELECT balance FROM account_%d WHERE id=%d", c->from_table, c->from);

    if (rc != SQLITE_OK || balance < c->amount)
        return rc;
    /* from what was read, so a stale read makes money */
    rc = db_try(db, "UPDATE account_%d SET balance=%lld WHERE id=%d", c->from_table, balance - c->amount, c->from);
    if (rc == SQLITE_OK)
        rc = db_try(db, "UPDATE account_%d SET balance=balance+%d WHERE id=%d", c->to_table, c->amount, c->to);
    if (rc == SQLITE_OK && c->amount % 4 == 0) /* the bank takes a quarter of some, and notes it */
        rc = db_try(db, "UPDATE account_%d SET balance=balance-%d WHERE id=%d", c->to_table, c->amount / 4, c->to);
    if (rc == SQLITE_OK && c->amount % 4 == 0)
        rc = db_try(db, "INSERT INTO fee(client, amount, note) VALUES(%d, %d, hex(randomblob(%d)))", c->number,
                    c->amount / 4, c->amount);
    if (rc == SQLITE_OK && c->amount % 16 == 0) /* and pays it back at times, all of the client's fees at once */
        rc = db_try(db,
                    "UPDATE account_0 SET balance=balance+(SELECT total(amount) FROM fee WHERE client=%d) WHERE id=%d; "
                    "DELETE FROM fee WHERE client=%d",
                    c->number, c->to, c->number);
    return rc;
}

static void writer_thread(void *arg)
{
    static const char *const begins[] = {"BEGIN", "BEGIN", "BEGIN", "BEGIN", "BEGIN IMMEDIATE"};
    struct client *c = arg;
    sqlite3 *db = open_client();

    for (int i = 0; i < c->rounds && !check_any_failed(); i++) {
        c->from_table = prng_below(&c->prng, TABLES);
        c->to_table = prng_below(&c->prng, TABLES);
        c->from = prng_below(&c->prng, ACCOUNTS);
        c->to = prng_below(&c->prng, ACCOUNTS);
        c->amount = 1 + prng_below(&c->prng, BALANCE / 2);
        if (c->from != c->to || c->from_table != c->to_table)
            (void)db_transaction(db, begins[prng_below(&c->prng, 5)], transfer, c);
    }
    db_close(db);
}

static void reader_thread(void *arg)
{
    static const char sum[] = "SELECT (SELECT total(balance) FROM account_0)+(SELECT total(balance) FROM account_1)+"
                              "(SELECT total(balance) FROM account_2)+(SELECT total(amount) FROM fee)";
    sqlite3 *db = open_client();

    (void)arg;
    while (!atomic_load(&stop) && !check_any_failed()) {
        int64_t fees;

        db_exec(db, "BEGIN");
        CHECK_EQUAL(db_int(db, "%s", sum), TOTAL);
        fees = db_int(db, "SELECT total(amount) FROM fee INDEXED BY fee_client WHERE client>=0");
        CHECK_EQUAL(db_int(db, "%s", sum), TOTAL);
        CHECK_EQUAL(db_int(db, "SELECT total(amount) FROM fee NOT INDEXED"), fees);
        db_exec(db, "COMMIT");
        CHECK_EQUAL(db_int(db, "%s", sum), TOTAL); /* one statement is one snapshot */
        (void)atomic_fetch_add(&sums_seen, 1);
    }
    db_close(db);
}

static void bank(int page_size, const char *with)
{
    struct client clients[WRITERS];
    sqlite3 *db = db_open(path_new(path, "bank"));

    settings = with;
    db_exec(db,
            "PRAGMA page_size=%d; CREATE TABLE fee(id INTEGER PRIMARY KEY, client INT, amount INT, note TEXT);"
            "CREATE INDEX fee_client ON fee(client, amount)",
            page_size);
    for (int i = 0; i < TABLES; i++)
        db_exec(db,
                "CREATE TABLE account_%d(id INTEGER PRIMARY KEY, balance INT, pad TEXT); "
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<%d) "
                "INSERT INTO account_%d SELECT i, %d, hex(zeroblob(100)) FROM n",
                i, ACCOUNTS - 1, i, BALANCE);
    CHECK_EQUAL(db_int(db, "PRAGMA page_size"), page_size);
    atomic_store(&stop, false);
    atomic_store(&sums_seen, 0);
    for (int i = 0; i < READERS; i++)
        thread_start(reader_thread, NULL);
    for (int i = 0; i < WRITERS; i++) {
        clients[i] = (struct client){.number = i, .rounds = scaled(1500), .prng = prng_new((uint64_t)(page_size + i))};
        thread_start(writer_thread, &clients[i]);
    }
    threads_join_but(READERS);
    atomic_store(&stop, true);
    threads_join();
    CHECK(atomic_load(&sums_seen) > 0);
    db_close(db);
    oracle_check(path);
}

static void sums_hold_at_page_size_512(void **state)
{
    (void)state;
    bank(512, "");
}

static void sums_hold_at_page_size_4096(void **state)
{
    (void)state;
    bank(4096, "");
}

static void sums_hold_at_page_size_65536(void **state)
{
    (void)state;
    bank(65536, "");
}

static void sums_hold_with_mapped_pages(void **state)
{
    (void)state;
    bank(4096, "PRAGMA mmap_size=1000000000");
}

static void sums_hold_with_a_cache_of_five_pages(void **state)
{
    (void)state;
    bank(1024, "PRAGMA cache_size=5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_hold_at_page_size_512),           cmocka_unit_test(sums_hold_at_page_size_4096),
        cmocka_unit_test(sums_hold_at_page_size_65536),         cmocka_unit_test(sums_hold_with_mapped_pages),
        cmocka_unit_test(sums_hold_with_a_cache_of_five_pages),
    };

    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
