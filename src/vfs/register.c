/* The VFS object: our files for databases and their journals, the base VFS for everything else.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <string.h>

#include "vfs.h"

#include "../os/os.h"
#include "throng.h"

static sqlite3_vfs throng_vfs;
static pthread_mutex_t register_lock = PTHREAD_MUTEX_INITIALIZER;

sqlite3_vfs *thr_base_vfs(void)
{
    return throng_vfs.pAppData;
}

static void to_sqlite_log(int code, const char *message)
{
    sqlite3_log(code, "%s", message);
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t bytes = strlen(name), suffix_bytes = strlen(suffix);

    return bytes >= suffix_bytes && memcmp(name + bytes - suffix_bytes, suffix, suffix_bytes) == 0;
}

/* A rollback journal of ours lives in memory, and a WAL is not needed. */
static int open_beside(sqlite3_vfs *base, const char *name, sqlite3_file *file, int flags, int *flags_out)
{
    struct thr_main_file *main_file = thr_beside_find(name);

    if (main_file != NULL && (flags & SQLITE_OPEN_MAIN_JOURNAL) != 0 && main_file->lock >= SQLITE_LOCK_RESERVED)
        return thr_journal_open(main_file, file);
    if (main_file == NULL && thr_beside_any_foreign())
        return base->xOpen(base, name, file, flags, flags_out);
    if (main_file == NULL)
        thr_log(SQLITE_CANTOPEN,
                "throng: %s was opened by a VFS above that did not say for which database: it must hand down names or "
                "file controls",
                name);
    return SQLITE_CANTOPEN;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *flags_out)
{
    sqlite3_vfs *base = vfs->pAppData;

    file->pMethods = NULL;
    if (name != NULL && (flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL)) != 0)
        return open_beside(base, name, file, flags, flags_out);
    if (name == NULL || (flags & SQLITE_OPEN_MAIN_DB) == 0)
        return base->xOpen(base, name, file, flags, flags_out);
    /* A file that promises not to change needs none of us; nor does one that has no locks. */
    if (!sqlite3_uri_boolean(name, "immutable", 0) && !sqlite3_uri_boolean(name, "nolock", 0))
        return thr_main_open(name, (struct thr_main_file *)(void *)file, flags, flags_out);
    thr_beside_foreign();
    return base->xOpen(base, name, file, flags, flags_out);
}

/* A journal or a WAL of a database of ours: a real one was recovered at open. What stands beside a database that was given
 * to the base VFS is SQLite's, and may be hot. */
static bool is_hidden(const char *name)
{
    return (ends_with(name, "-journal") || ends_with(name, "-wal")) &&
           (!thr_beside_any_foreign() || thr_beside_find(name) != NULL);
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    sqlite3_vfs *base = vfs->pAppData;

    return is_hidden(name) ? SQLITE_OK : base->xDelete(base, name, sync_dir);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *result_out)
{
    sqlite3_vfs *base = vfs->pAppData;

    if (flags == SQLITE_ACCESS_EXISTS && is_hidden(name)) {
        *result_out = 0;
        return SQLITE_OK;
    }
    return base->xAccess(base, name, flags, result_out);
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int bytes, char *out)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xFullPathname(base, name, bytes, out);
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xDlOpen(base, name);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int bytes, char *out)
{
    sqlite3_vfs *base = vfs->pAppData;

    base->xDlError(base, bytes, out);
}

static void (*vfs_dl_sym(sqlite3_vfs *vfs, void *library, const char *name))(void)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xDlSym(base, library, name);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *library)
{
    sqlite3_vfs *base = vfs->pAppData;

    base->xDlClose(base, library);
}

static int vfs_randomness(sqlite3_vfs *vfs, int bytes, char *out)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xRandomness(base, bytes, out);
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xSleep(base, us);
}

static int vfs_current_time(sqlite3_vfs *vfs, double *out)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xCurrentTime(base, out);
}

static int vfs_last_error(sqlite3_vfs *vfs, int bytes, char *out)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xGetLastError == NULL ? 0 : base->xGetLastError(base, bytes, out);
}

static int vfs_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    sqlite3_vfs *base = vfs->pAppData;

    return base->xCurrentTimeInt64(base, out);
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

int thr_register(int make_default)
{
    sqlite3_vfs *base;
    int rc = SQLITE_ERROR;

    pthread_mutex_lock(&register_lock);
    if (throng_vfs.pAppData == NULL) {
        if ((base = sqlite3_vfs_find(NULL)) == NULL || base->iVersion < 2)
            goto done;
        throng_vfs = (sqlite3_vfs){
            .iVersion = 2,
            .szOsFile = max_int(base->szOsFile, max_int(sizeof(struct thr_main_file), sizeof(struct thr_journal_file))),
            .mxPathname = base->mxPathname,
            .zName = "throng",
            .pAppData = base,
            .xOpen = vfs_open,
            .xDelete = vfs_delete,
            .xAccess = vfs_access,
            .xFullPathname = vfs_full_pathname,
            .xDlOpen = vfs_dl_open,
            .xDlError = vfs_dl_error,
            .xDlSym = vfs_dl_sym,
            .xDlClose = vfs_dl_close,
            .xRandomness = vfs_randomness,
            .xSleep = vfs_sleep,
            .xCurrentTime = vfs_current_time,
            .xGetLastError = vfs_last_error,
            .xCurrentTimeInt64 = vfs_current_time_int64,
        };
        thr_os_set_log(to_sqlite_log);
    }
    rc = sqlite3_vfs_register(&throng_vfs, make_default);
done:
    pthread_mutex_unlock(&register_lock);
    return rc;
}
