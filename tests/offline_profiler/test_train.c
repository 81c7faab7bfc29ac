/* SPDX-License-Identifier: MIT
 *
 * Predictors end to end on small models: what thresholds mean for logits, that results do not depend on how tokens are
 * computed, what training keeps to, and what is refused. */
#include "tests/offline_profiler/profiler_util.h"

static hearth_error err;

enum { N = 60 };

static void ids_of(hearth_token *ids)
{
    for (int i = 0; i < N; i++)
        ids[i] = (hearth_token)((uint32_t)i * 2654435761u >> 7) % 250;
}

/* A profile of a golden model, as statistics alone make it. */
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

/* Every layer by signs with one threshold for all neurons; or by small matrices. */
static void set_all(hearth_profile *p, const char *method, float threshold, uint32_t d)
{
    for (uint32_t i = 0; i < p->n_layer; i++) {
        hearth_profile_layer *l = &p->layers[i];
        size_t n = (size_t)l->n_ff * l->n_expert;
        float *t = ht_profile_alloc(p, n, sizeof *t);
        for (size_t k = 0; k < n; k++)
            t[k] = threshold;
        l->method = method;
        l->threshold = t;
        l->rank = strcmp(method, "lowrank") ? 0 : 32;
        l->inputs = d;
        l->low_a = ht_profile_alloc(p, 32 * (size_t)d, sizeof(float));
        l->low_b = ht_profile_alloc(p, 32 * (size_t)l->n_ff, sizeof(float));
        for (size_t k = 0; k < 32 * (size_t)d; k++)
            ((float *)(uintptr_t)l->low_a)[k] = (float)(k * 2654435761u % 1000) / 500.0f - 1.0f;
        for (size_t k = 0; k < 32 * (size_t)l->n_ff; k++)
            ((float *)(uintptr_t)l->low_b)[k] = (float)(k * 40503u % 1000) / 500.0f - 1.0f;
    }
}

static bool copy_row(void *user, size_t i, const float *row)
{
    float **to = user;
    (void)i;
    memcpy(*to, row, sizeof *row * 256);
    *to += 256;
    return true;
}

/* Logits (of the first 256 tokens of the vocabulary) after each position, fed `step` at a time. */
static float *compute(hearth_model *m, uint32_t step, hearth_stats *stats)
{
    hearth_session_params sp = { .size = sizeof sp, .n_ctx = N };
    hearth_token ids[N];
    hearth_session *s;
    float *all = calloc(N * 256, sizeof *all), *to = all;
    ids_of(ids);
    cr_assert_eq(hearth_session_open(&s, m, &sp, &err), HEARTH_OK, "%s", err.text);
    for (uint32_t i = 0; i < N; i += step)
        cr_assert_eq(hearth_session_feed(s, ids + i, N - i < step ? N - i : step, copy_row, &to, &err), HEARTH_OK, "%s",
                     err.text);
    stats->size = sizeof *stats;
    hearth_session_get_stats(s, stats);
    hearth_session_close(&s);
    return all;
}

static hearth_model *open_at(const char *name, const char *architecture, uint32_t threads, const char *isa)
{
    char path[512], override[100];
    const char *const overrides[] = { override };
    hearth_model *m;
    snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, name);
    snprintf(override, sizeof override, "%s.hidden_activation=relu", architecture);
    hearth_model_params p = {
        .size = sizeof p, .threads = threads, .isa = isa, .overrides = overrides, .n_overrides = 1
    };
    cr_assert_eq(hearth_model_open(&m, path, &p, &err), HEARTH_OK, "%s", err.text);
    return m;
}

static hearth_model *open_with_at(const char *name, const char *architecture, const hearth_profile *p, uint32_t threads,
                                  const char *isa)
{
    hearth_model *m = open_at(name, architecture, threads, isa);
    const char *path = util_path("with.gguf");
    if (p) {
        cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
        cr_assert_eq(hearth_model_predict(m, path, &err), HEARTH_OK, "%s", err.text);
        remove(path);
    }
    return m;
}

static hearth_model *open_with(const char *name, const char *architecture, const hearth_profile *p)
{
    return open_with_at(name, architecture, p, 2, NULL);
}

static const struct {
    const char *name, *architecture;
    bool mixture;
} models[] = {
    { "llama_relu", "llama", false },
    { "arcee", "arcee", false },
    { "smallthinker", "smallthinker", true },
};

