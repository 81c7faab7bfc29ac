/* SPDX-License-Identifier: MIT
 * The flags that every command that runs a model shares, with their defaults; see options.h. */
#include "tools/options.h"

#define AT(member) offsetof(ht_options, member)

/* What takes threads and memory, whether it runs a model or works on its weights. */
#define THREADS \
    { 0, "threads", "N", HT_FLAG_INTEGER, AT(threads), 1, 1024, NULL, NULL, \
      "compute threads; default: the performance cores that the process may use" }
#define RAM \
    { 0, "ram", "SIZE", HT_FLAG_SIZE, AT(ram), 0, 0, NULL, NULL, \
      "budget for weights, KV cache and scratch together, as 512M or 6G; default: what is free, less a reserve" }

const ht_flag ht_flags_machine[] = { THREADS, RAM, { 0 } };

const ht_flag ht_flags_model[] = {
    THREADS,
    { 0, "device", "D", HT_FLAG_CHOICE, AT(device), 0, 0, "auto|cpu", "cuda|opencl",
      "auto or cpu: where hot clusters go; default auto" },
    RAM,
    { 0, "vram", "SIZE", HT_FLAG_SIZE, AT(vram), 0, 0, NULL, NULL,
      "the same on a graphics card; where it is too small for anything the CPU runs the model" },
    { 0, "profile", "FILE", HT_FLAG_TEXT, AT(profile), 0, 0, NULL, NULL,
      "use this profile (see `hearth help profile`), which must be of this model; default: the one in the cache "
      "folder, if "
      "any" },
    { 0, "precision", "P", HT_FLAG_CHOICE, AT(precision), 0, 0, "fast|f32", NULL,
      "f32: activations and KV stay float32 for every weight type; fast: 8-bit activation blocks for quantised "
      "weights, "
      "--kv-type KV; default fast, f32 for logits" },
    { 0, "deterministic", NULL, HT_FLAG_SWITCH, AT(deterministic), 0, 0, NULL, NULL,
      "results independent of batch size too (in this version they always are)" },
    { 0, "io", "WAY", HT_FLAG_CHOICE, AT(io), 0, 0, "auto|mmap|direct|cached", NULL,
      "how weights are read. mmap: the mapped file, left to the system; direct, cached: into memory of its own, past the "
      "page cache or through it, experts that do not fit into --ram as they are needed; default auto: mmap where all fits, "
      "else direct" },
    { 0, "prefetch", "P", HT_FLAG_CHOICE, AT(prefetch), 0, 0, "auto|on|off", NULL,
      "of models streamed from disk: read experts that the next layer is guessed to need; default auto: while it pays" },
    { 0, "on-miss", "WAY", HT_FLAG_TEXT, AT(on_miss), 0, 0, NULL, NULL,
      "of mixtures streamed from disk, tokens one by one: what becomes of experts that are not in memory. wait: read them, "
      "exact; low[:TYPE]: compute from a copy at fewer bits, which is made of every expert when the model opens and counts "
      "under --ram, and read the expert for later; skip[:SHARE]: leave the lightest out, up to this share of a layer's router "
      "weights, and wait for the others; default wait, low:q2_k, skip:0.1. low and skip change tokens, by what is in memory" },
    { 0, "route-bias", "L", HT_FLAG_NUMBER, AT(route_bias), 0, 1000, NULL, NULL,
      "of mixtures streamed from disk, tokens one by one: prefer experts in memory by adding L times the range of the router's "
      "scores to theirs; changes tokens, by what is in memory; default 0: exact" },
    { 0, "sparsity", "S", HT_FLAG_CHOICE, AT(sparsity), 0, 0, "auto|off|exact|predicted", NULL,
      "off: every neuron; exact: skip only what is provably zero (same tokens as off), made ready when the model "
      "opens; "
      "predicted: skip what the profile's predictors call inactive, which changes tokens a little; default auto: as "
      "exact, made ready as it pays, but a PowerInfer model, and one packed with --quality, with its own predictors" },
    { 0, "override", "KEY=VALUE", HT_FLAG_TEXTS, AT(overrides), 0, 0, NULL, NULL,
      "a metadata value as if the file said so, with the key's own type; ARCH.hidden_activation (silu, gelu, relu, "
      "relu2, "
      "fatrelu:T, drelu) is understood for every gated architecture; may be repeated" },
    { 0, "isa", "NAME", HT_FLAG_TEXT, AT(isa), 0, 0, NULL, NULL,
      "at most this SIMD level (`hearth hardware` lists what runs here); default: the best found" },
    { 0, "ctx", "N", HT_FLAG_INTEGER, AT(ctx), 1, 1 << 30, NULL, NULL,
      "context length in tokens; default: the model's trained length, or what fits" },
    { 0, "kv-type", "T", HT_FLAG_CHOICE, AT(kv_type), 0, 0, "f16|f32|q8_0|q4_0", NULL,
      "type of the KV cache: f32, f16, q8_0 or q4_0; default f16 (f32 with --precision f32)" },
    { 0, "batch", "N", HT_FLAG_INTEGER, AT(batch), 1, 1 << 20, NULL, NULL,
      "most tokens of a prompt computed at once; changes no bit of any result; default: chosen" },
    { 0, "chunk", "N", HT_FLAG_INTEGER, AT(batch), 1, 1 << 20, NULL, NULL, "the same as --batch" },
    { 0 },
};

