/* SPDX-License-Identifier: MIT
 *
 * Look-ahead: which neurons of a layer are active, foretold from the input of the layer before, for fetching their weights
 * early. What is wanted is not what predictors want: a miss costs a wait and no quality, so that every active neuron counts the same,
 * and the cut is the one probability of being active at which the share asked for is found.
 *
 * Of the samples three quarters fit the matrices, an eighth sets the cut, the last eighth measures what came of it. Owner:
 * matrices and thresholds are the profile's. Threads: one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/train.h"

enum {
    SAMPLES = 4096,
    LEAST_SAMPLES = 256,
    LEAST_RANK = 32,
    MOST_RANK = 128,
    STEPS = 24, /* of the bisection for the cut */
    BLOCK = 128 /* rows of the gate that are transposed at a time */
};
static const double recall_wanted = 0.9, layer_products = 1e11 /* what samples of a layer may take: some ten seconds */;

typedef struct ahead {
    hearth_profile *p;
    hearth_model *m;
    const ht_samples *s;
    ht_error *err;
    uint32_t layer, d, n_ff, rank, n_fit, n_cut, n_test; /* samples: fit, cut, test, one after the other */
    double zero;             /* a neuron is active where its pre-activation is above it */
    float *w;                /* [n_ff][d] */
    float *weight;           /* [n_ff] */
    float *g, *score;        /* [samples][n_ff] */
    ht_estimate *estimate;   /* [n_ff] */
    double *rate;            /* [n_ff] share of the fit's samples on which it was active */
    float *a, *b, *threshold; /* the profile's */
} ahead;

/* Small: what it reads comes on top of a token's weights. */
static uint32_t rank_for(uint32_t d, uint32_t n_ff)
{
    uint32_t rank = d / 8 / 32 * 32;

    rank = rank < LEAST_RANK ? LEAST_RANK : rank > MOST_RANK ? MOST_RANK : rank;
    rank = rank < d ? rank : d;
    return rank < n_ff ? rank : n_ff;
}

/* y [n][n_out] = x [n][k] times rows [n_out][k] transposed; a block of rows at a time. */
static ht_status times_rows(const float *x, uint32_t n, uint32_t k, const float *rows, uint32_t n_out, float *y, ht_error *err)
{
    float *t = malloc((size_t)BLOCK * k * sizeof *t), *out = malloc((size_t)BLOCK * n * sizeof *out);

    for (uint32_t r = 0, now; t && out && r < n_out; r += now) {
        now = n_out - r < BLOCK ? n_out - r : BLOCK;
        for (uint32_t i = 0; i < now; i++)
            for (uint32_t j = 0; j < k; j++)
                t[(size_t)j * now + i] = rows[(size_t)(r + i) * k + j];
        ht_multiply(x, t, out, n, k, now);
        for (uint32_t i = 0; i < n; i++)
            memcpy(y + (size_t)i * n_out + r, out + (size_t)i * now, now * sizeof *y);
    }
    const bool good = t && out;
    free(t);
    free(out);
    return good ? HT_OK : ht_fail(err, HT_ENOMEM, "look-ahead");
}

