/* The descriptor of a database file: opened, and kept where closing it would do harm.
 *
 * SPDX-License-Identifier: MIT */
#include "open.h"

#include "../os/os.h"

/* A descriptor that must not be closed yet: closing it would end the POSIX locks that a stock SQLite connection of
 * this process may hold on the same file. It serves the next open of the file. */
struct spare_fd {
    struct spare_fd *next;
    uint64_t dev, ino;
    int fd;
    bool writable;
};

static struct spare_fd *spare_fds; /* guarded by the lock of the list of open databases */

void thr_descriptor_keep(int fd, const struct thr_stat *stat, bool writable)
{
    struct spare_fd *spare = thr_os_alloc(sizeof *spare);

    if (spare == NULL)
        return; /* better lose a descriptor than somebody's locks */
    *spare = (struct spare_fd){.next = spare_fds, .dev = stat->dev, .ino = stat->ino, .fd = fd, .writable = writable};
    spare_fds = spare;
}

static int take_spare(const struct thr_stat *stat, bool writable)
{
    for (struct spare_fd **link = &spare_fds; *link != NULL; link = &(*link)->next) {
        struct spare_fd *spare = *link;

        if (spare->dev == stat->dev && spare->ino == stat->ino && spare->writable == writable) {
            int fd = spare->fd;

            *link = spare->next;
            thr_os_free(spare);
            return fd;
        }
    }
    return -1;
}

int thr_descriptor_open(const char *path, int flags, int *fd_out, bool *writable_out)
{
    int how = (flags & SQLITE_OPEN_CREATE) != 0 ? THR_OPEN_CREATE : 0, err = 0;
    struct thr_stat stat, directory;
    int rc;

    *writable_out = true;
    rc = thr_os_stat(path, &stat);
    if (rc == SQLITE_OK && (*fd_out = take_spare(&stat, true)) >= 0)
        return SQLITE_OK;
    if (rc == SQLITE_NOTFOUND && thr_stat_beside(path, "-journal", &directory) == SQLITE_OK && directory.is_dir) {
        thr_log_orphan(path);
        return SQLITE_CANTOPEN;
    }
    rc = thr_os_open(path, THR_OPEN_WRITE | how, 0, fd_out, &err);
    if (rc == SQLITE_OK)
        return SQLITE_OK;
    if (err == 0 || thr_os_stat(path, &stat) != SQLITE_OK || stat.is_dir)
        return SQLITE_CANTOPEN;
    *writable_out = false;
    if ((*fd_out = take_spare(&stat, false)) >= 0)
        return SQLITE_OK;
    return thr_os_open(path, THR_OPEN_READ, 0, fd_out, NULL);
}

void thr_descriptors_after_fork(void)
{
    for (struct spare_fd *at = spare_fds; at != NULL; at = at->next)
        thr_os_close(at->fd); /* the parent's POSIX locks stay: they were never the child's */
    spare_fds = NULL;
}
