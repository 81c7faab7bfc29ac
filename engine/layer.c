/* SPDX-License-Identifier: MIT
 *
 * One transformer layer, written once: which operations it has follows from what the model's layer holds. Attention
 * or gated delta net, then a feed-forward block whose dense form is a mixture of one expert. Operations are queued;
 * the host waits only where a mixture's router must say which experts to lease. */
#include "engine/forward.h"

#include <string.h>

#include "cpu/cpu.h"
#include "engine/predict.h"

enum { MAX_OPS = 32 };

typedef struct ops {
    ht_op op[MAX_OPS];
    uint32_t n, n_tok;
} ops;

static ht_op *add(ops *o, ht_op_kind kind)
{
    ht_op *op = &o->op[o->n++];
    *op = (ht_op){ .kind = kind, .n_tok = o->n_tok };
    return op;
}

static ht_status submit(ht_forward *f, ops *o, ht_event *done, ht_error *err)
{
    ht_status st = f->exec->ops->submit(f->exec, o->op, o->n, done);
    o->n = 0;
    return st == HT_OK ? st
                       : ht_fail(err, st, "the %s executor cannot run an operation of this model", f->exec->ops->name);
}

static void norm(ops *o, const ht_model *m, ht_norm w, const float *x, uint32_t k, ht_act out)
{
    add(o, HT_OP_NORM)->norm = (ht_op_norm){ .x = x,
                                             .x_stride = k,
                                             .k = k,
                                             .group = k,
                                             .eps = m->norm_eps,
                                             .kind = w.w ? m->arch->norm : HT_NORM_NONE,
                                             .weight = w.w,
                                             .bias = w.b,
                                             .out = out };
}

static ht_act plain(float *f, uint32_t stride) { return (ht_act){ .f = f, .stride = stride }; }

static void matmul(ops *o, ht_part w, const float *bias, ht_act x, float *y, uint32_t y_stride, bool joined)
{
    ht_op *op = add(o, HT_OP_MATMUL);
    op->joined = joined;
    op->matmul = (ht_op_matmul){ .w = w, .bias = bias, .x = x, .y = y, .y_stride = y_stride, .scale = 1.0f };
}

/* x += scale * y, y being a block's output; after the norm that some models put on it. */
static void residual(ops *o, ht_forward *f, ht_norm post, float *y)
{
    const ht_model *m = f->m;
    if (post.w)
        norm(o, m, post, y, m->d_model, plain(y, m->d_model));
    add(o, HT_OP_ADD)->add = (ht_op_add){ .x = y,
                                          .y = f->x,
                                          .x_stride = m->d_model,
                                          .y_stride = m->d_model,
                                          .k = m->d_model,
                                          .ax = m->residual_scale,
                                          .ay = 1.0f };
}

/* Norms of q and k (per head, or over the whole width), then rotation. Returns where q is: [n_head][k_dim] per
 * token. */
static float *place_q_and_k(ops *o, ht_forward *f, const ht_attn *a)
{
    const ht_model *m = f->m;
    uint32_t nq = a->n_head * a->k_dim, nk = a->n_kv * a->k_dim;
    float *q = a->gated ? f->qn : f->q; /* gated heads lie apart: the norm (or copy) brings them together */

    if (a->q_norm.w || a->gated) {
        uint32_t group = a->norm_full ? nq : a->k_dim;
        add(o, HT_OP_NORM)->norm = (ht_op_norm){ .x = f->q, .x_stride = a->q.n, .k = nq, .group = group,
                                                 .x_group = a->gated ? 2 * a->k_dim : 0, .eps = m->norm_eps,
                                                 .kind = a->q_norm.w ? m->arch->norm : HT_NORM_NONE,
                                                 .weight = a->q_norm.w, .bias = a->q_norm.b, .out = plain(q, nq) };
    }
    if (a->k_norm.w) {
        ht_op *op = add(o, HT_OP_NORM);
        op->joined = a->q_norm.w || a->gated;
        op->norm = (ht_op_norm){ .x = f->k,
                                 .x_stride = nk,
                                 .k = nk,
                                 .group = a->norm_full ? nk : a->k_dim,
                                 .eps = m->norm_eps,
                                 .kind = m->arch->norm,
                                 .weight = a->k_norm.w,
                                 .bias = a->k_norm.b,
                                 .out = plain(f->k, nk) };
    }
    if (a->rope >= 0) {
        const ht_rope *r = &m->ropes[a->rope];
        ht_op_rope rope = { .head_dim = a->k_dim, .n_rot = r->n_rot, .neox = m->arch->rope == HT_ROPE_NEOX,
                            .table = f->rope + f->rope_at[a->rope], .table_stride = r->n_rot };
        rope.x = q;
        rope.x_stride = nq;
        rope.n_head = a->n_head;
        add(o, HT_OP_ROPE)->rope = rope;
        rope.x = f->k;
        rope.x_stride = nk;
        rope.n_head = a->n_kv;
        ht_op *op = add(o, HT_OP_ROPE);
        op->joined = true;
        op->rope = rope;
    }
    return q;
}

