/* SPDX-License-Identifier: MIT
 *
 * Quantisers: byte for byte against ggml's reference where the rounding is the same, by their error elsewhere, and
 * hostile input. Golden rows: tests/data/quant (gaussian, heavy tail, zero block, constant with spikes, 1e-4, mixed
 * scales, ternary, ramp). */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/gguf.h"

enum { ROWS = 8, K = 512 };

static const ht_type exact[] = { HT_F16,  HT_BF16, HT_Q4_0,  HT_Q4_1,  HT_Q5_0,
                                 HT_Q5_1, HT_Q8_0, HT_MXFP4, HT_TQ1_0, HT_TQ2_0 };
static const ht_type searched[] = { HT_Q2_K, HT_Q3_K, HT_Q4_K, HT_Q5_K, HT_Q6_K, HT_IQ4_NL, HT_IQ4_XS };
enum { N_EXACT = sizeof exact / sizeof *exact, N_SEARCHED = sizeof searched / sizeof *searched };

static ht_gguf *open_golden(void)
{
    ht_gguf *g;
    ht_error err;
    cr_assert_eq(ht_gguf_open(&g, HEARTH_TEST_DATA "/quant/quant.gguf", &err), HT_OK, "%s", err.text);
    return g;
}

static const float *source(const ht_gguf *g)
{
    const ht_tensor *t = ht_gguf_find_tensor(g, "source");
    cr_assert(t && t->ne[0] == K && t->ne[1] == ROWS && t->type == HT_F32);
    return t->data; /* 32-byte aligned in the mapping */
}

static double rms(const float *a, const float *b)
{
    double s = 0;
    for (int i = 0; i < K; i++)
        s += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(s / K);
}

Test(types_quantise, reproduces_the_reference_byte_for_byte)
{
    ht_gguf *g = open_golden();
    static uint8_t bytes[ROWS * K * 2 + 1];

    for (int i = 0; i < N_EXACT; i++) {
        const ht_type_info *t = ht_type_get(exact[i]);
        const ht_tensor *w = ht_gguf_find_tensor(g, t->name);
        bytes[w->bytes] = 0x5a;
        ht_type_quantise(exact[i], source(g), ROWS * K, bytes);
        cr_assert_eq(bytes[w->bytes], 0x5a, "%s writes beyond its end", t->name);
        for (uint64_t j = 0; j < w->bytes; j++)
            cr_assert_eq(bytes[j], ((const uint8_t *)w->data)[j], "%s byte %d of block %d", t->name,
                         (int)(j % t->block_bytes), (int)(j / t->block_bytes));
    }
    ht_gguf_close(&g);
}

Test(types_quantise, searched_scales_err_no_more_than_the_reference)
{
    ht_gguf *g = open_golden();
    static uint8_t bytes[K * 2];
    static float ours[K], theirs[K];

    for (int i = 0; i < N_SEARCHED; i++) {
        const ht_type_info *t = ht_type_get(searched[i]);
        const ht_tensor *w = ht_gguf_find_tensor(g, t->name);
        for (int r = 0; r < ROWS; r++) {
            const float *x = source(g) + r * K;
            ht_type_quantise(searched[i], x, K, bytes);
            ht_type_dequant(searched[i], bytes, K, ours);
            ht_type_dequant(searched[i], (const uint8_t *)w->data + r * ht_type_row_bytes(t, K), K, theirs);
            cr_expect_leq(rms(ours, x), 1.025 * rms(theirs, x) + 1e-12, "%s row %d: rms %g, the reference has %g",
                          t->name, r, rms(ours, x), rms(theirs, x));
        }
    }
    ht_gguf_close(&g);
}

/* Every type that can be written, on rows made to break arithmetic: the bytes must decode to finite values, nothing
 * may be written beyond the end (and the sanitizers must see no undefined conversion). */
