/* SPDX-License-Identifier: MIT
 *
 * Feed-forward blocks: dense, or a mixture whose router says which experts are leased and computed. Experts that come from
 * the disk while others are computed: layer_stream.c. */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "engine/layer_impl.h"
#include "engine/miss.h"
#include "engine/predict.h"

static const float *expert_bias(const float *b, uint32_t expert, uint32_t n)
{
    return b ? b + (size_t)expert * n : NULL;
}

/* What a profile's thresholds cut within the block. */
static void set_thresholds(const ht_forward *f, uint32_t il, uint32_t expert, ht_ffn_item *it)
{
    const ht_predict_layer *p = f->m->predict ? &f->m->predict->layers[il] : NULL;

    if (!p || p->kind != HT_PREDICT_THRESHOLD)
        return;
    it->gate_least = p->gate_least[expert];
    it->h_least = p->hidden_least[expert];
}

ht_status ht_ffn_lease(ht_forward *f, uint32_t which, ht_ffn_item *it, ht_error *err)
{
    const ht_cluster *c = &f->ticket.clusters[which];
    const ht_ffn *ff = &f->m->layers[c->layer].ffn;
    const uint32_t e = c->expert;

    it->bias[HT_ROLE_GATE] = expert_bias(ff->bias[HT_ROLE_GATE], e, ff->n_ff);
    it->bias[HT_ROLE_UP] = expert_bias(ff->bias[HT_ROLE_UP], e, ff->n_ff);
    it->bias[HT_ROLE_DOWN] = expert_bias(ff->bias[HT_ROLE_DOWN], e, f->m->d_model);
    set_thresholds(f, c->layer, e, it);
    return ht_store_lease(f->store, &f->ticket, which, it->part, &it->down_t, err);
}

/* What was counted since the last look, into the density lately. */
static void look_at(ht_layer_load *l)
{
    const uint64_t active = atomic_load_explicit(&l->n_active, memory_order_relaxed);
    const uint64_t neurons = atomic_load_explicit(&l->n_neurons, memory_order_relaxed);

    if (neurons == l->seen_neurons)
        return;
    const float now = (float)(active - l->seen_active) / (float)(neurons - l->seen_neurons);
    l->density = l->density < 0.0f ? now : l->density + 0.25f * (now - l->density);
    l->seen_active = active;
    l->seen_neurons = neurons;
}

/* By masks, before the block; thresholds act within it. */
bool ht_ffn_foretold(const ht_forward *f, uint32_t il)
{
    return f->m->predict && ht_predict_masks(&f->m->predict->layers[il]);
}

ht_op_ffn ht_ffn_op(ht_forward *f, const ht_ffn *ff, ht_ffn_item *items, uint32_t n_items, uint32_t n_ff, float *y,
                    uint32_t il, bool shared, uint32_t n_tok)
{
    const ht_model *m = f->m;
    ht_op_ffn op = { .items = items, .n_items = n_items, .n_ff = n_ff, .d_model = m->d_model, .x = f->xn, .h = f->h,
                     .gathered = f->gathered, .act = m->act, .act_param = m->act_param, .h_norm = ff->sub_norm.w,
                     .h_norm_eps = m->norm_eps, .y = y, .y_stride = m->d_model };
    op.h.stride = n_ff;
    if (op.h.q8.stride) /* rows of neurons are multiplied by h as it is */
        op.h.q8.stride = n_ff % 32 || items->part[HT_ROLE_DOWN].layout == HT_LAYOUT_COLUMNS ? 0 : n_ff;
    op.work = f->ffn_work;
    if (!shared && ht_ffn_foretold(f, il)) {
        op.mask = f->mask;
        op.mask_stride = f->mask_words;
    }
    op.counts = shared ? NULL : &f->counts;
    if (n_tok > 1)
        return op;
    ht_layer_load *load = &f->loads[il];
    op.n_active = &load->n_active;
    op.n_neurons = &load->n_neurons;
    op.n_bytes = &f->n_bytes;
    op.sparse = f->sparse && !f->trace; /* who listens wants every hidden unit written */
    if (f->sparse && !shared)
        look_at(load);
    const ht_neuron_block *b = ht_store_block(f->store, il, shared);
    const ht_part *up = shared ? &ff->shared[HT_ROLE_UP] : &ff->experts[0][HT_ROLE_UP];
    if (!op.mask && load->density > ht_cpu_crossover((ht_type)up->type).gather && !ht_layer_prefers_neurons(b, load->density))
        op.sparse = false; /* nothing would be left out: the dense way has no lists to make */
    if (!op.sparse || !ht_layer_prefers_neurons(b, load->density))
        for (uint32_t i = 0; i < n_items; i++)
            items[i].down_t.host = NULL;
    return op;
}

