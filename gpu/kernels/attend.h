/* SPDX-License-Identifier: MIT
 *
 * Attention over paged keys and values, and writing them: the layout of ht_kv_view (engine/base/exec.h). A thread owns a
 * position while scores are computed and a dimension while values are added, each in the contract's order. Pages lie at
 * offsets from the first pointer, a table of which is the second. */
#ifndef HT_GPU_ATTEND_H
#define HT_GPU_ATTEND_H

#include "gpu/kernels/args.h"
#include "gpu/kernels/math.h"

enum {
    KV_F32 = 0, KV_F16 = 1, KV_Q4_0 = 2, KV_Q8_0 = 8, /* ids of ht_type */
    KV_PAGE = 128, ATTEND_SPAN = 512, ATTEND_THREADS = 128,
    HEAD_MOST = 1024, HEAD_EACH = HEAD_MOST / ATTEND_THREADS /* dimensions of a head; of them a thread's */
};

FN int32_t ht_kv_nibble(uint32_t b, uint32_t high) { return (int32_t)(high ? b >> 4 : b & 15) - 8; }

/* Bytes of 16 positions of K of n dimensions. */
FN uint32_t ht_kv_group(uint32_t type, uint32_t n)
{
    return type == KV_F32 ? n * 64 : type == KV_F16 ? n * 32 : n / 32 * (type == KV_Q8_0 ? 544u : 288u);
}

/* <q, K[j]> of a page's position j; k: the head's keys in it. */
FN float ht_kv_score(const kv_args a, GLOBAL const uint8_t *k, uint32_t j, SHARED_ARG const float *q)
{
    const uint32_t l = j % 16;
    GLOBAL const uint8_t *group = k + j / 16 * ht_kv_group(a.type, a.k_dim);
    float s = 0.0f;

    for (uint32_t i = 0; i < a.k_dim; i += 32) {
        GLOBAL const uint8_t *b = group + ht_kv_group(a.type, i);
        const uint32_t n = a.k_dim - i < 32 ? a.k_dim - i : 32;
        float acc = 0.0f;
        if (a.type == KV_F32) {
            for (uint32_t d = 0; d < n; d++)
                acc = fmaf(q[i + d], ((GLOBAL const float *)b)[d * 16 + l], acc);
        } else if (a.type == KV_F16) {
            for (uint32_t d = 0; d < n; d++)
                acc = fmaf(q[i + d], half_at(b + (d * 16 + l) * 2), acc);
        } else if (a.type == KV_Q8_0) {
            for (uint32_t d = 0; d < n; d++)
                acc = fmaf(q[i + d], (float)(int8_t)b[32 + d * 16 + l], acc);
        } else {
            for (uint32_t d = 0; d < n; d++)
                acc = fmaf(q[i + d], (float)ht_kv_nibble(b[32 + d % 16 * 16 + l], d >= 16), acc);
        }
        s = a.type == KV_F32 || a.type == KV_F16 ? s + acc : fmaf(half_at(b + 2 * l), acc, s);
    }
    return s;
}

/* o + p * dimension `dim` of V of a page's position j. */
FN float ht_kv_value(const kv_args a, GLOBAL const uint8_t *v, uint32_t j, uint32_t dim, float p, float o)
{
    const uint32_t c = dim / 16, l = dim % 16;

    if (a.type == KV_F32)
        return fmaf(p, ((GLOBAL const float *)v)[(c * KV_PAGE + j) * 16 + l], o);
    if (a.type == KV_F16)
        return fmaf(p, half_at(v + ((c * KV_PAGE + j) * 16 + l) * 2), o);
    GLOBAL const uint8_t *b = v + c / 2 * (a.type == KV_Q8_0 ? 4352u : 2304u);
    const float pd = p * half_at(b + 2 * j);
    if (a.type == KV_Q8_0)
        return fmaf(pd, (float)(int8_t)b[256 + (c % 2 * KV_PAGE + j) * 16 + l], o);
    return fmaf(pd, (float)ht_kv_nibble(b[256 + j * 16 + l], c % 2), o);
}

