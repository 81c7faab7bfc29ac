/* SPDX-License-Identifier: MIT
 *
 * Dot products with 8-bit activations, AVX2. A step takes eight blocks, for eight of the sixteen float accumulators of
 * the contract. Every block's weights are brought into natural order, one block per register (a half per lane),
 * multiplied by vpmaddubsw and summed across lanes eight blocks at a time.
 *
 * vpmaddubsw wants unsigned weights: small ones are shifted by a constant c and c * sum(x) is taken off; large ones
 * lend their sign to x. Both keep its 16-bit sums exact (x is never -128, see quantise_q8). Owner: no state. Threads:
 * any. */
#include "cpu/dot.h"
#include "cpu/dot_avx2.h"

/* Stands for blocks behind the end of a row. */
static const uint8_t no_block[64];

/* ---- blocks of 32 ---------------------------------------------------------------------------------------------- */

HT_INLINE const uint8_t *block(const uint8_t *w, unsigned n, unsigned j, unsigned S)
{
    return j < n ? w + j * S : no_block;
}

/* The f16 at `off` of eight blocks of S bytes. */
HT_INLINE __m256 halves(const uint8_t *w, unsigned n, unsigned S, unsigned off)
{
    return _mm256_cvtph_ps(_mm_setr_epi16(ht_word(block(w, n, 0, S) + off), ht_word(block(w, n, 1, S) + off),
                                          ht_word(block(w, n, 2, S) + off), ht_word(block(w, n, 3, S) + off),
                                          ht_word(block(w, n, 4, S) + off), ht_word(block(w, n, 5, S) + off),
                                          ht_word(block(w, n, 6, S) + off), ht_word(block(w, n, 7, S) + off)));
}

/* 16 bytes: low nibbles are elements 0..15, high ones 16..31. */
HT_INLINE __m256i nibbles(const uint8_t *p)
{
    return _mm256_and_si256(_mm256_srlv_epi64(ht_both128(p), _mm256_setr_epi64x(0, 0, 4, 4)), _mm256_set1_epi8(15));
}

HT_INLINE void step_q4_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    __m256i v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = ht_mul_unsigned(nibbles(block(w, n, j, 18) + 2), x.q + 32 * j);
    ht_add_blocks(acc, halves(w, n, 18, 0), x, _mm256_cvtepi32_ps(_mm256_add_epi32(ht_reduce_15(v), ht_sums(x, -8))));
}

HT_INLINE void step_q4_1(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    __m256i v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = ht_mul_unsigned(nibbles(block(w, n, j, 20) + 4), x.q + 32 * j);
    ht_add_blocks(acc, halves(w, n, 20, 0), x, _mm256_cvtepi32_ps(ht_reduce_15(v)));
    ht_add_blocks(acc, halves(w, n, 20, 2), x, _mm256_cvtepi32_ps(ht_sums(x, 1)));
}

/* 16 in every byte whose bit of the 32 at p is set. */
HT_INLINE __m256i fifth_bits(const uint8_t *p)
{
    const __m256i at = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ull);
    int bits;
    memcpy(&bits, p, 4);
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), at), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), _mm256_set1_epi8(16));
}

HT_INLINE void step_q5_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    __m256i v[8];
    for (unsigned j = 0; j < 8; j++) {
        const uint8_t *p = block(w, n, j, 22);
        v[j] = ht_mul_unsigned(_mm256_or_si256(nibbles(p + 6), fifth_bits(p + 2)), x.q + 32 * j);
    }
    ht_add_blocks(acc, halves(w, n, 22, 0), x, _mm256_cvtepi32_ps(_mm256_add_epi32(ht_reduce_15(v), ht_sums(x, -16))));
}

HT_INLINE void step_q5_1(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    __m256i v[8];
    for (unsigned j = 0; j < 8; j++) {
        const uint8_t *p = block(w, n, j, 24);
        v[j] = ht_mul_unsigned(_mm256_or_si256(nibbles(p + 8), fifth_bits(p + 4)), x.q + 32 * j);
    }
    ht_add_blocks(acc, halves(w, n, 24, 0), x, _mm256_cvtepi32_ps(ht_reduce_15(v)));
    ht_add_blocks(acc, halves(w, n, 24, 2), x, _mm256_cvtepi32_ps(ht_sums(x, 1)));
}

