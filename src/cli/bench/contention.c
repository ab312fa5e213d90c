/* Which locks were contended, and which pages conflicts were about.
 *
 * SPDX-License-Identifier: MIT */
#include "contention.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "lock_"

static const char *failed(const char *what, sqlite3 *db)
{
    static char message[THR_ERROR_BYTES];

    return sqlite3_snprintf((int)sizeof message, message, "%s: %s", what, sqlite3_errmsg(db));
}

/* --- adding up --- */

void thr_contention_add_lock(struct thr_contention *into, const struct thr_lock_count *from)
{
    struct thr_lock_count *lock = into->locks;

    while (lock < into->locks + into->lock_count && strcmp(lock->name, from->name) != 0)
        lock++;
    if (lock == into->locks + into->lock_count) {
        if (into->lock_count == THR_LOCKS_MAX)
            return;
        into->lock_count++;
        *lock = *from;
        return;
    }
    lock->acquisitions += from->acquisitions;
    lock->contended += from->contended;
    lock->wait_ns += from->wait_ns;
    if (from->longest_ns > lock->longest_ns)
        lock->longest_ns = from->longest_ns;
}

static int more_first(const void *a, const void *b)
{
    const struct thr_hot_page *x = a, *y = b;

    if (x->conflicts != y->conflicts)
        return x->conflicts < y->conflicts ? 1 : -1;
    return (x->page > y->page) - (x->page < y->page);
}

/* In separate databases the same page may be of different tables: then it is two. */
static void add_page(struct thr_contention *into, const struct thr_hot_page *from)
{
    struct thr_hot_page *page = into->pages;

    while (page < into->pages + into->page_count && (page->page != from->page || strcmp(page->owner, from->owner) != 0))
        page++;
    if (page < into->pages + into->page_count) {
        page->conflicts += from->conflicts;
        page->error += from->error;
    } else if (into->page_count < THR_HOT_PAGES_MAX) {
        into->page_count++;
        *page = *from;
    } else if ((--page)->conflicts < from->conflicts) { /* the last one has the fewest */
        *page = *from;
    }
    qsort(into->pages, into->page_count, sizeof *into->pages, more_first);
}

void thr_contention_add(struct thr_contention *into, const struct thr_contention *from)
{
    for (uint32_t i = 0; i < from->lock_count; i++)
        thr_contention_add_lock(into, &from->locks[i]);
    for (uint32_t i = 0; i < from->page_count; i++)
        add_page(into, &from->pages[i]);
}

/* --- Throng's own --- */

/* A row of throng_stats: lock_<name>_<figure>. The figures of a lock come one after the other. */
static void read_counter(struct thr_contention *counted, const char *counter, uint64_t value)
{
    static const struct {
        const char *suffix;
        size_t offset;
    } figures[] = {
        {"_acquisitions", offsetof(struct thr_lock_count, acquisitions)},
        {"_contended", offsetof(struct thr_lock_count, contended)},
        {"_wait_ns", offsetof(struct thr_lock_count, wait_ns)},
        {"_longest_ns", offsetof(struct thr_lock_count, longest_ns)},
    };
    size_t length = strlen(counter);

    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        size_t suffix = strlen(figures[i].suffix), prefix = strlen(PREFIX);
        struct thr_lock_count lock = {0};

        if (length <= prefix + suffix || strcmp(counter + length - suffix, figures[i].suffix) != 0)
            continue;
        (void)snprintf(lock.name, sizeof lock.name, "throng %.*s", (int)(length - prefix - suffix), counter + prefix);
        memcpy((char *)&lock + figures[i].offset, &value, sizeof value);
        thr_contention_add_lock(counted, &lock);
    }
}

static const char *read_throng(sqlite3 *probe, struct thr_contention *counted)
{
    sqlite3_stmt *statement = NULL;
    const char *message = NULL;
    int rc;

    rc = sqlite3_prepare_v2(probe, "SELECT counter, value FROM throng_stats WHERE counter GLOB '" PREFIX "*_*'", -1,
                            &statement, NULL);
    while (rc == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        read_counter(counted, (const char *)sqlite3_column_text(statement, 0),
                     (uint64_t)sqlite3_column_int64(statement, 1));
    if (rc != SQLITE_OK || sqlite3_finalize(statement) != SQLITE_OK)
        return failed("throng_stats", probe);
    rc = sqlite3_prepare_v2(probe, "SELECT page, conflicts, error FROM throng_conflicts", -1, &statement, NULL);
    while (rc == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        struct thr_hot_page page = {.page = (uint32_t)sqlite3_column_int64(statement, 0),
                                    .conflicts = (uint64_t)sqlite3_column_int64(statement, 1),
                                    .error = (uint64_t)sqlite3_column_int64(statement, 2)};

        add_page(counted, &page);
    }
    if (rc != SQLITE_OK || sqlite3_finalize(statement) != SQLITE_OK)
        message = failed("throng_conflicts", probe);
    return message;
}

/* --- a measurement --- */

const char *thr_contention_begin(const struct thr_settings *settings, const struct thr_target *target,
                                 sqlite3 **probe_out)
{
    *probe_out = NULL;
    if (target->engine->journal_mode == NULL && strcmp(settings->vfs, "throng") == 0 &&
        thr_database_open(settings, target, probe_out) != SQLITE_OK) {
        const char *message = failed("opening the database", *probe_out);

        (void)sqlite3_close(*probe_out);
        *probe_out = NULL;
        return message;
    }
    thr_mutexes_reset();
    return NULL;
}

const char *thr_contention_end(sqlite3 *probe, struct thr_contention *into)
{
    struct thr_lock_count kinds[THR_MUTEX_KINDS];
    uint32_t count = thr_mutexes_read(kinds); /* before the probe's own queries */
    struct thr_contention counted = {0};
    const char *message = probe == NULL ? NULL : read_throng(probe, &counted);

    for (uint32_t i = 0; i < count; i++) {
        struct thr_lock_count kind = kinds[i];

        (void)snprintf(kind.name, sizeof kind.name, "sqlite %.20s", kinds[i].name);
        thr_contention_add_lock(&counted, &kind);
    }
    (void)sqlite3_close(probe);
    if (message == NULL)
        thr_contention_add(into, &counted);
    return message;
}

/* --- what the pages are of --- */

static void name_pages(sqlite3 *db, const char *sql, struct thr_contention *contention)
{
    sqlite3_stmt *statement = NULL;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        return; /* no dbstat */
    while (sqlite3_step(statement) == SQLITE_ROW) {
        uint32_t page = (uint32_t)sqlite3_column_int64(statement, 0);

        for (uint32_t i = 0; i < contention->page_count; i++) {
            if (contention->pages[i].page == page)
                (void)sqlite3_snprintf((int)sizeof contention->pages[i].owner, contention->pages[i].owner, "%s",
                                       sqlite3_column_text(statement, 1));
        }
    }
    (void)sqlite3_finalize(statement);
}

void thr_contention_name(const struct thr_settings *settings, const char *path, struct thr_contention *contention)
{
    sqlite3 *db = NULL;

    if (contention->page_count == 0)
        return;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, settings->base_vfs) == SQLITE_OK) {
        name_pages(db, "SELECT rootpage, name FROM sqlite_schema WHERE rootpage>0 UNION SELECT 1, 'sqlite_schema'",
                   contention);
        name_pages(db, "SELECT pageno, name FROM dbstat", contention);
    }
    (void)sqlite3_close(db);
}