static void attention(ops *o, ht_forward *f, ht_state *s, uint32_t il)
{
    const ht_model *m = f->m;
    const ht_attn *a = &m->layers[il].attn;
    uint32_t nk = a->n_kv * a->k_dim, nv = a->n_kv * a->v_dim, n_out = a->n_head * a->v_dim;
    ht_act ao = f->ao;

    matmul(o, a->q, a->q_b, f->xn, f->q, a->q.n, false);
    matmul(o, a->k, a->k_b, f->xn, f->k, nk, true);
    matmul(o, a->v, a->v_b, f->xn, f->v, nv, true);
    float *q = place_q_and_k(o, f, a);
    add(o, HT_OP_KV_WRITE)->kv_write = (ht_op_kv_write){ .kv = s->views[il], .k = f->k, .v = f->v, .k_stride = nk,
                                                         .v_stride = nv, .pos0 = s->pos };
    bool again = a->gated || a->sub_norm.w; /* the output changes once more before it is quantised */
    ao.stride = n_out;
    if (ao.q8.stride)
        ao.q8.stride = n_out % 32 ? 0 : n_out;
    add(o, HT_OP_ATTEND)->attend = (ht_op_attend){ .kv = s->views[il], .q = q, .q_stride = a->n_head * a->k_dim,
                                                   .n_head = a->n_head, .scale = a->scale, .softcap = m->attn_softcap,
                                                   .window = a->window, .sinks = a->sinks, .pos0 = s->pos,
                                                   .out = again ? plain(ao.f, n_out) : ao, .partial = s->partial,
                                                   .n_partial = s->partial_bytes / sizeof(float) };
    if (a->gated)
        add(o, HT_OP_GATE)->gate = (ht_op_gate){ .gate = f->q + a->k_dim,
                                                 .y = ao.f,
                                                 .gate_stride = a->q.n,
                                                 .y_stride = n_out,
                                                 .k = n_out,
                                                 .group = a->v_dim,
                                                 .gate_group = 2 * a->k_dim,
                                                 .act = HT_ACT_SIGMOID };
    if (a->sub_norm.w)
        norm(o, m, a->sub_norm, ao.f, n_out, ao);
    else if (again && ao.q8.stride)
        add(o, HT_OP_QUANTISE)->quantise = (ht_op_quantise){ .x = ao, .k = n_out };
    matmul(o, a->o, a->o_b, ao, f->y, m->d_model, false);
}

