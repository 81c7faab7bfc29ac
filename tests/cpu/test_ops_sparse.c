/* SPDX-License-Identifier: MIT
 *
 * Feed-forward operations that skip neurons against the same ones that compute all: the same bits, for random blocks of
 * many types, activations, biases, norms over h, mixtures, numbers of threads and SIMD levels, with and without a
 * neuron-major part, with masks and thresholds and without. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "engine/base/neurons.h"
#include "tests/cpu/check_dot_data.h"

enum { MAX_ITEMS = 3, MAX_TOKENS = 5 };

typedef struct shape {
    ht_type type;
    uint32_t d_model, n_ff, n_items;
    ht_activation act;
    bool gate, biased, normed, q8;
    uint32_t shut;   /* of 100 neurons those that a bias keeps shut */
    uint32_t masked; /* of 100 neurons those that the mask leaves out; 0: no mask */
    float gate_least, h_least;
} shape;

typedef struct block {
    shape s;
    ht_ffn_item items[MAX_ITEMS];
    float *bias[MAX_ITEMS][HT_N_ROLES], *norm, *x, *h, *gathered, *y;
    int8_t *q8[2];
    float *d8[2];
    int16_t *s8[2];
    void *work;
    uint32_t *mask;
    _Atomic uint64_t n_active, n_neurons, n_bytes;
    bool in_parts;
} block;

static void *room(size_t n)
{
    void *p = aligned_alloc(64, (n + 127) / 64 * 64);
    memset(p, 0xff, (n + 127) / 64 * 64);
    return p;
}

/* Weights of usual size: sums of wild ones would hide what is added to them. */
static ht_part matrix(ht_type type, uint32_t n, uint32_t k, uint64_t *seed)
{
    const size_t stride = ht_type_row_bytes(ht_type_get(type), k);
    uint8_t *w = room(n * stride);
    float *row = malloc(k * sizeof *row);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < k; j++)
            row[j] = rnd_float(seed);
        ht_type_quantise(type, row, k, w + i * stride);
    }
    free(row);
    return (ht_part){ .type = type, .n = n, .k = k, .stride = stride, .host = w };
}

static block make(shape s, uint64_t seed)
{
    block b = { .s = s };
    const uint32_t d = s.d_model, n = s.n_ff, slots = MAX_ITEMS * MAX_TOKENS, words = (n + 31) / 32;

    b.x = room(MAX_TOKENS * d * 4);
    for (uint32_t i = 0; i < MAX_TOKENS * d; i++)
        b.x[i] = rnd_float(&seed);
    for (uint32_t i = 0; i < s.n_items; i++) {
        ht_ffn_item *it = &b.items[i];
        *it = (ht_ffn_item){ .n_tokens = 1, .slot = s.n_items - 1 - i, .gate_least = s.gate_least, .h_least = s.h_least };
        for (int r = s.gate ? 0 : 1; r < HT_N_ROLES; r++)
            it->part[r] = r == HT_ROLE_DOWN ? matrix(s.type, d, n, &seed) : matrix(s.type, n, d, &seed);
        const ht_role first = s.gate ? HT_ROLE_GATE : HT_ROLE_UP;
        for (int r = 0; r < HT_N_ROLES; r++) {
            const uint32_t rows = r == HT_ROLE_DOWN ? d : n;
            float *v = b.bias[i][r] = malloc(rows * sizeof *v);
            for (uint32_t j = 0; j < rows;
                 j++) /* the first product's bias opens and shuts neurons, uneven over blocks */
                v[j] = (ht_role)r != first ? rnd_float(&seed)
                       : rnd(&seed) % 100 < s.shut * (j / 32 % 4 ? 1 : 0) + (s.shut > 90 ? s.shut : 0)
                           ? -1e4f
                           : rnd_float(&seed);
            it->bias[r] = s.biased || (ht_role)r == first ? v : NULL;
        }
        ht_neurons g;
        if (ht_neurons_shape(&g, s.type, n, d)) {
            void *t = room(g.bytes);
            cr_assert(ht_neurons_from_rows(&g, it->part[HT_ROLE_DOWN].host, it->part[HT_ROLE_DOWN].stride, 0, d, t));
            it->down_t = (ht_part){ .layout = HT_LAYOUT_NEURONS, .type = s.type, .n = n, .k = d, .host = t };
        }
    }
    b.norm = malloc(n * sizeof *b.norm);
    for (uint32_t i = 0; i < n; i++)
        b.norm[i] = rnd_float(&seed);
    for (int i = 0; i < 2; i++) {
        const uint32_t k = i ? n : d;
        b.q8[i] = room((size_t)slots * k);
        b.d8[i] = room((size_t)slots * k / 8);
        b.s8[i] = room((size_t)slots * k / 8);
    }
    b.h = room((size_t)slots * n * 4);
    b.gathered = room((size_t)slots * d * 4);
    b.y = room((size_t)MAX_TOKENS * d * 4);
    b.work = room(ht_ffn_work_bytes(s.n_items, n, d));
    b.mask = room((size_t)slots * words * 4);
    for (uint32_t i = 0; i < slots * words; i++) {
        b.mask[i] = 0;
        for (uint32_t j = 0; j < 32; j++)
            b.mask[i] |= (uint32_t)(rnd(&seed) % 100 >= s.masked) << j;
    }
    return b;
}

