/* SPDX-License-Identifier: MIT
 * Loading one layer: which blocks it has follows from its tensors. See model.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/model.h"

enum { MAX_EXPERTS = 4096, MAX_HEADS = 4096, MAX_STATE = 1024 };

/* Rows [first, first + n) of a part. */
static ht_part rows_of(const ht_part *p, uint32_t first, uint32_t n)
{
    ht_part r = *p;
    r.host = (const uint8_t *)p->host + (size_t)first * p->stride;
    r.n = n;
    return r;
}

static const float *offset(const float *v, uint32_t n) { return v ? v + n : NULL; }

/* Global where the rule (or the file's own pattern) says so: 0, else the window. */
static ht_status load_window(const ht_loader *ld, uint32_t il, uint32_t *window)
{
    const ht_arch *a = ld->m->arch;
    uint32_t w = 0, pattern = 0;
    char key[160];
    bool global = false;
    ht_status st;

    *window = 0;
    if ((st = ht_load_u32(ld, "attention.sliding_window", il, &w)) != HT_OK || w == 0 || a->window == HT_WINDOW_NONE)
        return st;
    const ht_kv *own = ht_gguf_find(ld->g, ht_load_key(ld, key, "attention.sliding_window_pattern"));
    if (own && own->type == HT_KV_ARRAY) { /* one flag per layer: windowed or not */
        int64_t v;
        if (il >= own->n || !ht_kv_int(own, il, &v))
            return ht_fail_at(ld->err, HT_EFORMAT, own->offset, "%s has no flag for layer %u", key, il);
        global = v == 0;
    } else {
        if ((st = ht_load_u32(ld, "attention.sliding_window_pattern", 0, &pattern)) != HT_OK)
            return st;
        uint32_t period = pattern ? pattern : a->window_period;
        if (a->window == HT_WINDOW_PERIOD_LAST)
            global = il % period == period - 1;
        else if (a->window == HT_WINDOW_PERIOD_FIRST)
            global = il % period == 0;
    }
    *window = global ? 0 : w;
    return HT_OK;
}

static ht_status load_attn_dims(ht_loader *ld, uint32_t il, ht_attn *a)
{
    const ht_model *m = ld->m;
    ht_status st;

    if ((st = ht_load_u32(ld, "attention.head_count", il, &a->n_head)) != HT_OK)
        return st;
    a->n_kv = a->n_head;
    if ((st = ht_load_u32(ld, "attention.head_count_kv", il, &a->n_kv)) != HT_OK)
        return st;
    if (a->n_head == 0 || a->n_head > MAX_HEADS)
        return ht_fail(ld->err, HT_EFORMAT, "%s.attention.head_count is %u, outside 1..%d (layer %u)", ld->arch,
                       a->n_head, MAX_HEADS, il);
    if (a->n_kv == 0 || a->n_head % a->n_kv)
        return ht_fail(ld->err, HT_EFORMAT,
                       "%s.attention.head_count_kv is %u, which does not divide %u heads (layer %u)", ld->arch, a->n_kv,
                       a->n_head, il);
    a->k_dim = m->d_model / a->n_head;
    if ((st = ht_load_u32(ld, "attention.key_length", il, &a->k_dim)) != HT_OK)
        return st;
    a->v_dim = a->k_dim;
    if ((st = ht_load_u32(ld, "attention.value_length", il, &a->v_dim)) != HT_OK)
        return st;
    if (a->k_dim == 0 || a->v_dim == 0 || a->k_dim > 4096 || a->v_dim > 4096)
        return ht_fail(ld->err, HT_EFORMAT, "%s: head dimensions %u and %u are outside 1..4096 (layer %u)", ld->arch,
                       a->k_dim, a->v_dim, il);
    return HT_OK;
}

