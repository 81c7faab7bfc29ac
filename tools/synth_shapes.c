/* SPDX-License-Identifier: MIT
 *
 * The known shapes, one row each, and what a file of such a shape holds: tensors and metadata with the names that
 * llama.cpp's converter gives them. Threads: any; the table is constant. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/synth_model.h"

#define LLAMA SYNTH_LLAMA_KEYS
#define QWEN3 (SYNTH_KEY_LENGTH | SYNTH_QK_NORM)
#define SMALL (SYNTH_KEY_LENGTH | SYNTH_ROUTER_EARLY | SYNTH_SIGMOID)
#define OSS (SYNTH_KEY_LENGTH | SYNTH_GPT_OSS | SYNTH_FFN_NORM_POST)
#define NEXT (SYNTH_KEY_LENGTH | SYNTH_QK_NORM | SYNTH_NEXT | SYNTH_FFN_NORM_POST)

/* clang-format off */
const synth_shape synth_shapes[] = {
    /* name, arch, about, layers, d, heads, kv, head_dim, ff, vocab, ctx, rope, eps, act, flags, … */
    {"llama-1.1b", "llama", "TinyLlama 1.1B", 22, 2048, 32, 4, 64, 5632, 32000, 2048, 1e4f, 1e-5f, SYNTH_SILU, LLAMA,
     .n_expert = 0},
    {"llama-7b", "llama", "Llama 2 7B", 32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e4f, 1e-5f, SYNTH_SILU, LLAMA,
     .n_expert = 0},
    {"llama-8b", "llama", "Llama 3 8B", 32, 4096, 32, 8, 128, 14336, 128256, 8192, 5e5f, 1e-5f, SYNTH_SILU, LLAMA,
     .n_expert = 0},
    {"relu-1.1b", "llama", "TinyLlama's shape with a ReLU gate", 22, 2048, 32, 4, 64, 5632, 32000, 2048, 1e4f, 1e-5f,
     SYNTH_RELU, LLAMA, .n_expert = 0},
    {"relu-7b", "llama", "Llama 2 7B's shape with a ReLU gate", 32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e4f, 1e-5f,
     SYNTH_RELU, LLAMA, .n_expert = 0},
    {"relu2-arcee-4.5b", "arcee", "Arcee AFM 4.5B: squared ReLU, no gate", 36, 2560, 20, 4, 128, 18432, 128004, 4096,
     1e4f, 1e-5f, SYNTH_RELU2, LLAMA | SYNTH_KEY_LENGTH | SYNTH_UNGATED, .n_expert = 0},
    {"qwen2.5-7b", "qwen2", "Qwen2.5 7B", 28, 3584, 28, 4, 128, 18944, 152064, 32768, 1e6f, 1e-6f, SYNTH_SILU,
     SYNTH_QKV_BIAS, .n_expert = 0},
    {"qwen3-8b", "qwen3", "Qwen3 8B", 36, 4096, 32, 8, 128, 12288, 151936, 40960, 1e6f, 1e-6f, SYNTH_SILU, QWEN3,
     .n_expert = 0},
    {"qwen3-30b-a3b", "qwen3moe", "Qwen3 30B-A3B: 128 experts, 8 chosen", 48, 2048, 32, 4, 128, 6144, 151936, 40960,
     1e6f, 1e-6f, SYNTH_SILU, QWEN3, .n_expert = 128, .n_used = 8, .ff_expert = 768},
    {"olmoe", "olmoe", "OLMoE 1B-7B: 64 experts, 8 chosen", 16, 2048, 16, 16, 128, 1024, 50304, 4096, 1e4f, 1e-5f,
     SYNTH_SILU, SYNTH_QK_NORM_WIDE | SYNTH_NO_RENORM, .n_expert = 64, .n_used = 8, .ff_expert = 1024},
    {"mixtral-8x7b", "llama", "Mixtral 8x7B: 8 experts, 2 chosen", 32, 4096, 32, 8, 128, 14336, 32000, 32768, 1e6f,
     1e-5f, SYNTH_SILU, LLAMA, .n_expert = 8, .n_used = 2, .ff_expert = 14336},
    {"gpt-oss-20b", "gpt-oss", "gpt-oss 20B: 32 experts, 4 chosen", 24, 2880, 64, 8, 64, 2880, 201088, 131072, 1.5e5f,
     1e-5f, SYNTH_SWIGLU_OAI, OSS, .n_expert = 32, .n_used = 4, .ff_expert = 2880, .window = 128, .yarn_factor = 32,
     .yarn_ctx = 4096},
    {"smallthinker-21b", "smallthinker", "SmallThinker 21B-A3B: 64 ReLU experts, 6 chosen", 52, 2560, 28, 4, 128, 768,
     151936, 16384, 1.5e6f, 1e-6f, SYNTH_RELU, SMALL, .n_expert = 64, .n_used = 6, .ff_expert = 768, .window = 4096},
    {"qwen3-next-80b", "qwen3next", "Qwen3-Next 80B-A3B: DeltaNet, 512 experts, 10 chosen and one shared", 48, 2048, 16,
     2, 256, 5120, 151936, 262144, 1e7f, 1e-6f, SYNTH_SILU, NEXT, .n_expert = 512, .n_used = 10, .ff_expert = 512,
     .ff_shared = 512, .ssm_kernel = 4, .ssm_state = 128, .ssm_groups = 16, .ssm_heads = 32, .ssm_inner = 4096,
     .rope_dims = 64},
    {"tiny-llama", "llama", "a small llama, for tests", 4, 256, 4, 2, 64, 768, 1024, 2048, 1e4f, 1e-5f, SYNTH_SILU,
     LLAMA, .n_expert = 0},
    {"tiny-odd", "llama", "a small llama whose rows are no multiples of 256", 3, 288, 6, 3, 48, 480, 1000, 2048, 1e4f,
     1e-5f, SYNTH_SILU, LLAMA, .n_expert = 0},
    {"tiny-relu", "llama", "a small llama with a ReLU gate", 4, 256, 4, 2, 64, 1024, 1024, 2048, 1e4f, 1e-5f,
     SYNTH_RELU, LLAMA, .n_expert = 0},
    {"tiny-relu2", "arcee", "a small arcee: squared ReLU, no gate", 4, 256, 4, 2, 64, 1024, 1024, 2048, 1e4f, 1e-5f,
     SYNTH_RELU2, LLAMA | SYNTH_KEY_LENGTH | SYNTH_UNGATED, .n_expert = 0},
    {"tiny-qwen3", "qwen3", "a small Qwen3", 4, 256, 4, 2, 64, 768, 1024, 2048, 1e6f, 1e-6f, SYNTH_SILU, QWEN3,
     .n_expert = 0},
    {"tiny-moe", "qwen3moe", "a small Qwen3 mixture: 32 experts, 4 chosen", 4, 256, 4, 2, 64, 768, 1024, 2048, 1e6f,
     1e-6f, SYNTH_SILU, QWEN3, .n_expert = 32, .n_used = 4, .ff_expert = 256},
    {"tiny-relu-moe", "smallthinker", "a small SmallThinker: 16 ReLU experts, 4 chosen", 4, 256, 4, 2, 64, 256, 1024,
     2048, 1.5e6f, 1e-6f, SYNTH_RELU, SMALL, .n_expert = 16, .n_used = 4, .ff_expert = 256},
    {"tiny-gpt-oss", "gpt-oss", "a small gpt-oss: 8 experts, 2 chosen", 4, 256, 4, 2, 64, 256, 1024, 2048, 1.5e5f,
     1e-5f, SYNTH_SWIGLU_OAI, OSS, .n_expert = 8, .n_used = 2, .ff_expert = 256, .window = 64},
    {"tiny-next", "qwen3next", "a small Qwen3-Next: DeltaNet, 16 experts, 4 chosen and one shared", 4, 256, 4, 2, 64,
     512, 1024, 2048, 1e7f, 1e-6f, SYNTH_SILU, NEXT, .n_expert = 16, .n_used = 4, .ff_expert = 256, .ff_shared = 256,
     .ssm_kernel = 4, .ssm_state = 32, .ssm_groups = 4, .ssm_heads = 8, .ssm_inner = 256, .rope_dims = 16},
};
/* clang-format on */
const size_t synth_n_shapes = sizeof synth_shapes / sizeof *synth_shapes;