static void drop(block *b)
{
    for (uint32_t i = 0; i < b->s.n_items; i++) {
        for (int r = 0; r < HT_N_ROLES; r++) {
            free((void *)(uintptr_t)b->items[i].part[r].host);
            free(b->bias[i][r]);
        }
        free((void *)(uintptr_t)b->items[i].down_t.host);
    }
    for (int i = 0; i < 2; i++) {
        free(b->q8[i]);
        free(b->d8[i]);
        free(b->s8[i]);
    }
    void *all[] = { b->norm, b->x, b->h, b->gathered, b->y, b->work, b->mask };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static ht_exec *open_exec(uint32_t threads, ht_isa isa)
{
    ht_exec *x;
    ht_error err;
    const ht_cpu_params p = { .threads = threads, .isa = isa, .max_k = 6000, .max_head = 64 };
    cr_assert_eq(ht_cpu_open(&x, &p, &err), HT_OK, "%s", err.text);
    return x;
}

/* One pass over tokens [first, first + n) of x. */
static void run(block *b, ht_exec *x, uint32_t first, uint32_t n, bool sparse, bool down_t)
{
    const shape *s = &b->s;
    const bool q8x = s->q8 && s->d_model % 32 == 0, q8h = s->q8 && s->n_ff % 32 == 0;
    float weights[MAX_ITEMS][MAX_TOKENS];
    ht_ffn_item items[MAX_ITEMS];
    ht_op ops[2] = { { .kind = HT_OP_QUANTISE, .n_tok = n }, { .kind = HT_OP_FFN, .n_tok = n } };
    ht_op_ffn *f = &ops[1].ffn;
    ht_event done;

    memcpy(items, b->items, sizeof items);
    for (uint32_t i = 0; i < s->n_items; i++) {
        items[i].n_tokens = n;
        items[i].slot *= n;
        items[i].weights = weights[i];
        for (uint32_t t = 0; t < n; t++)
            weights[i][t] = 0.25f + 0.5f * (float)i;
        if (!down_t)
            items[i].down_t.host = NULL;
    }
    ht_act xa = { .f = b->x + (size_t)first * s->d_model, .stride = s->d_model };
    if (q8x)
        xa.q8 = (ht_q8){ b->q8[0], b->d8[0], b->s8[0], s->d_model };
    ops[0].quantise = (ht_op_quantise){ .x = xa, .k = s->d_model };
    *f = (ht_op_ffn){ .items = items,
                      .n_items = s->n_items,
                      .n_ff = s->n_ff,
                      .d_model = s->d_model,
                      .x = xa,
                      .h = { .f = b->h, .stride = s->n_ff },
                      .gathered = { .f = b->gathered, .stride = s->d_model },
                      .act = s->act,
                      .act_param = 0.1f,
                      .h_norm = s->normed ? b->norm : NULL,
                      .h_norm_eps = 1e-5f,
                      .y = b->y,
                      .y_stride = s->d_model,
                      .n_active = &b->n_active,
                      .n_neurons = &b->n_neurons,
                      .n_bytes = &b->n_bytes,
                      .sparse = sparse,
                      .work = b->work };
    if (q8h)
        f->h.q8 = (ht_q8){ b->q8[1], b->d8[1], b->s8[1], s->n_ff };
    if (s->masked) {
        f->mask = b->mask;
        f->mask_stride = (s->n_ff + 31) / 32;
    }
    b->n_active = b->n_neurons = b->n_bytes = 0;
    memset(b->y, 0xff, (size_t)n * s->d_model * 4);
    const uint32_t skip = q8x ? 0 : 1;
    if (b->in_parts && n == 1) { /* each item by itself, the last first; then their sum */
        ht_op parts[1 + MAX_ITEMS + 1] = { ops[0] };
        for (uint32_t i = 0; i <= s->n_items; i++) {
            parts[1 + i] = ops[1];
            parts[1 + i].ffn.stage = i < s->n_items ? HT_FFN_OUTPUTS : HT_FFN_SUM;
            parts[1 + i].ffn.items = i < s->n_items ? items + s->n_items - 1 - i : items;
            parts[1 + i].ffn.n_items = i < s->n_items ? 1 : s->n_items;
        }
        cr_assert_eq(x->ops->submit(x, parts + skip, 2 - skip + s->n_items, &done), HT_OK);
        cr_assert_eq(x->ops->wait(x, done, NULL), HT_OK);
        return;
    }
    cr_assert_eq(x->ops->submit(x, ops + skip, 2 - skip, &done), HT_OK);
    cr_assert_eq(x->ops->wait(x, done, NULL), HT_OK);
}

static const ht_type types[] = { HT_Q4_0, HT_Q8_0, HT_Q4_K, HT_Q6_K, HT_F16, HT_BF16, HT_F32, HT_Q5_0 };
static const ht_activation acts[] = { HT_ACT_RELU, HT_ACT_RELU2, HT_ACT_FATRELU, HT_ACT_DRELU };

static shape random_shape(uint64_t *s)
{
    static const uint32_t shut[] = { 0, 50, 80, 95, 100 };
    shape r = { .type = types[rnd(s) % 8],
                .act = acts[rnd(s) % 4],
                .gate = rnd(s) % 4 != 0,
                .biased = rnd(s) % 2,
                .normed = rnd(s) % 4 == 0,
                .q8 = rnd(s) % 5 != 0,
                .shut = shut[rnd(s) % 5] };
    const uint32_t unit = ht_type_get(r.type)->block == 1 ? 1 + (uint32_t)(rnd(s) % 40) : ht_type_get(r.type)->block;
    r.n_items = rnd(s) % 3 ? 1 : 1 + (uint32_t)(rnd(s) % MAX_ITEMS);
    r.d_model = unit * (1 + (uint32_t)(rnd(s) % (300 / unit + 2)));
    r.n_ff = unit * (1 + (uint32_t)(rnd(s) % ((rnd(s) % 2 ? 2600 : 600) / unit)));
    return r;
}

static void print_shape(char *to, size_t n, const shape *s)
{
    snprintf(to, n, "%s d %u n_ff %u items %u act %d%s%s%s%s shut %u masked %u", ht_type_name(s->type), s->d_model,
             s->n_ff, s->n_items, (int)s->act, s->gate ? " gate" : "", s->biased ? " biased" : "",
             s->normed ? " normed" : "", s->q8 ? "" : " f32", s->shut, s->masked);
}

Test(ops_sparse, same_bits_as_dense, .timeout = 600)
{
    static const uint32_t threads[] = { 1, 2, 3, 8 };
    ht_exec *x[4];
    uint64_t seed = 20;
    char text[160];
    uint64_t skipped = 0;

    for (int i = 0; i < 4; i++)
        x[i] = open_exec(threads[i], ht_isa_best());
    for (int round = 0; round < 120; round++) {
        const shape s = random_shape(&seed);
        block b = make(s, seed);
        const size_t bytes = s.d_model * sizeof(float);
        float *want = malloc(bytes);
        print_shape(text, sizeof text, &s);
        run(&b, x[0], 1, 1, false, false);
        memcpy(want, b.y, bytes);
        const uint64_t active = b.n_active, all = b.n_bytes;
        uint64_t least = 0;
        for (int i = 0; i < 4; i++)
            for (int way = 0; way < 4; way++) {
                const bool down_t = way / 2;
                b.in_parts = way % 2;
                run(&b, x[i], 1, 1, true, down_t);
                cr_expect_arr_eq(b.y, want, bytes, "%s: %u threads, way %d", text, threads[i], way);
                cr_expect_eq(b.n_active, active, "%s", text);
                cr_expect_eq(b.n_neurons, (uint64_t)s.n_ff * s.n_items);
                cr_expect(down_t || b.n_bytes <= all, "%s", text);
                least = b.n_bytes;
            }
        skipped += least < all;
        free(want);
        drop(&b);
    }
    cr_expect_gt(skipped, 50);
    for (int i = 0; i < 4; i++)
        x[i]->ops->close(x[i]);
}

/* Every SIMD level. */
Test(ops_sparse, same_bits_at_every_level, .timeout = 600)
{
    for (int t = 0; t < 8; t++) {
        shape s = { .type = types[t],
                    .d_model = 256,
                    .n_ff = 2304,
                    .n_items = 2,
                    .act = HT_ACT_RELU,
                    .gate = true,
                    .biased = true,
                    .q8 = true,
                    .shut = 80 };
        block b = make(s, (uint64_t)t);
        float want[256];
        ht_exec *x = open_exec(1, HT_ISA_REF);
        run(&b, x, 0, 1, false, false);
        memcpy(want, b.y, sizeof want);
        x->ops->close(x);
        for (ht_isa isa = HT_ISA_REF; isa < HT_N_ISA; isa++) {
            if (!ht_isa_runs(isa))
                continue;
            x = open_exec(2, isa);
            run(&b, x, 0, 1, true, true);
            cr_expect_arr_eq(b.y, want, sizeof want, "%s at %s", ht_type_name(s.type), ht_isa_name(isa));
            x->ops->close(x);
        }
        drop(&b);
    }
}

/* A token under its mask is the same alone, rows skipped, and in a batch, where all are computed: chunking changes
 * nothing. Activations without zeros too. */
Test(ops_sparse, masks_change_nothing_in_a_batch, .timeout = 600)
{
    ht_exec *x = open_exec(2, ht_isa_best());
    uint64_t seed = 5;
    char text[160];

    for (int round = 0; round < 60; round++) {
        shape s = random_shape(&seed);
        s.n_items = 1;
        s.masked = 1 + (uint32_t)(rnd(&seed) % 99);
        if (round % 3 == 0)
            s.act = HT_ACT_SILU;
        block b = make(s, seed);
        const size_t row = s.d_model;
        const uint32_t words = (s.n_ff + 31) / 32;
        float *want = malloc(MAX_TOKENS * row * sizeof *want);
        print_shape(text, sizeof text, &s);
        run(&b, x, 0, MAX_TOKENS, true, true);
        memcpy(want, b.y, MAX_TOKENS * row * sizeof *want);
        const uint64_t active = b.n_active;
        uint64_t one_by_one = 0;
        for (uint32_t t = 0; t < MAX_TOKENS; t++) {
            for (int down_t = 0; down_t < 2; down_t++) {
                memmove(b.mask, b.mask + (down_t ? 0 : t ? words : 0), (size_t)(MAX_TOKENS - t) * words * 4);
                run(&b, x, t, 1, true, down_t);
                cr_expect_arr_eq(b.y, want + t * row, row * sizeof *want, "%s: token %u, down_t %d", text, t, down_t);
            }
            one_by_one += b.n_active;
        }
        cr_expect_eq(one_by_one, active, "%s", text);
        free(want);
        drop(&b);
    }
    x->ops->close(x);
}

/* Thresholds leave out what is small, of every activation: the same bits alone and in a batch, rows skipped or all
 * computed; fewer hidden units and bytes the larger they are. */
Test(ops_sparse, thresholds_change_nothing_in_a_batch, .timeout = 600)
{
    static const ht_activation all[] = { HT_ACT_SILU, HT_ACT_GELU_TANH, HT_ACT_GELU_ERF, HT_ACT_RELU, HT_ACT_RELU2,
                                         HT_ACT_FATRELU, HT_ACT_DRELU };
    ht_exec *x = open_exec(3, ht_isa_best());
    uint64_t seed = 8, cut = 0;
    char text[160];

    for (int round = 0; round < 60; round++) {
        shape s = random_shape(&seed);
        s.n_items = 1;
        s.act = all[round % 7];
        s.gate_least = round % 3 ? 0.5f + (float)(rnd(&seed) % 8) : 0;
        s.h_least = round % 3 != 1 ? 0.5f + (float)(rnd(&seed) % 8) : 0;
        block b = make(s, seed);
        const size_t row = s.d_model;
        float *want = malloc(MAX_TOKENS * row * sizeof *want);
        print_shape(text, sizeof text, &s);
        run(&b, x, 0, MAX_TOKENS, true, true);
        memcpy(want, b.y, MAX_TOKENS * row * sizeof *want);
        const uint64_t active = b.n_active;
        for (uint32_t i = 0; i < MAX_TOKENS * s.n_ff && !s.normed; i++)
            cr_expect(b.h[i] == 0.0f || fabsf(b.h[i]) >= s.h_least, "%s: %g is small", text, (double)b.h[i]);
        for (int how = 0; how < 3; how++) { /* all rows; skipped; skipped, from the neuron-major part */
            uint64_t one_by_one = 0;
            for (uint32_t t = 0; t < MAX_TOKENS; t++) {
                run(&b, x, t, 1, how > 0, how > 1);
                cr_expect_arr_eq(b.y, want + t * row, row * sizeof *want, "%s: token %u, way %d", text, t, how);
                one_by_one += b.n_active;
            }
            cr_expect_eq(one_by_one, active, "%s", text);
        }
        b.items[0].gate_least = b.items[0].h_least = 0;
        run(&b, x, 0, MAX_TOKENS, true, true);
        cr_expect(b.n_active >= active, "%s", text);
        cut += b.n_active > active;
        free(want);
        drop(&b);
    }
    cr_expect_gt(cut, 40);
    x->ops->close(x);
}

/* What contradicts itself is refused. */
Test(ops_sparse, refused)
{
    ht_exec *x = open_exec(1, ht_isa_best());
    block b = make((shape){ .type = HT_F32, .d_model = 40, .n_ff = 64, .n_items = 1, .gate = true, .masked = 50 }, 1);
    ht_op op = { .kind = HT_OP_FFN, .n_tok = 1 };
    ht_ffn_item it = b.items[0];

    op.ffn = (ht_op_ffn){ .items = &it,
                          .n_items = 1,
                          .n_ff = 64,
                          .d_model = 40,
                          .x = { .f = b.x, .stride = 40 },
                          .h = { .f = b.h, .stride = 64 },
                          .y = b.y,
                          .y_stride = 40,
                          .sparse = true,
                          .work = b.work };
    ht_event done;
    cr_expect_eq(x->ops->submit(x, &op, 1, &done), HT_OK);
    cr_expect_eq(x->ops->wait(x, done, NULL), HT_OK);
    op.ffn.mask = b.mask;
    op.ffn.mask_stride = 1;
    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL);
    op.ffn.mask = NULL;
    it.down_t.n = 32;
    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL);
    it.down_t.n = 64;
    it.down_t.layout = HT_LAYOUT_ROWS;
    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL);
    x->ops->close(x);
    drop(&b);
}
