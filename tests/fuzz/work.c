/* SPDX-License-Identifier: MIT */
#include "work.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static char directory[PATH_MAX / 2];

void work_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list ap;

    (void)fprintf(stderr, "%s:%d: %s: ", file, line, condition);
    va_start(ap, format);
    (void)vfprintf(stderr, format, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    abort();
}

static void work_end(void)
{
    work_remove(directory);
}

void work_begin(size_t file_max)
{
    const char *tmp = getenv("TMPDIR");
    char name[PATH_MAX / 2];
    struct rlimit limit;
    int fd;

    (void)snprintf(name, sizeof name, "%s/throng-fuzz-XXXXXX",
                   tmp != NULL                  ? tmp
                   : access("/dev/shm", 2) == 0 ? "/dev/shm"
                                                : "/tmp");
    if (mkdtemp(name) == NULL || realpath(name, directory) == NULL || (fd = open(name, O_PATH | O_CLOEXEC)) < 0 ||
        dup3(fd, WORK_FD, O_CLOEXEC) != WORK_FD || close(fd) != 0 || atexit(work_end) != 0) {
        perror(name);
        exit(1);
    }
    /* A log may say that the database has a TiB. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0) {
        limit.rlim_cur = file_max;
        (void)setrlimit(RLIMIT_FSIZE, &limit);
    }
}

void work_input(void)
{
    (void)signal(SIGXFSZ, SIG_IGN);
}

const char *work_directory(void)
{
    return directory;
}

void work_write(const char *path, const uint8_t *content, size_t bytes, size_t zeros)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);

    if (fd < 0)
        return; /* a name that the file system does not take, or something else in its place */
    if (ftruncate(fd, (off_t)(bytes + zeros)) != 0 || pwrite(fd, content, bytes, 0) != (ssize_t)bytes)
        work_fail(__FILE__, __LINE__, "write", "%s: %s", path, strerror(errno));
    (void)close(fd);
}

uint8_t *work_read(const char *path, size_t *bytes_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    uint8_t *at;

    *bytes_out = 0;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return NULL;
    }
    at = calloc(1, (size_t)st.st_size + 1);
    if (at == NULL || pread(fd, at, (size_t)st.st_size, 0) != (ssize_t)st.st_size)
        work_fail(__FILE__, __LINE__, "read", "%s", path);
    (void)close(fd);
    *bytes_out = (size_t)st.st_size;
    return at;
}

/* Calls `fn` with the path of each name in the directory; false if it is none. */
static int each_name(const char *path, void (*fn)(void *ctx, const char *path, const char *name), void *ctx)
{
    DIR *dir = opendir(path);
    char below[PATH_MAX];

    if (dir == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        fn(ctx, below, entry->d_name);
    }
    (void)closedir(dir);
    return 1;
}

static void remove_below(void *ctx, const char *path, const char *name)
{
    (void)ctx;
    (void)name;
    work_remove(path);
}

void work_remove(const char *path)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return;
    (void)each_name(path, remove_below, NULL);
    (void)rmdir(path);
}

static void add_below(void *ctx, const char *path, const char *name)
{
    uint64_t *sum = ctx;

    *sum += XXH3_64bits_withSeed(name, strlen(name), work_hash(path)); /* in whatever order they are listed */
}

uint64_t work_hash(const char *path)
{
    uint64_t hash = 0;
    struct stat st;
    uint8_t *at;
    size_t bytes;

    if (lstat(path, &st) != 0)
        return 1;
    if (S_ISDIR(st.st_mode)) {
        (void)each_name(path, add_below, &hash);
        return hash + 2;
    }
    if (!S_ISREG(st.st_mode))
        return 3 + st.st_mode;
    at = work_read(path, &bytes);
    hash = XXH3_64bits_withSeed(at, bytes, 5);
    free(at);
    return hash;
}
