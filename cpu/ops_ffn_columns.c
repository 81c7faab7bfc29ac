/* SPDX-License-Identifier: MIT
 *
 * Down projections on the CPU whose weights lie in rows of neurons (HT_LAYOUT_COLUMNS, as PowerInfer's files have them):
 * y = sum of h[j] * row j. Numbers: engine/base/exec.h. A row is read only where its h is not 0.
 *
 * One token: units of one segment and a slice of outputs; each lists the neurons of its segment that are not 0, unpacks
 * pieces of a few rows at a time into the first-level cache and adds them. The units' sums wait in op.work and are joined
 * in the order of segments. Prompts: a chunk is a slice of outputs and a run of tokens; rows are unpacked once for the
 * tokens of a tile, zeros included, for a batch leaves no row out. */
#include "cpu/ops_ffn.h"

#include <string.h>

enum {
    GROUP = 8,          /* rows unpacked at once, one token */
    PIECE = 256,        /* outputs of them: whole blocks of every type */
    SLICE_LEAST = 512,  /* outputs of a unit, where there are many threads */
    SLICE_MOST = 4096,
    TILE_ROWS = 64,     /* a prompt's */
    TILE_OUTPUTS = 128, /* less than PIECE: types with blocks of 256 take the whole of it */
    TILE_TOKENS = 64,
    DOWN = 3            /* which grain and tokens of an operation are those of this phase, as in ops_ffn.c */
};

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static const ht_part *down_of(const ht_op_ffn *f) { return &f->items[0].part[HT_ROLE_DOWN]; }

/* Outputs from `first` on of a neuron's row; first: whole blocks. */
static const uint8_t *piece_of(const ht_part *p, const ht_type_info *t, uint32_t neuron, uint32_t first)
{
    return (const uint8_t *)p->host + (size_t)neuron * p->stride + ht_type_row_bytes(t, first);
}

/* ---- one token ---- */

static uint32_t sums_width(const ht_op_ffn *f) { return (f->d_model + 127u) / 128u * 128u; }

/* Neurons of a segment whose h is not 0. */
static uint32_t list_active(const float *h, uint32_t from, uint32_t to, uint32_t *list)
{
    uint32_t n = 0;

    for (uint32_t j = from; j < to; j++) {
        list[n] = j;
        n += !(h[j] == 0.0f);
    }
    return n;
}

_Static_assert(SLICE_MOST + HT_SEGMENT + GROUP * PIECE <= 2 * CPU_TILE, "sums, list, unpacked rows");
_Static_assert(TILE_TOKENS * PIECE <= CPU_TILE && TILE_ROWS * PIECE <= CPU_TILE, "sums, unpacked rows");

/* y[0..n) = sums over the listed neurons, outputs from `first` on. The rows of the next group are asked for while this
 * one is added: they lie anywhere. */
static void add_listed(const cpu_op *op, const float *h, const uint32_t *list, uint32_t n_list, uint32_t first,
                       uint32_t n, float *rows, float *y)
{
    const ht_part *p = down_of(&op->op.ffn);
    const ht_type_info *t = ht_type_get(p->type);
    const ht_vec_kernels *v = &op->x->kernels.vec;
    float few[GROUP];

    memset(y, 0, n * sizeof *y);
    for (uint32_t i = 0; i < n_list; i += GROUP) {
        const uint32_t now = least(n_list - i, GROUP), next = least(n_list - i - now, GROUP);
        for (uint32_t r = 0; r < now; r++)
            few[r] = h[list[i + r]];
        for (uint32_t o = 0; o < n; o += PIECE) {
            const uint32_t k = least(n - o, PIECE);
            const size_t bytes = ht_type_row_bytes(t, k);
            for (uint32_t r = 0; r < next; r++)
                for (size_t b = 0; b < bytes; b += 64)
                    __builtin_prefetch(piece_of(p, t, list[i + now + r], first + o) + b);
            for (uint32_t r = 0; r < now; r++)
                v->unpack((ht_type)p->type, piece_of(p, t, list[i + r], first + o), k, rows + (size_t)r * PIECE);
            v->outer(y + o, 0, few, 0, 1, rows, PIECE, now, k);
        }
    }
}

