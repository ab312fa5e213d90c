/* The directory that a benchmark works in.
 *
 * SPDX-License-Identifier: MIT */
#include "directory.h"

#include <errno.h>
#include <ftw.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define OPEN_DIRECTORIES 16

static bool is_memory_with(const char *path, uint64_t bytes)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC && access(path, W_OK | X_OK) == 0 &&
           (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize >= bytes;
}

const char *thr_directory_make(const char *parent, uint64_t bytes_wanted, char *path_out, size_t path_bytes)
{
    static char message[512];

    if (parent == NULL && is_memory_with("/dev/shm", bytes_wanted))
        parent = "/dev/shm";
    if (parent == NULL)
        parent = getenv("TMPDIR");
    if (parent == NULL)
        parent = "/tmp";
    if ((size_t)snprintf(path_out, path_bytes, "%s/throng-bench-XXXXXX", parent) >= path_bytes)
        return "the path of the directory is too long";
    if (mkdtemp(path_out) == NULL) {
        (void)snprintf(message, sizeof message, "cannot make a directory in %s: %s", parent, strerror(errno));
        return message;
    }
    return NULL;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    (void)remove(path);
    return 0;
}

void thr_directory_remove(const char *path)
{
    (void)nftw(path, remove_one, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS);
}