const synth_shape *synth_shape_find(const char *name)
{
    for (size_t i = 0; i < synth_n_shapes; i++)
        if (strcmp(synth_shapes[i].name, name) == 0)
            return &synth_shapes[i];
    return NULL;
}

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

/* What llama.cpp takes where a row is no multiple of the type's block of 256. */
static const char *const fallbacks[][2] = {
    { "q2_k", "iq4_nl" },  { "q3_k", "iq4_nl" },   { "q4_k", "q5_0" },      { "q5_k", "q5_1" },
    { "q6_k", "q8_0" },    { "iq4_xs", "iq4_nl" }, { "iq3_s", "iq4_nl" },   { "iq3_xxs", "iq4_nl" },
    { "iq2_s", "iq4_nl" }, { "iq2_xs", "iq4_nl" }, { "iq2_xxs", "iq4_nl" }, { "iq1_s", "iq4_nl" },
    { "iq1_m", "iq4_nl" }, { "tq1_0", "q4_0" },    { "tq2_0", "q4_0" },
};

static bool fits(const char *type, uint64_t row)
{
    size_t bytes;

    return hearth_encode(type, NULL, row, NULL, &bytes) == HEARTH_OK;
}

static const char *fitting_type(synth_model *m, const char *type, uint64_t row)
{
    const char *was = type;

    if (fits(type, row))
        return type;
    for (size_t i = 0; i < sizeof fallbacks / sizeof *fallbacks; i++)
        if (strcmp(fallbacks[i][0], type) == 0) {
            type = fallbacks[i][1];
            break;
        }
    if (type == was || !fits(type, row))
        type = "f16";
    m->n_fallback++;
    snprintf(m->fallback, sizeof m->fallback, "rows of %llu are no multiple of a block of %s: %s there",
             (unsigned long long)row, was, type);
    return type;
}

