/* SPDX-License-Identifier: MIT
 * Encoding experts once more, in threads; see standin.h. */
#include "engine/standin.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "engine/base/types.h"

enum { STRIP = 1 << 16 /* elements encoded at once, whole rows */, MAX_THREADS = 64, ALIGN = 64 };

/* The stand-ins of one layer: all experts have one shape. */
typedef struct shape {
    bool there;
    uint32_t type[HT_N_ROLES];
    size_t stride[HT_N_ROLES], at[HT_N_ROLES]; /* of a row; of the matrix within an expert's */
    size_t each, first;                        /* bytes of an expert; of expert 0 in the memory */
} shape;

struct ht_standins {
    const ht_model *m;
    shape *layers; /* [n_layer] */
    uint8_t *memory;
    size_t reserved;
};

/* Rows of k: of the type asked for, or as they are. */
static uint32_t narrower(uint32_t own, uint32_t asked, uint32_t k)
{
    const uint32_t type = ht_type_fitting(asked, k);
    return ht_type_row_bytes(ht_type_get(type), k) < ht_type_row_bytes(ht_type_get(own), k) ? type : own;
}

/* The widest of the layer's experts counts, for those of one file may differ. */
static shape shape_of(const ht_ffn *ff, ht_type asked)
{
    shape s = { .there = ff->router.host != NULL };

    for (uint32_t r = 0; s.there && r < HT_N_ROLES; r++) {
        const ht_part *first = &ff->experts[0][r];
        s.at[r] = s.each;
        if (!first->host)
            continue;
        s.type[r] = ht_type_fitting(asked, first->k);
        for (uint32_t e = 0; e < ff->n_expert; e++) {
            const ht_part *p = &ff->experts[e][r];
            if (p->layout != HT_LAYOUT_ROWS || p->order || p->n != first->n || p->k != first->k)
                return (shape){ 0 };
            const size_t own = ht_type_row_bytes(ht_type_get(p->type), p->k);
            const size_t row = ht_type_row_bytes(ht_type_get(narrower(p->type, asked, p->k)), p->k);
            s.stride[r] = row > s.stride[r] ? row : s.stride[r];
            if (own < p->stride) /* not row after row: nothing this engine streams */
                return (shape){ 0 };
        }
        s.each += (s.stride[r] * first->n + ALIGN - 1) / ALIGN * ALIGN;
    }
    return s;
}

uint64_t ht_standins_bytes(const ht_model *m, ht_type type)
{
    uint64_t sum = (uint64_t)m->n_layer * sizeof(shape);

    for (uint32_t il = 0; il < m->n_layer; il++) {
        const shape s = shape_of(&m->layers[il].ffn, type);
        sum += (uint64_t)s.each * m->layers[il].ffn.n_expert;
    }
    return sum + ht_os_page();
}

/* ---- making them ---- */

typedef struct maker {
    ht_standins *s;
    const ht_standins_params *p;
    uint32_t total;
    _Atomic uint32_t next, done;
    _Atomic bool stop;
    ht_os_mutex lock;
    ht_error err; /* the first; under the lock */
} maker;

static ht_status fail_once(maker *k, const ht_error *err)
{
    ht_os_lock(&k->lock);
    if (k->err.status == HT_OK)
        k->err = *err;
    ht_os_unlock(&k->lock);
    atomic_store(&k->stop, true);
    return err->status;
}

/* The rows of one matrix, a strip at a time. */
static ht_status encode(maker *k, const ht_part *p, const ht_part *to, uint8_t *raw, float *values)
{
    const ht_gguf *g = k->s->m->gguf;
    uint32_t rows = STRIP / p->k, file = 0;
    uint64_t at = 0;
    ht_error err;

    rows = rows ? rows : 1;
    if (!ht_gguf_locate(g, p->host, &file, &at))
        return fail_once(k, &(ht_error){ .status = HT_EINVAL, .offset = UINT64_MAX, .text = "an expert is in no file" });
    for (uint32_t r = 0; r < p->n; r += rows) {
        const uint32_t n = p->n - r < rows ? p->n - r : rows;
        const uint64_t from = at + (uint64_t)r * p->stride;
        uint8_t *dst = (uint8_t *)(uintptr_t)to->host + (size_t)r * to->stride; /* ours */
        if (!ht_os_read_at(ht_gguf_fd(g, file), from, raw, n * p->stride)) {
            ht_fail_at(&err, HT_EIO, from, "%s: %zu bytes at %llu cannot be read", ht_gguf_path(g, file), n * p->stride,
                       (unsigned long long)from);
            return fail_once(k, &err);
        }
        if (to->type == p->type) {
            memcpy(dst, raw, n * p->stride);
            continue;
        }
        ht_type_dequant((ht_type)p->type, raw, (uint64_t)n * p->k, values);
        ht_type_quantise_coarse((ht_type)to->type, values, (uint64_t)n * p->k, dst);
    }
    return HT_OK;
}

