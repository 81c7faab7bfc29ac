/* SPDX-License-Identifier: MIT
 *
 * Encoding float32 values into the number formats that can be written. The formats of one scale per block are here,
 * with the rounding of ggml's reference (their golden files come out byte for byte); those that search for scales
 * are in quantise_k.c.
 *
 * Values that are not finite become 0: one of them would otherwise spoil its whole block. Results depend on the
 * input only, not on the machine.
 *
 * Owner: no state. Threads: any. */
#include <math.h>

#include "engine/base/quantise_impl.h"

/* The value of largest magnitude, with its sign; the first of several. */
static float extreme32(const float *x)
{
    float best = 0.0f, size = 0.0f;

    for (int j = 0; j < 32; j++)
        if (ht_abs(x[j]) > size) {
            size = ht_abs(x[j]);
            best = x[j];
        }
    return best;
}

static float largest(const float *x, int n)
{
    float size = 0.0f;

    for (int j = 0; j < n; j++)
        size = ht_abs(x[j]) > size ? ht_abs(x[j]) : size;
    return size;
}

static void range32(const float *x, float *lo, float *hi)
{
    *lo = *hi = x[0];
    for (int j = 1; j < 32; j++) {
        *lo = x[j] < *lo ? x[j] : *lo;
        *hi = x[j] > *hi ? x[j] : *hi;
    }
}

static float inverse(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

/* q[j] = (x[j] - sub) * mul + add, cut to an integer of 0 .. top */
static void to_levels(uint8_t *restrict q, const float *restrict x, float sub, float mul, float add, float top)
{
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)(int)ht_clamp((x[j] - sub) * mul + add, 0.0f, top);
}

