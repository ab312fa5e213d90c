"""Property: what applications do at open works; files that others left behind are taken over whole; nobody else gets in
while Throng has the database, and Throng does not get in while somebody else is inside.

SPDX-License-Identifier: MIT
"""
from unittest import skip
import ctypes
import os
import shutil
import signal
import sqlite3
import subprocess
import textwrap

import support
from support import BUSY, EXTENSION, FILL, Case, dump, rows, stock, throng, value


class Open(Case):
    def create(self, path=None):
        one = self.open(path)
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute(FILL, {"low": 1, "high": 300, "size": 400})
        return one


class Pragmas(Open):
    def test_journal_modes(self):
        one = self.create()
        one.execute("PRAGMA cache_size=10")
        before = dump(one)
        for mode in ("delete", "truncate", "persist", "memory", "wal", "off"):
            with self.subTest(journal_mode=mode):
                self.assertIsInstance(value(one, f"PRAGMA journal_mode={mode}"), str)
                for change in ("UPDATE t SET b = 'small' WHERE a = 1", "UPDATE t SET b = b || zeroblob(2000)"):
                    one.execute("BEGIN")
                    one.execute(change)
                    one.execute("ROLLBACK")
                    self.assertEqual(dump(one), before)
                with self.fails(sqlite3.SQLITE_CONSTRAINT):
                    one.execute("UPDATE t SET b = 'part', a = CASE a WHEN 290 THEN 1 ELSE a END")
                self.assertEqual(dump(one), before)
                two = self.open()
                two.execute("UPDATE t SET b = ? WHERE a = 2", (mode,))
                before = dump(one)
                two.close()
        self.assertEqual(self.final(), before)
        self.assertEqual(support.header(self.path, 18, 2), b"\1\1")

    def test_what_applications_set(self):
        one = self.create()
        for level in ("OFF", "NORMAL", "FULL", "EXTRA"):
            one.execute(f"PRAGMA synchronous={level}")
            one.execute("INSERT INTO t(b) VALUES(?)", (level,))
            one.execute("BEGIN")
            one.execute("DELETE FROM t WHERE a < 100")
            one.execute("ROLLBACK")
        self.assertEqual(value(one, "PRAGMA synchronous"), 3)
        self.assertEqual(value(one, "PRAGMA busy_timeout=1234"), 1234)
        for name, setting in (("temp_store", 2), ("foreign_keys", 1), ("cache_size", -4000), ("secure_delete", 1),
                              ("recursive_triggers", 1), ("user_version", 77), ("application_id", 99)):
            rows(one, f"PRAGMA {name}={setting}")
            self.assertEqual(value(one, f"PRAGMA {name}"), setting)
        two = self.open()
        self.assertEqual(value(two, "PRAGMA user_version"), 77)
        two.execute("DELETE FROM t WHERE a % 2")
        rows(one, "PRAGMA optimize")
        rows(one, "PRAGMA wal_checkpoint(TRUNCATE)")
        rows(one, "PRAGMA wal_autocheckpoint=100")
        one.execute("ANALYZE")
        self.at_rest()
        self.assertEqual(value(self.stock(), "PRAGMA application_id"), 99)
    def test_exclusive_locking_mode(self):
        one, two = self.create(), self.open(timeout=0)
        self.assertEqual(value(one, "PRAGMA locking_mode=EXCLUSIVE"), "exclusive")
        for number in range(5):
            one.execute("INSERT INTO t(b) VALUES(randomblob(9000))")
            one.execute("BEGIN")
            one.execute("DELETE FROM t WHERE a % 2")
            one.execute("ROLLBACK")
        with self.fails(BUSY):
            two.execute("DELETE FROM t WHERE a = 1")
        self.assertEqual(value(one, "PRAGMA locking_mode=NORMAL"), "normal")
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 305)
        two.execute("DELETE FROM t WHERE a = 1")
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 304)
        one.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        one.execute("INSERT INTO t(b) VALUES('last')")
        self.at_rest()

    def test_exclusive_locking_mode_inside_a_transaction(self):
        one, two = self.create(), self.open()
        one.execute("BEGIN")
        one.execute("INSERT INTO t(b) VALUES(1)")
        with self.fails(BUSY):
            one.execute("PRAGMA locking_mode=EXCLUSIVE")
        one.execute("COMMIT")
        two.execute("INSERT INTO t(b) VALUES(2)")
        self.assertEqual(value(one, "SELECT count(*) FROM t WHERE b IN (1, 2)"), 2)
        self.at_rest()

    def test_exclusive_locking_mode_from_the_start(self):
        one = self.open()
        one.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute(FILL, {"low": 1, "high": 300, "size": 400})
        one.execute("VACUUM")
        self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
        self.at_rest()


