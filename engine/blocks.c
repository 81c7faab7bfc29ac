/* SPDX-License-Identifier: MIT
 * Weights of feed-forward blocks behind hearth.h, for who learns from them. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/objects.h"

static uint64_t row_bytes(const ht_part *p)
{
    return ht_type_row_bytes(ht_type_get(p->type), p->k);
}

/* Whatever its layout: elements, as blocks of its type. */
static uint64_t part_bytes(const ht_part *p)
{
    const ht_type_info *t = p->host ? ht_type_get(p->type) : NULL;
    return t ? (uint64_t)p->n * p->k / t->block * t->block_bytes : 0;
}

hearth_status hearth_model_get_block(const hearth_model *m, uint32_t layer, hearth_block_info *out)
{
    if (!m->exec || layer >= m->m.n_layer)
        return HEARTH_EINVAL;
    const ht_ffn *ff = &m->m.layers[layer].ffn;
    hearth_block_info i = { .n_ff = ff->n_ff,
                            .n_expert = ff->n_expert,
                            .n_used = ff->n_used,
                            .shared_n_ff = ff->shared_n_ff,
                            .gated = ff->experts[0][HT_ROLE_GATE].host != NULL,
                            .activation = ht_activation_name(m->m.act),
                            .activation_param = m->m.act_param,
                            .has_zeros = ht_activation_has_zeros(m->m.act),
                            .row_bytes = row_bytes(ht_predict_source(ff, 0)),
                            .plain = !ff->bias[HT_ROLE_GATE] && !ff->sub_norm.w };
    for (uint32_t e = 0; e < ff->n_expert; e++) /* widths may differ: the mean */
        for (int r = 0; r < HT_N_ROLES; r++)
            i.expert_bytes += part_bytes(&ff->experts[e][r]);
    i.expert_bytes = ff->n_expert ? i.expert_bytes / ff->n_expert : 0;
    HT_RESULT(out, &i);
    return HEARTH_OK;
}

/* Outputs [first, first + n) of a down projection that is held in rows of neurons: [n][neurons]. */
static void read_columns(const ht_part *p, uint32_t first, uint32_t n, float *dst)
{
    const ht_type_info *t = ht_type_get(p->type);
    float block[256]; /* a type's largest */

    for (uint32_t b = first / t->block; n && b <= (first + n - 1) / t->block; b++)
        for (uint32_t j = 0; j < p->n; j++) {
            const uint8_t *row = (const uint8_t *)p->host + (size_t)j * p->stride;
            ht_type_dequant((ht_type)p->type, row + (size_t)b * t->block_bytes, t->block, block);
            for (uint32_t i = 0; i < t->block; i++) {
                const uint32_t output = b * t->block + i;
                if (output >= first && output - first < n)
                    dst[(size_t)(output - first) * p->n + j] = block[i];
            }
        }
}

/* Outputs of a neuron-major part, a tile at a time. */
static ht_status read_outputs(const ht_part *p, uint32_t first, uint32_t n, float *dst, ht_error *err)
{
    const ht_type_info *t = ht_type_get(p->type);
    const size_t row = ht_type_row_bytes(t, p->n);
    ht_neurons g;

    uint8_t *rows = malloc(HT_NEURONS_TILE * row);
    if (!rows || !ht_neurons_of(&g, p)) {
        free(rows);
        return ht_fail(err, HT_ENOMEM, "rows of weights");
    }
    for (uint32_t i = 0; i < n;) {
        const uint32_t base = (first + i) / HT_NEURONS_TILE * HT_NEURONS_TILE, head = first + i - base;
        const uint32_t now = n - i < HT_NEURONS_TILE - head ? n - i : HT_NEURONS_TILE - head;
        ht_neurons_to_rows(&g, p->host, base, head + now, rows, row);
        for (uint32_t r = 0; r < now; r++)
            ht_type_dequant((ht_type)p->type, rows + (head + r) * row, p->n, dst + (size_t)(i + r) * p->n);
        i += now;
    }
    free(rows);
    return HT_OK;
}

