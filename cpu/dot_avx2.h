/* SPDX-License-Identifier: MIT
 *
 * What the AVX2 dot products share: sums across lanes, the final tree, the walk over rows. Only for files compiled with
 * AVX2, FMA and F16C. Owner: no state. Threads: any. */
#ifndef HT_CPU_DOT_AVX2_H
#define HT_CPU_DOT_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu/kernels.h"

#define HT_INLINE static inline __attribute__((always_inline))

/* Slot 4L + j of the result: the sum of the four dwords in lane L of v_j. */
HT_INLINE __m256i ht_sum4(__m256i v0, __m256i v1, __m256i v2, __m256i v3)
{
    __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(v0, v1), _mm256_unpackhi_epi32(v0, v1));
    __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(v2, v3), _mm256_unpackhi_epi32(v2, v3));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* The same for dwords of which two together fit in 16 bits. */
HT_INLINE __m256i ht_sum4_15(__m256i v0, __m256i v1, __m256i v2, __m256i v3)
{
    const __m256i one = _mm256_set1_epi16(1);
    __m256i a = _mm256_madd_epi16(_mm256_packs_epi32(v0, v1), one);
    __m256i b = _mm256_madd_epi16(_mm256_packs_epi32(v2, v3), one);
    return _mm256_madd_epi16(_mm256_packs_epi32(a, b), one);
}

/* Halves in lanes to whole blocks: slots 0..3 from a, 4..7 from b. */
HT_INLINE __m256i ht_sum_lanes(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

/* The tree of the numeric contract over accumulators 0..7 and 8..15. */
HT_INLINE float ht_tree_ymm(__m256 lo, __m256 hi)
{
    __m256 b = _mm256_add_ps(lo, hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* Eight blocks of activations; v: the 32 of block b at q + 32 b. */
typedef struct ht_xpart {
    const int8_t *q;
    const float *d;
    const int16_t *s;
} ht_xpart;

HT_INLINE __m256i ht_ymm_at(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
HT_INLINE __m128i ht_xmm_at(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
HT_INLINE __m256i ht_both128(const void *p)
{
    return _mm256_broadcastsi128_si256(ht_xmm_at(p));
}

HT_INLINE __m256i ht_mul_unsigned(__m256i w, const int8_t *x)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(w, ht_ymm_at(x)), _mm256_set1_epi16(1));
}

HT_INLINE __m256i ht_mul_signed(__m256i w, const int8_t *x)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(ht_ymm_at(x), w)),
                             _mm256_set1_epi16(1));
}

/* acc + (d * x.d) * sum */
HT_INLINE void ht_add_blocks(float *acc, __m256 d, ht_xpart x, __m256 sum)
{
    __m256 scale = _mm256_mul_ps(d, _mm256_loadu_ps(x.d));
    _mm256_store_ps(acc, _mm256_fmadd_ps(scale, sum, _mm256_load_ps(acc)));
}

/* c * sum(x) of eight blocks */
HT_INLINE __m256i ht_sums(ht_xpart x, int c)
{
    return _mm256_madd_epi16(ht_ymm_at(x.s), _mm256_set1_epi16((short)c));
}

HT_INLINE __m256i ht_reduce(const __m256i *v)
{
    return ht_sum_lanes(ht_sum4(v[0], v[1], v[2], v[3]), ht_sum4(v[4], v[5], v[6], v[7]));
}
HT_INLINE __m256i ht_reduce_15(const __m256i *v)
{
    return ht_sum_lanes(ht_sum4_15(v[0], v[1], v[2], v[3]), ht_sum4_15(v[4], v[5], v[6], v[7]));
}

HT_INLINE short ht_word(const uint8_t *p)
{
    short v;
    memcpy(&v, p, 2);
    return v;
}

HT_INLINE __m256 ht_half_at(const uint8_t *p)
{
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128((uint16_t)ht_word(p))));
}

/* Types whose halves have their own scales: sums of eight blocks, each half times its scale; sc: 16 numbers of 16 bits.
 */
HT_INLINE __m256i ht_reduce_scaled(const __m256i *v, __m256i sc)
{
    /* slot 4L + j: half 2j + L; even 16-bit numbers of a lane are halves 0, others 1 */
    __m128i a = _mm256_castsi256_si128(sc), b = _mm256_extracti128_si256(sc, 1);
    const __m128i split = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i sa = _mm256_cvtepi16_epi32(_mm_shuffle_epi8(a, split)),
            sb = _mm256_cvtepi16_epi32(_mm_shuffle_epi8(b, split));
    return ht_sum_lanes(_mm256_mullo_epi32(ht_sum4(v[0], v[1], v[2], v[3]), sa),
                        _mm256_mullo_epi32(ht_sum4(v[4], v[5], v[6], v[7]), sb));
}

/* Adds n blocks (8, or fewer at the end of a row: what is missing must get a zero scale) of weights at w to acc[0..8).
 */
typedef void ht_step_fn(const uint8_t *w, unsigned n, ht_xpart x, float *acc);

/* One kernel. bytes: of 8 blocks. The accumulators live in memory: a step is long enough to hide the way there and
 * back, and 16 registers would not hold those of four rows. */
HT_INLINE void ht_dot_q8_rows(float *y, const void *w, size_t stride, uint32_t n_rows, const ht_q8_row *x, uint32_t k,
                              unsigned bytes, ht_step_fn *step)
{
    const uint32_t n_full = k / 256, n_tail = k % 256 / 32;
    const uint8_t *p0 = w;
    int8_t tq[256];
    float td[8];
    int16_t ts[16];

    if (n_tail) {
        const size_t at = (size_t)n_full * 256;
        memset(tq, 0, sizeof tq);
        memset(td, 0, sizeof td);
        memset(ts, 0, sizeof ts);
        memcpy(tq, x->q + at, (size_t)n_tail * 32);
        memcpy(td, x->d + at / 32, n_tail * sizeof *td);
        memcpy(ts, x->s + at / 16, n_tail * 2 * sizeof *ts);
    }
    for (uint32_t i = 0; i < n_rows; i += 4) {
        const uint32_t n = n_rows - i < 4 ? n_rows - i : 4;
        const size_t ahead = i + 8 <= n_rows ? 4 * stride : 0; /* to the next four rows */
        _Alignas(32) float acc[4][16] = { { 0 } };
        for (uint32_t b = 0; b < n_full; b++) {
            const ht_xpart part = { x->q + (size_t)b * 256, x->d + (size_t)b * 8, x->s + (size_t)b * 16 };
            for (uint32_t r = 0; r < n; r++) {
                const uint8_t *p = p0 + r * stride + (size_t)b * bytes;
                for (unsigned o = 0; o < bytes; o += 64)
                    _mm_prefetch((const char *)p + ahead + o, _MM_HINT_T0);
                step(p, 8, part, acc[r] + b % 2 * 8);
            }
        }
        for (uint32_t r = 0; r < n; r++) {
            if (n_tail)
                step(p0 + r * stride + (size_t)n_full * bytes, n_tail, (ht_xpart){ tq, td, ts },
                     acc[r] + n_full % 2 * 8);
            y[i + r] = ht_tree_ymm(_mm256_load_ps(acc[r]), _mm256_load_ps(acc[r] + 8));
        }
        p0 += 4 * stride;
    }
}

#endif
