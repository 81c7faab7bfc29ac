/* SPDX-License-Identifier: MIT
 *
 * Feed-forward blocks whose weights come from the disk: what is here is computed while the rest arrives, and what the next
 * layer needs is read behind it. Results never depend on what was here: experts' outputs are joined in ascending order.
 *
 * One token: experts at hand in one operation, the shared expert with them, then those that arrived meanwhile, until all
 * are done; a last operation adds the outputs up. Several tokens: experts in ascending order, as many at a time as have
 * arrived and as h has room for; the next ones are read while these are computed. */
#include <string.h>

#include "engine/base/os.h"
#include "engine/layer_impl.h"
#include "engine/miss.h"

/* What the waiting thread does now and then while it computes: reads go on. */
void ht_stream_tick(void *forward)
{
    enum { EVERY_US = 1000 };
    ht_forward *f = forward;
    double now;

    if (!f->store->disk || (now = ht_os_now()) < f->tick_at)
        return;
    f->tick_at = now + EVERY_US * 1e-6;
    ht_disk_poll(f->store->disk, 0);
    if (f->streaming) /* a prompt's experts: what does not go through now is told when it is needed */
        ht_store_more(f->store, &f->ticket);
}

/* Waits for what is queued; HT_ECANCELLED. */
static ht_status finish(ht_forward *f, ht_ops *o, const ht_cancel *cancel, ht_error *err)
{
    ht_event done;
    ht_status st;

    if (o->n == 0)
        return HT_OK;
    if ((st = ht_ops_submit(f, o, &done, err)) != HT_OK)
        return st;
    if ((st = f->exec->ops->wait(f->exec, done, cancel)) != HT_OK)
        return ht_fail(err, st, "cancelled");
    return HT_OK;
}

/* Waits until expert `which` of the ticket is here, and leases it. */
static ht_status await(ht_forward *f, uint32_t which, ht_ffn_item *it, const ht_cancel *cancel, ht_error *err)
{
    ht_status st;

    while ((st = ht_ffn_lease(f, which, it, err)) == HT_LATER) {
        if (cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed))
            return ht_fail(err, HT_ECANCELLED, "cancelled");
        ht_store_poll(f->store);
    }
    return st;
}

static ht_status no_room(ht_error *err, ht_status st, const char *what, uint32_t il)
{
    return st == HT_ECANCELLED ? ht_fail(err, st, "cancelled")
                               : ht_fail(err, st, "there is no room for %s of layer %u", what, il);
}

/* ---- Experts in parts ---- */

void ht_stream_choose_parts(ht_forward *f, uint32_t il, uint32_t n)
{
    f->store->in_parts = f->store->disk && n == 1 && f->sparse && f->open && !f->trace &&
                         ht_disk_parts_pay(f->store->disk, il, f->loads[il].density);
}

/* Queues the gate of an expert whose gate rows are here. */
static ht_status queue_gate(ht_ops *o, ht_forward *f, uint32_t il, uint32_t which, const ht_ffn_item *it, ht_error *err)
{
    const uint32_t n_ff = f->m->layers[il].ffn.n_ff;

    if (o->n >= HT_MAX_OPS / 2) {
        const ht_status st = ht_ops_submit(f, o, NULL, err);
        if (st != HT_OK)
            return st;
    }
    if (ht_ffn_foretold(f, il))
        ht_ffn_foretell(o, f, il, f->clusters[which].expert, it);
    ht_ops_matmul(o, it->part[HT_ROLE_GATE], it->bias[HT_ROLE_GATE], f->xn, f->open + (size_t)which * n_ff, n_ff, false);
    return HT_OK;
}

/* The gate is computed: its open neurons go into the expert's row of the mask, and what is not here of them is asked for. */
static void ask_for_open(ht_forward *f, uint32_t il, uint32_t which, uint32_t slot)
{
    const uint32_t n_ff = f->m->layers[il].ffn.n_ff;
    const float *gate = f->open + (size_t)which * n_ff, shut = ht_activation_shut(f->m->act, f->m->act_param);
    uint32_t *mask = f->mask + (size_t)slot * f->mask_words;
    const bool foretold = ht_ffn_foretold(f, il);

    for (uint32_t w = 0; w < n_ff / 32; w++) { /* of packed experts whole words */
        uint32_t bits = 0;
        for (uint32_t i = 0; i < 32; i++) /* not a number counts as open */
            bits |= (uint32_t)!(gate[32 * w + i] <= shut) << i;
        mask[w] = foretold ? mask[w] & bits : bits;
    }
    f->masked[which] = ht_store_need(f->store, &f->ticket, which, mask) == HT_OK;
}

