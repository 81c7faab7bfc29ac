/* SPDX-License-Identifier: MIT
 *
 * Dot products with 8-bit activations, AVX-512: types with blocks of 256, two of them (16 blocks of 32) per step.
 * Included by dot_q8_k_avx512.c and dot_q8_k_avx512vnni.c; see dot_q8_avx512_body.h for that and for the scheme.
 * Sub-block scales are integers and join the sums before any float: a float that holds sum * scale is exact here, as
 * every such product of these types stays below 2^24.
 *
 * Orders, slot 4L + j of the sums ->  K: block 2L + (j & 1) + 8 * (j >> 1).  R: block 2j + (L & 1) + 8 * (L >> 1).
 *                                     N: block 4L + j, the natural one.      T: block 4j + L.
 * Owner: no state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/dot_q8_avx512.h"

#define ORDER_K _mm512_setr_epi32(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)
#define ORDER_K_INV _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)
#define ORDER_R _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
#define ORDER_R_INV _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)
#define ORDER_N _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define ORDER_T _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)

/* Stands for the second block of 256 where a row ends after the first. */
static const uint8_t no_block[256];

HT_INLINE __m512i load(const void *p)
{
    return _mm512_loadu_si512(p);
}
HT_INLINE __m128i load16(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
HT_INLINE __m256i load32(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
HT_INLINE __m512i both256(const void *p)
{
    return _mm512_broadcast_i64x4(load32(p));
}
HT_INLINE __m256i pair(__m128i a, __m128i b)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

/* a | (b & mask) and (a & mask) | b in one instruction each */
HT_INLINE __m512i or_masked(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}

/* The two f16 at p0 and the two at p1 as floats in slots 0..3. One load each: a scale at the end of a block is loaded
 * with the two bytes before it. */
HT_INLINE __m512 four_halves(const uint8_t *p0, const uint8_t *p1)
{
    int a, b;
    memcpy(&a, p0, 4);
    memcpy(&b, p1, 4);
    return _mm512_castps128_ps512(_mm_cvtph_ps(_mm_insert_epi32(_mm_cvtsi32_si128(a), b, 1)));
}

/* One number of the first 256 in the lower slots, one of the second in the upper: numbers i and i + 2 of four_halves.
 */
HT_INLINE __m512 lower_upper(__m512 f, int i)
{
    const __m512i upper = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    return _mm512_permutexvar_ps(_mm512_add_epi32(upper, _mm512_set1_epi32(i)), f);
}

/* ---- Q4_K, Q5_K: order K --------------------------------------------------------------------------------------- */

/* Of each 256: v[4h], v[4h+1]: halves of blocks 0, 2, 4, 6; v[4h+2], v[4h+3]: of blocks 1, 3, 5, 7. s: sums as floats.
 */
HT_INLINE void prep_wide(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    for (int h = 0; h < 2; h++, q += 256) {
        __m512i z0 = load(q), z1 = load(q + 64), z2 = load(q + 128), z3 = load(q + 192);
        __m512i e01 = _mm512_shuffle_i64x2(z0, z1, 0x44), e23 = _mm512_shuffle_i64x2(z2, z3, 0x44);
        __m512i o01 = _mm512_shuffle_i64x2(z0, z1, 0xee), o23 = _mm512_shuffle_i64x2(z2, z3, 0xee);
        x->v[4 * h] = _mm512_shuffle_i64x2(e01, e23, 0x88);
        x->v[4 * h + 1] = _mm512_shuffle_i64x2(e01, e23, 0xdd);
        x->v[4 * h + 2] = _mm512_shuffle_i64x2(o01, o23, 0x88);
        x->v[4 * h + 3] = _mm512_shuffle_i64x2(o01, o23, 0xdd);
    }
    __m512i sum = _mm512_madd_epi16(load(s), _mm512_set1_epi16(1));
    x->s = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_permutexvar_epi32(ORDER_K, sum)));
    x->d = _mm512_permutexvar_ps(ORDER_K, _mm512_loadu_ps(d));
}