/* Spans joined in order: (M, L) with (m, l); the factors of their values. */
#define ATTEND_JOIN(m, l)                                                                                              \
    const float top = (m) > M ? (m) : M;                                                                               \
    const float keep = M == top ? 1.0f : ht_expf(M - top), take = (m) == top ? 1.0f : ht_expf((m) - top);              \
    M = top;                                                                                                           \
    L = fmaf((l), take, L * keep)

/* The end of a head: its sink, a logit without a value, and the division. MY(all): sums of values. */
#define ATTEND_FINISH                                                                                                  \
    float with_sink = 1.0f;                                                                                            \
    if (sinks) {                                                                                                       \
        ATTEND_JOIN(sinks[BLOCK_X], 1.0f);                                                                             \
        with_sink = keep;                                                                                              \
        sink_take = take;                                                                                              \
    }                                                                                                                  \
    EACH {                                                                                                             \
        UNROLL for (uint32_t i = 0; i < HEAD_EACH; i++) {                                                              \
            const uint32_t dim = i * NT + TID;                                                                         \
            const float v = sinks ? fmaf(0.0f, sink_take, MY(all)[i] * with_sink) : MY(all)[i];                        \
            if (dim < a.kv.v_dim)                                                                                      \
                out[(uint64_t)BLOCK_Y * a.out_stride + (uint64_t)BLOCK_X * a.kv.v_dim + dim] = 1.0f / L * v;           \
        }                                                                                                              \
    }

/* A block: head x of token y, span first_span + z where `split`; else all its spans. */
KERNEL(attend, 128, attend_args)
    PTR_RO(0, float, q);
    PTR_RO(1, uint8_t, kv);
    PTR_RO(2, uint64_t, pages);
    PTR_RO(3, float, sinks);
    PTR(4, float, out);
    PTR(5, float, partial);
    SHARED(float, query, HEAD_MOST);
    SHARED(float, score, ATTEND_SPAN);
    SHARED(float, most, NT);
    SHARED(float, sum, 16);
    PRIVATE_N(float, all, HEAD_EACH);
    const uint32_t head = BLOCK_X, pos = a.pos0 + BLOCK_Y, kv_head = head / (a.n_head / a.kv.n_kv);
    const uint32_t first = a.window && pos + 1 > a.window ? pos + 1 - a.window : 0;
    const uint32_t begin = a.split ? a.first_span + BLOCK_Z : first / ATTEND_SPAN;
    const uint32_t end = a.split ? begin + 1 : pos / ATTEND_SPAN + 1;
    float M = 0.0f, L = 0.0f, sink_take = 0.0f;
    uint32_t begun = 0;
    EACH for (uint32_t i = TID; i < a.kv.k_dim; i += NT)
        query[i] = q[(uint64_t)BLOCK_Y * a.q_stride + (uint64_t)head * a.kv.k_dim + i];
    SYNC
    for (uint32_t span = begin; span < end; span++) {
        const uint32_t at = span * ATTEND_SPAN;
        if (at > pos || span < first / ATTEND_SPAN)
            continue;
        const uint32_t j0 = first < at ? 0 : first - at, j1 = pos + 1 - at < ATTEND_SPAN ? pos + 1 - at : ATTEND_SPAN;
        EACH {
            float m = -INFINITY;
            for (uint32_t j = j0 + TID; j < j1; j += NT) {
                GLOBAL const uint8_t *k = kv + pages[(at + j) / KV_PAGE - a.kv.first_page] +
                                          (uint64_t)kv_head * KV_PAGE * a.kv.k_row_bytes;
                float s = ht_kv_score(a.kv, k, j % KV_PAGE, query);
                s = a.cap > 0.0f ? a.cap * ht_tanhf(a.scale * s / a.cap) : s * a.scale;
                score[j] = s;
                m = s > m ? s : m;
            }
            most[TID] = m;
        }
        SYNC
        float m = -INFINITY;
        for (uint32_t i = 0; i < NT; i++)
            m = most[i] > m ? most[i] : m;
        m = m + 0.0f; /* one zero, whichever was met first */
        SYNC
        EACH for (uint32_t j = j0 + TID; j < j1; j += NT)
            score[j] = ht_expf(score[j] - m);
        SYNC
        EACH {
            if (TID >= 16)
                continue;
            float l = 0.0f;
            for (uint32_t j = j0 / 16 * 16 + TID; j < j1; j += 16)
                l = j < j0 ? l : l + score[j];
            sum[TID] = l;
        }
        SYNC
        const float l = ht_tree16_of(sum);
        if (a.split) {
            const uint32_t pad = 16 + (a.kv.v_dim + 15) / 16 * 16;
            GLOBAL float *to = partial + ((uint64_t)(BLOCK_Z * a.n_tok + BLOCK_Y) * a.n_head + head) * pad;
            EACH {
                for (uint32_t dim = TID; dim < a.kv.v_dim; dim += NT) {
                    float o = 0.0f;
                    for (uint32_t j = j0; j < j1; j++) {
                        GLOBAL const uint8_t *v = kv + pages[(at + j) / KV_PAGE - a.kv.first_page] + a.kv.v_offset +
                                                  (uint64_t)kv_head * KV_PAGE * a.kv.v_row_bytes;
                        o = ht_kv_value(a.kv, v, j % KV_PAGE, dim, score[j], o);
                    }
                    to[16 + dim] = o;
                }
                if (TID == 0) {
                    to[0] = m;
                    to[1] = l;
                }
            }
            continue;
        }
        float by_old = 0.0f, by_new = 1.0f;
        if (begun) {
            ATTEND_JOIN(m, l);
            by_old = keep;
            by_new = take;
        } else {
            M = m;
            L = l;
        }
        EACH {
            UNROLL for (uint32_t i = 0; i < HEAD_EACH; i++) {
                const uint32_t dim = i * NT + TID;
                float o = 0.0f;
                if (dim >= a.kv.v_dim)
                    continue;
                for (uint32_t j = j0; j < j1; j++) {
                    GLOBAL const uint8_t *v = kv + pages[(at + j) / KV_PAGE - a.kv.first_page] + a.kv.v_offset +
                                              (uint64_t)kv_head * KV_PAGE * a.kv.v_row_bytes;
                    o = ht_kv_value(a.kv, v, j % KV_PAGE, dim, score[j], o);
                }
                MY(all)[i] = begun ? fmaf(o, by_new, MY(all)[i] * by_old) : o;
            }
        }
        begun = 1;
        SYNC
    }
    if (!a.split) {
        ATTEND_FINISH
    }
