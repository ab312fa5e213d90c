/* The database's directory, held by a lock on the file `lock` in it.
 *
 * The name <db>-journal may come to stand for another directory while the database is open: when the file and the
 * directory are moved away, and others put in their place. So whoever uses a directory holds its lock, reaches its files
 * through the descriptor, and removes nothing that the lock does not cover.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_HOME_H
#define THR_HOME_H

#include <stdbool.h>
#include <stdint.h>

struct thr_home {
    int fd, lock_fd; /* -1: not held */
    uint64_t dev, ino;
    bool made_lock; /* there was no such file before */
};

#define THR_HOME_NONE ((struct thr_home){.fd = -1, .lock_fd = -1})

/* Take the lock of a directory that is there. Does not block. SQLITE_OK; SQLITE_BUSY: it belongs to a database in use;
 * SQLITE_NOTFOUND, SQLITE_CANTOPEN, SQLITE_NOMEM, SQLITE_IOERR_*: then nothing is held. */
int thr_home_take(const char *directory, uint32_t mode, struct thr_home *out);
/* Does the name still stand for the directory that is held, and has that its lock file? */
bool thr_home_is_in_place(const char *directory, const struct thr_home *home);
/* Unlink all files of ours, the log's oldest first, and the directory, if its name still stands for it. It is not held
 * any more then. SQLITE_OK, SQLITE_NOMEM, SQLITE_IOERR_DELETE; then it is still held. */
int thr_home_remove(const char *directory, struct thr_home *home);
/* Let go of it. `undo`: nothing was done in it, not even a lock file shall be left that was not there. */
void thr_home_let_go(struct thr_home *home, bool undo);
/* In a child after fork(): the lock is the parent's. Async-signal-safe. */
void thr_home_abandon(struct thr_home *home);

/* Is that the name of a file of ours? *number_out: of a segment, or 0. */
bool thr_home_owns(const char *name, uint64_t *number_out);

#endif
