/* SPDX-License-Identifier: MIT
 *
 * Dot products with 8-bit activations, AVX-512: types with blocks of 32. Included by dot_q8_avx512.c and
 * dot_q8_avx512vnni.c, which set HT_VNNI and the functions' names HT_DOT(type).
 *
 * A step takes 16 blocks, one for each float accumulator of the contract. Four registers v_j collect the blocks'
 * partial sums (lane L of v_j: block 4j + L) and one transposing sum brings the 16 results into the slots of
 * one register: slot 4L + j holds block 4j + L ("order T"). The accumulators stay in that order to the end of the row.
 * Products want unsigned weights: they are shifted by a constant c, and c * sum(x), which all rows share, is taken off.
 * Owner: no state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/dot_q8_avx512.h"

/* Block of slot i; its own inverse. */
#define ORDER_T _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
/* Q8_0, where a register holds two blocks: slot 4L + j holds block 2j + (L & 1) + 8 * (L >> 1); and the slot of block
 * i. */
#define ORDER_R _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
#define ORDER_R_INV _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* v[2j], v[2j + 1]: first and second halves of blocks 4j .. 4j+3. s: c * sum(x). */
HT_INLINE void prep_halves(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s, int c)
{
    for (int j = 0; j < 4; j++) {
        __m512i a = _mm512_loadu_si512(q + 128 * j), b = _mm512_loadu_si512(q + 128 * j + 64);
        x->v[2 * j] = _mm512_shuffle_i64x2(a, b, 0x88);
        x->v[2 * j + 1] = _mm512_shuffle_i64x2(a, b, 0xdd);
    }
    x->d = _mm512_permutexvar_ps(ORDER_T, _mm512_loadu_ps(d));
    x->s = _mm512_permutexvar_epi32(ORDER_T, _mm512_madd_epi16(_mm512_loadu_si512(s), _mm512_set1_epi16((short)c)));
}

HT_INLINE void prep_minus8(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    prep_halves(x, q, d, s, -8);
}
HT_INLINE void prep_minus16(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    prep_halves(x, q, d, s, -16);
}
HT_INLINE void prep_wide(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    prep_halves(x, q, d, s, -HT_WIDE_PLUS);
}

/* s: the sums as floats, for the minima. */
HT_INLINE void prep_min(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    prep_halves(x, q, d, s, 1);
    x->s = _mm512_castps_si512(_mm512_cvtepi32_ps(x->s));
}

