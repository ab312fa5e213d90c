/* `throng bench zombie`: a process for each measurement, in turn.
 *
 * SPDX-License-Identifier: MIT */
#include "zombie.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../cli.h"
#include "../interrupt.h"
#include "../progress.h"
#include "directory.h"
#include "figures.h"

#define BYTES_WANTED (UINT64_C(512) << 20)
#define TICK_NS UINT64_C(20000000)

struct zombie {
    struct thr_zombie_settings settings;
    struct thr_progress progress;
    char directory[768];
    struct thr_zombie_cell *cells;
    struct thr_zombie_run *rounds; /* [cell][round]; what the processes share */
    size_t rounds_bytes;
};

/* --- one measurement --- */

static _Noreturn void be_child(struct zombie *zombie, const struct thr_zombie_cell *cell, uint64_t seed,
                               struct thr_zombie_run *run, pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent)
        thr_zombie_measure(&zombie->settings, cell->engine, cell->readers, seed, zombie->directory, run);
    exit(THR_EXIT_OK);
}

/* Until the process has ended; shows how far it is. */
static int wait_for(struct zombie *zombie, pid_t pid, const struct thr_zombie_cell *cell,
                    const struct thr_zombie_run *run, double done, double step)
{
    bool told = false;
    int status = 0;
    pid_t got;

    while ((got = waitpid(pid, &status, WNOHANG)) == 0 || (got < 0 && errno == EINTR)) {
        double permille = atomic_load_explicit(&run->permille, memory_order_relaxed);

        if (thr_interrupted() && !told)
            told = kill(pid, SIGTERM) == 0; /* the signal may have come to us alone */
        thr_progress_show(&zombie->progress, done + step * permille / 1000, "%s: %u reader%s", cell->engine->name,
                          cell->readers, cell->readers == 1 ? "" : "s");
        thr_sleep_ns(TICK_NS);
    }
    return got == pid ? status : -1;
}

static const char *measure(struct zombie *zombie, const struct thr_zombie_cell *cell, struct thr_zombie_run *run,
                           uint64_t seed, double done, double step)
{
    static char message[64];
    pid_t parent = getpid(), pid;
    int status;

    (void)fflush(NULL); /* else the child would print it again */
    if ((pid = fork()) < 0)
        return "the system refuses another process";
    if (pid == 0)
        be_child(zombie, cell, seed, run, parent);
    status = wait_for(zombie, pid, cell, run, done, step);
    if (thr_interrupted())
        return "interrupted";
    if (status == 0)
        return run->message[0] == '\0' ? NULL : run->message;
    (void)snprintf(message, sizeof message, "the process that measures died (%s %d)",
                   WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : status);
    return message;
}

/* --- all of them --- */

static void add_round(struct thr_zombie_cell *cell, const struct thr_zombie_run *run)
{
    if (cell->first_error[0] == '\0')
        memcpy(cell->first_error, run->first_error, sizeof cell->first_error);
    if (cell->verdict[0] == '\0' || strcmp(cell->verdict, "ok") == 0)
        memcpy(cell->verdict, run->verdict, sizeof cell->verdict);
    cell->errors += run->errors;
    cell->retries += run->retries;
    thr_contention_add(&cell->contention, &run->contention);
}

static const char *measure_all(struct zombie *zombie)
{
    const struct thr_zombie_settings *settings = &zombie->settings;
    uint32_t cells = thr_zombie_cells(settings), total = cells * settings->common.rounds;

    thr_progress_stage(&zombie->progress);
    for (uint32_t i = 0; i < total; i++) {
        struct thr_zombie_cell *cell = &zombie->cells[i % cells];
        struct thr_zombie_run *run = &cell->rounds[i / cells];
        /* The same seed for every engine: they get the same queries. */
        uint64_t seed = settings->common.seed + 1 + i / settings->common.engines.count;
        const char *message = measure(zombie, cell, run, seed, (double)i / total, 1.0 / total);

        add_round(cell, run);
        if (message != NULL)
            return message;
        if (i < cells && !settings->common.json) {
            thr_progress_clear(&zombie->progress);
            thr_zombie_lines(settings, cell, run);
        }
    }
    return NULL;
}

