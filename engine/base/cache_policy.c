/* SPDX-License-Identifier: MIT
 * Which experts stay in memory; see cache_policy.h.
 *
 * Every held unit has a key: what leaves is the unit with the largest key + layer offset, ties by the oldest use. Keys of a
 * layer change when it is used (HEAT) or when a unit is (the others); the layer's first to leave is kept until something
 * in it changes, so that finding room looks at each layer once and at the units of a few. */
#include "engine/base/cache_policy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* HEAT. What leaves is the unit whose next use is expected to be farthest away, in rounds of all layers: the part of a round
 * until its layer is computed again, and then 1 / (its share of uses per round) rounds. The share is a mean of two moving
 * averages, a fast one that knows what the text is about now and a slow one that knows the model; and never zero. */
static const float FAST = 0.80f, SLOW = 0.95f, FAST_SHARE = 0.4f, FLOOR = 0.01f;
/* A unit that is only foreseen counts as used every other time. */
static const double FORESEEN = 2.0;

enum { NONE = -1, DIRTY = -2 };

typedef struct layer {
    uint64_t unit_bytes;
    double offset;      /* added to the keys of its units */
    float seen_fast, seen_slow; /* what the moving averages of a unit that is always used would be */
    int32_t first;      /* unit that leaves first; NONE: all are pinned or away; DIRTY: not known */
    bool any;           /* it was used at all */
} layer;

struct ht_cache {
    ht_cache_kind kind;
    uint32_t n_layer, n_expert, n_unit;
    uint64_t budget, used, clock, random;
    uint32_t now;       /* the layer used last */
    layer *layers;      /* [n_layer] */
    double *key;        /* [n_unit] */
    uint64_t *last;     /* [n_unit] clock of the last use */
    float *fast, *slow; /* [n_unit] moving averages of uses */
    uint32_t *count;    /* [n_unit] */
    uint32_t *pins;     /* [n_unit] */
    uint32_t *held_at;  /* [n_unit] place in held + 1; 0: not held */
    uint32_t *held;     /* [n_held] */
    uint32_t n_held;
};

/* ---- Keys ---- */

static double heat_key(const ht_cache *c, uint32_t unit)
{
    const layer *l = &c->layers[unit / c->n_expert];
    const float fast = l->seen_fast > 0.0f ? c->fast[unit] / l->seen_fast : 0.0f;
    const float slow = l->seen_slow > 0.0f ? c->slow[unit] / l->seen_slow : 0.0f;
    const float share = FAST_SHARE * fast + (1.0f - FAST_SHARE) * slow + FLOOR;
    return share < 1.0f ? (double)(1.0f / share) : 1.0;
}

static void set_key(ht_cache *c, uint32_t unit, double key)
{
    c->key[unit] = key;
    c->layers[unit / c->n_expert].first = DIRTY;
}

/* The layer just computed is a whole round away, the one after it is next. */
static void set_offsets(ht_cache *c, uint32_t now)
{
    c->now = now;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        const uint32_t ahead = i > now ? i - now : i + c->n_layer - now;
        c->layers[i].offset = c->kind == HT_CACHE_HEAT ? (double)ahead / c->n_layer : 0.0;
    }
}

static bool leaves_before(const ht_cache *c, uint32_t a, uint32_t b)
{
    const double ka = c->key[a] + c->layers[a / c->n_expert].offset, kb = c->key[b] + c->layers[b / c->n_expert].offset;
    return ka > kb || (ka == kb && c->last[a] < c->last[b]);
}

static int32_t first_of_layer(ht_cache *c, uint32_t il)
{
    layer *l = &c->layers[il];
    if (l->first != DIRTY)
        return l->first;
    l->first = NONE;
    for (uint32_t u = il * c->n_expert; u < (il + 1) * c->n_expert; u++)
        if (c->held_at[u] && !c->pins[u] && (l->first == NONE || leaves_before(c, u, (uint32_t)l->first)))
            l->first = (int32_t)u;
    return l->first;
}

static int32_t any_unit(ht_cache *c)
{
    if (!c->n_held)
        return NONE;
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    for (uint32_t i = 0, at = (uint32_t)(c->random % c->n_held); i < c->n_held; i++, at++)
        if (!c->pins[c->held[at % c->n_held]])
            return (int32_t)c->held[at % c->n_held];
    return NONE;
}

