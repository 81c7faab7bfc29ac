/* SPDX-License-Identifier: MIT
 *
 * Dot products with float32 activations, AVX-512. The 32 accumulators of the contract are two registers per row; four
 * rows at a time give eight independent chains and share the loads of x. The end of a row is masked: a lane without an
 * element is left alone, which a fused multiply-add of zero is not (it would turn -0 into +0).
 *
 * Quantised weights are dequantised 256 at a time from the canonical form, each value rounded as ht_type_dequant rounds
 * it. Owner: no state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/dot_avx512.h"

/* Sixteen weights as floats, of which the mask's are to be read. */
typedef __m512 load_fn(const uint8_t *p, uint32_t i, __mmask16 m);

HT_INLINE __m512 load_f32(const uint8_t *p, uint32_t i, __mmask16 m)
{
    return m == 0xffff ? _mm512_loadu_ps(p + (size_t)i * 4) : _mm512_maskz_loadu_ps(m, p + (size_t)i * 4);
}

HT_INLINE __m256i load_words(const uint8_t *p, uint32_t i, __mmask16 m)
{
    p += (size_t)i * 2;
    return m == 0xffff ? _mm256_loadu_si256((const __m256i *)p) : _mm256_maskz_loadu_epi16(m, p);
}

HT_INLINE __m512 load_f16(const uint8_t *p, uint32_t i, __mmask16 m)
{
    return _mm512_cvtph_ps(load_words(p, i, m));
}
HT_INLINE __m512 load_bf16(const uint8_t *p, uint32_t i, __mmask16 m)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_words(p, i, m)), 16));
}

/* The last k % 32 elements of a row. */
HT_INLINE void tail(const uint8_t *p, const float *x, uint32_t k, load_fn *load, __m512 *a, __m512 *b)
{
    const uint32_t i = k & ~31u, n = k & 31;
    const __mmask16 lo = n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
    const __mmask16 hi = n > 16 ? (__mmask16)((1u << (n - 16)) - 1) : 0;

    if (!n)
        return;
    *a = _mm512_mask3_fmadd_ps(n >= 16 ? load(p, i, 0xffff) : load(p, i, lo), _mm512_maskz_loadu_ps(lo, x + i), *a, lo);
    if (hi)
        *b = _mm512_mask3_fmadd_ps(load(p, i + 16, hi), _mm512_maskz_loadu_ps(hi, x + i + 16), *b, hi);
}

HT_INLINE void walk(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows, const float *x,
                    uint32_t k, size_t bytes, load_fn *load)
{
    uint32_t r = 0;
    for (; r + 4 <= n_rows; r += 4) {
        const uint8_t *p = ht_row_at(w, stride, rows, r), *p1 = ht_row_at(w, stride, rows, r + 1);
        const uint8_t *p2 = ht_row_at(w, stride, rows, r + 2), *p3 = ht_row_at(w, stride, rows, r + 3);
        const uint8_t *ahead[4];
        for (uint32_t j = 0; j < 4; j++)
            ahead[j] = ht_row_at(w, stride, rows, r + 8 <= n_rows ? r + 4 + j : r + j);
        __m512 a0 = _mm512_setzero_ps(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        for (uint32_t i = 0; i + 32 <= k; i += 32) {
            __m512 xa = _mm512_loadu_ps(x + i), xb = _mm512_loadu_ps(x + i + 16);
            for (unsigned j = 0; j < 4; j++) /* 32 weights are one line, or two of floats */
                ht_prefetch(ahead[j] + i * bytes, (unsigned)(32 * bytes));
            a0 = _mm512_fmadd_ps(load(p, i, 0xffff), xa, a0);
            b0 = _mm512_fmadd_ps(load(p, i + 16, 0xffff), xb, b0);
            a1 = _mm512_fmadd_ps(load(p1, i, 0xffff), xa, a1);
            b1 = _mm512_fmadd_ps(load(p1, i + 16, 0xffff), xb, b1);
            a2 = _mm512_fmadd_ps(load(p2, i, 0xffff), xa, a2);
            b2 = _mm512_fmadd_ps(load(p2, i + 16, 0xffff), xb, b2);
            a3 = _mm512_fmadd_ps(load(p3, i, 0xffff), xa, a3);
            b3 = _mm512_fmadd_ps(load(p3, i + 16, 0xffff), xb, b3);
        }
        tail(p, x, k, load, &a0, &b0);
        tail(p1, x, k, load, &a1, &b1);
        tail(p2, x, k, load, &a2, &b2);
        tail(p3, x, k, load, &a3, &b3);
        y[r] = ht_tree_zmm(_mm512_add_ps(a0, b0));
        y[r + 1] = ht_tree_zmm(_mm512_add_ps(a1, b1));
        y[r + 2] = ht_tree_zmm(_mm512_add_ps(a2, b2));
        y[r + 3] = ht_tree_zmm(_mm512_add_ps(a3, b3));
    }
    for (; r < n_rows; r++) {
        const uint8_t *p = ht_row_at(w, stride, rows, r);
        __m512 a = _mm512_setzero_ps(), b = a;
        for (uint32_t i = 0; i + 32 <= k; i += 32) {
            a = _mm512_fmadd_ps(load(p, i, 0xffff), _mm512_loadu_ps(x + i), a);
            b = _mm512_fmadd_ps(load(p, i + 16, 0xffff), _mm512_loadu_ps(x + i + 16), b);
        }
        tail(p, x, k, load, &a, &b);
        y[r] = ht_tree_zmm(_mm512_add_ps(a, b));
    }
}

#define KERNEL(name, bytes)                                                                                            \
    void ht_dot_f32_##name##__avx512(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,    \
                                     const float *x, uint32_t k)                                                       \
    {                                                                                                                  \
        walk(y, w, stride, rows, n_rows, x, k, bytes, load_##name);                                                    \
    }
KERNEL(f32, 4)
KERNEL(f16, 2)
KERNEL(bf16, 2)

/* 16 values of the canonical form. */
HT_INLINE __m512 value(const ht_canon *c, unsigned h, bool has_min)
{
    __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(c->q + 16 * h))));
    __m512 v = _mm512_mul_ps(_mm512_set1_ps(c->d[h / 2] * (float)c->sc[h]), q);
    return has_min ? _mm512_add_ps(v, _mm512_set1_ps(c->dm[h / 2] * (float)c->mn[h])) : v;
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
        __m512 a = _mm512_setzero_ps(), b = a;
        for (uint32_t i = 0; i < k; i += CHUNK, p += step) {
            const uint32_t n = k - i < CHUNK ? k - i : CHUNK;
            ht_type_unpack(type, p, n, &canon);
            for (uint32_t h = 0; h < n / 16; h += 2) {
                a = _mm512_fmadd_ps(value(&canon, h, t->has_min), _mm512_loadu_ps(x + i + 16 * h), a);
                b = _mm512_fmadd_ps(value(&canon, h + 1, t->has_min), _mm512_loadu_ps(x + i + 16 * h + 16), b);
            }
        }
        y[r] = ht_tree_zmm(_mm512_add_ps(a, b));
    }
}

#define KERNEL_QUANTISED(type, name)                                                                                   \
    void ht_dot_f32_##name##__avx512(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,    \
                                     const float *x, uint32_t k)                                                       \
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