/* q, k and v from one matrix or from three; gated: q rows are [head][q, gate]. */
static ht_status load_qkv(ht_loader *ld, uint32_t il, ht_attn *a)
{
    const ht_model *m = ld->m;
    uint32_t nq = a->n_head * a->k_dim, nk = a->n_kv * a->k_dim, nv = a->n_kv * a->v_dim;
    ht_part all;
    const float *bias;
    ht_status st;

    if ((st = ht_load_matrix(ld, "blk.%u.attn_qkv.weight", il, m->d_model, (uint64_t)nq + nk + nv, false, &all)) !=
        HT_OK)
        return st;
    if (all.host) {
        if ((st = ht_load_vector(ld, "blk.%u.attn_qkv.bias", il, (uint64_t)nq + nk + nv, false, &bias)) != HT_OK)
            return st;
        a->q = rows_of(&all, 0, nq);
        a->k = rows_of(&all, nq, nk);
        a->v = rows_of(&all, nq + nk, nv);
        a->q_b = bias;
        a->k_b = offset(bias, nq);
        a->v_b = offset(bias, nq + nk);
        return HT_OK;
    }
    if ((st = ht_load_matrix(ld, "blk.%u.attn_q.weight", il, m->d_model, 0, true, &a->q)) != HT_OK)
        return st;
    a->gated = a->q.n == 2 * nq;
    if (a->q.n != nq && !a->gated)
        return ht_fail_at(ld->err, HT_EFORMAT, ht_load_tensor(ld, "blk.%u.attn_q.weight", il)->info_offset,
                          "tensor blk.%u.attn_q.weight has %u rows, %u heads of %u need %u", il, a->q.n, a->n_head,
                          a->k_dim, nq);
    if ((st = ht_load_matrix(ld, "blk.%u.attn_k.weight", il, m->d_model, nk, true, &a->k)) ||
        (st = ht_load_matrix(ld, "blk.%u.attn_v.weight", il, m->d_model, nv, true, &a->v)) ||
        (st = ht_load_vector(ld, "blk.%u.attn_q.bias", il, a->q.n, false, &a->q_b)) ||
        (st = ht_load_vector(ld, "blk.%u.attn_k.bias", il, nk, false, &a->k_b)))
        return st;
    return ht_load_vector(ld, "blk.%u.attn_v.bias", il, nv, false, &a->v_b);
}

static ht_status load_attn(ht_loader *ld, uint32_t il, ht_layer *l)
{
    const ht_model *m = ld->m;
    const ht_arch *arch = m->arch;
    ht_attn *a = &l->attn;
    uint32_t n_rot;
    ht_status st;

    if ((st = load_attn_dims(ld, il, a)) || (st = load_qkv(ld, il, a)))
        return st;
    uint32_t n_out = a->n_head * a->v_dim;
    const ht_tensor *qn = ht_load_tensor(ld, "blk.%u.attn_q_norm.weight", il);
    a->norm_full = qn && a->n_head > 1 && qn->ne[0] == (uint64_t)a->n_head * a->k_dim;
    if ((st = ht_load_matrix(ld, "blk.%u.attn_output.weight", il, n_out, m->d_model, true, &a->o)) ||
        (st = ht_load_vector(ld, "blk.%u.attn_output.bias", il, m->d_model, false, &a->o_b)) ||
        (st = ht_load_norm(ld, "blk.%u.attn_q_norm", il, a->norm_full ? a->n_head * a->k_dim : a->k_dim, false,
                           &a->q_norm)) ||
        (st = ht_load_norm(ld, "blk.%u.attn_k_norm", il, a->norm_full ? a->n_kv * a->k_dim : a->k_dim, false,
                           &a->k_norm)) ||
        (st = ht_load_norm(ld, "blk.%u.attn_sub_norm", il, n_out, false, &a->sub_norm)) ||
        (st = ht_load_vector(ld, "blk.%u.attn_sinks.weight", il, a->n_head, false, &a->sinks)) ||
        (st = load_window(ld, il, &a->window)))
        return st;

    a->scale = 0.0f;
    if ((st = ht_load_f32(ld, "attention.scale", &a->scale)) != HT_OK)
        return st;
    if (a->scale == 0.0f) {
        bool by_embd = arch->scale_by_embd_layers && m->n_layer == arch->scale_by_embd_layers;
        a->scale = 1.0f / sqrtf((float)(by_embd ? m->d_model / a->n_head : a->k_dim));
    }

    uint32_t any_window = 0;
    if ((st = ht_load_u32(ld, "attention.sliding_window", il, &any_window)) != HT_OK)
        return st;
    bool no_rope = arch->rope == HT_ROPE_NONE || (arch->no_rope_period && (il + 1) % arch->no_rope_period == 0) ||
                   (arch->no_rope_global && any_window && a->window == 0);
    a->rope = -1;
    if (no_rope)
        return HT_OK;
    n_rot = a->k_dim;
    if ((st = ht_load_u32(ld, "rope.dimension_count", il, &n_rot)) != HT_OK)
        return st;
    if (n_rot == 0 || n_rot % 2 || n_rot > a->k_dim)
        return ht_fail(ld->err, HT_EFORMAT, "%s.rope.dimension_count is %u, wanted an even number up to %u", ld->arch,
                       n_rot, a->k_dim);
    return ht_load_rope(ld, n_rot, a->window != 0, &a->rope);
}

