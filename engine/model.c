/* SPDX-License-Identifier: MIT
 * Loading a model: hyper-parameters, global tensors, sizes. See model.h; layers are in model_layer.c, rotations in
 * rope.c. */
#include "engine/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"

enum { MAX_DIM = 1 << 24 }; /* no width, head count or vocabulary beyond this is believed */

void *ht_model_alloc(ht_model *m, size_t n, size_t size)
{
    if (m->n_chunks == m->cap_chunks) {
        size_t cap = m->cap_chunks ? m->cap_chunks * 2 : 64;
        void **p = realloc(m->chunks, cap * sizeof *p);
        if (!p)
            return NULL;
        m->chunks = p;
        m->cap_chunks = cap;
    }
    void *p = calloc(n ? n : 1, size);
    if (p) {
        m->chunks[m->n_chunks++] = p;
        m->table_bytes += (uint64_t)n * size;
    }
    return p;
}

void ht_model_free(ht_model *m)
{
    for (size_t i = 0; i < m->n_chunks; i++)
        free(m->chunks[i]);
    free(m->chunks);
    ht_pack_close(&m->pack);
    memset(m, 0, sizeof *m);
}

const char *ht_load_key(const ht_loader *ld, char *buf, const char *suffix)
{
    snprintf(buf, 160, "%s.%s", ld->arch, suffix);
    return buf;
}

ht_status ht_load_u32(const ht_loader *ld, const char *suffix, uint32_t il, uint32_t *out)
{
    char key[160];
    const ht_kv *kv = ht_gguf_find(ld->g, ht_load_key(ld, key, suffix));
    int64_t v;

    if (!kv)
        return HT_OK;
    if (kv->type == HT_KV_ARRAY && il >= kv->n)
        return ht_fail_at(ld->err, HT_EFORMAT, kv->offset, "%s has %llu values, layer %u needs its own", key,
                          (unsigned long long)kv->n, il);
    if (!ht_kv_int(kv, kv->type == HT_KV_ARRAY ? il : 0, &v))
        return ht_fail_at(ld->err, HT_EFORMAT, kv->offset, "%s is not a whole number", key);
    if (v < 0 || v > MAX_DIM)
        return ht_fail_at(ld->err, HT_EFORMAT, kv->offset, "%s is %lld, outside 0..%d", key, (long long)v, MAX_DIM);
    *out = (uint32_t)v;
    return HT_OK;
}

ht_status ht_load_f32(const ht_loader *ld, const char *suffix, float *out)
{
    char key[160];
    ht_status st = ht_gguf_f32(ld->g, ht_load_key(ld, key, suffix), out, ld->err);
    if (st == HT_OK && !(*out >= 0.0f && isfinite(*out))) /* scales, epsilons, bases: none makes sense below zero */
        return ht_fail_at(ld->err, HT_EFORMAT, ht_gguf_find(ld->g, key)->offset,
                          "%s is %g, wanted a finite number from 0 on", key, (double)*out);
    return st;
}

ht_status ht_load_bool(const ht_loader *ld, const char *suffix, bool *out)
{
    char key[160];
    return ht_gguf_bool(ld->g, ht_load_key(ld, key, suffix), out, ld->err);
}

static void layer_name(char name[128], const char *fmt, uint32_t il)
{
    /* fmt comes from this room's own literals; the layer number is its only argument. */
    const char *mark = strstr(fmt, "%u");
    if (mark)
        snprintf(name, 128, "%.*s%u%s", (int)(mark - fmt), fmt, il, mark + 2);
    else
        snprintf(name, 128, "%s", fmt);
}

const ht_tensor *ht_load_tensor(const ht_loader *ld, const char *fmt, uint32_t il)
{
    char name[128];
    layer_name(name, fmt, il);
    return ht_gguf_find_tensor(ld->g, name);
}

static void max_u32(uint32_t *a, uint32_t b) { *a = b > *a ? b : *a; }

const ht_pack_tensor *ht_load_packed(const ht_loader *ld, const char *fmt, uint32_t il)
{
    char name[128];
    layer_name(name, fmt, il);
    return ht_pack_find(ld->m->pack, name);
}

static ht_status missing(const ht_loader *ld, const char *fmt, uint32_t il)
{
    const char *mark = strstr(fmt, "%u");
    if (!mark)
        return ht_fail(ld->err, HT_EFORMAT, "%s: tensor %s is missing", ht_gguf_path(ld->g, 0), fmt);
    return ht_fail(ld->err, HT_EFORMAT, "%s: tensor %.*s%u%s is missing", ht_gguf_path(ld->g, 0), (int)(mark - fmt),
                   fmt, il, mark + 2);
}

