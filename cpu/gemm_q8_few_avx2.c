/* SPDX-License-Identifier: MIT
 *
 * The frequent weight types times two to twelve tokens, AVX2: too few for tiles (gemm_q8_avx2_body.h), whose unpacking
 * they do not pay for, and each by itself (dot_q8_avx2.c) would take the weights' bits apart once more. Here a step
 * takes eight blocks of a row apart in registers, for eight of the sixteen accumulators of the contract, and then meets
 * up to four tokens, while the rows that follow come from memory.
 *
 * A register holds 16 weights of block i in its lower lane and the same 16 of block i + 4 in the upper one, and so do
 * the tokens' arranged activations: the two halves of a block meet by one addition, and four registers hold the eight
 * blocks' sums until they are added across lanes: in words as far as the type allows.
 * Owner: no state; the scratch is the caller's. Threads: any. */
#include <string.h>

#include "cpu/gemm_q8_avx2.h"

enum { PART = 256, GROUP = 16 /* rows that all tokens meet before the next */, MOST = 4 /* tokens in a step */ };

/* Eight blocks of a token, b at 64 b: 16 of b, 16 of b + 4, the rest of b, the rest of b + 4. */
typedef struct xpart {
    int8_t q[PART];
    float d[8], fsum[8]; /* fsum: sums of blocks */
    int32_t sum8[8];     /* eight times these */
    int16_t s[16];       /* sums of 16 */
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
    const __m256i halves = at256(s), sum = _mm256_madd_epi16(halves, _mm256_set1_epi16(1));
    _mm256_store_si256((__m256i *)(void *)to->s, halves);
    _mm256_store_ps(to->d, _mm256_loadu_ps(d));
    _mm256_store_ps(to->fsum, _mm256_cvtepi32_ps(sum));
    _mm256_store_si256((__m256i *)(void *)to->sum8, _mm256_slli_epi32(sum, 3));
}

/* A part of a row taken apart: block i is w[2 i mod 8] and the register after it. Beside them: Q4_0, Q8_0: d. Q4_K,
 * Q5_K: d, sc, dm, mn. Q6_K: d, by (the scale of each register's lanes), minus (32 times the scales). Q8_0: by:
 * magnitudes. */
typedef struct wpart {
    __m256i w[8], by[8], minus;
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

/* Eight blocks of 34 bytes: f16 d, signed bytes. */
HT_INLINE void part_q8_0(wpart *o, const uint8_t *p)
{
    for (int i = 0; i < 4; i++) {
        const uint8_t *a = p + 34 * i + 2, *b = a + 136;
        o->w[2 * i] = two128(a, b);
        o->w[2 * i + 1] = two128(a + 16, b + 16);
    }
    for (int i = 0; i < 8; i++)
        o->by[i] = _mm256_abs_epi8(o->w[i]);
    /* the d of four blocks to the words of a lane */
    const __m256i a = _mm256_unpacklo_epi16(two128(p, p + 136), two128(p + 34, p + 170));
    const __m256i b = _mm256_unpacklo_epi16(two128(p + 68, p + 204), two128(p + 102, p + 238));
    const __m256i d = _mm256_unpacklo_epi32(a, b);
    o->d = _mm256_cvtph_ps(_mm_unpacklo_epi64(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1)));
}

/* f16 d, f16 dmin, 12 bytes of 8 scales and 8 minima of 6 bits. */
HT_INLINE void scales_k(wpart *o, const uint8_t *p)
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
}

/* Four times 32 bytes: low nibbles a block, high ones the next. */
HT_INLINE void nibbles_k(wpart *o, const uint8_t *p)
{
    for (int j = 0; j < 2; j++) {
        const uint8_t *q = p + 32 * j;
        nibbles(&o->w[4 * j], &o->w[4 * j + 2], two128(q, q + 64));
        nibbles(&o->w[4 * j + 1], &o->w[4 * j + 3], two128(q + 16, q + 80));
    }
}

HT_INLINE void part_q4_k(wpart *o, const uint8_t *p)
{
    scales_k(o, p);
    nibbles_k(o, p + 16);
}

/* Between scales and nibbles 32 bytes: bit i of byte l is the fifth of element l of block i. */
HT_INLINE void part_q5_k(wpart *o, const uint8_t *p)
{
    const __m256i by = _mm256_setr_epi64x(0, 0, 4, 4), m16 = _mm256_set1_epi8(16); /* upper lane: blocks 4..7 */
    scales_k(o, p);
    nibbles_k(o, p + 48);
    for (int h = 0; h < 2; h++) {
        const uint8_t *at = p + 16 + 16 * h;
        const __m256i bits = _mm256_srlv_epi64(two128(at, at), by);
        for (int i = 0; i < 4; i++)
            o->w[2 * i + h] = _mm256_or_si256(o->w[2 * i + h], _mm256_and_si256(_mm256_slli_epi16(bits, 4 - i), m16));
    }
}

