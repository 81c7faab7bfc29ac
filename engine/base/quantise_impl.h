/* SPDX-License-Identifier: MIT
 *
 * What quantise*.c share: one function per type that encodes one block (src: finite values), and small helpers.
 *
 * Owner: no state. Threads: any. */
#ifndef HT_BASE_QUANTISE_IMPL_H
#define HT_BASE_QUANTISE_IMPL_H

#include <stdbool.h>
#include <string.h>

#include "engine/base/types.h"

typedef void ht_quantise_fn(const float *src, uint8_t *dst);

/* quantise_k.c: scale searches */
ht_quantise_fn ht_quantise_q2_k, ht_quantise_q3_k, ht_quantise_q4_k, ht_quantise_q5_k, ht_quantise_q6_k,
    ht_quantise_iq4_nl, ht_quantise_iq4_xs, ht_quantise_q2_k_coarse, ht_quantise_q3_k_coarse, ht_quantise_q4_k_coarse,
    ht_quantise_q5_k_coarse, ht_quantise_q6_k_coarse;

static inline float ht_abs(float v)
{
    return v < 0.0f ? -v : v;
}

static inline float ht_clamp(float v, float lo, float hi)
{
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

/* Nearest integer as a float, ties to even, for |v| < 2^22: adding 1.5 * 2^23 pushes the fraction out of the
 * mantissa. */
static inline float ht_round(float v)
{
    return (v + 12582912.0f) - 12582912.0f;
}

/* Little-endian hosts only, as everywhere. */
static inline void ht_put16(uint8_t *p, uint32_t v)
{
    uint16_t h = (uint16_t)v;
    memcpy(p, &h, 2);
}

/* Stores a scale as f16, at most the largest finite one: an infinite scale would make NaN of every zero. Returns the
 * value stored. */
static inline float ht_put_f16(uint8_t *p, float v)
{
    uint16_t h = ht_f32_to_f16(ht_clamp(v, -65504.0f, 65504.0f));
    ht_put16(p, h);
    return ht_f16_to_f32(h);
}

#endif
