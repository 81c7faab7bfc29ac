/* SPDX-License-Identifier: MIT
 * The attention pieces put together as the executor does (pages of HT_KV_PAGE joined in order) against a softmax
 * attention in double over what the KV rows hold, with windows, caps and sizes that end inside a page; half floats
 * against all of their values; the stated rounding of the quantised rows. */
#include "tests/cpu/test_vec.h"

#include <stdio.h>
#include <stdlib.h>

#include "cpu/vec_common.h"

enum { MAX_POS = 700, MAX_DIM = 256 };

typedef struct kv_case {
    ht_type type;
    uint32_t dim, n_pos, first; /* positions [first, n_pos) are seen */
    float cap;
} kv_case;

static size_t row_bytes(ht_type type, uint32_t n)
{
    return type == HT_F32 ? n * 4u : type == HT_F16 ? n * 2u : type == HT_Q8_0 ? n / 32 * 34u : n / 32 * 18u;
}

/* Element i of a stored row, by the GGUF description of the formats. */
static double row_value(ht_type type, const uint8_t *row, uint32_t i)
{
    float f;
    if (type == HT_F32) {
        memcpy(&f, row + i * 4, 4);
        return f;
    }
    if (type == HT_F16) return ht_vec_f16_to_f32(ht_vec_u16_at(row + i * 2));
    const uint8_t *b = row + i / 32 * (type == HT_Q8_0 ? 34 : 18);
    double d = ht_vec_f16_to_f32(ht_vec_u16_at(b));
    if (type == HT_Q8_0) return d * (int8_t)b[2 + i % 32];
    return d * ((i % 32 < 16 ? b[2 + i % 16] & 15 : b[2 + i % 16] >> 4) - 8);
}

static void attend_double(const kv_case *c, const float *q, const uint8_t *k, const uint8_t *v, double scale, double *o)
{
    size_t bytes = row_bytes(c->type, c->dim);
    double s[MAX_POS], m = -INFINITY, l = 0.0;
    for (uint32_t j = c->first; j < c->n_pos; j++) {
        s[j] = 0.0;
        for (uint32_t i = 0; i < c->dim; i++) s[j] += q[i] * row_value(c->type, k + j * bytes, i);
        s[j] *= scale;
        if (c->cap > 0.0f) s[j] = c->cap * tanh(s[j] / c->cap);
        m = s[j] > m ? s[j] : m;
    }
    for (uint32_t i = 0; i < c->dim; i++) o[i] = 0.0;
    for (uint32_t j = c->first; j < c->n_pos; j++) {
        double p = exp(s[j] - m);
        l += p;
        for (uint32_t i = 0; i < c->dim; i++) o[i] += p * row_value(c->type, v + j * bytes, i);
    }
    for (uint32_t i = 0; i < c->dim; i++) o[i] /= l;
}

static void attend_paged(const ht_vec_kernels *vec, const kv_case *c, const float *q, const uint8_t *k,
                         const uint8_t *v, float scale, float *o)
{
    size_t bytes = row_bytes(c->type, c->dim);
    float scores[HT_KV_PAGE], part[MAX_DIM], m, l, M, L;
    bool first = true;
    for (uint32_t page = c->first / HT_KV_PAGE * HT_KV_PAGE; page < c->n_pos; page += HT_KV_PAGE) {
        uint32_t j0 = c->first > page ? c->first - page : 0;
        uint32_t j1 = c->n_pos - page < HT_KV_PAGE ? c->n_pos - page : HT_KV_PAGE;
        vec->attend_scores(c->type, q, k + page * bytes, bytes, c->dim, j0, j1, scale, c->cap, scores);
        vec->attend_values(c->type, scores, v + page * bytes, bytes, c->dim, j0, j1, &m, &l, part);
        vec->attend_join(m, l, part, &M, &L, o, c->dim, first);
        first = false;
    }
    for (uint32_t i = 0; i < c->dim; i++) o[i] /= L;
}

Test(vec_attend, against_double)
{
    static const kv_case cases[] = {
        { HT_F32, 64, 1, 0, 0.0f },      { HT_F32, 128, 128, 0, 0.0f },  { HT_F32, 80, 129, 0, 0.0f },
        { HT_F16, 128, 700, 0, 0.0f },   { HT_F16, 96, 700, 200, 0.0f }, { HT_F16, 256, 300, 17, 50.0f },
        { HT_F16, 72, 255, 127, 0.0f },  { HT_Q8_0, 128, 400, 0, 0.0f }, { HT_Q8_0, 64, 131, 130, 0.0f },
        { HT_Q4_0, 128, 400, 130, 0.0f }, { HT_Q4_0, 32, 640, 0, 30.0f },
    };
    ht_vec_kernels vec[HT_N_ISA];
    uint32_t n_levels = vec_levels(vec);
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        const kv_case *c = &cases[n];
        size_t bytes = row_bytes(c->type, c->dim);
        uint8_t *k = malloc(bytes * c->n_pos), *v = malloc(bytes * c->n_pos);
        float x[MAX_DIM], q[MAX_DIM], o[MAX_DIM];
        double want[MAX_DIM];
        uint64_t seed = n + 1;
        cr_assert(k && v);
        for (uint32_t i = 0; i < c->dim; i++) q[i] = 3.0f * rng_float(&seed);
        for (uint32_t j = 0; j < 2 * c->n_pos; j++) {
            for (uint32_t i = 0; i < c->dim; i++) x[i] = rng_float(&seed);
            vec[0].kv_store(c->type, x, c->dim, (j % 2 ? k : v) + j / 2 * bytes);
        }
        float scale = 1.0f / sqrtf((float)c->dim);
        attend_double(c, q, k, v, scale, want);
        for (uint32_t l = 0; l < n_levels; l++) {
            attend_paged(&vec[l], c, q, k, v, scale, o);
            for (uint32_t i = 0; i < c->dim; i++)
                cr_assert(fabs(o[i] - want[i]) < 2e-6, "case %zu %s [%u]: %g, want %g", n, ht_isa_name((ht_isa)l), i,
                          (double)o[i], want[i]);
        }
        free(k);
        free(v);
    }
}

