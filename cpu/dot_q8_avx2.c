/* SPDX-License-Identifier: MIT
 *
 * Dot products with 8-bit activations, AVX2. A step takes eight blocks of 32, for eight of the sixteen float
 * accumulators of the contract. Weights are multiplied by vpmaddubsw and summed across lanes eight blocks at a time, in
 * words as far as the type's range allows.
 *
 * vpmaddubsw wants unsigned weights: small ones are shifted by a constant c and c * sum(x) is taken off; large ones
 * lend their sign to x. Owner: no state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/dot_avx2.h"

/* ---- blocks of 32 ---------------------------------------------------------------------------------------------- */

/* The words at w of eight blocks of S bytes in the lower half, those after them in the upper half of four xmm. Reads 16
 * bytes of each block. */
HT_INLINE void heads(const uint8_t *w, unsigned S, __m128i *first, __m128i *second)
{
    __m128i a = _mm_unpacklo_epi16(ht_xmm_at(w), ht_xmm_at(w + S));
    __m128i b = _mm_unpacklo_epi16(ht_xmm_at(w + 2 * S), ht_xmm_at(w + 3 * S));
    __m128i c = _mm_unpacklo_epi16(ht_xmm_at(w + 4 * S), ht_xmm_at(w + 5 * S));
    __m128i d = _mm_unpacklo_epi16(ht_xmm_at(w + 6 * S), ht_xmm_at(w + 7 * S));
    a = _mm_unpacklo_epi32(a, b), c = _mm_unpacklo_epi32(c, d);
    *first = _mm_unpacklo_epi64(a, c);
    *second = _mm_unpackhi_epi64(a, c);
}

/* The f16 at the head of eight blocks of S bytes. */
HT_INLINE __m256 halves(const uint8_t *w, unsigned S)
{
    __m128i d, rest;
    heads(w, S, &d, &rest);
    return _mm256_cvtph_ps(d);
}

/* The same for blocks of 18 bytes, two with a load. */
HT_INLINE __m256 halves18(const uint8_t *w)
{
    /* lower lanes: d0 d2, d4 d6; upper ones, two words behind: d1 d3, d5 d7 */
    __m256i a = _mm256_unpacklo_epi16(ht_ymm_at(w), ht_ymm_at(w + 36));
    __m256i b = _mm256_unpacklo_epi16(ht_ymm_at(w + 72), ht_ymm_at(w + 108));
    a = _mm256_unpacklo_epi32(a, b); /* d0 d2 d4 d6 - - - -, - - - - d1 d3 d5 d7 */
    __m128i d = _mm_blend_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1), 12);
    return _mm256_cvtph_ps(_mm_shuffle_epi8(d, _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)));
}

HT_INLINE __m256i low_nibbles(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}
HT_INLINE __m256i high_nibbles(__m256i v)
{
    return low_nibbles(_mm256_srli_epi16(v, 4));
}

HT_INLINE __m256i nibble_words(__m256i v, const int8_t *x)
{
    return _mm256_add_epi16(ht_words(low_nibbles(v), x), ht_words(high_nibbles(v), x + 32));
}

HT_INLINE void step_q4_0(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned j = 0; j < 4; j++)
        for (unsigned r = 0; r < 2; r++)
            v[r][j] = nibble_words(ht_two128(w[r] + 18 * j + 2, w[r] + 18 * j + 74), x->q + 64 * j);
    for (unsigned r = 0; r < 2; r++) {
        __m256i sum = _mm256_sub_epi32(ht_sum_lanes_w8(v[r]), ht_ymm_at(x->sum));
        acc[r] = ht_add_i(acc[r], halves18(w[r]), x, sum);
    }
}

HT_INLINE void step_q4_1(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned j = 0; j < 4; j++)
        for (unsigned r = 0; r < 2; r++)
            v[r][j] = nibble_words(ht_two128(w[r] + 20 * j + 4, w[r] + 20 * j + 84), x->q + 64 * j);
    for (unsigned r = 0; r < 2; r++) {
        __m128i d, m;
        heads(w[r], 20, &d, &m);
        acc[r] = ht_add_i(acc[r], _mm256_cvtph_ps(d), x, ht_sum_lanes_w8(v[r]));
        acc[r] = ht_add_f(acc[r], _mm256_cvtph_ps(m), x, _mm256_load_ps(x->fsum));
    }
}

