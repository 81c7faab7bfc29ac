/* SPDX-License-Identifier: MIT
 *
 * The feed-forward block beside its products: activation with mask and thresholds, lists of open neurons, down projections
 * in rows of neurons and neuron-major, sums of experts, masks. */
#ifndef HT_GPU_FFN_H
#define HT_GPU_FFN_H

#include "gpu/kernels/args.h"
#include "gpu/kernels/blocks.h"

/* h = act(g) * u (g NULL: act(u)) of neurons (x: blocks of 256) and tokens (y), in place where h is u. counts: of neurons
 * that are not zero, or NULL. */
KERNEL(activate, 256, activate_args)
    PTR_RO(0, float, g);
    PTR(1, const float, u);
    PTR(2, float, h);
    PTR(3, int8_t, q);
    PTR(4, float, d);
    PTR(5, int16_t, s);
    PTR_RO(6, uint32_t, mask);
    PTR(7, uint32_t, counts);
    const uint64_t row = (uint64_t)(a.slot + BLOCK_Y);
    SHARED(uint32_t, live, NT);
    EACH {
        const uint32_t i = BLOCK_X * NT + TID;
        live[TID] = 0;
        if (i >= a.n)
            continue;
        const float up = u[(uint64_t)BLOCK_Y * a.u_stride + i];
        const float gate = g ? g[(uint64_t)BLOCK_Y * a.g_stride + i] : up;
        float v = g ? ht_act_times(a.act, a.act_param, gate, up) : ht_act_alone(a.act, a.act_param, up);
        if (mask && !(mask[row * a.mask_stride + i / 32] >> i % 32 & 1))
            v = 0.0f;
        if (g && a.gate_least > 0.0f && fabsf(ht_act_alone(a.act, a.act_param, gate)) < a.gate_least)
            v = 0.0f;
        if (fabsf(v) < a.h_least)
            v = 0.0f;
        h[row * a.h_stride + i] = v;
        live[TID] = v != 0.0f;
    }
    SYNC
    EACH {
        const uint32_t b = BLOCK_X * (NT / 32) + TID;
        if (a.quantise && TID < NT / 32 && b < a.n / 32) {
            const uint64_t at = row * a.q_stride + 32 * b;
            ht_quantise_block(h + row * a.h_stride + 32 * b, q + at, d + at / 32, s + at / 16);
        }
        if (counts && TID == 0) {
            uint32_t n = 0;
            for (uint32_t i = 0; i < NT; i++)
                n += live[i];
            ADD_COUNT(counts, n);
        }
    }
KERNEL_END

/* y[y rows] = 0 */
KERNEL(zero, 256, add_args)
    PTR(0, float, y);
    EACH {
        const uint32_t i = BLOCK_X * NT + TID;
        if (i < a.k)
            y[(uint64_t)BLOCK_Y * a.y_stride + i] = 0.0f;
    }
KERNEL_END

/* y = fma(weights[0], x, keep ? y : 0) of one token; weights NULL: 1. Sums of experts' outputs. */
KERNEL(weighted, 256, join_args)
    PTR_RO(0, float, x);
    PTR_RO(1, float, weights);
    PTR(2, float, y);
    EACH {
        const uint32_t i = BLOCK_X * NT + TID;
        if (i < a.d_model)
            y[i] = fmaf(weights ? weights[0] : 1.0f, x[i], a.keep ? y[i] : 0.0f);
    }
KERNEL_END

FN uint32_t ht_listed(const list_args a, GLOBAL const float *g, GLOBAL const uint32_t *mask, uint32_t i)
{
    if (mask && !(mask[i / 32] >> i % 32 & 1))
        return 0;
    if (a.what == 1)
        return !(g[i] <= a.shut);
    return a.what != 2 || !(fabsf(ht_act_alone(a.act, a.act_param, g[i])) < a.shut);
}

/* Lists neurons in order: list[0] is how many, then their numbers. One block. A neuron is left out where the mask says so,
 * where its gate is shut (what 1: g <= shut), or below a threshold (what 2: |act(g)| < shut); no number stays. */
KERNEL(list_open, 256, list_args)
    PTR_RO(0, float, g);
    PTR_RO(1, uint32_t, mask);
    PTR(2, uint32_t, list);
    SHARED(uint32_t, begin, NT + 1);
    const uint32_t each = (a.n + NT - 1) / NT;
    EACH {
        uint32_t n = 0;
        for (uint32_t i = TID * each; i < (TID + 1) * each && i < a.n; i++)
            n += ht_listed(a, g, mask, i);
        begin[TID + 1] = n;
    }
    SYNC
    EACH {
        if (TID)
            continue;
        begin[0] = 0;
        for (uint32_t i = 0; i < NT; i++)
            begin[i + 1] += begin[i];
        list[0] = begin[NT];
    }
    SYNC
    EACH {
        uint32_t at = begin[TID];
        for (uint32_t i = TID * each; i < (TID + 1) * each && i < a.n; i++)
            if (ht_listed(a, g, mask, i))
                list[1 + at++] = i;
    }
