/* SPDX-License-Identifier: MIT
 *
 * Models that are damaged or hostile: keys, tensors and lengths that cannot be, made from small good files. Each must
 * end in a status and a sentence naming the field, quickly; a change that leaves the file a model must still compute.
 */
#include <sys/stat.h>
#include <time.h>

#include "cpu/cpu.h"
#include "engine/forward.h"
#include "engine/gguf_write.h"
#include "engine/predict.h"
#include "engine/tokenizer.h"
#include "tests/engine/engine_util.h"

static ht_error err;

/* ---- Keys, as --override gives them ------------------------------------------------------------------------------ */

typedef struct key_case {
    const char *model, *change, *field; /* field: what the sentence must name; NULL: the file is still good */
} key_case;

static const key_case keys[] = {
    { "llama", "llama.attention.head_count=0", "head_count" },
    { "llama", "llama.attention.head_count=100000", "head_count" },
    { "llama", "llama.attention.head_count=3", "head_count" },
    { "llama", "llama.attention.head_count=-1", "head_count" },
    { "llama", "llama.attention.head_count_kv=0", "head_count_kv" },
    { "llama", "llama.attention.head_count_kv=3", "head_count_kv" },
    { "llama", "llama.attention.head_count_kv=4", "attn_k" },
    { "llama", "llama.block_count=0", "block_count" },
    { "llama", "llama.block_count=4", "blk.3." },
    { "llama", "llama.block_count=513", "block_count" },
    { "llama", "llama.block_count=4294967295", "block_count" },
    { "llama", "llama.block_count=2", NULL },
    { "llama", "llama.embedding_length=0", "embedding_length" },
    { "llama", "llama.embedding_length=63", "token_embd" },
    { "llama", "llama.embedding_length=4294967295", "embedding_length" },
    { "llama", "llama.feed_forward_length=0", NULL }, /* the tensors say it */
    { "llama", "llama.feed_forward_length=161", "feed_forward_length" },
    { "llama", "llama.feed_forward_length=80", "feed_forward_length" },
    { "llama", "llama.context_length=0", "context_length" },
    { "llama", "llama.context_length=4294967295", "context_length" },
    { "llama", "llama.context_length=1", NULL },
    { "llama", "llama.attention.key_length=0", "head dimensions" },
    { "llama", "llama.attention.key_length=1073741824", "key_length" },
    { "llama", "llama.attention.key_length=4097", "head dimensions" },
    { "llama", "llama.attention.value_length=8", "attn_v" },
    { "llama", "llama.rope.dimension_count=0", "rope.dimension_count" },
    { "llama", "llama.rope.dimension_count=7", "rope.dimension_count" },
    { "llama", "llama.rope.dimension_count=18", "rope.dimension_count" },
    { "llama", "llama.rope.dimension_count=4294967295", "rope.dimension_count" },
    { "llama", "llama.rope.dimension_count=8", NULL },
    { "llama", "llama.rope.freq_base=0", "freq_base" },
    { "llama", "llama.rope.freq_base=-10000", "freq_base" },
    { "llama", "llama.rope.freq_base=1e-30", "freq_base" },
    { "llama", "llama.rope.freq_base=1e30", NULL },
    { "llama", "llama.attention.layer_norm_rms_epsilon=-1", "layer_norm_rms_epsilon" },
    { "llama", "llama.attention.layer_norm_rms_epsilon=1e39", "layer_norm_rms_epsilon" },
    { "llama", "llama.expert_count=4294967295", "expert_count" },
    { "llama_rope_linear", "llama.rope.scaling.type=spiral", "rope.scaling.type" },
    { "llama_rope_linear", "llama.rope.scaling.factor=-4", "rope.scaling.factor" },
    { "llama_rope_linear", "llama.rope.scaling.factor=1e-38", "frequency" },
    { "llama_rope_yarn", "llama.rope.scaling.original_context_length=4294967295", "original_context_length" },
    { "llama_rope_yarn", "llama.rope.scaling.original_context_length=0", NULL },
    { "llama_rope_yarn", "llama.rope.freq_base=1", "yarn" },
    { "llama_rope_yarn_beta", "llama.rope.scaling.yarn_beta_fast=0", "yarn" },
    { "llama_rope_yarn_beta", "llama.rope.scaling.yarn_beta_fast=-8", "yarn_beta_fast" },
    { "gemma2", "gemma2.attention.sliding_window=4294967295", "sliding_window" },
    { "gemma2", "gemma2.attention.sliding_window=16777216", NULL },
    { "gemma2", "gemma2.attention.sliding_window=-1", "sliding_window" },
    { "gemma2", "gemma2.attn_logit_softcapping=-50", "attn_logit_softcapping" },
    { "gemma2", "gemma2.final_logit_softcapping=-30", "final_logit_softcapping" },
    { "granite", "granite.residual_scale=-1", "residual_scale" },
    { "granite", "granite.embedding_scale=-1", "embedding_scale" },
    { "granite", "granite.logit_scale=-1", "logit_scale" },
    { "granite", "granite.attention.scale=-1", "attention.scale" },
    { "mixtral", "llama.expert_count=0", "ffn_up" },
    { "mixtral", "llama.expert_count=3", "ffn_gate_inp" },
    { "mixtral", "llama.expert_count=5", "ffn_gate_inp" },
    { "mixtral", "llama.expert_count=5000", "expert_count" },
    { "mixtral", "llama.expert_used_count=0", "expert_used_count" },
    { "mixtral", "llama.expert_used_count=5", "expert_used_count" },
    { "mixtral", "llama.expert_used_count=4294967295", "expert_used_count" },
    { "qwen3_moe", "qwen3moe.expert_feed_forward_length=63", "exps" },
    { "qwen3_moe", "qwen3moe.expert_feed_forward_length=4294967295", "expert_feed_forward_length" },
    { "smallthinker", "smallthinker.expert_gating_func=9", "expert_gating_func" },
    { "qwen3_next", "qwen3next.ssm.conv_kernel=0", "conv_kernel" },
    { "qwen3_next", "qwen3next.ssm.conv_kernel=1", "conv_kernel" },
    { "qwen3_next", "qwen3next.ssm.conv_kernel=4294967295", "conv_kernel" },
    { "qwen3_next", "qwen3next.ssm.conv_kernel=5", "ssm_conv1d" },
    { "qwen3_next", "qwen3next.ssm.state_size=0", "state_size" },
    { "qwen3_next", "qwen3next.ssm.state_size=1000000", "state_size" },
    { "qwen3_next", "qwen3next.ssm.group_count=0", "group_count" },
    { "qwen3_next", "qwen3next.ssm.group_count=3", "group_count" },
    { "qwen3_next", "qwen3next.ssm.time_step_rank=0", "time_step_rank" },
    { "qwen3_next", "qwen3next.ssm.time_step_rank=1000000", "time_step_rank" },
    { "qwen3_next", "qwen3next.ssm.inner_size=0", "inner_size" },
    { "qwen3_next", "qwen3next.ssm.inner_size=16777216", "inner_size" },
    { "llama", "general.architecture=", "general.architecture" },
    { "llama", "general.architecture=clip", "projector" },
    { "llama", "general.architecture=bert", "embedding model" },
    { "llama", "general.architecture=nonsense", "nonsense" },
    { "llama", "llama.hidden_activation=spline", "hidden_activation" },
    { "llama", "llama.hidden_activation=fatrelu:x", "hidden_activation" },
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Test(model, keys)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const key_case *c = &keys[i];
        char path[512], file[64];
        hearth_model *m;
        hearth_error e = { 0 };
        snprintf(file, sizeof file, "%s.gguf", c->model);
        hearth_model_params p = { .size = sizeof p, .threads = 1, .overrides = &c->change, .n_overrides = 1 };
        double t0 = now();
        hearth_status st = hearth_model_open(&m, util_golden(path, file), &p, &e);
        cr_expect(now() - t0 < (util_sanitized() ? 10.0 : 1.0), "%s took too long", c->change);
        if (c->field) {
            /* EINVAL: the key's own type cannot hold the value */
            cr_expect(st == HEARTH_EFORMAT || st == HEARTH_EUNSUPPORTED || st == HEARTH_EINVAL, "%s: %s", c->change,
                      hearth_status_text(st));
            cr_expect(st == HEARTH_OK || strstr(e.text, c->field), "%s: \"%s\" does not name %s", c->change, e.text,
                      c->field);
        } else {
            cr_expect_eq(st, HEARTH_OK, "%s: %s", c->change, e.text);
        }
        if (st == HEARTH_OK) { /* what opens computes */
            int32_t ids[3] = { 1, 2, 3 };
            free(util_logits(m, ids, 3, 2, HEARTH_KV_F16));
        }
        hearth_model_close(&m);
    }
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------- */

