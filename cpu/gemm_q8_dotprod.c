/* SPDX-License-Identifier: MIT
 * Quantised weights times many tokens for ARM with dotprod. Owner: no state. Threads: any. */
#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile with -march=armv8.2-a+dotprod"
#endif
#define HT_LEVEL(name) name##__dotprod
#define LEVEL HT_ISA_DOTPROD
#include "cpu/gemm_q8_arm_body.h"
