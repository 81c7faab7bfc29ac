/* SPDX-License-Identifier: MIT
 *
 * Dot products with 8-bit activations, AVX2: types whose weights come out of tables (IQ1, IQ2, IQ3), and TQ1_0. The
 * layouts are drawn in engine/base/unpack_iq.c. A step takes eight blocks of 32, one block of the type. Looking up is
 * scalar loads; signs are laid on x, eight blocks' worth decoded at a time. See dot_q8_avx2.c for the rest. Owner: no
 * state. Threads: any. */
#include "cpu/dot.h"
#include "cpu/dot_avx2.h"
#include "engine/base/unpack_impl.h"

/* The 32 of x, minus where a bit is set. */
HT_INLINE __m256i with_signs(const int8_t *x, uint32_t bits)
{
    const __m256i at = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ull);
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), at), bit);
    __m256i minus = _mm256_cmpeq_epi8(v, bit);
    return _mm256_sub_epi8(_mm256_xor_si256(ht_ymm_at(x), minus), minus);
}

/* Magnitudes times x with signs, two by two in words. */
HT_INLINE __m256i mul_magnitudes(__m256i w, const int8_t *x, uint32_t signs)
{
    return _mm256_maddubs_epi16(w, with_signs(x, signs));
}

/* Seven stored signs in the low bits of every byte: the eighth makes the number of minuses even. */
HT_INLINE __m256i add_eighth(__m256i s)
{
    __m256i p = _mm256_xor_si256(s, _mm256_srli_epi16(s, 4));
    p = _mm256_xor_si256(p, _mm256_srli_epi16(p, 2));
    p = _mm256_xor_si256(p,
                         _mm256_srli_epi16(p, 1)); /* bit 0 of every byte; what came over from the next is above it */
    return _mm256_or_si256(s, _mm256_slli_epi16(_mm256_and_si256(p, _mm256_set1_epi8(1)), 7));
}

/* Eight words of 4 x 7 signs and 4 bits of scale: signs of block b to signs[b]; the scales, 2 s + 1. */
HT_INLINE __m256 signs_and_scales(__m256i w, uint32_t signs[8])
{
    __m256i s = _mm256_and_si256(w, _mm256_set1_epi32(0x7f));
    s = _mm256_or_si256(s, _mm256_and_si256(_mm256_slli_epi32(w, 1), _mm256_set1_epi32(0x7f00)));
    s = _mm256_or_si256(s, _mm256_and_si256(_mm256_slli_epi32(w, 2), _mm256_set1_epi32(0x7f0000)));
    s = _mm256_or_si256(s, _mm256_and_si256(_mm256_slli_epi32(w, 3), _mm256_set1_epi32(0x7f000000)));
    _mm256_store_si256((__m256i *)signs, add_eighth(s));
    __m256i sc = _mm256_add_epi32(_mm256_slli_epi32(_mm256_srli_epi32(w, 28), 1), _mm256_set1_epi32(1));
    return _mm256_cvtepi32_ps(sc);
}

HT_INLINE __m256i four_of(const uint64_t *grid, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return _mm256_setr_epi64x((long long)grid[a], (long long)grid[b], (long long)grid[c], (long long)grid[d]);
}

HT_INLINE __m256 scaled_half(const uint8_t *p, float by)
{
    return _mm256_mul_ps(ht_half_at(p), _mm256_set1_ps(by));
}

/* Eight bytes, lo and hi nibble a scale of 16 elements each: 2 s + 1. */
HT_INLINE __m128i nibble_scales(const uint8_t *p)
{
    const __m128i m15 = _mm_set1_epi8(15), b = _mm_loadl_epi64((const __m128i *)(const void *)p);
    __m128i both = _mm_unpacklo_epi8(_mm_and_si128(b, m15), _mm_and_si128(_mm_srli_epi16(b, 4), m15));
    return _mm_add_epi8(_mm_add_epi8(both, both), _mm_set1_epi8(1));
}

HT_INLINE __m256 step_iq2_xxs(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    /* each of the eight: 4 bytes of grid numbers, then the word */
    __m256 a = _mm256_castsi256_ps(ht_ymm_at(w + 2)), b = _mm256_castsi256_ps(ht_ymm_at(w + 34));
    __m256i words = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd)), 0xd8);
    _Alignas(32) uint32_t signs[8];
    const __m256 sc = signs_and_scales(words, signs);
    __m256i v[8];
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 8 * i;
        v[i] = mul_magnitudes(four_of(ht_grid_iq2_xxs, p[0], p[1], p[2], p[3]), x->q + 32 * i, signs[i]);
    }
    return ht_add_f(acc, scaled_half(w, 0.125f), x, _mm256_mul_ps(_mm256_cvtepi32_ps(ht_sum_blocks_w2(v)), sc));
}

