/* SPDX-License-Identifier: MIT
 *
 * Operations that walk a sequence's state on the CPU: attention over paged KV, causal convolution, gated delta rule.
 * Attention is summed page by page in page order whatever the split of work, so its bits depend on positions alone. */
#include <math.h>

#include "cpu/exec.h"
#include "engine/base/vmath.h"

static float *work_space(const cpu_op *op, uint32_t thread)
{
    return (float *)(void *)((uint8_t *)cpu_scratch(op->x, thread) + ht_gemm_scratch_bytes(op->x->max_k));
}

/* One query head of one token. */
static void attend_head(const cpu_op *op, uint32_t t, uint32_t head, float *ws)
{
    const ht_op_attend *a = &op->op.attend;
    const ht_kv_view *kv = &a->kv;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t kv_head = head / (a->n_head / kv->n_kv), pos = a->pos0 + t;
    uint32_t first = a->window && pos + 1 > a->window ? pos + 1 - a->window : 0;
    const float *q = a->q + (size_t)t * a->q_stride + (size_t)head * kv->k_dim;
    float *out = a->out.f + (size_t)t * a->out.stride + (size_t)head * kv->v_dim;
    float *scores = ws, *o = ws + HT_KV_PAGE;
    float M = 0.0f, L = 0.0f;

    for (uint32_t p = first / HT_KV_PAGE; p <= pos / HT_KV_PAGE; p++) {
        const uint8_t *page = kv->pages[p];
        const uint8_t *k = page + (size_t)kv_head * HT_KV_PAGE * kv->k_row_bytes;
        const uint8_t *val = page + kv->v_offset + (size_t)kv_head * HT_KV_PAGE * kv->v_row_bytes;
        uint32_t base = p * HT_KV_PAGE, j0 = first > base ? first - base : 0;
        uint32_t j1 = pos - base + 1 < HT_KV_PAGE ? pos - base + 1 : HT_KV_PAGE;
        bool is_first = p == first / HT_KV_PAGE;
        float m, l;
        v->attend_scores((ht_type)kv->type, q, k, kv->k_row_bytes, kv->k_dim, j0, j1, a->scale, a->softcap, scores);
        v->attend_values((ht_type)kv->type, scores, val, kv->v_row_bytes, kv->v_dim, j0, j1, &m, &l, o);
        v->attend_join(m, l, o, &M, &L, out, kv->v_dim, is_first);
    }
    if (a->sinks) { /* a logit without a value: joins the denominator only */
        for (uint32_t i = 0; i < kv->v_dim; i++)
            o[i] = 0.0f;
        v->attend_join(a->sinks[head], 1.0f, o, &M, &L, out, kv->v_dim, false);
    }
    v->add(1.0f / L, out, 0.0f, out, kv->v_dim);
    if (a->out.q8.stride && kv->v_dim % 32 == 0) {
        size_t at = (size_t)t * a->out.q8.stride + (size_t)head * kv->v_dim;
        v->quantise_q8(out, kv->v_dim, a->out.q8.q + at, a->out.q8.d + at / 32, a->out.q8.s + at / 16);
    }
}

static void attend_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_attend *a = &op->op.attend;
    uint32_t grain = op->grain[0], per_token = (a->n_head + grain - 1) / grain;
    uint32_t t = chunk / per_token, h0 = chunk % per_token * grain;
    uint32_t h1 = a->n_head - h0 < grain ? a->n_head : h0 + grain;

    for (uint32_t h = h0; h < h1; h++)
        attend_head(op, t, h, work_space(op, thread));
}

/* The 8-bit form where heads are no multiple of its blocks. */
static void attend_quantise_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_attend *a = &op->op.attend;
    size_t at = (size_t)t * a->out.q8.stride;

    (void)thread;
    op->x->kernels.vec.quantise_q8(a->out.f + (size_t)t * a->out.stride, a->n_head * a->kv.v_dim, a->out.q8.q + at,
                                   a->out.q8.d + at / 32, a->out.q8.s + at / 16);
}