/* Appends a tensor; type NULL: the one asked for, where its rows allow. */
static void put(synth_model *m, const char *name, int layer, synth_role role, const char *type, uint64_t a, uint64_t b,
                uint64_t c)
{
    synth_tensor *t = &m->tensors[m->n_tensors++];

    *t = (synth_tensor){ .role = role,
                         .layer = layer < 0 ? 0 : (uint32_t)layer,
                         .ne = { a, b ? b : 1, c ? c : 1, 1 },
                         .n_dims = c   ? 3
                                   : b ? 2
                                       : 1 };
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
    t->rows = t->ne[1] * t->ne[2];
    t->type = type ? type : fitting_type(m, m->options.type, a);
    t->key = synth_key_text(synth_key(m->key, 7), t->name);
}

static void put_attention(synth_model *m, int l)
{
    const synth_shape *s = &m->shape;
    uint64_t q = (uint64_t)s->n_head * s->head_dim, kv = (uint64_t)s->n_kv * s->head_dim;
    bool oss = s->flags & SYNTH_GPT_OSS, bias = (s->flags & SYNTH_QKV_BIAS) || oss;

    put(m, "attn_q.weight", l, SYNTH_R_READ, NULL, s->d, s->flags & SYNTH_NEXT ? 2 * q : q, 0);
    put(m, "attn_k.weight", l, SYNTH_R_READ, NULL, s->d, kv, 0);
    put(m, "attn_v.weight", l, SYNTH_R_READ, NULL, s->d, kv, 0);
    if (bias) {
        put(m, "attn_q.bias", l, SYNTH_R_BIAS, "f32", q, 0, 0);
        put(m, "attn_k.bias", l, SYNTH_R_BIAS, "f32", kv, 0, 0);
        put(m, "attn_v.bias", l, SYNTH_R_BIAS, "f32", kv, 0, 0);
    }
    if (s->flags & (SYNTH_QK_NORM | SYNTH_QK_NORM_WIDE)) {
        bool wide = s->flags & SYNTH_QK_NORM_WIDE;

        put(m, "attn_q_norm.weight", l, SYNTH_R_ONES, "f32", wide ? q : s->head_dim, 0, 0);
        put(m, "attn_k_norm.weight", l, SYNTH_R_ONES, "f32", wide ? kv : s->head_dim, 0, 0);
    }
    put(m, "attn_output.weight", l, SYNTH_R_ATTN_OUT, NULL, q, s->d, 0);
    if (oss) {
        put(m, "attn_output.bias", l, SYNTH_R_BIAS_OUT, "f32", s->d, 0, 0);
        put(m, "attn_sinks.weight", l, SYNTH_R_SINKS, "f32", s->n_head, 0, 0);
    }
}

static void put_deltanet(synth_model *m, int l)
{
    const synth_shape *s = &m->shape;
    uint64_t qkv = 2ull * s->ssm_groups * s->ssm_state + s->ssm_inner;

    put(m, "ssm_a", l, SYNTH_R_SSM_A, "f32", s->ssm_heads, 0, 0);
    put(m, "ssm_conv1d.weight", l, SYNTH_R_CONV, "f32", s->ssm_kernel, qkv, 0);
    put(m, "ssm_dt.bias", l, SYNTH_R_SSM_DT, "f32", s->ssm_heads, 0, 0);
    put(m, "ssm_ba.weight", l, SYNTH_R_READ, NULL, s->d, 2 * s->ssm_heads, 0);
    put(m, "attn_qkv.weight", l, SYNTH_R_READ, NULL, s->d, qkv, 0);
    put(m, "attn_gate.weight", l, SYNTH_R_READ, NULL, s->d, s->ssm_inner, 0);
    put(m, "ssm_norm.weight", l, SYNTH_R_ONES, "f32", s->ssm_inner / s->ssm_heads, 0, 0);
    put(m, "ssm_out.weight", l, SYNTH_R_ATTN_OUT, NULL, s->ssm_inner, s->d, 0);
}

