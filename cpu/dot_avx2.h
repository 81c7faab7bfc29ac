/* SPDX-License-Identifier: MIT
 *
 * What the AVX2 dot products share: the walk over rows, activations arranged for it, sums across lanes, the final tree.
 * Only for files compiled with AVX2, FMA and F16C.
 *
 * A step multiplies eight blocks of weights (a "part", 256 elements) with the activations of their place and adds them
 * to eight of the sixteen accumulators of the contract, block i to slot i. Activations are arranged once per call: as
 * they are, or in pairs, so that a register holds 16 weights of block i in its lower lane and the same 16 of block i +
 * 4 in the upper one; then the two halves of a block meet by one addition and four registers hold the eight blocks.
 * Owner: no state. Threads: any. */
#ifndef HT_CPU_DOT_AVX2_H
#define HT_CPU_DOT_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu/kernels.h"

#define HT_INLINE static inline __attribute__((always_inline))

/* ---- loads ----------------------------------------------------------------------------------------------------- */

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
/* 16 bytes from each. */
HT_INLINE __m256i ht_two128(const void *lo, const void *hi)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(ht_xmm_at(lo)), ht_xmm_at(hi), 1);
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

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* Those of one part. q: block b at 32 b; in pairs, at 64 b: 16 of b, 16 of b + 4, the rest of b, the rest of b + 4. */
typedef struct ht_xpart {
    _Alignas(32) int8_t q[256];
    float d[8], fsum[8]; /* fsum: sums of blocks */
    int32_t sum[8];      /* sums times the type's constant */
    int16_t s[16];       /* sums of 16 */
} ht_xpart;

typedef enum ht_order { HT_ORDER_PLAIN, HT_ORDER_PAIRS } ht_order;

/* Eight blocks of activations into `to`. */
HT_INLINE void ht_arrange(ht_xpart *to, const int8_t *q, const float *d, const int16_t *s, ht_order order, int c)
{
    for (unsigned i = 0; i < 4; i++) {
        const int8_t *a = q + (order == HT_ORDER_PAIRS ? 32 * i : 64 * i);
        const int8_t *b = a + (order == HT_ORDER_PAIRS ? 128 : 32);
        __m256i lo = ht_ymm_at(a), hi = ht_ymm_at(b);
        if (order == HT_ORDER_PAIRS) {
            lo = ht_two128(a, b);
            hi = ht_two128(a + 16, b + 16);
        }
        _mm256_store_si256((__m256i *)(void *)(to->q + 64 * i), lo);
        _mm256_store_si256((__m256i *)(void *)(to->q + 64 * i + 32), hi);
    }
    const __m256i halves = ht_ymm_at(s), sum = _mm256_madd_epi16(halves, _mm256_set1_epi16(1));
    _mm256_store_ps(to->d, _mm256_loadu_ps(d));
    _mm256_store_ps(to->fsum, _mm256_cvtepi32_ps(sum));
    _mm256_store_si256((__m256i *)(void *)to->sum, _mm256_mullo_epi32(sum, _mm256_set1_epi32(c)));
    _mm256_store_si256((__m256i *)(void *)to->s, halves);
}

/* Part b of x, whose k elements may end within it: what lies behind is zero. */
HT_INLINE void ht_arrange_part(ht_xpart *to, const ht_q8_row *x, uint32_t b, uint32_t k, ht_order order, int c)
{
    const int8_t *q = x->q + (size_t)b * 256;
    const float *d = x->d + (size_t)b * 8;
    const int16_t *s = x->s + (size_t)b * 16;
    const uint32_t left = (k - b * 256) / 32;
    if (left >= 8) {
        ht_arrange(to, q, d, s, order, c);
        return;
    }
    int8_t tq[256] = { 0 };
    float td[8] = { 0 };
    int16_t ts[16] = { 0 };
    memcpy(tq, q, (size_t)left * 32);
    memcpy(td, d, left * sizeof *d);
    memcpy(ts, s, left * 2 * sizeof *s);
    ht_arrange(to, tq, td, ts, order, c);
}

/* ---- products and their sums ----------------------------------------------------------------------------------- */

/* Products of unsigned weights with 32 of x, two by two in words. */
HT_INLINE __m256i ht_words(__m256i w, const int8_t *x)
{
    return _mm256_maddubs_epi16(w, ht_ymm_at(x));
}

/* The same of signed ones; x is never -128 (see quantise_q8), so the words are exact. */
HT_INLINE __m256i ht_words_signed(__m256i w, const int8_t *x)
{
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(ht_ymm_at(x), w));
}

HT_INLINE __m256i ht_dwords(__m256i words)
{
    return _mm256_madd_epi16(words, _mm256_set1_epi16(1));
}

