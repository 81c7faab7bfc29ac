/* SPDX-License-Identifier: MIT
 *
 * Operations on each device against the CPU executor: the same bits. Both get the same data; outputs are filled with what
 * is no number before. */
#include "tests/gpu/bench.h"

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
        norm_case(&b, HT_NORM_RMS, 2, 192, 48, 0, false, true, false, true); /* 8-bit blocks of two groups */
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

/* A wait that is cancelled leaves an empty queue; what comes then is computed. */
Test(gpu_exec, cancel)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        enum { K = 4096 };
        float *x = some(&b, K), *y = some(&b, K);
        ht_op op = { .kind = HT_OP_ADD, .n_tok = 1,
                     .add = { .x = on(&b, x), .y = on(&b, y), .k = K, .ax = 1.0f, .ay = 1.0f } };
        ht_cancel cancel = { .asked = true };
        ht_event done;
        for (uint32_t i = 0; i < 40; i++) /* more submits than there are slots */
            cr_assert_eq(b.gpu->ops->submit(b.gpu, &op, 1, &done), HT_OK);
        const ht_status st = b.gpu->ops->wait(b.gpu, done, &cancel);
        cr_assert(st == HT_OK || st == HT_ECANCELLED, "done already, or cancelled: %d", st);
        cr_assert_eq(b.gpu->ops->wait(b.gpu, done, NULL), HT_OK);
        for (uint32_t i = 0; i < 40; i++)
            for (uint32_t k = 0; k < K; k++)
                y[k] = x[k] + y[k];
        check(&b, y, "sums");
        end(&b);
    }
}
