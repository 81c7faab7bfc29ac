/* SPDX-License-Identifier: MIT
 * Scoring a model that skips against the dense one, token by token; see train.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/train.h"

enum {
    WINDOW = 512,
    DEFAULT_TOKENS = 4096,
    LOGITS_BYTES = 512 << 20,
    SINGLE = 24 /* tokens fed one by one, for their bytes */
};

/* Logits to logarithms of probabilities; the best one. */
static uint32_t normalise(const float *logits, uint32_t n, float *out)
{
    uint32_t best = 0;
    double sum = 0;

    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - logits[best]);
    const float log_sum = logits[best] + (float)log(sum);
    for (uint32_t i = 0; i < n; i++)
        out[i] = logits[i] - log_sum;
    return best;
}

/* Feeds the text in windows; row(user, t, logits) for every token. */
typedef void row_fn(void *user, uint32_t t, const float *logits);
struct rows {
    row_fn *row;
    void *user;
    uint32_t first, skip;
};

static bool deliver(void *user, size_t i, const float *logits)
{
    struct rows *r = user;
    if (i >= r->skip)
        r->row(r->user, r->first + (uint32_t)i - r->skip, logits);
    return true;
}

static hearth_status walk(const ht_scorer *s, hearth_session *session, uint32_t n, row_fn *row, void *user,
                          hearth_error *err)
{
    struct rows r = { row, user, 0, s->bos };
    const uint32_t per = s->window - s->bos;
    hearth_token window[WINDOW];
    hearth_status st = HEARTH_OK;

    for (; r.first < n && st == HEARTH_OK; r.first += per) {
        if (s->go_on && !s->go_on(s->user))
            return HEARTH_ECANCELLED;
        const uint32_t k = n - r.first < per ? n - r.first : per;
        window[0] = s->bos_id;
        memcpy(window + s->bos, s->ids + r.first, k * sizeof *window);
        if ((st = hearth_session_rewind(session, 0, err)) == HEARTH_OK)
            st = hearth_session_feed(session, window, k + s->bos, deliver, &r, err);
    }
    return st;
}

static void keep(void *user, uint32_t t, const float *logits)
{
    ht_scorer *s = user;
    s->best[t] = normalise(logits, s->n_vocab, s->logits + (size_t)t * s->n_vocab);
}

static hearth_status open_session(hearth_session **out, const ht_scorer *s, hearth_model *m, hearth_error *err)
{
    hearth_session_params p = HEARTH_SESSION_PARAMS_INIT;
    p.n_ctx = s->window;
    return hearth_session_open(out, m, &p, err);
}

hearth_status ht_scorer_open(ht_scorer *s, hearth_model *dense, uint64_t most, const char *text, size_t n,
                             hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_model_info info = { .size = sizeof info };
    hearth_session *session = NULL;
    size_t n_ids = 0;
    hearth_status st;

    hearth_model_get_info(dense, &info);
    if ((st = hearth_tokenize(dense, text, n, false, false, &s->ids, &n_ids, error)) != HEARTH_OK)
        return st;
    const uint64_t fit = LOGITS_BYTES / (4ull * info.n_vocab);
    most = most ? most : DEFAULT_TOKENS;
    most = most < fit ? most : fit;
    s->n_vocab = info.n_vocab;
    s->n_tokens = (uint32_t)(n_ids < most ? n_ids : most);
    s->bos = info.add_bos && info.bos >= 0;
    s->bos_id = info.bos;
    s->window = info.n_ctx_train && info.n_ctx_train < WINDOW ? info.n_ctx_train : WINDOW;
    if (s->window <= 1u + s->bos)
        return (hearth_status)ht_fail(err, HT_EINVAL, "a context of %u is too short to measure a loss", s->window);
    if (s->n_tokens < 32)
        return (hearth_status)ht_fail(err, HT_EINVAL, "a held-out text of %zu tokens is too short to measure a loss",
                                      n_ids);
    s->logits = malloc((size_t)s->n_tokens * s->n_vocab * sizeof *s->logits);
    s->best = malloc(s->n_tokens * sizeof *s->best);
    if (!s->logits || !s->best)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "logits of %u held-out tokens", s->n_tokens);
    if ((st = open_session(&session, s, dense, error)) == HEARTH_OK)
        st = walk(s, session, s->n_tokens, keep, s, error);
    hearth_session_close(&session);
    return st;
}

void ht_scorer_close(ht_scorer *s)
{
    hearth_free(s->ids);
    free(s->logits);
    free(s->best);
}

struct comparing {
    const ht_scorer *s;
    float *mine;
    double *kl; /* [tokens] */
    uint32_t same;
};

static void compare(void *user, uint32_t t, const float *logits)
{
    struct comparing *c = user;
    const float *dense = c->s->logits + (size_t)t * c->s->n_vocab;
    double kl = 0;

    c->same += normalise(logits, c->s->n_vocab, c->mine) == c->s->best[t];
    for (uint32_t i = 0; i < c->s->n_vocab; i++)
        kl += exp((double)dense[i]) * ((double)dense[i] - c->mine[i]);
    c->kl[t] = isnan(kl) ? INFINITY : kl > 0 ? kl : 0;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

hearth_status ht_scorer_bytes(const ht_scorer *s, hearth_model *m, double *bytes, hearth_error *err)
{
    hearth_stats stats = { .size = sizeof stats };
    const uint32_t n = s->n_tokens < SINGLE ? s->n_tokens : SINGLE;
    hearth_session *session;
    hearth_status st = open_session(&session, s, m, err);

    for (uint32_t i = 0; i < n && st == HEARTH_OK; i++)
        st = hearth_session_feed(session, &s->ids[i], 1, NULL, NULL, err);
    if (st == HEARTH_OK) {
        hearth_session_get_stats(session, &stats);
        *bytes = (double)stats.weight_bytes_read / n;
    }
    hearth_session_close(&session);
    return st;
}

hearth_status ht_scorer_run(const ht_scorer *s, hearth_model *m, uint32_t tokens, ht_score *out, hearth_error *err)
{
    struct comparing c = { .s = s,
                           .mine = malloc(s->n_vocab * sizeof *c.mine),
                           .kl = malloc(s->n_tokens * sizeof *c.kl) };
    const uint32_t n = tokens < s->n_tokens ? tokens : s->n_tokens;
    hearth_stats stats = { .size = sizeof stats };
    hearth_session *session = NULL;
    hearth_status st;

    memset(out, 0, sizeof *out);
    if (!c.mine || !c.kl)
        st = (hearth_status)ht_fail(ht_profile_err(err), HT_ENOMEM, "scores of %u tokens", n);
    else if ((st = open_session(&session, s, m, err)) == HEARTH_OK &&
             (st = walk(s, session, n, compare, &c, err)) == HEARTH_OK) {
        for (uint32_t t = 0; t < n; t++)
            out->kl_mean += c.kl[t] / n;
        qsort(c.kl, n, sizeof *c.kl, by_value);
        out->kl_p99 = c.kl[(uint32_t)(0.99 * (n - 1) + 0.5)];
        out->agreement = (double)c.same / n;
        hearth_session_get_stats(session, &stats);
        out->quality = (ht_mask_quality){ stats.mask_neurons, stats.mask_active, stats.mask_predicted, stats.mask_hit };
    }
    hearth_session_close(&session);
    free(c.mine);
    free(c.kl);
    return st;
}
