/* SPDX-License-Identifier: MIT
 *
 * What the AVX-512 many-token products share. Owner: no state. Threads: any. */
#ifndef HT_CPU_GEMM_AVX512_H
#define HT_CPU_GEMM_AVX512_H

#include <immintrin.h>

#define HT_INLINE static inline __attribute__((always_inline))

/* 16 rows of 16 dwords: v[i] becomes dword i of every row, rows in lanes. */
HT_INLINE void ht_transpose16(__m512i v[16])
{
    __m512i a[16];
    for (int i = 0; i < 16; i += 4) {
        __m512i t0 = _mm512_unpacklo_epi32(v[i], v[i + 1]), t1 = _mm512_unpackhi_epi32(v[i], v[i + 1]);
        __m512i t2 = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]), t3 = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
        a[i] = _mm512_unpacklo_epi64(t0, t2);
        a[i + 1] = _mm512_unpackhi_epi64(t0, t2);
        a[i + 2] = _mm512_unpacklo_epi64(t1, t3);
        a[i + 3] = _mm512_unpackhi_epi64(t1, t3);
    }
    /* a[4g + j], lane L: dword 4L + j of rows 4g .. 4g+3 */
    for (int j = 0; j < 4; j++) {
        __m512i t0 = _mm512_shuffle_i64x2(a[j], a[4 + j], 0x88), t1 = _mm512_shuffle_i64x2(a[j], a[4 + j], 0xdd);
        __m512i t2 = _mm512_shuffle_i64x2(a[8 + j], a[12 + j], 0x88),
                t3 = _mm512_shuffle_i64x2(a[8 + j], a[12 + j], 0xdd);
        v[j] = _mm512_shuffle_i64x2(t0, t2, 0x88);
        v[8 + j] = _mm512_shuffle_i64x2(t0, t2, 0xdd);
        v[4 + j] = _mm512_shuffle_i64x2(t1, t3, 0x88);
        v[12 + j] = _mm512_shuffle_i64x2(t1, t3, 0xdd);
    }
}

/* The tree of the numeric contract over n = 16 or 32 accumulators that lie `step` floats apart; 16 rows in lanes. */
HT_INLINE __m512 ht_tree_columns(const float *acc, size_t step, int n)
{
    __m512 a[16];
    for (int i = 0; i < 16; i++) {
        a[i] = _mm512_load_ps(acc + (size_t)i * step);
        if (n == 32)
            a[i] = _mm512_add_ps(a[i], _mm512_load_ps(acc + (size_t)(i + 16) * step));
    }
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a[i] = _mm512_add_ps(a[i], a[i + half]);
    return a[0];
}

#endif
