/* SPDX-License-Identifier: MIT
 * Quantised weights times many tokens for any 64-bit ARM. Owner: no state. Threads: any. */
#define HT_LEVEL(name) name##__neon
#define LEVEL HT_ISA_NEON
#include "cpu/gemm_q8_arm_body.h"
