/* SPDX-License-Identifier: MIT
 *
 * What the AVX2 many-token products share. Owner: no state. Threads: any. */
#ifndef HT_CPU_GEMM_AVX2_H
#define HT_CPU_GEMM_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define HT_INLINE static inline __attribute__((always_inline))

/* Asks for n bytes at p, which need not be there. Tiles are unpacked from many short stretches, which no processor
 * foresees: unasked for, they came from memory at a tenth of its speed. */
HT_INLINE void ht_prefetch(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

/* 8 rows of 8 dwords: v[i] becomes dword i of every row, rows in lanes. */
HT_INLINE void ht_transpose8(__m256i v[8])
{
    __m256i a[8];
    for (int i = 0; i < 8; i += 4) {
        __m256i t0 = _mm256_unpacklo_epi32(v[i], v[i + 1]), t1 = _mm256_unpackhi_epi32(v[i], v[i + 1]);
        __m256i t2 = _mm256_unpacklo_epi32(v[i + 2], v[i + 3]), t3 = _mm256_unpackhi_epi32(v[i + 2], v[i + 3]);
        a[i] = _mm256_unpacklo_epi64(t0, t2);
        a[i + 1] = _mm256_unpackhi_epi64(t0, t2);
        a[i + 2] = _mm256_unpacklo_epi64(t1, t3);
        a[i + 3] = _mm256_unpackhi_epi64(t1, t3);
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm256_permute2x128_si256(a[j], a[4 + j], 0x20);
        v[4 + j] = _mm256_permute2x128_si256(a[j], a[4 + j], 0x31);
    }
}

/* The first n lanes of v to unaligned memory. */
HT_INLINE void ht_store_lanes(float *p, __m256 v, uint32_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane), v);
}

#endif
