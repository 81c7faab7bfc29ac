/* SPDX-License-Identifier: MIT
 *
 * The feed-forward operation on the CPU, dense or mixture: here an active neuron is computed.
 *
 * Phases: gather the tokens of each expert side by side (prompts of mixtures only); gate, up and activation by
 * blocks of neurons; a norm over the whole hidden row where the model has one; the down projection by blocks of
 * outputs. A thread owns whole outputs in the last phase and walks the experts in the order given and their segments
 * in order, so the sum never depends on threads. With a single token the experts' outputs are computed one expert after
 * the other, so that each thread reads its weights in one stretch, and added up in that order at the end; or only one of
 * the two is done (ht_ffn_stage). */
#include "cpu/ops_ffn.h"
#include "cpu/exec.h"

#include <math.h>
#include <string.h>

enum { DOWN_ROWS = 32, PROMPT_ROWS = 64 /* of a prompt's chunk: what arranging the tokens costs is shared by them */ };

size_t ht_cpu_ops_scratch_bytes(uint32_t max_head)
{
    size_t ffn = 2 * CPU_TILE * sizeof(float), attend = ht_cpu_attend_scratch_bytes(max_head);
    return ffn > attend ? ffn : attend; /* recurrent state takes less than attention */
}

static void copy_token(const ht_act *from, uint32_t i, const ht_act *to, uint32_t j, uint32_t k)
{
    memcpy(to->f + (size_t)j * to->stride, from->f + (size_t)i * from->stride, k * sizeof(float));
    if (from->q8.stride) {
        const ht_q8 *a = &from->q8, *b = &to->q8;
        size_t x = (size_t)i * a->stride, y = (size_t)j * b->stride;
        memcpy(b->q + y, a->q + x, k);
        memcpy(b->d + y / 32, a->d + x / 32, k / 32 * sizeof(float));
        memcpy(b->s + y / 16, a->s + x / 16, k / 16 * sizeof(int16_t));
    }
}

static void gather_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_ffn_item *it = &f->items[chunk];

    (void)thread;
    for (uint32_t i = 0; it->tokens && i < it->n_tokens; i++)
        copy_token(&f->x, it->tokens[i], &f->gathered, it->slot + i, f->d_model);
}

void ht_cpu_add_bias(float *y, size_t ld, const float *bias, uint32_t n_tok, uint32_t n)
{
    for (uint32_t t = 0; bias && t < n_tok; t++)
        for (uint32_t i = 0; i < n; i++)
            y[t * ld + i] += bias[i];
}

static void product_and_bias(const cpu_op *op, const ht_ffn_item *it, ht_role role, uint32_t r0, uint32_t n,
                             uint32_t x0, uint32_t nt, const ht_act *x, float *y, uint32_t ld, uint32_t thread)
{
    ht_cpu_product(op->x, &it->part[role], r0, n, 0, op->op.ffn.d_model, x, x0, nt, y, ld, cpu_scratch(op->x, thread));
    ht_cpu_add_bias(y, ld, it->bias[role] ? it->bias[role] + r0 : NULL, nt, n);
}

/* h = 0 where |act(g)| < least; how many are not below it. */
static uint32_t cut_by_gate(const ht_op_ffn *f, const ht_vec_kernels *v, float least, const float *g, uint32_t n, float *h)
{
    enum { PIECE = 256 };
    float a[PIECE];
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i += PIECE) {
        const uint32_t now = n - i < PIECE ? n - i : PIECE;
        v->glu(f->act, f->act_param, NULL, g + i, now, a);
        for (uint32_t j = 0; j < now; j++) {
            const bool out = fabsf(a[j]) < least;
            h[i + j] = out ? 0.0f : h[i + j];
            kept += !out;
        }
    }
    return kept;
}

