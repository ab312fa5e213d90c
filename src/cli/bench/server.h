/* `throng bench server`.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BENCH_SERVER_H
#define THR_BENCH_SERVER_H

int thr_bench_server(int argc, char **argv); /* an exit code */

#endif