/* The masks of items of which one at least is masked. */
static void set_masks(ht_forward *f, uint32_t il, ht_op_ffn *op, const ht_ffn_item *items, uint32_t n)
{
    bool any = false;

    for (uint32_t i = 0; f->store->in_parts && i < n; i++)
        any |= f->masked[items[i].slot];
    if (!any)
        return;
    for (uint32_t i = 0; i < n && !ht_ffn_foretold(f, il); i++)
        if (!f->masked[items[i].slot])
            memset(f->mask + (size_t)items[i].slot * f->mask_words, 0xff, op->n_ff / 32 * sizeof *f->mask);
    op->mask = f->mask;
    op->mask_stride = f->mask_words;
}

/* ---- Dense blocks ---- */

ht_status ht_stream_dense(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, float *y, const ht_cancel *cancel,
                          ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    ht_ffn_item *it = &f->items[il];
    ht_status st;

    if ((st = finish(f, o, cancel, err)) != HT_OK)
        return st;
    ht_store_release(f->store, &f->ticket);
    f->clusters[0] = (ht_cluster){ .layer = il, .n = ff->n_ff };
    ht_stream_choose_parts(f, il, n);
    if ((st = ht_store_want(f->store, f->clusters, 1, n > 1, cancel, &f->ticket)) != HT_OK)
        return no_room(err, st, "the feed-forward block", il);
    ht_store_used(f->store, f->clusters, NULL, 1, n);
    ht_store_foresee_next(f->store, il, NULL, 0);
    memset(it, 0, sizeof *it);
    it->n_tokens = n;
    if (f->store->in_parts)
        f->masked[0] = false;
    if ((st = await(f, 0, it, cancel, err)) != HT_OK)
        return st;
    while (f->store->in_parts && ht_store_is_part(f->store, &f->ticket, 0) && !f->masked[0]) {
        if ((st = queue_gate(o, f, il, 0, it, err)) || (st = finish(f, o, cancel, err)))
            return st;
        ask_for_open(f, il, 0, 0);
        if (!f->masked[0])
            ht_store_poll(f->store);
        if ((st = await(f, 0, it, cancel, err)) != HT_OK)
            return st;
    }
    if (ht_ffn_foretold(f, il) && !(f->store->in_parts && f->masked[0]))
        ht_ffn_foretell(o, f, il, 0, it);
    ht_op *op = ht_ops_add(o, HT_OP_FFN);
    op->ffn = ht_ffn_op(f, ff, it, 1, ff->n_ff, y, il, false, n);
    set_masks(f, il, &op->ffn, it, 1);
    return ht_ffn_tell(f, o, il, n, 0, false, cancel, err);
}

/* ---- Mixtures ---- */

/* What came of a token's experts. */
typedef struct taken {
    uint32_t n;     /* items, in the order in which they came */
    uint32_t heads; /* experts whose gates were queued and are to be looked at */
} taken;

enum { HEAD = 0xff }; /* in ht_forward.masked: the gate is queued */

/* Takes the experts that are here and were not taken yet, in their order, to items[t->n]; queues the gates of those that are
 * here in part. */
static ht_status take(ht_ops *o, ht_forward *f, uint32_t il, ht_ffn_item *all, ht_ffn_item *items, taken *t, ht_error *err)
{
    ht_status st;

    for (uint32_t i = 0; i < f->ticket.n; i++) {
        if (all[i].part[HT_ROLE_UP].host)
            continue;
        if ((st = ht_ffn_lease(f, i, &all[i], err)) == HT_LATER)
            continue;
        if (st != HT_OK)
            return st;
        if (f->store->in_parts && !f->masked[i] && ht_store_is_part(f->store, &f->ticket, i)) {
            if ((st = queue_gate(o, f, il, i, &all[i], err)) != HT_OK)
                return st;
            all[i].part[HT_ROLE_UP].host = NULL;
            f->masked[i] = HEAD;
            t->heads++;
        } else if (f->masked && f->masked[i] == HEAD) {
            all[i].part[HT_ROLE_UP].host = NULL;
        } else {
            items[t->n++] = all[i];
        }
    }
    return HT_OK;
}

