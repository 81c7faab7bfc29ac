/* SPDX-License-Identifier: MIT
 * Hints from a profile's file; see hints.h. docs/profile.md has the list of keys and tensors. */
#include "engine/hints.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/predict.h"

typedef struct reader {
    ht_hints *h;
    const char *path;
    ht_error *err;
} reader;

static ht_status nonsense(const reader *r, uint32_t il, const char *what)
{
    return ht_fail(r->err, HT_EFORMAT, "%s: %s of layer %u makes no sense", r->path, what, il);
}

static const ht_tensor *find(const reader *r, uint32_t il, const char *what)
{
    char name[80];

    snprintf(name, sizeof name, "hearth.blk.%u.%s", il, what);
    return ht_gguf_find_tensor(r->h->file, name);
}

static bool is_shape(const ht_tensor *t, uint64_t k, uint64_t n)
{
    return t && t->data && t->ne[0] == k && t->ne[1] == n && t->ne[2] == 1 && t->ne[3] == 1;
}

/* n rows of k floats where they are there. least, most: bounds of each; a threshold may be infinite. */
static ht_status read_floats(const reader *r, uint32_t il, const char *what, uint64_t k, uint64_t n, float least, float most,
                             const float **out)
{
    const ht_tensor *t = find(r, il, what);

    *out = NULL;
    if (!t)
        return HT_OK;
    if (!is_shape(t, k, n) || t->type != HT_F32 || (uintptr_t)t->data % sizeof(float))
        return nonsense(r, il, what);
    const float *v = t->data;
    for (uint64_t i = 0; i < k * n; i++)
        if (!(v[i] >= least && v[i] <= most))
            return nonsense(r, il, what);
    *out = v;
    return HT_OK;
}

static ht_part matrix(const ht_tensor *t)
{
    return (ht_part){ .layout = HT_LAYOUT_ROWS,
                      .type = t->type,
                      .n = (uint32_t)t->ne[1],
                      .k = (uint32_t)t->ne[0],
                      .stride = ht_type_row_bytes(ht_type_get(t->type), t->ne[0]),
                      .host = t->data };
}

static ht_status read_ahead(const reader *r, uint32_t il)
{
    const ht_model *m = r->h->m;
    const ht_ffn *ff = &m->layers[il].ffn;
    ht_hints_layer *l = &r->h->layers[il];
    const ht_tensor *a = find(r, il, "ahead_a.weight"), *b = find(r, il, "ahead_b.weight");
    ht_status st = read_floats(r, il, "ahead_threshold", ff->n_ff, 1, -INFINITY, INFINITY, &l->ahead_threshold);

    if (st != HT_OK || (!a && !b && !l->ahead_threshold))
        return st;
    const uint64_t rank = a ? a->ne[1] : 0;
    if (!l->ahead_threshold || il == 0 || ff->n_expert > 1 || rank == 0 || rank > m->d_model || !is_shape(a, m->d_model, rank) ||
        !is_shape(b, rank, ff->n_ff) || !ht_type_get(a->type) || !ht_type_get(b->type))
        return nonsense(r, il, "the look-ahead");
    l->ahead_a = matrix(a);
    l->ahead_b = matrix(b);
    r->h->max_rank = rank > r->h->max_rank ? (uint32_t)rank : r->h->max_rank;
    r->h->max_n_ff = ff->n_ff > r->h->max_n_ff ? ff->n_ff : r->h->max_n_ff;
    return HT_OK;
}

static ht_status read_layer(const reader *r, uint32_t il)
{
    const ht_ffn *ff = &r->h->m->layers[il].ffn;
    ht_hints_layer *l = &r->h->layers[il];
    ht_status st = HT_OK;

    if (ff->n_expert > 1)
        st = read_floats(r, il, "expert_frequency", ff->n_expert, 1, 0.0f, 1.0f, &l->expert_frequency);
    if (st == HT_OK && ff->n_ff)
        st = read_floats(r, il, "frequency", ff->n_ff, ff->n_expert, 0.0f, 1.0f, &l->frequency);
    return st == HT_OK ? read_ahead(r, il) : st;
}

ht_status ht_hints_open(ht_hints **out, const char *path, const ht_model *m, const char *fingerprint, ht_error *err)
{
    reader r = { .path = path, .err = err };
    ht_status st;

    *out = NULL;
    r.h = calloc(1, sizeof *r.h);
    if (!r.h)
        return ht_fail(err, HT_ENOMEM, "hints of a profile");
    r.h->m = m;
    r.h->layers = calloc(m->n_layer, sizeof *r.h->layers);
    if (!r.h->layers) {
        ht_fail(err, HT_ENOMEM, "hints of a profile");
        ht_hints_close(&r.h);
        return HT_ENOMEM;
    }
    if ((st = ht_gguf_open(&r.h->file, path, err)) == HT_OK)
        st = ht_predict_check(r.h->file, path, fingerprint, err);
    for (uint32_t il = 0; il < m->n_layer && st == HT_OK; il++)
        st = read_layer(&r, il);
    if (st != HT_OK) {
        ht_hints_close(&r.h);
        return st;
    }
    *out = r.h;
    return HT_OK;
}

void ht_hints_close(ht_hints **hh)
{
    ht_hints *h = hh ? *hh : NULL;

    if (!h)
        return;
    ht_gguf_close(&h->file);
    free(h->layers);
    free(h);
    *hh = NULL;
}

bool ht_hints_heat(const ht_hints *h, uint32_t n_expert, float *heat)
{
    bool known = false;

    for (uint32_t il = 0; il < h->m->n_layer; il++) {
        const float *f = h->layers[il].expert_frequency;
        const uint32_t n = f ? h->m->layers[il].ffn.n_expert : 0;
        for (uint32_t e = 0; e < n_expert; e++)
            heat[(size_t)il * n_expert + e] = e < n ? f[e] : 0.0f;
        known |= f != NULL;
    }
    return known;
}

uint32_t ht_hints_ahead(const ht_hints *h, uint32_t il, const ht_act *x, const ht_hints_work *w, ht_op ops[HT_HINTS_OPS])
{
    const ht_hints_layer *l = il < h->m->n_layer ? &h->layers[il] : NULL;
    uint32_t n = 0;

    if (!l || !l->ahead_a.host)
        return 0;
    const uint32_t rank = l->ahead_a.n, n_ff = l->ahead_b.n;
    ht_act low = w->low;
    low.stride = rank;
    if (low.q8.stride)
        low.q8.stride = rank % 32 ? 0 : rank;
    ops[n++] = (ht_op){ .kind = HT_OP_MATMUL, .n_tok = 1,
                        .matmul = { .w = l->ahead_a, .x = *x, .y = low.f, .y_stride = rank, .scale = 1.0f } };
    if (low.q8.stride)
        ops[n++] = (ht_op){ .kind = HT_OP_QUANTISE, .n_tok = 1, .quantise = { .x = low, .k = rank } };
    ops[n++] = (ht_op){ .kind = HT_OP_MATMUL, .n_tok = 1,
                        .matmul = { .w = l->ahead_b, .x = low, .y = w->scores, .y_stride = n_ff, .scale = 1.0f } };
    ops[n++] = (ht_op){ .kind = HT_OP_PREDICT, .n_tok = 1,
                        .predict = { .n = n_ff, .k = h->m->d_model, .threshold = l->ahead_threshold, .scores = w->scores,
                                     .scores_stride = n_ff, .mask = w->mask, .mask_stride = (n_ff + 31) / 32 } };
    return n;
}
