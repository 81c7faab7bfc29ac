/* SPDX-License-Identifier: MIT
 *
 * The search for thresholds of gates and hidden units, for activations without zeros (or where a density is asked for);
 * see hearth_profiler.h and docs/predictors.md. Surfaces say what cutting does to each layer's output; a trial with one
 * layer cut says what that does to the predictions. A density of the whole model is shared out by both, and the
 * search is for the density. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/train.h"

enum { TRIALS = 9, SAMPLES = 1024, LEAST_SAMPLES = 64 };
#define SAMPLE_BYTES (1ull << 30)
#define SAMPLE_PRODUCTS 1e12 /* minutes of one core */
static const double probe_density = 0.5, least_density = 0.05;
/* Points of the curve where a density is asked for, beside that one. */
static const double grid[] = { 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3 };
enum { GRID = sizeof grid / sizeof *grid };

typedef struct cutting {
    ht_search *s;
    ht_cuts *cuts;          /* [n_layer] */
    ht_surface *surfaces;   /* [n_layer] copies, with the costs */
    ht_level *levels;       /* [n_layer] of the trial at hand */
    float **gate, **hidden; /* [n_layer] as the profile has them */
    double best_density;
} cutting;

static uint32_t affordable(const hearth_profile *p, uint32_t d, uint64_t asked)
{
    double bytes = 0, products = 0;

    for (uint32_t il = 0; il < p->n_layer; il++) {
        const double h = (double)p->layers[il].n_ff * p->layers[il].n_used;
        bytes += 4.0 * (h + d);
        products += 2.5 * h * d; /* gates, down projection with its cells */
    }
    double n = asked ? (double)asked : SAMPLES;
    n = fmin(n, (double)SAMPLE_BYTES / bytes);
    if (!asked && n * products > SAMPLE_PRODUCTS)
        n = SAMPLE_PRODUCTS / products;
    return n < LEAST_SAMPLES ? LEAST_SAMPLES : (uint32_t)n;
}

static hearth_status learn(cutting *c, const char *text, size_t n)
{
    ht_search *s = c->s;
    ht_samples samples;
    hearth_status st =
        ht_samples_take(&samples, s->m, affordable(s->p, s->d_model, s->params.sample_tokens), true, text, n,
                        s->params.progress, s->params.progress_user, (hearth_error *)(void *)s->err);
    if (st != HEARTH_OK)
        return st;
    for (uint32_t il = 0; il < s->p->n_layer && st == HEARTH_OK; il++) {
        st = ht_search_told(s, "learning", il, s->p->n_layer)
                 ? (hearth_status)ht_cuts_make(&c->cuts[il], s->m, &samples, il, s->err)
                 : HEARTH_ECANCELLED;
        c->surfaces[il] = c->cuts[il].surface;
        free(samples.layers[il].hidden);
        samples.layers[il].hidden = NULL;
    }
    ht_samples_free(&samples);
    return st;
}

/* Writes a layer's levels into the profile; cut false: exact. */
static void set_layer(cutting *c, uint32_t il, ht_level level, bool cut)
{
    hearth_profile_layer *l = &c->s->p->layers[il];
    const ht_surface *f = &c->surfaces[il];

    cut = cut && (level.gate > 0 || level.hidden > 0);
    l->method = cut ? "threshold" : "exact";
    l->threshold = l->low_a = l->low_b = NULL;
    l->rank = 0;
    l->recall = l->precision = -1;
    l->predicted_density = cut ? (float)ht_surface_at(f, f->density, level) : -1;
    l->gate_threshold = cut ? c->gate[il] : NULL;
    l->hidden_threshold = cut ? c->hidden[il] : NULL;
    for (uint32_t e = 0; e < l->n_expert; e++) {
        /* NOLINTNEXTLINE: the analyser forgets that there is a row for every layer */
        c->gate[il][e] = ht_cut_at(c->cuts[il].gate + (size_t)e * HT_CUT_LEVELS, level.gate);
        c->hidden[il][e] = ht_cut_at(c->cuts[il].hidden + (size_t)e * HT_CUT_LEVELS, level.hidden);
    }
}

static void set_density(cutting *c, double density)
{
    ht_allocate(c->surfaces, c->s->p->n_layer, density, c->levels);
    for (uint32_t il = 0; il < c->s->p->n_layer; il++)
        set_layer(c, il, c->levels[il], density < 1);
}

/* What a layer's error costs: trials with that layer alone at half of its density. */
static hearth_status probe_layers(cutting *c)
{
    ht_search *s = c->s;
    double *cost = s->cost;
    hearth_status st = HEARTH_OK;

    set_density(c, 1);
    for (uint32_t il = 0; il < s->p->n_layer && st == HEARTH_OK; il++) {
        ht_surface *f = &c->surfaces[il];
        ht_score score = { 0 };
        ht_level level;
        if (!ht_search_told(s, "measuring", s->done++, s->trials))
            return HEARTH_ECANCELLED;
        /* NOLINTNEXTLINE: learn() made every surface */
        ht_allocate(f, 1, probe_density * f->density[0], &level);
        set_layer(c, il, level, true);
        const double missed = ht_surface_at(f, f->error, level);
        cost[il] = -1;
        if (missed > 0 && (st = ht_search_trial(s, HT_PROBE_TOKENS, false, &score)) == HEARTH_OK)
            cost[il] = score.kl_mean / fmax(missed, 1e-9);
        set_layer(c, il, (ht_level){ 0, 0 }, false);
    }
    ht_search_even_costs(cost, s->p->n_layer);
    for (uint32_t il = 0; il < s->p->n_layer; il++)
        c->surfaces[il].cost = cost[il];
    return st;
}

