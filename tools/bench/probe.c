/* SPDX-License-Identifier: MIT
 *
 * hearth-probe: what this machine's cores can read from memory and compute in registers: the measures that
 * tools/bench/compare holds an engine against. It is an outside witness: it shares no code with the engine (no header,
 * no function), and builds by itself: cc -O2 -pthread tools/bench/probe.c.
 *
 *   hearth-probe [--threads 1,2] [--cpus 0,1] [--mib 256] [--file FILE] [--gather 576,4096] [--peaks] [--passes 5]
 *
 * Prints one JSON object. For each number of threads, pinned to the first CPUs of the list:
 *
 *  - "sequential": anonymous memory read once from end to end. A core reads faster from several places at once than
 *    from one (it prefetches each by itself), so 1, 2, 4 and 8 streams are tried and the best is told, with "streams";
 *    "one_stream" is what a plain loop gets.
 *  - "file": the same for the pages of FILE, mapped and in the page cache.
 *  - "gather": blocks of so many bytes in random order, as the rows of active neurons are read: 1 to 8 blocks side by
 *    side, with and without prefetching of the next ones, whose places are known ahead.
 *  - "int8", "f32": multiply-adds of registers with registers, two operations each: the best instruction of this
 *    processor, with its name.
 *
 * Every figure is the median of the passes, with "best" beside it. A pass ends when the slowest thread has ended;
 * threads take 256 KiB at a time, so that one that is held up leaves its share to the others. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

enum { MAX_THREADS = 256, MAX_LIST = 32, MAX_PASSES = 99, LINE = 64 };
enum { CHUNK = 256 << 10, STRETCH = CHUNK / 8, GATHERED = 96 << 20 };

typedef struct list {
    size_t v[MAX_LIST > MAX_THREADS ? MAX_LIST : MAX_THREADS];
    size_t n;
} list;

static struct {
    list threads, cpus, gather;
    size_t bytes, passes;
    const char *file;
    bool peaks;
} opt = { .threads = { { 1 }, 1 }, .bytes = (size_t)256 << 20, .passes = 5 };

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "hearth-probe: %s: %s\n", what, why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Reading ---- */

enum { MAX_STREAMS = 8 };

/* Reads n bytes at each of the places p, a line of each in turn; n is a multiple of 64. ahead: as many places that
 * are read next and are prefetched meanwhile, NULL: none. The sum is there so that no load may be left out. */
typedef uint64_t read_fn(const uint8_t *const *p, size_t streams, size_t n, const uint8_t *const *ahead);

typedef uint64_t word2 __attribute__((vector_size(16), may_alias));
typedef uint64_t word4 __attribute__((vector_size(32), may_alias));
typedef uint64_t word8 __attribute__((vector_size(64), may_alias));

/* The loop for one vector type. */
#define READER(name, attribute, word)                                                                                  \
    attribute static uint64_t name(const uint8_t *const *p, size_t streams, size_t n, const uint8_t *const *ahead)     \
    {                                                                                                                  \
        enum { PER_LINE = LINE / sizeof(word) };                                                                       \
        word sum[PER_LINE];                                                                                            \
        uint64_t x = 0;                                                                                                \
        memset(sum, 0, sizeof sum);                                                                                    \
        for (size_t i = 0; i < n; i += LINE)                                                                           \
            for (size_t s = 0; s < streams; s++) {                                                                     \
                const word *w = (const word *)(p[s] + i);                                                              \
                if (ahead)                                                                                             \
                    __builtin_prefetch(ahead[s] + i);                                                                  \
                for (size_t k = 0; k < PER_LINE; k++)                                                                  \
                    sum[k] ^= w[k];                                                                                    \
            }                                                                                                          \
        for (size_t k = 0; k < PER_LINE; k++)                                                                          \
            for (size_t j = 0; j < sizeof(word) / 8; j++)                                                              \
                x ^= sum[k][j];                                                                                        \
        return x;                                                                                                      \
    }

#if defined(__x86_64__)
READER(read_avx512, __attribute__((target("avx512f"))), word8)
READER(read_avx2, __attribute__((target("avx2"))), word4)
#endif
READER(read_plain, , word2)

static read_fn *reader(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return read_avx512;
    if (__builtin_cpu_supports("avx2"))
        return read_avx2;
#endif
    return read_plain;
}

/* ---- Peaks: chains of multiply-adds that stay in registers ---- */

enum { CHAINS = 10, ROUNDS = 1 << 22 };

/* Runs ROUNDS rounds of one step for each chain. */
typedef void peak_fn(void);
typedef struct peak {
    peak_fn *run;
    const char *name;
    double ops; /* of one call */
} peak;

