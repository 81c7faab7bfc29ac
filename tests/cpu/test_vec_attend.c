/* SPDX-License-Identifier: MIT
 * Attention over a span: every variant bit for bit against plain C for every type, group of heads, size and range of
 * positions, and against a softmax attention in double over what the KV holds, spans joined as the executor does; half
 * floats against all of their values; the stated rounding of the quantised rows. Pages and results lie at forbidden
 * pages. */
#include "tests/cpu/test_vec.h"

#include <stdio.h>
#include <stdlib.h>

#include "cpu/attend.h"
#include "cpu/vec_common.h"

enum { MAX_POS = 1100, MAX_DIM = 256 };

static const ht_type kv_types[] = { HT_F32, HT_F16, HT_Q8_0, HT_Q4_0 };

static const struct variant {
    ht_isa isa;
    ht_attend_fn *fn;
    const char *name;
} variants[] = {
#define HT_ATTEND(isa, fn) { HT_ISA_##isa, fn, #fn },
#include "cpu/attend.inc"
#undef HT_ATTEND
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

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

/* One head's KV in pages between guards, with the rows it was made of. */
typedef struct cache {
    ht_type type;
    uint32_t k_dim, v_dim, n_pos;
    uint8_t *k[(MAX_POS + HT_KV_PAGE - 1) / HT_KV_PAGE], *v[(MAX_POS + HT_KV_PAGE - 1) / HT_KV_PAGE];
    uint8_t *k_rows, *v_rows;
    guards g;
} cache;

static void cache_make(cache *c, uint64_t *seed, wild how)
{
    ht_vec_kernels vec;
    float x[MAX_DIM];
    size_t kb = row_bytes(c->type, c->k_dim), vb = row_bytes(c->type, (c->v_dim + 15) / 16 * 16);
    ht_vec_kernels_init(&vec, HT_ISA_REF);
    c->g.n = 0;
    c->k_rows = malloc(c->n_pos * kb);
    c->v_rows = malloc(c->n_pos * vb);
    cr_assert(c->k_rows && c->v_rows);
    for (uint32_t p = 0; p * HT_KV_PAGE < c->n_pos; p++) {
        c->k[p] = guard_alloc(&c->g, HT_KV_PAGE * kb);
        c->v[p] = guard_alloc(&c->g, HT_KV_PAGE * vb);
    }
    for (uint32_t j = 0; j < c->n_pos; j++) {
        for (uint32_t i = 0; i < c->k_dim; i++) x[i] = rng_wild(seed, how);
        vec.kv_store(c->type, x, c->k_dim, c->k_rows + j * kb);
        ht_attend_store_k(&vec, c->type, x, c->k_dim, c->k[j / HT_KV_PAGE], j % HT_KV_PAGE);
        for (uint32_t i = 0; i < c->v_dim; i++) x[i] = rng_wild(seed, how);
        vec.kv_store(c->type, x, c->v_dim, c->v_rows + j * vb);
        ht_attend_store_v(&vec, c->type, x, c->v_dim, c->v[j / HT_KV_PAGE], j % HT_KV_PAGE);
    }
}

static void cache_free(cache *c)
{
    guard_free(&c->g);
    free(c->k_rows);
    free(c->v_rows);
}

/* n_q queries over span `span` of the cache: query i sees positions [j0[i], j1[i]) of it. */
static void run_span(ht_attend_fn *fn, const cache *c, uint32_t span, float cap, uint32_t n_q, ht_attend_query *query,
                     guards *g)
{
    ht_attend_span s = { .type = c->type, .k_dim = c->k_dim, .v_dim = c->v_dim, .scale = 1.0f / sqrtf((float)c->k_dim),
                         .cap = cap, .n_q = n_q, .query = query };
    for (uint32_t p = 0; p < HT_ATTEND_PAGES && (span * HT_ATTEND_PAGES + p) * HT_KV_PAGE < c->n_pos; p++) {
        s.k[p] = c->k[span * HT_ATTEND_PAGES + p];
        s.v[p] = c->v[span * HT_ATTEND_PAGES + p];
    }
    s.scratch = guard_alloc(g, (ht_attend_scratch_bytes(c->k_dim) + 63) / 64 * 64);
    fn(&s);
}

/* Every variant against ref: n_q queries with ranges drawn so that they ascend, as those of a prompt. */
static void same_as_ref(ht_type type, uint32_t k_dim, uint32_t v_dim, uint32_t n_pos, uint32_t n_q, uint32_t kind,
                        uint64_t seed)
{
    cache c = { .type = type, .k_dim = k_dim, .v_dim = v_dim, .n_pos = n_pos };
    uint32_t pad = (v_dim + 15) / 16 * 16;
    ht_attend_query query[2][HT_ATTEND_QUERIES];
    float cap = seed % 5 == 0 ? 20.0f : 0.0f;
    guards g = { .n = 0 };

    cache_make(&c, &seed, kind == 3 ? SPECIAL : TAME);
    uint32_t window = kind == 2 ? 1 + rng_next(&seed) % n_pos : n_pos, group = 1 + rng_next(&seed) % 9;
    for (uint32_t i = 0; i < n_q; i++) {
        uint32_t back = kind ? (n_q - 1 - i) / group : 0, j1 = n_pos > back ? n_pos - back : 0;
        float *q = guard_floats(&g, &seed, k_dim, TAME);
        query[0][i] = (ht_attend_query){ .q = q, .j0 = j1 > window ? j1 - window : 0, .j1 = j1 };
        if (kind == 4 && i % 7 == 3) query[0][i].j0 = j1; /* sees nothing here */
        query[1][i] = query[0][i];
        for (int v = 0; v < 2; v++) query[v][i].o = guard_alloc(&g, pad * 4);
    }
    run_span(ht_attend__ref, &c, 0, cap, n_q, query[0], &g);
    for (uint32_t v = 1; v < N_VARIANTS; v++) {
        if (!ht_isa_runs(variants[v].isa)) continue;
        for (uint32_t i = 0; i < n_q; i++) memset(query[1][i].o, 0xff, pad * 4);
        run_span(variants[v].fn, &c, 0, cap, n_q, query[1], &g);
        for (uint32_t i = 0; i < n_q; i++) {
            const ht_attend_query *a = &query[0][i], *b = &query[1][i];
            if (a->j0 == a->j1) continue;
#define WHAT "%s type %u k %u v %u pos %u query %u of %u, kind %u", variants[v].name, type, k_dim, v_dim, n_pos, i, n_q, kind
            SAME_FLOATS(&a->m, &b->m, 1, WHAT);
            SAME_FLOATS(&a->l, &b->l, 1, WHAT);
            SAME_FLOATS(a->o, b->o, pad, WHAT);
        }
    }
    guard_free(&g);
    cache_free(&c);
}

Test(vec_attend, same_bits)
{
    static const uint32_t dims[] = { 1, 2, 8, 15, 16, 17, 20, 32, 40, 64, 72, 80, 96, 112, 128, 200, 256 };
    static const uint32_t ends[] = { 1, 5, 16, 17, 100, 127, 128, 129, 255, 300, 511, 512 };
    uint64_t seed = 1;
    for (uint32_t t = 0; t < 4; t++)
        for (uint32_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
            if (t >= 2 && dims[d] % 32) continue;
            for (uint32_t n_q = 1; n_q <= 16; n_q++) {
                uint32_t other = t >= 2 || n_q % 3 ? dims[d] : 24;
                same_as_ref(kv_types[t], dims[d], other, ends[(n_q + d) % 12], n_q, (n_q + d) % 5, seed++);
            }
        }
    for (uint32_t t = 0; t < 4; t++)
        for (uint32_t n_q = 17; n_q <= HT_ATTEND_QUERIES; n_q += 1 + n_q % 4)
            for (uint32_t kind = 0; kind < 5; kind++)
                same_as_ref(kv_types[t], n_q % 2 ? 64 : 128, 64, ends[n_q % 12], n_q, kind, seed++);
}

static void attend_double(const cache *c, uint32_t first, float cap, const float *q, double *o)
{
    size_t kb = row_bytes(c->type, c->k_dim), vb = row_bytes(c->type, (c->v_dim + 15) / 16 * 16);
    double s[MAX_POS], m = -INFINITY, l = 0.0;
    for (uint32_t j = first; j < c->n_pos; j++) {
        s[j] = 0.0;
        for (uint32_t i = 0; i < c->k_dim; i++) s[j] += q[i] * row_value(c->type, c->k_rows + j * kb, i);
        s[j] *= 1.0 / sqrt((double)c->k_dim);
        if (cap > 0.0f) s[j] = cap * tanh(s[j] / cap);
        m = s[j] > m ? s[j] : m;
    }
    for (uint32_t i = 0; i < c->v_dim; i++) o[i] = 0.0;
    for (uint32_t j = first; j < c->n_pos; j++) {
        double p = exp(s[j] - m);
        l += p;
        for (uint32_t i = 0; i < c->v_dim; i++) o[i] += p * row_value(c->type, c->v_rows + j * vb, i);
    }
    for (uint32_t i = 0; i < c->v_dim; i++) o[i] /= l;
}

Test(vec_attend, against_double)
{
    static const struct {
        ht_type type;
        uint32_t k_dim, v_dim, n_pos, first; /* positions [first, n_pos) are seen */
        float cap;
    } cases[] = {
        { HT_F32, 64, 64, 1, 0, 0.0f },         { HT_F32, 128, 128, 128, 0, 0.0f }, { HT_F32, 80, 24, 129, 0, 0.0f },
        { HT_F16, 128, 128, 1100, 0, 0.0f },    { HT_F16, 96, 96, 700, 200, 0.0f }, { HT_F16, 256, 256, 300, 17, 50.0f },
        { HT_F16, 72, 72, 1055, 527, 0.0f },    { HT_Q8_0, 128, 128, 1000, 0, 0.0f }, { HT_Q8_0, 64, 64, 131, 130, 0.0f },
        { HT_Q4_0, 128, 128, 600, 130, 0.0f },  { HT_Q4_0, 32, 32, 640, 0, 30.0f },
    };
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        cache c = { .type = cases[n].type, .k_dim = cases[n].k_dim, .v_dim = cases[n].v_dim, .n_pos = cases[n].n_pos };
        float q[MAX_DIM], o[MAX_DIM], O[MAX_DIM], M, L;
        double want[MAX_DIM];
        uint64_t seed = n + 1;
        ht_vec_kernels vec;
        for (uint32_t i = 0; i < c.k_dim; i++) q[i] = 3.0f * rng_float(&seed);
        cache_make(&c, &seed, TAME);
        attend_double(&c, cases[n].first, cases[n].cap, q, want);
        for (uint32_t v = 0; v < N_VARIANTS; v++) {
            if (!ht_isa_runs(variants[v].isa)) continue;
            guards g = { .n = 0 };
            ht_vec_kernels_init(&vec, variants[v].isa);
            for (uint32_t span = cases[n].first / HT_ATTEND_SPAN; span * HT_ATTEND_SPAN < c.n_pos; span++) {
                uint32_t at = span * HT_ATTEND_SPAN, left = c.n_pos - at;
                ht_attend_query query = { .q = q, .j0 = cases[n].first > at ? cases[n].first - at : 0, .o = o };
                query.j1 = left < HT_ATTEND_SPAN ? left : HT_ATTEND_SPAN;
                run_span(variants[v].fn, &c, span, cases[n].cap, 1, &query, &g);
                vec.attend_join(query.m, query.l, o, &M, &L, O, c.v_dim, span == cases[n].first / HT_ATTEND_SPAN);
            }
            for (uint32_t i = 0; i < c.v_dim; i++)
                cr_assert(fabs(O[i] / L - want[i]) < 2e-6, "case %zu %s [%u]: %g, want %g", n, variants[v].name, i,
                          (double)O[i] / L, want[i]);
            guard_free(&g);
        }
        cache_free(&c);
    }
}

