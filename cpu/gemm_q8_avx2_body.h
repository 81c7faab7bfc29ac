/* SPDX-License-Identifier: MIT
 *
 * Quantised weights times many tokens, 256 bits wide. Included by gemm_q8_avx2.c and gemm_q8_avxvnni.c, which set
 * HT_VNNI, the function's name GEMM_Q8 and its level GEMM_ISA.
 *
 * Tiles of 16 rows are unpacked once: rows in the lanes of two vectors, four weights of a row per lane, eight steps to
 * a block of 32. Two vectors of rows meet four tokens at a time, whose x comes in as broadcasts from memory: eight sums
 * in registers. Blocks are walked in the order of their number mod 16, so that one accumulator per row and token is in
 * use at a time, and weights and x lie in memory in that order.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, saturating, which no type here can reach.
 * Its results are added in 16 bits as far as a type's weights allow (`groups`), a whole block of 4-bit weights, before
 * vpmaddwd widens them and multiplies by the sub-block's scale. Where weights have a sign, x is made unsigned by adding
 * 128, and the sums start at -128 times the sum of the weights; they may overflow on the way, which is undone again:
 * arithmetic modulo 2^16 is exact where the result fits. Types that fill a byte are multiplied in 16 bits, which
 * measured faster than to lend their sign to x.
 *
 * With VNNI, vpdpbusd adds four products in 32 bits at once, for every type: one sum per scale, and nothing to widen.
 *
 * Few tokens do not pay for the unpacking: they go through the dot products, a tile of rows at a time.
 * Owner: no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
#include <string.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "cpu/gemm_q8_avx2.h"

HT_INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

HT_INLINE __m256i four(const int8_t *p)
{
    int v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

#if HT_VNNI
/* s[r][t] = sum over steps [i0, i1) of two vectors of weights with `side` (a constant) tokens. */
HT_INLINE void sum_steps(__m256i s[2][SIDE], const int8_t *w, const int8_t *x, const __m256i *start, bool offset,
                         int i0, int i1, int side)
{
#pragma GCC unroll 4
    for (int t = 0; t < side; t++)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++)
            s[r][t] = offset ? start[r] : _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = i0; i < i1; i++) {
        const __m256i w0 = load(w + 64 * i), w1 = load(w + 64 * i + 32);
#pragma GCC unroll 4
        for (int t = 0; t < side; t++) {
            const __m256i v = four(x + 32 * t + 4 * i);
            s[0][t] = offset ? _mm256_dpbusd_avx_epi32(s[0][t], v, w0) : _mm256_dpbusd_avx_epi32(s[0][t], w0, v);
            s[1][t] = offset ? _mm256_dpbusd_avx_epi32(s[1][t], v, w1) : _mm256_dpbusd_avx_epi32(s[1][t], w1, v);
        }
    }
}
#else
/* Keeps the compiler from reordering sums into trees, which costs more registers than there are. */
#define STAY(v) __asm__("" : "+x"(v))
/* Loads stay behind those of the step before: compilers move all of a block's to its begin, and then put sums on the
 * stack, a quarter of the speed (gcc 12). */
#define IN_ORDER __asm__ volatile("" ::: "memory")

/* s[r][t] = sum over steps [i0, i1) of two vectors of weights with `side` (a constant) tokens. */
HT_INLINE void sum16(__m256i s[2][SIDE], const int8_t *w, const int8_t *x, const __m256i *start, bool offset, int i0,
                     int i1, int side)
{
#pragma GCC unroll 8
    for (int i = i0; i < i1; i++) {
        IN_ORDER;
        const __m256i w0 = load(w + 64 * i), w1 = load(w + 64 * i + 32);
#pragma GCC unroll 4
        for (int t = 0; t < side; t++) {
            const __m256i v = four(x + 32 * t + 4 * i);
            __m256i a = offset ? _mm256_maddubs_epi16(v, w0) : _mm256_maddubs_epi16(w0, v);
            __m256i b = offset ? _mm256_maddubs_epi16(v, w1) : _mm256_maddubs_epi16(w1, v);
            if (i > i0)
                a = _mm256_add_epi16(a, s[0][t]), b = _mm256_add_epi16(b, s[1][t]);
            else if (offset)
                a = _mm256_add_epi16(a, start[0]), b = _mm256_add_epi16(b, start[1]);
            STAY(a);
            STAY(b);
            s[0][t] = a, s[1][t] = b;
        }
    }
}

