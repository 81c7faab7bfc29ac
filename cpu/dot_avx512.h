/* SPDX-License-Identifier: MIT
 *
 * What all AVX-512 dot products share, quantised or float: the final tree, prefetching. Only for files compiled with AVX-512
 * F, BW, VL and DQ. Owner: no state. Threads: any. */
#ifndef HT_CPU_DOT_AVX512_H
#define HT_CPU_DOT_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define HT_INLINE static inline __attribute__((always_inline))

/* The tree of the numeric contract over 16 accumulators in natural order. */
HT_INLINE float ht_tree_zmm(__m512 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* The rows of the next group at the same place, so that a new group starts warm however short its rows are. */
HT_INLINE void ht_prefetch(const uint8_t *p, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

#endif
