"""Property: threads of one process write at the same time, lose nothing, and are never told of a conflict for a statement
outside BEGIN.

SPDX-License-Identifier: MIT
"""
import random
import threading
import time

import support
from support import BUSY, BUSY_SNAPSHOT, FILL, Case, rows, throng, value


class Threads(Case):
    def run_threads(self, work, count):
        """work(number, connection) in `count` threads at once; the first exception of any is raised here."""
        errors, barrier = [], threading.Barrier(count)

        def body(number):
            try:
                connection = throng(self.path, timeout=20)
                try:
                    barrier.wait(20)
                    work(number, connection)
                finally:
                    connection.close()
            except BaseException as error:  # handed to the caller
                errors.append(error)

        threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            self.assertFalse(thread.is_alive(), "a thread hangs")
        if errors:
            raise errors[0]

    def test_autocommit_increments(self):
        one = self.open()
        one.execute("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
        one.execute("INSERT INTO n VALUES(1, 0)")

        def work(_number, connection):
            for _ in range(3000):
                connection.execute("UPDATE n SET v = v + 1 WHERE id = 1")

        self.run_threads(work, 2)
        self.assertEqual(value(one, "SELECT v FROM n"), 6000)
        self.at_rest()

    def test_autocommit_statements_that_allocate_and_free(self):
        one = self.open()
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
        one.execute("INSERT INTO n VALUES(1, 0)")

        def work(number, connection):
            chance = random.Random(number)
            for step in range(250):
                connection.execute("INSERT INTO t(b) VALUES(zeroblob(?))", (chance.randrange(40000),))
                connection.execute("DELETE FROM t WHERE a = (SELECT min(a) FROM t WHERE a % 3 = ?)", (number,))
                connection.execute("UPDATE n SET v = v + 1")
                if step % 50 == 49:
                    assert value(connection, "PRAGMA integrity_check") == "ok"

        self.run_threads(work, 3)
        self.assertEqual(value(one, "SELECT v FROM n"), 750)
        self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
        self.at_rest()

    def test_returning(self):
        one = self.open()
        one.execute("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
        one.execute("INSERT INTO n VALUES(1, 0)")
        seen = [[], []]

        def work(number, connection):
            for _ in range(500):
                seen[number].extend(rows(connection, "UPDATE n SET v = v + 1 RETURNING v"))

        self.run_threads(work, 2)
        self.assertEqual(sorted(v for (v,) in seen[0] + seen[1]), list(range(1, 1001)))
        self.at_rest()

    def test_retried_transactions(self):
        one = self.open()
        one.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, v, pad)")
        one.execute("BEGIN")
        one.executemany("INSERT INTO account VALUES(?, 100, zeroblob(500))", [(n,) for n in range(40)])
        one.execute("COMMIT")

        def transfer(connection, chance, begin):
            while True:
                try:
                    connection.execute(begin)
                    a, b = chance.sample(range(40), 2)
                    left = value(connection, "SELECT v FROM account WHERE id = ?", (a,))
                    connection.execute("UPDATE account SET v = ? WHERE id = ?", (left - 1, a))
                    connection.execute("UPDATE account SET v = v + 1 WHERE id = ?", (b,))
                    connection.execute("COMMIT")
                    return
                except support.sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != BUSY_SNAPSHOT or begin != "BEGIN":
                        raise
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")

        def work(number, connection):
            chance = random.Random(number)
            for step in range(300):
                if number == 3:
                    assert value(connection, "SELECT sum(v) FROM account") == 4000
                else:
                    transfer(connection, chance, "BEGIN IMMEDIATE" if number == 2 and step % 3 == 0 else "BEGIN")

        self.run_threads(work, 4)
        self.assertEqual(value(one, "SELECT sum(v) FROM account"), 4000)
        self.at_rest()

    def test_opening_and_closing(self):
        self.open().execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        self.close()

        def work(number, connection):
            for step in range(60):
                other = throng(self.path, timeout=20)
                other.execute("INSERT INTO t(b) VALUES(?)", (f"{number}-{step}" * 100,))
                other.close()
                if step == 30:
                    connection.close()  # from here on the last close may come at any time

        self.run_threads(work, 3)
        self.assertEqual(value(self.open(), "SELECT count(*) FROM t"), 180)
        self.at_rest()

    def test_interrupt(self):
        one = self.open(threads=True)
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute(FILL, {"low": 1, "high": 100, "size": 50})
        timer = threading.Timer(0.3, one.interrupt)
        timer.start()
        started = time.monotonic()
        with self.fails(support.sqlite3.SQLITE_INTERRUPT):
            one.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1000000000) "
                        "INSERT INTO t(b) SELECT i FROM n")
        self.assertLess(time.monotonic() - started, 20)
        timer.join()
        self.assertEqual(value(self.open(), "SELECT count(*) FROM t"), 100)
        one.execute("INSERT INTO t(b) VALUES('after')")
        self.at_rest()

    def test_schema_changes_beside_statements(self):
        one = self.open()
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")

        def work(number, connection):
            for step in range(60):
                if number == 0:
                    connection.execute(f"CREATE TABLE x{step} AS SELECT * FROM t")
                    connection.execute(f"CREATE INDEX i{step} ON t(b)")
                    connection.execute(f"DROP TABLE x{step}")
                    connection.execute(f"DROP INDEX i{step}")
                else:
                    connection.execute("INSERT INTO t(b) VALUES(?)", ("b" * step * 20,))
                    assert value(connection, "SELECT count(*) FROM t") > 0

        self.run_threads(work, 3)
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 120)
        self.at_rest()

    def test_busy_timeout_counts_for_who_has_read_and_wants_to_write(self):
        alone, two, hasty = self.open(threads=True), self.open(timeout=20), self.open(timeout=0)
        alone.execute("CREATE TABLE t(a)")
        alone.execute("BEGIN EXCLUSIVE")
        for reader in (two, hasty):
            reader.execute("BEGIN")
            self.assertEqual(value(reader, "SELECT count(*) FROM t"), 0)
        with self.fails(BUSY):
            hasty.execute("INSERT INTO t VALUES(1)")
        hasty.execute("ROLLBACK")
        timer = threading.Timer(0.3, alone.execute, ("ROLLBACK",))
        timer.start()
        two.execute("INSERT INTO t VALUES(2)")
        two.execute("COMMIT")
        timer.join()
        self.assertEqual(rows(alone, "SELECT a FROM t"), [(2,)])
        self.at_rest()


if __name__ == "__main__":
    support.main()
