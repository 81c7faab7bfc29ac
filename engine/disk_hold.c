/* SPDX-License-Identifier: MIT
 * Dense weights of a streamed model: everything but experts, read into memory of ours; see disk.h. */
#include <stdlib.h>
#include <string.h>

#include "engine/disk_impl.h"

enum { JOIN_GAP = 4096, PARTS_PER_LAYER = 17, UNDER_WAY = 8 };

/* A stretch of a file, and where it will lie. */
typedef struct range {
    const uint8_t *from; /* in the mapping */
    uint64_t bytes, offset;
    uint32_t file;
    ht_read read;
} range;

/* Every part that is held: of them views of one tensor, or the same tensor twice. predictors: the file's own too. */
static uint32_t list_parts(const ht_model *m, bool predictors, const ht_part **out)
{
    uint32_t n = 0;

    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_attn *a = &m->layers[il].attn;
        const ht_delta *d = &m->layers[il].delta;
        const ht_ffn *f = &m->layers[il].ffn;
        const ht_part *all[PARTS_PER_LAYER] = { &a->q,     &a->k,    &a->v,      &a->o,         &d->qkv,       &d->z,
                                                &d->ba,    &d->beta, &d->alpha,  &d->o,         &f->router,    &f->shared[0],
                                                &f->shared[1], &f->shared[2], &f->shared_gate, &f->fc1,        &f->fc2 };
        const uint32_t n_all = PARTS_PER_LAYER - (predictors ? 0 : 2);
        for (uint32_t i = 0; i < n_all; i++)
            if (all[i]->host)
                out[n++] = all[i];
    }
    if (m->output.host == m->embed.host)
        out[n++] = &m->embed; /* else its rows are read as they are needed */
    out[n++] = &m->output;
    if (m->positions.host)
        out[n++] = &m->positions;
    return n;
}

static int by_place(const void *pa, const void *pb)
{
    const range *a = pa, *b = pb;
    return a->from < b->from ? -1 : a->from > b->from;
}

/* Ranges of the file that hold all these parts, ascending; *ranges: free. */
static ht_status list_ranges(const ht_model *m, const ht_part **parts, uint32_t n_parts, range **ranges, uint32_t *n,
                             ht_error *err)
{
    range *r = calloc(n_parts ? n_parts : 1, sizeof *r);
    uint32_t k = 0;

    if (!r) {
        ht_fail(err, HT_ENOMEM, "list of weights");
        return HT_ENOMEM; /* said to analysers too */
    }
    for (uint32_t i = 0; i < n_parts; i++) {
        r[i] = (range){ .from = parts[i]->host, .bytes = ht_part_extent(parts[i]) };
        if (!ht_gguf_locate(m->gguf, r[i].from, &r[i].file, &r[i].offset)) {
            free(r);
            return ht_fail(err, HT_EINVAL, "weights that are in no file cannot be streamed");
        }
    }
    qsort(r, n_parts, sizeof *r, by_place);
    for (uint32_t i = 0; i < n_parts; i++) {
        range *last = k ? &r[k - 1] : NULL;
        if (last && last->file == r[i].file && r[i].offset <= last->offset + last->bytes + JOIN_GAP) {
            const uint64_t end = r[i].offset + r[i].bytes - last->offset;
            last->bytes = end > last->bytes ? end : last->bytes;
        } else {
            r[k++] = r[i];
        }
    }
    *ranges = r;
    *n = k;
    return HT_OK;
}

static ht_status all_ranges(const ht_model *m, bool predictors, const ht_part ***parts, uint32_t *n_parts, range **ranges, uint32_t *n,
                            ht_error *err)
{
    ht_status st;

    *parts = calloc((size_t)m->n_layer * PARTS_PER_LAYER + 3, sizeof **parts);
    if (!*parts) {
        ht_fail(err, HT_ENOMEM, "list of weights");
        return HT_ENOMEM;
    }
    *n_parts = list_parts(m, predictors, *parts);
    if ((st = list_ranges(m, *parts, *n_parts, ranges, n, err)) != HT_OK)
        free(*parts);
    return st;
}

static uint64_t sum_of(const range *r, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += ht_read_room((size_t)r[i].bytes);
    return sum;
}

ht_status ht_disk_held_bytes(uint64_t *bytes, const ht_model *m, bool predictors, ht_error *err)
{
    const ht_part **parts = NULL;
    range *ranges = NULL;
    uint32_t n_parts = 0, n = 0;
    ht_status st = all_ranges(m, predictors, &parts, &n_parts, &ranges, &n, err);

    if (st != HT_OK)
        return st;
    *bytes = sum_of(ranges, n);
    free(parts);
    free(ranges);
    return HT_OK;
}

/* Some reads are always under way. */
static ht_status read_all(ht_disk *d, range *r, uint32_t n, const ht_disk_params *p, ht_error *err)
{
    uint64_t done = 0, total = 0;
    uint32_t sent = 0;
    ht_status st;

    for (uint32_t i = 0; i < n; i++)
        total += r[i].bytes;
    for (uint32_t i = 0; i < n; i++) {
        for (; sent < n && sent < i + UNDER_WAY; sent++)
            ht_reader_submit(d->reader, &r[sent].read, false);
        while ((st = ht_reader_wait(d->reader, &r[i].read, 100000, err)) == HT_LATER)
            if (p->progress && !p->progress(p->progress_user, "reading", done, total))
                return ht_fail(err, HT_ECANCELLED, "cancelled");
        if (st != HT_OK)
            return st;
        done += r[i].bytes;
        if (p->progress && !p->progress(p->progress_user, "reading", done, total))
            return ht_fail(err, HT_ECANCELLED, "cancelled");
    }
    return HT_OK;
}

/* Where a part's first byte is now. */
static const uint8_t *moved(const range *r, uint32_t n, const uint8_t *host)
{
    uint32_t lo = 0, hi = n;

    while (hi - lo > 1) {
        const uint32_t mid = (lo + hi) / 2;
        if (r[mid].from <= host)
            lo = mid;
        else
            hi = mid;
    }
    return r[lo].read.data + (host - r[lo].from);
}

ht_status ht_disk_hold(ht_disk *d, ht_model *m, const ht_disk_params *p, ht_error *err)
{
    const ht_part **parts = NULL;
    range *r = NULL;
    uint32_t n_parts = 0, n = 0;
    const size_t page = ht_os_page();
    ht_status st = all_ranges(m, p->predictors, &parts, &n_parts, &r, &n, err);

    if (st != HT_OK)
        return st;
    if (!parts || !r) { /* said to analysers */
        free(parts);
        free(r);
        return HT_ENOMEM;
    }
    d->held_reserved = (size_t)((sum_of(r, n) + page - 1) / page * page);
    d->held = ht_os_reserve(d->held_reserved);
    if (!d->held) {
        st = ht_fail(err, HT_ENOMEM, "%zu bytes for weights that are held", d->held_reserved);
    } else {
        uint8_t *to = d->held;
        for (uint32_t i = 0; i < n; i++) {
            r[i].read = (ht_read){ .file = r[i].file, .offset = r[i].offset, .bytes = (size_t)r[i].bytes, .to = to };
            to += ht_read_room(r[i].read.bytes);
        }
        st = read_all(d, r, n, p, err);
    }
    if (st == HT_OK) {
        for (uint32_t i = 0; i < n_parts; i++)
            ((ht_part *)(uintptr_t)parts[i])->host = moved(r, n, parts[i]->host);
    } else { /* the reads lie in memory that goes now */
        ht_reader_close(d->reader);
        d->reader = NULL;
    }
    free(parts);
    free(r);
    return st;
}
