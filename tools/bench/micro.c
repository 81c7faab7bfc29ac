/* SPDX-License-Identifier: MIT
 *
 * Micro-benchmark of the weight kernels on one core: every variant of the lists in cpu/, from cache and from memory,
 * beside the read bandwidth and the peak arithmetic measured in the same run. Reads internal headers on purpose; not
 * part of the hearth command.
 *
 *   micro [--csv] [--type q4_k] [--isa avx2] [--k 4096] [--ram-mib 512] [--tokens 512] [--density 10] [--only
 * dot_q8|dot_f32|rows_q8|rows_f32|down|gemm_q8|gemm_f32]
 *
 * rows_q8, rows_f32: the same dot products with a list of rows, a share of --density percent of them in order. down:
 * projections from the neuron-major form, as many of a segment's neurons, k outputs. Their probe reads the same rows
 * eight side by side, the next ones prefetched.
 * GB/s counts stored bytes of weights. From cache: the best of many calls. From memory: medians over slices of a buffer
 * far larger than any cache, the kernel's and the probe's turn by turn, so that what else the machine does meets both
 * alike. The probe is the faster of two: one ascending stream, and four side by side. Pin it to a core (taskset). */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/dot.h"
#include "cpu/down.h"
#include "cpu/gemm.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Rows of a measurement from cache (well within any L2), of one call from memory (what a thread takes at a time when it
 * generates), and between two looks at the clock. */
enum { L2_BYTES = 256 << 10, CALL_BYTES = 64 << 10, SLICE_BYTES = 2 << 20, N_SLICES = 25 };

static struct {
    bool csv;
    int type, isa;
    uint32_t k, tokens, density;
    size_t ram;
    const char *only;
} opt = { .type = -1, .isa = -1, .k = 4096, .tokens = 512, .density = 10, .ram = (size_t)512 << 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t rnd(uint64_t *s)
{
    *s += 0x9e3779b97f4a7c15u;
    uint64_t z = *s;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 31;
}

/* Any bytes are weights; only the scales must be numbers, or denormals and NaNs would be what is timed. No
 * half-precision number whose top bits are 001 is either, so every byte gets them: good enough for every place a scale
 * may lie. */
static void fill(uint8_t *w, size_t n)
{
    const size_t part = n < 4 << 20 ? n : 4 << 20;
    uint64_t s = 1;
    for (size_t i = 0; i < part; i++)
        w[i] = (uint8_t)((rnd(&s) >> 32 & 0x9f) | 0x20);
    for (size_t i = part; i < n; i += part)
        memcpy(w + i, w, n - i < part ? n - i : part);
}

/* ---- peaks ----------------------------------------------------------------------------------------------------- */

static volatile uint64_t sink;

#if defined(__x86_64__)
/* Reads n bytes as `streams` (a constant) ascending stretches side by side. */
__attribute__((target("avx2"), always_inline)) static inline void read_side_by_side(const uint8_t *p, size_t n,
                                                                                    unsigned streams)
{
    const size_t far = n / streams / 64 * 64;
    __m256i a = _mm256_setzero_si256(), b = a;
    for (size_t i = 0; i < far; i += 64)
        for (unsigned s = 0; s < streams; s++) {
            a = _mm256_xor_si256(a, _mm256_loadu_si256((const __m256i *)(p + s * far + i)));
            b = _mm256_xor_si256(b, _mm256_loadu_si256((const __m256i *)(p + s * far + i + 32)));
        }
    a = _mm256_xor_si256(a, b);
    sink = (uint64_t)_mm256_extract_epi64(a, 0);
}
__attribute__((target("avx2"))) static void read_all(const uint8_t *p, size_t n)
{
    read_side_by_side(p, n, 1);
}
__attribute__((target("avx2"))) static void read_four(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += CALL_BYTES)
        read_side_by_side(p + i, n - i < CALL_BYTES ? n - i : CALL_BYTES, 4);
}

#define TEN(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9)
#define LOOP(type, zero, step, n, sum)                                                                                 \
    type a[10];                                                                                                        \
    for (int i = 0; i < 10; i++)                                                                                       \
        a[i] = zero;                                                                                                   \
    for (long r = 0; r < (n); r++) {                                                                                   \
        TEN(step)                                                                                                      \
    }                                                                                                                  \
    for (int i = 1; i < 10; i++)                                                                                       \
        a[0] = sum(a[0], a[i]);

