/* SPDX-License-Identifier: MIT
 *
 * A second, plain implementation of the forward pass, in float32 over dequantised weights, that counts what `hearth
 * synth` promises: how many neurons fire in each layer, how many of them fire at the next token too, which experts are
 * chosen. It shares no code with the engine. Architectures: llama (dense and mixture), arcee, qwen3, qwen3moe, olmoe,
 * smallthinker without a window. Trained models of these architectures can be fed too (test_models.c).
 *
 * Used by test_synth.c and by tools/bench/synth_measure.c. Owner: sim_close frees what sim_open made. Threads: one. */
#ifndef HEARTH_TESTS_SYNTH_SIM_H
#define HEARTH_TESTS_SYNTH_SIM_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/hearth.h"

typedef struct sim_layer {
    float *attn_norm, *q, *k, *v, *q_norm, *k_norm, *out, *ffn_norm, *router, *gate, *up, *down;
    float *keys, *values;        /* [n_ctx][n_kv * head_dim] */
    unsigned char *active, *was; /* [n_expert or 1][ff]: fired at this token, at the one before */
    int *chosen, *was_chosen;    /* [n_used] */
    uint32_t *fired[2];          /* by topic: how often each neuron fired */
    double n_active, n_computed, n_both, n_was, n_same, n_tokens, n_pairs;
} sim_layer;

typedef struct sim {
    hearth_file *f;
    char arch[32];
    uint32_t n_layer, d, n_head, n_kv, head_dim, ff, n_vocab, n_expert, n_used, n_ctx, pos, split;
    float eps, rope_base;
    bool early, sigmoid, renorm, wide_norm, halves;
    int act;                     /* 0 silu, 1 relu, 2 relu2 */
    float *embd, *out_norm, *output, *x, *h, *a, *b, *c, *logits, *score;
    sim_layer *layers;
} sim;

static inline double sim_number(const sim *s, const char *key, uint64_t index, double missing)
{
    int64_t i = hearth_file_find_meta(s->f, key);
    char *text = NULL;
    size_t n;
    double v = missing;

    if (i < 0 || hearth_file_meta_text(s->f, (uint64_t)i, UINT64_MAX, &text, &n) != HEARTH_OK)
        return missing;
    const char *p = text;

    if (*p == '[')
        p++;
    while (index && (p = strchr(p, ',')) != NULL) {
        p++;
        index--;
    }
    if (p)
        v = strtod(p, NULL);
    hearth_free(text);
    return v;
}

static inline double sim_arch_number(const sim *s, const char *name, double missing)
{
    char key[96];

    snprintf(key, sizeof key, "%s.%s", s->arch, name);
    return sim_number(s, key, 0, missing);
}

/* A tensor as float32, or NULL where the file has none. */
static inline float *sim_tensor(const sim *s, int layer, const char *name)
{
    char full[96];
    hearth_tensor t;
    float *w;

    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    int64_t i = hearth_file_find_tensor(s->f, full);

    if (i < 0 || hearth_file_tensor(s->f, (uint64_t)i, &t) != HEARTH_OK)
        return NULL;
    uint64_t n = t.ne[0] * (t.n_dims > 1 ? t.ne[1] : 1) * (t.n_dims > 2 ? t.ne[2] : 1);

    w = malloc(n * sizeof *w);
    if (w && hearth_file_read(s->f, (uint64_t)i, 0, n, w, NULL) != HEARTH_OK) {
        free(w);
        w = NULL;
    }
    return w;
}

static inline void sim_close(sim *s)
{
    for (uint32_t l = 0; s->layers && l < s->n_layer; l++) {
        sim_layer *y = &s->layers[l];
        void *all[] = { y->attn_norm, y->q,      y->k,      y->v,          y->q_norm,   y->k_norm,  y->out,
                        y->ffn_norm,  y->router, y->gate,   y->up,         y->down,     y->keys,    y->values,
                        y->active,    y->was,    y->chosen, y->was_chosen, y->fired[0], y->fired[1] };

        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]);
    }
    void *all[] = {s->layers, s->embd, s->out_norm, s->output, s->x, s->h, s->a, s->b, s->c, s->logits, s->score};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    hearth_file_close(&s->f);
}

