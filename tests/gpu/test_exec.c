/* SPDX-License-Identifier: MIT
 *
 * Operations on each device against the CPU executor: the same bits. Both get the same data; outputs are filled with what
 * is no number before. */
#include "tests/gpu/gpu_test.h"

typedef struct pair { /* the same bytes for both */
    void *host;
    uint64_t dev;
    size_t bytes;
} pair;

enum { MOST = 64 };
typedef struct bench {
    ht_gpu *g;
    ht_exec *cpu, *gpu;
    pair p[MOST];
    uint32_t n;
} bench;

static bench begin(ht_gpu *g)
{
    ht_error err = { 0 };
    bench b = { .g = g, .cpu = open_cpu() };
    ht_gpu_exec_params p = { .scratch_bytes = 1 << 20 };
    cr_assert_eq(ht_gpu_exec_open(&b.gpu, g, &p, &err), HT_OK, "%s", err.text);
    return b;
}

static void end(bench *b)
{
    b->gpu->ops->close(b->gpu);
    b->cpu->ops->close(b->cpu);
    for (uint32_t i = 0; i < b->n; i++)
        free(b->p[i].host);
}

/* Takes host memory; NULL: `bytes` of 0xff. */
static void *both(bench *b, void *host, size_t bytes)
{
    if (!host)
        memset(host = malloc(bytes + 1), 0xff, bytes);
    b->p[b->n++] = (pair){ host, put(b->g, host, bytes), bytes };
    return host;
}

static float *some(bench *b, size_t n) { return both(b, floats(n), n * 4); }
static float *none(bench *b, size_t n) { return both(b, NULL, n * 4); }

/* The device's pointer for a host's, offsets included. */
static void *on(const bench *b, const void *host)
{
    for (uint32_t i = 0; i < b->n; i++) {
        const size_t at = (size_t)((const uint8_t *)host - (const uint8_t *)b->p[i].host);
        if (host && (const uint8_t *)host >= (const uint8_t *)b->p[i].host && at < b->p[i].bytes)
            return ht_gpu_ptr(b->p[i].dev + at);
    }
    return NULL;
}

static ht_act act_on(const bench *b, ht_act a)
{
    a.f = on(b, a.f);
    a.q8.q = on(b, a.q8.q);
    a.q8.d = on(b, a.q8.d);
    a.q8.s = on(b, a.q8.s);
    return a;
}

/* All floats of a buffer on both sides. */
static void check(const bench *b, const void *host, const char *what)
{
    for (uint32_t i = 0; i < b->n; i++)
        if (b->p[i].host == host) {
            float *got = malloc(b->p[i].bytes + 4);
            get(b->g, got, b->p[i].dev, b->p[i].bytes);
            same(got, host, b->p[i].bytes / 4, what);
            cr_assert_eq(memcmp((uint8_t *)got + b->p[i].bytes / 4 * 4, (const uint8_t *)host + b->p[i].bytes / 4 * 4,
                                b->p[i].bytes % 4), 0);
            free(got);
            return;
        }
    cr_assert_fail("%s is no buffer", what);
}

static ht_act act(bench *b, float *f, uint32_t n_tok, uint32_t k)
{
    ht_act a = { .f = f, .stride = k };
    a.q8.stride = k;
    a.q8.q = both(b, NULL, (size_t)n_tok * k);
    a.q8.d = both(b, NULL, (size_t)n_tok * k / 32 * 4);
    a.q8.s = both(b, NULL, (size_t)n_tok * k / 16 * 2);
    return a;
}

static void check_act(const bench *b, const ht_act *a, const char *what)
{
    check(b, a->f, what);
    if (!a->q8.stride)
        return;
    check(b, a->q8.q, what);
    check(b, a->q8.d, what);
    check(b, a->q8.s, what);
}

