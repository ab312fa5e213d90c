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
    uint64_t hash;
};

enum { PLACE_BYTES = 512 };
static const char NAME[] = "horizon";

/* The place that counts; turn 0 if there is none. */
static int read_places(int fd, struct place *out)
{
    struct place place;
    size_t got;
    int rc;

    *out = (struct place){.number = 1};
    for (int i = 0; i < 2; i++) {
        if ((rc = thr_os_read(fd, &place, sizeof place, i * PLACE_BYTES, &got)) != SQLITE_OK)
            return rc;
        if (got == sizeof place && memcmp(place.magic, "ThrgHor1", 8) == 0 &&
            place.hash == XXH3_64bits(&place, offsetof(struct place, hash)) && place.turn > out->turn)
            *out = place;
    }
    return SQLITE_OK;
}

int thr_horizon_read(const char *directory, bool *found_out, uint64_t *number_out)
{
    char *path = thr_os_join(directory, NAME);
    struct thr_stat stat;
    struct place place;
    int fd, rc;

    *found_out = false;
    *number_out = 1;
    if (path == NULL)
        return SQLITE_NOMEM;
    rc = thr_os_stat(path, &stat);
    if (rc == SQLITE_OK && !stat.is_regular)
        rc = SQLITE_CANTOPEN; /* to read a pipe could take forever */
    if (rc == SQLITE_OK && (rc = thr_os_open(path, THR_OPEN_INSIDE, 0, &fd, NULL)) == SQLITE_OK) {
        rc = read_places(fd, &place);
        thr_os_close(fd);
        *found_out = true;
        *number_out = place.number;
    } else if (rc == SQLITE_NOTFOUND) {
        rc = SQLITE_OK;
    }
    thr_os_free(path);
    return rc;
}

int thr_horizon_write(const char *directory, uint32_t mode, uint64_t number, bool sync)
{
    char *path = thr_os_join(directory, NAME);
    struct place place;
    int fd, rc;

    if (path == NULL)
        return SQLITE_NOMEM;
    rc = thr_os_open(path, THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_INSIDE, mode, &fd, NULL);
    thr_os_free(path);
    if (rc != SQLITE_OK)
        return rc;
    if ((rc = read_places(fd, &place)) == SQLITE_OK) {
        memcpy(place.magic, "ThrgHor1", 8);
        place.turn++;
        place.number = number;
        place.hash = XXH3_64bits(&place, offsetof(struct place, hash));
        rc = thr_os_write(fd, &place, sizeof place, (int64_t)(place.turn % 2) * PLACE_BYTES);
    }
    if (rc == SQLITE_OK && sync)
        rc = thr_os_sync(fd);
    thr_os_close(fd);
    return rc;
}