/* A span without a visible position joins without effect; a key that is no number makes the result none. */
Test(vec_attend, edges)
{
    for (uint32_t v = 0; v < N_VARIANTS; v++) {
        if (!ht_isa_runs(variants[v].isa)) continue;
        ht_vec_kernels vec;
        float o[32] = { 0 }, O[32], one[32], M, L;
        ht_vec_kernels_init(&vec, variants[v].isa);
        for (uint32_t i = 0; i < 32; i++) one[i] = 1.0f;
        vec.attend_join(-INFINITY, 0.0f, o, &M, &L, O, 32, true);
        vec.attend_join(-INFINITY, 0.0f, o, &M, &L, O, 32, false);
        cr_assert(M == -INFINITY && L == 0.0f && O[0] == 0.0f);
        vec.attend_join(3.0f, 2.0f, one, &M, &L, O, 32, false);
        cr_assert(M == 3.0f && L == 2.0f && O[31] == 1.0f);
        float x[3] = { 0.0f, -0.0f, -INFINITY };
        vec.softmax(x, 3);
        cr_assert(x[0] == 0.5f && x[1] == 0.5f && x[2] == 0.0f);

        cache c = { .type = HT_F16, .k_dim = 32, .v_dim = 32, .n_pos = 40 };
        uint64_t seed = 3;
        guards g = { .n = 0 };
        ht_attend_query q = { .q = one, .j0 = 0, .j1 = 7, .o = o };
        cache_make(&c, &seed, TAME);
        for (uint32_t i = 0; i < 32; i++) O[i] = NAN;
        ht_attend_store_k(&vec, HT_F16, O, 32, c.k[0], 7);
        ht_attend_store_v(&vec, HT_F16, O, 32, c.v[0], 7);
        run_span(variants[v].fn, &c, 0, 0.0f, 1, &q, &g); /* what lies beyond j1 does not count */
        cr_assert(q.l == q.l && o[31] == o[31]);
        q.j1 = 8;
        run_span(variants[v].fn, &c, 0, 0.0f, 1, &q, &g);
        cr_assert(q.l != q.l && o[0] != o[0] && o[31] != o[31]);
        guard_free(&g);
        cache_free(&c);
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