static inline bool sim_open(sim *s, const char *path, uint32_t n_ctx)
{
    char *text = NULL;
    size_t n;

    memset(s, 0, sizeof *s);
    if (hearth_file_open(&s->f, path, NULL) != HEARTH_OK)
        return false;
    hearth_file_meta_text(s->f, (uint64_t)hearth_file_find_meta(s->f, "general.architecture"), 1, &text, &n);
    snprintf(s->arch, sizeof s->arch, "%s", text);
    hearth_free(text);
    s->n_layer = (uint32_t)sim_arch_number(s, "block_count", 0);
    s->d = (uint32_t)sim_arch_number(s, "embedding_length", 0);
    s->n_head = (uint32_t)sim_arch_number(s, "attention.head_count", 0);
    s->n_kv = (uint32_t)sim_arch_number(s, "attention.head_count_kv", 0);
    s->head_dim = (uint32_t)sim_arch_number(s, "attention.key_length", s->d / s->n_head);
    s->n_expert = (uint32_t)sim_arch_number(s, "expert_count", 0);
    s->n_used = (uint32_t)sim_arch_number(s, "expert_used_count", 0);
    s->ff = (uint32_t)sim_arch_number(s, "feed_forward_length", 0);
    if (s->n_expert)
        s->ff = (uint32_t)sim_arch_number(s, "expert_feed_forward_length", s->ff);
    s->eps = (float)sim_arch_number(s, "attention.layer_norm_rms_epsilon", 1e-5);
    s->rope_base = (float)sim_arch_number(s, "rope.freq_base", 1e4);
    s->n_vocab = (uint32_t)sim_number(s, "hearth.synth.vocab", 0, sim_arch_number(s, "vocab_size", 0));
    s->split = (uint32_t)sim_number(s, "hearth.synth.topic_split", 0, 0);
    s->n_ctx = n_ctx;
    s->early = strcmp(s->arch, "smallthinker") == 0;
    s->sigmoid = s->early && sim_arch_number(s, "expert_gating_func", 2) == 2;
    s->halves = strcmp(s->arch, "llama") != 0 && strcmp(s->arch, "arcee") != 0;
    s->renorm = strcmp(s->arch, "olmoe") != 0;
    s->wide_norm = strcmp(s->arch, "olmoe") == 0;
    int64_t act = hearth_file_find_meta(s->f, "llama.hidden_activation");

    s->act = strcmp(s->arch, "arcee") == 0 ? 2 : s->early || act >= 0 ? 1 : 0;
    s->embd = sim_tensor(s, -1, "token_embd.weight");
    s->out_norm = sim_tensor(s, -1, "output_norm.weight");
    s->output = sim_tensor(s, -1, "output.weight");
    if (!s->output) /* tied */
        s->output = sim_tensor(s, -1, "token_embd.weight");
    s->layers = calloc(s->n_layer, sizeof *s->layers);
    uint32_t e = s->n_expert ? s->n_expert : 1, q = s->n_head * s->head_dim;
    size_t wide = s->d > s->ff ? s->d : s->ff;

    wide = wide > q ? wide : q;
    s->x = malloc(s->d * sizeof(float));
    s->h = malloc(s->d * sizeof(float));
    s->a = malloc(wide * sizeof(float));
    s->b = malloc(wide * sizeof(float));
    s->c = malloc(wide * sizeof(float));
    s->logits = malloc((s->n_vocab > e ? s->n_vocab : e) * sizeof(float));
    s->score = malloc((n_ctx > e ? n_ctx : e) * sizeof(float));
    for (int l = 0; l < (int)s->n_layer; l++) {
        sim_layer *y = &s->layers[l];

        y->attn_norm = sim_tensor(s, l, "attn_norm.weight");
        y->q = sim_tensor(s, l, "attn_q.weight");
        y->k = sim_tensor(s, l, "attn_k.weight");
        y->v = sim_tensor(s, l, "attn_v.weight");
        y->q_norm = sim_tensor(s, l, "attn_q_norm.weight");
        y->k_norm = sim_tensor(s, l, "attn_k_norm.weight");
        y->out = sim_tensor(s, l, "attn_output.weight");
        y->ffn_norm = sim_tensor(s, l, "ffn_norm.weight");
        y->router = sim_tensor(s, l, "ffn_gate_inp.weight");
        y->gate = sim_tensor(s, l, s->n_expert ? "ffn_gate_exps.weight" : "ffn_gate.weight");
        y->up = sim_tensor(s, l, s->n_expert ? "ffn_up_exps.weight" : "ffn_up.weight");
        y->down = sim_tensor(s, l, s->n_expert ? "ffn_down_exps.weight" : "ffn_down.weight");
        y->keys = malloc((size_t)n_ctx * s->n_kv * s->head_dim * sizeof(float));
        y->values = malloc((size_t)n_ctx * s->n_kv * s->head_dim * sizeof(float));
        y->active = calloc(e, s->ff);
        y->was = calloc(e, s->ff);
        y->chosen = calloc(s->n_used + 1, sizeof(int));
        y->was_chosen = calloc(s->n_used + 1, sizeof(int));
        y->fired[0] = calloc((size_t)e * s->ff, sizeof(uint32_t));
        y->fired[1] = calloc((size_t)e * s->ff, sizeof(uint32_t));
        if (!y->attn_norm || !y->q || !y->k || !y->v || !y->out || !y->ffn_norm || !y->up || !y->down)
            return false;
    }
    return s->embd && s->out_norm && s->output;
}