bool ht_cpu_plan_attend(cpu_op *op)
{
    const ht_op_attend *a = &op->op.attend;

    if (a->kv.n_kv == 0 || a->n_head % a->kv.n_kv || a->kv.k_dim > op->x->max_head || a->kv.v_dim > op->x->max_head)
        return false;
    /* A prompt has enough tokens to share out; a single token is split by heads. */
    op->grain[0] = op->op.n_tok >= 8 * op->x->threads ? a->n_head : 1;
    op->phase[0] = attend_chunk;
    op->n_chunks[0] = op->op.n_tok * ((a->n_head + op->grain[0] - 1) / op->grain[0]);
    op->n_phases = 1;
    if (a->out.q8.stride && a->kv.v_dim % 32) {
        op->phase[1] = attend_quantise_chunk;
        op->n_chunks[1] = op->op.n_tok;
        op->n_phases = 2;
    }
    return true;
}

static void conv_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_conv *c = &op->op.conv;
    uint32_t c0 = chunk * op->grain[0], n = c->n - c0 < op->grain[0] ? c->n - c0 : op->grain[0];

    (void)thread;
    for (uint32_t t = 0; t < op->op.n_tok; t++)
        op->x->kernels.vec.conv(c->x + (size_t)t * c->x_stride + c0, c->y + (size_t)t * c->y_stride + c0, n, c->taps,
                                c->w + (size_t)c0 * c->taps, c->bias ? c->bias + c0 : NULL, c->state + c0, c->n,
                                c->silu);
}

bool ht_cpu_plan_conv(cpu_op *op)
{
    if (op->op.conv.n == 0 || op->op.conv.taps < 2)
        return false;
    op->n_phases = 1;
    op->phase[0] = conv_chunk;
    op->grain[0] = 256;
    op->n_chunks[0] = (op->op.conv.n + 255) / 256;
    return true;
}

static void delta_chunk(const cpu_op *op, uint32_t h, uint32_t thread)
{
    const ht_op_delta *d = &op->op.delta;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t kh = d->tiled ? h % d->n_k : h / (d->n_v / d->n_k);
    float *q = work_space(op, thread), *k = q + d->k_dim, *tmp = k + d->k_dim;
    float *S = d->state + (size_t)h * d->k_dim * d->v_dim;
    float scale = 1.0f / sqrtf((float)d->k_dim);
    uint32_t ab = d->ab_group ? 2 * d->ab_group * (h / d->ab_group) + h % d->ab_group : h;

    for (uint32_t t = 0; t < op->op.n_tok; t++) {
        size_t row = (size_t)t * d->qkv_stride;
        float a = d->alpha[(size_t)t * d->ab_stride + ab], b = d->beta[(size_t)t * d->ab_stride + ab];
        float decay = ht_expf(d->a_coef[h] * ht_softplusf(a + d->dt_bias[h]));
        v->norm(HT_NORM_L2, d->q + row + (size_t)kh * d->k_dim, d->k_dim, 1e-6f, NULL, NULL, q);
        v->add(scale, q, 0.0f, q, d->k_dim);
        v->norm(HT_NORM_L2, d->k + row + (size_t)kh * d->k_dim, d->k_dim, 1e-6f, NULL, NULL, k);
        v->delta(q, k, d->v + row + (size_t)h * d->v_dim, decay, ht_sigmoidf(b), d->k_dim, d->v_dim, S, tmp,
                 d->y + (size_t)t * d->y_stride + (size_t)h * d->v_dim);
    }
}

bool ht_cpu_plan_delta(cpu_op *op)
{
    const ht_op_delta *d = &op->op.delta;

    if (d->n_k == 0 || d->n_v % d->n_k || d->k_dim > op->x->max_head || d->v_dim > op->x->max_head)
        return false;
    op->n_phases = 1;
    op->phase[0] = delta_chunk;
    op->n_chunks[0] = d->n_v;
    return true;
}
