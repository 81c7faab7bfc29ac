/* SPDX-License-Identifier: MIT
 * Quantised weights times many tokens, AVX-VNNI. Owner: no state; the scratch is the caller's. Threads: any. */
#define HT_VNNI 1
#define GEMM_Q8 ht_gemm_q8__avxvnni
#define GEMM_ISA HT_ISA_AVXVNNI
#include "cpu/gemm_q8_avx2_body.h"
