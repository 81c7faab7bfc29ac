/* SPDX-License-Identifier: MIT
 * See mirror.h. */
#include "tests/gpu/mirror.h"

#include "engine/base/signs.h"

enum { MOST_SEEN = 4096, MOST_OPS = 64, MOST_ITEMS = 256, MOST_PAGES = 64, IDS = 4096 };

typedef struct seen { /* constant data that is on the device */
    const void *host;
    size_t bytes;
    ht_part part; /* of weights */
} seen;

struct mirror {
    ht_exec base;
    ht_exec *cpu, *gpu;
    ht_gpu *g;
    ht_forward *f;
    ht_state *s;
    uint64_t block, sets, recurrent, ids; /* on the device */
    size_t set_stride;
    uint32_t n_ids;
    seen seen[MOST_SEEN];
    uint32_t n_seen;
    uint64_t n_ops[HT_N_OPS];
    void *pages[MOST_OPS][MOST_PAGES];
    ht_ffn_item items[MOST_ITEMS];
    uint32_t n_items;
};

static bool within(const void *p, const void *base, size_t bytes)
{
    return (const uint8_t *)p >= (const uint8_t *)base && (const uint8_t *)p < (const uint8_t *)base + bytes;
}

static uint64_t addr_of(mirror *m, const void *p)
{
    if (within(p, m->f->memory, m->f->bytes))
        return m->block + (uint64_t)((const uint8_t *)p - (const uint8_t *)m->f->memory);
    if (m->s->recurrent && within(p, m->s->recurrent, m->s->recurrent_floats * 4))
        return m->recurrent + (uint64_t)((const uint8_t *)p - (const uint8_t *)m->s->recurrent);
    for (uint32_t i = 0; i < m->s->n_sets; i++)
        if (within(p, m->s->sets[i], m->s->set_bytes))
            return m->sets + i * m->set_stride + (uint64_t)((const uint8_t *)p - (const uint8_t *)m->s->sets[i]);
    return 0;
}

static seen *remember(mirror *m, const void *p, size_t bytes)
{
    for (uint32_t i = 0; i < m->n_seen; i++)
        if (m->seen[i].host == p && m->seen[i].bytes >= bytes)
            return &m->seen[i];
    cr_assert_lt(m->n_seen, MOST_SEEN);
    m->seen[m->n_seen] = (seen){ .host = p, .bytes = bytes };
    return &m->seen[m->n_seen++];
}

/* A pointer of the engine's: into its buffers, or to constants of `bytes`. */
static void *ptr(mirror *m, const void *p, size_t bytes)
{
    const uint64_t a = p ? addr_of(m, p) : 0;

    if (!p || a)
        return ht_gpu_ptr(a);
    seen *s = remember(m, p, bytes);
    if (!s->part.device)
        s->part.device = put(m->g, p, bytes);
    return ht_gpu_ptr(s->part.device);
}

static void part(mirror *m, ht_part *p)
{
    ht_error err = { 0 };

    if (!p->host) {
        p->device = 0;
        return;
    }
    seen *s = remember(m, p->host, (size_t)p->n * p->stride);
    if (s->part.device) {
        *p = s->part;
        return;
    }
    cr_assert_eq(ht_gpu_upload_part(m->g, p, &s->part, &err), HT_OK, "%s", err.text);
    *p = s->part;
}

static void act_of(mirror *m, ht_act *a)
{
    a->f = ptr(m, a->f, 0);
    a->q8.q = a->q8.stride ? ptr(m, a->q8.q, 0) : NULL;
    a->q8.d = a->q8.stride ? ptr(m, a->q8.d, 0) : NULL;
    a->q8.s = a->q8.stride ? ptr(m, a->q8.s, 0) : NULL;
}

static void kv(mirror *m, ht_kv_view *v, uint32_t op)
{
    cr_assert_leq(m->s->n_sets, MOST_PAGES);
    for (uint32_t i = 0; i < m->s->n_sets; i++)
        m->pages[op][i] = ptr(m, v->pages[i], 0);
    v->pages = (void *const *)m->pages[op];
}

static const int32_t *ids(mirror *m, const int32_t *p, uint32_t n)
{
    const uint64_t at = m->ids + m->n_ids * 4ull;

    if (addr_of(m, p))
        return ptr(m, p, 0);
    cr_assert_leq(m->n_ids + n, IDS);
    m->n_ids += n;
    put_at(m->g, at, p, n * 4);
    return ht_gpu_ptr(at);
}

