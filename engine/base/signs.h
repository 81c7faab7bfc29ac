/* SPDX-License-Identifier: MIT
 *
 * One-bit matrices: the signs of a weight matrix, by which a predictor guesses products at an eighth of a byte per
 * weight (after SparseInfer, arXiv:2411.12692, which takes signs of the activations too; here activations keep four
 * bits, which halves the neurons that must be looked at for the same loss: docs/predictors.md).
 *
 *   score(n) = base * sum over blocks b of m[b] * sum over the block's i of (w[n][i] >= 0 ? q[i] : -q[i])
 *
 * with q in -7..7 and m in 1..255: everything but the last multiplication is an integer, so that every kernel gives the
 * same score. Rows lie in tiles of 32, within a tile by blocks of 32 columns, 128 bytes each: byte 32 L + r has the
 * signs (bit 1: not negative) of row r's columns 8 L .. 8 L + 3 in its lower nibble and of 8 L + 4 .. 8 L + 7 in the
 * upper one. A nibble is then the number of an entry in a table of 16 sums of four activations, and one byte shuffle
 * looks up 16 rows at once (T-MAC, arXiv:2407.00088, section 3).
 *
 * Owner: the caller owns all memory. Threads: any. */
#ifndef HT_BASE_SIGNS_H
#define HT_BASE_SIGNS_H

#include <stddef.h>
#include <stdint.h>

enum {
    HT_SIGNS_ROWS = 32,
    HT_SIGNS_COLS = 32,
    HT_SIGNS_BLOCK = 128 /* bytes */,
    HT_SIGNS_TABLE = 128 /* bytes a block */
};

static inline uint32_t ht_signs_tiles(uint32_t n)
{
    return (n + HT_SIGNS_ROWS - 1) / HT_SIGNS_ROWS;
}
static inline uint32_t ht_signs_blocks(uint32_t k)
{
    return (k + HT_SIGNS_COLS - 1) / HT_SIGNS_COLS;
}
/* Bytes of a matrix of n rows and k columns; of its first n rows where n is a multiple of 32. */
static inline size_t ht_signs_bytes(uint32_t n, uint32_t k)
{
    return (size_t)ht_signs_tiles(n) * ht_signs_blocks(k) * HT_SIGNS_BLOCK;
}

/* Writes the signs of w[0..k) as row `row` of `signs`. */
void ht_signs_set_row(uint8_t *signs, uint32_t k, uint32_t row, const float *w);

/* Four-bit activations of x[0..k): q[32 * blocks], m[blocks], zeros behind k. Returns base. Not finite: all zeros. */
float ht_signs_quantise(const float *x, uint32_t k, int8_t *q, int16_t *m);

/* table[blocks][8][16]: entry j of group g of a block: the sum of the group's four q, those of j's 0 bits negative. */
void ht_signs_table(const int8_t *q, uint32_t n_blocks, int8_t *table);

#endif
