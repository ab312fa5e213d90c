/* SPDX-License-Identifier: MIT */
#include "horizon.h"

#include <sqlite3.h>
#include <stddef.h>
#include <string.h>
#include <xxhash.h>

#include "../os/os.h"

struct place {
    char magic[8];
    uint64_t turn;
    uint64_t number;
    uint64_t identity;
    uint64_t file;
    uint64_t closed;
    uint64_t hash;
};

enum { PLACE_BYTES = 512, OLD_HASHED = 24, OLD_BYTES = 32 };
static const char NAME[] = "horizon";

static bool is_whole(struct place *place, size_t bytes)
{
    if (bytes == sizeof *place && memcmp(place->magic, "ThrgHor2", 8) == 0)
        return place->hash == XXH3_64bits(place, offsetof(struct place, hash));
    if (bytes < OLD_BYTES || memcmp(place->magic, "ThrgHor1", 8) != 0 ||
        place->identity != XXH3_64bits(place, OLD_HASHED)) /* that is where its hash is */
        return false;
    place->identity = place->file = place->closed = 0;
    return true;
}

/* The place that counts; turn 0 if there is none. */
static int read_places(int fd, struct place *out)
{
    struct place place;
    size_t got;
    int rc;

    memset(out, 0, sizeof *out);
    for (int i = 0; i < 2; i++) {
        memset(&place, 0, sizeof place);
        if ((rc = thr_os_read(fd, &place, sizeof place, i * PLACE_BYTES, &got)) != SQLITE_OK)
            return rc;
        if (is_whole(&place, got) && place.turn > out->turn)
            *out = place;
    }
    return SQLITE_OK;
}

int thr_horizon_read(const char *directory, bool *found_out, struct thr_horizon *out)
{
    char *path = thr_os_join(directory, NAME);
    struct place place = {.turn = 0};
    struct thr_stat stat;
    int fd, rc;

    if (path == NULL)
        return SQLITE_NOMEM;
    rc = thr_os_stat(path, &stat);
    if (rc == SQLITE_OK && !stat.is_regular)
        rc = SQLITE_CANTOPEN; /* to read a pipe could take forever */
    if (rc == SQLITE_OK && (rc = thr_os_open(path, THR_OPEN_INSIDE, 0, &fd, NULL)) == SQLITE_OK) {
        rc = read_places(fd, &place);
        thr_os_close(fd);
    } else if (rc == SQLITE_NOTFOUND) {
        rc = SQLITE_OK;
    }
    thr_os_free(path);
    *found_out = rc == SQLITE_OK && place.turn != 0;
    *out = (struct thr_horizon){place.number, place.identity, place.file, place.closed != 0};
    return rc;
}

int thr_horizon_write(int directory_fd, uint32_t mode, const struct thr_horizon *horizon, bool sync)
{
    struct place place;
    int fd, rc;

    rc = thr_os_open_at(directory_fd, NAME, THR_OPEN_WRITE | THR_OPEN_CREATE, mode, &fd);
    if (rc != SQLITE_OK)
        return rc;
    if ((rc = read_places(fd, &place)) == SQLITE_OK) {
        memcpy(place.magic, "ThrgHor2", 8);
        place.turn++;
        place.number = horizon->number;
        place.identity = horizon->identity;
        place.file = horizon->file;
        place.closed = horizon->closed;
        place.hash = XXH3_64bits(&place, offsetof(struct place, hash));
        rc = thr_os_write(fd, &place, sizeof place, (int64_t)(place.turn % 2) * PLACE_BYTES);
    }
    if (rc == SQLITE_OK && sync)
        rc = thr_os_sync(fd);
    thr_os_close(fd);
    return rc;
}
