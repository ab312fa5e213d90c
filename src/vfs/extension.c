/* The loadable extension: `.load throng`, SELECT load_extension('throng').
 *
 * SPDX-License-Identifier: MIT */
#include "vfs.h"

SQLITE_EXTENSION_INIT1

#include "throng.h"

int sqlite3_throng_init(sqlite3 *db, char **error, const sqlite3_api_routines *api);

static int each_connection(sqlite3 *db, char **error, const sqlite3_api_routines *api)
{
    (void)error;
    (void)api;
    return thr_stats_register(db);
}

__attribute__((visibility("default"))) int sqlite3_throng_init(sqlite3 *db, char **error,
                                                               const sqlite3_api_routines *api)
{
    int rc;

    SQLITE_EXTENSION_INIT2(api);
    if (sqlite3_libversion_number() < 3040000) {
        *error = sqlite3_mprintf("throng needs SQLite 3.40 or newer, this is %s", sqlite3_libversion());
        return SQLITE_ERROR;
    }
    if ((rc = thr_register(0)) != SQLITE_OK || (rc = thr_stats_register(db)) != SQLITE_OK ||
        (rc = sqlite3_auto_extension((void (*)(void))each_connection)) != SQLITE_OK)
        return rc;
    return SQLITE_OK_LOAD_PERMANENTLY; /* open files refer to the VFS */
}
