/* SPDX-License-Identifier: MIT
 *
 * The neuron-major form of a down projection (HT_LAYOUT_NEURONS), without loss: a row per neuron instead of a row per
 * output, so that the columns of inactive neurons need not be read. Only the integers of a type are transposed; its
 * scales, which belong to 32 (or 16, or 256) neurons of one output, become vectors over the outputs. Nothing is
 * rounded: ht_neurons_to_rows gives back the bytes of the file.
 *
 * Scales first (every plane begins at a multiple of 64 bytes), then the rows, one after the other where the form is
 * made in memory; in a packed file (engine/base/packed.h) each lies in its neuron's bundle, and whole groups of 32 neurons
 * (of 256 where the block is) may be in another order, scales and rows alike. ht_neurons says where everything is:
 *
 *   Q4_0   f16 d [n_ff/32][width]                             row: per 64 outputs 32 bytes, low nibbles = the first 32
 *   Q8_0   f16 d [n_ff/32][width]                             row: int8 [width]
 *   Q4_K   f16 d, dmin [n_ff/256][2][width]
 *          u8 scale, minimum (of 6 bits) [n_ff/32][2][width]  row: as Q4_0
 *   Q6_K   f16 d [n_ff/256][width]
 *          int8 scale [n_ff/16][width]                        row: per 128 outputs 64 bytes as two of Q4_0, then 32
 *                                                             bytes: bits 2 j of byte i = upper bits of 32 j + i
 *   F16, BF16, F32                                            row: [width] elements
 *
 * width: the outputs, rounded up to HT_NEURONS_TILE; what lies behind the last output is zero.
 * Owner: no state; the caller owns all memory. Threads: any; different ranges of outputs at the same time. */
#ifndef HT_BASE_NEURONS_H
#define HT_BASE_NEURONS_H

#include "engine/base/cluster.h"
#include "engine/base/types.h"

#define HT_NEURONS_TILE 128u /* outputs: slices of outputs begin at its multiples */

/* Where everything lies: of ht_neurons_shape a pure function of type and shape. Offsets and strides in bytes, from one
 * base. */
typedef struct ht_neurons {
    ht_type type;
    uint32_t n_ff, d_model, width;
    size_t d_at, d_stride;   /* d (and dmin after it, width elements on) of the block of neuron j: plane j / block */
    size_t sc_at, sc_stride; /* sub-scales of neurons [32 g, 32 g + 32): 2 * width bytes; K-quants */
    size_t rows_at, stride;  /* row of neuron j at rows_at + j * stride, a multiple of 64 */
    size_t row_bytes;        /* of it in use */
    size_t bytes;            /* all; 0 where it lies among other things */
    const uint32_t *order;   /* [n_ff/32] where group i of 32 neurons lies; NULL: in order */
} ht_neurons;

/* Where neuron j (its row), and group i of 32 (its scales), lie. */
static inline uint32_t ht_neurons_group(const ht_neurons *g, uint32_t i)
{
    return g->order ? g->order[i] : i;
}
static inline uint32_t ht_neurons_place(const ht_neurons *g, uint32_t j)
{
    return g->order ? g->order[j / 32] * 32 + j % 32 : j;
}

/* False: the type has no neuron-major form, or n_ff is no multiple of its block. */
bool ht_neurons_shape(ht_neurons *g, ht_type type, uint32_t n_ff, uint32_t d_model);

/* That of a part as it is leased: p->host is the base. False where the part contradicts itself; the order is believed:
 * who reads it from a file checks it. */
bool ht_neurons_of(ht_neurons *g, const ht_part *p);
/* Bytes from a part's host to its end, whatever its layout; the type is known. */
size_t ht_part_extent(const ht_part *p);
/* Neurons [first, first + n) of g as a form of their own over the same base; first: a multiple of 32 and of the block. */
ht_neurons ht_neurons_range(const ht_neurons *g, uint32_t first, uint32_t n);

/* Outputs [first, first + n) of the file's rows (those of the whole expert, `row_stride` bytes apart) into `to` (64-byte
 * aligned; of a form in memory g->bytes). first: a multiple of HT_NEURONS_TILE; n too, but at the end. False where a scale or a float
 * weight is no finite number: leaving out a neuron that is zero would change the result then. */
bool ht_neurons_from_rows(const ht_neurons *g, const void *rows, size_t row_stride, uint32_t first, uint32_t n,
                          void *to);
/* Its inverse: the very bytes; `rows` is where the row of output `first` goes. */
void ht_neurons_to_rows(const ht_neurons *g, const void *from, uint32_t first, uint32_t n, void *rows,
                        size_t row_stride);

#endif
