/* The simulator: many schedules of a few connections, each from its seed, each checked. See --help.
 *
 * SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk.h"
#include "faults.h"
#include "heap.h"
#include "model.h"
#include "moves.h"
#include "schedule.h"
#include "throng.h"
#include "vfs.h"
#include "work.h"

enum { DIED = 42, STEP_LIMIT = 3000000, QUIET_TRIES = 3 };

/* What outlives a simulated process, beside the model. */
struct shared {
    uint64_t hash, switches;
    bool cut[DBS];
    bool faulty; /* an error was injected */
};

static struct shared *shared;
static char directory[48];
static uint64_t seed_now;
static uint64_t schedules_done;
static struct {
    uint64_t seed, schedules, trace_from;
    double seconds;
    bool trace, twice, quiet, keep;
} options = {.schedules = UINT64_MAX};

/* --- failures --- */

/* What SQLite's log has said last. */
enum { LINES = 8, LINE_BYTES = 300 };
static char lines[LINES][LINE_BYTES];
static unsigned line_count;

static void to_log(void *context, int code, const char *message)
{
    (void)context;
    if (code == SQLITE_SCHEMA || code == SQLITE_BUSY_SNAPSHOT)
        return;
    (void)snprintf(lines[line_count++ % LINES], LINE_BYTES, "(%d) %s", code, message);
}

static void at_end(void);

static void say_where(void)
{
    (void)fprintf(stderr, "  schedule %" PRIu64 ", switch %" PRIu64 "\n", schedules_done + 1, sched_steps());
    plan_print();
    sched_report();
    for (unsigned i = line_count < LINES ? 0 : line_count - LINES; i < line_count; i++)
        (void)fprintf(stderr, "  log: %s\n", lines[i % LINES]);
    model_print();
    (void)fprintf(stderr, "sim: failed. Again: build/tests/sim --seed %" PRIu64 "\n", seed_now);
    if (options.keep)
        (void)fprintf(stderr, "sim: its files are in %s\n", directory);
    else
        at_end();
}

_Noreturn void sim_failed(const char *format, ...)
{
    va_list arguments;

    (void)fprintf(stderr, "\nsim: seed %" PRIu64 ": ", seed_now);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    say_where();
    _exit(1);
}

static void on_signal(int number)
{
    static uint64_t seen;

    if (number == SIGALRM && seen != seed_now) { /* a schedule takes a millisecond; two alarms in one: it hangs */
        seen = seed_now;
        return;
    }
    (void)fprintf(stderr, "\nsim: seed %" PRIu64 ": %s\n", seed_now,
                  number == SIGALRM ? "hangs between two switches" : strsignal(number));
    say_where();
    _exit(1);
}

static void watch(void)
{
    static unsigned char stack[64 * 1024];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
    const struct itimerval timer = {{60, 0}, {60, 0}};

    (void)sigaltstack(&alternate, NULL);
    (void)sigaction(SIGABRT, &action, NULL);
    (void)sigaction(SIGSEGV, &action, NULL);
    (void)sigaction(SIGBUS, &action, NULL);
    (void)sigaction(SIGFPE, &action, NULL);
    (void)sigaction(SIGALRM, &action, NULL);
    (void)setitimer(ITIMER_REAL, &timer, NULL);
}

/* --- files --- */

static void remove_files(void)
{
    char path[512];

    for (int d = 0; d < DBS; d++) {
        DIR *journal;
        struct dirent *entry;

        (void)unlink(db_path[d]);
        (void)snprintf(path, sizeof path, "%s-journal", db_path[d]);
        if ((journal = opendir(path)) == NULL)
            continue;
        while ((entry = readdir(journal)) != NULL) {
            (void)snprintf(path, sizeof path, "%s-journal/%s", db_path[d], entry->d_name);
            (void)unlink(path);
        }
        (void)closedir(journal);
        (void)snprintf(path, sizeof path, "%s-journal", db_path[d]);
        if (rmdir(path) != 0)
            sim_failed("%s cannot be removed", path);
    }
}

static void at_end(void)
{
    if (directory[0] == '\0')
        return;
    remove_files();
    (void)rmdir(directory);
}

