/* SPDX-License-Identifier: MIT
 *
 * What the parts of the model synthesiser share: the shape asked for, the plan of what is planted, the vocabulary, the
 * list of tensors. docs/synth.md explains the construction; in short, of the d channels of the residual stream some are
 * reserved (no layer writes to them), which makes them constants that a weight row can use as a threshold:
 *
 *   [0, 32)   constant 1 in every embedding        thresholds of neurons, popularity of experts
 *   [32, 64)  +1 or -1 by the half of the vocabulary   topic
 *   [64, 96)  one vector per cluster of tokens, in mixtures with planted routing: experts that stay from token to token
 *   the rest  random
 *
 * Owner: synth_model owns everything below it (synth_model_deinit). Threads: read-only once planned, then any. */
#ifndef HEARTH_TOOLS_SYNTH_MODEL_H
#define HEARTH_TOOLS_SYNTH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/hearth.h"
#include "tools/synth_rng.h"

enum { SYNTH_BLOCK = 32, SYNTH_CONST = 0, SYNTH_TOPIC = 32, SYNTH_CLUSTER = 64, SYNTH_MAX_LAYERS = 256 };

typedef enum synth_act { SYNTH_SILU, SYNTH_RELU, SYNTH_RELU2, SYNTH_SWIGLU_OAI } synth_act;

enum {
    SYNTH_KEY_LENGTH = 1,     /* writes attention.key_length, value_length */
    SYNTH_LLAMA_KEYS = 2,     /* writes vocab_size, rope.dimension_count */
    SYNTH_UNGATED = 4,        /* up, activation, down */
    SYNTH_QKV_BIAS = 8,
    SYNTH_QK_NORM = 16,       /* per head */
    SYNTH_QK_NORM_WIDE = 32,  /* over the whole projection */
    SYNTH_GPT_OSS = 64,       /* biases everywhere, attention sinks */
    SYNTH_ROUTER_EARLY = 128, /* the router reads the layer's input, before any norm */
    SYNTH_NEXT = 256,         /* gated DeltaNet layers, every 4th layer full attention with an output gate */
    SYNTH_FFN_NORM_POST = 512,/* the norm before the feed-forward block is called post_attention_norm */
    SYNTH_NO_RENORM = 1024,   /* softmax over all experts, not renormalised over the chosen ones */
    SYNTH_SIGMOID = 2048      /* router scores by sigmoid, renormalised */
};

/* One row of the table of shapes. */
typedef struct synth_shape {
    const char *name, *arch, *about;
    uint32_t n_layer, d, n_head, n_kv, head_dim, ff, n_vocab, n_ctx;
    float rope_base, eps;
    synth_act act;
    uint32_t flags;
    uint32_t n_expert, n_used, ff_expert, ff_shared; /* 0 where dense */
    uint32_t window;                                 /* sliding window, 0 for none */
    float yarn_factor;                               /* 0 for none */
    uint32_t yarn_ctx;
    uint32_t ssm_kernel, ssm_state, ssm_groups, ssm_heads, ssm_inner; /* DeltaNet */
    uint32_t rope_dims;                              /* where not head_dim */
} synth_shape;

/* What the user asked for. */
typedef struct synth_options {
    const char *type;
    uint64_t seed;
    bool sparse;            /* --density was given */
    double density, overlap;
    bool routed;            /* --routing-skew was given */
    double skew;
    uint32_t threads;
} synth_options;

/* The plan of one layer. */
typedef struct synth_layer {
    double rest_rms;        /* of the random channels, at the feed-forward block's input */
    double input_rms;       /* the same at the layer's input */
    double out_std, down_std, shared_std; /* of the rows of attn_output, ffn_down, ffn_down_shexp */
    /* planted activation: p(u) = min(p_max, scale × u^-exponent) for a neuron of relative rank u */
    double density, exponent, scale, hot_share, overlap, overlap_topics;
    /* planted routing, in units of the random part of a router logit */
    double routing_overlap, routing_static, bias_std, cluster_share, weight2;
} synth_layer;

typedef struct synth_vocab {
    uint32_t n;
    char *text;             /* all token texts, terminated, one after the other */
    const char **tokens;    /* [n] */
    int32_t *types;         /* [n] */
    char *merge_text;
    const char **merges;
    size_t n_merges;
    uint32_t first_word, split, first_control; /* words: [first_word, first_control); topic B from split on */
    int32_t bos, eos;
    uint32_t n_clusters;    /* 0: none */
    uint32_t *cluster;      /* [n] */
    int32_t *before, *after; /* [n]: the chain that greedy decoding follows; -1 where a token is not in it */
} synth_vocab;

