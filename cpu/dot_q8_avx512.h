/* SPDX-License-Identifier: MIT
 *
 * What the integer products of both AVX-512 levels share: loads that stop at the end of a row, products of bytes, the
 * transposing sums, the loop over rows. The file that includes it sets HT_VNNI: 1 where it is compiled with VNNI and
 * VBMI, 0 where with AVX-512 F, BW, VL and DQ only. Owner: no state. Threads: any. */
#ifndef HT_CPU_DOT_Q8_AVX512_H
#define HT_CPU_DOT_Q8_AVX512_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu/dot_avx512.h"
#include "cpu/kernels.h"

/* 64 bytes at p of which `left` are the caller's to read; the rest is zero. A plain load where left is a constant
 * >= 64. */
HT_INLINE __m512i ht_load64(const uint8_t *p, ptrdiff_t left)
{
    if (left >= 64)
        return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, left < 0 ? 0 : (unsigned)left), p);
}

/* v with its last 16 bytes replaced by those at p[48..63], of which `left` - 48 may be read. */
HT_INLINE __m512i ht_load_lane3(__m512i v, const uint8_t *p, ptrdiff_t left)
{
    if (left >= 64)
        return _mm512_mask_loadu_epi64(v, 0xc0, p);
    return _mm512_mask_loadu_epi8(v, _bzhi_u64(~0ull, left < 0 ? 0 : (unsigned)left) & ~0ull << 48, p);
}

/* Bytes [off + S * L, + 16) of a, which holds the first of four blocks of S bytes, in lanes L = 0, 1, 2, and [0, 16) in
 * lane 3; ht_lane3 replaces lane 3 of `to` by 16 bytes of a from `at`. Without VBMI only words move: off, S and at are
 * even. */
#if HT_VNNI
#define HT_LANES(off, S)                                                                                               \
    _mm512_add_epi8(                                                                                                   \
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),                   \
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_m128i(_mm_set1_epi8(off), _mm_set1_epi8((off) + (S)))),  \
                           _mm256_zextsi128_si256(_mm_set1_epi8((off) + 2 * (S))), 1))
HT_INLINE __m512i ht_lanes(__m512i a, int off, int S)
{
    return _mm512_permutexvar_epi8(HT_LANES((char)off, (char)S), a);
}
HT_INLINE __m512i ht_lane3(__m512i to, __m512i a, int at)
{
    return _mm512_mask_permutexvar_epi8(to, ~0ull << 48, _mm512_add_epi8(HT_LANES(0, 0), _mm512_set1_epi8((char)at)),
                                        a);
}
#else
#define HT_LANES(off, S)                                                                                               \
    _mm512_add_epi16(_mm512_broadcast_i32x4(_mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7)),                                   \
                     _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_m128i(_mm_set1_epi16((off) / 2),            \
                                                                                 _mm_set1_epi16(((off) + (S)) / 2))),  \
                                        _mm256_zextsi128_si256(_mm_set1_epi16((off) / 2 + (S))), 1))
HT_INLINE __m512i ht_lanes(__m512i a, int off, int S)
{
    return _mm512_permutexvar_epi16(HT_LANES((short)off, (short)S), a);
}
HT_INLINE __m512i ht_lane3(__m512i to, __m512i a, int at)
{
    const __m512i from = _mm512_add_epi16(HT_LANES(0, 0), _mm512_set1_epi16((short)(at / 2)));
    return _mm512_mask_permutexvar_epi16(to, 0xff000000u, from, a);
}
#endif

/* Word `off` (in bytes, even) of each of four blocks, in slots 4L + j for every j: masks pick the slots of one j. */
#define HT_WORDS(off, S)                                                                                               \
    _mm512_castsi256_si512(_mm256_setr_epi16((off) / 2, (off) / 2, (off) / 2, (off) / 2, ((off) + (S)) / 2,            \
                                             ((off) + (S)) / 2, ((off) + (S)) / 2, ((off) + (S)) / 2, (off) / 2 + (S), \
                                             (off) / 2 + (S), (off) / 2 + (S), (off) / 2 + (S), ((off) + 3 * (S)) / 2, \
                                             ((off) + 3 * (S)) / 2, ((off) + 3 * (S)) / 2, ((off) + 3 * (S)) / 2))

/* Four blocks of S bytes, whose 16 bytes of nibbles begin at off, of which `left` bytes may be read: *head gets the
 * first 64 bytes, the result the nibble bytes of one block per lane. */
