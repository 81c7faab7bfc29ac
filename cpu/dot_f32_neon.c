/* SPDX-License-Identifier: MIT
 *
 * Dot products with float32 activations, ARM. The 32 accumulators of the contract are eight registers per row; two rows
 * at a time. The last k % 32 elements go one by one into their own accumulators: a fused multiply-add of zero in the
 * others would turn -0 into +0.
 *
 * Quantised weights are dequantised 256 at a time from the canonical form, each value rounded as ht_type_dequant rounds
 * it. Owner: no state. Threads: any. */
#include <math.h>

#include "cpu/dot.h"
#include "cpu/dot_arm.h"
#include "cpu/dot_tree.h"

/* Four weights as floats; one weight. */
typedef float32x4_t load_fn(const uint8_t *p, uint32_t i);
typedef float one_fn(const uint8_t *p, uint32_t i);

HT_INLINE float32x4_t load_f32(const uint8_t *p, uint32_t i)
{
    return vreinterpretq_f32_u8(vld1q_u8(p + (size_t)i * 4));
}
HT_INLINE float32x4_t load_f16(const uint8_t *p, uint32_t i)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + (size_t)i * 2)));
}
HT_INLINE float32x4_t load_bf16(const uint8_t *p, uint32_t i)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p + (size_t)i * 2)), 16));
}

HT_INLINE float one_f32(const uint8_t *p, uint32_t i)
{
    float v;
    memcpy(&v, p + (size_t)i * 4, 4);
    return v;
}
HT_INLINE float one_f16(const uint8_t *p, uint32_t i)
{
    return ht_half_at(p + (size_t)i * 2);
}
HT_INLINE float one_bf16(const uint8_t *p, uint32_t i)
{
    return ht_bf16_to_f32(ht_word(p + (size_t)i * 2));
}

/* The tree over 32 accumulators. */
HT_INLINE float tree(const float32x4_t a[8])
{
    return ht_tree_q(vaddq_f32(a[0], a[4]), vaddq_f32(a[1], a[5]), vaddq_f32(a[2], a[6]), vaddq_f32(a[3], a[7]));
}

/* The last k % 32 elements, then the tree. */
HT_INLINE float finish(const float32x4_t a[8], const uint8_t *p, const float *x, uint32_t k, one_fn *one)
{
    const uint32_t i0 = k & ~31u;
    float acc[32];

    if (i0 == k)
        return tree(a);
    for (unsigned j = 0; j < 8; j++)
        vst1q_f32(acc + 4 * j, a[j]);
    for (uint32_t i = i0; i < k; i++)
        acc[i - i0] = fmaf(one(p, i), x[i], acc[i - i0]);
    return ht_tree32(acc);
}

/* n (a constant) rows from number `first`; those after them are prefetched where there are as many. */
HT_INLINE void some_rows(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows, uint32_t first,
                         uint32_t n, const float *x, uint32_t k, size_t bytes, load_fn *load, one_fn *one)
{
    float32x4_t a[2][8];
    const uint8_t *p[2], *ahead[2];

    for (uint32_t r = 0; r < n; r++) {
        p[r] = ht_row_at(w, stride, rows, first + r);
        ahead[r] = first + 2 * n <= n_rows ? ht_row_at(w, stride, rows, first + n + r) : p[r];
    }

    for (uint32_t r = 0; r < n; r++)
        for (unsigned j = 0; j < 8; j++)
            a[r][j] = vdupq_n_f32(0.0f);
    for (uint32_t i = 0; i + 32 <= k; i += 32) {
        for (uint32_t r = 0; r < n; r++)
            for (size_t o = 0; o < 32 * bytes; o += 64)
                __builtin_prefetch(ahead[r] + i * bytes + o);
        for (unsigned j = 0; j < 8; j++) {
            const float32x4_t v = vld1q_f32(x + i + 4 * j);
            for (uint32_t r = 0; r < n; r++)
                a[r][j] = vfmaq_f32(a[r][j], load(p[r], i + 4 * j), v);
        }
    }
    for (uint32_t r = 0; r < n; r++)
        y[first + r] = finish(a[r], p[r], x, k, one);
}

HT_INLINE void walk(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows, const float *x,
                    uint32_t k, size_t bytes, load_fn *load, one_fn *one)
{
    uint32_t r = 0;
    for (; r + 2 <= n_rows; r += 2)
        some_rows(y, w, stride, rows, n_rows, r, 2, x, k, bytes, load, one);
    if (r < n_rows)
        some_rows(y, w, stride, rows, n_rows, r, 1, x, k, bytes, load, one);
}

