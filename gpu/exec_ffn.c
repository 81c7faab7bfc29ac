/* SPDX-License-Identifier: MIT
 *
 * The feed-forward operation on a GPU: experts one after the other, in the order given. Gate rows go to the executor's
 * scratch, up rows to h itself, which the activation turns into the hidden units in place; the down projection adds to y.
 * Where scratch does not hold all tokens of an expert, they are taken in runs.
 *
 * One token: where neurons are to be skipped, the open ones are listed on the device, and the up rows of these alone are
 * read. Down projections held by neurons (neuron-major, or rows of neurons) read only neurons that are not zero. */
#include "gpu/exec.h"

#include "engine/base/neurons.h"

typedef struct ffn {
    gpu_queue *q;
    const ht_op_ffn *f;
    uint32_t n_tok;
    bool single;        /* one token */
    uint64_t gate, list, sums; /* in scratch */
    uint64_t live;      /* counter of neurons that are not 0; 0: nobody counts */
    uint32_t at_once;   /* tokens */
} ffn;

static bool has_gate(const ht_ffn_item *it) { return it->part[HT_ROLE_GATE].device != 0; }

/* The down part that is used: neuron-major or rows of neurons, where the item has such. */
static const ht_part *down_of(const ffn *x, const ht_ffn_item *it)
{
    return x->single && it->down_t.device && x->f->sparse ? &it->down_t : &it->part[HT_ROLE_DOWN];
}

static bool by_neurons(const ht_part *p) { return p->layout != HT_LAYOUT_ROWS; }

/* Whether up rows are gathered by a list. */
static bool listed(const ffn *x, const ht_ffn_item *it)
{
    const ht_op_ffn *f = x->f;
    return x->single && (f->mask || (f->sparse && has_gate(it) && (ht_activation_has_zeros(f->act) || it->gate_least > 0.0f)));
}

/* ---- checks ---- */

static bool part_fits(const ffn *x, const ht_part *p, uint32_t n, uint32_t k)
{
    return gpu_has_part(x->q, p) && p->n == n && p->k == k;
}

/* A down part held by neurons. */
static bool neurons_fit(const ffn *x, const ht_part *p)
{
    const ht_op_ffn *f = x->f;
    ht_neurons g;

    if (p->n != f->n_ff || p->k != f->d_model || p->order || !p->device)
        return false;
    if (p->layout == HT_LAYOUT_COLUMNS) {
        const gpu_type t = gpu_type_of(p->type);
        return t.block && p->k % t.block == 0 && p->stride <= UINT32_MAX && p->stride % t.align == 0 &&
               p->device % t.align == 0 && p->stride >= ht_gpu_row_bytes(p->type, p->k) && !f->h.q8.stride &&
               gpu_has(x->q, ht_gpu_ptr(p->device), p->n, p->stride, ht_gpu_row_bytes(p->type, p->k));
    }
    ht_part at = *p;
    at.host = ht_gpu_ptr(p->device); /* only offsets are taken of it */
    if (!x->single || p->device % 64 || !ht_neurons_of(&g, &at) || g.rows_at > UINT32_MAX || g.stride > UINT32_MAX ||
        g.d_at > UINT32_MAX || g.sc_at > UINT32_MAX || g.d_stride > UINT32_MAX || g.sc_stride > UINT32_MAX)
        return false;
    const bool floats = p->type == HT_F32 || p->type == HT_F16 || p->type == HT_BF16;
    const bool scales = floats || (gpu_has(x->q, ht_gpu_ptr(p->device + g.d_at), f->n_ff / ht_type_get(g.type)->block,
                                           g.d_stride, 2ull * g.width) &&
                                   (!g.sc_stride || gpu_has(x->q, ht_gpu_ptr(p->device + g.sc_at), f->n_ff / 32,
                                                            g.sc_stride, 2ull * g.width)));
    return scales && (floats || f->h.q8.stride) &&
           gpu_has(x->q, ht_gpu_ptr(p->device + g.rows_at), f->n_ff, g.stride, g.row_bytes);
}

