/* SPDX-License-Identifier: MIT
 *
 * PowerInfer's models (docs/powerinfer.md): logits against those of a reference in numpy, for each architecture, with the
 * file's own predictors and without; what the predictors were right about; the same bits however it is computed; files
 * that are damaged or of a kind that cannot be run. The models and the reference: tests/data/powerinfer/make.py. */
#include "engine/gguf_write.h"
#include "tests/engine/engine_util.h"

enum { N_IDS = 24, FIRST = 3, STEP = 4 };

static const char *const names[] = { "llama", "bamboo", "falcon", "opt" };
enum { N_NAMES = sizeof names / sizeof *names };

static hearth_error err;

static const char *data(char buf[512], const char *name, const char *ending)
{
    snprintf(buf, 512, "%s/powerinfer/%s%s", HEARTH_TEST_DATA, name, ending);
    return buf;
}

static int32_t *read_ids(void)
{
    char path[512];
    uint64_t n;
    int32_t *ids = util_read_ids(data(path, "tokens", ".npy"), &n);
    cr_assert_eq(n, N_IDS);
    return ids;
}

static hearth_model *open_model(const char *name, hearth_model_params p)
{
    char path[512];
    return util_open(data(path, name, ".gguf"), p);
}

/* ---- Against the reference ---- */

static void compare(const char *name, const char *ending, const float *got)
{
    char path[512];
    uint64_t shape[2];
    float *want = util_read_rows(data(path, name, ending), shape);
    double sum = 0.0, sq = 0.0, worst = 0.0;

    cr_assert_eq(shape[0], (N_IDS - FIRST + STEP - 1) / STEP);
    for (uint64_t i = 0; i < shape[0] * shape[1]; i++) {
        const double d = fabs((double)got[(FIRST + i / shape[1] * STEP) * shape[1] + i % shape[1]] - want[i]);
        sum += want[i];
        sq += (double)want[i] * want[i];
        worst = !(d <= worst) ? d : worst; /* NaN counts */
    }
    const double n = (double)(shape[0] * shape[1]), std = sqrt(sq / n - sum / n * sum / n);
    cr_expect(worst <= 1e-4 * std, "%s%s: off by %g of %g", name, ending, worst, std);
    free(want);
}

static float *logits(const char *name, hearth_model_params p, uint32_t batch)
{
    hearth_model *m = open_model(name, p);
    int32_t *ids = read_ids();
    float *got = util_logits(m, ids, N_IDS, batch, HEARTH_KV_F32);
    hearth_model_close(&m);
    free(ids);
    return got;
}

Test(powerinfer, logits_of_its_own_predictors)
{
    for (int i = 0; i < N_NAMES; i++) {
        float *got = logits(names[i], (hearth_model_params){ .threads = 2, .precision = HEARTH_PRECISION_F32 }, 0);
        compare(names[i], "-logits.npy", got);
        free(got);
    }
}

Test(powerinfer, logits_of_every_neuron)
{
    static const hearth_model_params how[] = {
        { .threads = 2, .precision = HEARTH_PRECISION_F32, .sparsity = HEARTH_SPARSITY_OFF },
        { .threads = 2, .precision = HEARTH_PRECISION_F32, .sparsity = HEARTH_SPARSITY_EXACT },
        { .threads = 2, .precision = HEARTH_PRECISION_F32, .ignore_predictors = true },
    };
    for (int i = 0; i < N_NAMES; i++)
        for (size_t k = 0; k < sizeof how / sizeof *how; k++)
            for (uint32_t batch = 1; batch <= N_IDS; batch += N_IDS - 1) {
                float *got = logits(names[i], how[k], batch);
                compare(names[i], "-dense.npy", got);
                free(got);
            }
}

