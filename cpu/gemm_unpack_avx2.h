/* SPDX-License-Identifier: MIT
 *
 * 256 weights of the frequent types for the AVX2 integer products: the canonical form (engine/base/types.h), the same
 * as ht_type_unpack's. With few tokens unpacking is most of the work, hence by hand; ht_type_unpack does the other
 * types and the ends of rows. Owner: no state. Threads: any. */
#ifndef HT_CPU_GEMM_UNPACK_AVX2_H
#define HT_CPU_GEMM_UNPACK_AVX2_H

#include <string.h>

#include "cpu/gemm_avx2.h"
#include "engine/base/types.h"

enum { HT_UNPACK_256 = 256 };

HT_INLINE __m128i ht_unpack_at128(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
HT_INLINE __m256i ht_unpack_at(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
HT_INLINE void ht_unpack_put(int8_t *q, __m256i v)
{
    _mm256_store_si256((__m256i *)(void *)q, v);
}
HT_INLINE uint16_t ht_unpack_word(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

/* The f16 at `p` of eight blocks of S bytes to floats. */
HT_INLINE void ht_unpack_halves(const uint8_t *p, unsigned S, float *d)
{
    __m128i h = _mm_cvtsi32_si128(ht_unpack_word(p));
    h = _mm_insert_epi16(h, ht_unpack_word(p + S), 1);
    h = _mm_insert_epi16(h, ht_unpack_word(p + 2 * S), 2);
    h = _mm_insert_epi16(h, ht_unpack_word(p + 3 * S), 3);
    h = _mm_insert_epi16(h, ht_unpack_word(p + 4 * S), 4);
    h = _mm_insert_epi16(h, ht_unpack_word(p + 5 * S), 5);
    h = _mm_insert_epi16(h, ht_unpack_word(p + 6 * S), 6);
    h = _mm_insert_epi16(h, ht_unpack_word(p + 7 * S), 7);
    _mm256_store_ps(d, _mm256_cvtph_ps(h));
}

/* One f16 to eight floats. */
HT_INLINE void ht_unpack_half(const uint8_t *p, float *d, bool minus)
{
    __m256 v = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(ht_unpack_word(p))));
    _mm256_store_ps(d, minus ? _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)) : v);
}

/* 16 bytes: low nibbles are elements 0..15, high ones 16..31. */
HT_INLINE __m256i ht_unpack_nibbles(const uint8_t *p)
{
    const __m128i v = ht_unpack_at128(p);
    return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1),
                            _mm256_set1_epi8(15));
}

/* All ones in every byte whose bit of the 32 at p is set. */
HT_INLINE __m256i ht_unpack_bits(const uint8_t *p)
{
    const __m256i at = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ull);
    int bits;
    memcpy(&bits, p, 4);
    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), at), bit), bit);
}

/* Eight blocks of S bytes: f16 d, in types with a minimum f16 m, in those of 5 bits the fifth bits, nibbles. */
HT_INLINE void ht_unpack_legacy(const uint8_t *p, unsigned S, bool min, bool five, const ht_canon *c)
{
    const unsigned at = min ? 4 : 2, nibbles = five ? at + 4 : at;
    for (unsigned b = 0; b < 8; b++) {
        __m256i v = ht_unpack_nibbles(p + b * S + nibbles);
        if (five && min)
            v = _mm256_or_si256(v, _mm256_and_si256(ht_unpack_bits(p + b * S + at), _mm256_set1_epi8(16)));
        else if (five) /* minus 16 where the bit is not set: the upper nibble filled */
            v = _mm256_or_si256(v, _mm256_andnot_si256(ht_unpack_bits(p + b * S + at), _mm256_set1_epi8(-16)));
        else if (!min)
            v = _mm256_sub_epi8(v, _mm256_set1_epi8(8));
        ht_unpack_put(c->q + 32 * b, v);
    }
    ht_unpack_halves(p, S, c->d);
    if (min)
        ht_unpack_halves(p + 2, S, c->dm);
}

HT_INLINE void ht_unpack_q8_0(const uint8_t *p, const ht_canon *c)
{
    for (unsigned b = 0; b < 8; b++)
        ht_unpack_put(c->q + 32 * b, ht_unpack_at(p + 34 * b + 2));
    ht_unpack_halves(p, 34, c->d);
}

/* Eight blocks of nibbles that stand for values, S bytes apart. */
HT_INLINE void ht_unpack_values(const uint8_t *p, unsigned S, __m128i values, int8_t *q)
{
    const __m256i v = _mm256_broadcastsi128_si256(values);
    for (unsigned b = 0; b < 8; b++)
        ht_unpack_put(q + 32 * b, _mm256_shuffle_epi8(v, ht_unpack_nibbles(p + S * b)));
}

