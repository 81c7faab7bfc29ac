/* SPDX-License-Identifier: MIT
 * See bench.h. */
#include "tests/gpu/bench.h"

bench begin(ht_gpu *g)
{
    ht_error err = { 0 };
    bench b = { .g = g, .cpu = open_cpu() };
    ht_gpu_exec_params p = { .scratch_bytes = 1 << 20 };
    cr_assert_eq(ht_gpu_exec_open(&b.gpu, g, &p, &err), HT_OK, "%s", err.text);
    return b;
}

void end(bench *b)
{
    b->gpu->ops->close(b->gpu);
    b->cpu->ops->close(b->cpu);
    for (uint32_t i = 0; i < b->n; i++)
        free(b->p[i].host);
}

void *both(bench *b, void *host, size_t bytes)
{
    if (!host)
        memset(host = malloc(bytes + 1), 0xff, bytes);
    b->p[b->n++] = (pair){ host, put(b->g, host, bytes), bytes };
    return host;
}

float *some(bench *b, size_t n) { return both(b, floats(n), n * 4); }
float *none(bench *b, size_t n) { return both(b, NULL, n * 4); }

void *on(const bench *b, const void *host)
{
    for (uint32_t i = 0; i < b->n; i++) {
        const size_t at = (size_t)((const uint8_t *)host - (const uint8_t *)b->p[i].host);
        if (host && (const uint8_t *)host >= (const uint8_t *)b->p[i].host && at < b->p[i].bytes)
            return ht_gpu_ptr(b->p[i].dev + at);
    }
    return NULL;
}

ht_act act_on(const bench *b, ht_act a)
{
    a.f = on(b, a.f);
    a.q8.q = on(b, a.q8.q);
    a.q8.d = on(b, a.q8.d);
    a.q8.s = on(b, a.q8.s);
    return a;
}

void check(const bench *b, const void *host, const char *what)
{
    for (uint32_t i = 0; i < b->n; i++)
        if (b->p[i].host == host) {
            float *got = malloc(b->p[i].bytes + 4);
            get(b->g, got, b->p[i].dev, b->p[i].bytes);
            same(got, host, b->p[i].bytes / 4, what);
            cr_assert_eq(memcmp((uint8_t *)got + b->p[i].bytes / 4 * 4, (const uint8_t *)host + b->p[i].bytes / 4 * 4,
                                b->p[i].bytes % 4), 0);
            free(got);
            return;
        }
    cr_assert_fail("%s is no buffer", what);
}

ht_act act(bench *b, float *f, uint32_t n_tok, uint32_t k)
{
    ht_act a = { .f = f, .stride = k };
    a.q8.stride = k;
    a.q8.q = both(b, NULL, (size_t)n_tok * k);
    a.q8.d = both(b, NULL, (size_t)n_tok * k / 32 * 4);
    a.q8.s = both(b, NULL, (size_t)n_tok * k / 16 * 2);
    return a;
}

void check_act(const bench *b, const ht_act *a, const char *what)
{
    check(b, a->f, what);
    if (!a->q8.stride)
        return;
    check(b, a->q8.q, what);
    check(b, a->q8.d, what);
    check(b, a->q8.s, what);
}

ht_part matrix(bench *b, ht_type type, uint32_t n, uint32_t k, ht_part *dev)
{
    ht_error err = { 0 };
    uint8_t *w = weights(type, n, k);
    ht_part p = { .type = type, .n = n, .k = k, .stride = ht_type_row_bytes(ht_type_get(type), k), .host = w };

    cr_assert_eq(ht_gpu_upload_part(b->g, &p, dev, &err), HT_OK, "%s: %s", ht_type_name(type), err.text);
    b->p[b->n++] = (pair){ w, dev->device, 0 };
    return p;
}

void quantise(bench *b, ht_act *a, uint32_t n_tok, uint32_t k)
{
    const ht_op cpu = { .kind = HT_OP_QUANTISE, .n_tok = n_tok, .quantise = { .x = *a, .k = k } };
    ht_op gpu = cpu;
    gpu.quantise.x = act_on(b, *a);
    run(b->cpu, &cpu, 1);
    run(b->gpu, &gpu, 1);
}
