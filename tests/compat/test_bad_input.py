"""Property: what is not a database, not ours, or not enough room is an error with the right code; nothing foreign is
deleted, nothing committed is lost, and the next transaction works.

SPDX-License-Identifier: MIT
"""
import os
import sqlite3
import unittest

import support
from support import FILL, Case, dump, rows, stock, value


class Bad(Case):
    def create(self, path=None, high=300):
        one = self.open(path)
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute(FILL, {"low": 1, "high": high, "size": 400})
        return one


class Files(Bad):
    def test_not_a_database(self):
        for content in (b"hello", b"x" * 100000, b"SQLite format 3\0" + b"\xff" * 5000, b"SQLite format 3\0" + bytes(84)):
            with self.subTest(content=content[:20]):
                with open(self.path, "wb") as file:
                    file.write(content)
                with self.fails(sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    value(self.open(), "SELECT count(*) FROM sqlite_schema")
                self.close()
                with open(self.path, "rb") as file:
                    self.assertEqual(file.read(), content)
                self.assertFalse(os.path.lexists(self.path + "-journal"))

    def test_directory(self):
        os.mkdir(self.path)
        with self.fails(sqlite3.SQLITE_CANTOPEN):
            value(self.open(), "SELECT count(*) FROM sqlite_schema")
        self.assertEqual(os.listdir(self.folder), ["test.db"])

    def test_empty_file(self):
        open(self.path, "wb").close()
        one = self.open()
        self.assertEqual(rows(one, "SELECT * FROM sqlite_schema"), [])
        one.close()
        self.close()
        self.assertEqual(os.path.getsize(self.path), 0)
        self.assertFalse(os.path.lexists(self.path + "-journal"))
        self.create()
        self.at_rest()

    def test_truncated(self):
        self.create()
        self.close()
        size = os.path.getsize(self.path)
        for length in (50, 100, 512, 4095, 4096, 5000, size // 2, size - 1):
            with self.subTest(length=length):
                path = self.at(f"{length}.db")
                with open(self.path, "rb") as source, open(path, "wb") as target:
                    target.write(source.read(length))
                plain = stock(path)
                try:  # stock SQLite takes a last page that is cut short, and reads zeros for what is missing
                    if rows(plain, "PRAGMA integrity_check") == [("ok",)]:
                        continue
                except sqlite3.DatabaseError:
                    pass
                finally:
                    plain.close()
                with self.fails(sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR):
                    one = self.open(path)
                    one.execute("INSERT INTO t(b) VALUES(zeroblob(100000))")
                    if rows(one, "PRAGMA integrity_check") != [("ok",)]:
                        raise make_corrupt()
                    one.execute("SELECT sum(length(b)) FROM t").fetchall()
                self.close()

    def test_damaged_pages(self):
        self.create(high=2000).execute("DELETE FROM t WHERE a % 4 = 0")
        self.close()
        with open(self.path, "rb") as file:
            image = file.read()
        for number in range(40):
            damaged = bytearray(image)
            place = (number * 7919) % len(image) if number >= 20 else 18 + number * 4
            damaged[place : place + 4] = b"\xff\xff\xff\xff"
            path = self.at(f"damaged{number}.db")
            with open(path, "wb") as file:
                file.write(damaged)
            try:
                one = self.open(path)
                one.execute("UPDATE t SET b = b || 'x' WHERE a % 3 = 0")
                one.execute("INSERT INTO t(b) VALUES(zeroblob(200000))")
                rows(one, "PRAGMA integrity_check")
            except sqlite3.DatabaseError:
                pass
            self.close()

    def test_foreign_free_list(self):
        one = self.create(high=3000)
        one.execute("DELETE FROM t WHERE a > 100")
        self.close()
        for value_of in (b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\0\0\0\0"):
            with open(self.path, "rb") as source:
                image = bytearray(source.read())
            image[36:40] = value_of
            path = self.at(value_of.hex() + ".db")
            with open(path, "wb") as target:
                target.write(image)
            one = self.open(path)
            try:
                one.execute("INSERT INTO t(b) VALUES(zeroblob(500000))")
                one.execute("DELETE FROM t WHERE a < 50")
            except sqlite3.DatabaseError as error:
                self.assertEqual(error.sqlite_errorcode & 0xFF, sqlite3.SQLITE_CORRUPT)
            self.close()


def make_corrupt():
    error = sqlite3.DatabaseError("integrity_check")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


class Journals(Bad):
    def test_foreign_file(self):
        expected = dump(self.create())
        self.close()
        for content in (b"my notes", b"x" * 70000):
            with open(self.path + "-journal", "wb") as file:
                file.write(content)
            try:
                value(self.open(), "SELECT count(*) FROM t")
            except sqlite3.Error:
                pass
            self.close()
            with open(self.path + "-journal", "rb") as file:
                self.assertEqual(file.read(), content)
            os.unlink(self.path + "-journal")
            self.assertEqual(self.final(), expected)

    def test_foreign_file_is_refused(self):
        self.create()
        self.close()
        with open(self.path + "-journal", "wb") as file:
            file.write(b"my notes")
        script = "value(throng(sys.argv[1], timeout=0), 'SELECT count(*) FROM t')"
        done = self.child(script, self.path, log=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(self.path + "-journal", done.stderr)

    def test_foreign_directory(self):
        expected = dump(self.create())
        self.close()
        directory = self.path + "-journal"
        os.mkdir(directory)
        with open(os.path.join(directory, "letter.txt"), "w") as file:
            file.write("dear")
        done = self.child("value(throng(sys.argv[1], timeout=0), 'SELECT count(*) FROM t')", self.path, log=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(directory, done.stderr)
        with self.assertRaises(sqlite3.Error):
            value(self.open(), "SELECT count(*) FROM t")
        self.close()
        with open(os.path.join(directory, "letter.txt")) as file:
            self.assertEqual(file.read(), "dear")
        self.assertEqual(os.listdir(directory), ["letter.txt"])
        os.unlink(os.path.join(directory, "letter.txt"))
        os.rmdir(directory)
        self.assertEqual(self.final(), expected)

    def test_empty_directory(self):
        expected = dump(self.create())
        self.close()
        os.mkdir(self.path + "-journal")
        self.assertEqual(dump(self.open()), expected)
        self.assertEqual(self.final(), expected)

    def test_a_directory_without_its_database(self):
        self.create()
        self.close()
        self.child_ok("""
            c = throng(sys.argv[1])
            c.execute("INSERT INTO t(a, b) VALUES(1000000, 'committed')")
            os._exit(0)
        """, self.path)
        away = self.at("away.db")
        os.rename(self.path, away)
        before = sorted(os.listdir(self.path + "-journal"))
        with self.fails(sqlite3.SQLITE_CANTOPEN):
            self.open().execute("CREATE TABLE other(a)")
        self.assertFalse(os.path.exists(self.path))
        with open(self.path, "w"):
            pass
        with self.fails(sqlite3.SQLITE_CANTOPEN):
            self.open().execute("CREATE TABLE other(a)")
        self.assertEqual(os.path.getsize(self.path), 0)
        self.assertEqual(sorted(os.listdir(self.path + "-journal")), before)
        self.close()
        os.rename(away, self.path)
        self.assertEqual(value(self.open(), "SELECT b FROM t WHERE a = 1000000"), "committed")
        self.at_rest()

    def test_damaged_logs(self):
        self.create()
        self.close()
        self.child_ok("""
            c = throng(sys.argv[1])
            for n in range(20):
                c.execute("INSERT INTO t(b) VALUES(zeroblob(?))", (n * 1000,))
            os._exit(0)
        """, self.path)
        directory = self.path + "-journal"
        logs = [name for name in os.listdir(directory) if name.startswith("log-")]
        self.assertTrue(logs)
        for number, damage in enumerate((0, 5, 100, 2000, 10000, -1)):
            with self.subTest(damage=damage):
                path = self.at(f"damaged{number}.db")
                support.shutil.copy(self.path, path)
                support.shutil.copytree(directory, path + "-journal")
                log = os.path.join(path + "-journal", sorted(logs)[0])
                size = os.path.getsize(log)
                with open(log, "r+b") as file:
                    if damage < 0:
                        file.truncate(size // 2)
                    else:
                        file.seek(min(damage, size - 4))
                        file.write(b"\xa5\x5a\xa5\x5a")
                try:
                    one = self.open(path)
                    count = value(one, "SELECT count(*) FROM t")
                except sqlite3.DatabaseError:
                    self.close()
                    self.assertTrue(os.path.exists(log), "a damaged log was deleted")
                    continue
                self.assertIn(count, range(300, 321))
                self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
                self.at_rest(path)


class Limits(Bad):
    @unittest.skipUnless(os.geteuid() == 0, "needs root, to become somebody else")
    def test_read_only_directory(self):
        expected = len(dump(self.create())[1]["t"])
        self.close()
        os.chmod(self.path, 0o644)
        os.chmod(self.folder, 0o555)
        pid = os.fork()
        if pid == 0:
            status = 9
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                one = support.throng(self.path, timeout=0)
                status = 8
                if value(one, "SELECT count(*) FROM t") == expected:
                    status = 7
                    try:
                        one.execute("DELETE FROM t")
                    except sqlite3.OperationalError as error:
                        status = 0 if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY else 6
                one.close()
            except BaseException as error:
                print(repr(error), flush=True)
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        os.chmod(self.folder, 0o755)
        self.assertEqual(os.listdir(self.folder), ["test.db"])
        self.at_rest()

    def test_file_size_limit(self):
        self.create()
        self.close()
        for limit in (200_000, 1_000_000, 3_000_000, 20_000_000):
            with self.subTest(limit=limit):
                path = self.at(f"{limit}.db")
                support.shutil.copy(self.path, path)
                output = self.child_ok("""
                    import resource, signal
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    one = throng(sys.argv[1])
                    value(one, "SELECT count(*) FROM t")
                    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
                    message = None
                    for begin in (False, True):
                        try:
                            if begin: one.execute("BEGIN")
                            for n in range(60):
                                one.execute("INSERT INTO t(b) VALUES(randomblob(1000000))")
                            if begin: one.execute("COMMIT")
                        except sqlite3.OperationalError as error:
                            message = str(error)
                            if one.in_transaction: one.execute("ROLLBACK")
                    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                    one.execute("INSERT INTO t(b) VALUES('after')")
                    assert value(one, "PRAGMA integrity_check") == "ok"
                    assert value(one, "SELECT count(*) FROM t WHERE b = 'after'") == 1
                    one.close()
                    print(message)
                """, path, limit)
                self.assertEqual(output, "database or disk is full\n")
                self.at_rest(path)

    def test_open_under_a_file_size_limit(self):
        self.create()
        self.close()
        self.child_ok("""
            import resource, signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            try:
                value(throng(sys.argv[1]), "SELECT count(*) FROM t")
            except sqlite3.OperationalError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert value(throng(sys.argv[1]), "SELECT count(*) FROM t") == 300
        """, self.path)
        self.at_rest()

    def test_descriptor_limit(self):
        self.create()
        self.close()
        self.child_ok("""
            import resource
            used = len(os.listdir("/proc/self/fd"))
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            failed = done = 0
            for room in range(0, 14):
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, hard))
                opened = []
                try:
                    for _ in range(20):
                        opened.append(throng(sys.argv[1]))
                        opened[-1].execute("INSERT INTO t(b) VALUES(zeroblob(5000))")
                        done += 1
                except sqlite3.Error as error:
                    assert error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN, error.sqlite_errorname
                    failed += 1
                for connection in opened:
                    connection.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            assert failed > 0 and done > 0
            one = throng(sys.argv[1])
            assert value(one, "PRAGMA integrity_check") == "ok"
            assert value(one, "SELECT count(*) FROM t") == 300 + done
            one.execute("INSERT INTO t(b) VALUES(zeroblob(5000))")
            one.close()
        """, self.path)
        self.at_rest()

    WRITE_UNDER_A_LIMIT = """
        import resource
        CODES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        def write(one, count, size):
            "How many rows were committed, and the error, if any."
            done = 0
            try:
                for _ in range(count):
                    one.execute("INSERT INTO t(b) VALUES(randomblob(?))", (size,))
                    done += 1
            except MemoryError:
                return done, "SQLITE_NOMEM"
            except sqlite3.OperationalError as error:
                assert error.sqlite_errorcode & 0xFF in CODES, error.sqlite_errorname
                return done, error.sqlite_errorname
            return done, None
        def limit(what, amount=None):
            hard = resource.getrlimit(what)[1]
            resource.setrlimit(what, (hard if amount is None else amount, hard))
        def address_space():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0]) * 4096
    """

    def test_limits_while_open(self):
        """New segments of the log cannot be had for a time: what is committed stays, and it goes on afterwards."""
        for what in ("NOFILE", "AS"):
            with self.subTest(what=what):
                path = self.at(what)
                self.create(path)
                self.close()
                self.child_ok(self.WRITE_UNDER_A_LIMIT + """
        what = resource.RLIMIT_NOFILE if sys.argv[2] == "NOFILE" else resource.RLIMIT_AS
        one, two = throng(sys.argv[1]), throng(sys.argv[1])
        total = 300 + write(one, 20, 1000)[0]
        limit(what, 3 if what == resource.RLIMIT_NOFILE else address_space() + (12 << 20))
        done, error = write(one, 300, 1000000)
        assert error is not None and done > 0, (done, error)
        total += done
        assert value(two, "SELECT count(*) FROM t") == total
        limit(what)
        for connection in (two, one):
            done, error = write(connection, 30, 1000000)
            assert (done, error) == (30, None), (done, error)
            total += done
        assert value(two, "SELECT count(*) FROM t") == total
        assert value(one, "PRAGMA integrity_check") == "ok"
        one.close(), two.close()
                """, path, what)
                self.at_rest(path)

    def test_address_space_limit(self):
        """As under `ulimit -v`: it does with what there is, or says that it is not enough."""
        for room in (0, 8, 64, 160, 400, 1000, 4000, 20000):
            with self.subTest(room=room):
                path = self.at(str(room))
                self.create(path)
                self.close()
                output = self.child_ok(self.WRITE_UNDER_A_LIMIT + """
        value(throng(":memory:"), "SELECT 1")  # the extension is there
        limit(resource.RLIMIT_AS, address_space() + (int(sys.argv[2]) << 20))
        done, error, one = 0, None, None
        try:
            one = throng(sys.argv[1])
            one.execute("PRAGMA mmap_size=1000000000")
        except MemoryError:
            error = "SQLITE_NOMEM"
        except sqlite3.OperationalError as failure:
            assert failure.sqlite_errorcode & 0xFF in CODES, failure.sqlite_errorname
            error = failure.sqlite_errorname
        if error is None:
            done, error = write(one, 100, 1000000)
            one.execute("BEGIN")
            more, _ = write(one, 300, 1000000)
            try:
                one.execute("COMMIT")
                done += more
            except (sqlite3.OperationalError, MemoryError):
                if one.in_transaction:
                    one.execute("ROLLBACK")
            assert value(one, "SELECT count(*) FROM t") == 300 + done
        limit(resource.RLIMIT_AS)
        if one is not None:
            one.close()
        one = throng(sys.argv[1])
        assert value(one, "PRAGMA integrity_check") == "ok"
        assert value(one, "SELECT count(*) FROM t") == 300 + done
        print(done, error)
        one.execute("INSERT INTO t(b) VALUES('after')")
        one.close()
                """, path, room)
                done, error = output.split()
                if room == 0:
                    self.assertEqual((done, error), ("0", "SQLITE_NOMEM"))
                if room >= 400:
                    self.assertEqual(error, "None")
                    self.assertGreaterEqual(int(done), 100)
                self.at_rest(path)
                os.unlink(path)


if __name__ == "__main__":
    support.main()
