/* SPDX-License-Identifier: MIT
 *
 * Feed-forward operations whose down projection lies in rows of neurons (HT_LAYOUT_COLUMNS) against the contract of
 * engine/base/exec.h written out: bit for bit, for many types and shapes, one token and several, with masks and without,
 * every level and number of threads. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "tests/cpu/check_dot_data.h"

enum { MAX_TOKENS = 70 };

typedef struct block {
    uint32_t d, n_ff;
    ht_ffn_item item;
    float *x, *h, *y, *want, *bias;
    uint32_t *mask;
    void *work;
    _Atomic uint64_t n_bytes;
} block;

static void *room(size_t n)
{
    void *p = aligned_alloc(64, (n + 127) / 64 * 64);
    memset(p, 0xff, (n + 127) / 64 * 64);
    return p;
}

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

static block make(ht_type type, uint32_t d, uint32_t n_ff, bool gate, uint64_t seed)
{
    block b = { .d = d, .n_ff = n_ff };
    const uint32_t words = (n_ff + 31) / 32;

    b.item.part[HT_ROLE_UP] = matrix(HT_F32, n_ff, d, &seed);
    if (gate)
        b.item.part[HT_ROLE_GATE] = matrix(HT_F32, n_ff, d, &seed);
    b.item.part[HT_ROLE_DOWN] = matrix(type, n_ff, d, &seed);
    b.item.part[HT_ROLE_DOWN].layout = HT_LAYOUT_COLUMNS;
    b.x = room(MAX_TOKENS * d * 4);
    b.h = room((size_t)MAX_TOKENS * n_ff * 4);
    b.y = room(MAX_TOKENS * d * 4);
    b.want = room(MAX_TOKENS * d * 4);
    b.bias = room(d * 4);
    b.work = room(ht_ffn_work_bytes(1, n_ff, d));
    b.mask = room((size_t)MAX_TOKENS * words * 4);
    for (uint32_t i = 0; i < MAX_TOKENS * d; i++)
        b.x[i] = rnd_float(&seed);
    for (uint32_t i = 0; i < d; i++)
        b.bias[i] = rnd_float(&seed);
    for (uint32_t i = 0; i < MAX_TOKENS * words; i++)
        b.mask[i] = (uint32_t)rnd(&seed) | 1u << rnd(&seed) % 32;
    return b;
}

static void drop(block *b)
{
    for (int r = 0; r < HT_N_ROLES; r++)
        free((void *)(uintptr_t)b->item.part[r].host);
    void *all[] = { b->x, b->h, b->y, b->want, b->bias, b->mask, b->work };
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

static ht_op operation(block *b, ht_ffn_item *it, uint32_t first, uint32_t n, bool sparse, bool masked)
{
    ht_op op = { .kind = HT_OP_FFN, .n_tok = n };

    *it = b->item;
    it->n_tokens = n;
    it->bias[HT_ROLE_DOWN] = b->bias;
    op.ffn = (ht_op_ffn){ .items = it,
                          .n_items = 1,
                          .n_ff = b->n_ff,
                          .d_model = b->d,
                          .x = { .f = b->x + (size_t)first * b->d, .stride = b->d },
                          .h = { .f = b->h, .stride = b->n_ff },
                          .act = HT_ACT_RELU,
                          .y = b->y,
                          .y_stride = b->d,
                          .n_bytes = &b->n_bytes,
                          .sparse = sparse,
                          .work = b->work };
    if (masked) {
        op.ffn.mask = b->mask + (size_t)first * ((b->n_ff + 31) / 32);
        op.ffn.mask_stride = (b->n_ff + 31) / 32;
    }
    return op;
}

static void run(block *b, ht_exec *x, uint32_t first, uint32_t n, bool sparse, bool masked)
{
    ht_ffn_item it;
    const ht_op op = operation(b, &it, first, n, sparse, masked);
    ht_event done;

    b->n_bytes = 0;
    memset(b->y, 0xff, (size_t)n * b->d * 4);
    cr_assert_eq(x->ops->submit(x, &op, 1, &done), HT_OK);
    cr_assert_eq(x->ops->wait(x, done, NULL), HT_OK);
}

/* The contract, from the h that was computed. */
static void by_contract(const block *b, uint32_t n, float *want)
{
    const ht_part *p = &b->item.part[HT_ROLE_DOWN];
    float *row = malloc(b->d * sizeof *row), *part = malloc(b->d * sizeof *part);

    for (uint32_t t = 0; t < n; t++) {
        float *y = want + (size_t)t * b->d;
        for (uint32_t s = 0; s < b->n_ff; s += HT_SEGMENT) {
            memset(part, 0, b->d * sizeof *part);
            for (uint32_t j = s; j < b->n_ff && j < s + HT_SEGMENT; j++) {
                const float h = b->h[(size_t)t * b->n_ff + j];
                if (h == 0.0f)
                    continue;
                ht_type_dequant((ht_type)p->type, (const uint8_t *)p->host + j * p->stride, b->d, row);
                for (uint32_t i = 0; i < b->d; i++)
                    part[i] = fmaf(h, row[i], part[i]);
            }
            for (uint32_t i = 0; i < b->d; i++)
                y[i] = s ? y[i] + part[i] : part[i];
        }
        for (uint32_t i = 0; i < b->d; i++)
            y[i] += b->bias[i];
    }
    free(row);
    free(part);
}

static const ht_type types[] = { HT_F32, HT_F16, HT_BF16, HT_Q4_0, HT_Q8_0, HT_Q5_0, HT_Q4_K, HT_Q6_K };

