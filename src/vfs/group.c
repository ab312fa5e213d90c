/* SPDX-License-Identifier: MIT */
#include "../log/group.h"

#include <string.h>

#include "vfs.h"

#include "../os/os.h"
#include "../os/point.h"

/* The Throng file behind schema `index` of the connection, if it is in a write transaction. */
static struct thr_main_file *writer_at(sqlite3 *db, int index, bool *end_out)
{
    const char *name = db == NULL ? NULL : sqlite3_db_name(db, index);

    *end_out = name == NULL;
    if (name == NULL || index == 1 || sqlite3_txn_state(db, name) != SQLITE_TXN_WRITE)
        return NULL;
    return thr_main_of(db, name);
}

uint32_t thr_group_writers(const struct thr_main_file *file)
{
    sqlite3 *db = file->db == NULL ? NULL : *file->db;
    uint32_t writers = 0;
    bool end = false;

    for (int i = 0; !end; i++)
        writers += writer_at(db, i, &end) != NULL;
    return writers;
}

/* Whoever of the connection's databases has prepared already belongs to this commit, and names its coordinator. */
static const uint8_t *group_of_others(sqlite3 *db, size_t *bytes_out)
{
    bool end = false;

    for (int i = 0; !end; i++) {
        const struct thr_main_file *other = writer_at(db, i, &end);

        if (other != NULL && other->conn->prepared && other->conn->group != NULL) {
            *bytes_out = other->conn->group_bytes;
            return other->conn->group;
        }
    }
    return NULL;
}

static int new_group(struct thr_main_file *file)
{
    struct thr_group_head head = {.coordinator = 1, .count = 1};
    struct thr_conn *conn = file->conn;
    const struct thr_main_file *other;
    size_t bytes = sizeof head + strlen(conn->db->directory) + 1, at;
    bool end = false;

    for (int i = 0; !end; i++) {
        if ((other = writer_at(*file->db, i, &end)) != NULL && other != file) {
            bytes += strlen(other->conn->db->directory) + 1;
            head.count++;
        }
    }
    if ((conn->group = thr_os_alloc(bytes)) == NULL)
        return SQLITE_NOMEM;
    thr_os_random(head.id, sizeof head.id);
    memcpy(conn->group, &head, sizeof head);
    at = sizeof head;
    memcpy(conn->group + at, conn->db->directory, strlen(conn->db->directory) + 1);
    at += strlen(conn->db->directory) + 1;
    end = false;
    for (int i = 0; !end; i++) {
        if ((other = writer_at(*file->db, i, &end)) != NULL && other != file) {
            memcpy(conn->group + at, other->conn->db->directory, strlen(other->conn->db->directory) + 1);
            at += strlen(other->conn->db->directory) + 1;
        }
    }
    conn->group_bytes = bytes;
    return SQLITE_OK;
}

int thr_group_set(struct thr_main_file *file, uint32_t writers)
{
    struct thr_conn *conn = file->conn;
    struct thr_group_head head;
    const uint8_t *others;
    size_t bytes = 0;

    thr_os_free(conn->group);
    conn->group = NULL;
    conn->group_bytes = 0;
    if (writers <= 1)
        return SQLITE_OK;
    if ((others = group_of_others(*file->db, &bytes)) == NULL)
        return new_group(file);
    if ((conn->group = thr_os_alloc(bytes)) == NULL)
        return SQLITE_NOMEM;
    memcpy(conn->group, others, bytes);
    memcpy(&head, conn->group, sizeof head);
    head.coordinator = 0;
    memcpy(conn->group, &head, sizeof head);
    conn->group_bytes = bytes;
    return SQLITE_OK;
}

int thr_group_make_safe(struct thr_main_file *file, uint32_t writers)
{
    struct thr_main_file *other;
    bool end = false, full = false;
    uint32_t prepared = 0;
    int rc = SQLITE_OK;

    for (int i = 0; !end; i++) {
        if ((other = writer_at(*file->db, i, &end)) != NULL && other->conn->prepared) {
            full = full || other->conn->sync >= THR_SYNC_FULL;
            prepared++;
        }
    }
    end = !full || prepared < writers;
    for (int i = 0; !end && rc == SQLITE_OK; i++)
        if ((other = writer_at(*file->db, i, &end)) != NULL && other->conn->prepared)
            rc = thr_log_sync_held(&other->conn->db->log);
    return rc;
}

/* The coordinator's record comes first: it speaks for those that are not decided yet. As long as their locks are held
 * nobody sees its commit, so no checkpoint takes that record away before they are. */
void thr_group_decide(struct thr_main_file *file)
{
    struct thr_main_file *other;
    bool end = false;

    if (file->db == NULL || file->conn->group == NULL || !file->conn->prepared)
        return;
    thr_log_decide(&file->conn->db->log, file->conn->record.bytes); /* the coordinator's comes first */
    for (int i = 0; !end; i++)
        if ((other = writer_at(*file->db, i, &end)) != NULL && other != file && other->conn->prepared &&
            other->conn->group != NULL)
            thr_log_decide(&other->conn->db->log, other->conn->record.bytes);
    THR_POINT("decided");
}

void thr_group_forget_super_journal(const struct thr_main_file *file, const char *name)
{
    sqlite3 *db = file->db == NULL ? NULL : *file->db;
    sqlite3_vfs *base = thr_base_vfs();
    const char *schema;
    uint32_t writers = 0;

    /* A file of stock SQLite in the same commit still needs it. */
    for (int i = 0; db != NULL && (schema = sqlite3_db_name(db, i)) != NULL; i++)
        writers += i != 1 && sqlite3_txn_state(db, schema) == SQLITE_TXN_WRITE;
    if (writers == thr_group_writers(file))
        base->xDelete(base, name, 0);
}
