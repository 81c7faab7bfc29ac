/* SPDX-License-Identifier: MIT
 * Replaying recorded routing through the cache's policy, the same code that the store runs, with Belady's optimum beside
 * it. A step of a layer is used and pinned as a whole, then what is not held is read; what finds no room because the
 * step itself fills the budget is read and not kept. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/cache_policy.h"
#include "offline_profiler/routes.h"

enum { FIRST_TOKENS = 16, MOST_LEAVE = 4096 };

_Static_assert((int)HEARTH_CACHE_RANDOM == (int)HT_CACHE_RANDOM && (int)HEARTH_CACHE_HEAT == (int)HT_CACHE_HEAT, "");

const char *hearth_cache_policy_name(hearth_cache_policy p)
{
    static const char *const names[] = { "lru", "lfu", "heat", "belady", "random" };
    return (unsigned)p < sizeof names / sizeof *names ? names[p] : NULL;
}

typedef struct sim {
    const hearth_routes *r;
    ht_uses uses;
    uint64_t *next;   /* [experts of all uses] index of the use in which the expert comes again; UINT64_MAX: never */
    uint64_t *latest; /* [n_unit] */
    float *heat;      /* [n_unit] */
    uint8_t *tokens;  /* what the last tokens of an earlier replay took */
    size_t n_tokens;  /* bytes of it */
    uint32_t *left;   /* [MOST_LEAVE] */
} sim;

static void look_ahead(sim *s)
{
    const uint32_t n_expert = s->r->n_expert;
    memset(s->latest, 0xff, (size_t)s->r->n_layer * n_expert * sizeof *s->latest);
    for (size_t i = s->uses.n; i-- > 0;) {
        const ht_use *u = &s->uses.use[i];
        for (uint32_t k = 0; k < u->n; k++) {
            uint64_t *latest = &s->latest[(size_t)u->layer * n_expert + s->uses.experts[u->first + k]];
            s->next[u->first + k] = *latest;
            *latest = i;
        }
    }
}

typedef struct by_heat {
    float heat;
    uint32_t unit;
} by_heat;

static int hotter(const void *a, const void *b)
{
    const by_heat *x = a, *y = b;
    if (x->heat != y->heat)
        return x->heat > y->heat ? -1 : 1;
    return (x->unit > y->unit) - (x->unit < y->unit);
}

/* The hottest first, as a store fills itself before the first token; as long as nothing must leave. */
static bool fill(sim *s, ht_cache *c, uint64_t budget)
{
    const uint32_t n = s->r->n_layer * s->r->n_expert;
    by_heat *order = malloc(n * sizeof *order);
    if (!order)
        return false;
    for (uint32_t i = 0; i < n; i++)
        order[i] = (by_heat){ s->heat[i], i };
    qsort(order, n, sizeof *order, hotter);
    for (uint32_t i = 0; i < n && order[i].heat > 0.0f; i++) {
        const uint64_t bytes = s->r->expert_bytes[order[i].unit / s->r->n_expert];
        if (bytes > budget)
            break;
        if (ht_cache_admit(c, order[i].unit, true, s->left, MOST_LEAVE) == UINT32_MAX)
            break;
        budget -= bytes;
    }
    free(order);
    return true;
}

static void step(sim *s, ht_cache *c, const ht_use *u, hearth_cache_result *out)
{
    const uint32_t base = u->layer * s->r->n_expert, *ids = s->uses.experts + u->first;
    const uint64_t bytes = s->r->expert_bytes[u->layer];
    const bool first = !u->batch && u->token < FIRST_TOKENS + (s->uses.use[0].batch ? 1u : 0u);
    uint64_t hits = 0;

    if (u->batch && u->n_tokens) {
        ht_cache_use_prompt(c, u->layer, ids, s->uses.counts + u->first, u->n, u->n_tokens);
        ht_cache_remember(c, u->layer, s->uses.taken + u->tokens, u->n_tokens, u->n_taken);
    } else
        ht_cache_use(c, u->layer, ids, u->n, u->batch);
    for (uint32_t k = 0; k < u->n; k++) {
        ht_cache_set_next_use(c, base + ids[k], s->next[u->first + k]);
        ht_cache_pin(c, base + ids[k], true);
    }
    for (uint32_t k = 0; k < u->n; k++) {
        if (ht_cache_holds(c, base + ids[k]))
            hits++;
        else
            ht_cache_admit(c, base + ids[k], false, s->left, MOST_LEAVE);
    }
    for (uint32_t k = 0; k < u->n; k++)
        ht_cache_pin(c, base + ids[k], false);
    out->uses += u->n;
    out->hits += hits;
    out->bytes += (u->n - hits) * bytes;
    if (u->batch)
        return;
    out->decode_uses += u->n;
    out->decode_hits += hits;
    out->decode_bytes += (u->n - hits) * bytes;
    if (first) {
        out->first_uses += u->n;
        out->first_hits += hits;
    }
}

