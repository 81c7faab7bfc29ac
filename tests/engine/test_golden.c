/* SPDX-License-Identifier: MIT
 *
 * Logits against those of the reference implementations, for every architecture: from tests/data/golden (packed by
 * make.py there), and, where the shared folder is at hand, all files and sequences of ../shared/golden. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "tests/engine/engine_util.h"

/* Strings, not pointers: Criterion hands parameters to another process. */
typedef struct row {
    char name[24], override[40];
} row;

static row names[] = {
    { "llama", "" },
    { "llama_relu", "llama.hidden_activation=relu" },
    { "llama_relu2", "llama.hidden_activation=relu2" },
    { "llama_rope_linear", "" },
    { "llama_rope_yarn", "" },
    { "llama_rope_yarn_beta", "" },
    { "mistral", "" },
    { "qwen2", "" },
    { "qwen3", "" },
    { "phi3", "" },
    { "phi3_swa", "" },
    { "gemma2", "" },
    { "gemma3", "" },
    { "olmo2", "" },
    { "smollm3", "" },
    { "granite", "" },
    { "arcee", "" },
    { "nemotron", "" },
    { "falcon", "" },
    { "gpt2", "" },
    { "bitnet", "" },
    { "bitnet_b158_relu2", "" },
    { "mixtral", "" },
    { "qwen3_moe", "" },
    { "qwen2_moe", "" },
    { "olmoe", "" },
    { "gpt_oss", "" },
    { "smallthinker", "" },
    { "granitemoe", "" },
    { "qwen3_next", "" },
    { "qwen3_5", "" },
};

static double std_of(const float *v, size_t n)
{
    double sum = 0.0, sq = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    for (size_t i = 0; i < n; i++)
        sq += (v[i] - sum / (double)n) * (v[i] - sum / (double)n);
    return sqrt(sq / (double)n);
}

/* got: every position; want: positions first, first + step, … Within 2e-4 of the reference's standard deviation, and
 * the same best token wherever the reference's two best are further apart than that. */
static void compare(const char *what, const float *got, uint64_t n, const float *want, const uint64_t shape[2],
                    uint64_t first, uint64_t step)
{
    uint64_t rows = shape[0], vocab = shape[1];
    double bound = 2e-4 * std_of(want, rows * vocab), worst = 0.0;

    cr_assert_eq(rows, n / step, "%s: %llu rows for %llu tokens", what, (unsigned long long)rows,
                 (unsigned long long)n);
    for (uint64_t r = 0; r < rows; r++) {
        const float *w = want + r * vocab, *g = got + (first + r * step) * vocab;
        uint64_t best_w = 0, best_g = 0;
        float second = -INFINITY;
        for (uint64_t i = 0; i < vocab; i++) {
            double d = fabs((double)g[i] - w[i]);
            worst = !(d <= worst) ? d : worst; /* NaN counts */
            best_w = w[i] > w[best_w] ? i : best_w;
            best_g = g[i] > g[best_g] ? i : best_g;
        }
        for (uint64_t i = 0; i < vocab; i++)
            second = i != best_w && w[i] > second ? w[i] : second;
        if ((double)w[best_w] - second > bound)
            cr_expect_eq(best_g, best_w, "%s: best token %llu, not %llu, in row %llu", what, (unsigned long long)best_g,
                         (unsigned long long)best_w, (unsigned long long)r);
    }
    cr_expect(worst <= bound, "%s: off by %g, allowed %g", what, worst, bound);
}

static hearth_model *open_with(const char *path, const row *p)
{
    const char *override[] = { p->override };
    return util_open(path, (hearth_model_params){ .threads = 2,
                                                  .precision = HEARTH_PRECISION_F32,
                                                  .overrides = override,
                                                  .n_overrides = p->override[0] != 0 });
}

static void check_sequence(hearth_model *m, const char *ids_path, const char *logits_path, uint64_t first,
                           uint64_t step)
{
    uint64_t n, shape[2];
    int32_t *ids = util_read_ids(ids_path, &n);
    float *want = util_read_rows(logits_path, shape);
    cr_assert_eq(shape[1], util_n_vocab(m));
    float *got = util_logits(m, ids, n, 0, HEARTH_KV_F32);
    compare(logits_path, got, n, want, shape, first, step);
    free(got);
    free(want);
    free(ids);
}

ParameterizedTestParameters(golden, packed)
{
    return cr_make_param_array(row, names, sizeof names / sizeof *names);
}

ParameterizedTest(row *p, golden, packed)
{
    char path[512], ids[512], logits[512], file[80];

    snprintf(file, sizeof file, "%s.gguf", p->name);
    hearth_model *m = open_with(util_golden(path, file), p);
    for (int s = 0; s < 2; s++) {
        snprintf(file, sizeof file, "%s-tokens-%d.npy", p->name, s);
        util_golden(ids, file);
        snprintf(file, sizeof file, "%s-logits-%d.npy", p->name, s);
        check_sequence(m, ids, util_golden(logits, file), 7, 8);
    }
    hearth_model_close(&m);
}