/* A step is assembler, because compilers move multiplications out of such a loop or put sums on the stack: %0 is the
 * chain's sum, %1 free, %2 and %3 the factors. reg: the class of vector registers. */
#define STEP(sum, reg, step) __asm__ volatile(step : "+" reg(sum), "=&" reg(product) : reg(a), reg(b));
#define PEAK(name, attribute, type, zero, reg, step)                                                                   \
    attribute static void name(void)                                                                                   \
    {                                                                                                                  \
        type a = zero, b = zero, product, s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a,      \
             s9 = a;                                                                                                   \
        for (int i = 0; i < ROUNDS; i++) {                                                                             \
            STEP(s0, reg, step)                                                                                        \
            STEP(s1, reg, step) STEP(s2, reg, step) STEP(s3, reg, step) STEP(s4, reg, step) STEP(s5, reg, step)        \
                STEP(s6, reg, step) STEP(s7, reg, step) STEP(s8, reg, step) STEP(s9, reg, step)                        \
        }                                                                                                              \
    }

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vnni")))
#define THREE "vpmaddubsw %2, %3, %1\n\tvpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
PEAK(int8_avx2, AVX2, __m256i, _mm256_setzero_si256(), "x", THREE)
PEAK(int8_avx512, AVX512, __m512i, _mm512_setzero_si512(), "v", THREE)
PEAK(int8_vnni, AVX512, __m512i, _mm512_setzero_si512(), "v", "vpdpbusd %2, %3, %0")
PEAK(f32_avx2, AVX2, __m256, _mm256_setzero_ps(), "x", "vfmadd231ps %2, %3, %0")
PEAK(f32_avx512, AVX512, __m512, _mm512_setzero_ps(), "v", "vfmadd231ps %2, %3, %0")
#elif defined(__aarch64__)
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define I8MM __attribute__((target("arch=armv8.2-a+i8mm")))
PEAK(int8_dotprod, DOTPROD, int8x16_t, vdupq_n_s8(0), "w", "sdot %0.4s, %2.16b, %3.16b")
PEAK(int8_i8mm, I8MM, int8x16_t, vdupq_n_s8(0), "w", "smmla %0.4s, %2.16b, %3.16b")
PEAK(f32_neon, , float32x4_t, vdupq_n_f32(0), "w", "fmla %0.4s, %2.4s, %3.4s")
#endif

/* The best of this processor; run is NULL where there is none. macs: of one instruction. */
static peak peak_of(peak_fn *run, const char *name, double macs)
{
    return (peak){ run, name, 2 * macs * CHAINS * ROUNDS };
}

static peak int8_peak(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni"))
        return peak_of(int8_vnni, "avx512 vpdpbusd", 64);
    if (__builtin_cpu_supports("avx512bw"))
        return peak_of(int8_avx512, "avx512 vpmaddubsw+vpmaddwd+vpaddd", 64);
    if (__builtin_cpu_supports("avx2"))
        return peak_of(int8_avx2, "avx2 vpmaddubsw+vpmaddwd+vpaddd", 32);
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP2) & 1ul << 13) /* HWCAP2_I8MM */
        return peak_of(int8_i8mm, "neon smmla", 32);
    if (getauxval(AT_HWCAP) & 1ul << 20) /* HWCAP_ASIMDDP */
        return peak_of(int8_dotprod, "neon sdot", 16);
#endif
    return (peak){ 0 };
}

static peak f32_peak(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return peak_of(f32_avx512, "avx512 vfmadd", 16);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return peak_of(f32_avx2, "avx2 vfmadd", 8);
#elif defined(__aarch64__)
    return peak_of(f32_neon, "neon fmla", 4);
#endif
    return (peak){ 0 };
}

/* ---- Threads ---- */

/* What the threads of a pass do: read n_units units of `unit` bytes, in the given order where there is one, CHUNK
 * bytes at a time, `streams` units side by side; or run a peak, each for itself. */
typedef struct job {
    const uint8_t *data;
    const uint32_t *order;
    size_t unit, n_units, streams;
    bool ahead; /* the units that come next are prefetched */
    read_fn *read;
    peak_fn *peak;
} job;

static struct {
    job job;
    _Atomic size_t next;
    _Atomic uint64_t sum;
    pthread_barrier_t barrier;
    size_t threads;
} team;

static void pin(size_t thread)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(opt.cpus.v[thread % opt.cpus.n], &one);
    sched_setaffinity(0, sizeof one, &one);
}

