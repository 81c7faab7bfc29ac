/* SPDX-License-Identifier: MIT
 * Recorded routing: memory, sessions, order; see routes.h. The file is in routes_file.c. */
#include "offline_profiler/routes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Memory ---- */

void hearth_routes_close(hearth_routes **rp)
{
    hearth_routes *r = rp ? *rp : NULL;
    if (!r)
        return;
    if (r->replayed) {
        ht_uses_free(r->replayed);
        free(r->replayed);
    }
    free(r->expert_bytes);
    free(r->dense_bytes);
    free(r->rows);
    free(r);
    *rp = NULL;
}

hearth_status hearth_routes_open(hearth_routes **out, const hearth_model *m, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_model_info info = { .size = sizeof info };
    hearth_routes *r;

    *out = NULL;
    hearth_model_get_info(m, &info);
    if (info.n_expert < 2)
        return (hearth_status)ht_fail(err, HT_EINVAL, "this model has no mixture of experts: there is no routing");
    if (!(r = calloc(1, sizeof *r)) || !(r->expert_bytes = calloc(info.n_layer, sizeof *r->expert_bytes)) ||
        !(r->dense_bytes = calloc(info.n_layer, sizeof *r->dense_bytes))) {
        hearth_routes_close(&r);
        return (hearth_status)ht_fail(err, HT_ENOMEM, "routing");
    }
    r->n_layer = info.n_layer;
    r->n_expert = info.n_expert;
    r->n_used = info.n_expert_used;
    strncpy(r->model, info.name, sizeof r->model - 1);
    for (char *p = r->model; *p; p++)
        if ((unsigned char)*p <= ' ')
            *p = '_';
    strncpy(r->arch, info.architecture, sizeof r->arch - 1);
    hearth_status st = hearth_model_fingerprint(m, r->fingerprint, error);
    if (st != HEARTH_OK) {
        hearth_routes_close(&r);
        return st;
    }
    uint64_t mixtures = 0;
    for (uint32_t i = 0; i < r->n_layer; i++) {
        hearth_block_info b = { .size = sizeof b };
        hearth_model_get_block(m, i, &b);
        r->expert_bytes[i] = b.n_expert > 1 ? b.expert_bytes : 0;
        mixtures += r->expert_bytes[i] * b.n_expert;
    }
    for (uint32_t i = 0; i < r->n_layer; i++) /* the rest, shared out evenly */
        r->dense_bytes[i] = info.weight_bytes > mixtures ? (info.weight_bytes - mixtures) / r->n_layer : 0;
    *out = r;
    return HEARTH_OK;
}

hearth_status hearth_routes_get_info(const hearth_routes *r, hearth_routes_info *out)
{
    hearth_routes_info i = { .model = r->model, .architecture = r->arch, .fingerprint = r->fingerprint, .n_layer = r->n_layer, .n_expert = r->n_expert,
                             .n_used = r->n_used };
    for (uint32_t l = 0; l < r->n_layer; l++)
        i.expert_bytes += r->expert_bytes[l] * r->n_expert;
    for (size_t k = 0; k < r->n_rows; k++)
        if (r->rows[k].layer == r->rows[0].layer && r->rows[k].slot == 0)
            *(r->rows[k].generated ? &i.generated_tokens : &i.prompt_tokens) += 1;
    ht_profile_result(out, &i, sizeof i);
    return HEARTH_OK;
}

/* ---- Uses ---- */

void ht_uses_free(ht_uses *u)
{
    free(u->use);
    free(u->experts);
    free(u->counts);
    free(u->taken);
    free(u->weights);
    free(u->token_at);
    *u = (ht_uses){ 0 };
}

/* One prompt, rows [from, to): layer after layer, each expert once. at: [n_expert], zero before and after: place of
 * an expert in the use, from 1. */
