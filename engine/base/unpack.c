/* SPDX-License-Identifier: MIT
 *
 * The canonical form of the legacy, K and ternary formats, and dequantisation from it. Each function has its block
 * drawn above; "lo" and "hi" are the nibbles of a byte, bit numbers start at the lowest.
 *
 * Owner: no state. Threads: any. */
#include "engine/base/unpack_impl.h"

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

static void fill_sc(const ht_canon *out, uint64_t n_blocks)
{
    for (uint64_t i = 0; i < 2 * n_blocks; i++)
        out->sc[i] = 1;
}

static void fill_mn(const ht_canon *out, uint64_t n_blocks)
{
    for (uint64_t i = 0; i < 2 * n_blocks; i++)
        out->mn[i] = 1;
}

static void nibbles(int8_t *restrict q, const uint8_t *restrict s, int minus)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)((s[j] & 15) - minus);
        q[j + 16] = (int8_t)((s[j] >> 4) - minus);
    }
}

/* f16 d | 16 bytes: lo = element j, hi = element j+16, minus 8 */
static void unpack_q4_0(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    fill_sc(out, n_blocks);
    for (uint64_t b = 0; b < n_blocks; b++, src += 18) {
        out->d[b] = ht_load_f16(src);
        nibbles(out->q + 32 * b, src + 2, 8);
    }
}

/* f16 d | f16 m | 16 bytes of nibbles */
static void unpack_q4_1(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    fill_sc(out, n_blocks);
    fill_mn(out, n_blocks);
    for (uint64_t b = 0; b < n_blocks; b++, src += 20) {
        out->d[b] = ht_load_f16(src);
        out->dm[b] = ht_load_f16(src + 2);
        nibbles(out->q + 32 * b, src + 4, 0);
    }
}

/* The same with a fifth bit per element from the 32 bits at `high`. Minus 16: an element below 16 gets its upper
 * nibble filled, which is that in two's complement. In whole words, because a vector load of bytes just stored would
 * stall. */
static void nibbles_and_fifth(int8_t *q, const uint8_t *s, const uint8_t *high, bool minus16)
{
    for (int i = 0; i < 2; i++) {
        uint64_t w, a = ht_spread_bits(high[i]), b = ht_spread_bits(high[i + 2]);
        memcpy(&w, s + 8 * i, 8);
        a = minus16 ? (a ^ 0x0101010101010101u) * 0xf0 : a << 4;
        b = minus16 ? (b ^ 0x0101010101010101u) * 0xf0 : b << 4;
        ht_store64(q + 8 * i, (w & 0x0f0f0f0f0f0f0f0fu) | a);
        ht_store64(q + 16 + 8 * i, (w >> 4 & 0x0f0f0f0f0f0f0f0fu) | b);
    }
}

/* f16 d | u32 fifth bits | 16 bytes of nibbles; minus 16 */
static void unpack_q5_0(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    fill_sc(out, n_blocks);
    for (uint64_t b = 0; b < n_blocks; b++, src += 22) {
        out->d[b] = ht_load_f16(src);
        nibbles_and_fifth(out->q + 32 * b, src + 6, src + 2, true);
    }
}

/* f16 d | f16 m | u32 fifth bits | 16 bytes of nibbles */
static void unpack_q5_1(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    fill_sc(out, n_blocks);
    fill_mn(out, n_blocks);
    for (uint64_t b = 0; b < n_blocks; b++, src += 24) {
        out->d[b] = ht_load_f16(src);
        out->dm[b] = ht_load_f16(src + 2);
        nibbles_and_fifth(out->q + 32 * b, src + 8, src + 4, false);
    }
}

/* f16 d | 32 signed bytes */
static void unpack_q8_0(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    fill_sc(out, n_blocks);
    for (uint64_t b = 0; b < n_blocks; b++, src += 34) {
        out->d[b] = ht_load_f16(src);
        memcpy(out->q + 32 * b, src + 2, 32);
    }
}

/* ---- blocks of 256 ----------------------------------------------------------------------------------------------- */

static void fill8(float *p, float v)
{
    for (int i = 0; i < 8; i++)
        p[i] = v;
}