/* Where stream s is, of those that begin with unit i. */
static const uint8_t *place(const job *j, size_t i, size_t s)
{
    i = i + s < j->n_units ? i + s : s;
    return j->data + (j->order ? j->order[i] : i) * j->unit;
}

static void work(void)
{
    const job *j = &team.job;
    const uint8_t *p[MAX_STREAMS], *ahead[MAX_STREAMS];
    uint64_t sum = 0;
    if (j->peak) {
        j->peak();
        return;
    }
    for (size_t i, grain = CHUNK / j->unit; (i = atomic_fetch_add(&team.next, grain)) < j->n_units;)
        for (size_t end = i + grain; i < end && i < j->n_units; i += j->streams) {
            for (size_t s = 0; s < j->streams; s++) {
                p[s] = place(j, i, s);
                ahead[s] = place(j, i + j->streams, s);
            }
            sum ^= j->read(p, j->streams, j->unit, j->ahead ? ahead : NULL);
        }
    atomic_fetch_xor(&team.sum, sum);
}

static void *member(void *number)
{
    pin((size_t)(uintptr_t)number);
    for (size_t i = 0; i <= opt.passes; i++) {
        pthread_barrier_wait(&team.barrier);
        work();
        pthread_barrier_wait(&team.barrier);
    }
    return NULL;
}

typedef struct figure {
    double median, best;
} figure;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* amount per second, by all threads together; one pass more goes before, unmeasured. */
static figure measure(const job *j, size_t threads, double amount)
{
    pthread_t others[MAX_THREADS];
    double seconds[MAX_PASSES];
    size_t n = opt.passes;
    team.job = *j;
    pthread_barrier_init(&team.barrier, NULL, (unsigned)threads);
    for (size_t t = 1; t < threads; t++)
        if (pthread_create(&others[t], NULL, member, (void *)(uintptr_t)t))
            fail("a thread", strerror(errno));
    pin(0);
    for (size_t i = 0; i <= n; i++) {
        atomic_store(&team.next, 0);
        pthread_barrier_wait(&team.barrier);
        double begin = now();
        work();
        pthread_barrier_wait(&team.barrier);
        if (i)
            seconds[i - 1] = now() - begin;
    }
    for (size_t t = 1; t < threads; t++)
        pthread_join(others[t], NULL);
    pthread_barrier_destroy(&team.barrier);
    qsort(seconds, n, sizeof *seconds, ascending);
    return (figure){ amount / (n % 2 ? seconds[n / 2] : 0.5 * (seconds[n / 2 - 1] + seconds[n / 2])),
                     amount / seconds[0] };
}

/* ---- Measurements ---- */

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        fail("memory", strerror(errno));
    return p;
}

/* Tries 1, 2, 4 and 8 streams, and each with prefetching where `ahead`; prints the best. */
static void print_reads(job j, size_t threads, bool ahead)
{
    figure best = { 0 }, one = { 0 };
    job best_job = j;
    j.read = reader();
    for (j.streams = 1; j.streams <= MAX_STREAMS; j.streams *= 2)
        for (int with = 0; with <= ahead; with++) {
            j.ahead = with;
            figure f = measure(&j, threads, (double)(j.n_units * j.unit));
            if (j.streams == 1 && !with)
                one = f;
            if (f.median > best.median) {
                best = f;
                best_job = j;
            }
        }
    printf("\"bytes_per_s\": %.0f, \"best\": %.0f, \"streams\": %zu, \"prefetch\": %s, \"one_stream\": %.0f}",
           best.median, best.best, best_job.streams, best_job.ahead ? "true" : "false", one.median);
}

static void print_sequential(const char *name, const uint8_t *data, size_t bytes, size_t threads)
{
    /* Streams are stretches of 32 KiB; a unit's neighbours are the streams beside it. */
    printf(", \"%s\": {", name);
    print_reads((job){ .data = data, .unit = STRETCH, .n_units = bytes / CHUNK * (CHUNK / STRETCH) }, threads, false);
}

static void print_gather(const uint8_t *data, size_t bytes, size_t block, size_t threads)
{
    size_t n = bytes / block;
    uint32_t *order = map(n * sizeof *order);
    uint64_t x = 1;
    for (size_t i = 0; i < n; i++) { /* a random order, the same in every run (Knuth's generator and shuffle) */
        x = x * 6364136223846793005u + 1442695040888963407u;
        size_t k = (size_t)((x >> 33) % (i + 1));
        order[i] = order[k];
        order[k] = (uint32_t)i;
    }
    /* Blocks from everywhere, but no more of them than is needed to leave no cache any hope. */
    size_t some = GATHERED / block;
    printf("{\"block\": %zu, ", block);
    print_reads((job){ .data = data, .order = order, .unit = block, .n_units = n < some ? n : some }, threads, true);
    munmap(order, n * sizeof *order);
}

