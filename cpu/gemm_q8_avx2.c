/* SPDX-License-Identifier: MIT
 * Quantised weights times many tokens, AVX2. Owner: no state; the scratch is the caller's. Threads: any. */
#define HT_VNNI 0
#define GEMM_Q8 ht_gemm_q8__avx2
#define GEMM_ISA HT_ISA_AVX2
#include "cpu/gemm_q8_avx2_body.h"
