/* Rows: the open execution of one entry. Whoever has an old handle is told so: the entry's serial has moved on.
 *
 * SPDX-License-Identifier: MIT */
#include "fast.h"

static struct thr_entry *entry_of(const throng_rows *rows)
{
    struct thr_entry *entry = rows->entry;

    return entry != NULL && thr_read(&entry->serial) == rows->serial ? entry : NULL;
}

/* The rows end with `code`, which has been told; and with what the end says, if that was none. */
THR_HOT static int end(throng_rows *rows, struct thr_entry *entry, int code, throng_error *err)
{
    struct thr_slot *slot = entry->slot;
    bool owns_lease = entry->owns_lease;
    int closed = thr_run_close(entry, code == THRONG_OK ? err : NULL);

    if (code == THRONG_OK)
        code = closed;
    if (owns_lease) {
        closed = thr_lease_end(slot, code == THRONG_OK ? err : NULL);
        if (code == THRONG_OK)
            code = closed;
    }
    if (code == THR_CONN_STALE)
        code = THRONG_CONN_LOST;
    rows->entry = NULL;
    rows->code = code;
    return code;
}

/* The handle's time is over: how did it end? */
THR_COLD static int ended(throng_rows *rows, throng_error *err)
{
    if (rows->entry != NULL) { /* closed with its transaction or connection */
        rows->entry = NULL;
        rows->code = THRONG_CLOSED;
    }
    if (rows->slot == NULL)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "these rows have never been open");
    if (rows->code != THRONG_OK)
        return thr_error_set(err, rows->code, 0, NULL, "the rows have ended before: %s", throng_code_text(rows->code));
    return THRONG_OK;
}

/* Its time has come (`code`, which has been told). What only reads just ends. What writes is undone if that can be, else it
 * comes to its end: that is what the caller is told. */
THR_COLD static int stop(throng_rows *rows, struct thr_entry *entry, int code, throng_error *err)
{
    struct thr_slot *slot = entry->slot;
    throng_error other;
    int undone;

    if (!entry->info.writes)
        return end(rows, entry, code, err);
    undone = slot->driver->undo(slot->conn, entry->stmt, &other);
    if (undone == THRONG_OK)
        return end(rows, entry, thr_lease_failed(slot, code), err);
    if (undone == THRONG_DONE)
        return (code = end(rows, entry, THRONG_OK, err)) == THRONG_OK ? THRONG_DONE : code;
    if (err != NULL)
        *err = other;
    return end(rows, entry, thr_lease_failed(slot, undone), err);
}

THR_HOT int throng_rows_next(throng_rows *rows, throng_error *err)
{
    struct thr_entry *entry = entry_of(rows);
    struct thr_slot *slot;
    int code;

    if (entry == NULL)
        return (code = ended(rows, err)) != THRONG_OK ? code : THRONG_DONE;
    slot = entry->slot;
    if (slot->dead)
        return end(rows, entry, thr_error_plain(err, THRONG_CONN_LOST), err);
    if (entry->pending != 0) {
        code = entry->pending;
        entry->pending = 0;
    } else {
        if (entry->guard.is_set || slot->guard_now != NULL) {
            if ((code = thr_guard_again(slot, &entry->guard, err)) != THRONG_OK)
                return stop(rows, entry, code, err);
        }
        code = slot->driver->next(slot->conn, entry->stmt, err);
    }
    if (code == THRONG_ROW)
        return code;
    if (code != THRONG_DONE)
        return end(rows, entry, thr_lease_failed(slot, code), err);
    code = end(rows, entry, THRONG_OK, err);
    return code == THRONG_OK ? THRONG_DONE : code;
}

THR_HOT int throng_rows_close(throng_rows *rows, throng_error *err)
{
    struct thr_entry *entry = entry_of(rows);

    if (entry != NULL)
        return end(rows, entry, THRONG_OK, err);
    return rows->slot == NULL ? THRONG_OK : ended(rows, err);
}

int throng_rows_columns(const throng_rows *rows)
{
    struct thr_entry *entry = entry_of(rows);

    return entry != NULL ? entry->driver->columns(entry->stmt) : 0;
}

const char *throng_rows_name(const throng_rows *rows, int column)
{
    struct thr_entry *entry = entry_of(rows);

    return entry != NULL ? entry->driver->name_of(entry->stmt, column) : NULL;
}

const char *throng_rows_decltype(const throng_rows *rows, int column)
{
    struct thr_entry *entry = entry_of(rows);

    return entry != NULL ? entry->driver->decltype_of(entry->stmt, column) : NULL;
}

enum throng_type throng_rows_type(const throng_rows *rows, int column)
{
    struct thr_entry *entry = entry_of(rows);

    return entry != NULL ? entry->driver->type(entry->stmt, column) : THRONG_NULL;
}

THR_HOT int64_t throng_rows_int(const throng_rows *rows, int column)
{
    struct thr_entry *entry = entry_of(rows);

    return entry != NULL ? entry->driver->integer(entry->stmt, column) : 0;
}

double throng_rows_real(const throng_rows *rows, int column)
{
    struct thr_entry *entry = entry_of(rows);

    return entry != NULL ? entry->driver->real(entry->stmt, column) : 0;
}

const char *throng_rows_text(const throng_rows *rows, int column, size_t *size_out)
{
    struct thr_entry *entry = entry_of(rows);
    size_t size = 0;
    const char *text = entry != NULL ? entry->driver->text(entry->stmt, column, &size) : NULL;

    if (size_out != NULL)
        *size_out = size;
    return text;
}

const void *throng_rows_blob(const throng_rows *rows, int column, size_t *size_out)
{
    struct thr_entry *entry = entry_of(rows);
    size_t size = 0;
    const void *blob = entry != NULL ? entry->driver->blob(entry->stmt, column, &size) : NULL;

    if (size_out != NULL)
        *size_out = size;
    return blob;
}
