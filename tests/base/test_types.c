/* SPDX-License-Identifier: MIT
 *
 * Number formats: names, geometry, 16-bit floats, and unpacking, bit for bit against the reference's values. The
 * rows are in tests/data/quant/quant.gguf (see make.py beside it); where ../shared is there, values are compared one
 * by one as well. Quantisers: test_types_quantise.c. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/gguf.h"
#include "tests/support/npy.h"

static const uint32_t ids[] = {
#define X(name, id, n, bytes) id,
    HT_TYPE_LIST(X)
#undef X
};
enum { N_IDS = sizeof ids / sizeof *ids };

static uint64_t fnv(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static ht_gguf *open_golden(void)
{
    ht_gguf *g;
    ht_error err;
    cr_assert_eq(ht_gguf_open(&g, HEARTH_TEST_DATA "/quant/quant.gguf", &err), HT_OK, "%s", err.text);
    return g;
}

/* ---- names and geometry ------------------------------------------------------------------------------------------ */

Test(types, the_table_agrees_with_the_list)
{
    static const struct { const char *name; uint32_t id, block, bytes; } list[] = {
#define X(name, id, n, bytes) { #name, id, n, bytes },
        HT_TYPE_LIST(X)
#undef X
    };
    for (size_t i = 0; i < N_IDS; i++) {
        const ht_type_info *t = ht_type_get(list[i].id);
        uint32_t block, bytes;
        cr_assert_not_null(t, "%s", list[i].name);
        cr_expect_str_eq(t->name, list[i].name);
        cr_expect_str_eq(ht_type_name(list[i].id), list[i].name);
        cr_expect_eq(t->block, list[i].block, "%s", t->name);
        cr_expect_eq(t->block_bytes, list[i].bytes, "%s", t->name);
        cr_expect_eq(t->quantised, t->block > 1, "%s", t->name);
        cr_expect(ht_type_geometry(list[i].id, &block, &bytes) && block == t->block && bytes == t->block_bytes, "%s",
                  t->name);
        cr_expect_eq(ht_type_by_name(t->name), (int)list[i].id, "%s", t->name);
    }
}

Test(types, names_are_found_in_any_case)
{
    cr_expect_eq(ht_type_by_name("q4_k"), HT_Q4_K);
    cr_expect_eq(ht_type_by_name("Iq2_xXs"), HT_IQ2_XXS);
    cr_expect_eq(ht_type_by_name(""), -1);
    cr_expect_eq(ht_type_by_name("q4"), -1);
    cr_expect_eq(ht_type_by_name("q4_k_m"), -1);
    cr_expect_eq(ht_type_by_name("i32"), -1); /* exists, but is not computed with */
}

Test(types, ids_of_strangers)
{
    static const uint32_t unused[] = { 4, 5, 31, 32, 33, 37, 38, 43, 63, 64, 255, 0x7fffffff, 0xffffffff };
    uint32_t block, bytes;

    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) {
        cr_expect_null(ht_type_get(unused[i]), "%u", unused[i]);
        cr_expect_not(ht_type_exists(unused[i]), "%u", unused[i]);
        cr_expect_not(ht_type_geometry(unused[i], &block, &bytes), "%u", unused[i]);
        cr_expect_str_eq(ht_type_name(unused[i]), "unknown");
    }
    cr_expect_str_eq(ht_type_name(9), "Q8_1");
    cr_expect_str_eq(ht_type_name(26), "I32");
    cr_expect_str_eq(ht_type_name(36), "I2_S");
    cr_expect_str_eq(ht_type_name(40), "NVFP4");
    cr_expect_null(ht_type_get(26));
    cr_expect(ht_type_geometry(28, &block, &bytes) && block == 1 && bytes == 8);
    cr_expect(ht_type_exists(36) && !ht_type_geometry(36, &block, &bytes));
}

/* ---- 16-bit floats ----------------------------------------------------------------------------------------------- */

/* The value by definition, in double. */
static double f16_value(uint32_t h)
{
    int e = (int)(h >> 10 & 31);
    double m = h & 1023, v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

Test(types, every_f16_widens_exactly_and_comes_back)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = ht_f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            cr_assert(h & 0x3ff ? isnan(f) : f == (h >> 15 ? -INFINITY : INFINITY));
            cr_assert(h & 0x3ff ? isnan(ht_f16_to_f32(ht_f32_to_f16(f))) : ht_f32_to_f16(f) == h);
        } else {
            cr_assert_eq((double)f, f16_value(h), "%04x", h);
            cr_assert_eq(ht_f32_to_f16(f), h, "%04x", h);
        }
    }
}

