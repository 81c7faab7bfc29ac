/* SPDX-License-Identifier: MIT
 * Quantised weights times many tokens, AVX-512 with VNNI and VBMI. Owner: no state. Threads: any. */
#define HT_VNNI 1
#define GEMM_Q8 ht_gemm_q8__avx512vnni
#define GEMM_ISA HT_ISA_AVX512VNNI
#include "cpu/gemm_q8_avx512_body.h"
