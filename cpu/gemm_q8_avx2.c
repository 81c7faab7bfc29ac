/* SPDX-License-Identifier: MIT
 *
 * Quantised weights times many tokens, AVX2.
 *
 * A tile of 8 rows is unpacked once: rows in lanes, four weights of a row per lane, eight registers to a block of 32. A
 * block's weights stay in registers while they meet the tokens; x comes in as broadcasts from memory. The sixteen
 * accumulators of the contract live in the first-level cache, [block mod 16][token][row].
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits. Weights are stored plus a constant of their
 * type that makes them unsigned and as small as can be, each sum starts at minus that constant times sum(x), and as
 * many pairs are added in 16 bits as their size allows (`grow`). Types that fill a byte lend their sign to x instead.
 *
 * Few tokens do not pay for the unpacking: they go through the dot products, a tile of rows at a time.
 * Owner: no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
#include <string.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "cpu/gemm_avx2.h"
#include "cpu/gemm_tile.h"

enum {
    R = 8,
    T = HT_GEMM_TOKENS,
    CHUNK = 256 /* elements unpacked at a time */
};

/* How the sub-block scales enter. */
typedef enum scaling {
    PLAIN, /* always 1 */
    BLOCK, /* one per block */
    HALVES /* one per half of a block */
} scaling;

/* What a type's weights are made into. */
typedef struct manner {
    scaling how;
    int plus; /* added to weights */
    int grow; /* products of four that may be added in 16 bits: 8 (weights up to 16), 4 (32), 2 (64), 1 (129); 0: signed
               */
} manner;

static manner manner_of(ht_type type)
{
    const ht_type_info *t = ht_type_get(type);
    const scaling scaled = t->half_scales ? HALVES : BLOCK;

    switch (type) {
    case HT_Q4_0: return (manner){ PLAIN, 8, 8 };
    case HT_Q4_1: return (manner){ PLAIN, 0, 8 };
    case HT_Q5_0: return (manner){ PLAIN, 16, 4 };
    case HT_Q5_1: return (manner){ PLAIN, 0, 4 };
    case HT_TQ1_0:
    case HT_TQ2_0: return (manner){ PLAIN, 1, 8 };
    case HT_MXFP4: return (manner){ PLAIN, 12, 4 };
    case HT_Q8_0:
    case HT_IQ4_NL: return (manner){ PLAIN, 0, 0 };
    case HT_Q2_K: return (manner){ scaled, 0, 4 };
    case HT_Q3_K: return (manner){ scaled, 4, 4 };
    case HT_Q4_K: return (manner){ scaled, 0, 8 };
    case HT_Q5_K: return (manner){ scaled, 0, 4 };
    case HT_Q6_K: return (manner){ scaled, 32, 2 };
    case HT_IQ3_S: return (manner){ scaled, 15, 4 }; /* odd numbers up to 15 */
    case HT_IQ1_S:
    case HT_IQ1_M: return (manner){ scaled, 9, 4 }; /* 8 g +- 1 */
    default: return (manner){ scaled, 0, 0 };
    }
}

/* The scratch, cut as in gemm_q8_avx512vnni.c, for 8 rows. */
typedef struct tile {
    int8_t *w;
    float *d, *dm, *sc, *mn;
    float *xd, *xs;
    int32_t *xc;
    float *acc; /* [16][T][R] */
} tile;

static tile cut(void *scratch, size_t nb)
{
    uint8_t *p = scratch;
    tile t;
    t.w = (int8_t *)p, p += nb * 32 * R;
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

HT_INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
HT_INLINE void store(void *p, __m256i v)
{
    _mm256_store_si256((__m256i *)p, v);
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* Eight floats, or eight integers to floats, of each of 8 rows to 8 registers with rows in lanes. */
HT_INLINE void turn_floats(float *to, const float *from, size_t apart)
{
    __m256i v[8];
    for (size_t r = 0; r < 8; r++)
        v[r] = load(from + r * apart);
    ht_transpose8(v);
    for (int i = 0; i < 8; i++)
        store(to + 8 * i, v[i]);
}

HT_INLINE void turn_words(float *to, const int16_t *from, size_t apart)
{
    __m256i v[8];
    for (size_t r = 0; r < 8; r++)
        v[r] = _mm256_castps_si256(
            _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(from + r * apart)))));
    ht_transpose8(v);
    for (int i = 0; i < 8; i++)
        store(to + 8 * i, v[i]);
}

