/* SPDX-License-Identifier: MIT
 *
 * The plan of a synthetic model: how strong every weight is, so that the residual stream grows by a known amount in
 * each layer, and how often each neuron fires. docs/synth.md derives the formulas; the measured agreement stands
 * there too. Threads: one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/synth_model.h"

/* Shares of the stream's variance that all attention and all feed-forward blocks add to the embedding's. Attention
 * stays small because its output shrinks as the context grows (it averages), which would move the thresholds. */
static const double attn_growth = 0.05, attn_typical = 0.1, ffn_growth = 0.4;

/* ---- Moments of activations, input normal with deviation s and mean -t × s --------------------------------------- */

static double density(double t)
{
    return 0.39894228040143267794 * exp(-t * t / 2);
}

static double relu_moment2(double s, double t)
{
    return s * s * fmax(0, (1 + t * t) * synth_normal_tail(t) - t * density(t));
}

static double relu_moment4(double s, double t)
{
    double t2 = t * t, m = (t2 * t2 + 6 * t2 + 3) * synth_normal_tail(t) - (t2 * t + 5 * t) * density(t);

    return s * s * s * s * fmax(0, m);
}

/* E[(x σ(a x))²], x normal with deviation s. */
static double swish_moment2(double s, double a)
{
    double sum = 0;

    for (int i = -400; i <= 400; i++) {
        double z = i * 0.02, x = s * z, y = x / (1 + exp(-a * x));

        sum += y * y * density(z) * 0.02;
    }
    return sum;
}

/* E[(act(gate) × up)²] of one neuron with threshold t; both projections have deviation s. */
static double neuron_moment2(const synth_shape *shape, double s, double t)
{
    double up = shape->flags & SYNTH_UNGATED ? 1 : s * s;

    switch (shape->act) {
    case SYNTH_RELU: return relu_moment2(s, t) * up;
    case SYNTH_RELU2: return relu_moment4(s, t) * up;
    case SYNTH_SWIGLU_OAI: return swish_moment2(s, 1.702) * (1 + s * s);
    default: return swish_moment2(s, 1) * up;
    }
}

/* ---- How often neurons fire -------------------------------------------------------------------------------------- */

double synth_plan_firing(const synth_model *m, const synth_layer *l, double u)
{
    return fmin(m->p_max, l->scale * pow(u, -l->exponent));
}

static double firing_mean(const synth_model *m, const synth_layer *l, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += synth_plan_firing(m, l, (i + 0.5) / n);
    return sum / n;
}

/* Mean and second moment of min(p_max, p_max (u / u0)^-a) over u in (0, 1), given ln u0 <= 0. */
static void power_moments(double p_max, double a, double ln_u0, double *mean, double *square)
{
    double u0 = exp(ln_u0), b = 1 - a, c = 1 - 2 * a;
    /* ∫_{u0}^1 (u / u0)^-a du = (u0^a - u0) / (1 - a), and the same for 2a */
    double one = fabs(b) < 1e-9 ? -u0 * ln_u0 : (exp(a * ln_u0) - u0) / b;
    double two = fabs(c) < 1e-9 ? -u0 * ln_u0 : (exp(2 * a * ln_u0) - u0) / c;

    *mean = p_max * (u0 + one);
    *square = p_max * p_max * (u0 + two);
}

/* The plateau u0 for which the mean is d. */
static double power_solve_plateau(double p_max, double a, double d)
{
    double lo = -2000 / a, hi = 0;

    for (int i = 0; i < 200; i++) {
        double mid = (lo + hi) / 2, mean, square;

        power_moments(p_max, a, mid, &mean, &square);
        if (mean < d)
            lo = mid;
        else
            hi = mid;
    }
    return (lo + hi) / 2;
}

/* Power law with mean l->density and overlap Σp²/Σp near `overlap` (never below the density: that is the uniform case),
 * first as an integral, then the scale again for n neurons. */
static void solve_firing(const synth_model *m, synth_layer *l, double overlap, uint32_t n)
{
    double lo = 0.01, hi = 12, d = fmin(l->density, m->p_max * (1 - 1e-9));

    for (int i = 0; i < 60; i++) {
        double a = (lo + hi) / 2, mean, square;

        power_moments(m->p_max, a, power_solve_plateau(m->p_max, a, d), &mean, &square);
        if (square / mean < overlap)
            lo = a;
        else
            hi = a;
    }
    l->exponent = (lo + hi) / 2;
    double ln_scale = log(m->p_max) + l->exponent * power_solve_plateau(m->p_max, l->exponent, d);

    lo = ln_scale - 3;
    hi = ln_scale + 3;
    for (int i = 0; i < 60; i++) {
        l->scale = exp((lo + hi) / 2);
        if (firing_mean(m, l, n) < d)
            lo = log(l->scale);
        else
            hi = log(l->scale);
    }
    double sum = 0, square = 0, hot = 0;

    for (uint32_t i = 0; i < n; i++) {
        double p = synth_plan_firing(m, l, (i + 0.5) / n);

        sum += p;
        square += p * p;
        hot += p > 0.5;
    }
    l->density = sum / n;
    l->overlap = square / sum;
    l->overlap_topics = (1 - m->topic_share) * l->overlap + m->topic_share * l->density;
    l->hot_share = hot / n;
}