static ht_status load_delta(ht_loader *ld, uint32_t il, ht_layer *l)
{
    const ht_model *m = ld->m;
    ht_delta *d = &l->delta;
    uint32_t inner = 0;
    ht_status st;

    if ((st = ht_load_u32(ld, "ssm.conv_kernel", il, &d->taps)) ||
        (st = ht_load_u32(ld, "ssm.state_size", il, &d->k_dim)) ||
        (st = ht_load_u32(ld, "ssm.group_count", il, &d->n_k)) ||
        (st = ht_load_u32(ld, "ssm.time_step_rank", il, &d->n_v)) ||
        (st = ht_load_u32(ld, "ssm.inner_size", il, &inner)))
        return st;
    if (d->taps < 2 || d->taps > 64 || d->k_dim == 0 || d->k_dim > MAX_STATE || d->n_k == 0 || d->n_v == 0 ||
        d->n_v % d->n_k || d->n_v > MAX_STATE || inner == 0 || inner % d->n_v || inner / d->n_v > MAX_STATE)
        return ht_fail(
            ld->err, HT_EFORMAT,
            "%s.ssm: conv_kernel %u, state_size %u, group_count %u, time_step_rank %u, inner_size %u do not fit "
            "together",
            ld->arch, d->taps, d->k_dim, d->n_k, d->n_v, inner);
    d->v_dim = inner / d->n_v;
    d->tiled = m->arch->heads_tiled;
    uint64_t channels = 2ull * d->n_k * d->k_dim + inner;
    if ((st = ht_load_matrix(ld, "blk.%u.attn_qkv.weight", il, m->d_model, channels, true, &d->qkv)) ||
        (st = ht_load_matrix(ld, "blk.%u.attn_gate.weight", il, m->d_model, inner, true, &d->z)) ||
        (st = ht_load_matrix(ld, "blk.%u.ssm_ba.weight", il, m->d_model, 2ull * d->n_v, false, &d->ba)) ||
        (st = ht_load_matrix(ld, "blk.%u.ssm_alpha.weight", il, m->d_model, d->n_v, !d->ba.host, &d->alpha)) ||
        (st = ht_load_matrix(ld, "blk.%u.ssm_beta.weight", il, m->d_model, d->n_v, !d->ba.host, &d->beta)) ||
        (st = ht_load_matrix(ld, "blk.%u.ssm_out.weight", il, inner, m->d_model, true, &d->o)) ||
        (st = ht_load_vector(ld, "blk.%u.ssm_conv1d.weight", il, channels * d->taps, true, &d->conv_w)) ||
        (st = ht_load_vector(ld, "blk.%u.ssm_dt.bias", il, d->n_v, true, &d->dt_bias)) ||
        (st = ht_load_vector(ld, "blk.%u.ssm_a", il, d->n_v, true, &d->a)))
        return st;
    return ht_load_norm(ld, "blk.%u.ssm_norm", il, d->v_dim, true, &d->norm);
}

