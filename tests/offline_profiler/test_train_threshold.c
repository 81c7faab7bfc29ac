/* SPDX-License-Identifier: MIT
 *
 * Thresholds of gates and hidden units end to end, on small models without zeros: what they leave out, that results do
 * not depend on how tokens are computed, that densities are met and losses kept, and what is refused. */
#include "tests/offline_profiler/profiler_util.h"

static hearth_error err;

enum { N = 48, LOGITS = 256 };

static const struct {
    const char *name, *architecture, *activation;
    bool gated;
} models[] = {
    { "llama", "llama", "silu", true },      /* dense */
    { "mixtral", "llama", "silu", true },    /* a mixture */
    { "arcee", "arcee", "gelu", false },     /* no gate */
    { "llama_relu", "llama", "relu", true }, /* with zeros: FATReLU's thresholds */
};
enum { MODELS = sizeof models / sizeof *models };

static hearth_model *open_at(size_t which, uint32_t threads, const char *isa, hearth_sparsity sparsity,
                             const hearth_profile *p)
{
    char path[512], override[100];
    const char *const overrides[] = { override };
    hearth_model *m;
    snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, models[which].name);
    snprintf(override, sizeof override, "%s.hidden_activation=%s", models[which].architecture,
             models[which].activation);
    hearth_model_params how = { .size = sizeof how,
                                .threads = threads,
                                .isa = isa,
                                .sparsity = sparsity,
                                .overrides = overrides,
                                .n_overrides = 1 };
    cr_assert_eq(hearth_model_open(&m, path, &how, &err), HEARTH_OK, "%s", err.text);
    if (p) {
        const char *with = util_path("with.gguf");
        cr_assert_eq(hearth_profile_write(p, with, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_model_predict(m, with, &err), HEARTH_OK, "%s", err.text);
        remove(with);
    }
    return m;
}

