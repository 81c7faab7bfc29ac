/* SPDX-License-Identifier: MIT
 *
 * Inside the AVX2 many-token products of float activations. Owner: the caller's scratch (gemm_tile.h). Threads: one
 * scratch per thread. */
#ifndef HT_CPU_GEMM_F32_AVX2_H
#define HT_CPU_GEMM_F32_AVX2_H

#include "cpu/gemm_avx2.h"
#include "cpu/kernels.h"

/* How many tokens ht_gemm_f32_avx2_few takes: fewer go through the dot products, which stream through memory better;
 * more are as fast in tiles (`hearth bench -p 2,4,8,12 -n 0`, EPYC of Zen 3, 2026-11). */
enum { HT_GEMM_F32_FEW_LEAST = 3, HT_GEMM_F32_FEW_MOST = 8 };

/* So many tokens of float weights without tiles. False: this type, number or k goes another way, and nothing was done.
 */
bool ht_gemm_f32_avx2_few(float *y, size_t ldy, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                          const float *x, size_t ldx, uint32_t n_tok, uint32_t k, void *scratch);

#endif
