/* SPDX-License-Identifier: MIT
 * How fast a device is, for plans: its memory, the way to it, what a launch costs. The best of a few tries each, for other
 * programs only make it slower. */
#include <stdlib.h>

#include "gpu/device.h"
#include "gpu/kernels/args.h"

enum { MOST = 256 << 20, LEAST = 1 << 20, TRIES = 3, LAUNCHES = 100, BLOCK_WORDS = 16384, TRANSFER = 32 << 20 };

typedef struct probe {
    ht_gpu *g;
    uint64_t memory, sums, bytes;
    uint8_t *host;
    size_t host_bytes;
} probe;

/* Things whose time is taken: what they queue. */
typedef ht_status probe_fn(const probe *p, uint32_t times, ht_error *err);

static ht_status upload(const probe *p, uint32_t times, ht_error *err)
{
    (void)times;
    return ht_gpu_upload(p->g, HT_GPU_COMPUTE, p->memory, p->host, p->host_bytes, err);
}

static ht_status download(const probe *p, uint32_t times, ht_error *err)
{
    (void)times;
    return ht_gpu_download(p->g, HT_GPU_COMPUTE, p->host, p->memory, p->host_bytes, err);
}

static ht_status read_words(const probe *p, uint64_t words, ht_error *err)
{
    const read_args a = { .n = BLOCK_WORDS, .all = (uint32_t)words };
    const ht_gpu_launch l = { .kernel = HT_K_read_words, .grid = { (uint32_t)((words + BLOCK_WORDS - 1) / BLOCK_WORDS), 1, 1 },
                              .args = &a, .args_bytes = sizeof a, .ptr = { p->memory, p->sums } };
    return ht_gpu_launch_kernel(p->g, &l, err);
}

static ht_status read_all(const probe *p, uint32_t times, ht_error *err)
{
    (void)times;
    return read_words(p, p->bytes / 4, err);
}

static ht_status launch(const probe *p, uint32_t times, ht_error *err)
{
    ht_status st = HT_OK;
    for (uint32_t i = 0; i < times && st == HT_OK; i++)
        st = read_words(p, 1, err);
    return st;
}

/* Seconds of the shortest of some tries, the first not counted. */
static ht_status time_of(const probe *p, probe_fn *fn, uint32_t times, double *seconds, ht_error *err)
{
    *seconds = 0.0;
    for (uint32_t i = 0; i <= TRIES; i++) {
        const double begin = ht_os_now();
        ht_gpu_event e;
        ht_status st = fn(p, times, err);
        if (st == HT_OK && (st = ht_gpu_record(p->g, HT_GPU_COMPUTE, &e, err)) == HT_OK)
            st = ht_gpu_wait(p->g, e, err);
        if (st != HT_OK)
            return st;
        const double now = ht_os_now() - begin;
        if (i && (*seconds == 0.0 || now < *seconds))
            *seconds = now;
    }
    if (*seconds < 1e-9) /* finer than the clock */
        *seconds = 1e-9;
    return HT_OK;
}

static ht_status measure(const probe *p, ht_gpu_figures *out, ht_error *err)
{
    double s;
    ht_status st;

    if ((st = time_of(p, upload, 1, &s, err)) != HT_OK)
        return st;
    out->upload_bps = (double)p->host_bytes / s;
    if ((st = time_of(p, download, 1, &s, err)) != HT_OK)
        return st;
    out->download_bps = (double)p->host_bytes / s;
    if ((st = time_of(p, launch, 1, &out->submit_s, err)) != HT_OK)
        return st;
    if ((st = time_of(p, launch, LAUNCHES, &s, err)) != HT_OK)
        return st;
    out->launch_s = s / LAUNCHES;
    if ((st = time_of(p, read_all, 1, &s, err)) != HT_OK)
        return st;
    out->read_bps = (double)p->bytes / s;
    return HT_OK;
}

ht_status ht_gpu_measure(ht_gpu *g, ht_gpu_figures *out, ht_error *err)
{
    const uint64_t limit = ht_gpu_limit(g), used = ht_gpu_used(g), left = limit > used ? (limit - used) / 2 : 0;
    probe p = { .g = g, .bytes = (left < MOST ? left : MOST) / 4096 * 4096 };
    ht_status st;

    *out = (ht_gpu_figures){ 0 };
    if (p.bytes < LEAST)
        return ht_fail(err, HT_ENOMEM, "measuring a GPU takes %d bytes of its memory at least", 2 * LEAST);
    p.host_bytes = p.bytes < TRANSFER ? (size_t)p.bytes : TRANSFER;
    p.host = ht_gpu_host_alloc(g, p.host_bytes);
    if (!p.host)
        return ht_fail(err, ht_gpu_lost(g) ? HT_EDEVICE : HT_ENOMEM, "measuring a GPU: %zu bytes of pinned memory",
                       p.host_bytes);
    for (size_t i = 0; i < p.host_bytes; i++)
        p.host[i] = (uint8_t)i;
    if ((st = ht_gpu_alloc(g, p.bytes, &p.memory, err)) == HT_OK &&
        (st = ht_gpu_alloc(g, p.bytes / 4 / BLOCK_WORDS * 4 + 4, &p.sums, err)) == HT_OK)
        st = measure(&p, out, err);
    ht_gpu_free(g, p.memory);
    ht_gpu_free(g, p.sums);
    ht_gpu_host_free(g, p.host);
    return st;
}
