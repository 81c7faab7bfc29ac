/* SPDX-License-Identifier: MIT
 *
 * A placement plan as plain data: which tier holds a byte and what computes with it. The first engine knows two
 * tiers (the mapped file in RAM, and disk behind it) and one executor; the words are here so that no code grows
 * around their absence. */
#ifndef HT_BASE_PLAN_H
#define HT_BASE_PLAN_H

#include <stdint.h>

typedef enum ht_tier { HT_TIER_DISK, HT_TIER_RAM, HT_TIER_VRAM } ht_tier;

/* What weights, KV cache and scratch of one model may take together, in bytes; 0: what is free, less a reserve. */
typedef struct ht_budget {
    uint64_t ram_bytes;
    uint64_t vram_bytes;
} ht_budget;

#endif
