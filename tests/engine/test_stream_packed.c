/* SPDX-License-Identifier: MIT
 *
 * Packed models, and PowerInfer's, streamed from their file: the logits of the plain file in memory, bit by bit. Profiles are
 * made up: what fires most is for the order of groups only. */
#include <errno.h>

#include "offline_profiler/profile.h"
#include "tests/engine/stream_util.h"

/* ---- Files ---- */

static const char *made(const char *name)
{
    static char path[4][512];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, 512, "%s/stream-%d-%s.gguf", HEARTH_BUILD_DIR, (int)getpid(), name);
    return p;
}

typedef struct shape {
    const char *type;
    uint32_t layers, experts, used, width, n_ff; /* experts 0: dense */
    const char *activation;
} shape;

static void put(hearth_writer *w, const char *type, uint32_t k, uint32_t n, uint32_t e, bool data, const char *fmt, uint32_t il)
{
    static uint32_t state;
    char name[64];
    hearth_error err;

    snprintf(name, sizeof name, "blk.%u.%s.weight", il, fmt);
    if (!data) {
        cr_assert_eq(hearth_writer_declare(w, fmt[0] == '/' ? fmt + 1 : name, type, e ? 3 : n ? 2 : 1, (uint64_t[]){ k, n, e }, &err),
                     HEARTH_OK, "%s", err.text);
        return;
    }
    const size_t all = (size_t)k * (n ? n : 1) * (e ? e : 1);
    float *v = malloc(all * sizeof *v);
    cr_assert_not_null(v);
    state = state ? state : 99;
    for (size_t j = 0; j < all; j++) {
        state = state * 1664525u + 1013904223u;
        v[j] = n ? ((float)(state >> 16) / 65536 - (strstr(fmt, "gate") ? 0.6f : 0.5f)) / 4 : 1.0f; /* gates mostly shut */
    }
    cr_assert_eq(hearth_writer_data(w, v, all, &err), HEARTH_OK, "%s", err.text);
    free(v);
}

/* A model of llama's kind with random weights. */
static const char *write_model(shape s, const char *name)
{
    const char *path = made(name);
    const uint32_t d = s.width, f = s.n_ff, e = s.experts;
    hearth_writer *w;
    hearth_error err;

    cr_assert_eq(hearth_writer_open(&w, path, &err), HEARTH_OK, "%s", err.text);
    hearth_writer_set_str(w, "general.architecture", "llama");
    hearth_writer_set_u32(w, "llama.block_count", s.layers);
    hearth_writer_set_u32(w, "llama.context_length", 256);
    hearth_writer_set_u32(w, "llama.embedding_length", d);
    hearth_writer_set_u32(w, "llama.feed_forward_length", f);
    hearth_writer_set_u32(w, "llama.attention.head_count", 4);
    hearth_writer_set_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    hearth_writer_set_str(w, "llama.hidden_activation", s.activation);
    if (e) {
        hearth_writer_set_u32(w, "llama.expert_count", e);
        hearth_writer_set_u32(w, "llama.expert_used_count", s.used);
    }
    for (int data = 0; data < 2; data++) {
        put(w, "f32", d, 96, 0, data, "/token_embd.weight", 0);
        put(w, "f32", d, 0, 0, data, "/output_norm.weight", 0);
        for (uint32_t i = 0; i < s.layers; i++) {
            put(w, "f32", d, 0, 0, data, "attn_norm", i);
            put(w, "f32", d, 0, 0, data, "ffn_norm", i);
            put(w, "q8_0", d, d, 0, data, "attn_q", i);
            put(w, "q8_0", d, d, 0, data, "attn_k", i);
            put(w, "q8_0", d, d, 0, data, "attn_v", i);
            put(w, "q8_0", d, d, 0, data, "attn_output", i);
            if (e)
                put(w, "f32", d, e, 0, data, "ffn_gate_inp", i);
            put(w, s.type, d, f, e, data, e ? "ffn_gate_exps" : "ffn_gate", i);
            put(w, s.type, d, f, e, data, e ? "ffn_up_exps" : "ffn_up", i);
            put(w, s.type, f, d, e, data, e ? "ffn_down_exps" : "ffn_down", i);
        }
    }
    cr_assert_eq(hearth_writer_close(&w, &err), HEARTH_OK, "%s", err.text);
    return path;
}

