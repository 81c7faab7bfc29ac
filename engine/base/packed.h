/* SPDX-License-Identifier: MIT
 *
 * How an expert lies in a packed file (a dense block is one expert): one stretch of bytes, so that it can be read at once.
 *
 *   gate rows      n_ff rows, one after the other: they are scanned as a whole
 *   scales         of the down projection, neuron-major, see neurons.h; float types have none
 *   bundles        for each neuron its up row, then its row of the neuron-major down projection
 *
 *   |<- n_ff * gate row ->|<- planes ->|<----------- n_ff * stride ----------->|
 *   | gate 0 | gate 1 | … | d d d d …  | up 0 . down 0 . | up 1 . down 1 . | … |     .  padding to 64 bytes
 *
 * Without a gate the stretch begins with the scales. Groups of 32 neurons (of 256, where the down projection's blocks are)
 * lie in the order that the file gives, hot ones first, gate rows, scales and bundles alike; a part's `order` says where
 * group i lies, so that neurons keep their numbers. Every piece begins at a multiple of 64 bytes, a stretch of 64 KiB or
 * more at one of 4096: such an expert is one read that bypasses the page cache.
 *
 * Owner: no state. Threads: any. */
#ifndef HT_BASE_PACKED_H
#define HT_BASE_PACKED_H

#include "engine/base/neurons.h"

#define HT_PACKED_NONE UINT32_MAX /* the type of the gate where there is none */
enum { HT_PACKED_PAGE = 4096, HT_PACKED_LARGE = 64 << 10 };

typedef struct ht_packed {
    uint32_t type[HT_N_ROLES];
    uint32_t n_ff, d_model;
    uint32_t group;            /* neurons that keep together in any order: 32 or 256 */
    size_t gate_row, up_row;   /* bytes in use */
    size_t scales_at, bundles_at, down_at; /* down_at: of a bundle */
    size_t stride;             /* of bundles */
    size_t bytes;              /* of an expert, up to the next one */
    ht_neurons down;           /* as ht_neurons_shape gives it */
} ht_packed;

/* False: a type that cannot be packed, or n_ff is no multiple of the group. */
bool ht_packed_shape(ht_packed *p, const uint32_t type[HT_N_ROLES], uint32_t n_ff, uint32_t d_model);
/* What file positions of stretches are multiples of: 64 or HT_PACKED_PAGE. */
uint32_t ht_packed_align(const ht_packed *p);
/* A matrix of an expert whose stretch begins at `expert` (64-byte aligned), with its order [n_ff/32]; host NULL: a gate
 * where there is none. Gate and up: rows; down: neuron-major. */
ht_part ht_packed_part(const ht_packed *p, ht_role role, const void *expert, const uint32_t *order);
/* Whether order [n_ff/32] names every group once and keeps together what has to be. seen: [n_ff/32] scratch. */
bool ht_packed_order_good(const ht_packed *p, const uint32_t *order, uint8_t *seen);

#endif
