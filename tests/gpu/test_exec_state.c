/* SPDX-License-Identifier: MIT
 * What a sequence remembers, on each device against the CPU executor: keys and values, recurrent state; and masks. */
#include "engine/base/signs.h"
#include "tests/gpu/bench.h"

/* ---- attention ---- */

typedef struct kv_case {
    ht_type type;
    uint32_t n_head, n_kv, k_dim, v_dim, before, n_tok, window;
    bool sinks, quantise, partial;
    float cap;
} kv_case;

static uint32_t row_bytes(ht_type type, uint32_t dim)
{
    return type == HT_F32 ? dim * 4 : type == HT_F16 ? dim * 2 : type == HT_Q8_0 ? dim / 32 * 34 : dim / 32 * 18;
}

static void attend_case(ht_gpu *g, const kv_case *c)
{
    bench b = begin(g);
    const uint32_t k_row = row_bytes(c->type, c->k_dim), v_row = row_bytes(c->type, (c->v_dim + 15) / 16 * 16);
    const size_t v_offset = (size_t)(k_row * HT_KV_PAGE * c->n_kv + 63) / 64 * 64;
    const size_t page = (v_offset + (size_t)v_row * HT_KV_PAGE * c->n_kv + 63) / 64 * 64;
    const uint32_t all = c->before + c->n_tok, n_pages = (all + HT_KV_PAGE - 1) / HT_KV_PAGE;
    uint8_t *memory = aligned_alloc(64, page * n_pages);
    memset(memory, 0xff, page * n_pages);
    both(&b, memory, page * n_pages);
    void *host[64], *dev[64];
    for (uint32_t i = 0; i < n_pages; i++) { /* in another order than in memory */
        host[i] = memory + (size_t)(n_pages - 1 - i) * page;
        dev[i] = on(&b, host[i]);
    }
    const ht_kv_view kv = { .pages = (void *const *)host, .type = c->type, .n_kv = c->n_kv, .k_dim = c->k_dim,
                            .v_dim = c->v_dim, .k_row_bytes = k_row, .v_row_bytes = v_row, .v_offset = v_offset };
    ht_kv_view on_dev = kv;
    on_dev.pages = (void *const *)dev;

    const uint32_t nk = c->n_kv * c->k_dim, nv = c->n_kv * c->v_dim, n_out = c->n_head * c->v_dim;
    float *k = some(&b, (size_t)all * nk), *v = some(&b, (size_t)all * nv), *q = some(&b, (size_t)c->n_tok * c->n_head * c->k_dim);
    k[3] = 40.0f; /* one that stands out */
    put_at(g, (uint64_t)(uintptr_t)on(&b, k), k, (size_t)all * nk * 4);
    float *out = none(&b, (size_t)c->n_tok * n_out);
    const size_t n_partial = c->partial ? (size_t)8 * c->n_tok * c->n_head * HT_ATTEND_PARTIAL(c->v_dim) : 0;
    float *partial = n_partial ? none(&b, n_partial) : NULL;
    ht_op w[2] = { { .kind = HT_OP_KV_WRITE, .n_tok = c->before,
                     .kv_write = { .kv = kv, .k = k, .v = v, .k_stride = nk, .v_stride = nv, .pos0 = 0 } } };
    w[1] = w[0];
    w[1].n_tok = c->n_tok;
    w[1].kv_write.pos0 = c->before;
    w[1].kv_write.k = k + (size_t)c->before * nk;
    w[1].kv_write.v = v + (size_t)c->before * nv;
    ht_op a = { .kind = HT_OP_ATTEND, .n_tok = c->n_tok,
                .attend = { .kv = kv, .q = q, .q_stride = c->n_head * c->k_dim, .n_head = c->n_head, .scale = 0.37f,
                            .softcap = c->cap, .window = c->window, .sinks = c->sinks ? some(&b, c->n_head) : NULL,
                            .pos0 = c->before, .partial = partial, .n_partial = n_partial,
                            .out = c->quantise ? act(&b, out, c->n_tok, n_out) : (ht_act){ .f = out, .stride = n_out } } };
    ht_op gw[2] = { w[0], w[1] }, ga = a;
    for (uint32_t i = 0; i < 2; i++) {
        gw[i].kv_write.kv = on_dev;
        gw[i].kv_write.k = on(&b, w[i].kv_write.k);
        gw[i].kv_write.v = on(&b, w[i].kv_write.v);
        if (w[i].n_tok) {
            run(b.cpu, &w[i], 1);
            run(b.gpu, &gw[i], 1);
        }
    }
    uint8_t *got = malloc(page * n_pages);
    get(g, got, (uint64_t)(uintptr_t)on(&b, memory), page * n_pages);
    cr_assert_eq(memcmp(got, memory, page * n_pages), 0, "pages of %s", ht_type_name(c->type));
    free(got);
    ga.attend.kv = on_dev;
    ga.attend.q = on(&b, q);
    ga.attend.sinks = on(&b, a.attend.sinks);
    ga.attend.partial = on(&b, partial);
    ga.attend.out = act_on(&b, a.attend.out);
    run(b.cpu, &a, 1);
    run(b.gpu, &ga, 1);
    check_act(&b, &a.attend.out, ht_type_name(c->type));
    end(&b);
}

