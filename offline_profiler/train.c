/* SPDX-License-Identifier: MIT
 *
 * The search for predictors: each layer's price of missed output, so that the whole model's loss stays within what was
 * allowed; see hearth_profiler.h and docs/predictors.md. A layer's price is the multiplier over what missing costs
 * there (measured by trials with that layer alone); the multiplier is found by bisection over trials of the whole
 * model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/train.h"

enum { TRIALS = 9, PROBE_PRICE = 8, SAMPLES = 8192, LEAST_SAMPLES = 512, SAMPLE_BYTES = 1 << 30 };
static const double p99_share = 25, disagreement_share = 3;
#define SAMPLE_PRODUCTS 2e12 /* about ten minutes of one core */

bool ht_search_told(ht_search *s, const char *what, uint32_t done, uint32_t of)
{
    if (!s->params.progress || s->params.progress(s->params.progress_user, what, done, of))
        return true;
    ht_fail(s->err, HT_ECANCELLED, "cancelled by the caller");
    return false;
}

static bool go_on(void *user)
{
    ht_search *s = user;
    return ht_search_told(s, "measuring", s->done, s->trials);
}

/* Bytes of the block at a price: rows that are looked at, and those of neurons that then turn out active. */
static double bytes_at(const ht_fit_layer *f, const ht_fit *fit, double price)
{
    const ht_trade t = ht_fit_at(fit, price);
    const double active = t.quality.neurons ? (double)t.quality.hit / (double)t.quality.neurons : 0;
    return fit->bytes + f->neurons * f->row_bytes * (t.predicted + f->rest * active);
}

static double bytes_exact(const ht_fit_layer *f)
{
    const ht_mask_quality *q = &f->fits[0].trade[0].quality;
    const double active = q->neurons ? (double)q->active / (double)q->neurons : 0;
    return f->neurons * f->row_bytes * (1 + f->rest * active);
}

/* Writes into the profile what a layer does at a price; negative: exact. Returns the predictor, NULL: exact. */
static const ht_fit *set_layer(ht_search *s, uint32_t il, double price)
{
    hearth_profile_layer *l = &s->p->layers[il];
    const ht_fit_layer *f = &s->layers[il];
    const ht_fit *best = NULL;
    double least = bytes_exact(f);

    for (uint32_t i = 0; i < f->n_fits && price > 0; i++)
        if (bytes_at(f, &f->fits[i], price) < least) {
            best = &f->fits[i];
            least = bytes_at(f, best, price);
        }
    l->method = best ? best->method : "exact";
    l->threshold = best ? s->threshold[il] : NULL;
    l->rank = best ? best->rank : 0;
    l->inputs = s->d_model;
    l->low_a = best ? best->low_a : NULL;
    l->low_b = best ? best->low_b : NULL;
    l->gate_threshold = l->hidden_threshold = NULL;
    l->recall = l->precision = l->predicted_density = -1;
    if (!best)
        return NULL;
    const ht_trade t = ht_fit_at(best, price);
    l->recall = (float)ht_mask_recall(&t.quality);
    l->precision = (float)ht_mask_precision(&t.quality);
    l->predicted_density = (float)t.predicted;
    for (size_t i = 0; i < (size_t)l->n_ff * l->n_expert; i++)
        s->threshold[il][i] = ht_fit_threshold(f, best, (uint32_t)(i / l->n_ff), i, price * f->energy);
    return best;
}

static double price_of(const ht_search *s, uint32_t il, double multiplier)
{
    const double price = multiplier / s->cost[il], least = ht_price(0), most = ht_price(HT_PRICES - 1);
    return price < least ? least : price > most ? most : price;
}

/* The model with the profile's predictors as they stand. threads: 0: as the caller has it. */
static hearth_status open_trial(ht_search *s, uint32_t threads, hearth_model **m)
{
    hearth_model_params how = HEARTH_MODEL_PARAMS_INIT;
    hearth_error *err = (hearth_error *)(void *)s->err;
    hearth_status st;

    if (s->params.model)
        memcpy(&how, s->params.model, s->params.model->size < sizeof how ? s->params.model->size : sizeof how);
    how.size = sizeof how;
    how.sparsity =
        threads ? HEARTH_SPARSITY_EXACT : HEARTH_SPARSITY_AUTO; /* everything in place from the first token */
    how.threads = threads ? threads : how.threads;
    how.log = NULL;
    how.progress = NULL;
    if ((st = hearth_profile_write(s->p, s->params.scratch, err)) == HEARTH_OK &&
        (st = hearth_model_open(m, s->path, &how, err)) == HEARTH_OK)
        st = hearth_model_predict(*m, s->params.scratch, err);
    remove(s->params.scratch);
    return st;
}

