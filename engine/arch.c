/* SPDX-License-Identifier: MIT
 * The table of architectures; see arch.h. To add one: a row here, a golden test, and (only if the layer has a new
 * kind of block) that block in layer.c. */
#include "engine/arch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RMS .norm = HT_NORM_RMS
#define LN .norm = HT_NORM_LAYER
#define PAIRS .rope = HT_ROPE_PAIRS
#define NEOX .rope = HT_ROPE_NEOX
#define SILU .act = HT_ACT_SILU
#define PERIOD(rule, n) .window = HT_WINDOW_PERIOD_##rule, .window_period = n

static const ht_arch archs[] = {
    /* mistral and mixtral files are `llama` too */
    { "llama", RMS, PAIRS, SILU, .window = HT_WINDOW_ALL, .renormalise = true, .sparse_act = HT_ACT_RELU },
    { "bamboo", RMS, PAIRS, .act = HT_ACT_DRELU, .sparse_act = HT_ACT_DRELU },
    { "qwen2", RMS, NEOX, SILU },
    { "qwen2moe", RMS, NEOX, SILU },
    { "qwen3", RMS, NEOX, SILU },
    { "qwen3moe", RMS, NEOX, SILU, .renormalise = true },
    { "qwen3next", RMS, NEOX, SILU, .renormalise = true, .post_is_ffn_norm = true },
    { "qwen35", RMS, NEOX, SILU, .post_is_ffn_norm = true, .heads_tiled = true },
    { "qwen35moe", RMS, NEOX, SILU, .renormalise = true, .post_is_ffn_norm = true, .heads_tiled = true },
    { "phi3", RMS, NEOX, SILU, .window = HT_WINDOW_ALL },
    { "gemma", RMS, NEOX, .act = HT_ACT_GELU_TANH, .embed_sqrt = true },
    { "gemma2", RMS, NEOX, .act = HT_ACT_GELU_TANH, PERIOD(LAST, 2), .embed_sqrt = true, .scale_by_embd_layers = 46 },
    { "gemma3", RMS, NEOX, .act = HT_ACT_GELU_TANH, PERIOD(LAST, 6), .rope_swa_plain = true, .swa_base = 10000.0f,
      .embed_sqrt = true, .scale_by_embd_layers = 62 },
    { "olmo2", RMS, NEOX, SILU, PERIOD(LAST, 4), .rope_swa_plain = true },
    { "olmoe", RMS, NEOX, SILU },
    { "smollm3", RMS, PAIRS, SILU, .no_rope_period = 4 },
    { "granite", RMS, PAIRS, SILU, .logits_divided = true },
    { "granitemoe", RMS, PAIRS, SILU, .logits_divided = true, .gating = HT_GATE_SOFTMAX_TOPK },
    { "exaone4", RMS, NEOX, SILU, PERIOD(LAST, 4), .no_rope_global = true },
    { "seed_oss", RMS, NEOX, SILU, .post_is_ffn_norm = true },
    { "glm4", RMS, PAIRS, SILU },
    { "glm4moe", RMS, NEOX, SILU, .post_is_ffn_norm = true, .gating = HT_GATE_SIGMOID, .renormalise = true },
    { "dots1", RMS, NEOX, SILU, .gating = HT_GATE_SIGMOID, .renormalise = true },
    { "ernie4_5", RMS, PAIRS, SILU },
    { "ernie4_5-moe", RMS, PAIRS, SILU, .renormalise = true },
    { "falcon", LN, NEOX, .act = HT_ACT_GELU_ERF, .sparse_act = HT_ACT_RELU, .parallel = true },
    /* as PowerInfer converts it; the first two rows of the positions are those of padding */
    { "opt", LN, .act = HT_ACT_RELU, .sparse_act = HT_ACT_RELU, .positions = true, .position_offset = 2 },
    { "gpt2", LN, .act = HT_ACT_GELU_TANH, .positions = true },
    { "starcoder2", LN, NEOX, .act = HT_ACT_GELU_TANH },
    { "jais2", LN, NEOX, .act = HT_ACT_RELU2 },
    { "arcee", RMS, PAIRS, .act = HT_ACT_RELU2 },
    { "nemotron", LN, NEOX, .act = HT_ACT_RELU2 },
    { "bitnet", RMS, NEOX, SILU },
    { "bitnet-b1.58", RMS, NEOX, .act = HT_ACT_RELU2 },
    { "gpt-oss", RMS, NEOX, .act = HT_ACT_SWIGLU_OAI, PERIOD(LAST, 2), .post_is_ffn_norm = true,
      .gating = HT_GATE_SOFTMAX_TOPK },
    { "smallthinker", RMS, NEOX, .act = HT_ACT_RELU, PERIOD(FIRST, 4), .no_rope_global = true,
      .router_before_attn = true, .gating = HT_GATE_SOFTMAX, .renormalise = true },
};

