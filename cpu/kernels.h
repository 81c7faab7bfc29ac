/* SPDX-License-Identifier: MIT
 *
 * The kernel table of the CPU executor: one function per operation and, for products with weights, per weight type,
 * chosen once for a SIMD level. Every list of variants is a .inc file (slow to fast, last match wins) that drives
 * declaration, choice, test (tests/cpu/check_*.c) and micro-benchmark (tools/bench).
 *
 * A kernel allocates nothing, locks nothing, keeps no state, reads and writes nothing outside the ranges stated, and
 * knows no model. All variants of a kernel give the same bits: the order of every float operation is fixed by the
 * numeric contract (engine/base/exec.h) and written out in the __ref variant. Names: ht_<op>[_<type>]__<isa>. */
#ifndef HT_CPU_KERNELS_H
#define HT_CPU_KERNELS_H

#include "cpu/isa.h"
#include "engine/base/exec.h"
#include "engine/base/neurons.h"
#include "engine/base/types.h"

/* One token's 8-bit activations. */
typedef struct ht_q8_row {
    const int8_t *q;  /* [k] */
    const float *d;   /* [k/32] */
    const int16_t *s; /* [k/16] */
} ht_q8_row;

/* y[i] = <W[rows[i]], x>, 8-bit activations. W: rows of k quantised weights, `stride` bytes apart, any alignment. rows:
 * [n_rows] in any order, repeated or not; NULL: rows 0 .. n_rows - 1. No other row is read. */
typedef void ht_dot_q8_fn(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,
                          const ht_q8_row *x, uint32_t k);

/* y[t * ldy + i] = <W[i], x[t]> for n_tok tokens (x->q8 strided as in ht_q8). scratch: ht_gemm_scratch_bytes(k)
 * bytes of 64-byte aligned memory of this thread. Same bits as ht_dot_q8_fn token by token. */
typedef void ht_gemm_q8_fn(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows,
                           const ht_q8 *x, uint32_t n_tok, uint32_t k, void *scratch);

/* y[i] = <W[rows[i]], x>, float32 activations, weights of any type (dequantised on the way). */
typedef void ht_dot_f32_fn(float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n_rows,
                           const float *x, uint32_t k);

/* Row i of a list (NULL: all in order). */
static inline const uint8_t *ht_row_at(const void *w, size_t stride, const uint32_t *rows, uint32_t i)
{
    return (const uint8_t *)w + (rows ? rows[i] : i) * stride;
}

/* y[t * ldy + i] for n_tok tokens, x[t] at x + t * ldx. scratch as above. */
typedef void ht_gemm_f32_fn(float *y, size_t ldy, ht_type type, const void *w, size_t stride, uint32_t n_rows,
                            const float *x, size_t ldx, uint32_t n_tok, uint32_t k, void *scratch);

/* A slice of a down projection of one token from the neuron-major form: one segment, some outputs. */
typedef struct ht_down_slice {
    const ht_neurons *g;
    const uint8_t *w;     /* the expert's neuron-major part */
    uint32_t first, n;    /* outputs; first: a multiple of HT_NEURONS_TILE; n at most HT_DOWN_SLICE */
    uint32_t segment;     /* its first neuron */
    const uint32_t *list; /* [n_list] neurons of the segment whose h is not 0 (or some more), ascending, counted from the
                             expert's first; other rows are not read, nor scales of groups that have none */
    uint32_t n_list;
    ht_q8_row q8;         /* quantised weights: h of the segment */
    const float *h;       /* float weights: the same */
    float *scratch;       /* ht_down_scratch_floats(), 64-byte aligned, of this thread */
} ht_down_slice;

enum { HT_DOWN_SLICE = 4096 };
size_t ht_down_scratch_floats(void);

/* y[i] = sum over the segment's neurons of W[j][first + i] * h[j], bit for bit as ht_dot_*_fn over the segment gives it
 * where all of h that is not in the list is 0 and all weights are finite. y: 32-byte aligned, room for n rounded up to
 * HT_NEURONS_TILE, written as a whole. */
typedef void ht_down_fn(float *y, const ht_down_slice *s);

