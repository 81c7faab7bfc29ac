/* SPDX-License-Identifier: MIT
 *
 * Every variant of the dot products against __ref, bit for bit: all types and levels of the lists, odd shapes,
 * unaligned rows, forbidden pages around every buffer, outputs filled with NaN. A failure names the variant, shape and
 * seed. */
#include <criterion/criterion.h>

#include "cpu/dot.h"
#include "tests/cpu/check_dot_data.h"

static const struct q8_case {
    ht_type type;
    ht_isa isa;
    ht_dot_q8_fn *fn;
    const char *name;
} q8_cases[] = {
#define HT_DOT_Q8(type, isa, fn) { HT_##type, HT_ISA_##isa, fn, #fn },
#include "cpu/dot_q8.inc"
#undef HT_DOT_Q8
};

static const struct f32_case {
    ht_type type;
    ht_isa isa;
    ht_dot_f32_fn *fn;
    const char *name;
} f32_cases[] = {
#define HT_DOT_F32(type, isa, fn) { HT_##type, HT_ISA_##isa, fn, #fn },
#include "cpu/dot_f32.inc"
#undef HT_DOT_F32
};

static ht_dot_q8_fn *ref_q8(ht_type type)
{
    for (size_t i = 0; i < sizeof q8_cases / sizeof *q8_cases; i++)
        if (q8_cases[i].type == type && q8_cases[i].isa == HT_ISA_REF)
            return q8_cases[i].fn;
    return NULL;
}

static ht_dot_f32_fn *ref_f32(ht_type type)
{
    for (size_t i = 0; i < sizeof f32_cases / sizeof *f32_cases; i++)
        if (f32_cases[i].type == type && f32_cases[i].isa == HT_ISA_REF)
            return f32_cases[i].fn;
    return NULL;
}

/* A list of n of the rows, in any order, some of them twice; NULL where list is 0 (all in order), the very list of all
 * where it is 1. The list ends at a forbidden page. */
static guard row_list(int list, uint32_t n, uint64_t seed)
{
    if (list == 0)
        return (guard){ 0 };
    guard g = guard_alloc(4 * n, true);
    for (uint32_t i = 0; i < n; i++)
        ((uint32_t *)g.p)[i] = list == 1 ? i : (uint32_t)(rnd(&seed) % n);
    return g;
}

static void list_free(guard *g)
{
    if (g->p)
        guard_free(g);
}

/* The rows of a list by one call are what calls of one row each give. */
static void one_by_one_q8(ht_dot_q8_fn *fn, float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n,
                          const ht_q8_row *x, uint32_t k)
{
    for (uint32_t i = 0; i < n; i++)
        fn(y + i, (const uint8_t *)w + (rows ? rows[i] : i) * stride, stride, NULL, 1, x, k);
}

static void one_by_one_f32(ht_dot_f32_fn *fn, float *y, const void *w, size_t stride, const uint32_t *rows, uint32_t n,
                           const float *x, uint32_t k)
{
    for (uint32_t i = 0; i < n; i++)
        fn(y + i, (const uint8_t *)w + (rows ? rows[i] : i) * stride, stride, NULL, 1, x, k);
}

/* One shape. Rows lie `pad` bytes further apart than they are long; the last ends at (or the first begins after) a
 * forbidden page. */
static bool same_q8(const struct q8_case *c, uint32_t n_rows, uint32_t k, size_t pad, bool at_end, int list,
                    uint64_t seed)
{
    const size_t row = ht_type_row_bytes(ht_type_get(c->type), k), stride = row + pad;
    guard w = guard_alloc(stride * n_rows - pad, at_end), q = guard_alloc(k, at_end),
          y = guard_alloc(4 * n_rows, at_end);
    guard d = guard_alloc(k / 32 * 4, at_end), s = guard_alloc(k / 16 * 2, at_end),
          want = guard_alloc(4 * n_rows, at_end);

    for (uint32_t i = 0; i < n_rows; i++)
        fill_weights(c->type, (uint8_t *)w.p + i * stride, k, &seed);
    fill_q8(q.p, d.p, s.p, k, &seed);
    const ht_q8_row x = { q.p, d.p, s.p };
    guard rows = row_list(list, n_rows, seed);
    one_by_one_q8(ref_q8(c->type), want.p, w.p, stride, rows.p, n_rows, &x, k);
    c->fn(y.p, w.p, stride, rows.p, n_rows, &x, k);
    bool same = !memcmp(y.p, want.p, 4 * n_rows);
    guard *all[] = { &w, &q, &y, &d, &s, &want };
    for (int i = 0; i < 6; i++)
        guard_free(all[i]);
    list_free(&rows);
    return same;
}

