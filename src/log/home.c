/* SPDX-License-Identifier: MIT */
#include "home.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "../os/os.h"
#include "../os/point.h"
#include "log.h"

static const char LOCK[] = "lock";

bool thr_home_owns(const char *name, uint64_t *number_out)
{
    static const char *const OTHERS[] = {"heap", "shm", "horizon", LOCK};
    char canonical[THR_LOG_NAME_BYTES];

    *number_out = 0;
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        if (strcmp(name, OTHERS[i]) == 0)
            return true;
    if (strncmp(name, "scratch-", 8) == 0)
        return true;
    if (strncmp(name, "log-", 4) != 0)
        return false;
    *number_out = strtoull(name + 4, NULL, 10);
    thr_log_name(*number_out, canonical);
    return *number_out != 0 && strcmp(name, canonical) == 0;
}

static int find(const char *directory, const struct thr_home *home, bool *in_place_out)
{
    struct thr_stat stat;
    int rc = thr_os_lstat(directory, &stat);

    *in_place_out = rc == SQLITE_OK && stat.dev == home->dev && stat.ino == home->ino &&
                    !thr_os_is_nameless(home->lock_fd);
    return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}

bool thr_home_is_in_place(const char *directory, const struct thr_home *home)
{
    bool in_place;

    return find(directory, home, &in_place) == SQLITE_OK && in_place;
}

int thr_home_take(const char *directory, uint32_t mode, struct thr_home *out)
{
    struct thr_stat stat;
    bool in_place = false;
    int rc = thr_os_lstat(directory, &stat);

    *out = THR_HOME_NONE;
    if (rc == SQLITE_OK && !stat.is_dir)
        rc = SQLITE_NOTFOUND;
    if (rc != SQLITE_OK || (rc = thr_os_open_dir(directory, &out->fd)) != SQLITE_OK)
        return rc;
    if (out->fd < 0 || (rc = thr_os_fstat(out->fd, &stat)) != SQLITE_OK) {
        rc = rc == SQLITE_OK ? SQLITE_CANTOPEN : rc;
        goto err;
    }
    out->dev = stat.dev;
    out->ino = stat.ino;
    rc = thr_os_open_at(out->fd, LOCK, THR_OPEN_WRITE, 0, &out->lock_fd);
    if (rc == SQLITE_CANTOPEN) {
        rc = thr_os_open_at(out->fd, LOCK, THR_OPEN_WRITE | THR_OPEN_CREATE | THR_OPEN_EXCL, mode, &out->lock_fd);
        out->made_lock = rc == SQLITE_OK;
    }
    if (rc != SQLITE_OK || (rc = thr_os_lock(out->lock_fd, true, 0, 0)) != SQLITE_OK)
        goto err;
    if ((rc = find(directory, out, &in_place)) == SQLITE_OK && !in_place)
        rc = SQLITE_BUSY; /* its last owner was removing it */
    if (rc != SQLITE_OK)
        goto err;
    return SQLITE_OK;

err:
    thr_home_let_go(out, rc != SQLITE_BUSY);
    return rc;
}

void thr_home_let_go(struct thr_home *home, bool undo)
{
    struct thr_home was = *home;

    *home = THR_HOME_NONE; /* first: a child that is forked now must not close what is another's by then */
    if (undo && was.made_lock && was.lock_fd >= 0)
        thr_os_unlink_at(was.fd, LOCK);
    if (was.lock_fd >= 0)
        thr_os_close(was.lock_fd);
    if (was.fd >= 0)
        thr_os_close(was.fd);
}

void thr_home_abandon(struct thr_home *home)
{
    thr_home_let_go(home, false);
}

struct names {
    uint64_t *numbers;
    size_t count, capacity;
    int fd;
};

static int note_segment(void *ctx, const char *name)
{
    struct names *names = ctx;
    uint64_t number, *at;

    if (!thr_home_owns(name, &number) || number == 0)
        return SQLITE_OK;
    if (names->count == names->capacity) {
        names->capacity = names->capacity > 0 ? names->capacity * 2 : 16;
        if ((at = thr_os_realloc(names->numbers, names->capacity * sizeof *at)) == NULL)
            return SQLITE_NOMEM;
        names->numbers = at;
    }
    names->numbers[names->count++] = number;
    return SQLITE_OK;
}

static int remove_other(void *ctx, const char *name)
{
    const struct names *names = ctx;
    uint64_t number;

    if (thr_home_owns(name, &number) && number == 0 && strcmp(name, LOCK) != 0)
        thr_os_unlink_at(names->fd, name);
    return SQLITE_OK;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int thr_home_remove(const char *directory, struct thr_home *home)
{
    struct names names = {.fd = home->fd};
    char name[THR_LOG_NAME_BYTES];
    int rc = thr_os_list_at(home->fd, note_segment, &names);

    if (names.count > 1)
        qsort(names.numbers, names.count, sizeof *names.numbers, ascending);
    for (size_t i = 0; i < names.count && rc == SQLITE_OK; i++) {
        thr_log_name(names.numbers[i], name);
        rc = thr_os_unlink_at(home->fd, name);
        THR_POINT("remove");
    }
    thr_os_free(names.numbers);
    if (rc == SQLITE_OK)
        rc = thr_os_list_at(home->fd, remove_other, &names);
    if (rc != SQLITE_OK)
        return rc;
    if (!thr_home_is_in_place(directory, home)) { /* moved away, or gone: the name is another's */
        thr_os_unlink_at(home->fd, LOCK);
        thr_home_let_go(home, false);
        return SQLITE_OK;
    }
    if ((rc = thr_os_unlink_at(home->fd, LOCK)) == SQLITE_OK && (rc = thr_os_rmdir(directory)) == SQLITE_OK)
        thr_home_let_go(home, false);
    return rc;
}