/* Scales and minima of two blocks of 256, whose first 16 bytes are f16 d, f16 dmin and 12 bytes of 6-bit numbers:
 * acc + (d * x.d) * (scale * isum) - (dmin * x.d) * (minimum * sum(x)). */
HT_INLINE __m512 add_wide(__m512 acc, const uint8_t *w0, const uint8_t *w1, const ht_xstep *x, __m512i isum)
{
    const __m256i heads = pair(load16(w0), load16(w1));
    /* per lane 8 scales, then 8 minima: the low bits of numbers 0..3 and 4..7 of each, then the high bits of 4..7 */
    __m256i low = _mm256_shuffle_epi32(heads, _MM_SHUFFLE(3, 2, 3, 1));
    low = _mm256_and_si256(_mm256_srlv_epi32(low, _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4)),
                           _mm256_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f,
                                             0x3f3f3f3f, 0x0f0f0f0f));
    __m256i high = _mm256_srli_epi32(_mm256_shuffle_epi32(heads, _MM_SHUFFLE(2, 0, 1, 0)), 2);
    __m256i both = _mm256_ternarylogic_epi32(
        low, high, _mm256_setr_epi32(0, 0x30303030, 0, 0x30303030, 0, 0x30303030, 0, 0x30303030), 0xf8);
#if HT_VNNI
    const __m512i at = _mm512_setr_epi32(0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
    const __m512i bytes = _mm512_castsi256_si512(both);
    __m512i sc = _mm512_maskz_permutexvar_epi8(0x1111111111111111, at, bytes);
    __m512i mn = _mm512_maskz_permutexvar_epi8(0x1111111111111111, _mm512_add_epi32(at, _mm512_set1_epi32(8)), bytes);
#else
    const __m128i first = _mm256_castsi256_si128(both), other = _mm256_extracti128_si256(both, 1);
    __m512i sc = _mm512_permutexvar_epi32(ORDER_K, _mm512_cvtepu8_epi32(_mm_unpacklo_epi64(first, other)));
    __m512i mn = _mm512_permutexvar_epi32(ORDER_K, _mm512_cvtepu8_epi32(_mm_unpackhi_epi64(first, other)));
#endif
    /* d0, dmin0, d1, dmin1 */
    __m512 f = _mm512_castps128_ps512(
        _mm_cvtph_ps(_mm_unpacklo_epi32(_mm256_castsi256_si128(heads), _mm256_extracti128_si256(heads, 1))));
    const __m512i second = _mm512_setr_epi32(0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2);
    __m512 d = _mm512_permutexvar_ps(second, f);
    __m512 dmin = _mm512_permutexvar_ps(_mm512_add_epi32(second, _mm512_set1_epi32(1)), f);

    __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(isum), _mm512_cvtepi32_ps(sc));
    acc = _mm512_fmadd_ps(_mm512_mul_ps(d, x->d), product, acc);
    return _mm512_fnmadd_ps(_mm512_mul_ps(dmin, x->d), _mm512_mul_ps(_mm512_cvtepi32_ps(mn), _mm512_castsi512_ps(x->s)),
                            acc);
}

HT_INLINE __m512 step_q4_k(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    const uint8_t *w1 = n == 16 ? w + 144 : no_block;
    const __m512i m15 = _mm512_set1_epi8(15);
    __m512i v[4];

    for (int h = 0; h < 2; h++) {
        const uint8_t *p = h ? w1 : w;
        __m512i a = load(p + 16), b = load(p + 80);
        __m512i first = _mm512_shuffle_i64x2(a, b, 0x88), last = _mm512_shuffle_i64x2(a, b, 0xdd);
        v[2 * h] =
            ht_products2(_mm512_and_si512(first, m15), _mm512_and_si512(last, m15), x->v[4 * h], x->v[4 * h + 1]);
        v[2 * h + 1] =
            ht_products2(_mm512_and_si512(_mm512_srli_epi16(first, 4), m15),
                         _mm512_and_si512(_mm512_srli_epi16(last, 4), m15), x->v[4 * h + 2], x->v[4 * h + 3]);
    }
    return add_wide(acc, w, w1, x, ht_sum4_15(v[0], v[1], v[2], v[3]));
}