HT_INLINE __m256 step_iq2_xs(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    __m256i a = _mm256_srli_epi16(ht_ymm_at(w + 2), 9), b = _mm256_srli_epi16(ht_ymm_at(w + 34), 9);
    __m256i s = add_eighth(_mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8));
    _Alignas(32) uint32_t signs[8];
    __m256i v[8];
    _mm256_store_si256((__m256i *)signs, s);
    for (unsigned i = 0; i < 8; i++) {
        uint16_t g[4];
        memcpy(g, w + 2 + 8 * i, 8);
        v[i] = mul_magnitudes(four_of(ht_grid_iq2_xs, g[0] & 511u, g[1] & 511u, g[2] & 511u, g[3] & 511u),
                              x->q + 32 * i, signs[i]);
    }
    return ht_add_f(acc, scaled_half(w, 0.125f), x, _mm256_cvtepi32_ps(ht_sum_halves_w2(v, nibble_scales(w + 66))));
}

HT_INLINE __m256 step_iq2_s(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    uint32_t signs[8];
    __m256i v[8];
    memcpy(signs, w + 34, 32);
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 4 * i;
        const uint32_t h = w[66 + i];
        v[i] = mul_magnitudes(four_of(ht_grid_iq2_s, p[0] | (h << 8 & 0x300), p[1] | (h << 6 & 0x300),
                                      p[2] | (h << 4 & 0x300), p[3] | (h << 2 & 0x300)),
                              x->q + 32 * i, signs[i]);
    }
    return ht_add_f(acc, scaled_half(w, 0.125f), x, _mm256_cvtepi32_ps(ht_sum_halves_w2(v, nibble_scales(w + 74))));
}

HT_INLINE __m256 step_iq3_xxs(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    const uint32_t *g = ht_grid_iq3_xxs;
    _Alignas(32) uint32_t signs[8];
    const __m256 sc = signs_and_scales(ht_ymm_at(w + 66), signs);
    __m256i v[8];
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 8 * i;
        __m256i q = _mm256_setr_epi32((int)g[p[0]], (int)g[p[1]], (int)g[p[2]], (int)g[p[3]], (int)g[p[4]],
                                      (int)g[p[5]], (int)g[p[6]], (int)g[p[7]]);
        v[i] = mul_magnitudes(q, x->q + 32 * i, signs[i]);
    }
    return ht_add_f(acc, scaled_half(w, 0.25f), x, _mm256_mul_ps(_mm256_cvtepi32_ps(ht_sum_blocks_w2(v)), sc));
}

HT_INLINE __m256 step_iq3_s(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    const uint32_t *g = ht_grid_iq3_s;
    uint32_t signs[8], nibbles;
    __m256i v[8];
    memcpy(signs, w + 74, 32);
    memcpy(&nibbles, w + 106, 4);
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 8 * i;
        const uint32_t h = w[66 + i];
        __m256i q = _mm256_setr_epi32((int)g[p[0] | (h << 8 & 256)], (int)g[p[1] | (h << 7 & 256)],
                                      (int)g[p[2] | (h << 6 & 256)], (int)g[p[3] | (h << 5 & 256)],
                                      (int)g[p[4] | (h << 4 & 256)], (int)g[p[5] | (h << 3 & 256)],
                                      (int)g[p[6] | (h << 2 & 256)], (int)g[p[7] | (h << 1 & 256)]);
        v[i] = mul_magnitudes(q, x->q + 32 * i, signs[i]);
    }
    __m256i sc = _mm256_srlv_epi32(_mm256_set1_epi32((int)nibbles), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    sc = _mm256_add_epi32(_mm256_slli_epi32(_mm256_and_si256(sc, _mm256_set1_epi32(15)), 1), _mm256_set1_epi32(1));
    return ht_add_f(acc, ht_half_at(w), x,
                    _mm256_mul_ps(_mm256_cvtepi32_ps(ht_sum_blocks_w8(v)), _mm256_cvtepi32_ps(sc)));
}

HT_INLINE __m256 step_iq1_s(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    __m256i v[8];
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 2 + 4 * i;
        const uint32_t h = (uint16_t)ht_word(w + 34 + 2 * i);
        v[i] = ht_words_signed(four_of(ht_grid_iq1, p[0] | (h << 8 & 0x700), p[1] | (h << 5 & 0x700),
                                       p[2] | (h << 2 & 0x700), p[3] | (h >> 1 & 0x700)),
                               x->q + 32 * i);
    }
    /* the +-1 of a block is the same for all of it */
    const __m256i h = _mm256_cvtepu16_epi32(ht_xmm_at(w + 34)), one = _mm256_set1_epi32(1);
    __m256i delta = _mm256_sub_epi32(one, _mm256_slli_epi32(_mm256_srli_epi32(h, 15), 1));
    __m256i sc = _mm256_and_si256(_mm256_srli_epi32(h, 12), _mm256_set1_epi32(7));
    sc = _mm256_add_epi32(_mm256_slli_epi32(sc, 1), one);
    __m256i sum = _mm256_add_epi32(ht_sum_blocks_w8(v), _mm256_sign_epi32(ht_ymm_at(x->sum), delta));
    return ht_add_f(acc, scaled_half(w, 0.125f), x, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_cvtepi32_ps(sc)));
}