ht_status ht_ffn_tell(ht_forward *f, ht_ops *o, uint32_t il, uint32_t n, uint32_t first, bool shared,
                      const ht_cancel *cancel, ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    const ht_op_ffn op = o->op[o->n - 1].ffn;
    ht_event done;
    ht_status st;

    if (!f->trace)
        return HT_OK;
    if ((st = ht_ops_submit(f, o, &done, err)) != HT_OK)
        return st;
    if ((st = f->exec->ops->wait(f->exec, done, cancel)) != HT_OK)
        return ht_fail(err, st, "cancelled");
    hearth_trace t = { .size = sizeof t, .layer = il, .n_layer = f->m->n_layer, .d_model = op.d_model, .n_ff = op.n_ff,
                       .n_pass = n, .position = f->pass_pos, .input = op.x.f, .input_stride = op.x.stride,
                       .hidden_stride = op.h.stride };
    if (ff->router.host && !shared) {
        t.n_expert = ff->n_expert;
        t.n_used = ff->n_used;
        t.router_logits = f->router;
        t.expert_ids = f->expert_ids;
        t.expert_weights = f->expert_weights;
    }
    for (uint32_t i = 0; i < op.n_items; i++) {
        const ht_ffn_item *it = &op.items[i];
        t.expert = shared ? HEARTH_TRACE_SHARED : t.n_expert ? f->clusters[first + i].expert : 0;
        t.n_tokens = it->n_tokens;
        t.tokens = it->tokens;
        t.hidden = op.h.f + (size_t)it->slot * op.h.stride;
        if (!f->trace(f->trace_user, &t))
            return ht_fail(err, HT_ECANCELLED, "cancelled by the caller");
    }
    return HT_OK;
}

void ht_ffn_foretell(ht_ops *o, ht_forward *f, uint32_t il, uint32_t expert, const ht_ffn_item *it)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    const ht_predict_layer *p = &f->m->predict->layers[il];
    uint32_t k = f->m->d_model, rank = p->a.n;
    ht_op_predict op = { .n = ff->n_ff, .k = k, .threshold = p->threshold + (size_t)expert * ff->n_ff,
                         .mask = f->mask + (size_t)it->slot * f->mask_words, .mask_stride = f->mask_words };

    if (p->kind == HT_PREDICT_LOW_RANK) {
        ht_act low = f->low;
        low.stride = rank;
        if (low.q8.stride)
            low.q8.stride = rank % 32 ? 0 : rank;
        if (p->residual)
            ht_ops_norm(o, f->m, (ht_norm){ NULL, NULL }, f->x, k, f->before);
        ht_ops_matmul(o, p->a, NULL, p->residual ? f->before : f->xn, low.f, rank, false);
        if (p->relu)
            ht_ops_add(o, HT_OP_GATE)->gate = (ht_op_gate){ .y = low.f, .y_stride = rank, .k = rank, .group = rank,
                                                            .act = HT_ACT_RELU };
        if (low.q8.stride)
            ht_ops_add(o, HT_OP_QUANTISE)->quantise = (ht_op_quantise){ .x = low, .k = rank };
        ht_ops_matmul(o, p->b, NULL, low, f->scores, ff->n_ff, false);
        op.scores = f->scores;
        op.scores_stride = ff->n_ff;
    } else {
        op.signs = p->signs + (size_t)expert * p->signs_bytes;
        op.x = f->xn.f;
        op.x_stride = f->xn.stride;
        op.tokens = it->tokens;
        op.work = f->predict_work;
    }
    ht_op *queued = ht_ops_add(o, HT_OP_PREDICT);
    queued->n_tok = it->n_tokens;
    queued->predict = op;
}

/* Sorts (token, expert) pairs by expert: one item per expert that any token chose, tokens ascending. Returns the
 * number. */
