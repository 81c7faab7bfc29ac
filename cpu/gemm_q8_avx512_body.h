/* SPDX-License-Identifier: MIT
 *
 * Quantised weights times many tokens, AVX-512. Included by gemm_q8_avx512.c and gemm_q8_avx512vnni.c, which set
 * HT_VNNI, the function's name GEMM_Q8 and its level GEMM_ISA.
 *
 * A tile of 16 rows is unpacked once into registers-to-be: rows in lanes, four weights of a row per lane, eight
 * registers to a block of 32. A block's weights then stay in registers while they meet the tokens; x comes in as
 * broadcasts from memory. The sixteen accumulators of the contract live in the first-level cache, [block mod 16][token]
 * [row], so blocks are taken in their natural order.
 *
 * vpdpbusd wants unsigned weights: they are stored plus a constant c of their type, and each sum starts at -c * sum(x).
 * Eight tokens run side by side to hide its latency. Without VNNI, vpmaddubsw adds pairs of products in 16 bits, of
 * which as many are added there as the size of the weights allows (`grow`); weights that fill a byte lend their sign to
 * x.
 *
 * Few tokens do not pay for the unpacking: they go through the dot products, a tile of rows at a time.
 * Owner: no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
#include <string.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "cpu/gemm_avx512.h"
#include "cpu/gemm_tile.h"
#include "cpu/gemm_unpack_avx512.h"

enum {
    R = HT_GEMM_ROWS,
    T = HT_GEMM_TOKENS,
    CHUNK = 256, /* elements unpacked at a time */
    SIDE = 8     /* tokens side by side */
};

/* How the sub-block scales enter. */
typedef enum scaling {
    PLAIN, /* always 1 */
    BLOCK, /* one per block */
    HALVES /* one per half of a block */
} scaling;

/* The scratch, cut. Of each block: w 8 registers, d and dm one, sc and mn one or (HALVES) two. Of each round of 16
 * blocks and T tokens: xd [T][16], xc and xs [T][16] or [T][32]. */
typedef struct tile {
    uint8_t *w;
    float *d, *dm, *sc, *mn;
    float *xd, *xs;
    int32_t *xc;
    float *acc; /* [16][T][R] */
} tile;

static tile cut(void *scratch, size_t nb)
{
    uint8_t *p = scratch;
    tile t;
    t.w = p, p += nb * 32 * R;
    t.d = (float *)p, p += nb * R * 4;
    t.dm = (float *)p, p += nb * R * 4;
    t.sc = (float *)p, p += nb * R * 8;
    t.mn = (float *)p, p += nb * R * 8;
    t.xd = (float *)p, p += nb * T * 4;
    t.xs = (float *)p, p += nb * T * 8;
    t.xc = (int32_t *)p, p += nb * T * 8;
    t.acc = (float *)p;
    return t;
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* Rows in lanes: n numbers (<= 16) of each of 16 rows, `from` apart, to n registers. */
HT_INLINE void turn_floats(float *to, const float *from, size_t apart, int n)
{
    __m512i v[16];
    const __mmask16 m = (__mmask16)((1u << n) - 1);
    for (size_t r = 0; r < 16; r++)
        v[r] = _mm512_castps_si512(_mm512_maskz_loadu_ps(m, from + r * apart));
    ht_transpose16(v);
    for (int i = 0; i < n; i++)
        _mm512_store_si512(to + 16 * i, v[i]);
}

HT_INLINE void turn_words(float *to, const int16_t *from, size_t apart, int n)
{
    __m512i v[16];
    const __mmask16 m = (__mmask16)((1u << n) - 1);
    for (size_t r = 0; r < 16; r++)
        v[r] = _mm512_castps_si512(
            _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(m, from + r * apart))));
    ht_transpose16(v);
    for (int i = 0; i < n; i++)
        _mm512_store_si512(to + 16 * i, v[i]);
}

