/* SPDX-License-Identifier: MIT
 * Profiles in memory; see profile.h. */
#include "offline_profiler/profile.h"

#include <stdlib.h>
#include <string.h>

void *ht_profile_alloc(hearth_profile *p, size_t n, size_t size)
{
    if (p->n_chunks == p->room) {
        size_t room = 2 * p->room + 16;
        void **more = realloc(p->chunks, room * sizeof *more);
        if (!more)
            return NULL;
        p->chunks = more;
        p->room = room;
    }
    void *chunk = calloc(n ? n : 1, size);
    if (chunk)
        p->chunks[p->n_chunks++] = chunk;
    return chunk;
}

char *ht_profile_text(hearth_profile *p, const char *s, size_t n)
{
    char *copy = ht_profile_alloc(p, n + 1, 1);
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}

hearth_profile *ht_profile_new(uint32_t n_layer)
{
    static const hearth_profile_layer unknown = { .density = -1,
                                                  .density_spread = -1,
                                                  .overlap = -1,
                                                  .unions = { -1, -1, -1, -1, -1, -1, -1 },
                                                  .expert_overlap = -1,
                                                  .shared_density = -1,
                                                  .shared_overlap = -1,
                                                  .recall = -1,
                                                  .precision = -1,
                                                  .predicted_density = -1,
                                                  .ahead_recall = -1,
                                                  .ahead_precision = -1,
                                                  .ahead_density = -1 };
    hearth_profile *p = calloc(1, sizeof *p);

    if (!p)
        return NULL;
    p->n_layer = n_layer;
    p->layers = ht_profile_alloc(p, n_layer, sizeof *p->layers);
    p->name = p->description = p->created_by = ht_profile_text(p, "", 0);
    if (!p->layers || !p->name) {
        hearth_profile_close(&p);
        return NULL;
    }
    for (uint32_t i = 0; i < n_layer; i++)
        p->layers[i] = unknown;
    return p;
}

void hearth_profile_close(hearth_profile **pp)
{
    hearth_profile *p = pp ? *pp : NULL;
    if (!p)
        return;
    for (size_t i = 0; i < p->n_chunks; i++)
        free(p->chunks[i]);
    free(p->chunks);
    free(p);
    *pp = NULL;
}

void ht_profile_params(void *dst, size_t bytes, const void *src)
{
    size_t given = 0;
    memset(dst, 0, bytes);
    if (!src)
        return;
    memcpy(&given, src, sizeof given);
    memcpy(dst, src, given < bytes ? given : bytes);
}

void ht_profile_result(void *dst, const void *src, size_t bytes)
{
    size_t room;
    memcpy(&room, dst, sizeof room);
    size_t n = room < bytes ? room : bytes;
    if (n > sizeof room)
        memcpy((char *)dst + sizeof room, (const char *)src + sizeof room, n - sizeof room);
}

hearth_status hearth_profile_get_info(const hearth_profile *p, hearth_profile_info *out)
{
    double active = 0, computed = 0;
    for (uint32_t i = 0; i < p->n_layer; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        double routed = (double)l->n_ff * l->n_used, shared = l->shared_n_ff;
        if (l->density >= 0) {
            active += routed * (double)l->density;
            computed += routed;
        }
        if (shared > 0 && l->shared_density >= 0) {
            active += shared * (double)l->shared_density;
            computed += shared;
        }
    }
    hearth_profile_info i = { .model = p->model,
                              .name = p->name,
                              .description = p->description,
                              .created_by = p->created_by,
                              .tokens = p->tokens,
                              .text_bytes = p->text_bytes,
                              .n_layer = p->n_layer,
                              .window = p->window,
                              .density_only = p->density_only,
                              .density = computed > 0 ? active / computed : -1,
                              .n_points = p->n_points,
                              .chosen = p->chosen };
    ht_profile_result(out, &i, sizeof i);
    return HEARTH_OK;
}

hearth_status hearth_profile_get_layer(const hearth_profile *p, uint32_t layer, hearth_profile_layer *out)
{
    if (layer >= p->n_layer)
        return HEARTH_EINVAL;
    ht_profile_result(out, &p->layers[layer], sizeof p->layers[layer]);
    return HEARTH_OK;
}

hearth_status hearth_profile_get_point(const hearth_profile *p, uint32_t i, hearth_profile_point *out)
{
    if (i >= p->n_points)
        return HEARTH_EINVAL;
    *out = p->points[i];
    return HEARTH_OK;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

double hearth_profile_cover(const hearth_profile *p, uint32_t layer, double share)
{
    uint32_t first = layer == UINT32_MAX ? 0 : layer, end = layer == UINT32_MAX ? p->n_layer : layer + 1;
    size_t n = 0;
    double all = 0, sum = 0;

    if (first >= p->n_layer)
        return -1;
    for (uint32_t i = first; i < end; i++)
        n += p->layers[i].frequency ? (size_t)p->layers[i].n_ff * p->layers[i].n_expert : 0;
    float *v = n ? malloc(n * sizeof *v) : NULL;
    if (!v)
        return -1;
    n = 0;
    for (uint32_t i = first; i < end; i++) {
        const hearth_profile_layer *l = &p->layers[i];
        size_t own = l->frequency ? (size_t)l->n_ff * l->n_expert : 0;
        if (own)
            memcpy(v + n, l->frequency, own * sizeof *v);
        n += own;
    }
    qsort(v, n, sizeof *v, descending);
    for (size_t i = 0; i < n; i++)
        all += (double)v[i];
    size_t needed = 0;
    while (needed < n && sum < share * all)
        sum += (double)v[needed++];
    free(v);
    return all > 0 ? (double)needed / (double)n : -1;
}