HT_INLINE __m512 step_q5_k(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    const uint8_t *w1 = n == 16 ? w + 176 : no_block;
    const __m512i m15 = _mm512_set1_epi8(15), m16 = _mm512_set1_epi8(16);
    /* rotations that bring bit 2L (even blocks) or 2L + 1 (odd blocks) of every byte in lane L to bit 4 */
    const __m512i even = _mm512_setr_epi64(4, 4, 2, 2, 0, 0, 62, 62),
                  odd = _mm512_setr_epi64(3, 3, 1, 1, 63, 63, 61, 61);
    __m512i v[4];

    for (int h = 0; h < 2; h++) {
        const uint8_t *p = h ? w1 : w;
        __m512i a = load(p + 48), b = load(p + 112);
        __m512i first = _mm512_shuffle_i64x2(a, b, 0x88), last = _mm512_shuffle_i64x2(a, b, 0xdd);
        __m512i bits0 = _mm512_broadcast_i32x4(load16(p + 16)), bits1 = _mm512_broadcast_i32x4(load16(p + 32));
        v[2 * h] = ht_products2(or_masked(_mm512_and_si512(first, m15), _mm512_rolv_epi64(bits0, even), m16),
                                or_masked(_mm512_and_si512(last, m15), _mm512_rolv_epi64(bits1, even), m16),
                                x->v[4 * h], x->v[4 * h + 1]);
        v[2 * h + 1] = ht_products2(
            or_masked(_mm512_and_si512(_mm512_srli_epi16(first, 4), m15), _mm512_rolv_epi64(bits0, odd), m16),
            or_masked(_mm512_and_si512(_mm512_srli_epi16(last, 4), m15), _mm512_rolv_epi64(bits1, odd), m16),
            x->v[4 * h + 2], x->v[4 * h + 3]);
    }
    return add_wide(acc, w, w1, x, ht_sum4_16(v[0], v[1], v[2], v[3]));
}

/* ---- Q6_K: order R --------------------------------------------------------------------------------------------- */

/* Registers in natural order: lanes are halves of blocks. s: the sums as they are. */
HT_INLINE void prep_natural(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    for (int j = 0; j < 8; j++)
        x->v[j] = load(q + 64 * j);
    x->d = _mm512_permutexvar_ps(ORDER_R, _mm512_loadu_ps(d));
    x->s = load(s);
}

/* Lanes of v_i: half 4i + L of a block of 256. Sums by half, times the halves' scales: 4 registers to slots 4L + i. */
HT_INLINE __m512i scaled_halves(__m512i v0, __m512i v1, __m512i v2, __m512i v3, const uint8_t *scales)
{
    __m512i sc = _mm512_cvtepi8_epi32(load16(scales));
    return _mm512_mullo_epi32(ht_sum4_16(v0, v1, v2, v3), _mm512_permutexvar_epi32(ORDER_T, sc));
}

HT_INLINE __m512 step_q6_k(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    const uint8_t *w1 = n == 16 ? w + 210 : no_block;
    const __m512i m15 = _mm512_set1_epi8(15), m48 = _mm512_set1_epi8(0x30);
    const __m512i left = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2), right = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
    __m512i sums[2];

    for (int h = 0; h < 2; h++) {
        const uint8_t *p = h ? w1 : w;
        __m512i v[4];
        for (int i = 0; i < 2; i++) {
            __m512i nib = load(p + 64 * i), bits = both256(p + 128 + 32 * i);
            __m512i lo = or_masked(_mm512_and_si512(nib, m15), _mm512_sllv_epi64(bits, left), m48);
            __m512i hi =
                or_masked(_mm512_and_si512(_mm512_srli_epi16(nib, 4), m15), _mm512_srlv_epi64(bits, right), m48);
            v[2 * i] = ht_products(lo, x->v[4 * h + 2 * i]);
            v[2 * i + 1] = ht_products(hi, x->v[4 * h + 2 * i + 1]);
        }
        sums[h] = scaled_halves(v[0], v[1], v[2], v[3], p + 192);
    }
    __m512i sc = _mm512_cvtepi8_epi16(pair(load16(w + 192), load16(w1 + 192)));
    __m512i minus = _mm512_permutexvar_epi32(ORDER_R, _mm512_slli_epi32(_mm512_madd_epi16(sc, x->s), 5));
    __m512i isum = _mm512_sub_epi32(ht_sum_lanes(sums[0], sums[1]), minus);
    __m512 d = lower_upper(four_halves(w + 206, w1 + 206), 1);
    return _mm512_fmadd_ps(_mm512_mul_ps(d, x->d), _mm512_cvtepi32_ps(isum), acc);
}

