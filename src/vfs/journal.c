/* The rollback journal, as the pager writes and reads it: parts, each a header and the entries that follow it. Where an
 * entry stands is worked out from the header, so that it does not matter how large sectors are taken to be, and whether
 * each spill begins a new part (as it does under a VFS that hides SQLITE_IOCAP_SAFE_APPEND).
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "vfs.h"

#include "../os/assert.h"
#include "../os/os.h"
#include "../txn/page1.h"

/* Of a header (SQLite's file format, "The Rollback Journal"). */
enum { AT_NONCE = 12, AT_SECTOR = 20, AT_PAGE_SIZE = 24, RECORD_COUNT_END = 12 };

static struct thr_main_file *main_of(sqlite3_file *file)
{
    return ((struct thr_journal_file *)(void *)file)->main;
}

static void reset(struct thr_journal *journal)
{
    journal->count = journal->part_count = 0;
    journal->delivered = 0;
    journal->rolling_back = journal->names_super = false;
}

void thr_journal_free(struct thr_journal *journal)
{
    thr_os_free(journal->entries);
    thr_os_free(journal->parts);
    memset(journal, 0, sizeof *journal);
}

int thr_journal_open(struct thr_main_file *main, sqlite3_file *file)
{
    struct thr_journal_file *journal_file = (struct thr_journal_file *)(void *)file;

    journal_file->main = main;
    journal_file->base.pMethods = &thr_journal_methods;
    reset(&main->journal);
    return SQLITE_OK;
}

static int journal_close(sqlite3_file *file)
{
    reset(&main_of(file)->journal);
    file->pMethods = NULL;
    return SQLITE_OK;
}

/* --- where things stand --- */

static uint32_t sector_of(const struct thr_journal *journal)
{
    return thr_get32(journal->parts[0].header + AT_SECTOR);
}

static uint32_t page_size_of(const struct thr_journal *journal)
{
    return thr_get32(journal->parts[0].header + AT_PAGE_SIZE);
}

static int64_t stride_of(const struct thr_journal *journal)
{
    return (int64_t)page_size_of(journal) + 8; /* page number, page, checksum */
}

static int64_t part_end(const struct thr_journal *journal, uint32_t part)
{
    uint32_t end = part + 1 < journal->part_count ? journal->parts[part + 1].first : journal->count;

    return journal->parts[part].at + sector_of(journal) +
           (int64_t)(end - journal->parts[part].first) * stride_of(journal);
}

static int64_t journal_end(const struct thr_journal *journal)
{
    return journal->part_count == 0 ? 0 : part_end(journal, journal->part_count - 1);
}

/* --- writing --- */

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
    journal->unfinished = true;
    return SQLITE_OK;
}

static int append_part(struct thr_journal *journal, const uint8_t *header, int64_t at)
{
    if (journal->part_count == journal->part_capacity) {
        uint32_t capacity = journal->part_capacity > 0 ? journal->part_capacity * 2 : 1;
        struct thr_journal_part *grown = thr_os_realloc(journal->parts, capacity * sizeof *grown);

        if (grown == NULL)
            return SQLITE_NOMEM;
        journal->parts = grown;
        journal->part_capacity = capacity;
    }
    journal->parts[journal->part_count] = (struct thr_journal_part){.at = at, .first = journal->count};
    memcpy(journal->parts[journal->part_count++].header, header, THR_JOURNAL_HEADER);
    return SQLITE_OK;
}

/* The first header of a transaction; or zeros over that of one that ended, and then what follows is void. */
static int write_first_header(struct thr_main_file *main, const uint8_t *header)
{
    struct thr_journal *journal = &main->journal;
    uint32_t page_size = thr_get32(header + AT_PAGE_SIZE), sector = thr_get32(header + AT_SECTOR);

    reset(journal);
    main->conn->changing = page_size != 0;
    if (page_size == 0)
        return SQLITE_OK;
    if (sector == 0 || (page_size != thr_conn_page_size(main->conn) && thr_conn_page_size(main->conn) != 0))
        return SQLITE_IOERR_WRITE;
    return append_part(journal, header, 0);
}

