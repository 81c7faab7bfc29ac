/* SPDX-License-Identifier: MIT
 *
 * What the tests of the room gpu share: devices to run on (kernels in plain C forwards and backwards, and OpenCL where a
 * platform is there), memory on them, and data. */
#ifndef HT_TESTS_GPU_H
#define HT_TESTS_GPU_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "gpu/device.h"
#include "gpu/kernels/args.h"
#include "gpu/plain/plain.h"

typedef enum where { PLAIN, BACKWARDS, OPENCL, N_WHERE } where;
extern const char *const where_name[N_WHERE];

/* A device; OpenCL where there is none: the test is skipped. limit 0: 1 GB. */
ht_gpu *open_gpu(where w);
ht_gpu *open_limited(where w, uint64_t limit);
bool have_opencl(void);

/* Memory on the device, with `bytes` of p in it (NULL: 0xff). Failures end the test. */
uint64_t put(ht_gpu *g, const void *p, size_t bytes);
void get(ht_gpu *g, void *p, uint64_t addr, size_t bytes);
void put_at(ht_gpu *g, uint64_t addr, const void *p, size_t bytes);
void settle(ht_gpu *g); /* until all is done */

float rnd(void); /* -1 .. 1, from a seed that every test begins with */
void seed(uint64_t s);
float *floats(size_t n);

/* n rows of k elements of a type with plausible scales: quantised from random floats where that is possible, else random
 * bytes with the scales set. Free it. */
uint8_t *weights(ht_type type, uint32_t n, uint32_t k);

ht_exec *open_cpu(void);
void run(ht_exec *x, const ht_op *ops, size_t n);

/* Equal bits, but that no number equals any other no number. */
void same(const float *got, const float *want, size_t n, const char *what);

/* The test for each device that is there. */
#define FOR_DEVICES(g)                                                                                                 \
    for (where w_ = PLAIN; w_ < N_WHERE; w_++)                                                                         \
        if (w_ != OPENCL || have_opencl())                                                                             \
            for (ht_gpu *g = open_gpu(w_); g; ht_gpu_close(&g))

#endif
