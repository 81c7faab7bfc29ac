/* SPDX-License-Identifier: MIT
 *
 * Experts that are read in parts (PowerInfer-2, arXiv:2406.06282; LLM in a flash, arXiv:2312.11514): of a packed expert with a
 * gate whose activation gives zeros first the head, gate rows and scales, then only the bundles of neurons whose gate is open.
 *
 * A slot is as large as the whole expert, and page i of the file's bytes has one place in it: what is there is known by pages,
 * and the kernels find every row where it would lie in the whole expert. Pages once there stay with the slot, so that an expert
 * that is used often fills up. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/disk_impl.h"

enum {
    PAGE = HT_READ_ALIGN,
    PIECES = 4096,     /* reads of parts under way at most */
    REST = 64,         /* tokens for which a layer comes as a whole after parts of it were no cheaper */
    REQUEST = 64 << 10 /* what one more read costs, as bytes of a long one: on a virtual disk of 250 MB/s 4,100 reads of 4 KiB a second */
};

static const float DENSE = 0.5f; /* share of open gates from which on parts are not tried */

static size_t lead_of(const ht_disk_unit *u) { return (size_t)(u->read[0].offset % PAGE); }

static uint32_t pages_of(size_t lead, size_t bytes) { return (uint32_t)((lead + bytes + PAGE - 1) / PAGE); }

static uint64_t *bits_of(const ht_disk *d, const ht_disk_unit *u) { return d->pages + u->bits_at; }

static bool bit(const uint64_t *bits, uint32_t i) { return bits[i / 64] >> i % 64 & 1; }

static void set_bit(uint64_t *bits, uint32_t i) { bits[i / 64] |= 1ull << i % 64; }

static bool has_parts(const ht_model *m, uint32_t layer)
{
    const ht_part *up = &m->layers[layer].ffn.experts[0][HT_ROLE_UP], *gate = &m->layers[layer].ffn.experts[0][HT_ROLE_GATE];
    return m->pack && ht_activation_has_zeros(m->act) && gate->host && gate->order && up->order;
}

/* Words of the pages' bits of a layer's expert, whose slot has so many bytes. */
static size_t words(size_t slot_bytes) { return (slot_bytes / PAGE + 2 + 63) / 64; }

uint64_t ht_disk_parts_bytes(const ht_model *m, uint32_t layer, size_t slot_bytes)
{
    return has_parts(m, layer) ? m->layers[layer].ffn.n_expert * words(slot_bytes) * sizeof(uint64_t) : 0;
}

uint64_t ht_disk_pieces_bytes(void) { return PIECES * sizeof(ht_disk_piece); }

ht_status ht_disk_plan_parts(ht_disk *d, ht_error *err)
{
    const ht_model *m = d->m;
    size_t n = 0, most = 0;

    for (uint32_t i = 0; i < d->n_units; i++) {
        ht_disk_unit *u = &d->units[i];
        const size_t now = words(ht_disk_unit_bytes(d, u->layer));
        u->whole_bytes = u->read[0].bytes;
        u->whole = true;
        if (!has_parts(m, u->layer) || u->n_reads != 1 || u->of[HT_ROLE_GATE] == UINT8_MAX)
            continue;
        u->n_pages = pages_of(lead_of(u), u->whole_bytes);
        u->head = (uint32_t)((lead_of(u) + u->at[HT_ROLE_UP] + PAGE - 1) / PAGE);
        u->bits_at = n;
        n += now;
        most = now > most ? now : most;
    }
    if (n == 0)
        return HT_OK;
    d->pages = calloc(n + most, sizeof *d->pages);
    d->pieces = calloc(PIECES, sizeof *d->pieces);
    if (!d->pages || !d->pieces)
        return ht_fail(err, HT_ENOMEM, "tables of parts of %u experts", d->n_units);
    d->wanted = d->pages + n;
    for (uint32_t i = 0; i < PIECES; i++)
        d->pieces[i].next = i + 1 < PIECES ? i + 2 : 0;
    d->free_pieces = 1;
    d->n_free = PIECES;
    return HT_OK;
}

bool ht_disk_parts_pay(ht_disk *d, uint32_t layer, float density)
{
    ht_disk_layer *l = &d->layers[layer];

    if (!d->units[l->first].head)
        return false;
    if (d->parts_always)
        return true;
    if (l->rest) {
        l->rest--;
        return false;
    }
    return density < DENSE;
}

void ht_disk_begin_unit(ht_disk *d, ht_disk_unit *u, bool whole)
{
    u->whole = whole || !u->head;
    if (!u->head)
        return;
    uint64_t *bits = bits_of(d, u);
    const size_t head = (size_t)u->head * PAGE - lead_of(u);

    u->read[0].bytes = u->whole || head > u->whole_bytes ? u->whole_bytes : head;
    memset(bits, 0, (u->n_pages + 63) / 64 * sizeof *bits);
    for (uint32_t i = 0; i < (u->whole ? u->n_pages : u->head); i++)
        set_bit(bits, i);
}

void ht_disk_drop_pieces(ht_disk *d, ht_disk_unit *u)
{
    while (u->pieces) {
        ht_disk_piece *p = &d->pieces[u->pieces - 1];
        const uint32_t next = p->next;
        p->next = d->free_pieces;
        d->free_pieces = u->pieces;
        d->n_free++;
        u->pieces = next;
    }
}

