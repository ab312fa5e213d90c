/* A commit of a transaction that used several databases: one commit in all of them (src/log/group.h has its records).
 *
 * SQLite syncs one database after the other. All but the last only plan. The last one takes the commit locks of all that
 * take part, in one order for everybody, validates all, and logs all. If it has to wait for another transaction, it lets
 * go of every lock first. Databases that were only read take part, too: what was read there must not have changed
 * when the others change. What a protected or alone transaction has read cannot have changed, and needs no lock.
 *
 * When the locks are let go of, the commit is visible in all its databases: new snapshots of several databases then see
 * it in all or in none (cut.c), and a transaction that comes after it is never seen before it. So where a commit has to
 * be durable to be visible, the logs are synced under the locks.
 *
 * SPDX-License-Identifier: MIT */
#include "../log/group.h"

#include <sqlite3.h>
#include <string.h>

#include "../os/assert.h"
#include "../os/os.h"
#include "../os/point.h"
#include "commit.h"
#include "group.h"
#include "plan.h"

/* Those that take part, in the order in which they are locked. */
struct party {
    struct thr_conn *at[THR_GROUP_MAX];
    uint32_t count, writers;
};

static struct thr_head *head_of(const struct thr_conn *conn)
{
    return conn->db->shm.head;
}

static bool logs(const struct thr_conn *conn)
{
    return conn->planned && !conn->plan->nothing;
}

static bool only_reads(const struct thr_conn *conn)
{
    return conn->snapshot != 0 && !conn->planned && !conn->is_protected && !conn->is_alone;
}

static bool others_read(const struct thr_conn *conn)
{
    for (const struct thr_conn *other = conn->next; other != conn; other = other->next)
        if (only_reads(other))
            return true;
    return false;
}

void thr_group_join(struct thr_conn *conn, struct thr_conn *other)
{
    THR_ASSERT(conn->next == conn);
    conn->next = other->next;
    other->next = conn;
}

void thr_group_leave(struct thr_conn *conn)
{
    struct thr_conn *before = conn;

    while (before->next != conn)
        before = before->next;
    before->next = conn->next;
    conn->next = conn;
}

/* The connection's other databases may be in the same transaction: name all of which SQLite will sync some. */
static int name_group(struct thr_conn *conn)
{
    struct thr_group_head head = {.coordinator = 1};
    const struct thr_conn *other = conn;
    size_t bytes = sizeof head, at = sizeof head;

    do {
        if (other == conn || other->changing) {
            bytes += strlen(other->db->directory) + 1;
            head.count++;
        }
    } while ((other = other->next) != conn);
    if (head.count == 1)
        return SQLITE_OK;
    if (head.count > THR_GROUP_MAX)
        return SQLITE_FULL;
    if ((conn->group = thr_os_alloc(bytes)) == NULL)
        return SQLITE_NOMEM;
    thr_os_random(head.id, sizeof head.id);
    memcpy(conn->group, &head, sizeof head);
    do { /* the coordinator first */
        if (other == conn || other->changing) {
            memcpy(conn->group + at, other->db->directory, strlen(other->db->directory) + 1);
            at += strlen(other->db->directory) + 1;
        }
    } while ((other = other->next) != conn);
    conn->group_bytes = bytes;
    conn->coordinates = true;
    return SQLITE_OK;
}

static void forget_group(struct thr_conn *conn)
{
    thr_os_free(conn->group);
    conn->group = NULL;
    conn->group_bytes = 0;
    conn->coordinates = false;
}

/* The first one to plan names the group, and coordinates it. */
static int set_group(struct thr_conn *conn)
{
    const struct thr_conn *first = conn->next;
    struct thr_group_head head;

    forget_group(conn);
    while (first != conn && !first->coordinates)
        first = first->next;
    if (first == conn)
        return name_group(conn);
    if ((conn->group = thr_os_alloc(first->group_bytes)) == NULL)
        return SQLITE_NOMEM;
    memcpy(conn->group, first->group, first->group_bytes);
    memcpy(&head, conn->group, sizeof head);
    head.coordinator = 0;
    memcpy(conn->group, &head, sizeof head);
    conn->group_bytes = first->group_bytes;
    return SQLITE_OK;
}

static void gather(struct thr_conn *conn, bool with_readers, struct party *party)
{
    struct thr_conn *member = conn;

    party->count = party->writers = 0;
    do {
        uint32_t i;

        if (!member->planned && !(with_readers && only_reads(member)))
            continue;
        THR_ASSERT(party->count < THR_GROUP_MAX);
        for (i = party->count++; i > 0 && party->at[i - 1]->db > member->db; i--)
            party->at[i] = party->at[i - 1];
        party->at[i] = member;
        party->writers += logs(member);
    } while ((member = member->next) != conn);
}

