/* The redo log: segments `log-<n>`, written through mappings in commit order, without a gap (I2).
 *
 * A segment is a header, the list of the pages that were free when it began, and records until the first that is not
 * whole. Segments are made ahead of time and used again: the salt tells old bytes from new ones.
 *
 *   off size field
 *     0    8 magic         "ThrgLog1"
 *     8    4 version       2; 1 in the directories of version 0.1.0, which have no identity
 *    12    4 page_size     when it began; 0: a database without a page yet
 *    16    8 number        the n of its name
 *    24    8 salt
 *    32    8 first_seq     sequence of its first record
 *    40    4 page_count    of the database before that
 *    44    4 format        of the free list before that
 *    48    4 change_base   struct thr_head
 *    52    4 run_count     free pages, as runs
 *    56    8 records_at    offset of the first record
 *    64    8 run_hash      XXH3 of the runs
 *    72    8 head_hash     XXH3 of the 72 bytes before, seeded with the identity of the directory (horizon.h): a segment
 *                          of another one is none
 *    80      run_count x { 4 first page, 4 pages }
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_LOG_H
#define THR_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "../shm/shm.h"
#include "record.h"

struct thr_segment_head {
    char magic[8];
    uint32_t version;
    uint32_t page_size;
    uint64_t number;
    uint64_t salt;
    uint64_t first_seq;
    uint32_t page_count;
    uint32_t format;
    uint32_t change_base;
    uint32_t run_count;
    uint64_t records_at;
    uint64_t run_hash;
    uint64_t head_hash;
};

struct thr_page_run {
    uint32_t first, count;
};

/* Segments kept to be used again. */
#define THR_SPARES 32

struct thr_segment {
    uint64_t number;
    uint64_t last_seq;     /* of the full ones */
    uint64_t record_bytes; /* of the full ones */
    uint64_t salt;
    _Atomic uint32_t syncs; /* going on; taken under commit_lock. The segment stays until they are done */
    bool synced;            /* of the full ones: by the leader of a sync */
    uint64_t written_back;  /* up to here; commit_lock */
    int fd;
    uint8_t *at;
    size_t bytes;
    struct thr_segment *next;
};

/* One process's hold on the log.
 *   current, full       committer     commit_lock (`full` also: checkpoint_lock to take from its head)
 *   spare[], making_spare anyone       atomic exchange
 *   failed              syncer        atomic; a sync failed: nothing written since can be trusted
 *   leading             leader        atomic; set under commit_lock: a sync of segments is going on, and its outcome unknown
 *   names_changed       maker         atomic; counts changes of names in the directory, after each of them
 *   names_synced        any syncer    atomic; so many of these changes no power cut takes back any more
 *   parent_synced       any syncer    atomic; nor the name of the directory itself */
struct thr_log {
    struct thr_shm *shm;
    char *directory;   /* owned; for messages */
    int directory_fd;  /* the caller's: files are reached by it, whatever the name stands for by now */
    int parent_fd;     /* to sync the name */
    uint64_t identity; /* fixed */
    uint64_t file;     /* thr_os_file_number() of the database; fixed */
    uint32_t mode;
    struct thr_segment *current;
    struct thr_segment *full, *full_last; /* oldest first, not yet checkpointed */
    _Atomic(struct thr_segment *) spare[THR_SPARES];
    _Atomic uint32_t making_spare;
    _Atomic uint32_t failed;
    _Atomic uint32_t leading;
    _Atomic uint64_t names_changed, names_synced;
    _Atomic uint32_t parent_synced;
    _Atomic uint64_t written_back; /* of the current segment, as last seen */
    _Atomic uint64_t next_bytes;   /* size of the next segment to make */
    _Atomic uint64_t live_bytes;   /* written and not yet checkpointed */
};

#ifndef THR_SEGMENT_MIN /* fuzzers want small files */
#define THR_SEGMENT_MIN ((size_t)1 << 20)
#endif
#define THR_SEGMENT_MAX ((size_t)16 << 20)

/* What a log begins with. */
struct thr_log_place {
    const char *directory;
    int directory_fd; /* stays open as long as the log */
    uint32_t mode;    /* of its files */
    uint64_t file;    /* thr_os_file_number() of the database */
};

