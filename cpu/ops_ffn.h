/* SPDX-License-Identifier: MIT
 * What the ways of a feed-forward operation share: ops_ffn.c (dense), ops_ffn_sparse.c and ops_ffn_columns.c. Not for
 * other rooms. */
#ifndef HT_CPU_OPS_FFN_H
#define HT_CPU_OPS_FFN_H

#include "cpu/exec.h"

/* y[t * ld + i] += bias[i]; NULL: nothing. */
void ht_cpu_add_bias(float *y, size_t ld, const float *bias, uint32_t n_tok, uint32_t n);
/* What became of some neurons: not zero; not zero before the mask and the thresholds; named by the mask, or by the
 * threshold of the gate (all where there is neither). */
typedef struct cpu_active {
    uint32_t active, unmasked, named;
} cpu_active;
/* h = act(g) * u for neurons [r0, r0 + n) of the item's token t (g NULL: no gate), the mask and the thresholds applied,
 * and its 8-bit form. named is counted for thresholds only. */
cpu_active ht_cpu_activate(const cpu_op *op, const ht_ffn_item *it, uint32_t t, uint32_t r0, uint32_t n, const float *g,
                           const float *u);
/* Of n neurons of the list (numbers from r0 on, as g counts) those with |act(g)| >= least, or no number, in place. */
uint32_t ht_cpu_list_least(const cpu_op *op, float least, const float *g, uint32_t r0, uint32_t n_g, uint32_t *list,
                           uint32_t n, float *tmp);
void ht_cpu_count_active(const ht_op_ffn *f, uint64_t active, uint64_t n);
/* n rows of w (none where w is not there) were read. */
void ht_cpu_count_rows(const ht_op_ffn *f, const ht_part *w, uint64_t n);
/* The norm over the whole h of a slot; chunk: the slot, of a single token the item. */
void ht_cpu_h_norm(const cpu_op *op, uint32_t chunk, uint32_t thread);
void ht_cpu_add_phase(cpu_op *op, cpu_phase_fn *fn, uint32_t n_chunks);
/* A phase of a single token: ranges of rows of one expert. */
void ht_cpu_add_token_phase(cpu_op *op, cpu_range_fn *fn, uint32_t rows, uint32_t grain, uint32_t most);
/* Of an item: its neuron-major down projection, host NULL: there is none. */
static inline const ht_part *ht_cpu_neurons(const ht_ffn_item *it)
{
    return it->part[HT_ROLE_DOWN].layout == HT_LAYOUT_NEURONS ? &it->part[HT_ROLE_DOWN] : &it->down_t;
}
/* Whether the items' down projections are held neuron-major only: packed files. */
static inline bool ht_cpu_packed(const ht_op_ffn *f)
{
    return f->items[0].part[HT_ROLE_DOWN].layout == HT_LAYOUT_NEURONS;
}
/* The down projection of a single token from the file's rows; the outputs of several items added up. */
void ht_cpu_plan_token_down(cpu_op *op);

/* ops_ffn_columns.c: down projections in rows of neurons. fit: whether the operation's is such a one as can be run. */
bool ht_cpu_columns_fit(const ht_op_ffn *f);
void ht_cpu_plan_columns_token(cpu_op *op);
void ht_cpu_plan_columns_prompt(cpu_op *op);

static inline bool ht_cpu_by_columns(const ht_op_ffn *f)
{
    return f->items[0].part[HT_ROLE_DOWN].layout == HT_LAYOUT_COLUMNS;
}

#endif
