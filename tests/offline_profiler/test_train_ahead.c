/* SPDX-License-Identifier: MIT
 * Look-ahead: what training finds of it, that it is told and kept, of which models there is none. */
#include "tests/offline_profiler/profiler_util.h"

static hearth_error err;

static hearth_profile *statistics(hearth_model *m, const char *text)
{
    hearth_profiler_params params = { .size = sizeof params, .window = 64 };
    hearth_profiler *r;
    hearth_profile *p;
    cr_assert_eq(hearth_profiler_open(&r, m, &params, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profiler_run(r, text, 600, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profiler_profile(r, &p, &err), HEARTH_OK, "%s", err.text);
    hearth_profiler_close(&r);
    return p;
}

static bool never(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
    return strcmp(what, "looking ahead") != 0;
}

Test(train_ahead, is_found_and_kept)
{
    hearth_model *m = util_open_relu("llama_relu", "llama"), *other = util_open_relu("arcee", "arcee");
    hearth_profile *p, *again, *of_other;
    char *text = util_text(6000);
    const char *path = util_path("ahead.gguf"), *page = util_path("ahead.html");
    size_t n;

    p = statistics(m, text);
    cr_expect_eq(hearth_profile_look_ahead(p, m, text, strlen(text), never, NULL, &err), HEARTH_ECANCELLED);
    cr_assert_eq(hearth_profile_look_ahead(p, m, text, strlen(text), NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    cr_expect_lt(p->layers[0].ahead_recall, 0.0f, "nothing comes before the first layer");
    for (uint32_t il = 1; il < p->n_layer; il++) {
        const hearth_profile_layer *l = &p->layers[il];
        cr_assert(l->ahead_rank && l->ahead_a && l->ahead_b && l->ahead_threshold && l->inputs, "layer %u", il);
        /* nine tenths were asked for, on other samples; chance would find as many as it names */
        cr_expect(l->ahead_recall > 0.75f && l->ahead_recall <= 1, "%g", (double)l->ahead_recall);
        cr_expect(l->ahead_precision > 0 && l->ahead_precision <= 1 && l->ahead_density > 0 && l->ahead_density <= 1);
        cr_expect_geq(l->ahead_recall, 0.999f * l->ahead_density, "no better than chance");
    }
    cr_assert_eq(hearth_profile_write(p, path, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_profile_read(&again, path, p->model, &err), HEARTH_OK, "%s", err.text);
    for (uint32_t il = 0; il < p->n_layer; il++) {
        cr_expect_eq(again->layers[il].ahead_recall, p->layers[il].ahead_recall);
        cr_expect_eq(again->layers[il].ahead_precision, p->layers[il].ahead_precision);
        cr_expect_eq(again->layers[il].ahead_density, p->layers[il].ahead_density);
    }
    cr_expect_eq(hearth_model_predict(m, path, &err), HEARTH_EINVAL, "it is no predictor");
    cr_assert_eq(hearth_profile_report(again, page, &err), HEARTH_OK, "%s", err.text);
    char *html = util_read(page, &n);
    cr_expect_not_null(strstr(html, "Looking ahead"));
    free(html);
    of_other = statistics(other, text);
    cr_expect_eq(hearth_profile_look_ahead(of_other, m, text, strlen(text), NULL, NULL, &err), HEARTH_EMISMATCH);
    remove(path);
    remove(page);
    hearth_profile_close(&p);
    hearth_profile_close(&again);
    hearth_profile_close(&of_other);
    hearth_model_close(&m);
    hearth_model_close(&other);
    free(text);
}

/* Mixtures foretell their experts, not single neurons; an activation without zeros has nothing to foretell. */
Test(train_ahead, where_there_is_none)
{
    static const char *const names[] = { "smallthinker", "llama" };
    char *text = util_text(6000);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        hearth_model *m;
        hearth_model_params params = { .size = sizeof params, .threads = 1 };
        snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, names[i]);
        cr_assert_eq(hearth_model_open(&m, path, &params, &err), HEARTH_OK, "%s", err.text);
        hearth_profile *p = statistics(m, text);
        cr_expect_eq(hearth_profile_look_ahead(p, m, text, strlen(text), NULL, NULL, &err), HEARTH_OK);
        for (uint32_t il = 0; il < p->n_layer; il++)
            cr_expect(p->layers[il].ahead_rank == 0 && p->layers[il].ahead_recall < 0);
        hearth_profile_close(&p);
        hearth_model_close(&m);
    }
    hearth_model *m = util_open_relu("llama_relu", "llama");
    hearth_profile *p = statistics(m, text);
    cr_expect_eq(hearth_profile_look_ahead(p, m, text, 20, NULL, NULL, &err), HEARTH_OK, "a text too short");
    cr_expect_eq(p->layers[1].ahead_rank, 0u);
    hearth_profile_close(&p);
    hearth_model_close(&m);
    free(text);
}
