/* SPDX-License-Identifier: MIT
 *
 * hearth-disk FILE [--cold] [--sizes 64K,1M,...] [--depths 1,4,...] [--ways direct,direct-threads,cached,cached-uring]
 *             [--piece BYTES] [--threads N] [--seconds 0.3] [--large] [--choose BYTES]
 *
 * What a disk gives to engine/base/reader.h: reads of SIZE bytes at places of FILE in a scattered order, DEPTH of them
 * under way, each a piece of its own (or cut into --piece bytes). A table of MB/s (10^6 bytes per second) for each way,
 * and of the processor's milliseconds per GB, those of the kernel counted: what reading takes from computing.
 *
 *   --cold     the file's pages leave the page cache before each cell; without it cached reads may find them there
 *   --large    buffers of large pages: a request of the disk holds a few hundred runs of pages, here long ones
 *   --choose   what ht_reader_choose says for reads of so many bytes, with no room and with room for all of the file
 *
 * Places go on from cell to cell, so that a disk with a cache of its own does not see the same ones again until all of
 * FILE was read: FILE should be some GB. Threads: one, and the reader's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "engine/base/os_read.h"
#include "engine/base/reader.h"

enum { MOST = 16, MOST_DEPTH = 256 };

static const struct way {
    const char *name;
    ht_io io;
    bool threads;
} ways[] = { { "direct", HT_IO_DIRECT, false },
             { "direct-threads", HT_IO_DIRECT, true },
             { "cached", HT_IO_CACHED, true },
             { "cached-uring", HT_IO_CACHED, false } };
enum { N_WAYS = sizeof ways / sizeof *ways };

typedef struct list {
    size_t v[MOST];
    uint32_t n;
} list;

static struct {
    const char *file;
    list sizes, depths;
    bool way[N_WAYS], cold, large;
    size_t piece, threads, choose;
    double seconds;
} opt = { .sizes = { { 64 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 8 << 20 }, 6 },
          .depths = { { 1, 2, 4, 8, 16, 32 }, 6 },
          .way = { true, true, true, true },
          .seconds = 0.3 };

static _Noreturn void stop(const char *what, const char *why)
{
    fprintf(stderr, "hearth-disk: %s: %s\n", what, why);
    exit(1);
}

static bool parse_list(const char *s, list *l)
{
    for (l->n = 0; l->n < MOST;) {
        char *end;
        unsigned long v = strtoul(s, &end, 10);
        unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 0;
        if (end == s || *s == '-' || v == 0 || v > 1u << 30)
            return false;
        l->v[l->n++] = (size_t)v << shift;
        end += shift != 0;
        if (!*end)
            return true;
        if (*end != ',')
            return false;
        s = end + 1;
    }
    return false;
}

static bool parse_ways(const char *s)
{
    memset(opt.way, 0, sizeof opt.way);
    while (*s) {
        size_t n = strcspn(s, ","), k = 0;
        while (k < N_WAYS && (strlen(ways[k].name) != n || strncmp(ways[k].name, s, n) != 0))
            k++;
        if (k == N_WAYS)
            return false;
        opt.way[k] = true;
        s += n + (s[n] == ',');
    }
    return true;
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        list one = { .n = 1 };
        bool ok = true;
        if (!strcmp(flag, "--cold")) {
            opt.cold = true;
            continue;
        }
        if (!strcmp(flag, "--large")) {
            opt.large = true;
            continue;
        }
        if (*flag != '-' && !opt.file) {
            opt.file = flag;
            continue;
        }
        if (!strcmp(flag, "--sizes"))
            ok = parse_list(value, &opt.sizes);
        else if (!strcmp(flag, "--depths"))
            ok = parse_list(value, &opt.depths);
        else if (!strcmp(flag, "--ways"))
            ok = parse_ways(value);
        else if (!strcmp(flag, "--seconds"))
            ok = (opt.seconds = strtod(value, NULL)) > 0;
        else if (!strcmp(flag, "--piece") && (ok = parse_list(value, &one)))
            opt.piece = one.v[0];
        else if (!strcmp(flag, "--threads") && (ok = parse_list(value, &one)))
            opt.threads = one.v[0];
        else if (!strcmp(flag, "--choose") && (ok = parse_list(value, &one)))
            opt.choose = one.v[0];
        else
            ok = false;
        for (uint32_t k = 0; ok && k < opt.depths.n; k++)
            ok = opt.depths.v[k] <= MOST_DEPTH;
        if (!ok)
            stop(flag, "not understood; see the head of tools/bench/disk.c");
        i++;
    }
    if (!opt.file)
        stop("FILE", "is missing");
}

static ht_error err;
static uint64_t place; /* goes on for the whole run */

static void check(ht_status st)
{
    if (st != HT_OK)
        stop("reading", err.text);
}

/* The next of the file's places for reads of this size: steps of about the golden section, 32 bytes off any page. */
static uint64_t next_place(uint64_t file_bytes, size_t size)
{
    uint64_t n = (file_bytes - HT_READ_ALIGN) / size;
    if (n < 2)
        stop(opt.file, "is too small for these reads");
    return (place++ * (n * 382 / 1000 | 1)) % n * size + 32;
}

typedef struct cell {
    double bytes_per_s, cpu_per_byte;
} cell;

