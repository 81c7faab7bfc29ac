/* SPDX-License-Identifier: MIT
 *
 * The state of one sequence: paged KV for layers with attention, fixed-size recurrent state for the others. This copy,
 * in host memory, is the authoritative one; a device keeps caches of it.
 *
 * Pages are taken a page set at a time (one page of every attention layer, HT_KV_PAGE positions) as the conversation
 * grows: a long context reserves nothing. Recurrent state cannot be cut back: truncate to a position other than 0 is
 * refused.
 *
 * Owner: ht_state_open/close. Threads: one at a time. */
#ifndef HT_STATE_H
#define HT_STATE_H

#include "engine/base/types.h"
#include "engine/mem.h"
#include "engine/model.h"

typedef struct ht_state {
    const ht_model *m;
    const ht_mem *mem;
    uint32_t n_ctx, pos, n_sets, max_sets;
    uint64_t set_bytes;
    void **sets;        /* [max_sets] */
    void ***pages;      /* [n_layer][max_sets]; NULL for layers without attention */
    void **page_table;  /* storage of pages */
    ht_kv_view *views;  /* [n_layer] */
    float *recurrent;   /* convolution and delta state of all recurrent layers */
    float **conv, **delta; /* [n_layer], into recurrent */
    size_t recurrent_floats;
    float *partial;     /* scratch of ht_op_attend, for one token over the whole context */
    uint64_t partial_bytes;
} ht_state;

/* Bytes of one page set, of the recurrent state, of the scratch by which threads share a long context. */
uint64_t ht_state_set_bytes(const ht_model *m, ht_type kv_type);
uint64_t ht_state_fixed_bytes(const ht_model *m);
/* What the lists of pages take for each page set of the context, filled or not. */
uint64_t ht_state_set_table_bytes(const ht_model *m);
uint64_t ht_state_partial_bytes(const ht_model *m, uint32_t n_ctx);
/* Whether rows of every layer can be stored in this type (block formats need multiples of 32). */
bool ht_state_type_fits(const ht_model *m, ht_type kv_type);

ht_status ht_state_open(ht_state *s, const ht_model *m, const ht_mem *mem, ht_type kv_type, uint32_t n_ctx,
                        ht_error *err);
void ht_state_close(ht_state *s);
/* Makes room for n positions in all (n <= n_ctx). */
ht_status ht_state_reserve(ht_state *s, uint32_t n, ht_error *err);
/* Forgets positions from n on; page sets beyond are given back. */
ht_status ht_state_truncate(ht_state *s, uint32_t n, ht_error *err);
uint64_t ht_state_bytes(const ht_state *s); /* committed now */

#endif
