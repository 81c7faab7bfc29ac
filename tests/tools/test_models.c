/* SPDX-License-Identifier: MIT
 *
 * How sparse the models that ship are, counted by a second implementation of the forward pass (synth_sim.h) over a text
 * of our own, and that it computes what the engine does. The figures of models/README.md are of held-out text. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "tests/tools/command.h"
#include "tests/tools/synth_sim.h"

static const char text[] =
    "There was once a miller who had three sons and a donkey. When the winter came he said to the eldest, \"Go down to "
    "the river and see whether the ice will bear us.\" The young man went out, but he did not come back before night, "
    "and the mother began to cry. Then the youngest took his father's lantern and ran along the bank until he heard a "
    "voice under the bridge. \"Who is there?\" he called. \"Only a poor fish,\" said the voice, \"and I have swallowed "
    "a golden key.\" The boy laughed and would not believe it; but in the morning the key lay upon the table, and "
    "nobody "
    "could tell what door it opened.";

typedef struct shipped {
    char name[32];
    double mean, most; /* bounds of the density, of all layers and of any */
} shipped;

static shipped models[] = { { "hearth-story", 0.10, 0.20 }, { "hearth-story-moe", 0.10, 0.20 } };

ParameterizedTestParameters(models, sparse)
{
    return cr_make_param_array(shipped, models, sizeof models / sizeof *models);
}

ParameterizedTest(shipped *p, models, sparse)
{
    char path[600];
    sim s;
    hearth_model *m;
    hearth_session *session;
    hearth_token *ids;
    size_t n_ids;
    hearth_error err;
    hearth_model_params params = { .size = sizeof params, .threads = 1, .precision = HEARTH_PRECISION_F32 };
    hearth_session_params own = { .size = sizeof own, .n_ctx = 256, .kv_type = HEARTH_KV_F32 };
    double mean = 0, worst = 0;

    snprintf(path, sizeof path, "%s/%s.gguf", HEARTH_MODEL_DIR, p->name);
    cr_assert_eq(hearth_model_open(&m, path, &params, &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_tokenize(m, text, sizeof text - 1, true, false, &ids, &n_ids, &err), HEARTH_OK, "%s", err.text);
    cr_assert(n_ids > 100 && n_ids < 256);
    cr_assert_eq(hearth_session_open(&session, m, &own, &err), HEARTH_OK, "%s", err.text);
    cr_assert(sim_open(&s, path, 256));
    for (size_t i = 0; i < n_ids; i++) {
        const float *logits = sim_feed(&s, (uint32_t)ids[i], i > 0);

        cr_assert_eq(hearth_session_feed(session, ids + i, 1, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
        for (uint32_t k = 0; k < s.n_vocab; k++)
            worst = fmax(worst, fabs((double)logits[k] - hearth_session_logits(session)[k]));
    }
    cr_expect_lt(worst, 1e-2, "%s: the engine's logits are off by %g", p->name, worst);
    for (uint32_t l = 0; l < s.n_layer; l++) {
        sim_layer *y = &s.layers[l];
        double density = y->n_active / y->n_computed;

        cr_expect_lt(density, p->most, "%s: %.3f of layer %u", p->name, density, l);
        mean += density / s.n_layer;
        if (!s.n_expert)
            continue;
        uint32_t used = 0;
        for (uint32_t e = 0; e < s.n_expert; e++) {
            uint64_t fired = 0;
            for (uint32_t i = 0; i < s.ff; i++)
                fired += y->fired[0][e * s.ff + i] + y->fired[1][e * s.ff + i];
            used += fired > 0;
        }
        cr_log_info("%s: layer %u: density %.4f, %u experts at work, %.2f of the choices were the last token's",
                    p->name, l, density, used, y->n_same / y->n_pairs / s.n_used);
        cr_expect_geq(used, s.n_expert / 2, "%s: %u experts do layer %u's work", p->name, used, l);
        cr_expect_eq(y->n_computed, (double)n_ids * s.n_used * s.ff);
    }
    cr_log_info("%s: density %.4f, logits off by at most %g", p->name, mean, worst);
    cr_expect(mean > 0.005 && mean < p->mean, "%s: density %g", p->name, mean);
    sim_close(&s);
    hearth_session_close(&session);
    hearth_free(ids);
    hearth_model_close(&m);
}

/* Without MODEL the dense one is used, whose name comes before its siblings'. */
Test(models, default_model)
{
    outcome o = command_run("inspect", "--json");
    cJSON *j = outcome_json(&o);
    cr_assert(strstr(o.out, "hearth-story.gguf"), "%s", o.out);
    cJSON_Delete(j);
    outcome_free(&o);
}
