/* SPDX-License-Identifier: MIT
 *
 * Which experts stay in memory: the policy alone, without bytes, files or time. The store (engine/store) and the simulator
 * (hearth cache-sim) run this same code, so that what is simulated is what runs.
 *
 * Units are numbered layer * n_expert + expert. A cache holds units whose sizes sum up to at most a budget; units of one
 * layer have one size. The caller says which units a step of a layer uses; the policy says, for each that is not held,
 * which ones leave for it. Pinned units (leased now, or wanted sooner than they would be used again) never leave.
 *
 * Policies:
 *   LRU, LFU   baselines: least recently used; least often used, ties by recency
 *   HEAT       the default: what leaves is the unit whose next use is expected to be farthest away, by moving averages of its
 *              uses, by what similar tokens used, and by the distance of its layer (cf. EdgeMoE,
 *              arXiv:2308.14352, section 4.3); docs/experts.md has the rest
 *   BELADY     the offline optimum (simulator only): told the next use of each unit
 *
 * Owner: ht_cache_open/close. Threads: one at a time. Nothing is allocated after open. */
#ifndef HT_BASE_CACHE_POLICY_H
#define HT_BASE_CACHE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

typedef enum ht_cache_kind { HT_CACHE_LRU, HT_CACHE_LFU, HT_CACHE_HEAT, HT_CACHE_BELADY, HT_CACHE_RANDOM } ht_cache_kind;

typedef struct ht_cache ht_cache;

typedef struct ht_cache_params {
    ht_cache_kind kind;
    uint32_t n_layer, n_expert;
    const uint64_t *unit_bytes; /* [n_layer]: size of one expert of this layer; 0: the layer has none */
    uint64_t budget;            /* bytes */
    uint64_t seed;              /* RANDOM */
} ht_cache_params;

ht_status ht_cache_open(ht_cache **out, const ht_cache_params *params, ht_error *err);
uint64_t ht_cache_bytes(uint32_t n_layer, uint32_t n_expert); /* what open takes at most */
void ht_cache_close(ht_cache *c); /* NULL allowed */

bool ht_cache_holds(const ht_cache *c, uint32_t unit);
/* One step of a layer uses these units (each once, any order): counted as uses, their heat grows. `batch`: a prompt's chunk (each unit
 * met once for many tokens): weighs less than tokens of their own. Brings nothing in. */
void ht_cache_use(ht_cache *c, uint32_t layer, const uint32_t *experts, uint32_t n, bool batch);
/* The same for a prompt's chunk of which it is known how many of its n_tokens tokens took each of these: worth having, for the
 * first tokens that are generated live on it. */
void ht_cache_use_prompt(ht_cache *c, uint32_t layer, const uint32_t *experts, const uint32_t *counts, uint32_t n,
                         uint32_t n_tokens);
/* Which experts [n_tokens][n_used] each token of a prompt's chunk took, layer by layer in ascending order: what similar tokens take is
 * foretold by them. Counts as no use. */
void ht_cache_remember(ht_cache *c, uint32_t layer, const uint32_t *experts, uint32_t n_tokens, uint32_t n_used);
/* Room for a unit that is not held: which units leave, into out[max]; they count as gone and the unit as held. Returns their
 * number; UINT32_MAX: not possible (all else is pinned, or the budget is under its size), nothing is changed then. ahead: the unit is only
 * foreseen; it may only displace what is worth less, else UINT32_MAX. */
uint32_t ht_cache_admit(ht_cache *c, uint32_t unit, bool ahead, uint32_t *out, uint32_t max);
/* A held unit that leaves by the caller's will (a failed read, a lowered budget). */
void ht_cache_remove(ht_cache *c, uint32_t unit);
void ht_cache_pin(ht_cache *c, uint32_t unit, bool pinned); /* counted: pins add up */
/* Another budget: which units leave, as in admit; call again while it returns max. */
uint32_t ht_cache_set_budget(ht_cache *c, uint64_t budget, uint32_t *out, uint32_t max);
/* BELADY: when the unit is used next, by the caller's clock; UINT64_MAX: never. */
void ht_cache_set_next_use(ht_cache *c, uint32_t unit, uint64_t at);

/* Heat of all units, [n_layer * n_expert], for a file between two runs; order of first filling: hottest first. */
void ht_cache_get_heat(const ht_cache *c, float *heat);
void ht_cache_set_heat(ht_cache *c, const float *heat);
/* What the last tokens took, for the same file: for each token, oldest first, a byte that is 1 where the one before it is the one
 * before it in the text, then n_layer times (n_expert + 7) / 8 bytes of bits. get: into out[ht_cache_tokens_bytes]. set: the last
 * ones of them; whatever the bytes hold is allowed. False: they are not whole tokens of such a model, nothing is changed. */
size_t ht_cache_tokens_bytes(const ht_cache *c);
void ht_cache_get_tokens(const ht_cache *c, uint8_t *out);
bool ht_cache_set_tokens(ht_cache *c, const uint8_t *tokens, size_t bytes);

#endif
