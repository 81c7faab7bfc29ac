/* SPDX-License-Identifier: MIT
 *
 * Planted routing. A router logit is, in units of its own scale,
 *
 *   bias of the expert (normal over the experts: popularity)  +  sqrt(r) × cluster part  +  sqrt(1 - r) × token part
 *
 * and the chain stays in a cluster with a known chance. Per layer two numbers are solved for by simulation with
 * fixed draws: the deviation of the biases, from the overlap that two unrelated tokens share by popularity alone,
 * then r, from the overlap of neighbouring tokens. The targets follow the recorded routing of Qwen3-30B-A3B
 * (docs/synth.md has the comparison). Threads: one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/synth_model.h"

enum { N_DRAWS = 256, MAX_USED = 16, N_QUANTILES = 17 };

/* Quantiles over the 48 layers of the next-token overlap that was measured on the trace in decoding (top 6 of 128). */
static const double trace_overlap[N_QUANTILES] = { 0.067, 0.234, 0.268, 0.311, 0.319, 0.341, 0.353, 0.360, 0.375,
                                                   0.378, 0.403, 0.409, 0.427, 0.440, 0.471, 0.550, 0.671 };
/* Overlap that popularity alone explains there, as a share of the overlap above chance. */
static const double static_part = 0.51;

typedef struct draws {
    uint32_t n, used;
    float *slow, *token; /* [N_DRAWS + 1][n] standard normals */
    float *bias;         /* [n] of deviation 1 */
    float *logit;        /* [n] */
} draws;

static void draws_deinit(draws *d)
{
    free(d->slow);
    free(d->token);
    free(d->bias);
    free(d->logit);
}

static bool draws_init(draws *d, const synth_model *m)
{
    size_t n = m->shape.n_expert, all = (N_DRAWS + 1) * n;

    *d = (draws){ .n = m->shape.n_expert, .used = m->shape.n_used };
    d->slow = malloc(all * sizeof(float));
    d->token = malloc(all * sizeof(float));
    d->bias = malloc(n * sizeof(float));
    d->logit = malloc(n * sizeof(float));
    if (!d->slow || !d->token || !d->bias || !d->logit)
        return false;
    synth_normals_fill(m->normals, synth_key(m->key, 30), 1, d->slow, all);
    synth_normals_fill(m->normals, synth_key(m->key, 31), 1, d->token, all);
    for (size_t i = 0; i < n; i++)
        d->bias[i] = (float)synth_normal_quantile((i + 0.5) / n);
    return true;
}

/* The chosen experts, best first. */
static void choose(const draws *d, double bias, double share, uint32_t slow, uint32_t token, uint32_t top[MAX_USED])
{
    const float *s = d->slow + (size_t)slow * d->n, *t = d->token + (size_t)token * d->n;
    float a = (float)bias, b = (float)sqrt(share), c = (float)sqrt(1 - share);
    uint32_t n = 0;

    for (uint32_t i = 0; i < d->n; i++) {
        float v = d->logit[i] = a * d->bias[i] + b * s[i] + c * t[i];
        uint32_t k;

        if (n == d->used && v <= d->logit[top[n - 1]])
            continue;
        for (k = n < d->used ? n++ : n - 1; k > 0 && d->logit[top[k - 1]] < v; k--)
            top[k] = top[k - 1];
        top[k] = i;
    }
}

/* Mean share of the experts of one token that another chooses too; related: both are of one cluster. */
static double overlap(const draws *d, double bias, double share, bool related)
{
    uint32_t a[MAX_USED] = { 0 }, b[MAX_USED] = { 0 }, hits = 0;

    for (uint32_t i = 0; i < N_DRAWS; i++) {
        choose(d, bias, share, i, i, a);
        choose(d, bias, share, related ? i : i + 1, i + 1, b);
        for (uint32_t x = 0; x < d->used; x++)
            for (uint32_t y = 0; y < d->used; y++)
                hits += a[x] == b[y];
    }
    return (double)hits / N_DRAWS / d->used;
}

/* E[Σ weight²] over the chosen experts. */
static double weight_moment2(const synth_model *m, const draws *d, double bias, double share)
{
    double sum = 0;

    for (uint32_t i = 0; i < N_DRAWS; i++) {
        uint32_t top[MAX_USED] = { 0 };
        double w[MAX_USED], all = 0, square = 0;

        choose(d, bias, share, i, i, top);
        for (uint32_t k = 0; k < d->used; k++) {
            double v = d->logit[top[k]];

            w[k] = m->shape.flags & SYNTH_SIGMOID ? 1 / (1 + exp(-v)) : exp(v);
            square += w[k] * w[k];
            all += w[k];
        }
        if (m->shape.flags & SYNTH_NO_RENORM) {
            all = 0;
            for (uint32_t e = 0; e < d->n; e++)
                all += exp((double)d->logit[e]);
        }
        sum += square / (all * all);
    }
    return sum / N_DRAWS;
}

