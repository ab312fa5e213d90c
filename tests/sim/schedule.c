/* See schedule.h. Also what the engine's src/os/os_thread.c is elsewhere, and its locks of pthread: see instrument.h.
 *
 * SPDX-License-Identifier: MIT */
#include "schedule.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include "instrument.h"
#include "os.h"
#include "point.h"
#undef free
#undef _Thread_local

enum { FIBERS_MAX = 12, STACK_BYTES = 512 * 1024, GUARD_BYTES = 4096, LOCAL_MAX = 256, CHANGES_MAX = 4 };

enum state { NONE, READY, WAITING, MUTEX, COND, ASLEEP, JOINING, DONE };

struct fiber {
    enum state state;
    void *stack, *at; /* kept from schedule to schedule; where it goes on */
#if !defined(__x86_64__)
    ucontext_t context;
#endif
    void (*fn)(void *);
    void *arg;
    const char *name, *note;
    uint64_t until; /* UINT64_MAX: no deadline */
    const void *on; /* the word, mutex or condition that it waits for */
    uint32_t kinds;
    bool woken;
    int64_t priority;
    int saved_errno, joins;
    unsigned char local[LOCAL_MAX]; /* its thread-local variables */
};

static struct sched_options options;
static struct fiber fibers[FIBERS_MAX];
static int fiber_count, current = -1;
static struct fiber outside; /* what called sched_run() */
static uint64_t now_ns, step, next_look, tick_ns, hash;
static struct chance choices, numbers; /* of the scheduler; for thr_os_random() */
static bool by_priority;
static uint32_t change_in; /* by chance: a change at one of so many switches */
static uint64_t changes[CHANGES_MAX];
static int64_t lowest;
static int hushed;

/* The engine's thread-local variables (instrument.h); SQLite and libc have none that matter but errno. */
extern unsigned char __start_sim_local[] __attribute__((weak)), __stop_sim_local[] __attribute__((weak));

/* --- chance --- */

static uint64_t mix(uint64_t z) /* splitmix64 */
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

struct chance chance_new(uint64_t seed, uint64_t stream)
{
    return (struct chance){mix(seed + mix(stream + 1))};
}

uint64_t chance_next(struct chance *chance)
{
    return mix(chance->state += UINT64_C(0x9e3779b97f4a7c15));
}

uint32_t chance_below(struct chance *chance, uint32_t limit)
{
    return (uint32_t)((chance_next(chance) >> 32) * limit >> 32);
}

bool chance_one_in(struct chance *chance, uint32_t n)
{
    return chance_below(chance, n) == 0;
}

/* --- from one stack to another --- */

#if defined(__x86_64__)
/* Saves what a function may not change, and goes on where `to` was saved. */
__attribute__((naked, noinline)) static void jump(void **save __attribute__((unused)), void *to __attribute__((unused)))
{
    __asm__("pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
            "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
            "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret");
}
#endif

static void fiber_main(void);

static void change_stack(struct fiber *from, struct fiber *to)
{
#if defined(__x86_64__)
    jump(&from->at, to->at);
#else
    swapcontext(&from->context, &to->context);
#endif
}

static void fiber_prepare(struct fiber *fiber)
{
    if (fiber->stack == NULL) {
        fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                            0);
        if (fiber->stack == MAP_FAILED || mprotect(fiber->stack, GUARD_BYTES, PROT_NONE) != 0)
            sim_failed("no memory for a stack");
    }
#if defined(__x86_64__)
    {
        void **top = (void **)(void *)((char *)fiber->stack + STACK_BYTES);

        *--top = NULL; /* the stack is as after a call: 8 bytes off a multiple of 16 */
        *--top = (void *)(uintptr_t)fiber_main;
        for (int i = 0; i < 6; i++)
            *--top = NULL;
        fiber->at = top;
    }
#else
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&fiber->context, fiber_main, 0);
#endif
}