hearth_status ht_search_trial(ht_search *s, uint32_t tokens, bool bytes, ht_score *score)
{
    hearth_error *err = (hearth_error *)(void *)s->err;
    hearth_model *m = NULL;
    hearth_status st = open_trial(s, 0, &m);

    if (st == HEARTH_OK)
        st = ht_scorer_run(&s->scorer, m, tokens, score, err);
    hearth_model_close(&m);
    if (st == HEARTH_OK && bytes && (st = open_trial(s, 1, &m)) == HEARTH_OK)
        st = ht_scorer_bytes(&s->scorer, m, &score->bytes, err);
    hearth_model_close(&m);
    return st;
}

/* What each layer's misses cost: trials with one layer foretold and all others exact. Layers that are exact at that
 * price too are not measured: they take the mean. */
static hearth_status probe_layers(ht_search *s)
{
    hearth_status st = HEARTH_OK;

    for (uint32_t il = 0; il < s->p->n_layer; il++)
        set_layer(s, il, -1);
    for (uint32_t il = 0; il < s->p->n_layer && st == HEARTH_OK; il++) {
        ht_score score = { 0 };
        if (!ht_search_told(s, "measuring", s->done++, s->trials))
            return HEARTH_ECANCELLED;
        const ht_fit *fit = set_layer(s, il, ht_price(PROBE_PRICE));
        s->cost[il] = -1;
        if (fit && (st = ht_search_trial(s, HT_PROBE_TOKENS, false, &score)) == HEARTH_OK) {
            const double missed = ht_fit_at(fit, ht_price(PROBE_PRICE)).missed;
            s->cost[il] = score.kl_mean / (missed > 1e-6 ? missed : 1e-6);
        }
        set_layer(s, il, -1);
    }
    ht_search_even_costs(s->cost, s->p->n_layer);
    return st;
}

void ht_search_even_costs(double *cost, uint32_t n_layer)
{
    double sum = 0;
    uint32_t measured = 0;

    for (uint32_t il = 0; il < n_layer; il++) {
        sum += cost[il] > 0 ? cost[il] : 0;
        measured += cost[il] >= 0;
    }
    const double mean = sum > 0 ? sum / measured : 1;
    for (uint32_t il = 0; il < n_layer; il++)
        cost[il] = cost[il] < 0 ? mean : cost[il] > mean / 30 ? cost[il] : mean / 30;
}

bool ht_search_good(const ht_search *s, const ht_score *r)
{
    const double q = s->params.quality;
    return r->kl_mean <= q && r->kl_p99 <= p99_share * q && 1 - r->agreement <= disagreement_share * q;
}

static int by_bytes(const void *a, const void *b)
{
    const float x = ((const hearth_profile_point *)a)->weight_bytes_per_token;
    const float y = ((const hearth_profile_point *)b)->weight_bytes_per_token;
    return x < y ? -1 : x > y;
}

void ht_search_conclude(hearth_profile *p, hearth_profile_point best)
{
    qsort(p->points, p->n_points, sizeof *p->points, by_bytes);
    for (p->chosen = 0; p->chosen < p->n_points; p->chosen++) { /* others may read as many bytes, and lose more */
        const hearth_profile_point *t = &p->points[p->chosen];
        if (t->weight_bytes_per_token == best.weight_bytes_per_token && t->kl_mean == best.kl_mean &&
            t->top1_agreement == best.top1_agreement)
            break;
    }
}

static void set_all(ht_search *s, double multiplier)
{
    for (uint32_t il = 0; il < s->p->n_layer; il++)
        set_layer(s, il, multiplier > 0 ? price_of(s, il, multiplier) : -1);
}