/* Expert e of a stacked tensor [k, n, n_expert]. */
static ht_part expert_of(const ht_tensor *t, uint32_t e)
{
    size_t stride = ht_type_row_bytes(ht_type_get(t->type), t->ne[0]);
    return (ht_part){ .type = t->type,
                      .n = (uint32_t)t->ne[1],
                      .k = (uint32_t)t->ne[0],
                      .stride = stride,
                      .host = (const uint8_t *)t->data + (size_t)e * stride * t->ne[1] };
}

static void set_role(ht_part *p, ht_role role) { p->role = (uint8_t)role; }

/* The three matrices of all experts: stacked, gate and up fused, or (old files) one tensor per expert. */
static ht_status load_experts(ht_loader *ld, uint32_t il, ht_ffn *f)
{
    static const char *const stacked[HT_N_ROLES] = { "blk.%u.ffn_gate_exps.weight", "blk.%u.ffn_up_exps.weight",
                                                     "blk.%u.ffn_down_exps.weight" };
    static const char *const single[HT_N_ROLES] = { "blk.%%u.ffn_gate.%u.weight", "blk.%%u.ffn_up.%u.weight",
                                                    "blk.%%u.ffn_down.%u.weight" };
    const ht_model *m = ld->m;
    const ht_pack_tensor *packed[HT_N_ROLES];
    const ht_tensor *t[HT_N_ROLES], *fused = ht_load_tensor(ld, "blk.%u.ffn_gate_up_exps.weight", il);
    char fmt[64];
    ht_status st;

    for (int r = 0; r < HT_N_ROLES; r++) {
        t[r] = ht_load_tensor(ld, stacked[r], il);
        packed[r] = ht_load_packed(ld, stacked[r], il);
    }
    for (int r = 0; packed[HT_ROLE_UP] && r < HT_N_ROLES; r++) { /* then down too, and no gate is elsewhere */
        const bool down = r == HT_ROLE_DOWN;
        if (packed[r] && (st = ht_load_check_packed(ld, packed[r], down ? f->n_ff : m->d_model,
                                                    down ? m->d_model : f->n_ff, f->n_expert)) != HT_OK)
            return st;
        for (uint32_t e = 0; packed[r] && e < f->n_expert; e++)
            f->experts[e][r] = ht_pack_part(packed[r], e);
    }
    if (packed[HT_ROLE_UP])
        return HT_OK;
    if (fused)
        t[HT_ROLE_UP] = fused;
    if (!t[HT_ROLE_UP] || !t[HT_ROLE_DOWN]) {
        for (uint32_t e = 0; e < f->n_expert; e++)
            for (int r = 0; r < HT_N_ROLES; r++) {
                snprintf(fmt, sizeof fmt, single[r], e);
                bool down = r == HT_ROLE_DOWN;
                if ((st = ht_load_matrix(ld, fmt, il, down ? f->n_ff : m->d_model, down ? m->d_model : f->n_ff,
                                         r != HT_ROLE_GATE, &f->experts[e][r])) != HT_OK)
                    return st;
            }
        return HT_OK;
    }
    if ((st = ht_load_check(ld, t[HT_ROLE_UP], m->d_model, fused ? 2ull * f->n_ff : f->n_ff, f->n_expert)) ||
        (st = ht_load_check(ld, t[HT_ROLE_DOWN], f->n_ff, m->d_model, f->n_expert)) ||
        (t[HT_ROLE_GATE] && (st = ht_load_check(ld, t[HT_ROLE_GATE], m->d_model, f->n_ff, f->n_expert))))
        return st;
    for (uint32_t e = 0; e < f->n_expert; e++) {
        for (int r = 0; r < HT_N_ROLES; r++)
            if (t[r])
                f->experts[e][r] = expert_of(t[r], e);
        if (fused) {
            f->experts[e][HT_ROLE_GATE] = rows_of(&f->experts[e][HT_ROLE_UP], 0, f->n_ff);
            f->experts[e][HT_ROLE_UP] = rows_of(&f->experts[e][HT_ROLE_UP], f->n_ff, f->n_ff);
        }
    }
    if (f->n_ff > ld->m->max_k)
        ld->m->max_k = f->n_ff;
    return HT_OK;
}

