/* SPDX-License-Identifier: MIT
 *
 * Executors: what computes. A layer is written once as a list of operations (plain data) that is handed to an
 * executor's queue; the CPU has one, GPU drivers have others. A queue runs its operations in order, each seeing the
 * results of those before; submit returns at once, the caller waits for an event only where the host needs a result.
 *
 * Memory: every pointer in an operation lies in the executor's memory (host memory for the CPU) and must stay valid
 * until the event of the submit is reached. Operations are copied by submit. Nothing is allocated per operation.
 * Threads: one thread at a time submits to and waits on a queue; different queues are independent.
 *
 * The numeric contract (docs/architecture.md, "Numbers"), which every executor and kernel keeps:
 *  - HT_PRECISION_FAST, quantised weights: activations are 8-bit blocks of 32 (ht_q8): d = max|x| / 127, q =
 *    nearest-even of x * (127 / max|x|). A block's product is an integer; block b is added by one fused multiply-add to
 *    accumulator b mod 16, blocks counted from the start of the row (of the segment, for down projections); then the
 *    tree a[i] + a[i+8], + [i+4], + [i+2], + [i+1].
 *  - A down projection held in rows of neurons (HT_LAYOUT_COLUMNS), whatever its type: activations stay float32; within
 *    a segment y = fma(h[j], w[j], y) in order of j from 0, w as ht_type_dequant gives it. A neuron whose h is 0 adds
 *    nothing, whatever its row holds.
 *  - Float weights, and every weight under HT_PRECISION_F32: float32 products by fused multiply-add into accumulator
 *    i mod 32, then a[i] + a[i+16] and the same tree.
 *  - Attention. A score is summed over blocks of 32 dimensions: within a block by fused multiply-add in order from 0,
 *    s = 0 + block + block + ... in order; for block types s = fma(D, block, s), the block being a sum of q * integer.
 *    Spans of HT_ATTEND_SPAN positions: the largest score of those seen, p = exp(score - it), the sum of p by position
 *    mod 16 and the tree, values by fused multiply-add in order of position from 0 (block types: (p * D) * integer). The
 *    spans are joined in order. */
#ifndef HT_BASE_EXEC_H
#define HT_BASE_EXEC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/cluster.h"
#include "engine/base/status.h"

#define HT_KV_PAGE 128u     /* positions per page */
#define HT_ATTEND_SPAN 512u /* positions whose softmax is one piece: a multiple of the page */

typedef enum ht_precision { HT_PRECISION_F32, HT_PRECISION_FAST } ht_precision;

/* Asked for from any thread; looked at between pieces of operations. */
typedef struct ht_cancel {
    _Atomic bool asked;
    void (*tick)(void *user); /* NULL, or called by the waiting thread between pieces of its own work, often: it must be short */
    void *user;
} ht_cancel;

/* 8-bit activations of n tokens: token t at q + t * stride, d + t * (stride / 32), s + t * (stride / 16). */
typedef struct ht_q8 {
    int8_t *q;       /* [n][stride] */
    float *d;        /* [n][stride/32] */
    int16_t *s;      /* [n][stride/16] sums of 16 q each, for types with a minimum */
    uint32_t stride; /* elements from token to token, multiple of 32; 0: there is no 8-bit form */
} ht_q8;

/* Activations of n tokens: float32 rows, and their 8-bit form where a consumer wants it (q8.stride != 0). */
typedef struct ht_act {
    float *f;
    uint32_t stride; /* floats from token to token */
    ht_q8 q8;
} ht_act;

typedef enum ht_norm_kind { HT_NORM_NONE, HT_NORM_RMS, HT_NORM_LAYER, HT_NORM_L2 } ht_norm_kind;

typedef enum ht_activation {
    HT_ACT_SILU, HT_ACT_GELU_TANH, HT_ACT_GELU_ERF, HT_ACT_RELU, HT_ACT_RELU2, HT_ACT_FATRELU, HT_ACT_DRELU,
    HT_ACT_SWIGLU_OAI, /* (clamp(up,-7,7)+1) * min(gate,7) * sigmoid(1.702 * gate), gpt-oss */
    HT_ACT_SIGMOID, HT_ACT_IDENTITY
} ht_activation;

/* Does it give exact zeros, which need not be multiplied with anything? */
static inline bool ht_activation_has_zeros(ht_activation a)
{
    return a == HT_ACT_RELU || a == HT_ACT_RELU2 || a == HT_ACT_FATRELU || a == HT_ACT_DRELU;
}

