/* The directory in which an input becomes files: its own, on tmpfs.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_WORK_H
#define FUZZ_WORK_H

#include <stddef.h>
#include <stdint.h>

/* Say what is wrong and abort, so that libFuzzer keeps the input. */
#define FUZZ_CHECK(condition, ...)                                  \
    do {                                                            \
        if (!(condition))                                           \
            work_fail(__FILE__, __LINE__, #condition, __VA_ARGS__); \
    } while (0)
_Noreturn void work_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The directory's name in every process: the log of a commit of several databases names their directories. */
#define WORK_FD 900
#define WORK "/proc/self/fd/900"

/* Make the directory, below $TMPDIR or /dev/shm, and remove it at exit. No file may grow beyond `file_max`. */
void work_begin(size_t file_max);
const char *work_directory(void);

/* Before each input: libFuzzer takes it for an error when a file cannot grow. */
void work_input(void);

/* Make `path` this file, in place if it is there. `zeros` zero bytes follow. */
void work_write(const char *path, const uint8_t *content, size_t bytes, size_t zeros);
/* The whole file, or NULL if there is none. The caller frees it. */
uint8_t *work_read(const char *path, size_t *bytes_out);
/* Remove the file, or the directory with everything in it, if it is there. */
void work_remove(const char *path);
/* A number for what `path` is: its kind, names and bytes. Equal for equal trees. */
uint64_t work_hash(const char *path);

#endif