/* Thresholds that nothing falls below: every neuron is computed, and the bits are those of `exact`. */
Test(train, minus_infinity_takes_every_neuron)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (int low = 0; low < (models[i].mixture ? 1 : 2); low++) {
            hearth_model *m = util_open_relu(models[i].name, models[i].architecture);
            hearth_model_info info = { .size = sizeof info };
            hearth_profile *p = statistics(m, 600);
            hearth_stats stats, none;
            hearth_model_get_info(m, &info);
            float *want = compute(m, 7, &none);
            set_all(p, low ? "lowrank" : "sign", -INFINITY, info.d_model);
            hearth_model *with = open_with(models[i].name, models[i].architecture, p);
            for (uint32_t step = 1; step <= N; step += 29) {
                float *got = compute(with, step, &stats);
                cr_assert_arr_eq(got, want, N * 256 * sizeof *got, "%s low %d step %u", models[i].name, low, step);
                free(got);
            }
            cr_assert(stats.mask_neurons > 0 && stats.mask_predicted == stats.mask_neurons &&
                      stats.mask_hit == stats.mask_active);
            cr_assert(none.mask_predicted == 0 && none.mask_hit == 0, "no predictor, no masks");
            free(want);
            hearth_model_close(&with);
            hearth_profile_close(&p);
            hearth_model_close(&m);
        }
}

/* Any threshold: the same bits one by one, in batches of any size, with any number of threads, at every level that runs
 * here; and others than exact.
 */
Test(train, results_do_not_depend_on_batches)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (int low = 0; low < (models[i].mixture ? 1 : 2); low++) {
            hearth_model *m = util_open_relu(models[i].name, models[i].architecture);
            hearth_model_info info = { .size = sizeof info };
            hearth_profile *p = statistics(m, 600);
            hearth_stats stats;
            hearth_model_get_info(m, &info);
            float *exact = compute(m, 7, &stats);
            set_all(p, low ? "lowrank" : "sign", 0.3f, info.d_model);
            hearth_model *with = open_with(models[i].name, models[i].architecture, p);
            float *want = compute(with, 1, &stats);
            cr_assert_neq(memcmp(want, exact, N * 256 * sizeof *want), 0, "%s: thresholds change nothing",
                          models[i].name);
            for (uint32_t step = 2; step <= N; step += step < 9 ? 1 : 17) {
                float *got = compute(with, step, &stats);
                cr_assert_arr_eq(got, want, N * 256 * sizeof *got, "%s low %d step %u", models[i].name, low, step);
                free(got);
            }
            cr_assert(stats.mask_predicted > 0 && stats.mask_predicted < stats.mask_neurons);
            cr_assert(stats.mask_hit > 0 && stats.mask_hit < stats.mask_active &&
                      stats.mask_hit <= stats.mask_predicted);
            hearth_model_close(&with);
            hearth_hardware hw = { .size = sizeof hw };
            cr_assert_eq(hearth_hardware_read(&hw, false, NULL, &err), HEARTH_OK);
            for (char *isa = strtok(hw.isa_all, " "); isa; isa = strtok(NULL, " "))
                for (uint32_t threads = 1; threads <= 3; threads += 2) {
                    with = open_with_at(models[i].name, models[i].architecture, p, threads, isa);
                    for (uint32_t step = 1; step <= N; step += 11) {
                        float *got = compute(with, step, &stats);
                        cr_assert_arr_eq(got, want, N * 256 * sizeof *got, "%s low %d step %u, %u threads, %s",
                                         models[i].name, low, step, threads, isa);
                        free(got);
                    }
                    hearth_model_close(&with);
                }
            free(want);
            free(exact);
            hearth_profile_close(&p);
            hearth_model_close(&m);
        }
}

static hearth_status train(hearth_profile *p, hearth_model *m, const char *name, const char *architecture,
                           double quality, size_t bytes)
{
    char path[512], override[100];
    const char *const overrides[] = { override };
    snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, name);
    snprintf(override, sizeof override, "%s.hidden_activation=relu", architecture);
    hearth_model_params model = { .size = sizeof model, .threads = 2, .overrides = overrides, .n_overrides = 1 };
    hearth_train_params params = { .size = sizeof params,
                                   .model = &model,
                                   .quality = quality,
                                   .sample_tokens = 400,
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

/* The profile that comes out keeps within the loss it was given when it is used, and all of it is told. */
Test(train, keeps_to_the_quality)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        hearth_model *m = util_open_relu(models[i].name, models[i].architecture);
        hearth_profile *p = statistics(m, 3000);
        cr_assert_eq(train(p, m, models[i].name, models[i].architecture, 0.02, 6000), HEARTH_OK, "%s: %s",
                     models[i].name, err.text);
        cr_assert_gt(p->n_points, 3);
        cr_assert_lt(p->chosen, p->n_points, "%s: no point was chosen", models[i].name);
        const hearth_profile_point *c = &p->points[p->chosen];
        cr_assert(c->kl_mean <= 0.02f && c->kl_p99 <= 0.5f && c->top1_agreement >= 0.94f, "%s: %g, %g, %g",
                  models[i].name, (double)c->kl_mean, (double)c->kl_p99, (double)c->top1_agreement);
        for (uint32_t k = 0; k < p->n_points; k++)
            cr_assert(isfinite(p->points[k].kl_mean) && p->points[k].weight_bytes_per_token > 0);
        for (uint32_t il = 0; il < p->n_layer; il++) {
            const hearth_profile_layer *l = &p->layers[il];
            cr_assert_not_null(l->method);
            cr_assert_eq(l->threshold != NULL, strcmp(l->method, "exact") != 0);
            if (l->threshold)
                cr_assert(l->recall > 0 && l->recall <= 1 && l->predicted_density <= 1 && l->precision <= 1);
        }
        hearth_model *with = open_with(models[i].name, models[i].architecture, p);
        hearth_model_close(&with);
        hearth_profile_close(&p);
        hearth_model_close(&m);
    }
}