Test(types, f32_rounds_to_the_nearest_f16_ties_to_even)
{
    for (uint32_t h = 0; h < 0x7bff; h++) { /* between each two neighbours: below, at and above the middle */
        float a = (float)f16_value(h), b = (float)f16_value(h + 1), middle = (a + b) / 2; /* exact in float32 */
        cr_assert_eq(ht_f32_to_f16(nextafterf(middle, 0)), h, "%04x", h);
        cr_assert_eq(ht_f32_to_f16(middle), h + (h & 1), "%04x", h);
        cr_assert_eq(ht_f32_to_f16(nextafterf(middle, 1e9f)), h + 1, "%04x", h);
        cr_assert_eq(ht_f32_to_f16(-middle), 0x8000 | (h + (h & 1)), "%04x", h);
    }
    cr_expect_eq(ht_f32_to_f16(65519.996f), 0x7bff);
    cr_expect_eq(ht_f32_to_f16(65520.0f), 0x7c00);
    cr_expect_eq(ht_f32_to_f16(-1e30f), 0xfc00);
    cr_expect_eq(ht_f32_to_f16(float_of(1)), 0);
    cr_expect_eq(ht_f32_to_f16(-0.0f), 0x8000);
    cr_expect_eq(ht_f32_to_f16(0x1p-25f), 0);
}

Test(types, bf16_both_ways)
{
    for (uint32_t h = 0; h < 65536; h++)
        cr_assert_eq(bits_of(ht_bf16_to_f32((uint16_t)h)), h << 16);
    static const uint32_t in[] = { 0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x7f7fffff, 0x7f800001, 0xff800000 };
    static const uint16_t out[] = { 0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x7f80, 0x7fc0, 0xff80 };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        float f = float_of(in[i]);
        uint16_t h;
        ht_type_quantise(HT_BF16, &f, 1, &h);
        cr_expect_eq(h, out[i], "%08x: %04x", in[i], h);
    }
}

/* ---- unpacking --------------------------------------------------------------------------------------------------- */

Test(types, dequantised_rows_are_bit_exact)
{
    ht_gguf *g = open_golden();
    float y[512];

    for (size_t i = 0; i < N_IDS; i++) {
        const ht_type_info *t = ht_type_get(ids[i]);
        char key[40];
        if (ids[i] == HT_F32)
            continue;
        snprintf(key, sizeof key, "rows.%s", t->name);
        const ht_tensor *w = ht_gguf_find_tensor(g, t->name);
        const ht_kv *rows = ht_gguf_find(g, key);
        cr_assert(w && rows && rows->n == w->ne[1] && w->ne[0] == 512 && w->type == ids[i], "%s", t->name);
        for (uint64_t r = 0; r < w->ne[1]; r++) {
            uint64_t want;
            memcpy(&want, rows->data + 8 * r, 8);
            ht_type_dequant((ht_type)ids[i], (const uint8_t *)w->data + r * ht_type_row_bytes(t, 512), 512, y);
            cr_expect_eq(fnv(y, sizeof y), want, "%s row %d differs from the reference", t->name, (int)r);
        }
    }
    ht_gguf_close(&g);
}

Test(types, dequantised_values_against_shared)
{
    ht_gguf *g = open_golden();
    int seen = 0;

    for (size_t i = 0; i < N_IDS; i++) {
        const ht_type_info *t = ht_type_get(ids[i]);
        const ht_tensor *w = ht_gguf_find_tensor(g, t->name);
        char path[4096];
        float *want, *y;
        uint64_t shape[2];
        snprintf(path, sizeof path, "%s/golden/quant/%s.npy", HEARTH_SHARED_DIR, t->name);
        if (!w || ht_npy_read_f32(&want, shape, path, NULL) != HT_OK)
            continue;
        y = malloc(shape[0] * shape[1] * sizeof *y);
        ht_type_dequant((ht_type)ids[i], w->data, shape[0] * shape[1], y);
        for (uint64_t j = 0; j < shape[0] * shape[1]; j++)
            cr_assert_eq(bits_of(y[j]), bits_of(want[j]), "%s element %d: %a, the reference has %a", t->name, (int)j,
                         (double)y[j], (double)want[j]);
        free(y);
        free(want);
        seen++;
    }
    ht_gguf_close(&g);
    if (seen == 0)
        cr_skip("no golden/quant in " HEARTH_SHARED_DIR);
}

static void canon_values(const ht_canon *c, uint64_t k, bool has_min, float *y)
{
    for (uint64_t i = 0; i < k; i++) {
        volatile float s = c->d[i / 32] * (float)c->sc[i / 16]; /* each step rounded by itself */
        volatile float v = s * (float)c->q[i];
        if (has_min) {
            volatile float m = c->dm[i / 32] * (float)c->mn[i / 16];
            v = v + m;
        }
        y[i] = v;
    }
}

/* Any bytes are valid blocks: random ones reach every grid entry, sign and scale. The source is misaligned on
 * purpose. */
