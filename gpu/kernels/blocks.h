/* SPDX-License-Identifier: MIT
 *
 * Weight blocks on the device in the canonical form of engine/base/types.h. Of each type two functions: ht_block_TYPE
 * takes block b (32 weights) of a row apart into words of four signed bytes, scales and minima; ht_at_TYPE is weight i of
 * a row, bit for bit as ht_type_dequant has it.
 *
 * What else there is of quantised types is held in the canonical form itself, which loses nothing:
 *   canon      float d | int16 sc[2] | int8 q[32]                                   40 bytes
 *   canon_min  float d | float dm | int16 sc[2] | int16 mn[2] | int8 q[32]          48 bytes */
#ifndef HT_GPU_BLOCKS_H
#define HT_GPU_BLOCKS_H

#include "gpu/kernels/math.h"

typedef struct block32 {
    uint32_t q[8]; /* four signed bytes each, the first lowest */
    float d, dm;
    int32_t sc[2], mn[2];
} block32;

FN uint32_t ht_ld16(GLOBAL const uint8_t *p) { return *(GLOBAL const uint16_t *)p; }
FN uint32_t ht_ld32(GLOBAL const uint8_t *p) { return *(GLOBAL const uint32_t *)p; } /* aligned */
FN uint32_t ht_ld32_of2(GLOBAL const uint8_t *p) { return ht_ld16(p) | ht_ld16(p + 2) << 16; }
FN uint32_t ht_ld32_of1(GLOBAL const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
FN float ht_ldf(GLOBAL const uint8_t *p) { return ht_f32_from_bits(ht_ld32(p)); }

/* Four bytes below 128, each less c. */
FN uint32_t ht_less(uint32_t v, uint32_t c) { return ((v | 0x80808080u) - c * 0x01010101u) ^ 0x80808080u; }

FN float ht_scaled(float d, int32_t sc, int32_t q) { return d * (float)sc * (float)q; }

/* ---- Q4_0, Q8_0 ---- */

FN void ht_block_q4_0(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)b * 18;
    o->d = half_at(p);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t v = ht_ld32_of2(p + 2 + 4 * i);
        o->q[i] = ht_less(v & 0x0f0f0f0fu, 8);
        o->q[i + 4] = ht_less(v >> 4 & 0x0f0f0f0fu, 8);
    }
    o->sc[0] = o->sc[1] = 1;
}

FN float ht_at_q4_0(GLOBAL const uint8_t *row, uint32_t i)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(i / 32) * 18;
    const uint32_t l = i % 32;
    return ht_scaled(half_at(p), 1, (int32_t)(p[2 + l % 16] >> (l < 16 ? 0 : 4) & 15) - 8);
}

FN void ht_block_q8_0(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)b * 34;
    o->d = half_at(p);
    for (uint32_t i = 0; i < 8; i++)
        o->q[i] = ht_ld32_of2(p + 2 + 4 * i);
    o->sc[0] = o->sc[1] = 1;
}

FN float ht_at_q8_0(GLOBAL const uint8_t *row, uint32_t i)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(i / 32) * 34;
    return ht_scaled(half_at(p), 1, (int8_t)p[2 + i % 32]);
}

/* ---- Q4_K, Q5_K, Q6_K ---- */

/* Scale (which: 0) or minimum (1) of block j of eight. */
FN int32_t ht_k_scale(GLOBAL const uint8_t *s, uint32_t j, uint32_t which)
{
    if (j < 4)
        return s[j + 4 * which] & 63;
    return (which ? s[j + 4] >> 4 : s[j + 4] & 15) | s[j - 4 + 4 * which] >> 6 << 4;
}

FN void ht_k_scales(GLOBAL const uint8_t *p, uint32_t j, block32 *o)
{
    o->d = half_at(p);
    o->dm = -half_at(p + 2);
    o->sc[0] = o->sc[1] = ht_k_scale(p + 4, j, 0);
    o->mn[0] = o->mn[1] = ht_k_scale(p + 4, j, 1);
}

FN void ht_block_q4_k(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(b / 8) * 144;
    const uint32_t j = b % 8;
    ht_k_scales(p, j, o);
    for (uint32_t i = 0; i < 8; i++)
        o->q[i] = ht_ld32(p + 16 + 32 * (j / 2) + 4 * i) >> (4 * (j & 1)) & 0x0f0f0f0fu;
}

FN float ht_with_min(const block32 *o, int32_t q)
{
    return o->d * (float)o->sc[0] * (float)q + o->dm * (float)o->mn[0];
}

FN float ht_at_q4_k(GLOBAL const uint8_t *row, uint32_t i)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(i / 256) * 144;
    const uint32_t j = i / 32 % 8;
    block32 o;
    ht_k_scales(p, j, &o);
    return ht_with_min(&o, p[16 + 32 * (j / 2) + i % 32] >> (4 * (j & 1)) & 15);
}

FN void ht_block_q5_k(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(b / 8) * 176;
    const uint32_t j = b % 8;
    ht_k_scales(p, j, o);
    for (uint32_t i = 0; i < 8; i++)
        o->q[i] = (ht_ld32(p + 48 + 32 * (j / 2) + 4 * i) >> (4 * (j & 1)) & 0x0f0f0f0fu) |
                  (ht_ld32(p + 16 + 4 * i) >> j & 0x01010101u) << 4;
}

