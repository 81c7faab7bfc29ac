/* SPDX-License-Identifier: MIT
 *
 * Choosing a token: repetition penalty, top-k, temperature, top-p, min-p, then one draw. Candidates are kept as
 * (logit, id) sorted from the best, ties by id, so that a choice depends on the logits alone. All memory at open. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/objects.h"

typedef struct candidate {
    float logit;
    hearth_token id;
} candidate;

struct hearth_sampler {
    hearth_sampler_params p;
    uint32_t n_vocab;
    uint64_t rng;
    candidate *cand;       /* [n_vocab] */
    hearth_token *recent;  /* [repeat_window] ring */
    uint32_t n_recent, at;
};

/* splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

hearth_status hearth_sampler_open(hearth_sampler **out, const hearth_sampler_params *params, uint32_t n_vocab,
                                  hearth_error *error)
{
    ht_error *err = ht_err(error);
    hearth_sampler_params p;

    HT_PARAMS(&p, params);
    *out = NULL;
    if (n_vocab == 0 || !(p.temperature >= 0.0f) || isinf(p.temperature) || !(p.top_p >= 0.0f) || !(p.min_p >= 0.0f) ||
        !(p.repeat_penalty >= 0.0f) || isinf(p.repeat_penalty))
        return (hearth_status)ht_fail(err, HT_EINVAL, "sampling parameters must not be negative");
    hearth_sampler *s = calloc(1, sizeof *s);
    if (!s)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "sampler");
    s->p = p;
    s->n_vocab = n_vocab;
    s->rng = p.seed;
    if (s->p.repeat_window == 0)
        s->p.repeat_window = 64;
    if (s->p.repeat_window > 1u << 20)
        s->p.repeat_window = 1u << 20;
    s->cand = malloc(n_vocab * sizeof *s->cand);
    s->recent = malloc(s->p.repeat_window * sizeof *s->recent);
    if (!s->cand || !s->recent) {
        hearth_sampler_close(&s);
        return (hearth_status)ht_fail(err, HT_ENOMEM, "sampler");
    }
    *out = s;
    return HEARTH_OK;
}

void hearth_sampler_close(hearth_sampler **sp)
{
    if (!sp || !*sp)
        return;
    free((*sp)->cand);
    free((*sp)->recent);
    free(*sp);
    *sp = NULL;
}

uint32_t ht_sampler_n_vocab(const hearth_sampler *s) { return s->n_vocab; }

static bool worse(candidate a, candidate b) { return a.logit < b.logit || (a.logit == b.logit && a.id > b.id); }

static void swap(candidate *a, candidate *b)
{
    candidate t = *a;
    *a = *b;
    *b = t;
}

/* A heap of the k best with the worst of them on top. */
static void sift_down(candidate *h, uint32_t n, uint32_t i)
{
    for (;;) {
        uint32_t c = 2 * i + 1;
        if (c >= n)
            return;
        if (c + 1 < n && worse(h[c + 1], h[c]))
            c++;
        if (!worse(h[c], h[i]))
            return;
        swap(&h[i], &h[c]);
        i = c;
    }
}

/* The k best of all candidates, sorted, at the front. Sorted by the heap itself: qsort may allocate. */
static void keep_best(candidate *c, uint32_t n, uint32_t k)
{
    for (uint32_t i = k / 2; i-- > 0;)
        sift_down(c, k, i);
    for (uint32_t i = k; i < n; i++)
        if (worse(c[0], c[i])) {
            c[0] = c[i];
            sift_down(c, k, 0);
        }
    for (uint32_t n_heap = k; n_heap > 1; n_heap--) { /* the worst goes to the end */
        swap(&c[0], &c[n_heap - 1]);
        sift_down(c, n_heap - 1, 0);
    }
}

static void remember(hearth_sampler *s, hearth_token id)
{
    s->recent[s->at] = id;
    s->at = (s->at + 1) % s->p.repeat_window;
    if (s->n_recent < s->p.repeat_window)
        s->n_recent++;
}

/* NaN would break every comparison: it is the worst there is. */
static float own_logit(const float *logits, uint32_t id) { return isnan(logits[id]) ? -INFINITY : logits[id]; }

/* Keskar et al., CTRL (arXiv:1909.05858), section 4.1, in its usual form: divide what is positive, multiply what is
 * not. */
static void penalise(hearth_sampler *s, const float *logits)
{
    float r = s->p.repeat_penalty;
    if (r == 0.0f || r == 1.0f)
        return;
    for (uint32_t i = 0; i < s->n_recent; i++) {
        candidate *c = &s->cand[s->recent[i]];
        /* Once, however often it occurred: what has its own logit no more has had its penalty. (What has it still
         * after one is a number that a second leaves alone too.) */
        if (c->logit == own_logit(logits, (uint32_t)c->id))
            c->logit = c->logit > 0.0f ? c->logit / r : c->logit * r;
    }
}

hearth_token hearth_sampler_pick(hearth_sampler *s, const float *logits)
{
    candidate *c = s->cand;
    uint32_t n = s->n_vocab;

    for (uint32_t i = 0; i < n; i++)
        c[i] = (candidate){ own_logit(logits, i), (hearth_token)i };
    penalise(s, logits);
    if (s->p.temperature == 0.0f) {
        candidate best = c[0];
        for (uint32_t i = 1; i < n; i++)
            if (worse(best, c[i]))
                best = c[i];
        remember(s, best.id);
        return best.id;
    }

    /* Beyond a thousand candidates nothing is left to draw from in practice, and sorting a vocabulary costs
     * milliseconds: without top_k the tail is cut where its whole mass is below 2^-24 of the best. */
    uint32_t k = s->p.top_k && s->p.top_k < n ? s->p.top_k : n;
    if (k == n) {
        float top = c[0].logit;
        for (uint32_t i = 1; i < n; i++)
            top = c[i].logit > top ? c[i].logit : top;
        float cut = top - s->p.temperature * (16.7f + logf((float)n));
        uint32_t kept = 0;
        for (uint32_t i = 0; i < n; i++)
            if (c[i].logit >= cut)
                c[kept++] = c[i];
        n = k = kept ? kept : 1;
    }
    keep_best(c, n, k);
    if (isinf(c[0].logit)) { /* nothing to weigh against each other */
        remember(s, c[0].id);
        return c[0].id;
    }

    double sum = 0.0, mass = 0.0;
    for (uint32_t i = 0; i < k; i++)
        sum += exp((double)(c[i].logit - c[0].logit) / s->p.temperature);
    uint32_t kept = 0;
    for (; kept < k; kept++) {
        double p = exp((double)(c[kept].logit - c[0].logit) / s->p.temperature);
        if (kept > 0 && s->p.top_p > 0.0f && s->p.top_p < 1.0f && mass >= (double)s->p.top_p * sum)
            break;
        if (kept > 0 && p < (double)s->p.min_p)
            break;
        mass += p;
    }
    double draw = (double)(next_random(&s->rng) >> 11) * 0x1p-53 * mass;
    uint32_t pick = 0;
    for (double at = 0.0; pick + 1 < kept; pick++) {
        at += exp((double)(c[pick].logit - c[0].logit) / s->p.temperature);
        if (draw < at)
            break;
    }
    remember(s, c[pick].id);
    return c[pick].id;
}
