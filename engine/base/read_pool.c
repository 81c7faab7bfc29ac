/* SPDX-License-Identifier: MIT
 * Threads that read; see read_pool.h. */
#include "engine/base/read_pool.h"

#include <stdlib.h>

#include "engine/base/os.h"

typedef struct job {
    const ht_os_file *file;
    uint8_t *to;
    size_t bytes;
    uint64_t offset;
    int64_t result;
    uint32_t tag;
} job;

/* Indices only grow; a place is index % entries. */
struct ht_read_pool {
    ht_os_mutex lock; /* over todo, done, their indices, stop */
    job *todo, *done;
    uint32_t entries, todo_head, todo_tail, done_head, done_tail;
    bool stop;
    _Atomic uint32_t given, ended; /* counts of events, to sleep on */
    uint32_t seen;                 /* the reader's: ended, when nothing was left to take */
    ht_os_thread *threads;
    uint32_t n_threads;
};

static void work(void *arg)
{
    ht_read_pool *p = arg;
    for (;;) {
        uint32_t given = atomic_load(&p->given);
        job j = { 0 };
        ht_os_lock(&p->lock);
        bool any = p->todo_head != p->todo_tail, stop = p->stop;
        if (any)
            j = p->todo[p->todo_head++ % p->entries];
        ht_os_unlock(&p->lock);
        if (!any && stop)
            return;
        if (!any) {
            ht_os_wait(&p->given, given, 0);
            continue;
        }
        j.result = ht_os_file_read(j.file, j.to, j.bytes, j.offset);
        ht_os_lock(&p->lock);
        p->done[p->done_tail++ % p->entries] = j;
        ht_os_unlock(&p->lock);
        atomic_fetch_add(&p->ended, 1);
        ht_os_wake(&p->ended, false);
    }
}

ht_status ht_read_pool_open(ht_read_pool **out, uint32_t threads, uint32_t entries, ht_error *err)
{
    *out = NULL;
    ht_read_pool *p = calloc(1, sizeof *p);
    if (!p)
        return ht_fail(err, HT_ENOMEM, "threads that read");
    p->entries = 1; /* a power of two, so that indices may overflow */
    while (p->entries < entries)
        p->entries *= 2;
    p->todo = calloc(p->entries, sizeof *p->todo);
    p->done = calloc(p->entries, sizeof *p->done);
    p->threads = calloc(threads, sizeof *p->threads);
    while (p->todo && p->done && p->threads && p->n_threads < threads &&
           ht_os_thread_start(&p->threads[p->n_threads], work, p, "hearth-read") == HT_OK)
        p->n_threads++;
    if (!p->n_threads) {
        ht_read_pool_close(p);
        return ht_fail(err, HT_ENOMEM, "starting a thread to read failed");
    }
    *out = p;
    return HT_OK;
}

void ht_read_pool_close(ht_read_pool *p)
{
    if (!p)
        return;
    ht_os_lock(&p->lock);
    p->stop = true;
    ht_os_unlock(&p->lock);
    atomic_fetch_add(&p->given, 1);
    ht_os_wake(&p->given, true);
    while (p->n_threads)
        ht_os_thread_join(&p->threads[--p->n_threads]);
    free(p->threads);
    free(p->done);
    free(p->todo);
    free(p);
}

void ht_read_pool_read(ht_read_pool *p, const ht_os_file *f, void *to, size_t bytes, uint64_t offset, uint32_t tag)
{
    ht_os_lock(&p->lock);
    p->todo[p->todo_tail++ % p->entries] = (job){ f, to, bytes, offset, 0, tag };
    ht_os_unlock(&p->lock);
    atomic_fetch_add(&p->given, 1);
    ht_os_wake(&p->given, false);
}

void ht_read_pool_wait(ht_read_pool *p, uint32_t wait_us)
{
    if (wait_us)
        ht_os_wait(&p->ended, p->seen, wait_us);
}

bool ht_read_pool_next(ht_read_pool *p, uint32_t *tag, int64_t *result)
{
    uint32_t ended = atomic_load(&p->ended);
    ht_os_lock(&p->lock);
    bool any = p->done_head != p->done_tail;
    if (any) {
        const job *j = &p->done[p->done_head++ % p->entries];
        *tag = j->tag;
        *result = j->result;
    } else {
        p->seen = ended; /* what ends from here on wakes ht_read_pool_wait */
    }
    ht_os_unlock(&p->lock);
    return any;
}
