/* Threads, time, chance.
 *
 * SPDX-License-Identifier: MIT */
#include "os_internal.h"
#include "point.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND UINT64_C(1000000000)

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_SECOND), .tv_nsec = (long)(ns % NS_PER_SECOND)};
}

int thr_os_thread_start(struct thr_thread *thread, void *(*fn)(void *), void *arg)
{
    sigset_t all, before;
    int err = thr_os_fault_path(THR_OS_MEMORY, NULL);

    if (err != 0)
        return thr_os_fail(err, SQLITE_NOMEM);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits it */
    err = pthread_create(&thread->id, NULL, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err == 0 ? SQLITE_OK : thr_os_fail(err, SQLITE_NOMEM);
}

void thr_os_thread_join(struct thr_thread *thread)
{
    (void)pthread_join(thread->id, NULL);
}

/* Not the _PRIVATE operations: the words lie in mappings that several processes share. */
bool thr_os_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    struct timespec timeout = timespec_of(timeout_ns);

    THR_POINT("futex-wait");
    return syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL, 0) == 0 ||
           errno != ETIMEDOUT;
}

void thr_os_futex_wake(_Atomic uint32_t *word, int count)
{
    THR_POINT("futex-wake");
    (void)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

bool thr_os_futex_wait_as(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns, uint32_t kinds)
{
    uint64_t now_ns = timeout_ns != UINT64_MAX ? thr_os_now_ns() : 0;
    struct timespec end = timespec_of(timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX);

    THR_POINT("futex-wait");
    /* Its time-out is a point in time, on the monotonic clock. */
    return syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, timeout_ns == UINT64_MAX ? NULL : &end, NULL, kinds) ==
               0 ||
           errno != ETIMEDOUT;
}

void thr_os_futex_wake_of(_Atomic uint32_t *word, int count, uint32_t kinds)
{
    THR_POINT("futex-wake");
    (void)syscall(SYS_futex, word, FUTEX_WAKE_BITSET, count, NULL, NULL, kinds);
}

uint64_t thr_os_now_ns(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t thr_os_coarse_ns(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

void thr_os_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

void thr_os_yield(void)
{
    (void)sched_yield();
}

void thr_os_sleep_ns(uint64_t ns)
{
    uint64_t now = thr_os_now_ns();
    struct timespec until = timespec_of(ns < UINT64_MAX - now ? now + ns : UINT64_MAX);

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

uint32_t thr_os_pid(void)
{
    return (uint32_t)getpid();
}

/* The kernel always has random bytes for us, but for a sandbox that forbids to ask. Then the clock, the process and a
 * count must do: our callers want numbers that differ, not secrets. */
static void random_fallback(unsigned char *to, size_t bytes)
{
    static _Atomic uint64_t turn;
    uint64_t state = thr_os_now_ns() ^ (uint64_t)(uintptr_t)&state ^ ((uint64_t)thr_os_pid() << 40);

    state += atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) << 20;
    while (bytes-- > 0) { /* splitmix64 */
        uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        *to++ = (unsigned char)(z >> 56);
    }
}

void thr_os_random(void *to, size_t bytes)
{
    unsigned char *at = to;

    while (bytes > 0) {
        ssize_t got = getrandom(at, bytes < INT_MAX ? bytes : INT_MAX, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            random_fallback(at, bytes);
            return;
        }
        at += got;
        bytes -= (size_t)got;
    }
}