/* What a heat file keeps. */
static void keep(sim *s, const ht_cache *c)
{
    ht_cache_get_heat(c, s->heat);
    s->n_tokens = ht_cache_tokens_bytes(c);
    free(s->tokens);
    if ((s->tokens = malloc(s->n_tokens + 1)))
        ht_cache_get_tokens(c, s->tokens);
}

static ht_status replay(sim *s, hearth_cache_policy policy, uint64_t budget, bool warm, hearth_cache_result *out,
                        ht_error *err)
{
    const ht_cache_params p = { .kind = (ht_cache_kind)policy, .n_layer = s->r->n_layer, .n_expert = s->r->n_expert,
                                .unit_bytes = s->r->expert_bytes, .budget = budget, .seed = 1 };
    ht_cache *c;
    ht_status st = ht_cache_open(&c, &p, err);

    if (st != HT_OK)
        return st;
    if (warm) {
        ht_cache_set_heat(c, s->heat);
        ht_cache_set_tokens(c, s->tokens, s->n_tokens);
        if (!fill(s, c, budget))
            st = ht_fail(err, HT_ENOMEM, "simulating a cache");
    }
    *out = (hearth_cache_result){ .policy = policy, .budget = budget };
    for (size_t i = 0; i < s->uses.n && st == HT_OK; i++)
        step(s, c, &s->uses.use[i], out);
    keep(s, c);
    ht_cache_close(c);
    return st == HT_OK && !s->tokens ? ht_fail(err, HT_ENOMEM, "simulating a cache") : st;
}

/* The uses of a record and when each expert comes again. */
static ht_status look(sim *s, const hearth_routes *r, ht_error *err)
{
    ht_status st = ht_routes_uses(r, &s->uses, err);

    if (st != HT_OK)
        return st;
    s->r = r;
    if (!(s->next = malloc((r->n_rows + 1) * sizeof *s->next)))
        return ht_fail(err, HT_ENOMEM, "simulating a cache");
    look_ahead(s);
    return HT_OK;
}

static void look_away(sim *s)
{
    ht_uses_free(&s->uses);
    free(s->next);
    s->next = NULL;
}

hearth_status hearth_routes_simulate(const hearth_routes *r, hearth_cache_policy policy, uint64_t budget,
                                     const hearth_routes *earlier, hearth_cache_result *result, hearth_error *error)
{
    ht_error *err = ht_profile_err(error);
    const size_t n_unit = (size_t)r->n_layer * r->n_expert;
    hearth_cache_result out;
    sim s = { 0 };
    ht_status st = HT_OK;

    if (!hearth_cache_policy_name(policy))
        return (hearth_status)ht_fail(err, HT_EINVAL, "there is no policy %d", (int)policy);
    if (earlier && (earlier->n_layer != r->n_layer || earlier->n_expert != r->n_expert))
        return (hearth_status)ht_fail(err, HT_EMISMATCH, "the earlier record has %u layers of %u experts, this one %u of %u",
                                      earlier->n_layer, earlier->n_expert, r->n_layer, r->n_expert);
    s.latest = malloc(n_unit * sizeof *s.latest);
    s.heat = calloc(n_unit, sizeof *s.heat);
    s.left = malloc(MOST_LEAVE * sizeof *s.left);
    if (!s.latest || !s.heat || !s.left)
        st = ht_fail(err, HT_ENOMEM, "simulating a cache of %zu experts", n_unit);
    if (st == HT_OK && earlier && (st = look(&s, earlier, err)) == HT_OK)
        st = replay(&s, policy, budget, false, &out, err);
    look_away(&s);
    if (st == HT_OK && (st = look(&s, r, err)) == HT_OK && (st = replay(&s, policy, budget, earlier != NULL, &out, err)) == HT_OK)
        ht_profile_result(result, &out, sizeof out);
    look_away(&s);
    free(s.latest);
    free(s.heat);
    free(s.tokens);
    free(s.left);
    return (hearth_status)st;
}