static uint32_t group_by_expert(ht_forward *f, const ht_ffn *ff, uint32_t il, uint32_t n, ht_ffn_item *items)
{
    uint32_t n_items = 0, slot = 0;

    for (uint32_t e = 0; e < ff->n_expert; e++)
        f->clusters[e] = (ht_cluster){ .layer = il, .expert = e, .n = 0 };
    for (uint32_t i = 0; i < n * ff->n_used; i++)
        f->clusters[f->expert_ids[i]].n++;
    for (uint32_t e = 0; e < ff->n_expert; e++) { /* n counts tokens until here, neurons after */
        uint32_t count = f->clusters[e].n;
        if (count == 0)
            continue;
        items[n_items] =
            (ht_ffn_item){ .tokens = f->item_tokens + slot, .weights = f->item_weights + slot, .slot = slot };
        f->clusters[n_items] = (ht_cluster){ .layer = il, .expert = e, .n = ff->n_ff };
        n_items++;
        slot += count;
    }
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t j = 0; j < ff->n_used; j++) {
            uint32_t e = f->expert_ids[t * ff->n_used + j], lo = 0, hi = n_items;
            while (hi - lo > 1) { /* items are in ascending order of their experts */
                uint32_t mid = (lo + hi) / 2;
                if (f->clusters[mid].expert <= e)
                    lo = mid;
                else
                    hi = mid;
            }
            ht_ffn_item *it = &items[lo];
            uint32_t at = it->slot + it->n_tokens++;
            f->item_tokens[at] = t;
            f->item_weights[at] = f->expert_weights[t * ff->n_used + j];
        }
    return n_items;
}

void ht_ffn_route(ht_ops *o, ht_forward *f, const ht_ffn *ff, ht_act x)
{
    ht_ops_matmul(o, ff->router, ff->router_b, x, f->router, ff->n_expert, false);
    ht_ops_add(o, HT_OP_ROUTE)->route = (ht_op_route){ .logits = f->router,
                                                .logits_stride = ff->n_expert,
                                                .n_expert = ff->n_expert,
                                                .k = ff->n_used,
                                                .gating = ff->gating,
                                                .renormalise = ff->renormalise,
                                                .scale = ff->weights_scale,
                                                .select_bias = ff->select_bias,
                                                .ids = f->expert_ids,
                                                .weights = f->expert_weights };
}

/* Who listens to routing may change it; what came back is checked, for lists and leases are made of it. */
static ht_status ask_route(ht_forward *f, const ht_ffn *ff, uint32_t il, uint32_t n, ht_error *err)
{
    const hearth_route r = { .size = sizeof r, .layer = il, .n_layer = f->m->n_layer, .n_expert = ff->n_expert,
                             .n_used = ff->n_used, .n_pass = n, .position = f->pass_pos, .router_logits = f->router,
                             .expert_ids = f->expert_ids, .expert_weights = f->expert_weights };
    if (!f->route(f->route_user, &r))
        return ht_fail(err, HT_ECANCELLED, "cancelled by the caller");
    for (uint32_t i = 0; i < n * ff->n_used; i++)
        if (f->expert_ids[i] >= ff->n_expert || (i % ff->n_used && f->expert_ids[i] <= f->expert_ids[i - 1]))
            return ht_fail(err, HT_EINVAL, "layer %u: the caller's routing names expert %u of %u, or not in ascending order",
                           il, f->expert_ids[i], ff->n_expert);
        else if (!isfinite(f->expert_weights[i]))
            return ht_fail(err, HT_EINVAL, "layer %u: the caller's routing has a weight that is no finite number", il);
    return HT_OK;
}

ht_status ht_ffn_choose(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_error *err)
{
    ht_ffn_item *items = f->items + f->m->n_layer;
    const bool token = n == 1 && f->store->disk;
    ht_event done;
    ht_status st;

    if ((st = ht_ops_submit(f, o, &done, err)) != HT_OK)
        return st;
    if ((st = f->exec->ops->wait(f->exec, done, cancel)) != HT_OK)
        return ht_fail(err, st, "cancelled");
    if (token)
        ht_miss_route(f, il);
    if (f->route && (st = ask_route(f, &f->m->layers[il].ffn, il, n, err)) != HT_OK)
        return st;
    ht_store_release(f->store, &f->ticket); /* of the layer before, which is done */
    uint32_t n_items = group_by_expert(f, &f->m->layers[il].ffn, il, n, items);
    for (uint32_t i = 0; i < n_items; i++)
        f->item_counts[i] = items[i].n_tokens;
    ht_store_used(f->store, f->clusters, f->item_counts, n_items, n);
    if (n > 1)
        ht_store_remember(f->store, il, f->expert_ids, n, f->m->layers[il].ffn.n_used);
    if (token)
        n_items = ht_miss_settle(f, il, items, n_items);
    ht_stream_choose_parts(f, il, n);
    const bool some = token && f->store->miss.on_miss == HT_MISS_LOW;
    st = some ? ht_store_want_some(f->store, f->clusters, f->miss_low, n_items, cancel, &f->ticket)
              : ht_store_want(f->store, f->clusters, n_items, n > 1, cancel, &f->ticket);
    if (st != HT_OK)
        return st == HT_ECANCELLED ? ht_fail(err, st, "cancelled")
                                   : ht_fail(err, st, "there is no room for the experts of layer %u", il);
    return HT_OK;
}

