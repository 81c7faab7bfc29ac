/* SPDX-License-Identifier: MIT
 * How well a layer's experts can be foreseen from recorded routing alone, while the layer before is computed. Every
 * foresight learns as the record goes on, so that a figure never knows the future. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/routes.h"

enum { MEMORY = 256 }; /* tokens that SIMILAR looks back on */
static const float OLD = 0.9f; /* of recency, per token */
static const float NEAR = 16.0f, SHARP = 24.0f; /* SIMILAR: layers that count, and how much likeness is worth */

const char *hearth_foresight_name(hearth_foresight f)
{
    static const char *const names[] = { "previous", "frequency", "path", "similar" };
    return (unsigned)f < sizeof names / sizeof *names ? names[f] : NULL;
}

typedef struct foresee {
    const hearth_routes *r;
    ht_uses uses;
    uint32_t n_expert;
    float *count, *recent;  /* [n_layer][n_expert] */
    float *pairs;           /* [n_layer][n_expert before][n_expert]; PATH */
    float *alike;           /* [n_generated]; SIMILAR: likeness of each token so far */
    float *score;           /* [n_expert] */
    size_t *layer_of;       /* [n_generated][n_layer] use + 1 of a token's layer, 0: none */
} foresee;

static const ht_use *use_of(const foresee *f, uint32_t token, uint32_t il)
{
    const size_t at = f->layer_of[(size_t)token * f->r->n_layer + il];
    return at ? &f->uses.use[at - 1] : NULL;
}

static void add(foresee *f, const ht_use *u, float weight)
{
    for (uint32_t i = 0; u && i < u->n; i++)
        f->score[f->uses.experts[u->first + i]] += weight;
}

/* Fills score for layer il of a token whose layers before il are known. */
static void foretell(foresee *f, hearth_foresight kind, uint32_t token, uint32_t il)
{
    const uint32_t n = f->n_expert;
    const float *recent = f->recent + (size_t)il * n, *count = f->count + (size_t)il * n;
    const ht_use *before = il ? use_of(f, token, il - 1) : NULL;
    float best = 0.0f;

    for (uint32_t e = 0; e < n; e++)
        f->score[e] = kind == HEARTH_FORESEE_FREQUENCY ? count[e] : 0.01f * recent[e];
    switch (kind) {
    case HEARTH_FORESEE_FREQUENCY: break;
    case HEARTH_FORESEE_PREVIOUS:
        if (token)
            add(f, use_of(f, token - 1, il), 1.0f);
        break;
    case HEARTH_FORESEE_PATH:
        for (uint32_t i = 0; before && i < before->n; i++) {
            const uint32_t a = f->uses.experts[before->first + i];
            const float *pair = f->pairs + ((size_t)il * n + a) * n;
            const float seen = f->count[(size_t)(il - 1) * n + a] + 2.0f;
            for (uint32_t e = 0; e < n; e++)
                f->score[e] += pair[e] / seen;
        }
        break;
    case HEARTH_FORESEE_SIMILAR: {
        const uint32_t from = token > MEMORY ? token - MEMORY : 0;
        const float layers = (float)il < NEAR ? (float)(il + 1) : NEAR;
        for (uint32_t t = from; t < token; t++)
            best = fmaxf(best, f->alike[t]);
        for (uint32_t t = from; t < token; t++)
            add(f, use_of(f, t, il), expf(SHARP * (f->alike[t] - best) / layers));
        break;
    }
    }
}

/* Token `token` took these in layer il: what SIMILAR knows of the token grows. */
static void compare(foresee *f, uint32_t token, uint32_t il)
{
    const ht_use *now = use_of(f, token, il);
    if (!now)
        return;
    for (uint32_t t = token > MEMORY ? token - MEMORY : 0; t < token; t++) {
        const ht_use *then = use_of(f, t, il);
        uint32_t same = 0;
        for (uint32_t i = 0; then && i < then->n; i++)
            for (uint32_t j = 0; j < now->n; j++)
                same += f->uses.experts[then->first + i] == f->uses.experts[now->first + j];
        f->alike[t] += (float)same / (float)now->n - f->alike[t] / NEAR;
    }
}

