/* SPDX-License-Identifier: MIT
 *
 * Data for the tests of products with weights: a random generator, buffers with forbidden pages on both sides, random
 * weights of every type whose scales are numbers (also zero, negative and subnormal), 8-bit activations.
 * Owner: the caller frees what ht_guard_alloc gives. Threads: any. */
#ifndef HT_TESTS_CHECK_DOT_DATA_H
#define HT_TESTS_CHECK_DOT_DATA_H

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/kernels.h"

static inline uint64_t rnd(uint64_t *s)
{
    *s += 0x9e3779b97f4a7c15u;
    uint64_t z = *s;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline float rnd_float(uint64_t *s)
{
    return (float)((double)(rnd(s) >> 11) * 0x1p-52 - 1.0);
}

/* bytes of memory, filled with 0xff (NaN), that end (or begin: at_end false) exactly at a page that may not be touched.
 */
typedef struct guard {
    void *p, *map;
    size_t map_bytes;
} guard;

static inline guard guard_alloc(size_t bytes, bool at_end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page) / page * page;
    guard g = { .map_bytes = inner + 2 * page };
    g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect((char *)g.map + page, inner, PROT_READ | PROT_WRITE))
        return (guard){ 0 };
    g.p = (char *)g.map + page + (at_end ? inner - bytes : 0);
    memset(g.p, 0xff, bytes);
    return g;
}

static inline void guard_free(guard *g)
{
    munmap(g->map, g->map_bytes);
}

/* A finite half: mostly of usual size, sometimes zero, subnormal or large. */
static inline uint16_t rnd_f16(uint64_t *s)
{
    uint64_t r = rnd(s);
    uint16_t sign = r & 1 ? 0x8000 : 0, man = r >> 1 & 0x3ff;
    switch (r >> 12 & 15) {
    case 0: return sign;
    case 1: return sign | man;                        /* subnormal */
    case 2: return sign | (uint16_t)(29 << 10) | man; /* 16384 and more */
    default: return sign | (uint16_t)((4 + (r >> 16 & 7)) << 10) | man;
    }
}

static inline void put_f16(uint8_t *p, uint64_t *s)
{
    uint16_t h = rnd_f16(s);
    memcpy(p, &h, 2);
}

/* Where the half-precision scales of a block lie; -1: none. */
static inline void scale_offsets(ht_type type, int at[2])
{
    at[0] = 0, at[1] = -1;
    switch (type) {
    case HT_Q4_1:
    case HT_Q5_1:
    case HT_Q4_K:
    case HT_Q5_K: at[1] = 2; break;
    case HT_Q2_K: at[0] = 80, at[1] = 82; break;
    case HT_Q3_K: at[0] = 108; break;
    case HT_Q6_K: at[0] = 208; break;
    case HT_TQ1_0: at[0] = 52; break;
    case HT_TQ2_0: at[0] = 64; break;
    case HT_IQ1_M:
    case HT_MXFP4: at[0] = -1; break;
    default: break;
    }
}

/* k elements of any type. Floats: numbers of usual size with some zeros and subnormals. */
static inline void fill_weights(ht_type type, uint8_t *w, uint32_t k, uint64_t *s)
{
    const ht_type_info *t = ht_type_get(type);
    for (uint32_t i = 0; i < k / t->block; i++, w += t->block_bytes) {
        if (type == HT_F16) {
            put_f16(w, s);
        } else if (!t->quantised) {
            float f = rnd_float(s);
            uint64_t r = rnd(s) & 31;
            if (r == 0)
                f = -0.0f;
            if (r == 1)
                f *= 0x1p-130f;
            memcpy(w, (const char *)&f + (type == HT_BF16 ? 2 : 0), t->block_bytes);
        } else {
            int at[2];
            /* One block in four is as large or as small as can be: sums that a kernel keeps in few bits must hold it. */
            static const uint8_t extreme[4] = { 0xff, 0x00, 0x80, 0x7f };
            const uint64_t kind = rnd(s) & 15;
            for (int j = 0; j < t->block_bytes; j++)
                w[j] = kind < 4 ? extreme[kind] : (uint8_t)(rnd(s) >> 24);
            scale_offsets(type, at);
            for (int j = 0; j < 2; j++)
                if (at[j] >= 0)
                    put_f16(w + at[j], s);
            if (type == HT_MXFP4)
                w[0] = rnd(s) & 7 ? (uint8_t)(110 + rnd(s) % 20) : (uint8_t)(rnd(s) % 4);
            if (type == HT_IQ1_M) { /* four bits of the scale on top of each of the last four words */
                uint16_t h = rnd_f16(s);
                for (int j = 0; j < 4; j++)
                    w[49 + 2 * j] = (uint8_t)((w[49 + 2 * j] & 15) | (h >> (4 * j) & 15) << 4);
            }
        }
    }
}

/* 8-bit activations of one token as the contract makes them, with some extreme blocks. */
static inline void fill_q8(int8_t *q, float *d, int16_t *sums, uint32_t k, uint64_t *s)
{
    for (uint32_t b = 0; b < k / 32; b++) {
        uint64_t kind = rnd(s) & 15;
        d[b] = kind == 0 ? 0.0f : kind == 1 ? 0x1p-140f : fabsf(rnd_float(s)) * 0.1f;
        for (uint32_t i = 0; i < 32; i++)
            q[32 * b + i] = kind == 2 ? 127 : kind == 3 ? -127 : (int8_t)((int)(rnd(s) % 255) - 127);
        for (uint32_t h = 0; h < 2; h++) {
            int sum = 0;
            for (uint32_t i = 0; i < 16; i++)
                sum += q[32 * b + 16 * h + i];
            sums[2 * b + h] = (int16_t)sum;
        }
    }
}

#endif