KERNEL_END

/* ---- down projections by neurons: a thread owns an output, a block (y) a segment; sums[segment][width] ---- */

enum { NEURONS_Q4_0 = 2, NEURONS_Q8_0 = 8, NEURONS_Q4_K = 12, NEURONS_Q6_K = 14 }; /* ids of ht_type */

/* The weight's integer at output o of a row of the neuron-major form (engine/base/neurons.h). */
FN int32_t ht_neuron_code(uint32_t type, GLOBAL const uint8_t *row, uint32_t o)
{
    if (type == NEURONS_Q8_0)
        return (int8_t)row[o];
    GLOBAL const uint8_t *piece = row + o / 128 * (type == NEURONS_Q6_K ? 96 : 64);
    const uint32_t at = o % 128;
    const int32_t v = piece[at / 64 * 32 + at % 32] >> (at / 32 % 2 * 4) & 15;
    if (type == NEURONS_Q6_K)
        return (v | (piece[64 + at % 32] >> (at / 32 * 2) & 3) << 4) - 32;
    return type == NEURONS_Q4_0 ? v - 8 : v;
}

/* By 8-bit activations: only neurons whose q is not 0 are read. */
KERNEL(down_neurons, 128, down_args)
    PTR_RO(0, uint8_t, w);
    PTR_RO(1, int8_t, hq);
    PTR_RO(2, float, hd);
    PTR_RO(3, int16_t, hs);
    PTR(4, float, sums);
    PRIVATE_N(float, acc, 16);
    const uint32_t from = BLOCK_Y * a.segment, to = from + a.segment < a.n_ff ? from + a.segment : a.n_ff;
    const uint32_t per = a.type == NEURONS_Q4_0 || a.type == NEURONS_Q8_0 ? 1 : 8; /* blocks of 32 to a plane of d */
    EACH for (uint32_t i = 0; i < 16; i++)
        MY(acc)[i] = 0.0f;
    for (uint32_t b0 = from / 32; b0 < to / 32; b0 += 16) {
        EACH {
            const uint32_t o = BLOCK_X * NT + TID;
            if (o >= a.d_model)
                continue;
            UNROLL for (uint32_t i = 0; i < 16; i++) {
                const uint32_t b = b0 + i;
                if (b >= to / 32)
                    continue;
                int32_t lo = 0, hi = 0;
                uint32_t any = (ht_f32_bits(hd[b]) & 0x7f800000u) == 0x7f800000u;
                for (uint32_t j = 0; j < 32; j++) {
                    const int32_t x = hq[32 * b + j];
                    if (x == 0)
                        continue;
                    any = 1;
                    const int32_t v = ht_neuron_code(a.type, w + a.rows_at + (uint64_t)(32 * b + j) * a.stride, o) * x;
                    lo += j < 16 ? v : 0;
                    hi += j < 16 ? 0 : v;
                }
                if (!any)
                    continue;
                GLOBAL const uint8_t *d = w + a.d_at + (uint64_t)(b / per) * a.d_stride + 2 * o;
                GLOBAL const uint8_t *sc = w + a.sc_at + (uint64_t)b * a.sc_stride + o;
                if (per == 1) {
                    MY(acc)[i] = fmaf(half_at(d) * hd[b], (float)(lo + hi), MY(acc)[i]);
                } else if (a.type == NEURONS_Q6_K) {
                    MY(acc)[i] = fmaf(half_at(d) * hd[b], (float)((int8_t)sc[0] * lo + (int8_t)sc[a.width] * hi), MY(acc)[i]);
                } else {
                    const int32_t sum = hs[2 * b] + hs[2 * b + 1];
                    MY(acc)[i] = fmaf(half_at(d) * hd[b], (float)(sc[0] * (lo + hi)), MY(acc)[i]);
                    MY(acc)[i] = fmaf(-half_at(d + 2 * a.width) * hd[b], (float)(sc[a.width] * sum), MY(acc)[i]);
                }
            }
        }
    }
    EACH {
        const uint32_t o = BLOCK_X * NT + TID;
        if (o >= a.d_model)
            continue;
        float t[8];
        for (uint32_t i = 0; i < 8; i++)
            t[i] = MY(acc)[i] + MY(acc)[i + 8];
        for (uint32_t i = 0; i < 4; i++)
            t[i] = t[i] + t[i + 4];
        sums[(uint64_t)BLOCK_Y * a.sums_stride + o] = (t[0] + t[2]) + (t[1] + t[3]);
    }
