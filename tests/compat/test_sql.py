"""Property: SQL does through Throng what it does in stock SQLite, and leaves a whole, plain file behind.

SPDX-License-Identifier: MIT
"""
from unittest import skip
import os
import random
import sqlite3

import support
from support import BUSY_SNAPSHOT, FILL, PAGE_SIZES, Case, dump, rows, value


class PageSizes(Case):
    def test_every_page_size(self):
        for size in PAGE_SIZES:
            with self.subTest(page_size=size):
                path = self.at(f"{size}.db")
                one = self.open(path)
                one.execute(f"PRAGMA page_size={size}")
                one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
                one.execute("CREATE INDEX i ON t(b)")
                one.execute("BEGIN")
                one.execute(FILL, {"low": 1, "high": 2000, "size": 300})
                one.execute("COMMIT")
                self.assertEqual(value(one, "PRAGMA page_size"), size)
                two = self.open(path)
                two.execute("DELETE FROM t WHERE a % 3 = 0")
                one.execute("UPDATE t SET b = b || zeroblob(5000) WHERE a < 20")
                two.execute("INSERT INTO t VALUES(100000, randomblob(200000))")
                self.assertEqual(value(one, "PRAGMA integrity_check"), "ok")
                before = dump(two)
                self.assertEqual(self.final(path), before)

    def test_encodings(self):
        for encoding in ("UTF-8", "UTF-16le", "UTF-16be"):
            with self.subTest(encoding=encoding):
                path = self.at(encoding + ".db")
                one = self.open(path)
                one.execute(f"PRAGMA encoding='{encoding}'")
                one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE)")
                text = "grüße \N{GRINNING FACE} 漢字"
                one.executemany("INSERT INTO t(b) VALUES(?)", [(f"{text}{n}",) for n in range(500)])
                two = self.open(path)
                self.assertEqual(value(two, "PRAGMA encoding"), encoding)
                self.assertEqual(value(two, "SELECT a FROM t WHERE b = ?", (text + "77",)), 78)
                two.execute("UPDATE t SET b = b || 'é' WHERE a % 2")
                before = dump(one)
                self.assertEqual(self.final(path), before)


