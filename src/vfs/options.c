/* What the URI of the first connection says about a database.
 *
 * SPDX-License-Identifier: MIT */
#include "open.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../ckpt/checkpoint.h"
#include "../os/os.h"

/* A number of bytes in the URI: digits, then perhaps K, M or G. */
static int read_bytes(const char *path, const char *name, uint64_t least, uint64_t otherwise, uint64_t *out)
{
    static const char UNITS[] = "KMG";
    const char *text = sqlite3_uri_parameter(path, name), *unit;
    unsigned long long value;
    char *end;

    *out = otherwise;
    if (text == NULL)
        return SQLITE_OK;
    errno = 0;
    value = strtoull(text, &end, 10);
    unit = *end == '\0' ? NULL : strchr(UNITS, *end);
    if (unit != NULL && end[1] == '\0' && value < UINT64_C(1) << 30)
        value <<= 10 * (unit - UNITS + 1);
    else if (*end != '\0')
        errno = EINVAL;
    if (errno != 0 || text[0] < '0' || text[0] > '9' || value < least) {
        thr_log(SQLITE_CANTOPEN, "throng: %s=%s: not a number of bytes, such as 256M, or less than %llu", name, text,
                (unsigned long long)least);
        return SQLITE_CANTOPEN;
    }
    *out = value;
    return SQLITE_OK;
}

int thr_options_read(const char *path, struct thr_db *db)
{
    const char *checkpointer = sqlite3_uri_parameter(path, "checkpointer");
    uint64_t large;
    int rc;

    if ((rc = read_bytes(path, "checkpoint_bytes", 1, THR_CHECKPOINT_LOG_BYTES, &db->checkpoint_bytes)) != SQLITE_OK ||
        (rc = read_bytes(path, "heap_limit", THR_HEAP_LEAST, 0, &db->heap.limit_bytes)) != SQLITE_OK)
        return rc;
    large = db->heap.limit_bytes != 0 ? db->heap.limit_bytes : THR_HEAP_LARGE;
    db->pressure_bytes = large / 16;
    if (checkpointer != NULL && strcmp(checkpointer, "thread") != 0 && strcmp(checkpointer, "caller") != 0) {
        thr_log(SQLITE_CANTOPEN, "throng: checkpointer=%s: it is thread or caller", checkpointer);
        return SQLITE_CANTOPEN;
    }
    db->checkpointer_thread = checkpointer != NULL && strcmp(checkpointer, "thread") == 0;
    return SQLITE_OK;
}

int thr_options_check_filesystem(const char *path, int fd)
{
    const char *allowed = sqlite3_uri_parameter(path, "filesystem"), *shared;

    if (allowed != NULL && strcmp(allowed, "any") != 0) {
        thr_log(SQLITE_CANTOPEN, "throng: filesystem=%s: all that can be said here is filesystem=any", allowed);
        return SQLITE_CANTOPEN;
    }
    if (allowed != NULL || (shared = thr_os_filesystem_is_shared(fd)) == NULL)
        return SQLITE_OK;
    thr_log(SQLITE_CANTOPEN,
            "throng: %s is on a shared file system (%s): move it to a local one, or say filesystem=any", path, shared);
    return SQLITE_CANTOPEN;
}
