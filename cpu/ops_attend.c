/* SPDX-License-Identifier: MIT
 *
 * Attention over paged KV on the CPU, and writing it. The softmax is taken span by span and the spans are joined in order
 * whatever the split of work, so its bits depend on positions alone. */
#include <string.h>

#include "cpu/attend.h"
#include "cpu/exec.h"

enum { KV_WRITE_GRAIN = 32 }; /* positions: two groups of half floats are one cache line */

size_t ht_cpu_attend_scratch_bytes(uint32_t max_head)
{
    return (size_t)HT_ATTEND_QUERIES * HT_ATTEND_PARTIAL(max_head) * sizeof(float) + ht_attend_scratch_bytes(max_head);
}

/* Chunks of attention: a stretch of the queries of one KV head. Query f of KV head h is head h * group + f % group of token
 * f / group, so that a stretch shares its keys and values; those of later tokens see more of them. */
typedef struct stretch {
    uint32_t kv_head, f0, n;
} stretch;

static uint32_t group_of(const ht_op_attend *a)
{
    return a->n_head / a->kv.n_kv;
}

/* Queries of a stretch: a token's heads stay together; few tokens on many threads make shorter ones. */
static uint32_t stretch_size(const cpu_op *op)
{
    const ht_op_attend *a = &op->op.attend;
    uint64_t per_head = (uint64_t)op->op.n_tok * group_of(a), share = per_head * a->kv.n_kv / (4ull * op->x->threads);
    uint64_t least = op->op.n_tok == 1 ? HT_ATTEND_QUERIES : HT_ATTEND_QUERIES / 2;

    return share < least ? (uint32_t)least : HT_ATTEND_QUERIES;
}

static stretch stretch_at(const cpu_op *op, uint32_t i, uint32_t size)
{
    const ht_op_attend *a = &op->op.attend;
    uint32_t total = op->op.n_tok * group_of(a), n = (total + size - 1) / size;
    stretch r = { i % a->kv.n_kv, (n - 1 - i / a->kv.n_kv) * size, size }; /* the longest work first */

    if (r.n > total - r.f0)
        r.n = total - r.f0;
    return r;
}

/* The first position that the token at pos sees. */
static uint32_t first_seen(const ht_op_attend *a, uint32_t pos)
{
    return a->window && pos + 1 > a->window ? pos + 1 - a->window : 0;
}

/* Attention of a stretch over span `span`; result i goes to query[i] and o[i]. */
static void attend_span(const cpu_op *op, const stretch *r, uint32_t span, void *scratch, ht_attend_query *query,
                        float *const *o)
{
    const ht_op_attend *a = &op->op.attend;
    const ht_kv_view *kv = &a->kv;
    uint32_t group = group_of(a), at = span * HT_ATTEND_SPAN;
    uint32_t last = a->pos0 + (r->f0 + r->n - 1) / group;
    ht_attend_span s = { .type = (ht_type)kv->type, .k_dim = kv->k_dim, .v_dim = kv->v_dim, .scale = a->scale,
                         .cap = a->softcap, .n_q = r->n, .query = query, .scratch = scratch };

    for (uint32_t p = 0; p < HT_ATTEND_PAGES && at + p * HT_KV_PAGE <= last; p++) {
        const uint8_t *page = kv->pages[at / HT_KV_PAGE + p];
        s.k[p] = page + (size_t)r->kv_head * HT_KV_PAGE * kv->k_row_bytes;
        s.v[p] = page + kv->v_offset + (size_t)r->kv_head * HT_KV_PAGE * kv->v_row_bytes;
    }
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t t = (r->f0 + i) / group, head = r->kv_head * group + (r->f0 + i) % group, pos = a->pos0 + t;
        uint32_t j0 = first_seen(a, pos), j1 = pos + 1;
        j0 = j0 < at ? 0 : j0 - at;
        j1 = j1 < at ? 0 : j1 - at;
        j1 = j1 < HT_ATTEND_SPAN ? j1 : HT_ATTEND_SPAN;
        query[i] = (ht_attend_query){ .q = a->q + (size_t)t * a->q_stride + (size_t)head * kv->k_dim,
                                      .j0 = j0 < j1 ? j0 : j1, .j1 = j1, .o = o[i] };
    }
    op->x->kernels.attend(&s);
}

/* The last steps of one head: the sink (a logit without a value: it joins the denominator only), the division, the 8-bit
 * form. zeros: v_dim of them. */