class Statements(Case):
    def test_without_rowid(self):
        one, two = self.open(), self.open()
        one.execute("CREATE TABLE w(k TEXT PRIMARY KEY, v, n INTEGER) WITHOUT ROWID")
        one.execute("CREATE INDEX wn ON w(n)")
        one.execute("BEGIN")
        one.executemany("INSERT INTO w VALUES(?, ?, ?)", [(f"k{n:05}", "v" * (n % 90), n % 7) for n in range(3000)])
        one.execute("COMMIT")
        two.execute("DELETE FROM w WHERE n = 3")
        two.execute("REPLACE INTO w VALUES('k00001', 'changed', 70)")
        self.assertEqual(value(one, "SELECT v FROM w WHERE n = 70"), "changed")
        self.assertEqual(value(one, "SELECT count(*) FROM w WHERE n = 3"), 0)
        before = dump(one)
        self.assertEqual(self.final(), before)

    def test_fts5(self):
        one, two = self.open(), self.open()
        one.execute("CREATE VIRTUAL TABLE f USING fts5(title, body, prefix='2 3')")
        words = [f"w{n}" for n in range(200)]
        chance = random.Random(1)
        for number in range(300):
            target = one if number % 2 else two
            text = " ".join(chance.choices(words, k=30))
            target.execute("INSERT INTO f(rowid, title, body) VALUES(?, ?, ?)", (number + 1, f"title{number}", text))
            if number % 60 == 0:
                target.execute("INSERT INTO f(f, rank) VALUES('merge', 50)")
        two.execute("DELETE FROM f WHERE rowid % 5 = 0")
        two.execute("UPDATE f SET title = 'renamed' WHERE rowid = 7")
        hits = rows(two, "SELECT rowid FROM f WHERE f MATCH 'w17' ORDER BY rowid")
        for command in ("optimize", "rebuild", "integrity-check"):
            one.execute("INSERT INTO f(f) VALUES(?)", (command,))
            self.assertEqual(rows(two, "SELECT rowid FROM f WHERE f MATCH 'w17' ORDER BY rowid"), hits)
        self.assertEqual(rows(one, "SELECT rowid FROM f WHERE f MATCH 'renamed'"), [(7,)])
        one.execute("BEGIN")
        one.execute("DELETE FROM f")
        one.execute("INSERT INTO f(f) VALUES('optimize')")
        one.execute("ROLLBACK")
        self.assertEqual(rows(one, "SELECT rowid FROM f WHERE f MATCH 'w17' ORDER BY rowid"), hits)
        one.execute("INSERT INTO f(f) VALUES('integrity-check')")
        self.at_rest()
        plain = self.stock()
        plain.execute("INSERT INTO f(f) VALUES('integrity-check')")
        self.assertEqual(rows(plain, "SELECT rowid FROM f WHERE f MATCH 'w17' ORDER BY rowid"), hits)

    def test_rtree(self):
        one, two = self.open(), self.open()
        one.execute("CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1)")
        for number in range(1, 1001):
            target = one if number % 2 else two
            target.execute("INSERT INTO r VALUES(?, ?, ?, ?, ?)", (number, number, number + 1, -number, 1 - number))
        two.execute("DELETE FROM r WHERE id % 10 = 0")
        one.execute("UPDATE r SET x0 = 5000, x1 = 5001 WHERE id = 500 + 1")
        self.assertEqual(rows(two, "SELECT id FROM r WHERE x0 > 4999"), [(501,)])
        self.assertEqual(value(two, "SELECT count(*) FROM r WHERE x0 BETWEEN 1 AND 100"), 90)
        self.assertEqual(value(one, "SELECT rtreecheck('r')"), "ok")
        self.at_rest()
        self.assertEqual(value(self.stock(), "SELECT rtreecheck('r')"), "ok")

    def test_triggers_cascades_and_generated_columns(self):
        one, two = self.open(), self.open()
        for connection in (one, two):
            connection.execute("PRAGMA foreign_keys=ON")
        one.executescript("""
            CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT);
            CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE, n INTEGER,
                           twice GENERATED ALWAYS AS (n * 2) STORED, thrice AS (n * 3));
            CREATE INDEX cp ON c(p);
            CREATE INDEX ct ON c(thrice);
            CREATE TABLE log(what);
            CREATE TRIGGER gone AFTER DELETE ON c BEGIN INSERT INTO log VALUES('gone ' || old.id); END;
        """)
        one.execute("BEGIN")
        one.executemany("INSERT INTO p VALUES(?, ?)", [(n, f"p{n}") for n in range(100)])
        one.executemany("INSERT INTO c(p, n) VALUES(?, ?)", [(n % 100, n) for n in range(2000)])
        one.execute("COMMIT")
        two.execute("DELETE FROM p WHERE id = 7")
        self.assertEqual(value(one, "SELECT count(*) FROM log"), 20)
        one.execute("UPDATE p SET id = 1007 WHERE id = 8")
        self.assertEqual(value(two, "SELECT count(*) FROM c WHERE p = 1007"), 20)
        with self.fails(sqlite3.SQLITE_CONSTRAINT):
            two.execute("INSERT INTO c(p, n) VALUES(7, 1)")
        self.assertEqual(rows(two, "SELECT twice, thrice FROM c WHERE thrice = 300"), [(200, 300)])
        before = dump(one)
        self.assertEqual(self.final(), before)

    def test_temporary_tables(self):
        one, two = self.open(), self.open()
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        for store in ("FILE", "MEMORY"):
            one.execute(f"PRAGMA temp_store={store}")
            one.execute("CREATE TEMP TABLE scratch AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
                        "WHERE i < 5000) SELECT i, hex(randomblob(100)) AS h FROM n")
            one.execute("BEGIN")
            one.execute("REPLACE INTO t SELECT i, h FROM temp.scratch")
            one.execute("DELETE FROM temp.scratch WHERE i > 10")
            one.execute("ROLLBACK")
            self.assertEqual(value(one, "SELECT count(*) FROM temp.scratch"), 5000)
            one.execute("REPLACE INTO t SELECT i, h FROM temp.scratch ORDER BY h")
            self.assertEqual(value(two, "SELECT count(*) FROM t"), 5000)
            with self.fails(sqlite3.SQLITE_ERROR):
                two.execute("SELECT * FROM scratch")
            one.execute("DROP TABLE temp.scratch")
        self.at_rest()

    def test_savepoints(self):
        one = self.open()
        one.execute("PRAGMA cache_size=10")
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute(FILL, {"low": 1, "high": 1000, "size": 500})
        first = dump(one)
        one.execute("SAVEPOINT a")
        one.execute("UPDATE t SET b = 'x' || b")
        second = dump(one)
        one.execute("SAVEPOINT b")
        one.execute("DELETE FROM t WHERE a % 2")
        one.execute("CREATE TABLE u AS SELECT * FROM t")
        one.execute("SAVEPOINT c")
        one.execute("DROP TABLE t")
        one.execute("ROLLBACK TO c")
        one.execute("RELEASE c")
        one.execute("ROLLBACK TO b")
        self.assertEqual(dump(one), second)
        one.execute("ROLLBACK TO a")
        self.assertEqual(dump(one), first)
        one.execute("UPDATE t SET b = 'y' WHERE a = 5")
        third = dump(one)
        one.execute("RELEASE a")
        self.assertEqual(dump(self.open()), third)
        self.assertEqual(self.final(), third)

    def test_a_failed_statement_is_undone_alone(self):
        one = self.open()
        one.execute("PRAGMA cache_size=10")
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
        one.execute("CREATE TABLE from_here(a, b)")
        one.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000) "
                    "INSERT INTO from_here SELECT i, CASE i WHEN 1900 THEN 'taken' ELSE hex(randomblob(200)) END FROM n")
        one.execute("BEGIN")
        one.execute("INSERT INTO t VALUES(100000, 'taken')")
        with self.fails(sqlite3.SQLITE_CONSTRAINT):
            one.execute("INSERT INTO t SELECT a, b FROM from_here")
        self.assertTrue(one.in_transaction)
        self.assertEqual(rows(one, "SELECT a FROM t"), [(100000,)])
        one.execute("INSERT INTO t VALUES(1, 'more')")
        one.execute("COMMIT")
        with self.fails(sqlite3.SQLITE_CONSTRAINT):
            one.execute("INSERT OR ROLLBACK INTO t SELECT a + 1, b FROM from_here")
        one.execute("INSERT OR IGNORE INTO t SELECT a + 1, b FROM from_here")
        self.assertEqual(value(self.open(), "SELECT count(*) FROM t"), 2001)
        self.at_rest()

    def test_spill(self):
        one, two = self.open(), self.open()
        for connection in (one, two):
            connection.execute("PRAGMA cache_size=10")
        one.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        one.execute("CREATE INDEX i ON t(b)")
        one.execute(FILL, {"low": 1, "high": 3000, "size": 700})
        before = dump(two)
        for change in ("UPDATE t SET b = b || 'more'", "DELETE FROM t WHERE a > 10", "DROP INDEX i",
                       "INSERT INTO t SELECT a + 10000, b FROM t", "CREATE TABLE u AS SELECT * FROM t", "DROP TABLE t"):
            with self.subTest(change=change):
                one.execute("BEGIN")
                one.execute(change)
                inside = dump(one)
                self.assertNotEqual(inside, before)
                self.assertEqual(dump(two), before)
                one.execute("ROLLBACK")
                self.assertEqual(dump(one), before)
                self.assertEqual(value(one, "PRAGMA integrity_check"), "ok")
        one.execute("BEGIN")
        one.execute("INSERT INTO t SELECT a + 10000, b || 'x' FROM t")
        one.execute("DELETE FROM t WHERE a % 3 = 0")
        after = dump(one)
        one.execute("COMMIT")
        self.assertEqual(dump(two), after)
        two.execute("BEGIN")
        two.execute("DELETE FROM t WHERE a % 7 < 3")
        two.execute("COMMIT")
        after = dump(one)
        self.assertEqual(self.final(), after)


