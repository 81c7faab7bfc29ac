/* SPDX-License-Identifier: MIT
 * The text file that keeps a machine's figures; the format is in rates.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"
#include "engine/outfile.h"
#include "engine/rates.h"

enum { MOST_BYTES = 64 << 10, MOST_NUMBERS = 7 };
#define FEMTO 1e15
static const uint64_t GREATEST = 1000000000000000000u; /* 1e18, of any figure */

/* A figure that stands by itself, and of what its line counts. */
typedef struct figure {
    const char *name;
    size_t offset; /* of a double in its struct */
    double scale; /* of what is written */
} figure;

static const figure singles[] = {
    { "task_fs", offsetof(ht_rates, task_s), FEMTO },
    { "wait_fs", offsetof(ht_rates, wait_s), FEMTO },
    { "op_fs", offsetof(ht_rates, op_s), FEMTO },
    { "element_fs", offsetof(ht_rates, element_s), FEMTO },
    { "large_gain_millionths", offsetof(ht_rates, large_gain), 1e6 },
    { "memory_bps", offsetof(ht_rates, memory_bps), 1.0 },
    { "disk_direct_bps", offsetof(ht_rates, disk_direct_bps), 1.0 },
    { "disk_cached_bps", offsetof(ht_rates, disk_cached_bps), 1.0 },
    { "gpu_read_bps", offsetof(ht_rates, gpu.read_bps), 1.0 },
    { "gpu_prompt_mps", offsetof(ht_rates, gpu.prompt_mps), 1.0 },
    { "gpu_launch_fs", offsetof(ht_rates, gpu.launch_s), FEMTO },
    { "gpu_join_fs", offsetof(ht_rates, gpu.join_s), FEMTO },
    { "gpu_hop_fs", offsetof(ht_rates, gpu.hop_s), FEMTO },
};
static const figure of_type[MOST_NUMBERS] = {
    { "read_bps", offsetof(ht_type_rates, read_bps), 1.0 },
    { "short_bps", offsetof(ht_type_rates, short_bps), 1.0 },
    { "cached_bps", offsetof(ht_type_rates, cached_bps), 1.0 },
    { "gather_bps", offsetof(ht_type_rates, gather_bps), 1.0 },
    { "prompt16_mps", offsetof(ht_type_rates, prompt_mps), 1.0 },
    { "prompt64_mps", offsetof(ht_type_rates, prompt_mps) + sizeof(double), 1.0 },
    { "prompt512_mps", offsetof(ht_type_rates, prompt_mps) + 2 * sizeof(double), 1.0 },
};
static const figure of_kv[] = {
    { "element_fs", offsetof(ht_kv_rates, element_s), FEMTO },
    { "query_fs", offsetof(ht_kv_rates, query_s), FEMTO },
    { "prompt_mps", offsetof(ht_kv_rates, prompt_mps), 1.0 },
};
enum { N_SINGLES = sizeof singles / sizeof *singles, N_OF_KV = sizeof of_kv / sizeof *of_kv };
_Static_assert(HT_RATES_PROMPTS == 3, "one name each");
_Static_assert(N_SINGLES <= 32, "one bit each");

/* ---- Reading ---- */

typedef struct reader {
    const char *at, *end;
    uint32_t line;
    const char *path;
    ht_error *err;
} reader;

static ht_status damaged(const reader *r, const char *what)
{
    return ht_fail(r->err, HT_EFORMAT, "%s: line %u: %s", r->path, r->line, what);
}

/* The next line, without its end; false: there is none, or it is not whole. */
static bool next_line(reader *r, const char **line, size_t *n)
{
    const char *stop = r->at < r->end ? memchr(r->at, '\n', (size_t)(r->end - r->at)) : NULL;

    r->line++;
    if (!stop)
        return false;
    *line = r->at;
    *n = (size_t)(stop - r->at);
    r->at = stop + 1;
    return true;
}

/* Takes a word and the blank behind it off a line. */
static bool word(const char **line, size_t *n, const char **w, size_t *w_n)
{
    const char *blank = *n ? memchr(*line, ' ', *n) : NULL;

    *w = *line;
    *w_n = blank ? (size_t)(blank - *line) : *n;
    *line += *w_n + (blank != NULL);
    *n -= *w_n + (blank != NULL);
    return *w_n > 0;
}

static bool equals(const char *w, size_t n, const char *text) { return strlen(text) == n && !memcmp(w, text, n); }

