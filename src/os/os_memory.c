/* Memory of the process itself.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"

#include <stdlib.h>
#include <string.h>

#define LINE 64    /* bytes that processors pass to each other as one */
#define SMALL 1024 /* below that neighbours matter */

/* What belongs to one connection shares no cache line with what belongs to another, whoever allocated both: else two
 * threads that have nothing in common would slow each other down. */
static void *alloc_zeroed(size_t bytes)
{
    void *p;

    if (bytes >= SMALL)
        return calloc(1, bytes);
    bytes = bytes == 0 ? LINE : (bytes + LINE - 1) / LINE * LINE;
    if ((p = aligned_alloc(LINE, bytes)) != NULL)
        memset(p, 0, bytes);
    return p;
}

void *thr_os_alloc(size_t bytes)
{
    void *p = NULL;

    if (thr_os_fault_path(THR_OS_MEMORY, NULL) == 0)
        p = alloc_zeroed(bytes);
    if (p == NULL)
        thr_os_fail(ENOMEM, 0);
    return p;
}

void *thr_os_realloc(void *old, size_t bytes)
{
    void *p = NULL;

    if (thr_os_fault_path(THR_OS_MEMORY, NULL) == 0)
        p = realloc(old, bytes != 0 ? bytes : 1); /* realloc(old, 0) would free it and look like a failure */
    if (p == NULL)
        thr_os_fail(ENOMEM, 0);
    return p;
}

void thr_os_free(void *p)
{
    free(p);
}