cpu_active ht_cpu_activate(const cpu_op *op, const ht_ffn_item *it, uint32_t t, uint32_t r0, uint32_t n, const float *g,
                           const float *u)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    const uint32_t slot = it->slot + t;
    float *h = f->h.f + (size_t)slot * f->h.stride + r0;
    const uint32_t all = v->glu(f->act, f->act_param, g, u, n, h);
    cpu_active c = { .active = all, .unmasked = all, .named = n };

    if (f->mask) {
        const uint32_t *mask = f->mask + (size_t)slot * f->mask_stride;
        c.active = 0;
        for (uint32_t i = 0; i < n; i++) {
            h[i] = mask[(r0 + i) / 32] >> (r0 + i) % 32 & 1 ? h[i] : 0.0f;
            c.active += h[i] != 0.0f;
        }
    }
    if (g && it->gate_least > 0.0f)
        c.named = cut_by_gate(f, v, it->gate_least, g, n, h);
    if (it->gate_least > 0.0f || it->h_least > 0.0f) {
        c.active = 0;
        for (uint32_t i = 0; i < n; i++) {
            h[i] = fabsf(h[i]) < it->h_least ? 0.0f : h[i];
            c.active += h[i] != 0.0f;
        }
    }
    if (f->h.q8.stride && !f->h_norm) {
        size_t at = (size_t)slot * f->h.q8.stride + r0;
        v->quantise_q8(h, n, f->h.q8.q + at, f->h.q8.d + at / 32, f->h.q8.s + at / 16);
    }
    return c;
}

uint32_t ht_cpu_list_least(const cpu_op *op, float least, const float *g, uint32_t r0, uint32_t n_g, uint32_t *list,
                           uint32_t n, float *tmp)
{
    const ht_op_ffn *f = &op->op.ffn;
    uint32_t k = 0;

    op->x->kernels.vec.glu(f->act, f->act_param, NULL, g, n_g, tmp);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t j = list[i];
        list[k] = j;
        k += !(fabsf(tmp[j - r0]) < least);
    }
    return k;
}

void ht_cpu_count_active(const ht_op_ffn *f, uint64_t active, uint64_t n)
{
    if (!f->n_active)
        return;
    atomic_fetch_add_explicit(f->n_active, active, memory_order_relaxed);
    atomic_fetch_add_explicit(f->n_neurons, n, memory_order_relaxed);
}

void ht_cpu_count_rows(const ht_op_ffn *f, const ht_part *w, uint64_t n)
{
    if (f->n_bytes && w->host)
        atomic_fetch_add_explicit(f->n_bytes, n * ht_type_row_bytes(ht_type_get(w->type), w->k), memory_order_relaxed);
}

/* The neurons of chunks [first, first + n_chunks), all of one expert, for a single token. */
static void token_neurons(const cpu_op *op, uint32_t first, uint32_t n_chunks, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    uint32_t grain = op->grain[1], per_item = (f->n_ff + grain - 1) / grain;
    const ht_ffn_item *it = &f->items[first / per_item];
    uint32_t r0 = first % per_item * grain, n = n_chunks * grain;
    bool gate = it->part[HT_ROLE_GATE].host != NULL;
    float *g = cpu_tile(op, thread, 0), *u = cpu_tile(op, thread, 1);

    n = n < f->n_ff - r0 ? n : f->n_ff - r0;
    if (gate)
        product_and_bias(op, it, HT_ROLE_GATE, r0, n, 0, 1, &f->x, g, n, thread);
    product_and_bias(op, it, HT_ROLE_UP, r0, n, 0, 1, &f->x, u, n, thread);
    if (!ht_stream_commit(op->x->stream, thread))
        return;
    ht_cpu_count_active(f, ht_cpu_activate(op, it, 0, r0, n, gate ? g : NULL, u).active, n);
    ht_cpu_count_rows(f, &it->part[HT_ROLE_GATE], n);
    ht_cpu_count_rows(f, &it->part[HT_ROLE_UP], n);
}

/* Bits of neurons [r0, r0 + n) in the mask of a slot; r0 is a multiple of 32, bits behind the last neuron are 0. */
static uint32_t masked(const ht_op_ffn *f, uint32_t slot, uint32_t r0, uint32_t n)
{
    const uint32_t *mask = f->mask + (size_t)slot * f->mask_stride;
    uint32_t sum = 0;

    for (uint32_t i = r0 / 32; i < (r0 + n + 31) / 32; i++)
        sum += (uint32_t)__builtin_popcount(mask[i]);
    return sum;
}

