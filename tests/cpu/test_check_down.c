/* SPDX-License-Identifier: MIT
 *
 * Every variant of the neuron-major down projections, __ref too, against the plain dot product of the file's rows with
 * h, zeros included: all types of the list, segments and slices, numbers of active neurons from none to all, forbidden
 * pages around what may be read. A failure names the variant, shape and seed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/dot.h"
#include "cpu/down.h"
#include "tests/cpu/check_dot_data.h"

static const struct down_case {
    ht_type type;
    ht_isa isa;
    ht_down_fn *fn;
    const char *name;
} cases[] = {
#define HT_DOWN(type, isa, fn) { HT_##type, HT_ISA_##isa, fn, #fn },
#include "cpu/down.inc"
#undef HT_DOWN
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* An expert: rows as in the file, and neuron-major where the last byte is followed by a forbidden page. */
typedef struct expert {
    ht_neurons g;
    uint8_t *rows;
    size_t stride;
    guard form;
    uint32_t *order; /* of its groups, or NULL */
    /* one token's h */
    float *h, *d;
    int8_t *q;
    int16_t *sums;
} expert;

/* As a packed file has it: rows in bundles, groups in another order. */
static void pack(expert *e)
{
    const uint32_t n = e->g.n_ff / 32, at_once = ht_type_get(e->g.type)->block == 256 ? 8 : 1;

    e->g.stride += 192;
    e->g.rows_at += 64;
    e->g.bytes = e->g.rows_at + e->g.n_ff * e->g.stride;
    if (e->g.n_ff % 32)
        return;
    e->order = malloc(n * sizeof *e->order);
    for (uint32_t i = 0; i < n; i++) /* the last first */
        e->order[i] = (n / at_once - 1 - i / at_once) * at_once + i % at_once;
    e->g.order = e->order;
}

static expert make(ht_type type, uint32_t n_ff, uint32_t d_model, uint64_t seed)
{
    expert e = { .stride = ht_type_row_bytes(ht_type_get(type), n_ff) };
    cr_assert(ht_neurons_shape(&e.g, type, n_ff, d_model));
    if (seed % 2)
        pack(&e);
    e.rows = malloc(e.stride * d_model);
    for (uint32_t i = 0; i < d_model; i++)
        fill_weights(type, e.rows + i * e.stride, n_ff, &seed);
    e.form = guard_alloc(e.g.bytes, true);
    cr_assert(ht_neurons_from_rows(&e.g, e.rows, e.stride, 0, d_model, e.form.p));
    e.h = malloc((n_ff + 32) * sizeof *e.h);
    e.d = malloc((n_ff / 32 + 1) * sizeof *e.d);
    e.q = malloc(n_ff + 32);
    e.sums = malloc((n_ff / 16 + 2) * sizeof *e.sums);
    return e;
}

static void drop(expert *e)
{
    guard_free(&e->form);
    free(e->rows);
    free(e->order);
    free(e->h);
    free(e->d);
    free(e->q);
    free(e->sums);
}

/* h with `active` of 1000 neurons, more in some blocks than in others. */
static void fill_h(expert *e, uint32_t active, uint64_t seed)
{
    const uint32_t n = e->g.n_ff;

    fill_q8(e->q, e->d, e->sums, n / 32 * 32, &seed);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t here = active % 1000 == 0 ? active : active * (i / 32 % 3);
        const bool on = rnd(&seed) % 1000 < here;
        e->h[i] = on ? rnd_float(&seed) : 0.0f;
        if (!on)
            e->q[i] = 0;
    }
    for (uint32_t b = 0; b < n / 16; b++) {
        int sum = 0;
        for (uint32_t i = 0; i < 16; i++)
            sum += e->q[16 * b + i];
        e->sums[b] = (int16_t)sum;
    }
}

static bool same(const struct down_case *c, expert *e, uint32_t segment, uint32_t first, uint32_t n, uint64_t seed)
{
    const ht_type_info *t = ht_type_get(e->g.type);
    const uint32_t k = e->g.n_ff - segment < HT_SEGMENT ? e->g.n_ff - segment : HT_SEGMENT;
    const uint32_t wide = (n + HT_NEURONS_TILE - 1) / HT_NEURONS_TILE * HT_NEURONS_TILE;
    guard y = guard_alloc(wide * 4, true), scratch = guard_alloc(ht_down_scratch_floats() * 4, true);
    guard list = guard_alloc(k * 4, true), tight = { 0 };
    float *want = malloc(n * sizeof *want);
    const uint8_t *rows = e->rows + first * e->stride + ht_type_row_bytes(t, segment);
    ht_down_slice s = { .g = &e->g, .w = e->form.p, .first = first, .n = n, .segment = segment, .scratch = scratch.p };
    uint32_t *to = list.p;

    s.q8 = (ht_q8_row){ e->q + segment, e->d + segment / 32, e->sums + segment / 16 };
    s.h = e->h + segment;
    for (uint32_t i = 0; i < k; i++) /* now and then one that is not needed */
        if ((t->quantised ? e->q[segment + i] != 0 : e->h[segment + i] != 0.0f) || rnd(&seed) % 64 == 0)
            to[s.n_list++] = segment + i;
    tight = guard_alloc(s.n_list * 4, true);
    memcpy(tight.p, list.p, s.n_list * 4);
    s.list = tight.p;
    ht_kernels ref;
    ht_kernels_init(&ref, HT_ISA_REF);
    if (t->quantised)
        ref.dot_q8[e->g.type](want, rows, e->stride, NULL, n, &s.q8, k);
    else
        ref.dot_f32[e->g.type](want, rows, e->stride, NULL, n, s.h, k);
    c->fn(y.p, &s);
    bool good = true;
    for (uint32_t i = 0; i < n; i++) /* a sum of nothing but underflows may be -0 where zeros after it make it +0 */
        good &=
            !memcmp((float *)y.p + i, want + i, 4) || (((float *)y.p)[i] == 0.0f && want[i] == 0.0f && !t->quantised);
    free(want);
    guard_free(&y);
    guard_free(&scratch);
    guard_free(&list);
    guard_free(&tight);
    return good;
}