static void summarize(struct thr_zombie_cell *cell, uint32_t rounds)
{
    size_t stride = sizeof *cell->rounds / sizeof(double);

    _Static_assert(sizeof(struct thr_zombie_run) % sizeof(double) == 0, "rounds are a whole number of figures apart");
    for (int figure = 0; figure < THR_ZOMBIE_FIGURE_COUNT; figure++)
        cell->summary[figure] = thr_figure_of_rounds(&cell->rounds[0].figure[figure], rounds, stride,
                                                     figure == THR_ZOMBIE_MAX_US);
}

static void complain(const struct zombie *zombie, const char *message)
{
    fprintf(stderr, "throng bench zombie: %s\n", message);
    for (uint32_t i = 0; zombie->cells != NULL && i < thr_zombie_cells(&zombie->settings); i++) {
        if (zombie->cells[i].first_error[0] != '\0')
            fprintf(stderr, "  %s: %s\n", zombie->cells[i].engine->name, zombie->cells[i].first_error);
    }
}

static int run(struct zombie *zombie)
{
    struct thr_zombie_report report = {&zombie->settings, zombie->directory, zombie->cells};
    const char *message = measure_all(zombie);

    thr_progress_clear(&zombie->progress);
    if (message != NULL) {
        complain(zombie, message);
        return thr_interrupted() ? THR_EXIT_INTERRUPTED : THR_EXIT_FAILED;
    }
    for (uint32_t i = 0; i < thr_zombie_cells(&zombie->settings); i++)
        summarize(&zombie->cells[i], zombie->settings.common.rounds);
    if (zombie->settings.common.json)
        thr_zombie_json(&report);
    else
        thr_zombie_text(&report);
    return thr_zombie_is_well(&report) ? THR_EXIT_OK : THR_EXIT_FAILED;
}

static const char *allocate(struct zombie *zombie)
{
    const struct thr_zombie_settings *settings = &zombie->settings;
    uint32_t cells = thr_zombie_cells(settings), engines = settings->common.engines.count;
    void *shared;

    zombie->rounds_bytes = (size_t)cells * settings->common.rounds * sizeof *zombie->rounds;
    zombie->cells = calloc(cells, sizeof *zombie->cells);
    shared = mmap(NULL, zombie->rounds_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (zombie->cells == NULL || shared == MAP_FAILED)
        return "out of memory";
    zombie->rounds = shared;
    for (uint32_t i = 0; i < cells; i++) {
        zombie->cells[i].engine = settings->common.engines.engine[i % engines];
        zombie->cells[i].readers = settings->readers.value[i / engines];
        zombie->cells[i].rounds = &zombie->rounds[(size_t)i * settings->common.rounds];
    }
    return NULL;
}

int thr_bench_zombie(int argc, char **argv)
{
    static struct zombie zombie;
    const struct thr_settings *settings = &zombie.settings.common;
    const char *message;
    int code;

    if ((code = thr_zombie_settings_parse(argc, argv, &zombie.settings)) >= 0)
        return code;
    thr_interrupt_catch();
    thr_progress_open(&zombie.progress, settings->quiet);
    code = THR_EXIT_FAILED;
    if ((message = allocate(&zombie)) == NULL)
        message = thr_directory_make(settings->directory, BYTES_WANTED, zombie.directory, sizeof zombie.directory);
    if (message != NULL) {
        complain(&zombie, message);
    } else {
        code = run(&zombie);
        if (settings->keep)
            fprintf(stderr, "kept: %s\n", zombie.directory);
        else
            thr_directory_remove(zombie.directory);
    }
    if (zombie.rounds != NULL)
        (void)munmap(zombie.rounds, zombie.rounds_bytes);
    free(zombie.cells);
    return code;
}