Test(gpu_exec_state, attention)
{
    static const kv_case cases[] = {
        { HT_F32, 4, 2, 48, 40, 0, 5, 0, .sinks = true },
        { HT_F16, 4, 2, 64, 64, 130, 3, 0, .quantise = true, .cap = 20.0f },
        { HT_Q8_0, 2, 1, 64, 32, 200, 2, 50, .sinks = false },
        { HT_Q4_0, 2, 2, 32, 96, 100, 33, 40, .sinks = true, .quantise = true },
        { HT_F16, 2, 1, 32, 32, 1300, 1, 0, .sinks = true, .partial = true },
        { HT_Q8_0, 2, 1, 32, 32, 1300, 2, 600, .sinks = false },
        { HT_F32, 2, 2, 16, 16, 1022, 4, 0, .partial = true },
        { HT_F16, 2, 1, 256, 256, 20, 1, 0, .sinks = false },
    };
    FOR_DEVICES(g)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            attend_case(g, &cases[i]);
}

/* With no room for partial sums, a block walks all spans of its head. */
Test(gpu_exec_state, attention_without_scratch)
{
    FOR_DEVICES(g) {
        ht_gpu_exec_params p = { 0 };
        ht_error err = { 0 };
        kv_case c = { HT_F16, 2, 1, 32, 32, 1300, 1, 0, .sinks = true };
        ht_exec *x;
        cr_assert_eq(ht_gpu_exec_open(&x, g, &p, &err), HT_OK, "%s", err.text);
        x->ops->close(x);
        c.n_tok = 600; /* more heads and tokens than spans are shared out for */
        c.before = 700;
        attend_case(g, &c);
    }
}

/* ---- recurrent state ---- */

static void conv_case(bench *b, uint32_t taps, bool silu, bool bias)
{
    enum { T = 5, N = 70 };
    float *x = some(b, T * N), *y = none(b, T * N), *w = some(b, N * taps), *bi = some(b, N), *s = some(b, (taps - 1) * N);
    ht_op cpu = { .kind = HT_OP_CONV, .n_tok = T,
                  .conv = { .x = x, .y = y, .x_stride = N, .y_stride = N, .n = N, .taps = taps, .w = w,
                            .bias = bias ? bi : NULL, .state = s, .silu = silu } };
    ht_op gpu = cpu;
    gpu.conv.x = on(b, x);
    gpu.conv.y = on(b, y);
    gpu.conv.w = on(b, w);
    gpu.conv.bias = on(b, cpu.conv.bias);
    gpu.conv.state = on(b, s);
    run(b->cpu, &cpu, 1);
    run(b->gpu, &gpu, 1);
    check(b, y, "conv");
    check(b, s, "state of conv");
}