/* A page without a visible position joins without effect; scores of NaN come out as NaN. */
Test(vec_attend, edges)
{
    ht_vec_kernels vec[HT_N_ISA];
    uint32_t n_levels = vec_levels(vec);
    for (uint32_t l = 0; l < n_levels; l++) {
        float v[64] = { 0 }, s[4] = { 1.0f, NAN, 2.0f, -INFINITY }, o[32], O[32], m, sum, M, L;
        for (uint32_t i = 0; i < 64; i++) v[i] = 1.0f;
        vec[l].attend_values(HT_F32, s, v, 128, 32, 2, 2, &m, &sum, o);
        cr_assert(m == -INFINITY && sum == 0.0f && o[31] == 0.0f);
        vec[l].attend_join(m, sum, o, &M, &L, O, 32, true);
        vec[l].attend_join(m, sum, o, &M, &L, O, 32, false);
        cr_assert(M == -INFINITY && L == 0.0f && O[0] == 0.0f);
        vec[l].attend_values(HT_F32, s, v, 128, 32, 0, 2, &m, &sum, o);
        cr_assert(sum != sum && o[0] != o[0]);
        vec[l].attend_join(3.0f, 2.0f, v, &M, &L, O, 32, false);
        cr_assert(M == 3.0f && L == 2.0f && O[31] == 1.0f);
        float x[3] = { 0.0f, -0.0f, -INFINITY };
        vec[l].softmax(x, 3);
        cr_assert(x[0] == 0.5f && x[1] == 0.5f && x[2] == 0.0f);
    }
}

Test(vec_attend, half_floats)
{
    ht_vec_kernels vec[HT_N_ISA];
    uint32_t n_levels = vec_levels(vec);
    for (uint32_t h = 0; h < 65536; h++) {
        int e = (int)(h >> 10 & 31), man = (int)(h & 1023);
        double want = (e ? ldexp(1024 + man, e - 25) : ldexp(man, -24)) * (h & 0x8000 ? -1 : 1);
        float f = ht_vec_f16_to_f32((uint16_t)h);
        if (e == 31)
            cr_assert(man ? f != f : f == (h & 0x8000 ? -INFINITY : INFINITY));
        else
            cr_assert((double)f == want);
        if (e == 31 && man) continue;
        cr_assert(ht_vec_f32_to_f16(f) == h);
        if (e == 31) continue;
        /* halfway to the next goes to even, a little less and more to the sides */
        float next = (h & 0x7fff) == 0x7bff ? (f > 0 ? 65536.0f : -65536.0f) : ht_vec_f16_to_f32((uint16_t)(h + 1));
        float mid = (float)(((double)f + next) / 2), x[3] = { nextafterf(mid, f), mid, nextafterf(mid, next) };
        uint32_t to[3] = { h, h + (h & 1), h + 1 };
        for (uint32_t l = 0; l < n_levels; l++) {
            uint16_t y[3];
            vec[l].kv_store(HT_F16, x, 3, y);
            for (int i = 0; i < 3; i++) cr_assert(y[i] == to[i], "%04x %d: %04x", h, i, y[i]);
        }
    }
}

Test(vec_attend, quantised_rows)
{
    ht_vec_kernels vec[HT_N_ISA];
    vec_levels(vec);
    uint64_t seed = 5;
    for (int n = 0; n < 1000; n++) {
        float x[32], amax = 0.0f;
        uint8_t q8[34], q4[18];
        for (int i = 0; i < 32; i++) x[i] = rng_float(&seed), amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
        vec[0].kv_store(HT_Q8_0, x, 32, q8);
        vec[0].kv_store(HT_Q4_0, x, 32, q4);
        for (uint32_t i = 0; i < 32; i++) {
            cr_assert(fabs(row_value(HT_Q8_0, q8, i) - x[i]) < amax / 127 * (0.501 + 127 * 0x1p-11));
            /* 7 is the other end of the nibbles: off by up to a whole step there */
            cr_assert(fabs(row_value(HT_Q4_0, q4, i) - x[i]) < amax / 8 * (1.01 + 8 * 0x1p-11));
        }
    }
    float x[32] = { 0 };
    uint8_t q8[34], q4[18];
    vec[0].kv_store(HT_Q8_0, x, 32, q8);
    vec[0].kv_store(HT_Q4_0, x, 32, q4);
    for (uint32_t i = 0; i < 32; i++) cr_assert(row_value(HT_Q8_0, q8, i) == 0.0 && row_value(HT_Q4_0, q4, i) == 0.0);
    x[3] = NAN;
    vec[0].kv_store(HT_Q8_0, x, 32, q8);
    vec[0].kv_store(HT_Q4_0, x, 32, q4);
    for (uint32_t i = 0; i < 32; i++) cr_assert(isnan(row_value(HT_Q8_0, q8, i)) && isnan(row_value(HT_Q4_0, q4, i)));
}