hearth_status hearth_model_read_rows(const hearth_model *m, uint32_t layer, uint32_t expert, hearth_role role,
                                     uint32_t first, uint32_t n, float *dst, hearth_error *error)
{
    const ht_ffn *ff = m->exec && layer < m->m.n_layer ? &m->m.layers[layer].ffn : NULL;
    const ht_part *p = ff && expert < ff->n_expert && (unsigned)role < HT_N_ROLES ? &ff->experts[expert][role] : NULL;

    const bool turned = p && p->layout == HT_LAYOUT_NEURONS; /* a row is an output: k of them */
    const bool columns = p && p->layout == HT_LAYOUT_COLUMNS;
    const uint32_t n_rows = !p ? 0 : turned || columns ? p->k : p->n;

    if (!p || !p->host || first > n_rows || n > n_rows - first)
        return (hearth_status)ht_fail(ht_err(error), HT_EINVAL, "layer %u has no such rows of weights", layer);
    ht_status st = ht_gguf_check_size(m->gguf, ht_err(error));
    if (turned && st == HT_OK)
        return (hearth_status)read_outputs(p, first, n, dst, ht_err(error));
    if (columns && st == HT_OK) {
        read_columns(p, first, n, dst);
        return HEARTH_OK;
    }
    for (uint32_t i = 0; i < n && st == HT_OK; i++)
        ht_type_dequant((ht_type)p->type, ht_part_row(p, first + i), p->k, dst + (size_t)i * p->k);
    return (hearth_status)st;
}

/* The parts of a layer's experts as the file has them, kept from the first replacement on. */
static ht_part (*own_parts(hearth_model *m, uint32_t layer))[HT_N_ROLES]
{
    const ht_ffn *ff = &m->m.layers[layer].ffn;
    if (!m->replaced && !(m->replaced = calloc(m->m.n_layer, sizeof *m->replaced)))
        return NULL;
    if (!m->replaced[layer] && (m->replaced[layer] = malloc(ff->n_expert * sizeof *ff->experts)))
        memcpy(m->replaced[layer], ff->experts, ff->n_expert * sizeof *ff->experts);
    return m->replaced[layer];
}

void ht_model_forget_replaced(hearth_model *m)
{
    for (uint32_t i = 0; m->replaced && i < m->m.n_layer; i++)
        free(m->replaced[i]);
    free(m->replaced);
    m->replaced = NULL;
}

hearth_status hearth_model_replace(hearth_model *m, uint32_t layer, uint32_t expert, hearth_role role, const char *type,
                                   const void *data, size_t n, hearth_error *error)
{
    ht_error *err = ht_err(error);
    const ht_ffn *ff = m->exec && layer < m->m.n_layer ? &m->m.layers[layer].ffn : NULL;

    if (!ff || expert >= ff->n_expert || (unsigned)role >= HT_N_ROLES || !ff->experts[expert][role].host)
        return (hearth_status)ht_fail(err, HT_EINVAL, "expert %u of layer %u has no such matrix", expert, layer);
    if (m->store.disk || m->sparsity != HEARTH_SPARSITY_OFF || ff->experts[expert][role].layout != HT_LAYOUT_ROWS || ff->experts[expert][role].order)
        return (hearth_status)ht_fail(err, HT_EINVAL,
                                      "weights are replaced in models opened with sparsity off, all in memory, in the file's plain layout");
    ht_part(*own)[HT_N_ROLES] = own_parts(m, layer);
    if (!own)
        return (hearth_status)ht_fail(err, HT_ENOMEM, "parts of layer %u", layer);
    ht_part p = own[expert][role];
    if (data) {
        const int id = ht_type_by_name(type);
        const ht_type_info *t = id < 0 ? NULL : ht_type_get((uint32_t)id);
        if (!t || p.k % t->block || n != ht_type_row_bytes(t, p.k) * p.n)
            return (hearth_status)ht_fail(err, HT_EINVAL, "%zu bytes of %s are no matrix of %u rows of %u", n, type,
                                          p.n, p.k);
        p.type = (uint32_t)id;
        p.stride = ht_type_row_bytes(t, p.k);
        p.host = data;
    }
    ht_os_lock(&m->lock);
    m->m.layers[layer].ffn.experts[expert][role] = p;
    ht_os_unlock(&m->lock);
    return HEARTH_OK;
}
