/* SPDX-License-Identifier: MIT
 *
 * A model as the layer code sees it: checked shapes, views of weights in the mapped file, small vectors as float32.
 * Made once by ht_model_load from a GGUF file and a row of the architecture table; read-only afterwards.
 *
 * Owner: ht_model_free frees it; weight views point into the ht_gguf, which must outlive it. Threads: read-only. */
#ifndef HT_MODEL_H
#define HT_MODEL_H

#include "engine/arch.h"
#include "engine/base/cluster.h"
#include "engine/gguf.h"
#include "engine/pack.h"

/* One way of rotating: layers that share it share its table of cosines and sines. */
typedef struct ht_rope {
    uint32_t n_rot;
    float *inv_freq;      /* [n_rot/2] */
    float *inv_freq_long; /* [n_rot/2], longrope beyond the original context; NULL otherwise */
    float factor;         /* on cosine and sine */
    uint32_t original_ctx;/* the long factors hold iff the context exceeds this */
} ht_rope;

typedef struct ht_norm { const float *w, *b; } ht_norm; /* w NULL: the model has no such norm here */

/* Attention, of a layer that has it (q.host != NULL). */
typedef struct ht_attn {
    ht_part q, k, v, o;                    /* rows: heads * dim; q rows are doubled where gated */
    const float *q_b, *k_b, *v_b, *o_b;
    ht_norm q_norm, k_norm, sub_norm;
    bool norm_full;                        /* q/k norms over the whole width, not per head */
    bool gated;                            /* each head's q rows are followed by as many gate rows */
    const float *sinks;                    /* [n_head] */
    uint32_t n_head, n_kv, k_dim, v_dim, window;
    int rope;                              /* index into ht_model.ropes, -1: none */
    float scale;
} ht_attn;

/* Gated delta net, of a layer that has it (qkv.host != NULL). */
typedef struct ht_delta {
    ht_part qkv, z, ba, alpha, beta, o;    /* ba: both projections in one, grouped by key head */
    const float *conv_w, *dt_bias, *a;
    ht_norm norm;
    uint32_t n_k, n_v, k_dim, v_dim, taps; /* channels of the convolution: 2 * n_k * k_dim + n_v * v_dim */
    bool tiled;
} ht_delta;

/* Feed-forward block: one expert that is always chosen, or a mixture. */
typedef struct ht_ffn {
    uint32_t n_ff, n_expert, n_used;       /* dense: n_expert 1, n_used 1, no router */
    ht_part router;                        /* host NULL: dense */
    const float *router_b, *select_bias;
    ht_gating gating;
    bool renormalise;
    float weights_scale;
    ht_part (*experts)[HT_N_ROLES];        /* [n_expert] */
    const float *bias[HT_N_ROLES];         /* [n_expert][rows] */
    ht_norm sub_norm;
    ht_part fc1, fc2;                      /* the file's own predictor, docs/powerinfer.md; host NULL: it has none */
    /* Shared expert beside the routed ones; n_ff 0: none. */
    uint32_t shared_n_ff;
    ht_part shared[HT_N_ROLES], shared_gate;
} ht_ffn;

typedef struct ht_layer {
    ht_norm attn_norm, post_attn_norm, ffn_norm, post_ffn_norm;
    ht_attn attn;
    ht_delta delta;
    ht_ffn ffn;
} ht_layer;

