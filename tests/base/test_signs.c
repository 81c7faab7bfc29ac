/* SPDX-License-Identifier: MIT
 * One-bit matrices: layout, activations, tables. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/signs.h"

static uint64_t seed = 7;

static float rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

/* The bit of a weight, from the layout as the header words it. */
static int bit_at(const uint8_t *signs, uint32_t k, uint32_t row, uint32_t col)
{
    size_t blocks = (k + 31) / 32, block = (row / 32 * blocks + col / 32) * 128;
    uint32_t c = col % 32;
    return signs[block + 32 * (c / 8) + row % 32] >> (c % 8 / 4 * 4 + c % 4) & 1;
}

Test(signs, packs_every_weight_where_the_layout_says)
{
    static const uint32_t sizes[][2] = { { 1, 1 }, { 31, 33 }, { 32, 32 }, { 65, 70 }, { 96, 256 } };
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t n = sizes[s][0], k = sizes[s][1];
        uint8_t *signs = calloc(1, ht_signs_bytes(n, k));
        float *w = malloc((size_t)n * k * sizeof *w);
        cr_assert_eq(ht_signs_bytes(n, k), (size_t)((n + 31) / 32) * ((k + 31) / 32) * 128);
        for (uint32_t i = 0; i < n * k; i++)
            w[i] = i % 7 ? rnd() : 0.0f; /* zero counts as positive */
        for (uint32_t r = n; r-- > 0;)
            ht_signs_set_row(signs, k, r, w + (size_t)r * k);
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t c = 0; c < k; c++)
                cr_assert_eq(bit_at(signs, k, r, c), w[r * k + c] >= 0.0f, "%ux%u: %u, %u", n, k, r, c);
        for (uint32_t r = n; r < (n + 31) / 32 * 32; r++)
            cr_assert_eq(bit_at(signs, k, r, 0), 0, "rows behind the last are empty");
        free(signs);
        free(w);
    }
}

Test(signs, activations_are_near_and_within_their_range)
{
    for (uint32_t k = 1; k < 300; k += 13) {
        float x[300];
        int8_t q[320];
        int16_t m[10];
        for (uint32_t i = 0; i < k; i++)
            x[i] = rnd() * (i / 32 % 2 ? 100.0f : 1.0f);
        float base = ht_signs_quantise(x, k, q, m);
        cr_assert_gt(base, 0.0f);
        for (uint32_t i = 0; i < (k + 31) / 32 * 32; i++) {
            cr_assert(q[i] >= -7 && q[i] <= 7 && m[i / 32] >= 1 && m[i / 32] <= 255);
            if (i >= k)
                cr_assert_eq(q[i], 0);
            else
                cr_assert_leq(fabsf(x[i] - base * m[i / 32] * q[i]), 0.51f * base * m[i / 32], "k %u: %u", k, i);
        }
    }
}

Test(signs, activations_that_are_no_numbers_score_nothing)
{
    const float odd[] = { NAN, INFINITY, -INFINITY, 0.0f, 1e-40f };
    for (size_t s = 0; s < sizeof odd / sizeof *odd; s++) {
        float x[64] = { 0 };
        int8_t q[64];
        int16_t m[2];
        x[3] = odd[s];
        cr_assert_eq(ht_signs_quantise(x, 64, q, m), 0.0f);
        for (int i = 0; i < 64; i++)
            cr_assert_eq(q[i], 0);
        cr_assert(m[0] == 1 && m[1] == 1);
    }
    float x[32] = { 1.0f, NAN, -1.0f };
    int8_t q[32];
    int16_t m[1];
    cr_assert_gt(ht_signs_quantise(x, 32, q, m), 0.0f);
    cr_assert(q[0] == 7 && q[2] == -7, "a NaN among numbers takes no part in their scale");
}

Test(signs, tables_hold_every_sum_of_four)
{
    int8_t q[64], table[2 * HT_SIGNS_TABLE];
    for (int i = 0; i < 64; i++)
        q[i] = (int8_t)(i * 5 % 15 - 7);
    q[0] = q[1] = q[2] = q[3] = -7;
    ht_signs_table(q, 2, table);
    for (int g = 0; g < 16; g++)
        for (int j = 0; j < 16; j++) {
            int want = 0;
            for (int i = 0; i < 4; i++)
                want += j >> i & 1 ? q[4 * g + i] : -q[4 * g + i];
            cr_assert_eq(table[16 * g + j], want, "group %d entry %d", g, j);
        }
}
