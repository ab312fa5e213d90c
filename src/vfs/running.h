/* How the pool tells the VFS which statement runs. The VFS can find out by itself, but only by looking at every prepared
 * statement of the connection: with a cache of 60 that took a third of a query by key.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_RUNNING_H
#define THR_RUNNING_H

#include "api.h"

/* Written by the thread that uses the connection, before sqlite3_step() and after it; read by the VFS inside. */
struct thr_running {
    sqlite3_stmt *only; /* no other statement is between its first step and its reset; NULL: not known */
};

/* For sqlite3_file_control(db, "main", ...): struct thr_running *, which must outlive the connection, or NULL to take it
 * back. SQLITE_NOTFOUND from any other VFS. */
#define THR_FCNTL_RUNNING 0x54480101

#endif
