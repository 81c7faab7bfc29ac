/* SPDX-License-Identifier: MIT
 *
 * Every variant of the many-token products against token-by-token __ref dot products, bit for bit: all types, odd
 * shapes, forbidden pages around weights, activations, output and scratch. A failure names the variant, type, shape and
 * seed. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "cpu/dot.h"
#include "cpu/gemm.h"
#include "tests/cpu/check_dot_data.h"

static const struct q8_case {
    ht_isa isa;
    ht_gemm_q8_fn *fn;
    const char *name;
} q8_cases[] = {
#define HT_GEMM_Q8(isa, fn) { HT_ISA_##isa, fn, #fn },
#define HT_GEMM_F32(isa, fn)
#include "cpu/gemm.inc"
#undef HT_GEMM_Q8
#undef HT_GEMM_F32
};

static const struct f32_case {
    ht_isa isa;
    ht_gemm_f32_fn *fn;
    const char *name;
} f32_cases[] = {
#define HT_GEMM_Q8(isa, fn)
#define HT_GEMM_F32(isa, fn) { HT_ISA_##isa, fn, #fn },
#include "cpu/gemm.inc"
#undef HT_GEMM_Q8
#undef HT_GEMM_F32
};

/* Weights, output of the variant, output of the reference, scratch. */
typedef struct shape {
    ht_type type;
    uint32_t n_rows, n_tok, k;
    size_t pad, ldy, stride;
    guard w, y, want, scratch;
} shape;

static void shape_open(shape *s, uint64_t *seed)
{
    s->stride = ht_type_row_bytes(ht_type_get(s->type), s->k) + s->pad;
    s->ldy = s->n_rows + (s->pad ? 3 : 0);
    const size_t n_y = s->ldy * (s->n_tok - 1) + s->n_rows;
    s->w = guard_alloc(s->stride * s->n_rows - s->pad, true);
    s->y = guard_alloc(4 * n_y, true);
    s->want = guard_alloc(4 * n_y, true);
    s->scratch = guard_alloc((ht_gemm_scratch_bytes(s->k) + 63) / 64 * 64, true);
    for (uint32_t i = 0; i < s->n_rows; i++)
        fill_weights(s->type, (uint8_t *)s->w.p + i * s->stride, s->k, seed);
}

/* Also what lies between the rows of y must be as it was. */
static bool shape_close(shape *s)
{
    bool same = !memcmp(s->y.p, s->want.p, 4 * (s->ldy * (s->n_tok - 1) + s->n_rows));
    guard_free(&s->w), guard_free(&s->y), guard_free(&s->want), guard_free(&s->scratch);
    return same;
}

static bool same_q8(ht_gemm_q8_fn *fn, ht_type type, uint32_t n_rows, uint32_t n_tok, uint32_t k, size_t pad,
                    uint64_t seed)
{
    shape s = { .type = type, .n_rows = n_rows, .n_tok = n_tok, .k = k, .pad = pad };
    const uint32_t xstride = k + (pad ? 32 : 0);
    const size_t n_x = (size_t)xstride * (n_tok - 1) + k;
    guard q = guard_alloc(n_x, true), d = guard_alloc(n_x / 32 * 4, true), sum = guard_alloc(n_x / 16 * 2, true);
    const ht_q8 x = { q.p, d.p, sum.p, xstride };

    shape_open(&s, &seed);
    for (size_t t = 0; t < n_tok; t++)
        fill_q8(x.q + t * xstride, x.d + t * xstride / 32, x.s + t * xstride / 16, k, &seed);
    ht_gemm_q8__ref(s.want.p, s.ldy, type, s.w.p, s.stride, n_rows, &x, n_tok, k, s.scratch.p);
    fn(s.y.p, s.ldy, type, s.w.p, s.stride, n_rows, &x, n_tok, k, s.scratch.p);
    guard_free(&q), guard_free(&d), guard_free(&sum);
    return shape_close(&s);
}

static bool same_f32(ht_gemm_f32_fn *fn, ht_type type, uint32_t n_rows, uint32_t n_tok, uint32_t k, size_t pad,
                     uint64_t seed)
{
    shape s = { .type = type, .n_rows = n_rows, .n_tok = n_tok, .k = k, .pad = pad };
    const size_t ldx = k + (pad ? 5 : 0), n_x = ldx * (n_tok - 1) + k;
    guard g = guard_alloc(4 * n_x, true);
    float *x = g.p;

    shape_open(&s, &seed);
    for (size_t t = 0; t < n_tok; t++)
        for (size_t i = 0; i < k; i++)
            x[t * ldx + i] = rnd_float(&seed) * (rnd(&seed) & 31 ? 1.0f : 0x1p-120f);
    ht_gemm_f32__ref(s.want.p, s.ldy, type, s.w.p, s.stride, n_rows, x, ldx, n_tok, k, s.scratch.p);
    fn(s.y.p, s.ldy, type, s.w.p, s.stride, n_rows, x, ldx, n_tok, k, s.scratch.p);
    guard_free(&g);
    return shape_close(&s);
}