HT_INLINE __m256 step_iq1_m(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    static const uint64_t delta[2] = { 0x0101010101010101u, 0xffffffffffffffffu };
    uint64_t s;
    __m256i v[8];
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = w + 4 * i;
        const uint32_t a = w[32 + 2 * i], b = w[33 + 2 * i];
        __m256i g = four_of(ht_grid_iq1, p[0] | (a << 8 & 0x700), p[1] | (a << 4 & 0x700), p[2] | (b << 8 & 0x700),
                            p[3] | (b << 4 & 0x700));
        v[i] =
            ht_words_signed(_mm256_add_epi8(g, four_of(delta, a >> 3 & 1, a >> 7, b >> 3 & 1, b >> 7)), x->q + 32 * i);
    }
    memcpy(&s, w + 48, 8);
    /* four words of four scales of 3 bits: each to the top of its own 16 bits, then down */
    const __m256i words = _mm256_shuffle_epi8(
        _mm256_set1_epi64x((long long)s),
        _mm256_setr_epi64x(0x0100010001000100, 0x0302030203020302, 0x0504050405040504, 0x0706070607060706));
    __m256i sc = _mm256_srli_epi16(_mm256_mullo_epi16(words, _mm256_set1_epi64x(0x0010008004002000)), 13);
    sc = _mm256_add_epi16(_mm256_slli_epi16(sc, 1), _mm256_set1_epi16(1));
    const __m128i scales = _mm_packus_epi16(_mm256_castsi256_si128(sc), _mm256_extracti128_si256(sc, 1));
    const int d = (int)((s >> 12 & 15) | (s >> 28 & 15) << 4 | (s >> 44 & 15) << 8 | (s >> 60) << 12);
    __m256 by = _mm256_mul_ps(_mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(d))), _mm256_set1_ps(0.125f));
    return ht_add_f(acc, by, x, _mm256_cvtepi32_ps(ht_sum_halves_w8(v, scales)));
}

/* Three times every byte, modulo 256: the next ternary digit comes to the top. */
HT_INLINE __m256i next_digit(__m256i s)
{
    return _mm256_add_epi8(_mm256_add_epi8(s, s), s);
}

/* The digit on top, 0 to 2: floor(3 s / 256). */
HT_INLINE __m256i top_digit(__m256i s)
{
    __m256i one = _mm256_cmpeq_epi8(_mm256_max_epu8(s, _mm256_set1_epi8(86)), s);
    __m256i two = _mm256_cmpeq_epi8(_mm256_max_epu8(s, _mm256_set1_epi8((char)171)), s);
    return _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(one, two));
}

HT_INLINE __m256 step_tq1_0(const uint8_t *w, const ht_xpart *x, __m256 acc)
{
    /* blocks 0..4: digits of 32 bytes; 5, 6 and half of 7: digits of 16; the rest: four digits of 4 */
    __m256i v[8], s = ht_ymm_at(w);
    for (unsigned i = 0; i < 5; i++, s = next_digit(s))
        v[i] = ht_words(top_digit(s), x->q + 32 * i);
    const __m256i b0 = ht_both128(w + 32), b1 = next_digit(b0), b2 = next_digit(b1), b3 = next_digit(b2),
                  b4 = next_digit(b3);
    v[5] = ht_words(top_digit(_mm256_blend_epi32(b0, b1, 0xf0)), x->q + 160);
    v[6] = ht_words(top_digit(_mm256_blend_epi32(b2, b3, 0xf0)), x->q + 192);
    int last;
    memcpy(&last, w + 48, 4);
    const __m256i c0 = _mm256_set1_epi32(last), c1 = next_digit(c0), c2 = next_digit(c1), c3 = next_digit(c2);
    const __m256i c = _mm256_blend_epi32(_mm256_blend_epi32(c0, c1, 0x20), _mm256_blend_epi32(c2, c3, 0x80), 0xc0);
    v[7] = ht_words(top_digit(_mm256_blend_epi32(b4, c, 0xf0)), x->q + 224);
    return ht_add_f(acc, ht_half_at(w + 52), x,
                    _mm256_cvtepi32_ps(_mm256_add_epi32(ht_sum_blocks_w8(v), ht_ymm_at(x->sum))));
}

#define KERNEL(name, S, c)                                                                                             \
    HT_INLINE void step2_##name(const uint8_t *const w[2], const ht_xpart *x, __m256 acc[2])                           \
    {                                                                                                                  \
        acc[0] = step_##name(w[0], x, acc[0]);                                                                         \
        acc[1] = step_##name(w[1], x, acc[1]);                                                                         \
    }                                                                                                                  \
    void ht_dot_q8_##name##__avx2(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,       \
                                  const ht_q8_row *x, uint32_t k)                                                      \
    {                                                                                                                  \
        ht_dot_q8_rows(y, w, stride, rows, n_rows, x, k, S, HT_ORDER_PLAIN, c, step2_##name);                          \
    }
KERNEL(iq2_xxs, 66, 0)
KERNEL(iq2_xs, 74, 0)
KERNEL(iq2_s, 82, 0)
KERNEL(iq3_xxs, 98, 0)
KERNEL(iq3_s, 110, 0)
KERNEL(iq1_s, 50, 1)
KERNEL(iq1_m, 56, 0)
KERNEL(tq1_0, 54, -1)
