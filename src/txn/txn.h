/* Transactions: a snapshot, what was read and written, and the commit.
 *
 * A connection (struct thr_conn) is used by one thread at a time, as SQLite's mutexes or its user see to.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_TXN_H
#define THR_TXN_H

#include "../base/base.h"
#include "../heap/heap.h"
#include "../log/home.h"
#include "../log/log.h"
#include "../os/os.h"
#include "../space/space.h"
#include "../util/map32.h"
#include "sets.h"

/* commit_seq of a database that was just opened: no commit yet. */
#define THR_FIRST_SEQ 1u

/* What has been done for the day that process or power fails (thr_checkpoint_mark()). */
enum thr_safety {
    THR_UNTOUCHED, /* no commit yet: the file does not even say that it needs its log */
    THR_MARKED,    /* it does (page1.h): a commit survives the death of the process */
    THR_SAFE /* all that was written so far is synced, and from now on syncs keep the order that a power cut needs */
};

/* One database in one process; shared by its connections there.
 *   field          writer                          guard
 *   foreign        open                            fixed: bytes that are not a database we understand; never written
 *   usable_size    first writer, rewrite           the writer is alone
 *   safety         committer                       checkpoint_lock to write; enum thr_safety, only ever rises
 *   heap_short     any connection                  atomic
 *   checkpoint_*,  checkpointer                    checkpoint_lock; the atomic ones are read without
 *   trim_*, live_after
 *   pages_high,    committer, checkpointer         commit_lock
 *   pages_next
 *   checkpointer_asleep  it, and who wakes it      atomic */
struct thr_db {
    struct thr_shm shm;
    struct thr_heap heap;
    struct thr_log log;
    struct thr_base base;
    char *directory;      /* <db>-journal; NULL for a database that cannot be written */
    struct thr_home home; /* that directory, held; fixed from open to close */
    const char *path;
    uint32_t file_mode;
    bool foreign;
    _Atomic uint32_t broken; /* a step that cannot be taken back failed half-way: reopen, and recover from the log */
    _Atomic uint32_t usable_size;
    _Atomic uint32_t safety;
    _Atomic uint32_t heap_short; /* the heap was full: forget what can be forgotten, at once */
    uint32_t checkpoint_page;    /* next page to look at; 0: no cycle is under way */
    uint32_t checkpoint_end;
    uint32_t checkpoint_pages;       /* of the database as of the target; 0: not known any more */
    uint32_t file_pages;             /* of the database as of the horizon; 0: not known */
    uint32_t pages_high, pages_next; /* no commit past the horizon, or the target, had more pages */
    uint32_t checkpoint_flushed;     /* up to here the kernel was told to write */
    uint64_t checkpoint_target;
    uint64_t checkpoint_bytes;            /* of log that start a cycle; fixed at open */
    bool checkpoint_durable;              /* the cycle writes what is durable, as of its target, and syncs */
    bool checkpoint_passing;              /* it does not wait for old snapshots */
    struct thr_frames checkpoint_frames;  /* what it took out of the chains, or put in for old snapshots */
    _Atomic uint32_t trim_page;           /* next page whose newest version the heap may forget; 0: it need not */
    uint64_t trim_seq;                    /* the file has versions up to this one */
    bool trim_all;                        /* not only until the heap is small enough */
    _Atomic uint64_t live_after;          /* bytes of log when the last cycle had ended */
    _Atomic uint32_t frames_after;        /* in use then */
    void (*make_room)(struct thr_db *db); /* by a checkpoint, for a writer who finds the heap full; fixed at open */
    uint64_t pressure_bytes;  /* of log since then that start a cycle when the heap is large; fixed at open */
    bool checkpointer_thread; /* was asked for; fixed at open */
    bool has_checkpointer;    /* fixed from open to close */
    struct thr_thread checkpointer;
    _Atomic uint32_t checkpointer_asleep, checkpointer_stop;
};

/* Some connection has asked for more than synchronous=OFF: syncs count from now on. */
static inline bool thr_db_is_safe(const struct thr_db *db)
{
    return atomic_load_explicit(&db->safety, memory_order_acquire) == THR_SAFE; /* pairs with thr_checkpoint_mark() */
}