/* ---- Q2_K, Q3_K, TQ2_0: order N -------------------------------------------------------------------------------- */

/* Of each 256: v[4h + j]: block j, then block 4 + j: what two bits of 64 bytes hold. s: the sums as they are. */
HT_INLINE void prep_pairs(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    for (int h = 0; h < 2; h++, q += 256) {
        for (int j = 0; j < 2; j++) {
            __m512i a = load(q + 64 * j), b = load(q + 128 + 64 * j);
            x->v[4 * h + 2 * j] = _mm512_shuffle_i64x2(a, b, 0x44);
            x->v[4 * h + 2 * j + 1] = _mm512_shuffle_i64x2(a, b, 0xee);
        }
    }
    x->d = _mm512_loadu_ps(d);
    x->s = load(s);
}

/* s: minus the sums of blocks. */
HT_INLINE void prep_pairs_minus1(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    prep_pairs(x, q, d, s);
    x->s = _mm512_madd_epi16(x->s, _mm512_set1_epi16(-1));
}

/* Bits 2j, 2j + 1 of every byte. */
HT_INLINE __m512i two_bits(__m512i v, int j)
{
    return _mm512_and_si512(j ? _mm512_srli_epi16(v, 2 * (unsigned)j) : v, _mm512_set1_epi8(3));
}

/* Sums by block of 32 from the sums of halves in lanes: v_j lane L: half L & 1 of block 4 (L >> 1) + j; words hold the
 * scale of each half as 16-bit numbers in natural order, of both blocks of 256. h: which of them. */
HT_INLINE __m512i scaled_pairs(const __m512i *v, __m512i words, int h)
{
    /* half of v_0, v_1 in lane L: 8 (L >> 1) + (L & 1), and + 2; four words each, as packs puts them */
    const __m512i at =
        _mm512_setr_epi64(0, 0x0002000200020002, 0x0001000100010001, 0x0003000300030003, 0x0008000800080008,
                          0x000a000a000a000a, 0x0009000900090009, 0x000b000b000b000b);
    __m512i at0 = _mm512_add_epi16(at, _mm512_set1_epi16((short)(16 * h)));
    __m512i at2 = _mm512_add_epi16(at, _mm512_set1_epi16((short)(16 * h + 4)));
    __m512i a = _mm512_madd_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_permutexvar_epi16(at0, words));
    __m512i b = _mm512_madd_epi16(_mm512_packs_epi32(v[2], v[3]), _mm512_permutexvar_epi16(at2, words));
    __m512 fa = _mm512_castsi512_ps(a), fb = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0xdd)));
}

