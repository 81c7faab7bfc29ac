/* SPDX-License-Identifier: MIT
 *
 * Hints of a profile: heat of experts, the operations that look ahead against plain arithmetic, what is not known, what is
 * refused. That training finds them: tests/offline_profiler/test_train_ahead.c. */
#include <math.h>

#include "cpu/cpu.h"
#include "engine/disk_impl.h"
#include "engine/hints.h"
#include "engine/objects.h"
#include "offline_profiler/profile.h"
#include "tests/engine/engine_util.h"

enum { RANK = 32 };
static hearth_error error;

static float number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) * 0x1p-23f - 1.0f;
}

static float *numbers(hearth_profile *p, size_t n, uint32_t seed, bool shares)
{
    float *v = ht_profile_alloc(p, n, sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = shares ? fabsf(number(&seed)) : number(&seed);
    return v;
}

/* A profile of the model with everything that hints are made of. */
static hearth_profile *made_up(const ht_model *m, const char *fingerprint)
{
    hearth_profile *p = ht_profile_new(m->n_layer);
    memcpy(p->model, fingerprint, sizeof p->model);
    p->tokens = 10;
    p->window = 8;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_ffn *ff = &m->layers[il].ffn;
        hearth_profile_layer *l = &p->layers[il];
        l->n_ff = ff->n_ff;
        l->n_expert = ff->n_expert;
        l->n_used = ff->n_used;
        l->frequency = numbers(p, (size_t)ff->n_ff * ff->n_expert, il, true);
        l->magnitude = numbers(p, (size_t)ff->n_ff * ff->n_expert, il + 9, true);
        if (ff->n_expert > 1)
            l->expert_frequency = numbers(p, ff->n_expert, il + 20, true);
        if (ff->n_expert > 1 || il == 0)
            continue;
        l->inputs = m->d_model;
        l->ahead_rank = RANK;
        l->ahead_a = numbers(p, (size_t)RANK * m->d_model, il + 30, false);
        l->ahead_b = numbers(p, (size_t)RANK * ff->n_ff, il + 40, false);
        l->ahead_threshold = numbers(p, ff->n_ff, il + 50, false);
        ((float *)(uintptr_t)l->ahead_threshold)[1] = -INFINITY;
        ((float *)(uintptr_t)l->ahead_threshold)[2] = INFINITY;
    }
    return p;
}

static struct {
    hearth_model *whole;
    ht_gguf *g;
    ht_model m;
    char fingerprint[33], path[300];
    hearth_profile *p;
} on;

