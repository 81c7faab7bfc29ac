/* SPDX-License-Identifier: MIT
 * Attention for AVX2, FMA and F16C. Threads: any; no state. */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with -mavx2 -mfma -mf16c"
#endif
#define HT_VEC(name) name##__avx2
#define HT_VEC_LANES 8
#include "cpu/attend_simd.h"