static int32_t first_to_leave(ht_cache *c)
{
    int32_t best = NONE;
    if (c->kind == HT_CACHE_RANDOM)
        return any_unit(c);
    for (uint32_t il = 0; il < c->n_layer; il++) {
        const int32_t u = first_of_layer(c, il);
        if (u != NONE && (best == NONE || leaves_before(c, (uint32_t)u, (uint32_t)best)))
            best = u;
    }
    return best;
}

/* ---- Holding ---- */

static void hold(ht_cache *c, uint32_t unit)
{
    c->held[c->n_held] = unit;
    c->held_at[unit] = ++c->n_held;
    c->used += c->layers[unit / c->n_expert].unit_bytes;
    c->layers[unit / c->n_expert].first = DIRTY;
}

static void drop(ht_cache *c, uint32_t unit)
{
    const uint32_t at = c->held_at[unit] - 1, moved = c->held[--c->n_held];
    c->held[at] = moved;
    c->held_at[moved] = at + 1;
    c->held_at[unit] = 0;
    c->used -= c->layers[unit / c->n_expert].unit_bytes;
    c->layers[unit / c->n_expert].first = DIRTY;
}

bool ht_cache_holds(const ht_cache *c, uint32_t unit) { return c->held_at[unit] != 0; }

void ht_cache_remove(ht_cache *c, uint32_t unit)
{
    if (c->held_at[unit])
        drop(c, unit);
}

void ht_cache_pin(ht_cache *c, uint32_t unit, bool pinned)
{
    if (pinned)
        c->pins[unit]++;
    else if (c->pins[unit])
        c->pins[unit]--;
    c->layers[unit / c->n_expert].first = DIRTY;
}

void ht_cache_use(ht_cache *c, uint32_t il, const uint32_t *experts, uint32_t n, bool batch)
{
    const uint32_t base = il * c->n_expert;
    layer *l = &c->layers[il];

    (void)batch;
    for (uint32_t i = 0; i < n; i++) {
        c->last[base + experts[i]] = ++c->clock;
        c->count[base + experts[i]]++;
    }
    if (c->kind == HT_CACHE_HEAT) {
        for (uint32_t e = 0; e < c->n_expert; e++) {
            c->fast[base + e] *= FAST;
            c->slow[base + e] *= SLOW;
        }
        for (uint32_t i = 0; i < n; i++) {
            c->fast[base + experts[i]] += 1.0f;
            c->slow[base + experts[i]] += 1.0f;
        }
        l->seen_fast = l->seen_fast * FAST + 1.0f;
        l->seen_slow = l->seen_slow * SLOW + 1.0f;
        for (uint32_t u = base; u < base + c->n_expert; u++)
            c->key[u] = heat_key(c, u);
        set_offsets(c, il);
    } else if (c->kind == HT_CACHE_LFU) {
        for (uint32_t i = 0; i < n; i++)
            c->key[base + experts[i]] = -(double)c->count[base + experts[i]];
    }
    l->first = DIRTY;
}

uint32_t ht_cache_admit(ht_cache *c, uint32_t unit, bool ahead, uint32_t *out, uint32_t max)
{
    const layer *l = &c->layers[unit / c->n_expert];
    const uint64_t bytes = l->unit_bytes;
    const double worth = FORESEEN + l->offset;
    uint32_t n = 0;

    if (c->held_at[unit])
        return 0;
    if (!bytes || bytes > c->budget)
        return UINT32_MAX;
    while (c->used > c->budget - bytes) {
        const int32_t u = n < max ? first_to_leave(c) : NONE;
        const bool worse = u != NONE && (!ahead || c->kind != HT_CACHE_HEAT ||
                                         c->key[u] + c->layers[(uint32_t)u / c->n_expert].offset > worth);
        if (!worse) {
            while (n) /* as if nothing had been tried */
                hold(c, out[--n]);
            return UINT32_MAX;
        }
        drop(c, (uint32_t)u);
        out[n++] = (uint32_t)u;
    }
    hold(c, unit);
    return n;
}

