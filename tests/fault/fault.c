/* See fault.h. Rules and points lie in fixed tables that only grow, published by their count, so the hooks take no
 * lock: a lock here would order threads that the engine leaves unordered, and hide races from ThreadSanitizer.
 *
 * SPDX-License-Identifier: MIT */
#include "fault.h"
#include "point.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RULES_MAX 64
#define POINTS_MAX 256
#define TEXT_BYTES 256

enum action { ACTION_FAIL, ACTION_KILL, ACTION_CALL, ACTION_DISTURB };

/* Written by add() before `rule_count` covers it (release), read by the hooks after it does (acquire); only the counts
 * change later. */
struct rule {
    enum action action;
    enum thr_os_call call; /* ACTION_FAIL */
    bool any_text;
    char text[TEXT_BYTES]; /* part of a path, or a point's name */
    uint64_t nth, count;
    uint32_t one_in;
    int err;
    uint64_t sleep_ns_max;
    void (*fn)(void *ctx, const char *name);
    void *ctx;
    _Atomic uint64_t seen, hits;
};

/* `claimed` is taken by the thread that writes the name, `ready` says that the name can be read. */
struct point {
    char name[TEXT_BYTES];
    _Atomic uint32_t claimed, ready;
    _Atomic uint64_t passages;
};

static struct rule rules[RULES_MAX];
static _Atomic uint32_t rules_claimed, rule_count;
static struct point points[POINTS_MAX];
static _Atomic uint64_t calls[THR_OS_CALL_COUNT + 1];
static _Atomic bool others_take_part = true;
static _Atomic uint64_t seed_now = 1;
static _Atomic uint32_t threads_numbered;
static _Atomic uint32_t generation = 1; /* of fault_reset(): what a thread has chosen before is void */

static _Thread_local struct {
    uint32_t generation;
    bool chosen, takes_part, numbered, inside_hook;
    uint32_t number;
    uint64_t random; /* 0: not seeded yet */
} self;

/* --- threads and chance --- */

static void self_refresh(void)
{
    uint32_t now = atomic_load_explicit(&generation, memory_order_relaxed);

    if (self.generation == now)
        return;
    memset(&self, 0, sizeof self);
    self.generation = now;
}

static bool takes_part(void)
{
    self_refresh();
    if (self.inside_hook)
        return false;
    return self.chosen ? self.takes_part : atomic_load_explicit(&others_take_part, memory_order_relaxed);
}

void fault_this_thread(bool on)
{
    self_refresh();
    self.chosen = true;
    self.takes_part = on;
}

void fault_other_threads(bool on)
{
    atomic_store_explicit(&others_take_part, on, memory_order_relaxed);
}

static uint64_t mix(uint64_t z) /* splitmix64's finish */
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t fault_random(void)
{
    self_refresh();
    if (!self.numbered)
        fault_thread_number(atomic_fetch_add_explicit(&threads_numbered, 1, memory_order_relaxed));
    if (self.random == 0)
        self.random = mix(atomic_load_explicit(&seed_now, memory_order_relaxed) + mix(self.number + UINT64_C(1))) | 1;
    self.random += UINT64_C(0x9e3779b97f4a7c16); /* even, so the state stays odd: never 0 */
    return mix(self.random);
}

void fault_seed(uint64_t seed)
{
    self_refresh();
    self.random = 0;
    atomic_store_explicit(&seed_now, seed, memory_order_relaxed);
}

void fault_thread_number(uint32_t number)
{
    self_refresh();
    self.numbered = true;
    self.number = number;
    self.random = 0;
}