/* n_rows rows (at most 16) of weights into the tile; the lanes of missing rows repeat the last. */
static void unpack_tile(const tile *t, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows, uint32_t k,
                        scaling how)
{
    const ht_type_info *info = ht_type_get(type);
    _Alignas(64) int8_t q[R][CHUNK];
    _Alignas(64) int16_t sc[R][CHUNK / 16], mn[R][CHUNK / 16];
    _Alignas(64) float d[R][CHUNK / 32], dm[R][CHUNK / 32];

    for (uint32_t i = 0; i < k; i += CHUNK) {
        const uint32_t n = k - i < CHUNK ? k - i : CHUNK;
        const size_t b = i / 32;
        const int nb = (int)(n / 32);
        for (uint32_t r = 0; r < R; r++)
            ht_unpack_unsigned(type, w + (r < n_rows ? r : n_rows - 1) * stride + ht_type_row_bytes(info, i), n,
                               &(ht_canon){ q[r], sc[r], mn[r], d[r], dm[r] });
        for (uint32_t j = 0; j < n;
             j += 64) { /* a block of 32 at the end leaves eight registers of leftovers behind it */
            __m512i v[16];
            for (int r = 0; r < R; r++)
                v[r] = _mm512_load_si512(q[r] + j);
            ht_transpose16(v);
            for (int c = 0; c < 16; c++)
                _mm512_store_si512(t->w + (size_t)(i + j) * R + 64 * c, v[c]);
        }
        turn_floats(t->d + b * R, d[0], CHUNK / 32, nb);
        if (how != PLAIN)
            turn_words(t->sc + 2 * b * R, sc[0], CHUNK / 16, 2 * nb);
        if (info->has_min) {
            turn_floats(t->dm + b * R, dm[0], CHUNK / 32, nb);
            turn_words(t->mn + 2 * b * R, mn[0], CHUNK / 16, 2 * nb);
        }
    }
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* Scales, corrections and sums of n_tok <= T tokens from first. */
static void arrange_x(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t k, int plus, bool halves,
                      bool sums)
{
    const __m512i minus = _mm512_set1_epi32(-plus);
    const uint32_t nb = k / 32;
    for (uint32_t b = 0; b < nb; b += 16) {
        const uint32_t n = nb - b < 16 ? nb - b : 16;
        const __mmask16 m = (__mmask16)(n == 16 ? 0xffff : (1u << n) - 1);
        const __mmask32 m2 = n == 16 ? 0xffffffffu : (1u << (2 * n)) - 1;
        for (uint32_t i = 0; i < n_tok; i++) {
            const size_t at = (size_t)(first + i) * x->stride / 32 + b;
            const __m512i s = _mm512_maskz_loadu_epi16(m2, x->s + 2 * at);
            const size_t to = (size_t)b * T + 16 * i;
            _mm512_store_ps(t->xd + to, _mm512_maskz_loadu_ps(m, x->d + at));
            if (halves) {
                __m512i s0 = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(s));
                __m512i s1 = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(s, 1));
                _mm512_store_si512(t->xc + 2 * to, _mm512_mullo_epi32(s0, minus));
                _mm512_store_si512(t->xc + 2 * to + 16, _mm512_mullo_epi32(s1, minus));
                if (sums) {
                    _mm512_store_ps(t->xs + 2 * to, _mm512_cvtepi32_ps(s0));
                    _mm512_store_ps(t->xs + 2 * to + 16, _mm512_cvtepi32_ps(s1));
                }
            } else {
                _mm512_store_si512(t->xc + to, _mm512_madd_epi16(s, _mm512_set1_epi16((short)-plus)));
                if (sums)
                    _mm512_store_ps(t->xs + to, _mm512_cvtepi32_ps(_mm512_madd_epi16(s, _mm512_set1_epi16(1))));
            }
        }
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

HT_INLINE __m512i four(const int8_t *p)
{
    int v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

#if !HT_VNNI
/* sum + registers [from, to) of weights times the block at x. grow: products that may be added in 16 bits: 8 (weights
 * up to 16), 4 (32), 2 (64); 0: signed weights. */
HT_INLINE __m512i add_products(__m512i sum, const __m512i w[8], const int8_t *x, int from, int to, int grow)
{
    const __m512i one = _mm512_set1_epi16(1);
    if (grow == 0) {
        for (int i = from; i < to; i++)
            sum = _mm512_add_epi32(sum, ht_products_wide(w[i], four(x + 4 * i)));
        return sum;
    }
    for (int i = from; i < to; i += grow) {
        __m512i p = _mm512_maddubs_epi16(w[i], four(x + 4 * i));
        for (int j = i + 1; j < i + grow && j < to; j++)
            p = _mm512_add_epi16(p, _mm512_maddubs_epi16(w[j], four(x + 4 * j)));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(p, one));
    }
    return sum;
}
#endif

/* One block of the tile with n tokens (a constant). Pointers: at the block, at the first of the tokens. */
HT_INLINE void block_times(const __m512i w[8], const float *d, const float *dm, const float *sc, const float *mn,
                           const int8_t *x, size_t stride, const float *xd, const int32_t *xc, const float *xs,
                           float *acc, int n, scaling how, bool has_min, int grow)
{
    const int each = how == HALVES ? 32 : 16; /* corrections and sums from token to token */
    __m512i s0[SIDE], s1[SIDE];

    for (int t = 0; t < n; t++) {
        s0[t] = _mm512_set1_epi32(xc[t * each]);
        if (how == HALVES)
            s1[t] = _mm512_set1_epi32(xc[t * each + 1]);
    }
#if HT_VNNI
    (void)grow;
    for (int i = 0; i < 8; i++)
        for (int t = 0; t < n; t++) {
            __m512i v = four(x + (size_t)t * stride + 4 * i);
            if (how == HALVES && i >= 4)
                s1[t] = _mm512_dpbusd_epi32(s1[t], w[i], v);
            else
                s0[t] = _mm512_dpbusd_epi32(s0[t], w[i], v);
        }
#else
    for (int t = 0; t < n; t++) {
        const int8_t *xt = x + (size_t)t * stride;
        s0[t] = add_products(s0[t], w, xt, 0, how == HALVES ? 4 : 8, grow);
        if (how == HALVES)
            s1[t] = add_products(s1[t], w, xt, 4, 8, grow);
    }
#endif
    for (int t = 0; t < n; t++) {
        __m512 sum = _mm512_cvtepi32_ps(s0[t]), a = _mm512_load_ps(acc + t * R);
        if (how != PLAIN)
            sum = _mm512_mul_ps(sum, _mm512_load_ps(sc));
        if (how == HALVES)
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s1[t]), _mm512_load_ps(sc + R), sum); /* exact */
        a = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(d), _mm512_set1_ps(xd[t * 16])), sum, a);
        if (has_min) {
            __m512 m = _mm512_set1_ps(xs[t * each]);
            if (how != PLAIN)
                m = _mm512_mul_ps(m, _mm512_load_ps(mn));
            if (how == HALVES)
                m = _mm512_fmadd_ps(_mm512_set1_ps(xs[t * each + 1]), _mm512_load_ps(mn + R), m);
            a = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(dm), _mm512_set1_ps(xd[t * 16])), m, a);
        }
        _mm512_store_ps(acc + t * R, a);
    }
}

