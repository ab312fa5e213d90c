/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { SECTOR = 512, NAMES = 64, FILES = 512 };

struct content {
    uint8_t *at;
    size_t used; /* all zeros from here on */
    size_t size;
};

/* A file as the kernel has it. It is kept open, so that it can be read after it was deleted. */
struct file {
    ino_t ino;
    int fd;
    struct content synced;
};

struct name {
    char name[256]; /* "" is the database itself, else in its directory */
    int database, file;
};

struct names {
    struct name at[NAMES];
    int count;
    bool directory[DISK_DATABASES]; /* <db>-journal is there */
};

struct disk_moment {
    struct names now, synced;
    struct content current[FILES], durable[FILES];
    int file_count;
};

static char path[DISK_DATABASES][PATH_SIZE];
static int database_count;
static struct file files[FILES];
static int file_count;
static struct names names_synced;

static struct content content_copy(const struct content *from)
{
    struct content to = {malloc(from->used + 1), from->used, from->size};

    CHECK(to.at != NULL);
    if (from->used > 0)
        memcpy(to.at, from->at, from->used);
    return to;
}

static struct content content_read(int fd)
{
    static const uint8_t ZEROS[4096];
    struct content to = {NULL, 0, 0};
    struct stat status;
    const uint8_t *at;

    CHECK_EQUAL(fstat(fd, &status), 0);
    to.size = to.used = (size_t)status.st_size;
    if (to.size == 0)
        return to;
    at = mmap(NULL, to.size, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED);
    while (to.used >= sizeof ZEROS && memcmp(at + to.used - sizeof ZEROS, ZEROS, sizeof ZEROS) == 0)
        to.used -= sizeof ZEROS;
    to.at = malloc(to.used + 1);
    CHECK(to.at != NULL);
    memcpy(to.at, at, to.used);
    CHECK_EQUAL(munmap((void *)(uintptr_t)at, to.size), 0);
    return to;
}

