/* SPDX-License-Identifier: MIT
 *
 * The scratch of the AVX2 many-token products of quantised weights: how each type's weights are stored in a tile, and
 * tokens arranged beside them. Owner: no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
#include <string.h>

#include "cpu/gemm_q8_avx2.h"
#include "cpu/gemm_unpack_avx2.h"

enum { CHUNK = HT_UNPACK_256 };

/* groups: the magnitude of a weight times 127 times 16 / groups fits in 15 bits. */
HT_INLINE manner manner_16(ht_type type)
{
    switch (type) {
    case HT_Q4_0:
    case HT_Q5_0:
    case HT_TQ1_0:
    case HT_TQ2_0:
    case HT_MXFP4: return (manner){ 1, false, true, 0, NO_MIN };
    case HT_Q4_1: return (manner){ 1, false, false, 0, MIN_ONE };
    case HT_Q5_1: return (manner){ 2, false, false, 0, MIN_ONE };
    case HT_Q2_K: return (manner){ 2, false, false, 2, MIN_HALVES };
    case HT_Q4_K: return (manner){ 1, false, false, 1, MIN_BLOCK };
    case HT_Q5_K: return (manner){ 2, false, false, 1, MIN_BLOCK };
    case HT_Q3_K:
    case HT_Q6_K:
    case HT_IQ1_M: return (manner){ 2, false, true, 2, NO_MIN };
    case HT_IQ1_S:
    case HT_IQ3_S: return (manner){ 1, false, true, 1, NO_MIN };
    case HT_IQ2_XXS:
    case HT_IQ3_XXS: return (manner){ 4, false, true, 1, NO_MIN };
    case HT_IQ2_XS:
    case HT_IQ2_S: return (manner){ 4, false, true, 2, NO_MIN };
    case HT_IQ4_XS: return (manner){ 0, false, false, 1, NO_MIN };
    default: return (manner){ 0, false, false, 0, NO_MIN }; /* Q8_0, IQ4_NL */
    }
}

/* Sums of 32 bits hold any block, and signed weights of any size. */
HT_INLINE manner manner_of(ht_type type, bool wide)
{
    manner m = manner_16(type);
    if (wide)
        m = (manner){ m.scales == 2 ? 2 : 1, true, m.min == NO_MIN, m.scales, m.min };
    return m;
}

manner ht_gemm_avx2_manner(ht_type type, bool wide)
{
    return manner_of(type, wide);
}

tile ht_gemm_avx2_cut(void *scratch, uint32_t k, manner m)
{
    const size_t nb = ht_gemm_blocks(k), tiles = ht_gemm_avx2_rows(k) / R;
    uint8_t *p = scratch;
    tile t = { .round = nb / 16, .n_w = m.groups ? 32 * R : 64 * R };
    t.n_beside = (size_t)n_beside(m) * 4 * R;
    t.w = (int8_t *)p, p += tiles * nb * t.n_w;
    t.beside = (__m256i *)(void *)p, p += tiles * nb * t.n_beside;
    t.x = (int8_t *)p, p += nb * T * (m.groups ? 32 : 64);
    t.xd = (float *)(void *)p, p += nb * T * 4;
    t.xs = (int32_t *)(void *)p, p += nb * T * 4;
    t.acc = (float *)(void *)p;
    return t;
}

HT_INLINE size_t place(const tile *t, size_t b)
{
    return b % 16 * t->round + b / 16;
}

HT_INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
HT_INLINE void store(void *p, __m256i v)
{
    _mm256_store_si256((__m256i *)p, v);
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* Eight dwords of each of 8 rows, rows in lanes. */
HT_INLINE void turn(__m256i v[8], const void *from, size_t row_bytes)
{
    for (int r = 0; r < 8; r++)
        v[r] = load((const uint8_t *)from + (size_t)r * row_bytes);
    ht_transpose8(v);
}

/* -128 times the sums of n vectors of signed weights, in pairs as vpmaddubsw adds them, or (wide) in fours. */
HT_INLINE __m256i start_of(const __m256i *v, int n, bool wide)
{
    const __m256i one = _mm256_set1_epi8(1);
    __m256i s = _mm256_maddubs_epi16(one, v[0]);
    for (int i = 1; i < n; i++)
        s = _mm256_add_epi16(s, _mm256_maddubs_epi16(one, v[i]));
    if (wide)
        return _mm256_madd_epi16(s, _mm256_set1_epi16(-128));
    return _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(s, 7));
}