static hearth_profile *statistics(hearth_model *m, size_t bytes)
{
    hearth_profiler_params params = { .size = sizeof params, .window = 64 };
    hearth_profiler *r;
    hearth_profile *p;
    char *text = util_text(bytes);
    cr_assert_eq(hearth_profiler_open(&r, m, &params, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profiler_run(r, text, strlen(text), &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profiler_profile(r, &p, &err), HEARTH_OK, "%s", err.text);
    hearth_profiler_close(&r);
    free(text);
    return p;
}

/* The same two thresholds everywhere. */
static void set_all(hearth_profile *p, float gate, float hidden)
{
    for (uint32_t i = 0; i < p->n_layer; i++) {
        hearth_profile_layer *l = &p->layers[i];
        float *g = ht_profile_alloc(p, l->n_expert, sizeof *g), *h = ht_profile_alloc(p, l->n_expert, sizeof *h);
        for (uint32_t e = 0; e < l->n_expert; e++) {
            g[e] = gate;
            h[e] = hidden;
        }
        l->method = "threshold";
        l->gate_threshold = g;
        l->hidden_threshold = h;
    }
}

static bool copy_row(void *user, size_t i, const float *row)
{
    float **to = user;
    (void)i;
    memcpy(*to, row, LOGITS * sizeof *row);
    *to += LOGITS;
    return true;
}

typedef struct heard {
    float *hidden; /* of layer 0, [N][slots][n_ff] */
    size_t n;
} heard;

static bool listen(void *user, const hearth_trace *t)
{
    heard *h = user;
    for (uint32_t i = 0; t->layer == 0 && t->expert != HEARTH_TRACE_SHARED && i < t->n_tokens; i++) {
        h->hidden = realloc(h->hidden, (h->n + t->n_ff) * sizeof *h->hidden);
        memcpy(h->hidden + h->n, t->hidden + i * t->hidden_stride, t->n_ff * sizeof *h->hidden);
        h->n += t->n_ff;
    }
    return true;
}

/* Logits after each position, fed `step` at a time. */
static float *compute(hearth_model *m, uint32_t step, heard *h, hearth_stats *stats)
{
    hearth_session_params sp = { .size = sizeof sp, .n_ctx = N };
    hearth_token ids[N];
    hearth_session *s;
    float *all = calloc(N * LOGITS, sizeof *all), *to = all;
    for (uint32_t i = 0; i < N; i++)
        ids[i] = (hearth_token)(i * 2654435761u >> 7) % 250;
    cr_assert_eq(hearth_session_open(&s, m, &sp, &err), HEARTH_OK, "%s", err.text);
    if (h)
        hearth_session_trace(s, listen, h);
    for (uint32_t i = 0; i < N; i += step)
        cr_assert_eq(hearth_session_feed(s, ids + i, N - i < step ? N - i : step, copy_row, &to, &err), HEARTH_OK, "%s",
                     err.text);
    if (stats) {
        stats->size = sizeof *stats;
        hearth_session_get_stats(s, stats);
    }
    hearth_session_close(&s);
    return all;
}

static void must_equal(const float *got, const float *want, const char *what, size_t which, uint32_t step)
{
    cr_assert_arr_eq(got, want, N * LOGITS * sizeof *got, "%s: %s, step %u", models[which].name, what, step);
}

/* In the first layer, whose inputs are the same: hidden units are those of the dense model or 0; which are 0 follows
 * from their size alone. */
Test(train_threshold, what_is_small_is_zero)
{
    for (size_t i = 0; i < MODELS; i++) {
        hearth_model *dense = open_at(i, 2, NULL, HEARTH_SPARSITY_OFF, NULL);
        hearth_profile *p = statistics(dense, 400);
        heard all = { 0 }, cut = { 0 };
        free(compute(dense, 16, &all, NULL));
        double mean = 0;
        for (size_t k = 0; k < all.n; k++)
            mean += fabs((double)all.hidden[k]) / (double)all.n;
        set_all(p, 0, (float)mean);
        hearth_model *with = open_at(i, 2, NULL, HEARTH_SPARSITY_AUTO, p);
        free(compute(with, 16, &cut, NULL));
        cr_assert_eq(all.n, cut.n);
        for (size_t k = 0; k < all.n; k++) {
            const float want = fabsf(all.hidden[k]) < (float)mean ? 0 : all.hidden[k];
            cr_assert(cut.hidden[k] == want, "%s: %g, not %g", models[i].name, (double)cut.hidden[k], (double)want);
        }
        hearth_model_close(&with);
        set_all(p, (float)mean, 0);
        with = open_at(i, 2, NULL, HEARTH_SPARSITY_AUTO, p);
        size_t zeros = 0, before = 0;
        cut.n = 0;
        free(compute(with, 16, &cut, NULL));
        for (size_t k = 0; k < all.n; k++) {
            cr_assert(cut.hidden[k] == 0 || cut.hidden[k] == all.hidden[k]);
            zeros += cut.hidden[k] == 0;
            before += all.hidden[k] == 0;
        }
        cr_assert(models[i].gated ? zeros > before && zeros < all.n : zeros == before, "%s: %zu of %zu", models[i].name,
                  zeros, all.n);
        free(all.hidden);
        free(cut.hidden);
        hearth_model_close(&with);
        hearth_profile_close(&p);
        hearth_model_close(&dense);
    }
}

/* The same bits one by one, in batches of any size, with any number of threads, at every level that runs here, with
 * down projections held neuron-major from the start (EXACT) or not; and other bits than dense, but for thresholds of 0.
 */
Test(train_threshold, results_do_not_depend_on_batches)
{
    hearth_hardware hw = { .size = sizeof hw };
    cr_assert_eq(hearth_hardware_read(&hw, false, NULL, &err), HEARTH_OK);
    for (size_t i = 0; i < MODELS; i++) {
        hearth_model *dense = open_at(i, 2, NULL, HEARTH_SPARSITY_OFF, NULL);
        hearth_profile *p = statistics(dense, 400);
        heard all = { 0 };
        hearth_stats stats;
        float *off = compute(dense, 7, &all, NULL);
        double mean = 0;
        for (size_t k = 0; k < all.n; k++)
            mean += fabs((double)all.hidden[k]) / (double)all.n;
        free(all.hidden);
        set_all(p, 0, 0);
        hearth_model *with = open_at(i, 2, NULL, HEARTH_SPARSITY_EXACT, p);
        for (uint32_t step = 1; step < N; step += 20) {
            float *got = compute(with, step, NULL, NULL);
            must_equal(got, off, "thresholds of 0", i, step);
            free(got);
        }
        hearth_model_close(&with);
        set_all(p, (float)mean / 2, (float)mean / 3);
        with = open_at(i, 1, NULL, HEARTH_SPARSITY_EXACT, p);
        float *want = compute(with, 1, NULL, &stats);
        cr_assert(stats.neurons_active > 0 && stats.neurons_active < stats.neurons_total);
        cr_assert_neq(memcmp(want, off, N * LOGITS * sizeof *want), 0, "%s: thresholds change nothing", models[i].name);
        hearth_model_close(&with);
        for (char *isa = strtok(hw.isa_all, " "); isa; isa = strtok(NULL, " "))
            for (uint32_t threads = 1; threads <= 3; threads += 2) {
                with = open_at(i, threads, isa, threads == 1 ? HEARTH_SPARSITY_AUTO : HEARTH_SPARSITY_EXACT, p);
                for (uint32_t step = 1; step <= N; step += step < 5 ? 1 : 14) {
                    float *got = compute(with, step, NULL, &stats);
                    must_equal(got, want, isa, i, step);
                    if (step > 1)
                        cr_assert(stats.mask_hit > 0 && stats.mask_hit < stats.mask_active &&
                                  stats.mask_hit <= stats.mask_predicted &&
                                  (stats.mask_predicted < stats.mask_neurons) == models[i].gated);
                    free(got);
                }
                hearth_model_close(&with);
            }
        cr_assert_eq(hearth_hardware_read(&hw, false, NULL, &err), HEARTH_OK); /* strtok cut the list */
        free(want);
        free(off);
        hearth_profile_close(&p);
        hearth_model_close(&dense);
    }
}

static hearth_status train(hearth_profile *p, hearth_model *m, size_t which, double quality, double density,
                           size_t bytes)
{
    char path[512], override[100];
    const char *const overrides[] = { override };
    snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, models[which].name);
    snprintf(override, sizeof override, "%s.hidden_activation=%s", models[which].architecture,
             models[which].activation);
    hearth_model_params model = { .size = sizeof model, .threads = 2, .overrides = overrides, .n_overrides = 1 };
    hearth_train_params params = { .size = sizeof params,
                                   .model = &model,
                                   .quality = quality,
                                   .density = density,
                                   .sample_tokens = 300,
                                   .check_tokens = 200,
                                   .scratch = util_path("trial.gguf") };
    char *text = util_text(bytes);
    size_t n = strlen(text), held_out = n / 3;
    hearth_status st =
        hearth_profile_train(p, m, path, &params, text, n - held_out, text + n - held_out, held_out, &err);
    cr_assert_neq(access(params.scratch, F_OK), 0, "a trial's profile was left behind");
    free(text);
    return st;
}

/* A density that is asked for is met on text that the thresholds were not made from; the curve tells what others cost,
 * and the file keeps all of it. */
Test(train_threshold, meets_the_density)
{
    for (size_t i = 0; i < 3; i++) {
        hearth_model *m = open_at(i, 2, NULL, HEARTH_SPARSITY_OFF, NULL);
        hearth_profile *p = statistics(m, 3000), *back;
        cr_assert_eq(train(p, m, i, 0, 0.5, 5000), HEARTH_OK, "%s: %s", models[i].name, err.text);
        cr_assert(p->n_points > 5 && p->chosen < p->n_points);
        cr_assert_float_eq(p->points[p->chosen].density, 0.5f, 1e-6f);
        for (uint32_t k = 1; k < p->n_points; k++)
            cr_assert(p->points[k].weight_bytes_per_token >= p->points[k - 1].weight_bytes_per_token);
        cr_assert(p->points[0].kl_mean > p->points[p->n_points - 1].kl_mean, "less is worse");
        hearth_stats stats;
        hearth_model *with = open_at(i, 2, NULL, HEARTH_SPARSITY_AUTO, p);
        free(compute(with, 16, NULL, &stats));
        const double density = (double)stats.mask_hit / (double)stats.mask_neurons;
        cr_assert_float_eq(density, 0.5, 0.1, "%s: density %g", models[i].name, density);
        const char *path = util_path("kept.gguf");
        cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_profile_read(&back, path, p->model, &err), HEARTH_OK, "%s", err.text);
        remove(path);
        cr_assert(back->n_points == p->n_points && back->chosen == p->chosen);
        cr_assert_arr_eq(back->points, p->points, p->n_points * sizeof *p->points);
        for (uint32_t il = 0; il < p->n_layer; il++) {
            const hearth_profile_layer *a = &p->layers[il], *b = &back->layers[il];
            cr_assert_str_eq(a->method, b->method);
            if (a->gate_threshold) {
                cr_assert_arr_eq(a->gate_threshold, b->gate_threshold, a->n_expert * sizeof(float));
                cr_assert_arr_eq(a->hidden_threshold, b->hidden_threshold, a->n_expert * sizeof(float));
            }
        }
        hearth_profile_close(&back);
        hearth_model_close(&with);
        hearth_profile_close(&p);
        hearth_model_close(&m);
    }
}