/* The whole tile with n_tok <= T tokens, whose 8-bit rows begin at x. */
HT_INLINE void tile_times(const tile *t, const int8_t *x, size_t stride, uint32_t n_tok, uint32_t k, scaling how,
                          bool has_min, int grow)
{
    const size_t twice = how == HALVES ? 2 : 1;
    const int side = how == HALVES ? SIDE / 2 : SIDE; /* two sums per token: 8 w, 8 sums */
    memset(t->acc, 0, 16 * T * R * sizeof(float));
    for (uint32_t b = 0; b < k / 32; b++) {
        const uint8_t *p = t->w + (size_t)b * 32 * R;
        const float *d = t->d + (size_t)b * R, *dm = t->dm + (size_t)b * R;
        const float *sc = t->sc + (size_t)b * 2 * R, *mn = t->mn + (size_t)b * 2 * R;
        const size_t round = (size_t)(b / 16) * 16 * T, in = b % 16;
        float *acc = t->acc + in * T * R;
        __m512i w[8];
        uint32_t i = 0;

        for (int j = 0; j < 8; j++) {
            w[j] = _mm512_load_si512(p + 64 * j);
            _mm_prefetch((const char *)p + 2 * 32 * R + 64 * j, _MM_HINT_T0);
        }
        for (; i + (uint32_t)side <= n_tok; i += (uint32_t)side)
            block_times(w, d, dm, sc, mn, x + i * stride + (size_t)b * 32, stride, t->xd + round + in + 16 * i,
                        t->xc + (round + in + 16 * i) * twice, t->xs + (round + in + 16 * i) * twice, acc + i * R, side,
                        how, has_min, grow);
        for (; i < n_tok; i++)
            block_times(w, d, dm, sc, mn, x + i * stride + (size_t)b * 32, stride, t->xd + round + in + 16 * i,
                        t->xc + (round + in + 16 * i) * twice, t->xs + (round + in + 16 * i) * twice, acc + i * R, 1,
                        how, has_min, grow);
    }
}