uint64_t fault_environment_seed(void)
{
    const char *text = getenv("THRONG_SEED");
    struct timespec now = {0};

    if (text != NULL && *text != '\0')
        return strtoull(text, NULL, 0);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    /* short enough to type again */
    return mix((uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec + (uint64_t)getpid()) >> 40;
}

static bool by_chance(uint32_t one_in)
{
    return one_in < 2 || fault_random() % one_in == 0;
}

/* --- rules --- */

void fault_reset(void)
{
    for (size_t i = 0; i < RULES_MAX; i++) {
        atomic_store_explicit(&rules[i].seen, 0, memory_order_relaxed);
        atomic_store_explicit(&rules[i].hits, 0, memory_order_relaxed);
    }
    for (size_t i = 0; i < POINTS_MAX; i++) {
        atomic_store_explicit(&points[i].ready, 0, memory_order_relaxed);
        atomic_store_explicit(&points[i].claimed, 0, memory_order_relaxed);
        atomic_store_explicit(&points[i].passages, 0, memory_order_relaxed);
    }
    for (size_t i = 0; i <= THR_OS_CALL_COUNT; i++)
        atomic_store_explicit(&calls[i], 0, memory_order_relaxed);
    atomic_store_explicit(&rule_count, 0, memory_order_relaxed);
    atomic_store_explicit(&rules_claimed, 0, memory_order_relaxed);
    atomic_store_explicit(&others_take_part, true, memory_order_relaxed);
    atomic_store_explicit(&seed_now, 1, memory_order_relaxed);
    atomic_store_explicit(&threads_numbered, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
}

static int add(enum action action, const char *text, const struct rule *values)
{
    uint32_t i = atomic_fetch_add_explicit(&rules_claimed, 1, memory_order_relaxed);
    uint32_t expected;
    struct rule *rule;

    if (i >= RULES_MAX)
        return -1;
    rule = &rules[i];
    rule->action = action;
    rule->any_text = text == NULL;
    (void)snprintf(rule->text, sizeof rule->text, "%s", text != NULL ? text : "");
    rule->call = values->call;
    rule->nth = values->nth;
    rule->count = values->count;
    rule->one_in = values->one_in;
    rule->err = values->err;
    rule->sleep_ns_max = values->sleep_ns_max;
    rule->fn = values->fn;
    rule->ctx = values->ctx;
    do { /* rules added by two threads at once become visible in their order */
        expected = i;
    } while (!atomic_compare_exchange_weak_explicit(&rule_count, &expected, i + 1, memory_order_acq_rel,
                                                    memory_order_relaxed)); /* pairs with the loads in the hooks */
    return (int)i;
}

int fault_add(const struct fault_rule *rule)
{
    const struct rule values = {.call = rule->call,
                                .nth = rule->nth != 0 ? rule->nth : 1,
                                .count = rule->count,
                                .one_in = rule->one_in,
                                .err = rule->err};

    return add(ACTION_FAIL, rule->path, &values);
}

int fault_fail(enum thr_os_call call, uint64_t nth, int err)
{
    return fault_add(&(struct fault_rule){.call = call, .nth = nth, .count = 1, .err = err});
}

int fault_fail_from(enum thr_os_call call, uint64_t nth, int err)
{
    return fault_add(&(struct fault_rule){.call = call, .nth = nth, .count = FAULT_FOREVER, .err = err});
}

int fault_kill_at(const char *point, uint64_t nth)
{
    return add(ACTION_KILL, point, &(const struct rule){.nth = nth != 0 ? nth : 1, .count = FAULT_FOREVER});
}

int fault_call_at(const char *point, uint64_t nth, void (*fn)(void *ctx, const char *name), void *ctx)
{
    const struct rule values = {
        .nth = nth != FAULT_FOREVER ? nth : 1, .count = nth != FAULT_FOREVER ? 1 : FAULT_FOREVER, .fn = fn, .ctx = ctx};

    return add(ACTION_CALL, point, &values);
}

int fault_disturb(const char *point, uint32_t one_in, uint64_t sleep_ns_max)
{
    const struct rule values = {.nth = 1, .count = FAULT_FOREVER, .one_in = one_in, .sleep_ns_max = sleep_ns_max};

    return add(ACTION_DISTURB, point, &values);
}

/* Count a call or passage that the rule matches; is it one of those that the rule is about? */
static bool rule_strikes(struct rule *rule)
{
    uint64_t seen = atomic_fetch_add_explicit(&rule->seen, 1, memory_order_relaxed) + 1;

    if (seen < rule->nth || (rule->count != FAULT_FOREVER && seen - rule->nth >= rule->count))
        return false;
    return by_chance(rule->one_in);
}

static void die(void)
{
    for (;;) {
        (void)kill(getpid(), SIGKILL);
        (void)sched_yield();
    }
}

/* --- system calls --- */

static int check(enum thr_os_call call, const char *path_or_null)
{
    int result = 0, saved_errno = errno;
    uint32_t count;

    if (!takes_part())
        return 0;
    atomic_fetch_add_explicit(&calls[call], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&calls[FAULT_ANY_CALL], 1, memory_order_relaxed);
    count = atomic_load_explicit(&rule_count, memory_order_acquire); /* pairs with add() */
    for (uint32_t i = 0; i < count; i++) {
        struct rule *rule = &rules[i];

        if (rule->action != ACTION_FAIL || (rule->call != call && rule->call != FAULT_ANY_CALL))
            continue;
        if (!rule->any_text && (path_or_null == NULL || strstr(path_or_null, rule->text) == NULL))
            continue;
        if (!rule_strikes(rule) || result != 0)
            continue;
        if (rule->err == FAULT_KILL)
            die();
        atomic_fetch_add_explicit(&rule->hits, 1, memory_order_relaxed);
        result = rule->err < 0 && call != THR_OS_WRITE ? -rule->err : rule->err;
    }
    errno = saved_errno;
    return result;
}

int (*thr_fault_check)(enum thr_os_call call, const char *path_or_null) = check;

uint64_t fault_calls(enum thr_os_call call_or_any)
{
    return atomic_load_explicit(&calls[call_or_any], memory_order_relaxed);
}

static bool is_rule(int rule)
{
    return rule >= 0 && (uint32_t)rule < atomic_load_explicit(&rule_count, memory_order_acquire); /* pairs with add() */
}

uint64_t fault_rule_calls(int rule)
{
    return is_rule(rule) ? atomic_load_explicit(&rules[rule].seen, memory_order_relaxed) : 0;
}

uint64_t fault_rule_hits(int rule)
{
    return is_rule(rule) ? atomic_load_explicit(&rules[rule].hits, memory_order_relaxed) : 0;
}

uint64_t fault_hits(void)
{
    uint64_t hits = 0;

    for (int i = 0; is_rule(i); i++)
        hits += rules[i].action == ACTION_FAIL ? fault_rule_hits(i) : 0;
    return hits;
}

const char *fault_call_name(enum thr_os_call call_or_any)
{
    static const char *const names[THR_OS_CALL_COUNT + 1] = {
        [THR_OS_OPEN] = "open",   [THR_OS_STAT] = "stat",         [THR_OS_READ] = "read",
        [THR_OS_WRITE] = "write", [THR_OS_TRUNCATE] = "truncate", [THR_OS_ALLOCATE] = "allocate",
        [THR_OS_SYNC] = "sync",   [THR_OS_MAP] = "map",           [THR_OS_UNLINK] = "unlink",
        [THR_OS_MKDIR] = "mkdir", [THR_OS_RMDIR] = "rmdir",       [THR_OS_RENAME] = "rename",
        [THR_OS_LIST] = "list",   [THR_OS_LOCK] = "lock",         [THR_OS_MEMORY] = "memory",
        [FAULT_ANY_CALL] = "any",
    };

    return (unsigned)call_or_any <= THR_OS_CALL_COUNT && names[call_or_any] != NULL ? names[call_or_any] : "?";
}

/* --- points --- */

/* The entry for a name, made if missing; NULL when the table is full. */
static struct point *point_find(const char *name, bool make)
{
    for (size_t i = 0; i < POINTS_MAX; i++) {
        uint32_t free_mark = 0;

        if (atomic_load_explicit(&points[i].claimed, memory_order_relaxed) == 0) {
            if (!make)
                return NULL;
            if (atomic_compare_exchange_strong_explicit(&points[i].claimed, &free_mark, 1, memory_order_relaxed,
                                                        memory_order_relaxed)) {
                (void)snprintf(points[i].name, sizeof points[i].name, "%s", name);
                atomic_store_explicit(&points[i].ready, 1, memory_order_release); /* pairs with the load below */
                return &points[i];
            }
        }
        while (atomic_load_explicit(&points[i].ready, memory_order_acquire) == 0) /* pairs with the store above */
            (void)sched_yield();
        if (strncmp(points[i].name, name, sizeof points[i].name - 1) == 0)
            return &points[i];
    }
    return NULL;
}

static void disturb(uint64_t sleep_ns_max)
{
    uint64_t choice = fault_random();
    uint64_t sleep_ns = sleep_ns_max != 0 ? fault_random() % sleep_ns_max : 0;
    struct timespec rest = {.tv_sec = (time_t)(sleep_ns / 1000000000), .tv_nsec = (long)(sleep_ns % 1000000000)};

    switch (choice % 4) {
    case 0:
        if (sleep_ns != 0) {
            (void)nanosleep(&rest, NULL);
            break;
        }
        /* fall through */
    case 1: /* a short delay on this core: shifts the threads against each other by less than a switch would */
        for (uint64_t spins = (choice >> 8) % 2000; spins > 0; spins--)
            thr_os_pause();
        break;
    default:
        (void)sched_yield();
    }
}

static void pass(const char *name)
{
    int saved_errno = errno;
    struct point *point;
    uint32_t count;

    if (!takes_part())
        return;
    if ((point = point_find(name, true)) != NULL)
        atomic_fetch_add_explicit(&point->passages, 1, memory_order_relaxed);
    count = atomic_load_explicit(&rule_count, memory_order_acquire); /* pairs with add() */
    for (uint32_t i = 0; i < count; i++) {
        struct rule *rule = &rules[i];

        if (rule->action == ACTION_FAIL || (!rule->any_text && strcmp(rule->text, name) != 0))
            continue;
        if (!rule_strikes(rule))
            continue;
        atomic_fetch_add_explicit(&rule->hits, 1, memory_order_relaxed);
        if (rule->action == ACTION_KILL)
            die();
        self.inside_hook = true;
        if (rule->action == ACTION_CALL)
            rule->fn(rule->ctx, name);
        else
            disturb(rule->sleep_ns_max);
        self.inside_hook = false;
    }
    errno = saved_errno;
}

void (*thr_point_hook)(const char *name) = pass;

uint64_t fault_point_passages(const char *point)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < POINTS_MAX; i++)
        if (atomic_load_explicit(&points[i].ready, memory_order_acquire) != 0 && /* pairs with point_find() */
            (point == NULL || strcmp(points[i].name, point) == 0))
            sum += atomic_load_explicit(&points[i].passages, memory_order_relaxed);
    return sum;
}

void fault_each_point(void (*fn)(void *ctx, const char *name, uint64_t passages), void *ctx)
{
    for (size_t i = 0; i < POINTS_MAX; i++)
        if (atomic_load_explicit(&points[i].ready, memory_order_acquire) != 0) /* pairs with point_find() */
            fn(ctx, points[i].name, atomic_load_explicit(&points[i].passages, memory_order_relaxed));
}