static inline void sim_matvec(float *y, const float *w, const float *x, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++) {
        float sum[16] = {0};
        size_t i = 0;

        for (; i + 16 <= n; i += 16)
            for (int k = 0; k < 16; k++)
                sum[k] += w[r * n + i + k] * x[i + k];
        for (; i < n; i++)
            sum[0] += w[r * n + i] * x[i];
        for (int k = 1; k < 16; k++)
            sum[0] += sum[k];
        y[r] = sum[0];
    }
}

static inline void sim_norm(float *y, const float *x, const float *w, size_t n, float eps)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    float f = (float)(1 / sqrt(sum / n + eps));

    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * f * (w ? w[i] : 1);
}

static inline void sim_rope(const sim *s, float *x, uint32_t heads)
{
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t i = 0; i < s->head_dim / 2; i++) {
            float *p = x + h * s->head_dim + (s->halves ? i : 2 * i), *q = p + (s->halves ? s->head_dim / 2 : 1);
            float angle = s->pos * powf(s->rope_base, -2.0f * i / s->head_dim);
            float c = cosf(angle), n = sinf(angle), u = *p;

            *p = u * c - *q * n;
            *q = u * n + *q * c;
        }
}

static inline void sim_attend(sim *s, sim_layer *y)
{
    uint32_t q = s->n_head * s->head_dim, kv = s->n_kv * s->head_dim;
    float *k = y->keys + (size_t)s->pos * kv, *v = y->values + (size_t)s->pos * kv;

    sim_norm(s->h, s->x, y->attn_norm, s->d, s->eps);
    sim_matvec(s->a, y->q, s->h, q, s->d);
    sim_matvec(k, y->k, s->h, kv, s->d);
    sim_matvec(v, y->v, s->h, kv, s->d);
    if (y->q_norm && s->wide_norm) {
        sim_norm(s->a, s->a, y->q_norm, q, s->eps);
        sim_norm(k, k, y->k_norm, kv, s->eps);
    } else if (y->q_norm) {
        for (uint32_t h = 0; h < s->n_head; h++)
            sim_norm(s->a + h * s->head_dim, s->a + h * s->head_dim, y->q_norm, s->head_dim, s->eps);
        for (uint32_t h = 0; h < s->n_kv; h++)
            sim_norm(k + h * s->head_dim, k + h * s->head_dim, y->k_norm, s->head_dim, s->eps);
    }
    sim_rope(s, s->a, s->n_head);
    sim_rope(s, k, s->n_kv);
    for (uint32_t h = 0; h < s->n_head; h++) {
        uint32_t at = h / (s->n_head / s->n_kv) * s->head_dim;
        float most = -INFINITY, sum = 0, *o = s->b + h * s->head_dim;

        for (uint32_t t = 0; t <= s->pos; t++) {
            sim_matvec(&s->score[t], y->keys + (size_t)t * kv + at, s->a + h * s->head_dim, 1, s->head_dim);
            s->score[t] /= sqrtf((float)s->head_dim);
            most = fmaxf(most, s->score[t]);
        }
        memset(o, 0, s->head_dim * sizeof *o);
        for (uint32_t t = 0; t <= s->pos; t++) {
            float w = expf(s->score[t] - most);

            sum += w;
            for (uint32_t i = 0; i < s->head_dim; i++)
                o[i] += w * y->values[(size_t)t * kv + at + i];
        }
        for (uint32_t i = 0; i < s->head_dim; i++)
            o[i] /= sum;
    }
    sim_matvec(s->h, y->out, s->b, s->d, q);
    for (uint32_t i = 0; i < s->d; i++)
        s->x[i] += s->h[i];
}