static void begin(const char *name)
{
    char path[512], file[64];
    ht_error err;
    snprintf(file, sizeof file, "%s.gguf", name);
    util_golden(path, file);
    const hearth_model_params params = { .size = sizeof params, .threads = 1 };
    cr_assert_eq(hearth_model_open(&on.whole, path, &params, &error), HEARTH_OK, "%s", error.text);
    cr_assert_eq(hearth_model_fingerprint(on.whole, on.fingerprint, &error), HEARTH_OK);
    cr_assert_eq(ht_gguf_open(&on.g, path, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_model_load(&on.m, on.g, &err), HT_OK, "%s", err.text);
    snprintf(on.path, sizeof on.path, "%s/hearth-hints-%d.gguf", P_tmpdir, (int)getpid());
    on.p = made_up(&on.m, on.fingerprint);
}

static void end(void)
{
    remove(on.path);
    hearth_profile_close(&on.p);
    ht_model_free(&on.m);
    ht_gguf_close(&on.g);
    hearth_model_close(&on.whole);
}

static ht_status open_hints(ht_hints **h)
{
    ht_error err;
    cr_assert_eq(hearth_profile_write(on.p, on.path, &error), HEARTH_OK, "%s", error.text);
    return ht_hints_open(h, on.path, &on.m, on.fingerprint, &err);
}

Test(hints, heat_of_experts)
{
    ht_hints *h;
    begin("smallthinker");
    const uint32_t n = on.m.layers[1].ffn.n_expert;
    cr_assert_gt(n, 1);
    cr_assert_eq(open_hints(&h), HT_OK);
    float *heat = malloc((size_t)on.m.n_layer * (n + 3) * sizeof *heat);
    cr_expect(ht_hints_heat(h, n + 3, heat));
    for (uint32_t il = 0; il < on.m.n_layer; il++)
        for (uint32_t e = 0; e < n + 3; e++)
            cr_expect_eq(heat[il * (n + 3) + e], e < n ? on.p->layers[il].expert_frequency[e] : 0.0f);
    cr_expect_eq(ht_hints_ahead(h, 1, NULL, NULL, NULL), 0u, "a mixture");
    ht_hints_close(&h);
    ((float *)(uintptr_t)on.p->layers[1].expert_frequency)[0] = 1.5f;
    cr_expect_eq(open_hints(&h), HT_EFORMAT, "no share");
    free(heat);
    end();
}

Test(hints, first_heat_of_a_streamed_model)
{
    char path[512];
    hearth_model *m;
    begin("smallthinker");
    const uint32_t n = on.m.layers[1].ffn.n_expert;
    cr_assert_eq(hearth_profile_write(on.p, on.path, &error), HEARTH_OK, "%s", error.text);
    cr_assert_eq(hearth_model_hints(on.whole, on.path, &error), HEARTH_OK, "nothing to do: all of it is in memory");
    const hearth_model_params params = { .size = sizeof params, .threads = 1, .io = HEARTH_IO_DIRECT };
    cr_assert_eq(hearth_model_open(&m, util_golden(path, "smallthinker.gguf"), &params, &error), HEARTH_OK, "%s", error.text);
    float *heat = calloc((size_t)on.m.n_layer * m->m.max_expert, sizeof *heat);
    cr_assert_eq(hearth_model_hints(m, on.path, &error), HEARTH_OK, "%s", error.text);
    ht_cache_get_heat(m->store.disk->cache, heat);
    for (uint32_t a = 0; a < n; a++)
        for (uint32_t b = 0; b < n; b++)
            if (on.p->layers[1].expert_frequency[a] > on.p->layers[1].expert_frequency[b])
                cr_expect_gt(heat[m->m.max_expert + a], heat[m->m.max_expert + b], "%u, %u", a, b);
    hearth_model_close(&m);
    cr_assert_eq(hearth_model_open(&m, HEARTH_MODEL_DIR "/hearth-story-moe.gguf", &params, &error), HEARTH_OK, "%s", error.text);
    cr_expect_eq(hearth_model_hints(m, on.path, &error), HEARTH_EMISMATCH, "of another model");
    cr_expect_eq(hearth_model_hints(m, "/nowhere/profile.gguf", &error), HEARTH_EIO);
    hearth_model_close(&m);
    free(heat);
    end();
}

/* Scores in double from what the file holds, against the masks of the operations: equal but where a score is at its cut. */
Test(hints, looking_ahead)
{
    ht_hints *h;
    ht_exec *exec;
    ht_error err;
    float heat[64];
    begin("llama_relu");
    const uint32_t d = on.m.d_model, n_ff = on.m.layers[1].ffn.n_ff;
    cr_assert_eq(open_hints(&h), HT_OK);
    cr_expect_not(ht_hints_heat(h, 1, heat), "no mixture");
    cr_assert(h->max_rank == RANK && h->max_n_ff == n_ff);
    const ht_cpu_params cpu = { .threads = 2, .isa = ht_isa_best(), .max_k = on.m.max_k, .max_head = on.m.max_head };
    cr_assert_eq(ht_cpu_open(&exec, &cpu, &err), HT_OK, "%s", err.text);

    float *x = malloc(d * sizeof *x), *score = malloc(n_ff * sizeof *score), *row = malloc(d * sizeof *row), low[RANK];
    uint32_t *mask = malloc((n_ff + 31) / 32 * sizeof *mask), state = 3, wrong = 0, set = 0;
    double *z = malloc(RANK * sizeof *z);
    for (uint32_t i = 0; i < d; i++)
        x[i] = number(&state);
    const ht_act in = { .f = x, .stride = d };
    const ht_hints_work w = { .low = { .f = low }, .scores = score, .mask = mask };
    ht_op ops[HT_HINTS_OPS];
    ht_event done;
    cr_expect_eq(ht_hints_ahead(h, 0, &in, &w, ops), 0u, "nothing comes before the first layer");
    cr_expect_eq(ht_hints_ahead(h, on.m.n_layer, &in, &w, ops), 0u);
    const uint32_t n = ht_hints_ahead(h, 1, &in, &w, ops);
    cr_assert(n >= 3 && n <= HT_HINTS_OPS);
    cr_assert_eq(exec->ops->submit(exec, ops, n, &done), HT_OK);
    cr_assert_eq(exec->ops->wait(exec, done, NULL), HT_OK);
    const ht_hints_layer *l = &h->layers[1];
    for (uint32_t r = 0; r < RANK; r++) {
        ht_type_dequant((ht_type)l->ahead_a.type, ht_part_row(&l->ahead_a, r), d, row);
        z[r] = 0;
        for (uint32_t i = 0; i < d; i++)
            z[r] += (double)row[i] * x[i];
    }
    for (uint32_t j = 0; j < n_ff; j++) {
        double s = 0;
        ht_type_dequant((ht_type)l->ahead_b.type, ht_part_row(&l->ahead_b, j), RANK, row);
        for (uint32_t r = 0; r < RANK; r++)
            s += (double)row[r] * z[r];
        const bool bit = mask[j / 32] >> j % 32 & 1;
        set += bit;
        if (fabs(s - (double)l->ahead_threshold[j]) > 1e-3)
            wrong += bit != (s >= (double)l->ahead_threshold[j]);
        cr_expect(!bit || ht_hints_group(mask, j / 32));
    }
    cr_expect_eq(wrong, 0u);
    cr_expect(set > n_ff / 8 && set < n_ff, "%u of %u", set, n_ff);
    cr_expect((mask[0] >> 1 & 1) && !(mask[0] >> 2 & 1), "always, never");
    exec->ops->close(exec);
    free(x), free(score), free(row), free(mask), free(z);
    ht_hints_close(&h);
    end();
}

Test(hints, what_is_refused)
{
    ht_hints *h;
    ht_error err;
    begin("llama_relu");
    const float *a = on.p->layers[1].ahead_a, *t = on.p->layers[1].ahead_threshold;
    cr_expect_eq(ht_hints_open(&h, "/nonexistent/profile.gguf", &on.m, on.fingerprint, &err), HT_EIO);
    cr_expect_null(h);
    cr_assert_eq(open_hints(&h), HT_OK);
    ht_hints_close(&h);
    on.fingerprint[3] ^= 1;
    cr_expect_eq(ht_hints_open(&h, on.path, &on.m, on.fingerprint, &err), HT_EMISMATCH);
    on.fingerprint[3] ^= 1;
    ((float *)(uintptr_t)t)[5] = NAN;
    cr_expect_eq(open_hints(&h), HT_EFORMAT, "a threshold that is no number");
    ((float *)(uintptr_t)t)[5] = 0;
    on.p->layers[1].inputs = on.m.d_model - 32;
    cr_expect_eq(open_hints(&h), HT_EFORMAT, "matrices of another width");
    on.p->layers[1].inputs = on.m.d_model;
    on.p->layers[0].inputs = on.m.d_model;
    on.p->layers[0].ahead_rank = RANK;
    on.p->layers[0].ahead_a = a;
    on.p->layers[0].ahead_b = on.p->layers[1].ahead_b;
    on.p->layers[0].ahead_threshold = t;
    cr_expect_eq(open_hints(&h), HT_EFORMAT, "nothing comes before the first layer");
    for (uint32_t il = 0; il < on.p->n_layer; il++) /* what is not there is not known */
        on.p->layers[il].ahead_rank = 0;
    cr_assert_eq(open_hints(&h), HT_OK);
    cr_expect_null(h->layers[1].ahead_a.host);
    cr_expect_not_null(h->layers[1].frequency);
    ht_hints_close(&h);
    ht_hints_close(&h);
    end();
}