static scaling scaling_of(ht_type type)
{
    switch (type) {
    case HT_Q4_0:
    case HT_Q4_1:
    case HT_Q5_0:
    case HT_Q5_1:
    case HT_Q8_0:
    case HT_IQ4_NL:
    case HT_MXFP4:
    case HT_TQ1_0:
    case HT_TQ2_0: return PLAIN;
    default: return ht_type_get(type)->half_scales ? HALVES : BLOCK;
    }
}

typedef void times_fn(const tile *t, const int8_t *x, size_t stride, uint32_t n_tok, uint32_t k);
#define TILE_TIMES(name, how, has_min, grow)                                                                           \
    static void name(const tile *t, const int8_t *x, size_t stride, uint32_t n_tok, uint32_t k)                        \
    {                                                                                                                  \
        tile_times(t, x, stride, n_tok, k, how, has_min, grow);                                                        \
    }
#if HT_VNNI
TILE_TIMES(plain, PLAIN, false, 0)
TILE_TIMES(plain_min, PLAIN, true, 0)
TILE_TIMES(block, BLOCK, false, 0)
TILE_TIMES(block_min, BLOCK, true, 0)
TILE_TIMES(halves, HALVES, false, 0)
TILE_TIMES(halves_min, HALVES, true, 0)

static times_fn *pick(ht_type type, scaling how)
{
    static times_fn *const times[3][2] = { { plain, plain_min }, { block, block_min }, { halves, halves_min } };
    return times[how][ht_type_get(type)->has_min];
}
#else
TILE_TIMES(plain_0, PLAIN, false, 0)
TILE_TIMES(plain_4, PLAIN, false, 4)
TILE_TIMES(plain_8, PLAIN, false, 8)
TILE_TIMES(plain_min_4, PLAIN, true, 4)
TILE_TIMES(plain_min_8, PLAIN, true, 8)
TILE_TIMES(block_0, BLOCK, false, 0)
TILE_TIMES(block_4, BLOCK, false, 4)
TILE_TIMES(block_min_4, BLOCK, true, 4)
TILE_TIMES(block_min_8, BLOCK, true, 8)
TILE_TIMES(halves_0, HALVES, false, 0)
TILE_TIMES(halves_2, HALVES, false, 2)
TILE_TIMES(halves_4, HALVES, false, 4)
TILE_TIMES(halves_min_4, HALVES, true, 4)