/* Twice 64 bytes of low nibbles, twice 32 of high bits, 16 signed scales, f16 d; minus 32. */
HT_INLINE void part_q6_k(wpart *o, const uint8_t *p)
{
    const __m256i m48 = _mm256_set1_epi8(48);
    for (int h = 0; h < 2; h++) {
        const uint8_t *q = p + 16 * h, *b = p + 128 + 16 * h;
        const __m256i bits = two128(b, b + 32);
        nibbles(&o->w[h], &o->w[4 + h], two128(q, q + 64));
        nibbles(&o->w[2 + h], &o->w[6 + h], two128(q + 32, q + 96));
        o->w[h] = _mm256_or_si256(o->w[h], _mm256_and_si256(_mm256_slli_epi16(bits, 4), m48));
        o->w[2 + h] = _mm256_or_si256(o->w[2 + h], _mm256_and_si256(_mm256_slli_epi16(bits, 2), m48));
        o->w[4 + h] = _mm256_or_si256(o->w[4 + h], _mm256_and_si256(bits, m48));
        o->w[6 + h] = _mm256_or_si256(o->w[6 + h], _mm256_and_si256(_mm256_srli_epi16(bits, 2), m48));
    }
    /* of block i the words 2 i and 2 i + 1, those of block i + 4 in the upper lane */
    const __m256i sc = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(p + 192)));
    for (int i = 0; i < 8; i++)
        o->by[i] = _mm256_shuffle_epi8(sc, _mm256_set1_epi16((short)(0x0100 + 0x0202 * i)));
    o->minus = _mm256_slli_epi16(sc, 5);
    uint16_t d;
    memcpy(&d, p + 208, 2);
    o->d = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(d)));
}

/* Sums of the lanes of four registers, of words (all of a lane's, or no more than two, fit in one) or of dwords. */
HT_INLINE __m256i fold32w(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}
HT_INLINE __m256i fold32(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}
HT_INLINE __m256i fold64(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}
HT_INLINE __m256i sum_words(const __m256i v[4], bool two)
{
    const __m256i one = _mm256_set1_epi16(1), a = fold32w(v[0], v[1]), b = fold32w(v[2], v[3]);
    if (two)
        return fold64(_mm256_madd_epi16(a, one), _mm256_madd_epi16(b, one));
    return _mm256_madd_epi16(_mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)), one);
}
HT_INLINE __m256i sum_dwords(const __m256i v[4])
{
    return fold64(fold32(v[0], v[1]), fold32(v[2], v[3]));
}

/* The eight blocks' integer products of a part of a row with a part of a token. */
HT_INLINE __m256i sum_part(const wpart *o, const xpart *x, ht_type type)
{
    const __m256i one = _mm256_set1_epi16(1);
    __m256i v[4];
    for (int i = 0; i < 4; i++) {
        const __m256i a = at256(x->q + 64 * i), b = at256(x->q + 64 * i + 32);
        const __m256i *w = o->w + 2 * i, *by = o->by + 2 * i;
        if (type == HT_Q8_0) /* x takes the weights' sign; it is never -128 (see quantise_q8) */
            v[i] = _mm256_add_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(by[0], _mm256_sign_epi8(a, w[0])), one),
                                    _mm256_madd_epi16(_mm256_maddubs_epi16(by[1], _mm256_sign_epi8(b, w[1])), one));
        else if (type == HT_Q6_K)
            v[i] = _mm256_add_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(w[0], a), by[0]),
                                    _mm256_madd_epi16(_mm256_maddubs_epi16(w[1], b), by[1]));
        else
            v[i] = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], a), _mm256_maddubs_epi16(w[1], b));
    }
    switch (type) {
    case HT_Q8_0: return sum_dwords(v);
    case HT_Q6_K: return _mm256_sub_epi32(sum_dwords(v), _mm256_madd_epi16(o->minus, at256(x->s)));
    case HT_Q5_K: return sum_words(v, true);
    case HT_Q4_0: return _mm256_sub_epi32(sum_words(v, false), at256(x->sum8));
    default: return sum_words(v, false);
    }
}

