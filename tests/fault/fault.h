/* Fault injection for tests: makes system calls fail, tears writes, disturbs the schedule, kills the process. Link
 * fault.c with an engine built with -DTHR_FAULTS; it defines thr_fault_check and thr_point_hook, and until a rule is
 * added nothing happens but counting.
 *
 * The usual sweep, "whichever call fails, the outcome is clean":
 *
 *     for (uint64_t n = 1; ; n++) {
 *         fault_reset();
 *         fault_fail(FAULT_ANY_CALL, n, EIO);
 *         rc = the_operation();
 *         if (fault_hits() == 0)
 *             break;                      (it made fewer than n calls: every one has failed once)
 *         check(rc);
 *     }
 *
 * The usual crash test: run once and list the points passed with fault_each_point(); then for each point and each
 * passage fork a child that calls fault_kill_at(point, n) and runs the same again, and look at what it leaves.
 *
 * Rules may be added at any time and hold for all threads that take part; rules, paths and point names are copied.
 * fault_reset() is for moments when no other thread is in the engine. After fork() a child has its parent's rules
 * and counts.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_TEST_FAULT_H
#define THR_TEST_FAULT_H

#include "os.h"

#ifndef THR_FAULTS
#error "fault.h is for builds with -DTHR_FAULTS"
#endif

/* No rules, all counts zero, every thread takes part, seed 1. */
void fault_reset(void);

/* --- which threads take part ---
 * The calls and points of a thread that does not take part are not counted, never fail and never kill. */
void fault_this_thread(bool on);   /* the calling thread's choice, until the next fault_reset() */
void fault_other_threads(bool on); /* for threads that have not chosen; true after fault_reset() */

/* --- system calls --- */
#define FAULT_ANY_CALL THR_OS_CALL_COUNT /* instead of a kind: all kinds together, in the order they come */
#define FAULT_FOREVER 0
#define FAULT_KILL (1 << 20) /* instead of an errno: SIGKILL to this process, before the call does anything */

struct fault_rule {
    enum thr_os_call call;
    const char *path; /* only calls on paths that contain this; NULL: all, also those without a path */
    uint64_t nth;     /* the first call to fail: 1 is the next one that matches (0 is read as 1) */
    uint64_t count;   /* how many calls fail from there on, or FAULT_FOREVER */
    uint32_t one_in;  /* of these only one in so many, by chance (see fault_seed); 0 and 1: each of them */
    int err;          /* errno, -errno for a torn write (an untorn errno for other calls), or FAULT_KILL */
};

/* Returns the rule's number for the functions below, or -1 if there are 64 rules already. If several rules want a call
 * to fail, the oldest decides; all of them count it. */
int fault_add(const struct fault_rule *rule);
int fault_fail(enum thr_os_call call, uint64_t nth, int err);      /* that call and no other */
int fault_fail_from(enum thr_os_call call, uint64_t nth, int err); /* that call and all later ones */

uint64_t fault_calls(enum thr_os_call call_or_any); /* made since fault_reset(), failed ones included */
uint64_t fault_rule_calls(int rule);                /* that matched the rule's kind and path, since it was added */
uint64_t fault_rule_hits(int rule);                 /* that the rule made fail */
uint64_t fault_hits(void);                          /* that any rule made fail */
const char *fault_call_name(enum thr_os_call call_or_any);

/* --- named points, THR_POINT(name) ---
 * `point` below is a full name, or NULL for every point; passages are counted from the moment the rule is added. */

/* Kill the process with SIGKILL at the nth passage: a write torn by a rule passes the point "torn-write" in between, so
 * fault_kill_at("torn-write", 1) with a torn write dies in the middle of it. Returns -1 if there are 64 rules. */
int fault_kill_at(const char *point, uint64_t nth);

/* Call fn(ctx, name) at the nth passage (FAULT_FOREVER: at each), on the thread that passes: to hold one thread there
 * while another one runs. It may enter the engine; what it does there is neither counted nor disturbed. */
int fault_call_at(const char *point, uint64_t nth, void (*fn)(void *ctx, const char *name), void *ctx);

/* Schedule exploration: of the passages, one in `one_in` by chance yields, spins, or sleeps up to `sleep_ns_max`. */
int fault_disturb(const char *point, uint32_t one_in, uint64_t sleep_ns_max);

uint64_t fault_point_passages(const char *point); /* since fault_reset() */
/* Each point passed so far, in order of the first passage. The first 256 names are kept. */
void fault_each_point(void (*fn)(void *ctx, const char *name, uint64_t passages), void *ctx);

/* --- chance ---
 * A seed fixes the choices that each thread makes along its own way, not how the threads meet; so a replay is likely
 * to show a failure again, soon if not at once. Threads are told apart by the order of their first choice, or, which
 * replays better, by the number that a test gives them. */
void fault_seed(uint64_t seed);            /* call before the threads start */
void fault_thread_number(uint32_t number); /* the calling thread's, until the next fault_reset() */
uint64_t fault_random(void);               /* the calling thread's next number */
uint64_t fault_environment_seed(void);     /* THRONG_SEED if set, else a new one; print it when a test fails */

#endif