HT_INLINE void step_q8_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    __m256i v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = ht_mul_signed(ht_ymm_at(block(w, n, j, 34) + 2), x.q + 32 * j);
    ht_add_blocks(acc, halves(w, n, 34, 0), x, _mm256_cvtepi32_ps(ht_reduce(v)));
}

HT_INLINE __m256i values_iq4(void)
{
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}

HT_INLINE void step_iq4_nl(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    __m256i v[8];
    for (unsigned j = 0; j < 8; j++)
        v[j] = ht_mul_signed(_mm256_shuffle_epi8(values_iq4(), nibbles(block(w, n, j, 18) + 2)), x.q + 32 * j);
    ht_add_blocks(acc, halves(w, n, 18, 0), x, _mm256_cvtepi32_ps(ht_reduce(v)));
}

HT_INLINE void step_mxfp4(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const __m256i values = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)); /* plus 12 */
    __m256i v[8],
        e = _mm256_setr_epi32(*block(w, n, 0, 17), *block(w, n, 1, 17), *block(w, n, 2, 17), *block(w, n, 3, 17),
                              *block(w, n, 4, 17), *block(w, n, 5, 17), *block(w, n, 6, 17), *block(w, n, 7, 17));
    for (unsigned j = 0; j < 8; j++)
        v[j] = ht_mul_unsigned(_mm256_shuffle_epi8(values, nibbles(block(w, n, j, 17) + 1)), x.q + 32 * j);
    /* 2^(e - 128): exponent e - 1, or a subnormal where e < 2. A block behind the end has a zero x.d. */
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i sub = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    __m256i d = _mm256_blendv_epi8(normal, sub, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e));
    ht_add_blocks(acc, _mm256_castsi256_ps(d), x,
                  _mm256_cvtepi32_ps(_mm256_add_epi32(ht_reduce_15(v), ht_sums(x, -12))));
}

/* ---- blocks of 256 --------------------------------------------------------------------------------------------- */

/* Q4_K, Q5_K: acc + (d * x.d) * (scale * isum) - (dmin * x.d) * (minimum * sum(x)). The floats that hold integers are
 * exact: they stay below 2^24. */
HT_INLINE void add_wide(float *acc, const uint8_t *w, ht_xpart x, __m256i isum)
{
    const __m128i head = ht_xmm_at(w); /* f16 d, f16 dmin, 12 bytes of 6-bit numbers; see unpack.c */
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 0, 1, 0)), 2);
    __m128i both = _mm_or_si128(low, _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030)));
    __m256 sc = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(both));
    __m256 mn = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(both, both)));
    __m256 minus = _mm256_xor_ps(ht_half_at(w + 2), _mm256_set1_ps(-0.0f));

    ht_add_blocks(acc, ht_half_at(w), x, _mm256_mul_ps(_mm256_cvtepi32_ps(isum), sc));
    ht_add_blocks(acc, minus, x, _mm256_mul_ps(_mm256_cvtepi32_ps(ht_sums(x, 1)), mn));
}

HT_INLINE void step_q4_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const __m256i m15 = _mm256_set1_epi8(15);
    __m256i v[8];
    (void)n;
    for (unsigned j = 0; j < 4; j++) {
        __m256i q = ht_ymm_at(w + 16 + 32 * j);
        v[2 * j] = ht_mul_unsigned(_mm256_and_si256(q, m15), x.q + 64 * j);
        v[2 * j + 1] = ht_mul_unsigned(_mm256_and_si256(_mm256_srli_epi16(q, 4), m15), x.q + 64 * j + 32);
    }
    add_wide(acc, w, x, ht_reduce_15(v));
}

