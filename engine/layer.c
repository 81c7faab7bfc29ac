/* SPDX-License-Identifier: MIT
 *
 * One transformer layer, written once: which operations it has follows from what the model's layer holds. Attention
 * or gated delta net, then a feed-forward block (layer_ffn.c). Operations are queued; the host waits only where a mixture's
 * router must say which experts to lease. */
#include "engine/layer_impl.h"

/* x += scale * y, y being a block's output; after the norm that some models put on it. */
static void residual(ht_ops *o, ht_forward *f, ht_norm post, float *y)
{
    const ht_model *m = f->m;
    if (post.w)
        ht_ops_norm(o, m, post, y, m->d_model, ht_act_plain(y, m->d_model));
    ht_ops_add(o, HT_OP_ADD)->add = (ht_op_add){ .x = y,
                                          .y = f->x,
                                          .x_stride = m->d_model,
                                          .y_stride = m->d_model,
                                          .k = m->d_model,
                                          .ax = m->residual_scale,
                                          .ay = 1.0f };
}

/* Norms of q and k (per head, or over the whole width), then rotation. Returns where q is: [n_head][k_dim] per
 * token. */
static float *place_q_and_k(ht_ops *o, ht_forward *f, const ht_attn *a)
{
    const ht_model *m = f->m;
    uint32_t nq = a->n_head * a->k_dim, nk = a->n_kv * a->k_dim;
    float *q = a->gated ? f->qn : f->q; /* gated heads lie apart: the norm (or copy) brings them together */

    if (a->q_norm.w || a->gated) {
        uint32_t group = a->norm_full ? nq : a->k_dim;
        ht_ops_add(o, HT_OP_NORM)->norm = (ht_op_norm){ .x = f->q, .x_stride = a->q.n, .k = nq, .group = group,
                                                 .x_group = a->gated ? 2 * a->k_dim : 0, .eps = m->norm_eps,
                                                 .kind = a->q_norm.w ? m->arch->norm : HT_NORM_NONE,
                                                 .weight = a->q_norm.w, .bias = a->q_norm.b, .out = ht_act_plain(q, nq) };
    }
    if (a->k_norm.w) {
        ht_op *op = ht_ops_add(o, HT_OP_NORM);
        op->joined = a->q_norm.w || a->gated;
        op->norm = (ht_op_norm){ .x = f->k,
                                 .x_stride = nk,
                                 .k = nk,
                                 .group = a->norm_full ? nk : a->k_dim,
                                 .eps = m->norm_eps,
                                 .kind = m->arch->norm,
                                 .weight = a->k_norm.w,
                                 .bias = a->k_norm.b,
                                 .out = ht_act_plain(f->k, nk) };
    }
    if (a->rope >= 0) {
        const ht_rope *r = &m->ropes[a->rope];
        ht_op_rope rope = { .head_dim = a->k_dim, .n_rot = r->n_rot, .neox = m->arch->rope == HT_ROPE_NEOX,
                            .table = f->rope + f->rope_at[a->rope], .table_stride = r->n_rot };
        rope.x = q;
        rope.x_stride = nq;
        rope.n_head = a->n_head;
        ht_ops_add(o, HT_OP_ROPE)->rope = rope;
        rope.x = f->k;
        rope.x_stride = nk;
        rope.n_head = a->n_kv;
        ht_op *op = ht_ops_add(o, HT_OP_ROPE);
        op->joined = true;
        op->rope = rope;
    }
    return q;
}

static void attention(ht_ops *o, ht_forward *f, ht_state *s, uint32_t il)
{
    const ht_model *m = f->m;
    const ht_attn *a = &m->layers[il].attn;
    uint32_t nk = a->n_kv * a->k_dim, nv = a->n_kv * a->v_dim, n_out = a->n_head * a->v_dim;
    ht_act ao = f->ao;

    ht_ops_matmul(o, a->q, a->q_b, f->xn, f->q, a->q.n, false);
    ht_ops_matmul(o, a->k, a->k_b, f->xn, f->k, nk, true);
    ht_ops_matmul(o, a->v, a->v_b, f->xn, f->v, nv, true);
    float *q = place_q_and_k(o, f, a);
    ht_ops_add(o, HT_OP_KV_WRITE)->kv_write = (ht_op_kv_write){ .kv = s->views[il], .k = f->k, .v = f->v, .k_stride = nk,
                                                         .v_stride = nv, .pos0 = s->pos };
    bool again = a->gated || a->sub_norm.w; /* the output changes once more before it is quantised */
    ao.stride = n_out;
    if (ao.q8.stride)
        ao.q8.stride = n_out % 32 ? 0 : n_out;
    ht_ops_add(o, HT_OP_ATTEND)->attend = (ht_op_attend){ .kv = s->views[il], .q = q, .q_stride = a->n_head * a->k_dim,
                                                   .n_head = a->n_head, .scale = a->scale, .softcap = m->attn_softcap,
                                                   .window = a->window, .sinks = a->sinks, .pos0 = s->pos,
                                                   .out = again ? ht_act_plain(ao.f, n_out) : ao, .partial = s->partial,
                                                   .n_partial = s->partial_bytes / sizeof(float) };
    if (a->gated)
        ht_ops_add(o, HT_OP_GATE)->gate = (ht_op_gate){ .gate = f->q + a->k_dim,
                                                 .y = ao.f,
                                                 .gate_stride = a->q.n,
                                                 .y_stride = n_out,
                                                 .k = n_out,
                                                 .group = a->v_dim,
                                                 .gate_group = 2 * a->k_dim,
                                                 .act = HT_ACT_SIGMOID };
    if (a->sub_norm.w)
        ht_ops_norm(o, m, a->sub_norm, ao.f, n_out, ao);
    else if (again && ao.q8.stride)
        ht_ops_add(o, HT_OP_QUANTISE)->quantise = (ht_op_quantise){ .x = ao, .k = n_out };
    ht_ops_matmul(o, a->o, a->o_b, ao, f->y, m->d_model, false);
}

