/* SPDX-License-Identifier: MIT
 *
 * Micro-benchmark of the attention kernels on one core: every variant of cpu/attend.inc, for a token that is generated
 * (keys and values from memory, GB/s of KV bytes beside the read bandwidth of the same run) and for a prompt (share of the
 * float32 multiply-add peak, counted over the positions that are seen). Reads internal headers on purpose; not part of the
 * hearth command.
 *
 *   micro_attend [--csv] [--type f16] [--isa avx2] [--dim 64] [--group 4] [--ram-mib 256] [--tokens 512] [--only decode|prompt]
 *
 * Figures are the best of several passes. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/attend.h"
#include "cpu/vec.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { PASSES = 5, MAX_TOKENS = 4096 };

static struct {
    bool csv;
    int type, isa;
    uint32_t dim, group, tokens;
    size_t ram;
    const char *only;
} opt = { .type = -1, .isa = -1, .ram = (size_t)256 << 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static volatile float sink;

#if defined(__x86_64__)
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 10")
#endif

/* Multiply-adds per second of ten chains that touch registers only. */
#define PEAK(vec, set1, fma, first, lanes)                                                                             \
    const long n = 20000000;                                                                                           \
    vec a[10], w = set1(1e-9f), x = set1(0.5f);                                                                        \
    for (int i = 0; i < 10; i++)                                                                                       \
        a[i] = set1(0.0f);                                                                                             \
    __asm__ volatile("" : "+v"(w), "+v"(x));                                                                           \
    double t = now();                                                                                                  \
    for (long r = 0; r < n; r++)                                                                                       \
        UNROLL for (int i = 0; i < 10; i++) a[i] = fma(w, x, a[i]);                                                    \
    t = now() - t;                                                                                                     \
    for (int i = 0; i < 10; i++)                                                                                       \
        sink = first(a[i]);                                                                                            \
    return 10.0 * (lanes) * (double)n / t;

__attribute__((target("avx512f"))) static double peak_avx512(void)
{
    PEAK(__m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_cvtss_f32, 16)
}
__attribute__((target("avx2,fma"))) static double peak_avx2(void)
{
    PEAK(__m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_cvtss_f32, 8)
}
#endif

/* Of the widest instructions that level `isa` may use; 0: not known here. */
static double peak(ht_isa isa)
{
#if defined(__x86_64__)
    if (ht_isa_has(isa, HT_ISA_AVX512))
        return peak_avx512();
    if (ht_isa_has(isa, HT_ISA_AVX2))
        return peak_avx2();
#endif
    (void)isa;
    return 0;
}

static uint8_t *memory; /* opt.ram bytes of pages, K then V */
static ht_vec_kernels vec;
static void *scratch;
static float *q, *o;
static double read_bps;

typedef struct bench {
    const char *name;
    ht_isa isa;
    ht_attend_fn *fn;
    ht_type type;
    uint32_t dim, group;
    size_t half; /* bytes of K, or of V, of one page */
    double top;
} bench;

/* The spans of memory hold one head's pages one after another. */
static ht_attend_span span_at(const bench *b, size_t span, ht_attend_query *query, uint32_t n_q)
{
    ht_attend_span s = { .type = b->type, .k_dim = b->dim, .v_dim = b->dim, .scale = 0.1f, .n_q = n_q, .query = query,
                         .scratch = scratch };
    for (uint32_t p = 0; p < HT_ATTEND_PAGES; p++) {
        s.k[p] = memory + (span * HT_ATTEND_PAGES + p) * 2 * b->half;
        s.v[p] = s.k[p] + b->half;
    }
    return s;
}

/* Random keys and values: one page, then copies of it. */
static size_t fill(const bench *b)
{
    size_t n = opt.ram / (2 * b->half * HT_ATTEND_PAGES) * HT_ATTEND_PAGES;
    for (uint32_t j = 0; j < HT_KV_PAGE; j++) {
        ht_attend_store_k(&vec, b->type, q + (size_t)j * 7, b->dim, memory, j);
        ht_attend_store_v(&vec, b->type, q + (size_t)j * 5, b->dim, memory + b->half, j);
    }
    for (size_t i = 1; i < n; i++)
        memcpy(memory + i * 2 * b->half, memory, 2 * b->half);
    return n / HT_ATTEND_PAGES;
}

