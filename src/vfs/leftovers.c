/* What stands beside a database file from earlier uses: a rollback journal or a WAL of stock SQLite, or a directory of ours
 * with a log. All of it goes to the file before anything else begins.
 *
 * SPDX-License-Identifier: MIT */
#include "open.h"

#include <string.h>

#include "../ckpt/recover.h"
#include "../ckpt/stock.h"
#include "../os/os.h"

/* Let stock SQLite recover what stock SQLite left: a WAL, or a hot rollback journal. */
static int recover_stock(const struct thr_db *db, bool wal)
{
    sqlite3 *stock = NULL;
    int rc = sqlite3_open_v2(db->path, &stock, SQLITE_OPEN_READWRITE, thr_base_vfs()->zName);

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(stock, "SELECT count(*) FROM sqlite_schema; PRAGMA wal_checkpoint(TRUNCATE);", NULL, NULL,
                          NULL);
    if (rc == SQLITE_OK && !wal) /* a journal that journal_mode=PERSIST left: delete it */
        sqlite3_exec(stock, "PRAGMA journal_mode=PERSIST; PRAGMA journal_mode=DELETE;", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        thr_log(rc, "throng: stock SQLite could not recover %s: %s", db->path, sqlite3_errmsg(stock));
    sqlite3_close(stock);
    return rc;
}

int thr_stat_beside(const char *path, const char *suffix, struct thr_stat *stat)
{
    char *name = sqlite3_mprintf("%s%s", path, suffix);
    int rc = name == NULL ? SQLITE_NOMEM : thr_os_lstat(name, stat);

    sqlite3_free(name);
    return rc;
}

void thr_log_unseen(const char *path, const char *suffix, int code)
{
    char text[128];

    thr_log(
        code,
        "throng: it cannot be told whether a file with %s added to its name (%s) stands beside %s, which stays closed",
        suffix, code == SQLITE_NOMEM ? "out of memory" : thr_os_error_text(thr_os_last_errno(), text, sizeof text),
        path);
}

void thr_log_orphan(const char *path)
{
    thr_log(
        SQLITE_CANTOPEN,
        "throng: %s-journal holds commits of a database %s that is not there: nothing is touched. Put the file back to "
        "recover them, or move the directory away to begin a new database",
        path, path);
}

void thr_log_incomplete(const struct thr_db *db)
{
    struct thr_stat stat;

    if (!db->base.writable && thr_stat_beside(db->path, "-journal", &stat) == SQLITE_OK && stat.is_dir) {
        thr_log(SQLITE_CANTOPEN, "throng: %s needs recovery: open it once where it and its directory can be written",
                db->path);
        return;
    }
    thr_log(SQLITE_CANTOPEN,
            "throng: %s was in use when its process ended, or when it was copied, and %s-journal is not there",
            db->path, db->path);
    thr_log(
        SQLITE_CANTOPEN,
        "throng: nothing is touched. Put that directory back; or, to go on without the latest commits: throng recover "
        "--without-log");
}

static int log_in_the_way(const struct thr_db *db)
{
    thr_log(SQLITE_CANTOPEN,
            "throng: %s is in the way: it is neither a rollback journal of SQLite nor a directory of ours. Move it "
            "elsewhere to open the database",
            db->directory);
    return SQLITE_CANTOPEN;
}

/* A file named <db>-journal: is it a rollback journal of SQLite (also one that was finished by zeroing its head)? */
static int check_stock_journal(const struct thr_db *db, const struct thr_stat *stat)
{
    static const uint8_t MAGIC[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
    uint8_t head[8] = {0};
    size_t got = 0;
    int fd, rc;

    if (!stat->is_regular)
        return log_in_the_way(db);
    if ((rc = thr_os_open(db->directory, THR_OPEN_READ, 0, &fd, NULL)) != SQLITE_OK)
        return rc;
    rc = thr_os_read(fd, head, sizeof head, 0, &got);
    thr_os_close(fd);
    if (rc != SQLITE_OK)
        return rc;
    if (got == 0 || head[0] == 0 || (got == 8 && memcmp(head, MAGIC, 8) == 0))
        return SQLITE_OK;
    return log_in_the_way(db);
}

/* A directory of ours, of an earlier use of the file, or so it seems. */
static int recover_directory(struct thr_db *db)
{
    struct thr_recovery recovery;
    int rc = thr_home_take(db->directory, db->file_mode, &db->home);

    if (rc == SQLITE_NOTFOUND)
        return SQLITE_OK;
    if (rc == SQLITE_BUSY)
        thr_log(rc,
                "throng: %s belongs to a database that is in use under the same name, and whose file was moved away or "
                "replaced: close that one first",
                db->directory);
    else if (rc != SQLITE_OK)
        thr_log(rc, "throng: %s needs recovery, and %s cannot be written", db->path, db->directory);
    if (rc != SQLITE_OK)
        return rc;
    if ((rc = thr_recover_apply(db->directory, &db->base, &recovery)) != SQLITE_OK) {
        thr_log(rc, "throng: recovery of %s from %s failed", db->path, db->directory);
        thr_home_let_go(&db->home, true);
        return rc;
    }
    if (recovery.commits > 0)
        thr_log(SQLITE_NOTICE, "throng: recovered %llu commits of %s from %s", (unsigned long long)recovery.commits,
                db->path, db->directory);
    if ((rc = thr_home_remove(db->directory, &db->home)) != SQLITE_OK)
        thr_home_let_go(&db->home, false);
    return rc;
}

int thr_leftovers_recover(struct thr_db *db)
{
    struct thr_stat journal, wal;
    struct thr_stock_header header;
    char name[256] = "";
    bool stock;
    int rc, journal_rc;

    if ((rc = thr_stat_beside(db->path, "-wal", &wal)) != SQLITE_OK && rc != SQLITE_NOTFOUND) {
        thr_log_unseen(db->path, "-wal", rc);
        return rc;
    }
    stock = rc == SQLITE_OK;
    journal_rc = thr_stat_beside(db->path, "-journal", &journal);
    if (journal_rc != SQLITE_OK && journal_rc != SQLITE_NOTFOUND) {
        thr_log_unseen(db->path, "-journal", journal_rc);
        return journal_rc;
    }
    if (journal_rc == SQLITE_OK && !journal.is_dir) {
        if ((rc = check_stock_journal(db, &journal)) != SQLITE_OK)
            return rc;
        stock = true;
    }
    /* Also if the file does not look like a database, or is empty: that may be what the journal is there to mend. */
    if (stock) {
        if ((rc = thr_stock_header_read(&db->base, &header)) != SQLITE_OK)
            return rc;
        thr_os_unlock(db->base.fd, THR_LOCK_BYTES_AT, THR_LOCK_BYTES);
        if ((rc = recover_stock(db, header.wal)) != SQLITE_OK)
            return rc;
        if ((rc = thr_os_lock(db->base.fd, true, THR_LOCK_BYTES_AT, THR_LOCK_BYTES)) != SQLITE_OK)
            return rc;
    }
    if ((rc = thr_stat_beside(db->path, "-journal", &journal)) != SQLITE_OK)
        return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
    if (!journal.is_dir)
        return log_in_the_way(db); /* stock SQLite has seen it, and has no use for it */
    if ((rc = thr_trust_directory(db, &journal)) != SQLITE_OK)
        return rc;
    rc = thr_recover_inspect(db->directory, name, sizeof name);
    if (rc == SQLITE_CANTOPEN && name[0] != '\0')
        thr_log(rc, "throng: the directory %s holds %s, which is not ours: it is left alone, and %s stays closed",
                db->directory, name, db->path);
    else if (rc != SQLITE_OK)
        thr_log(rc, "throng: the directory %s cannot be read: %s stays closed", db->directory, db->path);
    return rc == SQLITE_OK ? recover_directory(db) : rc;
}
