/* SPDX-License-Identifier: MIT
 *
 * Operations that walk a sequence's recurrent state on the CPU: causal convolution, gated delta rule. */
#include <math.h>

#include "cpu/exec.h"
#include "engine/base/vmath.h"

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
    float *q = cpu_work_space(op, thread), *k = q + d->k_dim, *tmp = k + d->k_dim;
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