/* Multiply-adds per second of a loop that touches registers only. */
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static double peak_int8(void)
{
    const long n = 20000000;
    __m512i w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);
    double t = now();
    __asm__ volatile("" : "+v"(w), "+v"(x));
#define STEP(i) a[i] = _mm512_dpbusd_epi32(a[i], w, x);
    LOOP(__m512i, _mm512_setzero_si512(), STEP, n, _mm512_add_epi32)
#undef STEP
    sink = (uint64_t)_mm_extract_epi64(_mm512_castsi512_si128(a[0]), 0);
    return 10.0 * 64 * (double)n / (now() - t);
}

__attribute__((target("avx512f"))) static double peak_f32(void)
{
    const long n = 20000000;
    __m512 w = _mm512_set1_ps(1e-9f), x = _mm512_set1_ps(0.5f);
    double t = now();
    __asm__ volatile("" : "+v"(w), "+v"(x));
#define STEP(i) a[i] = _mm512_fmadd_ps(w, x, a[i]);
    LOOP(__m512, _mm512_setzero_ps(), STEP, n, _mm512_add_ps)
#undef STEP
    sink = (uint64_t)_mm512_cvtss_f32(a[0]);
    return 10.0 * 16 * (double)n / (now() - t);
}

/* vpmaddubsw, vpmaddwd, vpaddd: the usual way to 32-bit sums. In assembler, because compilers may move the
 * multiplications out of the loop or put sums on the stack. */
__attribute__((target("avx2"))) static double peak_int8_avx2(void)
{
    const long n = 20000000;
    const __m256i one = _mm256_set1_epi16(1), w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(5);
    __m256i a[8], p;
    double t = now();
    for (int i = 0; i < 8; i++)
        a[i] = _mm256_setzero_si256();
#define STEP(i)                                                                                                        \
    __asm__ volatile("vpmaddubsw %2, %3, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"                               \
                     : "+x"(a[i]), "=&x"(p)                                                                            \
                     : "x"(x), "x"(w), "x"(one));
    for (long r = 0; r < n; r++) {
        STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7)
    }
#undef STEP
    t = now() - t;
    for (int i = 1; i < 8; i++)
        a[0] = _mm256_add_epi32(a[0], a[i]);
    sink = (uint64_t)_mm256_extract_epi64(a[0], 0);
    return 8.0 * 32 * (double)n / t;
}

__attribute__((target("avx2,fma"))) static double peak_f32_avx2(void)
{
    const long n = 20000000;
    __m256 w = _mm256_set1_ps(1e-9f), x = _mm256_set1_ps(0.5f);
    double t = now();
    __asm__ volatile("" : "+x"(w), "+x"(x));
#define STEP(i) a[i] = _mm256_fmadd_ps(w, x, a[i]);
    LOOP(__m256, _mm256_setzero_ps(), STEP, n, _mm256_add_ps)
#undef STEP
    sink = (uint64_t)_mm256_cvtss_f32(a[0]);
    return 10.0 * 8 * (double)n / (now() - t);
}
#else
static void read_side_by_side(const uint8_t *p, size_t n, unsigned streams)
{
    const size_t far = n / streams / 64 * 64;
    uint64_t a[8] = { 0 }, v;
    for (size_t i = 0; i < far; i += 64)
        for (unsigned s = 0; s < streams; s++)
            for (int j = 0; j < 8; j++) {
                memcpy(&v, p + s * far + i + 8 * j, 8);
                a[j] ^= v;
            }
    sink = a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}
static void read_all(const uint8_t *p, size_t n)
{
    read_side_by_side(p, n, 1);
}
static void read_four(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += CALL_BYTES)
        read_side_by_side(p + i, n - i < CALL_BYTES ? n - i : CALL_BYTES, 4);
}
#endif

/* Peak of the widest instructions that level `isa` may use; 0: not known here. */
static double peak(ht_isa isa, bool int8)
{
#if defined(__x86_64__)
    if (ht_isa_has(isa, HT_ISA_AVX512))
        return int8 ? peak_int8() : peak_f32();
    if (ht_isa_has(isa, HT_ISA_AVX2))
        return int8 ? peak_int8_avx2() : peak_f32_avx2();
#endif
    (void)int8;
    return 0;
}

