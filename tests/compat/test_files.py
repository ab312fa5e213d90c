"""Property: what turns the file over as a whole (VACUUM, backup, serialize, auto_vacuum, free lists) and what asks about
it is right at any time, beside other connections too.

SPDX-License-Identifier: MIT
"""
from unittest import skip
import os
import sqlite3

import support
from support import FILL, Case, dump, rows, stock, value


class Files(Case):
    def create(self, path=None, high=500, size=400, before=()):
        one = self.open(path)
        for sql in before:
            one.execute(sql)
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute("CREATE INDEX i ON t(b)")
        one.execute(FILL, {"low": 1, "high": high, "size": size})
        return one

    def check_copy(self, path, expected):
        copy = stock(path)
        try:
            self.assertEqual(value(copy, "PRAGMA integrity_check"), "ok")
            self.assertEqual(dump(copy), expected)
        finally:
            copy.close()


class Vacuum(Files):
    def test_vacuum_beside_another_connection(self):
        one, two = self.create(), self.open()
        two.execute("DELETE FROM t WHERE a % 2")
        for round_number in range(4):
            before = dump(two)
            (one, two)[round_number % 2].execute("VACUUM")
            for connection in (one, two):
                self.assertEqual(dump(connection), before)
                self.assertEqual(rows(connection, "PRAGMA integrity_check"), [("ok",)])
            for number in range(20):
                writer = (one, two)[number % 2]
                writer.execute("INSERT INTO t(b) VALUES(randomblob(?))", (number * 300,))
                (two, one)[number % 2].execute("DELETE FROM t WHERE a = (SELECT min(a) FROM t)")
            self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
        before = dump(two)
        self.assertEqual(self.final(), before)

    def test_vacuum_shrinks_the_file(self):
        one = self.create(high=5000)
        one.execute("DELETE FROM t WHERE a > 10")
        one.execute("VACUUM")
        self.assertLess(value(one, "PRAGMA page_count"), 50)
        self.at_rest()
        self.assertLess(os.path.getsize(self.path), 50 * 4096)

    def test_page_size_change(self):
        one = self.create()
        for size in (512, 65536, 1024, 8192, 4096, 32768):
            with self.subTest(page_size=size):
                before = dump(one)
                one.execute(f"PRAGMA page_size={size}")
                one.execute("VACUUM")
                self.assertEqual(value(one, "PRAGMA page_size"), size)
                self.assertEqual(dump(one), before)
                two = self.open()
                self.assertEqual(value(two, "PRAGMA page_size"), size)
                two.execute("INSERT INTO t(b) VALUES(randomblob(1000))")
                one.execute("INSERT INTO t(b) VALUES(randomblob(90000))")
                self.assertEqual(rows(two, "PRAGMA integrity_check"), [("ok",)])
                two.close()
        before = dump(one)
        self.assertEqual(self.final(), before)
        self.assertEqual(header(self.path), 32768)

    def test_page_size_change_at_close(self):
        one = self.create()
        before = dump(one)
        one.execute("PRAGMA page_size=1024")
        one.execute("VACUUM")
        self.assertEqual(self.final(), before)
        self.assertEqual(header(self.path), 1024)

    def test_auto_vacuum_both_ways(self):
        one = self.create()
        for mode in (1, 0, 2, 1, 2, 0):
            with self.subTest(auto_vacuum=mode):
                before = dump(one)
                one.execute(f"PRAGMA auto_vacuum={mode}")
                one.execute("VACUUM")
                two = self.open()
                for connection in (one, two):
                    self.assertEqual(value(connection, "PRAGMA auto_vacuum"), mode)
                    self.assertEqual(dump(connection), before)
                two.execute("DELETE FROM t WHERE a % 7 = ?", (mode,))
                one.execute("INSERT INTO t(b) VALUES(randomblob(50000))")
                self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
                two.close()
        before = dump(one)
        self.assertEqual(self.final(), before)

    def test_vacuum_into(self):
        one, two = self.create(), self.open()
        two.execute("DELETE FROM t WHERE a % 2")
        expected = dump(two)
        plain, other = self.at("plain.db"), self.at("other.db")
        one.execute("VACUUM INTO ?", (support.uri(plain, vfs="unix"),))
        two.execute("VACUUM INTO ?", (support.uri(other, vfs="throng"),))
        one.execute("INSERT INTO t(b) VALUES('later')")
        self.check_copy(plain, expected)
        self.check_copy(other, expected)
        self.at_rest(self.path, plain, other)

    def test_vacuum_from_stock(self):
        self.create().close()
        plain = self.stock()
        plain.execute("VACUUM INTO ?", (support.uri(self.at("into.db"), vfs="throng"),))
        expected = dump(plain)
        plain.close()
        self.assertEqual(self.final(self.at("into.db")), expected)

    def test_vacuum_inside_a_transaction_is_refused(self):
        one = self.create()
        one.execute("BEGIN")
        with self.fails(sqlite3.SQLITE_ERROR):
            one.execute("VACUUM")
        one.execute("ROLLBACK")
        self.at_rest()


