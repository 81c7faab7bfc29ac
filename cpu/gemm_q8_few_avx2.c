/* SPDX-License-Identifier: MIT
 *
 * Weights of 4 bits times two to twelve tokens, AVX2: too few for tiles (gemm_q8_avx2_body.h), whose unpacking they do
 * not pay for, and each by itself (dot_q8_avx2.c) would take the weights' bits apart once more. Here a step takes eight
 * blocks of a row apart in registers, for eight of the sixteen accumulators of the contract, and then meets up to four
 * tokens.
 *
 * A register holds 16 weights of block i in its lower lane and the same 16 of block i + 4 in the upper one, and so do
 * the tokens' arranged activations: the two halves of a block meet by one addition, and four registers hold the eight
 * blocks' sums, in words, until they are added across lanes.
 * Owner: no state; the scratch is the caller's. Threads: any. */
#include <string.h>

#include "cpu/gemm_q8_avx2.h"

enum { PART = 256, GROUP = 16 /* rows that all tokens meet before the next */, MOST = 4 /* tokens in a step */ };

/* Eight blocks of a token, b at 64 b: 16 of b, 16 of b + 4, the rest of b, the rest of b + 4. */
typedef struct xpart {
    int8_t q[PART];
    float d[8], fsum[8]; /* fsum: sums of blocks */
    int32_t sum8[8];     /* eight times these */
} xpart;

HT_INLINE __m256i at256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
HT_INLINE __m256i two128(const void *lo, const void *hi)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)lo)),
                                   _mm_loadu_si128((const __m128i *)hi), 1);
}

static void arrange(xpart *to, const int8_t *q, const float *d, const int16_t *s)
{
    for (int i = 0; i < 4; i++) {
        const int8_t *a = q + 32 * i, *b = a + 128;
        _mm256_store_si256((__m256i *)(void *)(to->q + 64 * i), two128(a, b));
        _mm256_store_si256((__m256i *)(void *)(to->q + 64 * i + 32), two128(a + 16, b + 16));
    }
    const __m256i sum = _mm256_madd_epi16(at256(s), _mm256_set1_epi16(1));
    _mm256_store_ps(to->d, _mm256_loadu_ps(d));
    _mm256_store_ps(to->fsum, _mm256_cvtepi32_ps(sum));
    _mm256_store_si256((__m256i *)(void *)to->sum8, _mm256_slli_epi32(sum, 3));
}

/* A part of a row taken apart: block i is w[2 i mod 8] and the register after it. Of Q4_0 d alone is used. */
typedef struct wpart {
    __m256i w[8];
    __m256 d, sc, dm, mn;
} wpart;

HT_INLINE void nibbles(__m256i lo[1], __m256i hi[1], __m256i v)
{
    const __m256i m15 = _mm256_set1_epi8(15);
    *lo = _mm256_and_si256(v, m15);
    *hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), m15);
}

/* Eight blocks of 18 bytes: f16 d, nibbles. */
HT_INLINE void part_q4_0(wpart *o, const uint8_t *p)
{
    for (int i = 0; i < 4; i++)
        nibbles(&o->w[2 * i], &o->w[2 * i + 1], two128(p + 18 * i + 2, p + 18 * i + 74));
    /* two d with a load, 18 bytes apart: lower lanes d0 d2, d4 d6; upper ones, two words behind, d1 d3, d5 d7 */
    __m256i a = _mm256_unpacklo_epi16(at256(p), at256(p + 36)),
            b = _mm256_unpacklo_epi16(at256(p + 72), at256(p + 108));
    a = _mm256_unpacklo_epi32(a, b); /* d0 d2 d4 d6 - - - -, - - - - d1 d3 d5 d7 */
    __m128i d = _mm_blend_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1), 12);
    d = _mm_shuffle_epi8(d, _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
    o->d = _mm256_cvtph_ps(d);
}

/* f16 d, f16 dmin, 12 bytes of 8 scales and 8 minima of 6 bits, four times 32 bytes: low nibbles a block, high ones the
 * next. */
HT_INLINE void part_q4_k(wpart *o, const uint8_t *p)
{
    const __m128i head = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 0, 1, 0)), 2);
    __m128i both = _mm_or_si128(low, _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030)));
    const __m128 d = _mm_cvtph_ps(head);
    o->sc = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(both));
    o->mn = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(both, both)));
    o->d = _mm256_broadcastss_ps(d);
    o->dm = _mm256_broadcastss_ps(_mm_movehdup_ps(d));
    for (int j = 0; j < 2; j++) {
        const uint8_t *q = p + 16 + 32 * j;
        nibbles(&o->w[4 * j], &o->w[4 * j + 2], two128(q, q + 64));
        nibbles(&o->w[4 * j + 1], &o->w[4 * j + 3], two128(q + 16, q + 80));
    }
}

HT_INLINE __m256i fold32(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}