static cell measure(const struct way *w, size_t size, uint32_t depth, uint8_t *memory, uint64_t file_bytes)
{
    static ht_read reads[MOST_DEPTH];
    /* No fewer threads than reads: DEPTH is the number under way. */
    ht_reader_params p = { .paths = &opt.file,
                           .n_paths = 1,
                           .io = w->io,
                           .no_uring = w->threads,
                           .force_uring = !w->threads,
                           .threads = opt.threads ? (uint32_t)opt.threads : depth,
                           .piece = (uint32_t)(opt.piece ? opt.piece : size),
                           .depth = opt.piece ? 0 : depth };
    ht_reader *r;
    uint64_t bytes = 0;
    uint32_t under_way = depth;

    p.piece += HT_READ_ALIGN - 1; /* a read that begins within a page takes one more */
    p.piece = (p.piece / HT_READ_ALIGN + !opt.piece) * HT_READ_ALIGN;
    check(ht_reader_open(&r, &p, &err));
    const ht_reader_info info = ht_reader_get_info(r);
    if (info.direct != (w->io == HT_IO_DIRECT) || info.uring == w->threads) {
        ht_reader_close(r);
        return (cell){ 0 };
    }
    const double begin = ht_os_now(), cpu = ht_os_cpu_seconds();
    for (uint32_t i = 0; i < depth; i++) {
        reads[i] =
            (ht_read){ .offset = next_place(file_bytes, size), .bytes = size, .to = memory + i * ht_read_room(size) };
        ht_reader_submit(r, &reads[i], false);
    }
    while (under_way) {
        if (!ht_reader_poll(r, 1000000))
            continue;
        const bool over = ht_os_now() - begin > opt.seconds;
        for (uint32_t i = 0; i < depth; i++) {
            ht_read *x = &reads[i];
            if (!x->bytes || x->state == HT_READ_QUEUED)
                continue;
            check(ht_reader_wait(r, x, 0, &err));
            bytes += size;
            if (over) {
                x->bytes = 0;
                under_way--;
            } else {
                x->offset = next_place(file_bytes, size);
                ht_reader_submit(r, x, false);
            }
        }
    }
    const double seconds = ht_os_now() - begin, cpu_seconds = ht_os_cpu_seconds() - cpu;
    ht_reader_close(r);
    return (cell){ (double)bytes / seconds, cpu_seconds / (double)bytes };
}

static void table(const struct way *w, uint8_t *memory, const ht_os_file *f, uint64_t file_bytes)
{
    cell cells[MOST][MOST] = { 0 };
    for (uint32_t s = 0; s < opt.sizes.n; s++)
        for (uint32_t d = 0; d < opt.depths.n; d++) {
            if (opt.cold)
                ht_os_file_forget(f, 0, 0);
            cells[s][d] = measure(w, opt.sizes.v[s], (uint32_t)opt.depths.v[d], memory, file_bytes);
        }
    if (cells[0][0].bytes_per_s <= 0) {
        printf("%s: refused by this system\n", w->name);
        return;
    }
    for (int what = 0; what < 2; what++) {
        printf("%s, %s\n%10s", w->name, what ? "processor ms per GB" : "MB/s", "depth");
        for (uint32_t d = 0; d < opt.depths.n; d++)
            printf("%8zu", opt.depths.v[d]);
        for (uint32_t s = 0; s < opt.sizes.n; s++) {
            printf("\n%8zu K", opt.sizes.v[s] >> 10);
            for (uint32_t d = 0; d < opt.depths.n; d++)
                printf("%8.0f", what ? cells[s][d].cpu_per_byte * 1e12 : cells[s][d].bytes_per_s * 1e-6);
        }
        printf("\n");
    }
    fflush(stdout);
}

static void choose(uint64_t file_bytes)
{
    for (int all = 0; all < 2; all++) {
        ht_reader_choice c;
        const double begin = ht_os_now();
        check(ht_reader_choose(&c, opt.file, opt.choose, all ? file_bytes : 0, &err));
        printf("room for %s: %s (direct %.0f, cached %.0f, again %.0f, expected %.0f MB/s; took %.0f ms)\n",
               all ? "all of it" : "nothing", c.io == HT_IO_DIRECT ? "direct" : "cached", c.direct_bytes_per_s * 1e-6,
               c.cached_bytes_per_s * 1e-6, c.again_bytes_per_s * 1e-6, c.expected_bytes_per_s * 1e-6,
               (ht_os_now() - begin) * 1e3);
    }
}

int main(int argc, char **argv)
{
    ht_os_file f;
    size_t room = 0;

    parse(argc, argv);
    check(ht_os_file_open(&f, opt.file, false, &err));
    const uint64_t file_bytes = ht_os_file_bytes(&f);
    if (opt.choose) {
        choose(file_bytes);
        ht_os_file_close(&f);
        return 0;
    }
    for (uint32_t s = 0; s < opt.sizes.n; s++)
        for (uint32_t d = 0; d < opt.depths.n; d++) {
            size_t bytes = ht_read_room(opt.sizes.v[s]) * opt.depths.v[d];
            room = bytes > room ? bytes : room;
        }
    uint8_t *memory = ht_os_reserve(room);
    if (!memory)
        stop("memory", strerror(errno));
    if (opt.large)
        ht_os_prefer_large(memory, room);
    memset(memory, 1, room); /* page faults belong to nobody's figure */
    for (uint32_t k = 0; k < N_WAYS; k++)
        if (opt.way[k])
            table(&ways[k], memory, &f, file_bytes);
    ht_os_release(memory, room);
    ht_os_file_close(&f);
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
