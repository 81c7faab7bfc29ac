/* SPDX-License-Identifier: MIT
 *
 * What the user pins by hand: "LAYERS=TIER" leaves the pieces (and trunks) of these layers one tier.
 *
 *   LAYERS  blk.N, blk.N-M   layers: their trunks and all their pieces
 *           experts          all experts of mixtures
 *           ffn              all dense feed-forward blocks
 *           attention        all trunks: attention with its KV cache, norms, routers, shared experts
 *           output           the output projection
 *           all
 *   TIER    vram, ram, disk  (trunks and the output stay off the disk: of them disk says nothing)
 *
 * Later pins overrule earlier ones. Threads: any. */
#ifndef HT_PLAN_PINS_H
#define HT_PLAN_PINS_H

#include "engine/base/plan.h"
#include "engine/base/status.h"
#include "engine/model.h"

/* layers: [m->n_layer + 1], the output last; their pieces lie in `pieces`. gpu: there is a card. disk: pieces may stay there.
 * EINVAL: a pin that is not understood, names what the model has not, or a tier that is not there. */
ht_status ht_plan_pin(ht_plan_layer *layers, ht_plan_piece *pieces, const ht_model *m, bool gpu, bool disk,
                      const char *const *pins, size_t n_pins, ht_error *err);

#endif
