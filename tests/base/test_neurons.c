/* SPDX-License-Identifier: MIT
 *
 * The neuron-major form of down projections: its inverse gives the same bytes for random blocks of every type and odd
 * shapes, by ranges too; a scale or weight that is no number is found. That products agree is in tests/cpu. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/neurons.h"

static const ht_type types[] = { HT_Q4_0, HT_Q8_0, HT_Q4_K, HT_Q6_K, HT_F16, HT_BF16, HT_F32 };
enum { N_TYPES = sizeof types / sizeof *types };
static const uint32_t outputs[] = { 1, 7, 64, 128, 129, 300 };
enum { N_OUTPUTS = sizeof outputs / sizeof *outputs };

static uint32_t rnd(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*s >> 33);
}

/* Any bytes: the form must not care what they mean. Rows lie 6 bytes further apart than they are long. */
static bool there_and_back(ht_type type, uint32_t n_ff, uint32_t d_model, bool bundled)
{
    const size_t row = ht_type_row_bytes(ht_type_get(type), n_ff), stride = row + 6;
    uint8_t *rows = malloc(stride * d_model), *back = malloc(stride * d_model);
    uint64_t seed = n_ff * 1000 + d_model;
    ht_neurons g;

    cr_assert(ht_neurons_shape(&g, type, n_ff, d_model));
    cr_expect(g.stride % 64 == 0 && g.rows_at % 64 == 0 && g.sc_at % 64 == 0);
    cr_expect(g.rows_at + n_ff * g.stride == g.bytes && g.row_bytes <= g.stride);
    uint32_t order[256];
    if (bundled) {
        const ht_type_info *t = ht_type_get(type);
        const uint32_t at_once = t->block == 256 ? 8 : 1, n = n_ff / 32 / at_once;
        ht_part part = { .layout = HT_LAYOUT_NEURONS, .type = type, .n = n_ff, .k = d_model };
        for (uint32_t i = 0; i < n_ff / 32; i++)
            order[i] = (n - 1 - i / at_once) * at_once + i % at_once;
        part.stride = g.stride + 64;
        part.rows_at = g.rows_at + 128;
        part.order = n_ff % 32 ? NULL : order;
        cr_assert(ht_neurons_of(&g, &part));
        cr_expect_eq(g.bytes, 0);
        g.bytes = g.rows_at + n_ff * g.stride;
    }
    uint8_t *form = aligned_alloc(64, g.bytes);
    for (size_t i = 0; i < stride * d_model; i++)
        rows[i] = (uint8_t)rnd(&seed);
    memset(form, 0x5a, g.bytes);
    memcpy(back, rows, stride * d_model);
    const uint32_t cut = d_model > 128 ? 128 : d_model;
    ht_neurons_from_rows(&g, rows, stride, cut, d_model - cut, form);
    ht_neurons_from_rows(&g, rows, stride, 0, cut, form);
    for (uint32_t r = 0; r < d_model; r++)
        memset(back + r * stride, 0xa5, row);
    ht_neurons_to_rows(&g, form, 0, cut, back, stride);
    ht_neurons_to_rows(&g, form, cut, d_model - cut, back + cut * stride, stride);
    bool same = !memcmp(rows, back, stride * d_model);
    const uint32_t from = ht_type_get(type)->block == 256 ? 256 : 32;
    if (n_ff > from) { /* the neurons behind the first block, as a form of their own */
        const ht_neurons part = ht_neurons_range(&g, from, n_ff - from);
        const size_t at = ht_type_row_bytes(ht_type_get(type), from);
        for (uint32_t r = 0; r < d_model; r++)
            memset(back + r * stride + at, 0xa5, row - at);
        ht_neurons_to_rows(&part, form, 0, d_model, back + at, stride);
        same &= !memcmp(rows, back, stride * d_model);
    }
    free(rows);
    free(back);
    free(form);
    return same;
}

