/* SPDX-License-Identifier: MIT
 * The predictors that PowerInfer's files bring: two matrices for a layer, a ReLU between them, one threshold for all.
 * See predict.h, and docs/powerinfer.md for the format. */
#include <stdlib.h>

#include "engine/predict.h"

static uint64_t bytes_of(const ht_part *p) { return (uint64_t)p->n * p->stride; }

ht_status ht_predict_own(ht_predict **out, const ht_model *m, ht_error *err)
{
    uint32_t n_own = 0, n_ff = 0;

    *out = NULL;
    for (uint32_t il = 0; il < m->n_layer; il++)
        n_own += m->layers[il].ffn.fc1.host != NULL;
    if (n_own == 0)
        return HT_OK;
    ht_predict *p = calloc(1, sizeof *p);
    if (!p)
        return ht_fail(err, HT_ENOMEM, "predictors");
    p->n_layer = m->n_layer;
    p->residual = p->masks = true;
    p->layers = calloc(m->n_layer, sizeof *p->layers);
    p->own_thresholds = malloc(m->max_ff * sizeof *p->own_thresholds);
    if (!p->layers || !p->own_thresholds) {
        ht_predict_close(&p);
        return ht_fail(err, HT_ENOMEM, "predictors");
    }
    for (; n_ff < m->max_ff; n_ff++)
        p->own_thresholds[n_ff] = m->sparse_threshold;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_ffn *ff = &m->layers[il].ffn;
        if (!ff->fc1.host)
            continue;
        p->layers[il] = (ht_predict_layer){ .kind = HT_PREDICT_LOW_RANK, .threshold = p->own_thresholds, .a = ff->fc1,
                                            .b = ff->fc2, .relu = true, .residual = true };
        p->max_rank = ff->fc1.n > p->max_rank ? ff->fc1.n : p->max_rank;
        p->bytes_per_token += bytes_of(&ff->fc1) + bytes_of(&ff->fc2);
    }
    *out = p;
    return HT_OK;
}
