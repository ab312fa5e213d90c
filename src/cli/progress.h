/* A progress bar on stderr, or, where that is no terminal, a line now and then. One thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_PROGRESS_H
#define THR_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct thr_progress {
    bool quiet, terminal, drawn;
    uint64_t drawn_ns; /* when */
    int drawn_percent; /* what; -1: nothing of this stage yet */
};

void thr_progress_open(struct thr_progress *progress, bool quiet);
/* A new stage begins: the next show() is drawn at once. */
void thr_progress_stage(struct thr_progress *progress);
/* `done` of 0..1; may be called as often as one likes. */
void thr_progress_show(struct thr_progress *progress, double done, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void thr_progress_clear(struct thr_progress *progress); /* take the bar away, before something else is printed */

#endif