static ht_status dense(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, float *y, const ht_cancel *cancel, ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    ht_ffn_item *it = &f->items[il];
    ht_status st;

    memset(it, 0, sizeof *it);
    it->n_tokens = n;
    f->clusters[0] = (ht_cluster){ .layer = il, .n = ff->n_ff };
    if ((st = ht_store_want(f->store, f->clusters, 1, n > 1, cancel, &f->ticket)) || (st = ht_ffn_lease(f, 0, it, err)))
        return ht_fail(err, st, "weights of layer %u are not available", il);
    if (ht_ffn_foretold(f, il))
        ht_ffn_foretell(o, f, il, 0, it);
    ht_ops_add(o, HT_OP_FFN)->ffn = ht_ffn_op(f, ff, it, 1, ff->n_ff, y, il, false, n);
    ht_store_release(f->store, &f->ticket); /* the mapping stays */
    return ht_ffn_tell(f, o, il, n, 0, false, cancel, err);
}

static ht_status mixture(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    ht_ffn_item *items = f->items + f->m->n_layer;
    const uint32_t n_items = f->ticket.n;
    ht_status st;

    for (uint32_t i = 0; i < n_items; i++)
        if ((st = ht_ffn_lease(f, i, &items[i], err)) != HT_OK)
            return ht_fail(err, st, "expert %u of layer %u is not available", f->clusters[i].expert, il);
    for (uint32_t i = 0; ht_ffn_foretold(f, il) && i < n_items; i++) {
        ht_ffn_foretell(o, f, il, f->clusters[i].expert, &items[i]);
        if (o->n == HT_MAX_OPS / 2 && (st = ht_ops_submit(f, o, NULL, err)) != HT_OK)
            return st;
    }
    ht_ops_add(o, HT_OP_FFN)->ffn = ht_ffn_op(f, ff, items, n_items, ff->n_ff, f->y, il, false, n);
    ht_store_release(f->store, &f->ticket);
    return ht_ffn_tell(f, o, il, n, 0, false, cancel, err);
}

ht_status ht_ffn_shared(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    ht_ffn_item *it = &f->items[il];
    ht_status st;

    if (!ff->shared_n_ff)
        return HT_OK;
    memset(it, 0, sizeof *it);
    memcpy(it->part, ff->shared, sizeof it->part);
    it->down_t = ht_store_shared_down_t(f->store, il);
    it->n_tokens = n;
    ht_ops_add(o, HT_OP_FFN)->ffn = ht_ffn_op(f, ff, it, 1, ff->shared_n_ff, f->y2, il, true, n);
    if ((st = ht_ffn_tell(f, o, il, n, 0, true, cancel, err)) != HT_OK)
        return st;
    if (ff->shared_gate.host) {
        ht_ops_matmul(o, ff->shared_gate, NULL, f->xn, f->shared_gate, 1, false);
        ht_ops_add(o, HT_OP_GATE)->gate = (ht_op_gate){ .gate = f->shared_gate, .y = f->y2, .gate_stride = 1,
                                                        .y_stride = f->m->d_model, .k = f->m->d_model,
                                                        .act = HT_ACT_SIGMOID, .per_row = true };
    }
    return HT_OK;
}

ht_status ht_ffn_run(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, float *y, const ht_cancel *cancel, ht_error *err)
{
    const ht_model *m = f->m;
    const ht_ffn *ff = &m->layers[il].ffn;
    const bool streamed = f->store->disk != NULL;
    bool shared = false;
    ht_status st;

    if (!ff->router.host)
        return streamed ? ht_stream_dense(o, f, il, n, y, cancel, err) : dense(o, f, il, n, y, cancel, err);
    if (!m->arch->router_before_attn) {
        ht_ffn_route(o, f, ff, f->xn);
        ht_stream_guess(o, f, il);
    }
    if ((!streamed || !m->arch->router_before_attn) && (st = ht_ffn_choose(o, f, il, n, cancel, err)) != HT_OK)
        return st;
    st = streamed ? ht_stream_mixture(o, f, il, n, &shared, cancel, err) : mixture(o, f, il, n, cancel, err);
    if (st != HT_OK || !ff->shared_n_ff)
        return st;
    if (!shared && (st = ht_ffn_shared(o, f, il, n, cancel, err)) != HT_OK)
        return st;
    ht_ops_add(o, HT_OP_ADD)->add = (ht_op_add){ .x = f->y2, .y = f->y, .x_stride = m->d_model, .y_stride = m->d_model,
                                                 .k = m->d_model, .ax = 1.0f, .ay = 1.0f };
    return HT_OK;
}
