/* The public interface of the library.
 *
 * SPDX-License-Identifier: MIT */
#include "throng.h"

#include "vfs.h"

static int each_connection(sqlite3 *db, char **error, const struct sqlite3_api_routines *api)
{
    (void)error;
    (void)api;
    return thr_stats_register(db);
}

__attribute__((visibility("default"))) int throng_register(int make_default)
{
    int rc = sqlite3_initialize();

    if (rc == SQLITE_OK)
        rc = thr_register(make_default);
    if (rc == SQLITE_OK)
        rc = sqlite3_auto_extension((void (*)(void))each_connection);
    return rc;
}

__attribute__((visibility("default"))) const char *throng_version(void)
{
    return THRONG_VERSION;
}