/* Neurons, active, predicted, both. */
Test(powerinfer, what_predictors_hit)
{
    for (int i = 0; i < N_NAMES; i++) {
        char path[512];
        uint64_t n;
        int32_t *want = util_read_ids(data(path, names[i], "-counts.npy"), &n), *ids = read_ids();
        hearth_model *m = open_model(names[i], (hearth_model_params){ .precision = HEARTH_PRECISION_F32 });
        hearth_model_info info = { .size = sizeof info };
        hearth_stats stats = { .size = sizeof stats };
        hearth_session *s = util_session(m, N_IDS, N_IDS, HEARTH_KV_F32);
        cr_assert_eq(hearth_session_feed(s, ids, N_IDS, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_session_get_stats(s, &stats), HEARTH_OK);
        cr_expect_eq(stats.mask_neurons, (uint64_t)want[0], "%s", names[i]);
        cr_expect_eq(stats.mask_active, (uint64_t)want[1], "%s", names[i]);
        cr_expect_eq(stats.mask_predicted, (uint64_t)want[2], "%s", names[i]);
        cr_expect_eq(stats.mask_hit, (uint64_t)want[3], "%s", names[i]);
        cr_assert_eq(hearth_model_get_info(m, &info), HEARTH_OK);
        cr_expect(info.own_predictors);
        cr_expect_not_null(strstr(info.description, "PowerInfer"));
        hearth_session_close(&s);
        hearth_model_close(&m);
        free(ids);
        free(want);
    }
}

/* ---- The same bits ---- */

static bool same_bits(const void *a, const void *b)
{
    return memcmp(a, b, (size_t)N_IDS * 384 * sizeof(float)) == 0;
}

Test(powerinfer, bits)
{
    static const hearth_sparsity sparsity[] = { HEARTH_SPARSITY_AUTO, HEARTH_SPARSITY_OFF, HEARTH_SPARSITY_EXACT };
    static const uint32_t batches[] = { 1, 5, N_IDS };

    for (int i = 0; i < N_NAMES; i++)
        for (int f32 = 0; f32 < 2; f32++) {
            float *first[2] = { NULL, NULL };
            for (int k = 0; k < 3 * 3 * 2 * 2; k += util_sanitized() ? 5 : 1) {
                hearth_model_params p = { .threads = 1 + (uint32_t)k % 2,
                                          .isa = k / 2 % 2 ? "ref" : NULL,
                                          .sparsity = sparsity[k / 12],
                                          .precision = f32 ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST };
                float *got = logits(names[i], p, batches[k / 4 % 3]);
                float **same = &first[p.sparsity != HEARTH_SPARSITY_AUTO]; /* OFF and EXACT are one */
                if (!*same) {
                    *same = got;
                    continue;
                }
                cr_expect(same_bits(got, *same), "%s: setting %d, %s", names[i], k, f32 ? "f32" : "fast");
                free(got);
            }
            free(first[0]);
            free(first[1]);
        }
}

/* The threshold of the file, changed: all pass, none does, one that cannot be. */
Test(powerinfer, thresholds)
{
    const char *all = "powerinfer.sparse_threshold=-1e30", *none = "powerinfer.sparse_threshold=1e30";
    const char *bad = "powerinfer.sparse_threshold=nan";
    char path[512];
    hearth_model *m;

    for (int i = 0; i < N_NAMES; i++) {
        float *dense = logits(names[i], (hearth_model_params){ .sparsity = HEARTH_SPARSITY_EXACT }, 0);
        float *open = logits(names[i], (hearth_model_params){ .overrides = &all, .n_overrides = 1 }, 0);
        float *shut = logits(names[i], (hearth_model_params){ .overrides = &none, .n_overrides = 1 }, 0);
        float *shut_too = logits(names[i], (hearth_model_params){ .overrides = &none, .n_overrides = 1 }, 1);
        cr_expect(same_bits(dense, open), "%s", names[i]);
        cr_expect(!same_bits(dense, shut), "%s", names[i]);
        cr_expect(same_bits(shut_too, shut), "%s", names[i]);
        free(dense);
        free(open);
        free(shut);
        free(shut_too);
        hearth_model_params p = { .size = sizeof p, .overrides = &bad, .n_overrides = 1 };
        cr_expect_neq(hearth_model_open(&m, data(path, names[i], ".gguf"), &p, &err), HEARTH_OK);
        cr_expect_not_null(strstr(err.text, "sparse_threshold"), "%s", err.text);
    }
}

/* ---- What cannot be ---- */

/* NAME's keys and tensors as another file of PowerInfer's, but for what `change` does to a tensor or a key. */
typedef struct change {
    const char *tensor;   /* left out where rows is 0, else with that many rows */
    uint64_t rows;
    const char *arch;     /* instead of the file's */
    float threshold;      /* 0: the file's */
    const char *word;     /* what the sentence must say; NULL: it opens */
} change;

static const char *write_changed(char path[512], const char *dir, const char *name, const change *c)
{
    ht_gguf *g;
    ht_gguf_writer *w;
    ht_error e;
    float zeros[64 * 512] = { 0 };

    cr_assert_eq(ht_gguf_open(&g, data(path, name, ".gguf"), &e), HT_OK, "%s", e.text);
    snprintf(path, 512, "%s/changed.gguf", dir);
    cr_assert_eq(ht_gguf_writer_open(&w, path, &e), HT_OK, "%s", e.text);
    ht_gguf_writer_copy(w, g);
    if (c->arch)
        ht_gguf_writer_set_str(w, "general.architecture", (ht_str){ c->arch, strlen(c->arch) });
    if (c->threshold != 0.0f)
        ht_gguf_writer_set_f32(w, "powerinfer.sparse_threshold", c->threshold);
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++) {
            const ht_tensor *t = ht_gguf_tensor_at(g, i);
            const bool hit = c->tensor && t->name.n == strlen(c->tensor) && !memcmp(t->name.s, c->tensor, t->name.n);
            const uint64_t ne[2] = { t->ne[0], c->rows };
            if (hit && c->rows == 0)
                continue;
            if (pass == 0)
                cr_assert_eq(hit ? ht_gguf_writer_declare(w, t->name, 0, 2, ne, &e)
                                 : ht_gguf_writer_declare(w, t->name, t->type, t->n_dims, t->ne, &e),
                             HT_OK, "%s", e.text);
            else
                cr_assert_eq(hit ? ht_gguf_writer_raw(w, zeros, ne[0] * ne[1] * 4, &e)
                                 : ht_gguf_writer_raw(w, t->data, t->bytes, &e),
                             HT_OK, "%s", e.text);
        }
    cr_assert_eq(ht_gguf_writer_close(&w, &e), HT_OK, "%s", e.text);
    ht_gguf_close(&g);
    FILE *f = fopen(path, "r+b");
    cr_assert(f && fwrite("PWRI", 1, 4, f) == 4);
    fclose(f);
    return path;
}

