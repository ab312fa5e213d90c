/* Switching between one free list for all (format 1) and stripes (format 2).
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_FORMAT_H
#define THR_FORMAT_H

#include "txn.h"

/* Outside a transaction. SQLITE_OK; SQLITE_BUSY (somebody writes; or a transaction is open here), SQLITE_READONLY, or
 * the error; nothing has changed then. An auto_vacuum database stays with format 1: SQLITE_CONSTRAINT. */
int thr_format_set(struct thr_conn *conn, uint32_t format);

#endif
