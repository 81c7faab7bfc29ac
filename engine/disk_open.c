/* SPDX-License-Identifier: MIT
 * Opening what comes from the disk: how large units are, their tables, slots and files; see disk.h. */
#include <stdlib.h>
#include <string.h>

#include "engine/disk_impl.h"

enum { JOIN_GAP = 4096 }; /* parts that lie no further apart are one read */

/* ---- shapes ---- */

typedef struct place { uint32_t file; uint64_t at; size_t bytes; uint32_t role; } place;

/* The reads of one expert: its parts in the file's order, neighbours joined. Returns the bytes of their slot. */
static size_t plan_unit(ht_disk_unit *u, const ht_gguf *g, const ht_part part[HT_N_ROLES])
{
    place p[HT_N_ROLES];
    uint32_t n = 0;
    size_t room = 0;

    memset(u, 0, sizeof *u);
    memset(u->of, UINT8_MAX, sizeof u->of);
    for (uint32_t r = 0; r < HT_N_ROLES; r++) {
        place now = { .role = r };
        if (!part[r].host || !ht_gguf_locate(g, part[r].host, &now.file, &now.at))
            continue;
        now.bytes = ht_part_extent(&part[r]);
        uint32_t i = n++;
        for (; i > 0 && (p[i - 1].file > now.file || (p[i - 1].file == now.file && p[i - 1].at > now.at)); i--)
            p[i] = p[i - 1];
        p[i] = now;
    }
    for (uint32_t i = 0; i < n; i++) {
        ht_read *last = u->n_reads ? &u->read[u->n_reads - 1] : NULL;
        if (last && last->file == p[i].file && p[i].at <= last->offset + last->bytes + JOIN_GAP) {
            const size_t end = (size_t)(p[i].at - last->offset) + p[i].bytes;
            last->bytes = end > last->bytes ? end : last->bytes;
        } else {
            last = &u->read[u->n_reads++];
            last->file = p[i].file;
            last->offset = p[i].at;
            last->bytes = p[i].bytes;
        }
        u->of[p[i].role] = (uint8_t)(u->n_reads - 1);
        u->at[p[i].role] = (size_t)(p[i].at - last->offset);
    }
    for (uint32_t i = 0; i < u->n_reads; i++)
        room += ht_read_room(u->read[i].bytes);
    return room;
}

/* Slot of a layer's units: that of the largest. */
static size_t slot_bytes(const ht_model *m, uint32_t layer)
{
    const ht_ffn *ff = &m->layers[layer].ffn;
    ht_disk_unit u;
    size_t most = 0;

    for (uint32_t e = 0; e < ff->n_expert; e++) {
        const size_t now = plan_unit(&u, m->gguf, ff->experts[e]);
        most = now > most ? now : most;
    }
    const size_t page = ht_os_page();
    return (most + page - 1) / page * page;
}

ht_status ht_disk_needs_of(ht_disk_needs *out, const ht_model *m, bool predictors, ht_error *err)
{
    uint64_t dense[2] = { 0, 0 }, units = 0; /* the largest blocks */
    ht_status st;

    memset(out, 0, sizeof *out);
    if ((st = ht_disk_held_bytes(&out->held, m, predictors, err)) != HT_OK)
        return st;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        const ht_ffn *ff = &m->layers[il].ffn;
        const uint64_t each = slot_bytes(m, il);
        const uint64_t parts = ht_disk_parts_bytes(m, il, (size_t)each);
        out->tables += parts + parts / (ff->n_expert ? ff->n_expert : 1) + (parts && !out->tables ? ht_disk_pieces_bytes() : 0);
        out->all += each * ff->n_expert;
        units += ff->n_expert;
        if (ff->router.host) {
            out->floor += each * ff->n_used;
        } else if (each > dense[0]) {
            dense[1] = dense[0];
            dense[0] = each;
        } else if (each > dense[1]) {
            dense[1] = each;
        }
    }
    out->floor += dense[0] + dense[1];
    out->tables += units * (sizeof(ht_disk_unit) + 5 * sizeof(uint32_t)) + m->n_layer * sizeof(ht_disk_layer) +
                  ht_cache_bytes(m->n_layer, m->max_expert);
    return HT_OK;
}

/* ---- open, close ---- */

/* Layers whose units are of one size share a class of slots. */
static ht_status make_classes(ht_disk *d, ht_error *err)
{
    const ht_model *m = d->m;
    size_t total = 0;
    uint32_t at = 0;

    if (!d->classes || !d->free_slots) /* made before; said to analysers */
        return HT_ENOMEM;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        const size_t bytes = slot_bytes(m, il);
        uint32_t c = 0;
        while (c < d->n_classes && d->classes[c].bytes != bytes)
            c++;
        if (c == d->n_classes)
            d->classes[d->n_classes++].bytes = bytes;
        d->classes[c].n += m->layers[il].ffn.n_expert;
        d->layers[il].class = c;
    }
    for (uint32_t c = 0; c < d->n_classes; c++)
        total += d->classes[c].n * d->classes[c].bytes;
    d->reserved = total;
    d->memory = ht_os_reserve(total);
    if (!d->memory)
        return ht_fail(err, HT_ENOMEM, "%zu bytes of address space for experts", total);
    uint8_t *memory = d->memory;
    for (uint32_t c = 0; c < d->n_classes; c++) {
        ht_disk_class *k = &d->classes[c];
        k->memory = memory;
        k->free = d->free_slots + at;
        k->n_cold = k->n;
        for (uint32_t i = 0; i < k->n; i++)
            k->free[i] = i;
        memory += k->n * k->bytes;
        at += k->n;
    }
    return HT_OK;
}

