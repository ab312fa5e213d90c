/* Does a file belong to the directory beside it, in the state that both are in?
 *
 * Either may have been replaced, lost in part, put back from a backup, or copied while it was written. What does not fit
 * is refused, with the reason in the log, before a byte is changed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_FIT_H
#define THR_FIT_H

#include "scan.h"
#include "span.h"

/* What the log has. */
struct thr_fit_log {
    bool any; /* its first segment is there */
    uint64_t first_seq, last_seq;
    uint32_t page_count; /* of the database before `first_seq` */
};

/* `file`: thr_os_file_number() of the database. SQLITE_OK; SQLITE_CANTOPEN, SQLITE_CORRUPT: they do not fit; SQLITE_NOMEM,
 * SQLITE_IOERR_*. */
int thr_fit_judge(const struct thr_scan *scan, const struct thr_span_found *found, const struct thr_fit_log *log,
                  uint64_t file);
/* Once it fits: is there a log to replay, or else nothing of any use in the directory? */
bool thr_fit_replays(const struct thr_scan *scan, const struct thr_span_found *found, const struct thr_fit_log *log);

#endif