static bool number(const char *w, size_t n, uint64_t *out)
{
    uint64_t v = 0;

    if (n == 0 || n > 19)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (w[i] < '0' || w[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(w[i] - '0');
    }
    *out = v;
    return v <= GREATEST;
}

static bool take_number(const char **line, size_t *n, uint64_t *out)
{
    const char *w;
    size_t w_n;

    return word(line, n, &w, &w_n) && number(w, w_n, out);
}

static void set(void *to, const figure *f, uint64_t v)
{
    const double d = (double)v / f->scale;
    memcpy((char *)to + f->offset, &d, sizeof d);
}

/* "NAME NUMBER NAME NUMBER …", all of these names in their order. */
static bool take_list(const char **line, size_t *n, const figure *list, uint32_t n_list, void *to)
{
    for (uint32_t i = 0; i < n_list; i++) {
        const char *w;
        size_t w_n;
        uint64_t v;
        if (!word(line, n, &w, &w_n) || !equals(w, w_n, list[i].name) || !take_number(line, n, &v) || v == 0)
            return false;
        set(to, &list[i], v);
    }
    return *n == 0;
}

/* "type NAME …" and "kv NAME …": of a type that this program knows, once. */
static ht_status read_typed(reader *r, const char *line, size_t n, bool kv, ht_rates *to, uint64_t *seen)
{
    const char *w;
    size_t w_n;
    char name[24];
    int type = -1;

    if (word(&line, &n, &w, &w_n) && w_n < sizeof name) {
        memcpy(name, w, w_n);
        name[w_n] = 0;
        type = ht_type_by_name(name);
    }
    if (type < 0 || type >= HT_TYPE_MAX || *seen >> type & 1)
        return damaged(r, "a type that is unknown, or there twice");
    *seen |= 1ull << type;
    if (!(kv ? take_list(&line, &n, of_kv, N_OF_KV, &to->kv[type])
             : take_list(&line, &n, of_type, MOST_NUMBERS, &to->types[type])))
        return damaged(r, "figures of a type that make no sense");
    return HT_OK;
}

static ht_status read_figure(reader *r, const char *line, size_t n, ht_rates *to, uint32_t *seen, uint64_t *types, uint64_t *kvs)
{
    const char *w;
    size_t w_n;
    uint64_t v;

    if (!word(&line, &n, &w, &w_n))
        return damaged(r, "a line without a name");
    if (equals(w, w_n, "type"))
        return read_typed(r, line, n, false, to, types);
    if (equals(w, w_n, "kv"))
        return read_typed(r, line, n, true, to, kvs);
    if (equals(w, w_n, "gpu_vram_bytes") || equals(w, w_n, "gpu_fixed_bytes")) {
        if (!take_number(&line, &n, &v) || n)
            return damaged(r, "a size that makes no sense");
        *(w[4] == 'v' ? &to->gpu.vram_bytes : &to->gpu.fixed_bytes) = v;
        return HT_OK;
    }
    for (uint32_t i = 0; i < N_SINGLES; i++)
        if (equals(w, w_n, singles[i].name)) {
            if (*seen >> i & 1 || !take_number(&line, &n, &v) || n)
                return damaged(r, "a figure that makes no sense, or is there twice");
            *seen |= 1u << i;
            set(to, &singles[i], v);
            return HT_OK;
        }
    return damaged(r, "an unknown name");
}

static ht_status read_key(reader *r, const ht_rates *of)
{
    static const char *const names[] = { "version", "cpu", "threads", "isa", "precision" };
    char threads[16];
    snprintf(threads, sizeof threads, "%u", of->threads);
    const char *values[] = { HEARTH_VERSION, of->cpu, threads, of->isa, of->f32 ? "f32" : "fast" };

    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *line, *w;
        size_t n, w_n;
        if (!next_line(r, &line, &n) || !word(&line, &n, &w, &w_n) || !equals(w, w_n, names[i]))
            return damaged(r, "what the figures are of is missing");
        if (!equals(line, n, values[i]))
            return ht_fail(r->err, HT_EMISMATCH, "%s: measured with another %s", r->path, names[i]);
    }
    return HT_OK;
}