static void print_peak(const char *name, peak p, size_t threads)
{
    if (!p.run)
        return;
    figure f = measure(&(job){ .peak = p.run }, threads, p.ops * (double)threads);
    printf(", \"%s\": {\"ops_per_s\": %.0f, \"best\": %.0f, \"by\": \"%s\"}", name, f.median, f.best, p.name);
}

static const uint8_t *map_file(size_t *bytes)
{
    struct stat st;
    int fd = open(opt.file, O_RDONLY);
    if (fd < 0 || fstat(fd, &st))
        fail(opt.file, strerror(errno));
    *bytes = (size_t)st.st_size < opt.bytes ? (size_t)st.st_size : opt.bytes;
    if (*bytes < CHUNK)
        fail(opt.file, "is too small to measure");
    void *p = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        fail(opt.file, strerror(errno));
    close(fd);
    return p;
}

/* ---- The command line ---- */

static bool parse_list(const char *text, size_t least, size_t most, list *l)
{
    for (l->n = 0; l->n < sizeof l->v / sizeof *l->v;) {
        char *end;
        unsigned long v = strtoul(text, &end, 10);
        if (end == text || *text == '-' || v < least || v > most)
            return false;
        l->v[l->n++] = v;
        if (!*end)
            return true;
        if (*end != ',')
            return false;
        text = end + 1;
    }
    return false;
}

static void parse(int argc, char **argv)
{
    list one;
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        bool ok = true;
        if (!strcmp(flag, "--peaks")) {
            opt.peaks = true;
            continue;
        }
        if (!strcmp(flag, "--threads"))
            ok = parse_list(value, 1, MAX_THREADS, &opt.threads);
        else if (!strcmp(flag, "--cpus"))
            ok = parse_list(value, 0, CPU_SETSIZE - 1, &opt.cpus);
        else if (!strcmp(flag, "--gather"))
            ok = parse_list(value, LINE, CHUNK, &opt.gather);
        else if (!strcmp(flag, "--mib") && (ok = parse_list(value, 1, 1 << 20, &one)))
            opt.bytes = one.v[0] << 20;
        else if (!strcmp(flag, "--passes") && (ok = parse_list(value, 1, MAX_PASSES, &one)))
            opt.passes = one.v[0];
        else if (!strcmp(flag, "--file"))
            opt.file = value;
        else if (strcmp(flag, "--mib") && strcmp(flag, "--passes"))
            ok = false;
        if (!ok)
            fail(flag, "not understood; see the head of tools/bench/probe.c");
        i++;
    }
    for (size_t i = 0; i < opt.gather.n; i++)
        if (opt.gather.v[i] % LINE)
            fail("--gather", "blocks are multiples of 64 bytes");
    cpu_set_t mine;
    if (!opt.cpus.n && !sched_getaffinity(0, sizeof mine, &mine))
        for (size_t c = 0; c < CPU_SETSIZE && opt.cpus.n < MAX_THREADS; c++)
            if (CPU_ISSET(c, &mine))
                opt.cpus.v[opt.cpus.n++] = c;
    if (!opt.cpus.n)
        opt.cpus.n = 1;
}

int main(int argc, char **argv)
{
    size_t file_bytes = 0;
    parse(argc, argv);
    const uint8_t *file = opt.file ? map_file(&file_bytes) : NULL;
    uint8_t *data = map(opt.bytes);
    madvise(data, opt.bytes, MADV_HUGEPAGE);
    memset(data, 1, opt.bytes);
    printf("{\"bytes\": %zu, \"passes\": %zu, \"threads\": [", opt.bytes, opt.passes);
    for (size_t i = 0; i < opt.threads.n; i++) {
        size_t t = opt.threads.v[i];
        printf("%s{\"threads\": %zu", i ? ", " : "", t);
        print_sequential("sequential", data, opt.bytes, t);
        if (file)
            print_sequential("file", file, file_bytes, t);
        if (opt.gather.n)
            printf(", \"gather\": [");
        for (size_t g = 0; g < opt.gather.n; g++) {
            printf("%s", g ? ", " : "");
            print_gather(data, opt.bytes, opt.gather.v[g], t);
        }
        if (opt.gather.n)
            printf("]");
        if (opt.peaks) {
            print_peak("int8", int8_peak(), t);
            print_peak("f32", f32_peak(), t);
        }
        printf("}");
    }
    puts("]}");
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
