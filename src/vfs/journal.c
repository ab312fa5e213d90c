/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "vfs.h"

#include "../os/os.h"
#include "../txn/page1.h"

static const int64_t HEADER_BYTES = 512; /* the sector size that thr_main_methods reports */

static struct thr_journal *journal_of(sqlite3_file *file)
{
    return &((struct thr_journal_file *)(void *)file)->main->journal;
}

static void reset(struct thr_journal *journal)
{
    journal->count = journal->header_bytes = journal->page_size = 0;
}

void thr_journal_free(struct thr_journal *journal)
{
    thr_os_free(journal->entries);
    memset(journal, 0, sizeof *journal);
}

int thr_journal_open(const char *name, sqlite3_file *file)
{
    struct thr_journal_file *journal_file = (struct thr_journal_file *)(void *)file;
    sqlite3_file *main_file = sqlite3_database_file_object(name);

    if (main_file == NULL || main_file->pMethods != &thr_main_methods)
        return SQLITE_CANTOPEN;
    journal_file->main = (struct thr_main_file *)(void *)main_file;
    journal_file->base.pMethods = &thr_journal_methods;
    reset(&journal_file->main->journal);
    return SQLITE_OK;
}

static int journal_close(sqlite3_file *file)
{
    reset(journal_of(file));
    file->pMethods = NULL;
    return SQLITE_OK;
}

static int64_t stride(const struct thr_journal *journal)
{
    return (int64_t)journal->page_size + 8;
}

static int64_t entries_end(const struct thr_journal *journal)
{
    return HEADER_BYTES + (int64_t)journal->count * stride(journal);
}

static int append_entry(struct thr_journal *journal, uint32_t pgno)
{
    if (journal->count == journal->capacity) {
        uint32_t capacity = journal->capacity > 0 ? journal->capacity * 2 : 64;
        struct thr_journal_entry *grown = thr_os_realloc(journal->entries, capacity * sizeof *grown);

        if (grown == NULL)
            return SQLITE_NOMEM;
        journal->entries = grown;
        journal->capacity = capacity;
    }
    journal->entries[journal->count++] = (struct thr_journal_entry){.pgno = pgno};
    return SQLITE_OK;
}

/* A record is three writes: the page number, the page, a checksum. */
static int journal_write(sqlite3_file *file, const void *from, int bytes, sqlite3_int64 offset)
{
    struct thr_journal *journal = journal_of(file);
    int64_t in_entry;

    ((struct thr_journal_file *)(void *)file)->main->rolling_back = false;
    if (offset < HEADER_BYTES) {
        if (offset + bytes > HEADER_BYTES)
            return SQLITE_IOERR_WRITE;
        if (offset == 0) /* a new header, or zeros over that of a transaction that ended: what follows is void */
            reset(journal);
        memcpy(journal->header + offset, from, (size_t)bytes);
        if (offset + bytes > journal->header_bytes)
            journal->header_bytes = (uint32_t)(offset + bytes);
        return SQLITE_OK;
    }
    if (journal->page_size == 0)
        journal->page_size = thr_conn_page_size(((struct thr_journal_file *)(void *)file)->main->conn);
    if (bytes == 4 && offset == entries_end(journal) && journal->page_size != 0 &&
        thr_get32(from) != thr_lock_page(journal->page_size))
        return append_entry(journal, thr_get32(from));
    in_entry = offset - (entries_end(journal) - stride(journal));
    if (journal->count > 0 && in_entry == 4 + (int64_t)journal->page_size && bytes == 4)
        journal->entries[journal->count - 1].checksum = thr_get32(from);
    /* Else it is the page itself, which the snapshot has; or the name of a super-journal, which says what to do with
     * this journal after a crash: nobody reads it then. */
    return SQLITE_OK;
}