static void tell(const bench *b, const char *kind, uint32_t tokens, double value, double share)
{
    if (opt.csv)
        printf("%s,%s,%s,%u,%u,%u,%.4g,%.3f\n", kind, b->name, ht_type_name(b->type), b->dim, b->group, tokens, value,
               share);
    else
        printf("%-7s %-18s %-5s head %3u group %2u tokens %4u %8.2f %s  %5.1f %% of %s\n", kind, b->name,
               ht_type_name(b->type), b->dim, b->group, tokens, value * 1e-9, tokens == 1 ? "GB/s" : "G multiply-adds/s",
               100 * share, tokens == 1 ? "bandwidth" : "peak");
    fflush(stdout);
}

static void decode(const bench *b)
{
    ht_attend_query query[HT_ATTEND_QUERIES];
    const size_t spans = fill(b), bytes = spans * HT_ATTEND_PAGES * 2 * b->half;
    double best = 0;

    for (uint32_t i = 0; i < b->group; i++)
        query[i] = (ht_attend_query){ .q = q + (size_t)i * b->dim, .j1 = HT_ATTEND_SPAN, .o = o + (size_t)i * b->dim };
    for (int r = 0; r < PASSES; r++) {
        double t = now();
        for (size_t i = 0; i < spans; i++) {
            const ht_attend_span s = span_at(b, i, query, b->group);
            b->fn(&s);
        }
        t = now() - t;
        best = (double)bytes / t > best ? (double)bytes / t : best;
    }
    tell(b, "decode", 1, best, best / read_bps);
}

/* A prompt of n tokens from an empty context for one KV head, in the executor's stretches; spans are joined outside. */
static void prompt(const bench *b, uint32_t n)
{
    ht_attend_query query[HT_ATTEND_QUERIES];
    const uint32_t total = n * b->group;
    double best = 0, work = 0;

    fill(b);
    for (int r = 0; r < PASSES; r++) {
        double t = now();
        work = 0;
        for (uint32_t f = 0; f < total; f += HT_ATTEND_QUERIES) {
            const uint32_t n_q = total - f < HT_ATTEND_QUERIES ? total - f : HT_ATTEND_QUERIES;
            for (uint32_t at = 0; at <= (f + n_q - 1) / b->group; at += HT_ATTEND_SPAN) {
                for (uint32_t i = 0; i < n_q; i++) {
                    const uint32_t end = (f + i) / b->group + 1;
                    const uint32_t j1 = end <= at ? 0 : end - at < HT_ATTEND_SPAN ? end - at : HT_ATTEND_SPAN;
                    query[i] = (ht_attend_query){ .q = q + (size_t)(f + i) % 4096 * 16, .j1 = j1,
                                                  .o = o + (size_t)i * b->dim };
                    work += (double)j1 * 2 * b->dim;
                }
                const ht_attend_span s = span_at(b, at / HT_ATTEND_SPAN, query, n_q);
                b->fn(&s);
            }
        }
        t = now() - t;
        best = work / t > best ? work / t : best;
    }
    tell(b, "prompt", n, best, b->top > 0 ? best / b->top : 0);
}

