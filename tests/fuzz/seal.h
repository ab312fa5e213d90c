/* Make the checksums of a log segment right again after its bytes have changed, so that what lies behind them is tried,
 * too.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_SEAL_H
#define FUZZ_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the record at `at` ends. A size that makes no sense becomes that of all the rest. 0: no record. */
size_t seal_record_end(uint8_t *segment, size_t bytes, size_t at);
/* Where the first record is, or would be; at most `bytes`. */
size_t seal_records_at(const uint8_t *segment, size_t bytes);
/* The head with its runs, and all records in turn. `keep_order`: the records get the sequences and the salt that their
 * segment gives them. */
void seal_segment(uint8_t *segment, size_t bytes, bool keep_order);
/* A `horizon` file. */
void seal_horizon(uint8_t *at, size_t bytes);

#endif