/* A database as a schedule finds it, made once for each kind by stock SQLite. */
static const unsigned char *database_of_plan(int d, size_t *bytes_out)
{
    static unsigned char *made[DBS][3][3][3];
    static size_t sizes[DBS][3][3][3];
    int page = plan.page_size == 512 ? 0 : plan.page_size == 1024 ? 1 : 2;
    unsigned char **at = &made[d][page][plan.auto_vacuum][plan.content_kind];
    size_t *size = &sizes[d][page][plan.auto_vacuum][plan.content_kind];
    char sql[1024];
    sqlite3 *db = NULL;
    struct stat stat;
    int fd;

    if (*at != NULL) {
        *bytes_out = *size;
        return *at;
    }
    (void)unlink(db_path[d]);
    (void)snprintf(sql, sizeof sql,
                   "PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF;"
                   "CREATE TABLE r(k INTEGER PRIMARY KEY, v INT, pad BLOB);"
                   "CREATE TABLE c(id INTEGER PRIMARY KEY, v INT, pad BLOB); CREATE INDEX cv ON c(v);"
                   "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<%d)"
                   "INSERT INTO r SELECT i, 0, fill(%d, i, 0) FROM n",
                   plan.page_size, plan.auto_vacuum, KEYS - 1, d);
    if (sqlite3_open_v2(db_path[d], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, "sim") !=
        SQLITE_OK)
        sim_failed("%s cannot be made", db_path[d]);
    if (work_functions(db) != SQLITE_OK || sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        sim_failed("%s cannot be made: %s", db_path[d], sqlite3_errmsg(db));
    (void)sqlite3_close(db);
    if ((fd = open(db_path[d], O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &stat) != 0)
        sim_failed("%s cannot be read", db_path[d]);
    *size = (size_t)stat.st_size;
    *at = malloc(*size);
    if (*at == NULL || read(fd, *at, *size) != (ssize_t)*size)
        sim_failed("%s cannot be read", db_path[d]);
    (void)close(fd);
    (void)unlink(db_path[d]);
    *bytes_out = *size;
    return *at;
}

static void make_files(void)
{
    remove_files();
    for (int d = 0; d < plan.dbs; d++) {
        size_t bytes;
        const unsigned char *content = database_of_plan(d, &bytes);
        int fd = open(db_path[d], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

        if (fd < 0 || write(fd, content, bytes) != (ssize_t)bytes)
            sim_failed("%s cannot be written: %s", db_path[d], strerror(errno));
        (void)close(fd);
    }
}

/* --- at rest --- */

/* Stock SQLite finds the file whole; values[] is what the registers hold. */
static void check_file(int d, int16_t values[KEYS])
{
    char path[256];
    sqlite3_stmt *stmt = NULL;
    sqlite3 *db = NULL;
    struct stat stat_directory, stat_file;
    const char *text;
    int rc;

    (void)snprintf(path, sizeof path, "%s-journal", db_path[d]);
    if (stat(path, &stat_directory) == 0)
        sim_failed("%s is still there after the last close", path);
    if (sqlite3_open_v2(db_path[d], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, "sim") != SQLITE_OK ||
        sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        sim_failed("at rest: database %d: %s", d, sqlite3_errmsg(db));
    text = (const char *)sqlite3_column_text(stmt, 0);
    if (text == NULL || strcmp(text, "ok") != 0)
        sim_failed("at rest: integrity_check of database %d: %s", d, text != NULL ? text : "?");
    (void)sqlite3_finalize(stmt);
    if (sqlite3_prepare_v2(db, "SELECT k, v FROM r ORDER BY k", -1, &stmt, NULL) != SQLITE_OK)
        sim_failed("at rest: database %d: %s", d, sqlite3_errmsg(db));
    for (int k = 0; k < KEYS; k++) {
        if ((rc = sqlite3_step(stmt)) != SQLITE_ROW || sqlite3_column_int(stmt, 0) != k)
            sim_failed("at rest: database %d has no register %d (code %d)", d, k, rc);
        values[k] = (int16_t)sqlite3_column_int(stmt, 1);
    }
    (void)sqlite3_finalize(stmt);
    if (sqlite3_prepare_v2(db, "PRAGMA page_count", -1, &stmt, NULL) != SQLITE_OK || sqlite3_step(stmt) != SQLITE_ROW ||
        stat(db_path[d], &stat_file) != 0 || stat_file.st_size != sqlite3_column_int64(stmt, 0) * plan.page_size)
        sim_failed("at rest: database %d is not as long as its header says", d);
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
}

/* --- a life of a process --- */

static struct worker workers[THREADS];
static int worker_fibers[THREADS];

/* Nobody uses the database but this connection: is each frame in one place, and each page? */
static void check_accounts(sqlite3 *sqlite, const char *schema)
{
    struct thr_main_file *file = thr_main_of(sqlite, schema);
    struct thr_db *db;

    if (file == NULL)
        return;
    db = file->conn->db;
    if (db->has_checkpointer || db->heap.shm == NULL)
        return;
    if (plan.seed % 8 == 0) /* it looks at very many places */
        thr_heap_check(&db->heap, &file->conn->frames);
    if (atomic_load_explicit(&db->shm.head->format, memory_order_relaxed) == 2 && !thr_space_balances(&db->shm))
        sim_failed("the pool is not what its count says");
}

/* When all others have ended: a connection that was there from the beginning can write, whatever they did. */
static void caretaker(void *arg)
{
    struct worker self = {.thread = -1, .chance = chance_new(plan.seed, 50)};
    int rc;

    (void)arg;
    rc = work_open(0, &self.db);
    if (rc == SQLITE_OK)
        for (int t = 0; t < plan.threads; t++)
            sched_join(worker_fibers[t]);
    fault_disarm();
    if (rc == SQLITE_OK && fault_hits() == 0) {
        worker_last(&self);
        check_accounts(self.db, "main");
        if (plan.dbs > 1)
            check_accounts(self.db, "other");
    }
    worker_close(&self);
}

static void note_faults(void)
{
    shared->faulty = shared->faulty || fault_hits() > 0;
}

static void die(void)
{
    struct chance chance = chance_new(plan.seed, 60 + (uint64_t)model->life);

    for (int d = 0; d < plan.dbs; d++)
        shared->cut[d] = plan.power && model->promised[d];
    disk_cut(&chance, shared->cut);
    note_faults();
    shared->hash ^= sched_hash();
    shared->switches += sched_steps();
    _exit(DIED);
}

static uint64_t seed_of_life(void)
{
    return plan.seed + (uint64_t)model->life * UINT64_C(0x632be59bd9b4e019);
}

static void begin(bool dies)
{
    struct chance chance = chance_new(seed_of_life(), 70);
    struct sched_options sched = {
        .seed = seed_of_life(), .step_limit = STEP_LIMIT, .trace = options.trace, .trace_from = options.trace_from};

    if (dies) {
        sched.death_step = 1 + chance_below(&chance, 1u << (7 + chance_below(&chance, 8)));
        sched.death = die;
    }
    memory_reset();
    (void)sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(1 + chance_below(&chance, 1u << 30)), NULL);
    sched_begin(&sched);
}

static void end(void)
{
    sched_run();
    shared->hash = shared->hash * 31 + sched_hash();
    shared->switches += sched_steps();
}

static void live(bool dies)
{
    begin(dies);
    if (dies && plan.power)
        disk_watch(true);
    fault_arm(plan.fault_kind, plan.fault_after, plan.fault_every);
    for (int t = 0; t < plan.threads; t++) {
        memset(&workers[t], 0, sizeof workers[t]);
        workers[t].thread = t;
        workers[t].chance = chance_new(seed_of_life(), 100 + (uint64_t)t);
        worker_fibers[t] = sched_spawn(worker_run, &workers[t], "connection");
    }
    (void)sched_spawn(caretaker, NULL, "caretaker");
    end();
    note_faults();
}

/* In a process of its own: it may die, or end with something of the engine's left in memory. Returns whether it died. */
static bool live_apart(bool dies)
{
    int status;
    pid_t child;

    memset(shared->cut, 0, sizeof shared->cut);
    (void)fflush(NULL);
    if ((child = fork()) < 0)
        sim_failed("fork: %s", strerror(errno));
    if (child == 0) {
        live(dies);
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            sim_failed("waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
        _exit(1); /* and has said why */
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != DIED))
        sim_failed("its process ended by status %x", (unsigned)status);
    return WEXITSTATUS(status) == DIED;
}

/* --- after it --- */

static int16_t found[DBS][KEYS];

static void recover(void *arg)
{
    struct worker self = {.thread = -1};
    int rc;

    (void)arg;
    worker_begin(&self);
    if ((rc = work_open(0, &self.db)) != SQLITE_OK || (rc = work_look(&self, found)) != SQLITE_OK)
        sim_failed("after %s: code %d: %s", shared->cut[0] || shared->cut[1] ? "a power cut" : "a death or an error",
                   rc, self.db != NULL ? sqlite3_errmsg(self.db) : sqlite3_errstr(rc));
    worker_close(&self);
}

static void check_life(bool died)
{
    int16_t values[DBS][KEYS];

    if (died || shared->faulty) {
        fault_arm(FAULT_NOTHING, 0, 0);
        begin(false);
        (void)sched_spawn(recover, NULL, "recovery");
        end();
    }
    sched_begin(&(struct sched_options){.seed = 1, .step_limit = STEP_LIMIT});
    memory_reset();
    for (int d = 0; d < plan.dbs; d++)
        check_file(d, values[d]);
    if (died || shared->faulty)
        for (int d = 0; d < plan.dbs; d++)
            if (memcmp(values[d], found[d], sizeof values[d]) != 0)
                sim_failed("at rest database %d has other values than when it was recovered", d);
    model_recovered((const int16_t(*)[KEYS])values, shared->cut, died);
    memset(shared->cut, 0, sizeof shared->cut);
    shared->faulty = false;
}

/* --- a schedule --- */

static uint64_t schedule(uint64_t seed)
{
    const char *paths[DBS] = {db_path[0], db_path[1]};

    seed_now = seed;
    line_count = 0;
    plan_make(seed);
    memory_reset();
    model_begin(plan.dbs);
    memset(shared, 0, sizeof *shared);
    make_files();
    disk_paths(plan.dbs, paths);
    for (int life = 0; life < plan.lives; life++) {
        bool died = false;

        if (life < plan.death_in || plan.fault_kind != FAULT_NOTHING)
            died = live_apart(life < plan.death_in);
        else
            live(false);
        check_life(died);
    }
    model_check();
    return shared->hash;
}

/* --- setting up --- */

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    sched_sleep((uint64_t)us * 1000);
    return us;
}

static int vfs_time(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    (void)vfs;
    *out = (sqlite3_int64)(sched_now() / 1000000) + INT64_C(211845067200000);
    return SQLITE_OK;
}

static void *shared_memory(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED) {
        perror("sim: mmap");
        exit(1);
    }
    return at;
}

static void set_up(void)
{
    static sqlite3_vfs vfs;

    model = shared_memory(sizeof *model);
    shared = shared_memory(sizeof *shared);
    memory_setup();
    (void)sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    (void)sqlite3_config(SQLITE_CONFIG_LOG, to_log, NULL);
    (void)sqlite3_config(SQLITE_CONFIG_URI, 1);
    (void)sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
    (void)sqlite3_initialize();
    vfs = *sqlite3_vfs_find("unix");
    vfs.zName = "sim";
    vfs.xSleep = vfs_sleep;
    vfs.xCurrentTimeInt64 = vfs_time;
    (void)sqlite3_vfs_register(&vfs, 1);
    if (throng_register(0) != SQLITE_OK) {
        (void)fprintf(stderr, "sim: throng_register() fails\n");
        exit(1);
    }
    (void)snprintf(directory, sizeof directory, "%s/throng-sim-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
                   (int)getpid());
    if (mkdir(directory, 0700) != 0) {
        perror(directory);
        exit(1);
    }
    for (int d = 0; d < DBS; d++)
        (void)snprintf(db_path[d], sizeof db_path[d], "%s/%d.db", directory, d);
    (void)atexit(at_end);
    memory_mark();
}

/* The same addresses each time; and one processor, or others would be asked to forget each page that is given back. */
static void fix_addresses(char **argv)
{
    cpu_set_t one;

    int before = personality(0xffffffff);

    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    (void)sched_setaffinity(0, sizeof one, &one);
    if (before < 0 || (before & ADDR_NO_RANDOMIZE) != 0 || personality((unsigned long)before | ADDR_NO_RANDOMIZE) < 0)
        return;
    (void)execv("/proc/self/exe", argv);
}

static void usage(FILE *to)
{
    (void)fprintf(
        to,
        "usage: sim [--schedules N] [--seconds S] [--seed-from N] [--seed N [--trace [SWITCH]]] [--twice]\n"
        "           [--keep] [--quiet]\n"
        "\n"
        "Runs connections of a simulated process under a scheduler of its own. A seed is a schedule: which "
        "connections\n"
        "there are, what they do, and at which of the engine's locks, atomic operations and system calls another one "
        "goes\n"
        "on. What was read and acknowledged must have one order, stock SQLite must find the file whole, and what is\n"
        "promised must be there after a death of the process or a power cut. The first failure ends the program, with\n"
        "status 1, and is told with its seed.\n"
        "\n"
        "  --schedules N      so many schedules, with seeds that follow each other; default: until a failure\n"
        "  --seconds S        for so long\n"
        "  --seed-from N      the first seed; default: a new one each time\n"
        "  --seed N           that schedule alone, again; the same seed in the same build is the same schedule\n"
        "  --trace [SWITCH]   with --seed: say who runs when, from that switch on\n"
        "  --twice            run each schedule twice, and see that both are the same\n"
        "  --keep             leave the files of a failure behind\n"
        "  --quiet            no progress, no summary\n"
        "\n"
        "  build/tests/sim --seconds 60\n"
        "  build/tests/sim --seed 4711 --trace 2>&1 | less\n");
}

static double seconds_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t number(const char *text, const char *option)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 0);

    if (*text < '0' || *text > '9' || *end != '\0') {
        (void)fprintf(stderr, "sim: --%s=%s is no number\n", option, text);
        exit(2);
    }
    return value;
}

