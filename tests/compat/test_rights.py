"""Property: nobody can do more with what stands beside a database than with the database itself, whatever the umask and
whoever opens it; and nothing is believed there that another user may have written. What is refused stays as it is.

SPDX-License-Identifier: MIT
"""
import os
import stat
import unittest

import support
from support import Case, value

NOBODY, SOMEBODY, GROUP = 65534, 54321, 12345

CRASH = """
    import os
    one = throng(sys.argv[1])
    one.execute("CREATE TABLE IF NOT EXISTS t(a)")
    one.executemany("INSERT INTO t VALUES(?)", [(n,) for n in range(20)])
    os.kill(os.getpid(), 9)
"""
COUNT = "print(value(throng(sys.argv[1]), 'SELECT count(*) FROM t'))"


def become(uid, *groups):
    return f"import os; os.setgroups({list(groups)}); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})\n"


class Rights(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o777)
        self.directory = self.path + "-journal"

    def create(self, mode=0o644, uid=-1, gid=-1):
        one = self.stock()
        one.execute("CREATE TABLE t(a)")
        one.close()
        os.chown(self.path, uid, gid)
        os.chmod(self.path, mode)

    def crash(self, who=""):
        done = self.child(who + support.textwrap.dedent(CRASH), self.path)
        self.assertEqual((done.returncode, done.stderr), (-9, ""))
        self.assertTrue(os.path.isdir(self.directory))

    def recovers(self, who="", count="20\n"):
        self.assertEqual(self.child_ok(who + COUNT, self.path), count)
        self.assertFalse(os.path.exists(self.directory))

    def things(self):
        yield self.directory, os.stat(self.directory)
        for name in os.listdir(self.directory):
            yield name, os.stat(os.path.join(self.directory, name))

    def shape(self):
        """All that a refused open must leave as it is."""
        shape = []
        for folder, folders, files in os.walk(self.folder):
            for name in sorted(folders + files):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                shape.append((path, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink))
        with open(self.path, "rb") as file:
            return sorted(shape), file.read()

    def refused(self, words, who=""):
        before = self.shape()
        done = self.child(who + COUNT, self.path, log=True)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(self.shape(), before)


class Given(Rights):
    def test_rights_follow_the_database(self):
        for umask in (0, 0o022, 0o077):
            for mode in (0o600, 0o604, 0o640, 0o644, 0o660, 0o664, 0o666):
                with self.subTest(umask=oct(umask), mode=oct(mode)):
                    self.create(mode)
                    old = os.umask(umask)
                    try:
                        one = self.open()
                        one.execute("INSERT INTO t VALUES(zeroblob(5000))")
                        value(one, "PRAGMA wal_checkpoint")
                    finally:
                        os.umask(old)
                    for name, status in self.things():
                        expected = mode
                        if stat.S_ISDIR(status.st_mode):
                            expected |= (mode & 0o444) >> 2
                        self.assertEqual(oct(status.st_mode & 0o7777), oct(expected), name)
                    self.close()
                    self.at_rest()
                    os.unlink(self.path)