/* What the running statement wants (see kind.h in src/vfs). */
enum thr_kind {
    THR_KIND_READ,     /* a statement that cannot write, outside BEGIN */
    THR_KIND_RAW,      /* no statement is running: schema load, backup, serialize */
    THR_KIND_EXPLICIT, /* inside BEGIN or SAVEPOINT */
    THR_KIND_AUTOCOMMIT,
    THR_KIND_RETURNING, /* autocommit that cannot be rerun: it may return rows before it commits, or is a blob handle */
    THR_KIND_IMMEDIATE,
    THR_KIND_EXCLUSIVE,
    THR_KIND_REWRITE /* VACUUM, the target of a backup */
};

/* PRAGMA synchronous, as for stock SQLite's WAL: with NORMAL a power cut may lose the latest commits. */
enum thr_sync { THR_SYNC_OFF, THR_SYNC_NORMAL, THR_SYNC_FULL, THR_SYNC_EXTRA };

/* Why a commit failed. */
enum thr_conflict { THR_CONFLICT_NONE, THR_CONFLICT_READ, THR_CONFLICT_WRITE, THR_CONFLICT_SCHEMA, THR_CONFLICT_SPACE };

/* Databases of one connection: SQLite has at most 125 attached ones. */
#define THR_FAMILY_MAX 127u

struct thr_conn {
    struct thr_db *db;
    struct thr_slot *slot;
    uint32_t slot_index;
    bool read_only;

    /* What the pager sees. */
    uint64_t snapshot;       /* 0: none */
    uint64_t first_snapshot; /* of this transaction; a protected one moves on */
    uint64_t cache_seq;      /* the pager's cache is right for this sequence; 0: for none */
    uint32_t cache_epoch;    /* of the page size and format (struct thr_head.space_epoch) */
    uint32_t page_count;
    uint32_t committed_count; /* pages of the snapshot; page_count may reach into pages given out since */
    uint32_t free_count;
    uint32_t committed_free;            /* free pages of the snapshot; free_count may be those of the stripe */
    uint32_t change_counter;            /* as served in page 1 */
    uint32_t counter_bias;              /* commits of ours that changed nothing, and caches that had to be dropped */
    uint32_t shown_first, shown_layout; /* of the free list that the pager was shown last */

    int64_t map_limit; /* PRAGMA mmap_size: so much of the file is read through its mapping */

    /* The transaction. */
    enum thr_kind kind;
    bool writing;   /* RESERVED or more */
    bool committed; /* published, COMMIT_PHASETWO still to come */
    bool planned;   /* `plan` and `record` are what it will commit */
    bool prepared;  /* logged, commit_lock held; prepared_seq and new_extent are what will be published */
    uint64_t prepared_seq, new_extent;
    uint64_t checked_seq; /* what it has read and written was compared with commits up to this one */
    struct thr_plan *plan;
    /* Is another statement of the connection reading? Then no other commit may come in between. */
    enum thr_beside { THR_BESIDE_UNKNOWN, THR_BESIDE_NOBODY, THR_BESIDE_READER } beside;
    enum thr_sync sync; /* PRAGMA synchronous */
    bool change_counter_written;
    bool keeps_lock;      /* locking_mode=EXCLUSIVE: alone, and from one transaction to the next */
    bool counter_done;    /* a commit has counted up; until the lock goes down the pager does not count again */
    uint32_t claimed_end; /* end of what was given out, before the commit appended pages */
    uint32_t set_format;  /* PRAGMA freelist_format is changing it to this; else 0 */
    bool holds_turn, is_alone, is_protected;
    int gate; /* index of the gate held, -1 for none */
    struct thr_reads reads;
    struct thr_writes writes;

    /* With the other databases of the same connection of SQLite (group.h). */
    struct thr_conn *next; /* of the ring; itself if there is no other */
    uint64_t held;         /* snapshot announced for a transaction that began in another one of them (cut.h); 0: none */
    uint64_t held_extent, held_round;
    bool wants_newest; /* the snapshots of the others are another transaction's */
    bool changing;     /* the pager changes pages: unless it rolls back, it will sync */
    uint8_t *group;    /* of a commit that spans databases (src/log/group.h); NULL otherwise */
    size_t group_bytes;
    bool coordinates;       /* its record says whether the commit counts */
    bool decided;           /* it says so already, and that is durable */
    bool full_group;        /* one of them asked for FULL: all records were synced */
    bool synced;            /* its log was, with the record in it */
    bool holds_commit_lock; /* of its database, for a commit of several */
    bool publishing;

