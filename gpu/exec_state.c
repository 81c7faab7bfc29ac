/* SPDX-License-Identifier: MIT
 * Recurrent state and masks on a GPU. */
#include "gpu/exec.h"

#include "engine/base/signs.h"

#include <math.h>

enum { DELTA_MOST = 1024 };

static bool conv(gpu_queue *q, const ht_op_conv *c, uint32_t n_tok)
{
    const conv_args a = { .x_stride = c->x_stride, .y_stride = c->y_stride, .n = c->n, .taps = c->taps, .n_tok = n_tok,
                          .silu = c->silu };

    if (!c->n || c->taps < 2 || !gpu_has_floats(q, c->x, n_tok, c->x_stride, c->n, false) ||
        !gpu_has_floats(q, c->y, n_tok, c->y_stride, c->n, false) || !gpu_has_floats(q, c->w, c->n, c->taps, c->taps, false) ||
        !gpu_has_floats(q, c->bias, 1, 0, c->n, true) || !gpu_has_floats(q, c->state, c->taps - 1, c->n, c->n, false))
        return false;
    GPU_RUN(q, HT_K_conv, gpu_blocks(c->n, 64), 1, 1, a, gpu_addr(c->x), gpu_addr(c->y), gpu_addr(c->w), gpu_addr(c->bias),
            gpu_addr(c->state));
    return true;
}

static bool delta(gpu_queue *q, const ht_op_delta *d, uint32_t n_tok)
{
    const uint64_t n_qk = (uint64_t)d->n_k * d->k_dim, n_v = (uint64_t)d->n_v * d->v_dim;
    const uint64_t ab = !d->ab_group ? d->n_v : (uint64_t)2 * d->ab_group * ((d->n_v - 1) / d->ab_group) + d->ab_group;
    const delta_args a = { .qkv_stride = d->qkv_stride, .ab_stride = d->ab_stride, .ab_group = d->ab_group, .n_k = d->n_k,
                           .n_v = d->n_v, .k_dim = d->k_dim, .v_dim = d->v_dim, .tiled = d->tiled, .y_stride = d->y_stride,
                           .n_tok = n_tok, .scale = 1.0f / sqrtf((float)d->k_dim) };

    if (!d->n_k || !d->n_v || d->n_v % d->n_k || !d->k_dim || !d->v_dim || d->k_dim > DELTA_MOST ||
        !gpu_has_floats(q, d->q, n_tok, d->qkv_stride, n_qk, false) ||
        !gpu_has_floats(q, d->k, n_tok, d->qkv_stride, n_qk, false) ||
        !gpu_has_floats(q, d->v, n_tok, d->qkv_stride, n_v, false) ||
        !gpu_has_floats(q, d->alpha, n_tok, d->ab_stride, ab, false) ||
        !gpu_has_floats(q, d->beta, n_tok, d->ab_stride, ab, false) || !gpu_has_floats(q, d->a_coef, 1, 0, d->n_v, false) ||
        !gpu_has_floats(q, d->dt_bias, 1, 0, d->n_v, false) ||
        !gpu_has_floats(q, d->state, d->n_v, (uint64_t)d->k_dim * d->v_dim, (uint64_t)d->k_dim * d->v_dim, false) ||
        !gpu_has_floats(q, d->y, n_tok, d->y_stride, n_v, false))
        return false;
    GPU_RUN(q, HT_K_delta, d->n_v, 1, 1, a, gpu_addr(d->q), gpu_addr(d->k), gpu_addr(d->v), gpu_addr(d->alpha),
            gpu_addr(d->beta), gpu_addr(d->a_coef), gpu_addr(d->dt_bias), gpu_addr(d->state), gpu_addr(d->y));
    return true;
}

/* By packed signs: activations of all tokens in the executor's scratch, then the tiles. */
static bool predict_signs(gpu_queue *q, const ht_op_predict *p, uint32_t n_tok)
{
    const predict_args a = { .n = p->n, .k = p->k, .x_stride = p->x_stride, .mask_stride = p->mask_stride };
    const uint64_t blocks = ht_signs_blocks(p->k), q_bytes = (n_tok * blocks * 32 + 63) / 64 * 64;
    const uint64_t m_bytes = (n_tok * blocks * 2 + 63) / 64 * 64, at = q->x->scratch;

    /* Which rows of x a list names is known to the device only: rows of the batch are what must be there. */
    if (!p->k || !p->signs || !gpu_has(q, p->signs, 1, 0, ht_signs_bytes(p->n, p->k)) ||
        !gpu_has_floats(q, p->x, p->tokens ? 1 : n_tok, p->x_stride, p->k, false) || gpu_addr(p->tokens) % 4 ||
        (p->tokens && !gpu_has(q, p->tokens, n_tok, 4, 4)) || q_bytes + m_bytes + n_tok * 4ull > q->x->scratch_bytes)
        return false;
    GPU_RUN(q, HT_K_signs_quantise, n_tok, 1, 1, a, gpu_addr(p->x), gpu_addr(p->tokens), at, at + q_bytes,
            at + q_bytes + m_bytes);
    GPU_RUN(q, HT_K_mask_signs, ht_signs_tiles(p->n), n_tok, 1, a, gpu_addr(p->signs), gpu_addr(p->threshold),
            gpu_addr(p->mask), at, at + q_bytes, at + q_bytes + m_bytes);
    return true;
}

static bool predict(gpu_queue *q, const ht_op_predict *p, uint32_t n_tok)
{
    const predict_args a = { .n = p->n, .scores_stride = p->scores_stride, .mask_stride = p->mask_stride };
    const uint64_t words = (p->n + 31ull) / 32;

    if (!p->n || !gpu_has_floats(q, p->threshold, 1, 0, p->n, false) || p->mask_stride < words || gpu_addr(p->mask) % 4 ||
        !gpu_has(q, p->mask, n_tok, p->mask_stride * 4ull, words * 4))
        return false;
    if (!p->scores)
        return predict_signs(q, p, n_tok);
    if (!gpu_has_floats(q, p->scores, n_tok, p->scores_stride, p->n, false))
        return false;
    GPU_RUN(q, HT_K_mask_scores, gpu_blocks(words, 64), n_tok, 1, a, gpu_addr(p->scores), gpu_addr(p->threshold),
            gpu_addr(p->mask));
    return true;
}

bool gpu_op_state(gpu_queue *q, const ht_op *op)
{
    switch (op->kind) {
    case HT_OP_CONV: return conv(q, &op->conv, op->n_tok);
    case HT_OP_DELTA: return delta(q, &op->delta, op->n_tok);
    default: return predict(q, &op->predict, op->n_tok);
    }
}