/* A gate's product of at most this leaves its neuron zero, of activations that have zeros; one that is no number is open. */
static inline float ht_activation_shut(ht_activation a, float param)
{
    return a == HT_ACT_FATRELU ? param : 0.0f;
}

/* x = embedding rows of ids, times scale. table: [n_vocab][k] of any type. */
typedef struct ht_op_embed {
    ht_part table;
    const int32_t *ids; /* [n_tok], each < table.n: checked by the caller */
    float scale;
    float *out;
    uint32_t out_stride;
} ht_op_embed;

/* out = norm(x) * weight + bias, in groups of `group` elements (group == k: the whole row; else one norm per head,
 * weight [group], or [k] where weight_full). Groups of x lie x_group floats apart (0: side by side), those of out
 * side by side. In place where out.f == x. kind NONE copies. Writes out.q8 where out.q8.stride. */
typedef struct ht_op_norm {
    const float *x;
    uint32_t x_stride, k, group, x_group;
    bool weight_full;
    ht_norm_kind kind;
    float eps;
    const float *weight, *bias; /* NULL where there is none */
    ht_act out;
} ht_op_norm;

/* y[t][i] = scale * (<W[i], x[t]> + bias[i]), clamped to +-clamp where clamp > 0. Several matrices may share one x. */
typedef struct ht_op_matmul {
    ht_part w;
    const float *bias; /* [w.n] or NULL */
    ht_act x;
    float *y;
    uint32_t y_stride;
    float scale, clamp;
} ht_op_matmul;

/* y = ax * x + ay * y over [n_tok][k]; y is written as zero + ... where ay == 0. */
typedef struct ht_op_add {
    const float *x;
    float *y;
    uint32_t x_stride, y_stride, k;
    float ax, ay;
} ht_op_add;

/* y[i] = act(gate[i]) * y[i] over [n_tok][k]; gate NULL: y[i] = act(y[i]). Gates of consecutive groups of `group`
 * elements lie gate_group floats apart (group == k: one stretch). per_row: one gate per token. */
typedef struct ht_op_gate {
    const float *gate;
    float *y;
    uint32_t gate_stride, y_stride, k, group, gate_group;
    ht_activation act;
    bool per_row;
} ht_op_gate;

/* y = cap * tanh(y / cap) (cap > 0), then * scale. Logits. */
typedef struct ht_op_softcap {
    float *y;
    uint32_t y_stride, k;
    float cap, scale;
} ht_op_softcap;

/* Rotates the first n_rot dimensions of n_head heads of head_dim, in place. table: per token n_rot/2 cosines, then
 * n_rot/2 sines (already times the attention factor). neox: pairs (i, i + n_rot/2), else (2i, 2i+1). */
typedef struct ht_op_rope {
    float *x;
    uint32_t x_stride, n_head, head_dim, n_rot;
    bool neox;
    const float *table;
    uint32_t table_stride; /* floats from token to token */
} ht_op_rope;

/* A layer's KV cache: page p holds positions [p * HT_KV_PAGE, ...): K of head h at h * HT_KV_PAGE * k_row_bytes, its V at
 * v_offset + h * HT_KV_PAGE * v_row_bytes. Within, 16 neighbours are one vector: 16 positions of one dimension of K, 16
 * dimensions of one position of V (v_dim rounded up to 16 in v_row_bytes, the rest zeros).
 *   HT_F32, HT_F16   K [HT_KV_PAGE / 16][k_dim][16],  V [v_dim / 16][HT_KV_PAGE][16]
 *   HT_Q8_0          K [HT_KV_PAGE / 16][k_dim / 32] of { half D[16]; int8 [32][16] }
 *                    V [v_dim / 32] of { half D[HT_KV_PAGE]; int8 [2][HT_KV_PAGE][16] }
 *   HT_Q4_0          K alike with nibbles [16][16]: dimension i of the block low, i + 16 high
 *                    V alike with nibbles [HT_KV_PAGE][16]: dimension i of the block low, i + 16 high */
typedef struct ht_kv_view {
    void *const *pages;
    uint32_t type, n_kv, k_dim, v_dim;
    size_t k_row_bytes, v_row_bytes, v_offset;
} ht_kv_view;

