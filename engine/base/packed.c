/* SPDX-License-Identifier: MIT
 * Experts in packed files; see packed.h. */
#include "engine/base/packed.h"

#include <string.h>

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Bytes of a row of d_model elements, 0: it cannot be computed with. */
static size_t row_bytes(uint32_t type, uint32_t d_model)
{
    const ht_type_info *t = ht_type_get(type);
    return t && d_model % t->block == 0 ? ht_type_row_bytes(t, d_model) : 0;
}

bool ht_packed_shape(ht_packed *p, const uint32_t type[HT_N_ROLES], uint32_t n_ff, uint32_t d_model)
{
    const bool gate = type[HT_ROLE_GATE] != HT_PACKED_NONE;

    memset(p, 0, sizeof *p);
    if (!ht_neurons_shape(&p->down, (ht_type)type[HT_ROLE_DOWN], n_ff, d_model))
        return false;
    memcpy(p->type, type, sizeof p->type);
    p->n_ff = n_ff;
    p->d_model = d_model;
    p->group = ht_type_get(type[HT_ROLE_DOWN])->block == 256 ? 256 : 32;
    p->gate_row = gate ? row_bytes(type[HT_ROLE_GATE], d_model) : 0;
    p->up_row = row_bytes(type[HT_ROLE_UP], d_model);
    if (n_ff % p->group || p->up_row == 0 || (gate && p->gate_row == 0))
        return false;
    p->scales_at = up(n_ff * p->gate_row, 64);
    p->bundles_at = p->scales_at + p->down.rows_at;
    p->down_at = up(p->up_row, 64);
    p->stride = p->down_at + up(p->down.row_bytes, 64);
    p->bytes = p->bundles_at + n_ff * p->stride;
    p->bytes = up(p->bytes, ht_packed_align(p));
    return true;
}

uint32_t ht_packed_align(const ht_packed *p)
{
    return p->bytes >= HT_PACKED_LARGE ? HT_PACKED_PAGE : 64;
}

ht_part ht_packed_part(const ht_packed *p, ht_role role, const void *expert, const uint32_t *order)
{
    const uint8_t *at = expert;
    ht_part part = { .role = (uint8_t)role, .type = p->type[role], .n = p->n_ff, .k = p->d_model, .order = order };

    switch (role) {
    case HT_ROLE_GATE:
        part.stride = p->gate_row;
        part.host = p->gate_row ? at : NULL;
        break;
    case HT_ROLE_UP:
        part.stride = p->stride;
        part.host = at + p->bundles_at;
        break;
    default:
        part.layout = HT_LAYOUT_NEURONS;
        part.stride = p->stride;
        part.host = at + p->scales_at;
        part.rows_at = p->bundles_at - p->scales_at + p->down_at;
    }
    return part;
}

bool ht_packed_order_good(const ht_packed *p, const uint32_t *order, uint8_t *seen)
{
    const uint32_t n = p->n_ff / 32, at_once = p->group / 32;

    memset(seen, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        if (order[i] >= n || seen[order[i]] || order[i] != order[i / at_once * at_once] + i % at_once ||
            (i % at_once == 0 && order[i] % at_once))
            return false;
        seen[order[i]] = 1;
    }
    return true;
}