/* The same of 16-bit weights to 32 bits, a whole block. */
HT_INLINE void sum32(__m256i s[2][SIDE], const int8_t *w, const int8_t *x, int side)
{
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        IN_ORDER;
        const __m256i w0 = load(w + 64 * i), w1 = load(w + 64 * i + 32);
#pragma GCC unroll 4
        for (int t = 0; t < side; t++) {
            const __m256i v = four(x + 64 * t + 4 * i);
            __m256i a = _mm256_madd_epi16(v, w0), b = _mm256_madd_epi16(v, w1);
            if (i)
                a = _mm256_add_epi32(a, s[0][t]), b = _mm256_add_epi32(b, s[1][t]);
            STAY(a);
            STAY(b);
            s[0][t] = a, s[1][t] = b;
        }
    }
}
#endif

/* One block of a tile with `side` tokens. m, fresh (acc is taken for zero) and side are constants. */
HT_INLINE void block_times(const int8_t *w, const __m256i *beside, const int8_t *x, const float *xd, const int32_t *xs,
                           float *acc, manner m, bool fresh, int side)
{
    const __m256i *sc = beside + 2 * (1 + (m.min != NO_MIN) + (m.min > MIN_ONE)), *start = sc + 2 * m.scales;
    __m256i s[2][SIDE];
#if HT_VNNI
    __m256 total[2][SIDE]; /* integers below 2^24: exact */

#pragma GCC unroll 2
    for (int g = 0; g < m.groups; g++) {
        const int n = 8 / m.groups;
        sum_steps(s, w, x, start + 2 * g, m.offset, n * g, n * g + n, side);
#pragma GCC unroll 4
        for (int t = 0; t < side; t++)
#pragma GCC unroll 2
            for (int r = 0; r < 2; r++) {
                const __m256 v = _mm256_cvtepi32_ps(s[r][t]);
                if (m.scales == 0)
                    total[r][t] = v;
                else if (g == 0)
                    total[r][t] = _mm256_mul_ps(v, _mm256_castsi256_ps(sc[r]));
                else
                    total[r][t] = _mm256_fmadd_ps(v, _mm256_castsi256_ps(sc[2 + r]), total[r][t]);
            }
    }
#else
    const __m256i one = _mm256_set1_epi16(1);
    __m256i total[2][SIDE];

    if (m.groups == 0)
        sum32(total, w, x, side);
#pragma GCC unroll 4
    for (int g = 0; g < m.groups; g++) {
        const int n = 8 / m.groups;
        const __m256i *by = sc + (m.scales == 2 && 2 * g >= m.groups ? 2 : 0);
        sum16(s, w, x, start + 2 * g, m.offset, n * g, n * g + n, side);
#pragma GCC unroll 4
        for (int t = 0; t < side; t++)
#pragma GCC unroll 2
            for (int r = 0; r < 2; r++) {
                const __m256i v = _mm256_madd_epi16(s[r][t], m.scales ? by[r] : one);
                total[r][t] = g ? _mm256_add_epi32(total[r][t], v) : v;
            }
    }
#endif
#pragma GCC unroll 4
    for (int t = 0; t < side; t++) {
        const __m256 d = _mm256_broadcast_ss(xd + t);
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            float *p = acc + R * t + 8 * r;
            __m256 a = fresh ? _mm256_setzero_ps() : _mm256_load_ps(p);
#if HT_VNNI
            const __m256 sum = total[r][t];
#else
            __m256 sum = _mm256_cvtepi32_ps(total[r][t]);
            if (m.groups == 0 && m.scales)
                sum = _mm256_mul_ps(sum, _mm256_castsi256_ps(sc[r])); /* exact: integers below 2^24 */
#endif
            a = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_castsi256_ps(beside[r]), d), sum, a);
            if (m.min != NO_MIN) {
                __m256 low;
                if (m.min == MIN_HALVES)
                    low = _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_set1_epi32(xs[t]), beside[4 + r]));
                else
                    low = _mm256_castsi256_ps(_mm256_set1_epi32(xs[t]));
                if (m.min == MIN_BLOCK)
                    low = _mm256_mul_ps(low, _mm256_castsi256_ps(beside[4 + r])); /* exact */
                a = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_castsi256_ps(beside[2 + r]), d), low, a);
            }
            _mm256_store_ps(p, a);
        }
    }
}

