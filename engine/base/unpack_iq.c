/* SPDX-License-Identifier: MIT
 *
 * The canonical form of the IQ formats and MXFP4. Where a format multiplies by an odd number of halves, eighths and
 * so on, D takes the power of two and sc the odd integer, e.g. IQ2_XXS: d * (s + 0.5) * 0.25 = (d/8) * (2s + 1).
 * IQ1_S and IQ1_M add +-1/8 to grid values of -1, 0, 1: q = 8 * grid +- 1 with D = d/8.
 *
 * Signs: a magnitude byte g > 0 becomes (g ^ m) + s with s = 1, m = 0xff for minus, 8 bytes at a time in one word.
 * No carry leaves its byte, as g is never 0.
 *
 * Owner: no state. Threads: any. */
#include "engine/base/unpack_impl.h"

const int8_t ht_values_iq4_nl[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
const int8_t ht_values_mxfp4[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static void fill8(float *p, float v)
{
    for (int i = 0; i < 8; i++)
        p[i] = v;
}

static uint64_t apply_signs(uint64_t grid, uint32_t signs)
{
    uint64_t s = ht_spread_bits(signs);
    return (grid ^ s * 0xff) + s;
}

/* 7 stored signs; the eighth makes the number of minuses even */
static uint32_t eight_signs(uint32_t seven)
{
    return seven | (uint32_t)__builtin_parity(seven) << 7;
}

/* f16 d | 8 x (4 bytes of grid numbers, u32: 4 x 7 signs, 4 bits of scale) */
void ht_unpack_iq2_xxs(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 66) {
        int8_t *q = out->q + 256 * b;
        fill8(out->d + 8 * b, ht_load_f16(src) * 0.125f);
        for (int i = 0; i < 8; i++) {
            const uint8_t *p = src + 2 + 8 * i;
            uint32_t w = ht_load32(p + 4);
            ht_put_pair(out->sc + 16 * b + 2 * i, (int)(2 * (w >> 28) + 1));
            for (int j = 0; j < 4; j++, q += 8)
                ht_store64(q, apply_signs(ht_grid_iq2_xxs[p[j]], eight_signs(w >> (7 * j) & 127)));
        }
    }
}

/* f16 d | 32 x u16: 9 bits of grid number, 7 signs | 8 bytes: lo, hi = scales of 16 elements */
void ht_unpack_iq2_xs(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 74) {
        fill8(out->d + 8 * b, ht_load_f16(src) * 0.125f);
        for (int i = 0; i < 8; i++) {
            out->sc[16 * b + 2 * i] = (int16_t)(2 * (src[66 + i] & 15) + 1);
            out->sc[16 * b + 2 * i + 1] = (int16_t)(2 * (src[66 + i] >> 4) + 1);
        }
        for (int i = 0; i < 32; i++) {
            uint32_t w = ht_load16(src + 2 + 2 * i);
            ht_store64(out->q + 256 * b + 8 * i, apply_signs(ht_grid_iq2_xs[w & 511], eight_signs(w >> 9)));
        }
    }
}

/* f16 d | 32 bytes of grid numbers | 32 bytes of signs | 8 bytes of high bits of grid numbers | 8 bytes of scales */
void ht_unpack_iq2_s(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 82) {
        fill8(out->d + 8 * b, ht_load_f16(src) * 0.125f);
        for (int i = 0; i < 8; i++) {
            out->sc[16 * b + 2 * i] = (int16_t)(2 * (src[74 + i] & 15) + 1);
            out->sc[16 * b + 2 * i + 1] = (int16_t)(2 * (src[74 + i] >> 4) + 1);
        }
        for (int i = 0; i < 32; i++) {
            uint32_t g = src[2 + i] | (src[66 + i / 4] >> (2 * (i % 4)) & 3u) << 8;
            ht_store64(out->q + 256 * b + 8 * i, apply_signs(ht_grid_iq2_s[g], src[34 + i]));
        }
    }
}

/* f16 d | 64 bytes of grid numbers (4 elements each) | 8 x u32: 4 x 7 signs, 4 bits of scale */
void ht_unpack_iq3_xxs(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 98) {
        int8_t *q = out->q + 256 * b;
        const uint8_t *p = src + 2;
        fill8(out->d + 8 * b, ht_load_f16(src) * 0.25f);
        for (int i = 0; i < 8; i++) {
            uint32_t w = ht_load32(src + 66 + 4 * i);
            ht_put_pair(out->sc + 16 * b + 2 * i, (int)(2 * (w >> 28) + 1));
            for (int j = 0; j < 4; j++, q += 8, p += 2) {
                uint64_t g = ht_grid_iq3_xxs[p[0]] | (uint64_t)ht_grid_iq3_xxs[p[1]] << 32;
                ht_store64(q, apply_signs(g, eight_signs(w >> (7 * j) & 127)));
            }
        }
    }
}

/* f16 d | 64 bytes of grid numbers | 8 bytes of their ninth bits | 32 bytes of signs | 4 bytes: lo, hi = scales of
 * 32 */
