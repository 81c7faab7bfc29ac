/* SPDX-License-Identifier: MIT
 *
 * Shapes that the golden models do not have (odd widths, one KV head, biases, mixed layers, windows across KV pages,
 * files without keys that newer ones carry), against transformers: tests/data/shapes, made by
 * tools/gen/golden/shapes.py. And that their logits are the same to the bit however the work is cut. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "tests/engine/engine_util.h"

enum { ROWS = 4 }; /* positions 0, n/2, n-2 and n-1 */

/* A name, not a pointer: Criterion hands parameters to another process. */
typedef struct shape {
    char name[24];
    uint32_t lengths[2];
} shape;

static shape shapes[] = {
    { "llama_bias_hd24_mqa", { 140 } }, { "llama_odd", { 1, 260 } },    { "llama_yarn", { 140 } },
    { "mixtral_7x3", { 140 } },         { "qwen2_mqa", { 140 } },
    { "qwen3_hd20", { 140 } },          { "qwen3_moe", { 140 } },       { "qwen2_moe_mixed", { 140 } },
    { "olmoe_gqa", { 140 } },           { "phi3_longrope", { 256, 288 } }, { "phi3_window", { 140 } },
    { "gemma2_cap3", { 140 } },         { "gemma3_old_keys", { 140 } }, { "gpt_oss_mxfp4", { 140 } },
    { "nemotron_bias", { 140 } },       { "granite_bias", { 140 } },    { "granitemoe_shared", { 140 } },
    { "smallthinker_window", { 140 } }, { "smollm3_5", { 140 } },       { "olmo2_mqa", { 140 } },
    { "olmo3_yarn", { 140 } },          { "qwen3_next_3to1", { 140 } }, { "qwen3_5_3to1", { 140 } },
    { "qwen3_5_moe", { 140 } },         { "bitnet_silu", { 140 } },     { "bitnet_relu2", { 140 } },
    { "arcee_bias", { 140 } },          { "gemma_mha", { 140 } },       { "exaone4_window", { 140 } },
    { "seed_oss_mqa", { 140 } },        { "glm4_bias", { 140 } },       { "glm4_moe_norms", { 140 } },
    { "dots1_gqa", { 140 } },           { "ernie_hd12", { 140 } },      { "ernie_moe_hd12", { 140 } },
    { "starcoder2_mqa", { 140 } },      { "jais2_gqa", { 140 } },
};

/* The generator's sequence. */
static int32_t *make_ids(uint32_t n, uint32_t n_vocab)
{
    int32_t *ids = malloc(n * sizeof *ids);
    cr_assert_not_null(ids);
    for (uint64_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * i * 7 + i * 13 + 5) % 65521 % n_vocab);
    return ids;
}

static hearth_model *open_shape(const char *name, hearth_precision precision, uint32_t threads, const char *isa)
{
    char path[512];
    snprintf(path, sizeof path, "%s/shapes/%s.gguf", HEARTH_TEST_DATA, name);
    return util_open(path, (hearth_model_params){ .threads = threads, .precision = precision, .isa = isa });
}

static double std_of(const float *v, uint64_t n)
{
    double sum = 0.0, square = 0.0;
    for (uint64_t i = 0; i < n; i++)
        sum += v[i];
    for (uint64_t i = 0; i < n; i++)
        square += (v[i] - sum / (double)n) * (v[i] - sum / (double)n);
    return sqrt(square / (double)n);
}

ParameterizedTestParameters(shapes, logits)
{
    return cr_make_param_array(shape, shapes, sizeof shapes / sizeof *shapes);
}

ParameterizedTest(shape *p, shapes, logits)
{
    hearth_model *m = open_shape(p->name, HEARTH_PRECISION_F32, 2, NULL);
    uint32_t v = util_n_vocab(m);

    for (int k = 0; k < 2 && p->lengths[k]; k++) {
        uint32_t n = p->lengths[k], at[ROWS] = { 0, n / 2, n > 1 ? n - 2 : 0, n - 1 };
        uint64_t dims[2];
        char path[512];
        snprintf(path, sizeof path, "%s/shapes/%s-%u.npy", HEARTH_TEST_DATA, p->name, n);
        float *want = util_read_rows(path, dims);
        cr_assert(dims[0] == ROWS && dims[1] == v, "%s: %llu rows of %llu", path, (unsigned long long)dims[0],
                  (unsigned long long)dims[1]);
        int32_t *ids = make_ids(n, v);
        float *got = util_logits(m, ids, n, 0, HEARTH_KV_F32);
        double bound = 2e-4 * std_of(want, (uint64_t)ROWS * v), worst = 0.0;
        for (int r = 0; r < ROWS; r++)
            for (uint32_t i = 0; i < v; i++) {
                double d = fabs((double)got[(size_t)at[r] * v + i] - want[(size_t)r * v + i]);
                worst = !(d <= worst) ? d : worst; /* NaN counts */
            }
        cr_expect(worst <= bound, "%s, %u tokens: off by %g, allowed %g", p->name, n, worst, bound);
        free(got);
        free(ids);
        free(want);
    }
    hearth_model_close(&m);
}

ParameterizedTestParameters(shapes, bits)
{
    return cr_make_param_array(shape, shapes, sizeof shapes / sizeof *shapes);
}

/* Batches, threads and SIMD levels; float32, and the fast path with its half KV. */
ParameterizedTest(shape *p, shapes, bits)
{
    static const struct { uint32_t batch, threads; const char *isa; } ways[] = {
        { 1, 1, NULL }, { 7, 2, NULL }, { 0, 1, "ref" }, { 33, 2, "ref" },
    };
    uint32_t n = 134; /* six positions beyond a KV page */

    for (int fast = 0; fast < 2; fast++) {
        hearth_precision precision = fast ? HEARTH_PRECISION_FAST : HEARTH_PRECISION_F32;
        hearth_model *m = open_shape(p->name, precision, 2, NULL);
        uint32_t v = util_n_vocab(m);
        int32_t *ids = make_ids(n, v);
        float *want = util_logits(m, ids, n, 0, HEARTH_KV_F16);
        hearth_model_close(&m);
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            m = open_shape(p->name, precision, ways[w].threads, ways[w].isa);
            float *got = util_logits(m, ids, n, ways[w].batch, HEARTH_KV_F16);
            cr_expect_eq(memcmp(got, want, (size_t)n * v * sizeof *got), 0,
                         "%s: other bits with batch %u, %u threads, %s", p->name, ways[w].batch, ways[w].threads,
                         ways[w].isa ? ways[w].isa : "best SIMD");
            free(got);
            hearth_model_close(&m);
        }
        free(want);
        free(ids);
    }
}