Test(types, the_canonical_form_of_random_bytes_gives_the_dequantised_values)
{
    enum { K = 4096 };
    static uint8_t bytes[K * 2 + 1];
    static int8_t q[K + 1];
    static int16_t sc[K / 16 + 1], mn[K / 16 + 1];
    static float d[K / 32 + 1], dm[K / 32 + 1], y[K + 1], z[K];
    ht_canon c = { q, sc, mn, d, dm };
    uint32_t seed = 12345;

    for (size_t i = 0; i < N_IDS; i++) {
        const ht_type_info *t = ht_type_get(ids[i]);
        if (!t->quantised)
            continue;
        for (size_t j = 0; j < sizeof bytes; j++) {
            seed = seed * 1664525 + 1013904223;
            bytes[j] = (uint8_t)(seed >> 24);
        }
        q[K] = 77;
        sc[K / 16] = mn[K / 16] = 7777;
        d[K / 32] = dm[K / 32] = y[K] = 77.0f;
        ht_type_unpack((ht_type)ids[i], bytes + 1, K, &c);
        ht_type_dequant((ht_type)ids[i], bytes + 1, K, y);
        cr_assert(q[K] == 77 && sc[K / 16] == 7777 && mn[K / 16] == 7777 && d[K / 32] == 77.0f &&
                  dm[K / 32] == 77.0f && y[K] == 77.0f, "%s writes beyond its end", t->name);
        canon_values(&c, K, t->has_min, z);
        for (int j = 0; j < K; j++)
            cr_assert((isnan(y[j]) && isnan(z[j])) || bits_of(y[j]) == bits_of(z[j]), "%s element %d", t->name, j);
        for (int j = 0; !t->half_scales && j < K / 32; j++)
            cr_assert(sc[2 * j] == sc[2 * j + 1] && (!t->has_min || mn[2 * j] == mn[2 * j + 1]),
                      "%s block %d has two scales", t->name, j);
    }
}

Test(types, single_blocks_agree_with_longer_runs)
{
    ht_gguf *g = open_golden();
    static float whole[4096], part[256];

    for (size_t i = 0; i < N_IDS; i++) {
        const ht_type_info *t = ht_type_get(ids[i]);
        const ht_tensor *w = ht_gguf_find_tensor(g, t->name);
        if (!w)
            continue;
        ht_type_dequant((ht_type)ids[i], w->data, 4096, whole);
        for (uint64_t at = 0; at < 4096; at += t->block) {
            ht_type_dequant((ht_type)ids[i], (const uint8_t *)w->data + at / t->block * t->block_bytes, t->block, part);
            cr_assert_eq(memcmp(part, whole + at, t->block * sizeof(float)), 0, "%s at %d", t->name, (int)at);
        }
    }
    ht_gguf_close(&g);
}

Test(types, decoding_of_types_that_are_not_computed_with)
{
    static const int8_t i8[] = { -128, 127 };
    static const int16_t i16[] = { -32768, 5 };
    static const int32_t i32[] = { INT32_MIN, 16777217 };
    static const int64_t i64[] = { INT64_MIN, 3 };
    static const double f64[] = { 0.1, -1e300 };
    uint8_t bytes[64];
    float y[2];
    static const struct { uint32_t id; const void *src; size_t n; float want[2]; } cases[] = {
        { 24, i8, sizeof i8, { -128, 127 } },         { 25, i16, sizeof i16, { -32768, 5 } },
        { 26, i32, sizeof i32, { -0x1p31f, 0x1p24f } }, { 27, i64, sizeof i64, { -0x1p63f, 3 } },
        { 28, f64, sizeof f64, { 0.1f, -INFINITY } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(bytes + 1, cases[i].src, cases[i].n);
        cr_expect(ht_type_decode(cases[i].id, bytes + 1, 2, y));
        cr_expect(y[0] == cases[i].want[0] && y[1] == cases[i].want[1], "%u: %g %g", cases[i].id, (double)y[0],
                  (double)y[1]);
    }
    cr_expect_not(ht_type_decode(36, bytes, 2, y));
    cr_expect_not(ht_type_decode(15, bytes, 256, y));
    cr_expect(ht_type_decode(HT_F32, y, 1, y + 1) && y[0] == y[1]);

    ht_gguf *g;
    float *want, *got;
    uint64_t shape[2];
    if (ht_gguf_open(&g, HEARTH_SHARED_DIR "/golden/quant/NVFP4.gguf", NULL) != HT_OK)
        cr_skip("no golden/quant/NVFP4.gguf in " HEARTH_SHARED_DIR);
    cr_assert_eq(ht_npy_read_f32(&want, shape, HEARTH_SHARED_DIR "/golden/quant/NVFP4.npy", NULL), HT_OK);
    got = malloc(shape[0] * shape[1] * sizeof *got);
    cr_assert(ht_type_decode(40, ht_gguf_tensor_at(g, 0)->data, shape[0] * shape[1], got));
    for (uint64_t j = 0; j < shape[0] * shape[1]; j++)
        cr_assert_eq(bits_of(got[j]), bits_of(want[j]), "NVFP4 element %d", (int)j);
    free(got);
    free(want);
    ht_gguf_close(&g);
}

Test(types, unknown_types_are_left_alone)
{
    float y = 5.0f;
    uint8_t byte = 9;

    ht_type_dequant((ht_type)4, &byte, 1, &y);
    ht_type_unpack((ht_type)40, &byte, 64, &(ht_canon){ 0 });
    ht_type_quantise((ht_type)26, &y, 1, &byte);
    cr_expect(y == 5.0f && byte == 9);
    cr_expect_not(ht_type_can_quantise((ht_type)26));
    cr_expect_not(ht_type_can_quantise((ht_type)1000));
    cr_expect_not(ht_type_can_quantise(HT_IQ2_XXS));
}