ht_status ht_rates_parse(ht_rates *out, const char *text, size_t n, const char *path, ht_error *err)
{
    reader r = { .at = text, .end = text + n, .path = path, .err = err };
    ht_rates fresh = *out;
    uint64_t types = 0, kvs = 0;
    uint32_t seen = 0;
    const char *line;
    size_t length;
    ht_status st;

    if (!next_line(&r, &line, &length) || !equals(line, length, "hearth rates 1"))
        return damaged(&r, "no file of figures");
    if ((st = read_key(&r, out)) != HT_OK)
        return st;
    for (;;) {
        if (!next_line(&r, &line, &length))
            return damaged(&r, "the file ends early");
        if (equals(line, length, "end"))
            break;
        if ((st = read_figure(&r, line, length, &fresh, &seen, &types, &kvs)) != HT_OK)
            return st;
    }
    if (r.at != r.end)
        return damaged(&r, "something stands behind the end");
    *out = fresh;
    return HT_OK;
}

ht_status ht_rates_read(ht_rates *r, const char *path, ht_error *err)
{
    char *text;
    ht_status st;

    if (ht_os_is_special(path)) /* a pipe would be waited for */
        return ht_fail(err, HT_EIO, "%s is no regular file", path);
    FILE *f = fopen(path, "rbe");
    if (!f)
        return ht_fail(err, HT_EIO, "%s cannot be read", path);
    if (!(text = malloc(MOST_BYTES + 1))) {
        fclose(f);
        return ht_fail(err, HT_ENOMEM, "%s: %d bytes", path, MOST_BYTES);
    }
    const size_t n = fread(text, 1, MOST_BYTES + 1, f);
    if (ferror(f))
        st = ht_fail(err, HT_EIO, "%s cannot be read", path);
    else
        st = n > MOST_BYTES ? ht_fail(err, HT_EFORMAT, "%s is no file of figures: too long", path)
                            : ht_rates_parse(r, text, n, path, err);
    fclose(f);
    free(text);
    return st;
}

/* ---- Writing ---- */

static ht_status put(ht_outfile *o, ht_error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static ht_status put(ht_outfile *o, ht_error *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    const int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return ht_outfile_write(o, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, err);
}

static uint64_t get(const void *from, const figure *f)
{
    double d;

    memcpy(&d, (const char *)from + f->offset, sizeof d);
    d *= f->scale;
    return d >= 1.0 ? d < (double)GREATEST ? (uint64_t)(d + 0.5) : GREATEST : d > 0.0;
}

static ht_status put_list(ht_outfile *o, const char *kind, uint32_t type, const figure *list, uint32_t n, const void *from,
                          ht_error *err)
{
    ht_status st = put(o, err, "%s %s", kind, ht_type_name(type));

    for (uint32_t i = 0; i < n && st == HT_OK; i++)
        st = put(o, err, " %s %" PRIu64, list[i].name, get(from, &list[i]));
    return st == HT_OK ? put(o, err, "\n") : st;
}

static ht_status put_all(ht_outfile *o, const ht_rates *r, ht_error *err)
{
    ht_status st = put(o, err, "hearth rates 1\nversion %s\ncpu %s\nthreads %u\nisa %s\nprecision %s\n", HEARTH_VERSION,
                       r->cpu, r->threads, r->isa, r->f32 ? "f32" : "fast");

    for (uint32_t i = 0; i < N_SINGLES && st == HT_OK; i++)
        if (get(r, &singles[i]))
            st = put(o, err, "%s %" PRIu64 "\n", singles[i].name, get(r, &singles[i]));
    if (st == HT_OK && r->gpu.vram_bytes)
        st = put(o, err, "gpu_vram_bytes %" PRIu64 "\ngpu_fixed_bytes %" PRIu64 "\n", r->gpu.vram_bytes, r->gpu.fixed_bytes);
    for (uint32_t t = 0; t < HT_TYPE_MAX && st == HT_OK; t++)
        if (r->types[t].read_bps > 0)
            st = put_list(o, "type", t, of_type, MOST_NUMBERS, &r->types[t], err);
    for (uint32_t t = 0; t < HT_TYPE_MAX && st == HT_OK; t++)
        if (r->kv[t].prompt_mps > 0)
            st = put_list(o, "kv", t, of_kv, N_OF_KV, &r->kv[t], err);
    return st == HT_OK ? put(o, err, "end\n") : st;
}

ht_status ht_rates_write(const ht_rates *r, const char *path, ht_error *err)
{
    ht_outfile o = { 0 };
    ht_status st = ht_outfile_open(&o, path, err);

    if (st != HT_OK)
        return st;
    if ((st = put_all(&o, r, err)) != HT_OK) {
        ht_outfile_abort(&o);
        return st;
    }
    return ht_outfile_close(&o, err);
}
