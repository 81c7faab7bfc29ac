/* SPDX-License-Identifier: MIT
 *
 * Products of weight rows with activations, and embedding rows. Sixteen threads share a row of quantised weights: thread
 * b mod 16 adds block b, as accumulator b mod 16 of the numeric contract does; 32 threads share a row of floats. So the
 * results have the CPU's bits. */
#ifndef HT_GPU_PRODUCT_H
#define HT_GPU_PRODUCT_H

#include "gpu/kernels/args.h"
#include "gpu/kernels/blocks.h"

/* What becomes of a sum. */
FN void ht_product_out(const product_args a, float v, GLOBAL float *y, GLOBAL const float *bias, GLOBAL const uint32_t *tokens,
                       GLOBAL const float *weights, uint32_t t, uint32_t row)
{
    GLOBAL float *to = y + (uint64_t)(a.y_first + (a.map_y ? tokens[t] : t)) * a.y_stride + row;
    if (bias)
        v += bias[row];
    v *= a.scale;
    if (a.clamp > 0.0f)
        v = v < -a.clamp ? -a.clamp : v > a.clamp ? a.clamp : v;
    *to = a.axpy ? fmaf(weights ? weights[t] : 1.0f, v, a.keep ? *to : 0.0f) : v;
}

/* Row i of those asked for; 0xffffffff: there is none. */
FN uint32_t ht_product_row(const product_args a, GLOBAL const uint32_t *rows, uint32_t i)
{
    if (!rows)
        return i < a.n ? i : 0xffffffffu;
    return i < rows[0] ? rows[1 + i] : 0xffffffffu;
}

