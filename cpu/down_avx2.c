/* SPDX-License-Identifier: MIT
 *
 * Down projections from the neuron-major form, AVX2. A group (the active neurons of one block of 32) is added to the
 * vector of its accumulator, a tile of 128 outputs at a time: two neurons' weights are interleaved bytes, multiplied by
 * their two 8-bit h as one word (vpmaddubsw), and summed in words; the words become floats once per group.
 *
 * Words may wrap on the way: the sum over a whole group fits, as the offset of the type (8 for nibbles) is taken off
 * first. Rows and scales of the group after are prefetched meanwhile. Owner: no state. Threads: any. */
#include "cpu/dot_avx2.h"
#include "cpu/down_x86.h"

HT_INLINE __m256 halves_at(const uint8_t *p)
{
    return _mm256_cvtph_ps(ht_xmm_at(p));
}

/* Words of nibbles, less 8 each: v[0], v[1]: outputs 0-7 16-23 and 8-15 24-31 of 64 by lanes, v[2], v[3]: those 32 on.
 */
HT_INLINE void nibble_sums(const group *g, uint32_t pairs, size_t at, __m256i v[4])
{
    const __m256i m15 = _mm256_set1_epi8(15);

    for (unsigned i = 0; i < 4; i++)
        v[i] = _mm256_set1_epi16((int16_t)(-8 * g->sum));
    for (uint32_t p = 0; p < pairs; p++) {
        const __m256i h = _mm256_set1_epi16(g->pair[p]);
        const __m256i a = ht_ymm_at(g->row[2 * p] + at), b = ht_ymm_at(g->row[2 * p + 1] + at);
        const __m256i a0 = _mm256_and_si256(a, m15), b0 = _mm256_and_si256(b, m15);
        const __m256i a1 = _mm256_and_si256(_mm256_srli_epi16(a, 4), m15);
        const __m256i b1 = _mm256_and_si256(_mm256_srli_epi16(b, 4), m15);
        v[0] = _mm256_add_epi16(v[0], _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a0, b0), h));
        v[1] = _mm256_add_epi16(v[1], _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a0, b0), h));
        v[2] = _mm256_add_epi16(v[2], _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a1, b1), h));
        v[3] = _mm256_add_epi16(v[3], _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a1, b1), h));
    }
}

/* Sums of outputs [8 i, 8 i + 8) of 64. */
HT_INLINE __m256i eight(const __m256i v[4], unsigned i)
{
    const __m256i w = v[i / 4 * 2 + i % 2];
    return _mm256_cvtepi16_epi32(i & 2 ? _mm256_extracti128_si256(w, 1) : _mm256_castsi256_si128(w));
}

HT_INLINE void tiles_q4_0(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width)
{
    const __m256 h_d = _mm256_set1_ps(g->h_d);

    for (uint32_t o = 0; o < n; o += 64) {
        __m256i v[4];
        if (o % TILE == 0)
            ahead(next, o / TILE, 64, 1, 0, width);
        nibble_sums(g, pairs, o / 2, v);
        for (unsigned i = 0; i < 8; i++) {
            float *a = acc + o + 8 * i;
            const __m256 scale = _mm256_mul_ps(halves_at(g->d + 2 * (o + 8 * i)), h_d);
            _mm256_store_ps(a, _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(eight(v, i)), _mm256_load_ps(a)));
        }
    }
}