static size_t local_bytes(void)
{
    size_t bytes = (size_t)(__stop_sim_local - __start_sim_local);

    return bytes < LOCAL_MAX ? bytes : LOCAL_MAX;
}

static void go_to(int next)
{
    struct fiber *from = current < 0 ? &outside : &fibers[current], *to = next < 0 ? &outside : &fibers[next];

    if (from == to)
        return;
    from->saved_errno = errno;
    memcpy(from->local, __start_sim_local, local_bytes());
    memcpy(__start_sim_local, to->local, local_bytes());
    errno = to->saved_errno;
    current = next;
    hash = mix(hash + step * 16 + (uint64_t)(next + 1));
    if (options.trace && step >= options.trace_from && next >= 0)
        (void)fprintf(stderr, "  %8llu  to %s (%s)\n", (unsigned long long)step, to->name, to->note);
    change_stack(from, to);
}

/* --- whose turn it is --- */

static int choose(void)
{
    int ready[FIBERS_MAX], count = 0, best = -1;

    for (int i = 0; i < fiber_count; i++) {
        if (fibers[i].state != READY)
            continue;
        ready[count++] = i;
        if (best < 0 || fibers[i].priority > fibers[best].priority)
            best = i;
    }
    if (count < 2 || by_priority)
        return best;
    return ready[chance_below(&choices, (uint32_t)count)];
}

/* Those whose time has come can run again. */
static void wake_due(void)
{
    for (int i = 0; i < fiber_count; i++)
        if (fibers[i].state > READY && fibers[i].state < DONE && fibers[i].until <= now_ns)
            fibers[i].state = READY;
}

static uint64_t next_deadline(void)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < fiber_count; i++)
        if (fibers[i].state > READY && fibers[i].state < DONE && fibers[i].until < least)
            least = fibers[i].until;
    return least;
}

/* The next switch at which there is anything to do. */
static void plan_look(void)
{
    uint64_t due = next_deadline();

    next_look = options.step_limit;
    if (options.death_step > step && options.death_step < next_look)
        next_look = options.death_step;
    if (due != UINT64_MAX && step + (due - now_ns) / tick_ns + 1 < next_look)
        next_look = step + (due > now_ns ? (due - now_ns) / tick_ns + 1 : 1);
    if (by_priority) {
        for (int i = 0; i < CHANGES_MAX; i++)
            if (changes[i] > step && changes[i] < next_look)
                next_look = changes[i];
    } else {
        uint64_t in = 1 + (change_in > 1 ? chance_below(&choices, 2 * change_in) : 0);

        if (step + in < next_look)
            next_look = step + in;
    }
}

/* The running fiber cannot go on. */
static void block(void)
{
    int next = choose();

    while (next < 0) {
        uint64_t due = next_deadline();

        if (due == UINT64_MAX) {
            for (int i = 0; i < fiber_count; i++)
                if (fibers[i].state != DONE)
                    sim_failed("deadlock: nobody can run");
            go_to(-1);
            return;
        }
        now_ns = due > now_ns ? due : now_ns;
        wake_due();
        next = choose();
    }
    go_to(next);
    plan_look();
}

void sim_hush(int more)
{
    hushed += more;
}

void sim_switch(void)
{
    bool change = !by_priority;

    if (current < 0 || hushed > 0)
        return;
    now_ns += tick_ns;
    if (++step < next_look)
        return;
    if (step >= options.step_limit)
        sim_failed("no end after %llu switches", (unsigned long long)step);
    if (step == options.death_step && options.death != NULL)
        options.death();
    wake_due();
    if (by_priority)
        for (int i = 0; i < CHANGES_MAX; i++)
            if (changes[i] == step) {
                fibers[current].priority = --lowest;
                change = true;
            }
    (void)change;
    {
        int next = choose();

        if (next != current)
            go_to(next);
    }
    plan_look();
}

/* A fiber can run again; is it to run at once? */
static void ready(struct fiber *fiber)
{
    fiber->state = READY;
    fiber->woken = true;
    if (by_priority)
        next_look = step + 1;
}

