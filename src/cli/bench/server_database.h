/* The database of `throng bench server`: made once, copied for each engine.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_SERVER_DATABASE_H
#define THR_BENCH_SERVER_DATABASE_H

#include "../progress.h"
#include "database.h"
#include "server_settings.h"

/* Returns NULL, or what is wrong in a static buffer. */
const char *thr_server_load(const struct thr_server_settings *settings, const char *path,
                            struct thr_progress *progress);
/* Also the transactions themselves: lost ones would make any engine fast. Fills target->verdict. */
void thr_server_check(const struct thr_server_settings *settings, struct thr_target *target);

#endif
