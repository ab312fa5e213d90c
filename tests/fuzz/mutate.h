/* Changes to an archive of log segments that get past the checksums.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Change `input` in place; returns its new size, at most `room`. */
size_t mutate_segments(uint8_t *input, size_t bytes, size_t room, unsigned seed);

#endif