class Modes(Open):
    def test_read_only(self):
        expected = dump(self.create())
        for beside in (False, True):
            writer = self.open() if beside else None
            reader = self.open(mode="ro")
            self.assertEqual(dump(reader), expected)
            with self.fails(sqlite3.SQLITE_READONLY):
                reader.execute("DELETE FROM t")
            if beside:
                writer.execute("DELETE FROM t WHERE a > 200")
                self.assertEqual(value(reader, "SELECT count(*) FROM t"), 200)
            else:
                self.close()
        self.at_rest()

    def test_immutable(self):
        expected = dump(self.create())
        self.close()
        one = self.open(immutable=1, mode="ro")
        self.assertEqual(dump(one), expected)
        with self.fails(sqlite3.SQLITE_READONLY):
            one.execute("DELETE FROM t")
        self.at_rest()

    def test_missing_files(self):
        for mode in ("ro", "rw"):
            with self.fails(sqlite3.SQLITE_CANTOPEN):
                value(self.open(mode=mode), "SELECT * FROM sqlite_schema")
            self.assertEqual(os.listdir(self.folder), [])
        with self.fails(sqlite3.SQLITE_CANTOPEN):
            value(self.open(self.at("no/such/folder.db")), "SELECT * FROM sqlite_schema")
        self.open(mode="rwc").execute("CREATE TABLE t(a)")
        self.at_rest()

    def test_no_file_for_memory_and_temporary_databases(self):
        for name in (":memory:", ""):
            one = sqlite3.connect(f"file:{name}?vfs=throng", uri=True, isolation_level=None)
            self.connections.append(one)
            one.execute("CREATE TABLE t(a, b)")
            one.execute("INSERT INTO t VALUES(1, zeroblob(3000000))")
            self.assertEqual(value(one, "PRAGMA integrity_check"), "ok")

    def test_open_flags(self):
        self.create()
        self.close()
        library = ctypes.CDLL("libsqlite3.so.0")
        for flags in (0x1, 0x2, 0x6, 0x6 | 0x8000, 0x6 | 0x10000, 0x6 | 0x20000, 0x2 | 0x40000, 0x6 | 0x1000000):
            database, message = ctypes.c_void_p(), None
            sql = b"SELECT count(*) FROM t; " + (b"" if flags & 1 else b"INSERT INTO t(b) VALUES(1);")
            self.assertEqual(library.sqlite3_open_v2(os.fsencode(self.path), ctypes.byref(database), flags, b"throng"), 0)
            self.assertEqual(library.sqlite3_exec(database, sql, None, None, message), 0, hex(flags))
            self.assertEqual(library.sqlite3_close(database), 0)
        self.at_rest()
        self.assertEqual(value(self.stock(), "SELECT count(*) FROM t"), 307)

    def test_one_state_by_any_path(self):
        one = self.create()
        os.symlink(self.path, self.at("symbolic.db"))
        os.symlink("symbolic.db", self.at("twice.db"))
        os.link(self.path, self.at("hard.db"))
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        for number, path in enumerate(("test.db", "./test.db", self.at("../" + os.path.basename(self.folder) + "/test.db"),
                                       "symbolic.db", "twice.db", "hard.db")):
            other = self.open(path)
            other.execute("INSERT INTO t(a, b) VALUES(?, ?)", (1000 + 10 * number, path))
            self.assertEqual(value(one, "SELECT b FROM t WHERE a = ?", (1000 + 10 * number,)), path)
            one.execute("INSERT INTO t(b) VALUES(zeroblob(20000))")
            self.assertEqual(rows(other, "PRAGMA integrity_check"), [("ok",)])
        one.close()
        self.at_rest()
        for name in ("symbolic.db", "hard.db"):
            self.assertFalse(os.path.lexists(self.at(name + "-journal")))

    def test_shell(self):
        done = subprocess.run(
            ["sqlite3", "-bail"],
            input=f".load {EXTENSION[:-3]}\n.open file:{self.path}?vfs=throng\n"
            "CREATE TABLE t(a); INSERT INTO t VALUES(42); SELECT a FROM t;\nPRAGMA integrity_check;\n.quit\n",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "42\nok\n", ""))
        self.at_rest()


