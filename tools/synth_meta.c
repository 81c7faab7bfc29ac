/* SPDX-License-Identifier: MIT
 *
 * Metadata of a synthetic model: the keys that llama.cpp's converter writes for the architecture, the vocabulary,
 * and under hearth.synth.* everything that the file was made from. Threads: one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/synth_model.h"

/* Writes ARCH.key values and keeps the first failure. */
typedef struct keys {
    hearth_writer *w;
    const char *arch;
    hearth_status st;
} keys;

static const char *arch_key(const keys *k, const char *name, char *buf, size_t n)
{
    snprintf(buf, n, "%s.%s", k->arch, name);
    return buf;
}

static void keep(keys *k, hearth_status st)
{
    if (k->st == HEARTH_OK)
        k->st = st;
}

static void u32(keys *k, const char *name, uint32_t v)
{
    char buf[96];

    keep(k, hearth_writer_set_u32(k->w, arch_key(k, name, buf, sizeof buf), v));
}

static void f32(keys *k, const char *name, float v)
{
    char buf[96];

    keep(k, hearth_writer_set_f32(k->w, arch_key(k, name, buf, sizeof buf), v));
}

static void str(keys *k, const char *name, const char *v)
{
    char buf[96];

    keep(k, hearth_writer_set_str(k->w, arch_key(k, name, buf, sizeof buf), v));
}

/* general.file_type as llama.cpp numbers them; -1 where it has none. */
static int file_type(const char *type)
{
    static const struct {
        const char *type;
        int id;
    } ids[] = {
        { "f32", 0 },    { "f16", 1 },     { "q4_0", 2 },     { "q4_1", 3 },    { "q8_0", 7 },
        { "q5_0", 8 },   { "q5_1", 9 },    { "q2_k", 10 },    { "q3_k", 11 },   { "q4_k", 14 },
        { "q5_k", 16 },  { "q6_k", 18 },   { "iq2_xxs", 19 }, { "iq2_xs", 20 }, { "iq3_xxs", 23 },
        { "iq1_s", 24 }, { "iq4_nl", 25 }, { "iq3_s", 26 },   { "iq2_s", 28 },  { "iq4_xs", 30 },
        { "iq1_m", 31 }, { "bf16", 32 },   { "tq1_0", 36 },   { "tq2_0", 37 },  { "mxfp4", 38 },
    };

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (strcmp(ids[i].type, type) == 0)
            return ids[i].id;
    return -1;
}

static void write_general(const synth_model *m, keys *k)
{
    char name[128];
    int ft = file_type(m->options.type);

    snprintf(name, sizeof name, "hearth synth %s", m->shape.name);
    keep(k, hearth_writer_set_str(k->w, "general.architecture", k->arch));
    keep(k, hearth_writer_set_str(k->w, "general.type", "model"));
    keep(k, hearth_writer_set_str(k->w, "general.name", name));
    keep(k, hearth_writer_set_str(k->w, "general.description",
                                  "Random weights for benchmarks and tests; speaks no language."));
    if (ft >= 0)
        keep(k, hearth_writer_set_u32(k->w, "general.file_type", (uint32_t)ft));
    if (m->options.type[0] != 'f' && m->options.type[0] != 'b')
        keep(k, hearth_writer_set_u32(k->w, "general.quantization_version", 2));
}

static void write_arch(const synth_model *m, keys *k)
{
    const synth_shape *s = &m->shape;

    u32(k, "block_count", s->n_layer);
    u32(k, "context_length", s->n_ctx);
    u32(k, "embedding_length", s->d);
    u32(k, "feed_forward_length", s->ff);
    u32(k, "attention.head_count", s->n_head);
    u32(k, "attention.head_count_kv", s->n_kv);
    f32(k, "rope.freq_base", s->rope_base);
    f32(k, "attention.layer_norm_rms_epsilon", s->eps);
    if (s->flags & SYNTH_KEY_LENGTH) {
        u32(k, "attention.key_length", s->head_dim);
        u32(k, "attention.value_length", s->head_dim);
    }
    if (s->flags & SYNTH_LLAMA_KEYS) {
        u32(k, "vocab_size", s->n_vocab);
        u32(k, "rope.dimension_count", s->head_dim);
    }
    if (s->rope_dims)
        u32(k, "rope.dimension_count", s->rope_dims);
    if (s->window)
        u32(k, "attention.sliding_window", s->window);
    if (s->yarn_factor > 0) {
        str(k, "rope.scaling.type", "yarn");
        f32(k, "rope.scaling.factor", s->yarn_factor);
        u32(k, "rope.scaling.original_context_length", s->yarn_ctx);
    }
    if (s->n_expert) {
        u32(k, "expert_count", s->n_expert);
        u32(k, "expert_used_count", s->n_used);
        if (strcmp(s->arch, "llama") != 0 && strcmp(s->arch, "olmoe") != 0)
            u32(k, "expert_feed_forward_length", s->ff_expert);
        if (s->ff_shared)
            u32(k, "expert_shared_feed_forward_length", s->ff_shared);
        if (s->flags & SYNTH_ROUTER_EARLY)
            u32(k, "expert_gating_func", s->flags & SYNTH_SIGMOID ? 2 : 1);
    }
    if (s->flags & SYNTH_NEXT) {
        u32(k, "ssm.conv_kernel", s->ssm_kernel);
        u32(k, "ssm.state_size", s->ssm_state);
        u32(k, "ssm.group_count", s->ssm_groups);
        u32(k, "ssm.time_step_rank", s->ssm_heads);
        u32(k, "ssm.inner_size", s->ssm_inner);
        u32(k, "full_attention_interval", 4);
    }
    /* llama.cpp has no such key: a llama file runs with SiLU unless it is said (golden/FACTS.md). */
    if (strcmp(s->arch, "llama") == 0 && s->act == SYNTH_RELU)
        str(k, "hidden_activation", "relu");
}