/* 64 bytes of 2 bits: element 128 n + 32 j + l is bits 2j of byte 32 n + l */
static void pairs_of_bits(int8_t *restrict q, const uint8_t *restrict s, int minus)
{
    for (int n = 0; n < 2; n++, s += 32)
        for (int j = 0; j < 4; j++, q += 32)
            for (int l = 0; l < 32; l++)
                q[l] = (int8_t)((s[l] >> (2 * j) & 3) - minus);
}

/* 16 bytes: lo = scale, hi = minimum of 16 elements | 64 bytes of 2 bits | f16 d | f16 dmin */
static void unpack_q2_k(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 84) {
        int16_t *restrict sc = out->sc + 16 * b, *restrict mn = out->mn + 16 * b;
        fill8(out->d + 8 * b, ht_load_f16(src + 80));
        fill8(out->dm + 8 * b, -ht_load_f16(src + 82));
        for (int i = 0; i < 16; i++) {
            sc[i] = src[i] & 15;
            mn[i] = src[i] >> 4;
        }
        pairs_of_bits(out->q + 256 * b, src + 16, 0);
    }
}

/* 32 bytes of third bits: element 32 i + l is bit i of byte l | 64 bytes of 2 bits | 12 bytes: 16 scales of 6 bits |
 * f16 d */
static void unpack_q3_k(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 110) {
        const uint8_t *s = src + 96;
        int16_t *sc = out->sc + 16 * b;
        int8_t *restrict q = out->q + 256 * b;

        fill8(out->d + 8 * b, ht_load_f16(src + 108));
        for (int i = 0; i < 8; i++) { /* low 4 bits in the nibbles of bytes 0..7, high 2 bits in bytes 8..11 */
            sc[i] = (int16_t)(((s[i] & 15) | (s[8 + i % 4] >> (2 * (i / 4)) & 3) << 4) - 32);
            sc[i + 8] = (int16_t)((s[i] >> 4 | (s[8 + i % 4] >> (2 * (i / 4) + 4) & 3) << 4) - 32);
        }
        pairs_of_bits(q, src + 32, 4);
        for (int i = 0; i < 8; i++, q += 32)
            for (int l = 0; l < 32; l++)
                q[l] = (int8_t)(q[l] + ((src[l] >> i & 1) << 2));
    }
}

/* 12 bytes of Q4_K and Q5_K: 8 scales and 8 minima of 6 bits each */
static void scales_and_minima(int16_t *sc, int16_t *mn, const uint8_t *s)
{
    for (int i = 0; i < 4; i++) {
        ht_put_pair(sc + 2 * i, s[i] & 63);
        ht_put_pair(mn + 2 * i, s[i + 4] & 63);
        ht_put_pair(sc + 2 * i + 8, (s[i + 8] & 15) | s[i] >> 6 << 4);
        ht_put_pair(mn + 2 * i + 8, s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
    }
}

/* 128 bytes: lo of byte 32 i + l = element 64 i + l, hi = element 64 i + 32 + l */
static void wide_nibbles(int8_t *restrict q, const uint8_t *restrict s)
{
    for (int i = 0; i < 4; i++, s += 32, q += 64)
        for (int l = 0; l < 32; l++) {
            q[l] = (int8_t)(s[l] & 15);
            q[l + 32] = (int8_t)(s[l] >> 4);
        }
}

/* f16 d | f16 dmin | 12 bytes of scales and minima | 128 bytes of nibbles */
static void unpack_q4_k(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 144) {
        fill8(out->d + 8 * b, ht_load_f16(src));
        fill8(out->dm + 8 * b, -ht_load_f16(src + 2));
        scales_and_minima(out->sc + 16 * b, out->mn + 16 * b, src + 4);
        wide_nibbles(out->q + 256 * b, src + 16);
    }
}

/* f16 d | f16 dmin | 12 bytes of scales and minima | 32 bytes of fifth bits: element 32 i + l is bit i of byte l |
 * nibbles */
static void unpack_q5_k(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 176) {
        int8_t *restrict q = out->q + 256 * b;
        const uint8_t *restrict high = src + 16;

        fill8(out->d + 8 * b, ht_load_f16(src));
        fill8(out->dm + 8 * b, -ht_load_f16(src + 2));
        scales_and_minima(out->sc + 16 * b, out->mn + 16 * b, src + 4);
        wide_nibbles(q, src + 48);
        for (int i = 0; i < 8; i++, q += 32)
            for (int l = 0; l < 32; l++)
                q[l] = (int8_t)(q[l] + ((high[l] >> i & 1) << 4));
    }
}