HT_INLINE __m512 step_q2_k(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    const uint8_t *w1 = n == 16 ? w + 84 : no_block;
    const __m256i m15 = _mm256_set1_epi8(15), bytes = pair(load16(w), load16(w1));
    const __m512i sc = _mm512_cvtepu8_epi16(_mm256_and_si256(bytes, m15));
    const __m512i mn = _mm512_cvtepu8_epi16(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), m15));
    __m512i sums[2];

    for (int h = 0; h < 2; h++) {
        __m512i q = load((h ? w1 : w) + 16), v[4];
        for (int j = 0; j < 4; j++)
            v[j] = ht_products(two_bits(q, j), x->v[4 * h + j]);
        sums[h] = scaled_pairs(v, sc, h);
    }
    __m512 isum = _mm512_cvtepi32_ps(ht_sum_lanes(sums[0], sums[1]));
    __m512 msum = _mm512_cvtepi32_ps(_mm512_madd_epi16(mn, x->s)), f = four_halves(w + 80, w1 + 80);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(lower_upper(f, 0), x->d), isum, acc);
    return _mm512_fnmadd_ps(_mm512_mul_ps(lower_upper(f, 1), x->d), msum, acc);
}

HT_INLINE __m512 step_q3_k(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    const uint8_t *w1 = n == 16 ? w + 110 : no_block;
    const __m512i m4 = _mm512_set1_epi8(4);
    /* 12 bytes, loaded from 4 before: dwords 1, 2 low bits of scales 0..7 and 8..15, dword 3 high bits */
    const __m256i s = pair(load16(w + 92), load16(w1 + 92));
    __m256i low =
        _mm256_srlv_epi32(_mm256_shuffle_epi32(s, _MM_SHUFFLE(2, 1, 2, 1)), _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4));
    __m256i high = _mm256_rolv_epi32(_mm256_shuffle_epi32(s, 0xff), _mm256_setr_epi32(4, 2, 0, 30, 4, 2, 0, 30));
    __m256i six =
        _mm256_ternarylogic_epi32(_mm256_and_si256(low, _mm256_set1_epi8(15)), high, _mm256_set1_epi8(0x30), 0xf8);
    const __m512i sc = _mm512_sub_epi16(_mm512_cvtepu8_epi16(six), _mm512_set1_epi16(32));
    __m512i sums[2];

    for (int h = 0; h < 2; h++) {
        const uint8_t *p = h ? w1 : w;
        /* third bits: bit j of the first 32 elements of block j, bit 4 + j of those of block 4 + j */
        __m512i q = load(p + 32), v[4];
        __m512i bits = _mm512_srlv_epi64(both256(p), _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4));
        for (int j = 0; j < 4; j++) {
            __m512i third = j < 2    ? _mm512_slli_epi16(bits, 2 - (unsigned)j)
                            : j == 2 ? bits
                                     : _mm512_srli_epi16(bits, 1);
            v[j] = ht_products(or_masked(two_bits(q, j), third, m4), x->v[4 * h + j]);
        }
        sums[h] = scaled_pairs(v, sc, h);
    }
    __m512i minus = _mm512_slli_epi32(_mm512_madd_epi16(sc, x->s), 2);
    __m512 isum = _mm512_cvtepi32_ps(_mm512_sub_epi32(ht_sum_lanes(sums[0], sums[1]), minus));
    return _mm512_fmadd_ps(_mm512_mul_ps(lower_upper(four_halves(w + 106, w1 + 106), 1), x->d), isum, acc);
}

HT_INLINE __m512 step_tq2_0(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    const uint8_t *w1 = n == 16 ? w + 66 : no_block;
    __m512i sums[2];

    for (int h = 0; h < 2; h++) {
        __m512i q = load(h ? w1 : w), v[4];
        for (int j = 0; j < 4; j++)
            v[j] = ht_products(two_bits(q, j), x->v[4 * h + j]);
        sums[h] = ht_sum4_15(v[0], v[1], v[2], v[3]);
    }
    __m512 isum = _mm512_cvtepi32_ps(_mm512_add_epi32(ht_sum_lanes(sums[0], sums[1]), x->s));
    return _mm512_fmadd_ps(_mm512_mul_ps(lower_upper(four_halves(w + 62, w1 + 62), 1), x->d), isum, acc);
}

/* ---- IQ4_XS: order T ------------------------------------------------------------------------------------------- */