HT_INLINE void step_q5_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const __m256i m15 = _mm256_set1_epi8(15), m16 = _mm256_set1_epi8(16), bits = ht_ymm_at(w + 16);
    __m256i v[8];
    (void)n;
    for (unsigned j = 0; j < 4; j++) {
        __m256i q = ht_ymm_at(w + 48 + 32 * j);
        /* bits 2j and 2j + 1 to bit 4 */
        __m256i even = j < 2 ? _mm256_slli_epi16(bits, 4 - 2 * (int)j) : _mm256_srli_epi16(bits, 2 * (int)j - 4);
        __m256i odd = j < 2 ? _mm256_slli_epi16(bits, 3 - 2 * (int)j) : _mm256_srli_epi16(bits, 2 * (int)j - 3);
        v[2 * j] =
            ht_mul_unsigned(_mm256_or_si256(_mm256_and_si256(q, m15), _mm256_and_si256(even, m16)), x.q + 64 * j);
        v[2 * j + 1] =
            ht_mul_unsigned(_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(q, 4), m15), _mm256_and_si256(odd, m16)),
                            x.q + 64 * j + 32);
    }
    add_wide(acc, w, x, ht_reduce_15(v));
}

HT_INLINE void step_q6_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const __m256i m15 = _mm256_set1_epi8(15), m48 = _mm256_set1_epi8(0x30);
    const __m256i sc = _mm256_cvtepi8_epi16(ht_xmm_at(w + 192));
    __m256i v[8];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        __m256i a = ht_ymm_at(w + 64 * h), b = ht_ymm_at(w + 64 * h + 32), bits = ht_ymm_at(w + 128 + 32 * h);
        const int8_t *q = x.q + 128 * h;
        v[4 * h] = ht_mul_unsigned(
            _mm256_or_si256(_mm256_and_si256(a, m15), _mm256_and_si256(_mm256_slli_epi16(bits, 4), m48)), q);
        v[4 * h + 1] = ht_mul_unsigned(
            _mm256_or_si256(_mm256_and_si256(b, m15), _mm256_and_si256(_mm256_slli_epi16(bits, 2), m48)), q + 32);
        v[4 * h + 2] = ht_mul_unsigned(
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(a, 4), m15), _mm256_and_si256(bits, m48)), q + 64);
        v[4 * h + 3] = ht_mul_unsigned(_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(b, 4), m15),
                                                       _mm256_and_si256(_mm256_srli_epi16(bits, 2), m48)),
                                       q + 96);
    }
    __m256i minus = _mm256_slli_epi32(_mm256_madd_epi16(sc, ht_ymm_at(x.s)), 5);
    ht_add_blocks(acc, ht_half_at(w + 208), x, _mm256_cvtepi32_ps(_mm256_sub_epi32(ht_reduce_scaled(v, sc), minus)));
}

HT_INLINE __m256i two_bits(__m256i v, unsigned j)
{
    return _mm256_and_si256(j ? _mm256_srli_epi16(v, 2 * (int)j) : v, _mm256_set1_epi8(3));
}

HT_INLINE void step_q2_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    const __m128i m15 = _mm_set1_epi8(15), bytes = ht_xmm_at(w);
    __m256i v[8];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        __m256i q = ht_ymm_at(w + 16 + 32 * h);
        for (unsigned j = 0; j < 4; j++)
            v[4 * h + j] = ht_mul_unsigned(two_bits(q, j), x.q + 128 * h + 32 * j);
    }
    __m256i mn = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(bytes, 4), m15));
    __m256 minus = _mm256_xor_ps(ht_half_at(w + 82), _mm256_set1_ps(-0.0f));
    ht_add_blocks(acc, ht_half_at(w + 80), x,
                  _mm256_cvtepi32_ps(ht_reduce_scaled(v, _mm256_cvtepu8_epi16(_mm_and_si128(bytes, m15)))));
    ht_add_blocks(acc, minus, x, _mm256_cvtepi32_ps(_mm256_madd_epi16(mn, ht_ymm_at(x.s))));
}