/* Waits for what is queued, asks for the rest of experts that are here in part, takes what has come. */
static ht_status next_ones(ht_ops *o, ht_forward *f, uint32_t il, ht_ffn_item *all, ht_ffn_item *items, taken *t,
                           const ht_cancel *cancel, ht_error *err)
{
    const uint32_t begun = t->n;
    ht_status st;

    if ((st = finish(f, o, cancel, err)) != HT_OK)
        return st;
    for (uint32_t i = 0; t->heads && i < f->ticket.n; i++)
        if (f->masked[i] == HEAD)
            ask_for_open(f, il, i, all[i].slot);
    t->heads = 0;
    ht_disk_poll(f->store->disk, 0);
    if ((st = take(o, f, il, all, items, t, err)) != HT_OK)
        return st;
    while (t->n == begun && !t->heads) {
        if (cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed))
            return ht_fail(err, HT_ECANCELLED, "cancelled");
        ht_store_poll(f->store);
        if ((st = take(o, f, il, all, items, t, err)) != HT_OK)
            return st;
    }
    return HT_OK;
}

static ht_status token(ht_ops *o, ht_forward *f, uint32_t il, bool *shared, const ht_cancel *cancel, ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    ht_ffn_item *all = f->items + f->m->n_layer, *items = f->items + f->m->n_layer + f->m->max_expert;
    const uint32_t n_items = f->ticket.n;
    uint32_t begun = 0;
    taken t = { 0 };
    ht_status st;

    if (f->masked)
        memset(f->masked, 0, n_items);
    for (uint32_t i = 0; i < n_items && f->trace; i++) /* who listens is told of all at once */
        if ((st = await(f, i, &all[i], cancel, err)) != HT_OK)
            return st;
    for (uint32_t i = 0; i < n_items && f->trace; i++)
        items[t.n++] = all[i];
    if ((st = take(o, f, il, all, items, &t, err)) != HT_OK)
        return st;
    const bool at_once = t.n == n_items;
    if (at_once)
        items = all;
    while (begun < n_items) {
        for (uint32_t i = begun; ht_ffn_foretold(f, il) && i < t.n; i++) {
            const uint32_t which = items[i].slot; /* slots are numbered as the experts are */
            if (f->store->in_parts && f->masked[which])
                continue;
            ht_ffn_foretell(o, f, il, f->clusters[which].expert, &items[i]);
            if (o->n >= HT_MAX_OPS / 2 && (st = ht_ops_submit(f, o, NULL, err)) != HT_OK)
                return st;
        }
        if (t.n > begun) {
            ht_op *op = ht_ops_add(o, HT_OP_FFN);
            op->ffn = ht_ffn_op(f, ff, items + begun, t.n - begun, ff->n_ff, f->y, il, false, 1);
            op->ffn.stage = at_once ? HT_FFN_ALL : HT_FFN_OUTPUTS;
            set_masks(f, il, &op->ffn, items + begun, t.n - begun);
            begun = t.n;
        }
        if (at_once)
            return ht_ffn_tell(f, o, il, 1, 0, false, cancel, err);
        if (!*shared && (st = ht_ffn_shared(o, f, il, 1, cancel, err)) != HT_OK)
            return st;
        *shared = true;
        if (begun < n_items && (st = next_ones(o, f, il, all, items, &t, cancel, err)) != HT_OK) /* while these are computed */
            return st;
    }
    ht_op *op = ht_ops_add(o, HT_OP_FFN);
    op->ffn = ht_ffn_op(f, ff, all, n_items, ff->n_ff, f->y, il, false, 1);
    op->ffn.stage = HT_FFN_SUM;
    return HT_OK;
}

