/* Named points in the engine where a test may look in, yield, sleep or kill the process. Nothing in release builds.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_POINT_H
#define THR_POINT_H

#ifdef THR_FAULTS
extern void (*thr_point_hook)(const char *name); /* NULL: nothing happens. Set it before threads start. */
#define THR_POINT(name)             \
    do {                            \
        if (thr_point_hook != NULL) \
            thr_point_hook(name);   \
    } while (0)
#else
#define THR_POINT(name) ((void)0)
#endif

#endif