/* A matrix of both. */
static ht_part matrix(bench *b, ht_type type, uint32_t n, uint32_t k, ht_part *dev)
{
    ht_error err = { 0 };
    uint8_t *w = weights(type, n, k);
    ht_part p = { .type = type, .n = n, .k = k, .stride = ht_type_row_bytes(ht_type_get(type), k), .host = w };

    cr_assert_eq(ht_gpu_upload_part(b->g, &p, dev, &err), HT_OK, "%s: %s", ht_type_name(type), err.text);
    b->p[b->n++] = (pair){ w, dev->device, 0 };
    return p;
}

static void quantise(bench *b, ht_act *a, uint32_t n_tok, uint32_t k)
{
    const ht_op cpu = { .kind = HT_OP_QUANTISE, .n_tok = n_tok, .quantise = { .x = *a, .k = k } };
    ht_op gpu = cpu;
    gpu.quantise.x = act_on(b, *a);
    run(b->cpu, &cpu, 1);
    run(b->gpu, &gpu, 1);
}

Test(gpu_exec, quantise)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        enum { T = 3, K = 2144 };
        float *x = floats(T * K);
        for (uint32_t i = 0; i < 32; i++) {
            x[i] = 0.0f;
            x[64 + i] *= 1e-38f; /* 127 / amax is no finite number */
            x[128 + i] *= 1e30f;
        }
        x[40] = INFINITY;
        x[330] = NAN;
        x[400] = -NAN;
        both(&b, x, T * K * 4);
        ht_act a = act(&b, x, T, K);
        quantise(&b, &a, T, K);
        check_act(&b, &a, "quantise");
        end(&b);
    }
}

static void norm_case(bench *b, ht_norm_kind kind, uint32_t n_tok, uint32_t k, uint32_t group, uint32_t x_group,
                      bool full, bool w, bool bias, bool q8)
{
    const uint32_t xs = x_group ? k / group * x_group : k;
    float *x = some(b, (size_t)n_tok * xs), *out = none(b, (size_t)n_tok * k);
    ht_op cpu = { .kind = HT_OP_NORM, .n_tok = n_tok,
                  .norm = { .x = x, .x_stride = xs, .k = k, .group = group, .x_group = x_group, .weight_full = full,
                            .kind = kind, .eps = 1e-5f, .weight = w ? some(b, full ? k : group) : NULL,
                            .bias = bias ? some(b, full ? k : group) : NULL,
                            .out = q8 ? act(b, out, n_tok, k) : (ht_act){ .f = out, .stride = k } } };
    ht_op gpu = cpu;
    gpu.norm.x = on(b, x);
    gpu.norm.weight = on(b, cpu.norm.weight);
    gpu.norm.bias = on(b, cpu.norm.bias);
    gpu.norm.out = act_on(b, cpu.norm.out);
    run(b->cpu, &cpu, 1);
    run(b->gpu, &gpu, 1);
    check_act(b, &cpu.norm.out, "norm");
}

Test(gpu_exec, norm)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        norm_case(&b, HT_NORM_RMS, 3, 288, 288, 0, false, true, false, true);
        norm_case(&b, HT_NORM_LAYER, 2, 1000, 1000, 0, false, true, true, false);
        norm_case(&b, HT_NORM_RMS, 2, 256, 64, 128, false, true, false, true);
        norm_case(&b, HT_NORM_L2, 1, 96, 48, 0, false, false, false, false);
        norm_case(&b, HT_NORM_LAYER, 2, 96, 48, 0, true, false, true, false);
        norm_case(&b, HT_NORM_NONE, 2, 64, 64, 0, false, false, false, true);
        norm_case(&b, HT_NORM_RMS, 1, 20, 20, 0, false, true, true, false);
        end(&b);
    }
}

