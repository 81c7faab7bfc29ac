/* SPDX-License-Identifier: MIT
 * Quantised weights times many tokens, AVX-512 without VNNI. Owner: no state. Threads: any. */
#define HT_VNNI 0
#define GEMM_Q8 ht_gemm_q8__avx512
#define GEMM_ISA HT_ISA_AVX512
#include "cpu/gemm_q8_avx512_body.h"
