/* SPDX-License-Identifier: MIT
 *
 * The feed-forward operation on the CPU, dense or mixture: here an active neuron is computed.
 *
 * Phases: gather the tokens of each expert side by side (prompts of mixtures only); gate, up and activation by
 * blocks of neurons; a norm over the whole hidden row where the model has one; the down projection by blocks of
 * outputs. A thread owns whole outputs in the last phase and walks the experts in the order given and their segments
 * in order, so the sum never depends on threads. */
#include "cpu/exec.h"

#include <string.h>

enum { TILE = 16384 }; /* floats of one tile of results in scratch */

static float *tile(const cpu_op *op, uint32_t thread, uint32_t i)
{
    uint8_t *base = (uint8_t *)cpu_scratch(op->x, thread) + ht_gemm_scratch_bytes(op->x->max_k);
    return (float *)(void *)base + (size_t)i * TILE;
}

size_t ht_cpu_ops_scratch_bytes(uint32_t max_head)
{
    size_t ffn = 2 * TILE * sizeof(float), attend = (HT_KV_PAGE + 4 * (size_t)max_head) * sizeof(float);
    return ffn > attend ? ffn : attend;
}

static void copy_token(const ht_act *from, uint32_t i, const ht_act *to, uint32_t j, uint32_t k)
{
    memcpy(to->f + (size_t)j * to->stride, from->f + (size_t)i * from->stride, k * sizeof(float));
    if (from->q8.stride) {
        const ht_q8 *a = &from->q8, *b = &to->q8;
        size_t x = (size_t)i * a->stride, y = (size_t)j * b->stride;
        memcpy(b->q + y, a->q + x, k);
        memcpy(b->d + y / 32, a->d + x / 32, k / 32 * sizeof(float));
        memcpy(b->s + y / 16, a->s + x / 16, k / 16 * sizeof(int16_t));
    }
}

static void gather_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_ffn_item *it = &f->items[chunk];

    (void)thread;
    for (uint32_t i = 0; it->tokens && i < it->n_tokens; i++)
        copy_token(&f->x, it->tokens[i], &f->gathered, it->slot + i, f->d_model);
}

static void add_bias(float *y, size_t ld, const float *bias, uint32_t n_tok, uint32_t n)
{
    for (uint32_t t = 0; bias && t < n_tok; t++)
        for (uint32_t i = 0; i < n; i++)
            y[t * ld + i] += bias[i];
}

/* Neurons [r0, r0 + n) of one expert for all its tokens: h = act(gate x) * (up x), and its 8-bit form. */
static void neurons_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t grain = op->grain[1], per_item = (f->n_ff + grain - 1) / grain;
    const ht_ffn_item *it = &f->items[chunk / per_item];
    uint32_t r0 = chunk % per_item * grain, n = f->n_ff - r0 < grain ? f->n_ff - r0 : grain;
    bool gathered = it->tokens && op->op.n_tok > 1, gate = it->part[HT_ROLE_GATE].host != NULL;
    const ht_act *x = gathered ? &f->gathered : &f->x;
    uint32_t x0 = gathered ? it->slot : it->tokens ? it->tokens[0] : 0;
    float *g = tile(op, thread, 0), *u = tile(op, thread, 1);
    uint32_t step = TILE / grain;
    uint64_t active = 0;

    for (uint32_t t0 = 0; t0 < it->n_tokens; t0 += step) {
        uint32_t nt = it->n_tokens - t0 < step ? it->n_tokens - t0 : step;
        void *scratch = cpu_scratch(op->x, thread);
        if (gate) {
            ht_cpu_product(op->x, &it->part[HT_ROLE_GATE], r0, n, 0, f->d_model, x, x0 + t0, nt, g, grain, scratch);
            add_bias(g, grain, it->bias[HT_ROLE_GATE] ? it->bias[HT_ROLE_GATE] + r0 : NULL, nt, n);
        }
        ht_cpu_product(op->x, &it->part[HT_ROLE_UP], r0, n, 0, f->d_model, x, x0 + t0, nt, u, grain, scratch);
        add_bias(u, grain, it->bias[HT_ROLE_UP] ? it->bias[HT_ROLE_UP] + r0 : NULL, nt, n);
        for (uint32_t t = 0; t < nt; t++) {
            size_t slot = it->slot + t0 + t;
            float *h = f->h.f + slot * f->h.stride + r0;
            active += v->glu(f->act, f->act_param, gate ? g + (size_t)t * grain : NULL, u + (size_t)t * grain, n, h);
            if (f->h.q8.stride && !f->h_norm) {
                size_t at = slot * f->h.q8.stride + r0;
                v->quantise_q8(h, n, f->h.q8.q + at, f->h.q8.d + at / 32, f->h.q8.s + at / 16);
            }
        }
    }
    if (f->n_active) {
        atomic_fetch_add_explicit(f->n_active, active, memory_order_relaxed);
        atomic_fetch_add_explicit(f->n_neurons, (uint64_t)n * it->n_tokens, memory_order_relaxed);
    }
}