/* Without a density: the loss that was allowed is kept. */
Test(train_threshold, keeps_to_the_quality)
{
    hearth_model *m = open_at(0, 2, NULL, HEARTH_SPARSITY_OFF, NULL);
    hearth_profile *p = statistics(m, 3000);
    cr_assert_eq(train(p, m, 0, 0.02, 0, 5000), HEARTH_OK, "%s", err.text);
    cr_assert_lt(p->chosen, p->n_points);
    const hearth_profile_point *c = &p->points[p->chosen];
    cr_assert(c->kl_mean <= 0.02f && c->kl_p99 <= 0.5f && c->top1_agreement >= 0.94f);
    hearth_profile_close(&p);
    hearth_model_close(&m);
}

Test(train_threshold, what_is_refused)
{
    hearth_model *m = open_at(0, 2, NULL, HEARTH_SPARSITY_OFF, NULL),
                 *auto_ = open_at(0, 2, NULL, HEARTH_SPARSITY_AUTO, NULL);
    hearth_profile *p = statistics(m, 600);
    const char *path = util_path("refused.gguf");

    cr_assert_eq(train(p, m, 0, 0, 0.01, 3000), HEARTH_EINVAL, "a density below what the grid has");
    cr_assert_eq(train(p, m, 0, 0, 0.5, 60), HEARTH_EINVAL, "a text of a few words");
    set_all(p, 0.1f, 0.1f);
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_model_predict(m, path, &err), HEARTH_EINVAL, "sparsity off");
    static const float bad[] = { -1, NAN, INFINITY };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int which = 0; which < 2; which++) {
            set_all(p, which ? 0.1f : bad[i], which ? bad[i] : 0.1f);
            cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
            cr_assert_eq(hearth_model_predict(auto_, path, &err), HEARTH_EFORMAT, "a threshold of %g", (double)bad[i]);
        }
    set_all(p, 0.1f, 0.1f);
    p->layers[1].hidden_threshold = NULL;
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_model_predict(auto_, path, &err), HEARTH_EFORMAT, "half of the thresholds");
    set_all(p, 0.1f, 0.1f);
    p->layers[0].method = "sign";
    p->layers[0].threshold = ht_profile_alloc(p, (size_t)p->layers[0].n_ff * p->layers[0].n_expert, sizeof(float));
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_model_predict(auto_, path, &err), HEARTH_EINVAL, "zeros foretold of SiLU");
    set_all(p, 0.1f, 0.1f);
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_model_predict(auto_, path, &err), HEARTH_OK, "%s", err.text);
    remove(path);
    hearth_profile_close(&p);
    hearth_model_close(&auto_);
    hearth_model_close(&m);
}
