/* SPDX-License-Identifier: MIT
 *
 * Weights of any type times many tokens of float32 activations, AVX2.
 *
 * The contract has 32 accumulators per product, i mod 32. A tile of 16 rows, rows in the lanes of two vectors, is
 * stored in stretches of CHUNK elements ordered [i mod 32][i / 32]: the accumulators of two vectors of rows and four
 * tokens are loaded once per stretch, kept in registers for their 8 elements and put back. They, one stretch of four
 * tokens' x and what passes by of the tile fit in the first-level cache together; more registers' worth of tokens
 * measured slower.
 *
 * BIG elements of a tile are unpacked at a time, so that scratch has an upper bound. Longer rows go through SUPER
 * tokens at a time, whose accumulators wait in scratch between parts, and are unpacked once for each such group. Owner:
 * no state; the scratch is the caller's (gemm_tile.h). Threads: any. */
#include <string.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "cpu/gemm_f32_avx2.h"
#include "cpu/gemm_tile.h"

enum {
    R = HT_GEMM_ROWS, /* two vectors */
    SIDE = 4,         /* tokens side by side */
    CHUNK = HT_GEMM_F32_CHUNK,
    BIG = HT_GEMM_F32_BIG,
    SUPER = HT_GEMM_F32_SUPER,
    ACC = 32 * SIDE * R /* floats of the accumulators of SIDE tokens: [32][SIDE][R] */
};

/* ---- weights --------------------------------------------------------------------------------------------------- */

static void from_words(float *to, const uint8_t *from, uint32_t n, bool bf16)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(from + (size_t)i * 2));
        _mm256_storeu_ps(to + i, bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))
                                      : _mm256_cvtph_ps(h));
    }
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, from + (size_t)i * 2, 2);
        to[i] = bf16 ? ht_bf16_to_f32(h) : _cvtsh_ss(h);
    }
}

/* Elements [at, at + n) of a row as floats; what follows up to a multiple of 8 is zero. */
static void load_row(ht_type type, const uint8_t *row, uint32_t at, uint32_t n, float *to)
{
    row += ht_type_row_bytes(ht_type_get(type), at);
    switch (type) {
    case HT_F32: memcpy(to, row, (size_t)n * 4); break;
    case HT_F16:
    case HT_BF16: from_words(to, row, n, type == HT_BF16); break;
    default: ht_type_dequant(type, row, n, to); break;
    }
    for (uint32_t i = n; i % 8; i++)
        to[i] = 0.0f;
}

