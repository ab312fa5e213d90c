/* SQLite's allocator.
 *
 * mimalloc is opened at run time, not linked: linked, it would replace malloc() in the whole process, and the
 * system's allocator could not be measured beside it.
 *
 * SPDX-License-Identifier: MIT */
#include "alloc.h"

#include <dlfcn.h>
#include <sqlite3.h>
#include <stddef.h>
#include <string.h>

/* A cache line. Connections are often opened by one thread and used by others; without that, their small objects lie in the
 * lines of each other, and 2 threads on 2 connections took a tenth more time a query than 1 on 1. SQLite wants 8. */
#define ALIGNMENT 64

static void *(*mi_malloc_fn)(size_t);
static void *(*mi_realloc_fn)(void *, size_t);
static void (*mi_free_fn)(void *);
static size_t (*mi_usable_size_fn)(const void *);

static int mem_roundup(int bytes)
{
    return (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

static void *mem_malloc(int bytes)
{
    return mi_malloc_fn((size_t)mem_roundup(bytes));
}

static void mem_free(void *p)
{
    mi_free_fn(p);
}

static void *mem_realloc(void *p, int bytes)
{
    return mi_realloc_fn(p, (size_t)mem_roundup(bytes));
}

static int mem_size(void *p)
{
    return p == NULL ? 0 : (int)mi_usable_size_fn(p);
}

static int mem_init(void *ctx)
{
    (void)ctx;
    return SQLITE_OK;
}

static void mem_shutdown(void *ctx)
{
    (void)ctx;
}

/* ISO C has no conversion from an object pointer to a function pointer; POSIX promises that they look alike. */
static bool find_symbol(void *library, const char *name, void *fn_out, size_t bytes)
{
    void *symbol = dlsym(library, name);

    memcpy(fn_out, &symbol, bytes);
    return symbol != NULL;
}

bool thr_alloc_has_mimalloc(void)
{
#ifdef THR_HAVE_MIMALLOC
    return true;
#else
    return false;
#endif
}

const char *thr_alloc_use_mimalloc(void)
{
    static const char *const names[] = {"libmimalloc.so.2", "libmimalloc.so.3", "libmimalloc.so"};
    static const sqlite3_mem_methods methods = {mem_malloc,  mem_free, mem_realloc,  mem_size,
                                                mem_roundup, mem_init, mem_shutdown, NULL};
    void *library = NULL;

    for (size_t i = 0; library == NULL && i < sizeof names / sizeof names[0]; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return "libmimalloc is not installed";
    if (!find_symbol(library, "mi_malloc", &mi_malloc_fn, sizeof mi_malloc_fn) ||
        !find_symbol(library, "mi_realloc", &mi_realloc_fn, sizeof mi_realloc_fn) ||
        !find_symbol(library, "mi_free", &mi_free_fn, sizeof mi_free_fn) ||
        !find_symbol(library, "mi_usable_size", &mi_usable_size_fn, sizeof mi_usable_size_fn))
        return "libmimalloc lacks a function";
    return sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) == SQLITE_OK ? NULL : "SQLite refuses another allocator";
}

int thr_alloc_memstatus(bool on)
{
    return sqlite3_config(SQLITE_CONFIG_MEMSTATUS, on ? 1 : 0);
}