/* Weights of 5 bits of blocks i and i + 4: nibbles at lo and hi, fifth bits in 32 bits at bits_lo, bits_hi. */
HT_INLINE __m256i five_words(const uint8_t *lo, const uint8_t *hi, const uint8_t *bits_lo, const uint8_t *bits_hi,
                             const int8_t *x)
{
    const __m256i at = _mm256_setr_epi64x(0, 0x0101010101010101, 0, 0x0101010101010101), m16 = _mm256_set1_epi8(16);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ull);
    __m256i v = ht_two128(lo, hi);
    int a, b;
    memcpy(&a, bits_lo, 4);
    memcpy(&b, bits_hi, 4);
    __m256i bits = _mm256_blend_epi32(_mm256_set1_epi32(a), _mm256_set1_epi32(b), 0xf0);
    __m256i first = _mm256_and_si256(_mm256_shuffle_epi8(bits, at), bit);
    __m256i second = _mm256_and_si256(_mm256_shuffle_epi8(bits, _mm256_add_epi8(at, _mm256_set1_epi8(2))), bit);
    first = _mm256_and_si256(_mm256_cmpeq_epi8(first, bit), m16);
    second = _mm256_and_si256(_mm256_cmpeq_epi8(second, bit), m16);
    return _mm256_add_epi16(ht_words(_mm256_or_si256(low_nibbles(v), first), x),
                            ht_words(_mm256_or_si256(high_nibbles(v), second), x + 32));
}

HT_INLINE void step_q5_0(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned j = 0; j < 4; j++)
        for (unsigned r = 0; r < 2; r++) {
            const uint8_t *p = w[r] + 22 * j, *q = p + 88;
            v[r][j] = five_words(p + 6, q + 6, p + 2, q + 2, x->q + 64 * j);
        }
    for (unsigned r = 0; r < 2; r++) {
        __m256i sum = _mm256_sub_epi32(ht_sum_lanes_w2(v[r]), ht_ymm_at(x->sum));
        acc[r] = ht_add_i(acc[r], halves(w[r], 22), x, sum);
    }
}

HT_INLINE void step_q5_1(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned j = 0; j < 4; j++)
        for (unsigned r = 0; r < 2; r++) {
            const uint8_t *p = w[r] + 24 * j, *q = p + 96;
            v[r][j] = five_words(p + 8, q + 8, p + 4, q + 4, x->q + 64 * j);
        }
    for (unsigned r = 0; r < 2; r++) {
        __m128i d, m;
        heads(w[r], 24, &d, &m);
        acc[r] = ht_add_i(acc[r], _mm256_cvtph_ps(d), x, ht_sum_lanes_w2(v[r]));
        acc[r] = ht_add_f(acc[r], _mm256_cvtph_ps(m), x, _mm256_load_ps(x->fsum));
    }
}

HT_INLINE void step_q8_0(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned j = 0; j < 4; j++)
        for (unsigned r = 0; r < 2; r++) {
            const uint8_t *p = w[r] + 68 * j + 2;
            v[r][j] = ht_fold32(ht_dwords(ht_words_signed(ht_ymm_at(p), x->q + 64 * j)),
                                ht_dwords(ht_words_signed(ht_ymm_at(p + 34), x->q + 64 * j + 32)));
        }
    for (unsigned r = 0; r < 2; r++) {
        __m256i sum = ht_fold128(ht_fold64(v[r][0], v[r][1]), ht_fold64(v[r][2], v[r][3]));
        acc[r] = ht_add_i(acc[r], halves(w[r], 34), x, sum);
    }
}

/* Nibbles of blocks i and i + 4 that are numbers of values. */
HT_INLINE __m256i iq4_dwords(__m256i v, const int8_t *x)
{
    const __m256i values = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    __m256i lo = _mm256_shuffle_epi8(values, low_nibbles(v)), hi = _mm256_shuffle_epi8(values, high_nibbles(v));
    return _mm256_add_epi32(ht_dwords(ht_words_signed(lo, x)), ht_dwords(ht_words_signed(hi, x + 32)));
}

HT_INLINE void step_iq4_nl(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned j = 0; j < 4; j++)
        for (unsigned r = 0; r < 2; r++)
            v[r][j] = iq4_dwords(ht_two128(w[r] + 18 * j + 2, w[r] + 18 * j + 74), x->q + 64 * j);
    for (unsigned r = 0; r < 2; r++)
        acc[r] = ht_add_i(acc[r], halves18(w[r]), x, ht_sum_lanes(v[r]));
}