static ht_status load_router(ht_loader *ld, uint32_t il, ht_ffn *f)
{
    const ht_model *m = ld->m;
    uint32_t func = 0, groups = 1, groups_used = 1;
    ht_status st;

    f->gating = m->arch->gating;
    f->renormalise = m->arch->renormalise;
    f->weights_scale = 1.0f;
    if ((st = ht_load_u32(ld, "expert_used_count", il, &f->n_used)) ||
        (st = ht_load_u32(ld, "expert_gating_func", il, &func)) ||
        (st = ht_load_u32(ld, "expert_group_count", il, &groups)) ||
        (st = ht_load_u32(ld, "expert_group_used_count", il, &groups_used)) ||
        (st = ht_load_bool(ld, "expert_weights_norm", &f->renormalise)) ||
        (st = ht_load_f32(ld, "expert_weights_scale", &f->weights_scale)) ||
        (st = ht_load_matrix(ld, "blk.%u.ffn_gate_inp.weight", il, m->d_model, f->n_expert, true, &f->router)) ||
        (st = ht_load_vector(ld, "blk.%u.ffn_gate_inp.bias", il, f->n_expert, false, &f->router_b)) ||
        (st = ht_load_vector(ld, "blk.%u.exp_probs_b.bias", il, f->n_expert, false, &f->select_bias)))
        return st;
    if (f->weights_scale == 0.0f)
        f->weights_scale = 1.0f;
    if (groups > 1 && groups_used < groups)
        return ht_fail(ld->err, HT_EUNSUPPORTED,
                       "%s.expert_group_count is %u: experts chosen by groups are not known here", ld->arch, groups);
    if (func > 3)
        return ht_fail(ld->err, HT_EUNSUPPORTED,
                       "%s.expert_gating_func is %u; known are 1 (softmax), 2 (sigmoid), 3 (softmax "
                       "of the chosen)",
                       ld->arch, func);
    if (func)
        f->gating = func == 1 ? HT_GATE_SOFTMAX : func == 2 ? HT_GATE_SIGMOID : HT_GATE_SOFTMAX_TOPK;
    if (f->n_used == 0 || f->n_used > f->n_expert)
        return ht_fail(ld->err, HT_EFORMAT, "%s.expert_used_count is %u of %u experts", ld->arch, f->n_used,
                       f->n_expert);
    return HT_OK;
}

/* Biases of fused gate and up matrices, [n_expert][gate, up]: as two tables. */
static ht_status load_fused_bias(ht_loader *ld, uint32_t il, ht_ffn *f)
{
    uint64_t n = f->n_ff, all = 2 * n * f->n_expert;
    const float *both;
    ht_status st = ht_load_vector(ld, "blk.%u.ffn_gate_up_exps.bias", il, all, false, &both);

    if (st != HT_OK || !both)
        return st;
    float *table = ht_model_alloc(ld->m, all, sizeof *table);
    if (!table)
        return ht_fail(ld->err, HT_ENOMEM, "model tables");
    f->bias[HT_ROLE_GATE] = table;
    f->bias[HT_ROLE_UP] = table + all / 2;
    for (uint32_t e = 0; e < f->n_expert; e++) {
        memcpy(table + e * n, both + 2 * e * n, n * sizeof *table);
        memcpy(table + all / 2 + e * n, both + (2 * e + 1) * n, n * sizeof *table);
    }
    return HT_OK;
}

