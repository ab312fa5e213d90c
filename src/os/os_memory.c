/* Memory of the process itself.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"

#include <stdlib.h>

void *thr_os_alloc(size_t bytes)
{
    void *p = NULL;

    if (thr_os_fault_path(THR_OS_MEMORY, NULL) == 0)
        p = calloc(1, bytes != 0 ? bytes : 1);
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
