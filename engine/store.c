/* SPDX-License-Identifier: MIT
 * The store over a mapped file; see store.h. */
#include "engine/store.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "engine/base/types.h"

void ht_store_open(ht_store *s, const ht_model *m)
{
    memset(s, 0, sizeof *s);
    s->m = m;
}

void ht_store_close(ht_store *s)
{
    if (s->memory)
        ht_os_release(s->memory, s->reserved);
    free(s->blocks);
    *s = (ht_store){ 0 };
}

ht_status ht_store_want(ht_store *s, const ht_cluster *clusters, uint32_t n, uint32_t deadline_layer, ht_ticket *t)
{
    (void)deadline_layer; /* the pager knows no deadlines */
    for (uint32_t i = 0; i < n; i++) {
        const ht_cluster *c = &clusters[i];
        if (c->layer >= s->m->n_layer || c->expert >= s->m->layers[c->layer].ffn.n_expert ||
            c->first > s->m->layers[c->layer].ffn.n_ff || c->n > s->m->layers[c->layer].ffn.n_ff - c->first)
            return HT_EINVAL;
    }
    *t = (ht_ticket){ clusters, n };
    return HT_OK;
}

ht_neuron_block *ht_store_block(const ht_store *s, uint32_t layer, bool shared)
{
    ht_neuron_block *b = s->blocks ? &s->blocks[2 * layer + shared] : NULL;
    return b && b->n_expert ? b : NULL;
}

bool ht_store_block_ready(const ht_neuron_block *b)
{
    return b && b->expert == b->n_expert && !atomic_load_explicit(&b->refused, memory_order_relaxed);
}

static ht_part unfinished_part(const ht_store *s, const ht_neuron_block *b, uint32_t expert)
{
    return (ht_part){ .role = HT_ROLE_DOWN,
                      .layout = HT_LAYOUT_NEURONS,
                      .type = b->g.type,
                      .n = b->g.n_ff,
                      .k = b->g.d_model,
                      .stride = b->g.stride,
                      .rows_at = b->g.rows_at,
                      .host = s->memory + b->at + expert * b->each };
}

static ht_part neuron_part(const ht_store *s, const ht_neuron_block *b, uint32_t expert)
{
    return ht_store_block_ready(b) ? unfinished_part(s, b, expert) : (ht_part){ 0 };
}

ht_part ht_store_shared_down_t(const ht_store *s, uint32_t layer)
{
    return neuron_part(s, ht_store_block(s, layer, true), 0);
}

ht_status ht_store_lease(ht_store *s, ht_ticket *t, uint32_t which, ht_part out[HT_N_ROLES], ht_part *down_t)
{
    if (which >= t->n)
        return HT_EINVAL;
    const ht_cluster *c = &t->clusters[which];
    const ht_part *whole = s->m->layers[c->layer].ffn.experts[c->expert];
    *down_t = (ht_part){ 0 };
    if (c->first == 0 && c->n == s->m->layers[c->layer].ffn.n_ff)
        *down_t = neuron_part(s, ht_store_block(s, c->layer, false), c->expert);
    for (int r = 0; r < HT_N_ROLES; r++) {
        out[r] = whole[r];
        if (!whole[r].host)
            continue;
        if (whole[r].order) { /* packed: wherever its groups lie */
            if (c->first % 32)
                return HT_EINVAL;
            out[r].n = c->n;
            out[r].order += c->first / 32;
        } else if (r == HT_ROLE_DOWN && whole[r].layout != HT_LAYOUT_COLUMNS) { /* neurons are columns */
            out[r].k = c->n;
            out[r].host = (const uint8_t *)whole[r].host + ht_type_row_bytes(ht_type_get(whole[r].type), c->first);
        } else {
            out[r].n = c->n;
            out[r].host = (const uint8_t *)whole[r].host + (size_t)c->first * whole[r].stride;
        }
    }
    return HT_OK;
}

void ht_store_release(ht_store *s, ht_ticket *t)
{
    (void)s;
    t->n = 0;
}

/* Down projections of layer il, of its shared expert. */
static const ht_part *down_of(const ht_ffn *ff, bool shared, uint32_t expert)
{
    return shared ? &ff->shared[HT_ROLE_DOWN] : &ff->experts[expert][HT_ROLE_DOWN];
}