/* 128 bytes of low nibbles | 64 bytes of high 2 bits | 16 signed bytes of scales | f16 d; minus 32 */
static void unpack_q6_k(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, src += 210) {
        const int8_t *s = (const int8_t *)src + 192;
        int16_t *restrict sc = out->sc + 16 * b;

        fill8(out->d + 8 * b, ht_load_f16(src + 208));
        for (int i = 0; i < 16; i++)
            sc[i] = s[i];
        for (int n = 0; n < 2; n++) {
            int8_t *restrict q = out->q + 256 * b + 128 * n;
            const uint8_t *restrict lo = src + 64 * n, *restrict hi = src + 128 + 32 * n;
            for (int l = 0; l < 32; l++) {
                q[l] = (int8_t)(((lo[l] & 15) | (hi[l] & 3) << 4) - 32);
                q[l + 32] = (int8_t)(((lo[l + 32] & 15) | (hi[l] >> 2 & 3) << 4) - 32);
                q[l + 64] = (int8_t)((lo[l] >> 4 | (hi[l] >> 4 & 3) << 4) - 32);
                q[l + 96] = (int8_t)((lo[l + 32] >> 4 | hi[l] >> 6 << 4) - 32);
            }
        }
    }
}

/* n bytes of ternary digits: element n i + l is digit i of byte l, read off the top of the byte times 3^i */
static int8_t *digits(int8_t *restrict q, const uint8_t *restrict s, int n, int n_digits)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };

    for (int i = 0; i < n_digits; i++, q += n)
        for (int l = 0; l < n; l++)
            q[l] = (int8_t)(((uint8_t)(s[l] * power[i]) * 3 >> 8) - 1);
    return q;
}

/* 32 + 16 bytes of 5 ternary digits | 4 bytes of 4 | f16 d */
static void unpack_tq1_0(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    fill_sc(out, 8 * n_blocks);
    for (uint64_t b = 0; b < n_blocks; b++, src += 54) {
        fill8(out->d + 8 * b, ht_load_f16(src + 52));
        int8_t *q = digits(out->q + 256 * b, src, 32, 5);
        q = digits(q, src + 32, 16, 5);
        digits(q, src + 48, 4, 4);
    }
}