static ht_status make_units(ht_disk *d, ht_error *err)
{
    const ht_model *m = d->m;

    for (uint32_t il = 0; il < m->n_layer; il++)
        d->n_units += m->layers[il].ffn.n_expert;
    const size_t n = d->n_units;
    if (n == 0)
        return ht_fail(err, HT_EINVAL, "a model without feed-forward blocks");
    d->units = calloc(n, sizeof *d->units);
    d->coming = calloc(5 * n, sizeof *d->coming);
    d->layers = calloc(m->n_layer, sizeof *d->layers);
    d->classes = calloc(m->n_layer, sizeof *d->classes);
    d->stamps = calloc(d->n_files, sizeof *d->stamps);
    if (!d->units || !d->coming || !d->layers || !d->classes || !d->stamps) {
        ht_fail(err, HT_ENOMEM, "tables of %zu experts", n);
        return HT_ENOMEM; /* said to analysers too */
    }
    d->foreseen = d->coming + n;
    d->leaving = d->foreseen + n;
    d->free_slots = d->leaving + n;
    d->fill = d->free_slots + n;
    uint32_t at = 0;
    for (uint32_t il = 0; il < m->n_layer; il++) {
        d->layers[il].first = at;
        for (uint32_t e = 0; e < m->layers[il].ffn.n_expert; e++, at++) {
            plan_unit(&d->units[at], m->gguf, m->layers[il].ffn.experts[e]);
            d->units[at].layer = il;
            d->units[at].slot = UINT32_MAX;
        }
    }
    return HT_OK;
}

/* The reader opens paths: they must still lead to the files that were mapped. */
static ht_status same_files(ht_disk *d, ht_error *err)
{
    for (uint32_t i = 0; i < d->n_files; i++) {
        const char *path = ht_gguf_path(d->m->gguf, i);
        ht_os_stamp now;
        if (!ht_os_stamp_fd(ht_gguf_fd(d->m->gguf, i), &d->stamps[i]) || !ht_os_stamp_path(path, &now) ||
            now.device != d->stamps[i].device || now.inode != d->stamps[i].inode)
            return ht_fail(err, HT_EIO, "%s: the file was replaced while it was opened", path);
    }
    return HT_OK;
}

static ht_status open_reader(ht_disk *d, const ht_disk_params *p, ht_error *err)
{
    ht_reader_params reader = {
        .n_paths = d->n_files, .io = p->io, .no_uring = p->no_uring, .fault = p->fault, .fault_user = p->fault_user
    };
    const char **paths = calloc(d->n_files, sizeof *paths);

    if (!paths)
        return ht_fail(err, HT_ENOMEM, "paths of %u files", d->n_files);
    for (uint32_t i = 0; i < d->n_files; i++)
        paths[i] = ht_gguf_path(d->m->gguf, i);
    reader.paths = paths;
    ht_status st = ht_reader_open(&d->reader, &reader, err);
    free(paths);
    return st == HT_OK ? same_files(d, err) : st;
}

static ht_status open_cache(ht_disk *d, ht_error *err)
{
    const ht_model *m = d->m;
    uint64_t *bytes = calloc(m->n_layer, sizeof *bytes);

    if (!bytes)
        return ht_fail(err, HT_ENOMEM, "tables of %u layers", m->n_layer);
    for (uint32_t il = 0; il < m->n_layer; il++)
        bytes[il] = ht_disk_unit_bytes(d, il);
    const ht_cache_params p = { .kind = HT_CACHE_HEAT,
                                .n_layer = m->n_layer,
                                .n_expert = d->n_expert,
                                .unit_bytes = bytes,
                                .budget = d->budget };
    ht_status st = ht_cache_open(&d->cache, &p, err);
    free(bytes);
    return st;
}

ht_status ht_disk_open(ht_disk **out, ht_model *m, const ht_disk_params *p, ht_error *err)
{
    ht_disk *d = calloc(1, sizeof *d);
    ht_status st;

    *out = NULL;
    if (!d)
        return ht_fail(err, HT_ENOMEM, "expert cache");
    d->m = m;
    d->budget = p->budget;
    d->n_expert = m->max_expert;
    d->n_files = ht_gguf_n_files(m->gguf);
    d->parts_always = p->parts_always;
    if ((st = make_units(d, err)) || (st = make_classes(d, err)) || (st = ht_disk_plan_parts(d, err)) || (st = open_cache(d, err)) ||
        (st = open_reader(d, p, err)) || (st = ht_disk_hold(d, m, p, err))) {
        ht_disk_close(d);
        return st;
    }
    *out = d;
    return HT_OK;
}

void ht_disk_close(ht_disk *d)
{
    if (!d)
        return;
    ht_reader_close(d->reader); /* nothing writes into slots any more */
    ht_cache_close(d->cache);
    if (d->memory)
        ht_os_release(d->memory, d->reserved);
    if (d->held)
        ht_os_release(d->held, d->held_reserved);
    free(d->pages);
    free(d->pieces);
    free(d->units);
    free(d->coming);
    free(d->layers);
    free(d->classes);
    free(d->stamps);
    free(d);
}
