/* SPDX-License-Identifier: MIT
 *
 * Writes a planned model. The tensors are cut into chunks of whole rows; workers take chunks in order, draw and encode
 * them into a slot, and the calling thread writes the slots in order. A worker may be at most N_SLOTS chunks ahead of
 * the file.
 *
 *   workers:  next chunk -> draw -> encode -> slot[chunk % n_slots] full
 *   caller:   wait for slot of the next chunk -> hearth_writer_raw -> slot empty
 *
 * Owner: everything is local to one call. Threads: the caller, and workers that are joined before it returns. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/synth_model.h"

enum { CHUNK_VALUES = 1 << 18, MAX_THREADS = 256 };

typedef struct slot {
    unsigned char *bytes;
    size_t n;
    hearth_status st;
    bool full;
} slot;

typedef struct pipe_state {
    const synth_model *m;
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    slot *slots;
    uint32_t n_slots;
    uint64_t next, written; /* chunks taken, chunks in the file */
    size_t tensor;          /* where `next` is */
    uint64_t row;
    bool stop;
} pipe_state;

typedef struct chunk {
    uint64_t index, row, rows;
    const synth_tensor *t;
} chunk;

static uint64_t chunk_rows(const synth_tensor *t)
{
    uint64_t n = CHUNK_VALUES / t->ne[0];

    return n ? n : 1;
}

static size_t chunk_bytes(const synth_tensor *t, uint64_t rows)
{
    size_t n = 0;

    return hearth_encode(t->type, NULL, rows * t->ne[0], NULL, &n) == HEARTH_OK ? n : 0;
}

/* Takes the next chunk and waits until its slot is free. False at the end. */
static bool take(pipe_state *p, chunk *c)
{
    bool got = false;

    pthread_mutex_lock(&p->lock);
    if (!p->stop && p->tensor < p->m->n_tensors) {
        const synth_tensor *t = &p->m->tensors[p->tensor];
        uint64_t rows = chunk_rows(t), left = t->rows - p->row;

        *c = (chunk){ p->next++, p->row, rows < left ? rows : left, t };
        p->row += c->rows;
        if (p->row == t->rows) {
            p->tensor++;
            p->row = 0;
        }
        while (!p->stop && c->index >= p->written + p->n_slots)
            pthread_cond_wait(&p->emptied, &p->lock);
        got = !p->stop;
    }
    pthread_mutex_unlock(&p->lock);
    return got;
}

static void *work(void *arg)
{
    pipe_state *p = arg;
    const synth_model *m = p->m;
    uint64_t most = 0;
    chunk c;

    for (size_t i = 0; i < m->n_tensors; i++) {
        uint64_t rows = chunk_rows(&m->tensors[i]), n;

        rows = rows < m->tensors[i].rows ? rows : m->tensors[i].rows;
        n = rows * m->tensors[i].ne[0];
        most = n > most ? n : most;
    }
    float *values = malloc((most + 1) * sizeof(float)), *scratch = malloc(m->shape.d * sizeof(float));

    while (take(p, &c)) {
        slot s = { .st = HEARTH_ENOMEM, .full = true };

        s.n = chunk_bytes(c.t, c.rows);
        s.bytes = malloc(s.n ? s.n : 1);
        if (values && scratch && s.bytes) {
            for (uint64_t r = 0; r < c.rows; r++)
                synth_row_fill(m, c.t, c.row + r, values + r * c.t->ne[0], scratch);
            s.st = hearth_encode(c.t->type, values, c.rows * c.t->ne[0], s.bytes, &s.n);
        }
        pthread_mutex_lock(&p->lock);
        p->slots[c.index % p->n_slots] = s;
        pthread_cond_broadcast(&p->filled);
        pthread_mutex_unlock(&p->lock);
    }
    free(values);
    free(scratch);
    return NULL;
}