ht_status ht_load_check(const ht_loader *ld, const ht_tensor *t, uint64_t k, uint64_t n, uint64_t e)
{
    uint64_t want[3] = { k, n, e };

    if (!ht_type_get(t->type))
        return ht_fail_at(ld->err, HT_EUNSUPPORTED, t->info_offset,
                          "tensor %.*s has type %s, which cannot be computed with", (int)t->name.n, t->name.s,
                          ht_type_name(t->type));
    for (int i = 0; i < 3; i++)
        if ((want[i] && t->ne[i] != want[i]) || t->ne[i] == 0 || t->ne[i] > MAX_DIM)
            return ht_fail_at(ld->err, HT_EFORMAT, t->info_offset,
                              "tensor %.*s has shape [%llu, %llu, %llu], wanted [%llu, %llu, %llu] (0: any)",
                              (int)t->name.n, t->name.s, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                              (unsigned long long)t->ne[2], (unsigned long long)k, (unsigned long long)n,
                              (unsigned long long)e);
    if (t->ne[3] != 1)
        return ht_fail_at(ld->err, HT_EFORMAT, t->info_offset, "tensor %.*s has four dimensions", (int)t->name.n,
                          t->name.s);
    return HT_OK;
}

ht_status ht_load_check_packed(const ht_loader *ld, const ht_pack_tensor *t, uint64_t k, uint64_t n, uint64_t e)
{
    if ((k && t->ne[0] != k) || (n && t->ne[1] != n) || t->ne[2] != e)
        return ht_fail_at(ld->err, HT_EFORMAT, t->block->tensor->info_offset,
                          "tensor %s, packed, has shape [%llu, %llu, %llu], wanted [%llu, %llu, %llu] (0: any)", t->name,
                          (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                          (unsigned long long)k, (unsigned long long)n, (unsigned long long)e);
    max_u32(&ld->m->max_k, (uint32_t)t->ne[0]);
    return HT_OK;
}

ht_status ht_load_matrix(ht_loader *ld, const char *fmt, uint32_t il, uint64_t k, uint64_t n, bool need, ht_part *out)
{
    const ht_tensor *t = ht_load_tensor(ld, fmt, il);
    ht_status st;

    memset(out, 0, sizeof *out);
    const ht_pack_tensor *packed = t ? NULL : ht_load_packed(ld, fmt, il);
    if (packed) {
        if ((st = ht_load_check_packed(ld, packed, k, n, 1)) == HT_OK)
            *out = ht_pack_part(packed, 0);
        return st;
    }
    if (!t)
        return need ? missing(ld, fmt, il) : HT_OK;
    if ((st = ht_load_check(ld, t, k, n, 1)) != HT_OK)
        return st;
    *out = (ht_part){ .type = t->type,
                      .n = (uint32_t)t->ne[1],
                      .k = (uint32_t)t->ne[0],
                      .stride = ht_type_row_bytes(ht_type_get(t->type), t->ne[0]),
                      .host = t->data };
    if (out->k > ld->m->max_k)
        ld->m->max_k = out->k;
    return HT_OK;
}

ht_status ht_load_vector(ht_loader *ld, const char *fmt, uint32_t il, uint64_t n, bool need, const float **out)
{
    const ht_tensor *t = ht_load_tensor(ld, fmt, il);

    *out = NULL;
    if (!t)
        return need ? missing(ld, fmt, il) : HT_OK;
    const ht_type_info *type = ht_type_get(t->type);
    uint64_t have = t->ne[0] * t->ne[1]; /* neither exceeds the file's size: checked by the reader */
    if (!type || t->ne[0] % type->block)
        return ht_fail_at(ld->err, HT_EUNSUPPORTED, t->info_offset, "tensor %.*s has type %s", (int)t->name.n,
                          t->name.s, ht_type_name(t->type));
    if (t->ne[2] != 1 || t->ne[3] != 1 || (n && have != n) || have == 0 || have > MAX_DIM)
        return ht_fail_at(ld->err, HT_EFORMAT, t->info_offset, "tensor %.*s has %llu values, wanted %llu",
                          (int)t->name.n, t->name.s, (unsigned long long)have * t->ne[2] * t->ne[3],
                          (unsigned long long)n);
    float *v = ht_model_alloc(ld->m, have, sizeof *v);
    if (!v)
        return ht_fail(ld->err, HT_ENOMEM, "model tables");
    ht_type_dequant((ht_type)t->type, t->data, have, v);
    ld->m->bytes_per_token += t->bytes; /* norms, biases, small tables: every step reads them whole */
    *out = v;
    return HT_OK;
}

ht_status ht_load_norm(ht_loader *ld, const char *base, uint32_t il, uint64_t n, bool need, ht_norm *out)
{
    char fmt[96];
    ht_status st;

    snprintf(fmt, sizeof fmt, "%s.weight", base);
    if ((st = ht_load_vector(ld, fmt, il, n, need, &out->w)) != HT_OK)
        return st;
    snprintf(fmt, sizeof fmt, "%s.bias", base);
    return ht_load_vector(ld, fmt, il, n, false, &out->b);
}

static ht_status not_sparse(const ht_loader *ld, ht_str arch)
{
    return ht_fail(ld->err, HT_EUNSUPPORTED,
                   "%s: a PowerInfer model of architecture \"%.*s\"; of PowerInfer's, llama, bamboo, falcon and opt are "
                   "supported",
                   ht_gguf_path(ld->g, 0), arch.n > 60 ? 60 : (int)arch.n, arch.s);
}

static ht_status find_arch(ht_loader *ld)
{
    ht_str name = { "", 0 };
    ht_status st = ht_gguf_str(ld->g, "general.architecture", &name, ld->err);
    const char *path = ht_gguf_path(ld->g, 0);

    if (st != HT_OK)
        return st;
    if (name.n == 0)
        return ht_fail(ld->err, HT_EUNSUPPORTED, "%s: the file names no architecture (general.architecture)", path);
    ld->m->arch = ht_arch_find(name.s, name.n);
    if (ld->m->arch && ht_gguf_powerinfer(ld->g) && !ht_activation_has_zeros(ld->m->arch->sparse_act))
        return not_sparse(ld, name);
    if (ld->m->arch) {
        ld->arch = ld->m->arch->name;
        return HT_OK;
    }
    const char *what = ht_arch_foreign(name.s, name.n);
    if (!what && ht_gguf_powerinfer(ld->g))
        return not_sparse(ld, name);
    if (what)
        return ht_fail(ld->err, HT_EUNSUPPORTED, "%s: architecture \"%.*s\" is %s, which writes no text", path,
                       (int)name.n, name.s, what);
    return ht_fail(ld->err, HT_EUNSUPPORTED, "%s: architecture \"%.*s\" is not supported", path,
                   name.n > 60 ? 60 : (int)name.n, name.s);
}

static ht_status need_range(const ht_loader *ld, const char *suffix, uint32_t v, uint32_t lo, uint64_t hi)
{
    if (v >= lo && v <= hi)
        return HT_OK;
    char key[160];
    const ht_kv *kv = ht_gguf_find(ld->g, ht_load_key(ld, key, suffix));
    if (!kv)
        return ht_fail(ld->err, HT_EFORMAT, "%s: key %s is missing", ht_gguf_path(ld->g, 0), key);
    return ht_fail_at(ld->err, HT_EFORMAT, kv->offset, "%s is %u, outside %u..%llu", key, v, lo,
                      (unsigned long long)hi);
}

/* Any finite number: a predictor's scores have no range. */
static ht_status load_threshold(const ht_loader *ld)
{
    static const char key[] = "powerinfer.sparse_threshold";
    ht_model *m = ld->m;
    ht_status st = ht_gguf_f32(ld->g, key, &m->sparse_threshold, ld->err);

    if (st == HT_OK && !isfinite(m->sparse_threshold))
        return ht_fail_at(ld->err, HT_EFORMAT, ht_gguf_find(ld->g, key)->offset, "%s is %g, wanted a finite number", key,
                          (double)m->sparse_threshold);
    return st;
}

static ht_status load_hparams(ht_loader *ld)
{
    ht_model *m = ld->m;
    ht_status st;
    ht_str act = { NULL, 0 };
    uint32_t n_predict = 0;
    char key[160];

    if (ht_gguf_n_tensors(ld->g) == 0)
        return ht_fail(ld->err, HT_EFORMAT, "%s: the file holds metadata but no weights (a vocabulary only)",
                       ht_gguf_path(ld->g, 0));
    m->norm_eps = 1e-5f;
    m->residual_scale = m->logit_scale = m->embed_scale = 1.0f;
    if ((st = ht_load_u32(ld, "block_count", 0, &m->n_layer)) ||
        (st = ht_load_u32(ld, "embedding_length", 0, &m->d_model)) ||
        (st = ht_load_u32(ld, "context_length", 0, &m->n_ctx_train)) ||
        (st = ht_load_f32(
             ld, m->arch->norm == HT_NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
             &m->norm_eps)) ||
        (st = ht_load_f32(ld, "embedding_scale", &m->embed_scale)) ||
        (st = ht_load_f32(ld, "residual_scale", &m->residual_scale)) ||
        (st = ht_load_f32(ld, "logit_scale", &m->logit_scale)) ||
        (st = ht_load_f32(ld, "final_logit_softcapping", &m->final_softcap)) ||
        (st = ht_load_f32(ld, "attn_logit_softcapping", &m->attn_softcap)) ||
        /* Every layer has at least one tensor, so a layer count beyond the tensors is a lie that must cost no
         * memory. */
        (st = need_range(ld, "block_count", m->n_layer, 1, ht_gguf_n_tensors(ld->g))) ||
        (st = need_range(ld, "embedding_length", m->d_model, 1, MAX_DIM)) ||
        /* The last blocks may be a draft head (multi-token prediction), which is no part of the model proper. */
        (st = ht_load_u32(ld, "nextn_predict_layers", 0, &n_predict)) ||
        (st = need_range(ld, "nextn_predict_layers", n_predict, 0, m->n_layer - 1)))
        return st;
    m->n_layer -= n_predict;
    if (m->arch->embed_sqrt)
        m->embed_scale = sqrtf((float)m->d_model);
    if (m->logit_scale == 0.0f)
        m->logit_scale = 1.0f;
    if (m->arch->logits_divided)
        m->logit_scale = 1.0f / m->logit_scale;
    if (m->n_ctx_train == 0) {
        if ((st = need_range(ld, "context_length", 0,
                             ht_gguf_find(ld->g, ht_load_key(ld, key, "context_length")) != NULL, MAX_DIM)) != HT_OK)
            return st;
        m->n_ctx_train = 2048; /* the file does not say */
    }
    m->act = ht_gguf_powerinfer(ld->g) ? m->arch->sparse_act : m->arch->act;
    if ((st = load_threshold(ld)) != HT_OK)
        return st;
    if ((st = ht_gguf_str(ld->g, ht_load_key(ld, key, "hidden_activation"), &act, ld->err)) != HT_OK)
        return st;
    if (act.s && !ht_activation_parse(act.s, act.n, &m->act, &m->act_param))
        return ht_fail(ld->err, HT_EUNSUPPORTED,
                       "%s is \"%.*s\": known are silu, gelu, gelu_tanh, relu, relu2, fatrelu:T, drelu", key,
                       act.n > 40 ? 40 : (int)act.n, act.s);
    return HT_OK;
}

static ht_status load_globals(ht_loader *ld)
{
    ht_model *m = ld->m;
    ht_status st;

    if ((st = ht_load_matrix(ld, "token_embd.weight", 0, m->d_model, 0, true, &m->embed)) ||
        (st = ht_load_norm(ld, "output_norm", 0, m->d_model, true, &m->output_norm)) ||
        (st = ht_load_matrix(ld, "output.weight", 0, m->d_model, m->embed.n, false, &m->output)) ||
        (st = ht_load_vector(ld, "output.bias", 0, m->embed.n, false, &m->output_b)))
        return st;
    m->n_vocab = m->embed.n;
    if (m->arch->positions) {
        const uint32_t skipped = m->arch->position_offset;
        if ((st = ht_load_matrix(ld, "position_embd.weight", 0, m->d_model, 0, true, &m->positions)) != HT_OK)
            return st;
        if (m->positions.n <= skipped)
            return ht_fail_at(ld->err, HT_EFORMAT, ht_load_tensor(ld, "position_embd.weight", 0)->info_offset,
                              "position_embd.weight has %u rows, wanted more than %u", m->positions.n, skipped);
        m->n_positions = m->positions.n - skipped;
        m->n_ctx_train = m->n_ctx_train < m->n_positions ? m->n_ctx_train : m->n_positions;
    }
    if (!m->output.host)
        m->output = m->embed; /* tied */
    return HT_OK;
}

/* Stored bytes of a matrix; rows may lie among others. */
static uint64_t part_bytes(const ht_part *p)
{
    ht_neurons g;

    if (!p->host)
        return 0;
    if (ht_neurons_of(&g, p)) /* scales, and rows */
        return (uint64_t)p->n / 32 * (g.d_stride * 32 / ht_type_get(p->type)->block + g.sc_stride) +
               (uint64_t)p->n * g.row_bytes;
    return (uint64_t)p->n * ht_type_row_bytes(ht_type_get(p->type), p->k);
}

/* Of one role of an expert: their widths may differ. */
static uint64_t mean_bytes(const ht_ffn *f, int role)
{
    uint64_t sum = 0;

    for (uint32_t e = 0; e < f->n_expert; e++)
        sum += part_bytes(&f->experts[e][role]);
    return f->n_expert ? (sum + f->n_expert / 2) / f->n_expert : 0;
}

/* Maxima and byte counts over layers; the vectors were counted as they were loaded. */
static void measure(ht_model *m)
{
    uint64_t bytes = m->bytes_per_token + m->embed.stride + m->positions.stride + part_bytes(&m->output);

    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_layer *l = &m->layers[il];
        const ht_attn *a = &l->attn;
        const ht_delta *d = &l->delta;
        const ht_ffn *f = &l->ffn;
        if (a->q.host) {
            max_u32(&m->max_q, a->q.n);
            max_u32(&m->max_kv, a->n_kv * (a->k_dim > a->v_dim ? a->k_dim : a->v_dim));
            max_u32(&m->max_attn_out, a->n_head * a->v_dim);
            max_u32(&m->max_head, a->k_dim > a->v_dim ? a->k_dim : a->v_dim);
            bytes += part_bytes(&a->q) + part_bytes(&a->k) + part_bytes(&a->v) + part_bytes(&a->o);
        }
        if (d->qkv.host) {
            m->recurrent = true;
            max_u32(&m->max_conv, d->qkv.n);
            max_u32(&m->max_inner, d->n_v * d->v_dim);
            max_u32(&m->max_v_heads, d->n_v);
            max_u32(&m->max_head, d->k_dim > d->v_dim ? d->k_dim : d->v_dim);
            bytes += part_bytes(&d->qkv) + part_bytes(&d->z) + part_bytes(&d->ba) + part_bytes(&d->alpha) +
                     part_bytes(&d->beta) + part_bytes(&d->o);
        }
        max_u32(&m->max_ff, f->n_ff);
        max_u32(&m->max_ff, f->shared_n_ff);
        max_u32(&m->max_expert, f->n_expert);
        max_u32(&m->max_used, f->n_used);
        bytes += part_bytes(&f->router) + part_bytes(&f->shared_gate);
        for (int r = 0; r < HT_N_ROLES; r++)
            m->ffn_bytes_per_token += part_bytes(&f->shared[r]) + f->n_used * mean_bytes(f, r);
    }
    m->bytes_per_token = bytes + m->ffn_bytes_per_token;
    for (uint64_t i = 0; i < ht_gguf_n_tensors(m->gguf); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(m->gguf, i);
        m->weight_bytes += t->bytes;
        if (t->name.n < 7 || memcmp(t->name.s, "hearth.", 7) != 0) /* stretches and what a profile knows */
            m->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    for (uint32_t i = 0; m->pack && i < m->pack->n_tensors; i++) {
        const uint64_t *ne = m->pack->tensors[i].ne;
        m->n_params += ne[0] * ne[1] * ne[2];
    }
    for (uint32_t i = 0; m->pack && i < m->pack->n_blocks; i++) {
        const ht_packed *s = &m->pack->blocks[i].shape;
        const size_t row =
            ht_type_row_bytes(ht_type_get(s->type[HT_ROLE_DOWN]), s->n_ff < HT_SEGMENT ? s->n_ff : HT_SEGMENT);
        m->unpack_bytes = row * HT_NEURONS_TILE > m->unpack_bytes ? row * HT_NEURONS_TILE : m->unpack_bytes;
    }
}

ht_status ht_model_load(ht_model *m, const ht_gguf *g, ht_error *err)
{
    ht_loader ld = { .m = m, .g = g, .err = err };
    ht_status st;

    memset(m, 0, sizeof *m);
    m->gguf = g;
    if ((st = ht_pack_open(&m->pack, g, err)) || (st = find_arch(&ld)) || (st = load_hparams(&ld)) || (st = load_globals(&ld)))
        goto fail;
    m->layers = ht_model_alloc(m, m->n_layer, sizeof *m->layers);
    if (!m->layers) {
        st = ht_fail(err, HT_ENOMEM, "tables of %u layers", m->n_layer);
        goto fail;
    }
    for (uint32_t il = 0; il < m->n_layer; il++)
        if ((st = ht_load_layer(&ld, il)) != HT_OK)
            goto fail;
    measure(m);
    if (m->pack)
        m->table_bytes += m->pack->bytes;
    return HT_OK;

fail:
    ht_model_free(m);
    return st;
}