hearth_profile_point ht_search_point(const ht_score *r, double dense_bytes)
{
    return (hearth_profile_point){
        (float)r->kl_mean, (float)r->kl_p99, (float)r->agreement, (float)r->bytes, (float)(dense_bytes / r->bytes), -1
    };
}

/* Bisection over the multiplier; every trial is a point of the curve. */
static hearth_status bisect(ht_search *s)
{
    hearth_model_info info = { .size = sizeof info };
    double lo = INFINITY, hi = 0, best = -1, best_bytes;
    hearth_profile_point best_point;
    ht_score exact, r;
    hearth_status st;

    /* Every layer exact, whatever sparsity the caller's model was opened with. The layers' cheapest price is a trial
     * too. */
    set_all(s, -1);
    st = ht_search_trial(s, HT_PROBE_TOKENS, true, &exact);
    hearth_model_get_info(s->m, &info);
    hearth_profile_point *points = ht_profile_alloc(s->p, TRIALS + 1, sizeof *points);
    if (st != HEARTH_OK || !points)
        return points ? st : (hearth_status)ht_fail(s->err, HT_ENOMEM, "curve");
    s->p->points = points;
    s->p->n_points = 0;
    best_point = ht_search_point(&exact, (double)info.weight_bytes_per_token);
    points[s->p->n_points++] = best_point;
    best_bytes = exact.bytes;
    for (uint32_t il = 0; il < s->p->n_layer; il++) {
        lo = fmin(lo, s->cost[il] * ht_price(0));
        hi = fmax(hi, s->cost[il] * ht_price(HT_PRICES - 1));
    }
    for (uint32_t i = 0; i < TRIALS; i++) {
        const double middle = sqrt(lo * hi);
        if (!ht_search_told(s, "measuring", s->done++, s->trials))
            return HEARTH_ECANCELLED;
        set_all(s, middle);
        if ((st = ht_search_trial(s, UINT32_MAX, true, &r)) != HEARTH_OK)
            return st;
        points[s->p->n_points++] = ht_search_point(&r, (double)info.weight_bytes_per_token);
        if (!ht_search_good(s, &r)) {
            hi = middle;
            continue;
        }
        lo = middle;
        if (r.bytes < best_bytes) {
            best = middle;
            best_bytes = r.bytes;
            best_point = points[s->p->n_points - 1];
        }
    }
    set_all(s, best);
    ht_search_conclude(s->p, best_point);
    return HEARTH_OK;
}

static hearth_status learn(ht_search *s, const char *text, size_t n)
{
    hearth_model_info info = { .size = sizeof info };
    ht_samples samples;

    hearth_model_get_info(s->m, &info);
    const uint64_t fit = SAMPLE_BYTES / (4ull * info.d_model * info.n_layer), most = fit < SAMPLES ? fit : SAMPLES;
    double per_token = 0; /* multiplications of a sample in all layers, twice: gates and their signs */
    for (uint32_t il = 0; il < s->p->n_layer; il++)
        per_token += 2.0 * info.d_model * s->p->layers[il].n_ff * s->p->layers[il].n_used;
    const uint64_t affordable = per_token > 0 ? (uint64_t)(SAMPLE_PRODUCTS / per_token) : most;
    const uint64_t enough = affordable > LEAST_SAMPLES ? affordable : LEAST_SAMPLES;
    const uint64_t room = s->params.sample_tokens ? s->params.sample_tokens : most < enough ? most : enough;
    hearth_status st = ht_samples_take(&samples, s->m, room > 1u << 20 ? 1u << 20 : (uint32_t)room, false, text, n,
                                       s->params.progress, s->params.progress_user, (hearth_error *)(void *)s->err);
    if (st != HEARTH_OK)
        return st;
    for (uint32_t il = 0; il < s->p->n_layer && st == HEARTH_OK; il++) {
        st = ht_search_told(s, "learning", il, s->p->n_layer)
                 ? (hearth_status)ht_fit_layer_make(&s->layers[il], s->m, &samples, il, s->err)
                 : HEARTH_ECANCELLED;
        free(samples.layers[il].input); /* a layer's samples are not needed any more */
        samples.layers[il].input = NULL;
    }
    ht_samples_free(&samples);
    return st;
}

