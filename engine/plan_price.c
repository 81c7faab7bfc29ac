/* SPDX-License-Identifier: MIT
 * What a placement takes: seconds and bytes. See plan.h. */
#include <stdlib.h>
#include <string.h>

#include "engine/plan_impl.h"

/* So little that it decides between equals only: of two placements as fast the one with less work is better. */
static const double all_work = 1e-6;

double ht_plan_layer_seconds(const ht_plan_problem *p, uint32_t layer, bool gpu, const ht_plan_sums *s)
{
    const ht_plan_layer *l = &p->layers[layer];
    const bool split = gpu ? s->n_gpu < l->n_pieces : s->n_gpu > 0;
    double longest = s->cpu > s->gpu ? s->cpu : s->gpu;
    longest = s->disk > longest ? s->disk : longest;
    return (gpu ? l->trunk.gpu_seconds : l->trunk.cpu_seconds) + longest + (split ? p->join_seconds : 0.0) +
           all_work * (s->cpu + s->gpu + s->disk);
}

void ht_plan_recount(ht_plan_state *s)
{
    const ht_plan_problem *p = s->p;
    bool at = false;

    s->seconds = p->fixed_seconds;
    s->vram = s->ram_trunks = s->ram_pieces = 0;
    s->in_vram = s->on_disk = 0;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        const ht_plan_layer *layer = &p->layers[l];
        const uint8_t *tier = s->tier + s->first[l];
        const bool gpu = s->trunk[l] == HT_TIER_VRAM;
        ht_plan_sums sums = { 0 };
        for (uint32_t i = 0; i < layer->n_pieces; i++) {
            const ht_plan_piece *x = &layer->pieces[i];
            switch (tier[i]) {
            case HT_TIER_VRAM:
                sums.gpu += x->gpu_seconds;
                sums.n_gpu++;
                s->vram += x->bytes;
                break;
            case HT_TIER_RAM:
                sums.cpu += x->cpu_seconds;
                s->ram_pieces += x->bytes;
                break;
            default:
                sums.cpu += x->cpu_seconds;
                sums.disk += x->disk_seconds;
                s->on_disk++;
            }
        }
        s->in_vram += sums.n_gpu + gpu;
        if (gpu) {
            s->vram += layer->trunk.bytes;
            s->ram_trunks += layer->mirror_bytes;
        } else {
            s->ram_trunks += layer->trunk.bytes;
        }
        s->seconds += ht_plan_layer_seconds(p, l, gpu, &sums) + (gpu != at ? p->hop_seconds : 0.0);
        at = gpu;
        if (s->sums)
            s->sums[l] = sums;
    }
    s->seconds += at ? p->hop_seconds : 0.0;
}

uint64_t ht_plan_vram(const ht_plan_state *s) { return s->in_vram ? s->p->vram_fixed + s->vram : 0; }

uint64_t ht_plan_ram(const ht_plan_state *s)
{
    const uint64_t slots = s->on_disk && s->ram_pieces < s->p->ram_slots ? s->p->ram_slots : s->ram_pieces;
    return s->p->ram_fixed + s->ram_trunks + slots;
}

void ht_plan_copy(ht_plan_state *to, const ht_plan_state *from)
{
    const uint32_t n = from->p->n_layers;
    uint8_t *trunk = to->trunk, *tier = to->tier;
    ht_plan_sums *sums = to->sums;

    memcpy(trunk, from->trunk, n);
    memcpy(tier, from->tier, from->first[n]);
    memcpy(sums, from->sums, n * sizeof *sums);
    *to = *from;
    to->trunk = trunk;
    to->tier = tier;
    to->sums = sums;
}

void ht_plan_price(ht_plan *plan, const ht_plan_problem *p)
{
    ht_plan_state s = { .p = p, .first = plan->first, .trunk = plan->trunk, .tier = plan->pieces };

    ht_plan_recount(&s);
    plan->seconds = s.seconds;
    plan->ram_bytes = ht_plan_ram(&s);
    plan->vram_bytes = ht_plan_vram(&s);
    plan->disk_bytes = 0;
    for (uint32_t l = 0; l < p->n_layers; l++)
        for (uint32_t i = 0; i < p->layers[l].n_pieces; i++)
            if (plan->pieces[plan->first[l] + i] == HT_TIER_DISK)
                plan->disk_bytes += p->layers[l].pieces[i].bytes;
}

void ht_plan_deinit(ht_plan *plan)
{
    free(plan->pieces);
    free(plan->trunk);
    free(plan->first);
    *plan = (ht_plan){ 0 };
}