/* Unit: segment, slice. */
static void columns_down(const cpu_op *op, uint32_t chunk, uint32_t n_chunks, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_part *p = down_of(f);
    const uint32_t slice = op->grain[DOWN], slices = (f->d_model + slice - 1) / slice;
    const uint32_t s = chunk / slices, from = s * HT_SEGMENT, to = least(f->n_ff, from + HT_SEGMENT);
    const uint32_t first = chunk % slices * slice, n = least(f->d_model - first, slice);
    const float *h = f->h.f + (size_t)f->items[0].slot * f->h.stride;
    float *y = cpu_tile(op, thread, 0), *rows = y + SLICE_MOST;
    uint32_t *list = (uint32_t *)(void *)(rows + GROUP * PIECE);
    const uint32_t n_list = list_active(h, from, to, list);

    (void)n_chunks; /* always one */
    add_listed(op, h, list, n_list, first, n, rows, y);
    if (!ht_stream_commit(op->x->stream, thread))
        return;
    memcpy((float *)f->work + (size_t)s * sums_width(f) + first, y, n * sizeof *y);
    if (f->n_bytes)
        atomic_fetch_add_explicit(f->n_bytes, n_list * ht_type_row_bytes(ht_type_get(p->type), n), memory_order_relaxed);
}

static void columns_join(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_ffn_item *it = &f->items[0];
    const ht_vec_kernels *v = &op->x->kernels.vec;
    float *sums = f->work;

    (void)chunk;
    (void)thread;
    for (uint32_t s = 1; s < ht_ffn_segments(f->n_ff); s++)
        v->add(1.0f, sums + (size_t)s * sums_width(f), 1.0f, sums, f->d_model);
    ht_cpu_add_bias(sums, f->d_model, it->bias[HT_ROLE_DOWN], 1, f->d_model);
    memset(f->y, 0, f->d_model * sizeof(float));
    v->axpy(it->weights ? it->weights[0] : 1.0f, sums, f->y, f->d_model);
}

void ht_cpu_plan_columns_token(cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    const uint32_t segments = ht_ffn_segments(f->n_ff);
    uint32_t slice = SLICE_MOST, p = op->n_phases;

    /* Long pieces of rows are read faster; six units for each thread share out evenly. */
    while (slice > SLICE_LEAST && segments * ((f->d_model + slice - 1) / slice) < 6 * op->x->threads)
        slice /= 2;
    op->grain[DOWN] = slice;
    op->range[p] = columns_down;
    op->within[p] = 1;
    op->n_chunks[p] = segments * ((f->d_model + slice - 1) / slice);
    op->most[p] = 1;
    op->contested[p] = true;
    op->n_phases++;
    ht_cpu_add_phase(op, columns_join, 1);
}

/* ---- several tokens ---- */

static bool all_finite(const float *w, uint32_t n_rows, uint32_t n)
{
    uint32_t wild = 0;

    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, w + (size_t)r * PIECE + i, sizeof bits);
            wild |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    return !wild;
}

/* y[t][0..n) += the tile of n_rows neurons. 0 times a number adds nothing; 0 times what is none would. */
static void add_tile(const ht_vec_kernels *v, float *y, const float *h, size_t ldh, uint32_t nt, const float *w,
                     uint32_t n_rows, uint32_t n)
{
    if (all_finite(w, n_rows, n)) {
        v->outer(y, PIECE, h, ldh, nt, w, PIECE, n_rows, n);
        return;
    }
    for (uint32_t t = 0; t < nt; t++)
        for (uint32_t r = 0; r < n_rows; r++)
            if (!(h[t * ldh + r] == 0.0f))
                v->axpy(h[t * ldh + r], w + (size_t)r * PIECE, y + (size_t)t * PIECE, n);
}