static const struct {
    uint32_t rows, tokens;
} counts[] = { { 1, 2 }, { 16, 16 }, { 17, 9 }, { 5, 33 }, { 32, 3 }, { 3, 25 }, { 40, 8 }, { 16, 70 } };
enum { N_COUNTS = sizeof counts / sizeof *counts };

/* k of shape number i: up to 5 blocks of 256, or 35 of 32, or any number of floats; once more than a chunk of the tile.
 */
static uint32_t pick_k(const ht_type_info *t, uint32_t i)
{
    if (i == 5)
        return t->block == 1 ? 4099 : 4096 + t->block;
    return t->block == 256 ? 256 * (1 + i % 5) : t->block == 32 ? 32 * (1 + 7 * i % 35) : 1 + 41 * i % 300;
}

Test(check_gemm, q8_every_variant_equals_ref, .timeout = 300)
{
    for (size_t c = 0; c < sizeof q8_cases / sizeof *q8_cases; c++) {
        if (q8_cases[c].isa == HT_ISA_REF || !ht_isa_runs(q8_cases[c].isa))
            continue;
        for (uint32_t type = 0; type < HT_TYPE_MAX; type++) {
            const ht_type_info *t = ht_type_get(type);
            for (uint32_t i = 0; t && t->quantised && i < N_COUNTS; i++) {
                const uint32_t k = pick_k(t, i);
                const size_t pad = i % 2 ? 6 : 0;
                cr_expect(same_q8(q8_cases[c].fn, (ht_type)type, counts[i].rows, counts[i].tokens, k, pad, 77 + i),
                          "%s: %s, rows %u, tokens %u, k %u, pad %zu, seed %u differs from __ref", q8_cases[c].name,
                          t->name, counts[i].rows, counts[i].tokens, k, pad, 77 + i);
            }
        }
    }
}

/* Few tokens go other ways than tiles, by their number and by whether k is a multiple of 256. */
Test(check_gemm, q8_few_tokens_equal_ref, .timeout = 300)
{
    static const ht_type types[] = { HT_Q4_0, HT_Q8_0, HT_Q4_K, HT_Q5_K, HT_Q6_K };

    for (size_t c = 0; c < sizeof q8_cases / sizeof *q8_cases; c++) {
        if (q8_cases[c].isa == HT_ISA_REF || !ht_isa_runs(q8_cases[c].isa))
            continue;
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            for (uint32_t n_tok = 2; n_tok <= 18; n_tok++) {
                const uint32_t k = 256 * (1 + n_tok % 4), rows = 15 + 2 * n_tok;
                cr_expect(same_q8(q8_cases[c].fn, types[i], rows, n_tok, k, n_tok % 3 ? 0 : 6, n_tok),
                          "%s: %s, rows %u, tokens %u, k %u differs from __ref", q8_cases[c].name,
                          ht_type_get(types[i])->name, rows, n_tok, k);
            }
    }
}

/* One row of weights whose bytes but for the scales are all `pattern`. */
static void fill_pattern(ht_type type, uint8_t *w, uint32_t k, uint8_t pattern, uint64_t *seed)
{
    const ht_type_info *t = ht_type_get(type);
    int at[2];
    uint8_t kept[256];

    fill_weights(type, w, k, seed);
    scale_offsets(type, at);
    for (uint32_t i = 0; i < k / t->block; i++, w += t->block_bytes) {
        memcpy(kept, w, t->block_bytes);
        memset(w, pattern, t->block_bytes);
        for (int j = 0; j < 2; j++)
            if (at[j] >= 0)
                memcpy(w + at[j], kept + at[j], 2);
        if (type == HT_MXFP4)
            w[0] = kept[0];
        if (type == HT_IQ1_M)
            memcpy(w + 48, kept + 48, 8);
    }
}

/* The largest sums that a type can make: all weights of a row alike and every x +-127 with the weight's sign, or
 * against it. Intermediate sums of 16 bits must not saturate or overflow for good. */
