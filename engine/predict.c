/* SPDX-License-Identifier: MIT
 * Predictors from a profile's file; see predict.h. docs/profile.md has the list of keys and tensors. */
#include "engine/predict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/signs.h"
#include "engine/base/types.h"

enum { VERSION = 1 };

typedef struct reader {
    ht_predict *p;
    const ht_model *m;
    const char *path;
    ht_error *err;
} reader;

static ht_status nonsense(const reader *r, uint32_t il, const char *what)
{
    return ht_fail(r->err, HT_EFORMAT, "%s: the predictor of layer %u makes no sense: %s", r->path, il, what);
}

/* A tensor of two dimensions, or NULL. */
static const ht_tensor *tensor(const reader *r, uint32_t il, const char *what, uint64_t k, uint64_t n)
{
    char name[80];

    snprintf(name, sizeof name, "hearth.blk.%u.%s", il, what);
    const ht_tensor *t = ht_gguf_find_tensor(r->p->file, name);
    return t && t->data && t->ne[0] == k && t->ne[1] == n && t->ne[2] == 1 && t->ne[3] == 1 ? t : NULL;
}

static ht_status read_thresholds(const reader *r, uint32_t il)
{
    const ht_ffn *ff = &r->m->layers[il].ffn;
    const ht_tensor *t = tensor(r, il, "predict_threshold", ff->n_ff, ff->n_expert);

    if (!t || t->type != HT_F32 || (uintptr_t)t->data % sizeof(float))
        return nonsense(r, il, "no threshold for each neuron");
    r->p->layers[il].threshold = t->data;
    for (uint64_t i = 0; i < (uint64_t)ff->n_ff * ff->n_expert; i++)
        if (isnan(r->p->layers[il].threshold[i]))
            return nonsense(r, il, "a threshold is no number");
    return HT_OK;
}