    /* After a conflict. */
    enum thr_conflict conflict;
    uint32_t lost_page; /* 0: not a page's fault */
    uint64_t lost_seq;  /* the commit that it lost to; 0 if not to one */
    uint32_t lost_before, wins_since_loss;
    uint32_t penalty;   /* how many transactions queued after the last loss */
    uint32_t queue_for; /* so many more transactions queue at the gate of lost_page */
    bool rerun;         /* the statement runs again: it must not lose */

    /* Stocks. */
    bool wants_stripe; /* it has written before, or is about to */
    bool may_write;    /* the transaction at hand may write, as far as its first statement tells */
    bool shows_all;    /* the transaction that begins counts pages: without a stripe */
    bool shows_pool;   /* the view that begins has the free pages that nobody holds, and no others */
    bool ran_out;      /* a commit failed because pages that it used were given to others */
    struct thr_frames frames;
    struct thr_stripe stripe;
    struct thr_chain after; /* scratch */
    struct thr_pages taken, freed, superseded;
    struct thr_pages used; /* taken and appended: for the log */
    struct thr_record record;
    char *scratch_path;
    uint8_t *page_buffer; /* one page */
    uint32_t buffer_bytes;

    /* Called while a wait goes on; returns whether to go on waiting (SQLite's busy handler). */
    bool (*keep_waiting)(void *ctx, int count);
    /* Whether another statement of the connection is running than the one that commits. Called without a lock. */
    bool (*reads_beside)(void *ctx);
    void *keep_waiting_ctx; /* of both */
};

/* 0 for a database without a page. The first writer of a new database knows its page size before the others do. */
static inline uint32_t thr_conn_page_size(const struct thr_conn *conn)
{
    return conn->writing ? conn->db->heap.page_size
                         : atomic_load_explicit(&conn->db->shm.head->page_size, memory_order_acquire);
}

/* --- begin.c: snapshots and turns --- */

/* Announce and take a snapshot of the newest commit (I1). *extent_out may be NULL. */
uint64_t thr_snapshot_take(struct thr_conn *conn, uint64_t *extent_out);

/* Begin a read transaction for a statement of this kind. Waits as the kind asks. SQLITE_OK, SQLITE_BUSY, SQLITE_NOMEM,
 * SQLITE_FULL, SQLITE_IOERR_*. */
int thr_txn_begin(struct thr_conn *conn, enum thr_kind kind);
/* Become a writer. SQLITE_OK, SQLITE_BUSY (wait and begin anew), SQLITE_BUSY_SNAPSHOT (this snapshot can never
 * write), SQLITE_READONLY. */
int thr_txn_reserve(struct thr_conn *conn, enum thr_kind kind);
/* Forget everything written and not committed. */
void thr_txn_discard(struct thr_conn *conn);
/* The write transaction is over, committed or not; the snapshot stays. */
void thr_txn_end_write(struct thr_conn *conn);
void thr_txn_end(struct thr_conn *conn);
/* Everything has moved by a commit of this connection, and it keeps its lock: see the database as it is now. */
void thr_txn_renew(struct thr_conn *conn);

/* --- turn.c: who must not lose, who must be alone, who queues --- */
int thr_turn_acquire(struct thr_conn *conn);
int thr_turn_be_alone(struct thr_conn *conn);
/* The turn, and those of the connection's other databases that the transaction will need as well: in one order for
 * everybody. SQLITE_OK, SQLITE_BUSY: the others' are let go of again. */
int thr_turn_acquire_all(struct thr_conn *conn, bool alone);
/* Of the other databases, where no transaction has begun. */
void thr_turn_release_idle(struct thr_conn *conn);
/* Does the transaction make others wait in another database? */
bool thr_turn_held_elsewhere(const struct thr_conn *conn);
/* `end`: nobody else may grow the file beyond it. commit_lock. */
void thr_turn_protect(struct thr_conn *conn, uint32_t end);
void thr_turn_protect_page(struct thr_conn *conn, uint32_t pgno);
void thr_turn_release(struct thr_conn *conn);
/* Become a counted writer, unless someone else is alone. */
int thr_turn_enter_writer(struct thr_conn *conn);
/* The slot + 1 of a protected transaction that must not see these pages change, or the file grow past the pages that
 * it knows of; or 0. commit_lock. */