/* By the largest weight after ht_unpack_plus. */
static int grow_of(ht_type type)
{
    switch (type) {
    case HT_Q4_0:
    case HT_Q4_1:
    case HT_TQ1_0:
    case HT_TQ2_0:
    case HT_Q4_K: return 8;
    case HT_Q5_0:
    case HT_Q5_1:
    case HT_MXFP4:
    case HT_Q2_K:
    case HT_Q3_K:
    case HT_Q5_K:
    case HT_IQ3_S:
    case HT_IQ1_S:
    case HT_IQ1_M: return 4;
    case HT_Q6_K: return 2;
    default: return 0;
    }
}

static times_fn *pick(ht_type type, scaling how)
{
    const bool has_min = ht_type_get(type)->has_min;
    const int grow = grow_of(type);
    switch (how) {
    case PLAIN:
        return has_min ? (grow == 8 ? plain_min_8 : plain_min_4) : grow == 8 ? plain_8 : grow ? plain_4 : plain_0;
    case BLOCK: return has_min ? (grow == 8 ? block_min_8 : block_min_4) : grow ? block_4 : block_0;
    default: return has_min ? halves_min_4 : grow == 4 ? halves_4 : grow ? halves_2 : halves_0;
    }
}
#endif

/* Tokens from which unpacking a tile beats the dot products (tools/bench/micro.c --tokens, Xeon with VNNI, 2026-11; not
 * measured without VNNI). */
static uint32_t enough_tokens(ht_type type)
{
    switch (type) {
    case HT_Q8_0:
    case HT_Q6_K:
    case HT_MXFP4:
    case HT_IQ4_NL: return 4;
    case HT_IQ2_XXS:
    case HT_IQ2_XS:
    case HT_IQ2_S:
    case HT_IQ3_XXS:
    case HT_IQ3_S:
    case HT_IQ1_S:
    case HT_IQ1_M: return 4;
    case HT_Q4_0: return 5;
    case HT_Q4_K:
    case HT_Q5_K: return 7;
    default: return 8;
    }
}

void GEMM_Q8(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows, const ht_q8 *x,
             uint32_t n_tok, uint32_t k, void *scratch)
{
    const char *name;
    ht_dot_q8_fn *dot = ht_dot_q8_pick(type, GEMM_ISA, &name);
    const bool has_min = ht_type_get(type)->has_min;
    const scaling how = scaling_of(type);
    times_fn *times = pick(type, how);
    const tile t = cut(scratch, ht_gemm_blocks(k));
    const uint32_t enough = enough_tokens(type);

    for (uint32_t r = 0; r < n_rows; r += R) {
        const uint8_t *rows = (const uint8_t *)w + r * stride;
        const uint32_t n = n_rows - r < R ? n_rows - r : R;
        const __mmask16 m = (__mmask16)((1u << n) - 1);

        if (n_tok < enough) {
            for (size_t i = 0; i < n_tok; i++) {
                const size_t at = i * x->stride;
                dot(y + i * ldy + r, rows, stride, NULL, n, &(ht_q8_row){ x->q + at, x->d + at / 32, x->s + at / 16 },
                    k);
            }
            continue;
        }
        unpack_tile(&t, type, rows, stride, n, k, how);
        for (uint32_t i = 0; i < n_tok; i += T) {
            const uint32_t n_now = n_tok - i < T ? n_tok - i : T;
            arrange_x(&t, x, i, n_now, k, ht_unpack_plus(type), how == HALVES, has_min);
            times(&t, x->q + (size_t)i * x->stride, x->stride, n_now, k);
            for (uint32_t j = 0; j < n_now; j++)
                _mm512_mask_storeu_ps(y + (i + j) * ldy + r, m, ht_tree_columns(t.acc + (size_t)j * R, T * R, 16));
        }
    }
}