/* Wait until woken or `until`. Returns whether woken. */
static bool wait_on(enum state state, const void *on, uint32_t kinds, uint64_t until)
{
    struct fiber *self = &fibers[current];

    self->state = state;
    self->on = on;
    self->kinds = kinds;
    self->until = until;
    self->woken = false;
    block();
    self->on = NULL;
    return self->woken;
}

static void wake(enum state state, const void *on, uint32_t kinds, int count)
{
    uint32_t first = fiber_count > 0 ? chance_below(&choices, (uint32_t)fiber_count) : 0;

    for (int i = 0; i < fiber_count && count > 0; i++) {
        struct fiber *fiber = &fibers[((int)first + i) % fiber_count];

        if (fiber->state == state && fiber->on == on && (fiber->kinds & kinds) != 0) {
            ready(fiber);
            count--;
        }
    }
}

/* --- life --- */

static void fiber_main(void)
{
    struct fiber *self = &fibers[current];

    self->fn(self->arg);
    self->state = DONE;
    wake(JOINING, self, 1, FIBERS_MAX);
    block();
    abort(); /* not reached */
}

void sched_begin(const struct sched_options *with)
{
    static const uint32_t CHANGE_IN[] = {1, 2, 3, 8, 30, 100, 400};
    static const uint64_t TICKS[] = {50, 100, 1000, 20000};
    uint32_t span;

    options = *with;
    choices = chance_new(options.seed, 1);
    numbers = chance_new(options.seed, 2);
    fiber_count = 0;
    current = -1;
    step = 0;
    now_ns = UINT64_C(1000000000);
    hash = 0;
    lowest = 0;
    tick_ns = TICKS[chance_below(&choices, 4)];
    by_priority = chance_one_in(&choices, 3);
    change_in = CHANGE_IN[chance_below(&choices, 7)];
    span = 1u << (7 + chance_below(&choices, 8));
    for (int i = 0; i < CHANGES_MAX; i++)
        changes[i] = chance_one_in(&choices, 3) ? 0 : 1 + chance_below(&choices, span);
    memset(__start_sim_local, 0, local_bytes());
    memset(outside.local, 0, sizeof outside.local);
    hushed = 0;
}

int sched_spawn(void (*fn)(void *), void *arg, const char *name)
{
    struct fiber *fiber = &fibers[fiber_count];

    if (fiber_count == FIBERS_MAX)
        sim_failed("too many fibers");
    fiber_prepare(fiber);
    fiber->fn = fn;
    fiber->arg = arg;
    fiber->name = name;
    fiber->note = "";
    fiber->on = NULL;
    fiber->until = UINT64_MAX;
    fiber->saved_errno = 0;
    fiber->priority = 1 + chance_below(&choices, 1000);
    memset(fiber->local, 0, sizeof fiber->local);
    fiber->state = READY;
    if (by_priority)
        next_look = step + 1;
    return fiber_count++;
}

void sched_run(void)
{
    int next = choose();

    plan_look();
    if (next >= 0)
        go_to(next);
}

void sched_join(int fiber)
{
    while (fibers[fiber].state != DONE)
        (void)wait_on(JOINING, &fibers[fiber], 1, UINT64_MAX);
}

void sched_sleep(uint64_t ns)
{
    if (current >= 0)
        (void)wait_on(ASLEEP, NULL, 0, ns < UINT64_MAX - now_ns ? now_ns + ns : UINT64_MAX - 1);
}

int sched_self(void)
{
    return current;
}

uint64_t sched_now(void)
{
    return now_ns;
}

uint64_t sched_steps(void)
{
    return step;
}

uint64_t sched_hash(void)
{
    return mix(hash + step);
}

void sched_note(const char *text)
{
    if (current >= 0)
        fibers[current].note = text;
    if (options.trace && step >= options.trace_from && current >= 0)
        (void)fprintf(stderr, "  %8llu  %s: %s\n", (unsigned long long)step, fibers[current].name, text);
}