KERNEL_END

/* Float rows of the neuron-major form: by float activations, element mod 32 and the tree; what is 0 is not read. */
#define DOWN_FLOATS(type)                                                                                              \
    KERNEL(down_neurons_##type, 128, down_args)                                                                        \
        PTR_RO(0, uint8_t, w);                                                                                         \
        PTR_RO(1, float, h);                                                                                           \
        PTR(4, float, sums);                                                                                           \
        PRIVATE_N(float, acc, 32);                                                                                     \
        const uint32_t from = BLOCK_Y * a.segment, to = from + a.segment < a.n_ff ? from + a.segment : a.n_ff;         \
        EACH {                                                                                                         \
            const uint32_t o = BLOCK_X * NT + TID;                                                                     \
            for (uint32_t i = 0; i < 32; i++)                                                                          \
                MY(acc)[i] = 0.0f;                                                                                     \
            if (o >= a.d_model)                                                                                        \
                continue;                                                                                              \
            for (uint32_t j0 = from; j0 < to; j0 += 32) {                                                              \
                UNROLL for (uint32_t i = 0; i < 32; i++) {                                                             \
                    const uint32_t j = j0 + i;                                                                         \
                    if (j < to && !(h[j] == 0.0f))                                                                     \
                        MY(acc)[i] = fmaf(ht_at_##type(w + a.rows_at + (uint64_t)j * a.stride, o), h[j], MY(acc)[i]);  \
                }                                                                                                      \
            }                                                                                                          \
            for (uint32_t n = 16; n; n /= 2)                                                                           \
                for (uint32_t i = 0; i < n; i++)                                                                       \
                    MY(acc)[i] = MY(acc)[i] + MY(acc)[i + n];                                                          \
            sums[(uint64_t)BLOCK_Y * a.sums_stride + o] = MY(acc)[0];                                                  \
        }                                                                                                              \
    KERNEL_END

/* Rows of neurons with blocks along the outputs: y = fma(h[j], w, y) in order. Token z. */
#define DOWN_COLUMNS(type)                                                                                             \
    KERNEL(down_columns_##type, 128, down_args)                                                                        \
        PTR_RO(0, uint8_t, w);                                                                                         \
        PTR_RO(1, float, h);                                                                                           \
        PTR(4, float, sums);                                                                                           \
        const uint32_t from = BLOCK_Y * a.segment, to = from + a.segment < a.n_ff ? from + a.segment : a.n_ff;         \
        EACH {                                                                                                         \
            const uint32_t o = BLOCK_X * NT + TID;                                                                     \
            GLOBAL const float *x = h + (uint64_t)BLOCK_Z * a.h_stride;                                                \
            float y = 0.0f;                                                                                            \
            if (o >= a.d_model)                                                                                        \
                continue;                                                                                              \
            for (uint32_t j = from; j < to; j++)                                                                       \
                if (!(x[j] == 0.0f))                                                                                   \
                    y = fmaf(x[j], ht_at_##type(w + (uint64_t)j * a.stride, o), y);                                    \
            sums[((uint64_t)BLOCK_Z * a.segments + BLOCK_Y) * a.sums_stride + o] = y;                                  \
        }                                                                                                              \
    KERNEL_END

#define HT_GPU_QUANT(type, id, has_min) DOWN_COLUMNS(type)
#define HT_GPU_FLOAT(type, id) DOWN_COLUMNS(type) DOWN_FLOATS(type)
#include "gpu/kernels/types.inc"
#undef HT_GPU_QUANT
#undef HT_GPU_FLOAT

/* y = fma(weight, sum of the segments in order + bias, keep ? y : 0), token y. */
KERNEL(down_join, 256, join_args)
    PTR_RO(0, float, sums);
    PTR_RO(1, float, bias);
    PTR_RO(2, float, weights);
    PTR(3, float, y);
    EACH {
        const uint32_t o = BLOCK_X * NT + TID;
        GLOBAL const float *s = sums + (uint64_t)BLOCK_Y * a.segments * a.sums_stride + o;
        GLOBAL float *to = y + (uint64_t)BLOCK_Y * a.y_stride + o;
        if (o >= a.d_model)
            continue;
        float v = s[0];
        for (uint32_t i = 1; i < a.segments; i++)
            v = s[(uint64_t)i * a.sums_stride] + v;
        if (bias)
            v += bias[o];
        *to = fmaf(weights ? weights[BLOCK_Y] : 1.0f, v, a.keep ? *to : 0.0f);
    }
KERNEL_END

/* ---- masks ---- */

/* A thread per word of 32 neurons; token y. */
KERNEL(mask_scores, 64, predict_args)
    PTR_RO(0, float, scores);
    PTR_RO(1, float, threshold);
    PTR(2, uint32_t, mask);
    EACH {
        const uint32_t w = BLOCK_X * NT + TID;
        uint32_t word = 0;
        if (w >= (a.n + 31) / 32)
            continue;
        for (uint32_t i = 0; i < 32 && 32 * w + i < a.n; i++)
            word |= (uint32_t)(scores[(uint64_t)BLOCK_Y * a.scores_stride + 32 * w + i] >= threshold[32 * w + i]) << i;
        mask[(uint64_t)BLOCK_Y * a.mask_stride + w] = word;
    }
KERNEL_END

/* Four-bit activations for one-bit matrices (engine/base/signs.c), a block per token: q[token][blocks * 32],
 * m[token][blocks], base[token]. */
KERNEL(signs_quantise, 128, predict_args)
    PTR_RO(0, float, x);
    PTR_RO(1, uint32_t, tokens);
    PTR(2, int8_t, q);
    PTR(3, int16_t, m);
    PTR(4, float, base);
    SHARED(float, most, NT);
    const uint32_t blocks = (a.k + 31) / 32;
    GLOBAL const float *from = x + (uint64_t)(tokens ? tokens[BLOCK_X] : BLOCK_X) * a.x_stride;
    EACH {
        float max = 0.0f;
        for (uint32_t i = TID; i < a.k; i += NT)
            max = fabsf(from[i]) > max ? fabsf(from[i]) : max;
        most[TID] = max;
    }
    SYNC
    float max = 0.0f;
    for (uint32_t i = 0; i < NT; i++)
        max = most[i] > max ? most[i] : max;
    const float step = max / (7.0f * 255.0f);
    const uint32_t nothing = (ht_f32_bits(max) & 0x7f800000u) == 0x7f800000u || !(step >= 1e-30f);
    EACH for (uint32_t b = TID; b < blocks; b += NT) {
        float top = 0.0f;
        for (uint32_t i = 32 * b; i < 32 * b + 32 && i < a.k; i++)
            top = fabsf(from[i]) > top ? fabsf(from[i]) : top;
        float scale = nothing ? 1.0f : ceilf(top / (7.0f * step));
        scale = scale > 1.0f ? scale < 255.0f ? scale : 255.0f : 1.0f;
        const float inverse = 1.0f / (scale * step);
        m[(uint64_t)BLOCK_X * blocks + b] = (int16_t)scale;
        for (uint32_t i = 32 * b; i < 32 * b + 32; i++) {
            const float v = i < a.k && !nothing ? rintf(from[i] * inverse) : 0.0f;
            q[(uint64_t)BLOCK_X * blocks * 32 + i] = (int8_t)(v >= -7.0f ? v <= 7.0f ? v : 7.0f : -7.0f);
        }
    }
    EACH if (TID == 0) base[BLOCK_X] = nothing ? 0.0f : step;
KERNEL_END

/* A block is a tile of 32 neurons (x) of a token (y), a thread a neuron. */
KERNEL(mask_signs, 32, predict_args)
    PTR_RO(0, uint8_t, signs);
    PTR_RO(1, float, threshold);
    PTR(2, uint32_t, mask);
    PTR_RO(3, int8_t, q);
    PTR_RO(4, int16_t, m);
    PTR_RO(5, float, base);
    SHARED(uint32_t, open, NT);
    const uint32_t blocks = (a.k + 31) / 32;
    EACH {
        const uint32_t n = BLOCK_X * 32 + TID;
        GLOBAL const uint8_t *tile = signs + (uint64_t)BLOCK_X * blocks * 128 + TID;
        int32_t sum = 0;
        for (uint32_t b = 0; b < blocks; b++) {
            GLOBAL const int8_t *x = q + (uint64_t)BLOCK_Y * blocks * 32 + 32 * b;
            int32_t s = 0;
            for (uint32_t i = 0; i < 32; i++)
                s += tile[b * 128 + i / 8 * 32] >> i % 8 & 1 ? x[i] : -x[i];
            sum += m[(uint64_t)BLOCK_Y * blocks + b] * s;
        }
        open[TID] = n < a.n && base[BLOCK_Y] * (float)sum >= threshold[n];
    }
    SYNC
    EACH {
        if (TID)
            continue;
        uint32_t word = 0;
        for (uint32_t i = 0; i < 32; i++)
            word |= open[i] << i;
        mask[(uint64_t)BLOCK_Y * a.mask_stride + BLOCK_X] = word;
    }
KERNEL_END

#endif
