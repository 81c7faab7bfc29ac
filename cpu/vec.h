/* SPDX-License-Identifier: MIT
 * Element-wise and reducing kernels: the choice of a SIMD level. Threads: any; no state. */
#ifndef HT_CPU_VEC_H
#define HT_CPU_VEC_H

#include "cpu/kernels.h"

/* The vec kernels of the best variant at or below `isa` that this build has. */
void ht_vec_kernels_init(ht_vec_kernels *v, ht_isa isa);

/* One table per compiled variant; those of instruction sets that the target lacks do not exist. */
extern const ht_vec_kernels ht_vec_kernels__ref;
#if defined(__x86_64__)
extern const ht_vec_kernels ht_vec_kernels__avx2;
extern const ht_vec_kernels ht_vec_kernels__avx512;
#endif

#endif