KERNEL_END

/* Joins the spans of head x of token y. */
KERNEL(attend_join, 128, attend_args)
    PTR_RO(3, float, sinks);
    PTR(4, float, out);
    PTR_RO(5, float, partial);
    PRIVATE_N(float, all, HEAD_EACH);
    const uint32_t pos = a.pos0 + BLOCK_Y, pad = 16 + (a.kv.v_dim + 15) / 16 * 16;
    const uint32_t first = (a.window && pos + 1 > a.window ? pos + 1 - a.window : 0) / ATTEND_SPAN;
    float M = 0.0f, L = 0.0f, sink_take = 0.0f;
    for (uint32_t span = first; span <= pos / ATTEND_SPAN; span++) {
        GLOBAL const float *from =
            partial + ((uint64_t)((span - a.first_span) * a.n_tok + BLOCK_Y) * a.n_head + BLOCK_X) * pad;
        float by_old = 0.0f, by_new = 1.0f;
        if (span > first) {
            ATTEND_JOIN(from[0], from[1]);
            by_old = keep;
            by_new = take;
        } else {
            M = from[0];
            L = from[1];
        }
        EACH {
            UNROLL for (uint32_t i = 0; i < HEAD_EACH; i++) {
                const uint32_t dim = i * NT + TID;
                if (dim < a.kv.v_dim)
                    MY(all)[i] = span > first ? fmaf(from[16 + dim], by_new, MY(all)[i] * by_old) : from[16 + dim];
            }
        }
    }
    ATTEND_FINISH
KERNEL_END

/* ---- writing ---- */

