/* Command line options from a table.
 *
 * SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PART_MAX 64
#define HELP_COLUMN 26

static char message[256];

/* --- values --- */

bool thr_parse_flag(const char *text, void *target, const void *detail)
{
    (void)text;
    (void)detail;
    *(bool *)target = true;
    return true;
}

bool thr_parse_text(const char *text, void *target, const void *detail)
{
    (void)detail;
    *(const char **)target = text;
    return *text != '\0';
}

bool thr_parse_u64(const char *text, void *target, const void *detail)
{
    const struct thr_range *range = detail;
    unsigned long long value;
    char *end;

    if (*text < '0' || *text > '9')
        return false; /* strtoull() takes a minus sign */
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value < range->min || value > range->max)
        return false;
    *(uint64_t *)target = value;
    return true;
}

bool thr_parse_u32(const char *text, void *target, const void *detail)
{
    uint64_t value;

    if (!thr_parse_u64(text, &value, detail) || value > UINT32_MAX)
        return false;
    *(uint32_t *)target = (uint32_t)value;
    return true;
}

bool thr_parse_i64(const char *text, void *target, const void *detail)
{
    long long value;
    char *end;

    (void)detail;
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *(int64_t *)target = value;
    return true;
}

bool thr_parse_bytes(const char *text, void *target, const void *detail)
{
    unsigned long long value;
    unsigned shift = 0;
    char *end;

    (void)detail;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (*end == 'K' || *end == 'k')
        shift = 10;
    else if (*end == 'M' || *end == 'm')
        shift = 20;
    else if (*end == 'G' || *end == 'g')
        shift = 30;
    if (errno != 0 || end[shift > 0 ? 1 : 0] != '\0' || value > (uint64_t)(INT64_MAX >> shift))
        return false;
    *(int64_t *)target = (int64_t)(value << shift);
    return true;
}

bool thr_parse_real(const char *text, void *target, const void *detail)
{
    double value;
    char *end;

    (void)detail;
    value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0.05 && value <= 3600))
        return false;
    *(double *)target = value;
    return true;
}

bool thr_parse_choice(const char *text, void *target, const void *detail)
{
    for (const char *const *name = detail; *name != NULL; name++) {
        if (strcmp(text, *name) == 0) {
            *(const char **)target = *name;
            return true;
        }
    }
    return false;
}

bool thr_list_each(const char *text, bool (*fn)(void *ctx, const char *part), void *ctx)
{
    char part[PART_MAX];

    for (;;) {
        size_t length = strcspn(text, ",");

        if (length >= sizeof part)
            return false;
        memcpy(part, text, length);
        part[length] = '\0';
        if (!fn(ctx, part))
            return false;
        if (text[length] == '\0')
            return true;
        text += length + 1;
    }
}

/* --- the command line --- */

static const struct thr_option *option_find(const struct thr_option *options, size_t count, const char *name,
                                            size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return &options[i];
    }
    return NULL;
}

bool thr_options_parse(const struct thr_option *options, size_t count, int argc, char **argv, void *values,
                       bool *help_out, const char **message_out)
{
    *help_out = false;
    *message_out = message;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *text = NULL;
        const struct thr_option *option = NULL;
        size_t length;

        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            *help_out = true;
            return true;
        }
        if (strncmp(word, "--", 2) == 0) {
            length = strcspn(word + 2, "=");
            option = option_find(options, count, word + 2, length);
            text = word[2 + length] == '=' ? word + 2 + length + 1 : NULL;
        }
        if (option == NULL) {
            (void)snprintf(message, sizeof message, "there is no option \"%s\"", word);
            return false;
        }
        if (option->argument == NULL ? text != NULL : text == NULL && ++i == argc) {
            (void)snprintf(message, sizeof message, "--%s takes %s", option->name,
                           option->argument == NULL ? "no value" : option->wanted);
            return false;
        }
        if (option->argument != NULL && text == NULL)
            text = argv[i];
        if (!option->parse(text, (char *)values + option->offset, option->detail)) {
            (void)snprintf(message, sizeof message, "--%s takes %s, not \"%s\"", option->name, option->wanted, text);
            return false;
        }
    }
    return true;
}

void thr_options_help(FILE *to, const struct thr_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *line = options[i].help;
        int column = fprintf(to, "  --%s%s%s", options[i].name, options[i].argument != NULL ? " " : "",
                             options[i].argument != NULL ? options[i].argument : "");

        for (;;) {
            int length = (int)strcspn(line, "\n");

            if (column >= HELP_COLUMN) {
                (void)fputc('\n', to);
                column = 0;
            }
            fprintf(to, "%*s%.*s\n", HELP_COLUMN - column, "", length, line);
            column = 0;
            if (line[length] == '\0')
                break;
            line += length + 1;
        }
    }
}
