/* SPDX-License-Identifier: MIT
 *
 * Down projections from the neuron-major form, ARM. Written as loops over the 128 outputs of a tile that the compiler
 * turns into vectors (smlal, fmla): integers of a group summed neuron by neuron, then one step into the accumulator's
 * vector. Owner: no state. Threads: any. */
#include <arm_neon.h>
#include <math.h>

#include "cpu/down.h"

enum { TILE = HT_NEURONS_TILE };

#define HT_INLINE static inline __attribute__((always_inline))

/* sum[i] += h * weight i of a piece of a row. */
typedef void add_fn(const uint8_t *restrict piece, int16_t h, int32_t *restrict sum);

HT_INLINE void add_nibbles(const uint8_t *restrict piece, int16_t h, int32_t *restrict sum, int minus)
{
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i++) {
            const uint8_t b = piece[32 * half + i];
            sum[64 * half + i] += (int16_t)((b & 15) - minus) * h;
            sum[64 * half + 32 + i] += (int16_t)((b >> 4) - minus) * h;
        }
}
HT_INLINE void add_q4_0(const uint8_t *restrict piece, int16_t h, int32_t *restrict sum)
{
    add_nibbles(piece, h, sum, 8);
}
HT_INLINE void add_q4_k(const uint8_t *restrict piece, int16_t h, int32_t *restrict sum)
{
    add_nibbles(piece, h, sum, 0);
}
HT_INLINE void add_q8_0(const uint8_t *restrict piece, int16_t h, int32_t *restrict sum)
{
    for (int i = 0; i < TILE; i++)
        sum[i] += (int16_t)(int8_t)piece[i] * h;
}
HT_INLINE void add_q6_k(const uint8_t *restrict piece, int16_t h, int32_t *restrict sum)
{
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i++) {
            const uint8_t b = piece[32 * half + i], bits = piece[64 + i];
            const int lo = (bits >> (4 * half) & 3) << 4, hi = (bits >> (4 * half + 2) & 3) << 4;
            sum[64 * half + i] += (int16_t)(((b & 15) | lo) - 32) * h;
            sum[64 * half + 32 + i] += (int16_t)(((b >> 4) | hi) - 32) * h;
        }
}

/* Neurons [first, first + n) of the list, tile t. */
HT_INLINE void sum_rows(const ht_down_slice *s, uint32_t first, uint32_t n, uint32_t t, add_fn *add, int32_t *sum)
{
    const ht_neurons *g = s->g;
    const size_t piece = g->row_bytes / (g->width / TILE), at = g->rows_at + (s->first / TILE + t) * piece;

    memset(sum, 0, TILE * sizeof *sum);
    for (uint32_t i = first; i < first + n; i++)
        add(s->w + at + ht_neurons_place(g, s->list[i]) * g->stride, s->q8.q[s->list[i] - s->segment], sum);
}

HT_INLINE void down(float *y, const ht_down_slice *s, add_fn *add)
{
    const ht_neurons *g = s->g;
    const uint32_t per = g->sc_stride ? 8 : 1;
    ht_down_group groups[HT_DOWN_GROUPS];
    ht_down_tree tree = ht_down_tree_begin(s);
    const uint32_t n = ht_down_groups(s, groups);
    int32_t sum[TILE], second[TILE];

    for (uint32_t index = 0, i = 0; index < 16; index++) {
        for (; i < n && groups[i].index == index; i++) {
            const ht_down_group *of = &groups[i];
            const uint32_t block = ht_neurons_group(g, s->segment / 32 + of->block);
            const float h_d = s->q8.d[of->block];
            const int h_sum = s->q8.s[2 * of->block] + s->q8.s[2 * of->block + 1];
            float *acc = ht_down_acc(&tree);
            uint32_t head = 0;
            while (head < of->n && (s->list[of->first + head] - s->segment) % 32 < 16)
                head++;
            for (uint32_t t = 0; t < tree.n / TILE; t++) {
                const size_t o = s->first + (size_t)t * TILE;
                const float16_t *d = (const float16_t *)(const void *)(s->w + g->d_at + block / per * g->d_stride) + o;
                const uint8_t *sc = s->w + g->sc_at + block * g->sc_stride + o;
                float *restrict a = acc + (size_t)t * TILE;
                if (g->type == HT_Q6_K) {
                    const int8_t *sc8 = (const int8_t *)sc;
                    sum_rows(s, of->first, head, t, add, sum);
                    sum_rows(s, of->first + head, of->n - head, t, add, second);
                    for (int j = 0; j < TILE; j++)
                        a[j] = fmaf((float)d[j] * h_d,
                                    (float)(sum[j] * sc8[j] + second[j] * sc8[g->width + (uint32_t)j]), a[j]);
                    continue;
                }
                sum_rows(s, of->first, of->n, t, add, sum);
                if (g->type == HT_Q4_K) {
                    const float16_t *dmin = d + g->width;
                    for (int j = 0; j < TILE; j++) {
                        a[j] = fmaf((float)d[j] * h_d, (float)(sum[j] * sc[j]), a[j]);
                        a[j] = fmaf(-((float)dmin[j] * h_d), (float)(h_sum * sc[g->width + (uint32_t)j]), a[j]);
                    }
                } else {
                    for (int j = 0; j < TILE; j++)
                        a[j] = fmaf((float)d[j] * h_d, (float)sum[j], a[j]);
                }
            }
        }
        ht_down_next(&tree, index);
    }
    ht_down_tree_end(&tree, y);
}

#define KERNEL(name)                                                                                                   \
    void ht_down_##name##__neon(float *y, const ht_down_slice *s)                                                      \
    {                                                                                                                  \
        down(y, s, add_##name);                                                                                        \
    }
KERNEL(q4_0)
KERNEL(q8_0)
KERNEL(q4_k)
KERNEL(q6_k)

/* ---- float weights ---- */

typedef float one_fn(const uint8_t *row, size_t i);

HT_INLINE float one_f32(const uint8_t *row, size_t i)
{
    return ((const float *)(const void *)row)[i];
}
HT_INLINE float one_f16(const uint8_t *row, size_t i)
{
    return (float)((const float16_t *)(const void *)row)[i];
}
HT_INLINE float one_bf16(const uint8_t *row, size_t i)
{
    return ht_bf16_to_f32(((const uint16_t *)(const void *)row)[i]);
}

HT_INLINE void down_floats(float *y, const ht_down_slice *s, size_t size, one_fn *one)
{
    uint16_t next[32], list[HT_SEGMENT], begin[33] = { 0 };
    ht_down_tree tree = ht_down_tree_begin(s);

    ht_down_sort32(s, begin, next, list);
    for (uint32_t index = 0; index < 32; index++) {
        for (uint32_t i = begin[index]; i < begin[index + 1]; i++) {
            const uint8_t *row = s->w + s->g->rows_at +
                                 ht_neurons_place(s->g, s->segment + list[i]) * s->g->stride + s->first * size;
            const float h = s->h[list[i]];
            float *restrict acc = ht_down_acc(&tree);
            for (uint32_t o = 0; o < tree.n; o++)
                acc[o] = fmaf(one(row, o), h, acc[o]);
        }
        ht_down_next(&tree, index);
    }
    ht_down_tree_end(&tree, y);
}

void ht_down_f32__neon(float *y, const ht_down_slice *s)
{
    down_floats(y, s, 4, one_f32);
}
void ht_down_f16__neon(float *y, const ht_down_slice *s)
{
    down_floats(y, s, 2, one_f16);
}
void ht_down_bf16__neon(float *y, const ht_down_slice *s)
{
    down_floats(y, s, 2, one_bf16);
}