/* A tile of rows with `side` (a constant) tokens at a time of the n_tok <= T that are arranged, from `first` on, into
 * t->acc. m is a constant. */
HT_INLINE void tile_times(const tile *t, size_t number, uint32_t first, uint32_t n_tok, uint32_t nb, manner m, int side)
{
    const size_t n_w = m.groups ? 32 * R : 64 * R, n_x = m.groups ? 32 : 64, each = (size_t)n_beside(m) * 2;
    const int8_t *w0 = t->w + number * t->round * 16 * n_w;
    const __m256i *b0 = t->beside + number * t->round * 16 * each;

    for (uint32_t j = 0; j < 16; j++) {
        float *acc = t->acc + (size_t)j * T * R;
        if (j >= nb)
            memset(acc, 0, T * R * sizeof *acc);
        for (size_t p = j * t->round, b = j; b < nb; b += 16, p++)
            for (uint32_t i = first; i < n_tok; i += (uint32_t)side) {
                const size_t at = p * T + i;
                if (b == j)
                    block_times(w0 + p * n_w, b0 + p * each, t->x + n_x * at, t->xd + at, t->xs + at, acc + i * R, m,
                                true, side);
                else
                    block_times(w0 + p * n_w, b0 + p * each, t->x + n_x * at, t->xd + at, t->xs + at, acc + i * R, m,
                                false, side);
            }
    }
}

