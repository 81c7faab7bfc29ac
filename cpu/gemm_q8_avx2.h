/* SPDX-License-Identifier: MIT
 *
 * Inside the AVX2 and AVX-VNNI many-token products of quantised weights: what gemm_q8_avx2_body.h multiplies and
 * gemm_q8_tile_avx2.c puts into scratch. Owner: the caller's scratch (gemm_tile.h). Threads: one scratch per thread. */
#ifndef HT_CPU_GEMM_Q8_AVX2_H
#define HT_CPU_GEMM_Q8_AVX2_H

#include "cpu/gemm_avx2.h"
#include "cpu/gemm_tile.h"
#include "cpu/kernels.h"

enum {
    R = HT_GEMM_ROWS, /* two vectors */
    T = HT_GEMM_AVX2_TOKENS,
    SIDE = 4 /* tokens side by side */
};

/* Of types with a minimum. */
typedef enum minimum {
    NO_MIN,
    MIN_ONE,   /* Dm times the sum of x: the factor is always 1 */
    MIN_BLOCK, /* one factor per block */
    MIN_HALVES /* one per half */
} minimum;

/* What a type's weights are made into. */
typedef struct manner {
    int groups;  /* sums per block: 1, 2 or 4; 0: weights and x become 16 bits */
    bool wide;   /* sums of 32 bits, of 16 otherwise */
    bool offset; /* weights have a sign and x gets 128 added */
    int scales;  /* per block: 0 (always 1), 1, 2 */
    minimum min;
} manner;

/* Vectors beside the weights of a block, each for two vectors of rows: D; Dm; the minimum's factor; scales; what the
 * sums start at. */
HT_INLINE int n_beside(manner m)
{
    return 1 + (m.min != NO_MIN) + (m.min > MIN_ONE) + m.scales + (m.offset ? m.groups : 0);
}

/* The scratch, cut. Block b is at place(b): ordered by b mod 16. */
typedef struct tile {
    int8_t *w;            /* [tile of rows][place][8 or, of 16 bits, 16][2][32] */
    __m256i *beside;      /* [tile of rows][place][n_beside][2] */
    int8_t *x;            /* [place][T][32 or 64] */
    float *xd;            /* [place][T] */
    int32_t *xs;          /* [place][T]: sum of x as a float, or (MIN_HALVES) two sums of 16 bits */
    float *acc;           /* [16][T][R] */
    size_t round;         /* places per b mod 16 */
    size_t n_w, n_beside; /* bytes per place and tile */
} tile;

/* How a type is multiplied. */
manner ht_gemm_avx2_manner(ht_type type, bool wide);

/* Cuts the scratch for rows of k elements. */
tile ht_gemm_avx2_cut(void *scratch, uint32_t k, manner m);

/* Unpacks n_rows rows (at most R) of weights to tile number `number`; the lanes of missing rows repeat the last. */
void ht_gemm_avx2_unpack(const tile *t, size_t number, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                         uint32_t k, manner m);

/* Arranges n_tok <= T tokens from first, nb blocks each; where they do not fill SIDE, the last again. */
void ht_gemm_avx2_arrange(const tile *t, const ht_q8 *x, uint32_t first, uint32_t n_tok, uint32_t nb, manner m);

/* A few tokens without tiles: two at least, at most so many that tiles would be as fast. False: this type, number or k
 * goes another way, and nothing was done. */
bool ht_gemm_avx2_few(float *y, size_t ldy, ht_type type, const uint8_t *w, size_t stride, uint32_t n_rows,
                      const ht_q8 *x, uint32_t n_tok, uint32_t k, void *scratch);

#endif