static void ffn(mirror *m, ht_op_ffn *f)
{
    ht_ffn_item *to = m->items + m->n_items;

    cr_assert_leq(m->n_items + f->n_items, MOST_ITEMS);
    m->n_items += f->n_items;
    for (uint32_t i = 0; i < f->n_items; i++) {
        ht_ffn_item *it = &to[i];
        *it = f->items[i];
        for (uint32_t r = 0; r < HT_N_ROLES; r++) {
            part(m, &it->part[r]);
            it->bias[r] = ptr(m, it->bias[r], (r == HT_ROLE_DOWN ? f->d_model : f->n_ff) * 4ull);
        }
        part(m, &it->down_t);
        it->tokens = ptr(m, it->tokens, 0);
        it->weights = ptr(m, it->weights, 0);
    }
    f->items = to;
    act_of(m, &f->x);
    act_of(m, &f->h);
    act_of(m, &f->gathered);
    f->h_norm = ptr(m, f->h_norm, f->n_ff * 4ull);
    f->y = ptr(m, f->y, 0);
    f->mask = ptr(m, f->mask, 0);
    f->work = NULL;
}

static void translate(mirror *m, ht_op *o, uint32_t i)
{
    ht_op_norm *n = &o->norm;
    ht_op_matmul *p = &o->matmul;
    ht_op_attend *a = &o->attend;
    ht_op_conv *c = &o->conv;
    ht_op_delta *d = &o->delta;
    ht_op_predict *r = &o->predict;

    switch (o->kind) {
    case HT_OP_EMBED:
        part(m, &o->embed.table);
        o->embed.ids = ids(m, o->embed.ids, o->n_tok);
        o->embed.out = ptr(m, o->embed.out, 0);
        break;
    case HT_OP_NORM:
        n->x = ptr(m, n->x, 0);
        n->weight = ptr(m, n->weight, (n->weight_full ? n->k : n->group) * 4ull);
        n->bias = ptr(m, n->bias, (n->weight_full ? n->k : n->group) * 4ull);
        act_of(m, &n->out);
        break;
    case HT_OP_MATMUL:
        p->bias = ptr(m, p->bias, p->w.n * 4ull);
        part(m, &p->w);
        act_of(m, &p->x);
        p->y = ptr(m, p->y, 0);
        break;
    case HT_OP_ADD: o->add.x = ptr(m, o->add.x, 0); o->add.y = ptr(m, o->add.y, 0); break;
    case HT_OP_GATE: o->gate.gate = ptr(m, o->gate.gate, 0); o->gate.y = ptr(m, o->gate.y, 0); break;
    case HT_OP_SOFTCAP: o->softcap.y = ptr(m, o->softcap.y, 0); break;
    case HT_OP_ROPE: o->rope.x = ptr(m, o->rope.x, 0); o->rope.table = ptr(m, o->rope.table, 0); break;
    case HT_OP_KV_WRITE:
        kv(m, &o->kv_write.kv, i);
        o->kv_write.k = ptr(m, o->kv_write.k, 0);
        o->kv_write.v = ptr(m, o->kv_write.v, 0);
        break;
    case HT_OP_ATTEND:
        kv(m, &a->kv, i);
        a->q = ptr(m, a->q, 0);
        a->sinks = ptr(m, a->sinks, a->n_head * 4ull);
        a->partial = NULL;
        act_of(m, &a->out);
        break;
    case HT_OP_FFN: ffn(m, &o->ffn); break;
    case HT_OP_ROUTE:
        o->route.logits = ptr(m, o->route.logits, 0);
        o->route.select_bias = ptr(m, o->route.select_bias, o->route.n_expert * 4ull);
        o->route.ids = ptr(m, o->route.ids, 0);
        o->route.weights = ptr(m, o->route.weights, 0);
        break;
    case HT_OP_CONV:
        c->x = ptr(m, c->x, 0);
        c->y = ptr(m, c->y, 0);
        c->w = ptr(m, c->w, (size_t)c->n * c->taps * 4);
        c->bias = ptr(m, c->bias, c->n * 4ull);
        c->state = ptr(m, c->state, 0);
        break;
    case HT_OP_DELTA:
        d->q = ptr(m, d->q, 0);
        d->k = ptr(m, d->k, 0);
        d->v = ptr(m, d->v, 0);
        d->alpha = ptr(m, d->alpha, 0);
        d->beta = ptr(m, d->beta, 0);
        d->a_coef = ptr(m, d->a_coef, d->n_v * 4ull);
        d->dt_bias = ptr(m, d->dt_bias, d->n_v * 4ull);
        d->state = ptr(m, d->state, 0);
        d->y = ptr(m, d->y, 0);
        break;
    case HT_OP_QUANTISE: act_of(m, &o->quantise.x); break;
    default: /* HT_OP_PREDICT */
        r->threshold = ptr(m, r->threshold, r->n * 4ull);
        r->scores = ptr(m, r->scores, 0);
        r->signs = r->signs ? ptr(m, r->signs, ht_signs_bytes(r->n, r->k)) : NULL;
        r->x = ptr(m, r->x, 0);
        r->tokens = ptr(m, r->tokens, 0);
        r->mask = ptr(m, r->mask, 0);
        r->work = NULL;
    }
}

