/* SPDX-License-Identifier: MIT
 *
 * The same data on the host and on a device, for running an operation on both executors and comparing the bits. */
#ifndef HT_TESTS_GPU_BENCH_H
#define HT_TESTS_GPU_BENCH_H

#include "tests/gpu/gpu_test.h"

typedef struct pair { /* the same bytes for both */
    void *host;
    uint64_t dev;
    size_t bytes;
} pair;

enum { MOST = 256 };
typedef struct bench {
    ht_gpu *g;
    ht_exec *cpu, *gpu;
    pair p[MOST];
    uint32_t n;
} bench;

/* Executors on the device and on the processor; all memory goes with end(). */
bench begin(ht_gpu *g);
void end(bench *b);

/* Takes host memory and copies it to the device; NULL: `bytes` of 0xff. Returns it. */
void *both(bench *b, void *host, size_t bytes);
float *some(bench *b, size_t n); /* random floats */
float *none(bench *b, size_t n); /* no numbers */

/* The device's pointer for a host's, offsets included; NULL of NULL. */
void *on(const bench *b, const void *host);
ht_act act_on(const bench *b, ht_act a);

/* Compares all floats (or bytes) of a buffer on both sides. */
void check(const bench *b, const void *host, const char *what);
void check_act(const bench *b, const ht_act *a, const char *what);

/* Activations with an 8-bit form, not filled yet. */
ht_act act(bench *b, float *f, uint32_t n_tok, uint32_t k);
/* Fills it on both. */
void quantise(bench *b, ht_act *a, uint32_t n_tok, uint32_t k);

/* A matrix on both; *dev is the device's. */
ht_part matrix(bench *b, ht_type type, uint32_t n, uint32_t k, ht_part *dev);

#endif
