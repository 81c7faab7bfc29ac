/* SPDX-License-Identifier: MIT
 *
 * Down projections from the neuron-major form in plain C: output by output, block by block, each weight looked up where
 * engine/base/neurons.h says it lies. Every other variant gives these bits, and these are those of the dense dot
 * product (tests/cpu/test_check_down.c). Owner: no state. Threads: any. */
#include "cpu/down.h"

#include <math.h>

#include "cpu/dot_tree.h"

static int code(const ht_neurons *g, const uint8_t *w, uint32_t j, uint32_t o)
{
    const uint8_t *row = w + g->rows_at + ht_neurons_place(g, j) * g->stride;

    if (g->type == HT_Q8_0)
        return (int8_t)row[o];
    const uint8_t *piece = row + o / HT_NEURONS_TILE * (g->type == HT_Q6_K ? 96 : 64);
    const uint32_t at = o % HT_NEURONS_TILE;
    const int q = piece[at / 64 * 32 + at % 32] >> (at / 32 % 2 * 4) & 15;
    if (g->type == HT_Q6_K)
        return (q | (piece[64 + at % 32] >> (at / 32 * 2) & 3) << 4) - 32;
    return g->type == HT_Q4_0 ? q - 8 : q;
}

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return ht_f16_to_f32(h);
}

static float output_q8(const ht_down_slice *s, uint32_t o)
{
    const ht_neurons *g = s->g;
    const uint32_t per = ht_type_get(g->type)->block;
    float acc[16] = { 0 };

    for (uint32_t i = 0; i < s->n_list;) {
        const uint32_t b = (s->list[i] - s->segment) / 32; /* block of the segment */
        const uint32_t j0 = s->segment + 32 * b;           /* its first neuron */
        const uint32_t group = ht_neurons_group(g, j0 / 32);
        const uint8_t *d = s->w + g->d_at + group / (per / 32) * g->d_stride + 2 * (size_t)o;
        const uint8_t *sc = s->w + g->sc_at + group * g->sc_stride + o;
        int32_t half[2] = { 0, 0 };
        for (; i < s->n_list && (s->list[i] - s->segment) / 32 == b; i++) {
            const uint32_t j = s->list[i];
            half[(j - j0) / 16] += code(g, s->w, j, o) * s->q8.q[j - s->segment];
        }
        float *a = &acc[b % 16];
        if (per == 32) {
            *a = fmaf(half_at(d) * s->q8.d[b], (float)(half[0] + half[1]), *a);
        } else if (g->type == HT_Q6_K) {
            *a = fmaf(half_at(d) * s->q8.d[b], (float)((int8_t)sc[0] * half[0] + (int8_t)sc[g->width] * half[1]), *a);
        } else {
            const int32_t sum = s->q8.s[2 * b] + s->q8.s[2 * b + 1];
            *a = fmaf(half_at(d) * s->q8.d[b], (float)(sc[0] * (half[0] + half[1])), *a);
            *a = fmaf(-half_at(d + 2 * (size_t)g->width) * s->q8.d[b], (float)(sc[g->width] * sum), *a);
        }
    }
    return ht_tree16(acc);
}

static float output_f32(const ht_down_slice *s, uint32_t o)
{
    const ht_neurons *g = s->g;
    const size_t size = ht_type_get(g->type)->block_bytes;
    float acc[32] = { 0 }, w;

    for (uint32_t i = 0; i < s->n_list; i++) {
        const uint32_t j = s->list[i], at = j - s->segment;
        ht_type_dequant(g->type, s->w + g->rows_at + ht_neurons_place(g, j) * g->stride + o * size, 1, &w);
        acc[at % 32] = fmaf(w, s->h[at], acc[at % 32]);
    }
    return ht_tree32(acc);
}

#define KERNEL(name, output)                                                                                           \
    void ht_down_##name##__ref(float *y, const ht_down_slice *s)                                                       \
    {                                                                                                                  \
        for (uint32_t i = 0; i < ht_down_width(s); i++)                                                                \
            y[i] = output(s, s->first + i);                                                                            \
    }
KERNEL(q4_0, output_q8)
KERNEL(q8_0, output_q8)
KERNEL(q4_k, output_q8)
KERNEL(q6_k, output_q8)
KERNEL(f32, output_f32)
KERNEL(f16, output_f32)
KERNEL(bf16, output_f32)