static bool item_fits(const ffn *x, const ht_ffn_item *it)
{
    const ht_op_ffn *f = x->f;
    const uint32_t n = x->single ? 1 : it->n_tokens;
    const ht_part *down = down_of(x, it);
    const uint64_t slots = (uint64_t)it->slot + n;

    if (f->stage == HT_FFN_SUM)
        return gpu_has_floats(x->q, it->weights, 1, 0, 1, true) &&
               gpu_has_floats(x->q, f->gathered.f, slots, f->gathered.stride, f->d_model, false);
    if (n == 0 || !part_fits(x, &it->part[HT_ROLE_UP], f->n_ff, f->d_model) ||
        (has_gate(it) && !part_fits(x, &it->part[HT_ROLE_GATE], f->n_ff, f->d_model)) ||
        !(by_neurons(down) ? neurons_fit(x, down) : part_fits(x, down, f->d_model, f->n_ff)) ||
        (by_neurons(down) && (f->stage != HT_FFN_ALL || (!x->single && it->tokens))) ||
        !gpu_has_floats(x->q, it->bias[HT_ROLE_GATE], 1, 0, f->n_ff, true) ||
        !gpu_has_floats(x->q, it->bias[HT_ROLE_UP], 1, 0, f->n_ff, true) ||
        !gpu_has_floats(x->q, it->bias[HT_ROLE_DOWN], 1, 0, f->d_model, true) ||
        !gpu_has_floats(x->q, it->weights, 1, 0, n, true) || gpu_addr(it->tokens) % 4 || n > x->n_tok ||
        (it->tokens && !gpu_has(x->q, it->tokens, n, 4, 4)) || !gpu_has_act(x->q, &f->h, slots, f->n_ff))
        return false;
    return !f->mask || (f->mask_stride >= (f->n_ff + 31ull) / 32 && gpu_addr(f->mask) % 4 == 0 &&
                        gpu_has(x->q, f->mask, slots, f->mask_stride * 4ull, (f->n_ff + 31ull) / 32 * 4));
}

static uint32_t sums_width(const ht_op_ffn *f) { return (f->d_model + 63) / 64 * 64; }

/* Shares the scratch out: the list of open neurons, then for each token of a run partial sums of a down projection by
 * neurons, and gate rows. */
static bool share_scratch(ffn *x)
{
    const ht_op_ffn *f = x->f;
    const uint64_t row = (f->n_ff * 4ull + 63) / 64 * 64, room = x->q->x->scratch_bytes;
    uint64_t list = 0, sums = 0, gate = 0;

    for (uint32_t i = 0; i < f->n_items; i++) {
        list = listed(x, &f->items[i]) ? row + 64 : list;
        gate = has_gate(&f->items[i]) ? row : gate;
        if (by_neurons(down_of(x, &f->items[i])))
            sums = ht_ffn_segments(f->n_ff) * (uint64_t)sums_width(f) * 4;
    }
    if (list > room)
        return false;
    const uint64_t tokens = sums + gate ? (room - list) / (sums + gate) : x->n_tok;
    x->at_once = tokens < x->n_tok ? (uint32_t)tokens : x->n_tok;
    x->list = x->q->x->scratch;
    x->sums = x->list + list;
    x->gate = x->sums + sums * x->at_once;
    return x->at_once > 0;
}

/* ---- launches ---- */

/* Gate and up rows of n tokens from t on, and their activation: h. */
static void run_neurons(const ffn *x, const ht_ffn_item *it, uint32_t t, uint32_t n)
{
    const ht_op_ffn *f = x->f;
    const bool gather = it->tokens && !x->single, lists = listed(x, it), gate = has_gate(it);
    const uint64_t tokens = gather ? gpu_addr(it->tokens) + 4ull * t : 0;
    const uint32_t slot = it->slot + t;
    float *h = f->h.f + (size_t)slot * f->h.stride;
    gpu_product p = { .x = &f->x, .tokens = tokens, .n_tok = n,
                      .a = { .x_first = gather ? 0 : t, .map_x = gather, .scale = 1.0f } };

    const uint64_t mask = f->mask ? gpu_addr(f->mask + (size_t)slot * f->mask_stride) : 0;

    if (lists && gate && mask) { /* of gates, too, only what the mask names */
        const list_args a = { .n = f->n_ff };
        GPU_RUN(x->q, HT_K_list_open, 1, 1, 1, a, 0, mask, x->list);
        p.rows = x->list;
    }
    if (gate) {
        p.w = &it->part[HT_ROLE_GATE];
        p.bias = it->bias[HT_ROLE_GATE];
        p.y = ht_gpu_ptr(x->gate);
        p.a.y_stride = f->n_ff;
        gpu_run_product(x->q, p);
    }
    if (lists) {
        const bool least = gate && f->sparse && it->gate_least > 0.0f;
        const bool zeros = gate && f->sparse && ht_activation_has_zeros(f->act);
        const list_args a = { .n = f->n_ff, .what = least ? 2 : zeros ? 1 : 0, .act = f->act, .act_param = f->act_param,
                              .shut = least ? it->gate_least : f->act == HT_ACT_FATRELU ? f->act_param : 0.0f };
        GPU_RUN(x->q, HT_K_list_open, 1, 1, 1, a, x->gate, mask, x->list);
        const add_args z = { .k = f->n_ff, .y_stride = f->h.stride };
        GPU_RUN(x->q, HT_K_zero, gpu_blocks(f->n_ff, 256), 1, 1, z, gpu_addr(h)); /* what is not listed */
    }
    p.w = &it->part[HT_ROLE_UP];
    p.bias = it->bias[HT_ROLE_UP];
    p.y = h;
    p.a.y_stride = f->h.stride;
    p.rows = lists ? x->list : 0;
    gpu_run_product(x->q, p);
    const activate_args a = { .n = f->n_ff, .g_stride = f->n_ff, .u_stride = f->h.stride, .h_stride = f->h.stride,
                              .q_stride = f->h.q8.stride, .slot = slot, .act = f->act, .mask_stride = f->mask_stride,
                              .quantise = f->h.q8.stride && !f->h_norm, .act_param = f->act_param,
                              .gate_least = it->gate_least, .h_least = it->h_least };
    GPU_RUN(x->q, HT_K_activate, gpu_blocks(f->n_ff, 256), n, 1, a, gate ? x->gate : 0, gpu_addr(h), gpu_addr(f->h.f),
            gpu_addr(f->h.q8.q), gpu_addr(f->h.q8.d), gpu_addr(f->h.q8.s), gpu_addr(f->mask), x->live);
    if (f->h_norm) {
        const norm_args na = { .x_stride = f->h.stride, .out_stride = f->h.stride, .group = f->n_ff, .kind = HT_NORM_RMS,
                               .q_stride = f->h.q8.stride, .eps = f->h_norm_eps };
        ht_q8 rows = f->h.q8;
        if (rows.stride) { /* then n_ff is a multiple of 32 */
            rows.q += (size_t)slot * rows.stride;
            rows.d += (size_t)slot * rows.stride / 32;
            rows.s += (size_t)slot * rows.stride / 16;
        }
        GPU_RUN(x->q, HT_K_norm, 1, n, 1, na, gpu_addr(h), gpu_addr(f->h_norm), 0, gpu_addr(h),
                gpu_addr(rows.q), gpu_addr(rows.d), gpu_addr(rows.s));
    }
}