/* Tokens from `first` on: SIDE at a time, and the last one or two by themselves. */
typedef void times_fn(const tile *t, size_t number, uint32_t first, uint32_t n_tok, uint32_t nb);
typedef struct times {
    times_fn *side, *two;
} times;
#define TILE_TIMES(name, ...)                                                                                          \
    static void name##_side(const tile *t, size_t number, uint32_t first, uint32_t n_tok, uint32_t nb)                 \
    {                                                                                                                  \
        tile_times(t, number, first, n_tok, nb, (manner){ __VA_ARGS__ }, SIDE);                                        \
    }                                                                                                                  \
    static void name##_two(const tile *t, size_t number, uint32_t first, uint32_t n_tok, uint32_t nb)                  \
    {                                                                                                                  \
        tile_times(t, number, first, n_tok, nb, (manner){ __VA_ARGS__ }, 2);                                           \
    }                                                                                                                  \
    static const times name = { name##_side, name##_two };
#if HT_VNNI
TILE_TIMES(whole, 1, true, true, 0, NO_MIN)
TILE_TIMES(whole_min, 1, true, false, 0, MIN_ONE)
TILE_TIMES(whole_scaled, 1, true, true, 1, NO_MIN)
TILE_TIMES(whole_scaled_min, 1, true, false, 1, MIN_BLOCK)
TILE_TIMES(halves_scaled, 2, true, true, 2, NO_MIN)
TILE_TIMES(halves_scaled_mins, 2, true, false, 2, MIN_HALVES)

static const times *pick(manner m)
{
    switch (m.scales) {
    case 0: return m.min != NO_MIN ? &whole_min : &whole;
    case 1: return m.min != NO_MIN ? &whole_scaled_min : &whole_scaled;
    default: return m.min != NO_MIN ? &halves_scaled_mins : &halves_scaled;
    }
}
#else
TILE_TIMES(whole, 1, false, true, 0, NO_MIN)
TILE_TIMES(whole_min, 1, false, false, 0, MIN_ONE)
TILE_TIMES(whole_scaled, 1, false, true, 1, NO_MIN)
TILE_TIMES(whole_scaled_min, 1, false, false, 1, MIN_BLOCK)
TILE_TIMES(halves_min, 2, false, false, 0, MIN_ONE)
TILE_TIMES(halves_scaled, 2, false, true, 2, NO_MIN)
TILE_TIMES(halves_scaled_min, 2, false, false, 1, MIN_BLOCK)
TILE_TIMES(halves_scaled_mins, 2, false, false, 2, MIN_HALVES)
TILE_TIMES(quarters_scaled, 4, false, true, 1, NO_MIN)
TILE_TIMES(quarters_halves, 4, false, true, 2, NO_MIN)
TILE_TIMES(bytes, 0, false, false, 0, NO_MIN)
TILE_TIMES(bytes_scaled, 0, false, false, 1, NO_MIN)

static const times *pick(manner m)
{
    switch (m.groups) {
    case 0: return m.scales ? &bytes_scaled : &bytes;
    case 1:
        if (m.min != NO_MIN)
            return m.scales ? &whole_scaled_min : &whole_min;
        return m.scales ? &whole_scaled : &whole;
    case 2:
        if (m.min == NO_MIN)
            return &halves_scaled;
        return m.min == MIN_HALVES ? &halves_scaled_mins : m.scales ? &halves_scaled_min : &halves_min;
    default: return m.scales == 2 ? &quarters_halves : &quarters_scaled;
    }
}
#endif

static __m256 tree(const float *acc)
{
    __m256 a[8];
    for (int i = 0; i < 8; i++)
        a[i] = _mm256_add_ps(_mm256_load_ps(acc + i * T * R), _mm256_load_ps(acc + (i + 8) * T * R));
    for (int half = 4; half; half /= 2)
        for (int i = 0; i < half; i++)
            a[i] = _mm256_add_ps(a[i], a[i + half]);
    return a[0];
}

/* Tokens from which unpacking a tile beats the dot products (EPYC of Zen 3, 64 rows of 2048, 2026-11). */
static uint32_t enough_tokens(ht_type type)
{
    switch (type) {
    case HT_Q5_0:
    case HT_Q5_1:
    case HT_IQ1_S: return 3;
    case HT_Q2_K:
    case HT_Q4_K:
    case HT_IQ2_XXS:
    case HT_IQ2_XS:
    case HT_IQ2_S:
    case HT_IQ4_NL:
    case HT_IQ4_XS:
    case HT_TQ1_0: return 6;
    case HT_Q8_0: return 7;
    case HT_TQ2_0: return 8;
    default: return 4;
    }
}

void GEMM_Q8(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows, const ht_q8 *x,
             uint32_t n_tok, uint32_t k, void *scratch)
{
    const manner m = ht_gemm_avx2_manner(type, HT_VNNI);
    const times *by = pick(m);
    const tile t = ht_gemm_avx2_cut(scratch, k, m);
    const uint32_t panel = ht_gemm_avx2_rows(k);

    if (ht_gemm_avx2_few(y, ldy, type, w, stride, n_rows, x, n_tok, k, scratch))
        return;
    if (n_tok < enough_tokens(type)) {
        const char *name;
        ht_dot_q8_fn *dot_rows = ht_dot_q8_pick(type, GEMM_ISA, &name);
        for (uint32_t r = 0; r < n_rows; r += R)
            for (size_t i = 0; i < n_tok; i++) {
                const size_t at = i * x->stride;
                dot_rows(y + i * ldy + r, (const uint8_t *)w + r * stride, stride, NULL,
                         n_rows - r < R ? n_rows - r : R, &(ht_q8_row){ x->q + at, x->d + at / 32, x->s + at / 16 }, k);
            }
        return;
    }
    for (uint32_t r = 0; r < R && r < n_rows; r++)
        ht_prefetch((const uint8_t *)w + r * stride, ht_type_row_bytes(ht_type_get(type), k));
    for (uint32_t r0 = 0; r0 < n_rows; r0 += panel) {
        const uint32_t n = n_rows - r0 < panel ? n_rows - r0 : panel;
        for (uint32_t r = 0; r < n; r += R)
            ht_gemm_avx2_unpack(&t, r / R, type, (const uint8_t *)w + (r0 + r) * stride, stride, n - r < R ? n - r : R,
                                k, m);
        for (uint32_t i = 0; i < n_tok; i += T) {
            const uint32_t n_now = n_tok - i < T ? n_tok - i : T;
            const uint32_t n_side = n_now % SIDE > 2 ? n_now : n_now - n_now % SIDE;
            ht_gemm_avx2_arrange(&t, x, i, n_now, k / 32, m);
            for (uint32_t r = 0; r < n; r += R) {
                if (n_side)
                    by->side(&t, r / R, 0, n_side, k / 32);
                if (n_side < n_now)
                    by->two(&t, r / R, n_side, n_now, k / 32);
                for (uint32_t j = 0; j < n_now; j++) {
                    float *to = y + (i + j) * ldy + r0 + r;
                    ht_store_lanes(to, tree(t.acc + (size_t)j * R), n - r);
                    if (n - r > 8)
                        ht_store_lanes(to + 8, tree(t.acc + (size_t)j * R + 8), n - r - 8);
                }
            }
        }
    }
}
