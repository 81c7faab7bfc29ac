/* SPDX-License-Identifier: MIT
 * Leases, and neuron-major parts; see store.h. Slots filled from the file are in disk.c. */
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
    ht_disk_close(s->disk);
    ht_standins_close(s->standins);
    if (s->memory)
        ht_os_release(s->memory, s->reserved);
    free(s->blocks);
    *s = (ht_store){ 0 };
}

enum {
    POLL_US = 20000,         /* the wish to stop is looked at as often */
    WINDOW_BYTES = 128 << 20 /* of a prompt's experts that are on their way, at most: the disk has enough to do */
};

/* Guesses are judged each so many layers; where they did not pay they rest for longer. A wrong one costs the disk's time, and what it
 * can win is that the disk works while something is computed. Were it at work all the time, and nothing read while computing
 * but for guesses, they would pay as long as the share of time that computes exceeds the share of bytes read in vain; but experts
 * that are needed are read while those at hand are computed, so half of that is asked for. */
enum { JUDGE_STEPS = 256, JUDGE_REST = 8192, JUDGE_LEAST = 16 };
static const double JUDGE_PART = 0.5;

/* What a ticket may pin: the other half is for what is foreseen, and for what is used often. */
static uint64_t most_pinned(const ht_store *s) { return ht_disk_budget(s->disk) / 2; }

static ht_status more(ht_store *s, ht_ticket *t)
{
    uint64_t coming = 0;

    for (uint32_t i = t->from; i < t->to; i++)
        if (ht_disk_presence(s->disk, t->clusters[i].layer, t->clusters[i].expert) == HT_COMING)
            coming += ht_disk_unit_bytes(s->disk, t->clusters[i].layer);
    for (; t->to < t->n; t->to++) {
        const ht_cluster *c = &t->clusters[t->to];
        const uint64_t bytes = ht_disk_unit_bytes(s->disk, c->layer);
        if (t->low && t->low[t->to])
            continue;
        if (!t->few && t->bytes && (t->bytes + bytes > most_pinned(s) || coming > WINDOW_BYTES))
            return HT_OK;
        const ht_status st = ht_disk_pin(s->disk, c->layer, c->expert, !s->in_parts, t->cancel);
        if (st != HT_OK)
            return st == HT_ENOMEM && t->bytes ? HT_OK : st;
        if (ht_disk_presence(s->disk, c->layer, c->expert) == HT_COMING)
            coming += bytes;
        t->bytes += bytes;
    }
    if (t->n)
        ht_disk_forget(s->disk, t->clusters[0].layer);
    return HT_OK;
}

/* Those of a token that are at hand stay: room for the others must not be made of them. Returns which, of the first 64. */
static uint64_t keep(ht_store *s, const ht_ticket *t)
{
    uint64_t kept = 0;

    for (uint32_t i = 0; t->few && i < t->n && i < 64; i++)
        if (ht_disk_presence(s->disk, t->clusters[i].layer, t->clusters[i].expert) != HT_ABSENT) {
            ht_disk_keep(s->disk, t->clusters[i].layer, t->clusters[i].expert, true);
            kept |= 1ull << i;
        }
    return kept;
}

ht_status ht_store_more(ht_store *s, ht_ticket *t)
{
    if (!s->disk) {
        t->to = t->n;
        return HT_OK;
    }
    const uint64_t missed = ht_disk_missed(s->disk), kept = keep(s, t);
    const ht_status st = more(s, t);
    for (uint64_t k = kept; k; k &= k - 1) {
        const ht_cluster *c = &t->clusters[__builtin_ctzll(k)];
        ht_disk_keep(s->disk, c->layer, c->expert, false);
    }
    if (t->few && st == HT_OK) {
        const uint64_t now = ht_disk_missed(s->disk) - missed;
        s->missing[now < HT_N_MISSING ? now : HT_N_MISSING - 1]++;
    }
    return st;
}

void ht_store_used(ht_store *s, const ht_cluster *clusters, const uint32_t *counts, uint32_t n, uint32_t n_tokens)
{
    if (s->disk)
        ht_disk_use(s->disk, clusters, counts, n, n_tokens);
}

