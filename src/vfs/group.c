/* Which databases belong to one connection of SQLite, and its super-journals.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>

#include "vfs.h"

#include "../txn/cut.h"
#include "../txn/group.h"

enum { BUCKETS = 256 };

/* All open files, by the connection that opened them. */
static pthread_mutex_t families_lock = PTHREAD_MUTEX_INITIALIZER;
static struct thr_main_file *families[BUCKETS];

static struct thr_main_file **bucket_of(const sqlite3 *db)
{
    return &families[((uintptr_t)db >> 6) * 2654435761u / 64 % BUCKETS];
}

/* SQLite tells it again for each connection that shares the cache of the first one. What such a file is in the middle of
 * may be any connection's transaction, so it has no family any more, and commits by itself. */
void thr_family_join(struct thr_main_file *file, sqlite3 **db)
{
    struct thr_main_file **bucket = bucket_of(*db), *other;

    if (file->db != NULL) {
        if (file->family != NULL)
            thr_cut_leave(file->conn);
        thr_family_leave(file);
        return;
    }
    file->db = db;
    file->family = *db;
    pthread_mutex_lock(&families_lock);
    for (other = *bucket; other != NULL && other->family != *db; other = other->next_of_bucket)
        ;
    if (other != NULL)
        thr_group_join(file->conn, other->conn);
    file->next_of_bucket = *bucket;
    *bucket = file;
    pthread_mutex_unlock(&families_lock);
}

void thr_family_leave(struct thr_main_file *file)
{
    struct thr_main_file **at;

    if (file->family == NULL)
        return;
    pthread_mutex_lock(&families_lock);
    for (at = bucket_of(file->family); *at != file; at = &(*at)->next_of_bucket)
        ;
    *at = file->next_of_bucket;
    thr_group_leave(file->conn);
    pthread_mutex_unlock(&families_lock);
    file->family = NULL;
}

/* Whether a database of stock SQLite changes in the connection's transaction; one in memory, too. */
static bool others_change(sqlite3 *db, const struct thr_conn *conn)
{
    const struct thr_conn *member = conn;
    const char *schema;
    uint32_t all = 0, ours = 0;

    for (int i = 0; (schema = sqlite3_db_name(db, i)) != NULL; i++)
        all += i != 1 && sqlite3_txn_state(db, schema) == SQLITE_TXN_WRITE;
    do
        ours += member->writing;
    while ((member = member->next) != conn);
    return all != ours;
}

int thr_family_sync(struct thr_main_file *file)
{
    struct thr_statement_info info;
    bool readers, early;

    if (file->conn->next == file->conn)
        return thr_group_sync(file->conn, false, false);
    /* Outside BEGIN a statement that is still being read is another transaction. */
    thr_statement_info(*file->db, NULL, NULL, &info);
    readers = info.busy == 1 || !sqlite3_get_autocommit(*file->db);
    early = !others_change(*file->db, file->conn);
    return thr_group_sync(file->conn, readers, early);
}

void thr_family_forget_super_journal(const struct thr_main_file *file, const char *name)
{
    sqlite3 *db = file->db == NULL ? NULL : *file->db;
    sqlite3_vfs *base = thr_base_vfs();

    /* A file of stock SQLite in the same commit still needs it. */
    if (db != NULL && !others_change(db, file->conn))
        base->xDelete(base, name, 0);
}
