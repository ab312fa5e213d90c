/* Command line options from a table: one row an option, which also makes the help.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_OPTIONS_H
#define THR_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Turns the text into a value at `target`, which it owns afterwards. False: this is not what is wanted. `detail` is
 * the option's own. A string that is kept is the text itself, which lives in argv. */
typedef bool (*thr_option_parse)(const char *text, void *target, const void *detail);

struct thr_option {
    const char *name;     /* without the dashes */
    const char *argument; /* as in the help; NULL: it takes none */
    thr_option_parse parse;
    size_t offset; /* of the target in the struct of values */
    const void *detail;
    const char *wanted; /* what the value has to be, for the error message */
    const char *help;
};

/* Both `--name value` and `--name=value`. False: *message says what is wrong, in a static buffer. `--help` sets
 * *help_out and stops. */
bool thr_options_parse(const struct thr_option *options, size_t count, int argc, char **argv, void *values,
                       bool *help_out, const char **message_out);
void thr_options_help(FILE *to, const struct thr_option *options, size_t count);

struct thr_range {
    uint64_t min, max;
};

bool thr_parse_flag(const char *text, void *target, const void *detail);   /* bool: set to true */
bool thr_parse_text(const char *text, void *target, const void *detail);   /* const char * */
bool thr_parse_u32(const char *text, void *target, const void *detail);    /* uint32_t; struct thr_range */
bool thr_parse_u64(const char *text, void *target, const void *detail);    /* uint64_t; struct thr_range */
bool thr_parse_i64(const char *text, void *target, const void *detail);    /* int64_t, any */
bool thr_parse_bytes(const char *text, void *target, const void *detail);  /* int64_t; suffix K, M or G */
bool thr_parse_real(const char *text, void *target, const void *detail);   /* double, 0.05 to 3600 */
bool thr_parse_choice(const char *text, void *target, const void *detail); /* const char *; names, then NULL */

/* Call `fn` for each part of a list with commas; stops at the first false. An empty part is handed on as "". */
bool thr_list_each(const char *text, bool (*fn)(void *ctx, const char *part), void *ctx);

#endif