ParameterizedTestParameters(golden, shared)
{
    return cr_make_param_array(row, names, sizeof names / sizeof *names);
}

ParameterizedTest(row *p, golden, shared)
{
    static const char *const files[] = { "model.gguf", "model-f16.gguf", "model-bf16.gguf", "model-tq2_0.gguf" };
    char path[512], ids[512], logits[512], file[80];

    if (!util_have_shared())
        cr_skip_test("%s/golden is not there: only the packed golden models were compared", HEARTH_SHARED_DIR);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(file, sizeof file, "%s/%s", p->name, files[i]);
        if (access(util_shared(path, file), R_OK) != 0)
            continue;
        hearth_model *m = open_with(path, p);
        for (int s = 0; s < 2; s++) {
            snprintf(file, sizeof file, "%s/tokens-%d.npy", p->name, s);
            util_shared(ids, file);
            snprintf(file, sizeof file, "%s/logits-%d.npy", p->name, s);
            check_sequence(m, ids, util_shared(logits, file), 0, 1);
        }
        hearth_model_close(&m);
    }
}

/* ---- 8-bit activations ------------------------------------------------------------------------------------------- */

/* Another engine's distance from the exact logits of a quantised model, as golden/MANIFEST.md lists it. */
typedef struct distance {
    char type[12];
    double max, rms;
} distance;

static distance distances[] = {
    { "Q4_0", 0.15, 0.0354 },    { "Q4_1", 0.158, 0.0369 }, { "Q5_0", 0.184, 0.0372 },   { "Q5_1", 0.17, 0.0366 },
    { "Q8_0", 0.153, 0.0372 },   { "Q2_K", 0.245, 0.0557 }, { "Q3_K_M", 0.322, 0.0543 }, { "Q4_K_M", 0.275, 0.0548 },
    { "Q5_K_S", 0.241, 0.0546 }, { "Q6_K", 0.243, 0.0537 }, { "IQ4_NL", 0.155, 0.037 },  { "IQ4_XS", 0.255, 0.0535 },
    { "MXFP4", 0.172, 0.0367 },  { "TQ1_0", 0.228, 0.049 }, { "TQ2_0", 0.228, 0.049 },
};

static void check_distance(const char *model, const char *ids_path, const char *logits_path, const distance *d,
                           uint64_t first, uint64_t step)
{
    uint64_t n, shape[2];
    int32_t *ids = util_read_ids(ids_path, &n);
    float *want = util_read_rows(logits_path, shape);
    hearth_model *m = util_open(model, (hearth_model_params){ .threads = 2, .precision = HEARTH_PRECISION_FAST });
    float *got = util_logits(m, ids, n, 0, HEARTH_KV_F16);
    double sum = 0.0, worst = 0.0;

    cr_assert_eq(shape[0], n / step);
    for (uint64_t r = 0; r < shape[0]; r++)
        for (uint64_t i = 0; i < shape[1]; i++) {
            double e = fabs((double)got[(first + r * step) * shape[1] + i] - want[r * shape[1] + i]);
            sum += e * e;
            worst = !(e <= worst) ? e : worst;
        }
    double rms = sqrt(sum / (double)(shape[0] * shape[1]));
    cr_log_info("%s: rms %.4f of %.4f, max %.4f of %.4f", d->type, rms, 1.1 * d->rms, worst, 1.5 * d->max);
    cr_expect(rms <= 1.1 * d->rms, "%s: rms %g, allowed %g", d->type, rms, 1.1 * d->rms);
    cr_expect(worst <= 1.5 * d->max, "%s: largest %g, allowed %g", d->type, worst, 1.5 * d->max);
    hearth_model_close(&m);
    free(got);
    free(want);
    free(ids);
}

Test(golden, fast_packed)
{
    static const distance q2_k = { "Q2_K", 0.245, 0.0557 };
    char model[512], ids[512], logits[512];
    check_distance(util_golden(model, "quant-Q2_K.gguf"), util_golden(ids, "quant-tokens-0.npy"),
                   util_golden(logits, "quant-Q2_K-logits-0.npy"), &q2_k, 7, 8);
}

ParameterizedTestParameters(golden, fast_shared)
{
    return cr_make_param_array(distance, distances, sizeof distances / sizeof *distances);
}

ParameterizedTest(distance *d, golden, fast_shared)
{
    char model[512], ids[512], logits[512], file[80];

    if (!util_have_shared())
        cr_skip_test("%s/golden is not there: 8-bit activations were checked on the packed Q2_K model only",
                     HEARTH_SHARED_DIR);
    snprintf(file, sizeof file, "quant-llama/%s.gguf", d->type);
    util_shared(model, file);
    snprintf(file, sizeof file, "quant-llama/%s-logits-0.npy", d->type);
    util_shared(logits, file);
    check_distance(model, util_shared(ids, "quant-llama/tokens-0.npy"), logits, d, 0, 1);
}