/* Gated delta net: projections, causal convolution with SiLU over q, k and v, the rule itself, a gated norm, output. */
static void delta_net(ht_ops *o, ht_forward *f, ht_state *s, uint32_t il)
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
    ht_ops_matmul(o, d->qkv, NULL, f->xn, f->conv_in, channels, false);
    ht_ops_matmul(o, d->z, NULL, f->xn, f->z, inner, true);
    if (d->ba.host) { /* per key head: its value heads' betas, then their alphas */
        ht_ops_matmul(o, d->ba, NULL, f->xn, f->ba, 2 * d->n_v, true);
        op.beta = f->ba;
        op.alpha = f->ba + per;
        op.ab_group = per;
    } else {
        ht_ops_matmul(o, d->beta, NULL, f->xn, f->ba, 2 * d->n_v, true);
        ht_ops_matmul(o, d->alpha, NULL, f->xn, f->ba + d->n_v, 2 * d->n_v, true);
        op.beta = f->ba;
        op.alpha = f->ba + d->n_v;
    }
    ht_ops_add(o, HT_OP_CONV)->conv = (ht_op_conv){ .x = f->conv_in,
                                             .y = f->conv_out,
                                             .x_stride = channels,
                                             .y_stride = channels,
                                             .n = channels,
                                             .taps = d->taps,
                                             .w = d->conv_w,
                                             .state = s->conv[il],
                                             .silu = true };
    ht_ops_add(o, HT_OP_DELTA)->delta = op;
    ht_ops_add(o, HT_OP_NORM)->norm = (ht_op_norm){ .x = out.f,
                                             .x_stride = inner,
                                             .k = inner,
                                             .group = d->v_dim,
                                             .eps = m->norm_eps,
                                             .kind = HT_NORM_RMS,
                                             .weight = d->norm.w,
                                             .out = ht_act_plain(out.f, inner) };
    ht_ops_add(o, HT_OP_GATE)->gate = (ht_op_gate){ .gate = f->z,
                                             .y = out.f,
                                             .gate_stride = inner,
                                             .y_stride = inner,
                                             .k = inner,
                                             .group = inner,
                                             .act = HT_ACT_SILU };
    if (out.q8.stride)
        ht_ops_add(o, HT_OP_QUANTISE)->quantise = (ht_op_quantise){ .x = out, .k = inner };
    ht_ops_matmul(o, d->o, NULL, out, f->y, m->d_model, false);
}

ht_status ht_layer_run(ht_forward *f, ht_state *s, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_event *done,
                       ht_error *err)
{
    const ht_model *m = f->m;
    const ht_layer *l = &m->layers[il];
    ht_ops o = { .n_tok = n };
    ht_status st;

    if (l->ffn.router.host && m->arch->router_before_attn) {
        ht_ffn_route(&o, f, &l->ffn, ht_act_plain(f->x, m->d_model));
        ht_stream_guess(&o, f, il);
        if (f->store->disk && (st = ht_ffn_choose(&o, f, il, n, cancel, err)) != HT_OK) /* read while attention is computed */
            return st;
    }
    ht_ops_norm(&o, m, l->attn_norm, f->x, m->d_model, f->xn);
    if (l->attn.q.host)
        attention(&o, f, s, il);
    else
        delta_net(&o, f, s, il);
    const bool parallel = m->arch->parallel; /* both blocks read the layer's input */
    float *y = parallel ? f->y2 : f->y;
    if (!parallel)
        residual(&o, f, l->post_attn_norm, f->y);
    if (!parallel || l->ffn_norm.w)
        ht_ops_norm(&o, m, l->ffn_norm, f->x, m->d_model, f->xn);
    if ((st = ht_ffn_run(&o, f, il, n, y, cancel, err)) != HT_OK)
        return st;
    if (parallel)
        residual(&o, f, l->post_attn_norm, f->y);
    residual(&o, f, l->post_ffn_norm, y);
    return ht_ops_submit(f, &o, done, err);
}
