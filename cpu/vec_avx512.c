/* SPDX-License-Identifier: MIT
 * The vec kernels for AVX-512 F, BW, VL and DQ. Threads: any; no state. */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__)
#error "compile with -mavx512f -mavx512bw -mavx512vl -mavx512dq"
#endif
#define HT_VEC(name) name##__avx512
#define HT_VEC_LANES 16
#include "cpu/vec_simd.h"
#include "cpu/vec_body.h"