static bool same_f32(const struct f32_case *c, uint32_t n_rows, uint32_t k, size_t pad, bool at_end, int list,
                     uint64_t seed)
{
    const size_t row = ht_type_row_bytes(ht_type_get(c->type), k), stride = row + pad;
    guard w = guard_alloc(stride * n_rows - pad, at_end), x = guard_alloc(4 * k, at_end),
          y = guard_alloc(4 * n_rows, at_end);
    guard want = guard_alloc(4 * n_rows, at_end);

    for (uint32_t i = 0; i < n_rows; i++)
        fill_weights(c->type, (uint8_t *)w.p + i * stride, k, &seed);
    for (uint32_t i = 0; i < k; i++)
        ((float *)x.p)[i] = rnd_float(&seed) * (rnd(&seed) & 31 ? 1.0f : 0x1p-120f);
    guard rows = row_list(list, n_rows, seed);
    one_by_one_f32(ref_f32(c->type), want.p, w.p, stride, rows.p, n_rows, x.p, k);
    c->fn(y.p, w.p, stride, rows.p, n_rows, x.p, k);
    bool same = !memcmp(y.p, want.p, 4 * n_rows);
    guard *all[] = { &w, &x, &y, &want };
    for (int i = 0; i < 4; i++)
        guard_free(all[i]);
    list_free(&rows);
    return same;
}

static const uint32_t row_counts[] = { 1, 2, 3, 4, 5, 8, 17 }; /* each as a list too, see row_list */
enum { N_ROW_COUNTS = sizeof row_counts / sizeof *row_counts };

Test(check_dot, q8_every_variant_equals_ref, .timeout = 300)
{
    int n = 0;

    for (size_t i = 0; i < sizeof q8_cases / sizeof *q8_cases; i++) {
        const struct q8_case *c = &q8_cases[i];
        const uint32_t block = ht_type_get(c->type)->block;
        if (!ht_isa_runs(c->isa))
            continue;
        bool good = true;
        for (uint32_t m = 1; m <= (block == 32 ? 40 : 9) && good; m++)
            for (int r = 0; r < N_ROW_COUNTS && good; r++) {
                const uint64_t seed = 1000 * m + row_counts[r];
                const size_t pad = r % 2 ? 0 : 2 * (seed % 37);
                const int list = (int)((m + (uint32_t)r) % 5 % 3);
                good = same_q8(c, row_counts[r], block * m, pad, (m + (uint32_t)r) % 3 != 0, list, seed);
                cr_expect(good, "%s: rows %u (list %d), k %u, pad %zu, seed %llu differs from __ref", c->name,
                          row_counts[r], list, block * m, pad, (unsigned long long)seed);
                n++;
            }
    }
    cr_log_info("%d shapes up to %s", n, ht_isa_name(ht_isa_best()));
}

Test(check_dot, f32_every_variant_equals_ref, .timeout = 300)
{
    for (size_t i = 0; i < sizeof f32_cases / sizeof *f32_cases; i++) {
        const struct f32_case *c = &f32_cases[i];
        const uint32_t block = ht_type_get(c->type)->block;
        if (!ht_isa_runs(c->isa))
            continue;
        bool good = true;
        for (uint32_t m = 1; m <= (block == 1 ? 300 : block == 32 ? 20 : 5) && good; m++)
            for (int r = 0; r < N_ROW_COUNTS && good; r++) {
                const uint64_t seed = 1000 * m + row_counts[r];
                const size_t pad = r % 2 ? 0 : 2 * (seed % 37);
                const int list = (int)((m + (uint32_t)r) % 5 % 3);
                good = same_f32(c, row_counts[r], block * m, pad, (m + (uint32_t)r) % 3 != 0, list, seed);
                cr_expect(good, "%s: rows %u (list %d), k %u, pad %zu, seed %llu differs from __ref", c->name,
                          row_counts[r], list, block * m, pad, (unsigned long long)seed);
            }
    }
}

/* Every type has a variant at every level, and a level never picks one above itself. */
Test(check_dot, table_is_complete)
{
    for (ht_isa isa = HT_ISA_REF; isa < HT_N_ISA; isa++) {
        ht_kernels k;
        ht_kernels_init(&k, isa);
        for (uint32_t t = 0; t < HT_TYPE_MAX; t++) {
            const ht_type_info *info = ht_type_get(t);
            cr_expect_eq(k.dot_q8[t] != NULL, info && info->quantised, "type %u at %s", t, ht_isa_name(isa));
            cr_expect_eq(k.dot_f32[t] != NULL, info != NULL, "type %u at %s", t, ht_isa_name(isa));
        }
        for (size_t i = 0; i < sizeof q8_cases / sizeof *q8_cases; i++)
            cr_expect(k.dot_q8[q8_cases[i].type] != q8_cases[i].fn || ht_isa_has(isa, q8_cases[i].isa), "%s at %s",
                      q8_cases[i].name, ht_isa_name(isa));
        cr_expect_not_null(k.gemm_q8);
        cr_expect_not_null(k.gemm_f32);
    }
}