static void learn(foresee *f, hearth_foresight kind, uint32_t token)
{
    const uint32_t n = f->n_expert;
    for (uint32_t il = 0; il < f->r->n_layer; il++) {
        const ht_use *u = use_of(f, token, il), *before = il ? use_of(f, token, il - 1) : NULL;
        for (uint32_t e = 0; u && e < n; e++)
            f->recent[(size_t)il * n + e] *= OLD;
        for (uint32_t i = 0; u && i < u->n; i++) {
            const uint32_t e = f->uses.experts[u->first + i];
            f->recent[(size_t)il * n + e] += 1.0f;
            f->count[(size_t)il * n + e] += 1.0f;
            for (uint32_t j = 0; kind == HEARTH_FORESEE_PATH && before && j < before->n; j++)
                f->pairs[((size_t)il * n + f->uses.experts[before->first + j]) * n + e] += 1.0f;
        }
    }
}

/* Of a layer's experts, those among the m of the highest scores, ties by number. */
static uint32_t found(const foresee *f, const ht_use *u, uint32_t m)
{
    uint32_t hits = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        const uint32_t e = f->uses.experts[u->first + i];
        uint32_t before = 0;
        for (uint32_t j = 0; j < f->n_expert; j++)
            before += f->score[j] > f->score[e] || (f->score[j] == f->score[e] && j < e);
        hits += before < m;
    }
    return hits;
}

static void walk(foresee *f, hearth_foresight kind, hearth_foresight_result *out)
{
    const uint32_t n_tokens = f->uses.n_generated, k = f->r->n_used;
    const uint32_t reach[3] = { k, k + k / 2, 2 * k };

    for (uint32_t t = 0; t < n_tokens; t++) {
        memset(f->alike, 0, t * sizeof *f->alike);
        for (uint32_t il = 0; il < f->r->n_layer; il++) {
            const ht_use *u = use_of(f, t, il);
            if (u && il && t >= n_tokens / 4) { /* of layer 0 nothing of this token is known */
                const uint64_t bytes = f->r->expert_bytes[il];
                foretell(f, kind, t, il);
                out->uses += u->n;
                out->used_bytes += u->n * bytes;
                for (int i = 0; i < 3; i++) {
                    out->hits[i] += found(f, u, reach[i]);
                    out->foreseen_bytes[i] += (reach[i] < f->n_expert ? reach[i] : f->n_expert) * bytes;
                }
            }
            if (kind == HEARTH_FORESEE_SIMILAR)
                compare(f, t, il);
        }
        learn(f, kind, t);
    }
}

hearth_status hearth_routes_foresee(const hearth_routes *r, hearth_foresight kind, hearth_foresight_result *result,
                                    hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    const size_t units = (size_t)r->n_layer * r->n_expert;
    hearth_foresight_result out = { .kind = kind };
    foresee f = { .r = r, .n_expert = r->n_expert };
    ht_status st;

    if (!hearth_foresight_name(kind))
        return (hearth_status)ht_fail(err, HT_EINVAL, "there is no foresight %d", (int)kind);
    if ((st = ht_routes_uses(r, &f.uses, err)) != HT_OK)
        return (hearth_status)st;
    f.count = calloc(units, sizeof *f.count);
    f.recent = calloc(units, sizeof *f.recent);
    f.pairs = calloc(kind == HEARTH_FORESEE_PATH ? units * r->n_expert : 1, sizeof *f.pairs);
    f.alike = calloc((size_t)f.uses.n_generated + 1, sizeof *f.alike);
    f.score = calloc(r->n_expert, sizeof *f.score);
    f.layer_of = calloc((size_t)f.uses.n_generated * r->n_layer + 1, sizeof *f.layer_of);
    if (!f.count || !f.recent || !f.pairs || !f.alike || !f.score || !f.layer_of) {
        st = ht_fail(err, HT_ENOMEM, "foreseeing %zu experts", units);
    } else {
        for (uint32_t t = 0; t < f.uses.n_generated; t++)
            for (size_t i = f.uses.token_at[t]; i < f.uses.token_at[t + 1]; i++)
                f.layer_of[(size_t)t * r->n_layer + f.uses.use[i].layer] = i + 1;
        walk(&f, kind, &out);
        ht_profile_result(result, &out, sizeof out);
    }
    free(f.count);
    free(f.recent);
    free(f.pairs);
    free(f.alike);
    free(f.score);
    free(f.layer_of);
    ht_uses_free(&f.uses);
    return (hearth_status)st;
}
