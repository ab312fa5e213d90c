/* Names: directories, links, canonical paths.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int thr_os_open_dir(const char *directory, int *fd_out)
{
    int err = thr_os_fault_path(THR_OS_OPEN, directory);

    *fd_out = -1;
    if (err != 0)
        return thr_os_fail(err, SQLITE_CANTOPEN);
    *fd_out = thr_os_open_high(directory, O_RDONLY | O_DIRECTORY, 0);
    if (*fd_out >= 0 || errno == EACCES) /* we may create files here but not list them; SQLite goes on too */
        return SQLITE_OK;
    return thr_os_fail(errno, SQLITE_CANTOPEN);
}

int thr_os_sync_dir(int fd)
{
    int err = fd < 0 ? 0 : thr_os_fault_fd(THR_OS_SYNC, fd);

    if (fd < 0)
        return SQLITE_OK;
    THR_OS_TRY(err, fsync(fd));
    if (err == 0 || err == EINVAL) /* EINVAL: a file system that syncs no directories */
        return SQLITE_OK;
    return thr_os_fail(err, SQLITE_IOERR_DIR_FSYNC);
}

int thr_os_open_parent(const char *path, const char **name_out)
{
    const char *slash = strrchr(path, '/');
    char parent[PATH_MAX] = ".";

    *name_out = slash == NULL ? path : slash + 1;
    if (slash == path)
        slash++;
    if (slash != NULL && (size_t)(slash - path) >= sizeof parent) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (slash != NULL) {
        memcpy(parent, path, (size_t)(slash - path));
        parent[slash - path] = '\0';
    }
    return thr_os_open_high(parent, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
}

int thr_os_unlink(const char *path)
{
    int err = thr_os_fault_path(THR_OS_UNLINK, path), directory = -1;
    const char *name = path;

    if (err == 0 && (directory = thr_os_open_parent(path, &name)) < 0)
        err = errno;
    THR_OS_TRY(err, unlinkat(directory, name, 0));
    thr_os_close(directory);
    return err == 0 || err == ENOENT ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR_DELETE);
}

int thr_os_unlink_at(int directory, const char *name)
{
    int err = thr_os_fault_path(THR_OS_UNLINK, name);

    THR_OS_TRY(err, unlinkat(directory, name, 0));
    return err == 0 || err == ENOENT ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR_DELETE);
}

bool thr_os_may_trust(uint32_t uid, uint32_t owner)
{
    return uid == owner || uid == 0 || uid == (uint32_t)geteuid();
}

void thr_os_give(int fd, uint32_t mode, uint32_t uid, uint32_t gid)
{
    uint32_t both = mode >> 3 & mode & 07;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return;
    if ((st.st_uid != uid || st.st_gid != gid) && fchown(fd, uid, gid) != 0 && st.st_gid != gid)
        (void)fchown(fd, (uid_t)-1, gid); /* a member of the group may give it that */
    if (fstat(fd, &st) != 0)
        return;
    if (st.st_gid != gid)
        mode = (mode & ~077u) | both << 3 | both;
    if (st.st_uid != uid)
        mode |= S_ISDIR(st.st_mode) ? 0700 : 0600;
    if (S_ISDIR(st.st_mode))
        mode |= st.st_mode & S_ISGID; /* from the parent */
    (void)fchmod(fd, (mode_t)mode);   /* a file system without modes may refuse: then it needs none */
}

/* It was made a moment ago; if it is a link now, or the directory of a stranger, that was put in its place. */
static int open_made(const char *path, uint32_t owner, struct stat *st, int *fd_out)
{
    int err = 0;

    if ((*fd_out = thr_os_open_high(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)) < 0)
        return errno;
    THR_OS_TRY(err, fstat(*fd_out, st));
    return err != 0 || thr_os_may_trust(st->st_uid, owner) ? err : ELOOP;
}

