/* SPDX-License-Identifier: MIT
 *
 * The plan solver: the fewest predicted seconds per token (engine/base/plan.h says of what) under two budgets.
 *
 * Two prices per byte, of VRAM and of RAM, split the problem by layers: of each layer the best share of VRAM and RAM at
 * these prices is found by prefix sums over its pieces, those first that save most time per byte; a walk over the layers
 * joins them, for the residual stream lies on one side or the other. The prices are bisected until the budgets hold, and
 * the result is repaired and improved by moves (one piece, two pieces that change places, a trunk, all pieces of a layer)
 * until none is left that helps. Value per byte as a greedy rule and dropping layers with too few neurons on the GPU to
 * pay for their synchronisation are PowerInfer's (arXiv:2312.12456, section 6.3); the prices are Everett's (Generalized
 * Lagrange multiplier method, Operations Research 11, 1963).
 *
 * A pure function: the same problem gives the same plan on every machine, however busy. Threads: any. */
#ifndef HT_PLAN_H
#define HT_PLAN_H

#include "engine/base/plan.h"
#include "engine/base/status.h"

/* HT_ENOMEM: `short_bytes` more of RAM are needed (0: the solver itself had no memory); HT_EINVAL: figures that make no sense
 * (not finite, negative, tiers of which none is allowed). *out: ht_plan_deinit. */
ht_status ht_plan_solve(ht_plan *out, const ht_plan_problem *p, ht_error *err);
void ht_plan_deinit(ht_plan *plan);

/* The seconds of a given placement, whatever the budgets; what it takes goes to the other members. */
void ht_plan_price(ht_plan *plan, const ht_plan_problem *p);

#endif
