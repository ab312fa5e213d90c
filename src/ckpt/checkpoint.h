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
void thr_checkpoint_step(struct thr_conn *conn);

/* Write everything to the file, completely: the last connection is gone. SQLITE_OK, or the error; then the directory
 * must stay, and the next open recovers. */
int thr_checkpoint_fold(struct thr_db *db);

/* A rewrite committed pages that make up a database of another page size: fold, and start over with it. The caller is
 * alone and holds the barrier; no snapshot but its own is in use. */
int thr_checkpoint_resize(struct thr_db *db);

/* Hold back new snapshots and wait for those in use to end, for thr_checkpoint_resize(). False: patience is over. */
bool thr_barrier_raise(struct thr_conn *conn);
void thr_barrier_lower(struct thr_conn *conn);

#endif