static void read_options(int argc, char **argv)
{
    static const struct option LONG[] = {{"schedules", required_argument, NULL, 'n'},
                                         {"seconds", required_argument, NULL, 's'},
                                         {"seed-from", required_argument, NULL, 'f'},
                                         {"seed", required_argument, NULL, 'S'},
                                         {"trace", optional_argument, NULL, 't'},
                                         {"twice", no_argument, NULL, '2'},
                                         {"keep", no_argument, NULL, 'k'},
                                         {"quiet", no_argument, NULL, 'q'},
                                         {"help", no_argument, NULL, 'h'},
                                         {NULL, 0, NULL, 0}};
    int c;

    options.seed = (uint64_t)time(NULL) * 1000000 % UINT64_C(1000000000000);
    while ((c = getopt_long(argc, argv, "", LONG, NULL)) != -1)
        switch (c) {
        case 'n':
            options.schedules = number(optarg, "schedules");
            break;
        case 's':
            options.seconds = strtod(optarg, NULL);
            break;
        case 'f':
            options.seed = number(optarg, "seed-from");
            break;
        case 'S':
            options.seed = number(optarg, "seed");
            options.schedules = 1;
            break;
        case 't':
            options.trace = true;
            options.trace_from = optarg != NULL ? number(optarg, "trace") : 0;
            break;
        case '2':
            options.twice = true;
            break;
        case 'k':
            options.keep = true;
            break;
        case 'q':
            options.quiet = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    if (optind < argc) {
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    bool terminal = isatty(STDERR_FILENO) != 0;
    double began, told, now;
    uint64_t switches = 0;

    read_options(argc, argv);
    fix_addresses(argv);
    set_up();
    watch();
    if (!options.quiet)
        (void)printf("sim: seeds from %" PRIu64 "\n", options.seed);
    (void)fflush(stdout);
    began = told = seconds_now();
    while (schedules_done < options.schedules) {
        uint64_t hash = schedule(options.seed + schedules_done);

        if (options.twice && schedule(options.seed + schedules_done) != hash)
            sim_failed("the second time it is another schedule");
        switches += shared->switches;
        schedules_done++;
        if ((schedules_done & 15) != 0)
            continue;
        now = seconds_now();
        if (options.seconds > 0 && now - began >= options.seconds)
            break;
        if (terminal && !options.quiet && now - told >= 0.5) {
            told = now;
            (void)fprintf(stderr, "\rsim: %" PRIu64 " schedules, %.0f a second ", schedules_done,
                          (double)schedules_done / (now - began));
        }
    }
    now = seconds_now() - began;
    if (!options.quiet)
        (void)printf("%ssim: %" PRIu64 " schedules (seeds %" PRIu64 " to %" PRIu64
                     ") without a failure in %.1f s: %.0f a "
                     "second, %.0f switches each\n",
                     terminal ? "\n" : "", schedules_done, options.seed, options.seed + schedules_done - 1, now,
                     (double)schedules_done / now, (double)switches / (double)schedules_done);
    if (options.schedules == 1)
        (void)printf("sim: hash %016" PRIx64 "\n", shared->hash);
    return 0;
}
