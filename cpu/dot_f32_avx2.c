/* SPDX-License-Identifier: MIT
 *
 * Dot products with float32 activations, AVX2. The 32 accumulators of the contract are four registers per row; two rows
 * at a time give eight independent chains, and their activations are loaded once. The last k % 32 elements go one by
 * one into their own accumulators: a fused multiply-add of zero in the others would turn -0 into +0.
 *
 * Quantised weights are dequantised 256 at a time from the canonical form, each value rounded as ht_type_dequant rounds
 * it. Owner: no state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/dot_avx2.h"

#include <math.h>

#include "cpu/dot_tree.h"

/* Eight weights as floats; one weight. */
typedef __m256 load_fn(const uint8_t *p, uint32_t i);
typedef float one_fn(const uint8_t *p, uint32_t i);

HT_INLINE __m128i load_words(const uint8_t *p, uint32_t i)
{
    return _mm_loadu_si128((const __m128i *)(p + (size_t)i * 2));
}
HT_INLINE uint16_t word(const uint8_t *p, uint32_t i)
{
    uint16_t v;
    memcpy(&v, p + (size_t)i * 2, 2);
    return v;
}

HT_INLINE __m256 load_f32(const uint8_t *p, uint32_t i)
{
    return _mm256_loadu_ps((const float *)(const void *)(p + (size_t)i * 4));
}
HT_INLINE __m256 load_f16(const uint8_t *p, uint32_t i)
{
    return _mm256_cvtph_ps(load_words(p, i));
}
HT_INLINE __m256 load_bf16(const uint8_t *p, uint32_t i)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_words(p, i)), 16));
}

HT_INLINE float one_f32(const uint8_t *p, uint32_t i)
{
    float v;
    memcpy(&v, p + (size_t)i * 4, 4);
    return v;
}
HT_INLINE float one_f16(const uint8_t *p, uint32_t i)
{
    return _cvtsh_ss(word(p, i));
}
HT_INLINE float one_bf16(const uint8_t *p, uint32_t i)
{
    return ht_bf16_to_f32(word(p, i));
}

/* The last k % 32 elements, then the tree. */
HT_INLINE float finish(const __m256 a[4], const uint8_t *p, const float *x, uint32_t k, one_fn *one)
{
    const uint32_t i0 = k & ~31u;
    float acc[32];

    if (i0 == k)
        return ht_tree_ymm(_mm256_add_ps(a[0], a[2]), _mm256_add_ps(a[1], a[3]));
    for (unsigned j = 0; j < 4; j++)
        _mm256_storeu_ps(acc + 8 * j, a[j]);
    for (uint32_t i = i0; i < k; i++)
        acc[i - i0] = fmaf(one(p, i), x[i], acc[i - i0]);
    return ht_tree32(acc);
}

/* n / 32 * 32 elements of two rows. */
HT_INLINE void two_rows(const uint8_t *p, const uint8_t *p1, const float *x, uint32_t n, load_fn *load,
                        __m256 acc[2][4])
{
    __m256 a[4], b[4];
    for (unsigned j = 0; j < 4; j++)
        a[j] = acc[0][j], b[j] = acc[1][j];
    for (uint32_t i = 0; i + 32 <= n; i += 32)
        for (unsigned j = 0; j < 4; j++) {
            __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            a[j] = _mm256_fmadd_ps(load(p, i + 8 * j), v, a[j]);
            b[j] = _mm256_fmadd_ps(load(p1, i + 8 * j), v, b[j]);
        }
    for (unsigned j = 0; j < 4; j++)
        acc[0][j] = a[j], acc[1][j] = b[j];
}

/* Four rows from four places of the matrix (four streams far apart use more of the memory's speed than one), two at a
 * time for a stretch. Where rows are gathered, those after the next are prefetched. */
HT_INLINE void walk(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows, const float *x,
                    uint32_t k, size_t bytes, load_fn *load, one_fn *one)
{
    enum { STRETCH = 256 };
    const uint32_t quarter = n_rows / 4;

    for (uint32_t i = 0; i < n_rows;) {
        const bool four = i < quarter;
        const uint32_t apart = four ? quarter : i + 1 < n_rows, n = four ? 4 : 1 + apart;
        const uint8_t *p[4], *next[4] = { 0 };
        __m256 acc[4][4];
        for (uint32_t r = 0; r < 4; r++) {
            const uint32_t at = i + (r < n ? r : n - 1) * apart;
            p[r] = ht_row_at(w, stride, rows, at);
            next[r] = ht_row_at(w, stride, rows, at + 1 < n_rows ? at + 1 : at);
        }
        for (unsigned j = 0; j < 16; j++)
            acc[j / 4][j % 4] = _mm256_setzero_ps();
        for (uint32_t e = 0; e < k; e += STRETCH) {
            const uint32_t left = k - e < STRETCH ? k - e : STRETCH;
            for (uint32_t r = 0; rows && r < n; r++)
                for (size_t o = 0; o < left * bytes; o += 64)
                    _mm_prefetch((const char *)next[r] + e * bytes + o, _MM_HINT_T0);
            two_rows(p[0] + e * bytes, p[1] + e * bytes, x + e, left, load, acc);
            if (four)
                two_rows(p[2] + e * bytes, p[3] + e * bytes, x + e, left, load, acc + 2);
        }
        for (uint32_t r = 0; r < n; r++)
            y[i + r * apart] = finish(acc[r], p[r], x, k, one);
        i = four ? i + 1 == quarter ? 4 * quarter : i + 1 : i + 2;
    }
}

#define KERNEL(name, bytes)                                                                                            \
    void ht_dot_f32_##name##__avx2(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,      \
                                   const float *x, uint32_t k)                                                         \
    {                                                                                                                  \
        walk(y, w, stride, rows, n_rows, x, k, bytes, load_##name, one_##name);                                        \
    }
KERNEL(f32, 4)
KERNEL(f16, 2)
KERNEL(bf16, 2)

/* Eight values of the canonical form, from element 8 i. */
HT_INLINE __m256 value(const ht_canon *c, unsigned i, bool has_min)
{
    __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(c->q + 8 * i))));
    __m256 v = _mm256_mul_ps(_mm256_set1_ps(c->d[i / 4] * (float)c->sc[i / 2]), q);
    return has_min ? _mm256_add_ps(v, _mm256_set1_ps(c->dm[i / 4] * (float)c->mn[i / 2])) : v;
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
        const __m256 zero = _mm256_setzero_ps();
        __m256 a[4] = { zero, zero, zero, zero };
        for (uint32_t i = 0; i < k; i += CHUNK, p += step) {
            const uint32_t n = k - i < CHUNK ? k - i : CHUNK;
            ht_type_unpack(type, p, n, &canon);
            for (uint32_t b = 0; b < n / 8; b += 4)
                for (unsigned j = 0; j < 4; j++)
                    a[j] =
                        _mm256_fmadd_ps(value(&canon, b + j, t->has_min), _mm256_loadu_ps(x + i + 8 * (b + j)), a[j]);
        }
        y[r] = ht_tree_ymm(_mm256_add_ps(a[0], a[2]), _mm256_add_ps(a[1], a[3]));
    }
}

#define KERNEL_QUANTISED(type, name)                                                                                   \
    void ht_dot_f32_##name##__avx2(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,      \
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