static void pack_nibbles(uint8_t *restrict dst, const uint8_t *restrict q)
{
    for (int j = 0; j < 16; j++)
        dst[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void pack_fifth(uint8_t *dst, const uint8_t *q)
{
    for (int i = 0; i < 4; i++) {
        uint32_t bits = 0;
        for (int j = 0; j < 8; j++)
            bits |= (uint32_t)(q[8 * i + j] >> 4) << j;
        dst[i] = (uint8_t)bits;
    }
}

static void quantise_q4_0(const float *src, uint8_t *dst)
{
    uint8_t q[32];
    float d = extreme32(src) / -8.0f;

    ht_put_f16(dst, d);
    to_levels(q, src, 0.0f, inverse(d), 8.5f, 15.0f);
    pack_nibbles(dst + 2, q);
}

static void quantise_q4_1(const float *src, uint8_t *dst)
{
    uint8_t q[32];
    float lo, hi;

    range32(src, &lo, &hi);
    float d = (hi - lo) / 15.0f;
    ht_put_f16(dst, d);
    ht_put_f16(dst + 2, lo);
    to_levels(q, src, lo, inverse(d), 0.5f, 15.0f);
    pack_nibbles(dst + 4, q);
}

static void quantise_q5_0(const float *src, uint8_t *dst)
{
    uint8_t q[32];
    float d = extreme32(src) / -16.0f;

    ht_put_f16(dst, d);
    to_levels(q, src, 0.0f, inverse(d), 16.5f, 31.0f);
    pack_fifth(dst + 2, q);
    pack_nibbles(dst + 6, q);
}

static void quantise_q5_1(const float *src, uint8_t *dst)
{
    uint8_t q[32];
    float lo, hi;

    range32(src, &lo, &hi);
    float d = (hi - lo) / 31.0f;
    ht_put_f16(dst, d);
    ht_put_f16(dst + 2, lo);
    to_levels(q, src, lo, inverse(d), 0.5f, 31.0f);
    pack_fifth(dst + 4, q);
    pack_nibbles(dst + 8, q);
}

static void quantise_q8_0(const float *src, uint8_t *dst)
{
    float d = largest(src, 32) / 127.0f, id = inverse(d);

    ht_put_f16(dst, d);
    for (int j = 0; j < 32; j++) {
        float v = ht_clamp(src[j] * id, -127.0f, 127.0f);
        int whole = (int)v; /* half away from zero; v - whole is exact, v + 0.5f would not be */
        float rest = v - (float)whole;
        dst[2 + j] = (uint8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
    }
}

/* The exponent that lets the largest magnitude fall into FP4's last binade (4 and 6), then the nearest value; of two
 * equally near ones the smaller. */
static void quantise_mxfp4(const float *src, uint8_t *dst)
{
    float size = largest(src, 32);
    uint8_t q[32];
    int e = 0;

    if (size > 0.0f) {
        frexpf(size, &e); /* size in [2^(e-1), 2^e) */
        e = e - 1 - 2 + 127;
        e = e < 0 ? 0 : e > 254 ? 254 : e;
    }
    dst[0] = (uint8_t)e;
    for (int j = 0; j < 32; j++) {
        float v = ldexpf(ht_abs(src[j]), 128 - e); /* in units of 2^(e-128), where the levels are 0 1 2 3 4 6 8 12 */
        int level = (v > 0.5f) + (v > 1.5f) + (v > 2.5f) + (v > 3.5f) + (v > 5.0f) + (v > 7.0f) + (v > 10.0f);
        q[j] = (uint8_t)(level + (src[j] < 0.0f && level > 0 ? 8 : 0));
    }
    pack_nibbles(dst + 1, q);
}

/* 0, 1 or 2 for the nearest of -d, 0, d */
static void ternary(uint8_t *restrict q, const float *restrict x, float id)
{
    for (int j = 0; j < 256; j++) {
        float v = x[j] * id;
        q[j] = (uint8_t)(1 + (v >= 0.5f) - (v <= -0.5f));
    }
}

/* n bytes of n_digits ternary digits each, the first digit uppermost; the fraction 0.d1d2d3.. in base 3, rounded up,
 * so that the reader's multiplications carry the digits out again. */
static const uint8_t *pack_digits(uint8_t *dst, const uint8_t *q, int n, int n_digits)
{
    for (int l = 0; l < n; l++) {
        uint32_t v = 0;
        for (int i = 0; i < 5; i++)
            v = 3 * v + (i < n_digits ? q[n * i + l] : 0);
        dst[l] = (uint8_t)((v * 256 + 242) / 243);
    }
    return q + n * n_digits;
}

static void quantise_tq1_0(const float *src, uint8_t *dst)
{
    uint8_t q[256];
    float d = largest(src, 256);

    ternary(q, src, inverse(d));
    const uint8_t *p = pack_digits(dst, q, 32, 5);
    p = pack_digits(dst + 32, p, 16, 5);
    pack_digits(dst + 48, p, 4, 4);
    ht_put_f16(dst + 52, d);
}

static void quantise_tq2_0(const float *src, uint8_t *dst)
{
    uint8_t q[256];
    float d = largest(src, 256);

    ternary(q, src, inverse(d));
    for (int n = 0; n < 2; n++)
        for (int l = 0; l < 32; l++) {
            const uint8_t *p = q + 128 * n + l;
            dst[32 * n + l] = (uint8_t)(p[0] | p[32] << 2 | p[64] << 4 | p[96] << 6);
        }
    ht_put_f16(dst + 64, d);
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

static ht_quantise_fn *const quantise[HT_TYPE_MAX] = {
    [HT_Q4_0] = quantise_q4_0,       [HT_Q4_1] = quantise_q4_1,       [HT_Q5_0] = quantise_q5_0,
    [HT_Q5_1] = quantise_q5_1,       [HT_Q8_0] = quantise_q8_0,       [HT_MXFP4] = quantise_mxfp4,
    [HT_TQ1_0] = quantise_tq1_0,     [HT_TQ2_0] = quantise_tq2_0,     [HT_Q2_K] = ht_quantise_q2_k,
    [HT_Q3_K] = ht_quantise_q3_k,    [HT_Q4_K] = ht_quantise_q4_k,    [HT_Q5_K] = ht_quantise_q5_k,
    [HT_Q6_K] = ht_quantise_q6_k,    [HT_IQ4_NL] = ht_quantise_iq4_nl, [HT_IQ4_XS] = ht_quantise_iq4_xs,
};

/* Those that have a quicker way. */
static ht_quantise_fn *const coarse[HT_TYPE_MAX] = {
    [HT_Q2_K] = ht_quantise_q2_k_coarse, [HT_Q3_K] = ht_quantise_q3_k_coarse, [HT_Q4_K] = ht_quantise_q4_k_coarse,
    [HT_Q5_K] = ht_quantise_q5_k_coarse, [HT_Q6_K] = ht_quantise_q6_k_coarse,
};

bool ht_type_can_quantise(ht_type type)
{
    return type == HT_F32 || type == HT_F16 || type == HT_BF16 || ((uint32_t)type < HT_TYPE_MAX && quantise[type]);
}

/* Nearest, ties to even; NaN stays NaN. */
static uint16_t to_bf16(float f)
{
    union { float f; uint32_t u; } v = { f };
    if ((v.u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(v.u >> 16 | 0x40);
    return (uint16_t)((v.u + 0x7fff + (v.u >> 16 & 1)) >> 16);
}

static void quantise_blocks(ht_quantise_fn *fn, const ht_type_info *t, const float *src, uint64_t k, uint8_t *dst)
{
    float x[256];

    for (uint64_t i = 0; i < k / t->block; i++, src += t->block, dst += t->block_bytes) {
        for (int j = 0; j < t->block; j++)
            x[j] = ht_abs(src[j]) <= 3.4028235e38f ? src[j] : 0.0f;
        fn(x, dst);
    }
}

void ht_type_quantise(ht_type type, const float *src, uint64_t k, void *dst)
{
    uint8_t *p = dst;

    if (!ht_type_can_quantise(type))
        return;
    if (type == HT_F32) {
        memcpy(dst, src, (size_t)k * 4);
    } else if (type == HT_F16) {
        for (uint64_t i = 0; i < k; i++)
            ht_put16(p + 2 * i, ht_f32_to_f16(src[i]));
    } else if (type == HT_BF16) {
        for (uint64_t i = 0; i < k; i++)
            ht_put16(p + 2 * i, to_bf16(src[i]));
    } else {
        quantise_blocks(quantise[type], ht_type_get(type), src, k, p);
    }
}

void ht_type_quantise_coarse(ht_type type, const float *src, uint64_t k, void *dst)
{
    if ((uint32_t)type < HT_TYPE_MAX && coarse[type])
        quantise_blocks(coarse[type], ht_type_get(type), src, k, dst);
    else
        ht_type_quantise(type, src, k, dst);
}

uint32_t ht_type_fitting(uint32_t type, uint64_t k)
{
    static const struct { uint32_t from, to; } smaller[] = {
        { HT_Q2_K, HT_Q4_0 },  { HT_Q3_K, HT_Q4_0 },    { HT_Q4_K, HT_Q4_0 },   { HT_Q5_K, HT_Q5_0 },
        { HT_Q6_K, HT_Q8_0 },  { HT_IQ4_XS, HT_IQ4_NL }, { HT_TQ1_0, HT_Q4_0 }, { HT_TQ2_0, HT_Q4_0 },
    };
    for (int step = 0; step < 2; step++) {
        if (k % ht_type_get(type)->block == 0)
            return type;
        uint32_t to = HT_F16;
        for (size_t i = 0; i < sizeof smaller / sizeof *smaller; i++)
            if (smaller[i].from == type)
                to = smaller[i].to;
        type = to;
    }
    return type;
}