static void put_ffn(synth_model *m, int l)
{
    const synth_shape *s = &m->shape;
    bool oss = s->flags & SYNTH_GPT_OSS;

    if (!s->n_expert) {
        if (!(s->flags & SYNTH_UNGATED))
            put(m, "ffn_gate.weight", l, SYNTH_R_GATE, NULL, s->d, s->ff, 0);
        put(m, "ffn_up.weight", l, s->flags & SYNTH_UNGATED ? SYNTH_R_GATE : SYNTH_R_READ, NULL, s->d, s->ff, 0);
        put(m, "ffn_down.weight", l, SYNTH_R_DOWN, NULL, s->ff, s->d, 0);
        return;
    }
    put(m, "ffn_gate_inp.weight", l, SYNTH_R_ROUTER, "f32", s->d, s->n_expert, 0);
    if (oss)
        put(m, "ffn_gate_inp.bias", l, SYNTH_R_BIAS, "f32", s->n_expert, 0, 0);
    put(m, "ffn_gate_exps.weight", l, SYNTH_R_GATE, NULL, s->d, s->ff_expert, s->n_expert);
    put(m, "ffn_up_exps.weight", l, SYNTH_R_READ, NULL, s->d, s->ff_expert, s->n_expert);
    put(m, "ffn_down_exps.weight", l, SYNTH_R_DOWN, NULL, s->ff_expert, s->d, s->n_expert);
    if (oss) {
        put(m, "ffn_gate_exps.bias", l, SYNTH_R_BIAS, "f32", s->ff_expert, s->n_expert, 0);
        put(m, "ffn_up_exps.bias", l, SYNTH_R_BIAS, "f32", s->ff_expert, s->n_expert, 0);
        put(m, "ffn_down_exps.bias", l, SYNTH_R_BIAS_OUT, "f32", s->d, s->n_expert, 0);
    }
    if (s->ff_shared) {
        put(m, "ffn_gate_inp_shexp.weight", l, SYNTH_R_READ, "f32", s->d, 1, 0);
        put(m, "ffn_gate_shexp.weight", l, SYNTH_R_READ, NULL, s->d, s->ff_shared, 0);
        put(m, "ffn_up_shexp.weight", l, SYNTH_R_READ, NULL, s->d, s->ff_shared, 0);
        put(m, "ffn_down_shexp.weight", l, SYNTH_R_DOWN_SHARED, NULL, s->ff_shared, s->d, 0);
    }
}

hearth_status synth_tensors_list(synth_model *m)
{
    const synth_shape *s = &m->shape;

    m->tensors = calloc(3 + (size_t)s->n_layer * 24, sizeof *m->tensors);
    if (!m->tensors)
        return HEARTH_ENOMEM;
    /* The vocabulary's rows are no ternary numbers: as llama.cpp does, other types take them. */
    put(m, "token_embd.weight", -1, SYNTH_R_EMBEDDING, m->ternary ? fitting_type(m, "q4_k", s->d) : NULL, s->d,
        s->n_vocab, 0);
    for (uint32_t i = 0; i < s->n_layer; i++) {
        int l = (int)i;

        put(m, "attn_norm.weight", l, SYNTH_R_NORM_ATTN, "f32", s->d, 0, 0);
        if ((s->flags & SYNTH_NEXT) && (l + 1) % 4 != 0)
            put_deltanet(m, l);
        else
            put_attention(m, l);
        put(m, s->flags & SYNTH_FFN_NORM_POST ? "post_attention_norm.weight" : "ffn_norm.weight", l, SYNTH_R_NORM_FFN,
            "f32", s->d, 0, 0);
        put_ffn(m, l);
    }
    put(m, "output_norm.weight", -1, SYNTH_R_NORM_OUT, "f32", s->d, 0, 0);
    put(m, "output.weight", -1, SYNTH_R_OUTPUT, m->ternary ? fitting_type(m, "q6_k", s->d) : NULL, s->d, s->n_vocab, 0);
    return HEARTH_OK;
}
