/* SPDX-License-Identifier: MIT
 *
 * How experts lie in packed files: places, alignment, parts, orders. That a packed file computes as a plain one is in
 * tests/offline_profiler/test_pack.c. */
#include <criterion/criterion.h>

#include "engine/base/packed.h"

static bool shape(ht_packed *p, uint32_t gate, uint32_t up, uint32_t down, uint32_t n_ff, uint32_t d_model)
{
    const uint32_t type[HT_N_ROLES] = { gate, up, down };
    return ht_packed_shape(p, type, n_ff, d_model);
}

Test(packed, places)
{
    static const uint32_t downs[] = { HT_Q4_0, HT_Q8_0, HT_Q4_K, HT_Q6_K, HT_F16, HT_BF16, HT_F32 };
    ht_packed p;
    ht_neurons g;

    for (size_t i = 0; i < sizeof downs / sizeof *downs; i++)
        for (int gated = 0; gated < 2; gated++) {
            cr_assert(shape(&p, gated ? HT_Q5_0 : HT_PACKED_NONE, HT_Q5_0, downs[i], 512, 288));
            cr_expect_eq(p.gate_row, gated ? 198 : 0);
            cr_expect(p.scales_at % 64 == 0 && p.bundles_at % 64 == 0 && p.down_at % 64 == 0 && p.stride % 64 == 0);
            cr_expect(p.scales_at >= 512 * p.gate_row && p.down_at >= p.up_row);
            cr_expect_geq(p.bytes, p.bundles_at + 512 * p.stride);
            cr_expect_eq(p.bytes % ht_packed_align(&p), 0);
            static const uint8_t here[64] __attribute__((aligned(64)));
            const uint32_t order[16] = { 0 };
            const ht_part down = ht_packed_part(&p, HT_ROLE_DOWN, here, order);
            cr_assert(ht_neurons_of(&g, &down));
            cr_expect_eq((const uint8_t *)down.host + g.rows_at, here + p.bundles_at + p.down_at);
            cr_expect_eq(g.stride, p.stride);
            const ht_part up = ht_packed_part(&p, HT_ROLE_UP, here, order);
            cr_expect_eq((const uint8_t *)up.host, here + p.bundles_at);
            cr_expect_eq(up.stride, p.stride);
            cr_expect_eq(ht_packed_part(&p, HT_ROLE_GATE, here, order).host != NULL, gated);
        }
    cr_assert(shape(&p, HT_Q4_0, HT_Q4_0, HT_Q4_0, 32, 64)); /* small: no page of its own */
    cr_expect_eq(ht_packed_align(&p), 64);
    cr_assert(shape(&p, HT_Q4_0, HT_Q4_0, HT_Q4_0, 1024, 256));
    cr_expect_eq(ht_packed_align(&p), HT_PACKED_PAGE);
    cr_expect_eq(p.bytes % HT_PACKED_PAGE, 0);
}

Test(packed, what_cannot_be)
{
    ht_packed p;

    cr_expect_not(shape(&p, HT_Q4_0, HT_Q4_0, HT_Q3_K, 512, 256)); /* no neuron-major form */
    cr_expect_not(shape(&p, HT_Q4_0, HT_Q4_0, HT_Q4_K, 320, 256)); /* no whole blocks */
    cr_expect_not(shape(&p, HT_Q4_0, HT_Q4_0, HT_F16, 40, 256));   /* no whole groups */
    cr_expect_not(shape(&p, HT_Q4_0, HT_Q4_0, HT_Q4_0, 64, 40));   /* up rows of no whole blocks */
    cr_expect_not(shape(&p, 77, HT_Q4_0, HT_Q4_0, 64, 64));
    cr_expect_not(shape(&p, HT_Q4_0, 77, HT_Q4_0, 64, 64));
    cr_expect_not(shape(&p, HT_Q4_0, HT_Q4_0, 77, 64, 64));
    cr_expect_not(shape(&p, HT_Q4_0, HT_PACKED_NONE, HT_Q4_0, 64, 64));
}

Test(packed, orders)
{
    uint32_t order[16];
    uint8_t seen[16];
    ht_packed p;

    cr_assert(shape(&p, HT_PACKED_NONE, HT_F32, HT_F32, 512, 32));
    for (uint32_t i = 0; i < 16; i++)
        order[i] = 15 - i;
    cr_expect(ht_packed_order_good(&p, order, seen));
    order[3] = order[4];
    cr_expect_not(ht_packed_order_good(&p, order, seen)); /* twice */
    order[3] = 16;
    cr_expect_not(ht_packed_order_good(&p, order, seen)); /* beyond */
    cr_assert(shape(&p, HT_PACKED_NONE, HT_F32, HT_Q4_K, 512, 32));
    for (uint32_t i = 0; i < 16; i++)
        order[i] = (i + 8) % 16;
    cr_expect(ht_packed_order_good(&p, order, seen));
    for (uint32_t i = 0; i < 16; i++)
        order[i] = 15 - i;
    cr_expect_not(ht_packed_order_good(&p, order, seen)); /* 256 keep together */
    for (uint32_t i = 0; i < 16; i++)
        order[i] = (i + 4) % 16;
    cr_expect_not(ht_packed_order_good(&p, order, seen));
}
