/* Throng: concurrent writers for one SQLite file.
 *
 * A VFS named "throng" for stock SQLite 3.40 or newer. Open a database with it
 * (`file:app.db?vfs=throng`, or sqlite3_open_v2(..., "throng")) and every connection may write at the same time;
 * see README.md for what each kind of transaction promises.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THRONG_H
#define THRONG_H

#ifdef __cplusplus
extern "C" {
#endif

#define THRONG_VERSION "0.1.0"

/* Register the VFS "throng" with the SQLite that this program is linked against. Call it once sqlite3_initialize()
 * may be called; a second call changes nothing but the default. If `make_default` is non-zero it becomes the VFS of
 * every sqlite3_open() that names none. Returns SQLITE_OK or the error code of sqlite3_vfs_register(). Thread-safe;
 * does not block. There is no way to unregister: open files refer to the VFS for as long as they live.
 *
 * A program that loads the extension (`.load throng`, sqlite3_load_extension()) does not call this. */
int throng_register(int make_default);

/* The version of the library that is loaded, THRONG_VERSION of its header. A static string. */
const char *throng_version(void);

/* File controls, for sqlite3_file_control(db, "main", op, argument).
 *
 * THRONG_FCNTL_SERVER_MODE, argument int *: set to 0 when the file is not under Throng's control (a temporary file),
 * to 1 when concurrent transactions are on within one process. SQLITE_OK.
 *
 * THRONG_FCNTL_FILEID, argument sqlite3_int64[2]: a 128-bit identity of the database file. Two connections that share
 * one state have the same identity, by whatever path they were opened; two different files never have. SQLITE_OK.
 *
 * THRONG_FCNTL_CHECKPOINT, argument int *: SQLITE_CHECKPOINT_PASSIVE, or _FULL, _RESTART, _TRUNCATE, which go past open
 * snapshots. Moves all commits of that database to its file, as PRAGMA wal_checkpoint does; sqlite3_wal_checkpoint_v2()
 * cannot, since SQLite asks no VFS when a database has no WAL of SQLite's own. Blocks. SQLITE_OK; SQLITE_LOCKED: the
 * connection is in a transaction on it; SQLITE_BUSY: some commits had to wait; SQLITE_FULL, SQLITE_IOERR_*.
 *
 * On a file of another VFS all give SQLITE_NOTFOUND. */
#define THRONG_FCNTL_SERVER_MODE 0x54480001
#define THRONG_FCNTL_FILEID 0x54480002
#define THRONG_FCNTL_CHECKPOINT 0x54480003

#ifdef __cplusplus
}
#endif

#endif