static int refuse_write(const struct thr_main_file *main, int bytes, int64_t offset)
{
    thr_log(SQLITE_IOERR_WRITE, "throng: %d bytes at %lld of the journal of %s are nothing that SQLite writes there",
            bytes, (long long)offset, main->conn->db->path);
    return SQLITE_IOERR_WRITE;
}

static int journal_write(sqlite3_file *file, const void *from, int bytes, sqlite3_int64 offset)
{
    struct thr_main_file *main = main_of(file);
    struct thr_journal *journal = &main->journal;
    int64_t end = journal_end(journal), in_entry;
    struct thr_journal_part *last;
    int rc = SQLITE_OK;

    journal->rolling_back = false;
    if (offset == 0 && bytes >= THR_JOURNAL_HEADER)
        return write_first_header(main, from);
    if (journal->part_count == 0)
        return refuse_write(main, bytes, offset);
    last = &journal->parts[journal->part_count - 1];
    if (offset == last->at && bytes == RECORD_COUNT_END) { /* synced: the header says how many entries follow it */
        memcpy(last->header, from, RECORD_COUNT_END);
        return SQLITE_OK;
    }
    if (offset > last->at && offset + bytes <= last->at + sector_of(journal)) /* the rest of a header's sector */
        return SQLITE_OK;
    /* The name of a super-journal says what to do with this journal after a crash: ours is not read then. */
    if (journal->names_super ||
        (bytes == 4 && offset >= end && thr_get32(from) == thr_lock_page(page_size_of(journal)))) {
        journal->names_super = true;
        return SQLITE_OK;
    }
    if (bytes == 4 && offset == end)
        return append_entry(journal, thr_get32(from));
    in_entry = offset - (end - stride_of(journal));
    if (bytes == 4 && in_entry == 0 &&
        journal->unfinished) { /* a VFS above us failed the rest: the pager begins anew */
        journal->entries[journal->count - 1].pgno = thr_get32(from);
        return SQLITE_OK;
    }
    if (journal->count > last->first && in_entry == 4 && bytes == (int)page_size_of(journal))
        return SQLITE_OK; /* the snapshot has the page */
    if (journal->count > last->first && in_entry == stride_of(journal) - 4 && bytes == 4) {
        journal->entries[journal->count - 1].checksum = thr_get32(from);
        journal->unfinished = false;
        return SQLITE_OK;
    }
    if (offset >= end && offset % sector_of(journal) == 0 && bytes >= THR_JOURNAL_HEADER)
        rc = append_part(journal, from, offset);
    else
        rc = refuse_write(main, bytes, offset);
    return rc;
}

/* --- reading --- */

/* As SQLite's pager_cksum(). */
static uint32_t checksum(uint32_t nonce, const uint8_t *page, uint32_t page_size)
{
    for (int64_t i = (int64_t)page_size - 200; i > 0; i -= 200)
        nonce += page[i];
    return nonce;
}

#ifdef THR_SLOW_ASSERTS
static bool may_be_free(const struct thr_conn *conn, uint32_t pgno)
{
    const struct thr_db *db = conn->db;

    return db->heap.shm == NULL /* a database without a page */ ||
           atomic_load_explicit(&db->shm.head->format, memory_order_relaxed) == 1 ||
           thr_space_is_free(&db->heap, pgno, conn->snapshot);
}
#endif

/* The original of an entry. The checksum that goes with it is that of the page that is delivered: the pager wrote what its
 * cache held, and for a page that was free it may hold another content than the snapshot has, as such a page need not be
 * written when it is freed, nor read when it is used. A checksum that does not fit ends the playback, and the rest of the
 * cache would go on as if nothing had been rolled back. */
