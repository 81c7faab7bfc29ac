/* SPDX-License-Identifier: MIT
 *
 * Listening to feed-forward blocks: what is told is what the weights of the file make of the input, in double here; it
 * is the same for prompts and for single tokens, and listening changes no bit of the logits. */
#include "tests/engine/engine_util.h"

enum { N = 70 };

static hearth_error err;

/* GGUF says nothing of llama_relu's activation. */
static hearth_model *open_golden(const char *name, hearth_precision precision)
{
    static const char *const relu[] = { "llama.hidden_activation=relu" };
    char path[512], file[64];
    snprintf(file, sizeof file, "%s.gguf", name);
    return util_open(util_golden(path, file), (hearth_model_params){ .threads = 2,
                                                                     .precision = precision,
                                                                     .overrides = relu,
                                                                     .n_overrides = !strcmp(name, "llama_relu") });
}

static void ids_of(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(((uint32_t)i * 2654435761u + 97u) >> 7) % 250;
}

/* ---- An independent computation ---- */

typedef struct reference {
    hearth_file *file;
    const char *act;
    double worst, sum_error, sum_square; /* against what was told */
    uint64_t n;
    bool router_sees_input; /* the router's logits follow from the block's input */
} reference;

static float *weights(const reference *r, uint32_t layer, const char *name, uint64_t first, uint64_t n)
{
    char full[100];
    float *w = malloc(n * sizeof *w);
    snprintf(full, sizeof full, "blk.%u.%s.weight", layer, name);
    int64_t i = hearth_file_find_tensor(r->file, full);
    if (i < 0) {
        free(w);
        return NULL;
    }
    cr_assert_eq(hearth_file_read(r->file, (uint64_t)i, first, n, w, &err), HEARTH_OK, "%s", err.text);
    return w;
}

static double product(const float *w, const float *x, uint32_t k)
{
    double sum = 0;
    for (uint32_t i = 0; i < k; i++)
        sum += (double)w[i] * (double)x[i];
    return sum;
}

static double activation(const char *name, double v)
{
    if (!strcmp(name, "silu"))
        return v / (1 + exp(-v));
    v = v > 0 ? v : 0;
    return !strcmp(name, "relu2") ? v * v : v;
}

static void check_block(reference *r, const hearth_trace *t)
{
    const char *kind = t->expert == HEARTH_TRACE_SHARED ? "_shexp" : t->n_expert ? "_exps" : "";
    uint64_t n = (uint64_t)t->n_ff * t->d_model, first = t->n_expert ? n * t->expert : 0;
    char gate_name[40], up_name[40];
    snprintf(gate_name, sizeof gate_name, "ffn_gate%s", kind);
    snprintf(up_name, sizeof up_name, "ffn_up%s", kind);
    float *gate = weights(r, t->layer, gate_name, first, n), *up = weights(r, t->layer, up_name, first, n);
    cr_assert_not_null(up);
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        const float *x = t->input + (t->tokens ? t->tokens[i] : i) * t->input_stride;
        const float *h = t->hidden + i * t->hidden_stride;
        for (uint32_t j = 0; j < t->n_ff; j++) {
            double u = product(up + (size_t)j * t->d_model, x, t->d_model);
            double g = gate ? product(gate + (size_t)j * t->d_model, x, t->d_model) : u;
            double want = gate ? activation(r->act, g) * u : activation(r->act, u), diff = want - (double)h[j];
            r->worst = fmax(r->worst, fabs(diff) / (1e-3 + fabs(want)));
            r->sum_error += diff * diff;
            r->sum_square += want * want;
            r->n++;
        }
    }
    free(gate);
    free(up);
}