/* acc plus a part of a row times a part of a token. */
HT_INLINE __m256 add_part(__m256 acc, const wpart *o, const xpart *x, ht_type type)
{
    const __m256 sum = _mm256_cvtepi32_ps(sum_part(o, x, type)), xd = _mm256_load_ps(x->d);
    if (type != HT_Q4_K && type != HT_Q5_K)
        return _mm256_fmadd_ps(_mm256_mul_ps(o->d, xd), sum, acc);
    /* floats that hold integers below 2^24 are exact */
    acc = _mm256_fmadd_ps(_mm256_mul_ps(o->d, xd), _mm256_mul_ps(sum, o->sc), acc);
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

HT_INLINE size_t part_bytes(ht_type type)
{
    return type == HT_Q8_0 ? 272 : type == HT_Q6_K ? 210 : type == HT_Q5_K ? 176 : 144;
}

/* n_tok and type are constants; x: [n_tok][parts]. Rows that follow are prefetched. */
HT_INLINE void times(float *y, size_t ldy, const uint8_t *w, size_t stride, uint32_t n_rows, const xpart *x,
                     uint32_t parts, int n_tok, ht_type type)
{
    const size_t bytes = part_bytes(type);
    for (uint32_t r = 0; r < n_rows; r++, w += stride) {
        __m256 acc[MOST][2];
#pragma GCC unroll 4
        for (int t = 0; t < n_tok; t++)
            acc[t][0] = acc[t][1] = _mm256_setzero_ps();
        for (uint32_t b = 0; b < parts; b++) {
            wpart o;
            ht_prefetch(w + 4 * stride + bytes * b, bytes);
            switch (type) {
            case HT_Q4_0: part_q4_0(&o, w + bytes * b); break;
            case HT_Q8_0: part_q8_0(&o, w + bytes * b); break;
            case HT_Q5_K: part_q5_k(&o, w + bytes * b); break;
            case HT_Q6_K: part_q6_k(&o, w + bytes * b); break;
            default: part_q4_k(&o, w + bytes * b);
            }
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

#define TIMES(name, type)                                                                                              \
    static void name(float *y, size_t ldy, const uint8_t *w, size_t stride, uint32_t n_rows, const xpart *x,           \
                     uint32_t parts, uint32_t n_tok)                                                                   \
    {                                                                                                                  \
        switch (n_tok) {                                                                                               \
        case 2: times(y, ldy, w, stride, n_rows, x, parts, 2, type); break;                                            \
        case 3: times(y, ldy, w, stride, n_rows, x, parts, 3, type); break;                                            \
        default: times(y, ldy, w, stride, n_rows, x, parts, 4, type); break;                                           \
        }                                                                                                              \
    }
TIMES(times_q4_0, HT_Q4_0)
TIMES(times_q8_0, HT_Q8_0)
TIMES(times_q4_k, HT_Q4_K)
TIMES(times_q5_k, HT_Q5_K)
TIMES(times_q6_k, HT_Q6_K)

typedef void times_fn(float *y, size_t ldy, const uint8_t *w, size_t stride, uint32_t n_rows, const xpart *x,
                      uint32_t parts, uint32_t n_tok);

/* Until how many tokens (`hearth bench -p 2,4,8,12,16 -n 0`, EPYC of Zen 3, 2026-11), with what. */
static uint32_t most_tokens(ht_type type, times_fn **fn)
{
    switch (type) {
    case HT_Q4_0: *fn = times_q4_0; return 12;
    case HT_Q4_K: *fn = times_q4_k; return 12;
    case HT_Q5_K: *fn = times_q5_k; return 12;
    case HT_Q6_K: *fn = times_q6_k; return 12;
    case HT_Q8_0: *fn = times_q8_0; return 8;
    default: *fn = NULL; return 0;
    }
}

bool ht_gemm_avx2_few(float *y, size_t ldy, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                      const ht_q8 *x, uint32_t n_tok, uint32_t k, void *scratch)
{
    const uint32_t parts = k / PART, groups = (n_tok + MOST - 1) / MOST, first = (n_tok + groups - 1) / groups;
    xpart *xp = scratch;
    times_fn *fn;

    if (n_tok > most_tokens(type, &fn) || n_tok < 2 || k % PART)
        return false;
    for (uint32_t t = 0; t < n_tok; t++)
        for (uint32_t b = 0; b < parts; b++) {
            const size_t at = t * x->stride + (size_t)b * PART;
            arrange(xp + (size_t)t * parts + b, x->q + at, x->d + at / 32, x->s + at / 16);
        }
    for (uint32_t r = 0; r < n_rows; r += GROUP)
        for (uint32_t t = 0; t < n_tok; t += first) {
            const uint32_t n = n_rows - r < GROUP ? n_rows - r : GROUP, nt = n_tok - t < first ? n_tok - t : first;
            fn(y + t * ldy + r, ldy, w + r * stride, stride, n, xp + (size_t)t * parts, parts, nt);
        }
    return true;
}
