/* SPDX-License-Identifier: MIT
 * The small operations on the CPU: one chunk per token (or per stretch of a long row), a few microseconds each. */
#include "cpu/exec.h"
#include "engine/base/vmath.h"

enum { WIDE = 8192 }; /* elements per chunk of rows that may be as long as a vocabulary */

static void quantise(const cpu_op *op, const ht_act *a, uint32_t t, uint32_t k)
{
    size_t at = (size_t)t * a->q8.stride;
    if (a->q8.stride)
        op->x->kernels.vec.quantise_q8(a->f + (size_t)t * a->stride, k, a->q8.q + at, a->q8.d + at / 32,
                                       a->q8.s + at / 16);
}

static void embed_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_embed *e = &op->op.embed;
    float *out = e->out + (size_t)t * e->out_stride;

    (void)thread;
    ht_type_dequant((ht_type)e->table.type, (const uint8_t *)e->table.host + (size_t)e->ids[t] * e->table.stride,
                    e->table.k, out);
    if (e->scale != 1.0f)
        op->x->kernels.vec.add(e->scale, out, 0.0f, out, e->table.k);
}

static void norm_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_norm *n = &op->op.norm;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    const float *x = n->x + (size_t)t * n->x_stride;
    float *out = n->out.f + (size_t)t * n->out.stride;

    (void)thread;
    for (uint32_t g = 0; g < n->k; g += n->group) {
        uint32_t w = n->weight_full ? g : 0;
        const float *from = x + (n->x_group ? (size_t)(g / n->group) * n->x_group : g);
        v->norm(n->kind, from, n->group, n->eps, n->weight ? n->weight + w : NULL, n->bias ? n->bias + w : NULL,
                out + g);
    }
    quantise(op, &n->out, t, n->k);
}

static void add_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_add *a = &op->op.add;
    (void)thread;
    op->x->kernels.vec.add(a->ax, a->x + (size_t)t * a->x_stride, a->ay, a->y + (size_t)t * a->y_stride, a->k);
}

static void gate_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_gate *g = &op->op.gate;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    const float *gate = g->gate ? g->gate + (size_t)t * g->gate_stride : NULL;
    float *y = g->y + (size_t)t * g->y_stride;

    (void)thread;
    if (!gate) {
        v->glu(g->act, 0.0f, NULL, y, g->k, y);
    } else if (g->per_row) {
        float one = 1.0f, w;
        v->glu(g->act, 0.0f, gate, &one, 1, &w);
        v->add(w, y, 0.0f, y, g->k);
    } else {
        for (uint32_t i = 0; i < g->k; i += g->group)
            v->glu(g->act, 0.0f, gate + (size_t)(i / g->group) * g->gate_group, y + i, g->group, y + i);
    }
}

static void softcap_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_softcap *s = &op->op.softcap;
    uint32_t per_token = (s->k + WIDE - 1) / WIDE, t = chunk / per_token, c = chunk % per_token * WIDE;

    (void)thread;
    op->x->kernels.vec.softcap(s->y + (size_t)t * s->y_stride + c, s->k - c < WIDE ? s->k - c : WIDE, s->cap, s->scale);
}

static void rope_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_rope *r = &op->op.rope;
    (void)thread;
    for (uint32_t h = 0; h < r->n_head; h++)
        op->x->kernels.vec.rope(r->x + (size_t)t * r->x_stride + (size_t)h * r->head_dim, r->n_rot, r->neox,
                                r->table + (size_t)t * r->table_stride);
}

static void quantise_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    (void)thread;
    quantise(op, &op->op.quantise.x, t, op->op.quantise.k);
}

/* Scores for the choice; the weights come from `p` itself. Ties go to the lower id, as a stable sort would have it. */
static void route_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_route *r = &op->op.route;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    float *p = cpu_work_space(op, thread);
    const float *logits = r->logits + (size_t)t * r->logits_stride;
    uint32_t *ids = r->ids + (size_t)t * r->k;
    float *w = r->weights + (size_t)t * r->k, sum = 0.0f;

    for (uint32_t e = 0; e < r->n_expert; e++)
        p[e] = r->gating == HT_GATE_SIGMOID ? ht_sigmoidf(logits[e]) : logits[e];
    if (r->gating == HT_GATE_SOFTMAX)
        v->softmax(p, r->n_expert);
    for (uint32_t i = 0; i < r->k; i++) { /* k times the best of those not taken; ids stay ascending */
        uint32_t best = UINT32_MAX;
        float best_score = 0.0f;
        for (uint32_t e = 0, taken = 0; e < r->n_expert; e++) {
            if (taken < i && ids[taken] == e) {
                taken++;
                continue;
            }
            float score = r->select_bias ? p[e] + r->select_bias[e] : p[e];
            if (best == UINT32_MAX || score > best_score) {
                best = e;
                best_score = score;
            }
        }
        uint32_t at = i;
        for (; at > 0 && ids[at - 1] > best; at--)
            ids[at] = ids[at - 1];
        ids[at] = best;
    }
    for (uint32_t i = 0; i < r->k; i++)
        w[i] = p[ids[i]];
    if (r->gating == HT_GATE_SOFTMAX_TOPK)
        v->softmax(w, r->k);
    if (r->renormalise) {
        for (uint32_t i = 0; i < r->k; i++)
            sum += w[i];
        for (uint32_t i = 0; i < r->k; i++)
            w[i] /= sum;
    }
    for (uint32_t i = 0; i < r->k; i++)
        w[i] *= r->scale;
}

bool ht_cpu_plan_small(cpu_op *op)
{
    const ht_op *o = &op->op;
    cpu_phase_fn *fn = NULL;
    uint32_t chunks = o->n_tok;

    switch (o->kind) {
    case HT_OP_EMBED: fn = ht_type_get(o->embed.table.type) && o->embed.table.host ? embed_chunk : NULL; break;
    case HT_OP_NORM: fn = o->norm.group && o->norm.k % o->norm.group == 0 ? norm_chunk : NULL; break;
    case HT_OP_ADD: fn = add_chunk; break;
    case HT_OP_GATE:
        fn = (o->gate.per_row && o->gate.gate) || (o->gate.group && o->gate.k % o->gate.group == 0) ? gate_chunk : NULL;
        break;
    case HT_OP_SOFTCAP:
        fn = softcap_chunk;
        chunks *= (o->softcap.k + WIDE - 1) / WIDE;
        break;
    case HT_OP_ROPE: fn = rope_chunk; break;
    case HT_OP_QUANTISE: fn = quantise_chunk; break;
    case HT_OP_ROUTE:
        fn = o->route.k && o->route.k <= o->route.n_expert && o->route.n_expert <= 4096 ? route_chunk : NULL;
        break;
    default: break;
    }
    op->phase[0] = fn;
    op->n_chunks[0] = chunks;
    op->n_phases = 1;
    return fn != NULL && chunks > 0;
}