/* Rows of a list, eight side by side, those after them prefetched; lines that a row ends within are left out. */
static void read_rows(const uint8_t *p, size_t stride, const uint32_t *rows, uint32_t n, size_t row_bytes)
{
    uint64_t sum[8] = { 0 }, v;
    for (uint32_t i = 0; i + 8 <= n; i += 8)
        for (size_t o = 0; o + 64 <= row_bytes; o += 64)
            for (uint32_t r = 0; r < 8; r++) {
                const uint8_t *line = p + rows[i + r] * stride + o;
                if (i + 16 <= n)
                    __builtin_prefetch(p + rows[i + 8 + r] * stride + o);
                for (int j = 0; j < 8; j++) {
                    memcpy(&v, line + 8 * j, 8);
                    sum[j] ^= v;
                }
            }
    sink = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

typedef void read_fn(const uint8_t *p, size_t n);

static double speed(read_fn *read, const uint8_t *p, size_t n)
{
    double t = now();
    read(p, n);
    return (double)n / (now() - t);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[n / 2];
}

static uint8_t *weights;

/* The next stretch of the buffer that has not been read for long. */
static const uint8_t *slice(size_t n)
{
    static size_t at;
    if (at + n > opt.ram)
        at = 0;
    at += n;
    return weights + at - n;
}

static double from_cache(void)
{
    double best = 0;
    for (int i = 0; i < 200; i++) {
        double v = speed(read_all, weights, L2_BYTES);
        best = v > best ? v : best;
    }
    return best;
}

static double from_memory(read_fn *read)
{
    double v[N_SLICES];
    for (int i = 0; i < N_SLICES; i++)
        v[i] = speed(read, slice(SLICE_BYTES), SLICE_BYTES);
    return median(v, N_SLICES);
}

/* ---- kernels --------------------------------------------------------------------------------------------------- */

static float *xf, *y;
static int8_t *xq;
static float *xd;
static int16_t *xs;
static void *scratch;
static float *down_y, *down_scratch;

/* One call over n_rows rows. */
typedef struct bench {
    const char *kind, *name;
    ht_type type;
    ht_isa isa;
    ht_dot_q8_fn *dot_q8;
    ht_dot_f32_fn *dot_f32;
    ht_gemm_q8_fn *gemm_q8;
    ht_gemm_f32_fn *gemm_f32;
    ht_down_fn *down;
    const uint32_t *rows; /* a list for the dot products */
} bench;

static void call(const bench *b, const uint8_t *w, size_t stride, uint32_t n_rows)
{
    if (b->dot_q8)
        b->dot_q8(y, w, stride, b->rows, n_rows, &(ht_q8_row){ xq, xd, xs }, opt.k);
    if (b->dot_f32)
        b->dot_f32(y, w, stride, b->rows, n_rows, xf, opt.k);
    if (b->gemm_q8)
        b->gemm_q8(y, n_rows, b->type, w, stride, n_rows, &(ht_q8){ xq, xd, xs, opt.k }, opt.tokens, opt.k, scratch);
    if (b->gemm_f32)
        b->gemm_f32(y, n_rows, b->type, w, stride, n_rows, xf, opt.k, opt.tokens, opt.k, scratch);
}

/* Seconds of the best call within about `budget` seconds, at least `calls`. */
static double best_call(const bench *b, size_t stride, uint32_t n_rows, double budget, int calls)
{
    double best = 1e9, end = now() + budget;
    for (int i = 0; i < calls || now() < end; i++) {
        double t = now();
        call(b, weights, stride, n_rows);
        t = now() - t;
        if (t < best)
            best = t;
    }
    return best;
}

static bool wanted(const bench *b)
{
    if (!ht_isa_runs(b->isa) || (opt.isa >= 0 && (int)b->isa != opt.isa))
        return false;
    if (opt.type >= 0 && (int)b->type != opt.type)
        return false;
    return (!opt.only || !strcmp(opt.only, b->kind)) && opt.k % ht_type_get(b->type)->block == 0;
}

/* Bytes per second over a slice, in calls as long as those of a thread that generates. */
static double from_memory_once(const bench *b, size_t stride)
{
    const uint32_t rows = (uint32_t)(SLICE_BYTES / stride), few = (uint32_t)(CALL_BYTES / stride / 8 * 8 + 8);
    const uint8_t *w = slice(SLICE_BYTES);
    double t = now();
    for (uint32_t r = 0; r < rows; r += few)
        call(b, w + r * stride, stride, rows - r < few ? rows - r : few);
    return (double)(rows * stride) / (now() - t);
}

static void run_dot(const bench *b)
{
    const size_t stride = ht_type_row_bytes(ht_type_get(b->type), opt.k);
    const uint32_t few = (uint32_t)(L2_BYTES / stride);
    if (!wanted(b))
        return;
    double cache = (double)(stride * few) / best_call(b, stride, few, 0.02, 3);
    double v[N_SLICES], one[N_SLICES], four[N_SLICES], ram = 0, read = 1;
    if (cache > 1e9) { /* slow kernels say nothing about memory */
        for (int i = 0; i < N_SLICES; i++) {
            v[i] = from_memory_once(b, stride);
            one[i] = speed(read_all, slice(SLICE_BYTES), SLICE_BYTES);
            four[i] = speed(read_four, slice(SLICE_BYTES), SLICE_BYTES);
        }
        ram = median(v, N_SLICES);
        double r1 = median(one, N_SLICES), r4 = median(four, N_SLICES);
        read = r1 > r4 ? r1 : r4;
    }
    if (opt.csv)
        printf("%s,%s,%s,%s,%" PRIu32 ",,%.3g,%.3g,%.4f,\n", b->kind, b->name, ht_type_get(b->type)->name,
               ht_isa_name(b->isa), opt.k, cache, ram, ram / read);
    else
        printf("%-34s %8.2f GB/s cache  %8.2f GB/s memory  %5.1f %% of read bandwidth (%.2f)\n", b->name, cache / 1e9,
               ram / 1e9, 100 * ram / read, read / 1e9);
    fflush(stdout);
}

/* Of n numbers, ascending, about opt.density in a hundred, the first eight among them. */
static uint32_t pick_rows(uint32_t n, uint32_t *list)
{
    static uint64_t state = 3;
    uint32_t some = 0;
    for (uint32_t i = 0; i < n; i++) {
        list[some] = i;
        some += i < 8 || rnd(&state) % 100 < opt.density;
    }
    return some;
}

static void tell_gathered(const bench *b, const char *kind, double v[N_SLICES], double read[N_SLICES])
{
    const double ram = median(v, N_SLICES), probe = median(read, N_SLICES);
    if (opt.csv)
        printf("%s,%s,%s,%s,%" PRIu32 ",,,%.3g,%.4f,\n", kind, b->name, ht_type_get(b->type)->name,
               ht_isa_name(b->isa), opt.k, ram, ram / probe);
    else
        printf("%-34s %8s rows %8.2f GB/s memory  %5.1f %% of gathered reads (%.2f)\n", b->name, "listed", ram / 1e9,
               100 * ram / probe, probe / 1e9);
    fflush(stdout);
}

/* A dot product with a list of rows, in calls of a run of neurons. */
static void run_rows(bench b)
{
    enum { RUN = 512 };
    const size_t stride = ht_type_row_bytes(ht_type_get(b.type), opt.k);
    uint32_t list[RUN];
    double v[N_SLICES], read[N_SLICES];
    if (!wanted(&b) || b.isa == HT_ISA_REF || RUN * stride > opt.ram)
        return;
    b.rows = list;
    for (int i = 0; i < N_SLICES; i++) {
        double bytes[2] = { 0 }, seconds[2] = { 0 };
        for (int part = 0; part < 16; part++) {
            const int probe = part % 2;
            const uint8_t *w = slice(RUN * stride);
            const uint32_t n = pick_rows(RUN, list) & ~7u;
            double t = now();
            if (probe)
                read_rows(w, stride, list, n, stride);
            else
                call(&b, w, stride, n);
            seconds[probe] += now() - t;
            bytes[probe] += (double)(n * stride);
        }
        v[i] = bytes[0] / seconds[0];
        read[i] = bytes[1] / seconds[1];
    }
    tell_gathered(&b, b.kind, v, read);
}

/* A segment's neurons, as many outputs as a slice may have. */
static void run_down(const bench *b)
{
    ht_neurons g;
    uint32_t list[HT_SEGMENT];
    double v[N_SLICES], read[N_SLICES];
    if (!wanted(b) || b->isa == HT_ISA_REF || !ht_neurons_shape(&g, b->type, HT_SEGMENT, opt.k))
        return;
    const size_t whole = (g.bytes + 63) / 64 * 64;
    if (whole > opt.ram)
        return;
    for (int i = 0; i < N_SLICES; i++)
        for (int probe = 0; probe < 2; probe++) {
            const uint32_t n = pick_rows(HT_SEGMENT, list);
            ht_down_slice s = { .g = &g, .w = slice(whole), .list = list, .n_list = n, .q8 = { xq, xd, xs }, .h = xf };
            double bytes = (double)n * (double)g.row_bytes, t = now();
            s.scratch = down_scratch;
            if (probe) {
                read_rows(s.w + g.rows_at, g.stride, list, n, g.row_bytes);
            } else { /* a slice at a time; scales of groups of 32, nearly all of which have an active neuron */
                for (s.first = 0; s.first < opt.k; s.first += HT_DOWN_SLICE) {
                    s.n = opt.k - s.first < HT_DOWN_SLICE ? opt.k - s.first : HT_DOWN_SLICE;
                    b->down(down_y, &s);
                }
                bytes += (double)g.rows_at;
            }
            *(probe ? &read[i] : &v[i]) = bytes / (now() - t);
        }
    tell_gathered(b, b->kind, v, read);
}

static void run_gemm(const bench *b, bool int8)
{
    const size_t stride = ht_type_row_bytes(ht_type_get(b->type), opt.k);
    const uint32_t n_rows = 256;
    if (!wanted(b))
        return;
    double macs = 0, top = 0; /* turn by turn, as above */
    for (int i = 0; i < 4; i++) {
        double v = (double)n_rows * opt.k * opt.tokens / best_call(b, stride, n_rows, 0.08, 2), p = peak(b->isa, int8);
        macs = v > macs ? v : macs;
        top = p > top ? p : top;
    }
    /* few tokens are all unpacking, and that waits for memory */
    double v[N_SLICES], ram = 0;
    for (int i = 0; opt.tokens <= 64 && i < N_SLICES; i++)
        v[i] = from_memory_once(b, stride);
    if (opt.tokens <= 64)
        ram = median(v, N_SLICES);
    const double far = ram / (double)stride * opt.k * opt.tokens; /* multiply-adds per second */
    if (opt.csv)
        printf("%s,%s,%s,%s,%" PRIu32 ",%" PRIu32 ",,%.3g,,%.4f\n", b->kind, b->name, ht_type_get(b->type)->name,
               ht_isa_name(b->isa), opt.k, opt.tokens, ram, top > 0 ? macs / top : 0);
    else
        printf("%-34s %-8s %4" PRIu32
               " tokens %8.1f G multiply-adds/s  %5.1f %% of peak; from memory %6.1f G, %6.2f GB/s\n",
               b->name, ht_type_get(b->type)->name, opt.tokens, macs / 1e9, top > 0 ? 100 * macs / top : 0, far / 1e9,
               ram / 1e9);
    fflush(stdout);
}

static int usage(void)
{
    fprintf(stderr, "usage: micro [--csv] [--type T] [--isa I] [--k K] [--ram-mib N] [--tokens N] "
                    "[--density PERCENT] [--only KIND]\n");
    return 2;
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
        } else if (!strcmp(name, "--k")) {
            opt.k = (uint32_t)strtoul(v, NULL, 10);
        } else if (!strcmp(name, "--ram-mib")) {
            opt.ram = (size_t)strtoul(v, NULL, 10) << 20;
        } else if (!strcmp(name, "--tokens")) {
            opt.tokens = (uint32_t)strtoul(v, NULL, 10);
        } else if (!strcmp(name, "--density")) {
            opt.density = (uint32_t)strtoul(v, NULL, 10);
        } else if (!strcmp(name, "--only")) {
            opt.only = v;
        } else {
            return false;
        }
    }
    return opt.k >= 32 && opt.k % 32 == 0 && opt.k <= 65536 && opt.tokens > 0 && opt.tokens <= 4096 &&
           opt.density > 0 && opt.density <= 100 && opt.ram >= 2 * SLICE_BYTES;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv))
        return usage();
    const size_t asked = (size_t)opt.k * opt.tokens, n_x = asked > HT_SEGMENT ? asked : HT_SEGMENT; /* a segment's h too */
    const size_t n_rows_max = opt.ram / (opt.k / 8) + 256 * (size_t)opt.tokens;
    weights = aligned_alloc(4096, (opt.ram + 4095) / 4096 * 4096);
    xf = calloc(n_x, 4), xq = calloc(n_x, 1), xd = calloc(n_x / 32, 4), xs = calloc(n_x / 16, 2);
    y = calloc(n_rows_max, 4);
    scratch = aligned_alloc(64, (ht_gemm_scratch_bytes(opt.k) + 63) / 64 * 64);
    down_y = aligned_alloc(64, HT_DOWN_SLICE * sizeof(float));
    down_scratch = aligned_alloc(64, (ht_down_scratch_floats() * sizeof(float) + 63) / 64 * 64);
    if (!weights || !xf || !xq || !xd || !xs || !y || !scratch || !down_y || !down_scratch) {
        fprintf(stderr, "micro: out of memory\n");
        return 1;
    }
    uint64_t s = 2;
    fill(weights, opt.ram);
    for (size_t i = 0; i < n_x; i++) {
        xf[i] = (float)(int64_t)rnd(&s) * 0x1p-63f;
        xq[i] = (int8_t)((int)(rnd(&s) >> 32 & 0xfe) - 127);
        xs[i / 16] = (int16_t)(xs[i / 16] + xq[i]);
    }
    for (size_t i = 0; i < n_x / 32; i++)
        xd[i] = 0.01f;

    const double cache = from_cache(), one = from_memory(read_all), four = from_memory(read_four);
    if (opt.csv)
        printf("kind,name,type,isa,k,tokens,cache_bytes_per_s,memory_bytes_per_s,memory_fraction,peak_fraction\n"
               "read,one stream,,,,,%.3g,%.3g,,\nread,four streams,,,,,,%.3g,,\n",
               cache, one, four);
    else
        printf("best level %s; one core reads %.2f GB/s from cache (%d KiB); from memory (%zu MiB) %.2f GB/s in one\n"
               "stream, %.2f in four\n",
               ht_isa_name(ht_isa_best()), cache / 1e9, L2_BYTES >> 10, opt.ram >> 20, one / 1e9, four / 1e9);