/* acc plus a part of a row times a part of a token. */
HT_INLINE __m256 add_part(__m256 acc, const wpart *o, const xpart *x, ht_type type)
{
    __m256i v[4];
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_add_epi16(_mm256_maddubs_epi16(o->w[2 * i], at256(x->q + 64 * i)),
                                _mm256_maddubs_epi16(o->w[2 * i + 1], at256(x->q + 64 * i + 32)));
    const __m256i a = fold32(v[0], v[1]), b = fold32(v[2], v[3]);
    __m256i sum = _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
    const __m256 xd = _mm256_load_ps(x->d);
    if (type == HT_Q4_0) {
        sum = _mm256_sub_epi32(sum, at256(x->sum8));
        return _mm256_fmadd_ps(_mm256_mul_ps(o->d, xd), _mm256_cvtepi32_ps(sum), acc);
    }
    /* floats that hold integers below 2^24 are exact */
    acc = _mm256_fmadd_ps(_mm256_mul_ps(o->d, xd), _mm256_mul_ps(_mm256_cvtepi32_ps(sum), o->sc), acc);
    return _mm256_fnmadd_ps(_mm256_mul_ps(o->dm, xd), _mm256_mul_ps(_mm256_load_ps(x->fsum), o->mn), acc);
}

/* The tree of the numeric contract over accumulators 0..7 and 8..15. */
HT_INLINE float tree(__m256 lo, __m256 hi)
{
    const __m256 b = _mm256_add_ps(lo, hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* n_tok and type are constants; x: [n_tok][parts]. Rows that follow are prefetched. */
HT_INLINE void times(float *y, size_t ldy, const uint8_t *w, size_t stride, uint32_t n_rows, const xpart *x,
                     uint32_t parts, int n_tok, ht_type type)
{
    const size_t bytes = 144; /* of a part, of either type */
    for (uint32_t r = 0; r < n_rows; r++, w += stride) {
        __m256 acc[MOST][2];
#pragma GCC unroll 4
        for (int t = 0; t < n_tok; t++)
            acc[t][0] = acc[t][1] = _mm256_setzero_ps();
        for (uint32_t b = 0; b < parts; b++) {
            wpart o;
            ht_prefetch(w + 4 * stride + bytes * b, bytes);
            if (type == HT_Q4_0)
                part_q4_0(&o, w + bytes * b);
            else
                part_q4_k(&o, w + bytes * b);
#pragma GCC unroll 4
            for (int t = 0; t < n_tok; t++) { /* acc[t][0]: of even parts */
                const __m256 next = add_part(acc[t][0], &o, x + (size_t)t * parts + b, type);
                acc[t][0] = acc[t][1];
                acc[t][1] = next;
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < n_tok; t++)
            y[(size_t)t * ldy + r] = parts % 2 ? tree(acc[t][1], acc[t][0]) : tree(acc[t][0], acc[t][1]);
    }
}

HT_INLINE void times_n(float *y, size_t ldy, const uint8_t *w, size_t stride, uint32_t n_rows, const xpart *x,
                       uint32_t parts, uint32_t n_tok, ht_type type)
{
    switch (n_tok) {
    case 2: times(y, ldy, w, stride, n_rows, x, parts, 2, type); break;
    case 3: times(y, ldy, w, stride, n_rows, x, parts, 3, type); break;
    default: times(y, ldy, w, stride, n_rows, x, parts, 4, type); break;
    }
}

bool ht_gemm_avx2_few(float *y, size_t ldy, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                      const ht_q8 *x, uint32_t n_tok, uint32_t k, void *scratch)
{
    const uint32_t parts = k / PART, groups = (n_tok + MOST - 1) / MOST, first = (n_tok + groups - 1) / groups;
    xpart *xp = scratch;

    if ((type != HT_Q4_0 && type != HT_Q4_K) || k % PART || n_tok < 2 || n_tok > HT_GEMM_AVX2_FEW)
        return false;
    for (uint32_t t = 0; t < n_tok; t++)
        for (uint32_t b = 0; b < parts; b++) {
            const size_t at = t * x->stride + (size_t)b * PART;
            arrange(xp + (size_t)t * parts + b, x->q + at, x->d + at / 32, x->s + at / 16);
        }
    for (uint32_t r = 0; r < n_rows; r += GROUP)
        for (uint32_t t = 0; t < n_tok; t += first) {
            const uint32_t n = n_rows - r < GROUP ? n_rows - r : GROUP, nt = n_tok - t < first ? n_tok - t : first;
            const uint8_t *rows = w + r * stride;
            if (type == HT_Q4_0)
                times_n(y + t * ldy + r, ldy, rows, stride, n, xp + (size_t)t * parts, parts, nt, HT_Q4_0);
            else
                times_n(y + t * ldy + r, ldy, rows, stride, n, xp + (size_t)t * parts, parts, nt, HT_Q4_K);
        }
    return true;
}
