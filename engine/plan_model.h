/* SPDX-License-Identifier: MIT
 *
 * A plan's problem (engine/base/plan.h) made of a model, what a profile knows of it, this machine's figures, and the wishes of
 * a user: context, KV cache, budgets, pins. And what the solved plan means: seconds of a token and of a prompt, bytes by tier.
 *
 * Pieces are experts of mixtures; of dense blocks the whole block, or, where a graphics card may take a share, runs of its
 * neurons. The output projection is the last layer.
 *
 * How seconds are counted, of one token on the CPU:
 *   weights    stored bytes / the type's read rate. Models whose bytes of a token fit into the last-level cache are read at the
 *              rate of that; in between (three quarters to one and a half times the cache) the two are mixed
 *   attention  positions * KV heads * (k_dim + v_dim) * (element + heads that share them * query)
 *   tasks      of a layer: q, k and v together; attention; output; router; gate and up; down. Each costs one sharing out;
 *              norms, rotations, sums and the like a small operation each; a router's answer is waited for
 *   disk       a piece that has to be read: bytes / rate, and then its computing, which nothing hides. Reading of a dense block
 *              goes on behind the layer's trunk, for it is known to come
 *   skipping   with a profile that knows how often neurons fire, and an activation that has zeros: gate rows as a whole, of up
 *              and down the active share at the rate of rows picked here and there
 * and of a prompt: multiply-adds / the type's rate at the number of tokens that meet a matrix, at least the time of reading
 * its bytes; attention by pairs of positions; experts on disk are read once a batch, beside the computing.
 *
 * Owner: ht_plan_make fills, ht_plan_drop frees. Threads: any; a pure function. */
#ifndef HT_PLAN_MODEL_H
#define HT_PLAN_MODEL_H

#include "engine/disk.h"
#include "engine/model.h"
#include "engine/plan.h"
#include "engine/rates.h"

/* What a profile knows of a layer; negative and NULL: nothing. */
typedef struct ht_plan_use {
    double density;                /* active neurons of those computed */
    double expert_overlap;         /* a token's experts that the token before had too */
    const float *expert_frequency; /* [n_expert] shares of tokens */
    const float *frequency;        /* [n_expert][n_ff] shares of tokens */
} ht_plan_use;

typedef struct ht_plan_setting {
    const ht_model *m;
    const ht_rates *r;
    ht_budget budget;      /* as they are: 0 is nothing */
    bool streamable;       /* false: RAM holds what it holds, the system pages the rest */
    bool streamed;         /* experts and blocks lie in slots, and some may stay on disk; else all of them are mapped */
    bool f32, sparse;
    uint64_t cache_bytes;  /* of the last level */
    uint64_t fixed_bytes;  /* of RAM: tables, scratch of threads and of the session */
    uint64_t floor_bytes;  /* of slots, once a piece is on disk */
    uint32_t n_ctx, depth, prompt, batch;
    ht_type kv;
    double disk_bps;       /* 0: nothing is known of the disk */
    const ht_plan_use *use;/* [n_layer], or NULL */
    const char *const *pins;
    size_t n_pins;
} ht_plan_setting;

/* Of one layer, the output projection after the last. */
typedef struct ht_plan_row {
    ht_tier trunk;
    uint64_t trunk_bytes, kv_bytes; /* of weights; of a whole context */
    uint32_t n_pieces, n_in[3];     /* by ht_tier */
    uint64_t in_bytes[3];           /* of pieces */
    double trunk_s, cpu_s, gpu_s, disk_s; /* of a token, expected; of pieces */
} ht_plan_row;

typedef struct ht_plan_made {
    ht_plan_problem problem;
    ht_plan plan;
    ht_plan_row *rows; /* [n_layer + 1] */
    uint32_t n_rows;
    double decode_s, decode_full_s; /* a token at `depth`, and at the end of the context */
    double prompt_s;                /* `prompt` tokens from an empty context, the first token's logits included */
    uint64_t kv_bytes, weight_bytes_per_token;
    double disk_bytes_per_token;    /* expected */
    ht_plan_layer *layers;
    ht_plan_piece *pieces;
} ht_plan_made;

/* Fails: ENOMEM with a sentence that says how much is missing and what helps; EINVAL: a pin that is not understood or cannot be. */
ht_status ht_plan_make(ht_plan_made *out, const ht_plan_setting *s, ht_error *err);
void ht_plan_drop(ht_plan_made *p); /* zero-initialised ones too */

/* Bytes that trunks, pieces and the output take together, and of them pieces in slots. */
uint64_t ht_plan_weight_bytes(const ht_model *m);
uint64_t ht_plan_piece_bytes(const ht_model *m);

/* The types whose figures a model's plan needs. */
ht_rates_want ht_plan_wants(const ht_model *m, ht_type kv);

#endif