static ht_status load_mixture(ht_loader *ld, uint32_t il, ht_ffn *f)
{
    const ht_model *m = ld->m;
    const ht_tensor *down = ht_load_tensor(ld, "blk.%u.ffn_down_exps.weight", il);
    ht_status st;

    if (f->n_expert > MAX_EXPERTS)
        return ht_fail(ld->err, HT_EFORMAT, "%s.expert_count is %u, more than %d", ld->arch, f->n_expert, MAX_EXPERTS);
    f->n_ff = 0;
    if ((st = ht_load_u32(ld, "expert_feed_forward_length", il, &f->n_ff)) != HT_OK)
        return st;
    /* Older files: feed_forward_length is of dense layers there. */
    if (f->n_ff == 0 && down && down->ne[0] <= UINT32_MAX)
        f->n_ff = (uint32_t)down->ne[0];
    const ht_pack_tensor *packed = ht_load_packed(ld, "blk.%u.ffn_down_exps.weight", il);
    if (f->n_ff == 0 && packed)
        f->n_ff = (uint32_t)packed->ne[0];
    if (f->n_ff == 0 && (st = ht_load_u32(ld, "feed_forward_length", il, &f->n_ff)) != HT_OK)
        return st;
    f->experts = ht_model_alloc(ld->m, f->n_expert, sizeof *f->experts);
    if (!f->experts)
        return ht_fail(ld->err, HT_ENOMEM, "tables of %u experts", f->n_expert);
    uint64_t nf = (uint64_t)f->n_expert * f->n_ff, nd = (uint64_t)f->n_expert * m->d_model;
    if ((st = load_router(ld, il, f)) || (st = load_experts(ld, il, f)))
        return st;
    uint64_t counted = m->bytes_per_token;
    if ((st = ht_load_vector(ld, "blk.%u.ffn_gate_exps.bias", il, nf, false, &f->bias[HT_ROLE_GATE])) ||
        (st = ht_load_vector(ld, "blk.%u.ffn_up_exps.bias", il, nf, false, &f->bias[HT_ROLE_UP])) ||
        (st = ht_load_vector(ld, "blk.%u.ffn_down_exps.bias", il, nd, false, &f->bias[HT_ROLE_DOWN])) ||
        (st = load_fused_bias(ld, il, f)))
        return st;
    /* Of the biases of experts a step reads those of the experts chosen. */
    ld->m->bytes_per_token = counted + (m->bytes_per_token - counted) / f->n_expert * f->n_used;

    ht_part *s = f->shared;
    if ((st = ht_load_matrix(ld, "blk.%u.ffn_up_shexp.weight", il, m->d_model, 0, false, &s[HT_ROLE_UP])) != HT_OK ||
        !s[HT_ROLE_UP].host)
        return st;
    f->shared_n_ff = s[HT_ROLE_UP].n;
    if ((st = ht_load_matrix(ld, "blk.%u.ffn_gate_shexp.weight", il, m->d_model, f->shared_n_ff, false,
                             &s[HT_ROLE_GATE])) ||
        (st = ht_load_matrix(ld, "blk.%u.ffn_down_shexp.weight", il, f->shared_n_ff, m->d_model, true,
                             &s[HT_ROLE_DOWN])))
        return st;
    /* One row; some writers store it as a vector, which reads as [d_model, 1] just as well. */
    return ht_load_matrix(ld, "blk.%u.ffn_gate_inp_shexp.weight", il, m->d_model, 1, false, &f->shared_gate);
}