/* Gated delta net: projections, causal convolution with SiLU over q, k and v, the rule itself, a gated norm, output. */
static void delta_net(ops *o, ht_forward *f, ht_state *s, uint32_t il)
{
    const ht_model *m = f->m;
    const ht_delta *d = &m->layers[il].delta;
    uint32_t n_qk = d->n_k * d->k_dim, inner = d->n_v * d->v_dim, channels = d->qkv.n, per = d->n_v / d->n_k;
    ht_act out = f->inner;
    ht_op_delta op = { .q = f->conv_out, .k = f->conv_out + n_qk, .v = f->conv_out + 2 * n_qk, .qkv_stride = channels,
                       .ab_stride = 2 * d->n_v, .a_coef = d->a, .dt_bias = d->dt_bias, .n_k = d->n_k, .n_v = d->n_v,
                       .k_dim = d->k_dim, .v_dim = d->v_dim, .tiled = d->tiled, .state = s->delta[il], .y = out.f,
                       .y_stride = inner };

    out.stride = inner;
    if (out.q8.stride)
        out.q8.stride = inner % 32 ? 0 : inner;
    matmul(o, d->qkv, NULL, f->xn, f->conv_in, channels, false);
    matmul(o, d->z, NULL, f->xn, f->z, inner, true);
    if (d->ba.host) { /* per key head: its value heads' betas, then their alphas */
        matmul(o, d->ba, NULL, f->xn, f->ba, 2 * d->n_v, true);
        op.beta = f->ba;
        op.alpha = f->ba + per;
        op.ab_group = per;
    } else {
        matmul(o, d->beta, NULL, f->xn, f->ba, 2 * d->n_v, true);
        matmul(o, d->alpha, NULL, f->xn, f->ba + d->n_v, 2 * d->n_v, true);
        op.beta = f->ba;
        op.alpha = f->ba + d->n_v;
    }
    add(o, HT_OP_CONV)->conv = (ht_op_conv){ .x = f->conv_in,
                                             .y = f->conv_out,
                                             .x_stride = channels,
                                             .y_stride = channels,
                                             .n = channels,
                                             .taps = d->taps,
                                             .w = d->conv_w,
                                             .state = s->conv[il],
                                             .silu = true };
    add(o, HT_OP_DELTA)->delta = op;
    add(o, HT_OP_NORM)->norm = (ht_op_norm){ .x = out.f,
                                             .x_stride = inner,
                                             .k = inner,
                                             .group = d->v_dim,
                                             .eps = m->norm_eps,
                                             .kind = HT_NORM_RMS,
                                             .weight = d->norm.w,
                                             .out = plain(out.f, inner) };
    add(o, HT_OP_GATE)->gate = (ht_op_gate){ .gate = f->z,
                                             .y = out.f,
                                             .gate_stride = inner,
                                             .y_stride = inner,
                                             .k = inner,
                                             .group = inner,
                                             .act = HT_ACT_SILU };
    if (out.q8.stride)
        add(o, HT_OP_QUANTISE)->quantise = (ht_op_quantise){ .x = out, .k = inner };
    matmul(o, d->o, NULL, out, f->y, m->d_model, false);
}

static const float *expert_bias(const float *b, uint32_t expert, uint32_t n)
{
    return b ? b + (size_t)expert * n : NULL;
}

