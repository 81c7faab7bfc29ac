/* SPDX-License-Identifier: MIT
 *
 * Attention over one span in the vectors of vec_lanes.h, written once for AVX2, AVX-512 and NEON. Included by attend_<isa>.c with
 * HT_VEC and HT_VEC_LANES set.
 *
 * Scores and values are the same product: a few queries, each an own chain of multiply-adds, times rows of 16 lanes (16
 * positions of one dimension; 16 dimensions of one position). Queries go in blocks of up to SIDE, blocks times groups
 * of lanes filling the registers. For one or two blocks (a token that is generated) rows are converted from the page as they
 * are met; for more (a prompt), and for nibbles, a group is converted once into a tile in the first-level cache.
 *
 * Nothing larger than the queries times one span is kept. Threads: any; no state but the caller's scratch. */
#include <string.h>

#include "cpu/attend.h"
#include "cpu/vec.h"
#include "cpu/vec_lanes.h"

enum {
    GROUP = HT_KV_GROUP,
    GV = GROUP / LANES,            /* vectors of a group */
    SIDE = HT_ATTEND_SIDE,
    MAX_V = 8,                     /* most vectors of a query's sums */
    STRIDE = HT_ATTEND_STRIDE,
    MAX_BLOCKS = HT_ATTEND_QUERIES / SIDE,
    TILE_BLOCK = (1 + 32) * GROUP, /* floats of a tile's block of K: D, then 32 rows */
    NEAR = 2048,                   /* prefetch at least so many bytes ahead */
};

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 4")
#endif

/* Groups of lanes that go with nq queries. */
#define GROUPS(nq) ((nq) == 1 ? MAX_V / GV : (nq) <= 3 ? 4 / GV * (LANES / 8) : LANES / 8)

typedef enum rows { ROWS_F32, ROWS_F16, ROWS_I8 } rows;
/* What K is read from: a page's groups, or a tile of blocks of TILE_BLOCK floats. */
typedef enum form { FORM_F32, FORM_F16, FORM_Q8, FORM_TILE } form;

typedef struct block {
    uint32_t first, n;
    uint32_t j0, j1; /* positions that any of its queries sees */
    uint32_t c0, c1; /* that all of them see; empty at j1 where there are none */
    float *x;        /* [k_dim][n] the queries, turned */
} block;

typedef struct work {
    const ht_attend_span *s;
    block blocks[MAX_BLOCKS];
    uint32_t n_blocks, j0, j1; /* positions that any query sees */
    bool tiled;
    float *scores;  /* [HT_ATTEND_QUERIES][STRIDE] */
    float *weights; /* [SIDE][STRIDE] probabilities times D */
    float *tile;
} work;

HT_INLINE vf row_load(rows kind, const uint8_t *row, int v)
{
    if (kind == ROWS_F32)
        return vf_load((const float *)(const void *)row + v * LANES);
    return kind == ROWS_F16 ? vf_load_f16(row + v * LANES * 2) : vf_load_i8(row + v * LANES);
}

HT_INLINE int row_bytes(rows kind)
{
    return GROUP * (kind == ROWS_F32 ? 4 : kind == ROWS_F16 ? 2 : 1);
}

/* acc[q] += x[q] * row, for nq queries and ng groups `apart` bytes apart (constants). */
HT_INLINE void times_row(rows kind, const uint8_t *m, size_t apart, const float *x, size_t xn, int nq, int ng,
                         vf acc[SIDE][MAX_V])
{
    if (nq <= 3) {
        vf f[3];
        for (int q = 0; q < nq; q++)
            f[q] = vf_set1(x[q * xn]);
        for (int g = 0; g < ng; g++)
            for (int v = 0; v < GV; v++) {
                const vf w = row_load(kind, m + g * apart, v);
                for (int q = 0; q < nq; q++)
                    acc[q][g * GV + v] = vf_fma(f[q], w, acc[q][g * GV + v]);
            }
    } else {
        vf w[MAX_V];
        for (int g = 0; g < ng; g++)
            for (int v = 0; v < GV; v++)
                w[g * GV + v] = row_load(kind, m + g * apart, v);
        for (int q = 0; q < nq; q++) {
            const vf f = vf_set1(x[q * xn]);
            for (int v = 0; v < ng * GV; v++)
                acc[q][v] = vf_fma(f, w[v], acc[q][v]);
        }
    }
}