Test(check_down, every_variant_equals_the_dense_product, .timeout = 300)
{
    static const uint32_t actives[] = { 0, 1, 30, 100, 500, 1000 };
    static const uint32_t outputs[] = { 40, 128, 330 };

    for (size_t i = 0; i < N_CASES; i++) {
        const struct down_case *c = &cases[i];
        const uint32_t block = ht_type_get(c->type)->block;
        if (!ht_isa_runs(c->isa))
            continue;
        for (size_t a = 0; a < sizeof actives / sizeof *actives; a++) {
            const uint32_t d_model = outputs[a / 2], n_ff = a < 2 ? 512 : block == 1 ? 2048 + 331 : 2048 + 512;
            expert e = make(c->type, n_ff, d_model, 100 * i + a);
            bool good = true;
            for (uint32_t round = 0; round < 3 && good; round++) {
                const uint32_t first = d_model > 128 ? round * 128 : 0, n = round ? d_model - first : d_model;
                const uint32_t segment = round % 2 && n_ff > HT_SEGMENT ? HT_SEGMENT : 0;
                fill_h(&e, actives[a], 7 * a + round);
                good = same(c, &e, segment, first, n, a + round);
                cr_expect(good, "%s: %u neurons, outputs %u + %u of %u, segment at %u, %u of 1000 active", c->name,
                          n_ff, first, n, d_model, segment, actives[a]);
            }
            drop(&e);
        }
    }
}

/* Sums that a kernel keeps in few bits: the largest weights and h there are, every neuron active. */
Test(check_down, extremes)
{
    static const uint8_t bytes[] = { 0x00, 0xff, 0x80, 0x7f, 0x08 };
    for (size_t i = 0; i < N_CASES; i++) {
        const struct down_case *c = &cases[i];
        const ht_type_info *t = ht_type_get(c->type);
        if (!ht_isa_runs(c->isa) || !t->quantised)
            continue;
        expert e = make(c->type, 512, 130, i);
        for (size_t b = 0; b < sizeof bytes * 2; b++) {
            for (size_t at = 0; at < e.stride * 130; at += t->block_bytes)
                for (uint32_t j = 0; j < t->block_bytes; j++)
                    e.rows[at + j] = bytes[b / 2];
            for (size_t at = 0; at < e.stride * 130; at += t->block_bytes) {
                int d[2];
                scale_offsets(c->type, d);
                for (int j = 0; j < 2; j++)
                    if (d[j] >= 0)
                        memcpy(e.rows + at + d[j], "\x00\x3c", 2);
            }
            cr_assert(ht_neurons_from_rows(&e.g, e.rows, e.stride, 0, 130, e.form.p));
            for (uint32_t j = 0; j < 512; j++)
                e.q[j] = b % 2 ? 127 : -127;
            for (uint32_t j = 0; j < 32; j++)
                e.sums[j] = b % 2 ? 127 * 16 : -127 * 16;
            for (uint32_t j = 0; j < 16; j++)
                e.d[j] = 0.5f;
            cr_expect(same(c, &e, 0, 0, 130, b), "%s: bytes %02x, h %d", c->name, bytes[b / 2], b % 2 ? 127 : -127);
        }
        drop(&e);
    }
}

/* Every type with a neuron-major form has a variant at every level, no other type has one. */
Test(check_down, table_is_complete)
{
    for (ht_isa isa = HT_ISA_REF; isa < HT_N_ISA; isa++) {
        ht_kernels k;
        ht_kernels_init(&k, isa);
        for (uint32_t t = 0; t < HT_TYPE_MAX; t++) {
            ht_neurons g;
            cr_expect_eq(k.down[t] != NULL, ht_neurons_shape(&g, (ht_type)t, 256, 128), "type %u at %s", t,
                         ht_isa_name(isa));
        }
    }
}
