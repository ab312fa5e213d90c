/* Which database does a journal belong to? SQLite opens it by a name, and with nothing else: where that is the very string
 * that SQLite made for the database, the string tells. A VFS above may hand down a copy; then it is the database that this
 * thread has just locked, or asked whether it was moved, as the pager does before it opens a journal.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <string.h>

#include "vfs.h"

/* Guards the list of open files. The counters are read without it: a thread whose `recent` was set at the same number of
 * closes may use it. */
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct thr_main_file *files;
static uint64_t numbers;
static _Atomic uint64_t closes;
static _Atomic bool any_foreign;

static _Thread_local struct {
    struct thr_main_file *file;
    uint64_t number, closes;
} recent;

void thr_beside_add(struct thr_main_file *file)
{
    /* SQLite made the name: it is that of a main database (sqlite3_filename_journal). */
    file->journal_name = sqlite3_filename_journal(file->name);
    file->wal_name = sqlite3_filename_wal(file->name);
    pthread_mutex_lock(&list_lock);
    file->number = ++numbers;
    file->next_open = files;
    files = file;
    pthread_mutex_unlock(&list_lock);
}

void thr_beside_remove(struct thr_main_file *file)
{
    struct thr_main_file **link = &files;

    pthread_mutex_lock(&list_lock);
    while (*link != file)
        link = &(*link)->next_open;
    *link = file->next_open;
    atomic_fetch_add_explicit(&closes, 1, memory_order_release);
    pthread_mutex_unlock(&list_lock);
}

void thr_beside_used(struct thr_main_file *file)
{
    recent.file = file;
    recent.number = file->number;
    recent.closes = atomic_load_explicit(&closes, memory_order_acquire); /* pairs with thr_beside_remove() */
}

void thr_beside_foreign(void)
{
    atomic_store_explicit(&any_foreign, true, memory_order_relaxed);
}

bool thr_beside_any_foreign(void)
{
    return atomic_load_explicit(&any_foreign, memory_order_relaxed);
}

/* Is it the text of the file's name and "-journal" or "-wal"? */
static bool is_beside(const struct thr_main_file *file, const char *name)
{
    size_t bytes = strlen(file->name);

    return strncmp(name, file->name, bytes) == 0 &&
           (strcmp(name + bytes, "-journal") == 0 || strcmp(name + bytes, "-wal") == 0);
}

struct thr_main_file *thr_beside_find(const char *name)
{
    struct thr_main_file *found = NULL, *at;

    if (recent.file != NULL && recent.closes == atomic_load_explicit(&closes, memory_order_acquire) &&
        (name == recent.file->journal_name || name == recent.file->wal_name))
        return recent.file;
    pthread_mutex_lock(&list_lock);
    for (at = files; at != NULL && found == NULL; at = at->next_open)
        if (name == at->journal_name || name == at->wal_name)
            found = at;
    for (at = files; at != NULL && found == NULL; at = at->next_open)
        if (at == recent.file && at->number == recent.number && is_beside(at, name))
            found = at;
    pthread_mutex_unlock(&list_lock);
    return found;
}

void thr_beside_before_fork(void)
{
    pthread_mutex_lock(&list_lock);
}

void thr_beside_after_fork(void)
{
    pthread_mutex_unlock(&list_lock);
}