static uint32_t columns_kernel(uint32_t type)
{
    switch (type) {
#define HT_GPU_QUANT(name, id, has_min) case id: return HT_K_down_columns_##name;
#define HT_GPU_FLOAT(name, id) case id: return HT_K_down_columns_##name;
#include "gpu/kernels/types.inc"
#undef HT_GPU_QUANT
#undef HT_GPU_FLOAT
    default: return HT_N_GPU_KERNELS;
    }
}

/* A down projection by neurons: partial sums of segments, then their join. */
static void run_down_neurons(const ffn *x, const ht_ffn_item *it, const ht_part *w, uint32_t t, uint32_t n, bool keep)
{
    const ht_op_ffn *f = x->f;
    const uint32_t segments = ht_ffn_segments(f->n_ff), slot = it->slot + t;
    const uint64_t h = gpu_addr(f->h.f + (size_t)slot * f->h.stride), bx = gpu_blocks(f->d_model, 128);
    down_args a = { .type = w->type, .n_ff = f->n_ff, .d_model = f->d_model, .segment = HT_SEGMENT, .segments = segments,
                    .sums_stride = sums_width(f), .h_stride = f->h.stride, .stride = (uint32_t)w->stride };
    const join_args j = { .d_model = f->d_model, .segments = segments, .sums_stride = a.sums_stride,
                          .y_stride = f->y_stride, .keep = keep };

    if (w->layout == HT_LAYOUT_COLUMNS) {
        GPU_RUN(x->q, columns_kernel(w->type), bx, segments, n, a, w->device, h, 0, 0, x->sums);
    } else {
        ht_part at = *w;
        ht_neurons g;
        at.host = ht_gpu_ptr(w->device);
        ht_neurons_of(&g, &at);
        a.width = g.width;
        a.d_at = (uint32_t)g.d_at;
        a.d_stride = (uint32_t)g.d_stride;
        a.sc_at = (uint32_t)g.sc_at;
        a.sc_stride = (uint32_t)g.sc_stride;
        a.rows_at = (uint32_t)g.rows_at;
        a.stride = (uint32_t)g.stride;
        const size_t q8 = (size_t)slot * f->h.q8.stride;
        if (w->type == HT_F32 || w->type == HT_F16 || w->type == HT_BF16)
            GPU_RUN(x->q,
                    w->type == HT_F32 ? HT_K_down_neurons_f32 : w->type == HT_F16 ? HT_K_down_neurons_f16
                                                                                 : HT_K_down_neurons_bf16,
                    bx, segments, 1, a, w->device, h, 0, 0, x->sums);
        else
            GPU_RUN(x->q, HT_K_down_neurons, bx, segments, 1, a, w->device, gpu_addr(f->h.q8.q + q8),
                    gpu_addr(f->h.q8.d + q8 / 32), gpu_addr(f->h.q8.s + q8 / 16), x->sums);
    }
    GPU_RUN(x->q, HT_K_down_join, gpu_blocks(f->d_model, 256), n, 1, j, x->sums, gpu_addr(it->bias[HT_ROLE_DOWN]),
            it->weights ? gpu_addr(it->weights + t) : 0, gpu_addr(f->y + (size_t)t * f->y_stride));
}