/* The part of an expert's stand-in; its type is the shape's, or its own where that is no wider. */
static ht_part part_of(const ht_standins *s, uint32_t layer, uint32_t expert, uint32_t role)
{
    const shape *sh = &s->layers[layer];
    ht_part p = s->m->layers[layer].ffn.experts[expert][role];

    if (!p.host)
        return p;
    p.type = narrower(p.type, sh->type[role], p.k);
    p.stride = ht_type_row_bytes(ht_type_get(p.type), p.k);
    p.host = s->memory + sh->first + expert * sh->each + sh->at[role];
    return p;
}

static bool tell(const maker *k)
{
    return !k->p->progress || k->p->progress(k->p->progress_user, "encoding stand-ins", atomic_load(&k->done), k->total);
}

/* One expert after the other; told: by the caller's thread. */
static void make_all(maker *k, bool told)
{
    const ht_model *m = k->s->m;
    const uint64_t strip = STRIP > m->max_k ? STRIP : m->max_k;
    float *values = malloc(strip * sizeof *values);
    uint8_t *raw = malloc(strip * 4); /* no type takes more */
    ht_error err;

    if (!values || !raw) {
        ht_fail(&err, HT_ENOMEM, "memory for encoding experts");
        fail_once(k, &err);
    }
    for (uint32_t i; !atomic_load(&k->stop) && (i = atomic_fetch_add(&k->next, 1)) < k->total;) {
        uint32_t layer = 0;
        for (; !k->s->layers[layer].there || i >= m->layers[layer].ffn.n_expert; layer++)
            i -= k->s->layers[layer].there ? m->layers[layer].ffn.n_expert : 0;
        for (uint32_t r = 0; r < HT_N_ROLES; r++) {
            const ht_part *own = &m->layers[layer].ffn.experts[i][r];
            const ht_part to = part_of(k->s, layer, i, r);
            if (own->host && encode(k, own, &to, raw, values) != HT_OK)
                break;
        }
        atomic_fetch_add(&k->done, 1);
        if (told && !tell(k)) {
            ht_fail(&err, HT_ECANCELLED, "cancelled");
            fail_once(k, &err);
        }
    }
    free(values);
    free(raw);
}

static void make(void *arg) { make_all(arg, false); }

static void make_in_threads(maker *k, uint32_t n_threads)
{
    ht_os_thread threads[MAX_THREADS];
    uint32_t n = 0;

    while (n + 1 < n_threads && n < MAX_THREADS && ht_os_thread_start(&threads[n], make, k, "stand-ins") == HT_OK)
        n++;
    make_all(k, true);
    for (uint32_t i = 0; i < n; i++)
        ht_os_thread_join(&threads[i]);
}

ht_status ht_standins_open(ht_standins **out, const ht_model *m, const ht_standins_params *p, ht_error *err)
{
    ht_standins *s = calloc(1, sizeof *s);
    maker k = { .s = s, .p = p };
    size_t total = 0;

    *out = NULL;
    if (!s || !(s->layers = calloc(m->n_layer, sizeof *s->layers))) {
        free(s);
        return ht_fail(err, HT_ENOMEM, "stand-ins of %u layers", m->n_layer);
    }
    s->m = m;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        s->layers[il] = shape_of(&m->layers[il].ffn, p->type);
        s->layers[il].first = total;
        total += s->layers[il].each * m->layers[il].ffn.n_expert;
        k.total += s->layers[il].there ? m->layers[il].ffn.n_expert : 0;
    }
    if (total) {
        s->reserved = (total + ht_os_page() - 1) / ht_os_page() * ht_os_page();
        s->memory = ht_os_reserve(s->reserved);
        if (!s->memory) {
            ht_standins_close(s);
            return ht_fail(err, HT_ENOMEM, "%zu bytes of address space for stand-ins", total);
        }
        make_in_threads(&k, p->threads);
    }
    if (k.err.status != HT_OK) {
        if (err)
            *err = k.err;
        ht_standins_close(s);
        return k.err.status;
    }
    *out = s;
    return HT_OK;
}

void ht_standins_close(ht_standins *s)
{
    if (!s)
        return;
    if (s->memory)
        ht_os_release(s->memory, s->reserved);
    free(s->layers);
    free(s);
}

bool ht_standins_parts(const ht_standins *s, uint32_t layer, uint32_t expert, ht_part out[HT_N_ROLES])
{
    if (!s || !s->layers[layer].there)
        return false;
    for (uint32_t r = 0; r < HT_N_ROLES; r++)
        out[r] = part_of(s, layer, expert, r);
    return true;
}
