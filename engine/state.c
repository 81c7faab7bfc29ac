/* SPDX-License-Identifier: MIT
 * Sequence state; see state.h. */
#include "engine/state.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

static size_t k_row_bytes(ht_type type, const ht_attn *a) { return ht_type_row_bytes(ht_type_get(type), a->k_dim); }

static size_t v_row_bytes(ht_type type, const ht_attn *a)
{
    return ht_type_row_bytes(ht_type_get(type), (a->v_dim + 15) / 16 * 16);
}

/* Bytes of one layer's page, and where V begins in it. */
static size_t page_bytes(const ht_attn *a, ht_type type, size_t *v_offset)
{
    *v_offset = align64((size_t)a->n_kv * HT_KV_PAGE * k_row_bytes(type, a));
    return *v_offset + align64((size_t)a->n_kv * HT_KV_PAGE * v_row_bytes(type, a));
}

bool ht_state_type_fits(const ht_model *m, ht_type type)
{
    uint32_t block = ht_type_get(type)->block;
    for (uint32_t il = 0; il < m->n_layer; il++)
        if (m->layers[il].attn.k_dim % block || m->layers[il].attn.v_dim % block)
            return false;
    return true;
}

uint64_t ht_state_set_bytes(const ht_model *m, ht_type type)
{
    uint64_t n = 0;
    size_t v;
    for (uint32_t il = 0; il < m->n_layer; il++)
        if (m->layers[il].attn.q.host)
            n += page_bytes(&m->layers[il].attn, type, &v);
    return n;
}

static size_t conv_floats(const ht_delta *d) { return (size_t)(d->taps - 1) * d->qkv.n; }
static size_t delta_floats(const ht_delta *d) { return (size_t)d->n_v * d->k_dim * d->v_dim; }

uint64_t ht_state_fixed_bytes(const ht_model *m)
{
    uint64_t n = 0;
    for (uint32_t il = 0; il < m->n_layer; il++)
        if (m->layers[il].delta.qkv.host)
            n += conv_floats(&m->layers[il].delta) + delta_floats(&m->layers[il].delta);
    return n * sizeof(float);
}

uint64_t ht_state_set_table_bytes(const ht_model *m) { return ((uint64_t)m->n_layer + 1) * sizeof(void *); }

uint64_t ht_state_partial_bytes(const ht_model *m, uint32_t n_ctx)
{
    uint64_t most = 0, spans = ((uint64_t)n_ctx + HT_ATTEND_SPAN - 1) / HT_ATTEND_SPAN;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_attn *a = &m->layers[il].attn;
        uint64_t n = a->q.host ? (uint64_t)a->n_head * HT_ATTEND_PARTIAL(a->v_dim) : 0;
        most = n > most ? n : most;
    }
    return most * spans * sizeof(float);
}