/* The chosen experts are those of the largest logits, and the lists of tokens are theirs. */
static void check_routing(const reference *r, const hearth_trace *t)
{
    float *w =
        r->router_sees_input ? weights(r, t->layer, "ffn_gate_inp", 0, (uint64_t)t->n_expert * t->d_model) : NULL;
    for (uint32_t p = 0; p < t->n_pass; p++) {
        const float *logits = t->router_logits + (size_t)p * t->n_expert;
        const uint32_t *ids = t->expert_ids + (size_t)p * t->n_used;
        for (uint32_t j = 0; j < t->n_used; j++) {
            uint32_t better = 0;
            cr_assert(ids[j] < t->n_expert && (!j || ids[j] > ids[j - 1]));
            for (uint32_t e = 0; e < t->n_expert; e++)
                better += logits[e] > logits[ids[j]];
            cr_assert_lt(better, t->n_used);
            cr_assert_gt(t->expert_weights[(size_t)p * t->n_used + j], 0);
        }
        for (uint32_t e = 0; w && e < t->n_expert; e++)
            cr_assert_float_eq(product(w + (size_t)e * t->d_model, t->input + p * t->input_stride, t->d_model),
                               logits[e], 2e-2);
    }
    free(w);
    uint32_t listed = 0;
    for (uint32_t p = 0; p < t->n_pass; p++)
        for (uint32_t j = 0; j < t->n_used; j++)
            if (t->expert_ids[(size_t)p * t->n_used + j] == t->expert)
                cr_assert_eq(t->tokens[listed++], p);
    cr_assert_eq(listed, t->n_tokens);
}

static bool compare(void *user, const hearth_trace *t)
{
    reference *r = user;
    cr_assert_eq(t->size, sizeof *t);
    cr_assert_lt(t->layer, t->n_layer);
    if (t->n_expert)
        check_routing(r, t);
    else
        cr_assert(!t->tokens && t->n_tokens == t->n_pass);
    check_block(r, t);
    return true;
}

static void check_values(const char *name, const char *act, bool router_sees_input, hearth_precision precision)
{
    char path[512], file[64];
    int32_t ids[N];
    reference r = { .act = act, .router_sees_input = router_sees_input };
    hearth_model *m = open_golden(name, precision);
    hearth_session *s = util_session(m, N, 32, HEARTH_KV_F16);

    ids_of(ids, N);
    snprintf(file, sizeof file, "%s.gguf", name);
    cr_assert_eq(hearth_file_open(&r.file, util_golden(path, file), &err), HEARTH_OK, "%s", err.text);
    cr_assert_eq(hearth_session_trace(s, compare, &r), HEARTH_OK);
    cr_assert_eq(hearth_session_feed(s, ids, N, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
    double rms = sqrt(r.sum_error / r.sum_square);
    if (precision == HEARTH_PRECISION_F32) /* float32 chains of a hundred products against double */
        cr_expect(r.worst < 1e-3, "%s: off by %g", name, r.worst);
    /* 8-bit blocks of activations: half a step of 1/127 of the largest, evenly spread, through two products */
    cr_expect(rms < (precision == HEARTH_PRECISION_F32 ? 1e-5 : 0.03), "%s: rms error %g", name, rms);
    cr_expect_gt(r.n, 0);
    hearth_file_close(&r.file);
    hearth_session_close(&s);
    hearth_model_close(&m);
}

Test(trace, hidden_units_of_dense_blocks)
{
    for (int p = 0; p < 2; p++) {
        check_values("llama_relu", "relu", false, p ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST);
        check_values("nemotron", "relu2", false, p ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST);
        check_values("qwen3", "silu", false, p ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST);
    }
}

Test(trace, hidden_units_and_routing_of_mixtures)
{
    for (int p = 0; p < 2; p++) {
        check_values("olmoe", "silu", true, p ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST);
        check_values("qwen2_moe", "silu", true, p ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST); /* a shared expert */
        check_values("smallthinker", "relu", false, p ? HEARTH_PRECISION_F32 : HEARTH_PRECISION_FAST);
    }
}

/* ---- Bits ---- */

/* Hidden units by (layer, expert, position), as a sum of position-dependent hashes of their bits. */
typedef struct fold {
    uint64_t hidden, input, calls;
    uint32_t position;
} fold;

static uint64_t hash_row(const float *v, uint32_t n, uint64_t seed)
{
    uint64_t h = seed * 0x9e3779b97f4a7c15u + 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, v + i, 4);
        h = (h ^ bits) * 0x100000001b3u;
    }
    return h;
}