/* Elements [at, at + n) of n_rows rows; the lanes of missing rows repeat the last. */
static void unpack(float *tile, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows, uint32_t at, uint32_t n)
{
    const ht_type_info *info = ht_type_get(type);
    const size_t bytes = ht_type_row_bytes(info, CHUNK);
    _Alignas(32) float f[R][CHUNK];

    for (uint32_t c = 0; c < n; c += CHUNK, tile += CHUNK * R) {
        const uint32_t len = n - c < CHUNK ? n - c : CHUNK;
        for (uint32_t r = 0; r < R; r++) {
            const uint8_t *row = w + (r < n_rows ? r : n_rows - 1) * stride;
            ht_prefetch(row + R * stride + ht_type_row_bytes(info, at + c), bytes); /* of the tile that follows */
            load_row(type, row, at + c, len, f[r]);
        }
        for (uint32_t h = 0; h < R; h += 8)
            for (uint32_t i = 0; i < len; i += 8) {
                __m256i v[8];
                for (uint32_t r = 0; r < 8; r++)
                    v[r] = _mm256_castps_si256(_mm256_load_ps(f[h + r] + i));
                ht_transpose8(v);
                for (uint32_t j = 0; j < 8; j++)
                    _mm256_store_ps(tile + ((i + j) % 32 * (CHUNK / 32) + (i + j) / 32) * R + h,
                                    _mm256_castsi256_ps(v[j]));
            }
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* One stretch: len elements (a constant where it is CHUNK) of SIDE tokens. fresh: acc is taken for zero. */
HT_INLINE void stretch_times(const float *tile, const float *const x[SIDE], float *acc, uint32_t len, bool fresh)
{
    for (uint32_t r = 0; r < 32 && r < len; r++, acc += SIDE * R) {
        const uint32_t count = (len - r + 31) / 32;
        const float *w = tile + (size_t)r * (CHUNK / 32) * R;
        __m256 a[SIDE], b[SIDE];
#pragma GCC unroll 4
        for (int t = 0; t < SIDE; t++) {
            a[t] = fresh ? _mm256_setzero_ps() : _mm256_load_ps(acc + t * R);
            b[t] = fresh ? _mm256_setzero_ps() : _mm256_load_ps(acc + t * R + 8);
        }
        for (uint32_t j = 0; j < count; j++) {
            const __m256 w0 = _mm256_load_ps(w + j * R), w1 = _mm256_load_ps(w + j * R + 8);
#pragma GCC unroll 4
            for (int t = 0; t < SIDE; t++) {
                const __m256 v = _mm256_broadcast_ss(x[t] + 32 * j + r);
                a[t] = _mm256_fmadd_ps(w0, v, a[t]);
                b[t] = _mm256_fmadd_ps(w1, v, b[t]);
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < SIDE; t++) {
            _mm256_store_ps(acc + t * R, a[t]);
            _mm256_store_ps(acc + t * R + 8, b[t]);
        }
    }
}

/* n elements of the tile with up to SIDE tokens; where there are fewer the last is repeated. */
static void times_side(const float *tile, const float *x, size_t ldx, uint32_t n_tok, float *acc, uint32_t n,
                       bool fresh)
{
    const float *p[SIDE];

    for (uint32_t t = 0; t < SIDE; t++)
        p[t] = x + (t < n_tok ? t : n_tok - 1) * ldx;
    if (fresh && n < 32) {
        memset(acc, 0, ACC * sizeof *acc);
        fresh = false;
    }
    for (uint32_t c = 0; c < n; c += CHUNK, tile += CHUNK * R) {
        if (n - c < CHUNK)
            stretch_times(tile, p, acc, n - c, fresh);
        else if (fresh)
            stretch_times(tile, p, acc, CHUNK, true);
        else
            stretch_times(tile, p, acc, CHUNK, false);
        fresh = false;
        for (uint32_t t = 0; t < SIDE; t++)
            p[t] += CHUNK;
    }
}

static __m256 tree(const float *acc)
{
    __m256 a[16];
    for (int i = 0; i < 16; i++)
        a[i] = _mm256_add_ps(_mm256_load_ps(acc + i * SIDE * R), _mm256_load_ps(acc + (i + 16) * SIDE * R));
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a[i] = _mm256_add_ps(a[i], a[i + half]);
    return a[0];
}

/* Up to SUPER tokens with up to R rows. */
static void group_times(float *y, size_t ldy, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                        const float *x, size_t ldx, uint32_t n_tok, uint32_t k, float *tile, bool unpacked)
{
    float *acc = tile + (size_t)BIG * R; /* [SUPER / SIDE][ACC] */

    for (uint32_t at = 0; at < k; at += BIG) {
        const uint32_t n = k - at < BIG ? k - at : BIG;
        if (!unpacked)
            unpack(tile, type, w, stride, n_rows, at, n);
        for (uint32_t i = 0; i < n_tok; i += SIDE) {
            float *a = k > BIG ? acc + (size_t)i / SIDE * ACC : acc;
            const uint32_t n_now = n_tok - i < SIDE ? n_tok - i : SIDE;
            times_side(tile, x + i * ldx + at, ldx, n_now, a, n, at == 0);
            if (at + n < k)
                continue;
            for (uint32_t t = 0; t < n_now; t++) {
                ht_store_lanes(y + (i + t) * ldy, tree(a + t * R), n_rows);
                if (n_rows > 8)
                    ht_store_lanes(y + (i + t) * ldy + 8, tree(a + t * R + 8), n_rows - 8);
            }
        }
    }
}

void ht_gemm_f32__avx2(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows,
                       const float *x, size_t ldx, uint32_t n_tok, uint32_t k, void *scratch)
{
    const char *name;
    ht_dot_f32_fn *dot = ht_dot_f32_pick(type, HT_ISA_AVX2, &name);
    const uint32_t enough = ht_type_get(type)->quantised ? 2 : 4; /* fewer tokens do not pay for the unpacking */

    if (ht_gemm_f32_avx2_few(y, ldy, type, w, stride, n_rows, x, ldx, n_tok, k, scratch))
        return;
    for (uint32_t r = 0; r < n_rows; r += R) {
        const uint8_t *rows = (const uint8_t *)w + r * stride;
        const uint32_t n = n_rows - r < R ? n_rows - r : R;
        if (n_tok < enough) {
            for (size_t t = 0; t < n_tok; t++)
                dot(y + t * ldy + r, rows, stride, NULL, n, x + t * ldx, k);
            continue;
        }
        for (uint32_t i = 0; i < n_tok; i += SUPER)
            group_times(y + i * ldy + r, ldy, type, rows, stride, n, x + i * ldx, ldx,
                        n_tok - i < SUPER ? n_tok - i : SUPER, k, scratch, i > 0 && k <= BIG);
    }
}
