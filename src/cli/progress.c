/* A progress bar.
 *
 * SPDX-License-Identifier: MIT */
#include "progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

#define BAR_WIDTH 30
#define REDRAW_NS UINT64_C(100000000)
#define LINE_STEP 25 /* per cent between the lines where there is no terminal */

void thr_progress_open(struct thr_progress *progress, bool quiet)
{
    *progress = (struct thr_progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1, .drawn_percent = -1};
}

void thr_progress_stage(struct thr_progress *progress)
{
    progress->drawn_percent = -1;
    progress->drawn_ns = 0;
}

void thr_progress_show(struct thr_progress *progress, double done, const char *format, ...)
{
    static const char hashes[BAR_WIDTH + 1] = "##############################";
    int percent = (int)(done * 100), filled = (int)(done * BAR_WIDTH);
    uint64_t now_ns = thr_clock_ns();
    char label[80];
    va_list args;

    if (progress->quiet || percent == progress->drawn_percent)
        return;
    if (progress->terminal ? progress->drawn_percent >= 0 && now_ns - progress->drawn_ns < REDRAW_NS
                           : progress->drawn_percent >= 0 && percent < progress->drawn_percent + LINE_STEP)
        return;
    va_start(args, format);
    (void)vsnprintf(label, sizeof label, format, args);
    va_end(args);
    if (progress->terminal)
        fprintf(stderr, "\r\033[K[%-*.*s] %3d %%  %s", BAR_WIDTH, filled, hashes, percent, label);
    else
        fprintf(stderr, "%3d %%  %s\n", percent, label);
    (void)fflush(stderr);
    progress->drawn = progress->terminal;
    progress->drawn_ns = now_ns;
    progress->drawn_percent = percent;
}

void thr_progress_clear(struct thr_progress *progress)
{
    if (progress->drawn)
        fprintf(stderr, "\r\033[K");
    (void)fflush(stderr);
    progress->drawn = false;
    thr_progress_stage(progress);
}
