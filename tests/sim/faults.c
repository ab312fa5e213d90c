/* SPDX-License-Identifier: MIT */
#include "faults.h"

#include <errno.h>
#include <sqlite3.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "instrument.h"
#include "os.h"
#include "point.h"
#include "schedule.h"
#undef free
#undef calloc
#undef realloc

/* --- errors --- */

static int armed;
static uint32_t left, goes_on, hits;

void fault_arm(int kind, uint32_t after, uint32_t every)
{
    armed = kind;
    left = after;
    goes_on = every;
    hits = 0;
}

void fault_disarm(void)
{
    armed = FAULT_NOTHING;
}

uint32_t fault_hits(void)
{
    return hits;
}

static bool strikes(void)
{
    if (left > 1) {
        left--;
        return false;
    }
    if (left == 0)
        return false;
    left = goes_on;
    hits++;
    return true;
}

static int check(enum thr_os_call call, const char *path)
{
    static const int ERRORS[THR_OS_CALL_COUNT] = {
        [THR_OS_OPEN] = EIO,     [THR_OS_STAT] = EIO,        [THR_OS_READ] = EIO,      [THR_OS_WRITE] = ENOSPC,
        [THR_OS_TRUNCATE] = EIO, [THR_OS_ALLOCATE] = ENOSPC, [THR_OS_SYNC] = EIO,      [THR_OS_MAP] = ENOMEM,
        [THR_OS_UNLINK] = EIO,   [THR_OS_MKDIR] = EIO,       [THR_OS_RMDIR] = EIO,     [THR_OS_RENAME] = EIO,
        [THR_OS_LIST] = EIO,     [THR_OS_LOCK] = EIO,        [THR_OS_MEMORY] = ENOMEM,
    };
    static const char *const CALLS[THR_OS_CALL_COUNT] = {
        [THR_OS_OPEN] = "an open fails",        [THR_OS_STAT] = "a stat fails",
        [THR_OS_READ] = "a read fails",         [THR_OS_WRITE] = "a write fails",
        [THR_OS_TRUNCATE] = "a truncate fails", [THR_OS_ALLOCATE] = "an allocate fails",
        [THR_OS_SYNC] = "a sync fails",         [THR_OS_MAP] = "a map fails",
        [THR_OS_UNLINK] = "an unlink fails",    [THR_OS_MKDIR] = "a mkdir fails",
        [THR_OS_RMDIR] = "a rmdir fails",       [THR_OS_RENAME] = "a rename fails",
        [THR_OS_LIST] = "a list fails",         [THR_OS_LOCK] = "a lock fails",
        [THR_OS_MEMORY] = "no memory",
    };
    bool counts = false;

    (void)path;
    if (call != THR_OS_MEMORY)
        sim_switch();
    switch (armed) {
    case FAULT_MEMORY:
        counts = call == THR_OS_MEMORY;
        break;
    case FAULT_WRITE:
        counts = call == THR_OS_WRITE;
        break;
    case FAULT_ANY_CALL:
        counts = call != THR_OS_MEMORY;
        break;
    case FAULT_SYNC:
        counts = call == THR_OS_SYNC;
        break;
    case FAULT_SPACE:
        counts = call == THR_OS_WRITE || call == THR_OS_ALLOCATE;
        break;
    default:
        break;
    }
    if (!counts || !strikes())
        return 0;
    sched_note(CALLS[call]);
    return armed == FAULT_WRITE && (hits & 1) != 0 ? -EIO : ERRORS[call];
}

static void point(const char *name)
{
    (void)name;
    sim_switch();
}

int (*thr_fault_check)(enum thr_os_call call, const char *path_or_null) = check;
void (*thr_point_hook)(const char *name) = point;

/* --- the arena --- */

enum { HEADER = 64, CLASSES = 72, SMALL_CLASSES = 64 }; /* multiples of 64 bytes up to 4 KiB, then powers of 2 */
static const size_t ARENA_BYTES = (size_t)1 << 32;

struct block {
    size_t bytes; /* that can be used */
    int class;
    struct block *next; /* when it is free */
};

static unsigned char *arena;
static size_t used, kept;
static struct block *unused[CLASSES + 1];

static int class_of(size_t bytes, size_t *rounded_out)
{
    size_t size = 8192;
    int class = SMALL_CLASSES;

    if (bytes <= (size_t)SMALL_CLASSES * 64) {
        class = bytes == 0 ? 0 : (int)((bytes - 1) / 64);
        *rounded_out = (size_t)(class + 1) * 64;
        return class;
    }
    while (size < bytes && class < CLASSES) {
        size *= 2;
        class ++;
    }
    *rounded_out = size < bytes ? (bytes + 63) & ~(size_t)63 : size;
    return class;
}

static void *take(size_t bytes)
{
    size_t size;
    int class = class_of(bytes, &size);
    struct block *block = unused[class];

    if (block != NULL && block->bytes >= size) {
        unused[class] = block->next;
    } else {
        if (used + HEADER + size > ARENA_BYTES)
            return NULL;
        block = (struct block *)(void *)(arena + used);
        used += HEADER + size;
        block->bytes = size;
        block->class = class;
    }
    return (unsigned char *)block + HEADER;
}

static struct block *block_of(void *p)
{
    return (struct block *)(void *)((unsigned char *)p - HEADER);
}

void *sim_alloc_zeroed(size_t bytes)
{
    void *p = take(bytes);

    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

void sim_free(void *p)
{
    struct block *block;

    if (p == NULL)
        return;
    block = block_of(p);
    memset(p, 0xa5, block->bytes < 256 ? block->bytes : 256); /* whoever still uses it is to notice */
    block->next = unused[block->class];
    unused[block->class] = block;
}

void *sim_realloc(void *old, size_t bytes)
{
    void *p;

    if (old != NULL && bytes <= block_of(old)->bytes)
        return old;
    if ((p = take(bytes)) == NULL || old == NULL)
        return p;
    memcpy(p, old, block_of(old)->bytes);
    sim_free(old);
    return p;
}

static void *sqlite_take(int bytes)
{
    if (armed == FAULT_SQLITE_MEMORY && sched_self() >= 0 && strikes()) {
        sched_note("no memory for SQLite");
        return NULL;
    }
    return take((size_t)bytes);
}

static void *sqlite_realloc(void *old, int bytes)
{
    if (armed == FAULT_SQLITE_MEMORY && sched_self() >= 0 && strikes())
        return NULL;
    return sim_realloc(old, (size_t)bytes);
}

static int sqlite_size(void *p)
{
    return p == NULL ? 0 : (int)block_of(p)->bytes;
}

static int sqlite_round(int bytes)
{
    size_t rounded;

    (void)class_of((size_t)bytes, &rounded);
    return (int)rounded;
}

static int sqlite_begin(void *context)
{
    (void)context;
    return SQLITE_OK;
}

static void sqlite_end(void *context)
{
    (void)context;
}

void memory_setup(void)
{
    static const sqlite3_mem_methods METHODS = {sqlite_take,  sim_free,     sqlite_realloc, sqlite_size,
                                                sqlite_round, sqlite_begin, sqlite_end,     NULL};

    arena = mmap((void *)(uintptr_t)0x200000000000, ARENA_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        sim_failed("no memory");
    (void)sqlite3_config(SQLITE_CONFIG_MALLOC, &METHODS);
}

void memory_mark(void)
{
    kept = used;
    memset(unused, 0, sizeof unused);
}

void memory_reset(void)
{
    used = kept;
    memset(unused, 0, sizeof unused);
}