static void lock_all(struct party *party)
{
    for (uint32_t i = 0; i < party->count; i++) {
        struct thr_conn *member = party->at[i];

        if (i > 0 && member->db == party->at[i - 1]->db) /* attached twice */
            continue;
        thr_mutex_lock(&head_of(member)->commit_lock, UINT64_MAX);
        member->holds_commit_lock = true;
        THR_POINT("one-locked");
    }
}

static void unlock_all(struct thr_conn *conn)
{
    struct thr_conn *member = conn;

    do {
        if (member->holds_commit_lock) {
            member->holds_commit_lock = false;
            thr_mutex_unlock(&head_of(member)->commit_lock);
        }
    } while ((member = member->next) != conn);
}

static int look_ahead(const struct party *party)
{
    int rc = SQLITE_OK;

    for (uint32_t i = 0; i < party->count && rc == SQLITE_OK; i++) {
        if (i > 0 && party->at[i]->db == party->at[i - 1]->db && logs(party->at[i]) && logs(party->at[i - 1]))
            return SQLITE_BUSY_SNAPSHOT; /* one database under two names, written under both: no order is right */
        rc = thr_commit_look_ahead(party->at[i]);
    }
    return rc;
}

/* Returns with all commit locks held if SQLITE_OK. */
static int lock_and_validate(struct party *party)
{
    struct thr_obstacle obstacle = {.slot = 0};
    int rc = look_ahead(party);

    while (rc == SQLITE_OK) {
        struct thr_conn *member = NULL;

        lock_all(party);
        for (uint32_t i = 0; i < party->count && rc == SQLITE_OK && !thr_obstacle_any(&obstacle); i++) {
            member = party->at[i];
            rc = thr_commit_look(member, &obstacle);
        }
        if (rc == SQLITE_OK && !thr_obstacle_any(&obstacle))
            return SQLITE_OK;
        unlock_all(party->at[0]);
        if (rc == SQLITE_OK)
            rc = thr_commit_wait(member, &obstacle);
        obstacle = (struct thr_obstacle){.slot = 0};
    }
    return rc;
}

/* To make it visible, make it durable: it asks for that, or a commit before it does. */
static bool must_sync(const struct thr_conn *conn)
{
    const struct thr_head *head = head_of(conn);

    return conn->sync >= THR_SYNC_FULL || atomic_load_explicit(&head->visible_seq, memory_order_relaxed) !=
                                              atomic_load_explicit(&head->commit_seq, memory_order_relaxed);
}

static struct thr_conn *coordinator_of(struct thr_conn *conn)
{
    struct thr_conn *member = conn;

    do {
        if (member->coordinates && member->prepared)
            return member;
    } while ((member = member->next) != conn);
    return NULL;
}

/* The coordinator's record comes first: without it none of the others counts. */
static void take_back(struct thr_conn *conn)
{
    struct thr_conn *first = coordinator_of(conn), *member = conn;

    if (first != NULL) {
        thr_commit_unlog(first);
        if (first->decided) /* its decision was synced: so must be that it is taken back */
            (void)thr_log_sync_held(&first->db->log);
        first->decided = false;
    }
    do {
        if (member->prepared)
            thr_commit_unlog(member);
    } while ((member = member->next) != conn);
}

/* The records of all are in the logs: make them safe from a power cut, if that was asked for, and then the decision. */
static int make_safe(const struct party *party, bool early)
{
    struct thr_conn *coordinator = coordinator_of(party->at[0]);
    bool full = false;
    int rc = SQLITE_OK;

    for (uint32_t i = 0; i < party->count; i++)
        full = full || (party->at[i]->prepared && party->at[i]->sync >= THR_SYNC_FULL);
    for (uint32_t i = 0; i < party->count && rc == SQLITE_OK; i++) {
        struct thr_conn *member = party->at[i];

        member->full_group = member->prepared && full;
        if (member->prepared && (full || must_sync(member))) {
            rc = thr_log_sync_held(&member->db->log);
            member->synced = rc == SQLITE_OK;
        }
    }
    THR_POINT("group-safe");
    if (rc == SQLITE_OK && full && early && coordinator != NULL) {
        thr_log_decide(&coordinator->db->log, coordinator->record.bytes);
        coordinator->decided = true;
        rc = thr_log_sync_held(&coordinator->db->log);
    }
    return rc;
}

static int prepare(struct thr_conn *conn, bool with_readers, bool early)
{
    struct party party;
    int rc;

    gather(conn, with_readers, &party);
    if ((rc = lock_and_validate(&party)) != SQLITE_OK)
        return rc;
    for (uint32_t i = 0; i < party.count && rc == SQLITE_OK; i++) {
        party.at[i]->synced = party.at[i]->full_group = party.at[i]->decided = false;
        if (logs(party.at[i]))
            rc = thr_commit_log(party.at[i]);
    }
    THR_ASSERT(rc != SQLITE_OK || party.writers < 2 || coordinator_of(conn) != NULL);
    if (rc == SQLITE_OK)
        rc = make_safe(&party, early);
    if (rc != SQLITE_OK) {
        take_back(conn);
        unlock_all(conn);
    }
    return rc;
}

