/* SPDX-License-Identifier: MIT
 * Totals of statistics: as a profile, and as bytes that another sitting goes on from; see stats.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offline_profiler/stats.h"

enum { MOST_NEXT = 32 }; /* followers of an expert that are kept */

/* ---- As a profile ------------------------------------------------------------------------------------------------ */

static float ratio(uint64_t a, double b)
{
    return b > 0 ? (float)((double)a / b) : -1.0f;
}

static float *shares(hearth_profile *p, const uint32_t *count, size_t n, uint64_t tokens)
{
    float *v = ht_profile_alloc(p, n, sizeof *v);
    for (size_t i = 0; v && i < n; i++)
        v[i] = tokens ? (float)((double)count[i] / (double)tokens) : 0.0f;
    return v;
}

static float *magnitudes(hearth_profile *p, const ht_stats_block *b, size_t n)
{
    float *v = ht_profile_alloc(p, n, sizeof *v);
    for (size_t i = 0; v && i < n; i++) {
        double mean = b->count[i] ? b->magnitude[i] / b->count[i] : 0.0;
        v[i] = isfinite((float)mean) ? (float)mean : 0.0f;
    }
    return v;
}

typedef struct follower {
    uint32_t expert, count;
} follower;

static int more_frequent(const void *a, const void *b)
{
    const follower *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count)
                                : (x->expert > y->expert) - (x->expert < y->expert);
}

/* The most frequent followers of each expert of the mixture before. */
static bool followers(hearth_profile *p, hearth_profile_layer *l, const ht_stats_block *b, const ht_stats_block *before)
{
    uint32_t n_next = b->n_expert < MOST_NEXT ? b->n_expert : MOST_NEXT;
    float *ids = ht_profile_alloc(p, (size_t)b->n_before * n_next, sizeof *ids);
    float *share = ht_profile_alloc(p, (size_t)b->n_before * n_next, sizeof *share);
    follower *row = malloc(b->n_expert * sizeof *row);
    bool good = ids && share && row;

    for (uint32_t e = 0; good && e < b->n_before; e++) {
        for (uint32_t i = 0; i < b->n_expert; i++)
            row[i] = (follower){ i, b->next[(size_t)e * b->n_expert + i] };
        qsort(row, b->n_expert, sizeof *row, more_frequent);
        for (uint32_t i = 0; i < n_next; i++) {
            ids[(size_t)e * n_next + i] = (float)row[i].expert;
            share[(size_t)e * n_next + i] =
                before->expert_count[e] ? (float)((double)row[i].count / before->expert_count[e]) : 0.0f;
        }
    }
    free(row);
    l->n_before = b->n_before;
    l->n_next = n_next;
    l->next_expert = ids;
    l->next_share = share;
    return good;
}

static bool shared_layer(hearth_profile *p, hearth_profile_layer *l, const ht_stats_block *b)
{
    uint64_t tokens = b->sums[HT_SUM_TOKENS];

    l->shared_n_ff = b->n_ff;
    l->shared_density = ratio(b->sums[HT_SUM_ACTIVE], (double)tokens * b->n_ff);
    l->shared_overlap = ratio(b->sums[HT_SUM_KEPT], (double)b->sums[HT_SUM_FOLLOWING]);
    if (!b->count)
        return true;
    l->shared_frequency = shares(p, b->count, b->n_ff, tokens);
    l->shared_magnitude = magnitudes(p, b, b->n_ff);
    return l->shared_frequency && l->shared_magnitude;
}