/* Weights, pre-activations, and how much each neuron's error counts: all neurons alike, whatever their scale. */
static ht_status begin(ahead *h)
{
    const ht_sample_layer *l = &h->s->layers[h->layer];
    const hearth_role role = l->block.gated ? HEARTH_ROLE_GATE : HEARTH_ROLE_UP;
    const uint32_t n = h->n_fit + h->n_cut + h->n_test;
    ht_status st;

    h->w = malloc((size_t)h->n_ff * h->d * sizeof *h->w);
    h->weight = malloc(h->n_ff * sizeof *h->weight);
    h->g = calloc((size_t)n * h->n_ff, sizeof *h->g);
    h->score = calloc((size_t)n * h->n_ff, sizeof *h->score);
    h->estimate = calloc(h->n_ff, sizeof *h->estimate);
    h->rate = calloc(h->n_ff, sizeof *h->rate);
    h->a = ht_profile_alloc(h->p, (size_t)h->rank * h->d, sizeof *h->a);
    h->b = ht_profile_alloc(h->p, (size_t)h->rank * h->n_ff, sizeof *h->b);
    h->threshold = ht_profile_alloc(h->p, h->n_ff, sizeof *h->threshold);
    if (!h->w || !h->weight || !h->g || !h->score || !h->estimate || !h->rate || !h->a || !h->b || !h->threshold)
        return ht_fail(h->err, HT_ENOMEM, "look-ahead of layer %u", h->layer);
    if ((st = (ht_status)hearth_model_read_rows(h->m, h->layer, 0, role, 0, h->n_ff, h->w, (hearth_error *)(void *)h->err)) !=
            HT_OK ||
        (st = times_rows(l->input, n, h->d, h->w, h->n_ff, h->g, h->err)) != HT_OK)
        return st;
    for (uint32_t j = 0; j < h->n_ff; j++) {
        double sum = 0, squares = 0;
        for (uint32_t t = 0; t < h->n_fit; t++) {
            const double v = (double)h->g[(size_t)t * h->n_ff + j];
            sum += v;
            squares += v * v;
            h->rate[j] += v > h->zero;
        }
        const double variance = squares / h->n_fit - sum / h->n_fit * (sum / h->n_fit);
        h->weight[j] = variance > 0 ? (float)(1 / variance) : 0.0f;
        h->rate[j] /= h->n_fit;
    }
    return HT_OK;
}

static ht_status scores(ahead *h)
{
    const float *before = h->s->layers[h->layer - 1].input, *x = h->s->layers[h->layer].input;
    const uint32_t n = h->n_fit + h->n_cut + h->n_test;
    ht_status st = ht_lookahead_fit(before, x, h->n_fit, h->d, h->w, h->n_ff, h->weight, h->rank, h->layer, h->a, h->b, h->err);

    if (st != HT_OK)
        return st;
    float *low = calloc((size_t)n * h->rank, sizeof *low);
    if (!low)
        return ht_fail(h->err, HT_ENOMEM, "look-ahead of layer %u", h->layer);
    if ((st = times_rows(before, n, h->d, h->a, h->rank, low, h->err)) == HT_OK)
        st = times_rows(low, n, h->rank, h->b, h->n_ff, h->score, h->err);
    free(low);
    for (uint32_t j = 0; st == HT_OK && j < h->n_ff; j++) {
        ht_moments m = { 0 };
        for (uint32_t t = 0; t < h->n_fit; t++)
            ht_moments_add(&m, (double)h->score[(size_t)t * h->n_ff + j], (double)h->g[(size_t)t * h->n_ff + j]);
        h->estimate[j] = ht_estimate_fit(&m);
    }
    return st;
}

/* Thresholds at which a neuron is foreseen if it is active with the probability of a normal deviate above z. Where the score
 * tells nothing, how often it was active decides. */
static void cut_at(ahead *h, double z)
{
    for (uint32_t j = 0; j < h->n_ff; j++) {
        const ht_estimate *e = &h->estimate[j];
        if (e->slope > 0.0f)
            h->threshold[j] = (float)((h->zero + z * (double)e->sigma - (double)e->offset) / (double)e->slope);
        else
            h->threshold[j] = h->rate[j] > 0.5 * erfc(z / sqrt(2)) ? -INFINITY : INFINITY;
    }
}

static ht_mask_quality count(const ahead *h, uint32_t from, uint32_t n)
{
    ht_mask_quality q = { 0 };

    for (uint32_t t = from; t < from + n; t++)
        for (uint32_t j = 0; j < h->n_ff; j++) {
            const size_t at = (size_t)t * h->n_ff + j;
            const bool active = (double)h->g[at] > h->zero, foreseen = h->score[at] >= h->threshold[j];
            q.active += active;
            q.predicted += foreseen;
            q.hit += active && foreseen;
        }
    q.neurons = (uint64_t)n * h->n_ff;
    return q;
}

/* The highest cut that finds the share wanted; what it does is measured elsewhere. */
static void choose_cut(ahead *h)
{
    double low = -6, high = 6; /* deviations: everything, nothing */

    for (int i = 0; i < STEPS; i++) {
        const double middle = (low + high) / 2;
        cut_at(h, middle);
        const ht_mask_quality q = count(h, h->n_fit, h->n_cut);
        *(ht_mask_recall(&q) >= recall_wanted ? &low : &high) = middle;
    }
    cut_at(h, low);
}

