/* SPDX-License-Identifier: MIT
 * The small operations on a GPU: norms, sums, gates, rotation, the 8-bit form, the router's choice. */
#include "gpu/exec.h"

#include <math.h>

enum { ROUTE_MOST = 4096, ROUTE_K = 256 }; /* as in gpu/kernels/small.h */

void gpu_run_quantise(gpu_queue *q, const ht_act *x, uint32_t n_tok, uint32_t k)
{
    const quantise_args a = { .k = k, .x_stride = x->stride, .q_stride = x->q8.stride };

    if (x->q8.stride)
        GPU_RUN(q, HT_K_quantise, gpu_blocks(k / 32, ht_gpu_kernels[HT_K_quantise].threads), n_tok, 1, a, gpu_addr(x->f),
                gpu_addr(x->q8.q), gpu_addr(x->q8.d), gpu_addr(x->q8.s));
}

static bool norm(gpu_queue *q, const ht_op_norm *n, uint32_t n_tok)
{
    const uint32_t groups = n->group ? n->k / n->group : 0;
    const uint64_t x_row = groups ? (uint64_t)(n->x_group ? n->x_group : n->group) * (groups - 1) + n->group : 0;
    const uint64_t w = n->weight_full ? n->k : n->group;
    const bool whole = n->group % 32 == 0; /* else 8-bit blocks reach over groups, and are made when all are done */
    const norm_args a = { .x_stride = n->x_stride, .out_stride = n->out.stride, .q_stride = whole ? n->out.q8.stride : 0,
                          .group = n->group, .x_group = n->x_group, .weight_full = n->weight_full, .kind = n->kind,
                          .eps = n->eps };

    if (!groups || n->k % n->group || n->kind > HT_NORM_L2 || !gpu_has_floats(q, n->x, n_tok, n->x_stride, x_row, false) ||
        !gpu_has_floats(q, n->weight, 1, 0, w, true) || !gpu_has_floats(q, n->bias, 1, 0, w, true) ||
        !gpu_has_act(q, &n->out, n_tok, n->k))
        return false;
    GPU_RUN(q, HT_K_norm, groups, n_tok, 1, a, gpu_addr(n->x), gpu_addr(n->weight), gpu_addr(n->bias), gpu_addr(n->out.f),
            gpu_addr(n->out.q8.q), gpu_addr(n->out.q8.d), gpu_addr(n->out.q8.s));
    if (!whole)
        gpu_run_quantise(q, &n->out, n_tok, n->k);
    return true;
}

static bool add(gpu_queue *q, const ht_op_add *o, uint32_t n_tok)
{
    const add_args a = { .x_stride = o->x_stride, .y_stride = o->y_stride, .k = o->k, .ax = o->ax, .ay = o->ay };

    if (!o->k || !gpu_has_floats(q, o->x, n_tok, o->x_stride, o->k, false) ||
        !gpu_has_floats(q, o->y, n_tok, o->y_stride, o->k, false))
        return false;
    GPU_RUN(q, HT_K_add, gpu_blocks(o->k, 256), n_tok, 1, a, gpu_addr(o->x), gpu_addr(o->y));
    return true;
}

static bool gate(gpu_queue *q, const ht_op_gate *o, uint32_t n_tok)
{
    const gate_args a = { .gate_stride = o->gate_stride, .y_stride = o->y_stride, .k = o->k,
                          .group = o->group ? o->group : o->k, .gate_group = o->gate_group, .act = o->act,
                          .per_row = o->per_row };
    const bool grouped = o->gate && !o->per_row;
    const uint64_t row = !o->gate      ? 0
                         : o->per_row  ? 1
                         : o->group    ? (uint64_t)(o->k / o->group - (o->k >= o->group)) * o->gate_group + o->group
                                       : 0;

    if (!o->k || o->act > HT_ACT_IDENTITY || (grouped && (!o->group || o->k % o->group)) ||
        (o->per_row && !o->gate) || !gpu_has_floats(q, o->gate, n_tok, o->gate_stride, row, true) ||
        !gpu_has_floats(q, o->y, n_tok, o->y_stride, o->k, false))
        return false;
    GPU_RUN(q, HT_K_gate, gpu_blocks(o->k, 256), n_tok, 1, a, gpu_addr(o->gate), gpu_addr(o->y));
    return true;
}

static bool softcap(gpu_queue *q, const ht_op_softcap *o, uint32_t n_tok)
{
    const softcap_args a = { .y_stride = o->y_stride, .k = o->k, .cap = o->cap, .scale = o->scale };

    if (!o->k || !gpu_has_floats(q, o->y, n_tok, o->y_stride, o->k, false))
        return false;
    GPU_RUN(q, HT_K_softcap, gpu_blocks(o->k, 256), n_tok, 1, a, gpu_addr(o->y));
    return true;
}

static bool rope(gpu_queue *q, const ht_op_rope *o, uint32_t n_tok)
{
    const rope_args a = { .x_stride = o->x_stride, .head_dim = o->head_dim, .n_rot = o->n_rot, .neox = o->neox,
                          .table_stride = o->table_stride };

    if (!o->n_head || !o->n_rot || o->n_rot % 2 || o->n_rot > o->head_dim ||
        !gpu_has_floats(q, o->x, n_tok, o->x_stride, (uint64_t)o->n_head * o->head_dim, false) ||
        !gpu_has_floats(q, o->table, n_tok, o->table_stride, o->n_rot, false))
        return false;
    GPU_RUN(q, HT_K_rope, o->n_head, n_tok, 1, a, gpu_addr(o->x), gpu_addr(o->table));
    return true;
}

static bool route(gpu_queue *q, const ht_op_route *o, uint32_t n_tok)
{
    const route_args a = { .logits_stride = o->logits_stride, .n_expert = o->n_expert, .k = o->k, .gating = o->gating,
                           .renormalise = o->renormalise, .scale = o->scale };

    if (!o->k || o->k > o->n_expert || o->n_expert > ROUTE_MOST || o->k > ROUTE_K || o->gating > HT_GATE_SOFTMAX_TOPK ||
        !gpu_has_floats(q, o->logits, n_tok, o->logits_stride, o->n_expert, false) ||
        !gpu_has_floats(q, o->select_bias, 1, 0, o->n_expert, true) || gpu_addr(o->ids) % 4 ||
        !gpu_has(q, o->ids, n_tok, o->k * 4ull, o->k * 4ull) || !gpu_has_floats(q, o->weights, n_tok, o->k, o->k, false))
        return false;
    GPU_RUN(q, HT_K_route, n_tok, 1, 1, a, gpu_addr(o->logits), gpu_addr(o->select_bias), gpu_addr(o->ids),
            gpu_addr(o->weights));
    return true;
}

bool gpu_op_small(gpu_queue *q, const ht_op *op)
{
    const ht_op_quantise *z = &op->quantise;

    switch (op->kind) {
    case HT_OP_NORM: return norm(q, &op->norm, op->n_tok);
    case HT_OP_ADD: return add(q, &op->add, op->n_tok);
    case HT_OP_GATE: return gate(q, &op->gate, op->n_tok);
    case HT_OP_SOFTCAP: return softcap(q, &op->softcap, op->n_tok);
    case HT_OP_ROPE: return rope(q, &op->rope, op->n_tok);
    case HT_OP_ROUTE: return route(q, &op->route, op->n_tok);
    case HT_OP_QUANTISE:
        if (!gpu_has_act(q, &z->x, op->n_tok, z->k))
            return false;
        gpu_run_quantise(q, &z->x, op->n_tok, z->k);
        return true;
    default: return false;
    }
}