/* `plain` packed by a profile in which groups fire unevenly. */
static const char *pack(const char *plain, how base, const char *name)
{
    hearth_model_info info = { .size = sizeof info };
    const char *out = made(name);
    uint32_t state = 7;
    hearth_error err;

    base.p.io = HEARTH_IO_MMAP;
    hearth_model *m = open_how(plain, base);
    hearth_model_get_info(m, &info);
    hearth_profile *p = ht_profile_new(info.n_layer);
    cr_assert(p && hearth_model_fingerprint(m, p->model, NULL) == HEARTH_OK);
    p->tokens = 100;
    p->window = 16;
    for (uint32_t i = 0; i < info.n_layer; i++) {
        hearth_block_info b = { .size = sizeof b };
        hearth_profile_layer *l = &p->layers[i];
        hearth_model_get_block(m, i, &b);
        l->n_ff = b.n_ff;
        l->n_expert = b.n_expert;
        l->n_used = b.n_used;
        l->shared_n_ff = b.shared_n_ff;
        float *v[4];
        for (int k = 0; k < 4; k++) {
            const size_t n = k < 2 ? (size_t)b.n_ff * b.n_expert : b.shared_n_ff;
            v[k] = n ? ht_profile_alloc(p, n, sizeof(float)) : NULL;
            for (size_t j = 0; j < n; j++) {
                state = state * 1664525u + 1013904223u;
                v[k][j] = (float)((j / 32 * 7919 + 13) % 64) / 128 + (float)(state >> 24) / 1024;
            }
        }
        l->frequency = v[0];
        l->magnitude = v[1];
        l->shared_frequency = v[2];
        l->shared_magnitude = v[3];
        float *experts = ht_profile_alloc(p, b.n_expert, sizeof(float));
        l->expert_frequency = b.n_expert > 1 ? experts : NULL;
    }
    cr_assert_eq(hearth_profile_pack(p, m, plain, NULL, out, &err), HEARTH_OK, "%s: %s", name, err.text);
    hearth_profile_close(&p);
    hearth_model_close(&m);
    return out;
}

/* ---- The same bits ---- */

static void check(const char *plain, const char *name, how base, bool thorough)
{
    static const hearth_sparsity ways[] = { HEARTH_SPARSITY_OFF, HEARTH_SPARSITY_EXACT, HEARTH_SPARSITY_AUTO };
    const char *packed = pack(plain, base, "packed");

    for (int i = 0; i < 3; i++) {
        base.p.sparsity = ways[i];
        base.hooks.parts_always = i != 2;
        same_bits_as(plain, packed, name, base, thorough && i == 1);
    }
    remove(packed);
}

static void check_golden(const char *file, const char *architecture)
{
    char path[512], override[100];
    const char *const overrides[] = { override };
    how base = { .p = { .overrides = overrides, .n_overrides = architecture != NULL } };

    snprintf(override, sizeof override, "%s.hidden_activation=relu", architecture ? architecture : "");
    snprintf(path, sizeof path, "%s/golden/%s.gguf", HEARTH_TEST_DATA, file);
    check(path, file, base, false);
}

Test(stream_packed, dense)
{
    check_golden("llama_relu", "llama");
    check_golden("llama", NULL); /* SiLU: every neuron counts */
    check_golden("nemotron", NULL); /* no gate */
}

Test(stream_packed, mixtures)
{
    check_golden("smallthinker", NULL);
    check_golden("qwen3_moe", "qwen3moe");
    check_golden("qwen2_moe", "qwen2moe"); /* shared experts */
    check_golden("gpt_oss", NULL);         /* biases */
}

static void check_made(shape s, bool thorough)
{
    const char *plain = write_model(s, "plain");
    check(plain, s.type, (how){ 0 }, thorough);
    remove(plain);
}

Test(stream_packed, types, .timeout = 600)
{
    check_made((shape){ "q4_0", 3, 0, 0, 256, 2304, "relu" }, true);
    check_made((shape){ "q4_0", 3, 8, 2, 256, 512, "relu" }, true);
    if (util_sanitized())
        return;
    check_made((shape){ "q4_k", 2, 6, 2, 256, 512, "relu" }, false);
    check_made((shape){ "q8_0", 2, 6, 3, 128, 512, "relu" }, false);
    check_made((shape){ "f32", 2, 6, 3, 64, 256, "relu" }, false);
}

Test(stream_packed, powerinfer)
{
    static const char *const names[] = { "llama", "bamboo", "falcon", "opt" };
    static const hearth_sparsity ways[] = { HEARTH_SPARSITY_OFF, HEARTH_SPARSITY_EXACT, HEARTH_SPARSITY_AUTO };
    char path[512];

    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++) {
            snprintf(path, sizeof path, "%s/powerinfer/%s.gguf", HEARTH_TEST_DATA, names[i]);
            same_bits_as(path, path, names[i], (how){ .p = { .sparsity = ways[k] } }, k == 1);
        }
}