/* Floats of one partial sum in ht_op_attend.partial: the largest score, the sum, 14 unused, v_dim values rounded up. */
#define HT_ATTEND_PARTIAL(v_dim) (16u + ((v_dim) + 15u) / 16u * 16u)

/* Writes K and V of n_tok tokens at positions pos0, pos0+1, … */
typedef struct ht_op_kv_write {
    ht_kv_view kv;
    const float *k, *v;
    uint32_t k_stride, v_stride;
    uint32_t pos0;
} ht_op_kv_write;

/* out[t][h] = sum_j softmax_j(softcap(scale * <q[t][h], K[j]>)) V[j] over j in [max(0, i - window + 1), i], i = pos0
 * + t. window 0: no window. sinks: [n_head] logits that join the denominator, or NULL. causal is implied. */
typedef struct ht_op_attend {
    ht_kv_view kv;
    const float *q;
    uint32_t q_stride, n_head;
    float scale, softcap;
    uint32_t window;
    const float *sinks;
    uint32_t pos0;
    ht_act out; /* [n_tok][n_head * v_dim] */
    /* Scratch by which a long context is shared out among threads: [spans][n_tok * n_head] of HT_ATTEND_PARTIAL(v_dim)
     * floats where that many are there; else, and with NULL, a thread walks all spans of its heads. */
    float *partial;
    size_t n_partial; /* floats */
} ht_op_attend;

/* How masks did against what was computed: neurons, those not zero, those in the mask, those of both. */
typedef struct ht_mask_counts { _Atomic uint64_t neurons, active, predicted, hit; } ht_mask_counts;

/* One expert's (or the dense block's) share of a feed-forward operation. */
typedef struct ht_ffn_item {
    ht_part part[HT_N_ROLES]; /* gate.host NULL: no gate. Whole expert, rows = neurons for gate and up */
    const float *bias[HT_N_ROLES];
    ht_part down_t;           /* the down projection once more, neuron-major (host NULL: not there) */
    const uint32_t *tokens;   /* [n_tokens] rows of x, ascending; NULL: all in order */
    const float *weights;     /* [n_tokens] router weights, NULL: 1 */
    uint32_t n_tokens;
    uint32_t slot;            /* first row of h that this item may use; it uses n_tokens of them */
    float gate_least, h_least; /* 0 or more; see ht_op_ffn */
} ht_ffn_item;

/* Which part of a feed-forward operation of one token is done. OUTPUTS: each item's output, not weighted, goes to row `slot`
 * of gathered, y is left alone. SUM: y = those rows, weighted and added up in the order of the items, whose parts are not
 * looked at. Experts computed in any order, as they arrive, then have the bits of one operation over all. */
typedef enum ht_ffn_stage { HT_FFN_ALL, HT_FFN_OUTPUTS, HT_FFN_SUM } ht_ffn_stage;

/* y[t] = sum over items in the order given, over their segments in order, of weight * down(act(gate x) * (up x)). y
 * is overwritten; with `accumulate` (n_tok > 1) the sum goes on from y, as if the items before had been of one operation. h: scratch [sum of n_tokens][n_ff]. gathered: scratch [sum of n_tokens][d_model] for the tokens of
 * each item side by side, needed where an item has a token list and n_tok > 1, and for the outputs of more than one item
 * where n_tok == 1. h_norm: an RMS norm over the whole h before down (bitnet), or NULL.
 *
 * sparse: with n_tok == 1 and an activation that gives exact zeros, what is multiplied by zero is not read: up rows whose
 * gate is shut, and, of an item with down_t, the down rows of neurons whose h (its 8-bit form, where there is one) is 0.
 * Same bits as without. An item with down_t is computed from it, however many neurons are active: the caller gives it
 * where few are expected.
 * A down part in HT_LAYOUT_COLUMNS needs `work` (n_tok == 1), one item without a token list, and no 8-bit form of h; rows
 * of neurons that are 0 are never read with n_tok == 1, sparse or not.
 * mask: neurons taken as inactive, h = 0 whatever its value: bit j % 32 of word j / 32 is 0; one row of words for every
 * row of h. With n_tok == 1 and `sparse` their rows are not read at all.
 * gate_least, h_least: h = 0 where |act(gate)| < gate_least (CATS, arXiv:2404.08763; of a block with a gate), then where
 * |h| < h_least (TEAL, arXiv:2408.14690, on the input of the down projection). Values that are no numbers stay. With n_tok
 * == 1 and `sparse` the up rows of neurons that the first leaves out are not read, nor the down rows of either. */