#define KERNEL(name, bytes)                                                                                            \
    void ht_dot_f32_##name##__neon(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,      \
                                   const float *x, uint32_t k)                                                         \
    {                                                                                                                  \
        walk(y, w, stride, rows, n_rows, x, k, bytes, load_##name, one_##name);                                        \
    }
KERNEL(f32, 4)
KERNEL(f16, 2)
KERNEL(bf16, 2)

/* 16 values of the canonical form, from element 16 h, times x. */
HT_INLINE void add_half(float32x4_t a[4], const ht_canon *c, unsigned h, bool has_min, const float *x)
{
    const int8x16_t q = vld1q_s8(c->q + 16 * h);
    const int16x8_t lo = vmovl_s8(vget_low_s8(q)), hi = vmovl_s8(vget_high_s8(q));
    const int32x4_t v[4] = { vmovl_s16(vget_low_s16(lo)), vmovl_s16(vget_high_s16(lo)), vmovl_s16(vget_low_s16(hi)),
                             vmovl_s16(vget_high_s16(hi)) };
    const float scale = c->d[h / 2] * (float)c->sc[h], min = has_min ? c->dm[h / 2] * (float)c->mn[h] : 0.0f;
    for (unsigned j = 0; j < 4; j++) {
        float32x4_t f = vmulq_n_f32(vcvtq_f32_s32(v[j]), scale);
        if (has_min)
            f = vaddq_f32(f, vdupq_n_f32(min));
        a[j] = vfmaq_f32(a[j], f, vld1q_f32(x + 4 * j));
    }
}

static void rows_quantised(ht_type type, float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,
                           const float *x, uint32_t k)
{
    enum { CHUNK = 256 };
    const ht_type_info *t = ht_type_get(type);
    const size_t step = ht_type_row_bytes(t, CHUNK);
    int8_t q[CHUNK];
    int16_t sc[CHUNK / 16], mn[CHUNK / 16];
    float d[CHUNK / 32], dm[CHUNK / 32];
    const ht_canon canon = { q, sc, mn, d, dm };

    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = ht_row_at(w, stride, rows, r);
        float32x4_t a[8];
        for (unsigned j = 0; j < 8; j++)
            a[j] = vdupq_n_f32(0.0f);
        for (uint32_t i = 0; i < k; i += CHUNK, p += step) {
            const uint32_t n = k - i < CHUNK ? k - i : CHUNK;
            ht_type_unpack(type, p, n, &canon);
            for (uint32_t h = 0; h < n / 16; h += 2) {
                add_half(a, &canon, h, t->has_min, x + i + 16 * (size_t)h);
                add_half(a + 4, &canon, h + 1, t->has_min, x + i + 16 * (size_t)h + 16);
            }
        }
        y[r] = tree(a);
    }
}

#define KERNEL_QUANTISED(type, name)                                                                                   \
    void ht_dot_f32_##name##__neon(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,      \
                                   const float *x, uint32_t k)                                                         \
    {                                                                                                                  \
        rows_quantised(HT_##type, y, w, stride, rows, n_rows, x, k);                                                   \
    }
KERNEL_QUANTISED(Q4_0, q4_0)
KERNEL_QUANTISED(Q4_1, q4_1)
KERNEL_QUANTISED(Q5_0, q5_0)
KERNEL_QUANTISED(Q5_1, q5_1)
KERNEL_QUANTISED(Q8_0, q8_0)
KERNEL_QUANTISED(Q2_K, q2_k)
KERNEL_QUANTISED(Q3_K, q3_k)
KERNEL_QUANTISED(Q4_K, q4_k)
KERNEL_QUANTISED(Q5_K, q5_k)
KERNEL_QUANTISED(Q6_K, q6_k)
KERNEL_QUANTISED(IQ2_XXS, iq2_xxs)
KERNEL_QUANTISED(IQ2_XS, iq2_xs)
KERNEL_QUANTISED(IQ3_XXS, iq3_xxs)
KERNEL_QUANTISED(IQ1_S, iq1_s)
KERNEL_QUANTISED(IQ4_NL, iq4_nl)
KERNEL_QUANTISED(IQ3_S, iq3_s)
KERNEL_QUANTISED(IQ2_S, iq2_s)
KERNEL_QUANTISED(IQ4_XS, iq4_xs)
KERNEL_QUANTISED(IQ1_M, iq1_m)
KERNEL_QUANTISED(TQ1_0, tq1_0)
KERNEL_QUANTISED(TQ2_0, tq2_0)
KERNEL_QUANTISED(MXFP4, mxfp4)