static void add_batch(const hearth_routes *r, size_t from, size_t to, ht_uses *u, size_t *n_ids, uint32_t *at)
{
    size_t n_taken = from; /* a row of the file each */

    for (uint32_t il = 0; il < r->n_layer; il++) {
        ht_use use = { .layer = il, .token = u->n_tokens, .first = *n_ids, .tokens = n_taken, .batch = true };
        for (size_t k = from; k < to; k++) {
            if (r->rows[k].layer != il)
                continue;
            use.n_tokens += r->rows[k].slot == 0;
            u->taken[n_taken++] = r->rows[k].expert;
            if (at[r->rows[k].expert]) {
                u->counts[use.first + at[r->rows[k].expert] - 1]++;
                continue;
            }
            at[r->rows[k].expert] = use.n + 1;
            u->counts[*n_ids] = 1;
            u->experts[*n_ids] = r->rows[k].expert;
            u->weights[(*n_ids)++] = r->rows[k].weight;
            use.n++;
        }
        for (uint32_t i = 0; i < use.n; i++)
            at[u->experts[use.first + i]] = 0;
        if (use.n_tokens && (n_taken - use.tokens) % use.n_tokens == 0)
            use.n_taken = (uint32_t)((n_taken - use.tokens) / use.n_tokens);
        if (use.n)
            u->use[u->n++] = use;
    }
    u->n_tokens++;
}

static size_t add_token(const hearth_routes *r, size_t from, ht_uses *u, size_t *n_ids)
{
    const ht_route_row *w = r->rows;
    size_t k = from;
    u->token_at[u->n_generated++] = u->n;
    while (k < r->n_rows && w[k].generated && w[k].turn == w[from].turn && w[k].step == w[from].step) {
        if (k == from || w[k].layer != w[k - 1].layer)
            u->use[u->n++] = (ht_use){ .layer = w[k].layer, .token = u->n_tokens, .first = *n_ids };
        u->experts[*n_ids] = w[k].expert;
        u->weights[(*n_ids)++] = w[k].weight;
        u->use[u->n - 1].n++;
        k++;
    }
    u->token_at[u->n_generated] = u->n;
    u->n_tokens++;
    return k;
}

ht_status ht_routes_uses(const hearth_routes *r, ht_uses *out, ht_error *err)
{
    const size_t n = r->n_rows + 1;
    size_t n_ids = 0;
    uint32_t *at = calloc(r->n_expert, sizeof *at);

    *out = (ht_uses){ .use = calloc(n, sizeof *out->use),
                      .experts = malloc(n * sizeof *out->experts),
                      .counts = calloc(n, sizeof *out->counts),
                      .taken = calloc(n, sizeof *out->taken),
                      .weights = malloc(n * sizeof *out->weights),
                      .token_at = calloc(n + 1, sizeof *out->token_at) };
    if (!at || !out->use || !out->experts || !out->counts || !out->taken || !out->weights || !out->token_at) {
        ht_uses_free(out);
        free(at);
        return ht_fail(err, HT_ENOMEM, "routing of %zu rows", r->n_rows);
    }
    for (size_t k = 0; k < r->n_rows;) {
        size_t end = k;
        if (r->rows[k].generated) {
            k = add_token(r, k, out, &n_ids);
            continue;
        }
        while (end < r->n_rows && !r->rows[end].generated && r->rows[end].turn == r->rows[k].turn)
            end++;
        add_batch(r, k, end, out, &n_ids, at);
        k = end;
    }
    free(at);
    return HT_OK;
}

/* ---- Sessions ---- */

static bool on_record(void *user, const hearth_route *p)
{
    hearth_routes *r = user;
    const size_t n = (size_t)p->n_pass * p->n_used;
    const bool generated = p->n_pass == 1;

    if (p->n_layer != r->n_layer || p->n_expert > r->n_expert || p->n_used > r->n_used)
        return false; /* a record of another model */
    if (n > r->room - r->n_rows) {
        size_t room = 2 * r->room + n + 4096;
        ht_route_row *more = realloc(r->rows, room * sizeof *more);
        if (!more)
            return false;
        r->rows = more;
        r->room = room;
    }
    const bool again = r->n_rows && (p->position < r->last_position || (p->position == r->last_position && p->layer <= r->last_layer));
    if ((!generated && r->generating) || again) /* or the session was rewound */
        r->turn++;
    r->generating = generated;
    r->last_position = p->position;
    r->last_layer = p->layer;
    for (size_t i = 0; i < n; i++)
        r->rows[r->n_rows++] = (ht_route_row){ .turn = r->turn,
                                               .step = p->position + (uint32_t)(i / p->n_used),
                                               .layer = p->layer,
                                               .slot = (uint32_t)(i % p->n_used),
                                               .expert = p->expert_ids[i],
                                               .weight = p->expert_weights[i],
                                               .generated = generated };
    return true;
}