double synth_plan_union(const synth_model *m, uint32_t batch)
{
    const uint32_t n = 4096;
    double sum = 0;

    for (uint32_t l = 0; l < m->shape.n_layer; l++)
        for (uint32_t i = 0; i < n; i++)
            sum += 1 - pow(1 - synth_plan_firing(m, &m->layers[l], (i + 0.5) / n), batch);
    return sum / n / m->shape.n_layer;
}

/* A density per layer: logit-normal around the mean asked for, within 2 and 40 % where the mean is itself well
 * inside. */
static hearth_status solve_densities(synth_model *m)
{
    uint32_t n = m->shape.n_layer, order[SYNTH_MAX_LAYERS];
    double d = m->options.density, lo = -20, hi = 20;
    double least = d >= 0.04 && d <= 0.3 ? 0.02 : d / 5, most = d >= 0.04 && d <= 0.3 ? 0.4 : 1 - (1 - d) / 5;

    synth_shuffle(synth_key(m->key, 20), order, n);
    for (int i = 0; i < 100; i++) {
        double mid = (lo + hi) / 2, sum = 0;

        for (uint32_t l = 0; l < n; l++) {
            double z = synth_normal_quantile((order[l] + 0.5) / n);

            m->layers[l].density = fmin(most, fmax(least, 1 / (1 + exp(-(mid + 0.75 * z)))));
            sum += m->layers[l].density;
        }
        if (sum / n < d)
            lo = mid;
        else
            hi = mid;
    }
    return HEARTH_OK;
}

/* Thresholds of the neurons of one block or expert. Ranks are dealt out at random; a share of the neurons is paired,
 * and the two of a pair exchange their firing chance when the topic changes. */
static void deal_thresholds(const synth_model *m, const float *by_rank, uint32_t n, uint64_t key, uint32_t *perm,
                            float *t_const, float *t_topic)
{
    synth_shuffle(key, perm, n); /* perm[i]: rank of neuron i; neighbours make a pair */
    for (uint32_t i = 0; i + 1 < n; i += 2) {
        float a = by_rank[perm[i]], b = by_rank[perm[i + 1]];
        bool topical = synth_uniform(synth_key(key, 1), i) < m->topic_share;

        t_const[i] = topical ? (a + b) / 2 : a;
        t_const[i + 1] = topical ? (a + b) / 2 : b;
        t_topic[i] = topical ? (a - b) / 2 : 0;
        t_topic[i + 1] = -t_topic[i];
    }
    if (n & 1) {
        t_const[n - 1] = by_rank[perm[n - 1]];
        t_topic[n - 1] = 0;
    }
}

static hearth_status plan_thresholds(synth_model *m)
{
    const synth_shape *s = &m->shape;
    uint32_t experts = s->n_expert ? s->n_expert : 1, n = s->n_expert ? s->ff_expert : s->ff;
    size_t total = (size_t)s->n_layer * experts * n;
    float *by_rank = malloc(n * sizeof *by_rank);
    uint32_t *perm = malloc(n * sizeof *perm);

    m->t_const = malloc(total * sizeof *m->t_const);
    m->t_topic = malloc(total * sizeof *m->t_topic);
    if (!by_rank || !perm || !m->t_const || !m->t_topic) {
        free(by_rank);
        free(perm);
        return HEARTH_ENOMEM;
    }
    solve_densities(m);
    for (uint32_t l = 0; l < s->n_layer; l++) {
        synth_layer *layer = &m->layers[l];

        solve_firing(m, layer, m->options.overlap, n);
        for (uint32_t i = 0; i < n; i++)
            by_rank[i] = (float)fmax(-6, -synth_normal_quantile(synth_plan_firing(m, layer, (i + 0.5) / n)));
        for (uint32_t e = 0; e < experts; e++) {
            size_t at = ((size_t)l * experts + e) * n;

            deal_thresholds(m, by_rank, n, synth_key(synth_key(synth_key(m->key, 21), l), e), perm, m->t_const + at,
                            m->t_topic + at);
        }
    }
    free(by_rank);
    free(perm);
    return HEARTH_OK;
}

/* ---- How strong the weights are ---------------------------------------------------------------------------------- */

/* Σ over the neurons of a block (or expert) of E[(act × up)²]. */
static double block_moment2(const synth_model *m, uint32_t l, double s)
{
    const synth_shape *shape = &m->shape;
    uint32_t n = shape->n_expert ? shape->ff_expert : shape->ff;
    double sum = 0;

    if (!m->options.sparse)
        return n * neuron_moment2(shape, s, 0);
    for (uint32_t i = 0; i < n; i++)
        sum += neuron_moment2(shape, s,
                              fmax(-6, -synth_normal_quantile(synth_plan_firing(m, &m->layers[l], (i + 0.5) / n))));
    return sum;
}

