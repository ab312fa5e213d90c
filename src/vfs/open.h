/* Opening a database: what its parts ask of each other.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_OPEN_H
#define THR_OPEN_H

#include "vfs.h"

#include "../os/os.h"

/* SQLite's own lock bytes (its file format, "The Lock-Byte Page"): pending, reserved, 510 shared ones. */
#define THR_LOCK_BYTES_AT INT64_C(0x40000000)
#define THR_LOCK_BYTES INT64_C(512)

/* --- descriptor.c: guarded by the lock of the list of open databases, but for the message --- */

/* Why a file cannot be opened, where the code does not say it. */
enum thr_trouble { THR_TROUBLE_NONE, THR_TROUBLE_ORPHAN, THR_TROUBLE_BESIDE, THR_TROUBLE_DIRECTORY, THR_TROUBLE_KIND };

/* Open the file itself, for writing if permissions allow it. `found` is what thr_os_stat() said about it, with *stat.
 * SQLITE_OK, SQLITE_CANTOPEN, SQLITE_NOMEM. */
int thr_descriptor_open(const char *path, int flags, int found, const struct thr_stat *stat, int *fd_out,
                        bool *writable_out, enum thr_trouble *trouble_out);
/* Let go of the file and of the lock on it. Close the descriptor, or keep it for the next open of the file as long as a
 * connection of stock SQLite in this process may have a lock on that. */
void thr_descriptor_close(int fd, const struct thr_stat *stat, bool writable);
void thr_descriptor_log(const char *path, int code, enum thr_trouble trouble);
/* In the child: close what was kept. */
void thr_descriptors_after_fork(void);

/* --- leftovers.c: what stands beside the file from earlier uses --- */

/* SQLITE_OK (with what it says of the thing itself, if that is a link), SQLITE_NOTFOUND, or the error: what cannot be looked
 * at must not be taken for absent. */
int thr_stat_beside(const char *path, const char *suffix, struct thr_stat *stat);
/* Recover it. SQLite's lock bytes are held; they are let go and taken again where stock SQLite has to run. SQLITE_OK, or
 * the error, which is in the log. */
int thr_leftovers_recover(struct thr_db *db);
/* It cannot be told whether that is there. */
void thr_log_unseen(const char *path, const char *suffix, int code);
/* A directory whose database is gone: what is in it makes sense with that file only. */
void thr_log_orphan(const char *path);
/* The file was in use when its process died, and what was committed since is elsewhere. SQLite cuts messages off at 210
 * bytes. */
void thr_log_incomplete(const struct thr_db *db);

/* --- trust.c --- */

/* Can only users have written what is in the database's directory who may write the database? SQLITE_OK; SQLITE_PERM: not
 * for sure, or it may not be read; the reason is in the log. Else SQLITE_NOMEM, SQLITE_IOERR_*. */
int thr_trust_directory(const struct thr_db *db, const struct thr_stat *directory);

/* --- options.c: SQLITE_OK; SQLITE_CANTOPEN: the reason is in the log --- */

/* What the URI of the first connection says. */
int thr_options_read(const char *path, struct thr_db *db);
/* One machine at a time has a database, and its mapped files have to be the same for all: neither is sure on a file system
 * that several machines share. `filesystem=any` in the URI: the user knows better. */
int thr_options_check_filesystem(const char *path, int fd);

#endif