FN float ht_at_q5_k(GLOBAL const uint8_t *row, uint32_t i)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(i / 256) * 176;
    const uint32_t j = i / 32 % 8, l = i % 32;
    block32 o;
    ht_k_scales(p, j, &o);
    return ht_with_min(&o, (p[48 + 32 * (j / 2) + l] >> (4 * (j & 1)) & 15) | (p[16 + l] >> j & 1) << 4);
}

FN void ht_block_q6_k(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(b / 8) * 210;
    const uint32_t i = b % 8, n = i / 4, j = i % 4;
    o->d = half_at(p + 208);
    o->sc[0] = (int8_t)p[192 + 2 * i];
    o->sc[1] = (int8_t)p[193 + 2 * i];
    for (uint32_t l = 0; l < 8; l++) {
        const uint32_t lo = ht_ld32_of2(p + 64 * n + 32 * (j & 1) + 4 * l) >> (4 * (j / 2)) & 0x0f0f0f0fu;
        const uint32_t hi = ht_ld32_of2(p + 128 + 32 * n + 4 * l) >> (2 * j) & 0x03030303u;
        o->q[l] = ht_less(lo | hi << 4, 32);
    }
}

FN float ht_at_q6_k(GLOBAL const uint8_t *row, uint32_t at)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(at / 256) * 210;
    const uint32_t i = at / 32 % 8, n = i / 4, j = i % 4, l = at % 32;
    const int32_t q = (p[64 * n + 32 * (j & 1) + l] >> (4 * (j / 2)) & 15) | (p[128 + 32 * n + l] >> (2 * j) & 3) << 4;
    return ht_scaled(half_at(p + 208), (int8_t)p[192 + 2 * i + l / 16], q - 32);
}

/* ---- MXFP4 ---- */

/* Twice the value of a code of 4 bits: 0 1 2 3 4 6 8 12, bit 3 is the sign. */
FN int32_t ht_fp4(uint32_t c)
{
    const int32_t v = (int32_t)((c & 4 ? 0x0c080604u : 0x03020100u) >> (8 * (c & 3)) & 255);
    return c & 8 ? -v : v;
}

FN float ht_mxfp4_d(uint32_t e) { return ht_f32_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

FN uint32_t ht_fp4_word(uint32_t v)
{
    uint32_t r = 0;
    for (uint32_t i = 0; i < 32; i += 8)
        r |= ((uint32_t)ht_fp4(v >> i & 15) & 255) << i;
    return r;
}

FN void ht_block_mxfp4(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)b * 17;
    o->d = ht_mxfp4_d(p[0]);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t v = ht_ld32_of1(p + 1 + 4 * i);
        o->q[i] = ht_fp4_word(v);
        o->q[i + 4] = ht_fp4_word(v >> 4);
    }
    o->sc[0] = o->sc[1] = 1;
}

FN float ht_at_mxfp4(GLOBAL const uint8_t *row, uint32_t i)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(i / 32) * 17;
    const uint32_t l = i % 32;
    return ht_scaled(ht_mxfp4_d(p[0]), 1, ht_fp4(p[1 + l % 16] >> (l < 16 ? 0 : 4) & 15));
}

/* ---- the canonical form itself ---- */

FN int32_t ht_i16_of(uint32_t two, uint32_t i) { return (int16_t)(two >> (16 * i) & 0xffff); }

FN void ht_block_canon(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)b * 40;
    const uint32_t sc = ht_ld32(p + 4);
    o->d = ht_ldf(p);
    for (uint32_t i = 0; i < 2; i++)
        o->sc[i] = ht_i16_of(sc, i);
    for (uint32_t i = 0; i < 8; i++)
        o->q[i] = ht_ld32(p + 8 + 4 * i);
}

FN float ht_at_canon(GLOBAL const uint8_t *row, uint32_t i)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(i / 32) * 40;
    return ht_scaled(ht_ldf(p), ht_i16_of(ht_ld32(p + 4), i / 16 % 2), (int8_t)p[8 + i % 32]);
}

FN void ht_block_canon_min(GLOBAL const uint8_t *row, uint32_t b, block32 *o)
{
    GLOBAL const uint8_t *p = row + (uint64_t)b * 48;
    const uint32_t sc = ht_ld32(p + 8), mn = ht_ld32(p + 12);
    o->d = ht_ldf(p);
    o->dm = ht_ldf(p + 4);
    for (uint32_t i = 0; i < 2; i++) {
        o->sc[i] = ht_i16_of(sc, i);
        o->mn[i] = ht_i16_of(mn, i);
    }
    for (uint32_t i = 0; i < 8; i++)
        o->q[i] = ht_ld32(p + 16 + 4 * i);
}

FN float ht_at_canon_min(GLOBAL const uint8_t *row, uint32_t i)
{
    GLOBAL const uint8_t *p = row + (uint64_t)(i / 32) * 48;
    const uint32_t h = i / 16 % 2;
    const float m = ht_ldf(p + 4) * (float)ht_i16_of(ht_ld32(p + 12), h);
    return ht_ldf(p) * (float)ht_i16_of(ht_ld32(p + 8), h) * (float)(int8_t)p[16 + i % 32] + m;
}

/* ---- floats ---- */

FN float ht_at_f32(GLOBAL const uint8_t *row, uint32_t i) { return ((GLOBAL const float *)row)[i]; }
FN float ht_at_f16(GLOBAL const uint8_t *row, uint32_t i) { return half_at(row + (uint64_t)i * 2); }
FN float ht_at_bf16(GLOBAL const uint8_t *row, uint32_t i)
{
    return ht_f32_from_bits(ht_ld16(row + (uint64_t)i * 2) << 16);
}

#endif
