/* Whom the directory beside a database file was written by. What it holds goes to the file, so it must come from users who may
 * write the file anyway: nobody else's log is replayed.
 *
 * SPDX-License-Identifier: MIT */
#include "open.h"

#include <string.h>

#include "../os/os.h"

enum { GROUP_WRITES = 0020, OTHERS_WRITE = 0002 };

struct trust {
    const struct thr_db *db;
    struct thr_stat file; /* the database */
    struct thr_stat directory;
};

static int refuse(const struct thr_db *db, const char *name, const char *why)
{
    const char *slash = name[0] != '\0' ? "/" : "";

    thr_log(SQLITE_PERM, "throng: %s%s%s %s", db->directory, slash, name, why);
    thr_log(
        SQLITE_PERM,
        "throng: nothing is touched, and %s stays closed. If you trust what is there: give it the owner, the group and "
        "the rights of the database",
        db->path);
    return SQLITE_PERM;
}

/* Whoever made a thing with the database's group is a member of it; unless the group came from the parent directory, and
 * anybody can make something there. */
static bool group_shows_member(const struct trust *trust, const struct thr_stat *thing)
{
    const char *slash = strrchr(trust->db->path, '/');
    char parent[4096] = ".";
    struct thr_stat stat;

    if ((trust->file.mode & GROUP_WRITES) == 0 || thing->gid != trust->file.gid)
        return false;
    if (slash == trust->db->path)
        slash++;
    if (slash != NULL && (size_t)(slash - trust->db->path) < sizeof parent) {
        memcpy(parent, trust->db->path, (size_t)(slash - trust->db->path));
        parent[slash - trust->db->path] = '\0';
    }
    return thr_os_stat(parent, &stat) == SQLITE_OK && ((stat.mode & 02000) == 0 || (stat.mode & OTHERS_WRITE) == 0);
}

/* Can a user write that who may not write the database? A group other than the database's consists of people who are
 * members of that or not: of both kinds. */
static bool wider(const struct thr_stat *thing, const struct thr_stat *file)
{
    uint32_t group = thing->gid == file->gid ? GROUP_WRITES : GROUP_WRITES | OTHERS_WRITE;

    if ((thing->mode & GROUP_WRITES) != 0 && (file->mode & group) != group)
        return true;
    return (thing->mode & OTHERS_WRITE) != 0 && (file->mode & OTHERS_WRITE) == 0;
}

static const char *distrust(const struct trust *trust, const struct thr_stat *thing)
{
    if ((trust->file.mode & OTHERS_WRITE) == 0 && !thr_os_may_trust(thing->uid, trust->file.uid) &&
        !group_shows_member(trust, thing))
        return "belongs to a user who may not write the database";
    if (wider(thing, &trust->file))
        return "can be written by users who may not write the database";
    return NULL;
}

static int look_at(void *ctx, const char *name)
{
    const struct trust *trust = ctx;
    char *path = thr_os_join(trust->db->directory, name);
    struct thr_stat stat;
    const char *why = NULL;
    int rc;

    if (path == NULL)
        return SQLITE_NOMEM;
    rc = thr_os_lstat(path, &stat);
    thr_os_free(path);
    if (rc != SQLITE_OK)
        return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
    if (stat.is_link)
        why = "is a symbolic link";
    else if (stat.is_regular && stat.links > 1)
        why = "has another name elsewhere (a hard link)";
    else
        why = distrust(trust, &stat);
    return why == NULL ? SQLITE_OK : refuse(trust->db, name, why);
}

int thr_trust_directory(const struct thr_db *db, const struct thr_stat *directory)
{
    struct trust trust = {.db = db, .directory = *directory};
    const char *why;
    char text[128];
    int rc;

    if ((rc = thr_os_fstat(db->base.fd, &trust.file)) != SQLITE_OK)
        return rc;
    if ((why = distrust(&trust, directory)) != NULL)
        return refuse(db, "", why);
    rc = thr_os_list(db->directory, look_at, &trust);
    if (rc == SQLITE_CANTOPEN) {
        thr_log(SQLITE_PERM,
                "throng: %s cannot be read (%s): let its owner, user %u, open the database, or change its rights",
                db->directory, thr_os_error_text(thr_os_last_errno(), text, sizeof text), directory->uid);
        rc = SQLITE_PERM;
    }
    return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}