static bool routed_layer(hearth_profile *p, hearth_profile_layer *l, const ht_stats_block *b,
                         const ht_stats_block *before)
{
    const uint64_t *sums = b->sums;
    size_t neurons = (size_t)b->n_expert * b->n_ff;
    double tokens = (double)sums[HT_SUM_TOKENS], computed = (double)b->n_used * b->n_ff;

    l->n_ff = b->n_ff;
    l->n_expert = b->n_expert;
    l->n_used = b->n_used;
    l->density = ratio(sums[HT_SUM_ACTIVE], tokens * computed);
    if (tokens > 0) {
        double mean = (double)sums[HT_SUM_ACTIVE] / tokens,
               variance = (double)sums[HT_SUM_SQUARES] / tokens - mean * mean;
        l->density_spread = (float)(variance > 0 ? sqrt(variance) / computed : 0.0);
    }
    l->overlap = ratio(sums[HT_SUM_KEPT], (double)sums[HT_SUM_FOLLOWING]);
    l->unions[0] = ratio(sums[HT_SUM_ACTIVE], tokens * (double)neurons);
    for (int k = 0; k < HT_STATS_LEVELS; k++)
        l->unions[k + 1] = ratio(sums[HT_SUM_UNION + k], (double)sums[HT_SUM_GROUPS + k] * (double)neurons);
    bool good = true;
    if (b->count) {
        l->frequency = shares(p, b->count, neurons, sums[HT_SUM_TOKENS]);
        l->magnitude = magnitudes(p, b, neurons);
        good = l->frequency && l->magnitude;
    }
    if (b->n_expert > 1) {
        l->expert_overlap = ratio(sums[HT_SUM_EXPERTS_KEPT], (double)sums[HT_SUM_EXPERTS_FOLLOWING]);
        l->expert_frequency = shares(p, b->expert_count, b->n_expert, sums[HT_SUM_TOKENS]);
        good = good && l->expert_frequency && (!before || followers(p, l, b, before));
    }
    return good;
}

ht_status ht_stats_profile(const ht_stats *s, hearth_profile *p, ht_error *err)
{
    const ht_stats_block *before = NULL;

    p->density_only = s->density_only;
    for (uint32_t i = 0; i < s->n_blocks; i++) {
        const ht_stats_block *b = &s->blocks[i];
        bool good = b->layer < p->n_layer && (b->shared ? shared_layer(p, &p->layers[b->layer], b)
                                                        : routed_layer(p, &p->layers[b->layer], b, before));
        if (!good)
            return ht_fail(err, HT_ENOMEM, "out of memory for the profile of layer %u", b->layer);
        if (b->ids)
            before = b;
    }
    return HT_OK;
}

/* ---- As bytes ---------------------------------------------------------------------------------------------------- */

/* The arrays of a block's totals, in order. */
static bool each_array(const ht_stats_block *b, ht_stats_io *io, void *user)
{
    size_t neurons = (size_t)b->n_expert * b->n_ff;
    return io(user, (void *)(uintptr_t)b->sums, sizeof b->sums) &&
           (!b->count || (io(user, b->count, neurons * sizeof *b->count) &&
                          io(user, b->magnitude, neurons * sizeof *b->magnitude))) &&
           (!b->expert_count || io(user, b->expert_count, b->n_expert * sizeof *b->expert_count)) &&
           (!b->next || io(user, b->next, (size_t)b->n_before * b->n_expert * sizeof *b->next));
}

bool ht_stats_save(const ht_stats *s, ht_stats_io *write, void *user)
{
    uint32_t n = s->n_blocks;
    bool good = write(user, &n, sizeof n);

    for (uint32_t i = 0; good && i < n; i++) {
        const ht_stats_block *b = &s->blocks[i];
        uint32_t shape[5] = { b->layer, b->shared, b->n_ff, b->n_expert, b->n_used };
        good = write(user, shape, sizeof shape) && each_array(b, write, user);
    }
    return good;
}

ht_status ht_stats_load(ht_stats *s, ht_stats_io *read, void *user, uint64_t most_bytes, ht_error *err)
{
    uint32_t n;

    if (!read(user, &n, sizeof n))
        return ht_fail(err, HT_EFORMAT, "the numbers end too early");
    for (uint32_t i = 0; i < n; i++) {
        uint32_t shape[5];
        if (!read(user, shape, sizeof shape))
            return ht_fail(err, HT_EFORMAT, "the numbers end too early");
        ht_stats_block b = {
            .layer = shape[0], .shared = shape[1], .n_ff = shape[2], .n_expert = shape[3], .n_used = shape[4]
        };
        /* Sets of bits alone take an eighth of a byte each: no file may ask for more than it could have counted. */
        if (shape[1] > 1 || !b.n_ff || !b.n_expert || !b.n_used || b.n_used > b.n_expert ||
            (uint64_t)b.n_ff * b.n_expert / 8 > most_bytes || (uint64_t)b.n_expert * b.n_expert > most_bytes)
            return ht_fail(err, HT_EFORMAT, "block %u has an impossible shape", i);
        ht_stats_block *added = ht_stats_add(s, &b);
        if (!added)
            return ht_fail(err, HT_ENOMEM, "out of memory for the statistics of layer %u", b.layer);
        if (!each_array(added, read, user))
            return ht_fail(err, HT_EFORMAT, "the numbers end too early");
    }
    return HT_OK;
}