static int file_of(const char *at)
{
    struct stat status;
    int fd = open(at, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    CHECK_EQUAL(fstat(fd, &status), 0);
    for (int i = 0; i < file_count; i++) {
        if (files[i].ino == status.st_ino) {
            (void)close(fd);
            return i;
        }
    }
    CHECK(file_count < FILES);
    files[file_count] = (struct file){.ino = status.st_ino, .fd = fd};
    return file_count++;
}

static void name_add(struct names *names, const char *name, int database, int file)
{
    struct name *to = &names->at[names->count++];

    CHECK(names->count <= NAMES);
    *to = (struct name){.database = database, .file = file};
    (void)snprintf(to->name, sizeof to->name, "%s", name);
}

/* Only these are read by recovery. */
static bool counts(const char *name)
{
    return strncmp(name, "log-", 4) == 0 || strcmp(name, "horizon") == 0;
}

static void names_read(struct names *names)
{
    char journal[PATH_SIZE], at[2 * PATH_SIZE];
    struct dirent *entry;

    memset(names, 0, sizeof *names);
    for (int i = 0; i < database_count; i++) {
        DIR *directory = opendir(path_beside(journal, path[i], "-journal"));
        int file = file_of(path[i]);

        if (file >= 0)
            name_add(names, "", i, file);
        names->directory[i] = directory != NULL;
        while (directory != NULL && (entry = readdir(directory)) != NULL) {
            (void)snprintf(at, sizeof at, "%s/%s", journal, entry->d_name);
            if (counts(entry->d_name) && (file = file_of(at)) >= 0)
                name_add(names, entry->d_name, i, file);
        }
        if (directory != NULL)
            (void)closedir(directory);
    }
}

void disk_watch(const char *const *databases, int count)
{
    CHECK(count <= DISK_DATABASES);
    disk_forget();
    for (int i = 0; i < count; i++)
        (void)snprintf(path[i], PATH_SIZE, "%s", databases[i]);
    database_count = count;
}

void disk_forget(void)
{
    for (int i = 0; i < file_count; i++) {
        (void)close(files[i].fd);
        free(files[i].synced.at);
    }
    file_count = database_count = 0;
    memset(&names_synced, 0, sizeof names_synced);
}

bool disk_is_sync(enum thr_os_call call, const char *at)
{
    return call == THR_OS_SYNC && at != NULL && strncmp(at, path_directory(), strlen(path_directory())) == 0;
}

void disk_synced(const char *at)
{
    struct stat status;
    int file;

    if (stat(at, &status) != 0)
        return;
    if (S_ISDIR(status.st_mode)) {
        names_read(&names_synced);
    } else if ((file = file_of(at)) >= 0) {
        free(files[file].synced.at);
        files[file].synced = content_read(files[file].fd);
    }
}

struct disk_moment *disk_moment_take(void)
{
    struct disk_moment *moment = calloc(1, sizeof *moment);

    CHECK(moment != NULL);
    names_read(&moment->now);
    moment->synced = names_synced;
    moment->file_count = file_count;
    for (int i = 0; i < file_count; i++) {
        moment->current[i] = content_read(files[i].fd);
        moment->durable[i] = content_copy(&files[i].synced);
    }
    return moment;
}

void disk_moment_free(struct disk_moment *moment)
{
    for (int i = 0; i < moment->file_count; i++) {
        free(moment->current[i].at);
        free(moment->durable[i].at);
    }
    free(moment);
}

static void write_mix(const char *to, const struct content *durable, const struct content *current, struct prng *prng,
                      int lost)
{
    size_t used = current->used > durable->used ? current->used : durable->used;
    uint8_t *bytes = calloc(1, used + SECTOR);

    CHECK(bytes != NULL);
    if (durable->used > 0)
        memcpy(bytes, durable->at, durable->used);
    for (size_t at = 0; at < used; at += SECTOR) {
        uint8_t sector[SECTOR] = {0};

        if (at < current->used)
            memcpy(sector, current->at + at, current->used - at < SECTOR ? current->used - at : SECTOR);
        if (memcmp(bytes + at, sector, SECTOR) != 0 && prng_below(prng, 100) >= lost)
            memcpy(bytes + at, sector, SECTOR);
    }
    file_write(to, bytes, used);
    CHECK_EQUAL(truncate(to, (off_t)(prng_below(prng, 100) >= lost ? current->size : durable->size)), 0);
    free(bytes);
}

/* The made-up file is the one that was in use, not a copy: recovery asks less of that (src/ckpt/fit.h). */
static void horizon_adopt(const char *horizon, const char *to)
{
    enum { PLACE = 56, APART = 512, FILE_AT = 32 };
    uint8_t place[PLACE];
    uint64_t number, hash;
    int fd = open(to, O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0);
    number = thr_os_file_number(fd);
    (void)close(fd);
    for (int at = 0; at <= APART && file_size(horizon) >= at + PLACE; at += APART) {
        file_read(horizon, at, place, PLACE);
        memcpy(&hash, place + PLACE - sizeof hash, sizeof hash);
        if (hash != XXH3_64bits(place, PLACE - sizeof hash))
            continue;
        memcpy(place + FILE_AT, &number, sizeof number);
        hash = XXH3_64bits(place, PLACE - sizeof hash);
        memcpy(place + PLACE - sizeof hash, &hash, sizeof hash);
        file_patch(horizon, at, place, PLACE);
    }
}

static void make(const struct disk_moment *moment, const struct names *names, const char *const *to, int lost,
                 struct prng *prng)
{
    char at[2 * PATH_SIZE];

    for (int i = 0; i < DISK_DATABASES; i++) {
        if (!names->directory[i])
            continue;
        (void)snprintf(at, sizeof at, "%s-journal", to[i]);
        CHECK_EQUAL(mkdir(at, 0700), 0);
    }
    for (int i = 0; i < names->count; i++) {
        const struct name *name = &names->at[i];

        if (name->name[0] == '\0')
            (void)snprintf(at, sizeof at, "%s", to[name->database]);
        else
            (void)snprintf(at, sizeof at, "%s-journal/%s", to[name->database], name->name);
        write_mix(at, &moment->durable[name->file], &moment->current[name->file], prng, lost);
    }
    for (int i = 0; i < DISK_DATABASES; i++) {
        if (!names->directory[i])
            continue;
        (void)snprintf(at, sizeof at, "%s-journal/horizon", to[i]);
        if (file_exists(at))
            horizon_adopt(at, to[i]);
    }
}

static int databases_in(const struct names *names)
{
    int count = 0;

    for (int i = 0; i < names->count; i++)
        count += names->at[i].name[0] == '\0';
    return count;
}

void disk_make(const struct disk_moment *moment, enum disk_loss loss, const char *const *to, struct prng *prng)
{
    static const int LOST[] = {0, 5, 30, 60, 95, 100};
    const struct names *names = &moment->now;
    int lost = loss == DISK_LOSES_ALL ? 100 : 0;

    if (loss == DISK_LOSES_SOME) {
        if (prng_chance(prng, 4) && databases_in(&moment->synced) == databases_in(&moment->now))
            names = &moment->synced;
        lost = LOST[prng_below(prng, 6)];
    }
    make(moment, names, to, lost, prng);
}

void disk_remove(const char *const *databases, int count)
{
    char journal[PATH_SIZE], at[2 * PATH_SIZE];
    struct dirent *entry;

    for (int i = 0; i < count; i++) {
        DIR *directory = opendir(path_beside(journal, databases[i], "-journal"));

        while (directory != NULL && (entry = readdir(directory)) != NULL) {
            (void)snprintf(at, sizeof at, "%s/%s", journal, entry->d_name);
            (void)unlink(at); /* but for . and .. */
        }
        if (directory != NULL)
            (void)closedir(directory);
        (void)rmdir(journal);
        (void)unlink(databases[i]);
    }
}
