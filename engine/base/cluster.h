/* SPDX-License-Identifier: MIT
 *
 * The unit of placement, movement and sparse execution: a run of neurons of one feed-forward block.
 *
 * A neuron is one intermediate unit: its gate row, up row and down column. An expert is one feed-forward block of a
 * mixture; a dense block is one expert that is always chosen (expert 0). A cluster is a contiguous run of an expert's
 * neurons in stored order. Plain data; no state, no owner. */
#ifndef HT_BASE_CLUSTER_H
#define HT_BASE_CLUSTER_H

#include <stddef.h>
#include <stdint.h>

/* Partial sums of a down projection are cut every HT_SEGMENT neurons, counted from the expert's first neuron, and
 * joined in that order (numeric contract, docs/architecture.md). A property of the model, never of a plan: that is
 * why moving a cluster to another tier or thread changes no bit. A multiple of 512 = 16 accumulators of 32. */
#define HT_SEGMENT 2048u

typedef struct ht_cluster {
    uint32_t layer, expert;
    uint32_t first, n; /* neurons [first, first + n) of the expert */
} ht_cluster;

typedef enum ht_role { HT_ROLE_GATE, HT_ROLE_UP, HT_ROLE_DOWN, HT_N_ROLES } ht_role;

/* How the bytes of a part lie. */
typedef enum ht_layout {
    HT_LAYOUT_ROWS,    /* GGUF's own: n rows of k elements, `stride` bytes apart */
    HT_LAYOUT_NEURONS, /* of a down projection: neuron-major, see neurons.h; n neurons, k outputs, host 64-byte aligned */
    HT_LAYOUT_COLUMNS, /* of a down projection: n neurons, a row of k outputs each, blocks along the outputs */
    HT_LAYOUT_N
} ht_layout;

/* A leased view of one matrix, or of a cluster's share of it. Never assume base + row * stride beyond `n` rows: the
 * next cluster may lie anywhere. For HT_ROLE_DOWN in HT_LAYOUT_ROWS a row is an output of the block and `n`
 * its width; the cluster's neurons are a range of columns, and `host` already points at the first of them. */
typedef struct ht_part {
    uint8_t role;
    uint8_t layout;
    uint32_t type;   /* ht_type */
    uint32_t n;      /* rows */
    uint32_t k;      /* elements per row of this view */
    size_t stride;   /* bytes from row to row */
    const void *host;/* NULL where the part is not in host memory; neuron-major: the scales, or the first row */
    size_t rows_at;  /* neuron-major: bytes from host to the first neuron's row */
    const uint32_t *order; /* of neurons: group i of 32 (rows [32 i, 32 i + 32)) lies where group order[i] would; NULL: in
                              order. Packed files order groups hot first; a neuron's number is that of the model */
    uint64_t device; /* device address, 0 where it is in no device */
} ht_part;

/* Row r of a part that is held as rows. */
static inline const void *ht_part_row(const ht_part *p, uint32_t r)
{
    const uint32_t at = p->order ? p->order[r / 32] * 32 + r % 32 : r;
    return (const uint8_t *)p->host + at * p->stride;
}

#endif
