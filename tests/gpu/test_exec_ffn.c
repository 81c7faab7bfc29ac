/* SPDX-License-Identifier: MIT
 * Feed-forward operations on each device against the CPU executor: dense and mixtures, prompts and tokens, masks, thresholds,
 * down projections held by neurons. */
#include "engine/base/neurons.h"
#include "tests/gpu/bench.h"

enum { MOST_ITEMS = 3 };

typedef struct ffn_case {
    ht_type type;
    uint32_t n_items, n_ff, d_model, n_tok;
    ht_activation act;
    bool gate, bias, f32, lists, weights, sparse, mask, h_norm, down_t, columns, accumulate;
    float gate_least, h_least, act_param;
    ht_type down_type; /* 0: type */
} ffn_case;

/* The neuron-major form of a down projection on both. */
static ht_part neurons_of(bench *b, const ht_part *rows, ht_part *dev)
{
    ht_neurons g;
    cr_assert(ht_neurons_shape(&g, (ht_type)rows->type, rows->k, rows->n));
    uint8_t *to = aligned_alloc(64, (g.bytes + 63) / 64 * 64);
    cr_assert(ht_neurons_from_rows(&g, rows->host, rows->stride, 0, rows->n, to));
    ht_error err = { 0 };
    ht_part p = { .role = HT_ROLE_DOWN, .layout = HT_LAYOUT_NEURONS, .type = rows->type, .n = rows->k, .k = rows->n,
                  .stride = g.stride, .rows_at = g.rows_at, .host = to };
    cr_assert_eq(ht_gpu_upload_part(b->g, &p, dev, &err), HT_OK, "%s", err.text);
    b->p[b->n++] = (pair){ to, dev->device, 0 };
    return p;
}

