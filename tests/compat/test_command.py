"""throng recover and throng detach.

SPDX-License-Identifier: MIT"""

import os
import shutil
import sqlite3
import subprocess

import support
from support import Case, dump, value

COMMAND = os.path.join(os.path.dirname(os.environ["THRONG_EXTENSION"]), "throng")


class Command(Case):
    def run_command(self, *words):
        done = subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def leave(self):
        self.child_ok("""
            c = throng(sys.argv[1])
            c.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
            for n in range(10):
                c.execute("INSERT INTO t(b) VALUES(zeroblob(5000))")
            os._exit(0)
        """, self.path)

    def test_recover_and_detach(self):
        for command in ("recover", "detach"):
            with self.subTest(command=command):
                self.leave()
                code, out, _ = self.run_command(command, self.path)
                self.assertEqual(code, 0)
                self.assertIn("recovered 11 commits", out)
                self.assertIn("is a plain file now", out)
                self.assertFalse(os.path.exists(self.path + "-journal"))
                stock = self.stock()
                self.assertEqual(value(stock, "SELECT count(*) FROM t"), 10)
                before = dump(stock)
                self.close()
                code, out, _ = self.run_command(command, self.path)
                self.assertEqual((code, "plain file already" in out), (0, True))
                self.assertEqual(self.final(), before)
                os.unlink(self.path)

    def test_without_log(self):
        self.leave()
        self.open().close()
        self.child_ok("c = throng(sys.argv[1]); c.execute('INSERT INTO t(b) VALUES(1)'); os._exit(0)", self.path)
        code, _, error = self.run_command("recover", "--without-log", self.path)
        self.assertEqual(code, 1)
        self.assertIn("recover the database with it", error)
        os.rename(self.path + "-journal", self.at("elsewhere"))
        os.symlink(self.at("on a disk that is not there"), self.path + "-journal")
        code, _, error = self.run_command("recover", "--without-log", self.path)
        self.assertEqual(code, 1)
        self.assertIn("recover the database with it", error)
        os.unlink(self.path + "-journal")
        for command in ("recover", "detach"):
            code, _, error = self.run_command(command, self.path)
            self.assertEqual(code, 1)
            self.assertIn("--without-log", error)
        code, out, _ = self.run_command("recover", "--without-log", self.path)
        self.assertEqual((code, out), (0, "integrity_check: ok\n"))
        code, out, _ = self.run_command("recover", "--without-log", self.path)
        self.assertEqual(code, 0)
        self.assertIn("does not need a log", out)
        self.assertEqual(value(self.open(), "SELECT count(*) FROM t"), 10)
        self.at_rest()

    def test_what_cannot_be(self):
        self.leave()
        away = self.at("away.db")
        os.rename(self.path, away)
        code, _, error = self.run_command("recover", self.path)
        self.assertEqual(code, 1)
        self.assertIn("Put the file back", error)
        os.rename(away, self.path)
        one = self.open()
        one.execute("INSERT INTO t(b) VALUES(1)")
        code, _, error = self.run_command("detach", self.path)
        self.assertEqual(code, 1)
        self.assertIn(str(os.getpid()), error)
        self.assertEqual(value(one, "SELECT count(*) FROM t"), 11)
        for words in (["recover"], ["recover", "--no"], ["detach", "a", "b"]):
            self.assertEqual(self.run_command(*words)[0], 2)
        for command in ("recover", "detach"):
            self.assertIn("usage: throng " + command, self.run_command(command, "--help")[1])
        self.assertEqual(self.run_command("recover", os.path.dirname(self.path))[0], 1)
        self.assertEqual(self.run_command("recover", self.at("none.db"))[0], 1)
        self.at_rest()


if __name__ == "__main__":
    support.main()
