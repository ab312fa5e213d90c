/* The sub-commands of `throng`. Each gets its own name as argv[0] and returns an exit code.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_H
#define THR_CLI_H

enum thr_exit {
    THR_EXIT_OK = 0,
    THR_EXIT_FAILED = 1, /* it ran, and something was wrong: an error, a database that is not whole */
    THR_EXIT_USAGE = 2,  /* it did not run */
    THR_EXIT_INTERRUPTED = 130
};

int thr_cli_bench(int argc, char **argv);
int thr_cli_recover(int argc, char **argv); /* recover, detach */

#endif
