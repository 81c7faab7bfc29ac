/* SPDX-License-Identifier: MIT
 *
 * Declares every variant of the many-token products from their list. Owner: no state. Threads: any. */
#ifndef HT_CPU_GEMM_H
#define HT_CPU_GEMM_H

#include "cpu/kernels.h"

#define HT_GEMM_Q8(isa, fn) ht_gemm_q8_fn fn;
#define HT_GEMM_F32(isa, fn) ht_gemm_f32_fn fn;
#include "cpu/gemm.inc"
#undef HT_GEMM_Q8
#undef HT_GEMM_F32

#endif
