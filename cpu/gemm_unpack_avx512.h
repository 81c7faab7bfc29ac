/* SPDX-License-Identifier: MIT
 *
 * 256 weights of the frequent types for the AVX-512 integer products: the canonical form (engine/base/types.h), but q plus a
 * constant of the type, as vpdpbusd or vpmaddubsw (HT_VNNI 0) wants it. With few tokens unpacking is most of the work,
 * hence by hand; ht_type_unpack does the other types and the ends of rows. Owner: no state. Threads: any. */
#ifndef HT_CPU_GEMM_UNPACK_AVX512_H
#define HT_CPU_GEMM_UNPACK_AVX512_H

#include "cpu/dot_q8_avx512.h"

enum { HT_UNPACK_256 = 256 };

/* What is added to the weights of a type: with VNNI so much that they are unsigned, without so little that sums of products
 * fit in 16 bits (0 where that cannot be: the weights stay signed). */
HT_INLINE int ht_unpack_plus(ht_type type)
{
    switch (type) {
    case HT_Q4_0: return 8;
    case HT_MXFP4: return 12;
    case HT_Q6_K: return 32;
    case HT_Q4_K:
    case HT_Q5_K: return 0;
#if HT_VNNI
    default: return 128;
#else
    case HT_Q5_0: return 16;
    case HT_Q3_K: return 4;
    case HT_TQ1_0:
    case HT_TQ2_0: return 1;
    case HT_IQ3_S: return 15; /* odd numbers up to 15 */
    case HT_IQ1_S:
    case HT_IQ1_M: return 9; /* 8 g +- 1 */
    default: return 0;
#endif
    }
}

/* Lanes of `lo` are first halves of four blocks, of `hi` second ones: to natural order. */
HT_INLINE void ht_put_halves(uint8_t *q, __m512i lo, __m512i hi)
{
    _mm512_store_si512(q, _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), hi));
    _mm512_store_si512(q + 64, _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), hi));
}

/* Eight blocks of S bytes with f16 d, then nibbles; values: what a nibble means (plus the constant), or NULL: itself.
 */
HT_INLINE void ht_unpack_nibbles(const uint8_t *p, unsigned S, unsigned off, const __m512i *values, uint8_t *q,
                                 float *d)
{
    for (unsigned j = 0; j < 2; j++, p += 4 * S, q += 128) {
        __m512i head, v = ht_load_nibbles(p, 4 * (ptrdiff_t)S, (int)off, (int)S, &head);
        __m512i lo = ht_low_nibbles(v), hi = ht_high_nibbles(v);
        if (values)
            lo = _mm512_shuffle_epi8(*values, lo), hi = _mm512_shuffle_epi8(*values, hi);
        ht_put_halves(q, lo, hi);
        if (S % 2 == 0) {
            const short s = (short)(S / 2);
            const __m512i at = _mm512_castsi128_si512(_mm_setr_epi16(0, s, (short)(2 * s), (short)(3 * s), 0, 0, 0, 0));
            _mm_store_ps(d + 4 * j, _mm_cvtph_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi16(at, head))));
        }
    }
}

HT_INLINE void ht_unpack_q8_0(const uint8_t *p, uint8_t *q, float *d)
{
    uint16_t h[8];
    for (unsigned b = 0; b < 8; b++, p += 34) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(p + 2));
        _mm256_store_si256((__m256i *)(void *)(q + 32 * b), _mm256_xor_si256(v, _mm256_set1_epi8((char)HT_WIDE_PLUS)));
        memcpy(&h[b], p, 2);
    }
    __m128i w = _mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3], (short)h[4], (short)h[5],
                               (short)h[6], (short)h[7]);
    _mm256_store_ps(d, _mm256_cvtph_ps(w));
}

HT_INLINE void ht_put_half(float *d, const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    _mm256_store_ps(d, _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h))));
}

/* Scales and minima of Q4_K and Q5_K; see add_wide in dot_q8_k_avx512_body.h. */
HT_INLINE void ht_unpack_wide(const uint8_t *p, const ht_canon *c)
{
    const __m128i head = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 0, 1, 0)), 2);
    __m128i both = _mm_or_si128(low, _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030)));
    _mm256_store_si256((__m256i *)(void *)c->sc, _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(both, both)));
    _mm256_store_si256((__m256i *)(void *)c->mn, _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(both, both)));
    ht_put_half(c->d, p);
    ht_put_half(c->dm, p + 2);
    _mm256_store_ps(c->dm, _mm256_xor_ps(_mm256_load_ps(c->dm), _mm256_set1_ps(-0.0f)));
}

