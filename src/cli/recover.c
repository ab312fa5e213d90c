/* throng recover, throng detach: what the next open and the last close of a database would do, and a word about it.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "throng.h"

#include "cli.h"
#include "clock.h"

/* What the engine has to say goes to the user. */
static void on_log(void *ctx, int code, const char *message)
{
    (void)ctx;
    if (strncmp(message, "throng: ", 8) == 0)
        fprintf(code == SQLITE_NOTICE ? stdout : stderr, "%s\n", message);
}

static int help(const char *command)
{
    bool recover = strcmp(command, "recover") == 0;

    printf("usage: throng %s %sDATABASE\n\n", command, recover ? "[--without-log] " : "");
    if (recover)
        printf(
            "After a crash: brings the commits that the directory DATABASE-journal holds to the database, removes the\n"
            "directory, and says how many there were. The next open with vfs=throng would do the same.\n"
            "\n"
            "  --without-log  the directory is lost: go on with what is in the file. The latest commits are missing "
            "then,\n"
            "                 and it may be damaged: says what stock SQLite's integrity_check finds\n");
    else
        printf("Leaves a plain SQLite file: brings all that DATABASE-journal holds to the database and removes the\n"
               "directory, so that stock SQLite opens it, or it can be copied. Nobody may have it open.\n");
    printf("\nexit status: 0 if it is a plain file now; 1 after an error: then nothing is lost; 2 for a wrong command "
           "line\n");
    return THR_EXIT_OK;
}

/* Nothing stands beside the database? What cannot be looked at is not taken for absent. */
static bool is_alone(const char *path)
{
    char *directory = sqlite3_mprintf("%s-journal", path);
    struct stat status;
    bool alone = directory != NULL && lstat(directory, &status) != 0 && (errno == ENOENT || errno == ENOTDIR);

    sqlite3_free(directory);
    return alone;
}

static int settle(const char *path)
{
    uint64_t began_ns = thr_clock_ns();
    struct stat status;
    sqlite3 *db = NULL;
    bool plain;
    int rc;

    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        fprintf(stderr, "throng: %s is a directory\n", path);
        return THR_EXIT_FAILED;
    }
    plain = stat(path, &status) == 0 && is_alone(path);
    rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "throng");
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        fprintf(stderr, "throng: %s: %s\n", path, db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db));
    sqlite3_close(db);
    if (rc != SQLITE_OK)
        return THR_EXIT_FAILED;
    if (plain)
        printf("%s is a plain file already\n", path);
    else
        printf("%s is a plain file now (%.0f ms)\n", path, (double)(thr_clock_ns() - began_ns) / 1e6);
    return THR_EXIT_OK;
}

enum { HEADER_BYTES = 100, READ_VERSION_AT = 19, MARK = 0x80, SPAN_AT = 72, SPAN_BYTES = 20 };

/* What a file in use has behind its pages. A file that is shorter than it says stays as it is. */
static bool cut(int fd, uint64_t pages, uint64_t page_size)
{
    struct stat status;

    return fstat(fd, &status) == 0 &&
           ((uint64_t)status.st_size <= pages * page_size || ftruncate(fd, (off_t)(pages * page_size)) == 0);
}

/* Take off the mark by which the file says that it needs its log, and what belongs to it (DESIGN.md, "The mark"). */
static int clear_mark(const char *path)
{
    uint8_t header[HEADER_BYTES + 1];
    FILE *file = fopen(path, "r+b");
    uint64_t pages, page_size;
    bool done = false;

    if (file == NULL || fread(header, 1, sizeof header, file) != sizeof header ||
        memcmp(header, "SQLite format 3", 16) != 0) {
        fprintf(stderr, "throng: %s: %s\n", path, file == NULL ? strerror(errno) : "not a database");
    } else if ((header[READ_VERSION_AT] & MARK) == 0) {
        printf("%s does not need a log\n", path);
        done = true;
    } else {
        pages = header[HEADER_BYTES] == 0
                    ? 0 /* the first page stands in for a database without one */
                    : (uint64_t)header[28] << 24 | (uint64_t)header[29] << 16 | (uint64_t)header[30] << 8 | header[31];
        page_size = (uint64_t)header[16] << 8 | (uint64_t)header[17] << 16;
        header[READ_VERSION_AT] &= (uint8_t)~MARK;
        memset(header + SPAN_AT, 0, SPAN_BYTES);
        done = fseek(file, 0, SEEK_SET) == 0 && fwrite(header, 1, HEADER_BYTES, file) == HEADER_BYTES &&
               fflush(file) == 0 && cut(fileno(file), pages, page_size) && fsync(fileno(file)) == 0;
        if (!done)
            fprintf(stderr, "throng: %s: %s\n", path, strerror(errno));
    }
    if (file != NULL)
        (void)fclose(file);
    return done ? THR_EXIT_OK : THR_EXIT_FAILED;
}

static int on_finding(void *whole, int columns, char **values, char **names)
{
    (void)columns;
    (void)names;
    printf("integrity_check: %s\n", values[0]);
    *(bool *)whole = strcmp(values[0], "ok") == 0;
    return 0;
}

static int without_log(const char *path)
{
    sqlite3 *db = NULL;
    bool whole = false;
    int rc;

    if (!is_alone(path)) {
        fprintf(stderr,
                "throng: %s-journal is there, or cannot be looked at: recover the database with it, without "
                "--without-log. If that is refused, move it away first\n",
                path);
        return THR_EXIT_FAILED;
    }
    if (clear_mark(path) != THR_EXIT_OK)
        return THR_EXIT_FAILED;
    rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "PRAGMA integrity_check(20)", on_finding, &whole, NULL);
    if (rc != SQLITE_OK)
        fprintf(stderr, "throng: %s: %s\n", path, db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db));
    sqlite3_close(db);
    return rc == SQLITE_OK && whole ? THR_EXIT_OK : THR_EXIT_FAILED;
}

int thr_cli_recover(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return help(argv[0]);
    if (argc == 3 && strcmp(argv[0], "recover") == 0 && strcmp(argv[1], "--without-log") == 0)
        return without_log(argv[2]);
    if (argc != 2 || argv[1][0] == '-') {
        fprintf(stderr, "throng: %s wants the name of a database; see throng %s --help\n", argv[0], argv[0]);
        return THR_EXIT_USAGE;
    }
    sqlite3_config(SQLITE_CONFIG_LOG, on_log, NULL);
    if (throng_register(0) != SQLITE_OK) {
        fprintf(stderr, "throng: the VFS cannot be registered\n");
        return THR_EXIT_FAILED;
    }
    return settle(argv[1]);
}