static void ffn_run(ht_gpu *g, const ffn_case *c)
{
    bench b = begin(g);
    ht_ffn_item it[MOST_ITEMS] = { 0 }, dev[MOST_ITEMS] = { 0 };
    const uint32_t T = c->n_tok;
    uint32_t slots = 0;

    for (uint32_t i = 0; i < c->n_items; i++) {
        ht_ffn_item *h = &it[i], *d = &dev[i];
        h->n_tokens = !c->lists || T == 1 ? T : T - i % T;
        if (c->lists && T > 1) {
            uint32_t *tokens = malloc(T * 4);
            for (uint32_t t = 0; t < T; t++)
                tokens[t] = t + i % T; /* ascending; the first item has them all */
            h->tokens = both(&b, tokens, T * 4);
        }
        h->weights = c->weights ? some(&b, T) : NULL;
        h->slot = slots;
        slots += h->n_tokens;
        h->gate_least = c->gate_least;
        h->h_least = c->h_least;
        *d = *h;
        d->tokens = on(&b, h->tokens);
        d->weights = on(&b, h->weights);
        const ht_type down = c->down_type ? c->down_type : c->type;
        if (c->gate)
            h->part[HT_ROLE_GATE] = matrix(&b, c->type, c->n_ff, c->d_model, &d->part[HT_ROLE_GATE]);
        h->part[HT_ROLE_UP] = matrix(&b, c->type, c->n_ff, c->d_model, &d->part[HT_ROLE_UP]);
        if (c->columns) {
            h->part[HT_ROLE_DOWN] = matrix(&b, down, c->n_ff, c->d_model, &d->part[HT_ROLE_DOWN]);
            h->part[HT_ROLE_DOWN].layout = d->part[HT_ROLE_DOWN].layout = HT_LAYOUT_COLUMNS;
        } else {
            h->part[HT_ROLE_DOWN] = matrix(&b, down, c->d_model, c->n_ff, &d->part[HT_ROLE_DOWN]);
        }
        if (c->down_t)
            h->down_t = neurons_of(&b, &h->part[HT_ROLE_DOWN], &d->down_t);
        for (uint32_t r = 0; c->bias && r < HT_N_ROLES; r++) {
            h->bias[r] = some(&b, r == HT_ROLE_DOWN ? c->d_model : c->n_ff);
            d->bias[r] = on(&b, h->bias[r]);
        }
    }
    float *x = some(&b, (size_t)T * c->d_model), *y = some(&b, (size_t)T * (c->d_model + 5));
    float *h = none(&b, (size_t)slots * c->n_ff);
    ht_act xa = c->f32 ? (ht_act){ .f = x, .stride = c->d_model } : act(&b, x, T, c->d_model);
    ht_act ha = c->f32 || c->columns || c->n_ff % 32 ? (ht_act){ .f = h, .stride = c->n_ff } : act(&b, h, slots, c->n_ff);
    ht_act ga = { .f = none(&b, (size_t)slots * c->d_model), .stride = c->d_model };
    if (!c->f32) {
        quantise(&b, &xa, T, c->d_model);
        ga = act(&b, ga.f, slots, c->d_model);
    }
    const uint32_t words = (c->n_ff + 31) / 32;
    uint32_t *mask = NULL;
    if (c->mask) {
        mask = malloc((size_t)slots * words * 4);
        for (uint32_t i = 0; i < slots * words; i++) {
            mask[i] = (uint32_t)(int32_t)(rnd() * 2e9f) & (uint32_t)(int32_t)(rnd() * 2e9f);
            if (i % words == words - 1 && c->n_ff % 32)
                mask[i] &= (1u << c->n_ff % 32) - 1;
        }
        both(&b, mask, (size_t)slots * words * 4);
    }
    void *work = aligned_alloc(64, (ht_ffn_work_bytes(c->n_items, c->n_ff, c->d_model) + 63) / 64 * 64);
    float *norm = c->h_norm ? some(&b, c->n_ff) : NULL;
    ht_op cpu = { .kind = HT_OP_FFN, .n_tok = T,
                  .ffn = { .items = it, .n_items = c->n_items, .n_ff = c->n_ff, .d_model = c->d_model, .x = xa, .h = ha,
                           .gathered = ga, .act = c->act, .act_param = c->act_param, .h_norm = norm, .h_norm_eps = 1e-5f,
                           .y = y, .y_stride = c->d_model + 5, .sparse = c->sparse, .mask = mask, .mask_stride = words,
                           .work = work, .accumulate = c->accumulate } };
    ht_op gpu = cpu;
    gpu.ffn.items = dev;
    gpu.ffn.x = act_on(&b, xa);
    gpu.ffn.h = act_on(&b, ha);
    gpu.ffn.gathered = act_on(&b, ga);
    gpu.ffn.h_norm = on(&b, norm);
    gpu.ffn.y = on(&b, y);
    gpu.ffn.mask = on(&b, mask);
    gpu.ffn.work = NULL;
    char what[120];
    snprintf(what, sizeof what, "%s, %u items, %u tokens%s%s%s%s, act %d", ht_type_name(c->type), c->n_items, T,
             c->sparse ? ", sparse" : "", c->mask ? ", mask" : "", c->down_t ? ", neurons" : "",
             c->columns ? ", columns" : "", c->act);
    _Atomic uint64_t active[2] = { 0 }, neurons[2] = { 0 };
    cpu.ffn.n_active = &active[0];
    cpu.ffn.n_neurons = &neurons[0];
    gpu.ffn.n_active = &active[1];
    gpu.ffn.n_neurons = &neurons[1];
    run(b.cpu, &cpu, 1);
    run(b.gpu, &gpu, 1);
    check(&b, y, what);
    cr_assert_eq(active[0], active[1], "%s: %llu neurons, not %llu", what, (unsigned long long)active[1],
                 (unsigned long long)active[0]);
    cr_assert_eq(neurons[0], neurons[1], "%s", what);
    if (T > 1)
        check_act(&b, &ha, what);
    if (T == 1 && !c->down_t && !c->columns && !c->accumulate) { /* in two stages */
        for (ht_ffn_stage s = HT_FFN_OUTPUTS; s <= HT_FFN_SUM; s++) {
            cpu.ffn.stage = gpu.ffn.stage = s;
            cpu.ffn.sparse = gpu.ffn.sparse = false;
            cpu.ffn.mask = gpu.ffn.mask = NULL;
            run(b.cpu, &cpu, 1);
            run(b.gpu, &gpu, 1);
            check(&b, s == HT_FFN_SUM ? y : ga.f, what);
        }
    }
    free(work);
    end(&b);
}