void ht_store_remember(ht_store *s, uint32_t layer, const uint32_t *experts, uint32_t n_tokens, uint32_t n_used)
{
    if (s->disk)
        ht_disk_remember(s->disk, layer, experts, n_tokens, n_used);
}

static ht_status check_clusters(const ht_store *s, const ht_cluster *clusters, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const ht_cluster *c = &clusters[i];
        if (c->layer >= s->m->n_layer || c->expert >= s->m->layers[c->layer].ffn.n_expert ||
            c->first > s->m->layers[c->layer].ffn.n_ff || c->n > s->m->layers[c->layer].ffn.n_ff - c->first)
            return HT_EINVAL;
    }
    return HT_OK;
}

ht_status ht_store_want(ht_store *s, const ht_cluster *clusters, uint32_t n, bool batch, const ht_cancel *cancel, ht_ticket *t)
{
    ht_status st = check_clusters(s, clusters, n);

    if (st != HT_OK)
        return st;
    *t = (ht_ticket){ .clusters = clusters, .n = n, .few = !batch, .cancel = cancel };
    st = ht_store_more(s, t);
    if (s->disk)
        ht_disk_fill(s->disk);
    return st;
}

ht_status ht_store_want_some(ht_store *s, const ht_cluster *clusters, const bool *low, uint32_t n, const ht_cancel *cancel,
                             ht_ticket *t)
{
    ht_status st = check_clusters(s, clusters, n);

    if (!s->disk || !low || st != HT_OK)
        return st == HT_OK ? ht_store_want(s, clusters, n, false, cancel, t) : st;
    for (uint32_t i = 0; i < n; i++)
        if (low[i])
            ht_disk_pass_by(s->disk, clusters[i].layer, clusters[i].expert, true);
    *t = (ht_ticket){ .clusters = clusters, .n = n, .few = true, .low = low, .cancel = cancel };
    st = ht_store_more(s, t);
    for (uint32_t i = 0; i < n && st == HT_OK; i++)
        if (low[i])
            ht_disk_read_later(s->disk, clusters[i].layer, clusters[i].expert);
    ht_disk_fill(s->disk);
    return st;
}

bool ht_store_is_part(const ht_store *s, const ht_ticket *t, uint32_t which)
{
    return s->disk && !(t->low && t->low[which]) && ht_disk_is_part(s->disk, t->clusters[which].layer, t->clusters[which].expert);
}

ht_status ht_store_need(ht_store *s, const ht_ticket *t, uint32_t which, const uint32_t *mask)
{
    return ht_disk_need(s->disk, t->clusters[which].layer, t->clusters[which].expert, mask);
}

void ht_store_foresee_next(ht_store *s, uint32_t layer, const uint32_t *experts, uint32_t n)
{
    const ht_model *m = s->m;

    if (!s->disk || s->prefetch == HT_PREFETCH_OFF)
        return;
    for (uint32_t i = 0; experts && i < n; i++)
        ht_disk_foresee(s->disk, layer + 1, experts[i], false, !s->in_parts);
    for (uint32_t k = 1; !experts && k < m->n_layer; k++) {
        const uint32_t il = (layer + k) % m->n_layer;
        const ht_ffn *ff = &m->layers[il].ffn;
        if (ff->router.host && (k > 1 || il == 0)) /* nobody knows what the next token will choose */
            return;
        for (uint32_t e = 0; e < ff->n_expert; e++)
            if (ht_disk_foreseen_bytes(s->disk) > WINDOW_BYTES || !ht_disk_foresee(s->disk, il, e, true, !s->in_parts))
                return;
        if (ff->router.host)
            return;
    }
}

void ht_store_judge_guess(ht_store *s, const uint32_t *guessed, const uint32_t *used, uint32_t n)
{
    s->guessed += n;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++)
            s->guessed_right += guessed[i] == used[j];
}

