/* `throng bench`: one sub-command for each benchmark.
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "../cli.h"
#include "server.h"
#include "stmt.h"
#include "zombie.h"

static void print_help(FILE *to)
{
    fprintf(to, "usage: throng bench server | stmt | zombie [OPTIONS]\n"
                "\n"
                "benchmarks:\n"
                "  server     concurrent writers and readers in one process, beside stock SQLite\n"
                "  stmt       one prepared statement under many threads: the pool beside raw connections\n"
                "  zombie     short reads beside many schema changes: what SQLite's own mutexes cost\n"
                "\n"
                "`throng bench server --help` tells its options.\n");
}

int thr_cli_bench(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return THR_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return THR_EXIT_OK;
    }
    if (strcmp(argv[1], "server") == 0)
        return thr_bench_server(argc - 1, argv + 1);
    if (strcmp(argv[1], "stmt") == 0)
        return thr_bench_stmt(argc - 1, argv + 1);
    if (strcmp(argv[1], "zombie") == 0)
        return thr_bench_zombie(argc - 1, argv + 1);
    fprintf(stderr, "throng bench: there is no benchmark \"%s\"; see throng bench --help\n", argv[1]);
    return THR_EXIT_USAGE;
}
