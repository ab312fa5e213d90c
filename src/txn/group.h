/* Commits of transactions that used several databases of one connection.
 *
 * The databases of a connection form a ring (conn->next). All calls by the thread that uses the connection.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_TXN_GROUP_H
#define THR_TXN_GROUP_H

#include "txn.h"

/* `conn`, which is alone so far, and `other` belong to one connection of SQLite. */
void thr_group_join(struct thr_conn *conn, struct thr_conn *other);
void thr_group_leave(struct thr_conn *conn);

/* The pager syncs this database: plan its commit, and if no other one is still to come, commit, or prepare if several
 * change: then thr_group_finish() or thr_group_abort() must follow soon, and commit locks are held until then.
 * `with_readers`: the transaction depends on what it has read in databases that it does not change. `early`: nothing
 * but the second phase follows, so that the decision can be made safe now. Otherwise nothing has happened in any of
 * them: SQLITE_BUSY_SNAPSHOT, SQLITE_READONLY, SQLITE_FULL, SQLITE_IOERR_*, SQLITE_NOMEM, SQLITE_CORRUPT. */
int thr_group_sync(struct thr_conn *conn, bool with_readers, bool early);
/* The first second phase. SQLITE_OK, SQLITE_IOERR_FSYNC. */
int thr_group_finish(struct thr_conn *conn);
/* One of them rolls back: take back what is prepared in all. */
void thr_group_abort(struct thr_conn *conn);

#endif