Test(gpu_exec_ffn, blocks)
{
    static const ffn_case cases[] = {
        { HT_Q4_0, 1, 320, 128, 1, HT_ACT_SILU, .gate = true },
        { HT_Q8_0, 1, 2304, 64, 1, HT_ACT_GELU_TANH, .bias = true },
        { HT_Q8_0, 1, 2304, 64, 6, HT_ACT_SILU, .gate = true, .bias = true },
        { HT_F32, 1, 70, 50, 1, HT_ACT_GELU_ERF, .f32 = true, .bias = true },
        { HT_F16, 1, 70, 50, 9, HT_ACT_SILU, .gate = true, .f32 = true },
        { HT_Q4_K, 1, 512, 256, 3, HT_ACT_SILU, .gate = true, .h_norm = true },
        { HT_Q6_K, 1, 512, 256, 1, HT_ACT_SILU, .gate = true, .h_norm = true },
        { HT_MXFP4, 3, 96, 64, 1, HT_ACT_SWIGLU_OAI, .gate = true, .bias = true, .weights = true },
        { HT_MXFP4, 3, 96, 64, 5, HT_ACT_SWIGLU_OAI, .gate = true, .bias = true, .weights = true, .lists = true },
        { HT_Q5_0, 3, 96, 64, 4, HT_ACT_SILU, .gate = true, .weights = true, .lists = true, .accumulate = true },
        { HT_Q4_0, 2, 320, 64, 1, HT_ACT_RELU, .gate = true, .sparse = true, .weights = true },
        { HT_Q4_0, 2, 320, 64, 1, HT_ACT_DRELU, .gate = true, .sparse = true, .mask = true, .bias = true },
        { HT_Q4_0, 1, 320, 64, 4, HT_ACT_FATRELU, .gate = true, .mask = true, .act_param = 0.1f },
        { HT_Q4_0, 1, 320, 64, 1, HT_ACT_FATRELU, .gate = true, .sparse = true, .act_param = 0.1f },
        { HT_Q8_0, 1, 320, 64, 1, HT_ACT_SILU, .gate = true, .sparse = true, .gate_least = 0.05f, .h_least = 0.02f },
        { HT_Q8_0, 1, 320, 64, 3, HT_ACT_SILU, .gate = true, .gate_least = 0.05f, .h_least = 0.02f },
        { HT_Q4_0, 1, 2400, 224, 1, HT_ACT_RELU2, .sparse = true, .down_t = true, .down_type = HT_Q4_0, .f32 = false },
        { HT_Q8_0, 2, 320, 96, 1, HT_ACT_RELU, .gate = true, .sparse = true, .down_t = true, .bias = true, .weights = true },
        { HT_Q4_K, 1, 2304, 256, 1, HT_ACT_RELU, .gate = true, .sparse = true, .down_t = true },
        { HT_Q6_K, 1, 512, 256, 1, HT_ACT_RELU, .gate = true, .sparse = true, .down_t = true },
        { HT_F16, 1, 2100, 72, 1, HT_ACT_RELU, .gate = true, .sparse = true, .down_t = true, .f32 = true },
        { HT_BF16, 1, 64, 72, 1, HT_ACT_RELU, .gate = true, .sparse = true, .down_t = true, .f32 = true },
        { HT_F32, 1, 64, 72, 1, HT_ACT_RELU, .gate = true, .sparse = true, .down_t = true, .f32 = true },
        { HT_Q4_0, 1, 2100, 256, 1, HT_ACT_RELU, .gate = true, .sparse = true, .columns = true, .bias = true, .weights = true },
        { HT_Q4_0, 1, 2100, 256, 5, HT_ACT_RELU, .gate = true, .columns = true, .bias = true, .down_type = HT_Q4_K },
        { HT_F16, 1, 100, 64, 2, HT_ACT_RELU, .gate = true, .columns = true, .f32 = true },
    };
    FOR_DEVICES(g)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            ffn_run(g, &cases[i]);
}
