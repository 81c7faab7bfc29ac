/* SPDX-License-Identifier: MIT
 * Recurrent state: causal convolution, the gated delta rule. A thread owns a channel, or a column of the state. */
#ifndef HT_GPU_STATE_H
#define HT_GPU_STATE_H

#include "gpu/kernels/args.h"
#include "gpu/kernels/math.h"

KERNEL(conv, 64, conv_args)
    PTR(0, const float, x);
    PTR(1, float, y);
    PTR_RO(2, float, w);
    PTR_RO(3, float, bias);
    PTR(4, float, state);
    EACH {
        const uint32_t c = BLOCK_X * NT + TID;
        if (c >= a.n)
            continue;
        for (uint32_t t = 0; t < a.n_tok; t++) {
            const float in = x[(uint64_t)t * a.x_stride + c];
            float acc = 0.0f;
            for (uint32_t i = 0; i + 1 < a.taps; i++)
                acc = fmaf(w[(uint64_t)c * a.taps + i], state[(uint64_t)i * a.n + c], acc);
            acc = fmaf(w[(uint64_t)c * a.taps + a.taps - 1], in, acc);
            if (bias)
                acc += bias[c];
            for (uint32_t i = 0; i + 2 < a.taps; i++)
                state[(uint64_t)i * a.n + c] = state[(uint64_t)(i + 1) * a.n + c];
            state[(uint64_t)(a.taps - 2) * a.n + c] = in;
            y[(uint64_t)t * a.y_stride + c] = a.silu ? ht_siluf(acc) : acc;
        }
    }
KERNEL_END

enum { DELTA_MOST = 1024 }; /* k_dim */

/* A block is a value head; its tokens follow one another. */
KERNEL(delta, 128, delta_args)
    PTR_RO(0, float, q);
    PTR_RO(1, float, k);
    PTR_RO(2, float, v);
    PTR_RO(3, float, alpha);
    PTR_RO(4, float, beta);
    PTR_RO(5, float, a_coef);
    PTR_RO(6, float, dt_bias);
    PTR(7, float, state);
    PTR(8, float, y);
    TREE_TMP(tmp);
    SHARED(float, part, 2);
    SHARED(float, qn, DELTA_MOST);
    SHARED(float, kn, DELTA_MOST);
    PRIVATE_N(float, acc, 2);
    const uint32_t h = BLOCK_X, kh = a.tiled ? h % a.n_k : h / (a.n_v / a.n_k);
    const uint32_t ab = a.ab_group ? 2 * a.ab_group * (h / a.ab_group) + h % a.ab_group : h;
    GLOBAL float *S = state + (uint64_t)h * a.k_dim * a.v_dim;
    for (uint32_t t = 0; t < a.n_tok; t++) {
        GLOBAL const float *qt = q + (uint64_t)t * a.qkv_stride + (uint64_t)kh * a.k_dim;
        GLOBAL const float *kt = k + (uint64_t)t * a.qkv_stride + (uint64_t)kh * a.k_dim;
        GLOBAL const float *vt = v + (uint64_t)t * a.qkv_stride + (uint64_t)h * a.v_dim;
        EACH {
            MY(acc)[0] = MY(acc)[1] = 0.0f;
            for (uint32_t i = TID; TID < 32 && i < a.k_dim; i += 32) {
                MY(acc)[0] = fmaf(qt[i], qt[i], MY(acc)[0]);
                MY(acc)[1] = fmaf(kt[i], kt[i], MY(acc)[1]);
            }
        }
        TREE32(acc, 0, tmp);
        TREE32(acc, 1, tmp);
        EACH {
            if (TID)
                continue;
            part[0] = MY(acc)[0];
            part[1] = MY(acc)[1];
        }
        SYNC
        const float rq = 1.0f / sqrtf(part[0] + 1e-6f), rk = 1.0f / sqrtf(part[1] + 1e-6f);
        const float g = a_coef[h] * ht_softplusf(alpha[(uint64_t)t * a.ab_stride + ab] + dt_bias[h]);
        const float decay = ht_expf(g), b = ht_sigmoidf(beta[(uint64_t)t * a.ab_stride + ab]);
        EACH for (uint32_t i = TID; i < a.k_dim; i += NT) {
            qn[i] = a.scale * ((qt[i] - 0.0f) * rq);
            kn[i] = (kt[i] - 0.0f) * rk;
        }
        SYNC
        EACH for (uint32_t j = TID; j < a.v_dim; j += NT) {
            float d = 0.0f, out = 0.0f;
            for (uint32_t i = 0; i < a.k_dim; i++)
                d = fmaf(S[(uint64_t)i * a.v_dim + j] * decay, kn[i], d);
            d = (vt[j] - d) * b;
            for (uint32_t i = 0; i < a.k_dim; i++) {
                const float s = fmaf(kn[i], d, S[(uint64_t)i * a.v_dim + j] * decay);
                S[(uint64_t)i * a.v_dim + j] = s;
                out = fmaf(s, qn[i], out);
            }
            y[(uint64_t)t * a.y_stride + (uint64_t)h * a.v_dim + j] = out;
        }
        SYNC
    }
KERNEL_END

#endif
