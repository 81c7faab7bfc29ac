/* SPDX-License-Identifier: MIT
 *
 * Quantised weights times many tokens, ARM: the body that gemm_q8_neon.c, gemm_q8_dotprod.c and gemm_q8_i8mm.c compile,
 * each for its own level. Before inclusion: HT_LEVEL(name), which appends the level, and LEVEL, its number.
 *
 * A tile of 8 rows is unpacked once. The 16 registers of a block of 32 of its weights stay while they meet the tokens,
 * G at a time; a step gives N registers of sums, one lane for each row and token:
 *
 *     smull    a register holds half a block of one row; its sums are brought to rows in lanes      G 1, N 2
 *     sdot     four weights of each of four rows; x by lane                                          G 1, N 2
 *     smmla    eight weights of each of two rows, times eight of x of two tokens: 2 x 2 sums         G 2, N 4
 *
 * The sixteen accumulators of the contract live in the first-level cache, [block mod 16][step][N], in the lanes of the
 * sums, and so do the scales: lane G r + g of the 4 N of a block belongs to row r (and token g).
 *
 * Few tokens do not pay for the unpacking: they go through the dot products, a tile of rows at a time.
 * Owner: no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
#include <string.h>

#include "cpu/dot.h"
#include "cpu/dot_arm.h"
#include "cpu/gemm.h"
#include "cpu/gemm_tile.h"

#if defined(__ARM_FEATURE_MATMUL_INT8)
enum { G = 2 };
#else
enum { G = 1 };
#endif
enum {
    R = 8,
    N = 2 * G,
    LANES = 4 * N,
    T = HT_GEMM_TOKENS,
    CHUNK = 256 /* elements unpacked at a time */
};

/* Tokens from which unpacking a tile pays: it takes as many instructions as two or three rounds of dot products.
 * Counted, not timed. */
enum { ENOUGH_TOKENS = 4 };

/* How the sub-block scales enter. */
typedef enum scaling {
    PLAIN, /* always 1 */
    BLOCK, /* one per block */
    HALVES /* one per half of a block */
} scaling;

static scaling scaling_of(ht_type type)
{
    const ht_type_info *t = ht_type_get(type);
    if (t->block == 32 || type == HT_TQ1_0 || type == HT_TQ2_0)
        return PLAIN;
    return t->half_scales ? HALVES : BLOCK;
}

/* The scratch. */
typedef struct tile {
    int8_t *w;      /* [block][16 registers] */
    float *d, *dm;  /* [block][LANES] */
    float *sc, *mn; /* [block][2][LANES] */
    float *acc;     /* [16][T / G][LANES] */
} tile;

