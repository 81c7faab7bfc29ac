/* SPDX-License-Identifier: MIT
 *
 * What the x86 variants of the neuron-major down projections share: a group made ready for the arithmetic, prefetching,
 * the walk over groups and over listed rows. The arithmetic of a tile is the variant's. Only for files compiled with AVX2
 * at least. Owner: no state. Threads: any. */
#ifndef HT_CPU_DOWN_X86_H
#define HT_CPU_DOWN_X86_H

#include <immintrin.h>

#include "cpu/down.h"

#ifndef HT_INLINE
#define HT_INLINE static inline __attribute__((always_inline))
#endif

enum { TILE = HT_NEURONS_TILE };

/* One group, ready for the arithmetic: rows in pairs, a missing one repeated with h = 0. */
typedef struct group {
    const uint8_t *row[34];
    int16_t pair[17];               /* two h as bytes */
    int32_t words[17];              /* the same two as words */
    uint32_t n, pairs, first_pairs; /* first_pairs: of the first half of 16, where halves have scales of their own */
    const uint8_t *d, *sc;
    float h_d;
    int32_t sum; /* of all h */
    int16_t half_sum[2];
} group;

static void put_pairs(group *g, const ht_down_slice *s, const ht_down_group *of, uint32_t first, uint32_t n)
{
    const ht_neurons *geo = s->g;
    const size_t at = geo->rows_at + s->first / TILE * (geo->row_bytes / (geo->width / TILE));

    for (uint32_t i = 0; i < n; i += 2) {
        const uint32_t j0 = s->list[of->first + first + i], j1 = i + 1 < n ? s->list[of->first + first + i + 1] : j0;
        const int8_t h0 = s->q8.q[j0 - s->segment], h1 = i + 1 < n ? s->q8.q[j1 - s->segment] : 0;
        g->row[2 * g->pairs] = s->w + at + ht_neurons_place(geo, j0) * geo->stride;
        g->row[2 * g->pairs + 1] = s->w + at + ht_neurons_place(geo, j1) * geo->stride;
        g->pair[g->pairs] = (int16_t)((uint8_t)h0 | (uint16_t)(uint8_t)h1 << 8);
        g->words[g->pairs] = (int32_t)((uint16_t)h0 | (uint32_t)(uint16_t)h1 << 16);
        g->pairs++;
    }
}

static void prepare(group *g, const ht_down_slice *s, const ht_down_group *of)
{
    const ht_neurons *geo = s->g;
    const uint32_t block = ht_neurons_group(geo, s->segment / 32 + of->block), per = geo->sc_stride ? 8 : 1;

    g->n = of->n;
    g->pairs = 0;
    g->d = s->w + geo->d_at + block / per * geo->d_stride + 2 * (size_t)s->first;
    g->sc = s->w + geo->sc_at + block * geo->sc_stride + s->first;
    g->h_d = s->q8.d[of->block];
    g->half_sum[0] = s->q8.s[2 * of->block];
    g->half_sum[1] = s->q8.s[2 * of->block + 1];
    g->sum = g->half_sum[0] + g->half_sum[1];
    if (geo->type != HT_Q6_K) {
        put_pairs(g, s, of, 0, of->n);
        return;
    }
    uint32_t head = 0; /* of the first half */
    while (head < of->n && (s->list[of->first + head] - s->segment) % 32 < 16)
        head++;
    put_pairs(g, s, of, 0, head);
    g->first_pairs = g->pairs;
    put_pairs(g, s, of, head, of->n - head);
}