static void end(ahead *h)
{
    free(h->w);
    free(h->weight);
    free(h->g);
    free(h->score);
    free(h->estimate);
    free(h->rate);
}

static ht_status fit_layer(hearth_profile *p, hearth_model *m, const ht_samples *s, uint32_t layer, ht_error *err)
{
    const hearth_block_info *b = &s->layers[layer].block;
    hearth_profile_layer *l = &p->layers[layer];
    ahead h = { .p = p, .m = m, .s = s, .err = err, .layer = layer, .d = s->d, .n_ff = b->n_ff };

    h.zero = strcmp(b->activation, "fatrelu") == 0 ? (double)b->activation_param : 0;
    h.rank = rank_for(h.d, h.n_ff);
    h.n_cut = h.n_test = s->tokens / 8;
    h.n_fit = s->tokens - h.n_cut - h.n_test;
    ht_status st = begin(&h);
    if (st == HT_OK && (st = scores(&h)) == HT_OK) {
        choose_cut(&h);
        const ht_mask_quality q = count(&h, h.n_fit + h.n_cut, h.n_test);
        l->ahead_rank = h.rank;
        l->ahead_a = h.a;
        l->ahead_b = h.b;
        l->ahead_threshold = h.threshold;
        l->inputs = h.d;
        l->ahead_recall = (float)ht_mask_recall(&q);
        l->ahead_precision = (float)ht_mask_precision(&q);
        l->ahead_density = (float)((double)q.predicted / (double)q.neurons);
    }
    end(&h); /* NOLINT: the analyser loses what begin() kept */
    return st == HT_EINVAL ? HT_OK : st; /* inputs that no matrix follows from: nothing is foreseen */
}

hearth_status hearth_profile_look_ahead(hearth_profile *p, hearth_model *m, const char *text, size_t n,
                                        hearth_progress_fn *progress, void *user, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_model_info info = { .size = sizeof info };
    char fingerprint[33];
    uint32_t layers = 0;
    double products = 1;
    ht_samples s;
    hearth_status st = hearth_model_fingerprint(m, fingerprint, error);

    hearth_model_get_info(m, &info);
    if (st != HEARTH_OK)
        return st;
    if (strcmp(fingerprint, p->model) != 0 || info.n_layer != p->n_layer)
        return (hearth_status)ht_fail(err, HT_EMISMATCH, "the profile is of another model (%s, not %s)", p->model, fingerprint);
    for (uint32_t il = 1; il < p->n_layer; il++) {
        hearth_block_info b = { .size = sizeof b };
        hearth_model_get_block(m, il, &b);
        const double here = (double)info.d_model * (3.0 * info.d_model + b.n_ff);
        if (!b.n_ff || b.n_expert != 1 || !b.has_zeros || !b.plain)
            continue;
        layers++;
        products = here > products ? here : products;
    }
    if (!layers)
        return HEARTH_OK;
    const double fit = layer_products / products, room = (double)(1 << 30) / (4.0 * info.d_model * info.n_layer);
    double samples = fit < LEAST_SAMPLES ? LEAST_SAMPLES : fit;
    samples = samples > SAMPLES ? SAMPLES : samples;
    samples = samples > room ? room : samples;
    st = ht_samples_take(&s, m, (uint32_t)samples, false, text, n, progress, user, error);
    if (st != HEARTH_OK)
        return st == HEARTH_EINVAL ? HEARTH_OK : st; /* too short a text */
    for (uint32_t il = 1; il < p->n_layer && st == HEARTH_OK && s.tokens >= LEAST_SAMPLES; il++) {
        const hearth_block_info *b = &s.layers[il].block;
        if (!b->n_ff || b->n_expert != 1 || !b->has_zeros || !b->plain || !s.layers[il - 1].block.n_ff)
            continue;
        st = progress && !progress(user, "looking ahead", il, p->n_layer)
                 ? (hearth_status)ht_fail(err, HT_ECANCELLED, "cancelled by the caller")
                 : (hearth_status)fit_layer(p, m, &s, il, err);
    }
    ht_samples_free(&s);
    return st;
}
