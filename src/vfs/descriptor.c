/* The descriptor of a database file: opened, and closed only when that takes no lock from a connection of stock SQLite.
 *
 * Closing any descriptor of a file ends every POSIX lock that the process holds on the file, and those are the locks of
 * stock SQLite. So a descriptor is closed while it has all of SQLite's lock bytes for itself: no connection can hold one of
 * them then, and the kernel lets go of our lock (which belongs to the descriptor) after it has dropped the POSIX ones. A
 * descriptor that cannot have that lock is kept, and serves the next open of the file.
 *
 * SPDX-License-Identifier: MIT */
#include "open.h"

#include <errno.h>

#include "../os/os.h"

struct spare {
    struct spare *next;
    uint64_t dev, ino; /* 0, 0: of a file that could not be looked at */
    int fd;
    bool writable;
};

static struct spare *spares; /* newest first. Guarded by the lock of the list of open databases */

/* A descriptor that is open for reading cannot have the exclusive lock. When there are more of them than this, the oldest
 * ones are closed that belong to files on which nobody has a lock. */
enum { READ_ONLY_SPARES = 32 };

static bool may_close(const struct spare *spare, uint32_t read_only)
{
    uint32_t pid;

    if (spare->writable)
        return thr_os_lock(spare->fd, true, THR_LOCK_BYTES_AT, THR_LOCK_BYTES) == SQLITE_OK;
    return read_only > READ_ONLY_SPARES &&
           thr_os_lock_holder(spare->fd, THR_LOCK_BYTES_AT, THR_LOCK_BYTES, &pid) == SQLITE_OK && pid == 0;
}

static void close_spares(void)
{
    uint32_t read_only = 0;

    for (struct spare **link = &spares; *link != NULL;) {
        struct spare *spare = *link;

        read_only += !spare->writable;
        if (may_close(spare, read_only)) {
            read_only -= !spare->writable;
            *link = spare->next;
            thr_os_close(spare->fd);
            thr_os_free(spare);
        } else {
            link = &spare->next;
        }
    }
}

void thr_descriptor_close(int fd, const struct thr_stat *stat, bool writable)
{
    struct spare *spare;

    if (!writable || thr_os_lock(fd, true, THR_LOCK_BYTES_AT, THR_LOCK_BYTES) != SQLITE_OK) {
        thr_os_unlock(fd, THR_LOCK_BYTES_AT, THR_LOCK_BYTES);
        if ((spare = thr_os_alloc(sizeof *spare)) !=
            NULL) { /* else better lose a descriptor than the locks of others */
            *spare = (struct spare){.next = spares, .dev = stat->dev, .ino = stat->ino, .fd = fd, .writable = writable};
            spares = spare;
        }
    } else {
        thr_os_close(fd);
    }
    close_spares();
}

static int take_spare(const struct thr_stat *stat, bool writable)
{
    for (struct spare **link = &spares; *link != NULL; link = &(*link)->next) {
        struct spare *spare = *link;

        if (spare->dev == stat->dev && spare->ino == stat->ino && spare->writable == writable) {
            int fd = spare->fd;

            *link = spare->next;
            thr_os_free(spare);
            return fd;
        }
    }
    return -1;
}

/* There is no such file. Is there a directory that needs it? */
static int look_for_orphan(const char *path, enum thr_trouble *trouble_out)
{
    struct thr_stat stat;
    int rc = thr_stat_beside(path, "-journal", &stat);

    if (rc == SQLITE_OK && stat.is_dir) {
        *trouble_out = THR_TROUBLE_ORPHAN;
        return SQLITE_CANTOPEN;
    }
    if (rc != SQLITE_OK && rc != SQLITE_NOTFOUND) {
        *trouble_out = THR_TROUBLE_BESIDE;
        return rc == SQLITE_NOMEM ? rc : SQLITE_CANTOPEN;
    }
    return SQLITE_OK;
}

int thr_descriptor_open(const char *path, int flags, int found, const struct thr_stat *stat, int *fd_out,
                        bool *writable_out, enum thr_trouble *trouble_out)
{
    int how = (flags & SQLITE_OPEN_CREATE) != 0 ? THR_OPEN_CREATE : 0, err = 0, rc;

    *fd_out = -1;
    *writable_out = true;
    if (found != SQLITE_OK && found != SQLITE_NOTFOUND)
        return found == SQLITE_NOMEM ? found : SQLITE_CANTOPEN;
    if (found == SQLITE_OK && !stat->is_regular) {
        *trouble_out = stat->is_dir ? THR_TROUBLE_DIRECTORY : THR_TROUBLE_KIND;
        return SQLITE_CANTOPEN;
    }
    if (found == SQLITE_NOTFOUND && (rc = look_for_orphan(path, trouble_out)) != SQLITE_OK)
        return rc;
    if (found == SQLITE_OK && (*fd_out = take_spare(stat, true)) >= 0)
        return SQLITE_OK;
    rc = thr_os_open(path, THR_OPEN_WRITE | how, 0, fd_out, &err);
    if (rc == SQLITE_OK || found != SQLITE_OK || (err != EACCES && err != EPERM && err != EROFS))
        return rc;
    *writable_out = false;
    if ((*fd_out = take_spare(stat, false)) >= 0)
        return SQLITE_OK;
    return thr_os_open(path, THR_OPEN_READ, 0, fd_out, NULL);
}

void thr_descriptor_log(const char *path, int code, enum thr_trouble trouble)
{
    char text[128];

    switch (trouble) {
    case THR_TROUBLE_ORPHAN:
        thr_log_orphan(path);
        break;
    case THR_TROUBLE_BESIDE:
        thr_log_unseen(path, "-journal", code);
        break;
    case THR_TROUBLE_DIRECTORY:
        thr_log(code, "throng: cannot open %s: it is a directory", path);
        break;
    case THR_TROUBLE_KIND:
        thr_log(code, "throng: cannot open %s: it is a pipe, a socket or a device; a database is a regular file", path);
        break;
    case THR_TROUBLE_NONE:
        thr_log(code, "throng: cannot open %s: %s", path,
                code == SQLITE_NOMEM ? "out of memory" : thr_os_error_text(thr_os_last_errno(), text, sizeof text));
        break;
    }
}

void thr_descriptors_after_fork(void)
{
    for (struct spare *at = spares; at != NULL; at = at->next)
        thr_os_close(at->fd); /* the parent's POSIX locks stay: they were never the child's */
    spares = NULL;
}