/* Canonical form of 256 elements of 16 rows. */
typedef struct canon {
    _Alignas(32) int8_t q[R][CHUNK];
    _Alignas(32) int16_t sc[R][CHUNK / 16], mn[R][CHUNK / 16];
    _Alignas(32) float d[R][CHUNK / 32], dm[R][CHUNK / 32];
} canon;

/* What lies beside the weights of n blocks, b first; v: rows of vector h. */
HT_INLINE void turn_beside(const tile *t, const canon *c, __m256i *to, size_t b, uint32_t n, manner m, size_t h)
{
    const size_t r = 8 * h, each = t->n_beside / 32;
    __m256i v[8];
    size_t at = h;

    turn(v, c->d[r], sizeof c->d[0]);
    for (uint32_t i = 0; i < n; i++)
        to[place(t, b + i) * each + at] = v[i];
    at += 2;
    if (m.min != NO_MIN) {
        turn(v, c->dm[r], sizeof c->dm[0]);
        for (uint32_t i = 0; i < n; i++)
            to[place(t, b + i) * each + at] = v[i];
        at += 2;
    }
    if (m.min > MIN_ONE) {
        turn(v, c->mn[r], sizeof c->mn[0]);
        for (uint32_t i = 0; i < n; i++)
            to[place(t, b + i) * each + at] =
                m.min == MIN_HALVES ? v[i] : _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srai_epi32(v[i], 16)));
        at += 2;
    }
    if (m.scales) {
        turn(v, c->sc[r], sizeof c->sc[0]);
        for (uint32_t i = 0; i < n; i++) {
            __m256i *p = to + place(t, b + i) * each + at;
            if (m.wide && m.scales == 2) { /* times finished sums */
                p[0] = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v[i], 16), 16)));
                p[2] = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srai_epi32(v[i], 16)));
            } else if (m.wide || m.groups == 0)
                p[0] = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srai_epi32(v[i], 16)));
            else if (m.scales == 1) /* both halves are the same */
                p[0] = v[i];
            else {
                p[0] = _mm256_blend_epi16(v[i], _mm256_slli_epi32(v[i], 16), 0xaa);
                p[2] = _mm256_blend_epi16(_mm256_srli_epi32(v[i], 16), v[i], 0xaa);
            }
        }
    }
}

/* One block of 8 rows: eight steps, rows in lanes, to the tile. */
HT_INLINE void put_block(int8_t *to, const __m256i v[8], __m256i *start, manner m)
{
    for (int i = 0; i < 8; i++)
        store(to + 64 * i, v[i]);
    for (int g = 0; m.offset && g < m.groups; g++)
        start[2 * g] = start_of(v + 8 / m.groups * g, 8 / m.groups, m.wide);
}

/* 32 signed bytes of each of 8 rows to 16 bits. */
HT_INLINE void turn_wide(int8_t *to, const void *from, size_t row_bytes)
{
    for (int half = 0; half < 2; half++) {
        __m256i v[8];
        for (int r = 0; r < 8; r++)
            v[r] = _mm256_cvtepi8_epi16(_mm_loadu_si128(
                (const __m128i *)(const void *)((const uint8_t *)from + row_bytes * (size_t)r + 16 * half)));
        ht_transpose8(v);
        for (int i = 0; i < 8; i++)
            store(to + 512 * half + 64 * i, v[i]);
    }
}

HT_INLINE __m256i low4(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}
HT_INLINE __m256i high4(__m256i v)
{
    return low4(_mm256_srli_epi16(v, 4));
}

/* 16 bytes of each of 8 rows: dword i of all rows to v[i]. */
HT_INLINE void turn16(__m256i v[4], const uint8_t *p, size_t row_bytes)
{
    __m256i a[4];
    for (size_t r = 0; r < 4; r++)
        a[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(ht_unpack_at128(p + r * row_bytes)),
                                       ht_unpack_at128(p + (r + 4) * row_bytes), 1);
    __m256i t0 = _mm256_unpacklo_epi32(a[0], a[1]), t1 = _mm256_unpackhi_epi32(a[0], a[1]);
    __m256i t2 = _mm256_unpacklo_epi32(a[2], a[3]), t3 = _mm256_unpackhi_epi32(a[2], a[3]);
    v[0] = _mm256_unpacklo_epi64(t0, t2), v[1] = _mm256_unpackhi_epi64(t0, t2);
    v[2] = _mm256_unpacklo_epi64(t1, t3), v[3] = _mm256_unpackhi_epi64(t1, t3);
}