@unittest.skipUnless(os.geteuid() == 0, "needs root, to become somebody else")
class Owners(Rights):
    def test_root_opens_the_database_of_a_user(self):
        self.create(0o640, NOBODY, GROUP)
        self.crash()
        for name, status in self.things():
            self.assertEqual((status.st_uid, status.st_gid), (NOBODY, GROUP), name)
        self.recovers(become(NOBODY))
        self.at_rest()

    def test_members_of_a_group(self):
        self.create(0o664, SOMEBODY, GROUP)
        self.crash(become(NOBODY, GROUP))
        for name, status in self.things():
            self.assertEqual((status.st_uid, status.st_gid), (NOBODY, GROUP), name)
            self.assertEqual(oct(status.st_mode & 0o777), "0o775" if name == self.directory else "0o664", name)
        self.recovers(become(NOBODY + 1, GROUP))
        self.crash(become(NOBODY, GROUP))
        self.recovers(become(SOMEBODY, GROUP), "40\n")
        self.at_rest()

    def test_a_group_that_cannot_be_given(self):
        self.create(0o646, SOMEBODY, GROUP)
        self.crash(become(NOBODY))
        for name, status in self.things():
            self.assertNotEqual(status.st_gid, GROUP)
            self.assertEqual(oct(status.st_mode & 0o777), "0o755" if name == self.directory else "0o644", name)
        self.recovers()
        self.at_rest()

    def test_a_directory_that_may_not_be_read(self):
        self.create(0o666)
        self.crash()
        os.chmod(self.directory, 0o700)
        self.refused(["cannot be read", "Permission denied", self.directory, "user 0"], become(NOBODY))
        self.recovers()
        self.at_rest()

    def test_only_who_may_write_is_believed(self):
        def log():
            return os.path.join(self.directory, "log-1")

        self.create(0o644)
        self.crash()
        for name, change, undo, words in (
            ("directory of another user", lambda: os.chown(self.directory, NOBODY, 0),
             lambda: os.chown(self.directory, 0, 0), ["belongs to a user"]),
            ("log of another user", lambda: os.chown(log(), NOBODY, 0), lambda: os.chown(log(), 0, 0),
             ["log-1 belongs to a user"]),
            ("directory for all", lambda: os.chmod(self.directory, 0o777), lambda: os.chmod(self.directory, 0o755),
             ["can be written by users"]),
            ("log for all", lambda: os.chmod(log(), 0o666), lambda: os.chmod(log(), 0o644),
             ["log-1 can be written by users"]),
            ("log for another group", lambda: (os.chown(log(), 0, GROUP), os.chmod(log(), 0o664)),
             lambda: (os.chown(log(), 0, 0), os.chmod(log(), 0o644)), ["log-1 can be written by users"]),
        ):
            with self.subTest(name):
                change()
                self.refused(words)
                undo()
        self.recovers()
        self.at_rest()

    def test_a_group_of_the_parent_directory_shows_nothing(self):
        """In a set-group-id directory that all can write, anybody's directory has the database's group."""
        self.create(0o664, 0, GROUP)
        self.crash()
        for name, status in self.things():
            os.chown(os.path.join(self.directory, name), NOBODY, GROUP)
        self.recovers()
        self.crash()
        for name, status in self.things():
            os.chown(os.path.join(self.directory, name), NOBODY, GROUP)
        os.chown(self.folder, 0, GROUP)
        os.chmod(self.folder, 0o2777)
        self.refused(["belongs to a user"])
        os.chmod(self.folder, 0o2775)
        self.recovers(count="40\n")
        self.at_rest()

    def test_who_may_only_read_changes_nothing(self):
        self.create(0o644)
        one = self.open()
        one.execute("INSERT INTO t VALUES(1)")
        self.child_ok(become(NOBODY) + support.textwrap.dedent("""
            directory = sys.argv[1] + "-journal"
            for act in (lambda: open(directory + "/log-9", "w"), lambda: os.unlink(directory + "/log-1"),
                        lambda: os.rename(directory + "/log-1", directory + "/log-2"),
                        lambda: open(directory + "/log-1", "r+b"), lambda: open(directory + "/shm", "r+b")):
                try:
                    act()
                except PermissionError:
                    continue
                raise SystemExit("it could be changed")
            open(directory + "/log-1", "rb").close()
        """), self.path)
        one.execute("INSERT INTO t VALUES(2)")
        self.at_rest()


class Kinds(Rights):
    def test_odd_files_are_refused(self):
        self.create()
        self.crash()
        log, kept = os.path.join(self.directory, "log-1"), self.at("kept")

        def link():
            os.rename(log, kept)
            os.symlink(kept, log)

        def pipe():
            os.rename(log, kept)
            os.mkfifo(log)

        def put_back():
            os.unlink(log)
            os.rename(kept, log)

        def linked_directory():
            os.rename(self.directory, kept)
            os.symlink(kept, self.directory)

        def directory_back():
            os.unlink(self.directory)
            os.rename(kept, self.directory)

        for name, change, undo, words in (
            ("link", link, put_back, ["log-1 is a symbolic link"]),
            ("hard link", lambda: os.link(log, kept), lambda: os.unlink(kept), ["log-1 has another name"]),
            ("pipe", pipe, put_back, ["log-1, which is not ours"]),
            ("socket's place", lambda: os.mkfifo(os.path.join(self.directory, "lost")),
             lambda: os.unlink(os.path.join(self.directory, "lost")), ["lost, which is not ours"]),
            ("directory", linked_directory, directory_back, [self.directory, "is in the way"]),
        ):
            with self.subTest(name):
                change()
                self.refused(words)
                undo()
        self.recovers()
        self.at_rest()

    def test_a_journal_of_an_odd_kind(self):
        for name, make in (("link", lambda path: os.symlink("nowhere", path)), ("pipe", os.mkfifo),
                           ("text", lambda path: support.shutil.copy(__file__, path))):
            with self.subTest(name):
                self.create()
                make(self.directory)
                self.refused([self.directory, "is in the way"])
                os.unlink(self.directory)
                self.at_rest()
                os.unlink(self.path)

    def test_databases_of_an_odd_kind(self):
        for name, make, words in (("directory", os.mkdir, "it is a directory"), ("pipe", os.mkfifo, "it is a pipe"),
                                  ("long" * 62, lambda path: open(path, "wb").close(), "File name too long"),
                                  ("long" * 80, lambda path: None, "cannot open file")):
            with self.subTest(name[:9]):
                path = self.at(name)
                make(path)
                done = self.child("throng(sys.argv[1])", path, log=True)
                self.assertEqual(done.returncode, 1)
                self.assertIn("OperationalError", done.stderr)
                self.assertIn(words, done.stderr)
                self.assertIn(path[:60], done.stderr)
        self.assertEqual(len(os.listdir(self.folder)), 3)


if __name__ == "__main__":
    support.main()