static void copy_buffers(mirror *m, bool to_device)
{
    for (uint32_t i = 0; i < 2 + m->s->n_sets; i++) {
        const uint64_t at = i == 0 ? m->block : i == 1 ? m->recurrent : m->sets + (i - 2) * m->set_stride;
        void *p = i == 0 ? m->f->memory : i == 1 ? (void *)m->s->recurrent : m->s->sets[i - 2];
        const size_t n = i == 0 ? m->f->bytes : i == 1 ? m->s->recurrent_floats * 4 : (size_t)m->s->set_bytes;
        ht_error err = { 0 };
        cr_assert_eq(!n || !p       ? HT_OK
                     : to_device ? ht_gpu_upload(m->g, HT_GPU_COMPUTE, at, p, n, &err)
                                 : ht_gpu_download(m->g, HT_GPU_COMPUTE, p, at, n, &err),
                     HT_OK, "%s", err.text);
    }
    settle(m->g);
}

static ht_status mirror_submit(ht_exec *e, const ht_op *ops, size_t n, ht_event *done)
{
    mirror *m = (mirror *)e;
    static ht_op mine[MOST_OPS];
    ht_event event;

    if (ops[0].kind == HT_OP_TRANSPOSE || ops[0].kind == HT_OP_SIGNS) {
        cr_assert_eq(m->cpu->ops->submit(m->cpu, ops, n, &event), HT_OK);
        if (done)
            *done = 0;
        return m->cpu->ops->wait(m->cpu, event, NULL);
    }
    cr_assert_leq(n, MOST_OPS);
    m->n_items = m->n_ids = 0;
    for (uint32_t i = 0; i < n; i++) {
        mine[i] = ops[i];
        m->n_ops[ops[i].kind]++;
        translate(m, &mine[i], i);
    }
    copy_buffers(m, true);
    const ht_status st = m->gpu->ops->submit(m->gpu, mine, n, &event);
    cr_assert_eq(st, HT_OK, "refused: %zu operations, the first %d", n, ops[0].kind);
    cr_assert_eq(m->gpu->ops->wait(m->gpu, event, NULL), HT_OK);
    copy_buffers(m, false);
    if (done)
        *done = 0;
    return HT_OK;
}

static ht_status mirror_wait(ht_exec *e, ht_event event, const ht_cancel *cancel)
{
    (void)e;
    (void)event;
    (void)cancel;
    return HT_OK;
}

static void mirror_none(ht_exec *e) { (void)e; }

mirror *mirror_open(ht_gpu *g, hearth_session *s)
{
    static const ht_exec_ops ops = { "mirror", mirror_submit, mirror_wait, mirror_none };
    const ht_gpu_exec_params p = { .scratch_bytes = 4 << 20 };
    ht_error err = { 0 };
    mirror *m = calloc(1, sizeof *m);

    m->base.ops = &ops;
    m->g = g;
    m->f = &s->forward;
    m->s = &s->state;
    m->cpu = s->forward.exec;
    m->set_stride = (m->s->set_bytes + 255) / 256 * 256;
    cr_assert_eq(ht_gpu_exec_open(&m->gpu, g, &p, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gpu_alloc(g, m->f->bytes, &m->block, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gpu_alloc(g, m->set_stride * m->s->max_sets + 1, &m->sets, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gpu_alloc(g, m->s->recurrent_floats * 4 + 1, &m->recurrent, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gpu_alloc(g, IDS * 4, &m->ids, &err), HT_OK, "%s", err.text);
    s->forward.exec = &m->base;
    return m;
}

void mirror_close(mirror *m)
{
    m->f->exec = m->cpu;
    m->gpu->ops->close(m->gpu);
    free(m);
}

uint64_t mirror_n_ops(const mirror *m, ht_op_kind kind) { return m->n_ops[kind]; }