void sched_report(void)
{
    static const char *const STATES[] = {"none",      "can run", "waits (futex)", "waits (mutex)", "waits (condition)",
                                         "is asleep", "joins",   "done"};

    for (int i = 0; i < fiber_count; i++)
        (void)fprintf(stderr, "  %c %-12s %-17s %s\n", i == current ? '*' : ' ', fibers[i].name,
                      STATES[fibers[i].state], fibers[i].note);
}

/* --- what src/os/os_thread.c is elsewhere --- */

struct start {
    void *(*fn)(void *);
    void *arg;
};

static struct start starts[FIBERS_MAX];

static void run_start(void *arg)
{
    struct start *start = arg;

    (void)start->fn(start->arg);
}

int thr_os_thread_start(struct thr_thread *thread, void *(*fn)(void *), void *arg)
{
    int err = thr_fault_check == NULL ? 0 : thr_fault_check(THR_OS_MEMORY, NULL), fiber;

    if (err != 0)
        return 7; /* SQLITE_NOMEM */
    starts[fiber_count] = (struct start){fn, arg};
    fiber = sched_spawn(run_start, &starts[fiber_count], "checkpointer");
    thread->id = (pthread_t)fiber;
    return 0;
}

void thr_os_thread_join(struct thr_thread *thread)
{
    sim_switch();
    sched_join((int)thread->id);
}

bool thr_os_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    return thr_os_futex_wait_as(word, expected, timeout_ns, UINT32_MAX);
}

bool thr_os_futex_wait_as(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns, uint32_t kinds)
{
    THR_POINT("futex-wait");
    if (current < 0 || atomic_load_explicit(word, memory_order_relaxed) != expected)
        return true;
    return wait_on(WAITING, word, kinds, timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX);
}

void thr_os_futex_wake(_Atomic uint32_t *word, int count)
{
    thr_os_futex_wake_of(word, count, UINT32_MAX);
}

void thr_os_futex_wake_of(_Atomic uint32_t *word, int count, uint32_t kinds)
{
    THR_POINT("futex-wake");
    wake(WAITING, word, kinds, count);
}

uint64_t thr_os_now_ns(void)
{
    return now_ns;
}

uint64_t thr_os_coarse_ns(void)
{
    return now_ns / 4000000 * 4000000;
}

/* Others run meanwhile, as they would on other processors; the fiber comes back after some of their switches. */
void thr_os_pause(void)
{
    sched_sleep(tick_ns * (1 + chance_below(&choices, 16)));
}

void thr_os_yield(void)
{
    sched_sleep(tick_ns * (1 + chance_below(&choices, 16)));
}

void thr_os_sleep_ns(uint64_t ns)
{
    sched_sleep(ns);
}

uint32_t thr_os_pid(void)
{
    return (uint32_t)getpid();
}

void thr_os_random(void *to, size_t bytes)
{
    unsigned char *at = to;

    while (bytes-- > 0)
        *at++ = (unsigned char)(chance_next(&numbers) >> 56);
}

/* --- pthread --- */

/* A mutex is taken when its first byte is not 0, as the initializer leaves it. */
int sim_mutex_lock(pthread_mutex_t *mutex)
{
    unsigned char *taken = (unsigned char *)mutex;

    sim_switch();
    while (*taken != 0) {
        if (current < 0)
            sim_failed("a lock is taken for good");
        (void)wait_on(MUTEX, mutex, 1, UINT64_MAX);
    }
    *taken = 1;
    return 0;
}

int sim_mutex_unlock(pthread_mutex_t *mutex)
{
    *(unsigned char *)mutex = 0;
    wake(MUTEX, mutex, 1, FIBERS_MAX);
    return 0;
}

int sim_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    (void)sim_mutex_unlock(mutex);
    (void)wait_on(COND, cond, 1, UINT64_MAX);
    return sim_mutex_lock(mutex);
}

int sim_cond_broadcast(pthread_cond_t *cond)
{
    wake(COND, cond, 1, FIBERS_MAX);
    return 0;
}