HT_INLINE __m256 bytes_at(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* The integers stay below 2^24 and are exact as floats. */
HT_INLINE void tiles_q4_k(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width)
{
    const __m256 h_d = _mm256_set1_ps(g->h_d), sum = _mm256_set1_ps((float)g->sum);
    const __m256i eights = _mm256_set1_epi32(8 * g->sum);

    for (uint32_t o = 0; o < n; o += 64) {
        __m256i v[4];
        if (o % TILE == 0)
            ahead(next, o / TILE, 64, 2, 2, width);
        nibble_sums(g, pairs, o / 2, v);
        for (unsigned i = 0; i < 8; i++) {
            const uint32_t at = o + 8 * i;
            const uint8_t *d = g->d + 2 * at, *sc = g->sc + at;
            __m256 a = _mm256_load_ps(acc + at);
            const __m256 isum = _mm256_cvtepi32_ps(_mm256_add_epi32(eight(v, i), eights));
            a = _mm256_fmadd_ps(_mm256_mul_ps(halves_at(d), h_d), _mm256_mul_ps(isum, bytes_at(sc)), a);
            a = _mm256_fnmadd_ps(_mm256_mul_ps(halves_at(d + 2 * width), h_d), _mm256_mul_ps(bytes_at(sc + width), sum),
                                 a);
            _mm256_store_ps(acc + at, a);
        }
    }
}

HT_INLINE void tiles_q8_0(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width)
{
    const __m256 h_d = _mm256_set1_ps(g->h_d);

    for (uint32_t o = 0; o < n; o += 32) {
        __m256i v[4];
        if (o % TILE == 0)
            ahead(next, o / TILE, TILE, 1, 0, width);
        for (unsigned i = 0; i < 4; i++)
            v[i] = _mm256_setzero_si256();
        for (uint32_t p = 0; p < pairs; p++) {
            const __m256i h = _mm256_set1_epi32(g->words[p]);
            for (unsigned i = 0; i < 2; i++) {
                const __m128i a = ht_xmm_at(g->row[2 * p] + o + 16 * i), b = ht_xmm_at(g->row[2 * p + 1] + o + 16 * i);
                const __m256i lo = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b));
                const __m256i hi = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b));
                v[2 * i] = _mm256_add_epi32(v[2 * i], _mm256_madd_epi16(lo, h));
                v[2 * i + 1] = _mm256_add_epi32(v[2 * i + 1], _mm256_madd_epi16(hi, h));
            }
        }
        for (unsigned i = 0; i < 4; i++) {
            float *a = acc + o + 8 * i;
            const __m256 scale = _mm256_mul_ps(halves_at(g->d + 2 * (o + 8 * i)), h_d);
            _mm256_store_ps(a, _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(v[i]), _mm256_load_ps(a)));
        }
    }
}

/* Words of 6-bit weights of 32 outputs (the j-th of a tile), pairs [p0, p1); words wrap, the sum of at most 8 neurons
 * less 32 each fits. base: -32 * sum(h). */
HT_INLINE void six_sums(const group *g, uint32_t p0, uint32_t p1, const size_t at, unsigned j, int16_t base,
                        __m256i v[2])
{
    const __m256i m15 = _mm256_set1_epi8(15), m48 = _mm256_set1_epi8(0x30);

    v[0] = v[1] = _mm256_set1_epi16(base);
    for (uint32_t p = p0; p < p1; p++) {
        __m256i w[2];
        for (unsigned r = 0; r < 2; r++) {
            const uint8_t *piece = g->row[2 * p + r] + at;
            const __m256i q = ht_ymm_at(piece + j / 2 * 32), bits = ht_ymm_at(piece + 64);
            const __m256i low = _mm256_and_si256(_mm256_srl_epi16(q, _mm_cvtsi32_si128((int)(j % 2 * 4))), m15);
            const __m256i high = _mm256_slli_epi16(_mm256_srl_epi16(bits, _mm_cvtsi32_si128((int)(2 * j))), 4);
            w[r] = _mm256_or_si256(low, _mm256_and_si256(high, m48));
        }
        const __m256i h = _mm256_set1_epi16(g->pair[p]);
        v[0] = _mm256_add_epi16(v[0], _mm256_maddubs_epi16(_mm256_unpacklo_epi8(w[0], w[1]), h));
        v[1] = _mm256_add_epi16(v[1], _mm256_maddubs_epi16(_mm256_unpackhi_epi8(w[0], w[1]), h));
    }
}

HT_INLINE int16_t less_32(const group *g, uint32_t p0, uint32_t p1)
{
    int sum = 0;
    for (uint32_t p = p0; p < p1; p++)
        sum += (int8_t)g->pair[p] + (int8_t)(g->pair[p] >> 8);
    return (int16_t)(-32 * sum);
}

/* Four pairs of each half at a time: their sums fit in words, and the two halves' words times their scales meet in one
 * multiplication. */
