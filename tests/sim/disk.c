/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 64, NAMES = 16, SECTOR = 512, DATABASES = 2, NAME_BYTES = 256, PATH_BYTES = 128 };

struct content {
    unsigned char *at;
    size_t size;
};

/* Kept open, so that it can be read after it was deleted. */
struct file {
    ino_t ino;
    int fd;
    struct content synced;
};

struct name {
    char name[NAME_BYTES]; /* in the directory */
    int file;
};

struct names {
    struct name at[NAMES];
    int count;
    bool directory;
};

static bool watching;
static int database_count;
static char paths[DATABASES][PATH_BYTES], directories[DATABASES][PATH_BYTES + 16];
static struct file files[FILES];
static int file_count;
static struct names synced[DATABASES];

static struct content content_read(int fd)
{
    struct content content = {NULL, 0};
    struct stat stat;

    if (fstat(fd, &stat) != 0)
        sim_failed("a file cannot be looked at");
    content.size = (size_t)stat.st_size;
    content.at = malloc(content.size + SECTOR);
    if (content.at == NULL || pread(fd, content.at, content.size, 0) != (ssize_t)content.size)
        sim_failed("a file cannot be read");
    memset(content.at + content.size, 0, SECTOR);
    return content;
}

/* -1: no such file. A new one has nothing that is durable. */
static int file_at(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat stat;

    if (fd < 0)
        return -1;
    if (fstat(fd, &stat) != 0)
        sim_failed("a file cannot be looked at");
    for (int i = 0; i < file_count; i++)
        if (files[i].ino == stat.st_ino) {
            (void)close(fd);
            return i;
        }
    if (file_count == FILES)
        sim_failed("more files than there is room for");
    files[file_count] = (struct file){.ino = stat.st_ino, .fd = fd};
    return file_count++;
}

static void file_is_synced(int file)
{
    free(files[file].synced.at);
    files[file].synced = content_read(files[file].fd);
}

/* Recovery reads no others. */
static bool counts(const char *name)
{
    return strncmp(name, "log-", 4) == 0 || strcmp(name, "horizon") == 0;
}

static void names_read(int d, struct names *names)
{
    char path[2 * PATH_BYTES + NAME_BYTES];
    DIR *directory = opendir(directories[d]);
    struct dirent *entry;

    names->count = 0;
    names->directory = directory != NULL;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        struct name *name = &names->at[names->count];

        if (!counts(entry->d_name))
            continue;
        if (names->count == NAMES)
            sim_failed("more names than there is room for");
        (void)snprintf(name->name, sizeof name->name, "%s", entry->d_name);
        (void)snprintf(path, sizeof path, "%s/%s", directories[d], entry->d_name);
        if ((name->file = file_at(path)) >= 0)
            names->count++;
    }
    if (directory != NULL)
        (void)closedir(directory);
}

void disk_paths(int count, const char *const *at)
{
    database_count = count;
    for (int d = 0; d < count; d++) {
        (void)snprintf(paths[d], sizeof paths[d], "%s", at[d]);
        (void)snprintf(directories[d], sizeof directories[d], "%s-journal", at[d]);
    }
}

void disk_forget(void)
{
    for (int i = 0; i < file_count; i++) {
        (void)close(files[i].fd);
        free(files[i].synced.at);
    }
    file_count = 0;
    watching = false;
}

void disk_watch(bool on)
{
    watching = on;
    for (int d = 0; on && d < database_count; d++) {
        (void)file_at(paths[d]);
        names_read(d, &synced[d]);
    }
    for (int i = 0; on && i < file_count; i++)
        file_is_synced(i);
}

/* --- what the engine calls (instrument.h) --- */

int sim_fdatasync(int fd)
{
    struct stat stat;

    if (!watching)
        return 0;
    if (fstat(fd, &stat) != 0)
        return -1;
    for (int i = 0; i < file_count; i++)
        if (files[i].ino == stat.st_ino) {
            file_is_synced(i);
            return 0;
        }
    if (file_count == FILES)
        sim_failed("more files than there is room for");
    files[file_count] = (struct file){.ino = stat.st_ino, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)};
    file_is_synced(file_count++);
    return 0;
}

int sim_fsync(int fd)
{
    struct stat of, directory;

    if (!watching)
        return 0;
    if (fstat(fd, &of) != 0)
        return -1;
    if (!S_ISDIR(of.st_mode))
        return sim_fdatasync(fd);
    for (int d = 0; d < database_count; d++) {
        /* The parent has the directory's name in it. */
        if (stat(directories[d], &directory) != 0)
            synced[d].directory = false;
        else if (directory.st_ino == of.st_ino)
            names_read(d, &synced[d]);
    }
    return 0;
}

/* --- the cut --- */

static void write_mix(const char *path, const struct file *file, const struct content *now, struct chance *chance,
                      uint32_t lost)
{
    const struct content *then = &file->synced;
    size_t size = now->size > then->size ? now->size : then->size;
    unsigned char *mix = calloc(1, size + SECTOR);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (mix == NULL || fd < 0)
        sim_failed("%s cannot be written", path);
    if (then->size > 0)
        memcpy(mix, then->at, then->size);
    for (size_t at = 0; at < size; at += SECTOR) {
        unsigned char sector[SECTOR] = {0};

        if (at < now->size)
            memcpy(sector, now->at + at, now->size - at < SECTOR ? now->size - at : SECTOR);
        if (memcmp(mix + at, sector, SECTOR) != 0 && chance_below(chance, 100) >= lost)
            memcpy(mix + at, sector, SECTOR);
    }
    size = chance_below(chance, 100) >= lost ? now->size : then->size;
    if (pwrite(fd, mix, size, 0) != (ssize_t)size || ftruncate(fd, (off_t)size) != 0)
        sim_failed("%s cannot be written", path);
    (void)close(fd);
    free(mix);
}

static void cut_one(int d, struct chance *chance)
{
    static const uint32_t LOST[] = {0, 5, 30, 60, 95, 100};
    uint32_t lost = LOST[chance_below(chance, 6)];
    struct names now, *names;
    struct content contents[NAMES];
    char path[2 * PATH_BYTES + NAME_BYTES];
    struct dirent *entry;
    DIR *directory;
    int base = file_at(paths[d]);
    struct content base_now = content_read(files[base].fd);

    names_read(d, &now);
    names = chance_one_in(chance, 4) ? &synced[d] : &now;
    for (int i = 0; i < names->count; i++)
        contents[i] = content_read(files[names->at[i].file].fd);
    write_mix(paths[d], &files[base], &base_now, chance, lost);
    if ((directory = opendir(directories[d])) != NULL) {
        while ((entry = readdir(directory)) != NULL) {
            (void)snprintf(path, sizeof path, "%s/%s", directories[d], entry->d_name);
            (void)unlink(path);
        }
        (void)closedir(directory);
        if (!names->directory)
            (void)rmdir(directories[d]);
    } else if (names->directory) {
        (void)mkdir(directories[d], 0755);
    }
    for (int i = 0; i < names->count; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", directories[d], names->at[i].name);
        write_mix(path, &files[names->at[i].file], &contents[i], chance, lost);
    }
}

void disk_cut(struct chance *chance, const bool *cut)
{
    for (int d = 0; d < database_count; d++)
        if (cut[d])
            cut_one(d, chance);
}