/* Where the blocks of a stretch of the tile go. */
typedef struct target {
    const tile *t;
    int8_t *w;
    __m256i *beside;
    size_t b, h; /* first block, half of the rows */
    manner m;
} target;

HT_INLINE void put_at(const target *g, size_t b, const __m256i v[8])
{
    const size_t p = place(g->t, g->b + b), each = g->t->n_beside / 32;
    put_block(g->w + p * g->t->n_w + 32 * g->h, v, g->beside + (p + 1) * each - 2 * (size_t)g->m.groups + g->h, g->m);
}

/* 256 weights of 8 rows of the most frequent types. Bits are moved after rows and columns have changed places, when a
 * vector holds several blocks' worth of them: half the shuffles of going through the canonical form, and no stores on
 * the way. False: not one of those types. */
HT_INLINE bool turn_directly(const target *g, ht_type type, const uint8_t *p, size_t stride)
{
    const __m256i m48 = _mm256_set1_epi8(48), minus32 = _mm256_set1_epi8(-32), minus8 = _mm256_set1_epi8(-8);
    __m256i v[8], lo[8], hi[8];

    switch (type) {
    case HT_Q4_0:
        for (size_t b = 0; b < 8; b++) {
            turn16(v, p + 18 * b + 2, stride);
            for (int i = 0; i < 4; i++) {
                lo[i] = _mm256_add_epi8(low4(v[i]), minus8);
                lo[4 + i] = _mm256_add_epi8(high4(v[i]), minus8);
            }
            put_at(g, b, lo);
        }
        return true;
    case HT_Q8_0: /* not with VNNI, which multiplies bytes */
        for (size_t b = 0; b < 8 && !g->m.groups; b++)
            turn_wide(g->w + place(g->t, g->b + b) * g->t->n_w + 32 * g->h, p + 34 * b + 2, stride);
        return g->m.groups == 0;
    case HT_Q4_K:
        for (size_t i = 0; i < 4; i++) {
            turn(v, p + 16 + 32 * i, stride);
            for (int j = 0; j < 8; j++)
                lo[j] = low4(v[j]), hi[j] = high4(v[j]);
            put_at(g, 2 * i, lo);
            put_at(g, 2 * i + 1, hi);
        }
        return true;
    case HT_Q6_K:
        for (size_t n = 0; n < 2; n++) {
            __m256i bits[8];
            turn(bits, p + 128 + 32 * n, stride);
            for (size_t half = 0; half < 2; half++) { /* blocks 0 and 2, then 1 and 3 */
                turn(v, p + 64 * n + 32 * half, stride);
                for (int j = 0; j < 8; j++) {
                    const __m256i two = half ? _mm256_slli_epi16(bits[j], 2) : _mm256_slli_epi16(bits[j], 4);
                    const __m256i next = half ? _mm256_srli_epi16(bits[j], 2) : bits[j];
                    lo[j] = _mm256_add_epi8(_mm256_or_si256(low4(v[j]), _mm256_and_si256(two, m48)), minus32);
                    hi[j] = _mm256_add_epi8(_mm256_or_si256(high4(v[j]), _mm256_and_si256(next, m48)), minus32);
                }
                put_at(g, 4 * n + half, lo);
                put_at(g, 4 * n + half + 2, hi);
            }
        }
        return true;
    default: return false;
    }
}

/* Of 256 weights of the types above what is no weight; false: not one of those. */
HT_INLINE bool unpack_scales(ht_type type, const uint8_t *p, bool wide, const ht_canon *c)
{
    switch (type) {
    case HT_Q4_0: ht_unpack_halves(p, 18, c->d); return true;
    case HT_Q8_0: ht_unpack_halves(p, 34, c->d); return !wide;
    case HT_Q4_K: ht_unpack_wide(p, c); return true;
    case HT_Q6_K: ht_unpack_q6_k_scales(p, c); return true;
    default: return false;
    }
}