static void count_mask(ht_mask_counts *c, uint64_t neurons, uint64_t active, uint64_t predicted, uint64_t hit)
{
    atomic_fetch_add_explicit(&c->neurons, neurons, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->active, active, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->predicted, predicted, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->hit, hit, memory_order_relaxed);
}

/* Neurons [r0, r0 + n) of one expert for all its tokens: h = act(gate x) * (up x), and its 8-bit form. */
static void neurons_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    uint32_t grain = op->grain[1], per_item = (f->n_ff + grain - 1) / grain;
    const ht_ffn_item *it = &f->items[chunk / per_item % f->n_items];
    uint32_t r0 = chunk % per_item * grain, n = f->n_ff - r0 < grain ? f->n_ff - r0 : grain;
    uint32_t first = chunk / per_item / f->n_items * op->tokens[1];
    uint32_t end = it->n_tokens < first + op->tokens[1] ? it->n_tokens : first + op->tokens[1];
    bool gate = it->part[HT_ROLE_GATE].host != NULL;
    const ht_act *x = it->tokens ? &f->gathered : &f->x;
    uint32_t x0 = it->tokens ? it->slot : 0, step = CPU_TILE / grain;
    float *g = cpu_tile(op, thread, 0), *u = cpu_tile(op, thread, 1);
    uint64_t active = 0, unmasked = 0, predicted = 0;
    const bool cut = it->gate_least > 0.0f || it->h_least > 0.0f;

    for (uint32_t t0 = first; t0 < end; t0 += step) {
        uint32_t nt = end - t0 < step ? end - t0 : step;
        if (gate)
            product_and_bias(op, it, HT_ROLE_GATE, r0, n, x0 + t0, nt, x, g, grain, thread);
        product_and_bias(op, it, HT_ROLE_UP, r0, n, x0 + t0, nt, x, u, grain, thread);
        for (uint32_t t = 0; t < nt; t++) {
            const cpu_active c = ht_cpu_activate(op, it, t0 + t, r0, n, gate ? g + (size_t)t * grain : NULL,
                                                 u + (size_t)t * grain);
            active += c.active;
            unmasked += c.unmasked;
            predicted += !f->counts ? 0 : f->mask ? masked(f, it->slot + t0 + t, r0, n) : cut ? c.named : 0;
        }
    }
    if (end <= first)
        return;
    ht_cpu_count_active(f, active, (uint64_t)n * (end - first));
    if (f->counts)
        count_mask(f->counts, (uint64_t)n * (end - first), unmasked, predicted, f->mask || cut ? active : 0);
}

void ht_cpu_h_norm(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const uint32_t slot = op->op.n_tok == 1 ? f->items[chunk].slot : chunk;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    float *h = f->h.f + (size_t)slot * f->h.stride;

    (void)thread;
    v->norm(HT_NORM_RMS, h, f->n_ff, f->h_norm_eps, f->h_norm, NULL, h);
    if (f->h.q8.stride) {
        size_t at = (size_t)slot * f->h.q8.stride;
        v->quantise_q8(h, f->n_ff, f->h.q8.q + at, f->h.q8.d + at / 32, f->h.q8.s + at / 16);
    }
}

/* Products of rows [r0, r0 + n) of an item's down projection with segment [c, c + k) of h of nt tokens from slot on. Where
 * it is held neuron-major only, the rows are put together in the thread's scratch; r0 begins a tile then. */
