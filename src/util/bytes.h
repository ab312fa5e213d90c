/* Big-endian numbers, as SQLite's file format has them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef THR_BYTES_H
#define THR_BYTES_H

#include <stdint.h>

static inline uint32_t thr_get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void thr_put32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

#endif