Test(train, what_cannot_be_trained)
{
    hearth_model *m = util_open_relu("llama_relu", "llama");
    hearth_profile *p = statistics(m, 600);
    cr_assert_eq(train(p, m, "llama_relu", "llama", 0.01, 60), HEARTH_EINVAL, "a text of a few words");
    hearth_profile_close(&p);
    hearth_model_close(&m);
}

static hearth_status predict(hearth_model *m, const hearth_profile *p)
{
    const char *path = util_path("refused.gguf");
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
    hearth_status st = hearth_model_predict(m, path, &err);
    remove(path);
    return st;
}

Test(train, profiles_that_are_refused)
{
    hearth_model *m = util_open_relu("llama_relu", "llama"), *other = util_open_relu("arcee", "arcee");
    hearth_model_info info = { .size = sizeof info };
    hearth_profile *p = statistics(m, 600);
    hearth_session *s;

    hearth_model_get_info(m, &info);
    cr_assert_eq(predict(m, p), HEARTH_EINVAL, "statistics without predictors");
    set_all(p, "sign", 0, info.d_model);
    cr_assert_eq(predict(other, p), HEARTH_EMISMATCH);
    ((float *)(uintptr_t)p->layers[1].threshold)[3] = NAN;
    cr_assert_eq(predict(m, p), HEARTH_EFORMAT, "a threshold that is no number");
    p->layers[1].threshold = NULL;
    cr_assert_eq(predict(m, p), HEARTH_EFORMAT, "a layer without thresholds");
    set_all(p, "lowrank", 0, info.d_model);
    p->layers[0].low_b = NULL;
    cr_assert_eq(predict(m, p), HEARTH_EFORMAT, "a layer with half its matrices");
    set_all(p, "oracle", 0, info.d_model);
    cr_assert_eq(predict(m, p), HEARTH_EUNSUPPORTED, "a kind of predictor from the future");
    cr_assert_eq(hearth_model_predict(m, "/nonexistent/profile.gguf", &err), HEARTH_EIO);
    set_all(p, "sign", 0, info.d_model);
    cr_assert_eq(hearth_session_open(&s, m, NULL, &err), HEARTH_OK);
    cr_assert_eq(predict(m, p), HEARTH_EBUSY, "a session is open");
    hearth_session_close(&s);
    cr_assert_eq(predict(m, p), HEARTH_OK, "%s", err.text);
    cr_assert_eq(predict(m, p), HEARTH_EBUSY, "once");
    hearth_profile_close(&p);
    hearth_model_close(&m);
    hearth_model_close(&other);
}

/* An expert that the text hardly met is computed whenever it is chosen. */
Test(train, what_is_hardly_known_is_computed)
{
    hearth_model *m = util_open_relu("smallthinker", "smallthinker");
    hearth_profile *p = statistics(m, 400);
    cr_assert_eq(train(p, m, "smallthinker", "smallthinker", 10, 700), HEARTH_OK, "%s", err.text);
    uint64_t open = 0, cut = 0;
    for (uint32_t il = 0; il < p->n_layer; il++) {
        const hearth_profile_layer *l = &p->layers[il];
        for (uint32_t e = 0; l->threshold && e < l->n_expert; e++) {
            uint32_t always = 0;
            for (uint32_t i = 0; i < l->n_ff; i++)
                always += l->threshold[(size_t)e * l->n_ff + i] == -INFINITY;
            *(always == l->n_ff ? &open : &cut) += 1;
        }
    }
    cr_assert(open > 0, "every one of %llu experts was met often enough: the text is too long for this test",
              (unsigned long long)cut);
    hearth_profile_close(&p);
    hearth_model_close(&m);
}
