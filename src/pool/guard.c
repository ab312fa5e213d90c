/* What bounds an execution: a deadline, a cancel token, and those of the transaction around it.
 *
 * The driver is told in `limits`, which also forgets interrupts from before; only then the tokens are registered. A token
 * that fires earlier is seen when it is registered, one that fires later interrupts: none gets lost in between. Where
 * there are no bounds, and there were none before, nothing is done at all.
 *
 * SPDX-License-Identifier: MIT */
#include "pool.h"

static void stop_connection(void *arg)
{
    struct thr_slot *slot = arg;

    slot->driver->interrupt(slot->conn);
}

THR_COLD static void tell_driver(struct thr_slot *slot, struct thr_guard *guard)
{
    bool interruptible = guard != NULL && (guard->cancel[0] != NULL || guard->cancel[1] != NULL);

    slot->driver->limits(slot->conn, guard != NULL ? guard->deadline_ns : 0, interruptible);
    slot->guard_now = guard;
}

int thr_guard_begin(struct thr_slot *slot, struct thr_guard *guard, uint64_t deadline_ns, throng_cancel *cancel,
                    throng_error *err)
{
    throng_cancel *tx_cancel = slot->tx_cancel;

    guard->is_set = false;
    deadline_ns = thr_earlier(deadline_ns, slot->tx_deadline_ns);
    if (deadline_ns == 0 && cancel == NULL && tx_cancel == NULL) {
        if (slot->guard_now != NULL)
            tell_driver(slot, NULL);
        return THRONG_OK;
    }
    guard->deadline_ns = deadline_ns;
    guard->cancel[0] = cancel;
    guard->cancel[1] = tx_cancel == cancel ? NULL : tx_cancel;
    tell_driver(slot, guard);
    for (int i = 0; i < 2; i++) {
        guard->registration[i].stop = stop_connection;
        guard->registration[i].arg = slot;
        if (guard->cancel[i] != NULL && !thr_cancel_register(guard->cancel[i], &guard->registration[i])) {
            guard->cancel[i] = NULL;
            if (i == 0)
                guard->cancel[1] = NULL;
            guard->is_set = true;
            thr_guard_end(slot, guard);
            return thr_error_plain(err, THRONG_CANCELED);
        }
    }
    guard->is_set = true;
    if (thr_limits_check(deadline_ns, NULL, err) != THRONG_OK) {
        thr_guard_end(slot, guard);
        return THRONG_TIMEOUT;
    }
    return THRONG_OK;
}

void thr_guard_resume(struct thr_slot *slot, struct thr_guard *guard)
{
    if (!guard->is_set)
        guard = NULL;
    if (slot->guard_now == guard)
        return;
    tell_driver(slot, guard);
    for (int i = 0; guard != NULL && i < 2; i++) {
        if (guard->cancel[i] != NULL && thr_cancel_ask(guard->cancel[i])) /* that was forgotten just now */
            slot->driver->interrupt(slot->conn);
    }
}

int thr_guard_again(struct thr_slot *slot, struct thr_guard *guard, throng_error *err)
{
    if (slot->guard_now != guard)
        thr_guard_resume(slot, guard);
    if (!guard->is_set)
        return THRONG_OK;
    for (int i = 0; i < 2; i++) {
        if (guard->cancel[i] != NULL && thr_cancel_ask(guard->cancel[i]))
            return thr_error_plain(err, THRONG_CANCELED);
    }
    return thr_limits_check(guard->deadline_ns, NULL, err);
}

void thr_guard_end(struct thr_slot *slot, struct thr_guard *guard)
{
    bool fired = false;

    for (int i = 0; i < 2; i++) {
        if (guard->cancel[i] != NULL)
            fired |= thr_cancel_unregister(guard->cancel[i], &guard->registration[i]);
        guard->cancel[i] = NULL;
    }
    guard->is_set = false;
    if (fired)
        slot->suspect = true;
    if (slot->guard_now != guard)
        return;
    if (slot->dead)
        slot->guard_now = NULL;
    else
        tell_driver(slot, NULL); /* nothing outlives it, an interrupt included */
}
