/* Where recovery begins: the file `horizon` in the database's directory.
 *
 * A power cut may leave any of the unsynced segments whole and any other torn, and may bring back names of old ones. So
 * the number of the first segment that is needed is written down before older ones go. Two places take turns, each in a
 * sector of its own, so that one of them is always whole:
 *
 *   off size field, at 0 and at 512
 *     0    8 magic    "ThrgHor1"
 *     8    8 turn     the higher one counts
 *    16    8 number   of the first segment that recovery needs
 *    24    8 hash     XXH3 of the 24 bytes before
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_HORIZON_H
#define THR_HORIZON_H

#include <stdbool.h>
#include <stdint.h>

/* The first segment that recovery needs: 1 if nothing was written down yet. *found_out: there is such a file. SQLITE_OK,
 * SQLITE_NOMEM, SQLITE_CANTOPEN, SQLITE_IOERR_READ. */
int thr_horizon_read(const char *directory, bool *found_out, uint64_t *number_out);
/* SQLITE_OK, SQLITE_NOMEM, SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR_*. */
int thr_horizon_write(const char *directory, uint32_t mode, uint64_t number, bool sync);

#endif
