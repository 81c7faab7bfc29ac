/* SPDX-License-Identifier: MIT
 * The cache's policy: what always holds, by random operations against a list of what should be held; Belady's optimum
 * against every other policy. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/cache_policy.h"

enum { LAYERS = 5, EXPERTS = 9, UNITS = LAYERS * EXPERTS, KINDS = HT_CACHE_RANDOM + 1 };

static const uint64_t sizes[LAYERS] = { 300, 200, 300, 0, 500 }; /* layer 3 has none */
static uint64_t seed = 11;

static uint32_t rnd(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static ht_cache *open_cache(ht_cache_kind kind, uint64_t budget)
{
    const ht_cache_params p = { .kind = kind, .n_layer = LAYERS, .n_expert = EXPERTS, .unit_bytes = sizes,
                                .budget = budget, .seed = 3 };
    ht_error err;
    ht_cache *c;
    cr_assert_eq(ht_cache_open(&c, &p, &err), HT_OK, "%s", err.text);
    return c;
}

static uint64_t held_bytes(const ht_cache *c)
{
    uint64_t sum = 0;
    for (uint32_t u = 0; u < UNITS; u++)
        sum += ht_cache_holds(c, u) ? sizes[u / EXPERTS] : 0;
    return sum;
}

Test(cache_policy, budgets_and_pins_hold_whatever_happens)
{
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t budget = 2500;
        ht_cache *c = open_cache((ht_cache_kind)kind, budget);
        uint32_t pins[UNITS] = { 0 }, out[UNITS];
        bool held[UNITS] = { false };
        for (int i = 0; i < 4000; i++) {
            uint32_t u = rnd(UNITS), n = 0, two[2] = { rnd(EXPERTS - 1), EXPERTS - 1 };
            switch (rnd(7)) {
            case 0:
                if (rnd(8) == 0)
                    ht_cache_remember(c, u / EXPERTS, two, 1, 2);
                ht_cache_use(c, u / EXPERTS, two, 2, rnd(4) == 0);
                break;
            case 1:
                if (held[u] && rnd(2)) {
                    ht_cache_pin(c, u, true);
                    pins[u]++;
                }
                break;
            case 2:
                if (pins[u]) {
                    ht_cache_pin(c, u, false);
                    pins[u]--;
                    n = ht_cache_set_budget(c, budget, out, UNITS); /* what pins kept over a lowered budget may go now */
                }
                break;
            case 3:
                if (!pins[u]) {
                    ht_cache_remove(c, u);
                    held[u] = false;
                }
                break;
            case 4:
                budget = 1500 + rnd(2500);
                n = ht_cache_set_budget(c, budget, out, UNITS);
                break;
            default:
                n = ht_cache_admit(c, u, rnd(4) == 0, out, rnd(5) ? UNITS : 1);
                if (n != UINT32_MAX)
                    held[u] = true;
            }
            for (uint32_t k = 0; n != UINT32_MAX && k < n; k++) {
                cr_assert(held[out[k]] && !pins[out[k]], "kind %d, step %d: unit %u left", kind, i, out[k]);
                held[out[k]] = false;
            }
            uint64_t pinned = 0;
            for (uint32_t v = 0; v < UNITS; v++) {
                cr_assert_eq(ht_cache_holds(c, v), held[v], "kind %d, step %d, unit %u", kind, i, v);
                pinned += pins[v] ? sizes[v / EXPERTS] : 0;
            }
            cr_assert(held_bytes(c) <= budget || held_bytes(c) == pinned, "kind %d, step %d", kind, i);
        }
        ht_cache_close(c);
    }
}

Test(cache_policy, what_cannot_be_is_refused)
{
    uint32_t out[4];
    ht_cache *c = open_cache(HT_CACHE_LRU, 500);
    cr_assert_eq(ht_cache_admit(c, 3 * EXPERTS, false, out, 4), UINT32_MAX, "a layer without experts");
    cr_assert_eq(ht_cache_admit(c, 4 * EXPERTS, false, out, 4), 0);
    cr_assert_eq(ht_cache_admit(c, 4 * EXPERTS, false, out, 4), 0, "held already");
    ht_cache_pin(c, 4 * EXPERTS, true);
    cr_assert_eq(ht_cache_admit(c, 0, false, out, 4), UINT32_MAX, "all else is pinned");
    ht_cache_pin(c, 4 * EXPERTS, false);
    cr_assert_eq(ht_cache_admit(c, 0, false, out, 4), 1);
    cr_assert_eq(out[0], 4 * EXPERTS);
    ht_cache_close(c);
    ht_cache_close(NULL);
}

/* Misses of a sequence of uses, one expert a step, in a cache of three units of one size. */
static uint32_t misses(ht_cache_kind kind, const uint32_t *units, uint32_t n)
{
    static const uint64_t one[2] = { 1, 1 };
    const ht_cache_params p = { .kind = kind, .n_layer = 2, .n_expert = 4, .unit_bytes = one, .budget = 3, .seed = 5 };
    uint32_t out[8], missed = 0;
    ht_cache *c;
    cr_assert_eq(ht_cache_open(&c, &p, NULL), HT_OK);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t e = units[i] % 4, later = i + 1;
        while (later < n && units[later] != units[i])
            later++;
        ht_cache_use(c, units[i] / 4, &e, 1, false);
        ht_cache_set_next_use(c, units[i], later < n ? later : UINT64_MAX);
        if (!ht_cache_holds(c, units[i])) {
            missed++;
            cr_assert_neq(ht_cache_admit(c, units[i], false, out, 8), UINT32_MAX);
        }
    }
    ht_cache_close(c);
    return missed;
}