static void plan_strengths(synth_model *m)
{
    const synth_shape *s = &m->shape;
    double rest = s->d - m->n_reserved, variance = 1, attn = attn_growth / s->n_layer, ffn = ffn_growth / s->n_layer;

    for (uint32_t i = 0; i < s->n_layer; i++) {
        synth_layer *l = &m->layers[i];
        bool deltanet = (s->flags & SYNTH_NEXT) && (i + 1) % 4 != 0;
        /* E[silu²] and E[sigmoid²] of unit normals: output gates */
        double gated = deltanet ? 0.3556 : s->flags & SYNTH_NEXT ? 0.2933 : 1;
        double width = deltanet ? s->ssm_inner : (double)s->n_head * s->head_dim;

        l->input_rms = sqrt(variance);
        l->out_std = sqrt(attn / (width * gated));
        variance += attn * (deltanet ? 1 : attn_typical);
        l->rest_rms = sqrt(variance);
        /* deviation of a gate or up projection: rows have norm 1 over the random channels */
        double rms = sqrt((m->n_reserved + rest * variance) / s->d), sigma = l->rest_rms / rms;
        double shared = s->ff_shared ? 0.5 : 0, weight2 = s->n_expert ? l->weight2 : 1;

        l->down_std = sqrt(ffn * (1 - shared) / (block_moment2(m, i, sigma) * weight2));
        if (s->ff_shared)
            l->shared_std = sqrt(ffn * shared / (s->ff_shared * neuron_moment2(s, sigma, 0) * 0.2933));
        variance += ffn;
    }
    m->final_rms = sqrt(variance);
}

static void plan_logits(synth_model *m)
{
    double words = m->vocab.first_control - m->vocab.first_word, noise, target, margin;

    m->logit_std = 0.8;
    m->topic_logit = 3;
    noise = m->logit_std * m->logit_std;
    if (m->vocab.n_clusters) {
        /* in-cluster words get the share `stay` of what the chain leaves over */
        m->cluster_logit = log(m->vocab.n_clusters * m->stay / (1 - m->stay));
        noise += m->cluster_logit * m->cluster_logit / SYNTH_BLOCK;
        m->cluster_logit += m->cluster_logit * m->cluster_logit / SYNTH_BLOCK / 2;
    }
    /* The chain's next word has half of the probability at temperature 1, or more where the noise of so few words could
     * otherwise overtake it in greedy decoding. */
    target = log(words / 2) + noise / 2 - (m->vocab.n_clusters ? log(1 - m->stay) : 0);
    margin = m->cluster_logit + m->logit_std * (sqrt(2 * log(words)) + 4);
    m->logit_target = m->topic_logit + fmax(target, margin);
}

hearth_status synth_plan_solve(synth_model *m)
{
    const synth_shape *s = &m->shape;
    uint32_t clusters = 0;
    hearth_status st;

    m->key = synth_key_text(synth_key(m->options.seed, 0), s->name);
    m->ternary = strcmp(m->options.type, "tq1_0") == 0 || strcmp(m->options.type, "tq2_0") == 0;
    m->fp4 = strcmp(m->options.type, "mxfp4") == 0;
    m->n_reserved = m->options.routed ? 3 * SYNTH_BLOCK : 2 * SYNTH_BLOCK;
    m->kappa = 0.08 * sqrt(s->d - m->n_reserved);
    m->p_max = fmax(0.98, 1 - (1 - m->options.density) / 5);
    m->topic_share = 0.4;
    m->topic_run = 128;
    m->stay = 0.6;
    synth_normals_init(m->normals);
    m->layers = calloc(s->n_layer, sizeof *m->layers);
    if (!m->layers)
        return HEARTH_ENOMEM;
    if (m->options.routed) {
        /* some 30 words of each topic in a cluster: runs end by chance, seldom for want of words */
        clusters = s->n_vocab / 64;
        clusters = clusters < 16 ? 16 : clusters > 1024 ? 1024 : clusters;
    }
    if ((st = synth_vocab_init(&m->vocab, s->n_vocab, clusters, m->stay, m->topic_run, synth_key(m->key, 1))) !=
        HEARTH_OK)
        return st;
    if (m->options.sparse && (st = plan_thresholds(m)) != HEARTH_OK)
        return st;
    if (s->n_expert && (st = synth_plan_routing(m)) != HEARTH_OK)
        return st;
    plan_strengths(m);
    plan_logits(m);
    return HEARTH_OK;
}

void synth_model_deinit(synth_model *m)
{
    free(m->layers);
    free(m->t_const);
    free(m->t_topic);
    free(m->b_const);
    free(m->b_topic);
    free(m->tensors);
    synth_vocab_deinit(&m->vocab);
    *m = (synth_model){ 0 };
}