/* q8 activations; up to `tok` tokens a block (y), eight rows a block (x). */
#define PRODUCT_Q8(type, has_min, tok)                                                                                 \
    KERNEL(mv##tok##_##type, 128, product_args)                                                                        \
        PTR_RO(0, uint8_t, w);                                                                                         \
        PTR_RO(1, uint8_t, xq);                                                                                        \
        PTR_RO(2, float, xd);                                                                                          \
        PTR_RO(3, int16_t, xs);                                                                                        \
        PTR(4, float, y);                                                                                              \
        PTR_RO(5, float, bias);                                                                                        \
        PTR_RO(6, uint32_t, rows);                                                                                     \
        PTR_RO(7, uint32_t, tokens);                                                                                   \
        PTR_RO(8, float, weights);                                                                                     \
        TREE_TMP(tmp);                                                                                                 \
        PRIVATE_N(float, acc, tok);                                                                                    \
        PRIVATE_N(float, sum, tok);                                                                                    \
        const uint32_t t0 = BLOCK_Y * tok, nt = a.n_tok - t0 < tok ? a.n_tok - t0 : tok;                               \
        const uint32_t blocks = a.k / 32, step = a.segment ? a.segment / 32 : blocks;                                  \
        for (uint32_t c = 0; c < blocks; c += step) {                                                                  \
            EACH {                                                                                                     \
                const uint32_t row = ht_product_row(a, rows, BLOCK_X * (NT / 16) + TID / 16);                          \
                const uint32_t end = c + step < blocks ? c + step : blocks;                                            \
                UNROLL for (uint32_t t = 0; t < tok; t++) MY(acc)[t] = 0.0f;                                           \
                if (row == 0xffffffffu)                                                                                \
                    continue;                                                                                          \
                for (uint32_t b = c + TID % 16; b < end; b += 16) {                                                    \
                    block32 o;                                                                                         \
                    ht_block_##type(w + (uint64_t)row * a.row_bytes, b, &o);                                           \
                    UNROLL for (uint32_t t = 0; t < tok; t++) {                                                        \
                        if (t >= nt)                                                                                   \
                            break;                                                                                     \
                        const uint64_t x = (uint64_t)(a.x_first + (a.map_x ? tokens[t0 + t] : t0 + t)) * a.x_stride;   \
                        GLOBAL const uint32_t *xw = (GLOBAL const uint32_t *)(xq + x) + b * 8;                         \
                        const float d = xd[x / 32 + b];                                                                \
                        int32_t lo = 0, hi = 0;                                                                        \
                        UNROLL for (uint32_t i = 0; i < 4; i++) {                                                      \
                            lo = dp4a(o.q[i], xw[i], lo);                                                              \
                            hi = dp4a(o.q[i + 4], xw[i + 4], hi);                                                      \
                        }                                                                                              \
                        MY(acc)[t] = fmaf(o.d * d, (float)(o.sc[0] * lo + o.sc[1] * hi), MY(acc)[t]);                  \
                        if (has_min)                                                                                   \
                            MY(acc)[t] = fmaf(o.dm * d,                                                                \
                                              (float)(o.mn[0] * xs[x / 16 + 2 * b] + o.mn[1] * xs[x / 16 + 2 * b + 1]), \
                                              MY(acc)[t]);                                                             \
                    }                                                                                                  \
                }                                                                                                      \
            }                                                                                                          \
            UNROLL for (uint32_t t = 0; t < tok; t++) {                                                                \
                TREE16(acc, t, tmp);                                                                                   \
                EACH MY(sum)[t] = c ? MY(acc)[t] + MY(sum)[t] : MY(acc)[t];                                            \
            }                                                                                                          \
        }                                                                                                              \
        EACH {                                                                                                         \
            const uint32_t row = ht_product_row(a, rows, BLOCK_X * (NT / 16) + TID / 16);                              \
            if (TID % 16 || row == 0xffffffffu)                                                                        \
                continue;                                                                                              \
            UNROLL for (uint32_t t = 0; t < tok; t++)                                                                  \
                if (t < nt)                                                                                            \
                    ht_product_out(a, MY(sum)[t], y, bias, tokens, weights, t0 + t, row);                              \
        }                                                                                                              \
    KERNEL_END

/* float32 activations; up to four tokens a block (y), four rows a block (x). */
#define PRODUCT_F32(type)                                                                                              \
    KERNEL(fv_##type, 128, product_args)                                                                               \
        PTR_RO(0, uint8_t, w);                                                                                         \
        PTR_RO(1, float, x);                                                                                           \
        PTR(4, float, y);                                                                                              \
        PTR_RO(5, float, bias);                                                                                        \
        PTR_RO(6, uint32_t, rows);                                                                                     \
        PTR_RO(7, uint32_t, tokens);                                                                                   \
        PTR_RO(8, float, weights);                                                                                     \
        TREE_TMP(tmp);                                                                                                 \
        PRIVATE_N(float, acc, 4);                                                                                      \
        PRIVATE_N(float, sum, 4);                                                                                      \
        const uint32_t t0 = BLOCK_Y * 4, nt = a.n_tok - t0 < 4 ? a.n_tok - t0 : 4;                                     \
        const uint32_t step = a.segment ? a.segment : a.k;                                                             \
        for (uint32_t c = 0; c < a.k; c += step) {                                                                     \
            EACH {                                                                                                     \
                const uint32_t row = ht_product_row(a, rows, BLOCK_X * (NT / 32) + TID / 32);                          \
                const uint32_t end = c + step < a.k ? c + step : a.k;                                                  \
                UNROLL for (uint32_t t = 0; t < 4; t++) MY(acc)[t] = 0.0f;                                             \
                if (row == 0xffffffffu)                                                                                \
                    continue;                                                                                          \
                for (uint32_t i = c + TID % 32; i < end; i += 32) {                                                    \
                    const float v = ht_at_##type(w + (uint64_t)row * a.row_bytes, i);                                  \
                    UNROLL for (uint32_t t = 0; t < 4; t++)                                                            \
                        if (t < nt)                                                                                    \
                            MY(acc)[t] = fmaf(v, x[(uint64_t)(a.x_first + (a.map_x ? tokens[t0 + t] : t0 + t)) *       \
                                                       a.x_stride + i], MY(acc)[t]);                                   \
                }                                                                                                      \
            }                                                                                                          \
            UNROLL for (uint32_t t = 0; t < 4; t++) {                                                                  \
                TREE32(acc, t, tmp);                                                                                   \
                EACH MY(sum)[t] = c ? MY(acc)[t] + MY(sum)[t] : MY(acc)[t];                                            \
            }                                                                                                          \
        }                                                                                                              \
        EACH {                                                                                                         \
            const uint32_t row = ht_product_row(a, rows, BLOCK_X * (NT / 32) + TID / 32);                              \
            if (TID % 32 || row == 0xffffffffu)                                                                        \
                continue;                                                                                              \
            UNROLL for (uint32_t t = 0; t < 4; t++)                                                                    \
                if (t < nt)                                                                                            \
                    ht_product_out(a, MY(sum)[t], y, bias, tokens, weights, t0 + t, row);                              \
        }                                                                                                              \
    KERNEL_END

/* A block: 256 elements (x) of a token's row (y). */
#define EMBED(type)                                                                                                    \
    KERNEL(embed_##type, 256, embed_args)                                                                              \
        PTR_RO(0, uint8_t, table);                                                                                     \
        PTR_RO(1, int32_t, ids);                                                                                       \
        PTR(2, float, out);                                                                                            \
        EACH {                                                                                                         \
            const uint32_t i = BLOCK_X * NT + TID;                                                                     \
            if (i >= a.k)                                                                                              \
                continue;                                                                                              \
            out[(uint64_t)BLOCK_Y * a.out_stride + i] =                                                                \
                a.scale * ht_at_##type(table + (uint64_t)(uint32_t)ids[BLOCK_Y] * a.row_bytes, i);                     \
        }                                                                                                              \
    KERNEL_END

#define HT_GPU_QUANT(type, id, has_min)                                                                                \
    PRODUCT_Q8(type, has_min, 1)                                                                                       \
    PRODUCT_Q8(type, has_min, 8)                                                                                       \
    PRODUCT_F32(type)                                                                                                  \
    EMBED(type)
#define HT_GPU_FLOAT(type, id)                                                                                         \
    PRODUCT_F32(type)                                                                                                  \
    EMBED(type)
#include "gpu/kernels/types.inc"
#undef HT_GPU_QUANT
#undef HT_GPU_FLOAT

#endif
