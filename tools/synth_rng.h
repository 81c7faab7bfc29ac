/* SPDX-License-Identifier: MIT
 *
 * Random numbers of the model synthesiser: a counter-based generator, so that any row of any tensor can be made by any
 * thread in any order with the same result. A stream is named by a key (seed, tensor, row, ...); its i-th word is a mix
 * of key and i (the output function of splitmix64). Normal deviates come from a table of 4096 quantiles of equal
 * probability, five per word: weights are quantised afterwards, and sums over a row are normal whatever the grain.
 *
 * Owner: plain data. Threads: any; the table is read-only once made. */
#ifndef HEARTH_TOOLS_SYNTH_RNG_H
#define HEARTH_TOOLS_SYNTH_RNG_H

#include <stddef.h>
#include <stdint.h>

#define SYNTH_NORMALS 4096u

static inline uint64_t synth_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A key below another key: stream `what` of the object `key`. */
static inline uint64_t synth_key(uint64_t key, uint64_t what)
{
    return synth_mix(key + 0x9e3779b97f4a7c15u * (what + 1));
}

/* Word i of a stream. */
static inline uint64_t synth_word(uint64_t key, uint64_t i)
{
    return synth_mix(key ^ (i * 0xd1342543de82ef95u + 0x9e3779b97f4a7c15u));
}

/* Uniform in (0, 1). */
static inline double synth_uniform(uint64_t key, uint64_t i)
{
    return ((double)(synth_word(key, i) >> 11) + 0.5) * 0x1p-53;
}

uint64_t synth_key_text(uint64_t key, const char *name);

/* Quantile function and upper tail of the standard normal distribution. */
double synth_normal_quantile(double p);
double synth_normal_tail(double t);

void synth_normals_init(float table[SYNTH_NORMALS]);
/* dst[0..n) = scale × standard normal deviates of the stream. */
void synth_normals_fill(const float table[SYNTH_NORMALS], uint64_t key, float scale, float *dst, size_t n);
/* dst[0..n) = scale × one of -1, 0, 1 with equal probability. */
void synth_ternary_fill(uint64_t key, float scale, float *dst, size_t n);
/* Writes a random permutation of 0..n-1. */
void synth_shuffle(uint64_t key, uint32_t *p, uint32_t n);

#endif
