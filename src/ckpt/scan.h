/* The log in a directory as recovery reads it: which segments count, and their records in order.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_SCAN_H
#define THR_SCAN_H

#include <stddef.h>

#include "../log/horizon.h"
#include "../log/log.h"

struct thr_scan {
    const char *directory;
    uint64_t *numbers; /* of log segments, ascending */
    size_t count, capacity;
    char *foreign; /* where to put the name of a file that is not ours */
    size_t foreign_bytes;
    bool found_foreign;
    bool has_horizon;
    struct thr_horizon horizon;
};

/* A segment of the log. */
struct thr_piece {
    uint8_t *at; /* NULL: there is no segment in the file */
    size_t bytes;
    struct thr_segment_head head;
    bool damaged;    /* bytes where a header should be, but no header */
    bool has_record; /* where the header, right or not, says that they begin */
};

/* `scan` is zeros but for `foreign`. SQLITE_OK, SQLITE_NOTFOUND, SQLITE_CANTOPEN, SQLITE_NOMEM, SQLITE_IOERR_*. */
int thr_scan_open(const char *directory, struct thr_scan *scan);
void thr_scan_close(struct thr_scan *scan);
/* Is segment `i` of the list one that recovery needs? */
bool thr_scan_needs(const struct thr_scan *scan, size_t i);
/* Calls `fn` for each whole record from the horizon on, in order, and `begin` for each segment, until one of them does
 * not return SQLITE_OK. `resolve`: a record of a group counts only if the group's commit took place. */
int thr_scan_each(const struct thr_scan *scan,
                  int (*begin)(void *ctx, const uint8_t *segment, const struct thr_segment_head *head),
                  int (*fn)(void *ctx, const uint8_t *record, const struct thr_record_head *head), void *ctx,
                  bool resolve);
int thr_piece_open(const struct thr_scan *scan, uint64_t number, struct thr_piece *piece);
void thr_piece_close(struct thr_piece *piece);

/* --- for commits that span databases (group.h) --- */

/* Mark each commit that this log has decided in the logs of the others that took part, where these are not in use. */
int thr_scan_pass_on(const struct thr_scan *scan);

#endif