Test(types_quantise, hostile_rows)
{
    static const float odd[] = { 0.0f, -0.0f, NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, FLT_MIN, -FLT_MIN, 0x1p-149f,
                                 -0x1p-149f, 1.0f, -1.0f, 65504.0f, 65520.0f, 1e-7f, -6e-8f, 1e20f, 1e-30f, 0.5f };
    static float x[K], y[K];
    static uint8_t bytes[K * 4 + 1];
    uint32_t seed = 99;

    for (uint32_t id = 0; id < HT_TYPE_MAX; id++) {
        const ht_type_info *t = ht_type_get(id);
        if (!t || !t->quantised || !ht_type_can_quantise((ht_type)id))
            continue;
        size_t n = ht_type_row_bytes(t, K);
        for (int round = 0; round < 200; round++) {
            for (int j = 0; j < K; j++) {
                seed = seed * 1664525 + 1013904223;
                size_t pick = seed >> 16;
                if (round < 20) /* one value everywhere, then two mixed, then all */
                    x[j] = odd[round];
                else if (round < 100)
                    x[j] = odd[(pick & 1 ? round : round / 5) % 20];
                else
                    x[j] = odd[pick % 20];
            }
            bytes[n] = 0xa5;
            ht_type_quantise((ht_type)id, x, K, bytes);
            cr_assert_eq(bytes[n], 0xa5, "%s writes beyond its end", t->name);
            ht_type_dequant((ht_type)id, bytes, K, y);
            for (int j = 0; j < K; j++)
                cr_assert(!isnan(y[j]), "%s round %d: element %d of %g is not a number", t->name, round, j,
                          (double)x[j]);
        }
    }
}

Test(types_quantise, zeros_stay_zeros)
{
    static const float x[K];
    static float y[K];
    static uint8_t bytes[K * 4];

    for (uint32_t id = 0; id < HT_TYPE_MAX; id++)
        if (ht_type_get(id) && ht_type_can_quantise((ht_type)id)) {
            ht_type_quantise((ht_type)id, x, K, bytes);
            ht_type_dequant((ht_type)id, bytes, K, y);
            for (int j = 0; j < K; j++)
                cr_assert_eq(y[j], 0.0f, "%s", ht_type_name(id));
        }
}

/* Plain bounds on the error of gaussian-like values, so that a broken scale search cannot hide behind a bad
 * reference. */
Test(types_quantise, relative_error_by_bits)
{
    static const struct { ht_type type; double most; } bounds[] = {
        { HT_F16, 3e-4 },   { HT_BF16, 2.5e-3 }, { HT_Q8_0, 0.006 },  { HT_Q6_K, 0.02 },   { HT_Q5_K, 0.035 },
        { HT_Q5_1, 0.045 }, { HT_Q5_0, 0.05 },   { HT_Q4_K, 0.07 },   { HT_Q4_1, 0.085 },  { HT_Q4_0, 0.095 },
        { HT_IQ4_NL, 0.08 }, { HT_IQ4_XS, 0.08 }, { HT_Q3_K, 0.16 },  { HT_Q2_K, 0.30 },   { HT_MXFP4, 0.13 },
    };
    static float x[K], y[K];
    static const float zero[K];
    static uint8_t bytes[K * 4];
    uint32_t seed = 7;

    for (int j = 0; j < K; j++) { /* sums of 12 uniform values: nearly gaussian */
        x[j] = -6.0f;
        for (int i = 0; i < 12; i++) {
            seed = seed * 1664525 + 1013904223;
            x[j] += (float)(seed >> 8) * 0x1p-24f;
        }
    }
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        ht_type_quantise(bounds[i].type, x, K, bytes);
        ht_type_dequant(bounds[i].type, bytes, K, y);
        double e = rms(x, y) / rms(x, zero);
        cr_expect_lt(e, bounds[i].most, "%s: %g", ht_type_name(bounds[i].type), e);
        ht_type_quantise_coarse(bounds[i].type, x, K, bytes);
        ht_type_dequant(bounds[i].type, bytes, K, y);
        const double coarse = rms(x, y) / rms(x, zero);
        cr_expect(coarse < 1.25 * e && coarse >= 0.999 * e, "%s: %g, coarse %g", ht_type_name(bounds[i].type), e, coarse);
    }
}
