/* SQLite's interface, for code that is built twice: into the library, which links SQLite, and into the extension,
 * which uses the SQLite of the program that loads it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_API_H
#define THR_API_H

#ifdef THR_EXTENSION
#include <sqlite3ext.h>
extern const sqlite3_api_routines *sqlite3_api;
#else
#include <sqlite3.h>
#endif

#endif
