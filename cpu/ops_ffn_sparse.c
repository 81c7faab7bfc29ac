/* SPDX-License-Identifier: MIT
 *
 * The feed-forward operation of one token on the CPU where neurons are skipped: those whose activation is zero, and
 * those that a mask or a threshold leaves out. Same bits as ops_ffn.c, which computes them all.
 *
 * Neurons: a thread takes a run of some hundred, scans their gate rows (without a gate: their up rows), lists those
 * whose gate is open and gathers their up rows. Where most are open, the up rows are scanned as well: gathering costs
 * more than it saves then. Lists: when all is done, the neurons whose 8-bit h is not zero, by segment. Down: units of
 * one segment and a slice of outputs, from the neuron-major part, into partial sums that the last phase joins in order.
 * Without such a part the down projection is that of ops_ffn.c. Packed files have no other: blocks of which nothing is to
 * be skipped come here too, with lists of all neurons. */
#include "cpu/down.h"
#include "cpu/ops_ffn.h"

#include <math.h>
#include <string.h>

enum {
    RUN = 2048,       /* neurons of a chunk, at most: its lists and results lie in the thread's tiles */
    SLICE_LEAST = 256 /* outputs of a unit of the down projection, where there are many threads */
};

/* ---- neurons ---- */

/* Of a run of n rows those that are read where n_list are wanted. */
static uint32_t rows_read(const ht_part *w, uint32_t n_list, uint32_t n)
{
    return (float)n_list > (float)n * ht_cpu_crossover((ht_type)w->type).gather ? n : n_list;
}

/* Rows of w into y[0..n), rows that are not listed zero. list: numbers of rows of the expert, r0 is y[0]. */
static void listed_rows(const cpu_op *op, const ht_ffn_item *it, ht_role role, uint32_t r0, uint32_t n,
                        const uint32_t *list, uint32_t n_list, float *y, float *tmp)
{
    const ht_part *w = &it->part[role];
    const float *bias = it->bias[role];

    if (n_list && rows_read(w, n_list, n) == n) {
        ht_cpu_rows(op->x, w, NULL, r0, n, &op->op.ffn.x, 0, y);
        ht_cpu_add_bias(y, n, bias ? bias + r0 : NULL, 1, n);
        return;
    }
    memset(y, 0, n * sizeof *y);
    if (n_list == 0)
        return;
    ht_cpu_rows(op->x, w, list, 0, n_list, &op->op.ffn.x, 0, tmp);
    for (uint32_t i = 0; i < n_list; i++)
        y[list[i] - r0] = bias ? tmp[i] + bias[list[i]] : tmp[i];
}

/* Of neurons [r0, r0 + n) those that the mask lets pass, or all. */
static uint32_t list_masked(const ht_op_ffn *f, const ht_ffn_item *it, uint32_t r0, uint32_t n, uint32_t *list)
{
    const uint32_t *mask = f->mask ? f->mask + (size_t)it->slot * f->mask_stride : NULL;
    uint32_t k = 0;

    for (uint32_t i = r0; i < r0 + n; i++) {
        list[k] = i;
        k += !mask || (mask[i / 32] >> i % 32 & 1);
    }
    return k;
}

/* Of a list those whose gate is open, in place. */
static uint32_t list_open(const ht_op_ffn *f, const float *g, uint32_t r0, uint32_t *list, uint32_t n)
{
    const float shut = ht_activation_shut(f->act, f->act_param);
    uint32_t k = 0;

    for (uint32_t i = 0; i < n; i++) { /* not a number counts as open */
        const uint32_t j = list[i];
        list[k] = j;
        k += !(g[j - r0] <= shut);
    }
    return k;
}

