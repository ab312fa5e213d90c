"""Property: what bounds log and heap does so, says so, and loses nothing: PRAGMA wal_checkpoint, checkpointer=thread,
heap_limit; and a file that needs its log is not taken for a whole one.

SPDX-License-Identifier: MIT
"""
import os
import shutil
import sqlite3
import time
import unittest

import support
from support import Case, dump, rows, stock, value


def stat(connection, counter):
    return value(connection, "SELECT value FROM throng_stats WHERE counter = ?", (counter,))


class Checkpoint(Case):
    def create(self, size=400, count=1000, **options):
        one = self.open(**options)
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                    "SELECT i, randomblob(?) FROM n", (count, size))
        return one

    def test_pragma(self):
        one, two = self.create(), self.open()
        for mode in ("", "(PASSIVE)", "(FULL)", "(RESTART)", "=truncate"):
            with self.subTest(mode=mode):
                one.execute("UPDATE t SET b = randomblob(400)")
                pages = stat(one, "checkpoint_pages")
                self.assertEqual(rows(one, "PRAGMA wal_checkpoint" + mode), [(0, -1, -1)])
                self.assertGreater(stat(one, "checkpoint_pages"), pages + 100)
        two.execute("BEGIN")
        before = dump(two)
        one.execute("UPDATE t SET b = randomblob(400)")
        pages = stat(one, "checkpoint_pages")
        self.assertEqual(rows(one, "PRAGMA wal_checkpoint"), [(0, -1, -1)])  # what it can: nothing
        self.assertEqual(stat(one, "checkpoint_pages"), pages)
        self.assertEqual(rows(one, "PRAGMA wal_checkpoint(TRUNCATE)"), [(0, -1, -1)])  # past the reader
        self.assertGreater(stat(one, "checkpoint_pages"), pages + 100)
        two.execute("PRAGMA cache_size=5")
        self.assertEqual(dump(two), before)
        two.execute("COMMIT")
        with self.fails(sqlite3.SQLITE_LOCKED):
            one.execute("BEGIN")
            one.execute("DELETE FROM t WHERE a = 1")
            one.execute("PRAGMA wal_checkpoint")
        one.execute("ROLLBACK")
        self.at_rest()

    def test_of_attached_databases(self):
        paths = [self.path, self.at("two.db"), self.at("three.db")]
        one = self.open()
        for n, path in enumerate(paths[1:]):
            one.execute(f"ATTACH ? AS x{n}", (support.uri(path, vfs="throng"),))
        one.execute("ATTACH ':memory:' AS m")
        one.execute("ATTACH ? AS plain", (support.uri(self.at("stock.db"), vfs="unix"),))
        schemas = ["main", "x0", "x1"]
        for schema in schemas + ["plain"]:
            one.execute(f"CREATE TABLE {schema}.t(a INTEGER PRIMARY KEY, b)")

        def sizes():
            return [os.path.getsize(path) for path in paths]

        def moved(sql):
            for schema in schemas:
                one.execute(f"INSERT INTO {schema}.t(b) VALUES(zeroblob(200000))")
            before = sizes()
            self.assertEqual(rows(one, sql), [(0, -1, -1)])
            return [now > then for then, now in zip(before, sizes())]

        self.assertEqual(moved("PRAGMA wal_checkpoint"), [True, True, True])
        self.assertEqual(moved("PRAGMA wal_checkpoint(TRUNCATE)"), [True, True, True])
        self.assertEqual(moved("PRAGMA x0.wal_checkpoint"), [False, True, False])
        self.assertEqual(moved("PRAGMA x1.wal_checkpoint(FULL)"), [False, False, True])
        self.assertEqual(moved("PRAGMA wal_checkpoint(RESTART)"), [True, True, True])
        self.assertEqual(moved("PRAGMA wal_checkpoint(RESTART)"), [True, True, True])  # a cached statement
        one.execute("BEGIN")
        self.assertEqual(value(one, "SELECT count(*) FROM x0.t"), 6)
        with self.fails(sqlite3.SQLITE_LOCKED):
            one.execute("PRAGMA wal_checkpoint")
        with self.fails(sqlite3.SQLITE_LOCKED):
            one.execute("PRAGMA x0.wal_checkpoint")
        self.assertEqual(rows(one, "PRAGMA x1.wal_checkpoint"), [(0, -1, -1)])
        one.execute("COMMIT")
        self.at_rest(*paths)

    def test_while_it_keeps_its_lock(self):
        one = self.create()
        one.execute("PRAGMA locking_mode=EXCLUSIVE")
        for mode in ("PASSIVE", "TRUNCATE"):
            with self.subTest(mode=mode):
                one.execute("UPDATE t SET b = randomblob(400)")
                pages = stat(one, "checkpoint_pages")
                self.assertEqual(rows(one, f"PRAGMA wal_checkpoint({mode})"), [(0, -1, -1)])
                self.assertGreater(stat(one, "checkpoint_pages"), pages + 100)
        self.at_rest()

    def test_mapped_pages_hold_it_back(self):
        self.create().close()
        one, two = self.open(), self.open()
        two.execute("PRAGMA mmap_size=100000000")
        cursor = two.execute("SELECT a, length(b) FROM t")
        self.assertEqual(cursor.fetchone(), (1, 400))
        one.execute("UPDATE t SET b = zeroblob(300)")
        with self.fails(sqlite3.SQLITE_BUSY):
            one.execute("PRAGMA wal_checkpoint(FULL)")
        self.assertEqual({length for _, length in cursor.fetchall()}, {400})
        self.assertEqual(rows(one, "PRAGMA wal_checkpoint(FULL)"), [(0, -1, -1)])
        self.at_rest()

    def test_thread(self):
        one = self.create(checkpointer="thread", checkpoint_bytes=100000)
        deadline = time.monotonic() + 20
        while stat(one, "checkpoint_pages") < 100:
            self.assertLess(time.monotonic(), deadline)
            one.execute("UPDATE t SET b = randomblob(400)")
            time.sleep(0.01)
        time.sleep(1)  # it goes to sleep, and wakes up again
        pages = stat(one, "checkpoint_pages")
        while stat(one, "checkpoint_pages") == pages:
            self.assertLess(time.monotonic(), deadline)
            one.execute("UPDATE t SET b = randomblob(400)")
            time.sleep(0.01)
        self.at_rest()

    def test_heap_limit(self):
        done = self.child("""
            one = throng(sys.argv[1], heap_limit="4M")
            one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
            one.execute("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
                        "SELECT i, randomblob(1000) FROM n")
            def rewrite(times):
                for n in range(times):
                    for k in range(0, 2000, 100):
                        one.execute("UPDATE t SET b = randomblob(1000) WHERE a BETWEEN ? AND ?", (k + 1, k + 100))
            rewrite(3)                                   # without a reader there is always room
            two = throng(sys.argv[1])
            two.execute("BEGIN")
            total = value(two, "SELECT sum(length(b)) FROM t")
            before = [row[0] for row in two.execute("SELECT b FROM t")]
            try:
                rewrite(3)
                print("no limit")
            except sqlite3.OperationalError as error:
                print(error.sqlite_errorname)
            print("in transaction", one.in_transaction, value(one, "SELECT count(*) FROM t"))
            two.execute("PRAGMA cache_size=5")
            print("same", before == [row[0] for row in two.execute("SELECT b FROM t")])
            two.execute("COMMIT")
            try:
                one.execute("UPDATE t SET b = randomblob(1000) WHERE a = 1")
            except sqlite3.OperationalError as error:
                print(error.sqlite_errorname)            # the first one after it may still find no room
            rewrite(3)
            print("went on")
        """, self.path, log=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("SQLITE_FULL\nin transaction False 2000\nsame True", done.stdout)
        self.assertIn("went on", done.stdout)
        self.assertIn("the oldest snapshot has been open for", done.stderr)
        self.assertIn("by connection number 1 of process", done.stderr)
        self.at_rest()

    def test_wrong_options(self):
        self.create().close()
        for name, text in (("heap_limit", "lots"), ("heap_limit", "1000"), ("heap_limit", "-5M"), ("heap_limit", "5X"),
                           ("heap_limit", "99999999999999999999"), ("checkpoint_bytes", "0"), ("checkpoint_bytes", ""),
                           ("checkpointer", "somebody"), ("filesystem", "mine")):
            with self.subTest(option=name, text=text):
                done = self.child("""
                    try:
                        throng(sys.argv[1], **{sys.argv[2]: sys.argv[3]})
                    except sqlite3.OperationalError as error:
                        print(error.sqlite_errorname)
                """, self.path, name, text, log=True)
                self.assertEqual(done.stdout, "SQLITE_CANTOPEN\n")
                self.assertIn(f"{name}={text}: ", done.stderr)
        self.at_rest()


class Size(Case):
    """A checkpoint makes the file as short as the database, as soon as nobody can look at what is cut off."""

    def pages(self):
        return os.path.getsize(self.path) // 4096

    def create(self, auto_vacuum=0, **options):
        one = self.open(**options)
        one.execute("PRAGMA page_size=4096")
        one.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        self.fill(one, 1000)
        return one

    def fill(self, one, count):
        one.execute("INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                    "SELECT randomblob(2000) FROM n", (count,))

    def shrink(self, one):
        one.execute("DELETE FROM t WHERE a % 50 <> 0")
        one.execute("VACUUM")

    def test_after_vacuum(self):
        one = self.create()
        one.execute("PRAGMA wal_checkpoint")
        self.assertGreater(self.pages(), 500)
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            with self.subTest(mode=mode):
                self.shrink(one)
                one.execute(f"PRAGMA wal_checkpoint({mode})")
                self.assertLess(self.pages(), 100)
                self.assertEqual(self.pages(), value(one, "PRAGMA page_count"))
                self.fill(one, 1000)
                one.execute("PRAGMA wal_checkpoint")
                self.assertGreater(self.pages(), 500)
        before = dump(one)
        self.assertEqual(self.final(), before)

    def test_auto_vacuum(self):
        one = self.create(auto_vacuum=1)
        one.execute("PRAGMA wal_checkpoint")
        one.execute("DELETE FROM t WHERE a % 50 <> 0")
        one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assertLess(self.pages(), 100)
        self.assertEqual(self.pages(), value(one, "PRAGMA page_count"))
        self.at_rest()

    def test_without_being_asked(self):
        one = self.create(checkpoint_bytes=100000)
        self.shrink(one)
        deadline = time.monotonic() + 60
        while self.pages() > 100:
            self.assertLess(time.monotonic(), deadline)
            one.execute("UPDATE t SET b = randomblob(2000)")
        self.at_rest()

    def test_a_reader_goes_on(self):
        for mmap in (0, 100000000):
            with self.subTest(mmap=mmap):
                one, two = self.create(), self.open()
                one.execute("PRAGMA wal_checkpoint")
                two.execute(f"PRAGMA mmap_size={mmap}")
                two.execute("PRAGMA cache_size=5")
                two.execute("BEGIN")
                before = dump(two)
                self.shrink(one)
                one.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # past the reader, whose pages stay in the file
                self.assertGreater(self.pages(), 500)
                self.assertEqual(dump(two), before)
                two.execute("COMMIT")
                cursor = two.execute("SELECT a, b FROM t")      # sees the short one, and points into the file
                cursor.fetchone()
                one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cursor.fetchall()
                one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self.assertEqual(self.pages(), value(one, "PRAGMA page_count"))
                self.at_rest()
                os.unlink(self.path)

    def test_killed_after_it(self):
        self.create().close()
        self.child_ok("""
            one = throng(sys.argv[1])
            one.execute("UPDATE t SET b = zeroblob(1900)")
            one.execute("DELETE FROM t WHERE a % 50 <> 0")
            one.execute("VACUUM")
            one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert os.path.getsize(sys.argv[1]) < 400000
            one.execute("INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
                        "SELECT zeroblob(2000) FROM n")
            one.execute("UPDATE t SET b = zeroblob(1800) WHERE a % 3 = 0")
            os._exit(0)
        """, self.path)
        one = self.open()
        self.assertEqual(rows(one, "SELECT count(*), min(length(b)), max(length(b)) FROM t"), [(320, 1800, 2000)])
        self.at_rest()

    def test_many_commits_after_it(self):
        """A checkpoint for an old snapshot writes all pages of that, though every commit that is known is shorter."""
        one, two = self.create(), self.open()
        two.execute("BEGIN")
        before, pages = dump(two), value(one, "PRAGMA page_count")
        self.shrink(one)
        for n in range(1100):
            one.execute("UPDATE t SET b = ? WHERE a = 50", (n,))
        one.execute("PRAGMA wal_checkpoint")
        self.assertGreaterEqual(self.pages(), pages)
        self.assertEqual(dump(two), before)
        two.execute("COMMIT")
        one.execute("PRAGMA wal_checkpoint")
        self.assertEqual(self.pages(), value(one, "PRAGMA page_count"))
        self.at_rest()


class Mark(Case):
    """A process died, and then the directory was lost."""

    def leave(self):
        self.child_ok("""
            c = throng(sys.argv[1])
            c.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
            c.close()
            c = throng(sys.argv[1])
            for n in range(10):
                c.execute("INSERT INTO t(b) VALUES(zeroblob(5000))")
            os._exit(0)
        """, self.path)

    def test_without_the_directory(self):
        self.leave()
        away = self.at("away")
        os.rename(self.path + "-journal", away)
        with open(self.path, "rb") as file:
            before = file.read()
        with self.fails(sqlite3.SQLITE_NOTADB):
            stock(self.path).execute("SELECT * FROM t")
        done = self.child("throng(sys.argv[1])", self.path, log=True)
        self.assertIn("recover --without-log", done.stderr)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertFalse(os.path.exists(self.path + "-journal"))
        os.rename(away, self.path + "-journal")
        one = self.open()
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 10)
        self.at_rest()

    def test_a_copy_of_the_file_alone(self):
        one = self.open()
        one.execute("CREATE TABLE t(a)")
        one.close()
        one = self.open()
        one.execute("INSERT INTO t VALUES(1)")
        copy = self.at("copy.db")
        shutil.copy(self.path, copy)
        with self.fails(sqlite3.SQLITE_CANTOPEN):
            support.throng(copy)
        self.at_rest()

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to become somebody else")
    def test_where_nobody_can_write(self):
        self.leave()
        os.chmod(self.path, 0o444)
        done = self.child("os.setuid(65534); throng(sys.argv[1])", self.path, log=True)
        self.assertNotEqual(done.returncode, 0)
        one = self.open()
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 10)
        self.at_rest()


if __name__ == "__main__":
    support.main()
