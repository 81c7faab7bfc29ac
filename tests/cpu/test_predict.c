/* SPDX-License-Identifier: MIT
 * Predictors on the CPU: every variant of the one-bit products against ref, ref against the definition, and the
 * operation on ragged sizes with several threads, one token or many. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/predict.h"

static uint64_t seed = 3;

static float rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

static float *floats(size_t n)
{
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = rnd() + rnd();
    return p;
}

static uint8_t *pack(const float *w, uint32_t n, uint32_t k)
{
    uint8_t *signs = calloc(1, ht_signs_bytes(n, k));
    for (uint32_t r = 0; r < n; r++)
        ht_signs_set_row(signs, k, r, w + (size_t)r * k);
    return signs;
}

static int32_t product(const float *w, const int8_t *q, const int16_t *m, uint32_t k)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < k; i++)
        sum += m[i / 32] * (w[i] >= 0.0f ? q[i] : -q[i]);
    return sum;
}

typedef struct variant {
    ht_isa isa;
    const char *name;
    ht_signs_fn *fn;
} variant;

static const variant variants[] = {
#define HT_SIGNS(level, function) { HT_ISA_##level, #function, function },
#include "cpu/signs.inc"
#undef HT_SIGNS
};

Test(predict, every_variant_of_the_one_bit_products)
{
    static const uint32_t sizes[][2] = { { 1, 1 },   { 32, 32 },    { 33, 64 },  { 100, 70 },
                                         { 64, 96 }, { 160, 1000 }, { 40, 4096 } };
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++)
        for (size_t s = 0; ht_isa_runs(variants[v].isa) && s < sizeof sizes / sizeof *sizes; s++)
            for (int extreme = 0; extreme < 2; extreme++) {
                uint32_t n = sizes[s][0], k = sizes[s][1], blocks = ht_signs_blocks(k), tiles = ht_signs_tiles(n);
                float *w = floats((size_t)n * k), *x = floats(k);
                for (uint32_t i = 0; extreme && i < n * k; i++)
                    w[i] = i / k % 2 ? 1.0f : -1.0f;
                for (uint32_t i = 0; extreme && i < k; i++)
                    x[i] = 1.0f; /* all sums at their limits */
                uint8_t *signs = pack(w, n, k);
                int8_t *q = malloc(blocks * 32u), *table = malloc(blocks * (size_t)HT_SIGNS_TABLE);
                int16_t *m = malloc(blocks * sizeof *m);
                int32_t *got = malloc(tiles * 32 * sizeof *got);
                ht_signs_quantise(x, k, q, m);
                ht_signs_table(q, blocks, table);
                memset(got, 0xff, tiles * 32 * sizeof *got);
                variants[v].fn(got, signs, tiles, blocks, table, m);
                for (uint32_t r = 0; r < n; r++)
                    cr_assert_eq(got[r], product(w + (size_t)r * k, q, m, k), "%s: %u x %u, row %u", variants[v].name,
                                 n, k, r);
                free(w), free(x), free(signs), free(q), free(table), free(m), free(got);
            }
}

static void run(ht_exec *x, const ht_op *op)
{
    ht_event done;
    cr_assert_eq(x->ops->submit(x, op, 1, &done), HT_OK);
    cr_assert_eq(x->ops->wait(x, done, NULL), HT_OK);
}

static void masks(ht_exec *x, uint32_t n, uint32_t k, uint32_t n_tok, bool scores)
{
    const uint32_t words = (n + 31) / 32, stride = words + 1;
    float *w = floats((size_t)n * k), *in = floats((size_t)n_tok * (k + 3)), *threshold = floats(n);
    float *score = floats((size_t)n_tok * n);
    uint8_t *signs = pack(w, n, k);
    uint32_t *mask = malloc((size_t)n_tok * stride * sizeof *mask);
    void *work = aligned_alloc(64, (HT_PREDICT_WORK(k) + 63) / 64 * 64);
    int8_t *q = malloc(ht_signs_blocks(k) * 32u);
    int16_t *m = malloc(ht_signs_blocks(k) * sizeof *m);
    ht_op op = { .kind = HT_OP_PREDICT, .n_tok = n_tok };

    threshold[0] = -INFINITY;
    threshold[n - 1] = INFINITY;
    memset(mask, 0xa5, (size_t)n_tok * stride * sizeof *mask);
    op.predict = (ht_op_predict){ .n = n, .k = k, .threshold = threshold, .mask = mask, .mask_stride = stride };
    if (scores) {
        op.predict.scores = score;
        op.predict.scores_stride = n;
    } else {
        op.predict.signs = signs;
        op.predict.x = in;
        op.predict.x_stride = k + 3;
        op.predict.work = n_tok == 1 ? work : NULL;
    }
    run(x, &op);
    for (uint32_t t = 0; t < n_tok; t++) {
        float base = ht_signs_quantise(in + (size_t)t * (k + 3), k, q, m);
        for (uint32_t i = 0; i < n; i++) {
            float s = scores ? score[(size_t)t * n + i] : base * (float)product(w + (size_t)i * k, q, m, k);
            cr_assert_eq(mask[t * stride + i / 32] >> i % 32 & 1, s >= threshold[i], "token %u neuron %u of %u", t, i,
                         n);
        }
        for (uint32_t i = n; i < 32 * words; i++)
            cr_assert_eq(mask[t * stride + i / 32] >> i % 32 & 1, 0, "a bit behind the last neuron");
        cr_assert_eq(mask[t * stride + words], 0xa5a5a5a5u, "wrote behind the mask");
    }
    free(w), free(in), free(threshold), free(score), free(signs), free(mask), free(work), free(q), free(m);
}

Test(predict, masks_of_tokens)
{
    static const uint32_t sizes[][2] = { { 2, 5 }, { 33, 64 }, { 1024, 256 }, { 3000, 100 } };
    for (uint32_t threads = 1; threads <= 3; threads++) {
        ht_exec *x;
        ht_error err;
        ht_cpu_params p = { .threads = threads, .isa = ht_isa_best(), .max_k = 4096, .max_head = 64 };
        cr_assert_eq(ht_cpu_open(&x, &p, &err), HT_OK, "%s", err.text);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (uint32_t n_tok = 1; n_tok <= 5; n_tok += 2)
                for (int scores = 0; scores < 2; scores++)
                    masks(x, sizes[s][0], sizes[s][1], n_tok, scores);
        x->ops->close(x);
    }
}

Test(predict, refuses_what_it_cannot_run)
{
    ht_exec *x;
    ht_error err;
    ht_cpu_params p = { .threads = 1, .isa = ht_isa_best(), .max_k = 1 << 20, .max_head = 64 };
    float f = 0;
    uint32_t mask;
    uint8_t signs[128];
    ht_op op = { .kind = HT_OP_PREDICT, .n_tok = 1 };

    cr_assert_eq(ht_cpu_open(&x, &p, &err), HT_OK, "%s", err.text);
    op.predict = (ht_op_predict){ .n = 1, .k = 1, .threshold = &f, .mask = &mask };
    cr_assert_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL, "neither scores nor signs");
    op.predict.signs = signs;
    op.predict.x = &f;
    cr_assert_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL, "no memory for the table");
    op.predict.work = &op;
    op.predict.k = 1 << 20;
    cr_assert_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL, "a row too long for a thread's scratch");
    x->ops->close(x);
}
