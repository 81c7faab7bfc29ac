/* SPDX-License-Identifier: MIT
 * Quantised weights times many tokens for ARM with i8mm. Owner: no state. Threads: any. */
#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "compile with -march=armv8.2-a+dotprod+i8mm"
#endif
#define HT_LEVEL(name) name##__i8mm
#define LEVEL HT_ISA_I8MM
#include "cpu/gemm_q8_arm_body.h"
