/* SPDX-License-Identifier: MIT
 *
 * The scratch of the many-token products: how much, and how it is cut. One tile of rows is unpacked for the whole of k
 * and then meets all tokens, HT_GEMM_TOKENS at a time.
 *
 * Sizes per block of 32 of integer products, R rows per tile, T tokens at a time:
 *     weights      32 R bytes
 *     scales       6 R floats: D, Dm, and sc, mn of two halves
 *     activations  per token 5 numbers: d, two corrections, two sums
 * AVX2 cuts it otherwise, see gemm_q8_tile_avx2.c.
 * Float products: HT_GEMM_F32_BIG elements of the tile as floats, and the 32 accumulators of HT_GEMM_F32_SUPER tokens.
 * Owner: the caller's memory. Threads: one scratch per thread. */
#ifndef HT_CPU_GEMM_TILE_H
#define HT_CPU_GEMM_TILE_H

#include <stddef.h>
#include <stdint.h>

enum {
    HT_GEMM_ROWS = 16,
    HT_GEMM_TOKENS = 16,
    HT_GEMM_AVX2_TOKENS = 8,
    HT_GEMM_AVX2_BLOCK =
        72, /* at most so many bytes per row and block: weights and 7 numbers, or 16-bit weights and 2 */
    HT_GEMM_F32_CHUNK = 256,
    HT_GEMM_F32_BIG = 4096, /* a multiple of the chunk */
    HT_GEMM_F32_SUPER = 64, /* a multiple of the tokens side by side */
    HT_GEMM_F32_SIDE = 8
};

/* Blocks of 32, in whole rounds of 16. */
static inline size_t ht_gemm_blocks(uint32_t k)
{
    return ((size_t)k + 511) / 512 * 16;
}

/* Rows that AVX2 keeps unpacked while they meet the tokens: what arranging the tokens costs is shared by them,
 * which is worth more than that all of them stay in the second-level cache. */
static inline uint32_t ht_gemm_avx2_rows(uint32_t k)
{
    return k <= 4096 ? 4 * HT_GEMM_ROWS : k <= 8192 ? 2 * HT_GEMM_ROWS : HT_GEMM_ROWS;
}

/* Integer products: the more of what AVX-512 and AVX2 cut. */
static inline size_t ht_gemm_q8_bytes(uint32_t k)
{
    const size_t R = HT_GEMM_ROWS, T = HT_GEMM_TOKENS, blocks = ht_gemm_blocks(k), acc = 16 * T * R * 4;
    const size_t avx512 = blocks * (32 * R + 6 * R * 4 + 5 * T * 4) + acc;
    const size_t avx2 = blocks * (ht_gemm_avx2_rows(k) * HT_GEMM_AVX2_BLOCK + HT_GEMM_AVX2_TOKENS * (64 + 2 * 4)) + acc;
    return avx2 > avx512 ? avx2 : avx512;
}

static inline size_t ht_gemm_f32_bytes(void)
{
    return (size_t)4 * HT_GEMM_ROWS * (HT_GEMM_F32_BIG + 32 * HT_GEMM_F32_SUPER);
}

#endif