typedef enum synth_role {
    SYNTH_R_EMBEDDING, SYNTH_R_OUTPUT,
    SYNTH_R_NORM_ATTN, SYNTH_R_NORM_FFN, SYNTH_R_NORM_OUT, SYNTH_R_ONES,
    SYNTH_R_READ,   /* reads the stream: reserved columns are zero */
    SYNTH_R_GATE,   /* the same with the neurons' thresholds */
    SYNTH_R_ATTN_OUT, SYNTH_R_DOWN, SYNTH_R_DOWN_SHARED, /* write to the stream: reserved rows are zero */
    SYNTH_R_ROUTER, SYNTH_R_BIAS, SYNTH_R_BIAS_OUT, SYNTH_R_SINKS, SYNTH_R_CONV, SYNTH_R_SSM_A, SYNTH_R_SSM_DT
} synth_role;

typedef struct synth_tensor {
    char name[48];
    synth_role role;
    uint32_t layer, n_dims;
    uint64_t ne[4];
    const char *type;       /* lower case */
    uint64_t key;           /* of its random stream */
    uint64_t rows;
} synth_tensor;

typedef struct synth_model {
    synth_shape shape;      /* with --layers and --vocab applied */
    synth_options options;
    char type[16];          /* what options.type points at: lower case */
    uint64_t key;
    bool ternary, fp4;      /* types whose weights have few levels */
    uint32_t n_reserved;
    double kappa;           /* factor of the reserved channels in ffn_norm */
    double final_rms;       /* of the random channels, after the last layer */
    double p_max, logit_std, logit_target, topic_logit, cluster_logit;
    synth_layer *layers;
    /* thresholds of the gate rows, [layer][expert][neuron], in standard deviations: constant and topic part */
    float *t_const, *t_topic;
    /* biases of the experts, [layer][expert] */
    float *b_const, *b_topic;
    double stay;            /* chance that the chain's next token is of the same cluster */
    double topic_share;     /* of neurons and experts whose frequency depends on the topic */
    uint32_t topic_run;     /* tokens of one topic in a row in the chain */
    synth_vocab vocab;
    synth_tensor *tensors;
    size_t n_tensors;
    uint64_t n_fallback;    /* tensors that could not take the type asked for */
    char fallback[160];     /* a sentence about them, or "" */
    float normals[SYNTH_NORMALS];
} synth_model;

/* ---- synth_shapes.c */
extern const synth_shape synth_shapes[];
extern const size_t synth_n_shapes;
const synth_shape *synth_shape_find(const char *name);
/* Lists the tensors of a planned model. */
hearth_status synth_tensors_list(synth_model *m);

/* ---- synth_meta.c
 * Writes the metadata: what llama.cpp's converter writes for the architecture, the vocabulary, and hearth.synth.*. */
hearth_status synth_meta_write(const synth_model *m, hearth_writer *w);

/* ---- synth_vocab.c */
hearth_status synth_vocab_init(synth_vocab *v, uint32_t n, uint32_t n_clusters, double stay, uint32_t topic_run,
                               uint64_t key);
void synth_vocab_deinit(synth_vocab *v);
static inline bool synth_vocab_topic(const synth_vocab *v, uint32_t id) { return id >= v->split; }

/* ---- synth_plan.c, synth_plan_routing.c */
hearth_status synth_plan_solve(synth_model *m);
hearth_status synth_plan_routing(synth_model *m);
/* Chance that a neuron of relative rank u in (0, 1) fires. */
double synth_plan_firing(const synth_model *m, const synth_layer *l, double u);
/* Share of neurons that fire at least once in `batch` tokens of one topic, mean over the layers. */
double synth_plan_union(const synth_model *m, uint32_t batch);
void synth_model_deinit(synth_model *m);

/* ---- synth_rows.c: row `row` (of rows = ne[1] × ne[2] × ...) of a tensor, ne[0] values; scratch: d values. Any
 * thread. */
void synth_row_fill(const synth_model *m, const synth_tensor *t, uint64_t row, float *dst, float *scratch);

/* ---- synth_write.c */
typedef struct synth_totals { uint64_t weights, bytes; } synth_totals;
/* progress is called after every chunk, and cancels where it answers false (HEARTH_ECANCELLED; no file is left). */
hearth_status synth_write(const synth_model *m, const char *path, hearth_progress_fn *progress, synth_totals *totals,
                          hearth_error *err);

#endif
