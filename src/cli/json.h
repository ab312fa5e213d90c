/* Writes JSON, with the commas and the indentation in their places.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_CLI_JSON_H
#define THR_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct thr_json {
    FILE *to;
    unsigned depth;
    bool first; /* nothing yet at this depth */
};

/* `name` is NULL for the outermost value and inside arrays. */
void thr_json_open(struct thr_json *json, const char *name, char bracket); /* '{' or '[' */
void thr_json_close(struct thr_json *json, char bracket);                  /* '}' or ']' */
void thr_json_text(struct thr_json *json, const char *name, const char *value);
void thr_json_integer(struct thr_json *json, const char *name, int64_t value);
void thr_json_real(struct thr_json *json, const char *name, double value); /* null if it is not a number */
void thr_json_boolean(struct thr_json *json, const char *name, bool value);

#endif
