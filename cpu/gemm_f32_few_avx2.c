/* SPDX-License-Identifier: MIT
 *
 * Float weights times three to eight tokens, AVX2: too few for tiles (gemm_f32_avx2.c), whose turning of rows into
 * lanes they do not pay for, and more than the dot products (dot_f32_avx2.c) should each convert the weights for.
 *
 * A stretch of some rows is converted once. Of the contract's 32 accumulators of a product, four registers, one is in
 * use at a time: then a few rows and a few tokens fit into the registers together, and few loads go with many
 * multiply-adds. In between they wait in scratch; a stretch of all tokens' x, the accumulators of GROUP rows and the
 * converted weights fit in the first-level cache together. Meanwhile the next stretch comes from memory.
 * Owner: no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
#include <string.h>

#include "cpu/gemm_f32_avx2.h"
#include "cpu/gemm_tile.h"

enum {
    MOST_ALL = HT_GEMM_F32_FEW_MOST,
    STRETCH = 256,
    GROUP = 16, /* rows whose accumulators wait together */
    ROWS = 4,   /* converted at a time */
    MOST = 4    /* tokens side by side */
};

/* n elements (a multiple of 32) as floats. */
HT_INLINE void convert(float *to, const uint8_t *p, uint32_t n, ht_type type)
{
    for (uint32_t i = 0; i < n; i += 8) {
        if (type == HT_F32) {
            _mm256_store_ps(to + i, _mm256_loadu_ps((const float *)(const void *)(p + (size_t)i * 4)));
            continue;
        }
        const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + (size_t)i * 2));
        _mm256_store_ps(to + i, type == HT_F16 ? _mm256_cvtph_ps(h)
                                               : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)));
    }
}

/* n elements of `rows` rows with n_tok tokens; both are constants. w: [rows][STRETCH]; acc: [rows][MOST_ALL][32]. */
HT_INLINE void times(float *acc, const float *w, const float *x, size_t ldx, uint32_t n, int rows, int n_tok)
{
    for (uint32_t j = 0; j < 32; j += 8) {
        __m256 a[ROWS][MOST];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int t = 0; t < n_tok; t++)
                a[r][t] = _mm256_load_ps(acc + (r * MOST_ALL + t) * 32 + j);
        for (uint32_t i = j; i < n; i += 32) {
            __m256 v[ROWS];
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                v[r] = _mm256_load_ps(w + r * STRETCH + i);
#pragma GCC unroll 4
            for (int t = 0; t < n_tok; t++) {
                const __m256 xt = _mm256_loadu_ps(x + (size_t)t * ldx + i);
#pragma GCC unroll 4
                for (int r = 0; r < rows; r++)
                    a[r][t] = _mm256_fmadd_ps(v[r], xt, a[r][t]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int t = 0; t < n_tok; t++)
                _mm256_store_ps(acc + (r * MOST_ALL + t) * 32 + j, a[r][t]);
    }
}

/* Two to four tokens, eight chains or twelve: four with two rows at a time, fewer with four. */
HT_INLINE void times_n(float *acc, const float *w, const float *x, size_t ldx, uint32_t n, uint32_t n_tok)
{
    switch (n_tok) {
    case 2: times(acc, w, x, ldx, n, ROWS, 2); break;
    case 3: times(acc, w, x, ldx, n, ROWS, 3); break;
    default: times(acc, w, x, ldx, n, 2, 4); times(acc + 2 * MOST_ALL * 32, w + 2 * STRETCH, x, ldx, n, 2, 4);
    }
}

/* The tree of the numeric contract over 32 accumulators. */
HT_INLINE float tree(const float *a)
{
    const __m256 lo = _mm256_add_ps(_mm256_load_ps(a), _mm256_load_ps(a + 16));
    const __m256 b = _mm256_add_ps(lo, _mm256_add_ps(_mm256_load_ps(a + 8), _mm256_load_ps(a + 24)));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* At most GROUP rows; the last stands in for those that are missing of ROWS. */
HT_INLINE void group_times(float *y, size_t ldy, const uint8_t *w, size_t stride, uint32_t n_rows, const float *x,
                           size_t ldx, uint32_t n_tok, uint32_t k, float *scratch, ht_type type)
{
    const size_t bytes = type == HT_F32 ? 4 : 2;
    const uint32_t groups = (n_tok + MOST - 1) / MOST, first = (n_tok + groups - 1) / groups;
    float *acc = scratch, *to = scratch + (size_t)GROUP * MOST_ALL * 32; /* [GROUP][MOST_ALL][32], [ROWS][STRETCH] */

    memset(acc, 0, (size_t)GROUP * MOST_ALL * 32 * sizeof *acc);
    for (uint32_t i = 0; i < k; i += STRETCH) {
        const uint32_t n = k - i < STRETCH ? k - i : STRETCH;
        /* what comes next: the rows' next stretch, or the first of the next group's */
        const size_t ahead = i + n < k ? (i + n) * bytes : GROUP * stride;
        for (uint32_t r = 0; r < n_rows; r += ROWS) {
            for (uint32_t j = 0; j < ROWS; j++) {
                const uint8_t *row = w + (r + j < n_rows ? r + j : n_rows - 1) * stride;
                ht_prefetch(row + ahead, STRETCH * bytes);
                convert(to + (size_t)j * STRETCH, row + i * bytes, n, type);
            }
            for (uint32_t t = 0; t < n_tok; t += first)
                times_n(acc + ((size_t)r * MOST_ALL + t) * 32, to, x + t * ldx + i, ldx, n,
                        n_tok - t < first ? n_tok - t : first);
        }
    }
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t t = 0; t < n_tok; t++)
            y[t * ldy + r] = tree(acc + ((size_t)r * MOST_ALL + t) * 32);
}

#define GROUP_TIMES(name, type)                                                                                        \
    static void name(float *y, size_t ldy, const uint8_t *w, size_t stride, uint32_t n_rows, const float *x,           \
                     size_t ldx, uint32_t n_tok, uint32_t k, float *scratch)                                           \
    {                                                                                                                  \
        group_times(y, ldy, w, stride, n_rows, x, ldx, n_tok, k, scratch, type);                                       \
    }
GROUP_TIMES(times_f32, HT_F32)
GROUP_TIMES(times_f16, HT_F16)
GROUP_TIMES(times_bf16, HT_BF16)

bool ht_gemm_f32_avx2_few(float *y, size_t ldy, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                          const float *x, size_t ldx, uint32_t n_tok, uint32_t k, void *scratch)
{
    if ((type != HT_F32 && type != HT_F16 && type != HT_BF16) || n_tok < HT_GEMM_F32_FEW_LEAST ||
        n_tok > HT_GEMM_F32_FEW_MOST || k % 32)
        return false;
    for (uint32_t r = 0; r < n_rows; r += GROUP) {
        const uint32_t n = n_rows - r < GROUP ? n_rows - r : GROUP;
        const uint8_t *rows = w + r * stride;
        if (type == HT_F16)
            times_f16(y + r, ldy, rows, stride, n, x, ldx, n_tok, k, scratch);
        else if (type == HT_BF16)
            times_bf16(y + r, ldy, rows, stride, n, x, ldx, n_tok, k, scratch);
        else
            times_f32(y + r, ldy, rows, stride, n, x, ldx, n_tok, k, scratch);
    }
    return true;
}