/* Begin an empty log with segment 1 and an identity of its own. The index is set up already. On error nothing stays. */
int thr_log_create(struct thr_log *log, struct thr_shm *shm, const struct thr_log_place *place);
void thr_log_close(struct thr_log *log);

/* Append the record as commit `seq`. commit_lock. SQLITE_OK, SQLITE_FULL, SQLITE_IOERR_*, SQLITE_NOMEM; after an error
 * the log is as before. */
int thr_log_append(struct thr_log *log, const struct thr_record *record, uint64_t seq);
/* The record appended last, which belongs to a group: it counts from now on. commit_lock. */
void thr_log_decide(struct thr_log *log, size_t bytes);
/* Take back the record appended last, which nobody has seen. commit_lock. */
void thr_log_take_back(struct thr_log *log, size_t bytes);
/* Make a segment ahead of time if the current one is half full. No lock may be held. Errors are not reported: the
 * append that needs the segment tries again. */
void thr_log_prepare(struct thr_log *log);
/* The disk is full: give back the space of segments that are not in use. Any thread. */
void thr_log_drop_spares(struct thr_log *log);
/* --- sync.c --- */
/* Let new snapshots see what is as durable as it was asked for. commit_lock. */
void thr_log_show(struct thr_log *log);
/* Make everything up to commit `seq` safe from a power cut: one thread syncs for all that wait. Blocks. No lock may be
 * held but the checkpoint's. SQLITE_OK, SQLITE_IOERR_FSYNC: final, the log cannot be trusted any more. */
int thr_log_sync(struct thr_log *log, uint64_t seq);
/* Make the names and all segments safe as they are now, also the head of one that has no record yet. As thr_log_sync(). */
int thr_log_sync_all(struct thr_log *log);
/* Commits up to this one are safe from a power cut. commit_lock. */
void thr_log_is_durable(struct thr_log *log, uint64_t seq);
/* Everything up to now while holding commit_lock, for a commit that spans databases: all of them have to be safe before one counts. */
int thr_log_sync_held(struct thr_log *log);
/* The names of the segments, of the directory, and of the database: when it returns no power cut takes one of them back that
 * was there when it was called, whoever syncs beside it. SQLITE_OK, SQLITE_IOERR_FSYNC as above. */
int thr_log_sync_names(struct thr_log *log);
/* Start to write what was appended since the last call, if that is much, so that the next sync is short. No lock. */
void thr_log_write_back(struct thr_log *log);
/* Wait until new snapshots see commit `seq`, or the log has failed. Blocks; leads a sync if nobody else does in time. */
void thr_log_wait_visible(struct thr_log *log, uint64_t seq);
bool thr_log_failed(const struct thr_log *log);
/* A sync of the log, or of the file `path`, has failed. */
void thr_log_fail(struct thr_log *log, const char *path);

/* --- log.c --- */
/* The file `horizon` says that the log begins with segment `first`: recycle or delete those before it, oldest first (a later
 * recovery must always see the log to its end). No others: one that was the current segment when `first` was chosen may have
 * become full since, and be needed no more, but it is the one that is named. checkpoint_lock. */
void thr_log_retire(struct thr_log *log, uint64_t first);
/* The first segment that is still needed when everything up to `horizon` is in the base file. */
uint64_t thr_log_first_needed(struct thr_log *log, uint64_t horizon);
/* Replace all segments by a new empty one; everything is in the base file. `sync`: that must survive a power cut. The
 * caller is alone. */
int thr_log_restart(struct thr_log *log, bool sync);

/* Write down that segment `first` is where recovery begins; `closed`: that there is nothing to recover. SQLITE_OK,
 * SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR_*. */
int thr_log_write_horizon(struct thr_log *log, uint64_t first, bool closed, bool sync);

/* Does the current segment still have its name? Blocks for a look at the directory. */
bool thr_log_is_in_place(const struct thr_log *log);

#define THR_LOG_NAME_BYTES 32
/* The name of segment `number` in its directory. */
void thr_log_name(uint64_t number, char out[THR_LOG_NAME_BYTES]);
/* Its path; the caller frees it with thr_os_free(). NULL: no memory. */
char *thr_log_path(const char *directory, uint64_t number);
/* Whether a right segment header with its runs lies at `at`, of a directory with this identity. */
bool thr_segment_check(const uint8_t *at, size_t bytes, uint64_t identity);

#endif