static void h_norm_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    float *h = f->h.f + (size_t)chunk * f->h.stride;

    (void)thread;
    v->norm(HT_NORM_RMS, h, f->n_ff, f->h_norm_eps, f->h_norm, NULL, h);
    if (f->h.q8.stride) {
        size_t at = (size_t)chunk * f->h.q8.stride;
        v->quantise_q8(h, f->n_ff, f->h.q8.q + at, f->h.q8.d + at / 32, f->h.q8.s + at / 16);
    }
}

/* Outputs [r0, r0 + n) of the block for all tokens: experts in order, segments in order. */
static void down_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t grain = op->grain[3], r0 = chunk * grain, n = f->d_model - r0 < grain ? f->d_model - r0 : grain;
    float *sum = tile(op, thread, 0), *part = tile(op, thread, 1);
    uint32_t step = TILE / grain;

    for (uint32_t t = 0; t < op->op.n_tok; t++)
        memset(f->y + (size_t)t * f->y_stride + r0, 0, n * sizeof(float));
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        const float *bias = it->bias[HT_ROLE_DOWN] ? it->bias[HT_ROLE_DOWN] + r0 : NULL;
        for (uint32_t t0 = 0; t0 < it->n_tokens; t0 += step) {
            uint32_t nt = it->n_tokens - t0 < step ? it->n_tokens - t0 : step;
            for (uint32_t c = 0; c < f->n_ff; c += HT_SEGMENT) {
                uint32_t k = f->n_ff - c < HT_SEGMENT ? f->n_ff - c : HT_SEGMENT;
                ht_cpu_product(op->x, &it->part[HT_ROLE_DOWN], r0, n, c, k, &f->h, it->slot + t0, nt, c ? part : sum,
                               grain, cpu_scratch(op->x, thread));
                for (uint32_t t = 0; c && t < nt; t++)
                    v->add(1.0f, part + (size_t)t * grain, 1.0f, sum + (size_t)t * grain, n);
            }
            add_bias(sum, grain, bias, nt, n);
            for (uint32_t t = 0; t < nt; t++) {
                uint32_t tok = it->tokens ? it->tokens[t0 + t] : t0 + t;
                v->axpy(it->weights ? it->weights[t0 + t] : 1.0f, sum + (size_t)t * grain,
                        f->y + (size_t)tok * f->y_stride + r0, n);
            }
        }
    }
}

static void add_phase(cpu_op *op, cpu_phase_fn *fn, uint32_t n_chunks)
{
    op->phase[op->n_phases] = fn;
    op->n_chunks[op->n_phases++] = n_chunks;
}

bool ht_cpu_plan_ffn(cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    uint32_t slots = 0;
    bool gather = false;

    if (f->n_items == 0 || f->n_ff == 0 || f->n_ff > op->x->max_k || f->d_model > op->x->max_k)
        return false;
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        if (!it->part[HT_ROLE_UP].host || !it->part[HT_ROLE_DOWN].host || it->n_tokens == 0)
            return false;
        slots += it->n_tokens;
        gather |= it->tokens && op->op.n_tok > 1;
    }
    op->n_phases = 0;
    uint32_t rows = f->n_ff * f->n_items >= 256 * op->x->threads && op->op.n_tok == 1 ? 64 : 32;
    if (gather)
        add_phase(op, gather_chunk, f->n_items);
    op->grain[1] = rows;
    add_phase(op, neurons_chunk, f->n_items * ((f->n_ff + rows - 1) / rows));
    if (f->h_norm)
        add_phase(op, h_norm_chunk, slots);
    op->grain[3] = f->d_model >= 512 ? 32 : 16;
    add_phase(op, down_chunk, (f->d_model + op->grain[3] - 1) / op->grain[3]);
    return true;
}
