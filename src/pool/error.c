/* Error values, checks of options, the log.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>

#include "../os/os.h"
#include "pool.h"

/* Cut, if it must be, between two characters. */
static void copy_cut(char *to, size_t size, const char *from)
{
    size_t bytes = strnlen(from, size);

    if (bytes == size) {
        bytes = size - 1;
        while (bytes > 0 && ((unsigned char)from[bytes] & 0xc0) == 0x80)
            bytes--;
    }
    memcpy(to, from, bytes);
    to[bytes] = '\0';
}

int thr_error_set(throng_error *err, int code, int driver_code, const char *sql, const char *format, ...)
{
    char message[2 * sizeof err->message];
    va_list arguments;

    if (err == NULL)
        return code;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    *err = (throng_error){
        .code = code == THR_CONN_STALE ? THRONG_CONN_LOST : code, .driver_code = driver_code, .position = -1};
    copy_cut(err->message, sizeof err->message, message);
    copy_cut(err->sql, sizeof err->sql, sql != NULL ? sql : "");
    return code;
}

const char *throng_code_text(int code)
{
    static const char *const texts[] = {
        [THRONG_OK] = "no error",
        [THRONG_ERROR] = "the database reports an error",
        [THRONG_CONFLICT] = "the transaction conflicts with another one",
        [THRONG_BUSY] = "the database is locked",
        [THRONG_CONSTRAINT] = "a constraint is violated",
        [THRONG_READONLY] = "a write where only reading is allowed",
        [THRONG_FULL] = "the disk is full",
        [THRONG_IO] = "input or output has failed",
        [THRONG_NOMEM] = "no memory",
        [THRONG_MISUSE] = "the call cannot be right",
        [THRONG_TIMEOUT] = "the deadline passed",
        [THRONG_CANCELED] = "canceled",
        [THRONG_CLOSED] = "the pool or the statement is closed",
        [THRONG_TX_DONE] = "the transaction has ended",
        [THRONG_CONN_LOST] = "the connection died",
    };

    if (code == THRONG_ROW)
        return "a row";
    if (code == THRONG_DONE)
        return "no more rows";
    return code >= 0 && (size_t)code < sizeof texts / sizeof texts[0] ? texts[code] : "unknown code";
}

int thr_error_plain(throng_error *err, int code)
{
    return thr_error_set(err, code, 0, NULL, "%s", throng_code_text(code));
}

int thr_options_check(const struct throng_options *options, throng_error *err)
{
    if (options == NULL || options->size >= sizeof *options)
        return THRONG_OK;
    return thr_error_set(err, THRONG_MISUSE, 0, NULL, "throng_options.size is %zu, it must be %zu", options->size,
                         sizeof *options);
}

int thr_limits_check(uint64_t deadline_ns, const throng_cancel *cancel, throng_error *err)
{
    if (cancel != NULL && throng_cancel_fired(cancel))
        return thr_error_plain(err, THRONG_CANCELED);
    if (deadline_ns != 0 && thr_os_now_ns() >= deadline_ns)
        return thr_error_plain(err, THRONG_TIMEOUT);
    return THRONG_OK;
}

void thr_pool_log(throng_db *db, const char *format, ...)
{
    char message[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (db->log != NULL)
        db->log(db->log_arg, message);
    else
        sqlite3_log(SQLITE_WARNING, "%s", message);
}

uint64_t throng_now_ns(void)
{
    return thr_os_now_ns();
}

uint64_t throng_after_ms(uint64_t ms)
{
    return thr_later(thr_os_now_ns(), ms < UINT64_MAX / 1000000 ? ms * 1000000 : UINT64_MAX);
}