HT_INLINE __m128i ht_values_iq4(void)
{
    return _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

HT_INLINE void ht_unpack_iq4_nl(const uint8_t *p, const ht_canon *c)
{
    ht_unpack_values(p + 2, 18, ht_values_iq4(), c->q);
    ht_unpack_halves(p, 18, c->d);
}

/* f16 d | u16: 8 x 2 high bits of scales | 4 bytes of nibbles: their low 4 bits | nibbles; scales minus 32 */
HT_INLINE void ht_unpack_iq4_xs(const uint8_t *p, const ht_canon *c)
{
    int low;
    memcpy(&low, p + 4, 4);
    __m256i l = _mm256_srlv_epi32(_mm256_set1_epi32(low), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    __m256i h =
        _mm256_srlv_epi32(_mm256_set1_epi32(ht_unpack_word(p + 2)), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    l = _mm256_and_si256(l, _mm256_set1_epi32(15));
    h = _mm256_slli_epi32(_mm256_and_si256(h, _mm256_set1_epi32(3)), 4);
    l = _mm256_sub_epi32(_mm256_or_si256(l, h), _mm256_set1_epi32(32));
    l = _mm256_blend_epi16(l, _mm256_slli_epi32(l, 16), 0xaa);
    _mm256_store_si256((__m256i *)(void *)c->sc, l);
    ht_unpack_values(p + 8, 16, ht_values_iq4(), c->q);
    ht_unpack_half(p, c->d, false);
}

/* u8 e: D = 2^(e - 128) | nibbles */
HT_INLINE void ht_unpack_mxfp4(const uint8_t *p, const ht_canon *c)
{
    for (unsigned b = 0; b < 8; b++) {
        const uint32_t e = p[17 * b], bits = e < 2 ? 0x200000u << e : (e - 1) << 23;
        memcpy(c->d + b, &bits, 4);
    }
    ht_unpack_values(p + 1, 17, _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), c->q);
}

/* 16 bytes: lo = scale, hi = minimum of 16 elements | 64 bytes of 2 bits | f16 d | f16 dmin */
HT_INLINE void ht_unpack_q2_k(const uint8_t *p, const ht_canon *c)
{
    const __m256i m3 = _mm256_set1_epi8(3);
    const __m128i m15 = _mm_set1_epi8(15), both = ht_unpack_at128(p);
    for (unsigned n = 0; n < 2; n++) {
        __m256i v = ht_unpack_at(p + 16 + 32 * n);
        for (unsigned j = 0; j < 4; j++, v = _mm256_srli_epi16(v, 2))
            ht_unpack_put(c->q + 128 * n + 32 * j, _mm256_and_si256(v, m3));
    }
    _mm256_store_si256((__m256i *)(void *)c->sc, _mm256_cvtepu8_epi16(_mm_and_si128(both, m15)));
    _mm256_store_si256((__m256i *)(void *)c->mn, _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(both, 4), m15)));
    ht_unpack_half(p + 80, c->d, false);
    ht_unpack_half(p + 82, c->dm, true);
}

/* 32 bytes of third bits: element 32 i + l is bit i of byte l | 64 bytes of 2 bits | 12 bytes: 16 scales of 6 bits |
 * f16 d; minus 4 where the third bit is not set */
HT_INLINE void ht_unpack_q3_k(const uint8_t *p, const ht_canon *c)
{
    const __m256i m3 = _mm256_set1_epi8(3), m4 = _mm256_set1_epi8(4);
    const __m256i third = ht_unpack_at(p);
    uint32_t w[3];
    for (unsigned n = 0; n < 2; n++) {
        __m256i v = ht_unpack_at(p + 32 + 32 * n), t = n ? _mm256_srli_epi16(third, 4) : third;
        for (unsigned j = 0; j < 4; j++, v = _mm256_srli_epi16(v, 2), t = _mm256_srli_epi16(t, 1)) {
            const __m256i high = _mm256_and_si256(_mm256_slli_epi16(t, 2), m4);
            ht_unpack_put(c->q + 128 * n + 32 * j, _mm256_sub_epi8(_mm256_or_si256(_mm256_and_si256(v, m3), high), m4));
        }
    }
    memcpy(w, p + 96, 12);
    /* scale i: low 4 bits in nibble i / 8 of byte i % 8, high 2 bits in bits 2 (i / 4) of byte 8 + i % 4 */
    const __m128i low =
        _mm_and_si128(_mm_setr_epi32((int)w[0], (int)w[1], (int)(w[0] >> 4), (int)(w[1] >> 4)), _mm_set1_epi8(15));
    const __m128i high =
        _mm_and_si128(_mm_srlv_epi32(_mm_set1_epi32((int)w[2]), _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    const __m128i sc = _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16(high, 4)), _mm_set1_epi8(32));
    _mm256_store_si256((__m256i *)(void *)c->sc, _mm256_cvtepi8_epi16(sc));
    ht_unpack_half(p + 108, c->d, false);
}