HT_INLINE void step_q3_k(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    /* 12 bytes, loaded from 4 before: dwords 1, 2: low bits of scales 0..7 and 8..15, dword 3: high bits */
    const __m128i s = ht_xmm_at(w + 92);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(s, _MM_SHUFFLE(2, 1, 2, 1)), _mm_setr_epi32(0, 0, 4, 4));
    __m128i high = _mm_srlv_epi32(_mm_shuffle_epi32(s, 0xff), _mm_setr_epi32(0, 2, 4, 6));
    low = _mm_and_si128(low, _mm_set1_epi8(15));
    high = _mm_slli_epi32(_mm_and_si128(high, _mm_set1_epi8(3)), 4);
    const __m256i sc = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm_or_si128(low, high)), _mm256_set1_epi16(32));
    const __m256i bits = ht_ymm_at(w), m4 = _mm256_set1_epi8(4);
    __m256i v[8];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        __m256i q = ht_ymm_at(w + 32 + 32 * h);
        for (unsigned j = 0; j < 4; j++) {
            const int b = (int)(4 * h + j); /* the block's bit, to be brought to bit 2 */
            __m256i third = b < 2 ? _mm256_slli_epi16(bits, 2 - b) : _mm256_srli_epi16(bits, b - 2);
            v[b] = ht_mul_unsigned(_mm256_or_si256(two_bits(q, j), _mm256_and_si256(third, m4)), x.q + 32 * b);
        }
    }
    __m256i minus = _mm256_slli_epi32(_mm256_madd_epi16(sc, ht_ymm_at(x.s)), 2);
    ht_add_blocks(acc, ht_half_at(w + 108), x, _mm256_cvtepi32_ps(_mm256_sub_epi32(ht_reduce_scaled(v, sc), minus)));
}

HT_INLINE void step_tq2_0(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    __m256i v[8];
    (void)n;
    for (unsigned h = 0; h < 2; h++) {
        __m256i q = ht_ymm_at(w + 32 * h);
        for (unsigned j = 0; j < 4; j++)
            v[4 * h + j] = ht_mul_unsigned(two_bits(q, j), x.q + 128 * h + 32 * j);
    }
    ht_add_blocks(acc, ht_half_at(w + 64), x, _mm256_cvtepi32_ps(_mm256_add_epi32(ht_reduce_15(v), ht_sums(x, -1))));
}

HT_INLINE void step_iq4_xs(const uint8_t *w, unsigned n, ht_xpart x, float *acc)
{
    uint32_t low;
    __m256i v[8];
    (void)n;
    memcpy(&low, w + 4, 4);
    for (unsigned j = 0; j < 8; j++)
        v[j] = ht_mul_signed(_mm256_shuffle_epi8(values_iq4(), nibbles(w + 8 + 16 * j)), x.q + 32 * j);
    __m256i a = _mm256_srlv_epi32(_mm256_set1_epi32((int)low), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    __m256i b =
        _mm256_srlv_epi32(_mm256_set1_epi32((uint16_t)ht_word(w + 2)), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    a = _mm256_and_si256(a, _mm256_set1_epi32(15));
    b = _mm256_slli_epi32(_mm256_and_si256(b, _mm256_set1_epi32(3)), 4);
    __m256i sc = _mm256_sub_epi32(_mm256_or_si256(a, b), _mm256_set1_epi32(32));
    ht_add_blocks(acc, ht_half_at(w), x, _mm256_mul_ps(_mm256_cvtepi32_ps(ht_reduce(v)), _mm256_cvtepi32_ps(sc)));
}

#define KERNEL(name, S)                                                                                                \
    void ht_dot_q8_##name##__avx2(float *y, const void *w, size_t stride, uint32_t n_rows, const ht_q8_row *x,         \
                                  uint32_t k)                                                                          \
    {                                                                                                                  \
        ht_dot_q8_rows(y, w, stride, n_rows, x, k, S, step_##name);                                                    \
    }
KERNEL(q4_0, 8 * 18)
KERNEL(q4_1, 8 * 20)
KERNEL(q5_0, 8 * 22)
KERNEL(q5_1, 8 * 24)
KERNEL(q8_0, 8 * 34)
KERNEL(iq4_nl, 8 * 18)
KERNEL(mxfp4, 8 * 17)
KERNEL(q2_k, 84)
KERNEL(q3_k, 110)
KERNEL(q4_k, 144)
KERNEL(q5_k, 176)
KERNEL(q6_k, 210)
KERNEL(iq4_xs, 136)
KERNEL(tq2_0, 66)