HT_INLINE __m512i ht_load_nibbles(const uint8_t *p, ptrdiff_t left, int off, int S, __m512i *head)
{
    *head = ht_load64(p, left);
    const int at = 3 * S + off - 48;
    return ht_load_lane3(ht_lanes(*head, off, S), p + at, left - at);
}

HT_INLINE __m512i ht_low_nibbles(__m512i v)
{
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}
HT_INLINE __m512i ht_high_nibbles(__m512i v)
{
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

/* Products of bytes of u, unsigned and at most 64, with signed ones of x (at least -127), four by four in dwords. */
HT_INLINE __m512i ht_products(__m512i u, __m512i x)
{
#if HT_VNNI
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, x);
#else
    return _mm512_madd_epi16(_mm512_maddubs_epi16(u, x), _mm512_set1_epi16(1));
#endif
}

/* The same of two registers each, together: pairs stay below 2^14, so that two fit in a word. */
HT_INLINE __m512i ht_products2(__m512i u0, __m512i u1, __m512i x0, __m512i x1)
{
#if HT_VNNI
    return _mm512_dpbusd_epi32(ht_products(u0, x0), u1, x1);
#else
    __m512i words = _mm512_add_epi16(_mm512_maddubs_epi16(u0, x0), _mm512_maddubs_epi16(u1, x1));
    return _mm512_madd_epi16(words, _mm512_set1_epi16(1));
#endif
}

/* The same for weights that fill a byte. vpdpbusd wants them plus 128, and the caller takes 128 * sum(x) off;
 * vpmaddubsw's words would saturate then, so that without VNNI weights stay signed and lend their sign to x. */
#if HT_VNNI
enum { HT_WIDE_PLUS = 128 };
HT_INLINE __m512i ht_products_wide(__m512i w, __m512i x)
{
    return ht_products(w, x);
}
HT_INLINE __m512i ht_products2_wide(__m512i w0, __m512i w1, __m512i x0, __m512i x1)
{
    return ht_products2(w0, w1, x0, x1);
}
#else
enum { HT_WIDE_PLUS = 0 };
HT_INLINE __m512i ht_products_wide(__m512i w, __m512i x)
{
    return ht_products(_mm512_abs_epi8(w), _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x));
}
HT_INLINE __m512i ht_products2_wide(__m512i w0, __m512i w1, __m512i x0, __m512i x1)
{
    return _mm512_add_epi32(ht_products_wide(w0, x0), ht_products_wide(w1, x1));
}
#endif

/* What the nibbles of the IQ4 types mean, plus HT_WIDE_PLUS. */
HT_INLINE __m512i ht_values_iq4(void)
{
    return _mm512_add_epi8(
        _mm512_broadcast_i32x4(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)),
        _mm512_set1_epi8((char)HT_WIDE_PLUS));
}

/* Slot 4L + j of the result: the sum of the four dwords in lane L of v_j. */
HT_INLINE __m512i ht_sum4(__m512i v0, __m512i v1, __m512i v2, __m512i v3)
{
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v0, v1), _mm512_unpackhi_epi32(v0, v1));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v2, v3), _mm512_unpackhi_epi32(v2, v3));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* The same for dwords that fit in 16 bits. */
HT_INLINE __m512i ht_sum4_16(__m512i v0, __m512i v1, __m512i v2, __m512i v3)
{
    const __m512i one = _mm512_set1_epi16(1);
    __m512i a = _mm512_madd_epi16(_mm512_packs_epi32(v0, v1), one);
    __m512i b = _mm512_madd_epi16(_mm512_packs_epi32(v2, v3), one);
    __m512 fa = _mm512_castsi512_ps(a), fb = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0xdd)));
}

/* The same for dwords of which two together fit in 16 bits. */
HT_INLINE __m512i ht_sum4_15(__m512i v0, __m512i v1, __m512i v2, __m512i v3)
{
    const __m512i one = _mm512_set1_epi16(1);
    __m512i a = _mm512_madd_epi16(_mm512_packs_epi32(v0, v1), one);
    __m512i b = _mm512_madd_epi16(_mm512_packs_epi32(v2, v3), one);
    return _mm512_madd_epi16(_mm512_packs_epi32(a, b), one);
}

/* Lanes [a0 + a1, a2 + a3, b0 + b1, b2 + b3]. */
HT_INLINE __m512i ht_sum_lanes(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
}

/* Sixteen f16 words in the low half of v. */
HT_INLINE __m512 ht_cvt_f16(__m512i v)
{
    return _mm512_cvtph_ps(_mm512_castsi512_si256(v));
}