/* Scales and minima of Q4_K and Q5_K: f16 d, f16 dmin, 12 bytes of 8 scales and 8 minima of 6 bits. */
HT_INLINE void ht_unpack_wide(const uint8_t *p, const ht_canon *c)
{
    const __m128i head = ht_unpack_at128(p);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 0, 1, 0)), 2);
    __m128i both = _mm_or_si128(low, _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030)));
    _mm256_store_si256((__m256i *)(void *)c->sc, _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(both, both)));
    _mm256_store_si256((__m256i *)(void *)c->mn, _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(both, both)));
    ht_unpack_half(p, c->d, false);
    ht_unpack_half(p + 2, c->dm, true);
}

HT_INLINE void ht_unpack_q45_k(const uint8_t *p, bool five, const ht_canon *c)
{
    const __m256i m15 = _mm256_set1_epi8(15), m16 = _mm256_set1_epi8(16);
    __m256i bits = ht_unpack_at(p + 16); /* of Q5_K: bit i of a byte is the fifth of block i */
    for (unsigned i = 0; i < 4; i++) {
        const __m256i v = ht_unpack_at(p + (five ? 48 : 16) + 32 * i);
        __m256i lo = _mm256_and_si256(v, m15), hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), m15);
        if (five) {
            lo = _mm256_or_si256(lo, _mm256_and_si256(_mm256_slli_epi16(bits, 4), m16));
            hi = _mm256_or_si256(hi, _mm256_and_si256(_mm256_slli_epi16(bits, 3), m16));
            bits = _mm256_srli_epi16(bits, 2);
        }
        ht_unpack_put(c->q + 64 * i, lo);
        ht_unpack_put(c->q + 64 * i + 32, hi);
    }
    ht_unpack_wide(p, c);
}

HT_INLINE void ht_unpack_q6_k_scales(const uint8_t *p, const ht_canon *c)
{
    _mm256_store_si256((__m256i *)(void *)c->sc, _mm256_cvtepi8_epi16(ht_unpack_at128(p + 192)));
    ht_unpack_half(p + 208, c->d, false);
}

/* 128 bytes of low nibbles | 64 bytes of high 2 bits | 16 signed bytes of scales | f16 d; minus 32 */
HT_INLINE void ht_unpack_q6_k(const uint8_t *p, const ht_canon *c)
{
    const __m256i m15 = _mm256_set1_epi8(15), m48 = _mm256_set1_epi8(48), m32 = _mm256_set1_epi8(32);
    for (unsigned n = 0; n < 2; n++) {
        const __m256i a = ht_unpack_at(p + 64 * n), b = ht_unpack_at(p + 64 * n + 32);
        const __m256i h = ht_unpack_at(p + 128 + 32 * n);
        int8_t *q = c->q + 128 * n;
        ht_unpack_put(
            q, _mm256_sub_epi8(
                   _mm256_or_si256(_mm256_and_si256(a, m15), _mm256_and_si256(_mm256_slli_epi16(h, 4), m48)), m32));
        ht_unpack_put(q + 32, _mm256_sub_epi8(_mm256_or_si256(_mm256_and_si256(b, m15),
                                                              _mm256_and_si256(_mm256_slli_epi16(h, 2), m48)),
                                              m32));
        ht_unpack_put(q + 64, _mm256_sub_epi8(_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(a, 4), m15),
                                                              _mm256_and_si256(h, m48)),
                                              m32));
        ht_unpack_put(q + 96, _mm256_sub_epi8(_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(b, 4), m15),
                                                              _mm256_and_si256(_mm256_srli_epi16(h, 2), m48)),
                                              m32));
    }
    ht_unpack_q6_k_scales(p, c);
}

/* n <= 256 elements of a row in canonical form; the arrays hold 256 elements, 32-byte aligned. Scales that are always 1
 * are not written. */
HT_INLINE void ht_unpack_row(ht_type type, const uint8_t *p, uint32_t n, const ht_canon *c)
{
    if (n == HT_UNPACK_256) {
        switch (type) {
        case HT_Q4_0: ht_unpack_legacy(p, 18, false, false, c); return;
        case HT_Q4_1: ht_unpack_legacy(p, 20, true, false, c); return;
        case HT_Q5_0: ht_unpack_legacy(p, 22, false, true, c); return;
        case HT_Q5_1: ht_unpack_legacy(p, 24, true, true, c); return;
        case HT_Q8_0: ht_unpack_q8_0(p, c); return;
        case HT_IQ4_NL: ht_unpack_iq4_nl(p, c); return;
        case HT_IQ4_XS: ht_unpack_iq4_xs(p, c); return;
        case HT_MXFP4: ht_unpack_mxfp4(p, c); return;
        case HT_Q2_K: ht_unpack_q2_k(p, c); return;
        case HT_Q3_K: ht_unpack_q3_k(p, c); return;
        case HT_Q4_K: ht_unpack_q45_k(p, false, c); return;
        case HT_Q5_K: ht_unpack_q45_k(p, true, c); return;
        case HT_Q6_K: ht_unpack_q6_k(p, c); return;
        default: break;
        }
    }
    ht_type_unpack(type, p, n, c);
}

#endif