static void write_vocab(const synth_model *m, keys *k)
{
    const synth_vocab *v = &m->vocab;
    hearth_writer *w = k->w;

    keep(k, hearth_writer_set_str(w, "tokenizer.ggml.model", "gpt2"));
    keep(k, hearth_writer_set_str(w, "tokenizer.ggml.pre", "gpt-2"));
    keep(k, hearth_writer_set_strs(w, "tokenizer.ggml.tokens", v->tokens, v->n));
    keep(k, hearth_writer_set_i32s(w, "tokenizer.ggml.token_type", v->types, v->n));
    keep(k, hearth_writer_set_strs(w, "tokenizer.ggml.merges", v->merges, v->n_merges));
    keep(k, hearth_writer_set_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos));
    keep(k, hearth_writer_set_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos));
    keep(k, hearth_writer_set_bool(w, "tokenizer.ggml.add_bos_token", true));
}

/* One member of every layer's plan as an array. */
static void per_layer(const synth_model *m, keys *k, const char *key, size_t offset)
{
    float v[SYNTH_MAX_LAYERS];

    for (uint32_t l = 0; l < m->shape.n_layer; l++) {
        double x;

        memcpy(&x, (const char *)&m->layers[l] + offset, sizeof x);
        v[l] = (float)x;
    }
    keep(k, hearth_writer_set_f32s(k->w, key, v, m->shape.n_layer));
}

#define PER_LAYER(key, member) per_layer(m, k, "hearth.synth." key, offsetof(synth_layer, member))

static void write_plan(const synth_model *m, keys *k)
{
    const synth_options *o = &m->options;
    hearth_writer *w = k->w;

    keep(k, hearth_writer_set_u32(w, "hearth.synth.version", 1));
    keep(k, hearth_writer_set_str(w, "hearth.synth.shape", m->shape.name));
    keep(k, hearth_writer_set_str(w, "hearth.synth.type", o->type));
    keep(k, hearth_writer_set_u64(w, "hearth.synth.seed", o->seed));
    keep(k, hearth_writer_set_u32(w, "hearth.synth.layers", m->shape.n_layer));
    keep(k, hearth_writer_set_u32(w, "hearth.synth.vocab", m->shape.n_vocab));
    keep(k, hearth_writer_set_u32(w, "hearth.synth.first_word", m->vocab.first_word));
    keep(k, hearth_writer_set_u32(w, "hearth.synth.topic_split", m->vocab.split));
    keep(k, hearth_writer_set_u32(w, "hearth.synth.topic_run", m->topic_run));
    PER_LAYER("layer_rms", rest_rms);
    if (o->sparse || o->routed)
        keep(k, hearth_writer_set_f32(w, "hearth.synth.topic_share", (float)m->topic_share));
    if (o->sparse) {
        int32_t batch[8];
        float share[8];

        for (int i = 0; i < 8; i++) {
            batch[i] = 1 << i;
            share[i] = (float)synth_plan_union(m, 1u << i);
        }
        keep(k, hearth_writer_set_f32(w, "hearth.synth.density", (float)o->density));
        keep(k, hearth_writer_set_f32(w, "hearth.synth.overlap", (float)o->overlap));
        PER_LAYER("layer_density", density);
        PER_LAYER("layer_exponent", exponent);
        PER_LAYER("layer_scale", scale);
        PER_LAYER("layer_hot_share", hot_share);
        PER_LAYER("layer_overlap", overlap);
        PER_LAYER("layer_overlap_topics", overlap_topics);
        keep(k, hearth_writer_set_i32s(w, "hearth.synth.union_batch", batch, 8));
        keep(k, hearth_writer_set_f32s(w, "hearth.synth.union", share, 8));
    }
    if (o->routed) {
        keep(k, hearth_writer_set_f32(w, "hearth.synth.routing_skew", (float)o->skew));
        keep(k, hearth_writer_set_u32(w, "hearth.synth.clusters", m->vocab.n_clusters));
        keep(k, hearth_writer_set_f32(w, "hearth.synth.cluster_stay", (float)m->stay));
        PER_LAYER("layer_routing_overlap", routing_overlap);
        PER_LAYER("layer_routing_static", routing_static);
        PER_LAYER("layer_routing_bias", bias_std);
        PER_LAYER("layer_routing_cluster", cluster_share);
    }
}

hearth_status synth_meta_write(const synth_model *m, hearth_writer *w)
{
    keys k = { w, m->shape.arch, HEARTH_OK };

    write_general(m, &k);
    write_arch(m, &k);
    write_plan(m, &k);
    write_vocab(m, &k);
    return k.st;
}