#define HT_DOT_Q8(t, i, fn)                                                                                            \
    run_dot(&(bench){ .kind = "dot_q8", .name = #fn, .type = HT_##t, .isa = HT_ISA_##i, .dot_q8 = fn });
#include "cpu/dot_q8.inc"
#undef HT_DOT_Q8
#define HT_DOT_F32(t, i, fn)                                                                                           \
    run_dot(&(bench){ .kind = "dot_f32", .name = #fn, .type = HT_##t, .isa = HT_ISA_##i, .dot_f32 = fn });
#include "cpu/dot_f32.inc"
#undef HT_DOT_F32
#define HT_DOT_Q8(t, i, fn)                                                                                            \
    run_rows((bench){ .kind = "rows_q8", .name = #fn, .type = HT_##t, .isa = HT_ISA_##i, .dot_q8 = fn });
#include "cpu/dot_q8.inc"
#undef HT_DOT_Q8
#define HT_DOT_F32(t, i, fn)                                                                                           \
    run_rows((bench){ .kind = "rows_f32", .name = #fn, .type = HT_##t, .isa = HT_ISA_##i, .dot_f32 = fn });
#include "cpu/dot_f32.inc"
#undef HT_DOT_F32
#define HT_DOWN(t, i, fn)                                                                                              \
    run_down(&(bench){ .kind = "down", .name = #fn, .type = HT_##t, .isa = HT_ISA_##i, .down = fn });
#include "cpu/down.inc"
#undef HT_DOWN
    for (uint32_t t = 0; t < HT_TYPE_MAX; t++) {
        const ht_type_info *info = ht_type_get(t);
        if (!info)
            continue;
#define HT_GEMM_Q8(i, fn)                                                                                              \
    if (info->quantised && HT_ISA_##i != HT_ISA_REF)                                                                   \
        run_gemm(&(bench){ .kind = "gemm_q8", .name = #fn, .type = (ht_type)t, .isa = HT_ISA_##i, .gemm_q8 = fn },     \
                 true);
#define HT_GEMM_F32(i, fn)                                                                                             \
    if (HT_ISA_##i != HT_ISA_REF)                                                                                      \
        run_gemm(&(bench){ .kind = "gemm_f32", .name = #fn, .type = (ht_type)t, .isa = HT_ISA_##i, .gemm_f32 = fn },   \
                 false);
#include "cpu/gemm.inc"
#undef HT_GEMM_Q8
#undef HT_GEMM_F32
    }
    free(weights), free(xf), free(xq), free(xd), free(xs), free(y), free(scratch), free(down_y), free(down_scratch);
    return 0;
}
