/* The scheduler: the threads of a simulated process are fibers of one thread, of which one runs at a time. It may change at
 * each call of sim_switch() (sim.h tells where the engine has these), by choices that all come from one seed.
 *
 * Two kinds of choice. By chance: at each switch, with a probability, any fiber that can run. And by priorities, of which
 * only few change, at random depths: Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
 * Bugs", 2010. Time is simulated: it goes on a little with each switch, and when nobody can run, to the next deadline.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_SCHEDULE_H
#define SIM_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

/* --- chance --- */
struct chance {
    uint64_t state;
};

struct chance chance_new(uint64_t seed, uint64_t stream);
uint64_t chance_next(struct chance *chance);
uint32_t chance_below(struct chance *chance, uint32_t limit);
bool chance_one_in(struct chance *chance, uint32_t n);

/* --- fibers --- */
struct sched_options {
    uint64_t seed;
    uint64_t step_limit; /* that many switches and still not done: it hangs */
    uint64_t death_step; /* at this switch death() is called; 0: never */
    void (*death)(void); /* does not return */
    uint64_t trace_from; /* with `trace`: print the choices from this switch on */
    bool trace;
};

void sched_begin(const struct sched_options *options);
/* A fiber that begins when it is chosen. */
int sched_spawn(void (*fn)(void *), void *arg, const char *name);
/* Run until all fibers have ended. */
void sched_run(void);

/* For fibers. */
void sim_switch(void);
void sched_join(int fiber);
void sched_sleep(uint64_t ns);
int sched_self(void); /* -1 outside of fibers */
uint64_t sched_now(void);
uint64_t sched_steps(void);
uint64_t sched_hash(void); /* of all choices so far */
/* What the fiber does, for the report of a failure. */
void sched_note(const char *text);

/* Where each fiber is; async-signal-safe enough for a program that is about to end. */
void sched_report(void);
/* Ends the program, after it has said what is wrong and how to see it again. */
_Noreturn void sim_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
