/* SPDX-License-Identifier: MIT
 * Experts at hand first, stand-ins, leaving out; see miss.h. */
#include "engine/miss.h"

#include <math.h>
#include <string.h>

#include "engine/base/vmath.h"

/* The score by which a router chooses: raw where its gate does not change their order. */
static float score_of(const ht_ffn *ff, const float *logits, const float *p, uint32_t e)
{
    return ff->select_bias ? p[e] + ff->select_bias[e] : logits[e];
}

/* What the router gives to each expert before the choice, as HT_OP_ROUTE does. */
static void gate(const ht_ffn *ff, const float *logits, float *p)
{
    float top = -INFINITY, sum = 0.0f;

    for (uint32_t e = 0; e < ff->n_expert; e++) {
        p[e] = ff->gating == HT_GATE_SIGMOID ? ht_sigmoidf(logits[e]) : logits[e];
        top = p[e] > top ? p[e] : top;
    }
    if (ff->gating != HT_GATE_SOFTMAX)
        return;
    for (uint32_t e = 0; e < ff->n_expert; e++)
        sum += p[e] = ht_expf(p[e] - top);
    for (uint32_t e = 0; e < ff->n_expert; e++)
        p[e] /= sum;
}

static void weigh(const ht_ffn *ff, const float *p, const uint32_t *ids, float *w)
{
    float top = -INFINITY, sum = 0.0f;

    for (uint32_t i = 0; i < ff->n_used; i++) {
        w[i] = p[ids[i]];
        top = w[i] > top ? w[i] : top;
    }
    for (uint32_t i = 0; i < ff->n_used; i++) {
        if (ff->gating == HT_GATE_SOFTMAX_TOPK)
            w[i] = ht_expf(w[i] - top);
        sum += w[i];
    }
    for (uint32_t i = 0; i < ff->n_used; i++) {
        if (ff->gating == HT_GATE_SOFTMAX_TOPK || ff->renormalise)
            w[i] /= sum;
        w[i] *= ff->weights_scale;
    }
}

/* The n_used best by score + bias * range for those at hand, the best by score alone always among them. ids: the choice without
 * bias, ascending; returns how many were exchanged. */
static uint32_t choose_again(const ht_store *s, uint32_t il, const float *logits, float *p, uint32_t *ids)
{
    const ht_ffn *ff = &s->m->layers[il].ffn;
    float low = INFINITY, high = -INFINITY;
    uint32_t best = 0, n = 0, fresh[HT_MISS_MOST];

    if (ff->n_used > HT_MISS_MOST || ff->n_used >= ff->n_expert)
        return 0;
    gate(ff, logits, p);
    for (uint32_t e = 0; e < ff->n_expert; e++) {
        const float v = score_of(ff, logits, p, e);
        if (!isfinite(v))
            return 0;
        best = v > high ? e : best;
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    fresh[n++] = best;
    const float extra = s->miss.route_bias * (high - low);
    while (n < ff->n_used) {
        uint32_t next = UINT32_MAX, taken = 0;
        float most = 0.0f;
        for (uint32_t e = 0; e < ff->n_expert; e++) {
            if (taken < n && fresh[taken] == e) {
                taken++;
                continue;
            }
            const bool here = ht_disk_presence(s->disk, il, e) != HT_ABSENT; /* what is coming is paid for */
            const float v = score_of(ff, logits, p, e) + (here ? extra : 0.0f);
            if (next == UINT32_MAX || v > most) {
                next = e;
                most = v;
            }
        }
        uint32_t at = n++;
        for (; at > 0 && fresh[at - 1] > next; at--)
            fresh[at] = fresh[at - 1];
        fresh[at] = next;
    }
    uint32_t changed = n;
    for (uint32_t i = 0, j = 0; i < n && j < n;) { /* both ascend */
        changed -= ids[i] == fresh[j];
        if (ids[i] < fresh[j])
            i++;
        else
            j++;
    }
    memcpy(ids, fresh, n * sizeof *ids);
    return changed;
}

void ht_miss_route(ht_forward *f, uint32_t il)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;

    if (!f->store->disk || !(f->store->miss.route_bias > 0.0f))
        return;
    ht_disk_poll(f->store->disk, 0);
    const uint32_t changed = choose_again(f->store, il, f->router, f->miss_scores, f->expert_ids);
    if (changed)
        weigh(ff, f->miss_scores, f->expert_ids, f->expert_weights);
    f->missed.rerouted += changed;
}

void ht_miss_guess(ht_forward *f, uint32_t il)
{
    if (f->store->disk && f->store->miss.route_bias > 0.0f)
        choose_again(f->store, il, f->guess_router, f->miss_scores, f->guess_ids);
}

/* The lightest absent ones go while what is gone stays within the share; the heaviest of all stays. */
static uint32_t leave_out(ht_forward *f, uint32_t il, ht_ffn_item *items, uint32_t n)
{
    float total = 0.0f, gone = 0.0f, heaviest = 0.0f;

    for (uint32_t i = 0; i < n; i++) {
        total += fabsf(items[i].weights[0]);
        heaviest = fabsf(items[i].weights[0]) > heaviest ? fabsf(items[i].weights[0]) : heaviest;
    }
    if (!isfinite(total))
        return n;
    for (;;) {
        uint32_t least = n;
        for (uint32_t i = 0; i < n; i++)
            if (f->miss_low[i] && fabsf(items[i].weights[0]) < heaviest &&
                (least == n || fabsf(items[i].weights[0]) < fabsf(items[least].weights[0])))
                least = i;
        if (least == n || gone + fabsf(items[least].weights[0]) > f->store->miss.skip_share * total)
            break;
        gone += fabsf(items[least].weights[0]);
        ht_disk_pass_by(f->store->disk, il, f->clusters[least].expert, false);
        f->missed.skipped++;
        n--;
        memmove(items + least, items + least + 1, (n - least) * sizeof *items);
        memmove(f->clusters + least, f->clusters + least + 1, (n - least) * sizeof *f->clusters);
        memmove(f->miss_low + least, f->miss_low + least + 1, (n - least) * sizeof *f->miss_low);
    }
    for (uint32_t i = 0; i < n; i++) {
        items[i].slot = i;
        f->miss_low[i] = false;
    }
    f->missed.skipped_share += total > 0.0f ? (double)gone / (double)total : 0.0;
    return n;
}

uint32_t ht_miss_settle(ht_forward *f, uint32_t il, ht_ffn_item *items, uint32_t n)
{
    const ht_store *s = f->store;

    f->missed.mixtures++;
    if (s->miss.on_miss == HT_MISS_WAIT)
        return n;
    ht_disk_poll(s->disk, 0);
    for (uint32_t i = 0; i < n; i++)
        f->miss_low[i] = ht_disk_presence(s->disk, il, f->clusters[i].expert) != HT_HERE;
    if (s->miss.on_miss == HT_MISS_SKIP)
        return leave_out(f, il, items, n);
    ht_part parts[HT_N_ROLES];
    for (uint32_t i = 0; i < n; i++) {
        f->miss_low[i] = f->miss_low[i] && ht_standins_parts(s->standins, il, f->clusters[i].expert, parts);
        f->missed.stood_in += f->miss_low[i];
    }
    return n;
}