/* The caller's half: every chunk in order into the file. */
static hearth_status drain(pipe_state *p, hearth_writer *w, hearth_progress_fn *progress, synth_totals *totals,
                           hearth_error *err)
{
    const synth_model *m = p->m;
    hearth_status st = HEARTH_OK;
    uint64_t done = 0;

    for (size_t i = 0; i < m->n_tensors && st == HEARTH_OK; i++) {
        const synth_tensor *t = &m->tensors[i];

        for (uint64_t row = 0; row < t->rows && st == HEARTH_OK; row += chunk_rows(t)) {
            pthread_mutex_lock(&p->lock);
            slot *at = &p->slots[p->written % p->n_slots], s;

            while (!at->full)
                pthread_cond_wait(&p->filled, &p->lock);
            s = *at;
            *at = (slot){ 0 };
            pthread_mutex_unlock(&p->lock);

            st = s.st == HEARTH_OK ? hearth_writer_raw(w, s.bytes, s.n, err) : s.st;
            if (s.st != HEARTH_OK && err)
                snprintf(err->text, sizeof err->text, "%s: %s", t->name, hearth_status_text(s.st));
            totals->bytes += s.n;
            free(s.bytes);
            uint64_t left = t->rows - row, rows = chunk_rows(t);

            done += (rows < left ? rows : left) * t->ne[0];
            if (st == HEARTH_OK && !progress(NULL, "writing weights", done, totals->weights))
                st = HEARTH_ECANCELLED;

            pthread_mutex_lock(&p->lock);
            p->written++;
            pthread_cond_broadcast(&p->emptied);
            pthread_mutex_unlock(&p->lock);
        }
    }
    return st;
}

static hearth_status run(const synth_model *m, hearth_writer *w, hearth_progress_fn *progress, synth_totals *totals,
                         hearth_error *err)
{
    uint32_t n = m->options.threads < MAX_THREADS ? m->options.threads : MAX_THREADS, started = 0;
    pipe_state p = { .m = m, .n_slots = 2 * n + 2 };
    pthread_t threads[MAX_THREADS];
    hearth_status st = HEARTH_ENOMEM;

    p.slots = calloc(p.n_slots, sizeof *p.slots);
    if (!p.slots)
        return st;
    pthread_mutex_init(&p.lock, NULL);
    pthread_cond_init(&p.filled, NULL);
    pthread_cond_init(&p.emptied, NULL);
    while (started < n && pthread_create(&threads[started], NULL, work, &p) == 0)
        started++;
    if (started)
        st = drain(&p, w, progress, totals, err);
    else if (err)
        snprintf(err->text, sizeof err->text, "no thread could be started");
    pthread_mutex_lock(&p.lock);
    p.stop = true;
    pthread_cond_broadcast(&p.emptied);
    pthread_mutex_unlock(&p.lock);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < p.n_slots; i++)
        free(p.slots[i].bytes);
    free(p.slots);
    pthread_cond_destroy(&p.emptied);
    pthread_cond_destroy(&p.filled);
    pthread_mutex_destroy(&p.lock);
    return st;
}

hearth_status synth_write(const synth_model *m, const char *path, hearth_progress_fn *progress, synth_totals *totals,
                          hearth_error *err)
{
    hearth_writer *w = NULL;
    hearth_status st = hearth_writer_open(&w, path, err);

    *totals = (synth_totals){ 0 };
    if (st == HEARTH_OK && (st = synth_meta_write(m, w)) != HEARTH_OK && err)
        snprintf(err->text, sizeof err->text, "metadata: %s", hearth_status_text(st));
    for (size_t i = 0; i < m->n_tensors && st == HEARTH_OK; i++) {
        const synth_tensor *t = &m->tensors[i];

        totals->weights += t->rows * t->ne[0];
        st = hearth_writer_declare(w, t->name, t->type, t->n_dims, t->ne, err);
    }
    if (st == HEARTH_OK)
        st = run(m, w, progress, totals, err);
    if (st == HEARTH_OK)
        st = hearth_writer_close(&w, err);
    hearth_writer_abort(&w);
    return st;
}