hearth_status hearth_routes_record(hearth_routes *r, hearth_session *s)
{
    return hearth_session_route(s, on_record, r);
}

/* The heaviest k of n experts, ascending ids into ids[k]; the weights in w are lost. */
static void heaviest(const uint32_t *experts, const float *weights, uint32_t n, uint32_t k, uint32_t n_expert,
                     uint32_t *ids)
{
    for (uint32_t i = 0; i < k; i++) {
        uint32_t best = n;
        for (uint32_t j = 0; j < n; j++) { /* the i-th by weight, ties by place */
            uint32_t before = 0;
            for (uint32_t m = 0; m < n; m++)
                before += weights[m] > weights[j] || (weights[m] == weights[j] && m < j);
            if (before == i)
                best = j;
        }
        uint32_t id = best < n ? experts[best] % n_expert : i;
        for (uint32_t j = 0; j < i; j++) /* the next free one */
            if (ids[j] == id) {
                id = (id + 1) % n_expert;
                j = UINT32_MAX;
            }
        ids[i] = id;
    }
    for (uint32_t i = 1; i < k; i++)
        for (uint32_t j = i; j > 0 && ids[j] < ids[j - 1]; j--) {
            uint32_t swap = ids[j];
            ids[j] = ids[j - 1];
            ids[j - 1] = swap;
        }
}

static bool on_replay(void *user, const hearth_route *p)
{
    hearth_routes *r = user;
    const ht_uses *u = r->replayed;

    if (p->layer <= r->layer) /* another pass */
        r->next = (r->next + r->n_pass) % u->n_generated;
    r->layer = p->layer;
    r->n_pass = p->n_pass;
    for (uint32_t t = 0; t < p->n_pass; t++) {
        const uint32_t token = (r->next + t) % u->n_generated, k = p->n_used;
        uint32_t *ids = p->expert_ids + (size_t)t * k;
        float *w = p->expert_weights + (size_t)t * k, sum = 0.0f, all = 0.0f, top = -INFINITY;
        const float *logits = p->router_logits + (size_t)t * p->n_expert;
        for (size_t i = u->token_at[token]; i < u->token_at[token + 1]; i++)
            if (u->use[i].layer == p->layer && u->use[i].n >= k)
                heaviest(u->experts + u->use[i].first, u->weights + u->use[i].first, u->use[i].n, k, p->n_expert, ids);
        for (uint32_t i = 0; i < k; i++) {
            sum += w[i];
            top = logits[ids[i]] > top ? logits[ids[i]] : top;
        }
        for (uint32_t i = 0; i < k; i++)
            all += w[i] = expf(logits[ids[i]] - top);
        for (uint32_t i = 0; i < k; i++)
            w[i] *= sum / all;
    }
    return true;
}

hearth_status hearth_routes_replay(hearth_routes *r, hearth_session *s, const hearth_model *m, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    hearth_model_info info = { .size = sizeof info };
    ht_status st;

    hearth_model_get_info(m, &info);
    if (info.n_expert < 2)
        return (hearth_status)ht_fail(err, HT_EMISMATCH, "this model has no mixture of experts: no routing can be replayed");
    if (info.n_layer > r->n_layer || info.n_expert_used > r->n_used || info.n_expert < r->n_expert)
        return (hearth_status)ht_fail(err, HT_EMISMATCH,
                                      "the recorded routing has %u layers and %u of %u experts used, the model %u and %u of %u: "
                                      "it fits models of no more layers, no more used and no fewer experts",
                                      r->n_layer, r->n_used, r->n_expert, info.n_layer, info.n_expert_used, info.n_expert);
    if (!r->replayed) {
        if (!(r->replayed = calloc(1, sizeof *r->replayed)))
            return (hearth_status)ht_fail(err, HT_ENOMEM, "routing");
        if ((st = ht_routes_uses(r, r->replayed, err)) != HT_OK)
            return (hearth_status)st;
    }
    if (!r->replayed->n_generated)
        return (hearth_status)ht_fail(err, HT_EMISMATCH, "the recorded routing has no generated token");
    r->next = r->n_pass = r->layer = 0;
    return hearth_session_route(s, on_replay, r);
}
