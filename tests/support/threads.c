/* Threads and child processes.
 *
 * SPDX-License-Identifier: MIT */
#include "internal.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define MS INT64_C(1000000)

struct thread {
    pthread_t handle;
    void (*function)(void *);
    void *arg;
};

static struct thread threads[MAX_THREADS];
static int thread_count;

static void *thread_main(void *arg)
{
    struct thread *thread = arg;

    thread->function(thread->arg);
    return NULL;
}

void thread_start(void (*function)(void *), void *arg)
{
    struct thread *thread = &threads[thread_count];

    CHECK(thread_count < MAX_THREADS);
    thread->function = function;
    thread->arg = arg;
    CHECK_EQUAL(pthread_create(&thread->handle, NULL, thread_main, thread), 0);
    thread_count++;
}

void threads_join_but(int count)
{
    while (thread_count > count)
        (void)pthread_join(threads[--thread_count].handle, NULL);
}

void threads_join(void)
{
    threads_join_but(0);
    if (check_any_failed()) {
        check_forget();
        check_leave();
    }
}

void sleep_ms(int milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * MS};

    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

uint64_t now_ms(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)(time.tv_nsec / MS);
}

/* --- meetings --- */

void meeting_init(struct meeting *meeting, int count)
{
    atomic_init(&meeting->arrived, 0);
    meeting->count = count;
}

void meeting_wait(struct meeting *meeting)
{
    /* acq_rel, acquire: what each did before is seen by all after */
    int arrived = atomic_fetch_add_explicit(&meeting->arrived, 1, memory_order_acq_rel);
    int round_end = (arrived / meeting->count + 1) * meeting->count;

    for (int spins = 0; atomic_load_explicit(&meeting->arrived, memory_order_acquire) < round_end; spins++) {
        struct timespec pause = {0, 20000};

        if (check_any_failed())
            check_leave();
        if (spins > 100)
            (void)nanosleep(&pause, NULL);
    }
}

/* --- child processes --- */

#define MAX_CHILDREN 16
static _Atomic pid_t children[MAX_CHILDREN]; /* that are watched; 0: a free place */

static void child_watch(pid_t old, pid_t new)
{
    for (int i = 0; i < MAX_CHILDREN; i++)
        if (atomic_compare_exchange_strong(&children[i], &(pid_t){old}, new))
            return;
}

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec time;

    return clock_gettime(clock, &time) != 0 ? 0 : (uint64_t)time.tv_sec * 1000 + (uint64_t)(time.tv_nsec / MS);
}

uint64_t children_cpu_ms(void)
{
    uint64_t sum = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
    struct rusage usage;
    clockid_t clock;
    pid_t pid;

    for (int i = 0; i < MAX_CHILDREN; i++)
        if ((pid = atomic_load(&children[i])) != 0 && clock_getcpuclockid(pid, &clock) == 0)
            sum += clock_ms(clock);
    if (getrusage(RUSAGE_CHILDREN, &usage) == 0) /* those that have ended */
        sum += (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
               (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
    return sum;
}

pid_t child_start(void (*function)(void *), void *arg)
{
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        child_watch(0, pid);
        return pid;
    }
    for (int i = 0; i < MAX_CHILDREN; i++)
        atomic_store(&children[i], 0); /* they are the parent's */
    check_in_child();
    thread_count = 0;
    function(arg);
    (void)fflush(NULL);
    _exit(0);
}

int child_status(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        CHECK(errno == EINTR);
    child_watch(pid, 0);
    return status;
}

void child_join(pid_t pid)
{
    int status = child_status(pid);

    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        check_failed(__FILE__, __LINE__, "the child ends with status 0x%x", (unsigned)status);
}

void child_run(void (*function)(void *), void *arg)
{
    child_join(child_start(function, arg));
}

void child_kill(pid_t pid)
{
    CHECK_EQUAL(kill(pid, SIGKILL), 0);
    (void)child_status(pid);
}
