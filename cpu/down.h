/* SPDX-License-Identifier: MIT
 *
 * Down projections of one token from the neuron-major form (engine/base/neurons.h): sums over the active neurons of one
 * segment, for a slice of outputs. Same bits as the dot product of the down rows with h, zeros included: an inactive
 * neuron adds nothing to an integer sum, and a group of 32 without an active one would add zero to its accumulator.
 *
 * What the variants share is the way through a segment. Group b belongs to accumulator b mod 16 (neuron i to i mod 32
 * for float weights); an accumulator is a vector over the slice. They are walked in the order in which the tree of the
 * contract joins them (bits of the number reversed), so that few vectors are live: as a counter carries, two of the
 * same height become one. An accumulator without any group is +0 everywhere and left out: no sum here is ever -0.
 * Owner: no state. Threads: any. */
#ifndef HT_CPU_DOWN_H
#define HT_CPU_DOWN_H

#include <string.h>

#include "cpu/kernels.h"

#define HT_DOWN(type, isa, fn) ht_down_fn fn;
#include "cpu/down.inc"
#undef HT_DOWN

enum { HT_DOWN_GROUPS = HT_SEGMENT / 32, HT_DOWN_LEVELS = 6 };

/* Vectors of live accumulators. */
typedef struct ht_down_tree {
    float *level[HT_DOWN_LEVELS];
    bool used[HT_DOWN_LEVELS];
    uint32_t depth, n; /* n: floats of a vector, a multiple of HT_NEURONS_TILE */
} ht_down_tree;

static inline uint32_t ht_down_width(const ht_down_slice *s)
{
    return (s->n + HT_NEURONS_TILE - 1) / HT_NEURONS_TILE * HT_NEURONS_TILE;
}

static inline ht_down_tree ht_down_tree_begin(const ht_down_slice *s)
{
    ht_down_tree t = { .n = ht_down_width(s) };
    for (uint32_t i = 0; i < HT_DOWN_LEVELS; i++)
        t.level[i] = s->scratch + (size_t)i * t.n;
    return t;
}

/* The vector of the accumulator that is being filled; cleared before its first group. */
static inline float *ht_down_acc(ht_down_tree *t)
{
    float *acc = t->level[t->depth];
    if (!t->used[t->depth])
        memset(acc, 0, t->n * sizeof *acc);
    t->used[t->depth] = true;
    return acc;
}

/* Accumulator number `index` in the order of the walk is complete. */
static inline void ht_down_next(ht_down_tree *t, uint32_t index)
{
    for (uint32_t m = index; m % 2; m /= 2) {
        const uint32_t a = t->depth - 1, b = t->depth;
        float *restrict to = t->level[a], *restrict from = t->level[b];
        if (t->used[a] && t->used[b])
            for (uint32_t i = 0; i < t->n; i++)
                to[i] = to[i] + from[i];
        else if (t->used[b]) {
            t->level[a] = from;
            t->level[b] = to;
        }
        t->used[a] |= t->used[b];
        t->used[b] = false;
        t->depth--;
    }
    t->depth++;
}

/* After the last: the sums to y. */
static inline void ht_down_tree_end(const ht_down_tree *t, float *y)
{
    if (t->used[0])
        memcpy(y, t->level[0], t->n * sizeof *y);
    else
        memset(y, 0, t->n * sizeof *y);
}

/* Which of the 32 accumulators of float weights neuron j of a segment belongs to, in the order of the walk. */
static inline uint32_t ht_down_reversed32(uint32_t j)
{
    return (j & 1) << 4 | (j & 2) << 2 | (j & 4) | (j & 8) >> 2 | (j & 16) >> 4;
}

/* The list of float weights sorted by accumulator, in the order of the walk: begin[i] .. begin[i + 1] of sorted[],
 * neurons counted from the segment's first. next: scratch. */
static inline void ht_down_sort32(const ht_down_slice *s, uint16_t begin[33], uint16_t next[32],
                                  uint16_t sorted[HT_SEGMENT])
{
    memset(begin, 0, 33 * sizeof *begin);
    for (uint32_t i = 0; i < s->n_list; i++)
        begin[ht_down_reversed32(s->list[i] - s->segment) + 1]++;
    for (uint32_t i = 0; i < 32; i++) {
        next[i] = begin[i];
        begin[i + 1] = (uint16_t)(begin[i + 1] + begin[i]);
    }
    for (uint32_t i = 0; i < s->n_list; i++) {
        const uint32_t j = s->list[i] - s->segment;
        sorted[next[ht_down_reversed32(j)]++] = (uint16_t)j;
    }
}

/* A group with active neurons: entries [first, first + n) of the list. */
typedef struct ht_down_group {
    uint32_t block, first, n; /* block: within the segment */
    uint32_t index;           /* of its accumulator, in the order of the walk */
} ht_down_group;

/* The groups of a segment in the order of the walk; returns how many. */
static inline uint32_t ht_down_groups(const ht_down_slice *s, ht_down_group out[HT_DOWN_GROUPS])
{
    static const uint8_t reversed[16] = { 0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15 };
    uint16_t first[HT_DOWN_GROUPS + 1];
    uint32_t n = 0;

    for (uint32_t b = 0, i = 0; b <= HT_DOWN_GROUPS; b++) {
        while (i < s->n_list && (s->list[i] - s->segment) / 32 < b)
            i++;
        first[b] = (uint16_t)i;
    }
    for (uint32_t index = 0; index < 16; index++)
        for (uint32_t b = reversed[index]; b < HT_DOWN_GROUPS; b += 16)
            if (first[b + 1] > first[b])
                out[n++] = (ht_down_group){ b, first[b], (uint32_t)first[b + 1] - first[b], index };
    return n;
}

#endif