static int deliver_page(struct thr_main_file *main, uint32_t part, uint32_t entry, uint8_t *page)
{
    struct thr_journal *journal = &main->journal;
    uint32_t pgno = journal->entries[entry].pgno;
    int rc = thr_page_original(main->conn, pgno, page);

    if (rc != SQLITE_OK)
        return rc;
    journal->delivered = entry + 1;
    journal->checksum = checksum(thr_get32(journal->parts[part].header + AT_NONCE), page, page_size_of(journal));
    THR_SLOW_ASSERT(journal->checksum == journal->entries[entry].checksum || may_be_free(main->conn, pgno) ||
                    main->conn->committed || (journal->unfinished && entry + 1 == journal->count));
    return SQLITE_OK;
}

/* Bytes of an entry of this part, up to `bytes`. *got_out: how many. */
static int read_entry(struct thr_main_file *main, uint32_t part, int64_t offset, uint8_t *to, int bytes, int *got_out)
{
    struct thr_journal *journal = &main->journal;
    int64_t in_part = offset - journal->parts[part].at - sector_of(journal), at = in_part % stride_of(journal);
    uint32_t entry = journal->parts[part].first + (uint32_t)(in_part / stride_of(journal));
    int64_t page_size = page_size_of(journal), page_end = 4 + page_size;
    int64_t until = at < 4 ? 4 : at < page_end ? page_end : page_end + 4;
    uint8_t edge[4], *page;
    int rc = SQLITE_OK;

    *got_out = bytes < (int)(until - at) ? bytes : (int)(until - at);
    if (at == 4 && bytes >= page_size)
        return deliver_page(main, part, entry, to);
    if (at < 4) {
        thr_put32(edge, journal->entries[entry].pgno);
        memcpy(to, edge + at, (size_t)*got_out);
        return SQLITE_OK;
    }
    if (at < page_end || journal->delivered != entry + 1) {
        if ((page = thr_os_alloc((size_t)page_size)) == NULL)
            return SQLITE_NOMEM;
        if ((rc = deliver_page(main, part, entry, page)) == SQLITE_OK && at < page_end)
            memcpy(to, page + (at - 4), (size_t)*got_out);
        thr_os_free(page);
    }
    if (rc == SQLITE_OK && at >= page_end) {
        thr_put32(edge, journal->checksum);
        memcpy(to, edge + (at - page_end), (size_t)*got_out);
    }
    return rc;
}

static int journal_read(sqlite3_file *file, void *to, int bytes, sqlite3_int64 offset)
{
    struct thr_main_file *main = main_of(file);
    struct thr_journal *journal = &main->journal;
    int64_t end = journal_end(journal), header_at;
    uint8_t *at = to;
    int got = 0, rc = SQLITE_OK;

    /* Only a rollback of the whole transaction looks for the name of a super-journal, and it begins with that. */
    if (bytes == 4 && journal->part_count > 0 && offset == end - 16)
        journal->rolling_back = true;
    for (; bytes > 0 && rc == SQLITE_OK; at += got, offset += got, bytes -= got) {
        uint32_t part = journal->part_count;

        while (part > 0 && journal->parts[part - 1].at > offset)
            part--;
        if (part-- == 0 || offset >= end) {
            memset(at, 0, (size_t)bytes);
            return SQLITE_IOERR_SHORT_READ;
        }
        header_at = offset - journal->parts[part].at;
        if (header_at >= sector_of(journal) && offset < part_end(journal, part)) {
            rc = read_entry(main, part, offset, at, bytes, &got);
        } else {
            got = 1;
            *at = header_at < THR_JOURNAL_HEADER ? journal->parts[part].header[header_at] : 0;
        }
    }
    return thr_rollback_error(rc);
}

static int journal_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    if (size == 0)
        reset(&main_of(file)->journal);
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
    *size_out = journal_end(&main_of(file)->journal);
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
    return 512; /* as main_sector_size() */
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