HT_INLINE void tiles_q6_k(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width)
{
    const __m256 h_d = _mm256_set1_ps(g->h_d);
    const uint32_t split = g->first_pairs, second = pairs - split, rounds = (split > second ? split : second) + 3;

    for (uint32_t o = 0; o < n; o += 32) {
        const size_t at = o / TILE * 96;
        const unsigned j = o % TILE / 32;
        __m256i sum[4];
        if (o % TILE == 0)
            ahead(next, o / TILE, 96, 1, 2, width);
        for (unsigned i = 0; i < 4; i++)
            sum[i] = _mm256_setzero_si256();
        /* words of outputs 0-7 and 16-23, 8-15 and 24-31, as the sums' */
        const __m256i s0 = _mm256_permute4x64_epi64(ht_ymm_at(g->sc + o), 0xd8);
        const __m256i s1 = _mm256_permute4x64_epi64(ht_ymm_at(g->sc + width + o), 0xd8);
        const __m256i sc[4] = { _mm256_cvtepi8_epi16(_mm256_castsi256_si128(s0)),
                                _mm256_cvtepi8_epi16(_mm256_extracti128_si256(s0, 1)),
                                _mm256_cvtepi8_epi16(_mm256_castsi256_si128(s1)),
                                _mm256_cvtepi8_epi16(_mm256_extracti128_si256(s1, 1)) };
        for (uint32_t r = 0; r < rounds / 4; r++) {
            const uint32_t a0 = 4 * r < split ? 4 * r : split, a1 = a0 + 4 < split ? a0 + 4 : split;
            const uint32_t b0 = 4 * r < second ? split + 4 * r : pairs, b1 = b0 + 4 < pairs ? b0 + 4 : pairs;
            __m256i a[2], b[2];
            six_sums(g, a0, a1, at, j, less_32(g, a0, a1), a);
            six_sums(g, b0, b1, at, j, less_32(g, b0, b1), b);
            for (unsigned i = 0; i < 2; i++) { /* outputs 0-3 16-19, 4-7 20-23 and so on */
                const __m256i lo =
                    _mm256_madd_epi16(_mm256_unpacklo_epi16(a[i], b[i]), _mm256_unpacklo_epi16(sc[i], sc[i + 2]));
                const __m256i hi =
                    _mm256_madd_epi16(_mm256_unpackhi_epi16(a[i], b[i]), _mm256_unpackhi_epi16(sc[i], sc[i + 2]));
                sum[i] = _mm256_add_epi32(sum[i], _mm256_permute2x128_si256(lo, hi, 0x20));
                sum[i + 2] = _mm256_add_epi32(sum[i + 2], _mm256_permute2x128_si256(lo, hi, 0x31));
            }
        }
        for (unsigned i = 0; i < 4; i++) {
            float *a = acc + o + 8 * i;
            const __m256 scale = _mm256_mul_ps(halves_at(g->d + 2 * (o + 8 * i)), h_d);
            _mm256_store_ps(a, _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum[i]), _mm256_load_ps(a)));
        }
    }
}

#define KERNEL(name, unroll)                                                                                           \
    void ht_down_##name##__avx2(float *y, const ht_down_slice *s)                                                      \
    {                                                                                                                  \
        down(y, s, tiles_##name, unroll);                                                                              \
    }
KERNEL(q4_0, true)
KERNEL(q8_0, true)
KERNEL(q4_k, true)
KERNEL(q6_k, false)

/* ---- float weights ---- */

typedef __m256 load_fn(const uint8_t *p);

HT_INLINE __m256 load_f32(const uint8_t *p)
{
    return _mm256_loadu_ps((const float *)(const void *)p);
}
HT_INLINE __m256 load_f16(const uint8_t *p)
{
    return halves_at(p);
}
HT_INLINE __m256 load_bf16(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(ht_xmm_at(p)), 16));
}

HT_INLINE void add_rows(float *acc, uint32_t n, const uint8_t *const *row, const float *h, uint32_t n_rows,
                        const uint8_t *const *next, uint32_t n_next, unsigned size, load_fn *load)
{
    const unsigned step = 64 / size; /* outputs in a line */

    for (uint32_t o = 0; o < n; o += step) {
        for (uint32_t r = 0; r < n_next; r++)
            _mm_prefetch((const char *)next[r] + (size_t)o * size, _MM_HINT_T0);
        for (unsigned i = 0; i < step; i += 8) {
            __m256 a = _mm256_load_ps(acc + o + i);
            for (uint32_t r = 0; r < n_rows; r++)
                a = _mm256_fmadd_ps(load(row[r] + (size_t)(o + i) * size), _mm256_set1_ps(h[r]), a);
            _mm256_store_ps(acc + o + i, a);
        }
    }
}

#define FLOATS(name, size)                                                                                             \
    HT_INLINE void add_##name(float *acc, uint32_t n, const uint8_t *const *row, const float *h, uint32_t n_rows,      \
                              const uint8_t *const *next, uint32_t n_next)                                             \
    {                                                                                                                  \
        add_rows(acc, n, row, h, n_rows, next, n_next, size, load_##name);                                             \
    }                                                                                                                  \
    void ht_down_##name##__avx2(float *y, const ht_down_slice *s)                                                      \
    {                                                                                                                  \
        down_floats(y, s, size, add_##name);                                                                           \
    }
FLOATS(f32, 4)
FLOATS(f16, 2)
FLOATS(bf16, 2)
