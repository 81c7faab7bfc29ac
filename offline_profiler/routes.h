/* SPDX-License-Identifier: MIT
 *
 * Recorded routing in memory: rows as the file has them, and the same as uses of layers, which is what a cache sees.
 * routes.c holds, reads and writes it and listens to sessions; cache_sim.c and foresee.c replay it.
 *
 * Owner: see hearth_profiler.h. Threads: one at a time; a record that nobody changes may be read by several. */
#ifndef HT_ROUTES_H
#define HT_ROUTES_H

#include "engine/base/status.h"
#include "offline_profiler/hearth_profiler.h"
#include "offline_profiler/profile.h"

typedef struct ht_route_row {
    uint32_t turn, step, layer, slot, expert;
    float weight;
    bool generated;
} ht_route_row;

struct hearth_routes {
    char model[256], arch[64], fingerprint[33]; /* fingerprint: "" where the record does not tell */
    uint32_t n_layer, n_expert, n_used;
    uint64_t *expert_bytes, *dense_bytes; /* [n_layer] */
    ht_route_row *rows;
    size_t n_rows, room;
    /* recording */
    uint32_t turn;
    bool generating;
    uint32_t last_position, last_layer; /* of the pass recorded last */
    /* replaying */
    struct ht_uses *replayed;
    uint32_t next, layer, n_pass; /* generated token that the pass begins with; the pass, as last heard of */
};

/* A layer and the experts that a token of it takes, or all tokens of a prompt. */
typedef struct ht_use {
    uint32_t layer, n, token; /* token: counts steps; a prompt is one */
    size_t first;             /* in experts, weights */
    uint32_t n_tokens;        /* of a batch */
    size_t tokens;            /* of a batch, in taken: [n_tokens][n_taken] */
    uint32_t n_taken;         /* by each token; 0: by some more than by others */
    bool batch;
} ht_use;

typedef struct ht_uses {
    ht_use *use;
    size_t n;
    uint32_t *taken;            /* what each token of a prompt took */
    uint32_t *experts, *counts; /* counts: of a batch, tokens that took this expert */
    float *weights;
    uint32_t n_tokens, n_generated;
    size_t *token_at; /* [n_generated + 1] first use of each generated token */
} ht_uses;

/* The rows in order as uses; prompts as batches, each expert once in first-seen order. */
ht_status ht_routes_uses(const hearth_routes *r, ht_uses *out, ht_error *err);
void ht_uses_free(ht_uses *u);

#endif
