/* SPDX-License-Identifier: MIT
 * What layer.c, layer_ffn.c and layer_stream.c share: lists of operations to be submitted together. Nobody else includes
 * this. */
#ifndef HT_LAYER_IMPL_H
#define HT_LAYER_IMPL_H

#include "engine/forward.h"

enum { HT_MAX_OPS = 32 };

/* Operations that are submitted together. */
typedef struct ht_ops {
    ht_op op[HT_MAX_OPS];
    uint32_t n, n_tok;
} ht_ops;

static inline ht_op *ht_ops_add(ht_ops *o, ht_op_kind kind)
{
    ht_op *op = &o->op[o->n++];
    *op = (ht_op){ .kind = kind, .n_tok = o->n_tok };
    return op;
}

static inline ht_status ht_ops_submit(ht_forward *f, ht_ops *o, ht_event *done, ht_error *err)
{
    ht_status st = f->exec->ops->submit(f->exec, o->op, o->n, done);
    o->n = 0;
    return st == HT_OK ? st
                       : ht_fail(err, st, "the %s executor cannot run an operation of this model", f->exec->ops->name);
}

static inline void ht_ops_norm(ht_ops *o, const ht_model *m, ht_norm w, const float *x, uint32_t k, ht_act out)
{
    ht_ops_add(o, HT_OP_NORM)->norm = (ht_op_norm){ .x = x,
                                             .x_stride = k,
                                             .k = k,
                                             .group = k,
                                             .eps = m->norm_eps,
                                             .kind = w.w ? m->arch->norm : HT_NORM_NONE,
                                             .weight = w.w,
                                             .bias = w.b,
                                             .out = out };
}

static inline ht_act ht_act_plain(float *f, uint32_t stride) { return (ht_act){ .f = f, .stride = stride }; }

static inline void ht_ops_matmul(ht_ops *o, ht_part w, const float *bias, ht_act x, float *y, uint32_t y_stride, bool joined)
{
    ht_op *op = ht_ops_add(o, HT_OP_MATMUL);
    op->joined = joined;
    op->matmul = (ht_op_matmul){ .w = w, .bias = bias, .x = x, .y = y, .y_stride = y_stride, .scale = 1.0f };
}

/* layer_ffn.c */

/* Leases a wanted expert's weights into an item; all biases of the expert beside them. */
ht_status ht_ffn_lease(ht_forward *f, uint32_t which, ht_ffn_item *it, ht_error *err);
ht_op_ffn ht_ffn_op(ht_forward *f, const ht_ffn *ff, ht_ffn_item *items, uint32_t n_items, uint32_t n_ff, float *y,
                    uint32_t il, bool shared, uint32_t n_tok);
/* What is queued ends with a feed-forward operation: where somebody listens, it is waited for and told, before the next
 * block takes h for itself. first: number of its first item among the experts of the layer. */
ht_status ht_ffn_tell(ht_forward *f, ht_ops *o, uint32_t il, uint32_t n, uint32_t first, bool shared,
                      const ht_cancel *cancel, ht_error *err);
bool ht_ffn_foretold(const ht_forward *f, uint32_t il);
/* Queues what fills the masks of an item's tokens. */
void ht_ffn_foretell(ht_ops *o, ht_forward *f, uint32_t il, uint32_t expert, const ht_ffn_item *it);
/* Queues a layer's router over x. */
void ht_ffn_route(ht_ops *o, ht_forward *f, const ht_ffn *ff, ht_act x);
/* Submits what is queued, the router last, waits for it, and wants the experts that it chose. */
ht_status ht_ffn_choose(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_error *err);
/* Queues a layer's shared expert, where it has one, into y2. */
ht_status ht_ffn_shared(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_error *err);
/* Queues the feed-forward block of a layer over xn, into y (of a mixture f->y). A mixture's experts are chosen before. */
ht_status ht_ffn_run(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, float *y, const ht_cancel *cancel, ht_error *err);

/* layer_stream.c: the same where weights come from the disk while others are computed. */
ht_status ht_stream_dense(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, float *y, const ht_cancel *cancel,
                          ht_error *err);
/* shared: also queues the shared expert, while experts arrive; *shared: it did. */
ht_status ht_stream_mixture(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, bool *shared, const ht_cancel *cancel,
                            ht_error *err);
/* Before experts of a layer are wanted: whether they may come in parts, those neurons only whose gate is open. */
void ht_stream_choose_parts(ht_forward *f, uint32_t il, uint32_t n);
/* Queues the next layer's router over this layer's state, to foresee its experts. */
void ht_stream_guess(ht_ops *o, ht_forward *f, uint32_t il);

#endif
