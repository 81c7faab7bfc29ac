/* SPDX-License-Identifier: MIT
 *
 * The table of architectures: one row for each name that general.architecture may hold, with just what a GGUF file
 * leaves unsaid. Everything else (biases, q/k norms, post norms, fused matrices, gates, sinks, shared experts,
 * recurrent blocks) is read from which tensors a layer has and what shape they are. No other file tests an
 * architecture's name.
 * No state; any thread. */
#ifndef HT_ARCH_H
#define HT_ARCH_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/base/exec.h"

typedef enum ht_rope_style { HT_ROPE_NONE, HT_ROPE_PAIRS, HT_ROPE_NEOX } ht_rope_style; /* (2i, 2i+1) or (i, i + n/2) */

/* Which layers see a sliding window, where the file gives one (attention.sliding_window > 0) and no pattern of its
 * own. */
typedef enum ht_window_rule {
    HT_WINDOW_NONE,       /* the key is ignored */
    HT_WINDOW_ALL,
    HT_WINDOW_PERIOD_LAST, /* layer i is global where i % period == period - 1 */
    HT_WINDOW_PERIOD_FIRST /* layer i is global where i % period == 0 */
} ht_window_rule;

typedef struct ht_arch {
    const char *name;
    ht_norm_kind norm;
    ht_rope_style rope;
    ht_activation act;       /* where hidden_activation says nothing */
    ht_window_rule window;
    unsigned window_period;
    unsigned no_rope_period; /* layer i has no rope where (i + 1) % n == 0; 0: all have it */
    bool no_rope_global;     /* layers without window have no rope, where the file gives a window */
    bool rope_swa_plain;     /* windowed layers: base rope.freq_base_swa where given, and no scaling */
    float swa_base;          /* their base where it is not given; 0: the other layers' */
    bool embed_sqrt;         /* embeddings times sqrt(d_model) */
    bool post_is_ffn_norm;   /* post_attention_norm is the norm before the feed-forward, not one after attention */
    bool logits_divided;     /* logit_scale divides (else multiplies) */
    bool router_before_attn; /* the router reads the layer's input */
    ht_gating gating;        /* where expert_gating_func says nothing */
    bool renormalise;        /* expert weights, where expert_weights_norm says nothing */
    bool heads_tiled;        /* value head h of a delta block reads key head h mod n_k, else h / (n_v / n_k) */
    ht_activation sparse_act; /* that of PowerInfer's files of this name; SILU: there are none */
    bool parallel;           /* attention and feed-forward block read the same input; ffn_norm is optional then */
    bool positions;          /* learnt positions (position_embd), from row position_offset on */
    unsigned position_offset;
    unsigned scale_by_embd_layers; /* with this many layers attention's scale is 1/sqrt(d_model / n_head); 0: never */
} ht_arch;

/* The row of a name, or NULL. */
const ht_arch *ht_arch_find(const char *name, size_t n);
/* What kind of file has this architecture name where it is no language model ("an image projector", "an embedding
 * model"), or NULL. For messages. */
const char *ht_arch_foreign(const char *name, size_t n);
const char *ht_activation_name(ht_activation a);
/* Reads an activation's name as hidden_activation spells it ("relu", "fatrelu:0.01"); false: unknown. */
bool ht_activation_parse(const char *s, size_t n, ht_activation *act, float *param);

#endif
