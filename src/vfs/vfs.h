/* The VFS "throng": a thin layer that turns what the pager asks for into transactions.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_VFS_H
#define THR_VFS_H

#include <stdbool.h>
#include <stdint.h>

#include "../txn/txn.h"
#include "api.h"
#include "running.h"

struct thr_open_db;

/* The rollback journal. The pager writes the original of each page before it changes it; since the transaction's
 * snapshot has that page, only its number is kept. One per connection, kept from one transaction to the next. */
#define THR_JOURNAL_HEADER 28
struct thr_journal {
    struct thr_journal_part {
        int64_t at;     /* of its header */
        uint32_t first; /* of `pages`: the entries after that header */
        uint8_t header[THR_JOURNAL_HEADER];
    } * parts;
    struct thr_journal_entry {
        uint32_t pgno, checksum; /* as the pager wrote them */
    } * entries;
    uint32_t part_count, part_capacity;
    uint32_t count, capacity;
    uint32_t delivered, checksum; /* entry + 1 that was read last, and what belongs to it; 0: none */
    bool rolling_back;            /* the pager reads it from the end: it is about to play it back */
    bool unfinished;              /* of the last entry the checksum, which comes last, was not written so far */
    bool names_super;             /* the name of a super-journal came after the last entry */
};

/* A database file as SQLite holds it. */
struct thr_main_file {
    sqlite3_file base;
    const char *name; /* as it was opened; SQLite's, valid until it is closed */
    struct thr_open_db *open_db;
    struct thr_conn *conn;
    sqlite3 **db;                      /* SQLITE_FCNTL_PDB */
    const struct thr_running *running; /* NULL: nobody tells */
    int (*busy_handler)(void *);
    void *busy_arg;
    int lock;
    uint32_t forks;       /* of the process when it was opened */
    uint64_t in_place_ns; /* when the file was last seen under its name */
    uint32_t reruns;      /* of the statement at hand, without success */
    bool checkpoint_due;
    bool log_lost; /* and that was said */
    int last_errno;
    bool powersafe, persist_wal; /* SQLITE_FCNTL_POWERSAFE_OVERWRITE, SQLITE_FCNTL_PERSIST_WAL */
    bool exclusive;              /* PRAGMA locking_mode=EXCLUSIVE */
    struct thr_journal journal;
    /* beside.c: */
    const char *journal_name, *wal_name; /* SQLite's own strings */
    uint64_t number;                     /* no two files of a process have the same */
    struct thr_main_file *next_open;
    const sqlite3 *family; /* the connection that opened it (group.c) */
    struct thr_main_file *next_of_bucket;
};

struct thr_journal_file {
    sqlite3_file base;
    struct thr_main_file *main;
};

/* The pager takes a rollback for done, and goes on with what its cache has, unless the error is an SQLITE_IOERR (or it is
 * SQLITE_FULL): so what fails in a rollback fails with one. */
static inline int thr_rollback_error(int rc)
{
    if (rc == SQLITE_OK || rc == SQLITE_FULL || (rc & 0xff) == SQLITE_IOERR)
        return rc;
    return rc == SQLITE_NOMEM ? SQLITE_IOERR_NOMEM : SQLITE_IOERR_READ;
}

extern const sqlite3_io_methods thr_main_methods;
extern const sqlite3_io_methods thr_journal_methods;

/* register.c */
int thr_register(int make_default);
sqlite3_vfs *thr_base_vfs(void);

/* file.c */
/* The Throng file of this schema of the connection, also behind a VFS above that hands down file controls; or NULL. */
struct thr_main_file *thr_main_of(sqlite3 *db, const char *schema);
int thr_main_open(const char *name, struct thr_main_file *file, int flags, int *flags_out);

/* open.c: databases open in this process, by device and inode. *out is shared; give it back with thr_db_release().
 * SQLITE_OK; SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_PERM, SQLITE_CORRUPT, SQLITE_NOMEM, SQLITE_FULL, SQLITE_IOERR_*: the
 * reason is in the log (sqlite3_log). Blocks while another thread opens, recovers or closes the same database. */
int thr_db_acquire(const char *path, int flags, struct thr_open_db **out, struct thr_db **db_out, bool *read_only_out);
void thr_db_release(struct thr_open_db *open_db);
void thr_db_identity(const struct thr_open_db *open_db, sqlite3_int64 *id);
/* How often this process was forked off; a database belongs to the process that opened it. */
uint32_t thr_fork_count(void);

/* group.c: the databases of one connection of SQLite */
/* SQLITE_FCNTL_PDB: `file` belongs to *db, or, the second time, to several connections. */
void thr_family_join(struct thr_main_file *file, sqlite3 **db);
void thr_family_leave(struct thr_main_file *file);
/* thr_group_sync() for a commit of SQLite's. */
int thr_family_sync(struct thr_main_file *file);
/* The commit failed. SQLite leaves its super-journal to whoever rolls back a journal that names it; ours do not. */
void thr_family_forget_super_journal(const struct thr_main_file *file, const char *name);

/* beside.c: what SQLite opens beside a database, by name */
void thr_beside_add(struct thr_main_file *file);
void thr_beside_remove(struct thr_main_file *file);
/* SQLite has just called for this file, in this thread. */
void thr_beside_used(struct thr_main_file *file);
/* Whose journal, or WAL, is it? NULL: of none of our files. */
struct thr_main_file *thr_beside_find(const char *name);
/* A database was given to the base VFS (nolock, immutable): from now on not every journal is ours. */
void thr_beside_foreign(void);
bool thr_beside_any_foreign(void);
void thr_beside_before_fork(void);
void thr_beside_after_fork(void); /* in parent and child */

/* kind.c */
struct thr_statement_info {
    enum thr_kind kind;
    bool writes;   /* a running statement may write */
    uint32_t busy; /* statements that are running */
};
/* `only`: if it is running, no other statement is. NULL: all statements of the connection are looked at.
 * *counts_out: one of them counts free pages, or all (integrity_check and the like). NULL: their texts are not looked at. */
void thr_statement_info(sqlite3 *db, sqlite3_stmt *only, bool *counts_out, struct thr_statement_info *out);

/* journal.c */
int thr_journal_open(struct thr_main_file *main, sqlite3_file *file);
void thr_journal_free(struct thr_journal *journal);

/* pragma.c */
enum thr_sync thr_pragma_default_sync(void);
int thr_pragma(struct thr_main_file *file, char **args);
/* A checkpoint of this file alone, in one of SQLite's modes. Blocks. SQLITE_OK; SQLITE_LOCKED: its connection is in a
 * transaction on it; SQLITE_BUSY: some of it has to wait; SQLITE_FULL, SQLITE_IOERR_*. */
int thr_pragma_checkpoint(struct thr_main_file *file, int mode);

/* stats.c: counters by name */
const char *thr_stats_name(uint32_t index); /* NULL past the last */
int64_t thr_stats_value(struct thr_db *db, uint32_t index);

/* stats_table.c: the table-valued functions throng_stats and throng_conflicts */
int thr_stats_register(sqlite3 *db);

#endif
