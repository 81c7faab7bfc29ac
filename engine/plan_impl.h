/* SPDX-License-Identifier: MIT
 * Between the files of the plan solver (plan.c, plan_price.c, plan_moves.c). */
#ifndef HT_PLAN_IMPL_H
#define HT_PLAN_IMPL_H

#include "engine/plan.h"

/* What a layer's placement comes to. */
typedef struct ht_plan_sums {
    double cpu, gpu, disk; /* of the pieces */
    uint32_t n_gpu;
} ht_plan_sums;

/* A placement that is being worked on. */
typedef struct ht_plan_state {
    const ht_plan_problem *p;
    const uint32_t *first; /* [n_layers + 1] of the pieces of a layer, in flat order */
    uint8_t *trunk, *tier; /* [n_layers]; [first[n_layers]] */
    ht_plan_sums *sums;    /* [n_layers], or NULL: not wanted */
    double seconds;
    uint64_t vram, ram_trunks, ram_pieces; /* bytes, without the fixed ones */
    uint32_t in_vram, on_disk; /* trunks and pieces */
} ht_plan_state;

double ht_plan_layer_seconds(const ht_plan_problem *p, uint32_t layer, bool gpu, const ht_plan_sums *s);
/* Sums of everything anew from the tiers. */
void ht_plan_recount(ht_plan_state *s);
/* What it takes of each budget. */
uint64_t ht_plan_vram(const ht_plan_state *s);
uint64_t ht_plan_ram(const ht_plan_state *s);
/* Moves of a state that fits until none helps, the state fitting all the time. work: how many placements may be looked at;
 * what is left of it comes back. other: a second state of the same problem, as scratch. order: pieces of each layer, most
 * time saved per byte first. */
void ht_plan_improve(ht_plan_state *s, ht_plan_state *other, const uint32_t *order, int64_t *work);
/* Makes a state fit that does not, at the least price per byte freed. False: it cannot; the state takes as little RAM as may be. */
bool ht_plan_repair(ht_plan_state *s, const uint32_t *order);
void ht_plan_copy(ht_plan_state *to, const ht_plan_state *from);

#endif