/* a: blocks 2j, 2j+1 of the first two groups of 32 nibble bytes in lanes 0-1 and 2-3 */
HT_INLINE void ht_put_groups(uint8_t *q, __m512i even, __m512i odd)
{
    _mm512_store_si512(q, _mm512_shuffle_i64x2(even, odd, 0x44));
    _mm512_store_si512(q + 64, _mm512_shuffle_i64x2(even, odd, 0xee));
}

HT_INLINE void ht_unpack_q4_k(const uint8_t *p, uint8_t *q, const ht_canon *c)
{
    for (unsigned j = 0; j < 2; j++) {
        __m512i v = _mm512_loadu_si512(p + 16 + 64 * j);
        ht_put_groups(q + 128 * j, ht_low_nibbles(v), ht_high_nibbles(v));
    }
    ht_unpack_wide(p, c);
}

HT_INLINE void ht_unpack_q5_k(const uint8_t *p, uint8_t *q, const ht_canon *c)
{
    const __m512i m16 = _mm512_set1_epi8(16);
    const __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)(p + 16)));
    for (unsigned j = 0; j < 2; j++) {
        /* group 2j + (upper half): bits 4j and 4j + 2 for even blocks, one more for odd ones, to bit 4 */
        const __m512i even =
            j ? _mm512_setr_epi64(0, 0, 0, 0, 62, 62, 62, 62) : _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2);
        const __m512i odd =
            j ? _mm512_setr_epi64(63, 63, 63, 63, 61, 61, 61, 61) : _mm512_setr_epi64(3, 3, 3, 3, 1, 1, 1, 1);
        __m512i v = _mm512_loadu_si512(p + 48 + 64 * j);
        ht_put_groups(q + 128 * j,
                      _mm512_ternarylogic_epi32(ht_low_nibbles(v), _mm512_rolv_epi64(bits, even), m16, 0xf8),
                      _mm512_ternarylogic_epi32(ht_high_nibbles(v), _mm512_rolv_epi64(bits, odd), m16, 0xf8));
    }
    ht_unpack_wide(p, c);
}

HT_INLINE void ht_unpack_q6_k(const uint8_t *p, uint8_t *q, const ht_canon *c)
{
    const __m512i m48 = _mm512_set1_epi8(0x30);
    const __m512i left = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2), right = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
    for (unsigned i = 0; i < 2; i++) {
        __m512i nib = _mm512_loadu_si512(p + 64 * i);
        __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)(p + 128 + 32 * i)));
        _mm512_store_si512(q + 128 * i,
                           _mm512_ternarylogic_epi32(ht_low_nibbles(nib), _mm512_sllv_epi64(bits, left), m48, 0xf8));
        _mm512_store_si512(q + 128 * i + 64,
                           _mm512_ternarylogic_epi32(ht_high_nibbles(nib), _mm512_srlv_epi64(bits, right), m48, 0xf8));
    }
    __m128i sc = _mm_loadu_si128((const __m128i *)(const void *)(p + 192));
    _mm256_store_si256((__m256i *)(void *)c->sc, _mm256_cvtepi8_epi16(sc));
    ht_put_half(c->d, p + 208);
}

/* n elements of a row: q + plus as bytes, the rest as canonical. The arrays hold 256 elements, 64-byte
 * aligned. */
HT_INLINE void ht_unpack_unsigned(ht_type type, const uint8_t *p, uint32_t n, const ht_canon *c)
{
    const __m512i iq4 = ht_values_iq4();
    uint8_t *q = (uint8_t *)c->q;

    if (n == HT_UNPACK_256) {
        switch (type) {
        case HT_Q4_0: ht_unpack_nibbles(p, 18, 2, NULL, q, c->d); return;
        case HT_IQ4_NL: ht_unpack_nibbles(p, 18, 2, &iq4, q, c->d); return;
#if HT_VNNI
        case HT_MXFP4: {
            const __m512i fp4 =
                _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
            ht_unpack_nibbles(p, 17, 1, &fp4, q, c->d);
            for (unsigned b = 0; b < 8; b++) {
                const uint32_t e = p[17 * b], bits = e < 2 ? 0x200000u << e : (e - 1) << 23; /* 2^(e - 128) */
                memcpy(c->d + b, &bits, 4);
            }
            return;
        }
#endif
        case HT_Q8_0: ht_unpack_q8_0(p, q, c->d); return;
        case HT_Q4_K: ht_unpack_q4_k(p, q, c); return;
        case HT_Q5_K: ht_unpack_q5_k(p, q, c); return;
        case HT_Q6_K: ht_unpack_q6_k(p, q, c); return;
        default: break;
        }
    }
    ht_type_unpack(type, p, n, c);
    const __m512i plus = _mm512_set1_epi8((char)ht_unpack_plus(type));
    for (uint32_t i = 0; i < n; i += 64) /* up to 32 bytes too many, inside the array */
        _mm512_store_si512(q + i, _mm512_add_epi8(_mm512_load_si512(q + i), plus));
}

#endif
