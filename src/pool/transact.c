/* throng_transact(): again, until it is committed or there is no point.
 *
 * SPDX-License-Identifier: MIT */
#include "../os/os.h"
#include "fast.h"

enum { ATTEMPTS = 100, CHANCES = 6, MIN_BACKOFF_NS = 20000, MAX_BACKOFF_NS = 20000000 };

static bool is_retryable(int code)
{
    return code == THRONG_CONFLICT || code == THRONG_BUSY;
}

/* Up to twice as long with each attempt, by chance: those who met do not meet again. */
static uint64_t backoff_ns(const struct throng_transact_options *options, uint32_t attempt)
{
    uint64_t most = options->max_backoff_ns != 0 ? options->max_backoff_ns : MAX_BACKOFF_NS;
    uint64_t span = options->min_backoff_ns != 0 ? options->min_backoff_ns : MIN_BACKOFF_NS, chance;

    for (uint32_t i = 1; i < attempt && span < most; i++)
        span = span < most / 2 ? span * 2 : most;
    if (span > most)
        span = most;
    thr_os_random(&chance, sizeof chance);
    return span == UINT64_MAX ? chance : chance % (span + 1);
}

static int wait_a_little(const struct throng_transact_options *options, uint32_t attempt, throng_error *err)
{
    uint64_t ns = backoff_ns(options, attempt), now = thr_os_now_ns();

    if (options->deadline_ns != 0 && thr_later(now, ns) >= options->deadline_ns)
        return thr_error_set(err, THRONG_TIMEOUT, 0, NULL, "the deadline passed after %u attempts", attempt);
    if (options->cancel == NULL)
        thr_os_sleep_ns(ns);
    else if (!thr_cancel_sleep(options->cancel, ns))
        return thr_error_plain(err, THRONG_CANCELED);
    return THRONG_OK;
}

/* Beside threads that never pause a transaction can lose every time. So after a few chances it begins as one that cannot. */
static uint32_t mode_of(const struct throng_transact_options *options, uint32_t attempt)
{
    return attempt > CHANCES && options->mode == THRONG_DEFERRED && options->read_only == 0 ? THRONG_IMMEDIATE
                                                                                            : options->mode;
}

/* *again: it was lost to somebody else. */
static int attempt_once(throng_db *db, const char *where, const struct throng_transact_options *options,
                        throng_transact_fn *fn, void *arg, uint32_t attempt, bool *again, throng_error *err)
{
    struct throng_tx_options tx_options = {.size = sizeof tx_options,
                                           .deadline_ns = options->deadline_ns,
                                           .cancel = options->cancel,
                                           .label = options->label,
                                           .mode = mode_of(options, attempt),
                                           .read_only = options->read_only};
    throng_tx tx, given;
    struct thr_slot *slot;
    int code = throng_db_begin_at(where, db, &tx_options, &tx, err), ended;

    *again = is_retryable(code);
    if (code != THRONG_OK)
        return code;
    slot = tx.slot;
    given = tx;
    thr_count(&slot->retries, attempt > 1);
    *err = (throng_error){.code = THRONG_OK, .position = -1};
    code = fn(&given, attempt, arg, err);
    if (code != THRONG_OK && err->code != code) { /* its own word for it: perhaps one of a function in here */
        if (code > 0 && code <= THRONG_CONN_LOST)
            (void)thr_error_plain(err, code);
        else if (err->code == THRONG_OK)
            (void)thr_error_set(err, code, 0, NULL, "the function of the transaction has returned %d", code);
    }
    ended = thr_tx_check(&tx, NULL);
    if (ended == THRONG_TX_DONE && thr_read(&slot->lease) != tx.lease)
        return code != THRONG_OK ? code
                                 : thr_error_set(err, THRONG_MISUSE, 0, NULL, "the function has ended the transaction");
    *again = is_retryable(code) || (slot->tx_again && (code != THRONG_OK || ended != THRONG_OK));
    if (code != THRONG_OK) {
        (void)throng_tx_rollback(&tx, NULL);
        return code;
    }
    code = throng_tx_commit(&tx, err);
    *again = *again || is_retryable(code);
    return code;
}

int throng_transact_at(const char *where, throng_db *db, const struct throng_transact_options *options,
                       throng_transact_fn *fn, void *arg, throng_error *err)
{
    static const struct throng_transact_options none = {.size = sizeof none};
    uint32_t attempts;
    throng_error own;

    if (options == NULL)
        options = &none;
    if (err == NULL)
        err = &own;
    if (options->size < sizeof *options)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "throng_transact_options.size is %zu, it must be %zu",
                             options->size, sizeof *options);
    if (options->mode > THRONG_EXCLUSIVE)
        return thr_error_set(err, THRONG_MISUSE, 0, NULL, "throng_transact_options.mode is %u, which there is not",
                             options->mode);
    attempts = options->max_attempts != 0 ? options->max_attempts : ATTEMPTS;
    for (uint32_t attempt = 1;; attempt++) {
        bool again;
        int code = attempt_once(db, where, options, fn, arg, attempt, &again, err);

        if (code == THRONG_OK || !again || attempt == attempts)
            return code == THRONG_OK || !again || is_retryable(code)
                       ? code
                       : thr_error_plain(err, THRONG_CONFLICT); /* the function has its own word for it */
        if ((code = wait_a_little(options, attempt, err)) != THRONG_OK)
            return code;
    }
}
