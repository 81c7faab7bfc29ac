/* SPDX-License-Identifier: MIT
 * Element-wise and reducing kernels: the choice of a SIMD level. Threads: any; no state. */
#ifndef HT_CPU_VEC_H
#define HT_CPU_VEC_H

#include "cpu/kernels.h"

/* The vec kernels of the best variant at or below `isa` that this build has. */
void ht_vec_kernels_init(ht_vec_kernels *v, ht_isa isa);

/* x[j] = exp(x[j] - m) for j in [j0, j1), m the largest (NaN does not count for m, but makes the sum NaN); l the sum of
 * them by j mod 16, then the tree. An empty range: m = -infinity, l = 0. */
typedef void ht_exp_sum_fn(float *x, uint32_t j0, uint32_t j1, float *m, float *l);

/* One table per compiled variant; those of instruction sets that the target lacks do not exist. */
extern const ht_vec_kernels ht_vec_kernels__ref;
ht_exp_sum_fn ht_exp_sum__ref;
#if defined(__x86_64__)
extern const ht_vec_kernels ht_vec_kernels__avx2;
extern const ht_vec_kernels ht_vec_kernels__avx512;
ht_exp_sum_fn ht_exp_sum__avx2, ht_exp_sum__avx512;
#elif defined(__aarch64__)
extern const ht_vec_kernels ht_vec_kernels__neon;
ht_exp_sum_fn ht_exp_sum__neon;
#endif

#endif
