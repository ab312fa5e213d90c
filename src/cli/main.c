/* throng: the command. Each sub-command is a file of its own.
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "throng.h"

#include "cli.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

static const struct command commands[] = {
    {"bench", thr_cli_bench, "measure concurrent transactions, beside stock SQLite"},
    {"recover", thr_cli_recover, "bring a database to the state of its last commit, after a crash"},
    {"detach", thr_cli_recover, "leave a plain SQLite file, for stock SQLite or to copy it"},
};

static const size_t command_count = sizeof commands / sizeof commands[0];

static void print_help(FILE *to)
{
    fprintf(to, "throng: concurrent writers for one SQLite file\n"
                "\n"
                "usage: throng COMMAND [OPTIONS]\n"
                "       throng --help | --version\n"
                "\n"
                "commands:\n");
    for (size_t i = 0; i < command_count; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n"
                "`throng COMMAND --help` tells more about one. To use Throng itself, load the extension throng.so\n"
                "and open `file:app.db?vfs=throng`.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return THR_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return THR_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("throng %s\n", throng_version());
        return THR_EXIT_OK;
    }
    for (size_t i = 0; i < command_count; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "throng: there is no command \"%s\"; see throng --help\n", argv[1]);
    return THR_EXIT_USAGE;
}
