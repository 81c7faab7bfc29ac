/* SPDX-License-Identifier: MIT
 * Weights of feed-forward blocks behind hearth.h, for who learns from them. */
#include <string.h>

#include "engine/base/types.h"
#include "engine/objects.h"

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
                            .row_bytes = ht_predict_source(ff, 0)->stride };
    HT_RESULT(out, &i);
    return HEARTH_OK;
}

hearth_status hearth_model_read_rows(const hearth_model *m, uint32_t layer, uint32_t expert, hearth_role role,
                                     uint32_t first, uint32_t n, float *dst, hearth_error *error)
{
    const ht_ffn *ff = m->exec && layer < m->m.n_layer ? &m->m.layers[layer].ffn : NULL;
    const ht_part *p = ff && expert < ff->n_expert && (unsigned)role < HT_N_ROLES ? &ff->experts[expert][role] : NULL;

    if (!p || !p->host || first > p->n || n > p->n - first)
        return (hearth_status)ht_fail(ht_err(error), HT_EINVAL, "layer %u has no such rows of weights", layer);
    ht_status st = ht_gguf_check_size(m->gguf, ht_err(error));
    for (uint32_t i = 0; i < n && st == HT_OK; i++)
        ht_type_dequant((ht_type)p->type, (const uint8_t *)p->host + (size_t)(first + i) * p->stride, p->k,
                        dst + (size_t)i * p->k);
    return (hearth_status)st;
}
