/* Checkpoints: committed versions go to the database file, so that the log can be cut off (I4).
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CHECKPOINT_H
#define THR_CHECKPOINT_H

#include "../txn/txn.h"

/* Start a cycle when so much log has piled up. A page is written once a cycle, however often it changed: the longer the
 * cycle, the less there is to write. */
#define THR_CHECKPOINT_LOG_BYTES (256 << 20) /* unless the URI says checkpoint_bytes= */

/* A bounded piece of a checkpoint, if one is due and nobody else is at it. Called by a connection after its commit,
 * without a lock and without a snapshot that must be kept. Errors are logged and the piece is tried again later: the
 * log keeps everything meanwhile. */
void thr_checkpoint_step(struct thr_db *db);
/* `times` as much, and nothing else; without `may_block` only the writing. False: there is nothing more to do for now. */
bool thr_checkpoint_try(struct thr_db *db, uint32_t times, bool may_block);
/* So much log has piled up that everybody has to help. */
bool thr_checkpoint_is_behind(const struct thr_db *db);
/* What the log needs from time to time, without a lock. */
void thr_checkpoint_tend_log(struct thr_db *db);
/* A whole checkpoint of what is committed now, with pauses for others. `pass`: also past snapshots that are older, by
 * keeping what they see of the file in the heap. Blocks; no lock and no snapshot of the caller's may be in the way.
 * SQLITE_OK; SQLITE_BUSY: snapshots in use hold some of it back; SQLITE_FULL, SQLITE_IOERR_*: the log is kept. */
int thr_checkpoint_run(struct thr_db *db, bool pass);

/* struct thr_db.make_room: end a cycle that holds frames back, and let the heap forget what the file has. Blocks; the
 * caller's own snapshot may be in use. */
void thr_checkpoint_make_room(struct thr_db *db);

/* --- checkpointer.c: a thread that takes the steps instead of whoever commits --- */

/* If it cannot be started, that is logged, and callers go on to take the steps. */
void thr_checkpointer_start(struct thr_db *db);
void thr_checkpointer_stop(struct thr_db *db);
/* There may be something to do. */
void thr_checkpointer_wake(struct thr_db *db);

/* Before a commit: see to it that the file says that it needs its log. `sync`, for the first one above OFF: and that a
 * power cut takes back nothing that was written before, at whatever level, and breaks nothing. Blocks; no lock may be held.
 * SQLITE_OK, SQLITE_IOERR_*, SQLITE_NOMEM, SQLITE_CANTOPEN, SQLITE_FULL. */
int thr_checkpoint_mark(struct thr_db *db, bool sync);

/* Write everything to the file, completely: the last connection is gone. `in_place`: the directory is where it should be,
 * and learns that it is not needed any more. SQLITE_OK, or the error; then the directory must stay, and the next open
 * recovers. */
int thr_checkpoint_fold(struct thr_db *db, bool in_place);

/* A rewrite committed pages that make up a database of another page size: fold, and start over with it. The caller is
 * alone and holds the barrier; no snapshot but its own is in use. */
int thr_checkpoint_resize(struct thr_db *db);

/* Hold back new snapshots and wait for those in use to end, for thr_checkpoint_resize(). False: patience is over. */
bool thr_barrier_raise(struct thr_conn *conn);
void thr_barrier_lower(struct thr_conn *conn);

#endif