def header(path):
    size = int.from_bytes(support.header(path, 16, 2), "big")
    return 65536 if size == 1 else size


class AutoVacuum(Files):
    def test_full(self):
        one = self.create(before=["PRAGMA auto_vacuum=FULL"])
        two = self.open()
        self.assertEqual(value(two, "PRAGMA auto_vacuum"), 1)
        for number in range(20):
            writer, other = (one, two)[number % 2], (two, one)[number % 2]
            writer.execute("DELETE FROM t WHERE a % 20 = ?", (number,))
            self.assertEqual(value(writer, "PRAGMA freelist_count"), 0)
            other.execute("INSERT INTO t(b) VALUES(randomblob(9000))")
            self.assertEqual(rows(other, "PRAGMA integrity_check"), [("ok",)])
        before = dump(one)
        self.assertEqual(self.final(), before)

    def test_incremental(self):
        one = self.create(before=["PRAGMA auto_vacuum=INCREMENTAL"])
        two = self.open()
        one.execute("DELETE FROM t WHERE a > 100")
        free, pages = value(two, "PRAGMA freelist_count"), value(two, "PRAGMA page_count")
        self.assertGreater(free, 40)
        two.executescript("PRAGMA incremental_vacuum(10)")  # which steps to the end; execute() frees one page
        self.assertEqual(value(one, "PRAGMA freelist_count"), free - 10)
        self.assertEqual(value(one, "PRAGMA page_count"), pages - 10)
        one.executescript("PRAGMA incremental_vacuum")
        self.assertEqual(value(two, "PRAGMA freelist_count"), 0)
        self.assertEqual(rows(two, "PRAGMA integrity_check"), [("ok",)])
        before = dump(one)
        self.assertEqual(self.final(), before)

    def test_transactions_of_two_connections(self):
        for mode in ("FULL", "INCREMENTAL"):
            path = self.at(mode + ".db")
            one = self.create(path, before=[f"PRAGMA auto_vacuum={mode}"])
            two = self.open(path, timeout=0)
            one.execute("BEGIN")
            one.execute("DELETE FROM t WHERE a < 100")
            with self.fails(sqlite3.SQLITE_BUSY):
                two.execute("DELETE FROM t WHERE a > 400")
            self.assertEqual(value(two, "SELECT count(*) FROM t"), 500)
            one.execute("ROLLBACK")
            two.execute("DELETE FROM t WHERE a > 400")
            self.assertEqual(value(one, "SELECT count(*) FROM t"), 400)
            before = dump(one)
            self.assertEqual(self.final(path), before)


