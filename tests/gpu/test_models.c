/* SPDX-License-Identifier: MIT
 *
 * Whole models whose every operation runs on a device: all architectures of the golden data, prompts in batches and single
 * tokens, both precisions. The logits have the bits of the CPU executor, which are tested against the references in
 * tests/engine/test_golden.c. */
#include <criterion/parameterized.h>

#include "tests/engine/engine_util.h"
#include "tests/gpu/mirror.h"

/* A string, not a pointer: Criterion hands parameters to another process. */
typedef struct row {
    char name[24], override[40];
} row;

static row names[] = {
    { "llama", "" }, { "llama_relu", "llama.hidden_activation=relu" }, { "llama_relu2", "llama.hidden_activation=relu2" },
    { "llama_rope_yarn", "" }, { "mistral", "" }, { "qwen2", "" }, { "qwen3", "" }, { "phi3", "" }, { "phi3_swa", "" },
    { "gemma2", "" }, { "gemma3", "" }, { "olmo2", "" }, { "smollm3", "" }, { "granite", "" }, { "arcee", "" },
    { "nemotron", "" }, { "falcon", "" }, { "gpt2", "" }, { "bitnet", "" }, { "bitnet_b158_relu2", "" }, { "mixtral", "" },
    { "qwen3_moe", "" }, { "qwen2_moe", "" }, { "olmoe", "" }, { "gpt_oss", "" }, { "smallthinker", "" },
    { "granitemoe", "" }, { "qwen3_next", "" }, { "qwen3_5", "" },
};

enum { PROMPT = 11, BATCH = 6, SINGLE = 3 };

/* Logits after every token: a prompt in two batches, then tokens one by one. g NULL: on the CPU. */
static float *logits_of(hearth_model *m, const int32_t *ids, ht_gpu *g)
{
    const uint32_t n = PROMPT + SINGLE, vocab = util_n_vocab(m);
    struct util_rows rows = { malloc((size_t)n * vocab * sizeof(float)), vocab };
    hearth_session *s = util_session(m, n, BATCH, HEARTH_KV_F16);
    mirror *x = g ? mirror_open(g, s) : NULL;
    float *all = rows.to;
    hearth_error err;

    cr_assert_eq(hearth_session_feed(s, ids, PROMPT, util_store_row, &rows, &err), HEARTH_OK, "%s", err.text);
    for (uint32_t t = PROMPT; t < n; t++) {
        rows.to = all + (size_t)t * vocab;
        cr_assert_eq(hearth_session_feed(s, ids + t, 1, util_store_row, &rows, &err), HEARTH_OK, "%s", err.text);
    }
    if (x) {
        cr_assert_gt(mirror_n_ops(x, HT_OP_FFN), 0);
        cr_assert_gt(mirror_n_ops(x, HT_OP_ATTEND), 0);
        mirror_close(x);
    }
    hearth_session_close(&s);
    return all;
}

ParameterizedTestParameters(gpu_models, bits)
{
    return cr_make_param_array(row, names, sizeof names / sizeof *names);
}

ParameterizedTest(row *p, gpu_models, bits)
{
    char path[512], file[80];
    uint64_t n;

    snprintf(file, sizeof file, "%s-tokens-0.npy", p->name);
    int32_t *ids = util_read_ids(util_golden(path, file), &n);
    cr_assert_geq(n, PROMPT + SINGLE);
    snprintf(file, sizeof file, "%s.gguf", p->name);
    util_golden(path, file);
    for (uint32_t f32 = 0; f32 < 2; f32++) {
        const char *override[] = { p->override };
        hearth_model *m = util_open(path, (hearth_model_params){ .threads = 2,
                                                                 .precision = f32 ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST,
                                                                 .sparsity = HEARTH_SPARSITY_EXACT,
                                                                 .overrides = override,
                                                                 .n_overrides = p->override[0] != 0 });
        float *want = logits_of(m, ids, NULL);
        for (where w = PLAIN; w < N_WHERE; w++) {
            if (w == OPENCL ? !have_opencl() : w == BACKWARDS && f32)
                continue;
            ht_gpu *g = open_gpu(w);
            float *got = logits_of(m, ids, g);
            snprintf(file, sizeof file, "%s, %s, %s", p->name, f32 ? "f32" : "fast", where_name[w]);
            same(got, want, (size_t)(PROMPT + SINGLE) * util_n_vocab(m), file);
            free(got);
            ht_gpu_close(&g);
        }
        free(want);
        hearth_model_close(&m);
    }
    free(ids);
}