typedef struct ht_op_ffn {
    const ht_ffn_item *items;
    uint32_t n_items;
    uint32_t n_ff, d_model;
    ht_act x, h, gathered;
    ht_activation act;
    float act_param; /* FATReLU threshold */
    const float *h_norm;
    float h_norm_eps;
    float *y;
    uint32_t y_stride;
    _Atomic uint64_t *n_active, *n_neurons; /* counters: h elements that are not zero, and all; NULL: do not count */
    _Atomic uint64_t *n_bytes;              /* counter: bytes of weights read (n_tok == 1), or NULL */
    ht_mask_counts *counts;                 /* n_tok > 1, where all neurons are computed; without masks the first two; or NULL */
    bool sparse;
    const uint32_t *mask; /* [rows of h][mask_stride], or NULL */
    uint32_t mask_stride; /* words, at least (n_ff + 31) / 32 */
    void *work;           /* for items with down_t, or a down part in HT_LAYOUT_COLUMNS: ht_ffn_work_bytes(), 64-byte aligned */
    bool accumulate;
    ht_ffn_stage stage;   /* other than ALL: n_tok == 1; then, and with accumulate, no down part in HT_LAYOUT_COLUMNS */
} ht_op_ffn;

/* Segments of a down projection. */
static inline uint32_t ht_ffn_segments(uint32_t n_ff)
{
    return (n_ff + HT_SEGMENT - 1) / HT_SEGMENT;
}

/* ht_op_ffn.work for n_items items: lists of active neurons, and a partial sum for each segment. */
static inline size_t ht_ffn_work_bytes(uint32_t n_items, uint32_t n_ff, uint32_t d_model)
{
    size_t lists = ((size_t)n_ff + 2 * (ht_ffn_segments(n_ff) + 1) + 15) / 16 * 16;
    size_t sums = (size_t)ht_ffn_segments(n_ff) * ((d_model + 127u) / 128u * 128u);
    return n_items * (lists + sums) * 4;
}

/* Outputs [first, first + n) of a down projection into its neuron-major form (neurons.h). first: a multiple of
 * HT_NEURONS_TILE, n too but at the end. *refused is set where a scale or weight is no finite number: `to` must not be
 * used then. n_tok is 1. */
typedef struct ht_op_transpose {
    ht_part from, to; /* ROWS [d_model][n_ff]; NEURONS */
    uint32_t first, n;
    _Atomic bool *refused;
} ht_op_transpose;

/* How a mixture picks its experts. */
/* TOPK: softmax over the k chosen */
typedef enum ht_gating { HT_GATE_SOFTMAX, HT_GATE_SIGMOID, HT_GATE_SOFTMAX_TOPK } ht_gating;
typedef struct ht_op_route {
    const float *logits; /* [n_tok][n_expert] */
    uint32_t logits_stride, n_expert, k;
    ht_gating gating;
    bool renormalise;
    float scale;             /* of the weights, after all else */
    const float *select_bias;/* [n_expert] added for the choice only, or NULL */
    uint32_t *ids;           /* [n_tok][k], ascending ids */
    float *weights;          /* [n_tok][k] */
} ht_op_route;

/* Causal depthwise convolution with SiLU over a sequence with carried state (qwen3-next, mamba, lfm2):
 * y[t][c] = act(sum_j w[c][j] * x[t - (taps-1) + j][c] + bias[c]); state: the last taps-1 inputs, [taps-1][n],
 * updated. */
typedef struct ht_op_conv {
    const float *x;
    float *y;
    uint32_t x_stride, y_stride, n, taps;
    const float *w, *bias; /* [n][taps], [n] or NULL */
    float *state;
    bool silu;
} ht_op_conv;

/* Gated delta rule (Gated DeltaNet, arXiv:2412.06464): per value head h with key head h / (n_v / n_k) (or h mod n_k
 * where `tiled`), state S [k_dim][v_dim]:  S *= exp(g);  d = beta * (v - S^T k);  S += k d^T;  y = S^T q.  q and k
 * are L2-normalised first (eps 1e-6), q scaled by 1/sqrt(k_dim). g = a_coef[h] * softplus(alpha + dt_bias[h]), beta
 * = sigmoid. */
