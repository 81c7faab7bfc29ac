/* SPDX-License-Identifier: MIT
 *
 * A placement plan as plain data: which tier holds a byte, what computes with it, and how long a token then takes.
 *
 * A model is a list of layers. Of each the trunk (norms, attention with its KV cache, the router, what else is always
 * needed) runs in one place; the pieces (runs of clusters of a dense block, experts of a mixture) may be split: those in
 * VRAM are computed by the GPU, those in RAM by the CPU at the same time, those on disk by the CPU once they are read.
 * The output projection is a layer without pieces.
 *
 * A token's time is the sum over layers of
 *     trunk + max(pieces on the CPU, pieces on the GPU, reading of pieces on disk)
 *           + join, where the pieces are not all where the trunk is
 *           + hop, where the trunk is not where the last one was (before the first and after the last layer: the host).
 * All seconds are expectations over tokens: a piece's chance of being needed is in its figures. engine/plan.c minimises
 * it, engine/plan_model.c makes the figures from a model, a profile and the hardware. */
#ifndef HT_BASE_PLAN_H
#define HT_BASE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

typedef enum ht_tier { HT_TIER_DISK, HT_TIER_RAM, HT_TIER_VRAM } ht_tier;

/* What weights, KV cache and scratch of one model may take together, in bytes; 0: what is free, less a reserve. */
typedef struct ht_budget {
    uint64_t ram_bytes;
    uint64_t vram_bytes;
} ht_budget;

/* The tiers that a piece may be in: a set of bits, 1 << ht_tier. The user pins by leaving one. */
enum { HT_MAY_DISK = 1, HT_MAY_RAM = 2, HT_MAY_VRAM = 4, HT_MAY_ALL = 7 };

typedef struct ht_plan_piece {
    uint64_t bytes;      /* in whichever tier */
    double cpu_seconds;  /* of a token, in RAM or on disk */
    double gpu_seconds;  /* of a token, in VRAM */
    double disk_seconds; /* of a token, on disk: until it is read */
    uint8_t may;         /* HT_MAY_..., not 0 */
} ht_plan_piece;

typedef struct ht_plan_layer {
    ht_plan_piece trunk;        /* never on disk */
    uint64_t mirror_bytes;      /* RAM that the trunk takes while it is in VRAM: the host's copy of KV */
    const ht_plan_piece *pieces;
    uint32_t n_pieces;
} ht_plan_layer;

typedef struct ht_plan_problem {
    const ht_plan_layer *layers;
    uint32_t n_layers;
    uint64_t ram_bytes, vram_bytes; /* budgets */
    uint64_t ram_fixed;   /* of RAM: tables, scratch, embedding */
    uint64_t vram_fixed;  /* of VRAM, as soon as anything is there: buffers, staging, the device's context */
    uint64_t ram_slots;   /* of RAM beside the trunks, as soon as a piece is on disk: a token's cycle of slots at least */
    double join_seconds, hop_seconds;
    double fixed_seconds; /* of every token: the host's own work */
} ht_plan_problem;

typedef struct ht_plan {
    uint32_t n_layers;
    uint8_t *trunk;       /* [n_layers] ht_tier */
    uint8_t *pieces;      /* ht_tier of each, layer by layer: those of layer l from first[l] on */
    uint32_t *first;      /* [n_layers + 1] */
    double seconds;       /* of a token */
    uint64_t ram_bytes, vram_bytes; /* taken, the fixed ones counted */
    uint64_t disk_bytes;  /* of pieces that stay on disk */
    uint64_t short_bytes; /* where there is no plan: what is missing of RAM */
} ht_plan;

#endif
