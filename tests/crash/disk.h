/* Disks as a power cut, or the death of the process, may leave them: made up from what was written and what was synced.
 *
 * The test stands between the engine and fdatasync(). What was synced is on the disk; of what was written since, each
 * sector of 512 bytes is there or not, by chance. Of the names in a directory either all are there, or those of its last
 * sync with what they then stood for: file systems keep the order of such changes. Sectors are whole, as SQLite assumes
 * too.
 *
 * SPDX-License-Identifier: MIT */
#ifndef TEST_DISK_H
#define TEST_DISK_H

#include "os.h"
#include "support.h"

enum { DISK_DATABASES = 2 };

/* Everything needed to make up the disks of one moment. */
struct disk_moment;

/* Watch these databases, and their directories, from now on; what was seen before is forgotten. */
void disk_watch(const char *const *databases, int count);
void disk_forget(void);
/* To be told of each call by thr_fault_check. True: it is a sync of what is watched, and goes on to be one when the caller
 * has called disk_synced(). Before that the disk may be cut off. */
bool disk_is_sync(enum thr_os_call call, const char *at);
void disk_synced(const char *at);

struct disk_moment *disk_moment_take(void);
void disk_moment_free(struct disk_moment *moment);

/* What was not synced: */
enum disk_loss {
    DISK_LOSES_NOTHING, /* only the process has died */
    DISK_LOSES_SOME,    /* by chance, up to all of it; perhaps names, too */
    DISK_LOSES_ALL      /* but names */
};

/* The databases of the moment, in files of these names. */
void disk_make(const struct disk_moment *moment, enum disk_loss loss, const char *const *to, struct prng *prng);
/* Take them away, with their directories. */
void disk_remove(const char *const *databases, int count);

#endif