bool ht_store_guesses(ht_store *s)
{
    ht_store_judge *j = &s->judge;

    if (!s->disk || s->prefetch == HT_PREFETCH_OFF)
        return false;
    if (s->prefetch == HT_PREFETCH_ON)
        return true;
    if (j->left-- > 0)
        return j->on;
    const ht_disk_counts now = ht_disk_get_counts(s->disk);
    const uint64_t missed = now.wanted - now.hits - j->missed, foreseen = now.foreseen - j->foreseen;
    const double at = ht_os_now(), took = at - j->at, unit = (double)ht_disk_unit_bytes(s->disk, s->m->n_layer - 1);
    const double computed = took > 0.0 ? 1.0 - (now.wait_seconds - j->waited) / took : 1.0;
    const double vain = (double)foreseen - (double)(now.used - j->used), read = (double)(now.bytes - j->bytes);
    const bool wrong = foreseen >= JUDGE_LEAST && vain * unit > JUDGE_PART * computed * read;
    j->on = missed != 0 && !wrong;
    j->left = wrong ? JUDGE_REST : JUDGE_STEPS;
    j->missed = now.wanted - now.hits;
    j->foreseen = now.foreseen;
    j->used = now.used;
    j->bytes = now.bytes;
    j->waited = now.wait_seconds;
    j->at = at;
    return j->on;
}

void ht_store_poll(ht_store *s)
{
    if (s->disk)
        ht_disk_poll(s->disk, POLL_US);
}

void ht_store_done(ht_store *s, ht_ticket *t, uint32_t n)
{
    for (; n-- > 0 && t->from < t->to; t->from++) {
        const ht_cluster *c = &t->clusters[t->from];
        if (!s->disk || (t->low && t->low[t->from]))
            continue;
        ht_disk_unpin(s->disk, c->layer, c->expert);
        t->bytes -= ht_disk_unit_bytes(s->disk, c->layer);
    }
}

void ht_store_release(ht_store *s, ht_ticket *t)
{
    ht_store_done(s, t, t->to - t->from);
    *t = (ht_ticket){ 0 };
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

/* The parts of whole experts, wherever they are. */
static ht_status whole_parts(ht_store *s, const ht_cluster *c, bool low, ht_part out[HT_N_ROLES], ht_error *err)
{
    if (low)
        return ht_standins_parts(s->standins, c->layer, c->expert, out) ? HT_OK : HT_EINVAL;
    if (s->disk)
        return ht_disk_parts(s->disk, c->layer, c->expert, out, err);
    memcpy(out, s->m->layers[c->layer].ffn.experts[c->expert], HT_N_ROLES * sizeof *out);
    return HT_OK;
}

ht_status ht_store_lease(ht_store *s, ht_ticket *t, uint32_t which, ht_part out[HT_N_ROLES], ht_part *down_t,
                         ht_error *err)
{
    ht_status st;

    if (which >= t->n)
        return HT_EINVAL;
    if (which < t->from || which >= t->to)
        return HT_LATER;
    const ht_cluster *c = &t->clusters[which];
    const bool low = t->low && t->low[which];
    if ((st = whole_parts(s, c, low, out, err)) != HT_OK)
        return st;
    *down_t = (ht_part){ 0 };
    if (!low && c->first == 0 && c->n == s->m->layers[c->layer].ffn.n_ff)
        *down_t = neuron_part(s, ht_store_block(s, c->layer, false), c->expert);
    for (int r = 0; r < HT_N_ROLES; r++) {
        const ht_part whole = out[r];
        if (!whole.host)
            continue;
        if (whole.order) { /* packed: wherever its groups lie */
            if (c->first % 32)
                return HT_EINVAL;
            out[r].n = c->n;
            out[r].order += c->first / 32;
        } else if (r == HT_ROLE_DOWN && whole.layout != HT_LAYOUT_COLUMNS) { /* neurons are columns */
            out[r].k = c->n;
            out[r].host = (const uint8_t *)whole.host + ht_type_row_bytes(ht_type_get(whole.type), c->first);
        } else {
            out[r].n = c->n;
            out[r].host = (const uint8_t *)whole.host + (size_t)c->first * whole.stride;
        }
    }
    return HT_OK;
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