class Copies(Files):
    def test_backup_from(self):
        one, two = self.create(), self.open()
        two.execute("DELETE FROM t WHERE a % 3 = 0")
        for number, source in enumerate((two, one, two)):
            source.execute("INSERT INTO t(b) VALUES(randomblob(20000))")
            source.execute("DELETE FROM t WHERE a = (SELECT min(a) FROM t)")
            expected = dump(source)
            target = self.at(f"copy{number}.db")
            plain = self.stock(target)
            source.backup(plain)
            plain.close()
            self.check_copy(target, expected)
        memory = self.stock(":memory:")
        one.backup(memory)
        self.assertEqual(dump(memory), dump(one))
        self.assertEqual(value(memory, "PRAGMA integrity_check"), "ok")
        self.at_rest(self.path, self.at("copy0.db"))

    def test_stepped_backup_beside_a_writer(self):
        one, two = self.create(), self.open()
        for writer in (two, one):
            target = self.at("copy.db")
            plain = self.stock(target)
            count = 0

            def step(_status, _left, _total, writer=writer):
                nonlocal count
                count += 1
                if count <= 15:
                    writer.execute("INSERT INTO t(b) VALUES(randomblob(?))", (count * 700,))
                    writer.execute("DELETE FROM t WHERE a = ?", (count * 3,))

            one.backup(plain, pages=5, progress=step, sleep=0.001)
            plain.close()
            self.assertGreater(count, 15)
            self.check_copy(target, dump(one))
        self.at_rest()

    def test_backup_to(self):
        source = self.stock(":memory:")
        source.execute("CREATE TABLE u(x)")
        source.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 500) "
                       "INSERT INTO u SELECT hex(randomblob(300)) FROM n")
        one, two = self.create(), self.open()
        expected = dump(source)
        source.backup(one)
        self.assertEqual(dump(two), expected)
        two.execute("INSERT INTO u VALUES('two')")
        self.assertEqual(value(one, "SELECT count(*) FROM u"), 501)
        self.assertEqual(rows(two, "PRAGMA integrity_check"), [("ok",)])
        fresh = self.open(self.at("fresh.db"))
        one.backup(fresh)
        self.assertEqual(dump(fresh), dump(two))
        source.execute("DELETE FROM u WHERE rowid > 10")
        source.execute("VACUUM")
        source.backup(one)
        self.assertEqual(value(two, "SELECT count(*) FROM u"), 10)
        self.at_rest(self.path, self.at("fresh.db"))

    def test_serialize(self):
        one, two = self.create(), self.open()
        for number, connection in enumerate((one, two, one)):
            connection.execute("DELETE FROM t WHERE a % 5 = ?", (number,))
            connection.execute("INSERT INTO t(b) VALUES(randomblob(3000))")
            image = connection.serialize()
            memory = self.stock(":memory:")
            memory.deserialize(image)
            self.assertEqual(value(memory, "PRAGMA integrity_check"), "ok")
            self.assertEqual(dump(memory), dump(two))
            target = self.at("image.db")
            with open(target, "wb") as file:
                file.write(image)
            self.check_copy(target, dump(one))
        self.at_rest()

    def test_blobs(self):
        one, two = self.create(high=10), self.open()
        one.execute("INSERT INTO t VALUES(100, zeroblob(300000))")
        one.execute("DROP INDEX i")
        one.execute("PRAGMA cache_size=10")
        with one.blobopen("t", "b", 100) as blob:
            for offset in range(0, 300000, 10000):
                blob.seek(offset)
                blob.write(b"%06d" % offset)
        with two.blobopen("t", "b", 100, readonly=True) as blob:
            self.assertEqual(len(blob), 300000)
            self.assertEqual(blob[290000:290006], b"290000")
            self.assertEqual(blob[5:10], b"0" + bytes(4))
            one.execute("UPDATE t SET b = 'x' WHERE a = 1")
            self.assertEqual(blob[10000:10006], b"010000")
        two.execute("BEGIN")
        with two.blobopen("t", "b", 100) as blob:
            blob[0:5] = b"gone!"
        two.execute("ROLLBACK")
        self.assertEqual(value(one, "SELECT CAST(substr(b, 1, 6) AS TEXT) FROM t WHERE a = 100"), "000000")
        blob = one.blobopen("t", "b", 100)  # it may be written through: nobody else changes what it reads
        two.execute("PRAGMA busy_timeout = 20")
        with self.fails(sqlite3.SQLITE_BUSY):
            two.execute("DELETE FROM t WHERE a = 100")
        blob[0:6] = b"000001"
        blob.close()
        two.execute("PRAGMA busy_timeout = 60000")
        blob = one.blobopen("t", "b", 100, readonly=True)
        two.execute("DELETE FROM t WHERE a = 100")
        self.assertEqual(blob.read(6), b"000001")  # a handle that only reads keeps its snapshot
        blob.close()
        two.execute("INSERT INTO t VALUES(100, zeroblob(300000))")
        blob = one.blobopen("t", "b", 100)
        one.execute("DELETE FROM t WHERE a = 100")
        with self.fails(sqlite3.SQLITE_ABORT):
            blob.read(10)
        blob.close()
        self.at_rest()