/* n elements x[0 .. n) (at most 32, zeros behind) as a block of a type: scale as float, integers -128 .. 127 or 0 .. 15. */
FN float ht_kv_round(uint32_t type, GLOBAL const float *x, int32_t *q)
{
    const uint32_t amax = ht_amax_bits(x);
    float d, id;

    if (type == KV_Q8_0) {
        d = ht_f32_from_bits(amax) / 127.0f;
    } else {
        float m = 0.0f; /* of the largest magnitude the first */
        for (uint32_t i = 32; i-- > 0;)
            m = (ht_f32_bits(x[i]) & 0x7fffffffu) == amax ? x[i] : m;
        d = m / -8.0f;
    }
    id = 1.0f / d;
    const uint32_t null = amax >= 0x7f800000u || !(fabsf(id) <= 3.402823466e+38f);
    for (uint32_t i = 0; i < 32; i++) {
        if (type == KV_Q8_0) {
            q[i] = null ? 0 : (int8_t)(uint8_t)ht_f32_bits(x[i] * id + 12582912.0f);
        } else {
            const int32_t v = null ? 8 : (int32_t)(x[i] * id + 8.5f);
            q[i] = v < 15 ? v : 15;
        }
    }
    return !null ? d : amax >= 0x7f800000u ? ht_f32_from_bits(amax) : 0.0f;
}

/* A block: KV head x of token y; a thread: an element, or a block of 32. */
KERNEL(kv_write, 64, kv_write_args)
    PTR_RO(0, float, k);
    PTR_RO(1, float, v);
    PTR(2, uint8_t, kv);
    PTR_RO(3, uint64_t, pages);
    const uint32_t pos = a.pos0 + BLOCK_Y, j = pos % KV_PAGE, l = j % 16;
    GLOBAL uint8_t *page = kv + pages[pos / KV_PAGE - a.kv.first_page];
    GLOBAL uint8_t *to_k =
        page + (uint64_t)BLOCK_X * KV_PAGE * a.kv.k_row_bytes + (uint64_t)(j / 16) * ht_kv_group(a.kv.type, a.kv.k_dim);
    GLOBAL uint8_t *to_v = page + a.kv.v_offset + (uint64_t)BLOCK_X * KV_PAGE * a.kv.v_row_bytes;
    GLOBAL const float *from_k = k + (uint64_t)BLOCK_Y * a.k_stride + (uint64_t)BLOCK_X * a.kv.k_dim;
    GLOBAL const float *from_v = v + (uint64_t)BLOCK_Y * a.v_stride + (uint64_t)BLOCK_X * a.kv.v_dim;
    EACH {
        const uint32_t type = a.kv.type, v_pad = (a.kv.v_dim + 15) / 16 * 16;
        if (type == KV_F32 || type == KV_F16) {
            for (uint32_t i = TID; i < a.kv.k_dim; i += NT) {
                if (type == KV_F32)
                    ((GLOBAL float *)to_k)[i * 16 + l] = from_k[i];
                else
                    half_put(to_k + (i * 16 + l) * 2, from_k[i]);
            }
            for (uint32_t i = TID; i < v_pad; i += NT) {
                const uint32_t at = (i / 16 * KV_PAGE + j) * 16 + i % 16;
                const float x = i < a.kv.v_dim ? from_v[i] : 0.0f;
                if (type == KV_F32)
                    ((GLOBAL float *)to_v)[at] = x;
                else
                    half_put(to_v + at * 2, x);
            }
            continue;
        }
        for (uint32_t b = TID; b < a.kv.k_dim / 32; b += NT) {
            int32_t q[32];
            GLOBAL uint8_t *to = to_k + b * (type == KV_Q8_0 ? 544 : 288);
            half_put(to + 2 * l, ht_kv_round(type, from_k + 32 * b, q));
            for (uint32_t i = 0; i < (type == KV_Q8_0 ? 32 : 16); i++)
                to[32 + i * 16 + l] = (uint8_t)(type == KV_Q8_0 ? q[i] : q[i] | q[i + 16] << 4);
        }
        for (uint32_t b = TID; b < a.kv.v_dim / 32; b += NT) {
            int32_t q[32];
            GLOBAL uint8_t *to = to_v + b * (type == KV_Q8_0 ? 4352 : 2304);
            half_put(to + 2 * j, ht_kv_round(type, from_v + 32 * b, q));
            for (uint32_t i = 0; i < 16; i++) {
                to[256 + j * 16 + i] = (uint8_t)(type == KV_Q8_0 ? q[i] : q[i] | q[i + 16] << 4);
                if (type == KV_Q8_0)
                    to[256 + (KV_PAGE + j) * 16 + i] = (uint8_t)q[i + 16];
            }
        }
    }
KERNEL_END

#endif
