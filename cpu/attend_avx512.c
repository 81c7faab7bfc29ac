/* SPDX-License-Identifier: MIT
 * Attention for AVX-512. Threads: any; no state. */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__)
#error "compile with -mavx512f -mavx512bw -mavx512vl -mavx512dq"
#endif
#define HT_VEC(name) name##__avx512
#define HT_VEC_LANES 16
#include "cpu/attend_simd.h"
