/* Writes JSON.
 *
 * SPDX-License-Identifier: MIT */
#include "json.h"

#include <inttypes.h>
#include <math.h>

static void write_string(struct thr_json *json, const char *text)
{
    (void)fputc('"', json->to);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(json->to, "\\%c", c);
        else if (c < 0x20)
            fprintf(json->to, "\\u%04x", c);
        else
            (void)fputc(c, json->to);
    }
    (void)fputc('"', json->to);
}

static void new_line(struct thr_json *json)
{
    fprintf(json->to, "\n%*s", (int)(json->depth * 2), "");
}

static void begin_value(struct thr_json *json, const char *name)
{
    if (!json->first)
        (void)fputc(',', json->to);
    if (json->depth > 0)
        new_line(json);
    json->first = false;
    if (name != NULL) {
        write_string(json, name);
        (void)fputs(": ", json->to);
    }
}

void thr_json_open(struct thr_json *json, const char *name, char bracket)
{
    if (json->depth == 0)
        json->first = true;
    begin_value(json, name);
    (void)fputc(bracket, json->to);
    json->depth++;
    json->first = true;
}

void thr_json_close(struct thr_json *json, char bracket)
{
    json->depth--;
    if (!json->first)
        new_line(json);
    json->first = false;
    (void)fputc(bracket, json->to);
    if (json->depth == 0)
        (void)fputc('\n', json->to);
}

void thr_json_text(struct thr_json *json, const char *name, const char *value)
{
    begin_value(json, name);
    write_string(json, value);
}

void thr_json_integer(struct thr_json *json, const char *name, int64_t value)
{
    begin_value(json, name);
    fprintf(json->to, "%" PRId64, value);
}

void thr_json_real(struct thr_json *json, const char *name, double value)
{
    begin_value(json, name);
    if (isfinite(value))
        fprintf(json->to, "%.6g", value);
    else
        (void)fputs("null", json->to);
}

void thr_json_boolean(struct thr_json *json, const char *name, bool value)
{
    begin_value(json, name);
    (void)fputs(value ? "true" : "false", json->to);
}