HT_INLINE void prep_q8_0(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    for (int j = 0; j < 8; j++)
        x->v[j] = _mm512_loadu_si512(q + 64 * j);
    x->d = _mm512_permutexvar_ps(ORDER_R, _mm512_loadu_ps(d));
    x->s =
        _mm512_permutexvar_epi32(ORDER_R, _mm512_madd_epi16(_mm512_loadu_si512(s), _mm512_set1_epi16(-HT_WIDE_PLUS)));
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* acc + (d * x.d) * isum */
HT_INLINE __m512 add_blocks(__m512 acc, __m512 d, const ht_xstep *x, __m512i isum)
{
    return _mm512_fmadd_ps(_mm512_mul_ps(d, x->d), _mm512_cvtepi32_ps(isum), acc);
}

HT_INLINE __m512i dot2(__m512i lo, __m512i hi, const ht_xstep *x, int j)
{
    return ht_products2(lo, hi, x->v[2 * j], x->v[2 * j + 1]);
}

HT_INLINE __m512 step_q4_0(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    enum { S = 18 };
    const __m512i words = HT_WORDS(0, S);
    __m512i v[4], d = _mm512_setzero_si512();

    for (int j = 0; j < 4; j++) {
        __m512i head, q = ht_load_nibbles(w + 4 * S * j, (ptrdiff_t)n * S - 4 * S * j, 2, S, &head);
        d = _mm512_mask_permutexvar_epi16(d, 0x1111u << j, words, head);
        v[j] = dot2(ht_low_nibbles(q), ht_high_nibbles(q), x, j);
    }
    return add_blocks(acc, ht_cvt_f16(d), x, _mm512_add_epi32(ht_sum4_15(v[0], v[1], v[2], v[3]), x->s));
}

HT_INLINE __m512 step_q4_1(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    enum { S = 20 };
    const __m512i words = HT_WORDS(0, S), words_m = HT_WORDS(2, S);
    __m512i v[4], d = _mm512_setzero_si512(), m = d;

    for (int j = 0; j < 4; j++) {
        __m512i head, q = ht_load_nibbles(w + 4 * S * j, (ptrdiff_t)n * S - 4 * S * j, 4, S, &head);
        d = _mm512_mask_permutexvar_epi16(d, 0x1111u << j, words, head);
        m = _mm512_mask_permutexvar_epi16(m, 0x1111u << j, words_m, head);
        v[j] = dot2(ht_low_nibbles(q), ht_high_nibbles(q), x, j);
    }
    acc = add_blocks(acc, ht_cvt_f16(d), x, ht_sum4_15(v[0], v[1], v[2], v[3]));
    return _mm512_fmadd_ps(_mm512_mul_ps(ht_cvt_f16(m), x->d), _mm512_castsi512_ps(x->s), acc);
}

HT_INLINE __m512 step_iq4_nl(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    enum { S = 18 };
    const __m512i words = HT_WORDS(0, S);
    const __m512i values = ht_values_iq4();
    __m512i v[4], d = _mm512_setzero_si512();

    for (int j = 0; j < 4; j++) {
        __m512i head, q = ht_load_nibbles(w + 4 * S * j, (ptrdiff_t)n * S - 4 * S * j, 2, S, &head);
        d = _mm512_mask_permutexvar_epi16(d, 0x1111u << j, words, head);
        v[j] = ht_products2_wide(_mm512_shuffle_epi8(values, ht_low_nibbles(q)),
                                 _mm512_shuffle_epi8(values, ht_high_nibbles(q)), x->v[2 * j], x->v[2 * j + 1]);
    }
    return add_blocks(acc, ht_cvt_f16(d), x, _mm512_add_epi32(ht_sum4(v[0], v[1], v[2], v[3]), x->s));
}

#if HT_VNNI /* blocks of an odd size: without VBMI the AVX2 form serves */
HT_INLINE void prep_minus12(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    prep_halves(x, q, d, s, -12);
}

HT_INLINE __m512 step_mxfp4(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    enum { S = 17 };
    const __m512i heads =
        _mm512_setr_epi32(0, 0, 0, 0, S, S, S, S, 2 * S, 2 * S, 2 * S, 2 * S, 3 * S, 3 * S, 3 * S, 3 * S);
    const __m512i values =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)); /* plus 12 */
    __m512i v[4], e = _mm512_setzero_si512();

    for (int j = 0; j < 4; j++) {
        __m512i head, q = ht_load_nibbles(w + 4 * S * j, (ptrdiff_t)n * S - 4 * S * j, 1, S, &head);
        e = _mm512_mask_permutexvar_epi8(e, 0x0001000100010001ull << (4 * j), heads, head);
        v[j] =
            dot2(_mm512_shuffle_epi8(values, ht_low_nibbles(q)), _mm512_shuffle_epi8(values, ht_high_nibbles(q)), x, j);
    }
    /* 2^(e - 128): exponent e - 1, or a subnormal where e < 2 */
    __m512i bits = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __mmask16 sub = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    bits = _mm512_mask_sllv_epi32(bits, sub, _mm512_set1_epi32(0x200000), e);
    return add_blocks(acc, _mm512_castsi512_ps(bits), x, _mm512_add_epi32(ht_sum4_16(v[0], v[1], v[2], v[3]), x->s));
}
#endif

/* The fifth bits of four blocks of S bytes: 32 bits at `off` of each; v[0], v[1] get 16 where the bit is set. head: the
 * blocks' first bytes, one block per lane. */
HT_INLINE void fifth_bits(__m512i head, int off, __m512i *lo, __m512i *hi)
{
    const __m512i bit = _mm512_set1_epi64((long long)0x8040201008040201ull), sixteen = _mm512_set1_epi8(16);
    const __m512i at = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    __m512i a = _mm512_shuffle_epi8(head, _mm512_add_epi8(at, _mm512_set1_epi8((char)off)));
    __m512i b = _mm512_shuffle_epi8(head, _mm512_add_epi8(at, _mm512_set1_epi8((char)(off + 2))));
    *lo = _mm512_mask_add_epi8(*lo, _mm512_test_epi8_mask(a, bit), *lo, sixteen);
    *hi = _mm512_mask_add_epi8(*hi, _mm512_test_epi8_mask(b, bit), *hi, sixteen);
}

/* Four blocks of S = 22 or 24 bytes: 16 nibble bytes per lane, and *head: 16 first bytes per lane. */
HT_INLINE __m512i load_fives(const uint8_t *p, ptrdiff_t left, int off, int S, __m512i *head)
{
    const int at = 3 * S + off - 48, at3 = 4 * S - 64;
    __m512i a = ht_load64(p, left), b = ht_load64(p + off, left - off), c = ht_load64(p + at3, left - at3);
    /* heads of blocks 0..2 lie in a, of block 3 at byte 64 - S of c */
    *head = ht_lane3(ht_lanes(a, 0, S), c, 64 - S);
    return ht_load_lane3(ht_lanes(b, 0, S), p + at, left - at);
}