static void delta_case(bench *b, uint32_t n_k, uint32_t n_v, uint32_t k_dim, uint32_t v_dim, bool tiled, uint32_t group)
{
    enum { T = 4 };
    const uint32_t qkv = 2 * n_k * k_dim + n_v * v_dim, ab = 2 * n_v;
    float *x = some(b, T * qkv), *ba = some(b, T * ab), *coef = some(b, n_v), *dt = some(b, n_v);
    float *s = some(b, n_v * k_dim * v_dim), *y = none(b, T * n_v * v_dim);
    for (uint32_t i = 0; i < n_v; i++)
        coef[i] = -fabsf(coef[i]);
    put_at(b->g, (uint64_t)(uintptr_t)on(b, coef), coef, n_v * 4);
    ht_op cpu = { .kind = HT_OP_DELTA, .n_tok = T,
                  .delta = { .q = x, .k = x + n_k * k_dim, .v = x + 2 * n_k * k_dim, .qkv_stride = qkv, .beta = ba,
                             .alpha = ba + (group ? group : n_v), .ab_stride = ab, .ab_group = group, .a_coef = coef,
                             .dt_bias = dt, .n_k = n_k, .n_v = n_v, .k_dim = k_dim, .v_dim = v_dim, .tiled = tiled,
                             .state = s, .y = y, .y_stride = n_v * v_dim } };
    ht_op gpu = cpu;
    gpu.delta.q = on(b, cpu.delta.q);
    gpu.delta.k = on(b, cpu.delta.k);
    gpu.delta.v = on(b, cpu.delta.v);
    gpu.delta.alpha = on(b, cpu.delta.alpha);
    gpu.delta.beta = on(b, cpu.delta.beta);
    gpu.delta.a_coef = on(b, coef);
    gpu.delta.dt_bias = on(b, dt);
    gpu.delta.state = on(b, s);
    gpu.delta.y = on(b, y);
    run(b->cpu, &cpu, 1);
    run(b->gpu, &gpu, 1);
    check(b, y, "delta");
    check(b, s, "state of delta");
}

Test(gpu_exec_state, recurrent)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        conv_case(&b, 4, true, false);
        conv_case(&b, 4, true, true);
        conv_case(&b, 3, false, false);
        conv_case(&b, 2, true, true);
        delta_case(&b, 2, 4, 32, 48, false, 0);
        delta_case(&b, 2, 4, 40, 16, true, 2);
        end(&b);
    }
}

/* ---- masks ---- */

Test(gpu_exec_state, masks)
{
    FOR_DEVICES(g) {
        bench b = begin(g);
        enum { T = 3, N = 203, K = 150, WORDS = (N + 31) / 32 };
        float *scores = some(&b, T * N), *th = floats(N), *x = floats(4 * K);
        for (uint32_t i = 0; i < N; i++)
            th[i] = i % 9 == 0 ? -INFINITY : i % 10 == 0 ? INFINITY : th[i];
        for (uint32_t i = 0; i < K; i++)
            x[K + i] = 0.0f; /* a token of which nothing can be told */
        both(&b, th, N * 4);
        both(&b, x, 4 * K * 4);
        uint8_t *signs = malloc(ht_signs_bytes(N, K));
        float *row = floats(K);
        for (uint32_t r = 0; r < ht_signs_tiles(N) * HT_SIGNS_ROWS; r++) {
            for (uint32_t i = 0; i < K; i++)
                row[i] = r < N ? rnd() : -1.0f;
            ht_signs_set_row(signs, K, r, row);
        }
        free(row);
        both(&b, signs, ht_signs_bytes(N, K));
        uint32_t *tokens = malloc(T * 4);
        memcpy(tokens, (uint32_t[]){ 3, 1, 0 }, T * 4);
        both(&b, tokens, T * 4);
        void *work = aligned_alloc(64, (HT_PREDICT_WORK(K) + 63) / 64 * 64);
        for (uint32_t i = 0; i < 5; i++) {
            const uint32_t n_tok = i == 2 ? 1 : T;
            uint32_t *mask = both(&b, NULL, T * (WORDS + 1) * 4);
            ht_op cpu = { .kind = HT_OP_PREDICT, .n_tok = n_tok,
                          .predict = { .n = N, .k = K, .threshold = th, .scores = i == 0 ? scores : NULL,
                                       .scores_stride = N, .signs = signs, .x = x, .x_stride = K,
                                       .tokens = i == 3 ? tokens : NULL, .mask = mask, .mask_stride = WORDS + 1,
                                       .work = work } };
            ht_op gpu = cpu;
            gpu.predict.threshold = on(&b, th);
            gpu.predict.scores = on(&b, cpu.predict.scores);
            gpu.predict.signs = on(&b, signs);
            gpu.predict.x = on(&b, x);
            gpu.predict.tokens = on(&b, cpu.predict.tokens);
            gpu.predict.mask = on(&b, mask);
            run(b.cpu, &cpu, 1);
            run(b.gpu, &gpu, 1);
            check(&b, mask, "mask");
        }
        free(work);
        end(&b);
    }
}