static void down_product(const cpu_op *op, const ht_ffn_item *it, uint32_t r0, uint32_t n, uint32_t c, uint32_t k,
                         uint32_t slot, uint32_t nt, float *y, uint32_t ld, uint32_t thread)
{
    const ht_part *w = &it->part[HT_ROLE_DOWN];
    ht_act h = op->op.ffn.h;
    ht_neurons g;

    if (w->layout == HT_LAYOUT_ROWS) {
        ht_cpu_product(op->x, w, r0, n, c, k, &h, slot, nt, y, ld, cpu_scratch(op->x, thread));
        return;
    }
    ht_part rows = { .role = HT_ROLE_DOWN, .type = w->type, .n = n, .k = k };
    uint8_t *to = (uint8_t *)cpu_scratch(op->x, thread) + op->x->unpack_at;
    rows.stride = ht_type_row_bytes(ht_type_get(w->type), k);
    rows.host = to;
    ht_neurons_of(&g, w);
    g = ht_neurons_range(&g, c, k);
    ht_neurons_to_rows(&g, w->host, r0, n, to, rows.stride);
    h.f += c;
    if (h.q8.stride) {
        h.q8.q += c;
        h.q8.d += c / 32;
        h.q8.s += c / 16;
    }
    ht_cpu_product(op->x, &rows, 0, n, 0, k, &h, slot, nt, y, ld, cpu_scratch(op->x, thread));
}

/* Whether every item is as the first, and there is room for a segment of a tile. */
static bool can_unpack(const cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    const uint32_t k = f->n_ff < HT_SEGMENT ? f->n_ff : HT_SEGMENT;
    ht_neurons g;

    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_part *p = &f->items[i].part[HT_ROLE_DOWN];
        if ((p->layout == HT_LAYOUT_NEURONS) != ht_cpu_packed(f))
            return false;
        if (ht_cpu_packed(f) &&
            (p->n != f->n_ff || p->k != f->d_model || !ht_neurons_of(&g, p) ||
             HT_NEURONS_TILE * ht_type_row_bytes(ht_type_get(p->type), k) > op->x->unpack_bytes))
            return false;
    }
    return true;
}

/* Rows [r0, r0 + n) of an expert's down projection of one token: few rows at a time, so that memory is read nearly in
 * order although the segments of a row are summed one by one. */
static void token_down(const cpu_op *op, const ht_ffn_item *it, uint32_t r0, uint32_t n, float *sum, float *part,
                       uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const float *bias = it->bias[HT_ROLE_DOWN];
    const uint32_t at_once = ht_cpu_packed(f) ? HT_NEURONS_TILE : DOWN_ROWS;

    for (uint32_t r = 0; r < n; r += at_once) {
        uint32_t now = n - r < at_once ? n - r : at_once;
        for (uint32_t c = 0; c < f->n_ff; c += HT_SEGMENT) {
            uint32_t k = f->n_ff - c < HT_SEGMENT ? f->n_ff - c : HT_SEGMENT;
            down_product(op, it, r0 + r, now, c, k, it->slot, 1, c ? part : sum + r, now, thread);
            if (c)
                op->x->kernels.vec.add(1.0f, part, 1.0f, sum + r, now);
        }
    }
    ht_cpu_add_bias(sum, n, bias ? bias + r0 : NULL, 1, n);
}

static void token_outputs(const cpu_op *op, uint32_t first, uint32_t n_chunks, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t grain = op->grain[3], per_item = (f->d_model + grain - 1) / grain;
    const ht_ffn_item *it = &f->items[first / per_item];
    uint32_t r0 = first % per_item * grain, n = n_chunks * grain;
    float *sum = cpu_tile(op, thread, 0), *part = cpu_tile(op, thread, 1);

    n = n < f->d_model - r0 ? n : f->d_model - r0;
    token_down(op, it, r0, n, sum, part, thread);
    if (!ht_stream_commit(op->x->stream, thread))
        return;
    ht_cpu_count_rows(f, &it->part[HT_ROLE_DOWN], n);
    if (f->n_items > 1 || f->stage == HT_FFN_OUTPUTS) { /* added up by token_sum */
        memcpy(f->gathered.f + (size_t)it->slot * f->gathered.stride + r0, sum, n * sizeof(float));
    } else {
        memset(f->y + r0, 0, n * sizeof(float));
        v->axpy(it->weights ? it->weights[0] : 1.0f, sum, f->y + r0, n);
    }
}