/* Shape and place of a block; false: its type has no such form. */
static bool plan_block(ht_neuron_block *b, const ht_ffn *ff, bool shared, size_t at)
{
    const ht_part *p = down_of(ff, shared, 0);
    const uint32_t n = shared ? ff->shared_n_ff != 0 : ff->n_expert;

    if (n == 0 || p->layout != HT_LAYOUT_ROWS || !ht_neurons_shape(&b->g, (ht_type)p->type, p->k, p->n))
        return false;
    for (uint32_t e = 1; e < n; e++)
        if (down_of(ff, shared, e)->type != p->type)
            return false;
    b->at = at;
    b->each = (b->g.bytes + 63) & ~(size_t)63;
    b->n_expert = n;
    return true;
}

ht_status ht_store_reserve(ht_store *s, bool f32, uint64_t budget, ht_error *err)
{
    size_t at = 0, page = ht_os_page();

    s->blocks = calloc(2 * (size_t)s->m->n_layer, sizeof *s->blocks);
    if (!s->blocks)
        return ht_fail(err, HT_ENOMEM, "neuron-major parts of %u layers", s->m->n_layer);
    for (uint32_t i = 0; i < 2 * s->m->n_layer; i++) {
        ht_neuron_block *b = &s->blocks[i];
        if (!plan_block(b, &s->m->layers[i / 2].ffn, i % 2, at))
            continue;
        if (f32 && ht_type_get(b->g.type)->quantised) {
            b->n_expert = 0;
            continue;
        }
        if (at + b->n_expert * b->each > budget) {
            b->n_expert = 0;
            break;
        }
        at += b->n_expert * b->each;
    }
    s->planned = at;
    if (at == 0)
        return HT_OK;
    s->reserved = (at + page - 1) / page * page;
    s->memory = ht_os_reserve(s->reserved);
    if (!s->memory)
        return ht_fail(err, HT_ENOMEM, "%zu bytes of address space", s->reserved);
    /* Rows are gathered: with small pages nearly every one would be a walk through the page tables. */
    ht_os_prefer_large(s->memory, s->reserved);
    return HT_OK;
}

void ht_store_trim(ht_store *s, uint64_t bytes)
{
    const size_t page = ht_os_page();

    for (uint32_t i = 2 * s->m->n_layer; s->blocks && i-- > 0 && s->planned > bytes;) {
        ht_neuron_block *b = &s->blocks[i];
        const size_t from = (b->at + page - 1) / page * page, all = b->n_expert * b->each;
        if (all == 0)
            continue;
        if (from < b->at + all) /* what comes after it is given back already */
            ht_os_decommit(s->memory + from, (b->at + all - from + page - 1) / page * page);
        s->planned -= all;
        s->built -= b->expert * b->each;
        b->n_expert = 0;
    }
}

uint64_t ht_store_build(ht_store *s, ht_exec *exec, uint32_t layer, bool shared, uint64_t bytes,
                        const ht_cancel *cancel, ht_status *st)
{
    ht_neuron_block *b = ht_store_block(s, layer, shared);
    ht_event done;

    *st = HT_OK;
    if (!b || b->expert == b->n_expert || atomic_load(&b->refused))
        return 0;
    const uint64_t each = b->g.bytes / b->g.d_model;
    uint64_t outputs = bytes / (each ? each : 1) / HT_NEURONS_TILE * HT_NEURONS_TILE;
    outputs = outputs ? outputs : HT_NEURONS_TILE;
    const uint32_t left = b->g.d_model - b->output, n = outputs < left ? (uint32_t)outputs : left;
    ht_op op = { .kind = HT_OP_TRANSPOSE, .n_tok = 1 };
    op.transpose = (ht_op_transpose){ .from = *down_of(&s->m->layers[layer].ffn, shared, b->expert),
                                      .to = unfinished_part(s, b, b->expert),
                                      .first = b->output,
                                      .n = n,
                                      .refused = &b->refused };
    if ((*st = exec->ops->submit(exec, &op, 1, &done)) != HT_OK || (*st = exec->ops->wait(exec, done, cancel)) != HT_OK)
        return 0;
    b->output += n;
    if (b->output == b->g.d_model) {
        b->output = 0;
        b->expert++;
        s->built += b->each;
    }
    return n * each;
}