/* Chunks [first, first + n_chunks) of 32 neurons, all of one expert. */
static void sparse_neurons(const cpu_op *op, uint32_t first, uint32_t n_chunks, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const uint32_t per_item = (f->n_ff + 31) / 32;
    const ht_ffn_item *it = &f->items[first / per_item];
    const uint32_t r0 = first % per_item * 32, n = n_chunks * 32 < f->n_ff - r0 ? n_chunks * 32 : f->n_ff - r0;
    const bool gate = it->part[HT_ROLE_GATE].host != NULL;
    float *g = cpu_tile(op, thread, 0), *u = g + RUN, *tmp = u + RUN;
    uint32_t *list = (uint32_t *)(void *)(tmp + RUN);
    uint32_t n_list = list_masked(f, it, r0, n, list), gates = 0;

    if (gate) {
        listed_rows(op, it, HT_ROLE_GATE, r0, n, list, n_list, g, tmp);
        gates = rows_read(&it->part[HT_ROLE_GATE], n_list, n);
        if (f->sparse && it->gate_least > 0.0f) /* what is zero lies below it */
            n_list = ht_cpu_list_least(op, it->gate_least, g, r0, n, list, n_list, tmp);
        else if (f->sparse && ht_activation_has_zeros(f->act))
            n_list = list_open(f, g, r0, list, n_list);
    }
    listed_rows(op, it, HT_ROLE_UP, r0, n, list, n_list, u, tmp);
    if (!ht_stream_commit(op->x->stream, thread))
        return;
    ht_cpu_count_active(f, ht_cpu_activate(op, it, 0, r0, n, gate ? g : NULL, u).active, n);
    ht_cpu_count_rows(f, &it->part[HT_ROLE_GATE], gates);
    ht_cpu_count_rows(f, &it->part[HT_ROLE_UP], rows_read(&it->part[HT_ROLE_UP], n_list, n));
}

/* ---- what follows: lists, down, join ---- */

/* An item's share of the work memory. */
typedef struct work {
    uint32_t *list;  /* [n_ff] active neurons */
    uint32_t *begin; /* [segments + 1] of each segment in it */
    float *sums;     /* [segments][width] */
    uint32_t width;
} work;

static work work_of(const ht_op_ffn *f, uint32_t item)
{
    const size_t each = ht_ffn_work_bytes(1, f->n_ff, f->d_model);
    const uint32_t segments = ht_ffn_segments(f->n_ff), width = (f->d_model + 127u) / 128u * 128u;
    uint8_t *p = (uint8_t *)f->work + item * each;
    return (work){ .list = (uint32_t *)(void *)p,
                   .begin = (uint32_t *)(void *)p + f->n_ff,
                   .sums = (float *)(void *)(p + each - (size_t)segments * width * sizeof(float)),
                   .width = width };
}

/* Numbers of elements that are not zero, from `from` to `to`; 8 bytes at a time, most are zero. */
static uint32_t *list_bytes(const int8_t *q, uint32_t from, uint32_t to, uint32_t *out)
{
    for (uint32_t i = from; i < to; i += 8) {
        uint64_t v;
        memcpy(&v, q + i, 8);
        for (; v; v &= ~(0xffull << __builtin_ctzll(v) / 8 * 8))
            *out++ = i + (uint32_t)__builtin_ctzll(v) / 8;
    }
    return out;
}

static uint32_t *list_floats(const float *h, uint32_t from, uint32_t to, uint32_t *out)
{
    for (uint32_t i = from; i < to; i++) {
        *out = i;
        out += !(h[i] == 0.0f);
    }
    return out;
}

/* Blocks whose scale is no finite number are computed though their integers are zero: the product with it is not. */
static uint32_t *list_wild(const float *d, uint32_t from, uint32_t to, uint32_t *out)
{
    uint32_t *begin = out;
    bool wild = false;

    for (uint32_t b = from / 32; b < to / 32; b++)
        wild |= !isfinite(d[b]);
    if (!wild)
        return NULL;
    for (uint32_t i = from; i < to; i++)
        *out++ = i;
    return out == begin ? NULL : out;
}

static bool by_8_bits(const ht_op_ffn *f, const ht_ffn_item *it)
{
    return ht_type_get(ht_cpu_neurons(it)->type)->quantised && f->h.q8.stride;
}

/* Scales of groups with active neurons, and rows of these. */
static uint64_t bytes_of_list(const ht_neurons *g, const uint32_t *list, uint32_t n)
{
    uint64_t bytes = (uint64_t)n * g->row_bytes;
    uint32_t group = UINT32_MAX, super = UINT32_MAX;

    for (uint32_t i = 0; i < n && g->d_stride; i++) {
        const uint32_t block = list[i] / 32, d = g->sc_stride ? block / 8 : block;
        bytes += (block != group ? g->sc_stride : 0) + (d != super ? g->d_stride : 0);
        group = block;
        super = d;
    }
    return bytes;
}