static void finish_head(const cpu_op *op, uint32_t t, uint32_t head, float M, float L, const float *zeros)
{
    const ht_op_attend *a = &op->op.attend;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t n = a->kv.v_dim;
    float *out = a->out.f + (size_t)t * a->out.stride + (size_t)head * n;

    if (a->sinks)
        v->attend_join(a->sinks[head], 1.0f, zeros, &M, &L, out, n, false);
    v->add(1.0f / L, out, 0.0f, out, n);
    if (a->out.q8.stride && n % 32 == 0) {
        size_t at = (size_t)t * a->out.q8.stride + (size_t)head * n;
        v->quantise_q8(out, n, a->out.q8.q + at, a->out.q8.d + at / 32, a->out.q8.s + at / 16);
    }
}

/* A stretch of queries from its first span to its last. */
static void attend_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_attend *a = &op->op.attend;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    stretch r = stretch_at(op, chunk, op->grain[0]);
    uint32_t group = group_of(a), dim = a->kv.v_dim, pad = HT_ATTEND_PARTIAL(dim);
    uint32_t span = first_seen(a, a->pos0 + r.f0 / group) / HT_ATTEND_SPAN;
    uint32_t last = (a->pos0 + (r.f0 + r.n - 1) / group) / HT_ATTEND_SPAN;
    float *ws = cpu_work_space(op, thread), *o[HT_ATTEND_QUERIES] = { NULL };
    float M[HT_ATTEND_QUERIES] = { 0 }, L[HT_ATTEND_QUERIES] = { 0 };
    ht_attend_query query[HT_ATTEND_QUERIES];
    bool begun[HT_ATTEND_QUERIES] = { false };

    for (uint32_t i = 0; i < r.n; i++)
        o[i] = ws + (size_t)i * pad;
    ws += (size_t)HT_ATTEND_QUERIES * pad;
    for (; span <= last; span++) {
        attend_span(op, &r, span, ws, query, o);
        for (uint32_t i = 0; i < r.n; i++) {
            uint32_t t = (r.f0 + i) / group, head = r.kv_head * group + (r.f0 + i) % group;
            if (query[i].j0 == query[i].j1)
                continue;
            v->attend_join(query[i].m, query[i].l, o[i], &M[i], &L[i],
                           a->out.f + (size_t)t * a->out.stride + (size_t)head * dim, dim, !begun[i]);
            begun[i] = true;
        }
    }
    memset(ws, 0, dim * sizeof *ws);
    for (uint32_t i = 0; i < r.n; i++)
        finish_head(op, (r.f0 + i) / group, r.kv_head * group + (r.f0 + i) % group, M[i], L[i], ws);
}

/* ---- one span a chunk: long contexts and few heads ---------------------------------------------------------------- */

static uint32_t first_span(const cpu_op *op)
{
    return first_seen(&op->op.attend, op->op.attend.pos0) / HT_ATTEND_SPAN;
}

static float *partial_at(const cpu_op *op, uint32_t span, uint32_t t, uint32_t head)
{
    const ht_op_attend *a = &op->op.attend;
    size_t i = ((size_t)(span - first_span(op)) * op->op.n_tok + t) * a->n_head + head;
    return a->partial + i * HT_ATTEND_PARTIAL(a->kv.v_dim);
}

static void attend_part_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_attend *a = &op->op.attend;
    uint32_t per_span = op->grain[1], group = group_of(a), span = first_span(op) + chunk / per_span;
    stretch r = stretch_at(op, chunk % per_span, op->grain[0]);
    float *o[HT_ATTEND_QUERIES] = { NULL };
    ht_attend_query query[HT_ATTEND_QUERIES];

    for (uint32_t i = 0; i < r.n; i++)
        o[i] = partial_at(op, span, (r.f0 + i) / group, r.kv_head * group + (r.f0 + i) % group) + 16;
    attend_span(op, &r, span, cpu_work_space(op, thread), query, o);
    for (uint32_t i = 0; i < r.n; i++) {
        o[i][-16] = query[i].m;
        o[i][-15] = query[i].l;
    }
}

