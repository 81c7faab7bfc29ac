/* SPDX-License-Identifier: MIT
 *
 * Down projections from the neuron-major form, AVX-512: as AVX2's, a whole tile of 128 outputs at a time. What unpacking
 * leaves within lanes of 128 bits is put in order when words become dwords. Owner: no state. Threads: any. */
#include "cpu/dot_avx512.h"
#include "cpu/down_x86.h"

HT_INLINE __m512i zmm_at(const void *p)
{
    return _mm512_loadu_si512(p);
}
HT_INLINE __m256i ymm_at(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
HT_INLINE __m512 halves_at(const uint8_t *p)
{
    return _mm512_cvtph_ps(ymm_at(p));
}
HT_INLINE __m512 bytes_at(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
/* Sums of 128 outputs of nibbles, less 8 each: f[i] those of [16 i, 16 i + 16), with `add` each. */
HT_INLINE void nibble_sums(const group *g, uint32_t pairs, size_t at, int add, __m512 f[8])
{
    const __m512i m15 = _mm512_set1_epi8(15);
    __m512i v[4]; /* low nibbles: outputs 0-7 16-23 64-71 80-87 by lanes, and those 8 on; high ones: those 32 on */

    for (unsigned i = 0; i < 4; i++)
        v[i] = _mm512_set1_epi16((short)(-8 * g->sum));
    for (uint32_t p = 0; p < pairs; p++) {
        const __m512i h = _mm512_set1_epi16(g->pair[p]);
        const __m512i a = zmm_at(g->row[2 * p] + at), b = zmm_at(g->row[2 * p + 1] + at);
        const __m512i a0 = _mm512_and_si512(a, m15), b0 = _mm512_and_si512(b, m15);
        const __m512i a1 = _mm512_and_si512(_mm512_srli_epi16(a, 4), m15);
        const __m512i b1 = _mm512_and_si512(_mm512_srli_epi16(b, 4), m15);
        v[0] = _mm512_add_epi16(v[0], _mm512_maddubs_epi16(_mm512_unpacklo_epi8(a0, b0), h));
        v[1] = _mm512_add_epi16(v[1], _mm512_maddubs_epi16(_mm512_unpackhi_epi8(a0, b0), h));
        v[2] = _mm512_add_epi16(v[2], _mm512_maddubs_epi16(_mm512_unpacklo_epi8(a1, b1), h));
        v[3] = _mm512_add_epi16(v[3], _mm512_maddubs_epi16(_mm512_unpackhi_epi8(a1, b1), h));
    }
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), last = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (unsigned i = 0; i < 2; i++) { /* 32 i to 32 i + 31, and 64 behind them */
        const __m512i near = _mm512_permutex2var_epi64(v[2 * i], first, v[2 * i + 1]);
        const __m512i far = _mm512_permutex2var_epi64(v[2 * i], last, v[2 * i + 1]);
        const __m512i words[2] = { near, far };
        for (unsigned j = 0; j < 2; j++) {
            __m512i lo = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(words[j]));
            __m512i hi = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(words[j], 1));
            f[4 * j + 2 * i] = _mm512_cvtepi32_ps(_mm512_add_epi32(lo, _mm512_set1_epi32(add)));
            f[4 * j + 2 * i + 1] = _mm512_cvtepi32_ps(_mm512_add_epi32(hi, _mm512_set1_epi32(add)));
        }
    }
}

HT_INLINE void tiles_q4_0(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width)
{
    const __m512 h_d = _mm512_set1_ps(g->h_d);

    for (uint32_t o = 0; o < n; o += TILE) {
        __m512 f[8];
        ahead(next, o / TILE, 64, 1, 0, width);
        nibble_sums(g, pairs, o / 2, 0, f);
        for (unsigned i = 0; i < 8; i++) {
            float *a = acc + o + 16 * i;
            const __m512 scale = _mm512_mul_ps(halves_at(g->d + 2 * (o + 16 * i)), h_d);
            _mm512_store_ps(a, _mm512_fmadd_ps(scale, f[i], _mm512_load_ps(a)));
        }
    }
}