static void token_sum(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;

    (void)chunk;
    (void)thread;
    memset(f->y, 0, f->d_model * sizeof(float));
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        op->x->kernels.vec.axpy(it->weights ? it->weights[0] : 1.0f,
                                f->gathered.f + (size_t)it->slot * f->gathered.stride, f->y, f->d_model);
    }
}

/* Of an item's tokens those from `token` on. */
static uint32_t tokens_from(const ht_ffn_item *it, uint32_t token)
{
    uint32_t lo = 0, hi = it->n_tokens;

    if (!it->tokens)
        return token < hi ? token : hi;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (it->tokens[mid] < token)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Outputs [r0, r0 + n) of the block for a run of tokens: experts in order, segments in order. */
static void down_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t grain = op->grain[3], per_block = (f->d_model + grain - 1) / grain, r0 = chunk % per_block * grain;
    uint32_t n = f->d_model - r0 < grain ? f->d_model - r0 : grain, begin = chunk / per_block * op->tokens[3];
    uint32_t end = op->op.n_tok < begin + op->tokens[3] ? op->op.n_tok : begin + op->tokens[3];
    float *sum = cpu_tile(op, thread, 0), *part = cpu_tile(op, thread, 1);
    uint32_t step = CPU_TILE / grain;

    for (uint32_t t = begin; t < end && !f->accumulate; t++)
        memset(f->y + (size_t)t * f->y_stride + r0, 0, n * sizeof(float));
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        const float *bias = it->bias[HT_ROLE_DOWN] ? it->bias[HT_ROLE_DOWN] + r0 : NULL;
        uint32_t last = tokens_from(it, end);
        for (uint32_t t0 = tokens_from(it, begin); t0 < last; t0 += step) {
            uint32_t nt = last - t0 < step ? last - t0 : step;
            for (uint32_t c = 0; c < f->n_ff; c += HT_SEGMENT) {
                uint32_t k = f->n_ff - c < HT_SEGMENT ? f->n_ff - c : HT_SEGMENT;
                down_product(op, it, r0, n, c, k, it->slot + t0, nt, c ? part : sum, grain, thread);
                for (uint32_t t = 0; c && t < nt; t++)
                    v->add(1.0f, part + (size_t)t * grain, 1.0f, sum + (size_t)t * grain, n);
            }
            ht_cpu_add_bias(sum, grain, bias, nt, n);
            for (uint32_t t = 0; t < nt; t++) {
                uint32_t tok = it->tokens ? it->tokens[t0 + t] : t0 + t;
                v->axpy(it->weights ? it->weights[t0 + t] : 1.0f, sum + (size_t)t * grain,
                        f->y + (size_t)tok * f->y_stride + r0, n);
            }
        }
    }
}

void ht_cpu_add_phase(cpu_op *op, cpu_phase_fn *fn, uint32_t n_chunks)
{
    op->phase[op->n_phases] = fn;
    op->n_chunks[op->n_phases++] = n_chunks;
}

void ht_cpu_add_token_phase(cpu_op *op, cpu_range_fn *fn, uint32_t rows, uint32_t grain, uint32_t most)
{
    uint32_t p = op->n_phases++, per_item = (rows + grain - 1) / grain;

    op->range[p] = fn;
    op->within[p] = per_item;
    op->n_chunks[p] = op->op.ffn.n_items * per_item;
    op->most[p] = most;
    op->contested[p] = true;
}

void ht_cpu_plan_token_down(cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    uint32_t most;

    if (ht_cpu_by_columns(f)) {
        ht_cpu_plan_columns_token(op);
        return;
    }
    op->grain[3] = ht_cpu_token_rows(f->items[0].part[HT_ROLE_DOWN].stride, &most);
    if (ht_cpu_packed(f)) {
        op->grain[3] = HT_NEURONS_TILE;
        most = 1;
    }
    ht_cpu_add_token_phase(op, token_outputs, f->d_model, op->grain[3], most);
    if (f->n_items > 1 && f->stage == HT_FFN_ALL)
        ht_cpu_add_phase(op, token_sum, 1);
}

