/* Errors and messages: the thread's last errno, result codes, the log, and the way to the fault injector.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"

#include <limits.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_BYTES 1024

static _Thread_local int last_errno;
static _Atomic(thr_log_fn) log_fn;

int thr_os_fail(int err, int code)
{
    last_errno = err;
    return code;
}

int thr_os_fail_full(int err, int code)
{
    return thr_os_fail(err, err == ENOSPC || err == EDQUOT || err == EFBIG ? SQLITE_FULL : code);
}

int thr_os_last_errno(void)
{
    return last_errno;
}

const char *thr_os_error_text(int err, char *buffer, size_t bytes)
{
    return strerror_r(err, buffer, bytes); /* the GNU one: always a string, not always in the buffer */
}

void thr_os_set_log(thr_log_fn fn)
{
    atomic_store_explicit(&log_fn, fn, memory_order_release); /* pairs with thr_log() */
}

void thr_log(int code, const char *format, ...)
{
    thr_log_fn fn = atomic_load_explicit(&log_fn, memory_order_acquire); /* pairs with thr_os_set_log() */
    int saved_errno = errno;
    char message[LOG_BYTES];
    va_list args;

    if (fn != NULL) {
        va_start(args, format);
        if (vsnprintf(message, sizeof message, format, args) >= 0)
            fn(code, message);
        va_end(args);
    }
    errno = saved_errno;
}

#ifdef THR_FAULTS
int thr_os_fault_path(enum thr_os_call call, const char *path_or_null)
{
    return thr_fault_check == NULL ? 0 : thr_fault_check(call, path_or_null);
}

int thr_os_fault_fd(enum thr_os_call call, int fd)
{
    char link[32], path[PATH_MAX];
    ssize_t length;

    if (thr_fault_check == NULL)
        return 0;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if ((length = readlink(link, path, sizeof path - 1)) < 0)
        return thr_fault_check(call, NULL);
    path[length] = '\0';
    return thr_fault_check(call, path);
}
#endif
