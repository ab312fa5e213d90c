/* Power cuts. What was synced is on the disk; of what was written since, each sector of 512 bytes is there or not, by chance;
 * of the names in a database's directory either all are there, or those of its last sync. As in tests/crash/test_power.c, but
 * in place: the process that writes what is left dies then.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <stdbool.h>

#include "schedule.h"

void disk_forget(void);
void disk_watch(bool on); /* from now on syncs count; what is there now is durable */
/* The power of the databases of which `cut` says so is cut. */
void disk_cut(struct chance *chance, const bool *cut);
void disk_paths(int count, const char *const *paths);

#endif