Test(check_gemm, q8_largest_sums_equal_ref, .timeout = 300)
{
    enum { ROWS = 16, TOKENS = 32, K = 512 };
    static const uint8_t patterns[ROWS] = { 0x00, 0xff, 0x7f, 0x80, 0x88, 0x77, 0xf0, 0x0f,
                                            0x08, 0x55, 0xaa, 0x81, 0x01, 0x10, 0xc3, 0x3c };
    static int8_t q[TOKENS * K];
    static float d[TOKENS * K / 32], y[TOKENS * ROWS], want[TOKENS * ROWS];
    static int16_t sums[TOKENS * K / 16];
    const ht_q8 x = { q, d, sums, K };
    void *scratch = aligned_alloc(64, (ht_gemm_scratch_bytes(K) + 63) / 64 * 64);
    uint64_t seed = 5;

    for (uint32_t type = 0; type < HT_TYPE_MAX; type++) {
        const ht_type_info *t = ht_type_get(type);
        uint8_t w[ROWS * K * 2];
        if (!t || !t->quantised)
            continue;
        const size_t stride = ht_type_row_bytes(t, K);
        for (uint32_t r = 0; r < ROWS; r++)
            fill_pattern((ht_type)type, w + r * stride, K, patterns[r], &seed);
        for (uint32_t i = 0; i < TOKENS; i++) { /* token i: for row i / 2 */
            int8_t v[K];
            int16_t sc[K / 16], mn[K / 16];
            float dw[K / 32], dm[K / 32];
            ht_type_unpack((ht_type)type, w + i / 2 * stride, K, &(ht_canon){ v, sc, mn, dw, dm });
            memset(sums + i * (K / 16), 0, sizeof sums / TOKENS);
            for (uint32_t j = 0; j < K; j++) {
                q[i * K + j] = (v[j] < 0) == (i % 2) ? 127 : -127;
                sums[(i * K + j) / 16] = (int16_t)(sums[(i * K + j) / 16] + q[i * K + j]);
                d[(i * K + j) / 32] = 0.01f;
            }
        }
        ht_gemm_q8__ref(want, ROWS, (ht_type)type, w, stride, ROWS, &x, TOKENS, K, scratch);
        for (size_t c = 0; c < sizeof q8_cases / sizeof *q8_cases; c++) {
            if (!ht_isa_runs(q8_cases[c].isa))
                continue;
            memset(y, 0xff, sizeof y);
            q8_cases[c].fn(y, ROWS, (ht_type)type, w, stride, ROWS, &x, TOKENS, K, scratch);
            cr_expect(!memcmp(y, want, sizeof y), "%s: %s differs from __ref", q8_cases[c].name, t->name);
        }
    }
    free(scratch);
}

Test(check_gemm, f32_every_variant_equals_ref, .timeout = 300)
{
    for (size_t c = 0; c < sizeof f32_cases / sizeof *f32_cases; c++) {
        if (f32_cases[c].isa == HT_ISA_REF || !ht_isa_runs(f32_cases[c].isa))
            continue;
        for (uint32_t type = 0; type < HT_TYPE_MAX; type++) {
            const ht_type_info *t = ht_type_get(type);
            for (uint32_t i = 0; t && i < 3 * N_COUNTS; i++) {
                const uint32_t k = pick_k(t, i), rows = counts[i % N_COUNTS].rows, tokens = counts[i % N_COUNTS].tokens;
                const size_t pad = i % 2 ? 6 : 0;
                if (i >= N_COUNTS && t->quantised)
                    continue;
                cr_expect(same_f32(f32_cases[c].fn, (ht_type)type, rows, tokens, k, pad, 77 + i),
                          "%s: %s, rows %u, tokens %u, k %u, pad %zu, seed %u differs from __ref", f32_cases[c].name,
                          t->name, rows, tokens, k, pad, 77 + i);
            }
        }
    }
}

/* Few tokens go other ways than tiles, by their number and by whether k is a multiple of 32. */
Test(check_gemm, f32_few_tokens_equal_ref, .timeout = 300)
{
    static const ht_type types[] = { HT_F32, HT_F16, HT_BF16 };

    for (size_t c = 0; c < sizeof f32_cases / sizeof *f32_cases; c++) {
        if (f32_cases[c].isa == HT_ISA_REF || !ht_isa_runs(f32_cases[c].isa))
            continue;
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            for (uint32_t n_tok = 2; n_tok <= 14; n_tok++) {
                const uint32_t k = 32 * (1 + 5 * n_tok % 29), rows = 13 + 2 * n_tok;
                cr_expect(same_f32(f32_cases[c].fn, types[i], rows, n_tok, k, n_tok % 3 ? 0 : 6, n_tok),
                          "%s: %s, rows %u, tokens %u, k %u differs from __ref", f32_cases[c].name,
                          ht_type_get(types[i])->name, rows, n_tok, k);
            }
    }
}

/* A thread's scratch stays modest for the widest models. */
Test(check_gemm, scratch_is_bounded)
{
    cr_expect_leq(ht_gemm_scratch_bytes(16384), (size_t)1 << 20);
    cr_expect_geq(ht_gemm_scratch_bytes(1), (size_t)1);
}