Test(powerinfer, damaged)
{
    static const change changes[] = {
        { .tensor = "blk.0.fc1.weight", .word = "fc1" },
        { .tensor = "blk.1.fc2.weight", .word = "fc2" },
        { .tensor = "blk.0.fc1.weight", .rows = 31, .word = "fc2" },
        { .tensor = "blk.0.fc2.weight", .rows = 159, .word = "fc2" },
        { .tensor = "blk.0.ffn_down_t.weight", .rows = 128, .word = "ffn_down_t" },
        { .tensor = "blk.1.ffn_down_t.weight", .word = "ffn_down" },
        { .tensor = "blk.1.ffn_up.weight", .rows = 161, .word = "161 rows" },
        { .threshold = NAN, .word = "sparse_threshold" },
        { .threshold = INFINITY, .word = "sparse_threshold" },
        { .arch = "refact", .word = "refact" },
        { .arch = "qwen2", .word = "PowerInfer" },
        { .arch = "generic.gpu_index", .word = "gpuidx" },
        { .threshold = -3.0f },
    };
    char dir[] = "/tmp/hearth-test-XXXXXX", path[512];
    hearth_model *m;

    cr_assert_not_null(mkdtemp(dir));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const change *c = &changes[i];
        const hearth_status st = hearth_model_open(&m, write_changed(path, dir, "llama", c), NULL, &err);
        if (!c->word) {
            cr_expect_eq(st, HEARTH_OK, "%s", err.text);
            hearth_model_close(&m);
            continue;
        }
        cr_expect(st == HEARTH_EFORMAT || st == HEARTH_EUNSUPPORTED, "change %zu: %s", i, hearth_status_text(st));
        cr_expect_not_null(strstr(err.text, c->word), "change %zu: %s", i, err.text);
    }
    remove(path);
    remove(dir);
}

/* Learnt positions end. */
Test(powerinfer, context_beyond_learnt_positions)
{
    hearth_model *m = open_model("opt", (hearth_model_params){ .threads = 1 });
    hearth_model_info info = { .size = sizeof info };
    hearth_session_params p = { .size = sizeof p, .n_ctx = 65 };
    hearth_session *s;

    cr_assert_eq(hearth_model_get_info(m, &info), HEARTH_OK);
    cr_expect_eq(info.n_ctx_train, 64);
    cr_expect_eq(hearth_session_open(&s, m, &p, &err), HEARTH_EINVAL);
    cr_expect_not_null(strstr(err.text, "positions"), "%s", err.text);
    p.n_ctx = 64;
    cr_expect_eq(hearth_session_open(&s, m, &p, &err), HEARTH_OK, "%s", err.text);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

/* What the library reads of weights for who learns from them is the same whichever way they lie. */
Test(powerinfer, rows_of_a_down_projection)
{
    hearth_model *m = open_model("llama", (hearth_model_params){ .threads = 1 });
    float all[64 * 160], one[160];

    cr_assert_eq(hearth_model_read_rows(m, 1, 0, HEARTH_ROLE_DOWN, 0, 64, all, &err), HEARTH_OK, "%s", err.text);
    for (uint32_t i = 0; i < 64; i++) {
        cr_assert_eq(hearth_model_read_rows(m, 1, 0, HEARTH_ROLE_DOWN, i, 1, one, &err), HEARTH_OK, "%s", err.text);
        cr_expect_arr_eq(one, all + (size_t)i * 160, sizeof one, "output %u", i);
    }
    cr_expect_neq(hearth_model_read_rows(m, 1, 0, HEARTH_ROLE_DOWN, 64, 1, one, &err), HEARTH_OK);
    hearth_model_close(&m);
}