static void plan_token(cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_ffn_item *it = &f->items[0];
    uint32_t most, rows = ht_cpu_token_rows(2 * it->part[HT_ROLE_UP].stride, &most);

    /* A chunk's hidden units become whole 8-bit blocks. */
    op->grain[1] = 32;
    ht_cpu_add_token_phase(op, token_neurons, f->n_ff, 32, most * rows / 32 ? most * rows / 32 : 1);
    if (f->h_norm)
        ht_cpu_add_phase(op, ht_cpu_h_norm, f->n_items);
    ht_cpu_plan_token_down(op);
}

static uint32_t blocks(const cpu_op *op, uint32_t tokens)
{
    return (op->op.n_tok + tokens - 1) / tokens;
}

/* Rows per chunk of a prompt: whole 8-bit blocks, at least eight chunks per thread where there are so many. */
static uint32_t prompt_rows(const cpu_op *op, uint32_t rows)
{
    uint32_t fair = rows / (8 * op->x->threads) / 32 * 32;
    return fair < 32 ? 32 : fair < PROMPT_ROWS ? fair : PROMPT_ROWS;
}

bool ht_cpu_plan_ffn(cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    uint32_t slots = 0;
    bool gather = false;

    if (f->n_items == 0 || f->n_ff == 0 || f->n_ff > op->x->max_k || f->d_model > op->x->max_k)
        return false;
    if (f->stage != HT_FFN_ALL && (op->op.n_tok != 1 || !f->gathered.f))
        return false;
    op->n_phases = 0;
    if (f->stage == HT_FFN_SUM) {
        ht_cpu_add_phase(op, token_sum, 1);
        return true;
    }
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        if (!it->part[HT_ROLE_UP].host || !it->part[HT_ROLE_DOWN].host || it->n_tokens == 0)
            return false;
        if (it->part[HT_ROLE_DOWN].layout == HT_LAYOUT_COLUMNS &&
            (!ht_cpu_columns_fit(f) || (op->op.n_tok == 1 && !f->work)))
            return false;
        if (it->part[HT_ROLE_DOWN].layout == HT_LAYOUT_COLUMNS && (f->stage != HT_FFN_ALL || f->accumulate))
            return false;
        slots += it->n_tokens;
        gather |= it->tokens != NULL;
    }
    if (!can_unpack(op))
        return false;
    if ((op->op.n_tok > 1 ? gather : f->n_items > 1) && !f->gathered.f)
        return false;
    if (f->mask && f->mask_stride < (f->n_ff + 31) / 32)
        return false;
    if (op->op.n_tok == 1) {
        if (f->sparse || f->mask || ht_cpu_packed(f))
            return ht_cpu_plan_ffn_sparse(op);
        plan_token(op);
        return true;
    }
    if (gather)
        ht_cpu_add_phase(op, gather_chunk, f->n_items);
    op->grain[1] = prompt_rows(op, f->n_ff);
    op->tokens[1] = ht_cpu_prompt_tokens(2 * op->grain[1] / 16 * f->d_model); /* rows of gate and of up */
    ht_cpu_add_phase(op, neurons_chunk,
              blocks(op, op->tokens[1]) * f->n_items * ((f->n_ff + op->grain[1] - 1) / op->grain[1]));
    if (f->h_norm)
        ht_cpu_add_phase(op, ht_cpu_h_norm, slots);
    if (ht_cpu_by_columns(f)) {
        ht_cpu_plan_columns_prompt(op);
        return true;
    }
    op->grain[3] = prompt_rows(op, f->d_model);
    op->tokens[3] = ht_cpu_prompt_tokens(op->grain[3] / 16 * f->n_ff);
    if (ht_cpu_packed(f)) { /* what putting rows together costs is shared by the tokens of a chunk */
        op->grain[3] = HT_NEURONS_TILE;
        op->tokens[3] = CPU_TILE / HT_NEURONS_TILE;
    }
    ht_cpu_add_phase(op, down_chunk, blocks(op, op->tokens[3]) * ((f->d_model + op->grain[3] - 1) / op->grain[3]));
    return true;
}
