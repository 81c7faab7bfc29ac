/* SPDX-License-Identifier: MIT
 * Attention for 64-bit ARM. Threads: any; no state. */
#define HT_VEC(name) name##__neon
#define HT_VEC_LANES 8
#include "cpu/attend_simd.h"