class Attached(Case):
    def setUp(self):
        super().setUp()
        self.other = self.at("other.db")
        for path in (self.path, self.other):
            connection = self.open(path)
            connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
            connection.execute(FILL, {"low": 1, "high": 200, "size": 100})
            connection.close()

    def attach(self, connection, path, name, **parameters):
        connection.execute(f"ATTACH ? AS {name}", (support.uri(path, **parameters),))

    def test_commit_and_rollback_both(self):
        one = self.open()
        self.attach(one, self.other, "o", vfs="throng")
        watch = [self.open(), self.open(self.other)]
        for end, sign in (("ROLLBACK", None), ("COMMIT", "new")):
            one.execute("BEGIN")
            one.execute("INSERT INTO main.t VALUES(1000, 'new')")
            one.execute("INSERT INTO o.t VALUES(1000, 'new')")
            one.execute(end)
            for connection in watch:
                self.assertEqual(value(connection, "SELECT b FROM t WHERE a = 1000"), sign)
        one.execute("DETACH o")
        self.at_rest(self.path, self.other)

    def test_a_conflict_in_one_leaves_both(self):
        for loser in (0, 1):
            with self.subTest(conflict_in="main" if loser == 0 else "attached"):
                one = self.open()
                self.attach(one, self.other, "o", vfs="throng")
                two = self.open([self.path, self.other][loser])
                one.execute("BEGIN")
                self.assertEqual(value(one, "SELECT count(*) FROM main.t"), 200)
                self.assertEqual(value(one, "SELECT count(*) FROM o.t"), 200)
                one.execute("UPDATE main.t SET b = 'lost' WHERE a = 5")
                one.execute("UPDATE o.t SET b = 'lost' WHERE a = 5")
                two.execute("UPDATE t SET b = 'won' WHERE a = 6")
                with self.fails(BUSY_SNAPSHOT):
                    one.execute("COMMIT")
                if one.in_transaction:
                    one.execute("ROLLBACK")
                for path in (self.path, self.other):
                    self.assertEqual(value(self.open(path), "SELECT count(*) FROM t WHERE b = 'lost'"), 0)
                one.execute("BEGIN")
                one.execute("UPDATE main.t SET b = 'again' WHERE a = 5")
                one.execute("UPDATE o.t SET b = 'again' WHERE a = 5")
                one.execute("COMMIT")
                one.close()
                two.close()
        self.at_rest(self.path, self.other)

    def test_with_memory_and_stock(self):
        plain = self.at("plain.db")
        one = self.open()
        one.execute("ATTACH ':memory:' AS m")
        self.attach(one, plain, "p", vfs="unix")
        self.attach(one, self.other, "o", vfs="throng")
        one.execute("CREATE TABLE m.t(a INTEGER PRIMARY KEY, b)")
        one.execute("CREATE TABLE p.t(a INTEGER PRIMARY KEY, b)")
        for end, count in (("ROLLBACK", 0), ("COMMIT", 200)):
            one.execute("BEGIN")
            one.execute("INSERT INTO m.t SELECT * FROM main.t")
            one.execute("INSERT INTO p.t SELECT * FROM m.t")
            one.execute("UPDATE o.t SET b = 'seen'")
            one.execute("UPDATE main.t SET b = 'seen'")
            one.execute(end)
            for schema in ("m", "p"):
                self.assertEqual(value(one, f"SELECT count(*) FROM {schema}.t"), count)
            for schema in ("main", "o"):
                self.assertEqual(value(one, f"SELECT count(*) FROM {schema}.t WHERE b = 'seen'"), count)
        self.at_rest(self.path, self.other, plain)

    def test_three_attached(self):
        paths = [self.at(f"extra{n}.db") for n in range(3)]
        one, two = self.open(), self.open()
        for connection in (one, two):
            for number, path in enumerate(paths):
                self.attach(connection, path, f"e{number}", vfs="throng")
        for number in range(3):
            one.execute(f"CREATE TABLE e{number}.t(a INTEGER PRIMARY KEY, b)")
        for step in range(30):
            connection = (one, two)[step % 2]
            connection.execute("BEGIN")
            for number in range(3):
                connection.execute(f"INSERT INTO e{number}.t(b) VALUES(?)", (step,))
            connection.execute("UPDATE main.t SET b = ? WHERE a = 1", (step,))
            connection.execute("ROLLBACK" if step % 5 == 4 else "COMMIT")
        for number in range(3):
            self.assertEqual(value(two, f"SELECT count(*) FROM e{number}.t"), 24)
        self.assertEqual(value(two, "SELECT b FROM main.t WHERE a = 1"), 28)
        self.at_rest(self.path, *paths)


