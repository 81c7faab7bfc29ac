/* SPDX-License-Identifier: MIT
 * Kernels of the small operations: norms, rotation, sums, gates, the 8-bit form, the router's choice. */
#ifndef HT_GPU_SMALL_H
#define HT_GPU_SMALL_H

#include "gpu/kernels/args.h"
#include "gpu/kernels/math.h"

/* Reads memory, to measure how fast that is: sums[x] is the sum of the block's words. */
KERNEL(read_words, 256, read_args)
    PTR_RO(0, uint32_t, x);
    PTR(1, uint32_t, sums);
    SHARED(uint32_t, part, NT);
    EACH {
        const uint64_t from = (uint64_t)BLOCK_X * a.n;
        uint32_t sum = 0;
        UNROLL for (uint32_t i = 0; i < a.n; i += NT)
            sum += i + TID < a.n && from + i + TID < a.all ? x[from + i + TID] : 0;
        part[TID] = sum;
    }
    SYNC
    EACH {
        if (TID)
            continue;
        uint32_t sum = 0;
        for (uint32_t i = 0; i < NT; i++)
            sum += part[i];
        sums[BLOCK_X] = sum;
    }
KERNEL_END

/* A thread per block of 32; token y. */
KERNEL(quantise, 64, quantise_args)
    PTR_RO(0, float, x);
    PTR(1, int8_t, q);
    PTR(2, float, d);
    PTR(3, int16_t, s);
    EACH {
        const uint32_t b = BLOCK_X * NT + TID;
        const uint64_t at = (uint64_t)BLOCK_Y * a.q_stride;
        if (b < a.k / 32)
            ht_quantise_block(x + (uint64_t)BLOCK_Y * a.x_stride + 32 * b, q + at + 32 * b, d + at / 32 + b,
                              s + at / 16 + 2 * b);
    }
KERNEL_END

enum { NORM_NONE, NORM_RMS, NORM_LAYER, NORM_L2 };

/* Sums by element mod 32 in MY(acc)[0]: of x (what: 0), of (x - mean)^2 (1). */
#define NORM_SUM(what)                                                                                                 \
    EACH {                                                                                                             \
        MY(acc)[0] = 0.0f;                                                                                             \
        for (uint32_t i = TID; TID < 32 && i < a.group; i += 32)                                                       \
            MY(acc)[0] = (what) ? fmaf(from[i] - mean, from[i] - mean, MY(acc)[0]) : MY(acc)[0] + from[i];             \
    }                                                                                                                  \
    TREE32(acc, 0, tmp);                                                                                               \
    EACH if (TID == 0) part[0] = MY(acc)[0];                                                                           \
    SYNC

/* A block is group x of token y. out may be x. Where q_stride, groups are whole 8-bit blocks, and are made such too. */
KERNEL(norm, 256, norm_args)
    PTR(0, const float, x);
    PTR(1, const float, weight);
    PTR(2, const float, bias);
    PTR(3, float, out);
    PTR(4, int8_t, q);
    PTR(5, float, d);
    PTR(6, int16_t, s);
    TREE_TMP(tmp);
    SHARED(float, part, 1);
    PRIVATE_N(float, acc, 1);
    GLOBAL const float *from =
        x + (uint64_t)BLOCK_Y * a.x_stride + (uint64_t)BLOCK_X * (a.x_group ? a.x_group : a.group);
    GLOBAL float *to = out + (uint64_t)BLOCK_Y * a.out_stride + (uint64_t)BLOCK_X * a.group;
    const uint32_t w0 = a.weight_full ? BLOCK_X * a.group : 0;
    float mean = 0.0f, r = 1.0f;
    if (a.kind == NORM_LAYER) {
        NORM_SUM(0)
        mean = part[0] / (float)a.group;
        SYNC
    }
    if (a.kind != NORM_NONE) {
        NORM_SUM(1)
        r = 1.0f / sqrtf((a.kind == NORM_L2 ? part[0] : part[0] / (float)a.group) + a.eps);
    }
    EACH {
        for (uint32_t i = TID; i < a.group; i += NT) {
            const float v = from[i] - mean;
            if (a.kind == NORM_NONE)
                to[i] = from[i];
            else if (weight && bias)
                to[i] = fmaf(v * r, weight[w0 + i], bias[w0 + i]);
            else if (weight)
                to[i] = v * r * weight[w0 + i];
            else
                to[i] = bias ? fmaf(v, r, bias[w0 + i]) : v * r;
        }
    }
    SYNC
    EACH for (uint32_t b = TID; a.q_stride && b < a.group / 32; b += NT) {
        const uint64_t at = (uint64_t)BLOCK_Y * a.q_stride + (uint64_t)BLOCK_X * a.group + 32 * b;
        ht_quantise_block(to + 32 * b, q + at, d + at / 32, s + at / 16);
    }
KERNEL_END

KERNEL(add, 256, add_args)
    PTR(0, const float, x);
    PTR(1, float, y);
    EACH {
        const uint32_t i = BLOCK_X * NT + TID;
        const uint64_t at = (uint64_t)BLOCK_Y * a.y_stride + i;
        if (i < a.k)
            y[at] = a.ay == 0.0f ? a.ax * x[(uint64_t)BLOCK_Y * a.x_stride + i]
                                 : fmaf(a.ax, x[(uint64_t)BLOCK_Y * a.x_stride + i], a.ay * y[at]);
    }
KERNEL_END