static void run(bench b)
{
    static const ht_type types[] = { HT_F16, HT_Q8_0, HT_Q4_0, HT_F32 };
    static const uint32_t dims[] = { 64, 128 }, groups[] = { 1, 2, 4, 6, 7, 8, 16 }, tokens[] = { 512, 2048, 4096 };

    if ((opt.isa >= 0 && b.isa != (ht_isa)opt.isa) || !ht_isa_runs(b.isa) ||
        (opt.isa < 0 && b.isa == HT_ISA_REF))
        return;
    b.top = peak(b.isa);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++)
            for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
                b.type = types[t], b.dim = dims[d], b.group = groups[g];
                b.half = HT_KV_PAGE * ht_type_row_bytes(ht_type_get(b.type), b.dim);
                if ((opt.type >= 0 && b.type != (ht_type)opt.type) || (opt.dim && b.dim != opt.dim) ||
                    (opt.group && b.group != opt.group))
                    continue;
                if (!opt.only || !strcmp(opt.only, "decode"))
                    decode(&b);
                for (size_t n = 0; n < 3 && (!opt.only || !strcmp(opt.only, "prompt")); n++)
                    if (opt.tokens ? opt.tokens == tokens[n] : n < 2)
                        prompt(&b, tokens[n]);
            }
}

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--csv")) {
            opt.csv = true;
            continue;
        }
        if (i + 1 == argc)
            return false;
        const char *name = argv[i], *v = argv[++i];
        if (!strcmp(name, "--type")) {
            if ((opt.type = ht_type_by_name(v)) < 0)
                return false;
        } else if (!strcmp(name, "--isa")) {
            if ((opt.isa = ht_isa_by_name(v)) < 0)
                return false;
        } else if (!strcmp(name, "--dim")) {
            opt.dim = (uint32_t)strtoul(v, NULL, 10);
        } else if (!strcmp(name, "--group")) {
            opt.group = (uint32_t)strtoul(v, NULL, 10);
        } else if (!strcmp(name, "--tokens")) {
            opt.tokens = (uint32_t)strtoul(v, NULL, 10);
        } else if (!strcmp(name, "--ram-mib")) {
            opt.ram = (size_t)strtoul(v, NULL, 10) << 20;
        } else if (!strcmp(name, "--only")) {
            opt.only = v;
        } else {
            return false;
        }
    }
    return opt.ram >= (size_t)16 << 20; /* MAX_TOKENS positions of the largest rows */
}

int main(int argc, char **argv)
{
    const size_t n_q = (size_t)MAX_TOKENS * 16 + 4096;
    uint64_t x = 1, sum = 0;

    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: micro_attend [--csv] [--type T] [--isa I] [--dim D] [--group G] [--ram-mib N] [--tokens N] "
                        "[--only decode|prompt]\n");
        return 2;
    }
    memory = aligned_alloc(4096, (opt.ram + 4095) / 4096 * 4096);
    scratch = aligned_alloc(64, (ht_attend_scratch_bytes(256) + 63) / 64 * 64);
    q = malloc(n_q * sizeof *q);
    o = malloc((size_t)HT_ATTEND_QUERIES * 128 * sizeof *o);
    if (!memory || !scratch || !q || !o) {
        fprintf(stderr, "micro_attend: out of memory\n");
        return 1;
    }
    for (size_t i = 0; i < n_q; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        q[i] = (float)(int32_t)(x >> 32) * 0x1p-31f;
    }
    ht_vec_kernels_init(&vec, ht_isa_best());
    memset(memory, 1, opt.ram);
    for (int i = 0; i < PASSES; i++) {
        double t = now();
        sum ^= vec.read((const uint64_t *)(const void *)memory, opt.ram / 8);
        t = (double)opt.ram / (now() - t);
        read_bps = t > read_bps ? t : read_bps;
    }
    sink = (float)sum;
    if (opt.csv)
        printf("kind,name,type,head_dim,group,tokens,per_s,share\nread,,,,,,%.4g,1\n", read_bps);
    else
        printf("best level %s; one core reads %.2f GB/s from memory (%zu MiB)\n", ht_isa_name(ht_isa_best()),
               read_bps * 1e-9, opt.ram >> 20);
#define HT_ATTEND(level, kernel) run((bench){ .name = #kernel, .isa = HT_ISA_##level, .fn = kernel });
#include "cpu/attend.inc"
#undef HT_ATTEND
    free(memory), free(scratch), free(q), free(o);
    return 0;
}