typedef struct bytes {
    uint8_t *p;
    size_t n;
} bytes;

static bytes read_file(const char *name)
{
    char path[512];
    struct stat sb;
    snprintf(path, sizeof path, "%s", name);
    cr_assert_eq(stat(path, &sb), 0, "%s", path);
    bytes b = { malloc((size_t)sb.st_size), (size_t)sb.st_size };
    FILE *f = fopen(path, "rb");
    cr_assert(f && fread(b.p, 1, b.n, f) == b.n);
    fclose(f);
    return b;
}

static bytes read_seed(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/../fuzz/corpus/model/%s.gguf", HEARTH_TEST_DATA, name);
    return read_file(path);
}

/* Three tokens in two passes. */
static void compute(const ht_model *m)
{
    if (m->n_positions && m->n_positions < 3)
        return;
    ht_cpu_params cpu = { .threads = 1, .isa = ht_isa_best(), .max_k = m->max_k, .max_head = m->max_head };
    int32_t ids[3] = { 0, (int32_t)m->n_vocab - 1, (int32_t)(m->n_vocab / 2) };
    ht_exec *exec;
    ht_store store;
    ht_state s;
    ht_forward f;

    cr_assert_eq(ht_cpu_open(&exec, &cpu, &err), HT_OK, "%s", err.text);
    ht_store_open(&store, m);
    cr_assert_eq(ht_state_open(&s, m, ht_mem_default(), HT_F16, 4, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_forward_open(&f, m, &store, exec, ht_mem_default(), false, true, 2, 4, 1, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_state_reserve(&s, 3, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_forward_run(&f, &s, ids, 2, NULL, NULL, NULL, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_forward_run(&f, &s, ids + 2, 1, NULL, NULL, NULL, &err), HT_OK, "%s", err.text);
    ht_forward_close(&f);
    ht_state_close(&s);
    ht_store_close(&store);
    exec->ops->close(exec);
}

/* The status of n bytes as a model; with `run` what opens must compute. */
static ht_status open_bytes(const uint8_t *p, size_t n, bool run)
{
    ht_gguf *g;
    ht_model m;
    uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees a byte read beyond */
    memcpy(exact, p, n);
    err.text[0] = 0;
    ht_status st = ht_gguf_open_memory(&g, exact, n, &err);
    if (st == HT_OK) {
        ht_tokenizer *t;
        if (ht_tokenizer_open(&t, g, NULL) == HT_OK)
            ht_tokenizer_close(&t);
        st = ht_model_load(&m, g, &err);
        if (st == HT_OK) {
            if (run && ht_predict_own(&m.predict, &m, &err) == HT_OK) {
                compute(&m);
                ht_predict_close(&m.predict);
            }
            ht_model_free(&m);
        }
        ht_gguf_close(&g);
    }
    cr_assert(st == HT_OK || st == HT_EFORMAT || st == HT_EUNSUPPORTED, "%s: %s", ht_status_text(st), err.text);
    cr_assert(st == HT_OK || err.text[0], "an error without a sentence");
    free(exact);
    return st;
}

static const char *const seeds[] = { "llama", "mixture", "sinks",     "delta",  "delta-tiled",
                                     "fused", "caps",    "sub-norms", "ungated",
                                     "powerinfer", "powerinfer-parallel", "positions" };
enum { N_SEEDS = sizeof seeds / sizeof *seeds };

Test(model, good_seeds)
{
    for (size_t i = 0; i < N_SEEDS; i++) {
        bytes b = read_seed(seeds[i]);
        cr_expect_eq(open_bytes(b.p, b.n, true), HT_OK, "%s: %s", seeds[i], err.text);
        free(b.p);
    }
}

Test(model, truncated)
{
    for (size_t i = 0; i < N_SEEDS; i++) {
        bytes b = read_seed(seeds[i]);
        size_t last = b.n;
        while (last > 0 && b.p[last - 1] == 0) /* the padding at the end may be missing */
            last--;
        for (size_t n = 0; n < last; n += 97)
            cr_assert_neq(open_bytes(b.p, n, false), HT_OK, "%s cut to %zu of %zu bytes", seeds[i], n, b.n);
        free(b.p);
    }
    char path[512];
    bytes b = read_file(util_golden(path, "bitnet_b158_relu2.gguf"));
    for (size_t n = 0; n + 64 < b.n; n += util_sanitized() ? 97 * 31 : 97)
        cr_assert_neq(open_bytes(b.p, n, false), HT_OK, "cut to %zu of %zu bytes", n, b.n);
    free(b.p);
}

/* Every tensor in turn: missing, of another type, of another shape. */
Test(model, tensors)
{
    for (size_t i = 0; i < N_SEEDS; i++) {
        bytes b = read_seed(seeds[i]);
        ht_gguf *g;
        cr_assert_eq(ht_gguf_open_memory(&g, b.p, b.n, &err), HT_OK);
        for (uint64_t t = 0; t < ht_gguf_n_tensors(g); t++) {
            const ht_tensor *x = ht_gguf_tensor_at(g, t);
            char name[80];
            uint8_t info[256], *at = b.p + ((const uint8_t *)x->name.s - b.p);
            snprintf(name, sizeof name, "%.*s", (int)x->name.n, x->name.s);
            size_t dims = x->name.n + 4, type = dims + 8 * x->n_dims, all = type + 12;
            cr_assert(all <= sizeof info);
            memcpy(info, at, all);

            at[0] ^= 1; /* no such name */
            ht_status st = open_bytes(b.p, b.n, true);
            bool optional = strstr(name, "bias") || strcmp(name, "output.weight") == 0 || strstr(name, "shexp") ||
                            strstr(name, "rope_") || strstr(name, "sinks") || strstr(name, "_sub_norm") ||
                            strstr(name, "_norm") || strstr(name, "ffn_gate") || strstr(name, "conv1d") ||
                            strstr(name, "post_ffw");
            cr_expect(optional || st != HT_OK, "%s: without %s it opened", seeds[i], name);
            cr_expect(optional || strstr(err.text, x->name.n > 6 ? name + 5 : name) || strstr(err.text, "layer") ||
                          strstr(err.text, "missing"),
                      "%s: \"%s\" does not name %s", seeds[i], err.text, name);
            memcpy(at, info, all);

            for (uint32_t type_id = 0; type_id < 42; type_id++) { /* I32 (26) cannot be computed with, nor can F64 */
                memcpy(at + type, &type_id, 4);
                st = open_bytes(b.p, b.n, true);
                if (type_id >= 24 && type_id <= 28)
                    cr_expect_neq(st, HT_OK, "%s: %s of type %u opened", seeds[i], name, type_id);
            }
            memcpy(at, info, all);

            for (uint32_t d = 0; d < x->n_dims; d++) {
                static const uint64_t sizes[] = { 0,        1,          16,         33,         64,
                                                  1u << 16, 1ull << 31, 1ull << 32, 1ull << 63, UINT64_MAX };
                for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
                    if (sizes[k] == x->ne[d])
                        continue;
                    memcpy(at + dims + 8 * d, &sizes[k], 8);
                    st = open_bytes(b.p, b.n, true);
                    bool free_size = strstr(name, "token_embd") || strstr(name, "shexp") || strstr(name, "attn_q_norm") ||
                                     strstr(name, "position_embd");
                    cr_expect(st != HT_OK || free_size, "%s: %s with dimension %u of %llu opened", seeds[i], name, d,
                              (unsigned long long)sizes[k]);
                }
                memcpy(at, info, all);
            }
        }
        ht_gguf_close(&g);
        free(b.p);
    }
}

/* Every number among the keys in turn takes values that it cannot have. What opens computes. */
Test(model, numbers)
{
    static const uint32_t wild[] = { 0,          1,          3,          31,         0x7fffffff, 0x80000000,
                                     0xffffffff, 0x7f800000, 0x7fc00000, 0xbf800000, 1 };
    for (size_t i = 0; i < N_SEEDS; i++) {
        bytes b = read_seed(seeds[i]);
        ht_gguf *g;
        cr_assert_eq(ht_gguf_open_memory(&g, b.p, b.n, &err), HT_OK);
        for (uint64_t k = 0; k < ht_gguf_n_kv(g); k++) {
            const ht_kv *kv = ht_gguf_kv_at(g, k);
            if (kv->type != HT_KV_U32 && kv->type != HT_KV_F32)
                continue;
            uint8_t *at = b.p + kv->offset, was[4];
            memcpy(was, at, 4);
            for (size_t w = 0; w < sizeof wild / sizeof *wild; w++) {
                memcpy(at, &wild[w], 4);
                double t0 = now();
                open_bytes(b.p, b.n, true);
                cr_expect(now() - t0 < (util_sanitized() ? 10.0 : 1.0), "%.*s = %u took too long", (int)kv->key.n,
                          kv->key.s, wild[w]);
            }
            bool layer_norm = i >= N_SEEDS - 2 || strcmp(seeds[i], "ungated") == 0; /* another epsilon is theirs */
            bool read = !layer_norm || kv->key.n < 20 || !memmem(kv->key.s, kv->key.n, "rms", 3);
            if (kv->type == HT_KV_F32 && read)
                for (uint32_t nan = 0x7fc00000; nan < 0x80000000; nan += 0x3fffff) {
                    memcpy(at, &nan, 4);
                    cr_expect_neq(open_bytes(b.p, b.n, false), HT_OK, "%.*s = NaN opened", (int)kv->key.n, kv->key.s);
                }
            memcpy(at, was, 4);
        }
        ht_gguf_close(&g);
        free(b.p);
    }
    cr_expect(hearth_peak_rss() < (util_sanitized() ? 4096ull : 256ull) << 20, "%llu MiB",
              (unsigned long long)hearth_peak_rss() >> 20);
}

/* ---- Vocabularies against the model ------------------------------------------------------------------------------ */

Test(model, vocabulary_larger_than_the_embedding)
{
    char path[512], out[512];
    ht_gguf *g;
    ht_gguf_writer *w;
    hearth_model *m;
    hearth_error e;
    ht_str many[500];
    char names[500][16];

    snprintf(out, sizeof out, P_tmpdir "/hearth-model-%d.gguf", (int)getpid());
    cr_assert_eq(ht_gguf_open(&g, util_golden(path, "bitnet_b158_relu2.gguf"), &err), HT_OK);
    cr_assert_eq(ht_gguf_writer_open(&w, out, &err), HT_OK, "%s", err.text);
    cr_assert_eq(ht_gguf_writer_copy(w, g), HT_OK);
    for (int i = 0; i < 500; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        many[i] = (ht_str){ names[i], strlen(names[i]) };
    }
    ht_gguf_writer_set_str(w, "tokenizer.ggml.model", (ht_str){ "llama", 5 });
    ht_gguf_writer_set_strings(w, "tokenizer.ggml.tokens", many, 500);
    ht_gguf_writer_drop(w, "tokenizer.ggml.scores");
    ht_gguf_writer_drop(w, "tokenizer.ggml.token_type");
    ht_gguf_writer_drop(w, "tokenizer.ggml.merges");
    float scores[500] = { 0 };
    int32_t kinds[500];
    for (int i = 0; i < 500; i++)
        kinds[i] = 1;
    ht_gguf_writer_set_array(w, "tokenizer.ggml.scores", HT_KV_F32, scores, 500);
    ht_gguf_writer_set_array(w, "tokenizer.ggml.token_type", HT_KV_I32, kinds, 500);
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        cr_assert_eq(ht_gguf_writer_declare(w, t->name, t->type, t->n_dims, t->ne, &err), HT_OK, "%s", err.text);
    }
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        cr_assert_eq(ht_gguf_writer_raw(w, t->data, t->bytes, &err), HT_OK, "%s", err.text);
    }
    cr_assert_eq(ht_gguf_writer_close(&w, &err), HT_OK, "%s", err.text);
    ht_gguf_close(&g);
    cr_expect_eq(hearth_model_open(&m, out, NULL, &e), HEARTH_EFORMAT);
    cr_expect(strstr(e.text, "500 tokens"), "%s", e.text);
    hearth_model_params vocab = { .size = sizeof vocab, .vocab_only = true };
    cr_expect_eq(hearth_model_open(&m, out, &vocab, &e), HEARTH_OK, "%s", e.text);
    hearth_session *s;
    cr_expect_eq(hearth_session_open(&s, m, NULL, &e), HEARTH_EINVAL, "a vocabulary computes nothing");
    hearth_model_close(&m);
    remove(out);
}

Test(model, files_that_are_none)
{
    static const char *const paths[] = { "/nonexistent/model.gguf", "/dev/null", "/", "", "/dev/zero" };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        hearth_model *m = (hearth_model *)&m;
        hearth_error e = { 0 };
        hearth_status st = hearth_model_open(&m, paths[i], NULL, &e);
        cr_expect(st == HEARTH_EIO || st == HEARTH_EFORMAT, "\"%s\": %s", paths[i], hearth_status_text(st));
        cr_expect(e.text[0] != 0);
        cr_expect_null(m);
        hearth_model_close(&m);
    }
    hearth_model_close(NULL);
}