KERNEL(gate, 256, gate_args)
    PTR(0, const float, gate);
    PTR(1, float, y);
    EACH {
        const uint32_t i = BLOCK_X * NT + TID;
        const uint64_t at = (uint64_t)BLOCK_Y * a.y_stride + i, g = (uint64_t)BLOCK_Y * a.gate_stride;
        if (i >= a.k)
            continue;
        if (!gate)
            y[at] = ht_act_alone(a.act, 0.0f, y[at]);
        else if (a.per_row)
            y[at] = ht_act_times(a.act, 0.0f, gate[g], 1.0f) * y[at];
        else
            y[at] = ht_act_times(a.act, 0.0f, gate[g + (uint64_t)(i / a.group) * a.gate_group + i % a.group], y[at]);
    }
KERNEL_END

KERNEL(softcap, 256, softcap_args)
    PTR(0, float, y);
    EACH {
        const uint32_t i = BLOCK_X * NT + TID;
        GLOBAL float *at = y + (uint64_t)BLOCK_Y * a.y_stride + i;
        if (i < a.k)
            *at = a.cap > 0.0f ? a.cap * ht_tanhf(*at / a.cap) * a.scale : *at * a.scale;
    }
KERNEL_END

/* A block is head x of token y. */
KERNEL(rope, 64, rope_args)
    PTR(0, float, x);
    PTR(1, const float, table);
    EACH {
        const uint32_t half_rot = a.n_rot / 2;
        GLOBAL const float *c = table + (uint64_t)BLOCK_Y * a.table_stride, *s = c + half_rot;
        GLOBAL float *v = x + (uint64_t)BLOCK_Y * a.x_stride + (uint64_t)BLOCK_X * a.head_dim;
        for (uint32_t i = TID; i < half_rot; i += NT) {
            const uint32_t p = a.neox ? i : 2 * i, q = a.neox ? i + half_rot : 2 * i + 1;
            const float f = v[p], g = v[q];
            v[p] = fmaf(f, c[i], -(g * s[i]));
            v[q] = fmaf(f, s[i], g * c[i]);
        }
    }
KERNEL_END

enum { GATING_SOFTMAX, GATING_SIGMOID, GATING_TOPK, ROUTE_MOST = 4096, ROUTE_K = 256 };

/* x[0..n) = softmax, in the order of the contract. */
FN void ht_softmax_in(SHARED_ARG float *x, uint32_t n)
{
    float m = -INFINITY, acc[16];
    for (uint32_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    m = m + 0.0f;
    for (uint32_t i = 0; i < 16; i++)
        acc[i] = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = ht_expf(x[i] - m);
        acc[i % 16] += x[i];
    }
    const float b0 = (acc[0] + acc[8]) + (acc[4] + acc[12]), b1 = (acc[1] + acc[9]) + (acc[5] + acc[13]);
    const float b2 = (acc[2] + acc[10]) + (acc[6] + acc[14]), b3 = (acc[3] + acc[11]) + (acc[7] + acc[15]);
    const float r = 1.0f / ((b0 + b2) + (b1 + b3));
    for (uint32_t i = 0; i < n; i++)
        x[i] *= r;
}

/* A block is a token. Among equals the lower id wins. */
KERNEL(route, 128, route_args)
    PTR_RO(0, float, logits);
    PTR_RO(1, float, bias);
    PTR(2, uint32_t, ids);
    PTR(3, float, weights);
    SHARED(float, p, ROUTE_MOST);
    SHARED(uint32_t, taken, ROUTE_MOST / 32);
    SHARED(float, best_score, NT);
    SHARED(uint32_t, best, NT);
    SHARED(uint32_t, chosen, ROUTE_K);
    SHARED(float, share, ROUTE_K);
    EACH {
        GLOBAL const float *l = logits + (uint64_t)BLOCK_X * a.logits_stride;
        for (uint32_t e = TID; e < a.n_expert; e += NT)
            p[e] = a.gating == GATING_SIGMOID ? ht_sigmoidf(l[e]) : l[e];
        for (uint32_t e = TID; e < ROUTE_MOST / 32; e += NT)
            taken[e] = 0;
    }
    SYNC
    if (a.gating == GATING_SOFTMAX) {
        EACH if (TID == 0) ht_softmax_in(p, a.n_expert);
        SYNC
    }
    for (uint32_t i = 0; i < a.k; i++) {
        EACH {
            uint32_t mine = 0xffffffffu;
            float score = 0.0f;
            for (uint32_t e = TID; e < a.n_expert; e += NT) {
                const float v = bias ? p[e] + bias[e] : p[e];
                if (!(taken[e / 32] >> e % 32 & 1) && (mine == 0xffffffffu || v > score)) {
                    mine = e;
                    score = v;
                }
            }
            best[TID] = mine;
            best_score[TID] = score;
        }
        SYNC
        EACH {
            if (TID)
                continue;
            uint32_t b = 0;
            for (uint32_t t = 1; t < NT && t < a.n_expert; t++)
                if (best[t] != 0xffffffffu &&
                    (best[b] == 0xffffffffu || best_score[t] > best_score[b] ||
                     (best_score[t] == best_score[b] && best[t] < best[b])))
                    b = t;
            taken[best[b] / 32] |= 1u << best[b] % 32;
            uint32_t at = i;
            for (; at > 0 && chosen[at - 1] > best[b]; at--)
                chosen[at] = chosen[at - 1];
            chosen[at] = best[b];
        }
        SYNC
    }
    EACH {
        if (TID)
            continue;
        float sum = 0.0f;
        for (uint32_t i = 0; i < a.k; i++)
            share[i] = p[chosen[i]];
        if (a.gating == GATING_TOPK)
            ht_softmax_in(share, a.k);
        for (uint32_t i = 0; a.renormalise && i < a.k; i++)
            sum += share[i];
        for (uint32_t i = 0; i < a.k; i++) {
            ids[BLOCK_X * a.k + i] = chosen[i];
            weights[BLOCK_X * a.k + i] = (a.renormalise ? share[i] / sum : share[i]) * a.scale;
        }
    }
KERNEL_END

#endif