Test(gpu_exec, in_place_and_elementwise)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        enum { T = 3, K = 300, HEADS = 4, DIM = 32 };
        float *x = some(&b, T * K), *y = some(&b, T * K), *w = some(&b, K), *gates = some(&b, T * 2 * K);
        float *rope = some(&b, T * 24), *heads = some(&b, T * HEADS * DIM);
        ht_op ops[40], dev[40];
        uint32_t n = 0;
        ops[n++] = (ht_op){ .kind = HT_OP_NORM, .n_tok = T,
                            .norm = { .x = x, .x_stride = K, .k = K, .group = K, .kind = HT_NORM_RMS, .eps = 1e-6f,
                                      .weight = w, .out = { .f = x, .stride = K } } };
        ops[n++] = (ht_op){ .kind = HT_OP_ADD, .n_tok = T,
                            .add = { .x = x, .y = y, .x_stride = K, .y_stride = K, .k = K, .ax = 0.3f, .ay = 1.0f } };
        for (uint32_t a = HT_ACT_SILU; a <= HT_ACT_IDENTITY; a++)
            ops[n++] = (ht_op){ .kind = HT_OP_GATE, .n_tok = T,
                                .gate = { .gate = gates + a, .y = y, .gate_stride = 2 * K, .y_stride = K, .k = K - 20,
                                          .group = 28, .gate_group = 30, .act = (ht_activation)a } };
        ops[n++] = (ht_op){ .kind = HT_OP_GATE, .n_tok = T,
                            .gate = { .y = x, .y_stride = K, .k = K, .group = K, .act = HT_ACT_GELU_ERF } };
        ops[n++] = (ht_op){ .kind = HT_OP_GATE, .n_tok = T,
                            .gate = { .gate = gates, .y = x, .gate_stride = 1, .y_stride = K, .k = K, .per_row = true,
                                      .act = HT_ACT_SIGMOID } };
        ops[n++] = (ht_op){ .kind = HT_OP_SOFTCAP, .n_tok = T, .softcap = { .y = x, .y_stride = K, .k = K, .cap = 3.0f,
                                                                            .scale = 7.0f } };
        ops[n++] = (ht_op){ .kind = HT_OP_SOFTCAP, .n_tok = T, .softcap = { .y = x, .y_stride = K, .k = K, .scale = 7.0f } };
        for (uint32_t neox = 0; neox < 2; neox++)
            ops[n++] = (ht_op){ .kind = HT_OP_ROPE, .n_tok = T,
                                .rope = { .x = heads, .x_stride = HEADS * DIM, .n_head = HEADS, .head_dim = DIM,
                                          .n_rot = 24, .neox = neox, .table = rope, .table_stride = 24 } };
        ops[n++] = (ht_op){ .kind = HT_OP_ADD, .n_tok = T, /* 0 times what y held is not looked at */
                            .add = { .x = heads, .y = gates + 5, .x_stride = HEADS * DIM, .y_stride = 2 * K,
                                     .k = HEADS * DIM, .ax = -2.0f } };
        for (uint32_t i = 0; i < n; i++) {
            ht_op *o = &dev[i];
            *o = ops[i];
            switch (o->kind) {
            case HT_OP_NORM: o->norm.x = on(&b, o->norm.x); o->norm.weight = on(&b, o->norm.weight);
                             o->norm.out = act_on(&b, o->norm.out); break;
            case HT_OP_ADD: o->add.x = on(&b, o->add.x); o->add.y = on(&b, o->add.y); break;
            case HT_OP_GATE: o->gate.gate = on(&b, o->gate.gate); o->gate.y = on(&b, o->gate.y); break;
            case HT_OP_SOFTCAP: o->softcap.y = on(&b, o->softcap.y); break;
            default: o->rope.x = on(&b, o->rope.x); o->rope.table = on(&b, o->rope.table);
            }
        }
        run(b.cpu, ops, n);
        run(b.gpu, dev, n);
        check(&b, x, "x");
        check(&b, y, "y");
        check(&b, gates, "gates");
        check(&b, heads, "heads");
        end(&b);
    }
}