class Questions(Files):
    def test_data_version_is_exact(self):
        one, two, three = self.create(), self.open(), self.open()

        def seen():
            return [value(c, "PRAGMA data_version") for c in (one, two, three)]

        before = seen()
        self.assertEqual(seen(), before)
        for number in range(40):
            writer = number % 3
            connection = (one, two, three)[writer]
            sql = ["INSERT INTO t(b) VALUES(randomblob(3000))", "DELETE FROM t WHERE a = (SELECT min(a) FROM t)",
                   "UPDATE t SET b = 'v' || b WHERE a % 50 = 3", "CREATE TABLE IF NOT EXISTS q(x)",
                   "DROP TABLE IF EXISTS q"][number % 5]
            connection.execute("BEGIN")
            connection.execute("UPDATE t SET b = 'undone'")
            connection.execute("ROLLBACK")
            middle = seen()
            for other in range(3):
                if other != writer:
                    self.assertEqual(middle[other], before[other], "a rolled back transaction was seen")
            self.assertEqual(middle[writer], before[writer])
            connection.execute(sql)
            after = seen()
            self.assertEqual(after[writer], before[writer], "one's own commit was seen: " + sql)
            for other in range(3):
                if other != writer:
                    self.assertNotEqual(after[other], before[other], "a commit was not seen: " + sql)
            before = after
            self.assertEqual(seen(), before)
            for question in ("integrity_check", "freelist_count", "page_count"):
                rows(connection, "PRAGMA " + question)
            self.assertEqual(seen(), before, "a question was seen")
        self.at_rest()

    def test_questions_beside_writers(self):
        for format_number in (2, 1):
            path = self.at(f"format{format_number}.db")
            connections = [self.create(path), self.open(path), self.open(path)]
            rows(connections[0], f"PRAGMA freelist_format={format_number}")
            for number in range(45):
                writer = connections[number % 3]
                if number % 2:
                    writer.execute("DELETE FROM t WHERE a % 25 = ?", (number % 25,))
                else:
                    writer.execute("INSERT INTO t(b) VALUES(randomblob(?))", (number * 997 % 30000,))
                asker = connections[(number * 7 + 1) % 3]
                self.assertEqual(rows(asker, "PRAGMA integrity_check"), [("ok",)])
                self.assertEqual(rows(asker, "PRAGMA quick_check"), [("ok",)])
                free, pages = value(asker, "PRAGMA freelist_count"), value(asker, "PRAGMA page_count")
                image = asker.serialize()
                size = int.from_bytes(image[16:18], "big")
                self.assertEqual(len(image), pages * size)
                self.assertEqual(int.from_bytes(image[36:40], "big"), free)
                used = value(asker, "SELECT count(*) FROM dbstat") if number == 44 and has_dbstat(asker) else None
                if used is not None:
                    self.assertEqual(used + free, pages)
            self.at_rest(path)

    def test_questions_inside_a_transaction(self):
        one, two = self.create(), self.open()
        one.execute("BEGIN")
        one.execute("DELETE FROM t WHERE a % 2")
        self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
        self.assertGreater(value(one, "PRAGMA freelist_count"), 10)
        two.execute("INSERT INTO t(a, b) VALUES(100000, randomblob(9000))")
        self.assertEqual(rows(two, "PRAGMA integrity_check"), [("ok",)])
        self.assertEqual(rows(one, "PRAGMA quick_check"), [("ok",)])
        one.execute("ROLLBACK")
        self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
        self.at_rest()

    def test_another_list_of_the_same_length(self):
        for page_size in (512, 1024, 4096):
            for question in ("freelist_count", "integrity_check", "user_version"):
                with self.subTest(page_size=page_size, question=question):
                    path = self.at(f"list{page_size}{question}.db")
                    one = self.open(path)
                    one.execute(f"PRAGMA page_size={page_size}")
                    for name in ("t1", "t2", "t3"):
                        one.execute(f"CREATE TABLE {name}(a INTEGER PRIMARY KEY, b)")
                    one.close()
                    one = self.open(path)
                    one.execute("INSERT INTO t3 VALUES(50, zeroblob(?))", (page_size * 400,))
                    one.execute("UPDATE t1 SET b = 1 WHERE a = 77")
                    rows(one, "INSERT INTO t2 VALUES(24, zeroblob(?)) RETURNING a", (page_size * 120,))
                    rows(one, "PRAGMA " + question)
                    one.execute("INSERT INTO t1 VALUES(34, zeroblob(?))", (page_size * 40,))
                    rows(one, "PRAGMA " + question)
                    one.execute("DELETE FROM t3")
                    self.assertEqual(rows(one, "PRAGMA integrity_check"), [("ok",)])
                    one.execute("INSERT INTO t1 VALUES(35, zeroblob(?))", (page_size * 500,))
                    self.at_rest(path)

    def test_freed_pages_are_used_again(self):
        connections = [self.create(), self.open(), self.open()]
        for number in range(60):
            connection = connections[number % 3]
            connection.execute("INSERT INTO t(a, b) VALUES(1000000, zeroblob(200000))")
            connections[(number + 1) % 3].execute("DELETE FROM t WHERE a = 1000000")
        self.assertLess(value(connections[0], "PRAGMA page_count"), 1500)
        self.at_rest()

    def test_freelist_format(self):
        one, two = self.create(), self.open()
        self.assertEqual(int(value(one, "PRAGMA freelist_format")), 2)
        for number in range(12):
            wanted = 1 + number % 2
            setter = (one, two)[number // 2 % 2]
            rows(setter, f"PRAGMA freelist_format={wanted}")
            for connection in (one, two):
                self.assertEqual(int(value(connection, "PRAGMA freelist_format")), wanted)
                connection.execute("DELETE FROM t WHERE a % 30 = ?", (number,))
                connection.execute("INSERT INTO t(b) VALUES(randomblob(9000))")
                self.assertEqual(rows(connection, "PRAGMA integrity_check"), [("ok",)])
        before = dump(two)
        self.assertEqual(self.final(), before)

    def test_stats(self):
        one, two = self.create(), self.open()
        text = rows(one, "PRAGMA throng_stats")
        self.assertIn("commit", str(text))
        before = dict(rows(one, "SELECT * FROM throng_stats"))
        commits = [name for name in before if name.startswith("commit")]
        self.assertTrue(commits, before)
        for number in range(10):
            (one, two)[number % 2].execute("INSERT INTO t(b) VALUES(?)", (number,))
        after = dict(rows(two, "SELECT * FROM throng_stats"))
        self.assertEqual(sorted(before), sorted(after))
        self.assertTrue(any(after[name] - before[name] >= 10 for name in commits), (before, after))
        self.at_rest()

    def test_locks_are_counted(self):
        """Each commit takes commit_lock, in whatever connection."""
        one, two = self.create(), self.open()
        before = dict(rows(one, "SELECT * FROM throng_stats"))
        for number in range(10):
            (one, two)[number % 2].execute("INSERT INTO t(b) VALUES(?)", (number,))
        after = dict(rows(two, "SELECT * FROM throng_stats"))
        self.assertGreaterEqual(after["lock_commit_acquisitions"] - before["lock_commit_acquisitions"], 10)
        for lock in ("commit", "turn", "space", "slot", "heap", "checkpoint", "conflict", "gates"):
            for what in ("acquisitions", "contended", "wait_ns", "longest_ns"):
                self.assertGreaterEqual(after[f"lock_{lock}_{what}"], 0)
            self.assertLessEqual(after[f"lock_{lock}_longest_ns"], after[f"lock_{lock}_wait_ns"])
        self.at_rest()

    def test_conflicts_are_counted_by_page(self):
        """A page that makes transactions fail is counted, as often as it did, and it is the one of the table."""
        one, two = self.create(), self.open()
        one.execute("CREATE TABLE hot(a INTEGER PRIMARY KEY, b)")
        one.execute("INSERT INTO hot VALUES(1, 0)")
        self.assertEqual(rows(one, "SELECT * FROM throng_conflicts"), [])
        for number in range(5):
            two.execute("BEGIN")
            rows(two, "SELECT b FROM hot")
            one.execute("UPDATE hot SET b = b + 1")
            with self.assertRaises(sqlite3.OperationalError):
                two.execute("UPDATE hot SET b = b + 1")
                two.execute("COMMIT")
            if two.in_transaction:
                two.execute("ROLLBACK")
            (page, conflicts, error), = rows(two, "SELECT * FROM throng_conflicts")
            self.assertEqual((conflicts, error), (number + 1, 0))
        self.assertEqual(page, value(one, "SELECT rootpage FROM sqlite_schema WHERE name='hot'"))
        self.assertEqual(rows(one, "SELECT * FROM throng_conflicts('main')"), [(page, 5, 0)])
        self.assertEqual(rows(one, "SELECT * FROM throng_conflicts('temp')"), [])
        self.at_rest()

    def test_mmap_sizes(self):
        one, two = self.create(), self.open()
        expected = dump(one)
        for size in (0, 1 << 16, 1 << 30, 0, 1 << 40):
            rows(one, f"PRAGMA mmap_size={size}")
            self.assertEqual(dump(one), expected)
            two.execute("UPDATE t SET b = b || 'm' WHERE a % 9 = 1")
            one.execute("INSERT INTO t(b) VALUES(hex(randomblob(100000)))")
            expected = dump(two)
            self.assertEqual(dump(one), expected)
            # A cursor over mapped pages keeps its snapshot while another connection changes and frees them.
            cursor = one.execute("SELECT a FROM t NOT INDEXED WHERE a <= 500")
            self.assertEqual(cursor.fetchone(), (1,))
            two.execute("UPDATE t SET b = 'short' WHERE a <= 500")
            two.execute("INSERT INTO t(b) VALUES(hex(randomblob(300000)))")
            self.assertEqual(len(cursor.fetchall()), 499)
            expected = dump(two)
            self.assertEqual(dump(one), expected)
        self.assertEqual(self.final(), expected)


def has_dbstat(connection):
    return bool(rows(connection, "SELECT 1 FROM pragma_module_list WHERE name = 'dbstat'"))


if __name__ == "__main__":
    support.main()
