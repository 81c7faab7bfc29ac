/* SPDX-License-Identifier: MIT
 *
 * For the tests of the vec kernels: buffers between guard pages, random data, comparison bit for bit. A buffer ends at
 * the page that must not be touched, so that a read or write one element too far is a crash. */
#ifndef HT_TESTS_TEST_VEC_H
#define HT_TESTS_TEST_VEC_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/vec.h"
#include "engine/base/vmath.h"

enum { GUARD_MAX = 256 };

/* All guarded buffers of a case: freed together. */
typedef struct guards {
    struct { void *base; size_t bytes; } of[GUARD_MAX];
    uint32_t n;
} guards;

static inline void *guard_alloc(guards *g, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
    uint8_t *p = mmap(NULL, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(p != MAP_FAILED && g->n < GUARD_MAX);
    if (body) cr_assert(mprotect(p + page, body, PROT_READ | PROT_WRITE) == 0);
    g->of[g->n].base = p;
    g->of[g->n++].bytes = body + 2 * page;
    memset(p + page, 0xff, body); /* float NaN, half NaN, -1 */
    return p + page + body - bytes;
}

static inline void guard_free(guards *g)
{
    while (g->n) {
        g->n--;
        munmap(g->of[g->n].base, g->of[g->n].bytes);
    }
}

static inline uint32_t rng_next(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*s >> 32);
}

/* About normal, standard deviation near 1. */
static inline float rng_float(uint64_t *s)
{
    float t = 0.0f;
    for (int i = 0; i < 4; i++) t += (float)(rng_next(s) >> 8) * 0x1p-24f - 0.5f;
    return t * 1.7f;
}

/* How wild the data is. */
typedef enum wild { TAME, WIDE, SPECIAL } wild;

static inline float rng_wild(uint64_t *s, wild w)
{
    static const float special[] = { 0.0f, -0.0f, 1e-40f, -1e-45f, 1e-38f, 3e38f, -3e38f, 88.0f, -88.0f, 65504.0f,
                                     65520.0f, 1e-7f, 6e-8f, 2e-8f, INFINITY, -INFINITY, NAN };
    if (w == SPECIAL && rng_next(s) % 4 == 0) return special[rng_next(s) % (sizeof special / sizeof special[0])];
    float f = rng_float(s);
    if (w == WIDE) f *= ht_f32_from_bits((rng_next(s) % 40 + 107) << 23);
    return f;
}

static inline float *guard_floats(guards *g, uint64_t *s, uint32_t n, wild w)
{
    float *p = guard_alloc(g, (size_t)n * sizeof *p);
    for (uint32_t i = 0; i < n; i++) p[i] = rng_wild(s, w);
    return p;
}

static inline void *guard_copy(guards *g, const void *src, size_t bytes)
{
    void *p = guard_alloc(g, bytes);
    memcpy(p, src, bytes);
    return p;
}

/* Index of the first float that differs (any two NaN are equal), n where none does. */
static inline uint32_t first_diff(const float *a, const float *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ht_f32_bits(a[i]) != ht_f32_bits(b[i]) && !(a[i] != a[i] && b[i] != b[i])) return i;
    return n;
}

#define SAME_FLOATS(a, b, n, ...)                                                                                      \
    do {                                                                                                               \
        uint32_t at_ = first_diff(a, b, n);                                                                            \
        if (at_ < (n)) {                                                                                               \
            char what_[200];                                                                                           \
            snprintf(what_, sizeof what_, __VA_ARGS__);                                                                \
            cr_assert_fail("%s: element %u is %a, ref has %a", what_, at_, (double)(b)[at_], (double)(a)[at_]);        \
        }                                                                                                              \
    } while (0)

/* A table for each level up to the best of this machine, ref first (again ref where it cannot run one between); returns how
 * many. */
static inline uint32_t vec_levels(ht_vec_kernels out[HT_N_ISA])
{
    uint32_t n = (uint32_t)ht_isa_best() + 1;
    for (uint32_t i = 0; i < n; i++) ht_vec_kernels_init(&out[i], ht_isa_runs((ht_isa)i) ? (ht_isa)i : HT_ISA_REF);
    return n;
}

#endif