uint32_t ht_cache_set_budget(ht_cache *c, uint64_t budget, uint32_t *out, uint32_t max)
{
    uint32_t n = 0;
    c->budget = budget;
    while (c->used > budget && n < max) {
        const int32_t u = first_to_leave(c);
        if (u == NONE)
            break;
        drop(c, (uint32_t)u);
        out[n++] = (uint32_t)u;
    }
    return n;
}

void ht_cache_set_next_use(ht_cache *c, uint32_t unit, uint64_t at)
{
    if (c->kind == HT_CACHE_BELADY)
        set_key(c, unit, (double)at);
}

/* ---- Heat ---- */

void ht_cache_get_heat(const ht_cache *c, float *heat)
{
    for (uint32_t u = 0; u < c->n_unit; u++) {
        const layer *l = &c->layers[u / c->n_expert];
        heat[u] = l->seen_slow > 0.0f ? c->slow[u] / l->seen_slow : 0.0f;
    }
}

void ht_cache_set_heat(ht_cache *c, const float *heat)
{
    for (uint32_t i = 0; i < c->n_layer; i++) {
        c->layers[i].seen_fast = 1.0f / (1.0f - FAST);
        c->layers[i].seen_slow = 1.0f / (1.0f - SLOW);
    }
    for (uint32_t u = 0; u < c->n_unit; u++) {
        const layer *l = &c->layers[u / c->n_expert];
        const float h = heat[u] >= 0.0f && heat[u] <= 1.0f ? heat[u] : 0.0f;
        c->fast[u] = h * l->seen_fast;
        c->slow[u] = h * l->seen_slow;
        if (c->kind == HT_CACHE_HEAT)
            set_key(c, u, heat_key(c, u));
    }
}

/* ---- Open and close ---- */

ht_status ht_cache_open(ht_cache **out, const ht_cache_params *p, ht_error *err)
{
    const uint64_t n = (uint64_t)p->n_layer * p->n_expert;
    ht_cache *c;

    *out = NULL;
    if (n == 0 || n > INT32_MAX)
        return ht_fail(err, HT_EINVAL, "a cache of %u layers of %u experts", p->n_layer, p->n_expert);
    c = calloc(1, sizeof *c);
    if (!c)
        return ht_fail(err, HT_ENOMEM, "expert cache");
    c->kind = p->kind;
    c->n_layer = p->n_layer;
    c->n_expert = p->n_expert;
    c->n_unit = (uint32_t)n;
    c->budget = p->budget;
    c->random = p->seed * 2 + 0x9E3779B97F4A7C15u;
    c->layers = calloc(p->n_layer, sizeof *c->layers);
    c->key = calloc(n, sizeof *c->key);
    c->last = calloc(n, sizeof *c->last);
    c->fast = calloc(n, sizeof *c->fast);
    c->slow = calloc(n, sizeof *c->slow);
    c->count = calloc(n, sizeof *c->count);
    c->pins = calloc(n, sizeof *c->pins);
    c->held_at = calloc(n, sizeof *c->held_at);
    c->held = calloc(n, sizeof *c->held);
    if (!c->layers || !c->key || !c->last || !c->fast || !c->slow || !c->count || !c->pins || !c->held_at || !c->held) {
        ht_cache_close(c);
        return ht_fail(err, HT_ENOMEM, "expert cache of %llu units", (unsigned long long)n);
    }
    for (uint32_t i = 0; i < p->n_layer; i++) {
        c->layers[i].unit_bytes = p->unit_bytes[i];
        c->layers[i].first = DIRTY;
    }
    for (uint32_t u = 0; u < c->n_unit; u++)
        c->key[u] = c->kind == HT_CACHE_HEAT ? heat_key(c, u) : c->kind == HT_CACHE_BELADY ? INFINITY : 0.0;
    set_offsets(c, p->n_layer - 1);
    *out = c;
    return HT_OK;
}

void ht_cache_close(ht_cache *c)
{
    if (!c)
        return;
    free(c->layers);
    free(c->key);
    free(c->last);
    free(c->fast);
    free(c->slow);
    free(c->count);
    free(c->pins);
    free(c->held_at);
    free(c->held);
    free(c);
}