/* Element-wise and reducing kernels, written once in cpu/vec_body.h and compiled per SIMD level. */
typedef struct ht_vec_kernels {
    /* 8-bit blocks of one row; k multiple of 32. */
    void (*quantise_q8)(const float *x, uint32_t k, int8_t *q, float *d, int16_t *s);
    /* out = norm(x) * weight + bias over k elements (weight, bias may be NULL); out == x allowed. */
    void (*norm)(ht_norm_kind kind, const float *x, uint32_t k, float eps, const float *weight, const float *bias,
                 float *out);
    /* h[i] = act(g[i]) * u[i] (drelu: relu(g) * relu(u)); g NULL: h[i] = act(u[i]). h may be u. Of the ReLU family h is 0
     * where act(g) is, even if u is no finite number. Returns how many h != 0. */
    uint32_t (*glu)(ht_activation act, float param, const float *g, const float *u, uint32_t n, float *h);
    /* y = ax * x + ay * y as fmaf(ax, x, ay * y); ay == 0: y = ax * x whatever y held. */
    void (*add)(float ax, const float *x, float ay, float *y, uint32_t n);
    /* y[i] = fmaf(w, x[i], y[i]) */
    void (*axpy)(float w, const float *x, float *y, uint32_t n);
    /* dst[0..k) = the values of k elements of any type, as ht_type_dequant gives them; k: whole blocks. */
    void (*unpack)(ht_type type, const void *src, uint32_t k, float *dst);
    /* y[t * ldy + i] = fmaf(h[t * ldh + r], w[r * ldw + i], itself) for rows r of w in order: n_tok tokens, n_rows rows of
     * n elements. */
    void (*outer)(float *y, size_t ldy, const float *h, size_t ldh, uint32_t n_tok, const float *w, size_t ldw,
                  uint32_t n_rows, uint32_t n);
    void (*softcap)(float *y, uint32_t n, float cap, float scale);
    void (*rope)(float *x, uint32_t n_rot, bool neox, const float *cos_sin); /* one head */
    /* <a, b> by the float contract (acc i mod 32). */
    float (*dot)(const float *a, const float *b, uint32_t n);
    /* Float32 row to a row of type F32, F16, Q8_0 or Q4_0 as GGUF has it. */
    void (*kv_store)(ht_type type, const float *x, uint32_t n, void *row);
    /* Joins a span's partial (m, l, o) into the running (*M, *L, O): M' = max, a = exp(M - M'), b = exp(m - M'),
     * L = fmaf(l, b, L * a), O = fmaf(o, b, O * a). The first span is copied. */
    void (*attend_join)(float m, float l, const float *o, float *M, float *L, float *O, uint32_t v_dim, bool first);
    void (*softmax)(float *x, uint32_t n); /* in place: max, exp, sum by j mod 16, then * (1 / l) */
    /* One token, one channel range of a causal convolution: see ht_op_conv; state [taps-1][n] is shifted. */
    void (*conv)(const float *x, float *y, uint32_t n, uint32_t taps, const float *w, const float *bias, float *state,
                 uint32_t state_stride, bool silu);
    /* One token, one value head of the gated delta rule: decay = exp(g). S: [k_dim][v_dim]. q, k already normalised and
     * scaled. Every sum over k_dim runs in order of its index, fmaf, element-wise over v_dim. tmp: v_dim floats. */
    void (*delta)(const float *q, const float *k, const float *v, float decay, float beta, uint32_t k_dim,
                  uint32_t v_dim, float *S, float *tmp, float *y);
    /* Reads n words (a multiple of 32), for measuring memory; returns their exclusive or, so that no load is left out. */
    uint64_t (*read)(const uint64_t *x, size_t n);
} ht_vec_kernels;

/* One query: a head of a token. */
typedef struct ht_attend_query {
    const float *q;  /* [k_dim] */
    uint32_t j0, j1; /* positions of the span that it sees; j0 == j1: none, the query is left out */
    float m, l;      /* out: the largest score, the sum of exp(score - m) */
    float *o;        /* out: [v_dim rounded up to 16] sum of exp(score - m) * V */
} ht_attend_query;

enum { HT_ATTEND_QUERIES = 48, HT_ATTEND_PAGES = HT_ATTEND_SPAN / HT_KV_PAGE };

/* Some queries of one KV head over one span. Score: cap > 0 ? cap * tanh(scale * <q, K> / cap) : scale * <q, K>. */
typedef struct ht_attend_span {
    ht_type type;
    uint32_t k_dim, v_dim;
    const uint8_t *k[HT_ATTEND_PAGES], *v[HT_ATTEND_PAGES]; /* of this head, see ht_kv_view; no page is
        read before the first or after the last that a query sees */
    float scale, cap;
    uint32_t n_q; /* 1 .. HT_ATTEND_QUERIES */
    ht_attend_query *query;
    void *scratch; /* ht_attend_scratch_bytes() of 64-byte aligned memory of this thread */
} ht_attend_span;

typedef void ht_attend_fn(const ht_attend_span *s);

/* sum[32 t + r] of row r of tile t: see engine/base/signs.h for the layout of signs, table and m [n_blocks]. */
typedef void ht_signs_fn(int32_t *sum, const uint8_t *signs, uint32_t n_tiles, uint32_t n_blocks, const int8_t *table,
                         const int16_t *m);

typedef struct ht_kernels {
    ht_isa isa;
    ht_dot_q8_fn *dot_q8[HT_TYPE_MAX];   /* NULL for types that are not quantised */
    ht_dot_f32_fn *dot_f32[HT_TYPE_MAX]; /* every supported type */
    ht_down_fn *down[HT_TYPE_MAX];       /* types that have a neuron-major form */
    ht_gemm_q8_fn *gemm_q8;
    ht_gemm_f32_fn *gemm_f32;
    ht_attend_fn *attend;
    ht_signs_fn *signs;
    ht_vec_kernels vec;
} ht_kernels;

/* The best variants at or below `isa`. */
void ht_kernels_init(ht_kernels *k, ht_isa isa);

size_t ht_gemm_scratch_bytes(uint32_t k); /* per thread, for rows of k elements, either kind */
size_t ht_attend_scratch_bytes(uint32_t k_dim);

#endif