class Model(Case):
    """Random statements on a Throng database, by two connections in turn, and on one in memory: the same content."""

    def run_seed(self, seed, alone=False):
        chance = random.Random(seed)
        path = self.at(f"model{seed}.db")
        pair = [self.open(path)] if alone else [self.open(path), self.open(path)]
        if alone:
            rows(pair[0], "PRAGMA locking_mode=EXCLUSIVE")
        pair[0].execute(f"PRAGMA page_size={chance.choice([512, 1024, 4096])}")
        model = sqlite3.connect(":memory:", isolation_level=None)
        self.connections.append(model)
        for connection in pair:
            connection.execute(f"PRAGMA cache_size={chance.choice([10, 20, 2000])}")
            connection.execute(f"PRAGMA mmap_size={chance.choice([0, 1 << 26])}")
        for connection in (pair[0], model):
            connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)")
            connection.execute("CREATE INDEX tb ON t(b)")
            connection.execute("CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID")
        active, names, trace = pair[0], [], []

        def both(sql, arguments=()):
            trace.append((pair.index(active), sql, [a if not isinstance(a, (str, bytes)) or len(a) < 20 else len(a) for a in arguments]))
            outcome = []
            for connection in (active, model):
                try:
                    connection.execute(sql, arguments)
                    outcome.append(None)
                except sqlite3.IntegrityError as error:
                    outcome.append(error.sqlite_errorcode)
            self.assertEqual(outcome[0], outcome[1], trace[-20:])

        def form(pragma):
            trace.append((pair.index(active), "PRAGMA " + pragma))
            try:
                rows(active, "PRAGMA " + pragma)
            except sqlite3.DatabaseError as error:  # auto_vacuum needs one list
                self.assertEqual((pragma, error.sqlite_errorcode), ("freelist_format=2", sqlite3.SQLITE_CONSTRAINT))

        for step in range(400):
            if not model.in_transaction:
                active, names = chance.choice(pair), []
            key = chance.randrange(400)
            text = chance.choice("abcdefgh") * chance.choice([0, 3, 50, 300, 3000])
            action = chance.randrange(100)
            if action < 30:
                both("INSERT INTO t VALUES(?, ?, ?)", (chance.choice([None, key]), text, key % 9))
            elif action < 45:
                both("UPDATE t SET b = ?, c = c + 1 WHERE a BETWEEN ? AND ?", (text, key, key + chance.randrange(30)))
            elif action < 57:
                both("DELETE FROM t WHERE a BETWEEN ? AND ?", (key, key + chance.randrange(100)))
            elif action < 70:
                both("REPLACE INTO w VALUES(?, ?)", (key % 50, text))
            elif action < 74:
                both("INSERT INTO w SELECT a, b FROM t WHERE a > ?", (key,))
            elif action < 76:
                both("DELETE FROM w")
            elif action < 79:
                both("INSERT INTO t(b, c) SELECT b, c FROM t WHERE a < 100")
            elif action < 86:
                if model.in_transaction:
                    both(chance.choice(["COMMIT", "ROLLBACK"]))
                else:
                    both(chance.choice(["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]))
            elif action < 95:
                name = f"s{chance.randrange(3)}"
                if name not in names or chance.randrange(3) == 0:
                    both(f"SAVEPOINT {name}")
                    names.append(name)
                elif chance.randrange(2):
                    both(f"ROLLBACK TO {name}")
                    while names[-1] != name:
                        names.pop()
                else:
                    both(f"RELEASE {name}")
                    while names.pop() != name:
                        pass
            elif action < 96:
                both("CREATE TABLE IF NOT EXISTS x AS SELECT * FROM t")
            elif action < 98:
                both("DROP TABLE IF EXISTS x")
            elif not model.in_transaction:
                if chance.randrange(3) == 0:
                    form(chance.choice(["auto_vacuum=0", "auto_vacuum=1", "auto_vacuum=2"]))
                elif chance.randrange(3) == 0:
                    form(f"page_size={chance.choice([512, 1024, 4096, 65536])}")
                elif alone:
                    form(f"locking_mode={chance.choice(['EXCLUSIVE', 'NORMAL'])}")
                    form("user_version")
                both("VACUUM")
                if not alone and chance.randrange(2):
                    form(f"freelist_format={chance.choice([1, 2])}")
            if not active.in_transaction:
                names = []
            self.assertEqual(active.in_transaction, model.in_transaction, trace[-20:])
            if step % 20 == 0:
                self.assertEqual(dump(active), dump(model), trace[-40:])
        if model.in_transaction:
            both("COMMIT")
        expected = dump(model)
        for connection in pair:
            self.assertEqual(dump(connection), expected, trace[-40:])
            self.assertEqual(value(connection, "PRAGMA integrity_check"), "ok")
        self.assertEqual(self.final(path), expected)
    def test_random_statements(self):
        seeds = [int(os.environ["THRONG_SEED"])] if "THRONG_SEED" in os.environ else range(1, 25)
        for seed in seeds:
            with self.subTest(replay=f"THRONG_SEED={seed} {__file__}"):
                self.run_seed(seed)

    def test_random_statements_in_exclusive_locking_mode(self):
        for seed in range(1, 13):
            with self.subTest(seed=seed):
                self.run_seed(seed, True)


if __name__ == "__main__":
    support.main()
