/* Signals that end the command.
 *
 * SPDX-License-Identifier: MIT */
#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "clock.h"

/* Some programs that start others send a signal to the process and to its group: that is one request, not two. */
#define SAME_REQUEST_NS UINT64_C(500000000)

static _Atomic uint64_t interrupted_ns; /* when; 0: not */

static void on_signal(int number)
{
    uint64_t now_ns = thr_clock_ns(), none = 0;

    if (!atomic_compare_exchange_strong_explicit(&interrupted_ns, &none, now_ns, memory_order_relaxed,
                                                 memory_order_relaxed) &&
        now_ns - none > SAME_REQUEST_NS) {
        (void)signal(number, SIG_DFL);
        (void)raise(number);
    }
}

void thr_interrupt_catch(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        (void)sigaction(signals[i], &action, NULL);
}

bool thr_interrupted(void)
{
    return atomic_load_explicit(&interrupted_ns, memory_order_relaxed) != 0;
}