const ht_arch *ht_arch_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strlen(archs[i].name) == n && memcmp(archs[i].name, name, n) == 0)
            return &archs[i];
    return NULL;
}

const char *ht_arch_foreign(const char *name, size_t n)
{
    static const struct { const char *name, *what; } foreign[] = {
        { "clip", "an image projector (mmproj)" },
        { "bert", "an embedding model" },
        { "nomic-bert", "an embedding model" },
        { "nomic-bert-moe", "an embedding model" },
        { "neo-bert", "an embedding model" },
        { "modern-bert", "an embedding model" },
        { "jina-bert-v2", "an embedding model" },
        { "jina-bert-v3", "an embedding model" },
        { "gemma-embedding", "an embedding model" },
        { "llama-embed", "an embedding model" },
        { "t5encoder", "an encoder" },
        { "wavtokenizer-dec", "an audio decoder" },
        { "whisper", "a speech recogniser" },
        { "generic.gpu_index", "PowerInfer's list of neurons to put on a GPU (MODEL.generated.gpuidx)" },
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (strlen(foreign[i].name) == n && memcmp(foreign[i].name, name, n) == 0)
            return foreign[i].what;
    return NULL;
}

const char *ht_activation_name(ht_activation a)
{
    switch (a) {
    case HT_ACT_SILU: return "silu";
    case HT_ACT_GELU_TANH: return "gelu_tanh";
    case HT_ACT_GELU_ERF: return "gelu";
    case HT_ACT_RELU: return "relu";
    case HT_ACT_RELU2: return "relu2";
    case HT_ACT_FATRELU: return "fatrelu";
    case HT_ACT_DRELU: return "drelu";
    case HT_ACT_SWIGLU_OAI: return "swiglu_oai";
    default: return "";
    }
}

bool ht_activation_parse(const char *s, size_t n, ht_activation *act, float *param)
{
    static const struct { const char *name; ht_activation act; } names[] = {
        { "silu", HT_ACT_SILU },           { "swish", HT_ACT_SILU },         { "gelu", HT_ACT_GELU_ERF },
        { "gelu_erf", HT_ACT_GELU_ERF },   { "gelu_tanh", HT_ACT_GELU_TANH }, { "gelu_pytorch_tanh", HT_ACT_GELU_TANH },
        { "gelu_new", HT_ACT_GELU_TANH },  { "relu", HT_ACT_RELU },          { "relu2", HT_ACT_RELU2 },
        { "drelu", HT_ACT_DRELU },         { "fatrelu", HT_ACT_FATRELU },    { "swiglu_oai", HT_ACT_SWIGLU_OAI },
    };
    char buf[64];
    if (n >= sizeof buf)
        return false;
    memcpy(buf, s, n);
    buf[n] = 0;
    char *colon = strchr(buf, ':');
    if (colon)
        *colon = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(buf, names[i].name) != 0)
            continue;
        if ((colon != NULL) != (names[i].act == HT_ACT_FATRELU))
            return false;
        if (colon) {
            /* Digits by hand: strtof would obey the locale. */
            double v = 0.0, place = 0.1;
            const char *p = colon + 1;
            if (!*p)
                return false;
            for (; *p >= '0' && *p <= '9'; p++)
                v = v * 10.0 + (*p - '0');
            if (*p == '.')
                for (p++; *p >= '0' && *p <= '9'; p++, place /= 10.0)
                    v += (*p - '0') * place;
            if (*p)
                return false;
            *param = (float)v;
        }
        *act = names[i].act;
        return true;
    }
    return false;
}
