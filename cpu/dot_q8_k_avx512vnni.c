/* SPDX-License-Identifier: MIT
 * Dot products with 8-bit activations, AVX-512 with VNNI and VBMI: types with blocks of 256. Threads: any; no state. */
#define HT_VNNI 1
#define HT_DOT(type) ht_dot_q8_##type##__avx512vnni
#include "cpu/dot_q8_k_avx512_body.h"