ht_status ht_state_open(ht_state *s, const ht_model *m, const ht_mem *mem, ht_type kv_type, uint32_t n_ctx,
                        ht_error *err)
{
    memset(s, 0, sizeof *s);
    s->m = m;
    s->mem = mem;
    s->n_ctx = n_ctx;
    s->max_sets = (n_ctx + HT_KV_PAGE - 1) / HT_KV_PAGE;
    s->set_bytes = ht_state_set_bytes(m, kv_type);
    s->recurrent_floats = (size_t)(ht_state_fixed_bytes(m) / sizeof(float));
    s->sets = calloc(s->max_sets, sizeof *s->sets);
    s->pages = calloc(m->n_layer, sizeof *s->pages);
    s->page_table = calloc((size_t)m->n_layer * s->max_sets, sizeof *s->page_table);
    s->views = calloc(m->n_layer, sizeof *s->views);
    s->conv = calloc(m->n_layer, sizeof *s->conv);
    s->delta = calloc(m->n_layer, sizeof *s->delta);
    s->partial_bytes = ht_state_partial_bytes(m, n_ctx);
    s->partial = ht_mem_alloc(mem, s->partial_bytes);
    s->recurrent = ht_mem_alloc(mem, s->recurrent_floats * sizeof(float));
    if (!s->sets || !s->pages || !s->page_table || !s->views || !s->conv || !s->delta || !s->recurrent ||
        !s->partial) {
        ht_state_close(s);
        return ht_fail(err, HT_ENOMEM, "conversation state for %u positions", n_ctx);
    }
    memset(s->recurrent, 0, s->recurrent_floats * sizeof(float));

    float *r = s->recurrent;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_attn *a = &m->layers[il].attn;
        const ht_delta *d = &m->layers[il].delta;
        if (a->q.host) {
            size_t v_offset;
            page_bytes(a, kv_type, &v_offset);
            s->pages[il] = s->page_table + (size_t)il * s->max_sets;
            s->views[il] = (ht_kv_view){ .pages = s->pages[il],
                                         .type = kv_type,
                                         .n_kv = a->n_kv,
                                         .k_dim = a->k_dim,
                                         .v_dim = a->v_dim,
                                         .k_row_bytes = k_row_bytes(kv_type, a),
                                         .v_row_bytes = v_row_bytes(kv_type, a),
                                         .v_offset = v_offset };
        } else {
            s->conv[il] = r;
            r += conv_floats(d);
            s->delta[il] = r;
            r += delta_floats(d);
        }
    }
    return HT_OK;
}

void ht_state_close(ht_state *s)
{
    for (uint32_t i = 0; i < s->n_sets; i++)
        ht_mem_free(s->mem, s->sets[i], s->set_bytes);
    if (s->recurrent)
        ht_mem_free(s->mem, s->recurrent, s->recurrent_floats * sizeof(float));
    ht_mem_free(s->mem, s->partial, s->partial_bytes);
    free(s->sets);
    free(s->pages);
    free(s->page_table);
    free(s->views);
    free(s->conv);
    free(s->delta);
    memset(s, 0, sizeof *s);
}

ht_status ht_state_reserve(ht_state *s, uint32_t n, ht_error *err)
{
    while ((uint64_t)s->n_sets * HT_KV_PAGE < n) {
        uint8_t *set = ht_mem_alloc(s->mem, s->set_bytes);
        if (!set)
            return ht_fail(err, HT_ENOMEM, "KV cache: %llu more bytes at position %u", (unsigned long long)s->set_bytes,
                           s->n_sets * HT_KV_PAGE);
        s->sets[s->n_sets] = set;
        for (uint32_t il = 0; il < s->m->n_layer; il++) {
            size_t v_offset;
            if (!s->pages[il])
                continue;
            s->pages[il][s->n_sets] = set;
            set += page_bytes(&s->m->layers[il].attn, (ht_type)s->views[il].type, &v_offset);
        }
        s->n_sets++;
    }
    return HT_OK;
}

ht_status ht_state_truncate(ht_state *s, uint32_t n, ht_error *err)
{
    if (n > s->pos)
        return ht_fail(err, HT_EINVAL, "position %u is beyond the conversation's %u", n, s->pos);
    if (n != s->pos && n != 0 && s->m->recurrent)
        return ht_fail(err, HT_EUNSUPPORTED, "this model's state can only go back to the beginning, not to position %u",
                       n);
    if (n == 0)
        memset(s->recurrent, 0, s->recurrent_floats * sizeof(float));
    uint32_t keep = (n + HT_KV_PAGE - 1) / HT_KV_PAGE;
    while (s->n_sets > keep) {
        s->n_sets--;
        ht_mem_free(s->mem, s->sets[s->n_sets], s->set_bytes);
    }
    s->pos = n;
    return HT_OK;
}

uint64_t ht_state_bytes(const ht_state *s) { return s->n_sets * s->set_bytes + s->recurrent_floats * sizeof(float); }
