/* SPDX-License-Identifier: MIT
 *
 * The task queue of the CPU executor; see stream.h.
 *
 * A slot of the ring is reused every HT_RING tasks while a thread that lost its core may still look at its old
 * contents. Therefore a claim carries the task's number: `claim` holds (low 32 bits of the number, next chunk), and
 * a thread that finds another number there knows that its task is long done and walks on. Only after a successful
 * claim, which keeps the task from completing, are the other fields read. */
#include "cpu/stream.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/os.h"

enum {
    HT_RING = 1024,    /* tasks; a power of two */
    HT_SPINS = 20000   /* about 0.2-1 ms of pause instructions before a thread sleeps */
};

typedef struct task {
    _Atomic uint64_t claim; /* number << 32 | next chunk */
    _Atomic uint32_t left;  /* chunks not finished */
    _Atomic uint32_t n_chunks;
    ht_task_fn *fn;
    const void *ctx;
    char pad[64 - 32]; /* a task per cache line */
} task;

struct worker {
    ht_stream *s;
    uint32_t index;
    ht_os_thread thread;
};

struct ht_stream {
    _Alignas(64) _Atomic uint64_t pushed;    /* tasks published */
    _Alignas(64) _Atomic uint64_t completed; /* tasks done, in order */
    _Alignas(64) _Atomic uint32_t bell;      /* changes whenever a sleeper should look again */
    _Atomic uint32_t sleepers;
    _Atomic bool dropping;                   /* a cancelled wait: claim chunks without running them */
    _Atomic bool closing;
    uint32_t n_threads, n_workers;
    void (*pin)(void *, uint32_t);
    void *pin_user;
    uint64_t cursor0; /* task that the waiting thread looks at */
    struct worker *workers;
    task ring[HT_RING];
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void ring_bell(ht_stream *s)
{
    atomic_fetch_add(&s->bell, 1);
    if (atomic_load(&s->sleepers) != 0)
        ht_os_wake(&s->bell, true);
}

/* Runs chunks of task `number` until none is left to claim. */
static void work_on(ht_stream *s, uint64_t number, uint32_t thread)
{
    task *t = &s->ring[number % HT_RING];
    uint64_t c = atomic_load_explicit(&t->claim, memory_order_acquire);

    for (;;) {
        /* Acquire pairs with the release in push: whoever sees a later task's count also sees that its own claim is
         * void. */
        uint32_t n = atomic_load_explicit(&t->n_chunks, memory_order_acquire);
        if ((uint32_t)(c >> 32) != (uint32_t)number || (uint32_t)c >= n)
            return;
        if (!atomic_compare_exchange_weak_explicit(&t->claim, &c, c + 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        if (!atomic_load_explicit(&s->dropping, memory_order_relaxed))
            t->fn(t->ctx, (uint32_t)c, thread);
        if (atomic_fetch_sub_explicit(&t->left, 1, memory_order_acq_rel) == 1) {
            atomic_store(&s->completed, number + 1);
            ring_bell(s);
            return;
        }
        c = atomic_load_explicit(&t->claim, memory_order_acquire);
    }
}

/* Waits until a task after `cursor` may begin: everything before it is done and it is published. Returns false on
 * close. */
static bool await_task(ht_stream *s, uint64_t cursor)
{
    for (uint32_t spins = 0;;) {
        if (atomic_load_explicit(&s->completed, memory_order_acquire) > cursor)
            return true; /* done without us: nothing to claim, the caller walks on */
        if (atomic_load_explicit(&s->pushed, memory_order_acquire) > cursor &&
            atomic_load_explicit(&s->completed, memory_order_acquire) == cursor)
            return true;
        if (spins < HT_SPINS) {
            spins++;
            pause_cpu();
            continue;
        }
        uint32_t bell = atomic_load(&s->bell);
        atomic_fetch_add(&s->sleepers, 1);
        bool ready = atomic_load(&s->pushed) > cursor && atomic_load(&s->completed) >= cursor;
        if (!ready && !atomic_load(&s->closing))
            ht_os_wait(&s->bell, bell, 0);
        atomic_fetch_sub(&s->sleepers, 1);
        if (atomic_load(&s->closing) && atomic_load(&s->pushed) <= cursor)
            return false;
    }
}

static void worker_main(void *arg)
{
    struct worker *w = arg;
    ht_stream *s = w->s;
    uint64_t cursor = 0;

    if (s->pin)
        s->pin(s->pin_user, w->index);
    while (await_task(s, cursor)) {
        uint64_t done = atomic_load_explicit(&s->completed, memory_order_acquire);
        if (done > cursor) {
            cursor = done;
            continue;
        }
        work_on(s, cursor, w->index);
        cursor++;
    }
}

/* The waiting thread works until `number` tasks are done. */
static void help_until(ht_stream *s, uint64_t number, const ht_cancel *cancel)
{
    while (atomic_load_explicit(&s->completed, memory_order_acquire) < number) {
        uint64_t done = atomic_load_explicit(&s->completed, memory_order_acquire);
        if (s->cursor0 < done)
            s->cursor0 = done;
        if (cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed))
            atomic_store(&s->dropping, true);
        if (s->cursor0 == done) {
            work_on(s, s->cursor0, 0);
            s->cursor0++;
            continue;
        }
        /* All chunks of the current task are taken: others finish them. */
        for (uint32_t spins = 0; atomic_load_explicit(&s->completed, memory_order_acquire) == done; spins++) {
            if (spins < HT_SPINS) {
                pause_cpu();
                continue;
            }
            uint32_t bell = atomic_load(&s->bell);
            atomic_fetch_add(&s->sleepers, 1);
            if (atomic_load(&s->completed) == done)
                ht_os_wait(&s->bell, bell, 0);
            atomic_fetch_sub(&s->sleepers, 1);
        }
    }
}

ht_status ht_stream_open(ht_stream **out, uint32_t n_threads, void (*pin)(void *, uint32_t), void *user, ht_error *err)
{
    *out = NULL;
    ht_stream *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);
    if (!s)
        return ht_fail(err, HT_ENOMEM, "task queue: %zu bytes", sizeof *s);
    memset(s, 0, sizeof *s);
    for (uint64_t i = 0; i < HT_RING; i++) /* no slot may look like a task that was never pushed */
        atomic_store(&s->ring[i].claim, UINT64_MAX);
    s->n_threads = n_threads;
    s->pin = pin;
    s->pin_user = user;
    s->workers = calloc(n_threads, sizeof *s->workers);
    if (!s->workers) {
        ht_stream_close(&s);
        return ht_fail(err, HT_ENOMEM, "task queue: %u threads", n_threads);
    }
    for (uint32_t i = 1; i < n_threads; i++) {
        struct worker *w = &s->workers[s->n_workers];
        *w = (struct worker){ .s = s, .index = i };
        if (ht_os_thread_start(&w->thread, worker_main, w, "hearth") != HT_OK) {
            ht_stream_close(&s);
            return ht_fail(err, HT_ENOMEM, "starting compute thread %u of %u failed", i + 1, n_threads);
        }
        s->n_workers++;
    }
    *out = s;
    return HT_OK;
}

void ht_stream_close(ht_stream **sp)
{
    ht_stream *s = *sp;
    if (!s)
        return;
    help_until(s, atomic_load(&s->pushed), NULL);
    atomic_store(&s->closing, true);
    ring_bell(s);
    for (uint32_t i = 0; i < s->n_workers; i++)
        ht_os_thread_join(&s->workers[i].thread);
    free(s->workers);
    free(s);
    *sp = NULL;
}

uint32_t ht_stream_threads(const ht_stream *s) { return s->n_threads; }

uint64_t ht_stream_pushed(const ht_stream *s) { return atomic_load_explicit(&s->pushed, memory_order_relaxed); }

uint64_t ht_stream_completed(const ht_stream *s) { return atomic_load_explicit(&s->completed, memory_order_acquire); }

uint64_t ht_stream_push(ht_stream *s, ht_task_fn *fn, const void *ctx, uint32_t n_chunks)
{
    uint64_t number = atomic_load_explicit(&s->pushed, memory_order_relaxed);

    if (number >= HT_RING)
        help_until(s, number - HT_RING + 1, NULL);
    task *t = &s->ring[number % HT_RING];
    /* Nobody may claim by the old number while the fields change. */
    atomic_store(&t->claim, UINT64_MAX);
    t->fn = fn;
    t->ctx = ctx;
    atomic_store_explicit(&t->left, n_chunks, memory_order_relaxed);
    atomic_store_explicit(&t->n_chunks, n_chunks, memory_order_release);
    atomic_store_explicit(&t->claim, number << 32, memory_order_release);
    atomic_store(&s->pushed, number + 1);
    if (atomic_load(&s->sleepers) != 0)
        ring_bell(s);
    return number;
}

ht_status ht_stream_wait(ht_stream *s, uint64_t number, const ht_cancel *cancel)
{
    bool asked = cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed);

    if (!asked) {
        help_until(s, number + 1, cancel);
        /* Workers may have finished everything before this thread looked: who asked is told so all the same. */
        asked = cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed);
    }
    if (asked || atomic_load(&s->dropping)) {
        atomic_store(&s->dropping, true);
        help_until(s, atomic_load(&s->pushed), NULL);
        atomic_store(&s->dropping, false);
        return HT_ECANCELLED;
    }
    return HT_OK;
}