/* One block or expert on s->h; its output times w goes to out. */
static inline void sim_block(sim *s, sim_layer *y, uint32_t e, float w, float *out)
{
    size_t at = (size_t)e * s->ff * s->d, n = 0;
    unsigned char *active = y->active + (size_t)e * s->ff;

    sim_matvec(s->a, y->up + at, s->h, s->ff, s->d);
    if (y->gate)
        sim_matvec(s->b, y->gate + at, s->h, s->ff, s->d);
    for (uint32_t i = 0; i < s->ff; i++) {
        float g = y->gate ? s->b[i] : s->a[i], r = fmaxf(g, 0);

        r = s->act == 0 ? g / (1 + expf(-g)) : s->act == 1 ? r : r * r;
        s->a[i] = y->gate ? r * s->a[i] : r;
        active[i] = r != 0;
        n += active[i];
    }
    y->n_active += (double)n;
    y->n_computed += s->ff;
    sim_matvec(s->c, y->down + at, s->a, s->d, s->ff);
    for (uint32_t i = 0; i < s->d; i++)
        out[i] += w * s->c[i];
}

static inline void sim_route(sim *s, sim_layer *y, const float *in, float *weights)
{
    float sum = 0;

    sim_matvec(s->score, y->router, in, s->n_expert, s->d);
    for (uint32_t k = 0; k < s->n_used; k++) {
        int best = -1;

        for (int e = 0; e < (int)s->n_expert; e++) {
            bool taken = false;

            for (uint32_t j = 0; j < k; j++)
                taken |= y->chosen[j] == e;
            if (!taken && (best < 0 || s->score[e] > s->score[best]))
                best = e;
        }
        y->chosen[k] = best;
        weights[k] = s->sigmoid ? 1 / (1 + expf(-s->score[best])) : expf(s->score[best]);
        sum += weights[k];
    }
    if (!s->renorm) {
        sum = 0;
        for (uint32_t e = 0; e < s->n_expert; e++)
            sum += expf(s->score[e]);
    }
    for (uint32_t k = 0; k < s->n_used; k++)
        weights[k] /= sum;
}

/* Compares this token's active set with that of the token before. */
static inline void sim_count(sim *s, sim_layer *y, bool pair, int topic)
{
    uint32_t experts = s->n_expert ? s->n_used : 1;

    for (uint32_t k = 0; k < experts; k++) {
        size_t at = s->n_expert ? (size_t)y->chosen[k] * s->ff : 0;

        for (uint32_t i = 0; i < s->ff; i++)
            y->fired[topic][at + i] += y->active[at + i];
    }
    y->n_tokens++;
    for (uint32_t k = 0; pair && k < experts; k++)
        for (uint32_t j = 0; j < experts; j++) {
            if (s->n_expert && y->chosen[k] != y->was_chosen[j])
                continue;
            size_t at = s->n_expert ? (size_t)y->chosen[k] * s->ff : 0;

            y->n_same++;
            for (uint32_t i = 0; i < s->ff; i++) {
                y->n_was += y->was[at + i];
                y->n_both += y->was[at + i] & y->active[at + i];
            }
        }
    y->n_pairs += pair;
    for (uint32_t k = 0; k < experts; k++) {
        size_t at = s->n_expert ? (size_t)y->chosen[k] * s->ff : 0;

        memcpy(y->was + at, y->active + at, s->ff);
        y->was_chosen[k] = y->chosen[k];
    }
}

