/* The work of `throng bench stmt` done by others: small programs in peers/, compiled when they are asked for, with what is
 * installed then.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stmt.h"

static const struct peer {
    const char *name, *source, *needs;
    const char *script; /* $1 the program to make, $2 its source, $3 a directory for anything else */
} peers[THR_STMT_WAYS] = {
    [THR_STMT_GO] = {"go", "stmt.go", "golang and golang-github-mattn-go-sqlite3-dev",
                     "GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=\"$3/go-cache\" go build -o \"$1\" \"$2\""},
    [THR_STMT_LIBZDB] = {"libzdb", "stmt_libzdb.c", "libzdb-dev, a C compiler and pkg-config",
                         "cc -O2 -o \"$1\" \"$2\" $(pkg-config --cflags --libs zdb) -pthread"},
};

/* Run it, and read what it prints. Returns its exit status, or -1. */
static int run(char *const *argv, bool with_errors, char *out, size_t out_bytes)
{
    size_t used = 0;
    int ends[2], status = -1;
    ssize_t got;
    pid_t pid;

    out[0] = '\0';
    if (pipe(ends) != 0)
        return -1;
    (void)fflush(NULL);
    if ((pid = fork()) == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)close(ends[0]);
        if (!with_errors)
            (void)fclose(stderr);
        (void)execvp(argv[0], argv);
        _exit(127);
    }
    (void)close(ends[1]);
    while (pid > 0 && used < out_bytes - 1) {
        got = read(ends[0], out + used, out_bytes - 1 - used);
        if (got == 0 || (got < 0 && errno != EINTR))
            break;
        used += got > 0 ? (size_t)got : 0;
    }
    out[used] = '\0';
    (void)close(ends[0]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void source_path(const char *name, char *out, size_t bytes)
{
    (void)snprintf(out, bytes, "%s/%s", THR_PEERS_SOURCE, name);
    if (access(out, R_OK) != 0)
        (void)snprintf(out, bytes, "%s/%s", THR_PEERS_INSTALLED, name);
}

static void program_path(const char *directory, enum thr_stmt_way way, char *out, size_t bytes)
{
    (void)snprintf(out, bytes, "%s/peer-%s", directory, peers[way].name);
}

bool thr_stmt_peer_make(const char *directory, enum thr_stmt_way way)
{
    char program[1024], source[1024], ignored[64], script[256], place[1024];
    char *argv[] = {"sh", "-c", script, "sh", program, source, place, NULL};
    bool made;

    (void)snprintf(script, sizeof script, "%s", peers[way].script);
    (void)snprintf(place, sizeof place, "%s", directory);
    program_path(directory, way, program, sizeof program);
    source_path(peers[way].source, source, sizeof source);
    made = run(argv, false, ignored, sizeof ignored) == 0 && access(program, X_OK) == 0;
    if (!made)
        fprintf(stderr, "peer %s is left out: it wants %s\n", peers[way].name, peers[way].needs);
    return made;
}

const char *thr_stmt_peer_measure(const struct thr_stmt_settings *settings, const char *database, const char *directory,
                                  enum thr_stmt_way way, uint32_t threads, struct thr_stmt_result *out)
{
    char program[1024], path[1024], numbers[4][32], answer[128];
    char *argv[] = {program, path, numbers[0], numbers[1], numbers[2], numbers[3], NULL};
    double figure[3] = {0}; /* operations, nanoseconds, seconds */
    char *at = answer, *end;

    program_path(directory, way, program, sizeof program);
    (void)snprintf(path, sizeof path, "%s", database);
    (void)snprintf(numbers[0], sizeof numbers[0], "%u", threads);
    (void)snprintf(numbers[1], sizeof numbers[1], "%llu", (unsigned long long)settings->rows);
    (void)snprintf(numbers[2], sizeof numbers[2], "%g", settings->seconds);
    (void)snprintf(numbers[3], sizeof numbers[3], "%u", thr_stmt_connections(settings, threads));
    if (run(argv, true, answer, sizeof answer) != 0)
        return "a peer failed";
    for (int i = 0; i < 3; i++, at = end)
        figure[i] = strtod(at, &end);
    if (figure[0] <= 0 || figure[2] <= 0)
        return "a peer has not said what it did";
    out->figure[THR_STMT_PER_SECOND] = figure[0] / figure[2];
    out->figure[THR_STMT_CPU_NS] = figure[1] / figure[0];
    out->figure[THR_STMT_SECONDS] = figure[2];
    out->figure[THR_STMT_CONTENDED] = (double)NAN;
    return NULL;
}
