/* SPDX-License-Identifier: MIT
 *
 * What unpack*.c share: one function per type that writes the canonical form (types.h) of n_blocks blocks, the
 * tables they read, and small helpers. Written for the vectoriser: no branch depends on an element, inner loops run
 * over fixed counts.
 *
 * Owner: no state. Threads: any. */
#ifndef HT_BASE_UNPACK_IMPL_H
#define HT_BASE_UNPACK_IMPL_H

#include <string.h>

#include "engine/base/types.h"

typedef void ht_unpack_fn(const uint8_t *src, uint64_t n_blocks, const ht_canon *out);

/* unpack_iq.c */
ht_unpack_fn ht_unpack_iq2_xxs, ht_unpack_iq2_xs, ht_unpack_iq2_s, ht_unpack_iq3_xxs, ht_unpack_iq3_s, ht_unpack_iq1_s,
    ht_unpack_iq1_m, ht_unpack_iq4_nl, ht_unpack_iq4_xs, ht_unpack_mxfp4;

/* unpack_grids.c */
extern const uint64_t ht_grid_iq2_xxs[256], ht_grid_iq2_xs[512], ht_grid_iq2_s[1024], ht_grid_iq1[2048];
extern const uint32_t ht_grid_iq3_xxs[256], ht_grid_iq3_s[512];

/* unpack_iq.c; quantise reads them too */
extern const int8_t ht_values_iq4_nl[16], ht_values_mxfp4[16];

static inline uint32_t ht_load16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t ht_load32(const uint8_t *p)
{
    return ht_load16(p) | ht_load16(p + 2) << 16;
}

static inline float ht_load_f16(const uint8_t *p)
{
    return ht_f16_to_f32((uint16_t)ht_load16(p));
}

/* The 8 bits of b as 8 bytes of 0 or 1, lowest bit in the lowest byte. */
static inline uint64_t ht_spread_bits(uint32_t b)
{
    uint64_t t = (b * 0x0101010101010101u) & 0x8040201008040201u; /* byte i keeps bit i, the rest is 0 */
    return ((t + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
}

/* Stores 8 bytes, lowest first. hearth runs on little-endian machines only, so this is a plain store. */
static inline void ht_store64(int8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

/* The scale that a sub-block of 32 has in both of its halves. */
static inline void ht_put_pair(int16_t *sc, int v)
{
    sc[0] = sc[1] = (int16_t)v;
}

#endif