/* Reads pages [a, b) into the slot at `to`. */
static void read_pages(ht_disk *d, ht_disk_unit *u, uint32_t a, uint32_t b, uint8_t *to)
{
    const uint32_t number = d->free_pieces;
    ht_disk_piece *p = &d->pieces[number - 1];
    const uint64_t begin = u->read[0].offset, first = begin - lead_of(u) + (uint64_t)a * PAGE;
    const uint64_t last = begin - lead_of(u) + (uint64_t)b * PAGE, end = begin + u->whole_bytes;

    d->free_pieces = p->next;
    d->n_free--;
    p->next = u->pieces;
    u->pieces = number;
    memset(&p->read, 0, sizeof p->read);
    p->read.file = u->read[0].file;
    p->read.offset = first > begin ? first : begin;
    p->read.bytes = (size_t)((last < end ? last : end) - p->read.offset);
    p->read.to = to + (size_t)a * PAGE;
    for (uint32_t i = a; i < b; i++)
        set_bit(bits_of(d, u), i);
    ht_reader_submit(d->reader, &p->read, false);
}

/* The next run of pages that are wanted, gaps of at most `gap` pages within it; false: there is none. */
static bool next_run(const uint64_t *wanted, uint32_t n, uint32_t gap, uint32_t *a, uint32_t *b)
{
    uint32_t i = *b, last;

    while (i < n && !bit(wanted, i))
        i = wanted[i / 64] >> i % 64 ? i + 1 : (i / 64 + 1) * 64;
    if (i >= n)
        return false;
    *a = last = i;
    for (i++; i < n && i - last <= gap + 1; i++)
        if (bit(wanted, i))
            last = i;
    *b = last + 1;
    return true;
}

/* Reads the pages in d->wanted, some at a time; HT_LATER: too many reads are under way. */
static ht_status read_wanted(ht_disk *d, ht_disk_unit *u, uint8_t *slot)
{
    uint32_t gap = d->parts_always ? 0 : REQUEST / PAGE, runs, a, b;

    if (!d->n_free)
        return HT_LATER;
    for (;; gap = 2 * gap + 1) {
        runs = 0;
        for (a = b = 0; next_run(d->wanted, u->n_pages, gap, &a, &b);)
            runs++;
        if (runs <= d->n_free)
            break;
    }
    for (a = b = 0; next_run(d->wanted, u->n_pages, gap, &a, &b);)
        read_pages(d, u, a, b, slot);
    return HT_OK;
}

/* d->wanted = all pages that are missing; returns how many. */
static uint32_t want_missing(ht_disk *d, const ht_disk_unit *u)
{
    const uint64_t *bits = bits_of(d, u);
    uint32_t n = 0;

    memset(d->wanted, 0, (u->n_pages + 63) / 64 * sizeof *d->wanted);
    for (uint32_t i = 0; i < u->n_pages; i++)
        if (!bit(bits, i)) {
            set_bit(d->wanted, i);
            n++;
        }
    return n;
}

ht_status ht_disk_complete(ht_disk *d, ht_disk_unit *u, uint8_t *slot)
{
    if (u->whole)
        return HT_OK;
    if (want_missing(d, u)) {
        const ht_status st = read_wanted(d, u, slot);
        if (st != HT_OK)
            return st;
        ht_disk_is_coming(d, u);
    }
    u->whole = true;
    return HT_OK;
}

ht_status ht_disk_need(ht_disk *d, uint32_t layer, uint32_t expert, const uint32_t *mask)
{
    ht_disk_unit *u = &d->units[d->layers[layer].first + expert];
    const ht_part *up = &d->m->layers[layer].ffn.experts[expert][HT_ROLE_UP];
    const uint64_t *bits = bits_of(d, u);
    uint64_t cost = 0;
    uint32_t n = 0, a, b;

    if (u->whole)
        return HT_OK;
    memset(d->wanted, 0, (u->n_pages + 63) / 64 * sizeof *d->wanted);
    for (uint32_t w = 0; w < (up->n + 31) / 32; w++)
        for (uint32_t m = mask[w]; m; m &= m - 1) {
            const uint32_t place = up->order[w] * 32 + (uint32_t)__builtin_ctz(m);
            const size_t from = lead_of(u) + u->at[HT_ROLE_UP] + place * up->stride, to = from + up->stride;
            for (size_t p = from / PAGE; p < (to + PAGE - 1) / PAGE && p < u->n_pages; p++)
                if (!bit(bits, (uint32_t)p)) {
                    n += !bit(d->wanted, (uint32_t)p);
                    set_bit(d->wanted, (uint32_t)p);
                }
        }
    if (n == 0)
        return HT_OK;
    for (a = b = 0; next_run(d->wanted, u->n_pages, REQUEST / PAGE, &a, &b);)
        cost += (uint64_t)(b - a) * PAGE + REQUEST;
    uint8_t *slot = ht_disk_slot(d, u);
    if (!d->parts_always && cost >= (uint64_t)(u->n_pages - u->head) * PAGE / 4 * 3) { /* all of it is about as cheap */
        d->layers[layer].rest = REST;
        return ht_disk_complete(d, u, slot);
    }
    const ht_status st = read_wanted(d, u, slot);
    if (st == HT_OK)
        ht_disk_is_coming(d, u);
    return st;
}