typedef struct ht_model {
    const ht_arch *arch;
    const ht_gguf *gguf;
    uint32_t n_layer, d_model, n_vocab, n_ctx_train;
    float norm_eps, embed_scale, residual_scale, logit_scale, final_softcap, attn_softcap;
    ht_activation act;
    float act_param;
    ht_part embed, output;
    ht_part positions;                     /* learnt ones, added to the embeddings; host NULL: none */
    uint32_t n_positions;                  /* no context is longer; 0: no such bound */
    float sparse_threshold;                /* of the file's own predictors */
    bool columns;                          /* some down projection is HT_LAYOUT_COLUMNS */
    const float *output_b;
    ht_norm output_norm;
    ht_layer *layers;                      /* [n_layer] */
    ht_rope *ropes;
    uint32_t n_ropes;
    /* Maxima over layers, for sizing. */
    uint32_t max_q, max_kv, max_attn_out, max_ff, max_expert, max_used, max_k, max_head, max_conv, max_inner,
        max_v_heads;
    bool recurrent;                        /* some layer has recurrent state */
    uint64_t n_params, weight_bytes, bytes_per_token, ffn_bytes_per_token; /* the latter: of these by feed-forward blocks */
    struct ht_predict *predict;            /* engine/predict.h; NULL: no neuron is foretold */
    ht_pack *pack;                         /* NULL: the file is plain */
    size_t unpack_bytes;                   /* of it, for the executor: see ht_cpu_params */
    void **chunks;                         /* everything allocated at load */
    size_t n_chunks, cap_chunks;
    uint64_t table_bytes;                  /* of the chunks: vectors as float32, lists of layers and experts */
} ht_model;

/* HT_EFORMAT: a key or tensor is missing, has the wrong shape or a value out of range. HT_EUNSUPPORTED:
 * architecture, tensor type or scaling this version does not know. */
ht_status ht_model_load(ht_model *m, const ht_gguf *g, ht_error *err);
void ht_model_free(ht_model *m);

/* Inside the loader (model.c, model_layer.c, rope.c). */
typedef struct ht_loader {
    ht_model *m;
    const ht_gguf *g;
    ht_error *err;
    const char *arch; /* key prefix */
} ht_loader;

void *ht_model_alloc(ht_model *m, size_t n, size_t size); /* zeroed; NULL: out of memory */
ht_status ht_load_layer(ht_loader *ld, uint32_t il);
/* The rotation of layers with base, scaled or not; finds or makes it. */
ht_status ht_load_rope(ht_loader *ld, uint32_t n_rot, bool windowed, int *index);
/* "ARCH.suffix" in a buffer of 160. */
const char *ht_load_key(const ht_loader *ld, char *buf, const char *suffix);
/* A number, or element il of an array of numbers, under "ARCH.suffix"; missing leaves *out. */
ht_status ht_load_u32(const ht_loader *ld, const char *suffix, uint32_t il, uint32_t *out);
ht_status ht_load_f32(const ht_loader *ld, const char *suffix, float *out);
ht_status ht_load_bool(const ht_loader *ld, const char *suffix, bool *out);
/* Tensors by name; fmt's %u is il, where it has one. A matrix of k columns and n rows (0: any) as a part; a vector
 * of n as floats. need: missing is an error, else host / *out stays NULL. */
ht_status ht_load_matrix(ht_loader *ld, const char *fmt, uint32_t il, uint64_t k, uint64_t n, bool need, ht_part *out);
ht_status ht_load_vector(ht_loader *ld, const char *fmt, uint32_t il, uint64_t n, bool need, const float **out);
const ht_tensor *ht_load_tensor(const ht_loader *ld, const char *fmt, uint32_t il);
/* Checks type and size of a tensor of any number of dimensions: ne[0] == k, ne[1] == n, ne[2] == e. */
ht_status ht_load_check(const ht_loader *ld, const ht_tensor *t, uint64_t k, uint64_t n, uint64_t e);
/* Of a packed file: the tensor of the plain file, NULL: it is not there packed; the same check. */
const ht_pack_tensor *ht_load_packed(const ht_loader *ld, const char *fmt, uint32_t il);
ht_status ht_load_check_packed(const ht_loader *ld, const ht_pack_tensor *t, uint64_t k, uint64_t n, uint64_t e);
ht_status ht_load_norm(ht_loader *ld, const char *base, uint32_t il, uint64_t n, bool need, ht_norm *out);

#endif