static hearth_status add_trial(cutting *c, double density, uint32_t tokens, double dense_bytes, ht_score *r)
{
    ht_search *s = c->s;

    if (!ht_search_told(s, "measuring", s->done++, s->trials))
        return HEARTH_ECANCELLED;
    set_density(c, density);
    hearth_status st = ht_search_trial(s, tokens, true, r);
    if (st != HEARTH_OK)
        return st;
    hearth_profile_point p = ht_search_point(r, dense_bytes);
    p.density = (float)density;
    s->p->points[s->p->n_points++] = p;
    return HEARTH_OK;
}

/* Bisection over the density, down to where the loss is spent; or the density that was asked for, and a grid. */
static hearth_status choose_density(cutting *c)
{
    ht_search *s = c->s;
    hearth_model_info info = { .size = sizeof info };
    ht_score r;
    double lo = least_density, hi = 1, all = 0, neurons = 0;
    hearth_status st;

    hearth_model_get_info(s->m, &info);
    for (uint32_t il = 0; il < s->p->n_layer; il++) {
        all += c->surfaces[il].density[0] * c->surfaces[il].neurons;
        neurons += c->surfaces[il].neurons;
    }
    s->p->n_points = 0;
    s->p->points = ht_profile_alloc(s->p, TRIALS + GRID + 2, sizeof *s->p->points);
    if (!s->p->points)
        return (hearth_status)ht_fail(s->err, HT_ENOMEM, "curve");
    hi = neurons > 0 ? fmin(1, all / neurons) : 1; /* ReLU models begin where they are */
    if ((st = add_trial(c, 1, HT_PROBE_TOKENS, (double)info.weight_bytes_per_token, &r)) != HEARTH_OK)
        return st;
    s->p->points[0].density = (float)hi;
    hearth_profile_point best = s->p->points[0];
    c->best_density = 1;
    if (s->params.density > 0) {
        c->best_density = fmin(s->params.density, 1);
        st = add_trial(c, c->best_density, UINT32_MAX, (double)info.weight_bytes_per_token, &r);
        best = s->p->points[s->p->n_points - 1];
        for (uint32_t i = 0; i < GRID && st == HEARTH_OK; i++)
            if (grid[i] < hi && fabs(grid[i] - c->best_density) > 0.02)
                st = add_trial(c, grid[i], UINT32_MAX, (double)info.weight_bytes_per_token, &r);
    } else {
        for (uint32_t i = 0; i < TRIALS && st == HEARTH_OK; i++) {
            const double middle = (lo + hi) / 2;
            if ((st = add_trial(c, middle, UINT32_MAX, (double)info.weight_bytes_per_token, &r)) != HEARTH_OK)
                break;
            if (!ht_search_good(s, &r)) {
                lo = middle;
                continue;
            }
            hi = middle;
            if ((float)r.bytes < best.weight_bytes_per_token) {
                c->best_density = middle;
                best = s->p->points[s->p->n_points - 1];
            }
        }
    }
    if (st != HEARTH_OK)
        return st;
    set_density(c, c->best_density);
    ht_search_conclude(s->p, best);
    return HEARTH_OK;
}

hearth_status ht_search_thresholds(ht_search *s, const char *text, size_t n, const char *held_out, size_t n_held_out)
{
    const uint32_t layers = s->p->n_layer;
    cutting c = { .s = s,
                  .cuts = calloc(layers, sizeof *c.cuts),
                  .surfaces = calloc(layers, sizeof *c.surfaces),
                  .levels = calloc(layers, sizeof *c.levels),
                  .gate = calloc(layers, sizeof *c.gate),
                  .hidden = calloc(layers, sizeof *c.hidden) };
    bool room = c.cuts && c.surfaces && c.levels && c.gate && c.hidden;
    hearth_status st = HEARTH_OK;

    s->trials = layers + 1 + (s->params.density > 0 ? GRID : TRIALS);
    for (uint32_t il = 0; room && il < layers; il++) {
        c.gate[il] = ht_profile_alloc(s->p, s->p->layers[il].n_expert, sizeof **c.gate);
        c.hidden[il] = ht_profile_alloc(s->p, s->p->layers[il].n_expert, sizeof **c.hidden);
        room = c.gate[il] && c.hidden[il];
    }
    if (!room)
        st = (hearth_status)ht_fail(s->err, HT_ENOMEM, "thresholds");
    else if ((st = learn(&c, text, n)) == HEARTH_OK &&
             (st = ht_scorer_open(&s->scorer, s->m, s->params.check_tokens, held_out, n_held_out,
                                  (hearth_error *)(void *)s->err)) == HEARTH_OK &&
             (st = probe_layers(&c)) == HEARTH_OK)
        st = choose_density(&c);
    for (uint32_t il = 0; c.cuts && il < layers; il++)
        ht_cuts_free(&c.cuts[il]);
    free(c.cuts);
    free(c.surfaces);
    free(c.levels);
    free((void *)c.gate);
    free((void *)c.hidden);
    return st;
}