/* type and m are constants for the frequent types: with few tokens this is most of the work. */
HT_INLINE void unpack_as(const tile *t, size_t number, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                         uint32_t k, manner m)
{
    const ht_type_info *info = ht_type_get(type);
    const size_t each = t->n_beside / 32;
    int8_t *to = t->w + number * t->round * 16 * t->n_w;
    __m256i *beside = t->beside + number * t->round * 16 * each;
    const size_t bytes = ht_type_row_bytes(info, CHUNK);
    canon c;

    for (uint32_t i = 0; i < k; i += CHUNK) {
        const uint32_t n = k - i < CHUNK ? k - i : CHUNK;
        const uint8_t *from = w + ht_type_row_bytes(info, i);
        bool directly = n == CHUNK && n_rows == R;
        if (n < CHUNK)
            memset(&c, 0, sizeof c);
        for (uint32_t r = 0; r < R; r++) {
            const uint8_t *p = from + (r < n_rows ? r : n_rows - 1) * stride;
            const ht_canon to_row = { c.q[r], c.sc[r], c.mn[r], c.d[r], c.dm[r] };
            ht_prefetch(p + R * stride, bytes); /* of the tile that follows */
            directly = directly && unpack_scales(type, p, m.wide, &to_row);
            if (!directly)
                ht_unpack_row(type, p, n, &to_row);
        }
        for (size_t h = 0; h < 2; h++) {
            const target g = { t, to, beside, i / 32, h, m };
            turn_beside(t, &c, beside, i / 32, n / 32, m, h);
            if (directly && turn_directly(&g, type, from + 8 * h * stride, stride))
                continue;
            for (uint32_t j = 0; j < n; j += 32) {
                if (m.groups) {
                    __m256i v[8];
                    turn(v, c.q[8 * h] + j, CHUNK);
                    put_at(&g, j / 32, v);
                } else {
                    turn_wide(to + place(t, (i + j) / 32) * t->n_w + 32 * h, c.q[8 * h] + j, CHUNK);
                }
            }
        }
    }
}

void ht_gemm_avx2_unpack(const tile *t, size_t number, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                         uint32_t k, manner m)
{
#define CASE(name)                                                                                                     \
    case name:                                                                                                         \
        if (m.wide)                                                                                                    \
            unpack_as(t, number, name, w, stride, n_rows, k, manner_of(name, true));                                   \
        else                                                                                                           \
            unpack_as(t, number, name, w, stride, n_rows, k, manner_of(name, false));                                  \
        break;
    switch (type) {
        CASE(HT_Q4_0)
        CASE(HT_Q8_0)
        CASE(HT_Q4_K)
        CASE(HT_Q5_K)
        CASE(HT_Q6_K)
    default: unpack_as(t, number, type, w, stride, n_rows, k, m);
    }
#undef CASE
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* One token, number i of the T. */
HT_INLINE void arrange_token(const tile *t, uint32_t i, const int8_t *q, const float *d, const int16_t *s, uint32_t nb,
                             manner m)
{
    const __m256i flip = _mm256_set1_epi8(m.offset ? (char)0x80 : 0);
    const size_t n_x = m.groups ? 32 : 64;

    for (size_t r = 0; 16 * r < nb; r++) /* in the order of x, which may come from far */
        for (size_t b = 16 * r, p = r * T + i; b < nb && b < 16 * r + 16; b++, p += t->round * T) {
            const __m256i v = load(q + 32 * b);
            if (m.groups) {
                store(t->x + n_x * p, _mm256_xor_si256(v, flip));
            } else {
                store(t->x + n_x * p, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(v)));
                store(t->x + n_x * p + 32, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(v, 1)));
            }
            t->xd[p] = d[b];
            if (m.min == MIN_HALVES) {
                memcpy(t->xs + p, s + 2 * b, 4);
            } else if (m.min != NO_MIN) {
                const float sum = (float)(s[2 * b] + s[2 * b + 1]);
                memcpy(t->xs + p, &sum, 4);
            }
        }
}

/* m is a constant. */
HT_INLINE void arrange(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t nb, manner m)
{
    for (uint32_t i = 0; i < (n_tok + SIDE - 1) / SIDE * SIDE; i++) {
        const size_t at = (size_t)(first + (i < n_tok ? i : n_tok - 1)) * x->stride;
        arrange_token(t, i, x->q + at, x->d + at / 32, x->s + at / 16, nb, m);
    }
}

void ht_gemm_avx2_arrange(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t nb, manner m)
{
    if (m.groups == 0)
        arrange(t, x, first, n_tok, nb, (manner){ 0, false, false, 0, NO_MIN });
    else if (m.min == NO_MIN)
        arrange(t, x, first, n_tok, nb, (manner){ 1, false, true, 0, NO_MIN });
    else if (m.min == MIN_HALVES)
        arrange(t, x, first, n_tok, nb, (manner){ 1, false, false, 0, MIN_HALVES });
    else
        arrange(t, x, first, n_tok, nb, (manner){ 1, false, false, 0, MIN_ONE });
}