HT_INLINE __m512 step_q5_0(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    enum { S = 22 };
    const __m512i words = HT_WORDS(0, 16);
    __m512i v[4], d = _mm512_setzero_si512();

    for (int j = 0; j < 4; j++) {
        __m512i head, q = load_fives(w + 4 * S * j, (ptrdiff_t)n * S - 4 * S * j, 6, S, &head);
        __m512i lo = ht_low_nibbles(q), hi = ht_high_nibbles(q);
        d = _mm512_mask_permutexvar_epi16(d, 0x1111u << j, words, head);
        fifth_bits(head, 2, &lo, &hi);
        v[j] = dot2(lo, hi, x, j);
    }
    return add_blocks(acc, ht_cvt_f16(d), x, _mm512_add_epi32(ht_sum4_16(v[0], v[1], v[2], v[3]), x->s));
}

HT_INLINE __m512 step_q5_1(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    enum { S = 24 };
    const __m512i words = HT_WORDS(0, 16), words_m = HT_WORDS(2, 16);
    __m512i v[4], d = _mm512_setzero_si512(), m = d;

    for (int j = 0; j < 4; j++) {
        __m512i head, q = load_fives(w + 4 * S * j, (ptrdiff_t)n * S - 4 * S * j, 8, S, &head);
        __m512i lo = ht_low_nibbles(q), hi = ht_high_nibbles(q);
        d = _mm512_mask_permutexvar_epi16(d, 0x1111u << j, words, head);
        m = _mm512_mask_permutexvar_epi16(m, 0x1111u << j, words_m, head);
        fifth_bits(head, 4, &lo, &hi);
        v[j] = dot2(lo, hi, x, j);
    }
    acc = add_blocks(acc, ht_cvt_f16(d), x, ht_sum4_16(v[0], v[1], v[2], v[3]));
    return _mm512_fmadd_ps(_mm512_mul_ps(ht_cvt_f16(m), x->d), _mm512_castsi512_ps(x->s), acc);
}

HT_INLINE __m512 step_q8_0(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    enum { S = 34 };
    /* the scales of two blocks: words 0 and 17, wanted in the slots of ORDER_R */
    const __m512i words =
        _mm512_castsi256_si512(_mm256_setr_epi16(0, 0, 0, 0, 17, 17, 17, 17, 0, 0, 0, 0, 17, 17, 17, 17));
    const __m512i plus = _mm512_set1_epi8((char)HT_WIDE_PLUS);
    __m512i v[8], d = _mm512_setzero_si512();

    for (int j = 0; j < 8; j++) {
        const uint8_t *p = w + 2 * S * j;
        ptrdiff_t left = (ptrdiff_t)n * S - 2 * S * j;
        __m512i head = ht_load64(p, left), q;
        if (n == 16)
            q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(p + 2))),
                                   _mm256_loadu_si256((const __m256i *)(p + 36)), 1);
        else
            q = _mm512_mask_blend_epi64(0xf0, ht_load64(p + 2, left - 2), ht_load64(p + 4, left - 4));
        d = _mm512_mask_permutexvar_epi16(d, (j < 4 ? 0x0011u : 0x1100u) << (j % 4), words, head);
        v[j] = ht_products_wide(_mm512_xor_si512(q, plus), x->v[j]);
    }
    __m512i sum = ht_sum_lanes(ht_sum4(v[0], v[1], v[2], v[3]), ht_sum4(v[4], v[5], v[6], v[7]));
    return add_blocks(acc, ht_cvt_f16(d), x, _mm512_add_epi32(sum, x->s));
}

#define KERNEL(name, S, prep, order_inv)                                                                               \
    void HT_DOT(name)(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,                   \
                      const ht_q8_row *x, uint32_t k)                                                                  \
    {                                                                                                                  \
        ht_dot_q8_rows(y, w, stride, rows, n_rows, x, k, 16 * (S), prep, step_##name, order_inv);                      \
    }
KERNEL(q4_0, 18, prep_minus8, ORDER_T)
KERNEL(q4_1, 20, prep_min, ORDER_T)
KERNEL(q5_0, 22, prep_minus16, ORDER_T)
KERNEL(q5_1, 24, prep_min, ORDER_T)
KERNEL(q8_0, 34, prep_q8_0, ORDER_R_INV)
KERNEL(iq4_nl, 18, prep_wide, ORDER_T)
#if HT_VNNI
KERNEL(mxfp4, 17, prep_minus12, ORDER_T)
#endif