static void attend_join_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_attend *a = &op->op.attend;
    uint32_t t = chunk / a->n_head, head = chunk % a->n_head, pos = a->pos0 + t, dim = a->kv.v_dim;
    uint32_t first = first_seen(a, pos) / HT_ATTEND_SPAN;
    float *ws = cpu_work_space(op, thread), M = 0.0f, L = 0.0f;

    for (uint32_t span = first; span <= pos / HT_ATTEND_SPAN; span++) {
        const float *p = partial_at(op, span, t, head);
        op->x->kernels.vec.attend_join(p[0], p[1], p + 16, &M, &L,
                                       a->out.f + (size_t)t * a->out.stride + (size_t)head * dim, dim, span == first);
    }
    memset(ws, 0, dim * sizeof *ws);
    finish_head(op, t, head, M, L, ws);
}

/* The 8-bit form where heads are no multiple of its blocks. */
static void attend_quantise_chunk(const cpu_op *op, uint32_t t, uint32_t thread)
{
    const ht_op_attend *a = &op->op.attend;
    size_t at = (size_t)t * a->out.q8.stride;

    (void)thread;
    op->x->kernels.vec.quantise_q8(a->out.f + (size_t)t * a->out.stride, a->n_head * a->kv.v_dim, a->out.q8.q + at,
                                   a->out.q8.d + at / 32, a->out.q8.s + at / 16);
}

bool ht_cpu_plan_attend(cpu_op *op)
{
    const ht_op_attend *a = &op->op.attend;
    uint32_t n_tok = op->op.n_tok;

    if (a->kv.n_kv == 0 || a->n_head % a->kv.n_kv || a->kv.k_dim > op->x->max_head || a->kv.v_dim > op->x->max_head)
        return false;
    uint32_t size = stretch_size(op), stretches = (n_tok * group_of(a) + size - 1) / size * a->kv.n_kv;
    uint32_t spans = (a->pos0 + n_tok - 1) / HT_ATTEND_SPAN - first_span(op) + 1;
    size_t need = (size_t)spans * n_tok * a->n_head * HT_ATTEND_PARTIAL(a->kv.v_dim);
    op->grain[0] = size;
    if (op->x->threads > 1 && spans > 1 && stretches < 8 * op->x->threads && need <= a->n_partial && a->partial) {
        op->phase[0] = attend_part_chunk;
        op->grain[1] = stretches;
        op->n_chunks[0] = spans * stretches;
        op->phase[1] = attend_join_chunk;
        op->n_chunks[1] = n_tok * a->n_head;
        op->n_phases = 2;
    } else {
        op->phase[0] = attend_chunk;
        op->n_chunks[0] = stretches;
        op->n_phases = 1;
    }
    if (a->out.q8.stride && a->kv.v_dim % 32) {
        op->phase[op->n_phases] = attend_quantise_chunk;
        op->n_chunks[op->n_phases++] = n_tok;
    }
    return true;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* A chunk is a group of positions that share cache lines. */
static void kv_write_chunk(const cpu_op *op, uint32_t chunk, uint32_t thread)
{
    const ht_op_kv_write *w = &op->op.kv_write;
    const ht_kv_view *kv = &w->kv;
    const ht_vec_kernels *v = &op->x->kernels.vec;
    uint32_t at = w->pos0 / KV_WRITE_GRAIN + chunk, t = at * KV_WRITE_GRAIN;
    uint32_t end = t + KV_WRITE_GRAIN - w->pos0;

    (void)thread;
    t = t < w->pos0 ? 0 : t - w->pos0;
    for (end = end < op->op.n_tok ? end : op->op.n_tok; t < end; t++) {
        uint32_t pos = w->pos0 + t, j = pos % HT_KV_PAGE;
        uint8_t *page = kv->pages[pos / HT_KV_PAGE];
        for (uint32_t h = 0; h < kv->n_kv; h++) {
            ht_attend_store_k(v, (ht_type)kv->type, w->k + (size_t)t * w->k_stride + (size_t)h * kv->k_dim, kv->k_dim,
                              page + (size_t)h * HT_KV_PAGE * kv->k_row_bytes, j);
            ht_attend_store_v(v, (ht_type)kv->type, w->v + (size_t)t * w->v_stride + (size_t)h * kv->v_dim, kv->v_dim,
                              page + kv->v_offset + (size_t)h * HT_KV_PAGE * kv->v_row_bytes, j);
        }
    }
}

bool ht_cpu_plan_kv_write(cpu_op *op)
{
    const ht_op_kv_write *w = &op->op.kv_write;

    op->n_phases = 1;
    op->phase[0] = kv_write_chunk;
    op->n_chunks[0] = (w->pos0 + op->op.n_tok - 1) / KV_WRITE_GRAIN - w->pos0 / KV_WRITE_GRAIN + 1;
    return true;
}