Test(model, parameters)
{
    char path[512];
    hearth_model *m;
    hearth_error e;
    const char *bad[] = { "novalue" };
    util_golden(path, "llama.gguf");
    hearth_model_params p = { .size = sizeof p, .isa = "sse1" };
    cr_expect_eq(hearth_model_open(&m, path, &p, &e), HEARTH_EINVAL);
    cr_expect(strstr(e.text, "sse1"), "%s", e.text);
    p = (hearth_model_params){ .size = sizeof p, .overrides = bad, .n_overrides = 1 };
    cr_expect_eq(hearth_model_open(&m, path, &p, &e), HEARTH_EINVAL);
    p = (hearth_model_params){ .size = sizeof p, .threads = UINT32_MAX, .isa = "ref" };
    cr_assert_eq(hearth_model_open(&m, path, &p, &e), HEARTH_OK, "%s", e.text);
    hearth_model_info info = { .size = sizeof info };
    hearth_model_get_info(m, &info);
    cr_expect(info.threads >= 1 && info.threads < 100000);
    cr_expect_str_eq(info.isa, "ref");
    cr_expect_str_eq(info.device, "cpu");
    cr_expect(info.n_layer == 3 && info.d_model == 64 && info.n_expert == 0 && !info.recurrent);
    cr_expect(strstr(info.description, "3 layers"), "%s", info.description);
    cr_expect(info.weight_bytes > 0 && info.weight_bytes_per_token < info.weight_bytes);
    hearth_model_close(&m);
}
