/* SPDX-License-Identifier: MIT
 * Reading ahead; see ahead.h. */
#include "engine/ahead.h"

#include <stdlib.h>
#include <string.h>

/* Alignment between tensors is no reason to end a range. What is no longer than VECTOR is taken for a vector. */
enum { GAP = 64 << 10, VECTOR = 256 << 10 };

/* ---- What to walk ---- */

typedef struct piece {
    uint64_t layer; /* UINT64_MAX: of none, read last */
    const uint8_t *data;
    uint64_t bytes;
    uint32_t file;
} piece;

/* N of "blk.N.*", of packed files "hearth.blk.N.*". */
static uint64_t layer_of(ht_str name)
{
    if (name.n > 7 && memcmp(name.s, "hearth.", 7) == 0)
        name = (ht_str){ name.s + 7, name.n - 7 };
    uint64_t v = 0;
    size_t i = 4;
    if (name.n < 6 || memcmp(name.s, "blk.", 4) != 0)
        return UINT64_MAX;
    for (; i < name.n && i < 14 && name.s[i] >= '0' && name.s[i] <= '9'; i++)
        v = v * 10 + (uint64_t)(name.s[i] - '0');
    return i > 4 && i < name.n && name.s[i] == '.' ? v : UINT64_MAX;
}

static int by_need(const void *pa, const void *pb)
{
    const piece *a = pa, *b = pb;
    if (a->layer != b->layer)
        return a->layer < b->layer ? -1 : 1;
    return a->data < b->data ? -1 : a->data > b->data;
}

void ht_ahead_vectors(const ht_gguf *g)
{
    for (uint64_t i = 0; i < ht_gguf_n_tensors(g); i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        if (t->bytes && t->bytes <= VECTOR)
            ht_os_will_need(t->data, (size_t)t->bytes);
    }
}

ht_status ht_ahead_plan(const ht_gguf *g, uint64_t most, ht_ahead_range **ranges, uint32_t *n, bool *whole,
                        ht_error *err)
{
    uint64_t n_tensors = ht_gguf_n_tensors(g);
    bool own_output = ht_gguf_find_tensor(g, "output.weight") != NULL;
    const ht_tensor *embed = ht_gguf_find_tensor(g, "token_embd.weight");
    piece *pieces = malloc((n_tensors ? (size_t)n_tensors : 1) * sizeof *pieces);
    ht_ahead_range *out = malloc((n_tensors ? (size_t)n_tensors : 1) * sizeof *out);
    size_t n_pieces = 0;
    uint32_t k = 0;

    *ranges = NULL;
    *n = 0;
    *whole = true;
    if (!pieces || !out) {
        free(pieces);
        free(out);
        return ht_fail(err, HT_ENOMEM, "list of weights");
    }
    for (uint64_t i = 0; i < n_tensors; i++) {
        const ht_tensor *t = ht_gguf_tensor_at(g, i);
        if (t->bytes && t->ne[2] == 1 && !(t == embed && own_output))
            pieces[n_pieces++] = (piece){ layer_of(t->name), t->data, t->bytes, t->file };
    }
    qsort(pieces, n_pieces, sizeof *pieces, by_need);
    for (size_t i = 0; i < n_pieces && *whole; i++) {
        const piece *p = &pieces[i];
        ht_ahead_range *last = k ? &out[k - 1] : NULL;
        const uint8_t *end = last ? last->data + last->bytes : NULL;
        bool joins = last && p->file == p[-1].file && p->data >= end && (uint64_t)(p->data - end) <= GAP;
        uint64_t gap = joins ? (uint64_t)(p->data - end) : 0, bytes = p->bytes;
        if (gap + bytes > most) {
            *whole = false;
            bytes = most > gap ? most - gap : 0;
        }
        if (!bytes)
            break;
        most -= gap + bytes;
        if (joins)
            last->bytes += gap + bytes;
        else
            out[k++] = (ht_ahead_range){ p->data, bytes };
    }
    free(pieces);
    *ranges = out;
    *n = k;
    return HT_OK;
}

/* ---- The walk ---- */

static bool populate(void *user, const uint8_t *data, size_t bytes)
{
    (void)user;
    return ht_os_populate(data, bytes);
}

/* The next window; false at the end. */
static bool next(ht_ahead *a, ht_ahead_range *w)
{
    bool more;
    ht_os_lock(&a->lock);
    more = a->at < a->n && !atomic_load(&a->stop);
    if (more) {
        const ht_ahead_range *r = &a->ranges[a->at];
        w->data = r->data + a->done;
        w->bytes = HT_AHEAD_WINDOW - (uintptr_t)w->data % HT_AHEAD_WINDOW;
        if (w->bytes >= r->bytes - a->done) {
            w->bytes = r->bytes - a->done;
            a->at++;
            a->done = 0;
        } else {
            a->done += w->bytes;
        }
    }
    ht_os_unlock(&a->lock);
    return more;
}

static void walk(void *arg)
{
    ht_ahead *a = arg;
    ht_ahead_range w;
    while (next(a, &w))
        if (!a->read(a->user, w.data, (size_t)w.bytes)) {
            atomic_store(&a->failed, true);
            atomic_store(&a->stop, true);
        }
    atomic_fetch_sub(&a->walking, 1);
}

ht_status ht_ahead_open(ht_ahead *a, ht_ahead_range *ranges, uint32_t n, uint32_t n_threads, ht_ahead_fn *read, void *user,
                        ht_error *err)
{
    memset(a, 0, sizeof *a);
    a->ranges = ranges;
    a->n = n;
    a->read = read ? read : populate;
    a->user = user;
    for (uint32_t i = 0; n && i < n_threads && i < HT_AHEAD_THREADS; i++) {
        atomic_fetch_add(&a->walking, 1);
        if (ht_os_thread_start(&a->threads[a->n_threads], walk, a, "hearth-ahead") != HT_OK) {
            atomic_fetch_sub(&a->walking, 1);
            ht_ahead_close(a);
            return ht_fail(err, HT_ENOMEM, "starting a thread to read ahead failed");
        }
        a->n_threads++;
    }
    return HT_OK;
}

void ht_ahead_wait(ht_ahead *a)
{
    while (a->n_threads)
        ht_os_thread_join(&a->threads[--a->n_threads]);
}

void ht_ahead_close(ht_ahead *a)
{
    atomic_store(&a->stop, true);
    ht_ahead_wait(a);
    free(a->ranges);
    a->ranges = NULL;
    a->n = 0;
}

bool ht_ahead_busy(const ht_ahead *a) { return atomic_load(&a->walking) > 0; }

bool ht_ahead_failed(const ht_ahead *a) { return atomic_load(&a->failed); }