HT_INLINE __m256 step_mxfp4(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    const __m256i values = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)); /* plus 12 */
    __m256i v[4];
    for (unsigned j = 0; j < 4; j++) {
        __m256i q = ht_two128(w + 17 * j + 1, w + 17 * j + 69);
        v[j] = _mm256_add_epi16(ht_words(_mm256_shuffle_epi8(values, low_nibbles(q)), x->q + 64 * j),
                                ht_words(_mm256_shuffle_epi8(values, high_nibbles(q)), x->q + 64 * j + 32));
    }
    __m128i a = _mm_unpacklo_epi8(ht_xmm_at(w), ht_xmm_at(w + 17));
    __m128i b = _mm_unpacklo_epi8(ht_xmm_at(w + 34), ht_xmm_at(w + 51));
    __m128i c = _mm_unpacklo_epi8(ht_xmm_at(w + 68), ht_xmm_at(w + 85));
    __m128i d = _mm_unpacklo_epi8(ht_xmm_at(w + 102), ht_xmm_at(w + 119));
    a = _mm_unpacklo_epi32(_mm_unpacklo_epi16(a, b), _mm_unpacklo_epi16(c, d));
    /* 2^(e - 128): exponent e - 1, or a subnormal where e < 2. A block behind the end has a zero x.d. */
    __m256i e = _mm256_cvtepu8_epi32(a);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i sub = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    __m256i scale = _mm256_blendv_epi8(normal, sub, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e));
    __m256i sum = _mm256_sub_epi32(ht_sum_lanes_w2(v), ht_ymm_at(x->sum));
    return ht_add_i(acc, _mm256_castsi256_ps(scale), x, sum);
}

/* ---- blocks of 256 --------------------------------------------------------------------------------------------- */

/* Q4_K, Q5_K: acc + (d * x.d) * (scale * isum) - (dmin * x.d) * (minimum * sum(x)). The floats that hold integers are
 * exact: they stay below 2^24. */
HT_INLINE __m256 add_wide(__m256 acc, const uint8_t *w, const ht_xpart *x, __m256i isum)
{
    const __m128i head = ht_xmm_at(w); /* f16 d, f16 dmin, 12 bytes of 6-bit numbers; see unpack.c */
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 0, 1, 0)), 2);
    __m128i both = _mm_or_si128(low, _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030)));
    __m256 sc = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(both));
    __m256 mn = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(both, both)));
    const __m128 d = _mm_cvtph_ps(head);
    const __m256 xd = _mm256_load_ps(x->d);
    __m256 scale = _mm256_mul_ps(_mm256_broadcastss_ps(d), xd);
    __m256 minus = _mm256_mul_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(d)), xd);

    acc = _mm256_fmadd_ps(scale, _mm256_mul_ps(_mm256_cvtepi32_ps(isum), sc), acc);
    return _mm256_fnmadd_ps(minus, _mm256_mul_ps(_mm256_load_ps(x->fsum), mn), acc);
}

/* Four groups of 32 bytes: low nibbles are a block, high ones the next. */
HT_INLINE void step_q4_k(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned j = 0; j < 2; j++)
        for (unsigned r = 0; r < 2; r++) {
            const uint8_t *p = w[r] + 16 + 32 * j;
            const int8_t *xq = x->q + 128 * j;
            __m256i a = ht_two128(p, p + 64), b = ht_two128(p + 16, p + 80);
            v[r][2 * j] = _mm256_add_epi16(ht_words(low_nibbles(a), xq), ht_words(low_nibbles(b), xq + 32));
            v[r][2 * j + 1] = _mm256_add_epi16(ht_words(high_nibbles(a), xq + 64), ht_words(high_nibbles(b), xq + 96));
        }
    for (unsigned r = 0; r < 2; r++)
        acc[r] = add_wide(acc[r], w[r], x, ht_sum_lanes_w8(v[r]));
}

/* q with bit `i` of `bits` as its bit 4 */
HT_INLINE __m256i with_fifth(__m256i q, __m256i bits, int i)
{
    return _mm256_or_si256(q, _mm256_and_si256(_mm256_slli_epi16(bits, 4 - i), _mm256_set1_epi8(16)));
}

