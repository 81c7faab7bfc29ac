/* SPDX-License-Identifier: MIT
 * How fast this machine's cores read memory: the measure that token loops are held against. See cpu.h. */
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/stream.h"
#include "engine/base/os.h"

enum { PASSES = 5, UNIT = 32 /* words that the kernel reads at once */ };

struct probe {
    uint64_t (*read)(const uint64_t *x, size_t n);
    const uint64_t *data;
    size_t words_per_chunk;
    uint64_t sums[256]; /* by thread; so that no load may be left out */
};

static void read_chunks(const void *ctx, uint32_t first, uint32_t n, uint32_t thread)
{
    struct probe *p = (struct probe *)(uintptr_t)ctx;
    p->sums[thread % 256] ^= p->read(p->data + (size_t)first * p->words_per_chunk, n * p->words_per_chunk);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void pin(void *user, uint32_t thread) { ht_topology_pin(user, thread); }

double ht_cpu_read_bandwidth(const ht_topology *topology, uint32_t threads, size_t bytes)
{
    ht_stream *s = NULL;
    double seconds[PASSES], result = 0.0;
    uint32_t chunks = 16 * threads;
    struct probe p = { 0 };
    ht_kernels kernels;

    ht_kernels_init(&kernels, ht_isa_best());
    p.read = kernels.vec.read;
    p.words_per_chunk = bytes / chunks / (UNIT * sizeof(uint64_t)) * UNIT;
    size_t used = p.words_per_chunk * chunks * sizeof(uint64_t);
    if (used == 0 || ht_stream_open(&s, threads, pin, (void *)(uintptr_t)topology, NULL) != HT_OK)
        return 0.0;
    uint64_t *data = ht_os_reserve(used);
    if (data) {
        memset(data, 1, used);
        p.data = data;
        for (int i = -1; i < PASSES; i++) { /* the first is for warming up */
            double t0 = ht_os_now();
            ht_task all = { .fn = read_chunks, .ctx = &p, .n_chunks = chunks };
            ht_stream_wait(s, ht_stream_push(s, &all), NULL);
            if (i >= 0)
                seconds[i] = ht_os_now() - t0;
        }
        qsort(seconds, PASSES, sizeof *seconds, ascending);
        result = (double)used / seconds[PASSES / 2];
        ht_os_release(data, used);
    }
    ht_stream_close(&s);
    return result;
}
