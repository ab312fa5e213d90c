/* A parameter of every database's URI, from the environment: SQLite's tests open their files by plain names. The linker
 * sends the engine's calls of sqlite3_uri_parameter() here.
 *
 * Environment: THRONG_SUITE_CHECKPOINT is checkpoint_bytes of each database.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

const char *__real_sqlite3_uri_parameter(const char *path, const char *name);
const char *__wrap_sqlite3_uri_parameter(const char *path, const char *name);

const char *__wrap_sqlite3_uri_parameter(const char *path, const char *name)
{
    const char *value = __real_sqlite3_uri_parameter(path, name);

    if (value == NULL && strcmp(name, "checkpoint_bytes") == 0)
        value = getenv("THRONG_SUITE_CHECKPOINT");
    return value;
}