HT_INLINE __m256 step_q5_k(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    const __m256i by = _mm256_setr_epi64x(0, 0, 4, 4); /* blocks 4..7 take the upper bits */
    const __m256i ba = _mm256_srlv_epi64(ht_both128(w + 16), by), bb = _mm256_srlv_epi64(ht_both128(w + 32), by);
    __m256i v[4];
    for (int j = 0; j < 2; j++) {
        const uint8_t *p = w + 48 + 32 * j;
        const int8_t *xq = x->q + 128 * j;
        __m256i a = ht_two128(p, p + 64), b = ht_two128(p + 16, p + 80);
        v[2 * j] = _mm256_add_epi16(ht_words(with_fifth(low_nibbles(a), ba, 2 * j), xq),
                                    ht_words(with_fifth(low_nibbles(b), bb, 2 * j), xq + 32));
        v[2 * j + 1] = _mm256_add_epi16(ht_words(with_fifth(high_nibbles(a), ba, 2 * j + 1), xq + 64),
                                        ht_words(with_fifth(high_nibbles(b), bb, 2 * j + 1), xq + 96));
    }
    return add_wide(acc, w, x, ht_sum_lanes_w2(v));
}

HT_INLINE void step_q6_k(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    const __m256i m48 = _mm256_set1_epi8(0x30);
    __m256i v[2][4];
    for (unsigned h = 0; h < 2; h++)
        for (unsigned r = 0; r < 2; r++) {
            const uint8_t *p = w[r] + 64 * h;
            __m256i a = ht_ymm_at(p), b = ht_ymm_at(p + 32), bits = ht_ymm_at(w[r] + 128 + 32 * h);
            __m256i low = _mm256_or_si256(low_nibbles(a), _mm256_and_si256(_mm256_slli_epi16(bits, 4), m48));
            __m256i next = _mm256_or_si256(low_nibbles(b), _mm256_and_si256(_mm256_slli_epi16(bits, 2), m48));
            v[r][2 * h] = ht_fold32w(ht_words(low, x->q + 128 * h), ht_words(next, x->q + 128 * h + 32));
            low = _mm256_or_si256(high_nibbles(a), _mm256_and_si256(bits, m48));
            next = _mm256_or_si256(high_nibbles(b), _mm256_and_si256(_mm256_srli_epi16(bits, 2), m48));
            v[r][2 * h + 1] = ht_fold32w(ht_words(low, x->q + 128 * h + 64), ht_words(next, x->q + 128 * h + 96));
        }
    for (unsigned r = 0; r < 2; r++) {
        const __m128i scales = ht_xmm_at(w[r] + 192);
        __m256i minus = _mm256_slli_epi32(_mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), ht_ymm_at(x->s)), 5);
        __m256i sum = _mm256_sub_epi32(ht_sum_scaled_w2(v[r], scales), minus);
        acc[r] = ht_add_i(acc[r], ht_half_at(w[r] + 208), x, sum);
    }
}

HT_INLINE __m256i two_bits(__m256i v, unsigned j)
{
    return _mm256_and_si256(j ? _mm256_srli_epi16(v, 2 * (int)j) : v, _mm256_set1_epi8(3));
}

HT_INLINE __m256 step_q2_k(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    const __m128i m15 = _mm_set1_epi8(15), bytes = ht_xmm_at(w);
    __m256i v[8];
    for (unsigned h = 0; h < 2; h++) {
        __m256i q = ht_ymm_at(w + 16 + 32 * h);
        for (unsigned j = 0; j < 4; j++)
            v[4 * h + j] = ht_words(two_bits(q, j), x->q + 128 * h + 32 * j);
    }
    const __m256i mn = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(bytes, 4), m15));
    const __m256 xd = _mm256_load_ps(x->d);
    acc = ht_add_i(acc, ht_half_at(w + 80), x, ht_sum_halves_w8(v, _mm_and_si128(bytes, m15)));
    return _mm256_fnmadd_ps(_mm256_mul_ps(ht_half_at(w + 82), xd),
                            _mm256_cvtepi32_ps(_mm256_madd_epi16(mn, ht_ymm_at(x->s))), acc);
}

HT_INLINE __m256 step_q3_k(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    /* 12 bytes, loaded from 4 before: dwords 1, 2: low bits of scales 0..7 and 8..15, dword 3: high bits */
    const __m128i t = ht_xmm_at(w + 92);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(t, _MM_SHUFFLE(2, 1, 2, 1)), _mm_setr_epi32(0, 0, 4, 4));
    __m128i high = _mm_srlv_epi32(_mm_shuffle_epi32(t, 0xff), _mm_setr_epi32(0, 2, 4, 6));
    low = _mm_and_si128(low, _mm_set1_epi8(15));
    high = _mm_slli_epi32(_mm_and_si128(high, _mm_set1_epi8(3)), 4);
    const __m128i scales = _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32));
    const __m256i bits = ht_ymm_at(w), m4 = _mm256_set1_epi8(4);
    __m256i v[8];
    for (unsigned h = 0; h < 2; h++) {
        __m256i q = ht_ymm_at(w + 32 + 32 * h);
        for (unsigned j = 0; j < 4; j++) {
            const int b = (int)(4 * h + j); /* the block's bit, to be brought to bit 2 */
            __m256i third = b < 2 ? _mm256_slli_epi16(bits, 2 - b) : _mm256_srli_epi16(bits, b - 2);
            v[b] = ht_words(_mm256_or_si256(two_bits(q, j), _mm256_and_si256(third, m4)), x->q + 32 * b);
        }
    }
    __m256i minus = _mm256_slli_epi32(_mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), ht_ymm_at(x->s)), 2);
    return ht_add_i(acc, ht_half_at(w + 108), x, _mm256_sub_epi32(ht_sum_halves_w8(v, scales), minus));
}