static void sparse_lists(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;

    (void)chunk;
    (void)thread;
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        const work w = work_of(f, i);
        uint32_t *end = w.list;
        ht_neurons g;
        for (uint32_t s = 0; s * HT_SEGMENT < f->n_ff; s++) {
            const uint32_t from = s * HT_SEGMENT, to = f->n_ff - from < HT_SEGMENT ? f->n_ff : from + HT_SEGMENT;
            w.begin[s] = (uint32_t)(end - w.list);
            if (!f->sparse && !f->mask) { /* packed, and every neuron is wanted */
                for (uint32_t j = from; j < to; j++)
                    *end++ = j;
            } else if (by_8_bits(f, it)) {
                const size_t at = (size_t)it->slot * f->h.q8.stride;
                uint32_t *all = list_wild(f->h.q8.d + at / 32, from, to, end);
                end = all ? all : list_bytes(f->h.q8.q + at, from, to, end);
            } else {
                end = list_floats(f->h.f + (size_t)it->slot * f->h.stride, from, to, end);
            }
        }
        const uint32_t n = (uint32_t)(end - w.list);
        w.begin[ht_ffn_segments(f->n_ff)] = n;
        if (f->n_bytes && ht_neurons_of(&g, ht_cpu_neurons(it)))
            atomic_fetch_add_explicit(f->n_bytes, bytes_of_list(&g, w.list, n), memory_order_relaxed);
    }
}

/* A copy of a segment's list, checked: a thread that is late may read what the next operation writes there. */
static uint32_t copy_list(const work *w, uint32_t s, uint32_t n_ff, uint32_t *to)
{
    const uint32_t from = s * HT_SEGMENT, end = n_ff - from < HT_SEGMENT ? n_ff : from + HT_SEGMENT;
    const uint32_t first = w->begin[s], last = w->begin[s + 1];
    uint32_t n = 0;

    for (uint32_t i = first; i < last && i < n_ff; i++) {
        to[n] = w->list[i];
        if (to[n] >= end || to[n] < from || (n && to[n] <= to[n - 1]))
            return 0;
        n++;
    }
    return n;
}

_Static_assert(HT_DOWN_SLICE + HT_SEGMENT + HT_DOWN_LEVELS * HT_DOWN_SLICE <= 2 * CPU_TILE,
               "results, list, accumulators");

/* Unit: item, segment, slice. */
static void sparse_down(const cpu_op *op, uint32_t chunk, uint32_t n_chunks, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const uint32_t slice = op->grain[op->n_phases - 2], slices = (f->d_model + slice - 1) / slice;
    const uint32_t segments = ht_ffn_segments(f->n_ff), item = chunk / slices / segments, s = chunk / slices % segments;
    const ht_ffn_item *it = &f->items[item];
    const work w = work_of(f, item);
    float *y = cpu_tile(op, thread, 0);
    uint32_t *list = (uint32_t *)(void *)(y + HT_DOWN_SLICE);
    const uint32_t first = chunk % slices * slice, n = f->d_model - first < slice ? f->d_model - first : slice;
    const size_t at = (size_t)it->slot * f->h.q8.stride + (size_t)s * HT_SEGMENT;
    ht_neurons g;

    (void)n_chunks; /* always one */
    ht_neurons_of(&g, ht_cpu_neurons(it));
    ht_down_slice part = { .g = &g,
                           .w = ht_cpu_neurons(it)->host,
                           .first = first,
                           .n = n,
                           .segment = s * HT_SEGMENT,
                           .list = list,
                           .n_list = copy_list(&w, s, f->n_ff, list),
                           .h = f->h.f + (size_t)it->slot * f->h.stride + (size_t)s * HT_SEGMENT,
                           .scratch = y + HT_DOWN_SLICE + HT_SEGMENT };
    if (by_8_bits(f, it))
        part.q8 = (ht_q8_row){ f->h.q8.q + at, f->h.q8.d + at / 32, f->h.q8.s + at / 16 };
    op->x->kernels.down[ht_cpu_neurons(it)->type](y, &part);
    if (ht_stream_commit(op->x->stream, thread))
        memcpy(w.sums + (size_t)s * w.width + first, y, n * sizeof *y);
}

