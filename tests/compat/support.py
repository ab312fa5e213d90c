"""What the tests of this folder share: the extension, scratch databases, and the oracle.

The extension is named by THRONG_EXTENSION, or by the first argument. THRONG_SEED replays a random test.

SPDX-License-Identifier: MIT
"""
import atexit
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import unittest
import urllib.parse

if "THRONG_EXTENSION" not in os.environ and len(sys.argv) > 1 and sys.argv[1].endswith(".so"):
    os.environ["THRONG_EXTENSION"] = sys.argv.pop(1)
EXTENSION = os.path.abspath(os.environ.get("THRONG_EXTENSION", "build/throng.so"))
os.environ["THRONG_EXTENSION"] = EXTENSION
HERE = os.path.dirname(os.path.abspath(__file__))

BUSY = sqlite3.SQLITE_BUSY
BUSY_SNAPSHOT = sqlite3.SQLITE_BUSY_SNAPSHOT
PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
# Fill a table t(a INTEGER PRIMARY KEY, b) with rows :low .. :high of :size bytes, the same bytes every time.
FILL = (
    "WITH RECURSIVE n(i) AS (SELECT :low UNION ALL SELECT i+1 FROM n WHERE i < :high) "
    "INSERT INTO t(a, b) SELECT i, substr(replace(hex(zeroblob(:size)), '0', char(97 + i % 26)), 1, :size) FROM n"
)


def load():
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(EXTENSION)
    loader.close()


if not hasattr(sqlite3.Connection, "enable_load_extension"):
    print("this Python cannot load extensions into its SQLite: skipped")
    sys.exit(77)
load()


def uri(path, **parameters):
    query = urllib.parse.urlencode(parameters)
    return "file:" + urllib.parse.quote(str(path)) + ("?" + query if query else "")


def throng(path, *, timeout=5.0, threads=False, **parameters):
    return sqlite3.connect(
        uri(path, vfs="throng", **parameters),
        uri=True,
        isolation_level=None,
        timeout=timeout,
        check_same_thread=not threads,
    )


def stock(path, *, timeout=0.0, **parameters):
    return sqlite3.connect(uri(path, **parameters), uri=True, isolation_level=None, timeout=timeout)


def value(connection, sql, *arguments):
    row = connection.execute(sql, *arguments).fetchone()
    return None if row is None else row[0]


def rows(connection, sql, *arguments):
    return connection.execute(sql, *arguments).fetchall()


def dump(connection):
    """The schema and every row of every ordinary table, in an order that does not depend on the file."""
    content = {}
    schema = rows(connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
    for kind, name, _, sql in schema:
        if kind == "table" and sql and not sql.startswith("CREATE VIRTUAL"):
            content[name] = sorted(rows(connection, f'SELECT * FROM "{name}"'), key=repr)
    return schema, content


def header(path, offset, length):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


class Case(unittest.TestCase):
    """A test with a scratch folder, `self.path` in it, and connections that are closed when it ends."""

    maxDiff = 2000

    def setUp(self):
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.mkdtemp(prefix="throng-compat-", dir=place)
        self.path = self.at("test.db")
        self.connections = []
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.close)

    def at(self, name):
        return os.path.join(self.folder, name)

    def open(self, path=None, **options):
        connection = throng(path or self.path, **options)
        self.connections.append(connection)
        return connection

    def stock(self, path=None, **options):
        connection = stock(path or self.path, **options)
        self.connections.append(connection)
        return connection

    def close(self):
        while self.connections:
            self.connections.pop().close()

    def at_rest(self, *paths):
        """The oracle. Closes everything; each database must then be one plain, whole SQLite file."""
        self.close()
        for path in paths or [self.path]:
            for suffix in ("-journal", "-wal", "-shm"):
                self.assertFalse(os.path.lexists(path + suffix), path + suffix + " is still there")
            with contextlib.closing(stock(path)) as connection:
                self.assertEqual(rows(connection, "PRAGMA integrity_check"), [("ok",)])
                self.assertEqual(rows(connection, "PRAGMA foreign_key_check"), [])
                pages = value(connection, "PRAGMA page_count") * value(connection, "PRAGMA page_size")
                self.assertEqual(os.path.getsize(path), pages)

    def final(self, path=None):
        """The content that stock SQLite finds, after the oracle had its look."""
        self.at_rest(path or self.path)
        with contextlib.closing(stock(path or self.path)) as connection:
            return dump(connection)

    @contextlib.contextmanager
    def fails(self, *codes):
        """The block raises an error with one of these codes: extended, or the primary one for any of its kind."""
        with self.assertRaises(sqlite3.Error) as caught:
            yield caught
        code = getattr(caught.exception, "sqlite_errorcode", None)
        if code not in codes and (code is None or code & 0xFF not in codes):
            self.fail(f"{caught.exception!r} has code {code}, not one of {codes}")

    def child(self, script, *arguments, log=False, **options):
        """Run Python in a process of its own, with `from support import *` done; with `log`, sqlite3_log() to stderr."""
        prologue = f"import sys; sys.path.insert(0, {HERE!r})\n"
        if log:
            prologue += (
                "import ctypes, os\n"
                "writer = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(\n"
                "    lambda _, code, text: (os.write(2, b'%d: %s\\n' % (code, text)), None)[1])\n"
                "assert ctypes.CDLL('libsqlite3.so.0').sqlite3_config(16, writer, None) == 0\n"
            )
        prologue += "from support import *\n"
        return subprocess.run(
            [sys.executable, "-c", prologue + textwrap.dedent(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def child_ok(self, script, *arguments, **options):
        done = self.child(script, *arguments, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


def main():
    atexit.register(sys.stdout.flush)
    unittest.main(module="__main__")