/* Leases expert e's weights into an item; all biases of the expert beside them. */
static ht_status lease_item(ht_forward *f, const ht_ffn *ff, ht_ticket *t, uint32_t which, ht_ffn_item *it)
{
    uint32_t e = t->clusters[which].expert;
    it->bias[HT_ROLE_GATE] = expert_bias(ff->bias[HT_ROLE_GATE], e, ff->n_ff);
    it->bias[HT_ROLE_UP] = expert_bias(ff->bias[HT_ROLE_UP], e, ff->n_ff);
    it->bias[HT_ROLE_DOWN] = expert_bias(ff->bias[HT_ROLE_DOWN], e, f->m->d_model);
    return ht_store_lease(f->store, t, which, it->part, &it->down_t);
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

/* By masks, before the block. */
static bool foretold(const ht_forward *f, uint32_t il)
{
    return f->m->predict && ht_predict_masks(&f->m->predict->layers[il]);
}

/* By thresholds, within it. */
static void set_thresholds(const ht_forward *f, uint32_t il, uint32_t expert, ht_ffn_item *it)
{
    const ht_predict_layer *p = f->m->predict ? &f->m->predict->layers[il] : NULL;

    if (!p || p->kind != HT_PREDICT_THRESHOLD)
        return;
    it->gate_least = p->gate_least[expert];
    it->h_least = p->hidden_least[expert];
}

static ht_op_ffn ffn_op(ht_forward *f, const ht_ffn *ff, ht_ffn_item *items, uint32_t n_items, uint32_t n_ff, float *y,
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
    if (!shared && foretold(f, il)) {
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

/* What is queued ends with a feed-forward operation: where somebody listens, it is waited for and told, before the next
 * block takes h for itself. */
static ht_status tell(ht_forward *f, ops *o, uint32_t il, uint32_t n, bool shared, const ht_cancel *cancel, ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    const ht_op_ffn op = o->op[o->n - 1].ffn;
    ht_event done;
    ht_status st;

    if (!f->trace)
        return HT_OK;
    if ((st = submit(f, o, &done, err)) != HT_OK)
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
        t.expert = shared ? HEARTH_TRACE_SHARED : t.n_expert ? f->clusters[i].expert : 0;
        t.n_tokens = it->n_tokens;
        t.tokens = it->tokens;
        t.hidden = op.h.f + (size_t)it->slot * op.h.stride;
        if (!f->trace(f->trace_user, &t))
            return ht_fail(err, HT_ECANCELLED, "cancelled by the caller");
    }
    return HT_OK;
}

/* Queues what fills the masks of an item's tokens. */
static void foretell(ops *o, ht_forward *f, uint32_t il, uint32_t expert, const ht_ffn_item *it)
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
            norm(o, f->m, (ht_norm){ NULL, NULL }, f->x, k, f->before);
        matmul(o, p->a, NULL, p->residual ? f->before : f->xn, low.f, rank, false);
        if (p->relu)
            add(o, HT_OP_GATE)->gate = (ht_op_gate){ .y = low.f, .y_stride = rank, .k = rank, .group = rank,
                                                     .act = HT_ACT_RELU };
        if (low.q8.stride)
            add(o, HT_OP_QUANTISE)->quantise = (ht_op_quantise){ .x = low, .k = rank };
        matmul(o, p->b, NULL, low, f->scores, ff->n_ff, false);
        op.scores = f->scores;
        op.scores_stride = ff->n_ff;
    } else {
        op.signs = p->signs + (size_t)expert * p->signs_bytes;
        op.x = f->xn.f;
        op.x_stride = f->xn.stride;
        op.tokens = it->tokens;
        op.work = f->predict_work;
    }
    ht_op *queued = add(o, HT_OP_PREDICT);
    queued->n_tok = it->n_tokens;
    queued->predict = op;
}

