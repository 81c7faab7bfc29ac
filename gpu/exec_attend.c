/* SPDX-License-Identifier: MIT
 * Attention over paged keys and values on a GPU, and writing them. */
#include "gpu/exec.h"

enum { HEAD_MOST = 1024, FEW_BLOCKS = 1024 /* of heads and tokens: with fewer, spans are shared out too */ };

/* Bytes of a row (a position) of K or V of one head, as ht_kv_view has it; 0: the type or dimension is none. */
static uint32_t row_bytes(uint32_t type, uint32_t dim, bool value)
{
    const uint32_t padded = value ? (dim + 15) / 16 * 16 : dim;

    switch (type) {
    case HT_F32: return padded * 4;
    case HT_F16: return padded * 2;
    case HT_Q8_0: return dim % 32 ? 0 : dim / 32 * 34;
    case HT_Q4_0: return dim % 32 ? 0 : dim / 32 * 18;
    default: return 0;
    }
}

/* The view of positions [from, to): checked, its pages' offsets in a table. *base: what they are from; 0: refused. */
static uint64_t pages_of(gpu_queue *q, const ht_kv_view *v, uint64_t from, uint64_t to, kv_args *a, uint64_t *base)
{
    const uint32_t k_row = row_bytes(v->type, v->k_dim, false), v_row = row_bytes(v->type, v->v_dim, true);
    const uint64_t first = from / HT_KV_PAGE, last = (to - 1) / HT_KV_PAGE;
    uint64_t *offset, least = UINT64_MAX;
    const uint64_t v_bytes = (uint64_t)v->n_kv * HT_KV_PAGE * v->v_row_bytes;

    if (!v->pages || !v->n_kv || !v->k_dim || !v->v_dim || v->k_dim > HEAD_MOST || v->v_dim > HEAD_MOST || !k_row ||
        !v_row || v->k_row_bytes < k_row || v->v_row_bytes < v_row || v->k_row_bytes > UINT32_MAX ||
        v->v_row_bytes > UINT32_MAX || v->v_offset > UINT32_MAX || v->v_offset % 64 ||
        v->k_row_bytes * HT_KV_PAGE * v->n_kv > v->v_offset || last - first > GPU_TABLE / 8)
        return 0;
    *a = (kv_args){ .type = v->type, .n_kv = v->n_kv, .k_dim = v->k_dim, .v_dim = v->v_dim,
                    .k_row_bytes = (uint32_t)v->k_row_bytes, .v_row_bytes = (uint32_t)v->v_row_bytes,
                    .v_offset = (uint32_t)v->v_offset, .first_page = (uint32_t)first };
    for (uint64_t i = first; i <= last; i++)
        least = gpu_addr(v->pages[i]) < least ? gpu_addr(v->pages[i]) : least;
    *base = least;
    const uint64_t table = gpu_table(q, (uint32_t)(last - first + 1) * 8, (void **)&offset);
    const uint64_t room = q->dry ? ht_gpu_room(q->x->g, least) : UINT64_MAX;
    for (uint64_t i = first; i <= last && q->dry; i++) {
        const uint64_t at = gpu_addr(v->pages[i]) - least;
        if (at % 64 || at > room || room - at < v->v_offset + v_bytes)
            return 0;
        if (offset)
            offset[i - first] = at;
    }
    return table;
}

bool gpu_op_kv_write(gpu_queue *q, const ht_op *op)
{
    const ht_op_kv_write *w = &op->kv_write;
    kv_write_args a = { .k_stride = w->k_stride, .v_stride = w->v_stride, .pos0 = w->pos0 };
    uint64_t base, table = pages_of(q, &w->kv, w->pos0, (uint64_t)w->pos0 + op->n_tok, &a.kv, &base);

    if (!table || !gpu_has_floats(q, w->k, op->n_tok, w->k_stride, (uint64_t)w->kv.n_kv * w->kv.k_dim, false) ||
        !gpu_has_floats(q, w->v, op->n_tok, w->v_stride, (uint64_t)w->kv.n_kv * w->kv.v_dim, false))
        return false;
    GPU_RUN(q, HT_K_kv_write, w->kv.n_kv, op->n_tok, 1, a, gpu_addr(w->k), gpu_addr(w->v), base, table);
    return true;
}

/* The first position that the token at pos sees. */
static uint32_t first_seen(const ht_op_attend *o, uint32_t pos)
{
    return o->window && pos + 1 > o->window ? pos + 1 - o->window : 0;
}

bool gpu_op_attend(gpu_queue *q, const ht_op *op)
{
    const ht_op_attend *o = &op->attend;
    const uint32_t n_tok = op->n_tok, first = first_seen(o, o->pos0);
    const uint64_t end = (uint64_t)o->pos0 + n_tok, n_out = (uint64_t)o->n_head * o->kv.v_dim;
    attend_args a = { .q_stride = o->q_stride, .n_head = o->n_head, .window = o->window, .pos0 = o->pos0,
                      .out_stride = o->out.stride, .n_tok = n_tok, .first_span = first / HT_ATTEND_SPAN,
                      .scale = o->scale, .cap = o->softcap };
    uint64_t base, table;

    if (!o->n_head || !o->kv.n_kv || o->n_head % o->kv.n_kv || end > UINT32_MAX ||
        !(table = pages_of(q, &o->kv, first, end, &a.kv, &base)) ||
        !gpu_has_floats(q, o->q, n_tok, o->q_stride, (uint64_t)o->n_head * o->kv.k_dim, false) ||
        !gpu_has_floats(q, o->sinks, 1, 0, o->n_head, true) || !gpu_has_act(q, &o->out, n_tok, n_out))
        return false;
    const uint32_t spans = (uint32_t)((end - 1) / HT_ATTEND_SPAN - a.first_span + 1);
    const uint64_t need = (uint64_t)spans * n_tok * o->n_head * HT_ATTEND_PARTIAL(o->kv.v_dim);
    const bool own = !o->partial || need > o->n_partial; /* partial sums go to the executor's scratch */
    const uint64_t partial = own ? q->x->scratch : gpu_addr(o->partial);

    a.split = spans > 1 && (uint64_t)o->n_head * n_tok < FEW_BLOCKS &&
              (own ? need * 4 <= q->x->scratch_bytes : gpu_has_floats(q, o->partial, 1, 0, need, false));
    GPU_RUN(q, HT_K_attend, o->n_head, n_tok, a.split ? spans : 1, a, gpu_addr(o->q), base, table, gpu_addr(o->sinks),
            gpu_addr(o->out.f), a.split ? partial : 0);
    if (a.split)
        GPU_RUN(q, HT_K_attend_join, o->n_head, n_tok, 1, a, 0, 0, 0, gpu_addr(o->sinks), gpu_addr(o->out.f), partial);
    gpu_run_quantise(q, &o->out, n_tok, (uint32_t)n_out);
    return true;
}