/* Two groups of 32 bytes of four blocks each. */
HT_INLINE void step_tq2_0(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])
{
    __m256i v[2][4];
    for (unsigned r = 0; r < 2; r++) {
        const __m256i a = ht_two128(w[r], w[r] + 32), b = ht_two128(w[r] + 16, w[r] + 48);
        for (unsigned j = 0; j < 4; j++)
            v[r][j] =
                _mm256_add_epi16(ht_words(two_bits(a, j), x->q + 64 * j), ht_words(two_bits(b, j), x->q + 64 * j + 32));
        __m256i sum = _mm256_sub_epi32(ht_sum_lanes_w8(v[r]), ht_ymm_at(x->sum));
        acc[r] = ht_add_i(acc[r], ht_half_at(w[r] + 64), x, sum);
    }
}

HT_INLINE __m256 step_iq4_xs(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    uint32_t low;
    __m256i v[4];
    memcpy(&low, w + 4, 4);
    for (unsigned j = 0; j < 4; j++)
        v[j] = iq4_dwords(ht_two128(w + 8 + 16 * j, w + 72 + 16 * j), x->q + 64 * j);
    __m256i a = _mm256_srlv_epi32(_mm256_set1_epi32((int)low), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    __m256i b =
        _mm256_srlv_epi32(_mm256_set1_epi32((uint16_t)ht_word(w + 2)), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    a = _mm256_and_si256(a, _mm256_set1_epi32(15));
    b = _mm256_slli_epi32(_mm256_and_si256(b, _mm256_set1_epi32(3)), 4);
    __m256i sc = _mm256_sub_epi32(_mm256_or_si256(a, b), _mm256_set1_epi32(32));
    return ht_add_f(acc, ht_half_at(w), x, _mm256_mul_ps(_mm256_cvtepi32_ps(ht_sum_lanes(v)), _mm256_cvtepi32_ps(sc)));
}

#define KERNEL(name, S, order, c)                                                                                      \
    void ht_dot_q8_##name##__avx2(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,       \
                                  const ht_q8_row *x, uint32_t k)                                                      \
    {                                                                                                                  \
        ht_dot_q8_rows(y, w, stride, rows, n_rows, x, k, S, HT_ORDER_##order, c, step_##name);                         \
    }
#define KERNEL1(name, S, order, c)                                                                                     \
    HT_INLINE void step2_##name(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])                           \
    {                                                                                                                  \
        acc[0] = step_##name(w[0], x, acc[0]);                                                                         \
        acc[1] = step_##name(w[1], x, acc[1]);                                                                         \
    }                                                                                                                  \
    void ht_dot_q8_##name##__avx2(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,       \
                                  const ht_q8_row *x, uint32_t k)                                                      \
    {                                                                                                                  \
        ht_dot_q8_rows(y, w, stride, rows, n_rows, x, k, S, HT_ORDER_##order, c, step2_##name);                        \
    }
KERNEL(q4_0, 8 * 18, PAIRS, 8)
KERNEL(q4_1, 8 * 20, PAIRS, 0)
KERNEL(q5_0, 8 * 22, PAIRS, 16)
KERNEL(q5_1, 8 * 24, PAIRS, 0)
KERNEL(q8_0, 8 * 34, PLAIN, 0)
KERNEL(iq4_nl, 8 * 18, PAIRS, 0)
KERNEL1(mxfp4, 8 * 17, PAIRS, 12)
KERNEL1(q2_k, 84, PLAIN, 0)
KERNEL1(q3_k, 110, PLAIN, 0)
KERNEL(q4_k, 144, PAIRS, 0)
KERNEL1(q5_k, 176, PAIRS, 0)
KERNEL(q6_k, 210, PLAIN, 0)
KERNEL1(iq4_xs, 136, PAIRS, 0)
KERNEL(tq2_0, 66, PAIRS, 1)