/* n_rows rows (at most 8) of weights into the tile; the lanes of missing rows repeat the last. */
static void unpack_tile(const tile *t, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows, uint32_t k,
                        manner m)
{
    const ht_type_info *info = ht_type_get(type);
    const __m256i plus = _mm256_set1_epi8((char)m.plus);
    _Alignas(32) int8_t q[R][CHUNK];
    _Alignas(32) int16_t sc[R][CHUNK / 16] = { { 0 } }, mn[R][CHUNK / 16] = { { 0 } };
    _Alignas(32) float d[R][CHUNK / 32] = { { 0 } }, dm[R][CHUNK / 32] = { { 0 } };

    for (uint32_t i = 0; i < k; i += CHUNK) {
        const uint32_t n = k - i < CHUNK ? k - i : CHUNK;
        const size_t b = i / 32;
        for (uint32_t r = 0; r < R; r++)
            ht_type_unpack(type, w + (r < n_rows ? r : n_rows - 1) * stride + ht_type_row_bytes(info, i), n,
                           &(ht_canon){ q[r], sc[r], mn[r], d[r], dm[r] });
        for (uint32_t j = 0; j < n; j += 32) {
            __m256i v[8];
            for (int r = 0; r < R; r++)
                v[r] = _mm256_add_epi8(load(q[r] + j), plus);
            ht_transpose8(v);
            for (int c = 0; c < 8; c++)
                store(t->w + (size_t)(i + j) * R + 32 * c, v[c]);
        }
        turn_floats(t->d + b * R, d[0], CHUNK / 32);
        if (m.how != PLAIN)
            for (int h = 0; h < 2; h++)
                turn_words(t->sc + (2 * b + 8 * (size_t)h) * R, sc[0] + 8 * h, CHUNK / 16);
        if (info->has_min) {
            turn_floats(t->dm + b * R, dm[0], CHUNK / 32);
            for (int h = 0; h < 2; h++)
                turn_words(t->mn + (2 * b + 8 * (size_t)h) * R, mn[0] + 8 * h, CHUNK / 16);
        }
    }
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* Scales, corrections and sums of n_tok <= T tokens from first: [round of 16 blocks][token][block], of halves twice. */
static void arrange_x(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t k, int plus, bool halves)
{
    const uint32_t nb = k / 32;
    for (uint32_t b = 0; b < nb; b += 16) {
        const uint32_t n = nb - b < 16 ? nb - b : 16;
        for (uint32_t i = 0; i < n_tok; i++) {
            const size_t at = (size_t)(first + i) * x->stride / 32 + b, to = (size_t)b * T + 16 * i;
            const int16_t *s = x->s + 2 * at;
            memcpy(t->xd + to, x->d + at, n * sizeof(float));
            if (halves)
                for (uint32_t h = 0; h < 2 * n; h++) {
                    t->xc[2 * to + h] = -plus * s[h];
                    t->xs[2 * to + h] = s[h];
                }
            else
                for (uint32_t h = 0; h < n; h++) {
                    t->xc[to + h] = -plus * (s[2 * h] + s[2 * h + 1]);
                    t->xs[to + h] = (float)(s[2 * h] + s[2 * h + 1]);
                }
        }
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

HT_INLINE __m256i four(const int8_t *p)
{
    int v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

/* Sum over n registers of weights, from number `from`; x: the block. */
HT_INLINE __m256i dot(__m256i sum, const __m256i w[8], const __m256i size[8], const int8_t *x, int from, int n,
                      int grow)
{
    const __m256i one = _mm256_set1_epi16(1);
    if (grow == 0) {
        for (int i = from; i < from + n; i++) {
            __m256i p = _mm256_maddubs_epi16(size[i], _mm256_sign_epi8(four(x + 4 * i), w[i]));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(p, one));
        }
        return sum;
    }
    for (int i = from; i < from + n; i += grow) {
        __m256i p = _mm256_maddubs_epi16(w[i], four(x + 4 * i));
        for (int j = i + 1; j < i + grow && j < from + n; j++)
            p = _mm256_add_epi16(p, _mm256_maddubs_epi16(w[j], four(x + 4 * j)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(p, one));
    }
    return sum;
}

/* The whole tile with n_tok <= T tokens, whose 8-bit rows begin at x. All but the first five arguments are constants.
 */
HT_INLINE void tile_times(const tile *t, const int8_t *x, size_t stride, uint32_t n_tok, uint32_t k, scaling how,
                          bool has_min, int grow)
{
    const size_t each = how == HALVES ? 32 : 16, twice = each / 16;
    memset(t->acc, 0, 16 * T * R * sizeof(float));
    for (uint32_t b = 0; b < k / 32; b++) {
        const int8_t *p = t->w + (size_t)b * 32 * R;
        const __m256 d = _mm256_load_ps(t->d + (size_t)b * R);
        const float *sc = t->sc + (size_t)b * 2 * R, *mn = t->mn + (size_t)b * 2 * R;
        const size_t at = (size_t)(b / 16) * 16 * T + b % 16;
        __m256i w[8], size[8];

        for (int j = 0; j < 8; j++) {
            w[j] = load(p + 32 * j);
            if (grow == 0)
                size[j] = _mm256_abs_epi8(w[j]);
        }
        for (uint32_t i = 0; i < n_tok; i++) {
            const int8_t *xb = x + i * stride + (size_t)b * 32;
            const float *xs = t->xs + at * twice + each * i;
            const int32_t *xc = t->xc + at * twice + each * i;
            float *acc = t->acc + (b % 16 * T + i) * R;
            const __m256 xd = _mm256_set1_ps(t->xd[at + 16 * i]);
            __m256 sum, a = _mm256_load_ps(acc);
            if (how == HALVES) {
                sum = _mm256_cvtepi32_ps(dot(_mm256_set1_epi32(xc[0]), w, size, xb, 0, 4, grow));
                sum = _mm256_mul_ps(sum, _mm256_load_ps(sc));
                __m256 second = _mm256_cvtepi32_ps(dot(_mm256_set1_epi32(xc[1]), w, size, xb, 4, 4, grow));
                sum = _mm256_fmadd_ps(second, _mm256_load_ps(sc + R), sum); /* exact: integers below 2^24 */
            } else {
                sum = _mm256_cvtepi32_ps(dot(_mm256_set1_epi32(xc[0]), w, size, xb, 0, 8, grow));
                if (how == BLOCK)
                    sum = _mm256_mul_ps(sum, _mm256_load_ps(sc));
            }
            a = _mm256_fmadd_ps(_mm256_mul_ps(d, xd), sum, a);
            if (has_min) {
                __m256 m = _mm256_set1_ps(xs[0]);
                if (how != PLAIN)
                    m = _mm256_mul_ps(m, _mm256_load_ps(mn));
                if (how == HALVES)
                    m = _mm256_fmadd_ps(_mm256_set1_ps(xs[1]), _mm256_load_ps(mn + R), m);
                a = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_load_ps(t->dm + (size_t)b * R), xd), m, a);
            }
            _mm256_store_ps(acc, a);
        }
    }
}

typedef void times_fn(const tile *t, const int8_t *x, size_t stride, uint32_t n_tok, uint32_t k);
#define TILE_TIMES(name, how, has_min, grow)                                                                           \
    static void name(const tile *t, const int8_t *x, size_t stride, uint32_t n_tok, uint32_t k)                        \
    {                                                                                                                  \
        tile_times(t, x, stride, n_tok, k, how, has_min, grow);                                                        \
    }
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

static times_fn *pick(manner m, bool has_min)
{
    switch (m.how) {
    case PLAIN:
        return has_min ? (m.grow == 8 ? plain_min_8 : plain_min_4) : m.grow == 8 ? plain_8 : m.grow ? plain_4 : plain_0;
    case BLOCK: return has_min ? (m.grow == 8 ? block_min_8 : block_min_4) : m.grow ? block_4 : block_0;
    default: return has_min ? halves_min_4 : m.grow == 4 ? halves_4 : m.grow ? halves_2 : halves_0;
    }
}

static __m256 tree(const float *acc)
{
    __m256 a[16];
    for (int i = 0; i < 16; i++)
        a[i] = _mm256_load_ps(acc + i * T * R);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a[i] = _mm256_add_ps(a[i], a[i + half]);
    return a[0];
}

/* Tokens from which unpacking a tile beats the dot products (tools/bench/micro.c --tokens, Xeon, 2026-11). */
static uint32_t enough_tokens(ht_type type)
{
    switch (type) {
    case HT_IQ2_XXS:
    case HT_IQ2_XS:
    case HT_IQ2_S:
    case HT_IQ3_XXS:
    case HT_IQ3_S:
    case HT_IQ1_S:
    case HT_IQ1_M: return 5;
    case HT_Q6_K: return 8;
    default: return 12;
    }
}

void ht_gemm_q8__avx2(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows, const ht_q8 *x,
                      uint32_t n_tok, uint32_t k, void *scratch)
{
    const char *name;
    ht_dot_q8_fn *dot_rows = ht_dot_q8_pick(type, HT_ISA_AVX2, &name);
    const manner m = manner_of(type);
    times_fn *times = pick(m, ht_type_get(type)->has_min);
    const tile t = cut(scratch, ht_gemm_blocks(k));
    const uint32_t enough = enough_tokens(type);

    for (uint32_t r = 0; r < n_rows; r += R) {
        const uint8_t *rows = (const uint8_t *)w + r * stride;
        const uint32_t n = n_rows - r < R ? n_rows - r : R;

        if (n_tok < enough) {
            for (size_t i = 0; i < n_tok; i++) {
                const size_t at = i * x->stride;
                dot_rows(y + i * ldy + r, rows, stride, n, &(ht_q8_row){ x->q + at, x->d + at / 32, x->s + at / 16 },
                         k);
            }
            continue;
        }
        unpack_tile(&t, type, rows, stride, n, k, m);
        for (uint32_t i = 0; i < n_tok; i += T) {
            const uint32_t n_now = n_tok - i < T ? n_tok - i : T;
            arrange_x(&t, x, i, n_now, k, m.plus, m.how == HALVES);
            times(&t, x->q + (size_t)i * x->stride, x->stride, n_now, k);
            for (uint32_t j = 0; j < n_now; j++)
                ht_store_lanes(y + (i + j) * ldy + r, tree(t.acc + (size_t)j * R), n);
        }
    }
}