Test(gpu_exec, route)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        enum { T = 3, E = 130, K = 9 };
        float *l = some(&b, T * E), *bias = some(&b, E);
        for (uint32_t e = 0; e < E; e++)
            l[e] = floorf(4.0f * l[e]); /* equals: the lower id */
        put_at(g, (uint64_t)(uintptr_t)on(&b, l), l, T * E * 4);
        for (uint32_t i = 0; i < 12; i++) {
            uint32_t *ids = both(&b, NULL, T * K * 4);
            float *w = none(&b, T * K);
            ht_op cpu = { .kind = HT_OP_ROUTE, .n_tok = T,
                          .route = { .logits = l, .logits_stride = E, .n_expert = i == 11 ? 9 : E, .k = K,
                                     .gating = (ht_gating)(i % 3), .renormalise = i / 3 % 2, .scale = 1.5f,
                                     .select_bias = i / 6 ? bias : NULL, .ids = ids, .weights = w } };
            ht_op gpu = cpu;
            gpu.route.logits = on(&b, l);
            gpu.route.select_bias = on(&b, cpu.route.select_bias);
            gpu.route.ids = on(&b, ids);
            gpu.route.weights = on(&b, w);
            run(b.cpu, &cpu, 1);
            run(b.gpu, &gpu, 1);
            check(&b, ids, "ids");
            check(&b, w, "weights");
        }
        end(&b);
    }
}

static void product_case(bench *b, ht_type type, uint32_t n, uint32_t k, uint32_t n_tok, bool f32)
{
    ht_part dev, w = matrix(b, type, n, k, &dev);
    float *x = some(b, (size_t)n_tok * k), *bias = some(b, n), *y = none(b, (size_t)n_tok * (n + 3));
    ht_act a = f32 ? (ht_act){ .f = x, .stride = k } : act(b, x, n_tok, k);
    char what[80];

    snprintf(what, sizeof what, "%s %ux%u, %u tokens%s on %s", ht_type_name(type), n, k, n_tok, f32 ? ", f32" : "",
             ht_gpu_about(b->g)->driver);
    if (!f32)
        quantise(b, &a, n_tok, k);
    ht_op cpu = { .kind = HT_OP_MATMUL, .n_tok = n_tok,
                  .matmul = { .w = w, .bias = n % 2 ? bias : NULL, .x = a, .y = y, .y_stride = n + 3,
                              .scale = n % 2 ? 1.0f : 0.37f, .clamp = n % 2 ? 0.0f : 0.5f } };
    ht_op gpu = cpu;
    gpu.matmul.w = dev;
    gpu.matmul.bias = on(b, cpu.matmul.bias);
    gpu.matmul.x = act_on(b, a);
    gpu.matmul.y = on(b, y);
    run(b->cpu, &cpu, 1);
    run(b->gpu, &gpu, 1);
    check(b, y, what);

    int32_t *ids = malloc(n_tok * 4); /* the same matrix as a table of embeddings */
    for (uint32_t t = 0; t < n_tok; t++)
        ids[t] = (int32_t)((t * 7) % n);
    both(b, ids, n_tok * 4);
    float *rows = none(b, (size_t)n_tok * k);
    ht_op e = { .kind = HT_OP_EMBED, .n_tok = n_tok,
                .embed = { .table = w, .ids = ids, .scale = n % 2 ? 1.0f : 12.5f, .out = rows, .out_stride = k } };
    ht_op ge = e;
    ge.embed.table = dev;
    ge.embed.ids = on(b, ids);
    ge.embed.out = on(b, rows);
    run(b->cpu, &e, 1);
    run(b->gpu, &ge, 1);
    check(b, rows, what);
}

Test(gpu_exec, products)
{
    FOR_DEVICES(g) {
        for (uint32_t type = 0; type < HT_TYPE_MAX; type++) {
            if (!ht_type_get(type))
                continue;
            bench b = begin(g);
            product_case(&b, (ht_type)type, 13, 768, 1, false);
            product_case(&b, (ht_type)type, 20, 2304, 11, false);
            product_case(&b, (ht_type)type, 9, 512, 5, true);
            end(&b);
        }
    }
}
