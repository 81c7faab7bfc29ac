/* SPDX-License-Identifier: MIT
 * Dot products with 8-bit activations, AVX-512 without VNNI: types with blocks of 256. Threads: any; no state. */
#define HT_VNNI 0
#define HT_DOT(type) ht_dot_q8_##type##__avx512
#include "cpu/dot_q8_k_avx512_body.h"