/* Sixteen blocks of activations, arranged as one weight type wants them: v by its registers, the rest by its slots. */
typedef struct ht_xstep {
    __m512i v[8];
    __m512 d;
    __m512i s; /* a correction, sums, or the floats of sums: the type's own business */
} ht_xstep;

/* prep: 512 q, 16 d, 32 s in memory to an ht_xstep. step: adds n blocks (16, or fewer at the end of a row, where what
 * lies behind them reads as zero scales) of weights at w to the accumulators, whose slot i stands for block order(i).
 */
typedef void ht_prep_fn(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s);
typedef __m512 ht_step_fn(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc);

/* One kernel: rows four at a time, so that x is arranged once for four rows and four streams of memory are under way.
 * order_inv: slot of block i. bytes: of 16 blocks. Everything is inlined and constant but the arguments of the kernel.
 */
HT_INLINE void ht_dot_q8_rows(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,
                              const ht_q8_row *x, uint32_t k, unsigned bytes, ht_prep_fn *prep, ht_step_fn *step,
                              __m512i order_inv)
{
    const uint32_t n_full = k / 512, n_tail = k % 512 / 32;
    int8_t tq[512];
    float td[16];
    int16_t ts[32];

    if (n_tail) {
        const size_t at = (size_t)n_full * 512;
        memset(tq, 0, sizeof tq);
        memset(td, 0, sizeof td);
        memset(ts, 0, sizeof ts);
        memcpy(tq, x->q + at, (size_t)n_tail * 32);
        memcpy(td, x->d + at / 32, n_tail * sizeof *td);
        memcpy(ts, x->s + at / 16, n_tail * 2 * sizeof *ts);
    }
    uint32_t i = 0;
    for (; i + 4 <= n_rows; i += 4) {
        const uint8_t *p[4], *ahead[4];
        for (uint32_t r = 0; r < 4; r++) {
            p[r] = ht_row_at(w, stride, rows, i + r);
            ahead[r] = i + 8 <= n_rows ? ht_row_at(w, stride, rows, i + 4 + r) : p[r];
        }
        __m512 a0 = _mm512_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
        ht_xstep xs;
        for (uint32_t b = 0; b < n_full; b++) {
            const size_t at = (size_t)b * bytes;
            prep(&xs, x->q + (size_t)b * 512, x->d + (size_t)b * 16, x->s + (size_t)b * 32);
            ht_prefetch(ahead[0] + at, bytes);
            a0 = step(p[0] + at, 16, &xs, a0);
            ht_prefetch(ahead[1] + at, bytes);
            a1 = step(p[1] + at, 16, &xs, a1);
            ht_prefetch(ahead[2] + at, bytes);
            a2 = step(p[2] + at, 16, &xs, a2);
            ht_prefetch(ahead[3] + at, bytes);
            a3 = step(p[3] + at, 16, &xs, a3);
        }
        if (n_tail) {
            const size_t at = (size_t)n_full * bytes;
            prep(&xs, tq, td, ts);
            a0 = step(p[0] + at, n_tail, &xs, a0);
            a1 = step(p[1] + at, n_tail, &xs, a1);
            a2 = step(p[2] + at, n_tail, &xs, a2);
            a3 = step(p[3] + at, n_tail, &xs, a3);
        }
        y[i] = ht_tree_zmm(_mm512_permutexvar_ps(order_inv, a0));
        y[i + 1] = ht_tree_zmm(_mm512_permutexvar_ps(order_inv, a1));
        y[i + 2] = ht_tree_zmm(_mm512_permutexvar_ps(order_inv, a2));
        y[i + 3] = ht_tree_zmm(_mm512_permutexvar_ps(order_inv, a3));
    }
    for (; i < n_rows; i++) {
        const uint8_t *p = ht_row_at(w, stride, rows, i);
        __m512 a = _mm512_setzero_ps();
        ht_xstep xs;
        for (uint32_t b = 0; b < n_full; b++, p += bytes) {
            prep(&xs, x->q + (size_t)b * 512, x->d + (size_t)b * 16, x->s + (size_t)b * 32);
            a = step(p, 16, &xs, a);
        }
        if (n_tail) {
            prep(&xs, tq, td, ts);
            a = step(p, n_tail, &xs, a);
        }
        y[i] = ht_tree_zmm(_mm512_permutexvar_ps(order_inv, a));
    }
}

#endif