/* A number of 0 or more for each expert. */
static ht_status read_least(const reader *r, uint32_t il, const char *what, const float **out)
{
    const uint32_t n = r->m->layers[il].ffn.n_expert;
    const ht_tensor *t = tensor(r, il, what, n, 1);

    if (!t || t->type != HT_F32 || (uintptr_t)t->data % sizeof(float))
        return nonsense(r, il, "no two thresholds for each expert");
    *out = t->data;
    for (uint32_t i = 0; i < n; i++)
        if (!((*out)[i] >= 0.0f && isfinite((*out)[i])))
            return nonsense(r, il, "a threshold is no number of 0 or more");
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

/* A matrix of `rank` rows of d_model, one of n_ff rows of `rank`. */
static ht_status read_low_rank(const reader *r, uint32_t il)
{
    const ht_ffn *ff = &r->m->layers[il].ffn;
    ht_predict_layer *l = &r->p->layers[il];
    char name[80];

    snprintf(name, sizeof name, "hearth.blk.%u.predict_a.weight", il);
    const ht_tensor *t = ht_gguf_find_tensor(r->p->file, name);
    uint64_t rank = t ? t->ne[1] : 0;
    const ht_tensor *a = tensor(r, il, "predict_a.weight", r->m->d_model, rank);
    const ht_tensor *b = tensor(r, il, "predict_b.weight", rank, ff->n_ff);
    if (ff->n_expert > 1)
        return ht_fail(r->err, HT_EUNSUPPORTED, "%s: layer %u: low-rank predictors are for dense blocks", r->path, il);
    if (!a || !b || rank == 0 || rank > r->m->d_model || !ht_type_get(a->type) || !ht_type_get(b->type))
        return nonsense(r, il, "no two matrices of one rank");
    l->a = matrix(a);
    l->b = matrix(b);
    if (r->p->max_rank < rank)
        r->p->max_rank = (uint32_t)rank;
    r->p->bytes_per_token += a->bytes + b->bytes;
    return HT_OK;
}

static ht_status read_layer(const reader *r, uint32_t il, ht_str method)
{
    static const char *const names[] = { "exact", "sign", "lowrank", "threshold" };
    enum { KINDS = sizeof names / sizeof *names };
    const ht_ffn *ff = &r->m->layers[il].ffn;
    ht_predict_layer *l = &r->p->layers[il];
    ht_status st;
    uint32_t k = 0;

    while (k < KINDS && (method.n != strlen(names[k]) || memcmp(method.s, names[k], method.n) != 0))
        k++;
    if (k == KINDS && method.n)
        return ht_fail(r->err, HT_EUNSUPPORTED, "%s: layer %u has a predictor that this version does not know", r->path,
                       il);
    l->kind = k == KINDS ? HT_PREDICT_EXACT : (ht_predict_kind)k;
    if (l->kind == HT_PREDICT_EXACT)
        return HT_OK;
    if (l->kind == HT_PREDICT_THRESHOLD) {
        r->p->thresholds = true;
        st = read_least(r, il, "gate_threshold", &l->gate_least);
        return st == HT_OK ? read_least(r, il, "hidden_threshold", &l->hidden_least) : st;
    }
    r->p->masks = true;
    if ((st = read_thresholds(r, il)) != HT_OK)
        return st;
    r->p->bytes_per_token += (uint64_t)ff->n_ff * ff->n_used * sizeof(float);
    if (l->kind == HT_PREDICT_LOW_RANK)
        return read_low_rank(r, il);
    l->signs_bytes = ht_signs_bytes(ff->n_ff, r->m->d_model);
    r->p->bytes += l->signs_bytes * ff->n_expert;
    r->p->bytes_per_token += l->signs_bytes * ff->n_used;
    return HT_OK;
}

ht_status ht_predict_check(const ht_gguf *g, const char *path, const char *fingerprint, ht_error *err)
{
    ht_str type = { NULL, 0 }, model = { NULL, 0 };
    uint32_t version = 0;
    ht_status st;

    if ((st = ht_gguf_str(g, "general.type", &type, err)) ||
        (st = ht_gguf_str(g, "hearth.profile.model", &model, err)) ||
        (st = ht_gguf_u32(g, "hearth.profile.version", &version, err)))
        return st;
    const bool packed = ht_gguf_find(g, "hearth.pack.version") != NULL; /* carries the profile of its own */
    if (!packed && (type.n != 14 || memcmp(type.s, "hearth.profile", 14) != 0))
        return ht_fail(err, HT_EFORMAT, "%s is no profile", path);
    if (version != VERSION)
        return ht_fail(err, HT_EUNSUPPORTED,
                       "%s: profiles of version %u are unknown here; this program reads version %u", path, version,
                       VERSION);
    if (!packed && (st = ht_gguf_verify(g, err)) != HT_OK)
        return st;
    if (model.n != strlen(fingerprint) || memcmp(model.s, fingerprint, model.n) != 0)
        return ht_fail(err, HT_EMISMATCH, "%s is a profile of another model (%.32s, not %s)", path,
                       model.n == 32 ? model.s : "?", fingerprint);
    return HT_OK;
}

static ht_status read_all(const reader *r)
{
    const ht_kv *methods = ht_gguf_find(r->p->file, "hearth.profile.method");
    ht_status st = HT_OK;

    if (!methods)
        return ht_fail(r->err, HT_EINVAL,
                       "%s holds statistics but no predictor: profile the model without --density-only", r->path);
    if (methods->type != HT_KV_ARRAY || methods->elem != HT_KV_STRING || methods->n != r->m->n_layer)
        return ht_fail(r->err, HT_EFORMAT, "%s: hearth.profile.method is no list of %u names", r->path, r->m->n_layer);
    ht_str *names = calloc(r->m->n_layer, sizeof *names);
    if (!names)
        return ht_fail(r->err, HT_ENOMEM, "predictors");
    ht_kv_strings(methods, names);
    for (uint32_t il = 0; il < r->m->n_layer && st == HT_OK; il++)
        st = read_layer(r, il, names[il]);
    free(names);
    return st;
}

ht_status ht_predict_open(ht_predict **out, const char *path, const ht_model *m, const char *fingerprint, ht_error *err)
{
    reader r = { .m = m, .path = path, .err = err };
    ht_status st;

    *out = NULL;
    r.p = calloc(1, sizeof *r.p);
    if (!r.p)
        return ht_fail(err, HT_ENOMEM, "predictors");
    r.p->n_layer = m->n_layer;
    r.p->layers = calloc(m->n_layer, sizeof *r.p->layers);
    if (!r.p->layers)
        st = ht_fail(err, HT_ENOMEM, "predictors");
    else if ((st = ht_gguf_open(&r.p->file, path, err)) == HT_OK && (st = ht_predict_check(r.p->file, path, fingerprint, err)) == HT_OK)
        st = read_all(&r);
    if (st == HT_OK && r.p->bytes) {
        uint8_t *at = r.p->signs = aligned_alloc(64, ((size_t)r.p->bytes + 63) / 64 * 64);
        if (!at)
            st = ht_fail(err, HT_ENOMEM, "signs of the weights: %.0f MiB", (double)r.p->bytes / (1 << 20));
        for (uint32_t il = 0; at && il < m->n_layer; il++) {
            r.p->layers[il].signs = r.p->layers[il].signs_bytes ? at : NULL;
            at += r.p->layers[il].signs_bytes * m->layers[il].ffn.n_expert;
        }
    }
    if (st != HT_OK) {
        ht_predict_close(&r.p);
        return st;
    }
    *out = r.p;
    return HT_OK;
}

void ht_predict_close(ht_predict **pp)
{
    ht_predict *p = pp ? *pp : NULL;

    if (!p)
        return;
    ht_gguf_close(&p->file);
    free(p->signs);
    free(p->own_thresholds);
    free(p->layers);
    free(p);
    *pp = NULL;
}

ht_status ht_predict_prepare(ht_predict *p, const ht_model *m, ht_exec *exec, ht_error *err)
{
    ht_event done = 0;

    for (uint32_t il = 0; il < p->n_layer; il++)
        for (uint32_t e = 0; p->layers[il].signs && e < m->layers[il].ffn.n_expert; e++) {
            ht_op op = { .kind = HT_OP_SIGNS, .n_tok = 1 };
            op.signs = (ht_op_signs){ .w = *ht_predict_source(&m->layers[il].ffn, e),
                                      .signs = p->layers[il].signs + e * p->layers[il].signs_bytes };
            if (exec->ops->submit(exec, &op, 1, &done) != HT_OK)
                return ht_fail(err, HT_EUNSUPPORTED, "the %s executor cannot read the signs of this model's weights",
                               exec->ops->name);
        }
    return exec->ops->wait(exec, done, NULL);
}