static ht_status prompt(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, const ht_cancel *cancel, ht_error *err)
{
    const ht_ffn *ff = &f->m->layers[il].ffn;
    ht_ffn_item *items = f->items + f->m->n_layer;
    const uint32_t n_items = f->ticket.n;
    ht_status st;

    for (uint32_t i = 0, k; i < n_items; i += k) {
        if ((st = ht_store_more(f->store, &f->ticket)) != HT_OK)
            return no_room(err, st, "an expert", il);
        if ((st = await(f, i, &items[i], cancel, err)) != HT_OK)
            return st;
        const uint32_t base = items[i].slot;
        uint32_t rows = items[i].n_tokens;
        for (k = 1; i + k < n_items && rows + items[i + k].n_tokens <= f->slots; k++) {
            if (ht_ffn_lease(f, i + k, &items[i + k], NULL) != HT_OK)
                break;
            rows += items[i + k].n_tokens;
        }
        for (uint32_t j = i; j < i + k; j++) { /* h begins anew with each group */
            items[j].slot -= base;
            if (!ht_ffn_foretold(f, il))
                continue;
            ht_ffn_foretell(o, f, il, f->clusters[j].expert, &items[j]);
            if (o->n >= HT_MAX_OPS / 2 && (st = ht_ops_submit(f, o, NULL, err)) != HT_OK)
                return st;
        }
        ht_op *op = ht_ops_add(o, HT_OP_FFN);
        op->ffn = ht_ffn_op(f, ff, items + i, k, ff->n_ff, f->y, il, false, n);
        op->ffn.accumulate = i > 0;
        if ((st = ht_ffn_tell(f, o, il, n, i, false, cancel, err)) != HT_OK)
            return st;
        /* Read while this is computed. */
        if ((st = ht_store_more(f->store, &f->ticket)) != HT_OK)
            return no_room(err, st, "an expert", il);
        if (f->ticket.to == n_items && n * ff->n_used >= 2 * ff->n_expert)
            ht_store_foresee_next(f->store, il, NULL, 0);
        f->streaming = true;
        st = finish(f, o, cancel, err);
        f->streaming = false;
        if (st != HT_OK)
            return st;
        ht_store_done(f->store, &f->ticket, k);
        ht_disk_poll(f->store->disk, 0);
    }
    return HT_OK;
}

ht_status ht_stream_mixture(ht_ops *o, ht_forward *f, uint32_t il, uint32_t n, bool *shared, const ht_cancel *cancel,
                            ht_error *err)
{
    if (n > 1)
        return prompt(o, f, il, n, cancel, err);
    if (f->ticket.to < f->ticket.n)
        return ht_fail(err, HT_ENOMEM, "there is no room for the experts that one token uses in layer %u", il);
    if (f->foretold == il && il)
        ht_store_judge_guess(f->store, f->foretold_ids, f->expert_ids, f->m->layers[il].ffn.n_used);
    f->foretold = 0;
    if (f->guessed == il + 1) {
        const uint32_t n_used = f->m->layers[il + 1].ffn.n_used;
        ht_miss_guess(f, il + 1);
        ht_store_foresee_next(f->store, il, f->guess_ids, n_used);
        memcpy(f->foretold_ids, f->guess_ids, n_used * sizeof *f->guess_ids);
        f->foretold = il + 1;
    }
    return token(o, f, il, shared, cancel, err);
}

void ht_stream_guess(ht_ops *o, ht_forward *f, uint32_t il)
{
    const ht_model *m = f->m;
    const ht_ffn *next = il + 1 < m->n_layer ? &m->layers[il + 1].ffn : NULL;

    f->guessed = 0;
    if (!f->store->disk || o->n_tok != 1 || !next || !next->router.host || !ht_store_guesses(f->store))
        return;
    ht_act in = f->guess;
    if (m->arch->router_before_attn) /* routers read the stream as it is: here this layer's input */
        in = ht_act_plain(f->x, m->d_model);
    else
        ht_ops_norm(o, m, m->layers[il + 1].ffn_norm, f->x, m->d_model, in);
    ht_ops_matmul(o, next->router, next->router_b, in, f->guess_router, next->n_expert, false);
    ht_ops_add(o, HT_OP_ROUTE)->route = (ht_op_route){ .logits = f->guess_router,
                                                       .logits_stride = next->n_expert,
                                                       .n_expert = next->n_expert,
                                                       .k = next->n_used,
                                                       .gating = next->gating,
                                                       .scale = 1.0f,
                                                       .select_bias = next->select_bias,
                                                       .ids = f->guess_ids,
                                                       .weights = f->guess_weights };
    f->guessed = il + 1;
}