/* The fewest misses of any sequence of choices: held is a set of units, three at most. */
static uint32_t fewest(const uint32_t *units, uint32_t n, uint32_t held)
{
    while (n && held >> *units & 1) {
        units++;
        n--;
    }
    if (!n)
        return 0;
    if (__builtin_popcount(held) < 3)
        return 1 + fewest(units + 1, n - 1, held | 1u << *units);
    uint32_t best = UINT32_MAX;
    for (uint32_t u = 0; u < 8; u++)
        if (held >> u & 1) {
            const uint32_t m = 1 + fewest(units + 1, n - 1, (held & ~(1u << u)) | 1u << *units);
            best = m < best ? m : best;
        }
    return best;
}

Test(cache_policy, belady_is_the_optimum)
{
    for (int round = 0; round < 200; round++) {
        uint32_t units[14];
        for (uint32_t i = 0; i < 14; i++) /* layers in turn */
            units[i] = i % 2 * 4 + rnd(4);
        const uint32_t best = fewest(units, 14, 0);
        cr_assert_eq(misses(HT_CACHE_BELADY, units, 14), best, "round %d", round);
        for (int kind = 0; kind < KINDS; kind++)
            cr_assert_geq(misses((ht_cache_kind)kind, units, 14), best, "round %d, kind %d", round, kind);
    }
}

/* Tokens of a text in which what a token takes in layer 0 says all about its other layers, and nothing about the next token. */
static uint32_t walk(ht_cache *c, const uint32_t *kinds, uint32_t n)
{
    uint32_t out[32], hits = 0;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t il = 0; il < 4; il++) {
            const uint32_t e = (kinds[t] + il * 3) % 8, unit = il * 8 + e;
            ht_cache_use(c, il, &e, 1, false);
            hits += ht_cache_holds(c, unit);
            cr_assert(ht_cache_holds(c, unit) || ht_cache_admit(c, unit, false, out, 32) != UINT32_MAX);
        }
    return hits;
}

Test(cache_policy, what_similar_tokens_took_is_worth_keeping)
{
    static const uint64_t one[4] = { 1, 1, 1, 1 };
    const ht_cache_params p = { .kind = HT_CACHE_HEAT, .n_layer = 4, .n_expert = 8, .unit_bytes = one, .budget = 14 };
    uint32_t kinds[400], taken[400 * 4][1];
    ht_cache *lru, *heat, *told, *again;
    ht_cache_params q = p;
    for (uint32_t i = 0; i < 400; i++)
        kinds[i] = rnd(8);
    q.kind = HT_CACHE_LRU;
    cr_assert(!ht_cache_open(&lru, &q, NULL) && !ht_cache_open(&heat, &p, NULL) && !ht_cache_open(&told, &p, NULL) &&
              !ht_cache_open(&again, &p, NULL));
    for (uint32_t il = 0; il < 4; il++) { /* the first half as a prompt of which nothing was counted as used */
        for (uint32_t i = 0; i < 400; i++)
            taken[i][0] = (kinds[i] + il * 3) % 8;
        ht_cache_remember(told, il, taken[0], 200, 1);
    }
    const uint32_t by_lru = walk(lru, kinds + 200, 200), cold = walk(heat, kinds + 200, 200),
                   after_prompt = walk(told, kinds + 200, 200);
    cr_expect_gt(cold, by_lru + 40);
    cr_expect_geq(after_prompt, cold);
    /* What a heat file keeps of the tokens. */
    const size_t bytes = ht_cache_tokens_bytes(told);
    uint8_t *kept = calloc(bytes + 1, 1), *back = calloc(bytes + 1, 1);
    cr_assert_eq(bytes, 255u * (1 + 4));
    ht_cache_get_tokens(told, kept);
    cr_expect(!ht_cache_set_tokens(again, kept, bytes - 1));
    cr_expect(!ht_cache_set_tokens(lru, kept, bytes));
    cr_assert(ht_cache_set_tokens(again, kept, bytes));
    ht_cache_get_tokens(again, back);
    kept[0] = 0; /* nothing is known of what came before the first */
    cr_expect_arr_eq(kept, back, bytes);
    for (size_t i = 0; i < bytes; i++)
        kept[i] = (uint8_t)rnd(256);
    cr_expect(ht_cache_set_tokens(again, kept, bytes), "whatever it holds");
    walk(again, kinds, 400);
    free(kept);
    free(back);
    ht_cache_close(lru);
    ht_cache_close(heat);
    ht_cache_close(told);
    ht_cache_close(again);
}

Test(cache_policy, heat_goes_from_one_cache_to_the_next)
{
    float heat[UNITS], again[UNITS];
    ht_cache *a = open_cache(HT_CACHE_HEAT, 2500), *b = open_cache(HT_CACHE_HEAT, 2500);
    for (int t = 0; t < 50; t++)
        for (uint32_t il = 0; il < LAYERS; il++) {
            uint32_t two[2] = { rnd(3), 3 + rnd(3) };
            ht_cache_use(a, il, two, 2, false);
        }
    ht_cache_get_heat(a, heat);
    ht_cache_set_heat(b, heat);
    ht_cache_get_heat(b, again);
    for (uint32_t u = 0; u < UNITS; u++) {
        cr_assert(heat[u] >= 0.0f && heat[u] <= 1.0001f);
        cr_assert_float_eq(heat[u], again[u], 1e-4, "unit %u", u);
    }
    cr_assert_eq(heat[8], 0.0f, "never used");
    ht_cache_close(a);
    ht_cache_close(b);
}