/* ---- Parts ---- */

/* Where few gates are open, less is read; who asks for every neuron reads all. */
Test(stream_packed, closed_gates_are_not_read, .timeout = 300)
{
    static const shape shapes[] = { { "q8_0", 3, 0, 0, 512, 2048, "relu" }, { "q8_0", 3, 6, 2, 512, 1024, "relu" } };

    for (int i = 0; i < 2; i++) {
        const char *plain = write_model(shapes[i], "plain"), *packed = pack(plain, (how){ 0 }, "packed");
        how h = { .p = { .threads = 1, .io = HEARTH_IO_DIRECT, .prefetch = HEARTH_PREFETCH_OFF } };
        hearth_stats all, few;
        size_t n;

        h.p.sparsity = HEARTH_SPARSITY_OFF;
        float *want = logits_of(packed, h, &n, &all);
        h.p.sparsity = HEARTH_SPARSITY_EXACT;
        h.hooks.parts_always = true;
        float *got = logits_of(packed, h, &n, &few);
        cr_expect_arr_eq(got, want, n);
        cr_expect_lt(few.disk_bytes_read, all.disk_bytes_read, "shape %d: %llu of %llu bytes", i,
                     (unsigned long long)few.disk_bytes_read, (unsigned long long)all.disk_bytes_read);
        free(want);
        free(got);
        remove(plain);
        remove(packed);
    }
}

typedef struct trouble {
    uint64_t n, from, to; /* reads so far; these fail, or cancel */
    hearth_session *cancel;
} trouble;

static int make_trouble(void *user, uint32_t file, uint64_t offset, size_t *bytes)
{
    trouble *t = user;
    const bool now = t->n >= t->from && t->n < t->to;

    (void)file;
    (void)offset;
    (void)bytes;
    t->n++;
    if (now && t->cancel)
        hearth_session_cancel(t->cancel);
    return now && !t->cancel ? EIO : 0;
}

Test(stream_packed, a_failing_disk, .timeout = 300)
{
    enum { N = 8 };
    const char *plain = write_model((shape){ "q8_0", 2, 4, 2, 128, 256, "relu" }, "plain");
    const char *packed = pack(plain, (how){ 0 }, "packed");
    int32_t ids[N] = { 3, 1, 4, 1, 5, 9, 2, 6 };
    hearth_error err;
    hearth_model *m = util_open(plain, (hearth_model_params){ .threads = 1, .io = HEARTH_IO_MMAP });
    const uint32_t v = util_n_vocab(m);
    float *want = util_logits(m, ids, N, 16, HEARTH_KV_F16), *got = malloc((size_t)N * v * sizeof *got);
    uint32_t failed = 0;

    hearth_model_close(&m);
    for (uint64_t at = 0; at < 200; at += util_sanitized() ? 31 : 3)
        for (int what = 0; what < 2; what++) {
            trouble t = { .from = UINT64_MAX, .to = UINT64_MAX };
            how h = { .p = { .threads = 2, .io = HEARTH_IO_DIRECT, .sparsity = HEARTH_SPARSITY_EXACT,
                             .prefetch = at % 2 ? HEARTH_PREFETCH_ON : HEARTH_PREFETCH_OFF },
                      .hooks = { .fault = make_trouble, .fault_user = &t, .parts_always = true } };
            m = open_how(packed, h);
            hearth_session *s = session_how(m, h);
            t.from = t.n + at;
            t.to = t.from + (what ? 1 : 3);
            t.cancel = what ? s : NULL;
            uint32_t done = 0, faults = 0;
            while (done < N) {
                struct util_rows rows = { got + (size_t)done * v, v };
                const hearth_status st = hearth_session_feed(s, ids + done, 1, util_store_row, &rows, &err);
                if (st == HEARTH_OK) {
                    done++;
                    continue;
                }
                cr_assert_lt(++faults, 6u, "read %d: %s", (int)at, err.text);
                cr_assert_eq(st, what ? HEARTH_ECANCELLED : HEARTH_EIO, "read %d: %s", (int)at, err.text);
                hearth_session_uncancel(s);
            }
            failed += faults;
            cr_expect_arr_eq(got, want, (size_t)N * v * sizeof *want, "read %d", (int)at);
            hearth_session_close(&s);
            hearth_model_close(&m);
        }
    cr_expect_gt(failed, 0u);
    free(want);
    free(got);
    remove(plain);
    remove(packed);
}