static bool fold_in(void *user, const hearth_trace *t)
{
    fold *f = user;
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        uint32_t place = t->tokens ? t->tokens[i] : i;
        uint64_t seed = ((uint64_t)t->layer << 48) + ((uint64_t)(t->expert + 2u) << 24) + t->position + place;
        f->hidden += hash_row(t->hidden + i * t->hidden_stride, t->n_ff, seed);
        f->input += hash_row(t->input + place * t->input_stride, t->d_model, seed);
    }
    f->calls++;
    return true;
}

static void check_bits(const char *name)
{
    static const uint32_t batches[] = { 64, 1, 7, 32 };
    int32_t ids[N];
    hearth_model *m = open_golden(name, HEARTH_PRECISION_FAST);
    uint32_t v = util_n_vocab(m);
    fold first = { 0 };

    ids_of(ids, N);
    float *want = util_logits(m, ids, N, 64, HEARTH_KV_F16), *got = malloc((size_t)N * v * sizeof *got);
    struct util_rows rows = { got, v };
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        fold f = { 0 };
        hearth_session *s = util_session(m, N, batches[b], HEARTH_KV_F16);
        hearth_session_trace(s, fold_in, &f);
        cr_assert_eq(hearth_session_feed(s, ids, N, util_store_row, &rows, &err), HEARTH_OK, "%s", err.text);
        cr_expect(!memcmp(want, got, (size_t)N * v * sizeof *got), "%s: listening changes the logits", name);
        if (b == 0)
            first = f;
        cr_expect(f.hidden == first.hidden && f.input == first.input, "%s: batch %u tells another story", name,
                  batches[b]);
        uint64_t calls = f.calls;
        hearth_session_trace(s, NULL, NULL);
        cr_assert_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK);
        cr_assert_eq(hearth_session_feed(s, ids, 9, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
        cr_expect_eq(f.calls, calls, "told although nobody listens");
        hearth_session_close(&s);
    }
    free(want);
    free(got);
    hearth_model_close(&m);
}

Test(trace, prompts_tell_what_tokens_tell)
{
    static const char *const names[] = { "llama_relu", "bitnet", "qwen2_moe", "smallthinker", "qwen3_next" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_bits(names[i]);
}

/* ---- Cancelling ---- */

static bool stop_later(void *user, const hearth_trace *t)
{
    (void)t;
    return --*(int *)user > 0;
}

Test(trace, cancels)
{
    static const char *const names[] = { "llama_relu", "olmoe", "qwen3_next" };
    int32_t ids[N];
    ids_of(ids, N);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int at = 1; at <= 2; at++) {
            hearth_model *m = open_golden(names[i], HEARTH_PRECISION_FAST);
            float *want = util_logits(m, ids, N, 64, HEARTH_KV_F16);
            uint32_t v = util_n_vocab(m);
            int left = at;
            hearth_session *s = util_session(m, N, 64, HEARTH_KV_F16);
            hearth_session_trace(s, stop_later, &left);
            cr_assert_eq(hearth_session_feed(s, ids, 40, NULL, NULL, &err), HEARTH_ECANCELLED);
            cr_assert_eq(hearth_session_position(s), 0);
            hearth_session_trace(s, NULL, NULL);
            cr_assert_eq(hearth_session_rewind(s, 0, &err), HEARTH_OK, "%s", err.text);
            cr_assert_eq(hearth_session_feed(s, ids, N, NULL, NULL, &err), HEARTH_OK, "%s", err.text);
            cr_expect(!memcmp(hearth_session_logits(s), want + (size_t)(N - 1) * v, v * sizeof *want), "%s", names[i]);
            free(want);
            hearth_session_close(&s);
            hearth_model_close(&m);
        }
}