void ht_unpack_iq3_s(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 110) {
        fill8(out->d + 8 * b, ht_load_f16(src));
        for (int i = 0; i < 8; i++)
            ht_put_pair(out->sc + 16 * b + 2 * i, 2 * (src[106 + i / 2] >> (4 * (i % 2)) & 15) + 1);
        for (int i = 0; i < 32; i++) {
            uint32_t high = src[66 + i / 4] >> (2 * (i % 4));
            uint64_t g = ht_grid_iq3_s[src[2 + 2 * i] | (high & 1) << 8];
            g |= (uint64_t)ht_grid_iq3_s[src[3 + 2 * i] | (high >> 1 & 1) << 8] << 32;
            ht_store64(out->q + 256 * b + 8 * i, apply_signs(g, src[74 + i]));
        }
    }
}

/* Eight weights of IQ1: the grid times 8, and +-1. */
static void put_iq1(int8_t *restrict q, uint32_t number, int delta)
{
    int8_t g[8];

    memcpy(g, &ht_grid_iq1[number], 8);
    for (int j = 0; j < 8; j++)
        q[j] = (int8_t)(g[j] + delta);
}

/* f16 d | 32 bytes of grid numbers | 8 x u16: 4 x 3 high bits of grid numbers, 3 bits of scale, sign of delta */
void ht_unpack_iq1_s(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 50) {
        fill8(out->d + 8 * b, ht_load_f16(src) * 0.125f);
        for (int i = 0; i < 8; i++) {
            uint32_t h = ht_load16(src + 34 + 2 * i);
            ht_put_pair(out->sc + 16 * b + 2 * i, (int)(2 * (h >> 12 & 7) + 1));
            for (int j = 0; j < 4; j++)
                put_iq1(out->q + 256 * b + 32 * i + 8 * j, src[2 + 4 * i + j] | (h >> (3 * j) & 7) << 8,
                        h & 0x8000 ? -1 : 1);
        }
    }
}

/* 32 bytes of grid numbers | 16 bytes: lo, hi = 3 high bits of a grid number, sign of delta | 4 x u16: 4 scales of 3
 * bits of 16 elements each; their top nibbles are the f16 d, lowest first */
void ht_unpack_iq1_m(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 56) {
        uint32_t d = 0;
        for (int i = 0; i < 4; i++) {
            uint32_t w = ht_load16(src + 48 + 2 * i);
            d |= w >> 12 << (4 * i);
            for (int j = 0; j < 4; j++)
                out->sc[16 * b + 4 * i + j] = (int16_t)(2 * (w >> (3 * j) & 7) + 1);
        }
        fill8(out->d + 8 * b, ht_f16_to_f32((uint16_t)d) * 0.125f);
        for (int i = 0; i < 32; i++) {
            uint32_t h = src[32 + i / 2] >> (4 * (i % 2));
            put_iq1(out->q + 256 * b + 8 * i, src[i] | (h & 7) << 8, h & 8 ? -1 : 1);
        }
    }
}

static void lookup_nibbles(int8_t *restrict q, const uint8_t *restrict s, const int8_t *restrict values)
{
    for (int j = 0; j < 16; j++) {
        q[j] = values[s[j] & 15];
        q[j + 16] = values[s[j] >> 4];
    }
}

/* f16 d | 16 bytes of nibbles: numbers of values */
void ht_unpack_iq4_nl(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 18) {
        out->d[b] = ht_load_f16(src);
        ht_put_pair(out->sc + 2 * b, 1);
        lookup_nibbles(out->q + 32 * b, src + 2, ht_values_iq4_nl);
    }
}

/* f16 d | u16: 8 x 2 high bits of scales | 4 bytes: lo, hi = low 4 bits of scales of 32 | 8 x 16 bytes of nibbles;
 * scales - 32 */
void ht_unpack_iq4_xs(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 136) {
        uint32_t high = ht_load16(src + 2);
        fill8(out->d + 8 * b, ht_load_f16(src));
        for (int i = 0; i < 8; i++) {
            uint32_t low = src[4 + i / 2] >> (4 * (i % 2)) & 15u;
            ht_put_pair(out->sc + 16 * b + 2 * i, (int)(low | (high >> (2 * i) & 3) << 4) - 32);
            lookup_nibbles(out->q + 256 * b + 32 * i, src + 8 + 16 * i, ht_values_iq4_nl);
        }
    }
}

/* u8 e: D = 2^(e-128) | 16 bytes of nibbles: numbers of values, which are twice those of FP4 (E2M1) */
void ht_unpack_mxfp4(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 17) {
        union { uint32_t u; float f; } d = { src[0] < 2 ? 0x00200000u << src[0] : (src[0] - 1u) << 23 };
        out->d[b] = d.f;
        ht_put_pair(out->sc + 2 * b, 1);
        lookup_nibbles(out->q + 32 * b, src + 1, ht_values_mxfp4);
    }
}
