/* Where recovery begins, and whether it need begin at all: the file `horizon` in the database's directory.
 *
 * A power cut may leave any of the unsynced segments whole and any other torn, and may bring back names of old ones. So
 * the number of the first segment that is needed is written down before older ones go. Two places take turns, each in a
 * sector of its own, so that one of them is always whole:
 *
 *   off size field, at 0 and at 512
 *     0    8 magic    "ThrgHor2"
 *     8    8 turn     the higher one counts
 *    16    8 number   of the first segment that recovery needs
 *    24    8 identity of the directory: page 1 of the file in use carries it, too, and it seeds the segments' hashes
 *    32    8 file     thr_os_file_number() of the database: another number is a copy's
 *    40    8 closed   1: everything is in the file
 *    48    8 hash     XXH3 of the 48 bytes before
 *
 * Version 0.1.0 wrote "ThrgHor1", with the hash in the place of the identity, and nothing behind.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_HORIZON_H
#define THR_HORIZON_H

#include <stdbool.h>
#include <stdint.h>

struct thr_horizon {
    uint64_t number;
    uint64_t identity; /* 0: written by version 0.1.0 */
    uint64_t file;
    bool closed;
};

/* *found_out: there is such a file, and one of its places is whole; else *out is zeros. SQLITE_OK, SQLITE_NOMEM,
 * SQLITE_CANTOPEN, SQLITE_IOERR_READ. */
int thr_horizon_read(const char *directory, bool *found_out, struct thr_horizon *out);
/* To the directory that the descriptor stands for, whatever its name is by now. SQLITE_OK, SQLITE_NOMEM, SQLITE_CANTOPEN,
 * SQLITE_FULL, SQLITE_IOERR_*. */
int thr_horizon_write(int directory_fd, uint32_t mode, const struct thr_horizon *horizon, bool sync);

#endif