int thr_group_sync(struct thr_conn *conn, bool with_readers, bool early)
{
    struct thr_conn *member;
    bool several = false;
    int rc;

    if (!conn->planned && conn->writes.count > 0 &&
        ((rc = set_group(conn)) != SQLITE_OK || (rc = thr_commit_plan(conn)) != SQLITE_OK))
        return rc;
    if (!conn->planned)
        forget_group(conn);
    if (conn->coordinates)
        conn->plan->nothing = false; /* the others ask its record */
    conn->changing = false;
    for (member = conn->next; member != conn; member = member->next) {
        if (member->changing)
            return SQLITE_OK; /* the last one sees to all */
        if (member->prepared)
            return SQLITE_MISUSE; /* came after the last one: SQLite does not do that */
        several = several || member->planned;
    }
    if (!several && !(with_readers && others_read(conn))) {
        if ((rc = thr_commit_one(conn)) == SQLITE_OK)
            for (member = conn->next; member != conn; member = member->next)
                member->rerun = false;
        return rc;
    }
    if ((rc = prepare(conn, with_readers, early)) == SQLITE_OK && coordinator_of(conn) == NULL)
        rc = thr_group_finish(conn);
    return rc;
}

/* From here on it counts. SQLITE_IOERR_FSYNC: but a power cut may still take it back, or a part of it. */
static int decide(struct thr_conn *coordinator)
{
    struct thr_conn *member;
    int rc = SQLITE_OK;

    if (!coordinator->decided)
        thr_log_decide(&coordinator->db->log, coordinator->record.bytes);
    if (!coordinator->decided && coordinator->full_group)
        rc = thr_log_sync_held(&coordinator->db->log);
    THR_POINT("decided");
    for (member = coordinator->next; member != coordinator; member = member->next)
        if (member->prepared)
            thr_log_decide(&member->db->log, member->record.bytes);
    THR_POINT("all-decided");
    /* Their own marks, too, before it is visible: then a checkpoint may take the coordinator's record. */
    for (member = coordinator->next; member != coordinator && rc == SQLITE_OK; member = member->next)
        if (member->prepared && member->full_group && (rc = thr_log_sync_held(&member->db->log)) != SQLITE_OK)
            thr_log_fail(&coordinator->db->log, member->db->log.directory); /* then its record must stay */
    return rc;
}

static void turn_round(struct thr_conn *conn)
{
    struct thr_conn *member = conn;

    do {
        if (member->publishing)
            atomic_fetch_add_explicit(&head_of(member)->group_round, 1, memory_order_seq_cst); /* pairs with cut.c */
    } while ((member = member->next) != conn);
}

static void publish_all(struct thr_conn *conn)
{
    struct thr_conn *member = conn;

    do
        member->publishing = member->prepared;
    while ((member = member->next) != conn);
    turn_round(conn);
    do {
        if (!member->prepared)
            continue;
        if (member->synced)
            thr_log_is_durable(&member->db->log, member->prepared_seq);
        thr_commit_publish(member);
        THR_ASSERT(atomic_load_explicit(&head_of(member)->visible_seq, memory_order_relaxed) == member->prepared_seq);
        THR_POINT("one-published");
    } while ((member = member->next) != conn);
    turn_round(conn);
}

int thr_group_finish(struct thr_conn *conn)
{
    struct thr_conn *coordinator = coordinator_of(conn), *member = conn;
    int rc = SQLITE_OK, rc_member;
    bool any = false;

    do
        any = any || member->holds_commit_lock;
    while ((member = member->next) != conn);
    THR_ASSERT(any || !conn->planned); /* SQLite has come to the second phase without us */
    if (!any)
        return SQLITE_OK;
    if (coordinator != NULL)
        rc = decide(coordinator);
    publish_all(conn);
    unlock_all(conn);
    do {
        rc_member = SQLITE_OK;
        if (member->publishing) {
            rc_member = thr_commit_end(member);
        } else if (member->planned) {
            thr_commit_nothing(member);
        }
        member->publishing = member->rerun = false;
        forget_group(member);
        rc = rc == SQLITE_OK ? rc_member : rc;
    } while ((member = member->next) != conn);
    return rc;
}

void thr_group_abort(struct thr_conn *conn)
{
    take_back(conn);
    unlock_all(conn);
    conn->planned = conn->changing = false;
    forget_group(conn);
}