/* Lines of tile t of the group after. */
HT_INLINE void ahead(const group *next, uint32_t t, unsigned row_bytes, unsigned d_planes, unsigned sc_planes,
                     size_t width)
{
    for (uint32_t i = 0; i < next->pairs; i++)
        for (unsigned o = 0; o < row_bytes; o += 64) {
            _mm_prefetch((const char *)next->row[2 * i] + t * row_bytes + o, _MM_HINT_T0);
            _mm_prefetch((const char *)next->row[2 * i + 1] + t * row_bytes + o, _MM_HINT_T0);
        }
    for (unsigned p = 0; p < d_planes; p++)
        for (unsigned o = 0; o < 2 * TILE; o += 64)
            _mm_prefetch((const char *)next->d + 2 * (p * width + t * TILE) + o, _MM_HINT_T0);
    for (unsigned p = 0; p < sc_planes; p++)
        for (unsigned o = 0; o < TILE; o += 64)
            _mm_prefetch((const char *)next->sc + p * width + t * TILE + o, _MM_HINT_T0);
}

typedef void tiles_fn(const group *g, const group *next, uint32_t pairs, float *acc, uint32_t n, size_t width);

/* `unroll`: small numbers of pairs are constants to the compiler. */
HT_INLINE void down(float *y, const ht_down_slice *s, tiles_fn *tiles, bool unroll)
{
    ht_down_group groups[HT_DOWN_GROUPS];
    group ready[2];
    ht_down_tree t = ht_down_tree_begin(s);
    const uint32_t n = ht_down_groups(s, groups);

    if (n)
        prepare(&ready[0], s, &groups[0]);
    for (uint32_t index = 0, i = 0; index < 16; index++) {
        for (; i < n && groups[i].index == index; i++) {
            const group *g = &ready[i % 2];
            group *next = &ready[(i + 1) % 2];
            float *acc = ht_down_acc(&t);
            if (i + 1 < n)
                prepare(next, s, &groups[i + 1]);
            else
                next->pairs = 0, next->d = g->d, next->sc = g->sc;
            switch (unroll ? g->pairs : 0) {
            case 1: tiles(g, next, 1, acc, t.n, s->g->width); break;
            case 2: tiles(g, next, 2, acc, t.n, s->g->width); break;
            case 3: tiles(g, next, 3, acc, t.n, s->g->width); break;
            default: tiles(g, next, g->pairs, acc, t.n, s->g->width);
            }
        }
        ht_down_next(&t, index);
    }
    ht_down_tree_end(&t, y);
}

/* n_rows neurons of one accumulator, in order, n outputs; `next`: those to be prefetched. */
typedef void add_rows_fn(float *acc, uint32_t n, const uint8_t *const *row, const float *h, uint32_t n_rows,
                         const uint8_t *const *next, uint32_t n_next);

HT_INLINE void down_floats(float *y, const ht_down_slice *s, unsigned size, add_rows_fn *add_rows)
{
    enum { AT_ONCE = 4 };
    const ht_neurons *g = s->g;
    const uint8_t *w = s->w + g->rows_at + (size_t)s->first * size, *row[HT_SEGMENT + AT_ONCE];
    float h[HT_SEGMENT];
    uint16_t next[32], begin[33], sorted[HT_SEGMENT];
    ht_down_tree t = ht_down_tree_begin(s);

    ht_down_sort32(s, begin, next, sorted);
    for (uint32_t i = 0; i < s->n_list; i++) {
        row[i] = w + ht_neurons_place(g, s->segment + sorted[i]) * g->stride;
        h[i] = s->h[sorted[i]];
    }
    for (uint32_t index = 0; index < 32; index++) {
        for (uint32_t i = begin[index], now; i < begin[index + 1]; i += now) {
            const uint32_t left = s->n_list - i;
            now = begin[index + 1] - i < AT_ONCE ? begin[index + 1] - i : AT_ONCE;
            const uint32_t after = left - now < AT_ONCE ? left - now : AT_ONCE;
            float *acc = ht_down_acc(&t);
            switch (now) {
            case 1: add_rows(acc, t.n, row + i, h + i, 1, row + i + now, after); break;
            case 2: add_rows(acc, t.n, row + i, h + i, 2, row + i + now, after); break;
            case 3: add_rows(acc, t.n, row + i, h + i, 3, row + i + now, after); break;
            default: add_rows(acc, t.n, row + i, h + i, 4, row + i + now, after);
            }
        }
        ht_down_next(&t, index);
    }
    ht_down_tree_end(&t, y);
}

#endif