/* keep: add to what y holds. */
static void run_down(const ffn *x, const ht_ffn_item *it, uint32_t t, uint32_t n, bool keep)
{
    const ht_op_ffn *f = x->f;
    const bool scatter = it->tokens && !x->single, outputs = f->stage == HT_FFN_OUTPUTS;
    const ht_part *w = down_of(x, it);

    if (by_neurons(w)) {
        run_down_neurons(x, it, w, t, n, keep);
        return;
    }
    gpu_product p = { .w = w, .x = &f->h, .y = f->y, .bias = it->bias[HT_ROLE_DOWN], .n_tok = n,
                      .tokens = scatter ? gpu_addr(it->tokens + t) : 0,
                      .weights = it->weights ? gpu_addr(it->weights + t) : 0,
                      .a = { .x_first = it->slot + t, .y_first = scatter ? 0 : t, .map_y = scatter,
                             .y_stride = f->y_stride, .segment = f->n_ff > HT_SEGMENT ? HT_SEGMENT : 0,
                             .axpy = true, .keep = keep, .scale = 1.0f } };
    if (outputs) {
        p.y = f->gathered.f;
        p.a.y_first = it->slot;
        p.a.y_stride = f->gathered.stride;
        p.a.axpy = false;
    }
    gpu_run_product(x->q, p);
}

bool gpu_op_ffn(gpu_queue *q, const ht_op *op)
{
    const ht_op_ffn *f = &op->ffn;
    ffn x = { .q = q, .f = f, .n_tok = op->n_tok, .single = op->n_tok == 1 };
    bool scattered = false;

    if (!f->items || f->n_items == 0 || f->n_ff == 0 || f->d_model == 0 || f->act > HT_ACT_IDENTITY ||
        (f->stage != HT_FFN_ALL && (!x.single || !f->gathered.f)) || (f->accumulate && x.single) ||
        !gpu_has_floats(q, f->y, op->n_tok, f->y_stride, f->d_model, f->stage == HT_FFN_OUTPUTS) ||
        (f->stage != HT_FFN_SUM &&
         (!gpu_has_act(q, &f->x, op->n_tok, f->d_model) || !gpu_has_floats(q, f->h_norm, 1, 0, f->n_ff, true))))
        return false;
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        if (!item_fits(&x, it) || (f->accumulate && by_neurons(&it->part[HT_ROLE_DOWN])) ||
            (f->stage == HT_FFN_OUTPUTS &&
             !gpu_has_floats(q, f->gathered.f, it->slot + 1ull, f->gathered.stride, f->d_model, false)))
            return false;
        scattered |= !x.single && (it->tokens || it->n_tokens != op->n_tok);
    }
    if (f->stage == HT_FFN_SUM) {
        for (uint32_t i = 0; i < f->n_items; i++) {
            const join_args a = { .d_model = f->d_model, .keep = i > 0 };
            GPU_RUN(q, HT_K_weighted, gpu_blocks(f->d_model, 256), 1, 1, a,
                    gpu_addr(f->gathered.f + (size_t)f->items[i].slot * f->gathered.stride), gpu_addr(f->items[i].weights),
                    gpu_addr(f->y));
        }
        return true;
    }
    if (!share_scratch(&x))
        return false;
    if (f->n_active && f->n_neurons) {
        x.live = gpu_counter(q, f->n_active);
        for (uint32_t i = 0; i < f->n_items && !q->dry; i++)
            atomic_fetch_add_explicit(f->n_neurons, (uint64_t)f->n_ff * (x.single ? 1 : f->items[i].n_tokens),
                                      memory_order_relaxed);
    }
    if (scattered && !f->accumulate) {
        const add_args z = { .k = f->d_model, .y_stride = f->y_stride };
        GPU_RUN(q, HT_K_zero, gpu_blocks(f->d_model, 256), op->n_tok, 1, z, gpu_addr(f->y));
    }
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        const uint32_t n = x.single ? 1 : it->n_tokens;
        for (uint32_t t = 0, now; t < n; t += now) {
            now = n - t < x.at_once ? n - t : x.at_once;
            run_neurons(&x, it, t, now);
            run_down(&x, it, t, now, i > 0 || scattered || f->accumulate);
        }
    }
    return true;
}