hearth_status hearth_profile_train(hearth_profile *p, hearth_model *m, const char *path,
                                   const hearth_train_params *params, const char *text, size_t n, const char *held_out,
                                   size_t n_held_out, hearth_error *error)
{
    ht_search s = { .p = p, .m = m, .path = path, .err = ht_profile_err(error) };
    hearth_block_info block = { .size = sizeof block };
    hearth_model_info info = { .size = sizeof info };
    char fingerprint[33];
    hearth_status st;

    ht_profile_params(&s.params, sizeof s.params, params);
    s.scorer.go_on = go_on;
    s.scorer.user = &s;
    s.params.quality = s.params.quality > 0 ? s.params.quality : 0.01;
    hearth_model_get_info(m, &info);
    if (strcmp(info.io, "mmap") != 0)
        return (hearth_status)ht_fail(ht_profile_err(error), HT_EUNSUPPORTED,
                                      "predictors are looked for in models that fit into memory: trials take a second one");
    if (hearth_model_get_block(m, 0, &block) != HEARTH_OK || info.n_layer != p->n_layer || !s.params.scratch)
        return (hearth_status)ht_fail(s.err, HT_EINVAL, "training needs the profile's model and a path for trials");
    if ((st = hearth_model_fingerprint(m, fingerprint, error)) != HEARTH_OK)
        return st;
    if (strcmp(fingerprint, p->model) != 0)
        return (hearth_status)ht_fail(s.err, HT_EMISMATCH, "the profile is of another model (%s, not %s)", p->model,
                                      fingerprint);
    if (s.params.density != 0 && !(s.params.density >= 0.05 && s.params.density <= 1))
        return (hearth_status)ht_fail(s.err, HT_EINVAL, "a density of %g is not within 0.05 and 1", s.params.density);
    const bool thresholds = !block.has_zeros || s.params.density > 0;
    s.trials = p->n_layer + TRIALS;
    s.d_model = info.d_model;
    s.layers = calloc(p->n_layer, sizeof *s.layers);
    s.cost = calloc(p->n_layer, sizeof *s.cost);
    s.threshold = calloc(p->n_layer, sizeof *s.threshold);
    bool room = s.layers && s.cost && s.threshold;
    for (uint32_t il = 0; room && il < p->n_layer; il++)
        room =
            (s.threshold[il] = ht_profile_alloc(p, (size_t)p->layers[il].n_ff * p->layers[il].n_expert, sizeof(float)));
    if (!room)
        st = (hearth_status)ht_fail(s.err, HT_ENOMEM, "predictors");
    else if (thresholds)
        st = ht_search_thresholds(&s, text, n, held_out, n_held_out);
    else if ((st = learn(&s, text, n)) == HEARTH_OK &&
             (st = ht_scorer_open(&s.scorer, m, s.params.check_tokens, held_out, n_held_out, error)) == HEARTH_OK &&
             (st = probe_layers(&s)) == HEARTH_OK)
        st = bisect(&s);
    ht_scorer_close(&s.scorer);
    for (uint32_t il = 0; il < p->n_layer; il++) {
        hearth_profile_layer *l = &p->layers[il];
        const size_t a = (size_t)l->rank * info.d_model, b = (size_t)l->rank * l->n_ff;
        if (st == HEARTH_OK && l->rank) { /* the fits go, the profile's own copy stays */
            float *own = ht_profile_alloc(p, a + b, sizeof *own);
            if (own) {
                memcpy(own, l->low_a, a * sizeof *own);
                memcpy(own + a, l->low_b, b * sizeof *own);
            } else {
                st = (hearth_status)ht_fail(s.err, HT_ENOMEM, "predictors");
            }
            l->low_a = own;
            l->low_b = own ? own + a : NULL;
        } else {
            l->low_a = l->low_b = NULL;
        }
        if (st != HEARTH_OK) { /* the statistics stay, half a training does not */
            l->method = NULL;
            l->threshold = l->gate_threshold = l->hidden_threshold = NULL;
            l->rank = 0;
            l->recall = l->precision = l->predicted_density = -1;
        }
        if (s.layers)
            ht_fit_layer_free(&s.layers[il]);
    }
    if (st != HEARTH_OK)
        p->n_points = p->chosen = 0;
    free(s.layers);
    free(s.cost);
    free(s.threshold);
    return st;
}
