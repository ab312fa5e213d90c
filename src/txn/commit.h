/* The steps of a commit, for one database (commit.c) and for several at once (group.c).
 *
 *   plan         outside of any lock: what would change, and the record
 *   look ahead   the same: would it fail already?
 *   look         commit_lock: does it fail, or must it wait for another transaction? To wait, commit_lock is let go of
 *   log          commit_lock: take what the plan needs of the common space, and append the record; or unlog it
 *   publish      commit_lock
 *   end          outside: wait until it is durable, if it has to be, and see the database as of the commit
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_COMMIT_H
#define THR_COMMIT_H

#include "txn.h"

/* What a committer has to wait for before it may look again. */
struct thr_obstacle {
    uint64_t visible; /* until new snapshots see this commit; 0: not that */
    bool beside;      /* until it is known whether another statement of the connection reads */
    uint32_t slot;    /* slot + 1 of a protected transaction that the commit would spoil; 0: none */
};

static inline bool thr_obstacle_any(const struct thr_obstacle *obstacle)
{
    return obstacle->beside || obstacle->visible != 0 || obstacle->slot != 0;
}

/* conn->planned if there is something to commit, even if it changes no byte. SQLITE_OK, or an error of thr_plan_make(). */
int thr_commit_plan(struct thr_conn *conn);
/* SQLITE_OK, SQLITE_BUSY_SNAPSHOT. */
int thr_commit_look_ahead(struct thr_conn *conn);
/* A transaction that plans no change of this database is looked at as well: for what it has read. commit_lock. SQLITE_OK,
 * SQLITE_BUSY_SNAPSHOT, SQLITE_READONLY. */
int thr_commit_look(struct thr_conn *conn, struct thr_obstacle *obstacle_out);
/* May ask the busy handler: no lock may be held, in no database. SQLITE_OK: look again; SQLITE_BUSY_SNAPSHOT. */
int thr_commit_wait(struct thr_conn *conn, const struct thr_obstacle *obstacle);
/* commit_lock. SQLITE_OK: conn->prepared. After an error nothing has happened. */
int thr_commit_log(struct thr_conn *conn);
void thr_commit_unlog(struct thr_conn *conn);
/* commit_lock. */
void thr_commit_publish(struct thr_conn *conn);
/* SQLITE_OK, SQLITE_IOERR_FSYNC. */
int thr_commit_end(struct thr_conn *conn);
/* The plan changes no byte, and what was read has not changed either. */
void thr_commit_nothing(struct thr_conn *conn);

#endif