/* A row per output, or, as PowerInfer has it (ffn_down_t), a row per neuron. */
static ht_status load_down(ht_loader *ld, uint32_t il, ht_ffn *f)
{
    const uint32_t d_model = ld->m->d_model;
    ht_part *p = &f->experts[0][HT_ROLE_DOWN];
    ht_status st;

    if (ht_gguf_powerinfer(ld->g) &&
        (st = ht_load_matrix(ld, "blk.%u.ffn_down_t.weight", il, d_model, f->n_ff, false, p)) != HT_OK)
        return st;
    if (!p->host) {
        if ((st = ht_load_matrix(ld, "blk.%u.ffn_down.weight", il, f->n_ff, d_model, true, p)) != HT_OK)
            return st;
        return ht_load_vector(ld, "blk.%u.ffn_down.bias", il, d_model, false, &f->bias[HT_ROLE_DOWN]);
    }
    p->layout = HT_LAYOUT_COLUMNS;
    ld->m->columns = true;
    if (f->n_ff > ld->m->max_k)
        ld->m->max_k = f->n_ff;
    return ht_load_vector(ld, "blk.%u.ffn_down_t.bias", il, d_model, false, &f->bias[HT_ROLE_DOWN]);
}

/* The predictor that PowerInfer's files bring: both matrices or none. */
static ht_status load_predictor(ht_loader *ld, uint32_t il, ht_ffn *f)
{
    ht_status st = ht_load_matrix(ld, "blk.%u.fc1.weight", il, ld->m->d_model, 0, false, &f->fc1);

    if (st != HT_OK || (!f->fc1.host && !ht_load_tensor(ld, "blk.%u.fc2.weight", il)))
        return st;
    if (!f->fc1.host)
        return ht_fail(ld->err, HT_EFORMAT, "%s: tensor blk.%u.fc1.weight is missing", ht_gguf_path(ld->g, 0), il);
    return ht_load_matrix(ld, "blk.%u.fc2.weight", il, f->fc1.n, f->n_ff, true, &f->fc2);
}

/* Where the file tells of a tensor, of a packed one of its stretch. */
static uint64_t info_offset(const ht_loader *ld, const char *fmt, uint32_t il)
{
    const ht_tensor *t = ht_load_tensor(ld, fmt, il);
    const ht_pack_tensor *packed = ht_load_packed(ld, fmt, il);
    return t ? t->info_offset : packed ? packed->block->tensor->info_offset : UINT64_MAX;
}

static ht_status load_dense(ht_loader *ld, uint32_t il, ht_ffn *f)
{
    const ht_model *m = ld->m;
    ht_part *p;
    ht_status st;

    f->n_expert = f->n_used = 1;
    f->weights_scale = 1.0f;
    f->n_ff = 0;
    if ((st = ht_load_u32(ld, "feed_forward_length", il, &f->n_ff)) != HT_OK)
        return st;
    f->experts = ht_model_alloc(ld->m, 1, sizeof *f->experts);
    if (!f->experts)
        return ht_fail(ld->err, HT_ENOMEM, "model tables");
    p = f->experts[0];
    if ((st = ht_load_matrix(ld, "blk.%u.ffn_up.weight", il, m->d_model, 0, true, &p[HT_ROLE_UP])) ||
        (st = ht_load_matrix(ld, "blk.%u.ffn_gate.weight", il, m->d_model, 0, false, &p[HT_ROLE_GATE])))
        return st;
    if (f->n_ff == 0)
        f->n_ff = p[HT_ROLE_UP].n;
    bool fused = !p[HT_ROLE_GATE].host && !p[HT_ROLE_UP].order && p[HT_ROLE_UP].n == 2 * (uint64_t)f->n_ff;
    if (p[HT_ROLE_UP].n != (fused ? 2 * f->n_ff : f->n_ff) || (p[HT_ROLE_GATE].host && p[HT_ROLE_GATE].n != f->n_ff))
        return ht_fail_at(ld->err, HT_EFORMAT, info_offset(ld, "blk.%u.ffn_up.weight", il),
                          "feed-forward tensors of layer %u have %u rows, feed_forward_length is %u", il,
                          p[HT_ROLE_UP].n, f->n_ff);
    if ((st = load_down(ld, il, f)) ||
        (st = ht_load_vector(ld, "blk.%u.ffn_up.bias", il, p[HT_ROLE_UP].n, false, &f->bias[HT_ROLE_UP])) ||
        (st = ht_load_vector(ld, "blk.%u.ffn_gate.bias", il, f->n_ff, false, &f->bias[HT_ROLE_GATE])))
        return st;
    if (ht_gguf_powerinfer(ld->g) && (st = load_predictor(ld, il, f)) != HT_OK)
        return st;
    if (fused) { /* gate rows, then up rows, in ffn_up */
        p[HT_ROLE_GATE] = rows_of(&p[HT_ROLE_UP], 0, f->n_ff);
        p[HT_ROLE_UP] = rows_of(&p[HT_ROLE_UP], f->n_ff, f->n_ff);
        f->bias[HT_ROLE_GATE] = f->bias[HT_ROLE_UP];
        f->bias[HT_ROLE_UP] = offset(f->bias[HT_ROLE_UP], f->n_ff);
    }
    return ht_load_norm(ld, "blk.%u.ffn_sub_norm", il, f->n_ff, false, &f->sub_norm);
}

