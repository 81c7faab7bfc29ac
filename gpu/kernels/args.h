/* SPDX-License-Identifier: MIT
 *
 * Argument structs of the kernels, by value from the executor to the device: members of four bytes only, so that every
 * compiler lays them out alike. Strides in elements, n_* counts. Plain data. */
#ifndef HT_GPU_ARGS_H
#define HT_GPU_ARGS_H

#if defined(__OPENCL_VERSION__)
#include "gpu/kernels/dialect.h"
#else
#include <stdint.h>
#endif

/* read_words: a block (x) reads n words from n * x on, no more than `all`. */
typedef struct read_args { uint32_t n, all; } read_args;

/* quantise: x [n_tok][stride] -> q8. */
typedef struct quantise_args { uint32_t k, x_stride, q_stride; } quantise_args;

/* norm: a block per group (x) and token (y). kind: ht_norm_kind. q_stride 0: no 8-bit form is made. */
typedef struct norm_args {
    uint32_t x_stride, out_stride, q_stride, group, x_group, weight_full, kind;
    float eps;
} norm_args;

typedef struct add_args { uint32_t x_stride, y_stride, k; float ax, ay; } add_args;

/* act: ht_activation */
typedef struct gate_args {
    uint32_t gate_stride, y_stride, k, group, gate_group, act, per_row;
} gate_args;

typedef struct softcap_args { uint32_t y_stride, k; float cap, scale; } softcap_args;

typedef struct rope_args { uint32_t x_stride, head_dim, n_rot, neox, table_stride; } rope_args;

/* embed: row ids[t] of the table. row_bytes_lo, hi: bytes from row to row, 64 bits in two words. */
typedef struct embed_args { uint32_t k, row_bytes, out_stride; float scale; } embed_args;

/* Products: y[t][r] = <w[r], x[t]>, in segments of `segment` elements (0: one) whose sums are joined in order.
 *   rows    pointer: rows[0] is how many, the rest their numbers; results go to y[.][row]. NULL: rows 0 .. n
 *   tokens  pointer: row of x (map_x) or of y (map_y) of token t; NULL: t
 * Then + bias, * scale, clamped to +-clamp (where > 0); with `axpy` y = fma(weights[t], that, keep ? y : 0). */
typedef struct product_args {
    uint32_t n, k, segment, n_tok, row_bytes;
    uint32_t x_stride, x_first, y_stride, y_first, map_x, map_y, axpy, keep;
    float scale, clamp;
} product_args;

typedef struct kv_args { /* ht_kv_view without its pages, whose offsets are a table, from first_page on */
    uint32_t type, n_kv, k_dim, v_dim, k_row_bytes, v_row_bytes, v_offset, first_page;
} kv_args;

typedef struct kv_write_args { kv_args kv; uint32_t k_stride, v_stride, pos0; } kv_write_args;

/* attend: a block per head (x), token (y), and, where `split`, span (z); first_span: of block z = 0. */
typedef struct attend_args {
    kv_args kv;
    uint32_t q_stride, n_head, window, pos0, out_stride, n_tok, first_span, split;
    float scale, cap;
} attend_args;

typedef struct route_args { uint32_t logits_stride, n_expert, k, gating, renormalise; float scale; } route_args;

typedef struct conv_args { uint32_t x_stride, y_stride, n, taps, n_tok, silu; } conv_args;

typedef struct delta_args {
    uint32_t qkv_stride, ab_stride, ab_group, n_k, n_v, k_dim, v_dim, tiled, y_stride, n_tok;
    float scale; /* 1 / sqrt(k_dim) */
} delta_args;

/* activate: neurons (x: blocks of 256) and tokens (y); row slot + y of h and of the mask. */
typedef struct activate_args {
    uint32_t n, g_stride, u_stride, h_stride, q_stride, slot, act, mask_stride, quantise;
    float act_param, gate_least, h_least;
} activate_args;

typedef struct predict_args { uint32_t n, k, x_stride, scores_stride, mask_stride; } predict_args;

typedef struct list_args { uint32_t n, what, act; float act_param, shut; } list_args;

/* Down projections by neurons: type of the part, its shape, and where everything lies (engine/base/neurons.h). */
typedef struct down_args {
    uint32_t type, n_ff, d_model, width, segment, segments, sums_stride, h_stride;
    uint32_t d_at, d_stride, sc_at, sc_stride, rows_at, stride;
} down_args;

typedef struct join_args { uint32_t d_model, segments, sums_stride, y_stride, keep; } join_args;

#endif