/* acc + (d * x.d) * (scale * isum) - (dmin * x.d) * (minimum * sum(h)) */
HT_INLINE void tiles_q4_k(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width)
{
    const __m512 h_d = _mm512_set1_ps(g->h_d), sum = _mm512_set1_ps((float)g->sum);

    for (uint32_t o = 0; o < n; o += TILE) {
        __m512 f[8];
        ahead(next, o / TILE, 64, 2, 2, width);
        nibble_sums(g, pairs, o / 2, 8 * g->sum, f);
        for (unsigned i = 0; i < 8; i++) {
            const uint32_t at = o + 16 * i;
            const uint8_t *d = g->d + 2 * (size_t)at, *sc = g->sc + at;
            __m512 a = _mm512_load_ps(acc + at);
            a = _mm512_fmadd_ps(_mm512_mul_ps(halves_at(d), h_d), _mm512_mul_ps(f[i], bytes_at(sc)), a);
            a = _mm512_fnmadd_ps(_mm512_mul_ps(halves_at(d + 2 * width), h_d), _mm512_mul_ps(bytes_at(sc + width), sum),
                                 a);
            _mm512_store_ps(acc + at, a);
        }
    }
}

/* 32 outputs: two rows' bytes become words side by side. */
HT_INLINE void tiles_q8_0(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width)
{
    const __m512 h_d = _mm512_set1_ps(g->h_d);

    for (uint32_t o = 0; o < n; o += 32) {
        __m512i v[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
        if (o % TILE == 0)
            ahead(next, o / TILE, TILE, 1, 0, width);
        for (uint32_t p = 0; p < pairs; p++) {
            const __m512i h = _mm512_set1_epi32(g->words[p]);
            for (unsigned i = 0; i < 2; i++) {
                const uint8_t *r0 = g->row[2 * p] + o + 16 * i, *r1 = g->row[2 * p + 1] + o + 16 * i;
                const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)r0);
                const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)r1);
                const __m256i both =
                    _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(a, b)), _mm_unpackhi_epi8(a, b), 1);
                v[i] = _mm512_add_epi32(v[i], _mm512_madd_epi16(_mm512_cvtepi8_epi16(both), h));
            }
        }
        for (unsigned i = 0; i < 2; i++) {
            float *a = acc + o + 16 * i;
            const __m512 scale = _mm512_mul_ps(halves_at(g->d + 2 * (size_t)(o + 16 * i)), h_d);
            _mm512_store_ps(a, _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(v[i]), _mm512_load_ps(a)));
        }
    }
}

#define KERNEL(name)                                                                                                   \
    void ht_down_##name##__avx512(float *y, const ht_down_slice *s)                                                    \
    {                                                                                                                  \
        down(y, s, tiles_##name, true);                                                                                \
    }
KERNEL(q4_0)
KERNEL(q8_0)
KERNEL(q4_k)

/* ---- float weights ---- */

typedef __m512 load_fn(const uint8_t *p);

HT_INLINE __m512 load_f32(const uint8_t *p)
{
    return _mm512_loadu_ps(p);
}
HT_INLINE __m512 load_f16(const uint8_t *p)
{
    return halves_at(p);
}
HT_INLINE __m512 load_bf16(const uint8_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(ymm_at(p)), 16));
}

HT_INLINE void add_rows(float *acc, uint32_t n, const uint8_t *const *row, const float *h, uint32_t n_rows,
                        const uint8_t *const *next, uint32_t n_next, unsigned size, load_fn *load)
{
    const unsigned step = 64 / size; /* outputs in a line */

    for (uint32_t o = 0; o < n; o += step) {
        for (uint32_t r = 0; r < n_next; r++)
            _mm_prefetch((const char *)next[r] + (size_t)o * size, _MM_HINT_T0);
        for (unsigned i = 0; i < step; i += 16) {
            __m512 a = _mm512_load_ps(acc + o + i);
            for (uint32_t r = 0; r < n_rows; r++)
                a = _mm512_fmadd_ps(load(row[r] + (size_t)(o + i) * size), _mm512_set1_ps(h[r]), a);
            _mm512_store_ps(acc + o + i, a);
        }
    }
}

#define FLOATS(name, size)                                                                                             \
    HT_INLINE void add_##name(float *acc, uint32_t n, const uint8_t *const *row, const float *h, uint32_t n_rows,      \
                              const uint8_t *const *next, uint32_t n_next)                                             \
    {                                                                                                                  \
        add_rows(acc, n, row, h, n_rows, next, n_next, size, load_##name);                                             \
    }                                                                                                                  \
    void ht_down_##name##__avx512(float *y, const ht_down_slice *s)                                                    \
    {                                                                                                                  \
        down_floats(y, s, size, add_##name);                                                                           \
    }
FLOATS(f32, 4)
FLOATS(f16, 2)
FLOATS(bf16, 2)