/* Part of an entry: number, page, checksum. Returns how many bytes were delivered. */
static int read_entry(struct thr_main_file *main, uint8_t *to, int bytes, int64_t offset, int *got_out)
{
    struct thr_journal *journal = &main->journal;
    const struct thr_journal_entry *entry = &journal->entries[(offset - HEADER_BYTES) / stride(journal)];
    int64_t at = (offset - HEADER_BYTES) % stride(journal);
    uint8_t word[4];
    uint8_t *page;
    int rc = SQLITE_OK;

    if (at < 4 || at >= 4 + (int64_t)journal->page_size) {
        thr_put32(word, at < 4 ? entry->pgno : entry->checksum);
        at = at < 4 ? at : at - 4 - (int64_t)journal->page_size;
        *got_out = bytes < 4 - (int)at ? bytes : 4 - (int)at;
        memcpy(to, word + at, (size_t)*got_out);
        return SQLITE_OK;
    }
    at -= 4;
    *got_out = bytes < (int)(journal->page_size - at) ? bytes : (int)(journal->page_size - at);
    if (at == 0 && *got_out == (int)journal->page_size)
        return thr_page_original(main->conn, entry->pgno, to);
    if ((page = thr_os_alloc(journal->page_size)) == NULL)
        return SQLITE_NOMEM;
    if ((rc = thr_page_original(main->conn, entry->pgno, page)) == SQLITE_OK)
        memcpy(to, page + at, (size_t)*got_out);
    thr_os_free(page);
    return rc;
}

static int journal_read(sqlite3_file *file, void *to, int bytes, sqlite3_int64 offset)
{
    struct thr_main_file *main = ((struct thr_journal_file *)(void *)file)->main;
    struct thr_journal *journal = &main->journal;
    uint8_t *at = to;
    int got, rc;

    /* Only a rollback of the whole transaction looks for the name of a super-journal, and it begins with that. */
    if (bytes == 4 && journal->count > 0 && offset == entries_end(journal) - 16)
        main->rolling_back = true;
    while (bytes > 0) {
        if (offset < HEADER_BYTES && offset < journal->header_bytes) {
            got = bytes < (int)(journal->header_bytes - offset) ? bytes : (int)(journal->header_bytes - offset);
            memcpy(at, journal->header + offset, (size_t)got);
        } else if (offset >= HEADER_BYTES && offset < entries_end(journal)) {
            if ((rc = read_entry(main, at, bytes, offset, &got)) != SQLITE_OK)
                return rc;
        } else {
            memset(at, 0, (size_t)bytes);
            return SQLITE_IOERR_SHORT_READ;
        }
        at += got;
        offset += got;
        bytes -= got;
    }
    return SQLITE_OK;
}

static int journal_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    if (size == 0)
        reset(journal_of(file));
    return SQLITE_OK;
}

static int journal_sync(sqlite3_file *file, int flags)
{
    (void)file;
    (void)flags;
    return SQLITE_OK; /* nobody reads it after a crash: the log is what counts */
}

static int journal_file_size(sqlite3_file *file, sqlite3_int64 *size_out)
{
    const struct thr_journal *journal = journal_of(file);

    *size_out = journal->count > 0 ? entries_end(journal) : journal->header_bytes;
    return SQLITE_OK;
}

static int journal_lock(sqlite3_file *file, int level)
{
    (void)file;
    (void)level;
    return SQLITE_OK;
}

static int journal_check_reserved(sqlite3_file *file, int *result_out)
{
    (void)file;
    *result_out = 0;
    return SQLITE_OK;
}

static int journal_control(sqlite3_file *file, int op, void *arg)
{
    (void)file;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int journal_sector_size(sqlite3_file *file)
{
    (void)file;
    return (int)HEADER_BYTES;
}

static int journal_characteristics(sqlite3_file *file)
{
    (void)file;
    return 0;
}

const sqlite3_io_methods thr_journal_methods = {
    .iVersion = 1,
    .xClose = journal_close,
    .xRead = journal_read,
    .xWrite = journal_write,
    .xTruncate = journal_truncate,
    .xSync = journal_sync,
    .xFileSize = journal_file_size,
    .xLock = journal_lock,
    .xUnlock = journal_lock,
    .xCheckReservedLock = journal_check_reserved,
    .xFileControl = journal_control,
    .xSectorSize = journal_sector_size,
    .xDeviceCharacteristics = journal_characteristics,
};