uint32_t thr_turn_spoils(const struct thr_conn *conn, uint32_t page_count);
/* Wait until that one is done. False: patience is over. */
bool thr_turn_wait_protected(struct thr_conn *conn, uint32_t slot);
void thr_gate_enter(struct thr_conn *conn);
void thr_gate_leave(struct thr_conn *conn, bool committed);

/* --- pages.c: reading and writing pages of the transaction --- */

/* `bytes` at `offset` of the database as this transaction sees it. *short_out: it ended before. */
int thr_page_read(struct thr_conn *conn, void *to, size_t bytes, int64_t offset, bool *short_out);
/* A pointer to a whole page that stays as it is until the snapshot ends, or NULL: read it. */
int thr_page_fetch(struct thr_conn *conn, uint32_t pgno, const uint8_t **out);
/* Give such a pointer back. */
void thr_page_unfetch(struct thr_conn *conn, const void *page);
int thr_page_write(struct thr_conn *conn, const void *from, size_t bytes, int64_t offset);
/* The committed version in the snapshot: in its frame, or the base file's content in `buffer`. */
int thr_page_committed(struct thr_conn *conn, uint32_t pgno, uint8_t *buffer, const uint8_t **out);
/* A frame for the transaction. Does all that can be done before it says SQLITE_FULL; `may_block`: no commit_lock is held, of
 * whatever database. SQLITE_OK, SQLITE_FULL, SQLITE_NOMEM, SQLITE_IOERR_*. */
int thr_page_take_frame(struct thr_conn *conn, bool may_block, uint32_t *frame_out);
/* Forget private pages past the new end. */
void thr_page_truncate(struct thr_conn *conn, uint32_t page_count);
/* The list of all free pages, where the pager was only told of it so far. SQLITE_OK, SQLITE_NOMEM, SQLITE_CORRUPT. */
int thr_page_build_list(struct thr_conn *conn);
/* Instead: those that are in the pool. SQLITE_OK, SQLITE_NOMEM. */
int thr_page_list_pool(struct thr_conn *conn);
/* The page as the transaction found it, whatever it wrote since (for the rollback journal). */
int thr_page_original(struct thr_conn *conn, uint32_t pgno, uint8_t *to);
/* Bytes 24..39 of page 1, and the like. */
void thr_page1_overlay(const struct thr_conn *conn, uint8_t *page, uint32_t page_bytes);
int thr_page1_committed(struct thr_conn *conn, uint8_t *to);

/* --- commit.c --- */

/* Would the transaction fail now? Cheap; no lock. SQLITE_OK or SQLITE_BUSY_SNAPSHOT (conn->conflict says why). */
int thr_commit_check(struct thr_conn *conn);
/* Would a transaction fail that only uses what the pager has in its cache? */
bool thr_commit_is_doomed(const struct thr_conn *conn);
/* The same for a page that was just read: a transaction that wants to write need not go on after it has read what
 * somebody has changed meanwhile. */
int thr_commit_check_page(struct thr_conn *conn, uint32_t pgno);
/* Commit a transaction that used no other database (I2): validate, take the next sequence, log, publish, and at
 * synchronous=FULL wait until it is durable. SQLITE_OK, also if there was nothing to commit. Otherwise nothing has
 * happened: SQLITE_BUSY_SNAPSHOT (conn->conflict says why), SQLITE_FULL, SQLITE_IOERR_*, SQLITE_NOMEM, SQLITE_CORRUPT;
 * but for SQLITE_IOERR_FSYNC after the record was logged: then nobody will see it, and the database cannot be written any
 * more. */
int thr_commit_one(struct thr_conn *conn);

/* --- conn.c --- */
int thr_conn_open(struct thr_db *db, bool read_only, struct thr_conn **out);
void thr_conn_close(struct thr_conn *conn);

#endif