int thr_os_mkdir(const char *path, uint32_t mode, const struct thr_stat *like)
{
    int err = thr_os_fault_path(THR_OS_MKDIR, path), fd = -1;
    struct stat st = {.st_uid = 0};
    bool made;

    THR_OS_TRY(err, mkdir(path, 0700));
    made = err == 0;
    if (err == 0)
        err = open_made(path, like != NULL ? like->uid : geteuid(), &st, &fd);
    if (err == 0)
        thr_os_give(fd, mode, like != NULL ? like->uid : st.st_uid, like != NULL ? like->gid : st.st_gid);
    else if (made && err != ELOOP && err != ENOTDIR)
        (void)rmdir(path);
    thr_os_close(fd);
    switch (err) {
    case 0:
        return SQLITE_OK;
    case EEXIST:
        return thr_os_fail(err, SQLITE_CONSTRAINT);
    case EACCES:
    case EROFS:
    case EPERM:
        return thr_os_fail(err, SQLITE_READONLY);
    default:
        return thr_os_fail_full(err, SQLITE_CANTOPEN);
    }
}

int thr_os_rmdir(const char *path)
{
    int err = thr_os_fault_path(THR_OS_RMDIR, path);

    THR_OS_TRY(err, rmdir(path));
    return err == 0 || err == ENOENT ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR_DELETE);
}

int thr_os_rename(const char *from, const char *to)
{
    int err = thr_os_fault_path(THR_OS_RENAME, from);

    THR_OS_TRY(err, rename(from, to));
    return err == 0 ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR);
}

int thr_os_rename_at(int directory, const char *from, const char *to)
{
    int err = thr_os_fault_path(THR_OS_RENAME, from);

    THR_OS_TRY(err, renameat(directory, from, directory, to));
    return err == 0 ? SQLITE_OK : thr_os_fail(err, SQLITE_IOERR);
}

static int open_failure(int err)
{
    if (err == ENOENT || err == ENOTDIR)
        return thr_os_fail(err, SQLITE_NOTFOUND);
    return thr_os_fail(err, err == ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN);
}

/* Consumes `fd`. */
static int list_names(int fd, int (*fn)(void *ctx, const char *name), void *ctx)
{
    struct dirent *entry;
    DIR *dir = fdopendir(fd);
    int rc = SQLITE_OK;

    if (dir == NULL) {
        rc = open_failure(errno);
        thr_os_close(fd);
        return rc;
    }
    while (rc == SQLITE_OK) {
        errno = 0;
        if ((entry = readdir(dir)) == NULL) {
            if (errno != 0)
                rc = thr_os_fail(errno, SQLITE_IOERR_READ);
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = fn(ctx, entry->d_name);
    }
    (void)closedir(dir);
    return rc;
}

int thr_os_list(const char *directory, int (*fn)(void *ctx, const char *name), void *ctx)
{
    int err = thr_os_fault_path(THR_OS_LIST, directory), fd;

    if (err != 0)
        return open_failure(err);
    fd = thr_os_open_high(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    return fd < 0 ? open_failure(errno) : list_names(fd, fn, ctx);
}

int thr_os_list_at(int directory, int (*fn)(void *ctx, const char *name), void *ctx)
{
    int err = thr_os_fault_fd(THR_OS_LIST, directory), fd = -1;

    /* Open it anew: a copy of the descriptor would share its place in the list. */
    THR_OS_TRY(err, fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return err != 0 ? open_failure(err) : list_names(fd, fn, ctx);
}

char *thr_os_join(const char *directory, const char *name)
{
    size_t bytes = strlen(directory) + strlen(name) + sizeof "/";
    char *path = thr_os_alloc(bytes);

    if (path != NULL)
        (void)snprintf(path, bytes, "%s/%s", directory, name);
    return path;
}

int thr_os_realpath(const char *path, char *out, size_t out_bytes)
{
    int err = thr_os_fault_path(THR_OS_STAT, path);
    char resolved[PATH_MAX];

    if (out_bytes > 0)
        out[0] = '\0';
    if (err == 0 && realpath(path, resolved) == NULL)
        err = errno;
    if (err == 0 && strlen(resolved) >= out_bytes)
        err = ENAMETOOLONG;
    if (err != 0)
        return open_failure(err);
    memcpy(out, resolved, strlen(resolved) + 1);
    return SQLITE_OK;
}