/* v[2j], v[2j + 1]: first and second halves of blocks 4j .. 4j+3. s: what takes HT_WIDE_PLUS off. */
HT_INLINE void prep_halves(ht_xstep *x, const int8_t *q, const float *d, const int16_t *s)
{
    for (int j = 0; j < 4; j++) {
        __m512i a = load(q + 128 * j), b = load(q + 128 * j + 64);
        x->v[2 * j] = _mm512_shuffle_i64x2(a, b, 0x88);
        x->v[2 * j + 1] = _mm512_shuffle_i64x2(a, b, 0xdd);
    }
    x->d = _mm512_permutexvar_ps(ORDER_T, _mm512_loadu_ps(d));
    x->s = _mm512_permutexvar_epi32(ORDER_T, _mm512_madd_epi16(load(s), _mm512_set1_epi16(-HT_WIDE_PLUS)));
}

/* Eight scales of 6 bits as 32-bit numbers, from u16 of high bits and 4 bytes of nibbles. */
HT_INLINE __m256i scales_iq4_xs(const uint8_t *p)
{
    uint16_t high;
    uint32_t low;
    memcpy(&high, p + 2, 2);
    memcpy(&low, p + 4, 4);
    __m256i a = _mm256_srlv_epi32(_mm256_set1_epi32((int)low), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    __m256i b = _mm256_srlv_epi32(_mm256_set1_epi32(high << 4), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    a = _mm256_ternarylogic_epi32(_mm256_and_si256(a, _mm256_set1_epi32(15)), b, _mm256_set1_epi32(0x30), 0xf8);
    return _mm256_sub_epi32(a, _mm256_set1_epi32(32));
}

HT_INLINE __m512 step_iq4_xs(const uint8_t *w, unsigned n, const ht_xstep *x, __m512 acc)
{
    const uint8_t *w1 = n == 16 ? w + 136 : no_block;
    const __m512i m15 = _mm512_set1_epi8(15);
    const __m512i values = ht_values_iq4();
    __m512i v[4];

    for (int j = 0; j < 4; j++) {
        __m512i q = load((j < 2 ? w : w1) + 8 + 64 * (j % 2));
        v[j] = ht_products2_wide(_mm512_shuffle_epi8(values, _mm512_and_si512(q, m15)),
                                 _mm512_shuffle_epi8(values, _mm512_and_si512(_mm512_srli_epi16(q, 4), m15)),
                                 x->v[2 * j], x->v[2 * j + 1]);
    }
    __m512 isum = _mm512_cvtepi32_ps(_mm512_add_epi32(ht_sum4(v[0], v[1], v[2], v[3]), x->s));
    __m512i sc = _mm512_inserti64x4(_mm512_castsi256_si512(scales_iq4_xs(w)), scales_iq4_xs(w1), 1);
    isum = _mm512_mul_ps(isum, _mm512_cvtepi32_ps(_mm512_permutexvar_epi32(ORDER_T, sc)));
    const __m512i second = _mm512_setr_epi32(0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2); /* slots with j = 2, 3 */
    __m512 d = _mm512_permutexvar_ps(second, four_halves(w, w1));
    return _mm512_fmadd_ps(_mm512_mul_ps(d, x->d), isum, acc);
}

#define KERNEL(name, S, prep, order_inv)                                                                               \
    void HT_DOT(name)(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,                   \
                      const ht_q8_row *x, uint32_t k)                                                                  \
    {                                                                                                                  \
        ht_dot_q8_rows(y, w, stride, rows, n_rows, x, k, 2 * (S), prep, step_##name, order_inv);                       \
    }
KERNEL(q2_k, 84, prep_pairs, ORDER_N)
KERNEL(q3_k, 110, prep_pairs, ORDER_N)
KERNEL(q4_k, 144, prep_wide, ORDER_K_INV)
KERNEL(q5_k, 176, prep_wide, ORDER_K_INV)
KERNEL(q6_k, 210, prep_natural, ORDER_R_INV)
KERNEL(iq4_xs, 136, prep_halves, ORDER_T)
KERNEL(tq2_0, 66, prep_pairs_minus1, ORDER_N)