static void solve_layer(const synth_model *m, const draws *d, synth_layer *l, double target)
{
    double base = (double)d->used / d->n, still = base + static_part * (target - base), lo = 0, hi = 4;

    for (int i = 0; i < 14; i++) {
        l->bias_std = (lo + hi) / 2;
        if (overlap(d, l->bias_std, 0, false) < still)
            lo = l->bias_std;
        else
            hi = l->bias_std;
    }
    l->routing_static = overlap(d, l->bias_std, 0, false);
    double want = (target - (1 - m->stay) * l->routing_static) / m->stay;

    lo = 0;
    hi = 1;
    for (int i = 0; i < 14; i++) {
        l->cluster_share = (lo + hi) / 2;
        if (overlap(d, l->bias_std, l->cluster_share, true) < want)
            lo = l->cluster_share;
        else
            hi = l->cluster_share;
    }
    l->routing_overlap = m->stay * overlap(d, l->bias_std, l->cluster_share, true) + (1 - m->stay) * l->routing_static;
}

static double trace_quantile(double q)
{
    double x = q * (N_QUANTILES - 1);
    int i = (int)x;

    return i >= N_QUANTILES - 1 ? trace_overlap[N_QUANTILES - 1]
                                : trace_overlap[i] + (x - i) * (trace_overlap[i + 1] - trace_overlap[i]);
}

/* Overlap of the layer at rank q of the model's layers. Other numbers of experts keep the excess over chance that the
 * shape of the trace has (8 of 128); the skew scales it. */
static double layer_target(const synth_model *m, double q)
{
    double chance = 8.0 / 128, base = (double)m->shape.n_used / m->shape.n_expert;
    double excess = fmax(0, trace_quantile(q) - chance) / (1 - chance) * m->options.skew;

    return base + fmin(0.9, excess) * (1 - base);
}

/* Popularity of the experts of one layer: who is popular is dealt at random, and pairs exchange their biases with
 * the topic. */
static void deal_biases(synth_model *m, const draws *d, uint32_t l, uint32_t *perm)
{
    uint64_t key = synth_key(synth_key(m->key, 32), l);
    float *fixed = m->b_const + (size_t)l * d->n, *topic = m->b_topic + (size_t)l * d->n;
    float scale = (float)m->layers[l].bias_std;

    synth_shuffle(key, perm, d->n);
    for (uint32_t i = 0; i + 1 < d->n; i += 2) {
        float a = scale * d->bias[perm[i]], b = scale * d->bias[perm[i + 1]];
        bool topical = synth_uniform(synth_key(key, 1), i) < m->topic_share;

        fixed[i] = topical ? (a + b) / 2 : a;
        fixed[i + 1] = topical ? (a + b) / 2 : b;
        topic[i] = topical ? (a - b) / 2 : 0;
        topic[i + 1] = -topic[i];
    }
    if (d->n & 1)
        fixed[d->n - 1] = scale * d->bias[perm[d->n - 1]];
}

hearth_status synth_plan_routing(synth_model *m)
{
    uint32_t n = m->shape.n_layer, order[SYNTH_MAX_LAYERS];
    uint32_t *perm = malloc(m->shape.n_expert * sizeof *perm);
    draws d;

    m->b_const = calloc((size_t)n * m->shape.n_expert, sizeof *m->b_const);
    m->b_topic = calloc((size_t)n * m->shape.n_expert, sizeof *m->b_topic);
    if (!draws_init(&d, m) || !perm || !m->b_const || !m->b_topic) {
        draws_deinit(&d);
        free(perm);
        return HEARTH_ENOMEM;
    }
    synth_shuffle(synth_key(m->key, 33), order, n);
    for (uint32_t l = 1; l < n; l++) /* the first layer overlaps least, as in the trace */
        if (order[l] == 0) {
            order[l] = order[0];
            order[0] = 0;
        }
    for (uint32_t l = 0; l < n; l++) {
        synth_layer *layer = &m->layers[l];

        if (m->options.routed) {
            solve_layer(m, &d, layer, layer_target(m, (order[l] + 0.5) / n));
            deal_biases(m, &d, l, perm);
        }
        layer->weight2 = weight_moment2(m, &d, layer->bias_std, layer->cluster_share);
    }
    draws_deinit(&d);
    free(perm);
    return HEARTH_OK;
}