const ht_flag ht_flags_sampling[] = {
    { 'n', NULL, "N", HT_FLAG_INTEGER, AT(n_predict), -1, 1 << 30, NULL, NULL,
      "most tokens to generate; default: to the end of text or of the context (also -1)" },
    { 0, "temp", "T", HT_FLAG_NUMBER, AT(temperature), 0, 100, NULL, NULL,
      "temperature, 0 is greedy and deterministic; default: what the file suggests, else 0.8" },
    { 0, "top-k", "K", HT_FLAG_INTEGER, AT(top_k), 0, 1 << 30, NULL, NULL,
      "keep the K best tokens, 0 is off; default 40" },
    { 0, "top-p", "P", HT_FLAG_NUMBER, AT(top_p), 0, 1, NULL, NULL,
      "keep the best tokens that make up P together, 1 is off; default: what the file suggests, else 0.95" },
    { 0, "min-p", "P", HT_FLAG_NUMBER, AT(min_p), 0, 1, NULL, NULL,
      "drop tokens below P times the best one's probability, 0 is off; default 0.05" },
    { 0, "repeat-penalty", "R", HT_FLAG_NUMBER, AT(repeat_penalty), 0, 100, NULL, NULL,
      "divide the logits of the last 64 tokens made by R, 1 is off; default: what the file suggests, else 1 (1 with "
      "--temp 0)" },
    { 0, "seed", "S", HT_FLAG_INTEGER, AT(seed), 0, 9007199254740992.0, NULL, NULL,
      "seed of the sampler; default: another one each time (--json and --verbose tell it)" },
    { 0, "stop", "TEXT", HT_FLAG_TEXTS, AT(stops), 0, 0, NULL, NULL, "stop before this text; may be repeated" },
    { 0 },
};

const ht_flag ht_flags_talk[] = {
    { 0, "json", NULL, HT_FLAG_SWITCH, AT(json), 0, 0, NULL, NULL, "JSON on stdout in place of the text" },
    { 0, "quiet", NULL, HT_FLAG_SWITCH, AT(quiet), 0, 0, NULL, NULL, "nothing on stderr but errors" },
    { 0, "verbose", NULL, HT_FLAG_SWITCH, AT(verbose), 0, 0, NULL, NULL, "tell on stderr what is done" },
    { 0, "log", "FILE", HT_FLAG_TEXT, AT(log), 0, 0, NULL, NULL, "append what --verbose would tell to a file" },
    { 0 },
};