Test(ops_columns, contract, .timeout = 600)
{
    static const uint32_t threads[] = { 1, 2, 5 };
    ht_exec *x[3];
    uint64_t seed = 3;

    for (int i = 0; i < 3; i++)
        x[i] = open_exec(threads[i], ht_isa_best());
    for (int round = 0; round < 48; round++) {
        const ht_type type = types[round % 8];
        const uint32_t unit = ht_type_get(type)->block == 1 ? 1 : ht_type_get(type)->block;
        const uint32_t d = unit * (1 + (uint32_t)(rnd(&seed) % (600 / unit)));
        const uint32_t n_ff = 1 + (uint32_t)(rnd(&seed) % (round % 3 ? 300 : 4500));
        const bool masked = rnd(&seed) % 2;
        const uint32_t n = round % 4 == 0 ? MAX_TOKENS : 2 + (uint32_t)(rnd(&seed) % 6);
        block b = make(type, d, n_ff, rnd(&seed) % 2, seed);
        char text[100];
        snprintf(text, sizeof text, "%s d %u n_ff %u tokens %u%s", ht_type_name(type), d, n_ff, n, masked ? " masked" : "");
        run(&b, x[1], 0, n, true, masked);
        by_contract(&b, n, b.want);
        cr_expect_arr_eq(b.y, b.want, n * d * 4, "%s", text);
        for (int i = 0; i < 3; i++) {
            run(&b, x[i], 0, n, i == 1, masked);
            cr_expect_arr_eq(b.y, b.want, n * d * 4, "%s: %u threads", text, threads[i]);
            for (uint32_t t = 0; t < 2; t++)
                for (int sparse = 0; sparse < 2; sparse++) { /* rows of zeros are not read in either */
                    run(&b, x[i], t, 1, sparse, masked);
                    cr_expect_arr_eq(b.y, b.want + (size_t)t * d, d * 4, "%s: token %u, sparse %d, %u threads", text, t,
                                     sparse, threads[i]);
                    uint64_t active = 0;
                    for (uint32_t j = 0; j < n_ff; j++)
                        active += b.h[j] != 0.0f;
                    cr_expect(b.n_bytes >= active * b.item.part[HT_ROLE_DOWN].stride, "%s", text);
                    cr_expect(sparse || masked ||
                                  b.n_bytes == active * b.item.part[HT_ROLE_DOWN].stride +
                                                   (uint64_t)n_ff * d * 4 * (b.item.part[HT_ROLE_GATE].host ? 2 : 1),
                              "%s: %llu bytes", text, (unsigned long long)b.n_bytes);
                }
        }
        drop(&b);
    }
    for (int i = 0; i < 3; i++)
        x[i]->ops->close(x[i]);
}

Test(ops_columns, every_level)
{
    for (int t = 0; t < 8; t++) {
        block b = make(types[t], 512, 2100, true, (uint64_t)t);
        ht_exec *x = open_exec(1, HT_ISA_REF);
        run(&b, x, 0, 9, false, false);
        memcpy(b.want, b.y, 9 * 512 * 4);
        x->ops->close(x);
        for (ht_isa isa = HT_ISA_REF; isa < HT_N_ISA; isa++) {
            if (!ht_isa_runs(isa))
                continue;
            x = open_exec(2, isa);
            run(&b, x, 0, 9, true, false);
            cr_expect_arr_eq(b.y, b.want, 9 * 512 * 4, "%s at %s", ht_type_name(types[t]), ht_isa_name(isa));
            run(&b, x, 3, 1, true, false);
            cr_expect_arr_eq(b.y, b.want + 3 * 512, 512 * 4, "%s at %s", ht_type_name(types[t]), ht_isa_name(isa));
            x->ops->close(x);
        }
        drop(&b);
    }
}

/* A row that holds no numbers is nothing where its neuron is 0, alone and in a batch. */
Test(ops_columns, rows_that_are_no_numbers)
{
    block b = make(HT_F32, 64, 100, true, 9);
    ht_exec *x = open_exec(2, ht_isa_best());

    for (uint32_t j = 10; j < 20; j++) {
        float *row = (float *)(uintptr_t)b.item.part[HT_ROLE_DOWN].host + (size_t)j * 64;
        for (uint32_t i = 0; i < 64; i++)
            row[i] = i % 2 ? INFINITY : NAN;
        for (uint32_t t = 0; t < 8; t++)
            b.mask[t * 4] &= ~(1u << j); /* 100 neurons: four words each */
    }
    run(&b, x, 0, 8, true, true);
    by_contract(&b, 8, b.want);
    cr_expect_arr_eq(b.y, b.want, 8 * 64 * 4);
    for (uint32_t i = 0; i < 8 * 64; i++)
        cr_expect(isfinite(b.y[i]));
    for (uint32_t t = 0; t < 8; t++) {
        run(&b, x, t, 1, true, true);
        cr_expect_arr_eq(b.y, b.want + t * 64, 64 * 4);
    }
    x->ops->close(x);
    drop(&b);
}

Test(ops_columns, refused)
{
    block b = make(HT_F16, 40, 64, true, 1);
    ht_exec *x = open_exec(1, ht_isa_best());
    ht_ffn_item it;
    ht_op op = operation(&b, &it, 0, 1, true, false);
    const uint32_t tokens[1] = { 0 };

    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_OK);
    op.ffn.work = NULL;
    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL);
    op = operation(&b, &it, 0, 1, true, false);
    it.part[HT_ROLE_DOWN].n = 63;
    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL);
    op = operation(&b, &it, 0, 1, true, false);
    it.part[HT_ROLE_DOWN].k = 41;
    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL);
    op = operation(&b, &it, 0, 1, true, false);
    it.tokens = tokens;
    cr_expect_eq(x->ops->submit(x, &op, 1, NULL), HT_EINVAL);
    x->ops->close(x);
    drop(&b);
}