static ht_status dense_ffn(ops *o, ht_forward *f, uint32_t il, uint32_t n, float *y, const ht_cancel *cancel,
                           ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    ht_ffn_item *it = &f->items[il];
    ht_cluster whole = { .layer = il, .n = ff->n_ff };
    ht_ticket t;
    ht_status st;

    memset(it, 0, sizeof *it);
    it->n_tokens = n;
    if ((st = ht_store_want(f->store, &whole, 1, il, &t)) || (st = lease_item(f, ff, &t, 0, it)))
        return ht_fail(err, st, "weights of layer %u are not available", il);
    set_thresholds(f, il, 0, it);
    if (foretold(f, il))
        foretell(o, f, il, 0, it);
    add(o, HT_OP_FFN)->ffn = ffn_op(f, ff, it, 1, ff->n_ff, y, il, false, n);
    ht_store_release(f->store, &t); /* the mapping stays; a dense block is held for good */
    return tell(f, o, il, n, false, cancel, err);
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

static void route(ops *o, ht_forward *f, const ht_ffn *ff, ht_act x)
{
    matmul(o, ff->router, ff->router_b, x, f->router, ff->n_expert, false);
    add(o, HT_OP_ROUTE)->route = (ht_op_route){ .logits = f->router,
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
    return HT_OK;
}

static ht_status mixture(ops *o, ht_forward *f, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_error *err)
{
    const ht_model *m = f->m;
    const ht_ffn *ff = &m->layers[il].ffn;
    ht_ffn_item *items = f->items + m->n_layer;
    ht_ticket t;
    ht_event done;
    ht_status st;

    if (!m->arch->router_before_attn)
        route(o, f, ff, f->xn);
    if ((st = submit(f, o, &done, err)) != HT_OK)
        return st;
    if ((st = f->exec->ops->wait(f->exec, done, cancel)) != HT_OK)
        return ht_fail(err, st, "cancelled");
    if (f->route && (st = ask_route(f, ff, il, n, err)) != HT_OK)
        return st;
    uint32_t n_items = group_by_expert(f, ff, il, n, items);
    if ((st = ht_store_want(f->store, f->clusters, n_items, il, &t)) != HT_OK)
        return ht_fail(err, st, "experts of layer %u are not available", il);
    for (uint32_t i = 0; i < n_items; i++)
        if ((st = lease_item(f, ff, &t, i, &items[i])) != HT_OK)
            return ht_fail(err, st, "expert %u of layer %u is not available", f->clusters[i].expert, il);
    for (uint32_t i = 0; i < n_items; i++)
        set_thresholds(f, il, f->clusters[i].expert, &items[i]);
    for (uint32_t i = 0; foretold(f, il) && i < n_items; i++) {
        foretell(o, f, il, f->clusters[i].expert, &items[i]);
        if (o->n == MAX_OPS / 2 && (st = submit(f, o, NULL, err)) != HT_OK)
            return st;
    }
    add(o, HT_OP_FFN)->ffn = ffn_op(f, ff, items, n_items, ff->n_ff, f->y, il, false, n);
    ht_store_release(f->store, &t);
    if ((st = tell(f, o, il, n, false, cancel, err)) != HT_OK)
        return st;

    if (ff->shared_n_ff) {
        ht_ffn_item *it = &f->items[il];
        memset(it, 0, sizeof *it);
        memcpy(it->part, ff->shared, sizeof it->part);
        it->down_t = ht_store_shared_down_t(f->store, il);
        it->n_tokens = n;
        add(o, HT_OP_FFN)->ffn = ffn_op(f, ff, it, 1, ff->shared_n_ff, f->y2, il, true, n);
        if ((st = tell(f, o, il, n, true, cancel, err)) != HT_OK)
            return st;
        if (ff->shared_gate.host) {
            matmul(o, ff->shared_gate, NULL, f->xn, f->shared_gate, 1, false);
            add(o, HT_OP_GATE)->gate = (ht_op_gate){ .gate = f->shared_gate, .y = f->y2, .gate_stride = 1,
                                                     .y_stride = m->d_model, .k = m->d_model, .act = HT_ACT_SIGMOID,
                                                     .per_row = true };
        }
        add(o, HT_OP_ADD)->add = (ht_op_add){ .x = f->y2, .y = f->y, .x_stride = m->d_model, .y_stride = m->d_model,
                                              .k = m->d_model, .ax = 1.0f, .ay = 1.0f };
    }
    return HT_OK;
}

ht_status ht_layer_run(ht_forward *f, ht_state *s, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_event *done,
                       ht_error *err)
{
    const ht_model *m = f->m;
    const ht_layer *l = &m->layers[il];
    ops o = { .n_tok = n };
    ht_status st;

    if (l->ffn.router.host && m->arch->router_before_attn)
        route(&o, f, &l->ffn, plain(f->x, m->d_model));
    norm(&o, m, l->attn_norm, f->x, m->d_model, f->xn);
    if (l->attn.q.host)
        attention(&o, f, s, il);
    else
        delta_net(&o, f, s, il);
    const bool parallel = m->arch->parallel;
    float *y = parallel ? f->y2 : f->y;
    if (!parallel)
        residual(&o, f, l->post_attn_norm, f->y);
    if (!parallel || l->ffn_norm.w)
        norm(&o, m, l->ffn_norm, f->x, m->d_model, f->xn);
    st = l->ffn.router.host ? mixture(&o, f, il, n, cancel, err) : dense_ffn(&o, f, il, n, y, cancel, err);
    if (st != HT_OK)
        return st;
    if (parallel)
        residual(&o, f, l->post_attn_norm, f->y);
    residual(&o, f, l->post_ffn_norm, y);
    return submit(f, &o, done, err);
}