static void sparse_join(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_vec_kernels *v = &op->x->kernels.vec;

    (void)chunk;
    (void)thread;
    if (f->stage == HT_FFN_ALL)
        memset(f->y, 0, f->d_model * sizeof(float));
    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_ffn_item *it = &f->items[i];
        const work w = work_of(f, i);
        for (uint32_t s = 1; s < ht_ffn_segments(f->n_ff); s++)
            v->add(1.0f, w.sums + (size_t)s * w.width, 1.0f, w.sums, f->d_model);
        ht_cpu_add_bias(w.sums, f->d_model, it->bias[HT_ROLE_DOWN], 1, f->d_model);
        if (f->stage == HT_FFN_ALL)
            v->axpy(it->weights ? it->weights[0] : 1.0f, w.sums, f->y, f->d_model);
        else
            memcpy(f->gathered.f + (size_t)it->slot * f->gathered.stride, w.sums, f->d_model * sizeof(float));
    }
}

/* ---- planning ---- */

/* Whether every item has a neuron-major part that the kernels can use; -1: one contradicts the operation. */
static int all_down_t(const cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    ht_neurons g;

    for (uint32_t i = 0; i < f->n_items; i++) {
        const ht_part *p = ht_cpu_neurons(&f->items[i]);
        if (!p->host || !f->work)
            return 0;
        if (p->n != f->n_ff || p->k != f->d_model || !ht_neurons_of(&g, p))
            return -1;
        if (ht_type_get(p->type)->quantised && !f->h.q8.stride)
            return 0;
    }
    return 1;
}

bool ht_cpu_plan_ffn_sparse(cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    const int from_neurons = f->sparse || ht_cpu_packed(f) ? all_down_t(op) : 0;
    const uint32_t fair = f->n_ff * f->n_items / (8 * op->x->threads) / 32;
    uint32_t most = fair < RUN / 4 / 32 ? fair : RUN / 4 / 32;

    if (from_neurons < 0)
        return false;
    op->grain[op->n_phases] = 32;
    ht_cpu_add_token_phase(op, sparse_neurons, f->n_ff, 32, most ? most : 1);
    if (f->h_norm)
        ht_cpu_add_phase(op, ht_cpu_h_norm, f->n_items);
    if (!from_neurons) {
        ht_cpu_plan_token_down(op);
        return true;
    }
    ht_cpu_add_phase(op, sparse_lists, 1);
    /* Long pieces of rows are read faster; six units for each thread share out evenly. */
    uint32_t slice = HT_DOWN_SLICE, units = f->n_items * ht_ffn_segments(f->n_ff);
    while (slice > SLICE_LEAST && units * ((f->d_model + slice - 1) / slice) < 6 * op->x->threads)
        slice /= 2;
    op->grain[op->n_phases] = slice;
    ht_cpu_add_token_phase(op, sparse_down, f->d_model, slice, 1);
    op->within[op->n_phases - 1] = 1;
    op->n_chunks[op->n_phases - 1] = units * ((f->d_model + slice - 1) / slice);
    ht_cpu_add_phase(op, sparse_join, 1);
    return true;
}

/* ---- the neuron-major form ---- */

static void transpose_tile(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_transpose *t = &op->op.transpose;
    const uint32_t at = chunk * HT_NEURONS_TILE, n = t->n - at < HT_NEURONS_TILE ? t->n - at : HT_NEURONS_TILE;
    ht_neurons g;

    (void)thread;
    ht_neurons_of(&g, &t->to);
    if (!ht_neurons_from_rows(&g, t->from.host, t->from.stride, t->first + at, n, (void *)(uintptr_t)t->to.host))
        atomic_store_explicit(t->refused, true, memory_order_relaxed);
}

bool ht_cpu_plan_transpose(cpu_op *op)
{
    const ht_op_transpose *t = &op->op.transpose;
    ht_neurons g;

    if (!t->to.host || !t->from.host || !ht_neurons_of(&g, &t->to) || t->from.type != t->to.type ||
        t->from.n != t->to.k || t->from.k != t->to.n || t->first % HT_NEURONS_TILE || t->n == 0 ||
        t->n > g.d_model - t->first || t->first >= g.d_model)
        return false;
    op->n_phases = 0;
    ht_cpu_add_phase(op, transpose_tile, (t->n + HT_NEURONS_TILE - 1) / HT_NEURONS_TILE);
    return true;
}
