/* SPDX-License-Identifier: MIT
 * The store over a mapped file; see store.h. */
#include "engine/store.h"

#include "engine/base/types.h"

void ht_store_open(ht_store *s, const ht_model *m) { s->m = m; }

void ht_store_close(ht_store *s) { s->m = NULL; }

ht_status ht_store_want(ht_store *s, const ht_cluster *clusters, uint32_t n, uint32_t deadline_layer, ht_ticket *t)
{
    (void)deadline_layer; /* the pager knows no deadlines */
    for (uint32_t i = 0; i < n; i++) {
        const ht_cluster *c = &clusters[i];
        if (c->layer >= s->m->n_layer || c->expert >= s->m->layers[c->layer].ffn.n_expert ||
            c->first > s->m->layers[c->layer].ffn.n_ff || c->n > s->m->layers[c->layer].ffn.n_ff - c->first)
            return HT_EINVAL;
    }
    *t = (ht_ticket){ clusters, n };
    return HT_OK;
}

ht_status ht_store_lease(ht_store *s, ht_ticket *t, uint32_t which, ht_part out[HT_N_ROLES])
{
    if (which >= t->n)
        return HT_EINVAL;
    const ht_cluster *c = &t->clusters[which];
    const ht_part *whole = s->m->layers[c->layer].ffn.experts[c->expert];
    for (int r = 0; r < HT_N_ROLES; r++) {
        out[r] = whole[r];
        if (!whole[r].host)
            continue;
        if (r == HT_ROLE_DOWN) { /* neurons are columns */
            out[r].k = c->n;
            out[r].host = (const uint8_t *)whole[r].host + ht_type_row_bytes(ht_type_get(whole[r].type), c->first);
        } else {
            out[r].n = c->n;
            out[r].host = (const uint8_t *)whole[r].host + (size_t)c->first * whole[r].stride;
        }
    }
    return HT_OK;
}

void ht_store_release(ht_store *s, ht_ticket *t)
{
    (void)s;
    t->n = 0;
}