ht_status ht_load_layer(ht_loader *ld, uint32_t il)
{
    ht_model *m = ld->m;
    ht_layer *l = &m->layers[il];
    bool post_is_ffn = m->arch->post_is_ffn_norm;
    uint32_t n_expert = 0;
    ht_status st;

    if ((st = ht_load_norm(ld, "blk.%u.attn_norm", il, m->d_model, false, &l->attn_norm)) ||
        (st = ht_load_norm(ld, "blk.%u.post_attention_norm", il, m->d_model, post_is_ffn,
                           post_is_ffn ? &l->ffn_norm : &l->post_attn_norm)) ||
        (!post_is_ffn && (st = ht_load_norm(ld, "blk.%u.ffn_norm", il, m->d_model, false, &l->ffn_norm))) ||
        (st = ht_load_norm(ld, "blk.%u.post_ffw_norm", il, m->d_model, false, &l->post_ffn_norm)))
        return st;
    if (m->arch->parallel && ht_load_tensor(ld, "blk.%u.attn_norm_2.weight", il)) { /* falcon 40B: one for attention, one for the other */
        l->ffn_norm = l->attn_norm;
        if ((st = ht_load_norm(ld, "blk.%u.attn_norm_2", il, m->d_model, true, &l->attn_norm)) != HT_OK)
            return st;
    }
    if (!l->attn_norm.w && !l->post_attn_norm.w)
        return ht_fail(ld->err, HT_EFORMAT, "%s: tensor blk.%u.attn_norm.weight is missing", ht_gguf_path(ld->g, 0),
                       il);

    st = ht_load_tensor(ld, "blk.%u.ssm_conv1d.weight", il) ? load_delta(ld, il, l) : load_attn(ld, il, l);
    if (st != HT_OK || (st = ht_load_u32(ld, "expert_count", il, &n_expert)) != HT_OK)
        return st;
    l->ffn.n_expert = n_expert;
    bool mixture = n_expert > 0 && ht_load_tensor(ld, "blk.%u.ffn_gate_inp.weight", il);
    if (mixture && (m->arch->parallel || ht_gguf_powerinfer(ld->g)))
        return ht_fail(ld->err, HT_EUNSUPPORTED, "%s models with experts are not known here (layer %u)",
                       ht_gguf_powerinfer(ld->g) ? "PowerInfer" : ld->arch, il);
    if ((st = mixture ? load_mixture(ld, il, &l->ffn) : load_dense(ld, il, &l->ffn)) != HT_OK)
        return st;
    if (l->ffn.n_ff == 0)
        return ht_fail(ld->err, HT_EFORMAT, "%s.feed_forward_length is 0 (layer %u)", ld->arch, il);
    for (uint32_t e = 0; e < l->ffn.n_expert; e++)
        for (int r = 0; r < HT_N_ROLES; r++)
            set_role(&l->ffn.experts[e][r], (ht_role)r);
    return HT_OK;
}