static tile cut(void *scratch, size_t nb)
{
    float *p = scratch;
    tile t;
    t.d = p, p += nb * LANES;
    t.dm = p, p += nb * LANES;
    t.sc = p, p += nb * 2 * LANES;
    t.mn = p, p += nb * 2 * LANES;
    t.acc = p, p += 16 * T / G * LANES;
    t.w = (int8_t *)p;
    return t;
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* Half a block of 8 rows to the 8 registers that meet half a block of x. */
HT_INLINE void arrange(int8_t *to, const int8x16_t row[8])
{
#if defined(__ARM_FEATURE_MATMUL_INT8)
    for (int p = 0; p < 4; p++) {
        const int64x2_t a = vreinterpretq_s64_s8(row[2 * p]), b = vreinterpretq_s64_s8(row[2 * p + 1]);
        vst1q_s8(to + 16 * p, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
        vst1q_s8(to + 64 + 16 * p, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
    }
#elif defined(__ARM_FEATURE_DOTPROD)
    for (int s = 0; s < 2; s++) {
        const int32x4_t a = vreinterpretq_s32_s8(row[4 * s]), b = vreinterpretq_s32_s8(row[4 * s + 1]),
                        c = vreinterpretq_s32_s8(row[4 * s + 2]), d = vreinterpretq_s32_s8(row[4 * s + 3]);
        const int64x2_t ab0 = vreinterpretq_s64_s32(vtrn1q_s32(a, b)), ab1 = vreinterpretq_s64_s32(vtrn2q_s32(a, b)),
                        cd0 = vreinterpretq_s64_s32(vtrn1q_s32(c, d)), cd1 = vreinterpretq_s64_s32(vtrn2q_s32(c, d));
        vst1q_s8(to + 16 * s, vreinterpretq_s8_s64(vtrn1q_s64(ab0, cd0)));
        vst1q_s8(to + 32 + 16 * s, vreinterpretq_s8_s64(vtrn1q_s64(ab1, cd1)));
        vst1q_s8(to + 64 + 16 * s, vreinterpretq_s8_s64(vtrn2q_s64(ab0, cd0)));
        vst1q_s8(to + 96 + 16 * s, vreinterpretq_s8_s64(vtrn2q_s64(ab1, cd1)));
    }
#else
    for (int r = 0; r < 8; r++)
        vst1q_s8(to + 16 * r, row[r]);
#endif
}

/* The scale of row r to its lanes. */
HT_INLINE void put_scale(float *to, uint32_t r, float v)
{
    for (uint32_t g = 0; g < G; g++)
        to[G * r + g] = v;
}

/* n_rows rows (at most 8) of weights into the tile; the lanes of missing rows repeat the last. */
static void unpack_tile(const tile *t, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows, uint32_t k,
                        scaling how)
{
    const ht_type_info *info = ht_type_get(type);
    int8_t q[R][CHUNK];
    int16_t sc[CHUNK / 16], mn[CHUNK / 16];
    float d[CHUNK / 32], dm[CHUNK / 32];

    for (uint32_t i = 0; i < k; i += CHUNK) {
        const uint32_t n = (k - i < CHUNK ? k - i : CHUNK) / 32;
        const size_t b0 = i / 32;
        for (uint32_t r = 0; r < R; r++) {
            ht_type_unpack(type, w + (r < n_rows ? r : n_rows - 1) * stride + ht_type_row_bytes(info, i), 32 * n,
                           &(ht_canon){ q[r], sc, mn, d, dm });
            for (uint32_t b = 0; b < n; b++) {
                put_scale(t->d + (b0 + b) * LANES, r, d[b]);
                if (info->has_min)
                    put_scale(t->dm + (b0 + b) * LANES, r, dm[b]);
            }
            for (uint32_t h = 0; how != PLAIN && h < 2 * n; h++) {
                put_scale(t->sc + (2 * b0 + h) * LANES, r, (float)sc[h]);
                if (info->has_min)
                    put_scale(t->mn + (2 * b0 + h) * LANES, r, (float)mn[h]);
            }
        }
        for (uint32_t h = 0; h < 2 * n; h++) {
            int8x16_t row[R];
            for (uint32_t r = 0; r < R; r++)
                row[r] = vld1q_s8(q[r] + 16 * h);
            arrange(t->w + (2 * b0 + h) * 128, row);
        }
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* Half a block of x of G tokens, `apart` bytes from each other. */
HT_INLINE void load_x(int8x16_t x[G], const int8_t *p, size_t apart)
{
#if defined(__ARM_FEATURE_MATMUL_INT8)
    const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(p)), b = vreinterpretq_s64_s8(vld1q_s8(p + apart));
    x[0] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
    x[1] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
#else
    (void)apart;
    x[0] = vld1q_s8(p);
#endif
}

/* sum + half a block of 8 rows times x. */
HT_INLINE void half_sums(int32x4_t sum[N], const int8x16_t w[8], const int8x16_t x[G])
{
#if defined(__ARM_FEATURE_MATMUL_INT8)
    for (int p = 0; p < 4; p++)
        sum[p] = vmmlaq_s32(vmmlaq_s32(sum[p], w[p], x[0]), w[4 + p], x[1]);
#elif defined(__ARM_FEATURE_DOTPROD)
    for (int s = 0; s < 2; s++) {
        sum[s] = vdotq_laneq_s32(sum[s], w[s], x[0], 0);
        sum[s] = vdotq_laneq_s32(sum[s], w[2 + s], x[0], 1);
        sum[s] = vdotq_laneq_s32(sum[s], w[4 + s], x[0], 2);
        sum[s] = vdotq_laneq_s32(sum[s], w[6 + s], x[0], 3);
    }
#else
    for (int s = 0; s < 2; s++)
        sum[s] = vaddq_s32(sum[s], ht_sum4(ht_mul16(w[4 * s], x[0]), ht_mul16(w[4 * s + 1], x[0]),
                                           ht_mul16(w[4 * s + 2], x[0]), ht_mul16(w[4 * s + 3], x[0])));
#endif
}

/* A whole block. small: no weight above 64. */
HT_INLINE void block_sums(int32x4_t sum[N], const int8x16_t w[16], int8x16_t x[2][G], bool small)
{
#if defined(__ARM_FEATURE_DOTPROD)
    (void)small;
    half_sums(sum, w, x[0]);
    half_sums(sum, w + 8, x[1]);
#else
    int32x4_t v[8];
    for (int r = 0; r < 8; r++)
        v[r] = small ? ht_mul32_64(w[r], w[8 + r], x[0][0], x[1][0]) : ht_mul32(w[r], w[8 + r], x[0][0], x[1][0]);
    for (int s = 0; s < 2; s++)
        sum[s] = ht_sum4(v[4 * s], v[4 * s + 1], v[4 * s + 2], v[4 * s + 3]);
#endif
}

/* A number of each of G tokens to the lanes of a register of sums. */
HT_INLINE float32x4_t of_tokens(float first, float second)
{
    return G == 1
               ? vdupq_n_f32(first)
               : vcombine_f32(vset_lane_f32(second, vdup_n_f32(first), 1), vset_lane_f32(second, vdup_n_f32(first), 1));
}

/* The whole tile with tokens [first, first + n_tok) of x, n_tok <= T. how, has_min, small are constants. */
HT_INLINE void tile_times(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t k, scaling how,
                          bool has_min, bool small)
{
    const size_t stride = x->stride;

    memset(t->acc, 0, 16 * T / G * LANES * sizeof(float));
    for (uint32_t b = 0; b < k / 32; b++) {
        const float *dm = t->dm + (size_t)b * LANES;
        const float *sc = t->sc + (size_t)b * 2 * LANES, *mn = t->mn + (size_t)b * 2 * LANES;
        const size_t at = (size_t)first * stride + (size_t)b * 32;
        const int8_t *xq = x->q + at;
        const float *xd = x->d + at / 32;
        const int16_t *xs = x->s + at / 16;
        float *acc = t->acc + (size_t)(b % 16) * (T / G) * LANES;
        int8x16_t w[16];
        float32x4_t d[N];

        for (int j = 0; j < 16; j++)
            w[j] = vld1q_s8(t->w + (size_t)b * 256 + 16 * j);
        for (int j = 0; j < N; j++)
            d[j] = vld1q_f32(t->d + (size_t)b * LANES + 4 * j);
        for (uint32_t i = 0; i < n_tok; i += G) {
            const size_t apart =
                G == 2 && i + 1 < n_tok ? stride : 0; /* the last of an odd number meets the rows twice */
            const float32x4_t dx = of_tokens(xd[0], xd[apart / 32]);
            int8x16_t v[2][G];
            float32x4_t f[N];

            load_x(v[0], xq, apart);
            load_x(v[1], xq + 16, apart);
            if (how == HALVES) {
                for (int h = 0; h < 2; h++) {
                    int32x4_t sum[N];
                    for (int j = 0; j < N; j++)
                        sum[j] = vdupq_n_s32(0);
                    half_sums(sum, w + 8 * h, v[h]);
                    for (int j = 0; j < N; j++) { /* exact: integers below 2^24 */
                        const float32x4_t s = vcvtq_f32_s32(sum[j]), by = vld1q_f32(sc + h * LANES + 4 * j);
                        f[j] = h ? vfmaq_f32(f[j], s, by) : vmulq_f32(s, by);
                    }
                }
            } else {
                int32x4_t sum[N];
                for (int j = 0; j < N; j++)
                    sum[j] = vdupq_n_s32(0);
                block_sums(sum, w, v, small);
                for (int j = 0; j < N; j++) {
                    f[j] = vcvtq_f32_s32(sum[j]);
                    if (how == BLOCK)
                        f[j] = vmulq_f32(f[j], vld1q_f32(sc + 4 * j));
                }
            }
            for (int j = 0; j < N; j++)
                f[j] = vfmaq_f32(vld1q_f32(acc + 4 * j), vmulq_f32(d[j], dx), f[j]);
            if (has_min) {
                const int16_t *xs2 = xs + apart / 16;
                const float32x4_t hi = of_tokens(xs[1], xs2[1]);
                const float32x4_t lo = how == HALVES ? of_tokens(xs[0], xs2[0])
                                                     : of_tokens((float)(xs[0] + xs[1]), (float)(xs2[0] + xs2[1]));
                for (int j = 0; j < N; j++) {
                    float32x4_t m = lo;
                    if (how != PLAIN)
                        m = vmulq_f32(m, vld1q_f32(mn + 4 * j));
                    if (how == HALVES)
                        m = vfmaq_f32(m, hi, vld1q_f32(mn + LANES + 4 * j));
                    f[j] = vfmaq_f32(f[j], vmulq_f32(vld1q_f32(dm + 4 * j), dx), m);
                }
            }
            for (int j = 0; j < N; j++)
                vst1q_f32(acc + 4 * j, f[j]);
            xq += G * stride;
            xd += G * stride / 32;
            xs += G * stride / 16;
            acc += LANES;
        }
    }
}

typedef void times_fn(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t k);
#define TILE_TIMES(name, how, has_min, small)                                                                          \
    static void name(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t k)                        \
    {                                                                                                                  \
        tile_times(t, x, first, n_tok, k, how, has_min, small);                                                        \
    }
TILE_TIMES(plain, PLAIN, false, true)
TILE_TIMES(plain_min, PLAIN, true, true)
TILE_TIMES(plain_wide, PLAIN, false, false)
TILE_TIMES(block, BLOCK, false, true)
TILE_TIMES(block_min, BLOCK, true, true)
TILE_TIMES(block_wide, BLOCK, false, false)
TILE_TIMES(halves, HALVES, false, true)
TILE_TIMES(halves_min, HALVES, true, true)

static times_fn *pick(ht_type type)
{
    const bool has_min = ht_type_get(type)->has_min;
    const bool wide = type == HT_Q8_0 || type == HT_IQ4_NL || type == HT_IQ4_XS; /* weights that fill a byte */
    switch (scaling_of(type)) {
    case PLAIN: return wide ? plain_wide : has_min ? plain_min : plain;
    case BLOCK: return wide ? block_wide : has_min ? block_min : block;
    default: return has_min ? halves_min : halves;
    }
}

/* The tree over the accumulators of a step: y of up to n rows of G tokens, of which n_tok are wanted. */
static void put_results(float *y, size_t ldy, const float *acc, uint32_t n, uint32_t n_tok)
{
    float32x4_t f[N];
    float out[G][R];

    for (int j = 0; j < N; j++) {
        float32x4_t a[16];
        for (int i = 0; i < 16; i++)
            a[i] = vld1q_f32(acc + (size_t)i * (T / G) * LANES + 4 * j);
        for (int half = 8; half; half /= 2)
            for (int i = 0; i < half; i++)
                a[i] = vaddq_f32(a[i], a[i + half]);
        f[j] = a[0];
    }
    for (int s = 0; s < 2; s++) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
        vst1q_f32(out[0] + 4 * s, vuzp1q_f32(f[2 * s], f[2 * s + 1]));
        vst1q_f32(out[1] + 4 * s, vuzp2q_f32(f[2 * s], f[2 * s + 1]));
#else
        vst1q_f32(out[0] + 4 * s, f[s]);
#endif
    }
    for (uint32_t g = 0; g < n_tok && g < G; g++)
        memcpy(y + g * ldy, out[g], (n < R ? n : R) * sizeof(float));
}

void HT_LEVEL(ht_gemm_q8)(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows,
                          const ht_q8 *x, uint32_t n_tok, uint32_t k, void *scratch)
{
    const char *name;
    ht_dot_q8_fn *dot_rows = ht_dot_q8_pick(type, LEVEL, &name);
    times_fn *times = pick(type);
    const tile t = cut(scratch, ht_gemm_blocks(k));

    for (uint32_t r = 0; r < n_rows; r += R) {
        const uint8_t *rows = (const uint8_t *)w + r * stride;
        const uint32_t n = n_rows - r < R ? n_rows - r : R;

        if (n_tok < ENOUGH_TOKENS) {
            for (size_t i = 0; i < n_tok; i++) {
                const size_t at = i * x->stride;
                dot_rows(y + i * ldy + r, rows, stride, NULL, n,
                         &(ht_q8_row){ x->q + at, x->d + at / 32, x->s + at / 16 }, k);
            }
            continue;
        }
        unpack_tile(&t, type, rows, stride, n, k, scaling_of(type));
        for (uint32_t i = 0; i < n_tok; i += T) {
            const uint32_t n_now = n_tok - i < T ? n_tok - i : T;
            times(&t, x, i, n_now, k);
            for (uint32_t j = 0; j < n_now; j += G)
                put_results(y + (i + j) * ldy + r, ldy, t.acc + (size_t)(j / G) * LANES, n, n_now - j);
        }
    }
}
