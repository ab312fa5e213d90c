/* SPDX-License-Identifier: MIT */
#include "fit.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>

#include "../os/os.h"
#include "../txn/txn.h"

/* Is there a segment behind the first one, and so a commit in that? The first commit of all may have begun one as well, and
 * been taken back: then neither of the two has a record. Without a horizon: any segment with a record. */
static int has_later(const struct thr_scan *scan, bool *out)
{
    struct thr_piece piece;
    int rc = SQLITE_OK;

    *out = false;
    for (size_t i = 0; i < scan->count && !*out && rc == SQLITE_OK; i++) {
        if (scan->has_horizon && scan->numbers[i] <= scan->horizon.number)
            continue;
        if ((rc = thr_piece_open(scan, scan->numbers[i], &piece)) == SQLITE_OK) {
            *out = piece.has_record ||
                   (piece.at != NULL && scan->has_horizon && piece.head.first_seq > THR_FIRST_SEQ + 1);
            thr_piece_close(&piece);
        }
    }
    return rc;
}

/* SQLite cuts a message off at 210 bytes: hence two. */
static int refuse(const struct thr_scan *scan, int code)
{
    thr_log(
        code,
        "throng: %s: nothing is touched. A database in use is copied by VACUUM INTO or the backup API; to go on with "
        "the file alone, move the directory away: throng recover --without-log",
        scan->directory);
    return code;
}

static int refuse_unmarked(const struct thr_scan *scan)
{
    thr_log(SQLITE_CANTOPEN,
            "throng: %s holds commits, and the file beside it is not the one that was in use (or a power cut came at "
            "synchronous=OFF)",
            scan->directory);
    thr_log(SQLITE_CANTOPEN,
            "throng: %s: nothing is touched. Put its file back, or move the directory away to use the file as it is",
            scan->directory);
    return SQLITE_CANTOPEN;
}

static int judge_horizon(const struct thr_scan *scan, const struct thr_span_found *found)
{
    bool content;
    int rc = has_later(scan, &content);

    if (rc != SQLITE_OK || (!found->marked && !content))
        return rc; /* left by an open that came no further */
    thr_log(SQLITE_CORRUPT,
            "throng: %s/horizon, which says where the log begins, is missing or damaged (by a power cut, if all was "
            "written at synchronous=OFF)",
            scan->directory);
    return refuse(scan, SQLITE_CORRUPT);
}

/* Where recovery begins there must be a segment. */
static int judge_first(const struct thr_scan *scan)
{
    thr_log(SQLITE_CORRUPT,
            "throng: %s/log-%" PRIu64
            ", where the log begins, is missing or damaged (by a power cut, if all was written "
            "at synchronous=OFF)",
            scan->directory, scan->horizon.number);
    return refuse(scan, SQLITE_CORRUPT);
}

static int judge_unmarked(const struct thr_scan *scan, const struct thr_fit_log *log)
{
    bool later;
    int rc = has_later(scan, &later);

    if (rc != SQLITE_OK)
        return rc;
    return later || (log->any && log->last_seq >= log->first_seq) ? refuse_unmarked(scan) : SQLITE_OK;
}

/* Version 0.1.0: the first segment goes first when everything is in the file. */
static int judge_old(const struct thr_scan *scan, const struct thr_span_found *found, const struct thr_fit_log *log)
{
    struct thr_piece piece;
    bool damaged = false;
    int rc = SQLITE_OK;

    if (log->any)
        return log->page_count > 0 && found->bytes == 0 ? refuse_unmarked(scan) : SQLITE_OK;
    for (size_t i = 0; i < scan->count && rc == SQLITE_OK; i++)
        if (scan->numbers[i] == scan->horizon.number &&
            (rc = thr_piece_open(scan, scan->numbers[i], &piece)) == SQLITE_OK) {
            damaged = piece.damaged;
            thr_piece_close(&piece);
        }
    return rc == SQLITE_OK && damaged ? judge_first(scan) : rc;
}

/* The state of the file and the span of the log. */
static int judge_state(const struct thr_scan *scan, const struct thr_span_found *found, const struct thr_fit_log *log,
                       uint64_t file)
{
    const struct thr_span *span = &found->span;
    bool copied = file != 0 && scan->horizon.file != 0 && file != scan->horizon.file;

    if (span->low + 1 < log->first_seq)
        thr_log(SQLITE_CANTOPEN,
                "throng: %s begins with commit %" PRIu64 ", the file beside it ends with commit %" PRIu64
                ": one was copied before the other",
                scan->directory, log->first_seq, span->low);
    else if (log->last_seq < span->high)
        thr_log(SQLITE_CANTOPEN,
                "throng: %s ends with commit %" PRIu64 ", the file beside it has some of commit %" PRIu64
                ": copied at different times, or a power cut at synchronous=OFF",
                scan->directory, log->last_seq, span->high);
    else if (copied && (!found->has_trailer || found->bytes < (int64_t)found->page_count * found->page_size))
        thr_log(SQLITE_CANTOPEN,
                "throng: the file beside %s is a copy that was made while it was written, or cut short",
                scan->directory);
    else
        return SQLITE_OK;
    return refuse(scan, SQLITE_CANTOPEN);
}

int thr_fit_judge(const struct thr_scan *scan, const struct thr_span_found *found, const struct thr_fit_log *log,
                  uint64_t file)
{
    if (!scan->has_horizon)
        return judge_horizon(scan, found);
    if (found->damaged || (found->marked && found->span.identity != scan->horizon.identity)) {
        thr_log(SQLITE_CANTOPEN, "throng: %s is not the directory of the file beside it: one of them was replaced",
                scan->directory);
        return refuse(scan, SQLITE_CANTOPEN);
    }
    if (scan->horizon.closed)
        return SQLITE_OK;
    if (scan->horizon.identity == 0)
        return judge_old(scan, found, log);
    if (!found->marked)
        return judge_unmarked(scan, log);
    return log->any ? judge_state(scan, found, log, file) : judge_first(scan);
}

bool thr_fit_replays(const struct thr_scan *scan, const struct thr_span_found *found, const struct thr_fit_log *log)
{
    return scan->has_horizon && !scan->horizon.closed && log->any && (found->marked || scan->horizon.identity == 0);
}