/* 64 bytes of 2 bits | f16 d; minus 1 */
static void unpack_tq2_0(const uint8_t *src, uint64_t n_blocks, const ht_canon *out)
{
    fill_sc(out, 8 * n_blocks);
    for (uint64_t b = 0; b < n_blocks; b++, src += 66) {
        fill8(out->d + 8 * b, ht_load_f16(src + 64));
        pairs_of_bits(out->q + 256 * b, src, 1);
    }
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

static ht_unpack_fn *const unpack[HT_TYPE_MAX] = {
    [HT_Q4_0] = unpack_q4_0,
    [HT_Q4_1] = unpack_q4_1,
    [HT_Q5_0] = unpack_q5_0,
    [HT_Q5_1] = unpack_q5_1,
    [HT_Q8_0] = unpack_q8_0,
    [HT_Q2_K] = unpack_q2_k,
    [HT_Q3_K] = unpack_q3_k,
    [HT_Q4_K] = unpack_q4_k,
    [HT_Q5_K] = unpack_q5_k,
    [HT_Q6_K] = unpack_q6_k,
    [HT_TQ1_0] = unpack_tq1_0,
    [HT_TQ2_0] = unpack_tq2_0,
    [HT_IQ2_XXS] = ht_unpack_iq2_xxs,
    [HT_IQ2_XS] = ht_unpack_iq2_xs,
    [HT_IQ2_S] = ht_unpack_iq2_s,
    [HT_IQ3_XXS] = ht_unpack_iq3_xxs,
    [HT_IQ3_S] = ht_unpack_iq3_s,
    [HT_IQ1_S] = ht_unpack_iq1_s,
    [HT_IQ1_M] = ht_unpack_iq1_m,
    [HT_IQ4_NL] = ht_unpack_iq4_nl,
    [HT_IQ4_XS] = ht_unpack_iq4_xs,
    [HT_MXFP4] = ht_unpack_mxfp4,
};

void ht_type_unpack(ht_type type, const void *src, uint64_t k, const ht_canon *out)
{
    const ht_type_info *t = ht_type_get(type);

    if (t && t->quantised)
        unpack[type](src, k / t->block, out);
}

/* k is a multiple of 32 */
static void dequant_canon(const ht_canon *c, uint64_t k, bool has_min, float *restrict dst)
{
    for (uint64_t i = 0; i < k / 16; i++) {
        const int8_t *restrict q = c->q + 16 * i;
        float *restrict y = dst + 16 * i;
        float s = c->d[i / 2] * (float)c->sc[i];
        if (has_min) {
            float m = c->dm[i / 2] * (float)c->mn[i];
            for (int j = 0; j < 16; j++)
                y[j] = s * (float)q[j] + m;
        } else {
            for (int j = 0; j < 16; j++)
                y[j] = s * (float)q[j];
        }
    }
}

void ht_type_dequant(ht_type type, const void *src, uint64_t k, float *dst)
{
    enum { STEP = 1024 }; /* a multiple of every block; its canonical form fits into the first-level cache */
    const ht_type_info *t = ht_type_get(type);
    const uint8_t *s = src;
    int8_t q[STEP];
    int16_t sc[STEP / 16], mn[STEP / 16];
    float d[STEP / 32], dm[STEP / 32];
    ht_canon c = { q, sc, mn, d, dm };

    if (!t)
        return;
    if (type == HT_F32) {
        memcpy(dst, src, (size_t)k * 4);
    } else if (type == HT_F16) {
        for (uint64_t i = 0; i < k; i++)
            dst[i] = ht_load_f16(s + 2 * i);
    } else if (type == HT_BF16) {
        for (uint64_t i = 0; i < k; i++)
            dst[i] = ht_bf16_to_f32((uint16_t)ht_load16(s + 2 * i));
    } else {
        for (uint64_t i = 0; i < k; i += STEP) {
            uint64_t n = k - i < STEP ? k - i : STEP;
            unpack[type](s, n / t->block, &c);
            dequant_canon(&c, n, t->has_min, dst + i);
            s += ht_type_row_bytes(t, n);
        }
    }
}

/* The source may lie at any address. */
#define DECODE(ctype)                                                                                                  \
    for (uint64_t i = 0; i < k; i++) {                                                                                 \
        ctype v;                                                                                                       \
        memcpy(&v, s + i * sizeof v, sizeof v);                                                                        \
        dst[i] = (float)v;                                                                                             \
    }

/* 4 bytes of scales: unsigned floats of 4 bits exponent, 3 bits mantissa, for 16 elements each | 32 bytes of
 * nibbles: lo = element j, hi = element j + 8 of the 16; values are twice those of FP4, as in MXFP4. 0x7f is no
 * number and read as 0. */
static void decode_nvfp4(const uint8_t *s, uint64_t k, float *dst)
{
    for (uint64_t b = 0; b < k / 16; b++, dst += 16) {
        const uint8_t *block = s + b / 4 * 36, *p = block + 4 + b % 4 * 8;
        uint32_t u = block[b % 4], e = u >> 3 & 15, m = u & 7;
        /* (8 + m) * 2^(e - 10), or m * 2^-9 where e is 0; both halved */
        float d = u == 0x7f ? 0.0f : e ? (float)((8 + m) << (e - 1)) * 0x1p-10f : (float)m * 0x1p-10f;
        for (int j = 0; j < 8; j++) {
            dst[j] = d * (float)ht_values_mxfp4[p[j] & 15];
            dst[j + 8] = d * (float)ht_values_mxfp4[p[j] >> 4];
        }
    }
}

bool ht_type_decode(uint32_t id, const void *src, uint64_t k, float *dst)
{
    enum { I8 = 24, I16, I32, I64, F64, NVFP4 = 40 };
    const uint8_t *s = src;

    switch (id) {
    case I8: DECODE(int8_t) return true;
    case I16: DECODE(int16_t) return true;
    case I32: DECODE(int32_t) return true;
    case I64: DECODE(int64_t) return true;
    case F64: DECODE(double) return true;
    case NVFP4: decode_nvfp4(s, k, dst); return true;
    default: break;
    }
    if (!ht_type_get(id))
        return false;
    ht_type_dequant((ht_type)id, src, k, dst);
    return true;
}