class Others(Open):
    def test_left_in_wal_mode(self):
        self.child_ok("""
            c = stock(sys.argv[1])
            c.execute("PRAGMA journal_mode=WAL").fetchall()
            c.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
            c.execute(FILL, {"low": 1, "high": 300, "size": 400})
            os._exit(0)
        """, self.path)
        self.assertGreater(os.path.getsize(self.path + "-wal"), 0)
        one = self.open()
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 300)
        one.execute("DELETE FROM t WHERE a > 100")
        self.open().execute("INSERT INTO t(b) VALUES(randomblob(10000))")
        self.close()
        self.assertEqual(support.header(self.path, 18, 2), b"\2\2")
        self.assertFalse(os.path.exists(self.path + "-journal"))
        plain = self.stock()
        self.assertEqual(value(plain, "PRAGMA journal_mode"), "wal")
        self.assertEqual(value(plain, "SELECT count(*) FROM t"), 101)
        self.at_rest()

    def test_wal_database_of_a_killed_process(self):
        plain = self.stock()
        plain.execute("PRAGMA journal_mode=WAL").fetchall()
        plain.execute("CREATE TABLE t(a)")
        plain.close()
        self.child_ok("""
            c = throng(sys.argv[1])
            c.executemany("INSERT INTO t VALUES(?)", [(n,) for n in range(50)])
            os._exit(0)
        """, self.path)
        self.assertEqual(value(self.open(), "SELECT count(*) FROM t"), 50)
        self.close()
        self.assertEqual(support.header(self.path, 18, 2), b"\2\2")
        self.at_rest()

    def test_hot_journal(self):
        path = self.at("source.db")
        plain = self.stock(path)
        plain.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        plain.execute(FILL, {"low": 1, "high": 1000, "size": 400})
        expected = dump(plain)
        plain.execute("PRAGMA cache_size=5")
        plain.execute("BEGIN")
        plain.execute("UPDATE t SET b = 'half'")
        plain.execute("INSERT INTO t(b) VALUES(zeroblob(300000))")
        shutil.copy(path, self.path)
        shutil.copy(path + "-journal", self.path + "-journal")
        for name, place, damage in (("size", 28, b"\0\1\0\0"), ("magic", 0, bytes(16))):
            torn = self.at(name)  # the process died when it had written page 1 and no other
            shutil.copy(path, torn)
            shutil.copy(path + "-journal", torn + "-journal")
            with open(torn, "r+b") as file:
                file.seek(place)
                file.write(damage)
            with self.subTest(name):
                self.assertEqual(dump(self.open(torn)), expected)
        plain.execute("ROLLBACK")
        self.assertGreater(os.path.getsize(self.path + "-journal"), 10000)
        one = self.open()
        self.assertEqual(dump(one), expected)
        one.execute("DELETE FROM t WHERE a > 500")
        expected = dump(one)
        self.assertEqual(self.final(), expected)

    def test_stock_is_refused(self):
        one = self.create()
        script = """
            try:
                c = stock(sys.argv[1])
                c.execute(sys.argv[2]).fetchall()
            except sqlite3.Error as error:
                print("refused", error.sqlite_errorname)
            else:
                print("let in")
        """
        for sql in ("SELECT count(*) FROM t", "INSERT INTO t(b) VALUES(1)", "PRAGMA journal_mode=WAL", "VACUUM"):
            self.assertIn("refused", self.child_ok(script, self.path, sql))
            with self.assertRaises(sqlite3.Error):
                stock(self.path).execute(sql).fetchall()
        one.execute("INSERT INTO t(b) VALUES('still')")
        self.at_rest()

    def test_a_stock_writer_is_inside(self):
        self.create()
        self.close()
        plain = self.stock()
        plain.execute("BEGIN IMMEDIATE")
        plain.execute("DELETE FROM t WHERE a = 1")
        with self.assertRaisesRegex(sqlite3.OperationalError, "database is locked"):
            value(self.open(timeout=0), "SELECT count(*) FROM t")
        self.assertIn("database is locked", self.child_ok("""
            try:
                value(throng(sys.argv[1], timeout=0), "SELECT count(*) FROM t")
            except sqlite3.OperationalError as error:
                print(error)
        """, self.path))
        plain.execute("COMMIT")
        plain.close()
        self.assertEqual(value(self.open(), "SELECT count(*) FROM t"), 299)
        self.at_rest()

    def test_a_second_process_is_refused(self):
        one = self.create()
        done = self.child("""
            value(throng(sys.argv[1], timeout=0), "SELECT count(*) FROM t")
        """, self.path, log=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("database is locked", done.stderr)
        self.assertRegex(done.stderr, rf"\b{os.getpid()}\b")
        one.execute("INSERT INTO t(b) VALUES('still')")
        one.close()
        self.close()
        self.assertEqual(self.child_ok("print(value(throng(sys.argv[1]), 'SELECT count(*) FROM t'))", self.path), "301\n")
        self.at_rest()


class Locks(Open):
    """Whatever Throng does with a file, a connection of stock SQLite in the same process keeps its locks on it."""

    def reader_beside(self, events):
        """Stock SQLite reads in a child, in which `events` happen; meanwhile nobody can write. Returns the child's output."""
        child = subprocess.Popen(
            [support.sys.executable, "-c", f"import sys; sys.path.insert(0, {support.HERE!r})\n" + textwrap.dedent("""
                from support import *
                path = sys.argv[1]
                def files():
                    links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
                    return sum(os.path.realpath(link) == os.path.realpath(path) for link in links)
                def fails(**options):
                    try:
                        value(throng(path, timeout=0, **options), "SELECT count(*) FROM t")
                    except sqlite3.OperationalError as error:
                        print(error)
                    else:
                        print("opened")
                reader = stock(path, vfs="unix")
                reader.execute("BEGIN")
                assert value(reader, "SELECT count(*) FROM t") == 300
            """) + textwrap.dedent(events) + textwrap.dedent("""
                print("ready", flush=True)
                sys.stdin.read()
                reader.execute("ROLLBACK")
                reader.close()
                one = throng(path)
                assert value(one, "SELECT count(*) FROM t") == 300
                one.close()
                print("left", files())
            """), self.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = []
        for line in child.stdout:
            if line == "ready\n":
                break
            said.append(line.strip())
        os.chmod(self.path, 0o644)
        with self.fails(BUSY):
            stock(self.path).execute("DELETE FROM t")
        said += child.communicate("")[0].split("\n")
        self.assertEqual(child.returncode, 0)
        self.at_rest()
        return [line for line in said if line]

    def test_a_read_only_file(self):
        self.create()
        self.close()
        os.chmod(self.folder, 0o755)
        os.chmod(self.path, 0o444)
        said = self.reader_beside("""
            if os.geteuid() == 0:
                os.setgroups([]), os.setgid(65534), os.setuid(65534)
            for n in range(3):
                one = throng(path, mode="ro")
                assert value(one, "SELECT count(*) FROM t") == 300
                one.close()
                print(files())
        """)
        self.assertEqual(said[:3], ["2", "2", "2"], "descriptors pile up")

    def test_openings_that_fail(self):
        self.create()
        self.close()
        said = self.reader_beside("""
            fails()
            fails(heap_limit="many")
            fails(filesystem="none")
            os.mkdir(path + "-journal")
            fails()
            os.rmdir(path + "-journal")
            print(files())
        """)
        self.assertEqual(said, ["database is locked", "unable to open database file", "unable to open database file",
                                "database is locked", "2", "left 0"])

    def test_no_descriptor_is_left(self):
        self.create()
        self.close()
        self.child_ok("""
            def files():
                return len(os.listdir("/proc/self/fd"))
            before = files()
            for n in range(50):
                one = throng(f"{sys.argv[1]}{n}")
                one.execute("CREATE TABLE t(a)")
                one.close()
            assert files() == before, (files(), before)
        """, self.at("many"))


class Ends(Open):
    def test_exit_without_close(self):
        for end in ("os._exit(0)", f"os.kill(os.getpid(), {int(signal.SIGKILL)})"):
            with self.subTest(end=end):
                path = self.at(end[3:8] + ".db")
                script = f"""
                    c, d = throng(sys.argv[1]), throng(sys.argv[1])
                    c.execute("PRAGMA cache_size=10")
                    c.execute("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)")
                    for n in range(200):
                        (c, d)[n % 2].execute("INSERT INTO t(b) VALUES(randomblob(?))", (n * 30,))
                        (d, c)[n % 2].execute("DELETE FROM t WHERE a = ?", (n - 150,))
                    c.execute("BEGIN")
                    c.execute("UPDATE t SET b = 'never committed'")
                    {end}
                """
                for count in (151, 302):
                    self.child(script, path)
                    self.assertTrue(os.path.isdir(path + "-journal"))
                    with self.assertRaises(sqlite3.Error):
                        stock(path).execute("SELECT * FROM t").fetchall()
                    if count == 151:
                        continue  # the second process recovers what the first one left
                    one = self.open(path)
                    self.assertEqual(value(one, "SELECT count(*) FROM t WHERE b = 'never committed'"), 0)
                    self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
                    self.assertGreater(value(one, "SELECT count(*) FROM t"), 200)
                self.at_rest(path)

    def test_everything_acknowledged_is_found(self):
        for _ in range(3):
            child = subprocess.Popen(
                [support.sys.executable, "-c", f"""
import sys; sys.path.insert(0, {support.HERE!r})
from support import *
c = throng({self.path!r})
c.execute("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)")
first = value(c, "SELECT count(*) FROM t")
for n in range(first + 1, first + 100000):
    c.execute("INSERT INTO t VALUES(?, zeroblob(?))", (n, n % 50 * 100))
    print(n, flush=True)
"""], stdout=subprocess.PIPE, text=True)
            last = 0
            for line in child.stdout:
                last = int(line)
                if last % 700 == 0:
                    break
            child.kill()
            last = max([last] + [int(n) for n in child.stdout.read().split("\n")[:-1]])
            child.stdout.close()
            child.wait()
            one = self.open()
            self.assertIn(value(one, "SELECT max(a) FROM t"), (last, last + 1))
            self.assertEqual(value(one, "SELECT max(a) - count(*) FROM t"), 0)
            self.at_rest()

    def test_fork(self):
        one = self.create()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                one.execute("INSERT INTO t(b) VALUES('child')")
            except sqlite3.Error:
                try:
                    value(one, "SELECT count(*) FROM t")
                except sqlite3.Error:
                    status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "the child could use its parent's connection")
        one.execute("INSERT INTO t(b) VALUES('parent')")
        self.open().execute("DELETE FROM t WHERE a < 10")
        # A child that closes what it inherited takes nothing away from the parent.
        pid = os.fork()
        if pid == 0:
            one.close()
            os._exit(0)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        self.assertTrue(os.path.isdir(self.path + "-journal"))
        one.execute("INSERT INTO t(b) VALUES('parent')")
        self.assertEqual(value(one, "SELECT count(*) FROM t WHERE b = 'child'"), 0)
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 293)
        self.at_rest()


if __name__ == "__main__":
    support.main()