/* Lanes a0 a1 a2 a3 and b0 b1 b2 b3 of four dwords to a0+a2 b0+b2 a1+a3 b1+b3; ht_fold32w adds words. */
HT_INLINE __m256i ht_fold32(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}
HT_INLINE __m256i ht_fold32w(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}
/* Lanes a0 a1 a2 a3 and b0 b1 b2 b3 to a0+a2 a1+a3 b0+b2 b1+b3. */
HT_INLINE __m256i ht_fold64(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}
HT_INLINE __m256i ht_fold64w(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}
/* Lower lane of the result: the lanes of a together; upper: those of b. */
HT_INLINE __m256i ht_fold128(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

/* The sums of every lane of four registers to slots 4 L + i. Which one follows from how many words may be added before
 * they must become dwords: all eight of a lane, two, or none. */
HT_INLINE __m256i ht_sum_lanes_w8(const __m256i v[4])
{
    return ht_dwords(ht_fold64w(ht_fold32w(v[0], v[1]), ht_fold32w(v[2], v[3])));
}
HT_INLINE __m256i ht_sum_lanes_w2(const __m256i v[4])
{
    return ht_fold64(ht_dwords(ht_fold32w(v[0], v[1])), ht_dwords(ht_fold32w(v[2], v[3])));
}
HT_INLINE __m256i ht_sum_lanes(const __m256i v[4]) /* of dwords */
{
    return ht_fold64(ht_fold32(v[0], v[1]), ht_fold32(v[2], v[3]));
}

/* The same of eight registers, one block each. */
HT_INLINE __m256i ht_sum_blocks_w8(const __m256i v[8])
{
    return ht_fold128(ht_sum_lanes_w8(v), ht_sum_lanes_w8(v + 4));
}
HT_INLINE __m256i ht_sum_blocks_w2(const __m256i v[8])
{
    return ht_fold128(ht_sum_lanes_w2(v), ht_sum_lanes_w2(v + 4));
}
HT_INLINE __m256i ht_sum_blocks(const __m256i v[8])
{
    return ht_fold128(ht_sum_lanes(v), ht_sum_lanes(v + 4));
}

/* 16 signed scales of halves as words: those of first halves, in the upper lane those of second ones. */
HT_INLINE __m256i ht_by_half(__m128i scales)
{
    return _mm256_cvtepi8_epi16(
        _mm_shuffle_epi8(scales, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
}

/* Eight registers, one block each, of words of which two may be added, folded already; each half times its scale. */
HT_INLINE __m256i ht_sum_scaled_w2(const __m256i v[4], __m128i scales)
{
    const __m256i sc = ht_by_half(scales), four = _mm256_set1_epi8(4);
    const __m256i at0 = _mm256_set1_epi64x(0x0302030201000100), at1 = _mm256_add_epi8(at0, four);
    const __m256i at2 = _mm256_add_epi8(at1, four), at3 = _mm256_add_epi8(at2, four);
    __m256i a = _mm256_madd_epi16(v[0], _mm256_shuffle_epi8(sc, at0));
    __m256i b = _mm256_madd_epi16(v[1], _mm256_shuffle_epi8(sc, at1));
    __m256i c = _mm256_madd_epi16(v[2], _mm256_shuffle_epi8(sc, at2));
    __m256i d = _mm256_madd_epi16(v[3], _mm256_shuffle_epi8(sc, at3));
    return ht_fold128(ht_fold64(a, b), ht_fold64(c, d));
}
HT_INLINE __m256i ht_sum_halves_w2(const __m256i v[8], __m128i scales)
{
    const __m256i f[4] = { ht_fold32w(v[0], v[1]), ht_fold32w(v[2], v[3]), ht_fold32w(v[4], v[5]),
                           ht_fold32w(v[6], v[7]) };
    return ht_sum_scaled_w2(f, scales);
}

/* The same where all eight words of a half may be added. */
HT_INLINE __m256i ht_sum_halves_w8(const __m256i v[8], __m128i scales)
{
    const __m256i sc = ht_by_half(scales);
    __m256i a = ht_fold64w(ht_fold32w(v[0], v[1]), ht_fold32w(v[2], v[3]));
    __m256i b = ht_fold64w(ht_fold32w(v[4], v[5]), ht_fold32w(v[6], v[7]));
    return ht_fold128(_mm256_madd_epi16(a, _mm256_unpacklo_epi16(sc, sc)),
                      _mm256_madd_epi16(b, _mm256_unpackhi_epi16(sc, sc)));
}

/* acc + (d * x.d) * sum */
HT_INLINE __m256 ht_add_f(__m256 acc, __m256 d, const ht_xpart *x, __m256 sum)
{
    return _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_load_ps(x->d)), sum, acc);
}
HT_INLINE __m256 ht_add_i(__m256 acc, __m256 d, const ht_xpart *x, __m256i sum)
{
    return ht_add_f(acc, d, x, _mm256_cvtepi32_ps(sum));
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

/* The tree of the numeric contract over accumulators 0..7 and 8..15. */
HT_INLINE float ht_tree_ymm(__m256 lo, __m256 hi)
{
    __m256 b = _mm256_add_ps(lo, hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* Adds a part of each of two rows, whose weights are at w (none read outside), to acc[0] and acc[1]. */
typedef void ht_step_fn(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2]);

/* Prefetches the lines of `bytes` bytes at p. Steps with much arithmetic for their bytes need it: too few of them fit
 * into the processor's window to keep the memory busy. The others are slowed by it, but where rows are gathered. */
HT_INLINE void ht_ahead(const uint8_t *p, unsigned bytes, bool gathered)
{
    enum { DENSE = 2 * 256 };
    for (unsigned i = 0; i < bytes && (bytes < DENSE || gathered); i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

/* n parts of two rows, `far` bytes apart; acc[0]: of even parts. ahead: from each row to the one to be prefetched. */
HT_INLINE void ht_walk(const uint8_t *p, ptrdiff_t far, const ptrdiff_t ahead[2], bool gathered, const ht_xpart *x,
                       uint32_t n, unsigned bytes, ht_step_fn *step, __m256 acc[2][2])
{
    uint32_t b = 0;
    for (; b + 2 <= n; b += 2, p += 2 * bytes) {
        ht_ahead(p + ahead[0], 2 * bytes, gathered);
        ht_ahead(p + far + ahead[1], 2 * bytes, gathered);
        step((const uint8_t *const[2]){ p, p + far }, x + b, acc[0]);
        step((const uint8_t *const[2]){ p + bytes, p + far + bytes }, x + b + 1, acc[1]);
    }
    if (b < n)
        step((const uint8_t *const[2]){ p, p + far }, x + b, acc[0]);
}

/* One kernel. bytes: of a part; c: what x->sum is multiplied by. The first half of the rows is walked beside the
 * second: two streams far apart use more of the memory's speed than one, or than two in one page. */
HT_INLINE void ht_dot_q8_rows(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,
                              const ht_q8_row *x, uint32_t k, unsigned bytes, ht_order order, int c, ht_step_fn *step)
{
    enum { PANEL = 32 }; /* parts arranged at a time: 12 KiB */
    const uint32_t n_parts = (k + 255) / 256, n_full = k / 256, half = n_rows / 2;
    const unsigned tail = k % 256 / 32 * (bytes / 8);
    const uint32_t lead = stride ? (uint32_t)((4096 + stride - 1) / stride) : 0; /* rows from one to be prefetched */
    ptrdiff_t ahead[2] = { (ptrdiff_t)(lead * stride), (ptrdiff_t)(lead * stride) };
    ht_xpart xp[PANEL];

    /* where the number of rows is odd, the last is walked beside itself */
    for (uint32_t i = 0; i < half + n_rows % 2; i++) {
        const bool last = i == half;
        const uint8_t *p = ht_row_at(w, stride, rows, last ? 2 * half : i);
        const ptrdiff_t apart = last ? 0 : ht_row_at(w, stride, rows, half + i) - p;
        for (uint32_t r = 0; rows && r < 2; r++) {
            const uint32_t next = r * half + i + lead;
            ahead[r] = ht_row_at(w, stride, rows, next < n_rows ? next : n_rows - 1) - (p + (ptrdiff_t)r * apart);
        }
        __m256 acc[2][2];
        for (unsigned r = 0; r < 4; r++)
            acc[r / 2][r % 2] = _mm256_setzero_ps();
        for (uint32_t b0 = 0; b0 < n_parts; b0 += PANEL) {
            const uint32_t end = b0 + PANEL < n_full ? b0 + PANEL : n_full;
            for (uint32_t b = b0; (i == 0 || n_parts > PANEL) && b < n_parts && b < b0 + PANEL; b++)
                ht_arrange_part(&xp[b - b0], x, b, k, order, c);
            ht_walk(p + (size_t)b0 * bytes, apart, ahead, rows != NULL, xp, end - b0, bytes, step, acc);
        }
        if (tail) { /* fewer than eight blocks: behind them are zero scales */
            uint8_t copy[2][8 * 34] = { { 0 } };
            p += (size_t)n_full * bytes;
            memcpy(copy[0], p, tail);
            memcpy(copy[1], p + apart, tail);
            step((const uint8_t *const[2]){ copy[0], copy[1] }, &xp[n_full % PANEL], acc[n_full % 2]);
        }
        y[last ? 2 * half : i] = ht_tree_ymm(acc[0][0], acc[1][0]);
        if (!last)
            y[half + i] = ht_tree_ymm(acc[0][1], acc[1][1]);
    }
}

#endif