/* acc[q] += sum over i < n, in order, of x[i * xi + q * xn] * row i. What lies as far from `ahead` is fetched meanwhile. */
HT_INLINE void times_rows(rows kind, const uint8_t *m, size_t apart, const uint8_t *ahead, const float *x, size_t xi,
                          size_t xn, int nq, int ng, uint32_t n, vf acc[SIDE][MAX_V])
{
    const int bytes = row_bytes(kind);
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4, m += 4 * bytes, ahead += 4 * bytes, x += 4 * xi) {
        UNROLL
        for (int u = 0; u < 4; u++) {
            if (u * bytes % 64 == 0)
                for (int g = 0; g < ng; g++)
                    __builtin_prefetch(ahead + g * apart + u * bytes);
            times_row(kind, m + u * bytes, apart, x + u * xi, xn, nq, ng, acc);
        }
    }
    for (; i < n; i++, m += bytes, x += xi)
        times_row(kind, m, apart, x, xn, nq, ng, acc);
}

HT_INLINE void acc_zero(vf acc[SIDE][MAX_V], int nq, int nv)
{
    for (int q = 0; q < nq; q++)
        for (int v = 0; v < nv; v++)
            acc[q][v] = vf_zero();
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

HT_INLINE vf block_d(form f, const uint8_t *b, int v)
{
    return f == FORM_Q8 ? vf_load_f16(b + v * LANES * 2) : vf_load((const float *)(const void *)b + v * LANES);
}

/* ng groups of K, `bytes` apart, times nq queries: s[q * STRIDE + position]. */
HT_INLINE void scores_run(form f, const uint8_t *k, size_t bytes, const uint8_t *ahead, const float *x, uint32_t k_dim,
                          int nq, int ng, float *s)
{
    const rows kind = f == FORM_F16 ? ROWS_F16 : f == FORM_Q8 ? ROWS_I8 : ROWS_F32;
    const bool scaled = f == FORM_Q8 || f == FORM_TILE;
    const int head = f == FORM_Q8 ? HT_KV_K_HEAD : f == FORM_TILE ? GROUP * 4 : 0, step = head + 32 * row_bytes(kind);

    for (uint32_t i = 0; i < k_dim; i += 32, k += step, ahead += step) {
        vf acc[SIDE][MAX_V];
        acc_zero(acc, nq, ng * GV);
        if (head)
            for (int g = 0; g < ng; g++)
                __builtin_prefetch(ahead + g * bytes);
        times_rows(kind, k + head, bytes, ahead + head, x + (size_t)i * nq, nq, 1, nq, ng, k_dim - i < 32 ? k_dim - i : 32,
                   acc);
        for (int q = 0; q < nq; q++)
            for (int g = 0; g < ng; g++)
                for (int v = 0; v < GV; v++) {
                    float *to = s + q * STRIDE + g * GROUP + v * LANES;
                    const vf sum = i ? vf_load(to) : vf_zero(), a = acc[q][g * GV + v];
                    vf_store(to, scaled ? vf_fma(block_d(f, k + g * bytes, v), a, sum) : vf_add(sum, a));
                }
    }
}

HT_INLINE void scores_groups(form f, const uint8_t *k, size_t bytes, const uint8_t *ahead, const float *x, uint32_t k_dim,
                             int nq, uint32_t n, float *s)
{
    const uint32_t ng = GROUPS(nq);
    uint32_t g = 0;
    for (; g + ng <= n; g += ng)
        scores_run(f, k + g * bytes, bytes, ahead + g * bytes, x, k_dim, nq, (int)ng, s + g * GROUP);
    for (; ng > 1 && g < n; g++)
        scores_run(f, k + g * bytes, bytes, ahead + g * bytes, x, k_dim, nq, 1, s + g * GROUP);
}

/* n groups of K with the queries of a block. */
HT_INLINE void scores_of_form(form f, const uint8_t *k, size_t bytes, const uint8_t *ahead, const block *b, uint32_t k_dim,
                              uint32_t n, float *s)
{
    switch (b->n) {
    case 1: scores_groups(f, k, bytes, ahead, b->x, k_dim, 1, n, s); break;
    case 2: scores_groups(f, k, bytes, ahead, b->x, k_dim, 2, n, s); break;
    case 3: scores_groups(f, k, bytes, ahead, b->x, k_dim, 3, n, s); break;
    case 4: scores_groups(f, k, bytes, ahead, b->x, k_dim, 4, n, s); break;
    case 5: scores_groups(f, k, bytes, ahead, b->x, k_dim, 5, n, s); break;
    default: scores_groups(f, k, bytes, ahead, b->x, k_dim, 6, n, s); break;
    }
}

static void scores_f32(const uint8_t *k, size_t bytes, const uint8_t *ahead, const block *b, uint32_t k_dim, uint32_t n,
                       float *s)
{
    scores_of_form(FORM_F32, k, bytes, ahead, b, k_dim, n, s);
}
static void scores_f16(const uint8_t *k, size_t bytes, const uint8_t *ahead, const block *b, uint32_t k_dim, uint32_t n,
                       float *s)
{
    scores_of_form(FORM_F16, k, bytes, ahead, b, k_dim, n, s);
}
static void scores_q8(const uint8_t *k, size_t bytes, const uint8_t *ahead, const block *b, uint32_t k_dim, uint32_t n,
                      float *s)
{
    scores_of_form(FORM_Q8, k, bytes, ahead, b, k_dim, n, s);
}
static void scores_tile(const uint8_t *k, size_t bytes, const uint8_t *ahead, const block *b, uint32_t k_dim, uint32_t n,
                        float *s)
{
    scores_of_form(FORM_TILE, k, bytes, ahead, b, k_dim, n, s);
}

/* A group of K as floats: rows alone for half floats, D and rows of every block for block types. */
static void tile_k(ht_type type, const uint8_t *k, uint32_t k_dim, const uint8_t *ahead, float *tile)
{
    const size_t bytes = ht_kv_group_bytes(type, k_dim);

    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(ahead + i);
    if (type == HT_F16) {
        for (uint32_t i = 0; i < k_dim * GV; i++)
            vf_store(tile + i * LANES, vf_load_f16(k + (size_t)i * LANES * 2));
        return;
    }
    const size_t step = type == HT_Q8_0 ? HT_KV_K_Q8 : HT_KV_K_Q4;
    for (uint32_t b = 0; b < k_dim / 32; b++, k += step, tile += TILE_BLOCK) {
        const uint8_t *q = k + HT_KV_K_HEAD;
        for (int v = 0; v < GV; v++)
            vf_store(tile + v * LANES, vf_load_f16(k + v * LANES * 2));
        if (type == HT_Q8_0)
            for (int i = 0; i < 32 * GV; i++)
                vf_store(tile + GROUP + i * LANES, vf_load_i8(q + i * LANES));
        else
            for (int i = 0; i < 16; i++)
                for (int v = 0; v < GV; v++) {
                    vf_store(tile + (1 + i) * GROUP + v * LANES, vf_load_i4(q + i * GROUP, v));
                    vf_store(tile + (17 + i) * GROUP + v * LANES, vf_load_i4(q + i * GROUP, GV + v));
                }
    }
}

/* Where the group at position j of the span lies; behind the last one V begins, which is read next. */
static const uint8_t *k_at(const work *w, uint32_t j, size_t bytes)
{
    const ht_attend_span *s = w->s;
    return j < w->j1 ? s->k[j / HT_KV_PAGE] + j % HT_KV_PAGE / GROUP * bytes : s->v[w->j0 / HT_KV_PAGE];
}

static void scores_tiled(const work *w)
{
    const ht_attend_span *s = w->s;
    const size_t bytes = ht_kv_group_bytes(s->type, s->k_dim);

    for (uint32_t j = w->j0 / GROUP * GROUP; j < w->j1; j += GROUP) {
        const uint8_t *k = k_at(w, j, bytes), *ahead = k_at(w, j + GROUP, bytes);
        if (s->type != HT_F32) {
            tile_k(s->type, k, s->k_dim, ahead, w->tile);
            k = ahead = (const uint8_t *)w->tile;
        }
        for (uint32_t i = 0; i < w->n_blocks; i++) {
            const block *b = &w->blocks[i];
            if (b->j0 >= j + GROUP || b->j1 <= j)
                continue;
            if (s->type == HT_F32 || s->type == HT_F16)
                scores_f32(k, bytes, ahead, b, s->k_dim, 1, w->scores + (size_t)b->first * STRIDE + j);
            else
                scores_tile(k, bytes, ahead, b, s->k_dim, 1, w->scores + (size_t)b->first * STRIDE + j);
        }
    }
}

static void scores_direct(const work *w)
{
    const ht_attend_span *s = w->s;
    const size_t bytes = ht_kv_group_bytes(s->type, s->k_dim);
    uint32_t least = w->blocks[0].n, step, lead;

    for (uint32_t i = 1; i < w->n_blocks; i++)
        least = w->blocks[i].n < least ? w->blocks[i].n : least;
    step = GROUPS(least) * GROUP; /* a power of two, never beyond a page */
    lead = step;
    while (lead < HT_KV_PAGE && lead / GROUP * bytes < NEAR)
        lead *= 2;
    for (uint32_t j = w->j0 / GROUP * GROUP, end; j < w->j1; j = end) {
        end = j / step * step + step < w->j1 ? j / step * step + step : (w->j1 + GROUP - 1) / GROUP * GROUP;
        const uint8_t *k = k_at(w, j, bytes), *ahead = k_at(w, j + lead, bytes);
        for (uint32_t i = 0; i < w->n_blocks; i++, ahead = k) { /* the second block finds its rows in the cache */
            const block *b = &w->blocks[i];
            float *to = w->scores + (size_t)b->first * STRIDE + j;
            const uint32_t n = (end - j) / GROUP;
            if (s->type == HT_F32)
                scores_f32(k, bytes, ahead, b, s->k_dim, n, to);
            else if (s->type == HT_F16)
                scores_f16(k, bytes, ahead, b, s->k_dim, n, to);
            else
                scores_q8(k, bytes, ahead, b, s->k_dim, n, to);
        }
    }
}

static void softmax(const work *w)
{
    const ht_attend_span *s = w->s;

    for (uint32_t n = 0; n < s->n_q; n++) {
        ht_attend_query *q = &s->query[n];
        float *x = w->scores + (size_t)n * STRIDE;
        if (s->cap > 0.0f)
            for (uint32_t j = q->j0; j < q->j1; j++)
                x[j] = s->cap * ht_tanhf(s->scale * x[j] / s->cap);
        else
            for (uint32_t j = q->j0; j < q->j1; j++)
                x[j] *= s->scale;
        if (q->j0 < q->j1)
            HT_VEC(ht_exp_sum)(x, q->j0, q->j1, &q->m, &q->l);
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* o[q][0 .. 16 ng) += rows [r0, r1) of ng columns of V, `apart` bytes apart, times p[q * STRIDE + row]. */
HT_INLINE void sum_run(rows kind, const uint8_t *v, size_t apart, const uint8_t *ahead, const float *p, uint32_t r0,
                       uint32_t r1, const ht_attend_query *query, uint32_t at, int nq, int ng)
{
    vf acc[SIDE][MAX_V];
    for (int q = 0; q < nq; q++)
        for (int l = 0; l < ng * GV; l++)
            acc[q][l] = vf_load(query[q].o + at + l * LANES);
    times_rows(kind, v + (size_t)r0 * row_bytes(kind), apart, ahead + (size_t)r0 * row_bytes(kind), p + r0, 1, STRIDE, nq,
               ng, r1 - r0, acc);
    for (int q = 0; q < nq; q++)
        for (int l = 0; l < ng * GV; l++)
            vf_store(query[q].o + at + l * LANES, acc[q][l]);
}

HT_INLINE void sum_columns(rows kind, const uint8_t *v, size_t apart, const uint8_t *ahead, const float *p, uint32_t r0,
                           uint32_t r1, const ht_attend_query *query, uint32_t at, uint32_t n, int nq)
{
    const uint32_t ng = GROUPS(nq);
    uint32_t c = 0;
    for (; c + ng <= n; c += ng)
        sum_run(kind, v + c * apart, apart, ahead + c * apart, p, r0, r1, query, at + c * GROUP, nq, (int)ng);
    if (ng > 2) /* the two columns of a block */
        for (; c + 2 <= n; c += 2)
            sum_run(kind, v + c * apart, apart, ahead + c * apart, p, r0, r1, query, at + c * GROUP, nq, 2);
    for (; ng > 1 && c < n; c++)
        sum_run(kind, v + c * apart, apart, ahead + c * apart, p, r0, r1, query, at + c * GROUP, nq, 1);
}

HT_INLINE void sum_of_rows(rows kind, const uint8_t *v, size_t apart, const uint8_t *ahead, const float *p, uint32_t r0,
                           uint32_t r1, const ht_attend_query *query, uint32_t at, uint32_t n, uint32_t nq)
{
    switch (nq) {
    case 1: sum_columns(kind, v, apart, ahead, p, r0, r1, query, at, n, 1); break;
    case 2: sum_columns(kind, v, apart, ahead, p, r0, r1, query, at, n, 2); break;
    case 3: sum_columns(kind, v, apart, ahead, p, r0, r1, query, at, n, 3); break;
    case 4: sum_columns(kind, v, apart, ahead, p, r0, r1, query, at, n, 4); break;
    case 5: sum_columns(kind, v, apart, ahead, p, r0, r1, query, at, n, 5); break;
    default: sum_columns(kind, v, apart, ahead, p, r0, r1, query, at, n, 6); break;
    }
}

static void sum_rows(rows kind, const uint8_t *v, size_t apart, const uint8_t *ahead, const float *p, uint32_t r0,
                     uint32_t r1, const ht_attend_query *query, uint32_t at, uint32_t n, uint32_t nq)
{
    if (r0 >= r1)
        return;
    if (kind == ROWS_F32)
        sum_of_rows(ROWS_F32, v, apart, ahead, p, r0, r1, query, at, n, nq);
    else if (kind == ROWS_F16)
        sum_of_rows(ROWS_F16, v, apart, ahead, p, r0, r1, query, at, n, nq);
    else
        sum_of_rows(ROWS_I8, v, apart, ahead, p, r0, r1, query, at, n, nq);
}

static uint32_t in_page(uint32_t j, uint32_t page)
{
    return j < page ? 0 : j - page < HT_KV_PAGE ? j - page : HT_KV_PAGE;
}

/* n columns of the page at position `page`, from dimension `at` of o, for a block's queries; p: [queries][STRIDE] from
 * the page's first position. Where queries see different positions, each goes alone before and after what all see. */
static void sum_block(const work *w, const block *b, rows kind, const uint8_t *v, size_t apart, const uint8_t *ahead,
                      const float *p, uint32_t page, uint32_t at, uint32_t n)
{
    const ht_attend_query *query = w->s->query + b->first;
    const uint32_t c0 = in_page(b->c0, page), c1 = in_page(b->c1, page);

    for (uint32_t q = 0; q < b->n && b->j0 < b->c0; q++) {
        const uint32_t r0 = in_page(query[q].j0, page), r1 = in_page(query[q].j1, page);
        sum_rows(kind, v, apart, v, p + (size_t)q * STRIDE, r0, r1 < c0 ? r1 : c0, query + q, at, n, 1);
    }
    sum_rows(kind, v, apart, ahead, p, c0, c1, query, at, n, b->n);
    for (uint32_t q = 0; q < b->n && b->c1 < b->j1; q++) {
        const uint32_t r0 = in_page(query[q].j0, page), r1 = in_page(query[q].j1, page);
        sum_rows(kind, v, apart, v, p + (size_t)q * STRIDE, r0 > c1 ? r0 : c1, r1, query + q, at, n, 1);
    }
}

/* Rows [r0, r1) of a column as floats; `high`: of nibbles, those of the upper half. */
static void tile_v(ht_type type, const uint8_t *v, bool high, uint32_t r0, uint32_t r1, const uint8_t *ahead, float *tile)
{
    const size_t bytes = type == HT_F16 ? 2 * GROUP : GROUP;

    for (uint32_t r = r0; r < r1; r++) {
        if (r * bytes % 64 == 0)
            __builtin_prefetch(ahead + r * bytes);
        for (int l = 0; l < GV; l++) {
            const uint8_t *row = v + r * bytes;
            vf_store(tile + r * GROUP + l * LANES, type == HT_F16    ? vf_load_f16(row + l * LANES * 2)
                                                   : type == HT_Q8_0 ? vf_load_i8(row + l * LANES)
                                                   : high            ? vf_load_i4(row, GV + l)
                                                                     : vf_load_i4(row, l));
        }
    }
}

/* Probabilities of a block's queries times the D of a page's positions. */
static void scale_weights(const work *w, const block *b, const float *d, uint32_t page)
{
    const uint32_t r0 = in_page(b->j0, page) / GROUP * GROUP, r1 = in_page(b->j1, page);
    for (uint32_t q = 0; q < b->n; q++) {
        const float *p = w->scores + (size_t)(b->first + q) * STRIDE + page;
        float *to = w->weights + (size_t)q * STRIDE;
        for (uint32_t r = r0; r < r1; r += LANES)
            vf_store(to + r, vf_mul(vf_load(p + r), vf_load(d + r)));
    }
}

/* One page of float V. `next`: the V of the page after it, or of this one. */
static void values_float(const work *w, uint32_t page, const uint8_t *next)
{
    const ht_attend_span *s = w->s;
    const rows kind = s->type == HT_F32 ? ROWS_F32 : ROWS_F16;
    const size_t column = (size_t)HT_KV_PAGE * row_bytes(kind);
    const uint32_t n = (s->v_dim + GROUP - 1) / GROUP;
    const uint8_t *v = s->v[page / HT_KV_PAGE];
    uint32_t step = n;

    if (w->tiled && kind == ROWS_F16) {
        const uint32_t r0 = in_page(w->j0, page), r1 = in_page(w->j1, page);
        for (uint32_t c = 0; c < n; c++) {
            tile_v(s->type, v + c * column, false, r0, r1, c + 1 < n ? v + (c + 1) * column : next, w->tile);
            for (uint32_t i = 0; i < w->n_blocks; i++) {
                const block *b = &w->blocks[i];
                sum_block(w, b, ROWS_F32, (const uint8_t *)w->tile, 0, (const uint8_t *)w->tile,
                          w->scores + (size_t)b->first * STRIDE + page, page, c * GROUP, 1);
            }
        }
        return;
    }
    for (uint32_t i = 0; i < w->n_blocks; i++) {
        const uint32_t groups = GROUPS(w->blocks[i].n);
        step = groups < step ? groups : step;
    }
    for (uint32_t c = 0; c < n; c += step) {
        const uint32_t now = n - c < step ? n - c : step;
        const uint8_t *ahead = c + step < n ? v + (c + step) * column : next;
        for (uint32_t i = 0; i < w->n_blocks; i++, ahead = v + c * column) {
            const block *b = &w->blocks[i];
            sum_block(w, b, kind, v + c * column, column, ahead, w->scores + (size_t)b->first * STRIDE + page, page,
                      c * GROUP, now);
        }
    }
}

/* One page of V in blocks of 32 dimensions. */
static void values_blocks(const work *w, uint32_t page, const uint8_t *next)
{
    const ht_attend_span *s = w->s;
    const bool nibbles = s->type == HT_Q4_0;
    const size_t bytes = nibbles ? HT_KV_V_Q4 : HT_KV_V_Q8, column = nibbles ? 0 : HT_KV_PAGE * GROUP;
    const uint32_t n = s->v_dim / 32, r0 = in_page(w->j0, page), r1 = in_page(w->j1, page);
    const uint8_t *v = s->v[page / HT_KV_PAGE];
    float d[HT_KV_PAGE];

    for (uint32_t c = 0; c < n; c++, v += bytes) {
        const uint8_t *ahead = c + 1 < n ? v + bytes : next, *q = v + HT_KV_V_HEAD;
        for (int i = 0; i < HT_KV_V_HEAD; i += 64)
            __builtin_prefetch(ahead + i);
        ahead += HT_KV_V_HEAD;
        for (uint32_t r = 0; r < HT_KV_PAGE; r += LANES)
            vf_store(d + r, vf_load_f16(v + (size_t)r * 2));
        if (w->tiled) {
            tile_v(s->type, q, false, r0, r1, ahead, w->tile);
            tile_v(s->type, q + column, true, r0, r1, ahead + column, w->tile + HT_KV_PAGE * GROUP);
            q = ahead = (const uint8_t *)w->tile;
        }
        for (uint32_t i = 0; i < w->n_blocks; i++, ahead = q) {
            const block *b = &w->blocks[i];
            scale_weights(w, b, d, page);
            sum_block(w, b, w->tiled ? ROWS_F32 : ROWS_I8, q, w->tiled ? HT_KV_PAGE * GROUP * 4 : column, ahead,
                      w->weights, page, c * 32, 2);
        }
    }
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Blocks of about equal size, their queries turned so that those of one dimension lie side by side. */
static void make_blocks(work *w, float *x)
{
    const ht_attend_span *s = w->s;
    uint32_t first = 0;

    w->n_blocks = (s->n_q + SIDE - 1) / SIDE;
    w->j0 = HT_ATTEND_SPAN;
    w->j1 = 0;
    for (uint32_t i = 0; i < w->n_blocks; i++) {
        const uint32_t n = s->n_q / w->n_blocks + (i < s->n_q % w->n_blocks);
        const ht_attend_query *q = s->query + first;
        block b = { .first = first, .n = n, .j0 = HT_ATTEND_SPAN, .c1 = HT_ATTEND_SPAN, .x = x + (size_t)first * s->k_dim };
        for (uint32_t k = 0; k < n; k++) {
            for (uint32_t d = 0; d < s->k_dim; d++)
                b.x[(size_t)d * n + k] = q[k].q[d];
            if (q[k].j0 < q[k].j1) {
                b.j0 = q[k].j0 < b.j0 ? q[k].j0 : b.j0;
                b.j1 = q[k].j1 > b.j1 ? q[k].j1 : b.j1;
            }
            b.c0 = q[k].j0 > b.c0 ? q[k].j0 : b.c0;
            b.c1 = q[k].j1 < b.c1 ? q[k].j1 : b.c1;
        }
        if (b.j0 >= b.j1)
            b.j0 = b.j1 = 0;
        if (b.c0 >= b.c1)
            b.c0 = b.c1 = b.j1;
        if (b.j0 < b.j1) {
            w->j0 = b.j0 < w->j0 ? b.j0 : w->j0;
            w->j1 = b.j1 > w->j1 ? b.j1 : w->j1;
        }
        w->blocks[i] = b;
        first += n;
    }
}

void HT_VEC(ht_attend)(const ht_attend_span *s)
{
    work w = { .s = s, .scores = s->scratch };

    w.weights = w.scores + (size_t)HT_ATTEND_QUERIES * STRIDE;
    w.tile = w.weights + (size_t)SIDE * STRIDE;
    make_blocks(&w, w.tile + ht_attend_tile_floats(s->k_dim));
    if (w.j0 >= w.j1)
        return;
    for (uint32_t n = 0; n < s->n_q; n++)
        if (s->query[n].j0 < s->query[n].j1)
            memset(s->query[n].o, 0, (s->v_dim + GROUP - 1) / GROUP * GROUP * sizeof(float));
    w.tiled = w.n_blocks > 2 || s->type == HT_Q4_0;
    if (w.tiled)
        scores_tiled(&w);
    else
        scores_direct(&w);
    softmax(&w);
    for (uint32_t page = w.j0 / HT_KV_PAGE * HT_KV_PAGE; page < w.j1; page += HT_KV_PAGE) {
        const uint8_t *next = s->v[(page + HT_KV_PAGE < w.j1 ? page + HT_KV_PAGE : page) / HT_KV_PAGE];
        if (s->type == HT_F32 || s->type == HT_F16)
            values_float(&w, page, next);
        else
            values_blocks(&w, page, next);
    }
}
