/* SPDX-License-Identifier: MIT
 *
 * Which experts a model used lately, kept in a file between two runs, and the first filling of the slots by it; see disk.h.
 *
 * The file is a sealed GGUF without weights: hearth.heat.version (u32, 1), hearth.heat.model (fingerprint, string),
 * hearth.heat.layers, hearth.heat.experts (u32), hearth.heat.uses (f32 [layers * experts], each 0..1), hearth.heat.tokens (u8, may
 * be missing: what the last tokens took, see ht_cache_get_tokens). Every byte of it is untrusted: at worst the first tokens of
 * a run wait a little more. */
#include <stdlib.h>
#include <string.h>

#include "engine/disk_impl.h"
#include "engine/gguf_write.h"

enum { HEAT_VERSION = 1, FILL_BYTES = 32 << 20 /* under way at once */ };

static ht_status take_heat(ht_disk *d, const ht_gguf *g, const char *path, const char *fingerprint, ht_error *err)
{
    uint32_t version = 0, layers = 0, experts = 0;
    ht_str model = { "", 0 };
    const ht_kv *uses = ht_gguf_find(g, "hearth.heat.uses"), *tokens = ht_gguf_find(g, "hearth.heat.tokens");
    ht_status st;

    if ((st = ht_gguf_need_u32(g, "hearth.heat.version", &version, err)) != HT_OK)
        return st;
    if (version != HEAT_VERSION)
        return ht_fail(err, HT_EUNSUPPORTED, "%s: heat of version %u is not known", path, version);
    if ((st = ht_gguf_str(g, "hearth.heat.model", &model, err)) ||
        (st = ht_gguf_need_u32(g, "hearth.heat.layers", &layers, err)) ||
        (st = ht_gguf_need_u32(g, "hearth.heat.experts", &experts, err)))
        return st;
    if (model.n != strlen(fingerprint) || memcmp(model.s, fingerprint, model.n) != 0 || layers != d->m->n_layer ||
        experts != d->n_expert)
        return ht_fail(err, HT_EMISMATCH, "%s: the heat of another model", path);
    const size_t n = (size_t)layers * experts;
    if (!uses || uses->type != HT_KV_ARRAY || uses->elem != HT_KV_F32 || uses->n != n)
        return ht_fail(err, HT_EFORMAT, "%s: hearth.heat.uses is no list of %zu numbers", path, n);
    float *heat = malloc(n * sizeof *heat);
    if (!heat)
        return ht_fail(err, HT_ENOMEM, "heat of %zu experts", n);
    if (tokens && (tokens->type != HT_KV_ARRAY || tokens->elem != HT_KV_U8 ||
                   !ht_cache_set_tokens(d->cache, tokens->data, tokens->n))) {
        free(heat);
        return ht_fail(err, HT_EFORMAT, "%s: hearth.heat.tokens is not of this many layers and experts", path);
    }
    memcpy(heat, uses->data, n * sizeof *heat);
    ht_cache_set_heat(d->cache, heat);
    free(heat);
    return HT_OK;
}

ht_status ht_disk_read_heat(ht_disk *d, const char *path, const char *fingerprint, ht_error *err)
{
    ht_gguf *g;
    ht_status st = ht_gguf_open(&g, path, err);

    if (st != HT_OK)
        return st;
    if ((st = ht_gguf_verify(g, err)) == HT_OK)
        st = take_heat(d, g, path, fingerprint, err);
    ht_gguf_close(&g);
    return st;
}

ht_status ht_disk_write_heat(const ht_disk *d, const char *path, const char *fingerprint, ht_error *err)
{
    const size_t n = (size_t)d->m->n_layer * d->n_expert;
    const size_t n_tokens = ht_cache_tokens_bytes(d->cache);
    float *heat = malloc(n * sizeof *heat);
    uint8_t *tokens = malloc(n_tokens + 1);
    ht_gguf_writer *w;
    ht_status st;

    if (!heat || !tokens) {
        free(heat);
        free(tokens);
        return ht_fail(err, HT_ENOMEM, "heat of %zu experts", n);
    }
    ht_cache_get_heat(d->cache, heat);
    ht_cache_get_tokens(d->cache, tokens);
    if ((st = ht_gguf_writer_open(&w, path, err)) == HT_OK) { /* a failure sticks and is told by close */
        ht_gguf_writer_set_u32(w, "hearth.heat.version", HEAT_VERSION);
        ht_gguf_writer_set_str(w, "hearth.heat.model", (ht_str){ fingerprint, strlen(fingerprint) });
        ht_gguf_writer_set_u32(w, "hearth.heat.layers", d->m->n_layer);
        ht_gguf_writer_set_u32(w, "hearth.heat.experts", d->n_expert);
        ht_gguf_writer_set_array(w, "hearth.heat.uses", HT_KV_F32, heat, n);
        if (n_tokens)
            ht_gguf_writer_set_array(w, "hearth.heat.tokens", HT_KV_U8, tokens, n_tokens);
        ht_gguf_writer_seal(w);
        st = ht_gguf_writer_close(&w, err);
    }
    free(heat);
    free(tokens);
    return st;
}

/* ---- The first filling ---- */

typedef struct warm { float heat; uint32_t unit, expert; } warm;

static int hotter(const void *pa, const void *pb)
{
    const warm *a = pa, *b = pb;
    if (a->heat != b->heat)
        return a->heat > b->heat ? -1 : 1;
    if (a->expert != b->expert) /* where nothing is known every layer gets some */
        return a->expert < b->expert ? -1 : 1;
    return a->unit < b->unit ? -1 : a->unit > b->unit;
}

void ht_disk_set_heat(ht_disk *d, const float *heat) { ht_cache_set_heat(d->cache, heat); }

ht_status ht_disk_plan_fill(ht_disk *d, ht_error *err)
{
    const size_t n = (size_t)d->m->n_layer * d->n_expert;
    float *heat = malloc(n * sizeof *heat);
    warm *order = malloc(d->n_units * sizeof *order);

    if (!heat || !order) {
        free(heat);
        free(order);
        return ht_fail(err, HT_ENOMEM, "order of %u experts", d->n_units);
    }
    ht_cache_get_heat(d->cache, heat);
    for (uint32_t i = 0; i < d->n_units; i++)
        order[i] = (warm){ heat[ht_disk_id(d, &d->units[i])], i, i - d->layers[d->units[i].layer].first };
    qsort(order, d->n_units, sizeof *order, hotter);
    for (uint32_t i = 0; i < d->n_units; i++)
        d->fill[i] = order[i].unit;
    d->n_fill = d->n_units;
    d->fill_at = 0;
    free(heat);
    free(order);
    return HT_OK;
}

void ht_disk_fill(ht_disk *d)
{
    for (; d->fill_at < d->n_fill && d->ahead_bytes < FILL_BYTES; d->fill_at++) {
        ht_disk_unit *u = &d->units[d->fill[d->fill_at]];
        if (u->presence != HT_ABSENT)
            continue;
        if (d->used + ht_disk_unit_bytes(d, u->layer) > d->budget) {
            d->fill_at = d->n_fill; /* nothing leaves for it */
            return;
        }
        if (!ht_disk_bring(d, u, true, true))
            return;
    }
}