/* A slice of outputs for a run of tokens: tokens by tiles, segments in order. */
static void columns_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_ffn *f = &op->op.ffn;
    const ht_ffn_item *it = &f->items[0];
    const ht_part *p = down_of(f);
    const ht_type_info *type = ht_type_get(p->type);
    const ht_vec_kernels *v = &op->x->kernels.vec;
    const uint32_t grain = op->grain[DOWN], per_block = (f->d_model + grain - 1) / grain;
    const uint32_t first = chunk % per_block * grain, n = least(f->d_model - first, grain);
    const uint32_t begin = chunk / per_block * op->tokens[DOWN], end = least(op->op.n_tok, begin + op->tokens[DOWN]);
    const float *bias = it->bias[HT_ROLE_DOWN] ? it->bias[HT_ROLE_DOWN] + first : NULL;
    float *rows = cpu_tile(op, thread, 0), *part = cpu_tile(op, thread, 1);

    for (uint32_t t0 = begin; t0 < end; t0 += TILE_TOKENS) {
        const uint32_t nt = least(end - t0, TILE_TOKENS);
        const float *h = f->h.f + (size_t)(it->slot + t0) * f->h.stride;
        float *y = f->y + (size_t)t0 * f->y_stride + first;
        for (uint32_t s = 0; s < f->n_ff; s += HT_SEGMENT) {
            const uint32_t to = least(f->n_ff, s + HT_SEGMENT);
            memset(part, 0, (size_t)nt * PIECE * sizeof *part);
            for (uint32_t j = s; j < to; j += TILE_ROWS) {
                const uint32_t n_rows = least(to - j, TILE_ROWS);
                for (uint32_t r = 0; r < n_rows; r++)
                    v->unpack((ht_type)p->type, piece_of(p, type, j + r, first), n, rows + (size_t)r * PIECE);
                add_tile(v, part, h + j, f->h.stride, nt, rows, n_rows, n);
            }
            for (uint32_t t = 0; t < nt; t++)
                v->add(1.0f, part + (size_t)t * PIECE, s ? 1.0f : 0.0f, y + (size_t)t * f->y_stride, n);
        }
        for (uint32_t t = 0; t < nt; t++) { /* to 0, as with one token: -0 becomes 0 */
            ht_cpu_add_bias(y + (size_t)t * f->y_stride, 0, bias, 1, n);
            memcpy(part, y + (size_t)t * f->y_stride, n * sizeof *part);
            memset(y + (size_t)t * f->y_stride, 0, n * sizeof *y);
            v->axpy(it->weights ? it->weights[t0 + t] : 1.0f, part, y + (size_t)t * f->y_stride, n);
        }
    }
}

void ht_cpu_plan_columns_prompt(cpu_op *op)
{
    const ht_op_ffn *f = &op->op.ffn;
    const uint32_t tokens = ht_cpu_prompt_tokens(f->n_ff * (TILE_OUTPUTS / 16));

    op->grain[DOWN] = ht_type_get(down_of(f)->type)->block > TILE_OUTPUTS ? PIECE : TILE_OUTPUTS;
    op->tokens[DOWN] = tokens;
    ht_cpu_add_phase(op, columns_chunk, (op->op.n_tok + tokens - 1) / tokens *
                                            ((f->d_model + op->grain[DOWN] - 1) / op->grain[DOWN]));
}

bool ht_cpu_columns_fit(const ht_op_ffn *f)
{
    const ht_part *p = down_of(f);

    return f->n_items == 1 && !f->items[0].tokens && p->n == f->n_ff && p->k == f->d_model && ht_type_get(p->type) &&
           p->stride >= ht_type_row_bytes(ht_type_get(p->type), p->k) && !f->h.q8.stride;
}