Test(neurons, inverse_gives_the_same_bytes)
{
    for (int t = 0; t < N_TYPES; t++)
        for (uint32_t m = 1; m <= 20; m += m < 4 ? 1 : 8)
            for (int o = 0; o < N_OUTPUTS; o++) {
                const uint32_t n_ff = m * (ht_type_get(types[t])->block == 1 ? 37 : ht_type_get(types[t])->block);
                for (int bundled = 0; bundled < 2; bundled++)
                    cr_expect(there_and_back(types[t], n_ff, outputs[o], bundled), "%s: %u neurons, %u outputs, %d",
                              ht_type_name(types[t]), n_ff, outputs[o], bundled);
            }
}

/* One scale, or one weight of a float type, is infinite or not a number. */
Test(neurons, what_is_no_number_is_found)
{
    static const struct {
        ht_type type;
        size_t at;
        uint8_t value;
    } cases[] = {
        { HT_Q4_0, 1, 0x7c },   { HT_Q4_0, 1, 0xfe }, { HT_Q8_0, 1, 0x7d }, { HT_Q4_K, 1, 0xfc }, { HT_Q4_K, 3, 0x7c },
        { HT_Q6_K, 209, 0x7f }, { HT_F16, 1, 0x7c },  { HT_BF16, 1, 0x7f }, { HT_F32, 3, 0xff },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const ht_type_info *t = ht_type_get(cases[c].type);
        const uint32_t n_ff = 768, d_model = 200;
        const size_t stride = ht_type_row_bytes(t, n_ff);
        uint8_t *rows = calloc(d_model, stride);
        ht_neurons g;
        cr_assert(ht_neurons_shape(&g, cases[c].type, n_ff, d_model));
        uint8_t *form = aligned_alloc(64, g.bytes);
        cr_expect(ht_neurons_from_rows(&g, rows, stride, 0, d_model, form));
        uint8_t *block = rows + 131 * stride + ht_type_row_bytes(t, 256);
        block[cases[c].at] = cases[c].value;
        block[cases[c].at - 1] = 0x80;
        cr_expect_not(ht_neurons_from_rows(&g, rows, stride, 128, 72, form), "case %zu", c);
        cr_expect(ht_neurons_from_rows(&g, rows, stride, 0, 128, form));
        block[cases[c].at] = 0x7b; /* the largest halves are numbers */
        cr_expect(ht_neurons_from_rows(&g, rows, stride, 128, 72, form));
        free(rows);
        free(form);
    }
}

/* Parts that contradict themselves. */
Test(neurons, parts_are_checked)
{
    static const uint8_t bytes[128] __attribute__((aligned(64)));
    const ht_part good = { .layout = HT_LAYOUT_NEURONS, .type = HT_Q4_0, .n = 64, .k = 128, .host = bytes };
    ht_neurons g;

    ht_part p = good;
    cr_expect(ht_neurons_of(&g, &p) && g.stride == 64 && g.rows_at == 512);
    p.stride = 128;
    p.rows_at = 576;
    cr_expect(ht_neurons_of(&g, &p) && g.stride == 128 && g.rows_at == 576);
    p.stride = 32;
    cr_expect_not(ht_neurons_of(&g, &p));
    p.stride = 96;
    cr_expect_not(ht_neurons_of(&g, &p));
    p.stride = 64;
    p.rows_at = 448;
    cr_expect_not(ht_neurons_of(&g, &p));
    p = good;
    p.layout = HT_LAYOUT_ROWS;
    cr_expect_not(ht_neurons_of(&g, &p));
    p = good;
    p.host = bytes + 32;
    cr_expect_not(ht_neurons_of(&g, &p));
}

Test(neurons, types_and_shapes_without_the_form)
{
    ht_neurons g;
    cr_expect_not(ht_neurons_shape(&g, HT_Q3_K, 256, 64));
    cr_expect_not(ht_neurons_shape(&g, HT_Q4_K, 128, 64));
    cr_expect_not(ht_neurons_shape(&g, HT_Q4_0, 0, 64));
    cr_expect_not(ht_neurons_shape(&g, (ht_type)63, 256, 64));
}
