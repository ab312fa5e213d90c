/* throng recover, throng detach: what the next open and the last close of a database would do, and a word about it.
 *
 * SPDX-License-Identifier: MIT */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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
    printf("usage: throng %s DATABASE\n\n", command);
    if (strcmp(command, "recover") == 0)
        printf(
            "After a crash: brings the commits that the directory DATABASE-journal holds to the database, removes the\n"
            "directory, and says how many there were. The next open with vfs=throng would do the same.\n");
    else
        printf("Leaves a plain SQLite file: brings all that DATABASE-journal holds to the database and removes the\n"
               "directory, so that stock SQLite opens it, or it can be copied. Nobody may have it open.\n");
    printf("\nexit status: 0 if it is a plain file now; 1 after an error: then nothing is lost; 2 for a wrong command "
           "line\n");
    return THR_EXIT_OK;
}

static int settle(const char *path)
{
    uint64_t began_ns = thr_clock_ns();
    struct stat status;
    sqlite3 *db = NULL;
    char *directory;
    int rc;

    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        fprintf(stderr, "throng: %s is a directory\n", path);
        return THR_EXIT_FAILED;
    }
    if ((directory = sqlite3_mprintf("%s-journal", path)) == NULL)
        return THR_EXIT_FAILED;
    rc = stat(path, &status) == 0 && stat(directory, &status) != 0;
    sqlite3_free(directory);
    if (rc) {
        printf("%s is a plain file already\n", path);
        return THR_EXIT_OK;
    }
    rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "throng");
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        fprintf(stderr, "throng: %s: %s\n", path, db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db));
    sqlite3_close(db);
    if (rc != SQLITE_OK)
        return THR_EXIT_FAILED;
    printf("%s is a plain file now (%.0f ms)\n", path, (double)(thr_clock_ns() - began_ns) / 1e6);
    return THR_EXIT_OK;
}

int thr_cli_recover(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return help(argv[0]);
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
