/* SPDX-License-Identifier: MIT
 * Direct reads or the page cache: what measures faster; see reader.h. */
#include <stdlib.h>

#include "engine/base/os.h"
#include "engine/base/os_read.h"
#include "engine/base/reader.h"

enum { LEAST_READ = 64 << 10, MOST_READ = 8 << 20, BATCH_BYTES = 8 << 20, MOST_BATCH = 32, MOST_BYTES = 64 << 20 };
static const double TIME = 0.08;  /* seconds of reading, both ways; the last round may go beyond */
static const double MARGIN = 1.1; /* copying takes processor time from the computing: the cache has to be worth it */

/* One way of reading and what it gave. */
typedef struct way {
    ht_reader *r;
    uint64_t bytes; /* of the batches of the largest size that was tried */
    double seconds;
} way;

typedef struct trial {
    ht_read reads[MOST_BATCH];
    uint8_t *memory;
    size_t memory_bytes, read_bytes;
    uint64_t n_places, next, step; /* places: file cut into reads; each is used once, in a scattered order */
} trial;

/* Reads n places together. */
static ht_status batch(trial *t, way *w, uint32_t n, double *seconds, ht_error *err)
{
    const double begin = ht_os_now();
    for (uint32_t i = 0; i < n; i++)
        ht_reader_submit(w->r, &t->reads[i], false);
    for (uint32_t i = 0; i < n; i++) {
        ht_status st;
        while ((st = ht_reader_wait(w->r, &t->reads[i], 1000000, err)) == HT_LATER)
            ;
        if (st != HT_OK) /* the others are taken back by close */
            return st;
    }
    *seconds = ht_os_now() - begin;
    return HT_OK;
}

static void take_places(trial *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, t->next++)
        t->reads[i] = (ht_read){ .offset = t->next * t->step % t->n_places * t->read_bytes,
                                 .bytes = t->read_bytes,
                                 .to = t->memory + i * ht_read_room(t->read_bytes) };
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Rounds of one batch each way, growing to the whole batch, until the time is over. */
static ht_status measure(trial *t, way ways[2], const ht_os_file *f, uint32_t n_ways, uint32_t whole,
                         ht_reader_choice *out, ht_error *err)
{
    const double begin = ht_os_now();
    uint64_t all = 0;
    double s, round = 0;
    ht_status st;

    for (uint32_t n = 1, was = 0; t->next + (uint64_t)n * n_ways <= t->n_places;) {
        double now = ht_os_now();
        uint64_t bytes = (uint64_t)n * t->read_bytes;
        if (was && (now - begin + round * n / was > TIME || all + bytes * n_ways > MOST_BYTES))
            return HT_OK;
        for (uint32_t k = 0; k < n_ways; k++) {
            way *w = &ways[k];
            take_places(t, n);
            for (uint32_t i = 0; i < n; i++)
                ht_os_file_forget(f, t->reads[i].offset, t->reads[i].bytes);
            if ((st = batch(t, w, n, &s, err)) != HT_OK)
                return st;
            if (n != was)
                w->bytes = 0, w->seconds = 0;
            w->bytes += bytes;
            w->seconds += s;
            all += bytes;
        }
        /* The last way is the page cache: now it has these. */
        if ((st = batch(t, &ways[n_ways - 1], n, &s, err)) != HT_OK)
            return st;
        out->again_bytes_per_s = s > 0 ? (double)bytes / s : 0;
        round = ht_os_now() - now;
        was = n;
        n = n * 4 < whole ? n * 4 : whole;
    }
    return HT_OK;
}

static double rate(const way *w)
{
    return w->seconds > 0 ? (double)w->bytes / w->seconds : 0;
}

static void decide(ht_reader_choice *out, uint64_t file_bytes, uint64_t room)
{
    const double kept = room < file_bytes ? (double)room / (double)file_bytes : 1.0;
    double cached = out->cached_bytes_per_s;
    if (cached > 0 && out->again_bytes_per_s > cached)
        cached = 1.0 / (kept / out->again_bytes_per_s + (1.0 - kept) / cached);
    const bool direct = out->direct_bytes_per_s * MARGIN >= cached;
    out->io = direct ? HT_IO_DIRECT : HT_IO_CACHED;
    out->expected_bytes_per_s = direct ? out->direct_bytes_per_s : cached;
}

ht_status ht_reader_choose(ht_reader_choice *out, const char *path, size_t read_bytes, uint64_t room, ht_error *err)
{
    way ways[2] = { 0 };
    ht_os_file f;
    ht_status st;
    uint32_t n_ways = 0;

    *out = (ht_reader_choice){ .io = HT_IO_CACHED };
    trial *t = calloc(1, sizeof *t);
    if (!t)
        return ht_fail(err, HT_ENOMEM, "measuring a disk");
    if ((st = ht_os_file_open(&f, path, true, err)) != HT_OK)
        goto done;
    const uint64_t file_bytes = ht_os_file_bytes(&f);
    const bool direct = f.direct;
    ht_os_file_use_cache(&f);
    t->read_bytes = read_bytes < LEAST_READ ? LEAST_READ : read_bytes < MOST_READ ? read_bytes : MOST_READ;
    t->read_bytes -= t->read_bytes % HT_READ_ALIGN;
    t->n_places = file_bytes / t->read_bytes;
    /* Steps of about the golden section land far from each other; every place is met once. */
    t->step = t->n_places * 382 / 1000 + 1;
    while (t->n_places && common_divisor(t->step, t->n_places) != 1)
        t->step++;
    uint32_t whole = (uint32_t)(BATCH_BYTES / t->read_bytes);
    whole = whole < 2 ? 2 : whole < MOST_BATCH ? whole : MOST_BATCH;
    t->memory_bytes = whole * ht_read_room(t->read_bytes);
    if (!(t->memory = ht_os_reserve(t->memory_bytes))) {
        st = ht_fail(err, HT_ENOMEM, "measuring a disk: %zu bytes", t->memory_bytes);
        goto done;
    }
    ht_os_prefer_large(t->memory, t->memory_bytes); /* as the buffers of whoever reads much should be */
    for (int cached = !direct; cached <= 1 && st == HT_OK; cached++) {
        ht_reader_params p = { .paths = &path, .n_paths = 1, .io = cached ? HT_IO_CACHED : HT_IO_DIRECT };
        if ((st = ht_reader_open(&ways[n_ways].r, &p, err)) == HT_OK)
            n_ways++;
    }
    if (st == HT_OK)
        st = measure(t, ways, &f, n_ways, whole, out, err);
    if (st == HT_OK) {
        /* A file system that turns out to refuse direct reads was read through the cache both times. */
        if (direct && ht_reader_get_info(ways[0].r).direct)
            out->direct_bytes_per_s = rate(&ways[0]);
        out->cached_bytes_per_s = rate(&ways[n_ways - 1]);
        decide(out, file_bytes, room);
        if (!direct || !ht_reader_get_info(ways[0].r).direct)
            out->io = HT_IO_CACHED;
    }
done:
    for (uint32_t k = 0; k < n_ways; k++)
        ht_reader_close(ways[k].r);
    ht_os_file_close(&f);
    if (t->memory)
        ht_os_release(t->memory, t->memory_bytes);
    free(t);
    return st;
}