typedef struct ht_op_delta {
    const float *q, *k, *v;  /* [n_tok] rows, strides below */
    uint32_t qkv_stride;
    /* Raw projections: value head h of token t at t * ab_stride + h, or, where ab_group (value heads per key head) is
     * set, at 2 * ab_group * (h / ab_group) + h % ab_group. */
    const float *alpha, *beta;
    uint32_t ab_stride, ab_group;
    const float *a_coef, *dt_bias; /* [n_v] */
    uint32_t n_k, n_v, k_dim, v_dim;
    bool tiled;
    float *state; /* [n_v][k_dim][v_dim], updated */
    float *y;     /* [n_tok][n_v * v_dim] */
    uint32_t y_stride;
} ht_op_delta;

/* y = act_quantise(x): makes the 8-bit form of a float buffer. */
typedef struct ht_op_quantise {
    ht_act x;
    uint32_t k;
} ht_op_quantise;

/* Which neurons a token may need: bit n % 32 of mask[t][n / 32] is set iff its score >= threshold[n]. The score is that of
 * a product computed before (scores), or of the one-bit matrix `signs` with x (engine/base/signs.h). */
typedef struct ht_op_predict {
    uint32_t n, k;          /* neurons; inputs */
    const float *threshold; /* [n]; -INFINITY: always, INFINITY: never */
    const float *scores;    /* [n_tok][n], or NULL */
    uint32_t scores_stride;
    const uint8_t *signs;   /* ht_signs_bytes(n, k) */
    const float *x;
    uint32_t x_stride;
    const uint32_t *tokens; /* [n_tok] rows of x; NULL: all in order */
    uint32_t *mask;         /* [n_tok] of (n + 31) / 32 words, bits behind n are 0 */
    uint32_t mask_stride;   /* words from token to token */
    void *work;             /* HT_PREDICT_WORK(k) bytes, 64-byte aligned; for `signs` where n_tok == 1 */
} ht_op_predict;
#define HT_PREDICT_WORK(k) (64 + ((size_t)(k) + 31) / 32 * (128 + 32 + 2))

/* The signs of all of w (a quantised or float matrix), packed: ht_signs_bytes(w.n, w.k) bytes. */
typedef struct ht_op_signs {
    ht_part w;
    uint8_t *signs;
} ht_op_signs;

typedef enum ht_op_kind {
    HT_OP_EMBED,
    HT_OP_NORM,
    HT_OP_MATMUL,
    HT_OP_ADD,
    HT_OP_GATE,
    HT_OP_SOFTCAP,
    HT_OP_ROPE,
    HT_OP_KV_WRITE,
    HT_OP_ATTEND,
    HT_OP_FFN,
    HT_OP_ROUTE,
    HT_OP_CONV,
    HT_OP_DELTA,
    HT_OP_QUANTISE,
    HT_OP_PREDICT,
    HT_OP_TRANSPOSE,
    HT_OP_SIGNS,
    HT_N_OPS
} ht_op_kind;

typedef struct ht_op {
    ht_op_kind kind;
    uint32_t n_tok;
    bool joined; /* may run beside the operation before it (no data between the two): q, k and v of one x */
    union {
        ht_op_embed embed;
        ht_op_norm norm;
        ht_op_matmul matmul;
        ht_op_add add;
        ht_op_gate gate;
        ht_op_softcap softcap;
        ht_op_rope rope;
        ht_op_kv_write kv_write;
        ht_op_attend attend;
        ht_op_ffn ffn;
        ht_op_route route;
        ht_op_conv conv;
        ht_op_delta delta;
        ht_op_quantise quantise;
        ht_op_predict predict;
        ht_op_transpose transpose;
        ht_op_signs signs;
    };
} ht_op;

typedef uint64_t ht_event; /* grows with every submit of a queue */

typedef struct ht_exec ht_exec;
typedef struct ht_exec_ops {
    const char *name;
    /* Appends n operations. HT_EINVAL for an operation it cannot run; nothing of the list is run then. */
    ht_status (*submit)(ht_exec *, const ht_op *ops, size_t n, ht_event *done);
    /* Blocks until the event. The calling thread helps with the work. Where cancel is asked for, what has not yet
     * begun is dropped, the queue is left empty and HT_ECANCELLED returned. */
    ht_status (*wait)(ht_exec *, ht_event, const ht_cancel *);
    void (*close)(ht_exec *);
} ht_exec_ops;
struct ht_exec { const ht_exec_ops *ops; };

#endif
