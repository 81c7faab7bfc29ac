/* SPDX-License-Identifier: MIT
 *
 * Attention kernels: the variants from their list, and the layout of a KV page (engine/base/exec.h, ht_kv_view) in
 * numbers. Owner: no state. Threads: any. */
#ifndef HT_CPU_ATTEND_H
#define HT_CPU_ATTEND_H

#include "cpu/kernels.h"

#define HT_ATTEND(isa, fn) ht_attend_fn fn;
#include "cpu/attend.inc"
#undef HT_ATTEND

enum {
    HT_KV_GROUP = 16,    /* positions of K, dimensions of V that lie side by side */
    HT_KV_K_HEAD = 32,   /* bytes of D before a block of K's integers */
    HT_KV_V_HEAD = 256,  /* bytes of D before a block of V's integers */
    HT_KV_K_Q8 = 32 + 32 * 16, HT_KV_K_Q4 = 32 + 16 * 16,
    HT_KV_V_Q8 = 256 + 2 * 128 * 16, HT_KV_V_Q4 = 256 + 128 * 16,
};

/* Bytes of 16 positions of K. */
static inline size_t ht_kv_group_bytes(ht_type type, uint32_t k_dim)
{
    return type == HT_F32    ? (size_t)k_dim * 64
           : type == HT_F16  ? (size_t)k_dim * 32
           : type == HT_Q8_0 ? (size_t)k_dim / 32 * HT_KV_K_Q8
                             : (size_t)k_dim / 32 * HT_KV_K_Q4;
}

enum { HT_ATTEND_SIDE = 6 }; /* most queries of a block: 12 sums, 2 rows and a factor fit 16 registers */
enum { HT_ATTEND_STRIDE = HT_ATTEND_SPAN + 16 }; /* floats from query to query of the scores: cache sets are spread */

/* Floats of a tile of converted rows: a group of K with a D per block of 32, or two columns of V. */
static inline size_t ht_attend_tile_floats(uint32_t k_dim)
{
    const size_t k = (size_t)(k_dim + 31) / 32 * 33 * HT_KV_GROUP, v = (size_t)2 * HT_KV_PAGE * HT_KV_GROUP;
    return k > v ? k : v;
}

/* Writes K and V of one position (j of its page) and head: rows of k_dim and v_dim floats, rounded as `vec` does. */
void ht_attend_store_k(const ht_vec_kernels *vec, ht_type type, const float *x, uint32_t k_dim, uint8_t *k, uint32_t j);
void ht_attend_store_v(const ht_vec_kernels *vec, ht_type type, const float *x, uint32_t v_dim, uint8_t *v, uint32_t j);

#endif