/* Feeds a token. pair: it belongs to the same text and topic as the one before, so that their active sets are
 * compared. */
static inline const float *sim_feed(sim *s, uint32_t id, bool pair)
{
    float weights[64];

    memcpy(s->x, s->embd + (size_t)id * s->d, s->d * sizeof(float));
    for (uint32_t l = 0; l < s->n_layer; l++) {
        sim_layer *y = &s->layers[l];

        if (s->n_expert && s->early)
            sim_route(s, y, s->x, weights);
        sim_attend(s, y);
        sim_norm(s->h, s->x, y->ffn_norm, s->d, s->eps);
        if (!s->n_expert) {
            sim_block(s, y, 0, 1, s->x);
        } else {
            if (!s->early)
                sim_route(s, y, s->h, weights);
            for (uint32_t k = 0; k < s->n_used; k++)
                sim_block(s, y, (uint32_t)y->chosen[k], weights[k], s->x);
        }
        sim_count(s, y, pair, id >= s->split);
    }
    s->pos++;
    sim_norm(s->h, s->x, s->out_norm, s->d, s->eps);
    sim_matvec(s->logits, s->output, s->h, s->n_vocab, s->d);
    return s->logits;
}

static inline uint32_t sim_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* The next token: the best where temperature is 0, else one by chance. */
static inline uint32_t sim_pick(const float *logits, uint32_t n, float temperature, uint64_t *state)
{
    uint32_t best = 0;
    double sum = 0, at;

    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    if (temperature <= 0)
        return best;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((logits[i] - logits[best]) / temperature);
    at = sum * sim_random(state) / 2147483648.0;
    for (uint32_t i = 0; i < n; i++)
        if ((at -= exp((logits[i] - logits[best]) / temperature)) < 0)
            return i;
    return best;
}

/* How the tokens of a run are chosen. */
typedef enum sim_stream { SIM_RANDOM, SIM_GREEDY, SIM_SAMPLED } sim_stream;

/* Feeds n tokens from an empty context: words at random (the first half of them of one topic, then the other), or
 * what the model generates after a first word. Counters of the layers go on; ids: [n] or NULL. */
static inline void sim_run(sim *s, sim_stream how, uint32_t n, uint64_t seed, uint32_t *ids)
{
    uint32_t first = (uint32_t)sim_number(s, "hearth.synth.first_word", 0, 0), last = s->n_vocab - 2, id = 0, was = 0;
    uint64_t state = seed * 2862933555777941757u + 3037000493u;

    s->pos = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (how == SIM_RANDOM || i == 0)
            id = i < n / 2 ? first + sim_random(&state) % (s->split - first)
                           : s->split + sim_random(&state) % (last - s->split);
        if (ids)
            ids[i] = id;
        const float *logits = sim_feed(s, id, i > 0 && (id >= s->split) == (was >= s->split));

        was = id;
        if (how != SIM_RANDOM)
            id = sim_pick(logits, s->n_vocab, how == SIM_GREEDY ? 0 : 1, &state);
    }
}

static inline void sim_reset(sim *s)
{
    for (uint32_t l = 0; l < s->n_layer; l++) {
        sim_layer *y = &s->layers[l];
        size_t n = (size_t)(s->n_expert ? s->n_expert : 1) * s->ff;

        y->n_active = y->n_computed = y->n_both = y->n_was = y->n_same = y->n_tokens = y->n_pairs = 0;
        memset(y->fired[0], 0, n * sizeof(uint32_t));
        memset(y->fired[1], 0, n * sizeof(uint32_t));
    }
}

#endif
